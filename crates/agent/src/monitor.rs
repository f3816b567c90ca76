//! The monitor: follows the log through a contract that can only read, and tells what it shows.

use domain::blackboard::{Entry, EntryFilter};
use domain::error::Error;
use domain::id::RunId;
use domain::limits::PAGE_MAX;
use domain::monitor::{Concern, Conflict, Monitor, Progress};
use domain::name::Name;
use domain::time::Time;
use protocol::ApiRead;
use std::sync::Arc;

/// Follows one engine's log. What it is given can only read, so that it cannot write, by type:
///
/// ```compile_fail
/// use protocol::{Api, ApiRead};
/// use std::sync::Arc;
/// async fn resolve(api: Arc<dyn ApiRead>, task: domain::id::TaskId) {
///     let watch = agent::monitor::Watch::new(Arc::clone(&api));
///     // A monitor tells of a conflict; that it cannot cancel the double is no matter of manners.
///     let _ = api.task_cancel(task, "a double".into()).await;
/// }
/// ```
///
/// The same without the write compiles:
///
/// ```
/// use protocol::{Api, ApiRead};
/// use std::sync::Arc;
/// async fn resolve(api: Arc<dyn ApiRead>, task: domain::id::TaskId) {
///     let watch = agent::monitor::Watch::new(Arc::clone(&api));
///     let _ = api.task_get(task).await;
/// }
/// ```
pub struct Watch {
    id: Name,
    api: Arc<dyn ApiRead>,
    monitor: Monitor,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("id", &self.id)
            .field("position", &self.monitor.position())
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins at the first event.
    pub fn new(api: Arc<dyn ApiRead>) -> Self {
        Self::named(api, Name::literal("monitor_1"))
    }

    /// As [`new`](Self::new), with an id of its own, to tell one watcher from another. It leaves no
    /// trace in the log.
    pub fn named(api: Arc<dyn ApiRead>, id: Name) -> Self {
        Self {
            id,
            api,
            monitor: Monitor::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// All that stands on a run's board, of every segment and author: the most important first, at
    /// most [`PAGE_MAX`] entries.
    ///
    /// # Errors
    /// An unknown run.
    pub async fn read_board(&self, run: RunId) -> Result<Vec<Entry>, Error> {
        let filter = EntryFilter {
            run: Some(run),
            ..EntryFilter::default()
        };
        self.api.entry_list(filter).await
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
