//! `/health` (is the process alive, for everybody) and `/health/ready` (should traffic come here).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Gateway;

/// Alive. Touches nothing that can be away.
pub(super) async fn live(State(gateway): State<Gateway>) -> Response {
    Json(json!({
        "ok": true,
        "version": env!("CARGO_PKG_VERSION"),
        "pool": gateway.orchestrator.pool().stats(),
    }))
    .into_response()
}

/// Ready: storage answers and the gateway is not draining.
pub(super) async fn ready(State(gateway): State<Gateway>) -> Response {
    gateway.closing.look();
    let draining = gateway.closing.is_draining();
    let storage =
        gateway.orchestrator.hub().journal().is_available() && gateway.orchestrator.store().ping().await.is_ok();
    let status = if storage && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": status == StatusCode::OK, "storage": storage, "draining": draining })))
        .into_response()
}
