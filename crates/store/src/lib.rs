//! The truth: the only SQL, one port, one apply.
