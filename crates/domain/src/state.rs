//! Rows and their fold. A [`State`] is the rows that are loaded; what is not loaded and what does
//! not exist are different things, and deciding over a row that is not loaded is a defect.

use crate::blackboard::{Board, Entry};
use crate::budget::Account;
use crate::command::Receipt;
use crate::credential::Credential;
use crate::demand::Demand;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::id::{EntryId, MessageId, RunId, TaskId};
use crate::message::Message;
use crate::name::Name;
use crate::pool::Pool;
use crate::queue::{Queue, Slot};
use crate::record::Kept;
use crate::run::Run;
use crate::statistics::Tally;
use crate::task::{Place, Task};
use crate::time::Time;
use crate::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A task.
    Task(TaskId),
    /// A run.
    Run(RunId),
    /// A worker.
    Worker(Name),
    /// A queue.
    Queue(Name),
    /// A concurrency key.
    Slot(Name),
    /// A pool.
    Pool(Name),
    /// An idempotency key.
    Receipt(Name),
    /// A blackboard entry.
    Entry(EntryId),
    /// A board's count.
    Board(Option<RunId>),
    /// A run's account.
    Account(RunId),
    /// A message.
    Message(MessageId),
    /// A credential.
    Credential(Name),
    /// A tool that is missed.
    Demand(Name),
    /// The statistics.
    Tally,
    /// A step that a task's attempt has done.
    Record(TaskId, Name),
}

/// A row: what the events on its key fold to. Cloning shares it.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A task.
    Task(Arc<Task>),
    /// A run.
    Run(Arc<Run>),
    /// A worker.
    Worker(Arc<Worker>),
    /// A queue.
    Queue(Arc<Queue>),
    /// A concurrency key.
    Slot(Arc<Slot>),
    /// A pool.
    Pool(Arc<Pool>),
    /// An idempotency key.
    Receipt(Arc<Receipt>),
    /// A blackboard entry.
    Entry(Arc<Entry>),
    /// A board's count.
    Board(Arc<Board>),
    /// A run's account.
    Account(Arc<Account>),
    /// A message.
    Message(Arc<Message>),
    /// A credential.
    Credential(Arc<Credential>),
    /// A tool that is missed.
    Demand(Arc<Demand>),
    /// The statistics.
    Tally(Arc<Tally>),
    /// A step that a task's attempt has done.
    Record(Kept),
}

impl Row {
    /// Folds one event that [touches](Event::touches) `key` into that key's row. `None` before the
    /// first event, and after one that removes the row.
    pub fn evolve(row: Option<Self>, key: &Key, recorded: &Recorded) -> Option<Self> {
        let event = &recorded.event;
        Some(match (row, key) {
            (None, Key::Task(task)) => match event {
                Event::TaskSubmitted {
                    task: new,
                    spec,
                    blocked_by,
                    ..
                } if new == task => {
                    Self::Task(Arc::new(Task::submitted(*task, spec, blocked_by, recorded)))
                }
                _ => return None,
            },
            (None, Key::Run(_)) => match event {
                Event::RunStarted {
                    run,
                    goal,
                    supervisor,
                    graph,
                    crew,
                    metadata,
                    trace,
                    ..
                } => Self::Run(Arc::new(Run {
                    trace: *trace,
                    ..Run::started(*run, goal, supervisor, graph, crew, metadata, recorded.at)
                })),
                _ => return None,
            },
            (None, Key::Worker(_)) => match event {
                Event::WorkerRegistered { spec, .. } => {
                    Self::Worker(Arc::new(Worker::registered(spec, recorded.at)))
                }
                _ => return None,
            },
            (None, Key::Pool(_)) => match event {
                Event::PoolDefined { pool } => Self::Pool(Arc::new(pool.clone())),
                _ => return None,
            },
            (None, Key::Receipt(_)) => Self::Receipt(Arc::new(receipt(recorded)?)),
            (None, Key::Entry(_)) => match event {
                Event::EntryWritten { entry, .. } => Self::Entry(Arc::clone(entry)),
                _ => return None,
            },
            (None, Key::Message(_)) => match event {
                Event::MessageSent { message, .. } => Self::Message(Arc::clone(message)),
                _ => return None,
            },
            (None, Key::Credential(_)) => match event {
                Event::CredentialCreated { credential } => Self::Credential(Arc::clone(credential)),
                _ => return None,
            },
            (None, Key::Demand(_)) => match event {
                Event::ToolMissed { miss, .. } => {
                    Self::Demand(Arc::new(Demand::first(miss, recorded.at)))
                }
                _ => return None,
            },
            (None, Key::Record(..)) => Self::Record(Kept::noted(recorded)?),
            // These exist as soon as something counts on them.
            (None, Key::Queue(_)) => {
                return Self::evolve(Some(Self::Queue(Arc::default())), key, recorded);
            }
            (None, Key::Slot(_)) => {
                return Self::evolve(Some(Self::Slot(Arc::default())), key, recorded);
            }
            (None, Key::Board(_)) => {
                return Self::evolve(Some(Self::Board(Arc::default())), key, recorded);
            }
            (None, Key::Account(_)) => {
                return Self::evolve(Some(Self::Account(Arc::default())), key, recorded);
            }
            (None, Key::Tally) => {
                return Self::evolve(Some(Self::Tally(Arc::default())), key, recorded);
            }
            (Some(Self::Entry(_)), _) if matches!(event, Event::EntryForgotten { .. }) => {
                return None;
            }
            (Some(Self::Message(_)), _) if matches!(event, Event::MessageForgotten { .. }) => {
                return None;
            }
            (Some(Self::Worker(_)), _) if matches!(event, Event::WorkerForgotten { .. }) => {
                return None;
            }
            (Some(Self::Receipt(_)), _) => return None,
            (Some(mut row), _) => {
                match &mut row {
                    Self::Task(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Run(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Worker(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Queue(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Slot(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Pool(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Entry(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Board(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Account(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Message(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Credential(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Demand(row) => Arc::make_mut(row).evolve(recorded),
                    Self::Tally(row) => Arc::make_mut(row).evolve(recorded),
                    // What is done is final.
                    Self::Receipt(_) | Self::Record(_) => {}
                }
                // A concurrency key that nothing holds is nothing.
                if let Self::Slot(slot) = &row
                    && slot.running == 0
                {
                    return None;
                }
                row
            }
        })
    }

    /// Where it waits to be claimed, when it is a task that does.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Task(task) => task.place(),
            _ => None,
        }
    }

    /// When the clock must look at it.
    pub fn due(&self) -> Option<Time> {
        match self {
            Self::Task(task) => task.due(),
            Self::Run(run) => run.due(),
            Self::Worker(worker) => worker.due(),
            Self::Entry(entry) => entry.expires_at,
            Self::Message(message) => message.due(),
            Self::Receipt(receipt) => receipt.due(),
            _ => None,
        }
    }

    /// The row as it is stored.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no row should be able to cause.
    pub fn to_json(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Task(row) => serde_json::to_writer(text, row),
            Self::Run(row) => serde_json::to_writer(text, row),
            Self::Worker(row) => serde_json::to_writer(text, row),
            Self::Queue(row) => serde_json::to_writer(text, row),
            Self::Slot(row) => serde_json::to_writer(text, row),
            Self::Pool(row) => serde_json::to_writer(text, row),
            Self::Receipt(row) => serde_json::to_writer(text, row),
            Self::Entry(row) => serde_json::to_writer(text, row),
            Self::Board(row) => serde_json::to_writer(text, row),
            Self::Account(row) => serde_json::to_writer(text, row),
            Self::Message(row) => serde_json::to_writer(text, row),
            Self::Credential(row) => serde_json::to_writer(text, row),
            Self::Demand(row) => serde_json::to_writer(text, row),
            Self::Tally(row) => serde_json::to_writer(text, row),
            Self::Record(row) => serde_json::to_writer(text, row),
        }
    }

    /// The row of stored bytes.
    ///
    /// # Errors
    /// When the bytes are not a row of this key.
    pub fn from_json(key: &Key, text: &[u8]) -> serde_json::Result<Self> {
        Ok(match key {
            Key::Task(_) => Self::Task(serde_json::from_slice(text)?),
            Key::Run(_) => Self::Run(serde_json::from_slice(text)?),
            Key::Worker(_) => Self::Worker(serde_json::from_slice(text)?),
            Key::Queue(_) => Self::Queue(serde_json::from_slice(text)?),
            Key::Slot(_) => Self::Slot(serde_json::from_slice(text)?),
            Key::Pool(_) => Self::Pool(serde_json::from_slice(text)?),
            Key::Receipt(_) => Self::Receipt(serde_json::from_slice(text)?),
            Key::Entry(_) => Self::Entry(serde_json::from_slice(text)?),
            Key::Board(_) => Self::Board(serde_json::from_slice(text)?),
            Key::Account(_) => Self::Account(serde_json::from_slice(text)?),
            Key::Message(_) => Self::Message(serde_json::from_slice(text)?),
            Key::Credential(_) => Self::Credential(serde_json::from_slice(text)?),
            Key::Demand(_) => Self::Demand(serde_json::from_slice(text)?),
            Key::Tally => Self::Tally(serde_json::from_slice(text)?),
            Key::Record(..) => Self::Record(serde_json::from_slice(text)?),
        })
    }
}

fn receipt(recorded: &Recorded) -> Option<Receipt> {
    use crate::command::Made;
    let at = recorded.at;
    match &recorded.event {
        Event::TaskSubmitted {
            task,
            receipt: Some((_, digest)),
            ..
        } => Some(Receipt {
            digest: *digest,
            at,
            made: Made::Task(*task),
        }),
        Event::RunStarted {
            run,
            receipt: Some((_, digest)),
            ..
        } => Some(Receipt {
            digest: *digest,
            at,
            made: Made::Run(*run),
        }),
        Event::EntryWritten {
            entry,
            receipt: Some((_, digest)),
        } => Some(Receipt {
            digest: *digest,
            at,
            made: Made::Entry(entry.id),
        }),
        Event::MessageSent {
            message,
            receipt: Some((_, digest)),
        } => Some(Receipt {
            digest: *digest,
            at,
            made: Made::Message(message.id),
        }),
        _ => None,
    }
}

/// Mixes ids and names fast. Keys come from ids that nobody outside can choose at will, or from
/// names that are few, so resistance against chosen collisions is not needed here.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
    fn write_u128(&mut self, bits: u128) {
        self.write_u64(bits as u64);
        self.write_u64((bits >> 64) as u64);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Rows by key.
pub type Rows<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

/// The rows that are loaded: `None` for a key is "does not exist", no key is "not loaded".
#[derive(Debug, Clone, Default)]
pub struct State {
    rows: Rows<Option<Row>>,
    /// What the operator allows. Configuration, not a fact: a refusal leaves no event, so that replay
    /// needs none of it.
    pub quotas: Quotas,
}

/// How much one tenant may have open; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Tasks that have not ended.
    pub tasks_open: Option<u64>,
    /// Runs that have not ended.
    pub runs_open: Option<u64>,
    /// Worker ids ever registered; at most [`WORKERS_MAX`](crate::limits::WORKERS_MAX) in any case.
    pub workers: Option<u64>,
}

impl Quotas {
    /// # Errors
    /// [`Code::QuotaExceeded`](crate::error::Code::QuotaExceeded), naming both numbers.
    pub(crate) fn check(what: &str, open: u64, quota: Option<u64>) -> Result<(), Error> {
        match quota {
            Some(quota) if open >= quota => Err(Error::new(
                Code::QuotaExceeded,
                format!("{open} {what}; the quota is {quota}"),
            )),
            _ => Ok(()),
        }
    }
}

macro_rules! typed {
    ($($(#[doc = $doc:literal])* $name:ident($key:ident: $id:ty) -> $row:ident;)*) => {
        $($(#[doc = $doc])*
        pub fn $name(&self, id: &$id) -> Option<&$row> {
            match self.get(&Key::$key(id.clone())) {
                Some(Row::$row(row)) => Some(row),
                _ => None,
            }
        })*
    };
}

impl State {
    // A macro, because nine functions that differ in one word each invite a slip.
    typed! {
        /// The task's row.
        task(Task: TaskId) -> Task;
        /// The run's row.
        run(Run: RunId) -> Run;
        /// The worker's row.
        worker(Worker: Name) -> Worker;
        /// The queue's row.
        queue(Queue: Name) -> Queue;
        /// The concurrency key's row.
        slot(Slot: Name) -> Slot;
        /// The pool's row.
        pool(Pool: Name) -> Pool;
        /// The idempotency key's row.
        receipt(Receipt: Name) -> Receipt;
        /// The entry's row.
        entry(Entry: EntryId) -> Entry;
        /// The account of a run, once something was spent in it or it has a budget.
        account(Account: RunId) -> Account;
        /// The message's row.
        message(Message: MessageId) -> Message;
        /// The credential's row.
        credential(Credential: Name) -> Credential;
        /// The row of a tool that is missed.
        demand(Demand: Name) -> Demand;
    }

    /// The statistics, if anything was ever counted.
    pub fn tally(&self) -> Option<&Tally> {
        match self.get(&Key::Tally) {
            Some(Row::Tally(tally)) => Some(tally),
            _ => None,
        }
    }

    /// A step that an attempt of the task has done.
    pub fn kept(&self, task: &TaskId, key: &Name) -> Option<&Kept> {
        match self.get(&Key::Record(*task, key.clone())) {
            Some(Row::Record(kept)) => Some(kept),
            _ => None,
        }
    }

    /// How many tasks of a concurrency key are leased.
    pub fn slot_running(&self, key: &Name) -> u32 {
        self.slot(key).map_or(0, |slot| slot.running)
    }

    /// A board's count.
    pub fn board(&self, run: Option<RunId>) -> Board {
        match self.get(&Key::Board(run)) {
            Some(Row::Board(board)) => **board,
            _ => Board::default(),
        }
    }

    /// The row of a key, when it is loaded and exists.
    pub fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key).and_then(Option::as_ref)
    }

    /// The row of a key, to be changed in place: `None` when it does not exist.
    pub fn row_mut(&mut self, key: &Key) -> &mut Option<Row> {
        self.rows.entry(key.clone()).or_default()
    }

    /// Whether the key's row, or that there is none, is known.
    pub fn is_loaded(&self, key: &Key) -> bool {
        self.rows.contains_key(key)
    }

    /// Loads a row, or that there is none.
    pub fn put(&mut self, key: Key, row: Option<Row>) {
        self.rows.insert(key, row);
    }

    /// Unloads a row.
    pub fn unload(&mut self, key: &Key) -> Option<Option<Row>> {
        self.rows.remove(key)
    }

    /// Rows that are loaded, "does not exist" included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is loaded.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All that is loaded and exists.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows
            .iter()
            .filter_map(|(key, row)| Some((key, row.as_ref()?)))
    }

    /// Folds `recorded` into one loaded row.
    pub fn evolve(&mut self, key: &Key, recorded: &Recorded) {
        let slot = self.rows.entry(key.clone()).or_default();
        *slot = Row::evolve(slot.take(), key, recorded);
    }
}
