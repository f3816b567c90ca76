//! A tool that is a program: the contract of [`crate::command`], in bare surroundings.
//!
//! The program gets its arguments as JSON on standard input, and of the environment `PATH`, `HOME`,
//! `LANG`, what its crew file declares, and the call's key as `CHARGEHAND_IDEMPOTENCY_KEY`. Secrets
//! are looked up when it is called, and taken out again of everything it says.

use super::{RESULT_BYTES_MAX, Tool, ToolCard};
use crate::command::{self, CommandLimits, STDERR_BYTES_MAX, Surroundings, run_in};
use crate::crew::{CommandTool, EnvValue, Secret};
use crate::skill::SkillError;
use async_trait::async_trait;
use domain::name::Name;
use domain::task::Failure;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Secrets shorter than this are not taken out: what is left would make no sense.
const REDACTED_BYTES_MIN: usize = 4;
/// Beyond the tool's own time, so that the toolbox's limit is the one that is met.
const GRACE: Duration = Duration::from_millis(200);

/// A program of a crew, as a tool.
pub struct Program {
    card: ToolCard,
    tool: CommandTool,
    folder: PathBuf,
}

impl Program {
    /// Runs in this folder.
    #[must_use]
    pub fn new(name: Name, tool: CommandTool, folder: &Path) -> Self {
        let card = ToolCard {
            name,
            description: tool.description.clone(),
            input: tool.input.clone(),
            output: tool.output.clone(),
            effect: tool.effect,
            timeout: tool.timeout,
            category: tool.category.clone(),
            sensitive: tool.sensitive.iter().cloned().collect(),
            // A program's result is made of what it read, wherever that came from.
            untrusted_output: true,
        };
        Self {
            card,
            tool,
            folder: folder.to_owned(),
        }
    }
}

/// The variables of a program, and what has to be taken out again of what it says.
pub(crate) fn variables(
    env: &BTreeMap<String, EnvValue>,
) -> Result<(Variables, Vec<Revealed>), String> {
    let (mut variables, mut revealed) = (Vec::new(), Vec::new());
    for (name, value) in env {
        let value = match value {
            EnvValue::Text(text) => text.clone(),
            EnvValue::Secret(secret) => {
                let found = Revealed::of(secret)?;
                revealed.push(found.clone());
                found.secret
            }
        };
        variables.push((name.clone(), value));
    }
    Ok((variables, revealed))
}

/// Names and values.
type Variables = Vec<(String, String)>;

/// A secret that a program or a server was given, and what stands for it.
#[derive(Clone)]
pub(crate) struct Revealed {
    pub(crate) secret: String,
    pub(super) handle: String,
}

impl Revealed {
    /// What the handle stands for, or that it is not set.
    pub(crate) fn of(secret: &Secret) -> Result<Self, String> {
        let variable = secret.variable();
        let found = secret.reveal().ok_or(format!("{variable} is not set"))?;
        Ok(Self {
            secret: found,
            handle: secret.to_string(),
        })
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("card", &self.card)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Tool for Program {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    fn retries(&self) -> u32 {
        self.tool.retry
    }

    async fn available(&self) -> Result<(), String> {
        variables(&self.tool.env)?;
        let line = &self.tool.command;
        let checked = match command::program_of(line).filter(|program| program.contains('/')) {
            Some(program) => command::check_file(&self.folder.join(&program), &program),
            None => command::check_program(line),
        };
        checked.map_err(|error| error.message)
    }

    async fn call(&self, arguments: &Value, key: &str) -> Result<Value, Failure> {
        let unset = |why| Failure::new("tool.unavailable", why);
        let (mut variables, revealed) = variables(&self.tool.env).map_err(unset)?;
        variables.push(("CHARGEHAND_IDEMPOTENCY_KEY".into(), key.to_owned()));
        let limits = CommandLimits {
            time: self.tool.timeout + GRACE,
            stdout_bytes_max: RESULT_BYTES_MAX,
            stderr_bytes_max: STDERR_BYTES_MAX,
        };
        let surroundings = Surroundings::Bare(&self.folder);
        let line = &self.tool.command;
        let ran = run_in(
            surroundings,
            line,
            arguments,
            &variables,
            &limits,
            &|said| redacted_part(said, &revealed),
            pending(),
        )
        .await;
        match ran {
            Ok(mut result) => {
                redact(&mut result, &revealed);
                Ok(result)
            }
            Err(error) => {
                let mut failure = self.failure(error);
                failure.message = redacted(&failure.message, &revealed);
                Err(failure)
            }
        }
    }
}

impl Program {
    fn failure(&self, error: SkillError) -> Failure {
        let (code, retryable) = match error.code {
            "command.exit" => ("tool.failed", true),
            "command.not_found" | "command.not_executable" => ("tool.unavailable", true),
            "command.timeout" => ("tool.timed_out", self.card.effect.is_repeatable()),
            "command.too_much_output" | "command.no_json" => ("tool.output", false),
            _ => ("tool.broken", self.card.effect.is_repeatable()),
        };
        let text = format!("“{}”: {}", self.card.name, error.message);
        Failure {
            retryable,
            ..Failure::new(code, text)
        }
    }
}

/// A secret as it may stand in a text, and what stands for it.
type Form<'a> = (String, &'a str);

/// Every secret as it is, and as it is when it is quoted in a message or in JSON. The longest first: a
/// shorter one may be a part of it.
fn forms(revealed: &[Revealed]) -> Vec<Form<'_>> {
    let long = revealed
        .iter()
        .filter(|one| one.secret.len() >= REDACTED_BYTES_MIN);
    let forms = long.flat_map(|one| {
        let secret = one.secret.as_str();
        let quoted = [format!("{secret:?}"), Value::from(secret).to_string()];
        let quoted = quoted.map(|quoted| quoted[1..quoted.len() - 1].to_owned());
        let forms = [secret.to_owned()].into_iter().chain(quoted);
        forms.map(|form| (form, one.handle.as_str()))
    });
    let mut forms: Vec<Form<'_>> = forms.collect();
    forms.sort_by(|one, other| (other.0.len(), &other.0).cmp(&(one.0.len(), &one.0)));
    forms.dedup();
    forms
}

fn without(text: &str, forms: &[Form<'_>]) -> String {
    let all = forms.iter();
    all.fold(text.to_owned(), |text, (form, handle)| {
        match text.contains(form.as_str()) {
            true => text.replace(form.as_str(), handle),
            false => text,
        }
    })
}

/// The text with every secret replaced by its handle.
///
/// Half a secret is not known as one any more, so this comes before a text is cut.
pub(crate) fn redacted(text: &str, revealed: &[Revealed]) -> String {
    without(text, &forms(revealed))
}

/// The same of a text that others cut, so that it may begin or end within a secret.
pub(crate) fn redacted_part(text: &str, revealed: &[Revealed]) -> String {
    let forms = forms(revealed);
    // What is left of a character that was cut stands before what is left of a secret.
    let mut text = without(text.trim_start_matches(char::REPLACEMENT_CHARACTER), &forms);
    for (form, handle) in &forms {
        let cuts = || (1..form.len()).filter(|at| form.is_char_boundary(*at));
        // The larger part first: a key may begin and end alike. Then there is one at the other end.
        for _ in 0..2 {
            let mut ends = cuts().map(|at| &form[at..]);
            let first = ends.find(|end| text.starts_with(end));
            let first = first.map_or(0, str::len);
            let mut beginnings = cuts().rev().map(|at| &form[..at]);
            let last = beginnings.find(|beginning| text.ends_with(beginning));
            let last = last.map_or(0, str::len);
            if first.max(last) < REDACTED_BYTES_MIN {
                break;
            }
            text = match first >= last {
                true => format!("{handle}{}", &text[first..]),
                false => format!("{}{handle}", &text[..text.len() - last]),
            };
        }
    }
    text
}

/// The same as [`redacted`] for all text of a value.
pub(crate) fn redact(value: &mut Value, revealed: &[Revealed]) {
    strike(value, &forms(revealed));
}

fn strike(value: &mut Value, forms: &[Form<'_>]) {
    match value {
        Value::String(text) => *text = without(text, forms),
        Value::Array(items) => items.iter_mut().for_each(|item| strike(item, forms)),
        Value::Object(map) => {
            let entries = std::mem::take(map).into_iter();
            for (key, mut value) in entries {
                strike(&mut value, forms);
                map.insert(without(&key, forms), value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revealed(secrets: &[&str]) -> Vec<Revealed> {
        let secrets = secrets.iter().enumerate();
        let one = |(number, secret): (usize, &&str)| Revealed {
            secret: (*secret).to_owned(),
            handle: format!("secret://{number}"),
        };
        secrets.map(one).collect()
    }

    #[test]
    fn a_secret_is_found_as_it_is_and_as_it_is_quoted() {
        let hidden = revealed(&["pass", "pass\"word\\\u{7f}\n", "abc"]);
        let long = hidden[1].secret.clone();
        let told = |text: &str| redacted(text, &hidden);
        assert_eq!(told(&format!("it is {long}!")), "it is secret://1!");
        assert_eq!(told(&format!("{long:?}")), "\"secret://1\"");
        assert_eq!(told(&json!([long]).to_string()), "[\"secret://1\"]");
        // One that is a part of another takes nothing from it, and one that is too short stays.
        assert_eq!(told("pass abc"), "secret://0 abc");
        let mut value = json!({"key": {(long.as_str()): [1, long]}});
        redact(&mut value, &hidden);
        assert_eq!(value, json!({"key": {"secret://1": [1, "secret://1"]}}));
    }

    #[test]
    fn what_was_cut_begins_and_ends_without_a_part_of_a_secret() {
        let key = "-----BEGIN-----ünïcödé-----END-----";
        let hidden = revealed(&[key]);
        let said = format!("{key}\n{key} and {key}");
        for (at, _) in said.char_indices() {
            for (to, _) in said.char_indices().filter(|(to, _)| *to >= at) {
                let told = redacted_part(&said[at..to], &hidden);
                let none = |part: &[char]| !told.contains(&String::from_iter(part));
                let letters: Vec<char> = key.chars().collect();
                // Fewer than four bytes are as good as nothing; what is cut on both sides of one
                // secret is not known as one.
                let part = &said[at..to];
                let touches = key.starts_with(part) || key.ends_with(part);
                let within = key.contains(part) && !touches;
                assert!(within || letters.windows(4).all(none), "{at}..{to}: {told}");
            }
        }
        // In the midst of a character.
        let torn = String::from_utf8_lossy(&key.as_bytes()[16..]).into_owned();
        assert!(torn.starts_with(char::REPLACEMENT_CHARACTER));
        assert_eq!(redacted_part(&torn, &hidden), "secret://0");
    }
}
