//! From events to spans.
//!
//! An event that ends something has nearly all that its span needs. The rest (when it was submitted,
//! in whose trace) is remembered from earlier events, as far as memory is set aside for that, and
//! otherwise read from the row.

use domain::attempt::{AttemptEnd, Failure};
use domain::event::{AttemptRef, Event, Recorded, StepEnd, Ties};
use domain::id::{RunId, TaskId};
use domain::name::Name;
use domain::time::Time;
use domain::trace::{Lineage, SpanOf, TraceParent};
use engine::Engine;
use opentelemetry::trace::{
    Event as Note, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Open tasks, and open runs, that are remembered.
const REMEMBERED_MAX: usize = 16_384;
/// Notes (what was told meanwhile) of one span; the newest are kept.
const NOTES_MAX: usize = 128;
/// Notes of all open tasks and runs of a tenant.
const ALL_NOTES_MAX: usize = 16_384;
/// Bytes of text in a note, and in why something failed.
const TEXT_BYTES_MAX: usize = 256;

/// What was told of an open task or run.
#[derive(Debug, Default)]
struct Notes {
    kept: VecDeque<Told>,
    dropped: u32,
}

/// One thing that was told.
#[derive(Debug)]
struct Told {
    at: Time,
    what: &'static str,
    /// How far an attempt is.
    fraction: Option<f64>,
    /// In words.
    text: Box<str>,
    /// The step of a run, and what became of it.
    step: Option<(Name, Option<&'static str>)>,
}

/// What is remembered of an open task.
#[derive(Debug)]
struct OpenTask {
    submitted_at: Time,
    trace: Option<TraceParent>,
    /// When the newest attempt began.
    leased_at: Time,
    /// Of the newest attempt.
    notes: Notes,
    /// Since when it goes on again after its end, by which event.
    again: Option<(Time, u64)>,
}

/// What is remembered of an open run.
#[derive(Debug)]
struct OpenRun {
    started_at: Time,
    trace: Option<TraceParent>,
    supervisor: Name,
    notes: Notes,
    again: Option<(Time, u64)>,
}

/// The spans of one tenant's log, an event after the other.
pub(super) struct Trail {
    engine: Engine,
    tenant: String,
    scope: InstrumentationScope,
    tasks: HashMap<TaskId, OpenTask>,
    runs: HashMap<RunId, OpenRun>,
    /// Notes in both.
    notes: usize,
}

/// How something ended.
struct End<'a> {
    outcome: &'static str,
    /// Set when that is bad.
    failure: Option<&'a Failure>,
}

impl End<'_> {
    const COMPLETED: Self = End {
        outcome: "completed",
        failure: None,
    };
    const CANCELLED: Self = End {
        outcome: "cancelled",
        failure: None,
    };
}

fn instant(at: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

fn text(key: &'static str, value: impl ToString) -> KeyValue {
    KeyValue::new(key, value.to_string())
}

fn number(key: &'static str, value: u32) -> KeyValue {
    KeyValue::new(key, i64::from(value))
}

impl Told {
    fn new(at: Time, what: &'static str) -> Self {
        Self {
            at,
            what,
            fraction: None,
            text: "".into(),
            step: None,
        }
    }

    fn of_step(at: Time, what: &'static str, step: &Name, end: Option<&'static str>) -> Self {
        Self {
            step: Some((step.clone(), end)),
            ..Self::new(at, what)
        }
    }

    fn note(self) -> Note {
        let mut attributes = Vec::new();
        attributes.extend(
            self.fraction
                .map(|fraction| KeyValue::new("chargehand.fraction", fraction)),
        );
        if !self.text.is_empty() {
            attributes.push(text("chargehand.note", self.text));
        }
        if let Some((step, end)) = self.step {
            attributes.push(text("chargehand.step", step));
            attributes.extend(end.map(|end| KeyValue::new("chargehand.outcome", end)));
        }
        Note::new(self.what, instant(self.at), attributes, 0)
    }
}

impl Trail {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            tenant: engine.tenant().to_string(),
            engine,
            scope: InstrumentationScope::builder("chargehand")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            tasks: HashMap::new(),
            runs: HashMap::new(),
            notes: 0,
        }
    }

    /// The spans that end with this event.
    pub(super) async fn fold(&mut self, recorded: &Recorded) -> Vec<SpanData> {
        let at = recorded.at;
        match &recorded.event {
            Event::TaskSubmitted { task, spec, .. } => {
                let open = OpenTask {
                    submitted_at: at,
                    trace: spec.trace,
                    leased_at: at,
                    notes: Notes::default(),
                    again: None,
                };
                self.keep_task(*task, open);
            }
            Event::TaskAssigned { lease, .. } => {
                if let Some(open) = self.tasks.get_mut(&lease.task) {
                    open.leased_at = at;
                    self.notes -= open.notes.kept.len();
                    open.notes = Notes::default();
                }
            }
            Event::TaskProgressed {
                lease,
                fraction,
                note,
                ..
            } => {
                let told = Told {
                    fraction: *fraction,
                    text: cut(note).into(),
                    ..Told::new(at, "progress")
                };
                self.tell_task(lease, told).await;
            }
            Event::TaskYieldAsked { lease, .. } => {
                self.tell_task(lease, Told::new(at, "yield asked")).await;
            }
            Event::TaskCompleted {
                lease,
                ties,
                ran_ms,
                ..
            } => {
                let since = Time(at.0.saturating_sub(*ran_ms));
                let end = End {
                    outcome: "succeeded",
                    failure: None,
                };
                let Some(mut open) = self.recall_task(lease.task, Some(lease), at).await else {
                    return Vec::new();
                };
                let attempt = self.attempt(&mut open, lease, ties, since, at, &end);
                let task = self.task(open, lease.task, ties, at, &End::COMPLETED);
                return attempt.into_iter().chain(task).collect();
            }
            Event::AttemptEnded {
                lease,
                ties,
                end,
                failure,
                ran_ms,
                ..
            } => {
                let since = Time(at.0.saturating_sub(*ran_ms));
                let end = match end {
                    AttemptEnd::Cancelled => End::CANCELLED,
                    AttemptEnd::Failed => End::bad("failed", failure),
                    AttemptEnd::TimedOut => End::bad("timed_out", failure),
                    AttemptEnd::Lost => End::bad("lost", failure),
                };
                let Some(mut open) = self.recall_task(lease.task, Some(lease), at).await else {
                    return Vec::new();
                };
                let attempt = self.attempt(&mut open, lease, ties, since, at, &end);
                self.keep_task(lease.task, open);
                return attempt.into_iter().collect();
            }
            Event::TaskFailed {
                task,
                ties,
                failure,
                ..
            } => {
                let Some(open) = self.recall_task(*task, None, at).await else {
                    return Vec::new();
                };
                let end = End::bad("failed", failure);
                return self.task(open, *task, ties, at, &end).into_iter().collect();
            }
            Event::TaskCancelled {
                task, ties, lease, ..
            } => {
                let Some(mut open) = self.recall_task(*task, lease.as_ref(), at).await else {
                    return Vec::new();
                };
                let since = open.leased_at;
                let attempt = lease.as_ref().and_then(|lease| {
                    self.attempt(&mut open, lease, ties, since, at, &End::CANCELLED)
                });
                let task = self.task(open, *task, ties, at, &End::CANCELLED);
                return attempt.into_iter().chain(task).collect();
            }
            Event::TaskRedriven { task, .. } => {
                if let Some(mut open) = self.recall_task(*task, None, at).await {
                    open.again = Some((at, recorded.position));
                    self.keep_task(*task, open);
                }
            }
            Event::RunStarted {
                run,
                supervisor,
                trace,
                ..
            } => {
                let open = OpenRun {
                    started_at: at,
                    trace: *trace,
                    supervisor: supervisor.clone(),
                    notes: Notes::default(),
                    again: None,
                };
                self.keep_run(*run, open);
            }
            Event::StepStarted { run, step, .. } => {
                self.tell_run(*run, Told::of_step(at, "step started", step, None));
            }
            Event::StepEnded { run, step, end, .. } => {
                let end = match end {
                    StepEnd::Done => "done",
                    StepEnd::Failed => "failed",
                    StepEnd::Skipped => "skipped",
                };
                self.tell_run(*run, Told::of_step(at, "step ended", step, Some(end)));
            }
            Event::GateAwaitsSupervisor { run, step, .. } => {
                let told = Told::of_step(at, "gate awaits the supervisor", step, None);
                self.tell_run(*run, told);
            }
            Event::RunCompleted { run, .. } => return self.run(*run, at, &End::COMPLETED).await,
            Event::RunFailed { run, failure, .. } => {
                return self.run(*run, at, &End::bad("failed", failure)).await;
            }
            Event::RunCancelled { run, .. } => return self.run(*run, at, &End::CANCELLED).await,
            Event::RunReopened { run } => {
                if let Some(mut open) = self.recall_run(*run).await {
                    open.again = Some((at, recorded.position));
                    self.keep_run(*run, open);
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn attempt(
        &self,
        open: &mut OpenTask,
        lease: &AttemptRef,
        ties: &Ties,
        since: Time,
        at: Time,
        end: &End<'_>,
    ) -> Option<SpanData> {
        let lineage = open.lineage(lease.task, ties);
        let notes = std::mem::take(&mut open.notes);
        let name = format!("attempt {}", ties.kind);
        let span = lineage.attempt(lease.attempt);
        let mut span = self.span(span, Some(lineage.of_task()), name, since, at, end, notes)?;
        self.describe(&mut span, lease.task, ties);
        span.attributes.extend([
            text("chargehand.worker", &lease.worker),
            number("chargehand.attempt", lease.attempt),
        ]);
        Some(span)
    }

    fn task(
        &self,
        open: OpenTask,
        task: TaskId,
        ties: &Ties,
        at: Time,
        end: &End<'_>,
    ) -> Option<SpanData> {
        let lineage = open.lineage(task, ties);
        let whole = (lineage.of_task(), lineage.parent(), open.submitted_at);
        let (span, parent, since) = again(task.0, whole, open.again);
        let name = format!("task {}", ties.kind);
        let mut span = self.span(span, parent, name, since, at, end, Notes::default())?;
        // A task of a run hangs below what this server sends itself.
        span.parent_span_is_remote = parent.is_some() && ties.of.is_none() && open.again.is_none();
        self.describe(&mut span, task, ties);
        Some(span)
    }

    async fn run(&mut self, run: RunId, at: Time, end: &End<'_>) -> Vec<SpanData> {
        let Some(open) = self.recall_run(run).await else {
            return Vec::new();
        };
        let whole = TraceParent::derived(run.0, SpanOf::Run, open.trace);
        let whole = (whole, open.trace, open.started_at);
        let (span, parent, since) = again(run.0, whole, open.again);
        let span = self.span(span, parent, "run".into(), since, at, end, open.notes);
        let complete = |mut span: SpanData| {
            span.parent_span_is_remote = parent.is_some() && open.again.is_none();
            span.attributes.extend([
                text("chargehand.run.id", run),
                text("chargehand.supervisor", &open.supervisor),
            ]);
            span
        };
        span.map(complete).into_iter().collect()
    }

    /// A span, unless whoever began its trace does not record it.
    #[expect(clippy::too_many_arguments, reason = "a span has that many parts")]
    fn span(
        &self,
        span: TraceParent,
        parent: Option<TraceParent>,
        name: String,
        since: Time,
        until: Time,
        end: &End<'_>,
        notes: Notes,
    ) -> Option<SpanData> {
        if !span.sampled {
            return None;
        }
        let mut attributes = vec![
            text("chargehand.tenant", &self.tenant),
            KeyValue::new("chargehand.outcome", end.outcome),
        ];
        let status = match end.failure {
            None => Status::Unset,
            Some(failure) => {
                attributes.push(text("error.type", cut(&failure.code)));
                Status::error(cut(&failure.message).to_owned())
            }
        };
        let mut events = SpanEvents::default();
        events.dropped_count = notes.dropped;
        events.events = notes.kept.into_iter().map(Told::note).collect();
        Some(SpanData {
            span_context: SpanContext::new(
                TraceId::from(span.trace),
                SpanId::from(span.span),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span)),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: instant(since.min(until)),
            end_time: instant(until),
            attributes,
            dropped_attributes_count: 0,
            events,
            links: Default::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        })
    }

    fn describe(&self, span: &mut SpanData, task: TaskId, ties: &Ties) {
        span.attributes.extend([
            text("chargehand.task.id", task),
            text("chargehand.task.kind", &ties.kind),
            text("chargehand.queue", &ties.queue),
        ]);
        if let Some(of) = &ties.of {
            span.attributes.extend([
                text("chargehand.run.id", of.run),
                text("chargehand.step", &of.step),
                number("chargehand.item", of.item),
            ]);
        }
    }

    fn keep_task(&mut self, task: TaskId, open: OpenTask) {
        if self.tasks.len() < REMEMBERED_MAX {
            self.notes += open.notes.kept.len();
            self.tasks.insert(task, open);
        }
    }

    fn keep_run(&mut self, run: RunId, open: OpenRun) {
        if self.runs.len() < REMEMBERED_MAX {
            self.notes += open.notes.kept.len();
            self.runs.insert(run, open);
        }
    }

    /// Takes out what is remembered of a task, or reads its row. The row may be ahead of the event:
    /// only what no later event changes is taken from it.
    async fn recall_task(
        &mut self,
        task: TaskId,
        lease: Option<&AttemptRef>,
        at: Time,
    ) -> Option<OpenTask> {
        if let Some(open) = self.tasks.remove(&task) {
            self.notes -= open.notes.kept.len();
            return Some(open);
        }
        let row = self.engine.task(task).await.ok()?;
        let of = |attempt: u32| lease.is_some_and(|lease| lease.attempt == attempt);
        let held = row.lease().filter(|held| of(held.attempt));
        let ended = row.ended.iter().find(|ended| of(ended.attempt));
        let leased_at = held
            .map(|held| held.since)
            .or_else(|| ended.map(|ended| Time(ended.ended_at.0.saturating_sub(ended.ran_ms))));
        let mut notes = Notes::default();
        if let Some(told) = &row.progress
            && of(told.attempt)
            && told.at < at
        {
            notes.kept.push_back(Told {
                fraction: told.fraction,
                text: cut(&told.note).into(),
                ..Told::new(told.at, "progress")
            });
        }
        Some(OpenTask {
            submitted_at: row.submitted_at,
            trace: row.spec.trace,
            leased_at: leased_at.unwrap_or(at),
            notes,
            again: None,
        })
    }

    async fn recall_run(&mut self, run: RunId) -> Option<OpenRun> {
        if let Some(open) = self.runs.remove(&run) {
            self.notes -= open.notes.kept.len();
            return Some(open);
        }
        let row = self.engine.run(run).await.ok()?;
        Some(OpenRun {
            started_at: row.created_at,
            trace: row.trace,
            supervisor: row.supervisor.clone(),
            notes: Notes::default(),
            again: None,
        })
    }

    async fn tell_task(&mut self, lease: &AttemptRef, told: Told) {
        if let Some(mut open) = self.recall_task(lease.task, Some(lease), told.at).await {
            open.notes.tell(told, self.notes);
            self.keep_task(lease.task, open);
        }
    }

    /// Of a run that is not remembered, the row does not know when its steps began either.
    fn tell_run(&mut self, run: RunId, told: Told) {
        if let Some(open) = self.runs.get_mut(&run) {
            let before = open.notes.kept.len();
            open.notes.tell(told, self.notes - before);
            self.notes = self.notes - before + open.notes.kept.len();
        }
    }
}

impl Notes {
    /// `others`: notes that are kept elsewhere.
    fn tell(&mut self, told: Told, others: usize) {
        self.kept.push_back(told);
        while self.kept.len() > NOTES_MAX
            || (self.kept.len() + others > ALL_NOTES_MAX && !self.kept.is_empty())
        {
            self.kept.pop_front();
            self.dropped += 1;
        }
    }
}

impl OpenTask {
    fn lineage(&self, task: TaskId, ties: &Ties) -> Lineage {
        Lineage {
            task,
            run: ties.of.as_ref().map(|of| of.run),
            trace: self.trace,
        }
    }
}

impl<'a> End<'a> {
    fn bad(outcome: &'static str, failure: &'a Failure) -> Self {
        Self {
            outcome,
            failure: Some(failure),
        }
    }
}

/// A span, the one above it, and its start: as they are, or of what began `again` after the end.
fn again(
    id: u128,
    whole: (TraceParent, Option<TraceParent>, Time),
    again: Option<(Time, u64)>,
) -> (TraceParent, Option<TraceParent>, Time) {
    match again {
        None => whole,
        Some((since, position)) => {
            let part = TraceParent::derived(id, SpanOf::Again(position), Some(whole.0));
            (part, Some(whole.0), since)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::json::Json;
    use domain::task::TaskSpec;
    use engine::Place;
    use std::sync::Arc;

    fn told(n: u64) -> Told {
        Told::new(Time(n), "progress")
    }

    #[test]
    fn of_what_was_told_the_newest_is_kept() {
        let mut notes = Notes::default();
        for n in 0..NOTES_MAX as u64 + 5 {
            notes.tell(told(n), 0);
        }
        assert_eq!((notes.kept.len(), notes.dropped), (NOTES_MAX, 5));
        assert_eq!(notes.kept[0].at, Time(5));
        // Others have taken nearly all the room there is.
        notes.tell(told(999), ALL_NOTES_MAX - 2);
        assert_eq!(notes.kept.len(), 2);
        notes.tell(told(999), ALL_NOTES_MAX);
        assert!(notes.kept.is_empty());
        assert_eq!(notes.dropped as usize, NOTES_MAX + 5 + 2);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), TEXT_BYTES_MAX - 1);
    }

    #[tokio::test]
    async fn so_many_open_tasks_are_remembered_and_their_notes_counted() {
        let mut trail = Trail::new(Engine::open(&Place::Memory).unwrap());
        let spec = Arc::new(TaskSpec::new(Name::literal("buy"), Json::default()));
        let recorded = |n: u64, event| Recorded {
            position: n,
            at: Time(n),
            cause: None,
            by: None,
            event,
        };
        for n in 0..REMEMBERED_MAX as u64 + 10 {
            let event = Event::TaskSubmitted {
                task: TaskId::new(u128::from(n)),
                spec: Arc::clone(&spec),
                blocked_by: Vec::new(),
                receipt: None,
            };
            trail.fold(&recorded(n, event)).await;
        }
        assert_eq!(trail.tasks.len(), REMEMBERED_MAX);
        let lease = AttemptRef {
            task: TaskId::new(3),
            attempt: 1,
            worker: Name::literal("ann"),
        };
        for n in 0..NOTES_MAX as u64 * 2 {
            let event = Event::TaskProgressed {
                lease: lease.clone(),
                fraction: None,
                note: String::new(),
                run: None,
            };
            trail.fold(&recorded(n, event)).await;
        }
        assert_eq!(trail.notes, NOTES_MAX);
        let event = Event::TaskCancelled {
            task: lease.task,
            ties: Ties {
                kind: spec.kind.clone(),
                queue: spec.queue.clone(),
                of: None,
                slot: None,
            },
            reason: String::new(),
            lease: Some(lease),
            started: true,
        };
        let spans = trail.fold(&recorded(9_999, event)).await;
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].events.len(), NOTES_MAX);
        assert_eq!(spans[0].events.dropped_count as usize, NOTES_MAX);
        assert_eq!(trail.notes, 0);
    }
}
