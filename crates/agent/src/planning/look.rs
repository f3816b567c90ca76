//! Looking: what comes after a round. Where all goes as planned nobody is asked; where a brief has
//! failed, or came to half a result, the planner may change the plan.

use super::ledger::{Came, Ledger};
use super::plan::{Given, Planned, Round, name_briefs, numbered};
use super::work::Delivered;
use super::{
    Delegation, Minds, Outcome, SUPERVISOR, Share, Short, answer_step, ended, input, round_steps,
    whole,
};
use crate::mind::{Brief, Completeness, account};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::task::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Characters of a result that the planner sees when it looks.
const RESULT_CHARS_MAX: usize = 2_000;

/// Looks how far it is, and says what comes next.
#[derive(Debug, Clone)]
pub struct LookHandler(pub Arc<Minds>);

#[derive(Deserialize)]
struct Input {
    goal: String,
    given: Given,
    before: Before,
    outcomes: Vec<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Before {
    items: Vec<Delegation>,
    ledger: Ledger,
}

/// What the planner makes of a round that did not go as planned.
#[derive(Debug, Clone, Deserialize)]
struct Revised {
    reason: String,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    briefs: Vec<Planned>,
}

#[async_trait]
impl Handler for LookHandler {
    async fn run(&self, task: Context) -> Ended {
        ended(self.look(&task.speaking_as(SUPERVISOR)).await)
    }
}

impl LookHandler {
    async fn look(&self, task: &Context) -> Result<Round, Short> {
        let Input {
            goal,
            given,
            before,
            outcomes,
        } = input(task)?;
        let mut ledger = before.ledger;
        let came = outcomes
            .last()
            .map(|last| round(&before.items, last))
            .unwrap_or_default();
        let astray = came
            .iter()
            .any(|came| !matches!(came.outcome, Ok((Completeness::Done, _))));
        ledger.note(&came);
        ledger.conclude();
        let results = ledger.with_wholes(results(&outcomes));
        if let Some(reason) = ledger.exhausted() {
            ledger.ends = Some(reason);
        } else if astray {
            self.revise(task, &goal, &given, &mut ledger, &results)
                .await?;
        }
        if ledger.ends.is_none() {
            self.0
                .split(task, &mut ledger, &given.inputs, &results)
                .await?;
        }
        ledger.settle();
        let over = ledger.ends.is_some() || ledger.ready().is_empty();
        if !over {
            let account = account(task).await;
            let briefs = ledger.ready().len();
            let share = account.map(|account| Share::of(&account.left(false), briefs));
            let (ledger, items) = ledger.give_out(&given.inputs, &results, share);
            let may_change = ledger.replans() < self.0.replans as usize;
            let last_chance = !may_change && results.is_empty();
            let steps = round_steps(ledger.round, last_chance, given.queue.as_ref());
            task.extend_run(steps).await?;
            return Ok(of(items, ledger));
        }
        if results.is_empty() {
            let why = ledger
                .missing()
                .first()
                .and_then(|entry| entry.reason.clone());
            let text = format!("no brief came to a result: {}", why.unwrap_or_default());
            return Err(Failure::permanent("agent.nothing", text).into());
        }
        let answer = answer_step(ledger.round, given.queue.as_ref());
        task.extend_run(vec![answer]).await?;
        Ok(of(Vec::new(), ledger))
    }

    /// Asks the planner what to make of it, if it may still change the plan.
    async fn revise(
        &self,
        task: &Context,
        goal: &str,
        given: &Given,
        ledger: &mut Ledger,
        results: &BTreeMap<String, Value>,
    ) -> Result<(), Short> {
        let minds = &self.0;
        let left = (minds.replans as usize).saturating_sub(ledger.replans());
        if left == 0 {
            return Ok(());
        }
        let (how, mut inputs) = minds.spawning().await;
        inputs["agents"] = json!(minds.agents_now(task).await);
        inputs["inputs"] = json!(numbered(&given.inputs));
        inputs["briefs"] = json!(far(ledger, results));
        let brief = Brief {
            objective: format!(
                "Some briefs of your plan have failed or came to half a result. Say how it goes on, and do none \
                 of the work yourself: `drop` names briefs that wait and are not needed any more, `briefs` are \
                 new ones, and `reason` says why in a sentence. New briefs may need those that have a result. Do \
                 not write again what is done; where something failed, try another way or another agent, or \
                 leave it out. With nothing to drop and no new briefs, it ends with what there is. You may \
                 change the plan {left} more times. Goal: {goal}{how}{}",
                minds.depth_told(1)
            ),
            inputs,
            output: Some(json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["reason", "drop", "briefs"],
                "properties": {
                    "reason": {"type": "string", "minLength": 1},
                    "drop": {"type": "array", "items": {"type": "string"}},
                    "briefs": {"type": "array", "items": minds.brief_schema()},
                },
            })),
            ..Brief::default()
        };
        let judge = |revised: &Value| self.lint(revised, ledger, given.inputs.len()).map(drop);
        let envelope = match whole(&minds.planner, task, &brief, &judge).await {
            Ok(envelope) => envelope,
            // It could not be changed for the better: what there is, is what there is.
            Err(Short::Failed(failure)) if !failure.retryable => {
                ledger.ends = Some(format!(
                    "the plan could not be changed: {}",
                    failure.message
                ));
                return Ok(());
            }
            Err(short) => return Err(short),
        };
        match self.lint(&envelope.result, ledger, given.inputs.len()) {
            Ok(revised) => ledger.revise(SUPERVISOR, revised.reason, &revised.drop, revised.briefs),
            Err(complaint) => {
                let why = envelope.reason.unwrap_or(complaint);
                ledger.ends = Some(format!("the plan could not be changed: {why}"));
            }
        }
        Ok(())
    }

    /// A change of the plan whose briefs have names, or what is wrong with it.
    fn lint(&self, revised: &Value, ledger: &Ledger, inputs: usize) -> Result<Revised, String> {
        let mut revised: Revised =
            serde_json::from_value(revised.clone()).map_err(|fault| fault.to_string())?;
        let all: BTreeSet<&str> = ledger
            .entries
            .iter()
            .map(|entry| entry.brief.id.as_str())
            .collect();
        name_briefs(&mut revised.briefs, &all)?;
        let usable = ledger.entries.iter().filter(|entry| {
            !matches!(
                entry.standing,
                super::ledger::Standing::Failed | super::ledger::Standing::Dropped
            ) && !revised.drop.contains(&entry.brief.id)
        });
        let usable = usable.map(|entry| entry.brief.id.as_str()).collect();
        self.0.lint_briefs(&revised.briefs, inputs, &usable, 1)?;
        let before = ledger.entries.iter().map(|entry| &entry.brief);
        self.0.lint_spawned(before.chain(&revised.briefs))?;
        if let Some(unknown) = revised
            .drop
            .iter()
            .find(|name| !all.contains(name.as_str()))
        {
            return Err(format!("there is no brief “{unknown}” to drop"));
        }
        for brief in &revised.briefs {
            let tried = ledger.may_try(brief);
            tried.map_err(|why| format!("brief “{}”: {why}", brief.id))?;
        }
        let count = ledger.entries.len() + revised.briefs.len();
        // A plan that changes may grow, yet not without end.
        let most = self.0.fan_out as usize * 2;
        if count > most {
            return Err(format!(
                "with them the plan has {count} briefs, and {most} are allowed"
            ));
        }
        Ok(revised)
    }
}

fn of(items: Vec<Delegation>, ledger: Ledger) -> Round {
    Round {
        items,
        ledger,
        estimate: None,
        given: None,
    }
}

/// What came of the briefs of a round, which are in the order of its tasks.
fn round(items: &[Delegation], outcomes: &[Outcome]) -> Vec<Came> {
    let came = items.iter().zip(outcomes).map(|(item, outcome)| {
        let delivered = outcome
            .output
            .clone()
            .map(serde_json::from_value::<Delivered>);
        let outcome = match (delivered, &outcome.failure) {
            (Some(Ok(delivered)), _) => Ok((delivered.envelope.status, delivered.envelope.reason)),
            (Some(Err(fault)), _) => Err(format!("its result cannot be read: {fault}")),
            (None, Some(failure)) => Err(format!("{}: {}", failure.code, failure.message)),
            (None, None) => Err("it has no result".into()),
        };
        Came {
            brief: item.brief.clone(),
            outcome,
        }
    });
    came.collect()
}

/// The results that there are, by brief.
fn results(outcomes: &[Vec<Outcome>]) -> BTreeMap<String, Value> {
    let outputs = outcomes
        .iter()
        .flatten()
        .filter_map(|outcome| outcome.output.clone());
    let delivered = outputs.filter_map(|output| serde_json::from_value::<Delivered>(output).ok());
    delivered
        .map(|delivered| (delivered.brief, delivered.envelope.result))
        .collect()
}

/// How far each brief is, for the planner.
fn far(ledger: &Ledger, results: &BTreeMap<String, Value>) -> Vec<Value> {
    let told = ledger.entries.iter().map(|entry| {
        let brief = &entry.brief;
        let mut told = json!({
            "id": brief.id, "agent": brief.agent, "objective": brief.objective, "standing": entry.standing,
        });
        if let Some(reason) = &entry.reason {
            told["reason"] = json!(reason);
        }
        if let Some(result) = results.get(&brief.id) {
            let text = result.as_str().map_or_else(|| result.to_string(), str::to_owned);
            told["result"] = text.chars().take(RESULT_CHARS_MAX).collect::<String>().into();
        }
        told
    });
    told.collect()
}
