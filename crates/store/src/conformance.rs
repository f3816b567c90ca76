//! One suite for every backend.
pub mod script;
