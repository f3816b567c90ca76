//! One suite for every backend: what the port promises, as functions over a [`Factory`].
//!
//! A backend's test file is one line, [`conformance!`](crate::conformance!), which makes a test of
//! each function. What a backend cannot do it must say in its errors; there is nothing to skip.

pub mod script;

use crate::replay::replay;
use crate::{Answer, Backend, Commit, Frame, Op, Query, Request, Store, StoredFrame, chain};
use domain::blackboard::NewEntry;
use domain::command::{Claimant, Command, Outcome, Report, Submission};
use domain::error::{Error, Who};
use domain::event::{Event, Recorded};
use domain::id::{EntryId, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::state::{Key, Row, State};
use domain::task::{TaskSpec, TaskStatus};
use domain::time::Time;
use domain::worker::WorkerSpec;
use script::{Script, SharedIds};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Makes backends over one and the same content, empty at first. The one before is dropped, with
/// its readers, before another is opened.
pub trait Factory {
    /// Opens it, as a process that starts would.
    ///
    /// # Errors
    /// The backend's own.
    fn open(&self) -> Result<Box<dyn Backend>, Error>;
}

/// Makes a module of tests, one for each promise: `conformance!(memory, Shared::default())`.
#[macro_export]
macro_rules! conformance {
    ($backend:ident, $factory:expr) => {
        $crate::conformance!(@tests $backend, $factory, [
            an_empty_store_is_empty,
            frames_follow_each_other,
            readers_follow_writers,
            a_refused_commit_leaves_nothing,
            every_kind_of_row_reads_back,
            rows_that_are_gone_stay_gone,
            hot_rows_are_those_that_wait_or_are_due,
            queries_filter_and_page,
            reopening_changes_nothing,
            what_is_acknowledged_survives,
            work_flows,
            a_crash_changes_nothing,
            of_two_writers_one_wins,
        ]);
    };
    (@tests $backend:ident, $factory:expr, [$($case:ident,)*]) => {
        mod $backend {
            use super::*;
            $(#[test]
            fn $case() {
                $crate::conformance::$case(&$factory);
            })*
        }
    };
}

const NOW: Time = Time(1_700_000_000_000);

fn name(text: &'static str) -> Name {
    Name::literal(text)
}

fn store(factory: &dyn Factory, ids: &SharedIds) -> Store {
    Store::open(factory.open().unwrap(), Box::new(ids.clone())).unwrap()
}

fn submit(kind: &'static str) -> Op {
    let spec = TaskSpec::new(name(kind), Json::default());
    Op::Command(Command::TaskSubmit(Submission::new(spec)))
}

fn request(ops: Vec<Op>) -> Request {
    Request::own(ops)
}

/// Applies and answers, one answer an op.
fn answers(store: &mut Store, now: Time, ops: Vec<Op>) -> Vec<Answer> {
    let mut applied = store.apply(&[request(ops)], now).unwrap();
    applied.answers.remove(0)
}

fn outcomes(store: &mut Store, now: Time, ops: Vec<Op>) -> Vec<Outcome> {
    let outcome = |answer| match answer {
        Answer::Outcome(Ok(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    answers(store, now, ops).into_iter().map(outcome).collect()
}

/// The row's text.
fn text(row: &Row) -> String {
    let mut json = Vec::new();
    row.to_json(&mut json).unwrap();
    String::from_utf8(json).unwrap()
}

fn all(limit: usize) -> Query {
    Query::All { after: None, limit }
}

/// Rows as text.
type Rows = Vec<(Key, String)>;

/// Everything stored: the frames and the rows.
fn content(backend: &dyn Backend) -> (Vec<(u64, chain::Hash, Vec<u8>)>, Rows) {
    let mut reader = backend.reader().unwrap();
    let frames = reader.frames(0, usize::MAX).unwrap().into_iter();
    let rows = reader.rows(&all(usize::MAX)).unwrap().into_iter();
    (
        frames.map(|f| (f.first, f.hash, f.body)).collect(),
        rows.map(|(key, row)| (key, text(&row))).collect(),
    )
}

/// A store in which much has happened, all of it written; its rows as they should be.
fn eventful(factory: &dyn Factory, seed: u64, batches: usize) -> Rows {
    let mut store = store(factory, &SharedIds::new(seed));
    store.set_windows(10, 5);
    let mut script = Script::new(seed);
    let mut keys = Vec::new();
    for _ in 0..batches {
        for recorded in script.step(&mut store).unwrap().events {
            recorded.event.touches(&mut keys);
        }
    }
    store.flush().unwrap();
    let keys: BTreeSet<Key> = keys.into_iter().collect();
    let mut rows = Vec::new();
    for key in keys {
        if let Some(row) = store.get(&key).unwrap() {
            rows.push((key, text(&row)));
        }
    }
    rows
}

/// [`eventful`] with a seed after which there are rows of all eleven kinds: found in memory.
fn varied(factory: &dyn Factory, batches: usize) -> Rows {
    let has_all = |seed: &u64| {
        let memory = Fresh(crate::backend::memory::Memory::default());
        let rows = eventful(&memory, *seed, batches);
        rows.iter()
            .map(|(key, _)| kind(key))
            .collect::<BTreeSet<_>>()
            .len()
            == 14
    };
    let seed = (0..500).find(has_all);
    eventful(factory, seed.expect("some seed makes all kinds"), batches)
}

/// Writes queue events straight through the port, a frame at a time.
struct Writer {
    backend: Box<dyn Backend>,
    state: State,
    head: u64,
    hash: chain::Hash,
}

impl Writer {
    fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend,
            state: State::default(),
            head: 0,
            hash: chain::GENESIS,
        }
    }

    fn encode(&self, events: &[Event]) -> (Vec<Recorded>, Vec<u8>, chain::Hash) {
        let mut body = Vec::new();
        let mut recorded = Vec::new();
        for (position, event) in (self.head + 1..).zip(events) {
            let event = Recorded {
                position,
                at: NOW,
                cause: None,
                by: None,
                event: event.clone(),
            };
            serde_json::to_writer(&mut body, &event).unwrap();
            body.push(b'\n');
            recorded.push(event);
        }
        let hash = chain::lines(&body).fold(self.hash, |hash, line| chain::link(&hash, line));
        (recorded, body, hash)
    }

    /// Writes the events and all rows they touch.
    fn commit(&mut self, events: &[Event]) {
        let (recorded, body, hash) = self.encode(events);
        let mut touched = BTreeSet::new();
        for event in &recorded {
            let mut keys = Vec::new();
            event.event.touches(&mut keys);
            keys.iter().for_each(|key| self.state.evolve(key, event));
            touched.extend(keys);
        }
        let row = |key: Key| (key.clone(), self.state.get(&key).cloned());
        let rows: Vec<_> = touched.into_iter().map(row).collect();
        let head = self.head + events.len() as u64;
        let commit = Commit {
            frame: Some(Frame {
                first: self.head + 1,
                count: events.len() as u64,
                body: &body,
                hash,
            }),
            rows: &rows,
            version: head,
            applied: head,
        };
        self.backend.commit(&commit).unwrap();
        (self.head, self.hash) = (head, hash);
    }
}

fn paused(queue: &'static str) -> Event {
    Event::QueuePaused { queue: name(queue) }
}

fn counted(events: usize) -> Vec<Event> {
    vec![paused("slow"); events]
}

/// Nothing is there before something was written, and that is no error.
pub fn an_empty_store_is_empty(factory: &dyn Factory) {
    let mut backend = factory.open().unwrap();
    let head = backend.head().unwrap();
    assert_eq!((head.position, head.applied), (0, 0));
    assert_eq!(head.hash, chain::GENESIS);
    let keys = [Key::Tally, Key::Task(TaskId::new(1)), Key::Board(None)];
    assert_eq!(backend.load(&keys).unwrap(), vec![(None, 0); 3]);
    assert_eq!(backend.load(&[]).unwrap(), []);
    backend.hot(&mut |hot| panic!("{hot:?}")).unwrap();
    backend.tidy().unwrap();
    let mut reader = backend.reader().unwrap();
    assert!(reader.frames(0, 10).unwrap().is_empty());
    assert!(reader.events(5, 10).unwrap().is_empty());
    for query in queries(usize::MAX) {
        assert_eq!(reader.rows(&query).unwrap(), [], "{query:?}");
    }
}

/// Frames come in order, gap-free, from any position on, in pages of any size; so do events.
// S4-132: what follows any position can be read again, and reading goes on where it stopped.
pub fn frames_follow_each_other(factory: &dyn Factory) {
    let mut writer = Writer::new(factory.open().unwrap());
    for size in [1, 3, 1, 7, 2, 1] {
        writer.commit(&counted(size));
    }
    let head = writer.backend.head().unwrap();
    assert_eq!((head.position, head.applied), (15, 15));
    assert_eq!(head.hash, writer.hash);
    let mut reader = writer.backend.reader().unwrap();
    let (mut next, mut hash) = (1, chain::GENESIS);
    for frame in reader.frames(0, usize::MAX).unwrap() {
        hash = chain::verify(&hash, next, &frame).unwrap();
        next += chain::decode(&frame).unwrap().len() as u64;
    }
    assert_eq!((next, hash), (16, writer.hash));
    let last = |frame: &StoredFrame| frame.first + chain::lines(&frame.body).count() as u64 - 1;
    for after in 0..=17 {
        for limit in [0, 1, 2, 5, 100, usize::MAX] {
            let frames = reader.frames(after, limit).unwrap();
            assert!(
                frames.iter().all(|frame| last(frame) > after),
                "{after} {limit}"
            );
            let joined = frames
                .windows(2)
                .all(|pair| last(&pair[0]) + 1 == pair[1].first);
            assert!(joined, "{after} {limit}");
            if limit > 0 && after < 15 {
                assert!(frames[0].first <= after + 1, "{after} {limit}");
            }
            let found = reader.events(after, limit).unwrap();
            let found: Vec<u64> = found.iter().map(|event| event.position).collect();
            let expected: Vec<u64> = (after + 1..=15).take(limit).collect();
            assert_eq!(found, expected, "{limit} after {after}");
        }
    }
}

/// Several threads write, several follow: each of these sees every event once, in order.
// S4-130, H-13: a gap-free order for readers under concurrent writers; a rebuild finds equal rows.
pub fn readers_follow_writers(factory: &dyn Factory) {
    const WRITERS: usize = 3;
    const WRITES: usize = 60;
    let store = Mutex::new(store(factory, &SharedIds::new(1)));
    let readers: Vec<_> = (0..3)
        .map(|_| store.lock().unwrap().reader().unwrap())
        .collect();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for n in 0..WRITES {
                    let ops = (0..=(n + writer) % 4).map(|_| submit("part")).collect();
                    let mut store = store.lock().unwrap();
                    store.apply(&[request(ops)], NOW).unwrap();
                }
            });
        }
        // As many as the writers' loops add up to: 1, 2, 3 or 4 events a write.
        let total = (0..WRITERS * WRITES)
            .map(|n| (n % WRITES + n / WRITES) % 4 + 1)
            .sum::<usize>() as u64;
        for mut reader in readers {
            scope.spawn(move || {
                let mut at = 0;
                while at < total {
                    for event in reader.events(at, 7).unwrap() {
                        assert_eq!(event.position, at + 1);
                        at = event.position;
                    }
                }
            });
        }
    });
    let mut store = store.into_inner().unwrap();
    store.flush().unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!(report.events, store.head());
    assert_eq!(report.differences, Vec::<String>::new());
}

/// A commit at a position that is taken is refused, and neither its events nor its rows are there.
pub fn a_refused_commit_leaves_nothing(factory: &dyn Factory) {
    let mut writer = Writer::new(factory.open().unwrap());
    writer.commit(&counted(2));
    let before = content(&*writer.backend);
    let (_, body, hash) = writer.encode(&[paused("other")]);
    let row = Row::Queue(Arc::default());
    let commit = Commit {
        frame: Some(Frame {
            first: 1,
            count: 1,
            body: &body,
            hash,
        }),
        rows: &[
            (Key::Queue(name("other")), Some(row)),
            (Key::Queue(name("slow")), None),
        ],
        version: 3,
        applied: 3,
    };
    writer.backend.commit(&commit).unwrap_err();
    assert_eq!(content(&*writer.backend), before);
    drop(writer);
    let mut backend = factory.open().unwrap();
    assert_eq!(content(&*backend), before);
    assert_eq!(backend.head().unwrap().position, 2);
    let found = backend.load(&[Key::Queue(name("other"))]).unwrap();
    assert_eq!(found, [(None, 0)]);
}

/// Rows of all thirteen kinds come back byte for byte, in the order they were asked for.
pub fn every_kind_of_row_reads_back(factory: &dyn Factory) {
    let rows = varied(factory, 25);
    let mut backend = factory.open().unwrap();
    let keys: Vec<Key> = rows.iter().rev().map(|(key, _)| key.clone()).collect();
    let found = backend.load(&keys).unwrap();
    assert_eq!(found.len(), rows.len());
    let head = backend.head().unwrap().position;
    for ((key, row), (found, version)) in rows.iter().rev().zip(found) {
        assert_eq!(found.as_ref().map(text).as_ref(), Some(row), "{key:?}");
        assert!((1..=head).contains(&version), "{key:?} {version}");
    }
    assert_eq!(content(&*backend).1, rows);
}

/// Content in memory, as a factory.
struct Fresh(crate::backend::memory::Memory);

impl Factory for Fresh {
    fn open(&self) -> Result<Box<dyn Backend>, Error> {
        Ok(Box::new(self.0.clone()))
    }
}

fn kind(key: &Key) -> &'static str {
    match key {
        Key::Task(_) => "task",
        Key::Run(_) => "run",
        Key::Worker(_) => "worker",
        Key::Queue(_) => "queue",
        Key::Slot(_) => "slot",
        Key::Pool(_) => "pool",
        Key::Receipt(_) => "receipt",
        Key::Credential(_) => "credential",
        Key::Demand(_) => "demand",
        Key::Entry(_) => "entry",
        Key::Board(_) => "board",
        Key::Account(_) => "account",
        Key::Message(_) => "message",
        Key::Tally => "tally",
        Key::Record(..) => "record",
    }
}

/// A row that was removed is not read, yet its version is known until it is tidied away.
pub fn rows_that_are_gone_stay_gone(factory: &dyn Factory) {
    let mut store = store(factory, &SharedIds::new(1));
    let note = || NewEntry::new(name("worker_1"), Json::default());
    let write = || Op::Command(Command::EntryWrite(note()));
    let made = outcomes(&mut store, NOW, vec![write(), write()]);
    let [Outcome::Entry(gone), Outcome::Entry(kept)] = made[..] else {
        panic!("{made:?}")
    };
    store.flush().unwrap();
    let reason = "test".to_owned();
    let forget = Command::EntryForget {
        entry: gone,
        reason,
    };
    outcomes(&mut store, NOW, vec![Op::Command(forget)]);
    store.flush().unwrap();
    assert_eq!(store.get(&Key::Entry(gone)).unwrap(), None);
    let position = store.head();
    drop(store);

    let mut backend = factory.open().unwrap();
    let keys = [Key::Entry(gone), Key::Entry(kept)];
    let entries = |backend: &dyn Backend| -> Vec<EntryId> {
        let query = Query::Entries {
            run: None,
            limit: 9,
        };
        let rows = backend.reader().unwrap().rows(&query).unwrap();
        let id = |(key, _)| match key {
            Key::Entry(id) => id,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(id).collect()
    };
    assert_eq!(backend.load(&keys).unwrap()[0], (None, position));
    assert_eq!(entries(&*backend), [kept]);
    backend.tidy().unwrap();
    backend.tidy().unwrap();
    let found = backend.load(&keys).unwrap();
    assert_eq!(found[0], (None, 0));
    assert!(found[1].0.is_some());
    assert_eq!(entries(&*backend), [kept]);
}

/// Opening reads exactly the rows that wait to be claimed or are due, each once, and every
/// concurrency key that is held.
pub fn hot_rows_are_those_that_wait_or_are_due(factory: &dyn Factory) {
    let rows = eventful(factory, 11, 40);
    let mut found = Vec::new();
    let mut backend = factory.open().unwrap();
    backend.hot(&mut |hot| found.push(hot)).unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = Vec::new();
    for (key, row) in &rows {
        let row = Row::from_json(key, row.as_bytes()).unwrap();
        let (place, due) = (row.place(), row.due());
        if place.is_some() || due.is_some() || matches!(key, Key::Slot(_)) {
            expected.push((key.clone(), place, due));
        }
    }
    assert!(expected.len() > 5 && expected.len() < rows.len());
    assert_eq!(found, expected);
}

/// One of each kind of query, without a filter.
fn queries(limit: usize) -> Vec<Query> {
    vec![
        tasks(limit),
        Query::Runs {
            before: None,
            status: None,
            limit,
        },
        Query::Workers,
        Query::Pools,
        Query::Credentials,
        Query::Demands,
        Query::Queues,
        Query::Tally,
        Query::Entries { run: None, limit },
        Query::Messages { after: None, limit },
        all(limit),
    ]
}

fn tasks(limit: usize) -> Query {
    Query::Tasks {
        after: None,
        last: None,
        status: None,
        kind: None,
        worker: None,
        limit,
    }
}

/// Whether a row belongs to a query, as its documentation says; without its limit.
fn belongs(query: &Query, key: &Key, row: &Row) -> bool {
    match (query, key, row) {
        (
            Query::Tasks {
                after,
                last,
                status,
                kind,
                worker,
                ..
            },
            Key::Task(id),
            Row::Task(task),
        ) => {
            let holder = task.worker().map(Name::as_str);
            (after.is_none() || Some(*id) > *after)
                && (last.is_none() || Some(*id) <= *last)
                && (status.is_none() || *status == Some(task.status()))
                && (kind.is_none() || kind.as_deref() == Some(task.spec.kind.as_str()))
                && (worker.is_none() || worker.as_deref() == holder)
        }
        (Query::Runs { before, status, .. }, Key::Run(id), Row::Run(run)) => {
            before.is_none_or(|before| *id < before)
                && (status.is_none() || status.as_deref() == Some(run.status().as_str()))
        }
        (Query::Entries { run, .. }, _, Row::Entry(entry)) => entry.run == *run,
        (Query::Messages { after, .. }, Key::Message(id), _) => {
            after.is_none() || Some(*id) > *after
        }
        (Query::Records { task, after, .. }, Key::Record(of, _), Row::Record(kept)) => {
            task == of && kept.position > *after
        }
        (Query::All { after, .. }, key, _) => after.is_none() || Some(key) > after.as_ref(),
        (Query::Workers, Key::Worker(_), _)
        | (Query::Credentials, Key::Credential(_), _)
        | (Query::Demands, Key::Demand(_), _)
        | (Query::Pools, Key::Pool(_), _)
        | (Query::Queues, Key::Queue(_), _)
        | (Query::Tally, Key::Tally, _) => true,
        _ => false,
    }
}

/// Every kind of query gives what belongs to it, in its order, cut at its limit; and so does the
/// next page, from every row on.
pub fn queries_filter_and_page(factory: &dyn Factory) {
    let rows = varied(factory, 30);
    let parse = |(key, row): (Key, String)| {
        let row = Row::from_json(&key, row.as_bytes()).unwrap();
        (key, row)
    };
    let rows: Vec<(Key, Row)> = rows.into_iter().map(parse).collect();
    let backend = factory.open().unwrap();
    let mut reader = backend.reader().unwrap();
    let mut seen = BTreeSet::new();
    for limit in [0, 1, 3, usize::MAX] {
        for query in variants(&rows, limit) {
            let mut expected: Vec<_> = rows
                .iter()
                .filter(|(key, row)| belongs(&query, key, row))
                .cloned()
                .collect();
            if matches!(query, Query::Runs { .. }) {
                expected.reverse();
            }
            if matches!(query, Query::Records { .. }) {
                expected.sort_by_key(|(_, row)| match row {
                    Row::Record(kept) => kept.position,
                    _ => 0,
                });
            }
            let bounded = !matches!(
                query,
                Query::Workers
                    | Query::Pools
                    | Query::Queues
                    | Query::Credentials
                    | Query::Demands
                    | Query::Tally
            );
            if bounded {
                expected.truncate(limit);
            }
            seen.extend(expected.iter().map(|(key, _)| kind(key)));
            assert_eq!(reader.rows(&query).unwrap(), expected, "{query:?}");
        }
    }
    assert_eq!(seen.len(), 14, "{seen:?}");
}

/// Every kind of query with every kind of filter, continued from every row.
fn variants(rows: &[(Key, Row)], limit: usize) -> Vec<Query> {
    let mut variants = queries(limit);
    let known = |text: &str| Some(text.to_owned());
    for status in TaskStatus::ALL.map(Some).into_iter().chain([None]) {
        for kind in [None, known("part"), known("nothing"), known("' OR 1")] {
            for worker in [None, known("worker_1"), known("nobody")] {
                variants.push(Query::Tasks {
                    after: None,
                    last: None,
                    status,
                    kind: kind.clone(),
                    worker,
                    limit,
                });
            }
        }
    }
    for status in ["running", "completed", "failed", "cancelled", "nothing"] {
        variants.push(Query::Runs {
            before: None,
            status: known(status),
            limit,
        });
    }
    for (key, row) in rows {
        let after = Some(key.clone());
        variants.push(Query::All { after, limit });
        match key {
            Key::Task(id) => {
                for (after, last) in [(Some(*id), None), (None, Some(*id)), (Some(*id), Some(*id))]
                {
                    variants.push(Query::Tasks {
                        after,
                        last,
                        status: None,
                        kind: None,
                        worker: None,
                        limit,
                    });
                }
            }
            Key::Run(id) => {
                let status = match row {
                    Row::Run(run) => known(run.status().as_str()),
                    _ => None,
                };
                for status in [None, status] {
                    variants.push(Query::Runs {
                        before: Some(*id),
                        status,
                        limit,
                    });
                }
                variants.push(Query::Entries {
                    run: Some(*id),
                    limit,
                });
            }
            Key::Message(id) => variants.push(Query::Messages {
                after: Some(*id),
                limit,
            }),
            Key::Record(task, _) => {
                let position = match row {
                    Row::Record(kept) => kept.position,
                    _ => 0,
                };
                for after in [0, position - 1, position] {
                    variants.push(Query::Records {
                        task: *task,
                        after,
                        limit,
                    });
                }
            }
            _ => {}
        }
    }
    variants
}

/// Opening is idempotent: it writes nothing when nothing is behind, and shows what was there.
pub fn reopening_changes_nothing(factory: &dyn Factory) {
    let rows = eventful(factory, 5, 30);
    let ids = SharedIds::new(99);
    let mut before = None;
    for _ in 0..3 {
        let opened = store(factory, &ids);
        assert_eq!(opened.rows_behind(), 0);
        let (head, hash, ready) = (opened.head(), opened.hash(), opened.index().ready());
        let due = opened.index().due(Time(u64::MAX), usize::MAX);
        drop(opened);
        let backend = factory.open().unwrap();
        let found = (content(&*backend), head, hash, ready, due);
        assert_eq!(found.0.1, rows);
        assert_eq!(before.get_or_insert_with(|| found.clone()), &found);
    }
}

/// What `apply` answered is there after the process is gone: nothing waits for a tidy end.
// S3-111, S3-134: a submission has its id and its place in the queue, durably, before it returns.
pub fn what_is_acknowledged_survives(factory: &dyn Factory) {
    let ids = SharedIds::new(1);
    let mut tasks = Vec::new();
    for n in 0..6 {
        let mut opened = store(factory, &ids);
        let made = outcomes(&mut opened, NOW, vec![submit("part"), submit("part")]);
        let id = |outcome| match outcome {
            Outcome::Task(id) => id,
            other => panic!("{other:?}"),
        };
        tasks.extend(made.into_iter().map(id));
        assert!(opened.rows_behind() > 0, "the rows are not written yet");
        // As a killed process would: no flush, no farewell.
        drop(opened);
        let mut opened = store(factory, &ids);
        assert_eq!(opened.index().ready(), 2 * (n + 1));
        for id in &tasks {
            let Some(Row::Task(task)) = opened.get(&Key::Task(*id)).unwrap() else {
                panic!("{id} is lost")
            };
            assert_eq!(task.status(), TaskStatus::Pending);
        }
    }
    let mut opened = store(factory, &ids);
    assert_eq!(claim(&mut opened, "worker_1", 100), tasks);
}

/// Registers a worker with room for a hundred, and claims.
fn claim(store: &mut Store, worker: &'static str, max: u32) -> Vec<TaskId> {
    let mut spec = WorkerSpec::new(name(worker));
    spec.capacity = 100;
    let register = Command::WorkerRegister(Arc::new(spec));
    outcomes(store, NOW, vec![Op::Command(register)]);
    let worker = name(worker);
    let claim = Op::Claim {
        by: Claimant::new(worker, true),
        max,
    };
    match answers(store, NOW, vec![claim]).remove(0) {
        Answer::Claimed(Ok(claimed)) => claimed.iter().map(|one| one.lease.task).collect(),
        other => panic!("{other:?}"),
    }
}

/// Submit, claim, complete: each task to one worker, in order, and the counts agree.
pub fn work_flows(factory: &dyn Factory) {
    let mut store = store(factory, &SharedIds::new(1));
    outcomes(&mut store, NOW, (0..10).map(|_| submit("part")).collect());
    let (first, second) = (
        claim(&mut store, "worker_1", 4),
        claim(&mut store, "worker_2", 100),
    );
    assert_eq!((first.len(), second.len()), (4, 6));
    assert!(
        first
            .iter()
            .all(|task| second.iter().all(|other| task < other))
    );
    assert_eq!(claim(&mut store, "worker_3", 1), []);
    let output = Json::from_value(&serde_json::json!({"n": 1}));
    for task in &first {
        let Some(Row::Task(row)) = store.get(&Key::Task(*task)).unwrap() else {
            panic!("{task}")
        };
        let lease = domain::event::AttemptRef {
            task: *task,
            attempt: row.attempts,
            worker: name("worker_1"),
        };
        let output = output.clone();
        let report = Report::Completed { output };
        let report = || {
            Op::Command(Command::TaskReport {
                lease: lease.clone(),
                report: report.clone(),
            })
        };
        let other = Op::Command(Command::TaskReport {
            lease: lease.clone(),
            report: Report::Completed {
                output: Json::default(),
            },
        });
        let before = store.head();
        let said = answers(&mut store, NOW, vec![report(), report(), other]);
        assert!(matches!(said[0], Answer::Outcome(Ok(Outcome::Done))));
        assert!(
            matches!(said[1], Answer::Outcome(Ok(Outcome::Done))),
            "the same said again, because the answer was lost, is no fault"
        );
        assert!(
            matches!(said[2], Answer::Outcome(Err(_))),
            "a result counts once"
        );
        assert_eq!(store.head(), before + 2, "one completion, one refusal");
    }
    store.flush().unwrap();
    let mut reader = store.reader().unwrap();
    let mut states = std::collections::BTreeMap::new();
    for (_, row) in reader.rows(&tasks(99)).unwrap() {
        let Row::Task(task) = row else { continue };
        *states.entry(task.status()).or_insert(0) += 1;
    }
    let expected = [(TaskStatus::InProgress, 6), (TaskStatus::Completed, 4)];
    assert_eq!(states.into_iter().collect::<Vec<_>>(), expected);
}

/// A store whose process dies after every few batches, its rows half written, goes through the same
/// history as one that lives; and what it shows is what its events say.
// S4-131, S4-67: rows and the events after them give the state that all events give, byte for byte.
// S4-122, S4-135: rows that were half written are there again, and all of them are made anew from the events.
pub fn a_crash_changes_nothing(factory: &dyn Factory) {
    const BATCHES: usize = 40;
    let seed = 3;
    let memory = Fresh(crate::backend::memory::Memory::default());
    let mut calm = Script::new(seed);
    let mut alive = store(&memory, &SharedIds::new(seed));
    let ids = SharedIds::new(seed);
    let mut script = Script::new(seed);
    let mut crashing = store(factory, &ids);
    for n in 0..BATCHES {
        crashing.set_windows(4, 3);
        let expected = calm.step(&mut alive).unwrap();
        let found = script.step(&mut crashing).unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "batch {n}");
        if n % 3 > 0 {
            drop(crashing);
            crashing = store(factory, &ids);
            assert_eq!(
                (crashing.head(), crashing.hash()),
                (alive.head(), alive.hash())
            );
        }
    }
    alive.flush().unwrap();
    drop((alive, crashing));
    drop(store(factory, &ids));
    let backend = factory.open().unwrap();
    let (frames, rows) = content(&*backend);
    let expected = content(&memory.0);
    assert_eq!(frames, expected.0);
    assert_eq!(rows, expected.1);
    let report = replay(&mut *backend.reader().unwrap()).unwrap();
    assert_eq!(report.rows as usize, rows.len());
    assert_eq!(report.differences, Vec::<String>::new());
}

/// Two threads that want the same thing, having read the same: one gets it, the other is told.
// S4-128: a write says what it expects of its row; of two writers one wins, one gets a conflict.
pub fn of_two_writers_one_wins(factory: &dyn Factory) {
    let store = Mutex::new(store(factory, &SharedIds::new(1)));
    for _ in 0..20 {
        let entry = NewEntry::new(name("worker_1"), Json::default());
        let op = Op::Command(Command::EntryWrite(entry));
        let made = outcomes(&mut store.lock().unwrap(), NOW, vec![op]);
        let [Outcome::Entry(entry)] = made[..] else {
            panic!("{made:?}")
        };
        let take = |worker: &'static str| {
            let by = Some(name(worker));
            let expected = None;
            let command = Command::EntryClaim {
                entry,
                expected,
                by,
            };
            let ops = vec![Op::Command(command)];
            match answers(&mut store.lock().unwrap(), NOW, ops).remove(0) {
                Answer::Outcome(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        };
        let both = std::thread::scope(|scope| {
            let one = scope.spawn(|| take("worker_1"));
            let two = scope.spawn(|| take("worker_2"));
            [one.join().unwrap(), two.join().unwrap()]
        });
        let refused: Vec<_> = both.iter().filter_map(|b| b.as_ref().err()).collect();
        assert_eq!(refused.len(), 1, "{both:?}");
        assert_eq!(refused[0].code.who(), Who::Conflict);
    }
}
