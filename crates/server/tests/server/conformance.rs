//! What the contract promises, promised over HTTP too: the same suite, through the client, a
//! and a listener.

use chargehand::Client;
use engine::Place;
use protocol::Api;
use server::config::Config;
use server::serve::Server;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server that lives as long as this.
pub(crate) struct Served {
    _stop: oneshot::Sender<()>,
    _serving: JoinHandle<()>,
}

/// A fresh server in memory, and its client.
async fn over_http() -> (Arc<dyn Api>, Served) {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        store: Place::Memory,
        ..Config::default()
    };
    let server = Server::open(&config, Vec::new()).await.unwrap();
    // Without a key: the first event of the log is to be the suite's own.
    let client = Client::builder(server.url());
    let (stop, stopping) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stop = async {
            let _ = stopping.await;
        };
        server.run(stop).await.unwrap();
    });
    let served = Served {
        _stop: stop,
        _serving: serving,
    };
    (Arc::new(client.build().unwrap()), served)
}

protocol::conformance!(http, over_http());
