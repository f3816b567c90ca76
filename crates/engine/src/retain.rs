//! Forgets what was kept long enough. Entries and messages with an end are forgotten by the timers;
//! here a board that has grown beyond its bound loses its least important, oldest entries.

use domain::blackboard::Entry;
use domain::command::Command;
use domain::id::RunId;
use domain::limits::BOARD_ENTRIES_MAX;
use domain::state::{Key, Row};
use std::sync::Arc;
use store::{Op, Query, Request, Store};

/// A board is trimmed when it is a tenth beyond its bound, so that it is not trimmed at every write.
const SLACK: u32 = BOARD_ENTRIES_MAX / 10;

/// Whether a board has to be trimmed.
pub(crate) fn is_over(store: &mut Store, board: Option<RunId>) -> bool {
    matches!(
        store.get(&Key::Board(board)),
        Ok(Some(Row::Board(row))) if row.entries > BOARD_ENTRIES_MAX + SLACK
    )
}

/// Commands that bring a board back to its bound; its rows are written. A store that cannot be read
/// now is asked again at the next write.
pub(crate) fn trim(store: &Store, board: Option<RunId>) -> Vec<Request> {
    let all = Query::Entries {
        run: board,
        limit: usize::MAX / 2,
    };
    let rows = store.reader().and_then(|mut r| r.rows(&all));
    let mut entries: Vec<Arc<Entry>> = rows
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(_, row)| match row {
            Row::Entry(entry) => Some(entry),
            _ => None,
        })
        .collect();
    entries.sort_by(|a, b| a.importance.total_cmp(&b.importance).then(a.at.cmp(&b.at)));
    let excess = entries.len().saturating_sub(BOARD_ENTRIES_MAX as usize);
    let reason = "its board was full of more important ones";
    entries
        .iter()
        .take(excess)
        .map(|entry| Command::EntryForget {
            entry: entry.id,
            reason: reason.to_owned(),
        })
        .map(|command| Request::own(vec![Op::Command(command)]))
        .collect()
}
