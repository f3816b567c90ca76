//! What an operator looks at: health, metrics, and who did what.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

// S0-152: it says that the stores answer when they do, and no longer when they do not.
#[tokio::test]
async fn health_tells_the_truth() {
    let house = House::memory().await;
    house.engine("acme");
    let live = house.get("/healthz").told().await;
    assert_eq!((live.status, live.text.as_str()), (200, "ok\n"));
    let ready = house.get("/readyz").told().await;
    assert_eq!((ready.status, ready.text.as_str()), (200, "ready\n"));
    let health = house.get("/health").told().await;
    let body = health.of(200);
    assert_eq!(body["status"], "healthy");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert!(body["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(
        body["checks"],
        json!({"store": "healthy", "other stores": "healthy"})
    );
    assert!(
        !health.text.contains("acme"),
        "whose stores there are is nobody's business"
    );
    // A store that has stopped, as one does whose disk failed.
    house.engine("acme").stop().unwrap();
    let health = house.get("/health").told().await;
    let body = health.of(503);
    assert_eq!(body["status"], "unhealthy");
    assert_eq!(
        body["checks"],
        json!({"store": "healthy", "other stores": "engine.stopped"})
    );
    let ready = house.get("/readyz").told().await;
    assert_eq!((ready.status, ready.text.as_str()), (503, "not ready\n"));
    assert_eq!(house.get("/healthz").told().await.status, 200);
    house.stop().await;
}

/// A family of an OpenMetrics text.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads an OpenMetrics text as strictly as the standard has it: each family is described before its
/// samples and has them in one place, counters end in `_total`, a unit is the name's end, histograms are
/// complete and grow, no series is there twice, and there is an end.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut described, mut seen) = (String::new(), BTreeSet::new(), BTreeSet::new());
    let body = text.strip_suffix("# EOF\n").expect("it has an end");
    for line in body.lines() {
        if let Some(said) = line.strip_prefix("# ") {
            let mut words = said.splitn(3, ' ');
            let [what, name, rest] = [(); 3].map(|()| words.next().unwrap());
            assert!(
                described.insert((what.to_owned(), name.to_owned())),
                "twice: {line}"
            );
            if name != current {
                assert!(!all.contains_key(name), "in two places: {line}");
                current = name.to_owned();
                all.insert(current.clone(), Family::default());
            }
            let family = all.get_mut(name).unwrap();
            assert!(family.samples.is_empty(), "after its samples: {line}");
            match what {
                "HELP" => assert!(!rest.is_empty()),
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series.to_owned()), "twice: {line}");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let suffix = name
            .strip_prefix(&current)
            .unwrap_or_else(|| panic!("whose? {line}"));
        let family = all.get_mut(&current).unwrap();
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("no such type: {other}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(
            described.contains(&("HELP".into(), current.clone())),
            "{line}"
        );
        assert!(name.starts_with("chargehand_"), "{line}");
        let mut pairs = BTreeMap::new();
        for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once("=\"").unwrap();
            let value = value.strip_suffix('"').unwrap_or(value).to_owned();
            assert!(pairs.insert(key.to_owned(), value).is_none(), "{line}");
        }
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0 || family.kind == "gauge", "{line}");
        family.samples.push((suffix.to_owned(), pairs, value));
    }
    for (name, family) in &all {
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    all
}

fn check_histogram(name: &str, family: &Family) {
    let mut by_labels: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    let (mut counts, mut sums) = (BTreeMap::new(), BTreeMap::new());
    for (suffix, labels, value) in &family.samples {
        let mut labels = labels.clone();
        match suffix.as_str() {
            "_bucket" => {
                let bound = labels.remove("le").unwrap();
                let bound = bound.replace("+Inf", "inf").parse().unwrap();
                by_labels.entry(labels).or_default().push((bound, *value));
            }
            "_count" => drop(counts.insert(labels, *value)),
            _ => drop(sums.insert(labels, *value)),
        }
    }
    for (labels, buckets) in by_labels {
        let grows = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        assert!(grows, "{name} {labels:?}: {buckets:?}");
        let (bound, all) = *buckets.last().unwrap();
        assert_eq!(
            (bound, Some(&all)),
            (f64::INFINITY, counts.get(&labels)),
            "{name}"
        );
        assert!(sums.contains_key(&labels), "{name}");
    }
}

impl House {
    async fn metrics(&self) -> BTreeMap<String, Family> {
        let told = self
            .get("/metrics")
            .header("accept", OPEN_METRICS)
            .told()
            .await;
        assert_eq!(told.status, 200, "{}", told.text);
        assert!(
            told.header("content-type")
                .unwrap()
                .starts_with("application/openmetrics-text")
        );
        families(&told.text)
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// The one value of these labels.
fn value(all: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = all.get(&format!("chargehand_{name}"));
    let family = family.unwrap_or_else(|| panic!("no {name}"));
    let fits = |sample: &&(String, BTreeMap<String, String>, f64)| {
        let has = |(key, value): &(&str, &str)| sample.1.get(*key).is_some_and(|v| v == value);
        ["", "_total", "_count"].contains(&sample.0.as_str()) && labels.iter().all(has)
    };
    let found: Vec<_> = family.samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].2
}

// S4-101: what the server did is what its metrics say, in a text that reads as the standard has it.
// S3-176: what was given out and what was done is exported.
#[tokio::test]
async fn metrics_move_with_what_happens() {
    let house = House::memory().await;
    house.register("w", 5).await;
    for kind in ["a", "b", "c"] {
        house.submit(kind).await;
    }
    // What nobody should have named so is one label all the same.
    let odd = json!({"kind": "k", "queue": "a\"b\\c,d"});
    house.post("/v1/tasks", &odd).told().await.of(201);
    let claimed = house
        .work("w", &json!({"claim": {"max": 5, "starts": true}}))
        .await;
    let tasks = claimed["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 3);
    let completed = json!({"completed": {"output": 1}});
    let failed = json!({"failed": {"failure": {"code": "x", "message": "no", "retryable": false}}});
    let reports: Vec<_> = [&completed, &completed, &failed]
        .iter()
        .zip(tasks)
        .map(|(report, task)| json!({"task_id": task["task_id"], "attempt": 1, "report": report}))
        .collect();
    house.work("w", &json!({"reports": reports})).await;
    let mut late = json!({"reports": [reports[0]]});
    late["reports"][0]["attempt"] = json!(7);
    house.work("w", &late).await;
    house
        .get("/v1/nowhere")
        .told()
        .await
        .problem(404, "server.route_unknown");
    let all = house.metrics().await;
    let of = |name: &str, labels: &[(&str, &str)]| {
        let mut labels = labels.to_vec();
        labels.push(("tenant", "default"));
        value(&all, name, &labels)
    };
    assert_eq!(of("tasks_submitted", &[]), 4.0);
    assert_eq!(of("claims", &[]), 3.0);
    for (status, count) in [
        ("pending", 1.0),
        ("assigned", 0.0),
        ("in_progress", 0.0),
        ("completed", 2.0),
        ("failed", 1.0),
        ("cancelled", 0.0),
    ] {
        assert_eq!(of("tasks", &[("status", status)]), count, "{status}");
    }
    for (outcome, count) in [("succeeded", 2.0), ("failed", 1.0), ("lost", 0.0)] {
        assert_eq!(of("attempts", &[("outcome", outcome)]), count, "{outcome}");
    }
    assert_eq!(of("reports_refused", &[]), 1.0);
    assert_eq!(of("attempt_duration_seconds", &[]), 3.0);
    assert_eq!(of("workers", &[("status", "available")]), 1.0);
    assert_eq!(of("queue_depth", &[("queue", "a\\\"b\\\\c,d")]), 1.0);
    assert_eq!(of("log_position", &[]), house.position() as f64);
    let request = |method, route, status| {
        let labels = [("method", method), ("route", route), ("status", status)];
        value(&all, "http_requests", &labels)
    };
    assert_eq!(request("POST", "/v1/tasks", "201"), 4.0);
    assert_eq!(request("POST", "/v1/workers/{worker}/work", "200"), 3.0);
    assert_eq!(request("GET", "(none)", "404"), 1.0);
    assert_eq!(value(&all, "connections_refused", &[]), 0.0);
    assert!(value(&all, "connections_open", &[]) >= 1.0);
    let again = house.metrics().await;
    for (name, family) in all.iter().filter(|(_, family)| family.kind != "gauge") {
        for (suffix, labels, before) in &family.samples {
            let found = again[name]
                .samples
                .iter()
                .find(|s| (&s.0, &s.1) == (suffix, labels));
            assert!(
                found.is_some_and(|s| s.2 >= *before),
                "{name}{suffix} never falls"
            );
        }
    }
    house.stop().await;
}

// S4-101: Prometheus itself finds nothing to object to.
#[tokio::test]
async fn prometheus_reads_the_metrics() {
    let house = House::memory().await;
    house.register("w", 5).await;
    house.submit("k").await;
    house.work("w", &json!({"claim": {"max": 1}})).await;
    let told = house.get("/metrics").told().await;
    assert!(
        told.header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("this needs promtool: install the package `prometheus`");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(told.text.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(said.status.success(), "{out}{err}");
    // Both texts say the same.
    let open = house
        .get("/metrics")
        .header("accept", OPEN_METRICS)
        .told()
        .await;
    let names = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    assert!(names(&open.text).is_superset(&names(&told.text)));
    house.stop().await;
}

// S0-33, S0-21: who did what is in the log for good: asked for by key and type, never changed, and
// there after a restart.
#[tokio::test]
async fn the_audit_trail_says_who_did_what() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&stored(folder.path(), &[])).await;
    let root = house.key("default", "root", &[Scope::Admin]).await;
    let alice = house.key("default", "alice", &[Scope::Submitter]).await;
    let bob = house.key("default", "bob", &[Scope::Operator]).await;
    let task = house
        .post("/v1/tasks", &json!({"kind": "k"}))
        .key(&alice)
        .told()
        .await;
    let task = task.of(201)["task_id"].as_str().unwrap().to_owned();
    let cancel = json!({"reason": "never mind"});
    let cancel = house
        .post(&format!("/v1/tasks/{task}/cancel"), &cancel)
        .key(&alice);
    cancel.told().await.of(204);
    let redrive = house
        .ask(Method::POST, &format!("/v1/tasks/{task}/redrive"))
        .key(&bob);
    redrive.told().await.of(204);
    house
        .ask(Method::POST, "/v1/queues/q/pause")
        .key(&bob)
        .told()
        .await
        .of(204);
    let audit = async |house: &House, query: &str| -> Vec<(String, String)> {
        let told = house
            .get(&format!("/v1/audit?{query}"))
            .key(&root)
            .told()
            .await;
        let items = told.of(200)["items"].as_array().unwrap().clone();
        let of = |item: &Value| {
            let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            (text("by"), text("event"))
        };
        items.iter().map(of).collect()
    };
    let raw = |house: &House| house.get("/v1/audit?limit=1000").key(&root).told();
    let first = raw(&house).await;
    let trail = audit(&house, "").await;
    let by: Vec<_> = trail.iter().map(|(by, _)| by.as_str()).collect();
    assert_eq!(by, ["alice", "alice", "bob", "bob"], "{}", first.text);
    assert_eq!(audit(&house, "by=alice").await, trail[..2]);
    assert_eq!(audit(&house, "by=bob").await, trail[2..]);
    assert_eq!(audit(&house, "by=carol").await, []);
    assert_eq!(audit(&house, "type=queue.paused").await, trail[3..]);
    assert_eq!(audit(&house, "type=task.*&by=bob").await, trail[2..3]);
    assert_eq!(audit(&house, "limit=1").await, trail[..1]);
    // What the server does of itself is in the log and not in the trail.
    let log = house.get("/v1/events?limit=1000").key(&root).told().await;
    assert!(log.of(200)["items"].as_array().unwrap().len() > trail.len());
    for (method, path) in [
        (Method::DELETE, "/v1/audit"),
        (Method::PUT, "/v1/audit"),
        (Method::POST, "/v1/audit"),
        (Method::DELETE, "/v1/events"),
        (Method::POST, "/v1/events"),
    ] {
        let told = house.ask(method, path).key(&root).told().await;
        told.problem(405, "server.method_unknown");
    }
    let told = house.get("/v1/audit").key(&alice).told().await;
    told.problem(403, "key.scope_missing");
    house.stop().await;
    let house = House::open(&stored(folder.path(), &[])).await;
    assert_eq!(raw(&house).await.of(200)["items"], first.body["items"]);
    house
        .ask(Method::POST, "/v1/queues/q/resume")
        .key(&bob)
        .told()
        .await
        .of(204);
    let after = raw(&house).await;
    let items = after.of(200)["items"].as_array().unwrap();
    let before = first.body["items"].as_array().unwrap();
    assert_eq!(
        (&items[..before.len()], items.len()),
        (&before[..], before.len() + 1)
    );
    house.stop().await;
}
