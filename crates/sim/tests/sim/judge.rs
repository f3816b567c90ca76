//! The judge can say no.
