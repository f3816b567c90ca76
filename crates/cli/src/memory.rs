//! `chargehand memory`: the blackboard, as agents see it.

use crate::error::CliError;
use crate::output::{Output, cut, instant, print, print_json, table};
use crate::target::Target;
use domain::blackboard::{Entry, EntryFilter, NewEntry};
use domain::json::Json;
use domain::name::Name;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List entries: the most important first, then the newest.
    #[command(after_help = "Examples:
  chargehand memory list --run run_01k5z3v9wfe4rvq0t2m6n8p7xy --tag result --tag completed
  chargehand memory list --segment notes --importance 0.8")]
    List {
        /// The board of this run; without it the shared board.
        #[arg(long)]
        run: Option<String>,
        /// All of these tags.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// At least one of these tags.
        #[arg(long = "any-tag", value_name = "TAG")]
        any_tags: Vec<String>,
        /// Only this segment.
        #[arg(long)]
        segment: Option<String>,
        /// At least this important, 0 to 1.
        #[arg(long)]
        importance: Option<f64>,
        /// Not by this author.
        #[arg(long, value_name = "AUTHOR")]
        exclude: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = crate::output::limit, value_name = "N")]
        limit: usize,
    },
    /// Write an entry: text, or JSON.
    #[command(after_help = "Example:
  chargehand memory write \"Invoices are in EUR\" --tag finance --importance 0.9 --author me")]
    Write {
        /// What.
        content: String,
        /// On the board of this run; without it on the shared board.
        #[arg(long)]
        run: Option<String>,
        /// Found by these tags.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Part of the board.
        #[arg(long, default_value = "notes")]
        segment: String,
        /// How important, 0 to 1.
        #[arg(long, default_value_t = 0.5)]
        importance: f64,
        /// Who writes.
        #[arg(long, default_value = "user")]
        author: String,
        /// Seconds until it is forgotten.
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
}

fn names(texts: Vec<String>) -> Result<Vec<Name>, CliError> {
    texts.into_iter().map(|text| Ok(text.parse()?)).collect()
}

pub(crate) async fn run(args: Args, target: &Target, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::List {
            run,
            tags,
            any_tags,
            segment,
            importance,
            exclude,
            limit,
        } => {
            let filter = EntryFilter {
                run: run.map(|run| run.parse()).transpose()?,
                tags_any: names(any_tags)?,
                tags_all: names(tags)?,
                segment: segment.map(|segment| segment.parse()).transpose()?,
                importance_min: importance,
                exclude_own: exclude.map(|author| author.parse()).transpose()?,
                limit: Some(limit),
                ..EntryFilter::default()
            };
            let entries = target.open_to_read()?.entry_list(filter).await?;
            match output {
                Output::Json => print_json(&serde_json::json!({"items": entries})),
                Output::Text if entries.is_empty() => print("No entries."),
                Output::Text => print(&list(&entries)),
            }
        }
        Args::Write {
            content,
            run,
            tags,
            segment,
            importance,
            author,
            ttl,
        } => {
            let value = serde_json::from_str(&content).unwrap_or(Value::String(content));
            let mut entry = NewEntry::new(author.parse()?, Json::from_value(&value));
            entry.run = run.map(|run| run.parse()).transpose()?;
            entry.tags = names(tags)?;
            entry.segment = segment.parse()?;
            entry.importance = importance;
            entry.ttl_ms = ttl.map(|seconds| seconds.saturating_mul(1_000));
            let id = target.open()?.entry_write(entry).await?;
            match output {
                Output::Json => print_json(&serde_json::json!({"entry_id": id})),
                Output::Text => print(&id.to_string()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        vec![
            format!("{:.1}", entry.importance),
            entry.segment.to_string(),
            entry.author.to_string(),
            instant(entry.at),
            entry
                .tags
                .iter()
                .map(Name::as_str)
                .collect::<Vec<_>>()
                .join(" "),
            cut(entry.content.text(), 70),
        ]
    };
    let heading = ["importance", "segment", "author", "at", "tags", "content"];
    table(&heading, entries.iter().map(row).collect())
}
