//! Tools, behaving and misbehaving: real files, real programs, a real server.

use agent::crew::Crew;
use agent::hands::{Granted, Hands};
use agent::tool::{
    ARGUMENTS_BYTES_MAX, BUILT_IN, ENTRIES_MAX, FILE_BYTES_MAX, Fetch, FileTool, MATCHES_MAX,
    RESULT_BYTES_MAX, TEXT_BYTES_MAX, Tool, ToolCard, Toolbox,
};
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn granted(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn call(tools: &Toolbox, name: &str, arguments: Value) -> Result<Value, Failure> {
    tools
        .call(&granted(&[name]), name, &arguments, "key-1")
        .await
}

#[track_caller]
fn fails(result: Result<Value, Failure>, code: &str, said: &str) -> Failure {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(said), "{said}: {failure:?}");
    failure
}

/// A tool of the tests' own.
struct Own {
    card: ToolCard,
    behave: fn(Value) -> Result<Value, Failure>,
    available: Result<(), String>,
}

impl Own {
    fn new(name: &str, behave: fn(Value) -> Result<Value, Failure>) -> Self {
        Self {
            card: ToolCard {
                name: Name::new(name).unwrap(),
                description: "Does something.".into(),
                input: json!({"type": "object"}),
                output: None,
                effect: EffectClass::Pure,
                timeout: Duration::from_secs(20),
                category: "own".into(),
                sensitive: Vec::new(),
                untrusted_output: false,
            },
            behave,
            available: Ok(()),
        }
    }
}

#[async_trait]
impl Tool for Own {
    fn card(&self) -> &ToolCard {
        &self.card
    }
    async fn available(&self) -> Result<(), String> {
        self.available.clone()
    }
    async fn call(&self, arguments: &Value, _key: &str) -> Result<Value, Failure> {
        (self.behave)(arguments.clone())
    }
}

fn toolbox(tools: Vec<Own>) -> Toolbox {
    let shared = tools
        .into_iter()
        .map(|tool| Arc::new(tool) as Arc<dyn Tool>);
    Toolbox::new(shared).unwrap()
}

// S0-185: tools are tested. S2-24: who was granted nothing can call nothing.
#[tokio::test]
async fn nothing_is_called_that_was_not_granted() {
    let tools = toolbox(vec![
        Own::new("shop.lookup", Ok),
        Own::new("shop.refund", Ok),
    ]);
    let arguments = json!({"order": 7});
    assert_eq!(
        call(&tools, "shop.lookup", arguments.clone()).await,
        Ok(arguments.clone())
    );
    let only = granted(&["shop.lookup"]);
    let refused = tools.call(&only, "shop.refund", &arguments, "k").await;
    fails(refused, "tool.not_granted", "shop.refund");
    let refused = tools
        .call(&BTreeSet::new(), "shop.lookup", &arguments, "k")
        .await;
    fails(refused, "tool.not_granted", "shop.lookup");
    let unknown = tools.call(&only, "shop.lokup", &arguments, "k").await;
    let failure = fails(unknown, "tool.unknown", "did you mean “shop.lookup”?");
    assert!(!failure.retryable);
    // Models are told of nothing else either.
    let specs = tools.specs(&only).await;
    assert_eq!(
        specs
            .iter()
            .map(|spec| spec.name.as_str())
            .collect::<Vec<_>>(),
        ["shop_lookup"]
    );
}

// S2-03: a worker has its granted tools alone: it is told of no other and can call no other.
#[tokio::test]
async fn a_mind_has_the_tools_that_it_was_granted_and_no_others() {
    let mut broken = Own::new("shop.refund", |_| panic!("as told"));
    broken.card.effect = EffectClass::AtMostOnce;
    let mut away = Own::new("shop.away", Ok);
    away.available = Err("it is away".into());
    let all = vec![
        Own::new("shop.lookup", Ok),
        broken,
        away,
        Own::new("other", Ok),
    ];
    let hands = Granted {
        toolbox: Arc::new(toolbox(all)),
        tools: granted(&["shop.lookup", "shop.refund", "shop.away"]),
        approve: Default::default(),
    };
    let specs = hands.specs().await;
    let told: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(told, ["shop_away", "shop_lookup", "shop_refund"]);
    let known = Some(("shop.lookup".to_owned(), EffectClass::Pure));
    assert_eq!(hands.known("shop_lookup"), known);
    assert_eq!(hands.known("other"), None);
    // Its card says that nobody else wrote what it gives.
    assert!(!hands.is_untrusted("shop_lookup") && hands.is_untrusted("other"));
    let arguments = json!({"order": 1});
    let looked_up = hands.make("shop_lookup", &arguments, "k").await;
    assert_eq!(looked_up, Ok(arguments.clone()));
    fails(
        hands.make("other", &arguments, "k").await,
        "tool.unknown",
        "other",
    );
    fails(
        hands.make("shop_away", &arguments, "k").await,
        "tool.unavailable",
        "away",
    );
    // Whether money went is for a person to find out.
    fails(
        hands.make("shop_refund", &arguments, "k").await,
        "record.in_doubt",
        "shop.refund",
    );
}

/// What a crew file may grant is there when it is called.
#[test]
fn every_built_in_tool_is_one() {
    let folder = Folder::new();
    let text = "version: 1\nname: a\nmodels: {m: ollama/x}\nagents: {a: {description: d, instructions: i}}\ntools: {files: {root: .}}\n";
    folder.file("crew.yaml", text);
    let crew = Crew::load(&folder.path().join("crew.yaml")).unwrap();
    let tools = Toolbox::of_crew(&crew, []).unwrap();
    let cards = tools.cards();
    let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
    assert_eq!(names, BUILT_IN);
}

/// What reads a text without a model is a tool like any other: granted by name, checked, computed.
#[tokio::test]
async fn skills_that_read_a_text_are_tools() {
    let tools = Toolbox::built_in().unwrap();
    let granted = granted(&["text.sentiment", "text.stats"]);
    let call =
        async |tool: &str, arguments: Value| tools.call(&granted, tool, &arguments, "k").await;
    let sad = json!({"text": "Awful, just awful! The zip broke within an hour."});
    let read = call("text.sentiment", sad).await.unwrap();
    assert_eq!(read["label"], "negative", "{read}");
    let counted = call("text.stats", json!({"text": "to be or not to be"})).await;
    assert_eq!(counted.unwrap()["words"], 6);
    fails(
        call("text.sentiment", json!({})).await,
        "tool.arguments",
        "text",
    );
    let odd = json!({"text": "a", "options": {"colour": "red"}});
    fails(
        call("text.sentiment", odd).await,
        "tool.failed",
        "option.invalid",
    );
    let summary = call("text.summary", json!({"text": "One."})).await;
    fails(summary, "tool.not_granted", "text.summary");
}

#[tokio::test]
async fn names_for_models_are_what_providers_take_and_each_is_one_tools() {
    let long = format!("a.{}", "x".repeat(100));
    let longer = format!("{long}y");
    let names = ["a.b", "a_b", "a b", "ä/ö", &long, &longer];
    let tools = toolbox(names.map(|name| Own::new(name, Ok)).into());
    let specs = tools.specs(&granted(&names)).await;
    let told: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(told.len(), names.len());
    for name in &told {
        assert!((1..=64).contains(&name.len()), "{name}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
            "{name}"
        );
    }
    let back: BTreeSet<String> = told
        .iter()
        .map(|name| tools.name_of(name).unwrap().to_string())
        .collect();
    assert_eq!(back, names.into_iter().map(str::to_owned).collect());
    assert_eq!(tools.name_of("nothing"), None);
}

// S0-80: arguments are checked against the schema before the tool is called.
#[tokio::test]
async fn arguments_and_results_are_what_the_schemas_say() {
    let mut strict = Own::new("strict", |mut arguments| {
        assert!(arguments["amount"].as_u64() >= Some(1), "not checked first");
        Ok(arguments["give"].take())
    });
    strict.card.input = json!({
        "type": "object",
        "properties": {"amount": {"type": "integer", "minimum": 1}},
        "required": ["amount"]
    });
    strict.card.output = Some(json!({"type": "object", "required": ["id"]}));
    strict.card.effect = EffectClass::AtMostOnce;
    let card = strict.card.clone();
    let tools = toolbox(vec![strict]);
    fails(
        call(&tools, "strict", json!({})).await,
        "tool.arguments",
        "\"amount\" is a required property",
    );
    let wrong = call(&tools, "strict", json!({"amount": 0})).await;
    let failure = fails(
        wrong,
        "tool.arguments",
        "at /amount, 0 is less than the minimum of 1",
    );
    assert!(!card.leaves_in_doubt(&failure), "it was not called");
    // A model that wrote no JSON at all: its text is the arguments.
    fails(
        call(&tools, "strict", json!("{amount: 1")).await,
        "tool.arguments",
        "object",
    );
    let right = json!({"amount": 1, "give": {"id": 5}});
    assert_eq!(call(&tools, "strict", right).await, Ok(json!({"id": 5})));
    let lied = call(&tools, "strict", json!({"amount": 1, "give": []})).await;
    let failure = fails(lied, "tool.output", "not what it promises");
    assert!(card.leaves_in_doubt(&failure) && !failure.retryable);
    // Sizes, at the bound and one beyond it.
    let tools = toolbox(vec![
        Own::new("echo", Ok),
        Own::new("large", |arguments| {
            let bytes = arguments["bytes"].as_u64().unwrap() as usize;
            Ok("x".repeat(bytes - 2).into())
        }),
    ]);
    let sized = |bytes: usize| json!({"a": "x".repeat(bytes - json!({"a": ""}).to_string().len())});
    assert!(
        call(&tools, "echo", sized(ARGUMENTS_BYTES_MAX))
            .await
            .is_ok()
    );
    let beyond = call(&tools, "echo", sized(ARGUMENTS_BYTES_MAX + 1)).await;
    fails(beyond, "tool.arguments", &ARGUMENTS_BYTES_MAX.to_string());
    assert!(
        call(&tools, "large", json!({"bytes": RESULT_BYTES_MAX}))
            .await
            .is_ok()
    );
    let beyond = call(&tools, "large", json!({"bytes": RESULT_BYTES_MAX + 1})).await;
    fails(beyond, "tool.output", &RESULT_BYTES_MAX.to_string());
}

// S0-75: a second tool of the same name is refused.
#[test]
fn a_toolbox_has_no_tool_without_a_schema_and_none_twice() {
    let new = |tools: Vec<Own>| {
        let tools = tools
            .into_iter()
            .map(|tool| Arc::new(tool) as Arc<dyn Tool>);
        Toolbox::new(tools).unwrap_err()
    };
    let mut wrong = Own::new("wrong", Ok);
    wrong.card.input = json!({"type": "objekt"});
    assert_eq!(new(vec![wrong]).code, "tool.schema");
    // What would be fetched from elsewhere is not.
    let mut remote = Own::new("remote", Ok);
    remote.card.input = json!({"$ref": "http://127.0.0.1:9/schema.json"});
    assert_eq!(new(vec![remote]).code, "tool.schema");
    let twice = new(vec![Own::new("a", Ok), Own::new("a", Ok)]);
    assert_eq!(twice.code, "tool.duplicate");
}

/// A schema from somebody else must not take the process down or stop its clock.
#[tokio::test]
async fn a_hostile_schema_is_survived() {
    let schemas = [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        json!({"properties": {"a": {"pattern": "^(a+)+$"}}}),
        json!({"properties": {"a": {"pattern": "(?=x)"}}}),
        json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}),
        json!(true),
        json!([]),
    ];
    for schema in schemas {
        let mut own = Own::new("own", Ok);
        own.card.input = schema.clone();
        let tools = Toolbox::new([Arc::new(own) as Arc<dyn Tool>]);
        let deep = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
        match tools {
            Err(failure) => assert_eq!(failure.code, "tool.schema", "{schema}"),
            Ok(tools) => {
                let long = json!({"a": "a".repeat(50_000) + "!"});
                for arguments in [json!({}), json!({"a": 1}), long, deep] {
                    let ended = call(&tools, "own", arguments).await;
                    let fine =
                        ended.map_or_else(|failure| failure.code == "tool.arguments", |_| true);
                    assert!(fine, "{schema}");
                }
            }
        }
    }
}

// S0-81: whatever a tool does, what comes back is a result with a code and words.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_blocks_its_thread_or_panics_does_not_take_its_caller_along() {
    let mut stuck = Own::new("stuck", |_| {
        std::thread::sleep(Duration::from_secs(3));
        Ok(Value::Null)
    });
    stuck.card.timeout = Duration::from_millis(50);
    stuck.card.effect = EffectClass::VerifyFirst;
    let card = stuck.card.clone();
    let mut gone = Own::new("gone", Ok);
    gone.available = Err("it is being repaired".into());
    let tools = toolbox(vec![stuck, Own::new("panics", |_| panic!("as told")), gone]);
    let failure = fails(
        call(&tools, "stuck", json!({})).await,
        "tool.timed_out",
        "50 ms",
    );
    assert!(card.leaves_in_doubt(&failure) && !failure.retryable);
    let failure = fails(
        call(&tools, "panics", json!({})).await,
        "tool.broken",
        "broke off",
    );
    assert!(failure.retryable, "its effect may be repeated");
    let failure = fails(
        call(&tools, "gone", json!({})).await,
        "tool.unavailable",
        "repaired",
    );
    assert!(failure.retryable);
    assert_eq!(
        tools.available("gone").await.unwrap_err().code,
        "tool.unavailable"
    );
    assert_eq!(
        tools.available("nowhere").await.unwrap_err().code,
        "tool.unknown"
    );
    assert_eq!(tools.available("panics").await, Ok(()));
}

// ---- files ----

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        self.file(name, format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path().join(name), mode).unwrap();
    }

    fn tools(&self) -> Toolbox {
        let tools = FileTool::all(self.path());
        Toolbox::new(tools.map(|tool| Arc::new(tool) as Arc<dyn Tool>)).unwrap()
    }
}

#[tokio::test]
async fn files_are_read_listed_and_searched() {
    let folder = Folder::new();
    folder.file("a.txt", "one\nTwo words\nthree\n");
    folder.file("sub/b.md", "# Two\n");
    folder.file("sub/image", b"\x89PNG\0\0");
    let tools = folder.tools();
    let read = call(&tools, "files.read", json!({"path": "a.txt"}))
        .await
        .unwrap();
    assert_eq!(read["text"], "one\nTwo words\nthree\n");
    assert_eq!((&read["lines"], &read["more"]), (&json!(3), &Value::Null));
    let read = call(
        &tools,
        "files.read",
        json!({"path": "./sub//b.md", "line": 1}),
    )
    .await
    .unwrap();
    assert_eq!(read["text"], "# Two\n");
    let list = call(&tools, "files.list", json!({})).await.unwrap();
    assert_eq!(
        list["entries"],
        json!([
            {"name": "a.txt", "kind": "file", "bytes": 20},
            {"name": "sub", "kind": "folder", "bytes": null}
        ])
    );
    let found = call(&tools, "files.search", json!({"text": "TWO"}))
        .await
        .unwrap();
    assert_eq!(
        found,
        json!({"matches": [
            {"path": "a.txt", "line": 2, "text": "Two words"},
            {"path": "sub/b.md", "line": 1, "text": "# Two"}
        ], "skipped": 1, "more": false})
    );
    let found = call(
        &tools,
        "files.search",
        json!({"text": "two", "path": "sub"}),
    )
    .await
    .unwrap();
    assert_eq!(found["matches"][0]["path"], "sub/b.md");
    fails(
        call(&tools, "files.read", json!({"path": "sub/image"})).await,
        "tool.failed",
        "is not text",
    );
    fails(
        call(&tools, "files.read", json!({"path": "sub"})).await,
        "tool.failed",
        "is not a file",
    );
    fails(
        call(&tools, "files.read", json!({"path": "none"})).await,
        "tool.failed",
        "is not there",
    );
    fails(
        call(&tools, "files.list", json!({"path": "a.txt"})).await,
        "tool.failed",
        "no folder",
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let outside = Folder::new();
    outside.file("secret.txt", "the secret");
    let folder = Folder::new();
    folder.file("in/a.txt", "fine");
    symlink(
        outside.path().join("secret.txt"),
        folder.path().join("link.txt"),
    )
    .unwrap();
    symlink(outside.path(), folder.path().join("away")).unwrap();
    symlink(folder.path(), folder.path().join("in/round")).unwrap();
    let tools = folder.tools();
    let absolute = outside.path().join("secret.txt").display().to_string();
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    let ways = [
        "..",
        "../",
        "in/../../x",
        "/etc/passwd",
        "link.txt",
        "away/secret.txt",
        "in/round/in/a.txt",
        &absolute,
        &format!("../{name}/secret.txt"),
        "in/..",
        ".",
        "",
        "a\0b",
    ];
    for way in ways {
        let failure = fails(
            call(&tools, "files.read", json!({"path": way})).await,
            "tool.failed",
            "",
        );
        assert!(!failure.message.contains("the secret"));
    }
    for way in ["..", "/", "/etc", "away", "in/round", "in/../.."] {
        let listed = call(&tools, "files.list", json!({"path": way})).await;
        // A slash alone is the folder itself.
        assert!(listed.is_err() || way == "/", "{way}: {listed:?}");
        let found = call(
            &tools,
            "files.search",
            json!({"path": way, "text": "secret"}),
        )
        .await;
        let found = found.map_or(json!([]), |found| found["matches"].clone());
        assert_eq!(found, json!([]), "{way}");
    }
    let list = call(&tools, "files.list", json!({})).await.unwrap();
    let kinds: Vec<&Value> = list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["kind"])
        .collect();
    assert_eq!(kinds, ["link", "folder", "link"]);
}

#[tokio::test]
async fn files_and_answers_are_bounded_and_a_pipe_does_not_hang() {
    let folder = Folder::new();
    folder.file("fits", vec![b'x'; FILE_BYTES_MAX]);
    folder.file("beyond", vec![b'x'; FILE_BYTES_MAX + 1]);
    folder.file("lines", "0123456789abcde\n".repeat(TEXT_BYTES_MAX / 16 + 5));
    for n in 0..=ENTRIES_MAX {
        folder.file(&format!("many/{n:04}"), "word");
    }
    let status = std::process::Command::new("mkfifo")
        .arg(folder.path().join("pipe"))
        .status();
    assert!(status.unwrap().success());
    let tools = folder.tools();
    let fits = call(&tools, "files.read", json!({"path": "fits"}))
        .await
        .unwrap();
    assert_eq!(fits["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    fails(
        call(&tools, "files.read", json!({"path": "beyond"})).await,
        "tool.failed",
        "more than",
    );
    let first = call(&tools, "files.read", json!({"path": "lines"}))
        .await
        .unwrap();
    assert_eq!(first["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    assert_eq!(first["more"], TEXT_BYTES_MAX / 16 + 1);
    let rest = json!({"path": "lines", "line": first["more"]});
    let rest = call(&tools, "files.read", rest).await.unwrap();
    assert_eq!(
        (rest["text"].as_str().unwrap().len(), &rest["more"]),
        (5 * 16, &Value::Null)
    );
    fails(
        call(&tools, "files.read", json!({"path": "pipe"})).await,
        "tool.failed",
        "is not a file",
    );
    let list = call(&tools, "files.list", json!({"path": "many"}))
        .await
        .unwrap();
    assert_eq!(
        (list["entries"].as_array().unwrap().len(), &list["more"]),
        (ENTRIES_MAX, &json!(true))
    );
    let found = call(
        &tools,
        "files.search",
        json!({"text": "word", "path": "many"}),
    )
    .await
    .unwrap();
    assert_eq!(
        (found["matches"].as_array().unwrap().len(), &found["more"]),
        (MATCHES_MAX, &json!(true))
    );
    // The folder may go away while it works.
    let path = folder.path().to_owned();
    drop(folder);
    assert!(!path.exists());
    fails(
        call(&tools, "files.list", json!({})).await,
        "tool.unavailable",
        "cannot be read",
    );
}

// ---- http.fetch ----

/// A server that answers each connection with this.
async fn server(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = peer.read(&mut request).await;
            let _ = peer.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/page")
}

#[tokio::test]
async fn pages_are_fetched_and_private_addresses_are_not() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 38\r\nconnection: close\r\n\r\n<title>Hi</title><p>Some words here</p>";
    let url = server(page).await;
    let operator = Toolbox::new([Arc::new(Fetch::allowing_private()) as Arc<dyn Tool>]).unwrap();
    let fetched = call(&operator, "http.fetch", json!({"url": url}))
        .await
        .unwrap();
    assert_eq!(
        (&fetched["status"], &fetched["title"]),
        (&json!(200), &json!("Hi"))
    );
    assert!(
        fetched["text"].as_str().unwrap().contains("Some words"),
        "{fetched}"
    );
    assert!(operator.card("http.fetch").unwrap().untrusted_output);
    let public = Toolbox::new([Arc::new(Fetch::public()) as Arc<dyn Tool>]).unwrap();
    for private in [
        url.as_str(),
        "http://localhost:1/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
    ] {
        let failure = fails(
            call(&public, "http.fetch", json!({"url": private})).await,
            "tool.failed",
            "http.private_address",
        );
        assert!(!failure.retryable);
    }
    fails(
        call(&public, "http.fetch", json!({"url": "file:///etc/passwd"})).await,
        "tool.failed",
        "http.bad_url",
    );
    // A model cannot allow itself more.
    let asked = json!({"url": url, "allow_private": true});
    fails(
        call(&public, "http.fetch", asked).await,
        "tool.arguments",
        "allow_private",
    );
}

// ---- programs ----

/// A crew with one program as a tool, `t`, and what else its description says.
fn program(folder: &Folder, script: &str, more: &str) -> Toolbox {
    folder.program("t.sh", script);
    let text = format!(
        "version: 1\nname: a\nmodels: {{m: ollama/x}}\nagents: {{a: {{description: d, instructions: i, tools: [t]}}}}\ntools:\n  t:\n    command: ./t.sh\n    description: d\n    input: {{type: object}}\n{more}"
    );
    folder.file("crew.yaml", text);
    let crew = Crew::load(&folder.path().join("crew.yaml")).unwrap();
    Toolbox::of_crew(&crew, []).unwrap()
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_runs_in_the_crews_folder_in_bare_surroundings() {
    let folder = Folder::new();
    folder.file("beside.txt", "here");
    let script = r#"printf '{"in": %s, "beside": "%s", "plain": "%s", "key": "%s", "names": "%s"}' "$(cat)" "$(cat beside.txt)" "$PLAIN" "$CHARGEHAND_IDEMPOTENCY_KEY" "$(env | cut -d= -f1 | sort | tr '\n' ' ')""#;
    let tools = program(&folder, script, "    env: {PLAIN: text}\n");
    let given = json!({"order": "7 \"x\"", "n": [1, 2]});
    let said = call(&tools, "t", given.clone()).await.unwrap();
    assert_eq!(said["in"], given);
    assert_eq!(
        (&said["beside"], &said["plain"], &said["key"]),
        (&json!("here"), &json!("text"), &json!("key-1"))
    );
    // Cargo sets dozens of variables for a test; none of them arrives.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let allowed = [
        "PATH",
        "HOME",
        "LANG",
        "PLAIN",
        "CHARGEHAND_IDEMPOTENCY_KEY",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    for name in said["names"].as_str().unwrap().split_whitespace() {
        assert!(allowed.contains(&name), "{name}");
    }
    let card = tools.card("t").unwrap();
    assert_eq!(
        (card.effect, card.category.as_str()),
        (EffectClass::AtMostOnce, "command")
    );
}

#[tokio::test]
async fn a_tool_whose_secret_is_not_set_is_not_called() {
    let folder = Folder::new();
    let secret = "    env: {KEY: secret://CHARGEHAND_TEST_THAT_NOBODY_SETS}\n";
    let tools = program(&folder, "touch called; echo 1", secret);
    let failure = fails(
        call(&tools, "t", json!({})).await,
        "tool.unavailable",
        "CHARGEHAND_SECRET_CHARGEHAND_TEST_THAT_NOBODY_SETS is not set",
    );
    assert!(failure.retryable && !folder.path().join("called").exists());
}

/// The environment of a process can be set safely only when it starts: so this test starts itself again.
#[tokio::test]
async fn a_secret_reaches_the_program_and_is_taken_out_of_all_that_it_says() {
    const VARIABLE: &str = "CHARGEHAND_SECRET_OF_THIS_TEST";
    const SECRET: &str = "correct horse battery";
    let name = "tool::a_secret_reaches_the_program_and_is_taken_out_of_all_that_it_says";
    if std::env::var_os(VARIABLE).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VARIABLE, SECRET)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{again:?}"
        );
        return;
    }
    let env = "    env: {KEY: secret://OF_THIS_TEST}\n";
    let script = r#"printf '{"length": %s, "said": "the key is %s"}' "${#KEY}" "$KEY""#;
    let folder = Folder::new();
    let said = call(&program(&folder, script, env), "t", json!({}))
        .await
        .unwrap();
    assert_eq!(said["length"], SECRET.len(), "the program has it");
    assert_eq!(said["said"], "the key is secret://OF_THIS_TEST");
    let folder = Folder::new();
    let tools = program(&folder, "echo \"refused: $KEY\" >&2; exit 1", env);
    fails(
        call(&tools, "t", json!({})).await,
        "tool.failed",
        "refused: secret://OF_THIS_TEST",
    );
    // Not even a part of it is left where what a program says is cut, or where quoting changes it.
    for said in [
        "printf '%s%393d' \"$KEY\" 0 >&2; exit 1",
        "printf '%395d%s' 0 \"$KEY\"",
    ] {
        let folder = Folder::new();
        let failure = call(&program(&folder, said, env), "t", json!({})).await;
        let told = failure.unwrap_err().message;
        let part = [&SECRET[..5], &SECRET[SECRET.len() - 5..]];
        assert!(!part.iter().any(|part| told.contains(part)), "{told}");
    }
    // Another tool does not get it.
    let folder = Folder::new();
    let tools = program(
        &folder,
        &format!("echo \"\\\"${{{VARIABLE}:-none}}\\\"\""),
        "",
    );
    assert_eq!(call(&tools, "t", json!({})).await, Ok(json!("none")));
}

// S0-78: a tool's own time limit is kept.
#[tokio::test]
async fn a_program_that_hangs_or_forks_is_killed_with_its_children() {
    let folder = Folder::new();
    let script = "sh -c 'echo $$ > child; exec sleep 300' & echo $$ > parent; wait";
    let tools = program(&folder, script, "    timeout: 3s\n");
    let failure = fails(
        call(&tools, "t", json!({})).await,
        "tool.timed_out",
        "3000 ms",
    );
    assert!(!failure.retryable && tools.card("t").unwrap().leaves_in_doubt(&failure));
    for file in ["parent", "child"] {
        let id = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(is_gone(id.trim()).await, "{file}");
    }
}

#[tokio::test]
async fn a_program_is_killed_when_nobody_waits_for_it_any_more() {
    let folder = Folder::new();
    let tools = program(
        &folder,
        "echo $$ > started; exec sleep 300",
        "    timeout: 5m\n",
    );
    let started = folder.path().join("started");
    let calling = call(&tools, "t", json!({}));
    let until_started = async {
        while std::fs::read_to_string(&started)
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = calling => panic!("{ended:?}"),
        () = until_started => {}
    }
    let id = std::fs::read_to_string(&started).unwrap();
    assert!(is_gone(id.trim()).await);
}

// S0-79: whether it can be called is looked at for each call: gone, and there again. S0-81: each way of
// failing is a result of its own.
#[tokio::test]
async fn a_program_that_floods_or_talks_prose_or_fails_is_told_from_one_that_is_gone() {
    let cases = [
        ("yes", "tool.output", "and was killed"),
        ("echo hello", "tool.output", "not one JSON value"),
        ("true", "tool.output", "printed nothing"),
        (
            "echo no such order >&2; exit 3",
            "tool.failed",
            "no such order",
        ),
        ("kill -9 $$", "tool.broken", "signal 9"),
        ("echo '[1]'", "tool.output", "not what it promises"),
    ];
    for (script, code, said) in cases {
        let folder = Folder::new();
        let tools = program(
            &folder,
            script,
            "    output: {type: object}\n    timeout: 60s\n",
        );
        let failure = fails(call(&tools, "t", json!({})).await, code, said);
        let in_doubt = code != "tool.failed";
        assert_eq!(
            tools.card("t").unwrap().leaves_in_doubt(&failure),
            in_doubt,
            "{script}"
        );
    }
    let folder = Folder::new();
    let tools = program(&folder, "echo 1", "");
    assert_eq!(call(&tools, "t", json!({})).await, Ok(json!(1)));
    std::fs::remove_file(folder.path().join("t.sh")).unwrap();
    fails(
        call(&tools, "t", json!({})).await,
        "tool.unavailable",
        "no program",
    );
    // And it is there again.
    folder.program("t.sh", "echo 2");
    assert_eq!(call(&tools, "t", json!({})).await, Ok(json!(2)));
}

/// Is the process of this id gone, soon? A zombie is.
async fn is_gone(id: &str) -> bool {
    assert!(!id.is_empty());
    for _ in 0..500 {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with(['Z', 'X']));
        if state.unwrap_or(true) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}
