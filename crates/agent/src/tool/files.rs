//! Files below one folder, to read and never to write.
//!
//! The folder is a wall. A path is walked step by step from the folder's own descriptor, and no step
//! may be a symbolic link or `..`: so it cannot lead out, also not when somebody swaps a folder for a
//! link while it is walked. Pipes and devices are not opened to be read. Links are listed as what
//! they are.
//!
//! Deliberately absent: writing, binary files, and patterns (a search is for words as they stand).

use super::{Tool, ToolCard};
use async_trait::async_trait;
use domain::name::Name;
use domain::record::EffectClass;
use domain::task::Failure;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of a file that is read or searched at most.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of text that one call of `files.read` gives at most.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Entries of a folder that one call of `files.list` gives at most.
pub const ENTRIES_MAX: usize = 1_000;
/// Lines that one call of `files.search` gives at most.
pub const MATCHES_MAX: usize = 100;
/// Files and folders that one call of `files.search` looks at, at most.
pub const FILES_MAX: usize = 10_000;
/// Folders within folders that are gone into at most.
pub const FOLDER_DEPTH_MAX: usize = 32;

/// Characters of a line that a search shows.
const LINE_CHARS_MAX: usize = 300;

/// One of the tools for files.
#[derive(Debug)]
pub struct FileTool {
    card: ToolCard,
    root: PathBuf,
    work: Work,
}

type Work = fn(&Path, &Value, &AtomicBool) -> Result<Value, Failure>;

impl FileTool {
    /// `files.read`, `files.list` and `files.search` below this folder.
    #[must_use]
    pub fn all(root: &Path) -> [Self; 3] {
        let path = json!({
            "type": "string", "maxLength": 1000,
            "description": "Names with / between them, from the folder that you see; empty for the folder itself."
        });
        let tool = |name, description: String, input: Value, work| Self {
            card: ToolCard {
                name: Name::literal(name),
                description,
                input,
                output: None,
                effect: EffectClass::Pure,
                timeout: Duration::from_secs(30),
                category: "files".into(),
                sensitive: Vec::new(),
                untrusted_output: true,
            },
            root: root.to_owned(),
            work,
        };
        [
            tool(
                "files.read",
                format!(
                    "Reads a text file, from a line on, at most {TEXT_BYTES_MAX} bytes; `more` says on which line to go on."
                ),
                json!({
                    "type": "object",
                    "properties": {
                        "path": path,
                        "line": {"type": "integer", "minimum": 1, "description": "The first line, from 1."}
                    },
                    "required": ["path"],
                    "additionalProperties": false
                }),
                read,
            ),
            tool(
                "files.list",
                format!(
                    "Lists a folder, at most {ENTRIES_MAX} entries; `more` says that there are others."
                ),
                json!({
                    "type": "object",
                    "properties": {"path": path},
                    "additionalProperties": false
                }),
                list,
            ),
            tool(
                "files.search",
                format!(
                    "Finds the lines of text files with these words, whatever their case, below a folder; at most {MATCHES_MAX}, `more` says that there are others."
                ),
                json!({
                    "type": "object",
                    "properties": {
                        "text": {"type": "string", "minLength": 1, "maxLength": 200},
                        "path": path
                    },
                    "required": ["text"],
                    "additionalProperties": false
                }),
                search,
            ),
        ]
    }
}

#[async_trait]
impl Tool for FileTool {
    fn card(&self) -> &ToolCard {
        &self.card
    }

    async fn available(&self) -> Result<(), String> {
        let opened = folder(CWD, &self.root).map(drop);
        opened.map_err(|fault| format!("the folder that it sees cannot be read: {fault}"))
    }

    async fn call(&self, arguments: &Value, _key: &str) -> Result<Value, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopReading(Arc::clone(&stop));
        let (root, arguments, work) = (self.root.clone(), arguments.clone(), self.work);
        // Disks block.
        let done = tokio::task::spawn_blocking(move || work(&root, &arguments, &stop)).await;
        done.unwrap_or_else(|fault| Err(Failure::new("tool.broken", fault.to_string())))
    }
}

/// Tells the thread that reads that nobody waits for it.
struct StopReading(Arc<AtomicBool>);

impl Drop for StopReading {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(root: &Path, arguments: &Value, _stop: &AtomicBool) -> Result<Value, Failure> {
    let path = arguments["path"].as_str().unwrap_or_default();
    let first = arguments["line"].as_u64().unwrap_or(1);
    let (folder, name) = parent(root, path)?;
    let text = match text_of(&folder, name).map_err(|fault| refused(path, fault))? {
        Content::Text(text) => text,
        Content::Binary => return Err(no(path, "is not text")),
        Content::TooLarge => {
            return Err(no(path, &format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        Content::NoFile => return Err(no(path, "is not a file")),
    };
    let skipped = usize::try_from(first - 1).unwrap_or(usize::MAX);
    let (mut kept, mut more) = (String::new(), None);
    for (number, line) in text.split_inclusive('\n').enumerate().skip(skipped) {
        let room = TEXT_BYTES_MAX - kept.len();
        if line.len() <= room {
            kept.push_str(line);
            continue;
        }
        if kept.is_empty() {
            // One line that does not fit at all: its beginning, and on with the next.
            kept.push_str(&line[..line.floor_char_boundary(room)]);
            more = Some(number + 2);
        } else {
            more = Some(number + 1);
        }
        break;
    }
    let lines = text.lines().count();
    let more = more.filter(|line| *line <= lines);
    Ok(json!({"path": path, "text": kept, "lines": lines, "more": more}))
}

fn list(root: &Path, arguments: &Value, stop: &AtomicBool) -> Result<Value, Failure> {
    let path = arguments["path"].as_str().unwrap_or_default();
    let fault = |fault| refused(path, fault);
    let folder = below(root, path)?;
    let mut names = names(&folder, ENTRIES_MAX, stop).map_err(fault)?;
    let more = names.len() > ENTRIES_MAX;
    names.truncate(ENTRIES_MAX);
    let entries = names.into_iter().map(|(name, kind)| {
        let (kind, bytes) = match kind {
            FileType::RegularFile => {
                let stat = rustix::fs::statat(
                    &folder,
                    name.as_str(),
                    rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
                );
                ("file", stat.ok().map(|stat| stat.st_size))
            }
            FileType::Directory => ("folder", None),
            FileType::Symlink => ("link", None),
            _ => ("other", None),
        };
        json!({"name": name, "kind": kind, "bytes": bytes})
    });
    Ok(json!({"path": path, "entries": entries.collect::<Vec<_>>(), "more": more}))
}

fn search(root: &Path, arguments: &Value, stop: &AtomicBool) -> Result<Value, Failure> {
    let path = arguments["path"].as_str().unwrap_or_default();
    let mut found = Search {
        wanted: arguments["text"]
            .as_str()
            .unwrap_or_default()
            .to_lowercase(),
        matches: Vec::new(),
        seen: 0,
        skipped: 0,
        more: false,
        stop,
    };
    found.folder(&below(root, path)?, path.trim_matches('/'), 0);
    let Search {
        matches,
        skipped,
        more,
        ..
    } = found;
    Ok(json!({"matches": matches, "skipped": skipped, "more": more}))
}

struct Search<'a> {
    wanted: String,
    matches: Vec<Value>,
    seen: usize,
    /// What could not be searched: not text, too large, too deep, not readable.
    skipped: usize,
    more: bool,
    stop: &'a AtomicBool,
}

impl Search<'_> {
    fn folder(&mut self, at: &OwnedFd, path: &str, depth: usize) {
        let Ok(names) = names(at, FILES_MAX, self.stop) else {
            self.skipped += 1;
            return;
        };
        for (name, kind) in names {
            if self.more || self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.seen += 1;
            if self.seen > FILES_MAX {
                self.more = true;
                return;
            }
            let below = match path.is_empty() {
                true => name.clone(),
                false => format!("{path}/{name}"),
            };
            match kind {
                FileType::Directory => match folder(at, Path::new(&name)) {
                    Ok(inner) if depth < FOLDER_DEPTH_MAX => self.folder(&inner, &below, depth + 1),
                    _ => self.skipped += 1,
                },
                FileType::RegularFile => match text_of(at, &name) {
                    Ok(Content::Text(text)) => self.text(&below, &text),
                    _ => self.skipped += 1,
                },
                _ => self.skipped += 1,
            }
        }
    }

    fn text(&mut self, path: &str, text: &str) {
        for (number, line) in text.lines().enumerate() {
            if !line.to_lowercase().contains(&self.wanted) {
                continue;
            }
            if self.matches.len() == MATCHES_MAX {
                self.more = true;
                return;
            }
            let shown: String = line.chars().take(LINE_CHARS_MAX).collect();
            self.matches
                .push(json!({"path": path, "line": number + 1, "text": shown}));
        }
    }
}

/// What is in a file.
enum Content {
    Text(String),
    Binary,
    TooLarge,
    /// A folder, a pipe, a device.
    NoFile,
}

fn text_of(folder: &OwnedFd, name: &str) -> Result<Content, Errno> {
    // Not blocking: opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(folder, name, flags, Mode::empty())?);
    let errno = |fault: std::io::Error| Errno::from_io_error(&fault).unwrap_or(Errno::IO);
    if !file.metadata().map_err(errno)?.is_file() {
        return Ok(Content::NoFile);
    }
    let mut bytes = Vec::new();
    let most = FILE_BYTES_MAX as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(errno)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Ok(Content::TooLarge);
    }
    if bytes.contains(&0) {
        return Ok(Content::Binary);
    }
    Ok(String::from_utf8(bytes).map_or(Content::Binary, Content::Text))
}

/// The names in a folder, sorted, and one more than `most` when there are more. Names that are not
/// UTF-8 cannot be said, and are left out.
fn names(
    folder: &OwnedFd,
    most: usize,
    stop: &AtomicBool,
) -> Result<Vec<(String, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name == "." || name == ".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            // Some file systems leave it to be asked.
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(folder, name, flags)?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        names.push((name.to_owned(), kind));
        if names.len() > most || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

fn folder(at: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// The folder at a path, walked step by step.
fn below(root: &Path, path: &str) -> Result<OwnedFd, Failure> {
    let mut at = folder(CWD, root).map_err(|fault| refused("", fault))?;
    let steps = path.split('/').filter(|step| !matches!(*step, "" | "."));
    for (depth, step) in steps.enumerate() {
        if step == ".." || path.starts_with('/') {
            return Err(no(path, "leads out of the folder that you see"));
        }
        if depth >= FOLDER_DEPTH_MAX {
            return Err(no(path, "is too deep"));
        }
        at = folder(&at, Path::new(step)).map_err(|fault| refused(path, fault))?;
    }
    Ok(at)
}

/// The folder that a file is in, and the file's name there.
fn parent<'a>(root: &Path, path: &'a str) -> Result<(OwnedFd, &'a str), Failure> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "" | "." | "..") || path.starts_with('/') {
        return Err(no(
            path,
            "is not the name of a file below the folder that you see",
        ));
    }
    Ok((below(root, above)?, name))
}

fn refused(path: &str, fault: Errno) -> Failure {
    match fault {
        Errno::NOENT => no(path, "is not there"),
        Errno::LOOP | Errno::MLINK => no(path, "goes by a link, and links are not followed"),
        Errno::NOTDIR => no(
            path,
            "goes by something that is no folder, or by a link, and links are not followed",
        ),
        fault => no(path, &format!("cannot be read: {fault}")),
    }
}

fn no(path: &str, why: &str) -> Failure {
    Failure::permanent("tool.failed", format!("“{path}” {why}"))
}
