//! What the documentation tells a reader to ask the server by curl, asked as it stands there.

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
