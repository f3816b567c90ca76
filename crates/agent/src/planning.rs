//! A crew of minds under a planner: a goal becomes briefs, briefs become results, results become one
//! answer. All of it is one run of four steps, so that the engine alone carries it on:
//!
//! ```text
//! plan      one task    the planner writes the briefs; what is wrong with them is sent back
//! work      a task per brief    the agent it names does it; a fresh mind checks what is to be accepted
//! results   a gate      all briefs have results
//! answer    one task    the planner makes one answer of the results, and cites them
//! ```
//!
//! Kill whoever works on it at any moment: each task's receipts say how far it was. A worker sees its
//! brief and the inputs that were granted to it, and nothing else; the planner never sees what the
//! workers were told on the way. Only the planner delegates, once: a brief makes no briefs.
//!
//! Not here: an order among briefs (they are done side by side), and plans that change once their
//! briefs are given out.

use crate::mind::{Bounds, Brief, Came, Completeness, Envelope, Mind};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::error::Error;
use domain::graph::{Each, Gate, Graph, Join, Reduce, Step, StepKind, Template};
use domain::limits::RUN_TASKS_MAX;
use domain::name::Name;
use domain::retry::RetryPolicy;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The type of tasks that plan.
pub const PLAN_KIND: &str = "crew.plan";
/// The type of tasks that do a brief.
pub const WORK_KIND: &str = "crew.work";
/// The type of tasks that make one answer.
pub const ANSWER_KIND: &str = "crew.answer";
/// As whom the planner speaks in a run's stream.
pub const SUPERVISOR: &str = "supervisor";
/// The steps of a run.
pub const STEPS: [&str; 4] = ["plan", "work", "results", "answer"];
/// Briefs of a plan when nothing is said.
pub const FAN_OUT_DEFAULT: u32 = 20;
/// Briefs of a plan, at most.
pub const FAN_OUT_MAX: u32 = 1_000;
/// Times that a result may be refused before its brief has failed.
pub const REFUSALS_MAX: usize = 2;
/// Milliseconds that an attempt of a task may take, when nothing is said: models think long.
pub const TIMEOUT_MS: u64 = 900_000;

/// An agent of the crew.
#[derive(Debug, Clone)]
pub struct Member {
    /// When to give it work, for the planner.
    pub description: String,
    /// How it does it.
    pub mind: Mind,
    /// The tools that were granted to it, for the planner.
    pub tools: BTreeSet<String>,
}

/// A planner and its agents: what a process that works for such runs has.
#[derive(Debug, Clone)]
pub struct Minds {
    /// Who plans, checks and answers. It has no hands.
    pub planner: Mind,
    /// Who works, by name.
    pub members: BTreeMap<String, Member>,
    /// Briefs of a plan, at most.
    pub fan_out: u32,
}

/// What a run of minds is about: the input of its first task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// To what end.
    pub goal: String,
    /// On what; briefs name them by number, from 1.
    #[serde(default)]
    pub inputs: Vec<Value>,
}

/// A brief, as it was planned: the input of a task that does it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// Who does it.
    pub agent: String,
    /// To what end.
    pub objective: String,
    /// What the result must be like.
    #[serde(default)]
    pub acceptance: Vec<String>,
    /// Tools that the result must rest on.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// The inputs that were granted to it.
    #[serde(default)]
    pub inputs: Vec<Value>,
    /// What it may spend of the run's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// What a brief may spend of what was left of the run's budget when it was planned: its equal share,
/// or a quarter of all if that is more. Shares may add up to more than there is; the run's own account
/// never admits more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Tokens, read and written.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub usd_micros: u64,
    /// Calls of tools.
    pub calls: u32,
}

impl Share {
    /// Parts of what is left that one brief may have when there are more than four.
    const QUARTER: u64 = 4;

    fn of(left: &domain::budget::Budget, briefs: usize) -> Self {
        let parts = (briefs as u64).clamp(1, Self::QUARTER);
        // A fifth is for checks, new plans and the answer.
        let part = |left: Option<u64>| left.map_or(u64::MAX, |left| (left - left / 5) / parts);
        Self {
            tokens: part(left.tokens),
            usd_micros: part(left.usd_micros),
            calls: u32::try_from(part(left.calls)).unwrap_or(u32::MAX),
        }
    }

    fn within(self, bounds: Bounds) -> Bounds {
        Bounds {
            tokens: bounds.tokens.min(self.tokens),
            usd_micros: bounds.usd_micros.min(self.usd_micros),
            calls: bounds.calls.min(self.calls),
            ..bounds
        }
    }
}

/// A brief, as the planner writes it.
#[derive(Debug, Clone, Deserialize)]
struct Planned {
    agent: String,
    objective: String,
    #[serde(default)]
    acceptance: Vec<String>,
    #[serde(default)]
    evidence: Vec<String>,
    #[serde(default)]
    inputs: Vec<usize>,
}

/// What a brief came to: the output of its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
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

/// The run's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// For a person to read; `[2]` cites the second source.
    pub text: String,
    /// Whether everything it rests on is whole.
    pub status: Completeness,
    /// What it rests on.
    pub sources: Vec<Source>,
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
}

/// The plan of a run: how a goal becomes an answer. Tasks wait in `queue`.
///
/// # Errors
/// Inputs that do not fit into one task.
pub fn graph(goal: &Goal, queue: Option<Name>) -> Result<Graph, Error> {
    let [plan, work, results, answer] = STEPS.map(Name::literal);
    let template = |kind: &'static str, input: Option<Value>, input_from: Option<&str>| Template {
        input,
        input_from: input_from.map(str::to_owned),
        timeout_ms: Some(TIMEOUT_MS),
        retry: RetryPolicy::default(),
        queue: queue.clone().unwrap_or_else(domain::task::default_queue),
        ..Template::new(Name::literal(kind))
    };
    let graph = Graph {
        steps: vec![
            Step {
                id: plan.clone(),
                needs: Vec::new(),
                kind: StepKind::Task(template(PLAN_KIND, Some(json!(goal)), None)),
            },
            Step {
                id: work.clone(),
                needs: vec![plan.clone()],
                kind: StepKind::Each(Each {
                    items: Vec::new(),
                    over: Some(plan),
                    task: template(WORK_KIND, None, None),
                    concurrency: None,
                }),
            },
            Step {
                id: results.clone(),
                needs: vec![work],
                kind: StepKind::Gate(Gate {
                    join: Join::All,
                    reduce: Reduce::Collect,
                }),
            },
            Step {
                id: answer,
                needs: vec![results],
                kind: StepKind::Task(template(
                    ANSWER_KIND,
                    None,
                    Some("{'goal': goal, 'results': steps.results}"),
                )),
            },
        ],
    };
    graph.check()?;
    Ok(graph)
}

/// Why a task has no output: it is not at its end, it cannot go on yet, or it has failed.
enum Short {
    Half,
    Later { after: Duration, reason: String },
    Failed(Failure),
}

impl From<Failure> for Short {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn ended<T: Serialize>(outcome: Result<T, Short>) -> Ended {
    match outcome {
        Ok(output) => Ended::done(json!(output)),
        Err(Short::Half) => Ended::Yielded(None),
        Err(Short::Later { after, reason }) => Ended::Later { after, reason },
        Err(Short::Failed(failure)) => Ended::Failed(failure),
    }
}

fn input<T: for<'a> Deserialize<'a>>(task: &Context) -> Result<T, Short> {
    serde_json::from_value(task.input()).map_err(|fault| {
        let text = format!("the brief cannot be read: {fault}");
        Failure::permanent("brief.malformed", text).into()
    })
}

async fn whole(
    mind: &Mind,
    task: &Context,
    brief: &Brief,
    judge: crate::mind::Judge<'_>,
) -> Result<Envelope, Short> {
    match mind.work(task, brief, judge).await? {
        Came::To(envelope) => Ok(envelope),
        Came::Half => Err(Short::Half),
        Came::Later { after, reason } => Err(Short::Later { after, reason }),
    }
}

/// Plans.
#[derive(Debug, Clone)]
pub struct PlanHandler(pub Arc<Minds>);

#[async_trait]
impl Handler for PlanHandler {
    async fn run(&self, task: Context) -> Ended {
        ended(self.plan(&task.speaking_as(SUPERVISOR)).await)
    }
}

impl PlanHandler {
    async fn plan(&self, task: &Context) -> Result<Vec<Delegation>, Short> {
        let goal: Goal = input(task)?;
        let agents = self.0.members.iter().map(|(name, member)| {
            json!({"agent": name, "give it": member.description, "tools": member.tools})
        });
        let agents: Vec<Value> = agents.collect();
        let inputs: Vec<Value> = goal
            .inputs
            .iter()
            .enumerate()
            .map(|(n, input)| json!({"number": n + 1, "input": input}))
            .collect();
        let objective = format!(
            "Plan how this crew reaches the goal, and do none of the work yourself. Goal: {}\n\
             Write one brief for each piece of work that can be done by itself, at most {}. Briefs are done \
             side by side, so none may need another's result. A brief names its agent, an objective that \
             says all the agent must know, the numbers of the inputs it needs, checks by which its result is \
             accepted, and the tools whose receipts the result must rest on, if it must rest on any.",
            goal.goal, self.0.fan_out
        );
        let brief = Brief {
            objective,
            inputs: json!({"agents": agents, "inputs": inputs}),
            output: Some(plan_schema()),
            ..Brief::default()
        };
        let judge = |plan: &Value| self.0.lint(plan, goal.inputs.len()).map(drop);
        let envelope = whole(&self.0.planner, task, &brief, &judge).await?;
        let briefs = self.0.lint(&envelope.result, goal.inputs.len());
        let briefs = briefs.map_err(|complaint| {
            // A plan that was cut short is none.
            let why = envelope.reason.as_ref().unwrap_or(&complaint);
            Failure::permanent("plan.invalid", format!("there is no plan: {why}"))
        })?;
        let granted = |numbers: Vec<usize>| {
            let inputs = numbers
                .into_iter()
                .filter_map(|n| goal.inputs.get(n.checked_sub(1)?));
            inputs.cloned().collect()
        };
        let account = crate::mind::account(task).await;
        let share = account.map(|account| Share::of(&account.left(false), briefs.len()));
        let delegations = briefs.into_iter().map(|planned| Delegation {
            share,
            agent: planned.agent,
            objective: planned.objective,
            acceptance: planned.acceptance,
            evidence: planned.evidence,
            inputs: granted(planned.inputs),
        });
        Ok(delegations.collect())
    }
}

/// The form of a plan.
fn plan_schema() -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["briefs"],
        "properties": {"briefs": {"type": "array", "minItems": 1, "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["agent", "objective", "inputs", "acceptance", "evidence"],
            "properties": {
                "agent": {"type": "string"},
                "objective": {"type": "string", "minLength": 1},
                "inputs": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "acceptance": texts,
                "evidence": texts,
            },
        }}},
    })
}

impl Minds {
    /// The briefs of a plan, or what is wrong with it: an agent that is not in the crew, a tool it was
    /// not granted, an input that is not there, two briefs to the same end, too many.
    fn lint(&self, plan: &Value, inputs: usize) -> Result<Vec<Planned>, String> {
        #[derive(Deserialize)]
        struct Plan {
            briefs: Vec<Planned>,
        }
        let plan: Plan = serde_json::from_value(plan.clone()).map_err(|fault| fault.to_string())?;
        let briefs = plan.briefs;
        let most = self.fan_out.min(RUN_TASKS_MAX as u32) as usize;
        if briefs.is_empty() {
            return Err("the plan has no brief".into());
        }
        if briefs.len() > most {
            return Err(format!(
                "the plan has {} briefs, and {most} are allowed",
                briefs.len()
            ));
        }
        let mut ends = BTreeSet::new();
        for (n, brief) in briefs.iter().enumerate() {
            let at = format!("brief {}", n + 1);
            let Some(member) = self.members.get(&brief.agent) else {
                let agents: Vec<_> = self.members.keys().map(String::as_str).collect();
                return Err(format!(
                    "{at} is for “{}”, and the agents are: {}",
                    brief.agent,
                    agents.join(", ")
                ));
            };
            if brief.objective.trim().is_empty() {
                return Err(format!("{at} has no objective"));
            }
            if let Some(tool) = brief
                .evidence
                .iter()
                .find(|tool| !member.tools.contains(*tool))
            {
                return Err(format!(
                    "{at} must rest on “{tool}”, which “{}” was not granted",
                    brief.agent
                ));
            }
            if let Some(number) = brief
                .inputs
                .iter()
                .find(|number| !(1..=inputs).contains(*number))
            {
                return Err(format!("{at} needs input {number}, and there are {inputs}"));
            }
            let end = (brief.objective.trim().to_lowercase(), brief.inputs.clone());
            if !ends.insert(end) {
                return Err(format!(
                    "{at} has the same objective and inputs as an earlier one"
                ));
            }
        }
        Ok(briefs)
    }
}

/// Does briefs, and has what is to be accepted checked by a mind that has not seen how it was made.
#[derive(Debug, Clone)]
pub struct WorkHandler(pub Arc<Minds>);

#[async_trait]
impl Handler for WorkHandler {
    async fn run(&self, task: Context) -> Ended {
        ended(self.work(&task).await)
    }
}

impl WorkHandler {
    async fn work(&self, task: &Context) -> Result<Delivered, Short> {
        let delegation: Delegation = input(task)?;
        let Some(member) = self.0.members.get(&delegation.agent) else {
            let text = format!("there is no agent “{}” in this crew", delegation.agent);
            return Err(Failure::permanent("agent.unknown", text).into());
        };
        let bounds = match delegation.share {
            Some(share) => share.within(member.mind.bounds),
            None => member.mind.bounds,
        };
        let mind = Mind {
            bounds,
            ..member.mind.clone()
        };
        let mut brief = Brief {
            objective: delegation.objective.clone(),
            inputs: match delegation.inputs.as_slice() {
                [] => Value::Null,
                inputs => json!(inputs),
            },
            acceptance: delegation.acceptance.clone(),
            evidence: delegation.evidence.clone(),
            ..Brief::default()
        };
        let speaking = task.speaking_as(&delegation.agent);
        loop {
            let envelope = whole(&mind, &speaking, &brief, &|_| Ok(())).await?;
            let delivered = |envelope, verdict| Delivered {
                agent: delegation.agent.clone(),
                objective: delegation.objective.clone(),
                envelope,
                verdict,
            };
            if brief.acceptance.is_empty() || envelope.status == Completeness::Partial {
                return Ok(delivered(envelope, None));
            }
            let verdict = self.check(task, &brief, &envelope).await?;
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
        brief: &Brief,
        envelope: &Envelope,
    ) -> Result<Verdict, Short> {
        let check = Brief {
            objective: "Judge whether this result meets every check it is accepted by. \
                        A claim is not evidence: receipts are. Say which check fails and why, in a sentence."
                .into(),
            inputs: json!({
                "objective": brief.objective,
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
        #[derive(Deserialize)]
        struct Input {
            goal: String,
            results: Vec<Delivered>,
        }
        let Input { goal, results } = input(task)?;
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
        });
        let sources: Vec<Source> = sources.collect();
        let numbered = results.iter().enumerate().map(|(n, delivered)| {
            json!({
                "number": n + 1,
                "objective": delivered.objective,
                "status": delivered.envelope.status,
                "missing": delivered.envelope.reason,
                "result": delivered.envelope.result,
            })
        });
        let brief = Brief {
            objective: format!(
                "Answer the goal from these results and from nothing else. Cite the result that a statement \
                 rests on by its number in brackets, like [1]. Say what is missing. Goal: {goal}"
            ),
            inputs: json!(numbered.collect::<Vec<_>>()),
            ..Brief::default()
        };
        let judge = |answer: &Value| cites(answer.as_str().unwrap_or_default(), results.len());
        let envelope = whole(&self.0.planner, task, &brief, &judge).await?;
        let is_whole = |delivered: &Delivered| delivered.envelope.status == Completeness::Done;
        let status = match envelope.status {
            Completeness::Done if results.iter().all(is_whole) => Completeness::Done,
            _ => Completeness::Partial,
        };
        let text = match envelope.result.as_str().unwrap_or_default().trim() {
            // Not even last words were to be had: what there is, as it is.
            "" => listed(&results),
            text => text.to_owned(),
        };
        Ok(Answered {
            text,
            status,
            sources,
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

/// How far a planner may go with one plan, check or answer: it has no hands, so few turns do.
pub const PLANNER_BOUNDS: Bounds = Bounds {
    rounds: 8,
    calls: 1,
    tokens: 400_000,
    usd_micros: u64::MAX,
};
