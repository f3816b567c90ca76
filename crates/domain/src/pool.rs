//! The pool: workers managed together, and the strategies that share work out among them.
//!
//! A strategy answers one question, [`Strategy::share`]: given who there is and how many tasks,
//! which task is addressed to whom. It is exact and repeatable, so a plan can be read before it
//! runs. `least_loaded` addresses nobody: whoever is free first takes the next task, which is the
//! least loaded worker at that moment, known better then than when the plan was made.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::limits::POOL_MEMBERS_MAX;
use crate::name::Name;
use crate::state::State;
use crate::task::{Address, unknown_worker};
use crate::time::Time;
use crate::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How work is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Task 0 to the first worker, task 1 to the second, and round again.
    #[default]
    RoundRobin,
    /// Whoever is free.
    LeastLoaded,
    /// In proportion to declared capacity, evenly interleaved.
    Weighted,
    /// Round-robin among those that can do what the task needs.
    Capability,
    /// Tasks with the same affinity key to the same worker.
    Affinity,
}

impl std::str::FromStr for Strategy {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text.replace('-', "_").as_str() {
            "round_robin" => Self::RoundRobin,
            "least_loaded" => Self::LeastLoaded,
            "weighted" => Self::Weighted,
            "capability" => Self::Capability,
            "affinity" => Self::Affinity,
            _ => {
                let text = format!("“{text}” is not a strategy");
                return Err(Error::new(Code::OutOfRange, text)
                    .hint("Use round-robin, least-loaded, weighted, capability or affinity."));
            }
        })
    }
}

/// A worker as a strategy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who.
    pub worker: Name,
    /// Declared capacity, at least 1.
    #[serde(default = "one")]
    pub capacity: u32,
    /// What it can do, for [`Strategy::Capability`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Name>,
}

fn one() -> u32 {
    1
}

impl Member {
    /// A member with room for one task and no special capability.
    pub fn new(worker: Name) -> Self {
        Self {
            worker,
            capacity: 1,
            capabilities: Vec::new(),
        }
    }
}

/// A task as a strategy sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// What a worker must be able to do.
    pub capability: Option<&'a Name>,
    /// Tasks with the same key belong together.
    pub affinity: Option<&'a str>,
}

impl Strategy {
    /// Who gets which task: one address per entry of `tasks`, in order.
    ///
    /// With nobody to choose from (no member, or none with the capability) the task is addressed to
    /// any worker, and waits with a visible reason until one can.
    ///
    /// ```
    /// use domain::{name::Name, pool::{Member, Strategy, Wanted}, task::Address};
    /// let crew: Vec<_> = ["worker_1", "worker_2", "worker_3"]
    ///     .map(|id| Member::new(Name::literal(id))).into();
    /// let shares = Strategy::RoundRobin.share(&crew, &[Wanted::default(); 4]);
    /// assert_eq!(shares[0], Address::Only(Name::literal("worker_1")));
    /// assert_eq!(shares[3], Address::Only(Name::literal("worker_1")));
    /// ```
    pub fn share(self, members: &[Member], tasks: &[Wanted<'_>]) -> Vec<Address> {
        let only = |member: &Member| Address::Only(member.worker.clone());
        match self {
            _ if members.is_empty() => vec![Address::Any; tasks.len()],
            Self::LeastLoaded => vec![Address::Any; tasks.len()],
            Self::RoundRobin => (0..tasks.len())
                .map(|n| only(&members[n % members.len()]))
                .collect(),
            Self::Weighted => weighted(members, tasks.len()),
            Self::Capability => {
                let mut turns = vec![0u64; members.len()];
                tasks
                    .iter()
                    .map(|task| fewest_turns(members, task, &mut turns))
                    .collect()
            }
            Self::Affinity => tasks
                .iter()
                .map(|task| match task.affinity {
                    None => Address::Any,
                    Some(key) => members
                        .iter()
                        .max_by_key(|member| rendezvous(key, &member.worker))
                        .map_or(Address::Any, only),
                })
                .collect(),
        }
    }
}

/// Smooth weighted round-robin, as nginx does it: everybody gains their weight each turn, the
/// richest pays the whole and takes the task. Over any full cycle each gets exactly their weight,
/// and nobody gets their whole share in a row.
fn weighted(members: &[Member], tasks: usize) -> Vec<Address> {
    let total: i64 = members
        .iter()
        .map(|member| i64::from(member.capacity.max(1)))
        .sum();
    let mut credit = vec![0i64; members.len()];
    let mut shares = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        for (credit, member) in credit.iter_mut().zip(members) {
            *credit += i64::from(member.capacity.max(1));
        }
        // The first of the richest, so that the order is exact.
        let richest = (0..members.len())
            .rev()
            .max_by_key(|n| credit[*n])
            .unwrap_or(0);
        credit[richest] -= total;
        shares.push(Address::Only(members[richest].worker.clone()));
    }
    shares
}

fn fewest_turns(members: &[Member], task: &Wanted<'_>, turns: &mut [u64]) -> Address {
    let can = |member: &Member| {
        task.capability.is_none_or(|needed| {
            member
                .capabilities
                .iter()
                .any(|own| own.eq_ignore_ascii_case(needed))
        })
    };
    match (0..members.len())
        .filter(|n| can(&members[*n]))
        .min_by_key(|n| turns[*n])
    {
        None => Address::Any,
        Some(n) => {
            turns[n] += 1;
            Address::Only(members[n].worker.clone())
        }
    }
}

/// Highest random weight (Thaler and Ravishankar 1996): a member that joins or leaves moves only
/// its own keys.
fn rendezvous(key: &str, worker: &Name) -> u64 {
    crate::command::fnv(&[key.as_bytes(), &[0], worker.as_bytes()])
}

/// A pool's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub id: Name,
    /// How it shares work out.
    #[serde(default)]
    pub strategy: Strategy,
    /// Who is in it, in the order they joined.
    #[serde(default)]
    pub members: Vec<Name>,
    /// Changes so far: whoever defines it can say which form they read.
    #[serde(default)]
    pub version: u64,
}

impl Pool {
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::PoolDefined { pool } => *self = pool.clone(),
            Event::PoolJoined { worker, .. } => {
                self.members.push(worker.clone());
                self.version += 1;
            }
            Event::PoolLeft { worker, .. } => {
                self.members.retain(|member| member != worker);
                self.version += 1;
            }
            other => debug_assert!(false, "{} does not fold on a pool", other.name()),
        }
    }
}

/// Defines a pool, or gives it another strategy; members it already has stay. With `expected`, only
/// when that is its version now (0: it does not exist yet).
pub(crate) fn define(state: &State, new: &Pool, expected: Option<u64>) -> Decision {
    let version = state.pool(&new.id).map_or(0, |known| known.version);
    if let Some(expected) = expected
        && expected != version
    {
        let text = format!("pool “{}” has version {version}, not {expected}", new.id);
        return Decision::refuse(Error::new(Code::VersionStale, text));
    }
    if let Some(missing) = new
        .members
        .iter()
        .find(|worker| state.worker(worker).is_none())
    {
        return Decision::refuse(unknown_worker(missing));
    }
    let known = state.pool(&new.id).map_or(&[][..], |known| &known.members);
    let mut seen = BTreeSet::new();
    let all = new.members.iter().chain(known);
    let members: Vec<Name> = all.filter(|id| seen.insert(*id)).cloned().collect();
    if members.len() > POOL_MEMBERS_MAX {
        return Decision::refuse(Error::limit("members", members.len(), POOL_MEMBERS_MAX));
    }
    let pool = Pool {
        members,
        version: version + 1,
        ..new.clone()
    };
    Decision::event(Event::PoolDefined { pool }, Outcome::Done)
}

/// Adds a worker; one that never registered is refused.
pub(crate) fn join(state: &State, pool: &Name, worker: &Name) -> Decision {
    let Some(known) = state.pool(pool) else {
        return Decision::refuse(unknown(pool));
    };
    if state.worker(worker).is_none() {
        return Decision::refuse(unknown_worker(worker));
    }
    if known.members.contains(worker) {
        let text = format!("worker “{worker}” is in pool “{pool}” already");
        return Decision::refuse(Error::new(Code::PoolMember, text));
    }
    if known.members.len() >= POOL_MEMBERS_MAX {
        return Decision::refuse(Error::limit(
            "members",
            known.members.len() + 1,
            POOL_MEMBERS_MAX,
        ));
    }
    Decision::event(
        Event::PoolJoined {
            pool: pool.clone(),
            worker: worker.clone(),
        },
        Outcome::Done,
    )
}

/// Removes a worker, and drains it: what it runs finishes or comes back.
pub(crate) fn leave(state: &State, pool: &Name, worker: &Name) -> Decision {
    let Some(known) = state.pool(pool) else {
        return Decision::refuse(unknown(pool));
    };
    if !known.members.contains(worker) {
        return Decision::refuse(unknown_worker(worker));
    }
    let mut events = vec![Event::PoolLeft {
        pool: pool.clone(),
        worker: worker.clone(),
    }];
    events.extend(crate::worker::drain(state, worker).events);
    Decision {
        events,
        outcome: Ok(Outcome::Done),
    }
}

/// Keeps one unit of the least loaded fitting member's capacity for `holder`, in the same decision
/// that finds it, so that two callers never get the same one.
pub(crate) fn reserve(
    state: &State,
    pool: &Name,
    capability: Option<&Name>,
    holder: &Name,
    until: Time,
    now: Time,
) -> Decision {
    let Some(known) = state.pool(pool) else {
        return Decision::refuse(unknown(pool));
    };
    let live = |worker: &&Worker| worker.reserved.get(holder).is_some_and(|end| *end > now);
    let mut all = known.members.iter().filter_map(|id| state.worker(id));
    if let Some(worker) = all.find(live) {
        // Asked again, because the answer was lost on its way.
        return Decision::answer(Outcome::Worker(worker.spec.id.clone()));
    }
    let fits = |worker: &&Worker| {
        worker.accepts(now).is_ok() && capability.is_none_or(|needed| worker.spec.can(needed))
    };
    let load = |worker: &&Worker| {
        let busy = u64::from(worker.spec.capacity - worker.free(now));
        (
            busy * 1_000 / u64::from(worker.spec.capacity),
            worker.completed,
        )
    };
    let members = known.members.iter().filter_map(|id| state.worker(id));
    let Some(worker) = members.filter(fits).min_by_key(load) else {
        let text = match capability {
            Some(capability) => format!("nobody in pool “{pool}” with “{capability}” has room"),
            None => format!("nobody in pool “{pool}” has room"),
        };
        return Decision::refuse(Error::new(Code::WorkerFull, text));
    };
    let worker = worker.spec.id.clone();
    Decision::event(
        Event::WorkerReserved {
            worker: worker.clone(),
            holder: holder.clone(),
            until,
            pool: pool.clone(),
        },
        Outcome::Worker(worker),
    )
}

/// Gives a reservation back; one that is over already is no error.
pub(crate) fn unreserve(state: &State, worker: &Name, holder: &Name) -> Decision {
    match state.worker(worker) {
        None => Decision::refuse(unknown_worker(worker)),
        Some(known) if !known.reserved.contains_key(holder) => Decision::answer(Outcome::Done),
        Some(_) => Decision::event(
            Event::WorkerReservationEnded {
                worker: worker.clone(),
                holder: holder.clone(),
            },
            Outcome::Done,
        ),
    }
}

fn unknown(pool: &Name) -> Error {
    Error::new(Code::PoolUnknown, format!("there is no pool “{pool}”"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(sizes: &[u32]) -> Vec<Member> {
        let member = |(n, capacity): (usize, &u32)| Member {
            capacity: *capacity,
            ..Member::new(Name::new(format!("worker_{}", n + 1)).unwrap())
        };
        sizes.iter().enumerate().map(member).collect()
    }

    fn names(shares: &[Address]) -> Vec<&str> {
        shares
            .iter()
            .map(|a| a.worker().map_or("any", Name::as_str))
            .collect()
    }

    #[test]
    fn round_robin_is_exact() {
        // S1-98, S3-168: task[0] to worker_1, [1] to worker_2, [2] to worker_3, [3] to worker_1.
        let shares = Strategy::RoundRobin.share(&crew(&[1, 1, 1]), &[Wanted::default(); 4]);
        assert_eq!(
            names(&shares),
            ["worker_1", "worker_2", "worker_3", "worker_1"]
        );
    }

    #[test]
    fn weights_are_honoured_and_interleaved() {
        // S1-99, S1-109: ("worker_1", 10), ("worker_2", 5): 15 tasks are 10 and 5.
        let shares = Strategy::Weighted.share(&crew(&[10, 5]), &[Wanted::default(); 15]);
        let count = |id: &str| names(&shares).iter().filter(|n| **n == id).count();
        assert_eq!((count("worker_1"), count("worker_2")), (10, 5));
        // By hand, weights 2 and 1: a a pays 3 → -1; then b (2 against 1) … a, b, a, a, b, a.
        let small = Strategy::Weighted.share(&crew(&[2, 1]), &[Wanted::default(); 6]);
        assert_eq!(
            names(&small),
            [
                "worker_1", "worker_2", "worker_1", "worker_1", "worker_2", "worker_1"
            ]
        );
    }

    #[test]
    fn capability_goes_to_those_who_can() {
        // S3-169: routing by capability, without regard to case; nobody capable waits visibly.
        let mut members = crew(&[1, 1, 1]);
        members[1].capabilities = vec![Name::literal("Vision")];
        members[2].capabilities = vec![Name::literal("vision"), Name::literal("sql")];
        let (vision, sql, none) = (
            Name::literal("vision"),
            Name::literal("sql"),
            Name::literal("welding"),
        );
        let want = |c| Wanted {
            capability: Some(c),
            affinity: None,
        };
        let tasks = [
            want(&vision),
            want(&vision),
            want(&sql),
            want(&vision),
            want(&none),
        ];
        assert_eq!(
            names(&Strategy::Capability.share(&members, &tasks)),
            ["worker_2", "worker_3", "worker_3", "worker_2", "any"]
        );
    }

    #[test]
    fn affinity_keeps_a_key_together_and_moves_only_the_leavers() {
        let all = crew(&[1, 1, 1, 1]);
        let keys: Vec<String> = (0..200).map(|n| format!("customer-{n}")).collect();
        let tasks: Vec<_> = keys
            .iter()
            .map(|k| Wanted {
                capability: None,
                affinity: Some(k),
            })
            .collect();
        let before = Strategy::Affinity.share(&all, &tasks);
        assert_eq!(before, Strategy::Affinity.share(&all, &tasks));
        let after = Strategy::Affinity.share(&all[..3], &tasks);
        let mut moved = 0;
        for (old, new) in before.iter().zip(&after) {
            if old.worker() == Some(&all[3].worker) {
                moved += 1;
            } else {
                assert_eq!(old, new);
            }
        }
        assert!(
            (20..80).contains(&moved),
            "{moved} of 200 keys were on one of four workers"
        );
    }

    #[test]
    fn without_a_crew_nobody_is_addressed() {
        for strategy in [
            Strategy::RoundRobin,
            Strategy::Weighted,
            Strategy::Capability,
        ] {
            assert_eq!(
                strategy.share(&[], &[Wanted::default(); 2]),
                [Address::Any, Address::Any]
            );
        }
    }
}
