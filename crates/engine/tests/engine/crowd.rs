//! Many at once.

use crate::{completions, events, name, open, register, submit, task, work};
use domain::id::TaskId;
use domain::worker::Home;
use engine::{Engine, Place};
use protocol::{Api, ApiRead};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WORKERS: usize = 64;
const TASKS: usize = 2_000;

/// Works until nothing comes any more; how many it completed.
async fn toil(engine: Engine, me: String) -> u64 {
    let mut done: Vec<(TaskId, u32, Value)> = Vec::new();
    let mut count = 0;
    loop {
        let worked = engine.work(work(&me, &done, 4, 1_000)).await.unwrap();
        assert!(worked.reports.iter().all(Result::is_ok));
        count += worked.reports.len() as u64;
        if worked.tasks.is_empty() {
            return count;
        }
        let result = |held: &protocol::v1::Assignment| {
            let n = held.input.value().as_u64().unwrap();
            (held.task_id, held.attempt, json!(2 * n))
        };
        done = worked.tasks.iter().map(result).collect();
        tokio::task::yield_now().await;
    }
}

async fn a_crowd_completes_each_once(engine: Engine) {
    for n in 0..WORKERS {
        register(&engine, &format!("worker-{n}"), Home::InProcess, 4).await;
    }
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| tokio::spawn(toil(engine.clone(), format!("worker-{n}"))))
        .collect();
    let mut tasks = Vec::new();
    for part in 0..20 {
        let size = TASKS / 20;
        let some = (part * size..(part + 1) * size).map(|n| task("double", json!(n)));
        tasks.extend(submit(&engine, some.collect()).await);
    }
    let mut by_worker = BTreeMap::new();
    for (n, worker) in workers.into_iter().enumerate() {
        let count = worker.await.unwrap();
        if count > 0 {
            by_worker.insert(name(format!("worker-{n}")), count);
        }
    }
    let statistics = engine.statistics().await.unwrap();
    let n = TASKS as u64;
    assert_eq!(
        (statistics.total_tasks_submitted, statistics.tasks_completed),
        (n, n)
    );
    assert_eq!((statistics.attempts, statistics.results_refused), (n, 0));
    assert_eq!(statistics.tasks_by_agent, by_worker);
    assert_eq!(by_worker.values().sum::<u64>(), n);
    let completed = completions(&events(&engine).await);
    assert!(tasks.iter().all(|task| completed.get(task) == Some(&1)));
    assert_eq!(completed.len(), TASKS);
    for (n, task) in tasks.iter().enumerate().step_by(97) {
        let output = engine.task_get(*task).await.unwrap().output.unwrap();
        assert_eq!(output.value(), json!(2 * n));
    }
}

// S3-119, S3-125, S3-126, S3-172: exact under concurrency, in parallel.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_workers_complete_each_task_once_in_memory() {
    a_crowd_completes_each_once(Engine::open(&Place::Memory).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_workers_complete_each_task_once_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    a_crowd_completes_each_once(open(folder.path())).await;
}
