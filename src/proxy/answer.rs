//! What an agent hears from the gateway itself, in the words of model APIs: their libraries show it to people.

use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::json;

/// What ends a body before its end.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of what the proxy answers.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A refusal. `kind` is what Anthropic would call it.
pub(super) fn refuse(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let error = json!({ "type": kind, "code": status.as_u16(), "message": format!("streamgate: {message}") });
    let text = json!({ "type": "error", "error": error }).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(BoxError::from).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 403: not for this agent, however often it asks.
pub(super) fn forbid(message: &str) -> Response<Body> {
    refuse(StatusCode::FORBIDDEN, "permission_error", message)
}

/// 429: later, perhaps.
pub(super) fn too_many(message: &str) -> Response<Body> {
    let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// 200 without a word: the way is open.
pub(super) fn connected() -> Response<Body> {
    Response::new(Empty::new().map_err(BoxError::from).boxed_unsync())
}
