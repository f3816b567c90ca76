//! The record: the receipt of one step inside an attempt, a model call or a tool call. A worker says
//! `intended` before it does something and what came of it afterwards, so that after a crash a
//! finished step is reused, not bought again, and one that may or may not have happened is shown as
//! in doubt instead of being silently repeated.
//!
//! ```text
//!               ┌─────────── again ───────────┐
//!               ▼                             │
//!   (nothing) ──► intended ───────► failed ───┘        done is final
//!                  │    │
//!                  │    └─────────► done ◄── attempt (verify_first), or a person
//!                  ▼                  ▲
//!               in_doubt ─────────────┘   (an attempt ended between intent and outcome)
//! ```
//!
//! What may be said in which state is one function here, `accepts`. Deliberately absent: knowing
//! what a step does, or trying it again; both are the handler's.
//!
//! A step that is done is a row of its own, [`Kept`], which says where in the log its output stands:
//! so the output is stored once, and a task with thousands of steps has a row as small as any. Steps
//! that are not done are few, and are kept in the task's row, where the end of an attempt finds them.

use crate::attempt::Failure;
use crate::budget::{Amount, Cost, Dues};
use crate::command::{Outcome, fnv};
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{AttemptRef, Event, Recorded};
use crate::id::TaskId;
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
use crate::state::State;
use crate::task::{Task, unknown};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// What doing a step twice would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Nothing but cost: it changes nothing outside.
    Pure,
    /// Nothing: the other side knows the step by its key and does it once.
    Keyed,
    /// A second effect; but whether the first happened can be found out by asking the other side.
    VerifyFirst,
    /// A second effect, and only a person can find out whether the first happened.
    AtMostOnce,
}

impl EffectClass {
    /// All of them, from the harmless to the grave.
    pub const ALL: [Self; 4] = [Self::Pure, Self::Keyed, Self::VerifyFirst, Self::AtMostOnce];

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Keyed => "keyed",
            Self::VerifyFirst => "verify_first",
            Self::AtMostOnce => "at_most_once",
        }
    }

    /// A step that may or may not have happened may simply be done again.
    pub const fn is_repeatable(self) -> bool {
        matches!(self, Self::Pure | Self::Keyed)
    }
}

/// Where a record stands; each state owns its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Said before it is done.
    Intended,
    /// It happened. Final.
    Done {
        /// What came of it: what later attempts reuse.
        output: Json,
    },
    /// It did not happen, and that is known.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Nobody knows whether it happened.
    InDoubt,
}

impl RecordState {
    /// The wire name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::InDoubt => "in_doubt",
        }
    }

    fn bounded(self) -> Self {
        match self {
            Self::Failed { failure } => Self::Failed {
                failure: failure.bounded(),
            },
            other => other,
        }
    }

    /// Bytes of output or failure: what [`RECORDS_BYTES_MAX`] counts.
    fn bytes(&self) -> usize {
        match self {
            Self::Intended | Self::InDoubt => 0,
            Self::Done { output } => output.bytes(),
            Self::Failed { failure } => failure.code.len() + failure.message.len(),
        }
    }
}

/// What somebody found out about a step in doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It happened.
    Done {
        /// What came of it.
        output: Json,
    },
    /// It did not happen.
    Failed {
        /// Why.
        failure: Failure,
    },
}

impl From<Finding> for RecordState {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Done { output } => Self::Done { output },
            Finding::Failed { failure } => Self::Failed { failure },
        }
    }
}

/// What a worker says about a step.
///
/// ```
/// use domain::command::Report;
/// let text = r#"{"recorded": {"key": "charge", "effect": "at_most_once", "state": "intended"}}"#;
/// let report: Report = serde_json::from_str(text)?;
/// assert!(matches!(report, Report::Recorded(record) if record.key.as_str() == "charge"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRecord {
    /// The step's name: the same in every attempt of the task.
    pub key: Name,
    /// What doing it twice would mean.
    pub effect: EffectClass,
    /// Where it stands.
    pub state: RecordState,
    /// With an intent, what to reserve for it; with an outcome, what it cost. An outcome that does
    /// not say cost what was reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// A step's receipt, as it is kept with its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Record {
    /// The step's name within its task.
    pub key: Name,
    /// What doing it twice would mean.
    pub effect: EffectClass,
    /// Where it stands.
    pub state: RecordState,
    /// Which attempt said so, or left it in doubt; a person's finding leaves it as it is.
    pub attempt: u32,
    /// Since when it stands there.
    pub at: Time,
    /// What is reserved for it, while nobody knows its outcome.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub held: Amount,
}

/// A step that an attempt has done, as it is stored. What came of it stands in the log, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KeptText", into = "KeptText")]
pub struct Kept {
    /// What doing it twice would have meant.
    pub effect: EffectClass,
    /// Which attempt did it.
    pub attempt: u32,
    /// The position of the event that has the output.
    pub position: u64,
    /// Bytes of the output.
    pub bytes: u64,
    /// A digest of the output, to know it again without reading it.
    pub digest: u64,
}

/// As an array: there may be thousands for a task, and none of them is read by itself.
type KeptText = (EffectClass, u32, u64, u64, u64);

impl From<KeptText> for Kept {
    fn from((effect, attempt, position, bytes, digest): KeptText) -> Self {
        Self {
            effect,
            attempt,
            position,
            bytes,
            digest,
        }
    }
}

impl From<Kept> for KeptText {
    fn from(kept: Kept) -> Self {
        let Kept {
            effect,
            attempt,
            position,
            bytes,
            digest,
        } = kept;
        (effect, attempt, position, bytes, digest)
    }
}

impl Kept {
    /// The row that an attempt's word makes: only of a step that is done.
    pub(crate) fn noted(recorded: &Recorded) -> Option<Self> {
        let Event::RecordNoted { lease, record, .. } = &recorded.event else {
            return None;
        };
        let RecordState::Done { output } = &record.state else {
            return None;
        };
        Some(Self {
            effect: record.effect,
            attempt: lease.attempt,
            position: recorded.position,
            bytes: output.bytes() as u64,
            digest: fnv(&[output.text().as_bytes()]),
        })
    }

    /// The receipt, whole, of the event that it points at; `None` of any other event.
    pub fn read(&self, recorded: &Recorded) -> Option<Record> {
        if Self::noted(recorded) != Some(*self) {
            return None;
        }
        let Event::RecordNoted { record, .. } = &recorded.event else {
            return None;
        };
        Some(Record {
            key: record.key.clone(),
            effect: record.effect,
            state: record.state.clone(),
            attempt: self.attempt,
            at: recorded.at,
            held: Amount::default(),
        })
    }

    /// Whether this is what came of it.
    fn is(&self, state: &RecordState) -> bool {
        matches!(state, RecordState::Done { output } if self.bytes == output.bytes() as u64
            && self.digest == fnv(&[output.text().as_bytes()]))
    }

    fn refused(&self, key: &Name) -> Error {
        is_final(key, self.effect, self.attempt)
    }
}

/// Steps of a task that its attempts have done, in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finished {
    /// How many.
    pub steps: u32,
    /// Bytes of their outputs.
    pub bytes: u64,
}

impl Finished {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a record changes when attempt `attempt` says `new`; `false` is said already.
///
/// | known ↓ said → | intended | done, failed | in doubt |
/// |---|---|---|---|
/// | nothing, failed | yes | pure, keyed: yes; else refused: intended first | refused |
/// | intended | pure, keyed, by an earlier attempt: yes | yes | yes |
/// | done | refused | the same output: said already; else refused | refused |
/// | in doubt | pure, keyed: yes; else refused | at_most_once: refused; else yes | said already |
///
/// The same said twice by one attempt is said already. The effect class may change with a new
/// intent only.
fn accepts(known: Option<&Record>, new: &NewRecord, attempt: u32) -> Result<bool, Error> {
    use RecordState::{Done, Failed, InDoubt, Intended};
    let Some(known) = known else {
        return begins(new);
    };
    let same_class = known.effect == new.effect;
    let says_again = same_class && known.attempt == attempt && known.state == new.state;
    match (&known.state, &new.state) {
        (Done { output: kept }, Done { output }) if kept == output => Ok(false),
        (Done { .. }, _) => Err(refused(known, "it is final")),
        // The same try is going to cost something else than was said.
        (Intended, Intended) if says_again => Ok(wanted(new) != known.held),
        _ if says_again => Ok(false),
        (InDoubt, InDoubt) => Ok(false),
        (Failed { .. }, _) => begins(new),
        (Intended | InDoubt, Intended) if known.effect.is_repeatable() => {
            // Twice in one attempt under two classes is a mistake in the handler.
            let anew = known.attempt != attempt || known.state == InDoubt;
            anew.then_some(true)
                .ok_or_else(|| refused(known, "its effect class is another"))
        }
        (Intended, Intended) => Err(refused(known, "its effect class is another")),
        (InDoubt, Intended) => Err(in_doubt(known)),
        (Intended | InDoubt, _) if !same_class => {
            Err(refused(known, "its effect class is another"))
        }
        (Intended, Done { .. } | Failed { .. } | InDoubt) => Ok(true),
        (InDoubt, Done { .. } | Failed { .. }) if known.effect != EffectClass::AtMostOnce => {
            Ok(true)
        }
        (InDoubt, Done { .. } | Failed { .. }) => Err(in_doubt(known)),
    }
}

/// What may be said first, and first again after a failure.
fn begins(new: &NewRecord) -> Result<bool, Error> {
    match &new.state {
        RecordState::Intended => Ok(true),
        RecordState::Done { .. } | RecordState::Failed { .. } if new.effect.is_repeatable() => {
            Ok(true)
        }
        said => {
            let text = format!(
                "step “{}” cannot be {} before it is intended",
                new.key,
                said.as_str()
            );
            Err(Error::new(Code::RecordState, text)
                .hint("Say `intended` and wait for the answer, then do the step."))
        }
    }
}

fn is_final(key: &Name, effect: EffectClass, attempt: u32) -> Error {
    let class = effect.as_str();
    let text = format!("step “{key}” ({class}) is done since attempt {attempt}: it is final");
    Error::new(Code::RecordState, text)
}

fn refused(known: &Record, why: &str) -> Error {
    let (key, state, attempt) = (&known.key, known.state.as_str(), known.attempt);
    let class = known.effect.as_str();
    let text = format!("step “{key}” ({class}) is {state} since attempt {attempt}: {why}");
    Error::new(Code::RecordState, text)
}

fn in_doubt(known: &Record) -> Error {
    let (key, class, attempt) = (&known.key, known.effect.as_str(), known.attempt);
    let text = format!("step “{key}” ({class}) may or may not have happened in attempt {attempt}");
    Error::new(Code::RecordInDoubt, text)
}

/// Refuses what does not fit beside the task's other records. `stays` in the task's row: all but
/// what an attempt has done.
fn fits(task: &Task, key: &Name, state: &RecordState, stays: bool) -> Result<(), Error> {
    if let RecordState::Done { output } = state {
        payload("the step's output", output.bytes())?;
    }
    let others = || task.records.iter().filter(|record| record.key != *key);
    let open = others().count() + usize::from(stays);
    let in_row = others().map(|record| record.state.bytes()).sum::<usize>();
    let finished = &task.finished;
    let all = others().count() + 1 + finished.steps as usize;
    if stays && open > RECORDS_OPEN_MAX {
        let what = "records of one task that are not done";
        return Err(Error::limit(what, open, RECORDS_OPEN_MAX));
    }
    if all > RECORDS_MAX {
        return Err(Error::limit("records of one task", all, RECORDS_MAX));
    }
    let too_large = |what: &str, bytes: usize, max: usize| {
        let text = format!("{what} are {bytes} bytes; at most {max} are allowed");
        Err(Error::new(Code::PayloadTooLarge, text))
    };
    let bytes = in_row + state.bytes();
    if stays && bytes > RECORDS_OPEN_BYTES_MAX {
        let what = "the task's records that are not done";
        return too_large(what, bytes, RECORDS_OPEN_BYTES_MAX);
    }
    let bytes = bytes + usize::try_from(finished.bytes).unwrap_or(usize::MAX / 2);
    if bytes > RECORDS_BYTES_MAX {
        return too_large("the task's records", bytes, RECORDS_BYTES_MAX);
    }
    Ok(())
}

/// Decides what the current attempt says about a step.
pub(crate) fn note(
    state: &State,
    task: &Task,
    lease: &AttemptRef,
    new: &NewRecord,
    now: Time,
) -> Decision {
    let new = &NewRecord {
        state: new.state.clone().bounded(),
        ..new.clone()
    };
    match state.kept(&task.id, &new.key) {
        Some(kept) if kept.is(&new.state) => return Decision::answer(Outcome::Done),
        Some(kept) => return Decision::refuse(kept.refused(&new.key)),
        None => {}
    }
    match accepts(task.record(&new.key), new, lease.attempt) {
        Ok(false) => return Decision::answer(Outcome::Done),
        Ok(true) => {}
        Err(error) => return Decision::refuse(error),
    }
    let stays = !matches!(new.state, RecordState::Done { .. });
    if let Err(error) = fits(task, &new.key, &new.state, stays) {
        return Decision::refuse(error);
    }
    let run = task.spec.of.as_ref().map(|of| of.run);
    let dues = dues(task.record(&new.key), new, lease.attempt);
    let account = run.and_then(|run| state.account(&run));
    if let (RecordState::Intended, Some(cost), Some(account)) = (&new.state, &new.cost, account)
        && let Err(error) = account.before_holding(dues).admit(cost, now)
    {
        return Decision::refuse(error);
    }
    let mut events = vec![Event::RecordNoted {
        lease: lease.clone(),
        record: new.clone(),
        run,
        dues: dues.some(),
    }];
    if let (Some(run), Some(account)) = (run, account)
        && account.warns(dues.spent)
    {
        events.push(Event::BudgetWarned { run });
    }
    Decision {
        events,
        outcome: Ok(Outcome::Done),
    }
}

/// What a step is going to cost, as far as it says.
fn wanted(new: &NewRecord) -> Amount {
    new.cost.map(|cost| cost.amount).unwrap_or_default()
}

/// What this word about a step moves on the accounts.
fn dues(known: Option<&Record>, new: &NewRecord, attempt: u32) -> Dues {
    let before = known.map(|known| known.held).unwrap_or_default();
    let told = new.cost.map(|cost| cost.amount);
    let same_try =
        known.is_some_and(|known| known.attempt == attempt && known.state == RecordState::Intended);
    match &new.state {
        RecordState::Intended => Dues {
            held: wanted(new),
            released: before,
            spent: match new.effect {
                _ if same_try => Amount::default(),
                // The same key is the same purchase, however often it is asked for.
                EffectClass::Keyed => Amount::default(),
                // Done again, because nobody knows what came of it: that one counts as bought.
                _ => before,
            },
        },
        RecordState::Done { .. } | RecordState::Failed { .. } => Dues {
            held: Amount::default(),
            released: before,
            spent: told.unwrap_or(before),
        },
        RecordState::InDoubt => Dues::default(),
    }
}

/// Whether an attempt that has ended says again what it had said of a step's outcome. An intent is
/// never a repeat: its worker would go on to do the step.
pub(crate) fn is_repeated(state: &State, task: &Task, attempt: u32, new: &NewRecord) -> bool {
    if let Some(kept) = state.kept(&task.id, &new.key) {
        return kept.attempt == attempt && kept.effect == new.effect && kept.is(&new.state);
    }
    let outcome = new.state != RecordState::Intended;
    outcome
        && task.record(&new.key).is_some_and(|known| {
            known.attempt == attempt
                && known.effect == new.effect
                && known.state == new.state.clone().bounded()
        })
}

/// Decides what a person found out about a step in doubt, whatever its task is doing.
pub(crate) fn resolve(state: &State, task: &TaskId, key: &Name, finding: &Finding) -> Decision {
    let Some(task) = state.task(task) else {
        return Decision::refuse(unknown(task));
    };
    let found = RecordState::from(finding.clone()).bounded();
    match state.kept(&task.id, key) {
        Some(kept) if kept.is(&found) => return Decision::answer(Outcome::Done),
        Some(kept) => {
            let (class, attempt) = (kept.effect.as_str(), kept.attempt);
            let text = format!(
                "step “{key}” ({class}) is done since attempt {attempt}: it is not in doubt"
            );
            return Decision::refuse(Error::new(Code::RecordState, text));
        }
        None => {}
    }
    let Some(known) = task.record(key) else {
        let text = format!("{} has no record of a step “{key}”", task.id);
        return Decision::refuse(Error::new(Code::RecordUnknown, text));
    };
    match &known.state {
        same if *same == found => return Decision::answer(Outcome::Done),
        RecordState::InDoubt => {}
        _ => return Decision::refuse(refused(known, "it is not in doubt")),
    }
    if let Err(error) = fits(task, key, &found, true) {
        return Decision::refuse(error);
    }
    Decision::event(
        Event::RecordResolved {
            task: task.id,
            key: key.clone(),
            finding: match finding {
                Finding::Done { output } => Finding::Done {
                    output: output.clone(),
                },
                Finding::Failed { failure } => Finding::Failed {
                    failure: failure.clone().bounded(),
                },
            },
            run: task.spec.of.as_ref().map(|of| of.run),
            dues: Dues {
                released: known.held,
                spent: known.held,
                ..Dues::default()
            }
            .some(),
        },
        Outcome::Task(task.id),
    )
}

impl Task {
    /// The receipt of a step, unless an attempt has done it: then it is [`Kept`].
    pub fn record(&self, key: &Name) -> Option<&Record> {
        self.records.iter().find(|record| record.key == *key)
    }

    /// Folds what an attempt said.
    pub(crate) fn noted(&mut self, lease: &AttemptRef, new: &NewRecord, at: Time) {
        if let RecordState::Done { output } = &new.state {
            self.records.retain(|known| known.key != new.key);
            self.finished.steps += 1;
            self.finished.bytes += output.bytes() as u64;
            return;
        }
        let held = match &new.state {
            RecordState::Intended => new.cost.unwrap_or_default().amount,
            RecordState::InDoubt => self
                .record(&new.key)
                .map(|known| known.held)
                .unwrap_or_default(),
            RecordState::Done { .. } | RecordState::Failed { .. } => Amount::default(),
        };
        let record = Record {
            key: new.key.clone(),
            effect: new.effect,
            state: new.state.clone(),
            held,
            attempt: lease.attempt,
            at,
        };
        match self.records.iter_mut().find(|known| known.key == new.key) {
            Some(known) => *known = record,
            None => self.records.push(record),
        }
    }

    /// Folds what a person found out.
    pub(crate) fn resolved(&mut self, key: &Name, finding: &Finding, at: Time) {
        if let Some(known) = self.records.iter_mut().find(|known| known.key == *key) {
            known.state = finding.clone().into();
            known.held = Amount::default();
            known.at = at;
        }
    }

    /// An attempt is over: what it left between intent and outcome is in doubt, unless it may simply
    /// be done again.
    pub(crate) fn doubt(&mut self, at: Time) {
        for record in &mut self.records {
            if record.state == RecordState::Intended && !record.effect.is_repeatable() {
                record.state = RecordState::InDoubt;
                record.at = at;
            }
        }
    }
}
