//! What one tenant may take, and that another does not notice.

use super::*;

impl House {
    /// Two tenants that may do everything.
    async fn two(&self) -> (String, String) {
        let a = self.key("tenant-a", "a", &[Scope::Admin]).await;
        (a, self.key("tenant-b", "b", &[Scope::Admin]).await)
    }
}

#[tokio::test]
async fn a_tenant_that_asks_too_often_is_told_when_to_come_again_and_no_other_is() {
    let rate = [
        ("limits.requests_per_second", "1"),
        ("limits.requests_burst", "3"),
    ];
    let house = House::open(&config(&rate)).await;
    let (a, b) = house.two().await;
    let submit = |key: &str| {
        house
            .post("/v1/tasks", &json!({"kind": "k"}))
            .key(key)
            .told()
    };
    let mut accepted = 0;
    let refused = within(async {
        loop {
            let told = submit(&a).await;
            if told.status != 201 {
                return told;
            }
            accepted += 1;
        }
    })
    .await;
    assert!(accepted >= 3, "{accepted} at once");
    refused.problem(429, "server.rate_limited");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    let statistics = house.engine("tenant-a");
    let statistics = protocol::ApiRead::statistics(&statistics).await.unwrap();
    assert_eq!(
        statistics.total_tasks_submitted, accepted,
        "nothing more is stored"
    );
    submit(&b).await.of(201);
    // Whether it lives is asked by nobody's key.
    for _ in 0..10 {
        assert_eq!(house.get("/healthz").status().await, 200);
    }
    within(async {
        while submit(&a).await.status != 201 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    house.stop().await;
}

#[tokio::test]
async fn a_tenant_has_no_more_open_than_its_quota() {
    let quotas = [
        ("quotas.tasks_open", "3"),
        ("quotas.runs_open", "1"),
        ("quotas.workers", "1"),
    ];
    let house = House::open(&config(&quotas)).await;
    let (a, b) = house.two().await;
    let post = |key: &str, path: &str, body: &Value| house.post(path, body).key(key).told();
    let (task, worker) = (json!({"kind": "k"}), json!({"id": "w", "capacity": 3}));
    let run = body_of("run_start", &Parts::of_nothing()).unwrap();
    post(&a, "/v1/runs", &run).await.of(201);
    post(&a, "/v1/workers", &worker).await.of(201);
    for _ in 0..2 {
        post(&a, "/v1/tasks", &task).await.of(201);
    }
    let other = json!({"id": "other"});
    for (path, body) in [
        ("/v1/tasks", &task),
        ("/v1/runs", &run),
        ("/v1/workers", &other),
    ] {
        let position = *house.engine("tenant-a").head().borrow();
        let told = post(&a, path, body).await;
        told.problem(429, "quota.exceeded");
        assert!(told.header("retry-after").is_some());
        assert_eq!(*house.engine("tenant-a").head().borrow(), position);
    }
    let many = json!({"tasks": [{"spec": task}, {"spec": task}]});
    let told = post(&a, "/v1/tasks/batch", &many).await;
    for result in told.of(200)["results"].as_array().unwrap() {
        assert_eq!(result["problem"]["code"], "quota.exceeded");
    }
    // Registering again is the same worker.
    post(&a, "/v1/workers", &worker).await.of(201);
    for (path, body) in [("/v1/tasks", &task), ("/v1/workers", &other)] {
        post(&b, path, body).await.of(201);
    }
    // When something has ended there is room.
    let claim = json!({"claim": {"max": 1, "starts": true}});
    let held = post(&a, "/v1/workers/w/work", &claim).await.of(200)["tasks"][0].clone();
    post(&a, "/v1/tasks", &task)
        .await
        .problem(429, "quota.exceeded");
    let done = json!({"reports": [{"task_id": held["task_id"], "attempt": 1,
        "report": {"completed": {"output": 1}}}]});
    post(&a, "/v1/workers/w/work", &done).await.of(200);
    post(&a, "/v1/tasks", &task).await.of(201);
    house.stop().await;
}

// S4-27: the work of one tenant does not stand in another's way. What counts is not how long it took,
// but that a hundred thousand tasks were still waiting when the other's were done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_one_tenant_is_not_in_anothers_way() {
    const BACKLOG: u64 = 100_000;
    const ROUNDS: u64 = 10;
    let house = House::memory().await;
    let (a, b) = house.two().await;
    let batch = json!({"tasks": vec![json!({"spec": {}}); 10_000]}).to_string();
    for _ in 0..BACKLOG / 10_000 {
        let ask = house.ask(Method::POST, "/v1/tasks/batch").key(&a);
        ask.text(batch.clone()).told().await.of(200);
    }
    let work = async |key: &str, body: Value| {
        let told = house
            .post("/v1/workers/w/work", &body)
            .key(key)
            .told()
            .await;
        told.of(200).clone()
    };
    for key in [&a, &b] {
        let worker = json!({"id": "w", "capacity": 10});
        house
            .post("/v1/workers", &worker)
            .key(key)
            .told()
            .await
            .of(201);
    }
    let finished = |tasks: &Value| -> Vec<Value> {
        let tasks = tasks.as_array().unwrap().iter();
        let report = |task: &Value| {
            json!({"task_id": task["task_id"], "attempt": task["attempt"],
                "report": {"completed": {"output": 1}}})
        };
        tasks.map(report).collect()
    };
    // A's worker never stops; B's single tasks come in between.
    let busy = async {
        let mut reports = Vec::new();
        loop {
            let body = json!({"reports": reports, "claim": {"max": 10, "starts": true}});
            reports = finished(&work(&a, body).await["tasks"]);
            assert_eq!(reports.len(), 10);
        }
    };
    let single = async {
        for _ in 0..ROUNDS {
            house
                .post("/v1/tasks", &json!({}))
                .key(&b)
                .told()
                .await
                .of(201);
            let body = json!({"claim": {"max": 1, "starts": true}});
            let reports = finished(&work(&b, body).await["tasks"]);
            assert_eq!(reports.len(), 1, "it is there for whoever asks next");
            work(&b, json!({"reports": reports})).await;
        }
    };
    within(async {
        tokio::select! {
            () = busy => {}
            () = single => {}
        }
    })
    .await;
    let waiting = house.get("/v1/statistics").key(&a).told().await;
    let pending = waiting.of(200)["tasks_pending"].as_u64().unwrap();
    assert!(
        pending > BACKLOG * 9 / 10,
        "{pending} of A's tasks were left"
    );
    let done = house.get("/v1/statistics").key(&b).told().await;
    assert_eq!(done.of(200)["tasks_completed"], ROUNDS);
    house.stop().await;
}
