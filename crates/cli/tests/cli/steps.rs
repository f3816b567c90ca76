//! Steps that may or may not have happened, as a person finds and settles them.

use crate::world::World;
use domain::command::{Report, Submission};
use domain::json::Json;
use domain::name::Name;
use domain::record::{EffectClass, NewRecord, RecordState};
use domain::task::TaskSpec;
use domain::worker::WorkerSpec;
use engine::{Engine, Place};
use protocol::Api;
use protocol::api::{Claim, Work};

#[tokio::test]
async fn a_person_says_whether_a_step_in_doubt_happened() {
    let world = World::new();
    let place = Place::Folder(world.path(".chargehand"));
    let engine = Engine::open(&place).unwrap();
    let worker: Name = "w".parse().unwrap();
    let work = |reports, max| Work {
        worker: worker.clone(),
        session: None,
        reports,
        claim: (max > 0).then(|| Claim::new(max, 0)),
    };
    let spec = TaskSpec::new("order".parse().unwrap(), Json::default());
    engine
        .worker_register(WorkerSpec::new(worker.clone()))
        .await
        .unwrap();
    engine
        .task_submit(vec![Submission::new(spec)])
        .await
        .unwrap();
    let held = engine.work(work(vec![], 1)).await.unwrap().tasks.remove(0);
    let intends = |key: &str| {
        let report = Report::Recorded(NewRecord {
            key: key.parse().unwrap(),
            effect: EffectClass::AtMostOnce,
            state: RecordState::Intended,
            cost: None,
        });
        (held.task_id, held.attempt, report)
    };
    let says = vec![intends("charge"), intends("mail")];
    engine.work(work(says, 0)).await.unwrap();
    drop(engine);

    let task = held.task_id.to_string();
    let on = |args: &[&'static str]| {
        let all = [&["tasks", args[0], &task], &args[1..]].concat();
        world.run(&all)
    };
    // Nobody knows what became of either step.
    on(&["cancel"]).ended(0);
    let shown = on(&["show"]).ended(0).out;
    assert!(
        shown.contains("charge in_doubt by attempt 1 (at_most_once)"),
        "{shown}"
    );
    on(&["resolve", "charge"]).ended(2);
    on(&["resolve", "charge", "--done", "{"]).refused(2, "json.malformed");
    on(&["resolve", "tea", "--done", "1"]).refused(2, "record.unknown");
    let charged = ["resolve", "charge", "--done", "{\"receipt\": 7}"];
    let shown = on(&charged).ended(0).out;
    assert!(
        shown.contains("charge done by attempt 1 (at_most_once) — {\"receipt\": 7}"),
        "{shown}"
    );
    on(&["resolve", "charge", "--not-done", "no"]).refused(2, "record.state");
    let shown = on(&["resolve", "mail", "--not-done", "not in the outbox"]);
    let shown = shown.ended(0).out;
    assert!(
        shown.contains("mail failed by attempt 1 (at_most_once) — step.not_done: not in"),
        "{shown}"
    );
}
