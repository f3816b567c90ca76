//! A transcript written beforehand, for tests, demonstrations and first steps without a key.
//!
//! One JSON document: rules, of which the first that matches answers.
//!
//! ```json
//! {"rules": [
//!   {"when": {"turn": 1, "last_contains": "weather"},
//!    "answer": {"calls": [{"tool": "forecast", "arguments": {"city": "Bern"}}]}},
//!   {"when": {"tool_result_contains": "rain"},
//!    "answer": {"text": "Take an umbrella."}},
//!   {"when": {"last_contains": "again"}, "times": 1,
//!    "error": {"fault": "limited", "retry_after_ms": 50}}
//! ]}
//! ```
//!
//! `when` asks about the conversation, and what is left out always holds: `model` is the model
//! that is asked; `system_contains` text of its instructions; `turn` which of its answers this is,
//! counted from 1; `last_contains` text of the last turn, results of tools included;
//! `tool_result_contains` text of a result in the last turn. An answer has `text`, `calls` and
//! optionally `fill`, `delay_ms` and `usage`; without `usage` a token is four bytes, always rounded up.
//! `fill` takes over what only a tool can know, such as the number of what was sent: with
//! `{"$ID": "/message_id"}`, every `$ID` in the answer's text and in its calls' arguments becomes what
//! the newest result that is JSON and has something at that pointer has there.
//! An error has a `fault` (`key`, `unknown`, `refused`, `limited`, `overloaded`, `silent`,
//! `broken`) and optionally `retry_after_ms` and `message`.
//!
//! A process that is resumed must get the answers that the one before it would have got. So rules
//! look at the conversation and nothing else, ids of calls are made from its length, and only
//! `times`, after which a rule no longer matches, is counted: in this process alone, for each
//! model that was connected. Use it for errors that pass, and tell answers apart by `turn`.
//!
//! Deliberately absent: chance, templates beyond `fill`, and anything that reads a clock.

use super::refusal::cut;
use super::{
    ANSWER_BYTES_MAX, Answer, Ask, CALLS_MAX, Call, Delta, Fault, Listener, Model, ModelError,
    Stop, Turn, Usage,
};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes of a transcript.
pub const SCRIPT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Rules of a transcript.
pub const RULES_MAX: usize = 10_000;
/// The longest `delay_ms` and `retry_after_ms`: ten minutes.
pub const DELAY_MS_MAX: u64 = 600_000;
/// Words that one answer fills in.
pub const FILLS_MAX: usize = 20;
/// Bytes of the last turn that are shown when no rule matches.
const SHOWN_MAX: usize = 200;

/// A transcript that answers.
#[derive(Debug)]
pub struct Script {
    rules: Vec<(Rule, AtomicU32)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    when: When,
    times: Option<u32>,
    answer: Option<Said>,
    error: Option<Failure>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    model: Option<String>,
    system_contains: Option<String>,
    last_contains: Option<String>,
    turn: Option<usize>,
    tool_result_contains: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    text: String,
    #[serde(default)]
    calls: Vec<SaidCall>,
    #[serde(default)]
    fill: BTreeMap<String, String>,
    #[serde(default)]
    delay_ms: u64,
    usage: Option<SaidUsage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidCall {
    tool: String,
    #[serde(default = "no_arguments")]
    arguments: Value,
}

fn no_arguments() -> Value {
    Value::Object(Map::new())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidUsage {
    input_tokens: u64,
    #[serde(default)]
    cached_tokens: u64,
    output_tokens: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    fault: FaultName,
    retry_after_ms: Option<u64>,
    message: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultName {
    Key,
    Unknown,
    Refused,
    Limited,
    Overloaded,
    Silent,
    Broken,
}

impl FaultName {
    fn fault(self) -> Fault {
        match self {
            Self::Key => Fault::Key,
            Self::Unknown => Fault::Unknown,
            Self::Refused => Fault::Refused,
            Self::Limited => Fault::Limited,
            Self::Overloaded => Fault::Overloaded,
            Self::Silent => Fault::Silent,
            Self::Broken => Fault::Broken,
        }
    }
}

fn unusable(text: String) -> ModelError {
    ModelError {
        code: "model.script",
        ..ModelError::new(Fault::Refused, text)
    }
}

impl Script {
    /// Reads a transcript from a file.
    ///
    /// # Errors
    /// `model.script`, when it cannot be read, is too large or is not of the form above.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let shown = path.display();
        let fault = |fault: std::io::Error| unusable(format!("the transcript {shown}: {fault}"));
        if std::fs::metadata(path).map_err(fault)?.len() > SCRIPT_BYTES_MAX {
            let text = format!("the transcript {shown} is larger than {SCRIPT_BYTES_MAX} bytes");
            return Err(unusable(text));
        }
        let text = std::fs::read_to_string(path).map_err(fault)?;
        let script = Self::parse(&text);
        script.map_err(|error| unusable(format!("the transcript {shown}: {}", error.message)))
    }

    /// Reads a transcript.
    ///
    /// # Errors
    /// `model.script`, when it is not of the form above; the message says where.
    ///
    /// ```
    /// use agent::model::scripted::Script;
    ///
    /// Script::parse(r#"{"rules": [{"answer": {"text": "Yes."}}]}"#)?;
    /// let error = Script::parse(r#"{"rules": [{"whem": {}}]}"#).unwrap_err();
    /// assert!(error.message.contains("unknown field `whem`"));
    /// # Ok::<(), agent::model::ModelError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let document: Document =
            serde_json::from_str(text).map_err(|fault| unusable(fault.to_string()))?;
        if document.rules.len() > RULES_MAX {
            return Err(unusable(format!("more than {RULES_MAX} rules")));
        }
        for (n, rule) in document.rules.iter().enumerate() {
            rule.check()
                .map_err(|fault| unusable(format!("rule {}: {fault}", n + 1)))?;
        }
        let rules = document.rules.into_iter();
        Ok(Self {
            rules: rules.map(|rule| (rule, AtomicU32::new(0))).collect(),
        })
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.times == Some(0) {
            return Err("`times` is 0: it would never answer".into());
        }
        if self.when.turn == Some(0) {
            return Err("`turn` is 0: turns are counted from 1".into());
        }
        let waits = [
            self.answer.as_ref().map(|answer| answer.delay_ms),
            self.error.as_ref().and_then(|error| error.retry_after_ms),
        ];
        if waits.into_iter().flatten().any(|ms| ms > DELAY_MS_MAX) {
            return Err(format!("a time is longer than {DELAY_MS_MAX} ms"));
        }
        match (&self.answer, &self.error) {
            (Some(_), Some(_)) => Err("it has an `answer` and an `error`: leave one out".into()),
            (None, None) => Err("it has neither `answer` nor `error`".into()),
            (None, Some(_)) => Ok(()),
            (Some(answer), None) => answer.check(),
        }
    }

    /// Whether it answers this, and has not as often as it may. Says so only once for each time.
    fn takes(&self, ask: &Ask, used: &AtomicU32) -> bool {
        let more = |n: u32| self.times.is_none_or(|times| n < times).then(|| n + 1);
        self.when.holds(ask)
            && (self.times.is_none()
                || used
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                    .is_ok())
    }
}

impl Said {
    fn check(&self) -> Result<(), String> {
        if self.calls.len() > CALLS_MAX {
            return Err(format!("it has more than {CALLS_MAX} calls"));
        }
        if self.calls.iter().any(|call| call.tool.is_empty()) {
            return Err("a call names no tool".into());
        }
        if self.fill.len() > FILLS_MAX {
            return Err(format!("it fills in more than {FILLS_MAX} words"));
        }
        if self.fill.keys().any(String::is_empty) {
            return Err("`fill` has a word without a letter".into());
        }
        let calls = self.calls.iter();
        let bytes: usize = calls.map(|call| call.arguments.to_string().len()).sum();
        if self.text.len() + bytes > ANSWER_BYTES_MAX {
            return Err(format!(
                "its answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    fn answer(&self, ask: &Ask) -> Result<Answer, ModelError> {
        let known = self.known(ask)?;
        let text = filled(&self.text, &known);
        let calls = self.calls.iter().enumerate().map(|(n, call)| {
            let mut arguments = call.arguments.clone();
            fill(&mut arguments, &known);
            Call {
                id: format!("call_{}_{n}", ask.turns.len()),
                tool: call.tool.clone(),
                arguments,
            }
        });
        let calls: Vec<Call> = calls.collect();
        let usage = match &self.usage {
            Some(usage) => Usage {
                input_tokens: usage.input_tokens,
                cached_tokens: usage.cached_tokens,
                output_tokens: usage.output_tokens,
            },
            None => Usage {
                input_tokens: tokens(
                    ask.system.len() + ask.turns.iter().map(turn_bytes).sum::<usize>(),
                ),
                cached_tokens: 0,
                output_tokens: tokens(text.len() + calls.iter().map(call_bytes).sum::<usize>()),
            },
        };
        Ok(Answer {
            text,
            stop: if calls.is_empty() {
                Stop::Done
            } else {
                Stop::Calls
            },
            calls,
            usage,
        })
    }

    /// What stands for each word of `fill`, by what tools said so far.
    fn known(&self, ask: &Ask) -> Result<Vec<(&str, String)>, ModelError> {
        let results = ask.turns.iter().rev().filter_map(|turn| match turn {
            Turn::Tools { results } => Some(results.iter().rev()),
            _ => None,
        });
        let results = || {
            let texts = results.clone().flatten();
            texts.filter_map(|result| serde_json::from_str::<Value>(&result.text).ok())
        };
        let mut known = Vec::new();
        for (word, pointer) in &self.fill {
            let found = results().find_map(|result| match result.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                value => Some(value.to_string()),
            });
            let missing = || unusable(format!("no tool has said what is at `{pointer}`"));
            known.push((word.as_str(), found.ok_or_else(missing)?));
        }
        // A word that begins with another is filled in first.
        known.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Ok(known)
    }
}

/// A text with what is known in place of its words. What was filled in is not looked at again.
fn filled(text: &str, known: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        match known.iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, value)) => {
                filled.push_str(value);
                rest = &rest[word.len()..];
            }
            None => {
                filled.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    filled
}

/// The same for all text of a value.
fn fill(value: &mut Value, known: &[(&str, String)]) {
    match value {
        Value::String(text) => *text = filled(text, known),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, known)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, known)),
        _ => {}
    }
}

fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

fn call_bytes(call: &Call) -> usize {
    call.tool.len() + call.arguments.to_string().len()
}

fn turn_bytes(turn: &Turn) -> usize {
    match turn {
        Turn::User { text } => text.len(),
        Turn::Model { text, calls } => text.len() + calls.iter().map(call_bytes).sum::<usize>(),
        Turn::Tools { results } => results.iter().map(|result| result.text.len()).sum(),
    }
}

impl When {
    fn holds(&self, ask: &Ask) -> bool {
        let holds = |wanted: &Option<String>, test: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(test)
        };
        let answers = ask.turns.iter();
        let answers = answers
            .filter(|turn| matches!(turn, Turn::Model { .. }))
            .count();
        let results = match ask.turns.last() {
            Some(Turn::Tools { results }) => results.as_slice(),
            _ => &[],
        };
        self.turn.is_none_or(|turn| turn == answers + 1)
            && holds(&self.model, &|model| model == ask.model)
            && holds(&self.system_contains, &|text| ask.system.contains(text))
            && holds(&self.last_contains, &|text| last_text(ask).contains(text))
            && holds(&self.tool_result_contains, &|text| {
                results.iter().any(|result| result.text.contains(text))
            })
    }
}

/// What the last turn says.
fn last_text(ask: &Ask) -> String {
    match ask.turns.last() {
        Some(Turn::User { text } | Turn::Model { text, .. }) => text.clone(),
        Some(Turn::Tools { results }) => {
            let texts = results.iter().map(|result| result.text.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        None => String::new(),
    }
}

#[async_trait]
impl Model for Script {
    async fn ask(&self, ask: &Ask, listener: &mut Listener<'_>) -> Result<Answer, ModelError> {
        let Some((rule, _)) = self.rules.iter().find(|(rule, used)| rule.takes(ask, used)) else {
            let answers = ask
                .turns
                .iter()
                .filter(|turn| matches!(turn, Turn::Model { .. }));
            let (turn, last) = (answers.count() + 1, cut(&last_text(ask), SHOWN_MAX));
            let text = format!("no rule of the transcript answers turn {turn}, which is: {last}");
            return Err(unusable(text));
        };
        if let Some(error) = &rule.error {
            let message = error.message.as_deref().unwrap_or("the transcript says so");
            return Err(ModelError {
                retry_after: error.retry_after_ms.map(Duration::from_millis),
                ..ModelError::new(error.fault.fault(), message)
            });
        }
        // A rule has one of both: that was checked when it was read.
        let Some(said) = &rule.answer else {
            return Err(unusable("a rule has neither `answer` nor `error`".into()));
        };
        if said.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(said.delay_ms)).await;
        }
        let answer = said.answer(ask)?;
        for piece in answer.text.split_inclusive(' ') {
            listener(Delta::Text(piece));
        }
        for call in &answer.calls {
            listener(Delta::Call(&call.tool));
        }
        Ok(answer)
    }
}
