//! The store's tests: one binary, a module for each way a store can disappoint.

mod conformance;
mod differential;
mod faults;
mod opening;
mod world;
