//! The simulator's tests: many seeds, every crash point, two disks, and a judge that can say no.

mod bounds;
mod crash;
mod judge;
mod storm;
