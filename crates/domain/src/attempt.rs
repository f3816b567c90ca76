//! The attempt: one try of a task under one lease. Its number is the fencing token.

use crate::error::{Code, Error};
use crate::limits::*;
use crate::name::Name;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// Why an attempt, or a task, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// A code for machines: the worker's own, or one of `attempt.timed_out`, `attempt.lost`, ….
    pub code: String,
    /// What happened, for people. Cut to [`FAILURE_BYTES_MAX`].
    pub message: String,
    /// Another attempt may succeed.
    #[serde(default = "yes")]
    pub retryable: bool,
    /// It was the worker's fault, not the task's: enough of these in a row put it into `error`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worker_fault: bool,
}

fn yes() -> bool {
    true
}

/// What the engine refused, as the failure of whoever needed it.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            retryable: error.code.retryable(),
            ..Self::new(error.code.as_str(), error.message)
        }
    }
}

impl Failure {
    /// A failure that another attempt may mend.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            retryable: true,
            worker_fault: false,
        }
    }

    /// A failure that another attempt would repeat.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self {
            retryable: false,
            ..Self::new(code, message)
        }
    }

    /// A step's call may or may not have happened: no answer came, say. Only somebody who finds out
    /// can go on.
    pub fn in_doubt(message: impl Into<String>) -> Self {
        Self::permanent(Code::RecordInDoubt.as_str(), message)
    }

    pub(crate) fn bounded(mut self) -> Self {
        for text in [&mut self.code, &mut self.message] {
            text.truncate(cut(text).len());
        }
        self
    }
}

/// How an attempt ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The handler said so.
    Failed,
    /// It took longer than the task allows.
    TimedOut,
    /// Its worker is gone.
    Lost,
    /// It was taken back or handed back: a yield, a shutdown, a reassignment.
    Cancelled,
}

/// An attempt's state: `leased` and `running` while its task is leased, then how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Given out, not yet begun.
    Leased,
    /// Begun.
    Running,
    /// Its result was accepted.
    Succeeded,
    /// Ended by its handler.
    Failed,
    /// Ended by the clock.
    TimedOut,
    /// Ended with its worker.
    Lost,
    /// Taken back or handed back.
    Cancelled,
}

impl From<AttemptEnd> for AttemptState {
    fn from(end: AttemptEnd) -> Self {
        match end {
            AttemptEnd::Failed => Self::Failed,
            AttemptEnd::TimedOut => Self::TimedOut,
            AttemptEnd::Lost => Self::Lost,
            AttemptEnd::Cancelled => Self::Cancelled,
        }
    }
}

/// One ended attempt, as it is kept with its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EndedAttempt {
    /// 1, 2, 3, …
    pub attempt: u32,
    /// Who tried.
    pub worker: Name,
    /// How it ended.
    pub state: AttemptState,
    /// When.
    pub ended_at: Time,
    /// Milliseconds from lease to end.
    pub ran_ms: u64,
    /// Why, unless it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Time-limited ownership of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The fencing token.
    pub attempt: u32,
    /// Who holds it.
    pub worker: Name,
    /// Since when.
    pub since: Time,
    /// When it times out.
    pub deadline: Time,
    /// Its place in the queue, should it come back.
    pub queued_at: Time,
    /// It was asked to yield.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yield_asked: bool,
    /// The worker's own number of the request that claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<u64>,
}
