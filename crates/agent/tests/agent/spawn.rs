//! Agents that a plan makes up: by the supervisor alone, out of what it may grant, and no more of them
//! than it may have.

use crate::mind::{PATIENCE, World, calls, mind, model, says};
use crate::planning::{answered, begin, ended, ends, minds, start, tasks, works};
use agent::crew::Crew;
use agent::hands::NoHands;
use agent::model::{Answer, Ask, ModelError, Turn};
use agent::planning::{Delegation, Minds, Spawn, Spawned, WORK_KIND};
use agent::tool::Toolbox;
use chargehand::{Api, ApiRead, Failure, Submission, TaskSpec};
use engine::{Engine, Place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const CHECKER: &str = "price_checker_001";
const PROMPT: &str = "You check prices. Where a page cannot be read, say so.";

/// A search that finds one page, and an interpreter.
fn toolbox(folder: &Path) -> Arc<Toolbox> {
    let text = "version: 1\nname: shop\nmodels: {m: ollama/none}\n\
        agents: {a: {description: d, instructions: i}}\n\
        tools:\n  web_search: {command: \"cat > /dev/null; echo '{\\\"page\\\": \\\"B08X12345 costs 94 dollars\\\"}'\", description: Finds pages., input: {type: object}, effect: pure}\n\
        \x20 execute_python: {command: python3 -c 'import json;print(json.dumps(94 < 100))', description: Runs Python., input: {type: object}, effect: pure}\n\
        \x20 refund: {command: echo 1, description: Gives money back., input: {type: object}}\n";
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    let crew = Crew::load(&file).unwrap();
    Arc::new(Toolbox::of_crew(&crew, []).unwrap())
}

fn made(tools: &[&str]) -> Value {
    json!({"prompt": PROMPT, "tools": tools})
}

fn brief(agent: &str, objective: &str, spawn: &Value) -> Value {
    json!({
        "agent": agent, "objective": objective, "inputs": [], "acceptance": [], "evidence": [], "spawn": spawn,
    })
}

/// Asks for what it may not have, one thing after the other, and corrects what it is told of.
fn leads(ask: &Ask) -> Result<Answer, ModelError> {
    let (first, last) = ends(ask);
    if !first.contains("Plan how this crew") {
        return Ok(says("It costs 94 dollars [1], and that is little [2]."));
    }
    let check = |tools: &[&str]| brief(CHECKER, "Check B08X12345", &made(tools));
    let briefs = if ask.turns.len() == 1 {
        vec![check(&["web_search", "refund"])]
    } else if last.contains("cannot be granted “refund”") {
        vec![check(&["delegate"])]
    } else {
        assert!(last.contains("cannot be granted “delegate”"), "{last}");
        let judge = "Say whether 94 dollars are little";
        vec![
            check(&["web_search", "execute_python"]),
            brief("judge", judge, &made(&["execute_python"])),
        ]
    };
    Ok(says(&json!({"briefs": briefs}).to_string()))
}

/// The agents that were made: each calls every tool it has, once.
fn checks(ask: &Ask) -> Result<Answer, ModelError> {
    Ok(match ask.turns.last() {
        Some(Turn::Tools { results }) => {
            let said: Vec<&str> = results.iter().map(|result| result.text.as_str()).collect();
            says(&said.join("; "))
        }
        _ => {
            let all: Vec<_> = ask
                .tools
                .iter()
                .map(|tool| (tool.name.as_str(), json!({})))
                .collect();
            calls(&all)
        }
    })
}

fn names(ask: &Ask) -> BTreeSet<&str> {
    ask.tools.iter().map(|tool| tool.name.as_str()).collect()
}

// S2-15: the supervisor alone spawns workers: an unknown tool, and one that may not be granted, is refused.
// S2-21: how many there may be is bounded, and none of them can make another. S2-22, S2-44: a worker is made at run
// time with the tools and the prompt that were given.
#[tokio::test]
async fn a_plan_makes_agents_out_of_what_it_may_grant() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    let (planner, checker) = (model(&world, leads), model(&world, checks));
    let cashier = model(&world, works);
    let spawn = Spawn {
        agents: 3,
        tools: ["web_search".to_owned(), "execute_python".to_owned()].into(),
        mind: mind(&[&checker], Arc::new(NoHands)),
        toolbox: toolbox(folder.path()),
        approve: Default::default(),
    };
    let crew = Minds {
        spawn: Some(spawn),
        ..(*minds(&planner, &cashier)).clone()
    };
    let checker_of = |n: usize| brief(&format!("checker_{n}"), &format!("Check {n}"), &made(&[]));
    let other = json!({"prompt": "Another.", "tools": []});
    for (briefs, complaint) in [
        (
            (1..=4).map(checker_of).collect(),
            "it makes 4 agents, and 3 are allowed",
        ),
        (
            vec![brief("cashier", "Check", &made(&[]))],
            "the crew has an agent of that name",
        ),
        (
            vec![brief("Big Boss", "Check", &made(&[]))],
            "is no name for an agent",
        ),
        (
            vec![brief(
                CHECKER,
                "Check",
                &json!({"prompt": " ", "tools": []}),
            )],
            "say who it is",
        ),
        (
            vec![brief("a", "Check", &made(&[])), brief("a", "Look", &other)],
            "each another one",
        ),
    ] {
        let refused = crew.lint(&json!({"briefs": briefs}), 0).unwrap_err();
        assert!(refused.contains(complaint), "{refused}");
    }
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(crew)).await;
    let run = begin(&engine).await;
    let answer = answered(&ended(&engine, run).await);
    let who: Vec<&str> = answer
        .sources
        .iter()
        .map(|source| source.agent.as_str())
        .collect();
    assert_eq!(who, [CHECKER, "judge"]);
    assert_eq!(answer.sources[0].receipts.len(), 2);
    // Each has its prompt and its tools, and nothing to delegate or to make others with.
    let asked = checker.asked.lock().unwrap().clone();
    let role = format!("# Your role\n{PROMPT}\n");
    assert!(asked.iter().all(|ask| ends(ask).0.contains(&role)));
    // A planner wrote it, from what it has read: it is no instruction that a person vouches for.
    assert!(asked.iter().all(|ask| !ask.system.contains(PROMPT)));
    let tools: BTreeSet<BTreeSet<&str>> = asked.iter().map(names).collect();
    let own = [
        ["execute_python", "web_search"].into(),
        ["execute_python"].into(),
    ];
    assert_eq!(tools, BTreeSet::from(own));
    // What was made is written down with the plan: name, prompt, tools.
    let all = tasks(&engine, run).await;
    assert_eq!(all.len(), 5);
    let plan = all.iter().find(|task| task.kind.as_str() == "crew.plan");
    let kept = plan.unwrap().output.as_ref().unwrap().value();
    let spawned = &kept["items"][0]["spawn"];
    assert_eq!(spawned["prompt"], PROMPT);
    assert_eq!(spawned["tools"], json!(["execute_python", "web_search"]));
    worker.stop().await.unwrap();
}

/// A brief that somebody else wrote, given to a worker of these minds.
async fn given(minds: Minds, delegation: &Delegation) -> Failure {
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(minds)).await;
    let spec = TaskSpec::new(WORK_KIND.parse().unwrap(), json!(delegation).into());
    let task = engine
        .task_submit(vec![Submission::new(spec)])
        .await
        .unwrap();
    let task = task.into_iter().next().unwrap().unwrap();
    engine.task_wait(task, PATIENCE).await.unwrap();
    let failure = engine.task_get(task).await.unwrap().failure.unwrap();
    worker.stop().await.unwrap();
    failure
}

// S2-24: what may be granted is enforced where the work is done, not by the plan's word: nothing by
// default.
#[tokio::test]
async fn what_may_be_granted_is_checked_where_the_brief_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let without = (*minds(&planner, &cashier)).clone();
    let delegation = |tool: &str| Delegation {
        agent: CHECKER.into(),
        objective: "Check".into(),
        spawn: Some(Spawned {
            prompt: PROMPT.into(),
            tools: [tool.to_owned()].into(),
        }),
        ..Delegation::default()
    };
    let failure = given(without.clone(), &delegation("web_search")).await;
    assert_eq!(failure.code, "agent.unknown", "{failure:?}");
    let spawn = Spawn {
        agents: 1,
        tools: ["web_search".to_owned()].into(),
        mind: mind(&[&cashier], Arc::new(NoHands)),
        toolbox: toolbox(folder.path()),
        approve: Default::default(),
    };
    let with = Minds {
        spawn: Some(spawn),
        ..without
    };
    let failure = given(with, &delegation("refund")).await;
    assert_eq!(failure.code, "tool.not_granted", "{failure:?}");
    assert!(
        cashier.asked.lock().unwrap().is_empty(),
        "nothing was bought"
    );
}
