//! The wheel: takes what has arrived, applies it in one transaction, answers, and looks after
//! itself. It is synchronous and knows no clock, so that the simulator turns the very same wheel.

use crate::ask::{Ask, Reply, Worked};
use crate::dispatch::{self, Claims, Parked};
use crate::keyring::Keyring;
use crate::postbox::Postbox;
use crate::pulse::Pulse;
use crate::relay::Relay;
use crate::rescue::Hearts;
use crate::{rescue, retain, timers};
use domain::command::{Claimant, Command};
use domain::error::{Code, Error};
use domain::event::{AttemptRef, Event, Origin};
use domain::id::RunId;
use domain::message::Message;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::task::Task;
use domain::time::Time;
use domain::worker::{Presence, Worker};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use store::{Answer, Op, Query, Request, Store};

/// Milliseconds without a turn's work after which rows that are behind are written.
const IDLE_FLUSH_MS: u64 = 200;
/// Milliseconds until the wheel's own duties are tried again after a write failed.
const RETRY_MS: u64 = 500;
/// Milliseconds between two looks at leases and at work to preempt.
const PATROL_MS: u64 = 100;
/// Milliseconds the wheel sleeps at most.
const SLEEP_MS_MAX: u64 = 1_000;

/// The store and everything that turns around it.
#[derive(Debug)]
pub struct Wheel {
    store: Store,
    hearts: Hearts,
    keyring: Keyring,
    pulse: Arc<Pulse>,
    relay: Relay,
    workers: BTreeSet<Name>,
    parked: Vec<Parked>,
    claims: Claims,
    /// Leases whose worker had hung up before it heard of them.
    undelivered: Vec<AttemptRef>,
    /// Boards that were seen above their bound.
    full_boards: BTreeSet<Option<RunId>>,
    worked_at: Time,
    patrol_at: Time,
    /// After a failed write: no duties before this instant.
    duties_from: Time,
    fatal: Option<Error>,
}

/// An answered `Work`, before it is known whether it has to wait.
struct Working {
    by: Claimant,
    max: u32,
    origin: Origin,
    until: Time,
    reply: Reply<Worked>,
}

/// Where the answer to a request of this turn goes.
enum Waiter {
    Caller(Reply<Vec<Answer>>),
    Worker(Working),
    Parked(Parked),
    Nobody,
}

impl Wheel {
    /// A wheel over a store that was just opened: messages that are open wait for their recipients
    /// again, and what workers of the process before held goes back.
    ///
    /// # Errors
    /// The store's own.
    pub fn over(mut store: Store, now: Time) -> Result<Self, Error> {
        let postbox = Postbox::default();
        for message in open_messages(&mut store)? {
            postbox.deliver(&message);
        }
        let relay = Relay::new(store.head(), postbox);
        let mut wheel = Self::new(store, Hearts::default(), relay)?;
        if !wheel.store.is_read_only() {
            wheel.bury_the_dead(now)?;
        }
        Ok(wheel)
    }

    fn new(mut store: Store, hearts: Hearts, relay: Relay) -> Result<Self, Error> {
        let keyring = Keyring::of(&mut store)?;
        let behind = store.settle()?;
        let rows = store.reader()?.rows(&Query::Workers)?;
        let rows = store::overlay(&Query::Workers, rows, behind);
        // Who only looks has no duties.
        let duties_from = if store.is_read_only() {
            Time(u64::MAX)
        } else {
            Time(0)
        };
        let names = rows.into_iter().filter_map(|(key, _)| match key {
            Key::Worker(name) => Some(name),
            _ => None,
        });
        Ok(Self {
            workers: names.collect(),
            store,
            hearts,
            keyring,
            pulse: Pulse::new(),
            relay,
            parked: Vec::new(),
            claims: Claims::default(),
            undelivered: Vec::new(),
            full_boards: BTreeSet::new(),
            worked_at: Time(0),
            patrol_at: Time(0),
            duties_from,
            fatal: None,
        })
    }

    /// The store, for whoever owns the wheel.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Who was heard when.
    pub fn hearts(&self) -> &Hearts {
        &self.hearts
    }

    /// Who may be let in.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What it does, counted.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Whom it tells.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Why it has stopped for good, when it has.
    pub fn fatal(&self) -> Option<&Error> {
        self.fatal.as_ref()
    }

    /// Milliseconds it may sleep at `now` unless something arrives.
    pub fn sleep_ms(&self, now: Time) -> u64 {
        let due = self.store.index().next_due();
        let parked = self.parked.iter().map(|parked| parked.until).min();
        let flush = (self.store.rows_behind() > 0).then(|| self.worked_at.plus_ms(IDLE_FLUSH_MS));
        let awake = !self.workers.is_empty() || self.relay.postbox().is_waiting_for_settlement();
        let patrol = awake.then_some(self.patrol_at);
        if !self.undelivered.is_empty() {
            return self.duties_from.since_ms(now);
        }
        let next = due
            .into_iter()
            .chain(parked)
            .chain(flush)
            .chain(patrol)
            .min();
        let wanted = next.map_or(SLEEP_MS_MAX, |at| at.since_ms(now));
        let held_off = self.duties_from.since_ms(now);
        wanted.max(held_off).min(SLEEP_MS_MAX)
    }

    /// One turn: asks, duties, waiting workers; one transaction (and a second for workers that
    /// began to wait in this very turn and could have what came after them).
    pub fn turn(&mut self, asks: &mut Vec<Ask>, now: Time) {
        if let Some(error) = &self.fatal {
            asks.drain(..).for_each(|ask| ask.refuse(error.clone()));
            return;
        }
        self.store.promote(now);
        let mut requests = Vec::with_capacity(asks.len());
        let mut waiters = Vec::with_capacity(asks.len());
        if now >= self.duties_from {
            requests = self.duties(now);
            waiters.extend(requests.iter().map(|_| Waiter::Nobody));
        }
        if let Some(error) = &self.fatal {
            asks.drain(..).for_each(|ask| ask.refuse(error.clone()));
            return;
        }
        let mut rest = Vec::new();
        for ask in asks.drain(..) {
            match ask {
                Ask::Apply { request, reply } => {
                    requests.push(request);
                    waiters.push(Waiter::Caller(reply));
                }
                Ask::Work {
                    mut request,
                    mut by,
                    mut max,
                    wait_ms,
                    reply,
                } => {
                    self.hearts.beat(&by.worker, now);
                    if self.was_asked(&by) {
                        // Nobody can tell which of the two the worker hears, so neither takes
                        // anything new: what was given under this number is given again.
                        self.send_home_twins(&by);
                        (by.again, max) = (true, 0);
                    }
                    let origin = request.origin.clone();
                    request.ops.push(Op::Claim {
                        by: by.clone(),
                        max,
                    });
                    requests.push(request);
                    let until = now.plus_ms(wait_ms);
                    waiters.push(Waiter::Worker(Working {
                        by,
                        max,
                        origin,
                        until,
                        reply,
                    }));
                }
                other => rest.push(other),
            }
        }
        self.call_parked(&mut requests, &mut waiters, now);
        let waiting = self.parked.len();
        self.apply(requests, waiters, now);
        if self.parked.len() > waiting && self.store.index().ready() > 0 && self.fatal.is_none() {
            let (mut requests, mut waiters) = (Vec::new(), Vec::new());
            self.call_parked(&mut requests, &mut waiters, now);
            self.apply(requests, waiters, now);
        }
        self.send_home(now);
        rest.into_iter().for_each(|ask| self.read(ask, now));
        self.flush_when_idle(now);
    }

    /// What the wheel does of itself.
    fn duties(&mut self, now: Time) -> Vec<Request> {
        let mut requests = timers::tick(&self.store, now);
        requests.extend(self.undelivered.drain(..).map(dispatch::take_back));
        if now >= self.patrol_at {
            self.patrol_at = now.plus_ms(PATROL_MS);
            for parked in self
                .parked
                .iter()
                .filter(|parked| !parked.reply.is_closed())
            {
                // Its connection is open: it lives.
                self.hearts.beat(&parked.by.worker, now);
            }
            self.relay.postbox().offer_overdue(now);
            let (ready, parked) = (self.store.index().ready(), self.parked.len());
            self.pulse.ready.store(ready as u64, Relaxed);
            self.pulse.parked.store(parked as u64, Relaxed);
            requests.extend(rescue::tick(&self.hearts, &mut self.store, now));
            requests.extend(dispatch::preempt(&mut self.store, &self.workers, now));
        }
        if !self.full_boards.is_empty() && self.written(now, Store::flush).is_ok() {
            for board in std::mem::take(&mut self.full_boards) {
                requests.extend(retain::trim(&self.store, board));
            }
        }
        requests
    }

    /// Waiting workers ask again, the least loaded first.
    fn call_parked(&mut self, requests: &mut Vec<Request>, waiters: &mut Vec<Waiter>, now: Time) {
        if self.parked.is_empty() {
            return;
        }
        self.parked.retain(|parked| !parked.reply.is_closed());
        let mut parked = std::mem::take(&mut self.parked);
        dispatch::order(&mut parked, &mut self.store, now);
        for parked in parked {
            requests.push(Request {
                origin: parked.origin.clone(),
                ops: vec![parked.claim()],
            });
            waiters.push(Waiter::Parked(parked));
        }
    }

    fn apply(&mut self, requests: Vec<Request>, waiters: Vec<Waiter>, now: Time) {
        if requests.is_empty() {
            return;
        }
        let begin = Instant::now();
        match self.store.apply(&requests, now) {
            Ok(applied) => {
                if !applied.events.is_empty() {
                    self.pulse.committed(requests.len(), begin.elapsed());
                    self.worked_at = now;
                    self.note(&applied.events);
                    self.relay
                        .publish(applied.events, applied.body, &self.hearts);
                }
                for (waiter, answers) in waiters.into_iter().zip(applied.answers) {
                    self.answer(waiter, answers, now);
                }
            }
            Err(error) => self.fail(requests, waiters, error, now),
        }
    }

    /// Nothing was written. Who only reads is served all the same; the rest is told. After anything
    /// but a full disk it is not known what is on disk, so the wheel stops for good.
    fn fail(&mut self, requests: Vec<Request>, waiters: Vec<Waiter>, error: Error, now: Time) {
        self.duties_from = self.duties_from.max(now.plus_ms(RETRY_MS));
        if error.code != Code::StoreFull && !self.store.is_read_only() {
            self.fatal = Some(error.clone());
        }
        for (request, waiter) in requests.into_iter().zip(waiters) {
            let reads = request.ops.iter().all(|op| matches!(op, Op::Get(_)));
            match waiter {
                Waiter::Caller(reply) if reads => {
                    let one = self.store.apply(std::slice::from_ref(&request), now);
                    let _ = reply
                        .send(one.map(|mut applied| applied.answers.pop().unwrap_or_default()));
                }
                Waiter::Caller(reply) => drop(reply.send(Err(error.clone()))),
                Waiter::Worker(working) => {
                    self.claims.forget(&working.by);
                    drop(working.reply.send(Err(error.clone())));
                }
                Waiter::Parked(parked) => self.parked.push(parked),
                Waiter::Nobody => {}
            }
        }
    }

    fn answer(&mut self, waiter: Waiter, mut answers: Vec<Answer>, now: Time) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Caller(reply) => drop(reply.send(Ok(answers))),
            Waiter::Worker(working) => {
                let claimed = match answers.pop() {
                    Some(Answer::Claimed(claimed)) => claimed,
                    _ => Ok(Vec::new()),
                };
                let Working {
                    by,
                    max,
                    origin,
                    until,
                    reply,
                } = working;
                match claimed {
                    Ok(claimed) if claimed.is_empty() && max > 0 && until > now => {
                        self.parked.push(Parked {
                            by,
                            max,
                            origin,
                            until,
                            answers,
                            reply,
                        });
                    }
                    Err(error) if answers.is_empty() => {
                        // It failed, and will be asked again as if it had never been.
                        self.claims.forget(&by);
                        drop(reply.send(Err(error)));
                    }
                    // Its reports were applied, even if the claim was refused.
                    claimed => self.hand_over(&by, reply, (answers, claimed)),
                }
            }
            Waiter::Parked(parked) => match answers.pop() {
                Some(Answer::Claimed(Ok(claimed))) if claimed.is_empty() => {
                    self.parked.push(parked);
                }
                Some(Answer::Claimed(claimed)) => {
                    let answered = (parked.answers, claimed);
                    self.hand_over(&parked.by, parked.reply, answered);
                }
                _ => self.parked.push(parked),
            },
        }
    }

    /// Gives a worker its tasks. If it has hung up meanwhile, they go back in the next turn, unless it
    /// numbered its request: then it will ask for them again.
    fn hand_over(&mut self, by: &Claimant, reply: Reply<Worked>, worked: Worked) {
        if let Err(Ok((_, Ok(claimed)))) = reply.send(Ok(worked))
            && by.claim.is_none()
        {
            self.undelivered
                .extend(claimed.into_iter().map(|claimed| claimed.lease));
        }
    }

    /// Workers whose wait is over go home with nothing.
    fn send_home(&mut self, now: Time) {
        for parked in self.parked.extract_if(.., |parked| parked.until <= now) {
            let _ = parked.reply.send(Ok((parked.answers, Ok(Vec::new()))));
        }
    }

    /// Whether this claim's number was asked before in this life of its worker.
    fn was_asked(&mut self, by: &Claimant) -> bool {
        self.workers.contains(&by.worker)
            && self.hearts.is_current(&by.worker, by.session)
            && self.claims.note(by)
    }

    /// Requests that wait under the same number go home with nothing.
    fn send_home_twins(&mut self, by: &Claimant) {
        let is_twin = |parked: &mut Parked| {
            let other = &parked.by;
            (&other.worker, other.session, other.claim) == (&by.worker, by.session, by.claim)
        };
        for parked in self.parked.extract_if(.., is_twin) {
            let _ = parked.reply.send(Ok((parked.answers, Ok(Vec::new()))));
        }
    }

    /// Keeps what the wheel knows of the outside in step with what was committed.
    fn note(&mut self, events: &[domain::event::Recorded]) {
        for recorded in events {
            self.pulse.note(&recorded.event);
            match &recorded.event {
                Event::CredentialCreated { .. } | Event::CredentialRevoked { .. } => {
                    self.keyring.note(&recorded.event, recorded.at);
                }
                Event::WorkerRegistered { spec, .. } => {
                    self.workers.insert(spec.id.clone());
                    self.hearts.register(spec, recorded.at);
                }
                Event::WorkerLost { worker, .. } => self.hearts.forget(worker),
                Event::WorkerForgotten { worker } => {
                    self.workers.remove(worker);
                }
                Event::EntryWritten { entry, .. }
                    if retain::is_over(&mut self.store, entry.run) =>
                {
                    self.full_boards.insert(entry.run);
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, ask: Ask, now: Time) {
        match ask {
            Ask::Flush { reply } => {
                let _ = reply.send(self.written(now, Store::settle));
            }
            Ask::Workers { reply } => {
                let _ = reply.send(self.all_workers());
            }
            Ask::Explain { tasks, reply } => {
                let _ = reply.send(self.explain(&tasks, now));
            }
            Ask::Peek {
                queue,
                limit,
                reply,
            } => {
                let _ = reply.send(dispatch::peek(&mut self.store, &queue, limit));
            }
            Ask::Apply { .. } | Ask::Work { .. } | Ask::Stop => {}
        }
    }

    fn all_workers(&mut self) -> Result<Vec<Arc<Worker>>, Error> {
        let mut workers = Vec::with_capacity(self.workers.len());
        for name in &self.workers {
            if let Some(Row::Worker(worker)) = self.store.get(&Key::Worker(name.clone()))? {
                workers.push(worker);
            }
        }
        Ok(workers)
    }

    fn explain(
        &mut self,
        tasks: &[Arc<Task>],
        now: Time,
    ) -> Result<Vec<Option<domain::task::Waits>>, Error> {
        let workers = self.all_workers()?;
        let mut reasons = Vec::with_capacity(tasks.len());
        for task in tasks {
            let queue = self.store.get(&Key::Queue(task.spec.queue.clone()))?;
            let paused = matches!(queue, Some(Row::Queue(queue)) if queue.paused);
            let slot = task
                .spec
                .slot
                .as_ref()
                .map(|slot| Key::Slot(slot.key.clone()));
            let running = match slot.map(|key| self.store.get(&key)).transpose()?.flatten() {
                Some(Row::Slot(slot)) => slot.running,
                _ => 0,
            };
            reasons.push(task.waits_for(now, paused, running, workers.iter().map(|w| &**w)));
        }
        Ok(reasons)
    }

    fn flush_when_idle(&mut self, now: Time) {
        let idle = now.since_ms(self.worked_at) >= IDLE_FLUSH_MS && now >= self.duties_from;
        if idle && self.store.rows_behind() > 0 {
            // Nobody waits for it; when it fails, whoever comes next is told.
            let _ = self.written(now, Store::flush);
        }
    }

    /// Writes rows that are behind. As with a commit, nobody knows what is on disk after any failure
    /// but a full disk, so the wheel stops for good.
    fn written<T>(
        &mut self,
        now: Time,
        write: impl FnOnce(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(error) = &self.fatal {
            return Err(error.clone());
        }
        write(&mut self.store).inspect_err(|error| {
            self.duties_from = self.duties_from.max(now.plus_ms(RETRY_MS));
            if error.code != Code::StoreFull {
                self.fatal = Some(error.clone());
            }
        })
    }

    /// Takes the tasks from every worker that lived in the process that had the store before.
    fn bury_the_dead(&mut self, now: Time) -> Result<(), Error> {
        let mut requests = Vec::new();
        for worker in self.all_workers()? {
            if matches!(worker.presence, Presence::Gone { .. }) {
                continue;
            }
            self.hearts.expect(&worker.spec, now);
            if rescue::died_with_its_process(&worker) {
                let worker = worker.spec.id.clone();
                let reason = "its process ended".to_owned();
                let command = Command::WorkerLose {
                    worker,
                    session: None,
                    reason,
                };
                requests.push(Request::own(vec![Op::Command(command)]));
            }
        }
        let waiters = requests.iter().map(|_| Waiter::Nobody).collect();
        self.apply(requests, waiters, now);
        self.fatal.clone().map_or(Ok(()), Err)
    }

    /// Writes everything that is behind, unless it has stopped for good.
    ///
    /// # Errors
    /// The store's own; what is behind is still in the log.
    pub fn close(&mut self) -> Result<(), Error> {
        match &self.fatal {
            Some(error) => Err(error.clone()),
            None => self.store.close(),
        }
    }
}

fn open_messages(store: &mut Store) -> Result<Vec<Arc<Message>>, Error> {
    let mut reader = store.reader()?;
    let mut open = Vec::new();
    let mut after = None;
    loop {
        let page = reader.rows(&Query::Messages {
            after,
            limit: 1_000,
        })?;
        for (_, row) in &page {
            if let Row::Message(message) = row {
                after = Some(message.id);
                if message.is_open() {
                    open.push(Arc::clone(message));
                }
            }
        }
        if page.is_empty() {
            return Ok(open);
        }
    }
}
