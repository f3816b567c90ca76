//! The engine through its `Api`: one binary, a module for each way to look at it.

mod api;
mod bounds;
mod claims;
mod crowd;
mod disk_full;
mod fair;
mod restart;

use domain::command::{Report, Submission};
use domain::event::{Event, Recorded};
use domain::id::TaskId;
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use domain::worker::{Home, WorkerSpec};
use engine::{Engine, Place};
use protocol::api::{Claim, Work};
use protocol::v1::Assignment;
use protocol::{Api, ApiRead};
use serde_json::Value;
use std::path::Path;

fn name(text: impl Into<std::sync::Arc<str>>) -> Name {
    Name::new(text).unwrap()
}

fn open(folder: &Path) -> Engine {
    Engine::open(&Place::Folder(folder.to_owned())).unwrap()
}

fn task(kind: &str, input: Value) -> Submission {
    Submission::new(TaskSpec::new(name(kind), input.into()))
}

async fn submit(engine: &Engine, tasks: Vec<Submission>) -> Vec<TaskId> {
    let answers = engine.task_submit(tasks).await.unwrap();
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

async fn register(engine: &Engine, id: &str, home: Home, capacity: u32) {
    let spec = WorkerSpec {
        home,
        capacity,
        ..WorkerSpec::new(name(id))
    };
    engine.worker_register(spec).await.unwrap();
}

/// What a worker says at once: these results, and that it wants more.
fn work(worker: &str, results: &[(TaskId, u32, Value)], max: u32, wait_ms: u64) -> Work {
    let report = |(task, attempt, output): &(TaskId, u32, Value)| {
        let output = Json::from(output.clone());
        (*task, *attempt, Report::Completed { output })
    };
    Work {
        worker: name(worker),
        session: None,
        reports: results.iter().map(report).collect(),
        claim: Some(Claim {
            max,
            starts: true,
            wait_ms,
            key: None,
            again: false,
        }),
    }
}

async fn claim(engine: &Engine, worker: &str, max: u32) -> Vec<Assignment> {
    let worked = engine.work(work(worker, &[], max, 0)).await;
    worked.unwrap().tasks
}

async fn complete(engine: &Engine, worker: &str, held: &Assignment, output: Value) {
    let done = (held.task_id, held.attempt, output);
    let worked = engine.work(work(worker, &[done], 0, 0)).await.unwrap();
    assert_eq!(worked.reports, [Ok(())]);
}

async fn events(engine: &Engine) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    loop {
        let page = engine.event_list(all.len() as u64, 1_000).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// How often each task completed.
fn completions(events: &[Recorded]) -> std::collections::BTreeMap<TaskId, u32> {
    let mut counts = std::collections::BTreeMap::new();
    for recorded in events {
        if let Event::TaskCompleted { lease, .. } = &recorded.event {
            *counts.entry(lease.task).or_default() += 1;
        }
    }
    counts
}
