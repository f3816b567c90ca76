//! Budgets of whole crews: what is counted, who is stopped, and what is kept.

use crate::mind::{PATIENCE, World, brief, calls, mind, model, one_life, says};
use crate::planning::{answered, begin_within, ended, leads, minds, start, sum, tasks};
use agent::hands::NoHands;
use agent::mind::{Completeness, Envelope, Mind};
use agent::model::price::Price;
use agent::model::{Answer, Ask, Fault, ModelError, Usage};
use chargehand::{Api, ApiRead, Json, Submission, TaskSpec, Worker};
use domain::budget::{Amount, Budget};
use domain::command::RunStart;
use domain::graph::Graph;
use domain::run::{Crew, RunStatus};
use domain::task::{Priority, TaskStatus, Waits};
use engine::{Engine, Place};
use protocol::api::TaskQuery;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// As a provider counts: a token for four bytes of the question, and as long an answer as is allowed.
fn counted(ask: &Ask, answer: Answer, length: u64) -> Answer {
    let usage = Usage {
        input_tokens: json!(ask).to_string().len() as u64 / 4,
        cached_tokens: 0,
        output_tokens: length.min(ask.tokens_max.into()),
    };
    Answer { usage, ..answer }
}

/// Never stops charging.
fn endless(ask: &Ask) -> Result<Answer, ModelError> {
    let answer = match ask.tools.is_empty() {
        true => says("as far as I came"),
        false => calls(&[("charge", json!({"cents": 100 + ask.turns.len()}))]),
    };
    Ok(counted(ask, answer, 2_000))
}

#[tokio::test]
async fn a_crew_that_never_stops_is_stopped_within_its_budget_and_keeps_what_it_has() {
    let caps = [
        Budget {
            tokens: Some(20_000),
            ..Budget::default()
        },
        Budget {
            calls: Some(9),
            ..Budget::default()
        },
    ];
    for budget in caps {
        let world = World::default();
        let (planner, worker) = (model(&world, leads), model(&world, endless));
        let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
        let running = start(&engine, &minds(&planner, &worker)).await;
        let run = begin_within(&engine, budget).await;
        let ended = ended(&engine, run).await;
        assert_eq!(ended.status, RunStatus::Completed, "{:?}", ended.failure);
        assert_eq!(answered(&ended).status, Completeness::Partial);
        assert!(!answered(&ended).text.is_empty());
        let account = ended.account.unwrap();
        let spent = account.ledger.spent;
        assert!(
            spent.tokens <= budget.tokens.unwrap_or(u64::MAX),
            "{spent:?}"
        );
        assert!(spent.calls <= budget.calls.unwrap_or(u64::MAX), "{spent:?}");
        assert_eq!(account.ledger.held, Amount::default());
        assert_eq!(account.ledger, sum(&tasks(&engine, run).await));
        assert!(
            account.warned && account.used_percent() >= 80,
            "{account:?}"
        );
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn with_a_budget_of_zero_nobody_is_asked() {
    let world = World::default();
    let planner = model(&world, leads);
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let running = start(&engine, &minds(&planner, &planner)).await;
    let none = Budget {
        tokens: Some(0),
        ..Budget::default()
    };
    let run = begin_within(&engine, none).await;
    let ended = ended(&engine, run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    let failure = ended.failure.unwrap();
    assert!(failure.message.contains("budget"), "{failure:?}");
    assert!(planner.asked.lock().unwrap().is_empty());
    running.stop().await.unwrap();
}

/// One task of a run of its own, done by this mind.
async fn alone(mind: Mind, budget: Budget) -> (Envelope, Amount) {
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker.handle("think", mind).unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let task = json!({"kind": "think", "input": brief("Say it")});
    let steps = json!({"steps": [{"id": "one", "task": task}]});
    let graph: Graph = serde_json::from_value(steps).unwrap();
    let run = RunStart {
        goal: "one".into(),
        supervisor: "supervisor_1".parse().unwrap(),
        graph,
        crew: Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: Some(budget),
    };
    let run = engine.run_start(run).await.unwrap();
    let view = ended(&engine, run).await;
    worker.stop().await.unwrap();
    let output = view.final_result.as_ref().map(Json::value);
    let output = output.unwrap_or_else(|| panic!("{view:?}"));
    let spent = view.account.unwrap().ledger.spent;
    (
        serde_json::from_value(output["one"].clone())
            .or_else(|_| serde_json::from_value(output))
            .unwrap(),
        spent,
    )
}

/// A dollar for a million tokens read, five for a million written.
const PRICE: Price = Price {
    input: 1_000_000,
    cached: 100_000,
    output: 5_000_000,
    long: None,
};

#[tokio::test]
async fn money_is_counted_by_the_price_and_so_are_calls_that_failed() {
    let world = World::default();
    let times = AtomicU32::new(0);
    let told = model(&world, move |_| match times.fetch_add(1, SeqCst) {
        0 => Err(ModelError::new(Fault::Overloaded, "busy")),
        _ => Ok(says("done")),
    });
    let mut mind = mind(&[&told], Arc::new(NoHands));
    mind.seats[0].price = Some(PRICE);
    let (envelope, spent) = alone(mind, Budget::default()).await;
    // 10 tokens read and 5 written: 10 x 1 + 5 x 5 millionths.
    let by_hand = Amount {
        tokens: 15,
        usd_micros: 35,
        calls: 2,
    };
    assert_eq!(spent, by_hand);
    assert_eq!(
        (envelope.spend.usd_micros, envelope.spend.requests),
        (35, 2)
    );
}

/// What a provider may charge for though nobody heard its answer is counted as far as it is known:
/// the question.
#[tokio::test]
async fn an_answer_that_was_cut_off_is_counted_too() {
    let world = World::default();
    let times = AtomicU32::new(0);
    let told = model(&world, move |_| match times.fetch_add(1, SeqCst) {
        0 => Err(ModelError::new(Fault::Broken, "the stream ended too soon")),
        _ => Ok(says("done")),
    });
    let mind = mind(&[&told], Arc::new(NoHands));
    let (_, spent) = alone(mind, Budget::default()).await;
    assert_eq!(spent.calls, 2);
    // The question has some hundred words; its answer's 15 tokens are only the smaller part.
    assert!((60..1_000).contains(&spent.tokens), "{spent:?}");
}

/// Where the whole answer cannot be paid, a shorter one is asked for.
#[tokio::test]
async fn the_last_of_a_budget_buys_a_shorter_answer() {
    let world = World::default();
    let told = model(&world, |ask| Ok(counted(ask, says("short"), 4_000)));
    let mut mind = mind(&[&told], Arc::new(NoHands));
    mind.seats[0].price = Some(PRICE);
    let budget = Budget {
        // A cent: 2000 tokens written at most, and the question.
        usd_micros: Some(10_000),
        ..Budget::default()
    };
    let (envelope, spent) = alone(mind, budget).await;
    assert_eq!(envelope.status, Completeness::Done);
    let asked = told.asked.lock().unwrap()[0].tokens_max;
    assert!((1_000..1_800).contains(&asked), "{asked}");
    assert!(spent.usd_micros <= 9_000, "{spent:?}");
}

#[tokio::test]
async fn a_question_does_not_outlast_the_time_of_its_run() {
    let world = World::default();
    // The model thinks for ever.
    world.moments.lock().unwrap().1 = Some(1);
    let told = model(&world, |_| Ok(says("never")));
    let budget = Budget {
        wall_ms: Some(3_000),
        ..Budget::default()
    };
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = start(&engine, &minds(&told, &told)).await;
    let run = begin_within(&engine, budget).await;
    let ended = tokio::time::timeout(PATIENCE, ended(&engine, run))
        .await
        .unwrap();
    assert_eq!(ended.status, RunStatus::Failed);
    let took = ended.ended_at.unwrap().since_ms(ended.created_at);
    assert!(took < 20_000, "{took} ms");
    worker.stop().await.unwrap();
}

/// A task that belongs to no run has no budget but its own bounds.
#[tokio::test]
async fn a_task_of_no_run_is_counted_for_itself() {
    let world = World::default();
    let told = model(&world, |_| Ok(says("done")));
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker
        .handle("think", mind(&[&told], Arc::new(NoHands)))
        .unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let spec = TaskSpec::new("think".parse().unwrap(), json!(brief("Say it")).into());
    let task = engine
        .task_submit(vec![Submission::new(spec)])
        .await
        .unwrap();
    let task = task.into_iter().next().unwrap().unwrap();
    let ended = engine.task_wait(task, PATIENCE).await.unwrap();
    assert_eq!(
        (ended.account.spent.tokens, ended.account.spent.calls),
        (15, 1)
    );
    worker.stop().await.unwrap();
}

/// A provider that allows few questions, and a worker with room for one task at a time.
#[tokio::test]
async fn who_waits_for_a_provider_gives_its_worker_back_and_nothing_is_lost() {
    const TASKS: usize = 1_000;
    let world = World::default();
    // As much at once as it likes, then nobody for a while: a tenth of what is wanted.
    let allowed = Arc::new(AtomicU32::new(100));
    let gone = Arc::clone(&allowed);
    let told = model(&world, move |_| {
        let before = gone.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        match before {
            Ok(_) => Ok(says("done")),
            Err(_) => Err(ModelError {
                retry_after: Some(std::time::Duration::from_secs(1)),
                ..ModelError::new(Fault::Limited, "100 in a second")
            }),
        }
    });
    let refills = tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            allowed.store(100, SeqCst);
        }
    });
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap().capacity(4);
    let worker = worker
        .handle("think", mind(&[&told], Arc::new(NoHands)))
        .unwrap()
        .handle("other", async |_| chargehand::Ended::done(json!("quick")))
        .unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let think = |n: usize| {
        let brief = brief(&format!("Say {n}"));
        Submission::new(TaskSpec::new("think".parse().unwrap(), json!(brief).into()))
    };
    let tasks = engine
        .task_submit((0..TASKS).map(think).collect())
        .await
        .unwrap();
    // While they wait, other work is done by the same worker, and what waits says why.
    let (mut reasons, mut others) = (0, 0);
    let last = *tasks[TASKS - 1].as_ref().unwrap();
    while engine.task_get(last).await.unwrap().ended_at.is_none() {
        let other = TaskSpec {
            priority: Priority::HIGH,
            ..TaskSpec::new("other".parse().unwrap(), Json::default())
        };
        let other = engine
            .task_submit(vec![Submission::new(other)])
            .await
            .unwrap();
        let other = other.into_iter().next().unwrap().unwrap();
        engine.task_wait(other, PATIENCE).await.unwrap();
        let waiting = engine.task_get(last).await.unwrap();
        others += usize::from(waiting.ended_at.is_none());
        let pending = TaskQuery {
            status: Some(TaskStatus::Pending),
            limit: 1_000,
            ..TaskQuery::default()
        };
        for task in engine.task_list(pending).await.unwrap().items {
            if let Some(Waits::RateLimited { why, .. }) = task.waits_for {
                assert_eq!(why, "test/0 lets nobody in yet");
                reasons += 1;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(others > 0 && reasons > 0, "{others} {reasons}");
    for task in tasks {
        let ended = engine.task_wait(task.unwrap(), PATIENCE).await.unwrap();
        assert_eq!(ended.status, TaskStatus::Completed, "{:?}", ended.failure);
        assert_eq!(ended.account.spent.tokens, 15, "answered once");
    }
    refills.abort();
    worker.stop().await.unwrap();
}

/// The process dies at any moment, again and again: what was lost with it counts, and nothing is spent
/// beyond the cap.
#[test]
fn no_crash_spends_beyond_the_cap() {
    let budget = Budget {
        tokens: Some(20_000),
        calls: Some(14),
        ..Budget::default()
    };
    for first in (1..40).step_by(3) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().join("store"));
        let world = World::default();
        let (planner, worker) = (model(&world, leads), model(&world, endless));
        let minds = minds(&planner, &worker);
        let mut run = None;
        let mut deaths = 0;
        loop {
            // Three deaths, a few moments apart; the fourth life goes on to the end.
            let next = world.moments.lock().unwrap().0 + if deaths == 0 { first } else { 4 };
            world.moments.lock().unwrap().1 = (deaths < 3).then_some(next);
            let over = one_life(async || {
                let engine = Arc::new(Engine::open(&place).unwrap());
                let id = match run {
                    Some(id) => id,
                    None => *run.insert(begin_within(&engine, budget).await),
                };
                // What the process before left behind adds up, too.
                let account = engine.run_get(id).await.unwrap().account.unwrap();
                assert_eq!(
                    account.ledger,
                    sum(&tasks(&engine, id).await),
                    "{first}, {deaths}"
                );
                let worker = start(&engine, &minds).await;
                tokio::select! {
                    view = ended(&engine, id) => {
                        worker.stop().await.unwrap();
                        Some((view, tasks(&engine, id).await))
                    }
                    () = world.stopped.notified() => None,
                }
            });
            let Some((view, tasks)) = over else {
                deaths += 1;
                continue;
            };
            let account = view.account.unwrap();
            let used = account.ledger.used();
            assert!(
                used.tokens <= 20_000 && used.calls <= 14,
                "{first}: {account:?}"
            );
            assert_eq!(account.ledger, sum(&tasks), "{first}");
            break;
        }
    }
}
