//! What a handler gets: its brief, and the ways to speak while it runs.

use domain::blackboard::{NewEntry, Provenance};
use domain::command::Report;
use domain::error::Error;
use domain::id::EntryId;
use domain::json::Json;
use domain::name::Name;
use protocol::Api;
use protocol::api::Work;
use protocol::v1::Assignment;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

/// What the engine has told about an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) stop: Option<String>,
    pub(crate) yields: bool,
}

/// One attempt, as its handler sees it. Cloning shares it.
#[derive(Clone)]
pub struct Context {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) worker: Name,
    pub(crate) api: Arc<dyn Api>,
    pub(crate) told: watch::Receiver<Told>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("assignment", &self.assignment)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// All that was assigned.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Who runs it.
    pub fn worker(&self) -> &Name {
        &self.worker
    }

    /// The brief. Costs a parse.
    pub fn input(&self) -> Value {
        self.assignment.input.value()
    }

    /// What an earlier attempt handed back to go on from.
    pub fn checkpoint(&self) -> Option<Value> {
        self.assignment.checkpoint.as_ref().map(Json::value)
    }

    /// A key for effects outside: the same for every attempt of this task, and for no other task.
    pub fn idempotency_key(&self) -> String {
        self.assignment.task_id.to_string()
    }

    /// Tells how far it is, `fraction` from 0 to 1.
    ///
    /// # Errors
    /// [`AttemptStale`](domain::error::Code::AttemptStale) when the attempt is over for the engine.
    pub async fn progress(
        &self,
        fraction: Option<f64>,
        note: impl Into<String> + Send,
    ) -> Result<(), Error> {
        let report = Report::Progressed {
            fraction,
            note: note.into(),
        };
        let reports = vec![(self.assignment.task_id, self.assignment.attempt, report)];
        let work = Work {
            worker: self.worker.clone(),
            session: None,
            reports,
            claim: None,
        };
        self.api.work(work).await?.reports.pop().unwrap_or(Ok(()))
    }

    /// Whether more urgent work waits: end with [`Ended::Yielded`](crate::Ended::Yielded) at the
    /// next safe point.
    pub fn should_yield(&self) -> bool {
        self.told.borrow().yields
    }

    /// Resolves with the reason when the attempt is over for the engine.
    pub async fn stopped(&self) -> String {
        let mut told = self.told.clone();
        let over = |told: &Told| told.stop.is_some();
        match told.wait_for(over).await {
            Ok(told) => told.stop.clone().unwrap_or_default(),
            Err(_) => "the worker stopped".to_owned(),
        }
    }

    /// Resolves when more urgent work waits.
    pub async fn asked_to_yield(&self) {
        let mut told = self.told.clone();
        if told.wait_for(|told| told.yields).await.is_err() {
            // Nobody is left to ask: never.
            std::future::pending::<()>().await;
        }
    }

    /// Writes on the blackboard of the task's run, as this worker, with this task as provenance.
    ///
    /// # Errors
    /// The board's own.
    pub async fn write(&self, mut entry: NewEntry) -> Result<EntryId, Error> {
        entry.run = entry.run.or(self.assignment.run_id);
        entry.author = self.worker.clone();
        entry.provenance = Some(Provenance {
            task: self.assignment.task_id,
            attempt: Some(self.assignment.attempt),
        });
        self.api.entry_write(entry).await
    }

    /// The whole contract, for what a handler needs beyond this.
    pub fn api(&self) -> &Arc<dyn Api> {
        &self.api
    }
}
