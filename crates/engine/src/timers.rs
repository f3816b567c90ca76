//! Looks at rows whose instant has come. What that means for each is decided by `domain`.

use domain::command::Command;
use domain::state::Key;
use domain::time::Time;
use store::{Op, Request, Store};

/// Rows looked at in one turn; the rest is still due in the next.
const ROWS_PER_TURN: usize = 1_000;

/// A command for each row that is due.
pub(crate) fn tick(store: &Store, now: Time) -> Vec<Request> {
    let due = store.index().due(now, ROWS_PER_TURN).into_iter();
    due.filter_map(|key| {
        let command = match key {
            Key::Task(task) => Command::TaskTimeOut(task),
            Key::Run(run) => Command::RunAdvance(run),
            Key::Worker(worker) => Command::WorkerForget(worker),
            Key::Entry(entry) => Command::EntryForget {
                entry,
                reason: "its time was over".into(),
            },
            Key::Message(message) => Command::MessageExpire(message),
            Key::Receipt(receipt) => Command::ReceiptForget(receipt),
            _ => return None,
        };
        Some(Request::own(vec![Op::Command(command)]))
    })
    .collect()
}
