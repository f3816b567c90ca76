//! `chargehand config`: what the server's settings are, and where they come from. The flags of the
//! server are here too, because `serve` and `config show` take the same ones.

use crate::error::CliError;
use crate::output::{Output, print, print_json, say, table};
use domain::error::Error;
use serde_json::json;
use server::config::{Config, Loaded, Override, SETTINGS, Sources, reference};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Print every setting with its value and who said it: default, file, environment or flag.
    #[command(after_help = "Examples:
  chargehand config show
  chargehand config show --config server.toml --set limits.connections=64 --output json")]
    Show(ServerFlags),
    /// Print the file with every setting, its default and what it does.
    #[command(after_help = "Example:\n  chargehand config default > chargehand.toml")]
    Default,
}

/// What the command line says about the server. Flags are stronger than CHARGEHAND_… variables, those
/// are stronger than the file, and that is stronger than the defaults.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServerFlags {
    /// Read settings from this file [default: chargehand.toml, if it is there].
    // Not `env` of clap: the origin of a value would be lost.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here: an IP address and a port.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Encrypt with this certificate and its chain, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// How a log line is written: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which lines are logged, such as `info` or `info,server=debug`.
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Start so many workers with all the built-in skills in the server's process.
    #[arg(long, value_name = "N")]
    local_workers: Option<String>,
    /// Any setting, such as `limits.connections=64`; can be repeated. `config default` lists them.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl ServerFlags {
    /// All settings: these flags over the environment, the file and the defaults. `store` is the
    /// program's own `--store` where it was given as a flag; the variable is read here.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub(crate) fn load(&self, store: Option<&str>) -> Result<Loaded, Error> {
        let said = [
            ("--store", store),
            ("--listen", self.listen.as_deref()),
            ("--tls-certificate", self.tls_certificate.as_deref()),
            ("--tls-key", self.tls_key.as_deref()),
            ("--log-format", self.log_format.as_deref()),
            ("--log-level", self.log_level.as_deref()),
            ("--local-workers", self.local_workers.as_deref()),
        ];
        let flags = said
            .into_iter()
            .filter_map(|(flag, value)| Some(Override::flag(flag, value?)));
        let set = self.set.iter();
        let set = set.map(|(key, value)| Override::set(key.as_str(), value.as_str()));
        Config::load(Sources {
            file: self.config.clone(),
            folder: PathBuf::new(),
            env: std::env::vars_os(),
            flags: flags.chain(set).collect(),
        })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err("use KEY=VALUE, such as limits.connections=64".into()),
    }
}

pub(crate) fn run(args: &Args, store: Option<&str>, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::Show(flags) => show(&flags.load(store)?, output),
        Args::Default => default(output),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(loaded: &Loaded, output: Output) {
    let chosen = loaded.provenance.iter();
    match output {
        Output::Json => print_json(&json!({
            "items": chosen
                .map(|chosen| json!({
                    "key": chosen.setting.key,
                    "value": chosen.value,
                    "unit": chosen.setting.unit,
                    "layer": chosen.origin.layer(),
                    "from": chosen.origin.to_string(),
                }))
                .collect::<Vec<_>>(),
            "warnings": loaded.warnings,
        })),
        Output::Text => {
            warn(loaded);
            let rows = chosen.map(|chosen| {
                let value = match chosen.value.to_string() {
                    text if text.is_empty() => "-".to_owned(),
                    text => text,
                };
                let (key, from) = (chosen.setting.key.to_owned(), chosen.origin.to_string());
                vec![key, value, from]
            });
            print(&table(&["setting", "value", "from"], rows.collect()));
        }
    }
}

/// Says what looks like a mistake.
pub(crate) fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}"));
    }
}

fn default(output: Output) {
    match output {
        Output::Json => print_json(&json!({
            "items": SETTINGS
                .iter()
                .map(|setting| json!({
                    "key": setting.key,
                    "default": setting.default(),
                    "takes": setting.takes(),
                    "unit": setting.unit,
                    "environment": setting.environment(),
                    "flag": setting.flag,
                    "help": setting.help,
                }))
                .collect::<Vec<_>>()
        })),
        Output::Text => print(reference().trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;
    use std::collections::BTreeSet;

    #[test]
    fn the_flags_are_those_of_the_table() {
        let command = ServerFlags::augment_args(clap::Command::new("serve"));
        let longs = command.get_arguments().filter_map(clap::Arg::get_long);
        let mut flags: BTreeSet<String> = longs.map(|long| format!("--{long}")).collect();
        for general in ["--config", "--set"] {
            assert!(flags.remove(general), "{general}");
        }
        // The one that all commands have.
        flags.insert("--store".into());
        let table = SETTINGS.iter().filter_map(|setting| setting.flag);
        assert_eq!(flags, table.map(str::to_owned).collect());
    }
}
