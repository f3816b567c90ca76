//! Bodies and queries of the HTTP API, where they differ from the domain's own types: what a person
//! can write by hand, and what both ends read alike. Paths are in `docs/api.md` and in the OpenAPI
//! document that the server makes from its code.

use crate::api::{Claim, RunQuery, TaskQuery, Work, Worked, WorkerQuery};
use crate::problem::Problem;
use crate::speech::Cursor;
use crate::v1::{Assignment, Delivered, Signal, TaskView};
use domain::blackboard::Entry;
use domain::command::{Report, Submission};
use domain::error::Error;
use domain::event::Recorded;
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::message::{Message, NewMessage};
use domain::name::Name;
use domain::pool::Strategy;
use domain::run::RunStatus;
use domain::task::TaskStatus;
use domain::worker::WorkerStatus;
use serde::{Deserialize, Serialize};

/// The header that makes a creating request safe to send again: the same value with the same body
/// within a day is done once.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that names a request, in and out; its events carry it as `cause`.
pub const REQUEST_ID: &str = "x-request-id";
/// The header of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

macro_rules! bodies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* })*
    };
}

// A macro, because forty lines of derives would hide what the bodies are. What is sent to a server
// has no unknown fields; its answers may have, so that a newer server does not break an older client.
bodies! {
    /// A task's id.
    TaskRef {
        /// The task.
        task_id: TaskId,
    }
    /// A run's id.
    RunRef {
        /// The run.
        run_id: RunId,
    }
    /// An entry's id.
    EntryRef {
        /// The entry.
        entry_id: EntryId,
    }
    /// A message's id.
    MessageRef {
        /// The message.
        message_id: MessageId,
    }
    /// A worker's id.
    WorkerRef {
        /// The worker.
        worker_id: Name,
    }
    /// A position in the log.
    Position {
        /// Of the last event.
        position: u64,
    }
    /// Many tasks, in one transaction.
    #[serde(deny_unknown_fields)]
    SubmitMany {
        /// At most 10,000.
        tasks: Vec<Submission>,
    }
    /// What became of each.
    Submitted {
        /// In the order they were sent.
        results: Vec<SubmitResult>,
    }
    /// What became of one.
    SubmitResult {
        /// The task, when it was accepted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task_id: Option<TaskId>,
        /// Why not, otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    }
    /// Why.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    Reason {
        /// In words.
        #[serde(default)]
        reason: String,
    }
    /// Who shall do it.
    #[serde(deny_unknown_fields)]
    Reassign {
        /// Who.
        to: domain::task::Address,
    }
    /// What a person found out about a step in doubt.
    #[serde(deny_unknown_fields)]
    ResolveRecord {
        /// What.
        finding: domain::record::Finding,
    }
    /// A supervisor's reduction of a gate.
    #[serde(deny_unknown_fields)]
    Settle {
        /// What it made.
        output: Json,
    }
    /// A sign of life.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    Heartbeat {
        /// The worker's life, as it registered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<u64>,
        /// Milliseconds to wait for something to tell.
        #[serde(default)]
        wait_ms: u64,
    }
    /// What a worker must know.
    Signals {
        /// In order.
        signals: Vec<Signal>,
    }
    /// A status to be, of those that are not computed: `available`, `draining`, `error`,
    /// `unavailable`.
    #[serde(deny_unknown_fields)]
    SetStatus {
        /// Which.
        status: WorkerStatus,
        /// Why.
        #[serde(default)]
        reason: String,
    }
    /// What a worker says: what became of its tasks, and what it wants next.
    #[serde(deny_unknown_fields)]
    WorkBody {
        /// The worker's life, as it registered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<u64>,
        /// What became of which attempt.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        reports: Vec<ReportItem>,
        /// What it wants.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<Claim>,
    }
    /// What became of one attempt.
    #[serde(deny_unknown_fields)]
    ReportItem {
        /// The task.
        task_id: TaskId,
        /// The fencing token.
        attempt: u32,
        /// What became of it.
        report: Report,
    }
    /// What one worker says about one attempt.
    #[serde(deny_unknown_fields)]
    AttemptReport {
        /// Who.
        worker: Name,
        /// What.
        report: Report,
    }
    /// The answer to a worker.
    WorkedBody {
        /// For each report, why it was refused; null when it was accepted.
        reports: Vec<Option<Problem>>,
        /// The tasks it holds now in addition.
        tasks: Vec<Assignment>,
        /// Why the claim was refused, when it was; the reports stand all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Problem>,
    }
    /// A pool, without its name.
    #[serde(deny_unknown_fields)]
    PoolBody {
        /// How it shares work out.
        #[serde(default)]
        strategy: Strategy,
        /// Who is in it; members it already has stay.
        #[serde(default)]
        members: Vec<Name>,
    }
    /// Room to be kept.
    #[serde(deny_unknown_fields)]
    Reserve {
        /// What the worker must be able to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capability: Option<Name>,
        /// For whom.
        holder: Name,
        /// Milliseconds to keep it.
        keep_ms: u64,
    }
    /// Compare-and-set of who holds an entry.
    #[serde(deny_unknown_fields)]
    ClaimEntry {
        /// Who must hold it now; nobody when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<Name>,
        /// Who shall hold it; nobody when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Name>,
    }
    /// Entries, the most important first.
    Entries {
        /// At most 1,000.
        items: Vec<Entry>,
    }
    /// What an agent listens to besides messages to itself and to everybody.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    Subscription {
        /// Types.
        #[serde(default)]
        kinds: Vec<Name>,
    }
    /// A receiver asks.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    Receive {
        /// At most so many; 0 means 100.
        #[serde(default)]
        max: usize,
        /// Milliseconds to wait for the first.
        #[serde(default)]
        wait_ms: u64,
    }
    /// Messages for a receiver: each is to be settled within a minute, or comes again.
    Received {
        /// In order.
        messages: Vec<Delivered>,
    }
    /// Messages, oldest first.
    Messages {
        /// A page of them.
        items: Vec<Message>,
    }
    /// How a receiver dealt with a message.
    #[serde(deny_unknown_fields)]
    SettleMessage {
        /// Who.
        agent: Name,
        /// Why it failed, when it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    }
    /// A message whose answer is waited for.
    #[serde(deny_unknown_fields)]
    RequestMessage {
        /// The message.
        message: NewMessage,
        /// Milliseconds to wait.
        wait_ms: u64,
    }
    /// Events, in order.
    Events {
        /// Those of this page that pass the filter.
        items: Vec<Recorded>,
        /// Pass it as `after` to go on: everything up to here was looked at.
        next: u64,
    }
    /// Pools.
    Pools {
        /// All of them.
        items: Vec<domain::pool::Pool>,
    }
    /// Queues.
    Queues {
        /// All of them.
        items: Vec<crate::v1::QueueView>,
    }
    /// Tools that are missed.
    Demands {
        /// All of them, the last missed first.
        items: Vec<domain::demand::Demand>,
    }
    /// Credentials, without their secrets.
    Credentials {
        /// All of them, revoked ones included.
        items: Vec<crate::v1::CredentialView>,
    }
    /// A tenant's name.
    #[serde(deny_unknown_fields)]
    TenantRef {
        /// 1 to 63 lower-case letters, digits and hyphens.
        tenant: Name,
    }
    /// Tenants.
    TenantList {
        /// All of them.
        items: Vec<TenantRef>,
    }
    /// A task's attempts.
    Attempts {
        /// Those that ended, oldest first; the newest 20.
        ended: Vec<domain::attempt::EndedAttempt>,
        /// Leases given out so far.
        attempts: u32,
        /// Who holds the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<Name>,
        /// Where the task stands.
        status: TaskStatus,
    }
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct TaskParams {
    /// Only of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Only of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Name>,
    /// Only with, or last with, this worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// After this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskId>,
    /// At most so many, 1,000 at most; 0 means 100.
    pub limit: usize,
}

impl From<TaskParams> for TaskQuery {
    fn from(params: TaskParams) -> Self {
        let TaskParams {
            run,
            status,
            kind,
            worker,
            after,
            limit,
        } = params;
        Self {
            run,
            status,
            kind,
            worker,
            after,
            limit,
        }
    }
}

impl From<TaskQuery> for TaskParams {
    fn from(query: TaskQuery) -> Self {
        let TaskQuery {
            run,
            status,
            kind,
            worker,
            after,
            limit,
        } = query;
        Self {
            run,
            status,
            kind,
            worker,
            after,
            limit,
        }
    }
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct RunParams {
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// After this one, newest first: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
    /// At most so many, 1,000 at most; 0 means 100.
    pub limit: usize,
}

impl From<RunParams> for RunQuery {
    fn from(params: RunParams) -> Self {
        let RunParams {
            status,
            after,
            limit,
        } = params;
        Self {
            status,
            after,
            limit,
        }
    }
}

impl From<RunQuery> for RunParams {
    fn from(query: RunQuery) -> Self {
        let RunQuery {
            status,
            after,
            limit,
        } = query;
        Self {
            status,
            after,
            limit,
        }
    }
}

/// Which workers or agents to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct WorkerParams {
    /// Only of this agent type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<Name>,
    /// Only those with this capability, tool or intent; case does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<Name>,
    /// Only with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkerStatus>,
    /// After this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
    /// At most so many, 1,000 at most; 0 means 100.
    pub limit: usize,
}

impl From<WorkerParams> for WorkerQuery {
    fn from(params: WorkerParams) -> Self {
        let WorkerParams {
            agent_type,
            capability,
            status,
            after,
            limit,
        } = params;
        Self {
            agent_type,
            capability,
            status,
            after,
            limit,
        }
    }
}

impl From<WorkerQuery> for WorkerParams {
    fn from(query: WorkerQuery) -> Self {
        let WorkerQuery {
            agent_type,
            capability,
            status,
            after,
            limit,
        } = query;
        Self {
            agent_type,
            capability,
            status,
            after,
            limit,
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct WaitParams {
    /// Milliseconds to wait for the end; without, the answer comes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// From where to hear a run's agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct SpeechParams {
    /// After this: `next` of the answer before. In a stream, `Last-Event-ID` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// Milliseconds to wait for the first when there is none; not in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct PageParams {
    /// After this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many, 1,000 at most; 0 means 100.
    pub limit: usize,
}

/// Whose board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct BoardParams {
    /// A run's; without, the shared one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Which entries to list, in a query; `POST /v1/entries/search` takes every condition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct EntryParams {
    /// Whose board; without, the shared one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Name>,
    /// Only this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<Name>,
    /// Only by this author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Name>,
    /// At least this important, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_min: Option<f64>,
    /// At most so many, 1,000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct EventParams {
    /// After this position. In a stream, `Last-Event-ID` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many, 1,000 at most; 0 means 100. A stream has no end and ignores it.
    pub limit: usize,
    /// Only these types, separated by commas; `task.*` is every type of that noun.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
    /// Only of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only what this key's bearer asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// Milliseconds to wait for the first when there is none; not in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// A worker's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct LeaveParams {
    /// The worker's life, as it registered; another's is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What is streamed to a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields, default)]
pub struct StreamParams {
    /// The worker's life, as it registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Tasks are begun as they are sent, so that no extra report is needed.
    pub starts: bool,
}

impl From<Vec<Result<TaskId, Error>>> for Submitted {
    fn from(results: Vec<Result<TaskId, Error>>) -> Self {
        let result = |result| match result {
            Ok(task) => SubmitResult {
                task_id: Some(task),
                problem: None,
            },
            Err(error) => SubmitResult {
                task_id: None,
                problem: Some(Problem::from(&error)),
            },
        };
        Self {
            results: results.into_iter().map(result).collect(),
        }
    }
}

impl From<SubmitResult> for Result<TaskId, Error> {
    fn from(result: SubmitResult) -> Self {
        match (result.task_id, result.problem) {
            (Some(task), _) => Ok(task),
            (None, Some(problem)) => Err(problem.into()),
            (None, None) => Err(Error::new(
                domain::error::Code::Internal,
                "the server said neither which task nor why not",
            )),
        }
    }
}

impl WorkBody {
    /// As the contract has it.
    pub fn of(self, worker: Name) -> Work {
        let report = |item: ReportItem| (item.task_id, item.attempt, item.report);
        Work {
            worker,
            session: self.session,
            reports: self.reports.into_iter().map(report).collect(),
            claim: self.claim,
        }
    }
}

impl From<Work> for WorkBody {
    fn from(work: Work) -> Self {
        let item = |(task_id, attempt, report)| ReportItem {
            task_id,
            attempt,
            report,
        };
        Self {
            session: work.session,
            reports: work.reports.into_iter().map(item).collect(),
            claim: work.claim,
        }
    }
}

impl From<Worked> for WorkedBody {
    fn from(worked: Worked) -> Self {
        let problem = |report: Result<(), Error>| report.err().map(|error| Problem::from(&error));
        Self {
            reports: worked.reports.into_iter().map(problem).collect(),
            tasks: worked.tasks,
            refused: worked.refused.as_ref().map(Problem::from),
        }
    }
}

impl From<WorkedBody> for Worked {
    fn from(body: WorkedBody) -> Self {
        let verdict = |problem: Option<Problem>| match problem {
            None => Ok(()),
            Some(problem) => Err(problem.into()),
        };
        Self {
            reports: body.reports.into_iter().map(verdict).collect(),
            tasks: body.tasks,
            refused: body.refused.map(Error::from),
        }
    }
}

impl From<TaskView> for Attempts {
    fn from(task: TaskView) -> Self {
        let holds = matches!(task.status, TaskStatus::Assigned | TaskStatus::InProgress);
        Self {
            worker: task.worker.filter(|_| holds),
            ended: task.ended,
            attempts: task.attempts,
            status: task.status,
        }
    }
}
