//! What comes of a mind's work: how far it came, to what, on which receipts, and for how much.

use crate::model::Usage;
use chargehand::Ended;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a mind came.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    /// To a result.
    To(Envelope),
    /// To a safe point, where more urgent work was waiting.
    Half,
    /// To a question that its provider lets nobody ask yet, or to a call that waits for a person.
    Later {
        /// When to look again, about.
        after: Duration,
        /// Why not now.
        reason: String,
    },
}

impl Came {
    /// How the attempt ends whose work came this far.
    pub(crate) fn ended(came: Result<Self, Failure>) -> Ended {
        match came {
            Ok(Self::To(envelope)) => Ended::done(json!(envelope)),
            Ok(Self::Half) => Ended::Yielded(None),
            Ok(Self::Later { after, reason }) => Ended::Later { after, reason },
            Err(failure) => Ended::Failed(failure),
        }
    }
}

/// What a task came to: its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whether it is whole.
    pub status: Completeness,
    /// The result: what the brief's schema describes, or text.
    pub result: Value,
    /// Why it is partial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The receipts of the calls it rests on, by their steps' keys.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What stays open, as its agent says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
    /// How sure its agent says it is, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// What was used.
    pub spend: Spend,
}

/// Whether a result is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// It is what was asked for, as far as its mind says.
    Done,
    /// A bound was reached before the end.
    Partial,
}

/// A call that was made, and where its receipt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The step's key within the task.
    pub receipt: String,
    /// The tool.
    pub tool: String,
    /// It did what was asked.
    pub succeeded: bool,
}

/// What a task used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spend {
    /// Turns of models.
    pub rounds: u32,
    /// Requests to providers, those included that failed.
    pub requests: u32,
    /// Calls of tools.
    pub calls: u32,
    /// Tokens, as the providers counted them.
    pub usage: Usage,
    /// Millionths of a US dollar, by the prices that are known.
    #[serde(default)]
    pub usd_micros: u64,
    /// Turns by model.
    pub models: BTreeMap<String, u32>,
}
