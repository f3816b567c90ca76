//! The log as it grows, followed over streams that break, lag, and come again. Not here: that a quiet
//! stream shows a sign of life, for nobody wants to wait for it; see the test in `http::stream`.

use super::*;
use std::collections::VecDeque;

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Event {
    pub(super) id: Option<u64>,
    pub(super) name: String,
    pub(super) data: String,
}

impl Event {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// A reader of server-sent events.
pub(super) struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Stream {
    pub(super) async fn open(
        house: &House,
        path: &str,
        key: Option<&str>,
        last: Option<u64>,
    ) -> Self {
        let mut ask = house
            .get(path)
            .maybe_key(key)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            ask = ask.header("last-event-id", &last.to_string());
        }
        let response = ask.open().await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            buffer: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next event; none when the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let chunk = within(self.response.chunk()).await.ok()??;
            let searched = self.buffer.len().saturating_sub(1);
            self.buffer.extend_from_slice(&chunk);
            let mut start = 0;
            let mut at = searched;
            while let Some(found) = self.buffer[at..].windows(2).position(|two| two == b"\n\n") {
                let text = std::str::from_utf8(&self.buffer[start..at + found]).unwrap();
                self.ready.extend(read(text));
                (start, at) = (at + found + 2, at + found + 2);
            }
            self.buffer.drain(..start);
        }
    }

    pub(super) async fn event(&mut self) -> Event {
        self.next().await.expect("the stream ended")
    }

    /// Events until one has this position, that one included.
    async fn until(&mut self, position: u64) -> Vec<Event> {
        let mut all = Vec::new();
        while all
            .last()
            .is_none_or(|event: &Event| event.id != Some(position))
        {
            all.push(self.event().await);
        }
        all
    }
}

/// A block of lines, unless nothing but comments and advice is in it.
fn read(block: &str) -> Option<Event> {
    let mut event = Event::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => event.id = Some(id.parse().unwrap()),
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("data", data)) => event.data = data.to_owned(),
            Some(("retry" | "", _)) => {}
            _ => panic!("not a line of a stream: {line:.100}"),
        }
    }
    (!event.name.is_empty()).then_some(event)
}

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| event.id).collect()
}

#[tokio::test]
async fn an_event_in_a_stream_is_the_event_of_the_log() {
    let house = House::memory().await;
    for kind in ["a", "b", "line\u{2028}end"] {
        house.submit(kind).await;
    }
    let page = house.get("/v1/events").told().await;
    let items = page.of(200)["items"].as_array().unwrap();
    let head = house.position();
    let mut stream = Stream::open(&house, "/v1/events", None, None).await;
    let events = stream.until(head).await;
    assert_eq!(events.len(), items.len());
    for (event, item) in events.iter().zip(items) {
        assert_eq!(&event.json(), item);
        assert_eq!(event.id, item["position"].as_u64());
        assert_eq!(event.name, "task.submitted");
    }
    drop(stream);
    house.stop().await;
}

// A reader that is cut off again and again while others write misses nothing and sees nothing twice,
// whichever way it says where it was.
// S3-100: the log is followed from any position.
#[tokio::test]
async fn a_stream_goes_on_where_it_broke_without_gap_or_repeat() {
    let house = House::memory().await;
    let writing = async {
        for n in 0..300 {
            house.submit(&format!("k{n}")).await;
        }
    };
    let reading = async {
        let (mut seen, mut round) = (Vec::new(), 0_u64);
        while seen.len() < 300 {
            round += 1;
            let last = seen.last().copied();
            let mut stream = if round.is_multiple_of(2) {
                // The header goes before the query.
                Stream::open(&house, "/v1/events?after=1", None, Some(last.unwrap_or(0))).await
            } else {
                let path = format!("/v1/events?after={}", last.unwrap_or(0));
                Stream::open(&house, &path, None, None).await
            };
            for _ in 0..1 + (round * 7) % 40 {
                if seen.len() < 300 {
                    seen.push(stream.event().await.id.unwrap());
                }
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(writing, reading);
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    house.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops_and_goes_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    for n in 0..20 {
        house.submit(&format!("k{n}")).await;
    }
    let mut stream = Stream::open(&house, "/v1/events", None, None).await;
    let mut seen = ids(&stream.until(7).await);
    let mut quiet = Stream::open(&house, "/v1/events", None, Some(20)).await;
    let stopping = tokio::spawn(house.stop());
    // What was written is still read to its end by one who reads; then there is no more.
    assert_eq!(quiet.next().await, None);
    while stream.next().await.is_some() {}
    stopping.await.unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    house.submit("after").await;
    let head = house.position();
    let mut stream = Stream::open(&house, "/v1/events", None, Some(7)).await;
    seen.extend(ids(&stream.until(head).await));
    assert_eq!(seen, (1..=head).collect::<Vec<_>>());
    drop(stream);
    house.stop().await;
}

// S3-26: what tasks and runs become is streamed. S3-101: the events of one run come in the order of the log.
#[tokio::test]
async fn a_stream_has_what_its_filter_admits() {
    let house = House::memory().await;
    let run = |goal: &str| {
        json!({"goal": goal, "supervisor": "sup",
            "graph": {"steps": [{"id": "one", "task": {"kind": "count"}}]}})
    };
    let mut runs = Vec::new();
    for goal in ["first", "second"] {
        let told = house.post("/v1/runs", &run(goal)).told().await;
        runs.push(told.of(201)["run_id"].as_str().unwrap().to_owned());
    }
    house.register("w", 2).await;
    let worked = house
        .work("w", &json!({"claim": {"max": 2, "starts": true}}))
        .await;
    for task in worked["tasks"].as_array().unwrap() {
        let report = json!({"reports": [{"task_id": task["task_id"], "attempt": 1,
            "report": {"completed": {"output": 7}}}]});
        house.work("w", &report).await;
    }
    let all: Vec<Event> = {
        let mut stream = Stream::open(&house, "/v1/events", None, None).await;
        stream.until(house.position()).await
    };
    let names = |events: &[Event]| -> Vec<String> {
        events.iter().map(|event| event.name.clone()).collect()
    };
    // What passes is what a filter over everything would have left.
    let expect = async |path: &str, admits: &dyn Fn(&Event) -> bool| {
        let expected: Vec<_> = all.iter().filter(|event| admits(event)).cloned().collect();
        assert!(
            !expected.is_empty() && expected.len() < all.len(),
            "{path}: {:?}",
            names(&all)
        );
        let mut stream = Stream::open(&house, path, None, None).await;
        let last = expected.last().unwrap().id.unwrap();
        assert_eq!(names(&stream.until(last).await), names(&expected), "{path}");
        let paged = format!(
            "{path}{}limit=1000",
            if path.contains('?') { "&" } else { "?" }
        );
        if !path.ends_with("/events") || path == "/v1/events" {
            let page = house.get(&paged).told().await;
            let items = page.of(200)["items"].as_array().unwrap().clone();
            assert_eq!(
                items,
                expected.iter().map(Event::json).collect::<Vec<_>>(),
                "{path}"
            );
        }
    };
    let noun = |noun: &'static str| move |event: &Event| event.name.split('.').next() == Some(noun);
    expect("/v1/events?type=task.*", &noun("task")).await;
    expect("/v1/events?type=run.*", &noun("run")).await;
    expect("/v1/events?type=run.completed,task.started", &|event| {
        ["run.completed", "task.started"].contains(&event.name.as_str())
    })
    .await;
    let second = runs[1].clone();
    let of_second = |event: &Event| event.data.contains(&second);
    expect(&format!("/v1/events?run={second}"), &of_second).await;
    expect(&format!("/v1/runs/{second}/events"), &of_second).await;
    let both = |event: &Event| of_second(event) && event.name.starts_with("run.");
    expect(&format!("/v1/events?run={second}&type=run.*"), &both).await;
    for name in [
        "run.started",
        "step.ended",
        "run.completed",
        "task.completed",
    ] {
        let has = all
            .iter()
            .any(|event| of_second(event) && event.name == name);
        assert!(has, "{name}: {:?}", names(&all));
    }

    for wrong in ["nothing.happened", "task", "*", "tas*", "task.*,oops", "."] {
        let told = house.get(&format!("/v1/events?type={wrong}")).told().await;
        let why = told.problem(400, "value.out_of_range");
        assert!(why.contains("no event has type"), "{why}");
    }
    for wrong in ["x", "-1", "1.5", "99999999999999999999"] {
        let ask = house
            .get("/v1/events")
            .header("accept", "text/event-stream");
        let told = ask.header("last-event-id", wrong).told().await;
        told.problem(400, "value.out_of_range");
    }
    let unknown = format!("/v1/runs/run_{}/events", "0".repeat(26));
    house.get(&unknown).told().await.problem(404, "run.unknown");
    house.stop().await;
}

// A reader that never reads while much more is written than it can hold: the server reads the log for
// it only as far as there is room on the way to it, tells it that it lags, and it gets everything.
#[tokio::test]
async fn a_slow_reader_costs_nothing_and_misses_nothing() {
    const EVENTS: u64 = 64;
    const BYTES: usize = 512 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[("limits.stream_events", "16")])).await;
    let mut stream = Stream::open(&house, "/v1/events", None, None).await;
    let task = json!({"kind": "large", "input": "x".repeat(BYTES)});
    for _ in 0..EVENTS {
        house.post("/v1/tasks", &task).told().await.of(201);
    }
    let counted = |metrics: &Told, name: &str| -> u64 {
        let line = metrics
            .text
            .lines()
            .find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let metrics = house.get("/metrics").told().await;
    let sent = counted(&metrics, "chargehand_stream_events_total ");
    assert!(
        sent < EVENTS / 2,
        "{sent} of {EVENTS} events were read for who takes none"
    );
    let (mut seen, mut lags) = (Vec::new(), 0);
    while seen.last() != Some(&EVENTS) {
        let event = stream.event().await;
        match event.id {
            Some(id) => seen.push(id),
            None => {
                assert_eq!(event.name, "lagging");
                assert!(event.json()["behind"].as_u64().unwrap() > 16);
                lags += 1;
            }
        }
    }
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(lags, 1);
    let metrics = house.get("/metrics").told().await;
    assert_eq!(counted(&metrics, "chargehand_stream_lags_total "), 1);
    assert_eq!(counted(&metrics, "chargehand_stream_events_total "), EVENTS);
    drop(stream);
    house.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_one_that_closes_gives_its_place_back() {
    let house = House::open(&config(&[("limits.streams", "2")])).await;
    house.register("w", 1).await;
    let first = Stream::open(&house, "/v1/events", None, None).await;
    let second = Stream::open(&house, "/v1/workers/w/stream?session=1", None, None).await;
    let third = || {
        house
            .get("/v1/events")
            .header("accept", "text/event-stream")
    };
    let told = third().told().await;
    told.problem(503, "server.streams");
    assert!(told.header("retry-after").is_some());
    // Everything else goes on.
    house.get("/v1/events").told().await.of(200);
    house.submit("k").await;
    let told = house.get("/metrics").told().await;
    assert!(
        told.text.contains("chargehand_streams_open 2\n"),
        "{}",
        told.text
    );
    for closed in [first, second] {
        drop(closed);
        let again = within(async {
            loop {
                let response = third().open().await;
                if response.status() == 200 {
                    return response;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        drop(again);
    }
    house.stop().await;
}
