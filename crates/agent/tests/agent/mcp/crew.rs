//! A crew of a file whose agents use the tools of MCP servers, from the goal to the answer.

use super::peers::npm;
use super::{PATIENCE, TORN, begun_with, shows_some};
use crate::planning::{answered, ended, tasks};
use agent::crew::Crew;
use agent::muster::muster;
use agent::planning::{Goal, graph, serve};
use chargehand::{Api, ApiRead, Running, Worker};
use domain::command::RunStart;
use domain::id::RunId;
use domain::json::Json;
use domain::record::Finding;
use domain::run::RunStatus;
use domain::task::Waits;
use engine::{Engine, Place};
use protocol::v1::{RunView, TaskView};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn load(folder: &Path, mcp: &str, rules: &serde_json::Value) -> Crew {
    std::fs::write(folder.join("rules.json"), rules.to_string()).unwrap();
    let text = format!(
        "version: 1\nname: desk\nmodels: {{m: scripted/rules.json}}\nsupervisor: {{instructions: You lead.}}\nagents:\n  clerk: {{description: Adds up., instructions: You are the clerk., tools: [shop.sum]}}\nmcp:\n  shop: {mcp}\n"
    );
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    Crew::load(&file).unwrap()
}

/// Runs a goal with one input to its end.
async fn run(crew: &Crew) -> (RunView, Vec<TaskView>) {
    run_on(&Arc::new(Engine::open(&Place::Memory).unwrap()), crew).await
}

/// The same, on this engine.
async fn run_on(engine: &Arc<Engine>, crew: &Crew) -> (RunView, Vec<TaskView>) {
    let worker = start(engine, crew).await;
    let run = begin(engine).await;
    let view = tokio::time::timeout(PATIENCE, ended(engine, run))
        .await
        .unwrap();
    let tasks = tasks(engine, run).await;
    worker.stop().await.unwrap();
    (view, tasks)
}

async fn begin(engine: &Engine) -> RunId {
    let goal = Goal {
        goal: "What do the two orders cost?".into(),
        inputs: vec![json!({"orders": [19, 23]})],
        ..Goal::default()
    };
    let started = RunStart {
        goal: goal.goal.clone(),
        supervisor: "supervisor_1".parse().unwrap(),
        graph: graph(&goal).unwrap(),
        crew: domain::run::Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: None,
    };
    engine.run_start(started).await.unwrap()
}

async fn start(engine: &Arc<Engine>, crew: &Crew) -> Running {
    let minds = Arc::new(muster(crew).unwrap());
    let worker = Worker::new("worker_1").unwrap().capacity(4);
    let worker = serve(worker, &minds).unwrap();
    worker.start(engine.clone()).await.unwrap()
}

fn rules() -> serde_json::Value {
    let plan = json!({"briefs": [{
        "agent": "clerk", "objective": "Add the two orders up", "inputs": [1],
        "acceptance": ["it says the sum"], "evidence": ["shop.sum"],
    }]});
    json!({"rules": [
        {"when": {"system_contains": "You lead", "last_contains": "Plan how this crew"},
         "answer": {"text": plan.to_string()}},
        {"when": {"system_contains": "clerk", "turn": 1},
         "answer": {"calls": [{"tool": "shop_sum", "arguments": {"a": 19, "b": 23}}]}},
        {"when": {"system_contains": "clerk", "tool_result_contains": "42"},
         "answer": {"text": "The two orders cost 42."}},
        {"when": {"system_contains": "You lead", "last_contains": "Judge whether"},
         "answer": {"text": json!({"accepted": true, "reason": "it does"}).to_string()}},
        {"when": {"system_contains": "You lead", "last_contains": "Answer the goal"},
         "answer": {"text": "They cost 42 [1]."}},
    ]})
}

// S0-11: without the tool's result, its task would have no answer.
#[tokio::test]
async fn an_agent_of_a_crew_file_rests_its_result_on_a_tool_of_a_public_server() {
    let folder = tempfile::tempdir().unwrap();
    let program = npm("mcp-server-everything");
    let mcp = format!("{{command: '{program}', tools: {{sum: {{name: get-sum, effect: pure}}}}}}");
    let (view, tasks) = run(&load(folder.path(), &mcp, &rules())).await;
    assert_eq!(view.status, RunStatus::Completed, "{tasks:?}");
    let answered = answered(&view);
    assert_eq!(answered.text, "They cost 42 [1].");
    // The receipt of the call is with the task that made it.
    let told = json!(tasks).to_string();
    assert!(
        told.contains("\"tool\":\"shop.sum\"") && told.contains("\"succeeded\":true"),
        "{told}"
    );
}

#[tokio::test]
async fn a_call_whose_server_dies_waits_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let program = super::script("hostile.py");
    let mcp = format!(
        "{{command: 'python3 {} dies', tools: {{sum: {{name: act}}}}}}",
        program.display()
    );
    let crew = load(folder.path(), &mcp, &rules());
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &crew).await;
    let run = begin(&engine).await;
    let (task, step, why) = loop {
        let asked = |task: TaskView| match task.waits_for {
            Some(Waits::AwaitingHuman { step, why }) => Some((task.task_id, step, why)),
            _ => None,
        };
        match tasks(&engine, run).await.into_iter().find_map(asked) {
            Some(asked) => break asked,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(
        why.starts_with("waits for a person's word on call_1_"),
        "{why}"
    );
    let how = format!("chargehand tasks resolve {task} {step}");
    assert!(why.contains(&how), "{why}");
    let status = engine.run_get(run).await.unwrap().status;
    assert_eq!(status, RunStatus::Running);
    // Somebody has looked: it did happen, and the run goes on with what it gave.
    let output = Json::from_value(&json!(42));
    let finding = Finding::Done { output };
    engine.record_resolve(task, step, finding).await.unwrap();
    let view = tokio::time::timeout(PATIENCE, ended(&engine, run)).await;
    assert_eq!(view.unwrap().status, RunStatus::Completed);
    worker.stop().await.unwrap();
    // It was made once, however often the task was tried.
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(log.matches("called act").count(), 1, "{log}");
}

#[tokio::test]
async fn no_part_of_a_secret_that_a_server_tears_is_in_a_task_or_an_event() {
    let name = "mcp::crew::no_part_of_a_secret_that_a_server_tears_is_in_a_task_or_an_event";
    if !begun_with("CHARGEHAND_SECRET_OF_THE_PRINTER", TORN, name) {
        return;
    }
    for (mode, effect, status) in [
        ("tears-said", "pure", RunStatus::Completed),
        ("tears-quoted", "pure", RunStatus::Completed),
        ("tears-refusal", "pure", RunStatus::Completed),
        ("tears-failure", "pure", RunStatus::Completed),
        ("tears-link", "pure", RunStatus::Completed),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let program = super::script("hostile.py");
        let env = "env: {SHOP_KEY: secret://OF_THE_PRINTER}";
        let mcp = format!(
            "{{command: 'python3 {} {mode}', {env}, tools: {{sum: {{name: act, effect: {effect}}}}}}}",
            program.display()
        );
        let mut rules = rules();
        // Whatever comes of the call, it says so, and that is good enough.
        rules["rules"][2] =
            json!({"when": {"system_contains": "clerk"}, "answer": {"text": "So it is."}});
        rules["rules"][0]["answer"]["text"] = json!(
            json!({"briefs": [{
                "agent": "clerk", "objective": "Add the two orders up", "inputs": [1],
                "acceptance": [], "evidence": [],
            }]})
            .to_string()
        );
        rules["rules"][4]["answer"]["text"] = json!("So it is [1].");
        let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
        let (view, tasks) = run_on(&engine, &load(folder.path(), &mcp, &rules)).await;
        assert_eq!(view.status, status, "{mode}: {tasks:?}");
        let events = engine.event_list(0, 10_000).await.unwrap();
        let kept = json!({"run": view, "tasks": tasks, "events": events}).to_string();
        // The server was called, and what it said was kept.
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.contains("called act"), "{log}");
        assert!(
            kept.contains("nnnn") || kept.contains("secret://OF_THE_PRINTER"),
            "{mode}: {kept}"
        );
        assert!(!shows_some(&kept), "{mode}: {kept}");
    }
}
