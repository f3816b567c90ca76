//! Bodies in, answers out, problems alike everywhere.

use crate::listen::Stopping;
use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::credential::Scope;
use domain::error::{Code, Error};
use domain::name::Name;
use domain::trace::TraceParent;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use protocol::problem::{MEDIA_TYPE, Problem};
use protocol::wire::{IDEMPOTENCY_KEY, TRACEPARENT};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, OpenApi, Ref, ResponseBuilder, SecurityRequirement};
use utoipa::{PartialSchema as _, ToSchema as _};

/// A request that was refused.
#[derive(Debug)]
pub struct Refusal(pub Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// What a handler answers.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// 201, with what was made.
pub(crate) struct Made<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// 204.
pub(crate) fn done(outcome: Result<(), Error>) -> Answer<StatusCode> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(Refusal)
}

/// Characters in a problem's detail.
const DETAIL_MAX: usize = 900;

/// An error as problem details.
pub(crate) fn problem(error: &Error) -> Response {
    let mut problem = Problem::from(error);
    // It may repeat what somebody typed.
    if problem.detail.contains(char::is_control) || problem.detail.len() > DETAIL_MAX {
        let letters = problem.detail.chars().filter(|c| !c.is_control());
        problem.detail = letters.take(DETAIL_MAX).collect();
    }
    if error.code == Code::Internal {
        tracing::error!(%error, "a defect");
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(&problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status.as_u16(), 429 | 503 | 507) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response.extensions_mut().insert(Told(problem));
    response
}

/// The problem that a response tells, so that it can be given its request's name.
#[derive(Clone)]
struct Told(Problem);

/// Writes the request's name into a problem.
pub(crate) fn name(mut response: Response, id: &HeaderValue) -> Response {
    if let Some(Told(mut problem)) = response.extensions_mut().remove::<Told>() {
        problem.instance = id.to_str().ok().map(str::to_owned);
        if let Ok(text) = serde_json::to_vec(&problem) {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = HttpBody::from(text);
        }
    }
    response
}

/// A name for a request that came without one: unique in this process, and unlikely elsewhere.
pub(crate) fn fresh_id() -> HeaderValue {
    static BASE: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("req_{:x}_{n:x}", *BASE);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("req"))
}

/// What a page of an allowed origin may send.
pub(crate) fn preflight() -> Response {
    const ALLOWED: [(HeaderName, &str); 3] = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, DELETE",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, \
             traceparent, x-request-id",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in ALLOWED {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<super::App>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<super::App>) -> Answer<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.map_or("", |kind| kind.to_str().unwrap_or_default());
        // A page of another origin can send a form or plain text without asking, but not JSON.
        if !kind
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        {
            let text = match kind {
                "" => "the body has no Content-Type".to_owned(),
                kind => format!("a body of type “{kind}” is not read here"),
            };
            return Err(Error::new(Code::MediaType, text).into());
        }
        let bytes = read(request, app.limits.body_bytes).await?;
        parse(&bytes).map(Self).map_err(Refusal)
    }
}

/// A JSON body, or nothing at all.
pub(crate) struct Maybe<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<super::App>> for Maybe<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<super::App>) -> Answer<Self> {
        let nothing = request.headers().get(header::CONTENT_TYPE).is_none()
            && http_body::Body::size_hint(request.body()).exact() == Some(0);
        if nothing {
            return Ok(Self(T::default()));
        }
        Body::from_request(request, app)
            .await
            .map(|Body(body)| Self(body))
    }
}

async fn read(request: Request, max: usize) -> Answer<bytes::Bytes> {
    let collected = Limited::new(request.into_body(), max).collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|fault| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*fault);
            while let Some(error) = cause {
                if error.is::<LengthLimitError>() {
                    let text = format!("the body is longer than {max} bytes");
                    return Error::new(Code::PayloadTooLarge, text)
                        .hint("Send less at a time.")
                        .into();
                }
                if error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
                {
                    return Error::new(Code::RequestSlow, "the body took too long to arrive")
                        .into();
                }
                cause = error.source();
            }
            Error::new(Code::JsonMalformed, "the body broke off").into()
        })
}

/// Levels of brackets in a body. What is carried as text (inputs, outputs) would be kept however deep
/// it is, and then nobody could read it again: common parsers stop at 128 levels, and a list of events
/// or tasks puts a few more around it.
const NESTING_MAX: usize = 112;

/// Refuses a body that is nested too deeply, or is a list: every body is an object, and the reader of
/// an object would take a list of its fields without their names.
fn check_shape(bytes: &[u8]) -> Result<(), Error> {
    let at = |n: usize| {
        let before = &bytes[..n];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count()
            + 1;
        format!("at line {line} column {column}")
    };
    let (mut depth, mut text, mut escaped) = (0_usize, false, false);
    for (n, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            _ if text => {}
            b'[' if depth == 0 => {
                let text = format!("invalid type: list, expected an object {}", at(n));
                return Err(Error::new(Code::JsonMalformed, text));
            }
            b'[' | b'{' if depth == NESTING_MAX => {
                let text = format!("more than {NESTING_MAX} levels of brackets {}", at(n));
                return Err(Error::new(Code::LimitExceeded, text));
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    check_shape(bytes)?;
    serde_json::from_slice(bytes).map_err(|fault| malformed(&fault.to_string()))
}

/// What the reader of a body, path or query says, with the code that an error of the domain in it
/// has: “task.unknown: …” keeps its code.
fn malformed(text: &str) -> Error {
    let known = Code::ALL.iter().find_map(|code| {
        let rest = text.strip_prefix(code.as_str())?.strip_prefix(": ")?;
        Some(Error::new(*code, rest.to_owned()))
    });
    known.unwrap_or_else(|| Error::new(Code::JsonMalformed, cut(text)))
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Parts of the path.
pub(crate) struct At<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<super::App>> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<super::App>) -> Answer<Self> {
        let read = Path::<T>::from_request_parts(parts, app).await;
        read.map(|Path(path)| Self(path)).map_err(|fault| {
            let text = fault.body_text();
            let text = text.rsplit("with value ").next().unwrap_or(&text);
            let known = ["id.malformed: ", "name.malformed: "]
                .iter()
                .find_map(|code| text.find(code).map(|at| &text[at..]));
            malformed(known.unwrap_or(text)).into()
        })
    }
}

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<super::App>> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<super::App>) -> Answer<Self> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(query)| Self(query)).map_err(|fault| {
            let text = fault.body_text();
            let text = text
                .strip_prefix("Failed to deserialize query string: ")
                .unwrap_or(&text);
            let error = Error::new(Code::OutOfRange, format!("the query: {}", cut(text)));
            error.hint("See at `/docs` what the path takes.").into()
        })
    }
}

/// The `Idempotency-Key`.
pub(crate) struct Once(pub(crate) Option<Name>);

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(Self(None));
        };
        let key = Name::new(key.to_str().unwrap_or_default())?;
        Ok(Self(Some(key)))
    }
}

impl Once {
    /// The key of the header, or the one in the body; both at once must be equal.
    pub(crate) fn or(self, body: Option<Name>) -> Result<Option<Name>, Error> {
        match (self.0, body) {
            (Some(header), Some(body)) if header != body => Err(Error::new(
                Code::IdempotencyMismatch,
                "the header Idempotency-Key and `key` in the body differ",
            )),
            (header, body) => Ok(header.or(body)),
        }
    }
}

/// The `traceparent`; one that is not well formed is as good as none, as the standard says.
pub(crate) struct Trace(pub(crate) Option<TraceParent>);

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let text = parts.headers.get(TRACEPARENT).and_then(|t| t.to_str().ok());
        Ok(Self(text.and_then(|text| text.parse().ok())))
    }
}

/// Whether the server is about to stop; requests that wait end then.
pub(crate) struct Ending(pub(crate) Stopping);

impl<S: Send + Sync> FromRequestParts<S> for Ending {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let stopping = parts.extensions.get::<Stopping>().cloned();
        Ok(Self(stopping.unwrap_or_else(Stopping::never)))
    }
}

impl Ending {
    /// The answer, or nothing when the server stops first.
    pub(crate) async fn or_none<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            answer = answer => Some(answer),
            () = self.0.begun() => None,
        }
    }

    /// The answer, or that the server stops.
    pub(crate) async fn or_refuse<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let stopping = || Err(Error::new(Code::Stopped, "the server is stopping"));
        self.or_none(answer).await.unwrap_or_else(stopping)
    }
}

fn operations(item: &mut utoipa::openapi::PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// Says what every operation of a group needs, and that it may answer with a problem.
pub(crate) fn describe(document: &mut OpenApi, needed: &[Scope]) {
    let names: Vec<_> = needed.iter().map(|scope| scope.as_str()).collect();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let scope = format!("Needs a key with scope {}.", names.join(" or "));
        let text = match operation.description.take() {
            Some(text) => format!("{text}\n\n{scope}"),
            None => scope,
        };
        operation.description = Some(text);
        operation.security = Some(vec![SecurityRequirement::new("key", names.clone())]);
        let refused = ResponseBuilder::new()
            .description("Refused, and why.")
            .content(
                MEDIA_TYPE,
                utoipa::openapi::ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name(Problem::name())))
                    .build(),
            );
        operation
            .responses
            .responses
            .insert("default".into(), refused.build().into());
    }
}

/// Adds what problems look like.
pub(crate) fn add_problem(components: &mut Components) {
    let name = Problem::name().into_owned();
    components.schemas.insert(name, Problem::schema());
}
