//! What the wheel does, counted: for whoever watches the engine from outside. Counts begin at zero
//! with the process; what must survive it is in the statistics.

use domain::event::Event;
use domain::task::AttemptEnd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of a histogram: bucket `n` counts values below `2^n`, the last one the rest.
pub const BUCKETS: usize = 24;

/// A histogram of powers of two.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    fn observe(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Values below `2^n`, for each `n`, not added up.
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|n| self.counts[n].load(Relaxed))
    }

    /// All values added up.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// The counts. Cloning the [`Arc`] shares them.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Microseconds that a commit took, from the first command to the disk's word.
    pub commit_us: Histogram,
    /// Requests that shared a commit.
    pub commit_requests: Histogram,
    /// Leases given out.
    pub claims: AtomicU64,
    /// Attempts that succeeded.
    pub completed: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Attempts that timed out.
    pub timed_out: AtomicU64,
    /// Attempts whose worker was lost.
    pub lost: AtomicU64,
    /// Attempts that were taken or handed back.
    pub released: AtomicU64,
    /// Reports refused, late or foreign.
    pub refused: AtomicU64,
    /// Tasks accepted.
    pub submitted: AtomicU64,
    /// Milliseconds that ended attempts took.
    pub attempt_ms: Histogram,
    /// Tasks that could be claimed at the last look.
    pub ready: AtomicU64,
    /// Workers that wait for tasks, at the last look.
    pub parked: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn committed(&self, requests: usize, took: Duration) {
        self.commit_requests.observe(requests as u64);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.observe(micros);
    }

    pub(crate) fn note(&self, event: &Event) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
        match event {
            Event::TaskSubmitted { .. } => count(&self.submitted),
            Event::TaskAssigned { .. } => count(&self.claims),
            Event::TaskCompleted { ran_ms, .. } => {
                self.attempt_ms.observe(*ran_ms);
                count(&self.completed)
            }
            Event::AttemptEnded { end, ran_ms, .. } => {
                self.attempt_ms.observe(*ran_ms);
                match end {
                    AttemptEnd::Failed => count(&self.failed),
                    AttemptEnd::TimedOut => count(&self.timed_out),
                    AttemptEnd::Lost => count(&self.lost),
                    AttemptEnd::Cancelled => count(&self.released),
                }
            }
            Event::ResultRefused { .. } => count(&self.refused),
            _ => 0,
        };
    }
}
