//! Bad input: each kind gets its own clear error (a code, what happened, what to do), exit code 2 for
//! the caller's fault and 1 for failed work, and harms nothing that is stored.

use crate::world::{Done, GOAL, World, finish};
use rusqlite::Connection;
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RUN: &str = "run_01k5z3v9wfe4rvq0t2m6n8p7xy";
const TASK: &str = "task_01k5z3v9wfe4rvq0t2m6n80000";

/// A store with one finished run, and what it must still say afterwards.
struct Kept {
    world: World,
    runs: Value,
}

impl Kept {
    fn new() -> Self {
        let world = World::new();
        world.file("ok.txt", "I love it.");
        world.run(&["run", GOAL, "--input", "ok.txt"]).ended(0);
        let runs = world.json(&["runs", "list"]);
        Self { world, runs }
    }

    #[track_caller]
    fn is_unharmed(&self) {
        assert_eq!(self.world.json(&["runs", "list"]), self.runs);
        self.world.is_sound();
    }
}

/// Every file below, but for what SQLite makes anew at will.
fn bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| path.is_file() && !path.ends_with("lock") && !path.ends_with("store.db-shm"))
        .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect()
}

#[test]
fn inputs_that_cannot_be_used_are_named_with_what_is_wrong() {
    let kept = Kept::new();
    let world = &kept.world;
    world.file("bin.txt", b"a\0b");
    world.file("empty.txt", "");
    world.file("blank.txt", " \n\n");
    world.file("latin.txt", b"caf\xe9");
    world.file("utf16.txt", b"\xff\xfea\0b\0");
    world.file("bad.jsonl", "{\"a\": 1}\n{\"a\":\n");
    world.file("bad.json", "{\"a\": 1");
    world.file("bad.csv", "a,b\n1,2\n\"x\n");
    world.file("ragged.csv", "a,b\n1,2,3\n");
    world.file("item.txt", "x".repeat(2 << 20));
    world.file(
        "line.jsonl",
        format!("{{\"text\": \"{}\"}}\n", "x".repeat(2 << 20)),
    );
    world.file("fine/emp/ty.png", "");
    let huge = std::fs::File::create(world.path("huge.txt")).expect("a file");
    huge.set_len(65 << 20).expect("a hole as large");
    let cases = [
        (vec!["missing.txt"], "input.not_found", "`missing.txt`"),
        (vec!["ok.txt/below"], "input.unreadable", "`ok.txt/below`"),
        (
            vec!["/proc/self/mem"],
            "input.unreadable",
            "`/proc/self/mem`",
        ),
        (vec!["bin.txt"], "input.binary", "byte 1"),
        (vec!["empty.txt"], "input.empty", "`empty.txt` is empty"),
        (vec!["blank.txt"], "input.empty", "`blank.txt` is empty"),
        (vec!["-"], "input.empty", "standard input is empty"),
        (vec!["fine"], "input.empty", "`fine` holds no input file"),
        (vec!["no*.txt"], "input.no_match", "`no*.txt`"),
        (vec!["[.txt"], "input.bad_glob", "`[.txt`"),
        (vec!["latin.txt"], "input.not_utf8", "line 1 of `latin.txt`"),
        (vec!["utf16.txt"], "input.not_utf8", "UTF-16"),
        (vec!["bad.jsonl"], "input.bad_json", "line 2 of `bad.jsonl`"),
        (vec!["bad.json"], "input.bad_json", "line 1 of `bad.json`"),
        (vec!["bad.csv"], "input.bad_csv", "row 2"),
        (vec!["ragged.csv"], "input.bad_csv", "row 1"),
        (
            vec!["item.txt"],
            "input.too_large",
            "1048576 bytes, the most for one item",
        ),
        (
            vec!["line.jsonl"],
            "input.too_large",
            "line 1 of `line.jsonl`",
        ),
        (
            vec!["huge.txt"],
            "input.too_large",
            "67108864 bytes, the most for one file",
        ),
        // The first that cannot be used stops all: nothing is left out silently.
        (vec!["ok.txt", "bin.txt"], "input.binary", "`bin.txt`"),
    ];
    for (inputs, code, what) in cases {
        let args = [vec!["run", GOAL, "--input"], inputs].concat();
        world.run(&args).refused(2, code).names(what);
    }
    world
        .run(&["run", GOAL])
        .refused(2, "input.missing")
        .names("--input");
    let twice = ["run", GOAL, "--input", "-", "-"];
    world
        .run_with(&twice, b"I love it.")
        .refused(2, "input.stdin_twice");
    kept.is_unharmed();
}

#[test]
fn arguments_out_of_range_are_named_with_the_range() {
    let kept = Kept::new();
    let long = "g".repeat(100 * 1024);
    let input = ["--input", "ok.txt"];
    let cases: [(&[&str], &str, &str); 30] = [
        (&["", "--workers", "1"], "goal.empty", "the goal is empty"),
        (
            &[" \n ", "--workers", "1"],
            "goal.empty",
            "the goal is empty",
        ),
        (
            &[&long],
            "goal.too_large",
            "102400 bytes; the most is 16384",
        ),
        (
            &["Translate it into Latin"],
            "plan.no_skill",
            "text.sentiment",
        ),
        (&[GOAL, "--workers", "0"], "value.out_of_range", "0 workers"),
        (
            &[GOAL, "--workers", "1001"],
            "value.out_of_range",
            "1 to 1000",
        ),
        (
            &[GOAL, "--workers", "99999999999999999999"],
            "value.out_of_range",
            "1 to 1000",
        ),
        (&[GOAL, "--workers", "-1"], "usage.invalid", "--workers"),
        (&[GOAL, "--workers", "two"], "usage.invalid", "whole number"),
        (&[GOAL, "--tasks", "0"], "value.out_of_range", "0 tasks"),
        (&[GOAL, "--tasks", "-3"], "usage.invalid", "--tasks"),
        (&[GOAL, "--tasks", "2"], "value.out_of_range", "2 tasks"),
        (
            &[GOAL, "--tasks", "99999999999999999999"],
            "limit.exceeded",
            "at most 100000",
        ),
        (
            &[GOAL, "--attempts", "0"],
            "value.out_of_range",
            "1 to 100 attempts",
        ),
        (
            &[GOAL, "--attempts", "101"],
            "value.out_of_range",
            "1 to 100 attempts",
        ),
        (
            &[GOAL, "--timeout", "0"],
            "value.out_of_range",
            "0.001 to 604800 seconds",
        ),
        (
            &[GOAL, "--timeout", "nan"],
            "value.out_of_range",
            "0.001 to 604800 seconds",
        ),
        (
            &[GOAL, "--timeout", "1e9"],
            "value.out_of_range",
            "0.001 to 604800 seconds",
        ),
        (
            &[GOAL, "--strategy", "best"],
            "value.out_of_range",
            "round-robin",
        ),
        (
            &[GOAL, "--priority", "urgent"],
            "value.out_of_range",
            "critical",
        ),
        (
            &[GOAL, "--priority", "1001"],
            "value.out_of_range",
            "-1000 to 1000",
        ),
        (
            &[GOAL, "--skill", "text.nope"],
            "skill.unknown",
            "text.stats",
        ),
        (
            &[GOAL, "--options", "{bad"],
            "json.malformed",
            "--options is not JSON",
        ),
        (
            &[GOAL, "--options", "[1]"],
            "json.malformed",
            "not an object",
        ),
        (
            &[GOAL, "--skill", "text.summary", "--options", r#"{"n": 1}"#],
            "option.invalid",
            "`n`",
        ),
        (
            &[
                GOAL,
                "--skill",
                "json.shape",
                "--options",
                r#"{"filter": "a >"}"#,
            ],
            "expression.invalid",
            "`a >`",
        ),
        (
            &[GOAL, "--skill", "text.stats", "--worker-command", "true"],
            "usage.invalid",
            "--worker-command",
        ),
        (&[GOAL, "--nope"], "usage.invalid", "--nope"),
        (&[GOAL, "--output", "yaml"], "usage.invalid", "yaml"),
        (&[], "usage.invalid", "<GOAL>"),
    ];
    for (args, code, what) in cases {
        kept.world
            .run(&[&["run"], args, &input].concat())
            .refused(2, code)
            .names(what);
    }
    let many = [
        "run",
        "Tick",
        "--worker-command",
        "true",
        "--tasks",
        "100001",
    ];
    kept.world
        .run(&many)
        .refused(2, "limit.exceeded")
        .names("at most 100000");
    kept.world
        .run(&["nope"])
        .refused(2, "usage.invalid")
        .names("nope");
    // A program reads the same as JSON, on standard error.
    let done = kept.world.run(&["run", "", "--output", "json"]).ended(2);
    let error: Value = serde_json::from_str(&done.err).expect("JSON");
    assert_eq!(
        (&error["error"]["code"], done.out.as_str()),
        (&json!("goal.empty"), ""),
        "{done:?}"
    );
    let done = kept
        .world
        .run(&["runs", "--output", "json", "nope"])
        .ended(2);
    let error: Value = serde_json::from_str(&done.err).expect("JSON");
    assert_eq!(error["error"]["code"], "usage.invalid", "{done:?}");
    kept.is_unharmed();
    // What is refused makes no store.
    let world = World::new();
    world.run(&["run", ""]).refused(2, "goal.empty");
    assert!(!world.path(".chargehand").exists());
}

#[test]
fn unknown_ids_are_errors_for_every_command() {
    let kept = Kept::new();
    for command in [
        "runs show",
        "runs watch",
        "runs cancel",
        "runs retry",
        "resume",
        "tasks list --run",
        "memory list --run",
        "memory write x --run",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        kept.world
            .run(&[words.as_slice(), &[RUN]].concat())
            .refused(2, "run.unknown")
            .names(RUN);
        kept.world
            .run(&[words.as_slice(), &["nonsense"]].concat())
            .refused(2, "id.malformed")
            .names("“nonsense”");
    }
    for command in ["tasks show", "tasks cancel", "tasks redrive"] {
        let words: Vec<&str> = command.split(' ').collect();
        kept.world
            .run(&[words.as_slice(), &[TASK]].concat())
            .refused(2, "task.unknown")
            .names(TASK);
        kept.world
            .run(&[words.as_slice(), &[RUN]].concat())
            .refused(2, "id.malformed")
            .names(RUN);
    }
    let world = &kept.world;
    world
        .run(&["tasks", "reassign", TASK, "worker_1"])
        .refused(2, "task.unknown")
        .names(TASK);
    let task = world.json(&["tasks", "list"])["items"][0]["task_id"].clone();
    let task = task.as_str().expect("an id");
    world
        .run(&["tasks", "reassign", task, "nobody"])
        .refused(2, "worker.unknown")
        .names("nobody");
    world
        .run(&["tasks", "reassign", task, "worker_2"])
        .refused(2, "task.state")
        .names(task);
    world
        .run(&["tasks", "list", "--worker", "nobody"])
        .refused(2, "worker.unknown")
        .names("nobody");
    world
        .run(&["tasks", "list", "--status", "nope"])
        .refused(2, "value.out_of_range")
        .names("nope");
    world
        .run(&["runs", "list", "--status", "nope"])
        .refused(2, "value.out_of_range")
        .names("nope");
    world
        .run(&["runs", "list", "--limit", "0"])
        .refused(2, "usage.invalid")
        .names("1 to 1000");
    world
        .run(&["memory", "write", "x", "--importance", "7"])
        .refused(2, "value.out_of_range")
        .names("7");
    world
        .run(&["memory", "write", "x", "--tag", ""])
        .refused(2, "name.malformed");
    kept.is_unharmed();
}

/// Runs one task of this program, which fails.
#[track_caller]
fn fails(world: &World, program: &str, code: &str, what: &str) -> Done {
    let args = [
        "run",
        "Try",
        "--worker-command",
        program,
        "--tasks",
        "1",
        "--attempts",
        "1",
    ];
    let done = world.run(&args).ended(1).names(code).names(what);
    let run = done.run();
    let view = world.json(&["runs", "show", &run]);
    assert_eq!(
        (&view["status"], &view["tasks"]["failed"]),
        (&json!("failed"), &json!(1)),
        "{view:#}"
    );
    // What to do is told as well, and the task keeps the code.
    let task = world.json(&["tasks", "list", "--run", &run])["items"][0].clone();
    assert_eq!(task["failure"]["code"], code, "{task:#}");
    assert!(
        task["failure"]["message"]
            .as_str()
            .is_some_and(|text| text.contains(". ")),
        "{task:#}"
    );
    done
}

#[test]
fn programs_that_misbehave_fail_their_task_and_nothing_else() {
    let kept = Kept::new();
    let world = &kept.world;
    fails(world, "echo hello", "command.no_json", "hello");
    fails(world, "true", "command.no_json", "printed nothing");
    fails(
        world,
        "echo 1; echo 2",
        "command.no_json",
        "not one JSON value",
    );
    fails(
        world,
        r"printf '\377\376'",
        "command.no_json",
        "not one JSON value",
    );
    fails(world, "yes", "command.too_much_output", "1048576 bytes");
    fails(
        world,
        "echo oh dear >&2; exit 3",
        "command.exit",
        "exit code 3; it said: oh dear",
    );
    fails(world, "kill -9 $$", "command.signal", "signal 9");
    fails(world, "$(echo late-nope)", "command.not_found", "late-nope");
    fails(world, "$(echo ./ok.txt)", "command.not_executable", "126");
    world.is_sound();
}

#[test]
fn programs_that_cannot_start_are_refused_before_anything_is_stored() {
    let world = World::new();
    world.file("plain.txt", "");
    world.file("folder/x", "");
    let cases = [
        ("", "command.empty", "empty"),
        ("nope-nope", "command.not_found", "`nope-nope`"),
        ("./missing.sh", "command.not_found", "`./missing.sh`"),
        ("plain.txt", "command.not_found", "./plain.txt"),
        (
            "./plain.txt",
            "command.not_executable",
            "chmod +x ./plain.txt",
        ),
        ("./folder", "command.not_executable", "is a directory"),
    ];
    for (program, code, what) in cases {
        world
            .run(&["run", "Try", "--worker-command", program])
            .refused(2, code)
            .names(what);
    }
    assert!(!world.path(".chargehand").exists());
}

#[test]
fn a_program_that_is_gone_when_resumed_fails_nothing() {
    let world = World::new();
    let program = world.program(
        "worker.sh",
        "test -f flag && echo 1 || { touch begun; sleep 60; }",
    );
    let mut child = world.start(&["run", "Wait", "--worker-command", &program, "--tasks", "1"]);
    crate::world::until("it runs", || world.path("begun").exists());
    child.kill().expect("it can be killed");
    finish(child, b"").ended(-1);
    std::fs::rename(world.path("worker.sh"), world.path("away.sh")).expect("it can be moved");
    world
        .run(&["resume"])
        .refused(2, "command.not_found")
        .names("./worker.sh");
    std::fs::rename(world.path("away.sh"), world.path("worker.sh")).expect("it can be moved");
    world.file("flag", "");
    assert_eq!(world.json(&["resume"])["status"], "completed");
    world.is_sound();
}

// S3-108, H-03: the time limit returns on time, stops the program and what it started, and frees the
// worker for the next task.
#[test]
fn a_program_that_hangs_is_stopped_with_all_its_children() {
    let world = World::new();
    world.lines("rows.jsonl", 2);
    let script = r#"if grep -q '"n":1'; then
  echo begun >> effects
  sleep 300 & echo $! > child
  sh -c 'sleep 300 & echo $! > grandchild; wait' &
  wait
  echo ended >> effects
fi
echo 1"#;
    let program = world.program("worker.sh", script);
    let since = Instant::now();
    let args = [
        "run",
        "Hang",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ];
    let limits = [
        "--workers",
        "1",
        "--timeout",
        "1",
        "--attempts",
        "1",
        "--output",
        "json",
    ];
    let made = world
        .run(&[args.as_slice(), &limits].concat())
        .ended(1)
        .document();
    let took = since.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(30)).contains(&took),
        "{took:?}"
    );
    let tasks = &made["tasks"];
    assert_eq!(
        (&tasks[0]["status"], &tasks[1]["status"]),
        (&json!("failed"), &json!("completed")),
        "{made:#}"
    );
    assert!(
        tasks[0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("1000 ms")),
        "{made:#}"
    );
    assert_eq!(
        tasks[0]["worker"], tasks[1]["worker"],
        "the worker is free again"
    );
    // On time, to the second, by the log's own account.
    let id = tasks[0]["task_id"].as_str().expect("an id");
    let ran_ms = world.json(&["tasks", "show", id])["ended"][0]["ran_ms"].as_u64();
    assert!(
        ran_ms.is_some_and(|ms| (1_000..2_000).contains(&ms)),
        "{ran_ms:?}"
    );
    for name in ["child", "grandchild"] {
        let pid: i32 = world.read(name).trim().parse().expect("a process id");
        crate::world::until(name, || is_gone(pid));
    }
    assert_eq!(
        world.read("effects"),
        "begun\n",
        "it began once and did not go on"
    );
    world.is_sound();
}

/// Gone, or dead and only waiting for whoever adopted it.
fn is_gone(pid: i32) -> bool {
    let process = Pid::from_raw(pid).expect("a process id");
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(process).is_err() || status.contains(") Z ")
}

#[test]
fn a_program_that_forks_and_leaves_is_done_and_its_child_is_stopped() {
    let world = World::new();
    let program = world.program("worker.sh", "sleep 300 & echo $! > child; echo 1");
    let since = Instant::now();
    let made = world.json(&["run", "Fork", "--worker-command", &program, "--tasks", "1"]);
    assert_eq!(
        (&made["status"], &made["results"][0]["output"]),
        (&json!("completed"), &json!(1))
    );
    assert!(
        since.elapsed() < Duration::from_secs(30),
        "nobody waits for the child"
    );
    let pid: i32 = world.read("child").trim().parse().expect("a process id");
    crate::world::until("the child", || is_gone(pid));
    world.is_sound();
}

/// Commands that need a store, each kind of use.
const USES: [&[&str]; 6] = [
    &["run", "Tick", "--worker-command", "echo 1"],
    &["resume"],
    &["runs", "list"],
    &["doctor", "--replay"],
    &["status"],
    &["memory", "write", "x"],
];

#[test]
fn stores_that_cannot_be_used_are_refused_and_left_as_they_are() {
    let kept = Kept::new();
    let world = &kept.world;
    // All of the store in its one file, as after a day's work.
    let store = Connection::open(world.path(".chargehand/store.db")).expect("a database");
    store
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("a checkpoint");
    drop(store);
    let good = std::fs::read(world.path(".chargehand/store.db")).expect("a store");
    world.file("file", "x");
    world.file("garbage/store.db", [7; 9_000]);
    world.file("cut/store.db", &good[..good.len() / 2]);
    world.file("newer/store.db", &good);
    world.file("foreign/store.db", "");
    let newer = Connection::open(world.path("newer/store.db")).expect("a database");
    newer
        .pragma_update(None, "user_version", 999)
        .expect("a later form");
    drop(newer);
    let foreign = Connection::open(world.path("foreign/store.db")).expect("a database");
    foreign
        .execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")
        .expect("a table");
    drop(foreign);
    let cases = [
        ("file", "store.path"),
        ("", "store.path"),
        ("postgres://nowhere/x", "store.path"),
        ("garbage", "store.corrupt"),
        ("cut", "store.corrupt"),
        ("newer", "store.newer"),
        ("foreign", "store.corrupt"),
    ];
    for (place, code) in cases {
        let folder = world.path(place);
        let before = (folder.is_dir() && !place.is_empty()).then(|| bytes(&folder));
        for args in USES {
            let done = world.run(&[args, &["--store", place]].concat());
            done.refused(2, code).names(place);
        }
        if let Some(before) = before {
            assert!(bytes(&folder) == before, "{place} is left as it was");
        }
    }
    for place in ["file/below", "/proc/none"] {
        let run = [
            "run",
            "Tick",
            "--worker-command",
            "echo 1",
            "--store",
            place,
        ];
        world.run(&run).refused(2, "store.path").names(place);
        world
            .run(&["runs", "list", "--store", place])
            .refused(2, "store.missing")
            .names(place);
    }
    kept.is_unharmed();
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_and_can_be_read() {
    let kept = Kept::new();
    let folder = kept.world.path("");
    // Whoever owns all may write all: such a one looks through the eyes of nobody.
    let all_mighty = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let program = if all_mighty {
        let copy = kept.world.path("chargehand");
        std::fs::copy(env!("CARGO_BIN_EXE_chargehand"), &copy).expect("a copy");
        copy
    } else {
        PathBuf::from(env!("CARGO_BIN_EXE_chargehand"))
    };
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    std::fs::create_dir(folder.join("shut")).expect("a folder");
    mode(&folder, 0o755);
    mode(&folder.join("shut"), 0o555);
    mode(&folder.join(".chargehand"), 0o555);
    for entry in std::fs::read_dir(folder.join(".chargehand")).expect("a store") {
        mode(&entry.expect("an entry").path(), 0o444);
    }
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .args(args)
            .current_dir(&folder)
            .env_remove("CHARGEHAND_STORE");
        command.stdin(std::process::Stdio::null());
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        if all_mighty {
            command.uid(65_534).gid(65_534);
        }
        finish(command.spawn().expect("it starts"), b"")
    };
    let tick = ["run", "Tick", "--worker-command", "echo 1"];
    run(&tick).refused(2, "store.path").names(".chargehand");
    run(&[tick.as_slice(), &["--store", "shut/new"]].concat())
        .refused(2, "store.path")
        .names("shut/new");
    run(&["resume"])
        .refused(2, "store.path")
        .names(".chargehand");
    std::fs::write(folder.join("secret.txt"), "I love it.").expect("a file");
    mode(&folder.join("secret.txt"), 0o000);
    run(&["run", GOAL, "--input", "secret.txt"])
        .refused(2, "input.unreadable")
        .names("secret.txt");
    mode(&folder.join(".chargehand"), 0o755);
    for entry in std::fs::read_dir(folder.join(".chargehand")).expect("a store") {
        mode(&entry.expect("an entry").path(), 0o644);
    }
    kept.is_unharmed();
}

#[test]
fn errors_are_json_only_for_who_asks_for_json() {
    let world = World::new();
    for (args, json) in [
        (&["run", "--input", "data.json"][..], false),
        (&["run", "--input", "json"], false),
        (&["run", "-o", "text", "--crew", "json"], false),
        (&["run", "-o", "json"], true),
        (&["run", "-ojson"], true),
        (&["run", "--output", "json", "--input", "a.txt"], true),
        (&["run", "--output=json"], true),
    ] {
        let done = world.run(args).ended(2);
        let is_json = done.err.starts_with("{\"error\":");
        assert_eq!(is_json, json, "{args:?} {done:#?}");
        assert!(done.err.contains("usage.invalid"), "{done:#?}");
    }
}

#[test]
fn help_does_not_break_in_mid_line_and_its_examples_work() {
    let world = World::new();
    for command in ["run", "chat", "serve", "events"] {
        let help = world.run(&[command, "--help"]).ended(0).out;
        let (_, text) = help.split_once("\nExamples:\n").unwrap();
        let paragraphs = text.split("\n\n").skip(1);
        for paragraph in paragraphs {
            let lines: Vec<&str> = paragraph.trim_end().lines().collect();
            // A line is as full as the first word of the next one lets it be.
            for pair in lines.windows(2) {
                let next = pair[1].split(' ').next().unwrap();
                let width = pair[0].chars().count() + 1 + next.chars().count();
                assert!(width > 80, "{command}: {pair:?}");
            }
        }
    }
    let help = world.run(&["tools", "list", "--help"]).ended(0).out;
    let (_, examples) = help.split_once("\nExamples:\n").unwrap();
    let mut lines = examples.lines();
    let example = lines.find(|line| line.contains("--category")).unwrap();
    let args: Vec<&str> = example.split_whitespace().skip(1).collect();
    let listed = world.run(&args).ended(0);
    assert!(listed.out.contains("http.fetch"), "{listed:#?}");
}
