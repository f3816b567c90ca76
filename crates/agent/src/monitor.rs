//! The monitor: follows the log through a contract that can only read, and tells what it shows.

use domain::error::Error;
use domain::limits::PAGE_MAX;
use domain::monitor::{Concern, Conflict, Monitor, Progress};
use domain::time::Time;
use protocol::ApiRead;
use std::sync::Arc;

/// Follows one engine's log.
pub struct Watch {
    api: Arc<dyn ApiRead>,
    monitor: Monitor,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("position", &self.monitor.position())
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins at the first event.
    pub fn new(api: Arc<dyn ApiRead>) -> Self {
        Self {
            api,
            monitor: Monitor::default(),
        }
    }

    /// Reads what has happened since.
    ///
    /// # Errors
    /// The engine's own, or a log with a gap.
    pub async fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            let events = self
                .api
                .event_list(self.monitor.position(), PAGE_MAX)
                .await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in &events {
                self.monitor.read(event)?;
            }
        }
    }

    /// Exact counts, as of now.
    ///
    /// # Errors
    /// As [`catch_up`](Self::catch_up).
    pub async fn monitor_progress(&mut self) -> Result<Progress, Error> {
        self.catch_up().await?;
        Ok(self.monitor.progress())
    }

    /// Conflicts that nobody has resolved, as of now.
    ///
    /// # Errors
    /// As [`catch_up`](Self::catch_up).
    pub async fn conflicts(&mut self) -> Result<Vec<Conflict>, Error> {
        self.catch_up().await?;
        Ok(self.monitor.conflicts())
    }

    /// Work that does not move at `now`.
    ///
    /// # Errors
    /// As [`catch_up`](Self::catch_up).
    pub async fn concerns(&mut self, now: Time) -> Result<Vec<Concern>, Error> {
        self.catch_up().await?;
        Ok(self.monitor.concerns(now))
    }
}
