//! The whole contract, over the real server.

use chargehand::{Api, Client};
use engine::Place;
use server::config::Config;
use server::serve::Server;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A server with nothing in it, and what stops it when it is dropped.
async fn served() -> (Arc<dyn Api>, oneshot::Sender<()>) {
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        store: Place::Memory,
        ..Config::default()
    };
    let server = Server::open(&config, Vec::new()).await.unwrap();
    let client = Client::builder(server.url()).build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async move { drop(stopped.await) }));
    (Arc::new(client), stop)
}

protocol::conformance!(over_http, served());
