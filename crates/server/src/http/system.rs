//! The server itself: whether it is well, what it counts, what it can do, and whose it is.

use super::answer::{Answer, Body, Made};
use super::{App, Routes};
use crate::auth::Caller;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use domain::credential::Scope;
use domain::error::{Code, Error};
use domain::name::Name;
use protocol::ApiRead as _;
use protocol::key::Tenant;
use protocol::v1::Statistics;
use protocol::wire::{TenantList, TenantRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Something that the server's own workers can do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Skill {
    /// The task type that asks for it.
    pub name: String,
    /// What it does, in a sentence.
    pub summary: String,
}

/// What the server's own workers can do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(super) struct Skills {
    /// All of it.
    pub items: Vec<Skill>,
}

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, or `unhealthy`.
    pub status: String,
    /// The version of the program.
    pub version: String,
    /// Milliseconds since 1970-01-01T00:00:00Z, by the server's clock.
    pub timestamp: u64,
    /// What was looked at, and how it is.
    pub checks: std::collections::BTreeMap<String, String>,
}

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(statistics))
        .routes(routes!(skills))
        .routes(routes!(tools))
        .routes(routes!(metrics))
}

pub(super) fn administering() -> Routes {
    OpenApiRouter::new().routes(routes!(tenants, create_tenant))
}

pub(super) fn open_routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(health))
        .route("/openapi.json", axum::routing::get(document))
        .route("/docs", axum::routing::get(pages))
}

/// Read the statistics: exact, also after a restart.
#[utoipa::path(get, path = "/v1/statistics", tag = "system", operation_id = "statistics",
    responses((status = 200, description = "As of one event.", body = Statistics)))]
async fn statistics(caller: Caller) -> Answer<Json<Statistics>> {
    Ok(Json(caller.engine.statistics().await?))
}

/// List the skills that the server's own workers have.
#[utoipa::path(get, path = "/v1/skills", tag = "system", operation_id = "skill_list",
    responses((status = 200, description = "All of them.", body = Skills)))]
async fn skills(_: Caller, State(app): State<Arc<App>>) -> Json<Skills> {
    let items = app.skills.clone();
    Json(Skills { items })
}

/// List the tools that workers here say they have, and the server's own skills.
#[utoipa::path(get, path = "/v1/tools", tag = "system", operation_id = "tool_list",
    responses((status = 200, description = "All of them.", body = Skills)))]
async fn tools(caller: Caller, State(app): State<Arc<App>>) -> Answer<Json<Skills>> {
    let mut items = app.skills.clone();
    let workers = protocol::api::worker_list_all(&caller.engine).await?;
    let mut seen = std::collections::BTreeMap::<Name, Vec<Name>>::new();
    for worker in workers {
        for tool in worker.tools {
            seen.entry(tool).or_default().push(worker.worker_id.clone());
        }
    }
    items.extend(seen.into_iter().map(|(tool, workers)| Skill {
        name: tool.to_string(),
        summary: format!("a tool of {}", workers.join(", ")),
    }));
    Ok(Json(Skills { items }))
}

/// What the server counts, for Prometheus: in the OpenMetrics text for who accepts it.
#[utoipa::path(get, path = "/metrics", tag = "system", operation_id = "metrics",
    responses((status = 200, description = "The metrics.", content((String = "text/plain"), (String = "application/openmetrics-text")))))]
async fn metrics(
    caller: Caller,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Answer<Response> {
    // Who administers the server sees all tenants, everybody else only their own.
    let all = caller.engine.tenant().is_default() && caller.may_any(&[Scope::Operator]).is_ok();
    let only = (!all).then(|| caller.engine.tenant().clone());
    let text = app.metrics.text(only.as_ref()).await?;
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let (kind, text) = match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        ),
        _ => (
            "text/plain; version=0.0.4; charset=utf-8",
            crate::metrics::plain(&text),
        ),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "system", operation_id = "live",
    responses((status = 200, description = "It does.", body = String)))]
async fn live() -> &'static str {
    "ok\n"
}

async fn look(app: &App) -> Health {
    let mut checks = std::collections::BTreeMap::new();
    let engines = app.gate.tenants().all();
    let mut well = !engines.is_empty();
    for engine in engines {
        let answer = engine.statistics().await;
        let name = match engine.tenant() {
            tenant if tenant.is_default() => "store".to_owned(),
            // Other tenants' names are nobody else's business.
            _ => "other stores".to_owned(),
        };
        let said = match answer {
            Ok(_) => "healthy".to_owned(),
            Err(error) => {
                well = false;
                error.code.to_string()
            }
        };
        let entry = checks.entry(name).or_insert_with(|| said.clone());
        if said != "healthy" {
            *entry = said;
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Health {
        status: if well { "healthy" } else { "unhealthy" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timestamp: now.map_or(0, |now| now.as_millis() as u64),
        checks,
    }
}

fn as_status(health: &Health) -> StatusCode {
    if health.status == "healthy" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Whether the server can work: its stores answer.
#[utoipa::path(get, path = "/readyz", tag = "system", operation_id = "ready",
    responses((status = 200, description = "It can.", body = String), (status = 503, description = "It cannot.", body = String)))]
async fn ready(State(app): State<Arc<App>>) -> Response {
    let health = look(&app).await;
    let status = as_status(&health);
    let text = if status.is_success() {
        "ready\n"
    } else {
        "not ready\n"
    };
    (status, text).into_response()
}

/// How the server is, in more words.
#[utoipa::path(get, path = "/health", tag = "system", operation_id = "health",
    responses((status = 200, description = "It is well.", body = Health), (status = 503, description = "It is not.", body = Health)))]
async fn health(State(app): State<Arc<App>>) -> Response {
    let health = look(&app).await;
    (as_status(&health), Json(health)).into_response()
}

async fn document(State(app): State<Arc<App>>) -> Response {
    const JSON: &str = "application/json";
    ([(header::CONTENT_TYPE, JSON)], app.document.clone()).into_response()
}

async fn pages(State(app): State<Arc<App>>) -> Html<String> {
    Html(app.pages.clone())
}

fn of_default(caller: &Caller) -> Result<(), Error> {
    if caller.engine.tenant().is_default() {
        return Ok(());
    }
    let text = "tenants are administered with a key of the tenant “default”";
    Err(Error::new(Code::ScopeMissing, text))
}

/// List the tenants.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", operation_id = "tenant_list",
    responses((status = 200, description = "All of them.", body = TenantList)))]
async fn tenants(caller: Caller, State(app): State<Arc<App>>) -> Answer<Json<TenantList>> {
    of_default(&caller)?;
    let name = |tenant: Tenant| {
        Some(TenantRef {
            tenant: Name::new(tenant.as_str()).ok()?,
        })
    };
    let names = app.gate.tenants().names();
    Ok(Json(TenantList {
        items: names.into_iter().filter_map(name).collect(),
    }))
}

/// Make a tenant: a store, workers, keys and a log of its own.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", operation_id = "tenant_create",
    request_body = TenantRef, responses((status = 201, description = "It is there.", body = TenantRef)))]
async fn create_tenant(
    caller: Caller,
    State(app): State<Arc<App>>,
    Body(new): Body<TenantRef>,
) -> Answer<Made<TenantRef>> {
    of_default(&caller)?;
    let tenant: Tenant = new.tenant.parse()?;
    let tenants = Arc::clone(app.gate.tenants());
    let made = tokio::task::spawn_blocking(move || tenants.create(tenant).map(|_| ()));
    made.await
        .unwrap_or_else(|_| Err(Error::new(Code::Internal, "making a tenant")))?;
    Ok(Made(new))
}
