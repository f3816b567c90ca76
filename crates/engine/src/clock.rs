//! Where time, ids and chance come from when nothing is simulated.

use domain::error::{Code, Error};
use domain::id::Ids;
use domain::time::Time;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. Cloning shares it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// Any other.
    pub fn from_fn(now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> Time {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// UUIDv7 from the clock and the operating system's randomness.
#[derive(Debug, Default)]
pub struct SystemIds;

impl SystemIds {
    /// So many bytes of the operating system's randomness, as lower-case letters and digits: nobody
    /// guesses it.
    ///
    /// # Errors
    /// The operating system gives none.
    pub(crate) fn token(bytes: usize) -> Result<String, Error> {
        const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        // One byte per letter, five bits of it used: simple, and chance is cheap.
        let mut chance = vec![0; bytes * 8 / 5 + 1];
        getrandom::fill(&mut chance)
            .map_err(|fault| Error::new(Code::StoreIo, format!("no randomness: {fault}")))?;
        let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
        Ok(chance.iter().map(letter).collect())
    }
}

impl Ids for SystemIds {
    fn next(&mut self) -> u128 {
        uuid::Uuid::now_v7().as_u128()
    }

    fn chance(&mut self, bound: u64) -> u64 {
        // The tail of a UUIDv7 is random; 32 of its bits are plenty for jitter.
        let tail = uuid::Uuid::now_v7().as_u128() as u32;
        if bound == 0 {
            0
        } else {
            u64::from(tail) % bound
        }
    }
}
