//! The HTTP API: paths, what each needs, and how a request becomes a call of the contract.
//!
//! A route belongs to a group that names the scopes it needs; it cannot be mounted without one. A
//! handler gets a [`Caller`], whose engine is its tenant's, asked on its behalf, and does nothing but
//! translate. Rules are in `domain`.

mod answer;
mod board;
mod events;
mod keys;
mod messages;
mod pools;
mod runs;
mod stream;
mod system;
mod tasks;
mod tools;
mod workers;

pub use answer::Refusal;
pub use system::{Health, Skill};

use crate::auth::Gate;
use crate::metrics::Metrics;
use answer::problem;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use domain::credential::Scope;
use domain::error::{Code, Error};
use protocol::wire::REQUEST_ID;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

/// What one request may take, and how many may last.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in a body.
    pub body_bytes: usize,
    /// How long a request may wait for something to happen.
    pub wait: Duration,
    /// Event streams and worker streams at once, all tenants together.
    pub streams: usize,
    /// Events that a reader of a stream may be behind before it is told that it lags.
    pub lag_events: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            wait: Duration::from_secs(60),
            streams: 2_048,
            lag_events: 1_024,
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(crate) gate: Gate,
    pub(crate) limits: Limits,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) skills: Vec<Skill>,
    /// Origins whose pages may read answers; `*` is all of them.
    origins: Vec<HeaderValue>,
    document: String,
    pages: String,
}

impl App {
    /// An application behind this gate.
    pub fn new(gate: Gate, limits: Limits, skills: Vec<Skill>, origins: &[String]) -> Arc<Self> {
        let (_, document) = api();
        Arc::new(Self {
            metrics: Metrics::new(Arc::clone(gate.tenants())),
            gate,
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            skills,
            origins: origins.iter().filter_map(|o| o.parse().ok()).collect(),
            pages: crate::docs::page(&document),
            document: document.to_pretty_json().unwrap_or_default(),
        })
    }

    fn admits_page_of(&self, origin: &HeaderValue) -> bool {
        let named = |allowed: &HeaderValue| allowed == "*" || allowed == origin;
        self.origins.iter().any(named)
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

type Routes = OpenApiRouter<Arc<App>>;
/// What may be done with any of these scopes.
type Group<R> = (&'static [Scope], R);

/// Routes that need one of these scopes.
fn scoped(needed: &'static [Scope], routes: Routes) -> Group<Routes> {
    (needed, routes)
}

fn groups() -> Vec<Group<Routes>> {
    const READER: &[Scope] = &[Scope::Reader];
    const SUBMITTER: &[Scope] = &[Scope::Submitter];
    const WORKER: &[Scope] = &[Scope::Worker];
    // A worker takes a task up where earlier attempts left its steps.
    const STEPS: &[Scope] = &[Scope::Reader, Scope::Worker];
    const EITHER: &[Scope] = &[Scope::Submitter, Scope::Worker];
    const OPERATOR: &[Scope] = &[Scope::Operator];
    const ADMIN: &[Scope] = &[Scope::Admin];
    vec![
        scoped(
            READER,
            tasks::reading()
                .merge(runs::reading())
                .merge(workers::reading())
                .merge(pools::reading())
                .merge(tools::reading())
                .merge(board::reading())
                .merge(messages::reading())
                .merge(events::reading())
                .merge(system::reading()),
        ),
        scoped(SUBMITTER, tasks::submitting().merge(runs::submitting())),
        scoped(WORKER, workers::working().merge(tasks::working())),
        scoped(STEPS, tasks::steps()),
        scoped(
            EITHER,
            board::writing()
                .merge(messages::writing())
                .merge(tools::writing()),
        ),
        scoped(
            OPERATOR,
            tasks::operating()
                .merge(runs::operating())
                .merge(workers::operating())
                .merge(pools::operating())
                .merge(events::operating()),
        ),
        scoped(ADMIN, keys::administering().merge(system::administering())),
    ]
}

/// The routes with their gates, and the document that describes them.
fn api() -> (Vec<Group<Router<Arc<App>>>>, OpenApi) {
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Chargehand")
                .version("v1")
                .description(Some(include_str!("http/about.md")))
                .build(),
        )
        .build();
    let mut routers = Vec::new();
    for (needed, routes) in groups() {
        let (router, mut part) = routes.split_for_parts();
        answer::describe(&mut part, needed);
        document.merge(part);
        routers.push((needed, router));
    }
    let open = system::open_routes();
    let (router, part) = open.split_for_parts();
    document.merge(part);
    routers.push((&[], router));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "key",
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    answer::add_problem(components);
    (routers, document)
}

/// The OpenAPI document of this version, as JSON.
pub fn openapi() -> String {
    api().1.to_pretty_json().unwrap_or_default()
}

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let mut all = Router::new();
    for (needed, router) in api().0 {
        let router = if needed.is_empty() {
            router
        } else {
            router.route_layer(from_fn_with_state((Arc::clone(&app), needed), guard))
        };
        all = all.merge(router);
    }
    all.fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

async fn no_route(request: Request) -> Refusal {
    let text = format!("there is nothing at {}", shown(request.uri().path()));
    Error::new(Code::RouteUnknown, text).into()
}

async fn no_method(request: Request) -> Refusal {
    let (method, path) = (request.method(), shown(request.uri().path()));
    Error::new(Code::MethodUnknown, format!("{path} does not do {method}")).into()
}

fn shown(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// Lets a request through to the routes behind it if its bearer may use them.
async fn guard(
    State((app, needed)): State<(Arc<App>, &'static [Scope])>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match app.gate.admit(request.headers()) {
        Ok(caller) => caller,
        Err(refused) => {
            let mut response = problem(&refused.error);
            if let Some(seconds) = refused.retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            return response;
        }
    };
    if let Err(error) = caller.may_any(needed) {
        return problem(&error);
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Names the request, counts it, and lets pages of allowed origins read the answer.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    const ID: HeaderName = HeaderName::from_static(REQUEST_ID);
    let begin = Instant::now();
    let id = match request.headers().get(&ID) {
        Some(id) if domain::name::Name::new(id.to_str().unwrap_or_default()).is_ok() => id.clone(),
        _ => {
            let id = answer::fresh_id();
            request.headers_mut().insert(ID, id.clone());
            id
        }
    };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| app.admits_page_of(origin));
    if allowed.is_some() && request.method() == Method::OPTIONS {
        return cors(answer::preflight(), allowed);
    }
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let route = route.as_deref().unwrap_or("(none)");
    let took = begin.elapsed();
    app.metrics.request(&method, route, response.status(), took);
    tracing::debug!(
        %method,
        route,
        status = response.status().as_u16(),
        request_id = id.to_str().unwrap_or_default(),
        took_us = took.as_micros() as u64,
        "request"
    );
    response = answer::name(response, &id);
    response.headers_mut().insert(ID, id);
    cors(response, allowed)
}

fn cors(mut response: Response, allowed: Option<HeaderValue>) -> Response {
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, etag, location, retry-after"),
        );
    }
    response
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        problem(&self.0)
    }
}
