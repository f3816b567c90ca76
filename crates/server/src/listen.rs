//! Connections: who may come in, how long each may take for what, and how all of them end.
//!
//! A face that anybody on the network can reach is bounded before a single request is understood.
//! [`serve`] gives every connection its own task and every phase of a connection its own time, and
//! returns only when each of those tasks has ended. It serves any [`Router`]; handlers find out who
//! asks and whether the server is about to stop from two request extensions, [`Peer`] and
//! [`Stopping`].
//!
//! Deliberately absent: who may do what, and how often (keys and rates belong to the tenant, not to
//! the socket); HTTP/2, which multiplexes what these bounds count and buys a JSON API little;
//! reading a certificate again while running; and the time a handler may take, because a long poll
//! and a submission have nothing in common there.

mod connection;
mod refusal;
mod tls;

pub use tls::Tls;

use axum::Router;
use connection::{Ended, Guest};
use domain::error::{Code, Error};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections beyond [`Limits::connections_max`] that are being told so at the same time; the
/// ones beyond these are closed without a word.
const REFUSALS_MAX: usize = 32;

/// How long accepting rests after an error that only time cures, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound address, not served yet: connections queue in the operating system until [`serve`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), domain::error::Error> {
/// use server::listen::{Limits, Listener, serve};
///
/// let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await?;
/// println!("http://{}", listener.local_addr());
/// let router = axum::Router::new();
/// let stop = async { /* until a signal comes */ };
/// let drained = serve(listener, None, router, Limits::default(), stop).await;
/// assert_eq!((drained.finished, drained.cut), (0, 0));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    counts: Arc<Counts>,
    /// Whether the last accept failed: a spell of failures is two lines in the log, not thousands.
    failing: AtomicBool,
}

impl Listener {
    /// Takes `address`; port 0 lets the operating system choose one.
    ///
    /// `SO_REUSEADDR` is set (on Unix), so that a restart does not wait for the connections of the
    /// process before it to be forgotten; a port that somebody listens on stays refused.
    ///
    /// # Errors
    ///
    /// [`Code::AddressInUse`], [`Code::AddressForbidden`] or [`Code::AddressUnavailable`], each
    /// naming the address.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let refused = |e: io::Error| {
            let (code, what) = match e.kind() {
                io::ErrorKind::AddrInUse => (
                    Code::AddressInUse,
                    "another program already listens on".to_owned(),
                ),
                io::ErrorKind::PermissionDenied => (
                    Code::AddressForbidden,
                    "the operating system forbids this program to listen on".to_owned(),
                ),
                io::ErrorKind::AddrNotAvailable => (
                    Code::AddressUnavailable,
                    "this machine does not have the address".to_owned(),
                ),
                // An address family that is switched off, no socket left: the system's own words
                // are the best there are.
                _ => (Code::AddressUnavailable, format!("{e}: cannot listen on")),
            };
            Error::new(code, format!("{what} {address}"))
        };
        let tcp = TcpListener::bind(address).await.map_err(refused)?;
        let address = tcp.local_addr().map_err(refused)?;
        Ok(Self {
            tcp,
            address,
            counts: Arc::default(),
            failing: AtomicBool::new(false),
        })
    }

    /// The address with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What happens to connections, counted; take it before [`serve`] takes the listener.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// The next connection. Errors are survived: one that belongs to a single connection at once,
    /// one of the whole process (no file or memory left) after a pause, or sooner when the caller
    /// asks anew because a connection has ended and so freed what was missing.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok(accepted) => {
                    if self.failing.swap(false, Relaxed) {
                        tracing::info!("accepting connections again");
                    }
                    self.counts.accepted.fetch_add(1, Relaxed);
                    return accepted;
                }
                Err(e) if of_one_connection(&e) => {}
                Err(e) => {
                    self.counts.accept_failed.fetch_add(1, Relaxed);
                    if !self.failing.swap(true, Relaxed) {
                        tracing::warn!(error = %e, "cannot accept connections for now");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A peer that was gone before it could be accepted is its own trouble, nobody else's.
fn of_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// What a peer can take. Each bound has its unit in its type or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    ///
    /// One more is answered 503 with `Retry-After` and closed, rather than left waiting in the
    /// operating system's queue: a client that is told can go elsewhere or come back, a client that
    /// waits cannot tell a full server from a dead one, and the queue would still be full of dead
    /// connections when room comes. At most 32 are being told at once, each for two seconds at
    /// most; the ones beyond that are closed without a word, so that refusing stays cheap.
    pub connections_max: usize,
    /// Bytes of a request's line and headers; more are answered 431.
    pub head_bytes_max: usize,
    /// From the connection (or, on one that is kept, from the first byte) until a request's
    /// headers are complete.
    pub head_time: Duration,
    /// From a request's headers until its body is complete, if the handler reads it. The handler
    /// then gets an error whose source is an [`io::Error`] of kind `TimedOut`.
    pub body_time: Duration,
    /// How long a connection is kept without a request.
    pub idle_time: Duration,
    /// How long the peer may take for the TLS handshake.
    pub handshake_time: Duration,
    /// How long bytes may wait for a peer that takes none of them. A slow reader that takes some
    /// starts the time anew.
    pub stall_time: Duration,
    /// How long requests may take to finish after the server was told to stop.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            head_bytes_max: 32 * 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(75),
            handshake_time: Duration::from_secs(10),
            stall_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(20),
        }
    }
}

/// What has happened to connections since the start. Read at any time, from any thread.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted, the refused included.
    pub accepted: AtomicU64,
    /// Connections that are open and within the bound now.
    pub open: AtomicU64,
    /// Connections beyond the bound, told so or just closed.
    pub refused: AtomicU64,
    /// Connections that did not get through the TLS handshake.
    pub tls_failed: AtomicU64,
    /// Connections ended by the server because a time was over: of the headers, of a stalled
    /// write, or of the drain.
    pub cut: AtomicU64,
    /// Times that accepting failed for lack of files or memory.
    pub accept_failed: AtomicU64,
    /// Handlers and response bodies that panicked.
    pub panicked: AtomicU64,
}

/// Who asks; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the socket: a proxy's, if there is one. An IPv4 peer of a socket that
    /// serves both families has its IPv4 address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    Draining,
    Cutting,
}

/// Whether the server is about to stop; an extension of every request.
///
/// Long polls and streams wait for [`Stopping::begun`] beside what they wait for, and end early;
/// otherwise they are cut when the drain time is over.
#[derive(Debug, Clone)]
pub struct Stopping(Option<watch::Receiver<Stage>>);

impl Stopping {
    /// For a router that is called without a server: it never stops.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|stage| *stage.borrow() != Stage::Serving)
    }

    /// Returns when it has begun, at once if it has already. Dropping the future is free of harm.
    pub async fn begun(&self) {
        match &self.0 {
            None => std::future::pending().await,
            // The sender is gone only when the server is.
            Some(stage) => {
                let mut stage = stage.clone();
                let _ = stage.wait_for(|stage| *stage != Stage::Serving).await;
            }
        }
    }
}

/// What became of the requests that were being answered when the server was told to stop.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Got their whole answer.
    pub finished: u64,
    /// Were cut off when the drain time was over, or because their peer took no bytes.
    pub cut: u64,
}

/// Serves `router` on `listener`, encrypted if there is `tls`, until `shutdown` resolves and what
/// was running has finished or was cut.
///
/// After `shutdown`, the address is given back at once, connections without a request are closed,
/// and handlers learn it from [`Stopping`]. When this returns no task of it is left; when it is
/// dropped, all of them are cut. A handler that blocks its thread cannot be cut and is waited for.
///
/// A panic in a handler is answered 500 and counted; the connection goes on. The router needs no
/// layer for it, unless it wants its own log line for that request.
pub async fn serve(
    listener: Listener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let (stage, watching) = watch::channel(Stage::Serving);
    let counts = listener.counts();
    let seats = Arc::new(Semaphore::new(
        limits.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let lanes = Arc::new(Semaphore::new(REFUSALS_MAX));
    let limits = Arc::new(limits);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => {}
            (tcp, address) = listener.accept() => {
                let guest = Guest {
                    tcp,
                    peer: Peer { address: plain(address), tls: tls.is_some() },
                    tls: tls.clone(),
                    stage: watching.clone(),
                    limits: limits.clone(),
                    counts: counts.clone(),
                };
                if let Ok(seat) = seats.clone().try_acquire_owned() {
                    tasks.spawn(guest.seated(router.clone(), seat));
                } else {
                    counts.refused.fetch_add(1, Relaxed);
                    // Without a lane the guest is dropped here, which closes the connection.
                    if let Ok(lane) = lanes.clone().try_acquire_owned() {
                        tasks.spawn(guest.turned_away(lane));
                    }
                }
            }
        }
    }
    let drain_time = limits.drain_time;
    drop(listener);
    stage.send_replace(Stage::Draining);
    let mut drained = Drained::default();
    if timeout(drain_time, gather(&mut tasks, &mut drained))
        .await
        .is_err()
    {
        stage.send_replace(Stage::Cutting);
        gather(&mut tasks, &mut drained).await;
    }
    drained
}

/// Waits for all of them.
async fn gather(tasks: &mut JoinSet<Ended>, drained: &mut Drained) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ended::Finished) => drained.finished += 1,
            Ok(Ended::Cut) => drained.cut += 1,
            Ok(Ended::Quiet) | Err(_) => {}
        }
    }
}

/// The same peer has the same address, whichever family the listening socket is of.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
