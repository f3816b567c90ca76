//! Brings a request to the server and its answer back: the key, the time limits, the repetitions,
//! and what a failure means.

use crate::client::address::Address;
use crate::client::request::{Repeat, Request};
use crate::client::{backoff, random};
use bytes::{Bytes, BytesMut};
use domain::error::{Code, Error};
use domain::trace::TraceParent;
use protocol::problem::Problem;
use protocol::wire::{REQUEST_ID, TRACEPARENT};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use std::time::Duration;
use tokio::time::Instant;

/// Times a request is sent at most.
const TRIES: u32 = 4;
/// The pause before the first repetition.
const PAUSE: Duration = Duration::from_millis(100);
/// Characters of a strange answer that are shown.
const SHOWN_MAX: usize = 200;
/// Bytes of a refusal that are read.
const PROBLEM_BYTES_MAX: usize = 256 * 1024;

/// What the bearer shows. Its text leaves this process in a request's header and nowhere else.
pub(crate) struct Key {
    text: String,
    header: HeaderValue,
}

impl Key {
    pub(crate) fn new(text: String) -> Result<Self, Error> {
        let text = text.trim().to_owned();
        let refused = || Error::new(Code::KeyRefused, "the key has characters that no key has");
        if text.is_empty() {
            return Err(Error::new(Code::KeyRefused, "the key is empty"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| refused())?;
        header.set_sensitive(true);
        Ok(Self { text, header })
    }
}

/// How requests get to one server.
pub(crate) struct Transport {
    pub(crate) http: reqwest::Client,
    pub(crate) address: Address,
    pub(crate) key: Option<Key>,
    pub(crate) timeout: Duration,
    pub(crate) patience: Duration,
    pub(crate) quiet: Duration,
    pub(crate) answer_bytes_max: usize,
}

/// How far a request that failed has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It did not arrive, or was turned away for load: nothing was done.
    Undone,
    /// Nobody knows.
    Unknown,
    /// It was answered, for good.
    Answered,
}

/// A request that failed.
pub(crate) struct Failed {
    pub(crate) error: Error,
    fate: Fate,
    pub(crate) retry_after: Option<Duration>,
}

impl Failed {
    fn answered(error: Error) -> Self {
        Self {
            error,
            fate: Fate::Answered,
            retry_after: None,
        }
    }

    /// Whether it may be sent again.
    pub(crate) fn may_repeat(&self, repeat: Repeat) -> bool {
        match self.fate {
            Fate::Undone => true,
            Fate::Unknown => repeat == Repeat::Safe,
            Fate::Answered => false,
        }
    }

    /// The pause before the `n`th repetition, counted from 0.
    pub(crate) fn pause(&self, n: u32) -> Duration {
        self.retry_after.unwrap_or_else(|| backoff(PAUSE, n))
    }
}

impl Transport {
    /// Sends a request, again when that is safe and may help.
    pub(crate) async fn send(
        &self,
        request: &Request,
        trace: Option<TraceParent>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let until = Instant::now() + self.patience + request.wait;
        let id = random();
        let mut tries = 0;
        loop {
            let failed = match self.exchange(request, &id, trace, tries > 0).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let pause = failed.pause(tries);
            tries += 1;
            if tries >= TRIES
                || !failed.may_repeat(request.repeat)
                || Instant::now() + pause >= until
            {
                return Err(failed.error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        id: &str,
        trace: Option<TraceParent>,
        again: bool,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let limit = Some(request.wait + self.timeout);
        let mut response = self.open(request, id, trace, again, limit).await?;
        let status = response.status();
        let answer = self.read(&mut response, self.answer_bytes_max).await?;
        match answer {
            Some(answer) => Ok((status, answer)),
            None => Err(Failed::answered(
                Error::new(
                    Code::ServerStrange,
                    format!("the answer is larger than {} bytes", self.answer_bytes_max),
                )
                .hint("Ask for less at a time: a smaller limit, a narrower filter."),
            )),
        }
    }

    /// Sends a request once, until its answer begins and is no refusal. With a limit, the answer
    /// must have ended by then.
    pub(crate) async fn open(
        &self,
        request: &Request,
        id: &str,
        trace: Option<TraceParent>,
        again: bool,
        limit: Option<Duration>,
    ) -> Result<Response, Failed> {
        let mut sent = self
            .http
            .request(request.method.clone(), request.url.clone())
            .header(REQUEST_ID, id);
        if let Some(body) = request.body(again).map_err(Failed::answered)? {
            sent = sent.header(CONTENT_TYPE, "application/json").body(body);
        }
        if !request.headers.iter().any(|(name, _)| name == ACCEPT) {
            sent = sent.header(ACCEPT, "application/json");
        }
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        if let Some(key) = &self.key {
            sent = sent.header(AUTHORIZATION, &key.header);
        }
        if let Some(trace) = trace {
            sent = sent.header(TRACEPARENT, trace.to_string());
        }
        if let Some(limit) = limit {
            sent = sent.timeout(limit);
        }
        let mut response = sent.send().await.map_err(|fault| self.broken(&fault))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let read = self.read(&mut response, PROBLEM_BYTES_MAX).await?;
        Err(self.refused(&response, &read.unwrap_or_default()))
    }

    /// The rest of an answer; `None` when it is longer than `max` bytes.
    async fn read(&self, response: &mut Response, max: usize) -> Result<Option<Bytes>, Failed> {
        let mut whole = BytesMut::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|fault| self.broken(&fault))?
        {
            if whole.len() + part.len() > max {
                return Ok(None);
            }
            whole.extend_from_slice(&part);
        }
        Ok(Some(whole.freeze()))
    }

    /// What an answer that is no success means.
    fn refused(&self, response: &Response, body: &[u8]) -> Failed {
        let status = response.status();
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let retryable = problem.as_ref().is_none_or(|problem| problem.retryable);
        let fate = match status {
            StatusCode::TOO_MANY_REQUESTS if retryable => Fate::Undone,
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
                if retryable =>
            {
                Fate::Unknown
            }
            _ => Fate::Answered,
        };
        let seconds = response.headers().get(RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Failed {
            error: match problem {
                Some(problem) => problem.into(),
                None => self.strange(status, body, None),
            },
            fate,
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// An answer that this program does not understand.
    pub(crate) fn strange(
        &self,
        status: StatusCode,
        body: &[u8],
        fault: Option<&serde_json::Error>,
    ) -> Error {
        let shown = String::from_utf8_lossy(body).into_owned();
        // A proxy's page of errors may show the whole request.
        let hidden = |text: String| match &self.key {
            Some(key) => text.replace(&key.text, "…"),
            None => text,
        };
        let shown = hidden(shown);
        let printable = |c: &char| !c.is_control() && *c != char::REPLACEMENT_CHARACTER;
        let shown: String = shown.chars().filter(printable).take(SHOWN_MAX).collect();
        let fault = fault.map(|fault| hidden(format!(" ({fault})")));
        let fault = fault.unwrap_or_default();
        let text = format!("{} answered {status} with “{shown}”{fault}", self.address);
        Error::new(Code::ServerStrange, text)
    }

    /// What a failure on the way means.
    pub(crate) fn broken(&self, fault: &reqwest::Error) -> Failed {
        let fate = if fault.is_connect() {
            Fate::Undone
        } else {
            Fate::Unknown
        };
        let text = if fault.is_connect() {
            format!("{} cannot be reached: {}", self.address, cause(fault))
        } else if fault.is_timeout() {
            format!("{} did not answer in time", self.address)
        } else {
            format!("{} broke off: {}", self.address, cause(fault))
        };
        Failed {
            error: Error::new(Code::ServerUnreachable, text),
            fate,
            retry_after: None,
        }
    }
}

/// The innermost reason, which is the one a person can act on.
pub(crate) fn cause(fault: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = fault;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
