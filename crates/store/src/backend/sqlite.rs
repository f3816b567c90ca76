//! SQLite, the embedded default: one file in one folder, one owner.
//!
//! WAL with `synchronous=FULL`: when `commit` returns, the transaction is on disk. The folder is
//! locked for as long as it is open, because the owner keeps the index in memory; a second process
//! gets a clear error instead of a second truth.

pub mod backup;
mod log;
pub mod restore;

use super::memory::holder;
use crate::index::{Kept, decode_hot, encode_hot};
use crate::{Backend, Commit, Head, Hot, Query, Reader, StoredFrame, Versioned, chain};
use domain::error::{Code, Error};
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::name::Name;
use domain::state::{Key, Row, State};
use domain::time::Time;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Marks the file as ours: "CHRG", in SQLite's header.
const APPLICATION_ID: i64 = 0x4348_5247;
/// Every form the store has had, oldest first; the form's number is its place, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_first.sql"),
    include_str!("../../migrations/0002_records.sql"),
    include_str!("../../migrations/0003_full_pages.sql"),
];
/// The form from which on a step that is done is a row of its own.
const FORM_RECORDS: i64 = 2;
/// Bytes of a page: a dozen task rows; a small commit still writes only one or two of them.
const PAGE_BYTES: usize = 8192;
/// The file within the folder.
pub const FILE: &str = "store.db";
/// The lock within the folder.
pub const LOCK: &str = "lock";

/// Tasks asked for at once from which on they are read in one walk.
const NEAR_MIN: usize = 8;

/// How often a lock that somebody holds is tried again, and after what pause: a fifth of a second in
/// all.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A store in a folder.
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// Held until the last half is dropped, so that a reader never outlives the ownership. Nobody
    /// holds it who only reads.
    lock: Option<Arc<File>>,
    text: Vec<u8>,
    log: log::Log,
    /// The form of the file.
    form: i64,
    /// After a failed fsync nobody knows what is on disk: nothing more is written.
    broken: bool,
    /// Opened beside the owner, to look.
    read_only: bool,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the store in `folder`, and makes it if there is none.
    ///
    /// # Errors
    /// [`Code::StorePath`], [`Code::StoreLocked`], [`Code::StoreNewer`], [`Code::StoreCorrupt`],
    /// [`Code::StoreFull`] or [`Code::StoreIo`]; a store that is there is never changed by a
    /// refusal.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        if folder.is_file() {
            let text = format!("{} is a file; the store is a folder", folder.display());
            return Err(Error::new(Code::StorePath, text));
        }
        if folder.join(backup::MANIFEST).exists() {
            // Written to, it would not be what its manifest says any more.
            let text = format!("{} is a backup, not a store", folder.display());
            return Err(Error::new(Code::StorePath, text).hint(
                "Restore it into another folder: `chargehand --store FOLDER restore --from BACKUP`.",
            ));
        }
        std::fs::create_dir_all(folder)
            .map_err(|fault| unusable(folder, "cannot be created", &fault))?;
        let path = folder.join(FILE);
        if path.is_dir() {
            let text = format!(
                "{} is a folder; the store keeps its file there",
                path.display()
            );
            return Err(Error::new(Code::StorePath, text));
        }
        let lock = lock(folder)?;
        let connection = Connection::open(&path).map_err(|fault| describe(&path, &fault))?;
        let mut store = Self {
            connection,
            path,
            lock: Some(Arc::new(lock)),
            text: Vec::new(),
            log: log::Log::new(PAGE_BYTES),
            form: MIGRATIONS.len() as i64,
            broken: false,
            read_only: false,
        };
        store
            .prepare()
            .map_err(|fault| describe(&store.path, &fault))??;
        Ok(store)
    }

    /// Opens a store that is there, to read only: beside its owner, without its lock.
    ///
    /// # Errors
    /// As [`open`](Self::open), but never [`Code::StoreLocked`].
    pub fn open_to_read(folder: &Path) -> Result<Self, Error> {
        match Self::open_in_any_form(folder)? {
            (store, form) if form == MIGRATIONS.len() as i64 => Ok(store),
            (store, 0) => {
                let text = format!("{} is only being made", store.path.display());
                Err(Error::new(Code::StoreMissing, text)
                    .hint("Look again when the program that makes it has begun to work."))
            }
            (store, form) => {
                let text = format!("{} has the old form {form}", store.path.display());
                Err(Error::new(Code::StorePath, text)
                    .hint("Run `chargehand doctor` once: it brings the store up to date."))
            }
        }
    }

    /// The same of any form up to today's. What is good of an old one is its log; its rows may be of
    /// another shape.
    fn open_in_any_form(folder: &Path) -> Result<(Self, i64), Error> {
        let path = folder.join(FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            Ok(connection)
        };
        let connection = open().map_err(|fault| describe(&path, &fault))?;
        let mut store = Self {
            connection,
            path,
            lock: None,
            text: Vec::new(),
            log: log::Log::new(PAGE_BYTES),
            form: 0,
            broken: false,
            read_only: true,
        };
        let form = store
            .form()
            .map_err(|fault| describe(&store.path, &fault))??;
        store.form = form;
        Ok((store, form))
    }

    /// Whether some process has the store in this folder open to write.
    pub fn is_owned(folder: &Path) -> bool {
        let lock = File::open(folder.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    }

    /// What SQLite's own check of the file says: `ok`, or what is damaged.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub fn check(folder: &Path) -> Result<String, Error> {
        let (store, _) = Self::open_in_any_form(folder)?;
        let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        store
            .connection
            .query_row("PRAGMA integrity_check(1)", [], check)
            .map_err(|fault| describe(&store.path, &fault))
    }

    /// The form the file has; whose file it is and that the form is known, was checked.
    fn form(&self) -> rusqlite::Result<Result<i64, Error>> {
        let connection = &self.connection;
        let form: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let owner: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && owner != APPLICATION_ID {
            let text = format!("{} is a database, but not a store", self.path.display());
            return Ok(Err(Error::new(Code::StoreCorrupt, text)));
        }
        let known = MIGRATIONS.len() as i64;
        if form > known {
            let text = format!(
                "{} has form {form}; this version knows forms up to {known}",
                self.path.display()
            );
            return Ok(Err(Error::new(Code::StoreNewer, text)));
        }
        Ok(Ok(form))
    }

    /// Checks whose file it is and which form it has, before anything is changed.
    fn prepare(&mut self) -> rusqlite::Result<Result<(), Error>> {
        // Closing a store that was refused must not move what its owner left in the log.
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let form = match self.form()? {
            Ok(form) => form,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let known = MIGRATIONS.len() as i64;
        let connection = &mut self.connection;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // At most 64 MiB, taken as it is used: the inner pages of a million waiting tasks stay there.
        connection.pragma_update(None, "cache_size", -65_536)?;
        // 125 MiB of log between two checkpoints: a page that changes often is moved once.
        connection.pragma_update(None, "wal_autocheckpoint", 16_000)?;
        connection.set_prepared_statement_cache_capacity(64);
        if form < known {
            let transaction = connection.transaction()?;
            for migration in &MIGRATIONS[form as usize..] {
                transaction.execute_batch(migration)?;
            }
            if form < FORM_RECORDS
                && let Err(error) = fold_records(&transaction)?
            {
                return Ok(Err(error));
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", known)?;
            transaction.commit()?;
        }
        // A store that was made otherwise keeps its pages.
        let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        self.log = log::Log::new(page_bytes);
        Ok(Ok(()))
    }

    /// Of many tasks those that lie close together, read in one walk: they were submitted together.
    fn load_near(&self, keys: &[Key]) -> rusqlite::Result<HashMap<Key, (Option<String>, u64)>> {
        let mut near = HashMap::new();
        let ids = keys.iter().filter_map(|key| match key {
            Key::Task(id) => Some(id.to_bytes()),
            _ => None,
        });
        let (Some(first), Some(last)) = (ids.clone().min(), ids.max()) else {
            return Ok(near);
        };
        if keys.len() < NEAR_MIN {
            return Ok(near);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT id, body, version FROM tasks WHERE id BETWEEN ? AND ? LIMIT ?",
        )?;
        let mut rows = statement.query(params![first, last, 2 * keys.len()])?;
        while let Some(row) = rows.next()? {
            let key = Key::Task(TaskId::from_bytes(row.get(0)?));
            near.insert(key, (row.get(1)?, row.get(2)?));
        }
        Ok(near)
    }

    fn write(&mut self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let Some(frame) = &commit.frame {
            self.log.append(&transaction, frame)?;
        }
        for (key, row) in commit.rows {
            write_row(
                &transaction,
                &mut self.text,
                key,
                row.as_ref(),
                commit.version,
            )?;
        }
        if !commit.rows.is_empty() {
            transaction
                .prepare_cached("UPDATE meta SET value = ? WHERE key = 'applied'")?
                .execute([commit.applied])?;
        }
        transaction.commit()
    }
}

/// Folds the tasks anew whose rows had records in them, from the events up to where each row was.
fn fold_records(connection: &Connection) -> rusqlite::Result<Result<(), Error>> {
    let mut rows = connection
        .prepare("SELECT id, version FROM tasks WHERE instr(body, '\"records\":[') > 0")?;
    let versions = rows.query_map([], |row| Ok((TaskId::from_bytes(row.get(0)?), row.get(1)?)))?;
    let versions: HashMap<TaskId, u64> = versions.collect::<rusqlite::Result<_>>()?;
    if versions.is_empty() {
        return Ok(Ok(()));
    }
    let mut state = State::default();
    let mut events = connection.prepare("SELECT first, hash, body FROM events ORDER BY first")?;
    let mut frames = events.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = frames.next()? {
        let frame = StoredFrame {
            first: row.get(0)?,
            hash: row.get(1)?,
            body: row.get(2)?,
        };
        let events = match chain::decode(&frame) {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        for recorded in events {
            keys.clear();
            recorded.event.touches(&mut keys);
            for key in &keys {
                let (Key::Task(task) | Key::Record(task, _)) = key else {
                    continue;
                };
                if versions
                    .get(task)
                    .is_some_and(|at| recorded.position <= *at)
                {
                    state.evolve(key, &recorded);
                }
            }
        }
    }
    let mut text = Vec::new();
    for (key, row) in state.iter() {
        if let Key::Task(task) | Key::Record(task, _) = key {
            let version = versions.get(task).copied().unwrap_or_default();
            write_row(connection, &mut text, key, Some(row), version)?;
        }
    }
    Ok(Ok(()))
}

/// Takes the lock of the store in `folder`. An owner that was just killed, or a child it is just
/// starting, may hold it a moment longer: that is waited for.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|fault| unusable(folder, "cannot be written", &fault))?;
    let mut tries = LOCK_TRIES;
    loop {
        match lock.try_lock() {
            // A restore may have put another store here while this one was waited for.
            Ok(()) if backup::is_same(&lock, &path) => return Ok(lock),
            Err(std::fs::TryLockError::WouldBlock) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            Ok(()) | Err(std::fs::TryLockError::WouldBlock) => {
                let text = format!("another process has the store {} open", folder.display());
                return Err(Error::new(Code::StoreLocked, text));
            }
            Err(std::fs::TryLockError::Error(fault)) => {
                return Err(unusable(folder, "cannot be locked", &fault));
            }
        }
    }
}

/// What the system says of a folder that was to be a store.
fn unusable(folder: &Path, what: &str, fault: &std::io::Error) -> Error {
    let folder = folder.display();
    if fault.kind() == std::io::ErrorKind::StorageFull {
        return Error::new(Code::StoreFull, format!("{folder}: the disk is full"));
    }
    Error::new(Code::StorePath, format!("{folder} {what}: {fault}"))
}

fn write_row(
    connection: &Connection,
    text: &mut Vec<u8>,
    key: &Key,
    row: Option<&Row>,
    version: u64,
) -> rusqlite::Result<()> {
    text.clear();
    let body = match row {
        None => None,
        Some(row) => {
            row.to_json(text)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            Some(std::str::from_utf8(text)?)
        }
    };
    let due = row.and_then(Row::due).map(|due| due.0);
    match (key, row) {
        (Key::Task(id), row) => {
            let (mut status, mut kind, mut worker, mut hot) = (None, None, None, None);
            if let Some(Row::Task(task)) = row {
                status = Some(task.status().as_str());
                kind = Some(task.spec.kind.as_str());
                worker = holder(task);
                let (place, due) = (task.place(), task.due());
                if place.is_some() || due.is_some() {
                    hot = Some(encode_hot(place.as_ref(), due));
                }
            }
            connection
                .prepare_cached(
                    // In place: replacing would take the row and its index entries out first.
                    "INSERT INTO tasks (id, version, status, kind, worker, hot, body)
                     VALUES (?, ?, ?, ?, ?, ?, ?)
                     ON CONFLICT (id) DO UPDATE SET version = excluded.version,
                     status = excluded.status, kind = excluded.kind, worker = excluded.worker,
                     hot = excluded.hot, body = excluded.body",
                )?
                .execute(params![
                    id.to_bytes(),
                    version,
                    status,
                    kind,
                    worker,
                    hot,
                    body
                ])?;
        }
        (Key::Run(id), row) => {
            let status = match row {
                Some(Row::Run(run)) => Some(run.status().as_str()),
                _ => None,
            };
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO runs (id, version, status, due, body)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![id.to_bytes(), version, status, due, body])?;
        }
        (Key::Entry(id), row) => {
            let run = match row {
                Some(Row::Entry(entry)) => entry.run.map(|run| run.to_bytes()),
                _ => None,
            };
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO entries (id, version, run, due, body)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![id.to_bytes(), version, run, due, body])?;
        }
        (Key::Message(id), _) => {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO messages (id, version, due, body) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![id.to_bytes(), version, due, body])?;
        }
        (Key::Record(task, key), row) => {
            let position = match row {
                Some(Row::Record(kept)) => Some(kept.position),
                _ => None,
            };
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO records (task, key, version, position, body)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    task.to_bytes(),
                    key.as_str(),
                    version,
                    position,
                    body
                ])?;
        }
        (other, _) => {
            let (kind, id) = other_id(other);
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO others (kind, id, version, due, body)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![kind, id, version, due, body])?;
        }
    }
    Ok(())
}

/// The place of a row that has no table of its own.
fn other_id(key: &Key) -> (&'static str, String) {
    match key {
        Key::Worker(name) => ("worker", name.to_string()),
        Key::Queue(name) => ("queue", name.to_string()),
        Key::Slot(name) => ("slot", name.to_string()),
        Key::Pool(name) => ("pool", name.to_string()),
        Key::Receipt(name) => ("receipt", name.to_string()),
        Key::Credential(name) => ("credential", name.to_string()),
        Key::Demand(name) => ("demand", name.to_string()),
        Key::Board(run) => ("board", run.map_or_else(String::new, |run| run.to_string())),
        Key::Account(run) => ("account", run.to_string()),
        Key::Tally => ("tally", String::new()),
        Key::Task(id) => ("task", id.to_string()),
        Key::Run(id) => ("run", id.to_string()),
        Key::Entry(id) => ("entry", id.to_string()),
        Key::Message(id) => ("message", id.to_string()),
        Key::Record(_, key) => ("record", key.to_string()),
    }
}

fn other_key(kind: &str, id: &str) -> Result<Key, Error> {
    let name = || Name::new(id);
    Ok(match kind {
        "worker" => Key::Worker(name()?),
        "queue" => Key::Queue(name()?),
        "slot" => Key::Slot(name()?),
        "pool" => Key::Pool(name()?),
        "receipt" => Key::Receipt(name()?),
        "credential" => Key::Credential(name()?),
        "demand" => Key::Demand(name()?),
        "board" if id.is_empty() => Key::Board(None),
        "board" => Key::Board(Some(id.parse()?)),
        "account" => Key::Account(id.parse()?),
        "tally" => Key::Tally,
        _ => {
            return Err(Error::new(
                Code::StoreCorrupt,
                format!("a row of unknown kind “{kind}”"),
            ));
        }
    })
}

impl Backend for Sqlite {
    fn head(&mut self) -> Result<Head, Error> {
        let read = |connection: &Connection| -> rusqlite::Result<Head> {
            let last = connection
                .query_row(
                    "SELECT first + count - 1, hash FROM events ORDER BY first DESC LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let (position, hash) = last.unwrap_or((0, chain::GENESIS));
            let applied = connection.query_row(
                "SELECT value FROM meta WHERE key = 'applied'",
                [],
                |row| row.get(0),
            )?;
            Ok(Head {
                position,
                hash,
                applied,
            })
        };
        read(&self.connection).map_err(|fault| describe(&self.path, &fault))
    }

    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error> {
        let load = |key: &Key| -> rusqlite::Result<Option<(Option<String>, u64)>> {
            let get = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let by_id = |sql: &str, id: [u8; 16]| {
                self.connection
                    .prepare_cached(sql)?
                    .query_row([id], get)
                    .optional()
            };
            match key {
                Key::Task(id) => by_id(
                    "SELECT body, version FROM tasks WHERE id = ?",
                    id.to_bytes(),
                ),
                Key::Run(id) => by_id("SELECT body, version FROM runs WHERE id = ?", id.to_bytes()),
                Key::Entry(id) => by_id(
                    "SELECT body, version FROM entries WHERE id = ?",
                    id.to_bytes(),
                ),
                Key::Message(id) => by_id(
                    "SELECT body, version FROM messages WHERE id = ?",
                    id.to_bytes(),
                ),
                Key::Record(task, key) => self
                    .connection
                    .prepare_cached("SELECT body, version FROM records WHERE task = ? AND key = ?")?
                    .query_row(params![task.to_bytes(), key.as_str()], get)
                    .optional(),
                other => self
                    .connection
                    .prepare_cached("SELECT body, version FROM others WHERE kind = ? AND id = ?")?
                    .query_row(other_id(other), get)
                    .optional(),
            }
        };
        let mut rows = Vec::with_capacity(keys.len());
        let mut near = self
            .load_near(keys)
            .map_err(|fault| describe(&self.path, &fault))?;
        for key in keys {
            let found = match near.remove(key) {
                Some(found) => Ok(Some(found)),
                None => load(key),
            };
            rows.push(match found.map_err(|fault| describe(&self.path, &fault))? {
                None => (None, 0),
                Some((None, version)) => (None, version),
                Some((Some(body), version)) => (Some(parse(&self.path, key, &body)?), version),
            });
        }
        Ok(rows)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        if self.read_only {
            let text = format!("{} was opened to read only", self.path.display());
            return Err(Error::new(Code::StoreLocked, text));
        }
        if self.broken {
            let text = "a write failed before; the store must be opened anew";
            return Err(Error::new(Code::StoreIo, text));
        }
        self.write(commit).map_err(|fault| {
            self.log.forget();
            let error = describe(&self.path, &fault);
            self.broken = error.code != Code::StoreFull;
            error
        })
    }

    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error> {
        let path = self.path.clone();
        let fail = |fault: rusqlite::Error| describe(&path, &fault);
        let mut names = HashSet::new();
        let mut in_rows = Vec::new();
        let mut tasks = self
            .connection
            .prepare("SELECT id, hot FROM tasks INDEXED BY tasks_hot WHERE hot IS NOT NULL")
            .map_err(fail)?;
        let mut rows = tasks.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let id: [u8; 16] = row.get(0).map_err(fail)?;
            let id = TaskId::from_bytes(id);
            let bytes = row.get_ref(1).map_err(fail)?.as_blob().unwrap_or_default();
            let kept = decode_hot(bytes, &mut names)
                .ok_or_else(|| damaged(&path, &format!("what is kept of {id} cannot be read")))?;
            match kept {
                Kept::Here(place, due) => each((Key::Task(id), place, due)),
                Kept::InItsRow => in_rows.push(Key::Task(id)),
            }
        }
        drop(rows);
        drop(tasks);
        for (table, key) in [
            (
                "runs",
                (|id| Key::Run(RunId::from_bytes(id))) as fn([u8; 16]) -> Key,
            ),
            ("entries", |id| Key::Entry(EntryId::from_bytes(id))),
            ("messages", |id| Key::Message(MessageId::from_bytes(id))),
        ] {
            let sql = format!("SELECT id, due FROM {table} WHERE due IS NOT NULL");
            let mut statement = self.connection.prepare(&sql).map_err(fail)?;
            let mut rows = statement.query([]).map_err(fail)?;
            while let Some(row) = rows.next().map_err(fail)? {
                let due = Time(row.get(1).map_err(fail)?);
                each((key(row.get(0).map_err(fail)?), None, Some(due)));
            }
        }
        let mut statement = self
            .connection
            .prepare(
                "SELECT kind, id, due FROM others
                 WHERE body IS NOT NULL AND (due IS NOT NULL OR kind = 'slot')",
            )
            .map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let (kind, id): (String, String) =
                (row.get(0).map_err(fail)?, row.get(1).map_err(fail)?);
            let due: Option<u64> = row.get(2).map_err(fail)?;
            each((other_key(&kind, &id)?, None, due.map(Time)));
        }
        drop(rows);
        drop(statement);
        for keys in in_rows.chunks(1_000) {
            for (key, (row, _)) in keys.iter().zip(self.load(keys)?) {
                if let Some(row) = row {
                    each((key.clone(), row.place(), row.due()));
                }
            }
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), Error> {
        let sql = ["tasks", "runs", "entries", "messages", "others"]
            .map(|table| format!("DELETE FROM {table} WHERE body IS NULL;"))
            .concat();
        self.connection
            .execute_batch(&sql)
            .map_err(|fault| describe(&self.path, &fault))
    }

    fn gather(&mut self) -> Result<(), Error> {
        // Busy is no fault: whoever still reads keeps the log beside the file, where it is as safe.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|fault| describe(&self.path, &fault))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.pragma_update(None, "cache_size", -4_096)?;
            Ok(connection)
        };
        let connection = open().map_err(|fault| describe(&self.path, &fault))?;
        Ok(Box::new(SqliteReader {
            connection,
            path: self.path.clone(),
            form: self.form,
            _lock: self.lock.clone(),
        }))
    }
}

/// The reading half: a connection of its own that can only read.
struct SqliteReader {
    connection: Connection,
    path: PathBuf,
    form: i64,
    _lock: Option<Arc<File>>,
}

impl Reader for SqliteReader {
    fn frames(&mut self, after: u64, events: usize) -> Result<Vec<StoredFrame>, Error> {
        // The column is signed; the log is not that long.
        let Ok(after) = i64::try_from(after) else {
            return Ok(Vec::new());
        };
        let events = i64::try_from(events).unwrap_or(i64::MAX / 2);
        log::frames(&self.connection, self.form, after, events)
            .map_err(|fault| describe(&self.path, &fault))
    }

    fn rows(&mut self, query: &Query) -> Result<Vec<(Key, Row)>, Error> {
        let found = self
            .select(query)
            .map_err(|fault| describe(&self.path, &fault))?;
        found
            .into_iter()
            .map(|(key, body)| {
                let key = key?;
                let row = parse(&self.path, &key, &body)?;
                Ok((key, row))
            })
            .collect()
    }
}

/// A key that was read, and the row's text.
type Found = (Result<Key, Error>, String);

impl SqliteReader {
    fn select(&self, query: &Query) -> rusqlite::Result<Vec<Found>> {
        let task = |id: [u8; 16]| Ok(Key::Task(TaskId::from_bytes(id)));
        match query {
            Query::Tasks {
                after,
                last,
                status,
                kind,
                worker,
                limit,
            } => self.by_id(
                // The state is written out, so that the index over failed tasks can serve it.
                &format!(
                    "SELECT id, body FROM tasks WHERE body IS NOT NULL AND id > ?1 AND id <= ?2
                     {} AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR worker = ?4)
                     ORDER BY id LIMIT ?5",
                    status.map_or(String::new(), |s| format!("AND status = '{}'", s.as_str())),
                ),
                params![
                    after.map_or(vec![], |id| id.to_bytes().to_vec()),
                    last.map_or([0xff; 16], |id| id.to_bytes()),
                    kind,
                    worker,
                    bound(*limit)
                ],
                task,
            ),
            Query::Runs {
                before,
                status,
                limit,
            } => self.by_id(
                "SELECT id, body FROM runs WHERE body IS NOT NULL AND id < ?1
                 AND (?2 IS NULL OR status = ?2) ORDER BY id DESC LIMIT ?3",
                params![
                    before.map_or([0xff; 16], |id| id.to_bytes()),
                    status,
                    bound(*limit)
                ],
                |id| Ok(Key::Run(RunId::from_bytes(id))),
            ),
            Query::Entries { run, limit } => self.by_id(
                "SELECT id, body FROM entries WHERE run IS ?1 AND body IS NOT NULL
                 ORDER BY id LIMIT ?2",
                params![run.map(|run| run.to_bytes()), bound(*limit)],
                |id| Ok(Key::Entry(EntryId::from_bytes(id))),
            ),
            Query::Messages { after, limit } => self.by_id(
                "SELECT id, body FROM messages WHERE body IS NOT NULL AND id > ?1
                 ORDER BY id LIMIT ?2",
                params![
                    after.map_or(vec![], |id| id.to_bytes().to_vec()),
                    bound(*limit)
                ],
                |id| Ok(Key::Message(MessageId::from_bytes(id))),
            ),
            Query::Records { task, after, limit } => self.records(
                // A task's records are read through and sorted: an index would cost each of them
                // more than it saves the few readers.
                "SELECT task, key, body FROM records
                 WHERE task = ?1 AND position > ?2 AND body IS NOT NULL ORDER BY position LIMIT ?3",
                params![
                    task.to_bytes(),
                    i64::try_from(*after).unwrap_or(i64::MAX),
                    bound(*limit)
                ],
            ),
            Query::Workers => self.others("worker", None, usize::MAX),
            Query::Pools => self.others("pool", None, usize::MAX),
            Query::Credentials => self.others("credential", None, usize::MAX),
            Query::Demands => self.others("demand", None, usize::MAX),
            Query::Queues => self.others("queue", None, usize::MAX),
            Query::Tally => self.others("tally", None, usize::MAX),
            Query::All { after, limit } => self.all(after.as_ref(), *limit),
        }
    }

    fn by_id(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
        key: impl Fn([u8; 16]) -> Result<Key, Error>,
    ) -> rusqlite::Result<Vec<Found>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| Ok((key(row.get(0)?), row.get(1)?)))?;
        rows.collect()
    }

    fn records(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<Found>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| {
            let task = TaskId::from_bytes(row.get(0)?);
            let key = Name::new(row.get::<_, String>(1)?);
            Ok((key.map(|key| Key::Record(task, key)), row.get(2)?))
        })?;
        rows.collect()
    }

    fn others(
        &self,
        kind: &'static str,
        after: Option<&str>,
        limit: usize,
    ) -> rusqlite::Result<Vec<Found>> {
        let sql = "SELECT id, body FROM others WHERE kind = ?1 AND body IS NOT NULL
                   AND (?2 IS NULL OR id > ?2) ORDER BY id LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![kind, after, bound(limit)], |row| {
            Ok((other_key(kind, &row.get::<_, String>(0)?), row.get(1)?))
        })?;
        rows.collect()
    }

    /// Rows in the order of their keys: kinds in the order of [`Key`], ids within.
    fn all(&self, after: Option<&Key>, limit: usize) -> rusqlite::Result<Vec<Found>> {
        let mut found = Vec::new();
        let kinds = [
            "task",
            "run",
            "worker",
            "queue",
            "slot",
            "pool",
            "receipt",
            "entry",
            "board",
            "account",
            "message",
            "credential",
            "demand",
            "tally",
            "record",
        ];
        let (from, id) = match after {
            None => (0, None),
            Some(key) => {
                let (kind, id) = other_id(key);
                (
                    kinds.iter().position(|known| *known == kind).unwrap_or(0),
                    Some((key, id)),
                )
            }
        };
        for (n, kind) in kinds.iter().enumerate().skip(from) {
            let left = limit - found.len().min(limit);
            let after = id.as_ref().filter(|_| n == from);
            let table = |table: &str, key: fn([u8; 16]) -> Key| {
                let bytes = after.map_or(vec![], |(key, _)| id_bytes(key).to_vec());
                let sql = format!(
                    "SELECT id, body FROM {table} WHERE body IS NOT NULL AND id > ?1
                     ORDER BY id LIMIT ?2"
                );
                self.by_id(&sql, params![bytes, bound(left)], |id| Ok(key(id)))
            };
            found.extend(match *kind {
                "task" => table("tasks", |id| Key::Task(TaskId::from_bytes(id)))?,
                "run" => table("runs", |id| Key::Run(RunId::from_bytes(id)))?,
                "entry" => table("entries", |id| Key::Entry(EntryId::from_bytes(id)))?,
                "message" => table("messages", |id| Key::Message(MessageId::from_bytes(id)))?,
                "record" => self.records(
                    "SELECT task, key, body FROM records
                     WHERE (task, key) > (?1, ?2) AND body IS NOT NULL ORDER BY task, key LIMIT ?3",
                    params![
                        after.map_or(vec![], |(key, _)| id_bytes(key).to_vec()),
                        after.map_or("", |(_, id)| id),
                        bound(left)
                    ],
                )?,
                kind => self.others(kind, after.map(|(_, id)| id.as_str()), left)?,
            });
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// SQLite counts in signed numbers.
fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn id_bytes(key: &Key) -> [u8; 16] {
    match key {
        Key::Task(id) => id.to_bytes(),
        Key::Run(id) => id.to_bytes(),
        Key::Entry(id) => id.to_bytes(),
        Key::Message(id) => id.to_bytes(),
        Key::Record(task, _) => task.to_bytes(),
        _ => [0; 16],
    }
}

fn parse(path: &Path, key: &Key, body: &str) -> Result<Row, Error> {
    Row::from_json(key, body.as_bytes())
        .map_err(|fault| damaged(path, &format!("the row of {key:?}: {fault}")))
}

fn damaged(path: &Path, what: &str) -> Error {
    let path = path.display();
    let text = format!("{path} is damaged, or not a store: {what}");
    Error::new(Code::StoreCorrupt, text)
}

/// What SQLite says, in the words of the product.
fn describe(path: &Path, fault: &rusqlite::Error) -> Error {
    let damaged = || damaged(path, &fault.to_string());
    let path = path.display();
    let inner = match fault {
        rusqlite::Error::SqliteFailure(inner, _) => inner,
        // A value that no version of this program writes.
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::QueryReturnedNoRows
        | rusqlite::Error::Utf8Error(..) => return damaged(),
        _ => return Error::new(Code::Internal, format!("{path}: {fault}")),
    };
    match inner.code {
        ErrorCode::DiskFull => Error::new(Code::StoreFull, format!("{path}: the disk is full")),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::new(
            Code::StoreLocked,
            format!("another process is using {path}"),
        ),
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Error::new(
            Code::StorePath,
            format!("{path} cannot be written: {fault}"),
        ),
        _ => Error::new(Code::StoreIo, format!("{path}: {fault}")),
    }
}
