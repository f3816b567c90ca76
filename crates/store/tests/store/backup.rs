//! Backup and restore: a copy is one committed state, made while others write; what cannot be
//! restored whole is not restored at all.

use crate::world::{
    all_frames, all_rows, child, child_folder, fast_folder, open, own_mounts, said,
};
use domain::command::{Claimant, Command, Report, Submission};
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Event};
use domain::id::{CountedIds, Ids};
use domain::json::Json;
use domain::name::Name;
use domain::task::{AttemptEnd, TaskSpec};
use domain::time::Time;
use domain::worker::WorkerSpec;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::backend::sqlite::backup::{self, MANIFEST, MANIFEST_BYTES_MAX, STORES_MAX, backup};
use store::backend::sqlite::restore::{REASON, Restored, restore};
use store::backend::sqlite::{FILE, Sqlite};
use store::replay::replay;
use store::{Answer, Backend, Op, Request, Store};

const NOW: Time = Time(1_700_000_000_000);

fn apply(store: &mut Store, op: Op) -> Answer {
    let ops = vec![op];
    let applied = store.apply(&[Request::own(ops)], NOW);
    applied.unwrap().answers.remove(0).remove(0)
}

fn submit(store: &mut Store, count: usize) {
    for n in 0..count {
        let input = Json::from_value(&json!({"n": n, "text": "x".repeat(500)}));
        let spec = TaskSpec::new(Name::literal("part"), input);
        apply(
            store,
            Op::Command(Command::TaskSubmit(Submission::new(spec))),
        );
    }
}

/// A worker, and the task that it was given.
fn lease(store: &mut Store, worker: &'static str) -> AttemptRef {
    let worker = Name::literal(worker);
    let spec = Arc::new(WorkerSpec::new(worker.clone()));
    apply(store, Op::Command(Command::WorkerRegister(spec)));
    let claim = Op::Claim {
        by: Claimant::new(worker, true),
        max: 1,
    };
    match apply(store, claim) {
        Answer::Claimed(Ok(mut claimed)) => claimed.remove(0).lease,
        other => panic!("{other:?}"),
    }
}

/// Changes what event 7 of a filled store says, in the row of the log that has it.
const FORGE: &str = r#"UPDATE events SET body = CAST(replace(CAST(body AS TEXT),
    '"position":7,"at":', '"position":7,"at":1') AS BLOB)
    WHERE first = (SELECT max(first) FROM events WHERE first <= 7)"#;

fn filled(folder: &Path, tasks: usize) {
    // Filled twice, it has other ids the second time.
    static SEED: AtomicU64 = AtomicU64::new(100);
    let mut store = open(folder, SEED.fetch_add(1, Ordering::SeqCst)).unwrap();
    submit(&mut store, tasks);
    store.close().unwrap();
}

fn ids() -> Box<dyn Ids + Send> {
    Box::new(CountedIds::new(9))
}

fn put_back(from: &Path, to: &Path, replace: bool) -> Result<Restored, Error> {
    restore(from, to, replace, NOW, &ids)
}

/// It opens, and its rows are what its events say.
#[track_caller]
fn sound(folder: &Path, events: u64) {
    let mut store = open(folder, 2).unwrap();
    store.flush().unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!((report.events, report.differences), (events, vec![]));
}

/// Every file below that has any bytes, and what is in it: but for SQLite's index of its log, which
/// is made anew at will.
fn prints(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("store.db-shm") {
                let bytes = std::fs::read(&path).unwrap();
                if !bytes.is_empty() {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    found.insert(name, sha256(&bytes));
                }
            }
        }
    }
    found
}

fn sha256(bytes: &[u8]) -> String {
    let sha = Sha256::digest(bytes);
    sha.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort_unstable();
    names
}

/// Restoring is refused with this code, and leaves `folder` as it was.
#[track_caller]
fn refused(from: &Path, to: &Path, replace: bool, code: Code, folder: &Path) -> Error {
    let before = (names(folder), prints(folder));
    let error = put_back(from, to, replace).expect_err("this cannot be restored");
    assert_eq!(error.code, code, "{error}");
    assert!(error.hint.len() > 10, "{error:?}");
    assert_eq!((names(folder), prints(folder)), before, "{error}");
    error
}

/// Writes go on all the time, rows are behind the events, and yet each copy is one committed state
/// that has all that was acknowledged before it was begun.
#[test]
fn a_copy_is_one_committed_state_while_others_write() {
    const TASKS_MAX: u64 = 50_000;
    let folder = fast_folder();
    let live = folder.path().join("live");
    let mut store = open(&live, 1).unwrap();
    store.set_windows(200, 50);
    submit(&mut store, 500);
    let acknowledged = AtomicU64::new(store.head());
    let enough = AtomicBool::new(false);
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::SeqCst) && store.head() < TASKS_MAX {
                submit(&mut store, 1);
                acknowledged.store(store.head(), Ordering::SeqCst);
            }
        });
        let mut went_on = false;
        // A few, and more if the machine is so busy that the owner never had its turn meanwhile.
        while backups.len() < 200 && (backups.len() < 6 || !went_on) {
            let to = folder.path().join(format!("backup-{}", backups.len()));
            let before = acknowledged.load(Ordering::SeqCst);
            let manifest = backup(&live, &to, NOW);
            went_on |= acknowledged.load(Ordering::SeqCst) > before;
            backups.push((to, before, manifest));
        }
        enough.store(true, Ordering::SeqCst);
        assert!(
            went_on,
            "the owner could not write during any of the backups"
        );
    });
    let truth = all_frames(&mut *store.reader().unwrap());
    for (to, before, manifest) in backups {
        let manifest = manifest.unwrap();
        let [copy] = manifest.stores.as_slice() else {
            panic!("{manifest:?}")
        };
        assert!(
            copy.position >= before,
            "{before} were acknowledged: {copy:?}"
        );
        assert_eq!(backup::Manifest::read(&to).unwrap(), manifest);
        assert_eq!(
            names(&to),
            [MANIFEST, FILE],
            "one plain file, no log beside it"
        );
        let restored = folder.path().join("restored");
        let done = put_back(&to, &restored, false).unwrap();
        assert_eq!((done.workers_released, done.moved_to), (0, None));
        sound(&restored, copy.position);
        let frames = all_frames(&mut *open(&restored, 3).unwrap().reader().unwrap());
        for (copied, frame) in frames.iter().zip(&truth) {
            assert_eq!((&copied.body, copied.hash), (&frame.body, frame.hash));
        }
        std::fs::remove_dir_all(&restored).unwrap();
    }
}

// S0-205: with nobody at work, what comes back is equal, event by event and row by row.
// S4-66: each tenant has a database of its own.
#[test]
fn state_comes_back_equal_for_every_tenant() {
    let folder = fast_folder();
    let live = folder.path().join("live");
    let tenants = [
        ("", 3),
        ("tenants/acme", 5),
        ("tenants/zz-9", 7),
        ("tenants/Not A Tenant", 1),
    ];
    for (tenant, tasks) in tenants {
        filled(&live.join(tenant), tasks);
    }
    std::fs::create_dir(live.join("tenants/empty")).unwrap();
    let (copy, back) = (folder.path().join("copy"), folder.path().join("back"));
    let manifest = backup(&live, &copy, NOW).unwrap();
    let files: Vec<_> = manifest
        .stores
        .iter()
        .map(|store| (store.file.as_str(), store.position))
        .collect();
    let expected = [
        ("store.db", 3),
        ("tenants/acme/store.db", 5),
        ("tenants/zz-9/store.db", 7),
    ];
    assert_eq!(files, expected);
    put_back(&copy, &back, false).unwrap();
    for (tenant, tasks) in &tenants[..3] {
        sound(&back.join(tenant), *tasks as u64);
        let content = |folder: &Path| {
            let store = open(&folder.join(tenant), 4).unwrap();
            let mut reader = store.reader().unwrap();
            (all_rows(&mut *reader), store.hash())
        };
        assert_eq!(content(&live), content(&back), "{tenant}");
    }
    assert_eq!(names(&back.join("tenants")), ["acme", "zz-9"]);
    // Only tenants and no default: that is all there is, and it is kept.
    std::fs::remove_file(live.join(FILE)).unwrap();
    let manifest = backup(&live, &folder.path().join("fewer"), NOW).unwrap();
    assert_eq!(manifest.stores.len(), 2);
}

/// The world is ahead of the store: who holds a task may have finished it long ago. Every lease is
/// released by events that say why, and nobody reports with one from before.
#[test]
fn a_restored_store_has_no_leases_and_says_why() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    let mut store = open(&live, 1).unwrap();
    submit(&mut store, 2);
    let leased = lease(&mut store, "worker_a");
    let manifest = backup(&live, &copy, NOW).unwrap();
    let report = || Report::Completed {
        output: Json::default(),
    };
    let complete = |lease: &AttemptRef| {
        Op::Command(Command::TaskReport {
            lease: lease.clone(),
            report: report(),
        })
    };
    assert!(matches!(
        apply(&mut store, complete(&leased)),
        Answer::Outcome(Ok(_))
    ));
    drop(store);
    let done = put_back(&copy, &live, true).unwrap();
    assert_eq!(done.workers_released, 1);
    let mut store = open(&live, 2).unwrap();
    let position = manifest.stores[0].position;
    let released: Vec<Event> = store
        .reader()
        .unwrap()
        .events(position, 100)
        .unwrap()
        .into_iter()
        .map(|recorded| recorded.event)
        .collect();
    let [
        Event::AttemptEnded {
            lease,
            end: AttemptEnd::Lost,
            ..
        },
        Event::WorkerLost { reason, .. },
    ] = released.as_slice()
    else {
        panic!("{released:#?}")
    };
    assert_eq!((lease, reason.as_str()), (&leased, REASON));
    match apply(&mut store, complete(&leased)) {
        Answer::Outcome(Err(error)) => assert_eq!(error.code, Code::AttemptStale),
        other => panic!("a token from before was taken: {other:?}"),
    }
    let again = self::lease(&mut store, "worker_b");
    assert_eq!(
        (again.task, again.attempt),
        (leased.task, leased.attempt + 1)
    );
    drop(store);
    // It was lost, and then given out; replayed, that is what the rows say.
    let events = open(&live, 3).unwrap().head();
    sound(&live, events);
}

#[test]
fn what_is_there_is_moved_aside_and_never_deleted() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 3);
    backup(&live, &copy, NOW).unwrap();
    filled(&live, 2);
    std::fs::write(live.join("notes.txt"), "keep me").unwrap();
    let error = refused(&copy, &live, false, Code::RestoreExists, folder.path());
    assert!(error.hint.contains("--replace"), "{error:?}");
    for n in 1..=2 {
        let before = prints(&live);
        let done = put_back(&copy, &live, true).unwrap();
        let aside = done.moved_to.unwrap();
        assert!(aside.ends_with(format!("live.replaced-{n}")), "{aside:?}");
        assert_eq!(prints(&aside), before);
        sound(&live, 3);
    }
    sound(&folder.path().join("live.replaced-1"), 5);
    assert_eq!(
        names(folder.path()),
        ["copy", "live", "live.replaced-1", "live.replaced-2"]
    );
}

#[test]
fn a_store_that_is_worked_with_is_not_replaced() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    for tenant in ["", "tenants/a"] {
        filled(&live.join(tenant), 2);
    }
    backup(&live, &copy, NOW).unwrap();
    for tenant in ["", "tenants/a"] {
        let mut owner = open(&live.join(tenant), 2).unwrap();
        let error = put_back(&copy, &live, true).unwrap_err();
        assert_eq!(error.code, Code::StoreLocked, "{error}");
        submit(&mut owner, 1);
        owner.close().unwrap();
        drop(owner);
        sound(&live.join(tenant), 3);
    }
    assert_eq!(names(folder.path()), ["copy", "live"]);
}

#[test]
fn an_empty_place_and_one_with_an_old_lock_are_no_obstacle() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 3);
    backup(&live, &copy, NOW).unwrap();
    for replace in [false, true] {
        let to = folder.path().join("a/b").join(format!("to-{replace}"));
        put_back(&copy, &to, replace).unwrap();
        sound(&to, 3);
        std::fs::remove_file(to.join(FILE)).unwrap();
        assert_eq!(names(&to), ["lock"]);
        let done = put_back(&copy, &to, replace).unwrap();
        assert_eq!(done.moved_to, None);
        sound(&to, 3);
    }
}

#[test]
fn a_backup_is_never_written_over_anything() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 3);
    let backs_up = |to: &Path, code: Code| {
        let before = (names(folder.path()), prints(folder.path()));
        let error = backup(&live, to, NOW).expect_err("refused");
        assert_eq!(error.code, code, "{error}");
        assert_eq!((names(folder.path()), prints(folder.path())), before);
    };
    std::fs::write(&copy, "keep me").unwrap();
    backs_up(&copy, Code::BackupExists);
    std::fs::remove_file(&copy).unwrap();
    std::fs::create_dir(&copy).unwrap();
    backs_up(&copy, Code::BackupExists);
    // In the store's own folder, however it is said.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&live, &link).unwrap();
    for inside in [
        live.join("b"),
        live.join("new/b"),
        link.join("b"),
        copy.join("../live/b"),
    ] {
        backs_up(&inside, Code::BackupPath);
    }
    backs_up(&folder.path().join("live/store.db/b"), Code::BackupPath);
    let missing = backup(&folder.path().join("nothing"), &copy.join("b"), NOW);
    assert_eq!(missing.unwrap_err().code, Code::StoreMissing);
    let overlap = put_back(&live.join("b"), &live, true);
    assert_eq!(overlap.unwrap_err().code, Code::BackupMissing);
    backup(&live, &copy.join("b"), NOW).unwrap();
    refused(
        &copy.join("b"),
        &copy,
        true,
        Code::BackupPath,
        folder.path(),
    );
}

/// What a process that died left behind is removed; what only has the name is not.
#[test]
fn what_was_left_half_made_is_made_anew() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 3);
    let partial = folder.path().join("copy.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("unfinished"), "").unwrap();
    std::fs::write(partial.join(FILE), "half").unwrap();
    let working = std::fs::File::open(&partial).unwrap();
    working.lock().unwrap();
    let error = backup(&live, &copy, NOW).unwrap_err();
    assert_eq!(
        error.code,
        Code::BackupExists,
        "somebody is making it: {error}"
    );
    drop(working);
    std::fs::remove_file(partial.join("unfinished")).unwrap();
    let error = backup(&live, &copy, NOW).unwrap_err();
    assert_eq!(error.code, Code::BackupExists, "it is not ours: {error}");
    std::fs::write(partial.join("unfinished"), "").unwrap();
    backup(&live, &copy, NOW).unwrap();
    assert_eq!(names(folder.path()), ["copy", "live"]);

    // A restore that died after the exchange: the old store has no name of its own yet.
    let restoring = folder.path().join("live.restoring");
    std::fs::rename(&live, &restoring).unwrap();
    put_back(&copy, &live, false).unwrap();
    std::fs::write(live.join("unfinished"), "").unwrap();
    assert_eq!(names(folder.path()), ["copy", "live", "live.replaced-1"]);
    sound(&folder.path().join("live.replaced-1"), 3);
    // And the mark it left in the new one never lets that be taken for half-made.
    put_back(&copy, &live, true).unwrap();
    let aside = folder.path().join("live.replaced-2");
    assert!(!names(&aside).contains(&"unfinished".to_owned()));
    sound(&aside, 3);
}

fn edit(copy: &Path, change: impl FnOnce(&mut Value)) {
    let path = copy.join(MANIFEST);
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn a_backup_that_is_not_whole_is_refused_and_nothing_changes() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 30);
    backup(&live, &copy, NOW).unwrap();
    filled(&live, 1);
    let whole = [FILE, MANIFEST].map(|name| copy.join(name));
    let whole = whole.map(|path| (path.clone(), std::fs::read(path).unwrap()));
    let whole = BTreeMap::from(whole);
    let repair = || {
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).unwrap();
        }
    };
    let is_refused = |what: &str, code: Code| {
        println!("{what}");
        for replace in [true, false] {
            let to = if replace {
                live.clone()
            } else {
                folder.path().join("new")
            };
            refused(&copy, &to, replace, code, folder.path());
        }
        repair();
    };
    let file = copy.join(FILE);
    let stored = &whole[&file];
    for at in (0..stored.len()).step_by(stored.len() / 20) {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        std::fs::write(&file, changed).unwrap();
        is_refused(&format!("byte {at} was changed"), Code::BackupDamaged);
    }
    for keep in [0, 1, stored.len() / 2, stored.len() - 1] {
        std::fs::write(&file, &stored[..keep]).unwrap();
        is_refused(&format!("{keep} bytes are left"), Code::BackupDamaged);
    }
    std::fs::remove_file(&file).unwrap();
    is_refused("its file is gone", Code::BackupDamaged);
    let manifest = &whole[&copy.join(MANIFEST)];
    for keep in [0, 1, manifest.len() / 2, manifest.len() - 3] {
        std::fs::write(copy.join(MANIFEST), &manifest[..keep]).unwrap();
        is_refused("the manifest was cut short", Code::BackupDamaged);
    }
    edit(&copy, |manifest| {
        manifest["stores"][0]["position"] = json!(29)
    });
    is_refused("another position", Code::BackupDamaged);
    edit(&copy, |manifest| {
        manifest["stores"][0]["head"] = json!("00")
    });
    is_refused("another head", Code::BackupDamaged);
    edit(&copy, |manifest| manifest["stores"] = json!([]));
    is_refused("no stores", Code::BackupDamaged);
    edit(&copy, |manifest| {
        manifest["stores"][0]["file"] = json!("tenants/../../x/store.db");
    });
    is_refused("a file elsewhere", Code::BackupDamaged);
    edit(&copy, |manifest| {
        let store = manifest["stores"][0].clone();
        manifest["stores"].as_array_mut().unwrap().push(store);
    });
    is_refused("a store twice", Code::BackupDamaged);
    edit(&copy, |manifest| {
        *manifest = json!({"format": 2, "volumes": []})
    });
    is_refused("a manifest of tomorrow", Code::StoreNewer);
    std::fs::remove_file(copy.join(MANIFEST)).unwrap();
    is_refused("no manifest", Code::BackupMissing);

    // A store of tomorrow, and one whose chain was forged with a manifest to match.
    let rewrite = |sql: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let sha = sha256(&std::fs::read(&file).unwrap());
        let length = std::fs::metadata(&file).unwrap().len();
        edit(&copy, |manifest| {
            manifest["stores"][0]["sha256"] = json!(sha);
            manifest["stores"][0]["bytes"] = json!(length);
        });
    };
    rewrite("PRAGMA user_version = 99");
    is_refused("a store of tomorrow", Code::StoreNewer);
    rewrite(FORGE);
    is_refused("an event was forged", Code::BackupDamaged);
    put_back(&copy, &live, true).unwrap();
    sound(&live, 30);
}

/// Work would change it, and then nobody could tell whether it is whole.
#[test]
fn a_backup_is_looked_at_and_never_worked_in() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 3);
    backup(&live, &copy, NOW).unwrap();
    let before = (names(&copy), prints(&copy));
    let error = Sqlite::open(&copy).expect_err("it is no store");
    assert_eq!(error.code, Code::StorePath, "{error}");
    assert!(error.hint.contains("restore"), "{error:?}");
    let mut shown = Sqlite::open_to_read(&copy).unwrap();
    assert_eq!(shown.head().unwrap().position, 3);
    drop(shown);
    assert_eq!((names(&copy), prints(&copy)), before);
    put_back(&copy, &folder.path().join("back"), false).unwrap();
}

#[test]
fn a_damaged_store_has_no_backup() {
    let folder = fast_folder();
    let live = folder.path().join("live");
    filled(&live, 10);
    let connection = rusqlite::Connection::open(live.join(FILE)).unwrap();
    connection.execute_batch(FORGE).unwrap();
    drop(connection);
    let error = backup(&live, &folder.path().join("copy"), NOW).unwrap_err();
    assert_eq!(error.code, Code::StoreCorrupt, "{error}");
    assert!(error.message.contains("event 7"), "{error}");
    assert_eq!(names(folder.path()), ["live"]);
}

#[test]
fn a_backup_is_bounded() {
    let folder = fast_folder();
    let live = folder.path().join("live");
    for n in 0..=STORES_MAX {
        let tenant = live.join(format!("tenants/t{n}"));
        std::fs::create_dir_all(&tenant).unwrap();
        std::fs::write(tenant.join(FILE), "").unwrap();
    }
    let copy = folder.path().join("copy");
    let error = backup(&live, &copy, NOW).unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded, "{error}");
    std::fs::create_dir(&copy).unwrap();
    let manifest = std::fs::File::create(copy.join(MANIFEST)).unwrap();
    manifest.set_len(MANIFEST_BYTES_MAX + 1).unwrap();
    let error = backup::Manifest::read(&copy).unwrap_err();
    assert_eq!(error.code, Code::BackupDamaged);
    assert!(error.message.contains("bytes"), "{error}");
    // The largest manifest fits: names and figures as long as they get.
    let store = backup::Copied {
        file: format!("tenants/{}/store.db", "a".repeat(63)),
        position: u64::MAX,
        head: "0".repeat(64),
        bytes: u64::MAX,
        sha256: "0".repeat(64),
    };
    let text = serde_json::to_string_pretty(&vec![store]).unwrap();
    assert!(((text.len() + 64) * STORES_MAX) as u64 * 4 <= MANIFEST_BYTES_MAX * 2);
}

/// The owner waits for nobody's lock of a folder that was replaced meanwhile.
#[test]
fn whoever_waited_for_the_old_store_does_not_get_the_new_one_with_the_old_lock() {
    let folder = fast_folder();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 2);
    backup(&live, &copy, NOW).unwrap();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| Sqlite::open(&live).map(|store| (store, ())));
            let restored = put_back(&copy, &live, true);
            let opened = opening.join().unwrap();
            let codes = [
                restored.as_ref().err().map(|error| error.code),
                opened.as_ref().err().map(|error| error.code),
            ];
            for code in codes.into_iter().flatten() {
                assert_eq!(code, Code::StoreLocked);
            }
            if opened.is_ok() {
                let second = Sqlite::open(&live).expect_err("it has its owner");
                assert_eq!(second.code, Code::StoreLocked);
            }
        });
        sound(&live, 2);
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounts) = own_mounts() else {
        eprintln!("not tested: a small disk can only be mounted by root, or in a user namespace");
        return;
    };
    let disk = "mount -t tmpfs -o size=1m none \"$CHARGEHAND_TEST_FOLDER\" && exec \"$0\" \"$@\"";
    let wrapper = [mounts, &["sh", "-c", disk]].concat();
    let output = child(&wrapper, "backup::child_on_a_small_disk", folder.path());
    assert!(said(&output).contains("refused twice"));
}

#[test]
fn child_on_a_small_disk() {
    let Some(small) = child_folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    filled(&live, 1_500);
    let before = prints(&live);
    let error = backup(&live, &small.join("copy"), NOW).unwrap_err();
    assert_eq!(error.code, Code::StoreFull, "{error}");
    assert!(error.message.contains("copy"), "{error}");
    backup(&live, &copy, NOW).unwrap();
    let error = put_back(&copy, &small.join("store"), false).unwrap_err();
    assert_eq!(error.code, Code::StoreFull, "{error}");
    assert!(error.message.contains("store.restoring"), "{error}");
    assert_eq!(names(&small), Vec::<String>::new());
    assert_eq!(prints(&live), before);
    println!("refused twice");
}
