//! What agents say, on a terminal: of each task, the words that came last.
//!
//! Words come from models, and a terminal obeys what it is sent: nothing that does not print is let
//! through.

use crate::reach::is_away;
use agent::gate::NO_ANSWER;
use domain::error::Error;
use domain::id::{RunId, TaskId};
use domain::name::Name;
use protocol::ApiRead;
use protocol::speech::{Heard, Piece, Said};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How long a listener waits before it asks again.
const WAIT: Duration = Duration::from_secs(20);
/// Between two looks whether a server is back.
const PAUSE: Duration = Duration::from_millis(250);
/// Characters of the words that are shown of one agent, its name included.
const SHOWN: usize = 50;

/// Hears everything that is said in a run, until it ends.
///
/// # Errors
/// The contract's own; that a server is away is none.
pub(crate) async fn hear(
    api: &dyn ApiRead,
    run: RunId,
    mut take: impl FnMut(Heard),
) -> Result<(), Error> {
    let mut after = None;
    loop {
        match api.run_stream(run, after, WAIT).await {
            Ok(heard) => {
                after = heard.next;
                let ended = heard.ended;
                take(heard);
                if ended {
                    return Ok(());
                }
            }
            Err(error) if is_away(api, &error) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Words as a terminal may be given them, in as many lines as they have.
pub(crate) fn plain(text: &str) -> String {
    let prints = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().filter(prints).collect()
}

/// What is said of a call.
pub(crate) fn deed(said: &Said) -> Option<String> {
    Some(match said {
        Said::ToolCall { tool, arguments } => format!("{tool} {arguments}"),
        Said::ToolProgress { tool, text } => format!("{tool}: {text}"),
        Said::ToolResult {
            tool,
            succeeded: true,
            bytes,
        } => format!("{tool} gave {bytes} bytes"),
        Said::ToolResult { tool, .. } => format!("{tool} failed"),
        Said::Note { text } => text.clone(),
        _ => return None,
    })
}

/// The words that came last, of one task.
#[derive(Debug)]
struct Now {
    agent: Name,
    attempt: u32,
    words: String,
}

/// Why an answer is late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    /// Whose.
    pub(crate) task: TaskId,
    /// In words.
    pub(crate) why: String,
    /// When this was heard.
    pub(crate) heard: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    now: Mutex<HashMap<TaskId, Now>>,
    /// What was heard last and is not told yet.
    late: Mutex<Option<Late>>,
    news: Notify,
}

/// The words that came last, of each task. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spoken(Arc<Shared>);

impl Spoken {
    fn now(&self) -> MutexGuard<'_, HashMap<TaskId, Now>> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lateness(&self) -> MutexGuard<'_, Option<Late>> {
        self.0.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an answer is late, if one is and that was not given out before.
    pub(crate) fn late(&self) -> Option<Late> {
        self.lateness().take()
    }

    /// An answer of this task is late.
    pub(crate) fn is_late(&self, task: TaskId, why: &str) {
        *self.lateness() = Some(Late {
            task,
            why: plain(why),
            heard: Instant::now(),
        });
    }

    /// Listens to these runs for as long as what is given back lives.
    pub(crate) fn listen(&self, api: &Arc<dyn ApiRead>, runs: &[RunId]) -> JoinSet<()> {
        let mut listening = JoinSet::new();
        for run in runs.iter().copied() {
            let (api, spoken) = (Arc::clone(api), self.clone());
            listening.spawn(async move {
                // A server that has no streams shows everything else all the same.
                let _ = hear(&*api, run, |heard| spoken.take(&heard)).await;
            });
        }
        listening
    }

    /// Until there is something new.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    fn take(&self, heard: &Heard) {
        let mut now = self.now();
        if heard.anew {
            now.clear();
        }
        for piece in &heard.pieces {
            told(&mut now, piece);
            match &piece.said {
                Said::Note { text } => {
                    if let Some(why) = text.strip_prefix(NO_ANSWER) {
                        self.is_late(piece.task_id, why);
                    }
                }
                // It is late no more.
                Said::Text { .. } | Said::TurnEnded { whole: true, .. } => {
                    self.lateness().take_if(|late| late.task == piece.task_id);
                }
                _ => {}
            }
        }
        if !heard.pieces.is_empty() {
            self.0.news.notify_one();
        }
    }

    /// The task is in nobody's hands any more.
    pub(crate) fn forget(&self, task: TaskId) {
        self.now().remove(&task);
        self.lateness().take_if(|late| late.task == task);
    }

    /// Who says what in this task now, in one short line.
    pub(crate) fn line(&self, task: TaskId) -> Option<String> {
        let all = self.now();
        let now = all.get(&task)?;
        let agent: String = plain(&now.agent).chars().take(SHOWN / 2).collect();
        let words = now.words.split_whitespace().collect::<Vec<_>>().join(" ");
        let (room, has) = (SHOWN - agent.chars().count(), words.chars().count());
        if words.is_empty() {
            return Some(format!("{agent} thinks"));
        }
        if has <= room {
            return Some(format!("{agent} › {words}"));
        }
        let last: String = words.chars().skip(has - (room - 1)).collect();
        Some(format!("{agent} › …{last}"))
    }
}

fn told(all: &mut HashMap<TaskId, Now>, piece: &Piece) {
    let now = all.entry(piece.task_id).or_insert_with(|| Now {
        agent: piece.agent.clone(),
        attempt: piece.attempt,
        words: String::new(),
    });
    if piece.attempt < now.attempt {
        return;
    }
    if now.attempt != piece.attempt || now.agent != piece.agent {
        (now.attempt, now.agent) = (piece.attempt, piece.agent.clone());
        now.words.clear();
    }
    match &piece.said {
        Said::TurnBegan { .. } | Said::TurnEnded { whole: false, .. } => now.words.clear(),
        Said::Text { text, .. } => {
            now.words.push_str(&plain(text));
            // The end is what is shown; white space does not count.
            let keep = 8 * SHOWN;
            if now.words.len() > 2 * keep {
                let from = now.words.ceil_char_boundary(now.words.len() - keep);
                now.words.drain(..from);
            }
        }
        Said::TurnEnded { .. } | Said::Dropped { .. } => {}
        deed_of @ (Said::ToolCall { .. }
        | Said::ToolProgress { .. }
        | Said::ToolResult { .. }
        | Said::Note { .. }) => {
            let text = deed(deed_of).unwrap_or_default();
            now.words = plain(&text).chars().take(4 * SHOWN).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(task: u128, agent: &'static str, attempt: u32, said: Said) -> Piece {
        Piece {
            position: 1,
            task_id: TaskId::new(task),
            attempt,
            agent: Name::literal(agent),
            said,
        }
    }

    fn text(turn: u32, text: &str) -> Said {
        let text = text.to_owned();
        Said::Text { turn, text }
    }

    fn take(spoken: &Spoken, pieces: Vec<Piece>) {
        spoken.take(&Heard {
            anew: false,
            lost: 0,
            pieces,
            next: None,
            ended: false,
        });
    }

    fn line(spoken: &Spoken, task: u128) -> String {
        spoken.line(TaskId::new(task)).unwrap_or_default()
    }

    #[test]
    fn several_agents_at_once_have_a_line_each_with_their_last_words() {
        let spoken = Spoken::default();
        let long = "The order was sent on Monday and will be there on Thursday.";
        take(
            &spoken,
            vec![
                piece(1, "ann", 1, Said::TurnBegan { turn: 1 }),
                piece(2, "bob", 1, Said::TurnBegan { turn: 1 }),
                piece(1, "ann", 1, text(1, "Two\nletters ")),
                piece(2, "bob", 1, text(1, long)),
                piece(1, "ann", 1, text(1, "are here.")),
            ],
        );
        assert_eq!(line(&spoken, 1), "ann › Two letters are here.");
        let bob = line(&spoken, 2);
        assert!(bob.starts_with("bob › …") && bob.ends_with("there on Thursday."));
        assert_eq!(bob.chars().count(), SHOWN + " › ".chars().count());
        let call = Said::ToolCall {
            tool: "orders.find".into(),
            arguments: "{\"id\":7}".into(),
        };
        take(&spoken, vec![piece(1, "ann", 1, call)]);
        assert_eq!(line(&spoken, 1), "ann › orders.find {\"id\":7}");
        spoken.forget(TaskId::new(1));
        assert_eq!(line(&spoken, 1), "");
    }

    #[test]
    fn why_an_answer_is_late_is_given_out_once_and_not_after_the_answer() {
        let spoken = Spoken::default();
        let note = |why: &str| {
            let text = format!("{NO_ANSWER}{why}");
            piece(1, "ann", 1, Said::Note { text })
        };
        take(
            &spoken,
            vec![note("first"), note("down\u{7}; next try in 2 s")],
        );
        let late = spoken.late().unwrap();
        assert_eq!(
            (late.task, late.why.as_str()),
            (TaskId::new(1), "down; next try in 2 s")
        );
        assert_eq!(spoken.late(), None);
        take(
            &spoken,
            vec![note("down"), piece(1, "ann", 1, text(2, "Yes."))],
        );
        assert_eq!(spoken.late(), None);
        // What else is noted says nothing of lateness.
        let other = Said::Note {
            text: "the crew is asked".into(),
        };
        take(&spoken, vec![piece(1, "ann", 1, other)]);
        assert_eq!(spoken.late(), None);
        spoken.is_late(TaskId::new(1), "down");
        spoken.forget(TaskId::new(1));
        assert_eq!(spoken.late(), None);
    }

    #[test]
    fn words_of_a_turn_that_broke_off_are_gone_and_late_ones_do_not_count() {
        let spoken = Spoken::default();
        let broke = Said::TurnEnded {
            turn: 1,
            whole: false,
        };
        take(
            &spoken,
            vec![
                piece(1, "ann", 1, text(1, "Half a")),
                piece(1, "ann", 1, broke),
            ],
        );
        assert_eq!(line(&spoken, 1), "ann thinks");
        take(
            &spoken,
            vec![
                piece(1, "ann", 2, text(1, "Whole.")),
                piece(1, "ann", 1, text(2, "late")),
            ],
        );
        assert_eq!(line(&spoken, 1), "ann › Whole.");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_let_through() {
        let spoken = Spoken::default();
        let evil = "a\u{1b}[2J\u{7}b\u{9b}31mc";
        take(&spoken, vec![piece(1, "ann", 1, text(1, evil))]);
        assert_eq!(line(&spoken, 1), "ann › a[2Jb31mc");
        assert_eq!(plain("one\n\ttwo\r\u{1b}"), "one\n\ttwo");
    }

    #[test]
    fn a_long_talk_is_kept_as_far_as_it_is_shown() {
        let spoken = Spoken::default();
        for n in 0..10_000 {
            take(
                &spoken,
                vec![piece(1, "ann", 1, text(1, &format!("wörd {n} ")))],
            );
        }
        assert!(spoken.now()[&TaskId::new(1)].words.len() < 32 * SHOWN);
        assert!(line(&spoken, 1).ends_with("wörd 9999"));
    }
}
