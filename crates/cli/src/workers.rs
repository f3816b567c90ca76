//! `chargehand workers`.

use crate::error::CliError;
use crate::output::{Output, duration, print, print_json, table};
use crate::target::Target;
use protocol::api::worker_list_all;
use protocol::v1::WorkerView;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List workers: who is there, who is busy, who did what.
    #[command(after_help = "Example:\n  chargehand workers list --output json")]
    List,
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let Args::List = args;
    let workers = worker_list_all(&*target.open_to_read()?.api()).await?;
    match output {
        Output::Json => print_json(&serde_json::json!({"items": workers})),
        Output::Text if workers.is_empty() => print("No workers."),
        Output::Text => {
            let row = |worker: &WorkerView| {
                vec![
                    worker.worker_id.to_string(),
                    worker.status.as_str().to_owned(),
                    format!("{}/{}", worker.current_task_count, worker.capacity),
                    worker.completed.to_string(),
                    worker.failed.to_string(),
                    duration(worker.average_ms as u64),
                    worker.reason.clone().unwrap_or_default(),
                ]
            };
            let heading = [
                "worker",
                "status",
                "tasks",
                "completed",
                "failed",
                "average",
                "reason",
            ];
            print(&table(&heading, workers.iter().map(row).collect()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
