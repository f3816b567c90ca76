//! The contract as two traits: reading, and reading with writing. A monitor is handed an
//! [`ApiRead`], so that it cannot write by type.

use crate::speech::{Cursor, Heard, Say};
use crate::v1::{
    Assignment, BoardStatistics, CredentialView, Delivered, Minted, Page, PoolStatistics,
    QueueView, RunView, Signal, Statistics, TaskView, WorkerView,
};
use async_trait::async_trait;
use domain::blackboard::{Entry, EntryFilter, NewEntry};
use domain::command::{Report, RunStart, Submission};
use domain::credential::Scope;
use domain::demand::{Demand, Miss};
use domain::error::Error;
use domain::event::Recorded;
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::message::{Message, NewMessage};
use domain::name::Name;
use domain::pool::Pool;
use domain::record::{Finding, Record};
use domain::run::RunStatus;
use domain::task::{Address, TaskStatus};
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The answer to anything.
pub type Result<T> = std::result::Result<T, Error>;

/// Which tasks to list, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskQuery {
    /// Only of this run.
    pub run: Option<RunId>,
    /// Only in this state.
    pub status: Option<TaskStatus>,
    /// Only of this type.
    pub kind: Option<Name>,
    /// Only with, or last with, this worker.
    pub worker: Option<Name>,
    /// After this one: [`Page::next`] of the page before.
    pub after: Option<TaskId>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// Which runs to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunQuery {
    /// Only in this state.
    pub status: Option<RunStatus>,
    /// Before this one: [`Page::next`] of the page before.
    pub after: Option<RunId>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// A worker asks for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// At most so many.
    pub max: u32,
    /// It starts them at once, so that no extra report is needed.
    #[serde(default)]
    pub starts: bool,
    /// Milliseconds to wait for the first.
    #[serde(default)]
    pub wait_ms: u64,
    /// The worker's own number of this request, new for each: the same number with `again`, because
    /// the answer was lost, gives the same tasks again. If it gave none, it does not wait: claim under
    /// the next number. Without one, tasks whose answer could not be delivered go back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u64>,
    /// It was asked before under this number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Claim {
    /// A claim of at most `max` tasks that are begun at once, waiting `wait_ms` for the first.
    pub fn new(max: u32, wait_ms: u64) -> Self {
        Self {
            max,
            starts: true,
            wait_ms,
            key: None,
            again: false,
        }
    }
}

/// Everything a worker says at once: what became of its tasks, and what it wants next. One request,
/// one transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Who speaks.
    pub worker: Name,
    /// In which of its lives, as it registered; another life's claims are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// What became of which attempt.
    #[serde(default)]
    pub reports: Vec<(TaskId, u32, Report)>,
    /// What it wants.
    #[serde(default)]
    pub claim: Option<Claim>,
}

/// The answer to [`Work`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worked {
    /// For each report, whether it was accepted.
    pub reports: Vec<std::result::Result<(), Error>>,
    /// The tasks it holds now in addition.
    pub tasks: Vec<Assignment>,
    /// Why the claim was refused, when it was; the reports stand all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Error>,
}

/// Which workers to list, by id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerQuery {
    /// Only of this agent type.
    pub agent_type: Option<Name>,
    /// Only those that can do this, use this tool or understand this intent; case does not matter.
    pub capability: Option<Name>,
    /// Only with this status.
    pub status: Option<WorkerStatus>,
    /// After this one: [`Page::next`] of the page before.
    pub after: Option<Name>,
    /// At most so many; 0 means 100.
    pub limit: usize,
}

/// A credential to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// What people call it; the audit trail names it.
    pub label: Name,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// Milliseconds until it ends by itself; without, it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Reading. Every method's errors are the domain's: an unknown id is an error with a code, never an
/// empty answer.
#[async_trait]
pub trait ApiRead: Send + Sync {
    /// One task, with the first page of its records.
    async fn task_get(&self, task: TaskId) -> Result<TaskView>;
    /// Tasks. Of their records those of steps that are not done.
    async fn task_list(&self, query: TaskQuery) -> Result<Page<TaskView>>;
    /// The task, as soon as it has ended, as a list would show it; [`WaitTimedOut`](domain::error::Code::WaitTimedOut) when
    /// it has not within `wait`.
    async fn task_wait(&self, task: TaskId, wait: Duration) -> Result<TaskView>;
    /// What became of a task's steps: those that its attempts have done, in that order, then those
    /// that are not done. A page ends after `limit` steps (0 means 100) or
    /// [`RECORDS_PAGE_BYTES_MAX`](domain::limits::RECORDS_PAGE_BYTES_MAX) bytes; `after` is
    /// [`Page::next`] of the page before.
    async fn record_list(
        &self,
        task: TaskId,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>>;
    /// The tasks that would be claimed next from a queue, in order, were there a worker for all.
    async fn queue_peek(&self, queue: Name, limit: usize) -> Result<Vec<TaskView>>;
    /// The queues.
    async fn queue_list(&self) -> Result<Vec<QueueView>>;
    /// One run.
    async fn run_get(&self, run: RunId) -> Result<RunView>;
    /// What the agents of a run say after this, at most 256 pieces, as soon as there is something or
    /// `wait` is over; without a cursor, from the first that is kept. Also when the run ends.
    async fn run_stream(&self, run: RunId, after: Option<Cursor>, wait: Duration) -> Result<Heard>;
    /// Runs.
    async fn run_list(&self, query: RunQuery) -> Result<Page<RunView>>;
    /// One worker; one that was never heard of is an error.
    async fn worker_get(&self, worker: Name) -> Result<WorkerView>;
    /// Workers.
    async fn worker_list(&self, query: WorkerQuery) -> Result<Page<WorkerView>>;
    /// All pools.
    async fn pool_list(&self) -> Result<Vec<Pool>>;
    /// One pool, with its version.
    async fn pool_get(&self, pool: Name) -> Result<Pool>;
    /// A pool's statistics.
    async fn pool_statistics(&self, pool: Name) -> Result<PoolStatistics>;
    /// The statistics, a consistent snapshot.
    async fn statistics(&self) -> Result<Statistics>;
    /// A board's entries, with what its run's tasks show of themselves.
    async fn entry_list(&self, filter: EntryFilter) -> Result<Vec<Entry>>;
    /// What stands on a board: a run's, or the shared one.
    async fn board_statistics(&self, run: Option<RunId>) -> Result<BoardStatistics>;
    /// One message, with how each recipient's part stands.
    async fn message_get(&self, message: MessageId) -> Result<Message>;
    /// Messages, oldest first.
    async fn message_list(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<Message>>;
    /// Where a worker that speaks through this lives, which says how its death is noticed.
    fn home(&self) -> Home;
    /// The tools that somebody wanted and did not have, the last missed first.
    async fn tool_demand_list(&self) -> Result<Vec<Demand>>;
    /// All credentials, revoked ones included, without their secrets.
    async fn credential_list(&self) -> Result<Vec<CredentialView>>;
    /// Events after a position, at most `limit`, without a gap.
    async fn event_list(&self, after: u64, limit: usize) -> Result<Vec<Recorded>>;
    /// The last event's position, as soon as it is greater than `after` or `wait` is over.
    async fn event_wait(&self, after: u64, wait: Duration) -> Result<u64>;
}

/// Reading and writing.
#[async_trait]
pub trait Api: ApiRead {
    /// Accepts tasks, each for itself, in one transaction: one answer per task, in order.
    async fn task_submit(&self, tasks: Vec<Submission>) -> Result<Vec<Result<TaskId>>>;
    /// Cancels a pending or running task; its worker is told.
    async fn task_cancel(&self, task: TaskId, reason: String) -> Result<()>;
    /// Puts a failed or cancelled task back into its queue.
    async fn task_redrive(&self, task: TaskId) -> Result<()>;
    /// Gives a task to another worker, whatever it is doing now.
    async fn task_reassign(&self, task: TaskId, to: Address) -> Result<()>;
    /// A person found out whether a step in doubt happened. The task goes on when it is redriven.
    async fn record_resolve(&self, task: TaskId, key: Name, finding: Finding) -> Result<()>;
    /// Starts a run.
    async fn run_start(&self, run: RunStart) -> Result<RunId>;
    /// Gives a supervisor's reduction of a gate that awaits it.
    async fn run_settle(&self, run: RunId, step: Name, output: Json) -> Result<()>;
    /// Stops a run and its open tasks.
    async fn run_cancel(&self, run: RunId, reason: String) -> Result<()>;
    /// Lets a failed or cancelled run go on with what failed.
    async fn run_retry(&self, run: RunId) -> Result<()>;
    /// Registers a worker, or changes what it says about itself.
    async fn worker_register(&self, worker: WorkerSpec) -> Result<()>;
    /// Proof of life; answers with what the worker must know, at once or within `wait`.
    /// `session` is the life that speaks; [`WorkerSuperseded`](domain::error::Code::WorkerSuperseded)
    /// when another has registered since.
    async fn worker_heartbeat(
        &self,
        worker: Name,
        session: Option<u64>,
        wait: Duration,
    ) -> Result<Vec<Signal>>;
    /// A worker says good-bye, or is known to be dead: what it holds goes back at once. With a
    /// `session`, only if that is still its current life.
    async fn worker_leave(&self, worker: Name, session: Option<u64>, reason: String) -> Result<()>;
    /// A worker that drained, or was in error, can work again.
    async fn worker_ready(&self, worker: Name) -> Result<()>;
    /// A worker finishes what it has and gets nothing new.
    async fn worker_drain(&self, worker: Name) -> Result<()>;
    /// A worker cannot work for now.
    async fn worker_error(&self, worker: Name, reason: String) -> Result<()>;
    /// Reports and claims, in one transaction.
    async fn work(&self, work: Work) -> Result<Worked>;
    /// An attempt tells who watches its run what is being said and called. Nothing of it is on disk:
    /// it is kept in memory, as far as there is room. Of a task without a run, nothing is kept.
    /// [`AttemptStale`](domain::error::Code::AttemptStale) when the token is not current.
    async fn task_say(&self, worker: Name, say: Say) -> Result<()>;
    /// Pauses or resumes a queue.
    async fn queue_pause(&self, queue: Name, paused: bool) -> Result<()>;
    /// Defines a pool, or changes its strategy. With `expected`, only when that is its version now (0:
    /// it does not exist yet); [`VersionStale`](domain::error::Code::VersionStale) otherwise.
    async fn pool_define(&self, pool: Pool, expected: Option<u64>) -> Result<Pool>;
    /// Adds a registered worker to a pool.
    async fn pool_join(&self, pool: Name, worker: Name) -> Result<()>;
    /// Removes a worker from a pool and drains it.
    async fn pool_leave(&self, pool: Name, worker: Name) -> Result<()>;
    /// Finds the least loaded fitting member and keeps room there for `holder`, atomically.
    async fn pool_reserve(
        &self,
        pool: Name,
        capability: Option<Name>,
        holder: Name,
        keep: Duration,
    ) -> Result<Name>;
    /// Gives the room back.
    async fn pool_unreserve(&self, worker: Name, holder: Name) -> Result<()>;
    /// Notes that somebody wanted a tool and did not have it; for one task, once. Safe to send again.
    async fn tool_missed(&self, miss: Miss) -> Result<()>;
    /// Makes a credential; its secret is in the answer and nowhere else.
    async fn credential_create(&self, new: NewCredential) -> Result<Minted>;
    /// Ends a credential for good.
    async fn credential_revoke(&self, id: Name) -> Result<()>;
    /// Writes on a blackboard.
    async fn entry_write(&self, entry: NewEntry) -> Result<EntryId>;
    /// Compare-and-set: takes an entry, or gives it back.
    async fn entry_claim(
        &self,
        entry: EntryId,
        expected: Option<Name>,
        by: Option<Name>,
    ) -> Result<()>;
    /// Subscribes an agent: to messages for itself and to everybody, and to these types.
    async fn message_subscribe(&self, agent: Name, kinds: Vec<Name>) -> Result<()>;
    /// Ends it; what is still open for the agent stays until it expires.
    async fn message_unsubscribe(&self, agent: Name) -> Result<()>;
    /// Sends a message. No recipient is an error, and the message a dead letter.
    async fn message_send(&self, message: NewMessage) -> Result<MessageId>;
    /// Messages an agent has not settled, at once or within `wait`, at most `max`.
    async fn message_receive(
        &self,
        agent: Name,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivered>>;
    /// Says that a message is dealt with, or why it failed.
    async fn message_settle(
        &self,
        message: MessageId,
        agent: Name,
        failure: Option<String>,
    ) -> Result<()>;
    /// Sends a message and waits for the one that answers it (whose correlation is its id); a late
    /// answer stays in the asker's inbox.
    async fn message_request(&self, message: NewMessage, wait: Duration) -> Result<Delivered>;
}

/// Every worker, page by page.
///
/// # Errors
/// The contract's own.
pub async fn worker_list_all(api: &(impl ApiRead + ?Sized)) -> Result<Vec<WorkerView>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let query = WorkerQuery {
            after,
            limit: domain::limits::PAGE_MAX,
            ..WorkerQuery::default()
        };
        let page = api.worker_list(query).await?;
        all.extend(page.items);
        after = match page.next {
            None => return Ok(all),
            Some(next) => Some(next.parse()?),
        };
    }
}
