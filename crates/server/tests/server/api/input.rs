//! What no client should send, and some do: each is told what is wrong with it, nothing is stored, and
//! the server goes on.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

impl House {
    /// The request is refused so, and nothing came of it.
    #[track_caller]
    fn refused<'a>(
        &'a self,
        ask: Ask,
        status: u16,
        code: &'a str,
    ) -> impl Future<Output = String> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let before = self.position();
            let told = ask.told().await;
            assert_eq!(
                (told.status, told.code()),
                (status, code),
                "{caller}: {}",
                told.text
            );
            let detail = told.problem(status, code).to_owned();
            assert!(
                detail.len() < 1_000 && !detail.contains(char::is_control),
                "{caller}: {detail:?}"
            );
            assert_eq!(self.position(), before, "{caller}: nothing is stored");
            detail
        }
    }

    fn task(&self, body: impl Into<String>) -> Ask {
        self.ask(Method::POST, "/v1/tasks").text(body.into())
    }

    /// Speaks HTTP by hand, on a connection of its own.
    async fn speak(&self, text: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(text).await.unwrap();
        connection
    }

    async fn is_well(&self) {
        self.get("/readyz").told().await.of(200);
        self.get("/v1/statistics").told().await.of(200);
    }
}

/// What comes until the connection ends.
async fn rest(mut connection: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = within(connection.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_body_that_is_not_what_is_read_is_refused_and_the_place_is_named() {
    let house = House::memory().await;
    let malformed = "json.malformed";
    for (body, says) in [
        ("", "line 1 column 0"),
        ("{", "line 1 column 1"),
        ("{\"kind\": \"a\"\n \"queue\": 1}", "line 2 column 2"),
        ("{\"kind\": \"a\"} x", "trailing characters at line 1"),
        ("{\"kind\": nonsense}", "line 1 column"),
        ("\u{0}\u{1}\u{2}", "line 1 column 1"),
        (
            "{\"kind\": \"a\", \"kind\": \"b\"}",
            "duplicate field `kind`",
        ),
        ("{\"kind\": \"a\", \"qeue\": \"b\"}", "unknown field `qeue`"),
        ("{\"kind\": 7}", "invalid type: integer `7`"),
        ("{\"priority\": \"high\"}", "invalid type: string"),
        ("{\"priority\": 1e99}", "line 1 column"),
        ("{\"timeout_ms\": -1}", "invalid value: integer `-1`"),
        (
            "{\"address\": {\"nobody\": \"x\"}}",
            "unknown variant `nobody`",
        ),
        ("[]", "line 1 column"),
        ("null", "invalid type: null"),
        ("7", "invalid type: integer"),
    ] {
        let detail = house.refused(house.task(body), 400, malformed).await;
        assert!(detail.contains(says), "{body:?}: {detail}");
        assert!(
            detail.contains("line ") && detail.contains("column "),
            "{body:?}: {detail}"
        );
    }
    // A code of the domain stays what it is, and the place is named beside it.
    for (body, code) in [
        ("{\"kind\": \"\"}", "name.malformed"),
        ("{\"kind\": \"a\\u0000b\"}", "name.malformed"),
        ("{\"kind\": \"a\\nb\"}", "name.malformed"),
        ("{\"after\": [\"task_1\"]}", "id.malformed"),
        (
            "{\"after\": [\"run_00000000000000000000000000\"]}",
            "id.malformed",
        ),
    ] {
        let detail = house.refused(house.task(body), 400, code).await;
        assert!(detail.contains("line 1 column"), "{detail}");
    }
    let bytes = house
        .ask(Method::POST, "/v1/tasks")
        .text(b"{\"kind\": \"\xff\xfe\"}".to_vec());
    house.refused(bytes, 400, malformed).await;
    for (body, status, code) in [
        (json!({"timeout_ms": 0}), 400, "value.out_of_range"),
        (json!({"priority": 1_001}), 400, "value.out_of_range"),
        (
            json!({"metadata": {"k": "v".repeat(4_097)}}),
            400,
            "limit.exceeded",
        ),
        (
            json!({"input": "x".repeat(1024 * 1024)}),
            413,
            "payload.too_large",
        ),
        (json!({"kind": "k".repeat(129)}), 400, "name.malformed"),
        (
            json!({"kind": "é".repeat(1_000_000)}),
            400,
            "name.malformed",
        ),
    ] {
        house
            .refused(house.task(body.to_string()), status, code)
            .await;
    }
    house.is_well().await;
    house.stop().await;
}

#[tokio::test]
async fn nesting_is_read_as_deep_as_it_is_safe() {
    let house = House::memory().await;
    let nested =
        |depth: usize| format!("{{\"input\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    let told = house.task(nested(100)).told().await;
    let task = told.of(201)["task_id"].as_str().unwrap().to_owned();
    let read = house.get(&format!("/v1/tasks/{task}")).told().await;
    assert!(read.of(200)["input"].to_string().starts_with("[[[["));
    for depth in [112, 1_000, 100_000] {
        let detail = house
            .refused(house.task(nested(depth)), 400, "limit.exceeded")
            .await;
        assert_eq!(
            detail,
            "more than 112 levels of brackets at line 1 column 122"
        );
    }
    let open = format!("{{\"input\": {}", "{\"a\":".repeat(100_000));
    house.refused(house.task(open), 400, "limit.exceeded").await;
    // What stands in a text is not nested.
    let text = json!({"input": format!("\\\"{}", "[{".repeat(1_000))});
    house.task(text.to_string()).told().await.of(201);
    // What was taken can be read again, in every list there is.
    for path in ["/v1/tasks", "/v1/events", "/v1/queues/default/tasks"] {
        assert_eq!(
            house.get(path).told().await.of(200)["items"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
    house.is_well().await;
    house.stop().await;
}

#[tokio::test]
async fn a_body_may_be_so_long_and_take_so_long() {
    let limits = [("limits.body_bytes", "4096"), ("limits.body_seconds", "1")];
    let house = House::open(&config(&limits)).await;
    let long = json!({"input": "x".repeat(5_000)}).to_string();
    let detail = house
        .refused(house.task(long), 413, "payload.too_large")
        .await;
    assert!(detail.contains("4096 bytes"), "{detail}");
    let fits = json!({"input": "x".repeat(4_000)}).to_string();
    house.task(fits).told().await.of(201);
    let position = house.position();
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    // It says nothing of its length, and never ends.
    let endless = format!(
        "{head}transfer-encoding: chunked\r\n\r\n2000\r\n{}",
        "x".repeat(0x2000)
    );
    let answer = rest(house.speak(endless.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("payload.too_large"), "{answer}");
    // It begins, and then nothing comes.
    let slow = format!("{head}content-length: 100\r\n\r\n{{\"kind\"");
    let answer = rest(house.speak(slow.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("server.request_slow"), "{answer}");
    // It breaks off, in whichever way.
    for broken in [
        format!("{head}content-length: 100\r\n\r\n{{\"kind\": \"a\"}}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"kin"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
    ] {
        let mut connection = house.speak(broken.as_bytes()).await;
        connection.shutdown().await.unwrap();
        let answer = rest(connection).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert_eq!(house.position(), position, "nothing is stored");
    house.is_well().await;
    house.stop().await;
}

// S3-149: a state that no run has is refused.
#[tokio::test]
async fn a_path_a_query_or_a_method_that_is_not_there_is_named() {
    let house = House::memory().await;
    let zeros = "0".repeat(26);
    for (path, status, code) in [
        ("/", 404, "server.route_unknown"),
        ("/v1", 404, "server.route_unknown"),
        ("/v2/tasks", 404, "server.route_unknown"),
        ("/v1/tasks/", 404, "server.route_unknown"),
        ("/v1/tasks/%00%0d%0a", 400, "id.malformed"),
        ("/v1/%00%0d%0a%ff", 404, "server.route_unknown"),
        ("/v1/tasks/task_1", 400, "id.malformed"),
        ("/v1/tasks/%F0%9F%92%A9", 400, "id.malformed"),
        ("/v1/tasks/%ff", 400, "json.malformed"),
        ("/v1/workers/a%0Ab", 400, "name.malformed"),
        ("/v1/workers/%20", 400, "name.malformed"),
        ("/v1/workers/..%2f..%2fetc", 404, "worker.unknown"),
        ("/v1/tasks?limit=x", 400, "value.out_of_range"),
        ("/v1/tasks?limit=-1", 400, "value.out_of_range"),
        (
            "/v1/tasks?limit=99999999999999999999",
            400,
            "value.out_of_range",
        ),
        ("/v1/tasks?status=done", 400, "value.out_of_range"),
        ("/v1/runs?status=paused", 400, "value.out_of_range"),
        ("/v1/tasks?after=task_1", 400, "value.out_of_range"),
        ("/v1/tasks?limt=1", 400, "value.out_of_range"),
        ("/v1/tasks?limit=1&limit=2", 400, "value.out_of_range"),
        ("/v1/tasks?%ff=%ff", 400, "value.out_of_range"),
        ("/v1/messages?after=x", 400, "id.malformed"),
        ("/v1/entries?importance_min=high", 400, "value.out_of_range"),
        ("/v1/events?after=-1", 400, "value.out_of_range"),
        ("/v1/events?wait_ms=soon", 400, "value.out_of_range"),
        ("/v1/tasks/TASK?wait_ms=-5", 400, "value.out_of_range"),
        ("/v1/tasks/TASK", 404, "task.unknown"),
        ("/v1/tasks/TASK/attempts", 404, "task.unknown"),
    ] {
        let path = path.replace("TASK", &format!("task_{zeros}"));
        house.refused(house.get(&path), status, code).await;
    }
    // S0-202: operations that another system of this kind had and gave up.
    for gone in ["", "sync", "deploy-agent/creator_1"] {
        let ask = house.post(&format!("/onboarding/{gone}"), &json!({}));
        house.refused(ask, 404, "server.route_unknown").await;
    }
    let attempt = |n: &str| {
        let body = json!({"worker": "w", "report": "started"});
        house.post(&format!("/v1/tasks/task_{zeros}/attempts/{n}"), &body)
    };
    for n in ["-1", "x", "4294967296", "1.5"] {
        house.refused(attempt(n), 400, "json.malformed").await;
    }
    for operation in operations() {
        for method in [Method::PATCH, Method::OPTIONS] {
            let ask = house.ask(method, &operation.at(&Parts::of_nothing()));
            house.refused(ask, 405, "server.method_unknown").await;
        }
    }
    let huge = format!("/v1/tasks?kind={}", "k".repeat(10_000));
    house
        .refused(house.get(&huge), 400, "value.out_of_range")
        .await;
    let huge = format!("/v1/messages?after={}", "k".repeat(10_000));
    house.refused(house.get(&huge), 400, "id.malformed").await;
    let huge = format!("/v1/{}", "k".repeat(10_000));
    house
        .refused(house.get(&huge), 404, "server.route_unknown")
        .await;
    house.is_well().await;
    house.stop().await;
}

#[tokio::test]
async fn only_json_is_read_by_every_operation_that_takes_a_body() {
    let house = House::memory().await;
    let parts = Parts::of_nothing();
    for operation in operations()
        .into_iter()
        .filter(|operation| operation.has_body)
    {
        let ask = || house.ask(operation.method.clone(), &operation.at(&parts));
        for kind in ["text/plain", "application/xml", "application/jsonx", "json"] {
            let ask = ask().header("content-type", kind).body("{}");
            house.refused(ask, 415, "server.media_type").await;
        }
        house
            .refused(ask().body("{}"), 415, "server.media_type")
            .await;
        let unknown = ask().text("{\"no such field\": 1}");
        house.refused(unknown, 400, "json.malformed").await;
        house.refused(ask().text("{"), 400, "json.malformed").await;
    }
    let task = house.ask(Method::POST, "/v1/tasks");
    let task = task
        .header("content-type", "Application/JSON; charset=utf-8")
        .body("{}");
    task.told().await.of(201);
    house.is_well().await;
    house.stop().await;
}

// S4-107: a conflict is told to whoever changes what another has changed since.
#[tokio::test]
async fn a_change_of_what_somebody_else_has_changed_is_refused() {
    let house = House::memory().await;
    let body = json!({"strategy": "least_loaded"});
    let put = || house.put("/v1/pools/p", &body);
    let made = put().header("if-none-match", "*").told().await;
    made.of(200);
    let tag = made.header("etag").unwrap().to_owned();
    assert_eq!(
        house.get("/v1/pools/p").told().await.header("etag"),
        Some(tag.as_str())
    );
    house
        .refused(put().header("if-none-match", "*"), 412, "version.stale")
        .await;
    let next = house.put("/v1/pools/p", &json!({"strategy": "round_robin"}));
    let next = next.header("if-match", &tag).told().await;
    assert_ne!(next.header("etag"), Some(tag.as_str()), "{}", next.text);
    house
        .refused(put().header("if-match", &tag), 412, "version.stale")
        .await;
    for nonsense in ["", "x", "\"x\"", "W/\"1\"", "\"1\", \"2\"", "-1"] {
        house
            .refused(put().header("if-match", nonsense), 412, "version.stale")
            .await;
    }
    let both = put().header("if-match", &tag).header("if-none-match", "*");
    house.refused(both, 400, "value.out_of_range").await;
    let other = put().header("if-none-match", "\"1\"");
    house.refused(other, 400, "value.out_of_range").await;
    let never = house.put("/v1/pools/q", &body).header("if-match", "\"1\"");
    house.refused(never, 412, "version.stale").await;
    house.stop().await;
}

#[tokio::test]
async fn a_request_that_has_a_name_keeps_it_unless_it_is_none() {
    let house = House::memory().await;
    let ask = |id: &str| house.get("/v1/nowhere").header("x-request-id", id);
    let told = ask("mine-1").told().await;
    told.problem(404, "server.route_unknown");
    assert_eq!(told.header("x-request-id"), Some("mine-1"));
    for wrong in ["", " ", &"x".repeat(129)] {
        let told = ask(wrong).told().await;
        told.problem(404, "server.route_unknown");
        assert!(told.header("x-request-id").unwrap().starts_with("req_"));
    }
    let task = house
        .post("/v1/tasks", &json!({}))
        .header("x-request-id", "mine-2");
    task.told().await.of(201);
    let events = house.get("/v1/events").told().await;
    assert_eq!(events.of(200)["items"][0]["cause"], "mine-2");
    house.stop().await;
}

/// Numbers that look random and are the same every time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(64)).map(|_| self.next() as u8).collect()
    }

    /// The text with a few bytes changed, left out, doubled, or put in.
    fn mutated(&mut self, text: &str) -> Vec<u8> {
        const WORDS: [&str; 12] = [
            "null",
            "-1",
            "18446744073709551615",
            "1e308",
            "\"\"",
            "[]",
            "{}",
            "true",
            "0.1",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "99999999999999999999",
        ];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.next() as u8,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, b"{}[]\",:\\0-"[self.below(10)]),
                _ => {
                    // A value in place of another.
                    let word = WORDS[self.below(WORDS.len())].bytes();
                    let from = bytes[..at].iter().rposition(|byte| *byte == b':');
                    let from = from.map_or(at, |from| from + 1);
                    let until = bytes[from..].iter().position(|byte| b",}]".contains(byte));
                    let until = until.map_or(bytes.len(), |until| from + until);
                    bytes.splice(from..until, word);
                }
            }
        }
        bytes
    }
}

// S4-32: whatever comes, the server does not break: it answers every request, no answer is a defect,
// every refusal is a whole problem, and nothing wrong is in what it stored.
#[tokio::test]
async fn nothing_that_is_sent_is_a_defect() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever mutates a wait must not wait for it.
    let mut config = stored(folder.path(), &[("limits.wait_seconds", "1")]);
    config.limits.wait_seconds = 0;
    let house = House::open(&config).await;
    let seed = std::env::var("CHARGEHAND_SEED").ok();
    let seed = seed.map_or(7, |seed| seed.parse().unwrap());
    let mut chance = Chance(seed);
    let mut parts = Parts::of_nothing();
    house.register("w", 3).await;
    parts.set("worker", "w");
    parts.set("agent", "w");
    parts.set("task", &house.submit("k").await);
    for operation in operations() {
        // What never ends would never be told, and without tenants no files are left open.
        if operation.streams() || operation.id == "tenant_create" || operation.id == "key_create" {
            continue;
        }
        for round in 0..16 {
            let mut path = operation.at(&parts);
            if round % 4 == 3 {
                let noise: String = chance
                    .bytes()
                    .iter()
                    .map(|byte| format!("%{byte:02x}"))
                    .collect();
                path = match chance.below(2) {
                    0 => format!("{path}?{noise}"),
                    _ => format!("{}/{noise}", path.rsplit_once('/').unwrap().0),
                };
            }
            let ask = house.ask(operation.method.clone(), &path);
            let body = match (body_of(&operation.id, &parts), round % 4) {
                (Some(valid), 0..3) => chance.mutated(&valid.to_string()),
                _ => chance.bytes(),
            };
            let shown = String::from_utf8_lossy(&body).into_owned();
            let what = format!("seed {seed}: {} {path} {shown}", operation.method);
            let told = ask.text(body).told().await;
            // A wait that ends and an answer that nobody gave are no defects.
            assert!(told.status < 500, "{what}: {}", told.text);
            if told.status >= 400 {
                told.well_formed();
            }
        }
    }
    house.is_well().await;
    house.stop().await;
    let house = House::open(&config).await;
    house.is_well().await;
    house.stop().await;
}
