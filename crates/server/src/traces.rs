//! Traces, for a collector that speaks OTLP over HTTP; off unless one is configured.
//!
//! One trace follows a run: the run, below it its tasks, below each its attempts, and below an attempt
//! whatever its worker adds, in whichever process. Nobody has to be instrumented for that. Spans are
//! made from the [log](trail), when something ends, and their ids are [derived](domain::trace) from
//! the ids of what they are about. So a span does not care which process saw the beginning, a worker
//! is told the id of the span above its own before that span exists, and an engine never waits for a
//! collector: it does not know that there is one.
//!
//! The log is the queue. A follower that has no room to put a span [waits](send) and reads on later;
//! only while the collector does not answer, or the follower is far behind, are spans dropped, and
//! counted (`chargehand_trace_spans_dropped_total`).
//!
//! Deliberately absent: a position on disk. A server follows its log from when it started; what was
//! not yet sent when its process was killed is in the log and in no trace. Absent too: inputs, outputs
//! and goals, which are nobody's business but the tenant's, and spans of HTTP requests, which the
//! metrics have.

mod send;
mod trail;

use crate::config::Telemetry;
use crate::tenants::Tenants;
use domain::error::{Code, Error};
use domain::time::Time;
use engine::Engine;
use prometheus_client::metrics::counter::Counter;
use protocol::key::Tenant;
use send::Outlet;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use trail::Trail;

/// How long what has ended may take to reach the collector when the server stops.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(5);
/// Between two looks for tenants that were made meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// Events before the end of the log in which a follower looks for what opening the store has done.
const LOOKBACK: u64 = 4_096;
/// A follower that is further behind drops spans rather than to wait for room.
const BEHIND_MAX: u64 = 100_000;

/// What became of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// The collector took them.
    pub(crate) sent: Counter,
    /// There was no room, or the collector did not take them.
    pub(crate) dropped: Counter,
}

/// What makes and sends spans, while the server runs. Dropped, it stops at once.
#[derive(Debug)]
pub(crate) struct Traces {
    stop: watch::Sender<bool>,
    following: JoinSet<()>,
    sending: JoinHandle<()>,
}

/// Now, as the engines count it.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |since| since.as_millis() as u64))
}

impl Traces {
    /// Follows these tenants, if there is a collector: what has happened since the server `began` to
    /// open their stores.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] when nothing can be sent as the settings are.
    pub(crate) fn start(
        settings: &Telemetry,
        tenants: &Arc<Tenants>,
        began: Time,
        counts: Counts,
    ) -> Result<Option<Self>, Error> {
        let Some(endpoint) = &settings.otlp_endpoint else {
            return Ok(None);
        };
        let exporter = send::exporter(endpoint, &settings.service_name).map_err(|fault| {
            let text = format!("traces cannot be sent: {fault}");
            Error::new(Code::ConfigInvalid, text)
                .hint("Look at telemetry.otlp_endpoint and the variables OTEL_….")
        })?;
        let (outlet, sending) = send::start(exporter, counts);
        let (stop, stopping) = watch::channel(false);
        let mut following = JoinSet::new();
        following.spawn(follow_all(Arc::clone(tenants), began, outlet, stopping));
        Ok(Some(Self {
            stop,
            following,
            sending,
        }))
    }

    /// Sends what has ended until now, for [`STOP_TIME`] at most.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(true);
        let all = async {
            while self.following.join_next().await.is_some() {}
            // The last follower is gone, and with it the last way into the queue.
            let _ = (&mut self.sending).await;
        };
        if tokio::time::timeout(STOP_TIME, all).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// Follows every tenant, those that come later included, until the server stops.
async fn follow_all(
    tenants: Arc<Tenants>,
    began: Time,
    outlet: Outlet,
    mut stopping: watch::Receiver<bool>,
) {
    let mut known = BTreeSet::<Tenant>::new();
    let mut followers = JoinSet::new();
    loop {
        // What was made before the stop has its last events followed too.
        let stop = *stopping.borrow_and_update();
        let first = known.is_empty();
        for engine in tenants.all() {
            if known.insert(engine.tenant().clone()) {
                let follower = Follower::new(engine, first, began, outlet.clone());
                followers.spawn(follower.run(stopping.clone()));
            }
        }
        if stop {
            break;
        }
        tokio::select! {
            changed = stopping.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    while followers.join_next().await.is_some() {}
}

struct Follower {
    trail: Trail,
    engine: Engine,
    /// Everything up to here was looked at.
    position: u64,
    /// Up to here there may be events from before the server began.
    old: u64,
    began: Time,
    outlet: Outlet,
}

impl Follower {
    /// `first`: the tenant was there when the server began.
    fn new(engine: Engine, first: bool, began: Time, outlet: Outlet) -> Self {
        let head = *engine.head().borrow();
        Self {
            trail: Trail::new(engine.clone()),
            engine,
            position: if first {
                head.saturating_sub(LOOKBACK)
            } else {
                0
            },
            old: head,
            began,
            outlet,
        }
    }

    /// Until the server stops and everything until then was looked at, or the engine has stopped.
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut heads = self.engine.head();
        loop {
            let stop = *stopping.borrow_and_update();
            let head = *heads.borrow_and_update();
            while self.position < head {
                if let Err(error) = self.look(head).await {
                    tracing::error!(%error, "traces cannot follow the log");
                    return;
                }
            }
            if stop {
                return;
            }
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                changed = stopping.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&mut self, head: u64) -> Result<(), Error> {
        let chunk = self.engine.chunk(self.position).await?;
        if chunk.last() <= self.position {
            // Nothing is there, whatever the head says.
            self.position = head;
        }
        for (recorded, _) in chunk.after(self.position) {
            self.position = recorded.position;
            if recorded.position <= self.old && recorded.at < self.began {
                continue;
            }
            let far = head.saturating_sub(recorded.position) > BEHIND_MAX;
            for span in self.trail.fold(recorded).await {
                self.outlet.put(span, far).await;
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}
