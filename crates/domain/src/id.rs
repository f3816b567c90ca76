//! Identities: 128 bits, ordered by creation, shown with the noun they name.
//!
//! An id is a UUIDv7 (RFC 9562): its first 48 bits are milliseconds, so rows keyed by it append
//! instead of scattering. People see `run_` or `task_` and 26 characters of Crockford base32.
//! Ids are never made here: whoever calls [`decide`](crate::decide::decide) brings an [`Ids`].

use crate::error::{Code, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, marker::PhantomData, str::FromStr};

/// A noun that has ids, with the prefix people see.
pub trait Noun: 'static {
    /// `task` in `task_01j…`.
    const PREFIX: &'static str;
}

/// An id of one noun; ids of two nouns do not mix.
pub struct Id<N: Noun>(pub u128, PhantomData<fn() -> N>);

/// Marker of [`TaskId`].
pub enum TaskNoun {}
/// Marker of [`RunId`].
pub enum RunNoun {}
/// Marker of [`EntryId`].
pub enum EntryNoun {}
/// Marker of [`MessageId`].
pub enum MessageNoun {}

impl Noun for TaskNoun {
    const PREFIX: &'static str = "task";
}
impl Noun for RunNoun {
    const PREFIX: &'static str = "run";
}
impl Noun for EntryNoun {
    const PREFIX: &'static str = "entry";
}
impl Noun for MessageNoun {
    const PREFIX: &'static str = "msg";
}

/// Names a task.
pub type TaskId = Id<TaskNoun>;
/// Names a run.
pub type RunId = Id<RunNoun>;
/// Names a blackboard entry.
pub type EntryId = Id<EntryNoun>;
/// Names a message.
pub type MessageId = Id<MessageNoun>;

/// Where ids and chance come from. Live it is the clock and the operating system's randomness; in
/// the simulator it is one seed.
pub trait Ids {
    /// A fresh id, greater than the ones before it.
    fn next(&mut self) -> u128;
    /// A uniform number below `bound` (0 when `bound` is 0), for jitter.
    fn chance(&mut self, bound: u64) -> u64;
}

impl<N: Noun> Id<N> {
    /// Wraps raw bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits, PhantomData)
    }

    /// The first of a range of ids, made from a fresh one. Its low 20 bits are free for
    /// [`offset`](Self::offset); two fresh ids differ above them, so ranges never meet.
    pub const fn range(fresh: u128) -> Self {
        Self::new(fresh & !0xf_ffff)
    }

    /// The id `n` places after this one, of a [`range`](Self::range). A step's tasks take
    /// consecutive ids, so a run stores the first and the count instead of ten thousand ids.
    /// [`RUN_TASKS_MAX`](crate::limits::RUN_TASKS_MAX) is below 2^20.
    #[must_use]
    pub const fn offset(self, n: u64) -> Self {
        Self::new(self.0.wrapping_add(n as u128))
    }

    /// The bits, most significant first, as they are stored.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of stored bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::new(u128::from_be_bytes(bytes))
    }
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS: usize = 26;

fn encode(bits: u128) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        *digit = ALPHABET[((bits >> (5 * place)) & 31) as usize];
    }
    text
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != DIGITS || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes().try_fold(0u128, |bits, byte| {
        let digit = ALPHABET
            .iter()
            .position(|a| *a == byte.to_ascii_lowercase())?;
        Some(bits << 5 | digit as u128)
    })
}

/// Reads the usual form of a UUID, with or without hyphens.
fn decode_uuid(text: &str) -> Option<u128> {
    let digits = text.bytes().filter(|b| *b != b'-').count();
    if digits != 32 || !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&text.replace('-', ""), 16).ok()
}

impl<N: Noun> fmt::Display for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = encode(self.0);
        let text = std::str::from_utf8(&digits).map_err(|_| fmt::Error)?;
        write!(f, "{}_{text}", N::PREFIX)
    }
}

impl<N: Noun> fmt::Debug for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<N: Noun> FromStr for Id<N> {
    type Err = Error;

    /// Reads `task_01j…`, the 26 characters alone, or a UUID (so that a client may bring its own).
    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text
            .strip_prefix(N::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .unwrap_or(text);
        decode(bare)
            .or_else(|| decode_uuid(bare))
            .map(Self::new)
            .ok_or_else(|| {
                let shown: String = text.chars().take(64).collect();
                Error::new(
                    Code::IdMalformed,
                    format!("“{shown}” is not a {} id", N::PREFIX),
                )
            })
    }
}

impl<N: Noun> Serialize for Id<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, N: Noun> Deserialize<'de> for Id<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<N>(PhantomData<N>);
        impl<N: Noun> serde::de::Visitor<'_> for Visitor<N> {
            type Value = Id<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a {} id", N::PREFIX)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id<N>, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor(PhantomData))
    }
}

impl<N: Noun> Clone for Id<N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<N: Noun> Copy for Id<N> {}
impl<N: Noun> PartialEq for Id<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<N: Noun> Eq for Id<N> {}
impl<N: Noun> PartialOrd for Id<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<N: Noun> Ord for Id<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<N: Noun> std::hash::Hash for Id<N> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Ids from a counter and chance from a small generator: for tests and the simulator, where one
/// seed must give one history.
#[derive(Debug, Clone)]
pub struct CountedIds {
    next: u128,
    chance: u64,
}

impl CountedIds {
    /// Starts at `seed`; two seeds never meet within 2^64 ids.
    pub fn new(seed: u64) -> Self {
        Self {
            next: (u128::from(seed) + 1) << 64,
            chance: seed ^ 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Ids for CountedIds {
    fn next(&mut self) -> u128 {
        // Leaves room for the consecutive ids of a step's tasks.
        self.next += 1 << 32;
        self.next
    }

    fn chance(&mut self, bound: u64) -> u64 {
        // xorshift64* (Vigna 2016): enough for jitter, reproducible everywhere.
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        let spread = self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d);
        if bound == 0 { 0 } else { spread % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_what_it_shows() {
        for bits in [
            0,
            1,
            31,
            32,
            u128::MAX,
            0x0190_1234_5678_7abc_8def_0123_4567_89ab,
        ] {
            let id = TaskId::new(bits);
            assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
            assert_eq!(TaskId::from_bytes(id.to_bytes()), id);
        }
        assert_eq!(
            TaskId::new(31).to_string(),
            "task_0000000000000000000000000z"
        );
    }

    #[test]
    fn a_client_may_bring_a_uuid() {
        let id: TaskId = "01901234-5678-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(id.0, 0x0190_1234_5678_7abc_8def_0123_4567_89ab);
    }

    #[test]
    fn another_nouns_id_is_refused_with_a_code() {
        let run = RunId::new(7).to_string();
        assert_eq!(run.parse::<TaskId>().unwrap_err().code, Code::IdMalformed);
        assert_eq!("".parse::<TaskId>().unwrap_err().code, Code::IdMalformed);
        // 26 digits hold 130 bits: the first may not exceed 7.
        assert!("zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<TaskId>().is_err());
    }

    #[test]
    fn text_order_is_id_order() {
        let (a, b) = (TaskId::new(1 << 80), TaskId::new(1 << 81));
        assert!(a < b && a.to_string() < b.to_string());
    }
}
