//! The one way to a provider: how many may ask at once, how fast, and when not at all.
//!
//! A provider's limits belong to a key, not to a task: when one asks too often, all who share the key
//! must slow down, or each of them learns it for itself at everybody's expense. So every mind of this
//! process that uses the same provider, address and key goes through one gate.
//!
//! - It lets in as many at once as the provider has borne, as TCP does (RFC 5681): one more with each
//!   answer until it falters, half as many when it does, and one more after that many answers then.
//! - Once it was refused, it also keeps to a pace: what was answered since the refusal before, over
//!   the time it took; then a little more all the time, until it is refused again.
//! - What the provider says about waiting (`Retry-After`) holds for all.
//! - A provider that fails again and again is left alone for a while, then one asks for all.
//! - Those who wait go in by turns, run by run, so that a large run does not keep a small one out. Who
//!   would have to wait long is told when to come back instead ([`Gate::room`]): its worker is free
//!   for other work until then.
//!
//! It keeps no accounts, and it never asks twice by itself after an answer that may have been paid
//! for without its caller knowing: it says how often it asked.

use crate::model::{Answer, Ask, Delta, Fault, Listener, Model, ModelError};
use domain::id::RunId;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests at once, before anything is known of the provider.
const WIDTH_FIRST: f64 = 8.0;
/// Requests at once, at most.
const WIDTH_MAX: f64 = 64.0;
/// Faults in a row after which the provider is left alone.
const FAULTS_MAX: u32 = 5;
/// How long, the first time; twice as long each time its probe fails, up to [`OPEN_MAX`].
const OPEN_FIRST: Duration = Duration::from_secs(5);
/// How long, at most.
const OPEN_MAX: Duration = Duration::from_secs(120);
/// The wait after a refusal that says nothing about waiting; doubled for each more in a row.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// What is waited between two tries, at most, unless the provider says more.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How a note begins that says why an answer is late, so that whoever watches can tell it from others.
pub const NO_ANSWER: &str = "no answer yet: ";
/// Tries of one question, at most.
pub const TRIES_MAX: u32 = 6;
/// Refusals this close together are one lesson: they answer questions that were under way together.
const LESSON: Duration = Duration::from_millis(500);
/// Of what was answered before a refusal, the part that is asked for after it.
const PACE_AFTER: f64 = 0.98;
/// How much faster the pace becomes in a second, and how much faster once nothing was refused for
/// [`PACE_SURE`].
const PACE_GROWTH: [f64; 2] = [0.002, 0.03];
/// After this long without a refusal the provider may well allow more than it did.
const PACE_SURE: Duration = Duration::from_secs(30);
/// Questions a second: slower than the slowest is no pace, and faster than the fastest no bound.
const PACE_RANGE: [f64; 2] = [0.01, 2_000.0];
/// How late a question may be and still be made up for by the next.
const LATENESS: Duration = Duration::from_millis(20);
/// Who would wait longer than this is told to come back.
const PATIENCE: Duration = Duration::from_millis(500);
/// When to come back, at the latest: by then much may have changed.
const BACK_MAX: Duration = Duration::from_secs(30);
/// Those who were told to come back come a little earlier than there is room, so that there is always
/// somebody at the gate.
const EARLY: f64 = 0.9;

/// Whether a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// It is.
    Closed,
    /// It is left alone: it failed too often.
    Open,
    /// One asks for all whether it is well again.
    HalfOpen,
}

impl Circuit {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How a gate stands, for whoever looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Whether the provider is asked.
    pub circuit: Circuit,
    /// Requests that may be under way at once.
    pub width: u32,
    /// Requests that are.
    pub under_way: u32,
    /// How long nobody is let in.
    pub closed_for: Duration,
    /// Questions a second; none while no bound is known.
    pub per_second: Option<f64>,
    /// Those who wait.
    pub waiting: u32,
    /// What it said last, when that was no answer.
    pub fault: Option<String>,
}

/// What was tried so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Requests that were made.
    pub tries: u32,
    /// Of those, the ones that may have been paid for although no answer came.
    pub lost: u32,
}

/// Whether a request may be made once more.
pub type May<'a> = dyn Fn(Tried) -> BoxFuture<'a, bool> + Send + Sync + 'a;

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The answer, or the last fault.
    pub outcome: Result<Answer, ModelError>,
    /// How often it was asked.
    pub tries: u32,
    /// Of these, how often no answer came that may be paid for all the same.
    pub lost: u32,
}

/// A gate. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Gate {
    model: Arc<dyn Model>,
    state: Arc<Mutex<State>>,
}

/// Who waits, for the fairness of the gate: a run, or all those that belong to none.
pub type Party = Option<RunId>;

#[derive(Debug)]
struct State {
    width: f64,
    /// It was asked by more than it bears: from then on with care.
    faltered: bool,
    under_way: u32,
    /// Nobody is let in before.
    from: Instant,
    /// In a row.
    refusals: u32,
    faults: u32,
    /// What it said last, when that was no answer.
    fault: Option<String>,
    circuit: Circuit,
    open_for: Duration,
    pace: Option<Pace>,
    /// When the provider last refused, or was asked first, and what it has answered since.
    lesson: Instant,
    answered: u32,
    /// What was asked and not refused in the second that goes on, since when, and in the one before.
    second: (Instant, u32, u32),
    /// How long an answer takes, about.
    latency: Duration,
    /// Those who wait.
    waiting: BTreeMap<Party, VecDeque<Waiter>>,
    numbers: u64,
    /// Whose turn it was.
    served: Party,
    /// When the last of those who were told to come back does.
    back: Instant,
}

/// One who waits, and how to tell it that it is its turn.
#[derive(Debug, Clone)]
struct Waiter {
    number: u64,
    turn: Arc<Notify>,
}

/// Questions a second, as far as the provider bears them.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    /// When the next may be asked.
    next: Instant,
    /// When it last became faster.
    grown: Instant,
}

impl Pace {
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second)
    }

    fn grow(&mut self, sure: bool, now: Instant) {
        let growth = PACE_GROWTH[usize::from(sure)];
        let seconds = now.saturating_duration_since(self.grown).as_secs_f64();
        self.per_second *= 1.0 + growth * seconds.min(1.0);
        self.grown = now;
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            width: WIDTH_FIRST,
            faltered: false,
            under_way: 0,
            from: now,
            refusals: 0,
            faults: 0,
            fault: None,
            circuit: Circuit::Closed,
            open_for: OPEN_FIRST,
            pace: None,
            lesson: now,
            answered: 0,
            second: (now, 0, 0),
            // Nobody is sent away for what is not known.
            latency: Duration::from_millis(20),
            waiting: BTreeMap::new(),
            numbers: 0,
            served: None,
            back: now,
        }
    }

    /// Lets one in, or says how long to wait; none means until something has moved.
    fn enter(&mut self, now: Instant) -> Result<(), Option<Duration>> {
        if now < self.from {
            return Err(Some(self.from - now));
        }
        if self.circuit == Circuit::Open {
            self.circuit = Circuit::HalfOpen;
        } else if self.circuit == Circuit::HalfOpen && self.under_way > 0 {
            return Err(None);
        }
        if f64::from(self.under_way) >= self.width.floor().max(1.0) {
            return Err(None);
        }
        if let Some(pace) = &mut self.pace {
            if now < pace.next {
                return Err(Some(pace.next - now));
            }
            let made_up = now.checked_sub(LATENESS).unwrap_or(now);
            pace.next = pace.next.max(made_up) + pace.interval();
        }
        if self.under_way == 0 && self.waiting.len() <= 1 {
            // Nobody asked: that is no measure of what it bears.
            (self.lesson, self.answered) = (now, 0);
        }
        self.under_way += 1;
        let (since, count, before) = &mut self.second;
        let passed = now.saturating_duration_since(*since).as_secs();
        if passed > 0 {
            *before = if passed == 1 { *count } else { 0 };
            (*since, *count) = (now, 0);
        }
        *count += 1;
        Ok(())
    }

    /// Whose turn it is: the next run's, and in it who came first.
    fn turn(&self) -> Option<&Waiter> {
        let after = (Excluded(self.served), Unbounded);
        let next = self.waiting.range(after).next();
        let (_, line) = next.or_else(|| self.waiting.iter().next())?;
        line.front()
    }

    /// Tells whose turn it is.
    fn call(&self) {
        if let Some(waiter) = self.turn() {
            waiter.turn.notify_one();
        }
    }

    fn stand(&mut self, party: Party) -> Waiter {
        self.numbers += 1;
        let waiter = Waiter {
            number: self.numbers,
            turn: Arc::default(),
        };
        let line = self.waiting.entry(party).or_default();
        line.push_back(waiter.clone());
        self.call();
        waiter
    }

    fn leave_line(&mut self, party: Party, number: u64) {
        if let Some(line) = self.waiting.get_mut(&party) {
            line.retain(|waiter| waiter.number != number);
            if line.is_empty() {
                self.waiting.remove(&party);
            }
        }
        self.call();
    }

    /// How long one who comes now will wait, about.
    fn wait(&self, now: Instant) -> Duration {
        let ahead = self.waiting.values().map(VecDeque::len).sum::<usize>() as u32;
        let hold = self.from.saturating_duration_since(now);
        let width = self.width.floor().max(1.0) as u32;
        let crowd = match self.under_way + ahead < width {
            true => Duration::ZERO,
            false => self.latency / width * (self.under_way + ahead + 1 - width),
        };
        let paced = self.pace.as_ref().map_or(Duration::ZERO, |pace| {
            pace.next.saturating_duration_since(now) + pace.interval() * ahead
        });
        hold + crowd.max(paced)
    }

    /// What an outcome means for everybody.
    fn learn(&mut self, fault: Option<&ModelError>, took: Duration, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.fault = fault.map(|error| error.message.clone());
        let Some(error) = fault else {
            (self.refusals, self.faults) = (0, 0);
            (self.circuit, self.open_for) = (Circuit::Closed, OPEN_FIRST);
            let wider = if self.faltered { 1.0 / self.width } else { 1.0 };
            self.width = (self.width + wider).min(WIDTH_MAX);
            self.answered += 1;
            self.latency = (self.latency * 7 + took) / 8;
            let sure = now.saturating_duration_since(self.lesson) > PACE_SURE;
            if let Some(pace) = &mut self.pace {
                pace.grow(sure, now);
                if pace.per_second > PACE_RANGE[1] {
                    self.pace = None;
                }
            }
            return;
        };
        match error.fault {
            Fault::Limited => {
                self.second.1 = self.second.1.saturating_sub(1);
                self.slow_down(now);
                let backoff = backoff(self.refusals);
                self.refusals += 1;
                self.hold(now + error.retry_after.unwrap_or(backoff));
                // It answers: what it says is that there are too many of us.
                self.faults = 0;
                self.circuit = Circuit::Closed;
            }
            Fault::Overloaded | Fault::Silent | Fault::Broken => {
                self.width = (self.width / 2.0).max(1.0);
                self.faltered = true;
                self.faults += 1;
                let probe_failed = self.circuit == Circuit::HalfOpen;
                if probe_failed || self.faults >= FAULTS_MAX {
                    if probe_failed {
                        self.open_for = (self.open_for * 2).min(OPEN_MAX);
                    }
                    self.circuit = Circuit::Open;
                    self.hold(now + self.open_for);
                }
                if let Some(wait) = error.retry_after {
                    self.hold(now + wait);
                }
            }
            // It is well; the question was not.
            Fault::Key | Fault::Unknown | Fault::Refused => {
                self.faults = 0;
                self.circuit = Circuit::Closed;
            }
        }
    }

    /// A refusal's lesson: what it bore is what it answered since the one before.
    fn slow_down(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.lesson);
        if since < LESSON && self.pace.is_some() {
            return;
        }
        let borne = f64::from(self.answered) / since.max(LESSON).as_secs_f64();
        let before = self.pace.as_ref().map(|pace| pace.per_second);
        // Before anything was known, it may have been asked less than it bears: then what it bore in a
        // second says more.
        let at_best = f64::from(self.second.1.max(self.second.2));
        let per_second = match (self.answered, before) {
            (_, None) if at_best > 0.0 => borne.max(at_best) * PACE_AFTER,
            // Nothing was answered: half as fast, or as slow as one in a second.
            (_, None) => 1.0,
            (0, Some(before)) => before / 2.0,
            // It cannot have borne more than it was asked.
            (_, Some(before)) => borne.min(before) * PACE_AFTER,
        };
        self.pace = Some(Pace {
            per_second: per_second.clamp(PACE_RANGE[0], PACE_RANGE[1]),
            next: now,
            grown: now,
        });
        (self.lesson, self.answered) = (now, 0);
    }

    fn hold(&mut self, until: Instant) {
        self.from = self.from.max(until);
    }
}

/// Twice as long each time, and by chance up to half as long again, so that all who were refused
/// together do not come back together.
fn backoff(times: u32) -> Duration {
    let wait = (WAIT_FIRST * 2_u32.saturating_pow(times.min(10))).min(WAIT_MAX);
    wait + chance(wait / 2)
}

/// Some time, up to this.
fn chance(most: Duration) -> Duration {
    // Every such hasher has keys of its own: chance enough for this.
    let chance = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    most.mul_f64((chance % 1_000) as f64 / 1_000.0)
}

/// A place in the line before a gate, given up when nobody waits in it any more.
struct InLine<'a> {
    gate: &'a Gate,
    party: Party,
    waiter: Waiter,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.gate.lock().leave_line(self.party, self.waiter.number);
    }
}

/// Who is inside; leaving is told even when the question is given up.
struct Inside<'a> {
    gate: &'a Gate,
    since: Instant,
    told: bool,
}

impl Inside<'_> {
    fn leave(mut self, fault: Option<&ModelError>) {
        self.told = true;
        let now = Instant::now();
        let mut state = self.gate.lock();
        state.learn(fault, now - self.since, now);
        state.call();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if !self.told {
            let mut state = self.gate.lock();
            state.under_way = state.under_way.saturating_sub(1);
            if state.circuit == Circuit::HalfOpen {
                // Its probe was given up: somebody else probes.
                state.circuit = Circuit::Open;
            }
            state.call();
        }
    }
}

impl Gate {
    /// In front of this model.
    pub fn before(model: Arc<dyn Model>) -> Self {
        Self {
            model,
            state: Arc::new(Mutex::new(State::new(Instant::now()))),
        }
    }

    /// The same gate, before another model that the same key pays for.
    #[must_use]
    pub fn beside(&self, model: Arc<dyn Model>) -> Self {
        Self {
            model,
            ..self.clone()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            circuit: state.circuit,
            width: state.width as u32,
            under_way: state.under_way,
            closed_for: state.from.saturating_duration_since(Instant::now()),
            per_second: state.pace.as_ref().map(|pace| pace.per_second),
            waiting: state.waiting.values().map(VecDeque::len).sum::<usize>() as u32,
            fault: state.fault.clone(),
        }
    }

    /// Whether there is room for one more within half a second; if not, when to come back.
    ///
    /// # Errors
    /// How long to stay away: up to half a minute, and a different time for each who asks.
    pub fn room(&self) -> Result<(), Duration> {
        let mut state = self.lock();
        let now = Instant::now();
        let wait = state.wait(now);
        if wait <= PATIENCE {
            return Ok(());
        }
        let width = state.width.floor().max(1.0) as u32;
        let each = match &state.pace {
            Some(pace) => pace.interval(),
            None => state.latency / width,
        };
        let back = state.back.max(now + wait) + each.mul_f64(EARLY);
        // Beyond the horizon all are equal; by chance they come one after the other.
        let latest = now + BACK_MAX + chance(BACK_MAX / 4);
        state.back = back.min(now + BACK_MAX * 4);
        Err(back.min(latest) - now)
    }

    async fn enter(&self, party: Party) -> Inside<'_> {
        let place = InLine {
            gate: self,
            party,
            waiter: self.lock().stand(party),
        };
        loop {
            let now = Instant::now();
            let entered = {
                let mut state = self.lock();
                let turn = state.turn().map(|waiter| waiter.number);
                match turn == Some(place.waiter.number) {
                    true => {
                        let entered = state.enter(now);
                        if entered.is_ok() {
                            state.served = party;
                        }
                        entered
                    }
                    false => Err(None),
                }
            };
            // Who is called before it listens has heard it all the same: a call is kept.
            let called = place.waiter.turn.notified();
            match entered {
                Ok(()) => {
                    return Inside {
                        gate: self,
                        since: now,
                        told: false,
                    };
                }
                Err(Some(wait)) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = called => {}
                    }
                }
                Err(None) => called.await,
            }
        }
    }

    /// Asks, waiting for its turn, again and again where that may help: at most [`TRIES_MAX`] times,
    /// and never beyond `until`. Those who wait go in by turns of their parties.
    pub async fn ask(
        &self,
        party: Party,
        ask: &Ask,
        until: Instant,
        listener: &mut Listener<'_>,
    ) -> Asked {
        let always = |_| -> BoxFuture<'_, bool> { Box::pin(std::future::ready(true)) };
        self.ask_while(party, ask, until, listener, &always).await
    }

    /// As [`ask`](Self::ask), asking again only when that `may` be: it is told what was tried so far.
    pub async fn ask_while(
        &self,
        party: Party,
        ask: &Ask,
        until: Instant,
        listener: &mut Listener<'_>,
        may: &May<'_>,
    ) -> Asked {
        let mut last = ModelError::new(Fault::Limited, "no turn came in time at the provider");
        let mut lost = 0;
        for tries in 0..TRIES_MAX {
            let asked = |outcome, tries, lost| Asked {
                outcome,
                tries,
                lost,
            };
            let Ok(inside) = tokio::time::timeout_at(until, self.enter(party)).await else {
                return asked(Err(last), tries, lost);
            };
            listener(Delta::Begun);
            let outcome = tokio::time::timeout_at(until, self.model.ask(ask, listener)).await;
            let outcome = outcome
                .unwrap_or_else(|_| Err(ModelError::new(Fault::Silent, "no answer in time")));
            match outcome {
                Ok(answer) => {
                    inside.leave(None);
                    return asked(Ok(answer), tries + 1, lost);
                }
                Err(error) => {
                    inside.leave(Some(&error));
                    // It may have thought, and nobody heard what it thought or what it takes for it.
                    let unheard = matches!(error.fault, Fault::Silent | Fault::Broken);
                    lost += u32::from(unheard && !error.unsent);
                    if !error.fault.retryable() || tries + 1 == TRIES_MAX {
                        return asked(Err(error), tries + 1, lost);
                    }
                    let wait = error.retry_after.unwrap_or_else(|| backoff(tries));
                    let next = Instant::now() + wait;
                    if next >= until {
                        return asked(Err(error), tries + 1, lost);
                    }
                    let so_far = Tried {
                        tries: tries + 1,
                        lost,
                    };
                    if !may(so_far).await {
                        return asked(Err(error), tries + 1, lost);
                    }
                    listener(Delta::Late(&self.late(&error, wait, tries + 1)));
                    last = error;
                    tokio::time::sleep_until(next).await;
                }
            }
        }
        Asked {
            outcome: Err(last),
            tries: TRIES_MAX,
            lost,
        }
    }

    /// Why an answer is late after so many tries, and when the next one is: after its own wait, and
    /// not while nobody is let in.
    fn late(&self, error: &ModelError, wait: Duration, tries: u32) -> String {
        let standing = self.standing();
        let next = wait.max(standing.closed_for).as_secs_f64();
        let alone = match standing.circuit {
            Circuit::Open => "it failed too often and is left alone for now, ",
            Circuit::Closed | Circuit::HalfOpen => "",
        };
        let message = &error.message;
        format!("{message}; {alone}next try in {next:.1} s ({tries} of {TRIES_MAX} failed)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Stop, Usage};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// A provider that lets in so many requests per second of virtual time and no more.
    #[derive(Debug)]
    struct Strict {
        begun: Mutex<Vec<Instant>>,
        per_second: usize,
        refused: AtomicU32,
    }

    fn answer() -> Answer {
        Answer {
            text: "yes".into(),
            calls: Vec::new(),
            stop: Stop::Done,
            usage: Usage::default(),
        }
    }

    #[async_trait]
    impl Model for Strict {
        async fn ask(&self, _: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
            {
                let mut begun = self.begun.lock().unwrap();
                let now = Instant::now();
                begun.retain(|at| now - *at < Duration::from_secs(1));
                if self.per_second == 0 {
                    return Err(ModelError::new(Fault::Limited, "none"));
                }
                if begun.len() >= self.per_second {
                    self.refused.fetch_add(1, SeqCst);
                    let oldest = begun[0];
                    return Err(ModelError {
                        retry_after: Some(Duration::from_secs(1) - (now - oldest)),
                        ..ModelError::new(Fault::Limited, "too many")
                    });
                }
                begun.push(now);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(answer())
        }
    }

    /// Asks refused by a provider are asked again when it says, and all are answered.
    #[tokio::test(start_paused = true)]
    async fn everybody_is_answered_by_a_provider_that_refuses() {
        let strict = Arc::new(Strict {
            begun: Mutex::default(),
            per_second: 10,
            refused: AtomicU32::new(0),
        });
        let gate = Gate::before(Arc::clone(&strict) as Arc<dyn Model>);
        let begin = Instant::now();
        let until = begin + Duration::from_secs(3_600);
        let asks = (0..100).map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                gate.ask(None, &Ask::default(), until, &mut |_| ())
                    .await
                    .outcome
            })
        });
        let asks: Vec<_> = asks.collect();
        for ask in asks {
            assert_eq!(ask.await.unwrap(), Ok(answer()));
        }
        // 100 at 10 a second take 10 s at least.
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(9), "{took:?}");
        assert!(took <= Duration::from_secs(20), "{took:?}");
        // Nine in ten requests are not wasted on refusals.
        let refused = strict.refused.load(SeqCst);
        assert!(refused <= 60, "{refused}");
        assert_eq!(gate.standing().under_way, 0);
    }

    /// Fails until it is told to be well.
    #[derive(Debug, Default)]
    struct Ill {
        asked: AtomicU32,
        well: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl Model for Ill {
        async fn ask(&self, _: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
            self.asked.fetch_add(1, SeqCst);
            if self.well.load(SeqCst) {
                return Ok(answer());
            }
            Err(ModelError::new(Fault::Overloaded, "ill"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_what_the_provider_says_and_when_it_is_asked_again() {
        let gate = Gate::before(Arc::new(Ill::default()));
        let until = Instant::now() + Duration::from_secs(600);
        let mut late = Vec::new();
        let mut hear = |delta: Delta<'_>| {
            if let Delta::Late(text) = delta {
                late.push(text.to_owned());
            }
        };
        gate.ask(None, &Ask::default(), until, &mut hear).await;
        // After each try but the last.
        assert_eq!(late.len() as u32, TRIES_MAX - 1, "{late:#?}");
        assert!(late[0].starts_with("ill; next try in 0."), "{late:#?}");
        assert!(late[0].ends_with("(1 of 6 failed)"), "{late:#?}");
        let open = "ill; it failed too often and is left alone for now, next try in ";
        assert!(late[4].starts_with(open), "{late:#?}");
        assert_eq!(gate.standing().fault.as_deref(), Some("ill"));
    }

    // S4-19: the circuit opens, half-opens for one, and closes; waits grow, with chance in them.
    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_is_left_alone_and_probed_by_one() {
        let ill = Arc::new(Ill::default());
        let gate = Gate::before(Arc::clone(&ill) as Arc<dyn Model>);
        for _ in 0..FAULTS_MAX {
            let soon = Instant::now() + Duration::from_millis(1);
            let Asked { outcome, tries, .. } =
                gate.ask(None, &Ask::default(), soon, &mut |_| ()).await;
            assert_eq!((outcome.unwrap_err().fault, tries), (Fault::Overloaded, 1));
        }
        assert_eq!(gate.standing().circuit, Circuit::Open);
        let asked = ill.asked.load(SeqCst);
        let soon = Instant::now() + Duration::from_secs(1);
        let Asked { outcome, tries, .. } = gate.ask(None, &Ask::default(), soon, &mut |_| ()).await;
        assert_eq!((outcome.unwrap_err().fault, tries), (Fault::Limited, 0));
        assert_eq!(ill.asked.load(SeqCst), asked, "nobody asked");
        // When its time is over, one asks, and all go on.
        ill.well.store(true, SeqCst);
        let later = Instant::now() + Duration::from_secs(60);
        let Asked { outcome, tries, .. } =
            gate.ask(None, &Ask::default(), later, &mut |_| ()).await;
        assert_eq!((outcome, tries), (Ok(answer()), 1));
        assert_eq!(gate.standing().circuit, Circuit::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn models_that_share_a_key_share_its_refusals() {
        let strict = Arc::new(Strict {
            begun: Mutex::default(),
            per_second: 0,
            refused: AtomicU32::new(0),
        });
        let gate = Gate::before(Arc::new(Ill {
            well: true.into(),
            ..Ill::default()
        }));
        let other = gate.beside(strict as Arc<dyn Model>);
        let soon = Instant::now() + Duration::from_millis(100);
        let refused = other.ask(None, &Ask::default(), soon, &mut |_| ()).await;
        assert_eq!(refused.outcome.unwrap_err().fault, Fault::Limited);
        assert!(!gate.standing().closed_for.is_zero());
        let Asked { outcome, tries, .. } = gate.ask(None, &Ask::default(), soon, &mut |_| ()).await;
        assert_eq!((outcome.unwrap_err().fault, tries), (Fault::Limited, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_given_up_leaves_the_gate() {
        #[derive(Debug)]
        struct Mute;
        #[async_trait]
        impl Model for Mute {
            async fn ask(&self, _: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
                std::future::pending().await
            }
        }
        let gate = Gate::before(Arc::new(Mute));
        let until = Instant::now() + Duration::from_secs(60);
        let asked = tokio::spawn({
            let gate = gate.clone();
            async move {
                gate.ask(None, &Ask::default(), until, &mut |_| ())
                    .await
                    .tries
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(gate.standing().under_way, 1);
        asked.abort();
        let _ = asked.await;
        assert_eq!(gate.standing().under_way, 0);
        let Asked { outcome, .. } = gate.ask(None, &Ask::default(), until, &mut |_| ()).await;
        assert_eq!(outcome.unwrap_err().fault, Fault::Silent, "its time was up");
    }

    /// A provider that allows so many questions a second, a burst of as many, and takes its time. It
    /// says in whole seconds when to come back, as providers do.
    #[derive(Debug)]
    struct Bucket {
        level: Mutex<(f64, Instant)>,
        per_second: f64,
        takes: Duration,
        refused: AtomicU32,
    }

    impl Bucket {
        fn new(per_second: f64, takes: Duration) -> Arc<Self> {
            Arc::new(Self {
                level: Mutex::new((per_second, Instant::now())),
                per_second,
                takes,
                refused: AtomicU32::new(0),
            })
        }
    }

    #[async_trait]
    impl Model for Bucket {
        async fn ask(&self, _: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
            let allowed = {
                let mut level = self.level.lock().unwrap();
                let now = Instant::now();
                let since = (now - level.1).as_secs_f64();
                *level = (
                    (level.0 + since * self.per_second).min(self.per_second),
                    now,
                );
                let allowed = level.0 >= 1.0;
                level.0 -= f64::from(u8::from(allowed));
                allowed
            };
            if !allowed {
                self.refused.fetch_add(1, SeqCst);
                return Err(ModelError {
                    retry_after: Some(Duration::from_secs(1)),
                    ..ModelError::new(Fault::Limited, "too many")
                });
            }
            tokio::time::sleep(self.takes).await;
            Ok(answer())
        }
    }

    /// At least nine tenths of what a provider allows are used, whether it is quick or slow, and few
    /// questions are wasted on refusals.
    #[tokio::test(start_paused = true)]
    async fn most_of_what_a_provider_allows_is_used() {
        for (per_second, takes) in [(20.0, 200), (50.0, 20), (10.0, 3_000)] {
            let bucket = Bucket::new(per_second, Duration::from_millis(takes));
            let gate = Gate::before(Arc::clone(&bucket) as Arc<dyn Model>);
            let begin = Instant::now();
            let until = begin + Duration::from_secs(3_600);
            let asks: Vec<_> = (0..2_000)
                .map(|_| {
                    let gate = gate.clone();
                    let asked =
                        async move { gate.ask(None, &Ask::default(), until, &mut |_| ()).await };
                    tokio::spawn(asked)
                })
                .collect();
            for ask in asks {
                assert_eq!(ask.await.unwrap().outcome, Ok(answer()));
            }
            let allowed = 2_000.0 / per_second;
            let took = begin.elapsed().as_secs_f64();
            let refused = bucket.refused.load(SeqCst);
            let what = format!("{per_second} a second: {took} s of {allowed}, {refused} refused");
            assert!(took <= allowed / 0.9, "{what}");
            assert!(refused <= 200, "{what}");
        }
    }

    /// A run of a thousand questions does not keep out one of a few.
    #[tokio::test(start_paused = true)]
    async fn runs_go_in_by_turns() {
        let bucket = Bucket::new(10.0, Duration::from_millis(10));
        let gate = Gate::before(Arc::clone(&bucket) as Arc<dyn Model>);
        let begin = Instant::now();
        let until = begin + Duration::from_secs(3_600);
        let ask = |party: Party| {
            let gate = gate.clone();
            tokio::spawn(async move {
                let asked = gate.ask(party, &Ask::default(), until, &mut |_| ()).await;
                assert_eq!(asked.outcome, Ok(answer()));
                begin.elapsed()
            })
        };
        let large: Vec<_> = (0..500).map(|_| ask(Some(RunId::new(1)))).collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let small: Vec<_> = (0..20).map(|_| ask(Some(RunId::new(2)))).collect();
        let mut last = Duration::ZERO;
        for ask in small {
            last = last.max(ask.await.unwrap());
        }
        // 20 of 10 a second, half of which are the other's: 4 s, and not behind 450 others.
        assert!(last < Duration::from_secs(12), "{last:?}");
        for ask in large {
            ask.await.unwrap();
        }
    }

    /// Who would have to wait long is told when to come back, and not all at the same time.
    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_room_one_is_told_when_to_come_back() {
        let strict = Arc::new(Strict {
            begun: Mutex::default(),
            per_second: 0,
            refused: AtomicU32::new(0),
        });
        let gate = Gate::before(strict);
        assert_eq!(gate.room(), Ok(()));
        let soon = Instant::now() + Duration::from_millis(1);
        for _ in 0..2 {
            let asked = gate.ask(None, &Ask::default(), soon, &mut |_| ()).await;
            assert_eq!(asked.outcome.unwrap_err().fault, Fault::Limited);
        }
        let back: Vec<Duration> = (0..100).filter_map(|_| gate.room().err()).collect();
        assert_eq!(back.len(), 100);
        assert!(back[0] < back[1] && back[1] < back[2], "{back:?}");
        let most = BACK_MAX + BACK_MAX / 4;
        assert!(back.iter().all(|back| *back <= most), "{back:?}");
        // When the time is over, there is room again.
        tokio::time::sleep(most).await;
        assert_eq!(gate.room(), Ok(()));
    }

    /// Who gives up waiting leaves no hole in the line.
    #[tokio::test(start_paused = true)]
    async fn a_place_in_line_is_given_up_with_its_question() {
        let bucket = Bucket::new(1.0, Duration::from_secs(1));
        let gate = Gate::before(Arc::clone(&bucket) as Arc<dyn Model>);
        gate.lock().width = 1.0;
        let until = Instant::now() + Duration::from_secs(600);
        let ask = || {
            let gate = gate.clone();
            tokio::spawn(async move { gate.ask(None, &Ask::default(), until, &mut |_| ()).await })
        };
        let (first, second, third) = (ask(), ask(), ask());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(gate.standing().waiting, 2);
        second.abort();
        assert!(second.await.is_err());
        assert_eq!(first.await.unwrap().outcome, Ok(answer()));
        assert_eq!(third.await.unwrap().outcome, Ok(answer()));
        assert_eq!((gate.standing().waiting, gate.standing().under_way), (0, 0));
    }
}
