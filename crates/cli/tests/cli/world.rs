//! A folder of its own for each test, and the program in it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No command of these tests takes longer, unless the machine is at a standstill.
const PATIENCE: Duration = Duration::from_secs(120);

/// The goal that the examples are for.
pub(crate) const GOAL: &str = "Analyze the sentiment of these customer reviews";

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// It ended with this exit code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output is exactly one JSON document.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|fault| panic!("{fault}: {self:#?}"))
    }

    /// It was refused: nothing on standard output, and the error has all three parts.
    #[track_caller]
    pub(crate) fn refused(self, exit: i32, code: &str) -> Self {
        let done = self.ended(exit);
        assert_eq!(done.out, "", "{done:#?}");
        let first = format!("error[{code}]: ");
        let (error, help) = done
            .err
            .split_once("\n  help: ")
            .unwrap_or_else(|| panic!("no help: {done:#?}"));
        assert!(
            error
                .lines()
                .next_back()
                .is_some_and(|line| line.starts_with(&first)),
            "{first} {done:#?}"
        );
        assert!(help.trim().len() > 10, "{done:#?}");
        done
    }

    /// What it says names this.
    #[track_caller]
    pub(crate) fn names(self, text: &str) -> Self {
        assert!(self.err.contains(text), "“{text}” is not in {self:#?}");
        self
    }

    /// The id of the run that standard error tells of.
    pub(crate) fn run(&self) -> String {
        run_in(&self.err).unwrap_or_else(|| panic!("no run in {self:#?}"))
    }
}

fn run_in(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix("run   ")?.split(' ').next()?.to_owned()))
}

/// A folder, and the program in it.
pub(crate) struct World {
    folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
        }
    }

    /// With a copy of the example's reviews in `examples/reviews`.
    pub(crate) fn with_reviews() -> Self {
        let world = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/reviews");
        for entry in std::fs::read_dir(from).expect("the example") {
            let entry = entry.expect("an entry");
            let text = std::fs::read(entry.path()).expect("a review");
            world.file(
                &format!("examples/reviews/{}", entry.file_name().display()),
                text,
            );
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, content).expect("it can be written");
    }

    /// A shell program, as a worker command.
    pub(crate) fn program(&self, name: &str, script: &str) -> String {
        self.file(name, format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).expect("it can be made executable");
        format!("./{name}")
    }

    /// So many lines of JSON, each with its number.
    pub(crate) fn lines(&self, name: &str, count: usize) {
        let lines: Vec<String> = (1..=count).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        self.file(name, lines.concat());
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A file that programs append to, once nobody appends any more: a program whose supervisor was
    /// killed may still be writing its line.
    pub(crate) fn settled(&self, name: &str) -> String {
        let mut text = String::new();
        until("the last line", || {
            let before = std::mem::replace(&mut text, self.read(name));
            before.len() == text.len() && !text.is_empty()
        });
        text
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chargehand"));
        command.args(args).current_dir(self.folder.path());
        command
            .env_remove("CHARGEHAND_STORE")
            .env_remove("CHARGEHAND_SERVER")
            .env_remove("ANTHROPIC_API_KEY")
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(self.start(args), b"")
    }

    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Done {
        let mut command = self.command(args);
        finish(
            command
                .stdin(Stdio::piped())
                .spawn()
                .expect("the program starts"),
            stdin,
        )
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("the program starts")
    }

    /// It succeeds with one JSON document and says nothing else.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let done = self.run(&[args, &["--output", "json"]].concat()).ended(0);
        assert_eq!(done.err, "", "{done:#?}");
        done.document()
    }

    /// The log, as anyone can read it.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let done = self.run(&["events"]).ended(0);
        done.out
            .lines()
            .map(|line| serde_json::from_str(line).expect("an event per line"))
            .collect()
    }

    /// The store opens, and its rows are what its events say.
    #[track_caller]
    pub(crate) fn is_sound(&self) {
        let doctor = self.json(&["doctor", "--replay"]);
        assert_eq!(doctor["sound"], true, "{doctor:#}");
        assert!(doctor["rows_compared"].is_u64(), "{doctor:#}");
    }
}

/// Gives it its input, and waits for it.
#[track_caller]
pub(crate) fn finish(mut child: Child, stdin: &[u8]) -> Done {
    let input = stdin.to_vec();
    let pipe = child.stdin.take();
    let feeding = std::thread::spawn(move || {
        // One that does not read to the end is within its rights.
        pipe.map(|mut pipe| pipe.write_all(&input))
    });
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().expect("it can be waited for");
    drop(ended);
    let _ = feeding.join();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!watch.join().expect("the watch"), "it hangs: {out}\n{err}");
    Done {
        code: output.status.code().unwrap_or(-1),
        out,
        err,
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it prints UTF-8")
}

/// Reads standard error until the program has told the id of its run: from then on it is promised.
pub(crate) fn promised(child: &mut Child) -> String {
    let pipe = child.stderr.take().expect("a pipe");
    let mut told = BufReader::new(pipe);
    let mut line = String::new();
    while told.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if let Some(run) = run_in(&line) {
            // Somebody has to go on reading, or the program waits.
            std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
            return run;
        }
        line.clear();
    }
    panic!("it ended without a run");
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it can be told");
}

/// Small, seeded, good enough to choose moments (xorshift).
pub(crate) struct Chance(u64);

impl Chance {
    /// From the seed in `CHARGEHAND_TEST_SEED`, or from a new one; told, so that it can be given.
    pub(crate) fn told() -> (u64, Self) {
        let given = std::env::var("CHARGEHAND_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock");
        let seed: u64 = given.unwrap_or(now.as_nanos() as u64) | 1;
        println!("CHARGEHAND_TEST_SEED={seed}");
        (seed, Self(seed))
    }

    /// Another one, which draws of its own.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    /// One of `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
