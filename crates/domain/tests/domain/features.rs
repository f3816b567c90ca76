//! What a task can ask for, each thing exact: order, matching, waiting, retrying, limits.

use crate::world::{World, n, spec, start};
use domain::command::{Command, Outcome, Report, Submission};
use domain::error::Code;
use domain::event::Event;
use domain::id::{CountedIds, EntryId, Ids, TaskId};
use domain::json::Json;
use domain::limits::*;
use domain::retry::RetryPolicy;
use domain::task::{Address, AttemptState, Failure, Priority, SlotUse, TaskSpec, TaskState, Waits};
use domain::time::Time;
use domain::worker::{WorkerSpec, WorkerStatus};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn with_priority(priority: Priority) -> TaskSpec {
    TaskSpec {
        priority,
        ..spec(json!(priority.0))
    }
}

/// Claims and completes what goes first, until nothing does; the inputs in that order.
fn order(world: &mut World, worker: &str) -> Vec<Value> {
    let mut order = Vec::new();
    while let Some(lease) = world.next(worker) {
        order.push(world.task(lease.task).spec.input.value());
        world.complete(&lease, json!(null));
    }
    order
}

// S3-107, S1-107: higher first; equal is FIFO.
#[test]
fn what_is_more_urgent_goes_first_and_equals_in_the_order_they_came() {
    let mut world = World::with_workers(&["w"]);
    for (priority, input) in [
        (Priority::NORMAL, "n1"),
        (Priority::BATCH, "b"),
        (Priority::CRITICAL, "c"),
        (Priority::NORMAL, "n2"),
        (Priority(1), "one more"),
        (Priority::LOW, "l"),
        (Priority::HIGH, "h"),
        (Priority::NORMAL, "n3"),
    ] {
        world.submit(TaskSpec {
            priority,
            ..spec(json!(input))
        });
    }
    let expected = ["c", "h", "one more", "n1", "n2", "n3", "l", "b"];
    assert_eq!(order(&mut world, "w"), expected);
}

// S3-107: no starvation. 10 points at 30 s each are 300 s.
#[test]
fn a_low_task_goes_before_a_normal_one_that_came_five_minutes_later_and_not_before() {
    for (later_ms, first) in [(0, 0), (299_999, 0), (300_000, -10), (300_001, -10)] {
        let mut world = World::with_workers(&["w"]);
        world.submit(with_priority(Priority::LOW));
        world.pass(later_ms);
        world.submit(with_priority(Priority::NORMAL));
        assert_eq!(
            order(&mut world, "w")[0],
            json!(first),
            "{later_ms} ms later"
        );
    }
    // From low to critical it is 30 points: 900 s.
    for (later_ms, first) in [(899_999, 20), (900_000, -10)] {
        let mut world = World::with_workers(&["w"]);
        world.submit(with_priority(Priority::LOW));
        world.pass(later_ms);
        world.submit(with_priority(Priority::CRITICAL));
        assert_eq!(
            order(&mut world, "w")[0],
            json!(first),
            "{later_ms} ms later"
        );
    }
}

#[test]
fn under_a_stream_of_critical_work_a_batch_task_still_has_its_turn() {
    let mut world = World::with_workers(&["w"]);
    let patient = world.submit(with_priority(Priority::BATCH));
    // One critical task a minute: 40 points are 1,200 s, so the one of minute 20 comes too late.
    let mut served = 0;
    while world.status(patient).as_str() == "pending" {
        world.submit(with_priority(Priority::CRITICAL));
        let lease = world.next("w").unwrap();
        world.complete(&lease, json!(null));
        world.pass(60_000);
        served += 1;
        assert!(served < 100, "starved");
    }
    // Critical tasks at minutes 0 to 19 went ahead.
    assert_eq!(served, 21);
}

#[test]
fn bands_have_names_and_numbers_between_them() {
    for (text, number, band) in [
        ("batch", -20, "batch"),
        ("low", -10, "low"),
        ("normal", 0, "normal"),
        ("high", 10, "high"),
        ("critical", 20, "critical"),
        ("-11", -11, "batch"),
        ("9", 9, "normal"),
        ("1000", 1_000, "critical"),
        ("-1000", -1_000, "batch"),
    ] {
        let priority: Priority = text.parse().unwrap();
        assert_eq!((priority.0, priority.band()), (number, band), "{text}");
    }
    assert_eq!(
        "urgent".parse::<Priority>().unwrap_err().code,
        Code::OutOfRange
    );
}

#[test]
fn a_task_that_comes_back_keeps_its_place_unless_it_waits_for_a_retry() {
    let mut world = World::with_workers(&["w"]);
    for input in 1..=3 {
        world.submit(spec(json!(input)));
        world.pass(1);
    }
    let lease = world.next("w").unwrap();
    world.release(&lease);
    assert_eq!(
        world.next("w").unwrap().task,
        lease.task,
        "released to its old place"
    );
    world.lose("w");
    world.register(WorkerSpec::new(n("w")));
    let lease = world.next("w").unwrap();
    assert_eq!(
        world.task(lease.task).spec.input.value(),
        json!(1),
        "and so after a loss"
    );
    world.fail(&lease, Failure::new("hiccup", "again"));
    assert_eq!(
        order(&mut world, "w"),
        [json!(2), json!(3)],
        "a retry waits"
    );
    world.pass(1_000);
    assert_eq!(order(&mut world, "w"), [json!(1)]);
}

fn worker(id: &str, capabilities: &[&str]) -> WorkerSpec {
    WorkerSpec {
        capabilities: capabilities.iter().map(|name| n(name)).collect(),
        ..WorkerSpec::new(n(id))
    }
}

// S3-105, S1-93: never sent to an incapable worker; none capable gives a visible reason.
#[test]
fn a_task_goes_only_to_who_can_do_it_without_regard_to_case() {
    let mut world = World::new();
    world.register(worker("plain", &[]));
    let task = world.submit(TaskSpec {
        capability: Some(n("VISION")),
        ..spec(json!(1))
    });
    assert_eq!(
        world.claim(task, "plain").unwrap_err().code,
        Code::NotClaimable
    );
    assert_eq!(world.next("plain"), None);
    let missing = "no worker takes type “work” from queue “default” with capability “VISION”";
    let missing = missing.to_owned();
    assert_eq!(world.waits(task), Some(Waits::NoCapableWorker { missing }));
    world.register(worker("eye", &["sql", "Vision"]));
    assert_eq!(world.waits(task), Some(Waits::Ready));
    world.finish(task, "eye", json!("seen"));
    assert_eq!(world.waits(task), None);
}

#[test]
fn a_worker_gets_only_its_queues_and_its_types() {
    let mut world = World::new();
    world.register(WorkerSpec {
        kinds: vec![n("mail")],
        queues: vec![n("out")],
        ..WorkerSpec::new(n("w"))
    });
    let task = |kind: &str, queue: &str| TaskSpec {
        kind: n(kind),
        queue: n(queue),
        ..spec(json!(1))
    };
    for (kind, queue, may) in [
        ("mail", "out", true),
        ("mail", "default", false),
        ("other", "out", false),
        ("MAIL", "out", false),
    ] {
        let id = world.submit(task(kind, queue));
        let lease = world.claim(id, "w");
        assert_eq!(lease.is_ok(), may, "{kind} from {queue}");
        if let Ok(lease) = lease {
            world.complete(&lease, json!(1));
        }
    }
}

fn addressed(world: &mut World, address: Address) -> TaskId {
    world.submit(TaskSpec {
        address,
        ..spec(json!(1))
    })
}

#[test]
fn a_task_for_one_worker_alone_waits_for_that_one() {
    let mut world = World::with_workers(&["a", "b"]);
    let task = addressed(&mut world, Address::Only(n("a")));
    assert_eq!(world.claim(task, "b").unwrap_err().code, Code::NotClaimable);
    let other = world.submit(spec(json!(2)));
    let lease = world.claim(other, "a").unwrap();
    world.pass(1_000_000);
    assert_eq!(
        world.claim(task, "b").unwrap_err().code,
        Code::NotClaimable,
        "however long"
    );
    let full = "all 1 capable workers are busy".to_owned();
    assert_eq!(world.waits(task), Some(Waits::AtCapacity { full }));
    world.complete(&lease, json!(1));
    world.lose("a");
    let missing = "worker “a” is not available".to_owned();
    assert_eq!(world.waits(task), Some(Waits::NoCapableWorker { missing }));
    world.register(WorkerSpec::new(n("a")));
    world.finish(task, "a", json!(1));
}

// S3-106: a preferred worker is honoured when it is available.
#[test]
fn a_preferred_worker_gets_the_task_while_it_has_room_or_within_two_seconds() {
    // Free: nobody else gets it, however long it waits.
    let mut world = World::with_workers(&["a", "b"]);
    let task = addressed(&mut world, Address::Prefer(n("a")));
    world.pass(1_000_000);
    assert_eq!(world.claim(task, "b").unwrap_err().code, Code::NotClaimable);
    world.finish(task, "a", json!(1));
    // Full: somebody else gets it after 2,000 ms.
    let busy = world.submit(spec(json!(2)));
    world.claim(busy, "a").unwrap();
    let task = addressed(&mut world, Address::Prefer(n("a")));
    world.pass(1_999);
    assert_eq!(world.claim(task, "b").unwrap_err().code, Code::NotClaimable);
    world.pass(1);
    world.finish(task, "b", json!(1));
    // Gone, or never there: somebody else gets it at once.
    world.lose("a");
    for preferred in ["a", "stranger"] {
        let task = addressed(&mut world, Address::Prefer(n(preferred)));
        world.finish(task, "b", json!(1));
    }
    // The wait counts from when the task is due.
    world.register(WorkerSpec::new(n("a")));
    let busy = world.submit(spec(json!(3)));
    world.claim(busy, "a").unwrap();
    let task = world.submit(TaskSpec {
        address: Address::Prefer(n("a")),
        not_before: Some(world.now.plus_ms(5_000)),
        ..spec(json!(1))
    });
    world.pass(6_999);
    assert_eq!(world.claim(task, "b").unwrap_err().code, Code::NotClaimable);
    world.pass(1);
    world.finish(task, "b", json!(1));
}

#[test]
fn a_task_that_is_not_due_waits_for_its_instant() {
    let mut world = World::with_workers(&["a"]);
    let until = world.now.plus_ms(500);
    let task = world.submit(TaskSpec {
        not_before: Some(until),
        ..spec(json!(1))
    });
    world.pass(499);
    assert_eq!(world.waits(task), Some(Waits::NotDue { until }));
    assert_eq!(world.claim(task, "a").unwrap_err().code, Code::NotClaimable);
    world.pass(1);
    assert_eq!(world.waits(task), Some(Waits::Ready));
    world.finish(task, "a", json!(1));
    // The end of time is an instant too: it does not come first because it overflows.
    let never = world.submit(TaskSpec {
        not_before: Some(Time(u64::MAX)),
        ..spec(json!(1))
    });
    let soon = world.submit(spec(json!(2)));
    assert!(world.task(never).place().unwrap() > world.task(soon).place().unwrap());
}

fn after(world: &mut World, tasks: &[TaskId]) -> TaskId {
    world.submit(TaskSpec {
        after: tasks.to_vec(),
        ..spec(json!("after"))
    })
}

// S4-36: what is blocked cannot be claimed, and says what blocks it.
#[test]
fn a_task_is_unblocked_exactly_when_the_last_it_waits_for_completes() {
    let mut world = World::with_workers(&["w"]);
    let (a, b) = (
        world.submit(spec(json!("a"))),
        world.submit(spec(json!("b"))),
    );
    let done = world.submit(spec(json!("done")));
    world.finish(done, "w", json!(1));
    let last = after(&mut world, &[a, done, b, a]);
    assert_eq!(
        world.waits(last),
        Some(Waits::BlockedBy { tasks: vec![a, b] })
    );
    assert_eq!(world.claim(last, "w").unwrap_err().code, Code::NotClaimable);
    world.finish(b, "w", json!(1));
    assert_eq!(world.waits(last), Some(Waits::BlockedBy { tasks: vec![a] }));
    assert_eq!(world.task(last).place(), None);
    world.finish(a, "w", json!(1));
    assert_eq!(world.waits(last), Some(Waits::Ready));
    world.finish(last, "w", json!(1));
    let ghost = TaskSpec {
        after: vec![TaskId::new(404)],
        ..spec(json!(1))
    };
    let ghost = Command::TaskSubmit(Submission::new(ghost));
    assert_eq!(world.refusal(ghost), Code::TaskUnknown);
}

#[test]
fn a_failed_dependency_blocks_visibly_until_it_is_redriven_and_completes() {
    let mut world = World::with_workers(&["w"]);
    let first = world.submit(spec(json!("first")));
    let (then, also) = (after(&mut world, &[first]), after(&mut world, &[first]));
    world.give_up(first, "w");
    for task in [then, also] {
        assert_eq!(
            world.waits(task),
            Some(Waits::BlockedBy { tasks: vec![first] })
        );
    }
    // What was cancelled and redriven while it waits, waits again.
    world.cancel(also);
    world.redrive(also);
    assert_eq!(
        world.waits(also),
        Some(Waits::BlockedBy { tasks: vec![first] })
    );
    world.redrive(first);
    world.finish(first, "w", json!(1));
    world.finish(then, "w", json!(1));
    // What is redriven after that, does not.
    world.cancel(also);
    world.redrive(also);
    assert_eq!(world.waits(also), Some(Waits::Ready));
}

pub(crate) fn in_slot(key: &str, max: u32) -> TaskSpec {
    TaskSpec {
        slot: Some(SlotUse { key: n(key), max }),
        ..spec(json!(key))
    }
}

#[test]
fn at_most_so_many_tasks_of_a_concurrency_key_run_at_once() {
    let mut world = World::with_workers(&["a", "b", "c", "d"]);
    let tasks: Vec<TaskId> = (0..4).map(|_| world.submit(in_slot("db", 2))).collect();
    let other = world.submit(in_slot("net", 1));
    let first = world.claim(tasks[0], "a").unwrap();
    let second = world.claim(tasks[1], "b").unwrap();
    assert_eq!(
        world.claim(tasks[2], "c").unwrap_err().code,
        Code::NotClaimable
    );
    let full = "concurrency key “db”: 2 of 2 running".to_owned();
    assert_eq!(world.waits(tasks[2]), Some(Waits::AtCapacity { full }));
    world.finish(other, "c", json!("another key has its own room"));
    // Each way in which an attempt ends makes room: a result, a failure, a release, a cancel, a loss.
    world.complete(&first, json!(1));
    let third = world.claim(tasks[2], "a").unwrap();
    world.fail(&second, Failure::permanent("no", "no"));
    let fourth = world.claim(tasks[3], "b").unwrap();
    world.release(&third);
    let third = world.claim(tasks[2], "c").unwrap();
    assert_eq!(world.state.slot_running(&n("db")), 2);
    world.cancel(third.task);
    assert_eq!(world.state.slot_running(&n("db")), 1);
    world.lose("b");
    assert_eq!(world.status(fourth.task).as_str(), "pending");
    assert_eq!(
        world.state.slot(&n("db")),
        None,
        "nothing is left of a key that nobody holds"
    );
}

pub(crate) fn retrying(attempts: u32) -> TaskSpec {
    TaskSpec {
        retry: RetryPolicy {
            attempts,
            ..RetryPolicy::default()
        },
        ..spec(json!(1))
    }
}

// S1-15: failures are retried by policy, without a call.
// S4-19: back-off with jitter; from the dead letters it can be redriven.
#[test]
fn a_failed_attempt_is_tried_again_later_and_the_last_one_is_a_dead_letter() {
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(retrying(3));
    // 1 s, then 2 s; half of it is certain.
    for full_ms in [1_000, 2_000] {
        let lease = world.claim(task, "w").unwrap();
        world.fail(&lease, Failure::new("hiccup", "again"));
        let Some(Waits::NotDue { until }) = world.waits(task) else {
            panic!()
        };
        let wait = until.since_ms(world.now);
        assert!(
            (full_ms / 2..=full_ms).contains(&wait),
            "{wait} of {full_ms}"
        );
        world.now = until;
    }
    let lease = world.claim(task, "w").unwrap();
    assert_eq!(lease.attempt, 3);
    world.fail(&lease, Failure::new("hiccup", "once more"));
    let TaskState::Failed { failure, .. } = &world.task(task).state else {
        panic!()
    };
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("hiccup", "once more")
    );
    // Redriven it has all of its attempts again; tokens go on.
    world.redrive(task);
    for attempt in 4..=6 {
        let lease = world.claim(task, "w").unwrap();
        assert_eq!(lease.attempt, attempt);
        world.fail(&lease, Failure::new("hiccup", "again"));
        world.pass(2_000);
    }
    assert_eq!(world.status(task).as_str(), "failed");
    let states: Vec<AttemptState> = world.task(task).ended.iter().map(|a| a.state).collect();
    assert_eq!(states, [AttemptState::Failed; 6]);
    // The other half is up to chance: what failed together does not come back together.
    let waits: BTreeSet<u64> = (0..8)
        .map(|_| {
            let task = world.submit(retrying(2));
            let lease = world.claim(task, "w").unwrap();
            world.fail(&lease, Failure::new("hiccup", "again"));
            match world.waits(task) {
                Some(Waits::NotDue { until }) => until.since_ms(world.now),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert!(waits.len() > 4, "{waits:?}");
}

// S4-19: a failure is retryable or permanent.
#[test]
fn a_permanent_failure_and_a_policy_of_one_attempt_are_not_retried() {
    let mut world = World::with_workers(&["w"]);
    let (permanent, once) = (world.submit(retrying(3)), world.submit(retrying(1)));
    world.give_up(permanent, "w");
    let lease = world.claim(once, "w").unwrap();
    world.fail(&lease, Failure::new("hiccup", "again"));
    assert_eq!(world.status(permanent).as_str(), "failed");
    assert_eq!(world.status(once).as_str(), "failed");
}

#[test]
fn a_task_that_kills_its_workers_is_a_dead_letter_after_twenty_in_a_row() {
    let mut world = World::new();
    let task = world.submit(retrying(1));
    let die = |world: &mut World| {
        world.register(WorkerSpec::new(n("w")));
        world.claim(task, "w").unwrap();
        world.lose("w");
    };
    for _ in 0..19 {
        die(&mut world);
        // The task did nothing wrong: not a failure, not a wait.
        assert_eq!(
            (world.task(task).failures, world.waits(task).is_some()),
            (0, true)
        );
    }
    assert_eq!(world.task(task).losses, 19);
    // An attempt that ends in another way breaks the row.
    world.register(WorkerSpec::new(n("w")));
    let lease = world.claim(task, "w").unwrap();
    world.release(&lease);
    for n in 1..=20 {
        assert_eq!(world.status(task).as_str(), "pending", "before loss {n}");
        die(&mut world);
    }
    let TaskState::Failed { failure, .. } = &world.task(task).state else {
        panic!()
    };
    assert_eq!(failure.code, "attempt.lost");
    assert_eq!(
        world.task(task).ended.len(),
        ATTEMPTS_KEPT,
        "the newest twenty are kept"
    );
    assert_eq!(world.task(task).attempts, 40);
}

// S3-108: a time limit is enforced and frees the worker.
#[test]
fn a_timeout_frees_the_worker_and_counts_as_a_try() {
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(TaskSpec {
        timeout_ms: 5_000,
        ..retrying(2)
    });
    let lease = world.claim(task, "w").unwrap();
    assert_eq!(world.task(task).due(), Some(world.now.plus_ms(5_000)));
    world.report(&lease, Report::Started).unwrap();
    world.pass(5_000);
    world.ask(Command::TaskTimeOut(task)).unwrap();
    assert_eq!(world.worker("w").status(world.now), WorkerStatus::Available);
    assert_eq!(world.task(task).ended[0].state, AttemptState::TimedOut);
    assert_eq!(world.task(task).ended[0].ran_ms, 5_000);
    let late = world.report(
        &lease,
        Report::Completed {
            output: Json::default(),
        },
    );
    assert_eq!(late.unwrap_err().code, Code::AttemptStale);
    world.pass(1_000);
    world.claim(task, "w").unwrap();
    world.pass(5_000);
    world.ask(Command::TaskTimeOut(task)).unwrap();
    let TaskState::Failed { failure, .. } = &world.task(task).state else {
        panic!()
    };
    assert_eq!(failure.code, "attempt.timed_out");
    assert_eq!(failure.message, "no result within 5000 ms");
}

// S1-12: a late result is refused and recorded; pending work leaves the queue, running work
// is taken from its worker.
#[test]
fn the_result_of_cancelled_or_reassigned_work_is_refused_and_recorded() {
    let mut world = World::with_workers(&["a", "b"]);
    let waiting = world.submit(spec(json!("waiting")));
    world.cancel(waiting);
    assert_eq!(
        (world.status(waiting).as_str(), world.next("a")),
        ("cancelled", None)
    );
    let (cancelled, moved) = (world.submit(spec(json!(1))), world.submit(spec(json!(2))));
    let lost = world.claim(cancelled, "a").unwrap();
    world.cancel(cancelled);
    assert_eq!(world.worker("a").status(world.now), WorkerStatus::Available);
    assert_eq!(world.status(cancelled).as_str(), "cancelled");
    let old = world.claim(moved, "a").unwrap();
    world.reassign(moved, Address::Only(n("b")));
    assert_eq!(
        world.claim(moved, "a").unwrap_err().code,
        Code::NotClaimable
    );
    let new = world.claim(moved, "b").unwrap();
    assert_eq!((old.attempt, new.attempt), (1, 2));
    for late in [lost, old] {
        let from = world.log.len();
        let output = json!("late").into();
        let error = world
            .report(&late, Report::Completed { output })
            .unwrap_err();
        assert_eq!(error.code, Code::AttemptStale);
        let Event::ResultRefused { lease, .. } = &world.log[from].event else {
            panic!()
        };
        assert_eq!(*lease, late);
    }
    world.complete(&new, json!("right"));
    let TaskState::Completed { output, worker, .. } = &world.task(moved).state else {
        panic!()
    };
    assert_eq!((output.value(), worker), (json!("right"), &n("b")));
    assert_eq!(world.tally().refused, 2);
}

#[test]
fn a_checkpoint_outlives_its_attempt_and_not_the_task() {
    let mut world = World::with_workers(&["a", "b"]);
    let task = world.submit(spec(json!(1)));
    let lease = world.claim(task, "a").unwrap();
    let released = Report::Released {
        reason: "yield".into(),
        checkpoint: Some(json!({"page": 3}).into()),
        after_ms: 0,
    };
    world.report(&lease, released).unwrap();
    let page = |world: &World| world.task(task).checkpoint.as_ref().map(Json::value);
    assert_eq!(page(&world), Some(json!({"page": 3})));
    let lease = world.claim(task, "b").unwrap();
    world.release(&lease);
    assert_eq!(
        page(&world),
        Some(json!({"page": 3})),
        "no new one leaves the old one"
    );
    world.finish(task, "b", json!(1));
    assert_eq!(page(&world), None);
}

fn keyed(key: &str, content: &str) -> Command {
    Command::TaskSubmit(Submission {
        key: Some(n(key)),
        ..Submission::new(spec(json!(content)))
    })
}

#[test]
fn the_same_idempotency_key_and_content_is_one_task_for_a_day() {
    let mut world = World::new();
    let first = world.ask(keyed("k", "x")).unwrap();
    let from = world.log.len();
    assert_eq!(world.ask(keyed("k", "x")), Ok(first.clone()));
    assert_eq!(world.names(from), [""; 0]);
    assert_eq!(world.refusal(keyed("k", "y")), Code::IdempotencyMismatch);
    assert_ne!(world.ask(keyed("other", "x")), Ok(first.clone()));
    // A run and a task do not answer for each other.
    let run = || {
        Command::RunStart(Box::new(domain::command::RunStart {
            key: Some(n("run")),
            ..start(json!([{"id": "a", "task": {"kind": "t"}}]))
        }))
    };
    let started = world.ask(run()).unwrap();
    assert_eq!(world.ask(run()), Ok(started));
    assert_eq!(world.refusal(keyed("run", "x")), Code::IdempotencyMismatch);
    let mut other = start(json!([{"id": "a", "task": {"kind": "u"}}]));
    other.key = Some(n("run"));
    assert_eq!(
        world.refusal(Command::RunStart(Box::new(other))),
        Code::IdempotencyMismatch
    );
    // Forgotten after a day, not before.
    let forget = || Command::ReceiptForget(n("k"));
    world.pass(86_399_999);
    world.ask(forget()).unwrap();
    assert_eq!(world.ask(keyed("k", "x")), Ok(first.clone()));
    world.pass(1);
    world.ask(forget()).unwrap();
    let second = world.ask(keyed("k", "x")).unwrap();
    assert_ne!(second, first);
}

// S3-109: metadata stays with the task.
#[test]
fn metadata_is_carried_to_the_result() {
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(TaskSpec {
        metadata: BTreeMap::from([(n("ticket"), "T-1".to_owned())]),
        ..spec(json!(1))
    });
    world.finish(task, "w", json!(1));
    assert_eq!(world.task(task).spec.metadata["ticket"], "T-1");
}

// S3-103, S3-118, S3-119, S3-120, S3-121, S3-122, S3-123, S3-124, S3-125, S3-126: by hand.
#[test]
fn the_statistics_are_exact() {
    let mut world = World::with_workers(&["a", "b", "c"]);
    let mail = |world: &mut World| {
        world.submit(TaskSpec {
            kind: n("mail"),
            ..spec(json!(1))
        })
    };
    let tasks: Vec<TaskId> = (0..4).map(|_| mail(&mut world)).collect();
    let others: Vec<TaskId> = (0..3).map(|_| world.submit(spec(json!(1)))).collect();
    let slow = world.claim(tasks[0], "a").unwrap();
    world.pass(30);
    world.complete(&slow, json!(1));
    world.finish(tasks[1], "a", json!(1));
    world.finish(tasks[2], "b", json!(1));
    world.give_up(others[0], "b");
    world.cancel(others[1]);
    let begun = world.claim(tasks[3], "a").unwrap();
    world.report(&begun, Report::Started).unwrap();
    world.claim(others[2], "c").unwrap();
    mail(&mut world);
    let tally = world.tally();
    assert_eq!(tally.submitted, 8);
    let open = (tally.pending, tally.assigned, tally.in_progress);
    assert_eq!(open, (1, 1, 1));
    assert_eq!((tally.completed, tally.failed, tally.cancelled), (3, 1, 1));
    assert_eq!(
        tally.by_type,
        BTreeMap::from([(n("mail"), 5), (n("work"), 3)])
    );
    assert_eq!(tally.by_worker, BTreeMap::from([(n("a"), 2), (n("b"), 1)]));
    assert_eq!((tally.ran_ms, tally.mean_ms()), (30, 10.0));
    // Two of three took less than 1 ms, the third less than 32.
    assert_eq!(
        (tally.percentile_ms(50), tally.percentile_ms(99)),
        (Some(1), Some(32))
    );
    assert_eq!((tally.attempts, tally.refused), (6, 0));
    let b = world.worker("b");
    assert_eq!((b.completed, b.failed, b.busy_ms), (1, 1, 0));
    assert_eq!(world.worker("a").busy_ms, 30);
}

// S4-19: the circuit of a worker that fails opens, and closes again.
#[test]
fn three_worker_faults_in_a_row_put_a_worker_into_error_for_half_a_minute() {
    let mut world = World::with_workers(&["w"]);
    let fault = |world: &mut World| {
        let task = world.submit(retrying(1));
        let lease = world.claim(task, "w").unwrap();
        let failure = Failure {
            worker_fault: true,
            ..Failure::new("disk", "x".repeat(FAILURE_BYTES_MAX + 1))
        };
        world.fail(&lease, failure);
    };
    fault(&mut world);
    fault(&mut world);
    assert_eq!(world.worker("w").status(world.now), WorkerStatus::Available);
    // A success breaks the row; a fault of the task does not count.
    let task = world.submit(spec(json!(1)));
    world.finish(task, "w", json!(1));
    fault(&mut world);
    fault(&mut world);
    let task = world.submit(spec(json!(1)));
    world.give_up(task, "w");
    assert_eq!(world.worker("w").status(world.now), WorkerStatus::Available);
    fault(&mut world);
    assert_eq!(world.worker("w").status(world.now), WorkerStatus::Error);
    let Event::WorkerFaulted { reason, .. } = &world.log.last().unwrap().event else {
        panic!()
    };
    assert_eq!(
        reason.len(),
        FAILURE_BYTES_MAX,
        "what a worker says is cut, here too"
    );
    let task = world.submit(spec(json!(1)));
    assert_eq!(world.claim(task, "w").unwrap_err().code, Code::WorkerState);
    world.pass(29_999);
    assert_eq!(world.claim(task, "w").unwrap_err().code, Code::WorkerState);
    world.pass(1);
    world.finish(task, "w", json!(1));
}

// S1-110: a running low task yields, at its own safe point, to an urgent one.
#[test]
fn running_work_yields_only_to_what_is_two_bands_more_urgent() {
    for (running, waiting, yields) in [
        (Priority::NORMAL, Priority::HIGH, false),
        (Priority::NORMAL, Priority(19), false),
        (Priority::NORMAL, Priority::CRITICAL, true),
        (Priority::LOW, Priority::HIGH, true),
        (Priority::CRITICAL, Priority::CRITICAL, false),
        (Priority::CRITICAL, Priority::LOW, false),
    ] {
        let mut world = World::with_workers(&["w"]);
        let task = world.submit(with_priority(running));
        let lease = world.claim(task, "w").unwrap();
        let urgent = world.submit(with_priority(waiting));
        let preempt = || Command::TaskPreempt { task, urgent };
        let from = world.log.len();
        world.ask(preempt()).unwrap();
        let asked = world.names(from) == ["task.yield_asked"];
        assert_eq!(asked, yields, "{running:?} to {waiting:?}");
        if !yields {
            continue;
        }
        let from = world.log.len();
        world.ask(preempt()).unwrap();
        assert_eq!(world.names(from), [""; 0], "once is enough");
        assert!(world.task(task).lease().unwrap().yield_asked);
        world.release(&lease);
        assert_eq!(world.next("w").unwrap().task, urgent);
        assert_eq!(world.task(task).failures, 0, "yielding costs no try");
    }
}

#[test]
fn every_reason_to_wait_can_be_read() {
    let mut world = World::with_workers(&["w"]);
    let reason = |world: &World, task| serde_json::to_value(world.waits(task).unwrap()).unwrap();
    let first = world.submit(in_slot("db", 1));
    assert_eq!(reason(&world, first), json!({"reason": "ready"}));
    let lease = world.claim(first, "w").unwrap();
    assert_eq!(world.waits(first), None, "who works does not wait");
    let same = world.submit(in_slot("db", 1));
    let full = "concurrency key “db”: 1 of 1 running";
    assert_eq!(
        reason(&world, same),
        json!({"reason": "at_capacity", "full": full})
    );
    let other = world.submit(spec(json!(1)));
    let full = "all 1 capable workers are busy";
    assert_eq!(
        reason(&world, other),
        json!({"reason": "at_capacity", "full": full})
    );
    let then = after(&mut world, &[first]);
    assert_eq!(
        reason(&world, then),
        json!({"reason": "blocked_by", "tasks": [first]})
    );
    let later = world.submit(TaskSpec {
        not_before: Some(Time(2_000_000)),
        ..spec(json!(1))
    });
    assert_eq!(
        reason(&world, later),
        json!({"reason": "not_due", "until": 2_000_000})
    );
    let queue = n("default");
    world
        .ask(Command::QueuePause {
            queue,
            paused: true,
        })
        .unwrap();
    assert_eq!(
        reason(&world, other),
        json!({"reason": "paused", "queue": "default"})
    );
    let strange = world.submit(TaskSpec {
        queue: n("nobody"),
        ..spec(json!(1))
    });
    let missing = "no worker takes type “work” from queue “nobody”";
    let expected = json!({"reason": "no_capable_worker", "missing": missing});
    assert_eq!(reason(&world, strange), expected);
    world.complete(&lease, json!(1));
    // A worker in error, draining or gone is no worker to wait for.
    let queue = n("default");
    world
        .ask(Command::QueuePause {
            queue,
            paused: false,
        })
        .unwrap();
    world.ask(Command::WorkerDrain(n("w"))).unwrap();
    assert_eq!(reason(&world, other)["reason"], "no_capable_worker");
}

#[test]
fn a_task_joins_a_run_only_by_the_runs_own_plan() {
    let mut world = World::with_workers(&["w"]);
    let run = world.start(start(json!([{"id": "a", "task": {"kind": "t"}}])));
    let forged = TaskSpec {
        of: Some(domain::task::Membership {
            run,
            step: n("a"),
            item: 1,
        }),
        ..spec(json!(1))
    };
    let submission = Command::TaskSubmit(Submission::new(forged));
    assert_eq!(world.refusal(submission), Code::GraphInvalid);
}

#[test]
fn an_unknown_entry_is_forgotten_already() {
    let mut world = World::new();
    let entry = EntryId::new(CountedIds::new(3).next());
    let reason = String::new();
    assert_eq!(
        world.ask(Command::EntryForget { entry, reason }),
        Ok(Outcome::Done)
    );
}

// S3-114: a closed list of states, by their wire names.
#[test]
fn a_task_has_one_of_six_states() {
    let all = domain::task::TaskStatus::ALL;
    let names = [
        "pending",
        "assigned",
        "in_progress",
        "completed",
        "failed",
        "cancelled",
    ];
    assert_eq!(all.map(|status| status.as_str()), names);
    assert_eq!(serde_json::to_value(all).unwrap(), json!(names));
    assert_eq!(
        all.map(|status| status.is_terminal()),
        [false, false, false, true, true, true]
    );
}
