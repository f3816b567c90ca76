//! One error for people and programs: a code, what happened, what to do; exit code 2 when the caller
//! can mend it, 1 when work failed.

use crate::output::{Output, say};
use agent::input::InputError;
use agent::plan::PlanError;
use agent::skill::SkillError;
use domain::error::{Code, Error, Who};
use domain::run::StepStatus;
use protocol::v1::RunView;
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
                say(&format!("error[{}]: {}", self.code, self.message));
                if !self.hint.is_empty() {
                    say(&format!(
                        "  help: {}",
                        self.hint.replace('\n', "\n        ")
                    ));
                }
            }
            Output::Json => say(&format!(
                "{}",
                serde_json::json!({"error": {
                    "code": self.code, "message": self.message, "hint": self.hint
                }})
            )),
        }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        // A store or a backup that cannot be opened is a matter of which one was asked for.
        let stores = [
            Code::StoreLocked,
            Code::StoreNewer,
            Code::StoreCorrupt,
            Code::BackupDamaged,
        ];
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

/// Why the first step of a run that failed did: its own code, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) code: String,
    pub(crate) remedy: &'static str,
}

impl Reason {
    /// Of this run, where the step says it with a code of the agents.
    pub(crate) fn of(run: &RunView) -> Option<Self> {
        let mut failed = run.steps.iter();
        let step = failed.find(|step| step.status == StepStatus::Failed)?;
        let output = step.output.as_ref()?.value();
        let code = output["error"]["code"].as_str()?;
        // What programs and agents come to says in its own words what to do.
        let code = Some(code).filter(|code| code.starts_with("model."))?;
        let remedy = agent::errors::remedy(code)?;
        Some(Self {
            code: code.to_owned(),
            remedy,
        })
    }

    /// Whether the same run may go on once this is mended. Where the crew file is to be changed it may
    /// not: a run goes on with the crew it was planned for.
    pub(crate) fn lets_retry(&self) -> bool {
        !matches!(
            self.code.as_str(),
            "model.unknown" | "model.refused" | "model.name"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent::errors::ERRORS;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// What `docs/errors.md` says today.
    fn page() -> String {
        let mut page = String::from(
            "# Error codes\n\n\
             Generated from the code by a test (`CHARGEHAND_BLESS=1 cargo test -p chargehand-cli errors` \
             writes it); do not edit.\n\n\
             An error has a stable code, a message that says what happened, and a hint that says what to \
             do. The command line exits with 2 when the caller can mend it and with 1 when work failed, or came to a part of \
             what was asked.\n\n\
             | code | who can act | again? | what it means | what to do |\n|---|---|---|---|---|\n",
        );
        let mut rows: BTreeMap<&str, String> = BTreeMap::new();
        for code in Code::ALL {
            let who = match code.who() {
                Who::Caller => "caller",
                Who::Conflict => "caller, after reading again",
                Who::World => "operator",
                Who::Bug => "Chargehand",
            };
            let again = if code.retryable() { "yes" } else { "no" };
            let text = format!("{who} | {again} | {} | {}", code.meaning(), code.remedy());
            rows.insert(code.as_str(), text);
        }
        for (code, meaning, remedy) in ERRORS {
            let before = rows.insert(code, format!("caller | | {meaning} | {remedy}"));
            assert!(before.is_none(), "{code} is explained twice");
        }
        for (code, text) in rows {
            writeln!(page, "| `{code}` | {text} |").unwrap();
        }
        page
    }

    #[test]
    fn the_page_of_errors_is_current() {
        let path = root().join("docs/errors.md");
        if std::env::var_os("CHARGEHAND_BLESS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == page(),
            "docs/errors.md is out of date; see its second line"
        );
    }

    #[test]
    fn every_code_in_the_source_is_explained() {
        let known: BTreeSet<&str> = ERRORS
            .iter()
            .map(|row| row.0)
            .chain(Code::ALL.iter().map(|c| c.as_str()))
            .collect();
        let families: BTreeSet<&str> = known
            .iter()
            .filter_map(|code| code.split_once('.'))
            .map(|(family, _)| family)
            .collect();
        // Skills, files, types of tasks and events have names of the same form.
        let others = [
            "http.fetch",
            "json.shape",
            "crew.yaml",
            "crew.plan",
            "crew.chat",
            "crew.work",
            "crew.answer",
            "crew.look",
            "plan.json",
        ];
        let is_name =
            |literal: &&str| others.contains(literal) || domain::event::NAMES.contains(literal);
        let mut missing = BTreeSet::new();
        for folder in ["agent", "cli", "chargehand"] {
            for source in sources(&root().join("crates").join(folder).join("src")) {
                for literal in source.split('"').skip(1).step_by(2) {
                    let Some((family, rest)) = literal.split_once('.') else {
                        continue;
                    };
                    let is_code = !rest.is_empty()
                        && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                        && families.contains(family);
                    if is_code && !known.contains(literal) && !is_name(&literal) {
                        missing.insert(literal.to_owned());
                    }
                }
            }
        }
        assert!(
            missing.is_empty(),
            "codes that agent/src/errors.rs does not explain: {missing:?}"
        );
    }

    fn sources(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
        found
    }
}
