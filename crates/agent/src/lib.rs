//! Where intelligence happens: offline skills, the planner and the supervisor.
//!
//! A skill is a worker without a model: it takes one item and gives a real
//! result, offline. This crate holds the way in ([`input`]), the built-in
//! skills ([`skill`]), a person's own program as a worker ([`command`]) and
//! the offline planner that maps a goal's words to a skill ([`plan`]).
//!
//! ```
//! let item = agent::input::read_inputs(&["-".into()], &mut "I love it.".as_bytes())?.remove(0);
//! let choice = agent::plan::choose("How do customers feel?", &[item]).unwrap();
//! assert_eq!(choice.skill.name(), "text.sentiment");
//! # Ok::<(), agent::input::InputError>(())
//! ```

pub mod assistant;
pub mod board;
pub mod command;
pub mod crew;
pub mod errors;
pub mod gate;
pub mod hands;
pub mod input;
pub mod mcp;
pub mod mind;
pub mod model;
pub mod monitor;
pub mod muster;
pub mod plan;
pub mod planning;
pub mod skill;
pub mod spending;
pub mod supervisor;
mod text;
pub mod tool;
mod voice;
pub mod worker;
