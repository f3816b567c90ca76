//! Work: a brief is done by the agent it names, and checked by a mind that has not seen how.

use super::plan::bound;
use super::{Delegation, Minds, REFUSALS_MAX, SUPERVISOR, Short, aside, ended, input, whole};
use crate::mind::{Brief, Completeness, Envelope, PERSON_PATIENCE};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::error::Code;
use domain::name::Name;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a brief came to: the output of its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// Which brief.
    #[serde(default)]
    pub brief: String,
    /// Who did it.
    pub agent: String,
    /// To what end.
    pub objective: String,
    /// What came of it.
    pub envelope: Envelope,
    /// What the check said; none where nothing was to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// Does briefs, and has what is to be accepted checked by a mind that has not seen how it was made.
#[derive(Debug, Clone)]
pub struct WorkHandler(pub Arc<Minds>);

#[async_trait]
impl Handler for WorkHandler {
    async fn run(&self, task: Context) -> Ended {
        match self.work(&task).await {
            // Whether a call happened is for a person to find out; the run waits for their word.
            Err(Short::Failed(failure)) if failure.code == Code::RecordInDoubt.as_str() => {
                match task.in_doubt() {
                    Some(step) => waits(&task, &step, &failure),
                    None => Ended::Failed(failure),
                }
            }
            outcome => ended(outcome),
        }
    }
}

/// Why a bound that was reached before anything was said or done is a failure.
fn nothing(envelope: &Envelope) -> Option<Failure> {
    let reason = envelope.reason.as_ref()?;
    let is_empty = envelope
        .result
        .as_str()
        .is_some_and(|text| text.trim().is_empty());
    let has_done = envelope.evidence.iter().any(|evidence| evidence.succeeded);
    let cut_short = envelope.status == Completeness::Partial && is_empty && !has_done;
    cut_short.then(|| {
        let text = format!("nothing came of it: {reason}");
        Failure::permanent(bound(reason), text)
    })
}

/// Gives the worker back until somebody has said how a step was.
fn waits(task: &Context, step: &Name, failure: &Failure) -> Ended {
    let id = task.assignment().task_id;
    let reason = format!(
        "waits for a person's word on {step} ({}): `chargehand tasks resolve {id} {step} --done RESULT`, or \
         `--not-done WHY` and it is made again",
        failure.message
    );
    Ended::Later {
        after: PERSON_PATIENCE,
        reason,
    }
}

impl WorkHandler {
    async fn work(&self, task: &Context) -> Result<Delivered, Short> {
        let delegation: Delegation = input(task)?;
        let (mut mind, output) = self.0.doer(&delegation)?;
        if let Some(share) = delegation.share {
            mind.bounds = share.within(mind.bounds);
        }
        let results = &delegation.results;
        let mut brief = Brief {
            objective: match output {
                Some(_) => delegation.objective.clone(),
                None => format!("{}{}", delegation.objective.trim(), aside::ASKED),
            },
            inputs: match (delegation.inputs.as_slice(), results.is_empty()) {
                ([], true) => Value::Null,
                (inputs, true) => json!(inputs),
                ([], false) => json!({ "results": results }),
                (inputs, false) => json!({"inputs": inputs, "results": results}),
            },
            role: match &delegation.spawn {
                Some(spawned) => spawned.prompt.clone(),
                None => String::new(),
            },
            acceptance: delegation.acceptance.clone(),
            evidence: delegation.evidence.clone(),
            output,
            ..Brief::default()
        };
        let speaking = task.speaking_as(&delegation.agent);
        loop {
            let envelope = whole(&mind, &speaking, &brief, &|_| Ok(())).await?;
            let envelope = match brief.output {
                Some(_) => envelope,
                None => aside::take(envelope),
            };
            if let Some(nothing) = nothing(&envelope) {
                return Err(nothing.into());
            }
            let delivered = |envelope, verdict| Delivered {
                brief: delegation.brief.clone(),
                agent: delegation.agent.clone(),
                objective: delegation.objective.clone(),
                envelope,
                verdict,
            };
            if brief.acceptance.is_empty() || envelope.status == Completeness::Partial {
                return Ok(delivered(envelope, None));
            }
            let verdict = self
                .check(task, &delegation.objective, &brief, &envelope)
                .await?;
            if verdict.accepted {
                return Ok(delivered(envelope, Some(verdict.reason)));
            }
            if brief.refusals.len() == REFUSALS_MAX {
                let text = format!(
                    "refused {} times, last: {}",
                    REFUSALS_MAX + 1,
                    verdict.reason
                );
                return Err(Failure::permanent("agent.unaccepted", text).into());
            }
            brief.refusals.push(verdict.reason);
        }
    }

    async fn check(
        &self,
        task: &Context,
        objective: &str,
        brief: &Brief,
        envelope: &Envelope,
    ) -> Result<Verdict, Short> {
        let check = Brief {
            objective: "Judge whether this result meets every check it is accepted by. \
                        A claim is not evidence: receipts are. Say which check fails and why, in a sentence."
                .into(),
            inputs: json!({
                "objective": objective,
                "checks": brief.acceptance,
                "inputs": brief.inputs,
                "result": envelope.result,
                "receipts": envelope.evidence,
            }),
            output: Some(json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["accepted", "reason"],
                "properties": {"accepted": {"type": "boolean"}, "reason": {"type": "string"}},
            })),
            ..Brief::default()
        };
        let speaking = task.speaking_as(SUPERVISOR);
        let judged = whole(&self.0.planner, &speaking, &check, &|_| Ok(())).await?;
        serde_json::from_value(judged.result).map_err(|fault| {
            let text = format!("the check came to no verdict: {fault}");
            Failure::new("agent.output", text).into()
        })
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Verdict {
    accepted: bool,
    reason: String,
}
