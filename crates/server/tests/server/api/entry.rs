//! Who comes in, who sees what, and which pages in a browser may: asked of every operation there is.

use super::*;
use domain::error::Code;
use std::cell::RefCell;

/// The key with another secret of the same length.
fn forged(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "a" { "b" } else { "a" })
}

fn secret(key: &str) -> &str {
    key.rsplit('_').next().unwrap()
}

impl House {
    /// Asks for an operation on what is not there, with a body that it takes.
    fn operate(&self, operation: &Operation, parts: &Parts) -> Ask {
        let ask = self.ask(operation.method.clone(), &operation.at(parts));
        match body_of(&operation.id, parts) {
            Some(body) => ask.json(&body),
            None => ask,
        }
    }

    async fn revoked_key(&self) -> String {
        let key = self.key("default", "revoked", &[Scope::Admin]).await;
        let id = key.split('_').nth(2).unwrap().parse().unwrap();
        let engine = self.engine("default");
        engine.credential_revoke(id).await.unwrap();
        key
    }

    async fn expired_key(&self) -> String {
        let engine = self.engine("default");
        let new = NewCredential {
            label: Name::literal("expired"),
            scopes: vec![Scope::Admin],
            ttl_ms: Some(50),
        };
        let minted = engine.credential_create(new).await.unwrap();
        let until = minted.credential.expires_at.unwrap();
        while engine.now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        minted.key
    }
}

#[test]
fn every_operation_has_a_sample_that_is_a_body() {
    for operation in operations() {
        let sample = body_of(&operation.id, &Parts::of_nothing());
        assert_eq!(sample.is_some(), operation.has_body, "{}", operation.id);
    }
}

// S4-32: every operation, whoever asks: nobody, somebody with a key that is no good, each scope, and
// another tenant. H-09: whoever has no right to it is refused it, and told which right that is.
// S0-154: every operation that is described is there.
#[tokio::test]
async fn every_operation_lets_in_exactly_whom_the_documentation_says() {
    let house = House::memory().await;
    let good = house.key("default", "admin", &[Scope::Admin]).await;
    let mut refused: Vec<(&str, Option<String>)> = vec![
        ("nobody", None),
        ("wrong secret", Some(format!("Bearer {}", forged(&good)))),
        (
            "revoked",
            Some(format!("Bearer {}", house.revoked_key().await)),
        ),
        (
            "expired",
            Some(format!("Bearer {}", house.expired_key().await)),
        ),
    ];
    let parts: Vec<_> = good.split('_').collect();
    for (what, shown) in [
        ("empty", "Bearer ".to_owned()),
        ("nonsense", "Bearer nonsense".to_owned()),
        ("no secret", format!("Bearer chk_default_{}_", parts[2])),
        ("other id", format!("Bearer chk_default_zzzz_{}", parts[3])),
        (
            "no such tenant",
            format!("Bearer chk_nobody_{}_{}", parts[2], parts[3]),
        ),
        ("other scheme", format!("Basic {good}")),
        ("no scheme", good.clone()),
    ] {
        refused.push((what, Some(shown)));
    }
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        let label = scope.as_str();
        keys.push((scope, house.key("default", label, &[scope]).await));
    }
    let strangers = house.key("acme", "theirs", &[Scope::Admin]).await;
    let nothing = Parts::of_nothing();
    for operation in operations() {
        let what = format!("{} {}", operation.method, operation.path);
        if operation.scopes.is_empty() {
            assert_eq!(
                house.operate(&operation, &nothing).status().await,
                200,
                "{what}"
            );
            continue;
        }
        for (who, shown) in &refused {
            let ask = house.operate(&operation, &nothing);
            let told = match shown {
                Some(shown) => ask.header("authorization", shown).told().await,
                None => ask.told().await,
            };
            assert_eq!(told.status, 401, "{what}, {who}: {}", told.text);
            told.problem(401, "key.refused");
            assert_eq!(
                told.header("www-authenticate"),
                Some("Bearer"),
                "{what}, {who}"
            );
        }
        for (scope, key) in &keys {
            let told = house.operate(&operation, &nothing).key(key);
            let may = operation
                .scopes
                .iter()
                .any(|needed| scope.includes(*needed));
            if !may {
                let told = told.told().await;
                let why = told.problem(403, "key.scope_missing");
                assert!(why.contains(scope.as_str()), "{why}");
                continue;
            }
            let status = told.status().await;
            assert!(
                ![401, 403].contains(&status) && status < 500,
                "{what} with {}: {status}",
                scope.as_str()
            );
        }
        let status = house
            .operate(&operation, &nothing)
            .key(&strangers)
            .status()
            .await;
        // Tenants are the business of the tenant that is always there.
        let expected = operation.path == "/v1/tenants";
        assert_eq!(
            status == 403,
            expected,
            "{what} by another tenant: {status}"
        );
        assert_ne!(status, 401, "{what} by another tenant");
    }
    house.stop().await;
}

#[tokio::test]
async fn a_key_with_several_scopes_has_them_all_and_a_revoked_one_is_out_at_once() {
    let house = House::memory().await;
    let admin = house.key("default", "admin", &[Scope::Admin]).await;
    let key = house
        .key("default", "both", &[Scope::Submitter, Scope::Worker])
        .await;
    let task = json!({"kind": "count"});
    house
        .post("/v1/tasks", &task)
        .key(&key)
        .told()
        .await
        .of(201);
    house
        .post("/v1/workers", &json!({"id": "w"}))
        .key(&key)
        .told()
        .await
        .of(201);
    let pause = || {
        house
            .ask(Method::POST, "/v1/queues/q/pause")
            .key(&key)
            .told()
    };
    pause().await.problem(403, "key.scope_missing");
    let id = key.split('_').nth(2).unwrap();
    let revoke = house
        .ask(Method::DELETE, &format!("/v1/keys/{id}"))
        .key(&admin);
    revoke.told().await.of(204);
    let told = house.post("/v1/tasks", &task).key(&key).told().await;
    assert_eq!(told.problem(401, "key.refused"), "the key was revoked");
    let unknown = house
        .ask(Method::DELETE, "/v1/keys/none")
        .key(&admin)
        .told();
    unknown.await.problem(404, "key.unknown");
    house.stop().await;
}

#[tokio::test]
async fn a_key_is_shown_once_and_cannot_be_asked_for_twice() {
    let house = House::memory().await;
    let new = json!({"label": "ci", "scopes": ["reader"]});
    // As long as nobody has a key, this machine's own programs may make one.
    let told = house.post("/v1/keys", &new).told().await;
    let key = told.of(201)["key"].as_str().unwrap().to_owned();
    assert_eq!(told.body["credential"]["label"], "ci");
    house
        .get("/v1/statistics")
        .told()
        .await
        .problem(401, "key.refused");
    house.get("/v1/statistics").key(&key).told().await.of(200);
    let admin = house.key("default", "admin", &[Scope::Admin]).await;
    let again = house
        .post("/v1/keys", &new)
        .key(&admin)
        .header("idempotency-key", "k1");
    again.told().await.problem(400, "value.out_of_range");
    let list = house.get("/v1/keys").key(&admin).told().await;
    assert_eq!(list.of(200)["items"].as_array().unwrap().len(), 2);
    for key in [&key, &admin] {
        assert!(!list.text.contains(secret(key)));
        assert!(!list.text.contains(&engine::keyring::digest(secret(key))));
    }
    house.stop().await;
}

thread_local! {
    /// What is logged by all that runs in a test's own thread, for the test that wants to know.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes there.
struct Lines;

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.extend(bytes)));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_is_in_no_answer_no_header_and_no_line_of_the_log() {
    let (format, plain) = (server::logs::Format::Text, server::logs::Colour::Plain);
    let subscriber = server::logs::subscriber(format, "trace", plain, || Lines).unwrap();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    LINES.set(Some(Vec::new()));
    let house = House::memory().await;
    let good = house.key("default", "admin", &[Scope::Admin]).await;
    let bad = forged(&good);
    let parts = Parts::of_nothing();
    let mut shown = Vec::new();
    for operation in operations() {
        for value in [
            format!("Bearer {good}"),
            format!("Bearer {bad}"),
            format!("Bearer {good}_"),
            format!("Basic {good}"),
        ] {
            let ask = house
                .operate(&operation, &parts)
                .header("authorization", &value);
            let told = ask.told().await;
            if operation.id == "key_create" && told.status == 201 {
                shown.push(told.body["key"].as_str().unwrap().to_owned());
            } else {
                let all = format!("{:?} {}", told.headers, told.text);
                assert!(!all.contains(secret(&good)), "{}: {all}", operation.id);
                assert!(!all.contains(secret(&bad)), "{}: {all}", operation.id);
            }
        }
    }
    house.stop().await;
    let text = String::from_utf8(LINES.take().unwrap()).unwrap();
    assert!(text.contains("request_id="), "something was logged");
    assert_eq!(shown.len(), 1, "a new key is shown to who made it");
    for key in [good, bad, shown.remove(0)] {
        let line = text.lines().find(|line| line.contains(secret(&key)));
        assert_eq!(line, None);
    }
}

#[tokio::test]
async fn without_keys_only_this_machines_own_programs_come_in() {
    let house = House::memory().await;
    let port = house.address.port();
    let statistics = || house.get("/v1/statistics");
    let hosts = [
        (format!("127.0.0.1:{port}"), true),
        (format!("localhost:{port}"), true),
        (format!("[::1]:{port}"), true),
        (format!("evil.example:{port}"), false),
        (format!("127.0.0.1.evil.example:{port}"), false),
        (format!("localhost.evil.example:{port}"), false),
        ("0.0.0.0".to_owned(), false),
    ];
    for (host, may) in hosts {
        let told = statistics().header("host", &host).told().await;
        if may {
            told.of(200);
        } else {
            told.problem(401, "key.refused");
        }
    }
    // A page in this machine's browser says where it came from, one way or another.
    for (name, value, may) in [
        ("origin", format!("http://127.0.0.1:{port}"), true),
        ("origin", "https://evil.example".to_owned(), false),
        ("origin", "http://127.0.0.1:1".to_owned(), false),
        ("origin", "null".to_owned(), false),
        ("sec-fetch-site", "same-origin".to_owned(), true),
        ("sec-fetch-site", "none".to_owned(), true),
        ("sec-fetch-site", "cross-site".to_owned(), false),
        ("sec-fetch-site", "same-site".to_owned(), false),
    ] {
        let told = statistics().header(name, &value).told().await;
        let status = if may { 200 } else { 401 };
        assert_eq!(told.status, status, "{name}: {value}: {}", told.text);
    }
    // A form can be sent to anywhere without asking, but not as JSON.
    let position = house.position();
    let task = r#"{"kind": "count"}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let ask = house
            .ask(Method::POST, "/v1/tasks")
            .header("content-type", kind);
        ask.body(task)
            .told()
            .await
            .problem(415, "server.media_type");
        let evil = house
            .ask(Method::POST, "/v1/tasks")
            .header("content-type", kind);
        let evil = evil.header("origin", "https://evil.example").body(task);
        evil.told().await.problem(401, "key.refused");
    }
    assert_eq!(house.position(), position);
    house.stop().await;
}

#[tokio::test]
async fn where_others_can_come_there_must_be_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = |config: Config| Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..config
    };
    let open = Server::open(&everywhere(stored(folder.path(), &[])), Vec::new()).await;
    let error = open.unwrap_err();
    assert_eq!(error.code, Code::ListenOpen);
    assert!(error.hint.contains("chargehand keys create"), "{error:?}");
    drop(error);
    let house = House::open(&stored(folder.path(), &[])).await;
    let key = house.key("default", "admin", &[Scope::Admin]).await;
    house.stop().await;
    let house = House::open(&everywhere(stored(folder.path(), &[]))).await;
    let url = format!("http://127.0.0.1:{}/v1/statistics", house.address.port());
    let told = Ask(house.http.get(&url)).told().await;
    told.problem(401, "key.refused");
    Ask(house.http.get(&url)).key(&key).told().await.of(200);
    house.stop().await;
}

/// Fills a tenant with one of everything, all of it recognizable, and says what stands where.
async fn furnish(house: &House, key: &str) -> Parts {
    let mut parts = Parts::of_nothing();
    for (name, value) in [
        ("queue", "q-of-a"),
        ("worker", "w-of-a"),
        ("agent", "w-of-a"),
        ("pool", "p-of-a"),
        ("holder", "h-of-a"),
        ("step", "s-of-a"),
    ] {
        parts.set(name, value);
    }
    let post = |path: &str, body: Value| house.post(path, &body).key(key).told();
    let text = |told: &Told, name: &str| told.body[name].as_str().unwrap().to_owned();
    let worker = json!({"id": "w-of-a", "queues": ["q-of-a"], "tools": ["t-of-a"], "capacity": 3});
    post("/v1/workers", worker).await.of(201);
    let agent = house.ask(Method::PUT, "/v1/inboxes/w-of-a").key(key);
    agent.told().await.of(204);
    let pool = json!({"strategy": "least_loaded", "members": ["w-of-a"]});
    house
        .put("/v1/pools/p-of-a", &pool)
        .key(key)
        .told()
        .await
        .of(200);
    let reserve = json!({"holder": "h-of-a", "keep_ms": 60_000});
    post("/v1/pools/p-of-a/reservations", reserve).await.of(201);
    let run = post(
        "/v1/runs",
        json!({
            "goal": "of-a", "supervisor": "sup-of-a",
            "graph": {"steps": [{"id": "s-of-a", "task": {"kind": "k-of-a"}}]}
        }),
    );
    parts.set("run", &text(&run.await, "run_id"));
    let task = json!({"kind": "k-of-a", "queue": "q-of-a", "input": "of-a"});
    parts.set("task", &text(&post("/v1/tasks", task).await, "task_id"));
    let claim = json!({"claim": {"max": 1, "starts": true}});
    let work = post("/v1/workers/w-of-a/work", claim).await;
    assert_eq!(work.of(200)["tasks"][0]["task_id"], parts.get("task"));
    let entry = json!({"author": "w-of-a", "content": "of-a", "tags": ["of-a"]});
    parts.set(
        "entry",
        &text(&post("/v1/entries", entry).await, "entry_id"),
    );
    let message = json!({"from": "x-of-a", "to": {"agent": "w-of-a"}, "kind": "of-a"});
    parts.set(
        "message",
        &text(&post("/v1/messages", message).await, "message_id"),
    );
    parts.set("key", key.split('_').nth(2).unwrap());
    parts
}

/// A problem without what names its request, or a message that it has just made.
fn anonymous(told: &Told) -> Value {
    let mut body = told.body.clone();
    body["instance"] = Value::Null;
    if told.code() == "message.no_recipient" {
        body["detail"] = Value::Null;
    }
    body
}

// S4-24, S4-27: of two tenants on one server neither can see, count, change or even tell the existence
// of anything of the other, by any operation there is.
// S4-62, S4-122: isolation.
#[tokio::test]
async fn tenants_are_strangers_on_every_route() {
    let house = House::memory().await;
    let a = house.key("tenant-a", "key-of-a", &[Scope::Admin]).await;
    let b = house.key("tenant-b", "key-b", &[Scope::Admin]).await;
    // What never had any neighbour.
    let alone = House::memory().await;
    let c = alone.key("tenant-b", "key-b", &[Scope::Admin]).await;
    let parts = furnish(&house, &a).await;
    let before = *house.engine("tenant-a").head().borrow();
    let mut with_ids = 0;
    for operation in operations() {
        if operation.scopes.is_empty() {
            continue;
        }
        let what = format!("{} {}", operation.method, operation.path);
        let theirs = house.operate(&operation, &parts).key(&b).told().await;
        let nobodys = alone.operate(&operation, &parts).key(&c).told().await;
        assert_eq!(
            theirs.status, nobodys.status,
            "{what}: {} {}",
            theirs.text, nobodys.text
        );
        if theirs.status >= 400 {
            assert_eq!(anonymous(&theirs), anonymous(&nobodys), "{what}");
        }
        if operation.path.contains('{') {
            with_ids += 1;
        } else {
            let said = theirs.text.replace("new", "");
            assert!(
                !said.contains("of-a") && !said.contains("tenant-a"),
                "{what}: {said}"
            );
        }
    }
    assert!(with_ids > 30, "{with_ids}");
    for (list, id) in [("tasks", "task"), ("runs", "run"), ("messages", "message")] {
        let path = format!("/v1/{list}/{}", parts.get(id));
        house.get(&path).key(&a).told().await.of(200);
    }
    assert_eq!(
        *house.engine("tenant-a").head().borrow(),
        before,
        "A's log is as it was"
    );
    house.stop().await;
    alone.stop().await;
}

// S4-27: lists, counts, the log, its stream, the audit trail and the metrics of a tenant are its own.
#[tokio::test]
async fn what_a_tenant_reads_is_its_own() {
    let house = House::memory().await;
    let a = house.key("tenant-a", "key-of-a", &[Scope::Admin]).await;
    let b = house.key("tenant-b", "key-b", &[Scope::Admin]).await;
    let root = house.key("default", "root", &[Scope::Admin]).await;
    furnish(&house, &a).await;
    let nothing = Parts::of_nothing();
    for operation in operations() {
        if operation.method != Method::GET || operation.path.contains('{') {
            continue;
        }
        let told = house.operate(&operation, &nothing).key(&b).told().await;
        assert!(
            !told.text.contains("of-a"),
            "{}: {}",
            operation.path,
            told.text
        );
        assert!(
            !told.text.contains("tenant-a"),
            "{}: {}",
            operation.path,
            told.text
        );
    }
    for path in [
        "/v1/events?by=key-of-a",
        "/v1/audit?by=key-of-a",
        "/v1/events?type=task.*",
    ] {
        let told = house.get(path).key(&b).told().await;
        assert_eq!(told.of(200)["items"], json!([]), "{path}");
        let told = house.get(path).key(&a).told().await;
        assert_ne!(told.of(200)["items"], json!([]), "{path}");
    }
    let statistics = house.get("/v1/statistics").key(&b).told().await;
    assert_eq!(statistics.of(200)["total_tasks_submitted"], 0);
    // Its key's making is all that B's log has; what comes next in its stream is its own.
    house
        .post("/v1/tasks", &json!({"kind": "k-of-b"}))
        .key(&b)
        .told()
        .await
        .of(201);
    let head = *house.engine("tenant-b").head().borrow();
    let mut stream = follow::Stream::open(&house, "/v1/events", Some(&b), None).await;
    let mut last = 0;
    while last < head {
        let event = stream.event().await;
        assert!(!event.data.contains("of-a"), "{event:?}");
        last = event.id.unwrap();
    }
    let metrics = |key: &str| house.get("/metrics").key(key).told();
    let (theirs, all) = (metrics(&b).await, metrics(&root).await);
    assert!(theirs.text.contains(r#"tenant="tenant-b""#) && !theirs.text.contains("http_requests"));
    assert!(
        !theirs.text.contains(r#"tenant="default""#),
        "{}",
        theirs.text
    );
    for tenant in ["default", "tenant-a", "tenant-b"] {
        assert!(
            all.text.contains(&format!("tenant=\"{tenant}\"")),
            "{tenant}"
        );
    }
    drop(stream);
    house.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_read_nothing_unless_they_are_named() {
    const PAGE: &str = "https://dashboard.example";
    let allowed = "access-control-allow-origin";
    let house = House::memory().await;
    let key = house.key("default", "k", &[Scope::Reader]).await;
    let ask = |house: &House, origin: &str| {
        house
            .get("/v1/statistics")
            .key(&key)
            .header("origin", origin)
            .told()
    };
    let preflight = |house: &House, origin: &str| {
        let ask = house
            .ask(Method::OPTIONS, "/v1/tasks")
            .header("origin", origin);
        ask.header("access-control-request-method", "POST").told()
    };
    assert_eq!(ask(&house, PAGE).await.header(allowed), None);
    let told = preflight(&house, PAGE).await;
    assert_eq!((told.status, told.header(allowed)), (405, None));
    house.stop().await;

    let house = House::open(&config(&[("cors.origins", PAGE)])).await;
    let key = house.key("default", "k", &[Scope::Reader]).await;
    let ask = |origin: &'static str| {
        house
            .get("/v1/statistics")
            .key(&key)
            .header("origin", origin)
            .told()
    };
    let told = ask(PAGE).await;
    told.of(200);
    assert_eq!(told.header(allowed), Some(PAGE));
    assert_eq!(told.header("vary"), Some("origin"));
    assert!(
        told.header("access-control-expose-headers")
            .unwrap()
            .contains("x-request-id")
    );
    assert_eq!(told.header("access-control-allow-credentials"), None);
    assert_eq!(ask("https://evil.example").await.header(allowed), None);
    // A page must be able to read why it was refused.
    let refused = house
        .get("/v1/statistics")
        .header("origin", PAGE)
        .told()
        .await;
    refused.problem(401, "key.refused");
    assert_eq!(refused.header(allowed), Some(PAGE));
    let told = preflight(&house, PAGE).await;
    assert_eq!((told.status, told.header(allowed)), (204, Some(PAGE)));
    let headers = told.header("access-control-allow-headers").unwrap();
    for header in [
        "authorization",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "if-match",
    ] {
        assert!(headers.contains(header), "{header}");
    }
    let methods = told.header("access-control-allow-methods").unwrap();
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(methods.contains(method), "{method}");
    }
    let told = preflight(&house, "https://evil.example").await;
    assert_eq!((told.status, told.header(allowed)), (405, None));
    house.stop().await;

    let house = House::open(&config(&[("cors.origins", "*")])).await;
    let told = preflight(&house, PAGE).await;
    assert_eq!((told.status, told.header(allowed)), (204, Some(PAGE)));
    house.stop().await;
}
