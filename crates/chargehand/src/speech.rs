//! What an attempt says while it works, on its way to whoever watches: collected, so that a hundred
//! words are one request, and never waited for, so that a slow server does not slow the work.
//!
//! It is sent 50 ms after the first word or as soon as 4 KiB are together. What finds no room is
//! dropped, the oldest first, and whoever listens is told how much.

use domain::error::Code;
use domain::id::TaskId;
use domain::limits::{NAME_BYTES_MAX, SAID_ARGUMENT_BYTES_MAX, SAID_BYTES_MAX, SAID_PIECES_MAX};
use domain::name::Name;
use protocol::Api;
use protocol::speech::{Said, Say, Utterance};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long a word waits for more.
const LINGER: Duration = Duration::from_millis(50);
/// Bytes that do not wait for more.
const ENOUGH_BYTES: usize = 4 * 1024;
/// Bytes of text in one piece that words are added to.
const PIECE_BYTES: usize = 4 * 1024;
/// Bytes of text that wait to be sent.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// Pieces that wait to be sent.
const WAITING_PIECES_MAX: usize = 4_096;
/// How long the end of an attempt waits for its last words to be heard.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What one attempt says. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Speech(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Utterance>,
    bytes: usize,
    /// Pieces that found no room.
    dropped: u64,
    /// Turns so far.
    turns: u32,
    /// Nothing more is said, or nobody hears it.
    is_over: bool,
    /// Who sends it, from the first word on.
    sender: Option<JoinHandle<()>>,
}

impl Waiting {
    fn say(&mut self, agent: &Name, said: Said) {
        match said {
            Said::Text { turn, mut text } => {
                while text.len() > PIECE_BYTES {
                    let rest = text.split_off(text.floor_char_boundary(PIECE_BYTES));
                    self.push(agent, Said::Text { turn, text });
                    text = rest;
                }
                self.push(agent, Said::Text { turn, text });
            }
            Said::Note { text } => {
                let text = cut(text, PIECE_BYTES);
                self.push(agent, Said::Note { text });
            }
            Said::ToolCall { tool, arguments } => {
                let tool = cut(tool, NAME_BYTES_MAX);
                let arguments = cut(arguments, SAID_ARGUMENT_BYTES_MAX);
                self.push(agent, Said::ToolCall { tool, arguments });
            }
            Said::ToolProgress { tool, text } => {
                let tool = cut(tool, NAME_BYTES_MAX);
                let text = cut(text, SAID_ARGUMENT_BYTES_MAX);
                self.push(agent, Said::ToolProgress { tool, text });
            }
            Said::ToolResult {
                tool,
                succeeded,
                bytes,
            } => {
                let tool = cut(tool, NAME_BYTES_MAX);
                let result = Said::ToolResult {
                    tool,
                    succeeded,
                    bytes,
                };
                self.push(agent, result);
            }
            other => self.push(agent, other),
        }
    }

    fn push(&mut self, agent: &Name, said: Said) {
        if let Said::Text { turn, text } = &said
            && let Some(last) = self.pieces.back_mut()
            && last.agent == *agent
            && let Said::Text {
                turn: same,
                text: words,
            } = &mut last.said
            && turn == same
            && words.len() + text.len() <= PIECE_BYTES
        {
            words.push_str(text);
            self.bytes += text.len();
        } else {
            self.bytes += said.bytes();
            let agent = agent.clone();
            self.pieces.push_back(Utterance { agent, said });
        }
        while self.bytes > WAITING_BYTES_MAX || self.pieces.len() > WAITING_PIECES_MAX {
            let Some(oldest) = self.pieces.pop_front() else {
                break;
            };
            self.bytes -= oldest.said.bytes();
            self.dropped += 1;
        }
    }

    /// What goes into one request.
    fn take(&mut self, worker: &Name) -> Vec<Utterance> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        if self.dropped > 0 {
            let pieces = std::mem::take(&mut self.dropped);
            let agent = self.pieces.front().map_or(worker, |first| &first.agent);
            taken.push(Utterance {
                agent: agent.clone(),
                said: Said::Dropped { pieces },
            });
        }
        while let Some(first) = self.pieces.front() {
            bytes += first.said.bytes();
            if bytes > SAID_BYTES_MAX || taken.len() == SAID_PIECES_MAX {
                break;
            }
            self.bytes -= first.said.bytes();
            taken.extend(self.pieces.pop_front());
        }
        taken
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Whose words they are.
pub(crate) struct Speaker {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) worker: Name,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
}

impl Speech {
    /// Of an attempt that belongs to a run, or of one that nobody could listen to.
    pub(crate) fn new(is_heard: bool) -> Self {
        let waiting = Waiting {
            is_over: !is_heard,
            ..Waiting::default()
        };
        Self(Arc::new(Shared {
            waiting: Mutex::new(waiting),
            wake: Notify::new(),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next turn.
    pub(crate) fn next_turn(&self) -> u32 {
        let mut waiting = self.waiting();
        waiting.turns += 1;
        waiting.turns
    }

    /// Says something; `speaker` is asked for once.
    pub(crate) fn say(&self, agent: &Name, said: Said, speaker: impl FnOnce() -> Speaker) {
        let mut waiting = self.waiting();
        if waiting.is_over {
            return;
        }
        waiting.say(agent, said);
        if waiting.sender.is_none() {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                return;
            };
            let sending = self.clone().send(speaker());
            waiting.sender = Some(runtime.spawn(sending));
        }
        drop(waiting);
        self.0.wake.notify_one();
    }

    async fn send(self, speaker: Speaker) {
        loop {
            self.0.wake.notified().await;
            let is_enough = |waiting: &Waiting| waiting.is_over || waiting.bytes >= ENOUGH_BYTES;
            let until = tokio::time::Instant::now() + LINGER;
            while !is_enough(&self.waiting()) {
                let more = self.0.wake.notified();
                if tokio::time::timeout_at(until, more).await.is_err() {
                    break;
                }
            }
            loop {
                let (pieces, is_over) = {
                    let mut waiting = self.waiting();
                    (waiting.take(&speaker.worker), waiting.is_over)
                };
                if pieces.is_empty() {
                    if is_over {
                        return;
                    }
                    break;
                }
                let count = pieces.len() as u64;
                let say = Say {
                    task_id: speaker.task,
                    attempt: speaker.attempt,
                    pieces,
                };
                let Err(error) = speaker.api.task_say(speaker.worker.clone(), say).await else {
                    continue;
                };
                let mut waiting = self.waiting();
                if error.code == Code::AttemptStale {
                    // Nobody hears this attempt any more.
                    waiting.is_over = true;
                    (waiting.pieces, waiting.dropped) = (VecDeque::new(), 0);
                    return;
                }
                // It may have been heard, so it is not said again.
                waiting.dropped += count;
                if waiting.is_over || !error.code.retryable() {
                    waiting.is_over = true;
                    return;
                }
                break;
            }
        }
    }

    /// Sees to it that the last words are heard, for a second at most.
    pub(crate) async fn finish(&self) {
        let sender = {
            let mut waiting = self.waiting();
            waiting.is_over = true;
            waiting.sender.take()
        };
        let Some(mut sender) = sender else { return };
        self.0.wake.notify_one();
        if tokio::time::timeout(LAST_WORDS, &mut sender).await.is_err() {
            sender.abort();
        }
    }
}

/// An attempt that speaks: with it, nobody speaks any more.
pub(crate) struct Speaking(pub(crate) Speech);

impl Drop for Speaking {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.is_over = true;
        if let Some(sender) = waiting.sender.take() {
            sender.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(turn: u32, text: &str) -> Said {
        let text = text.to_owned();
        Said::Text { turn, text }
    }

    fn texts(taken: &[Utterance]) -> Vec<&str> {
        let texts = taken.iter().filter_map(|piece| match &piece.said {
            Said::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn words_of_one_turn_are_one_piece_and_others_are_not_mixed_in() {
        let (ann, bob) = (Name::literal("ann"), Name::literal("bob"));
        let mut waiting = Waiting::default();
        for word in ["a", "b", "c"] {
            waiting.say(&ann, text(1, word));
        }
        waiting.say(&bob, text(1, "d"));
        waiting.say(&bob, text(2, "e"));
        waiting.say(
            &bob,
            Said::TurnEnded {
                turn: 2,
                whole: true,
            },
        );
        waiting.say(&bob, text(3, "f"));
        let taken = waiting.take(&ann);
        assert_eq!(texts(&taken), ["abc", "d", "e", "f"]);
        assert_eq!(taken.len(), 5);
        assert_eq!((waiting.bytes, waiting.take(&ann).len()), (0, 0));
    }

    #[test]
    fn a_flood_is_cut_into_requests_and_what_finds_no_room_is_counted() {
        let ann = Name::literal("ann");
        let mut waiting = Waiting::default();
        let long = "ä".repeat(WAITING_BYTES_MAX);
        waiting.say(&ann, text(1, &long));
        assert!(waiting.bytes <= WAITING_BYTES_MAX);
        let all = long.len().div_ceil(PIECE_BYTES);
        let mut pieces = 0;
        let mut dropped = 0;
        loop {
            let taken = waiting.take(&ann);
            if taken.is_empty() {
                break;
            }
            let say = Say {
                task_id: TaskId::new(1),
                attempt: 1,
                pieces: taken,
            };
            say.check().unwrap();
            for piece in say.pieces {
                match piece.said {
                    Said::Dropped { pieces } => dropped += pieces,
                    _ => pieces += 1,
                }
            }
        }
        assert_eq!(pieces + dropped as usize, all);
        assert!(dropped > 0);
        for n in 0..2 * WAITING_PIECES_MAX as u32 {
            waiting.say(&ann, text(n, "x"));
        }
        assert_eq!(waiting.pieces.len(), WAITING_PIECES_MAX);
        assert_eq!(waiting.dropped, WAITING_PIECES_MAX as u64);
    }

    #[test]
    fn arguments_are_cut_to_what_may_be_shown() {
        let ann = Name::literal("ann");
        let mut waiting = Waiting::default();
        let call = Said::ToolCall {
            tool: "t".repeat(1_000),
            arguments: "ä".repeat(SAID_ARGUMENT_BYTES_MAX),
        };
        waiting.say(&ann, call);
        let say = Say {
            task_id: TaskId::new(1),
            attempt: 1,
            pieces: waiting.take(&ann),
        };
        say.check().unwrap();
        let Said::ToolCall { arguments, .. } = &say.pieces[0].said else {
            panic!();
        };
        assert_eq!(arguments.len(), SAID_ARGUMENT_BYTES_MAX);
    }
}
