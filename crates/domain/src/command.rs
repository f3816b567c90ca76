//! Commands: everything that can be asked for. A command names the rows that deciding it must see;
//! the store loads them and asks again until nothing is missing.

use crate::blackboard::NewEntry;
use crate::budget::Budget;
use crate::credential::Credential;
use crate::demand::Miss;
use crate::error::{Code, Error};
use crate::event::AttemptRef;
use crate::graph::{Graph, Step};
use crate::id::{EntryId, MessageId, RunId, TaskId};
use crate::json::Json;
use crate::message::NewMessage;
use crate::name::Name;
use crate::pool::Pool;
use crate::record::{Finding, NewRecord};
use crate::run::{Crew, Move};
use crate::state::{Key, State};
use crate::task::{Address, Failure, Task, TaskSpec};
use crate::time::Time;
use crate::trace::TraceParent;
use crate::worker::WorkerSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Its id, when the submitter chooses it: the same id and content twice is one task.
    #[serde(default)]
    pub id: Option<TaskId>,
    /// An idempotency key: the same key and content within a day is one task.
    #[serde(default)]
    pub key: Option<Name>,
    /// What is asked.
    pub spec: Arc<TaskSpec>,
}

impl Submission {
    /// A task with no chosen id and no key.
    pub fn new(spec: TaskSpec) -> Self {
        Self {
            id: None,
            key: None,
            spec: Arc::new(spec),
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        // Where it stands in a trace is not what is asked.
        match self.spec.trace {
            None => digest(&*self.spec),
            Some(_) => digest(&TaskSpec {
                trace: None,
                ..(*self.spec).clone()
            }),
        }
    }
}

/// A run to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RunStart {
    /// What for.
    pub goal: String,
    /// Its supervisor.
    pub supervisor: Name,
    /// The plan.
    pub graph: Graph,
    /// Who works.
    #[serde(default)]
    pub crew: Crew,
    /// Whatever the caller wants to find again.
    #[serde(default)]
    pub metadata: BTreeMap<Name, Json>,
    /// An idempotency key: the same key and content within a day is one run.
    #[serde(default)]
    pub key: Option<Name>,
    /// What it may spend; nothing said is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Where it stands in its starter's trace; it is not part of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}

impl RunStart {
    pub(crate) fn digest(&self) -> u64 {
        let content = (&self.goal, &self.graph, &self.crew, &self.metadata);
        match &self.budget {
            // As it was before there were budgets.
            None => digest(&content),
            Some(budget) => digest(&(content, budget)),
        }
    }
}

/// What a worker tells about an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It began.
    Started,
    /// How far it is.
    Progressed {
        /// 0 to 1.
        #[serde(default)]
        fraction: Option<f64>,
        /// In words.
        #[serde(default)]
        note: String,
    },
    /// What became of one step of it.
    Recorded(NewRecord),
    /// Its run goes on with these steps, too. They may need each other and what is there; the same
    /// said again changes nothing.
    Extended {
        /// All of them.
        steps: Vec<Step>,
    },
    /// The result.
    Completed {
        /// What came out.
        output: Json,
    },
    /// It did not work.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Handed back at a safe point: a yield, or a worker that stops.
    Released {
        /// Why.
        reason: String,
        /// What the next attempt may go on from.
        #[serde(default)]
        checkpoint: Option<Json>,
        /// Milliseconds before which another attempt is of no use; at most
        /// [`BACKOFF_MS_MAX`](crate::limits::BACKOFF_MS_MAX).
        #[serde(default, skip_serializing_if = "is_zero")]
        after_ms: u64,
    },
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who claims a task, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Who.
    pub worker: Name,
    /// In which of its lives; `None` is whichever is current.
    pub session: Option<u64>,
    /// It starts at once.
    pub starts: bool,
    /// The worker's own number of the request.
    pub claim: Option<u64>,
    /// It asks again under this number, because the answer was lost: it shall get the same tasks.
    pub again: bool,
}

impl Claimant {
    /// A worker that claims without a session or a number.
    pub fn new(worker: Name, starts: bool) -> Self {
        Self {
            worker,
            session: None,
            starts,
            claim: None,
            again: false,
        }
    }
}

/// Everything that can be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Accept a task.
    TaskSubmit(Submission),
    /// Lease a task to a worker.
    TaskClaim {
        /// Which.
        task: TaskId,
        /// To whom.
        by: Claimant,
    },
    /// Take a worker's word about an attempt.
    TaskReport {
        /// Which attempt.
        lease: AttemptRef,
        /// What it says.
        report: Report,
    },
    /// An attempt's time is over.
    TaskTimeOut(TaskId),
    /// A task is not wanted any more.
    TaskCancel {
        /// Which.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// A dead letter or cancelled task goes back into its queue.
    TaskRedrive(TaskId),
    /// Another worker shall do it.
    TaskReassign {
        /// Which.
        task: TaskId,
        /// Who.
        to: Address,
    },
    /// A person found out about a step in doubt.
    RecordResolve {
        /// Whose.
        task: TaskId,
        /// Which step.
        key: Name,
        /// What was found.
        finding: Finding,
    },
    /// A task's holder shall yield to a more urgent one.
    TaskPreempt {
        /// Which shall yield.
        task: TaskId,
        /// To which.
        urgent: TaskId,
    },
    /// A worker is there.
    WorkerRegister(Arc<WorkerSpec>),
    /// A worker is gone.
    WorkerLose {
        /// Which.
        worker: Name,
        /// In which of its lives; `None` is whichever is current.
        session: Option<u64>,
        /// Why.
        reason: String,
    },
    /// A worker gets nothing new.
    WorkerDrain(Name),
    /// A worker cannot work.
    WorkerError {
        /// Which.
        worker: Name,
        /// Why.
        reason: String,
    },
    /// Pause or resume a queue.
    QueuePause {
        /// Which.
        queue: Name,
        /// Pause it.
        paused: bool,
    },
    /// The clock looks at a worker that is gone.
    WorkerForget(Name),
    /// A worker that drained or was in error can work again.
    WorkerReady(Name),
    /// Define a pool.
    PoolDefine {
        /// All of it; its version is given by the decision.
        pool: Pool,
        /// The version it must have now, 0 when it must not exist; `None` is any.
        expected: Option<u64>,
    },
    /// Add a worker to a pool.
    PoolJoin {
        /// Which pool.
        pool: Name,
        /// Who.
        worker: Name,
    },
    /// Remove a worker from a pool.
    PoolLeave {
        /// Which pool.
        pool: Name,
        /// Who.
        worker: Name,
    },
    /// Keep room at a pool's best worker.
    PoolReserve {
        /// Which pool.
        pool: Name,
        /// What the worker must be able to do.
        capability: Option<Name>,
        /// For whom.
        holder: Name,
        /// Until when at the latest.
        until: Time,
    },
    /// Give the room back.
    PoolUnreserve {
        /// At which worker.
        worker: Name,
        /// Whose.
        holder: Name,
    },
    /// Start a run.
    RunStart(Box<RunStart>),
    /// Make a run's next move.
    RunAdvance(RunId),
    /// A supervisor's reduction.
    RunSettle {
        /// Which run.
        run: RunId,
        /// Which gate.
        step: Name,
        /// The reduction.
        output: Json,
    },
    /// Stop a run.
    RunCancel {
        /// Which.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A failed or cancelled run goes on.
    RunRetry(RunId),
    /// Write on a blackboard.
    EntryWrite(NewEntry),
    /// Take an entry, or give it back.
    EntryClaim {
        /// Which.
        entry: EntryId,
        /// Who must hold it now.
        expected: Option<Name>,
        /// Who shall hold it.
        by: Option<Name>,
    },
    /// Forget an entry.
    EntryForget {
        /// Which.
        entry: EntryId,
        /// Why.
        reason: String,
    },
    /// Send a message to whom its address means now.
    MessageSend {
        /// The message.
        message: NewMessage,
        /// Who its address means.
        recipients: Vec<Name>,
    },
    /// A recipient dealt with a message, or failed on it.
    MessageSettle {
        /// Which.
        message: MessageId,
        /// Who.
        recipient: Name,
        /// Why it failed.
        failure: Option<String>,
    },
    /// The clock looks at a message.
    MessageExpire(MessageId),
    /// Let somebody in.
    CredentialCreate(Arc<Credential>),
    /// Let somebody in no more.
    CredentialRevoke(Name),
    /// Note that somebody wanted a tool and did not have it.
    ToolMiss(Arc<Miss>),
    /// An idempotency key was remembered long enough.
    ReceiptForget(Name),
}

/// What a command gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now.
    Done,
    /// The task.
    Task(TaskId),
    /// The lease.
    Leased(AttemptRef),
    /// The run.
    Run(RunId),
    /// The entry.
    Entry(EntryId),
    /// The message.
    Message(MessageId),
    /// The worker.
    Worker(Name),
}

impl Command {
    /// The rows that deciding this must see, as far as they can be told from what is loaded. The
    /// store loads them and asks again, until nothing new is named.
    pub fn needs(&self, state: &State, now: Time, keys: &mut Vec<Key>) {
        let task_and_run = |task: &TaskId, keys: &mut Vec<Key>| {
            keys.push(Key::Task(*task));
            if let Some(task) = state.task(task) {
                keys.extend(task.spec.of.as_ref().map(|of| Key::Run(of.run)));
                keys.extend(task.spec.after.iter().map(|id| Key::Task(*id)));
            }
        };
        match self {
            Self::TaskSubmit(new) => {
                keys.extend(new.id.map(Key::Task));
                keys.extend(new.key.clone().map(Key::Receipt));
                keys.extend(new.spec.after.iter().map(|id| Key::Task(*id)));
                keys.push(Key::Tally);
            }
            Self::TaskClaim { task, by } => {
                keys.extend([Key::Task(*task), Key::Worker(by.worker.clone())]);
                if let Some(task) = state.task(task) {
                    keys.push(Key::Queue(task.spec.queue.clone()));
                    keys.extend(
                        task.spec
                            .slot
                            .as_ref()
                            .map(|slot| Key::Slot(slot.key.clone())),
                    );
                    if let Address::Prefer(worker) = task.address() {
                        keys.push(Key::Worker(worker.clone()));
                    }
                }
            }
            Self::TaskReport { lease, report } => {
                keys.extend([Key::Task(lease.task), Key::Worker(lease.worker.clone())]);
                match (report, state.task(&lease.task)) {
                    (Report::Recorded(record), task) => {
                        keys.push(Key::Record(lease.task, record.key.clone()));
                        let account =
                            task.map(|task| account_of(task, &record.key, record.cost.is_some()));
                        keys.extend(account.flatten());
                    }
                    (Report::Extended { .. }, Some(task)) => {
                        keys.extend(task.spec.of.as_ref().map(|of| Key::Run(of.run)));
                    }
                    _ => {}
                }
            }
            Self::TaskTimeOut(task) | Self::TaskCancel { task, .. } => keys.push(Key::Task(*task)),
            Self::RecordResolve { task, key, .. } => {
                keys.extend([Key::Task(*task), Key::Record(*task, key.clone())]);
                if let Some(task) = state.task(task) {
                    keys.extend(account_of(task, key, false));
                }
            }
            Self::TaskRedrive(task) | Self::TaskReassign { task, .. } => task_and_run(task, keys),
            Self::TaskPreempt { task, urgent } => {
                keys.extend([Key::Task(*task), Key::Task(*urgent)])
            }
            Self::WorkerRegister(spec) => {
                worker_and_holds(state, &spec.id, keys);
                keys.push(Key::Tally);
            }
            Self::WorkerForget(worker) => {
                keys.extend([Key::Worker(worker.clone()), Key::Tally]);
            }
            Self::WorkerReady(worker) => keys.push(Key::Worker(worker.clone())),
            Self::WorkerLose { worker, .. }
            | Self::WorkerDrain(worker)
            | Self::WorkerError { worker, .. }
            | Self::PoolUnreserve { worker, .. } => worker_and_holds(state, worker, keys),
            Self::QueuePause { queue, .. } => keys.push(Key::Queue(queue.clone())),
            Self::PoolDefine { pool, .. } => {
                keys.push(Key::Pool(pool.id.clone()));
                keys.extend(pool.members.iter().cloned().map(Key::Worker));
            }
            Self::PoolJoin { pool, worker } | Self::PoolLeave { pool, worker } => {
                keys.extend([Key::Pool(pool.clone()), Key::Worker(worker.clone())]);
            }
            Self::PoolReserve { pool, .. } => {
                keys.push(Key::Pool(pool.clone()));
                if let Some(pool) = state.pool(pool) {
                    keys.extend(pool.members.iter().cloned().map(Key::Worker));
                }
            }
            Self::RunStart(new) => {
                keys.extend(new.key.clone().map(Key::Receipt));
                keys.push(Key::Tally);
            }
            Self::RunAdvance(run) => {
                keys.push(Key::Run(*run));
                if let Some(run) = state.run(run)
                    && let Some(next) = run.next_move(now)
                {
                    run_rows(|rows| run.rows_for(next, rows), keys);
                }
            }
            Self::RunSettle { run, .. } => keys.push(Key::Run(*run)),
            Self::RunCancel { run, .. } | Self::RunRetry(run) => {
                keys.push(Key::Run(*run));
                if let Some(run) = state.run(run) {
                    keys.extend(run.tasks().map(Key::Task));
                }
            }
            Self::EntryWrite(new) => {
                keys.push(Key::Board(new.run));
                keys.extend(new.run.map(Key::Run));
                keys.extend(new.key.clone().map(Key::Receipt));
            }
            Self::EntryClaim { entry, .. } | Self::EntryForget { entry, .. } => {
                keys.push(Key::Entry(*entry));
            }
            Self::MessageSend { message, .. } => {
                keys.extend(message.id.map(Key::Message));
                keys.extend(message.key.clone().map(Key::Receipt));
            }
            Self::MessageSettle { message, .. } | Self::MessageExpire(message) => {
                keys.push(Key::Message(*message));
            }
            Self::CredentialCreate(new) => {
                keys.extend([Key::Credential(new.id.clone()), Key::Tally]);
            }
            Self::CredentialRevoke(id) => keys.push(Key::Credential(id.clone())),
            Self::ToolMiss(miss) => keys.extend([Key::Demand(miss.tool.clone()), Key::Tally]),
            Self::ReceiptForget(key) => keys.push(Key::Receipt(key.clone())),
        }
    }
}

/// The account that a word about a step moves, if it moves one.
fn account_of(task: &Task, step: &Name, costs: bool) -> Option<Key> {
    let holds = || task.record(step).is_some_and(|known| !known.held.is_zero());
    let run = task.spec.of.as_ref().map(|of| of.run);
    run.filter(|_| costs || holds()).map(Key::Account)
}

fn worker_and_holds(state: &State, worker: &Name, keys: &mut Vec<Key>) {
    keys.push(Key::Worker(worker.clone()));
    if let Some(worker) = state.worker(worker) {
        keys.extend(worker.holds.keys().map(|task| Key::Task(*task)));
    }
}

fn run_rows(rows_for: impl FnOnce(&mut Vec<TaskId>), keys: &mut Vec<Key>) {
    let mut rows = Vec::new();
    rows_for(&mut rows);
    keys.extend(rows.into_iter().map(Key::Task));
}

/// What follows from a row by itself: a run whose counts allow a move makes it, in the same
/// transaction.
pub fn follow_up(state: &State, key: &Key, now: Time) -> Option<Command> {
    let Key::Run(id) = key else { return None };
    let next: Option<Move> = state.run(id).and_then(|run| run.next_move(now));
    next.map(|_| Command::RunAdvance(*id))
}

/// Remembers what an idempotency key gave, for as long as [`RECEIPT_MS`](crate::limits::RECEIPT_MS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The digest of the content it came with.
    pub digest: u64,
    /// When.
    pub at: Time,
    /// What came of it.
    pub made: Made,
}

/// What a request with an idempotency key made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// A task.
    Task(TaskId),
    /// A run.
    Run(RunId),
    /// A blackboard entry.
    Entry(EntryId),
    /// A message.
    Message(MessageId),
}

/// Looks an idempotency key up: what it made before, when it was used with this very content, and
/// what to remember it by otherwise.
///
/// # Errors
/// [`Code::IdempotencyMismatch`] when it was used with another content.
pub(crate) fn recall<T>(
    state: &State,
    key: Option<&Name>,
    digest: impl FnOnce() -> u64,
    made: impl FnOnce(Made) -> Option<T>,
) -> Result<Recalled<T>, Error> {
    let Some(key) = key else {
        return Ok(Recalled::New(None));
    };
    let digest = digest();
    let Some(known) = state.receipt(key) else {
        return Ok(Recalled::New(Some((key.clone(), digest))));
    };
    let before = (known.digest == digest).then(|| made(known.made)).flatten();
    before.map(Recalled::Before).ok_or_else(|| {
        Error::new(
            Code::IdempotencyMismatch,
            "this idempotency key was used with another content",
        )
    })
}

/// What an idempotency key says about a request.
pub(crate) enum Recalled<T> {
    /// It was made before.
    Before(T),
    /// It is new; how to remember it, when it has a key.
    New(Option<(Name, u64)>),
}

impl Receipt {
    /// When it may be forgotten.
    pub fn due(&self) -> Option<Time> {
        Some(self.at.plus_ms(crate::limits::RECEIPT_MS))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo): a digest that is the same on every machine and version.
pub(crate) fn fnv(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    let mixed = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV spreads its last bytes poorly; one round of a finalizer (Murmur3's) makes up for it.
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

pub(crate) fn digest(content: &impl Serialize) -> u64 {
    fnv(&[&serde_json::to_vec(content).unwrap_or_default()])
}
