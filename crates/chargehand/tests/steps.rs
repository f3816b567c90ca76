//! Steps of a handler, with a worker and an engine in this process: what is done is not done again,
//! and what may have happened is found out first.

use chargehand::{
    Api, ApiRead, Code, Context, EffectClass, Ended, Failure, Json, Submission, TaskSpec, Worker,
};
use domain::record::{Finding, RecordState};
use domain::retry::RetryPolicy;
use domain::task::TaskStatus;
use engine::{Engine, Place};
use protocol::v1::TaskView;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// How often something was done, and what.
#[derive(Debug, Clone, Default)]
struct Ledger(Arc<Mutex<Vec<&'static str>>>);

impl Ledger {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

/// Runs one task with this handler to its end.
async fn run<F, Fut>(engine: &Arc<Engine>, handler: F) -> TaskView
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Ended> + Send + 'static,
{
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker.handle("order", handler).unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let spec = TaskSpec {
        retry: RetryPolicy {
            attempts: 3,
            backoff_ms: 1,
            ..RetryPolicy::default()
        },
        ..TaskSpec::new("order".parse().unwrap(), Json::default())
    };
    let tasks = vec![Submission::new(spec)];
    let task = engine.task_submit(tasks).await.unwrap().remove(0).unwrap();
    let ended = engine.task_wait(task, Duration::from_secs(60)).await;
    let ended = match ended {
        Ok(_) => engine.task_get(task).await,
        Err(error) => Err(error),
    };
    worker.stop().await.unwrap();
    ended.unwrap()
}

fn engine() -> Arc<Engine> {
    Arc::new(Engine::open(&Place::Memory).unwrap())
}

fn ended(outcome: Result<Value, Failure>) -> Ended {
    match outcome {
        Ok(value) => Ended::done(value),
        Err(failure) => Ended::Failed(failure),
    }
}

fn states(view: &TaskView) -> Vec<(&str, &str)> {
    let records = view.records.iter();
    records
        .map(|record| (record.key.as_str(), record.state.as_str()))
        .collect()
}

#[tokio::test]
async fn what_one_attempt_finished_the_next_reuses() {
    let done = Ledger::default();
    let ledger = done.clone();
    let view = run(&engine(), move |task| {
        let ledger = ledger.clone();
        async move {
            let buys = || async {
                ledger.note("bought");
                Ok(json!({"receipt": 7}))
            };
            let bought = task.step("buy", EffectClass::AtMostOnce, buys).await;
            let ships = || async {
                ledger.note("shipped");
                match task.assignment().attempt {
                    1 => Err(Failure::new("ship.closed", "the port is closed")),
                    _ => Ok(json!("at sea")),
                }
            };
            let shipped = task.step("ship", EffectClass::AtMostOnce, ships).await;
            // Asked for again within the attempt, it is the same.
            let again = || async { panic!("bought twice") };
            let again = task.step("buy", EffectClass::AtMostOnce, again).await;
            assert_eq!(again, bought);
            ended(shipped.and_then(|shipped| Ok(json!([bought?, shipped]))))
        }
    })
    .await;
    assert_eq!(view.status, TaskStatus::Completed);
    let output = view.output.as_ref().unwrap().value();
    assert_eq!(output, json!([{"receipt": 7}, "at sea"]));
    assert_eq!(done.all(), ["bought", "shipped", "shipped"]);
    assert_eq!(states(&view), [("buy", "done"), ("ship", "done")]);
    let attempts: Vec<u32> = view.records.iter().map(|record| record.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test]
async fn a_step_cut_off_half_way_is_not_repeated_until_a_person_has_looked() {
    let engine = engine();
    let done = Ledger::default();
    let ledger = done.clone();
    let handler = move |task: Context| {
        let ledger = ledger.clone();
        async move {
            let begun = Notify::new();
            let pays = || async {
                ledger.note("paid");
                begun.notify_one();
                std::future::pending().await
            };
            tokio::select! {
                outcome = task.step("pay", EffectClass::AtMostOnce, pays) => return ended(outcome),
                () = begun.notified() => {}
            }
            let again = || async { panic!("paid twice") };
            let again = task.step("pay", EffectClass::AtMostOnce, again).await;
            ended(again)
        }
    };
    let view = run(&engine, handler.clone()).await;
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.as_ref().unwrap().code, "record.in_doubt");
    assert_eq!(view.attempts, 1, "no other attempt could do better");
    assert_eq!(states(&view), [("pay", "in_doubt")]);

    let finding = Finding::Done {
        output: json!("bank statement 7").into(),
    };
    let key = || "pay".parse().unwrap();
    engine
        .record_resolve(view.task_id, key(), finding)
        .await
        .unwrap();
    engine.task_redrive(view.task_id).await.unwrap();
    let worker = Worker::new("worker_2").unwrap();
    let worker = worker.handle("order", handler).unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let wait = Duration::from_secs(60);
    let view = engine.task_wait(view.task_id, wait).await.unwrap();
    worker.stop().await.unwrap();
    assert_eq!(view.output.unwrap().value(), json!("bank statement 7"));
    assert_eq!(done.all(), ["paid"]);
}

/// Posts without an answer in the first attempt; whether it arrived is found out in the second.
async fn posts(arrived: bool) -> (TaskView, Vec<&'static str>) {
    let done = Ledger::default();
    let ledger = done.clone();
    let view = run(&engine(), move |task| {
        let ledger = ledger.clone();
        async move {
            let post = || async {
                ledger.note("posted");
                match task.assignment().attempt {
                    1 => Err(Failure::in_doubt("no answer came")),
                    _ => Ok(json!("posted")),
                }
            };
            let verify = || async {
                ledger.note("looked");
                Ok(arrived.then(|| json!("found")))
            };
            ended(task.step_verified("post", post, verify).await)
        }
    })
    .await;
    (view, done.all())
}

#[tokio::test]
async fn the_next_attempt_finds_out_whether_it_happened() {
    let (view, did) = posts(true).await;
    assert_eq!(did, ["posted", "looked"]);
    assert_eq!(view.output.as_ref().unwrap().value(), json!("found"));
    assert_eq!(states(&view), [("post", "done")]);
    assert_eq!(
        view.ended[0].failure.as_ref().unwrap().code,
        "record.in_doubt"
    );

    let (view, did) = posts(false).await;
    assert_eq!(did, ["posted", "looked", "posted"]);
    assert_eq!(view.output.as_ref().unwrap().value(), json!("posted"));
}

#[tokio::test]
async fn what_is_harmless_is_simply_done_again() {
    for effect in [EffectClass::Pure, EffectClass::Keyed] {
        let tries = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&tries);
        let view = run(&engine(), move |task| {
            let count = Arc::clone(&count);
            async move {
                let asks = || async {
                    match count.fetch_add(1, Ordering::Relaxed) {
                        0 => Err(Failure::in_doubt("the line broke")),
                        n => Ok(json!(n)),
                    }
                };
                ended(task.step("ask", effect, asks).await)
            }
        })
        .await;
        assert_eq!(view.output.as_ref().unwrap().value(), json!(1));
        assert_eq!((view.attempts, tries.load(Ordering::Relaxed)), (2, 2));
    }
}

#[tokio::test]
async fn two_at_the_same_step_at_once_do_it_once() {
    let done = Ledger::default();
    let ledger = done.clone();
    let view = run(&engine(), move |task| {
        let ledger = ledger.clone();
        async move {
            let pays = || async {
                ledger.note("paid");
                Ok(json!(7))
            };
            let pay = || task.step("pay", EffectClass::AtMostOnce, pays);
            let (one, other) = tokio::join!(pay(), pay());
            let refused = one.as_ref().err().or(other.as_ref().err());
            // One that comes while the other is at it is refused; one that comes after it, reads it.
            if let Some(refused) = refused {
                assert_eq!(refused.code, Code::RecordState.as_str());
            }
            ended(one.or(other))
        }
    })
    .await;
    assert_eq!(view.output.as_ref().unwrap().value(), json!(7));
    assert_eq!(done.all(), ["paid"]);
}

#[tokio::test]
async fn a_key_that_is_none_and_an_output_too_large_are_refused_with_their_codes() {
    let view = run(&engine(), |task| async move {
        let nothing = || async { panic!("never begun") };
        let unnamed = task.step(" ", EffectClass::Pure, nothing).await;
        assert_eq!(unnamed.unwrap_err().code, Code::NameMalformed.as_str());
        let large = || async { Ok(json!("x".repeat(1024 * 1024))) };
        ended(task.step("read", EffectClass::AtMostOnce, large).await)
    })
    .await;
    let failure = view.failure.as_ref().unwrap();
    assert_eq!(failure.code, "payload.too_large");
    let state = &view.records[0].state;
    // It did happen, and what came of it could not be kept: nobody repeats it unasked.
    assert_eq!(*state, RecordState::InDoubt);
}
