//! A server that knows nothing of the adapters: bytes in, bytes out.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// A request, as it came.
pub(super) struct Request {
    /// Method and path.
    pub(super) line: String,
    /// The headers, their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// A status, headers, and a body in one piece.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A good answer whose body comes a byte at a time.
    Bytes(Vec<u8>),
    /// A good answer whose body comes in two pieces, the second when somebody says so.
    Halves(Vec<u8>, Vec<u8>, Arc<Notify>),
    /// A good answer that promises more than this and closes.
    Torn(Vec<u8>),
    /// This much of a good answer, then nothing, until the other side gives up.
    Stuck(Vec<u8>),
    /// Nothing at all, until the other side gives up.
    Silence,
}

pub(super) struct Server {
    pub(super) url: String,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    /// Connections that were made to it.
    pub(super) connections: Arc<AtomicUsize>,
    /// A connection has ended.
    pub(super) gone: Arc<Notify>,
}

impl Server {
    /// The next request.
    pub(super) async fn request(&mut self) -> Request {
        let next = tokio::time::timeout(super::PATIENCE, self.requests.recv());
        next.await.unwrap().unwrap()
    }
}

/// Answers every request alike.
pub(super) async fn serve(reply: Reply) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, requests) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let gone = Arc::new(Notify::new());
    let (count, ended) = (connections.clone(), gone.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            socket.set_nodelay(true).unwrap();
            let (reply, told, ended) = (reply.clone(), told.clone(), ended.clone());
            tokio::spawn(async move {
                converse(socket, reply, told).await;
                ended.notify_one();
            });
        }
    });
    Server {
        url,
        requests,
        connections,
        gone,
    }
}

async fn converse(socket: TcpStream, reply: Reply, told: mpsc::UnboundedSender<Request>) {
    let mut socket = BufReader::new(socket);
    while let Some(request) = read(&mut socket).await {
        if told.send(request).is_err() || answer(&mut socket, &reply).await.is_none() {
            return;
        }
    }
}

async fn read(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (first, rest) = lines.split_first()?;
    let headers: BTreeMap<String, String> = rest
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    socket.read_exact(&mut body).await.ok()?;
    Some(Request {
        line: first.trim_end_matches(" HTTP/1.1").to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap(),
    })
}

/// None when the connection is to be closed.
async fn answer(socket: &mut BufReader<TcpStream>, reply: &Reply) -> Option<()> {
    let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    match reply {
        Reply::Whole(status, headers, body) => {
            let length = body.len();
            let mut head = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n");
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            send(socket, head.as_bytes()).await?;
            send(socket, body).await
        }
        Reply::Bytes(body) => {
            send(socket, begin).await?;
            for byte in body {
                chunk(socket, &[*byte]).await?;
            }
            send(socket, b"0\r\n\r\n").await
        }
        Reply::Halves(one, two, go) => {
            send(socket, begin).await?;
            chunk(socket, one).await?;
            go.notified().await;
            chunk(socket, two).await?;
            send(socket, b"0\r\n\r\n").await
        }
        Reply::Torn(body) => {
            send(socket, begin).await?;
            chunk(socket, body).await?;
            None
        }
        Reply::Stuck(body) => {
            send(socket, begin).await?;
            chunk(socket, body).await?;
            wait(socket).await
        }
        Reply::Silence => wait(socket).await,
    }
}

/// Until the other side has gone.
async fn wait(socket: &mut BufReader<TcpStream>) -> Option<()> {
    let _ = socket.read(&mut [0]).await;
    None
}

async fn chunk(socket: &mut BufReader<TcpStream>, bytes: &[u8]) -> Option<()> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    send(socket, &framed).await
}

async fn send(socket: &mut BufReader<TcpStream>, bytes: &[u8]) -> Option<()> {
    let socket = socket.get_mut();
    socket.write_all(bytes).await.ok()?;
    socket.flush().await.ok()
}
