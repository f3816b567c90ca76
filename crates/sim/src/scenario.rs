//! What happens in a world: who works, and what callers want, when. A scenario's outcome does not
//! depend on the weather, so that a world with a crash can be compared with one without.

use crate::fault::Chance;
use domain::blackboard::NewEntry;
use domain::command::{Command, RunStart};
use domain::id::MessageId;
use domain::message::{NewMessage, To};
use domain::name::Name;
use domain::pool::{Member, Pool, Strategy};
use domain::retry::RetryPolicy;
use domain::run::Crew;
use domain::task::{Address, Priority, SlotUse, TaskSpec};
use domain::time::Time;
use domain::worker::{Home, WorkerSpec};
use serde_json::{Value, json};

/// When every world begins.
pub const BEGIN: Time = Time(1_700_000_000_000);

/// Something a caller wants.
#[derive(Debug, Clone)]
pub struct Act {
    /// Not before so many milliseconds.
    pub at_ms: u64,
    /// Not before all of this is so.
    pub after: Vec<Until>,
    /// What.
    pub what: What,
}

/// Something that an act waits for.
#[derive(Debug, Clone)]
pub enum Until {
    /// A task has ended.
    TaskEnded(String),
    /// A worker holds a task, or has.
    TaskHeld(String),
    /// A run has ended.
    RunEnded(String),
    /// Another act was answered.
    Done(usize),
}

/// What a caller wants.
#[derive(Debug, Clone)]
pub enum What {
    /// A task done, under a label; by an idempotency key, or by an id of the caller's choice.
    Submit {
        /// How the scenario calls it.
        label: String,
        /// The task.
        spec: TaskSpec,
        /// The tasks it depends on.
        after: Vec<String>,
        /// By key.
        key: bool,
    },
    /// A run.
    Start(Box<RunStart>),
    /// A task not done.
    TaskCancel(String),
    /// A dead letter tried again.
    TaskRedrive(String),
    /// Another worker for a task.
    TaskReassign(String, Address),
    /// A run stopped.
    RunCancel(String),
    /// A run to go on.
    RunRetry(String),
    /// Something on a blackboard.
    Write {
        /// How the scenario calls it.
        label: String,
        /// The run whose board it is.
        goal: Option<String>,
        /// The entry.
        entry: NewEntry,
    },
    /// An entry for oneself.
    Claim {
        /// Which.
        label: String,
        /// Who.
        by: Name,
    },
    /// An entry given back.
    GiveBack {
        /// Which.
        label: String,
        /// By whom.
        by: Name,
    },
    /// A message sent.
    Send(NewMessage),
    /// Anything else.
    Ask(Command),
}

/// A scenario.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Who works.
    pub workers: Vec<WorkerSpec>,
    /// What callers want.
    pub acts: Vec<Act>,
    /// Who receives messages: name, types, and from which millisecond on it reads them.
    pub listeners: Vec<(Name, Vec<Name>, u64)>,
}

/// Fills a scenario, of a size.
pub type Fill = fn(&mut Scenario, u64);

/// All scenarios, by name.
pub const ALL: &[(&str, Fill)] = &[
    ("fan_out", fan_out),
    ("pipeline", pipeline),
    ("gates", gates),
    ("retries", retries),
    ("chains", chains),
    ("slots", slots),
    ("priorities", priorities),
    ("timeouts", timeouts),
    ("cancels", cancels),
    ("board", board),
    ("messages", messages),
    ("pools", pools),
    ("pauses", pauses),
    ("addresses", addresses),
];

/// A scenario by its place in [`ALL`], of a size between 1 and 8.
pub fn make(n: usize, size: u64) -> Scenario {
    let (name, fill) = ALL[n % ALL.len()];
    let mut scenario = Scenario {
        name,
        ..Scenario::default()
    };
    fill(&mut scenario, size);
    scenario
}

/// The scenario of a seed, and its size.
pub fn of(seed: u64) -> Scenario {
    let size = Chance::new(seed ^ 0x51_2e).between(1, 8);
    make((seed % ALL.len() as u64) as usize, size)
}

fn name(text: impl Into<String>) -> Name {
    match Name::new(text.into()) {
        Ok(name) => name,
        Err(error) => panic!("a name of a scenario: {error}"),
    }
}

/// A worker; those with an odd number live in the engine's process.
fn worker(n: u64, capacity: u32) -> WorkerSpec {
    WorkerSpec {
        capacity,
        lease_ms: 1_500,
        session: 1,
        home: if n % 2 == 1 {
            Home::InProcess
        } else {
            Home::Remote
        },
        ..WorkerSpec::new(name(format!("worker_{n}")))
    }
}

const RETRY: RetryPolicy = RetryPolicy {
    attempts: 4,
    backoff_ms: 200,
    factor_percent: 200,
    backoff_max_ms: 1_000,
};

fn spec(label: &str, does: &str, ms: u64) -> TaskSpec {
    let input = json!({"label": label, "does": does, "ms": ms});
    TaskSpec {
        timeout_ms: 6_000,
        retry: RETRY,
        ..TaskSpec::new(name("work"), input.into())
    }
}

/// An `each` over items of which every one says what it does.
fn each(id: &str, items: &[Value], more: &Value) -> Value {
    let mut step = json!({"id": id, "each": {"items": items, "task": {
        "kind": "work", "timeout_ms": 6_000, "retry": RETRY}}});
    if let (Some(step), Some(more)) = (step["each"].as_object_mut(), more.as_object()) {
        step.extend(more.clone());
    }
    step
}

fn item(says: impl Into<Value>, does: &str, ms: u64) -> Value {
    json!({"says": says.into(), "does": does, "ms": ms})
}

fn items(count: u64, ms: u64) -> Vec<Value> {
    (0..count)
        .map(|n| item(n, "ok", 20 + ms * (n % 4)))
        .collect()
}

impl Scenario {
    fn act(&mut self, at_ms: u64, after: Vec<Until>, what: What) -> usize {
        self.acts.push(Act { at_ms, after, what });
        self.acts.len() - 1
    }

    fn crew(&mut self, workers: u64, capacity: u32) {
        self.workers = (1..=workers).map(|n| worker(n, capacity)).collect();
    }

    fn task(&mut self, at_ms: u64, label: &str, spec: TaskSpec) -> usize {
        let (label, key) = (label.to_owned(), at_ms.is_multiple_of(2));
        let what = What::Submit {
            label,
            spec,
            after: Vec::new(),
            key,
        };
        self.act(at_ms, Vec::new(), what)
    }

    fn chain(&mut self, at_ms: u64, label: &str, spec: TaskSpec, after: &[&str]) {
        let what = What::Submit {
            label: label.to_owned(),
            spec,
            after: after.iter().map(|label| (*label).to_owned()).collect(),
            key: false,
        };
        self.act(at_ms, Vec::new(), what);
    }

    fn run(&mut self, at_ms: u64, goal: &str, steps: &Value, crew: Crew) {
        let graph = match serde_json::from_value(json!({"steps": steps})) {
            Ok(graph) => graph,
            Err(error) => panic!("the graph of {goal}: {error}"),
        };
        let new = RunStart {
            goal: goal.to_owned(),
            supervisor: name("supervisor_1"),
            graph,
            crew,
            metadata: Default::default(),
            key: Some(name(format!("key of {goal}"))),
            trace: None,
            budget: None,
        };
        self.act(at_ms, Vec::new(), What::Start(Box::new(new)));
    }
}

fn fan_out(s: &mut Scenario, size: u64) {
    s.crew(1 + size.min(4), 1);
    let mut work = items(2 + 2 * size, 40);
    work.push(item("mended", "flaky", 30));
    let steps = json!([
        each("work", &work, &json!({})),
        {"id": "all", "needs": ["work"], "gate": {"join": "all", "reduce": "supervisor"}},
    ]);
    let members = s
        .workers
        .iter()
        .map(|worker| Member::new(worker.id.clone()))
        .collect();
    let strategy = Strategy::RoundRobin;
    s.run(0, "fan out", &steps, Crew { strategy, members });
}

fn pipeline(s: &mut Scenario, size: u64) {
    s.crew(2, 2);
    let list: Vec<Value> = (0..2 + size).map(|n| item(n, "ok", 30)).collect();
    let over = json!({"over": "split", "items": []});
    let mut second = each("work", &[], &over);
    second["needs"] = json!(["split"]);
    let template =
        |input: Value| json!({"kind": "work", "timeout_ms": 6_000, "retry": RETRY, "input": input});
    let steps = json!([
        {"id": "split", "task": template(item(list, "ok", 50))},
        second,
        {"id": "joined", "needs": ["work"], "gate": {"join": "all", "reduce": "collect"}},
        {"id": "report", "needs": ["joined"], "task": template(item("done", "flaky", 20))},
    ]);
    s.run(0, "pipeline", &steps, Crew::default());
}

fn gates(s: &mut Scenario, size: u64) {
    s.crew(2 + size % 2, 2);
    let uniform = |count: u64, does: &str, ms: u64| -> Vec<Value> {
        (0..count)
            .map(|n| item("same", does, ms + 15 * n))
            .collect()
    };
    for (goal, join, mut work) in [
        ("any", json!("any"), uniform(3, "ok", 60)),
        ("quorum", json!({"quorum": 2}), uniform(4, "ok", 40)),
        ("first_k", json!({"first_k": 2}), uniform(3, "ok", 50)),
        ("deadline", json!({"deadline": 3_000}), uniform(2, "ok", 30)),
        ("too_few", json!("all"), uniform(1, "ok", 30)),
    ] {
        match goal {
            "deadline" => work.push(item("late", "hang", 0)),
            "too_few" => work.push(item("never", "broken", 20)),
            _ => {}
        }
        let more = json!({"concurrency": 3});
        let steps = json!([
            each("work", &work, &more),
            {"id": "gate", "needs": ["work"], "gate": {"join": join, "reduce": "collect"}},
        ]);
        s.run(7 * size, goal, &steps, Crew::default());
    }
}

fn retries(s: &mut Scenario, size: u64) {
    s.crew(2, 1);
    for n in 0..size.min(4) {
        let mut flaky = spec(&format!("flaky {n}"), "flaky", 30);
        flaky.input =
            json!({"label": format!("flaky {n}"), "does": "flaky", "times": n, "ms": 20}).into();
        s.task(n, &format!("flaky {n}"), in_steps(flaky));
    }
    s.task(10, "doomed", spec("doomed", "doomed", 20));
    s.task(11, "broken", spec("broken", "broken", 20));
    s.task(12, "faulty", spec("faulty", "faulty", 20));
    s.task(13, "stubborn", in_steps(spec("stubborn", "stubborn", 20)));
    for label in ["doomed", "stubborn"] {
        let ended = vec![Until::TaskEnded(label.into())];
        s.act(0, ended, What::TaskRedrive(label.into()));
    }
    let work = [item(1, "ok", 30), item(2, "stubborn", 20)];
    let steps = json!([
        each("work", &work, &json!({})),
        {"id": "all", "needs": ["work"], "gate": {"join": "all", "reduce": "collect"}},
    ]);
    s.run(20, "retried", &steps, Crew::default());
    s.act(
        0,
        vec![Until::RunEnded("retried".into())],
        What::RunRetry("retried".into()),
    );
}

fn chains(s: &mut Scenario, size: u64) {
    s.crew(2, 2);
    s.task(0, "a", in_steps(spec("a", "ok", 60)));
    s.chain(0, "b", spec("b", "flaky", 20), &["a"]);
    s.chain(0, "c", spec("c", "ok", 20), &["a", "b"]);
    let mut last = "c".to_owned();
    for n in 0..size {
        let label = format!("link {n}");
        s.chain(5, &label, spec(&label, "ok", 15), &[&last, "a"]);
        last = label;
    }
    s.task(1, "x", spec("x", "stubborn", 20));
    s.chain(0, "y", spec("y", "ok", 20), &["x", "a"]);
    s.act(
        0,
        vec![Until::TaskEnded("x".into())],
        What::TaskRedrive("x".into()),
    );
    if size == 5 {
        s.task(3, "never", spec("never", "broken", 20));
        s.chain(
            0,
            "waits for ever",
            spec("waits for ever", "ok", 20),
            &["never"],
        );
    }
}

fn slots(s: &mut Scenario, size: u64) {
    s.crew(3, 3);
    for n in 0..4 + size {
        let label = format!("task {n}");
        let mut spec = spec(
            &label,
            if n == 2 { "hang" } else { "ok" },
            40 + 10 * (n % 3),
        );
        spec.timeout_ms = 1_500;
        let key = name(if n % 3 == 0 { "narrow" } else { "wide" });
        let max = if n % 3 == 0 { 1 } else { 2 };
        spec.slot = Some(SlotUse { key, max });
        s.task(n % 5, &label, spec);
    }
    let steps = json!([each("work", &items(4, 30), &json!({"concurrency": 2}))]);
    s.run(10, "narrow run", &steps, Crew::default());
}

fn priorities(s: &mut Scenario, size: u64) {
    s.crew(2, 1);
    for n in 0..3 {
        let label = format!("batch {n}");
        let mut spec = spec(&label, "ok", 2_500);
        spec.priority = Priority::BATCH;
        s.task(n, &label, spec);
    }
    for n in 0..1 + size.min(5) {
        let label = format!("urgent {n}");
        let mut spec = spec(&label, "ok", 60);
        spec.priority = if n % 2 == 0 {
            Priority::CRITICAL
        } else {
            Priority::HIGH
        };
        s.task(400 + 150 * n, &label, spec);
    }
}

/// The same, in steps of which each has a record.
fn in_steps(mut spec: TaskSpec) -> TaskSpec {
    let mut input = spec.input.value();
    input["steps"] = json!(true);
    spec.input = input.into();
    spec
}

fn timeouts(s: &mut Scenario, size: u64) {
    s.crew(2, 2);
    for n in 0..2 + size.min(4) {
        let label = format!("task {n}");
        let does = ["hang", "ok", "flaky"][(n % 3) as usize];
        let mut spec = spec(&label, does, 100 * n);
        spec.timeout_ms = 900 + 100 * n;
        s.task(n, &label, in_steps(spec));
    }
    let mut once = spec("once", "hang", 0);
    (once.timeout_ms, once.retry) = (1_000, RetryPolicy::NEVER);
    s.task(3, "once", once);
}

fn cancels(s: &mut Scenario, size: u64) {
    s.crew(2, 1);
    s.task(0, "held", spec("held", "ok", 5_000));
    s.act(
        0,
        vec![Until::TaskHeld("held".into())],
        What::TaskCancel("held".into()),
    );
    let mut later = spec("later", "ok", 20);
    later.not_before = Some(BEGIN.plus_ms(7_200_000 + 3_600_000 * 5));
    s.task(1, "later", later);
    s.act(100, Vec::new(), What::TaskCancel("later".into()));
    for n in 0..size.min(3) {
        s.task(
            n,
            &format!("kept {n}"),
            spec(&format!("kept {n}"), "ok", 50),
        );
    }
    let work: Vec<Value> = (0..3).map(|n| item(n, "ok", 1_500)).collect();
    let steps = json!([
        each("work", &work, &json!({})),
        {"id": "all", "needs": ["work"], "gate": {"join": "all", "reduce": "collect"}},
    ]);
    s.run(0, "stopped", &steps, Crew::default());
    let stopped = s.act(700, Vec::new(), What::RunCancel("stopped".into()));
    // Whoever asks for both asks for one after the other.
    let both = vec![Until::Done(stopped), Until::RunEnded("stopped".into())];
    s.act(0, both, What::RunRetry("stopped".into()));
    s.run(5, "dropped", &steps, Crew::default());
    s.act(650, Vec::new(), What::RunCancel("dropped".into()));
}

fn board(s: &mut Scenario, size: u64) {
    s.crew(1, 2);
    let steps = json!([each("work", &items(1 + size, 20), &json!({}))]);
    s.run(0, "board", &steps, Crew::default());
    for n in 0..2 + size {
        let label = format!("entry {n}");
        let mut entry = NewEntry::new(name(format!("agent_{}", n % 3)), json!({"n": n}).into());
        entry.tags = vec![name("note")];
        entry.ttl_ms = (n % 3 == 1).then_some(600);
        let goal = (n % 2 == 0).then(|| "board".to_owned());
        s.act(
            20 * n,
            Vec::new(),
            What::Write {
                label: label.clone(),
                goal,
                entry,
            },
        );
        for agent in 0..3 {
            let by = name(format!("agent_{agent}"));
            let claim = What::Claim {
                label: label.clone(),
                by: by.clone(),
            };
            let claimed = s.act(60 + 25 * n, Vec::new(), claim);
            if n % 2 == 1 {
                let label = label.clone();
                s.act(0, vec![Until::Done(claimed)], What::GiveBack { label, by });
            }
        }
    }
    // Nobody waits for an entry that was forgotten: these acts are answered by then.
    s.acts.retain(|act| {
        !matches!(&act.what, What::Claim { label, .. } | What::GiveBack { label, .. }
        if label == "entry 4" && size < 3)
    });
}

fn messages(s: &mut Scenario, size: u64) {
    s.crew(1, 1);
    s.task(0, "work", spec("work", "ok", 50));
    for (agent, from_ms) in [("planner", 0), ("writer_1", 200), ("writer_2", 1_500)] {
        let kinds = if agent == "planner" {
            vec![]
        } else {
            vec![name("draft")]
        };
        s.listeners.push((name(agent), kinds, from_ms));
    }
    let to = [
        To::Agent(name("planner")),
        To::Type,
        To::Everybody,
        To::Prefix("writer".into()),
        To::Agent(name("nobody")),
    ];
    for n in 0..3 + size {
        let to = to[(n % 5) as usize].clone();
        let payload = json!({"n": n, "fails": n == 6});
        let mut message = NewMessage::new(name("supervisor_1"), to, name("draft"), payload.into());
        message.id = Some(MessageId::new(u128::from(n) + (1 << 90)));
        message.ttl_ms = (n % 3 == 1).then_some(700);
        s.act(50 + 40 * n, Vec::new(), What::Send(message));
    }
}

fn pools(s: &mut Scenario, size: u64) {
    s.crew(3, 2);
    s.workers[1].capabilities = vec![name("Vision")];
    let pool = name("crew");
    let members = s
        .workers
        .iter()
        .map(|worker| worker.id.clone())
        .collect::<Vec<_>>();
    let define = Command::PoolDefine {
        pool: Pool {
            id: pool.clone(),
            strategy: Strategy::LeastLoaded,
            members: members[..2].to_vec(),
            version: 0,
        },
        expected: None,
    };
    s.act(300, Vec::new(), What::Ask(define));
    let (of, worker) = (pool.clone(), members[2].clone());
    s.act(
        400,
        Vec::new(),
        What::Ask(Command::PoolJoin { pool: of, worker }),
    );
    for n in 0..3 {
        let reserve = Command::PoolReserve {
            pool: pool.clone(),
            capability: (n == 1).then(|| name("vision")),
            holder: name(format!("holder_{n}")),
            until: BEGIN.plus_ms(1_500 + 300 * n),
        };
        s.act(450 + 20 * n, Vec::new(), What::Ask(reserve));
    }
    for worker in &members {
        let (worker, holder) = (worker.clone(), name("holder_0"));
        let give_back = Command::PoolUnreserve { worker, holder };
        s.act(900, Vec::new(), What::Ask(give_back));
    }
    let (of, worker) = (pool, members[0].clone());
    s.act(
        1_000,
        Vec::new(),
        What::Ask(Command::PoolLeave { pool: of, worker }),
    );
    s.act(
        1_300,
        Vec::new(),
        What::Ask(Command::WorkerDrain(members[2].clone())),
    );
    for n in 0..4 + size {
        let label = format!("task {n}");
        let mut spec = spec(&label, "ok", 120);
        spec.capability = (n % 4 == 0).then(|| name("vision"));
        s.task(100 * n, &label, spec);
    }
}

fn pauses(s: &mut Scenario, size: u64) {
    s.crew(2, 2);
    for worker in &mut s.workers {
        worker.queues.push(name("slow"));
    }
    let pause = |paused| Command::QueuePause {
        queue: name("slow"),
        paused,
    };
    let first = s.act(0, Vec::new(), What::Ask(pause(true)));
    s.act(1_500, vec![Until::Done(first)], What::Ask(pause(false)));
    for n in 0..3 + size {
        let label = format!("task {n}");
        let mut spec = spec(&label, "ok", 30);
        if n % 2 == 0 {
            spec.queue = name("slow");
        }
        spec.not_before = (n % 3 == 1).then(|| BEGIN.plus_ms(800));
        s.task(n, &label, spec);
    }
}

fn addresses(s: &mut Scenario, size: u64) {
    s.crew(3, 1);
    s.workers[0].capabilities = vec![name("sql")];
    s.workers[2].kinds = vec![name("work")];
    for n in 0..3 + size {
        let label = format!("task {n}");
        let mut spec = spec(&label, "ok", 60);
        let who = name(format!("worker_{}", 1 + n % 3));
        spec.address = match n % 4 {
            0 => Address::Any,
            1 => Address::Prefer(who),
            _ => Address::Only(who),
        };
        spec.capability = (n % 4 == 0).then(|| name("SQL"));
        if n == 1 {
            spec.kind = name("other");
        }
        s.task(n, &label, spec);
    }
    let to = Address::Only(name("worker_3"));
    s.act(150, Vec::new(), What::TaskReassign("task 2".into(), to));
    s.task(1, "moved", spec("moved", "ok", 900));
    let moved = vec![Until::TaskHeld("moved".into())];
    s.act(
        0,
        moved,
        What::TaskReassign("moved".into(), Address::Prefer(name("worker_2"))),
    );
}
