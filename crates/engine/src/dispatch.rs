//! Gives waiting workers their tasks, in the order that serves the crew; asks running work to yield
//! when urgent work finds nobody free. Which task goes to whom is decided by `domain`, over the
//! candidates that the index sorts.

use crate::ask::{Reply, Worked};
use domain::command::{Claimant, Command, Report};
use domain::error::Error;
use domain::event::{AttemptRef, Origin};
use domain::limits::PREEMPT_POINTS;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::task::{Task, TaskStatus};
use domain::time::Time;
use domain::worker::Worker;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use store::{Answer, Op, Request, Store};

/// A worker that waits for work.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) by: Claimant,
    pub(crate) max: u32,
    pub(crate) origin: Origin,
    pub(crate) until: Time,
    /// What became of the reports that came with the claim.
    pub(crate) answers: Vec<Answer>,
    pub(crate) reply: Reply<Worked>,
}

impl Parked {
    pub(crate) fn claim(&self) -> Op {
        Op::Claim {
            by: self.by.clone(),
            max: self.max,
        }
    }
}

/// Numbers of claims that are remembered of each worker. A request that is late by more than so many
/// others of the same worker is not known from a new one.
const NUMBERS_MAX: usize = 64;

/// Which claims were asked already, by their workers' own numbers, in this process. A network may
/// bring a request twice, or long after whoever sent it gave it up: what it took then, nobody would
/// ever hear of, while its worker goes on living and holding it.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<Name, Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    session: u64,
    /// The newest last.
    asked: VecDeque<u64>,
}

impl Claims {
    /// Remembers a claim. Whether its number was asked before, in the same life of its worker; one
    /// without a session or number is always new, because nothing tells its lives apart.
    pub(crate) fn note(&mut self, by: &Claimant) -> bool {
        let (Some(session @ 1..), Some(number)) = (by.session, by.claim) else {
            return false;
        };
        let numbers = self.0.entry(by.worker.clone()).or_default();
        if numbers.session != session {
            *numbers = Numbers {
                session,
                asked: VecDeque::new(),
            };
        }
        if numbers.asked.contains(&number) {
            return true;
        }
        if numbers.asked.len() >= NUMBERS_MAX {
            numbers.asked.pop_front();
        }
        numbers.asked.push_back(number);
        false
    }

    /// As if it had not been asked.
    pub(crate) fn forget(&mut self, by: &Claimant) {
        if let (Some(numbers), Some(number)) = (self.0.get_mut(&by.worker), by.claim)
            && by.session == Some(numbers.session)
        {
            numbers.asked.retain(|asked| *asked != number);
        }
    }
}

/// A lease that its worker never heard of goes back.
pub(crate) fn take_back(lease: AttemptRef) -> Request {
    let report = Report::Released {
        reason: "its worker hung up before it heard of it".into(),
        checkpoint: None,
        after_ms: 0,
    };
    Request::own(vec![Op::Command(Command::TaskReport { lease, report })])
}

/// The least loaded first; of equals the one that has waited longest.
pub(crate) fn order(parked: &mut [Parked], store: &mut Store, now: Time) {
    let mut load = |parked: &Parked| match store.get(&Key::Worker(parked.by.worker.clone())) {
        Ok(Some(Row::Worker(worker))) => {
            let busy = worker.spec.capacity.saturating_sub(worker.free(now));
            u64::from(busy) * 1_000 / u64::from(worker.spec.capacity.max(1))
        }
        _ => u64::MAX,
    };
    if parked.len() > 1 {
        parked.sort_by_cached_key(|parked| load(parked));
    }
}

/// For the most urgent waiting tasks that every capable worker is too full to take: asks the least
/// urgent task in the way to yield, if there is one and nobody was asked already.
pub(crate) fn preempt(store: &mut Store, workers: &BTreeSet<Name>, now: Time) -> Vec<Request> {
    let mut heads: Vec<_> = store.index().first_of_each_class().collect();
    if heads.is_empty() {
        return Vec::new();
    }
    heads.sort_unstable_by_key(|(task, rank)| (*rank, *task));
    let mut requests = Vec::new();
    for (urgent, _) in heads.into_iter().take(16) {
        let Ok(Some(Row::Task(waiting))) = store.get(&Key::Task(urgent)) else {
            continue;
        };
        if waiting.spec.priority.0 < PREEMPT_POINTS {
            // Work of the bands below `critical` never evicts.
            continue;
        }
        if let Some(task) = in_the_way(store, workers, &waiting, now) {
            let command = Command::TaskPreempt { task, urgent };
            requests.push(Request::own(vec![Op::Command(command)]));
        }
    }
    requests
}

/// The least urgent task that a capable, full worker holds; none when one is free or was asked.
fn in_the_way(
    store: &mut Store,
    workers: &BTreeSet<Name>,
    waiting: &Task,
    now: Time,
) -> Option<domain::id::TaskId> {
    let mut least: Option<Arc<Task>> = None;
    for name in workers {
        let Ok(Some(Row::Worker(worker))) = store.get(&Key::Worker(name.clone())) else {
            continue;
        };
        if !worker.may_take(waiting) || !worker.is_there(now) {
            continue;
        }
        if worker.free(now) > 0 {
            return None;
        }
        for task in held(store, &worker) {
            if task.lease().is_some_and(|lease| lease.yield_asked) {
                return None;
            }
            if least
                .as_ref()
                .is_none_or(|least| task.spec.priority < least.spec.priority)
            {
                least = Some(task);
            }
        }
    }
    let least = least?;
    let gap = waiting
        .spec
        .priority
        .0
        .saturating_sub(least.spec.priority.0);
    (gap >= PREEMPT_POINTS).then_some(least.id)
}

fn held(store: &mut Store, worker: &Worker) -> Vec<Arc<Task>> {
    let ids = worker.holds.keys().map(|id| Key::Task(*id));
    ids.filter_map(|key| match store.get(&key) {
        Ok(Some(Row::Task(task))) => Some(task),
        _ => None,
    })
    .collect()
}

/// The first tasks in line of a queue, whoever may take them.
pub(crate) fn peek(store: &mut Store, queue: &Name, limit: usize) -> Result<Vec<Arc<Task>>, Error> {
    let ids = store.index().in_line(queue, limit);
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(Row::Task(task)) = store.get(&Key::Task(id))?
            && task.status() == TaskStatus::Pending
        {
            tasks.push(task);
        }
    }
    Ok(tasks)
}
