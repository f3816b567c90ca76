//! Workers without a model: one item in, one real result out, offline.
//!
//! A skill is a pure reading of one item (`http.fetch` alone asks the world).
//! It keeps nothing between calls, so any number may run at once and any may
//! run again after a crash. What belongs to a whole run, the counts and the
//! strongest examples, is folded from the finished results by
//! [`Skill::aggregate`].
//!
//! Deliberately absent: retries, time limits and storage (the engine's), and
//! a registry that grows at run time: a person's own work is a program
//! ([`crate::command`]), not a plugin.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{Item, Source};
use domain::error::Error;

pub mod digest;
pub mod extract;
pub mod fetch;
pub mod keywords;
pub mod language;
pub mod sentiment;
pub mod shape;
pub mod stats;
pub mod summary;

/// Lines of one list in a readable aggregate; the value keeps all of them.
const LISTED_MAX: usize = 20;

/// Why one item has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkillError {
    /// Stable code, such as `option.invalid`.
    pub code: &'static str,
    /// What happened, for a person.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Could the same call succeed later?
    pub retryable: bool,
}

impl SkillError {
    /// An error that the same call will meet again.
    pub(crate) fn fatal(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> SkillError {
        SkillError {
            code,
            message: message.into(),
            hint: hint.into(),
            retryable: false,
        }
    }

    /// An error that may be gone next time.
    pub(crate) fn retryable(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> SkillError {
        SkillError {
            retryable: true,
            ..SkillError::fatal(code, message, hint)
        }
    }
}

impl fmt::Display for SkillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SkillError {}

impl From<Error> for SkillError {
    /// For the one thing a skill takes from the core: expressions.
    fn from(error: Error) -> SkillError {
        let hint = "Expressions are CEL over `item` and its fields, such as `item.stars >= 4`; test an optional field with `has(item.name)`.";
        let code = error.code;
        SkillError {
            code: code.as_str(),
            message: error.message,
            hint: hint.to_owned(),
            retryable: code.retryable(),
        }
    }
}

/// One built-in way to work on an item.
#[async_trait]
pub trait Skill: Send + Sync {
    /// The name people and plans use, such as `text.sentiment`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn summary(&self) -> &'static str;

    /// Would [`Skill::run`] accept these options? `null` stands for none.
    ///
    /// # Errors
    ///
    /// `option.invalid`, `expression.invalid` or `limit.exceeded` for an expression.
    fn check(&self, options: &Value) -> Result<(), SkillError>;

    /// Works on one item. Text skills compute without pause, up to a few
    /// seconds for the largest item: call them where blocking is allowed.
    ///
    /// # Errors
    ///
    /// `item.no_text` or `item.no_record` when the item is of the wrong kind,
    /// what [`Skill::check`] refuses, and each skill's own codes.
    async fn run(&self, item: &Item, options: &Value) -> Result<Value, SkillError>;

    /// Folds the results of a run into one. Results that lack what the skill
    /// writes are counted and otherwise passed over.
    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let list = results
            .iter()
            .map(|result| json!({"source": result.source, "output": result.output}));
        Aggregate {
            value: json!({"count": results.len(), "results": list.collect::<Vec<_>>()}),
            text: counted(results.len(), "result"),
        }
    }
}

impl fmt::Debug for dyn Skill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One finished item, with what the aggregate needs to name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemResult {
    /// Where the item came from.
    pub source: Source,
    /// The task that did it.
    pub task_id: String,
    /// The worker that ran the task.
    pub worker: String,
    /// What [`Skill::run`] gave.
    pub output: Value,
}

/// The results of a whole run as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// For programs.
    pub value: Value,
    /// For a terminal: plain lines, no colours, no trailing newline.
    pub text: String,
}

static ALL: [&dyn Skill; 10] = [
    &digest::Digest,
    &stats::Stats,
    &summary::Summary,
    &sentiment::Sentiment,
    &keywords::Keywords,
    &language::Language,
    &extract::Extract,
    &shape::JSON,
    &shape::CSV,
    &fetch::Fetch,
];

/// Every built-in skill.
#[must_use]
pub fn all() -> &'static [&'static dyn Skill] {
    &ALL
}

/// The skill of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Skill> {
    ALL.into_iter().find(|skill| skill.name() == name)
}

/// The skills as lines of `name  summary`, for hints and help.
#[must_use]
pub fn list() -> String {
    let lines = ALL
        .iter()
        .map(|skill| format!("  {:<15} {}", skill.name(), skill.summary()));
    lines.collect::<Vec<_>>().join("\n")
}

/// For options of a skill that takes none.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// Options as the skill's own type; `null` gives its defaults.
fn options<T: DeserializeOwned + Default>(skill: &str, options: &Value) -> Result<T, SkillError> {
    if options.is_null() {
        return Ok(T::default());
    }
    T::deserialize(options).map_err(|error| {
        SkillError::fatal(
            "option.invalid",
            format!("{skill} cannot use these options: {error}"),
            "Correct or remove the option.",
        )
    })
}

/// `value` if it lies within `1..=max`.
fn bounded(skill: &str, option: &str, value: usize, max: usize) -> Result<usize, SkillError> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    Err(SkillError::fatal(
        "option.invalid",
        format!("{skill}: option `{option}` is {value}; it must lie between 1 and {max}"),
        "Correct or remove the option.",
    ))
}

/// The item's text, which must not be blank.
fn text_of(skill: &str, item: &Item) -> Result<String, SkillError> {
    let text = item.text();
    if text.chars().any(|c| !c.is_whitespace()) {
        return Ok(text);
    }
    Err(SkillError::fatal(
        "item.no_text",
        format!("{} has no text for {skill} to read", item.source),
        "Give the record a string field (such as `text`), or use json.shape for records without text.",
    ))
}

/// `3 results`, `1 result`.
fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A field of every result that has it as a number.
fn numbers(results: &[ItemResult], field: &str) -> Vec<f64> {
    results
        .iter()
        .filter_map(|result| result.output.get(field)?.as_f64())
        .collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some(crate::text::round(
        values.iter().sum::<f64>() / values.len() as f64,
    ))
}

/// Names by falling count, then by name.
fn ranked(counts: BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked
}

/// At most [`LISTED_MAX`] lines, and how many more there are.
fn listed(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let total = lines.len();
    let mut shown: Vec<String> = lines.take(LISTED_MAX).collect();
    if total > shown.len() {
        shown.push(format!("  … and {} more", total - shown.len()));
    }
    shown
}
