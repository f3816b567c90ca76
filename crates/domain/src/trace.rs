//! Where a piece of work stands in a distributed trace: the `traceparent` of W3C Trace Context,
//! version 00 (<https://www.w3.org/TR/trace-context/>).
//!
//! A submitter may bring one. Who brings none gets ids derived from the run's or task's own id, so
//! that every process that knows the id knows the trace, and a restart changes nothing.

use crate::error::{Code, Error};
use crate::id::{RunId, TaskId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// A trace and a span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// Whether whoever began it records it.
    pub sampled: bool,
}

/// What a span is about, so that one id gives several spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOf {
    /// A run as a whole.
    Run,
    /// A task, from its submission to its end.
    Task,
    /// One attempt of a task.
    Attempt(u32),
    /// What a run or task did after it had ended and was taken up again, by the position of the event
    /// that says so: a span ends once.
    Again(u64),
}

impl TraceParent {
    /// The span of a run, task or attempt with this id, in the trace `of` (or, when there is none,
    /// in the trace that this id is).
    ///
    /// ```
    /// use domain::trace::{SpanOf, TraceParent};
    /// let run = TraceParent::derived(7, SpanOf::Run, None);
    /// let task = TraceParent::derived(9, SpanOf::Task, Some(run));
    /// assert_eq!(task.trace, run.trace);
    /// assert_ne!(task.span, run.span);
    /// assert_eq!(task, TraceParent::derived(9, SpanOf::Task, Some(run)));
    /// ```
    pub fn derived(id: u128, what: SpanOf, of: Option<Self>) -> Self {
        let salt: u64 = match what {
            SpanOf::Run => 1,
            SpanOf::Task => 2,
            SpanOf::Attempt(n) => 3 + u64::from(n),
            // Beyond every attempt.
            SpanOf::Again(position) => (1 << 63) | position,
        };
        let span = crate::command::fnv(&[&id.to_be_bytes(), &salt.to_be_bytes()]);
        Self {
            trace: of.map_or(id, |of| of.trace).max(1),
            span: span.max(1),
            sampled: of.is_none_or(|of| of.sampled),
        }
    }
}

/// Where the spans of one task belong, as far as it is known when the task is submitted.
///
/// Below the run's span, or the submitter's, is the task's; below that are those of its attempts; and
/// whoever works on an attempt hangs spans of its own below the attempt's.
///
/// ```
/// use domain::id::{RunId, TaskId};
/// use domain::trace::{Lineage, SpanOf, TraceParent};
/// let lineage = Lineage { task: TaskId::new(9), run: Some(RunId::new(7)), trace: None };
/// assert_eq!(lineage.parent(), Some(TraceParent::derived(7, SpanOf::Run, None)));
/// assert_eq!(lineage.attempt(1).trace, lineage.of_task().trace);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// The task.
    pub task: TaskId,
    /// The run it is of.
    pub run: Option<RunId>,
    /// The span it was submitted with: its submitter's, or its run's when that has a starter's.
    pub trace: Option<TraceParent>,
}

impl Lineage {
    /// The span above the task's; none when the task is the top of its trace.
    pub fn parent(&self) -> Option<TraceParent> {
        let of_run = |run: RunId| TraceParent::derived(run.0, SpanOf::Run, None);
        self.trace.or_else(|| self.run.map(of_run))
    }

    /// The task's span.
    pub fn of_task(&self) -> TraceParent {
        TraceParent::derived(self.task.0, SpanOf::Task, self.parent())
    }

    /// The span of one attempt, as its worker is told.
    pub fn attempt(&self, n: u32) -> TraceParent {
        TraceParent::derived(self.task.0, SpanOf::Attempt(n), self.parent())
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

impl FromStr for TraceParent {
    type Err = Error;

    /// Reads version 00; of a later version, what version 00 has.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
            Error::new(
                Code::OutOfRange,
                format!("“{shown}” is not a W3C traceparent"),
            )
            .hint("It looks like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.")
        };
        let hex = |text: &str, digits: usize| {
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            (text.len() == digits && text.bytes().all(lower))
                .then(|| u128::from_str_radix(text, 16).ok())
                .flatten()
        };
        let mut parts = text.splitn(5, '-');
        let mut part = |digits| parts.next().and_then(|text| hex(text, digits));
        let (version, trace, span, flags) = (part(2), part(32), part(16), part(2));
        let rest = parts.next();
        match (version, trace, span, flags) {
            (Some(version), Some(trace), Some(span), Some(flags))
                if version != 0xff
                    && trace != 0
                    && span != 0
                    && (version > 0 || rest.is_none()) =>
            {
                Ok(Self {
                    trace,
                    span: span as u64,
                    sampled: flags & 1 == 1,
                })
            }
            _ => Err(malformed()),
        }
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_every_span_of_a_task_once() {
        let starter: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
            .parse()
            .unwrap();
        let (task, run) = (TaskId::new(90), RunId::new(70));
        let of_run = TraceParent::derived(70, SpanOf::Run, Some(starter));
        for (run, trace, parent, whole) in [
            // Alone, it is a trace of its own.
            (None, None, None, 90),
            (None, Some(starter), Some(starter), starter.trace),
            (
                Some(run),
                None,
                Some(TraceParent::derived(70, SpanOf::Run, None)),
                70,
            ),
            (Some(run), Some(of_run), Some(of_run), starter.trace),
        ] {
            let lineage = Lineage { task, run, trace };
            assert_eq!(lineage.parent(), parent);
            let mut spans: Vec<_> = (1..100).map(|n| lineage.attempt(n)).collect();
            spans.push(lineage.of_task());
            spans.extend(parent);
            let again = |n| TraceParent::derived(90, SpanOf::Again(n), parent);
            spans.extend((1..100).map(again));
            assert!(spans.iter().all(|span| span.trace == whole));
            // Who began a trace says whether it is recorded.
            let sampled = trace.is_none();
            assert!(spans.iter().all(|span| span.sampled == sampled));
            let mut ids: Vec<_> = spans.iter().map(|span| span.span).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), spans.len());
        }
    }

    #[test]
    fn a_traceparent_reads_as_the_standard_says() {
        // The example of the standard, section 3.2.2.5.
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read: TraceParent = text.parse().unwrap();
        assert_eq!(read.span, 0x00f0_67aa_0ba9_02b7);
        assert!(read.sampled);
        assert_eq!(read.to_string(), text);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(
                bad.parse::<TraceParent>().unwrap_err().code,
                Code::OutOfRange,
                "{bad}"
            );
        }
    }
}
