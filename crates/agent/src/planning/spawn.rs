//! Agents that a plan makes up for its run: a name, a prompt, and tools out of those that the crew's
//! file lets it grant.
//!
//! Only the planner makes them, by a brief; what is made cannot make anybody, and is gone with its
//! brief. What it may be granted is checked twice: in the plan, so that the planner is told, and again
//! where the brief is done, because a plan may have come from somewhere else.

use super::plan::Planned;
use crate::hands::Granted;
use crate::mind::Mind;
use crate::tool::Toolbox;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Characters of a name or a tool's name, at most.
const NAME_CHARS_MAX: usize = 64;
/// Characters of a prompt, at most.
pub const PROMPT_CHARS_MAX: usize = 20_000;
/// Agents that a run's plans may make up, at most.
pub const SPAWNED_MAX: u32 = 50;

/// What a plan may make agents of.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// How many of them a run may have.
    pub agents: u32,
    /// The tools that they may be granted.
    pub tools: BTreeSet<String>,
    /// How they think, without instructions: who they are is their brief's word, because a planner
    /// writes it, from what it has read.
    pub mind: Mind,
    /// Where their tools are.
    pub toolbox: Arc<Toolbox>,
    /// The tools whose every call waits for a person's yes.
    pub approve: BTreeSet<String>,
}

/// An agent as a plan makes it up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spawned {
    /// Who it is and how it works.
    pub prompt: String,
    /// What it may use, and nothing else.
    #[serde(default)]
    pub tools: BTreeSet<String>,
}

impl Spawn {
    /// The agent's mind.
    ///
    /// # Errors
    /// `tool.not_granted` when it is to have what it may not.
    pub(super) fn mind(&self, name: &str, spawned: &Spawned) -> Result<Mind, Failure> {
        if let Err(complaint) = self.allows(name, spawned) {
            return Err(Failure::permanent("tool.not_granted", complaint));
        }
        Ok(Mind {
            hands: Arc::new(Granted {
                toolbox: Arc::clone(&self.toolbox),
                tools: spawned.tools.clone(),
                approve: self.approve.clone(),
            }),
            ..self.mind.clone()
        })
    }

    /// Whether an agent may be made so; if not, what is wrong with it.
    pub(super) fn allows(&self, name: &str, spawned: &Spawned) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || !name.chars().all(plain) || name.len() > NAME_CHARS_MAX {
            return Err(format!(
                "“{name}” is no name for an agent: a small letter, then small letters, digits, _ and -"
            ));
        }
        let chars = spawned.prompt.chars().count();
        if spawned.prompt.trim().is_empty() || chars > PROMPT_CHARS_MAX {
            return Err(format!(
                "the prompt of “{name}” has {chars} characters; say who it is and how it works in 1 to {PROMPT_CHARS_MAX}"
            ));
        }
        match spawned.tools.difference(&self.tools).next() {
            None => Ok(()),
            Some(tool) => {
                let may: Vec<_> = self.tools.iter().map(String::as_str).collect();
                Err(format!(
                    "“{name}” cannot be granted “{tool}”; what it can be granted: {}",
                    may.join(", ")
                ))
            }
        }
    }

    /// Whether there are not too many, and no two of one name.
    pub(super) fn bounds<'a>(
        &self,
        briefs: impl Iterator<Item = &'a Planned>,
    ) -> Result<(), String> {
        let mut all: BTreeMap<&str, &Spawned> = BTreeMap::new();
        for brief in briefs {
            let Some(spawned) = &brief.spawn else {
                continue;
            };
            if all
                .insert(&brief.agent, spawned)
                .is_some_and(|other| other != spawned)
            {
                return Err(format!(
                    "two briefs make “{}”, each another one; give them two names",
                    brief.agent
                ));
            }
        }
        match all.len() {
            count if count > self.agents as usize => Err(format!(
                "it makes {count} agents, and {} are allowed",
                self.agents
            )),
            _ => Ok(()),
        }
    }

    /// What the planner is told.
    pub(super) async fn told(&self) -> Value {
        let specs = self.toolbox.specs(&self.tools).await;
        let own = |name: &str| self.toolbox.name_of(name).map(|name| name.to_string());
        let tools: BTreeMap<String, String> = specs
            .into_iter()
            .filter_map(|spec| Some((own(&spec.name)?, spec.description)))
            .collect();
        json!({"agents": self.agents, "tools": tools})
    }
}

/// The form in which a brief makes its agent.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["prompt", "tools"],
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "maxLength": PROMPT_CHARS_MAX},
            "tools": {"type": "array", "items": {"type": "string"}},
        },
    })
}

/// What the planner is told of it in words.
pub(super) const HOW: &str = "\nWhere no agent fits, a brief may name one that is not there and `spawn` it: a \
prompt that says who it is, how it works and what to do when something goes wrong, and the tools it needs, \
no others. How many and which tools is in the inputs.";
