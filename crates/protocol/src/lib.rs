//! The one contract. [`Api`](api::Api) is all that supervisors, workers, command line and tests know
//! of an engine; it is implemented in the engine's own process, and over HTTP by a client, and one
//! suite runs against both.
//!
//! [`v1`] has the forms that people and programs outside see. Inside a request the domain's own
//! plain types travel as they are.

pub mod api;
pub mod conformance;
pub mod key;
pub mod problem;
pub mod speech;
pub mod v1;
pub mod wire;

pub use api::{Api, ApiRead};
pub use domain::error::{Code, Error};
