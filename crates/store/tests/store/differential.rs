//! The same commands give the same history, whatever keeps it and however much of it is loaded.

use crate::world::{all_frames, all_rows, fast_folder, over};
use store::backend::memory::Memory;
use store::backend::sqlite::Sqlite;
use store::conformance::script::{Script, SharedIds};
use store::replay::replay;
use store::{Backend, Store};

const SEEDS: u64 = 320;
/// Batches of a script: with about five commands in each, up to 80 or so.
const BATCHES: usize = 16;
/// Rows loaded and rows behind, at most; `None` is what a product uses.
const WINDOWS: [Option<(usize, usize)>; 4] = [None, Some((0, 0)), Some((4, 3)), Some((30, 1_000))];

/// Everything anybody could see of what a script made.
#[derive(Debug, PartialEq)]
struct History {
    answers: Vec<String>,
    frames: Vec<(u64, store::chain::Hash, String)>,
    rows: Vec<String>,
    due: String,
}

/// Batches before which a store of these seeds crashes, or forgets whose turn it is as if it had.
fn crashes(seed: u64, batch: usize) -> bool {
    seed.is_multiple_of(2) && batch.is_multiple_of(2)
}

fn history(seed: u64, backend: Box<dyn Backend>, windows: Option<(usize, usize)>) -> History {
    let mut store = over(backend, seed).unwrap();
    if let Some((loaded, behind)) = windows {
        store.set_windows(loaded, behind);
    }
    let mut script = Script::new(seed);
    let mut answers = Vec::new();
    for batch in 0..BATCHES {
        if crashes(seed, batch) {
            store.begin_turns_anew();
        }
        let applied = script.step(&mut store).unwrap();
        answers.push(format!("{applied:?}"));
    }
    see(&mut store, &script, answers)
}

/// The same, by a store that dies again and again with its rows half written.
fn history_with_crashes(seed: u64) -> History {
    let ids = SharedIds::new(seed);
    let memory = Memory::default();
    let open = || Store::open(Box::new(memory.clone()), Box::new(ids.clone())).unwrap();
    let mut store = open();
    let mut script = Script::new(seed);
    let mut answers = Vec::new();
    for batch in 0..BATCHES {
        // Every second time, so that some rows are behind by more than one batch.
        if crashes(seed, batch) {
            store = open();
            store.set_windows(4, 3);
        }
        let applied = script.step(&mut store).unwrap();
        answers.push(format!("{applied:?}"));
    }
    see(&mut store, &script, answers)
}

fn see(store: &mut Store, script: &Script, answers: Vec<String>) -> History {
    store.flush().unwrap();
    let mut reader = store.reader().unwrap();
    let report = replay(&mut *reader).unwrap();
    assert_eq!(report.differences, [""; 0]);
    assert_eq!(report.events, store.head());
    let frames = all_frames(&mut *reader).into_iter();
    let text = |body| String::from_utf8(body).unwrap();
    let far = script.now().plus_ms(1_000_000_000);
    History {
        answers,
        frames: frames.map(|f| (f.first, f.hash, text(f.body))).collect(),
        rows: (all_rows(&mut *reader).iter())
            .map(|(key, row)| {
                let mut json = Vec::new();
                row.to_json(&mut json).unwrap();
                format!("{key:?} {}", text(json))
            })
            .collect(),
        due: format!(
            "{:?} {:?}",
            store.index().due(far, 9_999),
            store.index().ready()
        ),
    }
}

/// Names the seed when a comparison, or anything in the store, fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

fn same(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let _named = Seed(seed);
        let plain = history(seed, Box::new(Memory::default()), None);
        let windows = WINDOWS[seed as usize % WINDOWS.len()];
        let folder = fast_folder();
        let sqlite = Box::new(Sqlite::open(folder.path()).unwrap());
        let in_memory = if crashes(seed, 0) {
            history_with_crashes(seed)
        } else {
            history(seed, Box::new(Memory::default()), Some((4, 3)))
        };
        for other in [in_memory, history(seed, sqlite, windows)] {
            // One by one, so that a failure shows what differs and not everything.
            for (n, (a, b)) in plain.answers.iter().zip(&other.answers).enumerate() {
                assert_eq!(a, b, "batch {n}");
            }
            assert_eq!(plain.frames, other.frames);
            assert_eq!(plain.rows, other.rows);
            assert_eq!(plain.due, other.due);
        }
    }
}

#[test]
fn memory_and_sqlite_tell_the_same_history() {
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || same(part * SEEDS / 4..(part + 1) * SEEDS / 4));
        }
    });
}

/// A comparison that could not fail would prove nothing: the scripts do reach every kind of event
/// that commands can cause.
#[test]
fn the_scripts_reach_far() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..4 * SEEDS {
        let mut store = over(Box::new(Memory::default()), seed).unwrap();
        let mut script = Script::new(seed);
        for _ in 0..BATCHES {
            let applied = script.step(&mut store).unwrap();
            seen.extend(applied.events.iter().map(|e| e.event.name()));
        }
    }
    let all = domain::event::NAMES.iter().copied();
    let missed: Vec<_> = all.filter(|name| !seen.contains(name)).collect();
    // Keys are made and revoked by people, and that is tested with the keyring.
    assert_eq!(missed, ["credential.created", "credential.revoked"]);
}
