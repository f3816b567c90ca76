//! `text.summary`: the sentences that say most, word for word.
//!
//! A sentence scores by how often its words occur in the whole text (stop
//! words aside), averaged so long sentences have no head start; the first
//! sentence of a text gets a bonus, because writers lead with the point. The
//! best are given in their original order. Nothing is rephrased: every word
//! of a summary stands in the source.
//!
//! The stop words are English; other languages still work, less sharply.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Aggregate, ItemResult, Skill, SkillError, bounded, counted, listed, options, text_of};
use crate::input::Item;
use crate::text;

/// Sentences in a summary unless option `sentences` says otherwise.
pub const SENTENCES_DEFAULT: usize = 3;
/// Largest value of option `sentences`.
pub const SENTENCES_MAX: usize = 50;

const FIRST_SENTENCE_BONUS: f64 = 1.5;

/// `text.summary`.
pub(super) struct Summary;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Sentences to keep, `1..=SENTENCES_MAX`.
    sentences: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sentences: SENTENCES_DEFAULT,
        }
    }
}

impl Summary {
    fn sentences(&self, given: &Value) -> Result<usize, SkillError> {
        let options: Options = options(self.name(), given)?;
        bounded(self.name(), "sentences", options.sentences, SENTENCES_MAX)
    }
}

#[async_trait]
impl Skill for Summary {
    fn name(&self) -> &'static str {
        "text.summary"
    }

    fn summary(&self) -> &'static str {
        "the sentences that say most, word for word (option `sentences`)"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        self.sentences(given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        let kept = self.sentences(given)?;
        Ok(summarize(&text_of(self.name(), item)?, kept))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let summary =
            |result: &ItemResult| result.output["summary"].as_str().unwrap_or("").to_owned();
        let summaries = results
            .iter()
            .map(|result| json!({"source": result.source, "summary": summary(result)}));
        let mut lines = vec![format!("{} summarized", counted(results.len(), "text"))];
        lines.extend(listed(
            results
                .iter()
                .map(|result| format!("  {}: {}", result.source, summary(result))),
        ));
        Aggregate {
            value: json!({"count": results.len(), "summaries": summaries.collect::<Vec<_>>()}),
            text: lines.join("\n"),
        }
    }
}

/// `{"summary", "sentences": [{"index", "score", "text"}], "sentences_total"}`;
/// `index` counts the sentences of the text from 0.
pub(super) fn summarize(content: &str, kept_max: usize) -> Value {
    let sentences = text::sentences(content);
    let total = sentences.len();
    let terms: Vec<Vec<String>> = sentences.iter().map(|sentence| terms(sentence)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for term in terms.iter().flatten() {
        *counts.entry(term).or_default() += 1;
    }
    let score = |index: usize| {
        let unique: HashSet<&str> = terms[index].iter().map(String::as_str).collect();
        let sum: usize = unique.iter().map(|term| counts[term]).sum();
        let mean = if unique.is_empty() {
            0.0
        } else {
            sum as f64 / unique.len() as f64
        };
        text::round(if index == 0 {
            mean * FIRST_SENTENCE_BONUS
        } else {
            mean
        })
    };
    let mut ranked: Vec<(usize, f64, String)> = sentences
        .into_iter()
        .enumerate()
        .map(|(index, sentence)| (index, score(index), sentence))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(kept_max);
    ranked.sort_by_key(|(index, ..)| *index);
    let summary: Vec<&str> = ranked
        .iter()
        .map(|(.., sentence)| sentence.as_str())
        .collect();
    json!({
        "summary": summary.join(" "),
        "sentences": ranked.iter().map(|(index, score, sentence)| json!({
            "index": index, "score": score, "text": sentence,
        })).collect::<Vec<_>>(),
        "sentences_total": total,
    })
}

fn terms(sentence: &str) -> Vec<String> {
    text::words(sentence)
        .map(str::to_lowercase)
        .filter(|word| !text::is_stop_word(word))
        .collect()
}
