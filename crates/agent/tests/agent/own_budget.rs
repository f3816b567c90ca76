//! Budgets that a crew file gives single agents: who would go on is stopped at its own, and the others
//! are not.

use crate::planning::{answered, begin_within, ended, start, sum, tasks};
use agent::crew::Crew;
use agent::mind::Completeness;
use agent::muster::muster;
use agent::spending::Spending;
use domain::budget::Amount;
use domain::run::RunStatus;
use engine::{Engine, Place};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

/// Each answer of an agent reads and writes as much: at the price in the file, 0.006 US dollars.
const TURN: Amount = Amount {
    tokens: 2_000,
    usd_micros: 6_000,
    calls: 1,
};

/// A crew whose runner never stops by itself, with this budget, and whose walker makes three calls.
fn crew(folder: &TempDir, budget: &str) -> Crew {
    let usage = json!({"input_tokens": 1_000, "output_tokens": 1_000});
    let brief = |agent: &str| {
        let objective = format!("Go as far as a {agent} goes");
        json!({"agent": agent, "objective": objective, "inputs": [], "acceptance": [], "evidence": []})
    };
    let plan = json!({"briefs": [brief("runner"), brief("walker")]}).to_string();
    let tick = json!({"calls": [{"tool": "tick", "arguments": {}}], "usage": usage});
    let says = |text: &str| json!({"text": text, "usage": usage});
    let rules = json!({"rules": [
        {"when": {"last_contains": "Plan how this crew"}, "answer": {"text": plan}},
        {"when": {"last_contains": "Answer the goal"}, "answer": {"text": "That far [1] [2]."}},
        {"when": {"last_contains": "Stop here"}, "answer": says("as far as I came")},
        {"when": {"system_contains": "the walker", "turn": 4}, "answer": says("there")},
        {"when": {}, "answer": tick},
    ]});
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("rules.json"), rules.to_string()).unwrap();
    // Says something else every time: who gets the same answer again and again is stopped for that.
    std::fs::write(
        path("tick.sh"),
        "#!/bin/sh\necho . >> ticks\nwc -l < ticks\n",
    )
    .unwrap();
    std::fs::set_permissions(path("tick.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    let text = format!(
        "version: 1
name: desk
models: {{m: {{model: scripted/rules.json, price: {{input: 1, output: 5}}}}}}
budget: {{tokens: 1000000, usd: 10, calls: 500}}
agents:
  runner: {{description: Runs., instructions: You are the runner., tools: [tick], rounds: 40{budget}}}
  walker: {{description: Walks., instructions: You are the walker., tools: [tick], rounds: 40}}
tools:
  tick: {{command: ./tick.sh, description: Counts., input: {{type: object}}, effect: pure}}
"
    );
    std::fs::write(path("crew.yaml"), text).unwrap();
    Crew::load(&path("crew.yaml")).unwrap()
}

#[tokio::test]
async fn an_agent_that_would_go_on_is_stopped_at_its_own_budget_and_the_others_are_not() {
    // What it may spend, why it is stopped, and how many turns it had before the last.
    let cases = [
        (", budget: {calls: 5}", "its 5 calls are used up", 5),
        (", budget: {tokens: 7000}", "its 7000 tokens are used up", 4),
        (", budget: {usd: 0.03}", "its $0.03 are used up", 5),
        (
            ", budget: {usd: 0.03, tokens: 3000}",
            "its 3000 tokens are used up",
            2,
        ),
        // Without one, it goes as far as its turns go.
        ("", "its 40 turns are used up", 40),
    ];
    for (budget, reason, turns) in cases {
        let folder = tempfile::tempdir().unwrap();
        let crew = crew(&folder, budget);
        let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
        let running = start(&engine, &Arc::new(muster(&crew).unwrap())).await;
        let run = begin_within(&engine, crew.budget.of_run()).await;
        let view = ended(&engine, run).await;
        running.stop().await.unwrap();
        assert_eq!(
            view.status,
            RunStatus::Completed,
            "{budget}: {:?}",
            view.failure
        );
        // What it has is kept, and marked.
        assert_eq!(answered(&view).status, Completeness::Partial, "{budget}");
        let tasks = tasks(&engine, run).await;
        let output = |agent: &str| -> Value {
            let of = |value: &Value| value["agent"] == agent;
            let task = tasks.iter().find(|task| of(&task.input.value()));
            task.unwrap().output.as_ref().unwrap().value()
        };
        let (runner, walker) = (output("runner").to_string(), output("walker").to_string());
        assert!(
            runner.contains(reason) && runner.contains("as far as I came"),
            "{runner}"
        );
        assert!(
            walker.contains("there") && !walker.contains("used up"),
            "{walker}"
        );
        // Its task spent its turns, its calls and its last words; the walker what it needs.
        let spending = Spending::of(&*engine, run).await.unwrap();
        let spent = |turns: u64, calls: u64| Amount {
            tokens: turns * TURN.tokens,
            usd_micros: turns * TURN.usd_micros,
            calls: turns * TURN.calls + calls,
        };
        assert_eq!(
            spending.agents["runner"],
            spent(turns + 1, turns),
            "{budget}"
        );
        assert_eq!(spending.agents["walker"], spent(4, 3), "{budget}");
        // The crew's budget is hardly touched, and its account is the sum of its tasks'.
        let account = view.account.unwrap();
        assert!(
            account.used_percent() < 25 && !account.warned,
            "{account:?}"
        );
        assert_eq!(account.ledger, sum(&tasks));
    }
}

#[test]
fn an_agent_may_never_go_further_than_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = |budget: &str| {
        let minds = muster(&crew(&folder, budget)).unwrap();
        let bounds = minds.members["runner"].mind.bounds;
        (bounds.tokens, bounds.usd_micros, bounds.calls)
    };
    assert_eq!(bounds(""), (1_000_000, 10_000_000, 500));
    let more = ", budget: {tokens: 2000000, usd: 20, calls: 1000}";
    assert_eq!(bounds(more), (1_000_000, 10_000_000, 500));
    let less = ", budget: {tokens: 9, usd: 0.0001, calls: 1}";
    assert_eq!(bounds(less), (9, 100, 1));
    assert_eq!(bounds(", budget: {usd: 2.5}"), (1_000_000, 2_500_000, 500));
    assert_eq!(bounds(", budget: {}"), bounds(""));
}
