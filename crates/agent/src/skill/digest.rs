//! `text.digest`: a first look at any text.
//!
//! For a goal that names documents but no analysis ("Process 5 support
//! tickets"), the most useful honest answer is a little of everything a reader
//! asks first: what language, how long, what about, in what mood, and the one
//! sentence that says most. Each part is exactly what the skill of that name
//! gives; this module adds nothing of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Aggregate, ItemResult, NoOptions, Skill, SkillError, counted, keywords, language, listed,
    options, ranked, sentiment, summary, text_of,
};
use crate::input::Item;
use crate::text;

/// Keywords in a digest.
pub const DIGEST_KEYWORDS_MAX: usize = 5;

/// `text.digest`.
pub(super) struct Digest;

#[async_trait]
impl Skill for Digest {
    fn name(&self) -> &'static str {
        "text.digest"
    }

    fn summary(&self) -> &'static str {
        "a first look: language, length, keywords, sentiment and the most telling sentence"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        options::<NoOptions>(self.name(), given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        Ok(digest(&text_of(self.name(), item)?))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let tally = |path: fn(&Value) -> &Value| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for name in results
                .iter()
                .filter_map(|result| path(&result.output).as_str())
            {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
            ranked(counts)
        };
        let languages = tally(|output| &output["language"]["name"]);
        let moods = tally(|output| &output["sentiment"]["label"]);
        let mut texts: BTreeMap<String, usize> = BTreeMap::new();
        for keyword in results
            .iter()
            .filter_map(|result| result.output["keywords"].as_array())
            .flatten()
        {
            *texts
                .entry(keyword.as_str().unwrap_or("").to_owned())
                .or_default() += 1;
        }
        let keywords = ranked(texts);
        let words: u64 = results
            .iter()
            .filter_map(|result| result.output["words"].as_u64())
            .sum();

        let named = |ranked: &[(String, usize)]| {
            let parts: Vec<String> = ranked
                .iter()
                .map(|(name, count)| format!("{count} {name}"))
                .collect();
            parts.join(", ")
        };
        let mut lines = vec![
            format!("{}, {words} words", counted(results.len(), "text")),
            format!("languages: {}", named(&languages)),
            format!("sentiment: {}", named(&moods)),
        ];
        lines.extend(listed(results.iter().map(digest_line)));
        let rows = |ranked: &[(String, usize)], name: &str| -> Value {
            ranked
                .iter()
                .map(|(text, count)| json!({name: text, "texts": count}))
                .collect()
        };
        Aggregate {
            value: json!({
                "count": results.len(),
                "words": words,
                "languages": rows(&languages, "name"),
                "sentiment": rows(&moods, "label"),
                "keywords": rows(&keywords, "keyword"),
            }),
            text: lines.join("\n"),
        }
    }
}

fn digest_line(result: &ItemResult) -> String {
    let output = &result.output;
    let mood = output["sentiment"]["label"]
        .as_str()
        .unwrap_or("no sentiment");
    format!(
        "  {} ({mood}): {}",
        result.source,
        output["summary"].as_str().unwrap_or("")
    )
}

/// `{"language", "words", "sentiment", "keywords", "summary"}`; `sentiment` is
/// null for a text that is reliably not English, which the lexicon cannot judge.
fn digest(content: &str) -> Value {
    let sentiment = match language::reliably_foreign(content) {
        Some(_) => Value::Null,
        None => {
            let scored = sentiment::score(content);
            json!({"label": scored["label"], "score": scored["score"]})
        }
    };
    let keywords = keywords::keywords(content, DIGEST_KEYWORDS_MAX);
    json!({
        "language": language::detect(content),
        "words": text::words(content).count(),
        "sentiment": sentiment,
        "keywords": keywords.iter().map(|keyword| &keyword["keyword"]).collect::<Vec<_>>(),
        "summary": summary::summarize(content, 1)["summary"],
    })
}
