//! A mind: an agent with a model. It does a task in turns: it asks its model, makes the calls that
//! the model wants, shows it what came of them, until the model has said what it had to say.
//!
//! **Every turn and every call is a step with a receipt.** Kill the process anywhere: the next
//! attempt reads what was answered and done, and goes on from there; no answer is bought twice, and
//! a call that may have happened is not made again but waits for a person. A step's key has a digest
//! of what was asked in it, so that a receipt is never taken for the answer to something else.
//!
//! **Everything is bounded**: turns, calls, tokens, and how often the same thing may be tried with
//! the same outcome. At a bound the mind gets one more turn, without tools, to say what it has; the
//! result is then marked as partial, and says why.
//!
//! What tools say is data, and is shown to the model as such. What is not here: how tools are found
//! and granted ([`Hands`] are what a mind may do), who waits for whom at a provider ([`Gate`]), and
//! what the whole run may still spend: the engine keeps that account, a mind reserves from it before
//! each turn and each call, and settles it after.

mod brief;
mod call;
mod envelope;
mod turn;

pub use brief::{Brief, Judge};
pub use call::{APPROVAL, CALLS_AT_ONCE_MAX, REPEATS_MAX, SHOWN_BYTES_MAX};
pub(crate) use call::{Called, Receipt};
pub use envelope::{Came, Completeness, Envelope, Evidence, Spend};
pub use turn::Seat;

use crate::hands::Hands;
use crate::model::{Stop, Turn};
use async_trait::async_trait;
use brief::told;
use chargehand::{Code, Context, Ended, Handler};
use domain::budget::Account;
use domain::task::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use turn::Asking;

/// Turns of a task when nothing is said.
pub const ROUNDS_DEFAULT: u32 = 12;
/// Turns of a task, at most.
pub const ROUNDS_MAX: u32 = 2_000;
/// Calls of a task when nothing is said.
pub const CALLS_DEFAULT: u32 = 40;
/// Tokens of a task, read and written, when nothing is said.
pub const TASK_TOKENS_DEFAULT: u64 = 200_000;
/// Times that an answer which does not fit the wanted form is sent back.
pub const REPAIRS_MAX: u32 = 2;
/// How the reason begins when nothing is left of the run's budget.
pub(crate) const BROKE: &str = "the budget of the run is used up";
/// How long a task rests that waits for a person; an answer wakes it.
pub(crate) const PERSON_PATIENCE: Duration = Duration::from_secs(3_600);
/// Before the attempt's own deadline: time to hand over what there is.
const MARGIN: Duration = Duration::from_secs(1);

/// How far a mind may go with one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Turns of the model.
    pub rounds: u32,
    /// Calls of tools.
    pub calls: u32,
    /// Tokens read and written, as the provider counts them.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub usd_micros: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rounds: ROUNDS_DEFAULT,
            calls: CALLS_DEFAULT,
            tokens: TASK_TOKENS_DEFAULT,
            usd_micros: u64::MAX,
        }
    }
}

/// A mind. One does any number of tasks at once.
#[derive(Debug, Clone)]
pub struct Mind {
    /// Who it is, for its model and for its own kind.
    pub instructions: String,
    /// The model to ask first, and those to fall back to, in order; never empty.
    pub seats: Vec<Seat>,
    /// What it may do.
    pub hands: Arc<dyn Hands>,
    /// How far it may go.
    pub bounds: Bounds,
}

#[async_trait]
impl Handler for Mind {
    async fn run(&self, task: Context) -> Ended {
        let brief: Brief = match serde_json::from_value(task.input()) {
            Ok(brief) => brief,
            Err(fault) => {
                let text = format!("the brief cannot be read: {fault}");
                return Ended::Failed(Failure::permanent("brief.malformed", text));
            }
        };
        Came::ended(self.work(&task, &brief, &|_| Ok(())).await)
    }
}

impl Mind {
    /// Does what a brief asks, as part of this task. What the judge complains about is sent back, as
    /// often as an answer of the wrong form.
    ///
    /// # Errors
    /// `agent.refused`, `agent.output`, `agent.evidence`, `record.in_doubt`, the model's faults and
    /// the engine's own.
    pub async fn work(
        &self,
        task: &Context,
        brief: &Brief,
        judge: Judge<'_>,
    ) -> Result<Came, Failure> {
        let turns = vec![Turn::user(told(brief))];
        self.converse(task, turns, brief, judge).await
    }

    /// As [`work`](Self::work), going on with a conversation whose last turn is not the model's, in
    /// place of the brief's own words.
    ///
    /// # Errors
    /// The same.
    pub async fn converse(
        &self,
        task: &Context,
        turns: Vec<Turn>,
        brief: &Brief,
        judge: Judge<'_>,
    ) -> Result<Came, Failure> {
        let deadline = task.assignment().deadline.0;
        // Nothing that is asked outlasts the run's time on the clock, either.
        let over = account(task).await.and_then(|account| account.until());
        let deadline = over.map_or(deadline, |over| over.0.min(deadline));
        let left = Duration::from_millis(deadline.saturating_sub(now_ms())).saturating_sub(MARGIN);
        let work = Working {
            mind: self,
            task,
            brief,
            judge,
            until: Instant::now() + left,
            vouched: self.vouched(&turns),
            waits: None,
            turns,
            asking: Asking::default(),
            spend: Spend::default(),
            evidence: Vec::new(),
            seen: BTreeMap::new(),
        };
        work.finish().await
    }
}

/// One task under way.
struct Working<'a> {
    mind: &'a Mind,
    task: &'a Context,
    brief: &'a Brief,
    judge: Judge<'a>,
    until: Instant,
    turns: Vec<Turn>,
    asking: Asking,
    spend: Spend,
    evidence: Vec<Evidence>,
    /// Text that people wrote for this mind: what stands in it may fill a sensitive argument.
    vouched: String,
    /// For a person, and for what.
    waits: Option<String>,
    /// Calls, and how often each came to the same.
    seen: BTreeMap<String, (String, u32)>,
}

impl Working<'_> {
    async fn finish(mut self) -> Result<Came, Failure> {
        let schema = match &self.brief.output {
            Some(schema) => Some(jsonschema::validator_for(schema).map_err(|fault| {
                let text = format!("the brief's output is no JSON Schema: {fault}");
                Failure::permanent("brief.malformed", text)
            })?),
            None => None,
        };
        let mut repairs = 0;
        loop {
            if self.task.should_yield() {
                // All that was done has its receipt: the next attempt goes on from there.
                return Ok(Came::Half);
            }
            if let Some(reason) = self.exhausted() {
                return self.wrap_up(reason).await;
            }
            let tools = self.mind.hands.specs().await;
            let question = self.question(tools);
            if let Some(later) = self.crowded(&question.key) {
                return Ok(later);
            }
            let answer = match self.turn(question, false).await {
                Err(failure) if is_broke(&failure) => return self.wrap_up(broke(&failure)).await,
                answer => answer?,
            };
            match answer.stop {
                Stop::Refused => {
                    let text = match answer.text.trim() {
                        "" => "the model will not answer this".to_owned(),
                        text => format!("the model will not answer this: {text}"),
                    };
                    return Err(Failure::permanent("agent.refused", text));
                }
                Stop::Length if answer.calls.is_empty() => {
                    return self
                        .wrap_up("its answer did not fit into the tokens of one answer".into())
                        .await;
                }
                Stop::Done | Stop::Calls | Stop::Length => {}
            }
            if !answer.calls.is_empty() {
                let stuck = self.make_calls(&answer.calls).await?;
                if let Some(reason) = self.waits.take() {
                    let after = PERSON_PATIENCE;
                    return Ok(Came::Later { after, reason });
                }
                if let Some(stuck) = stuck {
                    return self.wrap_up(stuck).await;
                }
                continue;
            }
            let result = match &schema {
                Some(schema) => fitting(schema, &answer.text),
                None => Ok(json!(answer.text)),
            };
            let judged = match result {
                Ok(result) => match (self.judge)(&result).and_then(|()| self.rests()) {
                    Ok(()) => return Ok(self.done(Completeness::Done, result, None)),
                    Err(complaint) => complaint,
                },
                Err(complaint) => format!(
                    "it is not of the wanted form: {complaint}. Answer again with one JSON value of the schema, and nothing else"
                ),
            };
            if repairs == REPAIRS_MAX {
                let text = format!("after {repairs} corrections still: {judged}");
                let code = match self.rests() {
                    Ok(()) => "agent.output",
                    Err(_) => "agent.evidence",
                };
                return Err(Failure::permanent(code, text));
            }
            repairs += 1;
            self.turns
                .push(Turn::user(format!("Not accepted: {judged}.")));
        }
    }

    /// Whether there are the receipts that the result must rest on.
    fn rests(&self) -> Result<(), String> {
        let has = |tool: &String| {
            let of = |evidence: &Evidence| evidence.succeeded && evidence.tool == *tool;
            self.evidence.iter().any(of)
        };
        match self.brief.evidence.iter().find(|tool| !has(tool)) {
            None => Ok(()),
            Some(tool) => Err(format!(
                "there is no receipt of a call of “{tool}” that succeeded; make it, or say why it cannot be done"
            )),
        }
    }

    /// The bound that is reached, in words.
    fn exhausted(&self) -> Option<String> {
        let (bounds, spend) = (&self.mind.bounds, &self.spend);
        let tokens = spend.usage.input_tokens + spend.usage.output_tokens;
        if spend.rounds >= bounds.rounds {
            return Some(format!("its {} turns are used up", bounds.rounds));
        }
        if spend.calls >= bounds.calls {
            return Some(format!("its {} calls are used up", bounds.calls));
        }
        if tokens >= bounds.tokens {
            return Some(format!("its {} tokens are used up", bounds.tokens));
        }
        if spend.usd_micros >= bounds.usd_micros {
            let usd = domain::budget::usd(bounds.usd_micros);
            return Some(format!("its {usd} are used up"));
        }
        None
    }

    /// A last turn, without tools: what there is, marked as partial.
    async fn wrap_up(mut self, reason: String) -> Result<Came, Failure> {
        self.turns.push(Turn::user(format!(
            "Stop here: {}. Answer now with what you have, and say what is missing.",
            // Without the numbers, which are others after a crash: then the question would be another.
            reason.split(':').next().unwrap_or_default()
        )));
        let question = self.question(Vec::new());
        let text = match self.turn(question, true).await {
            Ok(answer) => answer.text,
            // What was done is not lost because the last word was not to be had.
            Err(_) => String::new(),
        };
        Ok(self.done(Completeness::Partial, json!(text), Some(reason)))
    }

    fn done(self, status: Completeness, result: Value, reason: Option<String>) -> Came {
        Came::To(Envelope {
            status,
            result,
            reason,
            evidence: self.evidence,
            open: Vec::new(),
            confidence: None,
            spend: self.spend,
        })
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What the task's run may spend and has spent; nothing when it is no run's.
pub(crate) async fn account(task: &Context) -> Option<Account> {
    let run = task.assignment().run_id?;
    task.api().run_get(run).await.ok()?.account
}

fn is_broke(failure: &Failure) -> bool {
    failure.code == Code::BudgetExhausted.as_str()
}

fn broke(failure: &Failure) -> String {
    format!("{BROKE}: {}", failure.message)
}

/// A step's key: what, which in order, and the beginning of a digest of all that was asked.
fn key(what: &str, number: u32, digest: impl AsRef<[u8]>) -> String {
    let mut key = format!("{what}_{number}_");
    for byte in digest.as_ref() {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

pub(crate) fn read<T: for<'a> Deserialize<'a>>(receipt: Value, key: &str) -> Result<T, Failure> {
    serde_json::from_value(receipt).map_err(|fault| {
        let text = format!("the receipt of step “{key}” is not one of this version: {fault}");
        Failure::permanent("agent.receipt", text)
    })
}

/// The JSON value in an answer that is of this form, or what is wrong with it.
fn fitting(schema: &jsonschema::Validator, text: &str) -> Result<Value, String> {
    let bare = text.trim();
    // Models put JSON into fences, whatever they are told.
    let bare = bare
        .strip_prefix("```json")
        .or_else(|| bare.strip_prefix("```"))
        .and_then(|rest| rest.strip_suffix("```"))
        .unwrap_or(bare);
    let value: Value = serde_json::from_str(bare).map_err(|fault| format!("no JSON: {fault}"))?;
    let complaint = schema.iter_errors(&value).next().map(|fault| {
        let at = fault.instance_path().to_string();
        format!("at “{at}”: {fault}")
    });
    complaint.map_or(Ok(value), Err)
}
