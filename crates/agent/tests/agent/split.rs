//! Briefs that are work for several agents: planned by themselves, as deep as the crew allows.

use crate::mind::{World, calls, model, one_life, says};
use crate::planning::{answered, begin, effects, ended, ends, minds, start, sum, tasks};
use agent::model::{Answer, Ask, ModelError};
use agent::planning::ledger::{Ledger, Standing};
use agent::planning::{Minds, Round};
use chargehand::Json;
use domain::run::RunStatus;
use engine::{Engine, Place};
use protocol::v1::TaskView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn brief(id: &str, agent: &str, objective: &str, inputs: &[usize], needs: &[&str]) -> Value {
    json!({
        "id": id, "agent": agent, "objective": objective, "inputs": inputs, "needs": needs,
        "acceptance": [], "evidence": [],
    })
}

fn plan(briefs: &[Value]) -> Answer {
    says(&json!({"briefs": briefs}).to_string())
}

/// One invoice is the cashier's, the rest is split; a part of it would be split again, until it is told
/// how deep it may go.
fn leads(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, last) = ends(ask);
    Ok(if first.contains("Plan how this crew reaches") {
        plan(&[
            brief("one", "cashier", "Charge the first", &[1], &[]),
            brief("rest", "supervisor", "Settle the rest", &[2], &["one"]),
            brief("sum", "cashier", "Add up", &[], &["rest"]),
        ])
    } else if first.contains("It: Settle the rest") {
        let second = |agent| brief("two", agent, "Charge the second", &[1], &[]);
        match last.contains("is for “supervisor”, and the agents are: cashier") {
            false => plan(&[second("supervisor")]),
            true => plan(&[
                second("cashier"),
                brief("note", "cashier", "Note it", &[], &["two"]),
            ]),
        }
    } else {
        match last.contains("it cites no result") {
            false => says("All is settled."),
            true => says("All is settled [1], [2], [3], [4]."),
        }
    })
}

fn works(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, _) = ends(ask);
    let charge = |cents: u32| match ask.turns.len() {
        1 => calls(&[("charge", json!({ "cents": cents }))]),
        _ => says(&format!("{cents} cents")),
    };
    Ok(if first.contains("\"invoice\": 1") {
        charge(5)
    } else if first.contains("\"invoice\": 2") {
        charge(7)
    } else if first.contains("Note it") {
        says("noted")
    } else {
        // It gets what came of the whole that it needs, by its parts.
        let both = first.contains("\"rest.two\": \"7 cents\"")
            && first.contains("\"rest.note\": \"noted\"");
        says(if both {
            "7 cents were noted"
        } else {
            "nothing to add"
        })
    })
}

fn deep(depth: u32, told: &crate::mind::Told, cashier: &crate::mind::Told) -> Arc<Minds> {
    Arc::new(Minds {
        depth,
        ..(*minds(told, cashier)).clone()
    })
}

/// How far the plan was in the end.
fn ledger(all: &[TaskView]) -> Ledger {
    let looks = all.iter().filter(|task| task.kind.as_str() == "crew.look");
    let outputs = looks.filter_map(|task| task.output.as_ref().map(Json::value));
    let rounds = outputs.map(|output| serde_json::from_value::<Round>(output).unwrap());
    rounds
        .map(|round| round.ledger)
        .max_by_key(|ledger| ledger.revisions.len())
        .unwrap()
}

#[tokio::test]
async fn a_brief_for_the_supervisor_is_planned_by_itself_and_no_deeper_than_allowed() {
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &deep(2, &planner, &cashier)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    let answer = answered(&view);
    let ends: Vec<&str> = answer
        .sources
        .iter()
        .map(|source| source.objective.as_str())
        .collect();
    assert_eq!(
        ends,
        ["Charge the first", "Charge the second", "Note it", "Add up"]
    );
    assert!(answer.missing.is_empty(), "{answer:?}");
    let all = tasks(&engine, run).await;
    let outputs = format!("{all:?}");
    assert!(outputs.contains("7 cents were noted"), "{outputs}");
    // It is one run with one account, whatever the depth.
    assert_eq!(view.account.unwrap().ledger, sum(&all));
    let ledger = ledger(&all);
    let standing = |name: &str| ledger.entry(name).unwrap().standing;
    assert_eq!(standing("rest"), Standing::Done);
    assert_eq!((ledger.depth("rest"), ledger.depth("rest.two")), (1, 2));
    // That it was split is a version of the plan, and no change of mind.
    let split = ledger.changes().next().unwrap();
    assert_eq!(split.split.as_deref(), Some("rest"));
    assert_eq!(split.added, ["rest.two", "rest.note"]);
    assert_eq!(ledger.replans(), 0);
    worker.stop().await.unwrap();

    // By default nothing is split, and the planner is not told that it could be.
    let planner = model(&world, leads);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &deep(1, &planner, &cashier)).await;
    let view = self::ended(&engine, begin(&engine).await).await;
    assert_eq!(view.status, RunStatus::Failed);
    let why = view.failure.unwrap();
    assert!(
        why.message
            .contains("“supervisor”, and the agents are: cashier"),
        "{why:?}"
    );
    let first = self::ends(&planner.asked.lock().unwrap()[0]).0;
    assert!(!first.contains("may be for “supervisor”"), "{first}");
    worker.stop().await.unwrap();
}

/// What was done outside, and the answer; the first of two lives ends at this moment.
fn over_two_lives(moment: Option<u32>) -> (BTreeMap<String, String>, u32, String) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    world.moments.lock().unwrap().1 = moment;
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let minds = deep(2, &planner, &cashier);
    let mut run = None;
    for _ in 0..2 {
        let over = one_life(async || {
            let engine = Arc::new(Engine::open(&place).unwrap());
            let worker = start(&engine, &minds).await;
            let id = match run {
                Some(id) => id,
                None => *run.insert(begin(&engine).await),
            };
            tokio::select! {
                view = ended(&engine, id) => {
                    worker.stop().await.unwrap();
                    Some(format!("{:?}", answered(&view)))
                }
                () = world.stopped.notified() => None,
            }
        });
        if let Some(answer) = over {
            let done = world.done.lock().unwrap().iter().cloned().collect();
            return (done, world.moments.lock().unwrap().0, answer);
        }
    }
    panic!("it ended neither time");
}

#[test]
fn a_crash_at_any_moment_of_plans_in_plans_changes_nothing() {
    let (done, moments, whole) = over_two_lives(None);
    let charged = ["charge 5", "charge 7"];
    assert_eq!(effects(&done), charged);
    for moment in 1..=moments {
        let (done, _, answer) = over_two_lives(Some(moment));
        assert_eq!(answer, whole, "at {moment}");
        assert_eq!(effects(&done), charged, "at {moment}: under one key each");
    }
}
