//! Arithmetic over samples, and what the system says about this process.

use domain::error::{Code, Error};
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What the system says about a file, as the domain's error.
pub(crate) fn io(what: &str, fault: &std::io::Error) -> Error {
    Error::new(Code::StoreIo, format!("{what}: {fault}"))
}

/// The middle of the values, the mean of the two middle ones when their number is even. 0 for none.
///
/// ```
/// assert_eq!(bench::measure::median(&[3.0, 1.0, 2.0, 10.0]), 2.5);
/// ```
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// How far apart the values are: (highest - lowest) / median. 0 for none.
pub fn spread(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match (sorted.first(), sorted.last(), median(values)) {
        (Some(low), Some(high), middle) if middle > 0.0 => (high - low) / middle,
        _ => 0.0,
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Percentiles of what was measured, each by nearest rank: a value that occurred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are not above it.
    pub p50: f64,
    /// 95 of 100 are not above it.
    pub p95: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
}

impl Percentiles {
    /// Of these values; `None` for none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let last = sorted.len().checked_sub(1)?;
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted[rank.saturating_sub(1).min(last)]
        };
        Some(Self {
            p50: at(50),
            p95: at(95),
            p99: at(99),
        })
    }
}

/// Microseconds.
pub(crate) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Processor time of all threads of this process so far.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// A process as the system shows it: this one, or one that was started to be measured. Every answer
/// is `None` where the system does not tell.
#[derive(Debug, Clone)]
pub(crate) struct Shown(PathBuf);

impl Shown {
    /// This process.
    pub(crate) fn own() -> Self {
        Self("/proc/self".into())
    }

    /// Another.
    pub(crate) fn of(process: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{process}")))
    }

    /// Processor time of all its threads so far, in ticks of the system: hundredths of a second.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(self.0.join("stat")).ok()?;
        // The second field is a name in parentheses, which may have anything in it.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()? + ticks()?;
        Some(Duration::from_secs(ticks) / clock_ticks_per_second() as u32)
    }

    /// Processor time so far of its threads of this name that are alive.
    pub(crate) fn thread_cpu(&self, name: &str) -> Option<Duration> {
        let mut sum = Duration::ZERO;
        for thread in std::fs::read_dir(self.0.join("task")).ok()? {
            let thread = thread.ok()?.path();
            let comm = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if comm.trim() == name {
                let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
                sum += Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?);
            }
        }
        Some(sum)
    }

    /// Bytes of memory, from a line of its status.
    fn memory(&self, line: &str) -> Option<u64> {
        let text = std::fs::read_to_string(self.0.join("status")).ok()?;
        let line = text.lines().find_map(|found| found.strip_prefix(line))?;
        let kib: u64 = line
            .trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        Some(kib * 1024)
    }

    /// Bytes resident now.
    pub(crate) fn rss(&self) -> Option<u64> {
        self.memory("VmRSS")
    }

    /// Most bytes resident since [`reset_peak`](Self::reset_peak).
    pub(crate) fn rss_peak(&self) -> Option<u64> {
        self.memory("VmHWM")
    }

    /// Begins a new peak. Where that is not possible the peak is that of its whole life.
    pub(crate) fn reset_peak(&self) {
        let _ = std::fs::write(self.0.join("clear_refs"), "5");
    }
}

/// As [`Shown::thread_cpu`], of this process.
pub(crate) fn thread_cpu(name: &str) -> Option<Duration> {
    Shown::own().thread_cpu(name)
}

/// Bytes resident now in this process.
pub(crate) fn rss() -> Option<u64> {
    Shown::own().rss()
}

/// Most bytes resident in this process since [`reset_peak`].
pub(crate) fn rss_peak() -> Option<u64> {
    Shown::own().rss_peak()
}

/// As [`Shown::reset_peak`], of this process.
pub(crate) fn reset_peak() {
    Shown::own().reset_peak();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(Percentiles::of(&[]), None);
        let one = Percentiles::of(&[3.0]).unwrap();
        assert_eq!((one.p50, one.p95, one.p99), (3.0, 3.0, 3.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let all = Percentiles::of(&hundred).unwrap();
        assert_eq!((all.p50, all.p95, all.p99), (50.0, 95.0, 99.0));
        let three = Percentiles::of(&[10.0, 20.0, 30.0]).unwrap();
        assert_eq!((three.p50, three.p95, three.p99), (20.0, 30.0, 30.0));
    }

    #[test]
    fn spread_is_relative_to_the_median() {
        assert_eq!(spread(&[]), 0.0);
        assert_eq!(spread(&[5.0]), 0.0);
        assert_eq!(spread(&[8.0, 10.0, 12.0]), 0.4);
    }
}
