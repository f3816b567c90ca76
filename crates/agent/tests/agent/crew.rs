//! What the tests of the pattern share: an engine in memory, workers on it, and ways to look.

use agent::supervisor::{Delegated, Plan, Supervisor};
use agent::worker::SkillHandler;
use chargehand::{Context, Handler, Running, Worker};
use domain::blackboard::{Entry, EntryFilter};
use domain::command::Report;
use domain::error::Error;
use domain::id::{RunId, TaskId};
use domain::name::Name;
use domain::pool::Member;
use domain::retry::RetryPolicy;
use domain::task::TaskStatus;
use domain::worker::WorkerSpec;
use engine::{Engine, Place};
use protocol::Api;
use protocol::api::{Claim, TaskQuery, Work};
use protocol::v1::{Assignment, TaskView};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes, and short enough to wait for when something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn open() -> Arc<dyn Api> {
    Arc::new(Engine::open(&Place::Memory).unwrap())
}

pub(crate) fn name(text: impl AsRef<str>) -> Name {
    Name::new(text.as_ref()).unwrap()
}

/// `worker_1` to `worker_n`.
pub(crate) fn names(n: usize) -> Vec<Name> {
    (1..=n).map(|n| name(format!("worker_{n}"))).collect()
}

pub(crate) fn supervisor(api: &Arc<dyn Api>) -> Supervisor {
    Supervisor::new(Arc::clone(api), name("supervisor_1"))
}

pub(crate) async fn start(api: &Arc<dyn Api>, id: &str, handler: impl Handler) -> Running {
    let worker = Worker::new(id).unwrap().handle_any(handler);
    worker.start(Arc::clone(api)).await.unwrap()
}

pub(crate) async fn delegate(api: &Arc<dyn Api>, crew: &[Name], tasks: usize) -> Vec<Delegated> {
    let supervisor = supervisor(api);
    let given = supervisor.delegate("Process documents", crew, Some(tasks));
    given.await.unwrap()
}

/// Workers with every skill.
pub(crate) async fn skilled(api: &Arc<dyn Api>, ids: &[Name]) -> Vec<Running> {
    let mut running = Vec::new();
    for id in ids {
        running.push(start(api, id, SkillHandler).await);
    }
    running
}

/// A plan of `tasks` parts for these workers that tries each once.
pub(crate) fn plan(kind: &str, tasks: usize, crew: &[Name]) -> Plan {
    let mut plan = Plan::new("Process documents", name(kind), Vec::new());
    plan.tasks = Some(tasks);
    plan.crew.members = crew.iter().cloned().map(Member::new).collect();
    plan.retry = RetryPolicy::NEVER;
    plan
}

/// The board's entries with all of these tags.
pub(crate) async fn tagged(api: &Arc<dyn Api>, run: RunId, tags: &[&str]) -> Vec<Entry> {
    let filter = EntryFilter {
        run: Some(run),
        tags_all: tags.iter().map(name).collect(),
        ..EntryFilter::default()
    };
    api.entry_list(filter).await.unwrap()
}

/// The tasks that a worker finds assigned to it, in order.
pub(crate) async fn assigned(api: &Arc<dyn Api>, run: RunId, worker: &str) -> Vec<String> {
    let found = tagged(api, run, &["task", "pending", worker]).await;
    let mut ids: Vec<String> = found.iter().map(task_of).collect();
    ids.sort();
    ids
}

pub(crate) fn task_of(entry: &Entry) -> String {
    entry.metadata["task_id"].clone()
}

pub(crate) async fn tasks(api: &Arc<dyn Api>, run: RunId) -> Vec<TaskView> {
    let query = TaskQuery {
        run: Some(run),
        limit: 1_000,
        ..TaskQuery::default()
    };
    api.task_list(query).await.unwrap().items
}

/// How many of the tasks stand so.
pub(crate) async fn count(api: &Arc<dyn Api>, run: RunId, status: TaskStatus) -> usize {
    let tasks = tasks(api, run).await;
    tasks.iter().filter(|task| task.status == status).count()
}

/// A worker without a loop, to be moved by hand.
pub(crate) async fn puppet(api: &Arc<dyn Api>, id: &str, capacity: u32) {
    let spec = WorkerSpec {
        capacity,
        ..WorkerSpec::new(name(id))
    };
    api.worker_register(spec).await.unwrap();
}

pub(crate) async fn claim(api: &Arc<dyn Api>, worker: &str, max: u32) -> Vec<Assignment> {
    let work = Work {
        worker: name(worker),
        session: None,
        reports: Vec::new(),
        claim: Some(Claim {
            max,
            starts: true,
            wait_ms: 0,
            key: None,
            again: false,
        }),
    };
    api.work(work).await.unwrap().tasks
}

pub(crate) async fn report(
    api: &Arc<dyn Api>,
    worker: &str,
    task: TaskId,
    attempt: u32,
    report: Report,
) -> Result<(), Error> {
    let work = Work {
        worker: name(worker),
        session: None,
        reports: vec![(task, attempt, report)],
        claim: None,
    };
    api.work(work).await.unwrap().reports.remove(0)
}

pub(crate) fn done(output: Value) -> Report {
    Report::Completed {
        output: output.into(),
    }
}

/// Waits until `holds`; fails the test when it never does.
pub(crate) async fn until<F, T>(what: &str, mut holds: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, wait).await;
    assert!(in_time.is_ok(), "never: {what}");
}

pub(crate) async fn supervise(api: &Arc<dyn Api>, run: RunId) -> protocol::v1::RunView {
    let supervisor = supervisor(api);
    let watched = tokio::time::timeout(PATIENCE, supervisor.supervise(run)).await;
    watched.expect("the run ends").unwrap()
}

/// The number of the part a task is: 0, 1, ….
pub(crate) fn item(task: &Context) -> u32 {
    task.assignment().item.unwrap()
}
