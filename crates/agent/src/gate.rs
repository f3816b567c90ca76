//! The one way to a provider: how many may ask at once, and when not at all.
//!
//! A provider's limits belong to a key, not to a task: when one asks too often, all who share the key
//! must slow down, or each of them learns it for itself at everybody's expense. So every mind of this
//! process that uses the same provider, address and key goes through one gate. It lets in as many as
//! the provider has borne so far: half as many after a refusal, one more after that many answers, as
//! TCP does (RFC 5681). What the provider says about waiting (`Retry-After`) holds for all. A
//! provider that fails again and again is left alone for a while, then one asks for all.
//!
//! It keeps no accounts, and it never asks twice by itself after an answer that may have been paid
//! for without its caller knowing: it says how often it asked.

use crate::model::{Answer, Ask, Delta, Fault, Listener, Model, ModelError};
use std::hash::{BuildHasher, Hasher};
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
/// Tries of one question, at most.
pub const TRIES_MAX: u32 = 6;

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
}

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
    moved: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    width: f64,
    under_way: u32,
    /// Nobody is let in before.
    from: Instant,
    /// In a row.
    refusals: u32,
    faults: u32,
    circuit: Circuit,
    open_for: Duration,
}

impl State {
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
        self.under_way += 1;
        Ok(())
    }

    /// What an outcome means for everybody.
    fn learn(&mut self, fault: Option<&ModelError>, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(error) = fault else {
            (self.refusals, self.faults) = (0, 0);
            (self.circuit, self.open_for) = (Circuit::Closed, OPEN_FIRST);
            self.width = (self.width + 1.0 / self.width).min(WIDTH_MAX);
            return;
        };
        match error.fault {
            Fault::Limited => {
                self.width = (self.width / 2.0).max(1.0);
                let backoff = backoff(self.refusals);
                self.refusals += 1;
                self.hold(now + error.retry_after.unwrap_or(backoff));
                // It answers: what it says is that there are too many of us.
                self.faults = 0;
                self.circuit = Circuit::Closed;
            }
            Fault::Overloaded | Fault::Silent | Fault::Broken => {
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

    fn hold(&mut self, until: Instant) {
        self.from = self.from.max(until);
    }
}

/// Twice as long each time, and by chance up to half as long again, so that all who were refused
/// together do not come back together.
fn backoff(times: u32) -> Duration {
    let wait = (WAIT_FIRST * 2_u32.saturating_pow(times.min(10))).min(WAIT_MAX);
    // Every such hasher has keys of its own: chance enough for this.
    let chance = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    wait + wait.mul_f64((chance % 1_000) as f64 / 2_000.0)
}

/// Who is inside; leaving is told even when the question is given up.
struct Inside<'a> {
    gate: &'a Gate,
    told: bool,
}

impl Inside<'_> {
    fn leave(mut self, fault: Option<&ModelError>) {
        self.told = true;
        self.gate.lock().learn(fault, Instant::now());
        self.gate.moved.notify_waiters();
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
            drop(state);
            self.gate.moved.notify_waiters();
        }
    }
}

impl Gate {
    /// In front of this model.
    pub fn before(model: Arc<dyn Model>) -> Self {
        Self {
            model,
            state: Arc::new(Mutex::new(State {
                width: WIDTH_FIRST,
                under_way: 0,
                from: Instant::now(),
                refusals: 0,
                faults: 0,
                circuit: Circuit::Closed,
                open_for: OPEN_FIRST,
            })),
            moved: Arc::default(),
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
        }
    }

    async fn enter(&self) -> Inside<'_> {
        loop {
            // Registered before looking, so that no move is missed in between.
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let entered = self.lock().enter(Instant::now());
            match entered {
                Ok(()) => {
                    return Inside {
                        gate: self,
                        told: false,
                    };
                }
                Err(Some(wait)) => tokio::time::sleep(wait).await,
                Err(None) => moved.await,
            }
        }
    }

    /// Asks, waiting for its turn, again and again where that may help: at most [`TRIES_MAX`] times,
    /// and never beyond `until`.
    pub async fn ask(&self, ask: &Ask, until: Instant, listener: &mut Listener<'_>) -> Asked {
        let mut last = ModelError::new(Fault::Limited, "no turn came in time at the provider");
        let mut lost = 0;
        for tries in 0..TRIES_MAX {
            let asked = |outcome, tries, lost| Asked {
                outcome,
                tries,
                lost,
            };
            let Ok(inside) = tokio::time::timeout_at(until, self.enter()).await else {
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
                    lost += u32::from(matches!(error.fault, Fault::Silent | Fault::Broken));
                    if !error.fault.retryable() || tries + 1 == TRIES_MAX {
                        return asked(Err(error), tries + 1, lost);
                    }
                    let wait = error.retry_after.unwrap_or_else(|| backoff(tries));
                    let next = Instant::now() + wait;
                    if next >= until {
                        return asked(Err(error), tries + 1, lost);
                    }
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
            tokio::spawn(async move { gate.ask(&Ask::default(), until, &mut |_| ()).await.outcome })
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

    // S4-19: the circuit opens, half-opens for one, and closes; waits grow, with chance in them.
    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_is_left_alone_and_probed_by_one() {
        let ill = Arc::new(Ill::default());
        let gate = Gate::before(Arc::clone(&ill) as Arc<dyn Model>);
        for _ in 0..FAULTS_MAX {
            let soon = Instant::now() + Duration::from_millis(1);
            let Asked { outcome, tries, .. } = gate.ask(&Ask::default(), soon, &mut |_| ()).await;
            assert_eq!((outcome.unwrap_err().fault, tries), (Fault::Overloaded, 1));
        }
        assert_eq!(gate.standing().circuit, Circuit::Open);
        let asked = ill.asked.load(SeqCst);
        let soon = Instant::now() + Duration::from_secs(1);
        let Asked { outcome, tries, .. } = gate.ask(&Ask::default(), soon, &mut |_| ()).await;
        assert_eq!((outcome.unwrap_err().fault, tries), (Fault::Limited, 0));
        assert_eq!(ill.asked.load(SeqCst), asked, "nobody asked");
        // When its time is over, one asks, and all go on.
        ill.well.store(true, SeqCst);
        let later = Instant::now() + Duration::from_secs(60);
        let Asked { outcome, tries, .. } = gate.ask(&Ask::default(), later, &mut |_| ()).await;
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
        let refused = other.ask(&Ask::default(), soon, &mut |_| ()).await;
        assert_eq!(refused.outcome.unwrap_err().fault, Fault::Limited);
        assert!(!gate.standing().closed_for.is_zero());
        let Asked { outcome, tries, .. } = gate.ask(&Ask::default(), soon, &mut |_| ()).await;
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
            async move { gate.ask(&Ask::default(), until, &mut |_| ()).await.tries }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(gate.standing().under_way, 1);
        asked.abort();
        let _ = asked.await;
        assert_eq!(gate.standing().under_way, 0);
        let Asked { outcome, .. } = gate.ask(&Ask::default(), until, &mut |_| ()).await;
        assert_eq!(outcome.unwrap_err().fault, Fault::Silent, "its time was up");
    }
}
