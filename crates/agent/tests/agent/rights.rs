//! Who may do what, tried by those who may not: straight, and by every way round that there is.

use crate::mind::{PATIENCE, Told, World, brief, calls, mind, model, says};
use crate::planning::{answered, begin, ended, ends, leads, minds, start, works};
use agent::crew::Crew;
use agent::hands::Granted;
use agent::mind::{Brief, Envelope};
use agent::model::Turn;
use agent::planning::Minds;
use agent::tool::Toolbox;
use chargehand::{Api, ApiRead, Json, Submission, TaskSpec, Worker};
use domain::run::RunStatus;
use domain::task::TaskStatus;
use engine::{Engine, Place};
use protocol::api::RunQuery;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// What a crew file says, with two programs that leave a mark.
fn crew_text(rest: &str) -> String {
    format!(
        "version: 1\nname: desk\nmodels: {{m: anthropic/claude-haiku-4-5}}\nagents:\n  clerk: {{description: Works., instructions: Work., tools: [letters.note, files.read]}}\n  banker: {{description: Pays., instructions: Pay., tools: [money.pay]}}\n{rest}"
    )
}

const TOOLS: &str = "tools:
  files: {root: data}
  letters.note: {command: touch noted, description: Notes., input: {type: object}}
  money.pay: {command: touch paid, description: Pays., input: {type: object}}
";

fn load(folder: &Path, text: &str) -> Result<Crew, String> {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::write(folder.join("data/a.txt"), "inside").unwrap();
    std::fs::write(folder.join("secret.txt"), "outside").unwrap();
    let _ = std::os::unix::fs::symlink(folder.join("secret.txt"), folder.join("data/link.txt"));
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    Crew::load(&file).map_err(|mistakes| {
        let told = mistakes.iter().map(|one| format!("{} {one}\n", one.code));
        told.collect()
    })
}

/// One task for an agent of this crew, whose model this is.
async fn done_by(crew: &Crew, agent: &str, told: &Told, brief: Brief) -> (Arc<Engine>, Envelope) {
    let hands = Granted {
        toolbox: Arc::new(Toolbox::of_crew(crew, []).unwrap()),
        tools: crew.agents[agent].tools.clone(),
        approve: crew.approve.clone(),
    };
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker.handle("think", mind(&[told], Arc::new(hands)));
    let worker = worker.unwrap().start(engine.clone()).await.unwrap();
    let spec = TaskSpec::new("think".parse().unwrap(), json!(brief).into());
    let made = engine.task_submit(vec![Submission::new(spec)]).await;
    let task = made.unwrap().remove(0).unwrap();
    let ended = engine.task_wait(task, PATIENCE).await.unwrap();
    assert_eq!(ended.status, TaskStatus::Completed, "{:?}", ended.failure);
    worker.stop().await.unwrap();
    let output = ended.output.as_ref().map(Json::value).unwrap();
    (engine, serde_json::from_value(output).unwrap())
}

// H-09: what an agent was not granted it cannot do, whatever its model writes: another agent's tool under
// either of its names, delegating, making workers, schedules, the blackboard, a file outside of its folder by
// a path or by a link. Each try is answered with a refusal, has no effect, and leaves the agent at work.
#[tokio::test]
async fn nothing_that_was_not_granted_is_done_by_asking_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let crew = load(folder.path(), &crew_text(TOOLS)).unwrap();
    let forbidden = [
        ("money_pay", json!({})),
        ("money.pay", json!({})),
        ("delegate", json!({"goal": "Pay."})),
        (
            "spawn_worker",
            json!({"name": "w", "tools": ["money.pay"], "prompt": "Pay."}),
        ),
        (
            "schedule_flow",
            json!({"worker_id": "w", "cron": "0 9 * * *"}),
        ),
        ("board_write", json!({"content": 1, "tags": ["x"]})),
        ("shell", json!({"command": "touch paid"})),
        ("http_fetch", json!({"url": "http://127.0.0.1:9/"})),
        ("files_read", json!({"path": "../secret.txt"})),
        ("files_read", json!({"path": "link.txt"})),
        (
            "files_read",
            json!({"path": folder.path().join("secret.txt")}),
        ),
    ];
    let tried = forbidden.len();
    let world = World::default();
    let told = model(&world, move |ask| match ask.turns.last() {
        Some(Turn::Tools { results }) => {
            assert_eq!(results.len(), tried);
            for (result, (tool, arguments)) in results.iter().zip(&forbidden) {
                assert!(result.failed, "{tool} {arguments}: {}", result.text);
                assert!(!result.text.contains("outside"), "{tool}: {}", result.text);
            }
            Ok(says("None of it."))
        }
        _ => Ok(calls(&forbidden)),
    });
    let (engine, envelope) = done_by(&crew, "clerk", &told, brief("Do all you can.")).await;
    assert_eq!(envelope.result, json!("None of it."));
    assert!(
        envelope.evidence.iter().all(|one| !one.succeeded),
        "{envelope:?}"
    );
    assert!(!folder.path().join("paid").exists());
    // Nobody began a run, and no worker came to be.
    assert!(
        engine
            .run_list(RunQuery::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let workers = protocol::api::worker_list_all(&*engine).await.unwrap();
    assert_eq!(workers.len(), 1, "{workers:?}");
}

// H-09: nor by ways round: a crew file cannot grant the right to delegate, to a worker or under another name,
// nor name a tool as one that is built in; and a plan cannot have an agent use what another was granted.
#[tokio::test]
async fn no_way_round_leads_to_what_was_not_granted() {
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str| {
        format!(
            "{TOOLS}  {name}: {{command: touch paid, description: d, input: {{type: object}}}}\n"
        )
    };
    let granting = |tool: &str| crew_text(TOOLS).replace("files.read]", &format!("{tool}]"));
    for (text, code) in [
        (granting("delegate"), "crew.reference"),
        (granting("money.pya"), "crew.reference"),
        (crew_text(&program("delegate")), "crew.name"),
        (crew_text(&program("http.fetch")), "crew.name"),
        (crew_text(&program("board.write")), "crew.name"),
        (
            crew_text(&format!("{TOOLS}mcp: {{board: {{command: x}}}}\n")),
            "crew.name",
        ),
    ] {
        let refused = load(folder.path(), &text).unwrap_err();
        assert!(refused.contains(code), "{refused}: {text}");
    }
    // A plan that has the cashier rest on somebody else's tool is sent back, and nobody begins.
    let world = World::default();
    let planner = model(&world, |ask| {
        let answer = leads(ask)?;
        Ok(says(
            &answer
                .text
                .replace("banker", "cashier")
                .replace("\"charge\"", "\"money.pay\""),
        ))
    });
    let cashier = model(&world, works);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    assert_eq!(view.status, RunStatus::Failed);
    let why = view.failure.unwrap().message;
    assert!(
        why.contains("“money.pay”, which “cashier” was not granted"),
        "{why}"
    );
    assert!(cashier.asked.lock().unwrap().is_empty());
    worker.stop().await.unwrap();
}

// S2-02: who leads is a role of its own: it plans, judges and answers, is offered none of the tools of those
// who work for it, and is refused them when it asks for them all the same.
#[tokio::test]
async fn who_leads_has_no_hands() {
    let world = World::default();
    let planner = model(&world, |ask| {
        let refused = ask.turns.iter().any(|turn| match turn {
            Turn::Tools { results } => {
                assert!(results.iter().all(|result| result.failed), "{results:?}");
                true
            }
            _ => false,
        });
        match ask.turns.len() {
            1 if ends(ask).0.contains("Plan how this crew") && !refused => {
                Ok(calls(&[("charge", json!({"cents": 100}))]))
            }
            _ => leads(ask),
        }
    });
    let cashier = model(&world, works);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    assert_eq!(view.status, RunStatus::Completed, "{:?}", view.failure);
    assert_eq!(answered(&view).sources.len(), 2);
    let asked = planner.asked.lock().unwrap().clone();
    assert!(asked.len() > 3 && asked.iter().all(|ask| ask.tools.is_empty()));
    let charged = world.done.lock().unwrap().clone();
    let what: Vec<&str> = charged.iter().map(|(_, what)| what.as_str()).collect();
    assert!(!what.contains(&"charge 100"), "{what:?}");
    worker.stop().await.unwrap();
}

// S2-59: three rules, each held where a machine can. A prompt says something: an agent without one, and a
// brief without an objective, are refused. Tools are what is needed: none unless granted, none twice, none
// that is not there. Errors are thought of: what a tool does not say may be repeated never is.
#[test]
fn prompts_grants_and_errors_are_checked_where_a_machine_can() {
    let folder = tempfile::tempdir().unwrap();
    let changed = |from: &str, to: &str| load(folder.path(), &crew_text(TOOLS).replace(from, to));
    for (from, to, code) in [
        ("instructions: Work.", "instructions: ''", "crew.value"),
        ("instructions: Work., ", "", "crew.missing_key"),
        ("description: Works.", "description: ''", "crew.value"),
        (
            "letters.note, files.read",
            "files.read, files.read",
            "crew.duplicate",
        ),
        ("letters.note, files.read", "letters.burn", "crew.reference"),
        ("description: Notes.", "description: ''", "crew.value"),
    ] {
        let refused = changed(from, to).unwrap_err();
        assert!(refused.contains(code), "{to}: {refused}");
    }
    let crew = changed(", tools: [letters.note, files.read]", "").unwrap();
    assert!(crew.agents["clerk"].tools.is_empty());
    assert!(!crew.tools["letters.note"].effect.is_repeatable());
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let minds: Arc<Minds> = minds(&planner, &cashier);
    let brief = |objective: &str, evidence: &[&str]| -> Value {
        json!({"briefs": [{"agent": "cashier", "objective": objective, "evidence": evidence}]})
    };
    assert!(minds.lint(&brief("Charge.", &["charge"]), 0).is_ok());
    let refused = minds.lint(&brief(" ", &[]), 0).unwrap_err();
    assert_eq!(refused, "brief 1 has no objective");
    let refused = minds.lint(&brief("Pay.", &["money.pay"]), 0).unwrap_err();
    assert!(refused.contains("“cashier” was not granted"), "{refused}");
}
