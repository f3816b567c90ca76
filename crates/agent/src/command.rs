//! A person's own program as a worker: one process per task.
//!
//! The contract is the oldest there is. The brief is JSON on standard input,
//! the result is JSON on standard output, the exit code decides, and standard
//! error is for people: its end is quoted when the program fails.
//!
//! A program is not trusted to behave. It runs in a process group of its own,
//! and whenever the call ends, by whatever way (exit, time limit, too much
//! output, cancellation, the future being dropped), the whole group is killed,
//! so forked children go too. A grandchild that left the group with `setsid`
//! cannot be killed this way; it can hold the pipes open, and so the call
//! never waits for the end of a pipe longer than [`DRAIN_TIME_MAX`].
//!
//! The program sees this process's environment, except variables that look
//! like secrets (see [`is_secret`]); one that needs such a variable gets it
//! by name through `env`.
//!
//! Deliberately absent: a sandbox (a program may do what its user may), and
//! dying with a supervisor that is killed outright, which needs `unsafe`; the
//! lease of its task expires instead.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::skill::SkillError;

/// Longest time one call takes unless the limits say otherwise.
pub const TIME_MAX: Duration = Duration::from_secs(600);
/// Most bytes on standard output unless the limits say otherwise.
pub const STDOUT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes kept from the end of standard error unless the limits say otherwise.
pub const STDERR_BYTES_MAX: usize = 16 * 1024;
/// Longest wait, after the program ended, for what its pipes still hold.
pub const DRAIN_TIME_MAX: Duration = Duration::from_millis(500);

/// Characters of output or errors quoted in a message.
const QUOTED_CHARS_MAX: usize = 400;

/// What one call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Longest time; then the whole process group is killed.
    pub time: Duration,
    /// Most bytes on standard output; one more kills the group.
    pub stdout_bytes_max: usize,
    /// Bytes kept from the end of standard error; more is read and dropped.
    pub stderr_bytes_max: usize,
}

impl Default for CommandLimits {
    fn default() -> CommandLimits {
        CommandLimits {
            time: TIME_MAX,
            stdout_bytes_max: STDOUT_BYTES_MAX,
            stderr_bytes_max: STDERR_BYTES_MAX,
        }
    }
}

/// Runs a command line through `sh -c` for one brief and gives its result.
///
/// `env` is added to the inherited environment and may name what would be
/// withheld. The call ends early when `cancelled` does.
///
/// # Errors
///
/// | code | when | retryable |
/// |---|---|---|
/// | `command.not_found` | exit code 127, or no shell | no |
/// | `command.not_executable` | exit code 126 | no |
/// | `command.exit` | any other exit code but 0 | yes |
/// | `command.signal` | ended by a signal | yes |
/// | `command.timeout` | longer than `limits.time` | yes |
/// | `command.too_much_output` | more than `limits.stdout_bytes_max` | no |
/// | `command.no_json` | nothing, or something else than one JSON value | no |
/// | `command.cancelled` | `cancelled` ended first | no |
pub async fn run_program(
    command_line: &str,
    brief: &Value,
    env: &[(String, String)],
    limits: &CommandLimits,
    cancelled: impl Future<Output = ()> + Send,
) -> Result<Value, SkillError> {
    run_in(
        Surroundings::Inherited,
        command_line,
        brief,
        env,
        limits,
        &str::to_owned,
        cancelled,
    )
    .await
}

/// Where a program runs, and which variables it sees beside those that it is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Surroundings<'a> {
    /// This process's folder and environment, except what looks like a secret.
    Inherited,
    /// This folder, and of the environment only [`BARE_VARIABLES`].
    Bare(&'a Path),
}

/// What a program in bare surroundings sees of this process's environment.
pub(crate) const BARE_VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];

/// As [`run_program`], in these surroundings. What the program said is quoted as `told` tells it, which
/// sees it before it is cut or escaped: half a secret is not known as one any more.
pub(crate) async fn run_in(
    surroundings: Surroundings<'_>,
    command_line: &str,
    brief: &Value,
    env: &[(String, String)],
    limits: &CommandLimits,
    told: &(dyn Fn(&str) -> String + Sync),
    cancelled: impl Future<Output = ()> + Send,
) -> Result<Value, SkillError> {
    let mut child = spawn(surroundings, command_line, env)?;
    let group = Group::of(&child);
    let feeding = Abort(tokio::spawn(feed(child.stdin.take(), brief.to_string())));
    let stdout = Capture::first(child.stdout.take(), limits.stdout_bytes_max);
    let stderr = Capture::last(child.stderr.take(), limits.stderr_bytes_max);

    let ending = tokio::select! {
        biased;
        () = cancelled => Ending::Cancelled,
        () = stdout.overflow() => Ending::TooMuchOutput,
        status = child.wait() => Ending::Exited(status),
        () = tokio::time::sleep(limits.time) => Ending::Late,
    };
    drop(group);
    if !matches!(ending, Ending::Exited(_)) {
        // Killed, so gone at once; a process stuck in the kernel is left to it.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, child.wait()).await;
    }
    let drained = async { tokio::join!(stdout.end(), stderr.end()) };
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, drained).await;
    drop(feeding);
    outcome(ending, &stdout, &stderr, limits, told)
}

/// Says early what `sh` would say late: the program is not there or not
/// executable. Command lines only a shell can read (expansions, builtins)
/// pass unjudged.
///
/// # Errors
///
/// `command.empty`, `command.not_found`, `command.not_executable`.
pub fn check_program(command_line: &str) -> Result<(), SkillError> {
    if command_line.trim().is_empty() {
        return Err(SkillError::fatal(
            "command.empty",
            "the worker command is empty",
            "Name a program to run.",
        ));
    }
    let Some(program) = program_of(command_line) else {
        return Ok(());
    };
    if program.contains('/') {
        return check_file(Path::new(&program), &program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).any(|directory| is_executable(&directory.join(&program)));
    if found || SHELL_WORDS.contains(&program.as_str()) {
        return Ok(());
    }
    let hint = if Path::new(&program).is_file() {
        format!("A file of this name is in the working directory: write `./{program}`.")
    } else {
        "Check the spelling, or give the path of the program.".to_owned()
    };
    Err(SkillError::fatal(
        "command.not_found",
        format!("no program `{program}` is on the PATH"),
        hint,
    ))
}

/// Does a variable of this name or value look like a secret? Names with
/// `TOKEN`, `SECRET`, `PASSWORD`, `PASSWD` or `CREDENTIAL` in them or with a
/// part that ends in `KEY` or `KEYS` do, in any letter case, and so do values
/// that are a URL with a password in it.
#[must_use]
pub fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let told = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word));
    let key = name
        .split('_')
        .any(|part| part.ends_with("KEY") || part.ends_with("KEYS"));
    let authority = value
        .split_once("://")
        .map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
    let url = authority
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    told || key || url
}

/// Starts a command line in a process group of its own, with all three of its streams piped.
pub(crate) fn spawn(
    surroundings: Surroundings<'_>,
    command_line: &str,
    env: &[(String, String)],
) -> Result<Child, SkillError> {
    let inherited = |name: &OsStr, value: &OsStr| match surroundings {
        Surroundings::Inherited => !is_secret(&name.to_string_lossy(), &value.to_string_lossy()),
        Surroundings::Bare(_) => BARE_VARIABLES.iter().any(|bare| name == *bare),
    };
    let mut command = Command::new("sh");
    if let Surroundings::Bare(folder) = surroundings {
        command.current_dir(folder);
    }
    command
        .arg("-c")
        .arg(command_line)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, value)| inherited(name, value)))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            SkillError::fatal(
                "command.not_found",
                format!("`{command_line}` could not be started: {error}"),
                "Check that `sh` is installed and the command line is not too long.",
            )
        })
}

/// Gives the brief to whoever reads it. A program that does not read, or
/// closes its input early, is within its rights.
async fn feed(stdin: Option<tokio::process::ChildStdin>, brief: String) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(brief.as_bytes()).await;
        let _ = stdin.write_all(b"\n").await;
        let _ = stdin.shutdown().await;
    }
}

enum Ending {
    Exited(std::io::Result<ExitStatus>),
    Late,
    TooMuchOutput,
    Cancelled,
}

fn outcome(
    ending: Ending,
    stdout: &Capture,
    stderr: &Capture,
    limits: &CommandLimits,
    told: &dyn Fn(&str) -> String,
) -> Result<Value, SkillError> {
    let said = stderr.quoted_as(told);
    let status = match ending {
        Ending::Exited(status) => status,
        Ending::Late => {
            return Err(SkillError::retryable(
                "command.timeout",
                format!(
                    "the program ran longer than {} ms and was killed{said}",
                    limits.time.as_millis()
                ),
                "Give it more time, or make its tasks smaller.",
            ));
        }
        Ending::TooMuchOutput => return Err(too_much_output(limits)),
        Ending::Cancelled => {
            return Err(SkillError::fatal(
                "command.cancelled",
                "the program was killed because its task was cancelled",
                "Nothing to do; retry the task if it was cancelled by mistake.",
            ));
        }
    };
    let status = status.map_err(|error| {
        SkillError::retryable(
            "command.signal",
            format!("the program's end could not be learned: {error}"),
            "Try again.",
        )
    })?;
    check_status(status, &said)?;
    if stdout.has_overflown() {
        return Err(too_much_output(limits));
    }
    let bytes = stdout.bytes();
    serde_json::from_slice(&bytes).map_err(|error| no_json(&bytes, &error, &said, told))
}

fn check_status(status: ExitStatus, said: &str) -> Result<(), SkillError> {
    // A shell reports a child's signal n as exit code 128 + n.
    let code = status.code();
    let signal = status.signal().or(code
        .map(|code| code - 128)
        .filter(|signal| (1..=64).contains(signal)));
    match (code, signal) {
        (Some(0), _) => Ok(()),
        (_, Some(signal)) => Err(SkillError::retryable(
            "command.signal",
            format!("the program was ended by signal {signal}{said}"),
            "Look for a crash or for too little memory (signal 9 without a time limit).",
        )),
        (Some(127), _) => Err(SkillError::fatal(
            "command.not_found",
            format!("the program, or one it calls, was not found (exit code 127){said}"),
            "Check the spelling and the PATH; a program in the working directory is `./name`.",
        )),
        (Some(126), _) => Err(SkillError::fatal(
            "command.not_executable",
            format!("the program cannot be executed (exit code 126){said}"),
            "Make it executable with `chmod +x`, and check its first line.",
        )),
        (code, None) => Err(SkillError::retryable(
            "command.exit",
            format!(
                "the program failed with exit code {}{said}",
                code.unwrap_or(-1)
            ),
            "Its standard error says why; run it by hand with the brief on standard input.",
        )),
    }
}

fn too_much_output(limits: &CommandLimits) -> SkillError {
    SkillError::fatal(
        "command.too_much_output",
        format!(
            "the program printed more than {} bytes and was killed",
            limits.stdout_bytes_max
        ),
        "Print one JSON result on standard output and everything else on standard error.",
    )
}

fn no_json(
    bytes: &[u8],
    error: &serde_json::Error,
    said: &str,
    told: &dyn Fn(&str) -> String,
) -> SkillError {
    let printed = told(&String::from_utf8_lossy(bytes));
    let what = if printed.trim().is_empty() {
        "nothing".to_owned()
    } else {
        format!(
            "something that is not one JSON value ({error}): {}",
            quote(printed.trim().chars())
        )
    };
    SkillError::fatal(
        "command.no_json",
        format!("the program succeeded but printed {what}{said}"),
        "Print one JSON value on standard output and everything else on standard error.",
    )
}

fn quote(chars: impl Iterator<Item = char>) -> String {
    let kept: String = chars.take(QUOTED_CHARS_MAX).collect();
    format!("{kept:?}")
}

/// The process group of a child, killed when this goes out of scope.
///
/// The leader may be reaped by then. Its id names the group as long as any
/// child is left; with none left the id is free, and the kill finds nobody in
/// the moment before it could be given away again.
pub(crate) struct Group(Option<Pid>);

impl Group {
    pub(crate) fn of(child: &Child) -> Group {
        Group(
            child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
        )
    }
}

impl Group {
    /// Asks all of them to end, and ends those that did not within this time. It blocks: for who has no
    /// other moment, because the process may be at its own end.
    pub(crate) fn end_within(&self, time: Duration) {
        let Some(leader) = self.0 else {
            return;
        };
        let _ = kill_process_group(leader, Signal::TERM);
        let begun = std::time::Instant::now();
        while test_kill_process_group(leader).is_ok() && begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill();
    }

    fn kill(&self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A task that ends with its owner.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What came out of a pipe so far, readable before the pipe ends.
pub(crate) struct Capture {
    shared: Arc<Shared>,
    reading: Abort,
}

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    overflow: Notify,
    end: Notify,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    dropped: bool,
    read: usize,
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Keeps the first bytes and stops reading at one too many.
    fn first<R: AsyncRead + Unpin + Send + 'static>(pipe: Option<R>, bytes_max: usize) -> Capture {
        Capture::start(pipe, move |shared, chunk| {
            let mut kept = shared.kept();
            let room = bytes_max - kept.bytes.len();
            kept.bytes.extend(&chunk[..chunk.len().min(room)]);
            kept.dropped = chunk.len() > room;
            if kept.dropped {
                shared.overflow.notify_one();
            }
            !kept.dropped
        })
    }

    /// Keeps the first bytes, reads and drops some more, and stops reading at one too many.
    pub(crate) fn cut<R: AsyncRead + Unpin + Send + 'static>(
        pipe: Option<R>,
        bytes_max: usize,
        read_bytes_max: usize,
    ) -> Capture {
        Capture::start(pipe, move |shared, chunk| {
            let mut kept = shared.kept();
            let room = bytes_max - kept.bytes.len();
            kept.bytes.extend(&chunk[..chunk.len().min(room)]);
            kept.dropped |= chunk.len() > room;
            kept.read += chunk.len();
            let flood = kept.read > read_bytes_max;
            if flood {
                shared.overflow.notify_one();
            }
            !flood
        })
    }

    /// Keeps the last bytes and reads for ever.
    pub(crate) fn last<R: AsyncRead + Unpin + Send + 'static>(
        pipe: Option<R>,
        bytes_max: usize,
    ) -> Capture {
        Capture::start(pipe, move |shared, chunk| {
            let mut kept = shared.kept();
            kept.bytes.extend(chunk);
            let excess = kept.bytes.len().saturating_sub(bytes_max);
            kept.bytes.drain(..excess);
            kept.dropped |= excess > 0;
            true
        })
    }

    fn start<R: AsyncRead + Unpin + Send + 'static>(
        pipe: Option<R>,
        take: impl Fn(&Shared, &[u8]) -> bool + Send + 'static,
    ) -> Capture {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let reading = tokio::spawn(async move {
            if let Some(mut pipe) = pipe {
                let mut chunk = vec![0; 16 * 1024];
                while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                    if !take(&theirs, &chunk[..read]) {
                        break;
                    }
                }
            }
            theirs.end.notify_one();
        });
        Capture {
            shared,
            reading: Abort(reading),
        }
    }

    pub(crate) async fn overflow(&self) {
        self.shared.overflow.notified().await;
    }

    pub(crate) async fn end(&self) {
        if !self.reading.0.is_finished() {
            self.shared.end.notified().await;
        }
    }

    pub(crate) fn has_overflown(&self) -> bool {
        self.shared.kept().dropped
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shared.kept().bytes.iter().copied().collect()
    }

    /// The end of it as `told` tells it, ready to follow a message; empty if there is nothing.
    pub(crate) fn quoted_as(&self, told: &dyn Fn(&str) -> String) -> String {
        let bytes = self.bytes();
        let text = told(&String::from_utf8_lossy(&bytes));
        let text = text.trim();
        if text.is_empty() {
            return String::new();
        }
        let skipped = text.chars().count().saturating_sub(QUOTED_CHARS_MAX);
        let tail: String = text.chars().skip(skipped).collect();
        let cut = if skipped > 0 || self.has_overflown() {
            "…"
        } else {
            ""
        };
        format!("; it said: {cut}{tail}")
    }
}

/// Words a POSIX shell knows itself; not all are programs on the PATH.
#[rustfmt::skip]
const SHELL_WORDS: [&str; 31] = [
    ".", ":", "alias", "break", "case", "cd", "command", "continue", "echo", "eval", "exec", "exit", "export",
    "for", "if", "printf", "pwd", "read", "readonly", "return", "set", "shift", "source", "test", "times",
    "trap", "ulimit", "umask", "unset", "until", "while",
];

/// The program a command line starts, as far as it can be told without a
/// shell: past `NAME=value` words, unquoted, free of expansions.
pub(crate) fn program_of(command_line: &str) -> Option<String> {
    let mut rest = command_line.trim_start();
    loop {
        let (word, after) = match rest.chars().next()? {
            quote @ ('\'' | '"') => rest[1..].split_once(quote)?,
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || ";|&<>".contains(c))
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if word.is_empty()
            || word.contains([
                '$', '`', '(', ')', '{', '}', '*', '?', '[', '\\', '~', '#', '!', '\'', '"',
            ])
        {
            return None;
        }
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        if !is_assignment {
            return Some(word.to_owned());
        }
        rest = after.trim_start();
    }
}

/// Says what `sh` would say of this file.
pub(crate) fn check_file(path: &Path, program: &str) -> Result<(), SkillError> {
    let not_executable = |why: &str, hint: String| {
        Err(SkillError::fatal(
            "command.not_executable",
            format!("`{program}` {why}"),
            hint,
        ))
    };
    match std::fs::metadata(path) {
        Err(error) => Err(SkillError::fatal(
            "command.not_found",
            format!("there is no program `{program}`: {error}"),
            "Check the path and the directory you are in.",
        )),
        Ok(meta) if meta.is_dir() => {
            not_executable("is a directory", "Name the program inside it.".to_owned())
        }
        Ok(_) if is_executable(path) => Ok(()),
        Ok(_) => not_executable("is not executable", format!("Run `chmod +x {program}`.")),
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
