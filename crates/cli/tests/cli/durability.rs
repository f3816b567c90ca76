//! What survives: kills, interruptions, failures; and that what is done is not done again.

use crate::world::{World, finish, promised, signal, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Says which row it was, and leaves a line behind; the later ones wait for a flag.
const WORKER: &str = r#"n=$(sed 's/.*"n":\([0-9]*\).*/\1/')
echo "$n" >> effects
while [ "$n" -gt 5 ] && ! test -f flag; do sleep 0.05; done
echo "{\"row\": $n}""#;

fn effects(world: &World) -> BTreeMap<u32, u32> {
    let mut seen = BTreeMap::new();
    for line in world.read("effects").lines() {
        *seen.entry(line.parse().expect("a number")).or_insert(0) += 1;
    }
    seen
}

/// The results by their source: ids and workers differ from run to run.
fn made(run: &Value) -> Value {
    let results = run["results"].as_array().expect("results");
    results
        .iter()
        .map(|one| json!([one["source"], one["output"]]))
        .collect()
}

/// The final result of a run over ten rows that nothing disturbs.
fn undisturbed() -> Value {
    let world = World::new();
    world.lines("rows.jsonl", 10);
    world.file("flag", "");
    let program = world.program("worker.sh", WORKER);
    world.json(&[
        "run",
        "Count",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ])
}

/// A run over ten rows, five done, two begun and not finished; then `end` ends the program.
fn interrupted(world: &World, end: Signal, code: i32) -> String {
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
    signal(&child, end);
    finish(child, b"").ended(code);
    run
}

#[test]
fn after_a_kill_only_the_rest_is_done_and_the_result_is_the_same() {
    let world = World::new();
    let run = interrupted(&world, Signal::KILL, -1);
    let done: Vec<Value> = world.json(&["tasks", "list", "--status", "completed"])["items"]
        .as_array()
        .expect("tasks")
        .clone();
    assert_eq!(done.len(), 5);
    let before = effects(&world);
    world.file("flag", "");
    let resumed = world.json(&["resume"]);
    assert_eq!(
        (&resumed["run_id"], &resumed["status"]),
        (&json!(run), &json!("completed"))
    );
    let whole = undisturbed();
    assert_eq!(made(&resumed), made(&whole), "the same as without the kill");
    assert_eq!(resumed["final_result"], whole["final_result"]);
    let after = effects(&world);
    assert_eq!(
        after.keys().copied().collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    for row in 1..=5 {
        assert_eq!(
            (before[&row], after[&row]),
            (1, 1),
            "row {row} is done, and not done again"
        );
    }
    for task in done {
        let id = task["task_id"].as_str().expect("an id");
        assert_eq!(
            world.json(&["tasks", "show", id]),
            task,
            "a finished task stays as it is"
        );
    }
    // What was begun was lost, and its second attempt is on record.
    let tasks = resumed["tasks"].as_array().expect("tasks");
    let again: Vec<&Value> = tasks.iter().filter(|task| task["attempts"] == 2).collect();
    assert_eq!(again.len(), 2, "{tasks:#?}");
    world.is_sound();
}

#[test]
fn a_signal_hands_the_work_back_and_says_how_to_go_on() {
    for end in [Signal::INT, Signal::TERM] {
        let world = World::new();
        world.lines("rows.jsonl", 2);
        let program = world.program("worker.sh", "test -f flag || sleep 60; echo 1");
        let args = [
            "run",
            "Wait",
            "--input",
            "rows.jsonl",
            "--worker-command",
            &program,
        ];
        let child = world.start(&args);
        until("both run", || {
            let done = world.run(&["status", "--output", "json"]);
            done.code == 0 && done.document()["progress"]["running_tasks"] == 2
        });
        signal(&child, end);
        let done = finish(child, b"").ended(130).names("chargehand resume");
        assert_eq!(done.out, "", "{done:#?}");
        // Handed back at once: the next does not wait for a lease to run out.
        let pending = world.json(&["tasks", "list", "--status", "pending"]);
        let waits: Vec<&Value> = pending["items"]
            .as_array()
            .expect("tasks")
            .iter()
            .map(|task| &task["waits_for"])
            .collect();
        assert_eq!(waits.len(), 2, "{pending:#}");
        world.file("flag", "");
        let resumed = world.json(&["resume", &done.run()]);
        assert_eq!(resumed["status"], "completed", "{resumed:#}");
        world.is_sound();
    }
}

#[test]
fn with_nothing_to_resume_it_says_so() {
    let world = World::new();
    world.run(&["resume"]).refused(2, "store.missing");
    let run = world
        .run(&["run", "Tick", "--worker-command", "echo 1"])
        .ended(0)
        .run();
    assert!(
        world
            .run(&["resume"])
            .ended(0)
            .out
            .starts_with("Nothing to resume")
    );
    assert_eq!(world.json(&["resume"]), json!({"items": []}));
    // One that ended is shown again, and nothing is run.
    let events = world.json(&["doctor"])["events"].clone();
    let shown = world.json(&["resume", &run]);
    assert_eq!(
        (&shown["status"], &shown["statistics"]["attempts"]),
        (&json!("completed"), &json!(3))
    );
    let workers_come_and_go = 4;
    let after = world.json(&["doctor"])["events"].as_u64().expect("events");
    assert!(after <= events.as_u64().expect("events") + workers_come_and_go);
}

// What failed is told, what was made is kept and marked, and only what failed is done again.
#[test]
fn a_failed_run_keeps_its_part_and_retries_only_what_failed() {
    let world = World::new();
    world.lines("rows.jsonl", 6);
    let script = r#"n=$(sed 's/.*"n":\([0-9]*\).*/\1/')
echo "$n" >> effects
if [ "$n" -eq 2 ] || [ "$n" -eq 5 ]; then test -f flag || { echo "no flag" >&2; exit 3; }; fi
echo "{\"row\": $n}""#;
    let program = world.program("worker.sh", script);
    let args = [
        "run",
        "Count",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
        "--attempts",
        "1",
    ];
    let failed = world
        .run(&[args.as_slice(), &["--output", "json"]].concat())
        .ended(1)
        .document();
    assert_eq!(
        (&failed["status"], &failed["partial"]),
        (&json!("failed"), &json!(true)),
        "{failed:#}"
    );
    assert_eq!(
        failed["results"].as_array().map(Vec::len),
        Some(4),
        "{failed:#}"
    );
    let text = failed["final_result"]["text"]
        .as_str()
        .expect("a partial result");
    assert!(text.contains("without a result: 2 of 6"), "{text}");
    let errors: Vec<&str> = failed["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .filter_map(|task| task["error"].as_str())
        .collect();
    assert_eq!(errors.len(), 2, "{failed:#}");
    assert!(
        errors
            .iter()
            .all(|error| error.contains("exit code 3") && error.contains("no flag")),
        "{errors:?}"
    );
    let run = failed["run_id"].as_str().expect("an id");
    let shown = world.run(&["runs", "show", run]).ended(0);
    assert!(
        shown.out.contains("partial result") && shown.out.contains("failure"),
        "{shown:#?}"
    );

    world.file("flag", "");
    let retried = world.run(&["runs", "retry", run]).ended(0);
    assert!(
        retried.err.contains("4 of 6 tasks are done"),
        "{retried:#?}"
    );
    let retried = world.json(&["runs", "show", run]);
    assert_eq!(
        (&retried["status"], retried.get("partial")),
        (&json!("completed"), None),
        "{retried:#}"
    );
    let counts: Vec<u32> = effects(&world).into_values().collect();
    assert_eq!(counts, [1, 2, 1, 1, 2, 1], "only what failed is done again");
    world
        .run(&["runs", "retry", run])
        .refused(2, "run.state")
        .names(run);
    world.is_sound();
}

#[test]
fn a_failed_run_in_words_says_what_to_do() {
    let world = World::new();
    let args = [
        "run",
        "Fail",
        "--worker-command",
        "exit 7",
        "--attempts",
        "1",
        "--tasks",
        "2",
    ];
    let done = world.run(&args).ended(1);
    let run = done.run();
    assert!(done.out.contains(&format!("{run} failed in ")), "{done:#?}");
    assert!(
        done.out.contains(&format!("chargehand runs retry {run}")),
        "{done:#?}"
    );
    assert!(done.err.contains("exit code 7"), "{done:#?}");
    // Attempts that are left are used before it gives up.
    let args = [
        "run",
        "Fail",
        "--worker-command",
        "exit 7",
        "--attempts",
        "2",
        "--tasks",
        "1",
    ];
    let failed = world
        .run(&[args.as_slice(), &["--output", "json"]].concat())
        .ended(1)
        .document();
    assert_eq!(failed["tasks"][0]["attempts"], 2);
}

#[test]
fn several_interrupted_runs_are_resumed_together() {
    let world = World::new();
    world.lines("rows.jsonl", 2);
    let program = world.program("worker.sh", "test -f flag || sleep 60; echo 1");
    for _ in 0..2 {
        let args = [
            "run",
            "Wait",
            "--input",
            "rows.jsonl",
            "--worker-command",
            &program,
        ];
        let mut child = world.start(&args);
        promised(&mut child);
        signal(&child, Signal::KILL);
        finish(child, b"").ended(-1);
    }
    world.file("flag", "");
    let both = world.json(&["resume"]);
    let runs = both["items"].as_array().expect("two runs");
    assert_eq!(
        runs.iter()
            .filter(|run| run["status"] == "completed")
            .count(),
        2,
        "{both:#}"
    );
    world.is_sound();
}

#[test]
fn work_goes_on_when_nobody_listens_any_more() {
    let world = World::new();
    world.lines("rows.jsonl", 20);
    let program = world.program(
        "worker.sh",
        "while ! test -f flag; do sleep 0.05; done; echo 1",
    );
    let args = [
        "run",
        "Wait",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ];
    let mut child = world.start(&args);
    until("it runs", || world.run(&["status"]).code == 0);
    // As `2>&1 | head -1` does.
    drop((child.stderr.take(), child.stdout.take()));
    world.file("flag", "");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(world.json(&["status"])["progress"]["completed_tasks"], 20);
    world.is_sound();
}
