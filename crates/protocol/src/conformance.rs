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

mod board;
mod dispatch;
mod log;
mod messages;
mod records;
mod runs;
mod speech;
mod tasks;
mod tools;
mod workers;

pub use board::*;
pub use dispatch::*;
pub use log::*;
pub use messages::*;
pub use records::*;
pub use runs::*;
pub use speech::*;
pub use tasks::*;
pub use tools::*;
pub use workers::*;

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
            a_light_run_takes_turns_with_a_heavy_one,
            a_run_has_one_share_whatever_its_tasks_are,
            a_light_concurrency_key_takes_turns_with_a_heavy_one,
            a_single_task_passes_a_big_run,
            urgent_work_comes_before_turns,
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
            a_tool_that_is_missed_is_counted,
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
            a_board_is_counted,
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
            a_finished_step_is_reused,
            an_intended_step_is_in_doubt_after_a_loss,
            what_is_done_is_final_and_said_once,
            records_are_bounded,
            what_an_attempt_says_is_heard_once_in_order,
            a_listener_is_woken,
            only_the_current_attempt_is_heard,
            what_is_said_is_bounded,
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
        session: None,
        reports: Vec::new(),
        claim: Some(Claim {
            max,
            starts: true,
            wait_ms,
            key: None,
            again: false,
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
        session: None,
        reports: vec![(held.task_id, held.attempt, report)],
        claim: None,
    };
    let Worked {
        mut reports, tasks, ..
    } = api.work(work).await.unwrap();
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
        trace: None,
        budget: None,
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
