//! `shell`: command lines of a model, behind walls.
//!
//! What a model writes is run by `sh` in a process that sees next to nothing: the machine's programs
//! and libraries, a scratch folder that is gone afterwards, and one folder of the crew's choice at
//! `/work`, to read, or also to write where the crew file says so. There is no network unless it was
//! granted, no capability, no process but its own, and of the environment nothing. The walls are
//! namespaces of the kernel, put up by `sandbox.sh` beside this file with the programs of util-linux, as
//! an ordinary user can, too.
//!
//! Nobody has to be believed that the walls stand: the command begins after they do, and the first
//! thing that comes out is a word made for this call. Without it nothing was run, and the tool says
//! that it is unavailable and why. **It is never run without walls.**
//!
//! What the command may use is bounded as well: processor time, memory and processes of all its
//! processes together, looked at every [`LOOK`]; the size of a file and of the scratch folder; what it
//! prints; and its time, at whose end everything in there is killed by the kernel, whatever group or
//! session it moved to. A supervisor that is killed outright leaves it at most its time.
//!
//! Deliberately absent: a shield against faults of the kernel itself (for code of an enemy, run all of
//! Chargehand in a machine of its own), and accounts of memory that no process has mapped.

use super::{STOP_TIME_MAX, Tool, ToolCard};
use crate::command::{Capture, Group};
use crate::crew::Shell;
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Bytes that one call gives of each of its outputs at most; the rest is cut.
pub const SHELL_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a command may print on one output before it is stopped.
pub const SHELL_FLOOD_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the scratch folder.
pub const SCRATCH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one file that a command writes at most.
pub const SHELL_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Characters of a command line at most.
pub const COMMAND_CHARS_MAX: usize = 8_000;
/// How often it is looked at what a command uses.
pub const LOOK: Duration = Duration::from_millis(50);
/// How long it is believed that the walls can be put up, once they could.
pub const BELIEVED: Duration = Duration::from_secs(10);

/// What puts up the walls.
const SCRIPT: &str = include_str!("sandbox.sh");
/// Where the machine's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The ticks of a second that the kernel tells processor time in.
const TICKS: u64 = 100;
/// How long putting up the walls may take.
const SETUP: Duration = Duration::from_secs(20);
/// How long is waited for what the pipes still hold.
const DRAIN: Duration = Duration::from_millis(500);

/// Runs command lines behind walls.
#[derive(Debug)]
pub struct ShellTool {
    card: ToolCard,
    settings: Shell,
    /// When the walls were last put up.
    stood: Mutex<Option<Instant>>,
}

impl ShellTool {
    /// With these settings.
    #[must_use]
    pub fn new(settings: Shell) -> Self {
        let folder = match (&settings.folder, settings.write) {
            (None, _) => "an empty folder",
            (Some(_), false) => "a folder that is read only",
            (Some(_), true) => "a folder that may be written to",
        };
        let network = match settings.network {
            true => "with network",
            false => "without network",
        };
        let description = format!(
            "Runs a command line by `sh`, {network}, in {folder}; /tmp is for scratch and gone afterwards. Gives its exit code and what it printed, at most {SHELL_OUTPUT_BYTES_MAX} bytes of each output.",
        );
        let lasting = settings.network || (settings.write && settings.folder.is_some());
        let card = ToolCard {
            name: Name::literal("shell"),
            description,
            input: json!({
                "type": "object",
                "properties": {"command": {
                    "type": "string", "minLength": 1, "maxLength": COMMAND_CHARS_MAX,
                    "description": "The command line."
                }},
                "required": ["command"],
                "additionalProperties": false
            }),
            output: None,
            effect: match lasting {
                true => EffectClass::AtMostOnce,
                false => EffectClass::Pure,
            },
            // The tool's own limit comes first and says more.
            timeout: settings.timeout + SETUP + STOP_TIME_MAX,
            category: "shell".into(),
            sensitive: Vec::new(),
            untrusted_output: true,
        };
        Self {
            card,
            settings,
            stood: Mutex::new(None),
        }
    }

    fn believed(&self) -> bool {
        let stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        stood.is_some_and(|at| at.elapsed() < BELIEVED)
    }

    fn stands(&self, stands: bool) {
        let mut stood = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        *stood = stands.then(Instant::now);
    }

    /// Runs a command line behind walls.
    async fn run(&self, line: &str) -> Result<Ran, Unrun> {
        let word = word().map_err(Unrun::NoWalls)?;
        let mut child = self.spawn(line, &word).map_err(Unrun::NoWalls)?;
        // The first process within dies with the one that we started, and all others with it.
        let group = Group::of(&child);
        let root = child.id();
        let kept = SHELL_OUTPUT_BYTES_MAX + word.len() + 1;
        let stdout = Capture::cut(child.stdout.take(), kept, SHELL_FLOOD_BYTES);
        let stderr = Capture::cut(
            child.stderr.take(),
            SHELL_OUTPUT_BYTES_MAX,
            SHELL_FLOOD_BYTES,
        );
        let ended = tokio::select! {
            biased;
            () = stdout.overflow() => Err(Bound::Output),
            () = stderr.overflow() => Err(Bound::Output),
            status = child.wait() => Ok(status),
            bound = self.watched(root) => Err(bound),
            () = tokio::time::sleep(self.settings.timeout + SETUP / 2) => Err(Bound::Time),
        };
        drop(group);
        let _ = tokio::time::timeout(DRAIN, child.wait()).await;
        let drained = async { tokio::join!(stdout.end(), stderr.end()) };
        let _ = tokio::time::timeout(DRAIN, drained).await;
        let said = stdout.bytes();
        let errors = String::from_utf8_lossy(&stderr.bytes()).into_owned();
        let begun = said
            .strip_prefix(word.as_bytes())
            .and_then(|said| said.strip_prefix(b"\n"));
        let Some(said) = begun else {
            let why = errors.trim().lines().next().unwrap_or("it ended early");
            return Err(Unrun::NoWalls(why.chars().take(200).collect()));
        };
        self.stands(true);
        let stdout_text = String::from_utf8_lossy(said).into_owned();
        let status = match ended {
            Ok(Ok(status)) => status,
            Ok(Err(fault)) => return Err(Unrun::NoWalls(fault.to_string())),
            Err(bound) => return Err(Unrun::Stopped(bound, stdout_text, errors)),
        };
        let code = status.code();
        let signal = status.signal().or(code
            .map(|code| code - 128)
            .filter(|signal| (1..=64).contains(signal)));
        Ok(Ran {
            code: code.unwrap_or_else(|| 128 + signal.unwrap_or(0)),
            signal,
            stdout: stdout_text,
            stderr: errors,
            cut: stdout.has_overflown() || stderr.has_overflown(),
        })
    }

    fn spawn(&self, line: &str, word: &str) -> Result<Child, String> {
        let point = mount_point().map_err(|fault| format!("no folder to build in: {fault}"))?;
        let settings = &self.settings;
        let yes = |truth| if truth { "yes" } else { "no" };
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--ipc"]);
        command.args(["--uts", "--cgroup", "--fork", "--kill-child"]);
        if !settings.network {
            command.arg("--net");
        }
        command.args(["sh", "-c", SCRIPT, "sandbox"]);
        command.arg(point);
        command.arg(settings.folder.clone().unwrap_or_default());
        command.args([yes(settings.write), yes(settings.network), word]);
        let seconds = |time: Duration| time.as_millis().div_ceil(1_000).max(1).to_string();
        command.args([
            SCRATCH_BYTES_MAX.to_string(),
            settings.processes.to_string(),
            settings.memory_bytes.to_string(),
            seconds(settings.cpu),
            SHELL_FILE_BYTES_MAX.to_string(),
            seconds(settings.timeout),
            line.to_owned(),
        ]);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|fault| match fault.kind() {
                std::io::ErrorKind::NotFound => {
                    "there is no program `unshare` (util-linux) on this machine".into()
                }
                _ => format!("`unshare` cannot be started: {fault}"),
            })
    }

    /// Comes back when a bound is exceeded.
    async fn watched(&self, root: Option<u32>) -> Bound {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(root) = root else { continue };
            let Ok(used) = tokio::task::spawn_blocking(move || used(root)).await else {
                continue;
            };
            let settings = &self.settings;
            if used.memory_bytes > settings.memory_bytes {
                return Bound::Memory;
            }
            // The two that put up the walls, and the one that keeps the time, are not the command's.
            if used.processes > settings.processes as usize + 3 {
                return Bound::Processes;
            }
            if used.cpu > settings.cpu + Duration::from_secs(1) {
                return Bound::Cpu;
            }
        }
    }
}

/// What a command came to.
struct Ran {
    code: i32,
    signal: Option<i32>,
    stdout: String,
    stderr: String,
    cut: bool,
}

/// Why there is no end of a command to tell of.
enum Unrun {
    /// It was not begun.
    NoWalls(String),
    /// It was stopped, and had said this.
    Stopped(Bound, String, String),
}

/// What a command may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Memory,
    Processes,
    Cpu,
    Time,
    Output,
}

#[async_trait]
impl Tool for ShellTool {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    async fn available(&self) -> Result<(), String> {
        if self.believed() {
            return Ok(());
        }
        match self.run(":").await {
            Err(Unrun::NoWalls(why)) => Err(format!(
                "commands run in a sandbox only, and this machine does not give one: {why}"
            )),
            _ => Ok(()),
        }
    }

    async fn call(&self, arguments: &Value, _key: &str) -> Result<Value, Failure> {
        let line = arguments["command"].as_str().unwrap_or_default();
        let settings = &self.settings;
        let (ms, mib) = (
            settings.timeout.as_millis(),
            settings.memory_bytes / (1024 * 1024),
        );
        let begun = Instant::now();
        let (bound, stdout, stderr) = match self.run(line).await {
            // The end of its time, within.
            Ok(ran) if ran.signal == Some(9) && begun.elapsed() >= settings.timeout => {
                (Bound::Time, ran.stdout, ran.stderr)
            }
            // What the kernel ends a process with that used too much of the processor.
            Ok(ran) if ran.signal == Some(24) => (Bound::Cpu, ran.stdout, ran.stderr),
            Ok(ran) => {
                return Ok(json!({
                    "exit": ran.code, "stdout": ran.stdout, "stderr": ran.stderr, "cut": ran.cut,
                }));
            }
            Err(Unrun::NoWalls(why)) => {
                self.stands(false);
                let text = format!("nothing was run, because there is no sandbox: {why}");
                return Err(Failure::new("tool.unavailable", text));
            }
            Err(Unrun::Stopped(bound, stdout, stderr)) => (bound, stdout, stderr),
        };
        let (code, why) = match bound {
            Bound::Time => ("tool.timed_out", format!("took longer than {ms} ms")),
            Bound::Memory => ("tool.broken", format!("used more than {mib} MiB of memory")),
            Bound::Processes => (
                "tool.broken",
                format!("started more than {} processes", settings.processes),
            ),
            Bound::Cpu => (
                "tool.broken",
                format!(
                    "used more than {} ms of processor time",
                    settings.cpu.as_millis()
                ),
            ),
            Bound::Output => (
                "tool.broken",
                format!("printed more than {SHELL_FLOOD_BYTES} bytes"),
            ),
        };
        let said = [("output", stdout), ("errors", stderr)];
        let said = said.iter().filter(|(_, text)| !text.trim().is_empty());
        let said = said.map(|(what, text)| format!("; {what}: {}", end_of(text)));
        let said: String = said.collect();
        let timed_out = match bound {
            Bound::Time => "Tool execution timed out: ",
            _ => "",
        };
        let text =
            format!("{timed_out}the command {why} and was stopped, with all it had started{said}");
        Err(Failure::permanent(code, text))
    }
}

/// The end of what was said.
fn end_of(text: &str) -> String {
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(400);
    text.chars().skip(skipped).collect()
}

/// A word that nobody can know beforehand.
fn word() -> Result<String, String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|fault| format!("no randomness: {fault}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An empty folder to mount on; what is mounted is seen within only.
fn mount_point() -> std::io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let point = std::env::temp_dir().join(format!(".chargehand-sandbox-{user}"));
    fs::create_dir_all(&point)?;
    point.canonicalize()
}

/// What processes use together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Used {
    processes: usize,
    memory_bytes: u64,
    cpu: Duration,
}

/// What a process and all that descend from it use. Whoever loses a parent in there gets the first
/// process within as its parent, so nobody gets lost.
fn used(root: u32) -> Used {
    let mut children: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    let mut ticks = 0;
    let Ok(entries) = fs::read_dir("/proc") else {
        return Used::default();
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The name, in parentheses, may have anything in it.
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        let parent = number(1).and_then(|parent| u32::try_from(parent).ok());
        // Of its own, and of its children that are gone, in user and system.
        let cpu = (11..15).filter_map(number).sum();
        if pid == root {
            ticks = cpu;
        }
        children
            .entry(parent.unwrap_or(0))
            .or_default()
            .push((pid, cpu));
    }
    let mut used = Used::default();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        used.processes += 1;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        for line in status.lines() {
            let counted = ["RssAnon:", "RssShmem:"].iter();
            let of = counted.filter_map(|what| line.strip_prefix(what)).next();
            let kib = of.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            used.memory_bytes += kib.unwrap_or(0) * 1024;
        }
        for (child, cpu) in children.remove(&pid).unwrap_or_default() {
            ticks += cpu;
            next.push(child);
        }
    }
    used.cpu = Duration::from_millis(ticks * 1_000 / TICKS);
    used
}
