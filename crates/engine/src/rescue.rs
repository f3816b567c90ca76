//! Takes tasks from workers that are gone. Liveness is per worker: a heartbeat is a number in
//! memory, its absence for longer than the worker's lease is `worker.lost` in the log.

use domain::command::Command;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::task::Address;
use domain::time::Time;
use domain::worker::{Home, Presence, Worker, WorkerSpec};
use protocol::v1::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Op, Request, Store};
use tokio::sync::Notify;

/// Signals kept for a worker that does not listen; the oldest goes first.
const SIGNALS_MAX: usize = 10_000;
/// Tasks addressed to a dead worker that are freed in one turn.
const FREED_PER_TURN: usize = 1_000;

#[derive(Debug)]
struct Heart {
    heard: Time,
    /// It was heard by this process, not only known from the log.
    proven: bool,
    session: u64,
    lease_ms: u64,
    home: Home,
    signals: VecDeque<Signal>,
    wake: Arc<Notify>,
}

/// Who was heard when, and what each has to be told. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Hearts(Arc<Mutex<BTreeMap<Name, Heart>>>);

impl Hearts {
    fn hearts(&self) -> MutexGuard<'_, BTreeMap<Name, Heart>> {
        // Every change below is complete before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker registered: a sign of life, and how its death would be noticed.
    pub fn register(&self, spec: &WorkerSpec, now: Time) {
        self.set(spec, now, true);
    }

    /// The log says that a worker is there: it has a lease's time to show itself.
    pub(crate) fn expect(&self, spec: &WorkerSpec, now: Time) {
        self.set(spec, now, false);
    }

    fn set(&self, spec: &WorkerSpec, now: Time, proven: bool) {
        let mut hearts = self.hearts();
        let heart = hearts.entry(spec.id.clone()).or_insert_with(|| Heart {
            heard: now,
            proven,
            session: spec.session,
            lease_ms: spec.lease_ms,
            home: spec.home,
            signals: VecDeque::new(),
            wake: Arc::default(),
        });
        (heart.heard, heart.lease_ms, heart.home) = (now, spec.lease_ms, spec.home);
        heart.proven |= proven;
        if heart.session != spec.session {
            // Whoever listened in the life before shall hear that it is over.
            heart.session = spec.session;
            heart.signals.clear();
            heart.wake.notify_waiters();
        }
    }

    /// A sign of life.
    pub fn beat(&self, worker: &Name, now: Time) {
        if let Some(heart) = self.hearts().get_mut(worker) {
            (heart.heard, heart.proven) = (now, true);
        }
    }

    /// Whether this is the worker's current life; one that is not known has none to be wrong about.
    pub(crate) fn is_current(&self, worker: &Name, session: Option<u64>) -> bool {
        let hearts = self.hearts();
        match (session, hearts.get(worker)) {
            (Some(session), Some(heart)) => heart.session == session,
            _ => true,
        }
    }

    /// How long a heartbeat may wait before the worker must be heard again: half its lease.
    pub(crate) fn patience(&self, worker: &Name) -> Duration {
        let lease_ms = self.hearts().get(worker).map_or(0, |heart| heart.lease_ms);
        Duration::from_millis(lease_ms / 2)
    }

    pub(crate) fn heard(&self, worker: &Name) -> Option<Time> {
        self.hearts()
            .get(worker)
            .filter(|heart| heart.proven)
            .map(|heart| heart.heard)
    }

    /// It is gone; if it listens all the same, it hears so at once.
    pub(crate) fn forget(&self, worker: &Name) {
        if let Some(heart) = self.hearts().remove(worker) {
            heart.wake.notify_one();
        }
    }

    pub(crate) fn signal(&self, worker: &Name, signal: Signal) {
        if let Some(heart) = self.hearts().get_mut(worker) {
            if heart.signals.len() >= SIGNALS_MAX {
                heart.signals.pop_front();
            }
            heart.signals.push_back(signal);
            heart.wake.notify_one();
        }
    }

    /// What a worker has to be told, and what wakes it when there is more. `None`: never heard of.
    pub fn listen(&self, worker: &Name) -> Option<(Vec<Signal>, Arc<Notify>)> {
        let mut hearts = self.hearts();
        let heart = hearts.get_mut(worker)?;
        Some((heart.signals.drain(..).collect(), Arc::clone(&heart.wake)))
    }

    /// Remote workers whose lease has run out.
    fn silent(&self, now: Time) -> Vec<(Name, u64)> {
        let hearts = self.hearts();
        let silent = hearts.iter().filter(|(_, heart)| {
            heart.home == Home::Remote && now.since_ms(heart.heard) > heart.lease_ms
        });
        silent
            .map(|(worker, heart)| (worker.clone(), heart.lease_ms))
            .collect()
    }
}

/// Whether a worker that the log says is there died with the process that owned the store.
pub(crate) fn died_with_its_process(worker: &Worker) -> bool {
    worker.spec.home == Home::InProcess && !matches!(worker.presence, Presence::Gone { .. })
}

/// The silent lose what they hold; what waits for the dead alone is freed once they have been gone
/// for a lease.
pub(crate) fn tick(hearts: &Hearts, store: &mut Store, now: Time) -> Vec<Request> {
    let mut commands = Vec::new();
    for (worker, lease_ms) in hearts.silent(now) {
        if let Ok(Some(Row::Worker(row))) = store.get(&Key::Worker(worker.clone()))
            && matches!(row.presence, Presence::Gone { .. })
        {
            hearts.forget(&worker);
            continue;
        }
        let reason = format!("no heartbeat for {lease_ms} ms");
        commands.push(Command::WorkerLose {
            worker,
            session: None,
            reason,
        });
    }
    let mut addressees: Vec<Name> = store.index().addressees().cloned().collect();
    // The index hashes them; the log must not depend on that.
    addressees.sort_unstable();
    for worker in addressees {
        let Ok(Some(Row::Worker(row))) = store.get(&Key::Worker(worker.clone())) else {
            continue;
        };
        let Presence::Gone { since, .. } = row.presence else {
            continue;
        };
        if now.since_ms(since) > row.spec.lease_ms {
            let waiting = store
                .index()
                .addressed_to(&worker, FREED_PER_TURN)
                .into_iter();
            commands.extend(waiting.map(|task| Command::TaskReassign {
                task,
                to: Address::Any,
            }));
        }
    }
    let request = |command| Request::own(vec![Op::Command(command)]);
    commands.into_iter().map(request).collect()
}
