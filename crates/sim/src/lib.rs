//! The whole product from one seed: virtual time, faulty store, crashing workers.
