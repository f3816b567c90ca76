//! Replay: the rows rebuilt from the events alone, and compared with those that are stored.

use crate::{Query, Reader, chain};
use domain::error::{Code, Error};
use domain::state::{Key, Row, State};

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Events read; the chain over them holds.
    pub events: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows that differ, are missing or are too many; the first hundred.
    pub differences: Vec<String>,
}

/// Differences that are listed.
const DIFFERENCES_MAX: usize = 100;

/// Reads every event, checks the hash chain, folds the rows anew and compares them byte for byte.
/// Holds all rows in memory.
///
/// # Errors
/// [`Code::StoreCorrupt`] when the chain breaks or an event cannot be read; the store's own.
pub fn replay(reader: &mut dyn Reader) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut hash = chain::GENESIS;
    let mut state = State::default();
    let mut keys = Vec::new();
    loop {
        let mut frames = reader.frames(report.events, 10_000)?;
        frames.retain(|frame| frame.first > report.events);
        if frames.is_empty() {
            break;
        }
        for frame in frames {
            hash = chain::verify(&hash, report.events + 1, &frame)?;
            for recorded in chain::decode(&frame)? {
                keys.clear();
                recorded.event.touches(&mut keys);
                keys.iter().for_each(|key| state.evolve(key, &recorded));
                report.events = recorded.position;
            }
        }
    }
    compare(reader, &mut state, &mut report)?;
    Ok(report)
}

fn compare(reader: &mut dyn Reader, state: &mut State, report: &mut Report) -> Result<(), Error> {
    let mut after: Option<Key> = None;
    loop {
        let page = reader.rows(&Query::All {
            after: after.clone(),
            limit: 10_000,
        })?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, stored) in &page {
            report.rows += 1;
            match state.unload(key).flatten() {
                None => report.note(format!("{key:?} is stored, but no event made it")),
                Some(rebuilt) if bytes(&rebuilt)? != bytes(stored)? => {
                    report.note(format!("{key:?} differs from what its events say"));
                }
                Some(_) => {}
            }
        }
    }
    for (key, _) in state.iter() {
        report.note(format!("{key:?} is missing"));
    }
    Ok(())
}

impl Report {
    fn note(&mut self, difference: String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }
}

fn bytes(row: &Row) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    row.to_json(&mut text)
        .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
    Ok(text)
}
