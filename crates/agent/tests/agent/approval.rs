//! Calls that wait for a person: for a tool whose every call does, and for arguments that nobody
//! vouches for, whatever the model has read.

use crate::mind::{PATIENCE, Till, World, brief, calls, mind, model, one_life, says};
use agent::hands::{Guard, Hands};
use agent::mind::{Completeness, Envelope, Mind};
use agent::model::{Answer, Ask, ModelError, ToolSpec, Turn};
use async_trait::async_trait;
use chargehand::{
    Api, ApiRead, Context, EffectClass, Failure, Json, Running, Submission, TaskSpec, Worker,
};
use domain::id::TaskId;
use domain::record::Finding;
use domain::task::{TaskStatus, Waits};
use engine::{Engine, Place};
use protocol::v1::TaskView;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A till that is guarded.
#[derive(Debug, Clone)]
struct Guarded(Till, Guard);

#[async_trait]
impl Hands for Guarded {
    async fn specs(&self) -> Vec<ToolSpec> {
        self.0.specs().await
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        self.0.known(tool)
    }
    fn guard(&self, _: &str) -> Guard {
        self.1.clone()
    }
    async fn call(
        &self,
        task: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        self.0.call(task, tool, arguments, key).await
    }
}

fn every() -> Guard {
    Guard {
        every: true,
        sensitive: Vec::new(),
    }
}

fn sensitive() -> Guard {
    Guard {
        every: false,
        sensitive: vec!["cents".into()],
    }
}

/// Charges what it read, and says what came of it.
fn charges(cents: u64) -> impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync {
    move |ask| {
        Ok(match ask.turns.last() {
            Some(Turn::Tools { results }) => says(&results[0].text),
            _ => calls(&[("charge", json!({ "cents": cents }))]),
        })
    }
}

fn clerk(world: &World, cents: u64, guard: Guard) -> Mind {
    let told = model(world, charges(cents));
    let till = Till {
        world: world.clone(),
        effect: EffectClass::AtMostOnce,
    };
    Mind {
        instructions: "A parcel costs 450 cents, never more.".into(),
        ..mind(&[&told], Arc::new(Guarded(till, guard)))
    }
}

async fn at_work(engine: &Arc<Engine>, mind: Mind) -> Running {
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker.handle("think", mind).unwrap();
    worker.start(engine.clone()).await.unwrap()
}

async fn submit(engine: &Engine) -> TaskId {
    let spec = TaskSpec::new(
        "think".parse().unwrap(),
        json!(brief("Charge what the letter says")).into(),
    );
    let tasks = engine.task_submit(vec![Submission::new(spec)]).await;
    tasks.unwrap().remove(0).unwrap()
}

async fn until_it_waits(engine: &Engine, task: TaskId) -> TaskView {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let view = engine.task_get(task).await.unwrap();
        if matches!(view.waits_for, Some(Waits::AwaitingHuman { .. })) {
            return view;
        }
        assert!(view.ended_at.is_none(), "{view:?}");
        assert!(tokio::time::Instant::now() < deadline, "{view:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn say(engine: &Engine, view: &TaskView, said: Value) {
    let Some(Waits::AwaitingHuman { step, .. }) = &view.waits_for else {
        panic!("{view:?}");
    };
    let finding = Finding::Done {
        output: Json::from_value(&said),
    };
    let resolved = engine.record_resolve(view.task_id, step.clone(), finding);
    resolved.await.unwrap();
}

fn envelope(view: &TaskView) -> Envelope {
    let output = view.output.as_ref().map(Json::value);
    serde_json::from_value(output.unwrap_or_else(|| panic!("{view:?}"))).unwrap()
}

#[tokio::test]
async fn a_call_that_needs_a_yes_waits_without_a_worker_and_goes_on_with_it() {
    let world = World::default();
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = at_work(&engine, clerk(&world, 7, every())).await;
    let task = submit(&engine).await;
    let view = until_it_waits(&engine, task).await;
    let Some(Waits::AwaitingHuman { why, .. }) = &view.waits_for else {
        panic!("{view:?}");
    };
    assert_eq!(why, r#"waits for a person's yes to charge {"cents":7}"#);
    assert_eq!(view.status, TaskStatus::Pending, "no worker is held");
    assert!(world.done.lock().unwrap().is_empty());
    say(&engine, &view, json!({"approved": true})).await;
    let ended = engine.task_wait(task, PATIENCE).await.unwrap();
    assert_eq!(envelope(&ended).status, Completeness::Done);
    assert_eq!(world.done.lock().unwrap().len(), 1);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_no_is_told_to_the_agent_with_its_reason_and_nothing_happens() {
    let world = World::default();
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = at_work(&engine, clerk(&world, 7, every())).await;
    let task = submit(&engine).await;
    let view = until_it_waits(&engine, task).await;
    say(
        &engine,
        &view,
        json!({"approved": false, "reason": "too little"}),
    )
    .await;
    let ended = engine.task_wait(task, PATIENCE).await.unwrap();
    let told = "not made: a person said no: too little";
    assert_eq!(envelope(&ended).result, json!(told));
    assert!(world.done.lock().unwrap().is_empty());
    worker.stop().await.unwrap();
}

/// What stands in the agent's instructions was written by a person; what a letter says was not.
#[tokio::test]
async fn a_sensitive_argument_is_filled_by_people_alone() {
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let world = World::default();
    let worker = at_work(&engine, clerk(&world, 450, sensitive())).await;
    let ended = engine
        .task_wait(submit(&engine).await, PATIENCE)
        .await
        .unwrap();
    assert_eq!(envelope(&ended).status, Completeness::Done);
    assert_eq!(world.done.lock().unwrap().len(), 1);
    worker.stop().await.unwrap();
    // 45 is only a part of what stands there.
    for cents in [45, 9_000] {
        let world = World::default();
        let worker = at_work(&engine, clerk(&world, cents, sensitive())).await;
        let task = submit(&engine).await;
        let view = until_it_waits(&engine, task).await;
        let Some(Waits::AwaitingHuman { why, .. }) = &view.waits_for else {
            panic!("{view:?}");
        };
        assert!(why.ends_with("(nobody vouches for `cents`)"), "{why}");
        assert!(world.done.lock().unwrap().is_empty());
        engine.task_cancel(task, "seen".into()).await.unwrap();
        worker.stop().await.unwrap();
    }
}

/// The process dies while a call waits, and after the yes: the yes is not asked for again, and the call
/// is made once.
#[test]
fn a_yes_outlives_the_process_that_asked_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    let task = one_life(async || {
        let engine = Arc::new(Engine::open(&place).unwrap());
        let _worker = at_work(&engine, clerk(&world, 7, every())).await;
        let task = submit(&engine).await;
        until_it_waits(&engine, task).await;
        task
    });
    one_life(async || {
        let engine = Arc::new(Engine::open(&place).unwrap());
        let view = engine.task_get(task).await.unwrap();
        say(&engine, &view, json!({"approved": true})).await;
    });
    one_life(async || {
        let engine = Arc::new(Engine::open(&place).unwrap());
        let worker = at_work(&engine, clerk(&world, 7, every())).await;
        let ended = engine.task_wait(task, PATIENCE).await.unwrap();
        assert_eq!(envelope(&ended).status, Completeness::Done);
        worker.stop().await.unwrap();
    });
    let keys: BTreeSet<String> = world
        .done
        .lock()
        .unwrap()
        .iter()
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!((keys.len(), world.done.lock().unwrap().len()), (1, 1));
}
