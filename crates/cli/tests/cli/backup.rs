//! Backup and restore as the user meets them: beside a run that works, after a kill, and refused.

use crate::world::{World, finish, promised, signal, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Instant;

/// Kills, spread over the time that the command takes when nobody disturbs it.
const KILLS: u32 = 16;

/// Says which row it was; the later ones wait for a flag.
const WORKER: &str = r#"n=$(sed 's/.*"n":\([0-9]*\).*/\1/')
while [ "$n" -gt 5 ] && ! test -f flag; do sleep 0.05; done
echo "{\"row\": $n}""#;

/// A run over ten rows, five done and two begun; still at it.
fn at_work(world: &World) -> (std::process::Child, String) {
    world.lines("rows.jsonl", 10);
    let program = world.program("worker.sh", WORKER);
    let mut child = world.start(&[
        "run",
        "Count",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ]);
    let run = promised(&mut child);
    until("five are done and two begun", || {
        let shown = world.json(&["runs", "show", &run]);
        shown["tasks"]["completed"] == 5 && shown["tasks"]["running"] == 2
    });
    (child, run)
}

/// A store with so many tasks, all done.
fn filled(world: &World, store: &str, tasks: &str) {
    let args = [
        "--store",
        store,
        "run",
        "Tick",
        "--worker-command",
        "echo 1",
        "--tasks",
        tasks,
    ];
    world.run(&args).ended(0);
}

fn head(world: &World, store: &str) -> Value {
    let doctor = world.json(&["--store", store, "doctor", "--replay"]);
    assert_eq!(doctor["sound"], true, "{doctor:#}");
    doctor["chain"].clone()
}

// S0-205: one command copies the store beside a run that works, one makes it a store again, and the
// run ends there as it would have here.
#[test]
fn a_run_that_was_backed_up_at_work_ends_elsewhere() {
    let world = World::new();
    let (child, run) = at_work(&world);
    let made = world.json(&["backup", "--to", "copies/one"]);
    let told = &made["manifest"]["stores"][0];
    assert_eq!(told["file"], "store.db", "{made:#}");
    let events = world.events();
    assert!(told["position"].as_u64() <= Some(events.len() as u64));
    let manifest: Value =
        serde_json::from_str(&world.read("copies/one/backup.json")).expect("JSON");
    assert_eq!(manifest, made["manifest"]);
    assert_eq!(manifest["product"], env!("CARGO_PKG_VERSION"));

    let restored = world.json(&["--store", "elsewhere", "restore", "--from", "copies/one"]);
    assert_eq!(restored["workers_released"], 2, "{restored:#}");
    assert_eq!(restored["moved_to"], json!(null));
    let there = ["--store", "elsewhere"];
    let pending = world.json(&[&there[..], &["tasks", "list", "--status", "pending"]].concat());
    let waiting = pending["items"].as_array().expect("tasks").len();
    assert_eq!(waiting, 5, "what was begun waits again: {pending:#}");
    world.file("flag", "");
    let resumed = world.json(&[&there[..], &["resume"]].concat());
    assert_eq!(
        (&resumed["run_id"], &resumed["status"]),
        (&json!(run), &json!("completed"))
    );
    let again: Vec<&Value> = resumed["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .filter(|task| task["attempts"] == 2)
        .collect();
    assert_eq!(again.len(), 2, "{resumed:#}");
    head(&world, "elsewhere");
    // The run that was copied has noticed nothing.
    finish(child, b"").ended(0);
    world.is_sound();
}

#[test]
fn in_words_it_says_what_was_copied_and_how_to_use_it() {
    let world = World::new();
    filled(&world, ".chargehand", "3");
    let before = head(&world, ".chargehand");
    let told = world.run(&["backup", "--to", "copy"]).ended(0).out;
    assert!(
        told.contains("events") && told.contains("restore --from copy"),
        "{told}"
    );
    filled(&world, ".chargehand", "2");
    let told = world
        .run(&["restore", "--from", "copy", "--replace"])
        .ended(0)
        .out;
    assert!(told.contains(".chargehand.replaced-1"), "{told}");
    assert_eq!(
        head(&world, ".chargehand"),
        before,
        "nobody was at work: it is equal"
    );
    assert_ne!(head(&world, ".chargehand.replaced-1"), before);
}

#[test]
fn refusals_say_what_to_do() {
    let world = World::new();
    world
        .run(&["backup", "--to", "copy"])
        .refused(2, "store.missing");
    world
        .run(&["--store", "memory:", "backup", "--to", "copy"])
        .refused(2, "store.path");
    let (child, _) = at_work(&world);
    world.run(&["backup", "--to", "copy"]).ended(0);
    world
        .run(&["backup", "--to", "copy"])
        .refused(2, "backup.exists")
        .names("copy");
    world
        .run(&["backup", "--to", ".chargehand/copy"])
        .refused(2, "backup.path");
    let restore = ["restore", "--from", "copy"];
    world
        .run(&restore)
        .refused(2, "restore.exists")
        .names(".chargehand");
    world
        .run(&[&restore[..], &["--replace"]].concat())
        .refused(2, "store.locked");
    world
        .run(&["--store", "new", "restore", "--from", "nothing"])
        .refused(2, "backup.missing");
    world.file("flag", "");
    finish(child, b"").ended(0);
    let mut file = std::fs::read(world.path("copy/store.db")).expect("it is there");
    file.truncate(file.len() - 1);
    world.file("copy/store.db", file);
    let before = head(&world, ".chargehand");
    world
        .run(&[&restore[..], &["--replace"]].concat())
        .refused(2, "backup.damaged")
        .names("store.db");
    world
        .run(&["--store", "new", "restore", "--from", "copy"])
        .refused(2, "backup.damaged");
    assert!(!world.path("new").exists());
    let manifest = world.read("copy/backup.json");
    world.file(
        "copy/backup.json",
        manifest.replace("\"format\": 1", "\"format\": 2"),
    );
    world.run(&restore).refused(2, "store.newer");
    assert_eq!(head(&world, ".chargehand"), before);
}

/// Killed at any moment, there is a whole backup or none; the store is as it was, and the next
/// backup to the same name is made.
#[test]
fn a_backup_that_is_killed_leaves_no_half() {
    let world = World::new();
    filled(&world, ".chargehand", "400");
    let before = head(&world, ".chargehand");
    let since = Instant::now();
    world.run(&["backup", "--to", "undisturbed"]).ended(0);
    let whole = since.elapsed();
    for n in 0..KILLS {
        let child = world.start(&["backup", "--to", "copy"]);
        std::thread::sleep(whole * n / KILLS);
        signal(&child, Signal::KILL);
        let ended = finish(child, b"").code;
        if world.path("copy").exists() {
            let to = format!("restored-{n}");
            world
                .run(&["--store", &to, "restore", "--from", "copy"])
                .ended(0);
            assert_eq!(head(&world, &to), before);
            std::fs::remove_dir_all(world.path("copy")).expect("it can be removed");
        } else {
            assert_ne!(ended, 0, "it said that it was made");
        }
    }
    world.run(&["backup", "--to", "copy"]).ended(0);
    assert!(!world.path("copy.partial").exists());
    assert_eq!(head(&world, ".chargehand"), before);
}

/// Killed at any moment, a restore leaves the old store or the new one, and nothing is lost.
#[test]
fn a_restore_that_is_killed_leaves_the_old_store_or_the_new_one() {
    let world = World::new();
    filled(&world, "first", "300");
    filled(&world, "second", "200");
    let heads = ["first", "second"].map(|store| {
        let copy = format!("{store}.copy");
        world
            .run(&["--store", store, "backup", "--to", &copy])
            .ended(0);
        head(&world, store)
    });
    let since = Instant::now();
    world
        .run(&["--store", "live", "restore", "--from", "first.copy"])
        .ended(0);
    let whole = since.elapsed();
    let mut is = 0;
    for n in 0..KILLS {
        let next = 1 - is;
        let copy = ["first.copy", "second.copy"][next];
        let args = ["--store", "live", "restore", "--from", copy, "--replace"];
        let child = world.start(&args);
        std::thread::sleep(whole * n / KILLS);
        signal(&child, Signal::KILL);
        let ended = finish(child, b"").code;
        let found = head(&world, "live");
        let which = heads.iter().position(|head| *head == found);
        let which = which.unwrap_or_else(|| panic!("neither: {found}"));
        assert!(which == next || ended != 0, "it said that it was restored");
        is = which;
    }
    let copy = ["first.copy", "second.copy"][1 - is];
    let args = ["--store", "live", "restore", "--from", copy, "--replace"];
    world.run(&args).ended(0);
    assert_eq!(head(&world, "live"), heads[1 - is]);
    assert!(!world.path("live.restoring").exists());
}
