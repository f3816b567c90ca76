//! `text.stats`: how much text there is.
//!
//! Counts follow Unicode: a character is what a reader sees as one (an emoji
//! with a skin tone counts once), words and sentences as Unicode cuts
//! them. Markdown marks are counted like any other characters.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Aggregate, ItemResult, NoOptions, Skill, SkillError, counted, mean, numbers, options, text_of,
};
use crate::input::Item;
use crate::text;

/// Reading speed behind `reading_seconds`, in words per minute.
pub const READING_WORDS_PER_MINUTE: usize = 200;

/// `text.stats`.
pub(super) struct Stats;

#[async_trait]
impl Skill for Stats {
    fn name(&self) -> &'static str {
        "text.stats"
    }

    fn summary(&self) -> &'static str {
        "characters, words, sentences, lines, paragraphs and reading time"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        options::<NoOptions>(self.name(), given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        Ok(stats(&text_of(self.name(), item)?))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let total = |field| numbers(results, field).iter().sum::<f64>() as u64;
        let words = numbers(results, "words");
        let by_words = |result: &&ItemResult| result.output["words"].as_u64().unwrap_or(0);
        let extreme = |result: Option<&ItemResult>| {
            result.map(|result| json!({"source": result.source, "words": result.output["words"]}))
        };
        let longest = results.iter().rev().max_by_key(by_words);
        let shortest = results.iter().min_by_key(by_words);
        let mut lines = vec![
            format!(
                "{}: {} words, {} sentences, {} characters",
                counted(results.len(), "text"),
                total("words"),
                total("sentences"),
                total("characters"),
            ),
            format!("reading time: {}", minutes(total("reading_seconds"))),
        ];
        if let Some(mean) = mean(&words) {
            lines.push(format!("mean length: {mean:.1} words"));
        }
        if let (Some(longest), Some(shortest)) = (longest, shortest) {
            lines.push(format!(
                "longest:  {} ({} words)",
                longest.source,
                by_words(&longest)
            ));
            lines.push(format!(
                "shortest: {} ({} words)",
                shortest.source,
                by_words(&shortest)
            ));
        }
        Aggregate {
            value: json!({
                "count": results.len(),
                "characters": total("characters"),
                "words": total("words"),
                "sentences": total("sentences"),
                "lines": total("lines"),
                "paragraphs": total("paragraphs"),
                "reading_seconds": total("reading_seconds"),
                "mean_words": mean(&words),
                "longest": extreme(longest),
                "shortest": extreme(shortest),
            }),
            text: lines.join("\n"),
        }
    }
}

fn stats(content: &str) -> Value {
    let words: Vec<&str> = text::words(content).collect();
    let sentences = text::sentences(content).len();
    let word_characters: usize = words.iter().map(|word| text::characters(word)).sum();
    let per = |sum: usize, count: usize| {
        if count == 0 {
            0.0
        } else {
            text::round(sum as f64 / count as f64)
        }
    };
    json!({
        "characters": text::characters(content),
        "words": words.len(),
        "sentences": sentences,
        "lines": content.lines().count(),
        "paragraphs": text::paragraphs(content).len(),
        "reading_seconds": (words.len() * 60).div_ceil(READING_WORDS_PER_MINUTE),
        "mean_word_characters": per(word_characters, words.len()),
        "mean_sentence_words": per(words.len(), sentences),
    })
}

fn minutes(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}
