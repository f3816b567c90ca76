//! The `chargehand` command: one file per command, one error type, one way to print.

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

mod agents;
mod approvals;
mod backup;
mod bench;
mod chat;
mod completion;
mod config;
mod crew;
mod crew_file;
mod doctor;
mod error;
mod events;
mod interrupt;
mod keys;
mod memory;
mod output;
mod progress;
mod reach;
mod restore;
mod resume;
mod review;
mod run;
mod runs;
mod serve;
mod skills;
mod speech;
mod status;
mod target;
mod tasks;
mod tools;
mod workers;

use error::CliError;
use output::Output;
use target::{Target, TargetArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A durable supervisor for crews of workers.
///
/// Hand it a goal and real input: it plans, splits the work into tasks, delegates them to a crew,
/// watches, retries, and makes one result. Everything that happens is in a durable log: kill it at
/// any moment, and `chargehand resume` goes on without doing anything twice.
#[derive(Debug, Parser)]
#[command(
    name = "chargehand",
    version,
    propagate_version = true,
    after_help = "Examples:
  chargehand run \"Analyze the sentiment of these customer reviews\" --input reviews/*.txt
  chargehand run \"Resize the images\" --input list.csv --worker-command ./resize.sh --workers 8
  chargehand resume
  chargehand runs list --output json"
)]
struct Cli {
    #[command(flatten)]
    target: TargetArgs,
    /// How to print.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plan a goal, delegate it to a crew, and print the result.
    Run(run::Args),
    /// Talk with an agent of a crew, which may have the whole crew work; conversations are kept.
    Chat(chat::Args),
    /// Serve the HTTP API: a team's server, with workers in any language.
    Serve(serve::Args),
    /// Go on with every run that was interrupted, or with one.
    Resume(resume::Args),
    /// List, show, watch, cancel or retry runs.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand runs list\n  chargehand runs show run_01k5z3v9wfe4rvq0t2m6n8p7xy"
    )]
    Runs(runs::Args),
    /// List or show tasks; cancel, redrive or reassign one.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand tasks list --status failed\n  chargehand tasks show task_01k5z3v9wfe4rvq0t2m6n80000"
    )]
    Tasks(tasks::Args),
    /// List workers.
    #[command(subcommand, after_help = "Example:\n  chargehand workers list")]
    Workers(workers::Args),
    /// Make, list and revoke keys: who may come in to a server.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand keys create --label ops --scope admin\n  chargehand keys list"
    )]
    Keys(keys::Args),
    /// Make and list tenants: each has a store, workers, keys and a log of its own.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand tenants create acme\n  chargehand tenants list"
    )]
    Tenants(keys::TenantArgs),
    /// List calls of tools that wait for a person, and say yes or no.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand approvals list\n  chargehand approvals yes task_01k5z3v9wfe4rvq0t2m6n80000"
    )]
    Approvals(approvals::Args),
    /// Read and write the blackboard.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand memory list\n  chargehand memory write \"Invoices are in EUR\" --tag finance"
    )]
    Memory(memory::Args),
    /// Check crew files, which describe agents, models and tools; print their schema.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand crew check crew.yaml\n  chargehand crew schema > crew.schema.json"
    )]
    Crew(crew_file::Args),
    /// Write a commented crew file to begin with.
    Init(crew_file::InitArgs),
    /// List the tools that agents can be granted, and those that they miss.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand tools list --crew crew.yaml\n  chargehand tools missing"
    )]
    Tools(tools::Args),
    /// List the skills that work without a model.
    #[command(after_help = "Example:\n  chargehand skills")]
    Skills,
    /// Counts, conflicts and work that does not move, computed from the log.
    #[command(after_help = "Example:\n  chargehand status --output json")]
    Status,
    /// Print the log of all that happened, an event per line.
    Events(events::Args),
    /// Check the store's health; rebuild its rows from its events and compare.
    Doctor(doctor::Args),
    /// Show the server's settings and where they come from, or the file with all of them.
    #[command(
        subcommand,
        after_help = "Examples:\n  chargehand config show\n  chargehand config default > chargehand.toml"
    )]
    Config(config::Args),
    /// Copy the store into a new folder, also while another process works with it.
    Backup(backup::Args),
    /// Put a backup into the store's folder.
    Restore(restore::Args),
    /// Measure this machine's limits, and the product against them.
    Bench(bench::Args),
    /// Print the completion script for a shell.
    Completion(completion::Args),
}

fn main() -> ExitCode {
    // A measured process of `bench` is this program again.
    ::bench::child();
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let said = matches.value_source("store") == Some(ValueSource::CommandLine);
        Ok((Cli::from_arg_matches(&matches)?, said))
    });
    let (cli, store_said) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let output = cli.output;
    match dispatch(cli, store_said) {
        Ok(code) => code,
        Err(error) => {
            error.print(output);
            error.exit_code()
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether these arguments, which cannot be read as a whole, ask for JSON: `-o json` in each of its forms.
fn wants_json(args: &[String]) -> bool {
    let said = args.iter().take_while(|arg| *arg != "--");
    let said: Vec<&str> = said.map(String::as_str).collect();
    let whole = ["--output=json", "-ojson", "-o=json"];
    said.iter().any(|arg| whole.contains(arg))
        || said
            .windows(2)
            .any(|pair| matches!(pair, ["-o" | "--output", "json"]))
}

/// A command line that cannot be read, told like every other error; help and version as they are.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let Some(text) = text.strip_prefix("error: ") else {
        error.exit()
    };
    let (message, hint) = text
        .split_once("\n\n")
        .unwrap_or((text, "See `chargehand --help`."));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = wants_json(&args);
    let error = CliError::caller("usage.invalid", one_line(message), hint.trim());
    error.print(if json { Output::Json } else { Output::Text });
    error.exit_code()
}

/// `store_said`: whether the store comes from the flag, and not from the environment or the default.
fn dispatch(cli: Cli, store_said: bool) -> Result<ExitCode, CliError> {
    let target = Target::from(&cli.target);
    // These need no runtime.
    match &cli.command {
        Command::Config(args) => {
            return config::run(
                args,
                store_said.then_some(cli.target.store.as_str()),
                cli.output,
            );
        }
        Command::Completion(args) => return completion::print(args),
        Command::Crew(args) => return crew_file::run(args, cli.output),
        Command::Init(args) => return crew_file::init(args, cli.output),
        Command::Skills => return skills::print(cli.output),
        Command::Bench(args) => return bench::run(args, cli.output),
        Command::Backup(args) => return backup::run(args, target.store("backup")?, cli.output),
        Command::Restore(args) => return restore::run(args, target.store("restore")?, cli.output),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|fault| CliError::world("runtime.start", format!("no runtime: {fault}"), ""))?;
    let (store, output) = (cli.target.store, cli.output);
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, &target, output).await,
            Command::Chat(args) => chat::run(args, &target, output).await,
            Command::Serve(args) => serve::run(args, store_said.then_some(store.as_str())).await,
            Command::Resume(args) => resume::run(args, &target, output).await,
            Command::Runs(args) => runs::run(args, &target, output).await,
            Command::Tasks(args) => tasks::run(args, &target, output).await,
            Command::Workers(args) => workers::run(args, &target, output).await,
            Command::Keys(args) => keys::run(args, &target, output).await,
            Command::Tenants(args) => keys::tenants(args, &target, output).await,
            Command::Approvals(args) => approvals::run(args, &target, output).await,
            Command::Memory(args) => memory::run(args, &target, output).await,
            Command::Tools(args) => tools::run(args, &target, output).await,
            Command::Status => status::run(&target, output).await,
            Command::Events(args) => events::run(args, &target, output).await,
            Command::Doctor(args) => doctor::run(args, target.store("doctor")?, output).await,
            Command::Config(_)
            | Command::Crew(_)
            | Command::Init(_)
            | Command::Skills
            | Command::Bench(_)
            | Command::Backup(_)
            | Command::Restore(_)
            | Command::Completion(_) => Ok(ExitCode::SUCCESS),
        }
    });
    // A skill that computes without pause may still be at it: its result is of no use any more.
    runtime.shutdown_background();
    code
}
