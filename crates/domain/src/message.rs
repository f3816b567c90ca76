//! Messages: addressed delivery between agents.
//!
//! A message is accepted for named recipients, who are resolved when it is sent: an agent, the
//! subscribers of a type, everybody, or those a filter admits. From then on each recipient's part
//! ends in exactly one of three ways, and the row says which: delivered, dead-lettered, expired.

use crate::command::{Made, Outcome, Recalled, digest, recall};
use crate::decide::Decision;
use crate::error::{Code, Error};
use crate::event::{Event, Recorded};
use crate::id::{Ids, MessageId};
use crate::json::Json;
use crate::limits::*;
use crate::name::Name;
use crate::state::State;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// To whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// One agent, whether or not it subscribed to the type.
    Agent(Name),
    /// Whoever subscribed to the message's type.
    Type,
    /// Everybody who subscribed to anything ("*").
    Everybody,
    /// Everybody whose id begins with this.
    Prefix(String),
}

/// What an agent sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// Its id, when the sender chooses it: sending the same id twice sends once.
    #[serde(default)]
    pub id: Option<MessageId>,
    /// By whom.
    pub from: Name,
    /// To whom.
    pub to: To,
    /// Its type.
    pub kind: Name,
    /// What.
    #[serde(default)]
    pub payload: Json,
    /// Carried along.
    #[serde(default)]
    pub headers: BTreeMap<Name, String>,
    /// The message this one answers, or the conversation it belongs to.
    #[serde(default)]
    pub correlation: Option<MessageId>,
    /// Milliseconds until it expires.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// An idempotency key: the same key and content within a day is one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
}

impl NewMessage {
    /// A message with every default.
    pub fn new(from: Name, to: To, kind: Name, payload: Json) -> Self {
        Self {
            id: None,
            from,
            to,
            kind,
            payload,
            headers: BTreeMap::new(),
            correlation: None,
            ttl_ms: None,
            key: None,
        }
    }
}

/// How one recipient's part stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Offered so many times, not yet dealt with.
    Pending {
        /// Times offered that failed.
        failures: u32,
    },
    /// Dealt with.
    Delivered {
        /// When.
        at: Time,
    },
    /// Given up.
    DeadLettered {
        /// When.
        at: Time,
        /// Why.
        reason: String,
    },
    /// Too late.
    Expired {
        /// When.
        at: Time,
    },
}

/// A message's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// By whom.
    pub from: Name,
    /// To whom, as it was addressed.
    pub to: To,
    /// Its type.
    pub kind: Name,
    /// What.
    pub payload: Json,
    /// Carried along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Name, String>,
    /// When.
    pub at: Time,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<MessageId>,
    /// Until when.
    pub expires_at: Time,
    /// Each recipient's part.
    pub recipients: BTreeMap<Name, Delivery>,
    /// Why nobody got it, when nobody was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<String>,
}

impl Message {
    /// Whether a recipient still has to deal with it.
    pub fn is_open(&self) -> bool {
        self.recipients
            .values()
            .any(|part| matches!(part, Delivery::Pending { .. }))
    }

    /// When the clock must look at it again: to expire it while it is open, to forget it after.
    pub fn due(&self) -> Option<Time> {
        Some(if self.is_open() {
            self.expires_at
        } else {
            self.at.plus_ms(MESSAGE_KEPT_MS)
        })
    }

    pub(crate) fn evolve(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        match &recorded.event {
            Event::MessageDelivered { recipient, .. } => {
                self.recipients
                    .insert(recipient.clone(), Delivery::Delivered { at });
            }
            Event::MessageOfferedAgain { recipient, .. } => {
                if let Some(Delivery::Pending { failures }) = self.recipients.get_mut(recipient) {
                    *failures += 1;
                }
            }
            Event::MessageDeadLettered {
                recipient: Some(recipient),
                reason,
                ..
            } => {
                let part = Delivery::DeadLettered {
                    at,
                    reason: reason.clone(),
                };
                self.recipients.insert(recipient.clone(), part);
            }
            Event::MessageDeadLettered {
                recipient: None,
                reason,
                ..
            } => {
                self.dead = Some(reason.clone());
            }
            Event::MessageExpired { .. } => {
                for part in self.recipients.values_mut() {
                    if matches!(part, Delivery::Pending { .. }) {
                        *part = Delivery::Expired { at };
                    }
                }
            }
            other => debug_assert!(false, "{} does not fold on a message", other.name()),
        }
    }
}

/// Decides a sending; `recipients` are who the address means now.
pub(crate) fn send(
    state: &State,
    new: &NewMessage,
    recipients: &[Name],
    now: Time,
    ids: &mut dyn Ids,
) -> Decision {
    if let Some(id) = new.id
        && state.message(&id).is_some()
    {
        return Decision::answer(Outcome::Message(id));
    }
    let message_of = |made| match made {
        Made::Message(message) => Some(message),
        _ => None,
    };
    let receipt = match recall(state, new.key.as_ref(), || digest(new), message_of) {
        Ok(Recalled::Before(message)) => return Decision::answer(Outcome::Message(message)),
        Ok(Recalled::New(receipt)) => receipt,
        Err(error) => return Decision::refuse(error),
    };
    if let Err(error) = payload("the message", new.payload.bytes()) {
        return Decision::refuse(error);
    }
    if let Err(error) = metadata("headers", &new.headers) {
        return Decision::refuse(error);
    }
    if recipients.len() > RECIPIENTS_MAX {
        return Decision::refuse(Error::limit("recipients", recipients.len(), RECIPIENTS_MAX));
    }
    let id = new.id.unwrap_or_else(|| MessageId::new(ids.next()));
    let pending = |name: &Name| (name.clone(), Delivery::Pending { failures: 0 });
    let message = Message {
        id,
        from: new.from.clone(),
        to: new.to.clone(),
        kind: new.kind.clone(),
        payload: new.payload.clone(),
        headers: new.headers.clone(),
        at: now,
        correlation: new.correlation,
        expires_at: now.plus_ms(new.ttl_ms.unwrap_or(MESSAGE_TTL_MS_DEFAULT)),
        recipients: recipients.iter().map(pending).collect(),
        dead: None,
    };
    let mut events = vec![Event::MessageSent {
        message: Arc::new(message),
        receipt,
    }];
    if recipients.is_empty() {
        let reason = match &new.to {
            To::Agent(agent) => format!("agent “{agent}” has not subscribed"),
            To::Type => format!("nobody has subscribed to type “{}”", new.kind),
            To::Everybody => "nobody has subscribed".to_owned(),
            To::Prefix(prefix) => format!("nobody whose id begins with “{prefix}” has subscribed"),
        };
        let error = Error::new(Code::NoRecipient, format!("{id}: {reason}"));
        events.push(Event::MessageDeadLettered {
            message: id,
            recipient: None,
            reason,
        });
        return Decision {
            events,
            outcome: Err(error),
        };
    }
    Decision {
        events,
        outcome: Ok(Outcome::Message(id)),
    }
}

/// What a recipient made of it: nothing to say, or why it failed.
pub(crate) fn settle(
    state: &State,
    message: &MessageId,
    recipient: &Name,
    failure: Option<&str>,
    now: Time,
) -> Decision {
    let Some(known) = state.message(message) else {
        return Decision::refuse(unknown(message));
    };
    let done = Outcome::Message(*message);
    let Some(Delivery::Pending { failures }) = known.recipients.get(recipient) else {
        // Dealt with, given up or expired before: the first ending stands.
        return Decision::answer(done);
    };
    let (message, recipient) = (*message, recipient.clone());
    let event = match failure {
        _ if known.expires_at <= now => Event::MessageExpired { message },
        None => Event::MessageDelivered { message, recipient },
        Some(reason) if failures + 1 < DELIVERIES_MAX => Event::MessageOfferedAgain {
            message,
            recipient,
            reason: cut(reason).to_owned(),
        },
        Some(reason) => {
            let (recipient, reason) = (Some(recipient), cut(reason).to_owned());
            Event::MessageDeadLettered {
                message,
                recipient,
                reason,
            }
        }
    };
    Decision::event(event, done)
}

/// The clock looks at a message.
pub(crate) fn expire(state: &State, message: &MessageId, now: Time) -> Decision {
    let due = state
        .message(message)
        .filter(|known| known.due().is_some_and(|due| due <= now));
    let Some(known) = due else {
        return Decision::answer(Outcome::Done);
    };
    let message = *message;
    Decision::event(
        if known.is_open() {
            Event::MessageExpired { message }
        } else {
            Event::MessageForgotten { message }
        },
        Outcome::Done,
    )
}

fn unknown(message: &MessageId) -> Error {
    Error::new(
        Code::MessageUnknown,
        format!("there is no message {message}"),
    )
}
