//! Tools: what agents may do beside talking.
//!
//! Deliberately absent for now: the tools themselves.

use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// The names of the built-in tools.
pub const BUILT_IN: &[&str] = &[
    "board.search",
    "board.write",
    "files.list",
    "files.read",
    "files.search",
    "http.fetch",
];

/// A schema, ready to check values. It refers to nothing outside of itself, and its patterns cannot
/// take more than linear time.
pub(crate) fn compiled(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
}
