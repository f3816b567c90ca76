//! One server: its tenants, its gate, its application, its listener, from start to orderly end.

use crate::auth::{Gate, Rate};
use crate::config::Config;
use crate::http::{self, App, Skill};
use crate::listen::{self, Drained, Listener};
use crate::tenants::Tenants;
use crate::traces::{self, Traces};
use domain::error::{Code, Error};
use domain::state::Quotas;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A server that is ready to accept.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    tls: Option<listen::Tls>,
    limits: listen::Limits,
    tenants: Arc<Tenants>,
    app: Arc<App>,
    traces: Option<Traces>,
}

impl Server {
    /// Opens the stores and takes the address; nothing is served yet.
    ///
    /// # Errors
    /// A store's own, the certificate's, the address's; [`Code::ListenOpen`] when it would let
    /// everybody in on an address that others can reach.
    pub async fn open(config: &Config, skills: Vec<Skill>) -> Result<Self, Error> {
        let tls = match config.tls.files() {
            Some((certificate, key)) => Some(listen::Tls::load(certificate, key)?),
            None => None,
        };
        let number = |n: Option<std::num::NonZeroU32>| n.map(|n| u64::from(n.get()));
        let quotas = Quotas {
            tasks_open: number(config.quotas.tasks_open),
            runs_open: number(config.quotas.runs_open),
            workers: number(config.quotas.workers),
        };
        let place = config.store.clone();
        let began = traces::now();
        let opened = tokio::task::spawn_blocking(move || Tenants::open(place, quotas)).await;
        let broken = |_| Error::new(Code::Internal, "opening the stores broke off");
        let tenants = Arc::new(opened.map_err(broken)??);
        if !config.listen.ip().is_loopback() && !tenants.has_keys() {
            let text = format!(
                "{} can be reached from elsewhere, and there is no key",
                config.listen
            );
            return Err(Error::new(Code::ListenOpen, text));
        }
        let listener = Listener::bind(config.listen).await?;
        let limits = &config.limits;
        let rate = limits.requests_per_second.map(|per_second| Rate {
            per_second,
            burst: limits.requests_burst.unwrap_or(per_second),
        });
        let bounds = http::Limits {
            body_bytes: limits.body_bytes as usize,
            wait: seconds(limits.wait_seconds),
            streams: limits.streams as usize,
            lag_events: limits.stream_events.into(),
        };
        let gate = Gate::new(Arc::clone(&tenants), rate);
        let app = App::new(gate, bounds, skills, &config.cors.origins);
        app.metrics().follow(listener.counts());
        let spans = app.metrics().spans.clone();
        let traces = Traces::start(&config.telemetry, &tenants, began, spans)?;
        Ok(Self {
            listener,
            tls,
            limits: listen::Limits {
                connections_max: limits.connections as usize,
                head_bytes_max: limits.header_bytes as usize,
                head_time: seconds(limits.header_seconds),
                body_time: seconds(limits.body_seconds),
                idle_time: seconds(limits.idle_seconds),
                handshake_time: seconds(limits.tls_seconds),
                stall_time: seconds(limits.write_stall_seconds),
                drain_time: seconds(limits.drain_seconds),
            },
            tenants,
            app,
            traces,
        })
    }

    /// The address with the port that was really taken.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Where it is, for a browser or a client.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Its tenants.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Serves until `shutdown` resolves; then what runs may finish within the drain time, what is
    /// behind is written, and the stores are closed. The last spans have five seconds to go.
    ///
    /// # Errors
    /// A store could not be closed; what is behind is still in its log.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, Error> {
        let router = http::router(self.app);
        let drained = listen::serve(self.listener, self.tls, router, self.limits, shutdown).await;
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        let tenants = self.tenants;
        let stopped = tokio::task::spawn_blocking(move || tenants.stop()).await;
        stopped.unwrap_or_else(|_| Err(Error::new(Code::Internal, "closing broke off")))?;
        Ok(drained)
    }
}

fn seconds(n: u32) -> Duration {
    Duration::from_secs(n.into())
}
