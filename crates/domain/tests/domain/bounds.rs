//! Every bound that decisions enforce: what is beyond it is refused, or cut, with its own code.

use crate::features::{in_slot, retrying, with_priority};
use crate::world::{World, graph, n, spec, start};
use domain::blackboard::NewEntry;
use domain::command::{Command, Outcome, Report, Submission};
use domain::error::Code;
use domain::graph::Graph;
use domain::id::{CountedIds, TaskId};
use domain::json::Json;
use domain::limits::*;
use domain::message::{NewMessage, To};
use domain::pool::{Member, Pool, Strategy};
use domain::run::Crew;
use domain::state::{Key, Row, State};
use domain::task::{Failure, Priority, TaskSpec, TaskState};
use domain::time::Time;
use domain::worker::WorkerSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The code with which a submission is refused, or nothing.
fn refused(spec: TaskSpec) -> Option<Code> {
    let mut world = World::new();
    let submission = Command::TaskSubmit(Submission::new(spec));
    world.ask(submission).err().map(|error| error.code)
}

/// JSON text of exactly `bytes` bytes.
fn text_of(bytes: usize) -> Json {
    json!("x".repeat(bytes - 2)).into()
}

// S3-104: the size limit is stated and enforced.
#[test]
fn a_payload_is_at_most_a_megabyte_wherever_it_enters() {
    let input = |bytes| TaskSpec {
        input: text_of(bytes),
        ..spec(json!(null))
    };
    assert_eq!(refused(input(1_048_576)), None);
    assert_eq!(refused(input(1_048_577)), Some(Code::PayloadTooLarge));
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(spec(json!(1)));
    let lease = world.claim(task, "w").unwrap();
    let checkpoint = Report::Released {
        reason: String::new(),
        checkpoint: Some(text_of(1_048_577)),
        after_ms: 0,
    };
    let error = world.report(&lease, checkpoint).unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    assert_eq!(
        world.status(task).as_str(),
        "pending",
        "its worker has let go of it, whatever it wanted to leave"
    );
    let lease = world.claim(task, "w").unwrap();
    let output = text_of(1_048_577);
    let error = world
        .report(&lease, Report::Completed { output })
        .unwrap_err();
    assert_eq!(error.code, Code::PayloadTooLarge);
    assert_eq!(
        error.message,
        "the task's output is 1048577 bytes; at most 1048576 are allowed"
    );
    assert_eq!(
        world.status(task).as_str(),
        "failed",
        "it does not hang in its lease"
    );
    let entry = NewEntry::new(n("a"), text_of(1_048_577));
    assert_eq!(
        world.refusal(Command::EntryWrite(entry)),
        Code::PayloadTooLarge
    );
    let message = NewMessage::new(n("a"), To::Type, n("k"), text_of(1_048_577));
    let recipients = vec![n("b")];
    let send = Command::MessageSend {
        message,
        recipients,
    };
    assert_eq!(world.refusal(send), Code::PayloadTooLarge);
    let mut new = start(json!([{"id": "a", "task": {"kind": "t"}}]));
    new.metadata = BTreeMap::from([(n("m"), text_of(1_048_577))]);
    assert_eq!(
        world.refusal(Command::RunStart(Box::new(new))),
        Code::PayloadTooLarge
    );
}

#[test]
fn a_tasks_numbers_have_ranges() {
    let bad = Some(Code::OutOfRange);
    for (priority, expected) in [
        (1_000, None),
        (-1_000, None),
        (1_001, bad),
        (-1_001, bad),
        (i32::MIN, bad),
        (i32::MAX, bad),
    ] {
        assert_eq!(
            refused(with_priority(Priority(priority))),
            expected,
            "{priority}"
        );
    }
    for (timeout_ms, expected) in [(0, bad), (1, None), (604_800_000, None), (604_800_001, bad)] {
        let spec = TaskSpec {
            timeout_ms,
            ..spec(json!(1))
        };
        assert_eq!(refused(spec), expected, "{timeout_ms}");
    }
    for (max, expected) in [(0, bad), (1, None), (100_000, None), (100_001, bad)] {
        assert_eq!(refused(in_slot("k", max)), expected, "{max}");
    }
    for (attempts, expected) in [(0, bad), (1, None), (100, None), (101, bad)] {
        assert_eq!(refused(retrying(attempts)), expected, "{attempts}");
    }
}

#[test]
fn a_tasks_lists_have_lengths() {
    let bad = Some(Code::LimitExceeded);
    let metadata = |entries: usize, bytes: usize| TaskSpec {
        metadata: (0..entries)
            .map(|i| (n(&format!("k{i}")), "v".repeat(bytes)))
            .collect(),
        ..spec(json!(1))
    };
    assert_eq!(refused(metadata(64, 1)), None);
    assert_eq!(refused(metadata(65, 1)), bad);
    assert_eq!(refused(metadata(1, 4_096)), None);
    assert_eq!(refused(metadata(1, 4_097)), bad);
    // 1,000 dependencies, and as many that wait for one.
    let mut world = World::new();
    world.recounts = false;
    let ids: Vec<TaskId> = (0..1_001).map(|_| world.submit(spec(json!(1)))).collect();
    let waits = |count: usize| TaskSpec {
        after: ids[..count].to_vec(),
        ..spec(json!(2))
    };
    let too_many = Command::TaskSubmit(Submission::new(waits(1_001)));
    assert_eq!(world.refusal(too_many), Code::LimitExceeded);
    world.submit(waits(1_000));
    for _ in 0..999 {
        world.submit(waits(1));
    }
    let too_many = Command::TaskSubmit(Submission::new(waits(1)));
    assert_eq!(world.refusal(too_many), Code::LimitExceeded);
    world.check();
}

#[test]
fn a_worker_declares_within_bounds() {
    let good = || WorkerSpec::new(n("w"));
    let names = |count: usize| (0..count).map(|i| n(&format!("c{i}"))).collect::<Vec<_>>();
    let (range, limit) = (Some(Code::OutOfRange), Some(Code::LimitExceeded));
    let text = |entries: usize, bytes: usize| -> BTreeMap<_, _> {
        (0..entries)
            .map(|i| (n(&format!("k{i}")), "v".repeat(bytes)))
            .collect()
    };
    let cases = [
        (
            WorkerSpec {
                capacity: 0,
                ..good()
            },
            range,
        ),
        (
            WorkerSpec {
                capacity: 1_000,
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                capacity: 1_001,
                ..good()
            },
            range,
        ),
        (
            WorkerSpec {
                lease_ms: 99,
                ..good()
            },
            range,
        ),
        (
            WorkerSpec {
                lease_ms: 100,
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                lease_ms: 3_600_000,
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                lease_ms: 3_600_001,
                ..good()
            },
            range,
        ),
        (
            WorkerSpec {
                capabilities: names(256),
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                capabilities: names(257),
                ..good()
            },
            limit,
        ),
        (
            WorkerSpec {
                kinds: names(257),
                ..good()
            },
            limit,
        ),
        (
            WorkerSpec {
                queues: names(257),
                ..good()
            },
            limit,
        ),
        (
            WorkerSpec {
                metadata: text(64, 4_096),
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                metadata: text(65, 1),
                ..good()
            },
            limit,
        ),
        (
            WorkerSpec {
                metadata: text(1, 4_097),
                ..good()
            },
            limit,
        ),
        (
            WorkerSpec {
                endpoint: Some("x".repeat(4_096)),
                ..good()
            },
            None,
        ),
        (
            WorkerSpec {
                endpoint: Some("x".repeat(4_097)),
                ..good()
            },
            limit,
        ),
    ];
    for (n, (spec, expected)) in cases.into_iter().enumerate() {
        let mut world = World::new();
        let outcome = world.ask(Command::WorkerRegister(Arc::new(spec)));
        assert_eq!(outcome.err().map(|error| error.code), expected, "case {n}");
    }
}

// S1-37: an entry is validated; importance is in 0 to 1.
#[test]
fn an_entry_is_checked() {
    let good = || NewEntry::new(n("a"), json!(1).into());
    let names = |count: usize| (0..count).map(|i| n(&format!("t{i}"))).collect::<Vec<_>>();
    let text = |entries: usize, bytes: usize| -> BTreeMap<_, _> {
        (0..entries)
            .map(|i| (n(&format!("k{i}")), "v".repeat(bytes)))
            .collect()
    };
    let (range, limit) = (Some(Code::OutOfRange), Some(Code::LimitExceeded));
    let cases = [
        (
            NewEntry {
                importance: 0.0,
                ..good()
            },
            None,
        ),
        (
            NewEntry {
                importance: 1.0,
                ..good()
            },
            None,
        ),
        (
            NewEntry {
                importance: -0.1,
                ..good()
            },
            range,
        ),
        (
            NewEntry {
                importance: 1.1,
                ..good()
            },
            range,
        ),
        (
            NewEntry {
                importance: f64::NAN,
                ..good()
            },
            range,
        ),
        (
            NewEntry {
                tags: names(32),
                ..good()
            },
            None,
        ),
        (
            NewEntry {
                tags: names(33),
                ..good()
            },
            limit,
        ),
        (
            NewEntry {
                metadata: text(64, 4_096),
                ..good()
            },
            None,
        ),
        (
            NewEntry {
                metadata: text(65, 1),
                ..good()
            },
            limit,
        ),
        (
            NewEntry {
                metadata: text(1, 4_097),
                ..good()
            },
            limit,
        ),
    ];
    for (n, (entry, expected)) in cases.into_iter().enumerate() {
        let mut world = World::new();
        let outcome = world.ask(Command::EntryWrite(entry));
        assert_eq!(outcome.err().map(|error| error.code), expected, "case {n}");
    }
    let mut world = World::new();
    let entry = NewEntry {
        run: Some(domain::id::RunId::new(404)),
        ..good()
    };
    assert_eq!(world.refusal(Command::EntryWrite(entry)), Code::RunUnknown);
}

/// A state with one row in it.
fn only(key: Key, row: Row) -> State {
    let mut state = State::default();
    state.put(key, Some(row));
    state
}

fn code_of(state: &State, command: &Command) -> Option<Code> {
    let decision = domain::decide::decide(state, command, Time(1), &mut CountedIds::new(1));
    decision.outcome.err().map(|error| error.code)
}

#[test]
fn a_board_a_pool_and_a_message_hold_so_many_and_no_more() {
    // Forgetting runs behind writing: at twice the bound writing waits.
    let board = |entries| {
        let board = Arc::new(domain::blackboard::Board { entries });
        only(Key::Board(None), Row::Board(board))
    };
    let write = Command::EntryWrite(NewEntry::new(n("a"), json!(1).into()));
    assert_eq!(code_of(&board(19_999), &write), None);
    assert_eq!(code_of(&board(20_000), &write), Some(Code::LimitExceeded));

    let names = |count: usize| (0..count).map(|i| n(&format!("w{i}"))).collect::<Vec<_>>();
    let pool = |members: usize| Pool {
        id: n("crew"),
        strategy: Strategy::RoundRobin,
        members: names(members),
        version: 0,
    };
    let mut world = World::with_workers(&["new"]);
    for (members, expected) in [(9_999, None), (10_000, Some(Code::LimitExceeded))] {
        world.state.put(
            Key::Pool(n("crew")),
            Some(Row::Pool(Arc::new(pool(members)))),
        );
        let join = Command::PoolJoin {
            pool: n("crew"),
            worker: n("new"),
        };
        assert_eq!(code_of(&world.state, &join), expected);
        let define = Command::PoolDefine {
            pool: Pool {
                members: vec![n("new")],
                ..pool(0)
            },
            expected: None,
        };
        assert_eq!(code_of(&world.state, &define), expected);
    }

    let message = || NewMessage::new(n("a"), To::Type, n("k"), json!(1).into());
    let send = |message, recipients| Command::MessageSend {
        message,
        recipients: names(recipients),
    };
    let none = State::default();
    assert_eq!(code_of(&none, &send(message(), 10_000)), None);
    assert_eq!(
        code_of(&none, &send(message(), 10_001)),
        Some(Code::LimitExceeded)
    );
    let headers = |entries: usize, bytes: usize| NewMessage {
        headers: (0..entries)
            .map(|i| (n(&format!("h{i}")), "v".repeat(bytes)))
            .collect(),
        ..message()
    };
    assert_eq!(code_of(&none, &send(headers(64, 4_096), 1)), None);
    assert_eq!(
        code_of(&none, &send(headers(65, 1), 1)),
        Some(Code::LimitExceeded)
    );
    assert_eq!(
        code_of(&none, &send(headers(1, 4_097), 1)),
        Some(Code::LimitExceeded)
    );
}

fn chain(steps: usize) -> Graph {
    let steps = (0..steps).map(|i| json!({"id": format!("s{i}"), "task": {"kind": "t"}}));
    graph(steps.collect())
}

fn each(items: usize) -> Value {
    json!([{"id": "a", "each": {"items": vec![0; items], "task": {"kind": "t"}}}])
}

#[test]
fn a_run_is_planned_within_bounds() {
    let none = State::default();
    let code = |new| code_of(&none, &Command::RunStart(Box::new(new)));
    let good = || start(json!([{"id": "a", "task": {"kind": "t"}}]));
    let with = |graph| domain::command::RunStart { graph, ..good() };
    let limit = Some(Code::LimitExceeded);
    assert_eq!(code(with(chain(1_000))), None);
    assert_eq!(code(with(chain(1_001))), limit);
    assert_eq!(code(start(each(100_000))), None);
    assert_eq!(code(start(each(100_001))), limit);
    let goal = |goal: String| domain::command::RunStart { goal, ..good() };
    assert_eq!(code(goal("x".repeat(16_384))), None);
    assert_eq!(code(goal("x".repeat(16_385))), Some(Code::GoalTooLarge));
    assert_eq!(code(goal(" \n".into())), Some(Code::GoalEmpty));
    let members = |count: usize| domain::command::RunStart {
        crew: Crew {
            strategy: Strategy::RoundRobin,
            members: (0..count)
                .map(|i| Member::new(n(&format!("w{i}"))))
                .collect(),
        },
        ..good()
    };
    assert_eq!(code(members(10_000)), None);
    assert_eq!(code(members(10_001)), limit);
    let metadata = |count: usize| domain::command::RunStart {
        metadata: (0..count)
            .map(|i| (n(&format!("k{i}")), Json::default()))
            .collect(),
        ..good()
    };
    assert_eq!(code(metadata(64)), None);
    assert_eq!(code(metadata(65)), limit);
    for (timeout, expected) in [
        (604_800_000_u64, None),
        (604_800_001, Some(Code::GraphInvalid)),
        (0, Some(Code::GraphInvalid)),
    ] {
        let new = start(json!([
            {"id": "a", "task": {"kind": "t"}},
            {"id": "g", "needs": ["a"], "gate": {"join": {"deadline": timeout}}}
        ]));
        assert_eq!(code(new), expected, "{timeout}");
    }
    let slots = |max: u32| {
        start(json!([
            {"id": "a", "each": {"items": [1], "concurrency": max, "task": {"kind": "t"}}}
        ]))
    };
    assert_eq!(code(slots(100_000)), None);
    assert_eq!(code(slots(100_001)), Some(Code::OutOfRange));
    assert_eq!(code(slots(0)), Some(Code::GraphInvalid));
}

#[test]
fn what_people_say_is_cut_or_refused_before_it_is_stored() {
    let long = "ü".repeat(FAILURE_BYTES_MAX);
    let mut world = World::with_workers(&["w"]);
    let cut = |text: &str| assert_eq!((text.len(), text.chars().all(|c| c == 'ü')), (4_096, true));
    let task = world.submit(spec(json!(1)));
    let lease = world.claim(task, "w").unwrap();
    let note = Report::Progressed {
        fraction: None,
        note: long.clone(),
    };
    assert_eq!(
        world.report(&lease, note).unwrap_err().code,
        Code::LimitExceeded
    );
    let fraction = |fraction| Report::Progressed {
        fraction: Some(fraction),
        note: String::new(),
    };
    for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = world.report(&lease, fraction(bad)).unwrap_err();
        assert_eq!(error.code, Code::OutOfRange, "{bad}");
    }
    world.fail(&lease, Failure::permanent("code", long.clone()));
    let TaskState::Failed { failure, .. } = &world.task(task).state else {
        panic!()
    };
    cut(&failure.message);
    let task = world.submit(spec(json!(1)));
    world
        .ask(Command::TaskCancel {
            task,
            reason: long.clone(),
        })
        .unwrap();
    let TaskState::Cancelled { reason, .. } = &world.task(task).state else {
        panic!()
    };
    cut(reason);
}

#[test]
fn every_reason_is_cut() {
    let long = "x".repeat(100_000);
    let mut world = World::with_workers(&["w"]);
    let task = world.submit(spec(json!(1)));
    world.claim(task, "w").unwrap();
    let run = world.start(start(json!([{"id": "a", "task": {"kind": "t"}}])));
    let (worker, reason) = (n("w"), || long.clone());
    let Ok(Outcome::Entry(entry)) =
        world.ask(Command::EntryWrite(NewEntry::new(n("a"), json!(1).into())))
    else {
        panic!()
    };
    let message = NewMessage {
        id: Some(domain::id::MessageId::new(1)),
        ..NewMessage::new(n("a"), To::Type, n("k"), json!(1).into())
    };
    let recipients = vec![n("b")];
    world
        .ask(Command::MessageSend {
            message,
            recipients,
        })
        .unwrap();
    for command in [
        Command::WorkerError {
            worker: worker.clone(),
            reason: reason(),
        },
        Command::WorkerLose {
            worker,
            session: None,
            reason: reason(),
        },
        Command::RunCancel {
            run,
            reason: reason(),
        },
        Command::EntryForget {
            entry,
            reason: reason(),
        },
        Command::MessageSettle {
            message: domain::id::MessageId::new(1),
            recipient: n("b"),
            failure: Some(reason()),
        },
    ] {
        let from = world.log.len();
        let name = format!("{command:?}").chars().take(20).collect::<String>();
        world.ask(command).unwrap();
        for recorded in &world.log[from..] {
            let bytes = serde_json::to_string(&recorded.event).unwrap().len();
            assert!(
                bytes < 2 * FAILURE_BYTES_MAX,
                "{name}: {bytes} bytes of {}",
                recorded.event.name()
            );
        }
    }
}
