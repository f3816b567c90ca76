//! Servers at an address that misbehave: a listener of the tests' own, which answers what it is told.

use super::{Bench, PATIENCE, TORN, begun_with, fails, shows_some};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request: the head as it was sent, and the message.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    message: Value,
}

impl Asked {
    fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }
}

/// What is answered, byte for byte.
type Answer = fn(&Asked) -> Vec<u8>;

/// A listener, and what it was asked.
struct Shop {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Shop {
    async fn open(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&all)));
            }
        });
        Self { port, asked }
    }

    fn bench(&self, more: &str) -> Bench {
        let mcp = format!(
            "{{shop: {{url: \"http://127.0.0.1:{}/mcp\"{more}}}}}",
            self.port
        );
        Bench::new(&mcp, &["shop.act"])
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn times(&self, method: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|one| one.method() == method).count()
    }
}

/// One request, one answer, one connection.
async fn serve(stream: TcpStream, answer: Answer, all: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.split_once("content-length: ").map_or(0, |(_, rest)| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    });
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let message = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Asked { head, message };
    let bytes = answer(&asked);
    all.lock().unwrap().push(asked);
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

fn http(status: &str, kind: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn result(asked: &Asked, result: &Value) -> Vec<u8> {
    let message = json!({"jsonrpc": "2.0", "id": asked.message["id"], "result": result});
    http(
        "200 OK",
        "application/json",
        "",
        message.to_string().as_bytes(),
    )
}

/// A server that is well, but for how it answers calls.
fn well(asked: &Asked, call: Answer) -> Vec<u8> {
    match asked.method() {
        "server/discover" => result(
            asked,
            &json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 60_000,
                "cacheScope": "private", "capabilities": {"tools": {}},
                "serverInfo": {"name": "shop", "version": "1"},
            }),
        ),
        "tools/list" => result(
            asked,
            &json!({
                "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
                "tools": [{"name": "act", "inputSchema": {"type": "object"}}],
            }),
        ),
        "tools/call" => call(asked),
        _ => http("202 Accepted", "text/plain", "", b""),
    }
}

fn done(asked: &Asked) -> Vec<u8> {
    let content = json!([{"type": "text", "text": "acted"}]);
    result(
        asked,
        &json!({"resultType": "complete", "content": content}),
    )
}

#[tokio::test]
async fn what_an_answer_over_http_means_for_the_call() {
    let well_done = Shop::open(|asked| well(asked, done)).await;
    let called = well_done.bench("").call("shop.act", json!({})).await;
    assert_eq!(called, Ok(json!("acted")));
    let head = &well_done.asked().pop().unwrap().head;
    let head = head.to_ascii_lowercase();
    assert!(head.contains("mcp-protocol-version: 2026-07-28"), "{head}");
    assert!(!head.contains("authorization"), "{head}");

    let cases: [(Answer, &str, &str); 6] = [
        // It may have happened, and only a person can find out.
        (
            |asked| well(asked, |_| http("500 No", "text/plain", "", b"boom")),
            "record.in_doubt",
            "HTTP 500",
        ),
        (
            |asked| well(asked, |_| Vec::new()),
            "record.in_doubt",
            "“shop”",
        ),
        (
            |asked| well(asked, |_| http("200 OK", "text/html", "", b"<html>")),
            "record.in_doubt",
            "text/html",
        ),
        (
            |asked| {
                well(asked, |_| {
                    http("200 OK", "application/json", "", b"{\"a\":")
                })
            },
            "record.in_doubt",
            "no message",
        ),
        // It did not.
        (
            |asked| {
                well(asked, |_| {
                    http("429 Slow", "text/plain", "retry-after: 1\r\n", b"")
                })
            },
            "mcp.refused",
            "HTTP 429",
        ),
        (
            |asked| {
                let key = "www-authenticate: Bearer\r\n";
                match asked.method() {
                    "tools/call" => http("401 Key", "text/plain", key, b""),
                    _ => well(asked, done),
                }
            },
            "mcp.refused",
            "another key",
        ),
    ];
    for (answer, code, said) in cases {
        let shop = Shop::open(answer).await;
        let called = shop.bench("").call("shop.act", json!({})).await;
        fails(called, code, said);
        // Nobody made it again.
        assert_eq!(shop.times("tools/call"), 1, "{said}");
    }
}

#[tokio::test]
async fn streams_have_bounds_too() {
    fn stream(asked: &Asked) -> Vec<u8> {
        well(asked, |_| {
            let event = format!("data: {}\n\n", "x".repeat(6_000_000));
            http("200 OK", "text/event-stream", "", event.as_bytes())
        })
    }
    let shop = Shop::open(stream).await;
    let bench = shop.bench(", effect: pure, timeout: 5s");
    fails(
        bench.call("shop.act", json!({})).await,
        "mcp.broken",
        "broke off",
    );
    let shop = Shop::open(|asked| {
        well(asked, |_| {
            let text = "x".repeat(20_000_000);
            http(
                "200 OK",
                "application/json",
                "",
                format!("\"{text}\"").as_bytes(),
            )
        })
    })
    .await;
    let called = shop
        .bench(", effect: pure")
        .call("shop.act", json!({}))
        .await;
    fails(called, "mcp.protocol", "too much");
}

#[tokio::test]
async fn a_key_goes_to_its_own_address_and_nowhere_else() {
    const VARIABLE: &str = "CHARGEHAND_SECRET_AT_AN_ADDRESS";
    const SECRET: &str = "correct-horse-battery";
    static ELSEWHERE: Mutex<u16> = Mutex::new(0);
    let name = "mcp::address::a_key_goes_to_its_own_address_and_nowhere_else";
    if !begun_with(VARIABLE, SECRET, name) {
        return;
    }
    let key = ", key: secret://AT_AN_ADDRESS";
    let shop = Shop::open(|asked| {
        well(asked, |asked| {
            let key = asked.head.lines().find(|line| line.contains("earer "));
            let content = json!([{"type": "text", "text": key}]);
            result(
                asked,
                &json!({"resultType": "complete", "content": content}),
            )
        })
    })
    .await;
    let said = shop.bench(key).call("shop.act", json!({})).await.unwrap();
    assert!(
        said.as_str()
            .unwrap()
            .ends_with("Bearer secret://AT_AN_ADDRESS"),
        "it has the secret, and we do not: {said}"
    );

    // A redirect to another address is not followed, one at the same address is.
    let elsewhere = Shop::open(|asked| well(asked, done)).await;
    *ELSEWHERE.lock().unwrap() = elsewhere.port;
    let away = Shop::open(|_| {
        let port = *ELSEWHERE.lock().unwrap();
        let location = format!("location: http://127.0.0.1:{port}/mcp\r\n");
        http("307 There", "text/plain", &location, b"")
    })
    .await;
    let called = away.bench(key).call("shop.act", json!({})).await;
    let failure = fails(called, "mcp.unreachable", "“shop”");
    assert!(!failure.message.contains(SECRET), "{failure:?}");
    assert!(elsewhere.asked().is_empty());
    let within = Shop::open(|asked| match asked.head.starts_with("POST /mcp ") {
        true => http("307 There", "text/plain", "location: /mcp/\r\n", b""),
        false => well(asked, done),
    })
    .await;
    let called = within.bench(key).call("shop.act", json!({})).await;
    assert_eq!(called, Ok(json!("acted")));
}

#[tokio::test]
async fn an_address_where_nobody_is_leaves_nothing_in_doubt() {
    let shop = Shop::open(|_| Vec::new()).await;
    let called = shop.bench("").call("shop.act", json!({})).await;
    fails(called, "mcp.unreachable", "“shop”");
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mcp = format!("{{shop: {{url: \"http://127.0.0.1:{port}/mcp\"}}}}");
    let bench = Bench::new(&mcp, &["shop.act"]);
    let called = tokio::time::timeout(PATIENCE, bench.call("shop.act", json!({}))).await;
    let failure = fails(called.unwrap(), "mcp.unreachable", "no way to it");
    assert!(failure.retryable);
}

#[tokio::test]
async fn no_part_of_a_key_is_left_where_an_answer_that_is_none_is_cut_or_quoted() {
    let name =
        "mcp::address::no_part_of_a_key_is_left_where_an_answer_that_is_none_is_cut_or_quoted";
    if !begun_with("CHARGEHAND_SECRET_OF_THE_PRINTER", TORN, name) {
        return;
    }
    let cases: [(Answer, &str); 4] = [
        // The protocol's library shows the first 256 bytes of such an answer.
        (
            |asked| {
                well(asked, |_| {
                    let body = format!("{}{TORN}", " ".repeat(256 - TORN.len() / 2));
                    http("200 OK", "application/json", "", body.as_bytes())
                })
            },
            "no message",
        ),
        (
            |asked| {
                well(asked, |_| {
                    let body = json!({"jsonrpc": TORN, "id": 1, "result": {}});
                    http(
                        "200 OK",
                        "application/json",
                        "",
                        body.to_string().as_bytes(),
                    )
                })
            },
            "no message",
        ),
        (
            |asked| {
                well(asked, |_| {
                    let kind = format!("text/{}{TORN}", "n".repeat(190 - TORN.len()));
                    http("200 OK", &kind, "", b"{}")
                })
            },
            "content type",
        ),
        (
            |asked| {
                well(asked, |asked| {
                    let why = format!("{}{TORN}", "n".repeat(200 - TORN.len() / 2));
                    let error = json!({"code": -32603, "message": why});
                    let message =
                        json!({"jsonrpc": "2.0", "id": asked.message["id"], "error": error});
                    http(
                        "200 OK",
                        "application/json",
                        "",
                        message.to_string().as_bytes(),
                    )
                })
            },
            "it refuses",
        ),
    ];
    for (answer, said) in cases {
        let shop = Shop::open(answer).await;
        let bench = shop.bench(", key: secret://OF_THE_PRINTER");
        let failure = bench.call("shop.act", json!({})).await.unwrap_err();
        assert!(failure.message.contains(said), "{failure:?}");
        assert!(!shows_some(&failure.message), "{failure:?}");
    }
}
