//! MCP servers as a source of tools: public ones over both transports and in both revisions of the
//! protocol, and hostile ones of the tests' own.

mod address;
mod crew;
mod hostile;
mod later;
mod peers;
mod public;

use agent::crew::Crew;
use agent::hands::{Granted, Hands};
use agent::mcp::{Health, Server};
use agent::tool::Toolbox;
use domain::task::Failure;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A crew with one agent, and what it was granted.
struct Bench {
    folder: TempDir,
    crew: Crew,
    hands: Granted,
}

impl Bench {
    /// With this under `mcp:`, in one line, and these grants.
    fn new(mcp: &str, grants: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::within(folder, mcp, grants)
    }

    fn within(folder: TempDir, mcp: &str, grants: &[&str]) -> Self {
        let crew = load(folder.path(), mcp, grants).unwrap();
        let toolbox = Arc::new(Toolbox::of_crew(&crew, []).unwrap());
        let tools: BTreeSet<String> = grants.iter().map(|name| (*name).to_owned()).collect();
        let hands = Granted {
            toolbox,
            tools,
            approve: Default::default(),
        };
        Self {
            folder,
            crew,
            hands,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Failure> {
        let called = self.hands.make(tool, &arguments, "key-1");
        tokio::time::timeout(PATIENCE, called)
            .await
            .expect("a call comes back")
    }

    /// What a call came to, and what was told of it on the way.
    async fn call_telling(&self, tool: &str, arguments: Value) -> (Value, Vec<String>) {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&told);
        let tell = Arc::new(move |text| hear.lock().unwrap().push(text));
        let called = self.hands.make_telling(tool, &arguments, "key-1", tell);
        let called = tokio::time::timeout(PATIENCE, called).await;
        let output = called.expect("a call comes back").unwrap();
        let told = told.lock().unwrap().clone();
        (output, told)
    }

    /// What a model is told of its tools: name, description and schema.
    async fn told(&self) -> Vec<(String, String, Value)> {
        let specs = tokio::time::timeout(PATIENCE, self.hands.specs()).await;
        let specs = specs.expect("it comes back").into_iter();
        let specs = specs.map(|spec| (spec.name, spec.description, spec.input));
        specs.collect()
    }

    /// The crew's server of this name, beside the one that the toolbox has.
    fn server(&self, name: &str, tools: &[&str]) -> Arc<Server> {
        let path = self.folder.path();
        Server::new(name, &self.crew.mcp[name], path, tools.iter().copied())
    }
}

fn load(folder: &Path, mcp: &str, grants: &[&str]) -> Result<Crew, String> {
    let file = folder.join("crew.yaml");
    let grants = grants.join(", ");
    let text = format!(
        "version: 1\nname: bench\nmodels: {{m: ollama/none}}\nagents:\n  one: {{description: One., instructions: Work., tools: [{grants}]}}\nmcp: {mcp}\n"
    );
    std::fs::write(&file, text).unwrap();
    Crew::load(&file).map_err(|mistakes| {
        let told = mistakes
            .iter()
            .map(|mistake| format!("{} {mistake} {}\n", mistake.code, mistake.hint));
        told.collect()
    })
}

/// A secret that is not the same when it is quoted, and a part of which is known wherever it is.
const TORN: &str = r#"bIrCh"wOoDs\pApEr'kItEs"#;

/// Whether any five characters of the secret are in a text.
fn shows_some(text: &str) -> bool {
    let letters: Vec<char> = TORN.chars().collect();
    let mut parts = letters.windows(5).map(String::from_iter);
    parts.any(|part| text.contains(&part))
}

/// Runs a test in a process of its own that has this secret, unless this is that process already: the
/// environment can be set safely only when a process starts.
fn begun_with(variable: &str, secret: &str, name: &str) -> bool {
    if std::env::var_os(variable).is_some() {
        return true;
    }
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(variable, secret)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    let passed = again.status.success() && said.contains("1 passed");
    assert!(passed, "{again:?}");
    false
}

#[track_caller]
fn fails(result: Result<Value, Failure>, code: &str, said: &str) -> Failure {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(said), "{said}: {failure:?}");
    failure
}

/// Where the tests' own servers are.
fn script(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("tests/agent/mcp").join(name)
}

#[track_caller]
fn available(health: Health) -> (String, usize) {
    match health {
        Health::Available {
            protocol, tools, ..
        } => (protocol, tools.len()),
        Health::Unavailable { why } => panic!("{why}"),
    }
}

#[test]
fn grants_are_checked_when_the_crew_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let load = |mcp: &str, grants: &[&str]| load(folder.path(), mcp, grants);
    let open = "{shop: {command: no-such-program}}";
    // No server is started for it.
    load(open, &["shop.any-tool_2"]).unwrap();
    let listed = "{shop: {command: x, tools: {find: {name: findOrder, effect: pure}}}}";
    load(listed, &["shop.find"]).unwrap();
    for (mcp, grants, told) in [
        (open, ["shp.find"], "crew.reference"),
        (open, ["shop.find.all"], "crew.reference"),
        (listed, ["shop.fnd"], "Did you mean `shop.find`?"),
        (listed, ["shop.findOrder"], "crew.value"),
        ("{http: {command: x}}", ["http.fetch"], "crew.name"),
        ("{shop: {}}", ["shop.a"], "crew.missing_key"),
        (
            "{shop: {command: x, url: \"http://a\"}}",
            ["shop.a"],
            "Keep one of them.",
        ),
        ("{shop: {url: \"ftp://a\"}}", ["shop.a"], "crew.value"),
        (
            "{shop: {url: \"http://a\", key: sesame}}",
            ["shop.a"],
            "crew.secret",
        ),
        (
            "{shop: {url: \"http://me:pw@a\"}}",
            ["shop.a"],
            "crew.secret",
        ),
        (
            "{shop: {command: x, key: secret://A}}",
            ["shop.a"],
            "`key` goes with `url`",
        ),
        (
            "{shop: {url: \"http://a\", env: {A: b}}}",
            ["shop.a"],
            "`env` goes with `command`",
        ),
        (
            "{shop: {command: x, env: {API_TOKEN: abc}}}",
            ["shop.a"],
            "crew.secret",
        ),
        ("{shop: {command: ./gone}}", ["shop.a"], "crew.path"),
        ("{Shop: {command: x}}", ["files.list"], "at most 32 long"),
        (
            "{shop: {command: x, tools: {Find: {}}}}",
            ["shop.a"],
            "belongs to `name`",
        ),
        (
            "{shop: {command: x, timeout: 2h}}",
            ["shop.a"],
            "crew.value",
        ),
        (
            "{shop: {command: x, effect: maybe}}",
            ["shop.a"],
            "crew.value",
        ),
        ("{shop: {comand: x}}", ["shop.a"], "Did you mean `command`?"),
    ] {
        let mistakes = load(mcp, &grants).unwrap_err();
        assert!(mistakes.contains(told), "{mcp}: {mistakes}");
        assert!(!mistakes.contains("sesame"), "{mistakes}");
    }
    // Two agents' names for one tool cannot be told apart.
    let file = folder.path().join("crew.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("comand", "command");
    let own = "tools: {shop.find: {command: ls, description: Finds., input: {type: object}}}\n";
    std::fs::write(&file, text + own).unwrap();
    let mistakes = Crew::load(&file).unwrap_err();
    assert!(mistakes.iter().any(|mistake| mistake.code == "crew.name"));
}

#[test]
fn the_documented_servers_are_accepted() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/crews.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("### MCP servers").unwrap();
    let yaml = section.split("```yaml\n").nth(1).unwrap();
    let yaml = yaml.split("```").next().unwrap();
    let clerk = yaml.replace("# …", "description: D.\n    instructions: I.");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crew.yaml");
    let head = "version: 1\nname: desk\nmodels: {m: ollama/none}\n";
    std::fs::write(&file, format!("{head}{clerk}")).unwrap();
    let crew = Crew::load(&file).unwrap();
    assert_eq!(crew.mcp.len(), 2);
}

#[tokio::test]
async fn effects_are_what_the_crew_file_says() {
    let mcp = "{shop: {command: x, effect: keyed, tools: {find: {effect: pure}, buy: {}}}, other: {command: x}}";
    let bench = Bench::new(mcp, &["shop.find", "shop.buy", "other.do"]);
    let effect = |tool: &str| json!(bench.hands.known(tool).unwrap().1);
    assert_eq!(effect("shop_find"), "pure");
    assert_eq!(effect("shop.buy"), "keyed");
    assert_eq!(effect("other_do"), "at_most_once");
    // What was not granted is not there.
    assert!(bench.hands.known("shop.sell").is_none());
}
