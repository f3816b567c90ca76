//! `chargehand bench`: how fast, beside what this machine can do at all.

use crate::error::CliError;
use crate::output::{Output, print, print_json, say};
use bench::{GROUP_NAMES, NAMES, Options, ROUNDS_DEFAULT, SERVER_NAMES};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand bench
  chargehand bench fan_out_100k ack --rounds 5
  chargehand bench agent
  chargehand bench --server
  chargehand bench --server http_submit http_single_op
  chargehand bench --quick --output json

The server is compared with a PostgreSQL of its own when Debian's package is installed.")]
pub(crate) struct Args {
    /// Which scenarios; none named means all.
    #[arg(value_name = "SCENARIO", value_parser = clap::builder::PossibleValuesParser::new(NAMES.into_iter().chain(GROUP_NAMES).chain(SERVER_NAMES)))]
    scenarios: Vec<String>,
    /// Measure the server over HTTP, instead of the engine in this process.
    // In the place of the flag that every other command has, and of its type: the bench starts
    // servers of its own.
    #[arg(long, num_args = 0, default_missing_value = "its own")]
    server: Option<String>,
    /// How often each is run, in turns with the limits of the machine.
    #[arg(long, default_value_t = ROUNDS_DEFAULT, value_name = "N")]
    rounds: u32,
    /// Small sizes: shows that it works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// On the disk of this folder; what is made there is removed.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<ExitCode, CliError> {
    let options = Options {
        folder: args.folder.clone(),
        server: args.server.is_some(),
        scenarios: args.scenarios.clone(),
        rounds: args.rounds,
        quick: args.quick,
    };
    let report = bench::run(&options, &mut |doing| say(&format!("  {doing}")))?;
    match output {
        Output::Json => print_json(&report),
        Output::Text => print(report.to_text().trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
