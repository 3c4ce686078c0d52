//! `/v1/sessions`: started, listed, looked at, named and erased without a socket.
//!
//! A session is its user's; admins look at and erase everybody's, and list them with `?all=true`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::query::Query;
use super::tasks::only_of;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::domain::{ContainerId, Mode, ProfileId, Seq, SessionId, SessionStatus, Timestamp, Usage, UserId};
use crate::protocol::ErrorFrame;
use crate::protocol::client::{NAME_BYTES, TEXT};
use crate::protocol::reply::{PendingAsk, TaskSummary};
use crate::runtime::container_name;
use crate::store::{SessionFilter, SessionRecord};

/// A session to be.
#[derive(JsonSchema)]
pub(super) struct StartBody {
    /// Which agent; the user's default if absent.
    profile_id: Option<ProfileId>,
    /// What to call the session; if absent, the first words of its first prompt.
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    title: Option<String>,
}

/// A session whose container is up.
#[derive(Serialize, JsonSchema)]
pub(super) struct StartedSession {
    /// Which.
    session_id: SessionId,
    /// Its container.
    container_id: ContainerId,
    /// What the container is called.
    container_name: String,
    /// Its profile.
    profile_id: ProfileId,
}

/// A session, as lists show it.
#[derive(Serialize, JsonSchema)]
pub(super) struct SessionView {
    /// Which.
    session_id: SessionId,
    /// Its owner.
    user_id: UserId,
    /// Whether it takes turns.
    status: SessionStatus,
    /// A conversation, or for one batch task.
    mode: Mode,
    /// What its user calls it; else the first words of its first prompt.
    title: Option<String>,
    /// Which agent.
    profile_id: ProfileId,
    /// The box it lives in, once it has one.
    container_id: Option<ContainerId>,
    /// What that is called.
    container_name: Option<String>,
    /// Summed over its tasks.
    usage: Usage,
    /// Its last event.
    last_seq: Seq,
    /// When it was made.
    created_at: Timestamp,
    /// When it last did something.
    updated_at: Timestamp,
}

/// Sessions, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct SessionList {
    /// Those of this page.
    sessions: Vec<SessionView>,
    /// Where the next page starts; `null` on the last one.
    next_cursor: Option<String>,
}

/// All of a session.
#[derive(Serialize, JsonSchema)]
pub(super) struct WholeSession {
    #[serde(flatten)]
    session: SessionView,
    /// The task at work.
    task: Option<TaskSummary>,
    /// The tasks that wait, next first.
    queue: Vec<TaskSummary>,
    /// The oldest open question.
    pending_ask: Option<PendingAsk>,
}

/// What to call a session.
#[derive(JsonSchema)]
#[schemars(extend("required" = ["title"]))]
pub(super) struct RenameBody {
    /// `null` takes the title away.
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    title: Option<String>,
}

/// `POST /v1/sessions {profile_id?, title?}`: answers when the session's container is up.
pub(super) async fn start(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<StartedSession>), ApiError> {
    let mut fields = body.fields(&gateway);
    let body = StartBody {
        profile_id: fields.optional_profile("profile_id"),
        title: fields.optional_text("title", NAME_BYTES),
    };
    let StartBody { profile_id, title } = fields.finish(Some(body))?;
    let id = gateway.orchestrator.start_session(&who, profile_id, title).await?;
    let ready = gateway.orchestrator.ready(id).await;
    let ready = ready.map_err(|refusal| ErrorFrame::from(refusal).about_session(id))?;
    let body = StartedSession {
        session_id: id,
        container_id: ready.container_id,
        container_name: ready.container_name,
        profile_id: ready.profile_id,
    };
    Ok((StatusCode::CREATED, Json(body)))
}

/// `GET /v1/sessions?all=&limit=&cursor=`: newest first.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<SessionList>, ApiError> {
    let page = query.page(SessionId::parse);
    let all = query.flag("all");
    query.finish()?;
    let filter = SessionFilter { user: only_of(&who, all)?, before: page.after };
    let sessions = gateway.orchestrator.store().sessions(&filter, page.look_up()).await?;
    let (sessions, next_cursor) = page.cut(sessions, |session| session.id.to_string());
    Ok(Json(SessionList { sessions: sessions.into_iter().map(SessionView::from).collect(), next_cursor }))
}

/// `GET /v1/sessions/{id}`: what `session.state` says, and more of what does not change.
pub(super) async fn read(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
) -> Result<Json<WholeSession>, ApiError> {
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    whole(&gateway, session).await
}

/// `PATCH /v1/sessions/{id} {title}`: `null` takes the title away.
pub(super) async fn rename(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
    body: Body,
) -> Result<Json<WholeSession>, ApiError> {
    gateway.orchestrator.own_session(&who, id).await?;
    let mut fields = body.fields(&gateway);
    let rename = RenameBody { title: fields.optional_text("title", NAME_BYTES) };
    if !body.0.contains_key("title") {
        fields.problem("title", "is required; `null` takes the title away");
    }
    let RenameBody { title } = fields.finish(Some(rename))?;
    gateway.orchestrator.rename_session(&who, id, title).await?;
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    whole(&gateway, session).await
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

async fn whole(gateway: &Gateway, session: SessionRecord) -> Result<Json<WholeSession>, ApiError> {
    let state = gateway.orchestrator.state(&session).await?;
    let (task, queue, pending_ask) = (state.task, state.queue, state.pending_ask);
    Ok(Json(WholeSession { session: session.into(), task, queue, pending_ask }))
}

impl From<SessionRecord> for SessionView {
    fn from(session: SessionRecord) -> Self {
        Self {
            session_id: session.id,
            user_id: session.user,
            status: session.status,
            mode: session.mode,
            title: session.title,
            profile_id: session.profile,
            container_id: session.container,
            container_name: session.container.map(container_name),
            usage: session.usage,
            last_seq: session.last_seq,
            created_at: session.created_at,
            updated_at: session.updated_at,
        }
    }
}
