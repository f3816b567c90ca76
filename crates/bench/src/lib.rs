//! The limit harness and the load generator.
