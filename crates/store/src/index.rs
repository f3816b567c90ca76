//! What is kept in memory about tasks that wait and rows that are due, so that a claim or a timer
//! reads no disk: about a hundred bytes per waiting task, whatever its payload.
//!
//! Pure data. Which tasks may be claimed, in which order, and whether a slot is open, is computed by
//! [`domain`] ([`Task::place`](domain::task::Task::place), [`Slot`](domain::queue::Slot)); this only
//! sorts. Waiting tasks are grouped into classes (queue, type, capability, address) so that a claim
//! looks only at what its worker may take, and within a class into lanes by concurrency key, so that
//! a full key is stepped over at once however many tasks wait behind it.

use domain::id::TaskId;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::task::{Address, Place};
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

/// In order: rank, then who came first.
pub type Turn = (i64, u64, TaskId);

/// What the tasks of a class have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Class {
    queue: Name,
    kind: Name,
    capability: Option<Name>,
    address: Address,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By concurrency key; no key is a lane of its own that is always open.
    lanes: HashMap<Option<Name>, BTreeSet<Turn>>,
    /// The first of each open lane.
    heads: BTreeMap<Turn, Option<Name>>,
}

impl Waiting {
    fn head(&self, lane: &Option<Name>) -> Option<Turn> {
        self.lanes
            .get(lane)
            .and_then(|turns| turns.first().copied())
    }

    /// Changes a lane, keeping its head in step.
    fn change(
        &mut self,
        lane: &Option<Name>,
        open: bool,
        change: impl FnOnce(&mut BTreeSet<Turn>),
    ) {
        let before = self.head(lane);
        let turns = self.lanes.entry(lane.clone()).or_default();
        change(turns);
        let after = turns.first().copied();
        if turns.is_empty() {
            self.lanes.remove(lane);
        }
        if open && before == after {
            return;
        }
        if let Some(before) = before {
            self.heads.remove(&before);
        }
        if open && let Some(after) = after {
            self.heads.insert(after, lane.clone());
        }
    }
}

/// All that the index sees of a row.
#[derive(Debug)]
pub struct Seen {
    place: Option<Place>,
    due: Option<Time>,
    open: bool,
}

impl Seen {
    /// Of this row, or of none.
    pub fn of(key: &Key, row: Option<&Row>) -> Self {
        let (mut place, mut due, mut open) = (None, None, true);
        match key {
            Key::Task(_) | Key::Run(_) | Key::Entry(_) | Key::Message(_) | Key::Receipt(_) => {
                (place, due) = (row.and_then(Row::place), row.and_then(Row::due));
            }
            Key::Slot(_) => open = !matches!(row, Some(Row::Slot(slot)) if !slot.is_open()),
            Key::Worker(_)
            | Key::Queue(_)
            | Key::Pool(_)
            | Key::Board(_)
            | Key::Credential(_)
            | Key::Tally => {}
        }
        Self { place, due, open }
    }
}

/// The ready queues and timers.
#[derive(Debug, Default)]
pub struct Index {
    classes: HashMap<Class, usize>,
    waiting: Vec<(Class, Waiting)>,
    /// Classes that anybody may look at.
    open_to_all: Vec<usize>,
    /// Classes addressed to one worker alone.
    addressed: HashMap<Name, Vec<usize>>,
    /// Tasks that are not due yet.
    later: BTreeMap<(Time, TaskId), Place>,
    /// Rows the clock must look at.
    due: BTreeSet<(Time, Key)>,
    closed_slots: HashSet<Name>,
    ready: usize,
}

impl Index {
    /// Tasks that could be claimed now, by somebody.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Adds what a stored row waits for.
    pub fn insert(&mut self, key: &Key, place: Option<Place>, due: Option<Time>) {
        if let Some(due) = due {
            self.due.insert((due, key.clone()));
        }
        if let (Key::Task(task), Some(place)) = (key, place) {
            // Every task that names an instant goes through `later`; `promote` moves it on.
            match place.not_before {
                Some(at) => {
                    self.later.insert((at, *task), place);
                }
                None => self.enqueue(*task, &place),
            }
        }
    }

    fn remove(&mut self, key: &Key, place: Option<Place>, due: Option<Time>) {
        if let Some(due) = due {
            self.due.remove(&(due, key.clone()));
        }
        if let (Key::Task(task), Some(place)) = (key, place) {
            let waits = place
                .not_before
                .and_then(|at| self.later.remove(&(at, *task)));
            if waits.is_none() {
                self.dequeue(*task, &place);
            }
        }
    }

    /// Follows a row from one form to the next.
    pub fn update(&mut self, key: &Key, old: Seen, new: Seen) {
        if let Key::Slot(slot) = key
            && old.open != new.open
        {
            self.set_slot(slot, new.open);
        }
        if (&old.place, old.due) != (&new.place, new.due) {
            self.remove(key, old.place, old.due);
            self.insert(key, new.place, new.due);
        }
    }

    fn set_slot(&mut self, slot: &Name, open: bool) {
        if open {
            self.closed_slots.remove(slot);
        } else {
            self.closed_slots.insert(slot.clone());
        }
        let lane = Some(slot.clone());
        for (_, waiting) in &mut self.waiting {
            if waiting.lanes.contains_key(&lane) {
                waiting.change(&lane, open, |_| {});
                if open && let Some(head) = waiting.head(&lane) {
                    waiting.heads.insert(head, lane.clone());
                }
            }
        }
    }

    fn class(&mut self, place: &Place) -> usize {
        let class = Class {
            queue: place.queue.clone(),
            kind: place.kind.clone(),
            capability: place.capability.clone(),
            address: place.address.clone(),
        };
        if let Some(n) = self.classes.get(&class) {
            return *n;
        }
        let n = self.waiting.len();
        match &class.address {
            Address::Only(worker) => self.addressed.entry(worker.clone()).or_default().push(n),
            Address::Any | Address::Prefer(_) => self.open_to_all.push(n),
        }
        self.classes.insert(class.clone(), n);
        self.waiting.push((class, Waiting::default()));
        n
    }

    fn enqueue(&mut self, task: TaskId, place: &Place) {
        let n = self.class(place);
        let open = place
            .slot
            .as_ref()
            .is_none_or(|slot| !self.closed_slots.contains(slot));
        self.ready += 1;
        self.waiting[n].1.change(&place.slot, open, |turns| {
            turns.insert((place.rank, place.seq, task));
        });
    }

    fn dequeue(&mut self, task: TaskId, place: &Place) {
        let n = self.class(place);
        let open = place
            .slot
            .as_ref()
            .is_none_or(|slot| !self.closed_slots.contains(slot));
        let mut found = false;
        self.waiting[n].1.change(&place.slot, open, |turns| {
            found = turns.remove(&(place.rank, place.seq, task));
        });
        self.ready -= usize::from(found);
    }

    /// Moves tasks whose instant has come into their queues.
    pub fn promote(&mut self, now: Time) {
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            let ((_, task), place) = entry.remove_entry();
            self.enqueue(task, &place);
        }
    }

    /// Rows that are due, the longest overdue first.
    pub fn due(&self, now: Time, limit: usize) -> Vec<Key> {
        self.due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .map(|(_, k)| k.clone())
            .collect()
    }

    /// When the clock has to look next, at a row or at a task whose instant comes.
    pub fn next_due(&self) -> Option<Time> {
        let row = self.due.first().map(|(at, _)| *at);
        let task = self.later.first_key_value().map(|((at, _), _)| *at);
        row.into_iter().chain(task).min()
    }

    /// The classes a worker may look into.
    pub fn eligible(&self, worker: &WorkerSpec) -> Vec<usize> {
        let own = self.addressed.get(&worker.id).into_iter().flatten();
        let fits = |n: &&usize| {
            let (class, waiting) = &self.waiting[**n];
            !waiting.heads.is_empty()
                && worker.queues.contains(&class.queue)
                && (worker.kinds.is_empty() || worker.kinds.contains(&class.kind))
                && class
                    .capability
                    .as_ref()
                    .is_none_or(|needed| worker.can(needed))
        };
        own.chain(&self.open_to_all).filter(fits).copied().collect()
    }

    /// The next candidate in these classes after a turn: the first of each open lane, in order.
    /// Nothing is taken: a claim that is decided takes its task out by [`update`](Self::update),
    /// after which the next of its lane comes after its turn.
    pub fn next_after(&self, classes: &[usize], after: Option<Turn>) -> Option<Turn> {
        let from = match after {
            None => Bound::Unbounded,
            Some(after) => Bound::Excluded(after),
        };
        let first = |n: &usize| {
            let heads = &self.waiting[*n].1.heads;
            heads
                .range((from, Bound::Unbounded))
                .next()
                .map(|(turn, _)| *turn)
        };
        classes.iter().filter_map(first).min()
    }

    /// The first of each lane a worker may look into, in order.
    pub fn candidates(&self, worker: &WorkerSpec) -> Vec<TaskId> {
        let classes = self.eligible(worker);
        let next = |turn: &Turn| self.next_after(&classes, Some(*turn));
        std::iter::successors(self.next_after(&classes, None), next)
            .map(|turn| turn.2)
            .collect()
    }

    /// About the next `limit` tasks in these classes, in no order: what is worth loading before a
    /// claim.
    pub fn soon(&self, classes: &[usize], limit: usize) -> Vec<TaskId> {
        let lanes = classes.iter().flat_map(|n| {
            let waiting = &self.waiting[*n].1;
            waiting.heads.values().map(|lane| &waiting.lanes[lane])
        });
        lanes
            .flat_map(|turns| turns.iter().take(limit))
            .take(limit)
            .map(|turn| turn.2)
            .collect()
    }

    /// Tasks that wait for one worker alone, in order, at most `limit`.
    pub fn addressed_to(&self, worker: &Name, limit: usize) -> Vec<TaskId> {
        let classes = self.addressed.get(worker).into_iter().flatten();
        let lanes = classes.flat_map(|n| self.waiting[*n].1.lanes.values());
        let mut turns: Vec<Turn> = lanes.flatten().copied().collect();
        turns.sort_unstable();
        turns
            .into_iter()
            .take(limit)
            .map(|(_, _, task)| task)
            .collect()
    }

    /// Workers that somebody waits for alone.
    pub fn addressees(&self) -> impl Iterator<Item = &Name> {
        let waits = |n: &usize| !self.waiting[*n].1.lanes.is_empty();
        self.addressed
            .iter()
            .filter(move |(_, classes)| classes.iter().any(waits))
            .map(|(w, _)| w)
    }

    /// The first tasks in line of a queue, whoever may take them, at most `limit`.
    pub fn in_line(&self, queue: &Name, limit: usize) -> Vec<TaskId> {
        let classes = self
            .waiting
            .iter()
            .filter(|(class, _)| class.queue == *queue);
        let lanes = classes.flat_map(|(_, waiting)| waiting.lanes.values());
        let mut turns: Vec<Turn> = lanes
            .flat_map(|turns| turns.iter().take(limit))
            .copied()
            .collect();
        turns.sort_unstable();
        turns
            .into_iter()
            .take(limit)
            .map(|(_, _, task)| task)
            .collect()
    }

    /// The most urgent waiting task of each class, for whoever looks for work to preempt.
    pub fn first_of_each_class(&self) -> impl Iterator<Item = (TaskId, i64)> + '_ {
        let heads = self
            .waiting
            .iter()
            .filter_map(|(_, waiting)| waiting.heads.first_key_value());
        heads.map(|((rank, _, task), _)| (*task, *rank))
    }
}

/// What [`Backend::hot`](crate::Backend::hot) needs of a task, as stored beside its row.
pub fn encode_hot(place: Option<&Place>, due: Option<Time>) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, name: Option<&Name>) {
        let name = name.map_or("", Name::as_str);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
    }
    let mut bytes = Vec::with_capacity(64);
    bytes.push(u8::from(place.is_some()));
    bytes.extend_from_slice(&due.map_or(0, |t| t.0).to_le_bytes());
    if let Some(place) = place {
        bytes.extend_from_slice(&place.rank.to_le_bytes());
        bytes.extend_from_slice(&place.seq.to_le_bytes());
        bytes.extend_from_slice(&place.not_before.map_or(0, |t| t.0).to_le_bytes());
        text(&mut bytes, Some(&place.queue));
        text(&mut bytes, Some(&place.kind));
        text(&mut bytes, place.capability.as_ref());
        bytes.push(match place.address {
            Address::Any => 0,
            Address::Prefer(_) => 1,
            Address::Only(_) => 2,
        });
        text(&mut bytes, place.address.worker());
        text(&mut bytes, place.slot.as_ref());
    }
    bytes
}

/// Reads what [`encode_hot`] wrote; `names` shares equal names.
pub fn decode_hot(
    bytes: &[u8],
    names: &mut HashSet<Name>,
) -> Option<(Option<Place>, Option<Time>)> {
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(u64::from_le_bytes(*head))
    }
    fn name(bytes: &mut &[u8], names: &mut HashSet<Name>) -> Option<Option<Name>> {
        let (length, rest) = bytes.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        *bytes = rest;
        let text = std::str::from_utf8(text).ok()?;
        if text.is_empty() {
            return Some(None);
        }
        if let Some(known) = names.get(text) {
            return Some(Some(known.clone()));
        }
        let name = Name::new(text).ok()?;
        names.insert(name.clone());
        Some(Some(name))
    }
    let some = |ms: u64| (ms > 0).then_some(Time(ms));
    let (has_place, mut bytes) = bytes.split_first()?;
    let due = some(number(&mut bytes)?);
    if *has_place == 0 {
        return Some((None, due));
    }
    let rank = number(&mut bytes)? as i64;
    let seq = number(&mut bytes)?;
    let not_before = some(number(&mut bytes)?);
    let queue = name(&mut bytes, names)??;
    let kind = name(&mut bytes, names)??;
    let capability = name(&mut bytes, names)?;
    let (tag, rest) = bytes.split_first()?;
    bytes = rest;
    let address = match (tag, name(&mut bytes, names)?) {
        (0, None) => Address::Any,
        (1, Some(worker)) => Address::Prefer(worker),
        (2, Some(worker)) => Address::Only(worker),
        _ => return None,
    };
    let slot = name(&mut bytes, names)?;
    let place = Place {
        rank,
        seq,
        not_before,
        queue,
        kind,
        capability,
        address,
        slot,
    };
    Some((Some(place), due))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rank: i64, seq: u64) -> Place {
        Place {
            rank,
            seq,
            not_before: None,
            queue: Name::literal("default"),
            kind: Name::literal("task"),
            capability: None,
            address: Address::Any,
            slot: None,
        }
    }

    fn order(index: &Index, worker: &WorkerSpec) -> Vec<u128> {
        let tasks = index.candidates(worker).into_iter();
        tasks.map(|task| task.0).collect()
    }

    #[test]
    fn what_is_stored_reads_back() {
        let full = Place {
            not_before: Some(Time(7)),
            capability: Some(Name::literal("vision")),
            address: Address::Only(Name::literal("w")),
            slot: Some(Name::literal("customer-1")),
            ..place(-5, 9)
        };
        for place in [place(1, 2), full] {
            let bytes = encode_hot(Some(&place), None);
            assert_eq!(
                decode_hot(&bytes, &mut HashSet::new()),
                Some((Some(place), None))
            );
        }
        let bytes = encode_hot(None, Some(Time(3)));
        assert_eq!(
            decode_hot(&bytes, &mut HashSet::new()),
            Some((None, Some(Time(3))))
        );
        assert_eq!(decode_hot(&bytes[..4], &mut HashSet::new()), None);
    }

    #[test]
    fn a_full_lane_is_stepped_over_and_comes_back() {
        let mut index = Index::default();
        let worker = WorkerSpec::new(Name::literal("w"));
        let slot = Name::literal("k");
        let keyed = |rank, seq| Place {
            slot: Some(slot.clone()),
            ..place(rank, seq)
        };
        index.insert(&Key::Task(TaskId::new(1)), Some(keyed(1, 1)), None);
        index.insert(&Key::Task(TaskId::new(2)), Some(keyed(2, 2)), None);
        index.insert(&Key::Task(TaskId::new(3)), Some(place(3, 3)), None);
        // Of a lane only the first: the second may be over the bound once the first is taken.
        assert_eq!(order(&index, &worker), [1, 3]);
        index.set_slot(&slot, false);
        assert_eq!(order(&index, &worker), [3]);
        index.remove(&Key::Task(TaskId::new(1)), Some(keyed(1, 1)), None);
        index.set_slot(&slot, true);
        assert_eq!(order(&index, &worker), [2, 3]);
        assert_eq!(index.ready(), 2);
    }

    #[test]
    fn a_worker_sees_only_what_it_may_take() {
        let mut index = Index::default();
        let to = |name| Place {
            address: Address::Only(Name::literal(name)),
            ..place(0, 1)
        };
        index.insert(&Key::Task(TaskId::new(1)), Some(to("a")), None);
        index.insert(&Key::Task(TaskId::new(2)), Some(to("b")), None);
        let vision = Place {
            capability: Some(Name::literal("vision")),
            ..place(0, 2)
        };
        index.insert(&Key::Task(TaskId::new(3)), Some(vision), None);
        let mut a = WorkerSpec::new(Name::literal("a"));
        assert_eq!(order(&index, &a), [1]);
        a.capabilities = vec![Name::literal("Vision")];
        assert_eq!(order(&index, &a), [1, 3]);
        assert_eq!(index.addressed_to(&Name::literal("b"), 9), [TaskId::new(2)]);
    }

    #[test]
    fn later_means_later() {
        let mut index = Index::default();
        let worker = WorkerSpec::new(Name::literal("w"));
        let later = Place {
            not_before: Some(Time(10)),
            ..place(10, 1)
        };
        index.insert(&Key::Task(TaskId::new(1)), Some(later.clone()), None);
        assert_eq!(
            (order(&index, &worker), index.next_due()),
            (vec![], Some(Time(10)))
        );
        index.promote(Time(9));
        assert!(order(&index, &worker).is_empty());
        index.promote(Time(10));
        assert_eq!((order(&index, &worker), index.next_due()), (vec![1], None));
        index.remove(&Key::Task(TaskId::new(1)), Some(later), None);
        assert!(order(&index, &worker).is_empty());
    }
}
