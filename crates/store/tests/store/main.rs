//! The store's tests: one binary, a module for each way a store can disappoint.

mod backup;
mod chain;
mod claims;
mod conformance;
mod differential;
mod faults;
mod fixtures;
mod opening;
mod world;
