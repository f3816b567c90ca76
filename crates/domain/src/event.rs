//! Facts. An event says what happened with everything the rows it touches need to fold it, so that
//! each row folds alone: [`Event::touches`] names the rows, [`Row::evolve`](crate::state::Row::evolve)
//! folds one of them. That makes recovery, replay and write-behind the same walk.
//!
//! Wire names are dotted lower case and closed; a stored event is read for ever (`fixtures/`).

use crate::blackboard::Entry;
use crate::budget::{Budget, Dues};
use crate::credential::Credential;
use crate::demand::Miss;
use crate::graph::{Graph, Step};
use crate::id::{EntryId, MessageId, RunId, TaskId};
use crate::json::Json;
use crate::message::Message;
use crate::name::Name;
use crate::pool::Pool;
use crate::record::{Finding, NewRecord, RecordState};
use crate::run::Crew;
use crate::state::Key;
use crate::task::{Address, AttemptEnd, Failure, Membership, TaskSpec};
use crate::time::Time;
use crate::trace::TraceParent;
use crate::worker::WorkerSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An event with its place in the one total order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Recorded {
    /// 1, 2, 3, … without a gap.
    pub position: u64,
    /// When it was decided.
    pub at: Time,
    /// The request that caused it, as its sender named it (a correlation id), if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Name>,
    /// Who asked for it: the label of the credential it came with. Nobody, when the engine did it by
    /// itself or nobody had to show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// What happened.
    pub event: Event,
}

/// Where a request comes from: what its events say about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// How its sender names it: the correlation id of its events.
    pub cause: Option<Name>,
    /// Who sent it.
    pub by: Option<Name>,
}

/// What the counters of a task's surroundings need to know about it. Every event that changes a
/// task's state carries it, so that queue, run, slot and statistics fold without the task's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ties {
    /// The task's type, for statistics.
    pub kind: Name,
    /// Its queue.
    pub queue: Name,
    /// Its place in a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Membership>,
    /// The concurrency key it occupies while leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Name>,
}

/// One attempt, as a report or an event names it: the number is the fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttemptRef {
    /// The task.
    pub task: TaskId,
    /// 1, 2, 3, … for each lease of the task; only the newest is current.
    pub attempt: u32,
    /// Who holds or held it.
    pub worker: Name,
}

/// What happened.
///
/// For each event on a task: which states it folds in. Folding one in another state is a broken
/// invariant (it would mean `decide` allowed it), asserted in debug builds and ignored in release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Event {
    /// A task exists now, `pending`. Refused before it is an event: an id in use with another
    /// content (`task.exists`), a bad specification, an unknown dependency.
    #[serde(rename = "task.submitted")]
    TaskSubmitted {
        /// Its id.
        task: TaskId,
        /// All that was asked.
        spec: Arc<TaskSpec>,
        /// Dependencies that have not completed yet.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked_by: Vec<TaskId>,
        /// The idempotency key it came with, and the digest of its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<(Name, u64)>,
    },
    /// A worker leased the task. Folds in `pending` only: → `assigned`, or → `in_progress` when the
    /// worker said it starts at once. In any other state the claim is refused
    /// (`task.not_claimable`).
    #[serde(rename = "task.assigned")]
    TaskAssigned {
        /// The new attempt.
        lease: AttemptRef,
        /// What counts along.
        ties: Ties,
        /// When the attempt times out.
        deadline: Time,
        /// How many of the slot may be leased at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot_max: Option<u32>,
        /// The worker starts at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        started: bool,
        /// The worker's own number of the request that claimed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<u64>,
    },
    /// The worker began. Folds in `assigned`; a repeat in `in_progress` is answered without an
    /// event; elsewhere the report is stale.
    #[serde(rename = "task.started")]
    TaskStarted {
        /// The attempt.
        lease: AttemptRef,
        /// What counts along.
        ties: Ties,
    },
    /// The worker told how far it is. Folds in `assigned` and `in_progress`; elsewhere stale.
    #[serde(rename = "task.progressed")]
    TaskProgressed {
        /// The attempt.
        lease: AttemptRef,
        /// 0 to 1, when it can be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fraction: Option<f64>,
        /// In words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
        /// The task's run, for those who follow one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    /// The worker told what became of a step. Folds in `assigned` and `in_progress`; elsewhere
    /// stale. What the record's own state does not allow is refused (`record.state`,
    /// `record.in_doubt`); the same again is answered without an event.
    #[serde(rename = "record.noted")]
    RecordNoted {
        /// The attempt.
        lease: AttemptRef,
        /// What it said.
        record: NewRecord,
        /// The task's run, for those who follow one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// What it moves on the accounts of the task and of its run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dues: Option<Dues>,
    },
    /// A person found out about a step in doubt. Folds in every state of its task; refused when the
    /// step is not in doubt (`record.state`).
    #[serde(rename = "record.resolved")]
    RecordResolved {
        /// The task.
        task: TaskId,
        /// The step.
        key: Name,
        /// What was found.
        finding: Finding,
        /// The task's run, for those who follow one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// What it moves on the accounts of the task and of its run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dues: Option<Dues>,
    },
    /// The result was accepted. Folds in `assigned` and `in_progress`: → `completed`. With another
    /// token, or in any other state, the result is refused and [`Event::ResultRefused`] tells.
    #[serde(rename = "task.completed")]
    TaskCompleted {
        /// The attempt that succeeded.
        lease: AttemptRef,
        /// What counts along.
        ties: Ties,
        /// The result.
        output: Json,
        /// Milliseconds from lease to result.
        ran_ms: u64,
        /// Whether the worker had reported its start.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        started: bool,
        /// Tasks that wait for this one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dependents: Vec<TaskId>,
    },
    /// An attempt ended without a result. Folds in `assigned` and `in_progress`: → `pending`. What
    /// comes next (another try, the dead letters) is in `retry_at` and a following
    /// [`Event::TaskFailed`].
    #[serde(rename = "attempt.ended")]
    AttemptEnded {
        /// The attempt.
        lease: AttemptRef,
        /// What counts along.
        ties: Ties,
        /// How it ended.
        end: AttemptEnd,
        /// Why, in words and a code.
        failure: Failure,
        /// Not before this instant again; `None` goes back to its old place in the queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Time>,
        /// Whether it counts against the retry policy.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        counted: bool,
        /// What the next attempt may go on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Json>,
        /// Milliseconds from lease to end.
        ran_ms: u64,
        /// Whether the worker had reported its start.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        started: bool,
    },
    /// No attempt is left: the task is a dead letter. Folds in `pending`: → `failed`.
    #[serde(rename = "task.failed")]
    TaskFailed {
        /// The task.
        task: TaskId,
        /// What counts along.
        ties: Ties,
        /// The last failure.
        failure: Failure,
        /// The worker of the last attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<Name>,
    },
    /// Somebody does not want it any more. Folds in `pending`, `assigned`, `in_progress`:
    /// → `cancelled`; a worker that holds it is told. Refused in terminal states (`task.state`),
    /// except that cancelling twice is answered without an event.
    #[serde(rename = "task.cancelled")]
    TaskCancelled {
        /// The task.
        task: TaskId,
        /// What counts along.
        ties: Ties,
        /// Why.
        reason: String,
        /// The attempt it took the task from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<AttemptRef>,
        /// Whether that attempt had reported its start.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        started: bool,
    },
    /// A dependency completed. Folds in `pending`; ignored elsewhere (the task was cancelled).
    #[serde(rename = "task.unblocked")]
    TaskUnblocked {
        /// The task that waited.
        task: TaskId,
        /// The dependency.
        by: TaskId,
    },
    /// The task was given to another worker. Folds in `pending`: whoever held it has lost it by an
    /// [`Event::AttemptEnded`] before.
    #[serde(rename = "task.reassigned")]
    TaskReassigned {
        /// The task.
        task: TaskId,
        /// Who may take it now.
        to: Address,
        /// The task's run, for those who follow one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    /// A dead letter or a cancelled task goes back into its queue. Folds in `failed` and
    /// `cancelled`: → `pending`; refused elsewhere (`task.state`).
    #[serde(rename = "task.redriven")]
    TaskRedriven {
        /// The task.
        task: TaskId,
        /// What counts along.
        ties: Ties,
        /// It was `cancelled`, not `failed`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        was_cancelled: bool,
        /// Dependencies that have not completed yet.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked_by: Vec<TaskId>,
    },
    /// The worker is asked to hand the task back at its next safe point, because more urgent work
    /// waits. Folds in `assigned` and `in_progress`.
    #[serde(rename = "task.yield_asked")]
    TaskYieldAsked {
        /// The attempt that is asked.
        lease: AttemptRef,
        /// For which task.
        urgent: TaskId,
    },
    /// A report came too late, or from the wrong worker; nothing changed. Folds everywhere.
    #[serde(rename = "result.refused")]
    ResultRefused {
        /// The attempt it claimed to be.
        lease: AttemptRef,
        /// Why.
        reason: String,
    },

    /// A worker is there, or is there again (its counts stay, what it held is released before).
    #[serde(rename = "worker.registered")]
    WorkerRegistered {
        /// What it is and can.
        spec: Arc<WorkerSpec>,
        /// Its id was never heard of before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        first: bool,
    },
    /// A worker is gone: its connection or process ended, its lease ran out, or it said good-bye.
    #[serde(rename = "worker.lost")]
    WorkerLost {
        /// Which.
        worker: Name,
        /// Why.
        reason: String,
    },
    /// A worker was gone for long enough. What it did stays in the statistics.
    #[serde(rename = "worker.forgotten")]
    WorkerForgotten {
        /// Which.
        worker: Name,
    },
    /// A worker finishes what it has and gets nothing new.
    #[serde(rename = "worker.draining")]
    WorkerDraining {
        /// Which.
        worker: Name,
    },
    /// A worker reported, or earned, a status.
    #[serde(rename = "worker.faulted")]
    WorkerFaulted {
        /// Which.
        worker: Name,
        /// It gets nothing before this instant.
        until: Time,
        /// Why.
        reason: String,
    },
    /// One unit of a worker's capacity is kept for somebody, for a while.
    #[serde(rename = "worker.reserved")]
    WorkerReserved {
        /// Which.
        worker: Name,
        /// For whom.
        holder: Name,
        /// Until when at the latest.
        until: Time,
        /// The pool it was reserved from.
        pool: Name,
    },
    /// A reservation was given back.
    #[serde(rename = "worker.reservation_ended")]
    WorkerReservationEnded {
        /// Which.
        worker: Name,
        /// Whose.
        holder: Name,
    },

    /// A queue gives out nothing until it is resumed.
    #[serde(rename = "queue.paused")]
    QueuePaused {
        /// Which.
        queue: Name,
    },
    /// A queue gives out tasks again.
    #[serde(rename = "queue.resumed")]
    QueueResumed {
        /// Which.
        queue: Name,
    },

    /// A pool exists, or has another strategy.
    #[serde(rename = "pool.defined")]
    PoolDefined {
        /// All of it.
        pool: Pool,
    },
    /// A worker joined.
    #[serde(rename = "pool.joined")]
    PoolJoined {
        /// Which pool.
        pool: Name,
        /// Who.
        worker: Name,
    },
    /// A worker left.
    #[serde(rename = "pool.left")]
    PoolLeft {
        /// Which pool.
        pool: Name,
        /// Who.
        worker: Name,
    },

    /// A run exists and runs. Its tasks follow as `task.submitted`.
    #[serde(rename = "run.started")]
    RunStarted {
        /// Its id.
        run: RunId,
        /// What for.
        goal: String,
        /// Its supervisor.
        supervisor: Name,
        /// The plan, pinned; the items of its steps are in the tasks.
        graph: Arc<Graph>,
        /// Who works, and how work is shared out.
        crew: Arc<Crew>,
        /// Whatever the caller wants to find again.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<Name, Json>,
        /// The idempotency key it came with, and the digest of its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<(Name, u64)>,
        /// Where it stands in its starter's trace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceParent>,
        /// What it may spend.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
    },
    /// A step began; its `total` tasks have consecutive ids from `first`.
    #[serde(rename = "step.started")]
    StepStarted {
        /// The run.
        run: RunId,
        /// The step.
        step: Name,
        /// Its first task; gates have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<TaskId>,
        /// How many tasks.
        total: u32,
        /// When its gate opens with what is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<Time>,
    },
    /// A step ended.
    #[serde(rename = "step.ended")]
    StepEnded {
        /// The run.
        run: RunId,
        /// The step.
        step: Name,
        /// How.
        end: StepEnd,
        /// Its output, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Json>,
    },
    /// A gate's condition holds, or can no longer hold, and the supervisor is to reduce what is
    /// there.
    #[serde(rename = "gate.awaits_supervisor")]
    GateAwaitsSupervisor {
        /// The run.
        run: RunId,
        /// The gate.
        step: Name,
        /// The condition cannot hold any more: what comes is a partial result.
        partial: bool,
    },
    /// All steps ended well.
    #[serde(rename = "run.completed")]
    RunCompleted {
        /// The run.
        run: RunId,
        /// Its result.
        result: Json,
    },
    /// The run cannot reach its end; what there is of a result is kept.
    #[serde(rename = "run.failed")]
    RunFailed {
        /// The run.
        run: RunId,
        /// Why.
        failure: Failure,
        /// A partial result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<Json>,
    },
    /// Somebody stopped the run. Its open tasks were cancelled before.
    #[serde(rename = "run.cancelled")]
    RunCancelled {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A failed or cancelled run goes on: its failed tasks follow as `task.redriven`.
    #[serde(rename = "run.reopened")]
    RunReopened {
        /// The run.
        run: RunId,
    },
    /// A task of a run added steps to it. Folds while the run runs; refused otherwise (`run.state`), and
    /// when the steps do not fit the graph (`graph.invalid`).
    #[serde(rename = "run.extended")]
    RunExtended {
        /// The run.
        run: RunId,
        /// Which attempt said so.
        lease: AttemptRef,
        /// The steps, behind those that are there.
        steps: Arc<Vec<Step>>,
    },
    /// Of something that a run may spend, most is spent. Once for each run.
    #[serde(rename = "budget.warned")]
    BudgetWarned {
        /// The run.
        run: RunId,
    },

    /// Somebody wrote on a blackboard.
    #[serde(rename = "entry.written")]
    EntryWritten {
        /// All of it.
        entry: Arc<Entry>,
        /// The idempotency key it came with, and the digest of its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<(Name, u64)>,
    },
    /// Somebody took an entry for itself.
    #[serde(rename = "entry.claimed")]
    EntryClaimed {
        /// Which.
        entry: EntryId,
        /// Who; nobody when it was given back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Name>,
    },
    /// An entry is gone: its time was over, or its board was full of more important ones.
    #[serde(rename = "entry.forgotten")]
    EntryForgotten {
        /// Which.
        entry: EntryId,
        /// Whose board.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// Why.
        reason: String,
    },

    /// A message was accepted for the recipients it names.
    #[serde(rename = "message.sent")]
    MessageSent {
        /// All of it.
        message: Arc<Message>,
        /// The idempotency key it came with, and the digest of its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<(Name, u64)>,
    },
    /// A recipient has dealt with it.
    #[serde(rename = "message.delivered")]
    MessageDelivered {
        /// Which.
        message: MessageId,
        /// By whom.
        recipient: Name,
    },
    /// A recipient failed on it and will be offered it again.
    #[serde(rename = "message.offered_again")]
    MessageOfferedAgain {
        /// Which.
        message: MessageId,
        /// To whom.
        recipient: Name,
        /// What it said.
        reason: String,
    },
    /// A recipient will not get it.
    #[serde(rename = "message.dead_lettered")]
    MessageDeadLettered {
        /// Which.
        message: MessageId,
        /// Who; nobody when there was no recipient at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recipient: Option<Name>,
        /// Why.
        reason: String,
    },
    /// Its time was over before every recipient had dealt with it.
    #[serde(rename = "message.expired")]
    MessageExpired {
        /// Which.
        message: MessageId,
    },
    /// Kept long enough.
    #[serde(rename = "message.forgotten")]
    MessageForgotten {
        /// Which.
        message: MessageId,
    },
    /// Somebody may be let in.
    #[serde(rename = "credential.created")]
    CredentialCreated {
        /// All of it; of the secret, a digest.
        credential: Arc<Credential>,
    },
    /// A credential is good for nothing any more.
    #[serde(rename = "credential.revoked")]
    CredentialRevoked {
        /// Which.
        id: Name,
    },
    /// Somebody wanted a tool and did not have it.
    #[serde(rename = "tool.missed")]
    ToolMissed {
        /// Which, who and why.
        miss: Arc<Miss>,
        /// Nobody had before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        first: bool,
    },
    /// An idempotency key was remembered long enough.
    #[serde(rename = "receipt.forgotten")]
    ReceiptForgotten {
        /// Which.
        key: Name,
    },
}

/// The wire names of all events.
pub const NAMES: &[&str] = &[
    "task.submitted",
    "task.assigned",
    "task.started",
    "task.progressed",
    "task.completed",
    "attempt.ended",
    "task.failed",
    "task.cancelled",
    "task.unblocked",
    "task.reassigned",
    "task.redriven",
    "task.yield_asked",
    "result.refused",
    "worker.registered",
    "worker.lost",
    "worker.forgotten",
    "worker.draining",
    "worker.faulted",
    "worker.reserved",
    "worker.reservation_ended",
    "queue.paused",
    "queue.resumed",
    "pool.defined",
    "pool.joined",
    "pool.left",
    "run.started",
    "step.started",
    "step.ended",
    "gate.awaits_supervisor",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.reopened",
    "run.extended",
    "budget.warned",
    "entry.written",
    "entry.claimed",
    "entry.forgotten",
    "message.sent",
    "message.delivered",
    "message.offered_again",
    "message.dead_lettered",
    "message.expired",
    "message.forgotten",
    "credential.created",
    "credential.revoked",
    "tool.missed",
    "receipt.forgotten",
];

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    /// All it was for is there.
    Done,
    /// Some of its tasks failed, or its gate cannot open.
    Failed,
    /// What it needs failed, so it never began.
    Skipped,
}

impl Event {
    /// The wire name, as `id` consumers filter by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TaskSubmitted { .. } => "task.submitted",
            Self::TaskAssigned { .. } => "task.assigned",
            Self::TaskStarted { .. } => "task.started",
            Self::TaskProgressed { .. } => "task.progressed",
            Self::RecordNoted { .. } => "record.noted",
            Self::RecordResolved { .. } => "record.resolved",
            Self::TaskCompleted { .. } => "task.completed",
            Self::AttemptEnded { .. } => "attempt.ended",
            Self::TaskFailed { .. } => "task.failed",
            Self::TaskCancelled { .. } => "task.cancelled",
            Self::TaskUnblocked { .. } => "task.unblocked",
            Self::TaskReassigned { .. } => "task.reassigned",
            Self::TaskRedriven { .. } => "task.redriven",
            Self::TaskYieldAsked { .. } => "task.yield_asked",
            Self::ResultRefused { .. } => "result.refused",
            Self::WorkerRegistered { .. } => "worker.registered",
            Self::WorkerLost { .. } => "worker.lost",
            Self::WorkerForgotten { .. } => "worker.forgotten",
            Self::WorkerDraining { .. } => "worker.draining",
            Self::WorkerFaulted { .. } => "worker.faulted",
            Self::WorkerReserved { .. } => "worker.reserved",
            Self::WorkerReservationEnded { .. } => "worker.reservation_ended",
            Self::QueuePaused { .. } => "queue.paused",
            Self::QueueResumed { .. } => "queue.resumed",
            Self::PoolDefined { .. } => "pool.defined",
            Self::PoolJoined { .. } => "pool.joined",
            Self::PoolLeft { .. } => "pool.left",
            Self::RunStarted { .. } => "run.started",
            Self::StepStarted { .. } => "step.started",
            Self::StepEnded { .. } => "step.ended",
            Self::GateAwaitsSupervisor { .. } => "gate.awaits_supervisor",
            Self::RunCompleted { .. } => "run.completed",
            Self::RunFailed { .. } => "run.failed",
            Self::RunCancelled { .. } => "run.cancelled",
            Self::RunReopened { .. } => "run.reopened",
            Self::RunExtended { .. } => "run.extended",
            Self::BudgetWarned { .. } => "budget.warned",
            Self::EntryWritten { .. } => "entry.written",
            Self::EntryClaimed { .. } => "entry.claimed",
            Self::EntryForgotten { .. } => "entry.forgotten",
            Self::MessageSent { .. } => "message.sent",
            Self::MessageDelivered { .. } => "message.delivered",
            Self::MessageOfferedAgain { .. } => "message.offered_again",
            Self::MessageDeadLettered { .. } => "message.dead_lettered",
            Self::MessageExpired { .. } => "message.expired",
            Self::MessageForgotten { .. } => "message.forgotten",
            Self::CredentialCreated { .. } => "credential.created",
            Self::CredentialRevoked { .. } => "credential.revoked",
            Self::ToolMissed { .. } => "tool.missed",
            Self::ReceiptForgotten { .. } => "receipt.forgotten",
        }
    }

    /// The rows that fold it.
    pub fn touches(&self, keys: &mut Vec<Key>) {
        match self {
            Self::TaskSubmitted {
                task,
                spec,
                blocked_by,
                receipt,
            } => {
                keys.extend([Key::Task(*task), Key::Queue(spec.queue.clone()), Key::Tally]);
                keys.extend(spec.of.as_ref().map(|of| Key::Run(of.run)));
                keys.extend(blocked_by.iter().map(|task| Key::Task(*task)));
                keys.extend(receipt.iter().map(|(key, _)| Key::Receipt(key.clone())));
            }
            Self::TaskAssigned { lease, ties, .. }
            | Self::TaskStarted { lease, ties, .. }
            | Self::TaskCompleted { lease, ties, .. }
            | Self::AttemptEnded { lease, ties, .. } => {
                keys.push(Key::Task(lease.task));
                keys.push(Key::Worker(lease.worker.clone()));
                ties.touches(keys);
            }
            Self::TaskFailed { task, ties, .. } | Self::TaskRedriven { task, ties, .. } => {
                keys.push(Key::Task(*task));
                ties.touches(keys);
            }
            Self::TaskCancelled {
                task, ties, lease, ..
            } => {
                keys.push(Key::Task(*task));
                keys.extend(lease.iter().map(|lease| Key::Worker(lease.worker.clone())));
                ties.touches(keys);
            }
            Self::RecordNoted {
                lease,
                record,
                run,
                dues,
            } => {
                keys.push(Key::Task(lease.task));
                if let RecordState::Done { .. } = record.state {
                    keys.push(Key::Record(lease.task, record.key.clone()));
                }
                keys.extend(dues.and(*run).map(Key::Account));
            }
            Self::RecordResolved {
                task, run, dues, ..
            } => {
                keys.push(Key::Task(*task));
                keys.extend(dues.and(*run).map(Key::Account));
            }
            Self::BudgetWarned { run } => keys.push(Key::Account(*run)),
            Self::TaskProgressed { lease, .. } | Self::TaskYieldAsked { lease, .. } => {
                keys.push(Key::Task(lease.task));
            }
            Self::TaskUnblocked { task, .. } | Self::TaskReassigned { task, .. } => {
                keys.push(Key::Task(*task));
            }
            Self::ResultRefused { .. } => keys.push(Key::Tally),
            Self::WorkerRegistered { spec, first } => {
                keys.push(Key::Worker(spec.id.clone()));
                keys.extend(first.then_some(Key::Tally));
            }
            Self::WorkerForgotten { worker } => {
                keys.extend([Key::Worker(worker.clone()), Key::Tally]);
            }
            Self::WorkerLost { worker, .. }
            | Self::WorkerDraining { worker }
            | Self::WorkerFaulted { worker, .. }
            | Self::WorkerReservationEnded { worker, .. }
            | Self::WorkerReserved { worker, .. } => keys.push(Key::Worker(worker.clone())),
            Self::QueuePaused { queue } | Self::QueueResumed { queue } => {
                keys.push(Key::Queue(queue.clone()));
            }
            Self::PoolDefined { pool } => keys.push(Key::Pool(pool.id.clone())),
            Self::PoolJoined { pool, .. } | Self::PoolLeft { pool, .. } => {
                keys.push(Key::Pool(pool.clone()));
            }
            Self::RunStarted {
                run,
                receipt,
                budget,
                ..
            } => {
                keys.extend([Key::Run(*run), Key::Tally]);
                keys.extend(budget.is_some().then_some(Key::Account(*run)));
                keys.extend(receipt.iter().map(|(key, _)| Key::Receipt(key.clone())));
            }
            Self::StepStarted { run, .. }
            | Self::StepEnded { run, .. }
            | Self::RunExtended { run, .. }
            | Self::GateAwaitsSupervisor { run, .. } => keys.push(Key::Run(*run)),
            Self::RunCompleted { run, .. }
            | Self::RunFailed { run, .. }
            | Self::RunCancelled { run, .. }
            | Self::RunReopened { run } => keys.extend([Key::Run(*run), Key::Tally]),
            Self::EntryWritten { entry, receipt } => {
                keys.extend([Key::Entry(entry.id), Key::Board(entry.run)]);
                keys.extend(receipt.iter().map(|(key, _)| Key::Receipt(key.clone())));
            }
            Self::EntryClaimed { entry, .. } => keys.push(Key::Entry(*entry)),
            Self::EntryForgotten { entry, run, .. } => {
                keys.extend([Key::Entry(*entry), Key::Board(*run)]);
            }
            Self::MessageSent { message, receipt } => {
                keys.push(Key::Message(message.id));
                keys.extend(receipt.iter().map(|(key, _)| Key::Receipt(key.clone())));
            }
            Self::MessageDelivered { message, .. }
            | Self::MessageOfferedAgain { message, .. }
            | Self::MessageDeadLettered { message, .. }
            | Self::MessageExpired { message }
            | Self::MessageForgotten { message } => keys.push(Key::Message(*message)),
            Self::CredentialCreated { credential } => {
                keys.extend([Key::Credential(credential.id.clone()), Key::Tally]);
            }
            Self::CredentialRevoked { id } => keys.push(Key::Credential(id.clone())),
            Self::ToolMissed { miss, first } => {
                keys.push(Key::Demand(miss.tool.clone()));
                keys.extend(first.then_some(Key::Tally));
            }
            Self::ReceiptForgotten { key } => keys.push(Key::Receipt(key.clone())),
        }
    }

    /// The run it belongs to, for those who follow one run.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::TaskSubmitted { spec, .. } => spec.of.as_ref().map(|of| of.run),
            Self::TaskAssigned { ties, .. }
            | Self::TaskStarted { ties, .. }
            | Self::TaskCompleted { ties, .. }
            | Self::AttemptEnded { ties, .. }
            | Self::TaskFailed { ties, .. }
            | Self::TaskRedriven { ties, .. }
            | Self::TaskCancelled { ties, .. } => ties.of.as_ref().map(|of| of.run),
            Self::RunStarted { run, .. }
            | Self::StepStarted { run, .. }
            | Self::StepEnded { run, .. }
            | Self::GateAwaitsSupervisor { run, .. }
            | Self::RunCompleted { run, .. }
            | Self::RunFailed { run, .. }
            | Self::RunCancelled { run, .. }
            | Self::RunReopened { run }
            | Self::RunExtended { run, .. }
            | Self::BudgetWarned { run } => Some(*run),
            Self::TaskProgressed { run, .. }
            | Self::RecordNoted { run, .. }
            | Self::RecordResolved { run, .. }
            | Self::TaskReassigned { run, .. } => *run,
            Self::EntryWritten { entry, .. } => entry.run,
            Self::EntryForgotten { run, .. } => *run,
            Self::ToolMissed { miss, .. } => miss.run,
            _ => None,
        }
    }
}

impl Ties {
    fn touches(&self, keys: &mut Vec<Key>) {
        keys.extend([Key::Queue(self.queue.clone()), Key::Tally]);
        keys.extend(self.of.as_ref().map(|of| Key::Run(of.run)));
        keys.extend(self.slot.iter().map(|slot| Key::Slot(slot.clone())));
    }
}
