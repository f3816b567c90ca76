//! What goes with a request, what an answer means, and what is said again.

use crate::script::{Answer, Script, json, lost, problem, with};
use chargehand::{Api, ApiRead, Client, Code, Error, Name};
use domain::blackboard::NewEntry;
use domain::id::TaskId;
use protocol::api::{Claim, Work};
use std::time::Duration;

const KEY: &str = "ch_secret-0123456789";

fn overloaded() -> Error {
    Error::new(Code::Overloaded, "too much")
}

fn nothing_is_lost() -> Answer {
    json("{\"items\": []}")
}

#[tokio::test]
async fn a_request_says_who_asks_and_for_what() {
    let script = Script::new(|_, _| nothing_is_lost()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let client = Client::builder(format!("{}/crew/", script.url))
        .key(KEY)
        .build()
        .unwrap();
    client.queue_list().await.unwrap();
    let traced = client.on_behalf(trace.parse().unwrap());
    traced.queue_list().await.unwrap();
    let seen = script.seen();
    assert_eq!(seen[0].line, "GET /crew/v1/queues");
    assert_eq!(seen[0].header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(seen[0].header("accept"), "application/json");
    let agent = format!("chargehand/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen[0].header("user-agent"), agent);
    assert_eq!(seen[0].header("traceparent"), "");
    assert_eq!(seen[1].header("traceparent"), trace);
    assert_eq!(seen[0].header("x-request-id").len(), 32);
    assert_ne!(
        seen[0].header("x-request-id"),
        seen[1].header("x-request-id")
    );
}

#[tokio::test]
async fn the_key_is_never_shown() {
    let page = format!("<html>502 {KEY} {}\u{7}</html>", "x".repeat(1_000));
    let script = Script::new(move |_, _| with(200, "", &page)).await;
    let builder = script.builder().key(KEY);
    assert!(!format!("{builder:?}").contains("secret"));
    let client = builder.build().unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let error = client.queue_list().await.unwrap_err();
    assert_eq!(error.code, Code::ServerStrange);
    assert!(error.message.contains("200") && error.message.contains("<html>502 …"));
    assert!(!error.message.contains("secret") && !error.message.contains('\u{7}'));
    assert!(error.message.len() < 500, "{error}");
    let bad = Client::builder(&script.url)
        .key("a\nb")
        .build()
        .unwrap_err();
    assert_eq!(bad.code, Code::KeyRefused);
}

#[tokio::test]
async fn an_error_reads_the_same_on_both_sides() {
    let unknown = Error::new(Code::TaskUnknown, "there is no such task").hint("look again");
    let answered = unknown.clone();
    let script = Script::new(move |_, _| problem(&answered, "")).await;
    let error = script.client().task_get(TaskId::new(7)).await.unwrap_err();
    assert_eq!(error, unknown);
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn who_is_not_there_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::builder(&url).build().unwrap().statistics().await;
    let error = error.unwrap_err();
    assert_eq!(error.code, Code::ServerUnreachable);
    assert!(error.message.contains(&url), "{error}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_four_times_in_all() {
    let script = Script::new(|_, _| lost()).await;
    let error = script.client().queue_list().await.unwrap_err();
    assert_eq!(error.code, Code::ServerUnreachable);
    let seen = script.seen();
    assert_eq!(seen.len(), 4);
    // It is one request, and reads as one in the server's log.
    let id = seen[0].header("x-request-id");
    assert!(seen.iter().all(|seen| seen.header("x-request-id") == id));

    let script = Script::new(|n, _| if n == 0 { lost() } else { nothing_is_lost() }).await;
    assert!(script.client().queue_list().await.unwrap().is_empty());

    let script = Script::new(|n, _| match n {
        0 => Answer::BreakOff("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"it".into()),
        _ => nothing_is_lost(),
    });
    let script = script.await;
    assert!(script.client().queue_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_might_be_done_twice_is_said_once() {
    let script = Script::new(|_, _| lost()).await;
    let error = script
        .client()
        .task_redrive(TaskId::new(7))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::ServerUnreachable);
    assert_eq!(script.seen().len(), 1);

    // What was turned away was not done.
    let limited = Error::new(Code::RateLimited, "slower");
    let script = Script::new(move |n, _| match n {
        0 => problem(&limited, "retry-after: 0\r\n"),
        _ => with(204, "", ""),
    });
    let script = script.await;
    script.client().task_redrive(TaskId::new(7)).await.unwrap();
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test]
async fn a_server_under_load_is_asked_again_when_it_says() {
    let script = Script::new(|n, _| match n {
        0 => problem(&overloaded(), "retry-after: 1\r\n"),
        1 => with(502, "", "a gateway"),
        _ => nothing_is_lost(),
    });
    let script = script.await;
    let asked = std::time::Instant::now();
    assert!(script.client().queue_list().await.unwrap().is_empty());
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(script.seen().len(), 3);

    // It will not be better for it.
    let corrupt = Error::new(Code::StoreCorrupt, "damaged");
    let script = Script::new(move |_, _| problem(&corrupt, "")).await;
    let error = script.client().queue_list().await.unwrap_err();
    assert_eq!((error.code, script.seen().len()), (Code::StoreCorrupt, 1));

    // Longer than anybody here waits.
    let script = Script::new(|_, _| problem(&overloaded(), "retry-after: 3600\r\n")).await;
    let error = script.client().queue_list().await.unwrap_err();
    assert_eq!((error.code, script.seen().len()), (Code::Overloaded, 1));
}

#[tokio::test]
async fn an_answer_has_a_time_and_a_size() {
    let script = Script::new(|_, _| Answer::Bytes(String::new())).await;
    let hasty = script
        .builder()
        .timeout(Duration::from_millis(50))
        .patience(Duration::ZERO);
    let error = hasty.build().unwrap().queue_list().await.unwrap_err();
    assert_eq!(error.code, Code::ServerUnreachable);
    assert!(error.message.contains("in time"), "{error}");

    let script = Script::new(|_, _| json(&format!("[{}]", " ".repeat(100)))).await;
    let small = script.builder().answer_bytes_max(101).build().unwrap();
    let error = small.queue_list().await.unwrap_err();
    assert_eq!(error.code, Code::ServerStrange);
    assert!(error.message.contains("101 bytes"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let script = Script::new(|_, _| with(302, "location: http://127.0.0.1:1/\r\n", "")).await;
    let error = script.client().queue_list().await.unwrap_err();
    assert_eq!(error.code, Code::ServerStrange);
    assert!(error.message.contains("302"), "{error}");
}

#[tokio::test]
async fn what_is_made_goes_with_a_key_that_its_repetitions_keep() {
    let script = Script::new(|n, _| match n % 2 {
        0 => lost(),
        _ => json("{\"entry_id\": \"entry_00000000000000000000000007\"}"),
    });
    let script = script.await;
    let client = script.client();
    let entry = |key: Option<&str>| NewEntry {
        key: key.map(|key| key.parse().unwrap()),
        ..NewEntry::new(Name::literal("ann"), serde_json::json!(1).into())
    };
    for key in [None, None, Some("order-1"), Some("Bestellung ü")] {
        client.entry_write(entry(key)).await.unwrap();
    }
    let seen = script.seen();
    let keys: Vec<&str> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert_eq!((keys[0].len(), keys[0]), (32, keys[1]));
    assert_ne!(keys[0], keys[2]);
    assert_eq!(keys[4..], ["order-1", "order-1", "", ""]);
    assert!(
        seen[..6]
            .iter()
            .all(|seen| seen.json().get("key").is_none())
    );
    // No header can carry it as text.
    assert_eq!(seen[6].json()["key"], "Bestellung ü");
}

#[tokio::test]
async fn a_claim_with_a_number_is_made_again_under_it() {
    let script = Script::new(|n, _| match n {
        0 | 2 => lost(),
        _ => json("{\"reports\": [], \"tasks\": []}"),
    });
    let script = script.await;
    let client = script.client();
    let claiming = |key| Work {
        worker: Name::literal("w"),
        session: Some(3),
        reports: Vec::new(),
        claim: Some(Claim {
            key,
            ..Claim::new(2, 3_600_000)
        }),
    };
    client.work(claiming(Some(9))).await.unwrap();
    let error = client.work(claiming(None)).await.unwrap_err();
    assert_eq!(error.code, Code::ServerUnreachable);
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].line, "POST /v1/workers/w/work");
    let claim = |n: usize| seen[n].json()["claim"].clone();
    assert_eq!((&claim(0)["key"], claim(0).get("again")), (&9.into(), None));
    assert_eq!(
        (&claim(1)["key"], &claim(1)["again"]),
        (&9.into(), &true.into())
    );
    assert_eq!(claim(0)["wait_ms"], 60_000);
    assert_eq!(seen[0].json()["session"], 3);
}

#[tokio::test]
async fn waits_are_as_long_as_one_likes() {
    let late = Error::new(Code::WaitTimedOut, "not yet");
    let script = Script::new(move |_, seen| match seen.line.contains("head") {
        true => json("{\"position\": 5}"),
        false => problem(&late, ""),
    });
    let script = script.await;
    let client = script.client();
    // It answers sooner than it was asked to.
    let wait = Duration::from_millis(250);
    let asked = std::time::Instant::now();
    assert_eq!(client.event_wait(5, wait).await.unwrap(), 5);
    let error = client.task_wait(TaskId::new(7), wait).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::WaitTimedOut, "not yet")
    );
    assert!(asked.elapsed() >= 2 * wait);
    let seen = script.seen();
    assert!(seen.len() >= 4);
    assert_eq!(seen[0].line, "GET /v1/events/head?after=5&wait_ms=250");
    let task = format!("GET /v1/tasks/{}?wait_ms=250", TaskId::new(7));
    assert_eq!(seen.iter().filter(|seen| seen.line == task).count(), 1);
    // What has happened is told at once.
    let year = Duration::from_secs(365 * 86_400);
    assert_eq!(client.event_wait(4, year).await.unwrap(), 5);
    let last = script.seen().pop().unwrap();
    assert_eq!(last.line, "GET /v1/events/head?after=4&wait_ms=60000");
}
