//! `chargehand tasks`: list, show, cancel, redrive, resolve, reassign.

use crate::agents;
use crate::error::CliError;
use crate::output::{Output, cut, duration, instant, print, print_json, table, wrapped};
use crate::target::Target;
use domain::json::Json;
use domain::name::Name;
use domain::record::{Finding, RecordState};
use domain::task::{Address, Failure, TaskStatus, Waits};
use protocol::api::TaskQuery;
use protocol::v1::TaskView;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List tasks, oldest first.
    #[command(after_help = "Examples:
  chargehand tasks list --status failed
  chargehand tasks list --run run_01k5z3v9wfe4rvq0t2m6n8p7xy --output json")]
    List {
        /// Only of this run.
        #[arg(long)]
        run: Option<String>,
        /// Only these: pending, assigned, in_progress, completed, failed, cancelled.
        #[arg(long)]
        status: Option<String>,
        /// Only with, or last with, this worker.
        #[arg(long)]
        worker: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = crate::output::limit, value_name = "N")]
        limit: usize,
        /// After this one: `next` of the page before.
        #[arg(long)]
        after: Option<String>,
    },
    /// Show one task: its brief, its attempts, its result, and why it waits.
    #[command(after_help = "Example:\n  chargehand tasks show task_01k5z3v9wfe4rvq0t2m6n80000")]
    Show {
        /// Which.
        task: String,
    },
    /// Cancel a task that has not ended.
    #[command(
        after_help = "Example:\n  chargehand tasks cancel task_01k5z3v9wfe4rvq0t2m6n80000 --reason \"not needed\""
    )]
    Cancel {
        /// Which.
        task: String,
        /// Why.
        #[arg(long, default_value = "cancelled by the user")]
        reason: String,
    },
    /// Put a failed or cancelled task back into its queue; `chargehand resume` does it.
    #[command(after_help = "Example:\n  chargehand tasks redrive task_01k5z3v9wfe4rvq0t2m6n80000")]
    Redrive {
        /// Which.
        task: String,
    },
    /// Say whether a step in doubt happened; then `chargehand tasks redrive` lets the task go on.
    #[command(after_help = "Examples:
  chargehand tasks resolve task_01k5z3v9wfe4rvq0t2m6n80000 charge --done '{\"receipt\": 7}'
  chargehand tasks resolve task_01k5z3v9wfe4rvq0t2m6n80000 charge --not-done \"no such booking\"")]
    Resolve {
        /// Which task.
        task: String,
        /// Which step, as `chargehand tasks show` names it.
        step: String,
        /// It happened; what came of it, as JSON.
        #[arg(long, value_name = "JSON", required_unless_present = "not_done")]
        done: Option<String>,
        /// It did not happen; how that is known.
        #[arg(long, value_name = "TEXT", conflicts_with = "done")]
        not_done: Option<String>,
    },
    /// Give a task to another worker.
    #[command(
        after_help = "Example:\n  chargehand tasks reassign task_01k5z3v9wfe4rvq0t2m6n80000 worker_2"
    )]
    Reassign {
        /// Which.
        task: String,
        /// To whom.
        worker: String,
    },
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let (engine, task) = match args {
        Args::List {
            run,
            status,
            worker,
            limit,
            after,
        } => {
            let query = TaskQuery {
                run: run.map(|run| run.parse()).transpose()?,
                status: status.as_deref().map(parse_status).transpose()?,
                kind: None,
                worker: worker.map(|worker| worker.parse()).transpose()?,
                after: after.map(|task| task.parse()).transpose()?,
                limit,
            };
            let engine = target.open_to_read()?;
            if let Some(worker) = &query.worker {
                // A name that was mistyped is not one without tasks.
                engine.worker_get(worker.clone()).await?;
            }
            let page = engine.task_list(query).await?;
            match output {
                Output::Json => print_json(&page),
                Output::Text => print(&list(&page.items)),
            }
            return Ok(ExitCode::SUCCESS);
        }
        Args::Show { task } => (target.open_to_read()?, task.parse()?),
        Args::Cancel { task, reason } => {
            let (engine, task) = (target.open_existing()?, task.parse()?);
            engine.task_cancel(task, reason).await?;
            (engine, task)
        }
        Args::Redrive { task } => {
            let (engine, task) = (target.open_existing()?, task.parse()?);
            engine.task_redrive(task).await?;
            (engine, task)
        }
        Args::Resolve {
            task,
            step,
            done,
            not_done,
        } => {
            let finding = match done {
                Some(output) => Finding::Done {
                    output: Json::from_text(output)?,
                },
                None => Finding::Failed {
                    failure: Failure::new("step.not_done", not_done.unwrap_or_default()),
                },
            };
            let (engine, task) = (target.open_existing()?, task.parse()?);
            engine.record_resolve(task, step.parse()?, finding).await?;
            (engine, task)
        }
        Args::Reassign { task, worker } => {
            let (engine, task) = (target.open_existing()?, task.parse()?);
            let worker: Name = worker.parse()?;
            // A name that was mistyped would wait for ever.
            engine.worker_get(worker.clone()).await?;
            engine.task_reassign(task, Address::Only(worker)).await?;
            (engine, task)
        }
    };
    let view = engine.task_get(task).await?;
    match output {
        Output::Json => print_json(&view),
        Output::Text => print(&show(&view)),
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_status(text: &str) -> Result<TaskStatus, CliError> {
    TaskStatus::ALL
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| {
            let hint = "Use pending, assigned, in_progress, completed, failed or cancelled.";
            CliError::caller(
                "value.out_of_range",
                format!("“{text}” is not a task's status"),
                hint,
            )
        })
}

/// Why a task waits, in words.
pub(crate) fn waits(reason: &Waits) -> String {
    match reason {
        Waits::Ready => "ready: it is next in line for a free worker".into(),
        Waits::AwaitingHuman { why, .. } => why.clone(),
        Waits::RateLimited { until, why } => {
            format!("rate limited until {}: {why}", instant(*until))
        }
        Waits::NotDue { until } => format!("not due before {}", instant(*until)),
        Waits::BlockedBy { tasks } => {
            let ids: Vec<String> = tasks.iter().take(3).map(ToString::to_string).collect();
            format!("blocked by {} tasks: {}", tasks.len(), ids.join(", "))
        }
        Waits::NoCapableWorker { missing } => format!("no capable worker: {missing}"),
        Waits::AtCapacity { full } => format!("at capacity: {full}"),
        Waits::Paused { queue } => format!("queue “{queue}” is paused"),
    }
}

fn list(tasks: &[TaskView]) -> String {
    if tasks.is_empty() {
        return "No tasks.".into();
    }
    let row = |task: &TaskView| {
        let why = match (&task.waits_for, &task.failure) {
            (Some(reason), _) => Some(waits(reason)),
            (None, Some(failure)) => Some(format!("{}: {}", failure.code, failure.message)),
            (None, None) => None,
        };
        let input = task.input.value();
        let about = match (agents::about(task.kind.as_str(), &input), why) {
            (Some(about), Some(why)) => format!("{} — {}", cut(&about, 40), cut(&why, 60)),
            (Some(one), None) | (None, Some(one)) => cut(&one, 60),
            (None, None) => cut(&agents::in_words(&input).unwrap_or_default(), 60),
        };
        vec![
            task.task_id.to_string(),
            task.status.to_string(),
            task.kind.to_string(),
            task.worker
                .as_ref()
                .map_or_else(|| "-".into(), ToString::to_string),
            task.attempts.to_string(),
            about,
        ]
    };
    table(
        &["task", "status", "type", "worker", "attempts", "about"],
        tasks.iter().map(row).collect(),
    )
}

fn show(task: &TaskView) -> String {
    let mut text = format!("{}  {}\n", task.task_id, task.status);
    let mut line = |name: &str, value: String| text += &format!("  {name:<10}{value}\n");
    line("type", task.kind.to_string());
    if let Some(run) = task.run_id {
        line("run", run.to_string());
    }
    line("priority", format!("{} ({})", task.band, task.priority.0));
    line("submitted", instant(task.submitted_at));
    if let Some(reason) = &task.waits_for {
        line("waits", waits(reason));
    }
    if let Some(worker) = &task.worker {
        line("worker", worker.to_string());
    }
    if let Some(reason) = &task.cancelled {
        line("cancelled", reason.clone());
    }
    for ended in &task.ended {
        let state = json!(ended.state);
        let why = ended.failure.as_ref().map_or_else(String::new, |failure| {
            format!(" — {}: {}", failure.code, cut(&failure.message, 300))
        });
        let (n, worker, ran) = (ended.attempt, &ended.worker, duration(ended.ran_ms));
        line(
            "attempt",
            format!(
                "{n} {} by {worker} after {ran}{why}",
                state.as_str().unwrap_or("")
            ),
        );
    }
    for record in &task.records {
        let what = match &record.state {
            RecordState::Done { output } => format!(" — {}", cut(output.text(), 300)),
            RecordState::Failed { failure } => {
                format!(" — {}: {}", failure.code, cut(&failure.message, 300))
            }
            RecordState::Intended | RecordState::InDoubt => String::new(),
        };
        let (key, n) = (&record.key, record.attempt);
        let (state, class) = (record.state.as_str(), record.effect.as_str());
        line(
            "step",
            format!("{key} {state} by attempt {n} ({class}){what}"),
        );
    }
    text += &format!("  brief\n{}", indented(&task.input));
    if let Some(output) = &task.output {
        text += &format!("  result\n{}", indented(output));
    }
    text.trim_end().to_owned()
}

/// Lines of a task's input or output that are shown; `--output json` has all of it.
const SHOWN_LINES_MAX: usize = 40;
/// Characters of one text in it.
const SHOWN_CHARS_MAX: usize = 1_000;

/// JSON as a person reads it: a line for each value below its name, texts wrapped, nothing empty.
fn indented(json: &Json) -> String {
    let mut lines = Vec::new();
    outline(&json.value(), "", 4, &mut lines);
    let left = lines.len().saturating_sub(SHOWN_LINES_MAX);
    lines.truncate(SHOWN_LINES_MAX);
    if left > 0 {
        lines.push(format!(
            "    … and {left} more lines; `--output json` has all"
        ));
    }
    lines.join("\n") + "\n"
}

fn outline(value: &Value, name: &str, indent: usize, lines: &mut Vec<String>) {
    let deeper = match name {
        "" | "-" => indent,
        _ => indent + 2,
    };
    let margin = " ".repeat(indent);
    match value {
        Value::Null => {}
        Value::Array(all) if all.is_empty() => {}
        Value::Object(all) if all.is_empty() => {}
        Value::Array(_) | Value::Object(_) if !["", "-"].contains(&name) => {
            lines.push(format!("{margin}{name}"));
            outline(value, "", deeper, lines);
        }
        Value::Array(all) => all.iter().for_each(|one| outline(one, "-", indent, lines)),
        Value::Object(all) => {
            let begins = lines.len();
            let inner = if name == "-" { indent + 2 } else { indent };
            for (name, value) in all {
                outline(value, name, inner, lines);
            }
            if name == "-"
                && let Some(first) = lines.get_mut(begins)
            {
                // The first line of each of several has its mark.
                first.replace_range(indent..=indent, "-");
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let said = match value {
                Value::String(text) => cut(text, SHOWN_CHARS_MAX),
                other => other.to_string(),
            };
            let said = match name {
                "" => said,
                "-" => format!("- {said}"),
                _ => format!("{name}: {said}"),
            };
            lines.extend(wrapped(&said, indent).lines().map(str::to_owned));
        }
    }
}
