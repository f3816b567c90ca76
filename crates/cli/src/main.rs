//! The chargehand command line.
fn main() {}
