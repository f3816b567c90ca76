//! The HTTP API over real sockets: a whole [`Server`], as `chargehand serve` runs it, asked by a
//! client that knows nothing but the document. Deliberately absent: what one connection may do to the
//! server (that is `listen`), and rules of the domain (they are tested where they are).

mod again;
mod bounds;
mod crew;
mod document;
mod entry;
mod follow;
mod input;
mod pages;
mod speech;
mod watch;

use domain::credential::Scope;
use domain::name::Name;
use engine::{Engine, Place};
use protocol::Api as _;
use protocol::api::NewCredential;
use protocol::key::Tenant;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use server::config::{Config, Override, Sources};
use server::http::Skill;
use server::listen::Drained;
use server::serve::Server;
use server::tenants::Tenants;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes on a machine that is merely slow.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, what).await {
        Ok(done) => done,
        Err(_) => panic!("this did not come to an end"),
    }
}

/// The defaults, on a free port, in memory; and what a test says otherwise.
fn config(said: &[(&str, &str)]) -> Config {
    let mut flags = vec![Override::set("listen", "127.0.0.1:0")];
    flags.extend(said.iter().map(|(key, value)| Override::set(*key, *value)));
    let loaded = Config::load(Sources {
        flags,
        ..Sources::nothing()
    });
    let mut config = loaded.unwrap().config;
    config.store = Place::Memory;
    config
}

/// The same, stored in a folder.
fn stored(folder: &Path, said: &[(&str, &str)]) -> Config {
    Config {
        store: Place::Folder(folder.to_owned()),
        ..config(said)
    }
}

/// A server that runs.
struct House {
    url: String,
    address: SocketAddr,
    tenants: Arc<Tenants>,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<Drained, domain::error::Error>>,
}

impl House {
    async fn open(config: &Config) -> Self {
        let skills = vec![Skill {
            name: "echo".into(),
            summary: "Says it again.".into(),
        }];
        let server = Server::open(config, skills).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let (url, address) = (server.url(), server.address());
        let tenants = Arc::clone(server.tenants());
        let served = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            url,
            address,
            tenants,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop,
            served,
        }
    }

    /// In memory, with every default.
    async fn memory() -> Self {
        Self::open(&config(&[])).await
    }

    fn engine(&self, tenant: &str) -> Engine {
        self.tenants.create(tenant.parse().unwrap()).unwrap()
    }

    /// Makes a key, and the tenant if it must be.
    async fn key(&self, tenant: &str, label: &str, scopes: &[Scope]) -> String {
        let new = NewCredential {
            label: Name::new(label).unwrap(),
            scopes: scopes.to_vec(),
            ttl_ms: None,
        };
        let minted = self.engine(tenant).credential_create(new).await;
        minted.unwrap().key
    }

    fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.http.request(method, format!("{}{path}", self.url)))
    }

    fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    fn post(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::POST, path).json(body)
    }

    fn put(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::PUT, path).json(body)
    }

    /// The position of the default tenant's last event.
    fn position(&self) -> u64 {
        let engine = self.tenants.get(&Tenant::default()).unwrap();
        *engine.head().borrow()
    }

    async fn submit(&self, kind: &str) -> String {
        let told = self.post("/v1/tasks", &json!({"kind": kind})).told().await;
        told.of(201)["task_id"].as_str().unwrap().to_owned()
    }

    async fn register(&self, worker: &str, capacity: u32) {
        let spec = json!({"id": worker, "capacity": capacity, "session": 1});
        self.post("/v1/workers", &spec).told().await.of(201);
    }

    /// What a worker does all day.
    async fn work(&self, worker: &str, body: &Value) -> Value {
        let path = format!("/v1/workers/{worker}/work");
        self.post(&path, body).told().await.of(200).clone()
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        within(self.served).await.unwrap().unwrap()
    }
}

/// A request to be.
struct Ask(reqwest::RequestBuilder);

impl Ask {
    fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    fn maybe_key(self, key: Option<&str>) -> Self {
        match key {
            Some(key) => self.key(key),
            None => self,
        }
    }

    fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    fn json(self, body: &Value) -> Self {
        self.text(body.to_string())
    }

    /// A body that says it is JSON.
    fn text(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.header("content-type", "application/json").0.body(body))
    }

    fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// The answer, before its body is read.
    async fn open(self) -> reqwest::Response {
        within(self.0.send()).await.unwrap()
    }

    async fn told(self) -> Told {
        let response = self.open().await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = within(response.text()).await.unwrap();
        Told {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    /// The status alone.
    async fn status(self) -> u16 {
        self.open().await.status().as_u16()
    }
}

/// An answer.
#[derive(Debug)]
struct Told {
    status: u16,
    headers: HeaderMap,
    /// Null when it is not JSON.
    body: Value,
    text: String,
}

impl Told {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    fn of(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        &self.body
    }

    /// The detail of a problem that is whole: type, code, instance, hint.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> &str {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        self.well_formed();
        self.body["detail"].as_str().unwrap()
    }

    /// Every problem has all of this.
    #[track_caller]
    fn well_formed(&self) {
        let (body, kind) = (&self.body, "application/problem+json");
        assert_eq!(self.header("content-type"), Some(kind), "{self:?}");
        assert_eq!(body["status"], self.status, "{self:?}");
        assert_eq!(body["instance"].as_str(), self.header("x-request-id"));
        assert!(body["instance"].is_string(), "{self:?}");
        let known = domain::error::Code::ALL
            .iter()
            .find(|code| code.as_str() == self.code());
        let known = known.unwrap_or_else(|| panic!("no such code: {self:?}"));
        assert_eq!(body["retryable"], known.retryable());
        assert_eq!(body["type"], format!("urn:chargehand:problem:{known}"));
        for text in ["title", "detail", "hint"] {
            assert_ne!(body[text].as_str().unwrap(), "", "{self:?}");
        }
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// One operation of the document.
#[derive(Debug, Clone)]
struct Operation {
    method: Method,
    /// With its parts in braces.
    path: String,
    id: String,
    /// What the documentation's table says that it needs: one of these.
    scopes: Vec<Scope>,
    has_body: bool,
}

impl Operation {
    /// The path with these parts in place of the braces.
    fn at(&self, parts: &Parts) -> String {
        let mut path = self.path.clone();
        for (name, value) in &parts.0 {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "{path}");
        path
    }

    /// Whether it answers for as long as somebody listens.
    fn streams(&self) -> bool {
        ["run_events", "worker_stream"].contains(&self.id.as_str())
    }
}

/// What stands in a path's braces.
#[derive(Debug, Clone)]
struct Parts(Vec<(&'static str, String)>);

impl Parts {
    /// Well formed, and of nothing that is there.
    fn of_nothing() -> Self {
        let zeros = "0".repeat(26);
        Self(vec![
            ("task", format!("task_{zeros}")),
            ("run", format!("run_{zeros}")),
            ("entry", format!("entry_{zeros}")),
            ("message", format!("msg_{zeros}")),
            ("attempt", "1".into()),
            ("step", "nowhere".into()),
            ("queue", "nowhere".into()),
            ("worker", "nobody".into()),
            ("agent", "nobody".into()),
            ("pool", "nothing".into()),
            ("holder", "nobody".into()),
            ("key", "none".into()),
        ])
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.to_owned()));
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == name);
        &found.unwrap().1
    }
}

/// Every operation of the document, with the scopes of the documentation's table.
fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&server::http::openapi()).unwrap();
    let table = document::table();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let row = table
                .iter()
                .find(|row| row.method == method && row.path == *path);
            all.push(Operation {
                scopes: row.map_or(Vec::new(), |row| row.scopes.clone()),
                id: operation["operationId"].as_str().unwrap().to_owned(),
                has_body: operation.get("requestBody").is_some(),
                path: path.clone(),
                method,
            });
        }
    }
    all
}

/// A body that the operation takes.
fn body_of(operation: &str, parts: &Parts) -> Option<Value> {
    let run = json!({
        "goal": "count words", "supervisor": "sup",
        "graph": {"steps": [{"id": "one", "task": {"kind": "count"}}]}
    });
    Some(match operation {
        "task_submit" | "task_submit_as" => json!({"kind": "count"}),
        "task_submit_many" => json!({"tasks": [{"spec": {"kind": "count"}}]}),
        "attempt_report" => json!({"worker": parts.get("worker"), "report": "started"}),
        "task_cancel" | "run_cancel" => json!({"reason": "not wanted"}),
        "record_resolve" => json!({"finding": {"done": {"output": 1}}}),
        "task_reassign" => json!({"to": {"only": parts.get("worker")}}),
        "run_start" => run,
        "run_settle" => json!({"output": 1}),
        "worker_register" => json!({"id": "w_new"}),
        "worker_heartbeat" | "message_subscribe" | "message_receive" => json!({}),
        "work" => json!({"claim": {"max": 1}}),
        "worker_status" => json!({"status": "available"}),
        "pool_define" => json!({"strategy": "least_loaded"}),
        "pool_reserve" => json!({"holder": "h", "keep_ms": 1_000}),
        "entry_search" => json!({}),
        "entry_write" => json!({"author": "a", "content": "seen"}),
        "entry_claim" => json!({"by": "a"}),
        "message_send" => json!({"from": "a", "to": {"agent": "b"}, "kind": "note"}),
        "message_request" => {
            json!({"message": {"from": "a", "to": {"agent": "b"}, "kind": "note"}, "wait_ms": 1})
        }
        "task_say" => json!({"task_id": parts.get("task"), "attempt": 1,
            "pieces": [{"agent": "a", "said": {"kind": "note", "text": "t"}}]}),
        "tool_missed" => json!({"tool": "web.search", "lack": "unknown", "by": "a"}),
        "message_settle" => json!({"agent": "b"}),
        "key_create" => json!({"label": "new", "scopes": ["reader"]}),
        "tenant_create" => json!({"tenant": "new"}),
        _ => return None,
    })
}
