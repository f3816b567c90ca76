//! A mind's voice: what it says and calls, told to whoever watches while it happens
//! ([`Context::say`]).
//!
//! Only what happens now is told: what is read from its receipt was told by the attempt that did it.
//! Each try at a model is a turn of its own, so that the words of one that broke off can be told from
//! the answer. What tools give back is not told, only how much it was.

use crate::gate::NO_ANSWER;
use crate::model::Delta;
use crate::tool::Tell;
use chargehand::{Context, Failure, Said};
use serde_json::Value;
use std::sync::Arc;

/// One question to a model, however often it has to be asked.
pub(crate) struct Voice<'a> {
    task: &'a Context,
    /// The try that goes on.
    turn: Option<u32>,
}

impl<'a> Voice<'a> {
    pub(crate) const fn of(task: &'a Context) -> Self {
        Self { task, turn: None }
    }

    /// A piece of an answer.
    pub(crate) fn hear(&mut self, delta: &Delta<'_>) {
        match (delta, self.turn) {
            (Delta::Begun, _) => {
                self.end(false);
                let turn = self.task.next_turn();
                self.turn = Some(turn);
                self.task.say(Said::TurnBegan { turn });
            }
            (Delta::Late(text), _) => {
                self.end(false);
                note(self.task, format!("{NO_ANSWER}{text}"));
            }
            (Delta::Text(text), Some(turn)) => {
                let text = (*text).to_owned();
                self.task.say(Said::Text { turn, text });
            }
            // A call is told when it is made: not every call that is wanted is.
            (Delta::Text(_) | Delta::Call(_), _) => {}
        }
    }

    /// The try is over, with an answer or without.
    pub(crate) fn end(&mut self, whole: bool) {
        if let Some(turn) = self.turn.take() {
            self.task.say(Said::TurnEnded { turn, whole });
        }
    }
}

impl Drop for Voice<'_> {
    /// Nobody waits for the answer any more.
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Something that whoever watches should know.
pub(crate) fn note(task: &Context, text: String) {
    task.say(Said::Note { text });
}

/// A call begins.
pub(crate) fn calling(task: &Context, tool: &str, arguments: &Value) {
    task.say(Said::ToolCall {
        tool: tool.to_owned(),
        arguments: arguments.to_string(),
    });
}

/// How far it is, whenever it says so.
pub(crate) fn telling(task: &Context, tool: &str) -> Tell {
    let (task, tool) = (task.clone(), tool.to_owned());
    Arc::new(move |text| {
        let tool = tool.clone();
        task.say(Said::ToolProgress { tool, text });
    })
}

/// It has ended.
pub(crate) fn called(task: &Context, tool: &str, outcome: &Result<Value, Failure>) {
    let bytes = match outcome {
        Ok(Value::String(text)) => text.len(),
        Ok(output) => output.to_string().len(),
        Err(failure) => failure.message.len(),
    };
    task.say(Said::ToolResult {
        tool: tool.to_owned(),
        succeeded: outcome.is_ok(),
        bytes: bytes as u64,
    });
}
