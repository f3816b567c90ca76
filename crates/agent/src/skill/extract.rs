//! `text.extract`: links, mail addresses, dates and amounts of money.
//!
//! Patterns find candidates and rules throw out what cannot be one (the 30th
//! of February). What a text leaves open stays open: `03/04/2026` is a date
//! with `date: null`, because half the world reads it as April and half as
//! March. Each find is given once, in order of appearance.
//!
//! Deliberately absent: relative dates ("next Tuesday"), names and places.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use async_trait::async_trait;
use regex::{Captures, Regex};
use serde_json::{Value, json};

use super::{
    Aggregate, ItemResult, NoOptions, Skill, SkillError, counted, listed, options, ranked, text_of,
};
use crate::input::Item;
use crate::text;

/// Most finds of one kind in one item; `truncated` tells when there were more.
pub const FINDS_MAX: usize = 1_000;

const KINDS: [&str; 4] = ["links", "mails", "dates", "amounts"];

/// `text.extract`.
pub(super) struct Extract;

#[async_trait]
impl Skill for Extract {
    fn name(&self) -> &'static str {
        "text.extract"
    }

    fn summary(&self) -> &'static str {
        "links, mail addresses, dates and amounts of money"
    }

    fn check(&self, given: &Value) -> Result<(), SkillError> {
        options::<NoOptions>(self.name(), given).map(drop)
    }

    async fn run(&self, item: &Item, given: &Value) -> Result<Value, SkillError> {
        self.check(given)?;
        Ok(extract(&text_of(self.name(), item)?))
    }

    fn aggregate(&self, results: &[ItemResult]) -> Aggregate {
        let mut value = json!({"count": results.len()});
        let mut lines = vec![counted(results.len(), "text")];
        for kind in KINDS {
            let mut texts: BTreeMap<String, usize> = BTreeMap::new();
            for find in results
                .iter()
                .filter_map(|result| result.output[kind].as_array())
                .flatten()
            {
                let text = find
                    .as_str()
                    .or_else(|| find["text"].as_str())
                    .unwrap_or("");
                *texts.entry(text.to_owned()).or_default() += 1;
            }
            let total: usize = texts.values().sum();
            let unique = ranked(texts);
            lines.push(format!("{kind}: {total} found, {} different", unique.len()));
            lines.extend(listed(
                unique
                    .iter()
                    .map(|(text, texts)| format!("  {texts:>4}  {text}")),
            ));
            let finds = unique
                .iter()
                .map(|(text, texts)| json!({"text": text, "texts": texts}));
            value[kind] = json!({"total": total, "unique": finds.collect::<Vec<_>>()});
        }
        Aggregate {
            value,
            text: lines.join("\n"),
        }
    }
}

/// `{"links": [..], "mails": [..], "dates": [{"text", "date"}],
/// "amounts": [{"text", "currency", "value"}], "truncated"}`.
fn extract(content: &str) -> Value {
    let mut truncated = false;
    let mut kept = |finds: Vec<(String, Value)>| -> Vec<Value> {
        let mut seen = HashSet::new();
        let mut unique: Vec<Value> = finds
            .into_iter()
            .filter(|(text, _)| seen.insert(text.clone()))
            .map(|(_, find)| find)
            .collect();
        truncated |= unique.len() > FINDS_MAX;
        unique.truncate(FINDS_MAX);
        unique
    };
    let links = links(content)
        .into_iter()
        .map(|link| (link.clone(), link.into()))
        .collect();
    let mails = MAIL
        .find_iter(content)
        .map(|mail| (mail.as_str().to_owned(), mail.as_str().into()))
        .collect();
    json!({
        "links": kept(links),
        "mails": kept(mails),
        "dates": kept(dates(content)),
        "amounts": kept(amounts(content)),
        "truncated": truncated,
    })
}

static LINK: LazyLock<Regex> =
    LazyLock::new(|| text::pattern(r#"(?i)\b(?:https?://|www\.)[^\s<>"'`|\\^{}]+"#));
static MAIL: LazyLock<Regex> = LazyLock::new(|| {
    text::pattern(r"(?i)\b[a-z0-9][a-z0-9._%+-]*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}\b")
});

/// Links without the punctuation of the sentence around them.
pub(crate) fn links(content: &str) -> Vec<String> {
    LINK.find_iter(content)
        .map(|found| trim_link(found.as_str()).to_owned())
        .collect()
}

/// Cuts trailing punctuation, and closing brackets that were not opened inside.
fn trim_link(mut link: &str) -> &str {
    let count = |mark: char| link.chars().filter(|c| *c == mark).count();
    let (round, square) = (count('('), count('['));
    let (mut round_closed, mut square_closed) = (count(')'), count(']'));
    while let Some(last) = link.chars().next_back() {
        match last {
            '.' | ',' | ';' | ':' | '!' | '?' | '*' | '_' | '…' | '”' | '’' | '»' => {}
            ')' if round_closed > round => round_closed -= 1,
            ']' if square_closed > square => square_closed -= 1,
            _ => break,
        }
        link = &link[..link.len() - last.len_utf8()];
    }
    link
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

static DATE: LazyLock<Regex> = LazyLock::new(|| {
    let month = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?";
    text::pattern(&format!(
        r"(?ix)\b(?:
            (?P<iso_y>\d{{4}})-(?P<iso_m>\d{{2}})-(?P<iso_d>\d{{2}})
          | (?P<dot_d>\d{{1,2}})\.(?P<dot_m>\d{{1,2}})\.(?P<dot_y>\d{{4}})
          | (?P<slash_a>\d{{1,2}})/(?P<slash_b>\d{{1,2}})/(?P<slash_y>\d{{4}})
          | (?P<dmy_d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<dmy_m>{month}),?\s+(?P<dmy_y>\d{{4}})
          | (?P<mdy_m>{month})\s+(?P<mdy_d>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<mdy_y>\d{{4}})
        )\b"
    ))
});

fn dates(content: &str) -> Vec<(String, Value)> {
    let dated = |found: Captures<'_>| {
        let text = found[0].to_owned();
        let date = date(&found)?;
        Some((text.clone(), json!({"text": text, "date": date})))
    };
    DATE.captures_iter(content).filter_map(dated).collect()
}

/// `None`: not a date. `Some(None)`: a date, but day and month are open.
fn date(found: &Captures<'_>) -> Option<Option<String>> {
    let number = |name: &str| {
        found
            .name(name)
            .and_then(|part| part.as_str().parse::<u32>().ok())
    };
    let month = |name: &str| {
        let word = found.name(name)?.as_str().to_lowercase();
        Some(MONTHS.iter().position(|month| word.starts_with(month))? as u32 + 1)
    };
    if let (Some(a), Some(b), Some(year)) =
        (number("slash_a"), number("slash_b"), number("slash_y"))
    {
        return match (calendar(year, a, b), calendar(year, b, a)) {
            (Some(month_first), Some(day_first)) if month_first != day_first => Some(None),
            (Some(date), _) | (None, Some(date)) => Some(Some(date)),
            (None, None) => None,
        };
    }
    let (year, month, day) = if let Some(year) = number("iso_y") {
        (year, number("iso_m")?, number("iso_d")?)
    } else if let Some(year) = number("dot_y") {
        (year, number("dot_m")?, number("dot_d")?)
    } else if let Some(year) = number("dmy_y") {
        (year, month("dmy_m")?, number("dmy_d")?)
    } else {
        (number("mdy_y")?, month("mdy_m")?, number("mdy_d")?)
    };
    calendar(year, month, day).map(Some)
}

/// The ISO date, if the calendar has it.
fn calendar(year: u32, month: u32, day: u32) -> Option<String> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days)
        .contains(&day)
        .then(|| format!("{year:04}-{month:02}-{day:02}"))
}

static AMOUNT: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"\d{1,3}(?:[ ,.'’\u{a0}\u{202f}]\d{3})+(?:[.,]\d{1,2})?|\d+(?:[.,]\d{1,2})?";
    text::pattern(&format!(
        r"(?ix)
            (?P<sign>[$€£¥₹]|\b(?:USD|EUR|GBP|JPY|CHF|INR|CAD|AUD)\b)\s?(?P<after>{number})(?:\b|$)
          | \b(?P<before>{number})\s?(?P<word>[€£¥₹]|(?:USD|EUR|GBP|JPY|CHF|INR|CAD|AUD|dollars?|euros?|pounds?|yen|francs?|rupees?|cents?)\b)"
    ))
});

fn amounts(content: &str) -> Vec<(String, Value)> {
    let amount = |found: Captures<'_>| {
        let text = found[0].to_owned();
        let number = found.name("after").or_else(|| found.name("before"))?;
        let mark = found
            .name("sign")
            .or_else(|| found.name("word"))?
            .as_str()
            .to_lowercase();
        let cents = mark.starts_with("cent");
        let value = money(number.as_str())? / if cents { 100.0 } else { 1.0 };
        let find = json!({"text": text, "currency": currency(&mark), "value": value});
        Some((text, find))
    };
    AMOUNT.captures_iter(content).filter_map(amount).collect()
}

/// ISO 4217, or null where the word leaves the country open (`cents`,
/// `francs`); a bare `$`, `dollars` or `pounds` is read as USD and GBP.
fn currency(mark: &str) -> Option<&'static str> {
    Some(match mark {
        "$" | "usd" | "dollar" | "dollars" => "USD",
        "€" | "eur" | "euro" | "euros" => "EUR",
        "£" | "gbp" | "pound" | "pounds" => "GBP",
        "¥" | "jpy" | "yen" => "JPY",
        "₹" | "inr" | "rupee" | "rupees" => "INR",
        "chf" => "CHF",
        "cad" => "CAD",
        "aud" => "AUD",
        _ => return None,
    })
}

/// `1,234.50`, `1.234,50`, `1'234` and `12,5` alike: a last separator with one
/// or two digits behind it is the decimal one, all others group thousands.
fn money(number: &str) -> Option<f64> {
    let (whole, decimals) = match number.rfind([',', '.']) {
        Some(at) if number.len() - at <= 3 => (&number[..at], &number[at + 1..]),
        _ => (number, ""),
    };
    let digits: String = whole.chars().filter(char::is_ascii_digit).collect();
    format!("{digits}.{decimals}0").parse().ok()
}
