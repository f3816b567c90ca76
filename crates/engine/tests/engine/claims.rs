//! Claims that a network brings twice, late, or from somebody who is not the worker any more.

use crate::{complete, events, name, submit, task};
use domain::error::Code;
use domain::event::Event;
use domain::worker::{Home, WorkerSpec};
use engine::{Engine, Place};
use protocol::Api;
use protocol::api::{Claim, Work};
use protocol::v1::Assignment;
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

async fn claim(engine: &Engine, number: u64, again: bool) -> Vec<Assignment> {
    let work = numbered(7, number, again, 0);
    engine.work(work).await.unwrap().tasks
}

async fn some_tasks(engine: &Engine, count: usize) {
    let tasks = (0..count).map(|n| task("t", json!(n))).collect();
    submit(engine, tasks).await;
}

/// A request arrives when its sender has long said it again, was answered, and has moved on.
#[tokio::test]
async fn a_claim_that_comes_late_takes_nothing_that_nobody_would_hear_of() {
    let engine = Engine::open(&Place::Memory).unwrap();
    register(&engine, 7, 4).await;
    some_tasks(&engine, 3).await;
    let first = claim(&engine, 1, true).await;
    assert_eq!(first.len(), 1);
    // While the task is held, the late one is told what the other was told.
    assert_eq!(claim(&engine, 1, false).await, first);
    complete(&engine, "w", &first[0], json!("done")).await;
    assert_eq!(claim(&engine, 1, false).await, []);
    assert_eq!(claim(&engine, 1, true).await, []);
    // Also one that is late by several numbers; and new numbers are served all the while.
    let second = claim(&engine, 2, false).await;
    let third = claim(&engine, 3, false).await;
    assert_eq!((second.len(), third.len()), (1, 1));
    assert_eq!(claim(&engine, 1, false).await, []);
    assert_eq!(claim(&engine, 2, false).await, second);
    let given = events(&engine).await;
    let given = given
        .iter()
        .filter(|recorded| matches!(&recorded.event, Event::TaskAssigned { .. }));
    assert_eq!(given.count(), 3, "each task is given out once");
}

/// The connection of a claim that waits is gone, and the server has not noticed: asked again, the
/// claim waits twice, and a task must not go to the one that nobody reads.
#[tokio::test]
async fn of_a_claim_that_waits_twice_neither_takes_what_the_other_would_hear_of() {
    for (first_again, then_again) in [(false, true), (true, false), (true, true)] {
        let engine = Engine::open(&Place::Memory).unwrap();
        register(&engine, 7, 4).await;
        let there = engine.clone();
        let unread =
            tokio::spawn(async move { there.work(numbered(7, 1, first_again, 60_000)).await });
        tokio::task::yield_now().await;
        // The wheel turns once for each: the first waits when the second comes.
        while engine
            .pulse()
            .parked
            .load(std::sync::atomic::Ordering::Relaxed)
            == 0
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let again = engine.work(numbered(7, 1, then_again, 60_000));
        // At once, and not when its wait is over.
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), again).await;
        let read = read.expect("it does not wait beside the other").unwrap();
        assert_eq!(read.tasks, [], "it is told to ask under its next number");
        assert_eq!(unread.await.unwrap().unwrap().tasks, []);
        some_tasks(&engine, 2).await;
        assert_eq!(claim(&engine, 2, false).await.len(), 1);
    }
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

/// A claim that failed counts as never asked: when it may succeed, it does.
#[tokio::test]
async fn a_claim_that_was_refused_may_be_asked_again_under_its_number() {
    let engine = Engine::open(&Place::Memory).unwrap();
    register(&engine, 7, 1).await;
    some_tasks(&engine, 2).await;
    let held = claim(&engine, 1, false).await;
    let full = engine.work(numbered(7, 2, false, 0)).await;
    assert_eq!(full.unwrap_err().code, Code::WorkerFull);
    complete(&engine, "w", &held[0], json!(1)).await;
    assert_eq!(claim(&engine, 2, true).await.len(), 1);
}
