//! A server that answers what a test says, byte by byte, so that it can break off anywhere.

use chargehand::{Client, ClientBuilder, Error};
use protocol::problem::Problem;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What to answer.
pub(crate) enum Answer {
    /// These bytes; then the connection stays open.
    Bytes(String),
    /// These bytes; then the connection ends.
    BreakOff(String),
}

pub(crate) fn with(status: u16, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Bytes(format!(
        "HTTP/1.1 {status} It\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

pub(crate) fn json(body: &str) -> Answer {
    with(200, "content-type: application/json\r\n", body)
}

pub(crate) fn problem(error: &Error, headers: &str) -> Answer {
    let problem = Problem::from(error);
    let body = serde_json::to_string(&problem).unwrap();
    with(problem.status, headers, &body)
}

/// Nothing at all, and the connection ends.
pub(crate) fn lost() -> Answer {
    Answer::BreakOff(String::new())
}

type Play = dyn Fn(usize, &Seen) -> Answer + Send + Sync;

/// The server.
pub(crate) struct Script {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    /// Answers the nth request, counted from 0, with what `play` says.
    pub(crate) async fn new(play: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::default();
        let stage = Stage {
            play: Arc::new(play),
            count: Arc::default(),
            seen: Arc::clone(&seen),
        };
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(stage.clone().serve(connection));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(&self.url).timeout(Duration::from_secs(20))
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

/// What every connection shares.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) play: Arc<Play>,
    pub(crate) count: Arc<AtomicUsize>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Stage {
    pub(crate) async fn serve(self, mut connection: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(seen) = read(&mut connection).await {
            let n = self.count.fetch_add(1, Ordering::SeqCst);
            self.seen.lock().unwrap().push(seen.clone());
            let (bytes, goes_on) = match (self.play)(n, &seen) {
                Answer::Bytes(bytes) => (bytes, true),
                Answer::BreakOff(bytes) => (bytes, false),
            };
            let written = connection.write_all(bytes.as_bytes()).await;
            if written.is_err() || connection.flush().await.is_err() || !goes_on {
                let _ = connection.shutdown().await;
                return;
            }
        }
    }
}

async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    Some(Seen {
        line,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
