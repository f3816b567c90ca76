//! The hash chain: each event's hash covers the one before it, so that a changed, missing or
//! inserted event is evident. `h(n) = SHA-256(h(n-1) ‖ line(n))`, from 32 zero bytes on.

use crate::{Reader, StoredFrame};
use domain::error::{Code, Error};
use domain::event::Recorded;
use sha2::{Digest, Sha256};

/// A value of the chain.
pub type Hash = [u8; 32];

/// Events read at a time when all are.
const EVENTS_PER_STEP: usize = 10_000;

/// Before the first event.
pub const GENESIS: Hash = [0; 32];

/// The chain's value after an event's line.
pub fn link(before: &Hash, line: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update(before);
    sha.update(line);
    sha.finalize().into()
}

/// The lines of a frame's body.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// The events of a frame.
///
/// # Errors
/// [`Code::StoreCorrupt`] when a line is not an event, or not the one whose turn it is.
pub fn decode(frame: &StoredFrame) -> Result<Vec<Recorded>, Error> {
    let mut events = Vec::new();
    for (position, line) in (frame.first..).zip(lines(&frame.body)) {
        let event: Recorded = serde_json::from_slice(line)
            .map_err(|fault| corrupt(position, &format!("cannot be read: {fault}")))?;
        if event.position != position {
            return Err(corrupt(
                position,
                &format!("says it is event {}", event.position),
            ));
        }
        events.push(event);
    }
    Ok(events)
}

/// Checks a frame against the chain's value before it, and gives the value after it.
///
/// # Errors
/// [`Code::StoreCorrupt`] when the frame does not follow.
pub fn verify(before: &Hash, expected_first: u64, frame: &StoredFrame) -> Result<Hash, Error> {
    if frame.first != expected_first {
        return Err(missing(expected_first, frame.first));
    }
    let after = lines(&frame.body).fold(*before, |hash, line| link(&hash, line));
    if after == frame.hash {
        Ok(after)
    } else {
        Err(corrupt(
            frame.first,
            "or one after it was changed: the hash chain breaks",
        ))
    }
}

/// Walks the whole chain without folding anything: the last event's position, and the chain's value
/// after it.
///
/// # Errors
/// [`Code::StoreCorrupt`] where the chain breaks; the store's own.
pub fn walk(reader: &mut dyn Reader) -> Result<(u64, Hash), Error> {
    let (mut position, mut hash) = (0, GENESIS);
    loop {
        let mut frames = reader.frames(position, EVENTS_PER_STEP)?;
        frames.retain(|frame| frame.first > position);
        if frames.is_empty() {
            return Ok((position, hash));
        }
        for frame in frames {
            hash = verify(&hash, position + 1, &frame)?;
            position += lines(&frame.body).count() as u64;
        }
    }
}

/// A hole before `found`.
pub(crate) fn missing(position: u64, found: u64) -> Error {
    corrupt(position, &format!("is missing; {found} follows"))
}

fn corrupt(position: u64, what: &str) -> Error {
    Error::new(Code::StoreCorrupt, format!("event {position} {what}"))
}
