//! Tables a domain expert can read: in this state, that command gives this.
//!
//! A cell is the state afterwards and the events (`assigned: task.assigned`), or the refusal's code
//! and the events it leaves (`attempt.stale: result.refused`). A refusal never changes the state.

use crate::world::{World, n, spec, start};
use domain::command::{Claimant, Command, Outcome, Report, Submission};
use domain::error::Error;
use domain::event::AttemptRef;
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::message::{Delivery, NewMessage, To};
use domain::pool::{Pool, Strategy};
use domain::task::{Address, Failure, Priority};
use domain::time::Time;
use domain::worker::WorkerSpec;
use serde_json::json;
use std::sync::Arc;

/// What a command did: the state or code, and the events since `from`.
fn cell(
    world: &World,
    from: usize,
    before: &str,
    after: String,
    outcome: &Result<Outcome, Error>,
) -> String {
    let events = world.names(from).join(" ");
    let head = match outcome {
        Ok(_) => after,
        Err(error) => {
            assert_eq!(before, after, "a refusal changes nothing");
            error.code.as_str().to_owned()
        }
    };
    if events.is_empty() {
        head
    } else {
        format!("{head}: {events}")
    }
}

const STATES: [&str; 6] = [
    "pending",
    "assigned",
    "in_progress",
    "completed",
    "failed",
    "cancelled",
];
const CHOSEN: TaskId = TaskId::new(77);

/// A task in `state`; worker `a` holds or held it under the first token. `b` is free.
fn task_in(state: &str) -> (World, AttemptRef) {
    let mut world = World::with_workers(&["a", "b"]);
    let submission = Submission {
        id: Some(CHOSEN),
        ..Submission::new(spec(json!("it")))
    };
    world.ask(Command::TaskSubmit(submission)).unwrap();
    let lease = AttemptRef {
        task: CHOSEN,
        attempt: 1,
        worker: n("a"),
    };
    if state != "pending" {
        assert_eq!(world.claim(CHOSEN, "a").unwrap(), lease);
    }
    match state {
        "pending" | "assigned" => {}
        "in_progress" => drop(world.report(&lease, Report::Started).unwrap()),
        "completed" => world.complete(&lease, json!(1)),
        "failed" => world.fail(&lease, Failure::permanent("no", "no")),
        "cancelled" => world.cancel(CHOSEN),
        other => panic!("{other}"),
    }
    assert_eq!(world.status(CHOSEN).as_str(), state);
    (world, lease)
}

/// Runs one row of the table: the command in each of the six states.
fn task_row(
    name: &str,
    expected: [&str; 6],
    act: impl Fn(&mut World, AttemptRef) -> Result<Outcome, Error>,
) {
    for (state, expected) in STATES.into_iter().zip(expected) {
        let (mut world, lease) = task_in(state);
        let from = world.log.len();
        let outcome = act(&mut world, lease);
        let after = world.status(CHOSEN).as_str().to_owned();
        let found = cell(&world, from, state, after, &outcome);
        assert_eq!(found, expected, "{name} in {state}");
    }
}

fn claim(starts: bool) -> Command {
    Command::TaskClaim {
        task: CHOSEN,
        by: Claimant::new(n("b"), starts),
    }
}

fn failed(failure: Failure) -> Report {
    Report::Failed { failure }
}

fn completed() -> Report {
    Report::Completed {
        output: json!(2).into(),
    }
}

fn progressed() -> Report {
    Report::Progressed {
        fraction: Some(0.1),
        note: "a tenth".into(),
    }
}

fn released() -> Report {
    Report::Released {
        reason: "stopping".into(),
        checkpoint: Some(json!({"page": 3}).into()),
        after_ms: 0,
    }
}

#[test]
fn only_a_pending_task_can_be_claimed() {
    let no = "task.not_claimable";
    task_row(
        "claim",
        ["assigned: task.assigned", no, no, no, no, no],
        |world, _| world.ask(claim(false)),
    );
    task_row(
        "claim and start",
        ["in_progress: task.assigned", no, no, no, no, no],
        |world, _| world.ask(claim(true)),
    );
}

// S3-140, S3-142: a result after a terminal one is refused; transitions are guarded.
// S0-62: what is completed and what has failed are events. S3-187: the rules of tasks.
#[test]
fn a_report_counts_only_with_the_token_of_a_lease() {
    let late = "attempt.stale: result.refused";
    // No result was lost with these, so the log need not tell.
    let passed = "attempt.stale";
    task_row(
        "started",
        [
            passed,
            "in_progress: task.started",
            "in_progress",
            passed,
            passed,
            passed,
        ],
        |world, lease| world.report(&lease, Report::Started),
    );
    task_row(
        "progressed",
        [
            passed,
            "assigned: task.progressed",
            "in_progress: task.progressed",
            passed,
            passed,
            passed,
        ],
        |world, lease| world.report(&lease, progressed()),
    );
    task_row(
        "completed",
        [
            late,
            "completed: task.completed",
            "completed: task.completed",
            late,
            late,
            late,
        ],
        |world, lease| world.report(&lease, completed()),
    );
    task_row(
        "failed, to be tried again",
        [
            late,
            "pending: attempt.ended",
            "pending: attempt.ended",
            late,
            late,
            late,
        ],
        |world, lease| world.report(&lease, failed(Failure::new("hiccup", "again"))),
    );
    let dead = "failed: attempt.ended task.failed";
    task_row(
        "failed for good",
        [late, dead, dead, late, late, late],
        |world, lease| world.report(&lease, failed(Failure::permanent("no", "never"))),
    );
    task_row(
        "released",
        [
            late,
            "pending: attempt.ended",
            "pending: attempt.ended",
            late,
            late,
            late,
        ],
        |world, lease| world.report(&lease, released()),
    );
}

#[test]
fn a_report_with_another_token_or_from_another_worker_is_refused_and_recorded() {
    let late = "attempt.stale: result.refused";
    let reports: [fn() -> Report; 5] = [
        || Report::Started,
        progressed,
        completed,
        || failed(Failure::new("x", "x")),
        released,
    ];
    for report in reports {
        let is_result = !matches!(report(), Report::Started | Report::Progressed { .. });
        let late = if is_result { late } else { "attempt.stale" };
        for attempt in [0, 2, u32::MAX] {
            task_row("a stale token", [late; 6], |world, lease| {
                world.report(&AttemptRef { attempt, ..lease }, report())
            });
        }
        task_row("a wrong worker", [late; 6], |world, lease| {
            let worker = n("b");
            world.report(&AttemptRef { worker, ..lease }, report())
        });
    }
}

#[test]
fn the_clock_ends_an_attempt_at_its_deadline_and_not_before() {
    task_row("time out too early", STATES, |world, _| {
        world.pass(599_999);
        world.ask(Command::TaskTimeOut(CHOSEN))
    });
    let back = "pending: attempt.ended";
    task_row(
        "time out",
        ["pending", back, back, "completed", "failed", "cancelled"],
        |world, _| {
            world.pass(600_000);
            world.ask(Command::TaskTimeOut(CHOSEN))
        },
    );
}

#[test]
fn what_is_open_can_be_cancelled_and_what_ended_badly_redriven() {
    let gone = "cancelled: task.cancelled";
    task_row(
        "cancel",
        [gone, gone, gone, "task.state", "task.state", "cancelled"],
        |world, _| {
            let reason = "no".into();
            world.ask(Command::TaskCancel {
                task: CHOSEN,
                reason,
            })
        },
    );
    let (no, back) = ("task.state", "pending: task.redriven");
    task_row("redrive", [no, no, no, no, back, back], |world, _| {
        world.ask(Command::TaskRedrive(CHOSEN))
    });
    let taken = "pending: attempt.ended task.reassigned";
    let again = "pending: task.redriven task.reassigned";
    task_row(
        "reassign",
        [
            "pending: task.reassigned",
            taken,
            taken,
            "task.state",
            again,
            again,
        ],
        |world, _| {
            let to = Address::Only(n("b"));
            world.ask(Command::TaskReassign { task: CHOSEN, to })
        },
    );
}

#[test]
fn an_urgent_task_asks_whoever_holds_to_yield() {
    // The urgent task arrives, then its claim on the holder is decided.
    task_row(
        "preempt",
        [
            "pending: task.submitted",
            "assigned: task.submitted task.yield_asked",
            "in_progress: task.submitted task.yield_asked",
            "completed: task.submitted",
            "failed: task.submitted",
            "cancelled: task.submitted",
        ],
        |world, _| {
            let mut urgent = spec(json!("now"));
            urgent.priority = Priority::CRITICAL;
            let urgent = world.submit(urgent);
            world.ask(Command::TaskPreempt {
                task: CHOSEN,
                urgent,
            })
        },
    );
}

#[test]
fn losing_the_holder_gives_the_task_back() {
    let back = "pending: attempt.ended worker.lost";
    task_row(
        "lose worker a",
        [
            "pending: worker.lost",
            back,
            back,
            "completed: worker.lost",
            "failed: worker.lost",
            "cancelled: worker.lost",
        ],
        |world, _| {
            world.ask(Command::WorkerLose {
                worker: n("a"),
                session: None,
                reason: "gone".into(),
            })
        },
    );
}

// S3-102: a client-supplied id is idempotent.
#[test]
fn a_chosen_id_is_one_task_whatever_became_of_it() {
    let again = |content: &'static str| {
        move |world: &mut World, _: AttemptRef| {
            let new = Submission {
                id: Some(CHOSEN),
                ..Submission::new(spec(json!(content)))
            };
            world.ask(Command::TaskSubmit(new))
        }
    };
    task_row("submit again", STATES, again("it"));
    task_row("submit another content", ["task.exists"; 6], again("other"));
}

#[test]
fn a_task_that_does_not_exist_is_an_error_for_every_command() {
    let mut world = World::with_workers(&["a"]);
    let task = TaskId::new(404);
    let lease = AttemptRef {
        task,
        attempt: 1,
        worker: n("a"),
    };
    let to = Address::Any;
    for command in [
        Command::TaskClaim {
            task,
            by: Claimant::new(n("a"), false),
        },
        Command::TaskReport {
            lease,
            report: Report::Started,
        },
        Command::TaskCancel {
            task,
            reason: String::new(),
        },
        Command::TaskRedrive(task),
        Command::TaskReassign { task, to },
        Command::TaskPreempt { task, urgent: task },
    ] {
        let text = format!("{command:?}");
        assert_eq!(world.refusal(command).as_str(), "task.unknown", "{text}");
    }
    // A timer for a task that is not there is no fault of anybody.
    assert_eq!(world.ask(Command::TaskTimeOut(task)), Ok(Outcome::Done));
    let known = world.submit(spec(json!(1)));
    assert_eq!(
        world.claim(known, "nobody").unwrap_err().code.as_str(),
        "worker.unknown"
    );
}

const STATUSES: [&str; 6] = [
    "unknown",
    "available",
    "busy",
    "error",
    "draining",
    "unavailable",
];

/// Worker `w` with room for one task. Busy and draining it holds one; one more task waits.
fn worker_in(status: &str) -> (World, TaskId) {
    let mut world = World::new();
    let (held, waiting) = (
        world.submit(spec(json!("held"))),
        world.submit(spec(json!("waits"))),
    );
    if status != "unknown" {
        world.register(WorkerSpec::new(n("w")));
    }
    if matches!(status, "busy" | "draining") {
        world.claim(held, "w").unwrap();
    }
    let reason = || "no disk".to_owned();
    match status {
        "error" => drop(
            world
                .ask(Command::WorkerError {
                    worker: n("w"),
                    reason: reason(),
                })
                .unwrap(),
        ),
        "draining" => drop(world.ask(Command::WorkerDrain(n("w"))).unwrap()),
        "unavailable" => world.lose("w"),
        _ => {}
    }
    (world, waiting)
}

fn status_of(world: &World) -> String {
    let worker = world.state.worker(&n("w"));
    worker
        .map_or("unknown", |worker| worker.status(world.now).as_str())
        .to_owned()
}

fn worker_row(
    name: &str,
    expected: [&str; 6],
    act: impl Fn(&mut World, TaskId) -> Result<Outcome, Error>,
) {
    for (status, expected) in STATUSES.into_iter().zip(expected) {
        let (mut world, waiting) = worker_in(status);
        assert_eq!(status_of(&world), status);
        let from = world.log.len();
        let outcome = act(&mut world, waiting);
        let found = cell(&world, from, status, status_of(&world), &outcome);
        assert_eq!(found, expected, "{name} when {status}");
    }
}

// S3-08: the states of a worker: what registering makes of each.
#[test]
fn a_worker_that_registers_is_there_and_a_new_life_gives_back_what_the_old_one_held() {
    let here = "available: worker.registered";
    worker_row(
        "register",
        [
            here,
            "available",
            "busy",
            here,
            "busy: worker.registered",
            here,
        ],
        |world, _| world.ask(Command::WorkerRegister(Arc::new(WorkerSpec::new(n("w"))))),
    );
    let released = "available: attempt.ended worker.registered";
    worker_row(
        "register with a new session",
        [here, here, released, here, released, here],
        |world, _| {
            let spec = WorkerSpec {
                session: 2,
                ..WorkerSpec::new(n("w"))
            };
            world.ask(Command::WorkerRegister(Arc::new(spec)))
        },
    );
}

// S3-08: the states of a worker: what it may become from each, and what is refused.
#[test]
fn a_worker_goes_with_its_tasks_back_in_the_queue() {
    let gone = "unavailable: worker.lost";
    let released = "unavailable: attempt.ended worker.lost";
    worker_row(
        "lose",
        [
            "worker.unknown",
            gone,
            released,
            gone,
            released,
            "unavailable",
        ],
        |world, _| {
            let reason = "gone".into();
            world.ask(Command::WorkerLose {
                worker: n("w"),
                session: None,
                reason,
            })
        },
    );
    let drains = "draining: worker.draining";
    worker_row(
        "drain",
        [
            "worker.unknown",
            drains,
            drains,
            drains,
            "draining",
            "worker.state",
        ],
        |world, _| world.ask(Command::WorkerDrain(n("w"))),
    );
    let error = "error: worker.faulted";
    worker_row(
        "error",
        [
            "worker.unknown",
            error,
            error,
            error,
            "draining: worker.faulted",
            "unavailable: worker.faulted",
        ],
        |world, _| {
            let reason = "broken".into();
            world.ask(Command::WorkerError {
                worker: n("w"),
                reason,
            })
        },
    );
}

// S3-10: a worker in another state is neither given a task nor chosen from its pool. S3-187: the rules of
// the registry.
#[test]
fn only_an_available_worker_gets_a_task() {
    let no = "worker.state";
    worker_row(
        "claim",
        [
            "worker.unknown",
            "busy: task.assigned",
            "worker.full",
            no,
            no,
            no,
        ],
        |world, task| {
            world.ask(Command::TaskClaim {
                task,
                by: Claimant::new(n("w"), false),
            })
        },
    );
    for status in STATUSES.into_iter().skip(1) {
        let (mut world, _) = worker_in(status);
        crew(&mut world, &["w"]);
        let chosen = world.ask(reserve("x", None, world.now.plus_ms(1_000)));
        assert_eq!(chosen.is_ok(), status == "available", "{status}");
    }
}

const RUN_STATES: [&str; 5] = ["running", "awaiting", "completed", "failed", "cancelled"];

/// A run of two tasks and a gate that its supervisor reduces.
fn run_in(state: &str) -> (World, RunId) {
    let mut world = World::with_workers(&["a"]);
    let run = world.start(start(json!([
        {"id": "work", "each": {"items": [1, 2], "task": {"kind": "work"}}},
        {"id": "all", "needs": ["work"], "gate": {"join": "all", "reduce": "supervisor"}}
    ])));
    let tasks = world.step_tasks(run, "work");
    match state {
        "running" => {}
        "failed" => tasks.iter().for_each(|task| world.give_up(*task, "a")),
        "cancelled" => {
            let reason = "no".into();
            world.ask(Command::RunCancel { run, reason }).unwrap();
        }
        _ => tasks
            .iter()
            .for_each(|task| world.finish(*task, "a", json!(0))),
    }
    if state == "completed" {
        let (step, output) = (n("all"), json!("sum").into());
        world.ask(Command::RunSettle { run, step, output }).unwrap();
    }
    (world, run)
}

fn run_state(world: &World, run: RunId) -> String {
    let run = world.run(run);
    match run.awaits_supervisor() {
        Some((_, false)) if run.status().as_str() == "running" => "awaiting".into(),
        _ => run.status().as_str().to_owned(),
    }
}

fn run_row(
    name: &str,
    expected: [&str; 5],
    act: impl Fn(&mut World, RunId) -> Result<Outcome, Error>,
) {
    for (state, expected) in RUN_STATES.into_iter().zip(expected) {
        let (mut world, run) = run_in(state);
        assert_eq!(run_state(&world, run), state);
        let from = world.log.len();
        let outcome = act(&mut world, run);
        let found = cell(&world, from, state, run_state(&world, run), &outcome);
        assert_eq!(found, expected, "{name} when {state}");
    }
}

#[test]
fn a_run_settles_once_stops_when_open_and_goes_on_when_it_ended_badly() {
    let settle = |step: &'static str| {
        move |world: &mut World, run| {
            let (step, output) = (n(step), json!("sum").into());
            world.ask(Command::RunSettle { run, step, output })
        }
    };
    run_row(
        "settle",
        [
            "run.state",
            "completed: step.ended step.ended run.completed",
            "completed",
            "failed",
            "run.state",
        ],
        settle("all"),
    );
    run_row(
        "settle an unknown step",
        ["step.unknown"; 5],
        settle("nothing"),
    );
    run_row(
        "cancel",
        [
            "cancelled: task.cancelled task.cancelled run.cancelled",
            "cancelled: run.cancelled",
            "run.state",
            "run.state",
            "cancelled",
        ],
        |world, run| {
            let reason = "no".into();
            world.ask(Command::RunCancel { run, reason })
        },
    );
    let again = "running: run.reopened task.redriven task.redriven step.started";
    run_row(
        "retry",
        ["run.state", "run.state", "run.state", again, again],
        |world, run| world.ask(Command::RunRetry(run)),
    );
    run_row("advance at rest", RUN_STATES, |world, run| {
        world.ask(Command::RunAdvance(run))
    });
}

#[test]
fn a_run_that_does_not_exist_is_an_error_for_every_command() {
    let mut world = World::new();
    let run = RunId::new(404);
    for command in [
        Command::RunAdvance(run),
        Command::RunSettle {
            run,
            step: n("x"),
            output: Json::default(),
        },
        Command::RunCancel {
            run,
            reason: String::new(),
        },
        Command::RunRetry(run),
    ] {
        assert_eq!(world.refusal(command).as_str(), "run.unknown");
    }
}

#[test]
fn an_entry_is_taken_by_whoever_names_its_holder() {
    let mut world = World::new();
    let new = domain::blackboard::NewEntry::new(n("a"), json!("a lead").into());
    let Ok(Outcome::Entry(entry)) = world.ask(Command::EntryWrite(domain::blackboard::NewEntry {
        ttl_ms: Some(1_000),
        ..new
    })) else {
        panic!()
    };
    let (free, a, b) = (None, Some("a"), Some("b"));
    // (who must hold it, who shall) → what happens, in this order.
    for (expected, by, found) in [
        (b, a, "entry.claimed"),
        (free, free, "nothing"),
        (free, a, "entry.claimed event"),
        (free, b, "entry.claimed"),
        (a, a, "nothing"),
        (b, free, "entry.claimed"),
        (a, b, "entry.claimed event"),
        (b, free, "entry.claimed event"),
        (free, b, "entry.claimed event"),
    ] {
        let from = world.log.len();
        let claim = Command::EntryClaim {
            entry,
            expected: expected.map(n),
            by: by.map(n),
        };
        let outcome = match world.ask(claim) {
            Err(error) => error.code.as_str().to_owned(),
            Ok(_) if world.names(from) == ["entry.claimed"] => "entry.claimed event".into(),
            Ok(_) => "nothing".into(),
        };
        assert_eq!(outcome, found, "{expected:?} → {by:?}");
    }
    assert_eq!(world.state.entry(&entry).unwrap().claimed_by, Some(n("b")));
    let claim = |entry| Command::EntryClaim {
        entry,
        expected: Some(n("b")),
        by: None,
    };
    assert_eq!(
        world.refusal(claim(EntryId::new(1))).as_str(),
        "entry.unknown"
    );
    world.pass(1_000);
    assert_eq!(
        world.refusal(claim(entry)).as_str(),
        "entry.unknown",
        "it has expired"
    );
    let forget = || Command::EntryForget {
        entry,
        reason: "its time was over".into(),
    };
    world.ask(forget()).unwrap();
    assert_eq!(world.names(world.log.len() - 1), ["entry.forgotten"]);
    assert!(world.state.entry(&entry).is_none());
    let from = world.log.len();
    world.ask(forget()).unwrap();
    assert_eq!(
        world.names(from),
        [""; 0],
        "forgetting twice is forgetting once"
    );
}

fn sent(world: &mut World, recipients: &[&str]) -> MessageId {
    let message = NewMessage {
        ttl_ms: Some(5_000),
        ..NewMessage::new(n("a"), To::Type, n("ping"), json!(1).into())
    };
    let recipients = recipients.iter().map(|name| n(name)).collect();
    match world
        .ask(Command::MessageSend {
            message,
            recipients,
        })
        .unwrap()
    {
        Outcome::Message(id) => id,
        other => panic!("{other:?}"),
    }
}

fn settle(
    world: &mut World,
    message: MessageId,
    recipient: &str,
    failure: Option<&str>,
) -> Vec<&'static str> {
    let from = world.log.len();
    let command = Command::MessageSettle {
        message,
        recipient: n(recipient),
        failure: failure.map(str::to_owned),
    };
    world.ask(command).unwrap();
    world.names(from)
}

// S3-187: the rules of messages.
#[test]
fn each_recipient_ends_as_delivered_dead_lettered_or_expired() {
    let mut world = World::new();
    let id = sent(&mut world, &["b", "c", "d"]);
    assert_eq!(settle(&mut world, id, "b", None), ["message.delivered"]);
    assert_eq!(
        settle(&mut world, id, "b", Some("late")),
        [""; 0],
        "the first ending stands"
    );
    assert_eq!(
        settle(&mut world, id, "c", Some("1")),
        ["message.offered_again"]
    );
    assert_eq!(
        settle(&mut world, id, "c", Some("2")),
        ["message.offered_again"]
    );
    assert_eq!(
        settle(&mut world, id, "c", Some("3")),
        ["message.dead_lettered"]
    );
    assert_eq!(settle(&mut world, id, "c", None), [""; 0]);
    world.pass(4_999);
    world.ask(Command::MessageExpire(id)).unwrap();
    assert!(
        world.state.message(&id).unwrap().is_open(),
        "not before its time"
    );
    world.pass(1);
    let from = world.log.len();
    world.ask(Command::MessageExpire(id)).unwrap();
    assert_eq!(world.names(from), ["message.expired"]);
    let at = world.now;
    let message = world.state.message(&id).unwrap();
    assert!(matches!(
        message.recipients["b"],
        Delivery::Delivered { .. }
    ));
    assert!(
        matches!(&message.recipients["c"], Delivery::DeadLettered { reason, .. } if reason == "3")
    );
    assert_eq!(message.recipients["d"], Delivery::Expired { at });
    // Kept for a day from its sending, then forgotten.
    world.now = Time(1_000_000 + 86_400_000 - 1);
    world.ask(Command::MessageExpire(id)).unwrap();
    assert!(world.state.message(&id).is_some());
    world.pass(1);
    world.ask(Command::MessageExpire(id)).unwrap();
    assert!(world.state.message(&id).is_none());
}

#[test]
fn a_receiver_that_answers_too_late_is_told_by_the_row() {
    let mut world = World::new();
    let id = sent(&mut world, &["b"]);
    world.pass(5_000);
    assert_eq!(settle(&mut world, id, "b", None), ["message.expired"]);
    let message = world.state.message(&id).unwrap();
    assert_eq!(message.recipients["b"], Delivery::Expired { at: world.now });
}

#[test]
fn a_message_that_nobody_would_get_is_dead_lettered_and_says_so() {
    let mut world = World::new();
    let cases = [
        (To::Agent(n("z")), "agent “z” has not subscribed"),
        (To::Type, "nobody has subscribed to type “ping”"),
        (To::Everybody, "nobody has subscribed"),
        (
            To::Prefix("w".into()),
            "nobody whose id begins with “w” has subscribed",
        ),
    ];
    for (to, why) in cases {
        let from = world.log.len();
        let message = NewMessage::new(n("a"), to, n("ping"), json!(1).into());
        let recipients = Vec::new();
        let error = world
            .ask(Command::MessageSend {
                message,
                recipients,
            })
            .unwrap_err();
        assert_eq!(error.code.as_str(), "message.no_recipient");
        assert!(error.message.ends_with(why), "{}", error.message);
        assert_eq!(world.names(from), ["message.sent", "message.dead_lettered"]);
    }
}

#[test]
fn the_same_message_id_is_sent_once() {
    let mut world = World::new();
    let send = || Command::MessageSend {
        message: NewMessage {
            id: Some(MessageId::new(5)),
            ..NewMessage::new(n("a"), To::Type, n("ping"), json!(1).into())
        },
        recipients: vec![n("b")],
    };
    world.ask(send()).unwrap();
    let from = world.log.len();
    assert_eq!(world.ask(send()), Ok(Outcome::Message(MessageId::new(5))));
    assert_eq!(world.names(from), [""; 0]);
    let settle = Command::MessageSettle {
        message: MessageId::new(6),
        recipient: n("b"),
        failure: None,
    };
    assert_eq!(world.refusal(settle).as_str(), "message.unknown");
}

// S3-187: the rules of queues.
#[test]
fn a_paused_queue_gives_nothing_out_until_it_is_resumed() {
    let mut world = World::with_workers(&["a"]);
    let task = world.submit(spec(json!(1)));
    let pause = |paused| Command::QueuePause {
        queue: n("default"),
        paused,
    };
    // (pause or resume, events, may be claimed)
    for (paused, events) in [
        (false, vec![]),
        (true, vec!["queue.paused"]),
        (true, vec![]),
        (false, vec!["queue.resumed"]),
    ] {
        let from = world.log.len();
        world.ask(pause(paused)).unwrap();
        assert_eq!(world.names(from), events);
        if paused {
            assert_eq!(
                world.claim(task, "a").unwrap_err().code.as_str(),
                "task.not_claimable"
            );
        }
    }
    world.finish(task, "a", json!(1));
    // A queue can be paused before its first task.
    world
        .ask(Command::QueuePause {
            queue: n("new"),
            paused: true,
        })
        .unwrap();
    assert!(world.state.queue(&n("new")).unwrap().paused);
}

fn crew(world: &mut World, members: &[&str]) {
    let pool = Pool {
        id: n("crew"),
        strategy: Strategy::RoundRobin,
        members: members.iter().map(|name| n(name)).collect(),
        version: 0,
    };
    world
        .ask(Command::PoolDefine {
            pool,
            expected: None,
        })
        .unwrap();
}

fn join(worker: &str) -> Command {
    Command::PoolJoin {
        pool: n("crew"),
        worker: n(worker),
    }
}

fn leave(worker: &str) -> Command {
    Command::PoolLeave {
        pool: n("crew"),
        worker: n(worker),
    }
}

// S3-130: an unregistered id is refused.
#[test]
fn a_pool_takes_registered_workers_once() {
    let mut world = World::with_workers(&["a", "b"]);
    assert_eq!(world.refusal(join("a")).as_str(), "pool.unknown");
    assert_eq!(world.refusal(leave("a")).as_str(), "pool.unknown");
    crew(&mut world, &["a"]);
    assert_eq!(world.refusal(join("stranger")).as_str(), "worker.unknown");
    assert_eq!(world.refusal(join("a")).as_str(), "pool.member");
    assert_eq!(world.refusal(leave("b")).as_str(), "worker.unknown");
    world.ask(join("b")).unwrap();
    // Defining it again changes the strategy and keeps who is in it.
    let pool = Pool {
        id: n("crew"),
        strategy: Strategy::Weighted,
        members: vec![n("b")],
        version: 0,
    };
    world
        .ask(Command::PoolDefine {
            pool,
            expected: None,
        })
        .unwrap();
    let pool = world.state.pool(&n("crew")).unwrap();
    assert_eq!(pool.strategy, Strategy::Weighted);
    assert_eq!(pool.members, [n("b"), n("a")]);
    let stranger = Pool {
        members: vec![n("stranger")],
        ..pool.clone()
    };
    assert_eq!(
        world
            .refusal(Command::PoolDefine {
                pool: stranger,
                expected: None
            })
            .as_str(),
        "worker.unknown"
    );
}

#[test]
fn a_pool_counts_a_worker_that_is_named_twice_once() {
    let mut world = World::with_workers(&["a", "b"]);
    crew(&mut world, &["a", "b", "a"]);
    assert_eq!(
        world.state.pool(&n("crew")).unwrap().members,
        [n("a"), n("b")]
    );
}

// S3-131: removing drains: what runs finishes, or comes back.
#[test]
fn a_worker_that_leaves_its_pool_finishes_what_it_has() {
    let mut world = World::with_workers(&["a"]);
    crew(&mut world, &["a"]);
    let (task, next) = (world.submit(spec(json!(1))), world.submit(spec(json!(2))));
    let lease = world.claim(task, "a").unwrap();
    let from = world.log.len();
    world.ask(leave("a")).unwrap();
    assert_eq!(world.names(from), ["pool.left", "worker.draining"]);
    world.complete(&lease, json!("done"));
    assert_eq!(world.status(task).as_str(), "completed");
    assert_eq!(
        world.claim(next, "a").unwrap_err().code.as_str(),
        "worker.state"
    );
    world.lose("a");
    assert_eq!(world.status(next).as_str(), "pending");
}

fn reserve(holder: &str, capability: Option<&str>, until: Time) -> Command {
    Command::PoolReserve {
        pool: n("crew"),
        capability: capability.map(n),
        holder: n(holder),
        until,
    }
}

// S3-132: the slot is reserved in the decision that finds it.
// S3-187: the rules of pools.
#[test]
fn a_pool_reserves_one_room_per_caller_until_it_is_full() {
    let mut world = World::new();
    world.register(WorkerSpec {
        capacity: 2,
        ..WorkerSpec::new(n("a"))
    });
    world.register(WorkerSpec {
        capabilities: vec![n("Vision")],
        ..WorkerSpec::new(n("b"))
    });
    crew(&mut world, &["a", "b"]);
    let until = world.now.plus_ms(1_000);
    // By load: a and b are idle, a is first; then b (0 of 1) before a (1 of 2); then a's second.
    for (holder, found) in [("x", "a"), ("y", "b"), ("z", "a")] {
        assert_eq!(
            world.ask(reserve(holder, None, until)),
            Ok(Outcome::Worker(n(found)))
        );
    }
    assert_eq!(
        world.refusal(reserve("q", None, until)).as_str(),
        "worker.full"
    );
    assert_eq!(world.worker("a").status(world.now).as_str(), "busy");
    // Given back, it can be had again; capability is matched without regard to case.
    let back = |worker: &str, holder: &str| Command::PoolUnreserve {
        worker: n(worker),
        holder: n(holder),
    };
    world.ask(back("b", "y")).unwrap();
    let from = world.log.len();
    world.ask(back("b", "y")).unwrap();
    assert_eq!(world.names(from), [""; 0]);
    assert_eq!(world.refusal(back("c", "y")).as_str(), "worker.unknown");
    assert_eq!(
        world.ask(reserve("q", Some("vision"), until)),
        Ok(Outcome::Worker(n("b")))
    );
    assert_eq!(
        world.refusal(reserve("r", Some("vision"), until)).as_str(),
        "worker.full"
    );
    // At its end a reservation is over by itself.
    world.pass(1_000);
    assert_eq!(world.worker("a").free(world.now), 2);
    assert_eq!(world.worker("b").free(world.now), 1);
}
