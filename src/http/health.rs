//! `/health` (is the process alive, for everybody) and `/health/ready` (should traffic come here).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::Gateway;
use crate::runtime::pool::PoolStats;

/// A process that is alive.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// It is.
    ok: bool,
    /// Which streamgate.
    version: &'static str,
    /// Its boxes.
    pool: PoolStats,
}

/// Whether traffic should come here.
#[derive(Serialize, JsonSchema)]
pub(super) struct Readiness {
    /// Whether it should.
    ready: bool,
    /// Whether the database answers.
    storage: bool,
    /// Whether the gateway is about to end.
    draining: bool,
}

/// Alive. Touches nothing that can be away.
pub(super) async fn live(State(gateway): State<Gateway>) -> Json<Health> {
    let pool = gateway.orchestrator.pool().stats();
    Json(Health { ok: true, version: env!("CARGO_PKG_VERSION"), pool })
}

/// Ready: storage answers and the gateway is not draining.
pub(super) async fn ready(State(gateway): State<Gateway>) -> Response {
    gateway.closing.look();
    let draining = gateway.closing.is_draining();
    let storage =
        gateway.orchestrator.hub().journal().is_available() && gateway.orchestrator.store().ping().await.is_ok();
    let status = if storage && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: status == StatusCode::OK, storage, draining })).into_response()
}
