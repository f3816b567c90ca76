//! Who may be let in, in memory: a mirror of the credentials' rows, so that looking at a request's
//! key costs no turn of the wheel.

use domain::credential::Credential;
use domain::event::Event;
use domain::name::Name;
use domain::state::Row;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use store::{Query, Store};

/// The credentials of one tenant. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Arc<RwLock<BTreeMap<Name, Arc<Credential>>>>);

impl Keyring {
    /// All that a store has.
    pub(crate) fn of(store: &mut Store) -> Result<Self, domain::error::Error> {
        let behind = store.settle()?;
        let rows = store.reader()?.rows(&Query::Credentials)?;
        let rows = store::overlay(&Query::Credentials, rows, behind);
        let credentials = rows.into_iter().filter_map(|(_, row)| match row {
            Row::Credential(credential) => Some((credential.id.clone(), credential)),
            _ => None,
        });
        Ok(Self(Arc::new(RwLock::new(credentials.collect()))))
    }

    /// The credential of this id, whatever it is still good for.
    pub fn find(&self, id: &Name) -> Option<Arc<Credential>> {
        let credentials = self.0.read().unwrap_or_else(PoisonError::into_inner);
        credentials.get(id).cloned()
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Arc<Credential>> {
        let credentials = self.0.read().unwrap_or_else(PoisonError::into_inner);
        credentials.values().cloned().collect()
    }

    /// Whether nobody was ever given one.
    pub fn is_empty(&self) -> bool {
        let credentials = self.0.read().unwrap_or_else(PoisonError::into_inner);
        credentials.is_empty()
    }

    /// Follows what was committed.
    pub(crate) fn note(&self, event: &Event, at: domain::time::Time) {
        let mut credentials = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::CredentialCreated { credential } => {
                credentials.insert(credential.id.clone(), Arc::clone(credential));
            }
            Event::CredentialRevoked { id } => {
                if let Some(known) = credentials.get_mut(id) {
                    Arc::make_mut(known).revoked_at = Some(at);
                }
            }
            _ => {}
        }
    }
}

/// What is kept of a secret: SHA-256, in hexadecimal. A secret has 256 bits of chance in it, so
/// that a fast digest is as safe as a slow one.
pub fn digest(secret: &str) -> String {
    use sha2::Digest as _;
    let bytes = sha2::Sha256::digest(secret.as_bytes());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
