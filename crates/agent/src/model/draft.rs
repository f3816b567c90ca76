//! An answer that is being written: what every dialect's reader fills, within the bounds that hold
//! for all of them.

use super::{
    ANSWER_BYTES_MAX, Answer, CALLS_MAX, Call, Delta, Fault, Listener, ModelError, Stop, Usage,
};
use serde_json::{Map, Value};

/// How ids begin that an adapter made up: a provider never hears them.
pub(super) const MADE_UP: &str = "call_made_up_";

/// An answer that is being written, within its bounds.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// How many turns came before it, for ids that are made up.
    turns: usize,
    text: String,
    calls: Vec<CallDraft>,
    bytes: usize,
    pub(super) stop: Option<Stop>,
    pub(super) usage: Usage,
    /// The stream has said that this is all.
    pub(super) ended: bool,
}

#[derive(Debug)]
struct CallDraft {
    place: u64,
    id: String,
    tool: String,
    arguments: String,
}

impl Draft {
    /// After so many turns.
    pub(super) fn new(turns: usize) -> Self {
        Self {
            turns,
            ..Self::default()
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.bytes += bytes;
        if self.bytes <= ANSWER_BYTES_MAX {
            return Ok(());
        }
        let text = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
        Err(ModelError::new(Fault::Broken, text))
    }

    /// More words.
    pub(super) fn say(
        &mut self,
        piece: &str,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.grow(piece.len())?;
        self.text.push_str(piece);
        listener(Delta::Text(piece));
        Ok(())
    }

    /// How many calls there are: the place of a next one, where the dialect numbers none.
    pub(super) fn places(&self) -> u64 {
        self.calls.len() as u64
    }

    /// The id of the call at this place.
    pub(super) fn id_at(&self, place: u64) -> Option<&str> {
        let call = self.calls.iter().rev().find(|call| call.place == place)?;
        Some(&call.id)
    }

    /// An id for the next call: the same whenever the same conversation is answered, and no other
    /// call's of that conversation.
    pub(super) fn made_up(&self) -> String {
        format!("{MADE_UP}{}_{}", self.turns, self.calls.len())
    }

    /// A call begins at this place. Without an id it gets one.
    pub(super) fn call(
        &mut self,
        place: u64,
        id: &str,
        tool: &str,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        if self.calls.len() == CALLS_MAX {
            let text = format!("the answer has more than {CALLS_MAX} calls");
            return Err(ModelError::new(Fault::Broken, text));
        }
        self.grow(id.len() + tool.len())?;
        let id = match id {
            "" => self.made_up(),
            id => id.to_owned(),
        };
        self.calls.push(CallDraft {
            place,
            id,
            tool: tool.to_owned(),
            arguments: String::new(),
        });
        if !tool.is_empty() {
            listener(Delta::Call(tool));
        }
        Ok(())
    }

    /// The tool of the call at this place, when it comes after the call's beginning.
    pub(super) fn name(
        &mut self,
        place: u64,
        tool: &str,
        listener: &mut Listener<'_>,
    ) -> Result<(), ModelError> {
        self.grow(tool.len())?;
        let call = self.calls.iter_mut().rev().find(|call| call.place == place);
        if let Some(call) = call.filter(|call| call.tool.is_empty() && !tool.is_empty()) {
            tool.clone_into(&mut call.tool);
            listener(Delta::Call(tool));
        }
        Ok(())
    }

    /// More of the arguments of the call at this place.
    pub(super) fn arguments(&mut self, place: u64, piece: &str) -> Result<(), ModelError> {
        self.grow(piece.len())?;
        match self.calls.iter_mut().rev().find(|call| call.place == place) {
            Some(call) => call.arguments.push_str(piece),
            None => {
                let text = "the stream has arguments of a call that did not begin";
                return Err(ModelError::new(Fault::Broken, text));
            }
        }
        Ok(())
    }

    /// All of the arguments of the call at this place, whatever came before.
    pub(super) fn arguments_whole(&mut self, place: u64, whole: &str) -> Result<(), ModelError> {
        if let Some(call) = self.calls.iter_mut().rev().find(|call| call.place == place) {
            self.bytes -= call.arguments.len();
            call.arguments.clear();
        }
        self.arguments(place, whole)
    }

    /// What was written, if that is all.
    pub(super) fn finish(self) -> Result<Answer, ModelError> {
        if !self.ended {
            let text = "the answer broke off: its stream ended before it was complete";
            return Err(ModelError::new(Fault::Broken, text));
        }
        let stop = match self.stop {
            None | Some(Stop::Done | Stop::Calls) if self.calls.is_empty() => Stop::Done,
            None | Some(Stop::Done | Stop::Calls) => Stop::Calls,
            Some(stop) => stop,
        };
        let calls = self.calls.into_iter().map(|call| Call {
            id: call.id,
            tool: call.tool,
            arguments: match call.arguments.trim() {
                "" => Value::Object(Map::new()),
                _ => serde_json::from_str(&call.arguments).unwrap_or(Value::String(call.arguments)),
            },
        });
        Ok(Answer {
            text: self.text,
            calls: calls.collect(),
            stop,
            usage: self.usage,
        })
    }
}
