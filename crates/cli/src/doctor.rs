//! `chargehand doctor`: is the store sound?

use crate::crew;
use crate::error::CliError;
use crate::output::{Output, print, print_json};
use domain::error::Error;
use engine::Place;
use std::process::ExitCode;
use store::Reader;
use store::backend::sqlite::Sqlite;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand doctor
  chargehand doctor --replay")]
pub(crate) struct Args {
    /// Rebuild every row from the events and compare byte for byte. Needs memory for all rows.
    #[arg(long)]
    replay: bool,
}

pub(crate) async fn run(args: Args, store: &str, output: Output) -> Result<ExitCode, CliError> {
    let Place::Folder(folder) = store.parse()? else {
        let hint = "Name a folder with `--store`.";
        return Err(CliError::caller(
            "store.path",
            "a store in memory has nothing to check",
            hint,
        ));
    };
    crew::must_exist(&folder)?;
    // Opening recovers: rows that were behind the log when the last process ended catch up.
    let store = store::Store::open(
        Box::new(Sqlite::open(&folder)?),
        Box::new(engine::SystemIds),
    )?;
    let (events, hash) = (store.head(), store.hash());
    let mut reader = store.reader()?;
    let report = if args.replay {
        Some(store::replay::replay(&mut *reader)?)
    } else {
        None
    };
    let damage = if args.replay {
        Vec::new()
    } else {
        chain(&mut *reader)?
    };
    let integrity = Sqlite::check(&folder)?;
    let differences = report
        .as_ref()
        .map_or(&damage, |report| &report.differences);
    let sound = differences.is_empty() && integrity == "ok";
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    match output {
        Output::Json => print_json(&serde_json::json!({
            "store": folder, "sound": sound, "events": events, "chain": hash,
            "file": integrity, "rows_compared": report.as_ref().map(|report| report.rows),
            "differences": differences,
        })),
        Output::Text => {
            let mut text = format!("store     {}\nfile      {integrity}\n", folder.display());
            text += &format!(
                "events    {events}, hash chain holds up to {}…\n",
                &hash[..16]
            );
            match &report {
                Some(report) => text += &format!("replay    {} rows compared\n", report.rows),
                None => text += "replay    not done; `chargehand doctor --replay` does it\n",
            }
            for difference in differences {
                text += &format!("differs   {difference}\n");
            }
            text += if sound {
                "The store is sound."
            } else {
                "The store is damaged."
            };
            print(&text);
        }
    }
    drop(store);
    Ok(ExitCode::from(u8::from(!sound)))
}

/// Walks the hash chain without folding anything.
fn chain(reader: &mut dyn Reader) -> Result<Vec<String>, Error> {
    let (mut position, mut hash) = (0, store::chain::GENESIS);
    loop {
        let mut frames = reader.frames(position, 10_000)?;
        frames.retain(|frame| frame.first > position);
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        for frame in frames {
            hash = match store::chain::verify(&hash, position + 1, &frame) {
                Ok(hash) => hash,
                Err(error) => return Ok(vec![error.message]),
            };
            position += store::chain::lines(&frame.body).count() as u64;
        }
    }
}
