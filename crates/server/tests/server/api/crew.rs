//! Workers that are streamed to, and what becomes of everybody who waits or works when the server
//! stops and comes again.

use super::follow::{Event, Stream};
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

impl House {
    async fn status(&self, task: &str) -> String {
        let told = self.get(&format!("/v1/tasks/{task}")).told().await;
        told.of(200)["status"].as_str().unwrap().to_owned()
    }

    async fn report(&self, worker: &str, task: &str, attempt: u32, report: &Value) -> Told {
        let path = format!("/v1/tasks/{task}/attempts/{attempt}");
        let body = json!({"worker": worker, "report": report});
        self.post(&path, &body).told().await
    }

    async fn until_status(&self, task: &str, status: &str) {
        within(async {
            while self.status(task).await != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// The tasks that come next, until there are so many.
async fn tasks(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let Event { name, data, .. } = stream.event().await;
        assert_eq!(name, "tasks", "{data}");
        let tasks: Vec<Value> = serde_json::from_str(&data).unwrap();
        assert!(!tasks.is_empty());
        all.extend(
            tasks
                .iter()
                .map(|task| task["task_id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

// S3-46: a worker of capacity 2 is streamed two tasks, and the next as soon as it has reported one.
#[tokio::test]
async fn tasks_come_by_stream_as_far_as_there_is_room() {
    let house = House::memory().await;
    house.register("w", 2).await;
    let path = "/v1/workers/w/stream?session=1&starts=true";
    let mut stream = Stream::open(&house, path, None, None).await;
    let mut submitted = Vec::new();
    for kind in ["a", "b", "c", "d"] {
        submitted.push(house.submit(kind).await);
    }
    let first = tasks(&mut stream, 2).await;
    assert_eq!(first, submitted[..2]);
    assert_eq!(house.status(&first[0]).await, "in_progress");
    assert_eq!(house.status(&submitted[2]).await, "pending");
    let completed = json!({"completed": {"output": 1}});
    house.report("w", &first[0], 1, &completed).await.of(204);
    assert_eq!(tasks(&mut stream, 1).await, submitted[2..3]);
    house.report("w", &first[1], 1, &completed).await.of(204);
    assert_eq!(tasks(&mut stream, 1).await, submitted[3..]);
    // Somebody decides against a task that it has.
    let cancel = format!("/v1/tasks/{}/cancel", submitted[3]);
    house
        .post(&cancel, &json!({"reason": "never mind"}))
        .told()
        .await
        .of(204);
    let told = stream.event().await;
    assert_eq!(told.name, "signals");
    let told = told.json();
    assert_eq!(
        (&told[0]["signal"], &told[0]["task"]),
        (&json!("stop"), &json!(submitted[3]))
    );
    drop(stream);
    house.stop().await;
}

// S3-58: what a worker holds goes back at once when its connection closes, not when its lease ends.
#[tokio::test]
async fn closing_the_stream_gives_everything_back() {
    let house = House::memory().await;
    // A lease that no test waits for.
    let spec = json!({"id": "w", "capacity": 2, "session": 1, "lease_ms": 3_600_000});
    house.post("/v1/workers", &spec).told().await.of(201);
    let mut stream = Stream::open(&house, "/v1/workers/w/stream?session=1", None, None).await;
    let held = [house.submit("a").await, house.submit("b").await];
    assert_eq!(tasks(&mut stream, 2).await, held);
    assert_eq!(house.status(&held[0]).await, "assigned");
    drop(stream);
    for task in &held {
        house.until_status(task, "pending").await;
    }
    let worker = house.get("/v1/workers/w").told().await;
    assert_eq!(worker.of(200)["status"], "unavailable");
    assert_eq!(worker.body["reason"], "its connection closed");
    let late = house
        .report("w", &held[0], 1, &json!({"completed": {"output": 1}}))
        .await;
    late.problem(409, "attempt.stale");
    house.stop().await;
}

#[tokio::test]
async fn a_stream_of_an_earlier_life_is_told_and_disturbs_nobody() {
    let house = House::memory().await;
    let path = "/v1/workers/w/stream?session=1";
    house.get(path).told().await.problem(404, "worker.unknown");
    house.register("w", 1).await;
    let other = house.get("/v1/workers/w/stream?session=9").told().await;
    other.problem(409, "worker.superseded");
    // It is full, and idle, each in turn: either way it is told at once.
    for busy in [false, true] {
        house.register("w", 1).await;
        let mut old = Stream::open(&house, path, None, None).await;
        let mut held = None;
        if busy {
            let task = house.submit("a").await;
            assert_eq!(tasks(&mut old, 1).await, [task.as_str()]);
            held = Some(task);
        }
        let next = json!({"id": "w", "session": 2});
        house.post("/v1/workers", &next).told().await.of(201);
        let event = old.event().await;
        assert_eq!(
            (event.name.as_str(), &event.json()["code"]),
            ("problem", &json!("worker.superseded"))
        );
        assert_eq!(old.next().await, None, "that is the end");
        let worker = house.get("/v1/workers/w").told().await;
        assert_eq!(worker.of(200)["status"], "available");
        if let Some(task) = held {
            // The new life gets what the old one had, and keeps it when the old stream is gone.
            let work = json!({"session": 2, "claim": {"max": 1, "starts": true}});
            assert_eq!(
                house.work("w", &work).await["tasks"][0]["task_id"],
                task.as_str()
            );
            drop(old);
            house
                .report("w", &task, 2, &json!({"completed": {"output": 1}}))
                .await
                .of(204);
        }
        let leave = house.ask(Method::DELETE, "/v1/workers/w?session=2");
        leave.told().await.of(204);
    }
    house.stop().await;
}

#[tokio::test]
async fn whoever_waits_when_the_server_stops_is_answered_at_once_with_nothing() {
    let house = House::memory().await;
    house.register("w", 1).await;
    house
        .ask(Method::PUT, "/v1/inboxes/agent")
        .told()
        .await
        .of(204);
    let task = house.submit_for("nobody").await;
    let run = json!({"goal": "g", "supervisor": "sup",
        "graph": {"steps": [{"id": "one", "task": {"kind": "k", "capability": "none"}}]}});
    let told = house.post("/v1/runs", &run).told().await;
    let run = told.of(201)["run_id"].as_str().unwrap().to_owned();
    let head = house.position();
    let long = 3_600_000;
    let nothing = vec![
        (
            house.post(
                "/v1/workers/w/work",
                &json!({"claim": {"max": 1, "wait_ms": long}}),
            ),
            json!({"reports": [], "tasks": []}),
        ),
        (
            house.post("/v1/workers/w/heartbeat", &json!({"wait_ms": long})),
            json!({"signals": []}),
        ),
        (
            house.post("/v1/inboxes/agent/receive", &json!({"wait_ms": long})),
            json!({"messages": []}),
        ),
        (
            house.get(&format!("/v1/events?after={head}&wait_ms={long}")),
            json!({"items": [], "next": head}),
        ),
        (
            house.get(&format!("/v1/events/head?after={head}&wait_ms={long}")),
            json!({"position": head}),
        ),
    ];
    let refused = vec![
        house.get(&format!("/v1/tasks/{task}?wait_ms={long}")),
        house.get(&format!("/v1/runs/{run}?wait_ms={long}")),
    ];
    let waiting = nothing.len() + refused.len();
    let mut answers = Vec::new();
    for (ask, expected) in nothing {
        let told = tokio::spawn(ask.told());
        answers.push(async move {
            let told = told.await.unwrap();
            assert_eq!(told.of(200), &expected);
        });
    }
    let mut refusals = Vec::new();
    for ask in refused {
        refusals.push(tokio::spawn(ask.told()));
    }
    // All of them have come in when each has its connection: nobody was answered.
    house.until_open(waiting).await;
    let stopping = tokio::spawn(house.stop());
    for answer in answers {
        within(answer).await;
    }
    for told in refusals {
        within(told).await.unwrap().problem(503, "engine.stopped");
    }
    let drained = stopping.await.unwrap();
    assert_eq!(drained.cut, 0, "{drained:?}");
}

impl House {
    async fn submit_for(&self, worker: &str) -> String {
        let task = json!({"kind": "k", "address": {"only": worker}});
        let told = self.post("/v1/tasks", &task).told().await;
        told.of(201)["task_id"].as_str().unwrap().to_owned()
    }

    /// Until so many connections are open besides the one that asks for it, and their requests are
    /// with their handlers.
    async fn until_open(&self, count: usize) {
        within(async {
            loop {
                let told = self.get("/metrics").told().await;
                let line = told
                    .text
                    .lines()
                    .find_map(|line| line.strip_prefix("chargehand_connections_open "));
                if line.unwrap().parse::<usize>().unwrap() > count {
                    // The metrics were asked for later, on a connection that waited its turn.
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    let mut connection = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let body = r#"{"kind": "last words"}"#;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let (first, rest) = body.split_at(10);
    connection
        .write_all(format!("{head}{first}").as_bytes())
        .await
        .unwrap();
    house.until_open(1).await;
    let url = house.url.clone();
    let stopping = tokio::spawn(house.stop());
    // Nobody new is let in; who was let in may finish.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    within(async {
        while client.get(format!("{url}/healthz")).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    connection.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(connection.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let drained = stopping.await.unwrap();
    assert_eq!((drained.finished, drained.cut), (1, 0), "{drained:?}");
    let house = House::open(&stored(folder.path(), &[])).await;
    let tasks = house.get("/v1/tasks").told().await;
    assert_eq!(tasks.of(200)["items"][0]["kind"], "last words");
    house.stop().await;
}

#[tokio::test]
async fn a_lease_outlives_the_server_that_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    let spec = |id: &str| json!({"id": id, "session": 1, "lease_ms": 3_600_000});
    for worker in ["polls", "streams"] {
        house
            .post("/v1/workers", &spec(worker))
            .told()
            .await
            .of(201);
    }
    let polled = house.submit_for("polls").await;
    let claim = json!({"session": 1, "claim": {"max": 1, "starts": true}});
    assert_eq!(
        house.work("polls", &claim).await["tasks"][0]["task_id"],
        polled.as_str()
    );
    let path = "/v1/workers/streams/stream?session=1&starts=true";
    let mut stream = Stream::open(&house, path, None, None).await;
    let streamed = house.submit_for("streams").await;
    assert_eq!(tasks(&mut stream, 1).await, [streamed.as_str()]);
    let stopping = tokio::spawn(house.stop());
    assert_eq!(stream.next().await, None);
    stopping.await.unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    for (worker, task) in [("polls", &polled), ("streams", &streamed)] {
        // The server closed the connection, not the worker.
        assert_eq!(house.status(task).await, "in_progress", "{worker}");
        // It is the same life, which says so and goes on.
        house
            .post("/v1/workers", &spec(worker))
            .told()
            .await
            .of(201);
        house
            .report(worker, task, 1, &json!({"completed": {"output": 1}}))
            .await
            .of(204);
        assert_eq!(house.status(task).await, "completed");
    }
    house.stop().await;
}
