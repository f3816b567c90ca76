//! `chargehand status`: what the monitor sees. It can only read, by type.

use crate::error::CliError;
use crate::output::{Output, print, print_json};
use crate::target::Target;
use agent::monitor::Watch;
use domain::time::Time;
use protocol::ApiRead;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) async fn run(target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let api: Arc<dyn ApiRead> = target.open_to_read()?.api();
    let mut watch = Watch::new(Arc::clone(&api));
    let progress = watch.monitor_progress().await?;
    let conflicts = watch.conflicts().await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let concerns = watch.concerns(Time(now)).await?;
    let statistics = api.statistics().await?;
    if output == Output::Json {
        print_json(&serde_json::json!({
            "progress": progress, "conflicts": conflicts, "concerns": concerns,
            "statistics": statistics,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "workers   {} active\ntasks     {} pending ({} running), {} completed, {} failed, {} cancelled\n\
         attempts  {}, {:.1} ms on average; {} late results refused\nevents    {}",
        progress.active_workers,
        progress.pending_tasks,
        progress.running_tasks,
        progress.completed_tasks,
        progress.failed_tasks,
        progress.cancelled_tasks,
        statistics.attempts,
        statistics.average_execution_ms,
        statistics.results_refused,
        statistics.position,
    );
    for conflict in &conflicts {
        text += &format!("\nconflict  {}", serde_json::json!(conflict));
    }
    for concern in &concerns {
        text += &format!("\nconcern   {}", serde_json::json!(concern));
    }
    print(&text);
    Ok(ExitCode::SUCCESS)
}
