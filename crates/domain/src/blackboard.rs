//! The blackboard: shared, readable memory of a crew.
//!
//! Two sources, one view. Agents write entries; and the crew's own work (tasks, results, errors,
//! progress) appears by [`project`], computed from the tasks themselves. So the board can never
//! disagree with the truth, "pending" leaves a task's tags in the moment it ends, and a fan-out of
//! ten thousand tasks writes nothing twice.
//!
//! Boards are isolated by run; entries without a run share one board.

use crate::command::{Made, Outcome, Recalled, digest, recall};
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::id::{EntryId, Ids, RunId, TaskId};
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
use crate::run::Run;
use crate::state::State;
use crate::task::{AttemptState, Task, TaskState};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Importance of tasks and results.
pub const IMPORTANCE_NORMAL: f64 = 0.8;
/// Importance of reassigned tasks, errors and conflicts.
pub const IMPORTANCE_HIGH: f64 = 0.9;
/// Importance of progress.
pub const IMPORTANCE_PROGRESS: f64 = 0.5;

/// Where assignments stand.
pub const SEGMENT_TASKS: &str = "tasks";
/// Where results stand.
pub const SEGMENT_RESULTS: &str = "results";
/// Where failures stand.
pub const SEGMENT_ERRORS: &str = "errors";
/// Where progress stands.
pub const SEGMENT_PROGRESS: &str = "progress";
/// Where conflicts stand.
pub const SEGMENT_CONFLICTS: &str = "conflicts";

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Provenance {
    /// The task it was written in.
    pub task: TaskId,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// What an agent writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// Whose board; none is the shared one.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Who writes.
    pub author: Name,
    /// What.
    pub content: Json,
    /// Found by.
    #[serde(default)]
    pub tags: Vec<Name>,
    /// Part of the board.
    #[serde(default = "default_segment")]
    pub segment: Name,
    /// 0 to 1.
    #[serde(default = "default_importance")]
    pub importance: f64,
    /// For people and filters.
    #[serde(default)]
    pub metadata: BTreeMap<Name, String>,
    /// Milliseconds until it is forgotten.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// Where it comes from.
    #[serde(default)]
    pub provenance: Option<Provenance>,
    /// An idempotency key: the same key and content within a day is one entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
}

fn default_segment() -> Name {
    Name::literal("notes")
}
fn default_importance() -> f64 {
    IMPORTANCE_PROGRESS
}

impl NewEntry {
    /// An entry on the shared board with every default.
    pub fn new(author: Name, content: Json) -> Self {
        Self {
            run: None,
            author,
            content,
            tags: Vec::new(),
            segment: default_segment(),
            importance: IMPORTANCE_PROGRESS,
            metadata: BTreeMap::new(),
            ttl_ms: None,
            provenance: None,
            key: None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Code::PayloadTooLarge`], [`Code::OutOfRange`] or [`Code::LimitExceeded`], naming the bound.
    pub fn check(&self) -> Result<(), Error> {
        payload("the entry", self.content.bytes())?;
        if !(0.0..=1.0).contains(&self.importance) {
            let text = format!("importance {} is outside 0 to 1", self.importance);
            return Err(Error::new(Code::OutOfRange, text));
        }
        if self.tags.len() > ENTRY_TAGS_MAX {
            return Err(Error::limit("tags", self.tags.len(), ENTRY_TAGS_MAX));
        }
        metadata("metadata entries", &self.metadata)
    }
}

/// An entry's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Whose board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Who wrote it.
    pub author: Name,
    /// What.
    pub content: Json,
    /// Found by.
    pub tags: Vec<Name>,
    /// Part of the board.
    pub segment: Name,
    /// 0 to 1.
    pub importance: f64,
    /// For people and filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
    /// When.
    pub at: Time,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Who took it for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<Name>,
}

impl Entry {
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::EntryClaimed { by, .. } => self.claimed_by.clone_from(by),
            other => debug_assert!(false, "{} does not fold on an entry", other.name()),
        }
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn has(&self, tag: &Name) -> bool {
        self.tags.contains(tag)
    }
}

/// A board's row: how many entries were written on it and are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Board {
    /// Entries.
    pub entries: u32,
}

impl Board {
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::EntryWritten { .. } => self.entries += 1,
            Event::EntryForgotten { .. } => self.entries -= 1,
            other => debug_assert!(false, "{} does not fold on a board", other.name()),
        }
    }
}

/// Which entries to read. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EntryFilter {
    /// Whose board; none is the shared one.
    pub run: Option<RunId>,
    /// At least one of these tags.
    pub tags_any: Vec<Name>,
    /// All of these tags.
    pub tags_all: Vec<Name>,
    /// Only this segment.
    pub segment: Option<Name>,
    /// Not older than so many milliseconds.
    pub age_max_ms: Option<u64>,
    /// At least this important.
    pub importance_min: Option<f64>,
    /// Only by this author.
    pub author: Option<Name>,
    /// Not by this author: the reader itself.
    pub exclude_own: Option<Name>,
    /// At most so many; none means [`PAGE_MAX`].
    pub limit: Option<usize>,
}

impl EntryFilter {
    /// Whether an entry passes, its board aside.
    pub fn admits(&self, entry: &Entry, now: Time) -> bool {
        !entry.is_expired(now)
            && (self.tags_any.is_empty() || self.tags_any.iter().any(|tag| entry.has(tag)))
            && self.tags_all.iter().all(|tag| entry.has(tag))
            && self
                .segment
                .as_ref()
                .is_none_or(|segment| *segment == entry.segment)
            && self
                .age_max_ms
                .is_none_or(|ms| now.since_ms(entry.at) <= ms)
            && self
                .importance_min
                .is_none_or(|least| entry.importance >= least)
            && self
                .author
                .as_ref()
                .is_none_or(|author| *author == entry.author)
            && self
                .exclude_own
                .as_ref()
                .is_none_or(|own| *own != entry.author)
    }

    /// The entries that pass: the most important first, of equals the newest, of these the one with
    /// the greater id.
    pub fn select(&self, entries: impl Iterator<Item = Entry>, now: Time) -> Vec<Entry> {
        let mut found: Vec<Entry> = entries.filter(|entry| self.admits(entry, now)).collect();
        found.sort_by(|a, b| {
            b.importance
                .total_cmp(&a.importance)
                .then(b.at.cmp(&a.at))
                .then(b.id.cmp(&a.id))
        });
        found.truncate(self.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX));
        found
    }
}

/// A task of a run as the board shows it: the assignment, the result, each failure, the progress.
pub fn project(run: &Run, task: &Task, entries: &mut Vec<Entry>) {
    let request = Name::new(run.id.to_string()).unwrap_or_else(|_| Name::literal("run"));
    let tag = Name::literal;
    let base = |part: u128, author: &Name, segment, importance, at, tags| Entry {
        // The two variant bits of a UUIDv7 tell the parts of one task apart.
        id: EntryId::new(task.id.0 ^ (part << 62)),
        run: Some(run.id),
        author: author.clone(),
        content: Json::default(),
        tags,
        segment: Name::literal(segment),
        importance,
        metadata: BTreeMap::from([(tag("task_id"), task.id.to_string())]),
        at,
        expires_at: None,
        provenance: Some(Provenance {
            task: task.id,
            attempt: None,
        }),
        claimed_by: None,
    };
    let open = !task.status().is_terminal();
    let state = if open {
        "pending"
    } else {
        task.status().as_str()
    };
    let mut tags = vec![tag("task"), tag(state), request.clone()];
    tags.extend(task.address().worker().or_else(|| task.worker()).cloned());
    let importance = if task.reassigned.is_some() {
        IMPORTANCE_HIGH
    } else {
        IMPORTANCE_NORMAL
    };
    entries.push(Entry {
        content: task.spec.input.clone(),
        claimed_by: task.lease().map(|lease| lease.worker.clone()),
        ..base(
            0,
            &run.supervisor,
            SEGMENT_TASKS,
            importance,
            task.submitted_at,
            tags,
        )
    });
    if let TaskState::Completed {
        at, output, worker, ..
    } = &task.state
    {
        let tags = vec![tag("result"), tag("completed"), request.clone()];
        let entry = base(1, worker, SEGMENT_RESULTS, IMPORTANCE_NORMAL, *at, tags);
        entries.push(Entry {
            content: output.clone(),
            ..entry
        });
    }
    if let Some(progress) = &task.progress {
        let tags = vec![tag("progress"), request.clone(), progress.worker.clone()];
        let entry = base(
            2,
            &progress.worker,
            SEGMENT_PROGRESS,
            IMPORTANCE_PROGRESS,
            progress.at,
            tags,
        );
        let content = serde_json::json!({"fraction": progress.fraction, "note": progress.note});
        entries.push(Entry {
            content: content.into(),
            ..entry
        });
    }
    for ended in &task.ended {
        let bad = !matches!(
            ended.state,
            AttemptState::Succeeded | AttemptState::Cancelled
        );
        if let Some(failure) = ended.failure.as_ref().filter(|_| bad) {
            let tags = vec![tag("error"), tag("failed"), request.clone()];
            let part = (3u128) + (u128::from(ended.attempt) << 4);
            let entry = base(
                part,
                &ended.worker,
                SEGMENT_ERRORS,
                IMPORTANCE_HIGH,
                ended.ended_at,
                tags,
            );
            let provenance = Provenance {
                task: task.id,
                attempt: Some(ended.attempt),
            };
            let content = serde_json::json!({"code": failure.code, "message": failure.message});
            entries.push(Entry {
                content: content.into(),
                provenance: Some(provenance),
                ..entry
            });
        }
    }
}

/// Decides a write.
pub(crate) fn write(state: &State, new: &NewEntry, now: Time, ids: &mut dyn Ids) -> Decision {
    let entry_of = |made| match made {
        Made::Entry(entry) => Some(entry),
        _ => None,
    };
    let receipt = match recall(state, new.key.as_ref(), || digest(new), entry_of) {
        Ok(Recalled::Before(entry)) => return Decision::answer(Outcome::Entry(entry)),
        Ok(Recalled::New(receipt)) => receipt,
        Err(error) => return Decision::refuse(error),
    };
    if let Err(error) = new.check() {
        return Decision::refuse(error);
    }
    if let Some(run) = &new.run
        && state.run(run).is_none()
    {
        let text = format!("there is no run {run}");
        return Decision::refuse(Error::new(Code::RunUnknown, text));
    }
    // Forgetting runs a little behind writing; twice the bound is where writing has to wait.
    let kept = state.board(new.run).entries;
    if kept >= 2 * BOARD_ENTRIES_MAX {
        return Decision::refuse(Error::limit(
            "entries on a board",
            kept as usize,
            BOARD_ENTRIES_MAX as usize,
        ));
    }
    let id = EntryId::new(ids.next());
    let entry = Entry {
        id,
        run: new.run,
        author: new.author.clone(),
        content: new.content.clone(),
        tags: new.tags.clone(),
        segment: new.segment.clone(),
        importance: new.importance,
        metadata: new.metadata.clone(),
        at: now,
        expires_at: new.ttl_ms.map(|ms| now.plus_ms(ms)),
        provenance: new.provenance.clone(),
        claimed_by: None,
    };
    Decision::event(
        Event::EntryWritten {
            entry: Arc::new(entry),
            receipt,
        },
        Outcome::Entry(id),
    )
}

/// Compare-and-set: `by` holds the entry afterwards if `expected` held it before.
pub(crate) fn claim(
    state: &State,
    entry: &EntryId,
    expected: Option<&Name>,
    by: Option<&Name>,
    now: Time,
) -> Decision {
    let Some(known) = state.entry(entry).filter(|entry| !entry.is_expired(now)) else {
        return Decision::refuse(unknown(entry));
    };
    if known.claimed_by.as_ref() == by {
        // It is so already: perhaps the answer to the first try was lost.
        return Decision::answer(Outcome::Entry(*entry));
    }
    if known.claimed_by.as_ref() != expected {
        let holder = known.claimed_by.as_ref().map_or("nobody", Name::as_str);
        let text = format!("{entry} is held by {holder}");
        return Decision::refuse(Error::new(Code::EntryClaimed, text));
    }
    Decision::event(
        Event::EntryClaimed {
            entry: *entry,
            by: by.cloned(),
        },
        Outcome::Entry(*entry),
    )
}

/// Forgets an entry whose time is over, or that its board has no room for.
pub(crate) fn forget(state: &State, entry: &EntryId, reason: &str) -> Decision {
    let Some(known) = state.entry(entry) else {
        return Decision::answer(Outcome::Done);
    };
    let event = Event::EntryForgotten {
        entry: *entry,
        run: known.run,
        reason: cut(reason).to_owned(),
    };
    Decision::event(event, Outcome::Done)
}

fn unknown(entry: &EntryId) -> Error {
    Error::new(
        Code::EntryUnknown,
        format!("there is no entry {entry}, or it has expired"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u128, importance: f64, at: u64, tags: &[&'static str]) -> Entry {
        Entry {
            id: EntryId::new(n),
            run: None,
            author: Name::literal(if n.is_multiple_of(2) { "even" } else { "odd" }),
            content: Json::default(),
            tags: tags.iter().map(|tag| Name::literal(tag)).collect(),
            segment: Name::literal(if n < 3 { "low" } else { "up" }),
            importance,
            metadata: BTreeMap::new(),
            at: Time(at),
            expires_at: (n == 9).then_some(Time(50)),
            provenance: None,
            claimed_by: None,
        }
    }

    fn ids(filter: &EntryFilter) -> Vec<u128> {
        let all = [
            entry(1, 0.5, 10, &["a"]),
            entry(2, 0.9, 10, &["b"]),
            entry(3, 0.9, 20, &["a", "b"]),
            entry(4, 0.8, 99, &["c"]),
            entry(9, 1.0, 10, &["a"]),
        ];
        filter
            .select(all.into_iter(), Time(100))
            .iter()
            .map(|entry| entry.id.0)
            .collect()
    }

    #[test]
    fn the_most_important_comes_first_then_the_newest() {
        // S1-40: importance then recency. Entry 9 has expired.
        assert_eq!(ids(&EntryFilter::default()), [3, 2, 4, 1]);
    }

    #[test]
    fn every_filter_filters() {
        // S1-38, S1-39: any and all are explicit; segment, age, importance, exclude_own, limit.
        let tags =
            |tags: &[&'static str]| tags.iter().map(|t| Name::literal(t)).collect::<Vec<_>>();
        let none = EntryFilter::default;
        assert_eq!(
            ids(&EntryFilter {
                tags_any: tags(&["a", "b"]),
                ..none()
            }),
            [3, 2, 1]
        );
        assert_eq!(
            ids(&EntryFilter {
                tags_all: tags(&["a", "b"]),
                ..none()
            }),
            [3]
        );
        assert_eq!(
            ids(&EntryFilter {
                segment: Some(Name::literal("low")),
                ..none()
            }),
            [2, 1]
        );
        assert_eq!(
            ids(&EntryFilter {
                age_max_ms: Some(80),
                ..none()
            }),
            [3, 4]
        );
        assert_eq!(
            ids(&EntryFilter {
                importance_min: Some(0.8),
                ..none()
            }),
            [3, 2, 4]
        );
        assert_eq!(
            ids(&EntryFilter {
                exclude_own: Some(Name::literal("odd")),
                ..none()
            }),
            [2, 4]
        );
        assert_eq!(
            ids(&EntryFilter {
                author: Some(Name::literal("odd")),
                ..none()
            }),
            [3, 1]
        );
        assert_eq!(
            ids(&EntryFilter {
                limit: Some(2),
                ..none()
            }),
            [3, 2]
        );
    }
}
