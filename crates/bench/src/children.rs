//! Processes that are measured from outside, or killed: this program, started again with a variable
//! in its environment that says what to be.

use crate::flow::{self, Load};
use crate::measure::{io, rss};
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use engine::{Engine, Place};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Says what a child is to be.
const VARIABLE: &str = "CHARGEHAND_BENCH_CHILD";

/// What a child is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Role {
    /// The store.
    folder: PathBuf,
    /// Tasks to put into it.
    tasks: u64,
    /// Milliseconds it may take.
    time_max_ms: u64,
}

/// What a child tells, once it has done its part. Then it waits to be killed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Bytes resident before the first task.
    pub(crate) idle_bytes: Option<u64>,
    /// Bytes resident after the last.
    pub(crate) full_bytes: Option<u64>,
    /// Tasks that were acknowledged.
    pub(crate) tasks: u64,
    /// Seconds it took.
    pub(crate) seconds: f64,
}

/// Does a child's part and ends the process, if this process is a child; else returns at once. Call
/// it first in `main` of every program that calls [`run`](crate::run).
pub fn child() {
    let Some(role) = std::env::var_os(VARIABLE) else {
        return;
    };
    let role: Option<Role> = role
        .to_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let Some(role) = role else { return };
    let code = match play(&role) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code);
}

fn play(role: &Role) -> Result<(), Error> {
    let engine = Engine::open(&Place::Folder(role.folder.clone()))?;
    let mut told = Told {
        idle_bytes: rss(),
        ..Told::default()
    };
    if role.tasks > 0 {
        let load = Load {
            submit: role.tasks,
            complete: 0,
            spec: queued(),
            time_max: Duration::from_millis(role.time_max_ms),
        };
        let flow = runtime()?.block_on(flow::run(&engine, &load))?;
        if flow.stopped {
            let text = format!("{} tasks in {} ms", role.tasks, role.time_max_ms);
            return Err(Error::new(Code::WaitTimedOut, text));
        }
        told.full_bytes = rss();
        told.tasks = role.tasks;
        told.seconds = flow.seconds;
    }
    let line = serde_json::to_string(&told)
        .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
    println!("{line}");
    std::io::stdout()
        .flush()
        .map_err(|fault| io("the parent", &fault))?;
    // Until the parent kills this process, or is gone itself.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// What fills a long queue: a small input, so that what is measured is what the engine keeps.
pub(crate) fn queued() -> Arc<TaskSpec> {
    let input = Json::from_value(&serde_json::json!({"n": 1}));
    Arc::new(TaskSpec::new(Name::literal("noop"), input))
}

/// One thread for all clients: the engine has its own.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|fault| io("the clients' runtime", &fault))
}

/// Starts a child over a store, waits until it has put its tasks into it, and kills it in the middle
/// of whatever it does then, as a power cut would: nothing is closed, nothing is written behind.
pub(crate) fn fill_and_kill(folder: &Path, tasks: u64, time_max: Duration) -> Result<Told, Error> {
    let role = Role {
        folder: folder.to_owned(),
        tasks,
        time_max_ms: time_max.as_millis() as u64,
    };
    let role = serde_json::to_string(&role)
        .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
    let program = std::env::current_exe().map_err(|fault| io("this program", &fault))?;
    let mut child = Command::new(program)
        .env(VARIABLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|fault| io("this program as a child", &fault))?;
    let told = listen(&mut child, time_max + Duration::from_secs(10));
    // SIGKILL: no destructor runs.
    let _ = child.kill();
    let _ = child.wait();
    told
}

fn listen(child: &mut Child, time_max: Duration) -> Result<Told, Error> {
    let stdout = child.stdout.take();
    let stdout = stdout.ok_or_else(|| Error::new(Code::Internal, "a child without an output"))?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = receiver
        .recv_timeout(time_max)
        .map_err(|fault| match fault {
            RecvTimeoutError::Timeout => {
                let text = format!("a child said nothing within {} s", time_max.as_secs());
                Error::new(Code::WaitTimedOut, text)
            }
            RecvTimeoutError::Disconnected => Error::new(Code::Internal, "a child's reader broke"),
        })?;
    serde_json::from_str(&line).map_err(|_| {
        let text = "a child ended without a word; the program must call bench::child() first";
        Error::new(Code::Internal, text)
    })
}
