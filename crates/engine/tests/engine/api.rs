//! The contract's own suite, in memory and in a folder.

use engine::{Engine, Place};
use protocol::Api;
use std::sync::Arc;
use tempfile::TempDir;

async fn in_memory() -> (Arc<dyn Api>, ()) {
    (Arc::new(Engine::open(&Place::Memory).unwrap()), ())
}

async fn in_a_folder() -> (Arc<dyn Api>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    (Arc::new(Engine::open(&place).unwrap()), folder)
}

protocol::conformance!(memory, in_memory());
protocol::conformance!(folder, in_a_folder());
