//! `chargehand approvals`: calls of tools that wait for a person's yes.

use crate::error::CliError;
use crate::output::{Output, cut, print, print_json, table};
use crate::target::Target;
use domain::id::TaskId;
use domain::json::Json;
use domain::name::Name;
use domain::record::Finding;
use domain::task::{TaskStatus, Waits};
use protocol::ApiRead;
use protocol::api::TaskQuery;
use protocol::v1::TaskView;
use serde_json::json;
use std::process::ExitCode;

/// Tasks of one look at what waits.
const PAGE: usize = 1_000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List the calls that wait.
    #[command(after_help = "Example:\n  chargehand approvals list")]
    List,
    /// The call may be made; its task goes on.
    #[command(after_help = "Example:\n  chargehand approvals yes task_01k5z3v9wfe4rvq0t2m6n80000")]
    Yes {
        /// Whose call.
        task: String,
    },
    /// The call may not be made; its agent is told so, and goes on without it.
    #[command(
        after_help = "Example:\n  chargehand approvals no task_01k5z3v9wfe4rvq0t2m6n80000 --reason \"not to this address\""
    )]
    No {
        /// Whose call.
        task: String,
        /// Why.
        #[arg(long, default_value = "without a reason")]
        reason: String,
    },
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::List => {
            let waiting = waiting(&*target.open_to_read()?).await?;
            match output {
                Output::Json => print_json(&json!({ "items": waiting })),
                Output::Text if waiting.is_empty() => print("Nothing waits for a person."),
                Output::Text => {
                    let rows = waiting.iter().filter_map(|task| {
                        let (_, why) = asks(task)?;
                        Some(vec![task.task_id.to_string(), cut(why, 400)])
                    });
                    print(&table(&["task", "what"], rows.collect()));
                }
            }
        }
        Args::Yes { task } => say(&task, json!({"approved": true}), target, output).await?,
        Args::No { task, reason } => {
            say(
                &task,
                json!({"approved": false, "reason": reason}),
                target,
                output,
            )
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The step of a task that waits for a person, and for what.
fn asks(task: &TaskView) -> Option<(&Name, &str)> {
    match task.waits_for.as_ref()? {
        Waits::AwaitingHuman { step, why } => Some((step, why)),
        _ => None,
    }
}

async fn waiting(api: &dyn ApiRead) -> Result<Vec<TaskView>, CliError> {
    let mut waiting = Vec::new();
    let mut query = TaskQuery {
        status: Some(TaskStatus::Pending),
        limit: PAGE,
        ..TaskQuery::default()
    };
    loop {
        let page = api.task_list(query.clone()).await?;
        waiting.extend(page.items.into_iter().filter(|task| asks(task).is_some()));
        match page.next {
            Some(next) => query.after = Some(next.parse()?),
            None => return Ok(waiting),
        }
    }
}

async fn say(
    task: &str,
    said: serde_json::Value,
    target: &Target,
    output: Output,
) -> Result<(), CliError> {
    let task: TaskId = task.parse()?;
    let engine = target.open_existing()?;
    let view = engine.task_get(task).await?;
    let Some((step, _)) = asks(&view) else {
        return Err(CliError::caller(
            "task.state",
            format!("{task} waits for nobody's yes"),
            "List what does with `chargehand approvals list`.",
        ));
    };
    let finding = Finding::Done {
        output: Json::from_value(&said),
    };
    engine.record_resolve(task, step.clone(), finding).await?;
    match output {
        Output::Json => print_json(&engine.task_get(task).await?),
        Output::Text => print(&format!("{task} goes on.")),
    }
    Ok(())
}
