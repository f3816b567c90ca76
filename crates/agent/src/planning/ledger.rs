//! The ledger: how far each brief of a plan is, and how the plan was changed. What is decided in it
//! follows from it alone, so that whoever looks again decides the same.

use super::plan::Planned;
use super::{Delegation, ROUNDS_MAX, STALLS_MAX, SUPERVISOR, Share};
use crate::mind::Completeness;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Who wrote a plan that was given with the goal.
pub const PERSON: &str = "person";
/// The version of a plan that nobody has changed.
const FIRST: u32 = 1;
/// Times that the same end may fail before no brief may be written to it again.
pub const TRIES_MAX: usize = 2;

/// How far a brief is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not begun.
    Waiting,
    /// It is with its agent.
    GivenOut,
    /// It has a result.
    Done,
    /// It has part of one.
    Partial,
    /// It has none.
    Failed,
    /// The plan was changed, and it is not needed any more.
    Dropped,
    /// It was planned by itself: what comes of it, comes of its own briefs.
    Split,
}

impl Standing {
    /// It has something to show.
    pub const fn has_result(self) -> bool {
        matches!(self, Self::Done | Self::Partial)
    }
}

/// A brief, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The brief.
    pub brief: Planned,
    /// How far.
    pub standing: Standing,
    /// Why it is partial, failed or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The brief that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
}

/// A version of the plan: the first, or a change of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    #[serde(default)]
    pub version: u32,
    /// Who wrote it: the supervisor, or a [`PERSON`].
    #[serde(default)]
    pub by: String,
    /// After which round; the first after none.
    pub round: u32,
    /// Why.
    pub reason: String,
    /// The briefs that came to it, by name.
    pub added: Vec<String>,
    /// The briefs that are not needed any more.
    pub dropped: Vec<String>,
    /// The brief that was planned by itself, where that is all that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// How far a plan is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Its briefs.
    pub entries: Vec<Entry>,
    /// Its versions, the first of which changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// Rounds that were given out.
    pub round: u32,
    /// Rounds in a row in which nothing new came.
    #[serde(default)]
    pub stalls: u32,
    /// Why it ends before all is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// What came of a brief in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Which.
    pub brief: String,
    /// Whether it has a whole result, part of one, or none; and why.
    pub outcome: Result<(Completeness, Option<String>), String>,
}

impl Ledger {
    /// Of a plan that has not begun, and who wrote it, why.
    pub fn new(briefs: Vec<Planned>, by: &str, reason: impl Into<String>) -> Self {
        let first = Revision {
            version: FIRST,
            by: by.to_owned(),
            round: 0,
            reason: reason.into(),
            added: briefs.iter().map(|brief| brief.id.clone()).collect(),
            dropped: Vec::new(),
            split: None,
        };
        Self {
            entries: briefs.into_iter().map(Self::waiting).collect(),
            revisions: vec![first],
            ..Self::default()
        }
    }

    fn waiting(brief: Planned) -> Entry {
        Entry {
            brief,
            standing: Standing::Waiting,
            reason: None,
            part_of: None,
        }
    }

    /// The versions that changed the plan: all but the first.
    pub fn changes(&self) -> impl Iterator<Item = &Revision> {
        let all = self.revisions.iter();
        all.filter(|revision| revision.version != FIRST)
    }

    /// How often the supervisor changed its mind.
    pub fn replans(&self) -> usize {
        let changes = self.changes();
        changes.filter(|revision| revision.split.is_none()).count()
    }

    /// How deep in plans of plans a brief is, from 1.
    pub fn depth(&self, brief: &str) -> u32 {
        let mut depth = 1;
        let mut at = self.entry(brief);
        while let Some(whole) = at.and_then(|entry| entry.part_of.as_deref()) {
            depth += 1;
            at = self.entry(whole);
        }
        depth
    }

    /// The briefs of a version: those of all versions until then, without those that were dropped.
    pub fn plan_at(&self, version: u32) -> Vec<&Planned> {
        let until = self.revisions.iter().filter(|one| one.version <= version);
        let until: Vec<&Revision> = until.collect();
        let among = |names: fn(&Revision) -> &Vec<String>, brief: &str| {
            let mut all = until.iter().flat_map(|one| names(one));
            all.any(|name| name == brief)
        };
        let briefs = self.entries.iter().map(|entry| &entry.brief);
        let there = briefs.filter(|brief| {
            among(|one| &one.added, &brief.id) && !among(|one| &one.dropped, &brief.id)
        });
        there.collect()
    }

    /// The entry of a brief.
    pub fn entry(&self, brief: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.brief.id == brief)
    }

    fn has_result(&self, brief: &str) -> bool {
        self.entry(brief)
            .is_some_and(|entry| entry.standing.has_result())
    }

    /// The briefs that may begin: they wait, and what they need is there.
    pub fn ready(&self) -> Vec<&Planned> {
        let waiting = self
            .entries
            .iter()
            .filter(|entry| entry.standing == Standing::Waiting);
        let ready =
            waiting.filter(|entry| entry.brief.needs.iter().all(|need| self.has_result(need)));
        ready.map(|entry| &entry.brief).collect()
    }

    /// Gives out the briefs that may begin, with the inputs and the results that they need.
    pub fn give_out(
        mut self,
        inputs: &[Value],
        results: &BTreeMap<String, Value>,
        share: Option<Share>,
    ) -> (Self, Vec<Delegation>) {
        let ready: Vec<Planned> = self.ready().into_iter().cloned().collect();
        let names: BTreeSet<String> = ready.iter().map(|brief| brief.id.clone()).collect();
        for entry in &mut self.entries {
            if names.contains(&entry.brief.id) {
                entry.standing = Standing::GivenOut;
            }
        }
        self.round += 1;
        let delegation = |brief: Planned| {
            let given = brief
                .inputs
                .iter()
                .filter_map(|n| inputs.get(n.checked_sub(1)?));
            let needed = brief.needs.iter();
            let needed = needed.filter_map(|need| Some((need.clone(), results.get(need)?.clone())));
            Delegation {
                inputs: given.cloned().collect(),
                results: needed.collect(),
                brief: brief.id,
                agent: brief.agent,
                spawn: brief.spawn,
                objective: brief.objective,
                acceptance: brief.acceptance,
                evidence: brief.evidence,
                share,
            }
        };
        (self, ready.into_iter().map(delegation).collect())
    }

    /// Writes down what came of a round. An empty result is a result: only what nothing came of is
    /// no progress.
    pub fn note(&mut self, came: &[Came]) {
        let mut news = false;
        for came in came {
            let Some(entry) = self
                .entries
                .iter_mut()
                .find(|entry| entry.brief.id == came.brief)
            else {
                continue;
            };
            (entry.standing, entry.reason) = match &came.outcome {
                Ok((Completeness::Done, _)) => (Standing::Done, None),
                Ok((Completeness::Partial, reason)) => (Standing::Partial, reason.clone()),
                Err(reason) => (Standing::Failed, Some(reason.clone())),
            };
            news |= entry.standing.has_result();
        }
        self.stalls = if news { 0 } else { self.stalls + 1 };
    }

    /// The bound that is reached, in words.
    pub fn exhausted(&self) -> Option<String> {
        if self.stalls >= STALLS_MAX {
            return Some(format!("nothing new came in {STALLS_MAX} rounds"));
        }
        (self.round >= ROUNDS_MAX).then(|| format!("its {ROUNDS_MAX} rounds are used up"))
    }

    /// Whether a brief to this end may be written: not once it has failed too often.
    ///
    /// # Errors
    /// Which, and how often.
    pub fn may_try(&self, brief: &Planned) -> Result<(), String> {
        let same = |entry: &&Entry| entry.brief.end() == brief.end();
        let before: Vec<&Entry> = self.entries.iter().filter(same).collect();
        if let Some(done) = before.iter().find(|entry| entry.standing == Standing::Done) {
            return Err(format!(
                "“{}” has reached the same end already",
                done.brief.id
            ));
        }
        let failed = before
            .iter()
            .filter(|entry| entry.standing == Standing::Failed)
            .count();
        if failed >= TRIES_MAX {
            return Err(format!(
                "what it is to reach has failed {failed} times; try another way"
            ));
        }
        Ok(())
    }

    /// Changes the plan, which makes its next version. Briefs that have begun stay as they are.
    pub fn revise(&mut self, by: &str, reason: String, drop: &[String], briefs: Vec<Planned>) {
        let mut dropped = Vec::new();
        for entry in &mut self.entries {
            if entry.standing == Standing::Waiting && drop.contains(&entry.brief.id) {
                entry.standing = Standing::Dropped;
                entry.reason = Some(reason.clone());
                dropped.push(entry.brief.id.clone());
            }
        }
        let added = briefs.iter().map(|brief| brief.id.clone()).collect();
        self.entries.extend(briefs.into_iter().map(Self::waiting));
        self.revisions.push(Revision {
            version: self.next_version(),
            by: by.to_owned(),
            round: self.round,
            reason,
            added,
            dropped,
            split: None,
        });
    }

    fn next_version(&self) -> u32 {
        self.revisions.last().map_or(FIRST, |last| last.version) + 1
    }

    /// Puts a brief's own briefs in its place.
    pub fn split(&mut self, brief: &str, parts: Vec<Planned>) {
        self.stand(brief, Standing::Split, None);
        self.revisions.push(Revision {
            version: self.next_version(),
            by: SUPERVISOR.to_owned(),
            round: self.round,
            reason: format!("{brief} is work for several agents"),
            added: parts.iter().map(|part| part.id.clone()).collect(),
            dropped: Vec::new(),
            split: Some(brief.to_owned()),
        });
        let part = |part| Entry {
            part_of: Some(brief.to_owned()),
            ..Self::waiting(part)
        };
        self.entries.extend(parts.into_iter().map(part));
    }

    /// Notes that a brief came to nothing.
    pub fn fail(&mut self, brief: &str, reason: String) {
        self.stand(brief, Standing::Failed, Some(reason));
    }

    fn stand(&mut self, brief: &str, standing: Standing, reason: Option<String>) {
        let mut entries = self.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.brief.id == brief) {
            (entry.standing, entry.reason) = (standing, reason);
        }
    }

    fn parts<'a>(&'a self, brief: &'a str) -> impl Iterator<Item = &'a Entry> {
        let entries = self.entries.iter();
        entries.filter(move |entry| entry.part_of.as_deref() == Some(brief))
    }

    /// Draws the conclusions: what cannot begin any more is dropped, and briefs whose parts have all
    /// ended have ended with them.
    pub fn settle(&mut self) {
        loop {
            self.drop_blocked();
            if !self.conclude() {
                return;
            }
        }
    }

    /// Ends the briefs whose parts have all ended. Whether there were any.
    pub fn conclude(&mut self) -> bool {
        let mut any = false;
        loop {
            let over = self.entries.iter().find_map(|entry| {
                let split = entry.standing == Standing::Split;
                let standing = split.then(|| self.of_parts(&entry.brief.id)).flatten()?;
                Some((entry.brief.id.clone(), standing))
            });
            let Some((brief, standing)) = over else {
                return any;
            };
            any = true;
            let reason = match standing {
                Standing::Done => None,
                _ => Some("not all of its own briefs came to a result".to_owned()),
            };
            self.stand(&brief, standing, reason);
        }
    }

    /// What a brief has come to by its parts, once they have all ended.
    fn of_parts(&self, brief: &str) -> Option<Standing> {
        let (mut whole, mut some) = (true, false);
        for part in self.parts(brief) {
            match part.standing {
                Standing::Waiting | Standing::GivenOut | Standing::Split => return None,
                Standing::Done => some = true,
                Standing::Partial => (whole, some) = (false, true),
                Standing::Failed | Standing::Dropped => whole = false,
            }
        }
        Some(match (whole, some) {
            (true, _) => Standing::Done,
            (false, true) => Standing::Partial,
            (false, false) => Standing::Failed,
        })
    }

    /// The results of briefs that were split, with those of the others: of each its parts', by name.
    pub fn with_wholes(&self, mut results: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        // What is deepest is last.
        for entry in self.entries.iter().rev() {
            let brief = &entry.brief.id;
            let parts = self.parts(brief);
            let parts = parts.filter_map(|part| {
                let name = &part.brief.id;
                Some((name.clone(), results.get(name)?.clone()))
            });
            let parts: serde_json::Map<String, Value> = parts.collect();
            if !parts.is_empty() {
                results.insert(brief.clone(), Value::Object(parts));
            }
        }
        results
    }

    /// Drops what cannot begin any more, because what it needs has no result.
    fn drop_blocked(&mut self) {
        loop {
            let blocked = self.entries.iter().position(|entry| {
                let lost = |need: &String| {
                    self.entry(need).is_none_or(|entry| {
                        matches!(entry.standing, Standing::Failed | Standing::Dropped)
                    })
                };
                entry.standing == Standing::Waiting && entry.brief.needs.iter().any(lost)
            });
            let Some(n) = blocked else { return };
            let entry = &mut self.entries[n];
            entry.standing = Standing::Dropped;
            entry.reason = Some("what it needs has no result".into());
        }
    }

    /// Briefs without a whole result, and why.
    pub fn missing(&self) -> Vec<&Entry> {
        // Of a brief that was split its parts are named.
        let own = self
            .entries
            .iter()
            .filter(|entry| self.parts(&entry.brief.id).next().is_none());
        let missing = own.filter(|entry| match entry.standing {
            Standing::Done | Standing::Split => false,
            // Another brief to the same end may have reached it.
            Standing::Failed | Standing::Partial => !self.entries.iter().any(|other| {
                other.standing == Standing::Done && other.brief.end() == entry.brief.end()
            }),
            // A brief that was dropped by a changed plan is not missed by it.
            Standing::Dropped => !self
                .revisions
                .iter()
                .any(|revision| revision.dropped.contains(&entry.brief.id)),
            Standing::Waiting | Standing::GivenOut => true,
        });
        missing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(id: &str, needs: &[&str]) -> Planned {
        Planned {
            id: id.into(),
            agent: "a".into(),
            objective: format!("Do {id}"),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            ..Planned::default()
        }
    }

    fn first(briefs: Vec<Planned>) -> Ledger {
        Ledger::new(briefs, PERSON, "to begin with")
    }

    fn came(brief: &str, good: bool) -> Came {
        Came {
            brief: brief.into(),
            outcome: match good {
                true => Ok((Completeness::Done, None)),
                false => Err("no".into()),
            },
        }
    }

    fn names(briefs: &[&Planned]) -> Vec<String> {
        briefs.iter().map(|brief| brief.id.clone()).collect()
    }

    #[test]
    fn what_needs_another_waits_for_its_result_and_gets_it() {
        let ledger = first(vec![
            brief("a", &[]),
            brief("b", &["a"]),
            brief("c", &["a", "b"]),
        ]);
        assert_eq!(names(&ledger.ready()), ["a"]);
        let (mut ledger, given) = ledger.give_out(&[], &BTreeMap::new(), None);
        assert_eq!((given.len(), ledger.round), (1, 1));
        assert!(ledger.ready().is_empty());
        ledger.note(&[came("a", true)]);
        let results = BTreeMap::from([("a".to_owned(), Value::from(7))]);
        let (mut ledger, given) = ledger.give_out(&[], &results, None);
        assert_eq!(given[0].brief, "b");
        assert_eq!(given[0].results, results);
        ledger.note(&[came("b", false)]);
        assert!(ledger.ready().is_empty());
        ledger.settle();
        let missing: Vec<_> = ledger
            .missing()
            .iter()
            .map(|entry| entry.brief.id.as_str())
            .collect();
        assert_eq!(missing, ["b", "c"]);
    }

    #[test]
    fn three_rounds_without_news_are_the_end_and_an_empty_result_is_news() {
        let mut ledger = first(vec![brief("a", &[])]);
        for stalls in 1..=3 {
            ledger.note(&[came("a", false)]);
            assert_eq!(ledger.stalls, stalls);
            assert_eq!(ledger.exhausted().is_some(), stalls == 3);
        }
        ledger.note(&[came("a", true)]);
        assert_eq!((ledger.stalls, ledger.exhausted()), (0, None));
        ledger.round = ROUNDS_MAX;
        assert_eq!(ledger.exhausted().unwrap(), "its 20 rounds are used up");
    }

    #[test]
    fn the_same_end_is_tried_twice_and_never_once_it_is_reached() {
        let mut ledger = first(vec![brief("a", &[]), brief("b", &[])]);
        let again = |id: &str, of: &str| Planned {
            id: id.into(),
            ..brief(of, &[])
        };
        ledger.note(&[came("a", false), came("b", true)]);
        assert_eq!(ledger.may_try(&again("a2", "a")), Ok(()));
        ledger.revise(
            "supervisor",
            "once more".into(),
            &[],
            vec![again("a2", "a")],
        );
        ledger.note(&[came("a2", false)]);
        assert!(
            ledger
                .may_try(&again("a3", "a"))
                .unwrap_err()
                .contains("failed 2 times")
        );
        assert!(
            ledger
                .may_try(&again("b2", "b"))
                .unwrap_err()
                .contains("already")
        );
    }

    // S0-186: the supervisor is tested.
    #[test]
    fn a_change_says_what_came_and_went_and_why() {
        let mut ledger = first(vec![brief("a", &[]), brief("b", &["a"])]);
        ledger.round = 1;
        ledger.note(&[came("a", false)]);
        ledger.revise(
            "supervisor",
            "a was the wrong way".into(),
            &["b".into(), "a".into()],
            vec![brief("c", &[])],
        );
        let first = Revision {
            version: 1,
            by: "person".into(),
            round: 0,
            reason: "to begin with".into(),
            added: vec!["a".into(), "b".into()],
            dropped: Vec::new(),
            split: None,
        };
        let second = Revision {
            version: 2,
            by: "supervisor".into(),
            round: 1,
            reason: "a was the wrong way".into(),
            added: vec!["c".into()],
            dropped: vec!["b".into()],
            split: None,
        };
        assert_eq!(ledger.revisions, [first, second.clone()]);
        assert_eq!(ledger.changes().collect::<Vec<_>>(), [&second]);
        // Each version can be read as it was.
        let at = |version| names(&ledger.plan_at(version));
        assert_eq!(
            (at(1), at(2)),
            (vec!["a".into(), "b".into()], vec!["a".into(), "c".into()])
        );
        assert_eq!(names(&ledger.ready()), ["c"]);
    }
}
