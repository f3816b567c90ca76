//! Any commands in any order: the rows stay the fold of the log, the counts stay true, and no task
//! is completed twice or by a stale token. The checks themselves are the world's.

use crate::monitor::counts;
use crate::world::{World, n, spec, start};
use domain::blackboard::NewEntry;
use domain::budget::{Amount, Cost};
use domain::command::{Claimant, Command, Report, RunStart, Submission};
use domain::error::Who;
use domain::event::{AttemptRef, Event};
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::message::{NewMessage, To};
use domain::monitor::Conflict;
use domain::pool::{Member, Pool, Strategy as Share};
use domain::record::{EffectClass, Finding, NewRecord, RecordState};
use domain::retry::RetryPolicy;
use domain::state::Key;
use domain::task::{Address, Failure, Priority, SlotUse, TaskSpec};
use domain::worker::WorkerSpec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];
const QUEUES: [&str; 2] = ["default", "other"];
const SLOTS: [&str; 2] = ["s1", "s2"];
const RECORDS: [&str; 2] = ["r1", "r2"];

/// One thing that happens. Small numbers stand for things: the task, run or lease that they point
/// at among those there are, or sometimes one that is not.
#[derive(Debug, Clone)]
enum Act {
    Pass(u64),
    Submit {
        id: Option<u8>,
        key: Option<u8>,
        shape: Shape,
    },
    Claim(u8, u8, bool),
    Next(u8),
    Work(u8, Say),
    Report(u8, Say),
    Stale(u8, Say),
    Forge(u8, u8, u32, Say),
    TimeOut(u8),
    Cancel(u8),
    Redrive(u8),
    Resolve(u8, u8, Option<u8>),
    Reassign(u8, u8, bool),
    Preempt(u8, u8),
    Register(u8, u64),
    Lose(u8),
    Drain(u8),
    Fault(u8),
    Pause(u8, bool),
    Start(u8, u8),
    RunCancel(u8),
    RunRetry(u8),
    Settle(u8),
    Advance(u8),
    Pool(u8, u8),
    Write(f64, Option<u64>),
    EntryClaim(u8, u8),
    EntryForget(u8),
    Send(u8),
    Deal(u8, u8, bool),
    Clock,
}

#[derive(Debug, Clone)]
struct Shape {
    input: f64,
    priority: i32,
    queue: u8,
    slot: Option<(u8, u32)>,
    address: Option<(u8, bool)>,
    delay: Option<u64>,
    after: Vec<u8>,
    attempts: u32,
}

#[derive(Debug, Clone)]
enum Say {
    Started,
    Progressed(f64),
    Recorded(u8, u8, RecordState, u8),
    Completed(f64),
    Failed { retryable: bool, worker_fault: bool },
    Released,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        any::<f64>().prop_filter("JSON has no infinity", |x| x.is_finite()),
        -20..=20i32,
        0..2u8,
        prop::option::weighted(0.3, (0..2u8, 1..3u32)),
        prop::option::weighted(0.2, (0..4u8, any::<bool>())),
        prop::option::weighted(0.1, 1..2_000u64),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..8u8, 1..3)],
        1..4u32,
    )
        .prop_map(
            |(input, priority, queue, slot, address, delay, after, attempts)| Shape {
                input,
                priority,
                queue,
                slot,
                address,
                delay,
                after,
                attempts,
            },
        )
}

fn record_state() -> impl Strategy<Value = RecordState> {
    prop_oneof![
        4 => Just(RecordState::Intended),
        3 => (0..2u8).prop_map(|output| RecordState::Done { output: json!(output).into() }),
        1 => Just(RecordState::Failed { failure: Failure::new("x", "y") }),
        1 => Just(RecordState::InDoubt),
    ]
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        1 => Just(Say::Started),
        1 => (0.0..=1.0f64).prop_map(Say::Progressed),
        4 => (0..2u8, 0..4u8, record_state(), 0..40u8)
            .prop_map(|(k, e, s, cost)| Say::Recorded(k, e, s, cost)),
        4 => any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Say::Completed),
        2 => any::<(bool, bool)>()
            .prop_map(|(retryable, worker_fault)| Say::Failed { retryable, worker_fault }),
        1 => Just(Say::Released),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let any8 = any::<u8>;
    let worker = || 0..4u8;
    prop_oneof![
        4 => prop_oneof![Just(1), Just(500), Just(2_000), Just(30_000), Just(700_000)].prop_map(Act::Pass),
        8 => (prop::option::of(0..8u8), prop::option::weighted(0.2, 0..2u8), shape())
            .prop_map(|(id, key, shape)| Act::Submit { id, key, shape }),
        8 => (any8(), worker(), any::<bool>()).prop_map(|(t, w, s)| Act::Claim(t, w, s)),
        8 => worker().prop_map(Act::Next),
        24 => (worker(), say()).prop_map(|(w, s)| Act::Work(w, s)),
        16 => (any8(), say()).prop_map(|(l, s)| Act::Report(l, s)),
        5 => (any8(), say()).prop_map(|(l, s)| Act::Stale(l, s)),
        3 => (any8(), worker(), 0..4u32, say()).prop_map(|(t, w, a, s)| Act::Forge(t, w, a, s)),
        3 => any8().prop_map(Act::TimeOut),
        3 => any8().prop_map(Act::Cancel),
        4 => any8().prop_map(Act::Redrive),
        2 => (any8(), 0..2u8, prop::option::of(0..2u8)).prop_map(|(t, k, f)| Act::Resolve(t, k, f)),
        3 => (any8(), 0..5u8, any::<bool>()).prop_map(|(t, w, o)| Act::Reassign(t, w, o)),
        2 => (any8(), any8()).prop_map(|(a, b)| Act::Preempt(a, b)),
        6 => (worker(), 0..2u64).prop_map(|(w, s)| Act::Register(w, s)),
        3 => worker().prop_map(Act::Lose),
        1 => worker().prop_map(Act::Drain),
        1 => worker().prop_map(Act::Fault),
        1 => (0..2u8, any::<bool>()).prop_map(|(q, p)| Act::Pause(q, p)),
        4 => (0..SHAPES, 0..3u8).prop_map(|(g, c)| Act::Start(g, c)),
        2 => any8().prop_map(Act::RunCancel),
        3 => any8().prop_map(Act::RunRetry),
        2 => any8().prop_map(Act::Settle),
        1 => any8().prop_map(Act::Advance),
        2 => (0..4u8, worker()).prop_map(|(what, w)| Act::Pool(what, w)),
        2 => (0.0..=1.0f64, prop::option::of(1..3_000u64)).prop_map(|(i, t)| Act::Write(i, t)),
        1 => (any8(), worker()).prop_map(|(e, w)| Act::EntryClaim(e, w)),
        1 => any8().prop_map(Act::EntryForget),
        2 => (0..4u8).prop_map(Act::Send),
        2 => (any8(), worker(), any::<bool>()).prop_map(|(m, w, ok)| Act::Deal(m, w, ok)),
        3 => Just(Act::Clock),
    ]
}

const SHAPES: u8 = 6;

fn steps(shape: u8) -> Value {
    let gate = |join: Value, reduce: &str| json!({"id": "g", "needs": ["a"], "gate": {"join": join, "reduce": reduce}});
    let each = json!({"id": "a", "each": {"items": [0.1, 0.2, 0.3], "concurrency": 2, "task": {"kind": "work"}}});
    match shape {
        0 => json!([each, gate(json!("all"), "collect")]),
        1 => {
            json!([each, gate(json!("any"), "collect"), {"id": "b", "needs": ["g"], "each": {"over": "g", "task": {"kind": "work"}}}])
        }
        2 => json!([each, gate(json!({"quorum": 2}), "supervisor")]),
        3 => {
            json!([each, gate(json!({"first_k": 2}), "vote"), {"id": "h", "needs": ["a"], "gate": {"join": "all"}}])
        }
        4 => json!([each, gate(json!({"deadline": 2_000}), "collect")]),
        _ => {
            json!([{"id": "a", "task": {"kind": "work"}}, {"id": "b", "needs": ["a"], "task": {"kind": "work", "input_from": "steps.a"}},
                    {"id": "c", "task": {"kind": "work", "retry": {"attempts": 1}}}])
        }
    }
}

/// One of `all`, or sometimes nothing that exists.
fn pick<T: Copy>(all: &[T], number: u8, unknown: T) -> T {
    let index = number as usize % (all.len() + 1);
    all.get(index).copied().unwrap_or(unknown)
}

struct Universe {
    world: World,
    leases: Vec<AttemptRef>,
    tasks: Vec<TaskId>,
    runs: Vec<RunId>,
    entries: Vec<EntryId>,
    messages: Vec<MessageId>,
}

impl Universe {
    fn task(&self, number: u8) -> TaskId {
        pick(&self.tasks, number, TaskId::new(404))
    }

    fn run(&self, number: u8) -> RunId {
        pick(&self.runs, number, RunId::new(404))
    }

    fn spec(&self, shape: Shape) -> TaskSpec {
        TaskSpec {
            priority: Priority(shape.priority),
            queue: n(QUEUES[shape.queue as usize]),
            slot: shape.slot.map(|(slot, max)| SlotUse {
                key: n(SLOTS[slot as usize]),
                max,
            }),
            address: match shape.address {
                None => Address::Any,
                Some((worker, true)) => Address::Only(n(WORKERS[worker as usize])),
                Some((worker, false)) => Address::Prefer(n(WORKERS[worker as usize])),
            },
            not_before: shape.delay.map(|ms| self.world.now.plus_ms(ms)),
            after: shape
                .after
                .into_iter()
                .map(|number| self.task(number))
                .collect(),
            retry: RetryPolicy {
                attempts: shape.attempts,
                ..RetryPolicy::default()
            },
            ..spec(json!(shape.input))
        }
    }

    fn command(&self, act: Act) -> Option<Command> {
        let w = |worker: u8| n(WORKERS[worker as usize]);
        let reason = || "because".to_owned();
        Some(match act {
            Act::Pass(_) | Act::Next(_) | Act::Work(..) | Act::Clock => return None,
            Act::Submit { id, key, shape } => Command::TaskSubmit(Submission {
                id: id.map(|id| TaskId::new(u128::from(id) + 1)),
                key: key.map(|key| n(&format!("key{key}"))),
                spec: Arc::new(self.spec(shape)),
            }),
            Act::Claim(task, worker, starts) => Command::TaskClaim {
                task: self.task(task),
                by: Claimant::new(w(worker), starts),
            },
            Act::Report(number, say) => {
                let mut held: Vec<AttemptRef> = self.leases.clone();
                held.retain(|lease| {
                    let now = self.world.task(lease.task).lease();
                    now.is_some_and(|now| now.attempt == lease.attempt)
                });
                Command::TaskReport {
                    lease: held.get(number as usize % held.len().max(1))?.clone(),
                    report: report(say),
                }
            }
            Act::Stale(number, say) => Command::TaskReport {
                lease: self
                    .leases
                    .get(number as usize % self.leases.len().max(1))?
                    .clone(),
                report: report(say),
            },
            Act::Forge(task, worker, attempt, say) => Command::TaskReport {
                lease: AttemptRef {
                    task: self.task(task),
                    attempt,
                    worker: w(worker),
                },
                report: report(say),
            },
            Act::TimeOut(task) => Command::TaskTimeOut(self.task(task)),
            Act::Cancel(task) => Command::TaskCancel {
                task: self.task(task),
                reason: reason(),
            },
            Act::Redrive(task) => Command::TaskRedrive(self.task(task)),
            Act::Resolve(task, key, found) => Command::RecordResolve {
                task: self.task(task),
                key: n(RECORDS[key as usize]),
                finding: match found {
                    Some(output) => Finding::Done {
                        output: json!(output).into(),
                    },
                    None => Finding::Failed {
                        failure: Failure::new("x", "y"),
                    },
                },
            },
            Act::Reassign(task, worker, only) => Command::TaskReassign {
                task: self.task(task),
                to: match (worker, only) {
                    (4, _) => Address::Any,
                    (_, true) => Address::Only(w(worker)),
                    (_, false) => Address::Prefer(w(worker)),
                },
            },
            Act::Preempt(task, urgent) => Command::TaskPreempt {
                task: self.task(task),
                urgent: self.task(urgent),
            },
            Act::Register(worker, session) => Command::WorkerRegister(Arc::new(WorkerSpec {
                session,
                queues: QUEUES.map(n).into(),
                capacity: capacity(worker),
                ..WorkerSpec::new(w(worker))
            })),
            Act::Lose(worker) => Command::WorkerLose {
                worker: w(worker),
                session: None,
                reason: reason(),
            },
            Act::Drain(worker) => Command::WorkerDrain(w(worker)),
            Act::Fault(worker) => Command::WorkerError {
                worker: w(worker),
                reason: reason(),
            },
            Act::Pause(queue, paused) => Command::QueuePause {
                queue: n(QUEUES[queue as usize]),
                paused,
            },
            Act::Start(shape, crew) => {
                let mut new: RunStart = start(steps(shape));
                new.crew.members = WORKERS[..crew as usize]
                    .iter()
                    .map(|id| Member::new(n(id)))
                    .collect();
                Command::RunStart(Box::new(new))
            }
            Act::RunCancel(run) => Command::RunCancel {
                run: self.run(run),
                reason: reason(),
            },
            Act::RunRetry(run) => Command::RunRetry(self.run(run)),
            Act::Settle(run) => Command::RunSettle {
                run: self.run(run),
                step: n("g"),
                output: json!("settled").into(),
            },
            Act::Advance(run) => Command::RunAdvance(self.run(run)),
            Act::Pool(what, worker) => {
                let (pool, worker) = (n("crew"), w(worker));
                match what {
                    0 => Command::PoolDefine {
                        pool: Pool {
                            id: pool,
                            strategy: Share::RoundRobin,
                            members: Vec::new(),
                            version: 0,
                        },
                        expected: None,
                    },
                    1 => Command::PoolJoin { pool, worker },
                    2 => Command::PoolLeave { pool, worker },
                    _ => Command::PoolReserve {
                        pool,
                        capability: None,
                        holder: worker,
                        until: self.world.now.plus_ms(1_000),
                    },
                }
            }
            Act::Write(importance, ttl_ms) => Command::EntryWrite(NewEntry {
                importance,
                ttl_ms,
                run: self.runs.last().copied(),
                ..NewEntry::new(n("a"), json!(importance).into())
            }),
            Act::EntryClaim(entry, worker) => Command::EntryClaim {
                entry: pick(&self.entries, entry, EntryId::new(404)),
                expected: None,
                by: Some(w(worker)),
            },
            Act::EntryForget(entry) => Command::EntryForget {
                entry: pick(&self.entries, entry, EntryId::new(404)),
                reason: reason(),
            },
            Act::Send(recipients) => Command::MessageSend {
                message: NewMessage::new(n("a"), To::Everybody, n("k"), json!(0.1).into()),
                recipients: WORKERS[..recipients as usize]
                    .iter()
                    .map(|id| n(id))
                    .collect(),
            },
            Act::Deal(message, worker, ok) => Command::MessageSettle {
                message: pick(&self.messages, message, MessageId::new(404)),
                recipient: w(worker),
                failure: (!ok).then(reason),
            },
        })
    }

    fn act(&mut self, act: Act) {
        let from = self.world.log.len();
        match act {
            Act::Pass(ms) => self.world.pass(ms),
            Act::Next(worker) => drop(self.world.next(WORKERS[worker as usize])),
            Act::Work(worker, say) => {
                if let Some(lease) = self.world.next(WORKERS[worker as usize]) {
                    // A gate whose time is over may have cancelled it with the claim.
                    let _ = self.world.report(&lease, report(say));
                }
            }
            Act::Clock => self.clock(),
            act => {
                if let Some(command) = self.command(act) {
                    let text = format!("{command:?}");
                    let outcome = self.world.ask(command);
                    let bug = outcome.is_err_and(|error| error.code.who() == Who::Bug);
                    assert!(!bug, "{text} found a bug");
                }
            }
        }
        for recorded in &self.world.log[from..] {
            match &recorded.event {
                Event::TaskSubmitted { task, .. } => self.tasks.push(*task),
                Event::TaskAssigned { lease, .. } => self.leases.push(lease.clone()),
                Event::RunStarted { run, .. } => self.runs.push(*run),
                Event::EntryWritten { entry, .. } => self.entries.push(entry.id),
                Event::MessageSent { message, .. } => self.messages.push(message.id),
                _ => {}
            }
        }
    }

    /// What the clock has to look at, it looks at; then nothing is overdue but runs at rest.
    fn clock(&mut self) {
        let now = self.world.now;
        let due = |(key, row): (&Key, &domain::state::Row)| {
            row.due().is_some_and(|due| due <= now).then(|| key.clone())
        };
        let mut keys: Vec<Key> = self.world.state.iter().filter_map(due).collect();
        keys.sort();
        for key in &keys {
            let command = match key {
                Key::Task(task) => Command::TaskTimeOut(*task),
                Key::Run(run) => Command::RunAdvance(*run),
                Key::Message(message) => Command::MessageExpire(*message),
                Key::Receipt(key) => Command::ReceiptForget(key.clone()),
                Key::Entry(entry) => Command::EntryForget {
                    entry: *entry,
                    reason: "its time was over".into(),
                },
                other => panic!("{other:?} is due"),
            };
            self.world.ask(command).unwrap();
        }
        let still: Vec<Key> = self.world.state.iter().filter_map(due).collect();
        let looked_at_again = |key: &Key| matches!(key, Key::Message(_));
        assert!(
            still.iter().all(looked_at_again),
            "the clock would never rest: {still:?}"
        );
    }
}

fn capacity(worker: u8) -> u32 {
    u32::from(worker) % 3 + 1
}

fn report(say: Say) -> Report {
    match say {
        Say::Started => Report::Started,
        Say::Progressed(fraction) => Report::Progressed {
            fraction: Some(fraction),
            note: String::new(),
        },
        Say::Recorded(key, effect, state, cost) => Report::Recorded(NewRecord {
            key: n(RECORDS[key as usize]),
            effect: EffectClass::ALL[effect as usize],
            state,
            cost: (cost > 0).then(|| Cost {
                amount: Amount {
                    tokens: cost.into(),
                    ..Amount::CALL
                },
                last: cost % 5 == 0,
            }),
        }),
        Say::Completed(output) => Report::Completed {
            output: json!([output]).into(),
        },
        Say::Failed {
            retryable,
            worker_fault,
        } => Report::Failed {
            failure: Failure {
                retryable,
                worker_fault,
                ..Failure::new("x", "y")
            },
        },
        Say::Released => Report::Released {
            reason: "z".into(),
            checkpoint: Some(json!({"at": 0.3}).into()),
            after_ms: 0,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    // S3-126: the sum rule holds at all times.
    #[test]
    fn no_sequence_of_commands_breaks_an_invariant(graph in 0..SHAPES, acts in prop::collection::vec(act(), 1..=60)) {
        let mut universe = Universe {
            world: World::new(),
            leases: Vec::new(),
            tasks: Vec::new(),
            runs: Vec::new(),
            entries: Vec::new(),
            messages: Vec::new(),
        };
        for worker in 0..4 {
            universe.act(Act::Register(worker, 0));
        }
        universe.act(Act::Start(graph, 0));
        for act in acts {
            universe.act(act);
            for (worker, id) in WORKERS.iter().enumerate() {
                if let Some(known) = universe.world.state.worker(&n(id)) {
                    prop_assert!(known.holds.len() <= capacity(worker as u8) as usize);
                }
            }
        }
        universe.world.check();
        counts(&universe.world);
        let conflicts = crate::monitor::watch(&universe.world).conflicts();
        let double = |conflict: &Conflict| matches!(conflict, Conflict::DoubleLease { .. });
        prop_assert!(!conflicts.iter().any(double));
    }
}
