//! The one place that decides: a command, the rows it names, an instant and a source of ids give
//! events and an answer.

use crate::command::{Command, Outcome};
use crate::error::Error;
use crate::event::Event;
use crate::id::Ids;
use crate::state::State;
use crate::time::Time;
use crate::{blackboard, credential, demand, message, pool, queue, record, run, task, worker};

/// What was decided. A refusal may have events too: a late result changes nothing, yet is a fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The answer to whoever asked.
    pub outcome: Result<Outcome, Error>,
}

impl Decision {
    pub(crate) fn event(event: Event, outcome: Outcome) -> Self {
        Self {
            events: vec![event],
            outcome: Ok(outcome),
        }
    }

    /// Nothing happened, because it is so already.
    pub(crate) fn answer(outcome: Outcome) -> Self {
        Self {
            events: Vec::new(),
            outcome: Ok(outcome),
        }
    }

    pub(crate) fn refuse(error: Error) -> Self {
        Self {
            events: Vec::new(),
            outcome: Err(error),
        }
    }
}

/// Decides `command`. `state` holds every row that [`Command::needs`] names.
///
/// ```
/// use domain::{command::{Command, Outcome, Submission}, decide::decide, id::CountedIds};
/// use domain::{json::Json, name::Name, state::State, task::TaskSpec, time::Time};
/// let spec = TaskSpec::new(Name::literal("text.stats"), Json::default());
/// let command = Command::TaskSubmit(Submission::new(spec));
/// let decision = decide(&State::default(), &command, Time(1_000), &mut CountedIds::new(1));
/// assert!(matches!(decision.outcome, Ok(Outcome::Task(_))));
/// assert_eq!(decision.events[0].name(), "task.submitted");
/// ```
pub fn decide(state: &State, command: &Command, now: Time, ids: &mut dyn Ids) -> Decision {
    match command {
        Command::TaskSubmit(new) => task::submit(state, new, ids),
        Command::TaskClaim { task, by } => task::claim(state, task, by, now),
        Command::TaskReport { lease, report } => task::report(state, lease, report, now, ids),
        Command::TaskTimeOut(task) => task::time_out(state, task, now, ids),
        Command::TaskCancel { task, reason } => task::cancel(state, task, reason),
        Command::TaskRedrive(task) => task::redrive(state, task),
        Command::TaskReassign { task, to } => task::reassign(state, task, to, now),
        Command::RecordResolve { task, key, finding } => record::resolve(state, task, key, finding),
        Command::TaskPreempt { task, urgent } => task::preempt(state, task, urgent),
        Command::WorkerRegister(spec) => worker::register(state, spec, now),
        Command::WorkerLose {
            worker,
            session,
            reason,
        } => worker::lose(state, worker, *session, reason, now),
        Command::WorkerForget(worker) => worker::forget(state, worker, now),
        Command::WorkerReady(worker) => worker::ready(state, worker),
        Command::WorkerDrain(worker) => worker::drain(state, worker),
        Command::WorkerError { worker, reason } => worker::report_error(state, worker, reason, now),
        Command::QueuePause { queue, paused } => queue::pause(state, queue, *paused),
        Command::PoolDefine { pool, expected } => pool::define(state, pool, *expected),
        Command::PoolJoin { pool, worker } => pool::join(state, pool, worker),
        Command::PoolLeave { pool, worker } => pool::leave(state, pool, worker),
        Command::PoolReserve {
            pool,
            capability,
            holder,
            until,
        } => pool::reserve(state, pool, capability.as_ref(), holder, *until, now),
        Command::PoolUnreserve { worker, holder } => pool::unreserve(state, worker, holder),
        Command::RunStart(new) => run::start(state, new, now, ids),
        Command::RunAdvance(run) => run::advance(state, run, now, ids),
        Command::RunSettle { run, step, output } => run::settle(state, run, step, output),
        Command::RunCancel { run, reason } => run::cancel(state, run, reason),
        Command::RunRetry(run) => run::retry(state, run),
        Command::EntryWrite(new) => blackboard::write(state, new, now, ids),
        Command::EntryClaim {
            entry,
            expected,
            by,
        } => blackboard::claim(state, entry, expected.as_ref(), by.as_ref(), now),
        Command::EntryForget { entry, reason } => blackboard::forget(state, entry, reason),
        Command::MessageSend {
            message,
            recipients,
        } => message::send(state, message, recipients, now, ids),
        Command::MessageSettle {
            message,
            recipient,
            failure,
        } => message::settle(state, message, recipient, failure.as_deref(), now),
        Command::MessageExpire(message) => message::expire(state, message, now),
        Command::CredentialCreate(new) => credential::create(state, new, now),
        Command::CredentialRevoke(id) => credential::revoke(state, id),
        Command::ToolMiss(miss) => demand::miss(state, miss),
        Command::ReceiptForget(key) => match state.receipt(key) {
            Some(receipt) if receipt.due().is_some_and(|due| due <= now) => {
                Decision::event(Event::ReceiptForgotten { key: key.clone() }, Outcome::Done)
            }
            _ => Decision::answer(Outcome::Done),
        },
    }
}
