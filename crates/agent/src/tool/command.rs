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
            &|said| redacted(said, &revealed),
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

/// The text with every secret replaced by its handle.
pub(crate) fn redacted(text: &str, revealed: &[Revealed]) -> String {
    let long = revealed
        .iter()
        .filter(|one| one.secret.len() >= REDACTED_BYTES_MIN);
    long.fold(text.to_owned(), |text, one| {
        text.replace(&one.secret, &one.handle)
    })
}

/// The same for all text of a value.
pub(crate) fn redact(value: &mut Value, revealed: &[Revealed]) {
    match value {
        Value::String(text) => *text = redacted(text, revealed),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, revealed)),
        Value::Object(map) => {
            let entries = std::mem::take(map).into_iter();
            for (key, mut value) in entries {
                redact(&mut value, revealed);
                map.insert(redacted(&key, revealed), value);
            }
        }
        _ => {}
    }
}
