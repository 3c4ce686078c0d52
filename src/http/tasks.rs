//! `/v1/tasks`: submit, list, look at, cancel and answer without a socket.
//!
//! A task is its user's; admins look at and cancel everybody's, and list them with `?all=true`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::domain::{AskId, SessionId, TaskId, TaskState, UserId};
use crate::orchestrator::Refusal;
use crate::protocol::link::fill_links_in_text;
use crate::protocol::{ErrorCode, ErrorFrame, Submit};
use crate::store::{TaskFilter, TaskRecord};

/// `POST /v1/tasks`: the body is a `task.submit`. Answers when the task can't be lost any more; whether
/// there is a container for it is then told by the task itself.
pub(super) async fn submit(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut fields = body.fields(&gateway);
    let submit = Submit::read(&mut fields);
    let submit = fields.finish(submit)?;
    let submitted = gateway.orchestrator.submit(&who, submit).await?.await?;
    let body = json!({
        "task_id": submitted.task_id,
        "session_id": submitted.session_id,
        // A repeat under an idempotency key is answered like the first.
        "status": TaskState::Queued,
        "created_at": submitted.created_at,
    });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// `GET /v1/tasks?session_id=&status=&all=&limit=&cursor=`: newest first, prompts cut short, without
/// results.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(TaskId::parse);
    let session = query.text("session_id");
    let state = query.word("status", TaskState::ALL, TaskState::as_str);
    let all = query.flag("all");
    query.finish()?;
    let mut filter = TaskFilter { user: only_of(&who, all)?, state, before: page.after, ..TaskFilter::default() };
    if let Some(session) = session {
        let session = SessionId::parse(&session).ok_or_else(ErrorFrame::session_not_found)?;
        gateway.orchestrator.readable_session(&who, session).await?;
        // Whoever may read a session may read all its tasks.
        filter = TaskFilter { session: Some(session), user: None, ..filter };
    }
    let tasks = gateway.orchestrator.store().tasks(&filter, page.look_up()).await?;
    Ok(Json(page.body("tasks", tasks, summary, |task| task.id.to_string())))
}

/// `GET /v1/tasks/{id}`: all of it, with its `result` once it has ended and its open question while it
/// waits for the answer.
pub(super) async fn read(State(gateway): State<Gateway>, who: Principal, id: TaskId) -> Result<Json<Value>, ApiError> {
    let task = gateway.orchestrator.readable_task(&who, id).await?;
    let mut body = summary(&task);
    body["options"] = json!(task.options);
    body["pending_ask"] = json!(gateway.orchestrator.pending_ask(&task).await.map_err(Refusal::from)?);
    body["result"] = if task.state.is_terminal() { result(&gateway, &task) } else { Value::Null };
    Ok(Json(body))
}

/// `DELETE /v1/tasks/{id}`: cancels. Answers when nothing of the task runs any more; of a task that has
/// ended, with how it did.
pub(super) async fn cancel(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TaskId,
) -> Result<Json<Value>, ApiError> {
    let (session, state) = gateway.orchestrator.cancel(&who, id).await?;
    Ok(Json(json!({ "task_id": id, "session_id": session, "status": state })))
}

/// `POST /v1/tasks/{id}/answer`: the body is a `task.answer`.
pub(super) async fn answer(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TaskId,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut fields = body.fields(&gateway);
    let ask = fields.optional_id(
        "ask_id",
        AskId::parse,
        ErrorFrame::new(ErrorCode::Conflict, "no such question; leave `ask_id` out to answer the oldest open one"),
    );
    let answer = fields.answer();
    // Whose the task is comes first: what is wrong with an answer is told only to who may give one.
    let answer = match gateway.orchestrator.readable_task(&who, id).await {
        Ok(_) => fields.finish(answer)?,
        Err(refusal) => return Err(refusal.into()),
    };
    let session = gateway.orchestrator.answer(&who, id, ask, answer).await?;
    Ok(Json(json!({ "task_id": id, "session_id": session })))
}

/// Whose entries a list shows: one's own, or for admins who ask for it everybody's.
pub(super) fn only_of(who: &Principal, all: bool) -> Result<Option<UserId>, ApiError> {
    match (all, who.is_admin) {
        (false, _) => Ok(Some(who.user.clone())),
        (true, true) => Ok(None),
        (true, false) => {
            Err(ErrorFrame::new(ErrorCode::Forbidden, "only admins list everybody's; leave `all` out").into())
        }
    }
}

fn summary(task: &TaskRecord) -> Value {
    json!({
        "task_id": task.id,
        "session_id": task.session,
        "user_id": task.user,
        "status": task.state,
        "mode": task.mode,
        "priority": task.priority,
        "prompt": task.prompt,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
    })
}

fn result(gateway: &Gateway, task: &TaskRecord) -> Value {
    let text =
        task.result_text.as_deref().map(|text| fill_links_in_text(text, |path| gateway.links.url(task.session, path)));
    json!({
        "result_text": text,
        "usage": task.usage,
        "stop_reason": task.stop_reason,
        "error": task.error,
        "retryable": task.retryable,
    })
}
