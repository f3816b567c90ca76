//! Urgent work, while a real skill worker is in the middle of a long task.

use crate::crew::{self, *};
use agent::worker::SkillHandler;
use domain::run::RunStatus;
use domain::task::{Priority, TaskStatus};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// Answers every request, counts each path; what is behind the third waits until it may.
async fn pages(gate: Arc<Semaphore>) -> (String, Arc<Mutex<BTreeMap<String, u32>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let counts = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (gate, counts) = (Arc::clone(&gate), Arc::clone(&counts));
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or("").to_owned();
                let first_two = path == "/0" || path == "/1";
                *counts.lock().unwrap().entry(path).or_insert(0) += 1;
                if !first_two {
                    let _open = gate.acquire().await;
                    // A page takes a moment, so that a word from the engine is heard between two.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (host, asked)
}

// S1-110: a batch task of 40 pages yields with a checkpoint to a critical task, goes on later where
// it was, and fetches no page twice.
#[tokio::test]
async fn a_running_skill_yields_and_goes_on() {
    const PAGES: usize = 40;
    let api = open();
    let gate = Arc::new(Semaphore::new(0));
    let (host, asked) = pages(Arc::clone(&gate)).await;
    let _worker = start(&api, "worker_1", SkillHandler).await;
    let mut plan = crew::plan("http.fetch", 1, &names(1));
    plan.options = json!({"allow_private": true});
    plan.priority = Priority::BATCH;
    plan.items = (0..PAGES)
        .map(|n| crate::text(&format!("http://{host}/{n}")))
        .collect();
    let slow = supervisor(&api).start(&plan).await.unwrap();
    until("the third page is asked for", || async {
        asked.lock().unwrap().contains_key("/2")
    })
    .await;
    let mut plan = crew::plan("text.stats", 1, &names(1));
    plan.priority = Priority::CRITICAL;
    let urgent = supervisor(&api).start(&plan).await.unwrap();
    gate.add_permits(1);
    let view = crew::supervise(&api, urgent).await;
    assert_eq!(view.status, RunStatus::Completed);
    let at_that_moment = tasks(&api, slow).await.remove(0);
    assert_ne!(
        at_that_moment.status,
        TaskStatus::Completed,
        "the urgent task came first"
    );
    let view = crew::supervise(&api, slow).await;
    assert_eq!(view.status, RunStatus::Completed);
    let task = tasks(&api, slow).await.remove(0);
    assert_eq!(
        task.attempts, 2,
        "one attempt before the urgent task, one after"
    );
    let yielded = task.ended[0].failure.as_ref().unwrap();
    assert_eq!(yielded.code, "attempt.released", "{:?}", task.ended);
    let items = task.output.unwrap().value()["items"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(items.len(), PAGES);
    assert!(
        items.iter().all(|item| item["error"].is_null()),
        "{items:?}"
    );
    let asked = asked.lock().unwrap().clone();
    let expected = (0..PAGES).map(|n| (format!("/{n}"), 1)).collect();
    assert_eq!(asked, expected, "each page once");
}
