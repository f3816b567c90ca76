//! What goes wrong, and when: decided by the seed, never by the machine. [`Faulty`] stands between
//! the store and its backend and fails commits and loads; the world asks [`Chance`] for everything
//! else that may happen (clock jumps, workers that die).

use domain::error::{Code, Error};
use domain::state::Key;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Backend, Commit, Head, Hot, Reader, Versioned};

/// Numbers from a seed: splitmix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`; 0 when `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }

    /// A number between two, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// How a commit or a load goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// The disk is full: nothing is written, and the owner may go on.
    Full,
    /// The write fails and nothing was written, which the owner cannot know.
    Refused,
    /// The write fails and everything was written, which the owner cannot know.
    Torn,
    /// The process dies, and nothing was written.
    CrashBefore,
    /// The process dies, and everything was written.
    CrashAfter,
    /// A row cannot be read.
    Unreadable,
}

/// What is still to go wrong, and what already has.
#[derive(Debug)]
pub struct Plan {
    chance: Chance,
    /// Faults left.
    left: u32,
    /// A fault about once in so many commits.
    one_in: u64,
    /// Commits so far, flushes included.
    pub commits: u64,
    /// The one commit to die at, and whether it is written.
    pub crash_at: Option<(u64, Strike)>,
    /// The process has died: the disk does nothing any more.
    pub dead: bool,
    /// What went wrong, in order.
    pub struck: Vec<(u64, Strike)>,
    /// Writes that came after one that failed: the owner did not stop.
    pub went_on: u32,
}

impl Plan {
    /// So many faults, about one in so many commits.
    pub fn new(seed: u64, faults: u32, one_in: u64) -> Self {
        Self {
            chance: Chance::new(seed ^ 0x5eed_fa17),
            left: faults,
            one_in,
            commits: 0,
            crash_at: None,
            dead: false,
            struck: Vec::new(),
            went_on: 0,
        }
    }

    /// Nothing goes wrong any more.
    pub fn calm(&mut self) {
        self.left = 0;
    }

    fn commit(&mut self) -> Option<Strike> {
        self.commits += 1;
        if let Some((at, strike)) = self.crash_at
            && at == self.commits
        {
            self.crash_at = None;
            return Some(self.strike(strike));
        }
        if self.left == 0 || !self.chance.one_in(self.one_in) {
            return None;
        }
        let strikes = [
            Strike::Full,
            Strike::Refused,
            Strike::Torn,
            Strike::CrashBefore,
            Strike::CrashAfter,
        ];
        let strike = strikes[self.chance.below(strikes.len() as u64) as usize];
        self.left -= 1;
        Some(self.strike(strike))
    }

    fn load(&mut self) -> Option<Strike> {
        if self.left == 0 || !self.chance.one_in(self.one_in * 20) {
            return None;
        }
        self.left -= 1;
        Some(self.strike(Strike::Unreadable))
    }

    fn strike(&mut self, strike: Strike) -> Strike {
        self.dead |= matches!(strike, Strike::CrashBefore | Strike::CrashAfter);
        self.struck.push((self.commits, strike));
        strike
    }
}

/// A plan that the disk and the world share.
#[derive(Debug, Clone)]
pub struct Weather(Arc<Mutex<Plan>>);

impl Weather {
    /// Shares a plan.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(plan)))
    }

    /// The plan.
    pub fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend that fails as planned.
pub struct Faulty {
    inner: Box<dyn Backend>,
    weather: Weather,
    /// A write failed: nobody knows what is on disk, and nothing more is written.
    broken: bool,
}

impl Faulty {
    /// Over another one.
    pub fn new(inner: Box<dyn Backend>, weather: Weather) -> Self {
        Self {
            inner,
            weather,
            broken: false,
        }
    }

    fn alive(&self) -> Result<(), Error> {
        match self.weather.plan().dead {
            false => Ok(()),
            true => Err(Error::new(Code::StoreIo, "the process is dead")),
        }
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Backend for Faulty {
    fn head(&mut self) -> Result<Head, Error> {
        self.alive()?;
        self.inner.head()
    }

    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error> {
        self.alive()?;
        match self.weather.plan().load() {
            None => self.inner.load(keys),
            Some(strike) => Err(Error::new(Code::StoreIo, format!("{strike:?}, as planned"))),
        }
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        self.alive()?;
        if self.broken {
            self.weather.plan().went_on += 1;
            return Err(Error::new(Code::StoreIo, "an earlier write failed"));
        }
        let strike = self.weather.plan().commit();
        let Some(strike) = strike else {
            return self.inner.commit(commit);
        };
        if matches!(strike, Strike::Torn | Strike::CrashAfter) {
            self.inner.commit(commit)?;
        }
        self.broken = strike != Strike::Full;
        let code = match strike {
            Strike::Full => Code::StoreFull,
            _ => Code::StoreIo,
        };
        Err(Error::new(code, format!("{strike:?}, as planned")))
    }

    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error> {
        self.alive()?;
        self.inner.hot(each)
    }

    fn tidy(&mut self) -> Result<(), Error> {
        self.alive()?;
        self.inner.tidy()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        self.alive()?;
        self.inner.reader()
    }
}
