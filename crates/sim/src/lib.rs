//! The whole product from one seed: clock, disk, wheel, workers and callers, without a thread.
//!
//! [`scenario`] says what is wanted, [`world`] lets it happen to the very wheel that turns in
//! production, [`fault`] breaks the disk and the process on the way, and [`check`] judges what is
//! left, by its own rules. The same seed always gives the same log.
//!
//! Deliberately absent: real time, real processes and real disks (the tests that kill those are
//! elsewhere), and any rule of the product: it is driven here, not described again, except by the
//! judge.

pub mod check;
pub mod fault;
pub mod scenario;
mod worker;
pub mod world;
