//! The engine through its `Api`: one binary, a module for each way to look at it.

mod api;
