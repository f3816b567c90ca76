//! `chargehand events`: the log, an event per line.

use crate::error::CliError;
use crate::output::{Output, print, print_json};
use crate::target::Target;
use domain::event::Recorded;
use domain::limits::PAGE_MAX;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand events
  chargehand events --after 120 --limit 50
  chargehand events | grep '\"task.completed\"'

Each line is one event as JSON: its `position` (1, 2, 3, … without a gap), `at` in milliseconds since 1970, and what happened. With `--output json` they are the `items` of one document.")]
pub(crate) struct Args {
    /// Only events after this position.
    #[arg(long, default_value_t = 0, value_name = "POSITION")]
    after: u64,
    /// At most so many. Default: all there are.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let engine = target.open_to_read()?;
    let (mut position, mut left) = (args.after, args.limit.unwrap_or(usize::MAX));
    let mut items: Vec<Recorded> = Vec::new();
    while left > 0 {
        let page = engine.event_list(position, left.min(PAGE_MAX)).await?;
        let Some(last) = page.last() else { break };
        position = last.position;
        left = left.saturating_sub(page.len());
        match output {
            Output::Json => items.extend(page),
            Output::Text => page.iter().for_each(|event| print(&line(event))),
        }
    }
    if output == Output::Json {
        print_json(&serde_json::json!({"items": items}));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Recorded) -> String {
    // What was read from JSON writes as JSON.
    serde_json::to_string(event).unwrap_or_default()
}
