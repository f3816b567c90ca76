//! The worker: who executes tasks, how many at once, and whether it is there.
//!
//! Liveness is per worker, never per task. Heartbeats are kept in memory by the engine, because a
//! heartbeat is not a fact worth a disk write; only its absence is, as `worker.lost`.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::id::TaskId;
use crate::limits::*;
use crate::name::Name;
use crate::state::{Quotas, State};
use crate::task::{Address, Failure, Task, unknown_worker};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a worker lives, which says how its death is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// In the engine's own process: it dies with it.
    InProcess,
    /// Elsewhere: it is gone when its heartbeats are.
    #[default]
    Remote,
}

/// What a worker says about itself when it registers.
///
/// ```
/// let spec: domain::worker::WorkerSpec = serde_json::from_str(r#"{"id": "worker_1"}"#)?;
/// assert_eq!((spec.capacity, spec.lease_ms), (1, 10_000));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerSpec {
    /// Its id, chosen by itself: `worker_1`, `worker_0`, a host name.
    pub id: Name,
    /// Tells one life from the next: a new session releases what the old one held.
    #[serde(default)]
    pub session: u64,
    /// What kind of agent it is, for whoever looks for one.
    #[serde(default = "default_type")]
    pub agent_type: Name,
    /// The task types it handles; none named means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Name>,
    /// What it can do, matched without regard to case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Name>,
    /// Tools it can use: capabilities too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Name>,
    /// What it understands to be asked for: capabilities too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<Name>,
    /// The queues it serves.
    #[serde(default = "default_queues")]
    pub queues: Vec<Name>,
    /// Tasks it runs at once.
    #[serde(default = "one")]
    pub capacity: u32,
    /// Milliseconds without a heartbeat after which it is lost.
    #[serde(default = "default_lease")]
    pub lease_ms: u64,
    /// How its death is noticed.
    #[serde(default)]
    pub home: Home,
    /// Where it can be reached, when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// For people and filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Name, String>,
}

fn default_type() -> Name {
    Name::literal("worker")
}
fn default_queues() -> Vec<Name> {
    vec![crate::task::default_queue()]
}
fn one() -> u32 {
    1
}
fn default_lease() -> u64 {
    LEASE_MS_DEFAULT
}

impl WorkerSpec {
    /// A worker with this id and every default.
    pub fn new(id: Name) -> Self {
        Self {
            id,
            session: 0,
            agent_type: default_type(),
            kinds: Vec::new(),
            capabilities: Vec::new(),
            tools: Vec::new(),
            intents: Vec::new(),
            queues: default_queues(),
            capacity: 1,
            lease_ms: LEASE_MS_DEFAULT,
            home: Home::Remote,
            endpoint: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Code::OutOfRange`] or [`Code::LimitExceeded`], naming the field.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=CAPACITY_MAX).contains(&self.capacity) {
            let text = format!("capacity {} is outside 1 to {CAPACITY_MAX}", self.capacity);
            return Err(Error::new(Code::OutOfRange, text));
        }
        if !LEASE_MS_RANGE.contains(&self.lease_ms) {
            let (low, high) = (LEASE_MS_RANGE.start(), LEASE_MS_RANGE.end());
            let text = format!("lease {} ms is outside {low} to {high} ms", self.lease_ms);
            return Err(Error::new(Code::OutOfRange, text));
        }
        for (what, found) in [
            ("capabilities", self.capabilities.len()),
            ("tools", self.tools.len()),
            ("intents", self.intents.len()),
            ("task types", self.kinds.len()),
            ("queues", self.queues.len()),
        ] {
            if found > CAPABILITIES_MAX {
                return Err(Error::limit(what, found, CAPABILITIES_MAX));
            }
        }
        if let Some(endpoint) = &self.endpoint
            && endpoint.len() > METADATA_VALUE_BYTES_MAX
        {
            return Err(Error::limit(
                "bytes of endpoint",
                endpoint.len(),
                METADATA_VALUE_BYTES_MAX,
            ));
        }
        metadata("metadata entries", &self.metadata)
    }

    /// Whether it can do `capability`, use that tool or understand that intent, regardless of case.
    pub fn can(&self, capability: &str) -> bool {
        [&self.capabilities, &self.tools, &self.intents]
            .into_iter()
            .flatten()
            .any(|own| own.eq_ignore_ascii_case(capability))
    }
}

/// Whether a worker is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It registered, and nothing was heard to the contrary.
    Here,
    /// It finishes what it has.
    Draining,
    /// It is gone.
    Gone {
        /// Since when.
        since: Time,
        /// Why.
        reason: String,
    },
}

/// A worker's status as people and filters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Never heard of.
    Unknown,
    /// There, with room.
    Available,
    /// There, at capacity.
    Busy,
    /// Gone.
    Unavailable,
    /// Failing; it gets nothing for a while.
    Error,
    /// There, finishing.
    Draining,
}

impl WorkerStatus {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Available => "available",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Error => "error",
            Self::Draining => "draining",
        }
    }
}

/// A worker's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// What it said about itself.
    pub spec: Arc<WorkerSpec>,
    /// Whether it is there.
    pub presence: Presence,
    /// When it registered last.
    pub registered_at: Time,
    /// What it holds: task and attempt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<TaskId, u32>,
    /// Capacity kept for others: holder and end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<Name, Time>,
    /// Attempts that succeeded.
    #[serde(default)]
    pub completed: u64,
    /// Attempts that ended otherwise.
    #[serde(default)]
    pub failed: u64,
    /// Milliseconds that its succeeded attempts took, added up.
    #[serde(default)]
    pub busy_ms: u64,
    /// Worker faults since its last success.
    #[serde(default)]
    pub faults: u32,
    /// It gets nothing before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_until: Option<Time>,
}

impl Worker {
    /// Its status now.
    pub fn status(&self, now: Time) -> WorkerStatus {
        match &self.presence {
            Presence::Gone { .. } => WorkerStatus::Unavailable,
            Presence::Draining => WorkerStatus::Draining,
            Presence::Here if self.error_until.is_some_and(|until| until > now) => {
                WorkerStatus::Error
            }
            Presence::Here if self.free(now) == 0 => WorkerStatus::Busy,
            Presence::Here => WorkerStatus::Available,
        }
    }

    /// When the clock must look at it: it is forgotten a while after it is gone.
    pub fn due(&self) -> Option<Time> {
        match &self.presence {
            Presence::Gone { since, .. } => Some(since.plus_ms(WORKER_KEPT_MS)),
            Presence::Here | Presence::Draining => None,
        }
    }

    /// Tasks it may take on now, were it there.
    pub fn free(&self, now: Time) -> u32 {
        let reserved = self.reserved.values().filter(|until| **until > now).count();
        self.spec
            .capacity
            .saturating_sub((self.holds.len() + reserved) as u32)
    }

    /// Whether it may be given anything at all.
    pub fn is_there(&self, now: Time) -> bool {
        matches!(
            self.status(now),
            WorkerStatus::Available | WorkerStatus::Busy
        )
    }

    /// Whether this task is one for it: address, queue, type and capability.
    pub fn may_take(&self, task: &Task) -> bool {
        let addressed = match task.address() {
            Address::Only(worker) => *worker == self.spec.id,
            Address::Any | Address::Prefer(_) => true,
        };
        addressed
            && self.spec.queues.contains(&task.spec.queue)
            && (self.spec.kinds.is_empty() || self.spec.kinds.contains(&task.spec.kind))
            && task
                .spec
                .capability
                .as_ref()
                .is_none_or(|needed| self.spec.can(needed))
    }

    /// Whether whoever says that it is this worker, in this life, still is.
    ///
    /// # Errors
    /// [`Code::WorkerSuperseded`] when another process has registered under its id since.
    pub fn is_session(&self, session: Option<u64>) -> Result<(), Error> {
        match session {
            Some(session) if session != self.spec.session => Err(superseded(&self.spec.id)),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Why it gets nothing now.
    pub(crate) fn accepts(&self, now: Time) -> Result<(), Error> {
        let id = &self.spec.id;
        match self.status(now) {
            WorkerStatus::Available => Ok(()),
            WorkerStatus::Busy => Err(Error::new(
                Code::WorkerFull,
                format!(
                    "worker “{id}” holds {} of {}",
                    self.holds.len(),
                    self.spec.capacity
                ),
            )),
            status => Err(Error::new(
                Code::WorkerState,
                format!("worker “{id}” is {}", status.as_str()),
            )),
        }
    }

    pub(crate) fn registered(spec: &Arc<WorkerSpec>, at: Time) -> Self {
        Self {
            spec: Arc::clone(spec),
            presence: Presence::Here,
            registered_at: at,
            holds: BTreeMap::new(),
            reserved: BTreeMap::new(),
            completed: 0,
            failed: 0,
            busy_ms: 0,
            faults: 0,
            error_until: None,
        }
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::WorkerRegistered { spec, .. } => {
                self.spec = Arc::clone(spec);
                self.presence = Presence::Here;
                self.registered_at = recorded.at;
                self.error_until = None;
                self.faults = 0;
            }
            Event::WorkerLost { reason, .. } => {
                debug_assert!(self.holds.is_empty(), "a lost worker holds nothing");
                self.reserved = BTreeMap::new();
                self.presence = Presence::Gone {
                    since: recorded.at,
                    reason: reason.clone(),
                };
            }
            Event::WorkerDraining { .. } => self.presence = Presence::Draining,
            Event::WorkerFaulted { until, .. } => {
                self.error_until = Some(*until);
                self.faults = 0;
            }
            Event::WorkerReserved { holder, until, .. } => {
                self.reserved.retain(|_, until| *until > recorded.at);
                self.reserved.insert(holder.clone(), *until);
            }
            Event::WorkerReservationEnded { holder, .. } => {
                self.reserved.remove(holder);
            }
            Event::TaskAssigned { lease, .. } => {
                self.holds.insert(lease.task, lease.attempt);
            }
            Event::TaskStarted { .. } => {}
            Event::TaskCompleted { lease, ran_ms, .. } => {
                self.holds.remove(&lease.task);
                self.completed += 1;
                self.busy_ms += ran_ms;
                self.faults = 0;
            }
            Event::AttemptEnded { lease, failure, .. } => {
                self.holds.remove(&lease.task);
                self.failed += 1;
                self.faults += u32::from(failure.worker_fault);
            }
            Event::TaskCancelled { task, .. } => {
                self.holds.remove(task);
                self.failed += 1;
            }
            other => debug_assert!(false, "{} does not fold on a worker", other.name()),
        }
    }
}

/// A worker registers, again or for the first time. A new session of a known id releases what the
/// old one held, at once.
pub(crate) fn register(state: &State, spec: &Arc<WorkerSpec>, now: Time) -> Decision {
    if let Err(error) = spec.check() {
        return Decision::refuse(error);
    }
    let mut events = Vec::new();
    if let Some(known) = state.worker(&spec.id) {
        if known.spec.session != spec.session && !known.holds.is_empty() {
            events = release(state, known, "it registered again", now);
        }
        if known.spec == *spec && known.presence == Presence::Here && known.error_until.is_none() {
            return Decision::answer(Outcome::Done);
        }
    }
    let first = state.worker(&spec.id).is_none();
    if first {
        let registered = state.tally().map_or(0, |tally| tally.workers);
        let quota = state
            .quotas
            .workers
            .map_or(WORKERS_MAX, |quota| quota.min(WORKERS_MAX));
        if let Err(error) = Quotas::check("workers are known", registered, Some(quota)) {
            return Decision::refuse(error);
        }
    }
    events.push(Event::WorkerRegistered {
        spec: Arc::clone(spec),
        first,
    });
    Decision {
        events,
        outcome: Ok(Outcome::Done),
    }
}

/// A worker is gone: its tasks go back.
pub(crate) fn lose(
    state: &State,
    worker: &Name,
    session: Option<u64>,
    reason: &str,
    now: Time,
) -> Decision {
    let Some(known) = state.worker(worker) else {
        return Decision::refuse(unknown_worker(worker));
    };
    if let Err(error) = known.is_session(session) {
        // The good-bye of a life that is over must not end the one that followed it.
        return Decision::refuse(error);
    }
    if let Presence::Gone { .. } = known.presence {
        return Decision::answer(Outcome::Done);
    }
    let mut events = release(state, known, reason, now);
    events.push(Event::WorkerLost {
        worker: worker.clone(),
        reason: cut(reason).to_owned(),
    });
    Decision {
        events,
        outcome: Ok(Outcome::Done),
    }
}

fn release(state: &State, worker: &Worker, reason: &str, now: Time) -> Vec<Event> {
    let held = worker.holds.keys().filter_map(|task| state.task(task));
    held.flat_map(|task| crate::task::lose(task, reason, now))
        .collect()
}

/// The clock looks at a worker: one that is gone for long enough is forgotten.
pub(crate) fn forget(state: &State, worker: &Name, now: Time) -> Decision {
    match state.worker(worker).and_then(Worker::due) {
        Some(due) if due <= now => Decision::event(
            Event::WorkerForgotten {
                worker: worker.clone(),
            },
            Outcome::Done,
        ),
        _ => Decision::answer(Outcome::Done),
    }
}

/// A worker that drained or was in error can work again; one that is gone must register.
pub(crate) fn ready(state: &State, worker: &Name) -> Decision {
    let Some(known) = state.worker(worker) else {
        return Decision::refuse(unknown_worker(worker));
    };
    match &known.presence {
        Presence::Gone { .. } => {
            let text = format!("worker “{worker}” is unavailable");
            Decision::refuse(Error::new(Code::WorkerState, text).hint("It must register again."))
        }
        Presence::Here if known.error_until.is_none() => Decision::answer(Outcome::Done),
        Presence::Here | Presence::Draining => Decision::event(
            Event::WorkerRegistered {
                spec: Arc::clone(&known.spec),
                first: false,
            },
            Outcome::Done,
        ),
    }
}

/// Another process goes by this id now.
pub fn superseded(worker: &Name) -> Error {
    Error::new(
        Code::WorkerSuperseded,
        format!("another process registered as worker “{worker}”"),
    )
}

/// A worker gets nothing new.
pub(crate) fn drain(state: &State, worker: &Name) -> Decision {
    match state.worker(worker).map(|worker| &worker.presence) {
        None => Decision::refuse(unknown_worker(worker)),
        Some(Presence::Here) => Decision::event(
            Event::WorkerDraining {
                worker: worker.clone(),
            },
            Outcome::Done,
        ),
        Some(Presence::Draining) => Decision::answer(Outcome::Done),
        Some(Presence::Gone { .. }) => {
            let text = format!("worker “{worker}” is unavailable");
            Decision::refuse(Error::new(Code::WorkerState, text))
        }
    }
}

/// A failure that was the worker's fault: the last one in a row that is borne puts it into `error`.
pub(crate) fn fault(state: &State, worker: &Name, failure: &Failure, now: Time) -> Option<Event> {
    let known = state.worker(worker)?;
    (known.faults + 1 >= WORKER_FAULTS_MAX).then(|| Event::WorkerFaulted {
        worker: worker.clone(),
        until: now.plus_ms(WORKER_ERROR_MS),
        reason: failure.message.clone(),
    })
}

/// A worker or an operator says it cannot work.
pub(crate) fn report_error(state: &State, worker: &Name, reason: &str, now: Time) -> Decision {
    if state.worker(worker).is_none() {
        return Decision::refuse(unknown_worker(worker));
    }
    let until = now.plus_ms(WORKER_ERROR_MS);
    Decision::event(
        Event::WorkerFaulted {
            worker: worker.clone(),
            until,
            reason: cut(reason).to_owned(),
        },
        Outcome::Done,
    )
}
