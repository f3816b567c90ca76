//! A network that fails: a proxy on loopback through which every connection breaks sooner or later.
//!
//! Which way each breaks goes round, so that every way happens; when and where is drawn from the
//! test's seed. Deliberately absent: anything of HTTP, so that a break falls where it falls, in the
//! middle of a head, of a body, or between two requests.

use crate::world::Chance;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Both ends are closed after this time.
    Cut(Duration),
    /// Both ends are reset after this time.
    Reset(Duration),
    /// After this time nothing is carried any more, for that time; then both ends are closed.
    Stall(Duration, Duration),
    /// Both ends are reset when so many bytes have gone up: within a request, perhaps.
    TearUp(usize),
    /// The same of bytes that came down: within an answer.
    TearDown(usize),
    /// After this time the client's end is reset, while the server hears nothing of it for that time.
    HalfOpen(Duration, Duration),
    /// The client's end is reset as soon as it has sent something after this time; what it sent
    /// arrives that much later, when the client has long said it again.
    Late(Duration, Duration),
    /// Every piece is held up by at most the first time; both ends are closed after the second.
    Slow(Duration, Duration),
}

impl Fault {
    const KINDS: usize = 8;

    fn of(kind: usize, chance: &mut Chance) -> Self {
        let mut ms = |from: u64, to: u64| Duration::from_millis(from + chance.below(to - from));
        match kind % Self::KINDS {
            0 => Self::Cut(ms(5, 400)),
            1 => Self::Reset(ms(5, 400)),
            2 => Self::Stall(ms(5, 300), ms(50, 800)),
            3 => Self::TearUp(chance.below(3_000) as usize),
            4 => Self::TearDown(chance.below(3_000) as usize),
            5 => Self::HalfOpen(ms(5, 300), ms(100, 3_000)),
            6 => Self::Late(ms(0, 200), ms(50, 600)),
            _ => Self::Slow(ms(1, 40), ms(100, 800)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cut(_) => "cut",
            Self::Reset(_) => "reset",
            Self::Stall(..) => "stalled",
            Self::TearUp(_) => "torn upwards",
            Self::TearDown(_) => "torn downwards",
            Self::HalfOpen(..) => "half open",
            Self::Late(..) => "late",
            Self::Slow(..) => "slow",
        }
    }
}

/// The proxy, until it is dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    done: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// In front of what listens there.
    pub(crate) fn before(server: SocketAddr, mut chance: Chance) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let done: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let tally = Arc::clone(&done);
        runtime.spawn(async move {
            for kind in 0.. {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                let fault = Fault::of(kind, &mut chance);
                let line = chance.fork();
                let tally = Arc::clone(&tally);
                tokio::spawn(async move {
                    // A server that is not there is one more way to fail.
                    if let Ok(server) = TcpStream::connect(server).await
                        && carry(client, server, fault, line).await
                    {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        *tally.entry(fault.name()).or_default() += 1;
                    }
                });
            }
        });
        Self {
            url,
            done,
            _runtime: runtime,
        }
    }

    /// How many connections were ended in which way, before either end closed them itself.
    pub(crate) fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// With a reset instead of an end.
fn reset(end: TcpStream) {
    let _ = end.set_zero_linger();
    drop(end);
}

/// Reads and forgets for so long: the end stays open and nobody is behind it.
async fn keep(mut end: TcpStream, time: Duration) {
    let until = Instant::now() + time;
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Ok(1..)) = tokio::time::timeout_at(until, end.read(&mut buffer)).await {}
    sleep_until(until).await;
}

/// Carries bytes until the fault happens. Whether it did.
async fn carry(mut client: TcpStream, mut server: TcpStream, fault: Fault, chance: Chance) -> bool {
    if !carry_until(&mut client, &mut server, fault, chance).await {
        return false;
    }
    match fault {
        Fault::Cut(_) | Fault::Slow(..) => {}
        Fault::Reset(_) | Fault::TearUp(_) | Fault::TearDown(_) => {
            reset(client);
            reset(server);
        }
        Fault::Stall(_, time) => sleep(time).await,
        Fault::HalfOpen(_, time) => {
            reset(client);
            keep(server, time).await;
        }
        Fault::Late(_, by) => {
            let mut sent = vec![0; 256 * 1024];
            // What is there without waiting: at least the piece that was waited for.
            let read = client.try_read(&mut sent).unwrap_or(0);
            reset(client);
            sleep(by).await;
            if server.write_all(&sent[..read]).await.is_ok() {
                keep(server, by).await;
            }
        }
    }
    true
}

/// Whether it is time for the fault; not when one of the ends was closed before.
async fn carry_until(
    client: &mut TcpStream,
    server: &mut TcpStream,
    fault: Fault,
    mut chance: Chance,
) -> bool {
    let begin = Instant::now();
    let (up_max, down_max) = match fault {
        Fault::TearUp(bytes) => (bytes, usize::MAX),
        Fault::TearDown(bytes) => (usize::MAX, bytes),
        _ => (usize::MAX, usize::MAX),
    };
    let end = match fault {
        Fault::Cut(after) | Fault::Reset(after) => Some(begin + after),
        Fault::Stall(after, _) | Fault::HalfOpen(after, _) => Some(begin + after),
        Fault::Slow(_, after) => Some(begin + after),
        Fault::TearUp(_) | Fault::TearDown(_) | Fault::Late(..) => None,
    };
    let (mut up, mut down) = (0, 0);
    let mut upwards = vec![0; 16 * 1024];
    let mut downwards = vec![0; 16 * 1024];
    loop {
        if let Fault::Late(after, _) = fault
            && begin.elapsed() >= after
        {
            // What it sends now is held; an end without anything to hold is no fault.
            let mut first = [0];
            return tokio::select! {
                sent = client.peek(&mut first) => matches!(sent, Ok(1..)),
                // An answer that is under way belongs to what was sent before.
                answer = server.read(&mut downwards) => match answer {
                    Ok(bytes @ 1..) if client.write_all(&downwards[..bytes]).await.is_ok() => continue,
                    _ => false,
                },
            };
        }
        let (bytes, is_up) = tokio::select! {
            read = client.read(&mut upwards) => (read.unwrap_or(0), true),
            read = server.read(&mut downwards) => (read.unwrap_or(0), false),
            () = async { sleep_until(end.unwrap_or(begin)).await }, if end.is_some() => return true,
        };
        if bytes == 0 {
            return false;
        }
        if let Fault::Slow(at_most, _) = fault {
            let ms = chance.below(at_most.as_millis() as u64 + 1);
            sleep(Duration::from_millis(ms)).await;
        }
        let (carried, max) = if is_up {
            (&mut up, up_max)
        } else {
            (&mut down, down_max)
        };
        let part = bytes.min(max - *carried);
        *carried += part;
        let written = if is_up {
            server.write_all(&upwards[..part]).await
        } else {
            client.write_all(&downwards[..part]).await
        };
        if part < bytes {
            return true;
        }
        if written.is_err() {
            return false;
        }
    }
}
