//! `crew` and `init`: what people see of a crew file.

use crate::world::World;
use std::path::Path;

/// The starter is a crew file that the check accepts, and is somebody's work once it is there.
#[test]
fn init_writes_a_crew_file_that_is_accepted_and_never_over_one() {
    let world = World::new();
    let said = world.run(&["init", "new/crew"]).ended(0);
    assert!(
        said.out
            .contains("chargehand crew check new/crew/crew.yaml"),
        "{said:#?}"
    );
    let checked = world.run(&["crew", "check", "new/crew/crew.yaml"]).ended(0);
    for seen in [
        "crew starter, 2 agents, 1 model",
        "200000 tokens, 1.00 USD",
        "researcher",
        "http.fetch",
    ] {
        assert!(checked.out.contains(seen), "{seen}: {checked:#?}");
    }
    assert!(
        checked.err.contains("ANTHROPIC_API_KEY is not set"),
        "{checked:#?}"
    );
    world.file("new/crew/crew.yaml", "mine");
    world.run(&["init", "new/crew"]).refused(2, "init.exists");
    let kept = std::fs::read_to_string(world.path("new/crew/crew.yaml")).unwrap();
    assert_eq!(kept, "mine");
    world.file("file", "");
    world
        .run(&["init", "file/below"])
        .refused(2, "init.unwritable");
    let document = world.run(&["init", "-o", "json"]).ended(0).document();
    assert_eq!(document["file"], "./crew.yaml");
}

/// What is commented out in the starter is right, too.
#[test]
fn the_starter_is_right_with_everything_that_it_shows() {
    let world = World::new();
    world.run(&["init"]).ended(0);
    let starter = std::fs::read_to_string(world.path("crew.yaml")).unwrap();
    // One lower-case word and a colon: a key. Anything else is a sentence.
    let is_yaml = |line: &str| {
        let (key, rest) = line.trim_start().split_once(':').unwrap_or(("", ""));
        let word = |b: u8| b.is_ascii_lowercase() || b"._".contains(&b);
        !key.is_empty() && key.bytes().all(word) && (rest.is_empty() || rest.starts_with(' '))
    };
    let (mut whole, mut shown) = (String::new(), 0);
    for line in starter.lines() {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        match bare.strip_prefix("# ").filter(|text| is_yaml(text)) {
            Some(text) => {
                shown += 1;
                whole.push_str(&format!("{indent}{text}\n"));
            }
            None => whole.push_str(&format!("{line}\n")),
        }
    }
    assert!(shown > 15, "{whole}");
    std::fs::create_dir(world.path("data")).unwrap();
    world.program("lookup.sh", "echo '{}'");
    world.file("whole.yaml", &whole);
    let document = world
        .run(&["crew", "check", "whole.yaml", "-o", "json"])
        .ended(0)
        .document();
    assert_eq!(document["crew"]["models"]["local"]["fallback"], "fast");
    assert_eq!(document["crew"]["tools"]["shop.lookup"]["effect"], "pure");
    assert_eq!(document["crew"]["approve"][0], "shop.lookup");
    assert_eq!(document["crew"]["files"]["root"], "./data");
    // What it says to be the defaults are the defaults.
    let small = "version: 1\nname: a\nmodels: {m: ollama/x}\nagents: {a: {description: d, instructions: i}}\n";
    world.file("crew.yaml", small);
    let small = world
        .run(&["crew", "check", "-o", "json"])
        .ended(0)
        .document();
    assert_eq!(small["crew"]["budget"], document["crew"]["budget"]);
    assert_eq!(small["keys_missing"].as_array().map(Vec::len), Some(0));
}

#[test]
fn every_mistake_is_shown_on_its_line_with_a_caret() {
    let world = World::new();
    world.file(
        "crew.yaml",
        "version: 1\nname: desk\nmodels: {fast: anthropic/claude-haiku-4-5}\nagents:\n  clerk:\n    desciption: Answers letters.\n    instructions: Be brief.\n    rounds: 0\n",
    );
    let done = world.run(&["crew", "check"]).ended(2);
    assert_eq!(done.out, "");
    let expected = "\
error[crew.missing_key]: crew.yaml:5:3: `description` is missing in `agents.clerk`
  5 |   clerk:
    |   ^
  help: When to give it work: the supervisor reads this.
error[crew.unknown_key]: crew.yaml:6:5: there is no key `desciption` in `agents.clerk`
  6 |     desciption: Answers letters.
    |     ^
  help: Did you mean `description`?
error[crew.value]: crew.yaml:8:13: `agents.clerk.rounds` is 0, but at least 1 is needed
  8 |     rounds: 0
    |             ^
  help: Its model's turns in one task: 1 to 2000.

3 mistakes; nothing was run.
";
    assert_eq!(done.err, expected);
    let done = world.run(&["crew", "check", "--output", "json"]).ended(2);
    assert_eq!(done.out, "");
    let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"]["code"], "crew.missing_key");
    let errors = error["error"]["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3);
    assert_eq!(
        (&errors[2]["line"], &errors[2]["column"]),
        (&8.into(), &13.into())
    );
    world
        .run(&["crew", "check", "nowhere.yaml"])
        .refused(2, "crew.unreadable");
}

#[test]
fn an_agents_own_budget_is_shown_and_its_mistakes_are_told() {
    let world = World::new();
    let file = |budget: &str| {
        format!(
            "version: 1\nname: desk\nmodels: {{m: ollama/x}}\nagents:\n  clerk: {{description: d, instructions: i}}\n  runner:\n    description: d\n    instructions: i\n    budget: {budget}\n"
        )
    };
    world.file("crew.yaml", file("{tokens: 20000, usd: 0.255, calls: 1}"));
    let checked = world.run(&["crew", "check"]).ended(0).out;
    let row = |agent: &str| {
        checked
            .lines()
            .find(|line| line.starts_with(agent))
            .unwrap()
    };
    let own = "20000 tokens, 0.255 USD, 1 call";
    assert!(row("runner").contains(own), "{checked}");
    assert!(!row("clerk").contains("USD"), "{checked}");
    let document = world.run(&["crew", "check", "-o", "json"]);
    let agents = &document.ended(0).document()["crew"]["agents"];
    assert_eq!(agents["runner"]["budget"]["usd_micros"], 255_000);
    assert!(agents["clerk"].get("budget").is_none(), "{agents}");

    world.file("crew.yaml", file("{tokens: none, usd: 0, wall: 10m}"));
    let told = world.run(&["crew", "check"]).ended(2).err;
    for mistake in [
        "crew.yaml:9:22: `agents.runner.budget.tokens` is the text “none”, but must be a whole number",
        "help: Tokens, read and written: 1 to 1000000000.",
        "crew.yaml:9:33: `agents.runner.budget.usd` is 0, but at least 0.0001 is needed",
        "there is no key `wall` in `agents.runner.budget`",
        "help: There are: calls, tokens, usd.",
        "3 mistakes; nothing was run.",
    ] {
        assert!(told.contains(mistake), "{mistake}: {told}");
    }
}

#[test]
fn the_published_schema_is_that_of_the_program() {
    let printed = World::new().run(&["crew", "schema"]).ended(0).out;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/crew.schema.json");
    if std::env::var_os("CHARGEHAND_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &printed).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == printed,
        "docs/crew.schema.json is not what the program says: run this test with CHARGEHAND_BLESS=1"
    );
}

/// The crew files of the documentation and of the examples are what they are said to be.
#[test]
fn the_documented_crews_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/crews.md")).unwrap();
    let yaml = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let world = World::new();
    world.program("lookup.sh", "echo '{}'");
    world.file("data/terms.txt", "…");
    world.file("researcher.md", "You find things out.");
    world.file("crew.yaml", yaml.unwrap());
    world.run(&["crew", "check"]).ended(0);
    let example = root.join("examples/outreach/crew.yaml");
    world
        .run(&["crew", "check", example.to_str().unwrap()])
        .ended(0);
    let example = root.join("examples/support/crew.yaml");
    world
        .run(&["crew", "check", example.to_str().unwrap()])
        .ended(0);
}

/// A server that a crew needs is asked before a run, when somebody wants to know.
#[test]
fn the_servers_of_a_crew_are_asked_what_they_have() {
    let world = World::new();
    let server = r#"import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        said = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "shop", "version": "1"}}
    elif asked.get("method") == "tools/list":
        said = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ["find", "refund"]]}
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "what?"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}), flush=True)
"#;
    world.file("shop.py", server);
    let crew = |tool: &str| {
        format!(
            "version: 1\nname: desk\nmodels: {{m: scripted/none.json}}\nagents:\n  clerk: {{description: D., instructions: I., tools: [shop.{tool}]}}\nmcp: {{shop: {{command: python3 shop.py}}}}\n"
        )
    };
    world.file("none.json", "{\"rules\": []}");
    world.file("crew.yaml", crew("find"));
    let said = world.run(&["crew", "check", "--servers"]).ended(0);
    for seen in ["shop, MCP 2025-11-25, 2 tools", "find, refund"] {
        assert!(said.out.contains(seen), "{seen}: {said:#?}");
    }
    world.file("crew.yaml", crew("fnid"));
    // The file alone does not tell.
    world.run(&["crew", "check"]).ended(0);
    let said = world.run(&["crew", "check", "--servers"]).ended(1);
    assert!(said.err.contains("did you mean “find”?"), "{said:#?}");
    world.file("shop.py", "import sys; sys.exit('no ink')");
    let said = world
        .run(&["crew", "check", "--servers", "-o", "json"])
        .ended(1);
    let shop = &said.document()["servers"]["shop"];
    assert_eq!(shop["state"], "unavailable");
    assert!(shop["why"].as_str().unwrap().contains("no ink"), "{shop}");
}
