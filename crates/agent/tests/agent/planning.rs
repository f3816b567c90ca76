//! A crew of minds on a real engine: plan, work, check, answer; and a crash at every moment of it.

use crate::mind::{PATIENCE, Till, Told, World, calls, mind, model, one_life, says};
use agent::hands::NoHands;
use agent::mind::{Completeness, Mind};
use agent::model::{Answer, Ask, ModelError, Turn};
use agent::planning::{
    ANSWER_KIND, AnswerHandler, Answered, Goal, Member, Minds, PLAN_KIND, PlanHandler, WORK_KIND,
    WorkHandler, graph,
};
use agent::supervisor::Supervisor;
use chargehand::{Api, ApiRead, EffectClass, Json, Running, Worker};
use domain::budget::{Budget, Ledger};
use domain::command::RunStart;
use domain::id::RunId;
use domain::run::{Crew, RunStatus};
use engine::{Engine, Place};
use protocol::api::TaskQuery;
use protocol::v1::{RunView, TaskView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const GOAL: &str = "Settle the two invoices";

/// What a turn tells, the first and the last.
pub(crate) fn ends(ask: &Ask) -> (String, String) {
    let text = |turn: &Turn| match turn {
        Turn::User { text } => text.clone(),
        other => json!(other).to_string(),
    };
    (text(&ask.turns[0]), text(ask.turns.last().unwrap()))
}

fn plan(agent: &str) -> Value {
    let brief = |number: u64| {
        json!({
            "agent": agent,
            "objective": format!("Charge invoice {number}"),
            "inputs": [number],
            "acceptance": ["the amount is right"],
            "evidence": ["charge"],
        })
    };
    json!({"briefs": [brief(1), brief(2)]})
}

/// The planner: names an agent that is not there, until it is told; accepts a result only when it says
/// how much; cites nothing, until it is told.
pub(crate) fn leads(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, last) = ends(ask);
    Ok(if first.contains("Plan how this crew") {
        match last.contains("the agents are: cashier") {
            false => says(&plan("banker").to_string()),
            true => says(&plan("cashier").to_string()),
        }
    } else if first.contains("Judge whether") {
        let accepted = first.contains("cents");
        says(&json!({"accepted": accepted, "reason": "how much?"}).to_string())
    } else {
        match last.contains("it cites no result") {
            false => says("Both are settled."),
            true => says("Both are settled [1], [2]."),
        }
    })
}

/// The cashier: claims without having charged, until it is told; then charges; says how much only when
/// it was asked.
pub(crate) fn works(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, last) = ends(ask);
    let cents = if first.contains("invoice 1") { 5 } else { 7 };
    Ok(if ask.turns.len() == 1 {
        says("Settled.")
    } else if last.contains("no receipt") {
        calls(&[("charge", json!({"cents": cents}))])
    } else if first.contains("how much?") {
        says(&format!("Settled: {cents} cents."))
    } else {
        says("Settled.")
    })
}

pub(crate) fn minds(planner: &Told, cashier: &Told) -> Arc<Minds> {
    let hands = Till {
        world: cashier.world.clone(),
        effect: EffectClass::Keyed,
    };
    let member = Member {
        description: "Takes money.".into(),
        mind: mind(&[cashier], Arc::new(hands)),
        tools: ["charge".to_owned()].into(),
    };
    Arc::new(Minds {
        planner: Mind {
            instructions: "You lead.".into(),
            ..mind(&[planner], Arc::new(NoHands))
        },
        members: [("cashier".to_owned(), member)].into(),
        fan_out: 5,
    })
}

pub(crate) async fn start(engine: &Arc<Engine>, minds: &Arc<Minds>) -> Running {
    let worker = Worker::new("worker_1").unwrap().capacity(4);
    let worker = worker
        .handle(PLAN_KIND, PlanHandler(minds.clone()))
        .unwrap();
    let worker = worker
        .handle(WORK_KIND, WorkHandler(minds.clone()))
        .unwrap();
    let worker = worker
        .handle(ANSWER_KIND, AnswerHandler(minds.clone()))
        .unwrap();
    worker.start(engine.clone()).await.unwrap()
}

pub(crate) async fn begin(engine: &Engine) -> RunId {
    begin_within(engine, Budget::default()).await
}

pub(crate) async fn begin_within(engine: &Engine, budget: Budget) -> RunId {
    let goal = Goal {
        goal: GOAL.into(),
        inputs: vec![json!({"invoice": 1}), json!({"invoice": 2})],
    };
    let run = RunStart {
        goal: GOAL.into(),
        supervisor: "supervisor_1".parse().unwrap(),
        graph: graph(&goal, None).unwrap(),
        crew: Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: Some(budget),
    };
    engine.run_start(run).await.unwrap()
}

pub(crate) async fn ended(engine: &Arc<Engine>, run: RunId) -> RunView {
    let supervisor = Supervisor::new(engine.clone(), "supervisor_1".parse().unwrap());
    let watched = tokio::time::timeout(PATIENCE, supervisor.supervise(run)).await;
    watched.expect("it ends").unwrap()
}

pub(crate) async fn tasks(engine: &Engine, run: RunId) -> Vec<TaskView> {
    let query = TaskQuery {
        run: Some(run),
        limit: 100,
        ..TaskQuery::default()
    };
    engine.task_list(query).await.unwrap().items
}

/// What tasks spent and hold, added up.
pub(crate) fn sum(tasks: &[TaskView]) -> Ledger {
    let add = |sum: Ledger, task: &TaskView| Ledger {
        spent: sum.spent.plus(task.account.spent),
        held: sum.held.plus(task.account.held),
    };
    tasks.iter().fold(Ledger::default(), add)
}

pub(crate) fn answered(run: &RunView) -> Answered {
    let result = run.final_result.as_ref().map(Json::value);
    serde_json::from_value(result.unwrap_or_else(|| panic!("{run:?}"))).unwrap()
}

#[tokio::test]
async fn a_goal_becomes_briefs_results_and_one_answer_that_cites_them() {
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let run = begin(&engine).await;
    let ended = ended(&engine, run).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let answer = answered(&ended);
    assert_eq!(answer.text, "Both are settled [1], [2].");
    assert_eq!(answer.status, Completeness::Done);
    assert_eq!(answer.sources.len(), 2);
    // What is cited has receipts, and they are there.
    let tasks = tasks(&engine, run).await;
    for source in &answer.sources {
        assert_eq!(source.agent, "cashier");
        assert_eq!(
            source.receipts.len(),
            1,
            "the second try used the first one's receipt"
        );
        let of = |task: &&TaskView| {
            let output = task.output.as_ref().map(Json::value).unwrap_or_default();
            output["objective"] == json!(source.objective)
        };
        let task = tasks.iter().find(of).unwrap().task_id;
        let task = engine.task_get(task).await.unwrap();
        let receipt = |record: &&domain::record::Record| record.key.as_str() == source.receipts[0];
        assert_eq!(
            task.records.iter().find(receipt).unwrap().state.as_str(),
            "done"
        );
    }
    // Each was granted its own invoice, and saw nothing else.
    for ask in cashier.asked.lock().unwrap().iter() {
        let (first, _) = ends(ask);
        let (own, other) = match first.contains("Charge invoice 1") {
            true => (1, 2),
            false => (2, 1),
        };
        assert!(first.contains(&format!("\"invoice\": {own}")), "{first}");
        assert!(!first.contains(&format!("\"invoice\": {other}")), "{first}");
        assert!(!first.contains(GOAL), "{first}");
    }
    worker.stop().await.unwrap();
}

/// Runs it to its end over so many lives, the first of which ends at this moment. Gives what was done
/// outside, by key, how often the models were asked, and the answer.
fn over_two_lives(moment: Option<u32>) -> (BTreeMap<String, String>, usize, u32, Answered) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    world.moments.lock().unwrap().1 = moment;
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let minds = minds(&planner, &cashier);
    let mut run = None;
    for _ in 0..2 {
        let ended = one_life(async || {
            let engine = Arc::new(Engine::open(&place).unwrap());
            let worker = start(&engine, &minds).await;
            let id = match run {
                Some(id) => id,
                None => *run.insert(begin(&engine).await),
            };
            tokio::select! {
                ended = ended(&engine, id) => {
                    worker.stop().await.unwrap();
                    Some((ended, sum(&tasks(&engine, id).await)))
                }
                () = world.stopped.notified() => None,
            }
        });
        if let Some((ended, sum)) = ended {
            let asked = planner.asked.lock().unwrap().len() + cashier.asked.lock().unwrap().len();
            let done = world.done.lock().unwrap().iter().cloned().collect();
            let moments = world.moments.lock().unwrap().0;
            // Whenever it died, the run's account is the sum of its tasks'.
            assert_eq!(ended.account.unwrap().ledger, sum, "at {moment:?}");
            return (done, asked, moments, answered(&ended));
        }
    }
    panic!("it ended neither time");
}

/// What was done, whatever its keys.
fn effects(done: &BTreeMap<String, String>) -> Vec<&str> {
    let mut all: Vec<_> = done.values().map(String::as_str).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_crash_at_any_moment_of_a_crew_changes_nothing_that_anybody_sees() {
    let (done, asked, moments, whole) = over_two_lives(None);
    let charged = ["charge 5", "charge 7"];
    assert_eq!(effects(&done), charged);
    for moment in 1..=moments {
        let (done, again, _, answer) = over_two_lives(Some(moment));
        assert_eq!(answer, whole, "at {moment}");
        assert_eq!(effects(&done), charged, "at {moment}: under one key each");
        // At most what two workers' tasks had in flight is asked again.
        assert!(
            (asked..=asked + 2).contains(&again),
            "at {moment}: {again} for {asked}"
        );
    }
}

#[tokio::test]
async fn plans_that_cannot_be_carried_out_are_refused() {
    let briefs = |briefs: Value| json!({"briefs": briefs}).to_string();
    let brief = |objective: &str| json!({"agent": "cashier", "objective": objective, "inputs": [], "acceptance": [], "evidence": []});
    let mut foreign = brief("a");
    foreign["evidence"] = json!(["launch"]);
    let mut absent = brief("a");
    absent["inputs"] = json!([3]);
    let cases = [
        (briefs(json!([])), "briefs"),
        (
            briefs(json!([brief("a"), brief(" A ")])),
            "the same objective",
        ),
        (briefs(json!([brief(" ")])), "brief 1 has no objective"),
        (
            briefs(json!([foreign])),
            "“launch”, which “cashier” was not granted",
        ),
        (briefs(json!([absent])), "needs input 3, and there are 2"),
        (
            briefs((0..6).map(|n| brief(&n.to_string())).collect()),
            "6 briefs, and 5 are allowed",
        ),
        ("Let me think about it.".into(), "no JSON"),
    ];
    for (plan, complaint) in cases {
        let world = World::default();
        let planner = model(&world, move |_| Ok(says(&plan)));
        let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
        let worker = start(&engine, &minds(&planner, &model(&world, works))).await;
        let run = begin(&engine).await;
        let ended = ended(&engine, run).await;
        assert_eq!(ended.status, RunStatus::Failed, "{complaint}");
        let task = tasks(&engine, run).await.remove(0);
        let failure = task.failure.unwrap();
        assert_eq!(failure.code, "agent.output");
        assert!(failure.message.contains(complaint), "{}", failure.message);
        assert_eq!(
            planner.asked.lock().unwrap().len(),
            3,
            "a plan and two corrections"
        );
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_claim_without_its_receipts_fails_its_brief() {
    let world = World::default();
    let planner = model(&world, leads);
    let claims = model(&world, |_| Ok(says("Settled, trust me: 5 cents.")));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&planner, &claims)).await;
    let run = begin(&engine).await;
    let ended = ended(&engine, run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    let failed = tasks(&engine, run).await;
    let failures = failed.iter().filter_map(|task| task.failure.as_ref());
    let codes: Vec<_> = failures.map(|failure| failure.code.as_str()).collect();
    assert_eq!(codes, ["agent.evidence", "agent.evidence"]);
    assert!(world.done.lock().unwrap().is_empty());
    worker.stop().await.unwrap();
}
