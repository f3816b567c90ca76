//! The server over real sockets, as its clients see it.

mod conformance;
mod listen;
mod traces;
