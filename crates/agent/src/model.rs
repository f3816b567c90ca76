//! Models: what may be asked of one and what it answers, in words of our own.
//!
//! Every provider speaks a dialect; the crew's log, its receipts and its agents must not. So there
//! is one small port, [`Model`], and an adapter for each dialect. An adapter translates, and nothing
//! else: it does not try again, wait, fall back or keep accounts, because whoever pays must decide
//! that in one place. Deliberately absent: sessions kept at the provider, and anything that only one
//! provider has.
//!
//! ```
//! use agent::model::{ModelName, Provider};
//!
//! let name: ModelName = "anthropic/claude-sonnet-4-5".parse()?;
//! assert_eq!((name.provider, name.model.as_str()), (Provider::Anthropic, "claude-sonnet-4-5"));
//! let wrong = "gpt-5".parse::<ModelName>().unwrap_err();
//! assert_eq!(wrong.code, "model.name");
//! # Ok::<(), agent::model::ModelError>(())
//! ```

mod anthropic;
mod connect;
mod draft;
mod gemini;
mod ollama;
mod openai;
mod openai_responses;
pub mod price;
mod refusal;
pub(crate) use refusal::retry_after;
pub mod scripted;
mod wire;

pub use connect::{Key, Settings, connect};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Tokens of an answer when nothing is said.
pub const TOKENS_DEFAULT: u32 = 4_096;

/// Bytes of one answer, text and calls together; more is cut off as [`Fault::Broken`].
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Calls in one answer; more is [`Fault::Broken`].
pub const CALLS_MAX: usize = 128;

/// Tokens of an answer, at most, where 0 means [`TOKENS_DEFAULT`].
pub(crate) const fn answer_tokens(tokens_max: u32) -> u32 {
    match tokens_max {
        0 => TOKENS_DEFAULT,
        tokens => tokens,
    }
}

/// The dialects that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Chat Completions, of `OpenAI` and of everything that speaks like it.
    Openai,
    /// Responses, of `OpenAI`.
    OpenaiResponses,
    /// Messages, of Anthropic.
    Anthropic,
    /// `generateContent`, of Google.
    Gemini,
    /// `/api/chat`, of Ollama, which runs models on this machine.
    Ollama,
    /// A transcript written beforehand, for tests and demonstrations; labelled so wherever it shows.
    Scripted,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Openai,
        Self::OpenaiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::Scripted,
    ];

    /// The name before the slash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OpenaiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Scripted => "scripted",
        }
    }

    /// The environment variable that holds its key, when it needs one.
    pub const fn key_variable(self) -> Option<&'static str> {
        match self {
            Self::Openai | Self::OpenaiResponses => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Gemini => Some("GEMINI_API_KEY"),
            Self::Ollama | Self::Scripted => None,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which model: `provider/model`, such as `openai/gpt-5-mini`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    /// Who is asked.
    pub provider: Provider,
    /// For what, in the provider's words. Of `scripted`, the transcript's file.
    pub model: String,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

impl FromStr for ModelName {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let known = |name: &str| Provider::ALL.into_iter().find(|p| p.as_str() == name);
        let parts = text.split_once('/').filter(|(_, model)| !model.is_empty());
        match parts.and_then(|(provider, model)| Some((known(provider)?, model))) {
            Some((provider, model)) => Ok(Self {
                provider,
                model: model.to_owned(),
            }),
            None => {
                let providers = Provider::ALL.map(Provider::as_str).join(", ");
                let text = format!(
                    "“{text}” is no model: write PROVIDER/MODEL, with one of {providers} as provider"
                );
                Err(ModelError {
                    code: "model.name",
                    ..ModelError::new(Fault::Refused, text)
                })
            }
        }
    }
}

impl Serialize for ModelName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ask {
    /// The model, in the provider's words.
    pub model: String,
    /// Who it is and what holds throughout.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// What was said so far, the oldest first; the last is not the model's.
    pub turns: Vec<Turn>,
    /// What it may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolSpec>,
    /// A JSON Schema its answer must satisfy. It is asked for it; whether it did is for whoever asks
    /// to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Tokens of the answer, at most; 0 means [`TOKENS_DEFAULT`].
    #[serde(default)]
    pub tokens_max: u32,
    /// How freely it chooses its words, from 0; none is the provider's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Turn {
    /// What it was told.
    User {
        /// In words.
        text: String,
    },
    /// What it answered.
    Model {
        /// In words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// And wanted called.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<Call>,
    },
    /// What came of its calls: one result for each, in their order.
    Tools {
        /// The results.
        results: Vec<CallResult>,
    },
}

impl Turn {
    /// What somebody says to a model.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { text: text.into() }
    }
}

/// A tool, as a model is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// `[a-zA-Z0-9_-]{1,64}`: what every provider takes.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments: an object.
    pub input: Value,
}

/// A call that a model wants made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The provider's name for it, or one made up by the adapter where the provider has none.
    pub id: String,
    /// Which tool.
    pub tool: String,
    /// With what. A string, if what the model wrote is no JSON: then it is that text.
    pub arguments: Value,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallResult {
    /// Of which call.
    pub id: String,
    /// Of which tool.
    pub tool: String,
    /// What the tool said.
    pub text: String,
    /// It did not do what was asked.
    #[serde(default)]
    pub failed: bool,
    /// Somebody else wrote it: models are told so with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it wants called before it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// Why it stopped.
    pub stop: Stop,
    /// What was used up.
    pub usage: Usage,
}

impl Answer {
    /// As the turn it is in a conversation that goes on.
    pub fn turn(&self) -> Turn {
        Turn::Model {
            text: self.text.clone(),
            calls: self.calls.clone(),
        }
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It has said what it had to say.
    Done,
    /// It wants calls made.
    Calls,
    /// Its tokens were used up: the answer is cut off.
    Length,
    /// It will not answer this, or was not let.
    Refused,
}

/// Tokens, as the provider counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Read, those from a cache included.
    pub input_tokens: u64,
    /// Of these, read from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Written, those of its thoughts included.
    pub output_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(more.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
    }
}

/// A piece of an answer that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta<'a> {
    /// It is asked, for the first time or again: what was heard before is no part of the answer. Told
    /// by whoever asks, not by models themselves.
    Begun,
    /// No answer came: why, in words, and when it is asked again. Told by whoever asks, too.
    Late(&'a str),
    /// More words.
    Text(&'a str),
    /// It begins to write a call of this tool.
    Call(&'a str),
}

/// What hears an answer being written.
pub type Listener<'a> = dyn FnMut(Delta<'_>) + Send + 'a;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelError {
    /// What kind of fault.
    pub fault: Fault,
    /// The stable code: that of the fault, or a narrower one.
    pub code: &'static str,
    /// For people; never with a key in it.
    pub message: String,
    /// How long the provider wants to be left alone, when it said.
    pub retry_after: Option<Duration>,
    /// The question never reached the provider: nothing can have been paid for it.
    pub unsent: bool,
}

impl ModelError {
    /// A fault, in words.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self {
            fault,
            code: fault.code(),
            message: message.into(),
            retry_after: None,
            unsent: false,
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ModelError {}

/// Kinds of faults, by who can act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There is no key, or it is not taken (401, 403). Whoever runs the crew must act.
    Key,
    /// There is no such model (404). Whoever wrote the crew must act.
    Unknown,
    /// The request is refused as it is (400, 413, 422). Asked again it is refused again.
    Refused,
    /// Asked too often (429): later it may answer.
    Limited,
    /// The provider is overloaded or broken (408, 500, 502, 503, 504, 529): later it may answer.
    Overloaded,
    /// It did not answer in time, or could not be reached: whether it did the work, and wants it
    /// paid, is not known.
    Silent,
    /// The answer broke off, or is none by the provider's own rules.
    Broken,
}

impl Fault {
    /// Its code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Key => "model.key",
            Self::Unknown => "model.unknown",
            Self::Refused => "model.refused",
            Self::Limited => "model.limited",
            Self::Overloaded => "model.overloaded",
            Self::Silent => "model.silent",
            Self::Broken => "model.broken",
        }
    }

    /// Whether the same request may fare better later.
    pub const fn retryable(self) -> bool {
        match self {
            Self::Key | Self::Unknown | Self::Refused => false,
            Self::Limited | Self::Overloaded | Self::Silent | Self::Broken => true,
        }
    }

    /// The fault that an HTTP status means, for every provider alike.
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Key,
            404 => Self::Unknown,
            429 => Self::Limited,
            408 | 500..=599 => Self::Overloaded,
            _ => Self::Refused,
        }
    }
}

/// Somebody who answers.
#[async_trait]
pub trait Model: Send + Sync + fmt::Debug {
    /// Asks once, telling the listener while the answer is written. Dropping the future gives up.
    ///
    /// # Errors
    /// What kept it from answering. It has not tried again.
    async fn ask(&self, ask: &Ask, listener: &mut Listener<'_>) -> Result<Answer, ModelError>;
}

/// The answer in a recorded stream of this provider, given in pieces of any size: for looking at
/// recordings, and for tests.
///
/// # Errors
/// What a live stream of the same bytes would have given.
///
/// ```
/// use agent::model::{Ask, Provider, decode};
///
/// let line = br#"{"message": {"content": "Hi."}, "done": true, "done_reason": "stop"}"#;
/// let answer = decode(Provider::Ollama, &Ask::default(), [&line[..20], &line[20..]], &mut |_| {})?;
/// assert_eq!(answer.text, "Hi.");
/// # Ok::<(), agent::model::ModelError>(())
/// ```
pub fn decode<'a>(
    provider: Provider,
    ask: &Ask,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    listener: &mut Listener<'_>,
) -> Result<Answer, ModelError> {
    let Some(dialect) = connect::dialect(provider) else {
        let text = format!("{provider} has no streams");
        return Err(ModelError::new(Fault::Refused, text));
    };
    let mut decoder = wire::Decoder::new(dialect, ask);
    for piece in pieces {
        decoder.feed(piece, listener)?;
    }
    decoder.finish(listener)
}
