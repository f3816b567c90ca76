//! The library users depend on: worker runtime, handlers and context.
