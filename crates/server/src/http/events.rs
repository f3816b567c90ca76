//! The log: in pages, streamed, and as the audit trail.

use super::Routes;
use super::answer::{Answer, Asked, At, Ending};
use super::stream::{self, Filter};
use crate::auth::Caller;
use crate::http::App;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use domain::error::{Code, Error};
use domain::id::RunId;
use domain::limits::PAGE_MAX;
use engine::Engine;
use protocol::ApiRead as _;
use protocol::speech::{Cursor, Heard};
use protocol::wire::{EventParams, Events, Position, SpeechParams};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events looked at for one page of those that pass a filter.
const SCAN_MAX: u64 = 20_000;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(of_run))
        .routes(routes!(speech))
        .routes(routes!(head))
}

pub(super) fn operating() -> Routes {
    OpenApiRouter::new().routes(routes!(audit))
}

/// Where a stream is to begin: after what the client says it has seen last.
fn begin(headers: &HeaderMap, params: &EventParams) -> Result<u64, Error> {
    match headers.get("last-event-id") {
        None => Ok(params.after.unwrap_or(0)),
        Some(id) => id
            .to_str()
            .ok()
            .and_then(|id| id.trim().parse().ok())
            .ok_or_else(|| {
                Error::new(
                    Code::OutOfRange,
                    "Last-Event-ID is not a position of the log",
                )
                .hint("Send the `id` of the last event that arrived, as it was.")
            }),
    }
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"))
}

async fn page(engine: &Engine, filter: &Filter, params: &EventParams) -> Result<Events, Error> {
    let limit = match params.limit {
        0 => 100,
        limit => limit.min(PAGE_MAX),
    };
    let after = params.after.unwrap_or(0);
    // Where nothing is left out, no more need be read than is wanted.
    let read = if filter.is_open() { limit } else { PAGE_MAX };
    let (mut items, mut next) = (Vec::new(), after);
    while next - after < SCAN_MAX {
        let events = engine.event_list(next, read).await?;
        let Some(last) = events.last() else { break };
        let last = last.position;
        let mut passing = events.into_iter().filter(|event| filter.admits(event));
        while items.len() < limit
            && let Some(event) = passing.next()
        {
            items.push(event);
        }
        if passing.next().is_some() {
            // There is more in what was read: go on after the last that is in the page.
            next = items.last().map_or(last, |event| event.position);
            break;
        }
        next = last;
        if items.len() == limit {
            break;
        }
    }
    Ok(Events { items, next })
}

/// Read events in order, without a gap; or, with `Accept: text/event-stream`, follow them: `id:` is the
/// position, and `Last-Event-ID` or `after` goes on where an earlier stream ended.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "event_list", params(EventParams,
        ("Last-Event-ID" = Option<u64>, Header, description = "In a stream: after this position.")),
    responses((status = 200, description = "A page, or a stream.", content((Events = "application/json"), (String = "text/event-stream")))))]
async fn list(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    headers: HeaderMap,
    Asked(params): Asked<EventParams>,
) -> Answer<Response> {
    let filter = Filter::new(&params, false)?;
    if wants_stream(&headers) {
        let after = begin(&headers, &params)?;
        return Ok(stream::events(
            &app,
            caller.engine,
            after,
            filter,
            ending.0,
        )?);
    }
    let engine = &caller.engine;
    let mut found = page(engine, &filter, &params).await?;
    if let Some(ms) = params.wait_ms
        && found.items.is_empty()
    {
        let wait = Duration::from_millis(ms).min(app.limits.wait);
        let after = found.next;
        let _ = ending.or_none(engine.event_wait(after, wait)).await;
        let params = EventParams {
            after: Some(after),
            ..params
        };
        found = page(engine, &filter, &params).await?;
    }
    Ok(Json(found).into_response())
}

/// Follow one run's events.
#[utoipa::path(get, path = "/v1/runs/{run}/events", tag = "events", operation_id = "run_events",
    params(("run" = RunId, Path, description = "Which."), EventParams),
    responses((status = 200, description = "Server-sent events.", content_type = "text/event-stream", body = String)))]
async fn of_run(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    headers: HeaderMap,
    At(run): At<RunId>,
    Asked(params): Asked<EventParams>,
) -> Answer<Response> {
    // One that does not exist is an error, not a stream without end.
    caller.engine.run_get(run).await?;
    let params = EventParams {
        run: Some(run),
        ..params
    };
    let after = begin(&headers, &params)?;
    let filter = Filter::new(&params, false)?;
    Ok(stream::events(
        &app,
        caller.engine,
        after,
        filter,
        ending.0,
    )?)
}

/// Hear what a run's agents say: words of their models as they are written, and calls of tools. With
/// `Accept: text/event-stream`, follow them: `id:` is the position, and `Last-Event-ID` or `after` goes
/// on where an earlier stream ended. It is kept in memory, as far as there is room: `lost` says how
/// many pieces are missing, `anew` that the stream is not the one that was followed before.
#[utoipa::path(get, path = "/v1/runs/{run}/stream", tag = "events", operation_id = "run_stream",
    params(("run" = RunId, Path, description = "Which."), SpeechParams,
        ("Last-Event-ID" = Option<String>, Header, description = "In a stream: after this position.")),
    responses((status = 200, description = "A page, or a stream.", content((Heard = "application/json"), (String = "text/event-stream")))))]
async fn speech(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    headers: HeaderMap,
    At(run): At<RunId>,
    Asked(params): Asked<SpeechParams>,
) -> Answer<Response> {
    let engine = caller.engine;
    if wants_stream(&headers) {
        let after = match headers.get("last-event-id") {
            None => params.after,
            Some(id) => Some(id.to_str().unwrap_or_default().parse::<Cursor>()?),
        };
        // One that does not exist is an error, not a stream without end.
        engine.run_get(run).await?;
        return Ok(stream::speech(&app, engine, run, after, ending.0)?);
    }
    let wait = Duration::from_millis(params.wait_ms.unwrap_or(0)).min(app.limits.wait);
    let hearing = engine.run_stream(run, params.after, wait);
    let heard = match ending.or_none(hearing).await {
        Some(heard) => heard?,
        None => engine.run_stream(run, params.after, Duration::ZERO).await?,
    };
    Ok(Json(heard).into_response())
}

/// Read the position of the last event, as soon as it is beyond `after`.
#[utoipa::path(get, path = "/v1/events/head", tag = "events", operation_id = "event_head", params(EventParams),
    responses((status = 200, description = "The position.", body = Position)))]
async fn head(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    Asked(params): Asked<EventParams>,
) -> Answer<Json<Position>> {
    let wait = Duration::from_millis(params.wait_ms.unwrap_or(0)).min(app.limits.wait);
    let engine = &caller.engine;
    let beyond = engine.event_wait(params.after.unwrap_or(0), wait);
    let position = match ending.or_none(beyond).await {
        Some(position) => position?,
        None => *engine.head().borrow(),
    };
    Ok(Json(Position { position }))
}

/// Read who did what: the events that somebody asked for, with the label of their key.
#[utoipa::path(get, path = "/v1/audit", tag = "events", operation_id = "audit", params(EventParams),
    responses((status = 200, description = "A page.", body = Events)))]
async fn audit(caller: Caller, Asked(params): Asked<EventParams>) -> Answer<Json<Events>> {
    let filter = Filter::new(&params, true)?;
    Ok(Json(page(&caller.engine, &filter, &params).await?))
}
