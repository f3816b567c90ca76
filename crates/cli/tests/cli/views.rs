//! What people see of runs of agents: what came of them when they fail, what their tasks are called, how
//! far they are after a restart, and which tools were not to be had.

use crate::world::{World, until};
use serde_json::{Value, json};

/// A crew whose planner writes these briefs, and whose clerk does what these rules say.
fn crew(world: &World, more: &str, briefs: &Value, mut rules: Vec<Value>) {
    world.file(
        "crew.yaml",
        format!("version: 1\nname: desk\nmodels: {{m: scripted/answers.json}}\n{more}"),
    );
    let plan = json!({ "briefs": briefs }).to_string();
    rules.push(json!({"when": {"last_contains": "Plan how this crew"}, "answer": {"text": plan}}));
    rules.push(
        json!({"when": {"last_contains": "Answer the goal"}, "answer": {"text": "As far as it goes [1]."}}),
    );
    world.file("answers.json", json!({ "rules": rules }).to_string());
}

fn brief(objective: &str) -> Value {
    json!({"agent": "clerk", "objective": objective, "inputs": [], "acceptance": [], "evidence": []})
}

fn clerk(tool: &str) -> String {
    format!("agents:\n  clerk: {{description: Acts., instructions: You act., tools: [{tool}]}}\n")
}

fn called(objective: &str, tool: &str) -> Value {
    json!({
        "when": {"system_contains": "You act", "turn": 1, "last_contains": objective},
        "answer": {"calls": [{"tool": tool, "arguments": {}}]}
    })
}

fn said(objective: &str, text: &str) -> Value {
    json!({
        "when": {"system_contains": "You act", "turn": 1, "last_contains": objective},
        "answer": {"text": text}
    })
}

const RUN: [&str; 4] = ["run", "Act", "--crew", "crew.yaml"];

fn last_run(world: &World) -> String {
    let runs = world.json(&["runs", "list"]);
    runs["items"][0]["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_crew_that_failed_says_what_each_brief_came_to() {
    let world = World::new();
    let more = clerk("http.fetch") + "supervisor: {replans: 0}\n";
    let briefs = json!([brief("Act without end.")]);
    crew(&world, &more, &briefs, Vec::new());
    let ran = world.run(&RUN).ended(1);
    let why = "failed: model.script";
    let shown = world.run(&["runs", "show", &last_run(&world)]).ended(0);
    for out in [&ran.out, &shown.out] {
        assert!(
            out.contains("b1 clerk: Act without end.") && out.contains(why),
            "{out}"
        );
        assert!(!out.contains("{\"") && !out.contains("estimate"), "{out}");
    }
}

/// Calls of which nobody knows whether they did anything are counted, by the tools' own names, also while
/// their tasks wait for a person to find out.
#[test]
fn calls_in_doubt_are_counted_by_their_tools() {
    let world = World::new();
    world.program("stuck.sh", "#!/bin/sh\nexec sleep 300\n");
    let tool = |name: &str, command: &str, limit: &str| {
        format!(
            "  {name}: {{command: {command}, description: d, input: {{type: object}}, timeout: {limit}, effect: at_most_once}}\n"
        )
    };
    let more = clerk("stuck.one, loud.one, much.one")
        + "supervisor: {replans: 0}\ntools:\n"
        + &tool("stuck.one", "./stuck.sh", "200ms")
        + &tool("loud.one", "echo hello", "60s")
        + &tool("much.one", "yes", "60s");
    let briefs = ["Be stuck.", "Be loud.", "Say much."].map(brief);
    let rules = vec![
        called("Be stuck", "stuck_one"),
        called("Be loud", "loud_one"),
        called("Say much", "much_one"),
    ];
    crew(&world, &more, &json!(briefs), rules);
    let mut child = world.start(&RUN);
    crate::world::promised(&mut child);
    let failed = json!({"calls": 1, "failed": 1, "timed_out": 0});
    let late = json!({"calls": 1, "failed": 1, "timed_out": 1});
    let expected = json!({"loud.one": failed, "much.one": failed, "stuck.one": late});
    until("all three are counted", || {
        world.json(&["runs", "spending", &last_run(&world)])["tools"] == expected
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn tasks_of_agents_are_listed_and_shown_in_words() {
    let world = World::new();
    let more = clerk("http.fetch") + "supervisor: {replans: 0}\n";
    let long = format!("Tell it all: {}", "word ".repeat(400));
    let briefs = json!([brief(&long), brief("Act without end.")]);
    let rules = vec![said("Tell it all", &"Told. ".repeat(300))];
    crew(&world, &more, &briefs, rules);
    let ran = world.run(&RUN).ended(1);
    // What is missing, and what the answer rests on, is there whenever somebody looks.
    let shown = world.run(&["runs", "show", &last_run(&world)]).ended(0);
    for line in [
        "As far as it goes [1].",
        "missing b2: Act without end.",
        "  [1] clerk: Tell it all",
    ] {
        assert!(
            ran.out.contains(line) && shown.out.contains(line),
            "{line}: {ran:#?} {shown:#?}"
        );
    }
    let listed = world.run(&["tasks", "list"]).ended(0).out;
    let about = |what: &str| listed.lines().filter(|line| line.contains(what)).count();
    for what in [
        "  plan",
        "  look",
        "  answer",
        "  b1 clerk: Tell it all:",
        "  b2 clerk: Act without end. — model.script",
    ] {
        assert_eq!(about(what), 1, "{what}: {listed}");
    }
    assert!(!listed.contains('{'), "{listed}");
    let tasks = world.json(&["tasks", "list"]);
    for task in tasks["items"].as_array().unwrap() {
        let shown = world
            .run(&["tasks", "show", task["task_id"].as_str().unwrap()])
            .ended(0)
            .out;
        let (_, told) = shown.split_once("\n  brief\n").unwrap();
        assert!(!told.contains("{\""), "{told}");
        assert!(
            told.lines().all(|line| line.chars().count() <= 101),
            "{told}"
        );
        assert!(told.lines().count() < 100, "{told}");
    }
    // Tasks without agents are known by what they are about.
    world.lines("notes.txt", 2);
    world
        .run(&[
            "run",
            "Count the words",
            "--skill",
            "text.stats",
            "--input",
            "notes.txt",
        ])
        .ended(0);
    let listed = world.run(&["tasks", "list"]).ended(0).out;
    assert!(
        listed
            .lines()
            .any(|line| line.trim_end().ends_with("notes.txt")),
        "{listed}"
    );
}

/// A crew that waits in its first brief until there is a file `go`; killed there.
fn interrupted() -> World {
    let world = World::new();
    world.program(
        "wait.sh",
        "#!/bin/sh\ntouch began\nwhile [ ! -e go ]; do sleep 0.05; done\necho '{\"ok\": true}'\n",
    );
    let more = clerk("wait.one")
        + "tools:\n  wait.one: {command: ./wait.sh, description: d, input: {type: object}, timeout: 60s, effect: keyed}\n";
    let turned = json!({"when": {"tool_result_contains": "ok"}, "answer": {"text": "Acted."}});
    let rules = vec![called("Act now", "wait_one"), turned];
    crew(&world, &more, &json!([brief("Act now.")]), rules);
    let mut child = world.start(&RUN);
    until("it acts", || world.path("began").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    world.file("go", "");
    world
}

#[test]
fn what_goes_on_counts_what_was_done_before_and_names_its_tasks() {
    let world = interrupted();
    let done = world.run(&["resume"]).ended(0);
    for line in [
        "— 1 of 2 tasks are done: Act",
        "  2/2 completed clerk: Act now. by",
        "  3/3 completed a look at how far it is by",
        "  4/4 completed the answer by",
        "  4 completed (1 of them before) · 0 failed",
    ] {
        assert!(done.err.contains(line), "{line}: {}", done.err);
    }
    assert!(!done.err.contains("task_"), "{}", done.err);
}

#[test]
fn nothing_of_a_cancelled_run_is_shown_as_running() {
    let world = interrupted();
    let run = last_run(&world);
    for args in [["runs", "cancel", &run], ["runs", "show", &run]] {
        let shown = world.run(&args).ended(0).out;
        let (_, steps) = shown.split_once("STEP ").unwrap();
        let step = |name: &str| {
            let line = steps.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(step("plan ").starts_with("done"), "{steps}");
        assert!(step("work ").starts_with("cancelled"), "{steps}");
        assert_eq!(step("look "), "not begun", "{steps}");
    }
}

#[test]
fn a_server_that_cannot_start_is_told_of_wherever_somebody_looks() {
    let world = World::new();
    let more = clerk("srv.go") + "mcp: {srv: {command: nowhere-to-be-found --serve}}\n";
    let tried =
        json!({"when": {"system_contains": "You act", "turn": 2}, "answer": {"text": "Tried."}});
    let rules = vec![called("Go", "srv_go"), tried];
    crew(&world, &more, &json!([brief("Go.")]), rules);
    let why = "there is no program `nowhere-to-be-found` on the PATH";
    let checked = world.run(&["crew", "check", "--servers"]).ended(1);
    assert!(
        checked.err.starts_with("error[mcp.unreachable]: "),
        "{checked:#?}"
    );
    assert!(
        checked.err.contains(why) && checked.err.contains("\n  help: "),
        "{checked:#?}"
    );
    let listed = world
        .run(&["tools", "list", "--crew", "crew.yaml"])
        .ended(0)
        .out;
    let line = listed
        .lines()
        .find(|line| line.starts_with("srv.go"))
        .unwrap();
    assert!(line.contains(why), "{listed}");
    let ran = world.run(&RUN).ended(0);
    assert!(ran.err.contains("srv.go cannot be called now"), "{ran:#?}");
    let missing = world.json(&["tools", "missing"]);
    let missing = &missing["items"][0];
    assert_eq!(
        (&missing["tool"], &missing["lack"]),
        (&json!("srv.go"), &json!("unavailable"))
    );
    assert_eq!(
        (&missing["by"], &missing["count"]),
        (&json!("clerk"), &json!(2)),
        "{missing}"
    );
}

#[test]
fn agents_that_are_made_are_shown_before_they_are_approved_and_what_they_may_not_have_counts() {
    let world = World::new();
    let more = clerk("t.ok")
        + "supervisor: {spawn: {agents: 1, tools: [t.ok]}}\n\
           tools:\n  t.ok: {command: echo 1, description: d, input: {type: object}, effect: pure}\n\
           \x20 t.no: {command: echo 1, description: d, input: {type: object}, effect: pure}\n";
    let made = |tools: &[&str]| {
        let mut brief = brief("Write a poem.");
        brief["agent"] = json!("poet");
        brief["spawn"] = json!({"prompt": "You write short poems about rain.", "tools": tools});
        json!([brief])
    };
    let right = json!({ "briefs": made(&["t.ok"]) }).to_string();
    let corrected =
        json!({"when": {"last_contains": "cannot be granted"}, "answer": {"text": right}});
    crew(
        &world,
        &more,
        &made(&["t.ok", "t.no", "moon.phase"]),
        vec![corrected],
    );
    let review = [&RUN[..], &["--review"]].concat();
    let asked = world.run_with(&review, b"no\n").ended(1);
    let shown = "made  poet, tools t.ok\n      You write short poems about rain.";
    assert!(asked.err.contains(shown), "{}", asked.err);
    let missing = world.json(&["tools", "missing"]);
    let missing = missing["items"].as_array().unwrap().iter();
    let mut missing: Vec<String> = missing
        .map(|one| format!("{} {}", one["tool"], one["lack"]).replace('"', ""))
        .collect();
    missing.sort();
    assert_eq!(missing, ["moon.phase unknown", "t.no not_granted"]);
}

#[test]
fn one_limit_is_written_in_one_way() {
    let world = World::new();
    crew(
        &world,
        &clerk("http.fetch"),
        &json!([brief("Say it.")]),
        vec![said("Say it", "Said.")],
    );
    let checked = world.run(&["crew", "check"]).ended(0).out;
    let ran = world.run(&RUN).ended(0).err;
    let shown = world.run(&["runs", "show", &last_run(&world)]).ended(0).out;
    for text in [checked, ran, shown] {
        assert!(text.contains(", 10 min,"), "{text}");
    }
    let listed = world.run(&["tools", "list"]).ended(0).out;
    let line = listed
        .lines()
        .find(|line| line.starts_with("http.fetch"))
        .unwrap();
    assert!(line.contains(" 25 s "), "{listed}");
}
