//! `chargehand crew` and `chargehand init`: files that describe a crew of agents.

use crate::error::CliError;
use crate::output::{Output, counted, cut, duration, print, print_json, say, table};
use agent::crew::{AgentBudget, Crew, CrewError, FILE_DEFAULT, schema};
use agent::errors::ERRORS;
use agent::mcp::Health;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `init` writes.
const STARTER: &str = include_str!("crew_file/starter.yaml");

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Check a crew file: print what it means, or every mistake in it.
    #[command(after_help = "Examples:
  chargehand crew check
  chargehand crew check --servers
  chargehand crew check crews/support.yaml --output json")]
    Check(CheckArgs),
    /// Print the JSON Schema of crew files, for editors.
    #[command(after_help = "Example:\n  chargehand crew schema > crew.schema.json")]
    Schema,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The crew file.
    #[arg(value_name = "FILE", default_value = FILE_DEFAULT)]
    file: PathBuf,
    /// Also start, or connect to, its MCP servers: list their tools, and see whether those that are
    /// granted can be used. Exit code 1 when one cannot.
    #[arg(long)]
    servers: bool,
}

/// Write a commented crew file to begin with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand init
  chargehand init my-crew && chargehand crew check my-crew/crew.yaml")]
pub(crate) struct InitArgs {
    /// The folder to write `crew.yaml` to; made if it is not there.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<ExitCode, CliError> {
    match args {
        Args::Check(args) => check(args, output),
        Args::Schema => {
            print_json(&schema());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Exit code 2 for a file with mistakes. They are the answer, so all of them are told.
fn check(args: &CheckArgs, output: Output) -> Result<ExitCode, CliError> {
    let crew = match Crew::load(&args.file) {
        Ok(crew) => crew,
        Err(mistakes) => {
            complain(&mistakes, output);
            return Ok(ExitCode::from(2));
        }
    };
    let servers = match args.servers {
        true => Some(health(&crew)?),
        false => None,
    };
    tell(&args.file, &crew, servers.as_ref(), output);
    let usable = |health: &Health| matches!(health, Health::Available { unusable, .. } if unusable.is_empty());
    let well = servers.is_none_or(|servers| servers.values().all(usable));
    Ok(ExitCode::from(u8::from(!well)))
}

/// How its MCP servers do, by name.
type Servers = BTreeMap<String, Health>;

fn health(crew: &Crew) -> Result<Servers, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|fault| CliError::world("runtime.start", format!("no runtime: {fault}"), ""))?;
    // What was started ends with the runtime.
    Ok(runtime.block_on(agent::mcp::health(crew)))
}

/// All mistakes, on standard error.
pub(crate) fn complain(mistakes: &[CrewError], output: Output) {
    if output == Output::Json {
        let errors = mistakes.iter().map(|mistake| {
            json!({
                "code": mistake.code,
                "file": mistake.file,
                "line": mistake.place.map(|place| place.line),
                "column": mistake.place.map(|place| place.column),
                "message": mistake.message,
                "hint": mistake.hint,
            })
        });
        let errors: Vec<_> = errors.collect();
        // The first as every other error is told, so that programs that know one know this.
        let first = mistakes.first();
        say(&json!({"error": {
            "code": first.map(|mistake| mistake.code),
            "message": first.map(ToString::to_string),
            "hint": first.map(|mistake| mistake.hint.as_str()),
            "errors": errors,
        }})
        .to_string());
        return;
    }
    for mistake in mistakes {
        say(&format!("error[{}]: {mistake}", mistake.code));
        if let Some(place) = mistake.place.filter(|_| !mistake.excerpt.trim().is_empty()) {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            say(&format!("  {number} | {}", mistake.excerpt));
            let width = mistake.excerpt.chars().count();
            let caret = " ".repeat((place.column - 1).min(width));
            say(&format!("  {margin} | {caret}^"));
        }
        say(&format!("  help: {}", mistake.hint));
    }
    if mistakes.len() > 1 {
        let how = counted(mistakes.len(), "mistake");
        say(&format!("\n{how}; nothing was run."));
    }
}

fn tell(file: &Path, crew: &Crew, servers: Option<&Servers>, output: Output) {
    let missing = crew.keys_missing();
    if output == Output::Json {
        let missing = missing
            .iter()
            .map(|(model, variable)| json!({"model": model, "variable": variable}));
        let mut document = json!({
            "crew": crew,
            "digest": crew.digest,
            "keys_missing": missing.collect::<Vec<_>>(),
        });
        if let Some(servers) = servers {
            document["servers"] = json!(servers);
        }
        print_json(&document);
        return;
    }
    let budget = &crew.budget;
    let supervisor = &crew.supervisor;
    let model = |name: &str| match crew.models.get(name) {
        Some(model) => format!("{name} ({})", model.model),
        None => name.to_owned(),
    };
    print(&format!(
        "{}: crew {}, {}, {}, {} of its own",
        file.display(),
        crew.name,
        counted(crew.agents.len(), "agent"),
        counted(crew.models.len(), "model"),
        counted(crew.tools.len(), "tool"),
    ));
    print(&format!("digest      {}", crew.digest));
    print(&format!(
        "budget      {} tokens, {} USD, {} calls, {}, depth {}, {} of a plan",
        budget.tokens,
        dollars(budget.usd_micros),
        budget.calls,
        duration(budget.wall_ms),
        budget.depth,
        counted(budget.fan_out as usize, "task"),
    ));
    print(&format!(
        "supervisor  {}, {}, {}\n",
        model(&supervisor.model),
        counted(supervisor.replans as usize, "re-plan"),
        counted(supervisor.rounds as usize, "round"),
    ));
    if let Some(spawn) = &supervisor.spawn {
        let tools: Vec<&str> = spawn.tools.iter().map(String::as_str).collect();
        print(&format!(
            "            may make {} with {}, of these tools: {}\n",
            counted(spawn.agents as usize, "agent"),
            model(&spawn.model),
            if tools.is_empty() {
                "none".into()
            } else {
                tools.join(", ")
            },
        ));
    }
    let rows = crew.agents.iter().map(|(name, agent)| {
        let tools: Vec<&str> = agent.tools.iter().map(String::as_str).collect();
        let tools = match tools.is_empty() {
            true => "-".to_owned(),
            false => tools.join(", "),
        };
        vec![
            name.clone(),
            agent.version.to_string(),
            model(&agent.model),
            agent.rounds.to_string(),
            own_budget(&agent.budget),
            cut(&tools, 80),
        ]
    });
    let heading = ["agent", "version", "model", "rounds", "budget", "tools"];
    print(&table(&heading, rows.collect()));
    for (name, health) in servers.into_iter().flatten() {
        print("");
        tell_server(name, health);
    }
    for (model, variable) in missing {
        say(&format!(
            "note: the model `{model}` needs a key: {variable} is not set here"
        ));
    }
}

fn tell_server(name: &str, health: &Health) {
    match health {
        Health::Available {
            protocol,
            tools,
            unusable,
        } => {
            let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
            let count = counted(tools.len(), "tool");
            print(&format!("server      {name}, MCP {protocol}, {count}"));
            print(&format!("            {}", cut(&tools.join(", "), 1_000)));
            for (tool, why) in unusable {
                let text = format!("`{tool}` cannot be used: {}", cut(&why.why, 400));
                tell_error(&why.code, &text);
            }
        }
        Health::Unavailable { why } => {
            print(&format!("server      {name}, unavailable"));
            tell_error("mcp.unreachable", &cut(why, 400));
        }
    }
}

/// What one task of an agent may spend, where that is less than the crew's budget.
fn own_budget(budget: &AgentBudget) -> String {
    let parts = [
        budget.tokens.map(|tokens| format!("{tokens} tokens")),
        budget.usd_micros.map(|usd| format!("{} USD", dollars(usd))),
        budget.calls.map(|calls| counted(calls as usize, "call")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join(", "),
    }
}

/// As every other error is told.
fn tell_error(code: &str, message: &str) {
    say(&format!("error[{code}]: {message}"));
    let explained = ERRORS.iter().find(|(known, _, _)| *known == code);
    if let Some((_, _, help)) = explained {
        say(&format!("  help: {help}"));
    }
}

/// With two digits behind the point, and as many more as it has.
fn dollars(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let digits = text.trim_end_matches('0').len();
    let shortest = text.len() - 4;
    text[..digits.max(shortest)].to_owned()
}

/// Writes the starter. What is there already is somebody's work and stays.
pub(crate) fn init(args: &InitArgs, output: Output) -> Result<ExitCode, CliError> {
    let file = args.folder.join(FILE_DEFAULT);
    let fault = |fault: std::io::Error| {
        let message = format!("{} cannot be written: {fault}", file.display());
        CliError::caller(
            "init.unwritable",
            message,
            "Choose a folder that you may write to.",
        )
    };
    std::fs::create_dir_all(&args.folder).map_err(fault)?;
    let mut created = match std::fs::File::create_new(&file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(CliError::caller(
                "init.exists",
                format!("{} is there already", file.display()),
                "Choose another folder: `chargehand init FOLDER`.",
            ));
        }
        created => created.map_err(fault)?,
    };
    created.write_all(STARTER.as_bytes()).map_err(fault)?;
    match output {
        Output::Json => print_json(&json!({"file": file})),
        Output::Text => {
            let name = file.display();
            print(&format!(
                "wrote {name}\n\nChange it, then check it:\n  chargehand crew check {name}"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
