//! How far calls are, as their server says.
//!
//! Only the last word on each call is kept, and only for calls under way: a server may say as much as
//! it likes. What it says is somebody else's text, so it is one short line without control characters,
//! and without the secrets that the server was given.

use super::printable;
use crate::tool::command::{Revealed, redacted};
use crate::tool::{PROGRESS_PAUSE, Tell, cut};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Calls whose last word is kept; with more, all are forgotten.
const KEPT_MAX: usize = 64;

/// What a server said of its calls.
pub(super) struct Progress {
    /// What must not show.
    hidden: Vec<Revealed>,
    last: Mutex<HashMap<ProgressToken, String>>,
    said: Notify,
}

impl Progress {
    pub(super) fn hiding(hidden: Vec<Revealed>) -> Self {
        Self {
            hidden,
            last: Mutex::default(),
            said: Notify::new(),
        }
    }

    pub(super) fn note(&self, said: ProgressNotificationParam) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == KEPT_MAX && !last.contains_key(&said.progress_token) {
            // Of calls that are over, mostly; it costs a word, and nothing else.
            last.clear();
        }
        let text = line(&said, &self.hidden);
        last.insert(said.progress_token, text);
        drop(last);
        self.said.notify_waiters();
    }

    fn take(&self, call: &ProgressToken) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.remove(call)
    }

    /// Tells what is said of a call, for ever.
    pub(super) async fn follow(&self, call: &ProgressToken, tell: &Tell) -> Infallible {
        loop {
            let said = self.said.notified();
            match self.take(call) {
                Some(text) => {
                    tell(text);
                    tokio::time::sleep(PROGRESS_PAUSE).await;
                }
                None => said.await,
            }
        }
    }
}

/// `3 of 10: reading`.
fn line(said: &ProgressNotificationParam, hidden: &[Revealed]) -> String {
    let mut line = said.progress.to_string();
    if let Some(total) = said.total {
        line = format!("{line} of {total}");
    }
    // A secret may have control characters, and may lie across the cut.
    let message = said.message.as_deref();
    let message = message.map(|message| printable(&redacted(message, hidden)));
    match message {
        Some(message) if !message.is_empty() => format!("{line}: {}", cut(&message)),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::NumberOrString;
    use std::sync::Arc;
    use std::time::Duration;

    fn token(call: u32) -> ProgressToken {
        ProgressToken(NumberOrString::Number(call.into()))
    }

    fn said(call: u32, progress: u32, message: &str) -> ProgressNotificationParam {
        let said = ProgressNotificationParam::new(token(call), progress.into());
        said.with_total(10.0).with_message(message)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_comes_to_its_last_words_and_is_kept_for_few_calls() {
        let progress = Arc::new(Progress::hiding(Vec::new()));
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&told);
        let tell: Tell = Arc::new(move |text| hear.lock().unwrap().push(text));
        let follow = async { progress.follow(&token(1), &tell).await };
        let flood = async {
            tokio::task::yield_now().await;
            for step in 0..=10 {
                for again in 0..100 {
                    progress.note(said(1, step, &format!("\u{1b}[2Jpage {again}")));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            never = follow => match never {},
            () = flood => {}
        }
        let told = told.lock().unwrap();
        // 1,100 words within 550 ms; one every 100 ms, without control characters, and the last.
        assert!(told.len() <= 7, "{told:?}");
        assert_eq!(told.last().unwrap(), "10 of 10: [2Jpage 99");
        for call in 2..1_000 {
            progress.note(said(call, 1, ""));
        }
        assert!(progress.last.lock().unwrap().len() <= KEPT_MAX);
        assert_eq!(progress.take(&token(999)).unwrap(), "1 of 10");
    }
}
