//! What callers put into the wheel's inbox. The inbox is bounded: beyond
//! [`INBOX_MAX`] a caller is told to come back, instead of the engine's memory growing.

use domain::error::Error;
use domain::event::Recorded;
use domain::name::Name;
use domain::task::{Task, Waits};
use domain::worker::Worker;
use std::sync::Arc;
use store::{Answer, Claimed, Request};
use tokio::sync::oneshot;

/// Asks that may wait for a turn.
pub(crate) const INBOX_MAX: usize = 8_192;
/// Asks taken into one turn, and so into one transaction.
pub(crate) const TURN_MAX: usize = 1_000;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What became of a worker's reports, and the tasks it got.
pub(crate) type Worked = (Vec<Answer>, Vec<Claimed>);

/// A caller's ask.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Apply commands, or get rows.
    Apply {
        request: Request,
        reply: Reply<Vec<Answer>>,
    },
    /// Apply a worker's reports, then give it tasks, waiting for the first until `until_ms`.
    Work {
        request: Request,
        worker: Name,
        max: u32,
        starts: bool,
        wait_ms: u64,
        reply: Reply<Worked>,
    },
    /// Write what is behind, so that a reader sees everything that was acknowledged before.
    Flush { reply: Reply<()> },
    /// Why these tasks wait.
    Explain {
        tasks: Vec<Arc<Task>>,
        reply: Reply<Vec<Option<Waits>>>,
    },
    /// All workers.
    Workers { reply: Reply<Vec<Arc<Worker>>> },
    /// The first tasks in line of a queue.
    Peek {
        queue: Name,
        limit: usize,
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
