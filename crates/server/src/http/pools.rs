//! Pools.

use super::Routes;
use super::answer::{Answer, At, Body, Made, done};
use crate::auth::Caller;
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::error::{Code, Error};
use domain::name::Name;
use domain::pool::Pool;
use protocol::v1::PoolStatistics;
use protocol::wire::{PoolBody, Pools, Reserve, WorkerRef};
use protocol::{Api as _, ApiRead as _};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(statistics))
}

pub(super) fn operating() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(define))
        .routes(routes!(join, leave))
        .routes(routes!(reserve))
        .routes(routes!(unreserve))
}

fn tagged(pool: Pool) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", pool.version));
    let mut response = Json(pool).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The version that a precondition names: 0 is “it must not exist”.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("?").trim())
    };
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(None),
        (None, Some("*")) => Ok(Some(0)),
        (Some(tag), None) => match tag.trim_matches('"').parse() {
            Ok(version) => Ok(Some(version)),
            Err(_) => Err(Error::new(
                Code::VersionStale,
                "If-Match names a version that never was",
            )),
        },
        _ => Err(Error::new(
            Code::OutOfRange,
            "use If-Match with one ETag, or If-None-Match: *",
        )),
    }
}

/// List the pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "pool_list",
    responses((status = 200, description = "All of them.", body = Pools)))]
async fn list(caller: Caller) -> Answer<Json<Pools>> {
    let items = caller.engine.pool_list().await?;
    Ok(Json(Pools { items }))
}

/// Read a pool; its `ETag` is its version.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", operation_id = "pool_get",
    params(("pool" = String, Path, description = "Which.")),
    responses((status = 200, description = "The pool.", body = Pool)))]
async fn get(caller: Caller, At(pool): At<Name>) -> Answer<Response> {
    Ok(tagged(caller.engine.pool_get(pool).await?))
}

/// Read a pool's statistics.
#[utoipa::path(get, path = "/v1/pools/{pool}/statistics", tag = "pools", operation_id = "pool_statistics",
    params(("pool" = String, Path, description = "Which.")),
    responses((status = 200, description = "The statistics.", body = PoolStatistics)))]
async fn statistics(caller: Caller, At(pool): At<Name>) -> Answer<Json<PoolStatistics>> {
    Ok(Json(caller.engine.pool_statistics(pool).await?))
}

/// Define a pool, or change its strategy. `If-Match` with the `ETag` that was read keeps two writers
/// apart; `If-None-Match: *` makes it only if it is not there.
#[utoipa::path(put, path = "/v1/pools/{pool}", tag = "pools", operation_id = "pool_define",
    params(("pool" = String, Path, description = "Its name."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` it must have."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it must not exist.")),
    request_body = PoolBody, responses((status = 200, description = "The pool as it is now.", body = Pool)))]
async fn define(
    caller: Caller,
    At(id): At<Name>,
    headers: HeaderMap,
    Body(body): Body<PoolBody>,
) -> Answer<Response> {
    let expected = expected(&headers)?;
    let pool = Pool {
        id,
        strategy: body.strategy,
        members: body.members,
        version: 0,
    };
    Ok(tagged(caller.engine.pool_define(pool, expected).await?))
}

/// Add a registered worker to a pool.
#[utoipa::path(put, path = "/v1/pools/{pool}/workers/{worker}", tag = "pools", operation_id = "pool_join",
    params(("pool" = String, Path, description = "Which pool."), ("worker" = String, Path, description = "Who.")),
    responses((status = 204, description = "It is a member.")))]
async fn join(caller: Caller, At((pool, worker)): At<(Name, Name)>) -> Answer<StatusCode> {
    done(caller.engine.pool_join(pool, worker).await)
}

/// Remove a worker from a pool, and drain it.
#[utoipa::path(delete, path = "/v1/pools/{pool}/workers/{worker}", tag = "pools", operation_id = "pool_leave",
    params(("pool" = String, Path, description = "Which pool."), ("worker" = String, Path, description = "Who.")),
    responses((status = 204, description = "It is no member.")))]
async fn leave(caller: Caller, At((pool, worker)): At<(Name, Name)>) -> Answer<StatusCode> {
    done(caller.engine.pool_leave(pool, worker).await)
}

/// Keep room at a pool's least loaded fitting member; the same holder again gets the same room.
#[utoipa::path(post, path = "/v1/pools/{pool}/reservations", tag = "pools", operation_id = "pool_reserve",
    params(("pool" = String, Path, description = "Which pool.")),
    request_body = Reserve, responses((status = 201, description = "At whom.", body = WorkerRef)))]
async fn reserve(
    caller: Caller,
    At(pool): At<Name>,
    Body(body): Body<Reserve>,
) -> Answer<Made<WorkerRef>> {
    let keep = Duration::from_millis(body.keep_ms);
    let reserved = caller
        .engine
        .pool_reserve(pool, body.capability, body.holder, keep);
    let worker_id = reserved.await?;
    Ok(Made(WorkerRef { worker_id }))
}

/// Give reserved room back.
#[utoipa::path(delete, path = "/v1/workers/{worker}/reservations/{holder}", tag = "pools", operation_id = "pool_unreserve",
    params(("worker" = String, Path, description = "At whom."), ("holder" = String, Path, description = "Whose.")),
    responses((status = 204, description = "It is free.")))]
async fn unreserve(caller: Caller, At((worker, holder)): At<(Name, Name)>) -> Answer<StatusCode> {
    done(caller.engine.pool_unreserve(worker, holder).await)
}
