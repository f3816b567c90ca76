//! The tests of the clients in other languages: each with its own language's tools, against the
//! program that was just built.

use crate::Done;
use crate::run::Totals;
use crate::tree::root;
use std::process::{Command, Stdio};

/// One call of a tool, in a client's folder.
struct Step {
    folder: &'static str,
    /// Program and arguments; a program with a slash is within the repository.
    words: &'static [&'static str],
    /// How its output is read for totals.
    reads: fn(&str, &mut Totals),
}

/// Where Python's environment goes: beside everything else that is built.
const PYTHON: &str = "target/python/bin/python";

const STEPS: [Step; 6] = [
    Step {
        folder: ".",
        words: &["python3", "-m", "venv", "target/python"],
        reads: nothing,
    },
    Step {
        folder: ".",
        words: &[
            PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "./clients/python[test]",
        ],
        reads: nothing,
    },
    Step {
        folder: ".",
        words: &[PYTHON, "-m", "pytest", "-q", "clients/python/tests"],
        reads: pytest,
    },
    Step {
        folder: "clients/typescript",
        words: &["npm", "ci", "--no-audit", "--no-fund"],
        reads: nothing,
    },
    Step {
        folder: "clients/typescript",
        words: &["npm", "run", "build"],
        reads: nothing,
    },
    Step {
        folder: "clients/typescript",
        words: &["npm", "test"],
        reads: node,
    },
];

/// Runs them all; the first that fails ends its own client's, not the other's.
pub(crate) fn test(program: &str, totals: &mut Totals) -> Done {
    let mut failed = Vec::new();
    for client in ["clients/python", "clients/typescript"] {
        let of_client = |step: &&Step| (client == "clients/python") == (step.folder == ".");
        for step in STEPS.iter().filter(of_client) {
            if let Err(error) = step.run(program, totals) {
                failed.push(format!("{client}: {error}"));
                break;
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("; ")),
    }
}

impl Step {
    fn run(&self, program: &str, totals: &mut Totals) -> Done {
        let line = self.words.join(" ");
        eprintln!("\n> ({}) {line}", self.folder);
        let tool = match self.words[0] {
            tool if tool.contains('/') => root().join(tool).into_os_string(),
            tool => tool.into(),
        };
        let output = Command::new(tool)
            .args(&self.words[1..])
            .current_dir(root().join(self.folder))
            .env("CHARGEHAND_BIN", program)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot start `{line}`: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        (self.reads)(&text, totals);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("`{line}` failed")),
        }
    }
}

fn nothing(_: &str, _: &mut Totals) {}

/// `12 passed, 1 failed, 2 skipped in 3.4s`, the last line with a count.
fn pytest(text: &str, totals: &mut Totals) {
    let Some(line) = text.lines().rev().find(|line| line.contains(" in ")) else {
        return;
    };
    for part in line
        .trim_matches(['=', ' '])
        .split(&[',', ' '][..])
        .collect::<Vec<_>>()
        .windows(2)
    {
        let Ok(count) = part[0].parse::<u64>() else {
            continue;
        };
        match part[1] {
            "passed" => totals.passed += count,
            "failed" | "error" | "errors" => totals.failed += count,
            "skipped" => totals.ignored += count,
            _ => {}
        }
    }
}

/// Lines such as `# pass 12` (or `ℹ pass 12`), as `node --test` ends.
fn node(text: &str, totals: &mut Totals) {
    for line in text.lines() {
        let mut words = line.trim_start_matches(['#', 'ℹ', ' ']).split(' ');
        let (Some(what), Some(Ok(count)), None) = (
            words.next(),
            words.next().map(str::parse::<u64>),
            words.next(),
        ) else {
            continue;
        };
        match what {
            "pass" => totals.passed += count,
            "fail" => totals.failed += count,
            "skipped" => totals.ignored += count,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_the_tools_are_read() {
        let mut totals = Totals::default();
        pytest(
            "....F\n1 failed, 4 passed, 2 skipped in 3.21s\n",
            &mut totals,
        );
        node("# tests 9\n# pass 8\n# fail 1\n# skipped 0\n", &mut totals);
        let expected = Totals {
            passed: 12,
            failed: 2,
            ignored: 2,
        };
        assert_eq!(totals, expected);
    }
}
