//! The tally: counters folded from events, exact after every restart, never estimated.
//!
//! The sum rule holds at every instant:
//! `submitted = pending + assigned + in_progress + completed + failed + cancelled`.

use crate::event::{Event, Recorded};
use crate::limits::STATISTICS_NAMES_MAX;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Buckets of the duration histogram: bucket `n` holds durations below `2^n` ms, the last one the
/// rest (2^30 ms are twelve days).
const BUCKETS: usize = 32;

/// The statistics row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Tasks ever accepted.
    pub submitted: u64,
    /// Waiting now.
    pub pending: u64,
    /// Leased, not begun.
    pub assigned: u64,
    /// Begun.
    pub in_progress: u64,
    /// Done.
    pub completed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Not wanted any more.
    pub cancelled: u64,
    /// Leases given out.
    pub attempts: u64,
    /// Late or foreign reports refused.
    pub refused: u64,
    /// Tasks accepted, by type.
    pub by_type: BTreeMap<Name, u64>,
    /// Tasks completed, by worker.
    pub by_worker: BTreeMap<Name, u64>,
    /// Milliseconds that completed attempts took, added up.
    pub ran_ms: u64,
    /// How many completed attempts took less than 2^n ms (and not less than 2^(n-1)).
    pub durations: Vec<u64>,
    /// Runs ever started.
    pub runs: u64,
    /// Runs that are open.
    pub runs_open: u64,
    /// Workers that are known, gone ones included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workers: u64,
    /// Credentials ever made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credentials: u64,
    /// Names of tools that are missed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub demands: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Tally {
    /// Whether the sum rule holds.
    pub fn adds_up(&self) -> bool {
        let parts = [
            self.pending,
            self.assigned,
            self.in_progress,
            self.completed,
            self.failed,
            self.cancelled,
        ];
        self.submitted == parts.iter().sum::<u64>()
    }

    /// Mean milliseconds of a completed attempt.
    pub fn mean_ms(&self) -> f64 {
        if self.completed == 0 {
            0.0
        } else {
            self.ran_ms as f64 / self.completed as f64
        }
    }

    /// Milliseconds that `percent` of the completed attempts did not exceed; an upper bound, exact
    /// to a factor of two. `None` before the first.
    pub fn percentile_ms(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.durations.iter().sum();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.durations
            .iter()
            .position(|count| {
                seen += count;
                seen >= wanted
            })
            .filter(|_| total > 0)
            .map(|bucket| 1u64 << bucket)
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TaskSubmitted { spec, .. } => {
                self.submitted += 1;
                self.pending += 1;
                count(&mut self.by_type, &spec.kind);
            }
            Event::TaskAssigned { started, .. } => {
                self.pending -= 1;
                self.attempts += 1;
                *self.leased(*started) += 1;
            }
            Event::TaskStarted { .. } => {
                self.assigned -= 1;
                self.in_progress += 1;
            }
            Event::TaskCompleted {
                lease,
                ran_ms,
                started,
                ..
            } => {
                *self.leased(*started) -= 1;
                self.completed += 1;
                self.ran_ms += ran_ms;
                count(&mut self.by_worker, &lease.worker);
                self.durations.resize(BUCKETS, 0);
                let bucket = (u64::BITS - ran_ms.leading_zeros()) as usize;
                self.durations[bucket.min(BUCKETS - 1)] += 1;
            }
            Event::AttemptEnded { started, .. } => {
                *self.leased(*started) -= 1;
                self.pending += 1;
            }
            Event::TaskFailed { .. } => {
                self.pending -= 1;
                self.failed += 1;
            }
            Event::TaskCancelled { lease, started, .. } => {
                match lease {
                    Some(_) => *self.leased(*started) -= 1,
                    None => self.pending -= 1,
                }
                self.cancelled += 1;
            }
            Event::TaskRedriven { was_cancelled, .. } => {
                match was_cancelled {
                    true => self.cancelled -= 1,
                    false => self.failed -= 1,
                }
                self.pending += 1;
            }
            Event::ResultRefused { .. } => self.refused += 1,
            Event::WorkerRegistered { .. } => self.workers += 1,
            Event::WorkerForgotten { .. } => self.workers -= 1,
            Event::CredentialCreated { .. } => self.credentials += 1,
            Event::ToolMissed { .. } => self.demands += 1,
            Event::RunStarted { .. } => {
                self.runs += 1;
                self.runs_open += 1;
            }
            Event::RunReopened { .. } => self.runs_open += 1,
            Event::RunCompleted { .. } | Event::RunFailed { .. } | Event::RunCancelled { .. } => {
                self.runs_open -= 1;
            }
            other => debug_assert!(false, "{} does not fold on the tally", other.name()),
        }
        debug_assert!(
            self.adds_up(),
            "the sum rule broke on {}",
            recorded.event.name()
        );
    }

    fn leased(&mut self, started: bool) -> &mut u64 {
        if started {
            &mut self.in_progress
        } else {
            &mut self.assigned
        }
    }
}

fn count(map: &mut BTreeMap<Name, u64>, name: &Name) {
    if let Some(n) = map.get_mut(name) {
        *n += 1;
    } else if map.len() < STATISTICS_NAMES_MAX {
        map.insert(name.clone(), 1);
    } else {
        *map.entry(Name::literal("(other)")).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_bound_the_truth_from_above() {
        let mut tally = Tally {
            durations: vec![0; BUCKETS],
            ..Tally::default()
        };
        assert_eq!(tally.percentile_ms(50), None);
        // Ninety attempts of 3 ms (below 4), ten of 900 ms (below 1024).
        tally.durations[2] = 90;
        tally.durations[10] = 10;
        assert_eq!(tally.percentile_ms(50), Some(4));
        assert_eq!(tally.percentile_ms(90), Some(4));
        assert_eq!(tally.percentile_ms(99), Some(1_024));
    }

    #[test]
    fn names_are_bounded() {
        let mut map = BTreeMap::new();
        for n in 0..STATISTICS_NAMES_MAX + 50 {
            count(&mut map, &Name::new(format!("t{n}")).unwrap());
        }
        assert_eq!(map.len(), STATISTICS_NAMES_MAX + 1);
        assert_eq!(map["(other)"], 50);
    }
}
