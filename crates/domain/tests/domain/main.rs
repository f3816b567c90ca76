//! What the pure core does, told from outside: commands in, events and rows out. Expectations are
//! worked out by hand from the rules, never copied from a run.

mod board;
mod bounds;
mod budget;
mod features;
mod graphs;
mod invariants;
mod monitor;
mod records;
mod transitions;
mod world;
