//! A crew of minds under a planner: a goal becomes briefs, briefs become results, results become one
//! answer. All of it is one run, whose steps the planner adds as it goes, so that the engine alone
//! carries it on:
//!
//! ```text
//! plan       a task            the planner writes the briefs; what is wrong with them is sent back
//! ┌ work     a task per brief  of those that need no other: the agent it names does it, and a fresh
//! │                            mind checks what is to be accepted
//! │ results  a gate            all of them have ended, well or not
//! └ look     a task            the planner looks at how far it is: the briefs whose needs are met are
//!                              next, or the plan is changed, or this was all
//! answer     a task            the planner makes one answer of the results, and cites them
//! ```
//!
//! Kill whoever works on it at any moment: each task's receipts say how far it was, and what a `look`
//! decided is in its output. A worker sees its brief, the inputs and the results that were granted to
//! it, and nothing else; the planner never sees what the workers were told on the way. Only the planner
//! delegates, also what it splits ([`split`]), and makes up agents where it may ([`spawn`]).
//!
//! Looking costs nothing while all goes as planned: a model is asked only when a brief has failed or
//! came to half a result. How often a plan may change is bounded, and so are its briefs, its rounds, and
//! the rounds in which nothing new came ([`ledger`]).

pub mod answer;
pub mod aside;
pub mod ledger;
pub mod look;
pub mod plan;
pub mod spawn;
pub mod split;
pub mod work;

pub use answer::{AnswerHandler, Answered, Source};
pub use ledger::{Ledger, Revision};
pub use look::LookHandler;
pub use plan::{Effort, Estimate, Plan, PlanHandler, Planned, Round};
pub use spawn::{Spawn, Spawned};
pub use work::{Delivered, WorkHandler};

use crate::mind::{Bounds, Brief, Came, Envelope, Judge, Mind};
use chargehand::{Context, Ended, Error, Worker};
use domain::graph::{Each, Gate, Graph, Join, Reduce, Step, StepKind, Template};
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
/// The type of tasks that look at how far it is.
pub const LOOK_KIND: &str = "crew.look";
/// The type of tasks that make one answer.
pub const ANSWER_KIND: &str = "crew.answer";
/// What a worker says it can do that serves these minds: to write plans, which a task that plans asks of
/// it; to find out which tools there are and can be called now, which it does before each plan; and to
/// give briefs out, which a task that looks asks of it.
pub const CAPABILITIES: [&str; 3] = [WORKFLOW_PLANNING, TOOL_DISCOVERY, TASK_DELEGATION];
const WORKFLOW_PLANNING: &str = "workflow_planning";
const TOOL_DISCOVERY: &str = "tool_discovery";
const TASK_DELEGATION: &str = "task_delegation";
/// What such a worker is for, in its metadata: `purpose`.
pub const PURPOSE: &str = "orchestration";
/// As whom the planner speaks in a run's stream.
pub const SUPERVISOR: &str = "supervisor";
/// Briefs of a plan when nothing is said.
pub const FAN_OUT_DEFAULT: u32 = 20;
/// Briefs of a plan, at most.
pub const FAN_OUT_MAX: u32 = 1_000;
/// Times that a plan may be changed when nothing is said.
pub const REPLANS_DEFAULT: u32 = 3;
/// Rounds of work, at most: how deep needs may go, new plans included.
pub const ROUNDS_MAX: u32 = 20;
/// Rounds in a row in which nothing new came; then it ends with what there is.
pub const STALLS_MAX: u32 = 3;
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
    /// The JSON Schema of what comes of its briefs; text when there is none.
    pub output: Option<Value>,
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
    /// Times that a plan may be changed.
    pub replans: u32,
    /// How deep plans of plans may go: with 1, no brief is planned by itself.
    pub depth: u32,
    /// What agents a plan may make up; without it, none.
    pub spawn: Option<Spawn>,
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
    /// Where its tasks wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Name>,
    /// The plan, when it is there already: somebody has looked at it. No model is asked for one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Only plan: nobody begins to work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_plan: bool,
}

/// A brief, as it is given out: the input of a task that does it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// Which brief of the plan.
    #[serde(default)]
    pub brief: String,
    /// Who does it.
    pub agent: String,
    /// Who that is, where the plan made it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn: Option<Spawned>,
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
    /// The results of briefs that it needs, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, Value>,
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
        // The rest is for checks, new plans and the answer.
        let part = |left: Option<u64>| left.map_or(u64::MAX, |left| to_delegate(left) / parts);
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

/// Of what is left, what may be delegated: a fifth stays with who delegates.
pub(crate) const fn to_delegate(left: u64) -> u64 {
    left - left / 5
}

/// The first step of a run: the planner adds the others.
///
/// # Errors
/// Inputs that do not fit into one task.
pub fn graph(goal: &Goal) -> Result<Graph, Error> {
    let input = Some(json!(goal));
    let graph = Graph {
        steps: vec![Step {
            id: Name::literal("plan"),
            needs: Vec::new(),
            kind: StepKind::Task(Template {
                input,
                capability: Some(Name::literal(WORKFLOW_PLANNING)),
                ..template(PLAN_KIND, goal.queue.as_ref())
            }),
        }],
    };
    graph.check()?;
    Ok(graph)
}

fn template(kind: &'static str, queue: Option<&Name>) -> Template {
    Template {
        timeout_ms: Some(TIMEOUT_MS),
        retry: RetryPolicy::default(),
        queue: queue.cloned().unwrap_or_else(domain::task::default_queue),
        ..Template::new(Name::literal(kind))
    }
}

/// The name of a step of a round, from 1.
fn named(step: &'static str, round: u32) -> Name {
    match round {
        1 => Name::literal(step),
        // A word and a number are a name.
        round => Name::new(format!("{step}_{round}")).unwrap_or_else(|_| Name::literal(step)),
    }
}

/// The output that a round's briefs are in: of the plan, or of the look before.
fn before(round: u32) -> Name {
    match round {
        1 => Name::literal("plan"),
        round => named("look", round - 1),
    }
}

/// The outcomes of all rounds so far, as an expression.
fn outcomes(rounds: u32) -> String {
    let results = (1..=rounds).map(|round| format!("steps.{}", named("results", round)));
    format!("[{}]", results.collect::<Vec<_>>().join(", "))
}

/// The steps of a round. It fails with its briefs only where nothing else is left to be done: when
/// nothing has come of any brief yet and the plan may not be changed any more.
fn round_steps(round: u32, last_chance: bool, queue: Option<&Name>) -> Vec<Step> {
    let (from, work, results) = (before(round), named("work", round), named("results", round));
    let look = format!(
        "{{'goal': goal, 'given': steps.plan.given, 'before': steps.{from}, 'outcomes': {}}}",
        outcomes(round)
    );
    vec![
        Step {
            id: work.clone(),
            needs: vec![from.clone()],
            kind: StepKind::Each(Each {
                items: Vec::new(),
                over: Some(from),
                task: template(WORK_KIND, queue),
                concurrency: None,
            }),
        },
        Step {
            id: results.clone(),
            needs: vec![work],
            kind: StepKind::Gate(Gate {
                join: Join::Ended(u32::from(last_chance)),
                reduce: Reduce::Outcomes,
            }),
        },
        Step {
            id: named("look", round),
            needs: vec![results],
            kind: StepKind::Task(Template {
                input_from: Some(look),
                capability: Some(Name::literal(TASK_DELEGATION)),
                ..template(LOOK_KIND, queue)
            }),
        },
    ]
}

/// The last step, after so many rounds.
fn answer_step(rounds: u32, queue: Option<&Name>) -> Step {
    let look = named("look", rounds);
    let input = format!(
        "{{'goal': goal, 'ledger': steps.{look}.ledger, 'outcomes': {}}}",
        outcomes(rounds)
    );
    Step {
        id: Name::literal("answer"),
        needs: vec![look],
        kind: StepKind::Task(Template {
            input_from: Some(input),
            ..template(ANSWER_KIND, queue)
        }),
    }
}

/// A worker that does all that runs of these minds need, and says so ([`CAPABILITIES`], [`PURPOSE`]).
///
/// # Errors
/// A worker that has a handler for one of their tasks already.
pub fn serve(worker: Worker, minds: &Arc<Minds>) -> Result<Worker, Error> {
    let mut worker = worker.describe(|spec| {
        let purpose = Name::literal("purpose");
        spec.metadata.insert(purpose, PURPOSE.to_owned());
    });
    for capability in CAPABILITIES {
        worker = worker.capability(capability)?;
    }
    worker
        .handle(PLAN_KIND, PlanHandler(Arc::clone(minds)))?
        .handle(WORK_KIND, WorkHandler(Arc::clone(minds)))?
        .handle(LOOK_KIND, LookHandler(Arc::clone(minds)))?
        .handle(ANSWER_KIND, AnswerHandler(Arc::clone(minds)))
}

/// What became of a task in a gate's outcomes.
#[derive(Debug, Clone, Deserialize)]
struct Outcome {
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    failure: Option<Failure>,
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

impl From<Error> for Short {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
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
    judge: Judge<'_>,
) -> Result<Envelope, Short> {
    match mind.work(task, brief, judge).await? {
        Came::To(envelope) => Ok(envelope),
        Came::Half => Err(Short::Half),
        Came::Later { after, reason } => Err(Short::Later { after, reason }),
    }
}

/// How far a planner may go with one plan, check or answer: it has no hands, so few turns do.
pub const PLANNER_BOUNDS: Bounds = Bounds {
    rounds: 8,
    calls: 1,
    tokens: 400_000,
    usd_micros: u64::MAX,
};
