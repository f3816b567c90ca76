//! Public MCP servers, installed once by the package managers of their languages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// From npm: a server with every kind of answer, and one for files. Revision 2025-11-25.
const NPM: [&str; 2] = [
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
];
/// From PyPI: the protocol's own library. Revision 2026-07-28 and those before.
const PYPI: &str = "mcp==2.3.0";

/// The folder with both; what the tests use of it is below.
pub(super) fn peers() -> &'static Path {
    static PEERS: OnceLock<PathBuf> = OnceLock::new();
    PEERS.get_or_init(installed)
}

/// The program that a public server from npm is.
pub(super) fn npm(name: &str) -> String {
    let path = peers().join("node_modules/.bin").join(name);
    path.display().to_string()
}

/// Python, with the library.
pub(super) fn python() -> String {
    peers().join("python/bin/python").display().to_string()
}

fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mcp-peers");
    std::fs::create_dir_all(&folder).unwrap();
    // Another test process may be at it.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let what = format!("{NPM:?} {PYPI}");
    let done = folder.join("done");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == what) {
        return folder;
    }
    let path = folder.to_str().unwrap();
    let python = folder.join("python");
    let words = [
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        path,
    ];
    run(Command::new("npm").args(words).args(NPM));
    run(Command::new("python3").args(["-m", "venv"]).arg(&python));
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PYPI,
    ];
    run(Command::new(python.join("bin/python")).args(pip));
    std::fs::write(&done, what).unwrap();
    folder
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
