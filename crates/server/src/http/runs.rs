//! Runs.

use super::Routes;
use super::answer::{Answer, Asked, At, Body, Ending, Made, Maybe, Once, Trace, done};
use crate::auth::Caller;
use crate::http::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::command::RunStart;
use domain::error::{Code, Error};
use domain::id::RunId;
use domain::name::Name;
use engine::Engine;
use protocol::v1::{Page, RunView};
use protocol::wire::{Reason, RunParams, RunRef, Settle, WaitParams};
use protocol::{Api as _, ApiRead as _};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
}

pub(super) fn submitting() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(cancel))
        .routes(routes!(settle))
}

pub(super) fn operating() -> Routes {
    OpenApiRouter::new().routes(routes!(retry))
}

/// Start a run.
#[utoipa::path(post, path = "/v1/runs", tag = "runs", operation_id = "run_start",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send again.")),
    request_body = RunStart, responses((status = 201, description = "It runs, and is on disk.", body = RunRef)))]
async fn start(
    caller: Caller,
    key: Once,
    Trace(trace): Trace,
    Body(mut run): Body<RunStart>,
) -> Answer<Made<RunRef>> {
    run.key = key.or(run.key)?;
    run.trace = run.trace.or(trace);
    let run_id = caller.engine.run_start(run).await?;
    Ok(Made(RunRef { run_id }))
}

/// List runs, newest first.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", operation_id = "run_list", params(RunParams),
    responses((status = 200, description = "A page.", body = Page<RunView>)))]
async fn list(caller: Caller, Asked(params): Asked<RunParams>) -> Answer<Json<Page<RunView>>> {
    Ok(Json(caller.engine.run_list(params.into()).await?))
}

/// Read a run; with `wait_ms`, as soon as it has ended.
#[utoipa::path(get, path = "/v1/runs/{run}", tag = "runs", operation_id = "run_get",
    params(("run" = RunId, Path, description = "Which."), WaitParams),
    responses((status = 200, description = "The run.", body = RunView)))]
async fn get(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(run): At<RunId>,
    Asked(params): Asked<WaitParams>,
) -> Answer<Json<RunView>> {
    Ok(Json(match params.wait_ms {
        None => caller.engine.run_get(run).await?,
        Some(ms) => {
            let wait = Duration::from_millis(ms).min(app.limits.wait);
            let ended = ended(&caller.engine, run, wait);
            ending.or_refuse(ended).await?
        }
    }))
}

/// The run as soon as it has ended.
async fn ended(engine: &Engine, run: RunId, wait: Duration) -> Result<RunView, Error> {
    let until = tokio::time::Instant::now() + wait;
    let mut head = engine.head();
    loop {
        head.mark_unchanged();
        let view = engine.run_get(run).await?;
        if view.ended_at.is_some() {
            return Ok(view);
        }
        if tokio::time::timeout_at(until, head.changed())
            .await
            .is_err()
        {
            let (status, ms) = (view.status.as_str(), wait.as_millis());
            let text = format!("{run} is still {status} after {ms} ms");
            return Err(Error::new(Code::WaitTimedOut, text));
        }
        // A busy log must not make one who waits read the run thousands of times a second.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stop a run and its open tasks; its results are kept.
#[utoipa::path(post, path = "/v1/runs/{run}/cancel", tag = "runs", operation_id = "run_cancel",
    params(("run" = RunId, Path, description = "Which.")),
    request_body = Reason, responses((status = 204, description = "It is cancelled.")))]
async fn cancel(
    caller: Caller,
    At(run): At<RunId>,
    Maybe(body): Maybe<Reason>,
) -> Answer<StatusCode> {
    done(caller.engine.run_cancel(run, body.reason).await)
}

/// Let a failed or cancelled run go on with what failed.
#[utoipa::path(post, path = "/v1/runs/{run}/retry", tag = "runs", operation_id = "run_retry",
    params(("run" = RunId, Path, description = "Which.")),
    responses((status = 204, description = "It runs again.")))]
async fn retry(caller: Caller, At(run): At<RunId>) -> Answer<StatusCode> {
    done(caller.engine.run_retry(run).await)
}

/// Give a supervisor's reduction of a gate that awaits it.
#[utoipa::path(post, path = "/v1/runs/{run}/steps/{step}/settle", tag = "runs", operation_id = "run_settle",
    params(("run" = RunId, Path, description = "Which."), ("step" = String, Path, description = "Which gate.")),
    request_body = Settle, responses((status = 204, description = "The gate is open.")))]
async fn settle(
    caller: Caller,
    At((run, step)): At<(RunId, Name)>,
    Body(body): Body<Settle>,
) -> Answer<StatusCode> {
    done(caller.engine.run_settle(run, step, body.output).await)
}
