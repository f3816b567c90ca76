//! The truth. Events are appended and rows are their fold, in one transaction, behind one small
//! port; [`Store::apply`] is written once, over the port.
//!
//! What belongs here: loading, writing, ordering, reading. What does not: any rule about what may
//! happen. A backend has no `match` on a state; it stores what [`domain`] decided.

pub mod apply;
pub mod backend;
pub mod chain;
pub mod conformance;
pub mod index;
pub mod records;
pub mod replay;

pub use apply::{Answer, Applied, Claimed, Op, Request, Store};

use domain::error::Error;
use domain::event::Recorded;
use domain::id::{MessageId, RunId, TaskId};
use domain::state::{Key, Row};
use domain::task::{Place, TaskStatus};
use domain::time::Time;

/// What one transaction writes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The events, encoded; `None` when only rows are written.
    pub frame: Option<Frame<'a>>,
    /// Rows to write, or that are gone. Each reflects every event up to `version`.
    pub rows: &'a [(Key, Option<Row>)],
    /// The position that `rows` reflect: the last event of `frame`.
    pub version: u64,
    /// Rows reflect at least the events up to this position, once this is written.
    pub applied: u64,
}

/// The events of one transaction, as they are stored.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The position of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// One JSON document a line.
    pub body: &'a [u8],
    /// The chain's value after the last.
    pub hash: chain::Hash,
}

/// A frame that was read.
#[derive(Debug, Clone)]
pub struct StoredFrame {
    /// The position of the first event.
    pub first: u64,
    /// The chain's value after the last.
    pub hash: chain::Hash,
    /// One JSON document a line.
    pub body: Vec<u8>,
}

/// Where a store stands when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last event's position; 0 when there is none.
    pub position: u64,
    /// The chain's value after it.
    pub hash: chain::Hash,
    /// Rows reflect at least the events up to this position.
    pub applied: u64,
}

/// A row as it was found: what it folds to, and up to which event.
pub type Versioned = (Option<Row>, u64);

/// What the index keeps about a row that waits or is due.
pub type Hot = (Key, Option<Place>, Option<Time>);

/// The writing half of the port. One owner, one thread.
pub trait Backend: Send {
    /// Where it stands.
    ///
    /// # Errors
    /// The store's own.
    fn head(&mut self) -> Result<Head, Error>;

    /// The rows of these keys, in order, as the last commit that wrote them left them.
    ///
    /// # Errors
    /// The store's own.
    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error>;

    /// Whether every commit is refused, because it was opened to look only.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Writes all of it or nothing, and returns when it is on disk.
    ///
    /// # Errors
    /// [`StoreFull`](domain::error::Code::StoreFull): nothing was written, trying later may work.
    /// [`StoreIo`](domain::error::Code::StoreIo): it is not known what was written; the owner must
    /// stop and open the store anew.
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error>;

    /// Every stored row that waits to be claimed or is due, and every concurrency key.
    ///
    /// # Errors
    /// The store's own.
    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error>;

    /// Drops what only recovery needed: call it when rows reflect every event.
    ///
    /// # Errors
    /// The store's own.
    fn tidy(&mut self) -> Result<(), Error>;

    /// Brings everything into one file, for whoever copies it after a clean end.
    ///
    /// # Errors
    /// The store's own; nothing is lost by one.
    fn gather(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// A reading half, for another thread. It sees what was committed.
    ///
    /// # Errors
    /// The store's own.
    fn reader(&self) -> Result<Box<dyn Reader>, Error>;
}

/// The reading half of the port.
pub trait Reader: Send {
    /// Frames that have events after `after`, in order, up to about `events` events.
    ///
    /// # Errors
    /// The store's own.
    fn frames(&mut self, after: u64, events: usize) -> Result<Vec<StoredFrame>, Error>;

    /// Rows in the order of their keys.
    ///
    /// # Errors
    /// The store's own.
    fn rows(&mut self, query: &Query) -> Result<Vec<(Key, Row)>, Error>;

    /// Events after `after`, at most `limit`, without a gap.
    ///
    /// # Errors
    /// The store's own, or [`StoreCorrupt`](domain::error::Code::StoreCorrupt).
    fn events(&mut self, after: u64, limit: usize) -> Result<Vec<Recorded>, Error> {
        let mut events: Vec<Recorded> = Vec::new();
        for frame in self.frames(after, limit)? {
            for event in chain::decode(&frame)? {
                if event.position <= after || events.len() >= limit {
                    continue;
                }
                let next = after + 1 + events.len() as u64;
                if event.position != next {
                    return Err(chain::missing(next, event.position));
                }
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// A page as it would be read if `behind` had been written: read it with `limit` plus as many rows
/// as are behind.
pub fn overlay(
    query: &Query,
    page: Vec<(Key, Row)>,
    behind: Vec<(Key, Option<Row>)>,
) -> Vec<(Key, Row)> {
    if behind.is_empty() {
        return page;
    }
    let mut rows: std::collections::BTreeMap<Key, Row> = page.into_iter().collect();
    for (key, row) in behind {
        match row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
    backend::memory::select(rows.into_iter().collect(), query)
}

impl Query {
    /// The same query for so many rows more.
    #[must_use]
    pub fn wider(&self, rows: usize) -> Self {
        let mut wider = self.clone();
        match &mut wider {
            Self::Tasks { limit, .. }
            | Self::Runs { limit, .. }
            | Self::Entries { limit, .. }
            | Self::Messages { limit, .. }
            | Self::Records { limit, .. }
            | Self::All { limit, .. } => *limit = limit.saturating_add(rows),
            Self::Workers
            | Self::Pools
            | Self::Queues
            | Self::Credentials
            | Self::Demands
            | Self::Tally => {}
        }
        wider
    }
}

/// Which rows to read. Every list is a page: rows after a key, at most so many.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Tasks, oldest first.
    Tasks {
        /// After this one.
        after: Option<TaskId>,
        /// Up to and with this one.
        last: Option<TaskId>,
        /// Only in this state.
        status: Option<TaskStatus>,
        /// Only of this type.
        kind: Option<String>,
        /// Only with, or last with, this worker.
        worker: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// Runs, newest first.
    Runs {
        /// Before this one.
        before: Option<RunId>,
        /// Only in this state (its wire name).
        status: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// All workers.
    Workers,
    /// All pools.
    Pools,
    /// All queues.
    Queues,
    /// All credentials.
    Credentials,
    /// All tools that are missed.
    Demands,
    /// The statistics, if anything was ever counted.
    Tally,
    /// A board's entries.
    Entries {
        /// Whose.
        run: Option<RunId>,
        /// At most so many.
        limit: usize,
    },
    /// Messages, oldest first.
    Messages {
        /// After this one.
        after: Option<MessageId>,
        /// At most so many.
        limit: usize,
    },
    /// Steps that a task's attempts have done, in the order of their events.
    Records {
        /// Whose.
        task: TaskId,
        /// After this position.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Every row there is, for `doctor`: in pages, by kind.
    All {
        /// After this key.
        after: Option<Key>,
        /// At most so many.
        limit: usize,
    },
}
