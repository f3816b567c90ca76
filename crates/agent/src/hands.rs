//! Hands: what a mind may do besides thinking.
//!
//! A mind sees tools through its grants only: what was not granted is not there for it.

use crate::board;
use crate::model::ToolSpec;
use crate::tool::{Tell, ToolCard, Toolbox, nobody};
use crate::voice;
use async_trait::async_trait;
use chargehand::{Context, EffectClass};
use domain::demand::{Lack, Miss};
use domain::limits::NAME_BYTES_MAX;
use domain::name::Name;
use domain::task::Failure;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a call needs beside the grant: a person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// For every call.
    pub every: bool,
    /// For a call that fills one of these arguments with what nobody vouches for.
    pub sensitive: Vec<String>,
}

/// What a mind may do besides thinking: the tools that were granted to it, and no others.
#[async_trait]
pub trait Hands: Send + Sync + fmt::Debug {
    /// What can be done now, as the model is told of it.
    async fn specs(&self) -> Vec<ToolSpec>;

    /// The tool's own name, for whom models know by another, and what doing it twice would mean; none
    /// when there is no such tool, or it is not granted.
    fn known(&self, tool: &str) -> Option<(String, EffectClass)>;

    /// What a call of it needs beside the grant.
    fn guard(&self, _tool: &str) -> Guard {
        Guard::default()
    }

    /// Whether what a tool gives was written by somebody else: so it is, unless it is known not to be.
    fn is_untrusted(&self, _tool: &str) -> bool {
        true
    }

    /// The names of those that are granted and cannot be called now.
    async fn unavailable(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Notes that a tool was wanted which is not there, or not for this mind.
    async fn missed(&self, task: &Context, tool: &str) {
        note_missed(task, tool, Lack::Unknown).await;
    }

    /// Does it, for this task. `key` is the same however often this very call is tried.
    ///
    /// # Errors
    /// Why it was not done; [`Failure::in_doubt`] when it may have been.
    async fn call(
        &self,
        task: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure>;
}

/// What a call fails with when its tool is not to be had: nothing was done.
const LACKING: [&str; 3] = ["tool.unavailable", "mcp.unreachable", "mcp.no_tool"];

/// Longest wait for tools to say whether they can be called.
const ASKED: Duration = Duration::from_secs(5);

/// Notes that a tool was wanted and not to be had. A task goes on whether or not this can be noted.
pub(crate) async fn note_missed(task: &Context, tool: &str, lack: Lack) {
    // Models write anything; a name is what is left of it.
    let plain: String = tool.chars().filter(|c| !c.is_control()).collect();
    let plain = plain.trim();
    let plain = plain[..plain.floor_char_boundary(NAME_BYTES_MAX)].trim_end();
    let Ok(tool) = Name::new(plain) else {
        return;
    };
    let assignment = task.assignment();
    let miss = Miss {
        tool,
        lack,
        by: task.speaker().clone(),
        run: assignment.run_id,
        task: Some(assignment.task_id),
    };
    let _ = task.api().tool_missed(miss).await;
}

/// A mind without hands.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHands;

#[async_trait]
impl Hands for NoHands {
    async fn specs(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
    fn known(&self, _: &str) -> Option<(String, EffectClass)> {
        None
    }
    async fn call(&self, _: &Context, tool: &str, _: &Value, _: &str) -> Result<Value, Failure> {
        let text = format!("there is no tool “{tool}”");
        Err(Failure::permanent("tool.unknown", text))
    }
}

/// The tools that were granted to one agent.
#[derive(Debug, Clone)]
pub struct Granted {
    /// All there are.
    pub toolbox: Arc<Toolbox>,
    /// The names of those it may use.
    pub tools: BTreeSet<String>,
    /// Of those, the ones whose every call waits for a person's yes.
    pub approve: BTreeSet<String>,
}

impl Granted {
    /// Makes a call of a tool from the toolbox.
    ///
    /// # Errors
    /// As [`Toolbox::call`]; [`Failure::in_doubt`] when it may have had an effect that must not be
    /// repeated.
    pub async fn make(&self, tool: &str, arguments: &Value, key: &str) -> Result<Value, Failure> {
        self.make_telling(tool, arguments, key, nobody()).await
    }

    /// As [`make`](Self::make), telling how far the call is while it goes on, where its tool does.
    ///
    /// # Errors
    /// The same.
    pub async fn make_telling(
        &self,
        tool: &str,
        arguments: &Value,
        key: &str,
        tell: Tell,
    ) -> Result<Value, Failure> {
        let Some(card) = self.card(tool) else {
            let text = format!("there is no tool “{tool}” for you");
            return Err(Failure::permanent("tool.unknown", text));
        };
        let name = card.name.as_str();
        let toolbox = &self.toolbox;
        let called = toolbox.call_telling(&self.tools, name, arguments, key, tell);
        called
            .await
            .map_err(|failure| match card.leaves_in_doubt(&failure) {
                true => Failure::in_doubt(failure.message),
                false => failure,
            })
    }

    /// A tool of the board, if it was granted.
    fn board(&self, tool: &str) -> Option<(&'static str, EffectClass)> {
        board::known(tool).filter(|(name, _)| self.tools.contains(*name))
    }

    /// The granted tool that models know by this name. Its own name will do, too.
    fn card(&self, tool: &str) -> Option<Arc<ToolCard>> {
        let own = self.toolbox.name_of(tool);
        let name = own.as_ref().map_or(tool, Name::as_str);
        let card = self.toolbox.card(name)?;
        self.tools.contains(name).then_some(card)
    }
}

#[async_trait]
impl Hands for Granted {
    async fn specs(&self) -> Vec<ToolSpec> {
        let mut specs = self.toolbox.specs(&self.tools).await;
        specs.extend(self.tools.iter().filter_map(|tool| board::spec(tool)));
        specs
    }

    fn guard(&self, tool: &str) -> Guard {
        if let Some((name, _)) = self.board(tool) {
            return Guard {
                every: self.approve.contains(name),
                sensitive: Vec::new(),
            };
        }
        let guard = |card: Arc<ToolCard>| Guard {
            every: self.approve.contains(card.name.as_str()),
            sensitive: card.sensitive.clone(),
        };
        self.card(tool).map(guard).unwrap_or_default()
    }

    fn is_untrusted(&self, tool: &str) -> bool {
        self.card(tool).is_none_or(|card| card.untrusted_output)
    }

    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        if let Some((name, effect)) = self.board(tool) {
            return Some((name.to_owned(), effect));
        }
        let card = self.card(tool)?;
        Some((card.name.to_string(), card.effect))
    }

    async fn call(
        &self,
        task: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        if let Some((name, _)) = self.board(tool) {
            return board::call(task, name, arguments, key).await;
        }
        let tell = match self.card(tool) {
            Some(card) => voice::telling(task, &card.name),
            None => nobody(),
        };
        let made = self.make_telling(tool, arguments, key, tell).await;
        if let (Err(failure), Some(card)) = (&made, self.card(tool))
            && LACKING.contains(&failure.code.as_str())
        {
            note_missed(task, &card.name, Lack::Unavailable).await;
        }
        made
    }

    async fn unavailable(&self) -> BTreeSet<String> {
        let mut asked = JoinSet::new();
        for tool in &self.tools {
            let (toolbox, tool) = (Arc::clone(&self.toolbox), tool.clone());
            // One that was granted and is not there yet is not available, either.
            if board::known(&tool).is_none() {
                asked.spawn(async move { toolbox.available(&tool).await.err().map(|_| tool) });
            }
        }
        let mut unavailable = BTreeSet::new();
        let all = async {
            while let Some(said) = asked.join_next().await {
                unavailable.extend(said.ok().flatten());
            }
        };
        // Whoever has not said by then shows it when it is called.
        let _ = tokio::time::timeout(ASKED, all).await;
        unavailable
    }

    async fn missed(&self, task: &Context, tool: &str) {
        let own = self.toolbox.name_of(tool);
        let name = own.as_ref().map_or(tool, Name::as_str);
        let is_there = self.toolbox.card(name).is_some() || board::known(tool).is_some();
        let lack = match is_there {
            true => Lack::NotGranted,
            false => Lack::Unknown,
        };
        note_missed(task, name, lack).await;
    }
}
