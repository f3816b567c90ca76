//! The worker: registers, takes as many tasks at once as it has capacity for, tells what became of
//! them, and says good-bye.
//!
//! How it is fed depends on where it lives. In the engine's process each unit of capacity is a
//! [lane]: asking costs nothing there. Elsewhere one [feed] asks for all of them, so that
//! a worker has one request that waits and not one for each task it could run. A listener hears what
//! the engine tells about running tasks and beats the heart ([`crew`]).

mod crew;
mod feed;
mod lane;

use crate::handler::Handler;
use crate::worker::crew::{Attempts, Crew, listen};
use crate::worker::feed::Feed;
use domain::error::{Code, Error};
use domain::name::Name;
use domain::worker::{Home, WorkerSpec};
use protocol::Api;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Milliseconds a claim waits for a task before it is made again.
const WAIT_MS: u64 = 20_000;
/// Shortest and longest pause before a request that failed is tried again.
const PAUSE_MS: std::ops::Range<u64> = 50..5_000;

/// A worker to be.
pub struct Worker {
    spec: WorkerSpec,
    home: Option<Home>,
    handlers: BTreeMap<Name, Arc<dyn Handler>>,
    any: Option<Arc<dyn Handler>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker with this id, room for one task, and nothing it can do yet.
    ///
    /// # Errors
    /// [`Code::NameMalformed`].
    pub fn new(id: &str) -> Result<Self, Error> {
        let mut spec = WorkerSpec::new(id.parse()?);
        // Tells this life of the worker from the one before it.
        let born = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        spec.session = born.map_or(1, |since| since.as_nanos() as u64);
        Ok(Self {
            spec,
            home: None,
            handlers: BTreeMap::new(),
            any: None,
        })
    }

    /// Runs so many tasks at once.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.spec.capacity = capacity;
        self
    }

    /// Declares what it can do, for tasks that require it.
    ///
    /// # Errors
    /// [`Code::NameMalformed`].
    pub fn capability(mut self, capability: &str) -> Result<Self, Error> {
        self.spec.capabilities.push(capability.parse()?);
        Ok(self)
    }

    /// Says where it lives, when that is not where its engine's handle is: a thread that may be
    /// killed lives elsewhere.
    #[must_use]
    pub fn home(mut self, home: Home) -> Self {
        self.home = Some(home);
        self
    }

    /// Changes anything else it says about itself.
    #[must_use]
    pub fn describe(mut self, change: impl FnOnce(&mut WorkerSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Handles tasks of this type.
    ///
    /// # Errors
    /// [`Code::NameMalformed`].
    pub fn handle(mut self, kind: &str, handler: impl Handler) -> Result<Self, Error> {
        self.handlers.insert(kind.parse()?, Arc::new(handler));
        Ok(self)
    }

    /// Handles tasks of every type that has no handler of its own.
    #[must_use]
    pub fn handle_any(mut self, handler: impl Handler) -> Self {
        self.any = Some(Arc::new(handler));
        self
    }

    /// Registers and begins to work.
    ///
    /// # Errors
    /// The registration's own.
    pub async fn start(mut self, api: Arc<dyn Api>) -> Result<Running, Error> {
        self.spec.kinds = match self.any {
            Some(_) => Vec::new(),
            None => self.handlers.keys().cloned().collect(),
        };
        self.spec.home = self.home.unwrap_or_else(|| api.home());
        api.worker_register(self.spec.clone()).await?;
        let (stop, stopping) = watch::channel(false);
        let crew = Arc::new(Crew {
            spec: self.spec.clone(),
            handlers: self.handlers,
            any: self.any,
            api: Arc::clone(&api),
            attempts: Attempts::default(),
            stopping,
        });
        let mut lanes = JoinSet::new();
        match self.spec.home {
            Home::InProcess => {
                for _ in 0..self.spec.capacity {
                    let crew = Arc::clone(&crew);
                    lanes.spawn(async move { crew.lane().await });
                }
            }
            Home::Remote => drop(lanes.spawn(Feed::new(Arc::clone(&crew)).run())),
        }
        let listener = tokio::spawn(listen(Arc::clone(&crew)));
        Ok(Running {
            id: self.spec.id,
            session: self.spec.session,
            api,
            stop,
            lanes,
            listener,
            left: false,
        })
    }
}

/// A worker at work. Dropping it stops its lanes where they are; [`stop`](Self::stop) lets them hand
/// back what they have.
pub struct Running {
    id: Name,
    session: u64,
    api: Arc<dyn Api>,
    stop: watch::Sender<bool>,
    /// What feeds it.
    lanes: JoinSet<()>,
    listener: tokio::task::JoinHandle<()>,
    /// It has said good-bye.
    left: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Its id.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// Hands back what it has, stops, and says good-bye. Elsewhere than in the engine's process it
    /// tries that for as long as its lease lasts, then nobody waits for it any more.
    ///
    /// # Errors
    /// When the good-bye could not be said; the tasks come back all the same, with its lease.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        while self.lanes.join_next().await.is_some() {}
        self.listener.abort();
        // Whoever stops a worker may rely on it that its handlers, and what they hold, are gone then.
        let _ = (&mut self.listener).await;
        self.left = true;
        match self
            .api
            .worker_leave(self.id.clone(), Some(self.session), "it stopped".into())
            .await
        {
            // The engine stopped before: everything it had is released when it opens again.
            Err(error) if error.code == Code::Stopped => Ok(()),
            other => other,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listener.abort();
        // Its lanes end here too; what they had must not wait for a time limit to come back.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.left
        {
            let (api, id, session) = (Arc::clone(&self.api), self.id.clone(), Some(self.session));
            runtime
                .spawn(async move { api.worker_leave(id, session, "it was dropped".into()).await });
        }
    }
}
