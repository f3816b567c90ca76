//! `text.sentiment`: is it praise or complaint?
//!
//! Scores come from VADER (Hutto and Gilbert, 2014): a lexicon of English
//! words with rules for negation ("not good"), intensity ("very", capitals,
//! "!!!") and contrast ("but"). VADER is made for a sentence, so a longer
//! text is scored sentence by sentence. Its score is the mean over the
//! sentences that carry any sentiment: "I bought it in May." says nothing
//! about the opinion and would only water it down. The three proportions are
//! means over all sentences. The label follows the authors' thresholds.
//!
//! The lexicon is English. A text that is reliably in another language keeps
//! its score (names and emoji still count) but gets a `note` that says so.
//! Deliberately absent: irony, and opinions per aspect.

use std::sync::LazyLock;

use async_trait::async_trait;
use serde_json::{Value, json};
use vader_parity::SentimentIntensityAnalyzer;

use super::{
    Aggregate, ItemResult, NoOptions, Skill, SkillError, counted, language, mean, numbers, options,
    text_of,
};
use crate::input::Item;
use crate::text;

/// A score of this or more is positive; of its negative or less, negative.
pub const LABEL_SCORE_MIN: f64 = 0.05;
/// Strongest examples listed on each side of an aggregate.
pub const EXAMPLES_MAX: usize = 3;

static ANALYZER: LazyLock<SentimentIntensityAnalyzer> =
    LazyLock::new(SentimentIntensityAnalyzer::new);

/// `text.sentiment`.
pub(super) struct Sentiment;

#[async_trait]
impl Skill for Sentiment {
    fn name(&self) -> &'static str {
        "text.sentiment"
    }

    fn summary(&self) -> &'static str {
        "positive, negative or neutral, with a score from -1 to 1 (English)"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        options::<NoOptions>(self.name(), given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        Ok(score(&text_of(self.name(), item)?))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let labelled = |label| {
            results
                .iter()
                .filter(move |result| result.output["label"] == label)
        };
        let count = |label| labelled(label).count();
        let mean = mean(&numbers(results, "score"));
        let strongest = |label| {
            let mut examples: Vec<&ItemResult> = labelled(label).collect();
            examples.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
            examples.truncate(EXAMPLES_MAX);
            examples
        };
        let (praise, complaint) = (strongest("positive"), strongest("negative"));
        let noted = results
            .iter()
            .filter(|result| result.output.get("note").is_some())
            .count();

        let mut lines = vec![format!(
            "{}: {} positive, {} negative, {} neutral",
            counted(results.len(), "text"),
            count("positive"),
            count("negative"),
            count("neutral"),
        )];
        if let Some(mean) = mean {
            lines.push(format!("mean score: {mean:+.4} (from -1 to 1)"));
        }
        for (title, examples) in [
            ("strongest positive:", &praise),
            ("strongest negative:", &complaint),
        ] {
            if !examples.is_empty() {
                lines.push(title.to_owned());
                lines.extend(examples.iter().map(|example| example_line(example)));
            }
        }
        if noted > 0 {
            lines.push(format!(
                "note: {} not in English, which the lexicon cannot judge",
                counted(noted, "text")
            ));
        }
        let examples = |examples: &[&ItemResult]| {
            examples
                .iter()
                .map(|result| example(result))
                .collect::<Vec<_>>()
        };
        Aggregate {
            value: json!({
                "count": results.len(),
                "positive": count("positive"),
                "negative": count("negative"),
                "neutral": count("neutral"),
                "mean_score": mean,
                "strongest_positive": examples(&praise),
                "strongest_negative": examples(&complaint),
                "not_english": noted,
            }),
            text: lines.join("\n"),
        }
    }
}

fn strength(result: &ItemResult) -> f64 {
    result.output["score"].as_f64().unwrap_or(0.0).abs()
}

fn example(result: &ItemResult) -> Value {
    json!({
        "source": result.source,
        "task_id": result.task_id,
        "score": result.output["score"],
        "excerpt": result.output["excerpt"],
    })
}

fn example_line(result: &ItemResult) -> String {
    let score = result.output["score"].as_f64().unwrap_or(0.0);
    let excerpt = result.output["excerpt"].as_str().unwrap_or("");
    format!("  {score:+.4}  {}  “{excerpt}”", result.source)
}

/// `{"label", "score", "positive", "negative", "neutral", "sentences", "excerpt"}`
/// and perhaps `"note"`. The excerpt is the beginning of the text.
pub(super) fn score(content: &str) -> Value {
    let mut sentences = text::sentences(content);
    if sentences.is_empty() {
        // Emoji and "!!!" alone are no sentence, yet they have a sentiment.
        sentences.push(content.trim().to_owned());
    }
    let scores: Vec<_> = sentences
        .iter()
        .map(|sentence| ANALYZER.polarity_scores(sentence))
        .collect();
    let telling: Vec<f64> = scores
        .iter()
        .map(|scores| scores.compound)
        .filter(|score| *score != 0.0)
        .collect();
    let score = mean(&telling).unwrap_or(0.0);
    let proportion = |part: fn(&vader_parity::SentimentScores) -> f64| {
        mean(&scores.iter().map(part).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let mut output = json!({
        "label": label(score),
        "score": score,
        "positive": proportion(|scores| scores.pos),
        "negative": proportion(|scores| scores.neg),
        "neutral": proportion(|scores| scores.neu),
        "sentences": sentences.len(),
        "excerpt": text::excerpt(content),
    });
    if let Some(name) = language::reliably_foreign(content) {
        output["note"] = format!("the lexicon is English; this text reads as {name}").into();
    }
    output
}

fn label(score: f64) -> &'static str {
    if score >= LABEL_SCORE_MIN {
        "positive"
    } else if score <= -LABEL_SCORE_MIN {
        "negative"
    } else {
        "neutral"
    }
}
