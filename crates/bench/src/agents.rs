//! What an agent's turn costs beside its model: a provider on this machine that answers at once, over
//! HTTP, and a tool that does nothing. A turn is one answer of the model and one call of the tool,
//! each with a receipt on the disk before the next begins. What the client alone needs for the same
//! questions to the same provider is measured right before, and taken off: what is left is ours.

use crate::measure::cpu;
use agent::gate::Gate;
use agent::hands::Hands;
use agent::mind::{Bounds, Brief, Mind, Seat};
use agent::model::{Ask, CallResult, Model, Settings, ToolSpec, Turn, connect};
use chargehand::{Context, EffectClass, Failure, Worker};
use domain::command::Submission;
use domain::error::{Code, Error};
use domain::name::Name;
use domain::task::{TaskSpec, TaskStatus};
use engine::Engine;
use protocol::{Api, ApiRead};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Turns of one task.
pub(crate) const TURNS: u32 = 20;
/// A task takes no longer.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Who the agents are.
const INSTRUCTIONS: &str = "You look at pages.";
/// The type of the tasks.
const KIND: &str = "think";

/// A provider on this machine, which speaks Chat Completions as a stream of events and thinks for no
/// time: it wants the tool called until the turns are used up, then it has said all.
async fn answer(body: axum::body::Bytes) -> ([(&'static str, &'static str); 1], String) {
    const ROLE: &[u8] = br#""role":"tool""#;
    let made = body
        .windows(ROLE.len())
        .filter(|part| *part == ROLE)
        .count();
    let (delta, stop) = match made < TURNS as usize {
        true => {
            let arguments = json!({"page": made}).to_string();
            let function = json!({"name": "look", "arguments": arguments});
            let id = format!("call_{made}");
            let call = json!({"index": 0, "id": id, "type": "function", "function": function});
            (
                json!({"role": "assistant", "tool_calls": [call]}),
                "tool_calls",
            )
        }
        false => (json!({"role": "assistant", "content": "All seen."}), "stop"),
    };
    let chunk = |delta: Value, stop: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": stop});
        json!({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "instant",
            "choices": [choice]})
    };
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120});
    let used = json!({"id": "c", "object": "chat.completion.chunk", "created": 0,
        "model": "instant", "choices": [], "usage": usage});
    let events = [
        chunk(delta, Value::Null),
        chunk(json!({}), json!(stop)),
        used,
    ];
    let mut text: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    text.push_str("data: [DONE]\n\n");
    ([("content-type", "text/event-stream")], text)
}

/// Starts the provider, and gets ready to ask it. It ends with the runtime.
async fn provider() -> Result<Arc<dyn Model>, Error> {
    let internal = |what: &str| Error::new(Code::Internal, format!("the provider: {what}"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(|fault| internal(&fault.to_string()))?;
    let address = listener.local_addr();
    let address = address.map_err(|fault| internal(&fault.to_string()))?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // An answer is one small write.
        let _ = stream.set_nodelay(true);
    });
    let routes = axum::Router::new().route("/v1/chat/completions", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let settings = Settings {
        base_url: Some(format!("http://{address}/v1")),
        ..Settings::default()
    };
    let name = "openai/instant".parse();
    let model = name.and_then(|name| connect(&name, &settings));
    model.map_err(|error| internal(&error.message))
}

/// What the turns of a task take without anything of ours but the client: microseconds a turn.
async fn bare(model: &dyn Model, system: &str) -> Result<f64, Error> {
    let since = Instant::now();
    let mut ask = Ask {
        model: "instant".into(),
        system: system.to_owned(),
        turns: vec![Turn::user("# Objective\nLook at all pages\n")],
        tools: Nothing.specs().await,
        ..Ask::default()
    };
    loop {
        let answer = model.ask(&ask, &mut |_| ()).await;
        let answer = answer.map_err(|error| Error::new(Code::Internal, error.message))?;
        ask.turns.push(answer.turn());
        if answer.calls.is_empty() {
            return Ok(since.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS));
        }
        let results = answer.calls.iter().map(|call| CallResult {
            id: call.id.clone(),
            tool: call.tool.clone(),
            text: json!({"seen": call.arguments["page"]}).to_string(),
            failed: false,
            untrusted: false,
        });
        let results = results.collect();
        ask.turns.push(Turn::Tools { results });
    }
}

/// A tool that does nothing.
#[derive(Debug)]
struct Nothing;

#[async_trait::async_trait]
impl Hands for Nothing {
    async fn specs(&self) -> Vec<ToolSpec> {
        vec![ToolSpec {
            name: "look".into(),
            description: "Looks at a page.".into(),
            input: json!({"type": "object", "properties": {"page": {"type": "integer"}}}),
        }]
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        (tool == "look").then(|| (tool.to_owned(), EffectClass::Pure))
    }
    async fn call(
        &self,
        _: &Context,
        _: &str,
        arguments: &Value,
        _: &str,
    ) -> Result<Value, Failure> {
        Ok(json!({"seen": arguments["page"]}))
    }
}

/// What a number of agents did.
pub(crate) struct Turned {
    pub(crate) turns: u64,
    pub(crate) seconds: f64,
    /// Microseconds per turn, one figure a task.
    pub(crate) turn_us: Vec<f64>,
    /// The same by the client alone.
    pub(crate) bare_us: Vec<f64>,
    /// Processor time of the client alone and of the provider: microseconds a turn.
    pub(crate) bare_cpu_us: f64,
    /// Processor time of everything: microseconds a turn.
    pub(crate) cpu_us: f64,
}

/// So many agents at once, each with so many tasks, one after the other.
pub(crate) async fn turns(
    engine: &Arc<Engine>,
    agents: u32,
    tasks_each: u32,
) -> Result<Turned, Error> {
    let model = provider().await?;
    let turns = f64::from(agents) * f64::from(tasks_each) * f64::from(TURNS);
    let spent = cpu();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..agents {
        let model = Arc::clone(&model);
        asking.spawn(async move {
            let mut bare_us = Vec::new();
            for _ in 0..tasks_each {
                bare_us.push(bare(&*model, INSTRUCTIONS).await?);
            }
            Ok::<_, Error>(bare_us)
        });
    }
    let bare_us = all(asking).await?;
    let bare_cpu_us = (cpu() - spent).as_secs_f64() * 1e6 / turns;
    let spent = cpu();
    let mind = Mind {
        instructions: INSTRUCTIONS.into(),
        seats: vec![Seat {
            name: "bench/instant".into(),
            model: "instant".into(),
            gate: Gate::before(model),
            tokens_max: 0,
            temperature: None,
            price: None,
        }],
        hands: Arc::new(Nothing),
        bounds: Bounds {
            rounds: TURNS + 2,
            calls: TURNS + 1,
            tokens: u64::MAX,
            usd_micros: u64::MAX,
        },
    };
    let kind = Name::literal(KIND);
    let worker = Worker::new("thinker")?.capacity(agents);
    let worker = worker.handle(KIND, mind)?;
    let worker = worker.start(engine.clone() as Arc<dyn Api>).await?;
    let begin = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..agents {
        let (engine, kind) = (Arc::clone(engine), kind.clone());
        running.spawn(async move {
            let mut turn_us = Vec::new();
            for _ in 0..tasks_each {
                let brief = Brief {
                    objective: "Look at all pages".into(),
                    ..Brief::default()
                };
                let spec = TaskSpec::new(kind.clone(), json!(brief).into());
                let since = Instant::now();
                let tasks = vec![Submission::new(spec)];
                let mut answers = engine.task_submit(tasks).await?;
                let task = answers.remove(0)?;
                let ended = engine.task_wait(task, TIME_MAX).await?;
                if ended.status == TaskStatus::Completed {
                    turn_us.push(since.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS));
                }
            }
            Ok::<_, Error>(turn_us)
        });
    }
    let turn_us = all(running).await?;
    let seconds = begin.elapsed().as_secs_f64();
    worker.stop().await?;
    Ok(Turned {
        turns: turn_us.len() as u64 * u64::from(TURNS),
        seconds,
        turn_us,
        bare_us,
        bare_cpu_us,
        cpu_us: (cpu() - spent).as_secs_f64() * 1e6 / turns,
    })
}

/// All figures of all agents.
async fn all(mut agents: tokio::task::JoinSet<Result<Vec<f64>, Error>>) -> Result<Vec<f64>, Error> {
    let mut figures = Vec::new();
    while let Some(ended) = agents.join_next().await {
        let ended =
            ended.map_err(|fault| Error::new(Code::Internal, format!("an agent: {fault}")))?;
        figures.extend(ended?);
    }
    Ok(figures)
}
