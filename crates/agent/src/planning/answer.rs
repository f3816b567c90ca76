//! The answer: one text of all results, which cites them.

use super::ledger::{Entry, Ledger, Revision};
use super::work::Delivered;
use super::{Minds, Outcome, SUPERVISOR, Short, ended, input, whole};
use crate::mind::{Brief, Completeness};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// The run's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// For a person to read; `[2]` cites the second source.
    pub text: String,
    /// Whether everything it rests on is whole.
    pub status: Completeness,
    /// What it rests on.
    pub sources: Vec<Source>,
    /// Briefs of which nothing, or only a part, is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// What stays open, as those say who delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
    /// How the plan was changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// Why it ended before all was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A result that an answer may cite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its number in the answer, from 1.
    pub number: usize,
    /// Who made it.
    pub agent: String,
    /// To what end.
    pub objective: String,
    /// Receipts of the calls that it rests on.
    pub receipts: Vec<String>,
    /// How sure who made it says it is, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// A brief without a whole result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub brief: String,
    /// To what end.
    pub objective: String,
    /// Why.
    pub reason: String,
}

impl Missing {
    fn of(entry: &Entry) -> Self {
        Self {
            brief: entry.brief.id.clone(),
            objective: entry.brief.objective.clone(),
            reason: entry
                .reason
                .clone()
                .unwrap_or_else(|| "it was not begun".into()),
        }
    }
}

#[derive(Deserialize)]
struct Input {
    goal: String,
    ledger: Ledger,
    outcomes: Vec<Vec<Outcome>>,
}

/// Makes one answer of what was delivered.
#[derive(Debug, Clone)]
pub struct AnswerHandler(pub Arc<Minds>);

#[async_trait]
impl Handler for AnswerHandler {
    async fn run(&self, task: Context) -> Ended {
        ended(self.answer(&task.speaking_as(SUPERVISOR)).await)
    }
}

impl AnswerHandler {
    async fn answer(&self, task: &Context) -> Result<Answered, Short> {
        let Input {
            goal,
            ledger,
            outcomes,
        } = input(task)?;
        let outputs = outcomes
            .into_iter()
            .flatten()
            .filter_map(|outcome| outcome.output);
        let results = outputs.map(serde_json::from_value::<Delivered>);
        let results: Vec<Delivered> = results.collect::<Result<_, _>>().map_err(|fault| {
            let text = format!("a result is not one of this version: {fault}");
            Failure::permanent("brief.malformed", text)
        })?;
        let missing: Vec<Missing> = ledger.missing().into_iter().map(Missing::of).collect();
        let sources = results.iter().enumerate().map(|(n, delivered)| Source {
            number: n + 1,
            agent: delivered.agent.clone(),
            objective: delivered.objective.clone(),
            receipts: delivered
                .envelope
                .evidence
                .iter()
                .filter(|evidence| evidence.succeeded)
                .map(|evidence| evidence.receipt.clone())
                .collect(),
            confidence: delivered.envelope.confidence,
        });
        let sources: Vec<Source> = sources.collect();
        let numbered = results.iter().enumerate().map(|(n, delivered)| {
            json!({
                "number": n + 1,
                "objective": delivered.objective,
                "status": delivered.envelope.status,
                "missing": delivered.envelope.reason,
                "result": delivered.envelope.result,
                "open": delivered.envelope.open,
            })
        });
        let mut inputs = json!({"results": numbered.collect::<Vec<_>>()});
        if !missing.is_empty() {
            inputs["without result"] = json!(missing);
        }
        let brief = Brief {
            objective: format!(
                "Answer the goal from these results and from nothing else. Cite the result that a statement \
                 rests on by its number in brackets, like [1]. Say what is missing. Goal: {goal}"
            ),
            inputs,
            ..Brief::default()
        };
        let judge = |answer: &Value| cites(answer.as_str().unwrap_or_default(), results.len());
        let envelope = whole(&self.0.planner, task, &brief, &judge).await?;
        let is_whole = |delivered: &Delivered| delivered.envelope.status == Completeness::Done;
        let status = match envelope.status {
            Completeness::Done if missing.is_empty() && results.iter().all(is_whole) => {
                Completeness::Done
            }
            _ => Completeness::Partial,
        };
        let open = results
            .iter()
            .flat_map(|delivered| &delivered.envelope.open);
        let open = open.cloned().collect();
        let text = match envelope.result.as_str().unwrap_or_default().trim() {
            // Not even last words were to be had: what there is, as it is.
            "" => listed(&results),
            text => text.to_owned(),
        };
        Ok(Answered {
            text,
            status,
            sources,
            missing,
            open,
            revisions: ledger.changes().cloned().collect(),
            ended: ledger.ends,
        })
    }
}

/// Results, each with its number.
fn listed(results: &[Delivered]) -> String {
    let line = |(n, delivered): (usize, &Delivered)| {
        let result = match &delivered.envelope.result {
            Value::String(text) if text.trim().is_empty() => "no result".to_owned(),
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        format!("[{}] {}: {result}", n + 1, delivered.objective)
    };
    let lines: Vec<String> = results.iter().enumerate().map(line).collect();
    lines.join("\n")
}

/// Whether an answer cites, and nothing that is not there.
fn cites(answer: &str, sources: usize) -> Result<(), String> {
    let mut cited = 0;
    for part in answer.split('[').skip(1) {
        let inside = part.split(']').next().unwrap_or_default();
        for number in inside.split(',').map(str::trim) {
            match number.parse::<usize>() {
                Ok(n) if (1..=sources).contains(&n) => cited += 1,
                Ok(n) => return Err(format!("it cites [{n}], and there are {sources} results")),
                // Brackets of another kind.
                Err(_) => {}
            }
        }
    }
    if cited == 0 {
        return Err("it cites no result by its number, like [1]".into());
    }
    Ok(())
}
