//! The way of spans to the collector: a bounded queue and one sender.

use super::Counts;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use reqwest::redirect::Policy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Spans that wait to be sent.
pub(super) const QUEUED_MAX: usize = 2_048;
/// Spans in one request.
pub(super) const BATCH_MAX: usize = 512;
/// How long a span waits for others to share its request.
const GATHER: Duration = Duration::from_millis(500);
/// How long a request may take, with its repetitions.
const EXPORT_TIME: Duration = Duration::from_secs(10);
/// Where a collector takes traces, below its address.
const PATH: &str = "/v1/traces";

/// The whole address for a collector's, which may have been given with it.
fn address(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(PATH) {
        base.to_owned()
    } else {
        format!("{base}{PATH}")
    }
}

/// What encodes spans and posts them.
pub(super) fn exporter(endpoint: &str, service: &str) -> Result<SpanExporter, String> {
    let mut client = reqwest::Client::builder()
        .timeout(EXPORT_TIME)
        .redirect(Policy::none());
    if endpoint.starts_with("http://") {
        // Plain HTTP must work where the system has no certificates.
        client = client.tls_certs_only([]);
    }
    let client = client.build().map_err(|fault| fault.to_string())?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address(endpoint))
        .with_timeout(EXPORT_TIME)
        .build()
        .map_err(|fault: ExporterBuildError| fault.to_string())?;
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(version);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Where spans go. Cloning shares it; when the last is gone, the sender ends after what it has.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    queue: Sender<SpanData>,
    /// The last request failed.
    away: Arc<AtomicBool>,
    counts: Counts,
}

impl Outlet {
    /// Puts a span into the queue. While there is no room it waits, unless nobody knows for how long
    /// (the collector is away) or there is no time (`hurry`): then the span is dropped.
    pub(super) async fn put(&self, span: SpanData, hurry: bool) {
        let refused = if hurry || self.away.load(Relaxed) {
            self.queue.try_send(span).is_err()
        } else {
            self.queue.send(span).await.is_err()
        };
        if refused {
            self.counts.dropped.inc();
        }
    }
}

/// Starts the sender.
pub(super) fn start(exporter: SpanExporter, counts: Counts) -> (Outlet, JoinHandle<()>) {
    let (queue, queued) = channel(QUEUED_MAX);
    let away = Arc::new(AtomicBool::new(false));
    let sender = Sending {
        exporter,
        queued,
        away: Arc::clone(&away),
        counts: counts.clone(),
        dropped: 0,
    };
    let outlet = Outlet {
        queue,
        away,
        counts,
    };
    (outlet, tokio::spawn(sender.run()))
}

struct Sending {
    exporter: SpanExporter,
    queued: Receiver<SpanData>,
    away: Arc<AtomicBool>,
    counts: Counts,
    /// Spans dropped when the collector went away.
    dropped: u64,
}

impl Sending {
    async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queued.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH_MAX {
                let room = BATCH_MAX - batch.len();
                let more = timeout_at(until, self.queued.recv_many(&mut batch, room)).await;
                if more.unwrap_or(0) == 0 {
                    break;
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let sent = timeout(EXPORT_TIME, self.exporter.export(batch)).await;
        let fault = match sent {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault.to_string()),
            Err(_) => Some(format!("no answer in {} s", EXPORT_TIME.as_secs())),
        };
        let was_away = self.away.swap(fault.is_some(), Relaxed);
        match fault {
            None => {
                self.counts.sent.inc_by(count);
                if was_away {
                    let dropped = self.counts.dropped.get() - self.dropped;
                    tracing::info!(dropped, "the collector takes spans again");
                }
            }
            Some(fault) => {
                if !was_away {
                    // Once, until it is back: the counter tells the rest.
                    self.dropped = self.counts.dropped.get();
                    tracing::warn!(%fault, "the collector does not take spans; they are dropped");
                }
                self.counts.dropped.inc_by(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};

    fn span() -> SpanData {
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "task".into(),
            start_time: std::time::UNIX_EPOCH,
            end_time: std::time::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    #[test]
    fn the_collectors_address_is_said_as_the_standard_has_it() {
        for said in [
            "http://c:4318",
            "http://c:4318/",
            "http://c:4318/v1/traces",
            "http://c:4318/v1/traces/",
        ] {
            assert_eq!(address(said), "http://c:4318/v1/traces");
        }
        assert_eq!(address("https://c/otlp"), "https://c/otlp/v1/traces");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_what_does_not_fit_is_counted() {
        let (queue, mut queued) = channel(QUEUED_MAX);
        let outlet = Outlet {
            queue,
            away: Arc::new(AtomicBool::new(true)),
            counts: Counts::default(),
        };
        for _ in 0..QUEUED_MAX + 1_000 {
            outlet.put(span(), false).await;
        }
        assert_eq!(outlet.counts.dropped.get(), 1_000);
        assert_eq!(queued.len(), QUEUED_MAX);

        // While the collector answers, whoever has a span waits for room; in a hurry it does not.
        outlet.away.store(false, Relaxed);
        outlet.put(span(), true).await;
        assert_eq!(outlet.counts.dropped.get(), 1_001);
        let waiting = outlet.clone();
        let waiting = tokio::spawn(async move { waiting.put(span(), false).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        queued.recv().await.unwrap();
        waiting.await.unwrap();
        assert_eq!(outlet.counts.dropped.get(), 1_001);
    }
}
