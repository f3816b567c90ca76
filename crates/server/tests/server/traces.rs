//! Traces, as a collector gets them: a small OTLP receiver decodes what a whole server sends.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use domain::trace::TraceParent;
use domain::worker::WorkerSpec;
use engine::Engine;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as AnyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use protocol::Api as _;
use protocol::key::Tenant;
use serde_json::{Value, json};
use server::config::{Config, Override, Sources};
use server::serve::Server;
use server::tenants::Tenants;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes on a machine that is merely slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a collector was sent.
#[derive(Debug, Clone, Default)]
struct Collected {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<BTreeSet<String>>>,
    /// It takes nothing.
    refuses: Arc<AtomicBool>,
}

/// Spans in one request, as the documentation says.
const BATCH_MAX: usize = 512;

fn said(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |kv: &KeyValue| match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(AnyValue::StringValue(text)) => text.clone(),
        Some(AnyValue::IntValue(n)) => n.to_string(),
        Some(AnyValue::DoubleValue(n)) => n.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .iter()
        .map(|kv| (kv.key.clone(), value(kv)))
        .collect()
}

async fn take(
    State(collected): State<Collected>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let of_scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
    let count: usize = of_scopes.map(|scope| scope.spans.len()).sum();
    assert!((1..=BATCH_MAX).contains(&count));
    if collected.refuses.load(Relaxed) {
        return (StatusCode::BAD_REQUEST, Vec::new());
    }
    for of_resource in request.resource_spans {
        let resource = said(&of_resource.resource.unwrap().attributes);
        let mut services = collected.services.lock().unwrap();
        services.insert(resource["service.name"].clone());
        let mut spans = collected.spans.lock().unwrap();
        spans.extend(of_resource.scope_spans.into_iter().flat_map(|s| s.spans));
    }
    let taken = ExportTraceServiceResponse::default().encode_to_vec();
    (StatusCode::OK, taken)
}

impl Collected {
    /// A collector, and its address.
    async fn listen() -> (Self, SocketAddr) {
        let collected = Self::default();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(collected.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collected, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans once there are so many.
    async fn wait_for(&self, count: usize) -> Vec<Span> {
        let enough = async {
            while self.spans.lock().unwrap().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let enough = timeout(PATIENCE, enough).await;
        let spans = self.spans();
        let shown = tree(&spans[..spans.len().min(20)]);
        assert!(enough.is_ok(), "{} of {count}: {shown:#?}", spans.len());
        self.spans()
    }
}

/// A whole server.
struct House {
    url: String,
    engine: Engine,
    tenants: Arc<Tenants>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    client: reqwest::Client,
}

impl House {
    async fn open(store: &Path, collector: Option<SocketAddr>) -> Self {
        let mut flags = vec![
            Override::set("listen", "127.0.0.1:0"),
            Override::set("store", store.to_str().unwrap()),
            Override::set("telemetry.service_name", "the shop"),
        ];
        if let Some(address) = collector {
            let url = format!("http://{address}");
            flags.push(Override::set("telemetry.otlp_endpoint", &url));
        }
        let sources = Sources {
            flags,
            folder: store.to_owned(),
            ..Sources::nothing()
        };
        let config: Config = Config::load(sources).unwrap().config;
        let server = Server::open(&config, Vec::new()).await.unwrap();
        let (url, tenants) = (server.url(), Arc::clone(server.tenants()));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let leaving = async {
                let _ = stopped.await;
            };
            server.run(leaving).await.unwrap();
        });
        Self {
            url,
            engine: tenants.get(&Tenant::default()).unwrap(),
            tenants,
            stop,
            served,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn close(self) {
        drop(self.client);
        let _ = self.stop.send(());
        timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }

    async fn post_in(&self, trace: Option<&str>, path: &str, body: Value) -> Value {
        let mut request = self.client.post(format!("{}{path}", self.url));
        if let Some(trace) = trace {
            request = request.header("traceparent", trace);
        }
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.post_in(None, path, body).await
    }

    async fn worker(&self, id: &str) {
        self.post("/v1/workers", json!({"id": id})).await;
    }

    async fn leave(&self, id: &str) {
        let url = format!("{}/v1/workers/{id}", self.url);
        let answer = self.client.delete(url).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    /// The next task for this worker.
    async fn claim(&self, worker: &str) -> Value {
        let path = format!("/v1/workers/{worker}/work");
        let claim = json!({"claim": {"max": 1, "starts": true, "wait_ms": 60_000}});
        self.post(&path, claim).await["tasks"][0].take()
    }

    async fn report(&self, worker: &str, task: &Value, report: Value) {
        let (id, attempt) = (task["task_id"].as_str().unwrap(), &task["attempt"]);
        let path = format!("/v1/tasks/{id}/attempts/{attempt}");
        self.post(&path, json!({"worker": worker, "report": report}))
            .await;
    }

    async fn complete(&self, worker: &str, task: &Value) {
        self.report(worker, task, json!({"completed": {"output": 1}}))
            .await;
    }

    /// Waits until a counter is there; it must not go beyond.
    async fn reaches(&self, name: &str, count: u64) {
        let there = async {
            while self.metric(name).await < count {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, there).await.unwrap();
        assert_eq!(self.metric(name).await, count);
    }

    async fn metric(&self, name: &str) -> u64 {
        let answer = self.client.get(format!("{}/metrics", self.url)).send();
        let text = answer.await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split_whitespace()
            .next_back()
            .unwrap()
            .parse()
            .unwrap()
    }
}

/// The spans as lines, each below its parent: name, outcome, and what tells one from the other.
fn tree(spans: &[Span]) -> Vec<String> {
    fn walk(spans: &[Span], parent: &[u8], depth: usize, lines: &mut Vec<String>) {
        let mut below: Vec<_> = spans
            .iter()
            .filter(|span| span.parent_span_id == parent)
            .collect();
        // Not by time: two things may happen in one millisecond.
        let order = |span: &&Span| {
            let said = said(&span.attributes);
            let of = |key: &str| said.get(key).cloned();
            let (step, attempt) = (of("chargehand.step"), of("chargehand.attempt"));
            (step, attempt, span.name.clone())
        };
        below.sort_by_key(order);
        for span in below {
            let said = said(&span.attributes);
            let mut line = format!("{}{}", "  ".repeat(depth), span.name);
            for key in ["step", "attempt", "worker", "outcome"] {
                if let Some(value) = said.get(&format!("chargehand.{key}")) {
                    line += &format!(" {key}={value}");
                }
            }
            if let Some(code) = said.get("error.type") {
                line += &format!(" error={code}");
            }
            lines.push(line);
            walk(spans, &span.span_id, depth + 1, lines);
        }
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len(), "a span ends once");
    let tops: BTreeSet<_> = spans
        .iter()
        .map(|span| span.parent_span_id.clone())
        .filter(|parent| !ids.contains(parent))
        .collect();
    let mut lines = Vec::new();
    for top in tops {
        walk(spans, &top, 0, &mut lines);
    }
    lines
}

fn traces(spans: &[Span]) -> BTreeSet<Vec<u8>> {
    spans.iter().map(|span| span.trace_id.clone()).collect()
}

fn run(steps: Value) -> Value {
    json!({"goal": "sell", "supervisor": "boss", "graph": {"steps": steps}})
}

fn two_steps() -> Value {
    let retry = json!({"attempts": 2, "backoff_ms": 0});
    run(json!([
        {"id": "buy", "task": {"kind": "buy", "input": 1, "retry": retry}},
        {"id": "pay", "needs": ["buy"], "task": {"kind": "pay", "input": 2}},
    ]))
}

const STARTER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// S4-30: one trace across processes. S4-102: traces are exported.
// S4-72: one trace, from who started the run to who worked.
#[tokio::test]
async fn one_trace_follows_a_run_through_tasks_attempts_and_workers() {
    let (collected, address) = Collected::listen().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&folder.path().join("store"), Some(address)).await;
    house.worker("ann").await;
    let started = house.post_in(Some(STARTER), "/v1/runs", two_steps()).await;

    let mut told = Vec::new();
    // The first attempt fails and is tried again.
    let task = house.claim("ann").await;
    told.push(task["trace"].as_str().unwrap().to_owned());
    let failure = json!({"code": "shop.shut", "message": "the shop is shut"});
    house
        .report("ann", &task, json!({"failed": {"failure": failure}}))
        .await;
    let task = house.claim("ann").await;
    told.push(task["trace"].as_str().unwrap().to_owned());
    let progress = json!({"progressed": {"fraction": 0.5, "note": "in the queue"}});
    house.report("ann", &task, progress).await;
    house.complete("ann", &task).await;
    // The worker of the second step is lost.
    let task = house.claim("ann").await;
    told.push(task["trace"].as_str().unwrap().to_owned());
    house.leave("ann").await;
    house.worker("bob").await;
    let task = house.claim("bob").await;
    told.push(task["trace"].as_str().unwrap().to_owned());
    house.complete("bob", &task).await;

    let spans = collected.wait_for(7).await;
    assert_eq!(
        tree(&spans),
        [
            "run outcome=completed",
            "  task buy step=buy outcome=completed",
            "    attempt buy step=buy attempt=1 worker=ann outcome=failed error=shop.shut",
            "    attempt buy step=buy attempt=2 worker=ann outcome=succeeded",
            "  task pay step=pay outcome=completed",
            "    attempt pay step=pay attempt=1 worker=ann outcome=lost error=attempt.lost",
            "    attempt pay step=pay attempt=2 worker=bob outcome=succeeded",
        ]
    );
    // It is the starter's trace, and the run is below the starter's span.
    let starter: TraceParent = STARTER.parse().unwrap();
    assert!(
        spans
            .iter()
            .all(|s| s.trace_id == starter.trace.to_be_bytes())
    );
    let of_run = spans.iter().find(|span| span.name == "run").unwrap();
    assert_eq!(of_run.parent_span_id, starter.span.to_be_bytes());
    let about = said(&of_run.attributes);
    assert_eq!(
        about["chargehand.run.id"],
        started["run_id"].as_str().unwrap()
    );
    assert_eq!(about["chargehand.supervisor"], "boss");
    assert_eq!(about["chargehand.tenant"], "default");
    let steps: Vec<_> = of_run.events.iter().map(|e| e.name.clone()).collect();
    let expected = ["step started", "step ended", "step started", "step ended"];
    assert_eq!(steps, expected);
    // What a worker was told is the attempt's span, so that its own become that one's children.
    let attempts = spans.iter().filter(|s| s.name.starts_with("attempt"));
    let mut sent: Vec<_> = attempts
        .map(|span| {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
        })
        .collect();
    sent.sort();
    told.sort();
    assert_eq!(sent, told);
    // Times are those of the work; errors are marked; progress is told.
    for span in &spans {
        assert!(of_run.start_time_unix_nano <= span.start_time_unix_nano);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.end_time_unix_nano <= of_run.end_time_unix_nano);
        let failed = said(&span.attributes).contains_key("error.type");
        let status = span.status.clone().unwrap_or_default();
        assert_eq!(status.code, if failed { 2 } else { 0 }, "{span:?}");
    }
    let second = spans
        .iter()
        .find(|span| span.name == "attempt buy" && span.events.len() == 1)
        .unwrap();
    let note = said(&second.events[0].attributes);
    assert_eq!(note["chargehand.fraction"], "0.5");
    assert_eq!(note["chargehand.note"], "in the queue");
    assert_eq!(
        *collected.services.lock().unwrap(),
        BTreeSet::from(["the shop".to_owned()])
    );
    assert_eq!(
        house.metric("chargehand_trace_spans_dropped_total").await,
        0
    );
    house.close().await;
}

#[tokio::test]
async fn a_trace_goes_on_when_the_server_is_another_process() {
    let (collected, address) = Collected::listen().await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");

    // Nobody brings a trace: the run is one.
    let house = House::open(&store, Some(address)).await;
    house.worker("ann").await;
    house.post("/v1/runs", two_steps()).await;
    let task = house.claim("ann").await;
    house.complete("ann", &task).await;
    let before = house.claim("ann").await;
    let single = house.post("/v1/tasks", json!({"kind": "sweep"})).await;
    // One more is held by a worker that lives in the server's process, and dies with it.
    let inside = json!({"id": "eve", "home": "in_process", "queues": ["inside"]});
    let inside: WorkerSpec = serde_json::from_value(inside).unwrap();
    house.engine.worker_register(inside).await.unwrap();
    let lift = json!({"kind": "lift", "queue": "inside"});
    house.post("/v1/tasks", lift).await;
    house.claim("eve").await;
    house.close().await;
    // Stopping has sent what had ended.
    assert_eq!(collected.spans().len(), 2);

    let house = House::open(&store, Some(address)).await;
    // The attempt from before is reported to this one.
    let progress = json!({"progressed": {"note": "still here"}});
    house.report("ann", &before, progress).await;
    house.complete("ann", &before).await;
    let path = format!("/v1/tasks/{}/cancel", single["task_id"].as_str().unwrap());
    house.post(&path, json!({"reason": "not wanted"})).await;
    house.close().await;

    let spans = collected.spans();
    assert_eq!(
        tree(&spans),
        [
            "run outcome=completed",
            "  task buy step=buy outcome=completed",
            "    attempt buy step=buy attempt=1 worker=ann outcome=succeeded",
            "  task pay step=pay outcome=completed",
            "    attempt pay step=pay attempt=1 worker=ann outcome=succeeded",
            "task sweep outcome=cancelled",
            // Its worker lived in the first process. The task, above it, has not ended.
            "attempt lift attempt=1 worker=eve outcome=lost error=attempt.lost",
        ]
    );
    assert_eq!(traces(&spans).len(), 3);
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (of_run, buy) = (find("run"), find("task buy"));
    assert_eq!(of_run.start_time_unix_nano, buy.start_time_unix_nano);
    assert_eq!(find("attempt pay").events.len(), 1);
}

#[tokio::test]
async fn what_goes_on_after_its_end_is_a_span_of_its_own_and_tenants_are_told_apart() {
    let (collected, address) = Collected::listen().await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&folder.path().join("store"), Some(address)).await;
    house.worker("ann").await;
    let once = json!({"kind": "buy", "retry": {"attempts": 1}});
    let made = house.post("/v1/tasks", once).await;
    let task = house.claim("ann").await;
    let failure = json!({"code": "shop.shut", "message": "the shop is shut"});
    let failed = json!({"failed": {"failure": failure}});
    house.report("ann", &task, failed).await;
    let path = format!("/v1/tasks/{}/redrive", made["task_id"].as_str().unwrap());
    house.post(&path, json!({})).await;
    let task = house.claim("ann").await;
    house.complete("ann", &task).await;
    let spans = collected.wait_for(4).await;
    assert_eq!(
        tree(&spans),
        [
            "task buy outcome=failed error=shop.shut",
            "  task buy outcome=completed",
            "  attempt buy attempt=1 worker=ann outcome=failed error=shop.shut",
            "  attempt buy attempt=2 worker=ann outcome=succeeded",
        ]
    );
    assert_eq!(traces(&spans).len(), 1);

    // Who began a trace and does not record it gets no spans; a worker is told so too.
    let unsampled = STARTER.replace("-01", "-00");
    let quiet = json!({"kind": "hush"});
    house.post_in(Some(&unsampled), "/v1/tasks", quiet).await;
    let task = house.claim("ann").await;
    assert!(task["trace"].as_str().unwrap().ends_with("-00"));
    house.complete("ann", &task).await;

    // A tenant that is made meanwhile is followed from its first event.
    let annex: Tenant = "annex".parse().unwrap();
    let annex = house.tenants.create(annex).unwrap();
    let sweep = serde_json::from_value(json!([{"spec": {"kind": "sweep"}}])).unwrap();
    let task = annex.task_submit(sweep).await.unwrap().remove(0).unwrap();
    annex.task_cancel(task, "enough".into()).await.unwrap();
    house.close().await;
    let spans = collected.spans();
    assert_eq!(spans.len(), 5);
    let of_annex = said(&spans[4].attributes);
    assert_eq!(of_annex["chargehand.tenant"], "annex");
    assert_eq!(of_annex["chargehand.task.id"], task.to_string());
}

/// Ends as many tasks at once, with a run of them.
async fn end_many(house: &House, count: usize) {
    let items: Vec<usize> = (0..count).collect();
    let each = json!({"items": items, "task": {"kind": "buy"}});
    let started = house.post("/v1/runs", run(json!([{"id": "part", "each": each}])));
    let run = started.await["run_id"].as_str().unwrap().to_owned();
    let reason = json!({"reason": "enough"});
    house.post(&format!("/v1/runs/{run}/cancel"), reason).await;
}

#[tokio::test]
async fn while_a_collector_takes_nothing_spans_are_counted_and_dropped() {
    let (collected, address) = Collected::listen().await;
    collected.refuses.store(true, Relaxed);
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&folder.path().join("store"), Some(address)).await;
    end_many(&house, 3_000).await;
    house
        .reaches("chargehand_trace_spans_dropped_total", 3_001)
        .await;
    assert!(collected.spans().is_empty());

    collected.refuses.store(false, Relaxed);
    end_many(&house, 1).await;
    collected.wait_for(2).await;
    // It answers again: more than the queue holds waits in the log, and nothing more is dropped.
    end_many(&house, 5_000).await;
    collected.wait_for(5_003).await;
    assert_eq!(
        house.metric("chargehand_trace_spans_dropped_total").await,
        3_001
    );
    house
        .reaches("chargehand_trace_spans_sent_total", 5_003)
        .await;
    house.close().await;
}

#[tokio::test]
async fn without_a_collector_that_answers_the_server_works_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens at the one address; at the other somebody never answers.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [nobody, silent.local_addr().unwrap()] {
        let store = folder.path().join(address.port().to_string());
        let house = House::open(&store, Some(address)).await;
        house.worker("ann").await;
        house.post("/v1/tasks", json!({"kind": "first"})).await;
        let first = house.claim("ann").await;
        end_many(&house, 5_000).await;
        house.complete("ann", &first).await;
        let tasks = house.metric("chargehand_tasks{tenant=\"default\",status=\"cancelled\"}");
        assert_eq!(tasks.await, 5_000);
        assert_eq!(house.metric("chargehand_trace_spans_sent_total").await, 0);
        house.close().await;
    }
}
