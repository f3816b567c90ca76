//! Who asks, and what they may.
//!
//! A key names its tenant, so whose door a request knocks at is never a parameter that could be
//! forged or forgotten: handlers get a [`Caller`] whose engine is that tenant's, and nothing else.
//! As long as nobody was ever given a key, the server is one person's, on their own machine: then
//! whoever reaches it over the loopback may do everything. A page in that person's browser may not:
//! see [`is_local`].

use crate::tenants::Tenants;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use domain::credential::Scope;
use domain::error::{Code, Error};
use domain::event::Origin;
use domain::name::Name;
use engine::Engine;
use engine::keyring::digest;
use governor::clock::{Clock as _, DefaultClock};
use governor::{Quota, RateLimiter};
use protocol::key::{Key, Tenant};
use protocol::wire::REQUEST_ID;
use std::num::NonZeroU32;
use std::sync::Arc;

type Buckets = RateLimiter<
    Tenant,
    governor::state::keyed::DefaultKeyedStateStore<Tenant>,
    DefaultClock,
    governor::middleware::NoOpMiddleware,
>;

/// How often a tenant may ask.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// Who was let in: the one way from a request to an engine.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant's engine, asked on this caller's behalf.
    pub engine: Engine,
    scopes: Arc<[Scope]>,
    label: Option<Name>,
}

impl Caller {
    /// Refuses who lacks every one of these scopes.
    ///
    /// # Errors
    /// [`Code::ScopeMissing`].
    pub fn may_any(&self, needed: &[Scope]) -> Result<(), Error> {
        let has = |needed: &Scope| self.scopes.iter().any(|scope| scope.includes(*needed));
        if needed.iter().any(has) {
            return Ok(());
        }
        let names = |scopes: &[Scope]| {
            let names: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
            names.join(" or ")
        };
        let label = self.label.as_deref().unwrap_or("nobody");
        Err(Error::new(
            Code::ScopeMissing,
            format!(
                "this needs a key with scope {}; key “{label}” has {}",
                names(needed),
                names(&self.scopes)
            ),
        ))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = crate::http::Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Self>().cloned();
        // Every route that has a caller stands behind the gate; see `http::routes`.
        caller.ok_or_else(|| Error::new(Code::Internal, "a route without a gate").into())
    }
}

/// Lets callers in.
pub struct Gate {
    tenants: Arc<Tenants>,
    rate: Option<Buckets>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// Refused, and after how many seconds to come again, when that is known.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

impl Gate {
    /// A gate to these tenants.
    pub fn new(tenants: Arc<Tenants>, rate: Option<Rate>) -> Self {
        let buckets = |rate: Rate| {
            RateLimiter::keyed(Quota::per_second(rate.per_second).allow_burst(rate.burst))
        };
        Self {
            tenants,
            rate: rate.map(buckets),
        }
    }

    /// The tenants behind it.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`Code::KeyRefused`], [`Code::RateLimited`].
    pub fn admit(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let (engine, label, scopes): (_, _, Arc<[Scope]>) = match bearer(headers)? {
            Some(key) => {
                let (engine, label, scopes) = self.open(&key)?;
                (engine, Some(label), scopes)
            }
            None if self.tenants.has_keys() => {
                let text = "this server lets nobody in without a key";
                return Err(Error::new(Code::KeyRefused, text)
                    .hint("Send `Authorization: Bearer chk_…`; with the command line, set CHARGEHAND_KEY.")
                    .into());
            }
            None if !is_local(headers) => {
                let text = "without keys, the server is there for its own machine only";
                return Err(Error::new(Code::KeyRefused, text)
                    .hint("Address it as 127.0.0.1 or localhost, or make a key with `chargehand keys create`.")
                    .into());
            }
            None => {
                let engine = self.tenants.get(&Tenant::default());
                let engine = engine.ok_or_else(|| Error::new(Code::Stopped, "it is stopping"))?;
                (engine, None, Arc::new([Scope::Admin]))
            }
        };
        self.pace(engine.tenant())?;
        let origin = Origin {
            cause: request_id(headers),
            by: label.clone(),
        };
        Ok(Caller {
            engine: engine.on_behalf(origin),
            scopes,
            label,
        })
    }

    fn open(&self, key: &Key) -> Result<(Engine, Name, Arc<[Scope]>), Error> {
        // Which of these is wrong is nobody's business.
        let refused = || Error::new(Code::KeyRefused, "the key is not valid");
        let engine = self.tenants.get(&key.tenant).ok_or_else(refused)?;
        let credential = engine.keyring().find(&key.id).ok_or_else(refused)?;
        if !is_equal(
            digest(key.secret()).as_bytes(),
            credential.digest.as_bytes(),
        ) {
            return Err(refused());
        }
        // What it is good for is asked by the route; whether it is good at all, here.
        credential.is_valid(engine.now())?;
        Ok((
            engine,
            credential.label.clone(),
            credential.scopes.clone().into(),
        ))
    }

    fn pace(&self, tenant: &Tenant) -> Result<(), Refused> {
        let Some(buckets) = &self.rate else {
            return Ok(());
        };
        buckets.check_key(tenant).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            Refused {
                error: Error::new(
                    Code::RateLimited,
                    format!("tenant “{tenant}” sends requests faster than it may"),
                ),
                retry_after: Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            }
        })
    }
}

/// The key that a request shows.
fn bearer(headers: &HeaderMap) -> Result<Option<Key>, Error> {
    let Some(shown) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = shown.to_str().unwrap_or_default();
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let text = "the key is to be sent as `Authorization: Bearer …`";
        return Err(Error::new(Code::KeyRefused, text));
    }
    key.trim().parse().map(Some)
}

/// Compares in a time that does not depend on where the two differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Whether a request that shows no key comes from this machine's own programs, not through a page
/// in its browser: such a page's requests say where it came from (`Origin`; where that is left out,
/// as for an image, `Sec-Fetch-Site`), or that the name they were sent to is another than the
/// loopback's (a name that an attacker made to mean 127.0.0.1).
pub(crate) fn is_local(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST.as_str()).unwrap_or_default();
    is_loopback(host)
        && matches!(text("sec-fetch-site"), None | Some("same-origin" | "none"))
        && match text(header::ORIGIN.as_str()) {
            None => true,
            // The server's own pages.
            Some(origin) => origin
                .split_once("://")
                .is_some_and(|(_, from)| from == host),
        }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or(v6, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// How the request is named: what its events carry as `cause`.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<Name> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    Name::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                axum::http::HeaderName::from_static(name),
                value.parse().unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_the_own_machine_needs_no_key() {
        for host in ["127.0.0.1:7420", "localhost", "[::1]:7420", "127.0.0.2"] {
            assert!(is_local(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:7420",
            "10.0.0.7",
            "",
        ] {
            assert!(!is_local(&headers(&[("host", host)])), "{host}");
        }
        let page = |origin| is_local(&headers(&[("host", "localhost:7420"), ("origin", origin)]));
        assert!(page("http://localhost:7420"));
        assert!(!page("https://evil.example"));
        assert!(!page("null"));
    }
}
