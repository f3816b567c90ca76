//! The run: one execution of a graph for a goal.
//!
//! A run's row holds counts, never lists: a step's tasks have consecutive ids from `first`. What
//! happens next follows from the row alone ([`Run::next_move`]); the store applies moves in the
//! same transaction as the event that made them possible, so no process has to survive for a gate
//! to open.

use crate::command::{Made, Outcome, Recalled, RunStart, recall};
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{AttemptRef, Event, Recorded, StepEnd};
use crate::graph::{Gate, Graph, Join, Reduce, Step, StepKind, Template};
use crate::id::{Ids, RunId, TaskId};
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
use crate::pool::{Member, Strategy, Wanted};
use crate::state::{Quotas, State};
use crate::task::{Failure, Membership, Task, TaskState, TaskStatus, cancelled, redriven};
use crate::time::Time;
use crate::trace::{SpanOf, TraceParent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who works on a run, and how its tasks are shared out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Crew {
    /// How.
    #[serde(default)]
    pub strategy: Strategy,
    /// Who, in order. Nobody named means whoever serves the queue.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// For the steps it needs.
    Waiting,
    /// Its tasks run, or it watches.
    Running,
    /// It is a gate whose condition is decided; the supervisor reduces.
    AwaitingSupervisor,
    /// As [`AwaitingSupervisor`](Self::AwaitingSupervisor), with a condition that failed.
    AwaitingPartial,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Never began.
    Skipped,
}

impl StepStatus {
    fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped)
    }
}

/// A step's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// Its first task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<TaskId>,
    /// Its tasks.
    #[serde(default)]
    pub total: u32,
    /// Of these, with a worker.
    #[serde(default)]
    pub leased: u32,
    /// Of these, completed.
    #[serde(default)]
    pub completed: u32,
    /// Of these, dead letters.
    #[serde(default)]
    pub failed: u32,
    /// Of these, cancelled.
    #[serde(default)]
    pub cancelled: u32,
    /// When its gate opens with what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// What it made: a task's result, a gate's reduction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
}

impl StepState {
    const WAITING: Self = Self {
        status: StepStatus::Waiting,
        first: None,
        total: 0,
        leased: 0,
        completed: 0,
        failed: 0,
        cancelled: 0,
        due: None,
        output: None,
    };

    /// Tasks that have not ended.
    pub fn open(&self) -> u32 {
        self.total
            .saturating_sub(self.completed + self.failed + self.cancelled)
    }

    /// The ids of its tasks, in the order of their items.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let first = self.first;
        let total = if first.is_some() {
            u64::from(self.total)
        } else {
            0
        };
        (0..total).filter_map(move |n| first.map(|id| id.offset(n)))
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its steps go on.
    Running,
    /// All steps ended well.
    Completed {
        /// When.
        at: Time,
        /// The result.
        result: Json,
    },
    /// It could not reach its end.
    Failed {
        /// When.
        at: Time,
        /// Why.
        failure: Failure,
        /// What there is of a result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<Json>,
    },
    /// Somebody stopped it.
    Cancelled {
        /// When.
        at: Time,
        /// Why.
        reason: String,
    },
}

/// A run's state without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Open.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Stopped.
    Cancelled,
}

impl RunStatus {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A run's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id; also the tag that groups its entries on the blackboard.
    pub id: RunId,
    /// What for.
    pub goal: String,
    /// Its supervisor.
    pub supervisor: Name,
    /// The plan, pinned.
    pub graph: Arc<Graph>,
    /// Who works.
    pub crew: Arc<Crew>,
    /// One for each step of the graph.
    pub steps: Vec<StepState>,
    /// Where it stands.
    pub state: RunState,
    /// When it started.
    pub created_at: Time,
    /// Whatever the caller wants to find again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, Json>,
    /// Where it stands in its starter's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
}

/// What a run does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A step begins.
    Start(usize),
    /// A step that can never begin is passed over.
    Skip(usize),
    /// A step's tasks have all ended.
    End(usize),
    /// A gate's condition is decided.
    Decide {
        /// Which gate.
        gate: usize,
        /// It holds.
        open: bool,
    },
    /// All steps have ended.
    Finish,
}

impl Run {
    /// Where it stands, without the data.
    pub fn status(&self) -> RunStatus {
        match &self.state {
            RunState::Running => RunStatus::Running,
            RunState::Completed { .. } => RunStatus::Completed,
            RunState::Failed { .. } => RunStatus::Failed,
            RunState::Cancelled { .. } => RunStatus::Cancelled,
        }
    }

    /// The result: of a completed run, or what there is of a failed one's.
    pub fn result(&self) -> Option<&Json> {
        match &self.state {
            RunState::Completed { result, .. } => Some(result),
            RunState::Failed { partial, .. } => partial.as_ref(),
            RunState::Running | RunState::Cancelled { .. } => None,
        }
    }

    /// All its tasks, in the order of steps and items.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.steps.iter().flat_map(StepState::tasks)
    }

    /// The gate that waits for its supervisor, and whether what it has is partial.
    pub fn awaits_supervisor(&self) -> Option<(&Name, bool)> {
        self.graph
            .steps
            .iter()
            .zip(&self.steps)
            .find_map(|(step, state)| match state.status {
                StepStatus::AwaitingSupervisor => Some((&step.id, false)),
                StepStatus::AwaitingPartial => Some((&step.id, true)),
                _ => None,
            })
    }

    /// When the clock must look at it again: the earliest deadline of a gate that watches.
    pub fn due(&self) -> Option<Time> {
        if self.status() != RunStatus::Running {
            return None;
        }
        let running = self
            .steps
            .iter()
            .filter(|step| step.status == StepStatus::Running);
        running.filter_map(|step| step.due).min()
    }

    fn index(&self, step: &Name) -> Option<usize> {
        self.graph.steps.iter().position(|known| known.id == *step)
    }

    fn status_of(&self, step: &Name) -> StepStatus {
        self.index(step)
            .map_or(StepStatus::Skipped, |n| self.steps[n].status)
    }

    /// What happens next at `now`, if anything does. Follows from the row alone.
    pub fn next_move(&self, now: Time) -> Option<Move> {
        if self.status() != RunStatus::Running {
            return None;
        }
        let steps = self.graph.steps.iter().zip(&self.steps).enumerate();
        for (n, (step, state)) in steps {
            let next = match state.status {
                StepStatus::Waiting => self.may_start(n, step),
                StepStatus::Running => match step.gate() {
                    Some(gate) => self
                        .verdict(step, gate, state, now)
                        .map(|open| Move::Decide { gate: n, open }),
                    None => self.may_end(step, state).then_some(Move::End(n)),
                },
                _ => None,
            };
            if next.is_some() {
                return next;
            }
        }
        self.steps
            .iter()
            .all(|step| step.status.has_ended())
            .then_some(Move::Finish)
    }

    fn may_start(&self, n: usize, step: &Step) -> Option<Move> {
        let mut needs = step.needs.iter().map(|need| self.status_of(need));
        if step.gate().is_some() {
            return needs
                .all(|status| status != StepStatus::Waiting)
                .then_some(Move::Start(n));
        }
        if needs
            .clone()
            .any(|s| matches!(s, StepStatus::Failed | StepStatus::Skipped))
        {
            return Some(Move::Skip(n));
        }
        needs
            .all(|status| status == StepStatus::Done)
            .then_some(Move::Start(n))
    }

    /// A step whose tasks have ended ends itself, unless gates watch it: then they say what its
    /// failures mean, so it ends after them.
    fn may_end(&self, step: &Step, state: &StepState) -> bool {
        state.open() == 0
            && self
                .gates_over(step)
                .all(|gate| self.steps[gate].status.has_ended())
    }

    fn gates_over<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = usize> + 'a {
        let steps = self.graph.steps.iter().enumerate();
        steps
            .filter(|(_, gate)| gate.gate().is_some() && gate.needs.contains(&step.id))
            .map(|(n, _)| n)
    }

    /// Whether a gate opens (`true`), can never open (`false`), or is not decided.
    fn verdict(&self, step: &Step, gate: &Gate, state: &StepState, now: Time) -> Option<bool> {
        let watched = step
            .needs
            .iter()
            .filter_map(|need| self.index(need))
            .map(|n| &self.steps[n]);
        let (mut total, mut completed, mut open, mut missing) = (0, 0, 0, false);
        for step in watched {
            total += step.total;
            completed += step.completed;
            open += step.open();
            // Watched while it runs, a step ends after its gates: one that failed never began.
            missing |= matches!(step.status, StepStatus::Skipped | StepStatus::Failed);
        }
        match gate.join {
            Join::All if completed == total && !missing => Some(true),
            Join::Any if completed > 0 => Some(true),
            Join::Quorum(n) | Join::FirstK(n) if completed >= n => Some(true),
            Join::Quorum(n) | Join::FirstK(n) if completed + open < n => Some(false),
            Join::All | Join::Any | Join::Quorum(_) | Join::FirstK(_) => {
                (open == 0).then_some(false)
            }
            Join::Ended(least) => (open == 0).then_some(completed >= least && !missing),
            Join::Deadline(_) => (open == 0 || state.due.is_some_and(|due| due <= now))
                .then_some(completed > 0 || (total == 0 && !missing)),
        }
    }

    /// The tasks whose rows a move must see.
    pub fn rows_for(&self, next: Move, rows: &mut Vec<TaskId>) {
        match next {
            Move::Start(_) | Move::Skip(_) | Move::Finish => {}
            // A task's output becomes its step's; a failure is named in the run's.
            Move::End(n) => match (&self.graph.steps[n].kind, self.steps[n].failed) {
                (StepKind::Each(_), 0) => {}
                _ => rows.extend(self.steps[n].tasks()),
            },
            Move::Decide { gate, .. } => {
                let step = &self.graph.steps[gate];
                let by_supervisor = step
                    .gate()
                    .is_some_and(|gate| gate.reduce == Reduce::Supervisor);
                for n in step.needs.iter().filter_map(|need| self.index(need)) {
                    if !by_supervisor || self.steps[n].open() > 0 {
                        rows.extend(self.steps[n].tasks());
                    }
                }
            }
        }
    }

    pub(crate) fn started(
        id: RunId,
        goal: &str,
        supervisor: &Name,
        graph: &Arc<Graph>,
        crew: &Arc<Crew>,
        metadata: &BTreeMap<Name, Json>,
        at: Time,
    ) -> Self {
        Self {
            id,
            goal: goal.to_owned(),
            supervisor: supervisor.clone(),
            graph: Arc::clone(graph),
            crew: Arc::clone(crew),
            steps: vec![StepState::WAITING; graph.steps.len()],
            state: RunState::Running,
            created_at: at,
            metadata: metadata.clone(),
            trace: None,
        }
    }

    /// Where it stands in the distributed trace.
    pub fn trace_of(&self) -> TraceParent {
        TraceParent::derived(self.id.0, SpanOf::Run, self.trace)
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            // Its tasks were counted when their step started.
            Event::TaskSubmitted { .. } | Event::TaskStarted { .. } => {}
            Event::TaskAssigned { ties, .. } => self.count(ties.of.as_ref(), |s| s.leased += 1),
            Event::TaskCompleted { ties, .. } => self.count(ties.of.as_ref(), |s| {
                s.leased -= 1;
                s.completed += 1;
            }),
            Event::AttemptEnded { ties, .. } => self.count(ties.of.as_ref(), |s| s.leased -= 1),
            Event::TaskFailed { ties, .. } => self.count(ties.of.as_ref(), |s| s.failed += 1),
            Event::TaskCancelled { ties, lease, .. } => {
                let held = u32::from(lease.is_some());
                self.count(ties.of.as_ref(), |s| {
                    s.leased -= held;
                    s.cancelled += 1;
                });
            }
            Event::TaskRedriven {
                ties,
                was_cancelled,
                ..
            } => {
                self.count(ties.of.as_ref(), |s| match was_cancelled {
                    true => s.cancelled -= 1,
                    false => s.failed -= 1,
                });
            }
            Event::StepStarted {
                step,
                first,
                total,
                due,
                ..
            } => self.step(step, |s| {
                s.status = StepStatus::Running;
                s.first = *first;
                s.total = *total;
                s.due = *due;
            }),
            Event::StepEnded {
                step, end, output, ..
            } => self.step(step, |s| {
                s.status = match end {
                    StepEnd::Done => StepStatus::Done,
                    StepEnd::Failed => StepStatus::Failed,
                    StepEnd::Skipped => StepStatus::Skipped,
                };
                s.output.clone_from(output);
            }),
            Event::GateAwaitsSupervisor { step, partial, .. } => self.step(step, |s| {
                s.status = match partial {
                    true => StepStatus::AwaitingPartial,
                    false => StepStatus::AwaitingSupervisor,
                };
            }),
            Event::RunCompleted { result, .. } => {
                self.state = RunState::Completed {
                    at,
                    result: result.clone(),
                };
            }
            Event::RunFailed {
                failure, partial, ..
            } => {
                self.state = RunState::Failed {
                    at,
                    failure: failure.clone(),
                    partial: partial.clone(),
                };
            }
            Event::RunCancelled { reason, .. } => {
                self.state = RunState::Cancelled {
                    at,
                    reason: reason.clone(),
                };
            }
            Event::RunReopened { .. } => self.reopen(),
            Event::RunExtended { steps, .. } => {
                let graph = Arc::make_mut(&mut self.graph);
                graph.steps.extend(steps.iter().cloned());
                self.steps.resize(graph.steps.len(), StepState::WAITING);
            }
            other => debug_assert!(false, "{} does not fold on a run", other.name()),
        }
    }

    /// What ended badly, or watched what did, goes on; what never began waits again.
    fn reopen(&mut self) {
        self.state = RunState::Running;
        for (step, state) in self.graph.steps.iter().zip(&mut self.steps) {
            state.status = match (state.status, step.gate()) {
                (StepStatus::Done, _) => StepStatus::Done,
                (StepStatus::Skipped | StepStatus::Waiting, _) | (_, Some(_)) => {
                    StepStatus::Waiting
                }
                (_, None) if state.total == 0 => StepStatus::Waiting,
                (_, None) => StepStatus::Running,
            };
            if state.status != StepStatus::Done {
                state.output = None;
            }
        }
    }

    fn step(&mut self, step: &Name, change: impl FnOnce(&mut StepState)) {
        match self.index(step) {
            Some(n) => change(&mut self.steps[n]),
            None => debug_assert!(false, "{} has no step “{step}”", self.id),
        }
    }

    fn count(&mut self, of: Option<&Membership>, change: impl FnOnce(&mut StepState)) {
        if let Some(of) = of {
            self.step(&of.step, change);
        }
    }

    fn scope(&self) -> BTreeMap<String, Value> {
        let outputs = self.graph.steps.iter().zip(&self.steps);
        let outputs = outputs.filter_map(|(step, state)| {
            Some((step.id.to_string(), state.output.as_ref()?.value()))
        });
        BTreeMap::from([
            ("goal".to_owned(), Value::String(self.goal.clone())),
            ("steps".to_owned(), Value::Object(outputs.collect())),
        ])
    }
}

/// Decides the start of a run: the run and the tasks of its first steps, all or nothing.
pub(crate) fn start(state: &State, new: &RunStart, now: Time, ids: &mut dyn Ids) -> Decision {
    let run_of = |made| match made {
        Made::Run(run) => Some(run),
        _ => None,
    };
    let receipt = match recall(state, new.key.as_ref(), || new.digest(), run_of) {
        Ok(Recalled::Before(run)) => return Decision::answer(Outcome::Run(run)),
        Ok(Recalled::New(receipt)) => receipt,
        Err(error) => return Decision::refuse(error),
    };
    let open = state.tally().map_or(0, |tally| tally.runs_open);
    if let Err(error) = Quotas::check("runs are open", open, state.quotas.runs_open) {
        return Decision::refuse(error);
    }
    match plan(new, receipt, now, ids) {
        Ok(decision) => decision,
        Err(error) => Decision::refuse(error),
    }
}

fn plan(
    new: &RunStart,
    receipt: Option<(Name, u64)>,
    now: Time,
    ids: &mut dyn Ids,
) -> Result<Decision, Error> {
    check_goal(&new.goal)?;
    new.graph.check()?;
    if new.crew.members.len() > POOL_MEMBERS_MAX {
        return Err(Error::limit(
            "members",
            new.crew.members.len(),
            POOL_MEMBERS_MAX,
        ));
    }
    if new.metadata.len() > METADATA_ENTRIES_MAX {
        return Err(Error::limit(
            "metadata entries",
            new.metadata.len(),
            METADATA_ENTRIES_MAX,
        ));
    }
    payload(
        "the run's metadata",
        new.metadata.values().map(Json::bytes).sum(),
    )?;
    let id = RunId::new(ids.next());
    let full = Arc::new(new.graph.clone());
    let crew = Arc::new(new.crew.clone());
    let mut run = Run::started(
        id,
        &new.goal,
        &new.supervisor,
        &full,
        &crew,
        &new.metadata,
        now,
    );
    run.trace = new.trace;
    let mut events = Vec::new();
    let mut started = Vec::new();
    while let Some(Move::Start(n)) = run.next_move(now) {
        let begun = start_step(&run, n, now, ids)?;
        for event in &begun {
            if !matches!(event, Event::TaskSubmitted { .. }) {
                run.evolve(&Recorded {
                    position: 0,
                    at: now,
                    cause: None,
                    by: None,
                    event: event.clone(),
                });
            }
        }
        started.push(n);
        events.extend(begun);
    }
    events.insert(
        0,
        Event::RunStarted {
            run: id,
            goal: new.goal.clone(),
            supervisor: new.supervisor.clone(),
            graph: Arc::new(without_items(&new.graph, &started)),
            crew,
            metadata: new.metadata.clone(),
            receipt,
            trace: new.trace,
            budget: new.budget,
        },
    );
    Ok(Decision {
        events,
        outcome: Ok(Outcome::Run(id)),
    })
}

/// The words of a goal.
///
/// # Errors
/// [`Code::GoalEmpty`] or [`Code::GoalTooLarge`].
pub fn check_goal(goal: &str) -> Result<(), Error> {
    if goal.trim().is_empty() {
        return Err(Error::new(Code::GoalEmpty, "the goal is empty"));
    }
    if goal.len() > GOAL_BYTES_MAX {
        let text = format!(
            "the goal is {} bytes; at most {GOAL_BYTES_MAX} are allowed",
            goal.len()
        );
        return Err(Error::new(Code::GoalTooLarge, text));
    }
    Ok(())
}

/// The graph as the run keeps it: the items of steps that have begun are in their tasks.
fn without_items(graph: &Graph, started: &[usize]) -> Graph {
    let mut graph = graph.clone();
    for n in started {
        if let StepKind::Each(each) = &mut graph.steps[*n].kind {
            each.items = Vec::new();
        }
    }
    graph
}

/// A step begins: its tasks, addressed by the crew's strategy.
fn start_step(run: &Run, n: usize, now: Time, ids: &mut dyn Ids) -> Result<Vec<Event>, Error> {
    let step = &run.graph.steps[n];
    let (template, items) = match &step.kind {
        StepKind::Gate(gate) => {
            let due = match gate.join {
                Join::Deadline(ms) => Some(now.plus_ms(ms)),
                _ => None,
            };
            let step = step.id.clone();
            return Ok(vec![Event::StepStarted {
                run: run.id,
                step,
                first: None,
                total: 0,
                due,
            }]);
        }
        StepKind::Task(template) => (template, None),
        StepKind::Each(each) => (
            &each.task,
            Some(items(run, &each.items, each.over.as_ref())?),
        ),
    };
    let total = items.as_ref().map_or(1, Vec::len);
    let before: usize = run.steps.iter().map(|step| step.total as usize).sum();
    if before + total > RUN_TASKS_MAX {
        return Err(Error::limit(
            "tasks in a run",
            before + total,
            RUN_TASKS_MAX,
        ));
    }
    let first = TaskId::range(ids.next());
    let mut events = vec![Event::StepStarted {
        run: run.id,
        step: step.id.clone(),
        first: Some(first),
        total: total as u32,
        due: None,
    }];
    events.extend(step_tasks(run, step, template, items, first)?);
    Ok(events)
}

fn items(run: &Run, inline: &[Value], over: Option<&Name>) -> Result<Vec<Value>, Error> {
    let Some(over) = over else {
        return Ok(inline.to_vec());
    };
    let output = run
        .index(over)
        .and_then(|n| run.steps[n].output.as_ref())
        .map(Json::value);
    match output {
        Some(Value::Array(items)) => Ok(items),
        Some(Value::Object(mut fields)) if fields.get("items").is_some_and(Value::is_array) => {
            match fields.remove("items") {
                Some(Value::Array(items)) => Ok(items),
                _ => Ok(Vec::new()),
            }
        }
        _ => Err(Error::new(
            Code::GraphInvalid,
            format!("step “{over}” has no list for the step that goes over it"),
        )),
    }
}

fn step_tasks(
    run: &Run,
    step: &Step,
    template: &Template,
    items: Option<Vec<Value>>,
    first: TaskId,
) -> Result<Vec<Event>, Error> {
    let mut scope = run.scope();
    let mut specs = Vec::new();
    let mut affinities = Vec::new();
    for (n, item) in items
        .map_or_else(|| vec![None], |list| list.into_iter().map(Some).collect())
        .into_iter()
        .enumerate()
    {
        if let Some(item) = item {
            scope.insert("item".into(), item);
            scope.insert("index".into(), Value::from(n));
        }
        let mut spec = template.spec(&scope)?;
        spec.of = Some(Membership {
            run: run.id,
            step: step.id.clone(),
            item: n as u32,
        });
        if let StepKind::Each(each) = &step.kind
            && let Some(max) = each.concurrency
        {
            spec.slot = crate::graph::each_slot(run.id, &step.id, max);
        }
        spec.trace = run.trace.map(|_| run.trace_of());
        spec.check()?;
        affinities.push(template.affinity(&scope)?);
        specs.push(spec);
    }
    let wanted: Vec<_> = affinities
        .iter()
        .map(|key| Wanted {
            capability: template.capability.as_ref(),
            affinity: key.as_deref(),
        })
        .collect();
    let shares = run.crew.strategy.share(&run.crew.members, &wanted);
    let tasks = specs
        .into_iter()
        .zip(shares)
        .enumerate()
        .map(|(n, (mut spec, address))| {
            spec.address = address;
            Event::TaskSubmitted {
                task: first.offset(n as u64),
                spec: Arc::new(spec),
                blocked_by: Vec::new(),
                receipt: None,
            }
        });
    Ok(tasks.collect())
}

/// Decides steps that a task of the run adds to it.
pub(crate) fn extend(state: &State, task: &Task, lease: &AttemptRef, steps: &[Step]) -> Decision {
    let Some(of) = &task.spec.of else {
        let text = format!(
            "{} belongs to no run, so there is nothing to extend",
            task.id
        );
        return Decision::refuse(Error::new(Code::RunUnknown, text));
    };
    let Some(run) = state.run(&of.run) else {
        return Decision::refuse(unknown(&of.run));
    };
    if run.status() != RunStatus::Running {
        let text = format!("{} has ended and takes no more steps", run.id);
        return Decision::refuse(Error::new(Code::RunState, text));
    }
    let there = |step: &Step| run.graph.step(&step.id) == Some(step);
    if steps.iter().all(there) {
        return Decision::answer(Outcome::Done);
    }
    let mut graph = (*run.graph).clone();
    graph.steps.extend(steps.iter().cloned());
    if let Err(error) = graph.check() {
        return Decision::refuse(error);
    }
    let extended = Event::RunExtended {
        run: run.id,
        lease: lease.clone(),
        steps: Arc::new(steps.to_vec()),
    };
    Decision::event(extended, Outcome::Done)
}

/// Makes the next move, if there is one; the rows it needs are loaded.
pub(crate) fn advance(state: &State, run: &RunId, now: Time, ids: &mut dyn Ids) -> Decision {
    let Some(run) = state.run(run) else {
        return Decision::refuse(unknown(run));
    };
    let done = Outcome::Done;
    let events = match run.next_move(now) {
        None => return Decision::answer(done),
        Some(Move::Start(n)) => start_step(run, n, now, ids).unwrap_or_else(|error| {
            // The plan cannot go on from here: the step fails with the reason, the run follows.
            vec![ended(run, n, StepEnd::Failed, Some(describe(&error)))]
        }),
        Some(Move::Skip(n)) => vec![ended(run, n, StepEnd::Skipped, None)],
        Some(Move::End(n)) => vec![end_step(state, run, n)],
        Some(Move::Decide { gate, open }) => decide_gate(state, run, gate, open),
        Some(Move::Finish) => vec![finish(run)],
    };
    Decision {
        events,
        outcome: Ok(done),
    }
}

fn ended(run: &Run, n: usize, end: StepEnd, output: Option<Json>) -> Event {
    Event::StepEnded {
        run: run.id,
        step: run.graph.steps[n].id.clone(),
        end,
        output,
    }
}

fn describe(error: &Error) -> Json {
    serde_json::json!({"error": {"code": error.code, "message": error.message}}).into()
}

fn end_step(state: &State, run: &Run, n: usize) -> Event {
    let (step, now) = (&run.graph.steps[n], &run.steps[n]);
    let mut gates = run.gates_over(step).peekable();
    let excused = gates.peek().is_some() && gates.all(|g| run.steps[g].status == StepStatus::Done);
    let clean = now.failed + now.cancelled == 0;
    let end = if clean || excused {
        StepEnd::Done
    } else {
        StepEnd::Failed
    };
    let rows = || now.tasks().filter_map(|id| state.task(&id));
    let output = match &step.kind {
        StepKind::Task(_) if clean => rows().find_map(output_of).cloned(),
        _ if end == StepEnd::Failed => rows().find_map(|task| match &task.state {
            TaskState::Failed { failure, .. } => Some(Json::from(serde_json::json!({
                "error": {"code": failure.code, "message": failure.message}, "task": task.id
            }))),
            _ => None,
        }),
        _ => None,
    };
    ended(run, n, end, output)
}

fn output_of(task: &Task) -> Option<&Json> {
    match &task.state {
        TaskState::Completed { output, .. } => Some(output),
        _ => None,
    }
}

fn decide_gate(state: &State, run: &Run, n: usize, open: bool) -> Vec<Event> {
    let step = &run.graph.steps[n];
    let Some(gate) = step.gate() else {
        return Vec::new();
    };
    let watched = step
        .needs
        .iter()
        .filter_map(|need| run.index(need))
        .map(|n| &run.steps[n]);
    let rows: Vec<&Task> = watched
        .clone()
        .flat_map(StepState::tasks)
        .filter_map(|id| state.task(&id))
        .collect();
    let why = format!(
        "gate “{}” {}",
        step.id,
        if open { "has opened" } else { "cannot open" }
    );
    let mut events: Vec<Event> = rows
        .iter()
        .filter(|t| !t.status().is_terminal())
        .map(|t| cancelled(t, &why))
        .collect();
    let completed: u32 = watched.map(|step| step.completed).sum();
    if gate.reduce == Reduce::Supervisor && (open || completed > 0) {
        let step = step.id.clone();
        events.push(Event::GateAwaitsSupervisor {
            run: run.id,
            step,
            partial: !open,
        });
        return events;
    }
    let (end, output) = match reduce(run, gate, &rows) {
        Ok(output) if open => (StepEnd::Done, Some(output)),
        Ok(output) => (StepEnd::Failed, (completed > 0).then_some(output)),
        Err(error) => (StepEnd::Failed, Some(describe(&error))),
    };
    events.push(ended(run, n, end, output));
    events
}

fn reduce(run: &Run, gate: &Gate, rows: &[&Task]) -> Result<Json, Error> {
    if rows.len() > GATE_TASKS_MAX {
        return Err(Error::limit("tasks at a gate", rows.len(), GATE_TASKS_MAX));
    }
    if gate.reduce == Reduce::Outcomes {
        let outcomes: Vec<Value> = rows.iter().map(|task| outcome_of(task)).collect();
        let output = Json::from_value(&Value::Array(outcomes));
        return match output.bytes() > GATE_OUTPUT_BYTES_MAX {
            false => Ok(output),
            true => Err(Error::limit(
                "bytes in a gate's output",
                output.bytes(),
                GATE_OUTPUT_BYTES_MAX,
            )),
        };
    }
    let mut done: Vec<(u64, &Json)> = rows
        .iter()
        .filter_map(|task| match &task.state {
            TaskState::Completed {
                output, position, ..
            } => Some((*position, output)),
            _ => None,
        })
        .collect();
    if let Join::FirstK(k) = gate.join {
        done.sort_by_key(|(position, _)| *position);
        done.truncate(k as usize);
    }
    let bytes: usize = done.iter().map(|(_, output)| output.bytes()).sum();
    if bytes > GATE_OUTPUT_BYTES_MAX {
        return Err(Error::limit(
            "bytes of outputs at a gate",
            bytes,
            GATE_OUTPUT_BYTES_MAX,
        ));
    }
    let outputs = done.into_iter().map(|(_, output)| output.value()).collect();
    let output = Json::from_value(&gate.reduce.apply(outputs, &mut run.scope())?);
    if output.bytes() > GATE_OUTPUT_BYTES_MAX {
        return Err(Error::limit(
            "bytes in a gate's output",
            output.bytes(),
            GATE_OUTPUT_BYTES_MAX,
        ));
    }
    Ok(output)
}

/// What became of a task, for who reads outcomes.
fn outcome_of(task: &Task) -> Value {
    let task_id = task.id;
    match &task.state {
        TaskState::Completed { output, .. } => {
            serde_json::json!({"task": task_id, "output": output.value()})
        }
        TaskState::Failed { failure, .. } => {
            serde_json::json!({"task": task_id, "failure": failure})
        }
        _ => serde_json::json!({"task": task_id, "failure": {
            "code": "task.cancelled", "message": "it was cancelled", "retryable": false,
        }}),
    }
}

fn finish(run: &Run) -> Event {
    let needed = |step: &Step| {
        run.graph
            .steps
            .iter()
            .any(|other| other.needs.contains(&step.id))
    };
    let sinks: Vec<(&Step, &StepState)> = run
        .graph
        .steps
        .iter()
        .zip(&run.steps)
        .filter(|(step, _)| !needed(step))
        .collect();
    let result = match sinks.as_slice() {
        [(_, only)] => only.output.clone(),
        several => {
            let outputs = several.iter().map(|(step, state)| {
                (
                    step.id.to_string(),
                    state.output.as_ref().map_or(Value::Null, Json::value),
                )
            });
            Some(Json::from_value(&Value::Object(outputs.collect())))
        }
    };
    let bad = run
        .graph
        .steps
        .iter()
        .zip(&run.steps)
        .find(|(_, s)| s.status == StepStatus::Failed);
    match bad {
        None => Event::RunCompleted {
            run: run.id,
            result: result.unwrap_or_default(),
        },
        Some((step, state)) => Event::RunFailed {
            run: run.id,
            failure: failed_step(run, step, state),
            partial: result,
        },
    }
}

fn failed_step(run: &Run, step: &Step, state: &StepState) -> Failure {
    let watched = step
        .needs
        .iter()
        .filter_map(|need| run.index(need))
        .map(|n| &run.steps[n]);
    let sum = |f: fn(&StepState) -> u32| match step.gate() {
        Some(_) => watched.clone().map(f).sum::<u32>(),
        None => f(state),
    };
    let (failed, total) = (sum(|s| s.failed), sum(|s| s.total));
    let mut text = format!("step “{}”: {failed} of {total} tasks failed", step.id);
    if failed == 0 {
        text = format!("step “{}” failed", step.id);
    }
    if let Some(error) = state.output.as_ref().map(Json::value)
        && let Some(message) = error["error"]["message"].as_str()
    {
        text += &format!(": {message}");
    }
    Failure::new("run.step_failed", text)
}

/// The supervisor's reduction of a gate that awaits it.
pub(crate) fn settle(state: &State, run: &RunId, step: &Name, output: &Json) -> Decision {
    let Some(run) = state.run(run) else {
        return Decision::refuse(unknown(run));
    };
    let Some(n) = run.index(step) else {
        let text = format!("{} has no step “{step}”", run.id);
        return Decision::refuse(Error::new(Code::StepUnknown, text));
    };
    if output.bytes() > GATE_OUTPUT_BYTES_MAX {
        return Decision::refuse(Error::limit(
            "bytes in a gate's output",
            output.bytes(),
            GATE_OUTPUT_BYTES_MAX,
        ));
    }
    let end = match (run.status(), run.steps[n].status) {
        (RunStatus::Running, StepStatus::AwaitingSupervisor) => StepEnd::Done,
        (RunStatus::Running, StepStatus::AwaitingPartial) => StepEnd::Failed,
        // Two supervisors reduced the same results: the first answer stands.
        (_, StepStatus::Done | StepStatus::Failed) => {
            return Decision::answer(Outcome::Run(run.id));
        }
        _ => {
            let text = format!(
                "step “{step}” of {} does not wait for its supervisor",
                run.id
            );
            return Decision::refuse(Error::new(Code::RunState, text));
        }
    };
    Decision::event(
        ended(run, n, end, Some(output.clone())),
        Outcome::Run(run.id),
    )
}

/// Stops a run and its open tasks.
pub(crate) fn cancel(state: &State, run: &RunId, reason: &str) -> Decision {
    let Some(run) = state.run(run) else {
        return Decision::refuse(unknown(run));
    };
    match run.status() {
        RunStatus::Cancelled => return Decision::answer(Outcome::Run(run.id)),
        RunStatus::Completed | RunStatus::Failed => {
            let text = format!(
                "{} is {} and cannot be cancelled",
                run.id,
                run.status().as_str()
            );
            return Decision::refuse(Error::new(Code::RunState, text));
        }
        RunStatus::Running => {}
    }
    let open = run
        .tasks()
        .filter_map(|id| state.task(&id))
        .filter(|t| !t.status().is_terminal());
    let mut events: Vec<Event> = open.map(|task| cancelled(task, reason)).collect();
    events.push(Event::RunCancelled {
        run: run.id,
        reason: cut(reason).to_owned(),
    });
    Decision {
        events,
        outcome: Ok(Outcome::Run(run.id)),
    }
}

/// A failed or cancelled run goes on with what failed or was cancelled.
pub(crate) fn retry(state: &State, run: &RunId) -> Decision {
    let Some(run) = state.run(run) else {
        return Decision::refuse(unknown(run));
    };
    match run.status() {
        RunStatus::Failed | RunStatus::Cancelled => {}
        status => {
            let text = format!(
                "{} is {}; only a failed or cancelled run can be retried",
                run.id,
                status.as_str()
            );
            return Decision::refuse(Error::new(Code::RunState, text));
        }
    }
    let ended = |task: &&Task| matches!(task.status(), TaskStatus::Failed | TaskStatus::Cancelled);
    let mut events = vec![Event::RunReopened { run: run.id }];
    // A step that is done stays done: what its gate cancelled is not wanted any more.
    let open = run.steps.iter().filter(|s| s.status != StepStatus::Done);
    let tasks = open
        .flat_map(StepState::tasks)
        .filter_map(|id| state.task(&id))
        .filter(ended);
    events.extend(tasks.map(|task| redriven(state, task)));
    Decision {
        events,
        outcome: Ok(Outcome::Run(run.id)),
    }
}

/// Opens the run of a task again that is to be done again, if that run has ended.
///
/// # Errors
/// [`Code::RunState`] when it has completed without the task: nobody would wait for it.
pub(crate) fn reopen_for(state: &State, task: &Task) -> Result<Vec<Event>, Error> {
    let Some(run) = task.spec.of.as_ref().and_then(|of| state.run(&of.run)) else {
        return Ok(Vec::new());
    };
    match run.status() {
        RunStatus::Failed | RunStatus::Cancelled => Ok(vec![Event::RunReopened { run: run.id }]),
        RunStatus::Completed => {
            let text = format!("{} has completed without {}", run.id, task.id);
            Err(Error::new(Code::RunState, text).hint(
                "What it made does not change any more; start a run anew for what is missing.",
            ))
        }
        RunStatus::Running => Ok(Vec::new()),
    }
}

fn unknown(run: &RunId) -> Error {
    Error::new(Code::RunUnknown, format!("there is no run {run}"))
}
