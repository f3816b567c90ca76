//! Mustering a crew: from what its file says to minds that can be asked.
//!
//! One gate per provider, address and key, however many models and agents share it. Keys are read
//! here, from the environment, and go nowhere but into the adapters.

use crate::crew::{Agent, AgentBudget, Crew, CrewModel};
use crate::gate::Gate;
use crate::hands::{Granted, NoHands};
use crate::mind::{Bounds, Mind, ROUNDS_DEFAULT, Seat};
use crate::model::{Fault, Key, ModelError, Provider, Settings, connect};
use crate::planning::{Member, Minds, PLANNER_BOUNDS, Spawn};
use crate::tool::Toolbox;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The minds of a crew, ready to be asked. Nothing is sent yet.
///
/// # Errors
/// `crew.tools` when two tools have one name; a key that is missing or an address that cannot be used, with the model's name in the crew.
pub fn muster(crew: &Crew) -> Result<Minds, ModelError> {
    let toolbox = Toolbox::of_crew(crew, []).map_err(|failure| ModelError {
        code: "crew.tools",
        ..ModelError::new(Fault::Refused, failure.message)
    })?;
    let toolbox = Arc::new(toolbox);
    let mut gates: BTreeMap<Gated, Gate> = BTreeMap::new();
    let mut seats = BTreeMap::new();
    for (name, model) in &crew.models {
        let seat = seat(crew, model, &mut gates).map_err(|error| ModelError {
            message: format!("model “{name}”: {}", error.message),
            ..error
        })?;
        seats.insert(name.as_str(), seat);
    }
    let planner = Mind {
        instructions: crew.supervisor.instructions.clone(),
        seats: in_line(crew, &seats, &crew.supervisor.model),
        hands: Arc::new(NoHands),
        bounds: Bounds {
            rounds: crew.supervisor.rounds,
            tokens: crew.budget.tokens,
            // It calls nothing; an assistant that has everybody's tools may call so often.
            calls: crew.budget.calls,
            ..PLANNER_BOUNDS
        },
    };
    let members = crew.agents.iter().map(|(name, agent)| {
        let member = Member {
            description: agent.description.clone(),
            tools: agent.tools.clone(),
            output: agent.output.clone(),
            mind: mind(crew, agent, &seats, &toolbox),
        };
        (name.clone(), member)
    });
    Ok(Minds {
        planner,
        members: members.collect(),
        fan_out: crew.budget.fan_out,
        replans: crew.supervisor.replans,
        depth: crew.budget.depth,
        spawn: crew.supervisor.spawn.as_ref().map(|spawn| Spawn {
            agents: spawn.agents,
            tools: spawn.tools.clone(),
            mind: Mind {
                instructions: String::new(),
                seats: in_line(crew, &seats, &spawn.model),
                hands: Arc::new(NoHands),
                bounds: bounds(crew, ROUNDS_DEFAULT, &AgentBudget::default()),
            },
            toolbox: Arc::clone(&toolbox),
            approve: crew.approve.clone(),
        }),
    })
}

/// What a gate stands before.
type Gated = (Provider, Option<String>, Option<String>);

fn seat(
    crew: &Crew,
    model: &CrewModel,
    gates: &mut BTreeMap<Gated, Gate>,
) -> Result<Seat, ModelError> {
    let key = key(model)?;
    let settings = Settings {
        base_url: model.base_url.clone(),
        key: key.as_deref().map(Key::new).transpose()?,
        key_variable: match &model.key {
            Some(secret) => Some(secret.variable()),
            None if key.is_some() => model.model.provider.key_variable().map(str::to_owned),
            None => None,
        },
        ..Settings::default()
    };
    let mut name = model.model.clone();
    if name.provider == Provider::Scripted {
        // A transcript lies beside its crew file.
        name.model = crew.folder.join(&name.model).display().to_string();
    }
    let asked = connect(&name, &settings)?;
    let gated = (name.provider, model.base_url.clone(), key);
    let gate = match gates.get(&gated) {
        Some(gate) => gate.beside(asked),
        None => gates.entry(gated).or_insert(Gate::before(asked)).clone(),
    };
    Ok(Seat {
        name: model.model.to_string(),
        model: name.model,
        gate,
        tokens_max: model.tokens_max.unwrap_or(0),
        temperature: model.temperature,
        price: model.known_price(),
    })
}

/// The key of a model, if it has one.
fn key(model: &CrewModel) -> Result<Option<String>, ModelError> {
    if let Some(secret) = &model.key {
        let variable = secret.variable();
        let missing = || ModelError::new(Fault::Key, format!("{variable} is not set"));
        return secret.reveal().ok_or_else(missing).map(Some);
    }
    if model.base_url.is_some() {
        // A provider's own key is not for another address.
        return Ok(None);
    }
    let variable = model.model.provider.key_variable();
    let set = variable.and_then(|variable| std::env::var(variable).ok());
    Ok(set.filter(|key| !key.trim().is_empty()))
}

/// A model and those it falls back to.
fn in_line(crew: &Crew, seats: &BTreeMap<&str, Seat>, first: &str) -> Vec<Seat> {
    let mut line = Vec::new();
    let mut next = Some(first);
    // A fallback's cycle is refused when the file is read; this ends all the same.
    while let Some(name) = next.filter(|_| line.len() <= crew.models.len()) {
        line.extend(seats.get(name).cloned());
        next = crew
            .models
            .get(name)
            .and_then(|model| model.fallback.as_deref());
    }
    line
}

fn mind(crew: &Crew, agent: &Agent, seats: &BTreeMap<&str, Seat>, toolbox: &Arc<Toolbox>) -> Mind {
    Mind {
        instructions: agent.instructions.clone(),
        seats: in_line(crew, seats, &agent.model),
        hands: Arc::new(Granted {
            toolbox: Arc::clone(toolbox),
            tools: agent.tools.clone(),
            approve: crew.approve.clone(),
        }),
        bounds: bounds(crew, agent.rounds, &agent.budget),
    }
}

/// How far an agent may go with one task: never further than its run.
fn bounds(crew: &Crew, rounds: u32, own: &AgentBudget) -> Bounds {
    let (run, most) = (&crew.budget, u64::MAX);
    Bounds {
        rounds,
        calls: run.calls.min(own.calls.unwrap_or(u32::MAX)),
        tokens: run.tokens.min(own.tokens.unwrap_or(most)),
        usd_micros: run.usd_micros.min(own.usd_micros.unwrap_or(most)),
    }
}
