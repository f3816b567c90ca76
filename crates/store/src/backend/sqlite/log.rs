//! The log as it lies in the file: rows that fill their pages.
//!
//! SQLite puts a row onto a page whole when it fits on one at all. With a row for each transaction
//! the end of most pages stays empty, because the next one is longer than it: where an agent's
//! receipts have some kilobytes each, that is a ninth of the table. So a row takes transactions until
//! its page is full; the last of them is cut there, and what is left of it begins the next row. Only
//! the last row changes, and its page is the one that the next commit has to write anyway.
//!
//! Deliberately absent: compression, which would keep the lines from being read with any SQLite
//! shell, and any thought of the rows of earlier forms, of which each is one whole transaction: that
//! is what a row is that was never added to.

use crate::chain::{GENESIS, Hash};
use crate::{Frame, StoredFrame};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The form from which on a row may have many transactions.
pub(super) const FORM: i64 = 3;
/// Bytes that a row needs beside its `body` and `ends`, at most: its header, three numbers, a hash.
const ROW_BYTES_MAX: usize = 56;
/// Bytes in `ends` of each transaction.
const END_BYTES: usize = 40;
/// Bytes at the end of a page for which no transaction is cut: two pages would change for little.
const CUT_BYTES_MIN: usize = 128;

/// The writing end of the log.
#[derive(Debug)]
pub(super) struct Log {
    page_bytes: usize,
    /// The last row, when it is known: not at first, and not after a commit that failed.
    last: Option<Last>,
}

/// The last row.
#[derive(Debug, Default)]
struct Last {
    first: u64,
    count: u64,
    hash: Hash,
    body: Vec<u8>,
    skip: usize,
    ends: Vec<u8>,
}

impl Log {
    pub(super) fn new(page_bytes: usize) -> Self {
        Self {
            page_bytes,
            last: None,
        }
    }

    /// Forgets the last row: what was appended to it was not committed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Appends a transaction, as far as it fits onto the last row's page, and the rest in the next.
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        frame: &Frame<'_>,
    ) -> rusqlite::Result<()> {
        // Taken: after an error it is read again.
        let last = match self.last.take() {
            Some(last) => last,
            None => Last::read(connection)?,
        };
        if frame.first != last.first + last.count {
            let taken = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT);
            let text = format!("event {} is not the next", frame.first);
            return Err(rusqlite::Error::SqliteFailure(taken, Some(text)));
        }
        // What SQLite keeps of a row in the tree (its file format, “B-tree Pages”), and what each
        // page takes of the rest.
        let (in_tree, per_page) = (self.page_bytes - 35, self.page_bytes - 4);
        let bytes = frame.body.len();
        let used = last.bytes_with_another();
        let is_full = used + bytes > in_tree && used + CUT_BYTES_MIN > in_tree;
        // A row in which nothing begins yet has the name that the next one would have.
        let mut last = match is_full && last.count > 0 {
            true => Last {
                first: frame.first,
                ..Last::default()
            },
            false => last,
        };
        last.begin(frame)?;
        // Of what does not fit, whole pages stay with this row; what is less goes to the next.
        let too_many = (last.bytes() + bytes).saturating_sub(in_tree);
        let pages = too_many
            .saturating_sub(in_tree - ROW_BYTES_MAX)
            .div_ceil(per_page);
        let rest = too_many.saturating_sub(pages * per_page);
        let (here, rest) = frame.body.split_at(bytes - rest);
        last.body.extend_from_slice(here);
        last.write(connection)?;
        if !rest.is_empty() {
            last = Last {
                first: frame.first + frame.count,
                hash: frame.hash,
                body: rest.to_vec(),
                skip: rest.len(),
                ..Last::default()
            };
            last.write(connection)?;
        }
        self.last = Some(last);
        Ok(())
    }
}

impl Last {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT first, count, hash, body, skip, ends FROM events
                   ORDER BY first DESC LIMIT 1";
        let last = connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                first: row.get(0)?,
                count: row.get(1)?,
                hash: row.get(2)?,
                body: row.get(3)?,
                skip: row.get(4)?,
                ends: row.get(5)?,
            })
        });
        Ok(last.optional()?.unwrap_or(Self {
            first: 1,
            hash: GENESIS,
            ..Self::default()
        }))
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO events (first, count, hash, body, skip, ends)
                   VALUES (?, ?, ?, ?, ?, ?)";
        connection.prepare_cached(sql)?.execute(params![
            self.first, self.count, self.hash, self.body, self.skip, self.ends
        ])?;
        Ok(())
    }

    /// Bytes of the row, at most.
    fn bytes(&self) -> usize {
        ROW_BYTES_MAX + self.ends.len() + self.body.len()
    }

    /// The same when one more transaction begins in it, without that one's own.
    fn bytes_with_another(&self) -> usize {
        self.bytes() + if self.count > 0 { END_BYTES } else { 0 }
    }

    /// Notes that a transaction begins at the end of `body`.
    fn begin(&mut self, frame: &Frame<'_>) -> rusqlite::Result<()> {
        if self.count > 0 {
            let begun = (self.count, self.body.len());
            let (mut count, mut bytes) = (begun.0, begun.1 - self.skip.min(begun.1));
            for end in self.ends.chunks_exact(END_BYTES) {
                let end = End::of(end);
                count = count.saturating_sub(end.count);
                bytes = bytes.saturating_sub(end.bytes);
            }
            let short = |number: u64| {
                u32::try_from(number)
                    .map(u32::to_le_bytes)
                    .map_err(|fault| rusqlite::Error::ToSqlConversionFailure(Box::new(fault)))
            };
            self.ends.extend(short(count)?);
            self.ends.extend(short(bytes as u64)?);
            self.ends.extend(self.hash);
        }
        self.count += frame.count;
        self.hash = frame.hash;
        Ok(())
    }
}

/// What `ends` says of a transaction.
struct End {
    count: u64,
    bytes: usize,
    hash: Hash,
}

impl End {
    /// Of its [`END_BYTES`].
    fn of(text: &[u8]) -> Self {
        let short = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&text[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let mut hash = GENESIS;
        hash.copy_from_slice(&text[8..]);
        Self {
            count: short(0).into(),
            bytes: short(4) as usize,
            hash,
        }
    }
}

/// A transaction that was read, as far as its row has it.
struct Begun {
    frame: StoredFrame,
    count: u64,
}

impl Begun {
    /// Whether nothing of it is in the next row.
    fn is_whole(&self) -> bool {
        let lines = self.frame.body.iter().filter(|byte| **byte == b'\n');
        lines.count() as u64 >= self.count
    }
}

/// The transactions with events after `after`, up to the one with event `after + events`. `form` is
/// the file's.
pub(super) fn frames(
    connection: &Connection,
    form: i64,
    after: i64,
    events: i64,
) -> rusqlite::Result<Vec<StoredFrame>> {
    // The row in which the transaction with event `after + 1` begins is the last that begins at or
    // before it.
    let columns = if form < FORM { "0, x''" } else { "skip, ends" };
    let sql = format!(
        "SELECT first, count, hash, body, {columns} FROM events
         WHERE first >= coalesce((SELECT max(first) FROM events WHERE first <= ?1 + 1), 0)
         ORDER BY first"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([after])?;
    let after = after.unsigned_abs();
    let last = after.saturating_add(events.unsigned_abs());
    let mut found = Vec::new();
    let mut begun: Option<Begun> = None;
    while let Some(row) = rows.next()? {
        if let Some(Begun { mut frame, .. }) = begun.take() {
            frame.body.extend(within(row, 0, row.get(4)?)?);
            found.push(frame);
        }
        if row.get::<_, u64>(0)? > last {
            break;
        }
        begun = read(row, after, last, &mut found)?;
        if begun.as_ref().is_some_and(Begun::is_whole) {
            found.extend(begun.take().map(|begun| begun.frame));
        }
    }
    found.extend(begun.map(|begun| begun.frame));
    Ok(found)
}

/// Puts a row's transactions among those that were found; the last, which may go on, is given back.
fn read(
    row: &Row<'_>,
    after: u64,
    last: u64,
    found: &mut Vec<StoredFrame>,
) -> rusqlite::Result<Option<Begun>> {
    let (mut first, mut left): (u64, u64) = (row.get(0)?, row.get(1)?);
    let mut at: usize = row.get(4)?;
    let ends = row.get_ref(5)?.as_blob()?.chunks_exact(END_BYTES);
    for End { count, bytes, hash } in ends.map(End::of) {
        let Some(rest) = left.checked_sub(count) else {
            return Err(damaged("the ends of its transactions are beyond its own"));
        };
        if first + count > after + 1 && first <= last {
            let body = within(row, at, bytes)?.to_vec();
            found.push(StoredFrame { first, hash, body });
        }
        (first, left, at) = (first + count, rest, at.saturating_add(bytes));
    }
    if left == 0 || first + left <= after + 1 || first > last {
        return Ok(None);
    }
    let all = row.get_ref(3)?.as_blob()?;
    let body = within(row, at, all.len().saturating_sub(at))?.to_vec();
    let hash = row.get(2)?;
    let frame = StoredFrame { first, hash, body };
    Ok(Some(Begun { frame, count: left }))
}

/// So many bytes of a row's body.
fn within<'a>(row: &'a Row<'_>, at: usize, bytes: usize) -> rusqlite::Result<&'a [u8]> {
    let body = row.get_ref(3)?.as_blob()?;
    let end = at.saturating_add(bytes);
    body.get(at..end)
        .ok_or_else(|| damaged("its body is shorter than its transactions"))
}

fn damaged(what: &str) -> rusqlite::Error {
    let fault = format!("a row of the log: {what}");
    rusqlite::Error::FromSqlConversionFailure(5, Type::Blob, fault.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log in memory, with pages of so many bytes.
    fn log(page_bytes: usize) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .pragma_update(None, "page_size", page_bytes)
            .unwrap();
        for migration in super::super::MIGRATIONS {
            connection.execute_batch(migration).unwrap();
        }
        connection
    }

    /// Numbers that look like chance.
    fn drawn(state: &mut u64, below: u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    /// A transaction of some lines, the hash of which only stands for one.
    fn transaction(chance: &mut u64, first: u64, bytes_max: u64) -> StoredFrame {
        let mut body = Vec::new();
        for _ in 0..=drawn(chance, 4) {
            let letter = b'a' + drawn(chance, 26) as u8;
            body.extend(vec![letter; drawn(chance, bytes_max) as usize]);
            body.push(b'\n');
        }
        let hash = [drawn(chance, 256) as u8; 32];
        StoredFrame { first, hash, body }
    }

    fn count(frame: &StoredFrame) -> u64 {
        frame.body.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn text(frame: &StoredFrame) -> (u64, Hash, &[u8]) {
        (frame.first, frame.hash, &frame.body)
    }

    #[test]
    fn transactions_of_all_sizes_read_back_from_pages_of_all_sizes() {
        let mut chance = 1;
        for page_bytes in [512, 1_024, 4_096, 8_192, 65_536] {
            for lines in [page_bytes as u64 / 100, page_bytes as u64, 1_000] {
                let connection = log(page_bytes);
                let mut writer = Log::new(page_bytes);
                let (mut written, mut next) = (Vec::new(), 1);
                for n in 0..150 {
                    let stored = transaction(&mut chance, next, lines + 1);
                    let count = count(&stored);
                    let frame = Frame {
                        first: next,
                        count,
                        body: &stored.body,
                        hash: stored.hash,
                    };
                    writer.append(&connection, &frame).unwrap();
                    written.push((next + count - 1, stored));
                    next += count;
                    if n % 7 == 0 {
                        writer.forget();
                    }
                }
                let what = format!("{lines} bytes on pages of {page_bytes}");
                for after in (0..next + 2).step_by(3) {
                    for events in [0, 1, 20] {
                        let found = frames(&connection, FORM, after as i64, events).unwrap();
                        let wanted = written.iter().filter(|(last, frame)| {
                            *last > after && frame.first <= after + events as u64
                        });
                        assert!(
                            wanted
                                .map(|(_, frame)| text(frame))
                                .eq(found.iter().map(text)),
                            "{what}: {events} after {after}"
                        );
                    }
                }
                let all = frames(&connection, FORM, 0, i64::MAX / 2).unwrap();
                let written = written.iter().map(|(_, frame)| text(frame));
                assert!(written.eq(all.iter().map(text)), "{what}");
            }
        }
    }

    /// Of an agent's receipts, one in a transaction, nine hundred bytes to seven thousand: what the
    /// log takes beyond them is forty bytes for each, and of each page a few.
    #[test]
    fn the_log_fills_its_pages() {
        const PAGE_BYTES: usize = 8_192;
        let connection = log(PAGE_BYTES);
        let pages = || -> usize {
            connection
                .query_row("PRAGMA page_count", [], |row| row.get(0))
                .unwrap()
        };
        let (mut writer, mut chance) = (Log::new(PAGE_BYTES), 1);
        let (empty, mut bytes) = (pages(), 0);
        const RECEIPTS: usize = 1_000;
        for first in 1..=RECEIPTS as u64 {
            let mut body = vec![b'a'; 900 + drawn(&mut chance, 6_100) as usize];
            body.push(b'\n');
            bytes += body.len();
            let frame = Frame {
                first,
                count: 1,
                body: &body,
                hash: GENESIS,
            };
            writer.append(&connection, &frame).unwrap();
        }
        let took = (pages() - empty) * PAGE_BYTES;
        let bound = (bytes + RECEIPTS * END_BYTES) * 102 / 100;
        assert!(took <= bound, "{took} for {bytes}");
    }
}
