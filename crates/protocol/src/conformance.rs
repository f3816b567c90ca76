//! One suite for every implementation of [`Api`]: what the contract promises, one function a
//! promise, over nothing but the contract.
//!
//! An implementation's test file is a line, [`conformance!`](crate::conformance!). The expression
//! it names is awaited anew for each promise and gives an engine that nothing was asked of yet, and
//! whatever has to be kept alive beside it. Time is the machine's: bounds on waiting are generous
//! above and exact below.

use crate::api::{Api, Claim, Result, RunQuery, TaskQuery, Work, Worked};
use crate::v1::{Assignment, Delivered, Signal};
use crate::{Code, Error};
use domain::blackboard::{Entry, EntryFilter, NewEntry};
use domain::command::{Report, RunStart, Submission};
use domain::event::{Event, Recorded};
use domain::id::{EntryId, MessageId, RunId, TaskId};
use domain::json::Json;
use domain::limits::{FAILURE_BYTES_MAX, PAYLOAD_BYTES_MAX, REQUEST_COMMANDS_MAX};
use domain::message::{Delivery, NewMessage, To};
use domain::name::Name;
use domain::pool::{Member, Pool, Strategy};
use domain::retry::RetryPolicy;
use domain::run::{Crew, RunStatus};
use domain::task::{
    Address, AttemptState, Failure, Priority, SlotUse, TaskSpec, TaskStatus, Waits,
};
use domain::time::Time;
use domain::worker::{WorkerSpec, WorkerStatus};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Makes a module of tests, one for each promise: `conformance!(memory, memory())`, where
/// `memory()` is a future of an `Arc<dyn Api>` and of whatever has to live as long.
#[macro_export]
macro_rules! conformance {
    ($implementation:ident, $open:expr) => {
        $crate::conformance!(@tests $implementation, $open, [
            submissions_are_answered_one_by_one,
            a_request_has_a_bound,
            an_idempotency_key_makes_one_task,
            a_chosen_id_makes_one_task,
            a_task_reads_back,
            tasks_are_listed_in_pages_and_filtered,
            unknown_ids_are_errors,
            work_is_claimed_begun_and_completed,
            completing_and_claiming_is_one_request,
            a_released_task_keeps_its_checkpoint,
            a_stale_token_is_refused_and_recorded,
            the_first_result_stands,
            a_pending_task_is_cancelled,
            a_running_task_is_cancelled,
            a_wait_ends_with_the_task_or_in_time,
            a_waiting_worker_gets_what_comes,
            of_waiting_workers_the_least_loaded_is_first,
            the_more_urgent_goes_first_and_equals_in_order,
            a_capability_is_needed,
            an_address_is_kept,
            a_preference_is_honoured,
            nothing_is_given_before_its_time,
            dependencies_hold_back,
            a_concurrency_key_bounds_what_runs,
            a_time_limit_returns_the_task,
            failures_are_retried_then_dead_then_redriven,
            a_reassigned_task_changes_hands,
            a_silent_worker_loses_its_tasks,
            a_heartbeat_that_waits_comes_in_time,
            a_new_session_releases_at_once,
            a_leaving_worker_gives_back,
            a_draining_worker_finishes,
            a_failing_worker_is_in_error,
            capacity_is_real,
            registering_again_updates,
            statistics_are_exact_and_add_up,
            a_pool_takes_registered_workers_only,
            reserving_is_atomic,
            leaving_a_pool_drains,
            pool_statistics_move,
            a_paused_queue_gives_nothing,
            queue_counts_are_exact,
            a_run_ends_with_its_own_results,
            a_supervisor_settles_its_gate,
            a_run_is_cancelled,
            a_failed_run_is_retried,
            runs_are_listed_newest_first,
            a_runs_tasks_are_listed_in_pages,
            entries_are_filtered_and_ordered,
            an_entry_is_checked,
            of_many_claims_one_wins,
            entries_expire,
            boards_are_isolated,
            ten_writers_lose_nothing,
            work_shows_on_the_board,
            a_worker_finds_its_tasks_on_the_board,
            a_message_reaches_whom_it_names,
            a_broadcast_reaches_everybody_once,
            nobody_there_is_an_error_and_a_dead_letter,
            a_message_expires_while_it_waits,
            a_failing_receiver_is_asked_again_then_it_is_dead,
            the_same_message_is_sent_once,
            what_is_settled_is_not_delivered,
            a_request_gets_its_answer,
            a_late_answer_answers_nothing,
            unsubscribing_stops_delivery,
            events_are_paged_without_a_gap,
            waiting_for_an_event_wakes,
            a_follower_sees_each_event_once,
            urgent_work_makes_running_work_yield,
            payloads_are_bounded,
        ]);
    };
    (@tests $implementation:ident, $open:expr, [$($case:ident,)*]) => {
        mod $implementation {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (api, _kept) = $open.await;
                $crate::conformance::$case(api).await;
            })*
        }
    };
}

type Subject = Arc<dyn Api>;

/// Long enough for anything that should happen at all.
const SOON: Duration = Duration::from_secs(5);

fn name(text: impl Into<Arc<str>>) -> Name {
    Name::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(*text)).collect()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn now() -> Time {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Time(since.as_millis() as u64)
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code
}

fn spec(kind: &str) -> TaskSpec {
    TaskSpec::new(name(kind), Json::default())
}

async fn submit(api: &Subject, spec: TaskSpec) -> TaskId {
    submit_all(api, vec![spec]).await[0]
}

async fn submit_all(api: &Subject, specs: Vec<TaskSpec>) -> Vec<TaskId> {
    let tasks = specs.into_iter().map(Submission::new).collect();
    let answers = api.task_submit(tasks).await.unwrap();
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

fn worker(id: &str) -> WorkerSpec {
    WorkerSpec::new(name(id))
}

fn sized(id: &str, capacity: u32) -> WorkerSpec {
    WorkerSpec {
        capacity,
        ..worker(id)
    }
}

async fn register(api: &Subject, spec: WorkerSpec) {
    api.worker_register(spec).await.unwrap();
}

fn claiming(worker: &str, max: u32, wait_ms: u64) -> Work {
    Work {
        worker: name(worker),
        reports: Vec::new(),
        claim: Some(Claim {
            max,
            starts: true,
            wait_ms,
        }),
    }
}

async fn claim(api: &Subject, worker: &str, max: u32) -> Vec<Assignment> {
    api.work(claiming(worker, max, 0)).await.unwrap().tasks
}

/// Claims one and waits for it.
async fn take(api: &Subject, worker: &str) -> Assignment {
    let mut tasks = api.work(claiming(worker, 1, 5_000)).await.unwrap().tasks;
    assert_eq!(tasks.len(), 1, "{worker} got nothing");
    tasks.remove(0)
}

async fn report(api: &Subject, worker: &str, held: &Assignment, report: Report) -> Result<()> {
    let work = Work {
        worker: name(worker),
        reports: vec![(held.task_id, held.attempt, report)],
        claim: None,
    };
    let Worked { mut reports, tasks } = api.work(work).await.unwrap();
    assert_eq!((reports.len(), tasks.len()), (1, 0));
    reports.remove(0)
}

fn completed(output: Value) -> Report {
    Report::Completed {
        output: output.into(),
    }
}

fn failed(failure: Failure) -> Report {
    Report::Failed { failure }
}

async fn complete(api: &Subject, worker: &str, held: &Assignment, output: Value) {
    report(api, worker, held, completed(output)).await.unwrap();
}

async fn status(api: &Subject, task: TaskId) -> TaskStatus {
    api.task_get(task).await.unwrap().status
}

async fn waits(api: &Subject, task: TaskId) -> Option<Waits> {
    api.task_get(task).await.unwrap().waits_for
}

async fn worker_status(api: &Subject, worker: &str) -> WorkerStatus {
    api.worker_get(name(worker)).await.unwrap().status
}

fn ids(tasks: &[Assignment]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.task_id).collect()
}

async fn events(api: &Subject) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    loop {
        let page = api.event_list(all.len() as u64, 1_000).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Starts a run whose crew are these workers, in turn.
async fn start(api: &Subject, goal: &str, steps: Value, crew: &[&str]) -> RunId {
    let graph = serde_json::from_value(json!({"steps": steps})).unwrap();
    let members = crew.iter().map(|id| Member::new(name(*id))).collect();
    let run = RunStart {
        goal: goal.to_owned(),
        supervisor: name("supervisor"),
        graph,
        crew: Crew {
            strategy: Strategy::RoundRobin,
            members,
        },
        metadata: Default::default(),
        key: None,
    };
    api.run_start(run).await.unwrap()
}

/// A step with a task for each item and a gate over it.
fn fan_out(items: &[u64], reduce: &str) -> Value {
    json!([
        {"id": "part", "each": {"items": items, "task": {"kind": "double", "retry": {"attempts": 1}}}},
        {"id": "all", "needs": ["part"], "gate": {"join": "all", "reduce": reduce}},
    ])
}

/// Each item doubled, by whoever holds it.
async fn double(api: &Subject, worker: &str, held: &[Assignment]) {
    for task in held {
        let n = task.input.value().as_u64().unwrap();
        complete(api, worker, task, json!(2 * n)).await;
    }
}

fn of_run(run: RunId) -> TaskQuery {
    TaskQuery {
        run: Some(run),
        ..TaskQuery::default()
    }
}

/// Each for itself: good ones are accepted in order, a bad one is refused with its reason.
// S3-112, S3-138: many in one request with an outcome for each.
pub async fn submissions_are_answered_one_by_one(api: Subject) {
    let bad = TaskSpec {
        timeout_ms: 0,
        ..spec("bad")
    };
    let tasks = [spec("a"), bad, spec("b")].map(Submission::new);
    let answers = api.task_submit(tasks.into()).await.unwrap();
    let [Ok(a), Err(refused), Ok(b)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(refused.code, Code::OutOfRange);
    assert!(a < b, "ids are ordered by submission");
    assert_eq!(api.task_get(*a).await.unwrap().kind, name("a"));
    assert_eq!(api.task_get(*b).await.unwrap().kind, name("b"));
    assert_eq!(api.task_submit(Vec::new()).await.unwrap(), []);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 2);
}

/// More commands than a request may have are refused together, with the bound in the message.
pub async fn a_request_has_a_bound(api: Subject) {
    let one = Submission::new(spec("a"));
    let many = vec![one; REQUEST_COMMANDS_MAX + 1];
    let error = api.task_submit(many).await.unwrap_err();
    assert_eq!(error.code, Code::LimitExceeded);
    assert!(error.message.contains("10001") && error.message.contains("10000"));
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 0);
    register(&api, worker("w")).await;
    let work = Work {
        worker: name("w"),
        reports: vec![(TaskId::new(1), 1, Report::Started); REQUEST_COMMANDS_MAX + 1],
        claim: None,
    };
    assert_eq!(code(api.work(work).await), Code::LimitExceeded);
}

/// The same key and content is one task; the same key with another content is refused.
pub async fn an_idempotency_key_makes_one_task(api: Subject) {
    let keyed = |kind| Submission {
        key: Some(name("order-1")),
        ..Submission::new(spec(kind))
    };
    let both = vec![keyed("a"), keyed("a")];
    let answers = api.task_submit(both).await.unwrap();
    let again = api.task_submit(vec![keyed("a")]).await.unwrap();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], again[0]);
    let other = api.task_submit(vec![keyed("b")]).await.unwrap().remove(0);
    assert_eq!(code(other), Code::IdempotencyMismatch);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 1);
}

/// An id that the submitter chose, twice, is one task.
// S3-102: a client-supplied id is idempotent.
pub async fn a_chosen_id_makes_one_task(api: Subject) {
    let id = TaskId::new(0x0190_0000_0000_7000_8000_0000_0000_0001);
    let chosen = |kind| Submission {
        id: Some(id),
        ..Submission::new(spec(kind))
    };
    for _ in 0..2 {
        let answers = api.task_submit(vec![chosen("a")]).await.unwrap();
        assert_eq!(answers, [Ok(id)]);
    }
    let other = api.task_submit(vec![chosen("b")]).await.unwrap().remove(0);
    assert_eq!(code(other), Code::TaskExists);
    assert_eq!(api.statistics().await.unwrap().total_tasks_submitted, 1);
    assert_eq!(api.task_get(id).await.unwrap().kind, name("a"));
}

/// What was submitted is what is read, to the byte.
// S3-139: a task is read by its id.
pub async fn a_task_reads_back(api: Subject) {
    let input = Json::from_text("{\"b\": 1.50, \"a\": \"ü\"}".into()).unwrap();
    let given = TaskSpec {
        queue: name("mail"),
        priority: Priority(12),
        capability: Some(name("vision")),
        address: Address::Prefer(name("w")),
        metadata: [(name("customer"), "7".to_owned())].into(),
        ..TaskSpec::new(name("summarize"), input.clone())
    };
    let before = now();
    let task = submit(&api, given).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.task_id, view.status), (task, TaskStatus::Pending));
    assert_eq!(view.kind, name("summarize"));
    assert_eq!(view.input.text(), input.text());
    assert_eq!((view.priority, view.band.as_str()), (Priority(12), "high"));
    assert_eq!(
        (view.queue, view.capability),
        (name("mail"), Some(name("vision")))
    );
    assert_eq!(view.address, Address::Prefer(name("w")));
    assert_eq!(view.metadata, [(name("customer"), "7".to_owned())].into());
    assert_eq!((view.attempts, view.output), (0, None));
    assert!((before..=now()).contains(&view.submitted_at));
    assert!(matches!(
        view.waits_for,
        Some(Waits::NoCapableWorker { .. })
    ));
}

/// Pages follow each other without a gap, each filter filters, and together they all hold.
// S3-172: batch submit, batch result retrieval, parallel execution.
pub async fn tasks_are_listed_in_pages_and_filtered(api: Subject) {
    let kinds = |n: usize| spec(if n.is_multiple_of(2) { "even" } else { "odd" });
    let all = submit_all(&api, (0..25).map(kinds).collect()).await;
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    let mut query = TaskQuery {
        limit: 10,
        ..TaskQuery::default()
    };
    loop {
        let page = api.task_list(query.clone()).await.unwrap();
        sizes.push(page.items.len());
        found.extend(page.items.iter().map(|task| task.task_id));
        match page.next {
            Some(next) => query.after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!((found, sizes), (all.clone(), vec![10, 10, 5]));
    register(&api, sized("w", 3)).await;
    let held = claim(&api, "w", 3).await;
    assert_eq!(ids(&held), all[..3], "three at once");
    complete(&api, "w", &held[0], json!(1)).await;
    complete(&api, "w", &held[1], json!(2)).await;
    let list = |query| {
        let api = Arc::clone(&api);
        async move {
            let page = api.task_list(query).await.unwrap();
            assert_eq!(page.next, None);
            page.items
        }
    };
    let base = TaskQuery::default;
    let odd = list(TaskQuery {
        kind: Some(name("odd")),
        ..base()
    })
    .await;
    assert_eq!(odd.len(), 12);
    let done = list(TaskQuery {
        status: Some(TaskStatus::Completed),
        ..base()
    })
    .await;
    let results: Vec<_> = done.iter().map(|t| (t.task_id, t.output.clone())).collect();
    let result = |n: usize| (all[n], Some(Json::from(json!(n + 1))));
    assert_eq!(results, [result(0), result(1)]);
    let of_w = list(TaskQuery {
        worker: Some(name("w")),
        ..base()
    })
    .await;
    assert_eq!(of_w.len(), 3);
    let together = TaskQuery {
        worker: Some(name("w")),
        status: Some(TaskStatus::Completed),
        kind: Some(name("odd")),
        ..base()
    };
    let together = list(together).await;
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].task_id, all[1]);
}

/// Whoever names what does not exist is told so, with the code of what is missing.
// S3-113, S3-59: an unknown id is an error, never an answer that looks like one.
pub async fn unknown_ids_are_errors(api: Subject) {
    let (task, run) = (TaskId::new(1), RunId::new(1));
    let (entry, message) = (EntryId::new(1), MessageId::new(1));
    let nobody = || name("nobody");
    let why = || "why".to_owned();
    let after = TaskSpec {
        after: vec![task],
        ..spec("a")
    };
    let waits = api.task_submit(vec![Submission::new(after)]).await;
    register(&api, worker("w")).await;
    let reports = Work {
        worker: name("w"),
        reports: vec![(task, 1, Report::Started)],
        claim: None,
    };
    let mut reported = api.work(reports).await.unwrap().reports;
    for found in [
        code(api.task_get(task).await),
        code(api.task_wait(task, ms(10)).await),
        code(api.task_cancel(task, why()).await),
        code(api.task_redrive(task).await),
        code(api.task_reassign(task, Address::Any).await),
        code(waits.unwrap().remove(0)),
        code(reported.remove(0)),
    ] {
        assert_eq!(found, Code::TaskUnknown);
    }
    let mut written = NewEntry::new(nobody(), Json::default());
    written.run = Some(run);
    let filter = EntryFilter {
        run: Some(run),
        ..EntryFilter::default()
    };
    for found in [
        code(api.run_get(run).await),
        code(api.run_settle(run, name("all"), Json::default()).await),
        code(api.run_cancel(run, why()).await),
        code(api.run_retry(run).await),
        code(api.task_list(of_run(run)).await),
        code(api.entry_list(filter).await),
        code(api.entry_write(written).await),
    ] {
        assert_eq!(found, Code::RunUnknown);
    }
    let known = start(&api, "a goal", fan_out(&[1], "collect"), &[]).await;
    let settled = api.run_settle(known, nobody(), Json::default()).await;
    assert_eq!(code(settled), Code::StepUnknown);
    let pool = Pool {
        id: name("pool"),
        strategy: Strategy::RoundRobin,
        members: vec![nobody()],
    };
    for found in [
        code(api.worker_get(nobody()).await),
        code(api.worker_heartbeat(nobody(), ms(0)).await),
        code(api.worker_leave(nobody(), why()).await),
        code(api.worker_drain(nobody()).await),
        code(api.worker_error(nobody(), why()).await),
        code(api.work(claiming("nobody", 1, 0)).await),
        code(api.pool_define(pool).await),
        code(api.pool_unreserve(nobody(), name("me")).await),
    ] {
        assert_eq!(found, Code::WorkerUnknown);
    }
    for found in [
        code(api.pool_statistics(nobody()).await),
        code(api.pool_join(nobody(), name("w")).await),
        code(api.pool_leave(nobody(), name("w")).await),
        code(api.pool_reserve(nobody(), None, name("me"), SOON).await),
    ] {
        assert_eq!(found, Code::PoolUnknown);
    }
    let taken = api.entry_claim(entry, None, Some(nobody())).await;
    assert_eq!(code(taken), Code::EntryUnknown);
    assert_eq!(code(api.message_get(message).await), Code::MessageUnknown);
    let settled = api.message_settle(message, nobody(), None).await;
    assert_eq!(code(settled), Code::MessageUnknown);
}

/// The way of a task: pending, assigned, in progress, completed, with all that a result says.
// S3-114, S3-110, S3-109, S3-141: the states by their names; the seven parts of a result.
pub async fn work_is_claimed_begun_and_completed(api: Subject) {
    register(&api, worker("w")).await;
    let given = TaskSpec {
        metadata: [(name("ticket"), "7".to_owned())].into(),
        ..spec("summarize")
    };
    let task = submit(&api, given).await;
    assert_eq!(waits(&api, task).await, Some(Waits::Ready));
    let mut asked = claiming("w", 1, 0);
    asked.claim = Some(Claim {
        max: 1,
        starts: false,
        wait_ms: 0,
    });
    let held = api.work(asked).await.unwrap().tasks.remove(0);
    assert_eq!((held.task_id, held.attempt), (task, 1));
    assert_eq!(held.kind, name("summarize"));
    assert_eq!(held.metadata, [(name("ticket"), "7".to_owned())].into());
    let view = api.task_get(task).await.unwrap();
    assert_eq!(
        (view.status.as_str(), view.worker, view.waits_for),
        ("assigned", Some(name("w")), None)
    );
    report(&api, "w", &held, Report::Started).await.unwrap();
    report(&api, "w", &held, Report::Started).await.unwrap();
    let progress = Report::Progressed {
        fraction: Some(0.5),
        note: "half".into(),
    };
    report(&api, "w", &held, progress).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status.as_str(), "in_progress");
    let progress = view.progress.unwrap();
    assert_eq!(
        (progress.fraction, progress.note.as_str(), progress.attempt),
        (Some(0.5), "half", 1)
    );
    sleep(ms(30)).await;
    complete(&api, "w", &held, json!({"words": 12})).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.task_id, view.status.as_str()), (task, "completed"));
    assert_eq!(view.output, Some(json!({"words": 12}).into()));
    assert_eq!((view.failure, view.worker), (None, Some(name("w"))));
    assert!(view.ran_ms.is_some_and(|ran| (30..5_000).contains(&ran)));
    assert_eq!(view.metadata, [(name("ticket"), "7".to_owned())].into());
    assert_eq!(view.ended.len(), 1);
    assert_eq!(view.ended[0].state, AttemptState::Succeeded);
    assert!(view.ended_at >= Some(view.submitted_at));
}

/// One request says what became of the last task and brings the next; each report is answered.
pub async fn completing_and_claiming_is_one_request(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b"), spec("c")]).await;
    let mut held = take(&api, "w").await;
    for expected in &tasks[1..] {
        let mut work = claiming("w", 1, 0);
        work.reports = vec![(held.task_id, held.attempt, completed(json!(1)))];
        let worked = api.work(work).await.unwrap();
        assert_eq!(worked.reports, [Ok(())]);
        assert_eq!(ids(&worked.tasks), [*expected]);
        held = worked.tasks[0].clone();
    }
    let mut work = claiming("w", 1, 0);
    work.reports = vec![
        (held.task_id, 9, completed(json!(1))),
        (held.task_id, held.attempt, completed(json!(1))),
    ];
    let worked = api.work(work).await.unwrap();
    let refused = worked.reports[0].as_ref().unwrap_err();
    assert_eq!(refused.code, Code::AttemptStale);
    assert_eq!((&worked.reports[1], worked.tasks.len()), (&Ok(()), 0));
    assert_eq!(api.statistics().await.unwrap().tasks_completed, 3);
}

/// A task handed back goes to the next attempt with its checkpoint, at no cost to its retries.
pub async fn a_released_task_keeps_its_checkpoint(api: Subject) {
    register(&api, worker("w")).await;
    let once = TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec("long")
    };
    let task = submit(&api, once).await;
    let held = take(&api, "w").await;
    assert_eq!(held.checkpoint, None);
    let released = Report::Released {
        reason: "stopping".into(),
        checkpoint: Some(json!({"page": 7}).into()),
    };
    report(&api, "w", &held, released).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Pending);
    assert_eq!(view.ended[0].state, AttemptState::Cancelled);
    let again = take(&api, "w").await;
    assert_eq!((again.task_id, again.attempt), (task, 2));
    assert_eq!(again.checkpoint, Some(json!({"page": 7}).into()));
    complete(&api, "w", &again, json!(null)).await;
}

/// A result with a token that is not current any more changes nothing, and the log tells of it.
// S3-142: a state changes only by a report that may change it.
pub async fn a_stale_token_is_refused_and_recorded(api: Subject) {
    register(&api, worker("old")).await;
    register(&api, worker("new")).await;
    let task = submit(&api, spec("a")).await;
    let old = take(&api, "old").await;
    let released = Report::Released {
        reason: "tired".into(),
        checkpoint: None,
    };
    report(&api, "old", &old, released).await.unwrap();
    let new = take(&api, "new").await;
    assert_eq!((old.attempt, new.attempt), (1, 2));
    for late in [
        completed(json!("late")),
        failed(Failure::new("x", "late")),
        Report::Started,
    ] {
        let refused = report(&api, "old", &old, late).await;
        assert_eq!(code(refused), Code::AttemptStale);
    }
    // The right token from the wrong worker is no better.
    let foreign = report(&api, "old", &new, completed(json!("foreign"))).await;
    assert_eq!(code(foreign), Code::AttemptStale);
    assert_eq!(status(&api, task).await, TaskStatus::InProgress);
    complete(&api, "new", &new, json!("right")).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.output, Some(json!("right").into()));
    assert_eq!(api.statistics().await.unwrap().results_refused, 4);
    let events = events(&api).await;
    let refused = events.iter().filter_map(|recorded| match &recorded.event {
        Event::ResultRefused { lease, .. } => Some((lease.task, lease.attempt)),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused, [(task, 1), (task, 1), (task, 1), (task, 2)]);
}

/// A second result for what is done is refused, whoever sends it.
// S3-140, S1-22: the first terminal result wins; one result for an attempt.
pub async fn the_first_result_stands(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    complete(&api, "w", &held, json!("first")).await;
    for second in [completed(json!("second")), failed(Failure::new("x", "no"))] {
        let refused = report(&api, "w", &held, second).await;
        assert_eq!(code(refused), Code::AttemptStale);
    }
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Completed);
    assert_eq!(view.output, Some(json!("first").into()));
    assert_eq!(api.statistics().await.unwrap().tasks_completed, 1);
    let cancelled = api.task_cancel(task, "too late".into()).await;
    assert_eq!(code(cancelled), Code::TaskState);
    assert_eq!(code(api.task_redrive(task).await), Code::TaskState);
}

/// A pending task that is cancelled leaves its queue; saying it twice changes nothing.
pub async fn a_pending_task_is_cancelled(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    for _ in 0..2 {
        api.task_cancel(tasks[0], "not wanted".into())
            .await
            .unwrap();
    }
    let view = api.task_get(tasks[0]).await.unwrap();
    assert_eq!(view.status, TaskStatus::Cancelled);
    assert_eq!(view.cancelled.as_deref(), Some("not wanted"));
    assert_eq!(ids(&claim(&api, "w", 1).await), [tasks[1]]);
    let queues = api.queue_list().await.unwrap();
    assert_eq!((queues[0].pending, queues[0].leased), (0, 1));
    api.task_redrive(tasks[0]).await.unwrap();
    assert_eq!(status(&api, tasks[0]).await, TaskStatus::Pending);
}

/// The worker of a running task that is cancelled is told; what it makes of it is refused.
// S3-116: a pending task leaves the queue, a running one is told to stop, both read cancelled.
pub async fn a_running_task_is_cancelled(api: Subject) {
    register(&api, worker("w")).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    api.task_cancel(tasks[1], "never began".into())
        .await
        .unwrap();
    let held = take(&api, "w").await;
    let listener = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.worker_heartbeat(name("w"), SOON).await })
    };
    sleep(ms(20)).await;
    let asked = Instant::now();
    api.task_cancel(tasks[0], "not wanted".into())
        .await
        .unwrap();
    let signals = listener.await.unwrap().unwrap();
    assert!(asked.elapsed() < ms(2_000), "the worker is told at once");
    let stop = Signal::Stop {
        task: tasks[0],
        attempt: 1,
        reason: "not wanted".into(),
    };
    assert_eq!(signals, [stop]);
    for task in &tasks {
        assert_eq!(status(&api, *task).await, TaskStatus::Cancelled);
    }
    let late = report(&api, "w", &held, completed(json!(1))).await;
    assert_eq!(code(late), Code::AttemptStale);
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.current_task_count, view.status),
        (0, WorkerStatus::Available)
    );
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(api.statistics().await.unwrap().tasks_cancelled, 2);
}

/// A wait returns when the task has ended, in whatever way, and says when it has not in time.
// S3-115: a result is there at once, or after a wait with a deadline.
pub async fn a_wait_ends_with_the_task_or_in_time(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let asked = Instant::now();
    let error = api.task_wait(task, ms(150)).await.unwrap_err();
    assert_eq!(error.code, Code::WaitTimedOut);
    assert!((ms(150)..ms(2_000)).contains(&asked.elapsed()));
    assert_eq!(api.task_get(task).await.unwrap().output, None);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.task_wait(task, SOON).await })
    };
    let held = take(&api, "w").await;
    sleep(ms(30)).await;
    assert!(!waiting.is_finished());
    complete(&api, "w", &held, json!(7)).await;
    let view = waiting.await.unwrap().unwrap();
    assert_eq!(
        (view.status, view.output),
        (TaskStatus::Completed, Some(json!(7).into()))
    );
    let again = api.task_wait(task, ms(0)).await.unwrap();
    assert_eq!(again.status, TaskStatus::Completed);
    let other = submit(&api, spec("b")).await;
    let (waited, cancelled) = tokio::join!(
        api.task_wait(other, SOON),
        api.task_cancel(other, "no".into())
    );
    cancelled.unwrap();
    assert_eq!(waited.unwrap().status, TaskStatus::Cancelled);
}

/// A worker that waits gets what is submitted later, without asking again.
// S1-104: a worker is woken instead of polling.
pub async fn a_waiting_worker_gets_what_comes(api: Subject) {
    register(&api, worker("w")).await;
    let asked = Instant::now();
    let nothing = api.work(claiming("w", 1, 120)).await.unwrap();
    assert!(nothing.tasks.is_empty());
    // The engine counts whole milliseconds.
    assert!((ms(119)..ms(2_000)).contains(&asked.elapsed()));
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { take(&api, "w").await })
    };
    sleep(ms(100)).await;
    assert!(!waiting.is_finished());
    let submitted = Instant::now();
    let task = submit(&api, spec("a")).await;
    assert_eq!(waiting.await.unwrap().task_id, task);
    assert!(submitted.elapsed() < ms(1_000));
}

/// Of two workers that wait, the one with less to do is served, though the other waited longer.
pub async fn of_waiting_workers_the_least_loaded_is_first(api: Subject) {
    register(&api, sized("loaded", 2)).await;
    register(&api, sized("idle", 2)).await;
    submit(&api, spec("a")).await;
    take(&api, "loaded").await;
    let wait = |worker: &'static str| {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.work(claiming(worker, 1, 2_000)).await.unwrap().tasks })
    };
    let loaded = wait("loaded");
    sleep(ms(200)).await;
    let idle = wait("idle");
    sleep(ms(200)).await;
    let task = submit(&api, spec("b")).await;
    assert_eq!(ids(&idle.await.unwrap()), [task]);
    assert!(loaded.await.unwrap().is_empty());
}

/// Higher priority first, equals in the order they came; a look ahead shows just that order.
// S1-107, S3-170, S3-137: what a peek shows next is what is claimed next.
pub async fn the_more_urgent_goes_first_and_equals_in_order(api: Subject) {
    let at = |priority| TaskSpec {
        priority,
        ..spec("a")
    };
    let given = [
        Priority::NORMAL,
        Priority::BATCH,
        Priority::HIGH,
        Priority::NORMAL,
        Priority::CRITICAL,
        Priority::LOW,
        Priority::HIGH,
    ];
    let tasks = submit_all(&api, given.map(at).into()).await;
    let expected: Vec<TaskId> = [4, 2, 6, 0, 3, 5, 1].map(|n| tasks[n]).into();
    let peeked = api.queue_peek(name("default"), 100).await.unwrap();
    let peeked: Vec<TaskId> = peeked.iter().map(|task| task.task_id).collect();
    assert_eq!(peeked, expected);
    let first = api.queue_peek(name("default"), 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(api.statistics().await.unwrap().tasks_pending, 7);
    register(&api, sized("w", 10)).await;
    let mut claimed = ids(&claim(&api, "w", 3).await);
    claimed.extend(ids(&claim(&api, "w", 10).await));
    assert_eq!(claimed, expected);
    let empty = api.queue_peek(name("default"), 9).await.unwrap();
    assert!(empty.is_empty());
}

/// Who cannot do it does not get it; the task says what is missing; case does not matter.
// S3-105, S3-44: never sent to an incapable worker; none capable is a visible reason.
pub async fn a_capability_is_needed(api: Subject) {
    register(&api, worker("blind")).await;
    let needs = TaskSpec {
        capability: Some(name("vision")),
        ..spec("see")
    };
    let task = submit(&api, needs).await;
    assert!(claim(&api, "blind", 1).await.is_empty());
    match waits(&api, task).await {
        Some(Waits::NoCapableWorker { missing }) => assert!(missing.contains("vision")),
        other => panic!("{other:?}"),
    }
    let seeing = WorkerSpec {
        capabilities: names(&["sql", "Vision"]),
        ..worker("seeing")
    };
    register(&api, seeing).await;
    assert_eq!(waits(&api, task).await, Some(Waits::Ready));
    assert!(claim(&api, "blind", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "seeing", 1).await), [task]);
}

/// A task for one worker alone goes to nobody else, however idle they are.
pub async fn an_address_is_kept(api: Subject) {
    register(&api, worker("me")).await;
    register(&api, worker("other")).await;
    let mine = TaskSpec {
        address: Address::Only(name("me")),
        ..spec("a")
    };
    let task = submit(&api, mine).await;
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "me", 1).await), [task]);
    let absent = TaskSpec {
        address: Address::Only(name("nobody")),
        ..spec("a")
    };
    let lonely = submit(&api, absent).await;
    match waits(&api, lonely).await {
        Some(Waits::NoCapableWorker { missing }) => assert!(missing.contains("nobody")),
        other => panic!("{other:?}"),
    }
}

/// The preferred worker has it while it has room; a worker that is gone is waited for by nobody.
// S3-106: the preferred worker is honoured when it is available.
pub async fn a_preference_is_honoured(api: Subject) {
    register(&api, worker("fond")).await;
    register(&api, sized("other", 9)).await;
    let prefers = || TaskSpec {
        address: Address::Prefer(name("fond")),
        ..spec("a")
    };
    let tasks = submit_all(&api, vec![prefers(), prefers()]).await;
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(ids(&claim(&api, "fond", 1).await), tasks[..1]);
    // It is full now: the second waits a moment for it, and then takes whoever is there.
    assert!(claim(&api, "other", 1).await.is_empty());
    assert_eq!(take(&api, "other").await.task_id, tasks[1]);
    api.worker_leave(name("fond"), "good-bye".into())
        .await
        .unwrap();
    let third = submit(&api, prefers()).await;
    assert_eq!(ids(&claim(&api, "other", 9).await), [tasks[0], third]);
}

/// A task with an instant is not given before it, and soon after it.
pub async fn nothing_is_given_before_its_time(api: Subject) {
    register(&api, worker("w")).await;
    let until = now().plus_ms(800);
    let later = TaskSpec {
        not_before: Some(until),
        ..spec("a")
    };
    let task = submit(&api, later).await;
    assert_eq!(waits(&api, task).await, Some(Waits::NotDue { until }));
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(take(&api, "w").await.task_id, task);
    let late = now().since_ms(until);
    assert!(now() >= until && late < 1_000, "{late} ms late");
}

/// A task waits for the tasks it names, says for which, and is free when the last has completed.
pub async fn dependencies_hold_back(api: Subject) {
    register(&api, sized("w", 9)).await;
    let first = submit_all(&api, vec![spec("a"), spec("b")]).await;
    let after = TaskSpec {
        after: first.clone(),
        ..spec("c")
    };
    let task = submit(&api, after.clone()).await;
    let blocked = Some(Waits::BlockedBy {
        tasks: first.clone(),
    });
    assert_eq!(waits(&api, task).await, blocked);
    let held = claim(&api, "w", 9).await;
    assert_eq!(ids(&held), first);
    complete(&api, "w", &held[0], json!(1)).await;
    let blocked = Some(Waits::BlockedBy {
        tasks: vec![first[1]],
    });
    assert_eq!(waits(&api, task).await, blocked);
    assert!(claim(&api, "w", 9).await.is_empty());
    complete(&api, "w", &held[1], json!(1)).await;
    assert_eq!(ids(&claim(&api, "w", 9).await), [task]);
    // What it waits for is done already: it waits for nothing.
    let next = submit(&api, after).await;
    assert_eq!(waits(&api, next).await, Some(Waits::Ready));
}

/// At most so many tasks with one key run at once; others pass, and the reason is visible.
pub async fn a_concurrency_key_bounds_what_runs(api: Subject) {
    register(&api, sized("w", 9)).await;
    let keyed = || TaskSpec {
        slot: Some(SlotUse {
            key: name("customer-7"),
            max: 2,
        }),
        ..spec("a")
    };
    let tasks = submit_all(&api, vec![keyed(), keyed(), keyed(), keyed(), spec("b")]).await;
    let held = claim(&api, "w", 9).await;
    assert_eq!(ids(&held), [tasks[0], tasks[1], tasks[4]]);
    match waits(&api, tasks[2]).await {
        Some(Waits::AtCapacity { full }) => assert!(full.contains("customer-7")),
        other => panic!("{other:?}"),
    }
    assert!(claim(&api, "w", 9).await.is_empty());
    complete(&api, "w", &held[0], json!(1)).await;
    assert_eq!(ids(&claim(&api, "w", 9).await), [tasks[2]]);
    let fault = Failure::permanent("x", "no");
    report(&api, "w", &held[1], failed(fault)).await.unwrap();
    assert_eq!(ids(&claim(&api, "w", 9).await), [tasks[3]]);
}

/// An attempt that takes too long is taken back on time: its worker is told and free, the task goes
/// on with somebody else, and the late result is refused.
// S3-108: the time limit is enforced.
pub async fn a_time_limit_returns_the_task(api: Subject) {
    register(&api, worker("slow")).await;
    register(&api, worker("quick")).await;
    let limited = TaskSpec {
        timeout_ms: 200,
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 0,
            ..RetryPolicy::default()
        },
        ..spec("a")
    };
    let task = submit(&api, limited).await;
    let began = Instant::now();
    let held = take(&api, "slow").await;
    let next = take(&api, "quick").await;
    let took = began.elapsed();
    assert!((ms(190)..ms(1_200)).contains(&took), "{took:?}");
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.ended[0].state, AttemptState::TimedOut);
    let failure = view.ended[0].failure.clone().unwrap();
    assert_eq!(failure.code, "attempt.timed_out");
    let slow = api.worker_get(name("slow")).await.unwrap();
    assert_eq!(
        (slow.status, slow.current_task_count),
        (WorkerStatus::Available, 0)
    );
    let signals = api.worker_heartbeat(name("slow"), SOON).await.unwrap();
    assert!(matches!(&signals[..], [Signal::Stop { task: told, attempt: 1, .. }] if *told == task));
    let late = report(&api, "slow", &held, completed(json!("late"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    // The second attempt was the last.
    let view = api.task_wait(task, SOON).await.unwrap();
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.unwrap().code, "attempt.timed_out");
}

/// A failure is followed by a wait and another attempt, the last one by the dead letters; from there
/// somebody can send it on its way again.
// S3-142, S3-120: transitions are guarded; a task counts as failed when no attempt is left.
pub async fn failures_are_retried_then_dead_then_redriven(api: Subject) {
    register(&api, worker("w")).await;
    let given = TaskSpec {
        retry: RetryPolicy {
            attempts: 2,
            backoff_ms: 1_000,
            factor_percent: 200,
            backoff_max_ms: 60_000,
        },
        ..spec("a")
    };
    let task = submit(&api, given.clone()).await;
    let held = take(&api, "w").await;
    let reported = now();
    let failure = Failure::new("tool.broken", "the first try");
    report(&api, "w", &held, failed(failure)).await.unwrap();
    let Some(Waits::NotDue { until }) = waits(&api, task).await else {
        panic!("no wait before the second attempt")
    };
    let wait = until.since_ms(reported);
    assert!((500..=3_000).contains(&wait), "{wait} ms");
    assert_eq!(api.statistics().await.unwrap().tasks_failed, 0);
    assert!(claim(&api, "w", 1).await.is_empty());
    let held = take(&api, "w").await;
    assert!(now() >= until);
    assert_eq!((held.task_id, held.attempt), (task, 2));
    let long = "x".repeat(2 * FAILURE_BYTES_MAX);
    let failure = Failure::new("tool.broken", long);
    report(&api, "w", &held, failed(failure)).await.unwrap();
    let view = api.task_get(task).await.unwrap();
    assert_eq!((view.status, view.attempts), (TaskStatus::Failed, 2));
    let failure = view.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.message.len()),
        ("tool.broken", FAILURE_BYTES_MAX)
    );
    let cancelled = api.task_cancel(task, "too late".into()).await;
    assert_eq!(code(cancelled), Code::TaskState);
    api.task_redrive(task).await.unwrap();
    assert_eq!(code(api.task_redrive(task).await), Code::TaskState);
    let held = take(&api, "w").await;
    assert_eq!((held.task_id, held.attempt), (task, 3));
    complete(&api, "w", &held, json!("at last")).await;
    assert_eq!(status(&api, task).await, TaskStatus::Completed);
    // What another attempt would only repeat is not tried again.
    let hopeless = submit(&api, given).await;
    let held = take(&api, "w").await;
    let failure = Failure::permanent("input.bad", "no text");
    report(&api, "w", &held, failed(failure)).await.unwrap();
    assert_eq!(status(&api, hopeless).await, TaskStatus::Failed);
    let statistics = api.statistics().await.unwrap();
    assert_eq!((statistics.tasks_failed, statistics.attempts), (1, 4));
}

/// A task given to another worker is a new attempt there; the old worker is told and its late result
/// is refused.
// S1-12: a new attempt on the new worker; the old worker's late result is ignored.
pub async fn a_reassigned_task_changes_hands(api: Subject) {
    for id in ["old", "new", "third"] {
        register(&api, worker(id)).await;
    }
    let task = submit(&api, spec("a")).await;
    let held = take(&api, "old").await;
    api.task_reassign(task, Address::Only(name("new")))
        .await
        .unwrap();
    assert!(claim(&api, "third", 1).await.is_empty());
    let next = take(&api, "new").await;
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let signals = api.worker_heartbeat(name("old"), SOON).await.unwrap();
    assert!(matches!(signals[..], [Signal::Stop { attempt: 1, .. }]));
    let late = report(&api, "old", &held, completed(json!("old"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "new", &next, json!("new")).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(
        (view.output, view.worker),
        (Some(json!("new").into()), Some(name("new")))
    );
    let done = api.task_reassign(task, Address::Any).await;
    assert_eq!(code(done), Code::TaskState);
}

/// A worker elsewhere that falls silent loses its tasks when its lease is over, and not much later.
// S3-135, S3-64, S3-53, S3-51: a heartbeat that stays out is noticed; a crash returns the task.
pub async fn a_silent_worker_loses_its_tasks(api: Subject) {
    let leased = |id, lease_ms| WorkerSpec {
        lease_ms,
        ..worker(id)
    };
    register(&api, leased("steady", 600)).await;
    let kept = submit(&api, spec("a")).await;
    take(&api, "steady").await;
    // Heartbeats keep it for longer than its lease.
    for _ in 0..6 {
        sleep(ms(150)).await;
        let before = now();
        api.worker_heartbeat(name("steady"), ms(0)).await.unwrap();
        let view = api.worker_get(name("steady")).await.unwrap();
        assert!(view.last_heartbeat >= Some(before));
        assert_eq!(view.current_task_count, 1);
    }
    assert_eq!(status(&api, kept).await, TaskStatus::InProgress);
    register(&api, worker("next")).await;
    let once = TaskSpec {
        retry: RetryPolicy::NEVER,
        address: Address::Prefer(name("silent")),
        ..spec("a")
    };
    register(&api, leased("silent", 200)).await;
    let task = submit(&api, once).await;
    let held = take(&api, "silent").await;
    let last = Instant::now();
    let next = take(&api, "next").await;
    let took = last.elapsed();
    assert!((ms(100)..ms(1_200)).contains(&took), "{took:?}");
    assert_eq!((next.task_id, next.attempt), (task, 2));
    let view = api.worker_get(name("silent")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Unavailable, 0)
    );
    assert!(view.reason.unwrap().contains("no heartbeat"));
    let task = api.task_get(task).await.unwrap();
    assert_eq!(task.ended[0].state, AttemptState::Lost);
    let beat = api.worker_heartbeat(name("silent"), ms(0)).await;
    assert_eq!(code(beat), Code::WorkerUnknown);
    let late = report(&api, "silent", &held, completed(json!(1))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "next", &next, json!(2)).await;
}

/// A heartbeat may wait for something to say, but never so long that the worker is taken for dead.
pub async fn a_heartbeat_that_waits_comes_in_time(api: Subject) {
    let brief = WorkerSpec {
        lease_ms: 1_000,
        ..worker("w")
    };
    register(&api, brief).await;
    submit(&api, spec("a")).await;
    take(&api, "w").await;
    let began = Instant::now();
    while began.elapsed() < ms(2_200) {
        let signals = api.worker_heartbeat(name("w"), SOON).await.unwrap();
        assert_eq!(signals, []);
    }
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Busy, 1)
    );
}

/// A worker that starts anew gives back what its last life held, at once.
pub async fn a_new_session_releases_at_once(api: Subject) {
    register(&api, worker("w")).await;
    let task = submit(&api, spec("a")).await;
    let old = take(&api, "w").await;
    let reborn = WorkerSpec {
        session: 2,
        ..worker("w")
    };
    register(&api, reborn).await;
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Pending);
    assert_eq!(view.ended[0].state, AttemptState::Lost);
    let new = claim(&api, "w", 1).await.remove(0);
    assert_eq!((new.task_id, new.attempt), (task, 2));
    let late = report(&api, "w", &old, completed(json!("old"))).await;
    assert_eq!(code(late), Code::AttemptStale);
    complete(&api, "w", &new, json!("new")).await;
}

/// A worker that says good-bye gives its tasks back at once; it is gone until it registers again.
// S3-58: the tasks of one that unregisters return to the queue.
pub async fn a_leaving_worker_gives_back(api: Subject) {
    register(&api, sized("w", 3)).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b"), spec("c")]).await;
    assert_eq!(ids(&claim(&api, "w", 2).await), tasks[..2]);
    for _ in 0..2 {
        api.worker_leave(name("w"), "done for today".into())
            .await
            .unwrap();
    }
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(view.status, WorkerStatus::Unavailable);
    assert_eq!(view.reason.as_deref(), Some("done for today"));
    for task in &tasks {
        assert_eq!(status(&api, *task).await, TaskStatus::Pending);
    }
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    register(&api, worker("x")).await;
    assert_eq!(take(&api, "x").await.task_id, tasks[0]);
    register(&api, sized("w", 3)).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    assert_eq!(ids(&claim(&api, "w", 9).await), tasks[1..]);
}

/// A draining worker gets nothing new, and what it has it may finish.
pub async fn a_draining_worker_finishes(api: Subject) {
    register(&api, sized("w", 2)).await;
    let first = submit(&api, spec("a")).await;
    let held = take(&api, "w").await;
    let second = submit(&api, spec("b")).await;
    api.worker_drain(name("w")).await.unwrap();
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Draining);
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    complete(&api, "w", &held, json!(1)).await;
    assert_eq!(status(&api, first).await, TaskStatus::Completed);
    assert_eq!(status(&api, second).await, TaskStatus::Pending);
}

/// Three failures in a row that were the worker's own fault put it into error, as its own word does;
/// it gets nothing until it registers again.
// S3-52: error after repeated failure.
pub async fn a_failing_worker_is_in_error(api: Subject) {
    register(&api, worker("w")).await;
    let once = || TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec("a")
    };
    let tasks = submit_all(&api, (0..4).map(|_| once()).collect()).await;
    for task in &tasks[..3] {
        assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
        let held = take(&api, "w").await;
        assert_eq!(held.task_id, *task);
        let failure = Failure {
            worker_fault: true,
            ..Failure::new("worker.broken", "no tools")
        };
        report(&api, "w", &held, failed(failure)).await.unwrap();
    }
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Error);
    let claimed = api.work(claiming("w", 1, 0)).await;
    assert_eq!(code(claimed), Code::WorkerState);
    assert_eq!(status(&api, tasks[3]).await, TaskStatus::Pending);
    register(&api, worker("w")).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    api.worker_error(name("w"), "no disk".into()).await.unwrap();
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Error);
    register(&api, worker("w")).await;
    assert_eq!(take(&api, "w").await.task_id, tasks[3]);
}

/// Capacity three is three at once; busy means full, not "has one".
// S3-46, S3-50, S3-55: as many at once as it says; busy at capacity only; the count is exact.
pub async fn capacity_is_real(api: Subject) {
    register(&api, sized("w", 3)).await;
    submit_all(&api, (0..5).map(|_| spec("a")).collect()).await;
    let mut held = claim(&api, "w", 2).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    held.extend(claim(&api, "w", 9).await);
    assert_eq!(held.len(), 3);
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count, view.capacity),
        (WorkerStatus::Busy, 3, 3)
    );
    assert_eq!(code(api.work(claiming("w", 1, 0)).await), Code::WorkerFull);
    assert_eq!(api.statistics().await.unwrap().tasks_in_progress, 3);
    complete(&api, "w", &held[0], json!(1)).await;
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.status, view.current_task_count),
        (WorkerStatus::Available, 2)
    );
    let fourth = submit(&api, spec("b")).await;
    match waits(&api, fourth).await {
        Some(Waits::Ready) => {}
        other => panic!("{other:?}"),
    }
    claim(&api, "w", 9).await;
    match waits(&api, fourth).await {
        Some(Waits::AtCapacity { full }) => assert!(full.contains("busy")),
        other => panic!("{other:?}"),
    }
    for bad in [sized("bad", 0), sized("bad", 1_000_000)] {
        assert_eq!(code(api.worker_register(bad).await), Code::OutOfRange);
    }
}

/// A worker that registers again changes what it says of itself and keeps what it did.
// S3-42, S3-47, S3-49, S3-56, S3-57, S3-62: a worker with its seven parts, one for an id.
pub async fn registering_again_updates(api: Subject) {
    let first = WorkerSpec {
        agent_type: name("analyst"),
        capabilities: names(&["sql"]),
        endpoint: Some("http://10.0.0.7:9000".into()),
        metadata: [(name("zone"), "a".to_owned())].into(),
        ..sized("w", 2)
    };
    register(&api, first.clone()).await;
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Available);
    submit_all(&api, vec![spec("a"), spec("b")]).await;
    let held = claim(&api, "w", 2).await;
    complete(&api, "w", &held[0], json!(1)).await;
    let second = WorkerSpec {
        capabilities: names(&["sql", "vision"]),
        capacity: 5,
        ..first
    };
    register(&api, second).await;
    let view = api.worker_get(name("w")).await.unwrap();
    assert_eq!(
        (view.worker_id, view.agent_type),
        (name("w"), name("analyst"))
    );
    assert_eq!(view.status, WorkerStatus::Available);
    assert_eq!(view.capabilities, names(&["sql", "vision"]));
    assert!(view.last_heartbeat.is_some());
    assert_eq!(view.endpoint.as_deref(), Some("http://10.0.0.7:9000"));
    assert_eq!(view.metadata, [(name("zone"), "a".to_owned())].into());
    assert_eq!(
        (view.current_task_count, view.completed, view.capacity),
        (1, 1, 5)
    );
    let all = api.worker_list().await.unwrap();
    assert_eq!(all.len(), 1);
    complete(&api, "w", &held[1], json!(1)).await;
}

/// Every number is exact at every step, and the states add up to what was submitted.
// S3-103, S3-117, S3-119, S3-120, S3-121, S3-122, S3-123, S3-124, S3-125, S3-126: exact counts.
pub async fn statistics_are_exact_and_add_up(api: Subject) {
    let adds_up = || async {
        let s = api.statistics().await.unwrap();
        let states = [
            s.tasks_pending,
            s.tasks_assigned,
            s.tasks_in_progress,
            s.tasks_completed,
            s.tasks_failed,
            s.tasks_cancelled,
        ];
        let sum: u64 = states.iter().sum();
        assert_eq!(s.total_tasks_submitted, sum);
        (s, states)
    };
    assert_eq!(adds_up().await.1, [0, 0, 0, 0, 0, 0]);
    let once = |kind| TaskSpec {
        retry: RetryPolicy::NEVER,
        ..spec(kind)
    };
    let kinds = ["a", "a", "b", "a", "b", "c"];
    let tasks = submit_all(&api, kinds.map(once).into()).await;
    assert_eq!(adds_up().await.1, [6, 0, 0, 0, 0, 0]);
    register(&api, sized("w", 9)).await;
    register(&api, sized("v", 9)).await;
    let mut asked = claiming("w", 3, 0);
    asked.claim = Some(Claim {
        max: 3,
        starts: false,
        wait_ms: 0,
    });
    let held = api.work(asked).await.unwrap().tasks;
    assert_eq!(adds_up().await.1, [3, 3, 0, 0, 0, 0]);
    report(&api, "w", &held[0], Report::Started).await.unwrap();
    assert_eq!(adds_up().await.1, [3, 2, 1, 0, 0, 0]);
    sleep(ms(25)).await;
    complete(&api, "w", &held[0], json!(1)).await;
    complete(&api, "w", &held[1], json!(1)).await;
    assert_eq!(adds_up().await.1, [3, 1, 0, 2, 0, 0]);
    let failure = Failure::new("x", "no");
    report(&api, "w", &held[2], failed(failure)).await.unwrap();
    assert_eq!(adds_up().await.1, [3, 0, 0, 2, 1, 0]);
    let other = take(&api, "v").await;
    api.task_cancel(tasks[5], "no".into()).await.unwrap();
    assert_eq!(adds_up().await.1, [1, 0, 1, 2, 1, 1]);
    complete(&api, "v", &other, json!(1)).await;
    let (s, states) = adds_up().await;
    assert_eq!(states, [1, 0, 0, 3, 1, 1]);
    assert_eq!((s.total_tasks_submitted, s.attempts), (6, 4));
    let by_type: Vec<_> = s.tasks_by_type.iter().map(|(k, n)| (&**k, *n)).collect();
    assert_eq!(by_type, [("a", 3), ("b", 2), ("c", 1)]);
    let by_agent: Vec<_> = s.tasks_by_agent.iter().map(|(k, n)| (&**k, *n)).collect();
    assert_eq!(by_agent, [("v", 1), ("w", 2)]);
    let ran = |task: TaskId| {
        let api = Arc::clone(&api);
        async move { api.task_get(task).await.unwrap().ran_ms.unwrap() }
    };
    let sum = ran(tasks[0]).await + ran(tasks[1]).await + ran(tasks[3]).await;
    assert!(sum >= 50, "two took 25 ms each");
    assert!((s.average_execution_ms - sum as f64 / 3.0).abs() < 1e-9);
    let bounds: Vec<&str> = s.percentiles_ms.keys().map(String::as_str).collect();
    assert_eq!(bounds, ["p50", "p95", "p99"]);
    assert!(s.percentiles_ms["p50"] >= 25 && s.percentiles_ms["p99"] <= 2 * sum);
    assert_eq!(s.position, events(&api).await.len() as u64);
}

async fn pool(api: &Subject, id: &str, members: &[&str]) {
    let pool = Pool {
        id: name(id),
        strategy: Strategy::LeastLoaded,
        members: names(members),
    };
    api.pool_define(pool).await.unwrap();
}

/// Only a worker that registered joins, and only once.
// S3-130: an unregistered id is refused.
pub async fn a_pool_takes_registered_workers_only(api: Subject) {
    pool(&api, "crew", &[]).await;
    let joined = api.pool_join(name("crew"), name("w")).await;
    assert_eq!(code(joined), Code::WorkerUnknown);
    register(&api, worker("w")).await;
    register(&api, worker("v")).await;
    api.pool_join(name("crew"), name("w")).await.unwrap();
    let again = api.pool_join(name("crew"), name("w")).await;
    assert_eq!(code(again), Code::PoolMember);
    api.pool_join(name("crew"), name("v")).await.unwrap();
    let pools = api.pool_list().await.unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0].members, names(&["w", "v"]));
    // Defining it again gives it another strategy and keeps its members.
    let other = Pool {
        id: name("crew"),
        strategy: Strategy::Weighted,
        members: Vec::new(),
    };
    api.pool_define(other).await.unwrap();
    let pools = api.pool_list().await.unwrap();
    assert_eq!(
        (pools[0].strategy, &pools[0].members),
        (Strategy::Weighted, &names(&["w", "v"]))
    );
}

/// Callers that reserve at the same moment get different room; when there is none left they are
/// told; room that was kept is nobody else's until it is given back or its time is over.
// S3-132: finding an available worker keeps its room in the same step.
pub async fn reserving_is_atomic(api: Subject) {
    let able = |id, capacity| WorkerSpec {
        capabilities: names(&["vision"]),
        ..sized(id, capacity)
    };
    register(&api, able("a", 2)).await;
    register(&api, able("b", 2)).await;
    register(&api, worker("blind")).await;
    pool(&api, "crew", &["a", "b", "blind"]).await;
    let reserve = |n: usize| {
        let api = Arc::clone(&api);
        let (pool, vision) = (name("crew"), Some(name("Vision")));
        tokio::spawn(async move {
            let holder = name(format!("holder-{n}"));
            api.pool_reserve(pool, vision, holder, SOON).await
        })
    };
    let callers: Vec<_> = (0..10).map(reserve).collect();
    let (mut got, mut refused) = (Vec::new(), 0);
    for (n, caller) in callers.into_iter().enumerate() {
        match caller.await.unwrap() {
            Ok(worker) => got.push((worker, n)),
            Err(error) => {
                assert_eq!(error.code, Code::WorkerFull);
                refused += 1;
            }
        }
    }
    let of = |id: &str| got.iter().filter(|(worker, _)| **worker == *id).count();
    assert_eq!((of("a"), of("b"), refused), (2, 2, 6));
    submit(&api, spec("x")).await;
    assert_eq!(code(api.work(claiming("a", 1, 0)).await), Code::WorkerFull);
    let (worker, holder) = got.iter().find(|(worker, _)| &**worker == "a").unwrap();
    let holder = name(format!("holder-{holder}"));
    for _ in 0..2 {
        api.pool_unreserve(worker.clone(), holder.clone())
            .await
            .unwrap();
    }
    assert_eq!(claim(&api, "a", 1).await.len(), 1);
    // A reservation that nobody gives back ends by itself.
    let keep = |holder: &str, time| api.pool_reserve(name("crew"), None, name(holder), time);
    assert_eq!(keep("short", ms(700)).await.unwrap(), name("blind"));
    let view = api.pool_statistics(name("crew")).await.unwrap();
    assert_eq!((view.available_workers, view.busy_workers), (0, 3));
    assert_eq!(code(keep("next", SOON).await), Code::WorkerFull);
    sleep(ms(750)).await;
    assert_eq!(keep("next", SOON).await.unwrap(), name("blind"));
}

/// A worker that leaves a pool drains: it finishes what it has and gets nothing new.
// S3-131: what runs finishes.
pub async fn leaving_a_pool_drains(api: Subject) {
    register(&api, sized("w", 2)).await;
    pool(&api, "crew", &["w"]).await;
    let tasks = submit_all(&api, vec![spec("a"), spec("b")]).await;
    let held = take(&api, "w").await;
    api.pool_leave(name("crew"), name("w")).await.unwrap();
    let again = api.pool_leave(name("crew"), name("w")).await;
    assert_eq!(code(again), Code::WorkerUnknown);
    assert!(api.pool_list().await.unwrap()[0].members.is_empty());
    assert_eq!(worker_status(&api, "w").await, WorkerStatus::Draining);
    assert_eq!(code(api.work(claiming("w", 1, 0)).await), Code::WorkerState);
    complete(&api, "w", &held, json!(1)).await;
    assert_eq!(status(&api, tasks[0]).await, TaskStatus::Completed);
    assert_eq!(status(&api, tasks[1]).await, TaskStatus::Pending);
}

/// All six numbers of a pool move with its work, and count its members only.
// S3-128, S3-129, S3-133: six numbers, all moving.
pub async fn pool_statistics_move(api: Subject) {
    for id in ["a", "b", "outside"] {
        register(&api, worker(id)).await;
    }
    pool(&api, "crew", &["a", "b"]).await;
    let read = || async { api.pool_statistics(name("crew")).await.unwrap() };
    let s = read().await;
    let workers = (s.total_workers, s.available_workers, s.busy_workers);
    assert_eq!(workers, (2, 2, 0));
    assert_eq!((s.total_tasks_processed, s.average_task_ms), (0, 0.0));
    submit_all(&api, (0..3).map(|_| spec("x")).collect()).await;
    let (a, other) = (take(&api, "a").await, take(&api, "outside").await);
    let s = read().await;
    assert_eq!((s.available_workers, s.busy_workers), (1, 1));
    sleep(ms(20)).await;
    complete(&api, "a", &a, json!(1)).await;
    complete(&api, "outside", &other, json!(1)).await;
    let b = take(&api, "b").await;
    sleep(ms(20)).await;
    complete(&api, "b", &b, json!(1)).await;
    let s = read().await;
    let workers = (s.total_workers, s.available_workers, s.busy_workers);
    assert_eq!((workers, s.total_tasks_processed), ((2, 2, 0), 2));
    assert_eq!(s.tasks_by_worker, [(name("a"), 1), (name("b"), 1)].into());
    assert!(s.average_task_ms >= 20.0);
    api.pool_leave(name("crew"), name("b")).await.unwrap();
    let s = read().await;
    assert_eq!((s.total_workers, s.total_tasks_processed), (1, 1));
}

/// A paused queue takes and shows tasks and gives none out; resumed it goes on where it was.
pub async fn a_paused_queue_gives_nothing(api: Subject) {
    register(&api, worker("w")).await;
    let queue = || name("default");
    for _ in 0..2 {
        api.queue_pause(queue(), true).await.unwrap();
    }
    let task = submit(&api, spec("a")).await;
    let paused = Some(Waits::Paused { queue: queue() });
    assert_eq!(waits(&api, task).await, paused);
    assert!(claim(&api, "w", 1).await.is_empty());
    assert_eq!(api.queue_peek(queue(), 9).await.unwrap().len(), 1);
    assert!(api.queue_list().await.unwrap()[0].paused);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { take(&api, "w").await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    api.queue_pause(queue(), false).await.unwrap();
    assert_eq!(waiting.await.unwrap().task_id, task);
    assert!(!api.queue_list().await.unwrap()[0].paused);
}

/// Each queue counts its own, waiting and leased, through every way out; a worker serves the queues
/// it names.
// S3-136: the count of what waits is exact.
pub async fn queue_counts_are_exact(api: Subject) {
    let to = |queue: &str| TaskSpec {
        queue: name(queue),
        retry: RetryPolicy::NEVER,
        ..spec("a")
    };
    let queues = ["mail", "mail", "mail", "mail", "docs"];
    let tasks = submit_all(&api, queues.map(to).into()).await;
    let counts = || async {
        let queues = api.queue_list().await.unwrap().into_iter();
        let count = |q: crate::v1::QueueView| (q.queue.to_string(), q.pending, q.leased);
        queues.map(count).collect::<Vec<_>>()
    };
    let mail = |pending, leased| ("mail".to_owned(), pending, leased);
    let docs = |pending, leased| ("docs".to_owned(), pending, leased);
    assert_eq!(counts().await, [docs(1, 0), mail(4, 0)]);
    let serving = WorkerSpec {
        queues: names(&["mail"]),
        ..sized("w", 9)
    };
    register(&api, serving).await;
    let held = claim(&api, "w", 3).await;
    assert_eq!(ids(&held), tasks[..3]);
    assert_eq!(counts().await, [docs(1, 0), mail(1, 3)]);
    complete(&api, "w", &held[0], json!(1)).await;
    let failure = Failure::new("x", "no");
    report(&api, "w", &held[1], failed(failure)).await.unwrap();
    api.task_cancel(tasks[2], "no".into()).await.unwrap();
    assert_eq!(counts().await, [docs(1, 0), mail(1, 0)]);
    assert_eq!(ids(&claim(&api, "w", 9).await), tasks[3..4]);
    let mail_only = api.queue_peek(name("mail"), 9).await.unwrap();
    assert!(mail_only.is_empty());
    let docs_next = api.queue_peek(name("docs"), 9).await.unwrap();
    assert_eq!(docs_next[0].task_id, tasks[4]);
}

/// Two runs side by side: each splits its goal as planned, shares it out in turn, and ends with the
/// results of its own tasks, all of them.
// S1-09, S1-10, S1-11, S3-168: one request's results alone, and all of them; done exactly when every
// task has ended; the failed ones listed exactly; task 0 to worker_1, 1 to worker_2, and round again.
pub async fn a_run_ends_with_its_own_results(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let crew = ["worker_1", "worker_2"];
    let one = start(&api, "double these", fan_out(&[1, 2, 3], "collect"), &crew).await;
    let two = start(&api, "and these", fan_out(&[40, 50], "collect"), &crew).await;
    let view = api.run_get(one).await.unwrap();
    assert_eq!(
        (view.status, view.goal.as_str()),
        (RunStatus::Running, "double these")
    );
    assert_eq!((view.tasks.total, view.tasks.pending), (3, 3));
    assert!(!view.tasks.all_ended() && view.waits_for.is_some());
    let tasks = api.task_list(of_run(one)).await.unwrap().items;
    let shares: Vec<_> = tasks.iter().map(|task| task.address.clone()).collect();
    let to = |id| Address::Only(name(id));
    assert_eq!(shares, ["worker_1", "worker_2", "worker_1"].map(to));
    let items: Vec<_> = tasks.iter().map(|task| (task.run_id, task.item)).collect();
    assert_eq!(items, [0, 1, 2].map(|n| (Some(one), Some(n))));
    let (first, second) = (
        claim(&api, "worker_1", 9).await,
        claim(&api, "worker_2", 9).await,
    );
    assert_eq!((first.len(), second.len()), (3, 2));
    // The second worker is done first: results stand in the order of the items all the same.
    double(&api, "worker_2", &second).await;
    let halfway = api.run_get(one).await.unwrap();
    assert_eq!((halfway.tasks.completed, halfway.tasks.running), (1, 2));
    assert!(!halfway.tasks.all_ended() && halfway.final_result.is_none());
    double(&api, "worker_1", &first).await;
    for (run, result) in [(one, json!([2, 4, 6])), (two, json!([80, 100]))] {
        let view = api.run_get(run).await.unwrap();
        assert_eq!(view.status, RunStatus::Completed);
        assert_eq!(view.final_result, Some(result.into()));
        assert!(view.tasks.all_ended() && view.waits_for.is_none() && !view.partial);
    }
    // A run with a failure says which task it was, and names no other run's.
    let bad = start(&api, "fail one", fan_out(&[1, 2, 3], "collect"), &crew).await;
    let other = start(&api, "fail none", fan_out(&[4], "collect"), &crew).await;
    let mut held = claim(&api, "worker_1", 9).await;
    let failing = held.remove(0);
    let failure = Failure::new("input.bad", "no text in it");
    report(&api, "worker_1", &failing, failed(failure))
        .await
        .unwrap();
    double(&api, "worker_1", &held).await;
    double(&api, "worker_2", &claim(&api, "worker_2", 9).await).await;
    let failures = |run| TaskQuery {
        status: Some(TaskStatus::Failed),
        ..of_run(run)
    };
    let listed = api.task_list(failures(bad)).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].task_id, failing.task_id);
    assert_eq!(listed[0].failure.as_ref().unwrap().code, "input.bad");
    assert!(
        api.task_list(failures(other))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let view = api.run_get(bad).await.unwrap();
    assert_eq!((view.status, view.partial), (RunStatus::Failed, true));
    assert!(view.tasks.all_ended());
    assert_eq!((view.tasks.completed, view.tasks.failed), (2, 1));
    assert!(
        view.failure
            .unwrap()
            .message
            .contains("1 of 3 tasks failed")
    );
    let statistics = api.statistics().await.unwrap();
    assert_eq!((statistics.runs, statistics.runs_open), (4, 0));
}

/// A gate that its supervisor reduces waits for it, says so, and takes the first answer.
pub async fn a_supervisor_settles_its_gate(api: Subject) {
    register(&api, sized("w", 9)).await;
    let run = start(&api, "sum up", fan_out(&[1, 2], "supervisor"), &["w"]).await;
    let early = api.run_settle(run, name("all"), json!("early").into());
    assert_eq!(code(early.await), Code::RunState);
    double(&api, "w", &claim(&api, "w", 9).await).await;
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Running);
    assert_eq!(view.awaits_supervisor, Some(name("all")));
    assert!(view.waits_for.unwrap().who.contains("supervisor"));
    for answer in ["the first", "the second"] {
        api.run_settle(run, name("all"), json!(answer).into())
            .await
            .unwrap();
    }
    let view = api.run_get(run).await.unwrap();
    assert_eq!(
        (view.status, view.final_result),
        (RunStatus::Completed, Some(json!("the first").into()))
    );
}

/// A run that is stopped stops its open tasks, keeps what is done, and tells who works on it.
pub async fn a_run_is_cancelled(api: Subject) {
    register(&api, sized("w", 2)).await;
    let run = start(&api, "stop this", fan_out(&[1, 2, 3], "collect"), &["w"]).await;
    let held = claim(&api, "w", 2).await;
    double(&api, "w", &held[..1]).await;
    for _ in 0..2 {
        api.run_cancel(run, "changed my mind".into()).await.unwrap();
    }
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Cancelled);
    assert_eq!(view.cancelled.as_deref(), Some("changed my mind"));
    assert_eq!((view.tasks.completed, view.tasks.cancelled), (1, 2));
    let signals = api.worker_heartbeat(name("w"), SOON).await.unwrap();
    assert!(matches!(&signals[..], [Signal::Stop { task, .. }] if *task == held[1].task_id));
    let late = report(&api, "w", &held[1], completed(json!(4))).await;
    assert_eq!(code(late), Code::AttemptStale);
    assert!(claim(&api, "w", 9).await.is_empty());
}

/// A run that failed goes on with what failed, and only with that.
pub async fn a_failed_run_is_retried(api: Subject) {
    register(&api, sized("w", 9)).await;
    let run = start(&api, "twice", fan_out(&[1, 2], "collect"), &["w"]).await;
    assert_eq!(code(api.run_retry(run).await), Code::RunState);
    let held = claim(&api, "w", 9).await;
    double(&api, "w", &held[..1]).await;
    let failure = Failure::new("tool.broken", "not today");
    report(&api, "w", &held[1], failed(failure)).await.unwrap();
    let view = api.run_get(run).await.unwrap();
    assert_eq!(view.status, RunStatus::Failed);
    assert_eq!(view.final_result, Some(json!([2]).into()));
    api.run_retry(run).await.unwrap();
    let view = api.run_get(run).await.unwrap();
    assert_eq!((view.status, view.partial), (RunStatus::Running, false));
    let again = claim(&api, "w", 9).await;
    assert_eq!(ids(&again), [held[1].task_id]);
    double(&api, "w", &again).await;
    let view = api.run_get(run).await.unwrap();
    assert_eq!(
        (view.status, view.final_result),
        (RunStatus::Completed, Some(json!([2, 4]).into()))
    );
    let cancelled = api.run_cancel(run, "too late".into()).await;
    assert_eq!(code(cancelled), Code::RunState);
}

/// Runs are listed newest first, in pages, by state; a key starts one run.
pub async fn runs_are_listed_newest_first(api: Subject) {
    let mut runs = Vec::new();
    for goal in ["one", "two", "three"] {
        runs.push(start(&api, goal, fan_out(&[1], "collect"), &[]).await);
    }
    api.run_cancel(runs[1], "no".into()).await.unwrap();
    let list = |query| {
        let api = Arc::clone(&api);
        async move {
            let page = api.run_list(query).await.unwrap();
            let runs: Vec<RunId> = page.items.iter().map(|run| run.run_id).collect();
            (runs, page.next)
        }
    };
    let first = RunQuery {
        limit: 2,
        ..RunQuery::default()
    };
    let (items, next) = list(first.clone()).await;
    assert_eq!(items, [runs[2], runs[1]]);
    let after = RunQuery {
        after: Some(next.unwrap().parse().unwrap()),
        ..first
    };
    assert_eq!(list(after).await, (vec![runs[0]], None));
    let cancelled = RunQuery {
        status: Some(RunStatus::Cancelled),
        ..RunQuery::default()
    };
    assert_eq!(list(cancelled).await, (vec![runs[1]], None));
    let keyed = |goal: &str| RunStart {
        goal: goal.to_owned(),
        supervisor: name("supervisor"),
        graph: serde_json::from_value(json!({"steps": fan_out(&[1], "collect")})).unwrap(),
        crew: Crew::default(),
        metadata: Default::default(),
        key: Some(name("monday")),
    };
    let known = api.run_start(keyed("four")).await.unwrap();
    assert_eq!(api.run_start(keyed("four")).await.unwrap(), known);
    let other = api.run_start(keyed("five")).await;
    assert_eq!(code(other), Code::IdempotencyMismatch);
    assert_eq!(
        code(api.run_start(keyed(" ")).await),
        Code::IdempotencyMismatch
    );
    let empty = RunStart {
        key: None,
        ..keyed(" ")
    };
    assert_eq!(code(api.run_start(empty).await), Code::GoalEmpty);
    let hollow = RunStart {
        key: None,
        graph: Default::default(),
        ..keyed("six")
    };
    assert_eq!(code(api.run_start(hollow).await), Code::GraphInvalid);
}

/// The tasks of a run come in pages that miss none, in whatever order its steps were written.
pub async fn a_runs_tasks_are_listed_in_pages(api: Subject) {
    register(&api, sized("w", 9)).await;
    let steps = json!([
        {"id": "late", "needs": ["early"], "each": {"items": [1, 2, 3], "task": {"kind": "double"}}},
        {"id": "early", "each": {"items": [4, 5], "task": {"kind": "double"}}},
    ]);
    let run = start(&api, "in two stages", steps, &["w"]).await;
    double(&api, "w", &claim(&api, "w", 9).await).await;
    let mut query = TaskQuery {
        limit: 2,
        ..of_run(run)
    };
    let mut inputs = Vec::new();
    loop {
        let page = api.task_list(query.clone()).await.unwrap();
        inputs.extend(page.items.iter().map(|task| task.input.value()));
        match page.next {
            Some(next) => query.after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(inputs, [4, 5, 1, 2, 3].map(Value::from), "oldest first");
    let done = TaskQuery {
        status: Some(TaskStatus::Completed),
        ..of_run(run)
    };
    assert_eq!(api.task_list(done).await.unwrap().items.len(), 2);
}

fn on_board(run: RunId) -> EntryFilter {
    EntryFilter {
        run: Some(run),
        ..EntryFilter::default()
    }
}

async fn write(api: &Subject, author: &str, content: &str) -> EntryId {
    let entry = NewEntry::new(name(author), json!(content).into());
    api.entry_write(entry).await.unwrap()
}

fn contents(entries: &[Entry]) -> Vec<Value> {
    entries.iter().map(|entry| entry.content.value()).collect()
}

/// Each filter filters; what is left stands by importance, then by recency.
// S1-37, S1-38, S1-39, S1-40: what is written is read, with any tag, all tags, segment, age,
// importance, not one's own, and a limit.
pub async fn entries_are_filtered_and_ordered(api: Subject) {
    let old = NewEntry {
        tags: names(&["a"]),
        segment: name("results"),
        importance: 0.5,
        metadata: [(name("source"), "page 7".to_owned())].into(),
        ..NewEntry::new(name("ann"), json!("old").into())
    };
    let before = now();
    let first = api.entry_write(old).await.unwrap();
    sleep(ms(1_500)).await;
    for (author, content, tags, segment, importance) in [
        ("bob", "both", &["a", "b"][..], "results", 0.9),
        ("ann", "b", &["b"], "errors", 0.5),
        ("bob", "none", &[], "notes", 0.7),
    ] {
        let entry = NewEntry {
            tags: names(tags),
            segment: name(segment),
            importance,
            ..NewEntry::new(name(author), json!(content).into())
        };
        api.entry_write(entry).await.unwrap();
    }
    let list = |filter| {
        let api = Arc::clone(&api);
        async move { contents(&api.entry_list(filter).await.unwrap()) }
    };
    let base = EntryFilter::default;
    assert_eq!(list(base()).await, ["both", "none", "b", "old"]);
    let any = EntryFilter {
        tags_any: names(&["a", "b"]),
        ..base()
    };
    assert_eq!(list(any).await, ["both", "b", "old"]);
    let all = EntryFilter {
        tags_all: names(&["a", "b"]),
        ..base()
    };
    assert_eq!(list(all).await, ["both"]);
    let segment = EntryFilter {
        segment: Some(name("results")),
        ..base()
    };
    assert_eq!(list(segment).await, ["both", "old"]);
    let young = EntryFilter {
        age_max_ms: Some(1_400),
        ..base()
    };
    assert_eq!(list(young).await, ["both", "none", "b"]);
    let important = EntryFilter {
        importance_min: Some(0.7),
        ..base()
    };
    assert_eq!(list(important).await, ["both", "none"]);
    let by_ann = EntryFilter {
        author: Some(name("ann")),
        ..base()
    };
    assert_eq!(list(by_ann).await, ["b", "old"]);
    let not_ann = EntryFilter {
        exclude_own: Some(name("ann")),
        ..base()
    };
    assert_eq!(list(not_ann).await, ["both", "none"]);
    let two = EntryFilter {
        limit: Some(2),
        ..base()
    };
    assert_eq!(list(two).await, ["both", "none"]);
    let together = EntryFilter {
        tags_any: names(&["a"]),
        segment: Some(name("results")),
        exclude_own: Some(name("bob")),
        ..base()
    };
    let found = api.entry_list(together).await.unwrap();
    assert_eq!(found.len(), 1);
    let entry = &found[0];
    assert_eq!((entry.id, &entry.author), (first, &name("ann")));
    assert_eq!(entry.metadata[&name("source")], "page 7");
    assert!((before..=now()).contains(&entry.at));
}

/// An entry outside its bounds is refused with the bound.
pub async fn an_entry_is_checked(api: Subject) {
    let entry = || NewEntry::new(name("ann"), Json::default());
    for importance in [-0.1, 1.1, f64::NAN] {
        let bad = NewEntry {
            importance,
            ..entry()
        };
        assert_eq!(code(api.entry_write(bad).await), Code::OutOfRange);
    }
    let tagged = NewEntry {
        tags: (0..33).map(|n| name(format!("tag-{n}"))).collect(),
        ..entry()
    };
    assert_eq!(code(api.entry_write(tagged).await), Code::LimitExceeded);
    for importance in [0.0, 1.0] {
        let good = NewEntry {
            importance,
            ..entry()
        };
        api.entry_write(good).await.unwrap();
    }
    let kept = api.entry_list(EntryFilter::default()).await.unwrap();
    assert_eq!(kept.len(), 2);
}

/// Of many that want an entry for themselves at the same moment exactly one has it.
pub async fn of_many_claims_one_wins(api: Subject) {
    let entry = write(&api, "ann", "who does this?").await;
    let claim = |n: usize| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let me = name(format!("worker-{n}"));
            api.entry_claim(entry, None, Some(me)).await
        })
    };
    let claims: Vec<_> = (0..16).map(claim).collect();
    let mut winners = Vec::new();
    for (n, claim) in claims.into_iter().enumerate() {
        match claim.await.unwrap() {
            Ok(()) => winners.push(name(format!("worker-{n}"))),
            Err(error) => assert_eq!(error.code, Code::EntryClaimed),
        }
    }
    assert_eq!(winners.len(), 1);
    let holder = async || {
        let entries = api.entry_list(EntryFilter::default()).await.unwrap();
        entries[0].claimed_by.clone()
    };
    assert_eq!(holder().await.as_ref(), winners.first());
    let wrong = api.entry_claim(entry, Some(name("nobody")), None).await;
    assert_eq!(code(wrong), Code::EntryClaimed);
    api.entry_claim(entry, winners.pop(), None).await.unwrap();
    assert_eq!(holder().await, None);
}

/// An entry with an end is not read after it, and cannot be claimed.
pub async fn entries_expire(api: Subject) {
    let brief = NewEntry {
        ttl_ms: Some(800),
        ..NewEntry::new(name("ann"), json!("brief").into())
    };
    let entry = api.entry_write(brief).await.unwrap();
    write(&api, "ann", "lasting").await;
    let list = async || contents(&api.entry_list(EntryFilter::default()).await.unwrap());
    assert_eq!(list().await, ["lasting", "brief"]);
    sleep(ms(850)).await;
    assert_eq!(list().await, ["lasting"]);
    let claimed = api.entry_claim(entry, None, Some(name("bob"))).await;
    assert_eq!(code(claimed), Code::EntryUnknown);
}

/// What is written for one run is on its board alone.
// S1-48, S1-17: entries are grouped by run, and tags that must all match find one run's alone.
pub async fn boards_are_isolated(api: Subject) {
    register(&api, sized("w", 9)).await;
    let one = start(&api, "one", fan_out(&[1, 2], "collect"), &["w"]).await;
    let two = start(&api, "two", fan_out(&[3], "collect"), &["w"]).await;
    for (run, content) in [
        (Some(one), "of one"),
        (Some(two), "of two"),
        (None, "shared"),
    ] {
        let entry = NewEntry {
            run,
            ..NewEntry::new(name("ann"), json!(content).into())
        };
        api.entry_write(entry).await.unwrap();
    }
    double(&api, "w", &claim(&api, "w", 9).await).await;
    for (run, note, outputs) in [(one, "of one", vec![4, 2]), (two, "of two", vec![6])] {
        let notes = EntryFilter {
            segment: Some(name("notes")),
            ..on_board(run)
        };
        assert_eq!(contents(&api.entry_list(notes).await.unwrap()), [note]);
        let results = EntryFilter {
            tags_all: names(&["result", "completed", &run.to_string()]),
            ..on_board(run)
        };
        let results = api.entry_list(results).await.unwrap();
        let mut found = contents(&results);
        found.sort_by_key(|value| std::cmp::Reverse(value.as_u64()));
        let outputs: Vec<Value> = outputs.into_iter().map(Value::from).collect();
        assert_eq!(found, outputs);
    }
    // The other run's tag finds nothing here.
    let foreign = EntryFilter {
        tags_all: names(&["result", &two.to_string()]),
        ..on_board(one)
    };
    assert!(api.entry_list(foreign).await.unwrap().is_empty());
    let shared = api.entry_list(EntryFilter::default()).await.unwrap();
    assert_eq!(contents(&shared), ["shared"]);
}

/// Ten threads write at once, and every entry is there, whole.
// S1-58: ten threads, no lost or torn entry.
pub async fn ten_writers_lose_nothing(api: Subject) {
    let runtime = tokio::runtime::Handle::current();
    let threads: Vec<_> = (0..10u64)
        .map(|thread| {
            let (api, runtime) = (Arc::clone(&api), runtime.clone());
            std::thread::spawn(move || {
                for n in 0..50u64 {
                    let text = format!("{thread}/{n}/").repeat(100);
                    let author = name(format!("writer-{thread}"));
                    let entry = NewEntry::new(author, json!(text).into());
                    runtime.block_on(api.entry_write(entry)).unwrap();
                }
            })
        })
        .collect();
    let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|t| t.join().is_ok()));
    assert!(joined.await.unwrap());
    for thread in 0..10 {
        let by = EntryFilter {
            author: Some(name(format!("writer-{thread}"))),
            limit: Some(1_000),
            ..EntryFilter::default()
        };
        let found: BTreeSet<String> = contents(&api.entry_list(by).await.unwrap())
            .into_iter()
            .map(|value| value.as_str().unwrap().to_owned())
            .collect();
        let expected = (0..50).map(|n| format!("{thread}/{n}/").repeat(100));
        assert_eq!(found, expected.collect());
    }
}

/// A run's tasks, results, failures and progress are on its board by themselves, with exactly the
/// tags, segments and importance that readers look for.
// S1-16, S1-18, S1-19, S1-25, S1-26, S1-27, S1-41, S1-42, S1-43, S1-44, S1-45, S1-46, S1-49, S1-50,
// S1-51, S1-52, S1-53, S1-55, S1-57, S1-33, S1-35: the board as supervisor, workers and coordinator
// expect it.
pub async fn work_shows_on_the_board(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let crew = ["worker_1", "worker_2"];
    let run = start(&api, "four", fan_out(&[1, 2, 3, 4], "collect"), &crew).await;
    let request = run.to_string();
    let read = async |segment: &str| {
        let filter = EntryFilter {
            segment: Some(name(segment)),
            ..on_board(run)
        };
        let mut entries = api.entry_list(filter).await.unwrap();
        entries.sort_by_key(|entry| entry.metadata[&name("task_id")].clone());
        entries
    };
    let shown = |entry: &Entry| {
        let tags: Vec<String> = entry.tags.iter().map(|tag| tag.to_string()).collect();
        (entry.author.to_string(), tags, entry.importance)
    };
    let seen = |author: &str, tags: &[&str], importance| {
        let tags: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        (author.to_owned(), tags, importance)
    };
    let tasks = read("tasks").await;
    let ids = api.task_list(of_run(run)).await.unwrap().items;
    let ids: Vec<TaskId> = ids.iter().map(|task| task.task_id).collect();
    for (n, entry) in tasks.iter().enumerate() {
        let worker = crew[n % 2];
        let tags = ["task", "pending", &request, worker];
        assert_eq!(shown(entry), seen("supervisor", &tags, 0.8));
        assert_eq!(entry.metadata[&name("task_id")], ids[n].to_string());
        assert_eq!(entry.content.value(), json!(n + 1));
    }
    assert_eq!(tasks.len(), 4);
    let first = claim(&api, "worker_1", 9).await;
    let progress = Report::Progressed {
        fraction: Some(0.25),
        note: "reading".into(),
    };
    report(&api, "worker_1", &first[0], progress).await.unwrap();
    let progress = read("progress").await;
    assert_eq!(progress.len(), 1);
    let tags = ["progress", &request, "worker_1"];
    assert_eq!(shown(&progress[0]), seen("worker_1", &tags, 0.5));
    assert_eq!(
        progress[0].content.value(),
        json!({"fraction": 0.25, "note": "reading"})
    );
    complete(&api, "worker_1", &first[0], json!(2)).await;
    let failure = Failure::new("input.bad", "no number");
    report(&api, "worker_1", &first[1], failed(failure))
        .await
        .unwrap();
    api.task_reassign(ids[1], Address::Only(name("worker_1")))
        .await
        .unwrap();
    let results = read("results").await;
    assert_eq!(results.len(), 1);
    let tags = ["result", "completed", &request];
    assert_eq!(shown(&results[0]), seen("worker_1", &tags, 0.8));
    assert_eq!(results[0].content.value(), json!(2));
    assert_eq!(results[0].metadata[&name("task_id")], ids[0].to_string());
    let errors = read("errors").await;
    assert_eq!(errors.len(), 1);
    let tags = ["error", "failed", &request];
    assert_eq!(shown(&errors[0]), seen("worker_1", &tags, 0.9));
    assert_eq!(errors[0].metadata[&name("task_id")], ids[2].to_string());
    assert_eq!(
        errors[0].content.value(),
        json!({"code": "input.bad", "message": "no number"})
    );
    // “pending” is gone where a task has ended; the reassigned one weighs more.
    let tasks: Vec<_> = read("tasks").await.iter().map(shown).collect();
    let task = |state, worker, importance| {
        seen("supervisor", &["task", state, &request, worker], importance)
    };
    assert_eq!(
        tasks,
        [
            task("completed", "worker_1", 0.8),
            task("pending", "worker_1", 0.9),
            task("failed", "worker_1", 0.8),
            task("pending", "worker_2", 0.8),
        ]
    );
    // Who reads all sees every segment.
    let all = api.entry_list(on_board(run)).await.unwrap();
    let segments: BTreeSet<&str> = all.iter().map(|entry| &*entry.segment).collect();
    let expected = ["errors", "progress", "results", "tasks"];
    assert_eq!(segments, expected.into());
}

/// A worker finds by tags exactly the tasks that wait for it, however many, and none that is done.
// S1-21, S1-24: all of its own and none of another's, also above ten; what is done is not returned.
pub async fn a_worker_finds_its_tasks_on_the_board(api: Subject) {
    register(&api, sized("worker_1", 9)).await;
    register(&api, sized("worker_2", 9)).await;
    let items: Vec<u64> = (0..30).collect();
    let crew = ["worker_1", "worker_2"];
    let run = start(&api, "thirty", fan_out(&items, "collect"), &crew).await;
    let assigned = async |worker: &str| {
        let filter = EntryFilter {
            tags_all: names(&["task", "pending", worker]),
            ..on_board(run)
        };
        let found = contents(&api.entry_list(filter).await.unwrap());
        found
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect::<BTreeSet<_>>()
    };
    let even: BTreeSet<u64> = (0..30).step_by(2).collect();
    let odd: BTreeSet<u64> = (1..30).step_by(2).collect();
    assert_eq!(
        (assigned("worker_1").await, assigned("worker_2").await),
        (even, odd)
    );
    let held = claim(&api, "worker_1", 9).await;
    double(&api, "worker_1", &held).await;
    let left: BTreeSet<u64> = (18..30).step_by(2).collect();
    assert_eq!(assigned("worker_1").await, left);
    assert_eq!(assigned("worker_2").await.len(), 15);
}

fn message(from: &str, to: To, kind: &str, payload: Value) -> NewMessage {
    NewMessage::new(name(from), to, name(kind), payload.into())
}

fn to(agent: &str) -> To {
    To::Agent(name(agent))
}

async fn subscribe(api: &Subject, agent: &str, kinds: &[&str]) {
    api.message_subscribe(name(agent), names(kinds))
        .await
        .unwrap();
}

/// What waits for the agent now.
async fn inbox(api: &Subject, agent: &str) -> Vec<Delivered> {
    api.message_receive(name(agent), 100, ms(0)).await.unwrap()
}

async fn settle(api: &Subject, message: MessageId, agent: &str, failure: Option<&str>) {
    api.message_settle(message, name(agent), failure.map(str::to_owned))
        .await
        .unwrap();
}

async fn part(api: &Subject, message: MessageId, agent: &str) -> Delivery {
    let message = api.message_get(message).await.unwrap();
    message.recipients[&name(agent)].clone()
}

/// A direct message reaches the agent it names and those who listen to its type, with all it
/// carries; a message by type reaches those who listen to it.
// S3-72, S3-74, S3-75, S3-76, S3-78, S3-79, S3-82: routed by id and by type, direct sends too; headers,
// time and correlation are carried; success means accepted.
pub async fn a_message_reaches_whom_it_names(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    subscribe(&api, "bob", &["report"]).await;
    subscribe(&api, "eve", &["other"]).await;
    let before = now();
    let sent = NewMessage {
        headers: [(name("trace"), "7".to_owned())].into(),
        correlation: Some(MessageId::new(7)),
        ..message("boss", to("ann"), "report", json!({"n": 1}))
    };
    let id = api.message_send(sent).await.unwrap();
    for agent in ["ann", "bob"] {
        let got = inbox(&api, agent).await;
        assert_eq!(got.len(), 1, "{agent}");
        let got = &got[0];
        assert_eq!((got.id, &got.message.from), (id, &name("boss")));
        assert_eq!(got.message.kind, name("report"));
        assert_eq!(got.message.payload.value(), json!({"n": 1}));
        assert_eq!(got.message.headers[&name("trace")], "7");
        assert_eq!(got.message.correlation, Some(MessageId::new(7)));
        assert!((before..=now()).contains(&got.message.at));
        settle(&api, id, agent, None).await;
        assert!(matches!(
            part(&api, id, agent).await,
            Delivery::Delivered { .. }
        ));
    }
    assert!(inbox(&api, "eve").await.is_empty());
    let by_type = message("boss", To::Type, "report", json!(2));
    let id = api.message_send(by_type).await.unwrap();
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(inbox(&api, "bob").await[0].id, id);
    let all = api.message_list(None, 100).await.unwrap();
    assert_eq!(all.len(), 2);
    let rest = api.message_list(Some(all[0].id), 100).await.unwrap();
    assert_eq!((rest.len(), rest[0].id), (1, id));
    // Whoever waits is woken.
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.message_receive(name("ann"), 1, SOON).await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    let direct = message("boss", to("ann"), "note", json!(3));
    let id = api.message_send(direct).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap()[0].id, id);
}

/// A message to everybody reaches every subscriber once and not its sender; one with a prefix only
/// those whose id begins so.
// S3-162, S3-80: all subscribers once; the filter is honoured.
pub async fn a_broadcast_reaches_everybody_once(api: Subject) {
    let agents = ["reader-1", "reader-2", "writer-1"];
    for agent in agents {
        subscribe(&api, agent, &["document_processed"]).await;
    }
    let kind = "document_processed";
    let everybody = message("writer-1", To::Everybody, kind, json!(1));
    let id = api.message_send(everybody).await.unwrap();
    for agent in &agents[..2] {
        let got = inbox(&api, agent).await;
        assert_eq!(got.iter().map(|got| got.id).collect::<Vec<_>>(), [id]);
        settle(&api, id, agent, None).await;
    }
    assert!(inbox(&api, "writer-1").await.is_empty());
    let some = message("boss", To::Prefix("reader-".into()), kind, json!(2));
    let id = api.message_send(some).await.unwrap();
    assert_eq!(inbox(&api, "reader-1").await[0].id, id);
    assert_eq!(inbox(&api, "reader-2").await[0].id, id);
    assert!(inbox(&api, "writer-1").await.is_empty());
    let recipients = api.message_get(id).await.unwrap().recipients;
    assert_eq!(recipients.len(), 2);
}

/// Nobody to deliver to is no success, in any form of address; the message is kept as a dead letter.
// S3-78: no subscriber is not success.
pub async fn nobody_there_is_an_error_and_a_dead_letter(api: Subject) {
    subscribe(&api, "listener", &["note"]).await;
    let forms = [
        (to("nobody"), "note"),
        (To::Type, "unheard"),
        (To::Prefix("zz".into()), "note"),
    ];
    for (n, (to, kind)) in forms.into_iter().enumerate() {
        let id = MessageId::new(1_000 + n as u128);
        let sent = NewMessage {
            id: Some(id),
            ..message("boss", to, kind, json!(n))
        };
        assert_eq!(code(api.message_send(sent).await), Code::NoRecipient);
        let dead = api.message_get(id).await.unwrap();
        assert!(dead.dead.is_some() && dead.recipients.is_empty());
    }
    // The only one who listens is the sender.
    let alone = message("listener", To::Everybody, "note", json!(0));
    assert_eq!(code(api.message_send(alone).await), Code::NoRecipient);
    assert!(inbox(&api, "listener").await.is_empty());
    assert_eq!(api.message_list(None, 100).await.unwrap().len(), 4);
}

/// A message whose time is over while it waits is expired, says so, and is not delivered.
pub async fn a_message_expires_while_it_waits(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    let brief = NewMessage {
        ttl_ms: Some(100),
        ..message("boss", to("ann"), "note", json!(1))
    };
    let id = api.message_send(brief).await.unwrap();
    let since = Instant::now();
    while !matches!(part(&api, id, "ann").await, Delivery::Expired { .. }) {
        assert!(since.elapsed() < ms(3_000), "it never expires");
        sleep(ms(20)).await;
    }
    assert!(since.elapsed() >= ms(80));
    assert!(inbox(&api, "ann").await.is_empty());
    // Too late to settle: the first ending stands.
    settle(&api, id, "ann", None).await;
    assert!(matches!(
        part(&api, id, "ann").await,
        Delivery::Expired { .. }
    ));
}

/// A receiver that fails is asked three times in all; then its part is a dead letter, with the
/// reason, and the others' parts are as they were.
// S3-83: retried, then dead-lettered; never lost silently.
pub async fn a_failing_receiver_is_asked_again_then_it_is_dead(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    subscribe(&api, "bob", &["note"]).await;
    let id = api
        .message_send(message("boss", To::Type, "note", json!(1)))
        .await
        .unwrap();
    assert_eq!(inbox(&api, "bob").await.len(), 1);
    settle(&api, id, "bob", None).await;
    for n in 1..=3 {
        let got = inbox(&api, "ann").await;
        assert_eq!(got.len(), 1, "offer {n}");
        settle(&api, id, "ann", Some("no disk")).await;
    }
    assert!(inbox(&api, "ann").await.is_empty());
    match part(&api, id, "ann").await {
        Delivery::DeadLettered { reason, .. } => assert_eq!(reason, "no disk"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        part(&api, id, "bob").await,
        Delivery::Delivered { .. }
    ));
    assert!(inbox(&api, "bob").await.is_empty());
}

/// The same id twice is one message.
// S3-69: a duplicate id is handled once.
pub async fn the_same_message_is_sent_once(api: Subject) {
    subscribe(&api, "ann", &[]).await;
    let id = MessageId::new(77);
    for _ in 0..2 {
        let sent = NewMessage {
            id: Some(id),
            ..message("boss", to("ann"), "note", json!(1))
        };
        assert_eq!(api.message_send(sent).await.unwrap(), id);
    }
    assert_eq!(inbox(&api, "ann").await.len(), 1);
    settle(&api, id, "ann", None).await;
    let again = NewMessage {
        id: Some(id),
        ..message("boss", to("ann"), "note", json!(1))
    };
    api.message_send(again).await.unwrap();
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(api.message_list(None, 100).await.unwrap().len(), 1);
}

/// A message that its recipient settled before it asked for it is dealt with; the others still get it.
pub async fn what_is_settled_is_not_delivered(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    subscribe(&api, "bob", &["note"]).await;
    let sent = message("boss", To::Type, "note", json!(1));
    let id = api.message_send(sent).await.unwrap();
    settle(&api, id, "ann", None).await;
    assert!(inbox(&api, "ann").await.is_empty());
    assert_eq!(inbox(&api, "bob").await[0].id, id);
    settle(&api, id, "bob", Some("no disk")).await;
    settle(&api, id, "bob", None).await;
    assert!(inbox(&api, "bob").await.is_empty());
}

/// A request waits for the message that answers it, and for no other.
// S3-161, S3-76: request and response, linked by correlation, with a time limit.
pub async fn a_request_gets_its_answer(api: Subject) {
    subscribe(&api, "asker", &[]).await;
    subscribe(&api, "oracle", &[]).await;
    let answering = {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let got = api.message_receive(name("oracle"), 1, SOON).await.unwrap();
            let asked = got[0].clone();
            assert_eq!(asked.message.kind, name("data_request"));
            let noise = message("oracle", to("asker"), "noise", json!("not this"));
            api.message_send(noise).await.unwrap();
            let answer = NewMessage {
                correlation: Some(asked.id),
                ..message("oracle", to("asker"), "data_response", json!(42))
            };
            let answer = api.message_send(answer).await.unwrap();
            settle(&api, asked.id, "oracle", None).await;
            (asked.id, answer)
        })
    };
    let question = message("asker", to("oracle"), "data_request", json!("?"));
    let answer = api.message_request(question, SOON).await.unwrap();
    let (asked, answered) = answering.await.unwrap();
    assert_eq!(
        (answer.id, answer.message.correlation),
        (answered, Some(asked))
    );
    assert_eq!(answer.message.payload.value(), json!(42));
    assert!(matches!(
        part(&api, answered, "asker").await,
        Delivery::Delivered { .. }
    ));
    let left = inbox(&api, "asker").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message.kind, name("noise"));
    let unasked = message("asker", to("nobody"), "data_request", json!("?"));
    let asked = Instant::now();
    let refused = api.message_request(unasked, SOON).await;
    assert_eq!(code(refused), Code::NoRecipient);
    assert!(asked.elapsed() < ms(2_000));
}

/// A request that nobody answers in time fails, and an answer that comes later is not taken for the
/// next request's.
// S3-161: the late reply is ignored.
pub async fn a_late_answer_answers_nothing(api: Subject) {
    subscribe(&api, "asker", &[]).await;
    subscribe(&api, "oracle", &[]).await;
    let question = || message("asker", to("oracle"), "data_request", json!("?"));
    let began = Instant::now();
    let unanswered = api.message_request(question(), ms(120)).await;
    assert_eq!(code(unanswered), Code::WaitTimedOut);
    assert!((ms(120)..ms(2_000)).contains(&began.elapsed()));
    let asked = inbox(&api, "oracle").await[0].id;
    let late = NewMessage {
        correlation: Some(asked),
        ..message("oracle", to("asker"), "data_response", json!("late"))
    };
    let late = api.message_send(late).await.unwrap();
    let unanswered = api.message_request(question(), ms(120)).await;
    assert_eq!(code(unanswered), Code::WaitTimedOut);
    assert_eq!(inbox(&api, "asker").await[0].id, late);
}

/// Who has unsubscribed gets nothing more; who subscribes again starts afresh.
// S3-81: ending a subscription stops delivery.
pub async fn unsubscribing_stops_delivery(api: Subject) {
    subscribe(&api, "ann", &["note"]).await;
    let send = |to| api.message_send(message("boss", to, "note", json!(1)));
    send(to("ann")).await.unwrap();
    assert_eq!(inbox(&api, "ann").await.len(), 1);
    api.message_unsubscribe(name("ann")).await.unwrap();
    for form in [to("ann"), To::Type, To::Everybody] {
        assert_eq!(code(send(form).await), Code::NoRecipient);
    }
    assert!(inbox(&api, "ann").await.is_empty());
    subscribe(&api, "ann", &[]).await;
    send(to("ann")).await.unwrap();
    assert_eq!(code(send(To::Type).await), Code::NoRecipient);
    assert_eq!(inbox(&api, "ann").await.len(), 1);
}

/// Events are numbered 1, 2, 3, … and any page begins right after the one before.
pub async fn events_are_paged_without_a_gap(api: Subject) {
    register(&api, sized("w", 9)).await;
    submit_all(&api, (0..7).map(|_| spec("a")).collect()).await;
    for held in claim(&api, "w", 9).await {
        complete(&api, "w", &held, json!(1)).await;
    }
    let all = events(&api).await;
    let positions: Vec<u64> = all.iter().map(|recorded| recorded.position).collect();
    assert_eq!(positions, (1..=22).collect::<Vec<_>>());
    assert!(all.is_sorted_by_key(|recorded| recorded.at));
    for size in [1, 2, 5, 22] {
        let mut paged = Vec::new();
        while let page = api.event_list(paged.len() as u64, size).await.unwrap()
            && !page.is_empty()
        {
            assert!(page.len() <= size);
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }
    assert!(api.event_list(22, 10).await.unwrap().is_empty());
    assert!(api.event_list(99, 10).await.unwrap().is_empty());
    assert_eq!(api.statistics().await.unwrap().position, 22);
}

/// Who waits for an event is woken by it, and after the wait knows where the log stands.
pub async fn waiting_for_an_event_wakes(api: Subject) {
    submit(&api, spec("a")).await;
    assert_eq!(api.event_wait(0, SOON).await.unwrap(), 1);
    let waiting = {
        let api = Arc::clone(&api);
        tokio::spawn(async move { api.event_wait(1, SOON).await })
    };
    sleep(ms(50)).await;
    assert!(!waiting.is_finished());
    submit(&api, spec("b")).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    let began = Instant::now();
    assert_eq!(api.event_wait(2, ms(100)).await.unwrap(), 2);
    assert!((ms(100)..ms(2_000)).contains(&began.elapsed()));
    // Nobody is that far: the answer is where the log really is.
    assert_eq!(api.event_wait(99, ms(10)).await.unwrap(), 2);
}

/// A reader that follows while many write sees every position once, in order.
// S4-130: a gap-free consumer; nothing skipped or repeated under concurrent writers.
pub async fn a_follower_sees_each_event_once(api: Subject) {
    let write = |_| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..50 {
                made.push(submit(&api, spec("a")).await);
            }
            made
        })
    };
    let writers: Vec<_> = (0..4).map(write).collect();
    let mut followed: Vec<Recorded> = Vec::new();
    let began = Instant::now();
    while followed.len() < 200 {
        assert!(began.elapsed() < ms(20_000), "{} events", followed.len());
        let after = followed.len() as u64;
        if api.event_wait(after, ms(500)).await.unwrap() > after {
            let page = api.event_list(after, 7).await.unwrap();
            assert!(!page.is_empty(), "what was announced can be read");
            followed.extend(page);
        }
    }
    let positions: Vec<u64> = followed.iter().map(|recorded| recorded.position).collect();
    assert_eq!(positions, (1..=200).collect::<Vec<_>>());
    let seen: BTreeSet<TaskId> = followed
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::TaskSubmitted { task, .. } => Some(*task),
            _ => None,
        })
        .collect();
    let mut made = BTreeSet::new();
    for writer in writers {
        made.extend(writer.await.unwrap());
    }
    assert_eq!((seen.len(), seen), (200, made));
}

/// Critical work that finds the crew full makes the least urgent work yield: its worker is told,
/// hands it back with a checkpoint, does the urgent task, and goes on where it was.
// S1-110: a running low task yields, with a checkpoint, to an urgent one.
pub async fn urgent_work_makes_running_work_yield(api: Subject) {
    register(&api, sized("w", 2)).await;
    let at = |priority| TaskSpec {
        priority,
        ..spec("a")
    };
    let slow = submit(&api, at(Priority::BATCH)).await;
    let normal = submit(&api, at(Priority::NORMAL)).await;
    let held = claim(&api, "w", 2).await;
    assert_eq!(ids(&held), [normal, slow]);
    // High work waits its turn: only critical work evicts.
    let high = submit(&api, at(Priority::HIGH)).await;
    let quiet = api.worker_heartbeat(name("w"), ms(400)).await.unwrap();
    assert_eq!(quiet, []);
    let urgent = submit(&api, at(Priority::CRITICAL)).await;
    let began = Instant::now();
    let signals = api.worker_heartbeat(name("w"), SOON).await.unwrap();
    assert!(began.elapsed() < ms(1_500));
    let asked = Signal::Yield {
        task: slow,
        attempt: 1,
    };
    assert_eq!(signals, [asked]);
    // It is asked once, however long it takes to get to a safe point.
    let quiet = api.worker_heartbeat(name("w"), ms(300)).await.unwrap();
    assert_eq!(quiet, []);
    let released = Report::Released {
        reason: "more urgent work".into(),
        checkpoint: Some(json!({"page": 7}).into()),
    };
    let mut work = claiming("w", 1, 0);
    work.reports = vec![(slow, 1, released)];
    let worked = api.work(work).await.unwrap();
    assert_eq!(
        (&worked.reports[..], ids(&worked.tasks)),
        (&[Ok(())][..], vec![urgent])
    );
    for (task, done) in [(high, &worked.tasks[0]), (slow, &held[0])] {
        let mut work = claiming("w", 1, 0);
        work.reports = vec![(done.task_id, done.attempt, completed(json!(1)))];
        let next = api.work(work).await.unwrap().tasks.remove(0);
        assert_eq!(next.task_id, task);
        if task == slow {
            assert_eq!(next.attempt, 2);
            assert_eq!(next.checkpoint, Some(json!({"page": 7}).into()));
            complete(&api, "w", &next, json!("whole")).await;
        }
    }
    let view = api.task_get(slow).await.unwrap();
    assert_eq!(view.output, Some(json!("whole").into()));
}

/// What is too large is refused with its size and the bound; an output that is too large ends its
/// attempt, so that the task does not hang.
// S3-104: the size limit is stated.
pub async fn payloads_are_bounded(api: Subject) {
    register(&api, worker("w")).await;
    let large = || Json::from(json!("x".repeat(PAYLOAD_BYTES_MAX)));
    let fits = || Json::from(json!("x".repeat(PAYLOAD_BYTES_MAX - 2)));
    let too_large = |error: Error| {
        assert_eq!(error.code, Code::PayloadTooLarge);
        let (size, bound) = (PAYLOAD_BYTES_MAX + 2, PAYLOAD_BYTES_MAX);
        assert!(error.message.contains(&size.to_string()), "{error}");
        assert!(error.message.contains(&bound.to_string()), "{error}");
    };
    let sized = |input| Submission::new(TaskSpec::new(name("a"), input));
    let tasks = vec![sized(fits()), sized(large())];
    let mut answers = api.task_submit(tasks).await.unwrap();
    too_large(answers.pop().unwrap().unwrap_err());
    let task = answers.pop().unwrap().unwrap();
    let held = take(&api, "w").await;
    assert_eq!(
        (held.task_id, held.input.bytes()),
        (task, PAYLOAD_BYTES_MAX)
    );
    let released = Report::Released {
        reason: "too much to keep".into(),
        checkpoint: Some(large()),
    };
    too_large(report(&api, "w", &held, released).await.unwrap_err());
    let output = large();
    let done = Report::Completed { output };
    too_large(report(&api, "w", &held, done).await.unwrap_err());
    let view = api.task_get(task).await.unwrap();
    assert_eq!(view.status, TaskStatus::Failed);
    assert_eq!(view.failure.unwrap().code, "payload.too_large");
    let entry = NewEntry::new(name("ann"), large());
    too_large(api.entry_write(entry).await.unwrap_err());
    subscribe(&api, "ann", &[]).await;
    let mut sent = message("boss", to("ann"), "note", json!(1));
    sent.payload = large();
    too_large(api.message_send(sent).await.unwrap_err());
    let many = TaskSpec {
        metadata: (0..65)
            .map(|n| (name(format!("key-{n}")), String::new()))
            .collect(),
        ..spec("a")
    };
    let answer = api.task_submit(vec![Submission::new(many)]).await.unwrap();
    assert_eq!(answer[0].as_ref().unwrap_err().code, Code::LimitExceeded);
}
