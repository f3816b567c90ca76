//! What the tests share: folders, stores over them, and what a store shows.

use domain::error::Error;
use domain::id::CountedIds;
use domain::state::{Key, Row};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use store::backend::sqlite::Sqlite;
use store::{Backend, Query, Reader, Store, StoredFrame};
use tempfile::TempDir;

/// A folder for files whose durability is not what a test is about: in memory where there is such
/// a place.
pub(crate) fn fast_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(folder) = tempfile::tempdir_in(memory)
    {
        return folder;
    }
    tempfile::tempdir().unwrap()
}

/// A store over a backend, with ids that a seed decides.
pub(crate) fn over(backend: Box<dyn Backend>, seed: u64) -> Result<Store, Error> {
    Store::open(backend, Box::new(CountedIds::new(seed)))
}

/// A store in a folder.
pub(crate) fn open(folder: &Path, seed: u64) -> Result<Store, Error> {
    over(Box::new(Sqlite::open(folder)?), seed)
}

/// Every row, in pages of a size that does not divide anything.
pub(crate) fn all_rows(reader: &mut dyn Reader) -> Vec<(Key, Row)> {
    let mut rows = Vec::new();
    loop {
        let after = rows.last().map(|(key, _): &(Key, Row)| key.clone());
        let page = reader.rows(&Query::All { after, limit: 7 }).unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

/// Every frame.
pub(crate) fn all_frames(reader: &mut dyn Reader) -> Vec<StoredFrame> {
    reader.frames(0, usize::MAX).unwrap()
}

const FOLDER: &str = "CHARGEHAND_TEST_FOLDER";

/// Another process that runs one test of this binary over `folder`, started by `wrapper`: a shell
/// script that ends in `exec "$0" "$@"`, run by the words before it.
pub(crate) fn child(wrapper: &[&str], test: &str, folder: &Path) -> Output {
    let me = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(OsStr::new).chain([me.as_os_str()]);
    Command::new(words.next().unwrap())
        .args(words)
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .unwrap()
}

/// The folder, in such a process; elsewhere such a test does nothing.
pub(crate) fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// How to start a process with mounts of its own, which vanish with it: as root, or as root of a
/// user namespace. `None` where neither is allowed.
pub(crate) fn own_mounts() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [
        &["unshare", "--mount"],
        &["unshare", "--user", "--map-root-user", "--mount"],
    ];
    let works = |way: &&&[&str]| {
        Command::new(way[0])
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "none", "/tmp"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    ways.iter().find(works).copied()
}

/// What a child said, when its test passed.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fault = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{fault}");
    assert!(text.contains("1 passed"), "no such test: {text}\n{fault}");
    text
}
