//! What the tests share: folders, stores over them, and what a store shows.

use domain::error::Error;
use domain::id::CountedIds;
use domain::state::{Key, Row};
use std::path::Path;
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
