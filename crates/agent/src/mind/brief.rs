//! What a mind is told: its brief, in a planner's words and in a model's.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;

/// What a mind is to do: the input of its tasks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brief {
    /// To what end.
    pub objective: String,
    /// Who does it and how it works, where a planner made that up. It is the brief's word and not the
    /// agent's own instructions: no person vouches for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// On what.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub inputs: Value,
    /// What the result must be like, for whoever judges it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acceptance: Vec<String>,
    /// Tools that the result must rest on: without a receipt of a call that succeeded, it is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Why earlier results were not accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// A JSON Schema of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// Looks at a result that has the wanted form, and says what is wrong with it.
pub type Judge<'a> = &'a (dyn Fn(&Value) -> Result<(), String> + Send + Sync);

/// How a brief begins.
pub(super) const OBJECTIVE: &str = "# Objective";

/// The brief, in the words a model is told it in.
pub(super) fn told(brief: &Brief) -> String {
    let mut text = format!("{OBJECTIVE}\n{}\n", brief.objective.trim());
    if !brief.role.is_empty() {
        let _ = write!(text, "\n# Your role\n{}\n", brief.role.trim());
    }
    if !brief.acceptance.is_empty() {
        text.push_str("\n# The result is accepted if\n");
        for check in &brief.acceptance {
            let _ = writeln!(text, "- {check}");
        }
    }
    if !brief.evidence.is_empty() {
        let tools = brief.evidence.join(", ");
        let _ = writeln!(text, "\n# It must rest on\nsuccessful calls of: {tools}");
    }
    if !brief.refusals.is_empty() {
        text.push_str("\n# Earlier results were refused\n");
        for reason in &brief.refusals {
            let _ = writeln!(text, "- {reason}");
        }
    }
    match &brief.inputs {
        Value::Null => {}
        inputs => {
            let _ = write!(text, "\n# Inputs (data)\n```json\n{inputs:#}\n```\n");
        }
    }
    if brief.output.is_some() {
        text.push_str(
            "\n# Form\nAnswer with one JSON value of the given schema, and nothing else.\n",
        );
    }
    text
}
