//! Somebody changes what is stored: replay finds it and says where.

use crate::world::{all_frames, open, over};
use domain::error::{Code, Error};
use rusqlite::{Connection, params};
use std::path::Path;
use store::backend::memory::Memory;
use store::backend::sqlite::FILE;
use store::conformance::script::Script;
use store::replay::{Report, replay};
use store::{Backend, Reader, Store, StoredFrame, chain};
use tempfile::TempDir;

const SEED: u64 = 4;

fn fill(store: &mut Store, steps: u32) {
    let mut script = Script::new(SEED);
    (0..steps).for_each(|_| drop(script.step(store).unwrap()));
    store.flush().unwrap();
}

fn in_memory() -> Memory {
    let memory = Memory::default();
    fill(&mut over(Box::new(memory.clone()), SEED).unwrap(), 15);
    memory
}

fn in_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill(&mut open(folder.path(), SEED).unwrap(), 40);
    folder
}

fn frames(memory: &Memory) -> Vec<StoredFrame> {
    all_frames(&mut *memory.reader().unwrap())
}

/// The replay of a store in memory whose frames somebody changed.
fn tampered(change: impl FnOnce(&mut Vec<StoredFrame>)) -> Error {
    let memory = in_memory();
    memory.tamper(change);
    let error = replay(&mut *memory.reader().unwrap()).expect_err("this was tampered with");
    assert_eq!(error.code, Code::StoreCorrupt, "{error}");
    error
}

#[track_caller]
fn names(error: &Error, text: &str) {
    assert!(error.message.contains(text), "{error} says “{text}”");
}

#[test]
fn a_changed_byte_is_found() {
    let count = frames(&in_memory()).len();
    for n in 0..count {
        let mut first = 0;
        let error = tampered(|frames| {
            first = frames[n].first;
            // Anywhere in the frame, and so that it still reads as JSON when that is possible.
            let middle = frames[n].body.len() * (n % 5) / 5;
            frames[n].body[middle] ^= 1;
        });
        names(&error, &format!("event {first} "));
    }
}

#[test]
fn a_removed_frame_is_found() {
    let whole = frames(&in_memory());
    for n in 0..whole.len() - 1 {
        let error = tampered(|frames| drop(frames.remove(n)));
        let (gone, next) = (whole[n].first, whole[n + 1].first);
        names(&error, &format!("event {gone} is missing; {next} follows"));
    }
}

#[test]
fn swapped_frames_are_found() {
    let whole = frames(&in_memory());
    for n in 0..whole.len() - 1 {
        let error = tampered(|frames| {
            // Each keeps its place and its hash, so that only the content tells.
            let body = frames[n].body.clone();
            frames[n].body = std::mem::replace(&mut frames[n + 1].body, body);
        });
        names(&error, &format!("event {} ", whole[n].first));
    }
}

#[test]
fn an_inserted_event_is_found() {
    let whole = frames(&in_memory());
    for n in 0..whole.len() {
        let first = whole[n].first;
        // A line that is there, once more.
        let error = tampered(|frames| {
            let line = frames[n].body.clone();
            frames[n].body.extend(line);
        });
        names(&error, &format!("event {first} "));
        // Somebody who can count and hash, but does not carry the chain on to the end.
        let error = tampered(|frames| {
            let before = n.checked_sub(1).map_or(chain::GENESIS, |n| frames[n].hash);
            let line = frames[n].body.clone();
            frames[n].body.extend(line);
            let lines = chain::lines(&frames[n].body);
            frames[n].hash = lines.fold(before, |hash, line| chain::link(&hash, line));
        });
        names(&error, "event ");
    }
}

fn change(folder: &Path, sql: &str) {
    let connection = Connection::open(folder.join(FILE)).unwrap();
    let changed = connection.execute(sql, []).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

fn examine(folder: &Path) -> Result<Report, Error> {
    let store = open(folder, 1)?;
    replay(&mut *store.reader()?)
}

/// The rows of the log: the first event that begins in each, and its body.
fn rows(connection: &Connection) -> Vec<(u64, Vec<u8>)> {
    let sql = "SELECT first, body FROM events ORDER BY first";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_same_on_disk() {
    let folder = in_folder();
    let whole = {
        let store = open(folder.path(), 1).unwrap();
        all_frames(&mut *store.reader().unwrap())
    };
    let connection = Connection::open(folder.path().join(FILE)).unwrap();
    let rows = rows(&connection);
    assert!(whole.len() > rows.len() && rows.len() > 3, "{}", rows.len());
    let put = |first: u64, body: &[u8]| {
        let sql = "UPDATE events SET body = ? WHERE first = ?";
        assert_eq!(connection.execute(sql, params![body, first]).unwrap(), 1);
    };
    let found = || {
        let error = examine(folder.path()).unwrap_err();
        assert_eq!(error.code, Code::StoreCorrupt, "{error}");
        error
    };
    // A byte of each transaction, in the row in which it begins.
    for frame in &whole {
        let row = rows.iter().rfind(|(first, _)| *first <= frame.first);
        let (first, body) = row.unwrap();
        let begins = format!("{{\"position\":{},", frame.first);
        let at = body
            .windows(begins.len())
            .position(|part| part == begins.as_bytes());
        let mut changed = body.clone();
        changed[at.unwrap() + begins.len() - 2] ^= 1;
        put(*first, &changed);
        names(&found(), &format!("event {} ", frame.first));
        put(*first, body);
    }
    // A row that begins with what was cut off the one before.
    let is_cut = |(_, body): &&(u64, Vec<u8>)| !body.starts_with(b"{\"position\":");
    let (first, body) = rows.iter().find(is_cut).unwrap();
    // Another row's, twice its own, not all of it, and nothing.
    let doubled = [&body[..], body].concat();
    for changed in [&rows[0].1, &doubled, &body[..body.len() / 2], &[]] {
        put(*first, changed);
        found();
        put(*first, body);
    }
    // What the row says of its transactions.
    let change = |column: &str, to: &str| {
        let keep = "CREATE TABLE kept AS SELECT * FROM events";
        let back = "DELETE FROM events; INSERT INTO events SELECT * FROM kept; DROP TABLE kept";
        connection.execute_batch(keep).unwrap();
        let sql = format!("UPDATE events SET {column} = {to} WHERE first = {first}");
        assert_eq!(connection.execute(&sql, []).unwrap(), 1);
        found();
        connection.execute_batch(back).unwrap();
    };
    for ends in [
        "substr(ends, 41)",
        "substr(ends, 2)",
        "CAST(ends || ends AS BLOB)",
    ] {
        change("ends", ends);
    }
    for number in ["0", "1", "1000000"] {
        change("skip", number);
    }
    change("count", "1");
    assert_eq!(examine(folder.path()).unwrap().differences, [""; 0]);
    // The transaction that was cut at the end of the row before is not whole any more.
    connection
        .execute("DELETE FROM events WHERE first = ?", [first])
        .unwrap();
    let cut = whole.iter().rfind(|frame| frame.first < *first).unwrap();
    names(&found(), &format!("event {} ", cut.first));
}

/// Cut off at its end the chain holds; but the rows know of later events.
#[test]
fn a_missing_end_is_found() {
    let folder = in_folder();
    let head = open(folder.path(), 1).unwrap().head();
    change(
        folder.path(),
        "DELETE FROM events WHERE first = (SELECT max(first) FROM events)",
    );
    let error = examine(folder.path()).unwrap_err();
    assert_eq!(error.code, Code::StoreCorrupt);
    names(&error, &format!("rows reflect event {head}"));
}

/// A hole in what recovery has to fold is found before anything is written over it.
#[test]
fn a_hole_in_the_tail_is_found_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), SEED).unwrap();
    let mut script = Script::new(SEED);
    (0..40).for_each(|_| drop(script.step(&mut store).unwrap()));
    assert!(store.rows_behind() > 0);
    drop(store);
    let rows = rows(&Connection::open(folder.path().join(FILE)).unwrap());
    let gone = rows[rows.len() - 2].0;
    change(
        folder.path(),
        &format!("DELETE FROM events WHERE first = {gone}"),
    );
    let error = open(folder.path(), 1).map(drop).unwrap_err();
    assert_eq!(error.code, Code::StoreCorrupt);
    names(&error, "event ");
}

#[test]
fn changed_rows_are_found() {
    let cases = [
        (
            "UPDATE others SET body = replace(body, '{', '{ ') WHERE kind = 'tally'",
            None,
        ),
        (
            "UPDATE tasks SET body = replace(body, '\"seq\":1', '\"seq\":9') WHERE body LIKE '%\"seq\":1,%'",
            Some("differs from what its events say"),
        ),
        (
            "DELETE FROM tasks WHERE id = (SELECT min(id) FROM tasks)",
            Some("is missing"),
        ),
        (
            "INSERT INTO others (kind, id, version, body)
             VALUES ('queue', 'made up', 1, '{\"pending\":1,\"leased\":0}')",
            Some("is stored, but no event made it"),
        ),
    ];
    for (sql, finding) in cases {
        let folder = in_folder();
        let whole = examine(folder.path()).unwrap();
        change(folder.path(), sql);
        let report = examine(folder.path()).unwrap();
        assert_eq!(report.events, whole.events);
        match finding {
            // A space between two values is the same row.
            None => assert_eq!(report.differences, [""; 0]),
            Some(finding) => {
                assert_eq!(report.differences.len(), 1, "{report:?}");
                assert!(report.differences[0].contains(finding), "{report:?}");
            }
        }
    }
}

/// A reader that meets a hole says so, rather than to step over it.
#[test]
fn a_reader_does_not_step_over_a_hole() {
    let memory = in_memory();
    let whole = frames(&memory);
    memory.tamper(|frames| drop(frames.remove(1)));
    let mut reader: Box<dyn Reader> = memory.reader().unwrap();
    let error = reader.events(0, 10_000).unwrap_err();
    names(&error, &format!("event {} is missing", whole[1].first));
}
