//! The calls that a model wants: who may say no, their receipts, and what the model is shown of them.

use super::brief::OBJECTIVE;
use super::{Evidence, Mind, Working, broke, is_broke, key};
use crate::hands::Guard;
use crate::model::{Call, CallResult, Turn};
use crate::voice;
use chargehand::{Code, EffectClass};
use domain::budget::{Amount, Cost};
use domain::task::Failure;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Bytes of a tool's answer that a model is shown; the rest is cut, and it is told so.
pub const SHOWN_BYTES_MAX: usize = 32 * 1024;
/// Times that the same call may come to the same before the mind is stopped.
pub const REPEATS_MAX: u32 = 3;
/// Harmless calls of one answer that are made at the same time.
pub const CALLS_AT_ONCE_MAX: usize = 8;
/// How the key of a step begins that holds a person's yes or no.
pub const APPROVAL: &str = "approval";
/// Bytes of a call's arguments that a person is shown.
const ASKED_BYTES_MAX: usize = 2_000;

/// The receipt of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The tool's own name; older receipts have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<String>,
    #[serde(flatten)]
    pub(crate) called: Called,
}

impl Receipt {
    /// What a step's output says. What a person wrote in the place of a tool is what the tool would
    /// have given.
    pub(crate) fn of(output: Value) -> Self {
        serde_json::from_value(output.clone()).unwrap_or(Self {
            tool: None,
            called: Called::Output(output),
        })
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Called {
    Output(Value),
    Failed(String),
}

impl Called {
    /// What the model is told of it, and whether it failed.
    fn told(self) -> (String, bool) {
        match self {
            Self::Output(Value::String(text)) => (text, false),
            Self::Output(value) => (value.to_string(), false),
            Self::Failed(text) => (text, true),
        }
    }
}

/// What people say of a call.
enum Approval {
    /// It may be made.
    Yes,
    /// It may not, and why.
    No(String),
    /// Nobody has said; what they are asked.
    Asked(String),
}

/// A call that may be made.
struct Ready {
    /// The key of its step.
    receipt: String,
    /// The tool's own name.
    name: String,
    effect: EffectClass,
}

/// What is to be done about a call.
enum Next {
    Make(Ready),
    /// It is not made, and this is what the model is told.
    Tell(String),
    /// Its task waits until somebody has said yes or no.
    Wait(String),
}

impl Working<'_> {
    /// Makes the calls of one answer, and shows the model what came of them, in their order. Calls
    /// that follow each other and are harmless are made at once; the others one by one, because what
    /// one does may be what the next one needs. Says why when it goes round in circles.
    pub(super) async fn make_calls(&mut self, calls: &[Call]) -> Result<Option<String>, Failure> {
        let mut results = Vec::with_capacity(calls.len());
        let mut stuck = None;
        let mut rest = calls;
        while !rest.is_empty() {
            let at_once = rest.iter().take(CALLS_AT_ONCE_MAX);
            let at_once = at_once.take_while(|call| self.is_harmless(call)).count();
            let (now, later) = rest.split_at(at_once.max(1));
            rest = later;
            let mut next = Vec::with_capacity(now.len());
            for call in now {
                match self.next(call).await? {
                    Next::Wait(reason) => {
                        self.waits = Some(reason);
                        return Ok(None);
                    }
                    other => next.push(other),
                }
            }
            let this = &*self;
            let made = now.iter().zip(&next).map(|(call, next)| async move {
                match next {
                    Next::Make(ready) => this.make(call, ready).await,
                    Next::Tell(why) | Next::Wait(why) => Ok(Called::Failed(why.clone())),
                }
            });
            let made = join_all(made).await;
            for ((call, next), called) in now.iter().zip(next).zip(made) {
                let called = match called {
                    Err(failure) if is_broke(&failure) => {
                        stuck = Some(broke(&failure));
                        Called::Failed("not made: the budget of the run is used up".into())
                    }
                    called => {
                        let called = called?;
                        if let Next::Make(ready) = next {
                            self.evidence.push(Evidence {
                                receipt: ready.receipt,
                                tool: ready.name,
                                succeeded: matches!(called, Called::Output(_)),
                            });
                        }
                        called
                    }
                };
                let (text, failed) = called.told();
                if let Some(circle) = self.circle(call, &text) {
                    stuck = Some(circle);
                }
                results.push(CallResult {
                    id: call.id.clone(),
                    tool: call.tool.clone(),
                    text: shown(text),
                    failed,
                    untrusted: self.mind.hands.is_untrusted(&call.tool),
                });
            }
        }
        self.turns.push(Turn::Tools { results });
        Ok(stuck)
    }

    /// Whether a call may be made at any time, beside any other.
    fn is_harmless(&self, call: &Call) -> bool {
        let hands = &self.mind.hands;
        let known = hands.known(&call.tool);
        known.is_some_and(|(_, effect)| effect == EffectClass::Pure)
            && hands.guard(&call.tool) == Guard::default()
    }

    /// Notes what a call came to; says so when it came to the same again and again.
    fn circle(&mut self, call: &Call, text: &str) -> Option<String> {
        let what = format!("{} {}", call.tool, call.arguments);
        let (before, times) = self.seen.entry(what).or_default();
        if before == text {
            *times += 1;
        } else {
            (*before, *times) = (text.to_owned(), 1);
        }
        let tool = &call.tool;
        (*times >= REPEATS_MAX)
            .then(|| format!("it called “{tool}” {times} times with the same outcome"))
    }

    /// What is to be done about a call: it is counted, and whoever has a say in it is asked.
    async fn next(&mut self, call: &Call) -> Result<Next, Failure> {
        if self.spend.calls >= self.mind.bounds.calls {
            let why = "not made: the calls of this task are used up";
            return Ok(Next::Tell(why.into()));
        }
        let Some((name, effect)) = self.mind.hands.known(&call.tool) else {
            self.mind.hands.missed(self.task, &call.tool).await;
            let why = format!("there is no tool “{}” for you", call.tool);
            return Ok(Next::Tell(why));
        };
        self.spend.calls += 1;
        let asked = json!([call.tool, call.arguments]);
        let digest = &Sha256::digest(asked.to_string())[..8];
        Ok(match self.approved(call, &name, digest).await? {
            Approval::Yes => Next::Make(Ready {
                receipt: key("call", self.spend.calls, digest),
                name,
                effect,
            }),
            Approval::No(why) => Next::Tell(format!("not made: a person said no: {why}")),
            Approval::Asked(reason) => {
                let task = self.task.assignment().task_id;
                let how = format!("chargehand approvals yes {task}");
                voice::note(self.task, format!("{reason}; say it with `{how}`"));
                Next::Wait(reason)
            }
        })
    }

    /// Whether a call may be made as far as people have a say in it. One that may not yet has a step
    /// of its own, which is in doubt until somebody says yes or no.
    async fn approved(&self, call: &Call, name: &str, digest: &[u8]) -> Result<Approval, Failure> {
        let guard = self.mind.hands.guard(&call.tool);
        let filled = |argument: &&String| match call.arguments.get(argument.as_str()) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !stands_in(&self.vouched, text.trim()),
            Some(value) => !stands_in(&self.vouched, &value.to_string()),
        };
        let unvouched = guard.sensitive.iter().find(filled);
        if !guard.every && unvouched.is_none() {
            return Ok(Approval::Yes);
        }
        let why = match unvouched {
            Some(argument) => format!(" (nobody vouches for `{argument}`)"),
            None => String::new(),
        };
        let mut arguments = call.arguments.to_string();
        arguments.truncate(arguments.floor_char_boundary(ASKED_BYTES_MAX));
        let reason = format!("waits for a person's yes to {name} {arguments}{why}");
        let key = key(APPROVAL, self.spend.calls, digest);
        let asks = || async { Err(Failure::in_doubt("nobody has said yes or no")) };
        match self.task.step(&key, EffectClass::AtMostOnce, asks).await {
            Ok(said) if said["approved"] == true => Ok(Approval::Yes),
            Ok(said) => {
                let why = said["reason"].as_str().unwrap_or("without a reason");
                Ok(Approval::No(why.to_owned()))
            }
            Err(failure) if failure.code == Code::RecordInDoubt.as_str() => {
                Ok(Approval::Asked(reason))
            }
            Err(failure) => Err(failure),
        }
    }

    /// One call, from its receipt if there is one.
    async fn make(&self, call: &Call, ready: &Ready) -> Result<Called, Failure> {
        let Ready {
            receipt,
            name,
            effect,
        } = ready;
        let idempotency_key = format!("{}.{receipt}", self.task.idempotency_key());
        let done = || async {
            voice::calling(self.task, name, &call.arguments);
            let hands = &self.mind.hands;
            let called = hands
                .call(self.task, &call.tool, &call.arguments, &idempotency_key)
                .await;
            voice::called(self.task, name, &called);
            let receipt = |called| {
                let tool = Some(name.clone());
                json!(Receipt { tool, called })
            };
            let outcome = match called {
                Ok(output) => Ok(receipt(Called::Output(output))),
                // Whether it happened is for a person to find out.
                Err(failure) if failure.code == Code::RecordInDoubt.as_str() => Err(failure),
                // That it did not happen is known, and is what the model is told: the answer to this
                // call, now and whenever it is read again.
                Err(failure) => {
                    let text = format!("{}: {}", failure.code, failure.message);
                    Ok(receipt(Called::Failed(text)))
                }
            };
            (outcome, Amount::CALL)
        };
        let cost = Cost {
            amount: Amount::CALL,
            last: false,
        };
        let called = self.task.step_costing(receipt, *effect, cost, done).await?;
        let receipt = Receipt::of(called);
        Ok(receipt.called)
    }
}

impl Mind {
    /// What people wrote for it: its instructions and, in a conversation, what was said to it. A brief
    /// is none of it: planners write briefs, from what they have read.
    pub(super) fn vouched(&self, turns: &[Turn]) -> String {
        let mut vouched = self.instructions.clone();
        let said = turns.iter().filter_map(|turn| match turn {
            Turn::User { text } if !text.starts_with(OBJECTIVE) => Some(text),
            _ => None,
        });
        for text in said {
            vouched.push('\n');
            vouched.push_str(text);
        }
        vouched
    }
}

/// Whether a value stands in a text, as a whole word or several.
fn stands_in(text: &str, value: &str) -> bool {
    let bounded = |side: Option<char>| !side.is_some_and(char::is_alphanumeric);
    !value.is_empty()
        && text.match_indices(value).any(|(at, found)| {
            bounded(text[..at].chars().next_back())
                && bounded(text[at + found.len()..].chars().next())
        })
}

/// As much of a tool's answer as a model is shown.
fn shown(mut text: String) -> String {
    if text.len() > SHOWN_BYTES_MAX {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        let _ = write!(text, "\n[cut: {SHOWN_BYTES_MAX} of {bytes} bytes]");
    }
    text
}
