//! Splitting: a brief that is work for several agents is for the supervisor again. When its turn comes
//! it is planned by itself, and its own briefs stand in the plan beside the others, so that rounds,
//! budgets and bounds hold for all of them alike; its result is theirs.
//!
//! How deep this goes is the crew's `budget.depth`; with 1, the default, nothing is split. Deliberately
//! absent: plans that other agents make. Only the supervisor delegates, at whatever depth.

use super::ledger::Ledger;
use super::plan::{Planned, name_briefs, numbered, plan_schema};
use super::{Minds, SUPERVISOR, Short, whole};
use crate::mind::Brief;
use chargehand::Context;
use domain::task::Failure;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Depths of plans, at most.
pub const DEPTH_MAX: u32 = 5;

impl Minds {
    /// Whether a brief is to be planned by itself.
    pub(super) fn splits(&self, brief: &Planned) -> bool {
        brief.agent == SUPERVISOR && !self.members.contains_key(SUPERVISOR)
    }

    /// What the planner of such a plan is told, if its briefs may be split.
    pub(super) fn depth_told(&self, depth: u32) -> String {
        match self.depth.saturating_sub(depth) {
            0 => String::new(),
            deeper => format!(
                "\nA brief that is work for several agents may be for “{SUPERVISOR}”, without tools it must rest \
                 on: it is planned by itself when its turn comes, and so on {deeper} deep."
            ),
        }
    }

    /// Plans the briefs whose turn it is and that are to be planned by themselves.
    ///
    /// # Errors
    /// Only what another attempt may mend: a brief of which no plan can be made has failed.
    pub(super) async fn split(
        &self,
        task: &Context,
        ledger: &mut Ledger,
        inputs: &[Value],
        results: &BTreeMap<String, Value>,
    ) -> Result<(), Short> {
        loop {
            ledger.settle();
            let ready = ledger.ready().into_iter();
            let Some(brief) = ready.into_iter().find(|brief| self.splits(brief)).cloned() else {
                return Ok(());
            };
            match self.split_one(task, ledger, &brief, inputs, results).await {
                Ok(briefs) => ledger.split(&brief.id, briefs),
                Err(Short::Failed(failure)) if !failure.retryable => {
                    ledger.fail(
                        &brief.id,
                        format!("it could not be planned: {}", failure.message),
                    );
                }
                Err(short) => return Err(short),
            }
        }
    }

    async fn split_one(
        &self,
        task: &Context,
        ledger: &Ledger,
        brief: &Planned,
        inputs: &[Value],
        results: &BTreeMap<String, Value>,
    ) -> Result<Vec<Planned>, Short> {
        let depth = ledger.depth(&brief.id) + 1;
        let room = (self.fan_out as usize * 2).saturating_sub(ledger.entries.len());
        if room == 0 {
            let text = format!("the plan has {} briefs already", ledger.entries.len());
            return Err(Failure::permanent("plan.invalid", text).into());
        }
        let (how, mut told) = self.spawning().await;
        let given = brief.inputs.iter();
        let given: Vec<Value> = given
            .filter_map(|n| inputs.get(n.checked_sub(1)?).cloned())
            .collect();
        let needed = brief.needs.iter();
        let needed: BTreeMap<&String, &Value> = needed
            .filter_map(|need| Some((need, results.get(need)?)))
            .collect();
        told["agents"] = json!(self.agents_now(task).await);
        told["inputs"] = json!(numbered(&given));
        if !needed.is_empty() {
            told["results"] = json!(needed);
        }
        let asked = Brief {
            objective: format!(
                "Plan how this crew does one brief of your plan, and do none of the work yourself. Write one \
                 brief for each piece of work that can be done by itself, at most {}: they know nothing of \
                 this one, of the inputs but those they are given, and of the results but what their \
                 objectives say. What comes of them is the result of this brief. It: {}{how}{}",
                room.min(self.fan_out as usize),
                brief.objective,
                self.depth_told(depth)
            ),
            acceptance: brief.acceptance.clone(),
            inputs: told,
            output: Some(plan_schema(&self.brief_schema())),
            ..Brief::default()
        };
        let lint = |plan: &Value| {
            let briefs = plan["briefs"].clone();
            let mut briefs: Vec<Planned> =
                serde_json::from_value(briefs).map_err(|fault| fault.to_string())?;
            if briefs.is_empty() || briefs.len() > room.min(self.fan_out as usize) {
                return Err(format!(
                    "it has {} briefs, and 1 to {room} are allowed",
                    briefs.len()
                ));
            }
            name_briefs(&mut briefs, &BTreeSet::new())?;
            self.lint_briefs(&briefs, given.len(), &BTreeSet::new(), depth)?;
            for part in &mut briefs {
                within(part, brief);
                let tried = ledger.may_try(part);
                tried.map_err(|why| format!("brief “{}”: {why}", part.id))?;
            }
            let before = ledger.entries.iter().map(|entry| &entry.brief);
            self.lint_spawned(before.chain(&briefs))?;
            Ok(briefs)
        };
        let judge = |plan: &Value| lint(plan).map(drop);
        let envelope = whole(&self.planner, task, &asked, &judge).await?;
        lint(&envelope.result).map_err(|complaint| {
            let why = envelope.reason.unwrap_or_default();
            let text = format!("{complaint} {why}");
            Failure::permanent("plan.invalid", text.trim_end()).into()
        })
    }
}

/// Gives a brief's part the name, the needs and the inputs that it has in the whole plan.
fn within(part: &mut Planned, of: &Planned) {
    for name in part.needs.iter_mut().chain([&mut part.id]) {
        *name = format!("{}.{name}", of.id);
    }
    let own = part.inputs.iter();
    part.inputs = own
        .filter_map(|n| of.inputs.get(n.checked_sub(1)?).copied())
        .collect();
}
