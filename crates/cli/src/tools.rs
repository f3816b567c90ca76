//! `chargehand tools`: what agents can be granted, and what they miss.

use crate::crew_file;
use crate::error::CliError;
use crate::output::{Output, cut, duration, instant, print, print_json, table};
use crate::target::Target;
use agent::crew::Crew;
use agent::tool::Toolbox;
use domain::demand::Demand;
use domain::error::{Code, Error};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List the tools that a crew file's agents can be granted, and whether they can be called now.
    #[command(
        after_help = "Examples:\n  chargehand tools list --crew crew.yaml\n  chargehand tools list --category http"
    )]
    List {
        /// The crew file, for its own tools; without it, those that are built in.
        #[arg(long, value_name = "FILE")]
        crew: Option<PathBuf>,
        /// Only those of this category.
        #[arg(long, value_name = "WORD")]
        category: Option<String>,
    },
    /// List the tools that somebody wanted and did not have: how often, and when last.
    #[command(after_help = "Example:\n  chargehand tools missing --output json")]
    Missing,
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::List { crew, category } => list(crew, category, output).await,
        Args::Missing => missing(target, output).await,
    }
}

/// Characters of why a tool cannot be called.
const REASON_CHARS: usize = 200;

async fn list(
    crew: Option<PathBuf>,
    category: Option<String>,
    output: Output,
) -> Result<ExitCode, CliError> {
    let tools = match crew.as_deref().map(Crew::load) {
        None => Toolbox::built_in(),
        Some(Ok(crew)) => Toolbox::of_crew(&crew, []),
        Some(Err(mistakes)) => {
            crew_file::complain(&mistakes, output);
            return Ok(ExitCode::from(2));
        }
    };
    let tools = tools.map_err(|failure| Error::new(Code::OutOfRange, failure.message))?;
    let cards = match &category {
        Some(category) => tools.cards_of(category),
        None => tools.cards(),
    };
    let mut rows = Vec::new();
    let mut items = Vec::new();
    for card in cards {
        let lacks = tools.available(&card.name).await.err();
        let retries = tools.retries(&card.name).unwrap_or_default();
        let said = lacks.as_ref().map_or_else(
            || "yes".to_owned(),
            |lacks| cut(&lacks.message, REASON_CHARS),
        );
        rows.push(vec![
            card.name.to_string(),
            card.category.clone(),
            card.effect.as_str().to_owned(),
            duration(card.timeout.as_millis() as u64),
            retries.to_string(),
            said,
        ]);
        items.push(json!({
            "name": card.name, "category": card.category, "description": card.description,
            "effect": card.effect, "timeout_ms": card.timeout.as_millis() as u64, "retry": retries,
            "available": lacks.is_none(), "reason": lacks.map(|lacks| lacks.message),
        }));
    }
    match output {
        Output::Json => print_json(&json!({"items": items})),
        Output::Text if rows.is_empty() => print("No tools."),
        Output::Text => {
            let heading = [
                "tool",
                "category",
                "effect",
                "time limit",
                "retry",
                "available",
            ];
            print(&table(&heading, rows));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn missing(target: &Target, output: Output) -> Result<ExitCode, CliError> {
    let missing = target.open_to_read()?.api().tool_demand_list().await?;
    match output {
        Output::Json => print_json(&json!({"items": missing})),
        Output::Text if missing.is_empty() => print("No tool was missed."),
        Output::Text => {
            let row = |demand: &Demand| {
                vec![
                    demand.last.tool.to_string(),
                    demand.count.to_string(),
                    instant(demand.last_at),
                    demand.last.lack.as_str().to_owned(),
                    demand.last.by.to_string(),
                ]
            };
            let heading = ["tool", "times", "last", "why", "wanted by"];
            print(&table(&heading, missing.iter().map(row).collect()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
