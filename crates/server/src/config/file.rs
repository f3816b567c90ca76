//! Reads the file: what it says, and on which line.

use super::setting::{SETTINGS, Setting, Value};
use crate::logs::shown;
use domain::error::{Code, Error};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes in a file of settings.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A place in the file, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One setting as the file has it.
pub(super) struct Said {
    pub(super) setting: &'static Setting,
    /// What it says, or what kind of thing stands there that no setting takes.
    pub(super) value: Result<Value, String>,
    pub(super) place: Place,
}

/// Everything the file says, from its top to its end.
///
/// # Errors
///
/// `config.invalid`, with the place, for what is not TOML and for a key that does not exist.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Said>, Error> {
    let name = path.display();
    let table = DeTable::parse(text).map_err(|fault| {
        let Place { line, column } = place(text, fault.span().map_or(0, |span| span.start));
        let what = fault.message().lines().collect::<Vec<_>>().join(", ");
        let what = what.trim_end_matches(", expected nothing");
        Error::new(
            Code::ConfigInvalid,
            format!("{name}:{line}:{column}: {what}"),
        )
        .hint("Correct the TOML at this place; a text stands in quotes.")
    })?;
    let mut found = Vec::new();
    walk("", table.get_ref(), &mut found);
    found.sort_by_key(|(at, _)| *at);
    let said = found.into_iter().map(|(at, found)| {
        let place = place(text, at);
        let Place { line, column } = place;
        let unknown = |key: &str| {
            let what = format!(
                "{name}:{line}:{column}: there is no setting `{}`",
                shown(key)
            );
            Error::new(Code::ConfigInvalid, what).hint(super::meant(key))
        };
        match found {
            Found::Setting(setting, value) => Ok(Said {
                setting,
                value,
                place,
            }),
            Found::Unknown(key) => Err(unknown(&key)),
            Found::NoTable(key) => {
                let what = format!("{name}:{line}:{column}: `{key}` is a section, not a setting");
                let hint = format!("Write `[{key}]` and its settings below it.");
                Err(Error::new(Code::ConfigInvalid, what).hint(hint))
            }
        }
    });
    said.collect()
}

enum Found {
    Setting(&'static Setting, Result<Value, String>),
    Unknown(String),
    NoTable(String),
}

/// Finds what is in a table and those in it, each with the byte where it stands.
fn walk(prefix: &str, table: &DeTable, found: &mut Vec<(usize, Found)>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let below = format!("{key}.");
        let at = name.span().start;
        if let Some(setting) = Setting::find(&key) {
            found.push((
                value.span().start,
                Found::Setting(setting, read_value(value)),
            ));
        } else if !SETTINGS
            .iter()
            .any(|setting| setting.key.starts_with(&below))
        {
            // Of a section that does not exist its settings are named: they say best what was meant.
            // Settings have one section, so nobody has to look deeper.
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() && prefix.is_empty() => {
                    walk(&below, inner, found);
                }
                _ => found.push((at, Found::Unknown(key))),
            }
        } else if let DeValue::Table(inner) = value.get_ref() {
            walk(&below, inner, found);
        } else {
            found.push((at, Found::NoTable(key)));
        }
    }
}

fn read_value(value: &Spanned<DeValue>) -> Result<Value, String> {
    let kind = match value.get_ref() {
        DeValue::String(text) => return Ok(Value::Text(text.to_string())),
        DeValue::Integer(number) => {
            return u64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Whole)
                .map_err(|_| format!("is {number}"));
        }
        DeValue::Array(items) => {
            let text = |item: &Spanned<DeValue>| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            };
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            return texts
                .map(Value::List)
                .ok_or_else(|| "has something in its list that is not a text".into());
        }
        DeValue::Float(number) => return Err(format!("is {}", number.as_str())),
        DeValue::Boolean(truth) => return Err(format!("is {truth}")),
        DeValue::Datetime(_) => "a date or time",
        DeValue::Table(_) => "a section",
    };
    Err(format!("is {kind}"))
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
