//! What happens when a worker or a supervisor is not there any more.

use crate::crew::{self, *};
use agent::monitor::Watch;
use agent::supervisor::Supervisor;
use chargehand::{Context, Ended};
use domain::error::Code;
use domain::run::RunStatus;
use domain::task::TaskStatus;
use domain::worker::{WorkerSpec, WorkerStatus};
use protocol::v1::Signal;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

// S1-12, S1-18, S1-56: another supervisor than the one that delegated gives a running task to another
// worker: a new attempt there, importance 0.9, the old worker is told, and its late result is refused.
#[tokio::test]
async fn a_late_result_is_refused() {
    let api = open();
    puppet(&api, "worker_1", 1).await;
    puppet(&api, "worker_backup", 1).await;
    let run = supervisor(&api)
        .start(&crew::plan("any", 1, &names(1)))
        .await
        .unwrap();
    let old = claim(&api, "worker_1", 1).await.remove(0);
    let other = Supervisor::new(api.clone(), name("supervisor_2"));
    other
        .reassign_task(old.task_id, name("worker_backup"))
        .await
        .unwrap();
    let told = api
        .worker_heartbeat(name("worker_1"), None, PATIENCE)
        .await
        .unwrap();
    assert!(matches!(told[..], [Signal::Stop { task, attempt: 1, .. }] if task == old.task_id));
    let entry = tagged(&api, run, &["task", "pending", "worker_backup"])
        .await
        .remove(0);
    assert_eq!(entry.importance, 0.9);
    assert!(claim(&api, "worker_1", 1).await.is_empty());
    let new = claim(&api, "worker_backup", 1).await.remove(0);
    assert_eq!((new.task_id, new.attempt), (old.task_id, 2));
    let late = report(
        &api,
        "worker_1",
        old.task_id,
        old.attempt,
        done(json!("late")),
    )
    .await;
    assert_eq!(late.unwrap_err().code, Code::AttemptStale);
    report(
        &api,
        "worker_backup",
        new.task_id,
        2,
        done(json!("in time")),
    )
    .await
    .unwrap();
    let late = report(
        &api,
        "worker_1",
        old.task_id,
        old.attempt,
        done(json!("later")),
    )
    .await;
    assert_eq!(late.unwrap_err().code, Code::AttemptStale);
    let task = api.task_get(old.task_id).await.unwrap();
    assert_eq!(task.output.unwrap().value(), json!("in time"));
    assert_eq!(api.statistics().await.unwrap().results_refused, 2);
    let completed = other.reassign_task(old.task_id, name("worker_1")).await;
    assert_eq!(completed.unwrap_err().code, Code::TaskState);
}

// S1-11, S1-88, S1-89: 50 reports by 10 workers; what failed is listed by another supervisor,
// goes to a backup worker on the same engine, and the run that had failed ends whole.
#[tokio::test]
async fn failures_are_swept_to_a_backup() {
    let api = open();
    let mut workers = Vec::new();
    for id in names(10) {
        let unlucky = |task: Context| async move {
            match item(&task) % 7 {
                6 => Ended::failed("figures.missing", "the figures are not there"),
                _ => Ended::done(json!(item(&task))),
            }
        };
        workers.push(start(&api, &id, unlucky).await);
    }
    let run = supervisor(&api)
        .start(&crew::plan("any", 50, &names(10)))
        .await
        .unwrap();
    let view = crew::supervise(&api, run).await;
    assert_eq!(
        (view.status, view.tasks.completed, view.tasks.failed),
        (RunStatus::Failed, 43, 7)
    );
    let sweeper = Supervisor::new(api.clone(), name("supervisor_2"));
    let failures = sweeper.check_failures(run).await.unwrap();
    let failed: Vec<_> = tasks(&api, run)
        .await
        .into_iter()
        .filter(|t| t.status == TaskStatus::Failed)
        .collect();
    assert_eq!(
        failures.iter().map(|f| f.task_id).collect::<Vec<_>>(),
        failed.iter().map(|t| t.task_id).collect::<Vec<_>>()
    );
    for failure in &failures {
        let task = failure.metadata["task_id"].parse().unwrap();
        sweeper
            .reassign_task(task, name("worker_backup"))
            .await
            .unwrap();
    }
    assert_eq!(sweeper.check_failures(run).await.unwrap().len(), 0);
    let _backup = start(&api, "worker_backup", |task: Context| async move {
        Ended::done(json!(item(&task)))
    })
    .await;
    let view = crew::supervise(&api, run).await;
    assert_eq!(
        (view.status, view.tasks.completed, view.partial),
        (RunStatus::Completed, 50, false)
    );
    let made = sweeper.aggregate_results(run).await.unwrap();
    let all: Vec<_> = made
        .results
        .iter()
        .map(|result| result.output.clone())
        .collect();
    assert_eq!(all, (0..50).map(|n| json!(n)).collect::<Vec<_>>());
    let backup = api.worker_get(name("worker_backup")).await.unwrap();
    assert_eq!(backup.completed, 7);
}

// S1-105: a supervisor goes away in the middle; two others go on at once, nothing is planned, run or
// reduced twice.
#[tokio::test]
async fn another_supervisor_goes_on() {
    let api = open();
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let worker = start(&api, "worker_1", move |task: Context| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Ended::done(json!(item(&task)))
        }
    });
    let _worker = worker.await;
    let first = supervisor(&api);
    let run = first
        .start(&crew::plan("any", 20, &names(1)))
        .await
        .unwrap();
    let watching = tokio::spawn(async move { first.supervise(run).await });
    gate.add_permits(10);
    until("half is done", || async {
        count(&api, run, TaskStatus::Completed).await == 10
    })
    .await;
    watching.abort();
    assert!(watching.await.unwrap_err().is_cancelled());
    let (two, three) = (
        Supervisor::new(api.clone(), name("supervisor_2")),
        Supervisor::new(api.clone(), name("supervisor_3")),
    );
    gate.add_permits(10);
    let (two, three) = tokio::join!(two.supervise(run), three.supervise(run));
    let (two, three) = (two.unwrap(), three.unwrap());
    assert_eq!(
        (two.status, &two.final_result),
        (RunStatus::Completed, &three.final_result)
    );
    let all = api.statistics().await.unwrap();
    assert_eq!(
        (all.runs, all.total_tasks_submitted, all.attempts),
        (1, 20, 20)
    );
    assert_eq!((all.tasks_completed, all.results_refused), (20, 0));
}

// S1-31: who is active is known by heartbeat and lease: a worker that says nothing for as long as its
// lease is not counted any more, and its task is free again; one that says something is.
#[tokio::test]
async fn silent_workers_are_not_active() {
    let api = open();
    for (id, lease_ms) in [("worker_1", 300), ("worker_2", 3_600_000)] {
        let spec = WorkerSpec {
            lease_ms,
            ..WorkerSpec::new(name(id))
        };
        api.worker_register(spec).await.unwrap();
    }
    let run = supervisor(&api)
        .start(&crew::plan("any", 2, &names(2)))
        .await
        .unwrap();
    let mut monitor = Watch::new(api.clone());
    assert_eq!(claim(&api, "worker_1", 1).await.len(), 1);
    assert_eq!(claim(&api, "worker_2", 1).await.len(), 1);
    // Alive for three leases, by its heartbeat alone.
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.worker_heartbeat(name("worker_1"), None, Duration::ZERO)
            .await
            .unwrap();
    }
    let seen = monitor.monitor_progress().await.unwrap();
    assert_eq!((seen.active_workers, seen.running_tasks), (2, 2));
    until("silence is noticed", || async {
        api.worker_get(name("worker_1")).await.unwrap().status == WorkerStatus::Unavailable
    })
    .await;
    let seen = monitor.monitor_progress().await.unwrap();
    assert_eq!((seen.active_workers, seen.running_tasks), (1, 1));
    let ended = tasks(&api, run).await.remove(0).ended;
    assert_eq!(ended[0].failure.as_ref().unwrap().code, "attempt.lost");
}
