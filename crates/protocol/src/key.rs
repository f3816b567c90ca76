//! The key that a program shows to be let in: `chk_TENANT_ID_SECRET`.
//!
//! The tenant says whose door it is, the id which credential, and only the secret is secret. The
//! prefix lets scanners of source code and logs find a key that was left lying about.

use domain::error::{Code, Error};
use domain::name::Name;
use std::fmt;
use std::str::FromStr;

/// Begins every key.
const PREFIX: &str = "chk";
/// Characters in a tenant's name, at most: it is a folder's name and part of keys.
const TENANT_MAX: usize = 63;

/// Who owns what: a store of its own, with workers, keys and log of its own.
///
/// ```
/// use protocol::key::Tenant;
/// assert_eq!(Tenant::default().as_str(), "default");
/// assert!("acme-2".parse::<Tenant>().is_ok());
/// assert!("../etc".parse::<Tenant>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Name);

impl Tenant {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is the one that is always there.
    pub fn is_default(&self) -> bool {
        self.as_str() == "default"
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Name::literal("default"))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Tenant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > TENANT_MAX || !text.chars().all(plain) {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
            let text = format!("“{shown}” is not a tenant's name");
            return Err(Error::new(Code::NameMalformed, text).hint(format!(
                "Use 1 to {TENANT_MAX} lower-case letters, digits and hyphens."
            )));
        }
        Ok(Self(Name::new(text)?))
    }
}

/// A key, read. Printing it for debugging does not print the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose door.
    pub tenant: Tenant,
    /// Which credential.
    pub id: Name,
    /// What only its bearer knows.
    secret: String,
}

impl Key {
    /// A key of these parts.
    pub fn new(tenant: Tenant, id: Name, secret: String) -> Self {
        Self { tenant, id, secret }
    }

    /// The secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole key, to be shown to a server, or once to whoever made it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}_{}_{}_{}", self.tenant, self.id, self.secret)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({PREFIX}_{}_{}_•••)", self.tenant, self.id)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // What was shown is not repeated: it may be a secret with a slip in it.
        let malformed = || Error::new(Code::KeyRefused, "this is not a key of Chargehand");
        let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric());
        let parts: Vec<&str> = text.splitn(5, '_').collect();
        match parts[..] {
            [PREFIX, tenant, id, secret]
                if !secret.is_empty() && secret.len() <= 256 && plain(secret) && plain(id) =>
            {
                Ok(Self {
                    tenant: tenant.parse().map_err(|_| malformed())?,
                    id: Name::new(id).map_err(|_| malformed())?,
                    secret: secret.to_owned(),
                })
            }
            _ => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_never_prints_its_secret() {
        let key = Key::new(
            "acme-2".parse().unwrap(),
            Name::literal("k7m2"),
            "abc123".into(),
        );
        assert_eq!(key.reveal(), "chk_acme-2_k7m2_abc123");
        assert_eq!(key.reveal().parse::<Key>().unwrap(), key);
        assert!(!format!("{key:?}").contains("abc123"));
        for bad in [
            "",
            "chk",
            "chk_acme_k7m2",
            "chk_acme_k7m2_",
            "sk_acme_k7m2_abc",
            "chk_ACME_k7m2_abc",
            "chk_acme_k7m2_abc_d",
            "chk_../x_k7m2_abc",
        ] {
            let error = bad.parse::<Key>().unwrap_err();
            assert_eq!(error.code, Code::KeyRefused, "{bad}");
        }
    }
}
