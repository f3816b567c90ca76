//! Blackboards.

use super::Routes;
use super::answer::{Answer, Asked, At, Body, Made, Once, done};
use crate::auth::Caller;
use axum::Json;
use axum::http::StatusCode;
use domain::blackboard::{EntryFilter, NewEntry};
use domain::id::EntryId;
use protocol::v1::BoardStatistics;
use protocol::wire::{BoardParams, ClaimEntry, Entries, EntryParams, EntryRef};
use protocol::{Api as _, ApiRead as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(search))
        .routes(routes!(statistics))
}

pub(super) fn writing() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(write))
        .routes(routes!(claim))
}

/// List a board's entries, the most important first.
#[utoipa::path(get, path = "/v1/entries", tag = "blackboard", operation_id = "entry_list", params(EntryParams),
    responses((status = 200, description = "At most 1,000.", body = Entries)))]
async fn list(caller: Caller, Asked(params): Asked<EntryParams>) -> Answer<Json<Entries>> {
    let filter = EntryFilter {
        run: params.run,
        tags_any: params.tag.into_iter().collect(),
        segment: params.segment,
        author: params.author,
        importance_min: params.importance_min,
        limit: params.limit,
        ..EntryFilter::default()
    };
    let items = caller.engine.entry_list(filter).await?;
    Ok(Json(Entries { items }))
}

/// List a board's entries by any conditions.
#[utoipa::path(post, path = "/v1/entries/search", tag = "blackboard", operation_id = "entry_search",
    request_body = EntryFilter, responses((status = 200, description = "At most 1,000.", body = Entries)))]
async fn search(caller: Caller, Body(filter): Body<EntryFilter>) -> Answer<Json<Entries>> {
    let items = caller.engine.entry_list(filter).await?;
    Ok(Json(Entries { items }))
}

/// Count what stands on a board.
#[utoipa::path(get, path = "/v1/entries/statistics", tag = "blackboard", operation_id = "board_statistics", params(BoardParams),
    responses((status = 200, description = "By segment and author.", body = BoardStatistics)))]
async fn statistics(
    caller: Caller,
    Asked(params): Asked<BoardParams>,
) -> Answer<Json<BoardStatistics>> {
    Ok(Json(caller.engine.board_statistics(params.run).await?))
}

/// Write on a board.
#[utoipa::path(post, path = "/v1/entries", tag = "blackboard", operation_id = "entry_write",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send again.")),
    request_body = NewEntry, responses((status = 201, description = "It stands there.", body = EntryRef)))]
async fn write(
    caller: Caller,
    key: Once,
    Body(mut entry): Body<NewEntry>,
) -> Answer<Made<EntryRef>> {
    entry.key = key.or(entry.key)?;
    let entry_id = caller.engine.entry_write(entry).await?;
    Ok(Made(EntryRef { entry_id }))
}

/// Take an entry for yourself, or give it back: compare-and-set of its holder.
#[utoipa::path(post, path = "/v1/entries/{entry}/claim", tag = "blackboard", operation_id = "entry_claim",
    params(("entry" = EntryId, Path, description = "Which.")),
    request_body = ClaimEntry, responses((status = 204, description = "It is so now.")))]
async fn claim(
    caller: Caller,
    At(entry): At<EntryId>,
    Body(body): Body<ClaimEntry>,
) -> Answer<StatusCode> {
    done(
        caller
            .engine
            .entry_claim(entry, body.expected, body.by)
            .await,
    )
}
