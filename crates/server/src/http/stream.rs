//! Streams: the log as it grows, and a worker's tasks as they come.
//!
//! A stream is pulled: what comes next is read when the connection has room for it, so that a slow
//! reader costs the server one chunk of the log that it would keep anyway, however far behind it is.
//! It is told that it lags, and nothing is skipped.

use super::App;
use crate::listen::Stopping;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use domain::error::{Code, Error};
use domain::event::Recorded;
use domain::id::RunId;
use domain::limits::CAPACITY_MAX;
use domain::name::Name;
use engine::Engine;
use futures_util::stream::unfold;
use protocol::api::{Claim, Work, Worked};
use protocol::problem::Problem;
use protocol::speech::{Cursor, Heard};
use protocol::v1::Signal;
use protocol::wire::{EventParams, StreamParams};
use protocol::{Api as _, ApiRead as _};
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Between two signs of life of a stream on which nothing happens.
const BEAT: Duration = Duration::from_secs(15);
/// What a client is told to wait before it connects again.
const RETRY_MS: u64 = 1_000;
/// Bytes of events in one piece of a stream, about.
const PIECE_BYTES: usize = 64 * 1024;

/// Which events a stream or page has.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    types: Option<Vec<String>>,
    run: Option<RunId>,
    by: Option<Name>,
    /// Only what somebody asked for.
    asked: bool,
}

impl Filter {
    /// # Errors
    /// A type that no event has.
    pub(super) fn new(params: &EventParams, asked: bool) -> Result<Self, Error> {
        let types = params.types.as_ref().map(|types| {
            let types = types.split(',').map(|name| name.trim().to_owned());
            types.filter(|name| !name.is_empty()).collect::<Vec<_>>()
        });
        for name in types.iter().flatten() {
            let stem = name.strip_suffix(".*");
            let known = domain::event::NAMES.iter().any(|known| match stem {
                Some(stem) => known.split('.').next() == Some(stem),
                None => known == name,
            });
            if !known {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
                let text = format!("no event has type “{shown}”");
                return Err(Error::new(Code::OutOfRange, text).hint(
                    "Types are dotted lower case, such as task.completed; task.* is all of a noun.",
                ));
            }
        }
        Ok(Self {
            types,
            run: params.run,
            by: params.by.clone(),
            asked,
        })
    }

    /// Whether everything passes.
    pub(super) fn is_open(&self) -> bool {
        self.types.is_none() && self.run.is_none() && self.by.is_none() && !self.asked
    }

    pub(super) fn admits(&self, recorded: &Recorded) -> bool {
        let name = recorded.event.name();
        let is = |wanted: &String| match wanted.strip_suffix('*') {
            Some(stem) => name.starts_with(stem),
            None => name == wanted,
        };
        (!self.asked || recorded.by.is_some())
            && self.by.is_none_or_equal(recorded.by.as_ref())
            && self.types.as_ref().is_none_or(|types| types.iter().any(is))
            && self.run.is_none_or(|run| recorded.event.run() == Some(run))
    }
}

trait IsNoneOrEqual<T> {
    fn is_none_or_equal(&self, found: Option<&T>) -> bool;
}
impl<T: PartialEq> IsNoneOrEqual<T> for Option<T> {
    fn is_none_or_equal(&self, found: Option<&T>) -> bool {
        self.as_ref().is_none_or(|wanted| found == Some(wanted))
    }
}

/// A place among the streams that may be open at once.
struct Place {
    _permit: OwnedSemaphorePermit,
    app: Arc<App>,
}

impl Place {
    fn take(app: &Arc<App>) -> Result<Self, Error> {
        let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
            let text = format!("{} streams are open already", app.limits.streams);
            Error::new(Code::StreamLimit, text)
        })?;
        app.metrics.streams.inc();
        Ok(Self {
            _permit: permit,
            app: Arc::clone(app),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.metrics.streams.dec();
    }
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that would collect a stream before they pass it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Following {
    engine: Engine,
    head: watch::Receiver<u64>,
    /// Everything up to here was looked at.
    position: u64,
    filter: Filter,
    stopping: Stopping,
    begun: bool,
    lagging: bool,
    place: Place,
}

/// The events after a position, as they come.
pub(super) fn events(
    app: &Arc<App>,
    engine: Engine,
    after: u64,
    filter: Filter,
    stopping: Stopping,
) -> Result<Response, Error> {
    let following = Following {
        head: engine.head(),
        engine,
        position: after,
        filter,
        stopping,
        begun: false,
        lagging: false,
        place: Place::take(app)?,
    };
    let pieces = unfold(following, |mut following| async move {
        let piece = following.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), following))
    });
    Ok(response(Body::from_stream(pieces)))
}

impl Following {
    /// The next piece of the stream; none when the server stops, or can no longer read its log.
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = String::new();
        if !self.begun {
            self.begun = true;
            let _ = write!(piece, "retry: {RETRY_MS}\n\n");
            return Some(piece.into());
        }
        loop {
            let head = *self.head.borrow_and_update();
            if head > self.position {
                self.tell_of_lag(head, &mut piece);
                self.fill(&mut piece).await?;
                if !piece.is_empty() {
                    return Some(piece.into());
                }
                continue;
            }
            tokio::select! {
                changed = self.head.changed() => changed.ok()?,
                () = self.stopping.begun() => return None,
                () = tokio::time::sleep(BEAT) => {
                    // The id lets a client that comes again go on after what did not pass its filter.
                    let _ = write!(piece, ": beat\nid: {}\n\n", self.position);
                    return Some(piece.into());
                }
            }
        }
    }

    fn tell_of_lag(&mut self, head: u64, piece: &mut String) {
        let behind = head.saturating_sub(self.position);
        let lagging = behind > self.place.app.limits.lag_events;
        if lagging && !self.lagging {
            self.place.app.metrics.lags.inc();
            let _ = write!(piece, "event: lagging\ndata: {{\"behind\":{behind}}}\n\n");
        }
        self.lagging = lagging;
    }

    async fn fill(&mut self, piece: &mut String) -> Option<()> {
        let chunk = match self.engine.chunk(self.position).await {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(%error, "a stream cannot read the log");
                return None;
            }
        };
        let mut sent = 0;
        for (recorded, line) in chunk.after(self.position) {
            if piece.len() > PIECE_BYTES {
                break;
            }
            self.position = recorded.position;
            if self.filter.admits(recorded) {
                let (position, name) = (recorded.position, recorded.event.name());
                let _ = write!(piece, "id: {position}\nevent: {name}\ndata: {line}\n\n");
                sent += 1;
            }
        }
        self.place.app.metrics.streamed.inc_by(sent);
        Some(())
    }
}

struct Hearing {
    engine: Engine,
    run: RunId,
    after: Option<Cursor>,
    stopping: Stopping,
    begun: bool,
    ended: bool,
    place: Place,
}

/// What a run's agents say after a cursor, as it comes, until the run has ended.
pub(super) fn speech(
    app: &Arc<App>,
    engine: Engine,
    run: RunId,
    after: Option<Cursor>,
    stopping: Stopping,
) -> Result<Response, Error> {
    let hearing = Hearing {
        engine,
        run,
        after,
        stopping,
        begun: false,
        ended: false,
        place: Place::take(app)?,
    };
    let pieces = unfold(hearing, |mut hearing| async move {
        let piece = hearing.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), hearing))
    });
    Ok(response(Body::from_stream(pieces)))
}

impl Hearing {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            return Some(format!("retry: {RETRY_MS}\n\n").into());
        }
        if self.ended {
            return None;
        }
        let heard = tokio::select! {
            heard = self.engine.run_stream(self.run, self.after, BEAT) => heard,
            () = self.stopping.begun() => return None,
        };
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => {
                self.ended = true;
                return frame("problem", &Problem::from(&error));
            }
        };
        (self.after, self.ended) = (heard.next, heard.ended);
        self.place
            .app
            .metrics
            .streamed
            .inc_by(heard.pieces.len() as u64);
        Some(told(&heard).into())
    }
}

/// What was heard, as events of a stream. Each has the position after it, so that a connection may
/// break anywhere.
fn told(heard: &Heard) -> String {
    let mut text = String::new();
    if heard.anew {
        text.push_str("event: anew\ndata: {}\n\n");
    }
    if heard.lost > 0 {
        let lost = heard.lost;
        let _ = write!(text, "event: lost\ndata: {{\"lost\":{lost}}}\n\n");
    }
    let at = |position| heard.next.map(|next| Cursor { position, ..next });
    for piece in &heard.pieces {
        let Ok(data) = serde_json::to_string(piece) else {
            continue;
        };
        if let Some(id) = at(piece.position) {
            let name = piece.said.name();
            let _ = write!(text, "id: {id}\nevent: {name}\ndata: {data}\n\n");
        }
    }
    if heard.ended {
        text.push_str("event: ended\ndata: {}\n\n");
    }
    if text.is_empty() {
        text.push_str(": beat\n\n");
    }
    text
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Serving {
    engine: Engine,
    worker: Name,
    params: StreamParams,
    stopping: Stopping,
    begun: bool,
    /// It was told why there is no more.
    ended: bool,
    working: Option<Pending<Result<Worked, Error>>>,
    beating: Option<Pending<Result<Vec<Signal>, Error>>>,
    _place: Place,
}

impl Drop for Serving {
    /// The connection is closed: the worker is gone, and what it held goes back at once. Unless it
    /// was the server that closed it: then the worker goes on with its tasks and reports to the next.
    fn drop(&mut self) {
        if self.stopping.has_begun() {
            return;
        }
        let (engine, worker) = (self.engine.clone(), self.worker.clone());
        let session = self.params.session;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let reason = "its connection closed".to_owned();
                if let Err(error) = engine.worker_leave(worker, session, reason).await {
                    tracing::debug!(%error, "a worker that left");
                }
            });
        }
    }
}

/// A worker's tasks and signals, as they come.
pub(super) async fn worker(
    app: &Arc<App>,
    engine: Engine,
    worker: Name,
    params: StreamParams,
    stopping: Stopping,
) -> Result<Response, Error> {
    // One that is not registered, or is another life, is told before anything is streamed.
    let heard = engine.worker_heartbeat(worker.clone(), params.session, Duration::ZERO);
    let signals = heard.await?;
    let serving = Serving {
        engine,
        worker,
        params,
        stopping,
        begun: false,
        ended: false,
        working: None,
        beating: Some(Box::pin(async move { Ok(signals) })),
        _place: Place::take(app)?,
    };
    let pieces = unfold(serving, |mut serving| async move {
        let piece = serving.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), serving))
    });
    Ok(response(Body::from_stream(pieces)))
}

/// How long a worker that is full, or may take nothing, is left alone unless something happens.
const FULL: Duration = Duration::from_millis(500);

impl Serving {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            return Some(format!("retry: {RETRY_MS}\n\n").into());
        }
        if self.ended {
            return None;
        }
        loop {
            let (engine, worker) = (self.engine.clone(), self.worker.clone());
            let (session, starts) = (self.params.session, self.params.starts);
            let working = self
                .working
                .get_or_insert_with(|| Box::pin(claim(engine, worker, session, starts)));
            let (engine, worker) = (self.engine.clone(), self.worker.clone());
            let beating = self.beating.get_or_insert_with(|| {
                Box::pin(async move { engine.worker_heartbeat(worker, session, BEAT).await })
            });
            tokio::select! {
                () = self.stopping.begun() => return None,
                worked = working => {
                    self.working = None;
                    match worked {
                        Ok(worked) if worked.tasks.is_empty() => {}
                        Ok(worked) => return frame("tasks", &worked.tasks),
                        Err(error) => return self.refused(&error),
                    }
                }
                heard = beating => {
                    self.beating = None;
                    match heard {
                        Ok(signals) if signals.is_empty() => return Some(": beat\n\n".into()),
                        Ok(signals) => return frame("signals", &signals),
                        Err(error) => return self.refused(&error),
                    }
                }
            }
        }
    }

    /// Tells why, and then that is the end: the worker must register again.
    fn refused(&mut self, error: &Error) -> Option<Bytes> {
        self.ended = true;
        frame("problem", &Problem::from(error))
    }
}

/// Tasks as soon as there are some and the worker has room for them.
async fn claim(
    engine: Engine,
    worker: Name,
    session: Option<u64>,
    starts: bool,
) -> Result<Worked, Error> {
    let mut head = engine.head();
    loop {
        head.mark_unchanged();
        let work = Work {
            worker: worker.clone(),
            session,
            reports: Vec::new(),
            claim: Some(Claim {
                starts,
                ..Claim::new(CAPACITY_MAX, BEAT.as_millis() as u64)
            }),
        };
        let worked = engine.work(work).await;
        match worked.and_then(|worked| worked.refused.clone().map_or(Ok(worked), Err)) {
            Err(error) if matches!(error.code, Code::WorkerFull | Code::NotClaimable) => {
                // Something has happened: perhaps it has room again.
                let _ = tokio::time::timeout(FULL, head.changed()).await;
            }
            answer => return answer,
        }
    }
}

fn frame(event: &str, data: &impl serde::Serialize) -> Option<Bytes> {
    let data = serde_json::to_string(data).ok()?;
    Some(format!("event: {event}\ndata: {data}\n\n").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Gate;
    use crate::http::Limits;
    use crate::tenants::Tenants;
    use domain::state::Quotas;
    use engine::Place;
    use futures_util::StreamExt as _;
    use protocol::key::Tenant;

    // With a clock that goes on by itself when there is nothing else to do.
    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_shows_that_it_lives_and_how_far_it_is() {
        let tenants = Arc::new(Tenants::open(Place::Memory, Quotas::default()).unwrap());
        let engine = tenants.get(&Tenant::default()).unwrap();
        let gate = Gate::new(tenants, None);
        let app = App::new(gate, Limits::default(), Vec::new(), &[]);
        let filter = Filter {
            types: Some(vec!["run.*".into()]),
            ..Filter::default()
        };
        let stopping = Stopping::never();
        let followed = events(&app, engine.clone(), 0, filter, stopping).unwrap();
        let mut pieces = followed.into_body().into_data_stream();
        let mut piece = async || pieces.next().await.unwrap().unwrap();
        assert_eq!(piece().await, "retry: 1000\n\n");
        let begin = tokio::time::Instant::now();
        assert_eq!(piece().await, ": beat\nid: 0\n\n");
        assert_eq!(begin.elapsed().as_secs(), BEAT.as_secs());
        // An event that does not pass is not sent, and yet it need not be looked at again.
        engine.queue_pause(Name::literal("q"), true).await.unwrap();
        assert_eq!(piece().await, ": beat\nid: 1\n\n");
    }
}
