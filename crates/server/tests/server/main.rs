//! The server over real sockets, as its clients see it.

mod api;
mod conformance;
mod listen;
mod traces;
