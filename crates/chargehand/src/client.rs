//! The contract over HTTP: [`Api`](crate::Api) and [`ApiRead`](crate::ApiRead) spoken to a
//! Chargehand server, so that whatever works in the engine's process works elsewhere too.
//!
//! [`address`] names what is asked, [`request`] says it, [`transport`] brings it there and says it
//! again when that is safe, [`api`] and [`submit`] are the contract, [`events`] follows the log.
//! Deliberately absent: rules (the server has them), caching (an answer is true when it is given),
//! and HTTP/2 (one connection per waiting request is what the server counts).

mod address;
mod api;
mod events;
mod request;
pub mod sse;
mod submit;
mod transport;

pub use events::{EventFilter, Events};

use crate::client::address::Address;
use crate::client::request::Request;
use crate::client::transport::{Key, Transport};
use domain::error::{Code, Error};
use domain::name::Name;
use domain::trace::TraceParent;
use protocol::key::Tenant;
use protocol::wire::{TenantList, TenantRef};
use reqwest::{Certificate, Method};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait of one request; a longer one is asked for in portions of this.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two requests of one wait, at least.
const BREATH: Duration = Duration::from_millis(100);
/// Bytes of one request's items when there are many; more are sent in several requests.
pub(crate) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Speaks to a server. Cloning shares its connections.
///
/// ```no_run
/// use chargehand::{Api, ApiRead, Client, Submission, TaskSpec};
/// # async fn run() -> Result<(), chargehand::Error> {
/// let client = Client::builder("http://127.0.0.1:7420").key("ch_…").build()?;
/// let spec = TaskSpec::new("double".parse()?, serde_json::json!({"n": 21}).into());
/// let task = client.task_submit(vec![Submission::new(spec)]).await?.remove(0)?;
/// let done = client.task_wait(task, std::time::Duration::from_secs(300)).await?;
/// println!("{:?}", done.output);
/// # Ok(())
/// # }
/// ```
///
/// A [`Worker`](crate::Worker) works through it as it does through an engine of its own process:
///
/// ```no_run
/// use chargehand::{Client, Context, Ended, Worker};
/// use std::sync::Arc;
/// # async fn run() -> Result<(), chargehand::Error> {
/// let client = Arc::new(Client::builder("https://crew.example.org/chargehand").build()?);
/// let worker = Worker::new("worker_1")?
///     .capacity(16)
///     .handle("echo", |task: Context| async move { Ended::done(task.input()) })?
///     .start(client)
///     .await?;
/// # worker.stop().await
/// # }
/// ```
///
/// # Waiting
/// A wait may be as long as one likes: beyond 60 s it is asked for in portions. Two are bounded
/// instead, because they do more than wait: a claim ([`Api::work`](crate::Api::work)) and
/// [`message_request`](crate::Api::message_request) wait 60 s at most. Claim again; the late answer
/// to a message comes with [`message_receive`](crate::Api::message_receive).
///
/// # Trying again
/// What may be said twice without being done twice is said again after a broken connection, a
/// gateway's error or a refusal for load: reading, setting, heartbeats, reports, claims with a
/// number, and whatever makes something, which goes with an idempotency key. The rest
/// (`task_redrive`, `task_reassign`, `run_retry`, `credential_create`, `message_request`, claims
/// without a number, `pool_define` with an expected version) is said again only when it certainly
/// did not arrive or was refused for load.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    trace: Option<TraceParent>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.transport.address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at this address, such as `http://127.0.0.1:7420`; a path before the
    /// server's own is fine.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            key: None,
            certificate: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            quiet: Duration::from_secs(60),
            answer_bytes_max: 256 * 1024 * 1024,
        }
    }

    /// The same client, whose requests belong to a trace: they carry it as `traceparent`, and what
    /// they make belongs to it.
    ///
    /// ```no_run
    /// # fn run(client: &chargehand::Client) -> Result<(), chargehand::Error> {
    /// let traced = client.on_behalf("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_behalf(&self, trace: TraceParent) -> Self {
        Self {
            transport: Arc::clone(&self.transport),
            trace: Some(trace),
        }
    }

    /// The tenants of the server: for an admin of its default tenant.
    ///
    /// # Errors
    /// The server's own.
    pub async fn tenant_list(&self) -> Result<Vec<Tenant>, Error> {
        let list: TenantList = self.ask(self.get(&["v1", "tenants"])?).await?;
        list.items.iter().map(|item| item.tenant.parse()).collect()
    }

    /// Makes a tenant; one that is there already stays as it is.
    ///
    /// # Errors
    /// The server's own.
    pub async fn tenant_create(&self, tenant: &Tenant) -> Result<(), Error> {
        let tenant = Name::new(tenant.as_str())?;
        let request = self.post(&["v1", "tenants"])?;
        self.tell(request.json(&TenantRef { tenant })?).await
    }

    /// Follows the log from the event after this position, without a gap or a repeat, over broken
    /// connections and restarts of the server.
    ///
    /// ```no_run
    /// # async fn run(client: chargehand::Client) -> Result<(), chargehand::Error> {
    /// use chargehand::EventFilter;
    /// let mut events = client.events(0, EventFilter::types(["task.completed", "run.*"]));
    /// while let Some(event) = events.next().await {
    ///     println!("{}", event?.event.name());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self, after: u64, filter: EventFilter) -> Events {
        Events::new(self.clone(), after, filter)
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<Request, Error> {
        Ok(Request::new(method, self.transport.address.path(path)?))
    }

    fn get(&self, path: &[&str]) -> Result<Request, Error> {
        self.request(Method::GET, path)
    }

    fn post(&self, path: &[&str]) -> Result<Request, Error> {
        self.request(Method::POST, path)
    }

    fn put(&self, path: &[&str]) -> Result<Request, Error> {
        self.request(Method::PUT, path)
    }

    fn delete(&self, path: &[&str]) -> Result<Request, Error> {
        self.request(Method::DELETE, path)
    }

    /// For an answer.
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        let (status, answer) = self.transport.send(&request, self.trace).await?;
        serde_json::from_slice(&answer)
            .map_err(|fault| self.transport.strange(status, &answer, Some(&fault)))
    }

    /// For nothing but that it is done.
    async fn tell(&self, request: Request) -> Result<(), Error> {
        self.transport.send(&request, self.trace).await.map(drop)
    }
}

/// A client to be.
#[derive(Clone)]
pub struct ClientBuilder {
    url: String,
    key: Option<String>,
    certificate: Option<PathBuf>,
    timeout: Duration,
    connect_timeout: Duration,
    patience: Duration,
    quiet: Duration,
    answer_bytes_max: usize,
}

impl std::fmt::Debug for ClientBuilder {
    /// With nothing that could be secret: an address may have a password in it by mistake.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// The key to show with every request. It is never shown otherwise.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// A PEM file of certificates to trust besides the system's, for a server whose own is not
    /// publicly signed.
    #[must_use]
    pub fn root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.certificate = Some(path.into());
        self
    }

    /// How long an answer may take, beyond what the request itself waits: 10 s unless said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a connection may take: 5 s unless said.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request is tried again, beyond what it itself waits: 30 s unless said, four
    /// times at most.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a stream of events may be silent before it is opened anew: 60 s unless said. The
    /// server says something more often than that.
    #[must_use]
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Bytes of one answer, or of one event, at most: 256 MiB unless said.
    #[must_use]
    pub fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Code::OutOfRange`] when the address is not one of an HTTP server,
    /// [`Code::KeyRefused`] when the key cannot be one, [`Code::Certificate`] when the file cannot
    /// be read or has no certificate.
    pub fn build(self) -> Result<Client, Error> {
        let address = Address::parse(&self.url)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("chargehand/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .http1_only()
            // An answer from elsewhere is not the server's, and the key is for the server alone.
            .redirect(reqwest::redirect::Policy::none())
            // What is safe to repeat is known here, not there.
            .retry(reqwest::retry::never());
        if address.is_loopback() {
            http = http.no_proxy();
        }
        if let Some(path) = &self.certificate {
            http = http.tls_certs_merge(certificates(path)?);
        } else if !address.is_https() {
            // Without TLS no certificate is ever looked at; the system's need not be there.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|fault| {
            let text = format!("no HTTP client can be made: {}", transport::cause(&fault));
            Error::new(Code::Certificate, text).hint(
                "Check the system's certificates, and the file of further ones if one was named.",
            )
        })?;
        let key = self.key.map(Key::new).transpose()?;
        Ok(Client {
            transport: Arc::new(Transport {
                http,
                address,
                key,
                timeout: self.timeout,
                patience: self.patience,
                quiet: self.quiet,
                answer_bytes_max: self.answer_bytes_max,
            }),
            trace: None,
        })
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate>, Error> {
    let refused = |fault: String| {
        let text = format!("{}: {fault}", path.display());
        Error::new(Code::Certificate, text).hint("Name a PEM file of root certificates.")
    };
    let pem = std::fs::read(path).map_err(|fault| refused(fault.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|fault| refused(fault.to_string()))?;
    if found.is_empty() {
        return Err(refused("there is no certificate in it".into()));
    }
    Ok(found)
}

/// A random text that nobody else chooses: 128 bits.
pub(crate) fn random() -> String {
    let mut bits = [0; 16];
    // Without the system's chance there is still the time, which no two calls of one process share.
    if getrandom::fill(&mut bits).is_err() {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        bits = since.map_or(0, |since| since.as_nanos()).to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bits))
}

/// A pause before the `n`th repetition: 100 ms, doubled each time up to 5 s, of which chance takes
/// up to half, so that many who were cut off together do not come back together.
pub(crate) fn backoff(base: Duration, n: u32) -> Duration {
    let whole = base
        .saturating_mul(1 << n.min(10))
        .min(Duration::from_secs(5).max(base));
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    whole.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
}

/// A wait, asked for in portions that a server takes, until it is over.
pub(crate) struct Wait {
    until: Instant,
    asked: Option<Instant>,
}

impl Wait {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            // Longer than anything lives.
            until: Instant::now() + wait.min(Duration::from_secs(100 * 365 * 86_400)),
            asked: None,
        }
    }

    /// The next portion, in whole milliseconds; none when the wait is over. There is a first one
    /// even of no wait.
    pub(crate) async fn portion(&mut self) -> Option<Portion> {
        if let Some(asked) = self.asked {
            // A server that is about to stop answers at once.
            tokio::time::sleep_until((asked + BREATH).min(self.until)).await;
        }
        let now = Instant::now();
        let left = self.until.saturating_duration_since(now).min(WAIT_MAX);
        let ms = left.as_micros().div_ceil(1_000) as u64;
        if self.asked.replace(now).is_some() && ms == 0 {
            return None;
        }
        Some(Portion { ms })
    }
}

/// A part of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) ms: u64,
}

impl Portion {
    pub(crate) fn time(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_wait_is_asked_for_in_portions() {
        tokio::time::pause();
        let mut wait = Wait::new(Duration::from_millis(150_500));
        let mut portions = Vec::new();
        while let Some(portion) = wait.portion().await {
            portions.push(portion.ms);
            // The second is answered early: a server may wait for less.
            let answered = if portions.len() == 2 {
                10_000
            } else {
                portion.ms
            };
            tokio::time::sleep(Duration::from_millis(answered)).await;
        }
        assert_eq!(portions[..3], [60_000, 60_000, 60_000]);
        // A timer rings up to a millisecond late.
        assert!(portions.len() == 4 && (20_490..=20_500).contains(&portions[3]));
    }

    #[tokio::test]
    async fn a_server_that_does_not_wait_is_not_asked_all_the_time() {
        tokio::time::pause();
        let mut wait = Wait::new(Duration::from_secs(1));
        let mut count = 0;
        while wait.portion().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 10);
        let mut none = Wait::new(Duration::ZERO);
        assert_eq!(none.portion().await, Some(Portion { ms: 0 }));
        assert_eq!(none.portion().await, None);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let base = Duration::from_millis(100);
        for n in 0..40 {
            let whole = Duration::from_millis((100 << n.min(10)).min(5_000));
            let pause = backoff(base, n);
            assert!((whole / 2..=whole).contains(&pause), "{n}: {pause:?}");
        }
    }

    #[test]
    fn random_texts_differ() {
        assert_ne!(random(), random());
    }
}
