//! A backup put back: checked whole beside the place, then put in place by one rename.
//!
//! The copy is made in a folder beside the store's. There it is compared with the manifest, opened,
//! its hash chain walked, and its leases released; only then it gets the store's name, by one rename
//! onto nothing or by one exchange of two names. At any moment the store's folder is the old one or
//! the new one, also if the machine stops.
//!
//! A restored store is older than the world. Workers may hold leases that it knows nothing of, and
//! it knows leases that ended long ago. So every lease is released as if its worker had been lost,
//! by events in the log that say why: nobody reports with a token from before. Attempt numbers go on
//! from the backup's, and so may be given out a second time; deliberately absent is any jump of
//! them, since nobody can know how far the lost ones went.

use super::backup::{
    self, Copied, Manifest, Workplace, absolute, beside, full, hex, is_marked, is_occupied,
    lock_stores, parent, stores, sync, sync_folders, unmark, unusable,
};
use super::{LOCK, Sqlite};
use crate::{Op, Query, Request, Store, chain};
use domain::command::Command;
use domain::error::{Code, Error};
use domain::id::Ids;
use domain::state::Row;
use domain::time::Time;
use domain::worker::Presence;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the log says of every worker that the backup took for living.
pub const REASON: &str = "the store was restored from a backup";
/// Workers released in one transaction.
const RELEASED_PER_COMMIT: usize = 100;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup said of itself.
    pub manifest: Manifest,
    /// Workers whose leases were released.
    pub workers_released: usize,
    /// Where the store that was there before is now.
    pub moved_to: Option<PathBuf>,
}

/// Puts the backup in `from` into the folder `to`, and releases every lease. With `replace`, what is
/// there is moved aside, whole, and never deleted.
///
/// # Errors
/// In all of these cases nothing was changed: [`Code::RestoreExists`] when there is something at
/// `to` and `replace` is not set, or the file system cannot exchange two names;
/// [`Code::StoreLocked`] when a process works with what is there; [`Code::BackupMissing`],
/// [`Code::BackupDamaged`] or [`Code::StoreNewer`] when the backup cannot be used;
/// [`Code::BackupPath`] when a path cannot be; [`Code::StoreFull`]; [`Code::StoreIo`].
pub fn restore(
    from: &Path,
    to: &Path,
    replace: bool,
    now: Time,
    ids: &dyn Fn() -> Box<dyn Ids + Send>,
) -> Result<Restored, Error> {
    let manifest = Manifest::read(from)?;
    let from = absolute(from).map_err(|fault| unusable(from, &fault))?;
    let to = absolute(to).map_err(|fault| unusable(to, &fault))?;
    if from.starts_with(&to) || to.starts_with(&from) {
        let text = format!("{} and {} overlap", from.display(), to.display());
        return Err(Error::new(Code::BackupPath, text)
            .hint("Keep the backup outside the store's folder, and restore into another one."));
    }
    if to.is_file() || !replace {
        vacant(&to)?;
    }
    // Held until the names are changed: who waits for one of them finds that it is of another store.
    let locks = lock_stores(&to)?;
    let place = beside(&to, ".restoring");
    if place.is_dir() && !is_marked(&place) && is_occupied(&place).unwrap_or(true) {
        // A restore died after it had exchanged the names and before it gave the old one its own.
        set_aside(&place, &to)?;
    }
    let workplace = Workplace::make(place)?;
    let mut workers_released = 0;
    for store in &manifest.stores {
        let folder = workplace.path.join(&store.file);
        copy(&from.join(&store.file), &folder, store)?;
        workers_released += prepare(parent(&folder), store, now, ids())?;
    }
    sync_folders(&workplace.path)?;
    let moved_to = put_in_place(workplace, &to, replace)?;
    drop(locks);
    Ok(Restored {
        manifest,
        workers_released,
        moved_to,
    })
}

/// Refuses a place where there is something.
fn vacant(to: &Path) -> Result<(), Error> {
    if to.is_file() {
        let text = format!("{} is a file; the store is a folder", to.display());
        return Err(Error::new(Code::StorePath, text));
    }
    match is_occupied(to) {
        Ok(false) => Ok(()),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(()),
        Err(fault) => Err(unusable(to, &fault)),
        Ok(true) => {
            let what = if stores(to).is_ok() {
                "a store"
            } else {
                "something"
            };
            let text = format!("there is {what} in {} already", to.display());
            Err(Error::new(Code::RestoreExists, text))
        }
    }
}

/// Copies a file of the backup, and compares what was read with what the manifest says.
fn copy(from: &Path, to: &Path, store: &Copied) -> Result<(), Error> {
    if !from.is_file() {
        return Err(damaged(store, "is not there"));
    }
    std::fs::create_dir_all(parent(to)).map_err(|fault| unusable(to, &fault))?;
    let mut file = File::create_new(to).map_err(|fault| unusable(to, &fault))?;
    let hashed = backup::hashed(from, &mut file);
    let (bytes, sha256) = hashed.map_err(|error| match error.code {
        Code::StoreFull => full(to),
        _ => error,
    })?;
    if bytes != store.bytes {
        let text = format!("has {bytes} bytes; it had {}", store.bytes);
        return Err(damaged(store, &text));
    }
    if sha256 != store.sha256 {
        return Err(damaged(store, "was changed: its SHA-256 is another"));
    }
    file.sync_all().map_err(|fault| unusable(to, &fault))
}

/// Opens a store that is not yet in place, checks its chain, and takes the tasks from all workers.
/// How many workers that were.
fn prepare(
    folder: &Path,
    expected: &Copied,
    now: Time,
    ids: Box<dyn Ids + Send>,
) -> Result<usize, Error> {
    let not_sound = |error: Error| match error.code {
        Code::StoreCorrupt => damaged(expected, &error.message),
        _ => error,
    };
    let backend = Sqlite::open(folder).map_err(not_sound)?;
    let mut store = Store::open(Box::new(backend), ids).map_err(not_sound)?;
    let (position, hash) = chain::walk(&mut *store.reader()?).map_err(not_sound)?;
    if (position, &hex(&hash)) != (expected.position, &expected.head) {
        let text = format!("ends with another event than {}", expected.position);
        return Err(damaged(expected, &text));
    }
    store.flush()?;
    let workers = store.reader()?.rows(&Query::Workers)?;
    let living = workers.into_iter().filter_map(|(_, row)| match row {
        Row::Worker(row) if !matches!(row.presence, Presence::Gone { .. }) => {
            let (worker, reason) = (row.spec.id.clone(), REASON.to_owned());
            Some(Op::Command(Command::WorkerLose {
                worker,
                session: None,
                reason,
            }))
        }
        _ => None,
    });
    let releases: Vec<Request> = living.map(|op| Request::own(vec![op])).collect();
    for some in releases.chunks(RELEASED_PER_COMMIT) {
        for answer in store.apply(some, now)?.answers.into_iter().flatten() {
            if let crate::Answer::Outcome(outcome) = answer {
                outcome?;
            }
        }
    }
    store.close()?;
    Ok(releases.len())
}

/// Gives what was made the store's name; where what had it before is now.
fn put_in_place(workplace: Workplace, to: &Path, replace: bool) -> Result<Option<PathBuf>, Error> {
    let from = workplace.path.clone();
    if !replace || !is_occupied(to).unwrap_or(false) {
        vacant(to)?;
        // A lock that nobody holds; a rename takes the place of an empty folder only.
        if to.join(LOCK).is_file() {
            let _lock = super::lock(to)?;
            std::fs::remove_file(to.join(LOCK)).map_err(|fault| unusable(to, &fault))?;
        }
        std::fs::rename(&from, to).map_err(|fault| not_in_place(to, &fault))?;
        workplace.finish(to)?;
        return Ok(None);
    }
    // One that a restore made and could not finish has a mark still, and must never be taken for
    // something half-made once it is aside.
    unmark(to)?;
    renameat_with(CWD, &from, CWD, to, RenameFlags::EXCHANGE)
        .map_err(|fault| not_in_place(to, &fault.into()))?;
    workplace.finish(to)?;
    set_aside(&from, to).map(Some)
}

/// Moves an old store to a name that is free.
fn set_aside(old: &Path, to: &Path) -> Result<PathBuf, Error> {
    let names = (1..).map(|n: u64| beside(to, &format!(".replaced-{n}")));
    for name in names {
        match renameat_with(CWD, old, CWD, &name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                sync(parent(to))?;
                return Ok(name);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(fault) => return Err(unusable(&name, &fault.into())),
        }
    }
    unreachable!("there are more numbers than folders")
}

fn not_in_place(to: &Path, fault: &std::io::Error) -> Error {
    let text = format!("{} cannot be put in its place: {fault}", to.display());
    let (code, hint) = match fault.kind() {
        ErrorKind::DirectoryNotEmpty => (Code::RestoreExists, Code::RestoreExists.remedy()),
        ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => (
            Code::BackupPath,
            "A folder on which a disk is mounted cannot be replaced: restore into a folder below it.",
        ),
        _ => (
            Code::RestoreExists,
            "This file system cannot exchange two folders in one step: move the old one away, then restore without `--replace`.",
        ),
    };
    Error::new(code, text).hint(hint)
}

fn damaged(store: &Copied, what: &str) -> Error {
    let text = format!("{} of the backup {what}", store.file);
    Error::new(Code::BackupDamaged, text)
}

#[cfg(test)]
mod tests {
    use super::super::FILE;
    use super::*;

    #[test]
    fn what_is_set_aside_never_takes_the_place_of_something() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("store");
        for n in 1..=3 {
            let old = folder.path().join("old");
            std::fs::create_dir(&old).unwrap();
            std::fs::write(old.join(FILE), [n]).unwrap();
            let aside = set_aside(&old, &to).unwrap();
            assert_eq!(aside, folder.path().join(format!("store.replaced-{n}")));
        }
        for n in 1..=3 {
            let kept = folder.path().join(format!("store.replaced-{n}/{FILE}"));
            assert_eq!(std::fs::read(kept).unwrap(), [n]);
        }
    }
}
