//! The harness alone, for profilers and its own test. `chargehand bench` is the same with help.
//!
//! `chargehand-bench [--server] [--quick] [--json] [--rounds N] [--folder FOLDER] [SCENARIO]…`

use bench::Options;
use domain::error::{Code, Error};

// The product's, so that what is profiled here is what is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    bench::child();
    let mut options = Options::new(std::env::temp_dir());
    let mut json = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = || Error::new(Code::OutOfRange, format!("{argument} needs a value"));
            arguments.next().ok_or_else(missing)
        };
        match argument.as_str() {
            "--server" => options.server = true,
            "--quick" => options.quick = true,
            "--json" => json = true,
            "--rounds" => options.rounds = value()?.parse()?,
            "--folder" => options.folder = value()?.into(),
            _ => options.scenarios.push(argument),
        }
    }
    let report = bench::run(&options, &mut |doing| eprintln!("{doing}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.to_text());
    }
    Ok(())
}
