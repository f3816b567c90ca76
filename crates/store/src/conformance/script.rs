//! A small world at random: the same seed gives the same commands, in the same batches, at the same
//! instants, as long as the store gives the same answers.
//!
//! Small on purpose: few names, few tasks, short times, so that things meet. What a script does not
//! do is judge; whoever runs it compares what two stores made of it.

use crate::{Answer, Applied, Op, Request, Store};
use domain::blackboard::NewEntry;
use domain::budget::{Amount, Budget, Cost};
use domain::command::{Claimant, Command, Outcome, Report, RunStart, Submission};
use domain::demand::{Lack, Miss};
use domain::error::Error;
use domain::event::AttemptRef;
use domain::graph::{Graph, Step, StepKind, Template};
use domain::id::{CountedIds, EntryId, Ids, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::message::{NewMessage, To};
use domain::name::Name;
use domain::pool::{Pool, Strategy};
use domain::record::{EffectClass, Finding, NewRecord, RecordState};
use domain::retry::RetryPolicy;
use domain::run::Crew;
use domain::state::Key;
use domain::task::{Address, Failure, Priority, SlotUse, TaskSpec};
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const WORKERS: [&str; 3] = ["worker_1", "worker_2", "worker_3"];
const QUEUES: [&str; 2] = ["default", "slow"];
const SLOTS: [&str; 2] = ["customer-1", "customer-2"];
const RECEIPTS: [&str; 3] = ["once-a", "once-b", "once-c"];

/// What a run does, one of these: fan-outs with several kinds of join, and a chain.
const GRAPHS: [&str; 5] = [
    r#"{"steps": [
        {"id": "parts", "each": {"items": [1, 2, 3], "task": {"kind": "part"}}},
        {"id": "all", "needs": ["parts"], "gate": {"join": "all", "reduce": "collect"}}]}"#,
    r#"{"steps": [
        {"id": "first", "task": {"kind": "part", "input": {"n": 1}, "retry": {"attempts": 1}}},
        {"id": "second", "needs": ["first"], "task": {"kind": "part", "input_from": "steps.first"}}]}"#,
    r#"{"steps": [
        {"id": "parts", "each": {"items": ["a", "b"], "task": {"kind": "part", "queue": "slow"}}},
        {"id": "any", "needs": ["parts"], "gate": {"join": "any"}}]}"#,
    r#"{"steps": [
        {"id": "parts", "each": {"items": [1, 2, 3, 4], "concurrency": 2, "task": {"kind": "part"}}},
        {"id": "soon", "needs": ["parts"], "gate": {"join": {"deadline": 3000}}}]}"#,
    r#"{"steps": [
        {"id": "parts", "each": {"items": [1, 2], "task": {"kind": "part"}}},
        {"id": "read", "needs": ["parts"],
         "gate": {"join": {"first_k": 1}, "reduce": "supervisor"}}]}"#,
];

/// One seed's commands.
#[derive(Debug)]
pub struct Script {
    chance: CountedIds,
    now: Time,
    tasks: Vec<TaskId>,
    leases: Vec<AttemptRef>,
    runs: Vec<RunId>,
    entries: Vec<EntryId>,
    messages: Vec<MessageId>,
}

impl Script {
    /// The script of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = CountedIds::new(seed);
        // Small seeds begin alike; a few draws part them.
        for _ in 0..8 {
            chance.chance(2);
        }
        Self {
            chance,
            now: Time(1_700_000_000_000),
            tasks: Vec::new(),
            leases: Vec::new(),
            runs: Vec::new(),
            entries: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// The instant of the last batch.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Applies the next batch to a store, and remembers what came of it.
    ///
    /// # Errors
    /// The store's own; the script has moved on then.
    pub fn step(&mut self, store: &mut Store) -> Result<Applied, Error> {
        let requests = self.batch(&store.index().due(self.now, 4));
        let applied = store.apply(&requests, self.now)?;
        self.heard(&applied);
        Ok(applied)
    }

    /// The next batch; `due` is what the clock has to look at.
    pub fn batch(&mut self, due: &[Key]) -> Vec<Request> {
        let pause = match self.below(40) {
            0 => 26 * 3600 * 1000,
            1..4 => 5_000,
            4..20 => 300,
            _ => 0,
        };
        self.now = self.now.plus_ms(self.below(pause + 1));
        let mut requests = Vec::new();
        for n in 0..=self.below(3) {
            let mut request = Request::default();
            if self.below(2) == 0 {
                request.origin.cause = Name::new(format!("request-{n}")).ok();
            }
            for _ in 0..=self.below(3) {
                request.ops.push(self.op());
            }
            requests.push(request);
        }
        if self.below(3) > 0 {
            let ops = due.iter().filter_map(timer).map(Op::Command).collect();
            requests.push(Request::own(ops));
        }
        if self.now.0.is_multiple_of(3) {
            requests.push(Request::own(vec![Op::Command(self.miss())]));
        }
        requests
    }

    /// A tool that is missed; which one is the clock's to say.
    fn miss(&self) -> Command {
        let tool = match self.now.0.is_multiple_of(2) {
            true => "mail.send",
            false => "fax",
        };
        Command::ToolMiss(Arc::new(Miss {
            tool: Name::literal(tool),
            lack: Lack::Unknown,
            by: Name::literal(WORKERS[0]),
            run: self.runs.last().copied(),
            task: self.tasks.last().copied(),
        }))
    }

    /// Remembers ids and leases, to name them later.
    pub fn heard(&mut self, applied: &Applied) {
        for answer in applied.answers.iter().flatten() {
            match answer {
                Answer::Outcome(Ok(Outcome::Task(id))) => keep(&mut self.tasks, *id),
                Answer::Outcome(Ok(Outcome::Run(id))) => keep(&mut self.runs, *id),
                Answer::Outcome(Ok(Outcome::Entry(id))) => keep(&mut self.entries, *id),
                Answer::Outcome(Ok(Outcome::Message(id))) => keep(&mut self.messages, *id),
                Answer::Outcome(Ok(Outcome::Leased(lease))) => {
                    keep(&mut self.leases, lease.clone());
                }
                Answer::Claimed(Ok(claimed)) => {
                    for claimed in claimed {
                        keep(&mut self.tasks, claimed.lease.task);
                        keep(&mut self.leases, claimed.lease.clone());
                    }
                }
                _ => {}
            }
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.chance.chance(bound)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let n = self.below(of.len() as u64) as usize;
        of.get(n).cloned()
    }

    fn name(&mut self, of: &[&'static str]) -> Name {
        Name::literal(self.one(of).unwrap_or("nobody"))
    }

    fn worker(&mut self) -> Name {
        self.name(&WORKERS)
    }

    /// Mostly one that is known; sometimes one that is not.
    fn task(&mut self) -> TaskId {
        let known = self.one(&self.tasks.clone());
        if self.below(30) == 0 {
            return TaskId::new(7);
        }
        known.unwrap_or(TaskId::new(7))
    }

    fn op(&mut self) -> Op {
        Op::Command(match self.below(44) {
            0..9 => Command::TaskSubmit(self.submission()),
            9..15 => {
                return Op::Claim {
                    by: Claimant::new(self.worker(), self.below(2) == 0),
                    max: self.below(4) as u32,
                };
            }
            15..23 => match self.one(&self.leases.clone()) {
                Some(lease) => Command::TaskReport {
                    lease,
                    report: self.report(),
                },
                None => Command::WorkerRegister(Arc::new(self.spec_of_worker())),
            },
            23 => Command::TaskCancel {
                task: self.task(),
                reason: "not wanted".into(),
            },
            24 => match self.below(2) {
                0 => Command::RecordResolve {
                    task: self.task(),
                    key: Name::literal("charge"),
                    finding: Finding::Done {
                        output: Json::default(),
                    },
                },
                _ => Command::TaskRedrive(self.task()),
            },
            25 => {
                let urgent = self.task();
                let held = self.one(&self.leases.clone());
                let task = held.map_or(urgent, |lease| lease.task);
                Command::TaskPreempt { task, urgent }
            }
            26 => match self.below(3) {
                0 => Command::TaskClaim {
                    task: self.task(),
                    by: Claimant::new(self.worker(), false),
                },
                1 => Command::TaskReassign {
                    task: self.task(),
                    to: self.address(),
                },
                _ => return Op::Get(Key::Task(self.task())),
            },
            27..29 => Command::WorkerRegister(Arc::new(self.spec_of_worker())),
            29 => {
                let (worker, reason) = (self.worker(), "gone".to_owned());
                match self.below(6) {
                    0 => Command::WorkerDrain(worker),
                    1 => Command::WorkerError { worker, reason },
                    _ => Command::WorkerLose {
                        worker,
                        session: None,
                        reason,
                    },
                }
            }
            30 => Command::QueuePause {
                queue: self.name(&QUEUES),
                paused: self.below(3) == 0,
            },
            31 => self.pool(),
            32 => Command::RunStart(Box::new(self.run())),
            33 => match (self.one(&self.runs.clone()), self.below(4)) {
                (Some(run), 0) => Command::RunCancel {
                    run,
                    reason: "enough".into(),
                },
                (Some(run), 1) => Command::RunRetry(run),
                (Some(run), _) => Command::RunAdvance(run),
                (None, _) => Command::RunAdvance(RunId::new(7)),
            },
            34..36 => Command::EntryWrite(self.entry()),
            36 => {
                let entry = self.one(&self.entries.clone()).unwrap_or(EntryId::new(7));
                if self.below(4) == 0 {
                    let reason = "stale".to_owned();
                    Command::EntryForget { entry, reason }
                } else {
                    let expected = (self.below(2) == 0).then(|| self.worker());
                    let by = (self.below(3) > 0).then(|| self.worker());
                    Command::EntryClaim {
                        entry,
                        expected,
                        by,
                    }
                }
            }
            37 => {
                let kind = Name::literal("news");
                let to = To::Agent(self.worker());
                let payload = Json::from_value(&serde_json::json!({"n": self.below(9)}));
                let mut message = NewMessage::new(self.worker(), to, kind, payload);
                message.ttl_ms = (self.below(2) == 0).then_some(400);
                let all = WORKERS.map(Name::literal);
                let count = self.below(4) as usize;
                Command::MessageSend {
                    message,
                    recipients: all[..count].to_vec(),
                }
            }
            38..40 => Command::MessageSettle {
                message: (self.one(&self.messages.clone())).unwrap_or(MessageId::new(7)),
                recipient: self.worker(),
                failure: (self.below(3) == 0).then(|| "not understood".into()),
            },
            40..42 => self.pool(),
            _ => Command::RunSettle {
                run: self.one(&self.runs.clone()).unwrap_or(RunId::new(7)),
                step: Name::literal("read"),
                output: Json::from_value(&serde_json::json!({"read": self.below(9)})),
            },
        })
    }

    fn submission(&mut self) -> Submission {
        let kind = self.name(&["part", "text.stats"]);
        let input = serde_json::json!({"text": "ä\n“quoted” \u{1F980}", "n": self.below(3)});
        let mut spec = TaskSpec::new(kind, Json::from_value(&input));
        if self.below(4) == 0 {
            spec.queue = self.name(&QUEUES);
        }
        spec.priority = Priority(self.below(5) as i32 * 10 - 20);
        spec.address = self.address();
        spec.capability = (self.below(6) == 0).then(|| Name::literal("Vision"));
        spec.timeout_ms = 200 + self.below(2_000);
        spec.retry = match self.below(3) {
            0 => RetryPolicy::NEVER,
            1 => RetryPolicy::default(),
            _ => RetryPolicy {
                attempts: 2,
                backoff_ms: 100,
                factor_percent: 100,
                backoff_max_ms: 100,
            },
        };
        if self.below(5) == 0 {
            spec.not_before = Some(self.now.plus_ms(self.below(800)));
        }
        if self.below(4) == 0 {
            let max = 1 + self.below(2) as u32;
            let key = self.name(&SLOTS);
            spec.slot = Some(SlotUse { key, max });
        }
        for _ in 0..self.below(5).saturating_sub(2) {
            spec.after.push(self.task());
        }
        let mut new = Submission::new(spec);
        match self.below(8) {
            0 => new.key = Some(self.name(&RECEIPTS)),
            1 => new.id = Some(TaskId::new(u128::from(100 + self.below(4)))),
            _ => {}
        }
        new
    }

    fn address(&mut self) -> Address {
        match self.below(8) {
            0 => Address::Only(self.worker()),
            1 => Address::Prefer(self.worker()),
            _ => Address::Any,
        }
    }

    fn report(&mut self) -> Report {
        match self.below(17) {
            16 => {
                let more = Step {
                    id: self.name(&["more", "most"]),
                    needs: Vec::new(),
                    kind: StepKind::Task(Template::new(Name::literal("work"))),
                };
                Report::Extended { steps: vec![more] }
            }
            10.. => {
                let (key, effect) = match self.below(3) {
                    0 => ("charge", EffectClass::AtMostOnce),
                    1 => ("draft", EffectClass::Pure),
                    _ => ("answer", EffectClass::Keyed),
                };
                let state = match self.below(6) {
                    0..3 => RecordState::Intended,
                    3 => RecordState::InDoubt,
                    4 => RecordState::Failed {
                        failure: Failure::new("step.failed", "no"),
                    },
                    _ => RecordState::Done {
                        output: Json::from_value(&serde_json::json!([self.below(2), 0.1])),
                    },
                };
                Report::Recorded(NewRecord {
                    key: Name::literal(key),
                    effect,
                    state,
                    cost: (self.below(2) == 0).then_some(Cost {
                        amount: Amount {
                            tokens: 90,
                            ..Amount::CALL
                        },
                        last: false,
                    }),
                })
            }
            0 => Report::Started,
            1 => Report::Progressed {
                fraction: Some(self.below(101) as f64 / 100.0),
                note: "on".into(),
            },
            2..4 => Report::Failed {
                failure: Failure {
                    retryable: self.below(4) > 0,
                    worker_fault: self.below(4) == 0,
                    ..Failure::new("work.failed", "no")
                },
            },
            4 => Report::Released {
                reason: "later".into(),
                checkpoint: Some(Json::from_value(&serde_json::json!({"at": self.below(9)}))),
                after_ms: self.below(2) * 300,
            },
            _ => Report::Completed {
                output: Json::from_value(&serde_json::json!([self.below(9), 0.1, "é"])),
            },
        }
    }

    fn spec_of_worker(&mut self) -> WorkerSpec {
        let mut spec = WorkerSpec::new(self.worker());
        spec.session = self.below(2);
        spec.capacity = 1 + self.below(3) as u32;
        spec.queues = QUEUES.map(Name::literal).to_vec();
        if self.below(2) == 0 {
            spec.capabilities.push(Name::literal("vision"));
        }
        spec
    }

    fn pool(&mut self) -> Command {
        let (pool, worker) = (Name::literal("crew"), self.worker());
        match self.below(7) {
            0..3 => Command::PoolDefine {
                pool: Pool {
                    id: pool,
                    strategy: Strategy::LeastLoaded,
                    members: WORKERS[..1].iter().map(|w| Name::literal(w)).collect(),
                    version: 0,
                },
                expected: None,
            },
            3 => Command::PoolJoin { pool, worker },
            4 => Command::PoolLeave { pool, worker },
            5 => Command::PoolReserve {
                pool,
                capability: None,
                holder: Name::literal("supervisor_1"),
                until: self.now.plus_ms(500),
            },
            _ => Command::PoolUnreserve {
                worker,
                holder: Name::literal("supervisor_1"),
            },
        }
    }

    fn run(&mut self) -> RunStart {
        let text = self.one(&GRAPHS).unwrap_or(GRAPHS[0]);
        RunStart {
            goal: "everything".into(),
            supervisor: Name::literal("supervisor_1"),
            graph: serde_json::from_str::<Graph>(text).unwrap_or_default(),
            crew: Crew::default(),
            metadata: BTreeMap::new(),
            key: (self.below(4) == 0).then(|| Name::literal("run-once")),
            trace: None,
            budget: (self.below(2) == 0).then(|| Budget {
                // So few that the first call is a reason to warn.
                tokens: Some(8),
                ..Budget::default()
            }),
        }
    }

    fn entry(&mut self) -> NewEntry {
        let content = Json::from_value(&serde_json::json!({"seen": self.below(100)}));
        let mut entry = NewEntry::new(self.worker(), content);
        if self.below(2) == 0 {
            entry.run = self.one(&self.runs.clone());
        }
        entry.importance = self.below(11) as f64 / 10.0;
        entry.ttl_ms = (self.below(3) == 0).then_some(500);
        entry
    }
}

/// Ids that go on where they were when a store is opened again, as a clock would.
#[derive(Debug, Clone)]
pub struct SharedIds(Arc<Mutex<CountedIds>>);

impl SharedIds {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(CountedIds::new(seed))))
    }
}

impl Ids for SharedIds {
    fn next(&mut self) -> u128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
    fn chance(&mut self, bound: u64) -> u64 {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.chance(bound)
    }
}

/// What a clock asks for when a row is due.
pub fn timer(key: &Key) -> Option<Command> {
    Some(match key {
        Key::Task(id) => Command::TaskTimeOut(*id),
        Key::Run(id) => Command::RunAdvance(*id),
        Key::Entry(id) => Command::EntryForget {
            entry: *id,
            reason: "its time is over".into(),
        },
        Key::Message(id) => Command::MessageExpire(*id),
        Key::Receipt(key) => Command::ReceiptForget(key.clone()),
        Key::Worker(worker) => Command::WorkerForget(worker.clone()),
        Key::Queue(_)
        | Key::Slot(_)
        | Key::Pool(_)
        | Key::Board(_)
        | Key::Account(_)
        | Key::Credential(_)
        | Key::Demand(_)
        | Key::Tally
        | Key::Record(..) => return None,
    })
}

/// The newest few: old ones would only ever be refused.
fn keep<T: PartialEq>(list: &mut Vec<T>, new: T) {
    if !list.contains(&new) {
        if list.len() >= 12 {
            list.remove(0);
        }
        list.push(new);
    }
}
