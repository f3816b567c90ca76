//! `chargehand restore`: a backup becomes a store again.

use crate::backup::{folder, listed, now};
use crate::error::CliError;
use crate::output::{Output, counted, instant, print, print_json};
use engine::SystemIds;
use std::path::PathBuf;
use std::process::ExitCode;
use store::backend::sqlite::restore;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand --store restored restore --from backups/monday
  chargehand restore --from backups/monday --replace")]
pub(crate) struct Args {
    /// The folder that `chargehand backup` made.
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// Move the store that is there aside, and take its place.
    #[arg(long)]
    replace: bool,
}

pub(crate) fn run(args: &Args, store: &str, output: Output) -> Result<ExitCode, CliError> {
    let folder = folder(store)?;
    let ids = || Box::new(SystemIds) as Box<_>;
    let restored = restore::restore(&args.from, &folder, args.replace, now(), &ids)?;
    match output {
        Output::Json => print_json(&serde_json::json!({
            "store": folder.display().to_string(), "manifest": restored.manifest,
            "workers_released": restored.workers_released, "moved_to": restored.moved_to.map(|aside| aside.display().to_string()),
        })),
        Output::Text => {
            let mut text = format!(
                "restored  {}, as it was at {}\n",
                folder.display(),
                instant(restored.manifest.made_at)
            );
            text += &listed(&restored.manifest);
            text += &format!(
                "released  what {} held\n",
                counted(restored.workers_released, "worker")
            );
            if let Some(aside) = &restored.moved_to {
                text += &format!("replaced  the store before is in {}\n", aside.display());
            }
            text += &format!("next  chargehand --store {} resume", folder.display());
            print(&text);
        }
    }
    Ok(ExitCode::SUCCESS)
}
