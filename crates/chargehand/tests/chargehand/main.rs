//! The client against a server that answers what a test says. What the contract promises is proved
//! elsewhere, over the real server.

mod contract;
mod following;
mod script;
mod tls;
mod transport;
