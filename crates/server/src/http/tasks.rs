//! Tasks, their attempts, and the queues they wait in.

use super::Routes;
use super::answer::{Answer, Asked, At, Body, Ending, Made, Maybe, Once, Trace, done};
use crate::auth::Caller;
use crate::http::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::command::Submission;
use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::name::Name;
use domain::record::Record;
use domain::task::TaskSpec;
use protocol::api::Work;
use protocol::v1::{Page, TaskView};
use protocol::wire::{
    AttemptReport, Attempts, PageParams, Queues, Reason, Reassign, ResolveRecord, SubmitMany,
    Submitted, TaskParams, TaskRef, WaitParams,
};
use protocol::{Api as _, ApiRead as _};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(attempts))
        .routes(routes!(queues))
        .routes(routes!(peek))
}

pub(super) fn steps() -> Routes {
    OpenApiRouter::new().routes(routes!(records))
}

pub(super) fn submitting() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(submit))
        .routes(routes!(submit_as))
        .routes(routes!(submit_many))
        .routes(routes!(cancel))
}

pub(super) fn working() -> Routes {
    OpenApiRouter::new().routes(routes!(report))
}

pub(super) fn operating() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(redrive))
        .routes(routes!(reassign))
        .routes(routes!(resolve))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

async fn accept(
    caller: &Caller,
    id: Option<TaskId>,
    key: Option<Name>,
    mut spec: TaskSpec,
    trace: Trace,
) -> Result<TaskRef, Error> {
    spec.trace = spec.trace.or(trace.0);
    let spec = Arc::new(spec);
    let mut answers = caller
        .engine
        .task_submit(vec![Submission { id, key, spec }])
        .await?;
    let none = || Err(Error::new(Code::Internal, "a submission without an answer"));
    let task_id = answers.pop().unwrap_or_else(none)?;
    Ok(TaskRef { task_id })
}

/// Submit a task.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", operation_id = "task_submit",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send again.")),
    request_body = TaskSpec, responses((status = 201, description = "Accepted, and on disk.", body = TaskRef)))]
async fn submit(
    caller: Caller,
    Once(key): Once,
    trace: Trace,
    Body(spec): Body<TaskSpec>,
) -> Answer<Made<TaskRef>> {
    Ok(Made(accept(&caller, None, key, spec, trace).await?))
}

/// Submit a task under an id of your own; sending it again changes nothing.
#[utoipa::path(put, path = "/v1/tasks/{task}", tag = "tasks", operation_id = "task_submit_as",
    params(("task" = TaskId, Path, description = "Its id, chosen by the caller.")),
    request_body = TaskSpec, responses((status = 201, description = "Accepted, and on disk.", body = TaskRef)))]
async fn submit_as(
    caller: Caller,
    At(task): At<TaskId>,
    trace: Trace,
    Body(spec): Body<TaskSpec>,
) -> Answer<Made<TaskRef>> {
    Ok(Made(accept(&caller, Some(task), None, spec, trace).await?))
}

/// Submit many tasks in one transaction, each answered for itself.
#[utoipa::path(post, path = "/v1/tasks/batch", tag = "tasks", operation_id = "task_submit_many",
    params(("Idempotency-Key" = Option<String>, Header, description = "Task number n gets the key `KEY/n` unless it has one.")),
    request_body = SubmitMany, responses((status = 200, description = "What became of each, in order.", body = Submitted)))]
async fn submit_many(
    caller: Caller,
    Once(key): Once,
    Trace(trace): Trace,
    Body(body): Body<SubmitMany>,
) -> Answer<Json<Submitted>> {
    let mut tasks = body.tasks;
    for (n, task) in tasks.iter_mut().enumerate() {
        if let (Some(key), None, None) = (&key, &task.key, &task.id) {
            task.key = Some(Name::new(format!("{key}/{n}"))?);
        }
        if trace.is_some() && task.spec.trace.is_none() {
            Arc::make_mut(&mut task.spec).trace = trace;
        }
    }
    Ok(Json(caller.engine.task_submit(tasks).await?.into()))
}

/// List tasks, oldest first.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", operation_id = "task_list", params(TaskParams),
    responses((status = 200, description = "A page.", body = Page<TaskView>)))]
async fn list(caller: Caller, Asked(params): Asked<TaskParams>) -> Answer<Json<Page<TaskView>>> {
    Ok(Json(caller.engine.task_list(params.into()).await?))
}

/// Read a task, with the first of its records; with `wait_ms`, as soon as it has ended, without them.
#[utoipa::path(get, path = "/v1/tasks/{task}", tag = "tasks", operation_id = "task_get",
    params(("task" = TaskId, Path, description = "Which."), WaitParams),
    responses((status = 200, description = "The task.", body = TaskView)))]
async fn get(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(task): At<TaskId>,
    Asked(params): Asked<WaitParams>,
) -> Answer<Json<TaskView>> {
    Ok(Json(match params.wait_ms {
        None => caller.engine.task_get(task).await?,
        Some(ms) => {
            let wait = Duration::from_millis(ms).min(app.limits.wait);
            let ended = caller.engine.task_wait(task, wait);
            ending.or_refuse(ended).await?
        }
    }))
}

/// Read a task's attempts.
#[utoipa::path(get, path = "/v1/tasks/{task}/attempts", tag = "tasks", operation_id = "attempt_list",
    params(("task" = TaskId, Path, description = "Which.")),
    responses((status = 200, description = "Those that ended, and who holds it.", body = Attempts)))]
async fn attempts(caller: Caller, At(task): At<TaskId>) -> Answer<Json<Attempts>> {
    Ok(Json(caller.engine.task_get(task).await?.into()))
}

/// Read what became of a task's steps: those that are done, then those that are not.
#[utoipa::path(get, path = "/v1/tasks/{task}/records", tag = "tasks", operation_id = "record_list",
    params(("task" = TaskId, Path, description = "Whose."), PageParams),
    responses((status = 200, description = "A page.", body = Page<Record>)))]
async fn records(
    caller: Caller,
    At(task): At<TaskId>,
    Asked(params): Asked<PageParams>,
) -> Answer<Json<Page<Record>>> {
    let PageParams { after, limit } = params;
    Ok(Json(caller.engine.record_list(task, after, limit).await?))
}

/// Report on one attempt: progress, result, failure, hand-back. The number is the fencing token.
#[utoipa::path(post, path = "/v1/tasks/{task}/attempts/{attempt}", tag = "tasks", operation_id = "attempt_report",
    params(("task" = TaskId, Path, description = "Which."), ("attempt" = u32, Path, description = "The fencing token.")),
    request_body = AttemptReport, responses((status = 204, description = "Accepted.")))]
async fn report(
    caller: Caller,
    At((task, attempt)): At<(TaskId, u32)>,
    Body(body): Body<AttemptReport>,
) -> Answer<StatusCode> {
    let work = Work {
        worker: body.worker,
        session: None,
        reports: vec![(task, attempt, body.report)],
        claim: None,
    };
    let mut worked = caller.engine.work(work).await?;
    done(worked.reports.pop().unwrap_or(Ok(())))
}

/// Cancel a task; a worker that holds it is told.
#[utoipa::path(post, path = "/v1/tasks/{task}/cancel", tag = "tasks", operation_id = "task_cancel",
    params(("task" = TaskId, Path, description = "Which.")),
    request_body = Reason, responses((status = 204, description = "It is cancelled.")))]
async fn cancel(
    caller: Caller,
    At(task): At<TaskId>,
    Maybe(body): Maybe<Reason>,
) -> Answer<StatusCode> {
    done(caller.engine.task_cancel(task, body.reason).await)
}

/// Put a failed or cancelled task back into its queue.
#[utoipa::path(post, path = "/v1/tasks/{task}/redrive", tag = "tasks", operation_id = "task_redrive",
    params(("task" = TaskId, Path, description = "Which.")),
    responses((status = 204, description = "It waits again.")))]
async fn redrive(caller: Caller, At(task): At<TaskId>) -> Answer<StatusCode> {
    done(caller.engine.task_redrive(task).await)
}

/// Give a task to another worker, whatever it is doing now.
#[utoipa::path(post, path = "/v1/tasks/{task}/reassign", tag = "tasks", operation_id = "task_reassign",
    params(("task" = TaskId, Path, description = "Which.")),
    request_body = Reassign, responses((status = 204, description = "It waits for whom it is addressed to.")))]
async fn reassign(
    caller: Caller,
    At(task): At<TaskId>,
    Body(body): Body<Reassign>,
) -> Answer<StatusCode> {
    done(caller.engine.task_reassign(task, body.to).await)
}

/// Say whether a step in doubt happened; the task goes on when it is redriven.
#[utoipa::path(post, path = "/v1/tasks/{task}/records/{key}/resolve", tag = "tasks", operation_id = "record_resolve",
    params(("task" = TaskId, Path, description = "Whose."), ("key" = String, Path, description = "Which step.")),
    request_body = ResolveRecord, responses((status = 204, description = "It is in doubt no more.")))]
async fn resolve(
    caller: Caller,
    At((task, key)): At<(TaskId, Name)>,
    Body(body): Body<ResolveRecord>,
) -> Answer<StatusCode> {
    done(caller.engine.record_resolve(task, key, body.finding).await)
}

/// List the queues.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", operation_id = "queue_list",
    responses((status = 200, description = "All of them.", body = Queues)))]
async fn queues(caller: Caller) -> Answer<Json<Queues>> {
    let items = caller.engine.queue_list().await?;
    Ok(Json(Queues { items }))
}

/// List the tasks that would be claimed next from a queue, in order.
#[utoipa::path(get, path = "/v1/queues/{queue}/tasks", tag = "queues", operation_id = "queue_peek",
    params(("queue" = String, Path, description = "Which."), PageParams),
    responses((status = 200, description = "The first in line.", body = Page<TaskView>)))]
async fn peek(
    caller: Caller,
    At(queue): At<Name>,
    Asked(params): Asked<PageParams>,
) -> Answer<Json<Page<TaskView>>> {
    let items = caller.engine.queue_peek(queue, params.limit).await?;
    Ok(Json(Page { items, next: None }))
}

/// Pause a queue: it gives out nothing until it is resumed.
#[utoipa::path(post, path = "/v1/queues/{queue}/pause", tag = "queues", operation_id = "queue_pause",
    params(("queue" = String, Path, description = "Which.")),
    responses((status = 204, description = "It is paused.")))]
async fn pause(caller: Caller, At(queue): At<Name>) -> Answer<StatusCode> {
    done(caller.engine.queue_pause(queue, true).await)
}

/// Resume a queue.
#[utoipa::path(post, path = "/v1/queues/{queue}/resume", tag = "queues", operation_id = "queue_resume",
    params(("queue" = String, Path, description = "Which.")),
    responses((status = 204, description = "It gives out tasks again.")))]
async fn resume(caller: Caller, At(queue): At<Name>) -> Answer<StatusCode> {
    done(caller.engine.queue_pause(queue, false).await)
}
