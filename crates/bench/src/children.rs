//! Processes that are measured from outside, or killed: this program, started again with a variable
//! in its environment that says what to be.

use crate::flow::{self, Load};
use crate::measure::{Shown, io, rss};
use crate::{postgres, serving};
use domain::error::{Code, Error};
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use engine::{Engine, Place};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Says what a child is to be.
const VARIABLE: &str = "CHARGEHAND_BENCH_CHILD";
/// A child that is asked to end may take so long.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// What a child is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    /// One that puts tasks into a store and waits to be killed.
    Fill {
        /// The store.
        folder: PathBuf,
        /// Tasks to put into it.
        tasks: u64,
        /// Milliseconds it may take.
        time_max_ms: u64,
    },
    /// The server over a new store.
    Serve {
        /// The store.
        folder: PathBuf,
    },
    /// An echo on the server's stack.
    Echo,
    /// The keeper of a PostgreSQL.
    Postgres(postgres::Keeper),
}

/// What one that fills tells, once it has done its part.
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
    let played = match role {
        Role::Fill {
            folder,
            tasks,
            time_max_ms,
        } => fill(folder, tasks, Duration::from_millis(time_max_ms)),
        Role::Serve { folder } => serving::serve(folder),
        Role::Echo => serving::echo(),
        Role::Postgres(keeper) => keeper.keep(),
    };
    let code = match played {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code);
}

/// Tells the parent something: the one line that it waits for.
pub(crate) fn tell(told: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(told)
        .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
    println!("{line}");
    std::io::stdout()
        .flush()
        .map_err(|fault| io("the parent", &fault))
}

/// Blocks until the parent wants this process to end, or is gone itself.
pub(crate) fn wait_for_parent() {
    let _ = std::io::stdin().read(&mut [0]);
}

fn fill(folder: PathBuf, tasks: u64, time_max: Duration) -> Result<(), Error> {
    let engine = Engine::open(&Place::Folder(folder))?;
    let mut told = Told {
        idle_bytes: rss(),
        ..Told::default()
    };
    if tasks > 0 {
        let load = Load {
            submit: tasks,
            complete: 0,
            spec: queued(),
            time_max,
        };
        let flow = runtime()?.block_on(flow::run(&engine, &load))?;
        if flow.stopped {
            let text = format!("{tasks} tasks in {} ms", time_max.as_millis());
            return Err(Error::new(Code::WaitTimedOut, text));
        }
        told.full_bytes = rss();
        told.tasks = tasks;
        told.seconds = flow.seconds;
    }
    tell(&told)?;
    wait_for_parent();
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

/// A child that was started and has told its line. Dropped, it is killed as a power cut would:
/// nothing is closed, nothing is written behind.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a child and waits until it tells its line.
    pub(crate) fn start<T: DeserializeOwned>(
        role: &Role,
        time_max: Duration,
    ) -> Result<(Self, T), Error> {
        let role = serde_json::to_string(role)
            .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
        let program = std::env::current_exe().map_err(|fault| io("this program", &fault))?;
        let child = Command::new(program)
            .env(VARIABLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|fault| io("this program as a child", &fault))?;
        // From here on it is killed, whatever happens.
        let mut process = Self(child);
        let told = listen(&mut process.0, time_max)?;
        Ok((process, told))
    }

    /// What the system shows of it.
    pub(crate) fn shown(&self) -> Shown {
        Shown::of(self.0.id())
    }

    /// Asks it to end in order and waits until it has; one that takes too long is killed.
    pub(crate) fn end(mut self) {
        // The end of its input is the word.
        drop(self.0.stdin.take());
        let until = Instant::now() + END_TIME_MAX;
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: no destructor runs.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child over a store, waits until it has put its tasks into it, and kills it in the middle
/// of whatever it does then.
pub(crate) fn fill_and_kill(folder: &Path, tasks: u64, time_max: Duration) -> Result<Told, Error> {
    let role = Role::Fill {
        folder: folder.to_owned(),
        tasks,
        time_max_ms: time_max.as_millis() as u64,
    };
    Process::start(&role, time_max + Duration::from_secs(10)).map(|(_, told)| told)
}

fn listen<T: DeserializeOwned>(child: &mut Child, time_max: Duration) -> Result<T, Error> {
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
