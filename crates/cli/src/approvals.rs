//! `chargehand approvals`: calls of tools that wait for a person's yes.

use crate::error::CliError;
use crate::output::{Output, cut, print, print_json, table};
use crate::target::Target;
use agent::mind::APPROVAL;
use domain::id::{RunId, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::record::Finding;
use domain::task::{TaskStatus, Waits};
use protocol::api::TaskQuery;
use protocol::v1::TaskView;
use protocol::{Api, ApiRead};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

/// Tasks of one look at what waits.
const PAGE: usize = 1_000;
/// Between two looks whether somebody is asked.
const LOOK: Duration = Duration::from_millis(300);

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
                        let (_, why) = waits(task)?;
                        Some(vec![task.task_id.to_string(), cut(why, 500)])
                    });
                    print(&table(&["task", "what"], rows.collect()));
                }
            }
        }
        Args::Yes { task } => say(&task, None, target, output).await?,
        Args::No { task, reason } => say(&task, Some(&reason), target, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The step of a task that waits for a person, and for what.
fn waits(task: &TaskView) -> Option<(&Name, &str)> {
    match task.waits_for.as_ref()? {
        Waits::AwaitingHuman { step, why } => Some((step, why)),
        _ => None,
    }
}

/// The same where it is a yes that is waited for, and not what became of a call.
pub(crate) fn asks(task: &TaskView) -> Option<(&Name, &str)> {
    waits(task).filter(|(step, _)| step.as_str().starts_with(APPROVAL))
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
        waiting.extend(page.items.into_iter().filter(|task| waits(task).is_some()));
        match page.next {
            Some(next) => query.after = Some(next.parse()?),
            None => return Ok(waiting),
        }
    }
}

/// Waits until a task of this run asks for a yes that `known` has not seen.
pub(crate) async fn next(
    api: &dyn ApiRead,
    run: RunId,
    known: &mut BTreeSet<(TaskId, Name)>,
) -> Result<TaskView, CliError> {
    loop {
        let query = TaskQuery {
            run: Some(run),
            status: Some(TaskStatus::Pending),
            limit: PAGE,
            ..TaskQuery::default()
        };
        for task in api.task_list(query).await?.items {
            let step = asks(&task).map(|(step, _)| step.clone());
            if step.is_some_and(|step| known.insert((task.task_id, step))) {
                return Ok(task);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says yes, or no and why, to what a task asks.
pub(crate) async fn answer(
    api: &dyn Api,
    task: &TaskView,
    refused: Option<&str>,
) -> Result<(), CliError> {
    if let (None, Some((_, why))) = (asks(task), waits(task)) {
        return Err(CliError::caller(
            "task.state",
            format!("a yes does not say how it was: {} {why}", task.task_id),
            "Find out whether the call happened, and say it with `chargehand tasks resolve`.",
        ));
    }
    let Some((step, _)) = asks(task) else {
        return Err(CliError::caller(
            "task.state",
            format!("{} waits for nobody's yes", task.task_id),
            "List what does with `chargehand approvals list`.",
        ));
    };
    let said = match refused {
        None => json!({"approved": true}),
        Some(reason) => json!({"approved": false, "reason": reason}),
    };
    let finding = Finding::Done {
        output: Json::from_value(&said),
    };
    api.record_resolve(task.task_id, step.clone(), finding)
        .await?;
    Ok(())
}

async fn say(
    task: &str,
    refused: Option<&str>,
    target: &Target,
    output: Output,
) -> Result<(), CliError> {
    let task: TaskId = task.parse()?;
    let engine = target.open_existing()?;
    let view = engine.task_get(task).await?;
    answer(&*engine.api(), &view, refused).await?;
    match output {
        Output::Json => print_json(&engine.task_get(task).await?),
        Output::Text => print(&format!("{task} goes on.")),
    }
    Ok(())
}
