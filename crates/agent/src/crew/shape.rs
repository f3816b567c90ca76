//! Whether a file has the shape that the schema says, told in words, each mistake at its place.
//!
//! All mistakes are found, not only the first. What is wrong is taken out of the value then, so that
//! the rest can be read into its types and be checked further.

use super::MISTAKES_MAX;
use super::file::{CrewFile, schema};
use super::tree::{Kind, Node, Place, escaped};
use domain::name::nearest;
use jsonschema::error::{TypeKind, ValidationErrorKind as Found};
use jsonschema::{ValidationError, Validator};
use serde::Deserialize;
use serde_json::Value;
use std::sync::LazyLock;

/// Characters of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// A mistake, before it knows its file.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) at: Place,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
}

struct Shape {
    schema: Value,
    validator: Validator,
}

static SHAPE: LazyLock<Shape> = LazyLock::new(|| {
    let schema = schema();
    let validator = jsonschema::options()
        .offline()
        .build(&schema)
        .expect("our own schema is one");
    Shape { schema, validator }
});

/// Checks the shape of what was read, and reads what can be read of it.
pub(super) fn read(tree: &Node, mistakes: &mut Vec<Mistake>) -> CrewFile {
    duplicates(tree, mistakes);
    let value = tree.value();
    let mut wrong = Vec::new();
    for error in SHAPE.validator.iter_errors(&value) {
        told(tree, &error, &mut wrong, mistakes);
    }
    let mut rest = value;
    // The last of a list first, so that the places of the others stay what they are.
    wrong.sort();
    for pointer in wrong.iter().rev() {
        remove(&mut rest, pointer);
    }
    CrewFile::deserialize(rest).unwrap_or_else(|fault| {
        // Nothing is known for which the schema and the types disagree; silence would be worse.
        mistakes.push(Mistake {
            at: tree.at,
            code: "crew.value",
            message: fault.to_string(),
            hint: "Compare the file with `chargehand crew schema`.".into(),
        });
        CrewFile::default()
    })
}

fn duplicates(tree: &Node, mistakes: &mut Vec<Mistake>) {
    tree.walk(&mut |node| {
        let Kind::Map(entries) = &node.kind else {
            return;
        };
        // By sorting: a hostile file has very many keys.
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_by(|a, b| (&a.key, a.at).cmp(&(&b.key, b.at)));
        let mut first = 0;
        for index in 1..sorted.len() {
            if sorted[index].key != sorted[first].key {
                first = index;
                continue;
            }
            let (key, line) = (shown(&sorted[index].key), sorted[first].at.line);
            mistakes.push(Mistake {
                at: sorted[index].at,
                code: "crew.duplicate",
                message: format!("`{key}` is here twice: the first is on line {line}"),
                hint: "Keep one of them, or give one another name.".into(),
            });
        }
    });
}

/// Puts one error of the schema into words, and notes what is to be taken out.
fn told(
    tree: &Node,
    error: &ValidationError<'_>,
    wrong: &mut Vec<String>,
    mistakes: &mut Vec<Mistake>,
) {
    let pointer = error.instance_path().as_str().to_owned();
    let what = subject(&pointer);
    let value = error.instance().as_ref();
    let (above, _) = split(error.schema_path().as_str());
    let described = description(above);
    let here = tree.find(&pointer).at;
    let mut add = |at, code, message: String, hint: String| {
        mistakes.push(Mistake {
            at,
            code,
            message,
            hint,
        });
    };
    match error.kind() {
        Found::AdditionalProperties { unexpected } => {
            let known = properties(above);
            // A hostile file has very many; those that are not told are not looked for either.
            for (count, key) in unexpected.iter().enumerate() {
                let below = format!("{pointer}/{}", escaped(key));
                if count >= MISTAKES_MAX {
                    wrong.push(below);
                    continue;
                }
                let message = format!("there is no key `{}` {}", shown(key), within(&pointer));
                let hint = match nearest(key, known.iter().map(String::as_str)) {
                    Some(meant) => format!("Did you mean `{meant}`?"),
                    None => format!("There are: {}.", known.join(", ")),
                };
                add(tree.key_place(&below), "crew.unknown_key", message, hint);
                wrong.push(below);
            }
            return;
        }
        Found::AnyOf { context } | Found::OneOfNotValid { context } => {
            let errors = || context.iter().flatten();
            let constants = errors().filter_map(|error| match error.kind() {
                Found::Constant { expected_value } => expected_value.as_str(),
                _ => None,
            });
            let constants: Vec<&str> = constants.collect();
            if !constants.is_empty() && constants.len() == context.len() {
                let (message, meant) = one_of(&what, value, &constants);
                add(here, "crew.value", message, meant.unwrap_or(described));
                wrong.push(pointer);
                return;
            }
            // The branch for a value of this type is the one that was meant.
            let meant = context.iter().find(|branch| {
                !branch.iter().any(|error| {
                    let is_type = matches!(error.kind(), Found::Type { .. });
                    is_type && error.instance_path().as_str() == pointer
                })
            });
            if let Some(branch) = meant {
                for error in branch {
                    told(tree, error, wrong, mistakes);
                }
                return;
            }
            let types = errors().filter_map(|error| match error.kind() {
                Found::Type { kind } => Some(named(kind)),
                _ => None,
            });
            let types: Vec<String> = types.filter(|name| !name.is_empty()).collect();
            let message = format!(
                "{what} is {}, but must be {}",
                kind(value),
                types.join(" or ")
            );
            add(here, "crew.type", message, described);
        }
        Found::PropertyNames { error } => {
            let key = error.instance().as_str().unwrap_or_default();
            let below = format!("{pointer}/{}", escaped(key));
            let message = format!("“{}” is no name that can be used here", shown(key));
            let dots = if pointer == "/tools" { " and dots" } else { "" };
            let hint = if pointer.ends_with("/env") {
                "A variable's name has letters, digits and underscores, and does not begin with a digit.".to_owned()
            } else if pointer.starts_with("/mcp/") {
                "The second part of a tool's name has small letters, digits, `_` and `-`, and is at most 32 long; what the server calls it belongs to `name`.".to_owned()
            } else if pointer == "/mcp" {
                "A server's name has small letters, digits, `_` and `-`, begins with a letter, and is at most 32 long.".to_owned()
            } else {
                format!(
                    "A name has small letters, digits, `_`{dots} and `-`, begins with a letter, and is at most 64 long."
                )
            };
            add(tree.key_place(&below), "crew.name", message, hint);
            // What stands below it is checked all the same.
            return;
        }
        Found::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let message = format!("`{key}` is missing {}", within(&pointer));
            let at = tree.key_place(&pointer);
            let hint = description(&format!("{above}/properties/{}", escaped(key)));
            add(at, "crew.missing_key", message, hint);
            return;
        }
        Found::Type { kind: wanted } => {
            let message = format!("{what} is {}, but must be {}", kind(value), named(wanted));
            add(here, "crew.type", message, described);
        }
        Found::Enum { options } => {
            let known: Vec<&str> = match options.as_array() {
                Some(options) => options.iter().filter_map(Value::as_str).collect(),
                None => Vec::new(),
            };
            let (message, meant) = one_of(&what, value, &known);
            add(here, "crew.value", message, meant.unwrap_or(described));
        }
        Found::Pattern { .. } if pointer.ends_with("/key") => {
            // Somebody may have put the key itself here.
            let message = format!("{what} is no handle of a secret");
            add(here, "crew.secret", message, described);
        }
        Found::Pattern { .. } => {
            let message = format!(
                "{what} is {}, which does not have the form it must have",
                quoted(value)
            );
            add(here, "crew.value", message, described);
        }
        Found::Minimum { limit } | Found::ExclusiveMinimum { limit } => {
            let message = format!("{what} is {value}, but at least {limit} is needed");
            add(here, "crew.value", message, described);
        }
        Found::Maximum { limit } | Found::ExclusiveMaximum { limit } => {
            let message = format!("{what} is {value}, but at most {limit} is allowed");
            add(here, "crew.value", message, described);
        }
        Found::MinLength { .. } | Found::MinItems { .. } | Found::MinProperties { .. } => {
            add(here, "crew.value", format!("{what} is empty"), described);
        }
        Found::MaxLength { limit } => {
            let message = format!("{what} is longer than {limit} characters");
            add(here, "crew.too_large", message, described);
        }
        Found::MaxItems { limit } => {
            let message = format!("{what} has more than {limit} items");
            add(here, "crew.too_large", message, described);
        }
        Found::MaxProperties { limit } => {
            let message = format!("{what} has more than {limit} entries");
            let hint = "Split the crew.".to_owned();
            add(tree.key_place(&pointer), "crew.too_large", message, hint);
        }
        _ => add(
            here,
            "crew.value",
            format!("{what}: {}", error.masked()),
            described,
        ),
    }
    wrong.push(pointer);
}

/// Takes what a pointer leads to out of its map; in a list it becomes an empty text, which is passed
/// over.
fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        *value = Value::Object(serde_json::Map::new());
        return;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        Some(list) => {
            if let Some(item) = key
                .parse()
                .ok()
                .and_then(|index: usize| list.get_mut(index))
            {
                *item = Value::String(String::new());
            }
        }
        None => {}
    }
}

fn split(pointer: &str) -> (&str, &str) {
    pointer.rsplit_once('/').unwrap_or(("", pointer))
}

/// What is wrong with a word that is none of those known, and the one that was meant.
fn one_of(what: &str, value: &Value, known: &[&str]) -> (String, Option<String>) {
    let message = format!(
        "{what} is {}, but must be one of: {}",
        quoted(value),
        known.join(", ")
    );
    let word = value.as_str().unwrap_or_default();
    let meant = nearest(word, known.iter().copied());
    (
        message,
        meant.map(|meant| format!("Did you mean `{meant}`?")),
    )
}

/// What the schema says at this pointer about what belongs there; or at what it refers to, or above.
fn description(pointer: &str) -> String {
    let at = |pointer: &str| SHAPE.schema.pointer(pointer).unwrap_or(&Value::Null);
    let (mut above, mut text) = (pointer, None);
    while text.is_none() && !above.is_empty() {
        let node = at(above);
        let referred = || {
            let reference = node["$ref"].as_str()?.strip_prefix('#')?;
            at(reference)["description"].as_str()
        };
        text = node["description"].as_str().or_else(referred);
        above = split(above).0;
    }
    let text = text.unwrap_or("`chargehand crew schema` says what belongs here.");
    text.replace('\n', " ")
}

fn properties(pointer: &str) -> Vec<String> {
    let node = SHAPE.schema.pointer(pointer).unwrap_or(&Value::Null);
    let keys = node["properties"]
        .as_object()
        .map(|map| map.keys().cloned());
    keys.map(Iterator::collect).unwrap_or_default()
}

/// `agents.researcher.rounds`, with what a person sees as its name.
fn subject(pointer: &str) -> String {
    if pointer.is_empty() {
        return "the file".into();
    }
    let steps = pointer.split('/').skip(1);
    let steps = steps.map(|step| shown(&step.replace("~1", "/").replace("~0", "~")));
    format!("`{}`", steps.collect::<Vec<_>>().join("."))
}

fn within(pointer: &str) -> String {
    match pointer {
        "" => "in a crew file".into(),
        _ => format!("in {}", subject(pointer)),
    }
}

/// The beginning of a text, safe to print.
pub(super) fn shown(text: &str) -> String {
    let text = super::secret::masked(text);
    let mut kept: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        kept.push('…');
    }
    kept
}

pub(super) fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("“{}”", shown(text)),
        other => shown(&other.to_string()),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Bool(truth) => format!("{truth}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text “{}”", shown(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map".into(),
    }
}

fn named(wanted: &TypeKind) -> String {
    use jsonschema::JsonType as T;
    let name = |kind: T| match kind {
        T::Null => None,
        T::Array => Some("a list"),
        T::Boolean => Some("true or false"),
        T::Integer => Some("a whole number"),
        T::Number => Some("a number"),
        T::Object => Some("a map"),
        T::String => Some("a text"),
    };
    let names: Vec<_> = match wanted {
        TypeKind::Single(one) => name(*one).into_iter().collect(),
        TypeKind::Multiple(several) => several.iter().filter_map(name).collect(),
    };
    names.join(" or ")
}
