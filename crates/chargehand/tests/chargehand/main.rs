//! The client against a server that answers what a test says, and a worker over HTTP against a real
//! engine. What the contract promises is proved elsewhere, over the real server.

mod contract;
mod following;
mod script;
mod tls;
mod transport;
mod working;
