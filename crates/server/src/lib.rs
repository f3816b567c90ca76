//! Faces over one contract: everything that speaks HTTP.
//!
//! A request comes in over a [listener](listen) that bounds what a peer can take (connections, time,
//! bytes), is matched to a tenant and a key, becomes a call of [`Api`](protocol::Api), and its answer
//! or [`Error`](domain::error::Error) goes back as JSON. Deliberately absent: rules about what may
//! happen (they are in `domain`) and SQL (in `store`).

pub mod auth;
pub mod config;
mod docs;
pub mod http;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod secret;
pub mod serve;
pub mod tenants;
mod traces;
