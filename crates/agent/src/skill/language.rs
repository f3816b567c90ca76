//! `text.language`: which language a text is in.
//!
//! Detection compares letter triples with profiles of some 70 languages. It
//! needs a sentence or two: for a few words the answer is a guess, and
//! `reliable` says so. A text it cannot place at all is `und`, the standard's
//! word for undetermined, with confidence 0.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};
use whatlang::Lang;

use super::{
    Aggregate, ItemResult, NoOptions, Skill, SkillError, counted, listed, options, ranked, text_of,
};
use crate::input::Item;
use crate::text;

/// Characters below which a text is never called foreign.
const FOREIGN_CHARS_MIN: usize = 40;

/// `text.language`.
pub(super) struct Language;

#[async_trait]
impl Skill for Language {
    fn name(&self) -> &'static str {
        "text.language"
    }

    fn summary(&self) -> &'static str {
        "the language of a text, with a confidence"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        options::<NoOptions>(self.name(), given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        Ok(detect(&text_of(self.name(), item)?))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in results
            .iter()
            .filter_map(|result| result.output["name"].as_str())
        {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        let unsure = results
            .iter()
            .filter(|result| result.output["reliable"] == false)
            .count();
        let ranked = ranked(counts);
        let mut lines = vec![format!(
            "{} in {}",
            counted(results.len(), "text"),
            counted(ranked.len(), "language")
        )];
        lines.extend(listed(
            ranked
                .iter()
                .map(|(name, texts)| format!("  {texts:>4}  {name}")),
        ));
        if unsure > 0 {
            lines.push(format!(
                "{unsure} of them a guess: too little text to be sure"
            ));
        }
        let languages = ranked
            .iter()
            .map(|(name, texts)| json!({"name": name, "texts": texts}));
        Aggregate {
            value: json!({
                "count": results.len(),
                "languages": languages.collect::<Vec<_>>(),
                "unreliable": unsure,
            }),
            text: lines.join("\n"),
        }
    }
}

/// `{"code", "name", "confidence", "reliable"}`; `code` is ISO 639-1 where the
/// language has one, else ISO 639-3; `confidence` runs from 0 to 1.
pub(super) fn detect(content: &str) -> Value {
    match whatlang::detect(content) {
        None => {
            json!({"code": "und", "name": "undetermined", "confidence": 0.0, "reliable": false})
        }
        Some(info) => json!({
            "code": code(info.lang()),
            "name": info.lang().eng_name(),
            "confidence": text::round(info.confidence()),
            "reliable": info.is_reliable(),
        }),
    }
}

/// The name of the language if the text is certainly long enough to tell and
/// certainly not English.
pub(super) fn reliably_foreign(content: &str) -> Option<&'static str> {
    let info = whatlang::detect(content)?;
    let long = content.chars().nth(FOREIGN_CHARS_MIN).is_some();
    (long && info.is_reliable() && info.lang() != Lang::Eng).then(|| info.lang().eng_name())
}

/// ISO 639-1 has two letters for every language known here; should the
/// detector learn one it lacks, the three letters of ISO 639-3 stand in.
fn code(language: Lang) -> &'static str {
    let three = language.code();
    CODES
        .iter()
        .find(|(code, _)| *code == three)
        .map_or(three, |(_, two)| two)
}

#[rustfmt::skip]
const CODES: &[(&str, &str)] = &[
    ("epo", "eo"), ("eng", "en"), ("rus", "ru"), ("cmn", "zh"), ("spa", "es"), ("por", "pt"), ("ita", "it"),
    ("ben", "bn"), ("fra", "fr"), ("deu", "de"), ("ukr", "uk"), ("kat", "ka"), ("ara", "ar"), ("hin", "hi"),
    ("jpn", "ja"), ("heb", "he"), ("yid", "yi"), ("pol", "pl"), ("amh", "am"), ("jav", "jv"), ("kor", "ko"),
    ("nob", "nb"), ("dan", "da"), ("swe", "sv"), ("fin", "fi"), ("tur", "tr"), ("nld", "nl"), ("hun", "hu"),
    ("ces", "cs"), ("ell", "el"), ("bul", "bg"), ("bel", "be"), ("mar", "mr"), ("kan", "kn"), ("ron", "ro"),
    ("slv", "sl"), ("hrv", "hr"), ("srp", "sr"), ("mkd", "mk"), ("lit", "lt"), ("lav", "lv"), ("est", "et"),
    ("tam", "ta"), ("vie", "vi"), ("urd", "ur"), ("tha", "th"), ("guj", "gu"), ("uzb", "uz"), ("pan", "pa"),
    ("aze", "az"), ("ind", "id"), ("tel", "te"), ("pes", "fa"), ("mal", "ml"), ("ori", "or"), ("mya", "my"),
    ("nep", "ne"), ("sin", "si"), ("khm", "km"), ("tuk", "tk"), ("aka", "ak"), ("zul", "zu"), ("sna", "sn"),
    ("afr", "af"), ("lat", "la"), ("slk", "sk"), ("cat", "ca"), ("tgl", "tl"), ("hye", "hy"), ("cym", "cy"),
];
