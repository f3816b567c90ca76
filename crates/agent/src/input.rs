//! Real input, turned into items: the unit one task works on.
//!
//! A person names files, directories, patterns or `-`; a task wants one text
//! or one record and wants to say where it came from. This module is the
//! step between, and the only place that judges whether input is fit to use.
//!
//! What becomes an item:
//!
//! | input | items |
//! |---|---|
//! | `.txt` `.text` `.md` `.markdown`, or a named file of any other ending | one per file |
//! | `.jsonl` `.ndjson` | one per non-blank line |
//! | `.json` | one per element of an array, else one |
//! | `.csv` (`,`, or `;` when the header has no `,`) `.tsv` | one per row below the header |
//! | `-` | JSON Lines when its first non-blank line is a JSON object, else one text |
//!
//! A directory is read recursively in name order; hidden entries, linked
//! directories and files of other endings are passed over, because nobody
//! named them. A pattern is expanded only when no file has that very name.
//! Whoever is named twice is read once.
//!
//! Deliberately absent: guessing encodings (UTF-8 or an error), skipping bad
//! files (the first one stops the whole read, so nothing is silently left
//! out), and typed CSV cells (a cell stays the text it was; `csv.shape`
//! types it for expressions).

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most bytes read from one file or from standard input.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes in one item: a whole text file, or the cells of one CSV row.
pub const ITEM_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes in one line of JSON Lines.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Most items from all inputs together.
pub const ITEMS_MAX: usize = 100_000;
/// Most bytes read from all inputs together.
pub const TOTAL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most directories below a named directory.
pub const DIRECTORY_DEPTH_MAX: usize = 32;

/// The record fields that hold an item's text, the most telling first.
const TEXT_FIELDS: [&str; 12] = [
    "text",
    "review",
    "review_text",
    "comment",
    "feedback",
    "body",
    "content",
    "message",
    "description",
    "summary",
    "subject",
    "title",
];

/// Where an item came from, precise enough to open it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The path as the person gave it, or `-` for standard input.
    pub file: String,
    /// Line of a JSON Lines file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Row of a CSV file below its header, or element of a JSON array; from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
}

impl Source {
    fn file(file: &str) -> Source {
        Source {
            file: file.to_owned(),
            line: None,
            row: None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.line, self.row) {
            (Some(line), _) => write!(f, ":{line}"),
            (None, Some(row)) => write!(f, " row {row}"),
            (None, None) => Ok(()),
        }
    }
}

/// One unit of input: a text or a record, never neither.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Where it came from.
    pub source: Source,
    /// The whole text, for text, Markdown and standard input; `\n` line ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The record, for JSON, JSON Lines and CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Value>,
}

impl Item {
    /// The text a text skill reads: the text itself, the record's text field
    /// (`text`, `review`, `comment`, `body`, … in any letter case), or else
    /// all its string fields, one per line. Empty when there is none.
    #[must_use]
    pub fn text(&self) -> String {
        match (&self.text, &self.record) {
            (Some(text), _) => text.clone(),
            (None, Some(record)) => record_text(record),
            (None, None) => String::new(),
        }
    }
}

fn record_text(record: &Value) -> String {
    let fields = match record {
        Value::String(text) => return text.clone(),
        Value::Object(fields) => fields,
        _ => return String::new(),
    };
    let strings = || {
        fields
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?)))
    };
    TEXT_FIELDS
        .iter()
        .find_map(|wanted| {
            strings()
                .find(|(name, text)| name.eq_ignore_ascii_case(wanted) && !text.trim().is_empty())
        })
        .map(|(_, text)| text.to_owned())
        .unwrap_or_else(|| {
            strings()
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
                .join("\n")
        })
}

/// Why the input cannot be used. It is always the caller who can act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Stable code, `input.…`.
    pub code: &'static str,
    /// What happened, with the file and, where there is one, the line or row.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl InputError {
    fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> InputError {
        InputError {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InputError {}

/// What one read may take in. The default is this module's constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputLimits {
    /// See [`FILE_BYTES_MAX`].
    pub file_bytes_max: usize,
    /// See [`ITEM_BYTES_MAX`].
    pub item_bytes_max: usize,
    /// See [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
    /// See [`ITEMS_MAX`].
    pub items_max: usize,
    /// See [`TOTAL_BYTES_MAX`].
    pub total_bytes_max: usize,
    /// See [`DIRECTORY_DEPTH_MAX`].
    pub directory_depth_max: usize,
}

impl Default for InputLimits {
    fn default() -> InputLimits {
        InputLimits {
            file_bytes_max: FILE_BYTES_MAX,
            item_bytes_max: ITEM_BYTES_MAX,
            line_bytes_max: LINE_BYTES_MAX,
            items_max: ITEMS_MAX,
            total_bytes_max: TOTAL_BYTES_MAX,
            directory_depth_max: DIRECTORY_DEPTH_MAX,
        }
    }
}

/// Reads every input, in the order given, within the default limits.
///
/// No paths give no items: whether a goal needs input is not decided here.
///
/// # Errors
///
/// The first input that cannot be used, with a code: `input.not_found`,
/// `input.unreadable`, `input.binary`, `input.not_utf8`, `input.empty`,
/// `input.no_match`, `input.bad_glob`, `input.bad_json`, `input.bad_csv`,
/// `input.too_large`, `input.too_many`, `input.too_deep`,
/// `input.stdin_twice`.
pub fn read_inputs(paths: &[String], stdin: &mut dyn Read) -> Result<Vec<Item>, InputError> {
    read_inputs_within(paths, stdin, &InputLimits::default())
}

/// [`read_inputs`] within limits of the caller's choice.
///
/// # Errors
///
/// As [`read_inputs`].
pub fn read_inputs_within(
    paths: &[String],
    stdin: &mut dyn Read,
    limits: &InputLimits,
) -> Result<Vec<Item>, InputError> {
    let mut reading = Reading {
        limits,
        seen: HashSet::new(),
        bytes: 0,
        items: Vec::new(),
    };
    for path in paths {
        match path.as_str() {
            "-" => reading.stdin(stdin)?,
            path => reading.named(path)?,
        }
    }
    Ok(reading.items)
}

/// How a file's content is cut into items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
    Json,
    Csv,
    Tsv,
}

impl Format {
    /// By file ending; `None` for endings a directory walk passes over.
    fn of(path: &Path) -> Option<Format> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "txt" | "text" | "md" | "markdown" => Some(Format::Text),
            "jsonl" | "ndjson" => Some(Format::JsonLines),
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            _ => None,
        }
    }
}

/// One read in progress: what has been taken in and what may still be.
struct Reading<'a> {
    limits: &'a InputLimits,
    seen: HashSet<PathBuf>,
    bytes: usize,
    items: Vec<Item>,
}

impl Reading<'_> {
    fn named(&mut self, given: &str) -> Result<(), InputError> {
        let path = Path::new(given);
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => self.directory(path),
            Ok(_) => self.file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(given) => {
                self.pattern(given)
            }
            Err(error) => Err(unreadable(given, &error)),
        }
    }

    fn pattern(&mut self, given: &str) -> Result<(), InputError> {
        let options = glob::MatchOptions {
            require_literal_leading_dot: true,
            ..Default::default()
        };
        let matches = glob::glob_with(given, options).map_err(|error| {
            InputError::new(
                "input.bad_glob",
                format!(
                    "`{given}` is neither a file nor a valid pattern: {}",
                    error.msg
                ),
                "Patterns know `*`, `?`, `[…]` and `**`; write `[*]` for a literal star.",
            )
        })?;
        let mut matched = false;
        for path in matches {
            let path = path.map_err(|error| unreadable(&show(error.path()), error.error()))?;
            matched = true;
            if path.is_dir() {
                self.directory(&path)?;
            } else {
                self.file(&path)?;
            }
        }
        if matched {
            return Ok(());
        }
        Err(InputError::new(
            "input.no_match",
            format!("no file matches `{given}`"),
            "Check the pattern and the directory you are in; hidden files match only a pattern that names the dot.",
        ))
    }

    fn directory(&mut self, path: &Path) -> Result<(), InputError> {
        let mut files = Vec::new();
        self.walk(path, 0, &mut files)?;
        if files.is_empty() {
            return Err(InputError::new(
                "input.empty",
                format!("directory `{}` holds no input file", show(path)),
                "A directory is searched for .txt, .text, .md, .markdown, .json, .jsonl, .ndjson, .csv and .tsv; name other files directly.",
            ));
        }
        files.iter().try_for_each(|file| self.file(file))
    }

    fn walk(&self, path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
        if depth > self.limits.directory_depth_max {
            return Err(InputError::new(
                "input.too_deep",
                format!(
                    "`{}` is more than {} directories deep",
                    show(path),
                    self.limits.directory_depth_max
                ),
                "Name a directory further down.",
            ));
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(|error| unreadable(&show(path), &error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let kind = entry
                .file_type()
                .map_err(|error| unreadable(&show(&path), &error))?;
            if kind.is_dir() {
                self.walk(&path, depth + 1, files)?;
            } else if Format::of(&path).is_some() && path.is_file() {
                if files.len() == self.limits.items_max {
                    return Err(self.too_many(&show(&path)));
                }
                files.push(path);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), InputError> {
        if !self.seen.insert(without_leading_dot(path)) {
            return Ok(());
        }
        let name = show(path);
        let mut file = File::open(path).map_err(|error| unreadable(&name, &error))?;
        let content = self.content(&name, &mut file)?;
        self.cut(&name, &content, Format::of(path).unwrap_or(Format::Text))
    }

    fn stdin(&mut self, stdin: &mut dyn Read) -> Result<(), InputError> {
        if !self.seen.insert(PathBuf::from("-")) {
            return Err(InputError::new(
                "input.stdin_twice",
                "`-` is given twice, and standard input can be read only once",
                "Give `-` once.",
            ));
        }
        let content = self.content("-", stdin)?;
        let first = content
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        let is_object = matches!(serde_json::from_str(first), Ok(Value::Object(_)));
        self.cut(
            "-",
            &content,
            if is_object {
                Format::JsonLines
            } else {
                Format::Text
            },
        )
    }

    /// The whole content as text: bounded, UTF-8, no byte order mark, `\n`.
    fn content(&mut self, name: &str, from: &mut dyn Read) -> Result<String, InputError> {
        let file_max = self.limits.file_bytes_max;
        let mut bytes = Vec::new();
        from.take(file_max as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(name, &error))?;
        if bytes.len() > file_max {
            return Err(too_large(&title(name), "one file", file_max));
        }
        self.count_bytes(name, bytes.len())?;
        let text = decode(name, bytes)?;
        if text.trim().is_empty() {
            return Err(InputError::new(
                "input.empty",
                format!("{} is empty", title(name)),
                "Fill it or leave it out; an empty input has no result.",
            ));
        }
        Ok(text)
    }

    fn count_bytes(&mut self, name: &str, bytes: usize) -> Result<(), InputError> {
        self.bytes += bytes;
        if self.bytes <= self.limits.total_bytes_max {
            return Ok(());
        }
        let what = format!("all input up to {}", title(name));
        Err(too_large(&what, "one run", self.limits.total_bytes_max))
    }

    fn cut(&mut self, name: &str, content: &str, format: Format) -> Result<(), InputError> {
        match format {
            Format::Text => self.text(name, content),
            Format::JsonLines => self.json_lines(name, content),
            Format::Json => self.json(name, content),
            Format::Csv => self.csv(name, content, csv_delimiter(content)),
            Format::Tsv => self.csv(name, content, b'\t'),
        }
    }

    fn text(&mut self, name: &str, content: &str) -> Result<(), InputError> {
        self.check_item_bytes(&title(name), content.len())?;
        self.push(Item {
            source: Source::file(name),
            text: Some(content.to_owned()),
            record: None,
        })
    }

    fn json_lines(&mut self, name: &str, content: &str) -> Result<(), InputError> {
        for (line, number) in content.lines().zip(1..) {
            if line.trim().is_empty() {
                continue;
            }
            if line.len() > self.limits.line_bytes_max {
                return Err(too_large(
                    &format!("line {number} of {}", title(name)),
                    "one line",
                    self.limits.line_bytes_max,
                ));
            }
            let record = serde_json::from_str(line).map_err(|error| {
                InputError::new(
                    "input.bad_json",
                    format!(
                        "line {number} of {} is not JSON: {}",
                        title(name),
                        json_fault(&error)
                    ),
                    "JSON Lines has one complete JSON value on each line.",
                )
            })?;
            self.push(Item {
                source: Source {
                    line: Some(number),
                    ..Source::file(name)
                },
                text: None,
                record: Some(record),
            })?;
        }
        Ok(())
    }

    fn json(&mut self, name: &str, content: &str) -> Result<(), InputError> {
        let value = serde_json::from_str(content).map_err(|error| {
            InputError::new(
                "input.bad_json",
                format!(
                    "line {} of {} is not JSON: {}",
                    error.line(),
                    title(name),
                    json_fault(&error)
                ),
                "A .json file holds one JSON value; name it .jsonl if it has one per line.",
            )
        })?;
        let Value::Array(elements) = value else {
            self.check_item_bytes(&title(name), content.len())?;
            return self.push(Item {
                source: Source::file(name),
                text: None,
                record: Some(value),
            });
        };
        if elements.is_empty() {
            return Err(InputError::new(
                "input.empty",
                format!("{} is an array without elements", title(name)),
                "Fill it or leave it out; an empty input has no result.",
            ));
        }
        for (element, number) in elements.into_iter().zip(1..) {
            self.check_item_bytes(
                &format!("element {number} of {}", title(name)),
                element.to_string().len(),
            )?;
            self.push(Item {
                source: Source {
                    row: Some(number),
                    ..Source::file(name)
                },
                text: None,
                record: Some(element),
            })?;
        }
        Ok(())
    }

    fn csv(&mut self, name: &str, content: &str, delimiter: u8) -> Result<(), InputError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(content.as_bytes().chain(CSV_END.as_bytes()));
        let columns = csv_columns(name, reader.headers())?;
        let header_bytes: usize = columns.iter().map(String::len).sum();
        self.check_item_bytes(&format!("the header of {}", title(name)), header_bytes)?;
        let mut rows = reader.records().zip(1..).peekable();
        while let Some((row, number)) = rows.next() {
            let row = row.map_err(|error| bad_csv(name, &format!("row {number}: {error}")))?;
            if rows.peek().is_none() {
                return csv_ended(name, number, &row);
            }
            if row.len() != columns.len() {
                return Err(bad_csv(
                    name,
                    &format!(
                        "row {number} has {} cells, the header has {}",
                        row.len(),
                        columns.len()
                    ),
                ));
            }
            self.check_item_bytes(
                &format!("row {number} of {}", title(name)),
                row.as_slice().len(),
            )?;
            // Every record carries the column names, so they count for every row.
            self.count_bytes(name, header_bytes)?;
            let cells = columns.iter().cloned().zip(row.iter().map(Value::from));
            self.push(Item {
                source: Source {
                    row: Some(number),
                    ..Source::file(name)
                },
                text: None,
                record: Some(Value::Object(cells.collect())),
            })?;
        }
        Err(bad_csv(name, "a quote in the header is never closed"))
    }

    fn check_item_bytes(&self, what: &str, bytes: usize) -> Result<(), InputError> {
        if bytes <= self.limits.item_bytes_max {
            return Ok(());
        }
        Err(too_large(what, "one item", self.limits.item_bytes_max))
    }

    fn push(&mut self, item: Item) -> Result<(), InputError> {
        if self.items.len() == self.limits.items_max {
            return Err(self.too_many(&item.source.to_string()));
        }
        self.items.push(item);
        Ok(())
    }

    fn too_many(&self, at: &str) -> InputError {
        InputError::new(
            "input.too_many",
            format!(
                "more than {} items; the limit was reached at {at}",
                self.limits.items_max
            ),
            "Split the input over several runs.",
        )
    }
}

/// UTF-8 text without a byte order mark and with `\n` line ends.
fn decode(name: &str, bytes: Vec<u8>) -> Result<String, InputError> {
    let not_utf8 = |line: usize, what: &str| {
        InputError::new(
            "input.not_utf8",
            format!("line {line} of {} is not UTF-8 text{what}", title(name)),
            "Convert it first, for example with `iconv -f WINDOWS-1252 -t UTF-8` or `iconv -f UTF-16 -t UTF-8`.",
        )
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(not_utf8(1, "; it begins like UTF-16"));
    }
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Err(InputError::new(
            "input.binary",
            format!("{} is binary: byte {offset} is NUL", title(name)),
            "Inputs are text; convert documents such as PDF or DOCX to text first.",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        not_utf8(1 + valid.iter().filter(|&&byte| byte == b'\n').count(), "")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n"))
}

/// Column names, checked: unique, and `column_N` where the header is blank.
fn csv_columns(
    name: &str,
    headers: Result<&csv::StringRecord, csv::Error>,
) -> Result<Vec<String>, InputError> {
    let headers = headers.map_err(|error| bad_csv(name, &error.to_string()))?;
    let mut columns = Vec::with_capacity(headers.len());
    let mut seen = HashSet::new();
    for (cell, number) in headers.iter().zip(1..) {
        let column = match cell.trim() {
            "" => format!("column_{number}"),
            column => column.to_owned(),
        };
        if !seen.insert(column.clone()) {
            return Err(bad_csv(
                name,
                &format!("the header names column `{column}` twice"),
            ));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Appended to every table: if it does not come back as a row of its own, a
/// quote left open has swallowed it, and perhaps many rows before it.
const CSV_END: &str = "\n\u{1}";

fn csv_ended(name: &str, number: u64, row: &csv::StringRecord) -> Result<(), InputError> {
    if row.iter().ne(["\u{1}"]) {
        return Err(bad_csv(
            name,
            &format!("a quote opened in row {number} is never closed"),
        ));
    }
    if number > 1 {
        return Ok(());
    }
    Err(InputError::new(
        "input.empty",
        format!("{} has a header and no rows", title(name)),
        "The first line of a CSV file names its columns; rows follow below.",
    ))
}

/// Spreadsheets in much of Europe save `.csv` with semicolons.
fn csv_delimiter(content: &str) -> u8 {
    let header = content.lines().next().unwrap_or("");
    if header.contains(';') && !header.contains(',') {
        b';'
    } else {
        b','
    }
}

fn bad_csv(name: &str, what: &str) -> InputError {
    InputError::new(
        "input.bad_csv",
        format!("{} is not a clean table: {what}", title(name)),
        "Every row needs as many cells as the header; quote cells that hold the delimiter, a quote or a line end.",
    )
}

fn too_large(what: &str, unit: &str, bytes_max: usize) -> InputError {
    InputError::new(
        "input.too_large",
        format!("{what} is larger than {bytes_max} bytes, the most for {unit}"),
        "Split it into smaller pieces.",
    )
}

fn unreadable(name: &str, error: &io::Error) -> InputError {
    if error.kind() == io::ErrorKind::NotFound {
        return InputError::new(
            "input.not_found",
            format!("there is no file or directory `{name}`"),
            "Check the path and the directory you are in.",
        );
    }
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Give yourself read permission, or run as a user who has it."
        }
        _ => "Check that it can be read, for example with `cat`.",
    };
    InputError::new(
        "input.unreadable",
        format!("{} cannot be read: {error}", title(name)),
        hint,
    )
}

/// serde's message without its own line and column, which restart per value.
fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let fault = text.split(" at line ").next().unwrap_or(&text);
    format!("{fault} (column {})", error.column())
}

fn title(name: &str) -> String {
    if name == "-" {
        "standard input".to_owned()
    } else {
        format!("`{name}`")
    }
}

fn show(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn is_pattern(given: &str) -> bool {
    given.contains(['*', '?', '['])
}

/// `./a` and `a` are one file; the rest `Path` already compares right.
fn without_leading_dot(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .collect()
}
