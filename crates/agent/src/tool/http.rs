//! An operation of an OpenAPI document as a tool: one request, one answer.
//!
//! Where a request goes is the crew file's to say, or its document's, and nobody else's: an argument
//! fills one step of the path and never leads out of it, redirects are not followed, and an address
//! that only the document names must be a public one. The key is looked up when the request is made,
//! goes into its place, and is taken out again of everything that comes back.
//!
//! Whoever asks to be left alone (`Retry-After`) is: until then the tools of that address are not
//! available, whoever calls them.

use super::command::{Revealed, redact, redacted_part};
use super::openapi::{Form, KeyPlace, Operation, Parameter, ParameterPlace};
use super::{RESULT_BYTES_MAX, Tool, ToolCard};
use crate::crew::Api;
use crate::model::retry_after;
use crate::skill::fetch::{public_addresses, root_cause};
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{
    Client, Method, Request, RequestBuilder, Response, StatusCode, Url, redirect, retry,
};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often a request that may be repeated is made again when nothing is said.
pub const RETRIES: u32 = 2;
/// Longest time that whoever asks to be left alone is.
pub const LEFT_ALONE_MAX: Duration = Duration::from_secs(600);
/// How long whoever is overloaded and does not say is left alone.
const LEFT_ALONE: Duration = Duration::from_millis(200);
/// Until a connection stands.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Bytes of a refusal that are told.
const REFUSAL_BYTES_MAX: usize = 400;
const USER_AGENT: &str = concat!("chargehand/", env!("CARGO_PKG_VERSION"));

/// One operation.
pub struct HttpTool {
    card: ToolCard,
    operation: Operation,
    api: Arc<Reached>,
}

/// What the operations of one API share.
struct Reached {
    api: Api,
    /// Not to be asked before.
    closed: Mutex<Option<Instant>>,
}

impl HttpTool {
    /// All that a crew may use of an API, as `NAME.OPERATION`.
    ///
    /// # Errors
    /// `tool.unknown` when a name is none.
    pub fn all(name: &str, api: &Api) -> Result<Vec<Self>, Failure> {
        let reached = Arc::new(Reached {
            api: api.clone(),
            closed: Mutex::new(None),
        });
        let tools = api.operations.iter().map(|(operation_name, operation)| {
            let name = Name::new(format!("{name}.{operation_name}"));
            let name = name.map_err(|error| Failure::permanent("tool.unknown", error.message))?;
            Ok(Self {
                card: ToolCard {
                    name,
                    description: operation.description.clone(),
                    input: operation.input.clone(),
                    output: None,
                    effect: operation.effect,
                    timeout: api.timeout,
                    category: api.category.clone(),
                    sensitive: Vec::new(),
                    untrusted_output: true,
                },
                operation: operation.clone(),
                api: Arc::clone(&reached),
            })
        });
        tools.collect()
    }

    /// The address, with the arguments in their places.
    fn url(&self, arguments: &Value) -> Result<Url, String> {
        let base = self.api.api.base_url.trim_end_matches('/');
        let mut path = self.operation.path.clone();
        let of = |place| {
            let parameters = self.operation.parameters.iter();
            let parameters = parameters.filter(move |parameter| parameter.place == place);
            parameters.filter_map(|parameter| {
                let value = arguments.get(&parameter.argument)?;
                (!value.is_null()).then_some((parameter, value))
            })
        };
        for (parameter, value) in of(ParameterPlace::Path) {
            let text = text_of(value, ',');
            let steps = text.split(['/', '\\']);
            let leads_out = steps.clone().any(|step| matches!(step, "." | ".."));
            if text.is_empty() || leads_out || text.chars().any(char::is_control) {
                return Err(format!(
                    "“{}” cannot be a step of a path",
                    parameter.argument
                ));
            }
            path = path.replace(&format!("{{{}}}", parameter.name), &encoded(&text));
        }
        let whole = format!("{base}{path}");
        let mut url = Url::parse(&whole).map_err(|fault| format!("no address: {fault}"))?;
        // What was put together and what will be asked for are the same, or nothing is.
        let plain = Url::parse(base).map_err(|fault| format!("no address: {fault}"))?;
        let wanted = format!("{}{path}", plain.path().trim_end_matches('/'));
        if url.origin() != plain.origin() || decoded_differs(url.path(), &wanted) {
            return Err("the arguments lead to another path".into());
        }
        for (parameter, value) in of(ParameterPlace::Query) {
            let mut pairs = url.query_pairs_mut();
            for (name, text) in pairs_of(parameter, value) {
                pairs.append_pair(&name, &text);
            }
        }
        Ok(url)
    }

    fn request(
        &self,
        client: &Client,
        url: Url,
        arguments: &Value,
    ) -> Result<RequestBuilder, String> {
        let method = Method::from_bytes(self.operation.method.as_bytes());
        let method = method.map_err(|_| "it has no method")?;
        let mut request = client
            .request(method, url)
            .header("accept", "application/json");
        let headers = self.operation.parameters.iter();
        for parameter in headers.filter(|p| p.place == ParameterPlace::Header) {
            let Some(value) = arguments.get(&parameter.argument) else {
                continue;
            };
            let name = HeaderName::from_bytes(parameter.name.as_bytes());
            let value = HeaderValue::from_str(&text_of(value, ','));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!("“{}” cannot be in a header", parameter.argument));
            };
            request = request.header(name, value);
        }
        let body = self.operation.body.as_ref();
        if let Some(body) = body.and_then(|body| arguments.get(body)) {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Ok(request)
    }

    /// The key, if the operation wants one and the crew has one.
    fn key(&self) -> Result<Option<(KeyPlace, Revealed)>, String> {
        let (Some(place), Some(secret)) = (&self.operation.key, &self.api.api.key) else {
            return Ok(None);
        };
        let found = secret.reveal();
        let found = found.ok_or_else(|| format!("{} is not set", secret.variable()))?;
        let revealed = Revealed {
            secret: found,
            handle: secret.to_string(),
        };
        Ok(Some((place.clone(), revealed)))
    }

    async fn made(&self, arguments: &Value, key: &str) -> Result<Value, Failure> {
        let wrong = |why: String| Failure::permanent("tool.arguments", why);
        let mut url = self.url(arguments).map_err(wrong)?;
        let unset = |why| Failure::new("tool.unavailable", why);
        let secret = self.key().map_err(unset)?;
        if let Some((KeyPlace::Query(name), revealed)) = &secret {
            url.query_pairs_mut().append_pair(name, &revealed.secret);
        }
        let client = self.client(&url).await?;
        let mut request = self.request(&client, url, arguments).map_err(wrong)?;
        if self.operation.effect != EffectClass::Pure {
            request = request.header("idempotency-key", key);
        }
        let hidden = |text: String| {
            let value = HeaderValue::from_str(&text);
            let mut value =
                value.map_err(|_| unset("the key has characters that no key has".into()))?;
            value.set_sensitive(true);
            Ok::<_, Failure>(value)
        };
        request = match &secret {
            Some((KeyPlace::Bearer, revealed)) => request.header(
                "authorization",
                hidden(format!("Bearer {}", revealed.secret))?,
            ),
            Some((KeyPlace::Basic, revealed)) => {
                let (user, password) = revealed.secret.split_once(':').unwrap_or_default();
                request.basic_auth(user, Some(password))
            }
            Some((KeyPlace::Header(name), revealed)) => {
                request.header(name.as_str(), hidden(revealed.secret.clone())?)
            }
            Some((KeyPlace::Query(_), _)) | None => request,
        };
        let request = request.build();
        let request = request.map_err(|fault| wrong(root_cause(&fault.without_url())))?;
        let struck = secret.map_or_else(Vec::new, |(_, revealed)| forms(revealed, &request));
        let answer = client.execute(request).await;
        let mut told = match answer {
            Ok(answer) => self.told(answer).await,
            Err(fault) => Err(self.unanswered(fault)),
        };
        match &mut told {
            Ok(value) => redact(value, &struck),
            // A refusal that is too long is cut where it ends.
            Err(failure) => failure.message = redacted_part(&failure.message, &struck),
        }
        told
    }

    async fn client(&self, url: &Url) -> Result<Client, Failure> {
        let mut client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .connect_timeout(CONNECT_TIME)
            .user_agent(USER_AGENT);
        if !self.api.api.private {
            let addresses = public_addresses(url).await.map_err(|error| Failure {
                retryable: error.retryable,
                ..Failure::new("tool.failed", error.message)
            })?;
            client = client.resolve_to_addrs(url.host_str().unwrap_or_default(), &addresses);
        }
        let broken = |fault: reqwest::Error| {
            Failure::new(
                "tool.unavailable",
                format!("no client: {}", root_cause(&fault)),
            )
        };
        client.build().map_err(broken)
    }

    /// What it means that no answer came.
    fn unanswered(&self, fault: reqwest::Error) -> Failure {
        // The address is not told: it may have the key in it.
        let unsent = fault.is_connect();
        let why = root_cause(&fault.without_url());
        let host = self.host();
        if unsent {
            let text = format!("{host} cannot be reached: {why}");
            return Failure::new("tool.failed", text);
        }
        self.broken(why)
    }

    fn host(&self) -> String {
        let url = Url::parse(&self.api.api.base_url).ok();
        let host = url.and_then(|url| Some(url.host_str()?.to_owned()));
        format!("“{}”", host.unwrap_or_default())
    }

    /// What an answer says.
    async fn told(&self, mut answer: Response) -> Result<Value, Failure> {
        let status = answer.status();
        let pause = retry_after(answer.headers(), SystemTime::now());
        let kind = answer.headers().get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        let most = match status.is_success() {
            true => RESULT_BYTES_MAX,
            false => REFUSAL_BYTES_MAX,
        };
        let mut body = Vec::new();
        let mut whole = true;
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= most => body.extend(chunk),
                Ok(Some(chunk)) => {
                    let room = most - body.len();
                    body.extend(&chunk[..chunk.len().min(room)]);
                    whole = false;
                    break;
                }
                Ok(None) => break,
                Err(_) if !status.is_success() => break,
                Err(fault) => return Err(self.broken(root_cause(&fault.without_url()))),
            }
        }
        if !status.is_success() {
            return Err(self.refused(status, pause, &String::from_utf8_lossy(&body)));
        }
        if !whole {
            let text = format!("the answer has more than {RESULT_BYTES_MAX} bytes");
            return Err(Failure::permanent("tool.output", text));
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        if let Ok(value) = serde_json::from_slice(&body) {
            return Ok(value);
        }
        if kind.starts_with("text/")
            && let Ok(text) = String::from_utf8(body)
        {
            return Ok(json!(text));
        }
        let text = format!("the answer is neither JSON nor text, but “{kind}”");
        Err(Failure::permanent("tool.output", text))
    }

    fn broken(&self, why: String) -> Failure {
        Failure {
            retryable: self.card.effect.is_repeatable(),
            ..Failure::new("tool.broken", format!("{} broke off: {why}", self.host()))
        }
    }

    fn refused(&self, status: StatusCode, pause: Option<Duration>, said: &str) -> Failure {
        let pause = pause.map(|pause| pause.min(LEFT_ALONE_MAX));
        let asks = matches!(status.as_u16(), 429 | 503);
        if asks {
            let until = Instant::now() + pause.unwrap_or(LEFT_ALONE);
            *self.closed() = Some(until);
        }
        let mut text = format!("{} answered {}", self.host(), status.as_u16());
        if let Some(pause) = pause.filter(|_| asks) {
            let _ = write!(
                text,
                ", and asks to be left alone for {} s",
                pause.as_secs()
            );
        }
        if status.is_redirection() {
            text.push_str(", which leads elsewhere, and is not followed");
        }
        if !said.trim().is_empty() {
            let _ = write!(text, ": {}", said.trim());
        }
        let repeatable = self.card.effect.is_repeatable();
        match status.as_u16() {
            // It says itself that it did nothing.
            408 | 425 | 429 | 503 => Failure::new("tool.failed", text),
            // It may have done it before it broke.
            500.. => Failure {
                retryable: repeatable,
                ..Failure::new("tool.broken", text)
            },
            _ => Failure::permanent("tool.failed", text),
        }
    }

    fn closed(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let closed = self.api.closed.lock();
        closed.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HttpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTool")
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Tool for HttpTool {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    fn retries(&self) -> u32 {
        let usual = match self.card.effect.is_repeatable() {
            true => RETRIES,
            false => 0,
        };
        self.api.api.retry.unwrap_or(usual)
    }

    async fn available(&self) -> Result<(), String> {
        self.key()?;
        let left = self
            .closed()
            .map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => Err(format!(
                "{} asks to be left alone for {} ms more",
                self.host(),
                left.as_millis()
            )),
            None => Ok(()),
        }
    }

    async fn call(&self, arguments: &Value, key: &str) -> Result<Value, Failure> {
        self.made(arguments, key).await.map_err(|failure| Failure {
            message: format!("“{}”: {}", self.card.name, failure.message),
            ..failure
        })
    }
}

/// The key in every form in which it was sent, so that whoever repeats one of them gives nothing away.
fn forms(revealed: Revealed, request: &Request) -> Vec<Revealed> {
    let Revealed { secret, handle } = revealed;
    let mut forms = vec![encoded(&secret)];
    let mut query = Url::parse("http://x/").ok();
    if let Some(url) = &mut query {
        // As it stands behind the question mark.
        url.query_pairs_mut().append_pair("", &secret);
        forms.extend(url.query().map(|query| query[1..].to_owned()));
    }
    let header = request.headers().get("authorization");
    let header = header.and_then(|value| value.to_str().ok());
    if let Some(basic) = header.and_then(|value| value.strip_prefix("Basic ")) {
        forms.push(basic.to_owned());
        // And what a server makes of it.
        forms.extend(
            secret
                .split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
    }
    forms.push(secret);
    // The longest first: a shorter one may be a part of it.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    let forms = forms.into_iter();
    let forms = forms.map(|secret| Revealed {
        secret,
        handle: handle.clone(),
    });
    forms.collect()
}

/// As text: a text as it is, a list or object joined.
fn text_of(value: &Value, between: char) -> String {
    let joined = |parts: Vec<String>| parts.join(&between.to_string());
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => joined(items.iter().map(|item| text_of(item, between)).collect()),
        Value::Object(map) => {
            let parts = map.iter();
            let parts = parts.flat_map(|(key, value)| [key.clone(), text_of(value, between)]);
            joined(parts.collect())
        }
        other => other.to_string(),
    }
}

/// A parameter behind the question mark.
fn pairs_of(parameter: &Parameter, value: &Value) -> Vec<(String, String)> {
    let name = || parameter.name.clone();
    match (parameter.form, value) {
        (Form::Json, _) => vec![(name(), value.to_string())],
        (Form::Exploded, Value::Array(items)) => items
            .iter()
            .map(|item| (name(), text_of(item, ',')))
            .collect(),
        (Form::Exploded, Value::Object(map)) => map
            .iter()
            .map(|(key, value)| (key.clone(), text_of(value, ',')))
            .collect(),
        (Form::Deep, Value::Object(map)) => map
            .iter()
            .map(|(key, value)| (format!("{}[{key}]", parameter.name), text_of(value, ',')))
            .collect(),
        (Form::Joined(between), _) => vec![(name(), text_of(value, between))],
        (Form::Exploded | Form::Deep, _) => vec![(name(), text_of(value, ','))],
    }
}

/// As one step of a path: everything that means something in an address loses its meaning.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// Whether two paths are not of the same steps. The document's own letters may be encoded by the one
/// who reads addresses; the number of steps and none of `..` are what counts.
fn decoded_differs(asked: &str, wanted: &str) -> bool {
    asked.split('/').count() != wanted.split('/').count()
        || wanted.split('/').any(|step| matches!(step, "." | ".."))
}
