//! What the documentation tells a reader to ask the server by curl, and to write for a crew, done as it
//! stands there.

use crate::network::Process;
use crate::world::World;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Seconds that a request may take.
const SECONDS_MAX: u32 = 20;
/// Seconds that a stream is read.
const STREAM_SECONDS: u32 = 3;
/// Pages for users.
const PAGES: [&str; 7] = [
    "README.md",
    "docs/api.md",
    "docs/operations.md",
    "docs/architecture.md",
    "docs/patterns.md",
    "clients/python/README.md",
    "clients/typescript/README.md",
];

/// The lines of a page that ask by curl.
fn curls(page: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    let lines = text.lines().map(str::trim_start);
    let asks = lines.filter(|line| line.starts_with("curl "));
    asks.map(str::to_owned).collect()
}

fn is_stream(line: &str) -> bool {
    line.starts_with("curl -sN ")
}

/// What a shell makes of the line: the response's body, and its status.
#[track_caller]
fn asked(line: &str, server: &str, key: &str) -> (String, String) {
    // curl's code 28 says that the time was up, as it must be for a stream.
    let (seconds, code) = if is_stream(line) {
        (STREAM_SECONDS, 28)
    } else {
        (SECONDS_MAX, 0)
    };
    let options = format!("curl --max-time {seconds} --write-out '\\n%{{http_code}}' ");
    let done = Command::new("sh")
        .args(["-c", &line.replacen("curl ", &options, 1)])
        .env("CHARGEHAND_SERVER", server)
        .env("CHARGEHAND_KEY", key)
        .output()
        .unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(code), "{line}\n{out}");
    let (body, status) = out.rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

/// S0-192, S4-13: every curl of the documentation does what its page says, as it stands there.
#[test]
fn every_documented_curl_is_answered() {
    let mut seen = 0;
    for page in PAGES {
        let lines = curls(page);
        if lines.is_empty() {
            continue;
        }
        let world = World::new();
        let mut key = String::new();
        if lines.iter().any(|line| line.contains("CHARGEHAND_KEY")) {
            let create = ["keys", "create", "--label", "doc", "--scope", "admin"];
            let made = world.json(&create);
            key = made["key"].as_str().expect("a key").to_owned();
        }
        let serve = ["serve", "--listen", "127.0.0.1:0", "--local-workers", "2"];
        let mut process = Process::start(world.command(&serve));
        let server = process.word_after("serves at ").expect("it serves");
        for line in lines {
            let (body, status) = asked(&line, &server, &key);
            let submits = line.contains("/v1/tasks ");
            let expected = if submits { "201" } else { "200" };
            assert_eq!(status, expected, "{line}\n{body}");
            if submits {
                let [first, again] = [body.clone(), asked(&line, &server, &key).0]
                    .map(|body| serde_json::from_str::<Value>(&body).unwrap()["task_id"].take());
                assert!(first.is_string(), "{body}");
                assert_eq!(first == again, line.contains("idempotency-key"), "{line}");
            } else if is_stream(&line) {
                assert!(body.contains("\nevent: task.submitted\n"), "{line}\n{body}");
            } else if line.contains("/metrics") {
                assert!(
                    body.contains("\nchargehand_tasks_submitted_total"),
                    "{body}"
                );
            } else if line.contains("/readyz") {
                assert_eq!(body.trim(), "ready");
            } else {
                let answer: Value = serde_json::from_str(&body).unwrap();
                assert!(answer.is_object(), "{line}\n{body}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 9, "{seen} lines were found");
}

/// The fenced blocks of this language below a heading of a page, up to the next heading.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    let below = text.split_once(&format!("\n{heading}\n"));
    let (_, below) = below.unwrap_or_else(|| panic!("{page} has no {heading}"));
    let section = below.split("\n#").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    let inner = blocks.map(|block| block.split("```").next().unwrap_or_default());
    inner.map(str::to_owned).collect()
}

#[test]
fn the_documented_transcript_answers() {
    let world = World::new();
    let heading = "### Transcripts";
    let [crew, transcript] =
        ["yaml", "json"].map(|language| blocks("docs/agents.md", heading, language).remove(0));
    world.file("crew.yaml", crew);
    world.file("rain.json", transcript);
    let done = world.json(&["run", "Do I need an umbrella?", "--crew", "crew.yaml"]);
    assert_eq!(done["final_result"]["text"], "Take an umbrella [1].");
    // What only the tool knew was filled in.
    let tasks = world.json(&["tasks", "list"]).to_string();
    assert!(tasks.contains("Now there is rain."), "{tasks}");
    world.is_sound();
}

#[test]
fn the_documented_plan_is_done() {
    let world = World::new();
    let plan = blocks("docs/agents.md", "## A run", "json").remove(0);
    world.file("plan.json", plan);
    world.file("letters.jsonl", "{\"letter\": 1}\n");
    world.file(
        "crew.yaml",
        "version: 1\nname: desk\nmodels: {m: scripted/answers.json}\n\
         supervisor: {model: m, instructions: You lead.}\n\
         agents:\n  clerk: {description: Notes letters., model: m, instructions: You note., tools: [letters.note]}\n\
         tools:\n  letters.note: {command: 'echo true', description: Notes one., input: {type: object}, effect: pure}\n",
    );
    let rules = serde_json::json!({"rules": [
        {"when": {"last_contains": "Answer the goal"}, "answer": {"text": "One letter [1] [2]."}},
        {"when": {"system_contains": "You lead"}, "answer": {"text": "{\"accepted\": true, \"reason\": \"it is\"}"}},
        {"when": {"last_contains": "Note letter 1."}, "answer": {"calls": [{"tool": "letters_note"}]}},
        {"when": {"last_contains": "Say how many"}, "answer": {"text": "1"}},
        {"when": {"tool_result_contains": "true"}, "answer": {"text": "Noted."}},
    ]});
    world.file("answers.json", rules.to_string());
    let run = [
        "run",
        "Note it",
        "--crew",
        "crew.yaml",
        "--input",
        "letters.jsonl",
    ];
    let done = world.json(&[&run[..], &["--plan", "plan.json"]].concat());
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["final_result"]["status"], "done", "{done}");
    assert_eq!(done["final_result"]["sources"].as_array().unwrap().len(), 2);
}
