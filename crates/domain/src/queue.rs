//! The queue: where tasks wait, how many, and whether it gives any out. And the slot: how many
//! tasks of one concurrency key run.

use crate::command::Outcome;
use crate::decide::Decision;
use crate::event::{Event, Recorded};
use crate::name::Name;
use crate::state::State;
use serde::{Deserialize, Serialize};

/// A queue's row. A queue exists from its first task on, or from its first pause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Gives out nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Tasks that wait in it, whatever they wait for.
    pub pending: u64,
    /// Tasks of it that workers hold.
    pub leased: u64,
}

impl Queue {
    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TaskSubmitted { .. } | Event::TaskRedriven { .. } => self.pending += 1,
            Event::TaskAssigned { .. } => {
                self.pending -= 1;
                self.leased += 1;
            }
            Event::TaskStarted { .. } => {}
            Event::TaskCompleted { .. } => self.leased -= 1,
            Event::AttemptEnded { .. } => {
                self.leased -= 1;
                self.pending += 1;
            }
            Event::TaskFailed { .. } | Event::TaskCancelled { lease: None, .. } => {
                self.pending -= 1
            }
            Event::TaskCancelled { lease: Some(_), .. } => self.leased -= 1,
            Event::QueuePaused { .. } => self.paused = true,
            Event::QueueResumed { .. } => self.paused = false,
            other => debug_assert!(false, "{} does not fold on a queue", other.name()),
        }
    }
}

/// A concurrency key's row: how many of its tasks are leased, and how many may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Leased now.
    pub running: u32,
    /// At most, as the newest claim said.
    pub max: u32,
}

impl Slot {
    /// Whether another may be leased.
    pub fn is_open(&self) -> bool {
        self.running < self.max || self.max == 0
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::TaskAssigned { slot_max, .. } => {
                self.running += 1;
                self.max = slot_max.unwrap_or(self.max);
            }
            Event::TaskCompleted { .. }
            | Event::AttemptEnded { .. }
            | Event::TaskCancelled { lease: Some(_), .. } => self.running -= 1,
            Event::TaskStarted { .. }
            | Event::TaskFailed { .. }
            | Event::TaskRedriven { .. }
            | Event::TaskCancelled { lease: None, .. } => {}
            other => debug_assert!(false, "{} does not fold on a slot", other.name()),
        }
    }
}

/// Pauses or resumes; saying it twice changes nothing.
pub(crate) fn pause(state: &State, queue: &Name, paused: bool) -> Decision {
    if state.queue(queue).is_some_and(|queue| queue.paused) == paused {
        return Decision::answer(Outcome::Done);
    }
    let queue = queue.clone();
    let event = if paused {
        Event::QueuePaused { queue }
    } else {
        Event::QueueResumed { queue }
    };
    Decision::event(event, Outcome::Done)
}
