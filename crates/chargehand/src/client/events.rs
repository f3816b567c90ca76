//! Follows the log over a connection that may break: from wherever it broke, nothing left out,
//! nothing twice.

use crate::client::sse::{Message, Parser, TooLong};
use crate::client::{Client, backoff, random};
use domain::error::{Code, Error};
use domain::event::Recorded;
use domain::id::RunId;
use domain::name::Name;
use protocol::wire::EventParams;
use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The pause before a stream is opened anew, until the server says another.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Failures in a row after which the caller hears of it.
const FAILURES: u32 = 5;
/// Where a stream goes on from.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The message that says: you are too slow, come again.
const LAGGED: &str = "lagged";

/// Which events to follow; all of them by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only these types; `task.*` is every type of that noun. None named means all.
    pub types: Vec<String>,
    /// Only of this run.
    pub run: Option<RunId>,
    /// Only what this key's bearer asked for.
    pub by: Option<Name>,
}

impl EventFilter {
    /// Only these types.
    ///
    /// ```
    /// let filter = chargehand::EventFilter::types(["run.*", "task.completed"]);
    /// assert_eq!(filter.types.len(), 2);
    /// ```
    pub fn types<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self {
            types: types.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// The log, as it grows. Made by [`Client::events`].
///
/// Dropping a [`next`](Self::next) that has not answered loses nothing.
pub struct Events {
    client: Client,
    filter: EventFilter,
    /// The last event given out, or known to be of no interest.
    after: u64,
    stream: Option<Stream>,
    ready: VecDeque<Result<Recorded, Error>>,
    /// Failures in a row.
    failures: u32,
    pause: Duration,
    /// Not to be opened before this instant.
    not_before: Option<Instant>,
    /// Nothing more will come.
    is_over: bool,
}

/// A connection that is open.
struct Stream {
    response: Response,
    parser: Parser,
    /// When something came last.
    heard: Instant,
}

/// Why there is no connection.
enum Shut {
    /// Trying on may help, after this pause if the server said one.
    ForNow(Error, Option<Duration>),
    /// It will not.
    ForGood(Error),
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("after", &self.after)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(client: Client, after: u64, filter: EventFilter) -> Self {
        Self {
            client,
            filter,
            after,
            stream: None,
            ready: VecDeque::new(),
            failures: 0,
            pause: PAUSE,
            not_before: None,
            is_over: false,
        }
    }

    /// The next event, whenever it comes.
    ///
    /// A broken connection is mended without a word. [`Code::ServerUnreachable`] comes when that
    /// failed five times in a row; asking on tries on. [`Code::ServerStrange`] stands for an event
    /// that this program does not know; asking on goes on behind it. After a refusal, such as of
    /// the key, there is nothing more: `None`.
    pub async fn next(&mut self) -> Option<Result<Recorded, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            match self.stream.as_mut() {
                None => self.open().await,
                Some(stream) => {
                    let quiet = stream.heard + self.client.transport.quiet;
                    let read = tokio::time::timeout_at(quiet, stream.response.chunk()).await;
                    match read {
                        Ok(Ok(Some(piece))) => self.read(&piece),
                        // It ended, broke, or says nothing any more.
                        Ok(Ok(None) | Err(_)) | Err(_) => self.close(),
                    }
                }
            }
        }
    }

    /// Opens the stream behind the last event, not before its time.
    async fn open(&mut self) {
        if let Some(instant) = self.not_before {
            tokio::time::sleep_until(instant).await;
            self.not_before = None;
        }
        match self.connect().await {
            Ok(stream) => self.stream = Some(stream),
            Err(Shut::ForGood(error)) => {
                self.is_over = true;
                self.ready.push_back(Err(error));
            }
            Err(Shut::ForNow(error, pause)) => {
                self.close();
                if let Some(pause) = pause {
                    self.not_before = Some(Instant::now() + pause.min(PAUSE_MAX));
                }
                if self.failures.is_multiple_of(FAILURES) {
                    self.ready.push_back(Err(error));
                }
            }
        }
    }

    async fn connect(&self) -> Result<Stream, Shut> {
        let transport = &self.client.transport;
        let types = &self.filter.types;
        let query = EventParams {
            after: Some(self.after),
            types: (!types.is_empty()).then(|| types.join(",")),
            run: self.filter.run,
            by: self.filter.by.clone(),
            ..EventParams::default()
        };
        let mut request = self
            .client
            .get(&["v1", "events"])
            .and_then(|request| request.query(&query))
            .map_err(Shut::ForGood)?
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if self.after > 0 {
            request = request.header(LAST_EVENT_ID, self.after.into());
        }
        let id = random();
        let opening = transport.open(&request, &id, self.client.trace, false, None);
        let response = match tokio::time::timeout(transport.quiet, opening).await {
            Ok(Ok(response)) => response,
            Ok(Err(failed)) => {
                return Err(if failed.may_repeat(request.repeat) {
                    Shut::ForNow(failed.error, failed.retry_after)
                } else {
                    Shut::ForGood(failed.error)
                });
            }
            Err(_) => {
                let text = format!("{} did not answer in time", transport.address);
                let error = Error::new(Code::ServerUnreachable, text);
                return Err(Shut::ForNow(error, None));
            }
        };
        let media = response.headers().get(CONTENT_TYPE);
        if !media.is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream")) {
            let text = format!("{} answered with no event stream", transport.address);
            return Err(Shut::ForGood(Error::new(Code::ServerStrange, text)));
        }
        Ok(Stream {
            response,
            parser: Parser::new(transport.answer_bytes_max),
            heard: Instant::now(),
        })
    }

    /// Lets the connection go, to open it anew a little later.
    fn close(&mut self) {
        self.stream = None;
        self.not_before = Some(Instant::now() + backoff(self.pause, self.failures));
        self.failures += 1;
    }

    fn read(&mut self, piece: &[u8]) {
        let Some(stream) = self.stream.as_mut() else {
            return;
        };
        stream.heard = Instant::now();
        let messages = stream.parser.feed(piece);
        if let Some(pause) = stream.parser.retry() {
            self.pause = pause.clamp(Duration::from_millis(1), PAUSE_MAX);
        }
        match messages {
            Ok(messages) => messages.into_iter().for_each(|message| self.take(message)),
            Err(TooLong) => {
                // It would be as long the next time.
                let bytes = self.client.transport.answer_bytes_max;
                let text = format!(
                    "the event after {} is larger than {bytes} bytes",
                    self.after
                );
                self.ready
                    .push_back(Err(Error::new(Code::ServerStrange, text)));
                (self.stream, self.is_over) = (None, true);
            }
        }
    }

    fn take(&mut self, message: Message) {
        if self.stream.is_none() {
            // What comes behind `lagged` is not asked for.
            return;
        }
        if message.event == LAGGED {
            return self.close();
        }
        self.failures = 0;
        let position: Option<u64> = message.id.as_ref().and_then(|id| id.parse().ok());
        if position.is_some_and(|position| position <= self.after) {
            return;
        }
        if !message.data.is_empty() {
            let event = serde_json::from_str::<Recorded>(&message.data).map_err(|fault| {
                let text = format!("an event “{}” that is not known: {fault}", message.event);
                Error::new(Code::ServerStrange, text)
            });
            let known = event.as_ref().ok().map(|event| event.position);
            if known.is_some_and(|position| position <= self.after) {
                return;
            }
            self.after = known.unwrap_or(self.after);
            self.ready.push_back(event);
        }
        self.after = position.map_or(self.after, |position| position.max(self.after));
    }
}
