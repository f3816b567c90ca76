//! Minds on a real engine: turns and calls with receipts, bounds, and a crash at every step.
//!
//! The model is the tests' own, because providers are paid: it answers by what it is shown, so that
//! it would say the same again, and it counts how often it is asked.

use agent::gate::Gate;
use agent::hands::{Granted, Hands, NoHands};
use agent::mind::{Bounds, Brief, Completeness, Envelope, Mind, Seat};
use agent::model::{
    Answer, Ask, Call, Delta, Fault, Listener, Model, ModelError, Stop, ToolSpec, Turn, Usage,
};
use agent::tool::Toolbox;
use async_trait::async_trait;
use chargehand::{Api, ApiRead, Context, EffectClass, Failure, Json, Submission, TaskSpec, Worker};
use domain::id::TaskId;
use domain::record::{Finding, RecordState};
use domain::retry::RetryPolicy;
use domain::task::TaskStatus;
use engine::{Engine, Place};
use protocol::v1::TaskView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Reply = dyn Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync;

/// Answers by a function of what it is asked.
#[derive(Clone)]
pub(crate) struct Told {
    reply: Arc<Reply>,
    pub(crate) asked: Arc<Mutex<Vec<Ask>>>,
    pub(crate) world: World,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

#[async_trait]
impl Model for Told {
    async fn ask(&self, ask: &Ask, listener: &mut Listener<'_>) -> Result<Answer, ModelError> {
        self.world.moment().await;
        self.asked.lock().unwrap().push(ask.clone());
        self.world.moment().await;
        let answer = (self.reply)(ask)?;
        for word in answer.text.split_inclusive(' ') {
            listener(Delta::Text(word));
        }
        Ok(answer)
    }
}

/// What happened outside, and when the process dies.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// Effects: what was done, under which key.
    pub(crate) done: Arc<Mutex<Vec<(String, String)>>>,
    /// Moments that have passed, and the one at which everything stops for ever.
    pub(crate) moments: Arc<Mutex<(u32, Option<u32>)>>,
    pub(crate) stopped: Arc<tokio::sync::Notify>,
}

impl World {
    async fn moment(&self) {
        let dies = {
            let mut moments = self.moments.lock().unwrap();
            moments.0 += 1;
            moments.1 == Some(moments.0)
        };
        if dies {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// Tools whose effects can be counted.
#[derive(Debug, Clone)]
pub(crate) struct Till {
    pub(crate) world: World,
    pub(crate) effect: EffectClass,
}

#[async_trait]
impl Hands for Till {
    async fn specs(&self) -> Vec<ToolSpec> {
        vec![ToolSpec {
            name: "charge".into(),
            description: "Takes money.".into(),
            input: json!({"type": "object", "properties": {"cents": {"type": "integer"}}}),
        }]
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        (tool == "charge").then(|| (tool.to_owned(), self.effect))
    }
    async fn call(
        &self,
        _: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        self.world.moment().await;
        let what = format!("{tool} {}", arguments["cents"]);
        if arguments["cents"] == json!(13) {
            return Err(Failure::permanent("till.unlucky", "not thirteen"));
        }
        self.world.done.lock().unwrap().push((key.into(), what));
        self.world.moment().await;
        Ok(json!({"charged": arguments["cents"]}))
    }
}

pub(crate) fn says(text: &str) -> Answer {
    Answer {
        text: text.into(),
        calls: Vec::new(),
        stop: Stop::Done,
        usage: Usage {
            input_tokens: 10,
            cached_tokens: 0,
            output_tokens: 5,
        },
    }
}

pub(crate) fn calls(what: &[(&str, Value)]) -> Answer {
    let calls = what.iter().enumerate().map(|(n, (tool, arguments))| Call {
        id: format!("call_{n}"),
        tool: (*tool).into(),
        arguments: arguments.clone(),
    });
    Answer {
        calls: calls.collect(),
        stop: Stop::Calls,
        ..says("")
    }
}

pub(crate) fn model(
    world: &World,
    reply: impl Fn(&Ask) -> Result<Answer, ModelError> + Send + Sync + 'static,
) -> Told {
    Told {
        reply: Arc::new(reply),
        asked: Arc::default(),
        world: world.clone(),
    }
}

fn seat(name: &str, model: Arc<dyn Model>) -> Seat {
    Seat {
        name: format!("test/{name}"),
        model: name.to_owned(),
        gate: Gate::before(model),
        tokens_max: 0,
        temperature: None,
        price: None,
    }
}

pub(crate) fn mind(models: &[&Told], hands: Arc<dyn Hands>) -> Mind {
    let seat = |(n, model): (usize, &&Told)| seat(&n.to_string(), Arc::new((*model).clone()));
    Mind {
        instructions: "You are thrifty.".into(),
        seats: models.iter().enumerate().map(seat).collect(),
        hands,
        bounds: Bounds::default(),
    }
}

fn spec(brief: Brief) -> TaskSpec {
    TaskSpec {
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 1,
            ..RetryPolicy::default()
        },
        ..TaskSpec::new("think".parse().unwrap(), json!(brief).into())
    }
}

pub(crate) fn brief(objective: &str) -> Brief {
    Brief {
        objective: objective.into(),
        ..Brief::default()
    }
}

async fn submit(engine: &Engine, brief: Brief) -> TaskId {
    let tasks = vec![Submission::new(spec(brief))];
    engine.task_submit(tasks).await.unwrap().remove(0).unwrap()
}

/// One task, done by this mind, to its end.
async fn done_by(mind: Mind, brief: Brief) -> TaskView {
    let engine = Arc::new(Engine::open(&Place::Memory).unwrap());
    let worker = Worker::new("worker_1").unwrap();
    let worker = worker.handle("think", mind).unwrap();
    let worker = worker.start(engine.clone()).await.unwrap();
    let task = submit(&engine, brief).await;
    engine.task_wait(task, PATIENCE).await.unwrap();
    let ended = engine.task_get(task).await.unwrap();
    worker.stop().await.unwrap();
    ended
}

/// What it came to.
pub(crate) async fn one_answer(mind: Mind, brief: Brief) -> Envelope {
    envelope(&done_by(mind, brief).await)
}

fn envelope(view: &TaskView) -> Envelope {
    let output = view.output.as_ref().map(Json::value);
    serde_json::from_value(output.unwrap_or_else(|| panic!("{:?}", view.failure))).unwrap()
}

/// Charges twice, then says what came of it.
fn charging(ask: &Ask) -> Result<Answer, ModelError> {
    Ok(match ask.turns.len() {
        1 => calls(&[
            ("charge", json!({"cents": 5})),
            ("charge", json!({"cents": 7})),
        ]),
        3 => calls(&[("charge", json!({"cents": 9}))]),
        _ => says("21 cents"),
    })
}

// S2-68, S3-23, S3-24: an agent's loop: turns, calls of tools, what came of them, an answer.
#[tokio::test]
async fn a_mind_calls_its_tools_and_answers_with_receipts() {
    let world = World::default();
    let told = model(&world, charging);
    let hands = Till {
        world: world.clone(),
        effect: EffectClass::AtMostOnce,
    };
    let ended = done_by(mind(&[&told], Arc::new(hands)), brief("Charge 21 cents")).await;
    let done = envelope(&ended);
    assert_eq!(
        (done.status, done.result),
        (Completeness::Done, json!("21 cents"))
    );
    assert_eq!((done.spend.rounds, done.spend.calls), (3, 3));
    let (read, written) = (
        done.spend.usage.input_tokens,
        done.spend.usage.output_tokens,
    );
    assert_eq!((read, written), (30, 15));
    // Each receipt named as evidence is there, and done.
    let states: BTreeMap<_, _> = ended
        .records
        .iter()
        .map(|record| (record.key.to_string(), record.state.as_str()))
        .collect();
    assert_eq!(done.evidence.len(), 3);
    for evidence in &done.evidence {
        assert_eq!(states[&evidence.receipt], "done");
        assert!(evidence.succeeded);
    }
    // What the model was told: who it is, what to do, and what came of its calls.
    let asked = told.asked.lock().unwrap();
    assert!(asked[0].system.ends_with("You are thrifty."));
    assert_eq!(
        asked[0].turns,
        [Turn::user("# Objective\nCharge 21 cents\n")]
    );
    let Turn::Tools { results } = &asked[1].turns[2] else {
        panic!("{:?}", asked[1].turns);
    };
    assert_eq!(results[1].text, r#"{"charged":7}"#);
    // What tools say is labelled, unless it is known who wrote it.
    assert!(results.iter().all(|result| result.untrusted));
}

/// One life of a process, as far as a store can tell: when it is over, engine, worker and mind are
/// gone without a good-bye.
pub(crate) fn one_life<T>(live: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let lived = runtime.block_on(live());
    // Everything that still runs is dropped where it is.
    runtime.shutdown_timeout(PATIENCE);
    lived
}

/// The process dies at a moment, and another one goes on. Gives what happened outside, how often the
/// model was asked, and the task as it ended.
fn dies_at(moment: u32, effect: EffectClass) -> (World, usize, TaskView) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    world.moments.lock().unwrap().1 = Some(moment);
    let told = model(&world, charging);
    let mut task = None;
    for _ in 0..2 {
        let ended = one_life(async || {
            let engine = Arc::new(Engine::open(&place).unwrap());
            let hands = Till {
                world: world.clone(),
                effect,
            };
            let worker = Worker::new("worker_1").unwrap();
            let mind = mind(&[&told], Arc::new(hands));
            let worker = worker.handle("think", mind).unwrap();
            let worker = worker.start(engine.clone()).await.unwrap();
            let id = match task {
                Some(id) => id,
                None => *task.insert(submit(&engine, brief("Charge")).await),
            };
            tokio::select! {
                ended = engine.task_wait(id, PATIENCE) => {
                    worker.stop().await.unwrap();
                    Some(ended.unwrap())
                }
                () = world.stopped.notified() => None,
            }
        });
        if let Some(ended) = ended {
            let asked = told.asked.lock().unwrap().len();
            return (world, asked, ended);
        }
    }
    panic!("it ended neither time");
}

/// Every moment there is: before and after each of three turns and three calls.
const MOMENTS: u32 = 12;

// S0-59: what a tool did can be seen outside, once under its key.
#[test]
fn a_crash_at_any_moment_costs_nothing_that_has_a_receipt() {
    for moment in 1..=MOMENTS {
        let (world, asked, ended) = dies_at(moment, EffectClass::Keyed);
        let done = envelope(&ended);
        assert_eq!(done.result, json!("21 cents"), "at {moment}");
        // As without a crash: three turns, and each of three charges once under its key.
        assert_eq!((done.spend.rounds, done.spend.calls), (3, 3), "at {moment}");
        let effects: BTreeMap<_, _> = world.done.lock().unwrap().iter().cloned().collect();
        let mut what: Vec<_> = effects.values().map(String::as_str).collect();
        what.sort_unstable();
        assert_eq!(what, ["charge 5", "charge 7", "charge 9"], "at {moment}");
        // A turn is asked again only when it was being answered at that very moment.
        let in_flight = [2, 8, 12].contains(&moment);
        assert_eq!(asked, if in_flight { 4 } else { 3 }, "at {moment}");
    }
}

#[test]
fn a_call_that_may_have_happened_waits_for_a_person() {
    for moment in 1..=MOMENTS {
        let (world, _, ended) = dies_at(moment, EffectClass::AtMostOnce);
        let done = world.done.lock().unwrap().clone();
        // The moments of the three calls: before each and after it.
        let in_doubt = [3, 4, 5, 6, 9, 10].contains(&moment);
        if !in_doubt {
            assert_eq!(ended.status, TaskStatus::Completed, "at {moment}");
            assert_eq!(done.len(), 3, "at {moment}");
            continue;
        }
        assert_eq!(ended.status, TaskStatus::Failed, "at {moment}");
        assert_eq!(ended.failure.as_ref().unwrap().code, "record.in_doubt");
        let mut keys: Vec<_> = done.iter().map(|(key, _)| key).collect();
        keys.dedup();
        assert_eq!(keys.len(), done.len(), "no charge happened twice");
        let open: Vec<_> = ended
            .records
            .iter()
            .filter(|record| matches!(record.state, RecordState::InDoubt))
            .collect();
        assert_eq!(open.len(), 1, "at {moment}");
        assert!(open[0].key.as_str().starts_with("call_"));
    }
}

#[test]
fn what_a_person_found_out_is_what_the_mind_goes_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("store"));
    let world = World::default();
    // After the first charge happened, before anybody heard of it.
    world.moments.lock().unwrap().1 = Some(4);
    let told = model(&world, charging);
    let hands: Arc<dyn Hands> = Arc::new(Till {
        world: world.clone(),
        effect: EffectClass::AtMostOnce,
    });
    let start = async || {
        let engine = Arc::new(Engine::open(&place).unwrap());
        let worker = Worker::new("worker_1").unwrap();
        let worker = worker.handle("think", mind(&[&told], hands.clone()));
        let worker = worker.unwrap().start(engine.clone()).await.unwrap();
        (engine, worker)
    };
    let task = one_life(async || {
        let (engine, _worker) = start().await;
        let task = submit(&engine, brief("Charge")).await;
        world.stopped.notified().await;
        task
    });
    one_life(async || {
        let (engine, worker) = start().await;
        let stuck = engine.task_wait(task, PATIENCE).await.unwrap();
        let open = |record: &&domain::record::Record| matches!(record.state, RecordState::InDoubt);
        let key = stuck.records.iter().find(open).unwrap().key.clone();
        let output = json!({"output": {"charged": 5}});
        let finding = Finding::Done {
            output: output.into(),
        };
        engine.record_resolve(task, key, finding).await.unwrap();
        engine.task_redrive(task).await.unwrap();
        let ended = engine.task_wait(task, PATIENCE).await.unwrap();
        assert_eq!(envelope(&ended).result, json!("21 cents"));
        assert_eq!(world.done.lock().unwrap().len(), 3, "each charge once");
        worker.stop().await.unwrap();
    });
}

/// Turns of the long task.
const LONG: usize = 1_000;

/// Text of so many bytes that stands nowhere else.
fn prose(of: &str, number: usize, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 80);
    for sentence in 0.. {
        if text.len() >= bytes {
            break;
        }
        text += &format!("The {of} {number} says in sentence {sentence} what no other does. ");
    }
    text.truncate(bytes);
    text
}

/// A tool that reads pages, and counts how often.
#[derive(Debug, Clone)]
struct Pages {
    read: Arc<Mutex<BTreeMap<String, u32>>>,
    world: World,
}

#[async_trait]
impl Hands for Pages {
    async fn specs(&self) -> Vec<ToolSpec> {
        vec![ToolSpec {
            name: "read".into(),
            description: "Reads a page.".into(),
            input: json!({"type": "object"}),
        }]
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        Some((tool.to_owned(), EffectClass::Pure))
    }
    async fn call(
        &self,
        _: &Context,
        _: &str,
        arguments: &Value,
        _: &str,
    ) -> Result<Value, Failure> {
        let number = arguments["page"].as_u64().unwrap_or_default() as usize;
        let what = arguments.to_string();
        *self.read.lock().unwrap().entry(what).or_default() += 1;
        self.world.moment().await;
        // As pages are: most of them short, some long.
        let bytes = [1_500, 700, 6_000, 3_000, 2_200][number % 5];
        Ok(json!(prose("page", number, bytes)))
    }
}

/// Says what it thinks of the last page and wants the next, with a reason. It keeps the longest of
/// what it was asked, and how often it was asked.
#[derive(Debug, Clone)]
struct Reads {
    asked: Arc<Mutex<(usize, Ask)>>,
    world: World,
}

#[async_trait]
impl Model for Reads {
    async fn ask(&self, ask: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
        self.world.moment().await;
        let number = ask.turns.len() / 2;
        {
            let mut asked = self.asked.lock().unwrap();
            asked.0 += 1;
            if number >= LONG {
                asked.1 = ask.clone();
            }
        }
        self.world.moment().await;
        if number >= LONG {
            return Ok(says(&prose("conclusion", 0, 2_000)));
        }
        let why = prose("reason", number, 200);
        let next = calls(&[("read", json!({"page": number, "why": why}))]);
        Ok(Answer {
            text: prose("thought", number, 600),
            ..next
        })
    }
}

/// Bytes of all files of a store.
fn stored(folder: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// A task of a thousand turns, with a crash in the middle: nothing is bought again, and on the disk
/// is what was said, once, and little beside it. A turn is a thought, a call and a page of some
/// kilobytes; what a receipt takes beside them is the same for any.
#[test]
fn a_thousand_turns_are_stored_once_and_bought_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let place = Place::Folder(path.clone());
    let empty = one_life(async || {
        let engine = Engine::open(&place).unwrap();
        engine.stop().unwrap();
        stored(&path)
    });
    let world = World::default();
    // Each turn has two moments of the model and one of the tool.
    world.moments.lock().unwrap().1 = Some(3 * LONG as u32 / 2);
    let reads = Reads {
        asked: Arc::default(),
        world: world.clone(),
    };
    let pages = Pages {
        read: Arc::default(),
        world: world.clone(),
    };
    let mut task = None;
    let lives = (0..2).map(|life| {
        one_life(async || {
            let engine = Arc::new(Engine::open(&place).unwrap());
            let worker = Worker::new("worker_1").unwrap();
            let mut mind = mind(&[], Arc::new(pages.clone()));
            mind.seats = vec![seat("reader", Arc::new(reads.clone()))];
            mind.bounds = Bounds {
                rounds: LONG as u32 + 2,
                calls: LONG as u32 + 2,
                tokens: u64::MAX,
                ..Bounds::default()
            };
            let worker = worker.handle("think", mind).unwrap();
            let worker = worker.start(engine.clone()).await.unwrap();
            let id = match task {
                Some(id) => id,
                None => *task.insert(submit(&engine, brief("Read all pages")).await),
            };
            tokio::select! {
                ended = engine.task_wait(id, PATIENCE) => {
                    worker.stop().await.unwrap();
                    engine.stop().unwrap();
                    assert_eq!(life, 1);
                    Some(ended.unwrap())
                }
                () = world.stopped.notified() => None,
            }
        })
    });
    let ended = lives.last().flatten().unwrap();
    let done = envelope(&ended);
    assert_eq!(done.status, Completeness::Done, "{:?}", done.reason);
    assert_eq!(done.spend.rounds as usize, LONG + 1);
    assert_eq!(ended.attempts, 2);

    // What was under way when the process died is done again, and nothing else.
    let (asked, last) = &*reads.asked.lock().unwrap();
    assert!((LONG + 1..=LONG + 2).contains(asked), "{asked}");
    let read = pages.read.lock().unwrap();
    assert_eq!(read.len(), LONG);
    let reads: u32 = read.values().sum();
    assert!((LONG as u32..=LONG as u32 + 1).contains(&reads), "{reads}");

    // The transcript, once, and the result. Beside it the log has what each receipt says of its step:
    // which it is, of which attempt, when, at what cost.
    let result = ended.output.unwrap().bytes();
    let transcript = json!(last.turns).to_string().len() + last.system.len();
    let unique = (transcript + result) as u64;
    let logged = one_life(async || {
        let engine = Engine::open_to_read(&path).unwrap();
        let mut bytes = 0;
        let mut position = 0;
        loop {
            let events = engine.event_list(position, 1_000).await.unwrap();
            let Some(newest) = events.last() else {
                return bytes;
            };
            position = newest.position;
            bytes += events
                .iter()
                .map(|event| json!(event).to_string().len() as u64)
                .sum::<u64>();
        }
    });
    let times = |bytes: u64| bytes as f64 / unique as f64;
    assert!(
        times(logged) <= 1.2,
        "{:.2} times in the log",
        times(logged)
    );
    // In the file there are the rows, too: of each receipt that it is there, and the result.
    let filed = stored(&path) - empty;
    assert!(times(filed) <= 1.3, "{:.2} times on the disk", times(filed));
}

#[tokio::test]
async fn a_mind_that_goes_round_in_circles_is_stopped_and_says_what_it_has() {
    let world = World::default();
    let told = model(&world, |ask| {
        Ok(match (ask.tools.is_empty(), ask.turns.len()) {
            (true, _) => says("nothing yet"),
            _ => calls(&[("charge", json!({"cents": 13}))]),
        })
    });
    let hands = Till {
        world: world.clone(),
        effect: EffectClass::Pure,
    };
    let ended = done_by(mind(&[&told], Arc::new(hands)), brief("Charge 13 cents")).await;
    let done = envelope(&ended);
    assert_eq!(done.status, Completeness::Partial);
    assert_eq!(done.result, json!("nothing yet"));
    let reason = "it called “charge” 3 times with the same outcome";
    assert_eq!(done.reason.as_deref(), Some(reason));
    assert_eq!((done.spend.rounds, done.spend.calls), (4, 3));
    assert!(done.evidence.iter().all(|evidence| !evidence.succeeded));
}

#[tokio::test]
async fn each_bound_ends_in_a_last_turn_without_tools() {
    let endless = |ask: &Ask| {
        Ok(match ask.tools.is_empty() {
            true => says("so far"),
            false => calls(&[("charge", json!({"cents": ask.turns.len()}))]),
        })
    };
    let free = Bounds {
        rounds: 100,
        calls: 100,
        tokens: 1_000_000,
        usd_micros: u64::MAX,
    };
    let cases = [
        (
            Bounds { rounds: 4, ..free },
            "its 4 turns are used up",
            5,
            4,
        ),
        (Bounds { calls: 2, ..free }, "its 2 calls are used up", 3, 2),
        // 15 tokens a turn: the fifth begins with 60 used.
        (
            Bounds { tokens: 60, ..free },
            "its 60 tokens are used up",
            5,
            4,
        ),
    ];
    for (bounds, reason, rounds, made) in cases {
        let world = World::default();
        let told = model(&world, endless);
        let hands = Till {
            world: world.clone(),
            effect: EffectClass::Keyed,
        };
        let mind = Mind {
            bounds,
            ..mind(&[&told], Arc::new(hands))
        };
        let done = envelope(&done_by(mind, brief("Go on")).await);
        assert_eq!(done.status, Completeness::Partial, "{reason}");
        assert_eq!(done.reason.as_deref(), Some(reason));
        assert_eq!(
            (done.spend.rounds, done.spend.calls),
            (rounds, made),
            "{reason}"
        );
        assert_eq!(world.done.lock().unwrap().len(), made as usize);
    }
}

#[tokio::test]
async fn a_tool_that_was_not_granted_is_not_called_and_costs_no_step() {
    let world = World::default();
    let told = model(&world, |ask| {
        Ok(match ask.turns.last() {
            Some(Turn::Tools { results }) => {
                assert!(results[0].failed);
                says(&results[0].text)
            }
            _ => calls(&[("launch", json!({}))]),
        })
    });
    let ended = done_by(mind(&[&told], Arc::new(NoHands)), brief("Launch")).await;
    let done = envelope(&ended);
    assert_eq!(done.result, json!("there is no tool “launch” for you"));
    assert_eq!((done.spend.calls, done.evidence), (0, vec![]));
}

#[tokio::test]
async fn an_answer_of_the_wrong_form_is_sent_back_and_then_refused() {
    let schema = json!({"type": "object", "required": ["cents"], "properties": {"cents": {"type": "integer"}}});
    let wanted = Brief {
        output: Some(schema),
        ..brief("How much?")
    };
    let world = World::default();
    let mends = model(&world, |ask| {
        Ok(match ask.turns.len() {
            1 => says("About twenty."),
            3 => says(r#"{"cents": "twenty"}"#),
            _ => says("```json\n{\"cents\": 20}\n```"),
        })
    });
    let ended = done_by(mind(&[&mends], Arc::new(NoHands)), wanted.clone()).await;
    assert_eq!(envelope(&ended).result, json!({"cents": 20}));
    let asked = mends.asked.lock().unwrap().clone();
    let told: Vec<_> = asked[2]
        .turns
        .iter()
        .map(|turn| json!(turn).to_string())
        .collect();
    assert!(told[2].contains("no JSON"), "{}", told[2]);
    assert!(told[4].contains("/cents"), "{}", told[4]);

    let prose = model(&world, |_| Ok(says("I would rather not count.")));
    let ended = done_by(mind(&[&prose], Arc::new(NoHands)), wanted).await;
    assert_eq!(ended.failure.unwrap().code, "agent.output");
    assert_eq!(
        prose.asked.lock().unwrap().len(),
        3,
        "the answer and two corrections"
    );
}

#[tokio::test]
async fn the_next_model_answers_where_the_first_cannot() {
    let world = World::default();
    let first = model(&world, |_| Err(ModelError::new(Fault::Key, "no key")));
    let second = model(&world, |_| Ok(says("here")));
    let ended = done_by(mind(&[&first, &second], Arc::new(NoHands)), brief("Who?")).await;
    let done = envelope(&ended);
    assert_eq!(done.result, json!("here"));
    assert_eq!(done.spend.models, BTreeMap::from([("test/1".into(), 1)]));
    assert_eq!(done.spend.requests, 2, "the failed one counts");

    let ended = done_by(mind(&[&first], Arc::new(NoHands)), brief("Who?")).await;
    let failure = ended.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.retryable),
        ("model.key", false)
    );
}

// S0-11: what the second call found is what the task comes to.
#[tokio::test]
async fn what_one_agent_writes_on_the_board_another_of_its_run_finds() {
    let world = World::default();
    let told = model(&world, |ask| {
        Ok(match ask.turns.len() {
            1 => calls(&[(
                "board_write",
                json!({"content": "blue", "tags": ["colour"]}),
            )]),
            3 => calls(&[("board_search", json!({"tags": ["colour"]}))]),
            _ => match ask.turns.last() {
                Some(Turn::Tools { results }) => says(&results[0].text),
                _ => says("nothing"),
            },
        })
    });
    let hands = Granted {
        toolbox: Arc::new(Toolbox::new([]).unwrap()),
        tools: ["board.write", "board.search"].map(str::to_owned).into(),
        approve: Default::default(),
    };
    let ended = done_by(mind(&[&told], Arc::new(hands)), brief("Which colour?")).await;
    let done = envelope(&ended);
    let found: Value = serde_json::from_str(done.result.as_str().unwrap()).unwrap();
    let expected = json!([{"author": "worker_1", "tags": ["colour"], "content": "blue"}]);
    assert_eq!(found["found"], expected);
    let tools: Vec<_> = done
        .evidence
        .iter()
        .map(|made| made.tool.as_str())
        .collect();
    assert_eq!(tools, ["board.write", "board.search"]);
    // Not granted, and so not there.
    let other = Granted {
        toolbox: Arc::new(Toolbox::new([]).unwrap()),
        tools: ["board.search".to_owned()].into(),
        approve: Default::default(),
    };
    assert_eq!(other.known("board_write"), None);
    assert_eq!(other.specs().await.len(), 1);
}
