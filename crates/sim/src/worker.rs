//! Simulated workers: what a worker process does between two turns of the wheel. Well-behaved ones
//! claim, work, report and beat; mischief makes them slow, silent, deaf or dead.

use crate::check::{Effect, Told};
use crate::fault::Chance;
use domain::command::{Claimant, Command, Report};
use domain::error::{Code, Error};
use domain::event::AttemptRef;
use domain::id::TaskId;
use domain::json::Json;
use domain::name::Name;
use domain::record::{EffectClass, NewRecord, Record, RecordState};
use domain::state::{Key, Row};
use domain::task::{Failure, Task};
use domain::time::Time;
use domain::worker::{Home, WorkerSpec};
use engine::ask::{Ask, Worked};
use engine::wheel::Wheel;
use protocol::v1::Signal;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Answer, Claimed, Op, Request};
use tokio::sync::oneshot::{Receiver, channel, error::TryRecvError};

/// What is around a worker, or a caller, when it acts.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) now: Time,
    pub(crate) wheel: Option<&'a mut Wheel>,
    pub(crate) inbox: &'a mut Vec<Ask>,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) told: &'a mut Vec<Told>,
}

/// An answer that is on its way.
pub(crate) type Reply<T> = Receiver<Result<T, Error>>;

/// What has become of it.
pub(crate) enum Heard<T> {
    Nothing,
    Answer(T),
    /// A refusal, or silence: nobody knows what was done.
    Error(Option<Error>),
}

pub(crate) fn hear<T>(reply: &mut Option<Reply<T>>) -> Heard<T> {
    let Some(open) = reply else {
        return Heard::Nothing;
    };
    let heard = match open.try_recv() {
        Err(TryRecvError::Empty) => return Heard::Nothing,
        Err(TryRecvError::Closed) => Heard::Error(None),
        Ok(Ok(answer)) => Heard::Answer(answer),
        Ok(Err(error)) => Heard::Error(Some(error)),
    };
    *reply = None;
    heard
}

/// Puts commands into the inbox, as the in-process contract does.
pub(crate) fn apply(inbox: &mut Vec<Ask>, commands: Vec<Command>) -> Reply<Vec<Answer>> {
    let (reply, answer) = channel();
    let ops = commands.into_iter().map(Op::Command).collect();
    inbox.push(Ask::Apply {
        request: Request::own(ops),
        reply,
    });
    answer
}

/// How a job will end, unless something comes between.
#[derive(Debug, Clone)]
enum Ending {
    Result(Json),
    Failure(Failure),
    /// The worker dies of it.
    Death,
    Never,
}

#[derive(Debug)]
struct Job {
    lease: AttemptRef,
    until: Time,
    ending: Ending,
    /// It hears when it is to stop or to yield.
    hears: bool,
    /// It said that it will post, and must say that it did.
    posts: bool,
}

/// A simulated worker.
#[derive(Debug)]
pub(crate) struct Hand {
    spec: WorkerSpec,
    chance: Chance,
    /// Misbehaviours left.
    pub(crate) mischief: u32,
    back_at: Option<Time>,
    registered: bool,
    registering: Option<Reply<Vec<Answer>>>,
    working: Option<Reply<Worked>>,
    sent_with_claim: Sent,
    reporting: Option<Reply<Vec<Answer>>>,
    sent_alone: Sent,
    not_before: Time,
    silent_until: Time,
    jobs: Vec<Job>,
    reports: Sent,
    leaving: Option<Reply<Vec<Answer>>>,
    must_leave: bool,
}

impl Hand {
    pub(crate) fn new(spec: WorkerSpec, seed: u64, mischief: u32) -> Self {
        Self {
            spec,
            chance: Chance::new(seed),
            mischief,
            back_at: None,
            registered: false,
            registering: None,
            working: None,
            sent_with_claim: Vec::new(),
            reporting: None,
            sent_alone: Vec::new(),
            not_before: Time(0),
            silent_until: Time(0),
            jobs: Vec::new(),
            reports: Vec::new(),
            leaving: None,
            must_leave: false,
        }
    }

    /// Nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let sent = self.sent_with_claim.len() + self.sent_alone.len();
        self.jobs.is_empty() && self.reports.is_empty() && sent == 0 && self.back_at.is_none()
    }

    /// When it acts next, if nothing happens to it before.
    pub(crate) fn wake(&self) -> Time {
        let beat = Time(self.spec.lease_ms / 3);
        let jobs = self.jobs.iter().map(|job| job.until).min();
        let back = self.back_at.into_iter().chain(jobs).min();
        back.unwrap_or(Time(u64::MAX))
            .min(self.not_before.plus_ms(beat.0))
    }

    /// The engine's process has died, and with it the workers that lived in it.
    pub(crate) fn engine_died(&mut self, effects: &mut Vec<Effect>, now: Time) {
        if self.spec.home == Home::InProcess {
            self.die(effects, now);
            self.back_at = Some(now);
            self.must_leave = false;
        }
    }

    /// Its process ends. What it was doing may have been done.
    fn die(&mut self, effects: &mut Vec<Effect>, now: Time) {
        for job in std::mem::take(&mut self.jobs) {
            if self.chance.one_in(2) && matches!(job.ending, Ending::Result(_) | Ending::Death) {
                effects.push(effect(&job.lease, now));
            }
        }
        self.begin_anew();
        self.reports.clear();
        self.back_at = Some(now.plus_ms(self.chance.between(100, 8_000)));
        // The machine notices the end of a thread, but not of a process elsewhere.
        self.must_leave = self.spec.home == Home::InProcess;
    }

    /// Another life: what the engine thinks it holds goes back when it registers.
    fn begin_anew(&mut self) {
        self.registered = false;
        self.spec.session += 1;
        (self.registering, self.working, self.reporting) = (None, None, None);
        // What was sent may not have arrived.
        let sent = std::mem::take(&mut self.sent_with_claim).into_iter();
        let sent = sent.chain(std::mem::take(&mut self.sent_alone));
        self.reports.splice(..0, sent.collect::<Sent>());
    }

    fn misbehaves(&mut self, times: u64) -> bool {
        let does = self.mischief > 0 && self.chance.one_in(times);
        self.mischief -= u32::from(does);
        does
    }

    pub(crate) fn act(&mut self, scene: &mut Scene<'_>) {
        if let Some(back) = self.back_at {
            self.leave(scene);
            if back > scene.now {
                return;
            }
            self.back_at = None;
        }
        self.hear_all(scene);
        self.work(scene);
        if self.back_at.is_some() || self.silent_until > scene.now {
            return;
        }
        let Some(wheel) = &scene.wheel else { return };
        if !self.registered {
            if self.registering.is_none() && self.not_before <= scene.now {
                let spec = Arc::new(self.spec.clone());
                let command = Command::WorkerRegister(spec);
                self.registering = Some(apply(scene.inbox, vec![command]));
                self.not_before = scene.now.plus_ms(self.chance.between(50, 500));
            }
            return;
        }
        wheel.hearts().beat(&self.spec.id, scene.now);
        match wheel.hearts().listen(&self.spec.id) {
            // It was lost. Deaf jobs go on, and their results come late.
            None => {
                self.jobs.retain(|job| !job.hears);
                self.begin_anew();
                return;
            }
            Some((signals, _)) => signals
                .iter()
                .for_each(|signal| self.obey(signal, scene.now)),
        }
        self.ask(scene);
    }

    fn leave(&mut self, scene: &mut Scene<'_>) {
        match hear(&mut self.leaving) {
            Heard::Answer(_) => self.must_leave = false,
            Heard::Nothing | Heard::Error(_) => {}
        }
        if self.must_leave && self.leaving.is_none() && scene.wheel.is_some() {
            let (worker, reason) = (self.spec.id.clone(), "its thread ended".to_owned());
            let command = Command::WorkerLose {
                worker,
                session: None,
                reason,
            };
            self.leaving = Some(apply(scene.inbox, vec![command]));
        }
    }

    fn hear_all(&mut self, scene: &mut Scene<'_>) {
        match hear(&mut self.registering) {
            Heard::Nothing => {}
            Heard::Answer(_) => {
                self.registered = true;
                self.not_before = scene.now;
                if let Some(wheel) = &scene.wheel {
                    wheel.hearts().register(&self.spec, scene.now);
                }
            }
            Heard::Error(_) => self.not_before = scene.now.plus_ms(self.chance.between(50, 500)),
        }
        match hear(&mut self.working) {
            Heard::Nothing => {}
            Heard::Answer((answers, claimed)) => {
                let sent = std::mem::take(&mut self.sent_with_claim);
                accept(sent, answers, scene.told);
                claimed
                    .into_iter()
                    .flatten()
                    .for_each(|claimed| self.begin(claimed, scene));
            }
            Heard::Error(error) => {
                let sent = std::mem::take(&mut self.sent_with_claim);
                self.reports.splice(..0, sent);
                self.not_before = scene.now.plus_ms(self.chance.between(20, 300));
                // Nobody knows what was claimed: a careful worker begins anew, so that it all goes
                // back at once; a careless one lets it time out.
                let unknown = error.is_none_or(|error| error.code != Code::StoreFull);
                if unknown && !self.misbehaves(3) {
                    self.jobs.clear();
                    self.begin_anew();
                }
            }
        }
        match hear(&mut self.reporting) {
            Heard::Nothing => {}
            Heard::Answer(answers) => {
                accept(std::mem::take(&mut self.sent_alone), answers, scene.told);
            }
            Heard::Error(_) => {
                let sent = std::mem::take(&mut self.sent_alone);
                self.reports.splice(..0, sent);
            }
        }
    }

    /// Takes up a task. What comes of it is said by its input, so that it does not depend on who
    /// does it; mischief comes on top.
    fn begin(&mut self, claimed: Claimed, scene: &mut Scene<'_>) {
        let Claimed { lease, task } = claimed;
        let input = task.spec.input.value();
        let steps = input["steps"] == true;
        let Some(records) = records(steps.then_some(&*task), scene.wheel.as_deref_mut()) else {
            // The process died with the answer half made: nobody heard of this lease.
            return;
        };
        let (id, attempt) = (lease.task.to_string(), u64::from(lease.attempt));
        scene
            .told
            .push(Told::Lease(id, attempt, lease.worker.to_string()));
        let posts = steps && self.begin_steps(&lease, &records, scene.told);
        let says = match &input["says"] {
            Value::Null => json!({"did": input["label"]}),
            says => says.clone(),
        };
        let times = input["times"].as_u64().unwrap_or(1);
        let first = u64::from(task.failures) < times;
        let failure = Failure::new("sim.flaky", "not this time");
        let ending = match input["does"].as_str() {
            Some("flaky") if first => Ending::Failure(failure),
            Some("hang") if first => Ending::Never,
            Some("doomed") => Ending::Failure(failure),
            Some("broken") => Ending::Failure(Failure::permanent("sim.broken", "never")),
            // As long as it takes to give up once: a second life goes well.
            Some("stubborn") if lease.attempt == 1 => {
                Ending::Failure(Failure::permanent("sim.stubborn", "not in this life"))
            }
            Some("faulty") if first => Ending::Failure(Failure {
                worker_fault: true,
                ..failure
            }),
            _ => Ending::Result(Json::from_value(&says)),
        };
        let left = task
            .checkpoint
            .as_ref()
            .and_then(|left| left.value().as_u64());
        let mut ms = left.or(input["ms"].as_u64()).unwrap_or(30);
        let (mut ending, mut hears) = (ending, true);
        if self.misbehaves(12) {
            // Slow beyond its time, and it does not listen.
            (ms, hears) = (task.spec.timeout_ms + self.chance.between(1, 3_000), false);
        } else if self.misbehaves(12) {
            ending = Ending::Death;
        } else if self.misbehaves(12) {
            let ms = self.spec.lease_ms + self.chance.between(100, 3_000);
            self.silent_until = scene.now.plus_ms(ms);
            hears = false;
        }
        let until = match ending {
            Ending::Never => Time(u64::MAX),
            _ => scene.now.plus_ms(ms),
        };
        self.jobs.push(Job {
            lease,
            until,
            ending,
            hears,
            posts,
        });
    }

    /// Takes up a task's steps where earlier attempts left them: reads once, and says that it will
    /// post unless it finds that it was posted. What each attempt would make of a step differs, so
    /// that a step done twice shows. Whether it is to say that it has posted.
    fn begin_steps(
        &mut self,
        lease: &AttemptRef,
        records: &[Record],
        told: &mut Vec<Told>,
    ) -> bool {
        let known = |key: &str| {
            let record = records.iter().find(|record| record.key.as_str() == key);
            record.map(|record| &record.state)
        };
        let finished = records.iter().filter_map(|record| match &record.state {
            RecordState::Done { output } => Some((record.key.to_string(), output.value())),
            _ => None,
        });
        let (id, attempt) = (lease.task.to_string(), u64::from(lease.attempt));
        told.push(Told::Steps(id, attempt, finished.collect()));
        let read = known("read").is_some_and(|state| matches!(state, RecordState::Done { .. }));
        // A careless one does not look.
        if !read || self.misbehaves(2) {
            let report = step("read", EffectClass::Pure, done_by(lease.attempt));
            self.reports.push((lease.clone(), report));
        }
        let (says, posts) = match known("post") {
            Some(RecordState::Done { .. }) => return false,
            Some(RecordState::InDoubt) => (done_by(lease.attempt), false),
            _ => (RecordState::Intended, true),
        };
        let report = step("post", EffectClass::VerifyFirst, says);
        self.reports.push((lease.clone(), report));
        posts
    }

    fn work(&mut self, scene: &mut Scene<'_>) {
        let now = scene.now;
        let (mut done, open) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition::<Vec<Job>, _>(|job| job.until <= now);
        self.jobs = open;
        while let Some(job) = (!done.is_empty()).then(|| done.remove(0)) {
            let report = match job.ending {
                Ending::Result(output) => {
                    scene.effects.push(effect(&job.lease, now));
                    if job.posts {
                        let posted = done_by(job.lease.attempt);
                        let posted = step("post", EffectClass::VerifyFirst, posted);
                        self.reports.push((job.lease.clone(), posted));
                    }
                    Report::Completed { output }
                }
                Ending::Failure(failure) => Report::Failed { failure },
                Ending::Never => continue,
                Ending::Death => {
                    self.jobs.append(&mut done);
                    self.jobs.push(job);
                    return self.die(scene.effects, now);
                }
            };
            self.reports.push((job.lease, report));
        }
    }

    fn obey(&mut self, signal: &Signal, now: Time) {
        let at = |task: &TaskId, attempt: &u32, jobs: &[Job]| {
            let same = |job: &Job| job.lease.task == *task && job.lease.attempt == *attempt;
            jobs.iter().position(|job| same(job) && job.hears)
        };
        match signal {
            Signal::Stop { task, attempt, .. } => {
                if let Some(at) = at(task, attempt, &self.jobs) {
                    self.jobs.remove(at);
                }
            }
            Signal::Yield { task, attempt } => {
                if let Some(at) = at(task, attempt, &self.jobs) {
                    let job = self.jobs.remove(at);
                    let left = job.until.since_ms(now);
                    let reason = "more urgent work waits".to_owned();
                    let checkpoint =
                        matches!(job.ending, Ending::Result(_)).then(|| json!(left).into());
                    self.reports.push((
                        job.lease,
                        Report::Released {
                            reason,
                            checkpoint,
                            after_ms: 0,
                        },
                    ));
                }
            }
        }
    }

    /// Claims as long as there is room, and reports along with it, or alone while a claim waits.
    fn ask(&mut self, scene: &mut Scene<'_>) {
        let held = self.jobs.len() + self.sent_with_claim.len() + self.sent_alone.len();
        let free = self.spec.capacity.saturating_sub(held as u32);
        let wants = free > 0 || !self.reports.is_empty();
        if self.working.is_none() && self.not_before <= scene.now && wants {
            let (reply, answer) = channel();
            self.sent_with_claim = std::mem::take(&mut self.reports);
            let ops = commands(&self.sent_with_claim).map(Op::Command).collect();
            scene.inbox.push(Ask::Work {
                request: Request::own(ops),
                by: Claimant::new(self.spec.id.clone(), self.chance.one_in(2)),
                max: free,
                wait_ms: self.chance.between(0, 1_500),
                reply,
            });
            self.working = Some(answer);
            self.not_before = scene.now.plus_ms(self.chance.between(5, 60));
        } else if self.reporting.is_none() && !self.reports.is_empty() {
            self.sent_alone = std::mem::take(&mut self.reports);
            self.reporting = Some(apply(scene.inbox, commands(&self.sent_alone).collect()));
        }
    }
}

/// Reports on their way.
type Sent = Vec<(AttemptRef, Report)>;

fn commands(sent: &Sent) -> impl Iterator<Item = Command> + '_ {
    sent.iter().map(|(lease, report)| Command::TaskReport {
        lease: lease.clone(),
        report: report.clone(),
    })
}

/// Remembers which results were accepted.
fn accept(sent: Sent, answers: Vec<Answer>, told: &mut Vec<Told>) {
    for ((lease, report), answer) in sent.into_iter().zip(answers) {
        let accepted = matches!(answer, Answer::Outcome(Ok(_)));
        if accepted && matches!(report, Report::Completed { .. }) {
            let (task, worker) = (lease.task.to_string(), lease.worker.to_string());
            told.push(Told::Result(task, u64::from(lease.attempt), worker));
        }
    }
}

/// What became of a task's steps in earlier attempts, if it can be read.
fn records(task: Option<&Task>, wheel: Option<&mut Wheel>) -> Option<Vec<Record>> {
    let Some(task) = task else {
        return Some(Vec::new());
    };
    let store = wheel?.store();
    let mut records = task.records.clone();
    for key in ["read", "post"].map(Name::literal) {
        if let Some(Row::Record(kept)) = store.get(&Key::Record(task.id, key)).ok()? {
            let events = store.reader().ok()?.events(kept.position - 1, 1).ok()?;
            records.push(kept.read(events.first()?)?);
        }
    }
    Some(records)
}

fn step(key: &'static str, effect: EffectClass, state: RecordState) -> Report {
    Report::Recorded(NewRecord {
        key: Name::literal(key),
        effect,
        state,
        cost: None,
    })
}

fn done_by(attempt: u32) -> RecordState {
    RecordState::Done {
        output: json!({"by": attempt}).into(),
    }
}

fn effect(lease: &AttemptRef, now: Time) -> Effect {
    Effect {
        task: lease.task.to_string(),
        attempt: u64::from(lease.attempt),
        worker: lease.worker.to_string(),
        at: now.0,
    }
}
