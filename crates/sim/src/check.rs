//! The judge. It reads what a run of the world left behind (the stored log, the list of effects,
//! what callers were told) and knows the rules in its own words: it shares no fold, no type and no
//! hash function call with the code it judges. An event is a [`Value`] here.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds, as the log tells them.
type Ms = u64;

/// What an attempt did outside the store, like a line appended to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The task.
    pub task: String,
    /// The fencing token it was done under.
    pub attempt: u64,
    /// By whom.
    pub worker: String,
    /// When.
    pub at: Ms,
}

/// What a caller was told and must find again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// "Your task is accepted": the label in its input, and its id.
    Task(String, String),
    /// "Your run is accepted": its goal, and its id.
    Run(String, String),
    /// "Your entry is written."
    Entry(String),
    /// "Your message is sent."
    Message(String),
    /// "Your result is accepted": task, attempt, worker.
    Result(String, u64, String),
    /// "This task is yours": task, attempt, worker.
    Lease(String, u64, String),
    /// "These steps are done": task, attempt, their outputs, told with the lease.
    Steps(String, u64, BTreeMap<String, Value>),
}

/// A stored frame: the position of its first event, the chain's value after it, its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The position of the first event.
    pub first: u64,
    /// The chain's value after the last.
    pub hash: [u8; 32],
    /// One JSON document a line.
    pub body: Vec<u8>,
}

/// Everything that is judged.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The log as it is stored.
    pub pages: Vec<Page>,
    /// What attempts did.
    pub effects: Vec<Effect>,
    /// What callers were told.
    pub told: Vec<Told>,
    /// The statistics row.
    pub tally: Value,
    /// What time it is.
    pub now: Ms,
    /// Whether the world was given the time to come to rest.
    pub at_rest: bool,
}

/// The rules, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Positions are 1, 2, 3, … and the chain holds.
    Chain,
    /// What was acknowledged is there, exactly once.
    Acknowledged,
    /// An event happens to a task only in a state that knows it.
    Transition,
    /// A result or an end is the newest lease's, and its holder's.
    Fencing,
    /// A task has one lease at a time, and tokens count up.
    OneLease,
    /// An effect belongs to a lease, once, and a second one to a second lease.
    Effects,
    /// No more tasks of a concurrency key run than its claims allow.
    Slot,
    /// A worker holds no more than it can, and only what it may.
    Worker,
    /// A gate opens when its condition holds, a run ends when its steps have.
    Gate,
    /// A task starts after what it depends on has completed.
    Dependency,
    /// A task is not tried before its time, nor more often than allowed.
    Retry,
    /// An attempt times out at its deadline.
    Timeout,
    /// Running work yields to work that is much more urgent only.
    Preemption,
    /// A paused queue gives nothing out.
    Pause,
    /// An entry has one holder.
    Entry,
    /// A step that is done stays so, for every later attempt; one in doubt is not done again.
    Record,
    /// A recipient's part of a message ends once.
    Message,
    /// Submitted is the sum of the states.
    Sum,
    /// At rest, every task has ended or says why it waits.
    Rest,
    /// The stored rows are what a replay rebuilds. (Not judged here: the store compares them.)
    Replay,
    /// What only a live look shows: followers miss nothing, statistics agree with the log at every
    /// step, nothing breaks, everybody is answered. (Not judged here: the world looks.)
    Live,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By which event; 0 for the whole.
    pub position: u64,
    /// How.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} at event {}: {}",
            self.rule, self.position, self.text
        )
    }
}

/// Judges. Nothing in the answer means that every rule was kept.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut judge = Judge::default();
    let mut lines = judge.chain(&evidence.pages);
    for line in &mut lines {
        judge.event(line.take());
    }
    judge.effects(&evidence.effects);
    judge.told(&evidence.told);
    judge.sum(&evidence.tally);
    if evidence.at_rest {
        judge.rest(evidence.now);
    }
    judge.violations
}

/// The events of a log, decoded.
pub fn events(pages: &[Page]) -> Vec<Value> {
    let bodies = pages
        .iter()
        .flat_map(|page| page.body.split(|b| *b == b'\n'));
    bodies
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap_or_default())
        .collect()
}

/// A log of these events, as it would be stored: for whoever wants to doctor one.
pub fn pages(events: &[Value]) -> Vec<Page> {
    let mut hash = [0; 32];
    let page = |event: &Value| {
        let body = event.to_string().into_bytes();
        hash = link(hash, &body);
        Page {
            first: event["position"].as_u64().unwrap_or(0),
            hash,
            body,
        }
    };
    events.iter().map(page).collect()
}

fn link(before: [u8; 32], line: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(before)
        .chain_update(line)
        .finalize()
        .into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Pending,
    Leased,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Debug)]
struct Lease {
    attempt: u64,
    worker: String,
    deadline: Ms,
    started: bool,
}

#[derive(Debug)]
struct Task {
    spec: Value,
    stands: Stands,
    lease: Option<Lease>,
    attempts: u64,
    failures: u64,
    losses: u64,
    not_before: Ms,
    /// Set by the end of the last attempt: it was the last one.
    over: bool,
    /// A gate had no use for it.
    cut: bool,
    address: Value,
    blocked_by: BTreeSet<String>,
    /// For each step its effect class and where it stands.
    steps: BTreeMap<String, (String, Value)>,
}

#[derive(Debug)]
struct Worker {
    spec: Value,
    takes: bool,
    until: Ms,
    holds: BTreeSet<String>,
    reserved: BTreeMap<String, Ms>,
}

#[derive(Debug, Default)]
struct Step {
    kind: Value,
    needs: Vec<String>,
    started: bool,
    end: Option<String>,
    due: Option<Ms>,
    total: u64,
    tasks: Vec<String>,
    awaits: Option<bool>,
    output: Value,
}

#[derive(Debug, Default)]
struct Run {
    goal: String,
    steps: BTreeMap<String, Step>,
    order: Vec<String>,
    over: bool,
}

#[derive(Debug, Default)]
struct Judge {
    violations: Vec<Violation>,
    position: u64,
    at: Ms,
    tasks: BTreeMap<String, Task>,
    workers: BTreeMap<String, Worker>,
    runs: BTreeMap<String, Run>,
    slots: BTreeMap<String, u64>,
    paused: BTreeSet<String>,
    entries: BTreeMap<String, Option<String>>,
    /// Every entry ever written, every message ever sent.
    written: BTreeMap<String, u32>,
    /// For each message the recipients whose part is open.
    messages: BTreeMap<String, BTreeSet<String>>,
    /// Every lease ever given: who had it, and how it ended.
    leases: BTreeMap<(String, u64), (String, Option<&'static str>)>,
    /// For each lease the steps that were done before it, with their outputs.
    done: BTreeMap<(String, u64), BTreeMap<String, Value>>,
    refused: u64,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, default: u64) -> u64 {
    value.as_u64().unwrap_or(default)
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map_or_else(Vec::new, |all| all.iter().map(text).collect())
}

impl Judge {
    fn say(&mut self, rule: Rule, text: impl Into<String>) {
        let (position, text) = (self.position, text.into());
        self.violations.push(Violation {
            rule,
            position,
            text,
        });
    }

    fn expect(&mut self, rule: Rule, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.say(rule, text());
        }
    }

    fn chain(&mut self, pages: &[Page]) -> Vec<Value> {
        let (mut hash, mut next, mut events) = ([0; 32], 1, Vec::new());
        for page in pages {
            self.position = next;
            self.expect(Rule::Chain, page.first == next, || {
                format!("a frame begins with event {}", page.first)
            });
            for line in page.body.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                hash = link(hash, line);
                let event: Value = serde_json::from_slice(line).unwrap_or_default();
                let told = number(&event["position"], 0);
                self.position = next;
                self.expect(Rule::Chain, told == next, || {
                    format!("it says it is event {told}")
                });
                events.push(event);
                next += 1;
            }
            self.expect(Rule::Chain, hash == page.hash, || "the hash differs".into());
        }
        events
    }

    fn event(&mut self, mut recorded: Value) {
        self.position = number(&recorded["position"], 0);
        self.at = number(&recorded["at"], 0);
        let Some((name, body)) = recorded["event"]
            .as_object_mut()
            .and_then(|event| event.iter_mut().next())
            .map(|(name, body)| (name.clone(), body.take()))
        else {
            return self.say(Rule::Transition, "an event without a name");
        };
        match name.as_str() {
            "task.submitted" => self.submitted(&body),
            "task.assigned" => self.assigned(&body),
            "task.started" | "task.progressed" => {
                if self.current(&body["lease"], &name)
                    && name == "task.started"
                    && let Some(task) = self.tasks.get_mut(&text(&body["lease"]["task"]))
                    && let Some(lease) = &mut task.lease
                {
                    lease.started = true;
                }
            }
            "record.noted" => self.noted(&body),
            "record.resolved" => self.resolved(&body),
            "task.yield_asked" => self.yield_asked(&body),
            "task.completed" => self.completed(&body),
            "attempt.ended" => self.ended(&body),
            "task.failed" => self.failed(&body),
            "task.cancelled" => self.cancelled(&body),
            "task.unblocked" => self.unblocked(&body),
            "task.reassigned" => {
                let address = body["to"].clone();
                self.on(&body["task"], &name, &[Stands::Pending], |task| {
                    task.address = address
                });
            }
            "task.redriven" => self.redriven(&body),
            "result.refused" => self.result_refused(&body),
            "worker.registered" => self.registered(&body["spec"]),
            "worker.lost" | "worker.draining" => self.worker_off(&body, &name),
            "worker.faulted" => {
                let until = number(&body["until"], 0);
                if let Some(worker) = self.workers.get_mut(&text(&body["worker"])) {
                    worker.until = until;
                }
            }
            "worker.reserved" => self.reserved(&body),
            "worker.reservation_ended" => {
                if let Some(worker) = self.workers.get_mut(&text(&body["worker"])) {
                    worker.reserved.remove(&text(&body["holder"]));
                }
            }
            "queue.paused" => drop(self.paused.insert(text(&body["queue"]))),
            "queue.resumed" => drop(self.paused.remove(&text(&body["queue"]))),
            "run.started" => self.run_started(&body),
            "step.started" => self.step_started(&body),
            "gate.awaits_supervisor" => self.awaits(&body),
            "step.ended" => self.step_ended(&body),
            "run.completed" | "run.failed" | "run.cancelled" => self.run_over(&body, &name),
            "run.reopened" => self.reopened(&body),
            "entry.written" => {
                let id = text(&body["entry"]["id"]);
                *self.written.entry(id.clone()).or_default() += 1;
                self.entries.insert(id, None);
            }
            "entry.claimed" => self.entry_claimed(&body),
            "entry.forgotten" => {
                let gone = self.entries.remove(&text(&body["entry"]));
                self.expect(Rule::Entry, gone.is_some(), || "forgotten twice".into());
            }
            "message.sent" => self.message_sent(&body["message"]),
            "message.delivered" | "message.dead_lettered" => {
                if body["recipient"].is_string() {
                    self.message_dealt(&body, &name);
                }
            }
            "message.expired" => {
                let open = self
                    .messages
                    .get_mut(&text(&body["message"]))
                    .map(std::mem::take);
                let some = open.is_some_and(|open| !open.is_empty());
                self.expect(Rule::Message, some, || "expired with no open part".into());
            }
            "pool.defined"
            | "pool.joined"
            | "pool.left"
            | "message.offered_again"
            | "message.forgotten"
            | "receipt.forgotten" => {}
            other => self.say(Rule::Transition, format!("an unknown event “{other}”")),
        }
    }

    /// Changes a task that must exist and stand in one of these states.
    fn on(&mut self, id: &Value, what: &str, states: &[Stands], change: impl FnOnce(&mut Task)) {
        let id = text(id);
        match self.tasks.get_mut(&id) {
            None => self.say(
                Rule::Transition,
                format!("{what} of {id}, which does not exist"),
            ),
            Some(task) if !states.contains(&task.stands) => {
                let stands = task.stands;
                self.say(
                    Rule::Transition,
                    format!("{what} of {id}, which is {stands:?}"),
                );
            }
            Some(task) => change(task),
        }
    }

    fn submitted(&mut self, body: &Value) {
        let (id, spec) = (text(&body["task"]), body["spec"].clone());
        if let Some(run) = self.runs.get_mut(&text(&spec["of"]["run"]))
            && let Some(step) = run.steps.get_mut(&text(&spec["of"]["step"]))
        {
            step.tasks.push(id.clone());
        }
        let blocked_by: BTreeSet<String> = texts(&body["blocked_by"]).into_iter().collect();
        for after in texts(&spec["after"]) {
            let done = self
                .tasks
                .get(&after)
                .is_some_and(|t| t.stands == Stands::Completed);
            self.expect(
                Rule::Dependency,
                done != blocked_by.contains(&after),
                || format!("{id} is blocked by {after}: {}", !done),
            );
        }
        let task = Task {
            stands: Stands::Pending,
            lease: None,
            attempts: 0,
            failures: 0,
            losses: 0,
            not_before: number(&spec["not_before"], 0),
            over: false,
            cut: false,
            address: spec["address"].clone(),
            blocked_by,
            steps: BTreeMap::new(),
            spec,
        };
        if self.tasks.insert(id.clone(), task).is_some() {
            self.say(Rule::Acknowledged, format!("{id} is submitted twice"));
        }
    }

    fn assigned(&mut self, body: &Value) {
        let lease = &body["lease"];
        let (id, attempt) = (text(&lease["task"]), number(&lease["attempt"], 0));
        let (worker, at) = (text(&lease["worker"]), self.at);
        let Some(task) = self.tasks.get_mut(&id) else {
            return self.say(Rule::Transition, format!("{id} does not exist"));
        };
        let mut broken: Vec<(Rule, String)> = Vec::new();
        if task.lease.is_some() {
            broken.push((Rule::OneLease, format!("{id} is leased already")));
        } else if task.stands != Stands::Pending {
            broken.push((Rule::Transition, format!("{id} is {:?}", task.stands)));
        }
        if attempt != task.attempts + 1 {
            let text = format!("{id} has token {attempt} after {}", task.attempts);
            broken.push((Rule::OneLease, text));
        }
        if at < task.not_before {
            broken.push((Rule::Retry, format!("{id} waits until {}", task.not_before)));
        }
        if !task.blocked_by.is_empty() {
            broken.push((
                Rule::Dependency,
                format!("{id} waits for {:?}", task.blocked_by),
            ));
        }
        if let Some(only) = task.address["only"].as_str()
            && only != worker
        {
            broken.push((Rule::Worker, format!("{id} is for {only} alone")));
        }
        task.stands = Stands::Leased;
        task.attempts = attempt;
        let timeout = number(&task.spec["timeout_ms"], 600_000);
        let deadline = number(&body["deadline"], 0);
        if deadline != at + timeout {
            broken.push((
                Rule::Timeout,
                format!("{id} has {timeout} ms, until {deadline}"),
            ));
        }
        task.lease = Some(Lease {
            attempt,
            worker: worker.clone(),
            deadline,
            started: body["started"] == true,
        });
        let spec = task.spec.clone();
        let done = task.steps.iter().filter_map(|(key, (_, state))| {
            let output = state.get("done")?["output"].clone();
            Some((key.clone(), output))
        });
        self.done.insert((id.clone(), attempt), done.collect());
        self.leases
            .insert((id.clone(), attempt), (worker.clone(), None));
        for (rule, text) in broken {
            self.say(rule, text);
        }
        self.dependencies_done(&id, &spec);
        self.takes(&id, &spec, &worker);
        self.slot_taken(&spec);
    }

    fn dependencies_done(&mut self, id: &str, spec: &Value) {
        for after in texts(&spec["after"]) {
            let done = self
                .tasks
                .get(&after)
                .is_some_and(|t| t.stands == Stands::Completed);
            self.expect(Rule::Dependency, done, || {
                format!("{id} goes before {after}")
            });
        }
    }

    /// Whether this worker may have this task now.
    fn takes(&mut self, id: &str, spec: &Value, name: &str) {
        let at = self.at;
        let queue = spec["queue"].as_str().unwrap_or("default").to_owned();
        self.expect(Rule::Pause, !self.paused.contains(&queue), || {
            format!("{id} comes from {queue}, which is paused")
        });
        let Some(worker) = self.workers.get_mut(name) else {
            return self.say(Rule::Worker, format!("{name} does not exist"));
        };
        worker.holds.insert(id.to_owned());
        let mut broken = Vec::new();
        if !worker.takes || worker.until > at {
            broken.push(format!("{name} is gone, draining or in error"));
        }
        let kept = worker
            .reserved
            .values()
            .filter(|until| **until > at)
            .count() as u64;
        let (holds, capacity) = (
            worker.holds.len() as u64,
            number(&worker.spec["capacity"], 1),
        );
        if holds + kept > capacity {
            broken.push(format!(
                "{name} holds {holds} and keeps {kept} of {capacity}"
            ));
        }
        let own = |field: &str| texts(&worker.spec[field]);
        if !own("queues").contains(&queue) {
            broken.push(format!("{name} does not serve {queue}"));
        }
        let kind = text(&spec["kind"]);
        if !own("kinds").is_empty() && !own("kinds").contains(&kind) {
            broken.push(format!("{name} does not do {kind}"));
        }
        if let Some(needed) = spec["capability"].as_str()
            && !own("capabilities")
                .iter()
                .any(|can| can.eq_ignore_ascii_case(needed))
        {
            broken.push(format!("{name} cannot {needed}"));
        }
        for text in broken {
            self.say(Rule::Worker, text);
        }
    }

    fn slot_taken(&mut self, spec: &Value) {
        let Some(key) = spec["slot"]["key"].as_str() else {
            return;
        };
        let running = self.slots.entry(key.to_owned()).or_default();
        *running += 1;
        let (running, max) = (*running, number(&spec["slot"]["max"], 0));
        self.expect(Rule::Slot, running <= max, || {
            format!("{running} of {max} of {key} run")
        });
    }

    /// Whether a token is the newest, and its worker's.
    fn current(&mut self, lease: &Value, what: &str) -> bool {
        let (id, attempt) = (text(&lease["task"]), number(&lease["attempt"], 0));
        let worker = text(&lease["worker"]);
        let held = self.tasks.get(&id).and_then(|task| task.lease.as_ref());
        let holds = held.is_some_and(|held| held.attempt == attempt && held.worker == worker);
        self.expect(Rule::Fencing, holds, || {
            format!("{what} of {id} by {worker} with token {attempt}, which is not current")
        });
        holds
    }

    /// A lease ends.
    fn freed(&mut self, lease: &Value, how: &'static str) {
        let (id, attempt) = (text(&lease["task"]), number(&lease["attempt"], 0));
        if let Some((worker, end)) = self.leases.get_mut(&(id.clone(), attempt)) {
            *end = Some(how);
            if let Some(worker) = self.workers.get_mut(worker) {
                worker.holds.remove(&id);
            }
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            task.lease = None;
            for (effect, state) in task.steps.values_mut() {
                if state == "intended" && !matches!(effect.as_str(), "pure" | "keyed") {
                    *state = "in_doubt".into();
                }
            }
            if let Some(running) = task.spec["slot"]["key"]
                .as_str()
                .and_then(|k| self.slots.get_mut(k))
            {
                *running = running.saturating_sub(1);
            }
        }
    }

    fn noted(&mut self, body: &Value) {
        if !self.current(&body["lease"], "record.noted") {
            return;
        }
        let (id, said) = (text(&body["lease"]["task"]), &body["record"]);
        let (key, effect, state) = (text(&said["key"]), text(&said["effect"]), &said["state"]);
        let told = state.get("done").is_some() || state.get("failed").is_some();
        let steps = self.tasks.get(&id).map(|task| &task.steps);
        let wrong = match steps.and_then(|steps| steps.get(&key)) {
            Some((_, before)) if before.get("done").is_some() => Some("is done already"),
            Some((class, before)) if before == "in_doubt" => match class.as_str() {
                "pure" | "keyed" => None,
                "verify_first" if told => None,
                _ => Some("is in doubt"),
            },
            Some((_, before)) if before == "intended" => None,
            _ if state == "intended" || matches!(effect.as_str(), "pure" | "keyed") => None,
            _ => Some("was not intended"),
        };
        if let Some(wrong) = wrong {
            self.say(Rule::Record, format!("step {key} of {id} {wrong}: {state}"));
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            task.steps.insert(key, (effect, state.clone()));
        }
    }

    fn resolved(&mut self, body: &Value) {
        let (id, key) = (text(&body["task"]), text(&body["key"]));
        let step = self
            .tasks
            .get_mut(&id)
            .and_then(|task| task.steps.get_mut(&key));
        let before = step.map(|(_, state)| std::mem::replace(state, body["finding"].clone()));
        let doubted = before.is_some_and(|before| before == "in_doubt");
        self.expect(Rule::Record, doubted, || {
            format!("step {key} of {id} is resolved without a doubt")
        });
    }

    fn yield_asked(&mut self, body: &Value) {
        if !self.current(&body["lease"], "task.yield_asked") {
            return;
        }
        let points = |id: &Value| {
            let spec = self.tasks.get(&text(id)).map(|task| &task.spec["priority"]);
            spec.and_then(Value::as_i64).unwrap_or(0)
        };
        let (urgent, runs) = (points(&body["urgent"]), points(&body["lease"]["task"]));
        self.expect(Rule::Preemption, urgent >= runs + 20, || {
            format!("priority {runs} yields to {urgent}")
        });
    }

    fn completed(&mut self, body: &Value) {
        if !self.current(&body["lease"], "task.completed") {
            return;
        }
        self.freed(&body["lease"], "completed");
        self.on(
            &body["lease"]["task"],
            "task.completed",
            &[Stands::Leased],
            |task| {
                task.stands = Stands::Completed;
            },
        );
    }

    fn ended(&mut self, body: &Value) {
        if !self.current(&body["lease"], "attempt.ended") {
            return;
        }
        let (id, at) = (text(&body["lease"]["task"]), self.at);
        let end = match body["end"].as_str() {
            Some("failed") => "failed",
            Some("timed_out") => "timed_out",
            Some("lost") => "lost",
            Some("cancelled") => "cancelled",
            _ => return self.say(Rule::Transition, "an attempt ends in an unknown way"),
        };
        let deadline = self.tasks[&id]
            .lease
            .as_ref()
            .map_or(0, |lease| lease.deadline);
        self.freed(&body["lease"], end);
        self.expect(Rule::Timeout, end != "timed_out" || at >= deadline, || {
            format!("{id} had time until {deadline}")
        });
        let counted = body["counted"] == true;
        self.expect(
            Rule::Retry,
            counted == matches!(end, "failed" | "timed_out"),
            || format!("an attempt that {end} counts: {counted}"),
        );
        let retry_at = body["retry_at"].as_u64();
        let retryable = body["failure"]["retryable"] != false;
        let mut wrong = None;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stands = Stands::Pending;
            task.failures += u64::from(counted);
            task.losses = if end == "lost" { task.losses + 1 } else { 0 };
            task.not_before = retry_at.unwrap_or(0);
            let allowed = number(&task.spec["retry"]["attempts"], 3);
            let more = retryable && task.failures < allowed;
            task.over = (counted && !more) || task.losses >= 20;
            if counted && more != retry_at.is_some() {
                wrong = Some(format!("{id} failed {} of {allowed} times", task.failures));
            }
            if let Some(retry_at) = retry_at {
                let full = backoff(&task.spec["retry"], task.failures);
                let wait = retry_at.saturating_sub(at);
                if wait < full - full / 2 || wait > full {
                    wrong = Some(format!(
                        "{id} waits {wait} ms instead of {full}, less jitter"
                    ));
                }
            }
        }
        if let Some(text) = wrong {
            self.say(Rule::Retry, text);
        }
    }

    fn failed(&mut self, body: &Value) {
        let over = self
            .tasks
            .get(&text(&body["task"]))
            .is_some_and(|task| task.over);
        self.expect(Rule::Retry, over, || "it fails with attempts left".into());
        self.on(&body["task"], "task.failed", &[Stands::Pending], |task| {
            task.stands = Stands::Failed;
        });
    }

    fn cancelled(&mut self, body: &Value) {
        let id = text(&body["task"]);
        let held = self.tasks.get(&id).is_some_and(|task| task.lease.is_some());
        self.expect(Rule::Fencing, held == body["lease"].is_object(), || {
            format!("{id} is held: {held}, and the cancellation says otherwise")
        });
        if body["lease"].is_object() && self.current(&body["lease"], "task.cancelled") {
            self.freed(&body["lease"], "cancelled");
        }
        let open = [Stands::Pending, Stands::Leased];
        self.on(&body["task"], "task.cancelled", &open, |task| {
            task.stands = Stands::Cancelled;
            task.cut = text(&body["reason"]).starts_with("gate ");
        });
    }

    fn unblocked(&mut self, body: &Value) {
        let by = text(&body["by"]);
        let done = self
            .tasks
            .get(&by)
            .is_some_and(|task| task.stands == Stands::Completed);
        self.expect(Rule::Dependency, done, || format!("{by} has not completed"));
        if let Some(task) = self.tasks.get_mut(&text(&body["task"])) {
            task.blocked_by.remove(&by);
        }
    }

    fn redriven(&mut self, body: &Value) {
        let was = if body["was_cancelled"] == true {
            Stands::Cancelled
        } else {
            Stands::Failed
        };
        let blocked_by = texts(&body["blocked_by"]).into_iter().collect();
        self.on(&body["task"], "task.redriven", &[was], |task| {
            task.stands = Stands::Pending;
            (task.failures, task.losses, task.not_before) = (0, 0, 0);
            (task.over, task.cut) = (false, false);
            task.blocked_by = blocked_by;
        });
    }

    /// A refusal must have been deserved.
    fn result_refused(&mut self, body: &Value) {
        self.refused += 1;
        let lease = &body["lease"];
        let held = self
            .tasks
            .get(&text(&lease["task"]))
            .and_then(|task| task.lease.as_ref());
        let current = held.is_some_and(|held| {
            held.attempt == number(&lease["attempt"], 0) && held.worker == text(&lease["worker"])
        });
        self.expect(Rule::Fencing, !current, || {
            "the newest token is refused".into()
        });
    }

    fn registered(&mut self, spec: &Value) {
        let known = self.workers.remove(&text(&spec["id"]));
        let (holds, reserved) = known.map(|w| (w.holds, w.reserved)).unwrap_or_default();
        let worker = Worker {
            spec: spec.clone(),
            takes: true,
            until: 0,
            holds,
            reserved,
        };
        self.workers.insert(text(&spec["id"]), worker);
    }

    fn worker_off(&mut self, body: &Value, what: &str) {
        let name = text(&body["worker"]);
        let Some(worker) = self.workers.get_mut(&name) else {
            return self.say(Rule::Worker, format!("{name} does not exist"));
        };
        worker.takes = false;
        if what == "worker.lost" {
            worker.reserved.clear();
            let empty = worker.holds.is_empty();
            self.expect(Rule::Worker, empty, || {
                format!("{name} is lost and still holds tasks")
            });
        }
    }

    fn reserved(&mut self, body: &Value) {
        let at = self.at;
        let Some(worker) = self.workers.get_mut(&text(&body["worker"])) else {
            return;
        };
        worker
            .reserved
            .insert(text(&body["holder"]), number(&body["until"], 0));
        let kept = worker
            .reserved
            .values()
            .filter(|until| **until > at)
            .count();
        let used = (kept + worker.holds.len()) as u64;
        let fits = used <= number(&worker.spec["capacity"], 1);
        self.expect(Rule::Worker, fits, || {
            format!("{used} units are kept or held")
        });
    }

    fn run_started(&mut self, body: &Value) {
        let mut run = Run {
            goal: text(&body["goal"]),
            ..Run::default()
        };
        for step in body["graph"]["steps"].as_array().into_iter().flatten() {
            let id = text(&step["id"]);
            run.order.push(id.clone());
            let new = Step {
                kind: step.clone(),
                needs: texts(&step["needs"]),
                ..Step::default()
            };
            run.steps.insert(id, new);
        }
        if self.runs.insert(text(&body["run"]), run).is_some() {
            self.say(Rule::Acknowledged, "a run starts twice");
        }
    }

    fn step_started(&mut self, body: &Value) {
        let (run, id) = (text(&body["run"]), text(&body["step"]));
        let Some(run) = self.runs.get_mut(&run) else {
            return self.say(Rule::Gate, format!("no run has step {id}"));
        };
        let mut broken = run.over;
        if let Some(step) = run.steps.get(&id)
            && !step.kind["gate"].is_object()
        {
            let done = |need: &String| run.steps[need].end.as_deref() == Some("done");
            broken |= !step.needs.iter().all(done);
        }
        if let Some(step) = run.steps.get_mut(&id) {
            broken |= step.started;
            step.started = true;
            step.due = body["due"].as_u64();
            step.total = number(&body["total"], 0);
            step.tasks.clear();
        }
        self.expect(Rule::Gate, !broken, || {
            format!("step {id} starts out of turn")
        });
    }

    /// Whether a gate's condition holds now.
    fn opens(&self, run: &Run, gate: &Step) -> bool {
        let stands = |id: &String| self.tasks.get(id).map(|task| task.stands);
        let (mut total, mut done, mut open, mut missing, mut cut) = (0, 0, 0, false, false);
        for step in gate.needs.iter().map(|need| &run.steps[need]) {
            missing |= !step.started;
            total += step.total;
            for task in &step.tasks {
                done += u64::from(stands(task) == Some(Stands::Completed));
                open += u64::from(matches!(
                    stands(task),
                    Some(Stands::Pending | Stands::Leased)
                ));
                cut |= self.tasks.get(task).is_some_and(|task| task.cut);
            }
        }
        let join = &gate.kind["gate"]["join"];
        match join.as_str() {
            Some("all") => done == total && !missing,
            Some("any") => done > 0,
            _ if join["quorum"].is_u64() => done >= number(&join["quorum"], 0),
            _ if join["first_k"].is_u64() => done >= number(&join["first_k"], 0),
            // What the gate itself cut off does not count as ended.
            _ => done > 0 && (open == 0 && !cut || gate.due.is_some_and(|due| due <= self.at)),
        }
    }

    fn awaits(&mut self, body: &Value) {
        let (run, id) = (text(&body["run"]), text(&body["step"]));
        let partial = body["partial"] == true;
        let Some(known) = self.runs.get(&run) else {
            return;
        };
        let opens = known
            .steps
            .get(&id)
            .is_some_and(|gate| gate.started && self.opens(known, gate));
        if let Some(step) = self
            .runs
            .get_mut(&run)
            .and_then(|run| run.steps.get_mut(&id))
        {
            step.awaits = Some(partial);
        }
        self.expect(Rule::Gate, opens != partial, || {
            format!("gate {id} awaits its supervisor, partial: {partial}")
        });
    }

    fn step_ended(&mut self, body: &Value) {
        let (run, id) = (text(&body["run"]), text(&body["step"]));
        let end = text(&body["end"]);
        let Some(known) = self.runs.get(&run) else {
            return self.say(Rule::Gate, format!("no run has step {id}"));
        };
        let Some(step) = known.steps.get(&id) else {
            return;
        };
        let mut broken = known.over || step.end.is_some();
        if step.kind["gate"].is_object() {
            let supervised = step.kind["gate"]["reduce"] == "supervisor";
            let opens = match step.awaits {
                Some(partial) => !partial,
                None => step.started && self.opens(known, step) && !supervised,
            };
            // What cannot be reduced fails although its condition holds.
            let unreduced = body["output"]["error"].is_object();
            broken |= end == "done" && !opens || end == "failed" && opens && !unreduced;
        } else if end != "skipped" {
            let open = |id: &String| {
                self.tasks
                    .get(id)
                    .is_none_or(|t| matches!(t.stands, Stands::Pending | Stands::Leased))
            };
            broken |= step.started && step.tasks.iter().any(open);
            broken |= end == "done" && !step.started;
        }
        let output = body["output"].clone();
        if let Some(step) = self
            .runs
            .get_mut(&run)
            .and_then(|run| run.steps.get_mut(&id))
        {
            step.end = Some(end.clone());
            step.output = output;
        }
        self.expect(Rule::Gate, !broken, || {
            format!("step {id} ends as {end} out of turn")
        });
    }

    fn run_over(&mut self, body: &Value, what: &str) {
        let id = text(&body["run"]);
        let Some(run) = self.runs.get_mut(&id) else {
            return self.say(Rule::Gate, format!("{id} does not exist"));
        };
        let mut broken = run.over;
        run.over = true;
        if what != "run.cancelled" {
            broken |= run.steps.values().any(|step| step.end.is_none());
            let failed = run
                .steps
                .values()
                .any(|step| step.end.as_deref() == Some("failed"));
            broken |= failed != (what == "run.failed");
        }
        let needed: BTreeSet<&String> = run.steps.values().flat_map(|step| &step.needs).collect();
        let mut sinks = run.order.iter().filter(|id| !needed.contains(id));
        if what == "run.completed"
            && let (Some(only), None) = (sinks.next(), sinks.next())
        {
            broken |= run.steps[only].output != body["result"];
        }
        let tasks: Vec<String> = run.steps.values().flat_map(|s| s.tasks.clone()).collect();
        let open = |id: &String| {
            self.tasks
                .get(id)
                .is_some_and(|t| matches!(t.stands, Stands::Pending | Stands::Leased))
        };
        broken |= tasks.iter().any(open);
        self.expect(Rule::Gate, !broken, || {
            format!("{what} of {id} out of turn")
        });
    }

    fn reopened(&mut self, body: &Value) {
        let Some(run) = self.runs.get_mut(&text(&body["run"])) else {
            return;
        };
        let was_over = std::mem::replace(&mut run.over, false);
        for step in run.steps.values_mut() {
            if step.end.as_deref() == Some("done") {
                continue;
            }
            let gate = step.kind["gate"].is_object();
            step.end = None;
            step.awaits = None;
            step.output = Value::Null;
            step.started &= !gate && step.total > 0;
        }
        self.expect(Rule::Gate, was_over, || "an open run is reopened".into());
    }

    fn entry_claimed(&mut self, body: &Value) {
        let by = body["by"].as_str().map(str::to_owned);
        let Some(holder) = self.entries.get_mut(&text(&body["entry"])) else {
            return self.say(Rule::Entry, "it does not exist");
        };
        // Nobody here takes from another: whoever takes expects it to be free.
        let free = holder.is_none() || by.is_none();
        let before = std::mem::replace(holder, by);
        self.expect(Rule::Entry, free, || format!("it is held by {before:?}"));
    }

    fn message_sent(&mut self, message: &Value) {
        let id = text(&message["id"]);
        let to = message["recipients"].as_object();
        let open = to.map_or_else(BTreeSet::new, |to| to.keys().cloned().collect());
        *self.written.entry(id.clone()).or_default() += 1;
        if self.messages.insert(id, open).is_some() {
            self.say(Rule::Message, "it is sent twice");
        }
    }

    fn message_dealt(&mut self, body: &Value, what: &str) {
        let recipient = text(&body["recipient"]);
        let open = self.messages.get_mut(&text(&body["message"]));
        let was_open = open.is_some_and(|open| open.remove(&recipient));
        self.expect(Rule::Message, was_open, || {
            format!("{what} to {recipient}, again")
        });
    }

    fn effects(&mut self, effects: &[Effect]) {
        self.position = 0;
        let mut seen = BTreeSet::new();
        for effect in effects {
            let key = (effect.task.clone(), effect.attempt);
            let name = format!("{} of {}", effect.attempt, effect.task);
            match self.leases.get(&key) {
                Some((worker, _)) if *worker == effect.worker => {}
                _ => self.say(Rule::Effects, format!("attempt {name} was never leased")),
            }
            if !seen.insert(key) {
                self.say(Rule::Effects, format!("attempt {name} did it twice"));
            }
        }
        // Of a task's attempts that did something, all but the last ended without a result.
        let mut accepted: BTreeMap<&str, u32> = BTreeMap::new();
        let mut broken = Vec::new();
        for (task, attempt) in &seen {
            match self
                .leases
                .get(&(task.clone(), *attempt))
                .map(|(_, end)| *end)
            {
                Some(None) | Some(Some("completed")) => {
                    let accepted = accepted.entry(task).or_default();
                    *accepted += 1;
                    if *accepted > 1 {
                        broken.push(format!("{task} did it twice, and nothing says why"));
                    }
                }
                _ => {}
            }
        }
        for ((task, attempt), (_, end)) in &self.leases {
            if *end == Some("completed") && !seen.contains(&(task.clone(), *attempt)) {
                broken.push(format!(
                    "{task} completed with attempt {attempt}, which did nothing"
                ));
            }
        }
        for text in broken {
            self.say(Rule::Effects, text);
        }
    }

    fn told(&mut self, told: &[Told]) {
        let mut labels: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for (id, task) in &self.tasks {
            if let Some(label) = task.spec["metadata"]["label"].as_str() {
                labels
                    .entry((true, label.to_owned()))
                    .or_default()
                    .push(id.clone());
            }
        }
        for (id, run) in &self.runs {
            labels
                .entry((false, run.goal.clone()))
                .or_default()
                .push(id.clone());
        }
        for ((_, label), ids) in &labels {
            self.expect(Rule::Acknowledged, ids.len() == 1, || {
                format!("“{label}” is {ids:?}")
            });
        }
        for told in told {
            let rule = match told {
                Told::Steps(..) => Rule::Record,
                _ => Rule::Acknowledged,
            };
            let found = match told {
                Told::Steps(task, attempt, steps) => {
                    self.done.get(&(task.clone(), *attempt)) == Some(steps)
                }
                Told::Task(label, id) => {
                    labels.get(&(true, label.clone())) == Some(&vec![id.clone()])
                }
                Told::Run(goal, id) => {
                    labels.get(&(false, goal.clone())) == Some(&vec![id.clone()])
                }
                Told::Entry(id) | Told::Message(id) => self.written.get(id) == Some(&1),
                Told::Result(task, attempt, worker) => {
                    let lease = self.leases.get(&(task.clone(), *attempt));
                    lease == Some(&(worker.clone(), Some("completed")))
                }
                Told::Lease(task, attempt, worker) => {
                    let lease = self.leases.get(&(task.clone(), *attempt));
                    lease.is_some_and(|(holder, _)| holder == worker)
                }
            };
            self.expect(rule, found, || format!("{told:?} is not so"));
        }
    }

    fn sum(&mut self, tally: &Value) {
        let count =
            |found: &dyn Fn(&Task) -> bool| self.tasks.values().filter(|t| found(t)).count() as u64;
        let stands = |wanted: Stands| count(&|task: &Task| task.stands == wanted);
        let started = |wanted: bool| {
            count(&|task: &Task| {
                task.lease
                    .as_ref()
                    .is_some_and(|lease| lease.started == wanted)
            })
        };
        let counted = [
            ("submitted", self.tasks.len() as u64),
            ("pending", stands(Stands::Pending)),
            ("assigned", started(false)),
            ("in_progress", started(true)),
            ("completed", stands(Stands::Completed)),
            ("failed", stands(Stands::Failed)),
            ("cancelled", stands(Stands::Cancelled)),
            ("attempts", self.leases.len() as u64),
            ("refused", self.refused),
            ("runs", self.runs.len() as u64),
            (
                "runs_open",
                self.runs.values().filter(|run| !run.over).count() as u64,
            ),
        ];
        for (name, counted) in counted {
            let told = number(&tally[name], 0);
            self.expect(Rule::Sum, told == counted, || {
                format!("{name} is {told}, not {counted}")
            });
        }
        let parts: u64 = counted[1..7]
            .iter()
            .map(|(name, _)| number(&tally[*name], 0))
            .sum();
        let submitted = number(&tally["submitted"], 0);
        self.expect(Rule::Sum, parts == submitted, || {
            format!("{parts} of {submitted}")
        });
    }

    /// Every task has ended, or something that the log shows keeps it from being claimed.
    fn rest(&mut self, now: Ms) {
        let mut broken = Vec::new();
        for (id, task) in &self.tasks {
            match task.stands {
                Stands::Completed | Stands::Failed | Stands::Cancelled => {}
                Stands::Leased => broken.push(format!("{id} is still held")),
                Stands::Pending if self.waits(task, now) => {}
                Stands::Pending => broken.push(format!("{id} waits, and nothing says why")),
            }
        }
        for (id, run) in &self.runs {
            let open =
                |t: &String| matches!(self.tasks[t].stands, Stands::Pending | Stands::Leased);
            let waits = run.steps.values().any(|s| s.tasks.iter().any(open));
            let awaits = run
                .steps
                .values()
                .any(|s| s.awaits.is_some() && s.end.is_none());
            if !run.over && !waits && !awaits {
                broken.push(format!("{id} waits for nothing"));
            }
        }
        for text in broken {
            self.say(Rule::Rest, text);
        }
    }

    fn waits(&self, task: &Task, now: Ms) -> bool {
        let spec = &task.spec;
        let queue = spec["queue"].as_str().unwrap_or("default");
        let can = |worker: &&Worker| {
            let own = |field: &str| texts(&worker.spec[field]);
            let (kinds, kind) = (own("kinds"), text(&spec["kind"]));
            let needed = spec["capability"].as_str();
            worker.takes
                && own("queues").iter().any(|q| q == queue)
                && (kinds.is_empty() || kinds.contains(&kind))
                && needed.is_none_or(|n| {
                    own("capabilities")
                        .iter()
                        .any(|c| c.eq_ignore_ascii_case(n))
                })
                && task.address["only"]
                    .as_str()
                    .is_none_or(|only| only == worker.spec["id"])
        };
        !task.blocked_by.is_empty()
            || task.not_before > now
            || self.paused.contains(queue)
            || !self.workers.values().any(|worker| can(&worker))
    }
}

/// Milliseconds before the next try, jitter aside.
fn backoff(retry: &Value, failures: u64) -> u64 {
    let (first, factor) = (
        number(&retry["backoff_ms"], 1_000),
        number(&retry["factor_percent"], 200),
    );
    let most = number(&retry["backoff_max_ms"], 60_000);
    let grown = (1..failures).fold(first as f64, |wait, _| {
        (wait * factor as f64 / 100.0).floor()
    });
    (grown as u64).min(most)
}
