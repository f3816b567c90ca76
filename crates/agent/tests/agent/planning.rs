//! A crew of minds on a real engine: plan, work, check, answer; and a crash at every moment of it.

use crate::mind::{PATIENCE, Till, Told, World, calls, mind, model, one_life, says};
use agent::hands::NoHands;
use agent::mind::{Completeness, Mind};
use agent::model::{Answer, Ask, ModelError, Turn};
use agent::planning::{
    Answered, CAPABILITIES, Goal, Ledger as PlanLedger, Member, Minds, Revision, graph, serve,
};
use agent::supervisor::Supervisor;
use chargehand::{Api, ApiRead, Context, EffectClass, Ended, Failure, Json, Running, Worker};
use domain::budget::{Budget, Ledger};
use domain::command::RunStart;
use domain::event::Event;
use domain::id::RunId;
use domain::run::{Crew, RunStatus};
use engine::{Engine, Place};
use protocol::api::TaskQuery;
use protocol::v1::{RunView, TaskView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Backend;

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
        let aside = match cents {
            5 => "\nOpen: Was there a discount?\nConfidence: 0.9",
            _ => "",
        };
        says(&format!("Settled: {cents} cents.{aside}"))
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
        output: None,
    };
    Arc::new(Minds {
        planner: Mind {
            instructions: "You lead.".into(),
            ..mind(&[planner], Arc::new(NoHands))
        },
        members: [("cashier".to_owned(), member)].into(),
        fan_out: 5,
        replans: 2,
        depth: 1,
        spawn: None,
    })
}

pub(crate) async fn start(engine: &Arc<Engine>, minds: &Arc<Minds>) -> Running {
    let worker = Worker::new("worker_1").unwrap().capacity(4);
    let worker = serve(worker, minds).unwrap();
    worker.start(engine.clone()).await.unwrap()
}

pub(crate) async fn begin(engine: &Engine) -> RunId {
    begin_within(engine, Budget::default()).await
}

pub(crate) async fn begin_within(engine: &Engine, budget: Budget) -> RunId {
    let goal = Goal {
        goal: GOAL.into(),
        inputs: vec![json!({"invoice": 1}), json!({"invoice": 2})],
        ..Goal::default()
    };
    let run = RunStart {
        goal: GOAL.into(),
        supervisor: "supervisor_1".parse().unwrap(),
        graph: graph(&goal).unwrap(),
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

/// Where an agent's crew file says the form of its results, what is not of that form is sent back.
#[tokio::test]
async fn what_comes_of_a_brief_has_the_form_that_its_agent_is_to_give() {
    let world = World::default();
    let planner = model(&world, leads);
    let cashier = model(&world, |ask| {
        let (_, last) = ends(ask);
        let asked: Option<&Value> = ask.output.as_ref();
        assert_eq!(asked.map(|form| &form["required"]), Some(&json!(["cents"])));
        Ok(match ask.turns.len() {
            1 => calls(&[("charge", json!({"cents": 5}))]),
            3 => says("Settled: 5 cents."),
            _ => {
                assert!(last.contains("it is not of the wanted form"), "{last}");
                says("{\"cents\": 5}")
            }
        })
    });
    let mut minds = (*minds(&planner, &cashier)).clone();
    let form = json!({"type": "object", "required": ["cents"]});
    minds.members.get_mut("cashier").unwrap().output = Some(form);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(minds)).await;
    let run = begin(&engine).await;
    let ended = ended(&engine, run).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let tasks = tasks(&engine, run).await;
    let work = tasks
        .iter()
        .filter(|task| task.kind.as_str() == "crew.work");
    let results =
        work.map(|task| task.output.as_ref().unwrap().value()["envelope"]["result"].clone());
    assert_eq!(
        results.collect::<Vec<_>>(),
        [json!({"cents": 5}), json!({"cents": 5})]
    );
    worker.stop().await.unwrap();
}

// S0-13: a supervisor makes tasks, workers report back. S0-43: a plan that is wrong is sent back and mended.
// S1-75: who leads and who works ask different models in one run. S0-186, S0-188: the supervisor is tested,
// and so is the way from it to its workers and back.
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
    // What stays open, and how sure they are, comes up with the results and is none of their text.
    assert_eq!(answer.open, ["Was there a discount?"]);
    let mut sure: Vec<_> = answer
        .sources
        .iter()
        .map(|source| source.confidence)
        .collect();
    sure.sort_by(|one, other| one.partial_cmp(other).unwrap());
    assert_eq!(sure, [None, Some(0.9)]);
    let last = planner.asked.lock().unwrap().last().unwrap().clone();
    let told = ends(&last).0;
    assert!(told.contains("\"result\": \"Settled: 5 cents.\""), "{told}");
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
pub(crate) fn effects(done: &BTreeMap<String, String>) -> Vec<&str> {
    let mut all: Vec<_> = done.values().map(String::as_str).collect();
    all.sort_unstable();
    all
}

// S0-43: the same model's answers make the same plan, whenever it is made.
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

// S0-43: a plan is checked against its schema, and refused where it stays wrong. S0-54: no plan is a failure
// with a reason, never nothing to do. S4-42: needs that go round in a circle are named.
#[tokio::test]
async fn plans_that_cannot_be_carried_out_are_refused() {
    let briefs = |briefs: Value| json!({"briefs": briefs}).to_string();
    let brief = |objective: &str| json!({"agent": "cashier", "objective": objective, "inputs": [], "acceptance": [], "evidence": []});
    let named = |id: &str, needs: &[&str]| {
        let mut named = brief(&format!("Do {id}"));
        named["id"] = json!(id);
        named["needs"] = json!(needs);
        named
    };
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
        (
            briefs(json!([{"objective": "a", "inputs": [], "acceptance": [], "evidence": []}])),
            "\"agent\" is a required property",
        ),
        (
            briefs(json!([named("a", &["b"]), named("b", &["c"]), named("c", &["b"])])),
            "the briefs wait for each other: b → c → b",
        ),
        (briefs(json!([named("a", &["z"])])), "needs the brief “z”, which is not there"),
        (briefs(json!([named("a", &[]), named("a", &[])])), "is named “a”, as another is"),
        (
            json!({"effort": "simple", "briefs": [named("a", &[]), named("b", &[]), named("c", &[])]}).to_string(),
            "more than the 2 of an effort that is \"simple\"",
        ),
        (
            briefs((0..1_000).map(|n| brief(&n.to_string())).collect()),
            "1000 briefs, and 5 are allowed",
        ),
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

// S4-79: what is not shown by receipts does not count as done, whatever its agent says.
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
    // The plan could not be changed for the better, so there is nothing to answer with.
    assert_eq!(codes, ["agent.evidence", "agent.evidence", "agent.nothing"]);
    assert!(world.done.lock().unwrap().is_empty());
    worker.stop().await.unwrap();
}

/// A planner of three briefs, the last of which needs the others; and what it makes of a failure.
fn leads_on(revised: &'static str) -> impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync {
    move |ask| {
        let (first, _) = ends(ask);
        let brief = |id: &str, needs: &[&str]| {
            json!({"id": id, "agent": "cashier", "objective": format!("Find {id}"), "needs": needs,
                "inputs": [], "acceptance": [], "evidence": []})
        };
        Ok(if first.contains("Plan how this crew") {
            let briefs = [
                brief("price", &[]),
                brief("stock", &[]),
                brief("sum", &["price", "stock"]),
            ];
            says(&json!({"effort": "moderate", "briefs": briefs}).to_string())
        } else if first.contains("Some briefs of your plan") {
            says(revised)
        } else {
            says("Found [1].")
        })
    }
}

/// Finds everything, but not this.
fn finds_all_but(never: &'static str) -> impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync {
    move |ask| {
        let (first, _) = ends(ask);
        match first.contains(&format!("Find {never}\n")) {
            true => Err(ModelError::new(agent::model::Fault::Refused, "not that")),
            false => Ok(says(&format!("found: {}", first.lines().nth(1).unwrap()))),
        }
    }
}

async fn led(
    planner: impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync + 'static,
    worker: impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync + 'static,
) -> (RunView, Vec<TaskView>, Vec<Ask>, Vec<Ask>) {
    let world = World::default();
    let (planner, worker) = (model(&world, planner), model(&world, worker));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = start(&engine, &minds(&planner, &worker)).await;
    let run = begin(&engine).await;
    let ended = ended(&engine, run).await;
    let tasks = tasks(&engine, run).await;
    running.stop().await.unwrap();
    let (planned, worked) = (
        planner.asked.lock().unwrap().clone(),
        worker.asked.lock().unwrap().clone(),
    );
    (ended, tasks, planned, worked)
}

// S2-05: dependencies, and chains: what one came to is what the next begins with.
#[tokio::test]
async fn a_brief_that_needs_others_begins_after_them_and_gets_their_results() {
    let (ended, tasks, planned, worked) =
        led(leads_on("never asked"), finds_all_but("nothing")).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let answer = answered(&ended);
    assert_eq!(
        (answer.status, answer.sources.len()),
        (Completeness::Done, 3)
    );
    let sum = worked.last().map(ends).unwrap().0;
    assert!(
        sum.contains("Find sum")
            && sum.contains("found: Find price")
            && sum.contains("found: Find stock"),
        "{sum}"
    );
    // Where all goes as planned, looking asks nobody: a plan and an answer.
    assert_eq!(planned.len(), 2);
    let kinds: Vec<String> = tasks.iter().map(|task| task.kind.to_string()).collect();
    assert_eq!(
        kinds,
        [
            "crew.plan",
            "crew.work",
            "crew.work",
            "crew.look",
            "crew.work",
            "crew.look",
            "crew.answer"
        ]
    );
}

// S0-44: a plan and each change of it is a version of its own, with who, why and what.
#[tokio::test]
async fn where_a_brief_fails_the_plan_is_changed_and_says_why() {
    let revised = r#"{"reason": "the stock is not to be had, an estimate is", "drop": ["sum"], "briefs": [
        {"id": "guess", "agent": "cashier", "objective": "Find guess", "inputs": [], "acceptance": [], "evidence": [], "needs": ["price"]}]}"#;
    let (ended, tasks, planned, worked) = led(leads_on(revised), finds_all_but("stock")).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let answer = answered(&ended);
    // The plan and its change are each a version, kept with number, author, reason and difference: the
    // first in what came of planning, the second in what came of looking, and both from then on.
    let ledgers = tasks.iter().filter_map(|task| {
        let output = task.output.as_ref()?.value();
        serde_json::from_value::<PlanLedger>(output.get("ledger")?.clone()).ok()
    });
    let ledgers: Vec<PlanLedger> = ledgers.collect();
    let versions = |ledger: &PlanLedger| -> Vec<(u32, String, bool)> {
        let of = |one: &Revision| (one.version, one.by.clone(), one.reason.is_empty());
        ledger.revisions.iter().map(of).collect()
    };
    let by = |version: u32| (version, "supervisor".to_owned(), false);
    assert_eq!(versions(&ledgers[0]), [by(1)]);
    assert_eq!(versions(&ledgers[1]), [by(1), by(2)]);
    assert_eq!(versions(ledgers.last().unwrap()), [by(1), by(2)]);
    let plan_at = |version: u32| -> Vec<&str> {
        let briefs = ledgers.last().unwrap().plan_at(version).into_iter();
        briefs.map(|brief| brief.id.as_str()).collect()
    };
    assert_eq!(plan_at(1), ["price", "stock", "sum"]);
    assert_eq!(plan_at(2), ["price", "stock", "guess"]);
    let revision = &answer.revisions[0];
    assert_eq!((revision.version, revision.by.as_str()), (2, "supervisor"));
    assert_eq!(answer.revisions.len(), 1);
    assert_eq!(
        (
            revision.round,
            revision.added.as_slice(),
            revision.dropped.as_slice()
        ),
        (1, &["guess".to_owned()][..], &["sum".to_owned()][..])
    );
    assert_eq!(
        revision.reason,
        "the stock is not to be had, an estimate is"
    );
    // What failed is missing, and is said to be; what was given up with the plan is not.
    assert_eq!(answer.status, Completeness::Partial);
    let missing: Vec<_> = answer
        .missing
        .iter()
        .map(|missing| missing.brief.as_str())
        .collect();
    assert_eq!(missing, ["stock"]);
    assert!(
        answer.missing[0].reason.contains("not that"),
        "{:?}",
        answer.missing
    );
    // The planner saw how far each was, and nothing of how it was done.
    let seen = ends(&planned[1]).0;
    assert!(
        seen.contains("\"standing\": \"failed\"") && seen.contains("found: Find price"),
        "{seen}"
    );
    let guess = worked.last().map(ends).unwrap().0;
    assert!(
        guess.contains("Find guess") && guess.contains("found: Find price"),
        "{guess}"
    );
}

// S4-37: MCP tools wait for the agents that use them, and where those do not come about they are not begun,
// and it is said why.
#[tokio::test]
async fn what_needs_something_that_failed_is_not_begun_and_says_why() {
    let leads = |ask: &Ask| {
        let (first, _) = ends(ask);
        let brief = |id: &str, what: &str, needs: &[&str]| {
            json!({"id": id, "agent": "cashier", "objective": format!("Find {what}"), "needs": needs,
                "inputs": [], "acceptance": [], "evidence": []})
        };
        Ok(if first.contains("Plan how this crew") {
            let briefs = [
                brief("3.2", "MCP tools", &["2.1"]),
                brief("2.1", "AI agents", &[]),
                brief("1.3", "examples", &[]),
            ];
            says(&json!({ "briefs": briefs }).to_string())
        } else if first.contains("Some briefs of your plan") {
            says(r#"{"reason": "there is no other way", "drop": [], "briefs": []}"#)
        } else {
            says("Found [1].")
        })
    };
    let order = |worked: &[Ask]| -> Vec<String> {
        let line = |ask: &Ask| ends(ask).0.lines().nth(1).unwrap_or_default().to_owned();
        worked.iter().map(line).collect()
    };
    let (ended, _, _, worked) = led(leads, finds_all_but("nothing")).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    assert_eq!(order(&worked).last().unwrap(), "Find MCP tools");
    assert_eq!(worked.len(), 3);
    let (ended, tasks, _, worked) = led(leads, finds_all_but("AI agents")).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    assert!(!order(&worked).contains(&"Find MCP tools".to_owned()));
    let begun = tasks
        .iter()
        .filter(|task| task.kind.as_str() == "crew.work");
    assert_eq!(begun.count(), 2);
    let missing = answered(&ended).missing;
    let why = missing
        .iter()
        .find(|missing| missing.brief == "3.2")
        .unwrap();
    assert_eq!(why.reason, "what it needs has no result");
}

/// The same again and again is not a plan: what failed twice may not be tried a third time, and a
/// planner that knows nothing else is stopped with what there is.
#[tokio::test]
async fn a_planner_that_repeats_what_fails_is_stopped_with_the_reason() {
    let again = r#"{"reason": "once more", "drop": ["sum"], "briefs": [
        {"agent": "cashier", "objective": "Find stock", "inputs": [], "acceptance": [], "evidence": [], "needs": []}]}"#;
    let (ended, tasks, planned, _) = led(leads_on(again), finds_all_but("stock")).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let answer = answered(&ended);
    assert_eq!(answer.revisions.len(), 1);
    let reason = answer.ended.unwrap();
    assert!(reason.contains("has failed 2 times"), "{reason}");
    let failed = tasks.iter().filter(|task| task.failure.is_some()).count();
    assert_eq!(failed, 2, "tried twice");
    // A plan, a change, the same change three times (with two corrections), the answer.
    assert_eq!(planned.len(), 6);
}

/// Where nothing at all is to be had the run fails, and says why.
// S0-54: giving up is a failure that says why.
#[tokio::test]
async fn a_crew_that_comes_to_nothing_fails_with_the_reason() {
    let give_up = r#"{"reason": "nothing works", "drop": [], "briefs": []}"#;
    let refuses = |_: &Ask| Err(ModelError::new(agent::model::Fault::Refused, "not today"));
    let (ended, ..) = led(leads_on(give_up), refuses).await;
    assert_eq!(ended.status, RunStatus::Failed);
    let failure = ended.failure.unwrap();
    assert!(failure.message.contains("not today"), "{failure:?}");
}

/// A hundred items of which four fail are done again for four items alone.
// S2-05: what failed is done again, and nothing else.
#[tokio::test]
async fn of_a_hundred_briefs_only_the_four_that_failed_are_done_again() {
    let world = World::default();
    let planner = model(&world, |ask| {
        let (first, _) = ends(ask);
        let brief = |n: u32| json!({"agent": "cashier", "objective": format!("Read page {n}."), "inputs": [], "acceptance": [], "evidence": []});
        Ok(if first.contains("Plan how this crew") {
            let briefs: Vec<_> = (1..=100).map(brief).collect();
            says(&json!({ "briefs": briefs }).to_string())
        } else if first.contains("Some briefs of your plan") {
            let briefs: Vec<_> = [7, 30, 31, 99].map(brief).into();
            says(&json!({"reason": "once more", "drop": [], "briefs": briefs}).to_string())
        } else {
            says("All are read [100].")
        })
    });
    let seen: Arc<std::sync::Mutex<BTreeMap<String, u32>>> = Arc::default();
    let counted = Arc::clone(&seen);
    let reader = model(&world, move |ask| {
        let (first, _) = ends(ask);
        let page = first.lines().nth(1).unwrap().to_owned();
        let mut seen = counted.lock().unwrap();
        let times = seen.entry(page.clone()).or_default();
        *times += 1;
        let bad = [
            "Read page 7.",
            "Read page 30.",
            "Read page 31.",
            "Read page 99.",
        ];
        match bad.contains(&page.as_str()) && *times == 1 {
            true => Err(ModelError::new(agent::model::Fault::Refused, "a stain")),
            false => Ok(says(&page)),
        }
    });
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let mut minds = Arc::unwrap_or_clone(minds(&planner, &reader));
    minds.fan_out = 100;
    let running = start(&engine, &Arc::new(minds)).await;
    let run = begin(&engine).await;
    let ended = ended(&engine, run).await;
    running.stop().await.unwrap();
    let answer = answered(&ended);
    assert_eq!(
        (answer.status, answer.sources.len()),
        (Completeness::Done, 100),
        "{answer:?}"
    );
    assert!(answer.missing.is_empty());
    let seen = seen.lock().unwrap();
    let twice = seen.values().filter(|times| **times == 2).count();
    assert_eq!(
        (seen.len(), twice, seen.values().sum::<u32>()),
        (100, 4, 104)
    );
}

// S0-35, S0-36, S0-37, S0-38: who serves a planner is listed with its purpose and what it can do. It is used:
// a plan waits for whoever can make one, and says so; before it plans it finds out which tools there are;
// and only who can delegate is given the task that gives the next briefs out.
#[tokio::test]
async fn a_planner_is_found_by_what_it_can_do() {
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let minds = minds(&planner, &cashier);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    // It takes tasks of these types, and says nothing of being able to plan or to delegate.
    let mut other = Worker::new("other")
        .unwrap()
        .capability("tool_discovery")
        .unwrap();
    for kind in ["crew.plan", "crew.look"] {
        let fails = async |_: Context| Ended::Failed(Failure::permanent("not.mine", "no"));
        other = other.handle(kind, fails).unwrap();
    }
    let other = other.start(engine.clone()).await.unwrap();
    let run = begin(&engine).await;
    let plan = tasks(&engine, run).await.remove(0);
    let waits = json!(plan.waits_for).to_string();
    assert!(
        waits.contains("no_capable_worker") && waits.contains("workflow_planning"),
        "{waits}"
    );
    let worker = start(&engine, &minds).await;
    let listed = engine
        .worker_get("worker_1".parse().unwrap())
        .await
        .unwrap();
    let purpose = listed
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    assert_eq!(purpose.collect::<Vec<_>>(), [("purpose", "orchestration")]);
    let can: Vec<&str> = listed
        .capabilities
        .iter()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(
        can,
        ["workflow_planning", "tool_discovery", "task_delegation"]
    );
    assert_eq!(can, CAPABILITIES);
    let ended = ended(&engine, run).await;
    assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
    let tasks = tasks(&engine, run).await;
    let needed = |kind: &str| {
        let task = tasks
            .iter()
            .find(|task| task.kind.as_str() == kind)
            .unwrap();
        assert_eq!(
            task.worker.as_ref().map(|name| name.as_str()),
            Some("worker_1"),
            "{kind}"
        );
        task.capability.as_ref().map(|name| name.to_string())
    };
    assert_eq!(needed("crew.plan").as_deref(), Some("workflow_planning"));
    assert_eq!(needed("crew.look").as_deref(), Some("task_delegation"));
    let first = ends(&planner.asked.lock().unwrap()[0]).0;
    assert!(first.contains("\"charge\": \"Takes money.\""), "{first}");
    worker.stop().await.unwrap();
    other.stop().await.unwrap();
}

// S0-45: the tasks of a plan and all that tells of them are one transaction with the plan: nobody sees one
// without the other, however the process ends.
#[tokio::test]
async fn a_plan_and_the_tasks_that_it_delegates_are_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let engine = Arc::new(Engine::open(&Place::Folder(store.clone())).unwrap());
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let run = begin(&engine).await;
    assert_eq!(ended(&engine, run).await.status, RunStatus::Completed);
    let tasks = tasks(&engine, run).await;
    let of = |kind: &'static str| tasks.iter().filter(move |task| task.kind.as_str() == kind);
    let plan = of("crew.plan").next().unwrap().task_id;
    let work: Vec<_> = of("crew.work").map(|task| task.task_id).collect();
    assert_eq!(work.len(), 2);
    worker.stop().await.unwrap();
    drop(engine);
    // A frame is a transaction: what it holds came to be at one moment, or not at all.
    let backend = store::backend::sqlite::Sqlite::open_to_read(&store).unwrap();
    let frames = backend.reader().unwrap().frames(0, usize::MAX).unwrap();
    let mut delegated = 0;
    for frame in &frames {
        let events = store::chain::decode(frame).unwrap();
        let ended = events.iter().any(|recorded| {
            matches!(&recorded.event, Event::TaskCompleted { lease, .. } if lease.task == plan)
        });
        let made: Vec<_> = events
            .iter()
            .filter_map(|recorded| match &recorded.event {
                Event::TaskSubmitted { task, .. } if work.contains(task) => Some(*task),
                _ => None,
            })
            .collect();
        if ended {
            delegated += 1;
            assert_eq!(made, work, "with the plan: {events:?}");
        } else {
            assert!(made.is_empty(), "{made:?} without the plan");
        }
    }
    assert_eq!(delegated, 1);
}

#[test]
fn a_plan_has_a_price_before_it_is_done() {
    let world = World::default();
    let told = model(&world, leads);
    let mut minds = Arc::unwrap_or_clone(minds(&told, &told));
    let price = agent::model::price::Price {
        input: 1_000_000,
        cached: 1_000_000,
        output: 2_000_000,
        long: None,
    };
    minds.planner.seats[0].price = Some(price);
    minds.members.get_mut("cashier").unwrap().mind.seats[0].price = Some(price);
    let plan = |count: usize| {
        let briefs: Vec<_> = (0..count)
            .map(|n| json!({"agent": "cashier", "objective": format!("Find {n}"), "inputs": [], "acceptance": [], "evidence": []}))
            .collect();
        minds.lint(&json!({ "briefs": briefs }), 0).unwrap()
    };
    let (one, five) = (
        minds.estimate(&plan(1), &[]).amount,
        minds.estimate(&plan(5), &[]).amount,
    );
    // One brief of a simple goal: three turns and the answer, 250 tokens written in each. Read are
    // 3 x (400 + 1 of the objective + 4 of the instructions) + 500 x 3, and 400 + 250 for the answer.
    assert_eq!(one.calls, 4);
    assert_eq!(one.tokens, 4 * 250 + 3 * 405 + 1_500 + 650);
    assert_eq!(one.usd_micros, one.tokens + 4 * 250);
    assert_eq!(five.calls, 5 * 5 + 1);
    assert!(five.tokens > 4 * one.tokens, "{five:?}");
}
