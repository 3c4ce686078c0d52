//! `GET /v1/profiles`: the agents that there are for this user.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::Gateway;
use crate::auth::Principal;
use crate::domain::ProfileId;

/// An agent to choose.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProfileView {
    /// What to send as `profile_id`.
    profile_id: ProfileId,
    /// What people call it.
    name: String,
    /// Whether it is the one that is taken when none is named.
    default: bool,
    /// Its model, if it names one.
    model: Option<String>,
    /// The tools it may use; `null` where that is the agent's own business.
    allowed_tools: Option<Vec<String>>,
}

/// Agents to choose from.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProfileList {
    /// In order of their ids.
    profiles: Vec<ProfileView>,
}

/// Those that the user may use; neither what they run nor what they are told.
pub(super) async fn list(State(gateway): State<Gateway>, who: Principal) -> Json<ProfileList> {
    let profiles = gateway.orchestrator.profiles(&who).map(|(id, profile, default)| ProfileView {
        profile_id: id.clone(),
        name: profile.name.clone(),
        default,
        model: (!profile.model.is_empty()).then(|| profile.model.clone()),
        allowed_tools: (!profile.allowed_tools.is_empty()).then(|| profile.allowed_tools.clone()),
    });
    Json(ProfileList { profiles: profiles.collect() })
}
