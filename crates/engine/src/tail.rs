//! The end of the log, kept in memory: what was committed last, as it was written, so that a
//! thousand followers of the log cost one commit no reading and no writing of JSON.
//!
//! Bounded in bytes. Who is further behind reads from the store.

use domain::event::Recorded;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of log kept in memory.
pub const TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Events that follow each other, each with its line of JSON as it stands in the log.
#[derive(Debug, Default)]
pub struct Chunk {
    events: Vec<Recorded>,
    body: Vec<u8>,
    /// Where each line ends: found when somebody follows, so that who commits does not pay for it.
    ends: OnceLock<Vec<usize>>,
}

impl Chunk {
    /// Of events and their lines.
    pub(crate) fn new(events: Vec<Recorded>, body: Vec<u8>) -> Self {
        Self {
            events,
            body,
            ends: OnceLock::new(),
        }
    }

    fn line(&self, n: usize) -> &str {
        let line_end = |(at, byte): (usize, &u8)| (*byte == b'\n').then_some(at);
        let ends = self
            .ends
            .get_or_init(|| self.body.iter().enumerate().filter_map(line_end).collect());
        debug_assert_eq!(ends.len(), self.events.len(), "an event is one line");
        let start = n
            .checked_sub(1)
            .and_then(|before| ends.get(before))
            .map_or(0, |end| end + 1);
        let end = ends.get(n).copied().unwrap_or(start);
        std::str::from_utf8(&self.body[start..end]).unwrap_or_default()
    }

    /// The events after a position, each with its line of JSON.
    pub fn after(&self, position: u64) -> impl Iterator<Item = (&Recorded, &str)> {
        let from = self
            .events
            .partition_point(|recorded| recorded.position <= position);
        (from..self.events.len()).map(|n| (&self.events[n], self.line(n)))
    }

    /// The position of its last event; 0 when it is empty.
    pub fn last(&self) -> u64 {
        self.events.last().map_or(0, |recorded| recorded.position)
    }

    fn first(&self) -> u64 {
        self.events.first().map_or(0, |recorded| recorded.position)
    }
}

#[derive(Debug, Default)]
struct Kept {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

/// What was committed last. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Kept>>);

impl Tail {
    pub(crate) fn push(&self, chunk: Chunk) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += chunk.body.len();
        kept.chunks.push_back(Arc::new(chunk));
        while kept.bytes > TAIL_BYTES_MAX
            && kept.chunks.len() > 1
            && let Some(oldest) = kept.chunks.pop_front()
        {
            kept.bytes -= oldest.body.len();
        }
    }

    /// The chunk that has the event after `position`, if it is still kept.
    pub(crate) fn after(&self, position: u64) -> Option<Arc<Chunk>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.chunks.front()?.first() > position + 1 {
            return None;
        }
        let at = kept
            .chunks
            .partition_point(|chunk| chunk.last() <= position);
        kept.chunks.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::event::Event;
    use domain::name::Name;
    use domain::time::Time;

    fn chunk(first: u64, count: u64, padding: usize) -> Chunk {
        let recorded = |position| Recorded {
            position,
            at: Time(1),
            cause: None,
            by: None,
            event: Event::QueuePaused {
                queue: Name::literal("q"),
            },
        };
        let events: Vec<_> = (first..first + count).map(recorded).collect();
        let line = |event: &Recorded| format!("{}{}\n", event.position, " ".repeat(padding));
        let body: String = events.iter().map(line).collect();
        Chunk::new(events, body.into_bytes())
    }

    #[test]
    fn a_follower_finds_what_comes_next_or_learns_that_it_is_gone() {
        let tail = Tail::default();
        tail.push(chunk(11, 3, 0));
        tail.push(chunk(14, 2, 0));
        assert!(tail.after(9).is_none(), "event 10 was never kept");
        let lines = |position| {
            let chunk = tail.after(position).unwrap();
            let lines = chunk.after(position).map(|(_, line)| line.to_owned());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(lines(10), ["11", "12", "13"]);
        assert_eq!(lines(12), ["13"]);
        assert_eq!(lines(13), ["14", "15"]);
        assert!(tail.after(15).is_none(), "nothing has come yet");
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let tail = Tail::default();
        for n in 0..20 {
            tail.push(chunk(n + 1, 1, TAIL_BYTES_MAX / 8));
        }
        let kept = tail.0.lock().unwrap();
        assert!(kept.bytes <= TAIL_BYTES_MAX);
        assert_eq!(kept.chunks.len(), 7);
    }
}
