//! Workers: the registry, and the protocol by which they work.

use super::Routes;
use super::answer::{Answer, Asked, At, Body, Ending, Made, Maybe, done};
use super::stream;
use crate::auth::Caller;
use crate::http::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::error::{Code, Error};
use domain::name::Name;
use domain::worker::{Home, WorkerSpec, WorkerStatus};
use protocol::api::Worked;
use protocol::speech::Say;
use protocol::v1::{Page, WorkerView};
use protocol::wire::{
    Heartbeat, LeaveParams, SetStatus, Signals, StreamParams, WorkBody, WorkedBody, WorkerParams,
    WorkerRef,
};
use protocol::{Api as _, ApiRead as _};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(agents))
        .routes(routes!(get))
}

pub(super) fn working() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(leave))
        .routes(routes!(heartbeat))
        .routes(routes!(work))
        .routes(routes!(follow))
        .routes(routes!(say))
}

pub(super) fn operating() -> Routes {
    OpenApiRouter::new().routes(routes!(set_status))
}

/// List workers, by id.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", operation_id = "worker_list", params(WorkerParams),
    responses((status = 200, description = "A page.", body = Page<WorkerView>)))]
async fn list(
    caller: Caller,
    Asked(params): Asked<WorkerParams>,
) -> Answer<Json<Page<WorkerView>>> {
    Ok(Json(caller.engine.worker_list(params.into()).await?))
}

/// Find agents by type, capability, tool or intent.
#[utoipa::path(get, path = "/v1/agents", tag = "workers", operation_id = "agent_list", params(WorkerParams),
    responses((status = 200, description = "A page.", body = Page<WorkerView>)))]
async fn agents(
    caller: Caller,
    Asked(params): Asked<WorkerParams>,
) -> Answer<Json<Page<WorkerView>>> {
    Ok(Json(caller.engine.worker_list(params.into()).await?))
}

/// Read a worker.
#[utoipa::path(get, path = "/v1/workers/{worker}", tag = "workers", operation_id = "worker_get",
    params(("worker" = String, Path, description = "Which.")),
    responses((status = 200, description = "The worker.", body = WorkerView)))]
async fn get(caller: Caller, At(worker): At<Name>) -> Answer<Json<WorkerView>> {
    Ok(Json(caller.engine.worker_get(worker).await?))
}

/// Register a worker, or change what it says about itself. A new `session` releases what an earlier
/// life of the same id held.
#[utoipa::path(post, path = "/v1/workers", tag = "workers", operation_id = "worker_register",
    request_body = WorkerSpec, responses((status = 201, description = "It is there.", body = WorkerRef)))]
async fn register(caller: Caller, Body(mut spec): Body<WorkerSpec>) -> Answer<Made<WorkerRef>> {
    // Whoever comes over the network is not in this process, whatever it says.
    spec.home = Home::Remote;
    let worker_id = spec.id.clone();
    caller.engine.worker_register(spec).await?;
    Ok(Made(WorkerRef { worker_id }))
}

/// Say good-bye: what the worker holds goes back at once.
#[utoipa::path(delete, path = "/v1/workers/{worker}", tag = "workers", operation_id = "worker_leave",
    params(("worker" = String, Path, description = "Which."), LeaveParams),
    responses((status = 204, description = "It is gone.")))]
async fn leave(
    caller: Caller,
    At(worker): At<Name>,
    Asked(params): Asked<LeaveParams>,
) -> Answer<StatusCode> {
    let reason = match params.reason {
        reason if reason.is_empty() => "it said good-bye".to_owned(),
        reason => reason,
    };
    done(
        caller
            .engine
            .worker_leave(worker, params.session, reason)
            .await,
    )
}

/// Show that a worker lives, and hear what it must know: at once, or within `wait_ms`.
#[utoipa::path(post, path = "/v1/workers/{worker}/heartbeat", tag = "workers", operation_id = "worker_heartbeat",
    params(("worker" = String, Path, description = "Which.")),
    request_body = Heartbeat, responses((status = 200, description = "What it must know.", body = Signals)))]
async fn heartbeat(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(worker): At<Name>,
    Maybe(body): Maybe<Heartbeat>,
) -> Answer<Json<Signals>> {
    let wait = Duration::from_millis(body.wait_ms).min(app.limits.wait);
    let beat = caller.engine.worker_heartbeat(worker, body.session, wait);
    let signals = ending
        .or_none(beat)
        .await
        .unwrap_or_else(|| Ok(Vec::new()))?;
    Ok(Json(Signals { signals }))
}

/// Report on attempts and claim tasks, in one transaction: what a worker does all day.
#[utoipa::path(post, path = "/v1/workers/{worker}/work", tag = "workers", operation_id = "work",
    params(("worker" = String, Path, description = "Who.")),
    request_body = WorkBody, responses((status = 200, description = "What became of the reports, and new tasks.", body = WorkedBody)))]
async fn work(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(worker): At<Name>,
    Body(body): Body<WorkBody>,
) -> Answer<Json<WorkedBody>> {
    let mut work = body.of(worker);
    let Some(claim) = work.claim.as_mut() else {
        return Ok(Json(caller.engine.work(work).await?.into()));
    };
    claim.wait_ms = claim.wait_ms.min(app.limits.wait.as_millis() as u64);
    if claim.wait_ms == 0 {
        return Ok(Json(caller.engine.work(work).await?.into()));
    }
    if work.reports.is_empty() {
        let waiting = caller.engine.work(work);
        let worked = ending.or_none(waiting).await;
        return Ok(Json(
            worked.unwrap_or_else(|| Ok(Worked::default()))?.into(),
        ));
    }
    // What became of the reports must be told even if the server stops while the claim waits.
    let claim = work.claim.take();
    let reported = caller.engine.work(work.clone()).await?;
    let claiming = protocol::api::Work {
        reports: Vec::new(),
        claim,
        ..work
    };
    let claimed = ending.or_refuse(caller.engine.work(claiming)).await;
    let (tasks, refused) = match claimed {
        Ok(worked) => (worked.tasks, worked.refused),
        Err(error) => (Vec::new(), Some(error)),
    };
    Ok(Json(
        Worked {
            reports: reported.reports,
            tasks,
            refused,
        }
        .into(),
    ))
}

/// Say aloud what an attempt does: words of its model, calls of tools. Whoever follows the run's stream
/// hears it; nothing of it is on disk.
#[utoipa::path(post, path = "/v1/workers/{worker}/say", tag = "workers", operation_id = "task_say",
    params(("worker" = String, Path, description = "Who holds the attempt.")),
    request_body = Say, responses((status = 204, description = "It can be heard.")))]
async fn say(caller: Caller, At(worker): At<Name>, Body(said): Body<Say>) -> Answer<StatusCode> {
    done(caller.engine.task_say(worker, said).await)
}

/// Stream tasks and signals to a worker. Events are `tasks` (a list of assignments), `signals` (a list)
/// and `problem`; reports go by `work`. When the connection closes, the worker is gone and what it
/// holds goes back at once.
#[utoipa::path(get, path = "/v1/workers/{worker}/stream", tag = "workers", operation_id = "worker_stream",
    params(("worker" = String, Path, description = "Who."), StreamParams),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = String)))]
async fn follow(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(worker): At<Name>,
    Asked(params): Asked<StreamParams>,
) -> Answer<Response> {
    Ok(stream::worker(&app, caller.engine, worker, params, ending.0).await?)
}

/// Set a worker's status: `available`, `draining`, `error` or `unavailable`; the others are computed.
#[utoipa::path(put, path = "/v1/workers/{worker}/status", tag = "workers", operation_id = "worker_status",
    params(("worker" = String, Path, description = "Which.")),
    request_body = SetStatus, responses((status = 204, description = "It is so now.")))]
async fn set_status(
    caller: Caller,
    At(worker): At<Name>,
    Body(body): Body<SetStatus>,
) -> Answer<StatusCode> {
    let engine = &caller.engine;
    done(match body.status {
        WorkerStatus::Available => engine.worker_ready(worker).await,
        WorkerStatus::Draining => engine.worker_drain(worker).await,
        WorkerStatus::Error => engine.worker_error(worker, body.reason).await,
        WorkerStatus::Unavailable => engine.worker_leave(worker, None, body.reason).await,
        computed @ (WorkerStatus::Busy | WorkerStatus::Unknown) => {
            let text = format!("“{}” is computed, not set", computed.as_str());
            Err(Error::new(Code::WorkerState, text)
                .hint("Use available, draining, error or unavailable."))
        }
    })
}
