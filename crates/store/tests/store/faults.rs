//! A disk that is full or broken: the write is refused, nothing that was acknowledged is lost,
//! nothing that was refused is seen, reads go on, and work resumes when it can.

use crate::world::{child, child_folder, fast_folder, open, over, own_mounts, said};
use domain::command::{Command, Submission};
use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::json::Json;
use domain::name::Name;
use domain::state::Key;
use domain::task::TaskSpec;
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use store::backend::memory::Memory;
use store::backend::sqlite::Sqlite;
use store::conformance::script::Script;
use store::replay::replay;
use store::{Answer, Backend, Commit, Head, Hot, Op, Reader, Request, Store, Versioned};

/// What fails next.
#[derive(Debug, Default)]
struct Plan {
    /// The commit after so many.
    commit: Option<(u32, Code)>,
    /// The load after so many.
    load: Option<(u32, Code)>,
    /// The commit that fails is written all the same: a failed fsync, whose outcome nobody knows.
    written: bool,
}

/// A backend that fails as planned.
struct Faulty {
    inner: Box<dyn Backend>,
    plan: Arc<Mutex<Plan>>,
}

fn strike(next: &mut Option<(u32, Code)>) -> Result<(), Error> {
    match next {
        Some((0, code)) => {
            let error = Error::new(*code, "as planned");
            *next = None;
            Err(error)
        }
        Some((left, _)) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl Backend for Faulty {
    fn head(&mut self) -> Result<Head, Error> {
        self.inner.head()
    }
    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error> {
        strike(&mut self.plan.lock().unwrap().load)?;
        self.inner.load(keys)
    }
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        let mut plan = self.plan.lock().unwrap();
        if let Err(error) = strike(&mut plan.commit) {
            if plan.written {
                self.inner.commit(commit)?;
            }
            return Err(error);
        }
        self.inner.commit(commit)
    }
    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error> {
        self.inner.hot(each)
    }
    fn tidy(&mut self) -> Result<(), Error> {
        self.inner.tidy()
    }
    fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        self.inner.reader()
    }
}

/// All that a store shows: rows, order of claims, timers, place in the log.
fn visible(store: &mut Store, keys: &BTreeSet<Key>, now: Time) -> Vec<String> {
    store.promote(now);
    let mut seen = vec![
        format!("{} {:?}", store.head(), store.hash()),
        format!("{} behind", store.rows_behind()),
        format!("{} ready", store.index().ready()),
        format!("{:?}", store.index().due(Time(u64::MAX), 9_999)),
        format!("{:?}", store.index().next_due()),
        format!("{:?}", store.index().addressees().collect::<BTreeSet<_>>()),
        format!(
            "{:?}",
            store.index().first_of_each_class().collect::<BTreeSet<_>>()
        ),
    ];
    for worker in ["worker_1", "worker_2", "worker_3"] {
        let mut spec = WorkerSpec::new(Name::literal(worker));
        spec.capabilities = vec![Name::literal("vision")];
        spec.queues = vec![Name::literal("default"), Name::literal("slow")];
        seen.push(format!("{:?}", store.index().candidates(&spec)));
        seen.push(format!("{:?}", store.index().addressed_to(&spec.id, 999)));
    }
    for key in keys {
        seen.push(format!("{key:?} {:?}", store.get(key).unwrap()));
    }
    seen
}

fn survives(seed: u64, inner: Box<dyn Backend>) {
    let plan = Arc::new(Mutex::new(Plan::default()));
    let faulty = Faulty {
        inner,
        plan: Arc::clone(&plan),
    };
    let mut store = over(Box::new(faulty), seed).unwrap();
    store.set_windows(5, if seed.is_multiple_of(3) { 1_000 } else { 3 });
    let mut script = Script::new(seed);
    let mut keys = BTreeSet::new();
    let mut struck = 0;
    for n in 0..30 {
        let due = store.index().due(script.now(), 3);
        let requests = script.batch(&due);
        let before = visible(&mut store, &keys, script.now());
        let code = [Code::StoreFull, Code::StoreIo][n as usize % 2];
        match (seed + n) % 4 {
            0 | 1 => plan.lock().unwrap().commit = Some((0, code)),
            2 => plan.lock().unwrap().load = Some((n as u32 % 3, code)),
            _ => {}
        }
        let first = store.apply(&requests, script.now());
        *plan.lock().unwrap() = Plan::default();
        let applied = match first {
            Ok(applied) => applied,
            Err(error) => {
                struck += 1;
                assert_eq!(error.code, code);
                let after = visible(&mut store, &keys, script.now());
                assert_eq!(after, before, "seed {seed}, batch {n}");
                // The same again, and the disk is well again.
                store.apply(&requests, script.now()).unwrap()
            }
        };
        script.heard(&applied);
        let mut touched = Vec::new();
        for recorded in &applied.events {
            recorded.event.touches(&mut touched);
        }
        keys.extend(touched);
        if n % 5 == 0 && store.rows_behind() > 0 {
            let before = visible(&mut store, &keys, script.now());
            plan.lock().unwrap().commit = Some((0, code));
            assert_eq!(store.flush().unwrap_err().code, code);
            assert_eq!(visible(&mut store, &keys, script.now()), before);
        }
    }
    assert!(struck > 5, "only {struck} of 30");
    store.flush().unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!(report.events, store.head());
    assert_eq!(report.differences, [""; 0], "seed {seed}");
}

// S4-58: faults of the disk are injected.
#[test]
fn a_failed_write_changes_nothing_anybody_sees() {
    for seed in 0..40 {
        survives(seed, Box::new(Memory::default()));
    }
    for seed in 40..50 {
        let folder = fast_folder();
        survives(seed, Box::new(Sqlite::open(folder.path()).unwrap()));
    }
}

/// A store whose last process left rows behind opens on a full disk, and shows the truth.
#[test]
fn a_full_disk_does_not_keep_a_store_from_being_read() {
    let memory = Memory::default();
    let mut store = over(Box::new(memory.clone()), 1).unwrap();
    let mut script = Script::new(1);
    let mut keys = Vec::new();
    for _ in 0..10 {
        for recorded in script.step(&mut store).unwrap().events {
            recorded.event.touches(&mut keys);
        }
    }
    let keys: BTreeSet<Key> = keys.into_iter().collect();
    // Who was served when is not stored.
    store.begin_turns_anew();
    let before = visible(&mut store, &keys, script.now());
    assert!(store.rows_behind() > 0);
    drop(store);
    let plan = |code| Plan {
        commit: Some((0, code)),
        ..Plan::default()
    };
    let faulty = |code| Faulty {
        inner: Box::new(memory.clone()),
        plan: Arc::new(Mutex::new(plan(code))),
    };
    let error = over(Box::new(faulty(Code::StoreIo)), 2)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.code, Code::StoreIo);
    let mut store = over(Box::new(faulty(Code::StoreFull)), 2).unwrap();
    assert_eq!(visible(&mut store, &keys, script.now()), before);
    script.step(&mut store).unwrap();
    store.flush().unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!((report.events, report.differences), (store.head(), vec![]));
}

/// Nobody knows what a failed fsync left behind. Whatever it was, the next opening finds a log
/// without a gap and rows that agree with it.
#[test]
fn a_write_of_unknown_fate_is_settled_by_opening_anew() {
    for seed in 0..20 {
        for written in [false, true] {
            let memory = Memory::default();
            let plan = Arc::new(Mutex::new(Plan::default()));
            let faulty = Faulty {
                inner: Box::new(memory.clone()),
                plan: Arc::clone(&plan),
            };
            let mut store = over(Box::new(faulty), seed).unwrap();
            store.set_windows(4, 3);
            let mut script = Script::new(seed);
            (0..10).for_each(|_| drop(script.step(&mut store).unwrap()));
            let head = store.head();
            plan.lock().unwrap().written = written;
            plan.lock().unwrap().commit = Some((0, Code::StoreIo));
            let submit = vec![Op::Command(submission(10))];
            let request = Request::own(submit);
            let error = store.apply(&[request], script.now()).unwrap_err();
            assert_eq!(error.code, Code::StoreIo);
            drop(store);
            let store = over(Box::new(memory), 1_000 + seed).unwrap();
            assert_eq!(store.head(), head + u64::from(written));
            let report = replay(&mut *store.reader().unwrap()).unwrap();
            assert_eq!((report.events, report.differences), (store.head(), vec![]));
        }
    }
}

fn submission(bytes: usize) -> Command {
    let input = Json::from_value(&serde_json::Value::from("x".repeat(bytes)));
    let spec = TaskSpec::new(Name::literal("part"), input);
    Command::TaskSubmit(Submission::new(spec))
}

/// Submits a task of a few kilobytes.
fn submit(store: &mut Store) -> Result<TaskId, Error> {
    let ops = vec![Op::Command(submission(4_000))];
    let mut applied = store.apply(&[Request::own(ops)], Time(1_000))?;
    match applied.answers.remove(0).remove(0) {
        Answer::Outcome(Ok(domain::command::Outcome::Task(id))) => Ok(id),
        other => panic!("{other:?}"),
    }
}

/// Submits until the disk takes no more; gives what was acknowledged, and the refusal.
fn fill(store: &mut Store, tasks: &mut Vec<TaskId>) -> Error {
    loop {
        assert!(tasks.len() < 5_000, "the disk does not fill");
        match submit(store) {
            Ok(id) => tasks.push(id),
            Err(error) => return error,
        }
    }
}

/// Every acknowledged task can be read, its row and its event, in order.
fn all_there(store: &mut Store, tasks: &[TaskId]) {
    for id in tasks {
        assert!(
            store.get(&Key::Task(*id)).unwrap().is_some(),
            "{id} is lost"
        );
    }
    let events = store.reader().unwrap().events(0, usize::MAX).unwrap();
    assert_eq!(events.len(), tasks.len());
    for (event, id) in events.iter().zip(tasks) {
        let mut touched = Vec::new();
        event.event.touches(&mut touched);
        assert!(touched.contains(&Key::Task(*id)));
    }
}

/// In a process of its own, on a disk of two megabytes.
#[test]
fn child_on_a_small_disk() {
    let Some(folder) = child_folder() else { return };
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![7; 700_000]).unwrap();
    let path = folder.join("store");
    let mut tasks = Vec::new();
    let mut store = open(&path, 1).unwrap();
    store.set_windows(50, 20);
    let error = fill(&mut store, &mut tasks);
    assert_eq!(error.code, Code::StoreFull, "{error}");
    assert!(error.message.contains(path.to_str().unwrap()), "{error}");
    assert!(error.hint.contains("space"), "{error:?}");
    assert!(tasks.len() > 20, "{}", tasks.len());
    all_there(&mut store, &tasks);
    for _ in 0..3 {
        assert_eq!(submit(&mut store).unwrap_err().code, Code::StoreFull);
    }
    all_there(&mut store, &tasks);
    std::fs::remove_file(&ballast).unwrap();
    for _ in 0..8 {
        tasks.push(submit(&mut store).expect("there is room again"));
    }
    all_there(&mut store, &tasks);
    // Full again, and then it dies: what was acknowledged is there when there is room.
    let error = fill(&mut store, &mut tasks);
    assert_eq!(error.code, Code::StoreFull, "{error}");
    drop(store);
    let mut store = open(&path, 2).expect("reading goes on, even from the start");
    all_there(&mut store, &tasks);
    drop(store);
    // Not a byte is left, not even for what SQLite needs to open: that is said as it is.
    let mut rest = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write(&mut rest, &[7; 512]).is_ok_and(|written| written > 0) {}
    match open(&path, 3) {
        Ok(mut store) => all_there(&mut store, &tasks),
        Err(error) => assert_eq!(error.code, Code::StoreFull, "{error}"),
    }
    let whole = tempfile::tempdir().unwrap();
    copy(&path, whole.path());
    let mut store = open(whole.path(), 2).unwrap();
    all_there(&mut store, &tasks);
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!(
        (report.events, report.differences),
        (tasks.len() as u64, vec![])
    );
    println!("a small disk took {} tasks", tasks.len());
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A file that may not grow: the write itself fails, in a way that is not a full disk.
#[test]
fn child_with_a_bound_on_files() {
    let Some(folder) = child_folder() else { return };
    let mut tasks = Vec::new();
    let mut store = open(&folder, 1).unwrap();
    let error = fill(&mut store, &mut tasks);
    assert_eq!(error.code, Code::StoreIo, "{error}");
    assert!(error.message.contains(folder.to_str().unwrap()), "{error}");
    all_there(&mut store, &tasks);
    let again = submit(&mut store).unwrap_err();
    assert_eq!(again.code, Code::StoreIo);
    assert!(again.message.contains("opened anew"), "{again}");
    all_there(&mut store, &tasks);
    println!("acknowledged {}", tasks.len());
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounts) = own_mounts() else {
        eprintln!(
            "a small disk can only be mounted by root, or in a user namespace, and here neither is \
             allowed: only the bound on files is tested, by `a_failed_write_stops_the_store`"
        );
        return a_failed_write_stops_the_store();
    };
    let disk = "mount -t tmpfs -o size=2m none \"$CHARGEHAND_TEST_FOLDER\" && exec \"$0\" \"$@\"";
    let wrapper = [mounts, &["sh", "-c", disk]].concat();
    let output = child(&wrapper, "faults::child_on_a_small_disk", folder.path());
    assert!(said(&output).contains("a small disk took"));
}

#[test]
fn a_failed_write_stops_the_store() {
    let folder = tempfile::tempdir().unwrap();
    // A megabyte in POSIX blocks; ignoring the signal turns it into an error.
    let bound = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    let wrapper = ["sh", "-c", bound];
    let output = child(
        &wrapper,
        "faults::child_with_a_bound_on_files",
        folder.path(),
    );
    let text = said(&output);
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("acknowledged "));
    let count: u64 = count.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!(count > 20, "{count}");
    let mut store = open(folder.path(), 2).unwrap();
    assert_eq!(
        store.head(),
        count,
        "what was acknowledged, and nothing else"
    );
    submit(&mut store).expect("a new process without the bound goes on");
    store.flush().unwrap();
    let report = replay(&mut *store.reader().unwrap()).unwrap();
    assert_eq!((report.events, report.differences), (count + 1, vec![]));
}
