//! Whoever shares a queue gets its turn, whatever else is in line. Counted in claims, which no
//! machine's speed changes.

use crate::{claim, complete, name, open, register};
use domain::command::RunStart;
use domain::id::RunId;
use domain::limits::RUN_TASKS_MAX;
use domain::run::{Crew, RunStatus};
use domain::worker::Home;
use engine::{Engine, Place};
use protocol::{Api, ApiRead};
use serde_json::json;
use std::collections::BTreeMap;

async fn start(engine: &Engine, tasks: usize) -> RunId {
    let items: Vec<usize> = (0..tasks).collect();
    let steps =
        json!({"steps": [{"id": "part", "each": {"items": items, "task": {"kind": "part"}}}]});
    let run = RunStart {
        goal: format!("{tasks} tasks"),
        supervisor: name("supervisor"),
        graph: serde_json::from_value(steps).unwrap(),
        crew: Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: None,
    };
    engine.run_start(run).await.unwrap()
}

/// Claims one by one until the run has ended: how many claims it took.
async fn claims_until_done(engine: &Engine, run: RunId) -> usize {
    for claims in 0.. {
        if engine.run_get(run).await.unwrap().status == RunStatus::Completed {
            return claims;
        }
        let held = claim(engine, "w", 1).await;
        complete(engine, "w", &held[0], json!(1)).await;
    }
    0
}

async fn waits_no_longer_than_three_times(engine: &Engine) {
    register(engine, "w", Home::InProcess, 1).await;
    let alone = start(engine, 10).await;
    assert_eq!(claims_until_done(engine, alone).await, 10);
    start(engine, RUN_TASKS_MAX).await;
    for _ in 0..3 {
        let light = start(engine, 10).await;
        let claims = claims_until_done(engine, light).await;
        assert!(claims <= 30, "{claims} claims");
    }
}

/// Ten tasks beside a hundred thousand: alone they take ten claims, so here at most thirty.
#[tokio::test]
async fn a_light_run_is_not_kept_waiting_by_a_backlog() {
    waits_no_longer_than_three_times(&Engine::open(&Place::Memory).unwrap()).await;
}

/// The turns are not stored, and yet nobody waits for a backlog because the engine was opened anew.
#[tokio::test]
async fn nor_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    register(&engine, "w", Home::Remote, 1).await;
    start(&engine, 2_000).await;
    let light = start(&engine, 10).await;
    for _ in 0..5 {
        let held = claim(&engine, "w", 1).await;
        complete(&engine, "w", &held[0], json!(1)).await;
    }
    engine.stop().unwrap();
    drop(engine);
    let engine = open(folder.path());
    let claims = claims_until_done(&engine, light).await;
    assert!(claims <= 25, "{claims} claims more");
    engine.stop().unwrap();
}
