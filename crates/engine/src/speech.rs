//! What agents say while they work, for whoever watches: one stream for each run, in memory.
//!
//! Nothing of it is in the log: an answer's words are many, and what they come to is in the task. So a
//! stream is bounded instead: the oldest pieces go when there are too many, whole streams go when
//! there are too many runs, and a reader that missed something is told how much. A reader is pulled
//! along by its own pace; nothing is queued for it.

use domain::id::RunId;
use domain::limits::{
    SAID_BYTES_MAX, SAID_PIECES_MAX, STREAM_BYTES_MAX, STREAM_KEPT_MS, STREAM_PIECES_MAX,
    STREAMS_MAX,
};
use domain::time::Time;
use protocol::speech::{Cursor, Heard, Piece, Say};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A run's stream.
#[derive(Debug)]
struct Stream {
    id: u64,
    pieces: VecDeque<Piece>,
    /// Of text in them.
    bytes: usize,
    /// Of the last piece that was said.
    position: u64,
    said: Time,
    ended: Option<Time>,
}

impl Stream {
    fn push(&mut self, piece: Piece) {
        self.bytes += piece.said.bytes();
        self.position = piece.position;
        self.pieces.push_back(piece);
        while self.pieces.len() > STREAM_PIECES_MAX || self.bytes > STREAM_BYTES_MAX {
            let Some(oldest) = self.pieces.pop_front() else {
                break;
            };
            self.bytes -= oldest.said.bytes();
        }
    }

    /// What comes after a cursor.
    fn after(&self, cursor: Option<Cursor>, ended: bool) -> Heard {
        let own = |cursor: &Cursor| cursor.stream == self.id && cursor.position <= self.position;
        let anew = cursor.as_ref().is_some_and(|cursor| !own(cursor));
        let after = cursor.filter(own).map_or(0, |cursor| cursor.position);
        // The last is always kept, unless it alone is too large.
        let first = self
            .pieces
            .front()
            .map_or(self.position + 1, |piece| piece.position);
        let skipped = (after + 1).saturating_sub(first) as usize;
        let mut bytes = 0;
        let fits = |piece: &&Piece| {
            bytes += piece.said.bytes();
            bytes <= SAID_BYTES_MAX
        };
        let rest = self.pieces.iter().skip(skipped).take(SAID_PIECES_MAX);
        let pieces: Vec<Piece> = rest.take_while(fits).cloned().collect();
        let lost = first.saturating_sub(after + 1);
        let position = pieces.last().map_or(after + lost, |piece| piece.position);
        Heard {
            anew,
            lost,
            ended: ended && position == self.position,
            next: Some(Cursor {
                stream: self.id,
                position,
            }),
            pieces,
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    streams: HashMap<RunId, Stream>,
    /// Who waits for which run, and how many.
    listening: HashMap<RunId, (usize, Arc<Notify>)>,
    /// Streams so far.
    count: u64,
}

impl Content {
    /// Makes room for one more stream.
    fn make_room(&mut self, now: Time) {
        let over = |stream: &Stream| {
            stream
                .ended
                .is_some_and(|at| now.since_ms(at) > STREAM_KEPT_MS)
        };
        self.streams.retain(|_, stream| !over(stream));
        while self.streams.len() >= STREAMS_MAX {
            let first = self.streams.iter().min_by_key(|(run, stream)| {
                // Those that ended go first.
                (
                    stream.ended.is_none(),
                    stream.ended.unwrap_or(stream.said),
                    **run,
                )
            });
            let Some(run) = first.map(|(run, _)| *run) else {
                return;
            };
            self.streams.remove(&run);
        }
    }
}

/// The streams of all runs. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speech(Arc<Mutex<Content>>);

/// Somebody who waits for a run's agents to say something, until it is dropped.
pub(crate) struct Listening {
    speech: Speech,
    run: RunId,
    pub(crate) wake: Arc<Notify>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut content = self.speech.content();
        if let Some((count, _)) = content.listening.get_mut(&self.run) {
            *count -= 1;
            if *count == 0 {
                content.listening.remove(&self.run);
            }
        }
    }
}

impl Speech {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what an attempt says to the stream of its run.
    pub(crate) fn say(&self, run: RunId, say: Say, now: Time) {
        let mut content = self.content();
        if !content.streams.contains_key(&run) {
            content.make_room(now);
            content.count += 1;
            // Another process, a millisecond later at the earliest, has other numbers.
            let id = now.0 << 20 | content.count & 0xf_ffff;
            let stream = Stream {
                id,
                pieces: VecDeque::new(),
                bytes: 0,
                position: 0,
                said: now,
                ended: None,
            };
            content.streams.insert(run, stream);
        }
        if let Some(stream) = content.streams.get_mut(&run) {
            // A run that was reopened goes on.
            (stream.said, stream.ended) = (now, None);
            for utterance in say.pieces {
                stream.push(Piece {
                    position: stream.position + 1,
                    task_id: say.task_id,
                    attempt: say.attempt,
                    agent: utterance.agent,
                    said: utterance.said,
                });
            }
        }
        if let Some((_, wake)) = content.listening.get(&run) {
            wake.notify_waiters();
        }
    }

    /// A run has ended: who waits shall know, and its stream is kept only a while longer.
    pub(crate) fn end(&self, run: RunId, now: Time) {
        let mut content = self.content();
        if let Some(stream) = content.streams.get_mut(&run) {
            stream.ended = Some(now);
        }
        if let Some((_, wake)) = content.listening.get(&run) {
            wake.notify_waiters();
        }
    }

    /// Waits for what comes.
    pub(crate) fn listen(&self, run: RunId) -> Listening {
        let mut content = self.content();
        let (count, wake) = content.listening.entry(run).or_default();
        *count += 1;
        Listening {
            speech: self.clone(),
            run,
            wake: Arc::clone(wake),
        }
    }

    /// What was said after a cursor, of a run that has `ended` or not.
    pub(crate) fn hear(&self, run: RunId, after: Option<Cursor>, ended: bool) -> Heard {
        match self.content().streams.get(&run) {
            Some(stream) => stream.after(after, ended),
            None => Heard {
                anew: false,
                lost: 0,
                pieces: Vec::new(),
                next: after,
                ended,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::TaskId;
    use domain::name::Name;
    use protocol::speech::{Said, Utterance};

    fn say(texts: &[&str]) -> Say {
        let piece = |text: &&str| Utterance {
            agent: Name::literal("ann"),
            said: Said::Text {
                turn: 1,
                text: (*text).to_owned(),
            },
        };
        Say {
            task_id: TaskId::new(1),
            attempt: 1,
            pieces: texts.iter().map(piece).collect(),
        }
    }

    fn positions(heard: &Heard) -> Vec<u64> {
        heard.pieces.iter().map(|piece| piece.position).collect()
    }

    #[test]
    fn a_flood_keeps_the_newest_and_says_how_much_is_gone() {
        let (speech, run) = (Speech::default(), RunId::new(1));
        speech.say(run, say(&["first"]), Time(1));
        let begin = speech.hear(run, None, false);
        assert_eq!((begin.lost, positions(&begin)), (0, vec![1]));
        let said = 10 * STREAM_PIECES_MAX;
        for _ in 0..said {
            speech.say(run, say(&["x"]), Time(2));
        }
        assert_eq!(
            speech.content().streams[&run].pieces.len(),
            STREAM_PIECES_MAX
        );
        let mut heard = speech.hear(run, begin.next, false);
        assert_eq!(heard.lost, (said - STREAM_PIECES_MAX) as u64);
        assert!(!heard.anew);
        // From there on nothing is missing, and the loss is told once.
        let mut next = heard.pieces[0].position;
        assert_eq!(next, heard.lost + 2);
        while !heard.pieces.is_empty() {
            assert!(heard.pieces.len() <= SAID_PIECES_MAX);
            for position in positions(&heard) {
                assert_eq!(position, next);
                next += 1;
            }
            heard = speech.hear(run, heard.next, false);
            assert_eq!(heard.lost, 0);
        }
        assert_eq!(next, said as u64 + 2);
    }

    #[test]
    fn large_words_are_bounded_by_their_bytes() {
        let (speech, run) = (Speech::default(), RunId::new(1));
        let large = "x".repeat(SAID_BYTES_MAX / 2);
        for _ in 0..100 {
            speech.say(run, say(&[&large]), Time(1));
        }
        let bytes = speech.content().streams[&run].bytes;
        assert!(bytes <= STREAM_BYTES_MAX && bytes > STREAM_BYTES_MAX - large.len());
        // An answer has about as much as a request may, and the next goes on from there.
        let heard = speech.hear(run, None, false);
        assert_eq!(heard.pieces.len(), 2);
        let more = speech.hear(run, heard.next, false);
        assert_eq!((more.lost, positions(&more)), (0, vec![95, 96]));
    }

    #[test]
    fn streams_are_bounded_and_the_ended_go_first() {
        let speech = Speech::default();
        for n in 1..=STREAMS_MAX as u128 {
            speech.say(RunId::new(n), say(&["x"]), Time(n as u64));
        }
        speech.end(RunId::new(7), Time(1_000));
        let has = |n| speech.content().streams.contains_key(&RunId::new(n));
        speech.say(RunId::new(10_001), say(&["x"]), Time(1_001));
        assert!(!has(7) && has(1));
        // Of those that go on, the one that was silent longest.
        speech.say(RunId::new(1), say(&["y"]), Time(1_002));
        speech.say(RunId::new(10_002), say(&["x"]), Time(1_003));
        assert!(has(1) && !has(2));
        assert_eq!(speech.content().streams.len(), STREAMS_MAX);
        // Some time after its end nobody comes back for it.
        speech.end(RunId::new(3), Time(2_000));
        speech.end(RunId::new(4), Time(2_001));
        speech.say(
            RunId::new(10_003),
            say(&["x"]),
            Time(2_001 + STREAM_KEPT_MS),
        );
        assert!(!has(3) && has(4));
    }

    #[test]
    fn a_stream_that_begins_anew_says_so() {
        let (speech, run) = (Speech::default(), RunId::new(1));
        speech.say(run, say(&["a", "b"]), Time(1));
        let before = speech.hear(run, None, false);
        let restarted = Speech::default();
        // As long as nothing was said, there is nothing to tell.
        let quiet = restarted.hear(run, before.next, false);
        assert_eq!((quiet.anew, quiet.next), (false, before.next));
        restarted.say(run, say(&["c"]), Time(2));
        let heard = restarted.hear(run, before.next, true);
        assert_eq!(
            (heard.anew, heard.lost, positions(&heard)),
            (true, 0, vec![1])
        );
        assert!(heard.ended);
        assert_ne!(heard.next.unwrap().stream, before.next.unwrap().stream);
    }

    #[test]
    fn who_listens_is_forgotten_with_its_wait() {
        let (speech, run) = (Speech::default(), RunId::new(1));
        let (one, two) = (speech.listen(run), speech.listen(run));
        drop(one);
        assert_eq!(speech.content().listening.len(), 1);
        drop(two);
        assert_eq!(speech.content().listening.len(), 0);
    }
}
