//! A task's records, read: which steps are done stands in rows, what came of them in the log.
//!
//! Deliberately absent: the steps that are not done, which are in the task's row, and writing.

use crate::{Query, Reader, chain, overlay};
use domain::error::{Code, Error};
use domain::event::Recorded;
use domain::id::TaskId;
use domain::limits::RECORDS_PAGE_BYTES_MAX;
use domain::record::{Kept, Record};
use domain::state::{Key, Row};

/// Some of a task's records, in the order their steps were done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// After which position the next page begins, when there is more.
    pub next: Option<u64>,
}

/// The steps that a task's attempts did after a position, at most `limit`, and of outputs at most
/// [`RECORDS_PAGE_BYTES_MAX`] bytes and one more. `behind` is what could not be written
/// ([`Store::settle`](crate::Store::settle)).
///
/// # Errors
/// The store's own, or [`Code::StoreCorrupt`] when the log does not have what a row says.
pub fn page(
    reader: &mut dyn Reader,
    behind: Vec<(Key, Option<Row>)>,
    task: TaskId,
    after: u64,
    limit: usize,
) -> Result<Page, Error> {
    let query = Query::Records {
        task,
        after,
        limit: limit.saturating_add(1),
    };
    let rows = reader.rows(&query.wider(behind.len()))?;
    let rows = overlay(&query, rows, behind);
    let kept: Vec<Kept> = rows
        .iter()
        .filter_map(|(_, row)| match row {
            Row::Record(kept) => Some(*kept),
            _ => None,
        })
        .collect();
    let mut page = Page::default();
    let (mut frame, mut bytes) = (Vec::new(), 0);
    for (n, kept) in kept.iter().enumerate() {
        if n == limit || bytes >= RECORDS_PAGE_BYTES_MAX as u64 {
            page.next = Some(kept.position - 1);
            break;
        }
        bytes += kept.bytes;
        page.records.push(record(reader, &mut frame, kept)?);
    }
    Ok(page)
}

/// One record, from the frame that was read last or from its own.
fn record(
    reader: &mut dyn Reader,
    frame: &mut Vec<Recorded>,
    kept: &Kept,
) -> Result<Record, Error> {
    let within = |frame: &[Recorded]| {
        let first = frame.first()?.position;
        frame.get(usize::try_from(kept.position.checked_sub(first)?).ok()?)?;
        Some((kept.position - first) as usize)
    };
    if within(frame).is_none() {
        let found = reader.frames(kept.position.saturating_sub(1), 1)?;
        *frame = found.first().map_or(Ok(Vec::new()), chain::decode)?;
    }
    within(frame)
        .and_then(|at| kept.read(&frame[at]))
        .ok_or_else(|| {
            let text = format!(
                "event {} is not the record that it should be",
                kept.position
            );
            Error::new(Code::StoreCorrupt, text)
        })
}
