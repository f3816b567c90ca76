//! What callers put into the wheel's inbox. The inbox is bounded: beyond
//! [`INBOX_MAX`] a caller is told to come back, instead of the engine's memory growing.

use domain::command::Claimant;
use domain::error::Error;
use domain::event::Recorded;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::task::{Task, Waits};
use domain::worker::Worker;
use std::sync::Arc;
use store::{Answer, Claimed, Request};
use tokio::sync::oneshot;

/// Asks that may wait for a turn.
pub const INBOX_MAX: usize = 8_192;
/// Asks taken into one turn, and so into one transaction.
pub const TURN_MAX: usize = 1_000;

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What became of a worker's reports, and the tasks it got or why it got none.
pub type Worked = (Vec<Answer>, Result<Vec<Claimed>, Error>);

/// A caller's ask. Each but the last carries the place its answer goes to.
#[derive(Debug)]
pub enum Ask {
    /// Apply commands, or get rows.
    Apply {
        /// What.
        request: Request,
        /// One answer per thing asked.
        reply: Reply<Vec<Answer>>,
    },
    /// Apply a worker's reports, then give it tasks.
    Work {
        /// The reports.
        request: Request,
        /// Who, and how.
        by: Claimant,
        /// Tasks it wants, at most.
        max: u32,
        /// Milliseconds it waits for the first.
        wait_ms: u64,
        /// One answer per report, and the tasks.
        reply: Reply<Worked>,
    },
    /// Write what is behind, so that a reader sees everything that was acknowledged before.
    Flush {
        /// Rows that cannot be written now, to be laid over what the reader finds.
        reply: Reply<Vec<(Key, Option<Row>)>>,
    },
    /// Why these tasks wait.
    Explain {
        /// Which.
        tasks: Vec<Arc<Task>>,
        /// One reason per task that waits.
        reply: Reply<Vec<Option<Waits>>>,
    },
    /// All workers.
    Workers {
        /// In the order of their names.
        reply: Reply<Vec<Arc<Worker>>>,
    },
    /// The first tasks in line of a queue.
    Peek {
        /// Which.
        queue: Name,
        /// At most so many.
        limit: usize,
        /// In line.
        reply: Reply<Vec<Arc<Task>>>,
    },
    /// Finish: write what is behind and stop.
    Stop,
}

impl Ask {
    /// Answers with an error, whatever was asked.
    pub(crate) fn refuse(self, error: Error) {
        // A caller that no longer waits needs no answer.
        let _ = match self {
            Self::Apply { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Work { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Flush { reply } => reply.send(Err(error)).is_ok(),
            Self::Explain { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Workers { reply } => reply.send(Err(error)).is_ok(),
            Self::Peek { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Stop => true,
        };
    }
}

/// Committed events, for those who follow.
pub(crate) type Committed = Vec<Recorded>;
