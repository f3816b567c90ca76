//! One connection, from the accepted socket to its end.
//!
//! Everything about it happens in one task: the socket, the HTTP state machine, the handler and
//! the body of its answer. So when the peer goes away, or a time is over, dropping one future drops
//! all of it, at once. The HTTP library's own timers are not used: it has one for headers, which
//! would count waiting for a next request as well, and none for a peer that does not read.
//!
//! What the connection is doing is noted in its [`Pulse`] by the socket and the service as they
//! see it; the task looks at it after each step of the HTTP state machine and knows what is due.

use super::refusal::problem;
use super::{Counts, Limits, Peer, Stage, Stopping, Tls};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use domain::error::{Code, Error};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

/// Bytes of requests read ahead, and of answers waiting for the peer, per connection. Beyond it a
/// body is not asked for more: this is what a slow reader costs.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long a connection that the server closes goes on swallowing what the peer still sends.
/// Closing at once would make the peer's system throw away the answer it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection may take to be told that it is not served.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// Bytes of a request body that are read before it is told so.
const REFUSAL_BODY_BYTES_MAX: usize = 64 * 1024;

/// After how many seconds to come back when there was no room.
const RETRY_AFTER_S: &str = "2";

/// Silence after which the operating system asks whether the peer is still there, and then again.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);

/// How a connection ended, as far as the drain is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody was waiting for an answer, or nobody was there to get it.
    Quiet,
    /// A request was being answered when the server was told to stop, and has its answer.
    Finished,
    /// A request was being answered when the server was told to stop, and did not get it.
    Cut,
}

/// An accepted connection and all it needs to be served.
pub(super) struct Guest {
    pub(super) tcp: TcpStream,
    pub(super) tls: Option<Tls>,
    pub(super) peer: Peer,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) limits: Arc<Limits>,
    pub(super) counts: Arc<Counts>,
}

impl Guest {
    /// Serves it; its seat is free again when this ends.
    pub(super) async fn seated(self, router: Router, seat: OwnedSemaphorePermit) -> Ended {
        let open = Open::new(self.counts.clone());
        let ended = self.served(router).await;
        drop((open, seat));
        ended
    }

    async fn served(mut self, router: Router) -> Ended {
        let pulse = Arc::new(Pulse::new());
        let desk = Desk {
            router,
            peer: self.peer,
            stopping: Stopping(Some(self.stage.clone())),
            pulse: pulse.clone(),
            limits: self.limits.clone(),
            counts: self.counts.clone(),
        };
        let Some(tls) = self.tls.take() else {
            let (socket, rest) = self.apart(&pulse);
            return rest.converse(socket, desk, &pulse).await;
        };
        let mut stage = self.stage.clone();
        let greeted = tokio::select! {
            biased;
            greeted = self.greet(&tls, &pulse) => greeted,
            // Nobody has asked for anything yet.
            _ = stage.changed() => return Ended::Quiet,
        };
        match greeted {
            Some((socket, rest)) => {
                pulse.restart();
                rest.converse(socket, desk, &pulse).await
            }
            None => Ended::Quiet,
        }
    }

    /// Shakes hands; somebody who speaks plain HTTP is told so.
    async fn greet(self, tls: &Tls, pulse: &Arc<Pulse>) -> Option<(TlsStream<Socket>, Rest)> {
        let time = self.limits.handshake_time;
        let counts = self.counts.clone();
        let failed = |why: &dyn std::fmt::Display| {
            counts.tls_failed.fetch_add(1, Relaxed);
            tracing::debug!(%why, "no TLS handshake");
            None
        };
        let shake = async {
            let mut first = [0];
            let length = self.tcp.peek(&mut first).await?;
            let (socket, rest) = self.apart(pulse);
            // A TLS record begins with its type, 22; an HTTP request with a capital letter.
            if length == 1 && first[0].is_ascii_uppercase() {
                let error = Error::new(Code::HttpsOnly, "this port speaks HTTPS");
                let refusal = Refusal(StatusCode::BAD_REQUEST, error);
                let _ = timeout(REFUSAL_TIME, refusal.tell(socket)).await;
                return Err(io::Error::other("the peer speaks plain HTTP"));
            }
            let socket = TlsAcceptor::from(tls.config()).accept(socket).await?;
            Ok((socket, rest))
        };
        match timeout(time, shake).await {
            Ok(Ok(greeted)) => Some(greeted),
            Ok(Err(why)) => failed(&why),
            Err(late) => failed(&late),
        }
    }

    /// Tells it that there is no room.
    pub(super) async fn turned_away(self, lane: OwnedSemaphorePermit) -> Ended {
        let mut stage = self.stage.clone();
        let tell = async {
            let pulse = Arc::new(Pulse::new());
            let error = Error::new(
                Code::ConnectionsFull,
                format!("all {} connections are taken", self.limits.connections_max),
            );
            let refusal = Refusal(StatusCode::SERVICE_UNAVAILABLE, error);
            if let Some(tls) = self.tls.clone() {
                if let Some((socket, _)) = self.greet(&tls, &pulse).await {
                    refusal.tell(socket).await;
                }
            } else {
                refusal.tell(self.apart(&pulse).0).await;
            }
        };
        tokio::select! {
            _ = timeout(REFUSAL_TIME, tell) => {}
            _ = stage.changed() => {}
        }
        drop(lane);
        Ended::Quiet
    }

    fn apart(self, pulse: &Arc<Pulse>) -> (Socket, Rest) {
        let socket = Socket::new(self.tcp, pulse.clone(), self.limits.stall_time);
        let rest = Rest {
            stage: self.stage,
            limits: self.limits,
            counts: self.counts,
        };
        (socket, rest)
    }
}

/// An answer to whatever is asked.
struct Refusal(StatusCode, Error);

impl Refusal {
    /// Waits for a request (an answer that comes before the question confuses clients), takes a
    /// body of ordinary size (a client may only read when it has written) and answers.
    async fn tell(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self(status, error) = &self;
        let answer = service_fn(|request: Request<Incoming>| async {
            let body = Limited::new(request.into_body(), REFUSAL_BODY_BYTES_MAX);
            let _ = body.collect().await;
            let mut response = problem(*status, error);
            if error.code.retryable() {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            Ok::<_, Infallible>(response)
        });
        let _ = http1::Builder::new()
            .keep_alive(false)
            .header_read_timeout(None)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    }
}

/// What remains of a guest when its socket has gone into a conversation.
struct Rest {
    stage: watch::Receiver<Stage>,
    limits: Arc<Limits>,
    counts: Arc<Counts>,
}

impl Rest {
    /// Requests and answers, until either side has had enough.
    async fn converse(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        desk: Desk,
        pulse: &Pulse,
    ) -> Ended {
        let mut connection = pin!(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_header_size(self.limits.head_bytes_max)
                .max_buf_size(BUFFER_BYTES_MAX.max(self.limits.head_bytes_max))
                .serve_connection(TokioIo::new(stream), desk)
        );
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut armed = None;
        // Whether somebody was waiting for an answer when the server was told to stop.
        let mut owing = false;
        loop {
            let overdue = std::future::poll_fn(|cx| {
                pulse.poll_overdue(cx, &self.limits, alarm.as_mut(), &mut armed)
            });
            tokio::select! {
                // In this order: who is owed an answer must be known before the handler hears of
                // the stop and answers; and what is due depends on what the connection has done.
                biased;
                changed = self.stage.changed() => {
                    let stage = *self.stage.borrow_and_update();
                    owing = pulse.is_owing();
                    if changed.is_err() || stage == Stage::Cutting {
                        return if owing { self.cut(pulse) } else { Ended::Quiet };
                    }
                    // A request that has come is not turned away unread.
                    let step = std::future::poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx)));
                    if let Poll::Ready(end) = step.await {
                        return finished(owing, end);
                    }
                    owing |= pulse.is_owing();
                    connection.as_mut().graceful_shutdown();
                }
                end = connection.as_mut() => return finished(owing, end),
                due = overdue => match due {
                    Due::Request => {
                        pulse.close();
                        connection.as_mut().graceful_shutdown();
                    }
                    // The answer is written; the peer just did not close its side.
                    Due::Farewell => return finished(owing && !pulse.is_owing(), Ok(())),
                    Due::Head | Due::Reader => {
                        let ended = self.cut(pulse);
                        return if owing { ended } else { Ended::Quiet };
                    }
                },
            }
        }
    }

    fn cut(&self, pulse: &Pulse) -> Ended {
        self.counts.cut.fetch_add(1, Relaxed);
        pulse.reset();
        Ended::Cut
    }
}

/// A connection that ended by itself; with an error, its peer did not wait for the answer.
fn finished(owing: bool, end: hyper::Result<()>) -> Ended {
    match end {
        Ok(()) if owing => Ended::Finished,
        Ok(()) => Ended::Quiet,
        Err(why) => {
            tracing::debug!(%why, "a connection ended with an error");
            Ended::Quiet
        }
    }
}

/// What a connection is doing, for the sake of its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Accepted, and nothing was said.
    Fresh,
    /// A request has begun to come in.
    Head,
    /// A handler is at work, or the body of its answer.
    Answering,
    /// Kept for another request.
    Idle,
    /// Ended by the server; the peer may not know yet.
    Closing,
}

/// A time that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The headers should be complete.
    Head,
    /// Another request should have come.
    Request,
    /// The peer should have taken some of what is written.
    Reader,
    /// The peer should have closed its side.
    Farewell,
}

/// What the parts of one connection note, and its task reads. They all run in that task, so the
/// lock is never waited for.
struct Pulse(Mutex<Beat>);

struct Beat {
    phase: Phase,
    since: Instant,
    /// Since when the peer has taken nothing of what it should.
    stalled: Option<Instant>,
    /// Whether the handler left a request's body unread: then the peer may still be sending.
    unread: bool,
    /// Whether to drop the connection with a reset, and what the system still holds with it.
    reset: bool,
}

impl Pulse {
    fn new() -> Self {
        Self(Mutex::new(Beat {
            phase: Phase::Fresh,
            since: Instant::now(),
            stalled: None,
            unread: false,
            reset: false,
        }))
    }

    fn beat<T>(&self, note: impl FnOnce(&mut Beat) -> T) -> T {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The handshake is over: the time for headers begins now.
    fn restart(&self) {
        self.beat(|beat| {
            beat.phase = Phase::Fresh;
            beat.since = Instant::now();
        });
    }

    /// Bytes came in.
    fn heard(&self) {
        self.beat(|beat| match beat.phase {
            Phase::Fresh => beat.phase = Phase::Head,
            Phase::Idle => {
                beat.phase = Phase::Head;
                beat.since = Instant::now();
            }
            Phase::Head | Phase::Answering | Phase::Closing => {}
        });
    }

    /// Bytes went out, or the peer's window is closed.
    fn wrote(&self, some: bool) {
        self.beat(|beat| {
            beat.stalled = if some {
                None
            } else {
                beat.stalled.or_else(|| Some(Instant::now()))
            };
        });
    }

    fn asked(&self) {
        self.beat(|beat| {
            beat.phase = Phase::Answering;
            beat.unread = false;
        });
    }

    fn answered(&self) {
        self.beat(|beat| {
            beat.phase = Phase::Idle;
            beat.since = Instant::now();
        });
    }

    fn left_unread(&self) {
        self.beat(|beat| beat.unread = true);
    }

    /// The server ends the connection. Returns whether the peer may still be in the middle of a
    /// request and must be heard out before it can hear.
    fn close(&self) -> bool {
        self.beat(|beat| {
            let lingers = match beat.phase {
                Phase::Head | Phase::Answering => true,
                Phase::Idle => beat.unread,
                Phase::Fresh | Phase::Closing => false,
            };
            beat.phase = Phase::Closing;
            beat.since = Instant::now();
            lingers
        })
    }

    fn reset(&self) {
        self.beat(|beat| beat.reset = true);
    }

    /// Whether somebody waits for an answer, or for the rest of one.
    fn is_owing(&self) -> bool {
        self.beat(|beat| beat.phase == Phase::Answering || beat.stalled.is_some())
    }

    /// What is due next, and when.
    fn next(&self, limits: &Limits) -> Option<(Instant, Due)> {
        self.beat(|beat| {
            let (time, due) = match beat.phase {
                Phase::Fresh | Phase::Head => (limits.head_time, Due::Head),
                Phase::Idle => (limits.idle_time, Due::Request),
                Phase::Closing => (LINGER, Due::Farewell),
                // How long an answer takes is the handler's affair.
                Phase::Answering => (Duration::MAX, Due::Request),
            };
            let phase = beat.since.checked_add(time).map(|at| (at, due));
            let reader = beat
                .stalled
                .and_then(|since| since.checked_add(limits.stall_time))
                .map(|at| (at, Due::Reader));
            match (phase, reader) {
                (Some(phase), Some(reader)) => {
                    Some(if reader.0 < phase.0 { reader } else { phase })
                }
                (phase, reader) => phase.or(reader),
            }
        })
    }

    /// Ready when something is due. The alarm is only ever set earlier: when it rings and the time
    /// has moved on, it is set again. A busy connection so sets it once in a while and not twice
    /// for every request.
    fn poll_overdue(
        &self,
        cx: &mut Context<'_>,
        limits: &Limits,
        mut alarm: Pin<&mut Sleep>,
        armed: &mut Option<Instant>,
    ) -> Poll<Due> {
        loop {
            let Some((at, due)) = self.next(limits) else {
                return Poll::Pending;
            };
            if armed.is_none_or(|armed| at < armed) {
                alarm.as_mut().reset(at);
                *armed = Some(at);
            }
            let rings = alarm.as_mut().poll(cx);
            // A peer that floods the connection uses up what a task may do in one go, and then the
            // alarm stays silent although its time has come: the clock decides, not the alarm.
            if at <= Instant::now() {
                *armed = None;
                return Poll::Ready(due);
            }
            ready!(rings);
            *armed = None;
        }
    }
}

/// The socket, which notes what passes and whether anything does. It lies below TLS, so that a
/// record that never becomes complete counts as what it is.
struct Socket {
    tcp: TcpStream,
    pulse: Arc<Pulse>,
    farewell: Farewell,
}

/// How far the end has come.
#[derive(Clone, Copy)]
enum Farewell {
    Open,
    /// Our side is closed; what comes is swallowed.
    Lingering,
    Said,
}

impl Socket {
    fn new(tcp: TcpStream, pulse: Arc<Pulse>, stall_time: Duration) -> Self {
        // Small answers must not wait for the acknowledgement of the ones before.
        let _ = tcp.set_nodelay(true);
        let socket = SockRef::from(&tcp);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE_AGAIN);
        let _ = socket.set_tcp_keepalive(&keepalive);
        // A peer that lost its power acknowledges nothing; Linux would go on for a quarter of an
        // hour. Twice the time, so that a peer that is there and does not read is found by us,
        // who count it.
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(Some(stall_time.saturating_mul(2)));
        #[cfg(not(target_os = "linux"))]
        let _ = stall_time;
        Self {
            tcp,
            pulse,
            farewell: Farewell::Open,
        }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(length)) => self.pulse.wrote(length > 0),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pulse.wrote(false),
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    /// Closes our side and, if the peer may still be sending, swallows that until it closes its
    /// own, or [`LINGER`] is over.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Farewell::Open = self.farewell {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
            self.farewell = if self.pulse.close() {
                Farewell::Lingering
            } else {
                Farewell::Said
            };
        }
        while let Farewell::Lingering = self.farewell {
            let mut waste = [0; 4096];
            let mut waste = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut waste));
            if read.is_err() || waste.filled().is_empty() {
                self.farewell = Farewell::Said;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Otherwise the system would keep megabytes for a peer that does not read them.
        if self.pulse.beat(|beat| beat.reset) {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// Where the requests of one connection come in.
struct Desk {
    router: Router,
    peer: Peer,
    stopping: Stopping,
    pulse: Arc<Pulse>,
    limits: Arc<Limits>,
    counts: Arc<Counts>,
}

impl Service<Request<Incoming>> for Desk {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Handling;

    fn call(&self, request: Request<Incoming>) -> Handling {
        let flight = Flight::new(self.pulse.clone(), self.counts.clone());
        let mut request = request.map(|body| {
            Body::new(Upload {
                body,
                complete: false,
                until: Instant::now().checked_add(self.limits.body_time),
                alarm: None,
                pulse: self.pulse.clone(),
            })
        });
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.stopping.clone());
        let mut router = self.router.clone();
        Handling {
            // A router is always ready.
            route: catch_unwind(AssertUnwindSafe(|| router.call(request))).ok(),
            stopping: self.stopping.clone(),
            flight: Some(flight),
        }
    }
}

/// A handler at work.
struct Handling {
    /// Absent when making it panicked.
    route: Option<RouteFuture<Infallible>>,
    stopping: Stopping,
    flight: Option<Flight>,
}

impl Future for Handling {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self
            .route
            .as_mut()
            .and_then(|route| catch_unwind(AssertUnwindSafe(|| Pin::new(route).poll(cx))).ok());
        let flight = self.flight.take();
        let mut response = match polled {
            Some(Poll::Pending) => {
                self.flight = flight;
                return Poll::Pending;
            }
            Some(Poll::Ready(Ok(response))) => response,
            None => {
                // What it was holding goes now, not when the connection ends.
                self.route = None;
                if let Some(flight) = &flight {
                    flight.panicked();
                }
                let error = Error::new(Code::Internal, "the server failed to handle the request");
                problem(StatusCode::INTERNAL_SERVER_ERROR, &error)
            }
        };
        // The stop may have come while the handler was at work; the peer shall not send another
        // request into a connection that is about to close.
        if self.stopping.has_begun() {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Answer { body, flight })))
    }
}

/// A request between its headers and the end of its answer, wherever that comes.
struct Flight {
    pulse: Arc<Pulse>,
    counts: Arc<Counts>,
}

impl Flight {
    fn new(pulse: Arc<Pulse>, counts: Arc<Counts>) -> Self {
        pulse.asked();
        Self { pulse, counts }
    }

    /// The panic hook has said where; here it is only counted.
    fn panicked(&self) {
        self.counts.panicked.fetch_add(1, Relaxed);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.pulse.answered();
    }
}

/// The body of an answer, dropped as soon as it is written or its peer is gone.
struct Answer {
    body: Body,
    flight: Option<Flight>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(cx))) {
            Ok(polled) => polled.map_err(Into::into),
            // The status is out already: the one thing left is not to pretend it was complete.
            Err(_) => {
                if let Some(flight) = &self.flight {
                    flight.panicked();
                }
                self.body = Body::empty();
                Poll::Ready(Some(Err("the response body panicked".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, which has to be complete in time.
struct Upload {
    body: Incoming,
    complete: bool,
    until: Option<Instant>,
    /// Made when the body is first waited for; most are there with their headers.
    alarm: Option<Pin<Box<Sleep>>>,
    pulse: Arc<Pulse>,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.complete |= frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(until) = self.until else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(alarm.as_mut().poll(cx));
        let late = io::Error::new(
            io::ErrorKind::TimedOut,
            "the request's body did not arrive in time",
        );
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.complete && !self.body.is_end_stream() {
            self.pulse.left_unread();
        }
    }
}

/// Counts a connection as open while it is.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Relaxed);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
