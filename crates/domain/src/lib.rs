//! What may happen, and nothing else.
//!
//! Every rule of Chargehand lives here as a synchronous function without IO:
//! [`decide`](decide::decide) takes the rows a [`Command`](command::Command) names and answers
//! with events or a rejection; [`Row::evolve`](state::Row::evolve) folds an event into the one row
//! it is given. The same two functions run live, in recovery, in the simulator and in the property
//! tests, so there is one place to read when you ask "can this happen?".
//!
//! Deliberately absent: clocks (time is an argument), randomness (chance is an argument), SQL,
//! HTTP, async. A crate that wants to know a rule calls a function here; it never re-states it.

pub mod attempt;
pub mod blackboard;
pub mod budget;
pub mod command;
pub mod credential;
pub mod decide;
pub mod demand;
pub mod error;
pub mod event;
pub mod expr;
pub mod graph;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod monitor;
pub mod name;
pub mod pool;
mod priority;
pub mod queue;
pub mod record;
pub mod retry;
pub mod run;
#[cfg(feature = "schema")]
mod schema;
pub mod state;
pub mod statistics;
pub mod task;
pub mod time;
pub mod trace;
pub mod worker;
