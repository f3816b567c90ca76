//! What can be wrong with a place for a store: each has its code, names the path, says what to do,
//! and harms nothing that is there.

use crate::world::{child, child_folder, open, own_mounts, said};
use domain::command::{Command, Submission};
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use domain::time::Time;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::backend::sqlite::{FILE, LOCK, Sqlite};
use store::replay::{Report, replay};
use store::{Op, Request, Store};

/// Opening at `path` is refused with this code.
#[track_caller]
fn refused(path: &Path, code: Code) -> Error {
    let error = Sqlite::open(path).expect_err("this cannot be opened");
    assert_eq!(error.code, code, "{error}");
    let shown = path.display().to_string();
    assert!(error.message.contains(&shown), "{error} names {shown}");
    assert!(error.hint.len() > 10, "{error:?}");
    error
}

/// The bytes of every file there that has any, but for the lock and SQLite's index of its log, which
/// is made anew at will.
fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file() && !path.ends_with(LOCK) && !path.ends_with("store.db-shm"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect()
}

fn submit(store: &mut Store, count: usize) {
    for n in 0..count {
        let input = Json::from_value(&serde_json::json!({"n": n, "text": "x".repeat(500)}));
        let spec = TaskSpec::new(Name::literal("part"), input);
        let ops = vec![Op::Command(Command::TaskSubmit(Submission::new(spec)))];
        store.apply(&[Request::own(ops)], Time(1_000)).unwrap();
    }
}

/// A store with so many tasks, closed.
fn filled(folder: &Path, tasks: usize) {
    let mut store = open(folder, 1).unwrap();
    submit(&mut store, tasks);
    store.flush().unwrap();
}

/// It opens, and its rows are what its events say.
#[track_caller]
fn sound(folder: &Path, tasks: usize) {
    let store = open(folder, 2).unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!((report.events, report.differences), (tasks as u64, vec![]));
}

#[test]
fn missing_folders_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/yet/there");
    filled(&path, 2);
    sound(&path, 2);
}

#[test]
fn a_file_is_not_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "keep me").unwrap();
    let error = refused(&path, Code::StorePath);
    assert!(error.message.contains("is a file"), "{error}");
    refused(&path.join("below"), Code::StorePath);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep me");
    std::fs::remove_file(&path).unwrap();
    filled(&path, 1);
    sound(&path, 1);
}

#[test]
fn a_folder_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join(FILE);
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("photo"), "keep me").unwrap();
    refused(folder.path(), Code::StorePath);
    assert_eq!(
        std::fs::read_to_string(inside.join("photo")).unwrap(),
        "keep me"
    );
    std::fs::remove_dir_all(&inside).unwrap();
    filled(folder.path(), 1);
    sound(folder.path(), 1);
}

#[test]
fn garbage_is_not_a_store() {
    let text = b"Dear diary,\n".repeat(900);
    let noise: Vec<u8> = (0..20_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut broken = b"SQLite format 3\0".to_vec();
    broken.extend_from_slice(&noise);
    for garbage in [&b"xy"[..], &text, &noise, &broken] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), garbage).unwrap();
        let before = bytes(folder.path());
        refused(folder.path(), Code::StoreCorrupt);
        assert_eq!(bytes(folder.path()), before);
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        filled(folder.path(), 1);
        sound(folder.path(), 1);
    }
}

/// A file that was made and not yet written, when its process died, is a new store.
#[test]
fn an_empty_file_is_a_new_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "").unwrap();
    filled(folder.path(), 1);
    sound(folder.path(), 1);
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let theirs = Connection::open(&path).unwrap();
    theirs
        .execute_batch("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('a')")
        .unwrap();
    drop(theirs);
    let before = bytes(folder.path());
    let error = refused(folder.path(), Code::StoreCorrupt);
    assert!(error.message.contains("not a store"), "{error}");
    assert_eq!(bytes(folder.path()), before);
}

/// What is left of a store whose process was killed: its file, its log, no index of the log.
fn killed(from: &Path, to: &Path) {
    for file in [FILE, "store.db-wal"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

fn set_form(connection: &Connection, form: i64) {
    connection
        .pragma_update(None, "user_version", form)
        .unwrap();
}

fn form(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

// S3-13: the file says which form it has; each form has its migration; a newer one is refused.
#[test]
fn a_newer_form_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    filled(folder.path(), 3);
    let known = form(&path);
    assert_eq!(known, 3, "as many as there are migrations");
    set_form(&Connection::open(&path).unwrap(), known + 1);
    let before = bytes(folder.path());
    let error = refused(folder.path(), Code::StoreNewer);
    assert!(error.message.contains("form 4"), "{error}");
    assert_eq!(bytes(folder.path()), before);
    set_form(&Connection::open(&path).unwrap(), known);
    sound(folder.path(), 3);
    assert_eq!(form(&path), known);
}

/// The same when the newer version was killed and its last writes are in the log: closing must not
/// move them, for only that version knows how.
#[test]
fn a_newer_form_with_unfinished_business_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer");
    filled(&newer, 3);
    let connection = Connection::open(newer.join(FILE)).unwrap();
    set_form(&connection, 4);
    connection
        .execute_batch("CREATE TABLE tomorrow (x TEXT)")
        .unwrap();
    let rest = folder.path().join("rest");
    std::fs::create_dir(&rest).unwrap();
    killed(&newer, &rest);
    let before = bytes(&rest);
    assert!(!before[&rest.join("store.db-wal")].is_empty());
    refused(&rest, Code::StoreNewer);
    assert_eq!(bytes(&rest), before);
}

#[test]
fn a_store_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 1).unwrap();
    submit(&mut store, 1);
    let error = refused(folder.path(), Code::StoreLocked);
    assert!(error.message.contains("another process"), "{error}");
    assert!(error.hint.contains("--store"), "{error:?}");
    let output = child(&[], "opening::child_that_comes_second", folder.path());
    assert!(said(&output).contains("refused: store.locked"));
    // The owner has noticed nothing.
    submit(&mut store, 1);
    let reader = store.reader().unwrap();
    drop(store);
    refused(folder.path(), Code::StoreLocked);
    drop(reader);
    sound(folder.path(), 2);
}

#[test]
fn child_that_comes_second() {
    let Some(folder) = child_folder() else { return };
    let error = refused(&folder, Code::StoreLocked);
    println!("refused: {}", error.code);
}

/// A process that dies without a farewell leaves no lock and loses no acknowledged task.
// S3-111, S3-134: what `apply` acknowledged is on disk before it returns.
#[test]
fn the_next_process_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut tasks = 0;
    for _ in 0..3 {
        let output = child(&[], "opening::child_that_dies", folder.path());
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        tasks += text.matches("acknowledged").count();
        assert!(tasks > 0, "{text}");
        let store = open(folder.path(), 2).unwrap();
        assert_eq!(store.head(), tasks as u64);
        assert_eq!(store.index().ready(), tasks);
    }
    sound(folder.path(), tasks);
}

#[test]
fn child_that_dies() {
    let Some(folder) = child_folder() else { return };
    let mut store = open(&folder, u64::from(std::process::id())).unwrap();
    store.set_windows(100, 7);
    for _ in 0..20 {
        submit(&mut store, 1);
        println!("acknowledged");
    }
    std::process::abort();
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    filled(&old, 3);
    std::fs::create_dir(&new).unwrap();
    let before = bytes(&old);
    let Some(mounts) = own_mounts() else {
        eprintln!(
            "a folder can only be mounted read-only by root, or in a user namespace, and here \
             neither is allowed: a place in which nobody can make a folder is tested instead"
        );
        refused(Path::new("/proc/chargehand"), Code::StorePath);
        return;
    };
    let disk = "mount --bind \"$CHARGEHAND_TEST_FOLDER\" \"$CHARGEHAND_TEST_FOLDER\" && \
                mount -o remount,ro,bind \"$CHARGEHAND_TEST_FOLDER\" && exec \"$0\" \"$@\"";
    let wrapper = [mounts, &["sh", "-c", disk]].concat();
    let output = child(
        &wrapper,
        "opening::child_in_a_read_only_place",
        folder.path(),
    );
    assert!(said(&output).contains("refused three times"));
    assert_eq!(bytes(&old), before);
    sound(&old, 3);
}

#[test]
fn child_in_a_read_only_place() {
    let Some(folder) = child_folder() else { return };
    for place in ["old", "new", "nowhere"] {
        refused(&folder.join(place), Code::StorePath);
    }
    println!("refused three times");
}

/// Opens, recovers, reads everything.
fn examine(folder: &Path) -> Result<Report, Error> {
    let store = open(folder, 2)?;
    replay(&mut *store.reader()?)
}

#[test]
fn a_damaged_page_is_found_and_not_made_worse() {
    const PAGE: usize = 8192;
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 150);
    let path = folder.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 20 * PAGE && whole.len().is_multiple_of(PAGE));
    let mut unseen = 0;
    for page in 0..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        match examine(folder.path()) {
            Err(error) => assert_eq!(error.code, Code::StoreCorrupt, "page {page}: {error}"),
            Ok(report) if report.differences.is_empty() => unseen += 1,
            Ok(_) => {}
        }
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "page {page}");
    }
    // Two indexes, over failed tasks and over boards, repeat what is in the rows; they are empty
    // here, and nothing of this reads them.
    assert!(unseen <= 2, "{unseen} damaged pages were not noticed");
    std::fs::write(&path, &whole).unwrap();
    sound(folder.path(), 150);
}

#[test]
fn a_file_cut_short_is_found_and_not_made_worse() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 150);
    let path = folder.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    for keep in [
        50,
        100,
        1_000,
        8_192,
        whole.len() / 2,
        whole.len() - 8_192,
        whole.len() - 1,
    ] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let error = examine(folder.path()).expect_err("some of it is gone");
        assert_eq!(error.code, Code::StoreCorrupt, "{keep} bytes: {error}");
        assert!(
            error.message.contains(&path.display().to_string()),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), whole[..keep], "{keep} bytes");
    }
    std::fs::write(&path, &whole).unwrap();
    sound(folder.path(), 150);
}
