//! `run --crew`: agents of a crew file at work, killed, resumed, and refused.

use crate::world::{World, finish, promised, signal, until};
use serde_json::{Value, json};

/// A crew whose clerk notes each letter with a program that appends to a file. Transcripts answer: one
/// whoever leads, the other whoever notes.
fn desk(world: &World, delay_ms: u64, effect: &str) {
    world.program(
        "note.sh",
        "#!/bin/sh\nread -r letter\necho \"$CHARGEHAND_IDEMPOTENCY_KEY $letter\" >> effects\necho '{\"noted\": true}'\n",
    );
    world.file(
        "crew.yaml",
        format!(
            "version: 1\nname: desk\nmodels: {{m: scripted/answers.json, lead: scripted/lead.json}}\n\
             supervisor: {{model: lead, instructions: You lead.}}\n\
             agents:\n  clerk: {{description: Notes letters., model: m, instructions: You note., tools: [letters.note]}}\n\
             tools:\n  letters.note:\n    command: ./note.sh\n    description: Notes a letter.\n    \
             input: {{type: object, properties: {{letter: {{type: integer}}}}}}\n    effect: {effect}\n"
        ),
    );
    let briefs: Vec<Value> = (1..=6)
        .map(|n| json!({"agent": "clerk", "objective": format!("Note letter {n}."), "inputs": [], "acceptance": [], "evidence": ["letters.note"]}))
        .collect();
    let lead = json!([
        {"when": {"last_contains": "Plan how this crew"}, "answer": {"text": json!({"briefs": briefs}).to_string()}},
        {"when": {"last_contains": "Answer the goal"}, "answer": {"text": "Six letters are noted [1] [6]."}},
    ]);
    world.file("lead.json", json!({"rules": lead}).to_string());
    let mut rules = Vec::new();
    for n in 1..=6 {
        rules.push(json!({
            "when": {"system_contains": "You note", "turn": 1, "last_contains": format!("letter {n}.")},
            "answer": {"calls": [{"tool": "letters_note", "arguments": {"letter": n}}], "delay_ms": delay_ms}
        }));
    }
    rules.push(json!({"when": {"tool_result_contains": "noted"}, "answer": {"text": "Noted.", "delay_ms": delay_ms}}));
    world.file("answers.json", json!({"rules": rules}).to_string());
}

/// The letters that were noted, each once per key.
fn noted(world: &World) -> Vec<String> {
    let mut keys: Vec<String> = world.read("effects").lines().map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    let mut letters: Vec<String> = keys
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, letter)| letter.to_owned())
        .collect();
    letters.sort();
    letters
}

fn all() -> Vec<String> {
    (1..=6).map(|n| format!("{{\"letter\":{n}}}")).collect()
}

// S0-59: what a tool did can be seen outside. S1-72, S4-109: a transcript makes tasks that are really done,
// with no provider at all. S1-75: who leads and who works ask different models: neither transcript has the
// other's answers.
#[test]
fn a_killed_crew_is_resumed_and_notes_each_letter_under_one_key() {
    let world = World::new();
    desk(&world, 30, "keyed");
    let mut child = world.start(&["run", "Note the letters", "--crew", "crew.yaml"]);
    // Some letters are noted, and others are not.
    until("two letters", || world.read("effects").lines().count() >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let done = world.json(&["resume"]);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(
        done["final_result"]["text"],
        "Six letters are noted [1] [6]."
    );
    assert_eq!(done["final_result"]["status"], "done");
    // Who did it, in which version, with which model.
    let pinned = &done["plan"]["metadata"]["crew"]["crew_file"];
    assert_eq!(pinned["agents"], json!({"clerk": 1}));
    let models = json!({"m": "scripted/answers.json", "lead": "scripted/lead.json"});
    assert_eq!(pinned["models"], models);
    assert_eq!(noted(&world), all());
    world.is_sound();
}

#[test]
fn a_run_goes_on_with_the_crew_it_was_planned_for_or_not_at_all() {
    let world = World::new();
    desk(&world, 200, "keyed");
    let mut child = world.start(&["run", "Note the letters", "--crew", "crew.yaml"]);
    until("one letter", || world.read("effects").lines().count() >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let text = world.read("crew.yaml");
    world.file("crew.yaml", text.replace("You note.", "You burn."));
    world
        .run(&["resume"])
        .refused(2, "crew.changed")
        .names("crew.yaml");
    world.file("crew.yaml", &text);
    assert_eq!(world.json(&["resume"])["status"], "completed");
    assert_eq!(noted(&world), all());
}

#[test]
fn what_a_crew_lacks_is_told_before_anything_is_stored() {
    let world = World::new();
    desk(&world, 0, "pure");
    let run = ["run", "Note the letters", "--crew", "crew.yaml"];
    let text = world.read("crew.yaml");
    world.file(
        "crew.yaml",
        text.replace("tools: [letters.note]", "tools: [letters.burn]"),
    );
    let refused = world.run(&run).ended(2);
    let told = "error[crew.reference]: crew.yaml:6:83: there is no tool `letters.burn`";
    assert!(refused.err.starts_with(told), "{}", refused.err);
    world.file(
        "crew.yaml",
        text.replace("scripted/answers.json", "anthropic/claude-haiku-4-5"),
    );
    world
        .run(&run)
        .refused(2, "model.key")
        .names("ANTHROPIC_API_KEY");
    world.file("crew.yaml", text.replace("answers.json", "nothing.json"));
    world
        .run(&run)
        .ended(2)
        .names("error[model.script]: crew.yaml:3:13: the transcript nothing.json");
    let both = [&run[..], &["--skill", "text.stats"]].concat();
    world.run(&both).refused(2, "usage.invalid");
    assert!(!world.path(".chargehand").exists());
}

/// A plan is seen, and costs only itself, before anybody works; it is done as it was approved.
#[test]
fn a_plan_is_shown_changed_and_done_only_when_somebody_says_yes() {
    let world = World::new();
    desk(&world, 0, "keyed");
    let run = ["run", "Note the letters", "--crew", "crew.yaml"];
    let planned = world.json(&[&run[..], &["--dry-run"]].concat());
    assert_eq!(
        planned["final_result"]["ledger"]["entries"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    assert_eq!(planned["account"]["spent"]["calls"], 1, "{planned}");
    assert!(noted(&world).is_empty());
    // No, and silence, are no.
    for said in ["no\n", ""] {
        let review = world
            .run_with(&[&run[..], &["--review"]].concat(), said.as_bytes())
            .ended(1);
        assert!(
            review.err.contains("b6") && review.err.contains("6 briefs, about"),
            "{}",
            review.err
        );
        assert!(noted(&world).is_empty());
    }
    // Changed in an editor: a mistake is told, and the one that is right is done.
    world.program(
        "editor.sh",
        "#!/bin/sh\nif [ -e edited ]; then sed -i 's/burner/clerk/g' \"$1\"; else sed -i 's/clerk/burner/g' \"$1\"; fi\ntouch edited\n",
    );
    let args = [&run[..], &["--review"]].concat();
    let child = world
        .command(&args)
        .env("EDITOR", world.path("editor.sh"))
        .env_remove("VISUAL")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let review = finish(child, b"edit\nedit\nyes\n").ended(0);
    let told = "not as it is now: brief 1 is for “burner”, and the agents are: clerk";
    assert!(review.err.contains(told), "{}", review.err);
    assert_eq!(noted(&world), all());
    // What was planned before is done without planning again.
    world.file("effects", "");
    let plan = planned["run_id"].as_str().unwrap();
    let done = world.json(&[&run[..], &["--plan", plan]].concat());
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(noted(&world), all());
    let kinds: Vec<&str> = done["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["plan", "work", "results", "look", "answer"]);
    // What was printed of it is a plan, too; what was printed of its work is none.
    world.file("effects", "");
    world.file("dry.json", planned.to_string());
    let again = world.json(&[&run[..], &["--plan", "dry.json"]].concat());
    assert_eq!(again["status"], "completed", "{again}");
    assert_eq!(noted(&world), all());
    world.file("done.json", done.to_string());
    world
        .run(&[&run[..], &["--plan", "done.json"]].concat())
        .refused(2, "plan.invalid")
        .names("the plan done.json: it is what a run printed that did not only plan");
    world
        .run(&[&run[..], &["--plan", "nowhere.json"]].concat())
        .refused(2, "plan.invalid")
        .names("nowhere.json");
}

/// A server that neither goes when it is asked to nor when nobody speaks to it, with a child.
#[test]
fn what_an_mcp_server_started_is_gone_when_the_run_is_over() {
    let world = World::new();
    let server = include_str!("../../../agent/tests/agent/mcp/hostile.py");
    world.file("server.py", server);
    world.file(
        "crew.yaml",
        "version: 1\nname: desk\nmodels: {m: scripted/answers.json}\n\
         agents:\n  clerk: {description: Acts., instructions: You act., tools: [shop.act]}\n\
         mcp: {shop: {command: python3 server.py children}}\n",
    );
    let brief = json!({"agent": "clerk", "objective": "Act.", "inputs": [], "acceptance": [], "evidence": ["shop.act"]});
    let rules = json!([
        {"when": {"last_contains": "Plan how this crew"}, "answer": {"text": json!({"briefs": [brief]}).to_string()}},
        {"when": {"system_contains": "You act", "turn": 1}, "answer": {"calls": [{"tool": "shop_act", "arguments": {}}]}},
        {"when": {"system_contains": "You act", "turn": 2}, "answer": {"text": "Acted."}},
        {"when": {"last_contains": "Answer the goal"}, "answer": {"text": "It acted [1]."}},
    ]);
    world.file("answers.json", json!({"rules": rules}).to_string());
    world.file("letter.txt", "Act, please.");
    let ran = world.run(&["run", "Act", "--crew", "crew.yaml", "--input", "letter.txt"]);
    let ran = ran.ended(0);
    assert!(ran.out.contains("It acted [1]."), "{ran:#?}");
    let log = world.read("log");
    let (_, group) = log.split_once("group ").unwrap();
    let started: u32 = group.lines().next().unwrap().parse().unwrap();
    let left = || {
        let all = std::fs::read_dir("/proc").unwrap();
        let stats =
            all.filter_map(|one| std::fs::read_to_string(one.ok()?.path().join("stat")).ok());
        let alive = stats.filter(|stat| {
            // After the name in brackets: state, parent, group.
            let mut words = stat.rsplit(") ").next().unwrap_or("").split(' ');
            let (state, group) = (words.next(), words.nth(1));
            state != Some("Z") && group.and_then(|group| group.parse().ok()) == Some(started)
        });
        alive.count()
    };
    until("the server and its child are gone", || left() == 0);
}

/// A call that needs a yes waits, also while nobody works; it is listed, answered, and made once.
// S0-196: why a run does not move is a look away: where it stands, which step, and what each task waits for.
#[test]
fn a_call_that_needs_a_yes_is_listed_and_answered() {
    let world = World::new();
    desk(&world, 0, "keyed");
    let text = world.read("crew.yaml") + "policies: {approve: [letters.note]}\n";
    world.file("crew.yaml", text);
    let refused = json!({"text": "Not noted."});
    let said_no = json!({"when": {"system_contains": "You note", "last_contains": "said no"}, "answer": refused});
    let asked_again = json!({"when": {"system_contains": "You note", "last_contains": "no receipt"}, "answer": refused});
    let mut answers: Value = serde_json::from_str(&world.read("answers.json")).unwrap();
    let rules = answers["rules"].as_array_mut().unwrap();
    rules.splice(0..0, [said_no, asked_again]);
    world.file("answers.json", answers.to_string());
    world.file("lead.json", world.read("lead.json").replace(" [6]", ""));
    let mut child = world.start(&["run", "Note the letters", "--crew", "crew.yaml"]);
    let waiting = || {
        let listed = world
            .run(&["approvals", "list", "--output", "json"])
            .ended(0)
            .document();
        let items = listed["items"].as_array().unwrap();
        items
            .iter()
            .map(|task| task["task_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    promised(&mut child);
    until("six calls wait", || waiting().len() == 6);
    assert!(noted(&world).is_empty());
    signal(&child, rustix::process::Signal::INT);
    child.wait().unwrap();
    let tasks = waiting();
    let listed = world.run(&["approvals", "list"]).ended(0);
    assert!(
        listed
            .out
            .contains("waits for a person's yes to letters.note {\"letter\":1}"),
        "{}",
        listed.out
    );
    let run = world.json(&["runs", "list"])["items"][0]["run_id"].clone();
    let run = run.as_str().unwrap();
    let shown = world.run(&["runs", "show", run]).ended(0).out;
    assert!(
        shown.contains("running") && shown.contains("6 tasks have not ended"),
        "{shown}"
    );
    let why = "why       1 of work: waits for a person's yes to letters.note {\"letter\":1}";
    assert!(shown.contains(why), "{shown}");
    let told = world.json(&["runs", "show", run]);
    assert_eq!(
        (&told["status"], told["waiting"].as_array().unwrap().len()),
        (&json!("running"), 6)
    );
    let reason = &told["waiting"][0]["waits_for"]["reason"];
    assert_eq!(reason, "awaiting_human", "{told}");
    world
        .run(&["approvals", "no", &tasks[0], "--reason", "not this one"])
        .ended(0);
    for task in &tasks[1..] {
        world.run(&["approvals", "yes", task]).ended(0);
    }
    assert_eq!(
        world.run(&["approvals", "list"]).ended(0).out.trim(),
        "Nothing waits for a person."
    );
    world
        .run(&["approvals", "yes", &tasks[0]])
        .refused(2, "task.state");
    // Half an answer is not what was asked for: a script can tell by the exit code.
    let done = world.run(&["resume", "--output", "json"]).ended(1);
    let done: Value = serde_json::from_str(&done.out).unwrap();
    // What a person refused is not done, and the answer says that it is missing.
    assert_eq!(noted(&world).len(), 5, "{done}");
    assert_eq!(done["final_result"]["status"], "partial", "{done}");
    let missing = &done["final_result"]["missing"][0]["objective"];
    assert_eq!(missing, "Note letter 1.");
    world.is_sound();
}

/// Whoever asks for a connection to somewhere is told that there is none; gives what was asked for.
fn closed_gate() -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let kept = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let heard = lines.by_ref().map_while(Result::ok);
            let heard: Vec<String> = heard.take_while(|line| !line.is_empty()).collect();
            kept.lock().unwrap().extend(heard);
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (address, asked)
}

// S0-173: a provider's key is in nothing that is printed or kept, also when everything is logged and the
// provider cannot be reached.
#[test]
fn a_key_is_in_no_output_and_in_no_file() {
    const KEY: &str = "sk-proj-hush4711hush4711hush4711";
    let world = World::new();
    desk(&world, 0, "pure");
    let text = world.read("crew.yaml") + "budget: {wall: 5s}\n";
    let text = text.replace("scripted/lead.json", "openai/gpt-4.1-mini");
    world.file("crew.yaml", text);
    let (gate, asked) = closed_gate();
    let command = |args: &[&str]| {
        let mut command = world.command(args);
        let set = [
            ("OPENAI_API_KEY", KEY),
            ("HTTPS_PROXY", &gate),
            ("https_proxy", &gate),
            ("CHARGEHAND_LOG_LEVEL", "trace"),
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "full"),
        ];
        for name in ["NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        finish(command.envs(set).spawn().unwrap(), b"")
    };
    let ran = command(&["run", "Note the letters", "--crew", "crew.yaml"]).ended(1);
    // It was used: somebody was asked for a way to the provider.
    let heard = asked.lock().unwrap().join("\n");
    assert!(
        heard.contains("CONNECT api.openai.com:443"),
        "{heard} {ran:#?}"
    );
    let mut said = vec![heard, ran.out, ran.err];
    for args in [
        &["events"][..],
        &["tasks", "list", "--output", "json"],
        &["runs", "list", "--output", "json"],
        &["crew", "check", "--output", "json"],
        &["config", "show"],
        &["status"],
    ] {
        let done = command(args).ended(0);
        said.extend([done.out, done.err]);
    }
    assert!(
        said.iter().all(|text| !text.contains("hush4711")),
        "{said:#?}"
    );
    let mut folders = vec![world.path(".")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let found = bytes.windows(8).any(|part| part == b"hush4711");
            assert!(!found, "{}", entry.path().display());
            files += 1;
        }
    }
    assert!(files > 3, "the store is among them");
}

// S0-190: one command, no key: workers are there, a goal is accepted, it becomes a plan, tasks are delegated
// and done, and the way there is shown; each of the six is in the log, in this order.
#[test]
fn one_command_goes_all_the_way_without_a_key() {
    let world = World::new();
    desk(&world, 0, "keyed");
    let mut command = world.command(&["run", "Note the letters", "--crew", "crew.yaml"]);
    for key in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"] {
        command.env_remove(key);
    }
    let ran = finish(command.spawn().unwrap(), b"").ended(0);
    let events = world.events();
    let at = |name: &str, about: &str| {
        let found = events.iter().position(|event| {
            let event = &event["event"][name];
            !event.is_null() && event.to_string().contains(about)
        });
        found.unwrap_or_else(|| panic!("no {name} about {about}"))
    };
    let way = [
        at("worker.registered", "workflow_planning"),
        at("run.started", "Note the letters"),
        at("run.extended", "crew.work"),
        at("task.submitted", "Note letter 1."),
        at("task.completed", "Noted."),
        at("run.completed", "Six letters are noted"),
    ];
    assert!(way.is_sorted(), "{way:?}");
    let count = |name: &str, about: &str| {
        let of = |event: &&Value| event["event"][name].to_string().contains(about);
        events.iter().filter(of).count()
    };
    assert_eq!(count("task.submitted", "crew.work\""), 6);
    assert_eq!(noted(&world), all());
    // The way there is shown while it is gone.
    for line in [
        "1/1 completed the plan",
        "completed clerk: Note letter 1.",
        "9/9 completed the answer",
    ] {
        assert!(ran.err.contains(line), "{line}: {}", ran.err);
    }
    assert!(
        ran.out.starts_with("Six letters are noted [1] [6]."),
        "{}",
        ran.out
    );
}

// S0-195: which tool was too slow, how often, and after how long it was left, can be seen by its name; a longer
// limit in the crew file mends it; and whether it can be called at all is shown beside its limit.
#[test]
fn a_tool_that_is_too_slow_is_seen_by_its_name() {
    let world = World::new();
    let tool = |name: &str, command: &str, limit: &str| {
        format!(
            "  {name}: {{command: {command}, description: d, input: {{type: object}}, timeout: {limit}, effect: pure}}\n"
        )
    };
    let crew = |limit: &str| {
        let tools = tool("slow.one", "./slow.sh", limit) + &tool("quick.one", "echo 1", "60s");
        format!(
            "version: 1\nname: desk\nmodels: {{m: scripted/answers.json}}\n\
             agents:\n  clerk: {{description: Acts., instructions: You act., tools: [slow.one, quick.one]}}\n\
             tools:\n{tools}"
        )
    };
    // It takes its time only when it is left to wait for what never comes.
    world.program(
        "slow.sh",
        "#!/bin/sh\n[ -e go ] || exec sleep 300\necho 1\n",
    );
    let brief = json!({"agent": "clerk", "objective": "Act.", "inputs": [], "acceptance": [], "evidence": ["quick.one"]});
    let both =
        json!([{"tool": "slow_one", "arguments": {}}, {"tool": "quick_one", "arguments": {}}]);
    let rules = json!([
        {"when": {"last_contains": "Plan how this crew"}, "answer": {"text": json!({"briefs": [brief]}).to_string()}},
        {"when": {"system_contains": "You act", "turn": 1}, "answer": {"calls": both}},
        {"when": {"system_contains": "You act", "turn": 2}, "answer": {"text": "Acted."}},
        {"when": {"last_contains": "Answer the goal"}, "answer": {"text": "It acted [1]."}},
    ]);
    world.file("answers.json", json!({"rules": rules}).to_string());
    let act = |limit: &str| {
        world.file("crew.yaml", crew(limit));
        let ran = world.run(&["run", "Act", "--crew", "crew.yaml", "--output", "json"]);
        ran.ended(0).document()["run_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let run = act("200ms");
    let spending = world.json(&["runs", "spending", &run]);
    let slow = json!({"calls": 1, "failed": 1, "timed_out": 1});
    let quick = json!({"calls": 1, "failed": 0, "timed_out": 0});
    assert_eq!(
        spending["tools"],
        json!({"slow.one": slow, "quick.one": quick})
    );
    let text = world.run(&["runs", "spending", &run]).ended(0).out;
    let line = |name: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {text}"))
            .split_whitespace()
            .collect()
    };
    assert_eq!(line("slow.one"), ["slow.one", "1", "1", "1"]);
    // By agent and by type it is the same sum, which is the run's.
    let sum = |by: &str, what: &str| -> u64 {
        let all = spending[by].as_object().unwrap().values();
        all.map(|amount| amount[what].as_u64().unwrap_or(0)).sum()
    };
    for what in ["tokens", "calls"] {
        let all = spending["spent"][what].as_u64().unwrap();
        assert!(
            all > 0 && sum("agents", what) == all && sum("types", what) == all,
            "{spending}"
        );
    }
    let agents: Vec<&String> = spending["agents"].as_object().unwrap().keys().collect();
    assert_eq!(agents, ["clerk", "supervisor"]);
    assert_eq!(
        spending["agents"]["clerk"]["calls"], 4,
        "two turns, two calls: {spending}"
    );
    assert_eq!(spending["agents"]["clerk"], spending["types"]["crew.work"]);
    // The task that called it says so, with the limit.
    let tasks = world.json(&["tasks", "list", "--run", &run]);
    let task = tasks["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["kind"] == "crew.work");
    let task = task.unwrap()["task_id"].as_str().unwrap().to_owned();
    let shown = world.run(&["tasks", "show", &task]).ended(0).out;
    let told = "Tool execution timed out: “slow.one” took longer than 200 ms";
    assert!(shown.contains(told), "{shown}");
    let listed = world
        .run(&["tools", "list", "--crew", "crew.yaml"])
        .ended(0)
        .out;
    let listed = listed
        .lines()
        .find(|line| line.starts_with("slow.one"))
        .unwrap();
    assert!(
        listed.contains("200 ms") && listed.ends_with("yes"),
        "{listed}"
    );
    world.file("go", "");
    let run = act("60s");
    let spending = world.json(&["runs", "spending", &run]);
    assert_eq!(spending["tools"]["slow.one"], quick);
}

/// A crew whose only model is a provider's at this address; its run is over soon.
fn at(world: &World, model: &str, address: &str, wall: &str) {
    world.file(
        "crew.yaml",
        format!(
            "version: 1\nname: away\nmodels:\n  m: {{model: {model}, base_url: \"{address}\"}}\n\
             supervisor: {{model: m, instructions: You lead.}}\n\
             agents:\n  clerk: {{description: Notes., model: m, instructions: You note.}}\n\
             budget: {{wall: {wall}}}\n"
        ),
    );
}

/// A provider that answers everything with this.
fn provider(status: &'static str, body: &'static str) -> String {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while asked.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                let lower = line.to_lowercase();
                if let Some(bytes) = lower.strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                line.clear();
            }
            let _ = asked.read_exact(&mut vec![0; length]);
            let bytes = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
                 content-length: {bytes}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_provider_that_is_down_is_told_while_it_is_tried_again() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let broken = provider(
        "500 Oops",
        "{\"error\": {\"message\": \"the disk is full\"}}",
    );
    for (model, address, said) in [
        (
            "ollama/qwen3",
            closed.as_str(),
            "Connection refused (os error 111) (is ollama running?)",
        ),
        (
            "openai/gpt-5-mini",
            &broken,
            "openai: answered 500: the disk is full",
        ),
    ] {
        let world = World::new();
        at(&world, model, address, "12s");
        let done = world.run(&["run", "Note it", "--crew", "crew.yaml"]);
        let lines: Vec<&str> = done.err.lines().collect();
        let late: Vec<&&str> = lines
            .iter()
            .filter(|line| line.contains("no answer yet for the plan: "))
            .collect();
        // At once, and then no more than one each ten seconds.
        assert!((1..=3).contains(&late.len()), "{done:#?}");
        for part in [
            said,
            "; next try in ",
            " of 6 failed)",
            "; at most 3 attempts or ",
            ", when the run's time is over",
        ] {
            assert!(late[0].contains(part), "“{part}” is not in {done:#?}");
        }
        done.ended(1);
    }
}

#[test]
fn a_transcript_that_cannot_be_used_is_told_on_its_line() {
    let world = World::new();
    desk(&world, 0, "pure");
    let run = ["run", "Note the letters", "--crew", "crew.yaml"];
    for (answers, said, help) in [
        (
            None,
            "the transcript answers.json: No such file or directory",
            "write the transcript",
        ),
        (
            Some("{\"rules\": [{\"whem\": {}}]}"),
            "the transcript answers.json: unknown field `whem`",
            "Correct the transcript",
        ),
    ] {
        match answers {
            None => std::fs::remove_file(world.path("answers.json")).unwrap(),
            Some(text) => world.file("answers.json", text),
        }
        for command in [&["crew", "check"][..], &run] {
            let done = world.run(command).ended(2);
            let begin = "error[model.script]: crew.yaml:3:13: ";
            assert!(done.err.starts_with(begin), "{done:#?}");
            assert!(done.err.contains(said), "{done:#?}");
            assert!(
                done.err.contains("  3 | models: {m: scripted/answers.json"),
                "{done:#?}"
            );
            let (_, hint) = done.err.split_once("  help: ").unwrap();
            assert!(hint.contains(help), "{done:#?}");
            assert!(!hint.contains("variable"), "{done:#?}");
        }
    }
    assert!(!world.path(".chargehand").exists());
}

#[test]
fn what_a_provider_refuses_for_good_is_told_with_its_code_and_what_to_do() {
    let refused = provider(
        "401 Unauthorized",
        "{\"error\": {\"message\": \"Incorrect API key provided\", \"code\": \"invalid_api_key\"}}",
    );
    let unknown = provider(
        "404 Not Found",
        "{\"error\": {\"message\": \"no such model\", \"code\": \"model_not_found\"}}",
    );
    let ran = |address: &str| {
        let world = World::new();
        at(&world, "openai/gpt-5-mini", address, "60s");
        let text = world.read("crew.yaml");
        let key = "base_url: \"http";
        world.file(
            "crew.yaml",
            text.replace(key, &format!("key: secret://DESK, {key}")),
        );
        let mut command = world.command(&["run", "Note it", "--crew", "crew.yaml"]);
        command.env("CHARGEHAND_SECRET_DESK", "hush4711");
        finish(command.spawn().unwrap(), b"").ended(1).out
    };
    let out = ran(&refused);
    for part in [
        "openai: answered 401: Incorrect API key provided (the key comes from CHARGEHAND_SECRET_DESK)",
        "\ncode  model.key\nhelp  Set the provider's variable",
        " runs retry run_",
    ] {
        assert!(out.contains(part), "“{part}” is not in {out}");
    }
    assert!(!out.contains("hush4711"), "{out}");
    let out = ran(&unknown);
    assert!(
        out.contains("openai: answered 404: no such model\n"),
        "{out}"
    );
    let code = "\ncode  model.unknown\nhelp  Correct the model's name";
    assert!(out.contains(code), "{out}");
    // The crew that would be right is not the one that the run was planned for.
    assert!(!out.contains("runs retry"), "{out}");
}

#[test]
fn which_models_are_transcripts_is_told_as_it_is() {
    let world = World::new();
    desk(&world, 0, "pure");
    let run = [
        "run",
        "Note the letters",
        "--crew",
        "crew.yaml",
        "--dry-run",
    ];
    let all = "scripted: answers come from a transcript, no model is asked\n";
    let some =
        "scripted: the answers of lead come from a transcript, those of the others from models\n";
    let text = world.read("crew.yaml");
    // A model that nobody asks is none of them, whichever it is.
    let (mixed, unused) = (
        text.replace(
            "m: scripted/answers.json",
            "m: ollama/none, x: scripted/answers.json",
        ),
        text.replace("models: {", "models: {x: ollama/none, "),
    );
    for (crew, told) in [(&text, all), (&mixed, some), (&unused, all)] {
        world.file("crew.yaml", crew);
        let done = world.run(&run).ended(0);
        assert!(done.err.contains(told), "{done:#?}");
    }
}
