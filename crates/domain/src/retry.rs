//! When a failed task is tried again: exponential backoff with jitter, bounded in number and time.

use crate::error::{Code, Error};
use crate::id::Ids;
use crate::limits::{ATTEMPTS_MAX, BACKOFF_MS_MAX};
use serde::{Deserialize, Serialize};

/// How often and how late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. 1 means no retry.
    pub attempts: u32,
    /// Milliseconds before the second attempt.
    pub backoff_ms: u64,
    /// Each wait is this many hundredths of the one before: 200 doubles.
    pub factor_percent: u32,
    /// No wait is longer, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for RetryPolicy {
    /// Three attempts, 1 s and 2 s apart, before jitter.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff_ms: 1_000,
            factor_percent: 200,
            backoff_max_ms: 60_000,
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub const NEVER: Self = Self {
        attempts: 1,
        backoff_ms: 0,
        factor_percent: 100,
        backoff_max_ms: 0,
    };

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Code::OutOfRange`] naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let fault = if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            format!(
                "retry.attempts is {}; use 1 to {ATTEMPTS_MAX}",
                self.attempts
            )
        } else if self.backoff_ms > BACKOFF_MS_MAX || self.backoff_max_ms > BACKOFF_MS_MAX {
            format!("retry waits of more than {BACKOFF_MS_MAX} ms are not allowed")
        } else if !(100..=1_000).contains(&self.factor_percent) {
            format!(
                "retry.factor_percent is {}; use 100 to 1000",
                self.factor_percent
            )
        } else {
            return Ok(());
        };
        Err(Error::new(Code::OutOfRange, fault))
    }

    /// Milliseconds to wait after the `failures`-th failure (1, 2, …), or `None` when that was the
    /// last attempt.
    ///
    /// Half of the wait is certain and half is chance ("equal jitter"), so that a crowd that failed
    /// together does not come back together, and yet nobody comes back at once.
    pub fn wait_ms(&self, failures: u32, ids: &mut dyn Ids) -> Option<u64> {
        if failures >= self.attempts {
            return None;
        }
        let full = self.full_wait_ms(failures);
        Some(full - full / 2 + ids.chance(full / 2 + 1))
    }

    fn full_wait_ms(&self, failures: u32) -> u64 {
        let mut wait = u128::from(self.backoff_ms);
        for _ in 1..failures {
            wait = wait * u128::from(self.factor_percent) / 100;
            if wait >= u128::from(self.backoff_max_ms) {
                break;
            }
        }
        wait.min(u128::from(self.backoff_max_ms)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CountedIds;

    #[test]
    fn waits_double_up_to_the_bound_and_jitter_halves_at_most() {
        let policy = RetryPolicy {
            attempts: 6,
            backoff_ms: 1_000,
            factor_percent: 200,
            backoff_max_ms: 5_000,
        };
        let full: Vec<u64> = (1..6).map(|n| policy.full_wait_ms(n)).collect();
        assert_eq!(full, [1_000, 2_000, 4_000, 5_000, 5_000]);
        let mut ids = CountedIds::new(1);
        for (failures, full) in (1..6).zip(full) {
            for _ in 0..200 {
                let wait = policy.wait_ms(failures, &mut ids).unwrap();
                assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
            }
        }
        assert_eq!(policy.wait_ms(6, &mut ids), None);
    }

    #[test]
    fn one_attempt_means_no_retry() {
        assert_eq!(RetryPolicy::NEVER.wait_ms(1, &mut CountedIds::new(1)), None);
    }

    #[test]
    fn ranges_are_enforced() {
        let ok = RetryPolicy::default();
        assert!(ok.check().is_ok());
        for bad in [
            RetryPolicy { attempts: 0, ..ok },
            RetryPolicy {
                attempts: 101,
                ..ok
            },
            RetryPolicy {
                backoff_ms: 86_400_001,
                ..ok
            },
            RetryPolicy {
                backoff_max_ms: 86_400_001,
                ..ok
            },
            RetryPolicy {
                factor_percent: 99,
                ..ok
            },
            RetryPolicy {
                factor_percent: 1_001,
                ..ok
            },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::OutOfRange);
        }
    }
}
