//! Tools that come while a crew works.

use super::Bench;
use super::peers::npm;
use crate::mind::{World, calls, mind, model, says};
use crate::planning::{answered, begin, ended, ends, start, tasks};
use agent::hands::{Granted, NoHands};
use agent::model::{Answer, Ask, ModelError, Turn};
use agent::planning::{Member, Minds};
use agent::tool::Toolbox;
use engine::{Engine, Place};
use serde_json::json;
use std::sync::Arc;

const SUM: &str = "everything.get-sum";

/// Has what it is told can be called rested on, and claims nothing else.
fn leads(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, last) = ends(ask);
    Ok(if first.contains("Plan how this crew") {
        let evidence = match first.contains("cannot be called now") {
            true => json!([]),
            false => json!([SUM]),
        };
        let brief = json!({
            "agent": "adder", "objective": "Add 2 and 3", "inputs": [], "acceptance": [], "evidence": evidence,
        });
        says(&json!({"briefs": [brief]}).to_string())
    } else if last.contains("it cites no result") {
        says("It is done [1].")
    } else {
        says("It is done.")
    })
}

/// Adds with whatever it has.
fn adds(ask: &Ask) -> Result<Answer, ModelError> {
    let tool = ask.tools.iter().find(|tool| tool.name.ends_with("get-sum"));
    Ok(match (ask.turns.last(), tool) {
        (Some(Turn::Tools { results }), _) => says(&results[0].text),
        (_, Some(tool)) => calls(&[(&tool.name, json!({"a": 2, "b": 3}))]),
        (_, None) => says("There is nothing to add with."),
    })
}

// S0-42, S0-82, S4-23: a public server is added while planner and agent are at work already. The plan
// before does without it; the next one is told what it does, and rests on it.
#[tokio::test]
async fn a_server_that_is_added_at_run_time_is_used_by_the_next_plan() {
    let mcp = format!(
        "{{everything: {{command: '{}'}}}}",
        npm("mcp-server-everything")
    );
    let bench = Bench::new(&mcp, &[SUM]);
    let toolbox = Arc::new(Toolbox::new([]).unwrap());
    let world = World::default();
    let (planner, adder) = (model(&world, leads), model(&world, adds));
    let hands = Granted {
        toolbox: Arc::clone(&toolbox),
        tools: [SUM.to_owned()].into(),
        approve: Default::default(),
    };
    let member = Member {
        description: "Adds.".into(),
        output: None,
        mind: mind(&[&adder], Arc::new(hands)),
        tools: [SUM.to_owned()].into(),
    };
    let minds = Arc::new(Minds {
        planner: mind(&[&planner], Arc::new(NoHands)),
        members: [("adder".to_owned(), member)].into(),
        fan_out: 5,
        replans: 0,
        depth: 1,
        spawn: None,
    });
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds).await;

    let before = begin(&engine).await;
    answered(&ended(&engine, before).await);
    let outputs = format!("{:?}", tasks(&engine, before).await);
    assert!(outputs.contains("nothing to add with"), "{outputs}");

    for tool in bench.server("everything", &["get-sum"]).tools() {
        toolbox.register(Arc::new(tool)).unwrap();
    }
    let asked = planner.asked.lock().unwrap().len();
    let after = begin(&engine).await;
    answered(&ended(&engine, after).await);
    let told = ends(&planner.asked.lock().unwrap()[asked]).0;
    assert!(told.contains("[MCP server “everything”]"), "{told}");
    assert!(!told.contains("cannot be called now"), "{told}");
    let outputs = format!("{:?}", tasks(&engine, after).await);
    assert!(outputs.contains("The sum of 2 and 3 is 5"), "{outputs}");
    worker.stop().await.unwrap();
}
