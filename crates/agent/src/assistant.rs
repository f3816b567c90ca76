//! An assistant: an agent that talks with a person, and may have a whole crew work for it.
//!
//! What the person says is a run of one task; the task's input names the run of the message before, so
//! a conversation is a chain of runs, and each of them stores only what is new. Kill whoever works on
//! it at any moment: what was answered is in the store, what was bought has its receipt, and the next
//! process goes on.
//!
//! An assistant has the tools that its agent was granted, and one more, [`DELEGATE`], which gives a
//! goal to the supervisor of its crew and waits for the answer. Only an assistant has it: the agents
//! that work for it have their own grants and nothing else, so nobody delegates what was delegated.
//! What they say is heard in the assistant's stream, too.
//!
//! Not here: schedules, conversations among several people, and questions that a crew asks back.

use crate::hands::{Guard, Hands};
use crate::mind::{
    Bounds, Brief, CALLS_DEFAULT, Came, Completeness, Envelope, Mind, ROUNDS_DEFAULT, now_ms, read,
};
use crate::model::{ToolSpec, Turn};
use crate::planning::{self, Goal, Minds, TIMEOUT_MS, to_delegate};
use async_trait::async_trait;
use chargehand::{Context, EffectClass, Ended, Handler, Heard, RunStart, Said};
use domain::budget::{Amount, Budget, Cost};
use domain::error::{Code, Error};
use domain::graph::{Graph, Step, StepKind, Template};
use domain::id::{RunId, TaskId};
use domain::json::Json;
use domain::limits::GOAL_BYTES_MAX;
use domain::name::Name;
use domain::retry::RetryPolicy;
use domain::run::{Crew, RunStatus};
use domain::task::Failure;
use protocol::ApiRead;
use protocol::v1::RunView;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The type of tasks that answer a person.
pub const CHAT_KIND: &str = "crew.chat";
/// The tool that only an assistant has.
pub const DELEGATE: &str = "delegate";
/// The assistant that is no agent of its crew: it has the supervisor's model, and every tool that was
/// granted to anybody.
pub const ASSISTANT: &str = "assistant";
/// The step of its runs.
pub const STEP: &str = "reply";
/// Where a run says that a delegated one belongs to it.
pub const DELEGATED_BY: &str = "delegated_by";
/// Bytes of one message of a person.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Exchanges of a conversation that a model is shown; earlier ones are left out, and it is told so.
pub const EXCHANGES_SHOWN_MAX: usize = 100;
/// Bytes of them.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// How long a wait for a delegated run is before it is asked again.
const WAIT: Duration = Duration::from_secs(20);
/// Between two looks whether an engine that did not answer does again.
const PAUSE: Duration = Duration::from_millis(250);

/// What an assistant is told besides its instructions.
const CHAT_RULES: &str = "\
You talk with a person: the brief is what they say, message by message, and your result is what you \
answer to the last message. Ask when you need to know more. Do small things yourself, with your tools. \
Give what takes several steps or several people to your crew with the tool `delegate`; say what came of it.";

/// What a person says: the input of a task that answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Whom.
    pub agent: String,
    /// What.
    pub text: String,
    /// The run of the message before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RunId>,
}

/// A message and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its run.
    pub run: RunId,
    /// Where that stands.
    pub status: RunStatus,
    /// What was said.
    pub message: Message,
    /// The answer, once there is one.
    pub reply: Option<Envelope>,
}

impl Exchange {
    /// The exchange of a run; none if it is no conversation's.
    pub fn of(run: &RunView) -> Option<Self> {
        let step = run
            .plan
            .steps
            .first()
            .filter(|step| step.id.as_str() == STEP)?;
        let StepKind::Task(task) = &step.kind else {
            return None;
        };
        if task.kind.as_str() != CHAT_KIND {
            return None;
        }
        let result = run.final_result.as_ref().filter(|_| !run.partial);
        Some(Self {
            run: run.run_id,
            status: run.status,
            message: serde_json::from_value(task.input.clone()?).ok()?,
            reply: result.and_then(|result| serde_json::from_value(result.value()).ok()),
        })
    }

    /// The answer's words.
    pub fn words(&self) -> Option<String> {
        let reply = self.reply.as_ref()?;
        Some(match &reply.result {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

/// The plan of a run that answers a message. Its task waits in `queue`.
///
/// # Errors
/// A message that is empty or too long.
pub fn graph(message: &Message, queue: Option<Name>) -> Result<Graph, Error> {
    if message.text.trim().is_empty() {
        return Err(Error::new(Code::GoalEmpty, "the message is empty"));
    }
    let bytes = message.text.len();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(Error::limit("bytes in a message", bytes, MESSAGE_BYTES_MAX));
    }
    let template = Template {
        input: Some(json!(message)),
        timeout_ms: Some(TIMEOUT_MS),
        retry: RetryPolicy::default(),
        queue: queue.unwrap_or_else(domain::task::default_queue),
        ..Template::new(Name::literal(CHAT_KIND))
    };
    let step = Step {
        id: Name::literal(STEP),
        needs: Vec::new(),
        kind: StepKind::Task(template),
    };
    let graph = Graph { steps: vec![step] };
    graph.check()?;
    Ok(graph)
}

/// A message's run needs a goal of a bounded length, for lists.
pub fn goal(message: &Message) -> String {
    let text = message.text.trim();
    text[..text.floor_char_boundary(GOAL_BYTES_MAX.min(1_024))].to_owned()
}

/// What was said before, the oldest first: messages that were answered, with their answers.
///
/// # Errors
/// The contract's own.
pub async fn history(api: &dyn ApiRead, last: Option<RunId>) -> Result<Vec<Turn>, Error> {
    let (mut newest_first, mut bytes, mut next) = (Vec::new(), 0, last);
    let mut is_cut = false;
    while let Some(run) = next {
        let view = api.run_get(run).await?;
        let Some(exchange) = Exchange::of(&view) else {
            break;
        };
        next = exchange.message.previous;
        // One that was not answered is as if it had not been said: the person says it again.
        let Some(words) = exchange.words() else {
            continue;
        };
        bytes += exchange.message.text.len() + words.len();
        if newest_first.len() == EXCHANGES_SHOWN_MAX || bytes > HISTORY_BYTES_MAX {
            is_cut = true;
            break;
        }
        newest_first.push((exchange.message.text, words));
    }
    let mut turns = Vec::new();
    for (n, (said, answered)) in newest_first.into_iter().rev().enumerate() {
        let said = match n == 0 && is_cut {
            true => format!("[Earlier messages are left out.]\n{said}"),
            false => said,
        };
        turns.push(Turn::user(said));
        turns.push(Turn::Model {
            text: answered,
            calls: Vec::new(),
        });
    }
    Ok(turns)
}

/// How an assistant has its crew begin a run.
#[derive(Debug, Clone)]
pub struct CrewStart {
    /// Who supervises.
    pub supervisor: Name,
    /// Who works.
    pub crew: Crew,
    /// Where its tasks wait.
    pub queue: Option<Name>,
    /// What the run keeps, so that it can be resumed.
    pub metadata: BTreeMap<Name, Json>,
    /// What it may spend.
    pub budget: Option<Budget>,
}

/// Answers what a person says.
#[derive(Debug, Clone)]
pub struct ChatHandler {
    /// The crew.
    pub minds: Arc<Minds>,
    /// How it begins to work.
    pub start: CrewStart,
}

#[async_trait]
impl Handler for ChatHandler {
    async fn run(&self, task: Context) -> Ended {
        Came::ended(self.reply(&task).await)
    }
}

impl ChatHandler {
    async fn reply(&self, task: &Context) -> Result<Came, Failure> {
        let message: Message = serde_json::from_value(task.input()).map_err(|fault| {
            let text = format!("the message cannot be read: {fault}");
            Failure::permanent("brief.malformed", text)
        })?;
        let mind = self.mind(&message.agent)?;
        let api = task.api();
        let mut turns = history(&**api, message.previous).await?;
        turns.push(Turn::user(message.text));
        let task = task.speaking_as(&message.agent);
        mind.converse(&task, turns, &Brief::default(), &|_| Ok(()))
            .await
    }

    /// The agent of this name, with one tool more.
    fn mind(&self, agent: &str) -> Result<Mind, Failure> {
        let (mut mind, own) = match self.minds.members.get(agent) {
            Some(member) => (member.mind.clone(), vec![Arc::clone(&member.mind.hands)]),
            None if agent == ASSISTANT => self.everybody(),
            None => {
                let text = format!("there is no agent “{agent}” in this crew");
                return Err(Failure::permanent("agent.unknown", text));
            }
        };
        mind.instructions = format!("{CHAT_RULES}\n\n{}", mind.instructions.trim());
        mind.hands = Arc::new(AssistantHands {
            own,
            start: self.start.clone(),
            agents: self.agents(),
        });
        Ok(mind)
    }

    /// Who can do what anybody of the crew can do.
    fn everybody(&self) -> (Mind, Vec<Arc<dyn Hands>>) {
        let members = self.minds.members.values();
        let hands = members.clone().map(|member| Arc::clone(&member.mind.hands));
        let calls = members.map(|member| member.mind.bounds.calls).max();
        let planner = &self.minds.planner;
        let mind = Mind {
            bounds: Bounds {
                rounds: planner.bounds.rounds.max(ROUNDS_DEFAULT),
                // What one of them may spend does not bind who is none of them.
                calls: calls.unwrap_or(CALLS_DEFAULT).max(planner.bounds.calls),
                ..planner.bounds
            },
            ..planner.clone()
        };
        (mind, hands.collect())
    }

    /// The crew, for whoever may have it work.
    fn agents(&self) -> String {
        let members = self.minds.members.iter();
        let told = members.map(|(name, member)| format!("{name}: {}", member.description.trim()));
        told.collect::<Vec<_>>().join("; ")
    }
}

/// What an assistant may do.
#[derive(Debug)]
struct AssistantHands {
    own: Vec<Arc<dyn Hands>>,
    start: CrewStart,
    agents: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delegate {
    goal: String,
    #[serde(default)]
    inputs: Vec<Value>,
}

#[async_trait]
impl Hands for AssistantHands {
    async fn specs(&self) -> Vec<ToolSpec> {
        let mut specs = vec![ToolSpec {
            name: DELEGATE.into(),
            description: format!(
                "Gives a goal to the crew: its supervisor plans it, the agents do it side by side, and one \
                 answer comes back. The crew knows nothing of this conversation: the goal says all it must \
                 know, and the inputs are what it works on. Agents: {}",
                self.agents
            ),
            input: json!({
                "type": "object", "additionalProperties": false, "required": ["goal"],
                "properties": {
                    "goal": {"type": "string", "minLength": 1},
                    "inputs": {"type": "array", "items": {}},
                },
            }),
        }];
        let mut names = BTreeSet::from([DELEGATE.to_owned()]);
        for hands in &self.own {
            for spec in hands.specs().await {
                if names.insert(spec.name.clone()) {
                    specs.push(spec);
                }
            }
        }
        specs
    }

    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        if tool == DELEGATE {
            // The same key is the same run.
            return Some((DELEGATE.into(), EffectClass::Keyed));
        }
        self.own.iter().find_map(|hands| hands.known(tool))
    }

    fn guard(&self, tool: &str) -> Guard {
        let own = self.own.iter().find(|hands| hands.known(tool).is_some());
        own.map(|hands| hands.guard(tool)).unwrap_or_default()
    }

    fn is_untrusted(&self, tool: &str) -> bool {
        let own = self.own.iter().find(|hands| hands.known(tool).is_some());
        own.is_none_or(|hands| hands.is_untrusted(tool))
    }

    async fn call(
        &self,
        task: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        if tool == DELEGATE {
            return self.delegate(task, arguments, key).await;
        }
        match self.own.iter().find(|hands| hands.known(tool).is_some()) {
            Some(hands) => hands.call(task, tool, arguments, key).await,
            None => {
                let text = format!("there is no tool “{tool}” for you");
                Err(Failure::permanent("tool.unknown", text))
            }
        }
    }
}

impl AssistantHands {
    async fn delegate(
        &self,
        task: &Context,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        let asked: Delegate = serde_json::from_value(arguments.clone())
            .map_err(|fault| Failure::permanent("tool.arguments", fault.to_string()))?;
        let goal = asked.goal.trim().to_owned();
        let mut metadata = self.start.metadata.clone();
        if let Some(run) = task.assignment().run_id {
            let by = Json::from_value(&json!(run));
            metadata.insert(Name::literal(DELEGATED_BY), by);
        }
        let inputs = asked.inputs;
        let planned = Goal {
            goal: goal.clone(),
            inputs,
            queue: self.start.queue.clone(),
            ..Goal::default()
        };
        // The receipt of the call is named by its end.
        let call = key.rsplit('.').next().unwrap_or(key);
        let budget = self.share(task, call).await?;
        let start = RunStart {
            goal,
            supervisor: self.start.supervisor.clone(),
            graph: planning::graph(&planned)?,
            crew: self.start.crew.clone(),
            metadata,
            key: Some(key.parse()?),
            budget,
            trace: Some(task.assignment().trace),
        };
        let held = budget.unwrap_or_default();
        let cost = Cost {
            amount: Amount {
                tokens: held.tokens.unwrap_or_default(),
                usd_micros: held.usd_micros.unwrap_or_default(),
                calls: held.calls.unwrap_or_default(),
            },
            last: false,
        };
        let done = || async { spending(delegated(task, start).await) };
        let receipt = format!("run_{call}");
        let run = task.step_costing(&receipt, EffectClass::Keyed, cost, done);
        let run: RunId = read(run.await?, &receipt)?;
        answer(&view(task, run).await?)
    }

    /// What a delegated run may spend of what is left of its message's budget. It is held there until
    /// that run has ended, and is the same whoever goes on with the call: it has a receipt.
    async fn share(&self, task: &Context, call: &str) -> Result<Option<Budget>, Failure> {
        let Some(run) = task.assignment().run_id else {
            return Ok(self.start.budget);
        };
        let own = self.start.budget;
        let left = || async move {
            let share = view(task, run).await?.account.map(|account| {
                let own = own.unwrap_or_default();
                let left = account.left(false);
                let part = |left: Option<u64>, own: Option<u64>| {
                    let left = left.map(to_delegate);
                    left.into_iter().chain(own).min()
                };
                let wall = account
                    .until()
                    .map(|until| until.0.saturating_sub(now_ms()));
                Budget {
                    tokens: part(left.tokens, own.tokens),
                    usd_micros: part(left.usd_micros, own.usd_micros),
                    calls: part(left.calls, own.calls),
                    wall_ms: wall.into_iter().chain(own.wall_ms).min(),
                }
            });
            Ok(json!(share.or(own)))
        };
        let receipt = format!("share_{call}");
        let share = task.step(&receipt, EffectClass::Pure, left).await?;
        read(share, &receipt)
    }
}

/// Has a run begin, and waits for its end.
async fn delegated(task: &Context, start: RunStart) -> Result<RunView, Failure> {
    let run = loop {
        let started = task.api().run_start(start.clone()).await;
        if let Some(run) = settled(started).await? {
            break run;
        }
    };
    let text = format!("delegated as {run}");
    task.say(Said::Note { text });
    listen(task, run).await?;
    view(task, run).await
}

/// Which run it was, and what it has spent.
fn spending(ended: Result<RunView, Failure>) -> (Result<Value, Failure>, Amount) {
    match ended {
        Ok(view) => {
            let spent = view.account.map(|account| account.ledger.used());
            (Ok(json!(view.run_id)), spent.unwrap_or_default())
        }
        Err(failure) => (Err(failure), Amount::default()),
    }
}

async fn view(task: &Context, run: RunId) -> Result<RunView, Failure> {
    loop {
        let view = task.api().run_get(run).await;
        if let Some(view) = settled(view).await? {
            return Ok(view);
        }
    }
}

/// What a delegated run came to.
fn answer(view: &RunView) -> Result<Value, Failure> {
    let run = view.run_id;
    match (view.status, &view.failure, &view.cancelled) {
        (RunStatus::Completed, ..) => {
            let result = view.final_result.as_ref().map(Json::value);
            let result = result.unwrap_or_default();
            let whole = json!(Completeness::Done);
            let status = result.get("status").cloned().unwrap_or(whole);
            let text = result.get("text").cloned().unwrap_or(result);
            Ok(json!({"run_id": run, "status": status, "answer": text}))
        }
        (_, Some(failure), _) => {
            let text = format!("{run} failed: {}: {}", failure.code, failure.message);
            Err(Failure::permanent("delegate.failed", text))
        }
        (_, None, reason) => {
            let reason = reason.as_deref().unwrap_or_default();
            let text = format!("{run} was cancelled: {reason}");
            Err(Failure::permanent("delegate.failed", text))
        }
    }
}

/// Waits for a run's end, and lets whoever hears this task hear the run's agents, too.
async fn listen(task: &Context, run: RunId) -> Result<(), Failure> {
    let mut after = None;
    // Their turns are numbered among this task's own.
    let mut turns: HashMap<(TaskId, u32, u32), u32> = HashMap::new();
    loop {
        let heard = task.api().run_stream(run, after, WAIT).await;
        let Some(heard) = settled(heard).await? else {
            continue;
        };
        after = heard.next;
        say_again(task, &heard, &mut turns);
        if heard.ended {
            return Ok(());
        }
    }
}

fn say_again(task: &Context, heard: &Heard, turns: &mut HashMap<(TaskId, u32, u32), u32>) {
    if heard.anew {
        turns.clear();
    }
    if heard.lost > 0 {
        let pieces = heard.lost;
        task.say(Said::Dropped { pieces });
    }
    for piece in &heard.pieces {
        let mut own = |turn: u32| {
            let key = (piece.task_id, piece.attempt, turn);
            *turns.entry(key).or_insert_with(|| task.next_turn())
        };
        let said = match piece.said.clone() {
            Said::TurnBegan { turn } => Said::TurnBegan { turn: own(turn) },
            Said::Text { turn, text } => Said::Text {
                turn: own(turn),
                text,
            },
            Said::TurnEnded { turn, whole } => {
                let ended = own(turn);
                turns.remove(&(piece.task_id, piece.attempt, turn));
                Said::TurnEnded { turn: ended, whole }
            }
            other => other,
        };
        task.speaking_as(&format!("crew/{}", piece.agent)).say(said);
    }
}

/// The answer; nothing when it is worth asking again, after a pause.
async fn settled<T: Send>(answer: Result<T, Error>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code.retryable() && error.code != Code::QuotaExceeded => {
            tokio::time::sleep(PAUSE).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
