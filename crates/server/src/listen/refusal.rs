//! The few answers that are given below the router: no room, wrong protocol, a defect.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use domain::error::Error;
use serde_json::json;

/// `error` as problem details (RFC 9457).
pub(super) fn problem(status: StatusCode, error: &Error) -> Response<Body> {
    let body = json!({
        "type": "about:blank",
        "title": error.code.meaning(),
        "status": status.as_u16(),
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
        "retryable": error.code.retryable(),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
