//! Turns of the wheel: one named service per duty over the store.
