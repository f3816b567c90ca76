//! What all tools have in common, wherever they come from: one contract, one time limit, one way of
//! being tried again; and what is told of them, to agents and to the planner, is what they say themselves.

use crate::mind::{PATIENCE, World, brief, calls, mind, model, says};
use crate::planning::{begin, ended, leads, minds, start, works};
use agent::crew::Crew;
use agent::hands::{Granted, Hands};
use agent::model::{ToolSpec, Turn};
use agent::planning::Member;
use agent::tool::{Tool, ToolCard, Toolbox};
use async_trait::async_trait;
use chargehand::{Api, ApiRead, Context, EffectClass, Failure, Submission, TaskSpec, Worker};
use domain::run::RunStatus;
use domain::task::TaskStatus;
use engine::{Engine, Place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// A crew's folder with a program that says who it is and then sleeps for five minutes, and a crew file
/// with these tools and grants.
fn crew(folder: &Path, grants: &str, rest: &str) -> Crew {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("sleeps.sh");
    std::fs::write(&program, "#!/bin/sh\necho $$ > started\nexec sleep 300\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "version: 1\nname: desk\nmodels: {{m: anthropic/claude-haiku-4-5}}\nagents:\n  clerk: {{description: Works., instructions: Work., tools: [{grants}]}}\n{rest}"
    );
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    Crew::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn granted(crew: &Crew) -> Granted {
    Granted {
        toolbox: Arc::new(Toolbox::of_crew(crew, []).unwrap()),
        tools: crew.agents["clerk"].tools.clone(),
        approve: BTreeSet::new(),
    }
}

/// Hands that look at the clock, which is the runtime's, not the machine's.
#[derive(Debug)]
struct Timed {
    hands: Granted,
    took: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl Hands for Timed {
    async fn specs(&self) -> Vec<ToolSpec> {
        self.hands.specs().await
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        self.hands.known(tool)
    }
    async fn call(
        &self,
        task: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        let begun = Instant::now();
        let called = self.hands.call(task, tool, arguments, key).await;
        self.took.lock().unwrap().push(begun.elapsed());
        called
    }
}

// S0-85: a program that sleeps for 300 s is left after the 30 s that a tool has when nothing is said, is
// gone then, and its worker, which has room for one task, ends that task and does the next.
#[tokio::test(start_paused = true)]
async fn a_tool_that_sleeps_for_five_minutes_gives_its_worker_back_after_thirty_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let tool = "tools:\n  late: {command: ./sleeps.sh, description: Sleeps., input: {type: object}, effect: pure}\n";
    let took = Arc::default();
    let hands = Timed {
        hands: granted(&crew(folder.path(), "late", tool)),
        took: Arc::clone(&took),
    };
    let world = World::default();
    let told = model(&world, |ask| {
        Ok(match ask.turns.last() {
            Some(Turn::Tools { results }) => says(&results[0].text),
            Some(turn) if json!(turn).to_string().contains("Wait") => calls(&[("late", json!({}))]),
            _ => says("There was room."),
        })
    });
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker
        .handle("think", mind(&[&told], Arc::new(hands)))
        .unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let mut tasks = Vec::new();
    for objective in ["Wait for it.", "Is there room?"] {
        let spec = TaskSpec::new("think".parse().unwrap(), json!(brief(objective)).into());
        let made = engine.task_submit(vec![Submission::new(spec)]).await;
        tasks.push(made.unwrap().remove(0).unwrap());
    }
    let mut results = Vec::new();
    for task in tasks {
        // The runtime's clock runs ahead whenever nothing happens in it, so patience is the machine's.
        let since = std::time::Instant::now();
        let ended = loop {
            let view = engine.task_get(task).await.unwrap();
            if view.status.is_terminal() {
                break view;
            }
            assert!(since.elapsed() < PATIENCE, "{view:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(ended.status, TaskStatus::Completed, "{:?}", ended.failure);
        results.push(ended.output.unwrap().value()["result"].to_string());
    }
    assert!(
        results[0].contains("Tool execution timed out: “late” took longer than 30000 ms"),
        "{results:?}"
    );
    assert_eq!(results[1], "\"There was room.\"");
    let took = took.lock().unwrap().clone();
    assert_eq!(took.len(), 1, "{took:?}");
    let within = Duration::from_secs(30)..=Duration::from_secs(31);
    assert!(within.contains(&took[0]), "{took:?}");
    worker.stop().await.unwrap();
    // Whatever had begun is gone.
    let started = std::fs::read_to_string(folder.path().join("started")).unwrap_or_default();
    if !started.trim().is_empty() {
        let since = std::time::Instant::now();
        let process = format!("/proc/{}/stat", started.trim());
        let runs = || {
            let stat = std::fs::read_to_string(&process).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned());
            state.is_some_and(|state| !state.starts_with(['Z', 'X']))
        };
        while runs() {
            assert!(since.elapsed() < PATIENCE, "it sleeps on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sleeps for as long as it is told to, so many times; then it answers. It keeps the keys of its calls.
struct Slow {
    card: ToolCard,
    sleeps: usize,
    retries: u32,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Slow {
    fn new(effect: EffectClass, timeout: Duration, sleeps: usize, retries: u32) -> Self {
        Self {
            card: ToolCard {
                name: "slow".parse().unwrap(),
                description: "Answers, in the end.".into(),
                input: json!({"type": "object"}),
                output: None,
                effect,
                timeout,
                category: "CUSTOM".into(),
                sensitive: Vec::new(),
                untrusted_output: false,
            },
            sleeps,
            retries,
            keys: Arc::default(),
        }
    }
}

#[async_trait]
impl Tool for Slow {
    fn card(&self) -> &ToolCard {
        &self.card
    }
    fn retries(&self) -> u32 {
        self.retries
    }
    async fn available(&self) -> Result<(), String> {
        Ok(())
    }
    async fn call(&self, _: &Value, key: &str) -> Result<Value, Failure> {
        let made = {
            let mut keys = self.keys.lock().unwrap();
            keys.push(key.to_owned());
            keys.len()
        };
        if made <= self.sleeps {
            tokio::time::sleep(Duration::from_secs(300)).await;
        }
        Ok(json!(made))
    }
}

// S0-83: each try has the tool's whole time, 30, 15 or 10 s; a tool that is to be tried again is, under one
// key, and not more often than it says; one that is not, and one whose call may have had an effect, is not.
#[tokio::test(start_paused = true)]
async fn every_try_has_the_tools_own_time_and_there_are_as_many_as_it_says() {
    let pauses = [0, 250, 750];
    for (effect, seconds, retries, sleeps, tries) in [
        (EffectClass::Keyed, 30, 2, 1, 2),
        (EffectClass::Keyed, 30, 2, 2, 3),
        (EffectClass::Pure, 10, 2, 9, 3),
        (EffectClass::Pure, 15, 0, 9, 1),
        (EffectClass::AtMostOnce, 15, 2, 9, 1),
    ] {
        let limit = Duration::from_secs(seconds);
        let slow = Slow::new(effect, limit, sleeps, retries);
        let keys = Arc::clone(&slow.keys);
        let tools = Toolbox::new([Arc::new(slow) as Arc<dyn Tool>]).unwrap();
        let begun = Instant::now();
        let granted = BTreeSet::from(["slow".to_owned()]);
        let called = tools.call(&granted, "slow", &json!({}), "key-7").await;
        let took = begun.elapsed();
        let case = format!("{effect:?} {seconds} s, {retries} retries: {called:?} after {took:?}");
        assert_eq!(*keys.lock().unwrap(), vec!["key-7"; tries], "{case}");
        let late = match called {
            Ok(answer) => {
                assert_eq!(answer, json!(sleeps + 1), "{case}");
                sleeps
            }
            Err(failure) => {
                assert_eq!(failure.code, "tool.timed_out", "{case}");
                tries
            }
        };
        let least = limit * late as u32 + Duration::from_millis(pauses[tries - 1]);
        let most = least + Duration::from_secs(1);
        assert!((least..=most).contains(&took), "{case}");
    }
}

const EVERY_SOURCE: &str = "tools:
  files: {root: .}
  shop.lookup:
    command: ./sleeps.sh
    description: Looks an order up by its number.
    input: {type: object, properties: {order: {type: integer}}, required: [order]}
    category: CUSTOM
apis:
  orders: {openapi: orders.json, base_url: \"http://127.0.0.1:9\"}
mcp:
  notes: {command: no-such-program, effect: pure, tools: {find: {name: search_nodes}}}
";

fn every_source(folder: &Path) -> Crew {
    let document = json!({
        "openapi": "3.1.0", "info": {"title": "Orders", "version": "1"},
        "paths": {"/orders/{id}": {"get": {
            "operationId": "getOrder", "summary": "One order.",
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}],
            "responses": {"200": {"description": "It."}},
        }}},
    });
    std::fs::write(folder.join("orders.json"), document.to_string()).unwrap();
    let grants = "files.read, shell, shop.lookup, orders.get_order, notes.find, board.write";
    crew(folder, grants, EVERY_SOURCE)
}

// S0-74: tools that are built in, programs, operations of an API, tools of an MCP server and a tool of one's
// own are one kind of thing: the same card, the same question whether they are there, the same call.
#[tokio::test]
async fn tools_of_every_source_have_one_contract() {
    let folder = tempfile::tempdir().unwrap();
    let crew = every_source(folder.path());
    let own = Slow::new(EffectClass::Pure, Duration::from_secs(5), 0, 0);
    let tools = Toolbox::of_crew(&crew, [Arc::new(own) as Arc<dyn Tool>]).unwrap();
    let names = [
        "files.read",
        "shell",
        "shop.lookup",
        "orders.get_order",
        "notes.find",
        "slow",
    ];
    let mut categories = BTreeSet::new();
    for name in names {
        let card = tools.card(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(card.name.as_str(), name);
        assert!(!card.description.is_empty(), "{name} says what it is");
        assert_eq!(card.input["type"], "object", "{name} says what it takes");
        assert!(!card.timeout.is_zero(), "{name} has a time limit");
        assert!(!card.category.is_empty(), "{name} has a category");
        categories.insert(card.category.clone());
        // What it cannot take is refused before it is called, in one way.
        let only = BTreeSet::from([name.to_owned()]);
        let refused = tools.call(&only, name, &json!(7), "k").await.unwrap_err();
        assert_eq!(refused.code, "tool.arguments", "{name}: {refused:?}");
        let refused = tools.call(&BTreeSet::new(), name, &json!({}), "k").await;
        assert_eq!(refused.unwrap_err().code, "tool.not_granted", "{name}");
    }
    assert!(categories.len() >= 4, "{categories:?}");
    // Each is asked in one way whether it is there.
    assert_eq!(tools.available("shop.lookup").await, Ok(()));
    std::fs::remove_file(folder.path().join("sleeps.sh")).unwrap();
    let gone = tools.available("shop.lookup").await.unwrap_err();
    assert_eq!(gone.code, "tool.unavailable", "{gone:?}");
    // To an agent there is one list, with the blackboard's in it.
    let hands = granted(&crew);
    let told = hands.specs().await;
    for name in [
        "files_read",
        "shop_lookup",
        "orders_get_order",
        "board_write",
    ] {
        let spec = told.iter().find(|spec| spec.name == name);
        let spec = spec.unwrap_or_else(|| panic!("{name}: {told:?}"));
        assert!(!spec.description.is_empty() && spec.input["type"] == "object");
        assert!(hands.known(name).is_some());
    }
}

// S2-60: four tools, with what each takes: an agent is told what the registry says of them, and something
// else as soon as the registry says something else.
#[tokio::test]
async fn what_an_agent_is_told_of_its_tools_is_what_the_tools_say() {
    let folder = tempfile::tempdir().unwrap();
    let tool = |name: &str, about: &str, takes: &str| {
        format!(
            "  {name}: {{command: cat, description: {about}, input: {{type: object, properties: {{{takes}}}}}}}\n"
        )
    };
    for about in ["Spawns a worker.", "Makes a worker of it."] {
        let tools = [
            "tools:\n".to_owned(),
            tool(
                "spawn",
                about,
                "name: {type: string}, prompt: {type: string}",
            ),
            tool("schedule", "Says when.", "cron: {type: string}"),
            tool("list", "Lists them.", ""),
            tool("cancel", "Ends one.", "flow: {type: string}"),
        ];
        let crew = crew(
            folder.path(),
            "spawn, schedule, list, cancel",
            &tools.concat(),
        );
        let hands = granted(&crew);
        let registry = Arc::clone(&hands.toolbox);
        let world = World::default();
        let told = model(&world, |_| Ok(says("I see.")));
        let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
        let worker = Worker::new("worker_1").unwrap();
        let worker = worker.handle("think", mind(&[&told], Arc::new(hands)));
        let worker = worker.unwrap().start(engine.clone()).await.unwrap();
        let spec = TaskSpec::new("think".parse().unwrap(), json!(brief("Look.")).into());
        let task = engine.task_submit(vec![Submission::new(spec)]).await;
        let task = task.unwrap().remove(0).unwrap();
        engine.task_wait(task, PATIENCE).await.unwrap();
        let asked = told.asked.lock().unwrap()[0].tools.clone();
        assert_eq!(asked.len(), 4);
        for spec in asked {
            let card = registry.card(&spec.name).unwrap();
            assert_eq!(
                (&spec.description, &spec.input),
                (&card.description, &card.input)
            );
        }
        assert_eq!(registry.card("spawn").unwrap().description, about);
        worker.stop().await.unwrap();
    }
}

// S0-76: the planner reads what each tool does in the tool's own words.
#[tokio::test]
async fn a_planner_is_told_what_the_tools_of_its_agents_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut crew = every_source(folder.path());
    let clerk = crew.agents.get_mut("clerk").unwrap();
    clerk.tools.remove("notes.find");
    let hands = Arc::new(granted(&crew));
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let mut minds = (*minds(&planner, &cashier)).clone();
    let clerk = Member {
        output: None,
        description: "Looks things up.".into(),
        mind: mind(&[&cashier], hands.clone()),
        tools: hands.tools.clone(),
    };
    minds.members.insert("aclerk".into(), clerk);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(minds)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    assert_ne!(view.status, RunStatus::Running, "{view:?}");
    let first = crate::planning::ends(&planner.asked.lock().unwrap()[0]).0;
    for words in [
        "Takes money.",
        "Looks an order up by its number.",
        "One order.",
        "the board of this run",
    ] {
        assert!(first.contains(words), "{words}: {first}");
    }
    let read = &hands.toolbox.card("files.read").unwrap().description;
    let read: String = read.chars().take(60).collect();
    assert!(first.contains(&read), "{read}: {first}");
    worker.stop().await.unwrap();
}
