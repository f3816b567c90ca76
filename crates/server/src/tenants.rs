//! Tenants: each has a store and an engine of its own.
//!
//! That is what makes them strangers to each other. No query can forget to ask whose row it is, the
//! events of one are not numbered among another's, a backlog of one is not in the way of another's
//! queue, a damaged store is one tenant's trouble, and to forget a tenant is to delete a folder.
//! The one named `default` is always there, in the store's own folder; others are in `tenants/`
//! beneath it.

use domain::error::{Code, Error};
use domain::state::Quotas;
use engine::{Engine, Place, Settings};
use protocol::key::Tenant;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

/// Tenants of one server: each has a thread and a few open files.
pub const TENANTS_MAX: usize = 256;
/// The folder of all but the default one.
const FOLDER: &str = "tenants";

/// The tenants of a server, all open.
pub struct Tenants {
    root: Place,
    quotas: Quotas,
    engines: RwLock<BTreeMap<Tenant, Engine>>,
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenants")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

/// Where a tenant's store is, when the default one's is at `root`.
pub fn place(root: &Place, tenant: &Tenant) -> Place {
    match root {
        Place::Folder(folder) if !tenant.is_default() => {
            Place::Folder(folder.join(FOLDER).join(tenant.as_str()))
        }
        other => other.clone(),
    }
}

/// The tenants that have a store beneath `root`, besides the default one.
///
/// # Errors
/// The folder cannot be read.
pub fn known(root: &Place) -> Result<Vec<Tenant>, Error> {
    let Place::Folder(folder) = root else {
        return Ok(Vec::new());
    };
    let folder: PathBuf = folder.join(FOLDER);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let unreadable = |fault| {
        Error::new(
            Code::StorePath,
            format!("{} cannot be read: {fault}", folder.display()),
        )
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Whatever else lies there is not ours.
        let name = entry.file_name();
        if let Some(Ok(tenant)) = name.to_str().map(str::parse::<Tenant>)
            && !tenant.is_default()
            && entry.path().is_dir()
        {
            found.push(tenant);
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl Tenants {
    /// Opens the default tenant and every other that has a store.
    ///
    /// # Errors
    /// A store's own.
    pub fn open(root: Place, quotas: Quotas) -> Result<Self, Error> {
        let tenants = Self {
            engines: RwLock::default(),
            root,
            quotas,
        };
        tenants.add(Tenant::default())?;
        for tenant in known(&tenants.root)? {
            tenants.add(tenant)?;
        }
        Ok(tenants)
    }

    fn add(&self, tenant: Tenant) -> Result<Engine, Error> {
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get(&tenant) {
            return Ok(engine.clone());
        }
        if engines.len() >= TENANTS_MAX {
            return Err(Error::limit("tenants", engines.len() + 1, TENANTS_MAX));
        }
        let settings = Settings {
            tenant: tenant.clone(),
            quotas: self.quotas,
        };
        let engine = Engine::open_with(&place(&self.root, &tenant), settings)?;
        engines.insert(tenant, engine.clone());
        Ok(engine)
    }

    /// Makes a tenant; one that is there already stays as it is.
    ///
    /// # Errors
    /// There are [`TENANTS_MAX`], or the store's own.
    pub fn create(&self, tenant: Tenant) -> Result<Engine, Error> {
        self.add(tenant)
    }

    /// A tenant's engine.
    pub fn get(&self, tenant: &Tenant) -> Option<Engine> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.get(tenant).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Engine> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.values().cloned().collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<Tenant> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.keys().cloned().collect()
    }

    /// Whether somebody was ever given a key, so that whoever comes must show one.
    pub fn has_keys(&self) -> bool {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.values().any(|engine| !engine.keyring().is_empty())
    }

    /// Writes what is behind and stops them all.
    ///
    /// # Errors
    /// The first that a store had; the others are stopped all the same.
    pub fn stop(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for engine in self.all() {
            let stopped = engine.stop();
            if first.is_ok() {
                first = stopped;
            }
        }
        first
    }
}
