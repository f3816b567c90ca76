//! The load generator's own HTTP/1.1: requests rendered beforehand, answers parsed no further than
//! their status, length and body. It has to be much cheaper than the server it loads, which shares
//! the machine with it.
//!
//! Deliberately absent: everything a client for people needs. A connection that broke is an error
//! that is counted, and a new one is opened; nothing is sent twice.

use crate::measure::{io, us};
use domain::error::{Code, Error};
use std::io::{Error as Fault, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes of one answer; nothing that is measured is longer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests of one client that may fail before it gives up.
pub(crate) const FAILURES_MAX: u64 = 100;

/// Everything of a request before the length of its body.
#[derive(Debug, Clone)]
pub(crate) struct Head(Vec<u8>);

impl Head {
    /// Of a request with a JSON body, or without one.
    pub(crate) fn new(method: &str, path: &str, key: &str) -> Self {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: "
        );
        Self(head.into_bytes())
    }

    /// The whole request, in place of what `into` had.
    pub(crate) fn with(&self, body: &[u8], into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.0);
        into.extend_from_slice(body.len().to_string().as_bytes());
        into.extend_from_slice(b"\r\n\r\n");
        into.extend_from_slice(body);
    }

    /// The whole request.
    pub(crate) fn request(&self, body: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        self.with(body, &mut request);
        request
    }
}

/// An answer, as far as it is looked at.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    pub(crate) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await
    }

    /// More of what comes.
    async fn more(&mut self) -> Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(Fault::new(ErrorKind::InvalidData, "an endless answer"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads the head of an answer: its status, its length, and where its body begins.
    async fn head(&mut self) -> Result<(u16, Option<usize>, usize)> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let (status, length) = head(&self.buffer[..end])?;
                return Ok((status, length, end + 4));
            }
            self.more().await?;
        }
    }

    /// Waits for the answer to what was sent.
    pub(crate) async fn answer(&mut self) -> Result<Answer<'_>> {
        self.buffer.clear();
        let (status, length, begin) = self.head().await?;
        let end = begin + length.unwrap_or(0);
        while self.buffer.len() < end {
            self.more().await?;
        }
        Ok(Answer {
            status,
            body: &self.buffer[begin..end],
        })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.send(request).await?;
        self.answer().await
    }

    /// Asks for a stream; gives the status, and keeps what came after the head for
    /// [`next_bytes`](Self::next_bytes).
    pub(crate) async fn ask_stream(&mut self, request: &[u8]) -> Result<u16> {
        self.send(request).await?;
        self.buffer.clear();
        let (status, _, begin) = self.head().await?;
        self.buffer.drain(..begin);
        Ok(status)
    }

    /// What came of a stream since the last time, at least a byte.
    pub(crate) async fn next_bytes(&mut self) -> Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Ok(std::mem::replace(
            &mut self.buffer,
            Vec::with_capacity(4096),
        ))
    }
}

/// Status and length from the head of an answer.
fn head(bytes: &[u8]) -> Result<(u16, Option<usize>)> {
    let odd = || Fault::new(ErrorKind::InvalidData, "not an HTTP/1.1 answer");
    let text = std::str::from_utf8(bytes).map_err(|_| odd())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = first.and_then(|rest| rest.get(..3)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    Ok((status.ok_or_else(odd)?, length))
}

/// What many clients got that sent the same request again and again.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hammered {
    pub(crate) seconds: f64,
    /// Requests that were answered well.
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    /// Of each that was answered well.
    pub(crate) us: Vec<f64>,
}

/// Opens connections to one address.
pub(crate) async fn connect(
    address: SocketAddr,
    count: usize,
) -> std::result::Result<Vec<Connection>, Error> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let opened = Connection::open(address).await;
        connections.push(opened.map_err(|fault| io("a connection", &fault))?);
    }
    Ok(connections)
}

/// Sends the same request over many connections for a time, on each one after the other.
pub(crate) async fn hammer(
    address: SocketAddr,
    connections: usize,
    request: Vec<u8>,
    time: Duration,
) -> std::result::Result<Hammered, Error> {
    let connections = connect(address, connections).await?;
    let request: Arc<[u8]> = request.into();
    let begin = Instant::now();
    let mut clients: JoinSet<(Hammered, Instant)> = JoinSet::new();
    for connection in connections {
        clients.spawn(repeat(
            address,
            connection,
            Arc::clone(&request),
            begin + time,
        ));
    }
    let (mut all, mut end) = (Hammered::default(), begin);
    while let Some(client) = clients.join_next().await {
        let (hammered, last) =
            client.map_err(|fault| Error::new(Code::Internal, format!("a client: {fault}")))?;
        all.answered += hammered.answered;
        all.errors += hammered.errors;
        all.us.extend(hammered.us);
        end = end.max(last);
    }
    all.seconds = end.duration_since(begin).as_secs_f64();
    Ok(all)
}

async fn repeat(
    address: SocketAddr,
    mut connection: Connection,
    request: Arc<[u8]>,
    until: Instant,
) -> (Hammered, Instant) {
    let (mut hammered, mut last) = (Hammered::default(), Instant::now());
    while last < until && hammered.errors < FAILURES_MAX {
        let begin = last;
        let answer = connection
            .ask(&request)
            .await
            .map(|answer| answer.is_good());
        last = Instant::now();
        match answer {
            Ok(true) => {
                hammered.answered += 1;
                hammered.us.push(us(last - begin));
            }
            Ok(false) => hammered.errors += 1,
            Err(_) => {
                hammered.errors += 1;
                if let Ok(opened) = Connection::open(address).await {
                    connection = opened;
                }
            }
        }
    }
    (hammered, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_head_is_read() {
        let read = |text: &str| head(text.as_bytes()).ok();
        assert_eq!(
            read("HTTP/1.1 201 Created\r\nContent-Length:  42\r\nx: y"),
            Some((201, Some(42)))
        );
        assert_eq!(read("HTTP/1.1 204 No Content"), Some((204, None)));
        assert_eq!(read("HTTP/2 200"), None);
        assert_eq!(read("HTTP/1.1 20"), None);
    }

    #[test]
    fn a_request_is_rendered_whole() {
        let head = Head::new("POST", "/v1/tasks", "chk_x");
        assert_eq!(
            String::from_utf8(head.request(b"{}")).unwrap(),
            "POST /v1/tasks HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer chk_x\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
    }
}
