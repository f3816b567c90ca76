//! `chargehand serve`: one process that a team works with, from any language.

use crate::config::{ServerFlags, warn};
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output::say;
use agent::worker::SkillHandler;
use chargehand::{Running, Worker};
use protocol::Api;
use protocol::key::Tenant;
use server::http::Skill;
use server::logs;
use server::serve::Server;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  chargehand serve
  chargehand serve --local-workers 4
  chargehand keys create --label ops --scope admin && chargehand serve --listen 0.0.0.0:7420

`chargehand config show` takes the same flags and says where each setting comes from. One Ctrl-C lets requests finish and closes the stores; a second one cuts them off.")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ServerFlags,
}

/// `store`: the program's own `--store`, where it was given as a flag.
pub(crate) async fn run(args: Args, store: Option<&str>) -> Result<ExitCode, CliError> {
    let loaded = args.flags.load(store)?;
    warn(&loaded);
    let config = loaded.config;
    logs::start(config.log.format, &config.log.level)?;
    raise_file_limit();
    let mut interrupt = Interrupt::listen();
    let server = Server::open(&config, skills()).await?;
    let workers = start_workers(&server, config.workers.local).await?;
    say(&format!("Chargehand serves at {}", server.url()));
    if !server.tenants().has_keys() {
        say("Nobody was given a key: every program on this machine may do everything.");
    }
    if !server.address().ip().is_loopback() && config.tls.files().is_none() {
        say(
            "warning: keys and payloads cross the network unencrypted; set tls.certificate and tls.key, or put a proxy in front.",
        );
    }
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let leaving = async move {
        let _ = stopping.await;
        for worker in workers {
            // What it has goes back when its store opens again, should this fail.
            let _ = worker.stop().await;
        }
    };
    let serving = server.run(leaving);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map(|_| ExitCode::SUCCESS).map_err(CliError::from),
        () = interrupt.heard() => {}
    }
    say("Stopping: requests may finish. Ctrl-C again cuts them off.");
    let _ = stop.send(());
    let drained = tokio::select! {
        drained = &mut serving => drained?,
        () = interrupt.heard() => return Ok(ExitCode::from(130)),
    };
    if drained.cut > 0 {
        say(&format!("{} requests were cut off.", drained.cut));
    }
    Ok(ExitCode::SUCCESS)
}

/// The built-in skills, as the API lists them.
fn skills() -> Vec<Skill> {
    let view = |skill: &&'static dyn agent::skill::Skill| Skill {
        name: skill.name().to_owned(),
        summary: skill.summary().to_owned(),
    };
    agent::skill::all().iter().map(view).collect()
}

/// Workers with every skill, in this process, for the default tenant.
async fn start_workers(server: &Server, count: u32) -> Result<Vec<Running>, CliError> {
    let Some(engine) = server.tenants().get(&Tenant::default()) else {
        return Ok(Vec::new());
    };
    let api: Arc<dyn Api> = Arc::new(engine);
    let mut running = Vec::new();
    for n in 1..=count {
        let mut worker = Worker::new(&format!("local_{n}"))?;
        for skill in agent::skill::all() {
            worker = worker
                .capability(skill.name())?
                .handle(skill.name(), SkillHandler)?;
        }
        running.push(worker.start(Arc::clone(&api)).await?);
    }
    Ok(running)
}

/// Asks for as many open files as this program may have: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Less is not fatal: accepting pauses when files run out.
    let _ = setrlimit(Resource::Nofile, all);
}
