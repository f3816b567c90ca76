//! What agents and plans want and do not have is noted, and the work goes on.

use super::mind::{World, calls, mind, model, says};
use super::planning::{begin, ended, leads, minds, start, works};
use agent::crew::Crew;
use agent::hands::Granted;
use agent::mind::Brief;
use agent::model::Turn;
use agent::planning::Member;
use agent::tool::Toolbox;
use chargehand::{Api, ApiRead, Submission, TaskSpec, Worker};
use domain::demand::{Demand, Lack};
use domain::run::RunStatus;
use domain::task::TaskStatus;
use engine::{Engine, Place};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A crew's tools: `shop.lookup`, which needs a secret that nobody sets, and `shop.refund`.
fn shop(folder: &std::path::Path) -> Arc<Toolbox> {
    let tool = |name: &str, more: &str| {
        format!(
            "  {name}:\n    command: echo 1\n    description: Does it.\n    input: {{type: object}}\n    category: Data\n{more}"
        )
    };
    let text = format!(
        "version: 1\nname: desk\nmodels: {{fast: anthropic/claude-haiku-4-5}}\nagents:\n  clerk: {{description: Works., instructions: Work., tools: [shop.lookup]}}\ntools:\n{}{}",
        tool("shop.lookup", "    env: {KEY: secret://THAT_NOBODY_SETS}\n"),
        tool("shop.refund", ""),
    );
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    let crew = Crew::load(&file).unwrap();
    Arc::new(Toolbox::of_crew(&crew, []).unwrap())
}

fn granted(toolbox: &Arc<Toolbox>) -> Arc<Granted> {
    Arc::new(Granted {
        toolbox: Arc::clone(toolbox),
        tools: ["shop.lookup".to_owned()].into(),
        approve: Default::default(),
    })
}

fn told(demands: &[Demand]) -> BTreeSet<(&str, u64, Lack)> {
    let told = demands
        .iter()
        .map(|demand| (demand.last.tool.as_str(), demand.count, demand.last.lack));
    told.collect()
}

// S0-84, S0-96: a tool that is missing or cannot be called is counted, the model is told why, and the
// worker lives on.
#[tokio::test]
async fn what_an_agent_misses_is_noted_once_a_task_and_the_work_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let toolbox = shop(folder.path());
    let world = World::default();
    let told_model = model(&world, |ask| {
        let tools = [
            "send_linkedin_message",
            "shop_lookup",
            "shop_refund",
            "\n\u{7} \n",
        ];
        Ok(match ask.turns.last() {
            Some(Turn::Tools { results }) if ask.turns.len() > 4 => {
                assert!(results.iter().all(|result| result.failed));
                assert!(results[1].text.contains("THAT_NOBODY_SETS is not set"));
                says("Without them.")
            }
            _ => calls(&tools.map(|tool| (tool, json!({})))),
        })
    });
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker
        .handle("think", mind(&[&told_model], granted(&toolbox)))
        .unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    for times in 1..=2 {
        let brief = Brief {
            objective: "Write to them.".into(),
            ..Brief::default()
        };
        let spec = TaskSpec::new("think".parse().unwrap(), json!(brief).into());
        let task = engine
            .task_submit(vec![Submission::new(spec)])
            .await
            .unwrap();
        let task = task.into_iter().next().unwrap().unwrap();
        let ended = engine.task_wait(task, PATIENCE).await.unwrap();
        assert_eq!(ended.status, TaskStatus::Completed, "{:?}", ended.failure);
        let demands = engine.tool_demand_list().await.unwrap();
        assert_eq!(
            told(&demands),
            [
                ("send_linkedin_message", times, Lack::Unknown),
                ("shop.lookup", times, Lack::Unavailable),
                ("shop.refund", times, Lack::NotGranted),
            ]
            .into()
        );
        assert!(
            demands
                .iter()
                .all(|d| d.last.by.as_str() == "worker_1" && d.last.task == Some(task))
        );
    }
    worker.stop().await.unwrap();
}

// S0-94: a plan that needs a tool which is not there is noted, and goes on with an alternative.
#[tokio::test]
async fn a_plan_that_rests_on_a_tool_that_is_not_there_is_noted_and_made_anew() {
    let world = World::default();
    let planner = model(&world, |ask| {
        let answer = leads(ask)?;
        let corrected = |turn: &Turn| matches!(turn, Turn::User { text } if text.contains("send_linkedin_message"));
        let text = match ask.turns.iter().any(corrected) {
            true => answer.text.replace("banker", "cashier"),
            false => answer
                .text
                .replace("banker", "cashier")
                .replace("\"charge\"", "\"send_linkedin_message\""),
        };
        Ok(says(&text))
    });
    let cashier = model(&world, works);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&planner, &cashier)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    assert_eq!(view.status, RunStatus::Completed, "{view:?}");
    let demands = engine.tool_demand_list().await.unwrap();
    assert_eq!(
        told(&demands),
        [("send_linkedin_message", 1, Lack::Unknown)].into()
    );
    assert_eq!(demands[0].last.run, Some(run));
    assert_eq!(demands[0].last.by.as_str(), "supervisor");
    worker.stop().await.unwrap();
}

// S0-03, S0-63: a tool that cannot be called is not offered to the planner, a record of it appears
// before anything was done, and planning goes on.
#[tokio::test]
async fn a_planner_is_told_what_cannot_be_called_now() {
    let folder = tempfile::tempdir().unwrap();
    let toolbox = shop(folder.path());
    let world = World::default();
    let (planner, cashier) = (model(&world, leads), model(&world, works));
    let mut minds = (*minds(&planner, &cashier)).clone();
    let clerk = Member {
        description: "Looks things up.".into(),
        mind: mind(&[&cashier], granted(&toolbox)),
        tools: ["shop.lookup".to_owned()].into(),
        output: None,
    };
    minds.members.insert("aclerk".into(), clerk);
    let planner_saw = planner.asked.clone();
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &Arc::new(minds)).await;
    let run = begin(&engine).await;
    let view = ended(&engine, run).await;
    assert_ne!(view.status, RunStatus::Running, "{view:?}");
    let first = format!("{:?}", planner_saw.lock().unwrap()[0].turns[0]);
    assert!(first.contains("cannot be called now"), "{first}");
    let demands = engine.tool_demand_list().await.unwrap();
    assert_eq!(
        told(&demands),
        [("shop.lookup", 1, Lack::Unavailable)].into()
    );
    worker.stop().await.unwrap();
}

// S0-77, S0-95: tools are found by their category, in letters of either case, one of a person's own
// included; and a call that took too long says so in words that can be searched for.
#[tokio::test]
async fn categories_are_filtered_and_a_late_tool_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let tools = shop(folder.path());
    let names = |category: &str| -> Vec<String> {
        tools
            .cards_of(category)
            .iter()
            .map(|card| card.name.to_string())
            .collect()
    };
    assert_eq!(names("data"), ["shop.lookup", "shop.refund"]);
    assert_eq!(names("DATA"), names("Data"));
    assert_eq!(names("shell"), ["shell"]);
    assert_eq!(names("CUSTOM"), [""; 0]);
    let text = "version: 1\nname: desk\nmodels: {fast: anthropic/claude-haiku-4-5}\nagents:\n  clerk: {description: Works., instructions: Work., tools: [late]}\ntools:\n  late: {command: sleep 300, description: Waits., input: {type: object}, timeout: 100ms, category: CUSTOM}\n";
    let file = folder.path().join("late.yaml");
    std::fs::write(&file, text).unwrap();
    let tools = Toolbox::of_crew(&Crew::load(&file).unwrap(), []).unwrap();
    assert_eq!(tools.cards_of("custom").len(), 1);
    let late = tools
        .call(&["late".to_owned()].into(), "late", &json!({}), "k")
        .await;
    let late = late.unwrap_err();
    assert_eq!(late.code, "tool.timed_out");
    assert!(
        late.message.starts_with("Tool execution timed out"),
        "{late:?}"
    );
}
