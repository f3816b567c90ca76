//! A worker over HTTP: the real engine behind the four paths a worker needs, which may be refused
//! or lose their answers.

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use chargehand::{
    Api, ApiRead, Client, Code, Context, Ended, Error, Name, Said, Submission, TaskSpec, Worker,
};
use domain::id::TaskId;
use domain::retry::RetryPolicy;
use domain::task::TaskStatus;
use domain::worker::{WorkerSpec, WorkerStatus};
use engine::{Engine, Place};
use protocol::problem::Problem;
use protocol::wire::{Heartbeat, LeaveParams, Signals, WorkBody, WorkedBody, WorkerRef};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(30);

/// The server, and what goes wrong in it.
struct House {
    engine: Arc<Engine>,
    /// Nobody is served.
    is_away: AtomicBool,
    /// Every so many answers to work are lost, after it was done; 0 for none.
    loses_every: AtomicUsize,
    /// Bytes of a request, at most.
    bytes_max: AtomicUsize,
    works: AtomicUsize,
    claiming: AtomicUsize,
    claiming_most: AtomicUsize,
    says: AtomicUsize,
}

fn refusal(error: &Error) -> Response {
    let problem = Problem::from(error);
    let status = StatusCode::from_u16(problem.status).unwrap();
    (status, Json(problem)).into_response()
}

fn gateway() -> Response {
    (StatusCode::BAD_GATEWAY, "gone").into_response()
}

/// Counts a claim for as long as its request lasts.
struct Claiming<'a>(&'a House);

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.0.claiming.fetch_sub(1, SeqCst);
    }
}

type Shared = State<Arc<House>>;

async fn register(State(house): Shared, Json(spec): Json<WorkerSpec>) -> Response {
    if house.is_away.load(SeqCst) {
        return gateway();
    }
    let worker_id = spec.id.clone();
    match house.engine.worker_register(spec).await {
        Ok(()) => (StatusCode::CREATED, Json(WorkerRef { worker_id })).into_response(),
        Err(error) => refusal(&error),
    }
}

async fn work(State(house): Shared, Path(worker): Path<Name>, body: String) -> Response {
    if house.is_away.load(SeqCst) {
        return gateway();
    }
    if body.len() > house.bytes_max.load(SeqCst) {
        return refusal(&Error::new(
            Code::PayloadTooLarge,
            "the request is too large",
        ));
    }
    let body: WorkBody = serde_json::from_str(&body).unwrap();
    let _claiming = body.claim.map(|_| {
        let now = house.claiming.fetch_add(1, SeqCst) + 1;
        house.claiming_most.fetch_max(now, SeqCst);
        Claiming(&house)
    });
    let answer = house.engine.work(body.of(worker)).await;
    let n = house.works.fetch_add(1, SeqCst) + 1;
    let every = house.loses_every.load(SeqCst);
    if house.is_away.load(SeqCst) || (every > 0 && n.is_multiple_of(every)) {
        return gateway();
    }
    match answer {
        Ok(worked) => Json(WorkedBody::from(worked)).into_response(),
        Err(error) => refusal(&error),
    }
}

/// Nobody ever hears an answer to this.
async fn say(State(house): Shared) -> Response {
    house.says.fetch_add(1, SeqCst);
    std::future::pending().await
}

async fn heartbeat(
    State(house): Shared,
    Path(worker): Path<Name>,
    Json(body): Json<Heartbeat>,
) -> Response {
    if house.is_away.load(SeqCst) {
        return gateway();
    }
    let wait = Duration::from_millis(body.wait_ms);
    match house
        .engine
        .worker_heartbeat(worker, body.session, wait)
        .await
    {
        Ok(signals) => Json(Signals { signals }).into_response(),
        Err(error) => refusal(&error),
    }
}

async fn leave(
    State(house): Shared,
    Path(worker): Path<Name>,
    Query(query): Query<LeaveParams>,
) -> Response {
    if house.is_away.load(SeqCst) {
        return gateway();
    }
    let left = house
        .engine
        .worker_leave(worker, query.session, query.reason);
    match left.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refusal(&error),
    }
}

async fn show(State(house): Shared, Path(worker): Path<Name>) -> Response {
    match house.engine.worker_get(worker).await {
        Ok(worker) => Json(worker).into_response(),
        Err(error) => refusal(&error),
    }
}

impl House {
    async fn open() -> (Arc<Self>, Arc<Client>) {
        let house = Arc::new(Self {
            engine: Arc::new(Engine::open(&Place::Memory).unwrap()),
            is_away: AtomicBool::default(),
            loses_every: AtomicUsize::default(),
            bytes_max: AtomicUsize::new(usize::MAX),
            works: AtomicUsize::default(),
            claiming: AtomicUsize::default(),
            claiming_most: AtomicUsize::default(),
            says: AtomicUsize::default(),
        });
        let router = Router::new()
            .route("/v1/workers", post(register))
            .route("/v1/workers/{worker}/work", post(work))
            .route("/v1/workers/{worker}/heartbeat", post(heartbeat))
            .route("/v1/workers/{worker}/say", post(say))
            .route("/v1/workers/{worker}", delete(leave).get(show))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&house));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (house, Arc::new(Client::builder(url).build().unwrap()))
    }

    async fn submit(&self, count: u64) -> Vec<TaskId> {
        let spec = |n| TaskSpec::new(Name::literal("double"), json!({"n": n}).into());
        let tasks = (0..count).map(|n| Submission::new(spec(n))).collect();
        let answers = self.engine.task_submit(tasks).await.unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    /// Each of the tasks was completed, by its first attempt.
    async fn expect_doubled(&self, tasks: &[TaskId]) {
        for (n, task) in tasks.iter().enumerate() {
            let done = self.engine.task_wait(*task, SOON).await.unwrap();
            assert_eq!((done.status, done.attempts), (TaskStatus::Completed, 1));
            assert_eq!(done.output.unwrap().value(), json!(2 * n));
        }
    }

    async fn expect_status(&self, worker: &str, wanted: WorkerStatus) {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let worker = self.engine.worker_get(worker.parse().unwrap()).await;
            if worker.unwrap().status == wanted {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "never {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn doubling(capacity: u32, runs: &Arc<AtomicUsize>) -> Worker {
    let runs = Arc::clone(runs);
    let handler = move |task: Context| {
        runs.fetch_add(1, SeqCst);
        async move { Ended::done(json!(2 * task.input()["n"].as_u64().unwrap())) }
    };
    let worker = Worker::new("w").unwrap().capacity(capacity);
    worker.handle("double", handler).unwrap()
}

// S0-56: a worker of a kind of one's own, made with the library alone.
#[tokio::test]
async fn one_claim_waits_however_much_room_there_is() {
    let (house, client) = House::open().await;
    let runs = Arc::default();
    let worker = doubling(64, &runs).start(client).await.unwrap();
    let tasks = house.submit(500).await;
    house.expect_doubled(&tasks).await;
    assert_eq!(house.claiming_most.load(SeqCst), 1);
    // Reports go together, and along with claims.
    assert!(house.works.load(SeqCst) < 500);
    worker.stop().await.unwrap();
    house.expect_status("w", WorkerStatus::Unavailable).await;
}

#[tokio::test]
async fn a_report_does_not_wait_behind_a_claim() {
    let (house, client) = House::open().await;
    let worker = doubling(2, &Arc::default()).start(client).await.unwrap();
    // One at a time: there is always room, so a claim always waits.
    for _ in 0..5 {
        let task = house.submit(1).await[0];
        // Less than a claim waits.
        let wait = Duration::from_secs(10);
        let done = house.engine.task_wait(task, wait).await.unwrap();
        assert_eq!(done.status, TaskStatus::Completed);
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn lost_answers_lose_no_task_and_run_none_twice() {
    let (house, client) = House::open().await;
    house.loses_every.store(3, SeqCst);
    let runs = Arc::default();
    let worker = doubling(8, &runs).start(client).await.unwrap();
    let tasks = house.submit(100).await;
    house.expect_doubled(&tasks).await;
    assert_eq!(runs.load(SeqCst), 100);
    house.loses_every.store(0, SeqCst);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_report_survives_a_server_that_is_away() {
    let (house, client) = House::open().await;
    let (begun, ends) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, end) = (Arc::clone(&begun), Arc::clone(&ends));
    let handler = move |_: Context| {
        let (began, end) = (Arc::clone(&began), Arc::clone(&end));
        async move {
            began.notify_one();
            end.notified().await;
            Ended::done(json!(0))
        }
    };
    let worker = Worker::new("w").unwrap().handle("double", handler).unwrap();
    let worker = worker.describe(|spec| spec.lease_ms = 60_000);
    let worker = worker.start(client).await.unwrap();
    let tasks = house.submit(1).await;
    begun.notified().await;
    house.is_away.store(true, SeqCst);
    ends.notify_one();
    // Longer than the client itself tries.
    tokio::time::sleep(Duration::from_secs(2)).await;
    house.is_away.store(false, SeqCst);
    house.expect_doubled(&tasks).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_was_lost_stops_what_it_lost_and_comes_back() {
    let (house, client) = House::open().await;
    let (first, stopped) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::default()),
    );
    let over = Arc::clone(&stopped);
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let handler = move |task: Context| {
        let (is_first, over) = (first.swap(false, SeqCst), Arc::clone(&over));
        let begins = Arc::clone(&begins);
        async move {
            if is_first {
                let _dropped = Dropped(over);
                begins.notify_one();
                std::future::pending::<()>().await;
            }
            Ended::done(json!(task.assignment().attempt))
        }
    };
    let worker = Worker::new("w").unwrap().handle("double", handler).unwrap();
    let worker = worker.describe(|spec| spec.lease_ms = 500);
    let worker = worker.start(client).await.unwrap();
    let task = house.submit(1).await[0];
    begun.notified().await;
    house.is_away.store(true, SeqCst);
    house.expect_status("w", WorkerStatus::Unavailable).await;
    house.is_away.store(false, SeqCst);
    let done = house.engine.task_wait(task, SOON).await.unwrap();
    assert_eq!((done.status, done.attempts), (TaskStatus::Completed, 2));
    assert!(stopped.load(SeqCst));
    worker.stop().await.unwrap();
}

/// Notes that a handler was ended.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_server_that_is_gone() {
    let (house, client) = House::open().await;
    let ended = Arc::new(AtomicBool::default());
    let over = Arc::clone(&ended);
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let handler = move |_: Context| {
        let (over, begins) = (Arc::clone(&over), Arc::clone(&begins));
        async move {
            let _dropped = Dropped(over);
            begins.notify_one();
            std::future::pending::<Ended>().await
        }
    };
    let worker = Worker::new("w").unwrap().handle("double", handler).unwrap();
    let worker = worker.describe(|spec| spec.lease_ms = 500);
    let worker = worker.start(client).await.unwrap();
    house.submit(1).await;
    begun.notified().await;
    house.is_away.store(true, SeqCst);
    let stopped = tokio::time::timeout(SOON, worker.stop()).await.unwrap();
    assert_eq!(stopped.unwrap_err().code, Code::ServerStrange);
    assert!(ended.load(SeqCst));
}

#[tokio::test]
async fn reports_that_are_too_large_together_go_alone() {
    let (house, client) = House::open().await;
    house.bytes_max.store(100_000, SeqCst);
    let together = Arc::new(tokio::sync::Barrier::new(4));
    let handler = move |task: Context| {
        let together = Arc::clone(&together);
        async move {
            let n = task.input()["n"].as_u64().unwrap();
            let bytes = if n == 2 { 200_000 } else { 60_000 };
            together.wait().await;
            Ended::done(json!("x".repeat(bytes)))
        }
    };
    let worker = Worker::new("w").unwrap().capacity(4);
    let worker = worker.handle("double", handler).unwrap();
    let worker = worker.start(client).await.unwrap();
    let tasks = house.submit(4).await;
    for (n, task) in tasks.into_iter().enumerate() {
        let done = house.engine.task_wait(task, SOON).await.unwrap();
        if n == 2 {
            assert_eq!(done.status, TaskStatus::Failed);
            assert_eq!(done.failure.unwrap().code, "payload.too_large");
        } else {
            assert_eq!(done.status, TaskStatus::Completed);
        }
    }
    worker.stop().await.unwrap();
}

// A server that takes no words holds nobody up: the work goes on, and its result comes.
#[tokio::test]
async fn a_server_that_does_not_listen_slows_nothing() {
    let (house, client) = House::open().await;
    let talk = |task: Context| async move {
        let turn = task.next_turn();
        for _ in 0..200_000 {
            let text = "many words ".to_owned();
            task.say(Said::Text { turn, text });
        }
        // So that somebody began to send them.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ended::done(json!(7))
    };
    let worker = Worker::new("w").unwrap().handle("talk", talk).unwrap();
    let worker = worker.start(client).await.unwrap();
    let run = serde_json::from_value(json!({"goal": "talk", "supervisor": "sup",
        "graph": {"steps": [{"id": "one", "task": {"kind": "talk"}}]}}));
    let run = house.engine.run_start(run.unwrap()).await.unwrap();
    let until = tokio::time::Instant::now() + SOON;
    while house.engine.run_get(run).await.unwrap().ended_at.is_none() {
        assert!(
            tokio::time::Instant::now() < until,
            "it waits for a listener"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let view = house.engine.run_get(run).await.unwrap();
    assert_eq!(view.status.as_str(), "completed");
    assert!(house.says.load(SeqCst) > 0);
    worker.stop().await.unwrap();
}

/// A task of this type, by now.
async fn of_kind(house: &House, kind: &str) -> TaskId {
    let spec = TaskSpec {
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 1,
            ..RetryPolicy::default()
        },
        ..TaskSpec::new(kind.parse().unwrap(), json!({"to": "Ann"}).into())
    };
    let made = house.engine.task_submit(vec![Submission::new(spec)]).await;
    made.unwrap().remove(0).unwrap()
}

// S0-58: a task goes to the handler of its type; one that has none to the handler for all others, where a
// worker has declared one; and where nobody has, it waits and says for what, or fails and says why. S0-70: two
// of the types are this test's own, and it has nothing but the library's public parts.
#[tokio::test]
async fn a_task_goes_to_the_handler_of_its_type_and_never_succeeds_without_one() {
    let (house, client) = House::open().await;
    let writes = async |task: Context| {
        let to = task.input()["to"].as_str().unwrap_or_default().to_owned();
        Ended::done(json!(format!("Dear {to},")))
    };
    let mixes = async |_: Context| Ended::done(json!("green"));
    let worker = Worker::new("w").unwrap();
    let worker = worker.handle("create_intro_email", writes).unwrap();
    let worker = worker.handle("mix_paint", mixes).unwrap();
    let worker = worker.start(client.clone()).await.unwrap();
    for (kind, made) in [("create_intro_email", "Dear Ann,"), ("mix_paint", "green")] {
        let task = of_kind(&house, kind).await;
        let done = house.engine.task_wait(task, SOON).await.unwrap();
        assert_eq!(done.status, TaskStatus::Completed, "{done:?}");
        assert_eq!(done.output.unwrap().value(), json!(made), "{kind}");
    }
    // Of a type that nobody handles: it is not given out, and says what it waits for.
    let alone = of_kind(&house, "paint_wall").await;
    let waits = house.engine.task_get(alone).await.unwrap();
    assert_eq!(waits.status, TaskStatus::Pending);
    let told = json!(waits.waits_for).to_string();
    assert!(
        told.contains("no_capable_worker") && told.contains("paint_wall"),
        "{told}"
    );
    // A worker that takes everything and handles nothing: a failure with a code, from both attempts.
    let takes = Worker::new("takes").unwrap().describe(|spec| {
        spec.queues = vec!["walls".parse().unwrap()];
    });
    let takes = takes.start(client.clone()).await.unwrap();
    let spec = TaskSpec {
        queue: "walls".parse().unwrap(),
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 1,
            ..RetryPolicy::default()
        },
        ..TaskSpec::new("paint_wall".parse().unwrap(), json!({}).into())
    };
    let made = house.engine.task_submit(vec![Submission::new(spec)]).await;
    let task = made.unwrap().remove(0).unwrap();
    let failed = house.engine.task_wait(task, SOON).await.unwrap();
    assert_eq!(failed.status, TaskStatus::Failed, "{failed:?}");
    let failure = failed.failure.unwrap();
    assert_eq!(failure.code, "worker.no_handler");
    assert!(failure.message.contains("“paint_wall”"), "{failure:?}");
    assert!(failed.output.is_none());
    // One that has declared what it does with all others does it.
    let any = Worker::new("any").unwrap();
    let any = any.handle_any(async |task: Context| {
        Ended::done(json!(format!("{}: as any other", task.assignment().kind)))
    });
    let any = any.start(client).await.unwrap();
    let done = house.engine.task_wait(alone, SOON).await.unwrap();
    assert_eq!(
        done.output.unwrap().value(),
        json!("paint_wall: as any other")
    );
    for worker in [worker, takes, any] {
        worker.stop().await.unwrap();
    }
}
