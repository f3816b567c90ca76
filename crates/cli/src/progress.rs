//! Live progress: on a terminal a line per worker and a bar, otherwise plain lines. Always on
//! standard error, so that standard output is the result alone.

use crate::agents;
use crate::backup::now;
use crate::output::{Output, counted, cut, duration, say};
use crate::reach::is_away;
use crate::speech::{Late, Spoken};
use domain::demand::Lack;
use domain::error::Error;
use domain::event::Event;
use domain::graph::StepKind;
use domain::id::{RunId, TaskId};
use domain::name::Name;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use protocol::ApiRead;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to sleep when nothing happens.
const SLEEP: Duration = Duration::from_millis(500);

/// Between two looks at what agents say.
const REDRAW: Duration = Duration::from_millis(100);

/// Between two lines about answers that are late: what a provider says again and again is told now and
/// then.
const LATE_EVERY: Duration = Duration::from_secs(10);

/// To be asked a little later is how a provider's pace is kept, and no news.
const LATENESS_MIN: Duration = Duration::from_secs(2);

/// Where a task's input comes from, for the line of its worker.
type Labels = HashMap<TaskId, String>;

/// What was there of some runs before anybody looked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Before {
    /// Tasks.
    pub(crate) submitted: u64,
    /// Of those, what was done.
    pub(crate) completed: u64,
}

/// Shows what happens in these runs until they have ended.
pub(crate) async fn follow(
    api: Arc<dyn ApiRead>,
    runs: Vec<RunId>,
    after: u64,
    total: u64,
    before: Before,
    output: Output,
) {
    let live = std::io::stderr().is_terminal();
    if output == Output::Json && !live {
        return;
    }
    let mut view = if live {
        View::live(total, before)
    } else {
        View::plain(total, before)
    };
    let mut position = after;
    let mut open: BTreeSet<RunId> = runs.iter().copied().collect();
    let _listening = view.spoken.listen(&api, &runs);
    loop {
        let events = match api.event_list(position, 1_000).await {
            Ok(events) => events,
            Err(error) if is_away(&*api, &error) => {
                // Whoever waits for the runs says so, and gives up when it is too long.
                tokio::time::sleep(SLEEP).await;
                continue;
            }
            Err(_) => return,
        };
        for recorded in &events {
            position = recorded.position;
            if recorded.event.run().is_none_or(|run| runs.contains(&run)) {
                view.name(&*api, &recorded.event).await;
                view.show(&recorded.event);
            }
            match &recorded.event {
                Event::RunCompleted { run, .. }
                | Event::RunFailed { run, .. }
                | Event::RunCancelled { run, .. } => drop(open.remove(run)),
                Event::RunReopened { run } if runs.contains(run) => drop(open.insert(*run)),
                _ => {}
            }
        }
        view.tick();
        if open.is_empty() {
            return;
        }
        view.tell_lateness(&*api).await;
        if events.is_empty()
            && let Err(error) = view.wait(&*api, position).await
            && !is_away(&*api, &error)
        {
            return;
        }
    }
}

/// What is shown, and on what.
struct View {
    since: Instant,
    before: Before,
    total: u64,
    submitted: u64,
    completed: u64,
    failed: u64,
    labels: Labels,
    workers: BTreeMap<Name, Line>,
    spoken: Spoken,
    /// When it was last told why an answer is late.
    lateness_told: Option<Instant>,
    live: Option<Live>,
}

struct Live {
    all: MultiProgress,
    bar: ProgressBar,
}

#[derive(Default)]
struct Line {
    done: u64,
    now: Option<TaskId>,
    bar: Option<ProgressBar>,
}

impl View {
    fn plain(total: u64, before: Before) -> Self {
        Self {
            since: Instant::now(),
            before,
            total,
            submitted: before.submitted,
            completed: before.completed,
            failed: 0,
            labels: Labels::new(),
            workers: BTreeMap::new(),
            spoken: Spoken::default(),
            lateness_told: None,
            live: None,
        }
    }

    fn live(total: u64, before: Before) -> Self {
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new(total));
        let template = "  {bar:30} {pos}/{len} done · {msg} · {elapsed_precise}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉ "));
        }
        bar.set_message("0 failed");
        let mut view = Self::plain(total, before);
        view.live = Some(Live { all, bar });
        view
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::TaskSubmitted { task, spec, .. } => {
                // A plan that is made on the way has more tasks than anybody knew.
                self.submitted += 1;
                self.total = self.total.max(self.submitted);
                if let Some(live) = &self.live {
                    live.bar.set_length(self.total);
                }
                let label = agents::label(spec.kind.as_str(), &spec.input.value());
                self.labels
                    .insert(*task, label.unwrap_or_else(|| task.to_string()));
            }
            Event::TaskAssigned { lease, .. } => self.line(&lease.worker, Some(lease.task), 0),
            Event::TaskCompleted { lease, ran_ms, .. } => {
                self.completed += 1;
                let label = self.label(lease.task);
                self.say(&format!(
                    "completed {label} by {} in {}",
                    lease.worker,
                    duration(*ran_ms)
                ));
                self.line(&lease.worker, None, 1);
            }
            Event::AttemptEnded {
                lease,
                failure,
                retry_at,
                ..
            } => {
                if failure.code == "attempt.deferred" {
                    self.line(&lease.worker, None, 0);
                    let (task, message) = (lease.task, cut(&failure.message, 500));
                    if message.starts_with("waits for a person") {
                        let label = self.label(task);
                        self.note(&format!("{label} {message}"));
                        if message.starts_with("waits for a person's yes") {
                            self.note(&format!("say it with `chargehand approvals yes {task}`"));
                        }
                        self.note("  from elsewhere, where a server has the store; or else Ctrl-C first, and `chargehand resume` after");
                    } else if let Some(at) = retry_at {
                        let wait = Duration::from_millis(at.since_ms(now()));
                        if wait >= LATENESS_MIN {
                            let next = format!("{message}; next try in {} s", wait.as_secs());
                            self.spoken.is_late(task, &next);
                        }
                    }
                    return;
                }
                let again = if retry_at.is_some() {
                    ", will be tried again"
                } else {
                    ""
                };
                let label = self.label(lease.task);
                let message = cut(&failure.message, 160);
                self.note(&format!(
                    "{} {label} at {}: {message}{again}",
                    failure.code, lease.worker
                ));
                self.line(&lease.worker, None, 0);
            }
            Event::TaskFailed { task, failure, .. } => {
                self.failed += 1;
                // The attempt that ended before it has told the whole message.
                let (label, code) = (self.label(*task), &failure.code);
                self.note(&format!("failed {label} for good: {code}"));
            }
            Event::TaskCancelled {
                lease: Some(lease), ..
            } => self.line(&lease.worker, None, 0),
            Event::WorkerLost { worker, .. } => self.line(worker, None, 0),
            Event::BudgetWarned { .. } => {
                self.note("most of the budget is spent; see `chargehand runs show`");
            }
            Event::ToolMissed { miss, .. } if miss.lack == Lack::Unavailable => {
                let tool = &miss.tool;
                self.note(&format!(
                    "{tool} cannot be called now; `chargehand tools list --crew FILE` says why"
                ));
            }
            Event::TaskRedriven { .. } => self.failed = self.failed.saturating_sub(1),
            _ => {}
        }
    }

    /// A task that was submitted before anybody looked has a name, too.
    async fn name(&mut self, api: &dyn ApiRead, event: &Event) {
        let task = match event {
            Event::TaskAssigned { lease, .. }
            | Event::TaskCompleted { lease, .. }
            | Event::AttemptEnded { lease, .. } => lease.task,
            Event::TaskFailed { task, .. } => *task,
            _ => return,
        };
        if self.labels.contains_key(&task) {
            return;
        }
        // Where it cannot be read it is called by its id.
        let read = api.task_get(task).await.ok();
        let label = read.and_then(|task| agents::label(task.kind.as_str(), &task.input.value()));
        let label = label.unwrap_or_else(|| task.to_string());
        self.labels.insert(task, label);
    }

    /// Until there may be another event, showing meanwhile what agents say.
    async fn wait(&self, api: &dyn ApiRead, position: u64) -> Result<(), Error> {
        let event = api.event_wait(position, SLEEP);
        tokio::pin!(event);
        loop {
            tokio::select! {
                waited = &mut event => return waited.map(drop),
                () = self.spoken.news() => {
                    self.tick();
                    // However fast they speak, nobody reads faster.
                    tokio::time::sleep(REDRAW).await;
                }
            }
        }
    }

    /// Says why an answer is late, now and then, and until when it is waited for.
    async fn tell_lateness(&mut self, api: &dyn ApiRead) {
        if self
            .lateness_told
            .is_some_and(|told| told.elapsed() < LATE_EVERY)
        {
            return;
        }
        let Some(Late { task, why, heard }) = self.spoken.late() else {
            return;
        };
        self.lateness_told = Some(Instant::now());
        let ago = match heard.elapsed().as_secs() {
            0 | 1 => String::new(),
            seconds => format!(" ({seconds} s ago)"),
        };
        let bound = bound(api, task).await.unwrap_or_default();
        let (label, why) = (self.label(task), cut(&why, 400));
        self.note(&format!("no answer yet for {label}: {why}{ago}{bound}"));
    }

    fn label(&self, task: TaskId) -> String {
        self.labels
            .get(&task)
            .cloned()
            .unwrap_or_else(|| task.to_string())
    }

    /// A plain line, where there are no live ones.
    fn say(&self, text: &str) {
        if self.live.is_none() {
            say(&format!("  {}/{} {text}", self.completed, self.total));
        }
    }

    /// A line that is worth seeing either way.
    fn note(&self, text: &str) {
        match &self.live {
            Some(live) => drop(live.all.println(format!("  {text}"))),
            None => self.say(text),
        }
    }

    fn line(&mut self, worker: &Name, now: Option<TaskId>, done: u64) {
        let line = self.workers.entry(worker.clone()).or_default();
        line.done += done;
        if let Some(before) = std::mem::replace(&mut line.now, now) {
            self.spoken.forget(before);
        }
        if let Some(live) = &self.live {
            line.bar.get_or_insert_with(|| {
                let bar = live
                    .all
                    .insert_before(&live.bar, ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("  {wide_msg}") {
                    bar.set_style(style);
                }
                bar
            });
        }
    }

    fn tick(&self) {
        let Some(live) = &self.live else { return };
        for (worker, line) in &self.workers {
            let now = line.now.map_or_else(
                || "idle".to_owned(),
                |task| self.spoken.line(task).unwrap_or_else(|| self.label(task)),
            );
            if let Some(bar) = &line.bar {
                bar.set_message(format!(
                    "{worker:<12} {:>5} done  {}",
                    line.done,
                    cut(&now, 60)
                ));
            }
        }
        live.bar.set_position(self.completed);
        live.bar.set_message(format!("{} failed", self.failed));
        live.bar.tick();
    }
}

/// What ends the waiting for an answer: the task's attempts, and the run's time.
async fn bound(api: &dyn ApiRead, task: TaskId) -> Option<String> {
    let task = api.task_get(task).await.ok()?;
    let run = api.run_get(task.run_id?).await.ok()?;
    let steps = run.plan.steps.iter();
    let step = steps.filter(|step| task.step.as_ref() == Some(&step.id));
    let attempts = step.filter_map(|step| match &step.kind {
        StepKind::Task(template) => Some(template.retry.attempts),
        StepKind::Each(each) => Some(each.task.retry.attempts),
        StepKind::Gate(_) => None,
    });
    let attempts = attempts.map(|n| counted(n as usize, "attempt")).next();
    let until = run.account.and_then(|account| account.until());
    let left = until.map(|until| {
        let left = duration(until.since_ms(now()));
        format!("{left}, when the run's time is over")
    });
    let bounds: Vec<String> = [attempts, left].into_iter().flatten().collect();
    Some(format!("; at most {}", bounds.join(" or ")))
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            let _ = live.all.clear();
        }
        let ms = self.since.elapsed().as_millis() as u64;
        let (completed, failed) = (self.completed, self.failed);
        let before = match self.before.completed {
            0 => String::new(),
            before => format!(" ({before} of them before)"),
        };
        say(&format!(
            "  {completed} completed{before} · {failed} failed · {}",
            duration(ms)
        ));
    }
}
