//! Handlers for the workers of a crew without a model: one runs skills, one runs a person's program.
//!
//! A task's brief is `{"items": [item, …], "options": {…}}`; its result is
//! `{"items": [{"source", "output"} or {"source", "error"}, …]}`, in the same order.

use crate::command::{CommandLimits, run_program};
use crate::input::{Item, Source};
use crate::skill::{self, Skill, SkillError};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// The type of tasks that a person's program runs.
pub const COMMAND_KIND: &str = "command";

/// What a task is to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Brief {
    /// On what.
    #[serde(default)]
    pub items: Vec<Item>,
    /// How; what a skill understands of it is the skill's.
    #[serde(default)]
    pub options: Value,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemOutcome {
    /// Which item.
    pub source: Source,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What a task of several items made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// In the order of the brief.
    pub items: Vec<ItemOutcome>,
}

/// Runs the skill that a task's type names, item by item, handing back what is done when more
/// urgent work waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct SkillHandler;

#[async_trait]
impl Handler for SkillHandler {
    async fn run(&self, task: Context) -> Ended {
        let kind = task.assignment().kind.clone();
        let Some(skill) = skill::find(&kind) else {
            let text = format!("there is no skill “{kind}”");
            return Ended::Failed(Failure::permanent("skill.unknown", text));
        };
        let brief: Brief = match serde_json::from_value(task.input()) {
            Ok(brief) => brief,
            Err(fault) => {
                let text = format!("the brief cannot be read: {fault}");
                return Ended::Failed(Failure::permanent("brief.malformed", text));
            }
        };
        let checkpoint = task
            .checkpoint()
            .and_then(|done| serde_json::from_value(done).ok());
        let mut done: Outcomes = checkpoint.unwrap_or_default();
        let total = brief.items.len();
        for item in brief.items.into_iter().skip(done.items.len()) {
            if task.should_yield() {
                return Ended::Yielded(Some(json!(done).into()));
            }
            if total > 1 && !done.items.is_empty() {
                let fraction = done.items.len() as f64 / total as f64;
                let note = format!("{} of {total} items", done.items.len());
                // Progress is for people; that it could not be told does not stop the work.
                let _ = task.progress(Some(fraction), note).await;
            }
            let source = item.source.clone();
            match one_item(skill, item, brief.options.clone()).await {
                Ok(output) => {
                    done.items.push(ItemOutcome {
                        source,
                        output: Some(output),
                        error: None,
                    });
                }
                // One item is the task; and what may work next time is tried again as a whole.
                Err(error) if total == 1 || error.retryable => {
                    return Ended::Failed(failure(error));
                }
                Err(error) => {
                    let error = Some(failure(error));
                    done.items.push(ItemOutcome {
                        source,
                        output: None,
                        error,
                    });
                }
            }
        }
        let failed = done.items.iter().find_map(|item| item.error.as_ref());
        match failed {
            Some(failure) if done.items.iter().all(|item| item.output.is_none()) => {
                Ended::Failed(failure.clone())
            }
            _ => Ended::done(json!(done)),
        }
    }
}

/// Text skills compute without pause, so they run where blocking is allowed.
/// Works on one item where blocking is allowed.
pub(crate) async fn one_item(
    skill: &'static dyn Skill,
    item: Item,
    options: Value,
) -> Result<Value, SkillError> {
    let runtime = tokio::runtime::Handle::current();
    let work = tokio::task::spawn_blocking(move || runtime.block_on(skill.run(&item, &options)));
    work.await.unwrap_or_else(|fault| {
        Err(SkillError {
            code: "skill.panicked",
            message: format!("the skill broke: {fault}"),
            hint: "Please report it, with the item that broke it.".into(),
            retryable: false,
        })
    })
}

fn failure(error: SkillError) -> Failure {
    let retryable = error.retryable;
    let message = format!("{}. {}", error.message, error.hint);
    Failure {
        retryable,
        ..Failure::new(error.code, message)
    }
}

/// Runs a person's program, one process per task: the brief as JSON on its standard input, the
/// result as JSON from its standard output.
#[derive(Debug, Clone)]
pub struct CommandHandler {
    /// The command line, run by `sh -c`.
    pub command: String,
    /// What the crew is for; the program finds it in its brief.
    pub goal: String,
    /// Bytes it may print. Its time is the attempt's.
    pub limits: CommandLimits,
}

#[async_trait]
impl Handler for CommandHandler {
    async fn run(&self, task: Context) -> Ended {
        let assignment = task.assignment();
        let mut brief = task.input();
        if let Value::Object(fields) = &mut brief {
            fields.insert("task_id".into(), json!(assignment.task_id));
            fields.insert("attempt".into(), json!(assignment.attempt));
            fields.insert("goal".into(), json!(self.goal));
            fields.insert("item".into(), json!(assignment.item));
        }
        let env = [
            (
                "CHARGEHAND_TASK_ID".to_owned(),
                assignment.task_id.to_string(),
            ),
            (
                "CHARGEHAND_ATTEMPT".to_owned(),
                assignment.attempt.to_string(),
            ),
            ("CHARGEHAND_WORKER".to_owned(), task.worker().to_string()),
            (
                "CHARGEHAND_IDEMPOTENCY_KEY".to_owned(),
                task.idempotency_key(),
            ),
        ];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |since| since.as_millis() as u64);
        let left = Duration::from_millis(assignment.deadline.0.saturating_sub(now_ms));
        let limits = CommandLimits {
            time: left,
            ..self.limits
        };
        let over = async {
            task.stopped().await;
        };
        match run_program(&self.command, &brief, &env, &limits, over).await {
            Ok(output) => Ended::done(output),
            Err(error) => {
                let worker_fault =
                    matches!(error.code, "command.not_found" | "command.not_executable");
                Ended::Failed(Failure {
                    worker_fault,
                    ..failure(error)
                })
            }
        }
    }
}
