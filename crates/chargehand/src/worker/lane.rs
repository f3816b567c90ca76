//! How a worker in the engine's own process is fed: one lane for each unit of capacity reports the
//! last task and asks for the next in one request, runs it, again. The engine batches what many
//! lanes ask at the same moment, so a lane needs no queue of its own.

use crate::worker::crew::Crew;
use crate::worker::{PAUSE_MS, WAIT_MS};
use domain::error::Error;
use protocol::api::{Claim, Work};
use std::time::Duration;

impl Crew {
    /// Report, claim, run, again.
    pub(super) async fn lane(&self) {
        let mut reports = Vec::new();
        let mut pause = PAUSE_MS.start;
        loop {
            let stopping = *self.stopping.borrow();
            if stopping && reports.is_empty() {
                return;
            }
            // With something to tell it does not wait: the answer would come with the next task.
            let wait_ms = if reports.is_empty() { WAIT_MS } else { 0 };
            // In the engine's own process no answer is lost on its way: no claim needs a number.
            let claim = (!stopping).then(|| Claim::new(1, wait_ms));
            let work = Work {
                worker: self.spec.id.clone(),
                session: Some(self.spec.session),
                reports: reports.clone(),
                claim,
            };
            let mut stop = self.stopping.clone();
            let answer = tokio::select! {
                answer = self.api.work(work) => answer,
                // Nothing to tell: whatever is leased to a lane that left goes back at good-bye.
                _ = stop.wait_for(|stop| *stop), if reports.is_empty() => return,
            };
            match answer {
                Ok(worked) => {
                    pause = PAUSE_MS.start;
                    // A refused report is dropped: the task went on without this attempt.
                    reports.clear();
                    if let Some(error) = worked.refused
                        && self.rests_after(&error, &mut pause).await
                    {
                        return;
                    }
                    for assignment in worked.tasks {
                        reports.push(self.attempt(assignment).await);
                    }
                }
                Err(error) => {
                    if self.rests_after(&error, &mut pause).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits a little after a request that failed, longer each time. Whether the lane is to end.
    async fn rests_after(&self, error: &Error, pause: &mut u64) -> bool {
        if self.is_dismissed(error).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(*pause)).await;
        *pause = (*pause * 2).min(PAUSE_MS.end);
        false
    }
}
