//! Lists in pages: nothing missing and nothing twice, also while others write.

use super::*;
use std::collections::BTreeSet;

/// All pages of a list, each asked for with this limit: its ids, in order.
async fn all(house: &House, path: &str, limit: usize, id: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let told = house
            .get(&format!("{path}?limit={limit}{after}"))
            .told()
            .await;
        let body = told.of(200);
        let items = body["items"].as_array().unwrap();
        // 1,000 is all that a page may have, and 100 when nothing is said.
        let most = [100, limit.min(1_000)][usize::from(limit > 0)];
        assert!(
            items.len() <= most,
            "{path}: {} with limit {limit}",
            items.len()
        );
        let plain = |item: &Value| match &item[id] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        found.extend(items.iter().map(plain));
        let next = match (&body["next"], path) {
            (Value::String(next), _) => next.clone(),
            // The log's position, and the last message: there is always somewhere to go on from.
            (Value::Number(next), _) if !items.is_empty() => next.to_string(),
            (Value::Null, "/v1/messages") if !items.is_empty() => found.last().unwrap().clone(),
            _ => return found,
        };
        after = format!("&after={next}");
    }
}

// S3-63: all workers are listed in pages; so are tasks, runs, messages and events.
#[tokio::test]
async fn pages_of_every_size_have_everything_once() {
    const COUNT: usize = 1_050;
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    let tasks: Vec<_> = (0..COUNT)
        .map(|n| json!({"spec": {"kind": format!("k{n}")}}))
        .collect();
    let told = house
        .post("/v1/tasks/batch", &json!({"tasks": tasks}))
        .told()
        .await;
    let made = told.of(200)["results"].as_array().unwrap();
    let tasks: Vec<_> = made
        .iter()
        .map(|made| made["task_id"].as_str().unwrap())
        .collect();
    let (mut runs, mut workers, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    let text = |told: &Told, name: &str| told.of(201)[name].as_str().unwrap().to_owned();
    house.ask(Method::PUT, "/v1/inboxes/b").told().await.of(204);
    for n in 0..15 {
        let run = body_of("run_start", &Parts::of_nothing()).unwrap();
        runs.push(text(&house.post("/v1/runs", &run).told().await, "run_id"));
        let worker = json!({"id": format!("w{n:02}"), "lease_ms": 3_600_000});
        workers.push(text(
            &house.post("/v1/workers", &worker).told().await,
            "worker_id",
        ));
        let message = body_of("message_send", &Parts::of_nothing()).unwrap();
        messages.push(text(
            &house.post("/v1/messages", &message).told().await,
            "message_id",
        ));
    }
    runs.reverse();
    let head = house.position();
    let events: Vec<_> = (1..=head).map(|n| n.to_string()).collect();
    for limit in [0, 70, 1_000, 5_000] {
        let found = all(&house, "/v1/tasks", limit, "task_id").await;
        // Those of the runs come after.
        assert_eq!(found[..COUNT], tasks, "{limit}");
        assert_eq!(found.len(), COUNT + 15);
        assert_eq!(
            all(&house, "/v1/events", limit, "position").await,
            events,
            "{limit}"
        );
    }
    for limit in [0, 1, 7, 1_000, 5_000] {
        assert_eq!(
            all(&house, "/v1/runs", limit, "run_id").await,
            runs,
            "{limit}"
        );
        assert_eq!(
            all(&house, "/v1/workers", limit, "worker_id").await,
            workers,
            "{limit}"
        );
        assert_eq!(
            all(&house, "/v1/agents", limit, "worker_id").await,
            workers,
            "{limit}"
        );
        assert_eq!(
            all(&house, "/v1/messages", limit, "id").await,
            messages,
            "{limit}"
        );
    }
    house.stop().await;
}

#[tokio::test]
async fn a_list_read_while_others_write_has_all_that_was_there_before() {
    let house = House::memory().await;
    let mut before = BTreeSet::new();
    for n in 0..60 {
        before.insert(house.submit(&format!("k{n}")).await);
    }
    let writing = async {
        for n in 0..120 {
            house.submit(&format!("later{n}")).await;
        }
    };
    let reading = async {
        let mut rounds = Vec::new();
        for limit in [1, 7, 50] {
            rounds.push(all(&house, "/v1/tasks", limit, "task_id").await);
            let events = all(&house, "/v1/events", limit, "position").await;
            let expected: Vec<_> = (1..=events.len()).map(|n| n.to_string()).collect();
            assert_eq!(events, expected);
        }
        rounds
    };
    let ((), rounds) = tokio::join!(writing, reading);
    for found in rounds {
        let once: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(once.len(), found.len(), "nothing twice");
        assert!(once.is_superset(&before), "nothing missing");
        assert!(found.is_sorted(), "oldest first");
    }
    house.stop().await;
}

#[tokio::test]
async fn a_page_beyond_the_end_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    for config in [config(&[]), stored(folder.path(), &[])] {
        let house = House::open(&config).await;
        let task = house.submit("k").await;
        for after in [1, 2, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
            for path in ["/v1/events", "/v1/audit"] {
                let told = house.get(&format!("{path}?after={after}")).told().await;
                assert_eq!(told.of(200), &json!({"items": [], "next": after}));
            }
        }
        let told = house.get(&format!("/v1/tasks?after={task}")).told().await;
        assert_eq!(told.of(200), &json!({"items": []}));
        let told = house
            .get("/v1/events/head?after=18446744073709551615&wait_ms=1")
            .told()
            .await;
        assert_eq!(told.of(200), &json!({"position": 1}));
        house.stop().await;
    }
}
