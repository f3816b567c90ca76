//! Many tasks, many workers, many threads. Nothing here asserts a duration: what is asserted is how
//! much happens at the same time; how long it took is printed.

use crate::crew::{self, *};
use agent::worker::SkillHandler;
use chargehand::{Context, Ended, Handler, Worker};
use domain::run::RunStatus;
use protocol::api::worker_list_all;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Barrier;

// S1-101: 100, 1,000 and 10,000 tasks of one request complete, each once, none lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_complete() {
    for number in [100, 1_000, 10_000] {
        let api = open();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let mut workers = Vec::new();
        for id in names(4) {
            let seen = Arc::clone(&seen);
            let note = move |task: Context| {
                let new = seen.lock().unwrap().insert(item(&task));
                async move {
                    assert!(new, "done twice");
                    Ended::done(json!(1))
                }
            };
            let worker = Worker::new(&id).unwrap().capacity(16).handle_any(note);
            workers.push(worker.start(api.clone()).await.unwrap());
        }
        let began = Instant::now();
        let run = supervisor(&api)
            .start(&crew::plan("any", number, &names(4)))
            .await
            .unwrap();
        let view = crew::supervise(&api, run).await;
        assert_eq!(
            (view.status, view.tasks.completed as usize),
            (RunStatus::Completed, number)
        );
        assert_eq!(seen.lock().unwrap().len(), number);
        let made = supervisor(&api).aggregate_results(run).await.unwrap();
        assert_eq!(made.results.len(), number);
        eprintln!("{number} tasks, 4 workers: {:?}", began.elapsed());
    }
}

// S1-100, S1-102: with n workers, n tasks that wait run at the same time, from the first to the last:
// each task ends only together with n - 1 others. So waiting work takes 1/n of the rounds, which is
// linear; what it took on the clock is printed.
#[tokio::test]
async fn waiting_work_speeds_up_with_workers() {
    const TASKS_PER_WORKER: usize = 4;
    const WAIT: Duration = Duration::from_millis(100);
    for n in 1..=10 {
        let api = open();
        let round = Arc::new(Barrier::new(n));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut workers = Vec::new();
        for id in names(n) {
            let (round, at_once, most) =
                (Arc::clone(&round), Arc::clone(&at_once), Arc::clone(&most));
            let wait = move |_: Context| {
                let (round, at_once, most) =
                    (Arc::clone(&round), Arc::clone(&at_once), Arc::clone(&most));
                async move {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    round.wait().await;
                    tokio::time::sleep(WAIT).await;
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    Ended::done(json!(1))
                }
            };
            workers.push(start(&api, &id, wait).await);
        }
        let began = Instant::now();
        let plan = crew::plan("any", n * TASKS_PER_WORKER, &names(n));
        let run = supervisor(&api).start(&plan).await.unwrap();
        let view = crew::supervise(&api, run).await;
        assert_eq!(view.tasks.completed as usize, n * TASKS_PER_WORKER);
        assert_eq!(most.load(Ordering::SeqCst), n);
        let took = began.elapsed();
        let serial = WAIT * (n * TASKS_PER_WORKER) as u32;
        let speed_up = serial.as_secs_f64() / took.as_secs_f64();
        let of_linear = speed_up / n as f64;
        eprintln!("{n:2} workers: {took:?}, {speed_up:.1} times serial, {of_linear:.2} of linear");
    }
}

// S1-97: one thread per worker, each with a runtime of its own, on one engine: safe.
#[tokio::test]
async fn workers_run_in_threads() {
    let api = open();
    let run = supervisor(&api)
        .start(&crew::plan("text.stats", 200, &names(10)))
        .await
        .unwrap();
    let mut threads = Vec::new();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    for id in names(10) {
        let (api, mut stopping) = (api.clone(), stopping.clone());
        threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let worker = start(&api, &id, SkillHandler).await;
                stopping.wait_for(|stop| *stop).await.unwrap();
                worker.stop().await.unwrap();
            });
        }));
    }
    let view = crew::supervise(&api, run).await;
    assert_eq!(
        (view.status, view.tasks.completed),
        (RunStatus::Completed, 200)
    );
    stop.send(true).unwrap();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let all = api.statistics().await.unwrap();
    assert_eq!(
        (all.attempts, all.tasks_completed, all.results_refused),
        (200, 200, 0)
    );
    assert!(
        all.tasks_by_agent.values().all(|share| *share == 20),
        "{all:?}"
    );
}

/// A skill worker that begins a task only together with all others.
struct Together(Arc<Barrier>);

#[async_trait::async_trait]
impl Handler for Together {
    async fn run(&self, task: Context) -> Ended {
        self.0.wait().await;
        SkillHandler.run(task).await
    }
}

// S1-85: a hundred reviews, five workers, a hundred tasks: a hundred results. Five are always begun
// together, so that a hundred tasks are twenty rounds, where one worker has a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reviews_are_read() {
    let api = open();
    let round = Arc::new(Barrier::new(5));
    let mut workers = Vec::new();
    for id in names(5) {
        workers.push(start(&api, &id, Together(Arc::clone(&round))).await);
    }
    let mut plan = crew::plan("text.sentiment", 100, &names(5));
    plan.items = (0..100)
        .map(|n| agent::input::Item {
            source: crate::source(&format!("{n}.txt")),
            ..crate::text(["I love it.", "I hate it."][n % 2])
        })
        .collect();
    let run = supervisor(&api).start(&plan).await.unwrap();
    assert_eq!(
        crew::supervise(&api, run).await.status,
        RunStatus::Completed
    );
    let made = supervisor(&api).aggregate_results(run).await.unwrap();
    let labels = |label: &str| {
        made.results
            .iter()
            .filter(|r| r.output["label"] == label)
            .count()
    };
    assert_eq!(
        (made.results.len(), labels("positive"), labels("negative")),
        (100, 50, 50)
    );
    for worker in worker_list_all(&*api).await.unwrap() {
        assert_eq!(worker.completed, 20);
    }
}

// S1-59: the board of a request grows with its tasks and with nothing else: two entries for a
// completed one, none of them written apart from the task. (What agents write themselves is bounded
// by retention: see `a_full_board_forgets_the_least_important_oldest` of the engine.)
#[tokio::test]
async fn a_board_is_linear_in_its_tasks() {
    for number in [50, 100, 200, 400] {
        let api = open();
        let given = delegate(&api, &names(2), number).await;
        let run = given[0].request_id;
        assert_eq!(tagged(&api, run, &[]).await.len(), number);
        let _workers = skilled(&api, &names(2)).await;
        crew::supervise(&api, run).await;
        assert_eq!(tagged(&api, run, &[]).await.len(), 2 * number);
        let events = api.event_list(0, 100_000).await.unwrap();
        let written = events
            .iter()
            .filter(|event| event.event.name() == "entry.written");
        assert_eq!(written.count(), 0);
    }
}
