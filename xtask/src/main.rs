//! The project's own chores, as `cargo xtask <chore>`.
//!
//! A chore lives here when newcomers and CI must do exactly the same thing.
//! There are no dependencies on purpose: the chores build in a second, on a
//! machine that has nothing but cargo, even while the workspace is broken.
//!
//! A new chore is a function returning [`Done`] and one line in [`CHORES`].

mod citations;
mod clients;
mod ids;
mod requirements;
mod run;
mod rust;
#[cfg(test)]
mod tidy;
mod tree;

use std::process::ExitCode;

/// What a chore ends with; the error is one sentence for the person, and
/// everything longer has been printed before.
type Done = Result<(), String>;

/// One word of `cargo xtask`.
struct Chore {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Done,
}

const CHORES: [Chore; 4] = [
    Chore {
        name: "check",
        arguments: "",
        help: "the fast loop: format, lints, unit tests; stops at the first failure",
        run: |arguments| none(arguments).and_then(|()| run::check()),
    },
    Chore {
        name: "test",
        arguments: "",
        help: "everything CI runs: format, lints, all tests, requirements",
        run: |arguments| none(arguments).and_then(|()| run::test()),
    },
    Chore {
        name: "requirements",
        arguments: "[--check]",
        help: "which test proves which row; --check prints totals and problems only",
        run: requirements::requirements,
    },
    Chore {
        name: "help",
        arguments: "",
        help: "print this",
        run: |_| {
            print!("{}", usage());
            Ok(())
        },
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    let name = if name == "--help" || name == "-h" {
        "help"
    } else {
        name
    };
    let Some(chore) = CHORES.iter().find(|chore| chore.name == name) else {
        eprintln!("error: there is no chore `{name}`\n\n{}", usage());
        return ExitCode::from(2);
    };
    match (chore.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// For chores that take no arguments: a silently ignored one would mislead.
fn none(arguments: &[String]) -> Done {
    match arguments.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "unexpected argument `{first}`; see `cargo xtask help`"
        )),
    }
}

fn usage() -> String {
    let mut text = String::from("cargo xtask <chore>\n\n");
    for chore in &CHORES {
        let call = format!("{} {}", chore.name, chore.arguments);
        text += &format!("  {call:<24}{}\n", chore.help);
    }
    text
}
