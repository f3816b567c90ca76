//! A world small enough to keep in memory: commands are decided and their events folded as a store
//! would, and after each command everything that must always hold is checked by recounting.

use domain::budget::{Budget, Ledger};
use domain::command::{Claimant, Command, Outcome, Report, RunStart, Submission, follow_up};
use domain::decide::decide;
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Event, Recorded};
use domain::graph::Graph;
use domain::id::{CountedIds, RunId, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::record::{Finding, RecordState};
use domain::run::{Crew, Run, RunStatus, StepState};
use domain::state::{Key, Row, State};
use domain::statistics::Tally;
use domain::task::{Address, Failure, Place, Task, TaskSpec, TaskState, TaskStatus, Waits};
use domain::time::Time;
use domain::worker::{Worker, WorkerSpec};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A name.
pub(crate) fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A task of type `work` with this input.
pub(crate) fn spec(input: Value) -> TaskSpec {
    TaskSpec::new(n("work"), input.into())
}

/// A graph written as it would be in a file.
pub(crate) fn graph(steps: Value) -> Graph {
    serde_json::from_value(serde_json::json!({"steps": steps})).unwrap()
}

/// A run of a graph, with nobody named.
pub(crate) fn start(steps: Value) -> RunStart {
    RunStart {
        goal: "test".into(),
        supervisor: n("supervisor_1"),
        graph: graph(steps),
        crew: Crew::default(),
        metadata: BTreeMap::new(),
        key: None,
        trace: None,
        budget: Some(Budget {
            tokens: Some(1_000),
            ..Budget::default()
        }),
    }
}

/// More moves than any run of these tests makes; a run that goes on is a run that never stops.
const MOVES_MAX: usize = 5_000;

#[derive(Default)]
struct Witness {
    /// The lease that is current, by task: what a fencing token is compared with.
    held: BTreeMap<TaskId, (u32, Name)>,
    attempts: BTreeMap<TaskId, u32>,
    completed: BTreeSet<TaskId>,
    /// Steps that are done: no other word about them may be an event.
    done: BTreeSet<(TaskId, Name)>,
    refused: u64,
}

impl Witness {
    /// Judges the log alone, without any row.
    fn see(&mut self, event: &Event) {
        let current = |held: &BTreeMap<TaskId, (u32, Name)>, lease: &AttemptRef| {
            let token = (lease.attempt, lease.worker.clone());
            assert_eq!(
                held.get(&lease.task),
                Some(&token),
                "{} with a stale token",
                event.name()
            );
        };
        match event {
            Event::TaskAssigned { lease, .. } => {
                let before = self.attempts.insert(lease.task, lease.attempt);
                assert_eq!(
                    lease.attempt,
                    before.unwrap_or(0) + 1,
                    "a token is used once"
                );
                let token = (lease.attempt, lease.worker.clone());
                let other = self.held.insert(lease.task, token);
                assert_eq!(other, None, "two leases of {}", lease.task);
            }
            Event::TaskStarted { lease, .. }
            | Event::TaskProgressed { lease, .. }
            | Event::TaskYieldAsked { lease, .. } => current(&self.held, lease),
            Event::RecordNoted { lease, record, .. } => {
                current(&self.held, lease);
                let step = (lease.task, record.key.clone());
                if let RecordState::Done { .. } = &record.state {
                    assert!(self.done.insert(step), "{} is done twice", record.key);
                } else {
                    assert!(!self.done.contains(&step), "{} was done", record.key);
                }
            }
            Event::RecordResolved {
                task, key, finding, ..
            } => {
                let step = (*task, key.clone());
                assert!(!self.done.contains(&step), "{key} was done");
                if matches!(finding, Finding::Done { .. }) {
                    self.done.insert(step);
                }
            }
            Event::TaskCompleted { lease, .. } => {
                current(&self.held, lease);
                self.held.remove(&lease.task);
                assert!(
                    self.completed.insert(lease.task),
                    "{} completed twice",
                    lease.task
                );
            }
            Event::AttemptEnded { lease, .. } => {
                current(&self.held, lease);
                self.held.remove(&lease.task);
            }
            Event::TaskCancelled { task, lease, .. } => {
                assert_eq!(self.held.contains_key(task), lease.is_some());
                if let Some(lease) = lease {
                    current(&self.held, lease);
                }
                self.held.remove(task);
                assert!(!self.completed.contains(task));
            }
            Event::TaskFailed { task, .. } | Event::TaskRedriven { task, .. } => {
                assert!(!self.held.contains_key(task));
                assert!(!self.completed.contains(task));
            }
            Event::ResultRefused { .. } => self.refused += 1,
            _ => {}
        }
    }
}

/// The rows, the log they are the fold of, and the clock.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) log: Vec<Recorded>,
    pub(crate) now: Time,
    /// What the log gives when it is read back from its JSON.
    replay: State,
    ids: CountedIds,
    witness: Witness,
    /// Recounts after each command; off only where a world is too large for it.
    pub(crate) recounts: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            state: State::default(),
            log: Vec::new(),
            now: Time(1_000_000),
            replay: State::default(),
            ids: CountedIds::new(7),
            witness: Witness::default(),
            recounts: true,
        }
    }

    /// A world with these workers, each with room for one task.
    pub(crate) fn with_workers(workers: &[&str]) -> Self {
        let mut world = Self::new();
        for worker in workers {
            world.register(WorkerSpec::new(n(worker)));
        }
        world
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Decides, folds, follows up, checks; gives the answer.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Outcome, Error> {
        let from = self.log.len();
        let outcome = self.decide(&command);
        if self.recounts && self.log.len() > from {
            let mut keys = Vec::new();
            for recorded in &self.log[from..] {
                recorded.event.touches(&mut keys);
            }
            keys.iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .for_each(|key| self.check_row(key));
            self.check_counts();
        }
        outcome
    }

    fn decide(&mut self, command: &Command) -> Result<Outcome, Error> {
        let first = self.log.len();
        let outcome = self.step(command);
        let mut runs = BTreeSet::new();
        let mut seen = first;
        for _ in 0..MOVES_MAX {
            for recorded in &self.log[seen..] {
                let mut keys = Vec::new();
                recorded.event.touches(&mut keys);
                runs.extend(keys.into_iter().filter(|key| matches!(key, Key::Run(_))));
            }
            seen = self.log.len();
            let next = runs
                .iter()
                .find_map(|key| follow_up(&self.state, key, self.now));
            let Some(next) = next else { return outcome };
            self.step(&next).unwrap();
            assert!(
                self.log.len() > seen,
                "a move without an event would never end"
            );
        }
        panic!("{command:?} never comes to rest");
    }

    /// One decision, over all rows and over only those the command names: they must agree.
    fn step(&mut self, command: &Command) -> Result<Outcome, Error> {
        let named = self.named(command);
        let mut ids = self.ids.clone();
        let decision = decide(&self.state, command, self.now, &mut self.ids);
        let again = decide(&named, command, self.now, &mut ids);
        assert_eq!(
            decision, again,
            "{command:?} reads rows that it does not name"
        );
        for event in decision.events {
            self.record(event);
        }
        decision.outcome
    }

    fn named(&self, command: &Command) -> State {
        let mut named = State::default();
        loop {
            let mut keys = Vec::new();
            command.needs(&named, self.now, &mut keys);
            let before = named.len();
            for key in keys {
                let row = self.state.get(&key).cloned();
                named.put(key, row);
            }
            if named.len() == before {
                return named;
            }
        }
    }

    fn record(&mut self, event: Event) {
        self.witness.see(&event);
        let recorded = Recorded {
            position: self.log.len() as u64 + 1,
            at: self.now,
            cause: None,
            by: None,
            event,
        };
        let text = serde_json::to_string(&recorded).unwrap();
        let read: Recorded = serde_json::from_str(&text).unwrap();
        assert_eq!(read, recorded, "{text}");
        let mut keys = Vec::new();
        recorded.event.touches(&mut keys);
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(
            keys.len(),
            all,
            "{} touches a row twice",
            recorded.event.name()
        );
        for key in &keys {
            self.state.evolve(key, &recorded);
            self.replay.evolve(key, &read);
        }
        self.log.push(recorded);
    }

    /// Everything that must hold at every instant.
    pub(crate) fn check(&self) {
        self.check_rows();
        self.check_counts();
    }

    /// The rows are what the log gives when it is read back.
    pub(crate) fn check_rows(&self) {
        let rows: BTreeSet<&Key> = self.state.iter().map(|(key, _)| key).collect();
        assert_eq!(rows, self.replay.iter().map(|(key, _)| key).collect());
        rows.into_iter().for_each(|key| self.check_row(key));
    }

    /// Also as stored bytes.
    fn check_row(&self, key: &Key) {
        let (row, replayed) = (self.state.get(key), self.replay.get(key));
        assert_eq!(row, replayed, "{key:?} is the fold of the log");
        let (Some(row), Some(replayed)) = (row, replayed) else {
            return;
        };
        let (mut bytes, mut again) = (Vec::new(), Vec::new());
        row.to_json(&mut bytes).unwrap();
        replayed.to_json(&mut again).unwrap();
        assert_eq!(
            bytes, again,
            "{key:?} is stored as a replay stores it, byte for byte"
        );
        assert_eq!(
            Row::from_json(key, &bytes).unwrap(),
            *row,
            "{key:?} reads back"
        );
    }

    fn check_counts(&self) {
        self.check_tally();
        self.check_leases();
        self.check_surroundings();
    }

    fn check_tally(&self) {
        let tally = self.tally();
        assert!(tally.adds_up(), "{tally:?}");
        let count = |status| self.tasks().filter(|task| task.status() == status).count() as u64;
        let counted = TaskStatus::ALL.map(count);
        let told = [
            tally.pending,
            tally.assigned,
            tally.in_progress,
            tally.completed,
            tally.failed,
            tally.cancelled,
        ];
        assert_eq!(told, counted);
        assert_eq!(tally.submitted, self.tasks().count() as u64);
        assert_eq!(tally.by_type.values().sum::<u64>(), tally.submitted);
        assert_eq!(tally.by_worker.values().sum::<u64>(), tally.completed);
        assert_eq!(
            tally.attempts,
            self.tasks()
                .map(|task| u64::from(task.attempts))
                .sum::<u64>()
        );
        assert_eq!(tally.refused, self.witness.refused);
        let open = self
            .runs()
            .filter(|run| run.status() == RunStatus::Running)
            .count();
        assert_eq!(
            (tally.runs, tally.runs_open),
            (self.runs().count() as u64, open as u64)
        );
    }

    fn check_leases(&self) {
        let mut held: BTreeMap<Name, BTreeMap<TaskId, u32>> = BTreeMap::new();
        for task in self.tasks() {
            let lease = task
                .lease()
                .map(|lease| (lease.attempt, lease.worker.clone()));
            assert_eq!(
                lease.as_ref(),
                self.witness.held.get(&task.id),
                "{}",
                task.id
            );
            if let Some((attempt, worker)) = lease {
                held.entry(worker).or_default().insert(task.id, attempt);
            }
            let TaskState::Pending { blocked_by, .. } = &task.state else {
                continue;
            };
            for by in blocked_by {
                let by = self.task(*by);
                assert_ne!(
                    by.status(),
                    TaskStatus::Completed,
                    "{} waits for the past",
                    task.id
                );
                assert!(
                    by.dependents.contains(&task.id),
                    "nobody will unblock {}",
                    task.id
                );
            }
        }
        for (key, row) in self.state.iter() {
            if let (Key::Worker(id), Row::Worker(worker)) = (key, row) {
                assert_eq!(worker.holds, held.remove(id).unwrap_or_default(), "{id}");
            }
        }
        assert!(held.is_empty(), "leases of nobody: {held:?}");
    }

    fn check_surroundings(&self) {
        let mut steps: BTreeMap<(RunId, &Name), Vec<&Task>> = BTreeMap::new();
        for task in self.tasks() {
            if let Some(of) = &task.spec.of {
                steps.entry((of.run, &of.step)).or_default().push(task);
            }
        }
        let mut boards: BTreeMap<Option<RunId>, u32> = BTreeMap::new();
        for (key, row) in self.state.iter() {
            if let (Key::Entry(_), Row::Entry(entry)) = (key, row) {
                *boards.entry(entry.run).or_default() += 1;
            }
        }
        for (key, row) in self.state.iter() {
            match (key, row) {
                (Key::Slot(id), Row::Slot(slot)) => {
                    let in_slot =
                        |task: &&Task| task.spec.slot.as_ref().is_some_and(|s| s.key == *id);
                    let running = self.leased().filter(in_slot).count() as u32;
                    assert_eq!(slot.running, running, "{id}");
                    assert!(
                        slot.running <= slot.max,
                        "{id} runs {running} of {}",
                        slot.max
                    );
                }
                (Key::Queue(id), Row::Queue(queue)) => {
                    let of = |task: &&Task| task.spec.queue == *id;
                    let pending = |task: &&Task| task.status() == TaskStatus::Pending;
                    assert_eq!(
                        queue.leased,
                        self.leased().filter(of).count() as u64,
                        "{id}"
                    );
                    assert_eq!(
                        queue.pending,
                        self.tasks().filter(of).filter(pending).count() as u64
                    );
                }
                (Key::Board(run), Row::Board(board)) => {
                    assert_eq!(board.entries, boards.get(run).copied().unwrap_or_default());
                }
                (Key::Account(run), Row::Account(account)) => {
                    let of = |task: &&Task| task.spec.of.as_ref().is_some_and(|of| of.run == *run);
                    let tasks = self.tasks().filter(of).map(|task| task.account);
                    let sum = tasks.fold(Ledger::default(), |sum, task| Ledger {
                        spent: sum.spent.plus(task.spent),
                        held: sum.held.plus(task.held),
                    });
                    assert_eq!(account.ledger, sum, "the sum of the children of {run}");
                }
                (Key::Run(_), Row::Run(run)) => self.check_steps(run, &steps),
                _ => {}
            }
        }
    }

    fn check_steps(&self, run: &Run, of: &BTreeMap<(RunId, &Name), Vec<&Task>>) {
        for (step, told) in run.graph.steps.iter().zip(&run.steps) {
            let tasks = of.get(&(run.id, &step.id)).map_or(&[][..], Vec::as_slice);
            let count = |status| tasks.iter().filter(|task| task.status() == status).count() as u32;
            let counted = StepState {
                total: tasks.len() as u32,
                leased: count(TaskStatus::Assigned) + count(TaskStatus::InProgress),
                completed: count(TaskStatus::Completed),
                failed: count(TaskStatus::Failed),
                cancelled: count(TaskStatus::Cancelled),
                ..told.clone()
            };
            assert_eq!(*told, counted, "step {} of {}", step.id, run.id);
            let ids: BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
            assert_eq!(ids, told.tasks().collect(), "a run finds its tasks");
        }
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.state.iter().filter_map(|(_, row)| match row {
            Row::Task(task) => Some(&**task),
            _ => None,
        })
    }

    fn leased(&self) -> impl Iterator<Item = &Task> {
        self.tasks().filter(|task| task.lease().is_some())
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.state.iter().filter_map(|(_, row)| match row {
            Row::Run(run) => Some(&**run),
            _ => None,
        })
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.state.iter().filter_map(|(_, row)| match row {
            Row::Worker(worker) => Some(&**worker),
            _ => None,
        })
    }

    pub(crate) fn tally(&self) -> Tally {
        match self.state.get(&Key::Tally) {
            Some(Row::Tally(tally)) => (**tally).clone(),
            _ => Tally::default(),
        }
    }

    pub(crate) fn task(&self, id: TaskId) -> &Task {
        self.state.task(&id).unwrap()
    }

    pub(crate) fn status(&self, id: TaskId) -> TaskStatus {
        self.task(id).status()
    }

    pub(crate) fn worker(&self, id: &str) -> &Worker {
        self.state.worker(&n(id)).unwrap()
    }

    pub(crate) fn run(&self, id: RunId) -> &Run {
        self.state.run(&id).unwrap()
    }

    /// The result of a run, or what there is of one.
    pub(crate) fn result(&self, id: RunId) -> Option<Value> {
        self.run(id).result().map(Json::value)
    }

    pub(crate) fn step_state(&self, run: RunId, step: &str) -> &StepState {
        let run = self.run(run);
        let index = run.graph.steps.iter().position(|known| known.id == n(step));
        &run.steps[index.unwrap()]
    }

    /// The tasks of a run's step, in the order of its items.
    pub(crate) fn step_tasks(&self, run: RunId, step: &str) -> Vec<TaskId> {
        self.step_state(run, step).tasks().collect()
    }

    /// Names of the events after the first `from`.
    pub(crate) fn names(&self, from: usize) -> Vec<&'static str> {
        self.log[from..]
            .iter()
            .map(|recorded| recorded.event.name())
            .collect()
    }

    /// Why a task waits.
    pub(crate) fn waits(&self, id: TaskId) -> Option<Waits> {
        let task = self.task(id);
        let paused = self
            .state
            .queue(&task.spec.queue)
            .is_some_and(|queue| queue.paused);
        let slot = task.spec.slot.as_ref();
        let running = slot.map_or(0, |slot| self.state.slot_running(&slot.key));
        task.waits_for(self.now, paused, running, self.workers())
    }

    /// The code with which a command is refused.
    pub(crate) fn refusal(&mut self, command: Command) -> Code {
        self.ask(command).unwrap_err().code
    }

    pub(crate) fn register(&mut self, spec: WorkerSpec) {
        self.ask(Command::WorkerRegister(Arc::new(spec))).unwrap();
    }

    pub(crate) fn submit(&mut self, spec: TaskSpec) -> TaskId {
        match self
            .ask(Command::TaskSubmit(Submission::new(spec)))
            .unwrap()
        {
            Outcome::Task(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Claims without starting.
    pub(crate) fn claim(&mut self, task: TaskId, worker: &str) -> Result<AttemptRef, Error> {
        let command = Command::TaskClaim {
            task,
            by: Claimant::new(n(worker), false),
        };
        self.ask(command).map(|outcome| match outcome {
            Outcome::Leased(lease) => lease,
            other => panic!("{other:?}"),
        })
    }

    /// Claims what goes first among what this worker may take, as a store does.
    pub(crate) fn next(&mut self, worker: &str) -> Option<AttemptRef> {
        let mut places: Vec<(Place, TaskId)> = self
            .tasks()
            .filter_map(|task| Some((task.place()?, task.id)))
            .collect();
        places.sort();
        places
            .into_iter()
            .find_map(|(_, task)| self.claim(task, worker).ok())
    }

    pub(crate) fn report(&mut self, lease: &AttemptRef, report: Report) -> Result<Outcome, Error> {
        let lease = lease.clone();
        self.ask(Command::TaskReport { lease, report })
    }

    pub(crate) fn complete(&mut self, lease: &AttemptRef, output: Value) {
        let output = output.into();
        self.report(lease, Report::Completed { output }).unwrap();
    }

    pub(crate) fn fail(&mut self, lease: &AttemptRef, failure: Failure) {
        self.report(lease, Report::Failed { failure }).unwrap();
    }

    pub(crate) fn release(&mut self, lease: &AttemptRef) {
        let report = Report::Released {
            reason: "yield".into(),
            checkpoint: None,
            after_ms: 0,
        };
        self.report(lease, report).unwrap();
    }

    /// Claims and completes one task.
    pub(crate) fn finish(&mut self, task: TaskId, worker: &str, output: Value) {
        let lease = self.claim(task, worker).unwrap();
        self.complete(&lease, output);
    }

    /// Claims a task and fails it for good.
    pub(crate) fn give_up(&mut self, task: TaskId, worker: &str) {
        let lease = self.claim(task, worker).unwrap();
        self.fail(&lease, Failure::permanent("no.good", "it cannot be done"));
    }

    pub(crate) fn lose(&mut self, worker: &str) {
        let command = Command::WorkerLose {
            worker: n(worker),
            session: None,
            reason: "its process ended".into(),
        };
        self.ask(command).unwrap();
    }

    pub(crate) fn cancel(&mut self, task: TaskId) {
        let reason = "not wanted".into();
        self.ask(Command::TaskCancel { task, reason }).unwrap();
    }

    pub(crate) fn reassign(&mut self, task: TaskId, to: Address) {
        self.ask(Command::TaskReassign { task, to }).unwrap();
    }

    pub(crate) fn redrive(&mut self, task: TaskId) {
        self.ask(Command::TaskRedrive(task)).unwrap();
    }

    /// Starts a run.
    pub(crate) fn start(&mut self, new: RunStart) -> RunId {
        match self.ask(Command::RunStart(Box::new(new))).unwrap() {
            Outcome::Run(id) => id,
            other => panic!("{other:?}"),
        }
    }
}
