//! The credential: what a program shows to be let in, and what it may do then.
//!
//! Only a digest of the secret is ever here: whoever made the credential was shown the secret once,
//! and nobody can be shown it again. Comparing digests, and where the secret comes from, is the
//! business of whoever faces the outside.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::limits::{CREDENTIAL_SCOPES_MAX, CREDENTIALS_MAX};
use crate::name::Name;
use crate::state::State;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a credential lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look at everything but credentials and the audit trail.
    Reader,
    /// Also submit tasks, start and cancel runs, write on boards, send messages.
    Submitter,
    /// Also register as a worker, take tasks and report on them.
    Worker,
    /// All of these, and steer: pause queues, redrive, reassign, drain, define pools, read the audit
    /// trail.
    Operator,
    /// Everything: also make and revoke credentials.
    Admin,
}

impl Scope {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 5] = [
        Self::Reader,
        Self::Submitter,
        Self::Worker,
        Self::Operator,
        Self::Admin,
    ];

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Submitter => "submitter",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether whoever has this scope may do what needs `needed`.
    ///
    /// ```
    /// use domain::credential::Scope;
    /// assert!(Scope::Operator.includes(Scope::Worker));
    /// assert!(!Scope::Worker.includes(Scope::Submitter));
    /// ```
    pub const fn includes(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(needed, Self::Admin),
            Self::Submitter => matches!(needed, Self::Submitter | Self::Reader),
            Self::Worker => matches!(needed, Self::Worker | Self::Reader),
            Self::Reader => matches!(needed, Self::Reader),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| {
            Error::new(Code::OutOfRange, format!("“{text}” is not a scope"))
                .hint("Use admin, operator, submitter, worker or reader.")
        })
    }
}

/// A credential's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its id, which is part of the key that its bearer shows.
    pub id: Name,
    /// What people call it; the audit trail names it.
    pub label: Name,
    /// SHA-256 of the secret, in hexadecimal.
    pub digest: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Time,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

impl Credential {
    /// Whether it is good for anything at `now`.
    ///
    /// # Errors
    /// [`Code::KeyRefused`] when it has expired or was revoked.
    pub fn is_valid(&self, now: Time) -> Result<(), Error> {
        if self.revoked_at.is_some() {
            return Err(Error::new(Code::KeyRefused, "the key was revoked"));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(Error::new(Code::KeyRefused, "the key has expired"));
        }
        Ok(())
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::CredentialRevoked { .. } => self.revoked_at = Some(recorded.at),
            other => debug_assert!(false, "{} does not fold on a credential", other.name()),
        }
    }
}

/// Makes a credential; the same id twice is refused.
pub(crate) fn create(state: &State, new: &Arc<Credential>, now: Time) -> Decision {
    if state.credential(&new.id).is_some() {
        let text = format!("there is a key “{}” already", new.id);
        return Decision::refuse(Error::new(Code::KeyExists, text));
    }
    if new.scopes.is_empty() || new.scopes.len() > CREDENTIAL_SCOPES_MAX {
        let text = format!(
            "{} scopes; a key has 1 to {CREDENTIAL_SCOPES_MAX}",
            new.scopes.len()
        );
        return Decision::refuse(Error::new(Code::OutOfRange, text));
    }
    if new.expires_at.is_some_and(|at| at <= now) {
        return Decision::refuse(Error::new(
            Code::OutOfRange,
            "a key cannot expire before it is made",
        ));
    }
    let made = state.tally().map_or(0, |tally| tally.credentials);
    if made >= CREDENTIALS_MAX {
        return Decision::refuse(Error::limit(
            "keys, revoked ones included",
            made as usize + 1,
            CREDENTIALS_MAX as usize,
        ));
    }
    let credential = Credential {
        created_at: now,
        revoked_at: None,
        ..(**new).clone()
    };
    Decision::event(
        Event::CredentialCreated {
            credential: Arc::new(credential),
        },
        Outcome::Done,
    )
}

/// Ends a credential for good; saying it twice changes nothing.
pub(crate) fn revoke(state: &State, id: &Name) -> Decision {
    match state.credential(id) {
        None => {
            let text = format!("there is no key “{id}”");
            Decision::refuse(Error::new(Code::KeyUnknown, text))
        }
        Some(known) if known.revoked_at.is_some() => Decision::answer(Outcome::Done),
        Some(_) => Decision::event(Event::CredentialRevoked { id: id.clone() }, Outcome::Done),
    }
}
