//! House rules that no lint can express, each a test with its reason.
//!
//! A rule is a function from a file to what it finds wrong; the tests run the
//! rules over the tree, and `the_rules_bite` runs them over made-up offenders,
//! so that a rule cannot go blind unnoticed.

use crate::requirements;
use crate::run::SYSTEM;
use crate::rust::{Kind, Token, tokens};
use crate::tree::{File, files, root};

/// Who may name whom in `[dependencies]` (docs/architecture.md). Tests may look
/// further: dev-dependencies are free.
const FLOORS: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("protocol", &["domain"]),
    ("engine", &["store", "domain", "protocol"]),
    ("server", &["domain", "protocol", "engine"]),
    ("chargehand", &["domain", "protocol"]),
    ("agent", &["domain", "protocol", "chargehand"]),
    ("cli", ANY),
    ("sim", ANY),
    ("bench", ANY),
    ("xtask", &[]),
];

const ANY: &[&str] = &[
    "domain",
    "store",
    "protocol",
    "engine",
    "server",
    "chargehand",
    "agent",
    "cli",
    "sim",
    "bench",
];

/// What stays out of the pure core: a runtime, IO, chance.
const IMPURE: [&str; 5] = ["tokio", "rusqlite", "reqwest", "rand", "getrandom"];

/// The same in the core's code: time, ids and chance come as arguments.
const IMPURE_CALLS: [&str; 7] = [
    "SystemTime::now",
    "Instant::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
];

/// The one exception: the expression parser recurses, so it runs on a thread with
/// a stack made for it, which is waited for. Nothing runs beside anything else.
const LARGE_STACK: (&str, &str) = ("crates/domain/src/expr.rs", "std::thread");

const LINES_MAX: usize = 1_500;

/// Asserts that `rule` finds nothing in the tree; lists all findings at once.
#[track_caller]
fn tidy(reason: &str, rule: impl Fn(&File) -> Vec<String>) {
    let found: Vec<_> = files(root()).iter().flat_map(rule).collect();
    assert!(
        found.is_empty(),
        "\n{}\n\nWhy: {reason}\n",
        found.join("\n")
    );
}

// S4-120: no `todo!` anywhere.
#[test]
fn nothing_unfinished() {
    tidy(
        "a promise to finish later is a crash for whoever comes first",
        unfinished,
    );
}

#[test]
fn floors_are_kept() {
    tidy(
        "a floor skipped once is a wall gone; see FLOORS in xtask/src/tidy.rs",
        floors,
    );
}

#[test]
fn the_core_is_pure() {
    tidy(
        "the same decisions run live, in recovery and in the simulator",
        impure,
    );
}

#[test]
fn sql_has_one_home() {
    tidy(
        "one crate holds all SQL; bench measures raw SQLite as the limit",
        sql,
    );
}

#[test]
fn crates_introduce_themselves() {
    tidy(
        "a newcomer reads the first line of a crate to know why it exists",
        introduction,
    );
}

#[test]
fn files_can_be_read_in_one_sitting() {
    tidy(
        "a file that long holds two nouns; give the second its own",
        too_long,
    );
}

#[test]
fn modules_are_named_after_nouns() {
    tidy("a name that says nothing collects everything", empty_name);
}

#[test]
fn cited_rows_exist() {
    let problems = requirements::problems().expect("the list can be read");
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn ci_installs_what_the_check_asks_for() {
    let script = std::fs::read_to_string(root().join(".ci/run")).expect(".ci/run can be read");
    let list = script
        .lines()
        .find_map(|line| line.strip_prefix("packages=("));
    let list = list
        .and_then(|line| line.strip_suffix(')'))
        .expect("packages=(…) in .ci/run");
    let packages: Vec<_> = SYSTEM.iter().map(|(_, package, _)| *package).collect();
    assert_eq!(
        list.split(' ').collect::<Vec<_>>(),
        packages,
        "one list: .ci/run and run::SYSTEM"
    );
}

/// The crate a path belongs to, and the path inside it.
fn place(path: &str) -> Option<(&str, &str)> {
    let below = path
        .strip_prefix("crates/")
        .or(path.starts_with("xtask/").then_some(path))?;
    below.split_once('/')
}

/// The code of a Rust file in a crate: no comments, no strings.
fn code(file: &File) -> Option<(&str, &str, Vec<Token<'_>>)> {
    let (krate, inside) = place(&file.path).filter(|_| file.path.ends_with(".rs"))?;
    let mut code = tokens(&file.text);
    code.retain(|token| matches!(token.kind, Kind::Word | Kind::Mark));
    Some((krate, inside, code))
}

/// The lines of `code` on which the tokens of `wanted` stand in a row.
fn lines_with(code: &[Token], wanted: &str) -> Vec<usize> {
    let wanted = tokens(wanted);
    code.windows(wanted.len())
        .filter(|window| {
            window
                .iter()
                .zip(&wanted)
                .all(|(here, wanted)| here.is(wanted.text))
        })
        .map(|window| window[0].line)
        .collect()
}

fn unfinished(file: &File) -> Vec<String> {
    let Some((_, _, code)) = code(file) else {
        return Vec::new();
    };
    ["todo!", "unimplemented!", "dbg!"]
        .iter()
        .flat_map(|call| {
            lines_with(&code, call)
                .into_iter()
                .map(move |line| (line, call))
        })
        .map(|(line, call)| format!("{}:{line}: `{call}`", file.path))
        .collect()
}

fn floors(file: &File) -> Vec<String> {
    let Some((krate, "Cargo.toml")) = place(&file.path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == krate) else {
        return vec![format!(
            "{}: give crate `{krate}` its floor in xtask/src/tidy.rs",
            file.path
        )];
    };
    let named = dependencies(&file.text);
    let ours = named
        .iter()
        .filter(|(name, dev)| !dev && FLOORS.iter().any(|(f, _)| f == name));
    ours.filter(|(name, _)| !allowed.contains(&name.as_str()))
        .map(|(name, _)| format!("{}: `{krate}` may not depend on `{name}`", file.path))
        .collect()
}

fn impure(file: &File) -> Vec<String> {
    if file.path == "crates/domain/Cargo.toml" {
        let named = dependencies(&file.text);
        let bad = named
            .iter()
            .filter(|(name, dev)| !dev && IMPURE.contains(&name.as_str()));
        return bad
            .map(|(name, _)| format!("{}: `{name}`", file.path))
            .collect();
    }
    let Some(("domain", inside, mut code)) = code(file) else {
        return Vec::new();
    };
    if !inside.starts_with("src/") {
        return Vec::new();
    }
    // Unit tests close a file and may do as they like.
    let tests = lines_with(&code, "#[cfg(test)]")
        .first()
        .copied()
        .unwrap_or(usize::MAX);
    code.retain(|token| token.line < tests);
    IMPURE_CALLS
        .iter()
        .filter(|call| (file.path.as_str(), **call) != LARGE_STACK)
        .flat_map(|call| {
            lines_with(&code, call)
                .into_iter()
                .map(move |line| (line, call))
        })
        .map(|(line, call)| format!("{}:{line}: `{call}` in the pure core", file.path))
        .collect()
}

fn sql(file: &File) -> Vec<String> {
    let Some((krate, "Cargo.toml")) = place(&file.path) else {
        return Vec::new();
    };
    let home = ["store", "bench"].contains(&krate);
    let named = dependencies(&file.text);
    // Dev-dependencies are free: an independent checker reads the file itself.
    let bad = named
        .iter()
        .filter(|(name, dev)| !home && !dev && name == "rusqlite");
    bad.map(|_| format!("{}: `rusqlite` belongs to `store`", file.path))
        .collect()
}

fn introduction(file: &File) -> Vec<String> {
    let opens = place(&file.path)
        .is_some_and(|(_, inside)| inside == "src/lib.rs" || inside == "src/main.rs");
    let silent = opens && !file.text.starts_with("//! ");
    silent
        .then(|| format!("{}: open with `//! ` and why this exists", file.path))
        .into_iter()
        .collect()
}

fn too_long(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let long = file.path.ends_with(".rs") && lines > LINES_MAX;
    long.then(|| format!("{}: {lines} lines, at most {LINES_MAX}", file.path))
        .into_iter()
        .collect()
}

fn empty_name(file: &File) -> Vec<String> {
    const EMPTY: [&str; 8] = [
        "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils",
    ];
    let Some((_, inside, code)) = code(file) else {
        return Vec::new();
    };
    let parts = inside
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| EMPTY.contains(part));
    let parts = parts.map(|part| format!("{}: a module named `{part}`", file.path));
    let inline = EMPTY.iter().flat_map(|name| {
        let lines = lines_with(&code, &format!("mod {name} {{"));
        lines
            .into_iter()
            .map(move |line| format!("{}:{line}: `mod {name}`", file.path))
    });
    parts.chain(inline).collect()
}

/// The dependencies a manifest names, ours by their folder, and whether only
/// for tests. Reads the part of TOML that manifests use.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        let header = line.strip_prefix('[').and_then(|line| line.split_once(']'));
        let entry = match header {
            Some((name, _)) => {
                section = name;
                // `[dependencies.NAME]` names one in its header.
                name.rsplit_once("dependencies.").map(|(_, name)| name)
            }
            None if section.ends_with("dependencies") && !line.starts_with('#') => line
                .split(['.', '=', ' '])
                .next()
                .filter(|name| !name.is_empty()),
            None => None,
        };
        let Some(name) = entry else { continue };
        // A rename hides the name that counts.
        let real = line
            .split_once("package")
            .and_then(|(_, rest)| rest.split('"').nth(1));
        let name = real.unwrap_or(name).trim_matches('"');
        let name = name.strip_prefix("chargehand-").unwrap_or(name);
        found.push((name.to_owned(), section.contains("dev-dependencies")));
    }
    found
}

#[test]
fn dependencies_are_read_in_every_spelling() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# no\ndomain.workspace = true\n\
                    chargehand-store = { path = \"../store\" }\nsql = { package = \"rusqlite\" }\n\
                    [dev-dependencies]\nproptest = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n\
                    [dependencies.tokio]\nversion = \"1\"\n[features]\na = []\n";
    let found = dependencies(manifest);
    let found: Vec<_> = found
        .iter()
        .map(|(name, dev)| (name.as_str(), *dev))
        .collect();
    assert_eq!(
        found,
        [
            ("domain", false),
            ("store", false),
            ("rusqlite", false),
            ("proptest", true),
            ("libc", false),
            ("tokio", false),
        ]
    );
}

#[test]
fn the_rules_bite() {
    type Rule = fn(&File) -> Vec<String>;
    let long = "\n".repeat(LINES_MAX + 1);
    let offenders: [(Rule, &str, &str); 13] = [
        (unfinished, "crates/store/src/a.rs", "fn a() { todo!() }"),
        (unfinished, "crates/store/tests/a.rs", "fn a() { dbg!(1); }"),
        (
            floors,
            "crates/store/Cargo.toml",
            "[dependencies]\nengine.workspace = true",
        ),
        (floors, "crates/new/Cargo.toml", ""),
        (
            impure,
            "crates/domain/Cargo.toml",
            "[dependencies]\nrand = \"1\"",
        ),
        (
            impure,
            "crates/domain/src/a.rs",
            "fn a() { std::time::Instant::now(); }",
        ),
        (
            impure,
            "crates/domain/src/a.rs",
            "fn a() { std::thread::scope(|_| ()); }",
        ),
        (
            impure,
            "crates/domain/src/expr.rs",
            "fn a() { std::env::args(); }",
        ),
        (
            sql,
            "crates/engine/Cargo.toml",
            "[dependencies.rusqlite]\nversion = \"1\"",
        ),
        (introduction, "crates/store/src/lib.rs", "mod a;"),
        (too_long, "crates/store/src/a.rs", &long),
        (empty_name, "crates/store/src/utils.rs", ""),
        (empty_name, "crates/store/src/a.rs", "mod helpers { }"),
    ];
    for (rule, path, text) in offenders {
        let file = File {
            path: path.into(),
            text: text.into(),
        };
        assert_eq!(rule(&file).len(), 1, "{path}: {text:.80}");
    }
    let fine: [(Rule, &str, &str); 5] = [
        (
            unfinished,
            "crates/store/src/a.rs",
            "// todo!()\nconst A: &str = \"dbg!(\";",
        ),
        (
            floors,
            "crates/store/Cargo.toml",
            "[dev-dependencies]\nengine.workspace = true",
        ),
        (
            impure,
            "crates/domain/src/a.rs",
            "#[cfg(test)]\nmod tests { use std::fs; }",
        ),
        (
            impure,
            "crates/domain/src/expr.rs",
            "fn a() { std::thread::scope(|_| ()); }",
        ),
        (
            sql,
            "crates/store/Cargo.toml",
            "[dependencies]\nrusqlite = \"1\"",
        ),
    ];
    for (rule, path, text) in fine {
        let file = File {
            path: path.into(),
            text: text.into(),
        };
        assert_eq!(rule(&file), [""; 0], "{path}: {text}");
    }
}
