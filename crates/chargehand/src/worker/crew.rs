//! The work itself: runs attempts, and hears what the engine says about them.

use crate::context::{Context, Records, Told};
use crate::handler::{Ended, Handler};
use crate::speech::{Speaking, Speech};
use crate::worker::PAUSE_MS;
use domain::command::Report;
use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::name::Name;
use domain::task::Failure;
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use protocol::Api;
use protocol::v1::{Assignment, Signal};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Attempts under way, with what they are told.
pub(super) type Attempts = Arc<Mutex<HashMap<(TaskId, u32), watch::Sender<Told>>>>;
/// What became of one attempt.
pub(super) type Outcome = (TaskId, u32, Report);

/// A handler at work. It ends with whoever waits for it.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What feeding it needs.
pub(super) struct Crew {
    pub(super) spec: WorkerSpec,
    pub(super) handlers: BTreeMap<Name, Arc<dyn Handler>>,
    pub(super) any: Option<Arc<dyn Handler>>,
    pub(super) api: Arc<dyn Api>,
    pub(super) attempts: Attempts,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Crew {
    fn attempts(&self) -> MutexGuard<'_, HashMap<(TaskId, u32), watch::Sender<Told>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a request that failed: a worker that was lost says that it is there again; one that is
    /// being drained is to go when it has nothing more to tell.
    pub(super) async fn is_dismissed(&self, error: &Error) -> bool {
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

    /// A sign of life. From elsewhere it is given up when it takes two thirds of the lease, so that
    /// there is time for another over another connection.
    async fn heartbeat(&self, beat: Duration) -> Result<Vec<Signal>, Error> {
        let (id, session) = (self.spec.id.clone(), Some(self.spec.session));
        let heartbeat = self.api.worker_heartbeat(id, session, beat);
        match self.spec.home {
            Home::InProcess => heartbeat.await,
            Home::Remote => tokio::time::timeout(beat * 2, heartbeat)
                .await
                .unwrap_or_else(|_| {
                    let text = "no answer to a heartbeat in time";
                    Err(Error::new(Code::ServerUnreachable, text))
                }),
        }
    }

    /// Stops those of these attempts that still run.
    fn stop(&self, attempts: &[(TaskId, u32)], reason: &str) {
        let all = self.attempts();
        for told in attempts.iter().filter_map(|key| all.get(key)) {
            told.send_modify(|told| told.stop = Some(reason.to_owned()));
        }
    }

    /// Whether this attempt is under way.
    pub(super) fn runs(&self, task: TaskId, attempt: u32) -> bool {
        self.attempts().contains_key(&(task, attempt))
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
    pub(super) async fn attempt(&self, assignment: Assignment) -> Outcome {
        let key = (assignment.task_id, assignment.attempt);
        let (tell, told) = watch::channel(Told::default());
        self.attempts().insert(key, tell);
        let records = match Records::of(&assignment, &*self.api).await {
            Ok(records) => records,
            Err(error) => {
                self.attempts().remove(&key);
                let failure = error.into();
                return (key.0, key.1, Report::Failed { failure });
            }
        };
        let speech = Speech::new(assignment.run_id.is_some());
        let _speaking = Speaking(speech.clone());
        let task = Context {
            speech: speech.clone(),
            agent: self.spec.id.clone(),
            records,
            assignment: Arc::new(assignment),
            worker: self.spec.id.clone(),
            api: Arc::clone(&self.api),
            told,
        };
        let ended = self.run(task).await;
        // Said later, it would be the words of an attempt that is over.
        speech.finish().await;
        let report = match ended {
            Ended::Done(output) => Report::Completed { output },
            Ended::Failed(failure) => Report::Failed { failure },
            Ended::Yielded(checkpoint) => Report::Released {
                reason: "yielded to more urgent work".into(),
                checkpoint,
                after_ms: 0,
            },
            Ended::Later { after, reason } => Report::Released {
                reason,
                checkpoint: None,
                after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1),
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
        let _ends = Ends(running.abort_handle());
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
pub(super) async fn listen(crew: Arc<Crew>) {
    let beat = Duration::from_millis(crew.spec.lease_ms / 3);
    loop {
        let under_way: Vec<(TaskId, u32)> = match crew.spec.home {
            Home::InProcess => Vec::new(),
            Home::Remote => crew.attempts().keys().copied().collect(),
        };
        match crew.heartbeat(beat).await {
            Ok(signals) => signals.into_iter().for_each(|signal| tell(&crew, signal)),
            Err(error) if error.code == Code::Stopped && crew.spec.home == Home::InProcess => {
                return;
            }
            Err(error) if error.code == Code::WorkerSuperseded => return crew.superseded(),
            Err(error) => {
                if error.code == Code::WorkerUnknown && crew.spec.home == Home::Remote {
                    // It was silent for too long: what it held then is others' now.
                    crew.stop(&under_way, "the worker was lost: its lease ran out");
                    crew.is_dismissed(&error).await;
                }
                tokio::time::sleep(Duration::from_millis(PAUSE_MS.start * 4)).await;
            }
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
