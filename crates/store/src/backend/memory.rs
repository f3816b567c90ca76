//! The strictest backend, for tests and for work that need not outlive its process: it keeps what it
//! is given in maps, and refuses whatever a careless owner might do.

use crate::{Backend, Commit, Head, Hot, Query, Reader, StoredFrame, Versioned, chain};
use domain::error::{Code, Error};
use domain::state::{Key, Row};
use domain::task::Task;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a stored row, and the version it reflects; no bytes for one that is gone.
type Stored = (Option<Vec<u8>>, u64);

#[derive(Debug, Default)]
struct Content {
    frames: Vec<StoredFrame>,
    head: u64,
    hash: chain::Hash,
    applied: u64,
    rows: BTreeMap<Key, Stored>,
}

/// A store in memory. Cloning shares the content, as opening a file twice would.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    content: Arc<Mutex<Content>>,
}

impl Memory {
    fn content(&self) -> MutexGuard<'_, Content> {
        // A panic in a test thread must not hide what was stored.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a stored frame's bytes behind everybody's back, for tests of the hash chain.
    pub fn tamper(&self, change: impl FnOnce(&mut Vec<StoredFrame>)) {
        change(&mut self.content().frames);
    }
}

fn internal(text: String) -> Error {
    Error::new(Code::Internal, text)
}

fn read(key: &Key, bytes: &[u8]) -> Result<Row, Error> {
    Row::from_json(key, bytes).map_err(|fault| internal(format!("{key:?}: {fault}")))
}

impl Backend for Memory {
    fn head(&mut self) -> Result<Head, Error> {
        let content = self.content();
        Ok(Head {
            position: content.head,
            hash: content.hash,
            applied: content.applied,
        })
    }

    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error> {
        let content = self.content();
        let load = |key: &Key| match content.rows.get(key) {
            None => Ok((None, 0)),
            Some((None, version)) => Ok((None, *version)),
            Some((Some(bytes), version)) => Ok((Some(read(key, bytes)?), *version)),
        };
        keys.iter().map(load).collect()
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        let mut content = self.content();
        let (mut head, mut hash, mut appended) = (content.head, content.hash, None);
        if let Some(frame) = &commit.frame {
            if frame.first != content.head + 1 || frame.count == 0 {
                return Err(internal(format!(
                    "frame {} after event {}",
                    frame.first, content.head
                )));
            }
            let stored = StoredFrame {
                first: frame.first,
                hash: frame.hash,
                body: frame.body.to_vec(),
            };
            let after = chain::verify(&content.hash, frame.first, &stored)?;
            if chain::decode(&stored)?.len() as u64 != frame.count {
                return Err(internal(format!("frame {} miscounts", frame.first)));
            }
            head = frame.first + frame.count - 1;
            hash = after;
            appended = Some(stored);
        }
        if commit.version != head || commit.applied > head {
            return Err(internal(format!("rows of version {}", commit.version)));
        }
        if commit.applied < content.applied {
            let (from, to) = (content.applied, commit.applied);
            return Err(internal(format!(
                "rows went back in time, from {from} to {to}"
            )));
        }
        let mut rows = Vec::with_capacity(commit.rows.len());
        // A backend promises no order among rows: write them in another one than they came in.
        for (key, row) in commit.rows.iter().rev() {
            let bytes = match row {
                None => None,
                Some(row) => {
                    let mut bytes = Vec::new();
                    row.to_json(&mut bytes)
                        .map_err(|fault| internal(fault.to_string()))?;
                    if read(key, &bytes)? != *row {
                        return Err(internal(format!(
                            "{key:?} does not read back as it was written"
                        )));
                    }
                    Some(bytes)
                }
            };
            if let Some((_, known)) = content.rows.get(key)
                && *known > commit.version
            {
                let text = format!("{key:?} was written with a stale version");
                return Err(internal(text));
            }
            rows.push((key.clone(), (bytes, commit.version)));
        }
        // From here on nothing fails: all of it or nothing.
        content.frames.extend(appended);
        content.rows.extend(rows);
        (content.head, content.hash, content.applied) = (head, hash, commit.applied);
        Ok(())
    }

    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error> {
        let content = self.content();
        for (key, (bytes, _)) in &content.rows {
            if let Some(bytes) = bytes {
                let row = read(key, bytes)?;
                let counts = matches!(key, Key::Slot(_));
                if counts || row.place().is_some() || row.due().is_some() {
                    each((key.clone(), row.place(), row.due()));
                }
            }
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), Error> {
        self.content().rows.retain(|_, (bytes, _)| bytes.is_some());
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(self.clone()))
    }
}

impl Reader for Memory {
    fn frames(&mut self, after: u64, events: usize) -> Result<Vec<StoredFrame>, Error> {
        let content = self.content();
        let from = content
            .frames
            .partition_point(|frame| frame.first <= after.saturating_add(1))
            .saturating_sub(1);
        let mut found = Vec::new();
        if after >= content.head {
            return Ok(found);
        }
        for frame in &content.frames[from..] {
            if frame.first > after.saturating_add(events as u64) {
                break;
            }
            found.push(frame.clone());
        }
        Ok(found)
    }

    fn rows(&mut self, query: &Query) -> Result<Vec<(Key, Row)>, Error> {
        let content = self.content();
        let mut rows = Vec::new();
        for (key, (bytes, _)) in &content.rows {
            if let Some(bytes) = bytes {
                rows.push((key.clone(), read(key, bytes)?));
            }
        }
        Ok(select(rows, query))
    }
}

pub(crate) fn select(mut rows: Vec<(Key, Row)>, query: &Query) -> Vec<(Key, Row)> {
    match query {
        Query::Tasks {
            after,
            last,
            status,
            kind,
            worker,
            limit,
        } => {
            rows.retain(|(key, row)| match (key, row) {
                (Key::Task(id), Row::Task(task)) => {
                    after.is_none_or(|after| *id > after)
                        && last.is_none_or(|last| *id <= last)
                        && status.is_none_or(|status| task.status() == status)
                        && kind
                            .as_ref()
                            .is_none_or(|kind| task.spec.kind.as_str() == kind)
                        && worker
                            .as_ref()
                            .is_none_or(|worker| holder(task) == Some(worker))
                }
                _ => false,
            });
            rows.truncate(*limit);
        }
        Query::Runs {
            before,
            status,
            limit,
        } => {
            rows.retain(|(key, row)| match (key, row) {
                (Key::Run(id), Row::Run(run)) => {
                    before.is_none_or(|before| *id < before)
                        && status
                            .as_ref()
                            .is_none_or(|status| run.status().as_str() == status)
                }
                _ => false,
            });
            rows.reverse();
            rows.truncate(*limit);
        }
        Query::Workers => rows.retain(|(key, _)| matches!(key, Key::Worker(_))),
        Query::Credentials => rows.retain(|(key, _)| matches!(key, Key::Credential(_))),
        Query::Demands => rows.retain(|(key, _)| matches!(key, Key::Demand(_))),
        Query::Pools => rows.retain(|(key, _)| matches!(key, Key::Pool(_))),
        Query::Queues => rows.retain(|(key, _)| matches!(key, Key::Queue(_))),
        Query::Tally => rows.retain(|(key, _)| matches!(key, Key::Tally)),
        Query::Entries { run, limit } => {
            rows.retain(|(_, row)| matches!(row, Row::Entry(entry) if entry.run == *run));
            rows.truncate(*limit);
        }
        Query::Messages { after, limit } => {
            rows.retain(
                |(key, _)| matches!(key, Key::Message(id) if after.is_none_or(|after| *id > after)),
            );
            rows.truncate(*limit);
        }
        Query::Records { task, after, limit } => {
            let position = |row: &Row| match row {
                Row::Record(kept) => kept.position,
                _ => 0,
            };
            rows.retain(|(key, row)| {
                matches!(key, Key::Record(of, _) if of == task) && position(row) > *after
            });
            rows.sort_by_key(|(_, row)| position(row));
            rows.truncate(*limit);
        }
        Query::All { after, limit } => {
            rows.retain(|(key, _)| after.as_ref().is_none_or(|after| key > after));
            rows.truncate(*limit);
        }
    }
    rows
}

/// The worker that a list of tasks filters by.
pub(crate) fn holder(task: &Task) -> Option<&str> {
    task.worker().map(|worker| worker.as_str())
}
