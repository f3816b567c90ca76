//! What is kept in memory about tasks that wait and rows that are due, so that a claim or a timer
//! reads no disk: about a hundred bytes per waiting task, whatever its payload.
//!
//! Pure data. Which tasks may be claimed, whose turn it is, and whether a slot is open, is computed
//! by [`domain`] ([`Task::place`](domain::task::Task::place), [`Turn`], [`Slot`](domain::queue::Slot));
//! this only sorts.
//!
//! ```text
//! class   queue, type, capability, address: a claim looks only at what its worker may take
//!   stand   one party (a run, a concurrency key, all the rest) in a class: they take turns
//!     lane    one concurrency key of it: they take turns within the party's turn, and a full one is
//!             stepped over at once, however many tasks wait in it
//!       task    by rank, then in the order they came
//! ```
//!
//! When a party was last served counts in all classes, so that a run gets no more by having tasks of
//! many types. It is kept while the party has a task in line, and is not stored: after a restart the
//! turns begin anew, by rank. A party that comes, or comes back, is treated as served when anybody
//! last was. One whose task has just come waits since then anyway; and one that left and came back
//! with old tasks does not overtake those that stayed.

use domain::id::{RunId, TaskId};
use domain::name::Name;
use domain::queue::{Party, Served, Turn};
use domain::state::{Key, Row};
use domain::task::{Address, Place, Priority};
use domain::time::Time;
use domain::worker::WorkerSpec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, btree_set};
use std::iter::Peekable;
use std::ops::{Bound, RangeInclusive};

/// Where a candidate stands among the candidates of a worker: the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Its party's turn.
    party: Turn,
    /// Its lane's, within the party.
    lane: Turn,
    /// The task.
    pub task: TaskId,
    /// The class it waits in, one of those that were asked for.
    pub class: u32,
}

/// Things by small numbers; a number that is free is given again.
#[derive(Debug)]
struct Numbered<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Numbered<T> {
    fn add(&mut self, item: T) -> u32 {
        if let Some(n) = self.free.pop() {
            self.items[n as usize] = item;
            return n;
        }
        self.items.push(item);
        self.items.len() as u32 - 1
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

impl<T> std::ops::Index<u32> for Numbered<T> {
    type Output = T;
    fn index(&self, n: u32) -> &T {
        &self.items[n as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Numbered<T> {
    fn index_mut(&mut self, n: u32) -> &mut T {
        &mut self.items[n as usize]
    }
}

/// What the tasks of a class have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    queue: Name,
    kind: Name,
    capability: Option<Name>,
    address: Address,
}

#[derive(Debug)]
struct Class {
    kind: Kind,
    /// The stands that have a task to give. A turn may be too early, when the party was served in
    /// another class since: whoever finds it first in line puts it right. It is never too late.
    line: BTreeMap<Turn, u32>,
    stands: u32,
}

#[derive(Debug)]
struct Sharer {
    party: Party,
    served: Served,
    stands: u32,
}

#[derive(Debug)]
struct Stand {
    class: u32,
    sharer: u32,
    /// As which it is in its class's line.
    turn: Option<Turn>,
    lanes: u32,
}

#[derive(Debug)]
struct Lane {
    stand: u32,
    slot: Option<Name>,
    served: Served,
    open: bool,
    /// Its first task.
    head: Option<Waits>,
    /// As which it is in its stand's line.
    turn: Option<Turn>,
}

/// A task that waits. Small, because there may be millions; the id is bytes so that nothing is lost
/// to alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waits {
    lane: u32,
    rank: i64,
    seq: u64,
    task: [u8; 16],
    priority: Priority,
}

impl Waits {
    fn of(lane: u32, task: TaskId, place: &Place) -> Self {
        Self {
            lane,
            rank: place.rank,
            seq: place.seq,
            task: task.to_bytes(),
            priority: place.priority,
        }
    }

    /// All that may wait in a lane.
    fn in_lane(lane: u32) -> RangeInclusive<Self> {
        let first = Self {
            lane,
            rank: i64::MIN,
            seq: 0,
            task: [0; 16],
            priority: Priority(i32::MIN),
        };
        let last = Self {
            lane,
            rank: i64::MAX,
            seq: u64::MAX,
            task: [u8::MAX; 16],
            priority: Priority(i32::MAX),
        };
        first..=last
    }

    fn task(&self) -> TaskId {
        TaskId::from_bytes(self.task)
    }

    fn turn(&self, served: Served) -> Turn {
        Turn::of(self.rank, self.priority, self.seq, served)
    }
}

/// How things were before a lane was served.
#[derive(Debug)]
struct Before {
    lane: u32,
    of_lane: Served,
    of_party: Served,
    last: Served,
}

/// All that the index sees of a row.
#[derive(Debug)]
pub struct Seen {
    place: Option<Place>,
    due: Option<Time>,
    leased: Option<Time>,
    open: bool,
}

impl Seen {
    /// Of this row, or of none.
    pub fn of(key: &Key, row: Option<&Row>) -> Self {
        let (mut place, mut due, mut leased, mut open) = (None, None, None, true);
        match key {
            Key::Task(_)
            | Key::Run(_)
            | Key::Worker(_)
            | Key::Entry(_)
            | Key::Message(_)
            | Key::Receipt(_) => {
                (place, due) = (row.and_then(Row::place), row.and_then(Row::due));
                if let Some(Row::Task(task)) = row {
                    leased = task.lease().map(|lease| lease.since);
                }
            }
            Key::Slot(_) => open = !matches!(row, Some(Row::Slot(slot)) if !slot.is_open()),
            Key::Queue(_) => open = !matches!(row, Some(Row::Queue(queue)) if queue.paused),
            Key::Pool(_)
            | Key::Board(_)
            | Key::Account(_)
            | Key::Credential(_)
            | Key::Demand(_)
            | Key::Tally
            | Key::Record(..) => {}
        }
        Self {
            place,
            due,
            leased,
            open,
        }
    }
}

/// The ready queues and timers.
#[derive(Debug, Default)]
pub struct Index {
    class_of: HashMap<Kind, u32>,
    classes: Numbered<Class>,
    /// Classes that anybody may look at.
    open_to_all: BTreeSet<u32>,
    /// Classes addressed to one worker alone.
    addressed: HashMap<Name, BTreeSet<u32>>,
    sharer_of: HashMap<Party, u32>,
    sharers: Numbered<Sharer>,
    /// By class and sharer.
    stand_of: BTreeMap<(u32, u32), u32>,
    stands: Numbered<Stand>,
    /// By stand and concurrency key.
    lane_of: BTreeMap<(u32, Option<Name>), u32>,
    lanes: Numbered<Lane>,
    /// The open lanes of each stand, in order.
    lines: BTreeMap<(u32, Turn), u32>,
    /// The lanes of each concurrency key.
    keyed: BTreeSet<(Name, u32)>,
    /// The tasks of each lane, in order.
    waiting: BTreeSet<Waits>,
    /// The last service of all.
    last: Served,
    /// Services since [`settle`](Self::settle), for [`undo`](Self::undo).
    before: Vec<Before>,
    /// Lanes that became empty since then; they are freed when it is sure that they stay so.
    emptied: Vec<u32>,
    /// Tasks that are not due yet.
    later: BTreeMap<(Time, TaskId), Place>,
    /// Rows the clock must look at.
    due: BTreeSet<(Time, Key)>,
    closed_slots: HashSet<Name>,
    paused: HashSet<Name>,
    ready: usize,
    now: Time,
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

    fn remove(&mut self, key: &Key, place: Option<Place>, due: Option<Time>, leased: Option<Time>) {
        if let Some(due) = due {
            self.due.remove(&(due, key.clone()));
        }
        if let (Key::Task(task), Some(place)) = (key, place) {
            let waits = place
                .not_before
                .and_then(|at| self.later.remove(&(at, *task)));
            if waits.is_none() {
                self.dequeue(*task, &place, leased);
            }
        }
    }

    /// Follows a row from one form to the next.
    pub fn update(&mut self, key: &Key, old: Seen, new: Seen) {
        match key {
            Key::Slot(slot) if old.open != new.open => self.set_slot(slot, new.open),
            Key::Queue(queue) if new.open => {
                self.paused.remove(queue);
            }
            Key::Queue(queue) => {
                self.paused.insert(queue.clone());
            }
            _ => {}
        }
        if (&old.place, old.due) != (&new.place, new.due) {
            self.remove(key, old.place, old.due, new.leased);
            self.insert(key, new.place, new.due);
        }
    }

    /// What was done is done: frees what became empty by it.
    pub fn settle(&mut self) {
        self.before.clear();
        while let Some(lane) = self.emptied.pop() {
            self.free(lane);
        }
    }

    /// Puts the turns back as they were when it was settled last; the rows were put back before.
    pub fn undo(&mut self) {
        // What named an instant came back as if it were to come: its lane shall not be freed.
        self.promote(self.now);
        let mut served = BTreeSet::new();
        while let Some(before) = self.before.pop() {
            let lane = &mut self.lanes[before.lane];
            lane.served = before.of_lane;
            let sharer = self.stands[lane.stand].sharer;
            self.sharers[sharer].served = before.of_party;
            self.last = before.last;
            self.refresh(before.lane);
            served.insert(sharer);
        }
        // Its other stands may know the later instant already.
        let affected: Vec<u32> = self
            .stand_of
            .iter()
            .filter(|((_, sharer), _)| served.contains(sharer))
            .map(|(_, stand)| *stand)
            .collect();
        for stand in affected {
            self.refresh_stand(stand);
        }
        self.settle();
    }

    /// Forgets who was served when, as a restart does: the turns begin anew, by rank.
    pub fn begin_anew(&mut self) {
        self.settle();
        self.last = Served::default();
        for sharer in &mut self.sharers.items {
            sharer.served = self.last;
        }
        let lanes: Vec<u32> = self.lane_of.values().copied().collect();
        for lane in lanes {
            self.lanes[lane].served = self.last;
            self.refresh(lane);
        }
    }

    fn set_slot(&mut self, slot: &Name, open: bool) {
        if open {
            self.closed_slots.remove(slot);
        } else {
            self.closed_slots.insert(slot.clone());
        }
        let all = (slot.clone(), 0)..=(slot.clone(), u32::MAX);
        let lanes: Vec<u32> = self.keyed.range(all).map(|(_, lane)| *lane).collect();
        for lane in lanes {
            self.lanes[lane].open = open;
            self.refresh(lane);
        }
    }

    /// The lane of a place, when it has one.
    fn lane(&self, place: &Place) -> Option<u32> {
        let class = self.class_of.get(&kind(place))?;
        let sharer = self.sharer_of.get(&Party::of(place))?;
        let stand = self.stand_of.get(&(*class, *sharer))?;
        self.lane_of.get(&(*stand, place.slot.clone())).copied()
    }

    /// The lane of a place, made when there is none.
    fn lane_for(&mut self, place: &Place) -> u32 {
        let class = self.class_for(kind(place));
        let sharer = self.sharer_for(Party::of(place));
        let stand = self.stand_for(class, sharer);
        let key = (stand, place.slot.clone());
        if let Some(lane) = self.lane_of.get(&key) {
            return *lane;
        }
        let slot = place.slot.clone();
        let open = slot
            .as_ref()
            .is_none_or(|slot| !self.closed_slots.contains(slot));
        let lane = self.lanes.add(Lane {
            stand,
            slot,
            served: self.sharers[sharer].served,
            open,
            head: None,
            turn: None,
        });
        self.stands[stand].lanes += 1;
        if let Some(slot) = &place.slot {
            self.keyed.insert((slot.clone(), lane));
        }
        self.lane_of.insert(key, lane);
        lane
    }

    fn class_for(&mut self, kind: Kind) -> u32 {
        if let Some(class) = self.class_of.get(&kind) {
            return *class;
        }
        let class = self.classes.add(Class {
            kind: kind.clone(),
            line: BTreeMap::new(),
            stands: 0,
        });
        match &kind.address {
            Address::Only(worker) => self
                .addressed
                .entry(worker.clone())
                .or_default()
                .insert(class),
            Address::Any | Address::Prefer(_) => self.open_to_all.insert(class),
        };
        self.class_of.insert(kind, class);
        class
    }

    fn sharer_for(&mut self, party: Party) -> u32 {
        if let Some(sharer) = self.sharer_of.get(&party) {
            return *sharer;
        }
        let sharer = self.sharers.add(Sharer {
            party: party.clone(),
            served: self.last,
            stands: 0,
        });
        self.sharer_of.insert(party, sharer);
        sharer
    }

    fn stand_for(&mut self, class: u32, sharer: u32) -> u32 {
        if let Some(stand) = self.stand_of.get(&(class, sharer)) {
            return *stand;
        }
        let stand = self.stands.add(Stand {
            class,
            sharer,
            turn: None,
            lanes: 0,
        });
        self.classes[class].stands += 1;
        self.sharers[sharer].stands += 1;
        self.stand_of.insert((class, sharer), stand);
        stand
    }

    /// Frees a lane, if it is empty still, and what is empty without it.
    fn free(&mut self, n: u32) {
        let lane = &mut self.lanes[n];
        let stand = lane.stand;
        let key = (stand, lane.slot.clone());
        if lane.head.is_some() || self.lane_of.get(&key) != Some(&n) {
            return;
        }
        self.lane_of.remove(&key);
        if let Some(slot) = key.1 {
            self.keyed.remove(&(slot, n));
        }
        // The name is let go at once: the number may stay free for long.
        self.lanes[n].slot = None;
        self.lanes.free.push(n);
        self.stands[stand].lanes -= 1;
        if self.stands[stand].lanes > 0 {
            return;
        }
        let Stand { class, sharer, .. } = self.stands[stand];
        self.stand_of.remove(&(class, sharer));
        self.stands.free.push(stand);
        self.sharers[sharer].stands -= 1;
        if self.sharers[sharer].stands == 0 {
            let party = std::mem::replace(&mut self.sharers[sharer].party, Party::Plain);
            self.sharer_of.remove(&party);
            self.sharers.free.push(sharer);
        }
        self.classes[class].stands -= 1;
        if self.classes[class].stands == 0 {
            self.free_class(class);
        }
    }

    fn free_class(&mut self, n: u32) {
        let kind = &self.classes[n].kind;
        self.class_of.remove(kind);
        match &kind.address {
            Address::Only(worker) => {
                if let Some(classes) = self.addressed.get_mut(worker) {
                    classes.remove(&n);
                    if classes.is_empty() {
                        self.addressed.remove(worker);
                    }
                }
            }
            Address::Any | Address::Prefer(_) => {
                self.open_to_all.remove(&n);
            }
        }
        self.classes.free.push(n);
    }

    /// The first open lane of a stand.
    fn first(&self, stand: u32) -> Option<(Turn, u32)> {
        let lanes = (stand, Turn::FIRST)..=(stand, Turn::LAST);
        let first = self.lines.range(lanes).next();
        first.map(|((_, turn), lane)| (*turn, *lane))
    }

    /// When it is this stand's turn.
    fn turn(&self, stand: u32) -> Option<Turn> {
        let (_, lane) = self.first(stand)?;
        let served = self.sharers[self.stands[stand].sharer].served;
        self.lanes[lane].head.map(|head| head.turn(served))
    }

    /// Keeps a stand's place in its class's line.
    fn refresh_stand(&mut self, n: u32) {
        let turn = self.turn(n);
        let stand = &mut self.stands[n];
        if stand.turn == turn {
            return;
        }
        let line = &mut self.classes[stand.class].line;
        if let Some(old) = stand.turn {
            line.remove(&old);
        }
        if let Some(turn) = turn {
            line.insert(turn, n);
        }
        stand.turn = turn;
    }

    /// Keeps a lane's place in its stand's line, and the stand's in its class's.
    fn refresh(&mut self, n: u32) {
        let head = self.waiting.range(Waits::in_lane(n)).next().copied();
        let lane = &mut self.lanes[n];
        let turn = head
            .filter(|_| lane.open)
            .map(|head| head.turn(lane.served));
        lane.head = head;
        if lane.turn != turn {
            if let Some(old) = lane.turn {
                self.lines.remove(&(lane.stand, old));
            }
            if let Some(turn) = turn {
                self.lines.insert((lane.stand, turn), n);
            }
            lane.turn = turn;
        }
        let stand = lane.stand;
        self.refresh_stand(stand);
    }

    fn enqueue(&mut self, task: TaskId, place: &Place) {
        let lane = self.lane_for(place);
        let waits = Waits::of(lane, task, place);
        self.ready += usize::from(self.waiting.insert(waits));
        if self.lanes[lane].head.is_none_or(|head| waits < head) {
            self.refresh(lane);
        }
    }

    fn dequeue(&mut self, task: TaskId, place: &Place, leased: Option<Time>) {
        let Some(n) = self.lane(place) else {
            return;
        };
        if !self.waiting.remove(&Waits::of(n, task, place)) {
            return;
        }
        self.ready -= 1;
        if let Some(at) = leased {
            let lane = &mut self.lanes[n];
            let sharer = &mut self.sharers[self.stands[lane.stand].sharer];
            self.before.push(Before {
                lane: n,
                of_lane: lane.served,
                of_party: sharer.served,
                last: self.last,
            });
            self.last = self.last.next(at);
            lane.served = self.last;
            sharer.served = self.last;
        }
        self.refresh(n);
        if self.lanes[n].head.is_none() {
            self.emptied.push(n);
        }
    }

    /// Moves tasks whose instant has come into their queues.
    pub fn promote(&mut self, now: Time) {
        self.now = now;
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
    pub fn eligible(&self, worker: &WorkerSpec) -> Vec<u32> {
        let own = self.addressed.get(&worker.id).into_iter().flatten();
        let fits = |n: &&u32| {
            let Class { kind, line, .. } = &self.classes[**n];
            !line.is_empty()
                && worker.queues.contains(&kind.queue)
                && !self.paused.contains(&kind.queue)
                && (worker.kinds.is_empty() || worker.kinds.contains(&kind.kind))
                && kind
                    .capability
                    .as_ref()
                    .is_none_or(|needed| worker.can(needed))
        };
        own.chain(&self.open_to_all).filter(fits).copied().collect()
    }

    /// The next candidate in these classes after a position: the first of each open lane, in order.
    /// Nothing is taken: a claim that is decided takes its task out by [`update`](Self::update), and
    /// has its party's turn come later; then ask from the beginning again.
    pub fn next_after(&mut self, classes: &[u32], after: Option<Position>) -> Option<Position> {
        let next = |class: &u32| self.next_in(*class, after);
        classes.iter().filter_map(next).min()
    }

    fn next_in(&mut self, class: u32, after: Option<Position>) -> Option<Position> {
        let mut from = after.map_or(Bound::Unbounded, |after| Bound::Included(after.party));
        loop {
            let line = &self.classes[class].line;
            let (party, stand) = line.range((from, Bound::Unbounded)).next()?;
            let (party, stand) = (*party, *stand);
            if self.turn(stand) != Some(party) {
                self.refresh_stand(stand);
                continue;
            }
            let lane = match after {
                Some(after) if after.party == party => {
                    let after = Bound::Excluded((stand, after.lane));
                    let lanes = (after, Bound::Included((stand, Turn::LAST)));
                    let next = self.lines.range(lanes).next();
                    next.map(|((_, turn), lane)| (*turn, *lane))
                }
                _ => self.first(stand),
            };
            let Some((lane, head)) = lane.and_then(|(t, n)| Some((t, self.lanes[n].head?))) else {
                from = Bound::Excluded(party);
                continue;
            };
            let task = head.task();
            return Some(Position {
                party,
                lane,
                task,
                class,
            });
        }
    }

    /// The first of each lane a worker may look into, in order.
    pub fn candidates(&self, worker: &WorkerSpec) -> Vec<TaskId> {
        let mut positions = Vec::new();
        for class in self.eligible(worker) {
            for stand in self.classes[class].line.values() {
                let lanes = (*stand, Turn::FIRST)..=(*stand, Turn::LAST);
                for ((_, lane), n) in self.lines.range(lanes) {
                    let head = self.lanes[*n].head;
                    if let (Some(party), Some(head)) = (self.turn(*stand), head) {
                        positions.push((party, *lane, head.task()));
                    }
                }
            }
        }
        positions.sort_unstable();
        positions.into_iter().map(|(_, _, task)| task).collect()
    }

    /// About the next `limit` tasks in these classes, in no order: what is worth loading before a
    /// claim.
    pub fn soon(&self, classes: &[u32], limit: usize) -> Vec<TaskId> {
        let stands = classes.iter().flat_map(|n| self.classes[*n].line.values());
        let lanes = stands.flat_map(|stand| {
            let lanes = (*stand, Turn::FIRST)..=(*stand, Turn::LAST);
            self.lines.range(lanes).map(|(_, lane)| *lane)
        });
        let lanes: Vec<u32> = lanes.take(limit).collect();
        // They take turns, so of few lanes each gives several.
        let each = limit.div_ceil(lanes.len().max(1));
        lanes
            .into_iter()
            .flat_map(|lane| self.waiting.range(Waits::in_lane(lane)).take(each))
            .map(Waits::task)
            .collect()
    }

    /// The lanes of a class, the closed ones too.
    fn lanes_of(&self, class: u32) -> impl Iterator<Item = u32> + '_ {
        let stands = self.stand_of.range((class, 0)..=(class, u32::MAX));
        stands.flat_map(|(_, stand)| {
            let lanes = self.lane_of.range((*stand, None)..);
            lanes
                .take_while(move |((of, _), _)| of == stand)
                .map(|(_, lane)| *lane)
        })
    }

    /// Tasks that wait for one worker alone, in order, at most `limit`.
    pub fn addressed_to(&self, worker: &Name, limit: usize) -> Vec<TaskId> {
        let classes = self.addressed.get(worker).into_iter().flatten();
        let lanes = classes.flat_map(|class| self.lanes_of(*class));
        self.by_rank(lanes, limit)
    }

    /// The tasks of these lanes that have waited longest, as their priority weighs it.
    fn by_rank(&self, lanes: impl Iterator<Item = u32>, limit: usize) -> Vec<TaskId> {
        let tasks = lanes.flat_map(|lane| self.waiting.range(Waits::in_lane(lane)).take(limit));
        let mut tasks: Vec<_> = tasks.map(|w| (w.rank, w.seq, w.task())).collect();
        tasks.sort_unstable();
        tasks
            .into_iter()
            .take(limit)
            .map(|(_, _, task)| task)
            .collect()
    }

    /// Workers that somebody waits for alone.
    pub fn addressees(&self) -> impl Iterator<Item = &Name> {
        self.addressed.keys()
    }

    /// The first tasks in line of a queue, whoever may take them, at most `limit`: as somebody would
    /// get them now who may take all, one after the other; then those whose concurrency key is full.
    pub fn in_line(&self, queue: &Name, limit: usize) -> Vec<TaskId> {
        let of_queue = |n: &&u32| self.classes[**n].kind.queue == *queue;
        let classes: Vec<u32> = self.class_of.values().filter(of_queue).copied().collect();
        let mut tasks = Ahead::new(self, &classes).take(limit);
        let full = classes.iter().flat_map(|class| self.lanes_of(*class));
        let full = full.filter(|lane| !self.lanes[*lane].open);
        tasks.extend(self.by_rank(full, limit - tasks.len()));
        tasks
    }

    /// The next waiting task of each class that gives any, for whoever looks for work to preempt.
    pub fn first_of_each_class(&self) -> impl Iterator<Item = (TaskId, i64)> + '_ {
        let gives = |n: &&u32| !self.paused.contains(&self.classes[**n].kind.queue);
        let classes = self.class_of.values().filter(gives);
        classes.filter_map(|class| {
            let mut least: Option<(Turn, Waits)> = None;
            for (turn, stand) in &self.classes[*class].line {
                if least.is_some_and(|(least, _)| least <= *turn) {
                    // No turn in the line is too late.
                    break;
                }
                let (_, lane) = self.first(*stand)?;
                let (turn, head) = (self.turn(*stand)?, self.lanes[lane].head?);
                if least.is_none_or(|(least, _)| turn < least) {
                    least = Some((turn, head));
                }
            }
            least.map(|(_, head)| (head.task(), head.rank))
        })
    }
}

fn kind(place: &Place) -> Kind {
    Kind {
        queue: place.queue.clone(),
        kind: place.kind.clone(),
        capability: place.capability.clone(),
        address: place.address.clone(),
    }
}

/// The tasks of some classes in the order they would be claimed, without claiming them.
struct Ahead<'a> {
    index: &'a Index,
    last: Served,
    line: BinaryHeap<Reverse<(Turn, u32)>>,
    /// Of what has been given so far: when each sharer was served, the line of each stand, and what
    /// is left of each lane.
    sharers: HashMap<u32, Served>,
    lines: HashMap<u32, BTreeMap<Turn, u32>>,
    lanes: HashMap<u32, Peekable<btree_set::Range<'a, Waits>>>,
}

impl<'a> Ahead<'a> {
    fn new(index: &'a Index, classes: &[u32]) -> Self {
        let lines = classes.iter().flat_map(|class| &index.classes[*class].line);
        Self {
            index,
            last: index.last,
            line: lines
                .map(|(turn, stand)| Reverse((*turn, *stand)))
                .collect(),
            sharers: HashMap::new(),
            lines: HashMap::new(),
            lanes: HashMap::new(),
        }
    }

    fn take(&mut self, limit: usize) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        while tasks.len() < limit
            && let Some(Reverse((turn, stand))) = self.line.pop()
        {
            tasks.extend(self.step(turn, stand));
        }
        tasks
    }

    /// Takes the first of a stand, or puts it where it belongs.
    fn step(&mut self, turn: Turn, stand: u32) -> Option<TaskId> {
        let index = self.index;
        let line = self.lines.entry(stand).or_insert_with(|| {
            let lanes = (stand, Turn::FIRST)..=(stand, Turn::LAST);
            let lanes = index.lines.range(lanes);
            lanes.map(|((_, turn), lane)| (*turn, *lane)).collect()
        });
        let (lane_turn, lane) = line.first_key_value().map(|(t, n)| (*t, *n))?;
        let sharer = index.stands[stand].sharer;
        let served = self.sharers.get(&sharer);
        let served = *served.unwrap_or(&index.sharers[sharer].served);
        let tasks = self
            .lanes
            .entry(lane)
            .or_insert_with(|| index.waiting.range(Waits::in_lane(lane)).peekable());
        let head = **tasks.peek()?;
        let now = head.turn(served);
        if now != turn {
            self.line.push(Reverse((now, stand)));
            return None;
        }
        tasks.next();
        self.last = self.last.next(index.now);
        self.sharers.insert(sharer, self.last);
        line.remove(&lane_turn);
        if let Some(next) = tasks.peek() {
            line.insert(next.turn(self.last), lane);
        }
        // As early as it can be; when it comes up it is put right.
        self.line.push(Reverse((turn, stand)));
        Some(head.task())
    }
}

/// What is stored begins with its form. Form 1, with a place that names no run, is not written any
/// more.
const HOT_DUE: u8 = 0;
const HOT_PLACE_WITHOUT_RUN: u8 = 1;
const HOT_PLACE: u8 = 2;

/// What [`encode_hot`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// All that was asked for.
    Here(Option<Place>, Option<Time>),
    /// It was written in a form that does not say all of it: the row does.
    InItsRow,
}

/// What [`Backend::hot`](crate::Backend::hot) needs of a task, as stored beside its row.
pub fn encode_hot(place: Option<&Place>, due: Option<Time>) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, name: Option<&Name>) {
        let name = name.map_or("", Name::as_str);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
    }
    let mut bytes = Vec::with_capacity(64);
    bytes.push(match place {
        None => HOT_DUE,
        Some(_) => HOT_PLACE,
    });
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
        bytes.extend_from_slice(&place.priority.0.to_le_bytes());
        if let Some(run) = place.run {
            bytes.extend_from_slice(&run.to_bytes());
        }
    }
    bytes
}

/// Reads what [`encode_hot`] wrote; `names` shares equal names.
pub fn decode_hot(bytes: &[u8], names: &mut HashSet<Name>) -> Option<Kept> {
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
    let (form, mut bytes) = bytes.split_first()?;
    let due = some(number(&mut bytes)?);
    match *form {
        HOT_DUE => return Some(Kept::Here(None, due)),
        HOT_PLACE_WITHOUT_RUN => return Some(Kept::InItsRow),
        HOT_PLACE => {}
        _ => return None,
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
    let (priority, run) = bytes.split_first_chunk::<4>()?;
    let priority = Priority(i32::from_le_bytes(*priority));
    let run = match run {
        [] => None,
        id => Some(RunId::from_bytes(id.try_into().ok()?)),
    };
    let place = Place {
        rank,
        seq,
        not_before,
        queue,
        kind,
        capability,
        address,
        slot,
        priority,
        run,
    };
    Some(Kept::Here(Some(place), due))
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
            priority: Priority::NORMAL,
            run: None,
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
            priority: Priority(-3),
            run: Some(RunId::new(77)),
            ..place(-5, 9)
        };
        for place in [place(1, 2), full] {
            let bytes = encode_hot(Some(&place), None);
            assert_eq!(
                decode_hot(&bytes, &mut HashSet::new()),
                Some(Kept::Here(Some(place), None))
            );
        }
        let bytes = encode_hot(None, Some(Time(3)));
        assert_eq!(
            decode_hot(&bytes, &mut HashSet::new()),
            Some(Kept::Here(None, Some(Time(3))))
        );
        assert_eq!(decode_hot(&bytes[..4], &mut HashSet::new()), None);
        let mut bytes = encode_hot(Some(&place(1, 2)), None);
        bytes[0] = HOT_PLACE_WITHOUT_RUN;
        let kept = decode_hot(&bytes, &mut HashSet::new());
        assert_eq!(kept, Some(Kept::InItsRow));
        bytes[0] = 9;
        assert_eq!(decode_hot(&bytes, &mut HashSet::new()), None);
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
        index.remove(&Key::Task(TaskId::new(1)), Some(keyed(1, 1)), None, None);
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
        index.remove(&Key::Task(TaskId::new(1)), Some(later), None, None);
        assert!(order(&index, &worker).is_empty());
    }

    /// An index and the places of what waits in it.
    #[derive(Default)]
    struct Line {
        index: Index,
        places: BTreeMap<TaskId, Place>,
        now: u64,
    }

    fn seen(place: Option<&Place>, leased: Option<Time>) -> Seen {
        Seen {
            place: place.cloned(),
            due: leased.map(|at| at.plus_ms(9)),
            leased,
            open: true,
        }
    }

    impl Line {
        fn at(now: u64) -> Self {
            Self {
                now,
                ..Self::default()
            }
        }

        fn put(&mut self, place: Place) {
            let task = TaskId::new(u128::from(place.seq));
            self.places.insert(task, place.clone());
            self.index.insert(&Key::Task(task), Some(place), None);
        }

        /// So many tasks of a run, that come now.
        fn run(&mut self, run: u128, first: u64, tasks: u64) {
            for seq in first..first + tasks {
                self.put(Place {
                    run: Some(RunId::new(run)),
                    ..place(self.now as i64, seq)
                });
            }
        }

        /// Gives out this task.
        fn lease(&mut self, task: TaskId) -> Place {
            let place = self.places.remove(&task).unwrap();
            let (old, new) = (seen(Some(&place), None), seen(None, Some(Time(self.now))));
            self.index.update(&Key::Task(task), old, new);
            place
        }

        /// What a worker gets that asks for one.
        fn next(&mut self) -> Option<Place> {
            self.index.promote(Time(self.now));
            let worker = WorkerSpec::new(Name::literal("w"));
            let classes = self.index.eligible(&worker);
            let first = self.index.candidates(&worker).first().copied();
            let next = self.index.next_after(&classes, None).map(|next| next.task);
            assert_eq!(next, first);
            Some(self.lease(next?))
        }

        /// The numbers of what a worker gets that asks for so many, one by one.
        fn take(&mut self, tasks: usize) -> Vec<u64> {
            let next = |_| self.next().unwrap().seq;
            (0..tasks).map(next).collect()
        }

        fn in_line(&self, limit: usize) -> Vec<u64> {
            let tasks = self.index.in_line(&Name::literal("default"), limit);
            tasks.into_iter().map(|task| task.0 as u64).collect()
        }
    }

    #[test]
    fn a_light_run_takes_turns_with_a_backlog() {
        let mut line = Line::default();
        line.run(1, 1, 1_000);
        assert_eq!(line.take(3), [1, 2, 3]);
        for ms in [0, 1, 1_000] {
            line.now += ms;
            let first = 10_000 + line.now;
            line.run(2, first, 3);
            // Within one millisecond the new one may go at once, and never later than second.
            let taken = line.take(6);
            let light = taken.iter().filter(|seq| **seq >= first).count();
            assert_eq!(light, 3, "{taken:?}");
        }
    }

    /// What a run has more of, keys or types or members, gives it no more turns.
    #[test]
    fn a_share_is_a_partys_and_not_a_lanes() {
        let wide: [fn(u64, &mut Place); 3] = [
            |n, place| place.slot = Some(Name::new(format!("key-{}", n % 50)).unwrap()),
            |n, place| place.kind = Name::new(format!("kind-{}", n % 50)).unwrap(),
            |n, place| {
                let worker = Name::new(format!("w-{}", n % 50)).unwrap();
                place.address = Address::Prefer(worker);
            },
        ];
        for widen in wide {
            let mut line = Line::default();
            for seq in 1..=1_000 {
                let mut place = Place {
                    run: Some(RunId::new(1)),
                    ..place(0, seq)
                };
                widen(seq, &mut place);
                line.put(place);
            }
            line.now = 5;
            line.take(7);
            line.now = 6;
            line.run(2, 5_000, 10);
            line.index.promote(Time(line.now));
            let ahead = line.in_line(20);
            let taken = line.take(20);
            assert_eq!(taken.iter().filter(|seq| **seq >= 5_000).count(), 10);
            assert_eq!(ahead, taken);
        }
    }

    #[test]
    fn the_keys_of_one_run_take_turns_too() {
        let mut line = Line::default();
        let keyed = |key: &'static str, seq| Place {
            run: Some(RunId::new(1)),
            slot: Some(Name::literal(key)),
            ..place(0, seq)
        };
        (1..=100).for_each(|seq| line.put(keyed("heavy", seq)));
        (101..=103).for_each(|seq| line.put(keyed("light", seq)));
        assert_eq!(line.take(6), [1, 101, 2, 102, 3, 103]);
    }

    /// One that leaves after each task and comes back has one turn in a round, even with old tasks.
    #[test]
    fn coming_back_is_no_way_to_the_front() {
        let mut line = Line::at(1_000);
        line.run(1, 1, 100);
        line.run(2, 101, 100);
        let mut back = 0;
        let again = |line: &mut Line, back: u64| {
            // It came long ago: a task of a chain that was submitted at once.
            line.put(Place {
                run: Some(RunId::new(3)),
                ..place(0, 1_000 + back)
            });
        };
        again(&mut line, back);
        for _ in 0..60 {
            let run = line.next().unwrap().run;
            line.index.settle();
            if run == Some(RunId::new(3)) {
                back += 1;
                again(&mut line, back);
            }
        }
        assert!((19..=21).contains(&back), "{back} of 60");
    }

    #[test]
    fn a_lower_band_is_served_once_in_five_minutes() {
        let mut line = Line::at(1_000_000);
        for seq in 1..=3_000 {
            let high = line.now as i64 - 300_000;
            line.put(Place {
                priority: Priority::HIGH,
                run: Some(RunId::new(1)),
                ..place(high, seq)
            });
        }
        line.run(2, 5_000, 100);
        let mut low = Vec::new();
        for _ in 0..1_000 {
            if line.next().unwrap().run == Some(RunId::new(2)) {
                low.push(line.now - 1_000_000);
            }
            line.now += 1_000;
        }
        assert_eq!(low, [301_000, 602_000, 903_000]);
    }

    /// Nothing that anybody sees is left of a transaction that failed.
    #[test]
    fn an_undone_claim_gives_the_turn_back() {
        let mut line = Line::default();
        line.run(1, 1, 10);
        line.run(2, 11, 1);
        line.run(3, 12, 10);
        line.take(2);
        line.index.settle();
        let before = line.in_line(30);
        line.now = 7;
        let places = line.places.clone();
        line.take(15);
        line.run(4, 90, 1);
        for (task, place) in &places {
            if !line.places.contains_key(task) {
                let (old, new) = (seen(None, Some(Time(7))), seen(Some(place), None));
                line.index.update(&Key::Task(*task), old, new);
            }
        }
        let new = TaskId::new(90);
        let old = seen(line.places.get(&new), None);
        line.index.update(&Key::Task(new), old, seen(None, None));
        line.index.undo();
        line.places = places;
        assert_eq!(line.in_line(30), before);
        assert_eq!(line.take(before.len()), before);
    }

    /// Whatever is in line: a look ahead shows what is then claimed; full keys come last; and nothing
    /// is kept of what is empty.
    #[test]
    fn a_look_ahead_is_what_is_claimed_and_nothing_stays() {
        let mut seed = 1_u64;
        let mut any = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let some = |n: u64, text: &str| Name::new(format!("{text}-{n}")).unwrap();
        for round in 0..200 {
            let mut line = Line::at(1_000_000);
            let mut seq = 0;
            for _ in 0..any(40) {
                line.now += any(3) * any(200_000);
                for _ in 0..any(6) {
                    seq += 1;
                    let priority = [Priority::NORMAL, Priority::HIGH][any(8) as usize / 7];
                    line.put(Place {
                        kind: some(any(2), "kind"),
                        slot: (any(2) == 0).then(|| some(any(3), "key")),
                        run: (any(3) > 0).then(|| RunId::new(u128::from(any(4)))),
                        priority,
                        ..place(line.now as i64 - i64::from(priority.0) * 30_000, seq)
                    });
                }
                if any(2) == 0 {
                    line.next();
                }
                line.index.settle();
            }
            // As a look does, so that the two mean the same instant.
            line.index.promote(Time(line.now));
            let full = some(0, "key");
            line.index.set_slot(&full, false);
            let ahead = line.in_line(1_000);
            let open = line
                .places
                .values()
                .filter(|p| p.slot.as_ref() != Some(&full));
            let open = open.count();
            assert_eq!(ahead.len(), line.places.len());
            assert_eq!(line.take(open), ahead[..open], "round {round}");
            assert_eq!(line.next(), None);
            line.index.set_slot(&full, true);
            line.take(ahead.len() - open);
            line.index.settle();
            let index = &line.index;
            assert_eq!(index.ready(), 0);
            let left = [
                index.classes.count(),
                index.sharers.count(),
                index.stands.count(),
                index.lanes.count(),
                index.class_of.len(),
                index.sharer_of.len(),
                index.open_to_all.len(),
                index.stand_of.len(),
                index.lane_of.len(),
                index.lines.len(),
                index.keyed.len(),
                index.before.len(),
            ];
            assert_eq!(left, [0; 12]);
        }
    }

    /// A class that is not looked into for long knows no turn that is too late.
    #[test]
    fn the_first_of_a_class_is_right_though_its_parties_were_served_elsewhere() {
        let mut line = Line::default();
        let of = |kind: &'static str, run, seq| Place {
            kind: Name::literal(kind),
            run: Some(RunId::new(run)),
            ..place(0, seq)
        };
        line.put(of("seldom", 1, 1));
        line.put(of("often", 1, 2));
        line.put(of("seldom", 2, 3));
        line.now = 5;
        line.lease(TaskId::new(2));
        let first: Vec<_> = line.index.first_of_each_class().collect();
        assert_eq!(first, [(TaskId::new(3), 0)]);
        line.index.update(
            &Key::Queue(Name::literal("default")),
            Seen {
                open: true,
                ..seen(None, None)
            },
            Seen {
                open: false,
                ..seen(None, None)
            },
        );
        assert_eq!(line.index.first_of_each_class().count(), 0);
        assert_eq!(line.next(), None);
        assert_eq!(line.in_line(9), [3, 1]);
    }

    #[test]
    fn a_waiting_task_is_small() {
        assert_eq!(size_of::<Waits>(), 40);
    }
}
