//! Crews that die at the boundaries of their records: a seed says what its agents do, and between
//! which two commits of receipts the process ends, again and again. What happened outside happened
//! once, what was spent and reserved stays within the cap where there is one, and the answer is the one
//! that a process without a crash would have given, unless the cap was in its way.
//!
//! The store is in memory and outlives its engines. A process ends as far as it can be told from a
//! store: the commit of a receipt is written or not, nobody hears of it, nothing is written after it,
//! and everything that runs is dropped where it is.

use crate::mind::PATIENCE;
use crate::planning::{sum, tasks};
use agent::gate::Gate;
use agent::hands::Hands;
use agent::mind::{Bounds, Brief, Completeness, Envelope, Mind, Seat};
use agent::model::{
    Answer, Ask, Call, Fault, Listener, Model, ModelError, Stop, ToolSpec, Turn, Usage,
};
use async_trait::async_trait;
use chargehand::{Api, ApiRead, Context, EffectClass, Failure, Worker};
use domain::budget::{Amount, Budget, Ledger};
use domain::command::RunStart;
use domain::error::{Code, Error};
use domain::event::Event;
use domain::id::{CountedIds, Ids, RunId};
use domain::record::{Finding, RecordState};
use domain::run::{Crew, RunStatus};
use domain::state::Key;
use engine::{Clock, Engine};
use protocol::api::TaskQuery;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::backend::memory::Memory;
use store::{Backend, Commit, Head, Hot, Reader, Versioned};
use tokio::sync::Notify;

/// What each tool's calls mean, done twice.
const TOOLS: [(&str, EffectClass); 4] = [
    ("look", EffectClass::Pure),
    ("set", EffectClass::Keyed),
    ("post", EffectClass::VerifyFirst),
    ("pay", EffectClass::AtMostOnce),
];
/// Lives that a seed's crew needs at most.
const LIVES_MAX: u32 = 60;

/// What a seed says of a thing: the same each time it is asked.
fn drawn(seed: u64, of: [u64; 3], below: u64) -> u64 {
    let mixed = of.iter().fold(seed, |mixed, part| {
        let mixed = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    });
    (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % below
}

/// What an agent wants called in a turn: none when it has said all.
fn wanted(seed: u64, agent: u64, turn: u64) -> Vec<Call> {
    if turn > drawn(seed, [agent, 1, 0], 3) {
        return Vec::new();
    }
    let count = 1 + drawn(seed, [agent, 2, turn], 3);
    (0..count)
        .map(|n| {
            let number = agent * 100 + turn * 10 + n;
            let (tool, _) = TOOLS[drawn(seed, [agent, 3, number], 4) as usize];
            Call {
                id: format!("call_{number}"),
                tool: tool.into(),
                arguments: json!({"number": number}),
            }
        })
        .collect()
}

/// Tokens that a turn reserves, at most: its question, and the longest answer.
const TURN_TOKENS_MAX: u64 = 6_000;

/// What a seed's crew may spend: a quarter of them what they like, the others now more and now less
/// than they would, in calls, in tokens, or in both. A turn of which nobody heard again counts as it
/// was reserved, which is hundreds of times what one costs that is heard.
fn budget(seed: u64) -> Option<Budget> {
    let caps = drawn(seed, [7, 0, 0], 4);
    let calls = 4 + drawn(seed, [7, 1, 0], 60);
    let tokens = 5_000 + 1_000 * drawn(seed, [7, 2, 0], 80);
    (caps > 0).then(|| Budget {
        calls: (caps & 1 > 0).then_some(calls),
        tokens: (caps & 2 > 0).then_some(tokens),
        ..Budget::default()
    })
}

/// What comes of a call.
fn outcome(tool: &str, number: u64) -> Value {
    json!({"did": format!("{tool} {number}")})
}

/// What an agent of a process that never died would say in the end.
fn expected(seed: u64, agent: u64) -> String {
    let mut text = String::new();
    for turn in 0.. {
        let calls = wanted(seed, agent, turn);
        if calls.is_empty() {
            return text;
        }
        for call in calls {
            let number = call.arguments["number"].as_u64().unwrap();
            text += &outcome(&call.tool, number).to_string();
        }
    }
    text
}

/// Effects, by tool and number: the key of each time it was done.
type Effects = BTreeMap<(String, u64), Vec<String>>;

/// What is outside: it outlives every process.
#[derive(Debug, Clone, Default)]
struct Outside {
    /// What was done.
    done: Arc<Mutex<Effects>>,
    /// Turns at which the provider has said once that it is asked too often.
    refused: Arc<Mutex<BTreeSet<(u64, u64)>>>,
}

impl Outside {
    /// What a person finds who looks whether it happened under this key.
    fn found(&self, key: &String) -> Finding {
        let done = self.done.lock().unwrap();
        match done.iter().find(|(_, keys)| keys.contains(key)) {
            Some(((tool, number), _)) => Finding::Done {
                output: json!({"output": outcome(tool, *number)}).into(),
            },
            None => Finding::Failed {
                failure: Failure::new("looked.for", "it had not happened"),
            },
        }
    }
}

#[derive(Debug, Clone)]
struct Provider {
    seed: u64,
    outside: Outside,
    /// The one that is asked where the first has no answer.
    second: bool,
}

#[async_trait]
impl Model for Provider {
    async fn ask(&self, ask: &Ask, _: &mut Listener<'_>) -> Result<Answer, ModelError> {
        let Turn::User { text } = &ask.turns[0] else {
            panic!("{:?}", ask.turns[0]);
        };
        let agent = text.split_whitespace().find_map(|word| word.parse().ok());
        let agent: u64 = agent.unwrap();
        let turn = ask.turns.iter();
        let turn = turn
            .filter(|turn| matches!(turn, Turn::Model { .. }))
            .count() as u64;
        let mood = drawn(self.seed, [agent, 4, turn], 30);
        if !self.second && mood < 4 {
            return Err(ModelError::new(Fault::Unknown, "no such model"));
        }
        if mood == 5 && self.outside.refused.lock().unwrap().insert((agent, turn)) {
            return Err(ModelError {
                retry_after: Some(Duration::from_millis(1)),
                ..ModelError::new(Fault::Limited, "too often")
            });
        }
        // The last words of who is told to stop are asked for without tools.
        let calls = match ask.tools.is_empty() {
            true => Vec::new(),
            false => wanted(self.seed, agent, turn),
        };
        let heard = ask.turns.iter().filter_map(|turn| match turn {
            Turn::Tools { results } => Some(results.iter().map(|result| result.text.as_str())),
            _ => None,
        });
        let (stop, text) = match calls.is_empty() {
            true => (Stop::Done, heard.flatten().collect()),
            false => (Stop::Calls, String::new()),
        };
        Ok(Answer {
            text,
            calls,
            stop,
            usage: Usage {
                input_tokens: 10,
                cached_tokens: 0,
                output_tokens: 5,
            },
        })
    }
}

#[async_trait]
impl Hands for Outside {
    async fn specs(&self) -> Vec<ToolSpec> {
        let spec = |(name, _): (&str, EffectClass)| ToolSpec {
            name: name.into(),
            description: "Does it.".into(),
            input: json!({"type": "object"}),
        };
        TOOLS.map(spec).into()
    }
    fn known(&self, tool: &str) -> Option<(String, EffectClass)> {
        let known = TOOLS.iter().find(|(name, _)| *name == tool)?;
        Some((tool.to_owned(), known.1))
    }
    async fn call(
        &self,
        _: &Context,
        tool: &str,
        arguments: &Value,
        key: &str,
    ) -> Result<Value, Failure> {
        let number = arguments["number"].as_u64().unwrap();
        // Others get their turn before it is done.
        tokio::task::yield_now().await;
        let mut done = self.done.lock().unwrap();
        let times = done.entry((tool.to_owned(), number)).or_default();
        times.push(key.to_owned());
        Ok(outcome(tool, number))
    }
}

/// When a process ends: at the commit of so many receipts more, which is written or not.
#[derive(Debug)]
struct Death {
    left: Option<u64>,
    written: bool,
    dead: bool,
}

struct Mortal {
    inner: Memory,
    death: Mutex<Death>,
    died: Arc<Notify>,
}

impl Backend for Mortal {
    fn head(&mut self) -> Result<Head, Error> {
        self.inner.head()
    }
    fn load(&mut self, keys: &[Key]) -> Result<Vec<Versioned>, Error> {
        self.inner.load(keys)
    }
    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Error> {
        let mut death = self.death.lock().unwrap();
        let gone = || Err(Error::new(Code::StoreIo, "the process has died"));
        if death.dead {
            return gone();
        }
        let frame = commit.frame.as_ref().map(|frame| frame.body);
        let noted = br#""record.noted""#;
        if frame.is_some_and(|body| body.windows(noted.len()).any(|part| part == noted))
            && let Some(left) = &mut death.left
        {
            *left -= 1;
            if *left == 0 {
                death.dead = true;
                if death.written {
                    self.inner.commit(commit)?;
                }
                self.died.notify_one();
                return gone();
            }
        }
        self.inner.commit(commit)
    }
    fn hot(&mut self, each: &mut dyn FnMut(Hot)) -> Result<(), Error> {
        self.inner.hot(each)
    }
    fn tidy(&mut self) -> Result<(), Error> {
        self.inner.tidy()
    }
    fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        self.inner.reader()
    }
}

/// One seed's crew, through all of its lives.
struct Play {
    seed: u64,
    agents: u64,
    outside: Outside,
    disk: Memory,
    /// What a person found to be in doubt.
    doubts: u32,
    deaths: u32,
}

impl Play {
    fn mind(&self) -> Mind {
        let seat = |second| Seat {
            name: format!("test/{second}"),
            model: "test".into(),
            gate: Gate::before(Arc::new(Provider {
                seed: self.seed,
                outside: self.outside.clone(),
                second,
            })),
            tokens_max: 0,
            temperature: None,
            price: None,
        };
        Mind {
            instructions: "You do as the seed says.".into(),
            seats: vec![seat(false), seat(true)],
            hands: Arc::new(self.outside.clone()),
            bounds: Bounds::default(),
        }
    }

    fn start(&self) -> RunStart {
        let brief = |agent| {
            json!(Brief {
                objective: format!("Be agent {agent} of them"),
                ..Brief::default()
            })
        };
        let briefs: Vec<Value> = (1..=self.agents).map(brief).collect();
        let graph = json!({"steps": [
            {"id": "agents", "each": {"items": briefs, "task": {"kind": "think"}}},
            {"id": "all", "needs": ["agents"], "gate": {"join": "all", "reduce": "collect"}},
        ]});
        RunStart {
            goal: "Do as the seed says".into(),
            supervisor: "supervisor_1".parse().unwrap(),
            graph: serde_json::from_value(graph).unwrap(),
            crew: Crew::default(),
            metadata: BTreeMap::new(),
            key: Some("the-run".parse().unwrap()),
            trace: None,
            budget: budget(self.seed),
        }
    }

    /// One life: to its death, or until the run has ended. Gives the run's end when it has an answer.
    fn live(&mut self, life: u32) -> Option<End> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut chance = CountedIds::new(self.seed * 1_000 + u64::from(life));
        // Small seeds begin alike; a few draws part them.
        for _ in 0..8 {
            chance.chance(2);
        }
        let ends = u64::from(life) < 1 + drawn(self.seed, [5, 0, 0], 4);
        let death = Death {
            left: ends.then(|| 1 + chance.chance(7)),
            written: chance.chance(2) == 0,
            dead: false,
        };
        let died = Arc::new(Notify::new());
        let backend = Mortal {
            inner: self.disk.clone(),
            death: Mutex::new(death),
            died: died.clone(),
        };
        let ids = CountedIds::new(self.seed * 1_000 + 500 + u64::from(life));
        let answer = runtime.block_on(async {
            let backend = Box::new(backend);
            let engine = Engine::start(backend, Box::new(ids), Clock::system()).unwrap();
            let engine = Arc::new(engine);
            tokio::select! {
                biased;
                () = died.notified() => {
                    self.deaths += 1;
                    None
                }
                answer = run(&engine, self.start(), self.mind(), &self.outside, &mut self.doubts) => {
                    answer
                }
            }
        });
        // Everything that still runs is dropped where it is.
        runtime.shutdown_timeout(PATIENCE);
        answer
    }
}

/// How a run ended.
struct End {
    answer: Value,
    /// Whether the cap may have been in its way: it was not when at every moment one more reservation
    /// would have been within it.
    may_be_bound: bool,
}

/// The run's account is its tasks', added up, and within its cap.
async fn audit(engine: &Engine, run: RunId, budget: Option<Budget>) {
    let Some(account) = engine.run_get(run).await.unwrap().account else {
        assert_eq!(budget, None);
        return;
    };
    assert_eq!(account.ledger, sum(&tasks(engine, run).await));
    assert_eq!(account.budget, budget.unwrap_or_default());
    let reserved = Amount {
        tokens: TURN_TOKENS_MAX,
        ..Amount::CALL
    };
    within(account.ledger.used(), account.budget, reserved);
}

/// At most the cap, and one reservation under way.
#[track_caller]
fn within(used: Amount, budget: Budget, reserved: Amount) {
    let sides = [
        (used.calls, budget.calls, reserved.calls),
        (used.tokens, budget.tokens, reserved.tokens),
    ];
    for (used, cap, reserved) in sides {
        assert!(
            cap.is_none_or(|cap| used <= cap + reserved),
            "{used} of {budget:?}, of which {reserved} are under way"
        );
    }
}

/// Follows the account through the whole log, as it was after each event. Says whether one more
/// reservation would always have been within the part of the cap that is not kept for last words.
async fn may_be_bound(engine: &Engine, budget: Budget) -> bool {
    let (mut ledger, mut reserved, mut may_be_bound) =
        (Ledger::default(), Amount::default(), false);
    let mut position = 0;
    loop {
        let events = engine.event_list(position, 1_000).await.unwrap();
        let Some(last) = events.last() else {
            return may_be_bound;
        };
        position = last.position;
        for event in &events {
            let (Event::RecordNoted { dues, .. } | Event::RecordResolved { dues, .. }) =
                &event.event
            else {
                continue;
            };
            let dues = dues.unwrap_or_default();
            ledger.held = ledger.held.plus(dues.held).minus(dues.released);
            ledger.spent = ledger.spent.plus(dues.spent);
            reserved.calls = reserved.calls.max(dues.held.calls);
            reserved.tokens = reserved.tokens.max(dues.held.tokens);
            let used = ledger.used();
            within(used, budget, reserved);
            let open = |cap: u64| cap - cap / 10;
            may_be_bound |= budget.calls.is_some_and(|cap| used.calls + 1 > open(cap));
            may_be_bound |=
                (budget.tokens).is_some_and(|cap| used.tokens + TURN_TOKENS_MAX > open(cap));
            assert!(reserved.tokens <= TURN_TOKENS_MAX, "{reserved:?}");
        }
    }
}

/// Goes on with the run. An error is the process's end, which is told otherwise.
async fn run(
    engine: &Arc<Engine>,
    start: RunStart,
    mind: Mind,
    outside: &Outside,
    doubts: &mut u32,
) -> Option<End> {
    let budget = start.budget;
    let Ok(run) = engine.run_start(start).await else {
        return std::future::pending().await;
    };
    // Nobody works yet: what the processes before left behind adds up.
    audit(engine, run, budget).await;
    // And what is in doubt can be found out.
    if look_into(engine, run, outside, doubts).await.is_err() {
        return std::future::pending().await;
    }
    let worker = Worker::new("worker_1").unwrap().capacity(2);
    let worker = worker.handle("think", mind).unwrap();
    let Ok(_worker) = worker.start(engine.clone()).await else {
        return std::future::pending().await;
    };
    let mut position = 0;
    loop {
        let Ok(view) = engine.run_get(run).await else {
            return std::future::pending().await;
        };
        match view.status {
            RunStatus::Completed => {
                audit(engine, run, budget).await;
                let may_be_bound = match budget {
                    Some(budget) => may_be_bound(engine, budget).await,
                    None => false,
                };
                return Some(End {
                    answer: view.final_result.unwrap().value(),
                    may_be_bound,
                });
            }
            RunStatus::Failed => return None,
            _ => {}
        }
        match engine.event_wait(position, PATIENCE).await {
            Ok(head) => position = head,
            Err(_) => return std::future::pending().await,
        }
    }
}

/// A person looks at what is in doubt, says how it was, and lets the run go on.
async fn look_into(
    engine: &Engine,
    run: RunId,
    outside: &Outside,
    doubts: &mut u32,
) -> Result<(), Error> {
    if engine.run_get(run).await?.status != RunStatus::Failed {
        return Ok(());
    }
    let query = TaskQuery {
        run: Some(run),
        limit: 100,
        ..TaskQuery::default()
    };
    for task in engine.task_list(query).await?.items {
        for record in &task.records {
            if record.state != RecordState::InDoubt {
                continue;
            }
            *doubts += 1;
            let key = format!("{}.{}", task.task_id, record.key);
            let finding = outside.found(&key);
            let resolved = engine.record_resolve(task.task_id, record.key.clone(), finding);
            resolved.await?;
        }
    }
    engine.run_retry(run).await
}

/// What became of crews.
#[derive(Debug, Default)]
struct Told {
    /// How often one died.
    deaths: u32,
    /// How often a person had to look.
    doubts: u32,
    /// How many had a cap that was not in their way.
    free: u32,
    /// How many agents were stopped by a cap.
    stopped: u32,
}

/// What became of the crews of some seeds.
fn play(seeds: std::ops::Range<u64>) -> Told {
    let mut told = Told::default();
    for seed in seeds {
        let _seed = Named(seed);
        let mut play = Play {
            seed,
            agents: 1 + drawn(seed, [6, 0, 0], 3),
            outside: Outside::default(),
            disk: Memory::default(),
            doubts: 0,
            deaths: 0,
        };
        let end = (0..LIVES_MAX).find_map(|life| play.live(life));
        let end = end.unwrap_or_else(|| panic!("it does not end"));
        let said = end.answer.as_array().unwrap().iter().map(envelope);
        let (done, stopped): (Vec<Envelope>, Vec<Envelope>) =
            said.partition(|said| said.status == Completeness::Done);
        let mut should: Vec<String> = (1..=play.agents).map(|n| expected(seed, n)).collect();
        assert_eq!(done.len() + stopped.len(), should.len());
        // Who says it is done has done all of it.
        for said in done {
            let text = said.result.as_str().unwrap();
            let at = should.iter().position(|should| should == text);
            should.swap_remove(at.unwrap_or_else(|| panic!("{text}: {should:?}")));
        }
        if !end.may_be_bound {
            assert!(stopped.is_empty(), "{stopped:?}");
            told.free += u32::from(budget(seed).is_some());
        }
        for said in &stopped {
            let why = said.reason.as_deref().unwrap();
            assert!(why.contains("the budget of the run is used up"), "{why}");
        }
        told.stopped += stopped.len() as u32;
        for ((tool, number), keys) in &*play.outside.done.lock().unwrap() {
            let what = format!("{tool} {number} was done under {keys:?}");
            let different: BTreeSet<&String> = keys.iter().collect();
            assert_eq!(different.len(), 1, "{what}");
            let once = matches!(tool.as_str(), "post" | "pay");
            assert!(!once || keys.len() == 1, "{what}");
        }
        told.deaths += play.deaths;
        told.doubts += play.doubts;
    }
    told
}

/// Names the seed when anything in its play fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

/// What one agent says, wherever the gate has put that.
fn envelope(item: &Value) -> Envelope {
    let envelope = item.get("output").unwrap_or(item);
    serde_json::from_value(envelope.clone()).unwrap_or_else(|fault| panic!("{fault}: {item}"))
}

#[test]
fn no_effect_happens_twice_and_no_cap_is_passed_wherever_a_crew_dies() {
    // A life mostly waits, for its provider and for its own end.
    let threads: Vec<_> = (0..20)
        .map(|part| std::thread::spawn(move || play(part * 50..(part + 1) * 50)))
        .collect();
    let mut told = Told::default();
    for thread in threads {
        let part = thread.join().unwrap();
        told.deaths += part.deaths;
        told.doubts += part.doubts;
        told.free += part.free;
        told.stopped += part.stopped;
    }
    // A play in which nobody dies, or no cap is in anybody's way, or all are, would prove nothing.
    let Told {
        deaths,
        doubts,
        free,
        stopped,
    } = told;
    assert!(deaths > 1_000 && doubts > 100, "{told:?}");
    assert!(free > 100 && stopped > 100, "{told:?}");
}
