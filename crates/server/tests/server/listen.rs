//! Connections, good and bad, over real sockets. Times are short where a bound must be reached, and
//! no test asks how fast anything is: [`PATIENCE`] only ends a test that would never end.

mod tls;

use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, body};
use domain::error::Code;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::Value;
use server::listen::{Counts, Drained, Limits, Listener, Peer, Stopping, Tls, serve};
use std::convert::Infallible;
use std::error::Error as _;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes on a machine that is merely slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bound that a test wants to reach.
const SOON: Duration = Duration::from_millis(200);

/// A request whose connection is kept, and one whose is not.
const KEPT: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// A server that runs.
struct House {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl House {
    async fn open(tls: Option<Tls>, router: Router, limits: Limits) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let (address, counts) = (listener.local_addr(), listener.counts());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, tls, router, limits, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            counts,
            stop,
            served,
        }
    }

    /// Without TLS, with the router that says hello, and times that no test reaches but those in
    /// `limits`.
    async fn hello(limits: Limits) -> Self {
        Self::open(None, hello(), limits).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks on a connection of its own.
    async fn ask(&self) -> Answered {
        self.answered(LAST).await.1
    }

    /// A connection on which one request was answered, and is kept.
    async fn kept(&self) -> TcpStream {
        let (connection, answer) = self.answered(KEPT).await;
        assert_eq!(answer.body, "hello");
        connection
    }

    async fn assert_serves(&self) {
        assert_eq!(self.ask().await.body, "hello");
    }

    /// Where the times are short, a machine that is busy elsewhere may miss them with a request
    /// that is in order; it is sent again then.
    async fn answered(&self, request: &[u8]) -> (TcpStream, Answered) {
        within(async {
            loop {
                let mut connection = self.connect().await;
                let _ = connection.write_all(request).await;
                if let Ok(answer) = try_answered(&mut connection).await {
                    return (connection, answer);
                }
            }
        })
        .await
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        within(self.served).await.unwrap()
    }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Times that are not what a test is about.
fn patient() -> Limits {
    Limits {
        head_time: PATIENCE,
        body_time: PATIENCE,
        idle_time: PATIENCE,
        handshake_time: PATIENCE,
        stall_time: PATIENCE,
        drain_time: PATIENCE,
        ..Limits::default()
    }
}

#[track_caller]
fn within<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, what).await {
            Ok(done) => done,
            Err(_) => panic!("{caller}: this did not come to an end"),
        }
    }
}

/// Waits until it is true.
async fn until(mut is: impl FnMut() -> bool) {
    within(async {
        while !is() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An answer as it came.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

/// Reads one answer that says how long it is, and nothing beyond it.
async fn answered(connection: &mut (impl AsyncRead + Unpin)) -> Answered {
    try_answered(connection).await.unwrap()
}

async fn try_answered(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Answered> {
    within(async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        Ok(Answered {
            status: head[9..12].parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
        })
    })
    .await
}

/// Reads whatever comes until the connection is over, in whichever way.
async fn over(connection: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = within(connection.read_to_end(&mut rest)).await;
    rest
}

/// Says when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Dropped {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (says, heard) = oneshot::channel();
        (Self(Some(says)), heard)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().map(|says| says.send(()));
    }
}

/// Something for a handler that is called once.
type Once<T> = Arc<Mutex<Option<T>>>;

fn once<T>(value: T) -> Once<T> {
    Arc::new(Mutex::new(Some(value)))
}

fn take<T>(once: &Once<T>) -> T {
    once.lock().unwrap().take().expect("called once")
}

/// A body that goes on for ever: `chunks` at once, then silence.
struct Endless {
    chunks: u64,
    /// Bytes produced so far.
    produced: Arc<AtomicU64>,
    _dropped: Dropped,
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        if self.chunks == 0 {
            return Poll::Pending;
        }
        self.chunks -= 1;
        self.produced.fetch_add(CHUNK.len() as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK)))))
    }
}

#[tokio::test]
async fn a_taken_port_is_refused_by_name_and_free_again_after_a_stop() {
    let house = House::hello(patient()).await;
    let address = house.address;
    let e = Listener::bind(address).await.unwrap_err();
    assert_eq!(e.code, Code::AddressInUse);
    assert!(e.message.contains(&address.to_string()), "{}", e.message);
    assert!(e.hint.contains("another port"), "{}", e.hint);

    // A connection that the server closes first keeps the port half taken for a minute.
    house.assert_serves().await;
    house.stop().await;
    Listener::bind(address).await.unwrap();
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused() {
    // A documentation address (RFC 5737): nobody's.
    let e = Listener::bind("192.0.2.1:0".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(e.code, Code::AddressUnavailable);
    assert!(e.message.contains("192.0.2.1"), "{}", e.message);
}

#[tokio::test]
async fn headers_that_never_end_are_cut() {
    let house = House::hello(Limits {
        head_time: SOON,
        ..patient()
    })
    .await;
    let trickle = async |connection: &mut TcpStream| {
        within(async {
            while connection.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    let cut = || house.counts.cut.load(Relaxed);
    let mut fresh = house.connect().await;
    trickle(&mut fresh).await;
    assert_eq!(cut(), 1);

    // One that behaved at first has no more time than others.
    let mut kept = house.kept().await;
    let before = cut();
    trickle(&mut kept).await;
    assert_eq!(cut(), before + 1);

    // One that says nothing at all.
    assert_eq!(over(&mut house.connect().await).await, b"");
    assert_eq!(cut(), before + 2);
    house.assert_serves().await;
}

#[tokio::test]
async fn headers_beyond_the_bound_are_answered_431() {
    let house = House::hello(Limits {
        head_bytes_max: 16 * 1024,
        ..patient()
    })
    .await;
    let mut connection = house.connect().await;
    let just = format!(
        "GET / HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n",
        "a".repeat(15 * 1024)
    );
    connection.write_all(just.as_bytes()).await.unwrap();
    assert_eq!(answered(&mut connection).await.status, 200);

    let mut connection = house.connect().await;
    let large = just.replace("x: ", &format!("y: {}\r\nx: ", "b".repeat(2 * 1024)));
    connection.write_all(large.as_bytes()).await.unwrap();
    assert_eq!(answered(&mut connection).await.status, 431);
    over(&mut connection).await;

    // A line without an end is not collected until memory is full.
    let mut connection = house.connect().await;
    within(async { while connection.write_all(&[b'a'; 8 * 1024]).await.is_ok() {} }).await;
    house.assert_serves().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_room_is_room_again() {
    let house = House::hello(Limits {
        connections_max: 2,
        ..patient()
    })
    .await;
    let mut first = house.connect().await;
    let second = house.connect().await;
    until(|| house.counts.open.load(Relaxed) == 2).await;

    let refused = house.ask().await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.head.contains("\r\nretry-after: 2\r\n"),
        "{refused:?}"
    );
    assert!(
        refused
            .head
            .contains("\r\ncontent-type: application/problem+json\r\n"),
        "{refused:?}"
    );
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(problem["code"], "server.connections_full");
    assert_eq!(problem["status"], 503);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("all 2 connections")
    );

    // Those who are in are served all the same.
    first.write_all(KEPT).await.unwrap();
    assert_eq!(answered(&mut first).await.body, "hello");

    // Many silent ones cost a bounded number of places to be told so, and all come to an end.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(house.connect().await);
    }
    for mut connection in silent {
        over(&mut connection).await;
    }
    assert_eq!(house.counts.refused.load(Relaxed), 101);
    assert_eq!(house.counts.open.load(Relaxed), 2);

    drop(second);
    until(|| house.counts.open.load(Relaxed) == 1).await;
    house.assert_serves().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_costs_bounded_memory() {
    let (dropped, gone) = Dropped::new();
    let produced = Arc::new(AtomicU64::new(0));
    let body = once(Endless {
        chunks: u64::MAX,
        produced: produced.clone(),
        _dropped: dropped,
    });
    let router = hello().route("/endless", get(async move || Body::new(take(&body))));
    let house = House::open(
        None,
        router,
        Limits {
            stall_time: SOON,
            ..patient()
        },
    )
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut connection = socket.connect(house.address).await.unwrap();
    connection
        .write_all(b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    within(gone).await.unwrap();
    until(|| house.counts.open.load(Relaxed) == 0).await;
    assert_eq!(house.counts.cut.load(Relaxed), 1);
    // Most of it is what the operating system takes for a connection without being asked.
    let produced = produced.load(Relaxed);
    assert!(
        produced < 32 * 1024 * 1024,
        "{produced} bytes were produced"
    );
    house.assert_serves().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_gets_everything() {
    const BYTES: usize = 8 * 1024 * 1024;
    let router = Router::new().route("/", get(async || vec![b'x'; BYTES]));
    let house = House::open(
        None,
        router,
        Limits {
            idle_time: SOON,
            ..patient()
        },
    )
    .await;
    let mut connection = house.connect().await;
    connection.write_all(LAST).await.unwrap();
    // Longer than the short time, before and while it reads.
    let mut read = Vec::new();
    for _ in 0..10 {
        sleep(SOON / 2).await;
        let mut some = vec![0; 256 * 1024];
        let length = within(connection.read(&mut some)).await.unwrap();
        read.extend_from_slice(&some[..length]);
    }
    read.extend(over(&mut connection).await);
    let body = read.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(read.len() - body, BYTES);
    assert_eq!(house.counts.cut.load(Relaxed), 0);
}

#[tokio::test]
async fn a_kept_connection_without_requests_is_closed() {
    let house = House::hello(Limits {
        idle_time: SOON,
        ..patient()
    })
    .await;
    let mut connection = house.kept().await;
    assert_eq!(over(&mut connection).await, b"");
    until(|| house.counts.open.load(Relaxed) == 0).await;
    // Nobody was cut off from anything.
    assert_eq!(house.counts.cut.load(Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_every_time_is_no_idle_connection() {
    let router = Router::new().route(
        "/",
        get(async || {
            sleep(SOON * 3).await;
            "late"
        }),
    );
    let house = House::open(
        None,
        router,
        Limits {
            idle_time: SOON,
            stall_time: SOON,
            ..patient()
        },
    )
    .await;
    assert_eq!(house.ask().await.body, "late");
    assert_eq!(house.counts.cut.load(Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_handler_and_its_stream_along() {
    let (in_handler, handler_gone) = Dropped::new();
    let (in_body, body_gone) = Dropped::new();
    let (started, mut starts) = mpsc::channel(1);
    let in_handler = once(in_handler);
    let body = once(Endless {
        chunks: 1,
        produced: Arc::default(),
        _dropped: in_body,
    });
    let router = Router::new()
        .route(
            "/poll",
            get(async move || {
                let _dropped = take(&in_handler);
                started.send(()).await.unwrap();
                pending::<()>().await;
            }),
        )
        .route("/stream", get(async move || Body::new(take(&body))));
    let house = House::open(None, router, patient()).await;

    let mut connection = house.connect().await;
    connection
        .write_all(b"GET /poll HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    within(starts.recv()).await.unwrap();
    drop(connection);
    // Nothing else could drop it: every other time is a minute.
    within(handler_gone).await.unwrap();

    let mut connection = house.connect().await;
    connection
        .write_all(b"GET /stream HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answered(&mut connection).await.status, 200);
    drop(connection);
    within(body_gone).await.unwrap();
    until(|| house.counts.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_tells_those_who_wait() {
    let (started, mut starts) = mpsc::channel(2);
    let (finish, finishes) = oneshot::channel::<()>();
    let finishes = once(finishes);
    let [a, b] = [started.clone(), started];
    let router = hello()
        .route(
            "/running",
            get(async move || {
                a.send(()).await.unwrap();
                let _ = take(&finishes).await;
                "done"
            }),
        )
        .route(
            "/watching",
            get(async move |Extension(stopping): Extension<Stopping>| {
                assert!(!stopping.has_begun());
                b.send(()).await.unwrap();
                stopping.begun().await;
                assert!(stopping.has_begun());
                "stopping"
            }),
        );
    let house = House::open(None, router, patient()).await;
    let counts = house.counts.clone();
    let address = house.address;

    let mut idle = house.kept().await;
    let mut silent = house.connect().await;
    let mut asking = Vec::new();
    for path in ["running", "watching"] {
        let mut connection = house.connect().await;
        let request = format!("GET /{path} HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        within(starts.recv()).await.unwrap();
        asking.push(connection);
    }
    until(|| counts.open.load(Relaxed) == 4).await;

    let stopped = tokio::spawn(house.stop());
    // Idle connections go first, and the one that watches ends of itself.
    assert_eq!(over(&mut idle).await, b"");
    assert_eq!(over(&mut silent).await, b"");
    let watching = answered(&mut asking[1]).await;
    assert_eq!(watching.body, "stopping");
    assert!(watching.head.contains("connection: close"), "{watching:?}");
    assert!(TcpStream::connect(address).await.is_err());
    finish.send(()).unwrap();
    assert_eq!(answered(&mut asking[0]).await.body, "done");
    over(&mut asking[0]).await;

    let drained = within(stopped).await.unwrap();
    assert_eq!(
        drained,
        Drained {
            finished: 2,
            cut: 0
        }
    );
    assert_eq!(counts.open.load(Relaxed), 0);
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let (dropped, gone) = Dropped::new();
    let (started, mut starts) = mpsc::channel(1);
    let dropped = once(dropped);
    let body = once(Endless {
        chunks: 1,
        produced: Arc::default(),
        _dropped: Dropped(None),
    });
    let router = Router::new()
        .route(
            "/deaf",
            get(async move || {
                let _dropped = take(&dropped);
                started.send(()).await.unwrap();
                pending::<()>().await;
            }),
        )
        .route("/stream", get(async move || Body::new(take(&body))));
    let house = House::open(
        None,
        router,
        Limits {
            drain_time: SOON,
            ..patient()
        },
    )
    .await;
    let counts = house.counts.clone();
    let mut deaf = house.connect().await;
    deaf.write_all(b"GET /deaf HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    within(starts.recv()).await.unwrap();
    let mut stream = house.connect().await;
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answered(&mut stream).await.status, 200);

    let drained = house.stop().await;
    assert_eq!(
        drained,
        Drained {
            finished: 0,
            cut: 2
        }
    );
    // Nothing of them is left when the server has stopped, not a moment later.
    assert_eq!(counts.open.load(Relaxed), 0);
    assert_eq!(counts.cut.load(Relaxed), 2);
    within(gone).await.unwrap();
    assert_eq!(over(&mut deaf).await, b"");
    // The stream is not ended as if it were complete.
    let mut rest = Vec::new();
    assert!(within(stream.read_to_end(&mut rest)).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_nothing_behind() {
    let (dropped, gone) = Dropped::new();
    let dropped = once(dropped);
    let router = Router::new().route(
        "/",
        get(async move || {
            let _dropped = take(&dropped);
            pending::<()>().await;
        }),
    );
    let house = House::open(None, router, patient()).await;
    let mut connection = house.connect().await;
    connection.write_all(KEPT).await.unwrap();
    until(|| house.counts.open.load(Relaxed) == 1).await;
    house.served.abort();
    within(gone).await.unwrap_or_default();
    until(|| house.counts.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_panic_is_answered_500_and_hurts_nobody_else() {
    /// Fails after its first chunk.
    struct Broken(bool);
    impl HttpBody for Broken {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            assert!(!self.0, "a secret in a panic");
            self.0 = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"some")))))
        }
    }
    async fn defect() -> &'static str {
        panic!("a secret in a panic")
    }
    let router = hello()
        .route("/defect", get(defect))
        .route("/broken", get(async || Body::new(Broken(false))));
    let house = House::open(None, router, patient()).await;

    let mut connection = house.connect().await;
    connection
        .write_all(b"GET /defect HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let answer = answered(&mut connection).await;
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["code"], "internal");
    // The same connection goes on.
    connection.write_all(KEPT).await.unwrap();
    assert_eq!(answered(&mut connection).await.body, "hello");

    // A body that breaks off is not passed off as complete.
    connection
        .write_all(b"GET /broken HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let text = String::from_utf8(over(&mut connection).await).unwrap();
    assert!(
        !text.contains("\r\n0\r\n") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(house.counts.panicked.load(Relaxed), 2);
    house.assert_serves().await;
}

#[tokio::test]
async fn handlers_know_who_asks() {
    let router = Router::new().route(
        "/",
        get(async |Extension(peer): Extension<Peer>| format!("{} {}", peer.address, peer.tls)),
    );
    // A socket of both families sees the peer as ::ffff:127.0.0.1; where there is no IPv6 the
    // other one is as good a test.
    let listener = match Listener::bind("[::]:0".parse().unwrap()).await {
        Ok(listener) => listener,
        Err(_) => Listener::bind("0.0.0.0:0".parse().unwrap()).await.unwrap(),
    };
    let port = listener.local_addr().port();
    let served = tokio::spawn(serve(listener, None, router, patient(), pending()));
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.write_all(LAST).await.unwrap();
    assert_eq!(
        answered(&mut connection).await.body,
        format!("{} false", connection.local_addr().unwrap())
    );
    served.abort();
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_an_error_of_its_own_kind() {
    async fn upload(body: Body) -> StatusCode {
        let Err(e) = body::to_bytes(body, 1024).await else {
            return StatusCode::OK;
        };
        let mut source = e.source();
        while let Some(e) = source {
            if let Some(e) = e.downcast_ref::<io::Error>() {
                assert_eq!(e.kind(), io::ErrorKind::TimedOut);
                return StatusCode::REQUEST_TIMEOUT;
            }
            source = e.source();
        }
        StatusCode::BAD_REQUEST
    }
    let router = Router::new().route("/", post(upload));
    let house = House::open(None, router.clone(), patient()).await;
    let mut connection = house.connect().await;
    let head = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n";
    connection.write_all(head).await.unwrap();
    connection.write_all(b"whole").await.unwrap();
    assert_eq!(answered(&mut connection).await.status, 200);

    let hurried = Limits {
        body_time: SOON,
        ..patient()
    };
    let house = House::open(None, router, hurried).await;
    let mut connection = house.connect().await;
    connection.write_all(head).await.unwrap();
    connection.write_all(b"part").await.unwrap();
    assert_eq!(answered(&mut connection).await.status, 408);
    // What may still come would be read as a request.
    assert_eq!(over(&mut connection).await, b"");
}

#[tokio::test]
async fn a_client_that_sends_too_much_can_read_why_it_was_refused() {
    let router = Router::new().route("/", post(async || StatusCode::PAYLOAD_TOO_LARGE));
    let house = House::open(None, router, patient()).await;
    for _ in 0..10 {
        let mut connection = house.connect().await;
        let body = vec![b'x'; 4 * 1024 * 1024];
        let head = format!(
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        // All of it, before looking for an answer, as simple clients do.
        within(connection.write_all(&body)).await.unwrap();
        assert_eq!(answered(&mut connection).await.status, 413);
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let house = House::hello(patient()).await;
    let mut connection = house.connect().await;
    connection
        .write_all(&[KEPT, KEPT, LAST].concat())
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(answered(&mut connection).await.body, "hello");
    }
    assert_eq!(over(&mut connection).await, b"");
}

#[tokio::test]
async fn ten_thousand_connections_of_noise_leave_it_serving() {
    let house = House::hello(Limits {
        head_time: SOON,
        ..patient()
    })
    .await;
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    for round in 0..10_000 {
        let mut connection = house.connect().await;
        make_noise(&mut connection, &mut noise, round).await;
    }
    until(|| house.counts.open.load(Relaxed) == 0).await;
    assert_eq!(house.counts.accepted.load(Relaxed), 10_000);
    assert_eq!(house.counts.panicked.load(Relaxed), 0);
    house.assert_serves().await;
}

/// The same noise in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Sends some; it often begins like something that is meant. The server may have hung up already.
async fn make_noise(connection: &mut (impl AsyncWrite + Unpin), noise: &mut Noise, round: usize) {
    const BEGINNINGS: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[22, 3, 1],
        KEPT,
    ];
    let mut bytes = BEGINNINGS[round % BEGINNINGS.len()].to_vec();
    let length = noise.next() % 300;
    bytes.extend((0..length).map(|_| (noise.next() >> 32) as u8));
    let _ = connection.write_all(&bytes).await;
}

/// Not a test by itself: serves, in a process of its own that may open few files, until its
/// standard input ends. Prints its port, and at the end how often accepting failed.
#[tokio::test]
#[ignore = "a process for the test below"]
async fn serve_with_few_files() {
    let house = House::hello(patient()).await;
    println!("\nport {}", house.address.port());
    let counts = house.counts.clone();
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
    house.stop().await;
    println!("\nfailed {}", counts.accept_failed.load(Relaxed));
}

#[cfg(unix)]
#[tokio::test]
async fn running_out_of_files_is_survived() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, BufReader};

    const SCRIPT: &str =
        "ulimit -n 40; exec \"$0\" --exact listen::serve_with_few_files --ignored --nocapture";
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", SCRIPT])
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async |name: &str| -> u64 {
        loop {
            let line = within(lines.next_line()).await.unwrap().expect(name);
            if let Some(value) = line.strip_prefix(name) {
                return value.trim().parse().unwrap();
            }
        }
    };
    let port = u16::try_from(line("port").await).unwrap();

    let mut connections = Vec::new();
    for _ in 0..60 {
        connections.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // Those who are in are served. The last one is not yet.
    connections[0].write_all(KEPT).await.unwrap();
    assert_eq!(answered(&mut connections[0]).await.body, "hello");
    let mut last = connections.pop().unwrap();
    last.write_all(KEPT).await.unwrap();
    assert!(
        timeout(Duration::from_millis(500), last.readable())
            .await
            .is_err(),
        "there cannot be a file left for it"
    );
    drop(connections);
    assert_eq!(answered(&mut last).await.body, "hello");

    child.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    assert!(line("failed").await > 0);
}
