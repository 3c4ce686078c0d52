//! `GET /v1/profiles`: the agents that there are for this user.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Gateway;
use crate::auth::Principal;

/// Those that the user may use; neither what they run nor what they are told.
pub(super) async fn list(State(gateway): State<Gateway>, who: Principal) -> Json<Value> {
    let profiles = gateway.orchestrator.profiles(&who).map(|(id, profile, is_default)| {
        json!({
            "profile_id": id,
            "name": profile.name,
            "default": is_default,
            "model": (!profile.model.is_empty()).then_some(&profile.model),
            "allowed_tools": (!profile.allowed_tools.is_empty()).then_some(&profile.allowed_tools),
        })
    });
    Json(json!({ "profiles": profiles.collect::<Vec<_>>() }))
}
