//! The task: the unit handed to a worker, and the rules of its life.
//!
//! ```text
//!             submit            claim               start
//!   (nothing) ──────► pending ──────► assigned ──────► in_progress
//!                      ▲  │ ▲            │                  │
//!              redrive │  │ └── retry, lost worker, yield ──┤
//!                      │  │                                 │ result
//!         failed ◄─────┼──┴ no attempt left                 ▼
//!         cancelled ◄──┴─── cancel, from any open state   completed
//! ```
//!
//! An attempt's number is its fencing token: a report counts only with the newest number, from the
//! worker that holds it, while the task is leased. Everything else is refused and recorded.

pub use crate::attempt::{AttemptEnd, AttemptState, EndedAttempt, Failure, Lease};
use crate::budget::Ledger;
use crate::command::{Claimant, Made, Outcome, Recalled, Report, Submission, recall};
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{AttemptRef, Event, Recorded, Ties};
use crate::id::{Ids, RunId, TaskId};
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
pub use crate::priority::Priority;
use crate::queue::aged;
use crate::record::{Finished, Record, RecordState};
use crate::retry::RetryPolicy;
use crate::state::{Quotas, State};
use crate::time::Time;
use crate::trace::{Lineage, TraceParent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of an attempt that was handed back because nothing could be done yet.
const DEFERRED: &str = "attempt.deferred";
/// Of an attempt that was handed back at a safe point.
const RELEASED: &str = "attempt.released";

/// Whether an attempt that ended with this code was handed back by its own worker.
pub fn is_handed_back(code: &str) -> bool {
    [RELEASED, DEFERRED].contains(&code)
}

/// Which worker may take a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// Whoever can.
    #[default]
    Any,
    /// This one while it is there and has room, or within a bounded wait; then whoever can.
    Prefer(Name),
    /// This one alone.
    Only(Name),
}

impl Address {
    fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// The worker it names.
    pub fn worker(&self) -> Option<&Name> {
        match self {
            Self::Any => None,
            Self::Prefer(worker) | Self::Only(worker) => Some(worker),
        }
    }
}

/// At most `max` tasks with the same `key` run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SlotUse {
    /// The concurrency key.
    pub key: Name,
    /// How many at once; the newest claim's number holds.
    pub max: u32,
}

/// A task's place in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Membership {
    /// The run.
    pub run: RunId,
    /// The step that made it.
    pub step: Name,
    /// Which item of the step, from 0.
    pub item: u32,
}

fn default_kind() -> Name {
    Name::literal("task")
}
/// The queue of a task that names none.
pub fn default_queue() -> Name {
    Name::literal("default")
}
fn default_timeout() -> u64 {
    TIMEOUT_MS_DEFAULT
}
fn is_default_timeout(ms: &u64) -> bool {
    *ms == TIMEOUT_MS_DEFAULT
}
fn is_default_retry(retry: &RetryPolicy) -> bool {
    *retry == RetryPolicy::default()
}
fn is_default_queue(queue: &Name) -> bool {
    queue.as_str() == "default"
}

/// All that a submitter says about a task. Every field but the input has a default.
///
/// ```
/// use domain::task::{Priority, TaskSpec};
/// let spec: TaskSpec = serde_json::from_str(r#"{"kind": "summarize", "input": {"n": 1}}"#)?;
/// assert_eq!(spec.priority, Priority::NORMAL);
/// assert_eq!(spec.timeout_ms, 600_000);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The task's type: which handler runs it, and what statistics count it as.
    #[serde(default = "default_kind")]
    pub kind: Name,
    /// What the handler gets, the brief.
    #[serde(default)]
    pub input: Json,
    /// Where it waits.
    #[serde(default = "default_queue", skip_serializing_if = "is_default_queue")]
    pub queue: Name,
    /// What comes first.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// What a worker must be able to do. `None` means nothing special.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<Name>,
    /// Who may take it.
    #[serde(default, skip_serializing_if = "Address::is_any")]
    pub address: Address,
    /// Milliseconds an attempt may take, from its lease.
    #[serde(
        default = "default_timeout",
        skip_serializing_if = "is_default_timeout"
    )]
    pub timeout_ms: u64,
    /// When a failed attempt is followed by another.
    #[serde(default, skip_serializing_if = "is_default_retry")]
    pub retry: RetryPolicy,
    /// Not before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Not before these tasks have completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// A bound on how many run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotUse>,
    /// Carried to the result, for the submitter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
    /// Its place in a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Membership>,
    /// Where it stands in its submitter's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}

impl TaskSpec {
    /// A task of this type with this input and every default.
    pub fn new(kind: Name, input: Json) -> Self {
        Self {
            kind,
            input,
            queue: default_queue(),
            priority: Priority::NORMAL,
            capability: None,
            address: Address::Any,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            retry: RetryPolicy::default(),
            not_before: None,
            after: Vec::new(),
            slot: None,
            metadata: BTreeMap::new(),
            of: None,
            trace: None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Code::PayloadTooLarge`], [`Code::OutOfRange`] or [`Code::LimitExceeded`], naming the
    /// field, the value and the bound.
    pub fn check(&self) -> Result<(), Error> {
        payload("the task's input", self.input.bytes())?;
        if self.priority.0.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
            return Err(Error::new(
                Code::OutOfRange,
                format!(
                    "priority {} is outside -{PRIORITY_MAX} to {PRIORITY_MAX}",
                    self.priority.0
                ),
            ));
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(Error::new(
                Code::OutOfRange,
                format!(
                    "timeout {} ms is outside 1 to {TIMEOUT_MS_MAX} ms",
                    self.timeout_ms
                ),
            ));
        }
        self.retry.check()?;
        if self.after.len() > DEPENDENCIES_MAX {
            return Err(Error::limit(
                "dependencies",
                self.after.len(),
                DEPENDENCIES_MAX,
            ));
        }
        if let Some(slot) = &self.slot
            && !(1..=SLOT_MAX).contains(&slot.max)
        {
            return Err(Error::new(
                Code::OutOfRange,
                format!(
                    "concurrency {} of key “{}” is outside 1 to {SLOT_MAX}",
                    slot.max, slot.key
                ),
            ));
        }
        metadata("metadata entries", &self.metadata)
    }
}

/// Where a task stands; each state owns its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits. [`Task::waits_for`] says what for.
    Pending {
        /// Its place in the queue.
        queued_at: Time,
        /// Not before this instant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Time>,
        /// Dependencies that have not completed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked_by: Vec<TaskId>,
    },
    /// A worker has leased it.
    Assigned(Lease),
    /// The worker has begun.
    InProgress(Lease),
    /// Done, with its result.
    Completed {
        /// When.
        at: Time,
        /// The result.
        output: Json,
        /// Who did it.
        worker: Name,
        /// Milliseconds from lease to result.
        ran_ms: u64,
        /// The position of its completion: who was first.
        position: u64,
    },
    /// A dead letter.
    Failed {
        /// When.
        at: Time,
        /// The last failure.
        failure: Failure,
    },
    /// Not wanted any more.
    Cancelled {
        /// When.
        at: Time,
        /// Why.
        reason: String,
    },
}

/// A task's state without its data. Wire names as in the closed list of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits.
    Pending,
    /// Leased.
    Assigned,
    /// Begun.
    InProgress,
    /// Done.
    Completed,
    /// Dead letter.
    Failed,
    /// Not wanted.
    Cancelled,
}

impl TaskStatus {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Assigned,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens by itself.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Assigned | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl std::fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A task's row: the fold of its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The position of its submission: first come, first served among equals.
    pub seq: u64,
    /// What was asked.
    pub spec: Arc<TaskSpec>,
    /// When.
    pub submitted_at: Time,
    /// Where it stands.
    pub state: TaskState,
    /// Leases so far; the newest one's fencing token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Failures that count against the retry policy, since the last redrive.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Workers lost while they held it, since an attempt last ended in another way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub losses: u32,
    /// Who may take it, once somebody reassigned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reassigned: Option<Address>,
    /// Tasks that wait for this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<TaskId>,
    /// The newest ended attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedAttempt>,
    /// What the next attempt may go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Json>,
    /// The newest progress: when, how far, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Its steps that no attempt has done, in the order they were first told; among them what a
    /// person found out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// What its steps cost.
    #[serde(default, skip_serializing_if = "Ledger::is_empty")]
    pub account: Ledger,
    /// Its steps that are done, in sum; each has a row of its own ([`Kept`](crate::record::Kept)).
    #[serde(default, skip_serializing_if = "Finished::is_none")]
    pub finished: Finished,
}

/// How far a task is, as its worker told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Progress {
    /// When it told.
    pub at: Time,
    /// Which attempt told.
    pub attempt: u32,
    /// Who told.
    pub worker: Name,
    /// 0 to 1, when it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a claim needs to know to find a task in its queue, without the task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of one party ([`Party`](crate::queue::Party)), lower goes first.
    pub rank: i64,
    /// First come, first served among equals.
    pub seq: u64,
    /// Not before this instant.
    pub not_before: Option<Time>,
    /// The queue.
    pub queue: Name,
    /// The task's type.
    pub kind: Name,
    /// What a worker must be able to do.
    pub capability: Option<Name>,
    /// Who may take it.
    pub address: Address,
    /// The concurrency key.
    pub slot: Option<Name>,
    /// What comes first, as the rank already says.
    pub priority: Priority,
    /// The run it is of.
    pub run: Option<RunId>,
}

/// Why a pending task waits. Wire names as in the closed list of the design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Waits {
    /// For its turn, behind what goes first.
    Ready,
    /// For an instant.
    NotDue {
        /// Which.
        until: Time,
    },
    /// For an instant before which its worker could do nothing: a provider lets nobody in.
    RateLimited {
        /// Which.
        until: Time,
        /// What its worker said.
        why: String,
    },
    /// For a person's yes, or to find out what became of a step.
    AwaitingHuman {
        /// Which step.
        step: Name,
        /// What its worker said.
        why: String,
    },
    /// For other tasks.
    BlockedBy {
        /// Which have not completed.
        tasks: Vec<TaskId>,
    },
    /// For a worker that can do it, or for the one it is addressed to.
    NoCapableWorker {
        /// What is missing, in words.
        missing: String,
    },
    /// For room: every worker that may take it is full, or its concurrency key is.
    AtCapacity {
        /// What is full, in words.
        full: String,
    },
    /// For somebody to resume its queue.
    Paused {
        /// The queue.
        queue: Name,
    },
}

impl Task {
    /// Where it stands, without the data.
    pub fn status(&self) -> TaskStatus {
        match &self.state {
            TaskState::Pending { .. } => TaskStatus::Pending,
            TaskState::Assigned(_) => TaskStatus::Assigned,
            TaskState::InProgress(_) => TaskStatus::InProgress,
            TaskState::Completed { .. } => TaskStatus::Completed,
            TaskState::Failed { .. } => TaskStatus::Failed,
            TaskState::Cancelled { .. } => TaskStatus::Cancelled,
        }
    }

    /// Who holds it, while somebody does.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            TaskState::Assigned(lease) | TaskState::InProgress(lease) => Some(lease),
            _ => None,
        }
    }

    /// Refuses whoever is not the attempt under way.
    ///
    /// # Errors
    /// [`Code::AttemptStale`], saying who is.
    pub fn check_current(&self, worker: &Name, attempt: u32) -> Result<(), Error> {
        let is_held = |held: &&Lease| held.worker == *worker && held.attempt == attempt;
        if self.lease().filter(is_held).is_some() {
            return Ok(());
        }
        Err(late(
            self,
            &AttemptRef {
                task: self.id,
                attempt,
                worker: worker.clone(),
            },
        ))
    }

    fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.state {
            TaskState::Assigned(lease) | TaskState::InProgress(lease) => Some(lease),
            _ => None,
        }
    }

    /// Who may take it.
    pub fn address(&self) -> &Address {
        self.reassigned.as_ref().unwrap_or(&self.spec.address)
    }

    /// Whether its worker reported a start.
    pub fn is_started(&self) -> bool {
        matches!(self.state, TaskState::InProgress(_))
    }

    /// The worker that completed it, holds it, tried it last, or that it is addressed to.
    pub fn worker(&self) -> Option<&Name> {
        match &self.state {
            TaskState::Completed { worker, .. } => Some(worker),
            TaskState::Assigned(lease) | TaskState::InProgress(lease) => Some(&lease.worker),
            _ => self
                .ended
                .last()
                .map(|a| &a.worker)
                .or_else(|| self.address().worker()),
        }
    }

    /// Where its spans belong.
    pub fn lineage(&self) -> Lineage {
        Lineage {
            task: self.id,
            run: self.spec.of.as_ref().map(|of| of.run),
            trace: self.spec.trace,
        }
    }

    /// Where an attempt of it stands in the distributed trace.
    pub fn trace_of(&self, attempt: u32) -> TraceParent {
        self.lineage().attempt(attempt)
    }

    /// What counts along with it.
    pub fn ties(&self) -> Ties {
        Ties {
            kind: self.spec.kind.clone(),
            queue: self.spec.queue.clone(),
            of: self.spec.of.clone(),
            slot: self.spec.slot.as_ref().map(|slot| slot.key.clone()),
        }
    }

    /// Its place among the tasks that may be claimed, when it is one of them (now, or from
    /// `not_before` on).
    ///
    /// The rank is when it came, made earlier by its priority: since all tasks age alike, ageing
    /// never changes the order of two of them, and nothing has to be computed again. Between those
    /// that share a queue, [`Turn`](crate::queue::Turn) decides.
    pub fn place(&self) -> Option<Place> {
        match &self.state {
            TaskState::Pending {
                queued_at,
                not_before,
                blocked_by,
            } if blocked_by.is_empty() => {
                let since = queued_at.0.max(not_before.map_or(0, |t| t.0));
                Some(Place {
                    rank: aged(Time(since), self.spec.priority),
                    seq: self.seq,
                    not_before: *not_before,
                    queue: self.spec.queue.clone(),
                    kind: self.spec.kind.clone(),
                    capability: self.spec.capability.clone(),
                    address: self.address().clone(),
                    slot: self.spec.slot.as_ref().map(|slot| slot.key.clone()),
                    priority: self.spec.priority,
                    run: self.spec.of.as_ref().map(|of| of.run),
                })
            }
            _ => None,
        }
    }

    /// When the clock must look at it again: the deadline of its attempt.
    pub fn due(&self) -> Option<Time> {
        self.lease().map(|lease| lease.deadline)
    }

    fn attempt_ref(&self, lease: &Lease) -> AttemptRef {
        AttemptRef {
            task: self.id,
            attempt: lease.attempt,
            worker: lease.worker.clone(),
        }
    }

    /// Folds one event. The caller has checked that the event touches this task.
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            // On the row of a dependency: remember who waits.
            Event::TaskSubmitted { task, .. } => self.dependents.push(*task),
            Event::TaskAssigned {
                lease,
                deadline,
                started,
                claim,
                ..
            } => {
                let TaskState::Pending { queued_at, .. } = self.state else {
                    return debug_assert!(false, "{} assigned while {}", self.id, self.status());
                };
                let lease = Lease {
                    attempt: lease.attempt,
                    worker: lease.worker.clone(),
                    since: at,
                    deadline: *deadline,
                    queued_at,
                    yield_asked: false,
                    claim: *claim,
                };
                self.attempts = lease.attempt;
                self.state = if *started {
                    TaskState::InProgress(lease)
                } else {
                    TaskState::Assigned(lease)
                };
            }
            Event::TaskStarted { .. } => {
                if let TaskState::Assigned(lease) = &self.state {
                    self.state = TaskState::InProgress(lease.clone());
                }
            }
            Event::TaskProgressed {
                lease,
                fraction,
                note,
                ..
            } => {
                self.progress = Some(Progress {
                    at,
                    attempt: lease.attempt,
                    worker: lease.worker.clone(),
                    fraction: *fraction,
                    note: note.clone(),
                });
            }
            Event::RecordNoted {
                lease,
                record,
                dues,
                ..
            } => {
                self.noted(lease, record, at);
                self.account.fold(&dues.unwrap_or_default());
            }
            Event::RecordResolved {
                key, finding, dues, ..
            } => {
                self.resolved(key, finding, at);
                // What it waited for may have been this.
                let deferred = self.ended.last().and_then(|last| last.failure.as_ref());
                if let TaskState::Pending { not_before, .. } = &mut self.state
                    && deferred.is_some_and(|failure| failure.code == DEFERRED)
                {
                    *not_before = None;
                }
                self.account.fold(&dues.unwrap_or_default());
            }
            Event::TaskYieldAsked { .. } => {
                if let Some(lease) = self.lease_mut() {
                    lease.yield_asked = true;
                }
            }
            Event::TaskCompleted {
                lease,
                output,
                ran_ms,
                ..
            } => {
                debug_assert!(
                    self.lease()
                        .is_some_and(|held| held.attempt == lease.attempt)
                );
                self.end_attempt(lease, AttemptState::Succeeded, at, *ran_ms, None);
                self.dependents = Vec::new();
                self.checkpoint = None;
                self.state = TaskState::Completed {
                    at,
                    output: output.clone(),
                    worker: lease.worker.clone(),
                    ran_ms: *ran_ms,
                    position: recorded.position,
                };
            }
            Event::AttemptEnded {
                lease,
                end,
                failure,
                retry_at,
                counted,
                checkpoint,
                ran_ms,
                ..
            } => {
                let queued_at = self.lease().map_or(at, |held| held.queued_at);
                self.end_attempt(lease, (*end).into(), at, *ran_ms, Some(failure.clone()));
                self.failures += u32::from(*counted);
                self.losses = if *end == AttemptEnd::Lost {
                    self.losses + 1
                } else {
                    0
                };
                if checkpoint.is_some() {
                    self.checkpoint.clone_from(checkpoint);
                }
                self.state = TaskState::Pending {
                    queued_at,
                    not_before: *retry_at,
                    blocked_by: Vec::new(),
                };
            }
            Event::TaskFailed { failure, .. } => {
                self.state = TaskState::Failed {
                    at,
                    failure: failure.clone(),
                };
            }
            Event::TaskCancelled { reason, lease, .. } => {
                if let Some(lease) = lease {
                    let ran_ms = self.lease().map_or(0, |held| at.since_ms(held.since));
                    let failure = Failure::permanent("task.cancelled", reason.clone());
                    self.end_attempt(lease, AttemptState::Cancelled, at, ran_ms, Some(failure));
                }
                self.state = TaskState::Cancelled {
                    at,
                    reason: reason.clone(),
                };
            }
            Event::TaskUnblocked { by, .. } => {
                if let TaskState::Pending { blocked_by, .. } = &mut self.state {
                    blocked_by.retain(|task| task != by);
                }
            }
            Event::TaskReassigned { to, .. } => self.reassigned = Some(to.clone()),
            Event::TaskRedriven { blocked_by, .. } => {
                self.failures = 0;
                self.losses = 0;
                self.state = TaskState::Pending {
                    queued_at: at,
                    not_before: None,
                    blocked_by: blocked_by.clone(),
                };
            }
            _ => debug_assert!(false, "{} does not fold on a task", recorded.event.name()),
        }
    }

    /// The row that a submission makes.
    pub(crate) fn submitted(
        task: TaskId,
        spec: &Arc<TaskSpec>,
        blocked_by: &[TaskId],
        recorded: &Recorded,
    ) -> Self {
        Self {
            id: task,
            seq: recorded.position,
            spec: Arc::clone(spec),
            submitted_at: recorded.at,
            state: TaskState::Pending {
                queued_at: recorded.at,
                not_before: spec.not_before,
                blocked_by: blocked_by.to_vec(),
            },
            attempts: 0,
            failures: 0,
            losses: 0,
            reassigned: None,
            dependents: Vec::new(),
            ended: Vec::new(),
            checkpoint: None,
            progress: None,
            records: Vec::new(),
            account: Ledger::default(),
            finished: Finished::default(),
        }
    }

    fn end_attempt(
        &mut self,
        lease: &AttemptRef,
        state: AttemptState,
        ended_at: Time,
        ran_ms: u64,
        failure: Option<Failure>,
    ) {
        self.doubt(ended_at);
        if self.ended.len() >= ATTEMPTS_KEPT {
            self.ended.remove(0);
        }
        self.ended.push(EndedAttempt {
            attempt: lease.attempt,
            worker: lease.worker.clone(),
            state,
            ended_at,
            ran_ms,
            failure,
        });
    }

    /// Why it waits, or `None` when it does not.
    ///
    /// `workers` are all that are registered; `running` is how many hold its concurrency key.
    pub fn waits_for<'a>(
        &self,
        now: Time,
        queue_paused: bool,
        running: u32,
        workers: impl Iterator<Item = &'a crate::worker::Worker>,
    ) -> Option<Waits> {
        let TaskState::Pending {
            not_before,
            blocked_by,
            ..
        } = &self.state
        else {
            return None;
        };
        if !blocked_by.is_empty() {
            return Some(Waits::BlockedBy {
                tasks: blocked_by.clone(),
            });
        }
        if let Some(until) = not_before
            && *until > now
        {
            let last = self.ended.last().and_then(|last| last.failure.as_ref());
            let asks = self
                .records
                .iter()
                .find(|known| known.state == RecordState::InDoubt);
            return Some(match last.filter(|failure| failure.code == DEFERRED) {
                Some(failure) if let Some(asks) = asks => Waits::AwaitingHuman {
                    step: asks.key.clone(),
                    why: failure.message.clone(),
                },
                Some(failure) => Waits::RateLimited {
                    until: *until,
                    why: failure.message.clone(),
                },
                None => Waits::NotDue { until: *until },
            });
        }
        if queue_paused {
            return Some(Waits::Paused {
                queue: self.spec.queue.clone(),
            });
        }
        if let Some(slot) = &self.spec.slot
            && running >= slot.max
        {
            let full = format!(
                "concurrency key “{}”: {running} of {} running",
                slot.key, slot.max
            );
            return Some(Waits::AtCapacity { full });
        }
        let (mut capable, mut free) = (0u32, 0u32);
        for worker in workers.filter(|worker| worker.may_take(self) && worker.is_there(now)) {
            capable += 1;
            free += u32::from(worker.free(now) > 0);
        }
        Some(match (capable, free) {
            (0, _) => Waits::NoCapableWorker {
                missing: self.missing_worker(),
            },
            (n, 0) => Waits::AtCapacity {
                full: format!("all {n} capable workers are busy"),
            },
            _ => Waits::Ready,
        })
    }

    fn missing_worker(&self) -> String {
        let mut missing = match self.address() {
            Address::Only(worker) => format!("worker “{worker}” is not available"),
            _ => {
                let (kind, queue) = (&self.spec.kind, &self.spec.queue);
                format!("no worker takes type “{kind}” from queue “{queue}”")
            }
        };
        if let Some(capability) = &self.spec.capability {
            missing += &format!(" with capability “{capability}”");
        }
        missing
    }
}

/// Decides a submission.
pub(crate) fn submit(state: &State, new: &Submission, ids: &mut dyn Ids) -> Decision {
    let task_of = |made| match made {
        Made::Task(task) => Some(task),
        _ => None,
    };
    let receipt = match recall(state, new.key.as_ref(), || new.digest(), task_of) {
        Ok(Recalled::Before(task)) => return Decision::answer(Outcome::Task(task)),
        Ok(Recalled::New(receipt)) => receipt,
        Err(error) => return Decision::refuse(error),
    };
    if let Err(error) = new.spec.check() {
        return Decision::refuse(error);
    }
    if new.spec.of.is_some() {
        // A run counts the tasks that its steps made; one more would never be accounted for.
        let text = "a task joins a run only by a step of the run's graph";
        return Decision::refuse(Error::new(Code::GraphInvalid, text));
    }
    if let Some(id) = new.id
        && let Some(existing) = state.task(&id)
    {
        return if existing.spec == new.spec {
            Decision::answer(Outcome::Task(id))
        } else {
            let text = format!("{id} exists already, with another content");
            Decision::refuse(Error::new(Code::TaskExists, text))
        };
    }
    let mut blocked_by = Vec::new();
    for id in &new.spec.after {
        match state.task(id) {
            None => {
                let text = format!("the task waits for {id}, which does not exist");
                return Decision::refuse(Error::new(Code::TaskUnknown, text));
            }
            Some(task) if task.status() == TaskStatus::Completed => {}
            Some(task) if task.dependents.len() >= DEPENDENCIES_MAX => {
                return Decision::refuse(Error::limit(
                    &format!("tasks waiting for {id}"),
                    task.dependents.len() + 1,
                    DEPENDENCIES_MAX,
                ));
            }
            Some(_) if blocked_by.contains(id) => {}
            Some(_) => blocked_by.push(*id),
        }
    }
    let open = state.tally().map_or(0, |tally| {
        tally.pending + tally.assigned + tally.in_progress
    });
    if let Err(error) = Quotas::check("tasks are open", open, state.quotas.tasks_open) {
        return Decision::refuse(error);
    }
    let task = new.id.unwrap_or_else(|| TaskId::new(ids.next()));
    Decision::event(
        Event::TaskSubmitted {
            task,
            spec: Arc::clone(&new.spec),
            blocked_by,
            receipt,
        },
        Outcome::Task(task),
    )
}

/// Decides whether `worker` gets `task`.
pub(crate) fn claim(state: &State, task: &TaskId, by: &Claimant, now: Time) -> Decision {
    let worker = &by.worker;
    let (Some(task), Some(holder)) = (state.task(task), state.worker(worker)) else {
        return Decision::refuse(match state.worker(worker) {
            None => unknown_worker(worker),
            Some(_) => unknown(task),
        });
    };
    if let Err(error) = holder.is_session(by.session) {
        return Decision::refuse(error);
    }
    let TaskState::Pending { .. } = &task.state else {
        return Decision::refuse(not_claimable(task, format!("it is {}", task.status())));
    };
    if let Err(error) = holder.accepts(now) {
        return Decision::refuse(error);
    }
    if !holder.may_take(task) {
        let text = format!("worker “{worker}” may not take it");
        return Decision::refuse(not_claimable(task, text));
    }
    let paused = state
        .queue(&task.spec.queue)
        .is_some_and(|queue| queue.paused);
    let running = task
        .spec
        .slot
        .as_ref()
        .map_or(0, |slot| state.slot_running(&slot.key));
    // The claiming worker is there and has room, so every reason but `ready` forbids the claim.
    match task.waits_for(now, paused, running, std::iter::once(holder)) {
        Some(Waits::Ready) => {}
        waits => return Decision::refuse(not_claimable(task, format!("it waits: {waits:?}"))),
    }
    if let Address::Prefer(preferred) = task.address()
        && preferred != worker
        && let Some(place) = task.place()
        && let Some(other) = state.worker(preferred)
        && other.is_there(now)
    {
        let waited = now
            .0
            .saturating_sub(task.submitted_at.0.max(place.not_before.map_or(0, |t| t.0)));
        if other.free(now) > 0 || waited < PREFERENCE_MS {
            let text = format!("it prefers worker “{preferred}”");
            return Decision::refuse(not_claimable(task, text));
        }
    }
    let lease = AttemptRef {
        task: task.id,
        attempt: task.attempts + 1,
        worker: worker.clone(),
    };
    Decision::event(
        Event::TaskAssigned {
            lease: lease.clone(),
            ties: task.ties(),
            deadline: now.plus_ms(task.spec.timeout_ms),
            slot_max: task.spec.slot.as_ref().map(|slot| slot.max),
            started: by.starts,
            claim: by.claim,
        },
        Outcome::Leased(lease),
    )
}

/// Decides what a worker tells about an attempt.
pub(crate) fn report(
    state: &State,
    lease: &AttemptRef,
    report: &Report,
    now: Time,
    ids: &mut dyn Ids,
) -> Decision {
    let Some(task) = state.task(&lease.task) else {
        return Decision::refuse(unknown(&lease.task));
    };
    let held = match task.lease() {
        Some(held) if held.attempt == lease.attempt && held.worker == lease.worker => held,
        _ if is_repeated(state, task, lease, report) => return Decision::answer(Outcome::Done),
        // How far something was that is over is not worth a line in the log.
        _ if matches!(report, Report::Started | Report::Progressed { .. }) => {
            return Decision::refuse(late(task, lease));
        }
        _ => return refuse_late(task, lease),
    };
    let done = Outcome::Done;
    match report {
        Report::Started if task.is_started() => Decision::answer(done),
        Report::Started => Decision::event(
            Event::TaskStarted {
                lease: lease.clone(),
                ties: task.ties(),
            },
            done,
        ),
        Report::Progressed { fraction, note } => {
            if let Some(fraction) = fraction
                && !(0.0..=1.0).contains(fraction)
            {
                let text = format!("progress {fraction} is outside 0 to 1");
                return Decision::refuse(Error::new(Code::OutOfRange, text));
            }
            if note.len() > FAILURE_BYTES_MAX {
                return Decision::refuse(Error::limit(
                    "bytes in a progress note",
                    note.len(),
                    FAILURE_BYTES_MAX,
                ));
            }
            Decision::event(
                Event::TaskProgressed {
                    lease: lease.clone(),
                    fraction: *fraction,
                    note: note.clone(),
                    run: task.spec.of.as_ref().map(|of| of.run),
                },
                done,
            )
        }
        Report::Recorded(new) => crate::record::note(state, task, lease, new, now),
        Report::Extended { steps } => crate::run::extend(state, task, lease, steps),
        Report::Completed { output } => {
            if let Err(error) = payload("the task's output", output.bytes()) {
                // Kept as the attempt's failure, so that the task does not hang in its lease.
                let failure = Failure::permanent(error.code.as_str(), error.message.clone());
                let mut decision = end(task, held, AttemptEnd::Failed, failure, now, ids);
                decision.outcome = Err(error);
                return decision;
            }
            let mut events = vec![Event::TaskCompleted {
                lease: lease.clone(),
                ties: task.ties(),
                output: output.clone(),
                ran_ms: now.since_ms(held.since),
                started: task.is_started(),
                dependents: task.dependents.clone(),
            }];
            events.extend(task.dependents.iter().map(|task| Event::TaskUnblocked {
                task: *task,
                by: lease.task,
            }));
            Decision {
                events,
                outcome: Ok(done),
            }
        }
        Report::Failed { failure } => {
            let failure = failure.clone().bounded();
            let fault = failure
                .worker_fault
                .then(|| crate::worker::fault(state, &lease.worker, &failure, now));
            let mut decision = end(task, held, AttemptEnd::Failed, failure, now, ids);
            decision.events.extend(fault.flatten());
            decision
        }
        Report::Released {
            reason,
            checkpoint,
            after_ms,
        } => {
            let kept = checkpoint.as_ref().map_or(Ok(()), |checkpoint| {
                payload("the checkpoint", checkpoint.bytes())
            });
            let later = (*after_ms > 0).then(|| now.plus_ms((*after_ms).min(BACKOFF_MS_MAX)));
            let code = later.map_or(RELEASED, |_| DEFERRED);
            let failure = Failure::new(code, reason.clone()).bounded();
            // Without a checkpoint that is too large, yet released: it must not hang in its lease.
            let checkpoint = checkpoint.clone().filter(|_| kept.is_ok());
            let released = ended(task, held, AttemptEnd::Cancelled, failure, now);
            Decision {
                events: vec![released.event(later, false, checkpoint)],
                outcome: kept.map(|()| done),
            }
        }
    }
}

/// The parts of an [`Event::AttemptEnded`] that all of its causes share.
struct Ended {
    lease: AttemptRef,
    ties: Ties,
    end: AttemptEnd,
    failure: Failure,
    ran_ms: u64,
    started: bool,
}

fn ended(task: &Task, held: &Lease, end: AttemptEnd, failure: Failure, now: Time) -> Ended {
    Ended {
        lease: task.attempt_ref(held),
        ties: task.ties(),
        end,
        failure,
        ran_ms: now.since_ms(held.since),
        started: task.is_started(),
    }
}

impl Ended {
    fn event(self, retry_at: Option<Time>, counted: bool, checkpoint: Option<Json>) -> Event {
        let Self {
            lease,
            ties,
            end,
            failure,
            ran_ms,
            started,
        } = self;
        Event::AttemptEnded {
            lease,
            ties,
            end,
            failure,
            retry_at,
            counted,
            checkpoint,
            ran_ms,
            started,
        }
    }
}

/// An attempt ends without a result, and the retry policy says what comes next.
fn end(
    task: &Task,
    held: &Lease,
    how: AttemptEnd,
    failure: Failure,
    now: Time,
    ids: &mut dyn Ids,
) -> Decision {
    let wait = if failure.retryable {
        task.spec.retry.wait_ms(task.failures + 1, ids)
    } else {
        None
    };
    let retry_at = wait.map(|ms| now.plus_ms(ms));
    let mut events = vec![ended(task, held, how, failure.clone(), now).event(retry_at, true, None)];
    if wait.is_none() {
        events.push(Event::TaskFailed {
            task: task.id,
            ties: task.ties(),
            failure,
            worker: Some(held.worker.clone()),
        });
    }
    Decision {
        events,
        outcome: Ok(Outcome::Done),
    }
}

/// The clock says that an attempt's time is over.
pub(crate) fn time_out(state: &State, task: &TaskId, now: Time, ids: &mut dyn Ids) -> Decision {
    match state.task(task).map(|task| (task, task.lease())) {
        Some((task, Some(held))) if held.deadline <= now => {
            let text = format!("no result within {} ms", task.spec.timeout_ms);
            let failure = Failure::new("attempt.timed_out", text);
            end(task, held, AttemptEnd::TimedOut, failure, now, ids)
        }
        // It ended, or was leased anew, since the timer was set.
        _ => Decision::answer(Outcome::Done),
    }
}

/// What a lost worker held goes back into its queue, to its old place: the task did nothing wrong,
/// so the retry policy does not count it. Only a task that has lost [`LOSSES_MAX`] workers in a row
/// becomes a dead letter, so that one that kills its workers cannot go on for ever.
pub(crate) fn lose(task: &Task, reason: &str, now: Time) -> Vec<Event> {
    let Some(held) = task.lease() else {
        return Vec::new();
    };
    let failure = Failure::new(
        "attempt.lost",
        format!("worker “{}” is gone: {reason}", held.worker),
    )
    .bounded();
    let mut events =
        vec![ended(task, held, AttemptEnd::Lost, failure.clone(), now).event(None, false, None)];
    if task.losses + 1 >= LOSSES_MAX {
        events.push(Event::TaskFailed {
            task: task.id,
            ties: task.ties(),
            failure,
            worker: Some(held.worker.clone()),
        });
    }
    events
}

/// Decides a cancellation.
pub(crate) fn cancel(state: &State, task: &TaskId, reason: &str) -> Decision {
    let Some(task) = state.task(task) else {
        return Decision::refuse(unknown(task));
    };
    match task.status() {
        TaskStatus::Cancelled => Decision::answer(Outcome::Done),
        TaskStatus::Completed | TaskStatus::Failed => {
            let text = format!("{} is {} and cannot be cancelled", task.id, task.status());
            Decision::refuse(Error::new(Code::TaskState, text))
        }
        TaskStatus::Pending | TaskStatus::Assigned | TaskStatus::InProgress => {
            Decision::event(cancelled(task, reason), Outcome::Done)
        }
    }
}

/// The event that cancels an open task.
pub(crate) fn cancelled(task: &Task, reason: &str) -> Event {
    Event::TaskCancelled {
        task: task.id,
        ties: task.ties(),
        reason: cut(reason).to_owned(),
        lease: task.lease().map(|held| task.attempt_ref(held)),
        started: task.is_started(),
    }
}

/// Decides a redrive of a dead letter or a cancelled task.
pub(crate) fn redrive(state: &State, task: &TaskId) -> Decision {
    let Some(task) = state.task(task) else {
        return Decision::refuse(unknown(task));
    };
    match task.status() {
        TaskStatus::Failed | TaskStatus::Cancelled => {
            let mut events = match crate::run::reopen_for(state, task) {
                Ok(events) => events,
                Err(error) => return Decision::refuse(error),
            };
            events.push(redriven(state, task));
            Decision {
                events,
                outcome: Ok(Outcome::Task(task.id)),
            }
        }
        status => {
            let text = format!(
                "{} is {status}; only a failed or cancelled task can be redriven",
                task.id
            );
            Decision::refuse(Error::new(Code::TaskState, text))
        }
    }
}

/// The event that puts an ended task back into its queue.
pub(crate) fn redriven(state: &State, task: &Task) -> Event {
    let open = |id: &&TaskId| {
        state
            .task(id)
            .is_some_and(|t| t.status() != TaskStatus::Completed)
    };
    Event::TaskRedriven {
        task: task.id,
        ties: task.ties(),
        was_cancelled: task.status() == TaskStatus::Cancelled,
        blocked_by: task.spec.after.iter().filter(open).copied().collect(),
    }
}

/// Decides that another worker shall do a task, whatever it is doing now.
pub(crate) fn reassign(state: &State, task: &TaskId, to: &Address, now: Time) -> Decision {
    let Some(task) = state.task(task) else {
        return Decision::refuse(unknown(task));
    };
    let mut events = Vec::new();
    match task.status() {
        TaskStatus::Pending => {}
        TaskStatus::Assigned | TaskStatus::InProgress => {
            if let Some(held) = task.lease() {
                let failure = Failure::new("attempt.reassigned", "given to another worker");
                events.push(
                    ended(task, held, AttemptEnd::Cancelled, failure, now).event(None, false, None),
                );
            }
        }
        TaskStatus::Failed | TaskStatus::Cancelled => {
            match crate::run::reopen_for(state, task) {
                Ok(reopened) => events.extend(reopened),
                Err(error) => return Decision::refuse(error),
            }
            events.push(redriven(state, task));
        }
        TaskStatus::Completed => {
            let text = format!("{} is completed and cannot be reassigned", task.id);
            return Decision::refuse(Error::new(Code::TaskState, text));
        }
    }
    events.push(Event::TaskReassigned {
        task: task.id,
        to: to.clone(),
        run: task.spec.of.as_ref().map(|of| of.run),
    });
    Decision {
        events,
        outcome: Ok(Outcome::Task(task.id)),
    }
}

/// Decides whether the holder of `task` is asked to yield to `urgent`.
pub(crate) fn preempt(state: &State, task: &TaskId, urgent: &TaskId) -> Decision {
    let (Some(running), Some(waiting)) = (state.task(task), state.task(urgent)) else {
        return Decision::refuse(unknown(task));
    };
    let done = Decision::answer(Outcome::Done);
    let Some(held) = running.lease() else {
        return done;
    };
    let gap = waiting
        .spec
        .priority
        .0
        .saturating_sub(running.spec.priority.0);
    if held.yield_asked || waiting.status() != TaskStatus::Pending || gap < PREEMPT_POINTS {
        return done;
    }
    Decision::event(
        Event::TaskYieldAsked {
            lease: running.attempt_ref(held),
            urgent: *urgent,
        },
        Outcome::Done,
    )
}

/// Whether this report was accepted before: a worker whose answer was lost on its way says the same
/// again, which changes nothing and is no fault.
fn is_repeated(state: &State, task: &Task, lease: &AttemptRef, report: &Report) -> bool {
    let same =
        |ended: &&EndedAttempt| ended.attempt == lease.attempt && ended.worker == lease.worker;
    let Some(ended) = task.ended.iter().rev().find(same) else {
        return false;
    };
    match (report, ended.state, &ended.failure) {
        (Report::Completed { output }, AttemptState::Succeeded, _) => {
            matches!(&task.state, TaskState::Completed { output: kept, .. } if kept == output)
        }
        (Report::Failed { failure }, AttemptState::Failed, Some(kept)) => {
            *kept == failure.clone().bounded()
        }
        (Report::Released { .. }, AttemptState::Cancelled, Some(kept)) => {
            is_handed_back(&kept.code)
        }
        (Report::Recorded(new), ..) => crate::record::is_repeated(state, task, lease.attempt, new),
        _ => false,
    }
}

fn late(task: &Task, lease: &AttemptRef) -> Error {
    let reason = match task.lease() {
        Some(held) => format!(
            "{} is with worker “{}” as attempt {}, not with “{}” as attempt {}",
            task.id, held.worker, held.attempt, lease.worker, lease.attempt
        ),
        None => format!("{} is {}", task.id, task.status()),
    };
    Error::new(Code::AttemptStale, reason)
}

fn refuse_late(task: &Task, lease: &AttemptRef) -> Decision {
    let error = late(task, lease);
    Decision {
        events: vec![Event::ResultRefused {
            lease: lease.clone(),
            reason: error.message.clone(),
        }],
        outcome: Err(error),
    }
}

pub(crate) fn unknown(task: &TaskId) -> Error {
    Error::new(Code::TaskUnknown, format!("there is no task {task}"))
}

pub(crate) fn unknown_worker(worker: &Name) -> Error {
    Error::new(
        Code::WorkerUnknown,
        format!("there is no worker “{worker}”"),
    )
}

fn not_claimable(task: &Task, why: String) -> Error {
    Error::new(
        Code::NotClaimable,
        format!("{} cannot be claimed: {why}", task.id),
    )
}
