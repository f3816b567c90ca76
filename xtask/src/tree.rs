//! The files of the project, as the chores see them.
//!
//! Walks the working tree, not the index: a file counts before it is committed.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file: its path below the root, with `/`, and its content.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Extensions of the files that people write here.
const WRITTEN: [&str; 8] = ["rs", "md", "sh", "toml", "yaml", "yml", "py", "ts"];

/// Folders that hold what was built, fetched or stored, not what was written.
const SKIPPED: [&str; 5] = ["target", "node_modules", "dist", ".git", ".chargehand"];

/// The workspace root. Known when compiling: cargo rebuilds what has moved.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies below the root")
}

/// Every written file below `root`, ordered by path.
pub(crate) fn files(root: &Path) -> Vec<File> {
    let mut paths = Vec::new();
    walk(root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| read(root, &path))
        .collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    // A folder that vanishes while we look (a test's scratch) is no concern.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !SKIPPED.contains(&&*name) => walk(&path, paths),
            Ok(kind) if kind.is_file() && is_written(&path) => paths.push(path),
            _ => {}
        }
    }
}

fn is_written(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| WRITTEN.contains(&extension)) || path.ends_with(".ci/run")
}

fn read(root: &Path, path: &Path) -> Option<File> {
    let bytes = fs::read(path).ok()?;
    let below = path.strip_prefix(root).ok()?;
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    Some(File {
        path: parts.join("/"),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}
