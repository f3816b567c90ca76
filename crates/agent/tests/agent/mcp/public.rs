//! Public servers: from npm over both transports (2025-11-25), from PyPI over streamable HTTP
//! (2026-07-28).

use super::peers::{npm, peers, python};
use super::{Bench, PATIENCE, available, fails, script};
use agent::mcp::Health;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A server at an address, ended with the test.
struct Served {
    url: String,
    process: Child,
}

/// Starts a server that says its address on standard error, in a line with `http://127.0.0.1:PORT`.
async fn serve(command: &mut Command) -> Served {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = command.stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut process = started.unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let said = async {
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, rest)) = line.split_once("http://127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return port;
            }
            said += &line;
        }
        panic!("the server ended: {said}");
    };
    let port = tokio::time::timeout(PATIENCE, said).await.unwrap();
    // Or it would wait for somebody to read what it says.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Served {
        url: format!("http://127.0.0.1:{port}/mcp"),
        process,
    }
}

async fn modern(ttl_ms: u64, port: &str) -> Served {
    let mut command = Command::new(python());
    command.arg(script("modern.py")).arg(ttl_ms.to_string());
    serve(command.env("PORT", port)).await
}

async fn everything() -> Served {
    let mut command = Command::new("node");
    let program =
        peers().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    command.arg("-r").arg(script("loopback.cjs")).arg(program);
    serve(command.arg("streamableHttp")).await
}

/// Of four steps some are told, in their order: the last word counts where two come too soon.
#[track_caller]
fn counts_up(told: &[String]) {
    let step = |text: &String| {
        text.strip_suffix(" of 4")
            .and_then(|n| n.parse::<u32>().ok())
    };
    let steps: Option<Vec<u32>> = told.iter().map(step).collect();
    let steps = steps.unwrap_or_else(|| panic!("{told:?}"));
    assert!(steps.is_sorted() && steps.len() >= 2, "{told:?}");
}

#[tokio::test]
async fn a_public_server_is_used_over_standard_input_and_output() {
    let mcp = format!(
        "{{everything: {{command: '{}', tools: {{echo: {{effect: pure}}, sum: {{name: get-sum}}, image: {{name: get-tiny-image}}, weather: {{name: get-structured-content}}, links: {{name: get-resource-links}}, env: {{name: get-env}}, long: {{name: trigger-long-running-operation}}}}}}}}",
        npm("mcp-server-everything")
    );
    let grants = ["echo", "sum", "image", "weather", "links", "env", "long"];
    let grants = grants.map(|tool| format!("everything.{tool}"));
    let bench = Bench::new(&mcp, &grants.each_ref().map(String::as_str));

    let told = bench.told().await;
    assert_eq!(told.len(), 7);
    let (name, description, input) = &told[0];
    assert_eq!(name, "everything_echo");
    assert!(
        description.starts_with("[MCP server “everything”] "),
        "{description}"
    );
    assert_eq!(input["required"], json!(["message"]));

    let echoed = bench
        .call("everything_echo", json!({"message": "hello"}))
        .await;
    assert_eq!(echoed, Ok(json!("Echo: hello")));
    let sum = bench
        .call("everything.sum", json!({"a": 19, "b": 23}))
        .await;
    assert!(sum.unwrap().as_str().unwrap().contains("42"));
    // Arguments are checked before the server sees them.
    let wrong = bench
        .call("everything.sum", json!({"a": 19, "b": "much"}))
        .await;
    fails(wrong, "tool.arguments", "at /b");
    // Structured content is JSON, and satisfies what the server promised.
    let weather = bench
        .call("everything.weather", json!({"location": "Chicago"}))
        .await;
    assert!(weather.unwrap()["temperature"].is_number());
    // Bytes become a word about them.
    let image = bench.call("everything.image", json!({})).await.unwrap();
    let image = image
        .as_array()
        .unwrap()
        .iter()
        .find(|block| block["kind"] == "image");
    let image = image.unwrap();
    assert_eq!(image["mime_type"], "image/png");
    assert!(image["bytes"].as_u64().unwrap() > 100);
    assert!(image.to_string().len() < 200, "{image}");
    let links = bench
        .call("everything.links", json!({"count": 2}))
        .await
        .unwrap();
    assert!(links.to_string().contains("\"resource_link\""), "{links}");
    // Of this process's environment it has what a program of a crew has.
    let env = bench.call("everything.env", json!({})).await.unwrap();
    let env: serde_json::Value = serde_json::from_str(env.as_str().unwrap()).unwrap();
    assert!(env.get("PATH").is_some());
    assert!(env.get("CARGO_MANIFEST_DIR").is_none(), "{env}");
    // It speaks of its progress, and that changes nothing.
    // How far a call is, is told while it goes on.
    let long = json!({"duration": 1, "steps": 4});
    let (output, told) = bench.call_telling("everything.long", long).await;
    assert!(output.as_str().unwrap().contains("completed"));
    counts_up(&told);

    let server = bench.server("everything", &["echo"]);
    let (protocol, tools) = available(server.health().await);
    assert_eq!(protocol, "2025-11-25");
    assert!(tools > 5);
}

#[tokio::test]
async fn a_public_server_keeps_to_its_folder_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/note.txt"), "four sheep").unwrap();
    let mcp = format!(
        "{{files2: {{command: '{} ./data', effect: pure}}}}",
        npm("mcp-server-filesystem")
    );
    let grants = ["files2.read_text_file", "files2.gone"];
    let bench = Bench::within(folder, &mcp, &grants);
    let data = bench.folder.path().canonicalize().unwrap().join("data");
    let read = bench
        .call(
            "files2.read_text_file",
            json!({"path": data.join("note.txt")}),
        )
        .await;
    assert!(read.unwrap().to_string().contains("four sheep"));
    let refused = bench
        .call("files2.read_text_file", json!({"path": "/etc/passwd"}))
        .await;
    fails(refused, "tool.failed", "denied");
    // A grant of a tool that the server does not have.
    let gone = bench.call("files2.gone", json!({})).await;
    let failure = fails(gone, "mcp.no_tool", "has no tool “gone”");
    assert!(!failure.retryable);
    let told = bench.told().await;
    let (_, description, _) = told.iter().find(|told| told.0 == "files2_gone").unwrap();
    assert!(
        description.contains("cannot be used now (mcp.no_tool)"),
        "{description}"
    );
    // Whoever looks before a run sees it, too.
    let server = bench.server("files2", &["read_text_file", "gone"]);
    let Health::Available { unusable, .. } = server.health().await else {
        panic!("it answers");
    };
    assert_eq!(unusable.into_keys().collect::<Vec<_>>(), ["files2.gone"]);
}

#[tokio::test]
async fn a_public_server_is_used_over_http_in_the_revision_before() {
    let served = everything().await;
    let mcp = format!("{{everything: {{url: \"{}\"}}}}", served.url);
    let bench = Bench::new(
        &mcp,
        &[
            "everything.echo",
            "everything.get-structured-content",
            "everything.trigger-long-running-operation",
        ],
    );
    let echoed = bench
        .call("everything.echo", json!({"message": "hello"}))
        .await;
    assert_eq!(echoed, Ok(json!("Echo: hello")));
    let weather = bench.call(
        "everything.get-structured-content",
        json!({"location": "Chicago"}),
    );
    assert!(weather.await.unwrap()["humidity"].is_number());
    let long = json!({"duration": 1, "steps": 4});
    let long = bench.call_telling("everything.trigger-long-running-operation", long);
    counts_up(&long.await.1);
    let (protocol, _) = available(bench.server("everything", &["echo"]).health().await);
    assert_eq!(protocol, "2025-11-25");
}

#[tokio::test]
async fn a_server_is_used_over_http_in_the_current_revision() {
    let served = modern(60_000, "0").await;
    let mcp = format!(
        "{{shop: {{url: \"{}\", timeout: 1s, tools: {{find: {{}}, add: {{}}, close: {{}}, slowly: {{}}, key: {{}}, fail: {{}}}}}}}}",
        served.url
    );
    let grants = ["find", "add", "close", "slowly", "key", "fail"];
    let grants = grants.map(|tool| format!("shop.{tool}"));
    let bench = Bench::new(&mcp, &grants.each_ref().map(String::as_str));
    let (protocol, tools) = available(bench.server("shop", &["find"]).health().await);
    assert_eq!((protocol.as_str(), tools), ("2026-07-28", 6));

    let found = bench.call("shop.find", json!({"order": "A-1"})).await;
    assert_eq!(found.unwrap()["state"], "shipped");
    // The key that is the same whenever the call is made again reaches the server.
    let key = bench.call("shop.key", json!({})).await.unwrap();
    assert!(key.to_string().contains("key-1"), "{key}");
    let failed = bench.call("shop.fail", json!({})).await;
    fails(failed, "tool.failed", "Error executing tool");
    // Its progress buys it no time.
    let late = bench.call("shop.slowly", json!({})).await;
    fails(late, "record.in_doubt", "longer than 1000 ms");
    // And it is not stuck.
    let sum = bench.call("shop.add", json!({"a": 2, "b": 3})).await;
    assert_eq!(sum.unwrap()["result"], 5);

    // It says that its tools changed, long before its list has had its time.
    bench.call("shop.close", json!({})).await.unwrap();
    let gone = async {
        loop {
            match bench.call("shop.add", json!({"a": 2, "b": 3})).await {
                Err(failure) if failure.code == "mcp.no_tool" => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("it hears that the list changed");
}

// S3-25: MCP client, current protocol, with health checks. S0-79: looked at again while it runs.
#[tokio::test]
async fn a_server_that_goes_away_is_missed_and_found_again() {
    let mut served = modern(0, "0").await;
    let mcp = format!("{{shop: {{url: \"{}\"}}}}", served.url);
    let bench = Bench::new(&mcp, &["shop.add"]);
    let server = bench.server("shop", &["add"]);
    assert_eq!(available(server.health().await).0, "2026-07-28");
    bench
        .call("shop.add", json!({"a": 2, "b": 3}))
        .await
        .unwrap();
    served.process.kill().await.unwrap();
    // It was not sent, so it did not happen: nothing is in doubt.
    let refused = bench.call("shop.add", json!({"a": 2, "b": 3})).await;
    let failure = fails(refused, "mcp.unreachable", "“shop”");
    assert!(failure.retryable);
    assert!(matches!(server.health().await, Health::Unavailable { .. }));
    let port = served.url.split([':', '/']).nth(4).unwrap();
    let _again = modern(0, port).await;
    let found = async {
        loop {
            match bench.call("shop.add", json!({"a": 2, "b": 3})).await {
                Ok(sum) => return sum,
                Err(failure) => assert_eq!(failure.code, "mcp.unreachable"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let sum = tokio::time::timeout(PATIENCE, found).await.unwrap();
    assert_eq!(sum["result"], 5);
    let well = async {
        while matches!(server.health().await, Health::Unavailable { .. }) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, well)
        .await
        .expect("it is well again");
}
