//! Turns of the wheel.
//!
//! One thread owns the store and turns the [wheel](wheel): everything that arrived while the last
//! commit ran goes into the next one. Each duty is a small module with a `tick` that looks at the
//! store and answers with requests, never with changes of its own: [`dispatch`] gives waiting
//! workers their tasks and asks running work to yield, [`timers`] looks at what is due, [`rescue`]
//! takes tasks from the dead, [`retain`] forgets what was kept long enough, [`relay`] tells the
//! outside what was committed.
//!
//! [`Engine`] is the handle, and the in-process [`Api`](protocol::Api). Deliberately absent: rules
//! (they are in `domain`), SQL (in `store`), HTTP.

mod api;
pub mod ask;
mod clock;
mod dispatch;
pub mod keyring;
mod open;
pub mod postbox;
pub mod pulse;
pub mod relay;
mod rescue;
mod retain;
mod speech;
pub mod tail;
mod timers;
pub mod wheel;

pub use clock::{Clock, SystemIds};
pub use keyring::Keyring;
pub use open::{Engine, Place, Settings};
pub use rescue::Hearts;
