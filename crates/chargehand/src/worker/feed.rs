//! How a worker elsewhere is fed: one claim at a time, for as many tasks as there is room for.
//!
//! While there is room, one claim waits at the server. What ended meanwhile is told at once, in a
//! request beside it; when nothing waits (all room was taken), it is told along with the next claim,
//! in one request. What was told stays here until it was answered: a report survives a broken
//! connection and a restart of the server, and is dropped when it was refused, because the task went
//! on without this attempt. A claim whose answer was lost is made again under its number, and gives
//! the same tasks.

use crate::worker::crew::{Crew, Outcome};
use crate::worker::{PAUSE_MS, WAIT_MS};
use domain::command::Report;
use domain::error::{Code, Error};
use domain::task::Failure;
use protocol::api::{Claim, Work, Worked};
use protocol::v1::Assignment;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes of outputs told in one request; one that is larger goes alone.
const REPORTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Between two claims that nobody lets wait.
const BREATH: Duration = Duration::from_millis(100);

type Answer = Pin<Box<dyn Future<Output = Result<Worked, Error>> + Send>>;

/// A request under way.
struct Asked {
    reports: Vec<Outcome>,
    /// It waits at the server until there is a task.
    waits: bool,
    at: Instant,
    answer: Answer,
}

/// An answered request.
struct Heard {
    reports: Vec<Outcome>,
    /// It was to wait, and did not.
    is_early: bool,
    answer: Result<Worked, Error>,
}

/// Resolves when the request, if there is one, is answered; it is under way no more.
async fn answered(asked: &mut Option<Asked>) -> Heard {
    let Some(under_way) = asked else {
        return std::future::pending().await;
    };
    let answer = under_way.answer.as_mut().await;
    let is_early = under_way.waits && under_way.at.elapsed() < BREATH;
    let reports = asked.take().map(|asked| asked.reports);
    Heard {
        reports: reports.unwrap_or_default(),
        is_early,
        answer,
    }
}

/// One worker's way to the server.
pub(super) struct Feed {
    crew: Arc<Crew>,
    attempts: JoinSet<Outcome>,
    /// Told to nobody yet, or to nobody who answered.
    outbox: VecDeque<Outcome>,
    claiming: Option<Asked>,
    /// Reports beside a claim that waits.
    telling: Option<Asked>,
    /// The next claim's number.
    number: u64,
    /// The claim of this number was made, and not answered.
    again: bool,
    /// Reports go one by one until one was answered: together they were too large.
    singly: bool,
    pause_ms: u64,
    /// Nothing is asked before.
    not_before: Option<Instant>,
    /// It takes nothing new.
    is_leaving: bool,
    /// When it stops trying to tell what is left.
    gives_up: Option<Instant>,
}

impl Feed {
    pub(super) fn new(crew: Arc<Crew>) -> Self {
        Self {
            crew,
            attempts: JoinSet::new(),
            outbox: VecDeque::new(),
            claiming: None,
            telling: None,
            number: 1,
            again: false,
            singly: false,
            pause_ms: PAUSE_MS.start,
            not_before: None,
            is_leaving: false,
            gives_up: None,
        }
    }

    /// Until the worker stops, is dismissed or superseded.
    pub(super) async fn run(mut self) {
        let mut stopping = self.crew.stopping.clone();
        loop {
            self.say();
            if self.is_done() {
                return;
            }
            tokio::select! {
                Some(ended) = self.attempts.join_next() => {
                    // Only this worker's own end ends a runner before its handler.
                    self.outbox.extend(ended.ok());
                    while let Some(ended) = self.attempts.try_join_next() {
                        self.outbox.extend(ended.ok());
                    }
                }
                heard = answered(&mut self.claiming) => {
                    self.again = heard.answer.is_err();
                    if heard.answer.is_ok() {
                        self.number += 1;
                    }
                    if self.hear(heard).await {
                        return;
                    }
                }
                heard = answered(&mut self.telling) => {
                    if self.hear(heard).await {
                        return;
                    }
                }
                () = stops(&mut stopping), if self.gives_up.is_none() => self.leave(),
                () = at(self.not_before) => self.not_before = None,
                () = at(self.gives_up) => return,
            }
        }
    }

    /// Says whatever may be said now.
    fn say(&mut self) {
        if self.not_before.is_some() {
            return;
        }
        if self.claiming.is_none() && !self.is_leaving {
            let reports = match self.telling {
                None => self.next_reports(),
                Some(_) => Vec::new(),
            };
            // Told in the same request, a report makes room; told beside it, not yet.
            let beside = self.telling.as_ref().map_or(0, |asked| asked.reports.len());
            let held = self.attempts.len() + self.outbox.len() + beside;
            let room = self.crew.spec.capacity.saturating_sub(held as u32);
            if room > 0 {
                self.claiming = Some(self.claim(room, reports));
            } else if !reports.is_empty() {
                self.telling = Some(self.ask(reports, None));
            }
        }
        let is_free = self.claiming.as_ref().is_none_or(|asked| asked.waits);
        if self.telling.is_none() && !self.outbox.is_empty() && is_free {
            let reports = self.next_reports();
            self.telling = Some(self.ask(reports, None));
        }
    }

    fn claim(&self, room: u32, reports: Vec<Outcome>) -> Asked {
        // With something to tell it does not wait: the answer would come with the next task.
        let wait_ms = if reports.is_empty() { WAIT_MS } else { 0 };
        let claim = Claim {
            key: Some(self.number),
            again: self.again,
            ..Claim::new(room, wait_ms)
        };
        self.ask(reports, Some(claim))
    }

    fn ask(&self, reports: Vec<Outcome>, claim: Option<Claim>) -> Asked {
        let work = Work {
            worker: self.crew.spec.id.clone(),
            session: Some(self.crew.spec.session),
            reports: reports.clone(),
            claim,
        };
        let api = Arc::clone(&self.crew.api);
        Asked {
            reports,
            waits: claim.is_some_and(|claim| claim.wait_ms > 0),
            at: Instant::now(),
            answer: Box::pin(async move { api.work(work).await }),
        }
    }

    /// The oldest reports that one request takes.
    fn next_reports(&mut self) -> Vec<Outcome> {
        let count_max = if self.singly { 1 } else { usize::MAX };
        let (mut count, mut bytes) = (0, 0);
        for (_, _, report) in self.outbox.iter().take(count_max) {
            bytes += size(report);
            if count > 0 && bytes > REPORTS_BYTES_MAX {
                break;
            }
            count += 1;
        }
        self.outbox.drain(..count).collect()
    }

    /// Takes an answer. Whether that was the end.
    async fn hear(&mut self, heard: Heard) -> bool {
        let refused = match heard.answer {
            Ok(worked) => {
                self.singly = false;
                if heard.is_early && worked.tasks.is_empty() {
                    // A server that is about to stop sends home whoever waits.
                    self.not_before = Some(Instant::now() + BREATH);
                }
                worked.tasks.into_iter().for_each(|task| self.begin(task));
                worked.refused
            }
            Err(error) => {
                self.keep(heard.reports, &error);
                Some(error)
            }
        };
        let Some(error) = refused else {
            self.pause_ms = PAUSE_MS.start;
            return false;
        };
        if error.code == Code::WorkerSuperseded {
            return true;
        }
        // One that is being drained finishes what it has.
        self.is_leaving |= self.crew.is_dismissed(&error).await;
        self.not_before = Some(Instant::now() + Duration::from_millis(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS.end);
        false
    }

    /// Nobody answered these: they are told again, in a form that can be taken.
    fn keep(&mut self, mut reports: Vec<Outcome>, error: &Error) {
        if error.code == Code::PayloadTooLarge {
            self.singly = true;
            if let [(_, _, report)] = &mut reports[..] {
                // As it is, the server will never take it; the task must not hang in its lease.
                let failure = Failure::permanent(error.code.as_str(), error.message.clone());
                *report = Report::Failed { failure };
            }
        }
        reports
            .into_iter()
            .rev()
            .for_each(|report| self.outbox.push_front(report));
    }

    fn begin(&mut self, task: Assignment) {
        if !self.crew.runs(task.task_id, task.attempt) {
            let crew = Arc::clone(&self.crew);
            self.attempts.spawn(async move { crew.attempt(task).await });
        }
    }

    /// The worker stops: its handlers yield. A claim that waits is let go; should it have been
    /// answered in this moment, the good-bye gives its tasks back.
    fn leave(&mut self) {
        self.is_leaving = true;
        self.gives_up = Some(Instant::now() + Duration::from_millis(self.crew.spec.lease_ms));
        if self.claiming.as_ref().is_some_and(|asked| asked.waits) {
            self.claiming = None;
        }
    }

    fn is_done(&self) -> bool {
        self.is_leaving
            && self.attempts.is_empty()
            && self.outbox.is_empty()
            && self.claiming.is_none()
            && self.telling.is_none()
    }
}

async fn stops(stopping: &mut watch::Receiver<bool>) {
    // Without anybody to say so, it is stopped too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// About the bytes of a report.
fn size(report: &Report) -> usize {
    match report {
        Report::Completed { output } => output.bytes(),
        Report::Failed { failure } => failure.message.len(),
        Report::Released { checkpoint, .. } => checkpoint.as_ref().map_or(0, |json| json.bytes()),
        Report::Extended { .. }
        | Report::Recorded(_)
        | Report::Started
        | Report::Progressed { .. } => 0,
    }
}
