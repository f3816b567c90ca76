//! What was acknowledged is there again, and who was at work is treated as what became of them.

use crate::{claim, complete, name, open, register, submit, task, work};
use domain::blackboard::{EntryFilter, NewEntry};
use domain::command::RunStart;
use domain::error::Code;
use domain::message::{NewMessage, To};
use domain::pool::{Pool, Strategy};
use domain::run::{Crew, RunStatus};
use domain::task::{AttemptState, TaskStatus, Waits};
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use engine::{Engine, Place};
use protocol::api::{RunQuery, TaskQuery};
use protocol::{Api, ApiRead};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// The store as a killed process would leave it: what is on disk while the engine still runs.
fn image(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.db-wal"] {
        if folder.join(file).exists() {
            std::fs::copy(folder.join(file), copy.path().join(file)).unwrap();
        }
    }
    copy
}

async fn start_run(engine: &Engine) -> domain::id::RunId {
    let graph = json!({"steps": [
        {"id": "part", "each": {"items": [1, 2, 3], "task": {"kind": "double", "queue": "runs"}}},
        {"id": "all", "needs": ["part"], "gate": {"join": "all", "reduce": "collect"}},
    ]});
    let run = RunStart {
        goal: "double these".into(),
        supervisor: name("supervisor"),
        graph: serde_json::from_value(graph).unwrap(),
        crew: Crew::default(),
        metadata: Default::default(),
        key: None,
        trace: None,
        budget: None,
    };
    engine.run_start(run).await.unwrap()
}

async fn serve(engine: &Engine, id: &str, home: Home, queue: &str) {
    let spec = WorkerSpec {
        home,
        capacity: 9,
        queues: vec![name(queue)],
        ..WorkerSpec::new(name(id))
    };
    engine.worker_register(spec).await.unwrap();
}

// S3-111, S3-118, S3-134, S3-55, S3-136: durable before return; statistics and counts exact after
// restart and after a crash.
// S4-17, S4-57: a run goes on from where it was. S3-48: nobody has heard the distant worker yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_there_again() {
    for crash in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(folder.path());
        let tasks = submit(&engine, (0..6).map(|n| task("a", json!(n))).collect()).await;
        serve(&engine, "mortal", Home::InProcess, "default").await;
        serve(&engine, "distant", Home::Remote, "default").await;
        serve(&engine, "runner", Home::Remote, "runs").await;
        let mortal = claim(&engine, "mortal", 2).await;
        let distant = claim(&engine, "distant", 1).await;
        complete(&engine, "mortal", &mortal[0], json!("done")).await;
        engine.task_cancel(tasks[5], "no".into()).await.unwrap();
        let run = start_run(&engine).await;
        let parts = claim(&engine, "runner", 2).await;
        complete(&engine, "runner", &parts[0], json!(2)).await;
        let entry = NewEntry {
            run: Some(run),
            ..NewEntry::new(name("ann"), json!("of the run").into())
        };
        let entry = engine.entry_write(entry).await.unwrap();
        engine
            .entry_claim(entry, None, Some(name("bob")))
            .await
            .unwrap();
        engine
            .message_subscribe(name("ann"), Vec::new())
            .await
            .unwrap();
        let note = |n: u32| {
            let to = To::Agent(name("ann"));
            NewMessage::new(name("boss"), to, name("note"), json!(n).into())
        };
        let settled = engine.message_send(note(1)).await.unwrap();
        let open_one = engine.message_send(note(2)).await.unwrap();
        let received = engine.message_receive(name("ann"), 9, Duration::ZERO).await;
        assert_eq!(received.unwrap().len(), 2);
        engine
            .message_settle(settled, name("ann"), None)
            .await
            .unwrap();
        let pool = Pool {
            id: name("crew"),
            strategy: Strategy::Weighted,
            members: vec![name("distant")],
            version: 0,
        };
        engine.pool_define(pool.clone(), None).await.unwrap();
        engine.queue_pause(name("default"), true).await.unwrap();
        let before = engine.statistics().await.unwrap();

        let copy = crash.then(|| image(folder.path()));
        drop(engine);
        let engine = open(copy.as_ref().map_or(folder.path(), |copy| copy.path()));

        // Only what the dead worker held has moved, from “in progress” to “pending”.
        let mut after = engine.statistics().await.unwrap();
        assert_eq!((before.tasks_in_progress, before.tasks_pending), (3, 3));
        assert_eq!((after.tasks_in_progress, after.tasks_pending), (2, 4));
        assert_eq!(
            after.position,
            before.position + 2,
            "attempt.ended, worker.lost"
        );
        (after.tasks_in_progress, after.tasks_pending) = (3, 3);
        after.position = before.position;
        assert_eq!(after, before);
        assert_eq!(
            (
                after.total_tasks_submitted,
                after.tasks_completed,
                after.tasks_cancelled
            ),
            (9, 2, 1)
        );
        let status = |n: usize| {
            let engine = engine.clone();
            let task = tasks[n];
            async move { engine.task_get(task).await.unwrap() }
        };
        let done = status(0).await;
        assert_eq!(
            (done.status, done.output),
            (TaskStatus::Completed, Some(json!("done").into()))
        );
        let lost = status(1).await;
        assert_eq!((lost.status, lost.attempts), (TaskStatus::Pending, 1));
        assert_eq!(lost.ended.last().unwrap().state, AttemptState::Lost);
        let paused = Waits::Paused {
            queue: name("default"),
        };
        assert_eq!(lost.waits_for, Some(paused));
        let dead = engine.worker_get(name("mortal")).await.unwrap();
        assert_eq!(
            (dead.status, dead.current_task_count),
            (WorkerStatus::Unavailable, 0)
        );
        let unheard = engine.worker_get(name("distant")).await.unwrap().status;
        assert_eq!((unheard, unheard as u8), (WorkerStatus::Unknown, 0));
        // The distant worker may not even have noticed: it keeps its task and its token.
        assert_eq!(status(2).await.status, TaskStatus::InProgress);
        complete(&engine, "distant", &distant[0], json!("late but right")).await;
        assert_eq!(status(2).await.status, TaskStatus::Completed);
        let late = engine
            .work(work(
                "mortal",
                &[(mortal[1].task_id, mortal[1].attempt, json!("dead"))],
                0,
                0,
            ))
            .await
            .unwrap();
        assert_eq!(
            late.reports[0].as_ref().unwrap_err().code,
            Code::AttemptStale
        );
        assert_eq!(status(5).await.cancelled.as_deref(), Some("no"));
        let queues = engine.queue_list().await.unwrap();
        let counts: Vec<_> = queues
            .iter()
            .map(|q| (&*q.queue, q.pending, q.leased))
            .collect();
        assert_eq!(counts, [("default", 3, 0), ("runs", 1, 1)]);
        assert!(queues[0].paused);
        let defined = Pool { version: 1, ..pool };
        assert_eq!(engine.pool_list().await.unwrap(), [defined]);

        // The run goes on from where it was.
        let view = engine.run_get(run).await.unwrap();
        assert_eq!((view.status, view.tasks.completed), (RunStatus::Running, 1));
        complete(&engine, "runner", &parts[1], json!(4)).await;
        let last = claim(&engine, "runner", 9).await;
        assert_eq!(last.len(), 1);
        complete(&engine, "runner", &last[0], json!(6)).await;
        let view = engine.run_get(run).await.unwrap();
        assert_eq!(view.final_result, Some(json!([2, 4, 6]).into()));
        let board = EntryFilter {
            run: Some(run),
            author: Some(name("ann")),
            ..EntryFilter::default()
        };
        let board = engine.entry_list(board).await.unwrap();
        assert_eq!((board[0].id, board.len()), (entry, 1));
        assert_eq!(board[0].claimed_by, Some(name("bob")));

        // The message that was received and not settled is offered again; the settled one is not.
        let again = engine.message_receive(name("ann"), 9, Duration::ZERO).await;
        let again: Vec<_> = again.unwrap().iter().map(|one| one.id).collect();
        assert_eq!(again, [open_one]);
        let all = engine.task_list(TaskQuery::default()).await.unwrap();
        assert_eq!(all.items.len(), 9);
        let runs = engine.run_list(RunQuery::default()).await.unwrap();
        assert_eq!(runs.items.len(), 1);
    }
}

/// A remote worker has a lease's time to be heard again; then it is gone like any silent one.
// S3-64, S3-135: without a heartbeat the lease is over, also across a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_worker_has_a_lease_of_grace() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for id in ["heard", "silent"] {
        let spec = WorkerSpec {
            lease_ms: 1_500,
            ..WorkerSpec::new(name(id))
        };
        engine.worker_register(spec).await.unwrap();
    }
    let tasks = submit(&engine, vec![task("a", json!(1)), task("b", json!(2))]).await;
    let heard = claim(&engine, "heard", 1).await;
    claim(&engine, "silent", 1).await;
    drop(engine);
    // Down for longer than the lease: nobody could have been heard.
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    let engine = open(folder.path());
    let opened = Instant::now();
    let engine_ = engine.clone();
    let beating = tokio::spawn(async move {
        loop {
            let beat = engine_.worker_heartbeat(name("heard"), None, Duration::ZERO);
            assert!(beat.await.is_ok());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    loop {
        let status = engine.task_get(tasks[1]).await.unwrap().status;
        let waited = opened.elapsed();
        if status == TaskStatus::Pending {
            assert!(waited > Duration::from_millis(1_300), "{waited:?}");
            break;
        }
        assert!(waited < Duration::from_millis(2_500), "{waited:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    beating.abort();
    complete(&engine, "heard", &heard[0], json!("in time")).await;
    assert_eq!(
        engine.task_get(tasks[0]).await.unwrap().status,
        TaskStatus::Completed
    );
}

/// A worker that was gone before the restart is gone after it: its heartbeat tells it to register.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_gone_stays_gone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    register(&engine, "w", Home::Remote, 1).await;
    engine
        .worker_leave(name("w"), None, "good-bye".into())
        .await
        .unwrap();
    drop(engine);
    let engine = open(folder.path());
    let beat = engine
        .worker_heartbeat(name("w"), None, Duration::ZERO)
        .await;
    assert_eq!(beat.unwrap_err().code, Code::WorkerUnknown);
    let view = engine.worker_get(name("w")).await.unwrap();
    assert_eq!(view.status, WorkerStatus::Unavailable);
    assert_eq!(view.reason.as_deref(), Some("good-bye"));
    register(&engine, "w", Home::Remote, 1).await;
    let beat = engine
        .worker_heartbeat(name("w"), None, Duration::ZERO)
        .await;
    assert_eq!(beat.unwrap(), []);
}

/// One process owns a store; a second is told, and harms nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_owner_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let engine = open(folder.path());
    let tasks = submit(&engine, vec![task("a", json!(1))]).await;
    for _ in 0..2 {
        let error = Engine::open(&place).unwrap_err();
        assert_eq!(error.code, Code::StoreLocked);
        assert!(error.code.retryable());
    }
    submit(&engine, vec![task("b", json!(2))]).await;
    engine.stop().unwrap();
    engine.stop().unwrap();
    let refused = engine.task_submit(vec![task("c", json!(3))]).await;
    assert_eq!(refused.unwrap_err().code, Code::Stopped);
    assert_eq!(
        engine.task_get(tasks[0]).await.unwrap_err().code,
        Code::Stopped
    );
    drop(engine);
    let engine = open(folder.path());
    assert_eq!(engine.statistics().await.unwrap().tasks_pending, 2);
}

/// After a clean end everything is in the store's one file: whoever copies that has all of it.
#[tokio::test]
async fn a_clean_end_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let known = submit(&engine, vec![task("kept", json!(1))]).await[0];
    // A reader that is kept open must not hinder it.
    assert_eq!(
        engine
            .task_list(TaskQuery::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    engine.stop().unwrap();
    let wal = std::fs::metadata(folder.path().join("store.db-wal"));
    assert_eq!(wal.map_or(0, |file| file.len()), 0);
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("store.db"), copy.path().join("store.db")).unwrap();
    let engine = open(copy.path());
    assert_eq!(
        engine.task_get(known).await.unwrap().status,
        TaskStatus::Pending
    );
}
