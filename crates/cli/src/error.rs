//! One error for people and programs: a code, what happened, what to do; exit code 2 when the caller
//! can mend it, 1 when work failed.

use crate::output::Output;
use agent::input::InputError;
use agent::plan::PlanError;
use agent::skill::SkillError;
use domain::error::{Code, Error, Who};
use std::process::ExitCode;

/// What goes wrong on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: String,
    exit: u8,
}

impl CliError {
    /// Something the caller can mend.
    pub(crate) fn caller(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
            exit: 2,
        }
    }

    /// Something that failed while working.
    pub(crate) fn world(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: 1,
            ..Self::caller(code, message, hint)
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }

    /// On standard error in words; with `--output json` as one JSON document there.
    pub(crate) fn print(&self, output: Output) {
        match output {
            Output::Text => {
                eprintln!("error[{}]: {}", self.code, self.message);
                if !self.hint.is_empty() {
                    eprintln!("  help: {}", self.hint.replace('\n', "\n        "));
                }
            }
            Output::Json => eprintln!(
                "{}",
                serde_json::json!({"error": {
                    "code": self.code, "message": self.message, "hint": self.hint
                }})
            ),
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        // A store that cannot be opened is a matter of which one was asked for.
        let stores = [Code::StoreLocked, Code::StoreNewer, Code::StoreCorrupt];
        let mends = matches!(error.code.who(), Who::Caller | Who::Conflict);
        let exit = if mends || stores.contains(&error.code) {
            2
        } else {
            1
        };
        let (code, message, hint) = (error.code.to_string(), error.message, error.hint);
        Self {
            code,
            message,
            hint,
            exit,
        }
    }
}

impl From<InputError> for CliError {
    fn from(error: InputError) -> Self {
        Self::caller(error.code, error.message, error.hint)
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        Self::caller(error.code, error.message, error.hint)
    }
}

impl From<SkillError> for CliError {
    fn from(error: SkillError) -> Self {
        Self::caller(error.code, error.message, error.hint)
    }
}
