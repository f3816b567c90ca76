//! What the server counts, in OpenMetrics text, or in the older text of Prometheus, which most tools
//! read when they ask for nothing else.
//!
//! Names end in their unit or in `_total`; labels are bounded: routes are the patterns of the API,
//! never what somebody typed, and tenants are at most [`TENANTS_MAX`](crate::tenants::TENANTS_MAX).
//! What the engines know is read when somebody asks, so that counting costs nothing meanwhile.

use crate::listen::Counts;
use crate::tenants::Tenants;
use crate::traces;
use axum::http::{Method, StatusCode};
use domain::error::Error;
use domain::worker::WorkerStatus;
use engine::Engine;
use engine::pulse::{BUCKETS, Histogram as Pulses};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use protocol::ApiRead as _;
use protocol::key::Tenant;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Seconds: from a tenth of a millisecond to a minute and a half.
const SECONDS: [f64; 12] = [
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 90.0,
];

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    tenants: Arc<Tenants>,
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    pub(crate) streams: Gauge,
    pub(crate) streamed: Counter,
    pub(crate) lags: Counter,
    pub(crate) spans: traces::Counts,
    connections: OnceLock<Arc<Counts>>,
}

impl Metrics {
    pub(crate) fn new(tenants: Arc<Tenants>) -> Self {
        let mut registry = Registry::with_prefix("chargehand");
        let requests = Family::<Request, Counter>::default();
        let new = (|| Histogram::new(SECONDS)) as fn() -> Histogram;
        let durations = Family::<Route, Histogram, _>::new_with_constructor(new);
        let (streams, streamed, lags) = (Gauge::default(), Counter::default(), Counter::default());
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer's, waits included",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "streams_open",
            "Event and worker streams open",
            streams.clone(),
        );
        registry.register("stream_events", "Events sent in streams", streamed.clone());
        registry.register(
            "stream_lags",
            "Times a reader of a stream began to lag",
            lags.clone(),
        );
        let spans = traces::Counts::default();
        registry.register(
            "trace_spans_sent",
            "Spans that the collector took",
            spans.sent.clone(),
        );
        registry.register(
            "trace_spans_dropped",
            "Spans that the collector could not be given",
            spans.dropped.clone(),
        );
        Self {
            tenants,
            registry,
            requests,
            durations,
            streams,
            streamed,
            lags,
            spans,
            connections: OnceLock::new(),
        }
    }

    /// Counts connections too.
    pub fn follow(&self, counts: Arc<Counts>) {
        // A server listens once.
        let _ = self.connections.set(counts);
    }

    pub(crate) fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        let route = route.to_owned();
        let request = Request {
            method,
            route: route.clone(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&request).inc();
        self.durations
            .get_or_create(&Route { route })
            .observe(took.as_secs_f64());
    }

    /// All of it as text; of the tenants, this one only if it is named.
    ///
    /// # Errors
    /// A store's own.
    pub async fn text(&self, only: Option<&Tenant>) -> Result<String, Error> {
        let mut text = String::new();
        if only.is_none() {
            let _ = encode(&mut text, &self.registry);
            // The end mark comes after what follows.
            text = text.replace("# EOF\n", "");
            if let Some(counts) = self.connections.get() {
                connections(&mut text, counts);
            }
        }
        let mut engines = self.tenants.all();
        engines.retain(|engine| only.is_none_or(|only| engine.tenant() == only));
        of_engines(&mut text, &engines).await?;
        text.push_str("# EOF\n");
        Ok(text)
    }
}

/// The same in the text of Prometheus (0.0.4), where a counter is described under the name that its
/// samples have, and units and the end are not said.
pub(crate) fn plain(open: &str) -> String {
    let counters: BTreeSet<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, what) = (words.next(), words.next().unwrap_or_default());
        match (mark, what, words.next()) {
            (Some("#"), "UNIT" | "EOF", _) => {}
            (Some("#"), _, Some(name)) if counters.contains(name) => {
                let said = words.next().unwrap_or_default();
                let _ = writeln!(text, "# {what} {name}_total {said}");
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, unit: Option<&str>, help: &str) {
    let _ = writeln!(text, "# HELP chargehand_{name} {help}.");
    let _ = writeln!(text, "# TYPE chargehand_{name} {kind}");
    if let Some(unit) = unit {
        let _ = writeln!(text, "# UNIT chargehand_{name} {unit}");
    }
}

fn connections(text: &mut String, counts: &Counts) {
    let all = [
        (
            "connections_accepted",
            &counts.accepted,
            "Connections accepted",
        ),
        (
            "connections_refused",
            &counts.refused,
            "Connections refused because too many were open",
        ),
        (
            "connections_cut",
            &counts.cut,
            "Connections cut because a peer was too slow",
        ),
        (
            "tls_failures",
            &counts.tls_failed,
            "TLS handshakes that failed",
        ),
        (
            "accept_failures",
            &counts.accept_failed,
            "Times that accepting failed",
        ),
        (
            "handler_panics",
            &counts.panicked,
            "Defects that broke a request",
        ),
    ];
    for (name, count, help) in all {
        head(text, name, "counter", None, help);
        let _ = writeln!(text, "chargehand_{name}_total {}", count.load(Relaxed));
    }
    head(text, "connections_open", "gauge", None, "Connections open");
    let _ = writeln!(
        text,
        "chargehand_connections_open {}",
        counts.open.load(Relaxed)
    );
}

/// One line per tenant.
fn each(text: &mut String, name: &str, values: &[(Tenant, u64)]) {
    for (tenant, value) in values {
        let _ = writeln!(text, "chargehand_{name}{{tenant=\"{tenant}\"}} {value}");
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, pulses: &Pulses, scale: f64) {
    let counts = pulses.counts();
    let mut sum = 0;
    for (n, count) in counts.iter().enumerate().take(BUCKETS - 1) {
        sum += count;
        // Bucket n has what is below 2^n, so at most 2^n - 1; the least value is 0.
        let bound = ((1u64 << n) - 1) as f64 * scale;
        let _ = writeln!(
            text,
            "chargehand_{name}_bucket{{{labels},le=\"{bound:?}\"}} {sum}"
        );
    }
    sum += counts[BUCKETS - 1];
    let _ = writeln!(
        text,
        "chargehand_{name}_bucket{{{labels},le=\"+Inf\"}} {sum}"
    );
    let _ = writeln!(text, "chargehand_{name}_count{{{labels}}} {sum}");
    let total = pulses.sum() as f64 * scale;
    let _ = writeln!(text, "chargehand_{name}_sum{{{labels}}} {total:?}");
}

async fn of_engines(text: &mut String, engines: &[Engine]) -> Result<(), Error> {
    let mut statistics = Vec::new();
    for engine in engines {
        statistics.push((engine.tenant().clone(), engine.statistics().await?));
    }
    head(text, "tasks", "gauge", None, "Tasks by state");
    for (tenant, s) in &statistics {
        for (status, count) in [
            ("pending", s.tasks_pending),
            ("assigned", s.tasks_assigned),
            ("in_progress", s.tasks_in_progress),
            ("completed", s.tasks_completed),
            ("failed", s.tasks_failed),
            ("cancelled", s.tasks_cancelled),
        ] {
            let _ = writeln!(
                text,
                "chargehand_tasks{{tenant=\"{tenant}\",status=\"{status}\"}} {count}"
            );
        }
    }
    head(text, "runs_open", "gauge", None, "Runs that have not ended");
    let of = |value: fn(&protocol::v1::Statistics) -> u64| {
        let pair = |(tenant, s): &(Tenant, protocol::v1::Statistics)| (tenant.clone(), value(s));
        statistics.iter().map(pair).collect::<Vec<_>>()
    };
    each(text, "runs_open", &of(|s| s.runs_open));
    head(
        text,
        "log_position",
        "gauge",
        None,
        "Position of the last event",
    );
    each(text, "log_position", &of(|s| s.position));
    queues(text, engines).await?;
    workers(text, engines).await?;
    pulses(text, engines);
    Ok(())
}

async fn queues(text: &mut String, engines: &[Engine]) -> Result<(), Error> {
    /// Queues named in the metrics of one tenant; the rest are added up as `(other)`.
    const QUEUES_MAX: usize = 50;
    let (mut depths, mut ages) = (Vec::new(), Vec::new());
    for engine in engines {
        let (tenant, now) = (engine.tenant(), engine.now());
        for (n, queue) in engine.queue_list().await?.into_iter().enumerate() {
            if n >= QUEUES_MAX {
                break;
            }
            let first = engine.queue_peek(queue.queue.clone(), 1).await?;
            let age = first
                .first()
                .map_or(0, |task| now.since_ms(task.submitted_at));
            let name = queue.queue.replace('\\', "\\\\").replace('"', "\\\"");
            let labels = format!("tenant=\"{tenant}\",queue=\"{name}\"");
            depths.push((labels.clone(), queue.pending));
            ages.push((labels, age as f64 / 1_000.0));
        }
    }
    head(
        text,
        "queue_depth",
        "gauge",
        None,
        "Tasks that wait in a queue",
    );
    for (labels, depth) in depths {
        let _ = writeln!(text, "chargehand_queue_depth{{{labels}}} {depth}");
    }
    let help = "Age of the task that is next in a queue";
    head(text, "queue_age_seconds", "gauge", Some("seconds"), help);
    for (labels, age) in ages {
        let _ = writeln!(text, "chargehand_queue_age_seconds{{{labels}}} {age:?}");
    }
    Ok(())
}

async fn workers(text: &mut String, engines: &[Engine]) -> Result<(), Error> {
    head(text, "workers", "gauge", None, "Workers by status");
    for engine in engines {
        let all = protocol::api::worker_list_all(engine).await?;
        for status in [
            WorkerStatus::Unknown,
            WorkerStatus::Available,
            WorkerStatus::Busy,
            WorkerStatus::Draining,
            WorkerStatus::Unavailable,
            WorkerStatus::Error,
        ] {
            let count = all.iter().filter(|worker| worker.status == status).count();
            let (tenant, status) = (engine.tenant(), status.as_str());
            let _ = writeln!(
                text,
                "chargehand_workers{{tenant=\"{tenant}\",status=\"{status}\"}} {count}"
            );
        }
    }
    Ok(())
}

fn pulses(text: &mut String, engines: &[Engine]) {
    let counter = |text: &mut String, name: &str, help: &str, value: &dyn Fn(&Engine) -> u64| {
        head(text, name, "counter", None, help);
        for engine in engines {
            let (tenant, value) = (engine.tenant(), value(engine));
            let _ = writeln!(
                text,
                "chargehand_{name}_total{{tenant=\"{tenant}\"}} {value}"
            );
        }
    };
    counter(text, "tasks_submitted", "Tasks accepted", &|e| {
        e.pulse().submitted.load(Relaxed)
    });
    counter(text, "claims", "Leases given out", &|e| {
        e.pulse().claims.load(Relaxed)
    });
    counter(
        text,
        "lease_losses",
        "Attempts whose worker was lost",
        &|e| e.pulse().lost.load(Relaxed),
    );
    counter(
        text,
        "reports_refused",
        "Reports that came too late or from another worker",
        &|e| e.pulse().refused.load(Relaxed),
    );
    head(
        text,
        "attempts",
        "counter",
        None,
        "Attempts that ended, by outcome",
    );
    for engine in engines {
        let (tenant, pulse) = (engine.tenant(), engine.pulse());
        for (outcome, count) in [
            ("succeeded", &pulse.completed),
            ("failed", &pulse.failed),
            ("timed_out", &pulse.timed_out),
            ("lost", &pulse.lost),
            ("released", &pulse.released),
        ] {
            let _ = writeln!(
                text,
                "chargehand_attempts_total{{tenant=\"{tenant}\",outcome=\"{outcome}\"}} {}",
                count.load(Relaxed)
            );
        }
    }
    head(
        text,
        "tasks_ready",
        "gauge",
        None,
        "Tasks that could be claimed at the last look",
    );
    let ready = |e: &Engine| (e.tenant().clone(), e.pulse().ready.load(Relaxed));
    each(
        text,
        "tasks_ready",
        &engines.iter().map(ready).collect::<Vec<_>>(),
    );
    head(
        text,
        "workers_waiting",
        "gauge",
        None,
        "Claims that wait for a task",
    );
    let parked = |e: &Engine| (e.tenant().clone(), e.pulse().parked.load(Relaxed));
    each(
        text,
        "workers_waiting",
        &engines.iter().map(parked).collect::<Vec<_>>(),
    );
    let seconds = Some("seconds");
    head(
        text,
        "attempt_duration_seconds",
        "histogram",
        seconds,
        "From lease to end of an attempt",
    );
    for engine in engines {
        let labels = format!("tenant=\"{}\"", engine.tenant());
        histogram(
            text,
            "attempt_duration_seconds",
            &labels,
            &engine.pulse().attempt_ms,
            1e-3,
        );
    }
    head(
        text,
        "commit_duration_seconds",
        "histogram",
        seconds,
        "From deciding to the disk's word",
    );
    for engine in engines {
        let labels = format!("tenant=\"{}\"", engine.tenant());
        histogram(
            text,
            "commit_duration_seconds",
            &labels,
            &engine.pulse().commit_us,
            1e-6,
        );
    }
    head(
        text,
        "commit_requests",
        "histogram",
        None,
        "Requests that shared a commit",
    );
    for engine in engines {
        let labels = format!("tenant=\"{}\"", engine.tenant());
        histogram(
            text,
            "commit_requests",
            &labels,
            &engine.pulse().commit_requests,
            1.0,
        );
    }
}
