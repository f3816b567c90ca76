//! `chat`: a conversation that is kept, killed, gone on with, stopped, and handed to a crew.

use crate::network::Process;
use crate::world::{World, finish, signal, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Child, Stdio};

/// A rule for whoever talks with a person.
fn talks(when: &Value, answer: Value) -> Value {
    let mut when = when.clone();
    when["system_contains"] = json!("You talk with a person");
    json!({"when": when, "answer": answer})
}

/// A crew of one clerk, who notes letters with a program that appends to a file, and can be talked
/// with. The program ends once there is a file `go`.
pub(crate) fn office(world: &World) {
    world.program(
        "note.sh",
        "read -r letter\necho \"$CHARGEHAND_IDEMPOTENCY_KEY $letter\" >> effects\nwhile [ ! -e go ]; do sleep 0.02; done\necho '{\"noted\": true}'",
    );
    world.file(
        "crew.yaml",
        "version: 1\nname: office\nmodels: {m: scripted/answers.json}\n\
         supervisor: {model: m, instructions: You lead.}\n\
         agents:\n  clerk: {description: Notes letters., model: m, instructions: You note., tools: [letters.note]}\n\
         tools:\n  letters.note:\n    command: ./note.sh\n    description: Notes a letter.\n    \
         input: {type: object, properties: {letter: {type: integer}}}\n    effect: keyed\n",
    );
    let briefs: Vec<Value> = (1..=3)
        .map(|n| json!({"agent": "clerk", "objective": format!("Note letter {n}."), "inputs": [], "acceptance": [], "evidence": ["letters.note"]}))
        .collect();
    let rules = vec![
        talks(
            &json!({"tool_result_contains": "Three letters"}),
            json!({"text": "The crew did it."}),
        ),
        talks(
            &json!({"tool_result_contains": "noted"}),
            json!({"text": "It is noted."}),
        ),
        talks(
            &json!({"last_contains": "Have the crew"}),
            json!({"calls": [{"tool": "delegate", "arguments": {"goal": "Note the letters"}}]}),
        ),
        talks(
            &json!({"last_contains": "Note letter 9"}),
            json!({"text": "I will.", "calls": [{"tool": "letters_note", "arguments": {"letter": 9}}]}),
        ),
        // Only whoever was shown the first exchange is in its second turn.
        talks(
            &json!({"last_contains": "What was first", "turn": 1}),
            json!({"text": "I remember nothing."}),
        ),
        talks(
            &json!({"last_contains": "What was first"}),
            json!({"text": "You said hello."}),
        ),
        talks(
            &json!({"last_contains": "Think long"}),
            json!({"text": "At last.", "delay_ms": 60_000}),
        ),
        talks(
            &json!({"last_contains": "Hello"}),
            json!({"text": "Good day. What can I do?"}),
        ),
        json!({
            "when": {"last_contains": "Plan how this crew"},
            "answer": {"text": json!({"briefs": briefs}).to_string()}
        }),
        // It tries what only an assistant may, first of all.
        json!({
            "when": {"system_contains": "You note", "tool_result_contains": "there is no tool"},
            "answer": {"calls": [{"tool": "letters_note", "arguments": {"letter": 1}}]}
        }),
        json!({
            "when": {"system_contains": "You note", "turn": 1},
            "answer": {"calls": [{"tool": "delegate", "arguments": {"goal": "Do my work"}}]}
        }),
        json!({"when": {"tool_result_contains": "noted"}, "answer": {"text": "Noted."}}),
        json!({"when": {"last_contains": "Answer the goal"}, "answer": {"text": "Three letters are noted [1] [3]."}}),
    ];
    world.file("answers.json", json!({"rules": rules}).to_string());
}

const CHAT: [&str; 3] = ["chat", "--crew", "crew.yaml"];

/// A conversation that goes on for as long as its input is open.
fn begun(world: &World, args: &[&str]) -> Child {
    let mut command = world.command(args);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

fn tell(child: &mut Child, text: &str) {
    let pipe = child.stdin.as_mut().unwrap();
    writeln!(pipe, "{text}").unwrap();
    pipe.flush().unwrap();
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Lines of JSON.
fn documents(out: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap();
    out.lines().map(read).collect()
}

fn runs(world: &World) -> Vec<Value> {
    world.json(&["runs", "list"])["items"]
        .as_array()
        .unwrap()
        .clone()
}

/// How often each step of a run's tasks was begun.
fn begun_steps(world: &World, run: &str) -> Vec<(String, usize)> {
    let tasks = world.json(&["tasks", "list", "--run", run]);
    let mut counts = BTreeMap::new();
    for event in world.events() {
        let recorded = &event["event"];
        let of = |task: &Value| {
            recorded
                .to_string()
                .contains(task["task_id"].as_str().unwrap())
        };
        if event.to_string().contains("\"intended\"")
            && tasks["items"].as_array().unwrap().iter().any(of)
        {
            let text = recorded.to_string();
            let key = text.split("\"key\":\"").nth(1).unwrap_or_default();
            let key = key.split('"').next().unwrap_or_default();
            *counts.entry(key.to_owned()).or_insert(0) += 1;
        }
    }
    counts.into_iter().collect()
}

// S2-01: a person talks with an agent of the crew, which has its tools and can delegate.
#[test]
fn a_conversation_is_kept_and_gone_on_with() {
    let world = World::new();
    office(&world);
    world.file("go", "");
    let done = world.run_with(&CHAT, b"Hello\n\nNote letter 9\n").ended(0);
    // Standard output is the answers, and nothing else.
    assert_eq!(done.out, "Good day. What can I do?\nIt is noted.\n");
    let done = done
        .names("scripted: answers come from a transcript")
        .names("clerk: letters.note {\"letter\":9}");
    let listed = world.json(&["chat", "--list"]);
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{listed:#}");
    assert_eq!(items[0]["messages"], 2);
    assert_eq!(items[0]["agent"], "clerk");
    let id = items[0]["conversation"].as_str().unwrap();
    let done = done.names(&format!("chat --continue {id}"));
    drop(done);
    // Another process remembers; another conversation does not.
    let args = ["chat", "--continue", "--output", "json"];
    let done = world.run_with(&args, b"What was first?\n").ended(0);
    let [answer] = &documents(&done.out)[..] else {
        panic!("{done:#?}");
    };
    assert_eq!(answer["answer"], "You said hello.");
    assert_eq!(
        (answer["conversation"].as_str(), &answer["number"]),
        (Some(id), &json!(3))
    );
    assert_eq!(answer["scripted"], true);
    let done = world.run_with(&CHAT, b"What was first?\n").ended(0);
    assert_eq!(done.out, "I remember nothing.\n");
    let done = world
        .run_with(&["chat", "--continue", id], b"What was first?\n")
        .ended(0);
    assert_eq!(done.out, "You said hello.\n");
    let listed = world.json(&["chat", "--list"]);
    assert_eq!(listed["items"][0]["conversation"], id, "{listed:#}");
    assert_eq!(listed["items"][1]["messages"], 1);
    world.is_sound();
}

#[test]
fn a_killed_answer_is_gone_on_with_and_bought_once() {
    let world = World::new();
    office(&world);
    let mut child = begun(&world, &CHAT);
    tell(&mut child, "Note letter 9");
    until("the letter", || world.read("effects").lines().count() == 1);
    kill(child);
    world.file("go", "");
    let done = world
        .run_with(&["chat", "--continue"], b"What was first?\n")
        .ended(0);
    assert_eq!(done.out, "It is noted.\nYou said hello.\n");
    let done = done.names("going on with: Note letter 9");
    drop(done);
    // The first turn is in the store and was not asked again. What the call had come to was not: it
    // was made again under its key, so that whoever notes letters can tell.
    let noted = world.settled("effects");
    let keys: BTreeSet<&str> = noted.lines().collect();
    assert_eq!((noted.lines().count(), keys.len()), (2, 1), "{noted}");
    let first = runs(&world).pop().unwrap();
    let steps = begun_steps(&world, first["run_id"].as_str().unwrap());
    let times = |what: &str| {
        let of = steps.iter().filter(|(key, _)| key.starts_with(what));
        of.map(|(_, times)| *times).collect::<Vec<_>>()
    };
    assert_eq!(times("turn_1_"), [1], "{steps:?}");
    assert_eq!(times("call_1_"), [2], "{steps:?}");
    assert_eq!(times("turn_2_"), [1], "{steps:?}");
    world.is_sound();
}

// S0-09, S2-20: who was delegated to cannot delegate: not by a grant, and not by calling what it was not
// granted. S2-04: who leads and who works are there without being switched on.
#[test]
fn what_is_delegated_is_one_run_also_when_killed_and_goes_no_deeper() {
    let world = World::new();
    office(&world);
    let mut child = begun(&world, &CHAT);
    tell(&mut child, "Have the crew note all letters");
    until("a letter", || world.read("effects").lines().count() >= 1);
    kill(child);
    world.file("go", "");
    let done = world
        .run_with(&["chat", "--continue"], b"")
        .ended(0)
        .names("crew/supervisor: Three letters are noted [1] [3].");
    assert_eq!(done.out, "The crew did it.\n");
    // The message and one run of the crew: nobody began another.
    let all = runs(&world);
    assert_eq!(all.len(), 2, "{all:#?}");
    let said = all.iter().find(|run| run["metadata"]["chat"].is_object());
    let made = all.iter().find(|run| run["metadata"]["chat"].is_null());
    let (said, made) = (said.unwrap(), made.unwrap());
    assert_eq!(made["metadata"]["delegated_by"], said["run_id"]);
    assert_eq!(made["status"], "completed");
    // Each clerk tried to delegate, and was told that there is no such tool for it.
    let id = made["run_id"].as_str().unwrap();
    let tasks = world.json(&["tasks", "list", "--run", id]);
    // A plan, three briefs, a look and the answer.
    assert_eq!(tasks["items"].as_array().unwrap().len(), 6);
    world.is_sound();

    let text = world.read("crew.yaml");
    world.file(
        "crew.yaml",
        text.replace("tools: [letters.note]", "tools: [delegate]"),
    );
    let refused = world.run_with(&CHAT, b"Hello\n").ended(2);
    assert!(
        refused.err.contains("there is no tool `delegate`"),
        "{refused:#?}"
    );
}

// S0-82: a tool that is written into the crew file during a conversation is there for its next message; a
// file with a mistake changes nothing, and says so.
#[test]
fn a_tool_that_is_added_during_a_conversation_is_there_for_the_next_message() {
    let world = World::new();
    office(&world);
    world.file("go", "");
    let mut child = begun(&world, &CHAT);
    tell(&mut child, "Hello");
    until("a run", || {
        world.run(&["events"]).out.contains("run.started")
    });
    let answered = |number: usize| {
        until("an answer", || {
            let all = runs(&world);
            all.len() == number && all.iter().all(|run| run["status"] == "completed")
        });
    };
    answered(1);
    let crew = world.read("crew.yaml");
    world.file("crew.yaml", crew.replace("agents:", "agens:"));
    tell(&mut child, "Hello");
    answered(2);
    world.program("count.sh", "echo '{\"letters\": 42}'");
    let more =
        "  letters.count: {command: ./count.sh, description: Counts., input: {type: object}}\n";
    let crew = crew.replace("[letters.note]", "[letters.note, letters.count]") + more;
    let answers = world.read("answers.json").replacen(
        "{\"rules\":[",
        &format!(
            "{{\"rules\":[{},{},",
            json!({"when": {"tool_result_contains": "42"}, "answer": {"text": "There are 42."}}),
            json!({"when": {"last_contains": "How many"}, "answer": {"calls": [{"tool": "letters_count", "arguments": {}}]}}),
        ),
        1,
    );
    world.file("answers.json", answers);
    world.file("crew.yaml", crew);
    tell(&mut child, "How many letters are there?");
    let done = finish(child, b"").ended(0);
    let hello = "Good day. What can I do?\n";
    assert_eq!(done.out, format!("{hello}{hello}There are 42.\n"));
    done.names("crew.yaml:1:1: `agents` is missing")
        .names("going on with the crew as it was")
        .names("The crew file has changed");
    world.is_sound();
}

#[test]
fn an_answer_can_be_stopped_and_the_conversation_goes_on() {
    let world = World::new();
    office(&world);
    world.file("go", "");
    let mut child = begun(&world, &CHAT);
    tell(&mut child, "Think long");
    until("it thinks", || {
        world.run(&["events"]).out.contains("turn_1_")
    });
    signal(&child, Signal::INT);
    until("it is stopped", || {
        runs(&world)[0]["status"] == json!("cancelled")
    });
    tell(&mut child, "Hello");
    let done = finish(child, b"").ended(1).names("stopped");
    assert_eq!(done.out, "Good day. What can I do?\n");
}

#[test]
fn somebody_who_is_not_there_cannot_be_talked_with() {
    let world = World::new();
    office(&world);
    world.file("go", "");
    world.run(&["chat"]).refused(2, "usage.invalid");
    let nobody = [&CHAT[..], &["--agent", "nobody"]].concat();
    world
        .run(&nobody)
        .refused(2, "agent.unknown")
        .names("clerk");
    assert!(!world.path(".chargehand").exists());
    world
        .run(&["chat", "--continue"])
        .refused(2, "store.missing");
    world.run_with(&CHAT, b"Hello\n").ended(0);
    let strange = format!("run_{}", "0".repeat(26));
    world
        .run(&["chat", "--continue", &strange])
        .refused(2, "run.unknown");
    // A crew that changed is another crew, and answers all the same: nothing was left open.
    let text = world.read("crew.yaml");
    world.file("crew.yaml", text.replace("You note.", "You burn."));
    let done = world.run_with(&["chat", "--continue"], b"What was first?\n");
    assert_eq!(done.ended(0).out, "You said hello.\n");
    // A line that is too long is refused, and no message.
    let long = vec![b'x'; 300 * 1024];
    let done = world.run_with(&["chat", "--continue"], &long).ended(2);
    assert!(done.err.contains("error[limit.exceeded]"), "{done:#?}");
    assert_eq!(runs(&world).len(), 2);
}

// Through a server: who talks, who works and who watches are different processes.
#[test]
fn what_is_said_at_a_server_is_heard_by_whoever_watches() {
    let world = World::new();
    office(&world);
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let mut server = Process::start(world.command(&serve));
    let url = server.word_after("serves at ").expect("it serves");
    let at = |args: &[&'static str]| {
        let mut all = vec!["--server".to_owned(), url.clone()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all
    };
    fn words(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    let mut child = begun(&world, &words(&at(&CHAT)));
    tell(&mut child, "Have the crew note all letters");
    until("a letter", || world.read("effects").lines().count() >= 1);
    let listed = world.json(&words(&at(&["runs", "list"])));
    let run = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["metadata"]["chat"].is_object())
        .expect("the message")["run_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut watch = at(&["runs", "watch"]);
    watch.push(run);
    let watching = world.start(&words(&watch));
    world.file("go", "");
    let done = finish(child, b"").ended(0);
    assert_eq!(done.out, "The crew did it.\n");
    finish(watching, b"")
        .ended(0)
        .names("crew/clerk: letters.note {\"letter\":1}")
        .names("crew/supervisor: Three letters are noted [1] [3].")
        .names("clerk: The crew did it.");
}

/// A call that needs a yes is asked for where the person is: the next line is the answer.
#[test]
fn a_call_that_needs_a_yes_is_asked_for_in_the_conversation() {
    let world = World::new();
    world.file(
        "crew.yaml",
        "version: 1\nname: desk\nmodels: {m: scripted/t.json}\nsupervisor: {model: m}\n\
         agents:\n  clerk: {description: Pays., instructions: You pay., tools: [bank.pay]}\n\
         tools:\n  bank.pay:\n    command: cat\n    description: Pays.\n    sensitive: [to]\n    \
         input: {type: object, properties: {to: {type: string}}, required: [to]}\n",
    );
    let pay =
        |to: &str| json!({"answer": {"calls": [{"tool": "bank_pay", "arguments": {"to": to}}]}});
    let mut rules = vec![
        json!({"when": {"tool_result_contains": "said no: not to them"}, "answer": {"text": "I did not pay."}}),
        json!({"when": {"tool_result_contains": "to"}, "answer": {"text": "Paid."}}),
    ];
    for (word, to) in [("the bill", "mallory"), ("baker", "baker")] {
        let mut rule = pay(to);
        rule["when"] = json!({ "last_contains": word });
        rules.push(rule);
    }
    world.file("t.json", json!({ "rules": rules }).to_string());
    let chat = ["chat", "--crew", "crew.yaml"];
    let refused = world
        .run_with(&chat, b"Pay the bill\nnot to them\n")
        .ended(0);
    assert_eq!(refused.out.trim(), "I did not pay.");
    let asked = r#"waits for a person's yes to bank.pay {"to":"mallory"} (nobody vouches for `to`): yes, or why not?"#;
    assert!(refused.err.contains(asked), "{}", refused.err);
    let paid = world.run_with(&chat, b"Pay the bill\nyes\n").ended(0);
    assert_eq!(paid.out.trim(), "Paid.");
    // What the person said may be filled in.
    let said = world.run_with(&chat, b"Pay the baker\n").ended(0);
    assert_eq!(said.out.trim(), "Paid.");
    assert!(!said.err.contains("yes, or why not"), "{}", said.err);
}
