//! What a claim looks at, and how far.

use crate::world::over;
use domain::command::{Claimant, Command, Submission};
use domain::id::TaskId;
use domain::json::Json;
use domain::name::Name;
use domain::task::{Address, Priority, SlotUse, TaskSpec};
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::sync::Arc;
use store::backend::memory::Memory;
use store::{Answer, Op, Request, Store};

const NOW: Time = Time(1_700_000_000_000);

fn ask(store: &mut Store, op: Op, now: Time) -> Answer {
    let mut applied = store.apply(&[Request::own(vec![op])], now).unwrap();
    applied.answers.remove(0).remove(0)
}

fn command(store: &mut Store, command: Command, now: Time) {
    match ask(store, Op::Command(command), now) {
        Answer::Outcome(Ok(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn claim(store: &mut Store, worker: &'static str, now: Time) -> Vec<TaskId> {
    let by = Claimant::new(Name::literal(worker), true);
    match ask(store, Op::Claim { by, max: 1 }, now) {
        Answer::Claimed(Ok(claimed)) => claimed.iter().map(|claimed| claimed.lease.task).collect(),
        other => panic!("{other:?}"),
    }
}

fn keyed(key: usize, priority: Priority, address: Address) -> TaskSpec {
    TaskSpec {
        slot: Some(SlotUse {
            key: Name::new(format!("key-{key}")).unwrap(),
            max: 1,
        }),
        priority,
        address,
        ..TaskSpec::new(Name::literal("a"), Json::default())
    }
}

/// What another gets of a queue in which these many urgent tasks wait for a full worker that they
/// prefer, before one that has waited for it long enough.
fn behind(refused: usize) -> Vec<TaskId> {
    let mut store = over(Box::new(Memory::default()), 1).unwrap();
    for worker in ["fond", "other"] {
        let spec = WorkerSpec::new(Name::literal(worker));
        command(&mut store, Command::WorkerRegister(Arc::new(spec)), NOW);
    }
    let submit = |store: &mut Store, spec, now| {
        command(store, Command::TaskSubmit(Submission::new(spec)), now);
    };
    let plain = TaskSpec::new(Name::literal("a"), Json::default());
    submit(&mut store, plain, NOW);
    assert_eq!(claim(&mut store, "fond", NOW).len(), 1);
    let prefers = Address::Prefer(Name::literal("fond"));
    submit(&mut store, keyed(0, Priority::NORMAL, prefers.clone()), NOW);
    let later = NOW.plus_ms(10_000);
    for key in 1..=refused {
        submit(
            &mut store,
            keyed(key, Priority::HIGH, prefers.clone()),
            later,
        );
    }
    claim(&mut store, "other", later)
}

/// A claim that is refused a hundred tasks of one class looks no further in it: so a claim's work is
/// bounded, however many lanes wait for somebody else.
#[test]
fn a_claim_is_refused_only_so_often() {
    assert_eq!(behind(99).len(), 1);
    assert_eq!(behind(100).len(), 0);
}

/// What is paused keeps nobody from the rest, also in a store that was opened anew.
#[test]
fn a_paused_queue_is_stepped_over_after_a_restart() {
    let memory = Memory::default();
    let mut store = over(Box::new(memory.clone()), 1).unwrap();
    let queues = vec![Name::literal("shut"), Name::literal("default")];
    let spec = WorkerSpec {
        queues: queues.clone(),
        ..WorkerSpec::new(Name::literal("w"))
    };
    command(&mut store, Command::WorkerRegister(Arc::new(spec)), NOW);
    for queue in queues.clone() {
        for key in 0..150 {
            let spec = TaskSpec {
                queue: queue.clone(),
                ..keyed(key, Priority::NORMAL, Address::Any)
            };
            command(&mut store, Command::TaskSubmit(Submission::new(spec)), NOW);
        }
    }
    let queue = queues[0].clone();
    let paused = true;
    command(&mut store, Command::QueuePause { queue, paused }, NOW);
    store.flush().unwrap();
    drop(store);
    let mut store = over(Box::new(memory), 2).unwrap();
    let spec = WorkerSpec {
        queues,
        ..WorkerSpec::new(Name::literal("w"))
    };
    assert_eq!(store.index().candidates(&spec).len(), 150);
    assert_eq!(claim(&mut store, "w", NOW).len(), 1);
}
