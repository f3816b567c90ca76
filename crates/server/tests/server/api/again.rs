//! The same request twice: because an answer was lost, or the server was.

use super::*;

/// What creates something, and takes a key that makes it safe to send again.
const CREATING: [&str; 5] = [
    "task_submit",
    "task_submit_many",
    "run_start",
    "entry_write",
    "message_send",
];

#[test]
fn every_operation_that_takes_a_key_is_tried() {
    let document: Value = serde_json::from_str(&server::http::openapi()).unwrap();
    for operation in operations() {
        let described =
            &document["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        let parameters = described["parameters"].as_array().into_iter().flatten();
        let takes = parameters
            .filter(|parameter| parameter["name"] == "Idempotency-Key")
            .count();
        let tried = CREATING.contains(&operation.id.as_str());
        assert_eq!(takes == 1, tried, "{}", operation.id);
    }
}

impl House {
    async fn create(&self, operation: &str, key: &str, body: &Value) -> Told {
        let path = match operation {
            "task_submit" => "/v1/tasks",
            "task_submit_many" => "/v1/tasks/batch",
            "run_start" => "/v1/runs",
            "entry_write" => "/v1/entries",
            _ => "/v1/messages",
        };
        self.post(path, body)
            .header("idempotency-key", key)
            .told()
            .await
    }
}

/// The same body with one thing changed.
fn other(operation: &str) -> Value {
    let mut body = body_of(operation, &Parts::of_nothing()).unwrap();
    match operation {
        "task_submit" => body["kind"] = json!("other"),
        "task_submit_many" => body["tasks"][0]["spec"]["kind"] = json!("other"),
        "run_start" => body["goal"] = json!("other"),
        "entry_write" => body["content"] = json!("other"),
        _ => body["kind"] = json!("other"),
    }
    body
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_done_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(&stored(folder.path(), &[])).await;
    house.ask(Method::PUT, "/v1/inboxes/b").told().await.of(204);
    let mut first = Vec::new();
    for operation in CREATING {
        let body = body_of(operation, &Parts::of_nothing()).unwrap();
        let told = house
            .create(operation, &format!("of-{operation}"), &body)
            .await;
        assert!([200, 201].contains(&told.status), "{}", told.text);
        first.push((operation, told));
    }
    for restarted in [false, true] {
        if restarted {
            house.stop().await;
            house = House::open(&stored(folder.path(), &[])).await;
        }
        let position = house.position();
        for (operation, told) in &first {
            let body = body_of(operation, &Parts::of_nothing()).unwrap();
            let again = house
                .create(operation, &format!("of-{operation}"), &body)
                .await;
            assert_eq!(
                (again.status, &again.body),
                (told.status, &told.body),
                "{operation}"
            );
            let changed = house
                .create(operation, &format!("of-{operation}"), &other(operation))
                .await;
            if *operation == "task_submit_many" {
                // Each of many is answered for itself.
                let problem = &changed.of(200)["results"][0]["problem"];
                assert_eq!(problem["code"], "idempotency.mismatch");
            } else {
                changed.problem(409, "idempotency.mismatch");
            }
        }
        assert_eq!(house.position(), position, "nothing was done");
    }
    // A key names one request, whatever it is for.
    let run = body_of("run_start", &Parts::of_nothing()).unwrap();
    let told = house.create("run_start", "of-task_submit", &run).await;
    told.problem(409, "idempotency.mismatch");
    // With a key of its own it is another thing.
    let body = body_of("task_submit", &Parts::of_nothing()).unwrap();
    let told = house.create("task_submit", "key-2", &body).await;
    assert_ne!(told.of(201), &first[0].1.body);
    house.stop().await;
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_done_once() {
    let house = House::memory().await;
    house.ask(Method::PUT, "/v1/inboxes/b").told().await.of(204);
    for operation in CREATING {
        let body = body_of(operation, &Parts::of_nothing()).unwrap();
        let all = (0..16).map(|_| house.create(operation, operation, &body));
        let all = futures_util::future::join_all(all).await;
        for told in &all {
            assert_eq!(
                (told.status, &told.body),
                (all[0].status, &all[0].body),
                "{operation}"
            );
        }
        assert!(all[0].status < 300, "{}", all[0].text);
    }
    house.stop().await;
}

#[tokio::test]
async fn a_key_in_the_body_is_the_same_as_in_the_header() {
    let house = House::memory().await;
    let mut body = body_of("run_start", &Parts::of_nothing()).unwrap();
    let first = house.create("run_start", "k", &body).await.of(201).clone();
    body["key"] = json!("k");
    assert_eq!(house.post("/v1/runs", &body).told().await.of(201), &first);
    assert_eq!(house.create("run_start", "k", &body).await.of(201), &first);
    let told = house.create("run_start", "another", &body).await;
    told.problem(409, "idempotency.mismatch");
    for wrong in ["", " ", "k\u{7f}", "\u{e9}"] {
        let ask = house.post("/v1/runs", &body).0;
        let value = reqwest::header::HeaderValue::from_bytes(wrong.as_bytes());
        let Ok(value) = value else { continue };
        let told = Ask(ask.header("idempotency-key", value)).told().await;
        told.problem(400, "name.malformed");
    }
    let long = "k".repeat(129);
    house
        .create("run_start", &long, &body)
        .await
        .problem(400, "name.malformed");
    house.stop().await;
}

#[tokio::test]
async fn an_id_of_the_submitters_own_is_one_task_however_often_it_is_sent() {
    let house = House::memory().await;
    let path = format!("/v1/tasks/task_{}", "0".repeat(25) + "1");
    let body = json!({"kind": "count"});
    let first = house.put(&path, &body).told().await.of(201).clone();
    let position = house.position();
    assert_eq!(house.put(&path, &body).told().await.of(201), &first);
    house
        .put(&path, &json!({"kind": "x"}))
        .told()
        .await
        .problem(409, "task.exists");
    assert_eq!(house.position(), position);
    house.stop().await;
}
