//! A disk that is full: a real one, small, made of memory. Mounting it takes the right to mount;
//! where a test may not, it says so.

use crate::{claim, complete, completions, events, open, register, submit, task};
use domain::error::Code;
use domain::id::TaskId;
use domain::task::TaskStatus;
use domain::worker::Home;
use protocol::api::TaskQuery;
use protocol::api::worker_list_all;
use protocol::{Api, ApiRead};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A disk of so many MiB, for as long as it is kept.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        let mounted = mount.arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            _ => {
                eprintln!("not tested: a small disk cannot be mounted here");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the engine that a failed test leaves behind still has files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// On a full disk writes are refused with a clear error and reads go on; what was acknowledged is
/// there, and with room again work resumes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = Disk::mount("2m") else {
        return;
    };
    let folder = disk.path().join("store");
    let engine = open(&folder);
    register(&engine, "w", Home::InProcess, 4).await;
    let held = {
        submit(
            &engine,
            vec![task("held", json!(0)), task("held", json!(1))],
        )
        .await;
        claim(&engine, "w", 2).await
    };
    let large = "x".repeat(10_000);
    let mut kept: Vec<TaskId> = Vec::new();
    let full = loop {
        match engine.task_submit(vec![task("a", json!(large))]).await {
            Ok(mut answers) => kept.push(answers.remove(0).unwrap()),
            Err(error) => break error,
        }
        assert!(kept.len() < 1_000, "the disk is never full");
    };
    assert_eq!(full.code, Code::StoreFull);
    assert_eq!(full.code.as_str(), "store.full");
    assert!(full.code.retryable() && full.hint.contains("space"));
    assert!(kept.len() > 20, "{} tasks", kept.len());

    // Longer than the engine waits before it writes what is behind, and tries its duties again.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let counts = async || {
        let s = engine.statistics().await.unwrap();
        (
            s.total_tasks_submitted,
            s.tasks_in_progress,
            s.tasks_completed,
        )
    };
    let all = kept.len() as u64 + 2;
    assert_eq!(counts().await, (all, 2, 0));
    for task in &kept {
        let view = engine.task_get(*task).await.unwrap();
        assert_eq!(view.status, TaskStatus::Pending);
        assert_eq!(view.input.bytes(), large.len() + 2);
    }
    let query = || TaskQuery {
        limit: 1_000,
        ..TaskQuery::default()
    };
    let listed = engine.task_list(query()).await.unwrap().items;
    assert_eq!(listed.len() as u64, all);
    let running = TaskQuery {
        status: Some(TaskStatus::InProgress),
        ..query()
    };
    assert_eq!(engine.task_list(running).await.unwrap().items.len(), 2);
    assert_eq!(
        engine.queue_list().await.unwrap()[0].pending,
        kept.len() as u64
    );
    assert_eq!(worker_list_all(&engine).await.unwrap().len(), 1);
    assert_eq!(events(&engine).await.len() as u64, all + 3);
    let again = engine.task_submit(vec![task("a", json!(large))]).await;
    assert_eq!(again.unwrap_err().code, Code::StoreFull);

    disk.resize("64m");
    let resumed = Instant::now();
    complete(&engine, "w", &held[0], json!("done")).await;
    assert!(resumed.elapsed() < Duration::from_secs(2));
    kept.extend(submit(&engine, vec![task("a", json!(large))]).await);
    assert_eq!(counts().await, (all + 1, 1, 1));
    complete(&engine, "w", &held[1], json!("done")).await;
    loop {
        let some = claim(&engine, "w", 4).await;
        for held in &some {
            complete(&engine, "w", held, json!("done")).await;
        }
        if some.is_empty() {
            break;
        }
    }
    drop(engine);
    let engine = open(&folder);
    let s = engine.statistics().await.unwrap();
    assert_eq!(
        (s.tasks_completed, s.total_tasks_submitted),
        (all + 1, all + 1)
    );
    let completed = completions(&events(&engine).await);
    assert!(kept.iter().all(|task| completed.get(task) == Some(&1)));
}
