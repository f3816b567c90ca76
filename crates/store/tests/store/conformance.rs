//! The suite that every backend passes.

use domain::error::Error;
use store::Backend;
use store::backend::memory::Memory;
use store::backend::sqlite::Sqlite;
use store::conformance::Factory;
use tempfile::TempDir;

struct InMemory(Memory);

impl Factory for InMemory {
    fn open(&self) -> Result<Box<dyn Backend>, Error> {
        Ok(Box::new(self.0.clone()))
    }
}

struct InFolder(TempDir);

impl Factory for InFolder {
    fn open(&self) -> Result<Box<dyn Backend>, Error> {
        Ok(Box::new(Sqlite::open(self.0.path())?))
    }
}

store::conformance!(memory, InMemory(Memory::default()));
store::conformance!(sqlite, InFolder(tempfile::tempdir().unwrap()));
