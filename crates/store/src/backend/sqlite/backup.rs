//! A backup: every store below a folder, each as it stood at one instant, copied from beside the
//! process that works with it.
//!
//! A store is copied by SQLite's `VACUUM INTO`, from a connection that can only read. It is one read
//! transaction: what was acknowledged before it began is in the copy, half a commit never is, and
//! the owner goes on committing meanwhile (its log only cannot be reused until the copy is made, so
//! it grows by what is written in that time and no more). SQLite's other way, the online backup
//! interface, starts again from the first page whenever another process writes between two of its
//! steps, and may so never end; done in one step it copies the free pages too. The copy is one plain
//! file with no log beside it, and can be read on a medium that cannot be written.
//!
//! Nothing appears under the backup's name before all of it was made, checked and is on disk.
//! Deliberately absent: a schedule, rotation, compression, encryption, other machines. Programs that
//! do these take a folder.

use super::{FILE, LOCK, Sqlite, describe};
use crate::{Backend, chain};
use domain::error::{Code, Error};
use domain::time::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a backup says of itself: it is written last.
pub const MANIFEST: &str = "backup.json";
/// The folder within a store's folder that has the stores of its tenants, one folder each.
pub const TENANTS: &str = "tenants";
/// Stores in one backup, at most.
pub const STORES_MAX: usize = 10_000;
/// Bytes of a manifest, at most: four times what so many stores need.
pub const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a tenant's name, at most.
const TENANT_BYTES_MAX: usize = 63;
/// The form of the manifest.
const FORMAT: u64 = 1;
/// Bytes copied at a time.
const BLOCK_BYTES: usize = 1024 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this document.
    pub format: u64,
    /// The version of Chargehand that made it.
    pub product: String,
    /// When it was begun.
    pub made_at: Time,
    /// Each store, the default tenant's first.
    pub stores: Vec<Copied>,
}

/// One store of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Its file: `store.db`, or `tenants/NAME/store.db`.
    pub file: String,
    /// The last event's position, which is how many events there are: positions have no gap.
    pub position: u64,
    /// The hash chain's value after that event, in hexadecimal.
    pub head: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Copies every store below `from` into the new folder `to`, each as it stands at one instant, while
/// others work with them; checks the copies (SQLite's own check and the whole hash chain) and says
/// what they are. When it returns, all of it is on disk; when it fails, there is no `to`.
///
/// ```
/// use domain::{id::CountedIds, time::Time};
/// use store::{Store, backend::sqlite::{Sqlite, backup}};
/// let folder = tempfile::tempdir().unwrap();
/// let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
/// let store = Store::open(Box::new(Sqlite::open(&live)?), Box::new(CountedIds::new(1)))?;
/// let manifest = backup::backup(&live, &copy, Time(1_000))?;
/// assert_eq!(manifest.stores[0].position, store.head());
/// # Ok::<(), domain::error::Error>(())
/// ```
///
/// # Errors
/// [`Code::StoreMissing`] when there is no store; [`Code::BackupExists`] when there is something at
/// `to` already, or somebody is making it; [`Code::BackupPath`] when it cannot be made there;
/// [`Code::StoreFull`] when the disk is full there; [`Code::StoreCorrupt`] when a store is damaged;
/// [`Code::LimitExceeded`] beyond [`STORES_MAX`] stores; and those of [`Sqlite::open_to_read`].
pub fn backup(from: &Path, to: &Path, now: Time) -> Result<Manifest, Error> {
    let files = stores(from)?;
    let from = absolute(from).map_err(|fault| unusable(from, &fault))?;
    let to = absolute(to).map_err(|fault| unusable(to, &fault))?;
    if to.starts_with(&from) {
        let text = format!("{} is in the store's own folder", to.display());
        return Err(Error::new(Code::BackupPath, text));
    }
    vacant(&to)?;
    let workplace = Workplace::make(beside(&to, ".partial"))?;
    let mut copies = Vec::with_capacity(files.len());
    for file in files {
        let (from, folder) = (from.join(&file), workplace.path.join(&file));
        let (from, folder) = (parent(&from), parent(&folder));
        copy(from, folder)?;
        copies.push(examine(folder, file)?);
    }
    let manifest = Manifest {
        format: FORMAT,
        product: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now,
        stores: copies,
    };
    manifest.write(&workplace.path)?;
    sync_folders(&workplace.path)?;
    vacant(&to)?;
    std::fs::rename(&workplace.path, &to).map_err(|fault| unusable(&to, &fault))?;
    workplace.finish(&to)?;
    Ok(manifest)
}

/// The files of the stores below a folder, as they are named in a manifest.
///
/// # Errors
/// [`Code::StoreMissing`] when there is none; [`Code::LimitExceeded`]; [`Code::StorePath`] when the
/// folder cannot be listed.
pub(super) fn stores(folder: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let unreadable = |fault: std::io::Error| {
        let text = format!("{} cannot be listed: {fault}", folder.display());
        Error::new(Code::StorePath, text)
    };
    match std::fs::read_dir(folder.join(TENANTS)) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(unreadable)?.file_name();
                let file = name.to_str().map(|name| format!("{TENANTS}/{name}/{FILE}"));
                let file = file.filter(|file| is_store(file) && folder.join(file).is_file());
                found.extend(file);
            }
        }
        Err(fault) if matches!(fault.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(fault) => return Err(unreadable(fault)),
    }
    found.sort_unstable();
    if folder.join(FILE).is_file() {
        found.insert(0, FILE.to_owned());
    }
    if found.is_empty() {
        let text = format!("there is no store in {}", folder.display());
        return Err(Error::new(Code::StoreMissing, text));
    }
    if found.len() > STORES_MAX {
        return Err(Error::limit("stores", found.len(), STORES_MAX));
    }
    Ok(found)
}

/// Whether a manifest may name this file. What is read from one is joined to a folder's path.
fn is_store(file: &str) -> bool {
    let tenant = file
        .strip_prefix(TENANTS)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_suffix(FILE))
        .and_then(|rest| rest.strip_suffix('/'));
    file == FILE
        || tenant.is_some_and(|name| {
            (1..=TENANT_BYTES_MAX).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// Copies one store as it stands at this instant.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let file = to.join(FILE);
    let Some(name) = file.to_str() else {
        let text = format!("{} is not text in UTF-8", to.display());
        return Err(Error::new(Code::BackupPath, text));
    };
    std::fs::create_dir_all(to).map_err(|fault| unusable(to, &fault))?;
    // A copy of an old form is brought up to date where it is restored.
    let (source, _) = Sqlite::open_in_any_form(from)?;
    source
        .connection
        .execute("VACUUM INTO ?", [name])
        .map_err(|fault| {
            // Which of the two files failed, SQLite does not say; only the copy is written.
            match describe(&source.path, &fault) {
                error if error.code == Code::StoreFull => full(to),
                error => error,
            }
        })?;
    let copied = File::open(&file).and_then(|copied| copied.sync_all());
    copied.map_err(|fault| unusable(&file, &fault))
}

/// Reads a copy from its first byte to its last, and says what it is.
fn examine(folder: &Path, file: String) -> Result<Copied, Error> {
    let check = Sqlite::check(folder)?;
    if check != "ok" {
        let text = format!("{file} does not copy whole: {check}");
        return Err(Error::new(Code::StoreCorrupt, text));
    }
    let (mut store, _) = Sqlite::open_in_any_form(folder)?;
    let head = store.head()?;
    let walked = chain::walk(&mut *store.reader()?)?;
    if walked != (head.position, head.hash) {
        return Err(Error::new(
            Code::StoreCorrupt,
            format!("{file}: its head is not where its events end"),
        ));
    }
    let path = folder.join(FILE);
    let (bytes, sha256) = hashed(&path, &mut std::io::sink())?;
    Ok(Copied {
        file,
        position: head.position,
        head: hex(&head.hash),
        bytes,
        sha256,
    })
}

/// Reads a file to its end, passing it on: its length and its SHA-256.
pub(super) fn hashed(path: &Path, to: &mut dyn Write) -> Result<(u64, String), Error> {
    let unreadable = |fault: std::io::Error| {
        let text = format!("{} cannot be copied: {fault}", path.display());
        match fault.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(path),
            _ => Error::new(Code::StoreIo, text),
        }
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut block, mut sha, mut bytes) = (vec![0; BLOCK_BYTES], Sha256::new(), 0);
    loop {
        let read = match file.read(&mut block) {
            Ok(0) => return Ok((bytes, hex(&sha.finalize()))),
            Ok(read) => &block[..read],
            Err(fault) if fault.kind() == ErrorKind::Interrupted => continue,
            Err(fault) => return Err(unreadable(fault)),
        };
        sha.update(read);
        to.write_all(read).map_err(unreadable)?;
        bytes += read.len() as u64;
    }
}

impl Manifest {
    /// Reads the manifest of the backup in `folder`. What it says is not yet checked.
    ///
    /// # Errors
    /// [`Code::BackupMissing`] when there is none, [`Code::StoreNewer`] when a newer version made
    /// it, [`Code::BackupDamaged`] when it cannot be read.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let damaged = |what: &str| {
            let text = format!("{}: {what}", path.display());
            Error::new(Code::BackupDamaged, text)
        };
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(MANIFEST_BYTES_MAX + 1)
                .read_to_end(&mut text)
                .map_err(|fault| damaged(&fault.to_string()))?,
            Err(fault)
                if matches!(fault.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                let text = format!("there is no {MANIFEST} in {}", folder.display());
                return Err(Error::new(Code::BackupMissing, text));
            }
            Err(fault) => {
                let text = format!("{} cannot be read: {fault}", path.display());
                return Err(Error::new(Code::BackupPath, text));
            }
        };
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(damaged(&format!(
                "it is longer than {MANIFEST_BYTES_MAX} bytes"
            )));
        }
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|fault| damaged(&fault.to_string()))?;
        // Looked at before the rest, which only a newer version may be able to read.
        if let Some(format) = value["format"].as_u64().filter(|format| *format > FORMAT) {
            let text = format!(
                "{} has form {format}; this version knows forms up to {FORMAT}",
                path.display()
            );
            return Err(Error::new(Code::StoreNewer, text));
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|fault| damaged(&fault.to_string()))?;
        if manifest.format == 0 || !(1..=STORES_MAX).contains(&manifest.stores.len()) {
            return Err(damaged("it lists no stores, or too many"));
        }
        let mut names = std::collections::HashSet::new();
        for store in &manifest.stores {
            if !is_store(&store.file) || !names.insert(store.file.as_str()) {
                return Err(damaged(&format!("it lists “{}”", store.file)));
            }
        }
        Ok(manifest)
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
        text.push(b'\n');
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|fault| unusable(&path, &fault))
    }
}

/// A folder in which something is being made that has its name only when it is whole.
///
/// It is locked for as long as it is worked in, and marked. One that is marked and not locked was
/// left behind by a process that died, and may be removed; one without a mark is never removed,
/// whatever its name.
#[derive(Debug)]
pub(super) struct Workplace {
    pub(super) path: PathBuf,
    lock: File,
    /// It has its name: nothing of it is removed any more.
    is_whole: bool,
}

/// The mark.
const MARK: &str = "unfinished";

impl Workplace {
    /// Makes the folder, in the place of what a process that died left there.
    pub(super) fn make(path: PathBuf) -> Result<Self, Error> {
        let failed = |fault: std::io::Error| unusable(&path, &fault);
        std::fs::create_dir_all(parent(&path)).map_err(failed)?;
        if std::fs::symlink_metadata(&path).is_ok() {
            let _lock = own(&path)?;
            let is_empty = std::fs::read_dir(&path).map_err(failed)?.next().is_none();
            if !is_empty && !path.join(MARK).is_file() {
                let text = format!("{} is there, and is not ours to replace", path.display());
                return Err(Error::new(Code::BackupExists, text)
                    .hint("Look at what it is, and move it away or choose another name."));
            }
            remove_marked(&path).map_err(failed)?;
        }
        std::fs::create_dir(&path).map_err(failed)?;
        let lock = own(&path)?;
        let workplace = Self {
            path,
            lock,
            is_whole: false,
        };
        let mark = File::create(workplace.path.join(MARK));
        mark.and_then(|mark| mark.sync_all())
            .map_err(|fault| unusable(&workplace.path, &fault))?;
        Ok(workplace)
    }

    /// What was made has its name now: takes the mark away, and makes all of it last.
    pub(super) fn finish(mut self, path: &Path) -> Result<(), Error> {
        self.is_whole = true;
        sync(parent(path))?;
        unmark(path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.is_whole && is_same(&self.lock, &self.path) {
            let _ = remove_marked(&self.path);
        }
    }
}

/// Removes a folder that is marked, and its mark last: whoever is killed meanwhile leaves one that
/// may still be removed.
fn remove_marked(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != MARK {
            std::fs::remove_file(entry.path())?;
        }
    }
    File::open(folder)?.sync_all()?;
    std::fs::remove_dir_all(folder)
}

/// Takes the mark away from a folder that has one.
pub(super) fn unmark(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_file(folder.join(MARK)) {
        Ok(()) => sync(folder),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(()),
        Err(fault) => Err(unusable(folder, &fault)),
    }
}

/// Whether a folder was made in a workplace and not finished.
pub(super) fn is_marked(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

/// Locks a folder that somebody may be working in.
fn own(path: &Path) -> Result<File, Error> {
    let busy = || {
        let text = format!("another process is working in {}", path.display());
        Error::new(Code::BackupExists, text).hint("Wait until it is done, or choose another name.")
    };
    let lock = File::open(path).map_err(|fault| unusable(path, &fault))?;
    match lock.try_lock() {
        // The one before may have given it its name in the meantime.
        Ok(()) if is_same(&lock, path) => Ok(lock),
        Ok(()) | Err(std::fs::TryLockError::WouldBlock) => Err(busy()),
        Err(std::fs::TryLockError::Error(fault)) => Err(unusable(path, &fault)),
    }
}

/// Whether this open file is still the one at this path.
pub(super) fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Refuses a path at which there is something.
fn vacant(to: &Path) -> Result<(), Error> {
    if std::fs::symlink_metadata(to).is_err() {
        return Ok(());
    }
    let text = format!("{} is there already", to.display());
    Err(Error::new(Code::BackupExists, text))
}

/// The path without links as far as there is something, and without anything else that hides where
/// it leads.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    let (mut at, mut rest) = (whole.as_path(), Vec::new());
    loop {
        match at.canonicalize() {
            Ok(found) => {
                return Ok(rest.iter().rev().fold(found, |path, name| path.join(name)));
            }
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
                    return Err(fault);
                };
                rest.push(name);
                at = above;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// A path beside this one.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes the names in a folder last.
pub(super) fn sync(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|fault| unusable(folder, &fault))
}

/// Makes the names in a folder of stores last, and in the folders below.
pub(super) fn sync_folders(folder: &Path) -> Result<(), Error> {
    let tenants = folder.join(TENANTS);
    for file in stores(folder)? {
        sync(parent(&folder.join(file)))?;
    }
    if tenants.is_dir() {
        sync(&tenants)?;
    }
    sync(folder)
}

/// What the system says of a path that was to be written, in the words of the product.
pub(super) fn unusable(path: &Path, fault: &std::io::Error) -> Error {
    match fault.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(path),
        _ => Error::new(Code::BackupPath, format!("{}: {fault}", path.display())),
    }
}

pub(super) fn full(path: &Path) -> Error {
    let text = format!("{}: the disk is full", path.display());
    Error::new(Code::StoreFull, text).hint(
        "Free some space there, or choose another place. The store was not changed, and nothing half-made was left.",
    )
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lock of each store below a folder, as whoever opens it would take it.
pub(super) fn lock_stores(folder: &Path) -> Result<Vec<File>, Error> {
    let Ok(files) = stores(folder) else {
        return Ok(Vec::new());
    };
    let locks = files.iter().map(|file| {
        let folder = folder.join(file);
        super::lock(parent(&folder))
    });
    locks.collect()
}

/// Whether there is anything in a folder but a lock that was left behind.
pub(super) fn is_occupied(folder: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        if entry?.file_name() != LOCK {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_stores_and_no_other_files() {
        let long = format!("tenants/{}/store.db", "a".repeat(TENANT_BYTES_MAX));
        for file in [
            "store.db",
            "tenants/a/store.db",
            "tenants/a-1/store.db",
            &long,
        ] {
            assert!(is_store(file), "{file}");
        }
        let longer = format!("tenants/{}/store.db", "a".repeat(TENANT_BYTES_MAX + 1));
        for file in [
            "",
            "/store.db",
            "../store.db",
            "other.db",
            "tenants/store.db",
            "tenants//store.db",
            "tenants/../store.db",
            "tenants/A/store.db",
            "tenants/a/b/store.db",
            "tenants/a/store.db/",
            "tenants/a",
            &longer,
        ] {
            assert!(!is_store(file), "{file}");
        }
    }
}
