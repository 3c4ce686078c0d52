//! The doors: routes, who may pass, and how errors look over HTTP.
//!
//! `http::stream` upgrades to the socket; the others are REST beside it, with the same credentials,
//! ownership and validation. Every handler calls the same orchestrator as the socket does.

mod events;
mod files;
mod health;
mod openapi;
mod operators;
mod pace;
mod page;
mod path;
mod profiles;
mod query;
mod reference;
pub mod server;
mod sessions;
mod sse;
mod stream;
mod tasks;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

pub use self::reference::documents;
use crate::auth::{AuthError, Principal};
use crate::connection::Shared;
use crate::orchestrator::Refusal;
use crate::protocol::{ErrorCode, ErrorFrame, Fields, TextLimits};

/// What every handler gets.
pub(crate) type Gateway = Arc<Shared>;

/// All routes of the public listener.
pub fn routes(shared: Arc<Shared>) -> Router {
    let frame_bytes = shared.limits.frame_bytes;
    let file_bytes = shared.limits.file_bytes;
    let files = routed(of_files())
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(file_bytes));
    let api = routed(of_api())
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(frame_bytes));
    routed(of_health())
        .route("/", get(page::front))
        .route("/assets/{name}", get(page::asset))
        .route("/docs", get(reference::docs))
        .route("/v1/stream", get(stream::upgrade))
        .merge(api)
        .merge(files)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), pace::keep_pace))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(error_bodies))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), count_errors))
        .with_state(shared)
}

/// A path and what is done there. What `openapi` describes is listed so, for its test.
type Route = (&'static str, MethodRouter<Gateway>);

fn of_api() -> Vec<Route> {
    vec![
        ("/v1/tasks", post(tasks::submit).get(tasks::list)),
        ("/v1/tasks/{id}", get(tasks::read).delete(tasks::cancel)),
        ("/v1/tasks/{id}/answer", post(tasks::answer)),
        ("/v1/sessions", post(sessions::start).get(sessions::list)),
        ("/v1/sessions/{id}", get(sessions::read).patch(sessions::rename).delete(sessions::erase)),
        ("/v1/sessions/{id}/events", get(events::read)),
        ("/v1/sessions/{id}/stream", get(sse::follow)),
        ("/v1/sessions/{id}/files", get(files::list)),
        ("/v1/profiles", get(profiles::list)),
        ("/v1/api-tokens", post(tokens::create).get(tokens::list)),
        ("/v1/api-tokens/{id}", delete(tokens::revoke)),
        ("/v1/openapi.json", get(reference::openapi)),
        ("/v1/asyncapi.json", get(reference::asyncapi)),
    ]
}

fn of_files() -> Vec<Route> {
    vec![("/v1/sessions/{id}/files/{*path}", get(files::read).put(files::write))]
}

fn of_health() -> Vec<Route> {
    vec![("/health", get(health::live)), ("/health/ready", get(health::ready))]
}

fn routed(routes: Vec<Route>) -> Router<Gateway> {
    routes.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// All routes of the operators' listener.
pub fn operators(shared: Arc<Shared>) -> Router {
    routed(of_health())
        .route("/metrics", get(operators::metrics))
        .fallback(operators::not_found)
        .method_not_allowed_fallback(operators::method_not_allowed)
        .layer(middleware::from_fn(error_bodies))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(shared)
}

/// An error as an HTTP answer: `{"error": {"code", "message", …}}`.
#[derive(Debug)]
pub struct ApiError(pub Box<ErrorFrame>);

/// An error over HTTP.
#[derive(Serialize, JsonSchema)]
struct ErrorBody<'a> {
    /// What is wrong.
    error: &'a ErrorFrame,
}

impl From<ErrorFrame> for ApiError {
    fn from(error: ErrorFrame) -> Self {
        Self(Box::new(error))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        ErrorFrame::from(refusal).into()
    }
}

impl From<crate::database::DatabaseError> for ApiError {
    fn from(error: crate::database::DatabaseError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        auth_error(&error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.0.code.status();
        let retry_after = self.0.retry_after_ms;
        let mut response = (status, axum::Json(ErrorBody { error: &self.0 })).into_response();
        response.extensions_mut().insert(self.0.code);
        if let Some(wait) = retry_after
            && let Ok(seconds) = HeaderValue::from_str(&wait.div_ceil(1_000).to_string())
        {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What clients hear of a credential that did not do. The socket closes with the code that goes with it.
pub(crate) fn auth_error(error: &AuthError) -> ErrorFrame {
    match error {
        AuthError::Unauthorized(why) => ErrorFrame::new(ErrorCode::Unauthorized, *why),
        AuthError::OriginRefused => ErrorFrame::new(
            ErrorCode::Forbidden,
            "this origin may not use session cookies; add it to `auth.allowed_origins`, or use a token",
        ),
        AuthError::Unavailable(cause) => {
            tracing::error!(error = %cause, "A credential could not be checked: {cause}");
            ErrorFrame::new(ErrorCode::StorageUnavailable, "your credential can't be checked now; try again shortly")
                .retry_after(1_000)
        }
    }
}

impl FromRequestParts<Gateway> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let credential = gateway.authenticator.credential_from_request(&parts.method, &parts.headers, &parts.uri)?;
        Ok(gateway.authenticator.authenticate(&credential).await?)
    }
}

/// A request body: one JSON object. An empty body is an empty object.
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// Reads its fields with the same rules as a frame's.
    pub(crate) fn fields(&self, gateway: &Gateway) -> Fields<'_> {
        Fields::new(&self.0, TextLimits { prompt_bytes: gateway.limits.prompt_bytes })
    }
}

impl axum::extract::FromRequest<Gateway> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, gateway).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large(gateway.limits.frame_bytes)
            } else {
                ErrorFrame::new(ErrorCode::InvalidJson, "the body could not be read; send one JSON object")
            }
        })?;
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        let object = serde_json::from_slice(&bytes)
            .map_err(|_| ErrorFrame::new(ErrorCode::InvalidJson, "the body must be one JSON object"))?;
        Ok(Self(object))
    }
}

pub(crate) fn too_large(limit: usize) -> ErrorFrame {
    ErrorFrame::new(ErrorCode::PayloadTooLarge, format!("the body is over {limit} bytes; send less"))
}

async fn not_found() -> ApiError {
    ErrorFrame::new(ErrorCode::NotFound, "no such route; `GET /` says what there is").into()
}

async fn method_not_allowed() -> Response {
    wrong_method("this route does not know the method; `GET /` says what there is")
}

fn wrong_method(message: &str) -> Response {
    let error = ErrorFrame::new(ErrorCode::NotFound, message);
    let mut response = ApiError::from(error).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Gives errors of the layers below, which have no JSON body, one of ours; and tells caches to keep
/// their hands off.
async fn error_bodies(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let is_json = |response: &Response| {
        response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE && !is_json(&response) {
        let error = ErrorFrame::new(ErrorCode::PayloadTooLarge, "the body is over the limit; send less");
        response = ApiError::from(error).into_response();
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// Counts the errors that clients are answered with.
async fn count_errors(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(code) = response.extensions().get::<ErrorCode>() {
        gateway.metrics.rest_error(*code);
    }
    response
}

/// A panic costs its own request only.
fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    ApiError::from(crate::orchestrator::internal_error("a handler panicked; its message is above")).into_response()
}
