//! How the contract is said in paths, headers and bodies, where it is more than its words.

use crate::script::{Script, json, with};
use chargehand::{Api, ApiRead, Code, Name, Submission, TaskSpec};
use domain::limits::REQUEST_COMMANDS_MAX;
use domain::pool::{Pool, Strategy};
use domain::worker::{Home, WorkerSpec};
use serde_json::json;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn names_are_said_in_paths_whatever_they_are() {
    let script = Script::new(|_, _| with(204, "", "")).await;
    let client = script.client();
    client.message_unsubscribe(name("a/b ü?")).await.unwrap();
    client.worker_drain(name("w")).await.unwrap();
    let asked = client.worker_error(name("w"), "no disk".into()).await;
    asked.unwrap();
    let leaving = client.worker_leave(name("w"), Some(7), "it stopped & went".into());
    leaving.await.unwrap();
    let seen = script.seen();
    assert_eq!(seen[0].line, "DELETE /v1/inboxes/a%2Fb%20%C3%BC%3F");
    assert_eq!(seen[1].line, "PUT /v1/workers/w/status");
    assert_eq!(seen[1].json()["status"], "draining");
    assert_eq!(
        seen[2].json(),
        json!({"status": "error", "reason": "no disk"})
    );
    let line = "DELETE /v1/workers/w?session=7&reason=it+stopped+%26+went";
    assert_eq!(seen[3].line, line);
    let error = client.worker_drain(name("..")).await.unwrap_err();
    assert_eq!(error.code, Code::NameMalformed);
}

#[tokio::test]
async fn a_worker_over_http_lives_elsewhere() {
    let script = Script::new(|_, _| with(201, "", "{\"worker_id\": \"w\"}")).await;
    let client = script.client();
    assert_eq!(client.home(), Home::Remote);
    let spec = WorkerSpec {
        home: Home::InProcess,
        ..WorkerSpec::new(name("w"))
    };
    client.worker_register(spec).await.unwrap();
    assert_eq!(script.seen()[0].json()["home"], "remote");
}

#[tokio::test]
async fn a_pool_is_changed_as_it_was_read() {
    let pool = Pool {
        id: name("p"),
        strategy: Strategy::default(),
        members: vec![name("w")],
        version: 3,
    };
    let answer = serde_json::to_string(&pool).unwrap();
    let script = Script::new(move |_, _| json(&answer)).await;
    let client = script.client();
    for expected in [None, Some(0), Some(3)] {
        let made = client.pool_define(pool.clone(), expected).await.unwrap();
        assert_eq!(made, pool);
    }
    let seen = script.seen();
    let headers = seen
        .iter()
        .map(|seen| (seen.header("if-none-match"), seen.header("if-match")));
    assert_eq!(
        headers.collect::<Vec<_>>(),
        [("", ""), ("*", ""), ("", "\"3\"")]
    );
    assert_eq!(seen[0].line, "PUT /v1/pools/p");
    assert_eq!(seen[0].json()["members"], json!(["w"]));
    assert!(seen[0].json().get("id").is_none());
}

#[tokio::test]
async fn many_tasks_go_in_requests_of_a_size_and_are_answered_in_order() {
    // Each is answered with its input's number as its id.
    let script = Script::new(|_, seen| {
        let tasks = seen.json()["tasks"].as_array().unwrap().clone();
        let result = |task: &serde_json::Value| {
            let n = task["spec"]["input"]["n"].as_u64().unwrap();
            json!({"task_id": domain::id::TaskId::new(n.into())})
        };
        let results: Vec<_> = tasks.iter().map(result).collect();
        json(&json!({"results": results}).to_string())
    });
    let script = script.await;
    let client = script.client();
    let text = "x".repeat(1_000_000);
    let large = |n: u64| {
        let spec = TaskSpec::new(name("a"), json!({"n": n, "text": text}).into());
        Submission::new(spec)
    };
    let mut tasks: Vec<Submission> = (0..10).map(large).collect();
    tasks[3].key = Some(name("order-1"));
    tasks[4].id = Some(domain::id::TaskId::new(4));
    let answers = client.task_submit(tasks).await.unwrap();
    let ids: Vec<u128> = answers
        .into_iter()
        .map(|answer| answer.unwrap().0)
        .collect();
    assert_eq!(ids, (0..10).collect::<Vec<u128>>());
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.body.len() <= 4 * 1024 * 1024));
    assert!(seen.iter().all(|seen| seen.line == "POST /v1/tasks/batch"));
    let items: Vec<serde_json::Value> = seen
        .iter()
        .flat_map(|seen| seen.json()["tasks"].as_array().unwrap().clone())
        .collect();
    let call = items[0]["key"]
        .as_str()
        .unwrap()
        .strip_suffix("/0")
        .unwrap();
    assert_eq!(items[9]["key"], format!("{call}/9"));
    assert_eq!(items[3]["key"], "order-1");
    assert!(items[4]["key"].is_null());

    let one = Submission::new(TaskSpec::new(name("a"), json!(1).into()));
    let many = vec![one; REQUEST_COMMANDS_MAX + 1];
    let error = client.task_submit(many).await.unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded);
    assert!(client.task_submit(Vec::new()).await.unwrap().is_empty());
    assert_eq!(script.seen().len(), 3);
}

#[tokio::test]
async fn what_was_accepted_is_told_though_the_rest_was_not() {
    let script = Script::new(|n, _| match n {
        0 => json("{\"results\": [{\"task_id\": \"task_00000000000000000000000001\"}]}"),
        _ => with(403, "", "no"),
    });
    let script = script.await;
    let text = json!("x".repeat(3_000_000));
    let spec = || Submission::new(TaskSpec::new(name("a"), text.clone().into()));
    let client = script.client();
    let tasks = vec![spec(), spec(), spec()];
    let answers = client.task_submit(tasks).await.unwrap();
    assert!(answers[0].is_ok());
    for answer in &answers[1..] {
        assert_eq!(answer.as_ref().unwrap_err().code, Code::ServerStrange);
    }
}
