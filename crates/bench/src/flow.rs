//! The load: clients that submit in batches, workers that complete what they hold and claim more in
//! the same request, all through the one contract, none of it knowing that the engine is near.

use crate::measure::{cpu, reset_peak, rss_peak, thread_cpu, us};
use domain::command::{Report, Submission};
use domain::error::{Code, Error};
use domain::event::AttemptRef;
use domain::json::Json;
use domain::name::Name;
use domain::task::TaskSpec;
use domain::worker::WorkerSpec;
use engine::Engine;
use protocol::Api;
use protocol::api::{Claim, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Tasks in one submission, and in one claim.
pub(crate) const BATCH: u64 = 100;
/// Clients that submit at once.
const SUBMITTERS: u64 = 8;
/// Workers at once.
pub(crate) const WORKERS: u64 = 8;
/// Milliseconds a worker waits for its first task; short, so that the last wait is soon over.
const WAIT_MS: u64 = 50;

/// What to do.
#[derive(Clone)]
pub(crate) struct Load {
    /// Tasks to submit.
    pub(crate) submit: u64,
    /// Tasks to claim and complete.
    pub(crate) complete: u64,
    /// What each task is.
    pub(crate) spec: Arc<TaskSpec>,
    /// When to stop, finished or not.
    pub(crate) time_max: Duration,
}

/// What was done.
#[derive(Debug, Default, Clone)]
pub(crate) struct Flow {
    pub(crate) seconds: f64,
    pub(crate) completed: u64,
    /// Of each request, submissions and work alike.
    pub(crate) request_us: Vec<f64>,
    pub(crate) cpu: Duration,
    pub(crate) wheel: Option<Duration>,
    pub(crate) peak_rss: Option<u64>,
    pub(crate) stopped: bool,
}

/// The plain task: nothing to do, nothing asked.
pub(crate) fn plain() -> Arc<TaskSpec> {
    Arc::new(TaskSpec::new(Name::literal("noop"), Json::default()))
}

/// A worker as a remote machine would register it.
pub(crate) fn worker(n: u64, capacity: u32) -> Result<WorkerSpec, Error> {
    let mut spec = WorkerSpec::new(Name::new(format!("worker_{n}"))?);
    spec.capacity = capacity;
    // A batch may take longer than a lease on a slow disk; this measures work, not rescue.
    spec.lease_ms = 600_000;
    spec.capabilities = vec![Name::literal("bench")];
    Ok(spec)
}

/// What all clients and workers share.
struct Shared {
    engine: Engine,
    spec: Arc<TaskSpec>,
    to_submit: AtomicU64,
    to_claim: AtomicU64,
    to_complete: AtomicU64,
    until: Instant,
}

/// Takes up to a batch from what is left to do.
fn take(left: &AtomicU64) -> u64 {
    let before = left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(BATCH)));
    before.unwrap_or_else(|before| before).min(BATCH)
}

/// Runs a load to its end or its time limit.
pub(crate) async fn run(engine: &Engine, load: &Load) -> Result<Flow, Error> {
    for n in 0..WORKERS {
        engine.worker_register(worker(n, BATCH as u32)?).await?;
    }
    reset_peak();
    let (cpu_before, wheel_before) = (cpu(), thread_cpu("wheel"));
    let begin = Instant::now();
    let shared = Arc::new(Shared {
        engine: engine.clone(),
        spec: Arc::clone(&load.spec),
        to_submit: AtomicU64::new(load.submit),
        to_claim: AtomicU64::new(load.complete),
        to_complete: AtomicU64::new(load.complete),
        until: begin + load.time_max,
    });
    let mut clients: JoinSet<Result<(Vec<f64>, Instant), Error>> = JoinSet::new();
    for _ in 0..SUBMITTERS.min(load.submit.div_ceil(BATCH)) {
        clients.spawn(submit(Arc::clone(&shared)));
    }
    for n in 0..WORKERS.min(load.complete.div_ceil(BATCH)) {
        clients.spawn(work(Arc::clone(&shared), n));
    }
    let (mut request_us, mut end) = (Vec::new(), begin);
    while let Some(client) = clients.join_next().await {
        let (times, last) =
            client.map_err(|fault| Error::new(Code::Internal, format!("a client: {fault}")))??;
        request_us.extend(times);
        end = end.max(last);
    }
    let left = shared.to_complete.load(Relaxed);
    Ok(Flow {
        seconds: end.duration_since(begin).as_secs_f64(),
        completed: load.complete - left,
        request_us,
        cpu: cpu().saturating_sub(cpu_before),
        wheel: thread_cpu("wheel")
            .zip(wheel_before)
            .map(|(after, before)| after.saturating_sub(before)),
        peak_rss: rss_peak(),
        stopped: left > 0 || shared.to_submit.load(Relaxed) > 0,
    })
}

/// A client: one batch after the other, each acknowledged before the next.
async fn submit(shared: Arc<Shared>) -> Result<(Vec<f64>, Instant), Error> {
    let (mut times, mut last) = (Vec::new(), Instant::now());
    while Instant::now() < shared.until {
        let count = take(&shared.to_submit);
        if count == 0 {
            break;
        }
        let new = || Submission {
            id: None,
            key: None,
            spec: Arc::clone(&shared.spec),
        };
        let tasks = (0..count).map(|_| new()).collect();
        let begin = Instant::now();
        for answer in shared.engine.task_submit(tasks).await? {
            answer?;
        }
        last = Instant::now();
        times.push(us(last - begin));
    }
    Ok((times, last))
}

/// A worker: what it holds is completed with the request that claims more.
async fn work(shared: Arc<Shared>, n: u64) -> Result<(Vec<f64>, Instant), Error> {
    let worker = Name::new(format!("worker_{n}"))?;
    let (mut times, mut last) = (Vec::new(), Instant::now());
    let mut held: Vec<AttemptRef> = Vec::new();
    loop {
        let late = Instant::now() >= shared.until;
        let want = if late { 0 } else { take(&shared.to_claim) };
        if want == 0 && held.is_empty() {
            return Ok((times, last));
        }
        let reports = held
            .drain(..)
            .map(|lease| {
                let output = Json::default();
                (lease.task, lease.attempt, Report::Completed { output })
            })
            .collect::<Vec<_>>();
        let waited = reports.is_empty();
        let begin = Instant::now();
        let worked = shared
            .engine
            .work(Work {
                worker: worker.clone(),
                session: None,
                reports,
                claim: (want > 0).then_some(Claim {
                    max: want as u32,
                    starts: true,
                    wait_ms: WAIT_MS,
                    key: None,
                    again: false,
                }),
            })
            .await?;
        let end = Instant::now();
        let got = worked.tasks.len() as u64;
        shared.to_claim.fetch_add(want - got, Relaxed);
        let mut completed = 0;
        for answer in worked.reports {
            answer?;
            completed += 1;
        }
        if completed > 0 {
            last = end;
            shared.to_complete.fetch_sub(completed, Relaxed);
        }
        if !waited || got > 0 {
            times.push(us(end - begin));
        }
        held.extend(worked.tasks.into_iter().map(|task| AttemptRef {
            task: task.task_id,
            attempt: task.attempt,
            worker: worker.clone(),
        }));
    }
}
