//! The limit harness and the load generator.
//!
//! A number alone says nothing: the same program is ten times slower on a slow disk. So every figure
//! is measured beside the physical limits of the same machine, in the same run, interleaved with
//! them: what the disk syncs ([`limits`]), what the rules alone could do, what a careful loop over
//! SQLite does. A figure is the median over rounds, a ratio is taken against the limits measured
//! right before and after it, and when those differ too much from one another the report says that
//! the machine was too noisy to judge.
//!
//! With [`Options::server`] it is the server that is measured, over its own protocol, and beside it
//! what the network and what a PostgreSQL could do.
//!
//! [`run`] does everything; a program that calls it first calls [`child`], because memory, recovery
//! and servers are measured in processes of their own. Deliberately absent: any figure of another
//! product, and any number that was not measured in this run.

mod agents;
mod children;
mod figure;
mod flow;
mod http;
pub mod limits;
pub mod measure;
mod network;
mod postgres;
pub mod report;
mod scenarios;
mod serving;

pub use children::child;
pub use network::SERVER_NAMES;
pub use report::Report;
pub use scenarios::{GROUP_NAMES, NAMES};

use domain::error::{Code, Error};
use figure::{Meaning, Sample};
use limits::Harness;
use network::Network;
use report::{Limits, Machine, Noise, Scenario};
use scenarios::Bench;
use std::path::{Path, PathBuf};

/// Rounds when nothing is said.
pub const ROUNDS_DEFAULT: u32 = 3;
/// More rounds than anybody waits for.
pub const ROUNDS_MAX: u32 = 100;

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the stores go: on the disk that is to be measured. A subfolder is made and removed.
    pub folder: PathBuf,
    /// The server, over HTTP, instead of the engine in this process.
    pub server: bool,
    /// Which scenarios, of [`NAMES`] or for the server of [`SERVER_NAMES`]; empty means all.
    pub scenarios: Vec<String>,
    /// How often each is run, interleaved; 0 means [`ROUNDS_DEFAULT`].
    pub rounds: u32,
    /// Small sizes: shows that everything works, measures nothing.
    pub quick: bool,
}

impl Options {
    /// Everything, on the disk of this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            server: false,
            scenarios: Vec::new(),
            rounds: ROUNDS_DEFAULT,
            quick: false,
        }
    }
}

/// Measures. Blocks for minutes, and must not be called from within an async runtime.
///
/// `progress` is told in a few words what is being done.
///
/// # Errors
/// [`Code::OutOfRange`] for an unknown scenario or too many rounds; the store's own; what the disk
/// says. A goal that is missed is not an error.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report, Error> {
    let wanted = match options.server {
        true => network::wanted(&options.scenarios)?,
        false => scenarios::wanted(&options.scenarios)?,
    };
    if options.rounds > ROUNDS_MAX {
        let text = format!("{} rounds; at most {ROUNDS_MAX}", options.rounds);
        return Err(Error::new(Code::OutOfRange, text));
    }
    let rounds = match options.rounds {
        0 => ROUNDS_DEFAULT,
        rounds => rounds,
    };
    let folder = Folder::make(&options.folder)?;
    let mut harness = Harness::open(&folder.0, options.quick)?;
    let mut subject = Subject::new(&folder.0, options)?;
    if options.server {
        progress("a PostgreSQL to compare with");
        harness = harness.with_network(&folder.0)?;
    }
    progress("limits");
    let mut before = harness.measure()?;
    let mut samples: Vec<Vec<Sample>> = wanted.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        subject.begin(round);
        for (name, samples) in wanted.iter().zip(&mut samples) {
            progress(&format!("{name}, round {round} of {rounds}"));
            let Some(mut sample) = subject.run(name, progress)? else {
                continue;
            };
            let after = harness.measure()?;
            sample.set_neighbours(&before, &after);
            before = after;
            samples.push(sample);
        }
    }
    let scenarios: Vec<Scenario> = wanted
        .iter()
        .zip(&samples)
        .map(|(name, samples)| figure::conclude(name, subject.meaning(name), samples))
        .collect();
    Ok(Report {
        quick: options.quick,
        rounds,
        machine: Machine::read(),
        noise: Noise::judge(harness.samples()),
        limits: Limits::conclude(harness.samples(), harness.postgres_missing()),
        scenarios,
    })
}

/// What is measured.
enum Subject {
    Engine(Box<Bench>),
    Server(Network),
}

impl Subject {
    fn new(folder: &Path, options: &Options) -> Result<Self, Error> {
        let folder = folder.to_owned();
        Ok(match options.server {
            true => Self::Server(Network::new(folder, options.quick)?),
            false => Self::Engine(Box::new(Bench::new(folder, options.quick)?)),
        })
    }

    fn begin(&mut self, round: u32) {
        if let Self::Engine(bench) = self {
            bench.begin(round);
        }
    }

    fn run(&mut self, name: &str, progress: &mut dyn FnMut(&str)) -> Result<Option<Sample>, Error> {
        match self {
            Self::Engine(bench) => bench.run(name, progress),
            Self::Server(network) => network.run(name),
        }
    }

    fn meaning(&self, name: &str) -> Meaning {
        match self {
            Self::Engine(_) => scenarios::meaning(name),
            Self::Server(_) => network::meaning(name),
        }
    }
}

/// The subfolder of this run, removed when the run is over, however it ends.
struct Folder(PathBuf);

impl Folder {
    fn make(parent: &Path) -> Result<Self, Error> {
        let path = parent.join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|fault| measure::io("the bench folder", &fault))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about a folder that does not go.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
