//! The backends: one file each, nothing but storage in any of them.

pub mod memory;
pub mod sqlite;
