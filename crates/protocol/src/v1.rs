//! What callers see: rows in the words of the product, with what can only be said at the moment of
//! reading (why a task waits, whether a worker is there).

use domain::blackboard::Entry;
use domain::budget::{Account, Ledger};
use domain::credential::{Credential, Scope};
use domain::graph::Graph;
use domain::id::{MessageId, RunId, TaskId};
use domain::json::Json;
use domain::message::Message;
use domain::name::Name;
use domain::record::Record;
use domain::run::{Crew, Run, RunState, RunStatus, StepStatus};
use domain::statistics::Tally;
use domain::task::{
    Address, EndedAttempt, Failure, Priority, Progress, Task, TaskState, TaskStatus, Waits,
};
use domain::time::Time;
use domain::trace::TraceParent;
use domain::worker::{Home, Presence, Worker, WorkerStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A page of a list, and where the next one begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass it as `after` to go on; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskView {
    /// Its id.
    pub task_id: TaskId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its type.
    pub kind: Name,
    /// Why it waits, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Waits>,
    /// Who completed it, has it, or is to have it.
    pub worker: Option<Name>,
    /// Leases so far.
    pub attempts: u32,
    /// What comes first.
    pub priority: Priority,
    /// The band its priority lies in.
    pub band: String,
    /// Where it waits.
    pub queue: Name,
    /// What a worker must be able to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<Name>,
    /// Who may take it.
    pub address: Address,
    /// Its run, step and item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The step that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
    /// Which item of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What the handler gets.
    pub input: Json,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// When it was submitted.
    pub submitted_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Milliseconds that the successful attempt took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
    /// The newest ended attempts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedAttempt>,
    /// Carried for the submitter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
    /// What became of its steps: read alone, the first page of those that are done; then, and in
    /// lists, those that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// What its steps cost.
    #[serde(default, skip_serializing_if = "Ledger::is_empty")]
    pub account: Ledger,
    /// How many of its steps its attempts have done.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub records_done: u32,
    /// Where the next page of its records begins, when it was read alone and has more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_next: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl TaskView {
    /// A task as it is seen when it waits for `waits_for`.
    pub fn new(task: &Task, waits_for: Option<Waits>) -> Self {
        let of = task.spec.of.as_ref();
        let last = task.ended.last().and_then(|ended| ended.failure.clone());
        let (mut output, mut failure, mut cancelled, mut ended_at, mut ran) =
            (None, last, None, None, None);
        match &task.state {
            TaskState::Completed {
                at,
                output: made,
                ran_ms,
                ..
            } => {
                (output, failure) = (Some(made.clone()), None);
                (ended_at, ran) = (Some(*at), Some(*ran_ms));
            }
            TaskState::Failed { at, failure: last } => {
                (failure, ended_at) = (Some(last.clone()), Some(*at));
            }
            TaskState::Cancelled { at, reason } => {
                (cancelled, failure, ended_at) = (Some(reason.clone()), None, Some(*at));
            }
            TaskState::Pending { .. } | TaskState::Assigned(_) | TaskState::InProgress(_) => {}
        }
        Self {
            task_id: task.id,
            status: task.status(),
            kind: task.spec.kind.clone(),
            waits_for,
            worker: task.worker().cloned(),
            attempts: task.attempts,
            priority: task.spec.priority,
            band: task.spec.priority.band().to_owned(),
            queue: task.spec.queue.clone(),
            capability: task.spec.capability.clone(),
            address: task.address().clone(),
            run_id: of.map(|of| of.run),
            step: of.map(|of| of.step.clone()),
            item: of.map(|of| of.item),
            input: task.spec.input.clone(),
            output,
            failure,
            cancelled,
            progress: task.progress.clone(),
            submitted_at: task.submitted_at,
            ended_at,
            ran_ms: ran,
            ended: task.ended.clone(),
            metadata: task.spec.metadata.clone(),
            records: task.records.clone(),
            account: task.account,
            records_done: task.finished.steps,
            records_next: None,
        }
    }

    /// The same with a page of its records.
    #[must_use]
    pub fn with_records(mut self, page: Page<Record>) -> Self {
        (self.records, self.records_next) = (page.items, page.next);
        self
    }
}

/// How many tasks stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Counts {
    /// All.
    pub total: u32,
    /// Waiting.
    pub pending: u32,
    /// With a worker.
    pub running: u32,
    /// Done.
    pub completed: u32,
    /// Dead letters.
    pub failed: u32,
    /// Not wanted any more.
    pub cancelled: u32,
}

impl Counts {
    /// Whether every task has ended.
    pub fn all_ended(&self) -> bool {
        self.pending + self.running == 0
    }
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StepView {
    /// Its name.
    pub step: Name,
    /// Where it stands.
    pub status: StepStatus,
    /// Its tasks.
    pub tasks: Counts,
    /// What it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
}

/// What an open run waits for, and who can do something about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunWaits {
    /// What.
    pub what: String,
    /// Who.
    pub who: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunView {
    /// Its id.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// What for.
    pub goal: String,
    /// Its supervisor.
    pub supervisor: Name,
    /// The plan.
    pub plan: Arc<Graph>,
    /// Who works.
    pub crew: Arc<Crew>,
    /// Its steps.
    pub steps: Vec<StepView>,
    /// Its tasks.
    pub tasks: Counts,
    /// What it waits for, while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<RunWaits>,
    /// The gate that its supervisor is to reduce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits_supervisor: Option<Name>,
    /// The result, or what there is of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_result: Option<Json>,
    /// The result is not whole: the run failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// When it started.
    pub created_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Whatever its starter wants to find again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, Json>,
    /// What it may spend, and what it has spent; only of one run that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        let steps: Vec<StepView> = run
            .graph
            .steps
            .iter()
            .zip(&run.steps)
            .map(|(step, state)| StepView {
                step: step.id.clone(),
                status: state.status,
                tasks: Counts {
                    total: state.total,
                    pending: state.open() - state.leased,
                    running: state.leased,
                    completed: state.completed,
                    failed: state.failed,
                    cancelled: state.cancelled,
                },
                output: state.output.clone(),
            })
            .collect();
        let tasks = steps.iter().fold(Counts::default(), |sum, step| Counts {
            total: sum.total + step.tasks.total,
            pending: sum.pending + step.tasks.pending,
            running: sum.running + step.tasks.running,
            completed: sum.completed + step.tasks.completed,
            failed: sum.failed + step.tasks.failed,
            cancelled: sum.cancelled + step.tasks.cancelled,
        });
        let (mut failure, mut cancelled, mut ended_at) = (None, None, None);
        match &run.state {
            RunState::Running => {}
            RunState::Completed { at, .. } => ended_at = Some(*at),
            RunState::Failed {
                at, failure: why, ..
            } => {
                (failure, ended_at) = (Some(why.clone()), Some(*at));
            }
            RunState::Cancelled { at, reason } => {
                (cancelled, ended_at) = (Some(reason.clone()), Some(*at));
            }
        }
        let awaits = run.awaits_supervisor().map(|(step, _)| step.clone());
        let waits_for = (run.status() == RunStatus::Running).then(|| match &awaits {
            Some(step) => RunWaits {
                what: format!("gate “{step}” waits to be reduced"),
                who: format!("supervisor “{}”", run.supervisor),
            },
            None => RunWaits {
                what: format!("{} tasks have not ended", tasks.pending + tasks.running),
                who: "workers".into(),
            },
        });
        Self {
            run_id: run.id,
            status: run.status(),
            goal: run.goal.clone(),
            supervisor: run.supervisor.clone(),
            plan: Arc::clone(&run.graph),
            crew: Arc::clone(&run.crew),
            steps,
            tasks,
            waits_for,
            awaits_supervisor: awaits,
            final_result: run.result().cloned(),
            partial: run.status() == RunStatus::Failed,
            failure,
            cancelled,
            created_at: run.created_at,
            ended_at,
            metadata: run.metadata.clone(),
            account: None,
        }
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkerView {
    /// Its id.
    pub worker_id: Name,
    /// What kind of agent it is.
    pub agent_type: Name,
    /// Whether it is there.
    pub status: WorkerStatus,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Tasks it runs at once.
    pub capacity: u32,
    /// Tasks it has now.
    pub current_task_count: u32,
    /// What it can do.
    pub capabilities: Vec<Name>,
    /// Tools it can use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Name>,
    /// What it understands to be asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Name>,
    /// The queues it serves.
    pub queues: Vec<Name>,
    /// Attempts that succeeded.
    pub completed: u64,
    /// Attempts that ended otherwise.
    pub failed: u64,
    /// Mean milliseconds of those that succeeded.
    pub average_ms: f64,
    /// When it was heard last, in this process' life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Time>,
    /// Where it can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// For people and filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
}

impl WorkerView {
    /// A worker as it is seen at `now`. One elsewhere that the log says is there, but that this
    /// process has not heard yet, is `unknown`.
    pub fn new(worker: &Worker, now: Time, last_heartbeat: Option<Time>) -> Self {
        let unheard = worker.spec.home == Home::Remote
            && last_heartbeat.is_none()
            && !matches!(worker.presence, Presence::Gone { .. });
        let reason = match &worker.presence {
            Presence::Gone { reason, .. } => Some(reason.clone()),
            Presence::Here | Presence::Draining => None,
        };
        Self {
            worker_id: worker.spec.id.clone(),
            agent_type: worker.spec.agent_type.clone(),
            status: if unheard {
                WorkerStatus::Unknown
            } else {
                worker.status(now)
            },
            reason,
            capacity: worker.spec.capacity,
            current_task_count: worker.holds.len() as u32,
            capabilities: worker.spec.capabilities.clone(),
            tools: worker.spec.tools.clone(),
            intents: worker.spec.intents.clone(),
            queues: worker.spec.queues.clone(),
            completed: worker.completed,
            failed: worker.failed,
            average_ms: mean(worker.busy_ms, worker.completed),
            last_heartbeat,
            endpoint: worker.spec.endpoint.clone(),
            metadata: worker.spec.metadata.clone(),
        }
    }
}

fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        sum as f64 / count as f64
    }
}

/// The supervisor's statistics, exact after every restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Statistics {
    /// Tasks ever accepted: the sum of the six that follow.
    pub total_tasks_submitted: u64,
    /// Waiting.
    pub tasks_pending: u64,
    /// Leased, not begun.
    pub tasks_assigned: u64,
    /// Begun.
    pub tasks_in_progress: u64,
    /// Done.
    pub tasks_completed: u64,
    /// Dead letters.
    pub tasks_failed: u64,
    /// Not wanted any more.
    pub tasks_cancelled: u64,
    /// Leases given out.
    pub attempts: u64,
    /// Late or foreign results refused.
    pub results_refused: u64,
    /// Mean milliseconds of a successful attempt.
    pub average_execution_ms: f64,
    /// Upper bounds of percentiles, exact to a factor of two, in milliseconds: 50, 95, 99.
    pub percentiles_ms: BTreeMap<String, u64>,
    /// Tasks accepted, by type.
    pub tasks_by_type: BTreeMap<Name, u64>,
    /// Tasks completed, by worker.
    pub tasks_by_agent: BTreeMap<Name, u64>,
    /// Runs ever started.
    pub runs: u64,
    /// Runs that are open.
    pub runs_open: u64,
    /// The position of the last event.
    pub position: u64,
}

impl Statistics {
    /// The statistics at an event.
    pub fn new(tally: &Tally, position: u64) -> Self {
        let percentile = |p: u64| Some((format!("p{p}"), tally.percentile_ms(p)?));
        Self {
            total_tasks_submitted: tally.submitted,
            tasks_pending: tally.pending,
            tasks_assigned: tally.assigned,
            tasks_in_progress: tally.in_progress,
            tasks_completed: tally.completed,
            tasks_failed: tally.failed,
            tasks_cancelled: tally.cancelled,
            attempts: tally.attempts,
            results_refused: tally.refused,
            average_execution_ms: tally.mean_ms(),
            percentiles_ms: [50, 95, 99].into_iter().filter_map(percentile).collect(),
            tasks_by_type: tally.by_type.clone(),
            tasks_by_agent: tally.by_worker.clone(),
            runs: tally.runs,
            runs_open: tally.runs_open,
            position,
        }
    }
}

/// A pool's statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PoolStatistics {
    /// Members.
    pub total_workers: u64,
    /// Of these, there with room.
    pub available_workers: u64,
    /// Of these, at capacity.
    pub busy_workers: u64,
    /// Tasks that members completed.
    pub total_tasks_processed: u64,
    /// Mean milliseconds of these.
    pub average_task_ms: f64,
    /// Tasks completed, by member.
    pub tasks_by_worker: BTreeMap<Name, u64>,
}

impl PoolStatistics {
    /// The statistics of these members at `now`.
    pub fn new<'a>(members: impl Iterator<Item = &'a Worker>, now: Time) -> Self {
        let (mut sum, mut busy_ms) = (Self::default(), 0);
        for worker in members {
            sum.total_workers += 1;
            match worker.status(now) {
                WorkerStatus::Available => sum.available_workers += 1,
                WorkerStatus::Busy => sum.busy_workers += 1,
                _ => {}
            }
            sum.total_tasks_processed += worker.completed;
            busy_ms += worker.busy_ms;
            sum.tasks_by_worker
                .insert(worker.spec.id.clone(), worker.completed);
        }
        sum.average_task_ms = mean(busy_ms, sum.total_tasks_processed);
        sum
    }
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct QueueView {
    /// Its name.
    pub queue: Name,
    /// Tasks that wait in it.
    pub pending: u64,
    /// Tasks of it that workers hold.
    pub leased: u64,
    /// It gives out nothing.
    pub paused: bool,
}

/// A task given to a worker: all it needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Assignment {
    /// The task.
    pub task_id: TaskId,
    /// The fencing token: reports count only with it.
    pub attempt: u32,
    /// The task's type.
    pub kind: Name,
    /// The brief.
    pub input: Json,
    /// What an earlier attempt handed back to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Json>,
    /// What became of its steps in earlier attempts, the first page: what is done is reused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// Where the next page of them begins, when there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_next: Option<String>,
    /// When the attempt times out.
    pub deadline: Time,
    /// What comes first.
    pub priority: Priority,
    /// Where this attempt stands in the distributed trace: a W3C `traceparent`.
    pub trace: TraceParent,
    /// The run, step and item, when it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// The step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Name>,
    /// The item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The submitter's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
}

impl Assignment {
    /// What the holder of `task` needs to know; `None` when nobody holds it.
    pub fn new(task: &Task) -> Option<Self> {
        let lease = task.lease()?;
        let of = task.spec.of.as_ref();
        Some(Self {
            task_id: task.id,
            attempt: lease.attempt,
            kind: task.spec.kind.clone(),
            input: task.spec.input.clone(),
            checkpoint: task.checkpoint.clone(),
            records: task.records.clone(),
            records_next: None,
            deadline: lease.deadline,
            priority: task.spec.priority,
            trace: task.trace_of(lease.attempt),
            run_id: of.map(|of| of.run),
            step: of.map(|of| of.step.clone()),
            item: of.map(|of| of.item),
            metadata: task.spec.metadata.clone(),
        })
    }

    /// The same with a page of its records.
    #[must_use]
    pub fn with_records(mut self, page: Page<Record>) -> Self {
        (self.records, self.records_next) = (page.items, page.next);
        self
    }
}

/// What a worker is told about a task it holds, or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "signal")]
pub enum Signal {
    /// Stop: the attempt has ended, whatever comes of it is refused.
    Stop {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// Hand it back at the next safe point: more urgent work waits.
    Yield {
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: u32,
    },
}

/// A message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Delivered {
    /// Its id.
    pub id: MessageId,
    /// All of it.
    pub message: Arc<Message>,
}

/// A credential, without anything that could be used in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CredentialView {
    /// Its id, which the key that its bearer shows has in it.
    pub id: Name,
    /// What people call it.
    pub label: Name,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

impl From<&Credential> for CredentialView {
    fn from(credential: &Credential) -> Self {
        Self {
            id: credential.id.clone(),
            label: credential.label.clone(),
            scopes: credential.scopes.clone(),
            created_at: credential.created_at,
            expires_at: credential.expires_at,
            revoked_at: credential.revoked_at,
        }
    }
}

/// A credential that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Minted {
    /// The credential.
    pub credential: CredentialView,
    /// The key to show: kept nowhere, so keep it now.
    pub key: String,
}

impl std::fmt::Debug for Minted {
    /// Without the key, so that no log has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted")
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// What stands on a board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BoardStatistics {
    /// Entries that have not expired, those that tasks show of themselves included.
    pub entries: u64,
    /// Of these, by segment.
    pub by_segment: BTreeMap<Name, u64>,
    /// Of these, by author.
    pub by_author: BTreeMap<Name, u64>,
}

impl BoardStatistics {
    /// Counts what has not expired.
    pub fn new<'a>(entries: impl Iterator<Item = &'a Entry>, now: Time) -> Self {
        let mut sum = Self::default();
        for entry in entries.filter(|entry| !entry.is_expired(now)) {
            sum.entries += 1;
            *sum.by_segment.entry(entry.segment.clone()).or_default() += 1;
            *sum.by_author.entry(entry.author.clone()).or_default() += 1;
        }
        sum
    }
}
