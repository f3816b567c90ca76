//! What this machine can do at best, measured the way the product uses it.
//!
//! - `F`: the disk. 4 KiB written and `fdatasync`ed, one after the other, on a file whose blocks are
//!   there already. Nothing durable acknowledges faster.
//! - `L`: the rules alone. Submit, claim and complete decided and folded in memory, in batches, with
//!   no event written. No store makes it faster.
//! - `S`: what a careful engineer writes on a Friday. Three SQLite transactions per task over one
//!   plain table with one index, WAL, every commit synced. The product must beat it by far.
//!
//! When the server is measured, also:
//!
//! - `N`: the network. A small JSON body read and another answered by the server's own listener and
//!   router, with nothing behind them. No server on that stack answers more.
//! - `Q`: what most teams would use instead. Three statements per task, with `SKIP LOCKED`, over 32
//!   connections to a PostgreSQL of its own, with its defaults.

use crate::measure::{Percentiles, io, median, us};
use crate::postgres::Postgres;
use crate::serving::Echo;
use domain::command::{Claimant, Command, Outcome, Report, Submission};
use domain::decide::decide;
use domain::error::{Code, Error};
use domain::event::Recorded;
use domain::id::{Ids, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::state::{Key, State};
use domain::task::TaskSpec;
use domain::time::Time;
use domain::worker::WorkerSpec;
use engine::SystemIds;
use rusqlite::{Connection, params};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one write.
const BLOCK_BYTES: usize = 4096;
/// Blocks of the file that is written round and round.
const BLOCKS: u64 = 4096;
/// Tasks in a batch of the rules alone, as the product's own load has them.
const BATCH: usize = 100;

/// One measurement of all limits.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Microseconds of each sync.
    pub sync_us: Vec<f64>,
    /// Syncs a second.
    pub syncs: f64,
    /// Tasks a second by the rules alone.
    pub rules: f64,
    /// Tasks a second of the SQLite loop.
    pub sqlite: f64,
    /// Microseconds per task of the SQLite loop.
    pub sqlite_us: Vec<f64>,
    /// The echo, when the server is measured.
    pub echo: Option<Loop>,
    /// The PostgreSQL loop, when the server is measured and there is one.
    pub postgres: Option<Loop>,
}

/// Something done again and again by many clients at once.
#[derive(Debug, Clone)]
pub struct Loop {
    /// How often a second.
    pub per_second: f64,
    /// Microseconds of each.
    pub us: Vec<f64>,
    /// Processor microseconds that the measured process spent on each, when that is known.
    pub cpu_us: Option<f64>,
}

impl Sample {
    /// The middle sync, in microseconds.
    pub fn sync_p50(&self) -> f64 {
        median(&self.sync_us)
    }

    /// Requests a second of the echo.
    pub fn echo_rate(&self) -> Option<f64> {
        Some(self.echo.as_ref()?.per_second)
    }

    /// Tasks a second of the PostgreSQL loop.
    pub fn postgres_rate(&self) -> Option<f64> {
        Some(self.postgres.as_ref()?.per_second)
    }
}

/// The limits, ready to be measured again and again.
pub(crate) struct Harness {
    file: File,
    next_block: u64,
    sqlite: Connection,
    time: Duration,
    samples: Vec<Sample>,
    echo: Option<Echo>,
    postgres: Option<Postgres>,
    postgres_missing: Option<String>,
}

impl Harness {
    pub(crate) fn open(folder: &Path, quick: bool) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(folder.join("limit.bin"))
            .map_err(|fault| io("the limit's file", &fault))?;
        // Written, not only reserved: a first write to a reserved block changes the file's metadata.
        for block in 0..BLOCKS {
            file.write_all_at(&[1; BLOCK_BYTES], block * BLOCK_BYTES as u64)
                .map_err(|fault| io("the limit's file", &fault))?;
        }
        file.sync_all()
            .map_err(|fault| io("the limit's file", &fault))?;
        let sqlite = sqlite(&folder.join("limit.db")).map_err(sqlite_error)?;
        Ok(Self {
            file,
            next_block: 0,
            sqlite,
            time: Duration::from_millis(if quick { 20 } else { 400 }),
            samples: Vec::new(),
            echo: None,
            postgres: None,
            postgres_missing: None,
        })
    }

    /// Measures also what a server is compared with.
    pub(crate) fn with_network(mut self, folder: &Path) -> Result<Self, Error> {
        self.echo = Some(Echo::start()?);
        match Postgres::start(folder) {
            Ok(postgres) => self.postgres = Some(postgres),
            Err(missing) => self.postgres_missing = Some(missing.0),
        }
        Ok(self)
    }

    /// Why PostgreSQL is not measured although a server is.
    pub(crate) fn postgres_missing(&self) -> Option<String> {
        self.postgres_missing.clone()
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    pub(crate) fn measure(&mut self) -> Result<Sample, Error> {
        let (sync_us, syncs) = self.syncs().map_err(|fault| io("a sync", &fault))?;
        let rules = rules(self.time / 2)?;
        let (sqlite_us, sqlite) = self.sqlite_loop().map_err(sqlite_error)?;
        let time = self.time * 3;
        let echo = self.echo.as_ref().map(|echo| echo.measure(time));
        let postgres = self
            .postgres
            .as_mut()
            .map(|postgres| postgres.measure(time));
        let sample = Sample {
            sync_us,
            syncs,
            rules,
            sqlite,
            sqlite_us,
            echo: echo.transpose()?,
            postgres: postgres.transpose()?,
        };
        self.samples.push(sample.clone());
        Ok(sample)
    }

    fn syncs(&mut self) -> std::io::Result<(Vec<f64>, f64)> {
        let (begin, mut times) = (Instant::now(), Vec::new());
        let block = [2; BLOCK_BYTES];
        while begin.elapsed() < self.time {
            let one = Instant::now();
            self.file
                .write_all_at(&block, self.next_block * BLOCK_BYTES as u64)?;
            self.file.sync_data()?;
            self.next_block = (self.next_block + 1) % BLOCKS;
            times.push(us(one.elapsed()));
        }
        let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
        Ok((times, rate))
    }

    fn sqlite_loop(&mut self) -> rusqlite::Result<(Vec<f64>, f64)> {
        let (begin, mut times) = (Instant::now(), Vec::new());
        while begin.elapsed() < self.time {
            let one = Instant::now();
            sqlite_task(&mut self.sqlite)?;
            times.push(us(one.elapsed()));
        }
        let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
        Ok((times, rate))
    }
}

fn sqlite_error(fault: rusqlite::Error) -> Error {
    Error::new(Code::StoreIo, format!("the limit's database: {fault}"))
}

fn sqlite(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE tasks (
             id         INTEGER PRIMARY KEY,
             status     TEXT NOT NULL,
             kind       TEXT NOT NULL,
             input      TEXT NOT NULL,
             output     TEXT,
             worker     TEXT,
             created_at INTEGER NOT NULL,
             leased_at  INTEGER,
             ended_at   INTEGER
         );
         CREATE INDEX tasks_pending ON tasks (id) WHERE status = 'pending';",
    )?;
    Ok(connection)
}

/// One task's life in three transactions.
fn sqlite_task(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction
        .prepare_cached(
            "INSERT INTO tasks (status, kind, input, created_at)
             VALUES ('pending', 'noop', 'null', unixepoch('subsec') * 1000)",
        )?
        .execute([])?;
    transaction.commit()?;
    let transaction = connection.transaction()?;
    let id: i64 = transaction
        .prepare_cached(
            "UPDATE tasks SET status = 'running', worker = ?, leased_at = unixepoch('subsec') * 1000
             WHERE id = (SELECT id FROM tasks WHERE status = 'pending' ORDER BY id LIMIT 1)
             RETURNING id",
        )?
        .query_row(["worker_1"], |row| row.get(0))?;
    transaction.commit()?;
    let transaction = connection.transaction()?;
    transaction
        .prepare_cached(
            "UPDATE tasks SET status = 'completed', output = 'null',
                 ended_at = unixepoch('subsec') * 1000
             WHERE id = ? AND status = 'running' AND worker = ?",
        )?
        .execute(params![id, "worker_1"])?;
    transaction.commit()
}

/// Rows and the position of the last event: the smallest owner the rules can have.
struct Fold {
    state: State,
    ids: SystemIds,
    position: u64,
    keys: Vec<Key>,
}

impl Fold {
    fn apply(&mut self, command: &Command, now: Time) -> Result<Outcome, Error> {
        let decision = decide(&self.state, command, now, &mut self.ids);
        for event in decision.events {
            self.position += 1;
            let recorded = Recorded {
                position: self.position,
                at: now,
                cause: None,
                by: None,
                event,
            };
            self.keys.clear();
            recorded.event.touches(&mut self.keys);
            for key in &self.keys {
                self.state.evolve(key, &recorded);
            }
        }
        decision.outcome
    }
}

/// Tasks a second when nothing is stored.
fn rules(time: Duration) -> Result<f64, Error> {
    let worker = Name::literal("worker_1");
    let mut spec = WorkerSpec::new(worker.clone());
    spec.capacity = BATCH as u32;
    let mut fold = Fold {
        state: State::default(),
        ids: SystemIds,
        position: 0,
        keys: Vec::new(),
    };
    let now = Time((fold.ids.next() >> 80) as u64);
    fold.apply(&Command::WorkerRegister(Arc::new(spec)), now)?;
    let (begin, mut done) = (Instant::now(), 0u64);
    while begin.elapsed() < time {
        let mut tasks: Vec<TaskId> = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let spec = TaskSpec::new(Name::literal("noop"), Json::default());
            let submit = Command::TaskSubmit(Submission::new(spec));
            if let Outcome::Task(task) = fold.apply(&submit, now)? {
                tasks.push(task);
            }
        }
        let mut leases = Vec::with_capacity(BATCH);
        for task in &tasks {
            let claim = Command::TaskClaim {
                task: *task,
                by: Claimant::new(worker.clone(), true),
            };
            if let Outcome::Leased(lease) = fold.apply(&claim, now)? {
                leases.push(lease);
            }
        }
        for lease in leases {
            let output = Json::default();
            let report = Report::Completed { output };
            fold.apply(&Command::TaskReport { lease, report }, now)?;
            done += 1;
        }
        for task in tasks {
            fold.state.unload(&Key::Task(task));
        }
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// All values of all samples, of which the report gives percentiles.
pub(crate) fn sync_percentiles(samples: &[Sample]) -> Option<Percentiles> {
    let all: Vec<f64> = samples.iter().flat_map(|s| s.sync_us.clone()).collect();
    Percentiles::of(&all)
}

/// As [`sync_percentiles`], of the SQLite loop.
pub(crate) fn sqlite_percentiles(samples: &[Sample]) -> Option<Percentiles> {
    let all: Vec<f64> = samples.iter().flat_map(|s| s.sqlite_us.clone()).collect();
    Percentiles::of(&all)
}
