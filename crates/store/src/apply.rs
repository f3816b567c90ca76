//! Load, decide, fold, write: the one way anything changes.
//!
//! A batch of requests is applied in one transaction. Each command sees what the ones before it
//! did; a run's moves follow in the same transaction. What an acknowledgement waits for is the
//! events. Rows are written behind them, coalesced: a task that is submitted, claimed and completed
//! within the window is one row write. Every read sees the truth all the same, because it is served
//! from the loaded rows, or after a flush; and recovery folds the tail.
//!
//! If the commit fails, everything the batch touched is put back as it was.

use crate::chain;
use crate::index::{Index, Seen};
use crate::{Backend, Commit, Frame, Head, Query, Reader};
use domain::command::{Claimant, Command, Outcome, follow_up};
use domain::decide::decide;
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Event, Origin, Recorded};
use domain::id::{Ids, TaskId};
use domain::state::{Key, Quotas, Row, Rows, State};
use domain::task::Task;
use domain::time::Time;
use domain::worker::Worker;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// Rows kept loaded, about; the rest is read again when it is named.
pub const ROWS_LOADED_MAX: usize = 60_000;
/// Rows that may be behind, about; beyond it the oldest are written with the next commit.
pub const ROWS_BEHIND_MAX: usize = 20_000;
/// Events that recovery may have to fold, about.
pub const EVENTS_BEHIND_MAX: u64 = 200_000;
/// Rows written with one commit while catching up, beyond as many as it changed.
const ROWS_PER_CATCH_UP: usize = 1_000;
/// Moves of runs in one transaction; a run makes at most three per step, so this is never met by a
/// valid graph, and an error in the moves cannot turn into an endless transaction.
const MOVES_MAX: usize = 100_000;
/// Tasks of one class that one claim is refused before it looks no further in that class. They are
/// the first of as many lanes, and what forbids one, such as that a preferred worker has room,
/// mostly forbids them all.
const PASSED_OVER_MAX: usize = 100;

/// One thing asked for.
#[derive(Debug, Clone)]
pub enum Op {
    /// A command.
    Command(Command),
    /// As many tasks as a worker may have, at most `max`.
    Claim {
        /// Who, and how.
        by: Claimant,
        /// At most so many.
        max: u32,
    },
    /// The current form of a row.
    Get(Key),
}

/// Things asked for together, in order, by one caller.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Where it comes from, for its events.
    pub origin: Origin,
    /// The things.
    pub ops: Vec<Op>,
}

impl Request {
    /// What the engine asks of itself, or a caller that does not say who it is.
    pub fn own(ops: Vec<Op>) -> Self {
        Self {
            origin: Origin::default(),
            ops,
        }
    }
}

/// A task that was leased, with all its holder needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lease.
    pub lease: AttemptRef,
    /// The task, as it is now.
    pub task: Arc<Task>,
}

/// The answer to an [`Op`].
#[derive(Debug, Clone)]
pub enum Answer {
    /// To a command.
    Outcome(Result<Outcome, Error>),
    /// To a claim.
    Claimed(Result<Vec<Claimed>, Error>),
    /// To a get.
    Row(Result<Option<Row>, Error>),
}

/// What a batch did.
#[derive(Debug, Default)]
pub struct Applied {
    /// For each request its answers, in order.
    pub answers: Vec<Vec<Answer>>,
    /// The events, in order, committed.
    pub events: Vec<Recorded>,
    /// Their lines of JSON, as they stand in the log.
    pub body: Vec<u8>,
}

/// A row as it was before the batch touched it: its value, and whether it was behind already.
#[derive(Debug)]
struct Before {
    row: Option<Row>,
    was_behind: bool,
}

/// The store: rows, index and backend, with one owner.
pub struct Store {
    backend: Box<dyn Backend>,
    ids: Box<dyn Ids + Send>,
    state: State,
    index: Index,
    head: u64,
    hash: chain::Hash,
    /// Rows that the backend has not seen, with the first event it missed, oldest first.
    behind: VecDeque<(u64, Key)>,
    is_behind: Rows<()>,
    /// Loaded rows, about in the order they came, for unloading.
    loaded: VecDeque<Key>,
    rows_loaded_max: usize,
    rows_behind_max: usize,
    rows_per_catch_up: usize,
    batch: Batch,
}

/// What the transaction under way has done.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<Recorded>,
    body: Vec<u8>,
    /// The chain's value after the last of `events`.
    hash: chain::Hash,
    before: Rows<Before>,
    keys: Vec<Key>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a backend: folds the events its rows have not seen, and fills the index.
    ///
    /// # Errors
    /// The backend's own, except that a full disk does not keep a store from being read; or [`Code::StoreCorrupt`].
    pub fn open(mut backend: Box<dyn Backend>, ids: Box<dyn Ids + Send>) -> Result<Self, Error> {
        let Head {
            position,
            hash,
            applied,
        } = backend.head()?;
        if applied > position {
            let text = format!("rows reflect event {applied}, but event {position} is the last");
            return Err(Error::new(Code::StoreCorrupt, text));
        }
        let mut index = Index::default();
        let mut slots = Vec::new();
        backend.hot(&mut |(key, place, due)| match key {
            Key::Slot(_) => slots.push(key),
            key => index.insert(&key, place, due),
        })?;
        // What is full, and what is paused, is not looked at by a claim. A queue may be paused before
        // anything waits in it.
        let slots = slots.iter().cloned().zip(backend.load(&slots)?);
        let mut rows: Vec<(Key, Option<Row>)> = slots.map(|(key, (row, _))| (key, row)).collect();
        let queues = backend.reader()?.rows(&Query::Queues)?;
        rows.extend(queues.into_iter().map(|(key, row)| (key, Some(row))));
        for (key, row) in rows {
            index.update(&key, Seen::of(&key, None), Seen::of(&key, row.as_ref()));
        }
        let mut store = Self {
            backend,
            ids,
            state: State::default(),
            index,
            head: position,
            hash,
            behind: VecDeque::new(),
            is_behind: Rows::default(),
            loaded: VecDeque::new(),
            rows_loaded_max: ROWS_LOADED_MAX,
            rows_behind_max: ROWS_BEHIND_MAX,
            rows_per_catch_up: ROWS_PER_CATCH_UP,
            batch: Batch::default(),
        };
        store.recover(applied)?;
        if store.is_read_only() {
            return Ok(store);
        }
        match store.flush().and_then(|()| store.backend.tidy()) {
            // Reading goes on with a full disk; the rows stay behind, as they would in `apply`.
            Err(error) if error.code == Code::StoreFull => Ok(store),
            done => done.map(|()| store),
        }
    }

    /// Sets what the tenant may have open.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.state.quotas = quotas;
    }

    /// Makes the write-behind window and the cache small, so that tests meet their edges.
    pub fn set_windows(&mut self, rows_loaded_max: usize, rows_behind_max: usize) {
        self.rows_loaded_max = rows_loaded_max;
        self.rows_behind_max = rows_behind_max;
        // One by one, so that some rows are written and others are not.
        self.rows_per_catch_up = 1;
    }

    /// Folds the tail of the log into the rows that have not seen it.
    fn recover(&mut self, applied: u64) -> Result<(), Error> {
        let mut reader = self.backend.reader()?;
        let mut versions: Rows<u64> = Rows::default();
        let mut at = applied;
        while at < self.head {
            let events = reader.events(at, 10_000)?;
            if events.is_empty() {
                return Err(Error::new(
                    Code::StoreCorrupt,
                    format!("event {} is missing", at + 1),
                ));
            }
            for recorded in &events {
                let mut keys = Vec::new();
                recorded.event.touches(&mut keys);
                for key in keys {
                    self.recover_row(&key, recorded, &mut versions)?;
                }
                at = recorded.position;
            }
            self.index.settle();
        }
        // Beside a writer, there may be more by now than when the head was read.
        self.head = at;
        // Who was served when is not stored; the tail would tell of a few, by chance.
        self.begin_turns_anew();
        Ok(())
    }

    /// Forgets who was served when, as opening does: whose turn it is begins anew, by rank. For tests
    /// that compare a store with one that was opened more often.
    pub fn begin_turns_anew(&mut self) {
        self.index.begin_anew();
    }

    fn recover_row(
        &mut self,
        key: &Key,
        recorded: &Recorded,
        versions: &mut Rows<u64>,
    ) -> Result<(), Error> {
        if !versions.contains_key(key) {
            let mut found = self.backend.load(std::slice::from_ref(key))?;
            let (row, version) = found.pop().unwrap_or_default();
            self.state.put(key.clone(), row);
            self.loaded.push_back(key.clone());
            versions.insert(key.clone(), version);
        }
        if versions
            .get(key)
            .is_some_and(|version| *version >= recorded.position)
        {
            return Ok(());
        }
        let before = Seen::of(key, self.state.get(key));
        self.state.evolve(key, recorded);
        let after = Seen::of(key, self.state.get(key));
        self.index.update(key, before, after);
        self.mark_behind(key, recorded.position);
        Ok(())
    }

    /// The last event's position.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The chain's value after it.
    pub fn hash(&self) -> chain::Hash {
        self.hash
    }

    /// The index: what waits and what is due.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Moves tasks whose instant has come into their queues.
    pub fn promote(&mut self, now: Time) {
        self.index.promote(now);
    }

    /// A reading half that sees what was committed; [`flush`](Self::flush) first to see all rows.
    ///
    /// # Errors
    /// The backend's own.
    pub fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        self.backend.reader()
    }

    /// The current form of a row.
    ///
    /// # Errors
    /// The backend's own.
    pub fn get(&mut self, key: &Key) -> Result<Option<Row>, Error> {
        self.load(std::slice::from_ref(key))?;
        Ok(self.state.get(key).cloned())
    }

    /// Applies requests in one transaction and returns when it is on disk.
    ///
    /// # Errors
    /// When nothing was written; the rows are as they were before. A refusal of one command is not
    /// an error here, but its answer.
    pub fn apply(&mut self, requests: &[Request], now: Time) -> Result<Applied, Error> {
        self.index.promote(now);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let mut own = Vec::with_capacity(request.ops.len());
            for op in &request.ops {
                match self.run(op, &request.origin, now) {
                    Ok(answer) => own.push(answer),
                    Err(error) => {
                        self.undo();
                        return Err(error);
                    }
                }
            }
            answers.push(own);
        }
        if let Err(error) = self.commit() {
            self.undo();
            return Err(error);
        }
        let events = std::mem::take(&mut self.batch.events);
        self.batch.before.clear();
        let room = self.batch.body.len();
        let body = std::mem::replace(&mut self.batch.body, Vec::with_capacity(room));
        self.index.settle();
        self.unload_some();
        Ok(Applied {
            answers,
            events,
            body,
        })
    }

    fn run(&mut self, op: &Op, origin: &Origin, now: Time) -> Result<Answer, Error> {
        Ok(match op {
            Op::Command(command) => Answer::Outcome(self.command(command, origin, now)?),
            Op::Claim { by, max } => Answer::Claimed(self.claim(by, *max, origin, now)?),
            Op::Get(key) => Answer::Row(Ok(self.get(key)?)),
        })
    }

    /// Decides a command and folds what it decided; then the moves that runs make by themselves.
    fn command(
        &mut self,
        command: &Command,
        origin: &Origin,
        now: Time,
    ) -> Result<Result<Outcome, Error>, Error> {
        let mut runs = Vec::new();
        let outcome = self.decide(command, origin, now, &mut runs)?;
        let mut moves = 0;
        while let Some(key) = runs.pop() {
            while let Some(next) = follow_up(&self.state, &key, now) {
                moves += 1;
                if moves > MOVES_MAX {
                    return Err(Error::new(Code::Internal, "a run does not come to rest"));
                }
                if let Err(error) = self.decide(&next, origin, now, &mut Vec::new())? {
                    return Err(Error::new(
                        Code::Internal,
                        format!("a run's move failed: {error}"),
                    ));
                }
            }
        }
        Ok(outcome)
    }

    fn decide(
        &mut self,
        command: &Command,
        origin: &Origin,
        now: Time,
        runs: &mut Vec<Key>,
    ) -> Result<Result<Outcome, Error>, Error> {
        let mut keys = std::mem::take(&mut self.batch.keys);
        loop {
            keys.clear();
            command.needs(&self.state, now, &mut keys);
            keys.retain(|key| !self.state.is_loaded(key));
            if keys.is_empty() {
                break;
            }
            self.load(&keys)?;
        }
        self.batch.keys = keys;
        let decision = decide(&self.state, command, now, &mut *self.ids);
        for event in decision.events {
            self.record(event, origin, now, runs)?;
        }
        Ok(decision.outcome)
    }

    /// Gives an event its place and folds it into every row it touches.
    fn record(
        &mut self,
        event: Event,
        origin: &Origin,
        now: Time,
        runs: &mut Vec<Key>,
    ) -> Result<(), Error> {
        let position = self.head + self.batch.events.len() as u64 + 1;
        let recorded = Recorded {
            position,
            at: now,
            cause: origin.cause.clone(),
            by: origin.by.clone(),
            event,
        };
        let mut keys = std::mem::take(&mut self.batch.keys);
        keys.clear();
        recorded.event.touches(&mut keys);
        for key in &keys {
            if !self.state.is_loaded(key) {
                if creates(&recorded.event, key) {
                    // Its id is fresh, or `decide` has seen that it is free.
                    self.state.put(key.clone(), None);
                    self.loaded.push_back(key.clone());
                } else {
                    self.load(std::slice::from_ref(key))?;
                }
            }
            let row = self.state.row_mut(key);
            if !self.batch.before.contains_key(key) {
                // The first touch in this batch; whatever follows finds the row behind already.
                let was_behind = self.is_behind.insert(key.clone(), ()).is_some();
                if !was_behind {
                    self.behind.push_back((position, key.clone()));
                }
                let row = row.clone();
                let before = Before { row, was_behind };
                self.batch.before.insert(key.clone(), before);
            }
            // What the index follows is taken out first: a second hold on the row would make its
            // fold copy it, with all that a worker holds, once per event.
            let seen = Seen::of(key, row.as_ref());
            *row = Row::evolve(row.take(), key, &recorded);
            self.index.update(key, seen, Seen::of(key, row.as_ref()));
            if matches!(key, Key::Run(_)) && !runs.contains(key) {
                runs.push(key.clone());
            }
        }
        self.batch.keys = keys;
        let start = self.batch.body.len();
        serde_json::to_writer(&mut self.batch.body, &recorded)
            .map_err(|fault| Error::new(Code::Internal, format!("an event: {fault}")))?;
        debug_assert!(
            !self.batch.body[start..].contains(&b'\n'),
            "an event is one line"
        );
        let before = if self.batch.events.is_empty() {
            &self.hash
        } else {
            &self.batch.hash
        };
        self.batch.hash = chain::link(before, &self.batch.body[start..]);
        self.batch.body.push(b'\n');
        self.batch.events.push(recorded);
        Ok(())
    }

    /// The first tasks in line that `decide` gives this worker.
    fn claim(
        &mut self,
        by: &Claimant,
        max: u32,
        origin: &Origin,
        now: Time,
    ) -> Result<Result<Vec<Claimed>, Error>, Error> {
        let key = Key::Worker(by.worker.clone());
        self.load(std::slice::from_ref(&key))?;
        let Some(Row::Worker(holder)) = self.state.get(&key) else {
            let text = format!("there is no worker “{}”", by.worker);
            return Ok(Err(Error::new(Code::WorkerUnknown, text)));
        };
        if by.again {
            // What another life of this id holds is not this one's, whatever its numbers are.
            if let Err(error) = holder.is_session(by.session) {
                return Ok(Err(error));
            }
            let holder = Arc::clone(holder);
            let again = self.claimed_before(&holder, by)?;
            if !again.is_empty() {
                return Ok(Ok(again));
            }
        }
        let Some(Row::Worker(holder)) = self.state.get(&key) else {
            return Ok(Ok(Vec::new()));
        };
        let mut classes = self.index.eligible(&holder.spec);
        // A long queue's tasks are not loaded: read all that this claim will look at together.
        let soon = self
            .index
            .soon(&classes, max.min(holder.free(now)) as usize);
        let soon: Vec<Key> = soon.into_iter().map(Key::Task).collect();
        self.load(&soon)?;
        let mut claimed = Vec::new();
        let mut passed: BTreeMap<u32, HashSet<TaskId>> = BTreeMap::new();
        let mut after = None;
        while claimed.len() < max as usize {
            let Some(next) = self.index.next_after(&classes, after) else {
                break;
            };
            after = Some(next);
            if passed
                .get(&next.class)
                .is_some_and(|passed| passed.contains(&next.task))
            {
                continue;
            }
            let command = Command::TaskClaim {
                task: next.task,
                by: by.clone(),
            };
            match self.command(&command, origin, now)? {
                Ok(Outcome::Leased(lease)) => {
                    if let Some(Row::Task(task)) = self.state.get(&Key::Task(lease.task)) {
                        let task = Arc::clone(task);
                        claimed.push(Claimed { lease, task });
                    }
                    // Whose turn it is has changed: look from the first again.
                    after = None;
                }
                Ok(_) => break,
                Err(error) if error.code == Code::NotClaimable => {
                    let passed = passed.entry(next.class).or_default();
                    passed.insert(next.task);
                    if passed.len() >= PASSED_OVER_MAX {
                        classes.retain(|class| *class != next.class);
                    }
                }
                Err(error) if error.code == Code::WorkerFull && !claimed.is_empty() => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(claimed))
    }

    /// What this very request got before: its answer was lost on its way.
    fn claimed_before(&mut self, holder: &Worker, by: &Claimant) -> Result<Vec<Claimed>, Error> {
        let keys: Vec<Key> = holder.holds.keys().map(|task| Key::Task(*task)).collect();
        self.load(&keys)?;
        let held = keys.iter().filter_map(|key| match self.state.get(key) {
            Some(Row::Task(task)) => Some((task, task.lease()?)),
            _ => None,
        });
        let same = held.filter(|(_, lease)| lease.claim == by.claim);
        let claimed = same.map(|(task, lease)| Claimed {
            lease: AttemptRef {
                task: task.id,
                attempt: lease.attempt,
                worker: lease.worker.clone(),
            },
            task: Arc::clone(task),
        });
        Ok(claimed.collect())
    }

    fn load(&mut self, keys: &[Key]) -> Result<(), Error> {
        let missing: Vec<Key> = keys
            .iter()
            .filter(|key| !self.state.is_loaded(key))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let found = self.backend.load(&missing)?;
        for (key, (row, _)) in missing.into_iter().zip(found) {
            self.loaded.push_back(key.clone());
            self.state.put(key, row);
        }
        Ok(())
    }

    fn mark_behind(&mut self, key: &Key, position: u64) {
        if self.is_behind.insert(key.clone(), ()).is_none() {
            self.behind.push_back((position, key.clone()));
        }
    }

    /// Writes the batch's events, and of the rows that are behind as many as keep the window small.
    fn commit(&mut self) -> Result<(), Error> {
        let count = self.batch.events.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let head = self.head + count;
        let hash = self.batch.hash;
        let oldest = self.behind.front().map_or(head, |(position, _)| *position);
        let too_far = head - oldest > EVENTS_BEHIND_MAX;
        let rows = if self.behind.len() > self.rows_behind_max || too_far {
            self.batch.before.len() + self.rows_per_catch_up
        } else {
            0
        };
        self.write(head, Some((count, hash)), rows)?;
        self.head = head;
        self.hash = hash;
        Ok(())
    }

    /// One transaction: a frame, if there is one, and the `rows` oldest rows that are behind.
    fn write(
        &mut self,
        head: u64,
        frame: Option<(u64, chain::Hash)>,
        rows: usize,
    ) -> Result<(), Error> {
        let rows = rows.min(self.behind.len());
        let batch: Vec<(Key, Option<Row>)> = self
            .behind
            .iter()
            .take(rows)
            .map(|(_, key)| (key.clone(), self.state.get(key).cloned()))
            .collect();
        let applied = self
            .behind
            .get(rows)
            .map_or(head, |(position, _)| position - 1);
        self.backend.commit(&Commit {
            frame: frame.map(|(count, hash)| Frame {
                first: self.head + 1,
                count,
                body: &self.batch.body,
                hash,
            }),
            rows: &batch,
            version: head,
            applied,
        })?;
        for (_, key) in self.behind.drain(..rows) {
            self.is_behind.remove(&key);
        }
        Ok(())
    }

    /// Writes every row that is behind, so that readers see all of them.
    ///
    /// # Errors
    /// The backend's own; nothing is lost, the rows stay behind.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.behind.is_empty() {
            return Ok(());
        }
        self.write(self.head, None, self.behind.len())
    }

    /// Writes what is behind and brings everything into one file: the clean end.
    ///
    /// # Errors
    /// The backend's own; nothing is lost, the next opening finds it.
    pub fn close(&mut self) -> Result<(), Error> {
        if self.is_read_only() {
            return Ok(());
        }
        self.flush()?;
        self.backend.gather()
    }

    /// Whether every commit is refused, because the store was opened to look only.
    pub fn is_read_only(&self) -> bool {
        self.backend.is_read_only()
    }

    /// Writes every row that is behind; those that cannot be written now (the disk is full, the store
    /// is read only) come back, for [`overlay`](crate::overlay) over what a reader finds.
    ///
    /// # Errors
    /// The backend's own.
    pub fn settle(&mut self) -> Result<Vec<(Key, Option<Row>)>, Error> {
        let flushed = if self.is_read_only() {
            Ok(())
        } else {
            self.flush()
        };
        match flushed {
            Err(error) if error.code != Code::StoreFull => Err(error),
            _ => {
                let row = |(_, key): &(u64, Key)| (key.clone(), self.state.get(key).cloned());
                Ok(self.behind.iter().map(row).collect())
            }
        }
    }

    /// Rows that the backend has not seen.
    pub fn rows_behind(&self) -> usize {
        self.behind.len()
    }

    /// Rows that are loaded.
    pub fn rows_loaded(&self) -> usize {
        self.state.len()
    }

    /// Puts everything the batch touched back as it was.
    fn undo(&mut self) {
        for (key, before) in std::mem::take(&mut self.batch.before) {
            let now = self.state.unload(&key).flatten();
            let after = Seen::of(&key, before.row.as_ref());
            self.index.update(&key, Seen::of(&key, now.as_ref()), after);
            self.state.put(key.clone(), before.row);
            if !before.was_behind {
                self.is_behind.remove(&key);
            }
        }
        self.index.undo();
        let is_behind = &self.is_behind;
        let head = self.head;
        self.behind
            .retain(|(position, key)| *position <= head && is_behind.contains_key(key));
        self.batch.events.clear();
        self.batch.body.clear();
    }

    /// Unloads rows while there are too many: those that came first, unless they are behind, or of
    /// the few kinds that every command names.
    fn unload_some(&mut self) {
        let mut tries = self.loaded.len().min(2 * self.rows_loaded_max);
        while self.state.len() > self.rows_loaded_max && tries > 0 {
            tries -= 1;
            let Some(key) = self.loaded.pop_front() else {
                return;
            };
            let stays = matches!(
                key,
                Key::Tally | Key::Queue(_) | Key::Worker(_) | Key::Slot(_)
            );
            if stays || self.is_behind.contains_key(&key) {
                self.loaded.push_back(key);
            } else {
                self.state.unload(&key);
            }
        }
    }
}

/// Whether the event is the first on this key.
fn creates(event: &Event, key: &Key) -> bool {
    match (event, key) {
        (Event::TaskSubmitted { task, .. }, Key::Task(key)) => task == key,
        (Event::RunStarted { run, .. }, Key::Run(key)) => run == key,
        (Event::EntryWritten { entry, .. }, Key::Entry(key)) => entry.id == *key,
        (Event::MessageSent { message, .. }, Key::Message(key)) => message.id == *key,
        // It is done once, and `decide` has seen that it was not.
        (Event::RecordNoted { .. }, Key::Record(..)) => true,
        _ => false,
    }
}
