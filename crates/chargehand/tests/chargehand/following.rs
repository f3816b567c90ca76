//! Following the log over connections that break.

use crate::script::{Answer, Script, Seen, json, lost, problem};
use chargehand::{Code, Error, EventFilter};
use domain::event::{Event, Recorded};
use domain::name::Name;
use domain::time::Time;
use std::time::Duration;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";

fn event(position: u64) -> String {
    let recorded = Recorded {
        position,
        at: Time(1),
        cause: None,
        by: None,
        event: Event::QueuePaused {
            queue: Name::literal("q"),
        },
    };
    let data = serde_json::to_string(&recorded).unwrap();
    format!("id: {position}\nevent: queue.paused\ndata: {data}\n\n")
}

fn stream(parts: &[&str]) -> Answer {
    Answer::BreakOff(format!("{HEAD}retry: 1\n\n{}", parts.concat()))
}

fn resumes_from(seen: &Seen) -> (&str, bool) {
    let after = seen.header("last-event-id");
    (after, seen.line.contains(&format!("after={after}")))
}

#[tokio::test]
async fn a_broken_stream_goes_on_without_a_gap_or_a_repeat() {
    let refused = Error::new(Code::KeyRefused, "revoked");
    let script = Script::new(move |n, _| match n {
        0 => stream(&[&event(1), &event(2), &event(3)[..20]]),
        1 => stream(&[": hello\n\n", &event(2), &event(3)]),
        2 => stream(&["event: lagged\ndata: {\"next\": 9}\n\n", &event(9)]),
        // Nothing of interest happened up to 7.
        3 => stream(&["id: 7\n\n"]),
        4 => stream(&[&event(8)]),
        _ => problem(&refused, ""),
    });
    let script = script.await;
    let filter = EventFilter {
        run: Some(domain::id::RunId::new(5)),
        ..EventFilter::types(["queue.*", "run.*"])
    };
    let mut events = script.client().events(0, filter);
    let mut positions = Vec::new();
    let error = loop {
        match events.next().await.unwrap() {
            Ok(event) => positions.push(event.position),
            Err(error) => break error,
        }
    };
    assert_eq!(positions, [1, 2, 3, 8]);
    assert_eq!(error.code, Code::KeyRefused);
    assert!(events.next().await.is_none());
    let seen = script.seen();
    assert_eq!(seen[0].header("accept"), "text/event-stream");
    let run = domain::id::RunId::new(5);
    let line = format!("GET /v1/events?after=0&limit=0&type=queue.*%2Crun.*&run={run}");
    assert_eq!(seen[0].line, line);
    let resumed: Vec<_> = seen[1..].iter().map(resumes_from).collect();
    let expected = ["2", "3", "3", "7", "8"].map(|after| (after, true));
    assert_eq!(resumed, expected);
}

#[tokio::test]
async fn a_silent_stream_is_opened_anew() {
    let script = Script::new(|n, _| match n {
        0 => Answer::Bytes(format!("{HEAD}: nothing more\n\n")),
        1 => Answer::Bytes(String::new()),
        _ => Answer::Bytes(format!("{HEAD}{}", event(1))),
    });
    let script = script.await;
    let impatient = script.builder().quiet(Duration::from_millis(200));
    let mut events = impatient.build().unwrap().events(0, EventFilter::default());
    assert_eq!(events.next().await.unwrap().unwrap().position, 1);
    assert_eq!(script.seen().len(), 3);
}

#[tokio::test]
async fn asking_that_was_given_up_loses_nothing() {
    let script = Script::new(|_, _| {
        let all: String = (1..=50).map(event).collect();
        stream(&[&all])
    });
    let script = script.await;
    let mut events = script.client().events(0, EventFilter::default());
    let mut positions = Vec::new();
    while positions.len() < 50 {
        let soon = Duration::from_millis(3);
        if let Ok(event) = tokio::time::timeout(soon, events.next()).await {
            positions.push(event.unwrap().unwrap().position);
        }
    }
    assert_eq!(positions, (1..=50).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_server_that_stays_away_is_told_of() {
    let script = Script::new(|n, _| match n {
        0..5 => lost(),
        _ => stream(&[&event(1)]),
    });
    let script = script.await;
    let mut events = script.client().events(0, EventFilter::default());
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.code, script.seen().len()),
        (Code::ServerUnreachable, 5)
    );
    assert_eq!(events.next().await.unwrap().unwrap().position, 1);
}

#[tokio::test]
async fn an_event_of_tomorrow_is_passed_over() {
    let tomorrow = "id: 1\nevent: quantum.flux\ndata: {\"position\": 1}\n\n";
    let script = Script::new(move |_, _| stream(&[tomorrow, &event(2)])).await;
    let mut events = script.client().events(0, EventFilter::default());
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::ServerStrange);
    assert!(error.message.contains("quantum.flux"), "{error}");
    assert_eq!(events.next().await.unwrap().unwrap().position, 2);
}

#[tokio::test]
async fn an_event_has_a_bound_and_a_stream_a_type() {
    let long = format!("data: {}", "x".repeat(200));
    let script = Script::new(move |_, _| stream(&[&long])).await;
    let small = script.builder().answer_bytes_max(100).build().unwrap();
    let mut events = small.events(0, EventFilter::default());
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.message.contains("100 bytes"), "{error}");
    assert!(events.next().await.is_none());

    let script = Script::new(|_, _| json("{}")).await;
    let mut events = script.client().events(0, EventFilter::default());
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::ServerStrange);
    assert!(events.next().await.is_none());
}
