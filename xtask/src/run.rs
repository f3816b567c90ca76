//! `cargo xtask check` and `cargo xtask test`: cargo, in a fixed order, with a
//! clear word about what failed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use crate::Done;
use crate::clients;
use crate::requirements::requirements;
use crate::tree::root;

/// What the build and the tests need that cargo cannot bring: how to see that it is there, the package
/// that brings it, and why. `.ci/run` installs the same packages; a tidy test compares.
pub(crate) const SYSTEM: [(&str, &str, &str); 6] = [
    (
        "cc --version",
        "build-essential",
        "the embedded SQLite is compiled from C",
    ),
    (
        "curl --version",
        "curl",
        "what the documentation asks the server by curl is asked so",
    ),
    (
        "node --version",
        "nodejs",
        "the TypeScript client and MCP servers are tested with it; version 20 or later",
    ),
    (
        "npm --version",
        "npm",
        "the TypeScript client is built, and MCP servers for the tests are fetched, with it",
    ),
    (
        "promtool --version",
        "prometheus",
        "the metrics are judged by Prometheus' own tool",
    ),
    (
        "python3 -m ensurepip --version",
        "python3-venv",
        "the Python client and MCP servers are tested in environments of their own",
    ),
];

/// One call of cargo.
struct Step {
    arguments: &'static str,
    fix: &'static str,
}

const FORMAT: Step = Step {
    arguments: "fmt --all --check",
    fix: "run `cargo fmt --all`",
};

const LINTS: Step = Step {
    arguments: "clippy --workspace --all-targets --locked -- -D warnings",
    fix: "follow the advice above; `cargo clippy --fix --workspace --all-targets` does the easy part",
};

const UNIT_TESTS: Step = Step {
    arguments: "test --workspace --lib --bins --locked",
    fix: "run the failing test alone with `cargo test -p CRATE TEST`",
};

/// Integration tests start the real program: it must exist, and be new.
const PROGRAM: Step = Step {
    arguments: "build --package chargehand-cli --locked --message-format=json-render-diagnostics",
    fix: "make `cargo build --package chargehand-cli` succeed",
};

/// All of them even when one fails, so that the totals are of everything.
const ALL_TESTS: Step = Step {
    arguments: "test --workspace --locked --no-fail-fast",
    fix: "run the failing test alone with `cargo test -p CRATE TEST`",
};

/// The fast loop.
pub(crate) fn check() -> Done {
    system()?;
    FORMAT.run()?;
    LINTS.run()?;
    UNIT_TESTS.run()
}

/// The whole test run. Once tests have run, the last line is their totals.
pub(crate) fn test() -> Done {
    system()?;
    FORMAT.run()?;
    LINTS.run()?;
    let program = build_program()?;
    let mut totals = Totals::default();
    let tests = ALL_TESTS.run_tests(&program, &mut totals);
    let clients = clients::test(&program, &mut totals);
    println!();
    let rows = requirements(&["--check".to_owned()]);
    for error in [&tests, &clients, &rows]
        .into_iter()
        .filter_map(|done| done.as_ref().err())
    {
        eprintln!("error: {error}");
    }
    if totals.ignored > 0 {
        println!("{} ignored", totals.ignored);
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    match (
        tests.is_ok() && clients.is_ok() && rows.is_ok(),
        totals.passed + totals.failed,
    ) {
        (false, _) => Err("the test run failed; the reasons are above".into()),
        (true, 0) => Err("no test ran".into()),
        (true, _) => Ok(()),
    }
}

/// Says by package name what the machine lacks, before a build fails in words
/// only its author understands.
fn system() -> Done {
    for (check, package, why) in SYSTEM {
        let mut words = check.split(' ');
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            return Err(format!(
                "`{check}` does not work ({why}): apt-get install {package}"
            ));
        }
    }
    Ok(())
}

/// Builds the program the tests start; its path comes from cargo, which alone
/// knows every setting that moves it.
fn build_program() -> Result<String, String> {
    eprintln!("\n> cargo {}", PROGRAM.arguments);
    let output = PROGRAM.command().stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(PROGRAM.failed());
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| "cargo built chargehand-cli but named no executable".to_owned())
}

/// The last executable in cargo's messages, one JSON object a line. Other
/// executables are build scripts of dependencies, and come before.
fn executable(messages: &str) -> Option<String> {
    let (_, after) = messages.rsplit_once("\"executable\":\"")?;
    let mut path = String::new();
    let mut chars = after.chars();
    loop {
        match chars.next()? {
            '"' => return Some(path),
            '\\' => path.push(chars.next()?),
            other => path.push(other),
        }
    }
}

impl Step {
    fn command(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(self.arguments.split(' ')).current_dir(root());
        command
    }

    fn failed(&self) -> String {
        format!("`cargo {}` failed; {}", self.arguments, self.fix)
    }

    fn run(&self) -> Done {
        eprintln!("\n> cargo {}", self.arguments);
        match self.command().status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(self.failed()),
            Err(error) => Err(format!("cannot start cargo: {error}")),
        }
    }

    /// Runs tests, passes what they print on, and adds their results up.
    fn run_tests(&self, program: &str, totals: &mut Totals) -> Done {
        eprintln!("\n> CHARGEHAND_BIN={program} cargo {}", self.arguments);
        let mut command = self.command();
        command
            .env("CHARGEHAND_BIN", program)
            .stdout(Stdio::piped());
        let cannot = |error: std::io::Error| format!("cannot run the tests: {error}");
        let mut child = command.spawn().map_err(cannot)?;
        let mut output = BufReader::new(child.stdout.take().expect("piped above"));
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).map_err(cannot)? > 0 {
            totals.add(&String::from_utf8_lossy(&line));
            std::io::stdout().write_all(&line).map_err(cannot)?;
            line.clear();
        }
        match child.wait().map_err(cannot)?.success() {
            true => Ok(()),
            // Without a result line there is no count, but there is a failure.
            false if totals.failed == 0 => Err(format!(
                "{}; no test failed: one did not build, or died",
                self.failed()
            )),
            false => Err(self.failed()),
        }
    }
}

/// Sums over all test binaries and doc tests.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; …`; any other
    /// line changes nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_others_passed_over() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests\n",
            "test a ... ok\n",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "said: test result: ok. 9 passed; 9 failed\n",
        ] {
            totals.add(line);
        }
        assert_eq!(
            totals,
            Totals {
                passed: 7,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn the_program_is_the_last_executable() {
        let messages = r#"{"executable":null}
{"executable":"/t/build-script"}
{"target":{"name":"chargehand"},"executable":"/t/a \"b\"/chargehand","fresh":true}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages).as_deref(),
            Some("/t/a \"b\"/chargehand")
        );
        assert_eq!(executable("{}"), None);
    }
}
