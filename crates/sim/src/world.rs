//! The world: one seed, one clock, the wheel that also turns in production, a disk that outlives
//! it, and everybody around it. There are no threads and no real time: a step moves the clock to
//! the next instant somebody waits for, lets everybody act in an order that the seed decides, and
//! turns the wheel once.
//!
//! A crash drops the wheel without a word. Whatever was on its way is lost, whoever waited for an
//! answer knows nothing, and asks again with the same id or idempotency key.

use crate::check::{self, Effect, Evidence, Page, Told, Violation};
use crate::fault::{Chance, Faulty, Plan, Strike, Weather};
use crate::scenario::{Act, Scenario, Until, What};
use crate::worker::{Hand, Heard, Reply, Scene, apply, hear};
use domain::command::{Command, Outcome, Submission};
use domain::error::{Code, Error, Who};
use domain::event::{Event, Recorded};
use domain::id::{CountedIds, EntryId, Ids, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::name::Name;
use domain::state::{Key, Row};
use domain::time::Time;
use engine::ask::Ask;
use engine::wheel::Wheel;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use store::backend::{memory::Memory, sqlite::Sqlite};
use store::{Answer, Backend, Reader, Store};

/// Steps that any scenario needs at most; one that needs more does not come to rest.
const STEPS_MAX: u32 = 60_000;
/// Steps after which the weather calms down.
const STEPS_STORMY: u32 = 1_500;
/// Milliseconds without an event after which nothing more is expected.
const REST_MS: u64 = 40_000;

/// What survives the process.
#[derive(Debug, Clone)]
pub enum Disk {
    /// Bytes in memory.
    Memory(Memory),
    /// A folder.
    Folder(PathBuf),
}

impl Disk {
    /// An empty one in memory.
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    fn open(&self) -> Result<Box<dyn Backend>, Error> {
        Ok(match self {
            Self::Memory(content) => Box::new(content.clone()),
            Self::Folder(folder) => Box::new(Sqlite::open(folder)?),
        })
    }
}

/// How rough a world is.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    /// Faults of the disk, and crashes with them.
    pub faults: u32,
    /// About one in so many commits.
    pub one_in: u64,
    /// Misbehaviours of each worker.
    pub mischief: u32,
    /// Times the clock jumps.
    pub jumps: u32,
    /// Crashes between two turns, and asks that never arrive.
    pub losses: u32,
    /// Rows kept loaded, and rows that may be behind.
    pub windows: (usize, usize),
}

impl Climate {
    /// Nothing goes wrong.
    pub const CALM: Self = Self {
        faults: 0,
        one_in: 1,
        mischief: 0,
        jumps: 0,
        losses: 0,
        windows: (60_000, 20_000),
    };

    /// As rough as the seed says.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x0c11_3a7e);
        Self {
            faults: chance.below(9) as u32,
            one_in: chance.between(4, 30),
            mischief: chance.below(6) as u32,
            jumps: chance.below(3) as u32,
            losses: chance.below(6) as u32,
            windows: (chance.between(1, 60) as usize, chance.below(30) as usize),
        }
    }
}

/// When the one crash of a world comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Before the commit of this number is written.
    Before(u64),
    /// After it was written, before anybody is answered.
    After(u64),
    /// After the turn in which it was written, when everybody is answered.
    Between(u64),
}

/// Ids from the seed, which a restart does not begin anew.
#[derive(Debug, Clone)]
struct SharedIds(Arc<Mutex<CountedIds>>);

impl Ids for SharedIds {
    fn next(&mut self) -> u128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
    fn chance(&mut self, bound: u64) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .chance(bound)
    }
}

/// What came of a scenario, by the labels its author gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Each task's state, and its output when it has one.
    pub tasks: BTreeMap<String, (String, String)>,
    /// Each run's state and result, and how many of each step's tasks ended in which state.
    pub runs: BTreeMap<String, (String, String, BTreeMap<String, u32>)>,
}

/// All that a world left behind.
#[derive(Debug)]
pub struct Report {
    /// Rules that were broken.
    pub violations: Vec<Violation>,
    /// What came of it.
    pub ends: Ends,
    /// What was judged.
    pub evidence: Evidence,
    /// What went wrong on purpose.
    pub struck: Vec<(u64, Strike)>,
    /// Times the process died or was restarted.
    pub lives: u32,
    /// Commits, flushes included.
    pub commits: u64,
    /// Steps.
    pub steps: u32,
    /// Milliseconds that passed.
    pub ms: u64,
}

/// What a follower of the log knows: it reads what is new after each turn, and never sees anything
/// twice or not at all.
#[derive(Debug, Default)]
struct View {
    position: u64,
    tasks: BTreeMap<TaskId, Seen>,
    runs: BTreeMap<RunId, SeenRun>,
}

#[derive(Debug)]
struct Seen {
    label: Option<String>,
    of: Option<(RunId, String)>,
    status: &'static str,
    output: Option<Json>,
}

#[derive(Debug)]
struct SeenRun {
    goal: String,
    status: &'static str,
    result: Option<Json>,
    /// The gate that awaits its supervisor, and what it watches.
    awaits: Option<Name>,
    needs: BTreeMap<Name, Vec<Name>>,
}

impl View {
    fn see(&mut self, recorded: &Recorded) {
        self.position = recorded.position;
        let mut set = |task: &TaskId, status: &'static str| {
            if let Some(seen) = self.tasks.get_mut(task) {
                seen.status = status;
            }
        };
        match &recorded.event {
            Event::TaskSubmitted { task, spec, .. } => {
                let seen = Seen {
                    label: spec.metadata.get("label").cloned(),
                    of: spec.of.as_ref().map(|of| (of.run, of.step.to_string())),
                    status: "pending",
                    output: None,
                };
                self.tasks.insert(*task, seen);
            }
            Event::TaskAssigned { lease, .. } => set(&lease.task, "leased"),
            Event::TaskCompleted { lease, output, .. } => {
                set(&lease.task, "completed");
                if let Some(seen) = self.tasks.get_mut(&lease.task) {
                    seen.output = Some(output.clone());
                }
            }
            Event::AttemptEnded { lease, .. } => set(&lease.task, "pending"),
            Event::TaskRedriven { task, .. } => set(task, "pending"),
            Event::TaskFailed { task, .. } => set(task, "failed"),
            Event::TaskCancelled { task, .. } => set(task, "cancelled"),
            Event::RunStarted {
                run, goal, graph, ..
            } => {
                let needs = graph
                    .steps
                    .iter()
                    .map(|step| (step.id.clone(), step.needs.clone()));
                let seen = SeenRun {
                    goal: goal.clone(),
                    status: "running",
                    result: None,
                    awaits: None,
                    needs: needs.collect(),
                };
                self.runs.insert(*run, seen);
            }
            Event::GateAwaitsSupervisor { run, step, .. } => {
                self.run(run, |seen| seen.awaits = Some(step.clone()));
            }
            Event::StepEnded { run, .. } => self.run(run, |seen| seen.awaits = None),
            Event::RunCompleted { run, result } => self.run(run, |seen| {
                (seen.status, seen.result) = ("completed", Some(result.clone()));
            }),
            Event::RunFailed { run, partial, .. } => self.run(run, |seen| {
                (seen.status, seen.result) = ("failed", partial.clone());
            }),
            Event::RunCancelled { run, .. } => self.run(run, |seen| seen.status = "cancelled"),
            Event::RunReopened { run } => self.run(run, |seen| {
                (seen.status, seen.result, seen.awaits) = ("running", None, None);
            }),
            _ => {}
        }
    }

    fn run(&mut self, run: &RunId, change: impl FnOnce(&mut SeenRun)) {
        if let Some(seen) = self.runs.get_mut(run) {
            change(seen);
        }
    }

    fn task(&self, label: &str) -> Option<(&TaskId, &Seen)> {
        self.tasks
            .iter()
            .find(|(_, seen)| seen.label.as_deref() == Some(label))
    }

    fn run_of(&self, goal: &str) -> Option<(&RunId, &SeenRun)> {
        self.runs.iter().find(|(_, seen)| seen.goal == goal)
    }

    /// Everything has ended.
    fn is_over(&self) -> bool {
        let over = |status: &str| matches!(status, "completed" | "failed" | "cancelled");
        self.tasks.values().all(|seen| over(seen.status))
            && self.runs.values().all(|seen| over(seen.status))
    }

    fn count(&self, states: &[&str]) -> u64 {
        self.tasks
            .values()
            .filter(|seen| states.contains(&seen.status))
            .count() as u64
    }

    fn ends(&self) -> Ends {
        let said = |json: &Option<Json>| {
            json.as_ref()
                .map_or_else(String::new, |json| json.text().to_owned())
        };
        let mut ends = Ends {
            tasks: BTreeMap::new(),
            runs: BTreeMap::new(),
        };
        for seen in self.tasks.values() {
            if let Some(label) = &seen.label {
                ends.tasks
                    .insert(label.clone(), (seen.status.to_owned(), said(&seen.output)));
            }
        }
        for (id, run) in &self.runs {
            let mut steps: BTreeMap<String, u32> = BTreeMap::new();
            for seen in self.tasks.values() {
                if let Some((of, step)) = &seen.of
                    && of == id
                {
                    *steps.entry(format!("{step} {}", seen.status)).or_default() += 1;
                }
            }
            let end = (run.status.to_owned(), said(&run.result), steps);
            ends.runs.insert(run.goal.clone(), end);
        }
        ends
    }
}

/// Something a caller wants, until it is answered.
#[derive(Debug)]
struct Wish {
    act: Act,
    reply: Option<Reply<Vec<Answer>>>,
    again_at: Time,
    done: bool,
}

/// What an agent made of a message, until it is recorded: why it failed, if it did.
type Settling = (MessageId, Option<String>, Option<Reply<Vec<Answer>>>);

/// An agent that receives messages.
#[derive(Debug)]
struct Listener {
    name: Name,
    kinds: Vec<Name>,
    /// Settles only from here on.
    from_ms: u64,
    life: u32,
    settling: Vec<Settling>,
}

/// A world.
#[derive(Debug)]
pub struct World {
    now: Time,
    began: Time,
    chance: Chance,
    climate: Climate,
    weather: Weather,
    disk: Disk,
    ids: SharedIds,
    wheel: Option<Wheel>,
    reader: Option<ReaderOf>,
    back_at: Time,
    lives: u32,
    crash: Option<Crash>,
    inbox: Vec<Ask>,
    hands: Vec<Hand>,
    wishes: Vec<Wish>,
    listeners: Vec<Listener>,
    settling: BTreeMap<RunId, Reply<Vec<Answer>>>,
    entries: BTreeMap<String, EntryId>,
    view: View,
    /// Milliseconds without an event, jumps of the clock aside.
    still_ms: u64,
    effects: Vec<Effect>,
    told: Vec<Told>,
    /// Broken rules that only a live look shows.
    seen: Vec<Violation>,
}

struct ReaderOf(Box<dyn Reader>);

impl std::fmt::Debug for ReaderOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// A label as an id: the same submission has the same id however often it is sent.
pub(crate) fn id_of(label: &str) -> TaskId {
    let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    TaskId::new(u128::from(hash) | 1 << 100)
}

impl World {
    /// A scenario in a world of this seed and climate.
    pub fn new(seed: u64, scenario: &Scenario, climate: Climate, disk: Disk) -> Self {
        let now = Time(1_700_000_000_000);
        let hands = scenario.workers.iter().enumerate().map(|(n, spec)| {
            Hand::new(
                spec.clone(),
                seed.wrapping_mul(31) + n as u64,
                climate.mischief,
            )
        });
        let wishes = scenario.acts.iter().map(|act| Wish {
            again_at: now.plus_ms(act.at_ms),
            act: act.clone(),
            reply: None,
            done: false,
        });
        let listeners = scenario
            .listeners
            .iter()
            .map(|(name, kinds, from_ms)| Listener {
                name: name.clone(),
                kinds: kinds.clone(),
                from_ms: *from_ms,
                life: 0,
                settling: Vec::new(),
            });
        Self {
            now,
            began: now,
            chance: Chance::new(seed),
            climate,
            weather: Weather::new(Plan::new(seed, climate.faults, climate.one_in)),
            disk,
            ids: SharedIds(Arc::new(Mutex::new(CountedIds::new(seed)))),
            wheel: None,
            reader: None,
            back_at: now,
            lives: 0,
            crash: None,
            inbox: Vec::new(),
            hands: hands.collect(),
            wishes: wishes.collect(),
            listeners: listeners.collect(),
            settling: BTreeMap::new(),
            entries: BTreeMap::new(),
            view: View::default(),
            still_ms: 0,
            effects: Vec::new(),
            told: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// The same, with one crash.
    #[must_use]
    pub fn crashing(mut self, crash: Crash) -> Self {
        self.weather.plan().crash_at = match crash {
            Crash::Before(commit) => Some((commit, Strike::CrashBefore)),
            Crash::After(commit) => Some((commit, Strike::CrashAfter)),
            Crash::Between(_) => None,
        };
        self.crash = Some(crash);
        self
    }

    /// Goes on until nothing more happens, and judges.
    ///
    /// # Errors
    /// When the store cannot be read in the end.
    pub fn run(mut self) -> Result<Report, Error> {
        let mut steps = 0;
        while steps < STEPS_MAX && !self.is_quiet() {
            steps += 1;
            if steps == STEPS_STORMY {
                self.calm();
            }
            self.step();
        }
        self.calm();
        self.judge(steps)
    }

    fn calm(&mut self) {
        self.weather.plan().calm();
        (self.climate.jumps, self.climate.losses) = (0, 0);
        self.hands.iter_mut().for_each(|hand| hand.mischief = 0);
    }

    fn is_quiet(&self) -> bool {
        let callers = self.wishes.iter().all(|wish| wish.done)
            && self.listeners.iter().all(|l| l.settling.is_empty())
            && self.settling.is_empty();
        let still = self.still_ms > REST_MS;
        let over = self.view.is_over() && self.hands.iter().all(Hand::is_idle);
        callers
            && self.wheel.is_some()
            && self.view.position > 0
            && (over && self.mail_is_done() || still)
    }

    fn mail_is_done(&self) -> bool {
        self.listeners.is_empty() || self.still_ms > 6_000
    }

    fn step(&mut self) {
        self.pass();
        if self.wheel.is_none() && self.now >= self.back_at {
            self.open();
        }
        self.everybody_acts();
        self.turn();
        self.follow();
    }

    /// The clock moves to the next instant that matters, or a little beyond it.
    fn pass(&mut self) {
        let wheel = match &self.wheel {
            Some(wheel) => self.now.plus_ms(wheel.sleep_ms(self.now)),
            None => self.back_at,
        };
        let wishes = self
            .wishes
            .iter()
            .filter(|wish| !wish.done && wish.reply.is_none());
        let next = (wishes.map(|wish| wish.again_at).filter(|at| *at > self.now))
            .chain(self.hands.iter().map(Hand::wake))
            .chain([wheel])
            .min()
            .unwrap_or(wheel);
        let late = self.chance.between(1, 25);
        let before = self.now;
        self.now = before.plus_ms(late).max(next.min(before.plus_ms(1_000)));
        self.still_ms += self.now.since_ms(before);
        if self.climate.jumps > 0 && self.chance.one_in(120) {
            self.climate.jumps -= 1;
            let ms = [3_000, 60_000, 3_600_000][self.chance.below(3) as usize];
            self.now = self.now.plus_ms(self.chance.between(1, ms));
        }
    }

    /// The process begins, or begins again: over the same disk.
    fn open(&mut self) {
        self.weather.plan().dead = false;
        self.lives += 1;
        let opened = self.disk.open().and_then(|backend| {
            let faulty = Faulty::new(backend, self.weather.clone());
            let mut store = Store::open(Box::new(faulty), Box::new(self.ids.clone()))?;
            store.set_windows(self.climate.windows.0, self.climate.windows.1);
            let mut wheel = Wheel::over(store, self.now)?;
            self.reader = Some(ReaderOf(wheel.store().reader()?));
            Ok(wheel)
        });
        match opened {
            Ok(wheel) => self.wheel = Some(wheel),
            Err(error) => {
                self.reader = None;
                self.back_at = self.now.plus_ms(200);
                let planned = matches!(error.code, Code::StoreIo | Code::StoreFull);
                if !planned {
                    self.broken(format!("the store does not open: {error}"));
                }
            }
        }
    }

    fn broken(&mut self, text: String) {
        let (rule, position) = (check::Rule::Live, self.view.position);
        self.seen.push(Violation {
            rule,
            position,
            text,
        });
    }

    /// The process ends without a word.
    fn die(&mut self) {
        (self.wheel, self.reader) = (None, None);
        self.inbox.clear();
        let ms = if self.crash.is_some() {
            20
        } else {
            self.chance.between(1, 4_000)
        };
        self.back_at = self.now.plus_ms(ms);
        for hand in &mut self.hands {
            hand.engine_died(&mut self.effects, self.now);
        }
    }

    fn everybody_acts(&mut self) {
        let mut scene = Scene {
            now: self.now,
            wheel: self.wheel.as_mut(),
            inbox: &mut self.inbox,
            effects: &mut self.effects,
            told: &mut self.told,
        };
        let first = self.chance.below(self.hands.len() as u64) as usize;
        let (before, after) = self.hands.split_at_mut(first);
        after
            .iter_mut()
            .chain(before)
            .for_each(|hand| hand.act(&mut scene));
        self.wish();
        self.supervise();
        self.listen();
    }

    fn wish(&mut self) {
        for n in 0..self.wishes.len() {
            let heard = hear(&mut self.wishes[n].reply);
            match heard {
                Heard::Nothing => {}
                Heard::Answer(mut answers) => match answers.pop() {
                    Some(Answer::Outcome(outcome)) => self.granted(n, outcome),
                    _ => self.broken("an answer that is not an outcome".into()),
                },
                Heard::Error(Some(error)) if error.code.who() == Who::Bug => {
                    self.broken(format!("{:?}: {error}", self.wishes[n].act));
                }
                Heard::Error(_) => {
                    let ms = self.chance.between(20, 600);
                    self.wishes[n].again_at = self.now.plus_ms(ms);
                }
            }
            let wish = &self.wishes[n];
            let due = !wish.done && wish.reply.is_none() && wish.again_at <= self.now;
            if due && self.wheel.is_some() && wish.act.after.iter().all(|until| self.holds(until)) {
                match self.command(&wish.act.what) {
                    Some(command) => {
                        self.wishes[n].reply = Some(apply(&mut self.inbox, vec![command]));
                    }
                    None => self.wishes[n].again_at = self.now.plus_ms(100),
                }
            }
        }
    }

    fn holds(&self, until: &Until) -> bool {
        let over = |status: &str| matches!(status, "completed" | "failed" | "cancelled");
        match until {
            Until::TaskEnded(label) => self
                .view
                .task(label)
                .is_some_and(|(_, seen)| over(seen.status)),
            Until::TaskHeld(label) => self
                .view
                .task(label)
                .is_some_and(|(_, seen)| seen.status != "pending"),
            Until::RunEnded(goal) => self
                .view
                .run_of(goal)
                .is_some_and(|(_, seen)| over(seen.status)),
            Until::Done(n) => self.wishes[*n].done,
        }
    }

    /// The command of a wish, when what it names is known.
    fn command(&self, what: &What) -> Option<Command> {
        let task = |label: &String| self.view.task(label).map(|(id, _)| *id);
        let run = |goal: &String| self.view.run_of(goal).map(|(id, _)| *id);
        Some(match what {
            What::Submit {
                label,
                spec,
                after,
                key,
            } => {
                let mut spec = spec.clone();
                let label_name = Name::new("label").ok()?;
                spec.metadata.insert(label_name, label.clone());
                spec.after = after.iter().map(task).collect::<Option<_>>()?;
                let mut new = Submission::new(spec);
                match key {
                    true => new.key = Name::new(format!("key of {label}")).ok(),
                    false => new.id = Some(id_of(label)),
                }
                Command::TaskSubmit(new)
            }
            What::Start(new) => Command::RunStart(new.clone()),
            What::TaskCancel(label) => Command::TaskCancel {
                task: task(label)?,
                reason: "the caller changed its mind".into(),
            },
            What::TaskRedrive(label) => Command::TaskRedrive(task(label)?),
            What::TaskReassign(label, to) => Command::TaskReassign {
                task: task(label)?,
                to: to.clone(),
            },
            What::RunCancel(goal) => Command::RunCancel {
                run: run(goal)?,
                reason: "the caller changed its mind".into(),
            },
            What::RunRetry(goal) => Command::RunRetry(run(goal)?),
            What::Write { goal, entry, .. } => {
                let mut entry = entry.clone();
                if let Some(goal) = goal {
                    entry.run = Some(run(goal)?);
                }
                Command::EntryWrite(entry)
            }
            What::Claim { label, by } => Command::EntryClaim {
                entry: *self.entries.get(label)?,
                expected: None,
                by: Some(by.clone()),
            },
            What::GiveBack { label, by } => Command::EntryClaim {
                entry: *self.entries.get(label)?,
                expected: Some(by.clone()),
                by: None,
            },
            What::Send(message) => {
                let postbox = self.wheel.as_ref()?.relay().postbox();
                Command::MessageSend {
                    recipients: postbox.resolve(&message.from, &message.to, &message.kind),
                    message: message.clone(),
                }
            }
            What::Ask(command) => command.clone(),
        })
    }

    /// A caller was answered: it asks no more, and remembers what it was told.
    fn granted(&mut self, n: usize, outcome: Result<Outcome, Error>) {
        let wish = &mut self.wishes[n];
        // Nobody listens yet: the sender tries again, as the code says it may. (The first try is a
        // dead letter under the same id.)
        wish.done = true;
        match (outcome, &wish.act.what) {
            (Ok(Outcome::Task(id)), What::Submit { label, .. }) => {
                self.told.push(Told::Task(label.clone(), id.to_string()));
            }
            (Ok(Outcome::Run(id)), What::Start(new)) => {
                self.told.push(Told::Run(new.goal.clone(), id.to_string()));
            }
            (Ok(Outcome::Entry(id)), What::Write { label, .. }) => {
                self.entries.insert(label.clone(), id);
                self.told.push(Told::Entry(id.to_string()));
            }
            (Ok(Outcome::Message(id)), _) => self.told.push(Told::Message(id.to_string())),
            (Err(error), _) if error.code.who() == Who::Bug => {
                let text = format!("{:?}: {error}", self.wishes[n].act);
                self.broken(text);
            }
            (Err(error), What::Submit { .. } | What::Start(_)) => {
                let text = format!("{:?}: {error}", self.wishes[n].act);
                self.broken(text);
            }
            _ => {}
        }
    }

    /// The supervisor of every run: reduces what the log shows, whenever a gate awaits it.
    fn supervise(&mut self) {
        self.settling.retain(|_, reply| {
            let mut open = Some(std::mem::replace(reply, tokio::sync::oneshot::channel().1));
            match hear(&mut open) {
                Heard::Nothing => {}
                Heard::Answer(_) | Heard::Error(_) => return false,
            }
            if let Some(open) = open {
                *reply = open;
            }
            true
        });
        if self.wheel.is_none() {
            return;
        }
        for (run, seen) in &self.view.runs {
            let Some(step) = seen.awaits.as_ref().filter(|_| seen.status == "running") else {
                continue;
            };
            if self.settling.contains_key(run) {
                continue;
            }
            let watched: Vec<&str> = seen.needs[step].iter().map(Name::as_str).collect();
            let of = |task: &&Seen| {
                task.of
                    .as_ref()
                    .is_some_and(|(of, step)| of == run && watched.contains(&step.as_str()))
            };
            let outputs = self
                .view
                .tasks
                .values()
                .filter(of)
                .filter_map(|task| task.output.as_ref());
            let outputs: Vec<Value> = outputs.map(Json::value).collect();
            let output = json!({"count": outputs.len(), "outputs": outputs}).into();
            let (run, step) = (*run, step.clone());
            let command = Command::RunSettle { run, step, output };
            self.settling
                .insert(run, apply(&mut self.inbox, vec![command]));
        }
    }

    fn listen(&mut self) {
        let Some(wheel) = &self.wheel else { return };
        for listener in &mut self.listeners {
            if listener.life != self.lives {
                // Subscriptions live in the process.
                listener.life = self.lives;
                let (name, kinds) = (listener.name.clone(), listener.kinds.clone());
                wheel.relay().postbox().subscribe(name, kinds);
            }
            if self.now.since_ms(self.began) < listener.from_ms {
                continue;
            }
            if let Ok(taken) = wheel.relay().postbox().take(&listener.name, 3, self.now) {
                for delivered in taken {
                    let input = delivered.message.payload.value();
                    let fails = input["fails"] == true || self.chance.one_in(8);
                    let failure = fails.then(|| "not now".to_owned());
                    listener.settling.push((delivered.id, failure, None));
                }
            }
            let (name, now_idle) = (listener.name.clone(), &mut self.inbox);
            listener.settling.retain_mut(|(message, failure, reply)| {
                match hear(reply) {
                    Heard::Answer(_) => return false,
                    Heard::Error(_) | Heard::Nothing => {}
                }
                if reply.is_none() {
                    let command = Command::MessageSettle {
                        message: *message,
                        recipient: name.clone(),
                        failure: failure.clone(),
                    };
                    *reply = Some(apply(now_idle, vec![command]));
                }
                true
            });
        }
    }

    fn turn(&mut self) {
        let Some(wheel) = &mut self.wheel else {
            self.inbox.clear();
            return;
        };
        if self.climate.losses > 0 && !self.inbox.is_empty() && self.chance.one_in(60) {
            // It never arrives.
            self.climate.losses -= 1;
            let at = self.chance.below(self.inbox.len() as u64) as usize;
            self.inbox.remove(at);
        }
        let mut asks = std::mem::take(&mut self.inbox);
        wheel.turn(&mut asks, self.now);
        let (dead, commits) = {
            let plan = self.weather.plan();
            (plan.dead, plan.commits)
        };
        let between = match self.crash {
            Some(Crash::Between(commit)) => commits >= commit && self.lives == 1,
            Some(_) => false,
            None => self.climate.losses > 0 && self.chance.one_in(150),
        };
        if dead {
            self.die();
        } else if let Some(fatal) = wheel.fatal().cloned() {
            if fatal.code.who() == Who::Bug {
                self.broken(format!("the wheel stopped: {fatal}"));
            }
            // As the owner does: it writes what it can, and opens the store anew.
            if self.chance.one_in(2)
                && let Some(wheel) = &mut self.wheel
            {
                let _ = wheel.close();
            }
            self.die();
        } else if between {
            self.climate.losses = self.climate.losses.saturating_sub(1);
            self.die();
        }
    }

    /// Reads what is new in the log, and compares the statistics with what was read.
    fn follow(&mut self) {
        let (Some(wheel), Some(reader)) = (&mut self.wheel, &mut self.reader) else {
            return;
        };
        let head = wheel.store().head();
        if self.view.position < head {
            self.still_ms = 0;
        }
        let mut wrong = None;
        while self.view.position < head {
            match reader.0.events(self.view.position, 7) {
                Ok(events) if events.is_empty() => {
                    wrong = Some(format!("nothing after event {}", self.view.position));
                    break;
                }
                Ok(events) => {
                    for recorded in &events {
                        if recorded.position != self.view.position + 1 {
                            wrong = Some(format!("a follower sees event {}", recorded.position));
                        }
                        self.view.see(recorded);
                    }
                }
                Err(error) => {
                    wrong = Some(error.to_string());
                    break;
                }
            }
        }
        if let Ok(Some(Row::Tally(tally))) = wheel.store().get(&Key::Tally) {
            let counted = [
                self.view.tasks.len() as u64,
                self.view.count(&["pending"]),
                self.view.count(&["leased"]),
                self.view.count(&["completed"]),
                self.view.count(&["failed"]),
                self.view.count(&["cancelled"]),
            ];
            let leased = tally.assigned + tally.in_progress;
            let told = [
                tally.submitted,
                tally.pending,
                leased,
                tally.completed,
                tally.failed,
                tally.cancelled,
            ];
            if counted != told || !tally.adds_up() {
                wrong = Some(format!("the statistics say {told:?}, the log {counted:?}"));
            }
        }
        if let Some(text) = wrong {
            self.broken(text);
        }
    }

    /// The process ends as it should, and what it left is judged.
    fn judge(mut self, steps: u32) -> Result<Report, Error> {
        let at_rest = steps < STEPS_MAX;
        if !at_rest {
            self.broken("the world does not come to rest".into());
        }
        let open: BTreeSet<_> = self
            .wishes
            .iter()
            .filter(|wish| !wish.done)
            .map(|w| format!("{:?}", w.act))
            .collect();
        if !open.is_empty() {
            self.broken(format!("never answered: {open:?}"));
        }
        let mut tally = Value::Null;
        while self
            .wheel
            .as_mut()
            .is_none_or(|wheel| wheel.close().is_err())
        {
            // The one planned crash may come here, too.
            (self.wheel, self.reader) = (None, None);
            self.open();
        }
        self.follow();
        if let Some(wheel) = &mut self.wheel
            && let Some(Row::Tally(row)) = wheel.store().get(&Key::Tally)?
        {
            tally = serde_json::to_value(&*row).unwrap_or_default();
        }
        (self.wheel, self.reader) = (None, None);
        let (struck, commits, went_on) = {
            let plan = self.weather.plan();
            (plan.struck.clone(), plan.commits, plan.went_on)
        };
        if went_on > 0 {
            self.broken("the store is written after a write failed".into());
        }
        let mut reader = self.disk.open()?.reader()?;
        let frames = reader.frames(0, usize::MAX)?;
        let pages = frames.into_iter().map(|frame| Page {
            first: frame.first,
            hash: frame.hash,
            body: frame.body,
        });
        let evidence = Evidence {
            pages: pages.collect(),
            effects: self.effects,
            told: self.told,
            tally,
            now: self.now.0,
            at_rest,
        };
        let mut violations = self.seen;
        violations.extend(check::check(&evidence));
        let replayed = store::replay::replay(&mut *reader)?;
        violations.extend(replayed.differences.into_iter().map(|text| Violation {
            rule: check::Rule::Replay,
            position: replayed.events,
            text,
        }));
        Ok(Report {
            violations,
            ends: self.view.ends(),
            evidence,
            struck,
            lives: self.lives,
            commits,
            steps,
            ms: self.now.since_ms(self.began),
        })
    }
}
