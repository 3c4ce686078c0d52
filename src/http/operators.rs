//! `/metrics`, for operators, who have a listener of their own: it asks nobody who they are.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{ApiError, Gateway, wrong_method};
use crate::metrics::{CONTENT_TYPE, Snapshot};
use crate::protocol::{ErrorCode, ErrorFrame};

/// Everything that is counted. Touches nothing that can be away.
pub(super) async fn metrics(State(gateway): State<Gateway>) -> Response {
    let pool = gateway.orchestrator.pool().stats();
    let text = gateway.metrics.render(Snapshot {
        connections: gateway.connections.count(),
        sessions: gateway.orchestrator.sessions_at_work(),
        containers_running: pool.running,
        containers_idle: pool.idle,
        containers_warm: pool.warm,
        containers_limit: pool.limit,
        journal_available: gateway.orchestrator.hub().journal().is_available(),
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

pub(super) async fn not_found() -> ApiError {
    ErrorFrame::new(ErrorCode::NotFound, "no such route; there are /metrics, /health and /health/ready").into()
}

pub(super) async fn method_not_allowed() -> Response {
    wrong_method("this route knows only GET")
}
