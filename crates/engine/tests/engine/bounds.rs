//! Every edge is bounded, and says so.

use crate::{events, name, submit, task};
use domain::blackboard::{EntryFilter, NewEntry};
use domain::error::Code;
use domain::event::Event;
use domain::id::EntryId;
use domain::limits::BOARD_ENTRIES_MAX;
use engine::{Engine, Place};
use protocol::{Api, ApiRead};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// More requests at once than the inbox holds: those that do not fit are told to come back, those
/// that do are done, and the engine goes on.
#[tokio::test]
async fn a_flood_is_answered_with_overload() {
    const FLOOD: usize = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::open(folder.path());
    let mut flood = JoinSet::new();
    for n in 0..FLOOD {
        let engine = engine.clone();
        flood.spawn(async move { engine.task_submit(vec![task("a", json!(n))]).await });
    }
    let (mut accepted, mut refused) = (0, 0);
    while let Some(answer) = flood.join_next().await {
        match answer.unwrap() {
            Ok(answers) => {
                assert!(answers[0].is_ok());
                accepted += 1;
            }
            Err(error) => {
                assert_eq!(error.code, Code::Overloaded);
                assert_eq!(error.code.as_str(), "engine.overloaded");
                assert!(error.code.retryable());
                refused += 1;
            }
        }
    }
    assert_eq!(accepted + refused, FLOOD);
    assert!(refused > 0, "nothing was refused");
    assert!(accepted >= 8_192, "what fits is done");
    let statistics = engine.statistics().await.unwrap();
    assert_eq!(statistics.total_tasks_submitted, accepted as u64);
    submit(&engine, vec![task("a", json!(null))]).await;
}

/// A board that grows beyond its bound loses its least important, oldest entries and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_board_forgets_the_least_important_oldest() {
    const UNIMPORTANT: usize = 2_000;
    let engine = Engine::open(&Place::Memory).unwrap();
    let bound = BOARD_ENTRIES_MAX as usize;
    let all = bound + bound / 10 + 1;
    let mut written: Vec<EntryId> = Vec::new();
    for start in (0..all).step_by(500) {
        let mut some = JoinSet::new();
        for n in start..all.min(start + 500) {
            let engine = engine.clone();
            let entry = NewEntry {
                importance: if n < UNIMPORTANT { 0.1 } else { 0.5 },
                ..NewEntry::new(name("ann"), json!(n).into())
            };
            some.spawn(async move { engine.entry_write(entry).await.unwrap() });
        }
        let mut ids = some.join_all().await;
        ids.sort_unstable();
        written.extend(ids);
    }
    let forgotten = async || {
        let events = events(&engine).await.into_iter();
        let gone = events.filter_map(|recorded| match recorded.event {
            Event::EntryForgotten { entry, .. } => Some(entry),
            _ => None,
        });
        gone.collect::<BTreeSet<EntryId>>()
    };
    let began = Instant::now();
    while forgotten().await.is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it forgets nothing"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let expected: BTreeSet<EntryId> = written[..all - bound].iter().copied().collect();
    assert_eq!(forgotten().await, expected);
    let important = EntryFilter {
        limit: Some(1),
        ..EntryFilter::default()
    };
    let first = engine.entry_list(important).await.unwrap();
    assert_eq!(first[0].id, written[all - 1]);
}
