//! `chargehand completion`.

use crate::Cli;
use crate::error::CliError;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand completion bash > /etc/bash_completion.d/chargehand
  chargehand completion zsh > ~/.zfunc/_chargehand")]
pub(crate) struct Args {
    /// For which shell.
    shell: Shell,
}

pub(crate) fn print(args: &Args) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "chargehand", &mut script);
    crate::output::print(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}
