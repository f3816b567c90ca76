//! The supervisor: breaks a goal into tasks, delegates them to a crew, watches, and makes one result
//! of what comes back.
//!
//! It holds nothing that matters: the plan, the tasks and their results are in the store, so any
//! supervisor may go on where another stopped, and two that do the same work do it once.

use crate::input::{Item, Source};
use crate::skill::{self, ItemResult};
use crate::worker::{Brief, COMMAND_KIND, Outcomes, SkillHandler};
use chargehand::{Running, Worker};
use domain::blackboard::{IMPORTANCE_HIGH, NewEntry, SEGMENT_CONFLICTS};
use domain::command::RunStart;
use domain::error::{Code, Error};
use domain::graph::{Each, Gate, Graph, Join, Reduce, Step, StepKind, Template};
use domain::id::{RunId, TaskId};
use domain::json::Json;
use domain::limits::{PAGE_MAX, PAYLOAD_BYTES_MAX, RUN_TASKS_MAX};
use domain::monitor::Conflict;
use domain::name::Name;
use domain::pool::{Member, Strategy};
use domain::retry::RetryPolicy;
use domain::run::{Crew, RunStatus};
use domain::task::{Address, Failure, Priority, TaskStatus};
use domain::worker::WorkerStatus;
use protocol::Api;
use protocol::ApiRead;
use protocol::api::TaskQuery;
use protocol::api::worker_list_all;
use protocol::v1::{RunView, TaskView};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tasks when nothing is said and there are no items to count, as the pattern's paper has it.
pub const TASKS_DEFAULT: usize = 3;
/// Workers when nothing is said.
pub const WORKERS_DEFAULT: usize = 2;
/// Workers that one call of the whole pattern may start.
pub const WORKERS_MAX: usize = 1_000;
/// The step that makes the tasks, and the gate that reduces them.
const STEP: &str = "work";
const GATE: &str = "result";
/// How long one look at a run may be out of date while many events pass: at least so long, and at
/// least [`LOOK_SHARE`] times what a look takes, so that to look at a large run costs little beside
/// the run.
const LOOK: Duration = Duration::from_millis(25);
const LOOK_SHARE: u32 = 10;
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long the supervisor sleeps when nothing at all happens.
const SLEEP: Duration = Duration::from_secs(10);

/// What to do, on what, by whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What for.
    pub goal: String,
    /// The type of the tasks: a skill, or `command`.
    pub kind: Name,
    /// How, for the skill.
    pub options: Value,
    /// On what.
    pub items: Vec<Item>,
    /// In how many tasks; none means one per item, or [`TASKS_DEFAULT`] without items.
    pub tasks: Option<usize>,
    /// Who works, and how the tasks are shared out.
    pub crew: Crew,
    /// Milliseconds a task may take.
    pub timeout_ms: Option<u64>,
    /// When a failed task is tried again.
    pub retry: RetryPolicy,
    /// What comes first.
    pub priority: Priority,
    /// Where the tasks wait; none is the queue that everybody serves.
    pub queue: Option<Name>,
    /// Kept with the run, for whoever resumes it.
    pub metadata: BTreeMap<Name, Json>,
}

impl Plan {
    /// A plan with every default.
    pub fn new(goal: impl Into<String>, kind: Name, items: Vec<Item>) -> Self {
        Self {
            goal: goal.into(),
            kind,
            options: Value::Null,
            items,
            tasks: None,
            crew: Crew::default(),
            timeout_ms: None,
            retry: RetryPolicy::default(),
            priority: Priority::NORMAL,
            queue: None,
            metadata: BTreeMap::new(),
        }
    }

    /// In how many tasks: as many as were asked for, one per item, or [`TASKS_DEFAULT`].
    pub fn task_count(&self) -> usize {
        match (self.tasks, self.items.len()) {
            (Some(tasks), _) => tasks,
            (None, 0) => TASKS_DEFAULT,
            (None, items) => items,
        }
    }

    /// The briefs: the items split evenly, in order, into exactly as many tasks as were asked for.
    ///
    /// # Errors
    /// [`Code::OutOfRange`] for no task, or more tasks than items; [`Code::PayloadTooLarge`] for
    /// items that do not fit into one task together.
    pub fn briefs(&self) -> Result<Vec<Value>, Error> {
        let (items, tasks) = (self.items.len(), self.task_count());
        if tasks > RUN_TASKS_MAX {
            return Err(Error::limit("tasks in one run", tasks, RUN_TASKS_MAX));
        }
        if tasks == 0 {
            return Err(Error::new(Code::OutOfRange, "0 tasks do nothing").hint(
                "Ask for at least one task, or leave `--tasks` out for one per input item.",
            ));
        }
        if items > 0 && tasks > items {
            let text =
                format!("{tasks} tasks for {items} input items: some would have nothing to do");
            return Err(Error::new(Code::OutOfRange, text).hint(format!(
                "Ask for 1 to {items} tasks, or leave `--tasks` out for one per item."
            )));
        }
        let mut briefs = Vec::with_capacity(tasks);
        for n in 0..tasks {
            let share = match items {
                0 => vec![part(&self.goal, n, tasks)],
                _ => self.items[items * n / tasks..items * (n + 1) / tasks].to_vec(),
            };
            let shared = share.len();
            let brief = json!(Brief {
                items: share,
                options: self.options.clone()
            });
            let bytes = brief.to_string().len();
            if bytes > PAYLOAD_BYTES_MAX {
                let text = format!(
                    "{} items in one task are {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are allowed",
                    shared
                );
                return Err(Error::new(Code::PayloadTooLarge, text)
                    .hint("Use more tasks, smaller files, or a format with an item per line (JSON Lines, CSV)."));
            }
            briefs.push(brief);
        }
        Ok(briefs)
    }

    /// The plan as data: a task per brief, and a gate that opens when all have completed.
    ///
    /// # Errors
    /// As [`briefs`](Self::briefs).
    pub fn graph(&self) -> Result<Graph, Error> {
        let template = Template {
            timeout_ms: self.timeout_ms,
            retry: self.retry,
            priority: self.priority,
            queue: self
                .queue
                .clone()
                .unwrap_or_else(domain::task::default_queue),
            ..Template::new(self.kind.clone())
        };
        let each = Each {
            items: self.briefs()?,
            over: None,
            task: template,
            concurrency: None,
        };
        let work = Name::literal(STEP);
        Ok(Graph {
            steps: vec![
                Step {
                    id: work.clone(),
                    needs: Vec::new(),
                    kind: StepKind::Each(each),
                },
                Step {
                    id: Name::literal(GATE),
                    needs: vec![work],
                    kind: StepKind::Gate(Gate {
                        join: Join::All,
                        reduce: Reduce::Supervisor,
                    }),
                },
            ],
        })
    }
}

/// What one of several tasks gets when there is only a goal: no two briefs are the same, so that
/// nobody takes one for the other's double.
fn part(goal: &str, n: usize, tasks: usize) -> Item {
    let file = format!("part {} of {tasks}", n + 1);
    Item {
        source: Source {
            file,
            line: None,
            row: None,
        },
        text: Some(goal.to_owned()),
        record: None,
    }
}

/// A task as it was delegated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delegated {
    /// The run it belongs to.
    pub request_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// To whom; nobody in particular under `least_loaded`.
    pub assigned_to: Option<Name>,
}

/// A task that failed. Each of its attempts that did has an entry of its own on the board.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedTask {
    /// The task.
    pub task_id: TaskId,
    /// Who tried last.
    pub worker: Option<Name>,
    /// Attempts it took.
    pub attempts: u32,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// `task_id`, as the entries on the board have it.
    pub metadata: BTreeMap<Name, String>,
}

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskResult {
    /// The task.
    pub task_id: TaskId,
    /// Where it stands.
    pub status: TaskStatus,
    /// Who did it.
    pub worker: Option<Name>,
    /// Attempts it took.
    pub attempts: u32,
    /// What it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it made nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One result of one item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OneResult {
    /// The task that made it.
    pub task_id: TaskId,
    /// Who made it.
    pub worker: Option<Name>,
    /// Of what.
    pub source: Value,
    /// What.
    pub output: Value,
}

/// All results of a request, made one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aggregated {
    /// The run.
    pub request_id: RunId,
    /// For a person to read.
    pub final_result: String,
    /// For a program to read.
    pub summary: Value,
    /// What became of each task, in order.
    pub task_results: Vec<TaskResult>,
    /// Every item's result, in order.
    pub results: Vec<OneResult>,
}

impl Aggregated {
    /// The run's final result.
    pub fn as_final_result(&self) -> Value {
        let mut value = match &self.summary {
            Value::Object(fields) => fields.clone(),
            other => serde_json::Map::from_iter([("value".to_owned(), other.clone())]),
        };
        value.insert("text".into(), Value::String(self.final_result.clone()));
        Value::Object(value)
    }
}

/// Plans, delegates, watches, aggregates. Everything it knows it reads; cloning shares nothing but
/// the way to the engine.
#[derive(Clone)]
pub struct Supervisor {
    api: Arc<dyn Api>,
    id: Name,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// All tasks of a run, page by page; with a status, those that have it.
///
/// # Errors
/// The contract's own.
pub async fn tasks(
    api: &dyn ApiRead,
    run: RunId,
    status: Option<TaskStatus>,
) -> Result<Vec<TaskView>, Error> {
    let mut tasks: Vec<TaskView> = Vec::new();
    loop {
        let after = tasks.last().map(|task| task.task_id);
        let query = TaskQuery {
            run: Some(run),
            status,
            after,
            limit: PAGE_MAX,
            ..TaskQuery::default()
        };
        let page = api.task_list(query).await?;
        tasks.extend(page.items);
        if page.next.is_none() {
            return Ok(tasks);
        }
    }
}

impl Supervisor {
    /// A supervisor with this id.
    pub fn new(api: Arc<dyn Api>, id: Name) -> Self {
        Self { api, id }
    }

    /// Its id.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// Starts a run of a plan: the run and all of its tasks, or nothing.
    ///
    /// # Errors
    /// The plan's, or the engine's.
    pub async fn start(&self, plan: &Plan) -> Result<RunId, Error> {
        let graph = plan.graph()?;
        self.api
            .run_start(RunStart {
                goal: plan.goal.clone(),
                supervisor: self.id.clone(),
                graph,
                crew: plan.crew.clone(),
                metadata: plan.metadata.clone(),
                key: None,
                trace: None,
                budget: None,
            })
            .await
    }

    /// Breaks a request into tasks and shares them out among these workers, round-robin. Without a
    /// number there are [`TASKS_DEFAULT`]; the words of the request choose the skill.
    ///
    /// # Errors
    /// A request that no skill fits, and the engine's own.
    pub async fn delegate(
        &self,
        request: &str,
        available_workers: &[Name],
        num_tasks: Option<usize>,
    ) -> Result<Vec<Delegated>, Error> {
        let choice = crate::plan::choose(request, &[part(request, 0, 1)])
            .map_err(|e| Error::new(Code::OutOfRange, e.message).hint(e.hint))?;
        let mut plan = Plan::new(request, Name::literal(choice.skill.name()), Vec::new());
        plan.options = choice.options;
        plan.tasks = num_tasks;
        plan.crew = Crew {
            strategy: Strategy::RoundRobin,
            members: available_workers.iter().cloned().map(Member::new).collect(),
        };
        let run = self.start(&plan).await?;
        self.delegated(run).await
    }

    /// The tasks of a run, as they were delegated.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn delegated(&self, run: RunId) -> Result<Vec<Delegated>, Error> {
        let tasks = self.tasks(run, None).await?;
        let delegated = |task: TaskView| Delegated {
            request_id: run,
            task_id: task.task_id,
            assigned_to: task.address.worker().cloned(),
        };
        Ok(tasks.into_iter().map(delegated).collect())
    }

    async fn tasks(&self, run: RunId, status: Option<TaskStatus>) -> Result<Vec<TaskView>, Error> {
        tasks(&*self.api, run, status).await
    }

    /// Whether every task of the request has ended.
    ///
    /// # Errors
    /// An unknown run.
    pub async fn check_all_tasks_completed(&self, run: RunId) -> Result<bool, Error> {
        Ok(self.api.run_get(run).await?.tasks.all_ended())
    }

    /// The tasks of the request that failed, exactly, in order.
    ///
    /// # Errors
    /// An unknown run.
    pub async fn check_failures(&self, run: RunId) -> Result<Vec<FailedTask>, Error> {
        self.api.run_get(run).await?;
        let failed = self.tasks(run, Some(TaskStatus::Failed)).await?;
        let failed = failed.into_iter().map(|task| FailedTask {
            metadata: [(Name::literal("task_id"), task.task_id.to_string())].into(),
            task_id: task.task_id,
            worker: task.worker,
            attempts: task.attempts,
            failure: task.failure,
        });
        Ok(failed.collect())
    }

    /// Gives a task to another worker, whatever it is doing now; what its old worker still brings is
    /// refused.
    ///
    /// # Errors
    /// An unknown or completed task.
    pub async fn reassign_task(&self, task: TaskId, new_worker: Name) -> Result<(), Error> {
        self.api
            .task_reassign(task, Address::Only(new_worker))
            .await
    }

    /// Combines the results of the request: only its own, and all of them.
    ///
    /// # Errors
    /// An unknown run.
    pub async fn aggregate_results(&self, run: RunId) -> Result<Aggregated, Error> {
        let tasks = self.tasks(run, None).await?;
        let mut results = Vec::new();
        for task in &tasks {
            results.extend(results_of(task));
        }
        let kind = tasks.first().map(|task| task.kind.clone());
        let aggregate = match kind.as_ref().and_then(|kind| skill::find(kind)) {
            Some(skill) => {
                let items: Vec<ItemResult> = results.iter().filter_map(item_result).collect();
                skill.aggregate(&items)
            }
            None => skill::Aggregate {
                value: json!({"count": results.len()}),
                text: list(&results),
            },
        };
        let task_results: Vec<TaskResult> = tasks.into_iter().map(task_result).collect();
        let missing = task_results
            .iter()
            .filter(|task| task.output.is_none())
            .count();
        let mut text = aggregate.text;
        if missing > 0 {
            text += &format!("\nwithout a result: {missing} of {}", task_results.len());
        }
        Ok(Aggregated {
            request_id: run,
            final_result: text.trim().to_owned(),
            summary: aggregate.value,
            task_results,
            results,
        })
    }

    /// Watches a run to its end, and reduces its gate when its tasks have ended. Whoever else does
    /// the same at the same time does no harm.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn supervise(&self, run: RunId) -> Result<RunView, Error> {
        loop {
            let position = self.api.event_wait(0, Duration::ZERO).await?;
            let began = Instant::now();
            let view = self.api.run_get(run).await?;
            let look = began.elapsed();
            if let Some(step) = view.awaits_supervisor {
                let aggregated = self.aggregate_results(run).await?;
                let output = Json::from_value(&aggregated.as_final_result());
                self.api.run_settle(run, step, output).await?;
            } else if view.ended_at.is_some() {
                return Ok(view);
            } else {
                self.api.event_wait(position, SLEEP).await?;
                tokio::time::sleep((look * LOOK_SHARE).clamp(LOOK, LOOK_MAX)).await;
            }
        }
    }

    async fn carry_out(
        &self,
        request: &str,
        crew: &[Name],
        num_tasks: Option<usize>,
    ) -> Result<Outcome, Error> {
        let delegated = self.delegate(request, crew, num_tasks).await?;
        // A plan has at least one task.
        let Some(run) = delegated.first().map(|task| task.request_id) else {
            return Err(Error::new(
                Code::Internal,
                "a plan without a task was accepted",
            ));
        };
        let view = self.supervise(run).await?;
        let aggregated = self.aggregate_results(run).await?;
        Ok(Outcome {
            request_id: run,
            status: view.status,
            tasks: delegated,
            results: aggregated.task_results,
            final_result: aggregated.final_result,
        })
    }

    /// Resolves what a monitor found: of work that was assigned twice the first keeps it, the other
    /// is cancelled, and the board tells.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn resolve_conflicts(&self, run: RunId, found: &[Conflict]) -> Result<usize, Error> {
        let mut resolved = 0;
        for conflict in found {
            let Conflict::DuplicateAssignment { task, duplicate } = conflict else {
                continue;
            };
            let reason = format!("the same work as {task}");
            let double = self.api.task_get(*duplicate).await?;
            if double.run_id != Some(run) || double.status.is_terminal() {
                continue;
            }
            match self.api.task_cancel(*duplicate, reason).await {
                Err(error) if error.code == Code::TaskState => continue,
                other => other?,
            }
            let mut entry = NewEntry::new(self.id.clone(), json!(conflict).into());
            entry.run = Some(run);
            entry.segment = Name::literal(SEGMENT_CONFLICTS);
            entry.importance = IMPORTANCE_HIGH;
            entry.tags = vec![Name::literal("conflict"), run.to_string().parse()?];
            self.api.entry_write(entry).await?;
            resolved += 1;
        }
        Ok(resolved)
    }
}

/// What the whole pattern made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The run.
    pub request_id: RunId,
    /// How it ended; a failed one has what there is of a result.
    pub status: RunStatus,
    /// The tasks, and to whom each was given.
    pub tasks: Vec<Delegated>,
    /// What became of each, in the same order.
    pub results: Vec<TaskResult>,
    /// All results made one, for a person to read.
    pub final_result: String,
}

/// The whole pattern in one call: breaks the request into `num_tasks` tasks
/// ([`TASKS_DEFAULT`]), shares them out among `num_workers` workers of its own
/// ([`WORKERS_DEFAULT`]), supervises, aggregates, and sends the workers home. Any number of calls
/// may share an engine.
///
/// ```
/// use agent::supervisor::supervisor_worker_workflow;
/// use engine::{Engine, Place};
/// use std::sync::Arc;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Arc::new(Engine::open(&Place::Memory)?);
/// let request = "Process 5 customer support tickets";
/// let outcome = supervisor_worker_workflow(engine, request, Some(3), Some(5)).await?;
/// println!("Tasks created: {}", outcome.tasks.len());
/// println!("Results: {}", outcome.results.len());
/// println!("Final result: {}", outcome.final_result);
/// # assert_eq!((outcome.tasks.len(), outcome.results.len()), (5, 5));
/// # Ok::<(), domain::error::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// A request that no skill fits, [`Code::OutOfRange`] for no worker or no task,
/// [`Code::LimitExceeded`] for too many, and the engine's own. That tasks failed is no error: the
/// outcome says so.
pub async fn supervisor_worker_workflow(
    api: Arc<dyn Api>,
    request: &str,
    num_workers: Option<usize>,
    num_tasks: Option<usize>,
) -> Result<Outcome, Error> {
    let size = num_workers.unwrap_or(WORKERS_DEFAULT);
    if size == 0 {
        return Err(Error::new(Code::OutOfRange, "0 workers do nothing")
            .hint("Ask for at least one worker."));
    }
    if size > WORKERS_MAX {
        return Err(Error::limit("workers", size, WORKERS_MAX));
    }
    let mut workers = OwnCrew(Vec::with_capacity(size));
    start_crew(&api, size, &mut workers).await?;
    let crew: Vec<Name> = workers.0.iter().map(|worker| worker.id().clone()).collect();
    let supervisor = Supervisor::new(api, Name::literal("supervisor_1"));
    let outcome = supervisor.carry_out(request, &crew, num_tasks).await;
    while let Some(worker) = workers.0.pop() {
        worker.stop().await?;
    }
    outcome
}

/// Workers that go home with the call that started them, also when it is given up half-way: then
/// the run can be resumed, and nobody waits for the leases of workers that are not there.
struct OwnCrew(Vec<Running>);

impl Drop for OwnCrew {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.0);
        if left.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for worker in left {
                    // It says so to an engine that may have stopped; then there is nobody to tell.
                    let _ = worker.stop().await;
                }
            });
        }
    }
}

/// Two crews that are started at the same moment must not choose the same names: to register a
/// name again is to take its place.
static NAMING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Workers for every skill, named `worker_1` and so on as far as nobody else has the name.
async fn start_crew(api: &Arc<dyn Api>, size: usize, crew: &mut OwnCrew) -> Result<(), Error> {
    let _naming = NAMING.lock().await;
    let known = worker_list_all(&**api).await?.into_iter();
    let taken: BTreeSet<Name> = known
        .filter(|worker| worker.status != WorkerStatus::Unavailable)
        .map(|worker| worker.worker_id)
        .collect();
    for id in (1u64..).map(|n| format!("worker_{n}")) {
        if crew.0.len() == size {
            break;
        }
        if taken.contains(id.as_str()) {
            continue;
        }
        let mut worker = Worker::new(&id)?;
        for skill in skill::all() {
            worker = worker.handle(skill.name(), SkillHandler)?;
        }
        crew.0.push(worker.start(Arc::clone(api)).await?);
    }
    Ok(())
}

fn task_result(task: TaskView) -> TaskResult {
    TaskResult {
        task_id: task.task_id,
        status: task.status,
        worker: task.worker,
        attempts: task.attempts,
        output: task.output.as_ref().map(Json::value),
        error: task
            .failure
            .map(|failure| format!("{}: {}", failure.code, failure.message)),
    }
}

/// A task's results: one per item for skills, one in all for programs.
fn results_of(task: &TaskView) -> Vec<OneResult> {
    let Some(output) = task.output.as_ref().map(Json::value) else {
        return Vec::new();
    };
    let one = |source: Value, output: Value| OneResult {
        task_id: task.task_id,
        worker: task.worker.clone(),
        source,
        output,
    };
    if task.kind.as_str() != COMMAND_KIND
        && let Ok(outcomes) = serde_json::from_value::<Outcomes>(output.clone())
    {
        let items = outcomes.items.into_iter();
        return items
            .map(|item| {
                let output = item.output.unwrap_or_else(|| json!({"error": item.error}));
                one(json!(item.source), output)
            })
            .collect();
    }
    let brief: Brief = serde_json::from_value(task.input.value()).unwrap_or_default();
    let source = match brief.items.as_slice() {
        [] => Value::Null,
        [only] => json!(only.source),
        several => json!(several.iter().map(|item| &item.source).collect::<Vec<_>>()),
    };
    vec![one(source, output)]
}

fn item_result(result: &OneResult) -> Option<ItemResult> {
    Some(ItemResult {
        source: serde_json::from_value(result.source.clone()).ok()?,
        task_id: result.task_id.to_string(),
        worker: result
            .worker
            .as_ref()
            .map_or_else(String::new, Name::to_string),
        output: result.output.clone(),
    })
}

/// Results that are listed for a person; a program reads all of them.
const LISTED_MAX: usize = 20;

fn list(results: &[OneResult]) -> String {
    let mut lines = vec![format!("{} results", results.len())];
    for result in results.iter().take(LISTED_MAX) {
        let source = serde_json::from_value::<Source>(result.source.clone());
        let source =
            source.map_or_else(|_| result.task_id.to_string(), |source| source.to_string());
        let output: String = result.output.to_string().chars().take(160).collect();
        lines.push(format!("  {source}: {output}"));
    }
    if results.len() > LISTED_MAX {
        lines.push(format!("  … and {} more", results.len() - LISTED_MAX));
    }
    lines.join("\n")
}
