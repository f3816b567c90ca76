//! What an agent's turn costs beside its model: a model that answers at once, in this process, and a
//! tool that does nothing, so that all that is left is ours. A turn is one answer of the model and
//! one call of the tool, each with a receipt on the disk before the next begins.

use agent::gate::Gate;
use agent::hands::Hands;
use agent::mind::{Bounds, Brief, Mind, Seat};
use agent::model::{Answer, Ask, Call, Listener, Model, ModelError, Stop, ToolSpec, Turn, Usage};
use chargehand::{Context, EffectClass, Failure, Worker};
use domain::command::Submission;
use domain::error::Error;
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
/// The type of the tasks.
const KIND: &str = "think";

/// Calls the tool until its turns are used up, then answers.
#[derive(Debug)]
struct Instantly;

#[async_trait::async_trait]
impl Model for Instantly {
    async fn ask(&self, ask: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
        let of_tools = |turn: &&Turn| matches!(turn, Turn::Tools { .. });
        let made = ask.turns.iter().filter(of_tools).count();
        let calls = (made < TURNS as usize).then(|| Call {
            id: format!("call_{made}"),
            tool: "look".into(),
            arguments: json!({"page": made}),
        });
        Ok(Answer {
            text: String::new(),
            stop: if calls.is_some() {
                Stop::Calls
            } else {
                Stop::Done
            },
            calls: calls.into_iter().collect(),
            usage: Usage {
                input_tokens: 100,
                cached_tokens: 0,
                output_tokens: 20,
            },
        })
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
}

/// So many agents at once, each with so many tasks, one after the other.
pub(crate) async fn turns(
    engine: &Arc<Engine>,
    agents: u32,
    tasks_each: u32,
) -> Result<Turned, Error> {
    let mind = Mind {
        instructions: "You look at pages.".into(),
        seats: vec![Seat {
            name: "bench/instant".into(),
            model: "instant".into(),
            gate: Gate::before(Arc::new(Instantly)),
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
    let mut turn_us = Vec::new();
    while let Some(ended) = running.join_next().await {
        let ended = ended.map_err(|fault| {
            Error::new(domain::error::Code::Internal, format!("an agent: {fault}"))
        })?;
        turn_us.extend(ended?);
    }
    let seconds = begin.elapsed().as_secs_f64();
    worker.stop().await?;
    Ok(Turned {
        turns: turn_us.len() as u64 * u64::from(TURNS),
        seconds,
        turn_us,
    })
}
