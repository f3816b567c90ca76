//! `text.keywords`: the phrases a text is about.
//!
//! RAKE (Rose and others, 2010): stop words and punctuation cut the text into
//! candidate phrases; a word scores its degree (how many words it appears
//! beside, itself included) over its frequency; a phrase scores the sum of
//! its words. Phrases longer than [`PHRASE_WORDS_MAX`] are passed over: they
//! are sentences that happened to lack a stop word.
//!
//! The stop words are English. For other languages short words are the only
//! ones left out, so expect function words among the results.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use super::{
    Aggregate, ItemResult, Skill, SkillError, bounded, counted, listed, options, ranked, text_of,
};
use crate::input::Item;
use crate::text;

/// Keywords per item unless option `limit` says otherwise.
pub const LIMIT_DEFAULT: usize = 10;
/// Largest value of option `limit`.
pub const LIMIT_MAX: usize = 100;
/// Most words in one phrase.
pub const PHRASE_WORDS_MAX: usize = 3;

const WORD_CHARS_MIN: usize = 3;

/// `text.keywords`.
pub(super) struct Keywords;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Keywords to keep, `1..=LIMIT_MAX`.
    limit: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limit: LIMIT_DEFAULT,
        }
    }
}

impl Keywords {
    fn limit(&self, given: &Value) -> Result<usize, SkillError> {
        let options: Options = options(self.name(), given)?;
        bounded(self.name(), "limit", options.limit, LIMIT_MAX)
    }
}

#[async_trait]
impl Skill for Keywords {
    fn name(&self) -> &'static str {
        "text.keywords"
    }

    fn summary(&self) -> &'static str {
        "the phrases a text is about (option `limit`; English stop words)"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        self.limit(given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        let limit = self.limit(given)?;
        Ok(json!({"keywords": keywords(&text_of(self.name(), item)?, limit)}))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let mut texts: BTreeMap<String, usize> = BTreeMap::new();
        for keyword in results
            .iter()
            .filter_map(|result| result.output["keywords"].as_array())
            .flatten()
        {
            if let Some(keyword) = keyword["keyword"].as_str() {
                *texts.entry(keyword.to_owned()).or_default() += 1;
            }
        }
        let ranked = ranked(texts);
        let mut lines = vec![format!(
            "{} in {}",
            counted(ranked.len(), "keyword"),
            counted(results.len(), "text")
        )];
        lines.extend(listed(
            ranked
                .iter()
                .map(|(keyword, texts)| format!("  {texts:>4}  {keyword}")),
        ));
        let merged = ranked
            .iter()
            .map(|(keyword, texts)| json!({"keyword": keyword, "texts": texts}));
        Aggregate {
            value: json!({"count": results.len(), "keywords": merged.collect::<Vec<_>>()}),
            text: lines.join("\n"),
        }
    }
}

/// `[{"keyword", "score", "count"}]`, best first, ties in order of appearance.
pub(super) fn keywords(content: &str, limit: usize) -> Vec<Value> {
    let phrases: Vec<Vec<String>> = text::sentences(content)
        .iter()
        .flat_map(|sentence| phrases(sentence))
        .collect();
    let mut frequency: HashMap<&str, usize> = HashMap::new();
    let mut degree: HashMap<&str, usize> = HashMap::new();
    for phrase in &phrases {
        for word in phrase {
            *frequency.entry(word).or_default() += 1;
            *degree.entry(word).or_default() += phrase.len();
        }
    }
    let score = |phrase: &[String]| -> f64 {
        phrase
            .iter()
            .map(|word| degree[word.as_str()] as f64 / frequency[word.as_str()] as f64)
            .sum()
    };
    let mut order: Vec<(&[String], usize)> = Vec::new();
    let mut places: HashMap<&[String], usize> = HashMap::new();
    for phrase in &phrases {
        let place = *places.entry(phrase).or_insert_with(|| {
            order.push((phrase, 0));
            order.len() - 1
        });
        order[place].1 += 1;
    }
    order.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then(b.1.cmp(&a.1)));
    order
        .iter()
        .take(limit)
        .map(|(phrase, count)| {
            json!({"keyword": phrase.join(" "), "score": text::round(score(phrase)), "count": count})
        })
        .collect()
}

/// The candidate phrases of one sentence: runs of telling words.
fn phrases(sentence: &str) -> Vec<Vec<String>> {
    let mut phrases = Vec::new();
    let mut phrase: Vec<String> = Vec::new();
    for piece in sentence.split_word_bounds().chain(["."]) {
        if piece.chars().all(char::is_whitespace) || piece == "-" {
            continue;
        }
        let word = piece.to_lowercase();
        if is_telling(&word) {
            phrase.push(word);
        } else {
            phrases.push(std::mem::take(&mut phrase));
        }
    }
    phrases.retain(|phrase| (1..=PHRASE_WORDS_MAX).contains(&phrase.len()));
    phrases
}

fn is_telling(word: &str) -> bool {
    word.chars().count() >= WORD_CHARS_MIN
        && word.chars().any(char::is_alphabetic)
        && !text::is_stop_word(word)
}
