//! Values that must not be seen: not in a log, not in an error, not in a panic.
//!
//! Redaction is by construction, not by search: a secret is a type that has no way to print itself,
//! so a log line cannot hold one by mistake. What comes in as a header is marked as sensitive
//! ([`SECRET_HEADERS`]) before anything looks at it. Deliberately absent: equality (comparing keys is
//! the business of whoever checks them, in constant time) and serialization.

use axum::http::HeaderName;
use axum::http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use std::fmt;

/// What stands where a secret would.
pub const HIDDEN: &str = "•••";

/// Headers whose values are never shown. The layer
/// [`SetSensitiveHeadersLayer`](tower_http::sensitive_headers::SetSensitiveHeadersLayer) takes them,
/// outermost; from then on their values print as `Sensitive`.
pub const SECRET_HEADERS: [HeaderName; 4] =
    [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE];

/// A text that prints as `•••`.
///
/// ```
/// use server::secret::Secret;
///
/// let key = Secret::new("chk_0123456789");
/// assert_eq!(format!("{key} {key:?}"), "••• •••");
/// assert_eq!(key.expose(), "chk_0123456789");
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into its keeping.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it. A name that is easy to search for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
