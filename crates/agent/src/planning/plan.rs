//! The plan: which briefs a goal becomes, what is wrong with them, and what they may cost.

use super::ledger::{Ledger, PERSON};
use super::spawn::{self, Spawned};
use super::{Delegation, Goal, Minds, SUPERVISOR, Share, Short, ended, input, round_steps, whole};
use crate::hands::note_missed;
use crate::mind::{BROKE, Brief, Mind, Seat, account};
use crate::model::Usage;
use crate::tool::{compiled, fits};
use async_trait::async_trait;
use chargehand::{Context, Ended, Handler};
use domain::budget::Amount;
use domain::demand::Lack;
use domain::error::Code;
use domain::limits::RUN_TASKS_MAX;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// How much work a goal is. A crew that is larger than its goal costs more and does no better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// One fact, one text: a brief or two.
    Simple,
    /// Some things to find out and compare: up to five briefs.
    Moderate,
    /// Many parts: as many briefs as the crew may have.
    Large,
}

impl Effort {
    /// Briefs, at most.
    const fn briefs(self) -> usize {
        match self {
            Self::Simple => 2,
            Self::Moderate => 5,
            Self::Large => usize::MAX,
        }
    }

    /// Turns that a brief of such a goal takes, about.
    const fn turns(self) -> u64 {
        match self {
            Self::Simple => 3,
            Self::Moderate => 5,
            Self::Large => 8,
        }
    }
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How much work it is; where nothing is said, as much as it has briefs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// Its briefs.
    pub briefs: Vec<Planned>,
}

/// A brief of a plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Its name in the plan: `b1`, `b2`, … where nothing is said.
    #[serde(default)]
    pub id: String,
    /// Who does it.
    pub agent: String,
    /// Who that is, where no agent of the crew has this name: one that is made for it.
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
    /// The inputs it gets, by number, from 1.
    #[serde(default)]
    pub inputs: Vec<usize>,
    /// The briefs whose results it gets.
    #[serde(default)]
    pub needs: Vec<String>,
}

impl Planned {
    /// What it is to reach: two briefs to the same end are one too many.
    pub(super) fn end(&self) -> (String, Vec<usize>, Vec<String>) {
        let objective = self.objective.trim().to_lowercase();
        (objective, self.inputs.clone(), self.needs.clone())
    }
}

/// What is given out next: the output of the plan, and of each look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The briefs of the round.
    pub items: Vec<Delegation>,
    /// How far it is.
    pub ledger: Ledger,
    /// What it will cost, about; of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// The inputs that briefs may be given, and where tasks wait; of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
}

/// What the whole run knows beside its goal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Given {
    /// On what it works.
    pub inputs: Vec<Value>,
    /// Where its tasks wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<domain::name::Name>,
}

/// What a plan will cost, about: no promise, the budget is what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// All of it; money as far as prices are known.
    pub amount: Amount,
}

/// Characters of a tool's description that the planner is told.
const TOOL_CHARS_MAX: usize = 200;
/// Bytes of a plan, as JSON.
const PLAN_BYTES_MAX: usize = 1024 * 1024;
/// Tokens of the house rules, tools and framing of a question.
const FRAME_TOKENS: u64 = 400;
/// Tokens that a turn adds to the questions after it: a call and what came of it.
const TURN_TOKENS: u64 = 500;
/// Tokens that a mind writes in a turn.
const WRITTEN_TOKENS: u64 = 250;

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
    async fn plan(&self, task: &Context) -> Result<Round, Short> {
        let goal: Goal = input(task)?;
        let minds = &self.0;
        let (plan, by, why) = match &goal.plan {
            Some(plan) => (json!(plan), PERSON, "it was given with the goal"),
            None => {
                let plan = self.planned(task, &goal).await?;
                (plan, SUPERVISOR, "the first plan for the goal")
            }
        };
        let plan = minds.lint(&plan, goal.inputs.len());
        let plan = plan.map_err(|complaint| {
            Failure::permanent(
                "plan.invalid",
                format!("the plan cannot be used: {complaint}"),
            )
        })?;
        let estimate = minds.estimate(&plan, &goal.inputs);
        let account = account(task).await;
        let mut ledger = Ledger::new(plan.briefs, by, why);
        let none = BTreeMap::new();
        if !goal.only_plan {
            minds.split(task, &mut ledger, &goal.inputs, &none).await?;
        }
        let ready = ledger.ready();
        let share = account.map(|account| Share::of(&account.left(false), ready.len()));
        let (ledger, items) = ledger.give_out(&goal.inputs, &none, share);
        if !goal.only_plan {
            let last_chance = minds.replans == 0;
            let steps = round_steps(1, last_chance, goal.queue.as_ref());
            task.extend_run(steps).await?;
        }
        Ok(Round {
            items,
            ledger,
            estimate: Some(estimate),
            given: Some(Given {
                inputs: goal.inputs,
                queue: goal.queue,
            }),
        })
    }

    async fn planned(&self, task: &Context, goal: &Goal) -> Result<Value, Short> {
        let minds = &self.0;
        let objective = format!(
            "Plan how this crew reaches the goal, and do none of the work yourself. Goal: {}\n\
             First say how much effort it is: `simple` (a brief or two), `moderate` (up to five) or `large`. \
             Write one brief for each piece of work that can be done by itself, at most {}. Briefs are done \
             side by side, except that one which `needs` others begins after them and gets their results. \
             A brief has an id, names its agent, an objective that says all the agent must know, the numbers \
             of the inputs it needs, checks by which its result is accepted, and the tools whose receipts the \
             result must rest on, if it must rest on any.",
            goal.goal, minds.fan_out
        );
        let (how, mut inputs) = minds.spawning().await;
        inputs["agents"] = json!(minds.agents_now(task).await);
        inputs["inputs"] = json!(numbered(&goal.inputs));
        let brief = Brief {
            objective: objective + how + &minds.depth_told(1),
            inputs,
            output: Some(plan_schema(&minds.brief_schema())),
            ..Brief::default()
        };
        let missed = Mutex::new(BTreeMap::new());
        let judge = |plan: &Value| {
            let mut missed = missed.lock().unwrap_or_else(PoisonError::into_inner);
            missed.extend(minds.missing(plan));
            minds.lint(plan, goal.inputs.len()).map(drop)
        };
        let planned = whole(&minds.planner, task, &brief, &judge).await;
        let wanted = std::mem::take(&mut *missed.lock().unwrap_or_else(PoisonError::into_inner));
        for (tool, lack) in wanted {
            note_missed(task, &tool, lack).await;
        }
        let envelope = planned?;
        if let Some(reason) = &envelope.reason
            && let Err(complaint) = judge(&envelope.result)
        {
            // A plan that was cut short is none.
            let empty = envelope.result.as_str().is_some_and(str::is_empty);
            let (code, why) = match empty {
                true => (bound(reason), String::new()),
                false => ("plan.invalid", format!(" ({complaint})")),
            };
            let text = format!("there is no plan: {reason}{why}");
            return Err(Failure::permanent(code, text).into());
        }
        Ok(envelope.result)
    }
}

/// The code of a failure because this bound was reached.
pub(super) fn bound(reason: &str) -> &'static str {
    match reason.starts_with(BROKE) {
        true => Code::BudgetExhausted.as_str(),
        false => "agent.nothing",
    }
}

/// Inputs with the numbers by which briefs name them.
pub(super) fn numbered(inputs: &[Value]) -> Vec<Value> {
    let numbered = inputs.iter().enumerate();
    numbered
        .map(|(n, input)| json!({"number": n + 1, "input": input}))
        .collect()
}

/// The form of a brief, as a planner writes it that makes up nobody.
fn brief_schema() -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["agent", "objective", "inputs", "acceptance", "evidence"],
        "properties": {
            "id": {"type": "string"},
            "agent": {"type": "string"},
            "objective": {"type": "string", "minLength": 1},
            "inputs": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "needs": texts,
            "acceptance": texts,
            "evidence": texts,
        },
    })
}

/// Whether a plan has its form, in words for whoever wrote it: what may be left out, may be.
fn shaped(plan: &Value) -> Result<(), String> {
    let mut brief = brief_schema();
    brief["required"] = json!(["agent", "objective"]);
    brief["properties"]["spawn"] = spawn::schema();
    brief["properties"]["spawn"]["required"] = json!(["prompt"]);
    let form = compiled(&plan_schema(&brief)).map_err(|fault| fault.to_string())?;
    fits(plan, PLAN_BYTES_MAX, Some(&form))
}

/// The form of a plan.
pub(super) fn plan_schema(brief: &Value) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["briefs"],
        "properties": {
            "effort": {"enum": ["simple", "moderate", "large"]},
            "briefs": {"type": "array", "minItems": 1, "items": brief},
        },
    })
}

impl Minds {
    /// The form of a brief, as the planner writes it.
    pub(super) fn brief_schema(&self) -> Value {
        let mut schema = brief_schema();
        if self.spawn.is_some() {
            schema["properties"]["spawn"] = spawn::schema();
        }
        schema
    }

    /// What the planner is told of agents that it may make up, in words and as an input.
    pub(super) async fn spawning(&self) -> (&'static str, Value) {
        match &self.spawn {
            Some(spawn) => (spawn::HOW, json!({"spawn": spawn.told().await})),
            None => ("", json!({})),
        }
    }

    /// Who a brief is for, and the tools it has.
    fn member<'a>(
        &'a self,
        brief: &'a Planned,
    ) -> Result<(&'a Mind, &'a BTreeSet<String>), String> {
        let name = &brief.agent;
        match (self.members.get(name), &brief.spawn, &self.spawn) {
            (Some(member), None, _) => Ok((&member.mind, &member.tools)),
            (Some(_), Some(_), _) => Err(format!(
                "makes “{name}”, and the crew has an agent of that name"
            )),
            (None, None, _) => {
                let agents: Vec<_> = self.members.keys().map(String::as_str).collect();
                Err(format!(
                    "is for “{name}”, and the agents are: {}",
                    agents.join(", ")
                ))
            }
            (None, Some(_), None) => Err(format!(
                "makes “{name}”, and nobody may be made (`supervisor.spawn`)"
            )),
            (None, Some(spawned), Some(spawn)) => {
                spawn.allows(name, spawned)?;
                Ok((&spawn.mind, &spawned.tools))
            }
        }
    }

    /// Whether not too many agents are made, and no two of one name.
    pub(super) fn lint_spawned<'a>(
        &self,
        briefs: impl Iterator<Item = &'a Planned>,
    ) -> Result<(), String> {
        match &self.spawn {
            Some(spawn) => spawn.bounds(briefs),
            None => Ok(()),
        }
    }

    /// Who does a brief that was given out, and the form of what comes of it, if it has one.
    pub(super) fn doer(&self, delegation: &Delegation) -> Result<(Mind, Option<Value>), Failure> {
        let name = &delegation.agent;
        match (self.members.get(name), &delegation.spawn, &self.spawn) {
            (Some(member), None, _) => Ok((member.mind.clone(), member.output.clone())),
            (None, Some(spawned), Some(spawn)) => Ok((spawn.mind(name, spawned)?, None)),
            _ => {
                let text = format!("there is no agent “{name}” in this crew");
                Err(Failure::permanent("agent.unknown", text))
            }
        }
    }

    /// The agents, as the planner is told of them now: without the tools that cannot be called, each of
    /// which is noted.
    pub(super) async fn agents_now(&self, task: &Context) -> Vec<Value> {
        let mut agents = Vec::new();
        for (name, member) in &self.members {
            // Servers of tools are reached for their descriptions: then they know whether they can be.
            let specs = member.mind.hands.specs().await;
            let lacking = member.mind.hands.unavailable().await;
            let told = specs.into_iter().filter_map(|spec| {
                let (own, _) = member.mind.hands.known(&spec.name)?;
                let description: String = spec.description.chars().take(TOOL_CHARS_MAX).collect();
                Some((own, description))
            });
            let told: BTreeMap<String, String> = told.collect();
            let tools = member.tools.difference(&lacking);
            let tools: BTreeMap<&String, &str> = tools
                .map(|tool| (tool, told.get(tool).map_or("", String::as_str)))
                .collect();
            let mut agent = json!({"agent": name, "give it": member.description, "tools": tools});
            if !lacking.is_empty() {
                agent["cannot be called now"] = json!(lacking);
            }
            for tool in &lacking {
                note_missed(task, tool, Lack::Unavailable).await;
            }
            agents.push(agent);
        }
        agents
    }

    /// The tools that a plan wants to rest on and its agents do not have.
    fn missing(&self, plan: &Value) -> BTreeMap<String, Lack> {
        let mut missing = BTreeMap::new();
        for brief in plan["briefs"].as_array().into_iter().flatten() {
            if !brief["spawn"].is_null() {
                missing.extend(self.missing_of_made(brief));
                continue;
            }
            let member = brief["agent"]
                .as_str()
                .and_then(|name| self.members.get(name));
            let wanted = brief["evidence"].as_array().into_iter().flatten();
            for tool in wanted.filter_map(Value::as_str) {
                let has = |member: &super::Member| member.tools.contains(tool);
                let lack = match (member, self.members.values().any(has)) {
                    (_, false) => Lack::Unknown,
                    (Some(member), true) if !has(member) => Lack::NotGranted,
                    _ => continue,
                };
                missing.insert(tool.to_owned(), lack);
            }
        }
        missing
    }

    /// The tools that a plan wants for an agent that it makes and that may not be granted to one.
    fn missing_of_made(&self, brief: &Value) -> BTreeMap<String, Lack> {
        let wanted = [&brief["spawn"]["tools"], &brief["evidence"]];
        let wanted = wanted.into_iter().filter_map(Value::as_array).flatten();
        let spawn = self.spawn.as_ref();
        let is_there = |tool: &str| {
            spawn.is_some_and(|spawn| spawn.toolbox.card(tool).is_some())
                || self.members.values().any(|one| one.tools.contains(tool))
        };
        let lacking = wanted
            .filter_map(Value::as_str)
            .filter(|tool| !spawn.is_some_and(|spawn| spawn.tools.contains(*tool)));
        lacking
            .map(|tool| {
                let lack = match is_there(tool) {
                    true => Lack::NotGranted,
                    false => Lack::Unknown,
                };
                (tool.to_owned(), lack)
            })
            .collect()
    }

    /// A plan whose briefs have names, or what is wrong with it: an agent that is not in the crew, a
    /// tool it was not granted, an input or a need that is not there, needs that go round in a circle,
    /// two briefs to the same end, too many for its effort or for the crew.
    ///
    /// # Errors
    /// The first mistake, in words for whoever wrote the plan.
    pub fn lint(&self, plan: &Value, inputs: usize) -> Result<Plan, String> {
        shaped(plan)?;
        let mut plan: Plan =
            serde_json::from_value(plan.clone()).map_err(|fault| fault.to_string())?;
        if plan.briefs.is_empty() {
            return Err("the plan has no brief".into());
        }
        let most = (self.fan_out as usize).min(RUN_TASKS_MAX);
        let count = plan.briefs.len();
        if count > most {
            return Err(format!(
                "the plan has {count} briefs, and {most} are allowed"
            ));
        }
        if let Some(effort) = plan.effort
            && count > effort.briefs()
        {
            let (name, most) = (json!(effort), effort.briefs());
            return Err(format!(
                "the plan has {count} briefs, which is more than the {most} of an effort that is {name}"
            ));
        }
        name_briefs(&mut plan.briefs, &BTreeSet::new())?;
        self.lint_briefs(&plan.briefs, inputs, &BTreeSet::new(), 1)?;
        self.lint_spawned(plan.briefs.iter())?;
        Ok(plan)
    }

    /// What is wrong with briefs of a plan so deep, beside those that are there already.
    pub(super) fn lint_briefs(
        &self,
        briefs: &[Planned],
        inputs: usize,
        there: &BTreeSet<&str>,
        depth: u32,
    ) -> Result<(), String> {
        let mut ends = BTreeSet::new();
        let named: BTreeSet<&str> = briefs.iter().map(|brief| brief.id.as_str()).collect();
        for (n, brief) in briefs.iter().enumerate() {
            let at = format!("brief {}", n + 1);
            let none = BTreeSet::new();
            let tools = match self.splits(brief) && depth < self.depth {
                true => &none,
                false => self.member(brief).map_err(|why| format!("{at} {why}"))?.1,
            };
            if brief.objective.trim().is_empty() {
                return Err(format!("{at} has no objective"));
            }
            let granted = |tool: &&String| tools.contains(*tool);
            if let Some(tool) = brief.evidence.iter().find(|tool| !granted(tool)) {
                return Err(format!(
                    "{at} must rest on “{tool}”, which “{}” was not granted",
                    brief.agent
                ));
            }
            let known = |number: &&usize| (1..=inputs).contains(*number);
            if let Some(number) = brief.inputs.iter().find(|number| !known(number)) {
                return Err(format!("{at} needs input {number}, and there are {inputs}"));
            }
            let known =
                |need: &&String| named.contains(need.as_str()) || there.contains(need.as_str());
            if let Some(need) = brief.needs.iter().find(|need| !known(need)) {
                return Err(format!("{at} needs the brief “{need}”, which is not there"));
            }
            if !ends.insert(brief.end()) {
                return Err(format!(
                    "{at} has the same objective and inputs as an earlier one"
                ));
            }
        }
        match cycle(briefs) {
            Some(cycle) => Err(format!("the briefs wait for each other: {cycle}")),
            None => Ok(()),
        }
    }

    /// What a plan costs, about: each of its briefs as many turns as its effort takes, each turn with
    /// all that was said before; a check where something is to be accepted; the answer.
    pub fn estimate(&self, plan: &Plan, inputs: &[Value]) -> Estimate {
        let effort = plan.effort.unwrap_or(match plan.briefs.len() {
            ..=2 => Effort::Simple,
            3..=5 => Effort::Moderate,
            _ => Effort::Large,
        });
        let tokens = |text: &str| text.len() as u64 / 4;
        let mut estimate = Estimate {
            amount: Amount::default(),
        };
        let mut add = |mind: &Mind, turns: u64, first: u64| {
            let growth = TURN_TOKENS * (turns * turns.saturating_sub(1) / 2);
            let usage = Usage {
                input_tokens: turns * (first + FRAME_TOKENS) + growth,
                cached_tokens: 0,
                output_tokens: turns * WRITTEN_TOKENS,
            };
            let seat: Option<&Seat> = mind.seats.first();
            let cost = seat.map(|seat| seat.cost(&usage)).unwrap_or_default();
            estimate.amount = estimate.amount.plus(Amount {
                calls: turns,
                ..cost
            });
        };
        for brief in &plan.briefs {
            let given = brief
                .inputs
                .iter()
                .filter_map(|n| inputs.get(n.checked_sub(1)?));
            let given: u64 = given.map(|input| tokens(&input.to_string())).sum();
            let needed = brief.needs.len() as u64 * WRITTEN_TOKENS;
            let first = tokens(&brief.objective) + given + needed;
            if self.splits(brief) {
                // As if its planner did it, in twice as many turns.
                add(&self.planner, 2 * effort.turns(), first);
            } else if let Ok((mind, _)) = self.member(brief) {
                let role = brief.spawn.as_ref().map_or("", |spawned| &spawned.prompt);
                let own = tokens(&mind.instructions) + tokens(role);
                add(mind, effort.turns(), first + own);
            }
            if !brief.acceptance.is_empty() {
                add(&self.planner, 1, first + WRITTEN_TOKENS);
            }
        }
        let results = plan.briefs.len() as u64 * WRITTEN_TOKENS;
        add(&self.planner, 1, results);
        estimate
    }
}

/// Gives names to briefs that have none.
pub(super) fn name_briefs(briefs: &mut [Planned], there: &BTreeSet<&str>) -> Result<(), String> {
    let mut names: BTreeSet<String> = there.iter().map(|name| (*name).to_owned()).collect();
    for (n, brief) in briefs.iter().enumerate() {
        if !brief.id.is_empty() && !names.insert(brief.id.clone()) {
            return Err(format!(
                "brief {} is named “{}”, as another is",
                n + 1,
                brief.id
            ));
        }
        if brief.id.len() > 64 {
            return Err(format!(
                "the name of brief {} has more than 64 bytes",
                n + 1
            ));
        }
    }
    let mut next = there.len();
    for brief in briefs.iter_mut().filter(|brief| brief.id.is_empty()) {
        brief.id = loop {
            next += 1;
            let name = format!("b{next}");
            if names.insert(name.clone()) {
                break name;
            }
        };
    }
    Ok(())
}

/// Briefs that need each other, as `a → b → a`.
fn cycle(briefs: &[Planned]) -> Option<String> {
    let by_name: BTreeMap<&str, &Planned> = briefs
        .iter()
        .map(|brief| (brief.id.as_str(), brief))
        .collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let waits = |brief: &&&Planned| {
            let open = |need: &String| {
                by_name.contains_key(need.as_str()) && !done.contains(need.as_str())
            };
            brief.needs.iter().any(open)
        };
        let open: Vec<&Planned> = briefs
            .iter()
            .filter(|brief| !done.contains(brief.id.as_str()))
            .collect();
        let ready: Vec<&str> = open
            .iter()
            .filter(|brief| !waits(brief))
            .map(|brief| brief.id.as_str())
            .collect();
        if open.is_empty() {
            return None;
        }
        if !ready.is_empty() {
            done.extend(ready);
            continue;
        }
        let mut path: Vec<&str> = Vec::new();
        let mut at = open[0].id.as_str();
        loop {
            if let Some(start) = path.iter().position(|name| *name == at) {
                let mut names = path[start..].to_vec();
                names.push(at);
                return Some(names.join(" → "));
            }
            path.push(at);
            let needs = by_name
                .get(at)
                .map(|brief| brief.needs.as_slice())
                .unwrap_or_default();
            at = needs
                .iter()
                .map(String::as_str)
                .find(|need| by_name.contains_key(need) && !done.contains(need))?;
        }
    }
}
