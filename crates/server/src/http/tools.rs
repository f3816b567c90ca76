//! Tools: those that are missed.

use super::Routes;
use super::answer::{Answer, Body, done};
use crate::auth::Caller;
use axum::Json;
use axum::http::StatusCode;
use domain::demand::Miss;
use protocol::wire::Demands;
use protocol::{Api as _, ApiRead as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new().routes(routes!(missing))
}

pub(super) fn writing() -> Routes {
    OpenApiRouter::new().routes(routes!(missed))
}

/// List the tools that somebody wanted and did not have, the last missed first: how often, since when,
/// and who wanted them last.
#[utoipa::path(get, path = "/v1/tools/missing", tag = "tools", operation_id = "tool_demand_list",
    responses((status = 200, description = "All of them.", body = Demands)))]
async fn missing(caller: Caller) -> Answer<Json<Demands>> {
    let items = caller.engine.tool_demand_list().await?;
    Ok(Json(Demands { items }))
}

/// Note that somebody wanted a tool and did not have it; for one task, once.
#[utoipa::path(post, path = "/v1/tools/missing", tag = "tools", operation_id = "tool_missed",
    request_body = Miss, responses((status = 204, description = "It is noted.")))]
async fn missed(caller: Caller, Body(miss): Body<Miss>) -> Answer<StatusCode> {
    done(caller.engine.tool_missed(miss).await)
}
