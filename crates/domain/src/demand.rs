//! Demand: a tool that somebody wanted and did not have.
//!
//! What agents miss is how people learn which tool to bring next. So it is counted by the tool's name,
//! with the first and the last time, and who wanted it last. The same task's wish counts once, however
//! often it is uttered: models repeat themselves, and so do attempts.
//!
//! Deliberately absent: forgetting. The names are bounded, and what nobody asks for any more shows by
//! its last time.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::error::Error;
use crate::event::{Event, Recorded};
use crate::id::{RunId, TaskId};
use crate::limits::DEMANDS_MAX;
use crate::name::Name;
use crate::state::State;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why a tool was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// There is no such tool.
    Unknown,
    /// There is, but not for whoever wanted it.
    NotGranted,
    /// There is, but it could not be called then.
    Unavailable,
}

impl Lack {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotGranted => "not_granted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Somebody wanted a tool and did not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Miss {
    /// The tool's name, as it was wanted.
    pub tool: Name,
    /// Why it was not to be had.
    pub lack: Lack,
    /// Who wanted it: an agent, or a supervisor for its plan.
    pub by: Name,
    /// In which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// For which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// A tool that is missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Demand {
    /// How often it was wanted.
    pub count: u64,
    /// When it was wanted first.
    pub first_at: Time,
    /// When it was wanted last.
    pub last_at: Time,
    /// By whom and why then.
    #[serde(flatten)]
    pub last: Miss,
}

impl Demand {
    pub(crate) fn first(miss: &Miss, at: Time) -> Self {
        Self {
            count: 1,
            first_at: at,
            last_at: at,
            last: miss.clone(),
        }
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::ToolMissed { miss, .. } => {
                self.count += 1;
                self.last_at = recorded.at;
                self.last = (**miss).clone();
            }
            other => debug_assert!(false, "{} does not fold on a demand", other.name()),
        }
    }
}

/// Notes that a tool is missed. For the same task twice in a row it is noted once.
pub(crate) fn miss(state: &State, miss: &Arc<Miss>) -> Decision {
    let known = state.demand(&miss.tool);
    let again = |known: &&Demand| miss.task.is_some() && known.last.task == miss.task;
    if known.as_ref().is_some_and(again) {
        return Decision::answer(Outcome::Done);
    }
    let names = state.tally().map_or(0, |tally| tally.demands);
    if known.is_none() && names >= DEMANDS_MAX {
        return Decision::refuse(Error::limit(
            "names of tools that are missed",
            names as usize + 1,
            DEMANDS_MAX as usize,
        ));
    }
    Decision::event(
        Event::ToolMissed {
            miss: Arc::clone(miss),
            first: known.is_none(),
        },
        Outcome::Done,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::decide::decide;
    use crate::error::Code;
    use crate::id::CountedIds;
    use crate::state::{Key, Row};

    fn wanted(tool: &str, task: u128) -> Command {
        Command::ToolMiss(Arc::new(Miss {
            tool: Name::new(tool).unwrap(),
            lack: Lack::Unknown,
            by: Name::literal("clerk"),
            run: None,
            task: Some(TaskId::new(task)),
        }))
    }

    /// Decides and folds.
    fn told(state: &mut State, command: &Command, at: u64) -> Result<(), Code> {
        let mut keys = Vec::new();
        command.needs(state, Time(at), &mut keys);
        for key in keys {
            let row = state.unload(&key).flatten();
            state.put(key, row);
        }
        let decision = decide(state, command, Time(at), &mut CountedIds::new(1));
        for event in decision.events {
            let mut keys = Vec::new();
            event.touches(&mut keys);
            let recorded = Recorded {
                position: at,
                at: Time(at),
                cause: None,
                by: None,
                event,
            };
            for key in keys {
                let row = state.unload(&key).flatten();
                state.put(key.clone(), Row::evolve(row, &key, &recorded));
            }
        }
        decision.outcome.map(drop).map_err(|error| error.code)
    }

    #[test]
    fn a_demand_is_counted_by_name_and_once_a_task() {
        let mut state = State::default();
        for (tool, task, at) in [
            ("mail", 1, 10),
            ("mail", 1, 20),
            ("fax", 1, 30),
            ("mail", 2, 40),
        ] {
            told(&mut state, &wanted(tool, task), at).unwrap();
        }
        let mail = state.demand(&Name::literal("mail")).unwrap();
        assert_eq!(
            (mail.count, mail.first_at, mail.last_at),
            (2, Time(10), Time(40))
        );
        assert_eq!(mail.last.task, Some(TaskId::new(2)));
        assert_eq!(state.demand(&Name::literal("fax")).unwrap().count, 1);
        assert_eq!(state.tally().unwrap().demands, 2);
    }

    #[test]
    fn the_names_are_bounded() {
        let mut state = State::default();
        for number in 0..DEMANDS_MAX {
            told(&mut state, &wanted(&format!("tool{number}"), 1), 1).unwrap();
        }
        let more = wanted("one.more", 1);
        assert_eq!(told(&mut state, &more, 2), Err(Code::LimitExceeded));
        assert!(state.get(&Key::Demand(Name::literal("one.more"))).is_none());
        // What is known is counted all the same.
        told(&mut state, &wanted("tool7", 2), 3).unwrap();
        assert_eq!(state.demand(&Name::literal("tool7")).unwrap().count, 2);
    }
}
