//! The worker: registers, takes as many tasks at once as it has capacity for, tells what became of
//! them, and says good-bye.
//!
//! Each unit of capacity is a lane: report the last task and ask for the next in one request, run
//! it, again. The engine batches what many lanes ask at the same moment, so a lane needs no queue of
//! its own. A listener hears what the engine tells about running tasks and beats the heart.

use crate::context::{Context, Records, Told};
use crate::handler::{Ended, Handler};
use domain::command::Report;
use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::name::Name;
use domain::task::Failure;
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use protocol::Api;
use protocol::api::{Claim, Work};
use protocol::v1::{Assignment, Signal};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Milliseconds a lane waits for a task before it asks again.
const WAIT_MS: u64 = 20_000;
/// Shortest and longest pause before a request that failed is tried again.
const PAUSE_MS: std::ops::Range<u64> = 50..5_000;

/// Attempts under way, with what they are told.
type Attempts = Arc<Mutex<HashMap<(TaskId, u32), watch::Sender<Told>>>>;

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
            claims: AtomicU64::new(1),
            stopping,
        });
        let mut lanes = JoinSet::new();
        for _ in 0..self.spec.capacity {
            let crew = Arc::clone(&crew);
            lanes.spawn(async move { crew.lane().await });
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

    /// Hands back what it has, stops, and says good-bye.
    ///
    /// # Errors
    /// When the good-bye could not be said; the tasks come back all the same, with its lease.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        while self.lanes.join_next().await.is_some() {}
        self.listener.abort();
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

struct Crew {
    spec: WorkerSpec,
    handlers: BTreeMap<Name, Arc<dyn Handler>>,
    any: Option<Arc<dyn Handler>>,
    api: Arc<dyn Api>,
    attempts: Attempts,
    /// Numbers its claims.
    claims: AtomicU64,
    stopping: watch::Receiver<bool>,
}

impl Crew {
    fn attempts(&self) -> MutexGuard<'_, HashMap<(TaskId, u32), watch::Sender<Told>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Report, claim, run, again.
    async fn lane(&self) {
        let mut reports = Vec::new();
        let mut pause = PAUSE_MS.start;
        let mut number = self.claims.fetch_add(1, Ordering::Relaxed);
        let mut again = false;
        loop {
            let stopping = *self.stopping.borrow();
            if stopping && reports.is_empty() {
                return;
            }
            // With something to tell it does not wait: the answer would come with the next task.
            let wait_ms = if reports.is_empty() { WAIT_MS } else { 0 };
            let claim = (!stopping).then_some(Claim {
                // In the engine's own process no answer is lost on its way.
                key: (self.spec.home == Home::Remote).then_some(number),
                again,
                ..Claim::new(1, wait_ms)
            });
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
                    number = self.claims.fetch_add(1, Ordering::Relaxed);
                    again = false;
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
                    again = true;
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

    /// After a request that failed: a worker that was lost says that it is there again; one that is
    /// being drained is to go when it has nothing more to tell.
    async fn is_dismissed(&self, error: &Error) -> bool {
        let status = match error.code {
            // The engine in this process has stopped for good; a server may come back.
            Code::Stopped => return self.spec.home == Home::InProcess,
            Code::WorkerSuperseded => return true,
            Code::WorkerUnknown => WorkerStatus::Unknown,
            Code::WorkerState => match self.api.worker_get(self.spec.id.clone()).await {
                Ok(worker) => worker.status,
                Err(_) => return false,
            },
            _ => return false,
        };
        if matches!(status, WorkerStatus::Unknown | WorkerStatus::Unavailable) {
            // If this fails too, the next request tells.
            let _ = self.api.worker_register(self.spec.clone()).await;
        }
        status == WorkerStatus::Draining
    }

    /// Another process has this worker's id: nothing that runs here counts any more.
    fn superseded(&self) {
        for told in self.attempts().values() {
            told.send_modify(|told| {
                told.stop = Some("another process registered under this worker's id".to_owned());
            });
        }
    }

    /// Runs one attempt to its end, or until it is over for the engine.
    async fn attempt(&self, assignment: Assignment) -> (TaskId, u32, Report) {
        let key = (assignment.task_id, assignment.attempt);
        let (tell, told) = watch::channel(Told::default());
        self.attempts().insert(key, tell);
        let task = Context {
            records: Records::of(&assignment),
            assignment: Arc::new(assignment),
            worker: self.spec.id.clone(),
            api: Arc::clone(&self.api),
            told,
        };
        let report = match self.run(task).await {
            Ended::Done(output) => Report::Completed { output },
            Ended::Failed(failure) => Report::Failed { failure },
            Ended::Yielded(checkpoint) => Report::Released {
                reason: "yielded to more urgent work".into(),
                checkpoint,
            },
        };
        self.attempts().remove(&key);
        (key.0, key.1, report)
    }

    async fn run(&self, task: Context) -> Ended {
        let kind = &task.assignment.kind;
        let Some(handler) = self.handlers.get(kind).or(self.any.as_ref()).cloned() else {
            let text = format!("worker “{}” has no handler for “{kind}”", self.spec.id);
            let failure = Failure {
                worker_fault: true,
                ..Failure::new("worker.no_handler", text)
            };
            return Ended::Failed(failure);
        };
        let (over, inner) = (task.clone(), task.clone());
        // A task of its own, so that a panic is a failure of the attempt and not of the lane.
        let mut running = tokio::spawn(async move { handler.run(inner).await });
        let mut stop = self.stopping.clone();
        tokio::select! {
            ended = &mut running => ended.unwrap_or_else(|fault| {
                Ended::failed("worker.panicked", format!("the handler panicked: {fault}"))
            }),
            reason = over.stopped() => {
                running.abort();
                // The report will be refused and recorded, which is as it should be.
                Ended::failed("attempt.stopped", reason)
            }
            _ = stop.wait_for(|stop| *stop) => {
                running.abort();
                Ended::Yielded(None)
            }
        }
    }
}

/// Hears what the engine tells, and shows that the worker lives.
async fn listen(crew: Arc<Crew>) {
    let beat = Duration::from_millis(crew.spec.lease_ms / 3);
    loop {
        match crew
            .api
            .worker_heartbeat(crew.spec.id.clone(), Some(crew.spec.session), beat)
            .await
        {
            Ok(signals) => signals.into_iter().for_each(|signal| tell(&crew, signal)),
            Err(error) if error.code == Code::Stopped && crew.spec.home == Home::InProcess => {
                return;
            }
            Err(error) if error.code == Code::WorkerSuperseded => return crew.superseded(),
            Err(_) => tokio::time::sleep(Duration::from_millis(PAUSE_MS.start * 4)).await,
        }
    }
}

fn tell(crew: &Crew, signal: Signal) {
    let (Signal::Stop { task, attempt, .. } | Signal::Yield { task, attempt }) = &signal;
    if let Some(told) = crew.attempts().get(&(*task, *attempt)) {
        told.send_modify(|told| match signal {
            Signal::Stop { reason, .. } => told.stop = Some(reason),
            Signal::Yield { .. } => told.yields = true,
        });
    }
}
