//! How things are printed: text for people, one JSON document for programs.

use clap::ValueEnum;
use domain::budget::Budget;
use domain::limits::PAGE_MAX;
use domain::time::Time;
use serde::Serialize;
use std::io::Write;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One JSON document on standard output, and nothing else there.
    Json,
}

/// Prints to standard output. A reader that went away (`| head`) is not an error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"));
}

/// Says something on standard error. Nobody has to listen: the work goes on all the same, which is
/// why this is not `eprintln!`.
pub(crate) fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err
        .write_all(text.as_bytes())
        .and_then(|()| err.write_all(b"\n"));
}

/// Prints one JSON document.
pub(crate) fn print_json(value: &impl Serialize) {
    // Our own types write as JSON; a failure here would be a defect worth seeing.
    print(&serde_json::to_string_pretty(value).unwrap_or_else(|fault| format!("\"{fault}\"")));
}

/// A table with a heading and no lines; columns are as wide as their widest cell.
pub(crate) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let heading = heading.iter().map(|title| title.to_uppercase()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An instant as people write it, in their zone.
pub(crate) fn instant(time: Time) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => time.to_string(),
    }
}

/// Milliseconds as people say them.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => {
            let tenths = ms / 100;
            match tenths % 10 {
                0 => format!("{} s", tenths / 10),
                tenth => format!("{}.{tenth} s", tenths / 10),
            }
        }
        _ => match ms / 1_000 % 60 {
            0 => format!("{} min", ms / 60_000),
            seconds => format!("{} min {seconds} s", ms / 60_000),
        },
    }
}

/// What may be spent at most.
pub(crate) fn limits(budget: &Budget) -> String {
    let wall = budget.wall_ms.map(duration);
    let rest = Budget {
        wall_ms: None,
        ..*budget
    };
    match (wall, rest == Budget::default()) {
        (None, _) => rest.to_string(),
        (Some(wall), true) => wall,
        (Some(wall), false) => format!("{rest}, {wall}"),
    }
}

/// So many of a thing.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A whole number, as an argument; one that is too large for its type is the largest.
pub(crate) fn whole(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("use a whole number, such as 3".into());
    }
    Ok(text.parse().unwrap_or(u32::MAX))
}

/// How many at most, as an argument.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match whole(text)? as usize {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(format!("use 1 to {PAGE_MAX}; `--after` goes on from there")),
    }
}

/// Columns of text that is wrapped.
const COLUMNS: usize = 100;

/// A text in lines of at most [`COLUMNS`], where its words let it be, each after so many spaces.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    let mut room = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count() + 1;
        match lines.last_mut().filter(|_| width <= room) {
            Some(line) => {
                *line += " ";
                *line += word;
                room -= width;
            }
            None => {
                lines.push(format!("{margin}{word}"));
                room = COLUMNS.saturating_sub(indent + width - 1);
            }
        }
    }
    lines.join("\n")
}

/// Text cut to so many characters.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= characters {
        return line;
    }
    line.chars()
        .take(characters.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_texts_are_short() {
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(1_500), "1.5 s");
        assert_eq!(duration(125_000), "2 min 5 s");
        let whole = [25_000, 59_999, 600_000].map(duration);
        assert_eq!(whole, ["25 s", "59.9 s", "10 min"]);
        let budget = Budget {
            calls: Some(3),
            wall_ms: Some(600_000),
            ..Budget::default()
        };
        assert_eq!(limits(&budget), "3 calls, 10 min");
        assert_eq!(limits(&Budget::default()), "no bound");
        assert_eq!(wrapped(&"word ".repeat(40), 2).lines().count(), 3);
        assert!(
            wrapped(&"word ".repeat(40), 2)
                .lines()
                .all(|line| line.len() <= COLUMNS)
        );
        assert_eq!(cut("a  b\nc", 9), "a b c");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(
            (counted(1, "task"), counted(2, "task")),
            ("1 task".into(), "2 tasks".into())
        );
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        assert_eq!((whole("0"), whole("99999999999")), (Ok(0), Ok(u32::MAX)));
        assert!(whole("-1").is_err() && whole("").is_err() && whole("2.5").is_err());
        assert_eq!(limit("1000"), Ok(1_000));
        assert!(limit("0").is_err() && limit("1001").is_err());
    }
}
