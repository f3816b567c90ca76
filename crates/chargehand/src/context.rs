//! What a handler gets: its brief, and the ways to speak while it runs.

use crate::speech::{Speaker, Speech};
use domain::blackboard::{NewEntry, Provenance};
use domain::budget::{Amount, Cost};
use domain::command::Report;
use domain::error::{Code, Error};
use domain::graph::Step;
use domain::id::EntryId;
use domain::json::Json;
use domain::limits::{NAME_BYTES_MAX, PAGE_MAX};
use domain::name::Name;
use domain::record::{EffectClass, NewRecord, Record, RecordState};
use domain::task::Failure;
use protocol::Api;
use protocol::api::Work;
use protocol::speech::Said;
use protocol::v1::Assignment;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Shortest and longest pause, in milliseconds, before a record that was not heard is said again.
const PAUSE_MS: std::ops::Range<u64> = 50..5_000;

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
    pub(crate) records: Records,
    pub(crate) speech: Speech,
    /// Who speaks.
    pub(crate) agent: Name,
}

/// Where each step stands, as far as this attempt knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records(Arc<Mutex<BTreeMap<Name, Known>>>);

type Known = (EffectClass, RecordState);

impl Records {
    /// Those of the assignment, and the pages of them that did not fit into it.
    pub(crate) async fn of(assignment: &Assignment, api: &dyn Api) -> Result<Self, Error> {
        let known = |record: Record| (record.key, (record.effect, record.state));
        let first = assignment.records.iter().cloned();
        let mut by_key: BTreeMap<Name, Known> = first.map(known).collect();
        let mut next = assignment.records_next.clone();
        let mut pause = PAUSE_MS.start;
        while next.is_some() {
            let page = api.record_list(assignment.task_id, next.clone(), PAGE_MAX);
            match page.await {
                Ok(page) => {
                    by_key.extend(page.items.into_iter().map(known));
                    next = page.next;
                    pause = PAUSE_MS.start;
                }
                Err(error) if error.code.retryable() && pause <= PAUSE_MS.end => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    pause *= 2;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self(Arc::new(Mutex::new(by_key))))
    }

    fn get(&self, key: &Name) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).cloned()
    }

    /// Whether a step begins now, and nobody else in this attempt is at it or has done it.
    fn begin(&self, key: &Name, effect: EffectClass) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert(key.clone(), (effect, RecordState::Intended));
        match before {
            Some((known, state @ (RecordState::Intended | RecordState::Done { .. })))
                if !known.is_repeatable() =>
            {
                all.insert(key.clone(), (known, state));
                false
            }
            _ => true,
        }
    }

    fn put(&self, key: &Name, known: Known) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key.clone(), known);
    }
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

    /// Who speaks in it: the agent that was named by [`Context::speaking_as`], or the worker.
    pub fn speaker(&self) -> &Name {
        &self.agent
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
        let note = note.into();
        self.report(Report::Progressed { fraction, note }).await
    }

    /// Says aloud what goes on, for whoever follows the run's stream
    /// ([`run_stream`](protocol::ApiRead::run_stream)). It waits for nobody and costs next to nothing:
    /// words are collected for 50 ms, what finds no room is dropped, and nothing is on disk. A task
    /// without a run is not heard. Arguments of tools are cut after 1,024 bytes; keep secrets out.
    ///
    /// ```
    /// use chargehand::{Context, Ended, Said};
    /// async fn greet(task: Context) -> Ended {
    ///     let turn = task.next_turn();
    ///     task.say(Said::TurnBegan { turn });
    ///     for word in ["Hello, ", "world."] {
    ///         task.say(Said::Text { turn, text: word.into() });
    ///     }
    ///     task.say(Said::TurnEnded { turn, whole: true });
    ///     Ended::done(serde_json::json!("Hello, world."))
    /// }
    /// # fn handler(_: impl chargehand::Handler) {}
    /// # handler(greet);
    /// ```
    pub fn say(&self, said: Said) {
        self.speech.say(&self.agent, said, || Speaker {
            api: Arc::clone(&self.api),
            worker: self.worker.clone(),
            task: self.assignment.task_id,
            attempt: self.assignment.attempt,
        });
    }

    /// The number of the next turn of a model in this attempt, from 1.
    pub fn next_turn(&self) -> u32 {
        self.speech.next_turn()
    }

    /// The same attempt, in which another agent speaks; without, it is the worker. A name that is
    /// none is cut to one.
    #[must_use]
    pub fn speaking_as(&self, agent: &str) -> Self {
        let short = &agent[..agent.floor_char_boundary(NAME_BYTES_MAX)];
        Self {
            agent: Name::new(short.trim()).unwrap_or_else(|_| self.agent.clone()),
            ..self.clone()
        }
    }

    /// Adds steps to the task's run, behind those that are there. The same said again, by another
    /// attempt, changes nothing.
    ///
    /// # Errors
    /// `graph.invalid` for steps that do not fit the run's graph; `run.unknown` when the task belongs to
    /// none; `attempt.stale`.
    pub async fn extend_run(&self, steps: Vec<Step>) -> Result<(), Error> {
        self.report(Report::Extended { steps }).await
    }

    async fn report(&self, report: Report) -> Result<(), Error> {
        let reports = vec![(self.assignment.task_id, self.assignment.attempt, report)];
        let work = Work {
            worker: self.worker.clone(),
            session: None,
            reports,
            claim: None,
        };
        self.api.work(work).await?.reports.pop().unwrap_or(Ok(()))
    }

    /// Does one step of the work, a model call or a tool call, at most once as far as that is
    /// possible: what an earlier attempt finished under this `key` is given back without calling
    /// `run`; otherwise the step is announced (unless it is [`Pure`](EffectClass::Pure)), run, and
    /// its outcome kept. `effect` says what doing it twice would mean.
    ///
    /// `run` fails with a [`Failure`] when nothing happened, so that another attempt may do it
    /// again; and with [`Failure::in_doubt`] when it may have happened, because no answer came, say.
    ///
    /// ```
    /// use chargehand::{Context, EffectClass, Ended, Failure};
    /// async fn draft_and_charge(task: Context) -> Ended {
    ///     let draft = task.step("draft", EffectClass::Pure, || async { Ok("Dear Ms Lee".into()) });
    ///     let draft = match draft.await {
    ///         Ok(draft) => draft,
    ///         Err(failure) => return Ended::Failed(failure),
    ///     };
    ///     let charge = || async {
    ///         // The bank was asked, and did not answer in time.
    ///         Err(Failure::in_doubt("no answer within 30 s"))
    ///     };
    ///     match task.step("charge", EffectClass::AtMostOnce, charge).await {
    ///         Ok(receipt) => Ended::done(serde_json::json!({"draft": draft, "receipt": receipt})),
    ///         Err(failure) => Ended::Failed(failure),
    ///     }
    /// }
    /// # use chargehand::{Api, ApiRead, Submission, TaskSpec, Worker};
    /// # use engine::{Engine, Place};
    /// # use std::sync::Arc;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let engine = Arc::new(Engine::open(&Place::Memory)?);
    /// # let worker = Worker::new("worker_1")?.handle("order", draft_and_charge)?;
    /// # let worker = worker.start(engine.clone()).await?;
    /// # let spec = TaskSpec::new("order".parse()?, chargehand::Json::default());
    /// # let task = engine.task_submit(vec![Submission::new(spec)]).await?.remove(0)?;
    /// # engine.task_wait(task, std::time::Duration::from_secs(30)).await?;
    /// # let done = engine.task_get(task).await?;
    /// // Nobody charges again: the task is a dead letter until a person has looked.
    /// # let failure = done.failure.unwrap();
    /// assert_eq!(failure.code, "record.in_doubt");
    /// # let states = done.records.iter().map(|record| record.state.as_str());
    /// # assert_eq!(states.collect::<Vec<_>>(), ["done", "in_doubt"]);
    /// # worker.stop().await?;
    /// # Ok::<(), chargehand::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// What `run` failed with. `record.in_doubt`, permanently, when the step may have happened and
    /// must not be done again (`verify_first` and `at_most_once`): a person finds out, resolves the
    /// record and redrives the task. The engine's own refusals, under their codes.
    pub async fn step<F, Fut>(
        &self,
        key: &str,
        effect: EffectClass,
        run: F,
    ) -> Result<Value, Failure>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Value, Failure>>,
    {
        let key: Name = key.parse()?;
        if let Some(known) = self.known(&key) {
            return known;
        }
        let run = || async { (run().await, None) };
        self.run_step(key, effect, None, run).await
    }

    /// As [`step`](Self::step), for a step that costs: `cost` is the most it will be, and is reserved
    /// before `run` begins; `run` says what it really was, also when it failed.
    ///
    /// # Errors
    /// As [`step`](Self::step); `budget.exhausted` when the budget of the task's run does not allow
    /// it: then `run` was not called.
    pub async fn step_costing<F, Fut>(
        &self,
        key: &str,
        effect: EffectClass,
        cost: Cost,
        run: F,
    ) -> Result<Value, Failure>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = (Result<Value, Failure>, Amount)>,
    {
        let key: Name = key.parse()?;
        if let Some(known) = self.known(&key) {
            return known;
        }
        let run = || async {
            let (outcome, amount) = run().await;
            (outcome, Some(amount))
        };
        self.run_step(key, effect, Some(cost), run).await
    }

    /// Says, while a step goes on, that it is going to cost this in all, not what was said when it
    /// began: because it has to be tried again, say.
    ///
    /// # Errors
    /// `budget.exhausted` when the budget of the task's run does not allow it: then what was said
    /// before holds.
    pub async fn reserve(&self, key: &str, effect: EffectClass, cost: Cost) -> Result<(), Failure> {
        if self.assignment.run_id.is_none() {
            return Ok(());
        }
        let key: Name = key.parse()?;
        self.tell(&key, effect, &RecordState::Intended, Some(cost))
            .await
    }

    /// Whether a step has its outcome: what an earlier attempt did is read, not done.
    pub fn is_done(&self, key: &str) -> bool {
        let state = key
            .parse()
            .ok()
            .and_then(|key: Name| self.records.get(&key));
        matches!(state, Some((_, RecordState::Done { .. })))
    }

    /// A step that may have happened and must not be done again before somebody has said how it was,
    /// if there is one.
    pub fn in_doubt(&self) -> Option<Name> {
        let known = self
            .records
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_open = |(effect, state): &Known| {
            matches!(state, RecordState::InDoubt) && !effect.is_repeatable()
        };
        known
            .iter()
            .find_map(|(key, known)| is_open(known).then(|| key.clone()))
    }

    /// What there is to say of a step without doing it.
    fn known(&self, key: &Name) -> Option<Result<Value, Failure>> {
        match self.records.get(key)? {
            (_, RecordState::Done { output }) => Some(Ok(output.value())),
            // A step of this attempt that was dropped half-way may have happened, too.
            (known, RecordState::InDoubt | RecordState::Intended) if !known.is_repeatable() => {
                let text = format!("step “{key}” may or may not have happened");
                Some(Err(Failure::in_doubt(text)))
            }
            _ => None,
        }
    }

    /// As [`step`](Self::step) with [`EffectClass::VerifyFirst`]: when the step may have happened,
    /// `verify` finds out. It gives the output when it did, nothing when it did not; then the step
    /// is done.
    ///
    /// ```
    /// # use chargehand::{Context, Failure};
    /// # async fn example(task: Context) -> Result<serde_json::Value, Failure> {
    /// # async fn search(_: &str) -> Result<Option<serde_json::Value>, Failure> { Ok(None) }
    /// # async fn post(key: &str) -> Result<serde_json::Value, Failure> { Ok(key.into()) }
    /// let key = task.idempotency_key();
    /// task.step_verified("post", || post(&key), || search(&key)).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `run` or `verify` failed with. When it is in doubt whether `run` did it, another attempt
    /// verifies.
    pub async fn step_verified<F, Fut, V, Found>(
        &self,
        key: &str,
        run: F,
        verify: V,
    ) -> Result<Value, Failure>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Value, Failure>>,
        V: FnOnce() -> Found,
        Found: Future<Output = Result<Option<Value>, Failure>>,
    {
        const EFFECT: EffectClass = EffectClass::VerifyFirst;
        let name: Name = key.parse()?;
        let known = self.records.get(&name);
        // One that was intended as harmless is simply done again.
        let open = matches!(
            known,
            Some((EFFECT, RecordState::InDoubt | RecordState::Intended))
        );
        if open {
            if let Some(found) = verify().await? {
                let output = Json::from(found.clone());
                self.note(&name, EFFECT, RecordState::Done { output }, None)
                    .await?;
                return Ok(found);
            }
            let failure = Failure::new("step.not_done", "looked for, and it had not happened");
            self.note(&name, EFFECT, RecordState::Failed { failure }, None)
                .await?;
        }
        let outcome = self.step(key, EFFECT, run).await;
        outcome.map_err(|failure| Failure {
            retryable: failure.retryable || is_in_doubt(&failure) && self.verifies(&name),
            ..failure
        })
    }

    /// Whether the next attempt can find out what became of a step.
    fn verifies(&self, key: &Name) -> bool {
        self.records
            .get(key)
            .is_some_and(|known| known.0 == EffectClass::VerifyFirst)
    }

    async fn run_step<F, Fut>(
        &self,
        key: Name,
        effect: EffectClass,
        cost: Option<Cost>,
        run: F,
    ) -> Result<Value, Failure>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = (Result<Value, Failure>, Option<Amount>)>,
    {
        // What is harmless and costs no budget needs no word before it: nobody would do anything else
        // for it.
        let reserves = cost.is_some() && self.assignment.run_id.is_some();
        let announced = effect != EffectClass::Pure || reserves;
        if announced {
            self.tell(&key, effect, &RecordState::Intended, cost)
                .await?;
        }
        if !self.records.begin(&key, effect) {
            let text = format!("step “{key}” was begun elsewhere in this attempt");
            return Err(Failure::new(Code::RecordState.as_str(), text));
        }
        let (ran, amount) = run().await;
        let (outcome, state) = match ran {
            Ok(value) => {
                let output = Json::from(value.clone());
                (Ok(value), RecordState::Done { output })
            }
            // Nothing was said of it, and there is nothing to find out: another attempt does it again.
            Err(failure) if is_in_doubt(&failure) && !announced => {
                return Err(Failure {
                    retryable: true,
                    ..failure
                });
            }
            Err(failure) if is_in_doubt(&failure) => {
                // Harmless to repeat: another attempt does.
                let retryable = failure.retryable || effect.is_repeatable();
                (
                    Err(Failure {
                        retryable,
                        ..failure
                    }),
                    RecordState::InDoubt,
                )
            }
            Err(failure) => (Err(failure.clone()), RecordState::Failed { failure }),
        };
        let cost = amount.map(|amount| Cost {
            amount,
            last: false,
        });
        self.note(&key, effect, state, cost).await?;
        outcome
    }

    /// Says where a step stands, and remembers it once it is accepted.
    async fn note(
        &self,
        key: &Name,
        effect: EffectClass,
        state: RecordState,
        cost: Option<Cost>,
    ) -> Result<(), Failure> {
        self.tell(key, effect, &state, cost).await?;
        self.records.put(key, (effect, state));
        Ok(())
    }

    async fn tell(
        &self,
        key: &Name,
        effect: EffectClass,
        state: &RecordState,
        cost: Option<Cost>,
    ) -> Result<(), Failure> {
        let report = Report::Recorded(NewRecord {
            key: key.clone(),
            effect,
            state: state.clone(),
            cost,
        });
        let mut pause = PAUSE_MS.start;
        // What was paid for is worth saying again, and saying it twice is no fault.
        while let Err(error) = self.report(report.clone()).await {
            if !error.code.retryable() || pause > PAUSE_MS.end {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause *= 2;
        }
        Ok(())
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

fn is_in_doubt(failure: &Failure) -> bool {
    failure.code == Code::RecordInDoubt.as_str()
}
