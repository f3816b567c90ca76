//! `chargehand backup`: a copy of the store, also while another process works with it.

use crate::crew;
use crate::error::CliError;
use crate::output::{Output, counted, print, print_json};
use domain::time::Time;
use engine::Place;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use store::backend::sqlite::backup::{self, Manifest};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand backup --to backups/monday
  chargehand --store /srv/crew/store backup --to /mnt/backups/$(date +%F)")]
pub(crate) struct Args {
    /// The folder to make; there must be nothing yet.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

pub(crate) fn run(args: &Args, store: &str, output: Output) -> Result<ExitCode, CliError> {
    let folder = folder(store)?;
    if !folder.join(backup::TENANTS).is_dir() {
        crew::must_exist(&folder)?;
    }
    let manifest = backup::backup(&folder, &args.to, now())?;
    match output {
        Output::Json => print_json(
            &serde_json::json!({"backup": args.to.display().to_string(), "manifest": manifest}),
        ),
        Output::Text => {
            let mut text = format!("backup    {}\n", args.to.display());
            text += &listed(&manifest);
            text += "Every copy was read back, and its hash chain holds.\n";
            text += &format!(
                "next  chargehand --store NEW_FOLDER restore --from {}",
                args.to.display()
            );
            print(&text);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder that `--store` names; what is only in memory can be neither copied nor put back.
pub(crate) fn folder(store: &str) -> Result<PathBuf, CliError> {
    match store.parse()? {
        Place::Folder(folder) => Ok(folder),
        Place::Memory => Err(CliError::caller(
            "store.path",
            "a store in memory has no backup",
            "Name a folder with `--store`.",
        )),
    }
}

/// A line for each store of a backup.
pub(crate) fn listed(manifest: &Manifest) -> String {
    let line = |store: &backup::Copied| {
        let folder = Path::new(&store.file).parent().unwrap_or(Path::new(""));
        let tenant = folder.file_name().map(|name| name.display().to_string());
        format!(
            "{:<8}  {}, the last is {}…, {} bytes\n",
            tenant.as_deref().unwrap_or("store"),
            counted(
                usize::try_from(store.position).unwrap_or(usize::MAX),
                "event"
            ),
            store.head.get(..16).unwrap_or(&store.head),
            store.bytes
        )
    };
    manifest.stores.iter().map(line).collect()
}

/// The clock.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |since| since.as_millis() as u64))
}
