//! Claims from somebody who is not the worker any more.

use crate::{name, submit, task};
use domain::error::Code;
use domain::worker::{Home, WorkerSpec};
use engine::{Engine, Place};
use protocol::Api;
use protocol::api::{Claim, Work};
use serde_json::json;

async fn register(engine: &Engine, session: u64, capacity: u32) {
    let spec = WorkerSpec {
        home: Home::Remote,
        session,
        capacity,
        ..WorkerSpec::new(name("w"))
    };
    engine.worker_register(spec).await.unwrap();
}

fn numbered(session: u64, number: u64, again: bool, wait_ms: u64) -> Work {
    Work {
        worker: name("w"),
        session: Some(session),
        reports: Vec::new(),
        claim: Some(Claim {
            key: Some(number),
            again,
            ..Claim::new(1, wait_ms)
        }),
    }
}

async fn some_tasks(engine: &Engine, count: usize) {
    let tasks = (0..count).map(|n| task("t", json!(n))).collect();
    submit(engine, tasks).await;
}

/// A process that was silent for long asks again for what it once asked, and another has its id now.
#[tokio::test]
async fn a_life_that_is_over_is_not_given_what_the_next_one_holds() {
    let engine = Engine::open(&Place::Memory).unwrap();
    register(&engine, 7, 1).await;
    register(&engine, 8, 1).await;
    some_tasks(&engine, 1).await;
    let held = engine.work(numbered(8, 1, false, 0)).await.unwrap().tasks;
    assert_eq!(held.len(), 1);
    let old = engine.work(numbered(7, 1, true, 0)).await;
    let refused = match old {
        Ok(worked) => {
            assert_eq!(worked.tasks, []);
            worked.refused.unwrap()
        }
        Err(error) => error,
    };
    assert_eq!(refused.code, Code::WorkerSuperseded);
    assert_eq!(
        engine.work(numbered(8, 1, true, 0)).await.unwrap().tasks,
        held
    );
}
