//! `chargehand bench`.

use crate::error::CliError;
use crate::output::Output;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, _output: Output) -> Result<ExitCode, CliError> {
    Ok(ExitCode::SUCCESS)
}
