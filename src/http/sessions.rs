//! `/v1/sessions`: started, listed, looked at, named and erased without a socket.
//!
//! A session is its user's; admins look at and erase everybody's, and list them with `?all=true`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::tasks::only_of;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::domain::SessionId;
use crate::protocol::ErrorFrame;
use crate::protocol::client::NAME_BYTES;
use crate::runtime::container_name;
use crate::store::{SessionFilter, SessionRecord};

/// `POST /v1/sessions {profile_id?, title?}`: answers when the session's container is up.
pub(super) async fn start(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut fields = body.fields(&gateway);
    let profile = fields.optional_profile("profile_id");
    let title = fields.optional_text("title", NAME_BYTES);
    fields.finish(Some(()))?;
    let id = gateway.orchestrator.start_session(&who, profile, title).await?;
    let ready = gateway.orchestrator.ready(id).await;
    let ready = ready.map_err(|refusal| ErrorFrame::from(refusal).about_session(id))?;
    let body = json!({
        "session_id": id,
        "container_id": ready.container_id,
        "container_name": ready.container_name,
        "profile_id": ready.profile_id,
    });
    Ok((StatusCode::CREATED, Json(body)))
}

/// `GET /v1/sessions?all=&limit=&cursor=`: newest first.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(SessionId::parse);
    let all = query.flag("all");
    query.finish()?;
    let filter = SessionFilter { user: only_of(&who, all)?, before: page.after };
    let sessions = gateway.orchestrator.store().sessions(&filter, page.look_up()).await?;
    Ok(Json(page.body("sessions", sessions, summary, |session| session.id.to_string())))
}

/// `GET /v1/sessions/{id}`: what `session.state` says, and more of what does not change.
pub(super) async fn read(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
) -> Result<Json<Value>, ApiError> {
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    whole(&gateway, &session).await
}

/// `PATCH /v1/sessions/{id} {title}`: `null` takes the title away.
pub(super) async fn rename(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    gateway.orchestrator.own_session(&who, id).await?;
    let mut fields = body.fields(&gateway);
    let title = fields.optional_text("title", NAME_BYTES);
    if !body.0.contains_key("title") {
        fields.problem("title", "is required; `null` takes the title away");
    }
    fields.finish(Some(()))?;
    gateway.orchestrator.rename_session(&who, id, title).await?;
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    whole(&gateway, &session).await
}

/// `DELETE /v1/sessions/{id}`: ends the session, then erases its history and files.
pub(super) async fn erase(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
) -> Result<StatusCode, ApiError> {
    gateway.orchestrator.erase_session(&who, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn whole(gateway: &Gateway, session: &SessionRecord) -> Result<Json<Value>, ApiError> {
    let state = gateway.orchestrator.state(session).await?;
    let mut body = summary(session);
    body["task"] = json!(state.task);
    body["queue"] = json!(state.queue);
    body["pending_ask"] = json!(state.pending_ask);
    Ok(Json(body))
}

fn summary(session: &SessionRecord) -> Value {
    json!({
        "session_id": session.id,
        "user_id": session.user,
        "status": session.status,
        "mode": session.mode,
        "title": session.title,
        "profile_id": session.profile,
        "container_id": session.container,
        "container_name": session.container.map(container_name),
        "usage": session.usage,
        "last_seq": session.last_seq,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    })
}
