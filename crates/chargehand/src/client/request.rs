//! One request, and whether it may be said twice.

use crate::client::random;
use bytes::Bytes;
use domain::error::{Code, Error};
use domain::name::Name;
use protocol::wire::{IDEMPOTENCY_KEY, WorkBody};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use std::time::Duration;

/// Whether saying it twice may do it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It does not: said again when the answer was lost.
    Safe,
    /// It may: said again only when it certainly was not done.
    Once,
}

#[derive(Debug)]
enum Body {
    None,
    Json(Bytes),
    /// Said again, it says so: the same claim gives the same tasks.
    Work(Box<WorkBody>),
}

/// What to ask the server.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the server is asked to wait.
    pub(crate) wait: Duration,
    pub(crate) repeat: Repeat,
    body: Body,
}

impl Request {
    /// Safe to repeat, waits for nothing.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            wait: Duration::ZERO,
            repeat: Repeat::Safe,
            body: Body::None,
        }
    }

    pub(crate) fn query(mut self, query: &impl Serialize) -> Result<Self, Error> {
        let text = serde_urlencoded::to_string(query)
            .map_err(|fault| Error::new(Code::Internal, format!("not a query: {fault}")))?;
        self.url.set_query((!text.is_empty()).then_some(&text));
        Ok(self)
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        Ok(self.text(encode(body)?))
    }

    /// A body that is JSON already.
    pub(crate) fn text(mut self, json: impl Into<Bytes>) -> Self {
        self.body = Body::Json(json.into());
        self
    }

    pub(crate) fn work(mut self, body: WorkBody) -> Self {
        self.body = Body::Work(Box::new(body));
        self
    }

    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(crate) fn once(mut self) -> Self {
        self.repeat = Repeat::Once;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With an idempotency key: the one that stands in `key`, or a random one. It is taken out of
    /// the body and goes as a header, except for one that no header can carry as text.
    pub(crate) fn keyed(self, key: &mut Option<Name>) -> Result<Self, Error> {
        if key.as_ref().is_some_and(|key| !key.is_ascii()) {
            return Ok(self);
        }
        let key = key.take().map_or_else(random, |key| key.to_string());
        let value = HeaderValue::try_from(key)
            .map_err(|_| Error::new(Code::NameMalformed, "the idempotency key does not print"))?;
        Ok(self.header(HeaderName::from_static(IDEMPOTENCY_KEY), value))
    }

    /// The body, as it is said the first time or `again`.
    pub(crate) fn body(&self, again: bool) -> Result<Option<Bytes>, Error> {
        match &self.body {
            Body::None => Ok(None),
            Body::Json(text) => Ok(Some(text.clone())),
            Body::Work(work) => {
                let again = again && work.claim.is_some_and(|claim| claim.key.is_some());
                if !again {
                    return encode(work).map(|text| Some(text.into()));
                }
                let mut work = work.clone();
                if let Some(claim) = &mut work.claim {
                    claim.again = true;
                }
                encode(&work).map(|text| Some(text.into()))
            }
        }
    }
}

pub(crate) fn encode(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|fault| {
        // Only a number that JSON does not have, such as an importance that is not one.
        Error::new(Code::OutOfRange, format!("cannot be said in JSON: {fault}"))
    })
}
