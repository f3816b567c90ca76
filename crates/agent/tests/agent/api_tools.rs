//! Tools from OpenAPI documents, against a real server that writes down what it was asked.

use agent::crew::{Crew, CrewError};
use agent::tool::{LEFT_ALONE_MAX, OPERATIONS_MAX, RESULT_BYTES_MAX, RETRIES, Toolbox};
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// A request: its first line, its headers in small letters, its body.
#[derive(Debug, Clone)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let before = format!("{name}: ");
        self.headers.iter().find_map(|h| h.strip_prefix(&before))
    }
}

type Answers = fn(&Asked, usize) -> String;

/// A server that answers so; its address, and what it was asked.
async fn server(answers: Answers) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let mut headers = Vec::new();
                loop {
                    let mut header = String::new();
                    stream.read_line(&mut header).await.unwrap();
                    match header.trim_end() {
                        "" => break,
                        header => {
                            let (name, value) = header.split_once(": ").unwrap();
                            headers.push(format!("{}: {value}", name.to_lowercase()));
                        }
                    }
                }
                let mut asked = Asked {
                    line: line.trim_end().to_owned(),
                    headers,
                    body: String::new(),
                };
                let bytes = asked
                    .header("content-length")
                    .map_or(0, |n| n.parse().unwrap());
                let mut body = vec![0; bytes];
                stream.read_exact(&mut body).await.unwrap();
                asked.body = String::from_utf8(body).unwrap();
                let count = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(asked.clone());
                    kept.len()
                };
                let answer = answers(&asked, count);
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (format!("http://{address}"), log)
}

fn json_answer(status: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

const DOCUMENT: &str = r##"
openapi: 3.1.0
info: {title: Orders, version: "1"}
servers: [{url: "http://127.0.0.1:1/v1"}]
security: [{token: []}]
components:
  securitySchemes:
    token: {type: apiKey, in: header, name: X-Shop-Key}
    inquery: {type: apiKey, in: query, name: api_key}
    basic: {type: http, scheme: basic}
  schemas:
    Order:
      type: object
      required: [item]
      properties:
        item: {type: string}
        count: {type: integer, minimum: 1}
        parent: {$ref: "#/components/schemas/Order"}
paths:
  /orders:
    get:
      operationId: listOrders
      summary: Lists orders.
      parameters:
        - {name: status, in: query, schema: {type: array, items: {type: string}}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: X-Trace, in: header, schema: {type: string}}
      responses: {200: {description: fine}}
    post:
      operationId: createOrder
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: getOrder, security: [{inquery: []}]}
    put:
      operationId: putOrder
      security: [{basic: []}]
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
    delete: {operationId: deleteOrder, security: []}
"##;

struct Shop {
    folder: TempDir,
    tools: Toolbox,
    crew: Crew,
}

fn load(folder: &TempDir, document: &str, api: &str) -> Result<Crew, Vec<CrewError>> {
    std::fs::write(folder.path().join("shop.yaml"), document).unwrap();
    let text = format!(
        "version: 1\nname: desk\nmodels: {{fast: anthropic/claude-haiku-4-5}}\nagents:\n  clerk: {{description: Works., instructions: Work., tools: [shop.get_order]}}\napis:\n  shop: {{openapi: shop.yaml{api}}}\n"
    );
    let file = folder.path().join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    Crew::load(&file)
}

fn shop(api: &str) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let crew = load(&folder, DOCUMENT, api).unwrap();
    let tools = Toolbox::of_crew(&crew, []).unwrap();
    Shop {
        folder,
        tools,
        crew,
    }
}

impl Shop {
    async fn call(&self, operation: &str, arguments: Value) -> Result<Value, Failure> {
        let name = format!("shop.{operation}");
        let granted = [name.clone()].into();
        self.tools.call(&granted, &name, &arguments, "key-7").await
    }
}

#[track_caller]
fn fails(result: Result<Value, Failure>, code: &str, said: &str) -> Failure {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(said), "{said}: {failure:?}");
    failure
}

#[tokio::test]
async fn an_operation_is_asked_for_as_its_document_says() {
    let echo: Answers = |asked, _| json_answer("200 OK", &json!({"line": asked.line}));
    let (url, log) = server(echo).await;
    let shop = shop(&format!(", base_url: \"{url}/v2/\""));
    let arguments =
        json!({"status": ["new", "paid & sent"], "filter": {"by": "me"}, "X-Trace": "t"});
    let answer = shop.call("list_orders", arguments).await.unwrap();
    assert_eq!(
        answer["line"],
        "GET /v2/orders?status=new&status=paid+%26+sent&filter%5Bby%5D=me HTTP/1.1"
    );
    let body = json!({"item": "pen", "count": 2});
    shop.call("create_order", json!({"body": body.clone()}))
        .await
        .unwrap();
    shop.call("put_order", json!({"id": "ä b", "body": body.clone()}))
        .await
        .unwrap();
    shop.call("delete_order", json!({"id": "7"})).await.unwrap();
    let log = log.lock().unwrap().clone();
    assert_eq!(log[0].header("x-trace"), Some("t"));
    assert_eq!(
        log[0].header("idempotency-key"),
        None,
        "GET changes nothing"
    );
    assert_eq!(log[1].line, "POST /v2/orders HTTP/1.1");
    assert_eq!(log[1].header("idempotency-key"), Some("key-7"));
    assert_eq!(log[1].body, body.to_string());
    assert_eq!(log[2].line, "PUT /v2/orders/%C3%A4%20b HTTP/1.1");
    assert_eq!(log[3].line, "DELETE /v2/orders/7 HTTP/1.1");
    // What models are told of it, and what doing it twice would mean.
    let card = |name: &str| shop.tools.card(name).unwrap();
    assert!(
        card("shop.list_orders")
            .description
            .starts_with("Lists orders.")
    );
    let effects = ["list_orders", "put_order", "delete_order", "create_order"];
    assert_eq!(
        effects.map(|name| card(&format!("shop.{name}")).effect),
        [
            EffectClass::Pure,
            EffectClass::Keyed,
            EffectClass::Keyed,
            EffectClass::AtMostOnce
        ]
    );
    assert!(card("shop.get_order").untrusted_output);
    // Arguments are what the document's schema says, references followed.
    let odd = shop
        .call("create_order", json!({"body": {"count": 0}}))
        .await;
    fails(odd, "tool.arguments", "item");
    let odd = shop.call("get_order", json!({})).await;
    fails(odd, "tool.arguments", "id");
}

#[tokio::test]
async fn no_argument_leads_out_of_its_step_of_the_path() {
    let echo: Answers = |asked, _| json_answer("200 OK", &json!(asked.line));
    let (url, log) = server(echo).await;
    let shop = shop(&format!(", base_url: \"{url}/v1\""));
    for bad in [
        "..",
        ".",
        "../admin",
        "a/../../admin",
        "..\\admin",
        "",
        "a\nb",
        "a\u{0}",
    ] {
        let refused = shop.call("get_order", json!({"id": bad})).await;
        fails(refused, "tool.arguments", "id");
    }
    assert!(log.lock().unwrap().is_empty(), "nothing was asked");
    for (odd, step) in [
        ("a/b", "a%2Fb"),
        ("a?admin=1#x", "a%3Fadmin%3D1%23x"),
        ("%2e%2e", "%252e%252e"),
        ("@evil.example", "%40evil.example"),
        ("a;b=c", "a%3Bb%3Dc"),
    ] {
        let line = shop.call("get_order", json!({"id": odd})).await.unwrap();
        assert_eq!(line, format!("GET /v1/orders/{step} HTTP/1.1"));
    }
}

#[tokio::test]
async fn an_address_of_the_document_must_be_public_and_redirects_are_not_followed() {
    let away: Answers = |_, _| {
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into()
    };
    let (url, log) = server(away).await;
    let port = url.rsplit(':').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let document = DOCUMENT.replace("127.0.0.1:1/", &format!("127.0.0.1:{port}/"));
    let crew = load(&folder, &document, ", retry: 0").unwrap();
    let tools = Toolbox::of_crew(&crew, []).unwrap();
    let granted = ["shop.get_order".to_owned()].into();
    let call = tools
        .call(&granted, "shop.get_order", &json!({"id": "7"}), "k")
        .await;
    let failure = fails(call, "tool.failed", "loopback");
    assert!(!failure.retryable);
    assert!(log.lock().unwrap().is_empty());
    let meant = shop(&format!(", base_url: \"{url}\""));
    let call = meant.call("get_order", json!({"id": "7"})).await;
    fails(call, "tool.failed", "302, which leads elsewhere");
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_and_refusals_are_told_and_bounded() {
    let answers: Answers = |asked, _| {
        let id = asked.line.split(['/', ' ']).nth(3).unwrap();
        match id {
            "none" => "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into(),
            "text" => "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nhello".into(),
            "image" => "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nconnection: close\r\n\r\nPNG".into(),
            "large" => json_answer("200 OK", &json!("x".repeat(RESULT_BYTES_MAX))),
            "cut" => "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{".into(),
            "gone" => json_answer("404 Not Found", &json!({"error": "no such order", "more": "y".repeat(9_000)})),
            _ => json_answer("500 Oh", &json!("broke")),
        }
    };
    let (url, _) = server(answers).await;
    let shop = shop(&format!(", base_url: \"{url}\", retry: 0"));
    let get = async |id: &str| shop.call("get_order", json!({"id": id})).await;
    assert_eq!(get("none").await, Ok(Value::Null));
    assert_eq!(get("text").await, Ok(json!("hello")));
    fails(get("image").await, "tool.output", "image/png");
    fails(get("large").await, "tool.output", "bytes");
    assert!(fails(get("cut").await, "tool.broken", "broke off").retryable);
    let gone = fails(
        get("gone").await,
        "tool.failed",
        "404: {\"error\":\"no such order\"",
    );
    assert!(!gone.retryable && gone.message.len() < 1_000, "{gone:?}");
    assert!(fails(get("oh").await, "tool.broken", "500").retryable);
    // What must not be done twice, and may have been done, is in doubt.
    let post = shop
        .call("create_order", json!({"body": {"item": "pen"}}))
        .await;
    let failure = fails(post, "tool.broken", "500");
    assert!(
        shop.tools
            .card("shop.create_order")
            .unwrap()
            .leaves_in_doubt(&failure)
    );
}

// S0-86: a retried call with a side effect has the same key, and one that may have happened is not
// made again.
#[tokio::test]
async fn what_may_be_made_again_is_with_the_same_key_and_nothing_else_is() {
    let third: Answers = |_, count| match count {
        1 => json_answer("500 Oh", &json!("broke")),
        2 => json_answer("429 Slow", &json!("slow down")),
        _ => json_answer("200 OK", &json!(count)),
    };
    assert_eq!(RETRIES, 2);
    let (url, log) = server(third).await;
    let put = shop(&format!(", base_url: \"{url}\""));
    assert_eq!(
        put.call("put_order", json!({"id": "7"})).await,
        Ok(json!(3))
    );
    let keys = |log: &Mutex<Vec<Asked>>| -> Vec<String> {
        let log = log.lock().unwrap();
        let keys = log
            .iter()
            .map(|asked| asked.header("idempotency-key").unwrap().to_owned());
        keys.collect()
    };
    assert_eq!(keys(&log), ["key-7", "key-7", "key-7"]);
    // A POST that broke is not made again, whatever the crew file says.
    let (url, log) = server(third).await;
    let post = shop(&format!(", base_url: \"{url}\", retry: 5"));
    let failed = post
        .call("create_order", json!({"body": {"item": "pen"}}))
        .await;
    fails(failed, "tool.broken", "500");
    assert_eq!(keys(&log).len(), 1);
    // One that says itself that it did nothing is, where the crew file wants it.
    let busy: Answers = |_, count| match count {
        1 => json_answer("429 Slow", &json!("slow down")),
        _ => json_answer("201 Made", &json!(count)),
    };
    let (url, log) = server(busy).await;
    let once = shop(&format!(", base_url: \"{url}\""));
    let failed = once
        .call("create_order", json!({"body": {"item": "pen"}}))
        .await;
    assert!(fails(failed, "tool.failed", "429").retryable);
    assert_eq!(keys(&log).len(), 1);
    let (url, log) = server(busy).await;
    let again = shop(&format!(", base_url: \"{url}\", retry: 2"));
    let made = again
        .call("create_order", json!({"body": {"item": "pen"}}))
        .await;
    assert_eq!(made, Ok(json!(2)));
    assert_eq!(keys(&log), ["key-7", "key-7"]);
    // What doing it twice would mean is the crew file's to say.
    let (url, log) = server(third).await;
    let keyed = shop(&format!(
        ", base_url: \"{url}\", effects: {{createOrder: keyed}}"
    ));
    let made = keyed
        .call("create_order", json!({"body": {"item": "pen"}}))
        .await;
    assert_eq!(made, Ok(json!(3)));
    assert_eq!(keys(&log), ["key-7", "key-7", "key-7"]);
}

// S0-96: a provider that refuses makes its tools unavailable, and nothing else.
#[tokio::test]
async fn whoever_asks_to_be_left_alone_is() {
    let busy: Answers = |_, _| {
        "HTTP/1.1 503 Busy\r\nretry-after: 999999\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .into()
    };
    let (url, log) = server(busy).await;
    let shop = shop(&format!(", base_url: \"{url}\", retry: 0"));
    let most = format!("left alone for {} s", LEFT_ALONE_MAX.as_secs());
    let call = shop.call("get_order", json!({"id": "7"})).await;
    assert!(fails(call, "tool.failed", &most).retryable);
    let other = shop.call("list_orders", json!({})).await;
    fails(other, "tool.unavailable", "asks to be left alone");
    let refused = shop.tools.available("shop.create_order").await.unwrap_err();
    assert_eq!(refused.code, "tool.unavailable");
    assert_eq!(log.lock().unwrap().len(), 1, "it was asked once");
    assert!(shop.tools.available("http.fetch").await.is_ok());
}

#[tokio::test]
async fn without_its_key_it_is_not_asked() {
    let echo: Answers = |asked, _| json_answer("200 OK", &json!(asked.line));
    let (url, log) = server(echo).await;
    let shop = shop(&format!(
        ", base_url: \"{url}\", key: secret://SURELY_NOT_SET, retry: 0"
    ));
    let call = shop.call("get_order", json!({"id": "7"})).await;
    fails(
        call,
        "tool.unavailable",
        "CHARGEHAND_SECRET_SURELY_NOT_SET is not set",
    );
    assert!(log.lock().unwrap().is_empty());
    // One that wants no key is.
    assert!(shop.call("delete_order", json!({"id": "7"})).await.is_ok());
}

/// The environment of a process can be set safely only when it starts: so this test starts itself again.
#[tokio::test]
async fn a_key_goes_where_the_document_says_and_is_never_shown() {
    const VARIABLE: &str = "CHARGEHAND_SECRET_SHOP";
    let name = "api_tools::a_key_goes_where_the_document_says_and_is_never_shown";
    if std::env::var_os(VARIABLE).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VARIABLE, "user:hush-hush")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{again:?}"
        );
        return;
    }
    // A server that gives away what it was told.
    let gossip: Answers = |asked, _| {
        let said = json!({"line": asked.line, "headers": asked.headers});
        match asked.line.starts_with("DELETE") {
            true => json_answer("400 No", &said),
            false => json_answer("200 OK", &said),
        }
    };
    let (url, log) = server(gossip).await;
    let shop = shop(&format!(
        ", base_url: \"{url}\", key: secret://SHOP, retry: 0"
    ));
    let listed = shop.call("list_orders", json!({})).await.unwrap();
    let got = shop.call("get_order", json!({"id": "7"})).await.unwrap();
    let put = shop.call("put_order", json!({"id": "7"})).await.unwrap();
    let deleted = shop
        .call("delete_order", json!({"id": "7"}))
        .await
        .unwrap_err();
    let log = log.lock().unwrap().clone();
    assert_eq!(log[0].header("x-shop-key"), Some("user:hush-hush"));
    assert_eq!(
        log[1].line,
        "GET /orders/7?api_key=user%3Ahush-hush HTTP/1.1"
    );
    assert_eq!(
        log[2].header("authorization"),
        Some("Basic dXNlcjpodXNoLWh1c2g=")
    );
    let none = |asked: &Asked| !format!("{asked:?}").contains("hush");
    assert!(none(&log[3]), "it wants no key");
    for told in [
        listed.to_string(),
        got.to_string(),
        put.to_string(),
        deleted.message,
    ] {
        let hidden = !told.contains("hush") && !told.contains("dXNlcjpodXNoLWh1c2g");
        assert!(hidden, "{told}");
    }
    assert!(!format!("{:?}{:?}", shop.tools, shop.crew).contains("hush"));
    // Nor when nobody answers.
    let folder = tempfile::tempdir().unwrap();
    let crew = load(
        &folder,
        DOCUMENT,
        ", base_url: \"http://127.0.0.1:1\", key: secret://SHOP, retry: 0",
    );
    let tools = Toolbox::of_crew(&crew.unwrap(), []).unwrap();
    let granted = ["shop.get_order".to_owned()].into();
    let call = tools
        .call(&granted, "shop.get_order", &json!({"id": "7"}), "k")
        .await;
    let failure = fails(call, "tool.failed", "cannot be reached");
    assert!(
        failure.retryable && !failure.message.contains("hush"),
        "{failure:?}"
    );
}

#[test]
fn mistakes_of_an_api_are_told_at_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let first = |document: &str, api: &str| {
        let mistakes = load(&folder, document, api).unwrap_err();
        let place = mistakes[0].place.unwrap();
        (
            mistakes[0].code,
            place.line,
            mistakes[0].message.clone() + " " + &mistakes[0].hint,
        )
    };
    for (document, api, code, said) in [
        ("openapi: 3.1.0\npaths: [", "", "crew.schema", "line 2"),
        ("{\"openapi\": \"3.1.0\",", "", "crew.schema", "EOF"),
        ("swagger: '2.0'", "", "crew.schema", "Swagger 2.0"),
        (
            DOCUMENT,
            ", operations: [getOrder, putOder]",
            "crew.reference",
            "Did you mean `put_order`?",
        ),
        (
            DOCUMENT,
            ", operations: [create_order]",
            "crew.reference",
            "no tool `shop.get_order`",
        ),
        (
            DOCUMENT,
            ", effects: {gtOrder: pure}",
            "crew.reference",
            "Did you mean `get_order`?",
        ),
        (
            DOCUMENT,
            ", effects: {getOrder: twice}",
            "crew.value",
            "effects",
        ),
        (DOCUMENT, ", key: abc", "crew.secret", "secret"),
        (
            DOCUMENT,
            ", key: secret://SHOP",
            "crew.value",
            "without encryption",
        ),
        (DOCUMENT, ", base_url: \"ftp://x\"", "crew.value", "http"),
        (
            &DOCUMENT.replace("http://127.0.0.1:1", ""),
            "",
            "crew.missing_key",
            "base_url",
        ),
    ] {
        let (found, line, text) = first(document, api);
        assert_eq!(found, code, "{api}: {text}");
        assert!(text.contains(said), "{said}: {text}");
        assert!(line == 7 || line == 5, "{line}: {text}");
    }
    // Too many are refused, unless the crew file says which.
    let path = |n: usize| format!("  /p{n}: {{get: {{operationId: op{n}}}}}\n");
    let paths: String = (0..=OPERATIONS_MAX).map(path).collect();
    let many = format!("openapi: 3.0.0\nservers: [{{url: https://x.example}}]\npaths:\n{paths}");
    assert_eq!(first(&many, "").0, "crew.too_large");
    let many = format!("{many}  /get: {{get: {{operationId: getOrder}}}}\n");
    let few = load(&folder, &many, ", operations: [getOrder, op7]").unwrap();
    let names: Vec<&str> = few.apis["shop"]
        .operations
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names, ["get_order", "op7"]);
}

#[test]
fn a_run_pins_what_its_document_says() {
    let shop = shop("");
    let other = DOCUMENT.replace("minimum: 1", "minimum: 2");
    let changed = load(&shop.folder, &other, "").unwrap();
    assert_ne!(shop.crew.digest, changed.digest);
    let same = load(&shop.folder, DOCUMENT, "").unwrap();
    assert_eq!(shop.crew.digest, same.digest);
}
