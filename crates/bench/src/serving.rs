//! The measured sides of the network, each a process of its own: the server over a new store, and
//! the limit `N`, the same listener and router with nothing behind them.

use crate::children::{Process, Role, runtime, tell, wait_for_parent};
use crate::http::{Head, hammer};
use crate::limits::Loop;
use crate::measure::{io, us};
use axum::routing::post;
use axum::{Json, Router};
use domain::credential::Scope;
use domain::error::{Code, Error};
use domain::name::Name;
use engine::Place;
use protocol::Api as _;
use protocol::api::NewCredential;
use protocol::key::Tenant;
use serde::{Deserialize, Serialize};
use server::config::Config;
use server::listen::{Limits, Listener};
use server::serve::Server;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Connections that send at once.
pub(crate) const CONNECTIONS: usize = 64;
/// Connections that a measured server takes: the subscribers of the widest scenario, and some.
const CONNECTIONS_MAX: u32 = 2_048;
/// A child that serves is there after this, or never.
pub(crate) const START_TIME_MAX: Duration = Duration::from_secs(30);

/// What a child that serves tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    /// A key that may submit and work; the echo has none.
    pub(crate) key: String,
}

/// What the echo reads: as long as a submission.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    kind: String,
    input: String,
}

/// What the echo answers: as long as a task's id.
#[derive(Debug, Serialize, Deserialize)]
struct Echoed {
    task_id: String,
}

/// Input of a measured task: about a hundred bytes.
pub(crate) fn input() -> String {
    "Analyze the sentiment of this review: it came a day late, but it works and looks very good."
        .into()
}

/// As many threads as the real server's runtime has.
fn threads() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|fault| io("a server's runtime", &fault))
}

/// Resolves when the parent wants this process to end.
async fn parent_is_done() {
    // Its own thread: a runtime's would be waited for at the end.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        wait_for_parent();
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

/// The server, in a child.
pub(crate) fn serve(folder: PathBuf) -> Result<(), Error> {
    files_raise();
    threads()?.block_on(async {
        let mut config = Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            store: Place::Folder(folder),
            ..Config::default()
        };
        config.limits.connections = CONNECTIONS_MAX;
        config.limits.streams = CONNECTIONS_MAX;
        let server = Server::open(&config, Vec::new()).await?;
        let engine = server.tenants().get(&Tenant::default());
        let engine = engine.ok_or_else(|| Error::new(Code::Internal, "no default tenant"))?;
        let minted = engine
            .credential_create(NewCredential {
                label: Name::literal("bench"),
                scopes: vec![Scope::Reader, Scope::Submitter, Scope::Worker],
                ttl_ms: None,
            })
            .await?;
        tell(&Serving {
            address: server.address(),
            key: minted.key,
        })?;
        server.run(parent_is_done()).await.map(|_| ())
    })
}

/// The echo, in a child.
pub(crate) fn echo() -> Result<(), Error> {
    threads()?.block_on(async {
        let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        tell(&Serving {
            address: listener.local_addr(),
            key: String::new(),
        })?;
        let answer = |Json(call): Json<Call>| async move {
            // Something of what was read, so that it has to be read.
            let task_id = format!("task_{:026}", call.kind.len() + call.input.len());
            Json(Echoed { task_id })
        };
        let router = Router::new().route("/v1/tasks", post(answer));
        let limits = Limits::default();
        server::listen::serve(listener, None, router, limits, parent_is_done()).await;
        Ok(())
    })
}

/// Asks for as many open files as this process may have, and says how many that is.
pub(crate) fn files_raise() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let now = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

/// The limit `N`, ready to be measured.
pub(crate) struct Echo {
    process: Process,
    serving: Serving,
    runtime: Runtime,
}

impl Echo {
    pub(crate) fn start() -> Result<Self, Error> {
        let (process, serving) = Process::start(&Role::Echo, START_TIME_MAX)?;
        Ok(Self {
            process,
            serving,
            runtime: runtime()?,
        })
    }

    pub(crate) fn measure(&self, time: Duration) -> Result<Loop, Error> {
        let call = Call {
            kind: "noop".into(),
            input: input(),
        };
        let body = serde_json::to_vec(&call)
            .map_err(|fault| Error::new(Code::Internal, fault.to_string()))?;
        // As long a key as the server gives out, although nobody looks at it.
        let key = "chk_default_00000000000000000000000000_0000000000000000000000000000000000000000";
        let request = Head::new("POST", "/v1/tasks", key).request(&body);
        let shown = self.process.shown();
        let before = shown.cpu();
        let hammering = hammer(self.serving.address, CONNECTIONS, request, time);
        let hammered = self.runtime.block_on(hammering)?;
        let spent = shown
            .cpu()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        if hammered.errors > 0 || hammered.answered == 0 {
            let text = format!("{} requests to the echo failed", hammered.errors);
            return Err(Error::new(Code::Internal, text));
        }
        Ok(Loop {
            per_second: hammered.answered as f64 / hammered.seconds.max(f64::EPSILON),
            cpu_us: spent.map(|spent| us(spent) / hammered.answered as f64),
            us: hammered.us,
        })
    }
}
