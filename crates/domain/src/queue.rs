//! The queue: where tasks wait, how many, whether it gives any out, and whose turn it is. And the
//! slot: how many tasks of one concurrency key run.
//!
//! Deliberately absent: weights. Whoever shares a queue has an equal share of each band; who should
//! have more says so by a priority.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::event::{Event, Recorded};
use crate::id::RunId;
use crate::limits::AGEING_MS_PER_POINT;
use crate::name::Name;
use crate::state::State;
use crate::task::{Place, Priority};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// Who shares a queue with others: however many tasks one of them has waiting, each gets its turn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// All tasks together that are of no run and have no concurrency key.
    Plain,
    /// The tasks of a concurrency key that are of no run.
    Key(Name),
    /// A run. Its concurrency keys take turns again within its turn, so that a run does not get
    /// more by having many of them.
    Run(RunId),
}

impl Party {
    /// Whose task waits at this place.
    pub fn of(place: &Place) -> Self {
        match (place.run, &place.slot) {
            (Some(run), _) => Self::Run(run),
            (None, Some(key)) => Self::Key(key.clone()),
            (None, None) => Self::Plain,
        }
    }
}

/// When somebody was last given a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Served {
    /// The instant.
    pub at: Time,
    /// Which service of all it was, from 1: tells apart those of one millisecond. 0 is before all.
    pub nth: u64,
}

impl Served {
    /// The service after this one. A clock that was set back does not make it an earlier one.
    #[must_use]
    pub fn next(self, now: Time) -> Self {
        Self {
            at: self.at.max(now),
            nth: self.nth + 1,
        }
    }
}

/// When it is somebody's turn: the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// Since when it waits, in milliseconds, made earlier by its priority.
    pub instant: i64,
    /// Of equals, who was served longer ago.
    pub nth: u64,
    /// Of equals again, whose task came first.
    pub seq: u64,
}

impl Turn {
    /// Before every other.
    pub const FIRST: Self = Self {
        instant: i64::MIN,
        nth: 0,
        seq: 0,
    };
    /// After every other.
    pub const LAST: Self = Self {
        instant: i64::MAX,
        nth: u64::MAX,
        seq: u64::MAX,
    };

    /// The turn of somebody whose first task has this rank ([`Place::rank`]), priority and number,
    /// and who was last served then.
    ///
    /// One that shares a queue waits since its first task came, or since it was last served,
    /// whichever is later. So those with a backlog go round, the one that was served longest ago
    /// first; and one that comes with a single task goes after at most one task of each of them.
    /// Priority moves the instant as it moves a task's rank: half a minute a point.
    ///
    /// Here a run has had a hundred thousand tasks in line for ten seconds, and has just been
    /// served, when another run's first task comes:
    ///
    /// ```
    /// use domain::queue::{Served, Turn, aged};
    /// use domain::task::Priority;
    /// use domain::time::Time;
    /// let normal = Priority::NORMAL;
    /// let (came, last) = (aged(Time(10_000), normal), Served { at: Time(20_000), nth: 7 });
    /// let heavy = Turn::of(came, normal, 3, last);
    /// // The new one comes at once after it, before its other tasks.
    /// let light = Turn::of(aged(Time(20_001), normal), normal, 100_009, last);
    /// let heavy_again = Turn::of(came, normal, 4, last.next(Time(20_002)));
    /// assert!(heavy < light && light < heavy_again);
    /// // Urgent work goes first; a band (10 points) lower is served after five minutes of it.
    /// let high = Turn::of(came, Priority::HIGH, 5, last.next(Time(320_000)));
    /// assert!(high < light);
    /// let high = Turn::of(came, Priority::HIGH, 5, last.next(Time(320_002)));
    /// assert!(light < high);
    /// ```
    pub fn of(rank: i64, priority: Priority, seq: u64, served: Served) -> Self {
        Self {
            instant: rank.max(aged(served.at, priority)),
            nth: served.nth,
            seq,
        }
    }
}

/// An instant made earlier by a priority. All that waits ages alike, so two that wait never change
/// their order, and nothing has to be computed again while they do.
pub fn aged(since: Time, priority: Priority) -> i64 {
    i64::try_from(since.0)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::from(priority.0) * AGEING_MS_PER_POINT)
}

/// A queue's row. A queue exists from its first task on, or from its first pause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Gives out nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Tasks that wait in it, whatever they wait for.
    pub pending: u64,
    /// Tasks of it that workers hold.
    pub leased: u64,
}

impl Queue {
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TaskSubmitted { .. } | Event::TaskRedriven { .. } => self.pending += 1,
            Event::TaskAssigned { .. } => {
                self.pending -= 1;
                self.leased += 1;
            }
            Event::TaskStarted { .. } => {}
            Event::TaskCompleted { .. } => self.leased -= 1,
            Event::AttemptEnded { .. } => {
                self.leased -= 1;
                self.pending += 1;
            }
            Event::TaskFailed { .. } | Event::TaskCancelled { lease: None, .. } => {
                self.pending -= 1
            }
            Event::TaskCancelled { lease: Some(_), .. } => self.leased -= 1,
            Event::QueuePaused { .. } => self.paused = true,
            Event::QueueResumed { .. } => self.paused = false,
            other => debug_assert!(false, "{} does not fold on a queue", other.name()),
        }
    }
}

/// A concurrency key's row: how many of its tasks are leased, and how many may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Leased now.
    pub running: u32,
    /// At most, as the newest claim said.
    pub max: u32,
}

impl Slot {
    /// Whether another may be leased.
    pub fn is_open(&self) -> bool {
        self.running < self.max || self.max == 0
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TaskAssigned { slot_max, .. } => {
                self.running += 1;
                self.max = slot_max.unwrap_or(self.max);
            }
            Event::TaskCompleted { .. }
            | Event::AttemptEnded { .. }
            | Event::TaskCancelled { lease: Some(_), .. } => self.running -= 1,
            Event::TaskStarted { .. }
            | Event::TaskFailed { .. }
            | Event::TaskRedriven { .. }
            | Event::TaskCancelled { lease: None, .. } => {}
            other => debug_assert!(false, "{} does not fold on a slot", other.name()),
        }
    }
}

/// Pauses or resumes; saying it twice changes nothing.
pub(crate) fn pause(state: &State, queue: &Name, paused: bool) -> Decision {
    if state.queue(queue).is_some_and(|queue| queue.paused) == paused {
        return Decision::answer(Outcome::Done);
    }
    let queue = queue.clone();
    let event = if paused {
        Event::QueuePaused { queue }
    } else {
        Event::QueueResumed { queue }
    };
    Decision::event(event, Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Somebody with a backlog: since when, how urgent, and what it was given.
    #[derive(Debug, Clone)]
    struct Backlog {
        since: u64,
        priority: Priority,
        served: Served,
        given: Vec<u64>,
    }

    impl Backlog {
        fn turn(&self, seq: usize) -> Turn {
            let rank = aged(Time(self.since), self.priority);
            Turn::of(rank, self.priority, seq as u64, self.served)
        }
    }

    fn backlog() -> impl Strategy<Value = Backlog> {
        let bands = [Priority::LOW, Priority::NORMAL, Priority::HIGH];
        (0..1_000_000_u64, 0..bands.len()).prop_map(move |(since, band)| Backlog {
            since,
            priority: bands[band],
            served: Served::default(),
            given: Vec::new(),
        })
    }

    /// Gives out tasks, one every so many milliseconds.
    fn give(parties: &mut [Backlog], step_ms: u64, tasks: u64) {
        let mut last = Served::default();
        for n in 0..tasks {
            let now = 1_000_000 + n * step_ms;
            let all = parties.iter_mut().enumerate();
            let Some((_, next)) = all.min_by_key(|(seq, party)| party.turn(*seq)) else {
                return;
            };
            last = last.next(Time(now));
            next.served = last;
            next.given.push(now);
        }
    }

    proptest! {
        /// Of one band each gets the same, to one task; and a band that is lower waits its five
        /// minutes and a round, never longer.
        #[test]
        fn equals_share_equally_and_nobody_starves(
            mut parties in proptest::collection::vec(backlog(), 1..12),
            step_ms in 0..5_000_u64,
        ) {
            // As if all had come, with turns begun anew, before the first is given.
            for party in &mut parties {
                party.served.at = Time(1_000_000);
            }
            give(&mut parties, step_ms, 2_000);
            for a in &parties {
                for b in parties.iter().filter(|b| b.priority == a.priority) {
                    prop_assert!(a.given.len().abs_diff(b.given.len()) <= 1);
                }
            }
            let round_ms = parties.len() as u64 * step_ms;
            let end = 1_000_000 + 2_000 * step_ms;
            for party in &parties {
                let mut before = 1_000_000;
                for at in party.given.iter().copied().chain([end]) {
                    let highest = parties.iter().map(|p| p.priority.0).max().unwrap_or(0);
                    let behind = (highest - party.priority.0) as u64;
                    let bound = behind * AGEING_MS_PER_POINT as u64 + round_ms + step_ms;
                    prop_assert!(at - before <= bound, "{} > {bound}", at - before);
                    before = at;
                }
            }
        }

        /// Whoever comes with one task has it given after at most one of each other of its band.
        #[test]
        fn a_light_one_waits_one_round(others in 1..20_usize, rounds in 0..50_u64, step_ms in 0..50_u64) {
            let heavy = Backlog {
                since: 0,
                priority: Priority::NORMAL,
                served: Served::default(),
                given: Vec::new(),
            };
            let mut parties = vec![heavy.clone(); others];
            give(&mut parties, step_ms, rounds);
            let last = parties.iter().map(|party| party.served).max().unwrap_or_default();
            let since = last.at.0.max(1_000_000);
            parties.push(Backlog { since, served: last, given: Vec::new(), ..heavy });
            let mut last = last;
            for n in 1.. {
                prop_assert!(n <= others + 1, "{n} claims");
                let all = parties.iter_mut().enumerate();
                let (seq, next) = all.min_by_key(|(seq, party)| party.turn(*seq)).unwrap();
                last = last.next(Time(since));
                next.served = last;
                if seq == others {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_order() {
        let first = Served::default().next(Time(100));
        let second = first.next(Time(40));
        assert_eq!(
            second,
            Served {
                at: Time(100),
                nth: 2
            }
        );
    }
}
