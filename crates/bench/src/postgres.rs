//! The limit `Q`: what most teams would use instead. One table in a PostgreSQL of its own with its
//! defaults, where every commit is synced, and 32 connections that each do what a careful engineer
//! would: insert a task, take the oldest that nobody has (`SKIP LOCKED`), mark it done; three
//! statements, three transactions.
//!
//! The statement that takes is one, with the choice inside it, because that is faster than a
//! transaction of four round trips. The table is emptied after each time it was measured, so that
//! the database has nothing to tidy up while the product is measured.
//!
//! The server is kept by a child of this program, which ends it when this program is gone, however
//! it goes. A PostgreSQL that is not installed, or cannot run here, is not an error: the report says
//! that it is missing.

use crate::children::{Process, Role, runtime, tell, wait_for_parent};
use crate::limits::Loop;
use crate::measure::us;
use domain::error::{Code, Error};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

/// Connections at once.
const CONNECTIONS: usize = 32;
/// Where the distribution puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// What to say when there are none.
const INSTALL: &str = "install postgresql-15";
/// The system's user that the distribution made for it; it refuses to run as root.
const USER: &str = "postgres";
/// Bytes in the path of a socket, its end included.
const SOCKET_BYTES_MAX: usize = 107;
/// Making a database and starting it takes no longer.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Ending it takes no longer.
const END_TIME_MAX: Duration = Duration::from_secs(20);

const TABLE: &str = "
    CREATE TABLE tasks (
        id         bigserial PRIMARY KEY,
        status     text NOT NULL,
        kind       text NOT NULL,
        input      text NOT NULL,
        output     text,
        worker     text,
        created_at timestamptz NOT NULL,
        leased_at  timestamptz,
        ended_at   timestamptz
    );
    CREATE INDEX tasks_pending ON tasks (id) WHERE status = 'pending';";
const SUBMIT: &str = "INSERT INTO tasks (status, kind, input, created_at)
     VALUES ('pending', 'noop', $1, now())";
const CLAIM: &str = "UPDATE tasks SET status = 'running', worker = 'worker_1', leased_at = now()
     WHERE id = (SELECT id FROM tasks WHERE status = 'pending' ORDER BY id LIMIT 1
                 FOR UPDATE SKIP LOCKED)
     RETURNING id";
const COMPLETE: &str = "UPDATE tasks SET status = 'completed', output = 'null', ended_at = now()
     WHERE id = $1 AND status = 'running' AND worker = 'worker_1'";

/// Why there is no `Q`, in words for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

/// What the child that keeps the server has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Keeper {
    /// The programs.
    programs: PathBuf,
    /// Where the database goes, on the disk that is measured.
    folder: PathBuf,
    /// Where its socket goes.
    socket: PathBuf,
    /// Who runs it, when this program is root: user and group.
    owner: Option<(u32, u32)>,
}

/// What it tells: that the server accepts, or why not.
#[derive(Debug, Serialize, Deserialize)]
enum Kept {
    Ready,
    Not(String),
}

/// The programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let version = |path: &PathBuf| -> u32 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let versions = std::fs::read_dir(VERSIONS).ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/initdb").exists() && path.join("bin/postgres").exists())
        .max_by_key(version)
        .map(|path| path.join("bin"))
}

/// User and group of the distribution's user.
fn user() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = text
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next()? == USER).then_some(fields))?
        .skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

impl Keeper {
    fn prepare(folder: &Path) -> Result<Self, Missing> {
        let programs = programs().ok_or_else(|| Missing(INSTALL.into()))?;
        let owner = match rustix::process::geteuid().is_root() {
            false => None,
            true => {
                let text = || Missing(format!("it refuses to run as root; {INSTALL}"));
                Some(user().ok_or_else(text)?)
            }
        };
        let name = format!("chargehand-q-{}", std::process::id());
        let short = |parent: &Path| {
            let socket = parent.join(&name);
            let bytes = socket.join(".s.PGSQL.5432").as_os_str().len();
            (bytes < SOCKET_BYTES_MAX).then_some(socket)
        };
        let socket = short(&std::env::temp_dir()).or_else(|| short(Path::new("/tmp")));
        Ok(Self {
            programs,
            folder: folder.join("postgres"),
            socket: socket.ok_or_else(|| Missing("no short enough path for its socket".into()))?,
            owner,
        })
    }

    /// Keeps a server until the parent is done with it; the part of a child.
    pub(crate) fn keep(&self) -> Result<(), Error> {
        let made = self.make();
        let kept = match &made {
            Ok(_) => Kept::Ready,
            Err(why) => Kept::Not(why.clone()),
        };
        let told = tell(&kept);
        if told.is_ok() && made.is_ok() {
            wait_for_parent();
        }
        if let Ok(server) = made {
            end(server);
        }
        let _ = std::fs::remove_dir_all(&self.socket);
        let _ = std::fs::remove_dir_all(&self.folder);
        told
    }

    /// A database, and a server of it that accepts.
    fn make(&self) -> Result<Child, String> {
        let said = |fault: std::io::Error| fault.to_string();
        for folder in [&self.folder, &self.socket] {
            std::fs::create_dir_all(folder).map_err(said)?;
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(folder, mode).map_err(said)?;
            if let Some((user, group)) = self.owner {
                chown(folder, Some(user), Some(group)).map_err(said)?;
            }
        }
        let made = self
            .program("initdb")
            .args(["--auth=trust", "--username=bench", "--encoding=UTF8", "-D"])
            .arg(&self.folder)
            .output()
            .map_err(said)?;
        if !made.status.success() {
            let text = String::from_utf8_lossy(&made.stderr);
            let why = text.lines().find(|line| line.contains("error"));
            return Err(why.unwrap_or("its initdb failed").to_owned());
        }
        let mut server = self
            .program("postgres")
            .arg("-D")
            .arg(&self.folder)
            .args(["-c", "listen_addresses=", "-c"])
            .arg(format!("unix_socket_directories={}", self.socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(said)?;
        let until = Instant::now() + START_TIME_MAX;
        while !self.accepts() {
            if Instant::now() > until || !matches!(server.try_wait(), Ok(None)) {
                end(server);
                return Err("its server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// One of its programs, as who may run it.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // Root's own folder may not be entered by others.
        command.stdin(Stdio::null()).current_dir("/");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn accepts(&self) -> bool {
        let client = runtime().map(|runtime| runtime.block_on(self.client()).is_ok());
        client.unwrap_or(false)
    }

    async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host_path(&self.socket)
            .user("bench")
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Ends a server: fast, then at once, then without asking.
fn end(mut server: Child) {
    for signal in [Signal::INT, Signal::QUIT] {
        let _ = kill_process(Pid::from_child(&server), signal);
        let until = Instant::now() + END_TIME_MAX;
        while Instant::now() < until {
            if !matches!(server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let _ = server.kill();
    let _ = server.wait();
}

/// `Q`, ready to be measured.
pub(crate) struct Postgres {
    // Before the process: its clients close first.
    clients: Vec<Arc<Client>>,
    runtime: Runtime,
    process: Option<Process>,
}

impl Postgres {
    /// Starts one on the disk of this folder.
    pub(crate) fn start(folder: &Path) -> Result<Self, Missing> {
        let folder = folder.canonicalize();
        let folder = folder.map_err(|fault| Missing(fault.to_string()))?;
        let keeper = Keeper::prepare(&folder)?;
        let role = Role::Postgres(keeper.clone());
        let said = |error: Error| Missing(error.to_string());
        let time_max = START_TIME_MAX * 3;
        let (process, kept) = Process::start(&role, time_max).map_err(said)?;
        if let Kept::Not(why) = kept {
            return Err(Missing(why));
        }
        let runtime = runtime().map_err(said)?;
        let clients = runtime.block_on(async {
            let mut clients = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                clients.push(Arc::new(keeper.client().await?));
            }
            clients[0].batch_execute(TABLE).await?;
            Ok(clients)
        });
        let clients = clients.map_err(|fault: tokio_postgres::Error| Missing(fault.to_string()))?;
        Ok(Self {
            clients,
            runtime,
            process: Some(process),
        })
    }

    pub(crate) fn measure(&mut self, time: Duration) -> Result<Loop, Error> {
        let measured = self.runtime.block_on(async {
            let begin = Instant::now();
            let mut loops = JoinSet::new();
            for client in &self.clients {
                loops.spawn(tasks(Arc::clone(client), begin + time));
            }
            let mut us = Vec::new();
            let mut end = begin;
            while let Some(ended) = loops.join_next().await {
                if let Ok(ended) = ended {
                    let (times, last) = ended?;
                    us.extend(times);
                    end = end.max(last);
                }
            }
            let seconds = end.duration_since(begin).as_secs_f64();
            // Nothing to tidy up or to write while the product is measured.
            self.clients[0].batch_execute("TRUNCATE tasks").await?;
            self.clients[0].batch_execute("CHECKPOINT").await?;
            Ok(Loop {
                per_second: us.len() as f64 / seconds.max(f64::EPSILON),
                us,
                cpu_us: None,
            })
        });
        measured.map_err(|fault: tokio_postgres::Error| {
            Error::new(Code::StoreIo, format!("the limit's PostgreSQL: {fault}"))
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.clients.clear();
        if let Some(process) = self.process.take() {
            process.end();
        }
    }
}

/// One connection: tasks, one after the other, whoever submitted them.
async fn tasks(
    client: Arc<Client>,
    until: Instant,
) -> Result<(Vec<f64>, Instant), tokio_postgres::Error> {
    let submit = client.prepare(SUBMIT).await?;
    let claim = client.prepare(CLAIM).await?;
    let complete = client.prepare(COMPLETE).await?;
    let input = crate::serving::input();
    let (mut times, mut last) = (Vec::new(), Instant::now());
    while last < until {
        let begin = last;
        client.execute(&submit, &[&input]).await?;
        // There are always as many as there are connections that look for one; but one may be
        // locked by a neighbour that is about to have it, and then the next look finds another.
        let id: i64 = loop {
            if let Some(row) = client.query_opt(&claim, &[]).await? {
                break row.get(0);
            }
        };
        client.execute(&complete, &[&id]).await?;
        last = Instant::now();
        times.push(us(last - begin));
    }
    Ok((times, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_had_is_a_sentence() {
        // Either it is there, or what to do about it is said; nothing is started here.
        match Keeper::prepare(Path::new("/nowhere")) {
            Ok(keeper) => assert!(keeper.programs.join("initdb").exists()),
            Err(Missing(why)) => assert!(!why.is_empty()),
        }
    }
}
