//! The main job: a goal and real input in, a result out; and every command that looks at it.

use crate::world::{Done, GOAL, World, finish, promised, signal, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const REVIEWS: &str = "examples/reviews";

/// What a person says of each review, by hand; `None` where opinions may differ.
const BY_HAND: [(&str, Option<&str>); 10] = [
    ("01-headphones.txt", Some("positive")),
    ("02-kettle-leaks.txt", Some("negative")),
    ("03-not-good.txt", Some("negative")),
    ("04-not-bad.txt", Some("positive")),
    ("05-backpack-amazing.txt", Some("positive")),
    ("06-jacket-awful.txt", Some("negative")),
    ("07-delivery-facts.txt", Some("neutral")),
    ("08-blender-mixed.txt", Some("negative")),
    ("09-tent-after-all.txt", Some("positive")),
    ("10-desk-mild.txt", None),
];

fn labels() -> impl Iterator<Item = (String, Option<&'static str>)> {
    BY_HAND
        .into_iter()
        .map(|(file, label)| (format!("{REVIEWS}/{file}"), label))
}

#[track_caller]
fn array(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("an array: {value:#}"))
}

fn strings(values: &[Value], field: &str) -> Vec<String> {
    values
        .iter()
        .map(|value| value[field].as_str().unwrap_or("").to_owned())
        .collect()
}

// S1-02, S1-60, S1-64, S2-38: one command splits, delegates to two workers, and aggregates; no key, no
// service, no server.
#[test]
fn a_newcomer_sees_the_plan_the_progress_the_items_and_the_whole() {
    let world = World::with_reviews();
    let done = world.run(&["run", GOAL, "--input", REVIEWS]).ended(0);
    for (file, label) in labels() {
        let lines: Vec<&str> = done
            .out
            .lines()
            .take(10)
            .filter(|line| line.contains(&file))
            .collect();
        let [line] = lines.as_slice() else {
            panic!("one line of {file}: {done:#?}")
        };
        if let Some(label) = label {
            assert!(line.trim_start().starts_with(label), "{line}");
        }
    }
    for part in [
        "10 texts: ",
        " positive, ",
        " negative, ",
        " neutral",
        "mean score: +0.",
    ] {
        assert!(done.out.contains(part), "“{part}” is not in {done:#?}");
    }
    let strongest = done
        .out
        .split("strongest positive:")
        .nth(1)
        .expect("the strongest");
    let (positive, negative) = strongest
        .split_once("strongest negative:")
        .expect("both ends");
    assert!(positive.contains("05-backpack-amazing.txt") && positive.contains("AMAZING backpack"));
    assert!(negative.contains("06-jacket-awful.txt") && negative.contains("just awful"));
    // What comes next is told, and works as it is told.
    let run = done.run();
    assert!(
        done.out.contains(&format!("{run} completed in ")),
        "{done:#?}"
    );
    for next in [
        vec!["runs", "show", &run],
        vec!["tasks", "list", "--run", &run],
    ] {
        assert!(
            done.out.contains(&format!("chargehand {}", next.join(" "))),
            "{done:#?}"
        );
        assert!(world.run(&next).ended(0).out.contains("completed"));
    }
    // Progress is on standard error, plain where nobody watches: no colours, no cursor.
    assert!(
        !done.err.contains('\u{1b}') && !done.err.contains('\r'),
        "{done:#?}"
    );
    assert!(
        done.err
            .contains("plan  text.sentiment — the goal says “sentiment”"),
        "{done:#?}"
    );
    assert!(
        done.err.contains("10 items in 10 tasks for 2 workers"),
        "{done:#?}"
    );
    assert!(
        done.err.contains(&format!("run   {run} in .chargehand")),
        "{done:#?}"
    );
    assert_eq!(
        done.err
            .lines()
            .filter(|line| line.contains("/10 completed "))
            .count(),
        10
    );
    assert!(done.err.contains("10 completed · 0 failed · "), "{done:#?}");
    world.is_sound();
}

// S1-61, S1-62, S1-63: tasks with who did them, a result per item, one result in all.
#[test]
fn json_is_one_document_with_every_part_and_every_number_right() {
    let world = World::with_reviews();
    let made = world.json(&["run", GOAL, "--input", REVIEWS]);
    let keys: Vec<&str> = made
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut wanted = [
        "run_id",
        "status",
        "plan",
        "tasks",
        "results",
        "final_result",
        "statistics",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(
        (&made["status"], &made["plan"]["goal"]),
        (&json!("completed"), &json!(GOAL))
    );

    let (tasks, results) = (array(&made["tasks"]), array(&made["results"]));
    assert_eq!((tasks.len(), results.len()), (10, 10));
    assert_eq!(
        strings(tasks, "task_id"),
        strings(results, "task_id"),
        "in the same order"
    );
    for task in tasks {
        assert_eq!(
            (&task["status"], &task["attempts"]),
            (&json!("completed"), &json!(1)),
            "{task}"
        );
        assert!(
            ["worker_1", "worker_2"]
                .map(Value::from)
                .contains(&task["worker"]),
            "{task}"
        );
    }
    let mut counts = BTreeMap::from([("positive", 0), ("negative", 0), ("neutral", 0)]);
    let mut scores: Vec<(f64, String)> = Vec::new();
    for (result, (file, label)) in results.iter().zip(labels()) {
        assert_eq!(
            result["source"],
            json!({"file": file}),
            "in the order of the input"
        );
        let (said, score) = (
            result["output"]["label"].as_str(),
            result["output"]["score"].as_f64(),
        );
        let (said, score) = (said.expect("a label"), score.expect("a score"));
        assert!(label.is_none_or(|label| label == said), "{result:#}");
        // The label is the sign of the score, beyond the width of nothing that the lexicon has.
        let sign = if score >= 0.05 {
            "positive"
        } else if score <= -0.05 {
            "negative"
        } else {
            "neutral"
        };
        assert!(said == sign && (-1.0..=1.0).contains(&score), "{result:#}");
        *counts.get_mut(sign).expect("one of three") += 1;
        scores.push((score, file));
    }
    let whole = &made["final_result"];
    for (label, count) in counts {
        assert_eq!(whole[label], count, "{whole:#}");
    }
    let mean = scores.iter().map(|(score, _)| score).sum::<f64>() / 10.0;
    let told = whole["mean_score"].as_f64().expect("a mean");
    assert!((told - mean).abs() < 0.0002, "{told} for {mean}");
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(
        whole["strongest_negative"][0]["source"]["file"],
        json!(scores[0].1)
    );
    assert_eq!(
        whole["strongest_positive"][0]["source"]["file"],
        json!(scores[9].1)
    );
    assert!(
        whole["text"]
            .as_str()
            .is_some_and(|text| text.contains("10 texts: ")),
        "{whole:#}"
    );
    assert_eq!(
        made["statistics"]["attempts"], 10,
        "{:#}",
        made["statistics"]
    );
}

/// So many tickets, one file each.
fn tickets(world: &World, count: usize) {
    for n in 1..=count {
        let text = if n % 2 == 0 {
            "I am very happy with it, thanks!"
        } else {
            "It is broken, I am angry."
        };
        world.file(&format!("tickets/{n}.txt"), text);
    }
}

// S1-66, S1-64: 5 tickets, 3 workers, 5 tasks, offline; worker n mod 3 takes the nth.
#[test]
fn five_tickets_three_workers_five_tasks() {
    let world = World::new();
    tickets(&world, 5);
    let args = [
        "run",
        "Analyze the sentiment of these tickets",
        "--input",
        "tickets",
    ];
    let numbers = [
        "--workers",
        "3",
        "--tasks",
        "5",
        "--strategy",
        "round-robin",
    ];
    let made = world.json(&[args.as_slice(), &numbers].concat());
    let (tasks, results) = (array(&made["tasks"]), array(&made["results"]));
    assert_eq!((tasks.len(), results.len()), (5, 5));
    let turns = ["worker_1", "worker_2", "worker_3", "worker_1", "worker_2"];
    assert_eq!(strings(tasks, "worker"), turns);
    assert_eq!(strings(results, "worker"), turns);
    let labels: Vec<&Value> = results
        .iter()
        .map(|result| &result["output"]["label"])
        .collect();
    assert_eq!(
        labels,
        ["negative", "positive", "negative", "positive", "negative"]
    );
    let workers = world.json(&["workers", "list"]);
    assert_eq!(
        strings(array(&workers["items"]), "worker_id"),
        ["worker_1", "worker_2", "worker_3"]
    );
    let done: Vec<&Value> = array(&workers["items"])
        .iter()
        .map(|worker| &worker["completed"])
        .collect();
    assert_eq!(done, [2, 2, 1]);
}

// S1-65: three when nothing tells how many; otherwise exactly as many as were asked for, each with
// its even share of the items.
#[test]
fn tasks_are_exactly_as_many_as_asked_for() {
    let world = World::new();
    let three = world.json(&["run", "Tick", "--worker-command", "echo 1"]);
    assert_eq!(
        (array(&three["tasks"]).len(), array(&three["results"]).len()),
        (3, 3)
    );
    tickets(&world, 5);
    for tasks in 1..=5 {
        let made = world.json(&[
            "run",
            GOAL,
            "--input",
            "tickets",
            "--tasks",
            &tasks.to_string(),
        ]);
        assert_eq!(array(&made["tasks"]).len(), tasks);
        let files: Vec<&Value> = array(&made["results"])
            .iter()
            .map(|one| &one["source"]["file"])
            .collect();
        assert_eq!(
            json!(files),
            (1..=5)
                .map(|n| format!("tickets/{n}.txt"))
                .collect::<Value>()
        );
        let ids = strings(array(&made["results"]), "task_id");
        let shares = strings(array(&made["tasks"]), "task_id");
        let shares = shares
            .iter()
            .map(|task| ids.iter().filter(|id| *id == task).count());
        assert!(
            shares.clone().max() <= shares.min().map(|least| least + 1),
            "{tasks} even shares"
        );
    }
}

#[test]
fn a_hundred_reviews_for_five_workers() {
    let world = World::new();
    let lines: Vec<String> = (0..100)
        .map(|n| json!({"n": n, "review": "I love it."}).to_string())
        .collect();
    world.file("reviews.jsonl", lines.join("\n"));
    let made = world.json(&[
        "run",
        GOAL,
        "--input",
        "reviews.jsonl",
        "--workers",
        "5",
        "--tasks",
        "100",
    ]);
    assert_eq!(
        (array(&made["tasks"]).len(), array(&made["results"]).len()),
        (100, 100)
    );
    assert_eq!(made["final_result"]["positive"], 100);
    let workers: std::collections::BTreeSet<String> = strings(array(&made["tasks"]), "worker")
        .into_iter()
        .collect();
    assert_eq!(workers.len(), 5, "{workers:?}");
}

#[test]
fn every_kind_of_input_says_where_each_item_came_from() {
    let world = World::new();
    world.file("in/a.md", "# Title\n\nI love it.");
    world.file(
        "in/b.jsonl",
        "{\"text\": \"I hate it.\"}\n\n{\"text\": \"I love it.\"}\n",
    );
    world.file(
        "in/c.csv",
        "id,comment\n1,I love it.\n2,\"I hate it, really.\"\n",
    );
    let sources = |input: &[&str], stdin: &str| -> Value {
        let args = ["run", GOAL, "--output", "json", "--input"];
        let made = world
            .run_with(&[args.as_slice(), input].concat(), stdin.as_bytes())
            .ended(0)
            .document();
        array(&made["results"])
            .iter()
            .map(|one| json!([one["source"], one["output"]["label"]]))
            .collect()
    };
    let all = json!([
        [{"file": "in/a.md"}, "positive"],
        [{"file": "in/b.jsonl", "line": 1}, "negative"],
        [{"file": "in/b.jsonl", "line": 3}, "positive"],
        [{"file": "in/c.csv", "row": 1}, "positive"],
        [{"file": "in/c.csv", "row": 2}, "negative"],
    ]);
    assert_eq!(sources(&["in"], ""), all);
    // The program expands patterns that no shell did, and reads what is named twice once.
    assert_eq!(sources(&["in/*"], ""), all);
    assert_eq!(
        sources(&["in/a.md", "in/*.jsonl", "in/c.csv", "in"], ""),
        all
    );
    assert_eq!(
        sources(&["-"], "I love it.\nTruly."),
        json!([[{"file": "-"}, "positive"]])
    );
    let lines = "{\"text\": \"I hate it.\"}\n{\"text\": \"I love it.\"}\n";
    let both =
        json!([[{"file": "-", "line": 1}, "negative"], [{"file": "-", "line": 2}, "positive"]]);
    assert_eq!(sources(&["-"], lines), both);
    let shown = world
        .run(&["run", GOAL, "--input", "in/b.jsonl", "in/c.csv"])
        .ended(0);
    assert!(
        shown.out.contains("in/b.jsonl:3\n") && shown.out.contains("in/c.csv row 2\n"),
        "{shown:#?}"
    );
}

/// The output of the only item.
#[track_caller]
fn one(made: &Value) -> &Value {
    let [one] = array(&made["results"]) else {
        panic!("one result: {made:#}")
    };
    &one["output"]
}

// S2-38: every skill works in this one program, offline.
#[test]
fn every_skill_makes_a_real_result_offline() {
    let world = World::new();
    let text = "Otters live in rivers. Otters eat fish, and otters play all day. \
                Write to otto@example.com before 2026-03-01 and pay 12.50 EUR at https://example.com/otters today.";
    world.file("otters.txt", text);
    world.file("rows.csv", "name,legs\notter,4\nheron,2\n");
    world.file(
        "rows.jsonl",
        "{\"name\": \"otter\", \"legs\": 4}\n{\"name\": \"heron\", \"legs\": 2}\n",
    );
    world.file("links.txt", "See http://127.0.0.1:9/nothing for more.");
    let run = |skill: &str, input: &str, options: &str| {
        world.json(&[
            "run",
            "look at this",
            "--skill",
            skill,
            "--input",
            input,
            "--options",
            options,
        ])
    };
    let stats = run("text.stats", "otters.txt", "{}");
    let words = text.split_whitespace().count();
    assert!(
        one(&stats)["words"]
            .as_u64()
            .is_some_and(|n| n.abs_diff(words as u64) <= 8),
        "{stats:#}"
    );
    assert_eq!(
        one(&stats)["characters"],
        text.chars().count(),
        "{:#}",
        one(&stats)
    );
    let summary = run("text.summary", "otters.txt", r#"{"sentences": 1}"#);
    assert!(
        text.contains(one(&summary)["summary"].as_str().expect("a summary")),
        "{summary:#}"
    );
    assert_eq!(
        one(&run("text.sentiment", "otters.txt", "{}"))["label"],
        "positive"
    );
    let keywords = run("text.keywords", "otters.txt", r#"{"limit": 3}"#);
    assert!(
        one(&keywords).to_string().contains("otters"),
        "{:#}",
        one(&keywords)
    );
    assert!(
        one(&run("text.language", "otters.txt", "{}"))
            .to_string()
            .contains("English")
    );
    let extract = one(&run("text.extract", "otters.txt", "{}")).to_string();
    for found in [
        "https://example.com/otters",
        "otto@example.com",
        "2026-03-01",
        "12.50",
    ] {
        assert!(extract.contains(found), "{found}: {extract}");
    }
    assert!(
        one(&run("text.digest", "otters.txt", "{}"))
            .to_string()
            .contains("English")
    );
    for (skill, input) in [("json.shape", "rows.jsonl"), ("csv.shape", "rows.csv")] {
        let made = run(
            skill,
            input,
            r#"{"filter": "legs > 2", "select": ["name"]}"#,
        );
        let text = made["results"].to_string();
        assert!(
            text.contains("otter") && made["final_result"].to_string().contains('1'),
            "{made:#}"
        );
        assert!(
            !made["results"].to_string().contains(r#""name":"heron""#),
            "{made:#}"
        );
    }
    // Nothing private is fetched unless it is allowed; the task fails and says so.
    let args = [
        "run",
        "look",
        "--skill",
        "http.fetch",
        "--input",
        "links.txt",
        "--attempts",
        "1",
    ];
    let refused = world.run(&args).ended(1);
    assert!(refused.out.contains("127.0.0.1"), "{refused:#?}");
    // The list of skills names them all.
    let listed = strings(array(&world.json(&["skills"])["items"]), "name");
    assert_eq!(listed.len(), 10, "{listed:?}");
}

#[test]
fn a_program_gets_its_brief_and_its_result_is_kept() {
    let world = World::new();
    world.lines("rows.jsonl", 3);
    let script = r#"brief=$(cat)
printf '{"brief": %s, "key": "%s", "task": "%s", "attempt": %s, "worker": "%s"}' \
    "$brief" "$CHARGEHAND_IDEMPOTENCY_KEY" "$CHARGEHAND_TASK_ID" "$CHARGEHAND_ATTEMPT" "$CHARGEHAND_WORKER"
echo done >&2"#;
    let program = world.program("worker.sh", script);
    let args = [
        "run",
        "Check each row",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ];
    let made = world.json(&args);
    let (tasks, results) = (array(&made["tasks"]), array(&made["results"]));
    assert_eq!((tasks.len(), results.len()), (3, 3));
    for (n, (task, result)) in tasks.iter().zip(results).enumerate() {
        let (output, brief) = (&result["output"], &result["output"]["brief"]);
        assert_eq!(
            result["source"],
            json!({"file": "rows.jsonl", "line": n + 1})
        );
        assert_eq!(brief["goal"], "Check each row");
        assert_eq!(brief["items"][0]["record"], json!({"n": n + 1}));
        assert_eq!(
            (&brief["task_id"], &brief["attempt"]),
            (&task["task_id"], &json!(1))
        );
        assert_eq!(
            (&output["task"], &output["attempt"]),
            (&task["task_id"], &json!(1))
        );
        assert_eq!(
            (&output["worker"], &output["key"]),
            (&task["worker"], &task["task_id"])
        );
    }
    // Without input it runs as often as it is told.
    let made = world.json(&["run", "Tick", "--worker-command", "echo 1", "--tasks", "4"]);
    assert_eq!(
        array(&made["results"])
            .iter()
            .filter(|one| one["output"] == 1)
            .count(),
        4
    );
}

// S1-32: each command that looks shows the same facts, for people and for programs.
#[test]
fn every_command_that_looks_agrees_with_the_run() {
    let world = World::with_reviews();
    let made = world.json(&["run", GOAL, "--input", REVIEWS, "--workers", "2"]);
    let run = made["run_id"].as_str().expect("an id");
    let listed = world.json(&["runs", "list"]);
    assert_eq!(
        (&listed["items"][0]["run_id"], &listed["items"][0]["status"]),
        (&json!(run), &json!("completed"))
    );
    assert_eq!(array(&listed["items"]).len(), 1);
    let shown = world.json(&["runs", "show", run]);
    assert_eq!(
        (&shown["run_id"], &shown["final_result"]),
        (&json!(run), &made["final_result"])
    );
    assert_eq!(world.json(&["runs", "watch", run]), shown);
    let tasks = world.json(&["tasks", "list", "--run", run]);
    assert_eq!(
        strings(array(&tasks["items"]), "task_id"),
        strings(array(&made["tasks"]), "task_id")
    );
    let task = made["tasks"][3]["task_id"].as_str().expect("an id");
    let one = world.json(&["tasks", "show", task]);
    assert_eq!(
        (&one["task_id"], &one["worker"]),
        (&json!(task), &made["tasks"][3]["worker"])
    );
    let text = world.run(&["tasks", "show", task]).ended(0).out;
    assert!(
        text.contains("completed") && text.contains("04-not-bad.txt"),
        "{text}"
    );
    let status = world.json(&["status"]);
    assert_eq!(
        (
            &status["progress"]["completed_tasks"],
            &status["progress"]["pending_tasks"]
        ),
        (&json!(10), &json!(0))
    );
    assert_eq!(
        (&status["conflicts"], &status["concerns"]),
        (&json!([]), &json!([]))
    );
    let count = |items: &Value| {
        array(items)
            .iter()
            .map(|worker| worker["completed"].as_u64().unwrap_or(0))
            .sum::<u64>()
    };
    assert_eq!(count(&world.json(&["workers", "list"])["items"]), 10);
    // The board of the run has what its workers wrote, and a person's note beside it.
    let tag = ["memory", "list", "--run", run, "--tag", "note"];
    assert_eq!(world.json(&tag)["items"], json!([]));
    let entry = [
        "memory",
        "write",
        "Otters only",
        "--run",
        run,
        "--tag",
        "note",
        "--importance",
        "0.9",
    ];
    let entry = world.json(&entry)["entry_id"].clone();
    let found = world.json(&tag);
    assert_eq!(
        strings(array(&found["items"]), "id"),
        [entry.as_str().expect("an id")],
        "{found:#}"
    );
    assert!(world.run(&tag).ended(0).out.contains("Otters only"));
    assert_eq!(
        world.json(&["memory", "list", "--tag", "note"])["items"],
        json!([]),
        "another board"
    );
    world.is_sound();
}

#[test]
fn the_log_is_printed_whole_in_order_and_from_any_place() {
    let world = World::with_reviews();
    world.run(&["run", GOAL, "--input", REVIEWS]).ended(0);
    let events = world.events();
    let positions: Vec<u64> = events
        .iter()
        .filter_map(|event| event["position"].as_u64())
        .collect();
    assert_eq!(
        positions,
        (1..=events.len() as u64).collect::<Vec<_>>(),
        "without a gap"
    );
    assert_eq!(json!({"items": events}), world.json(&["events"]));
    assert_eq!(
        world.json(&["events", "--after", "7", "--limit", "2"])["items"],
        json!(events[7..9])
    );
    assert_eq!(world.json(&["doctor"])["events"], events.len());
}

#[test]
fn tasks_are_cancelled_redriven_and_given_to_others() {
    let world = World::new();
    world.lines("rows.jsonl", 2);
    let program = world.program("worker.sh", "test -f flag && echo 1");
    let args = [
        "run",
        "Check",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
        "--attempts",
        "1",
    ];
    let run = world.run(&args).ended(1).run();
    let failed = world.json(&["tasks", "list", "--status", "failed"]);
    let failed = strings(array(&failed["items"]), "task_id");
    assert_eq!(failed.len(), 2);
    assert_eq!(
        world.json(&["tasks", "redrive", &failed[0]])["status"],
        "pending"
    );
    assert_eq!(
        world.json(&["tasks", "reassign", &failed[0], "worker_2"])["address"]["only"],
        "worker_2"
    );
    assert_eq!(
        world.json(&["tasks", "cancel", &failed[0], "--reason", "enough"])["cancelled"],
        "enough"
    );
    assert_eq!(
        world.json(&["tasks", "list", "--status", "cancelled"])["items"][0]["task_id"],
        json!(failed[0])
    );
    world.file("flag", "");
    let done = world.json(&["runs", "retry", &run]);
    assert_eq!(done["status"], "completed", "{done:#}");
    world.is_sound();
}

#[test]
fn a_run_is_cancelled_and_says_so() {
    let world = World::new();
    world.lines("rows.jsonl", 3);
    let program = world.program("worker.sh", "sleep 60");
    let mut child = world.start(&[
        "run",
        "Wait",
        "--input",
        "rows.jsonl",
        "--worker-command",
        &program,
    ]);
    let run = promised(&mut child);
    signal(&child, Signal::TERM);
    finish(child, b"").ended(130);
    let cancelled = world.json(&["runs", "cancel", &run, "--reason", "a mistake"]);
    assert_eq!(
        (&cancelled["status"], &cancelled["cancelled"]),
        (&json!("cancelled"), &json!("a mistake"))
    );
    assert_eq!(cancelled["tasks"]["cancelled"], 3);
    assert!(
        world
            .run(&["resume"])
            .ended(0)
            .out
            .contains("Nothing to resume")
    );
    assert!(
        world
            .run(&["runs", "list", "--status", "cancelled"])
            .ended(0)
            .out
            .contains(&run)
    );
    world.is_sound();
}

// S1-69: whoever looks meanwhile sees the numbers of that moment, and disturbs nobody.
#[test]
fn others_look_while_one_works_and_nobody_else_may_work() {
    let world = World::new();
    world.lines("rows.jsonl", 2);
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
        "--workers",
        "1",
    ];
    let mut child = world.start(&args);
    let run = promised(&mut child);
    until("one task runs", || {
        world.json(&["status"])["progress"]["running_tasks"] == 1
    });
    let shown = world.json(&["runs", "show", &run]);
    assert_eq!(
        (&shown["status"], &shown["tasks"]["pending"]),
        (&json!("running"), &json!(1)),
        "{shown:#}"
    );
    for looks in [
        "runs list",
        "tasks list",
        "workers list",
        "memory list",
        "status",
        "events",
    ] {
        world.run(&looks.split(' ').collect::<Vec<_>>()).ended(0);
    }
    for works in [
        vec!["run", "Wait", "--worker-command", "true"],
        vec!["resume"],
        vec!["runs", "cancel", &run],
    ] {
        world
            .run(&works)
            .refused(2, "store.locked")
            .names(".chargehand");
    }
    let watch = world.start(&["runs", "watch", &run]);
    world.file("flag", "");
    let watched: Done = finish(watch, b"").ended(0);
    assert!(watched.out.contains("completed"), "{watched:#?}");
    finish(child, b"").ended(0);
    world.is_sound();
}

#[test]
fn every_command_explains_itself_by_example() {
    let world = World::new();
    let commands = [
        "",
        "run",
        "resume",
        "runs",
        "runs list",
        "runs show",
        "runs spending",
        "runs watch",
        "runs cancel",
        "runs retry",
        "tasks",
        "tasks list",
        "tasks show",
        "tasks cancel",
        "tasks redrive",
        "tasks resolve",
        "tasks reassign",
        "workers",
        "workers list",
        "chat",
        "approvals",
        "approvals list",
        "approvals yes",
        "approvals no",
        "tools",
        "tools list",
        "tools missing",
        "memory",
        "memory list",
        "memory write",
        "serve",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "tenants",
        "tenants create",
        "tenants list",
        "config",
        "config show",
        "config default",
        "crew",
        "crew check",
        "crew schema",
        "init",
        "skills",
        "status",
        "events",
        "doctor",
        "backup",
        "restore",
        "bench",
        "completion",
    ];
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = world.run(&words).ended(0).out;
        assert!(
            help.contains("Example") && help.contains("\n  chargehand "),
            "`{command}`: {help}"
        );
    }
    // The list above is all there are.
    let help = world.run(&["--help"]).out;
    let named = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("Options:").next());
    let named = named
        .unwrap_or("")
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    for name in named.filter(|name| !name.is_empty() && *name != "help") {
        assert!(commands.contains(&name), "{name}");
    }
    assert!(
        !world.path(".chargehand").exists(),
        "explaining makes no store"
    );
}

#[test]
fn completion_is_a_script_that_shells_accept() {
    let world = World::new();
    let script = world.run(&["completion", "bash"]).ended(0).out;
    world.file("completion.bash", &script);
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(world.path("completion.bash"))
        .status();
    assert!(checked.expect("bash is there").success());
    let asks = "source ./completion.bash; COMP_WORDS=(chargehand resu); COMP_CWORD=1; \
                _chargehand chargehand resu chargehand; echo ${COMPREPLY[@]}";
    let mut bash = std::process::Command::new("bash");
    let said = bash
        .args(["-c", asks])
        .current_dir(world.path(""))
        .output()
        .expect("bash is there");
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        "resume",
        "{said:?}"
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(
            world
                .run(&["completion", shell])
                .ended(0)
                .out
                .contains("chargehand")
        );
    }
}
