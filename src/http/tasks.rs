//! `/v1/tasks`: submit, list, look at, cancel and answer without a socket.
//!
//! A task is its user's; admins look at and cancel everybody's, and list them with `?all=true`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::query::Query;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::domain::{AskId, Mode, Priority, SessionId, TaskId, TaskState, Timestamp, Usage, UserId};
use crate::orchestrator::Refusal;
use crate::protocol::client::TaskOptions;
use crate::protocol::link::fill_links_in_text;
use crate::protocol::reply::PendingAsk;
use crate::protocol::{Answer, ErrorCode, ErrorFrame, Submit};
use crate::store::{TaskFilter, TaskRecord};

/// A prompt that was accepted.
#[derive(Serialize, JsonSchema)]
pub(super) struct AcceptedTask {
    /// The task it makes.
    task_id: TaskId,
    /// Its session.
    session_id: SessionId,
    /// A repeat under an idempotency key is answered like the first.
    status: TaskState,
    /// When it was accepted.
    created_at: Timestamp,
}

/// A task, as lists show it.
#[derive(Serialize, JsonSchema)]
pub(super) struct TaskView {
    /// Which.
    task_id: TaskId,
    /// Its session.
    session_id: SessionId,
    /// Who wants it.
    user_id: UserId,
    /// Where it is in its life.
    status: TaskState,
    /// How it relates to its session.
    mode: Mode,
    /// Its place in line.
    priority: Priority,
    /// What is wanted; its beginning only in lists.
    prompt: String,
    /// When it was accepted.
    created_at: Timestamp,
    /// When its turn came.
    started_at: Option<Timestamp>,
    /// When it ended.
    ended_at: Option<Timestamp>,
}

/// Tasks, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct TaskList {
    /// Those of this page.
    tasks: Vec<TaskView>,
    /// Where the next page starts; `null` on the last one.
    next_cursor: Option<String>,
}

/// All of a task.
#[derive(Serialize, JsonSchema)]
pub(super) struct WholeTask {
    #[serde(flatten)]
    task: TaskView,
    /// The agent's settings.
    options: TaskOptions,
    /// Its open question.
    pending_ask: Option<PendingAsk>,
    /// What came of it, once it has ended.
    result: Option<TaskResult>,
}

/// What came of a task.
#[derive(Serialize, JsonSchema)]
pub(super) struct TaskResult {
    /// All its text, polished, links signed.
    result_text: Option<String>,
    /// What it used.
    usage: Usage,
    /// Why its turn ended: `end_turn`, `max_turns` or `cancelled`; more may come. `null`: it failed.
    stop_reason: Option<String>,
    /// Why it failed.
    error: Option<String>,
    /// Whether the same prompt may succeed later.
    retryable: Option<bool>,
}

/// A task that is cancelled, or had ended before.
#[derive(Serialize, JsonSchema)]
pub(super) struct CancelledTask {
    /// Which.
    task_id: TaskId,
    /// Its session.
    session_id: SessionId,
    /// How it ended.
    status: TaskState,
}

/// What the user says to a question.
#[derive(JsonSchema)]
pub(super) struct AnswerBody {
    /// Which question; the oldest open one if absent.
    ask_id: Option<AskId>,
    /// The answer.
    answer: Answer,
}

/// A question that is answered.
#[derive(Serialize, JsonSchema)]
pub(super) struct AnsweredTask {
    /// Whose it was.
    task_id: TaskId,
    /// Its session.
    session_id: SessionId,
}

/// `POST /v1/tasks`: the body is a `task.submit`. Answers when the task can't be lost any more; whether
/// there is a container for it is then told by the task itself.
pub(super) async fn submit(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<AcceptedTask>), ApiError> {
    let mut fields = body.fields(&gateway);
    let submit = Submit::read(&mut fields);
    let submit = fields.finish(submit)?;
    let submitted = gateway.orchestrator.submit(&who, submit).await?.await?;
    let body = AcceptedTask {
        task_id: submitted.task_id,
        session_id: submitted.session_id,
        status: TaskState::Queued,
        created_at: submitted.created_at,
    };
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// `GET /v1/tasks?session_id=&status=&all=&limit=&cursor=`: newest first, prompts cut short, without
/// results.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<TaskList>, ApiError> {
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
    let (tasks, next_cursor) = page.cut(tasks, |task| task.id.to_string());
    Ok(Json(TaskList { tasks: tasks.into_iter().map(TaskView::from).collect(), next_cursor }))
}

/// `GET /v1/tasks/{id}`: all of it, with its `result` once it has ended and its open question while it
/// waits for the answer.
pub(super) async fn read(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TaskId,
) -> Result<Json<WholeTask>, ApiError> {
    let task = gateway.orchestrator.readable_task(&who, id).await?;
    let pending_ask = gateway.orchestrator.pending_ask(&task).await.map_err(Refusal::from)?;
    let result = task.state.is_terminal().then(|| result(&gateway, &task));
    Ok(Json(WholeTask { options: task.options.clone(), task: task.into(), pending_ask, result }))
}

/// `DELETE /v1/tasks/{id}`: cancels. Answers when nothing of the task runs any more; of a task that has
/// ended, with how it did.
pub(super) async fn cancel(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TaskId,
) -> Result<Json<CancelledTask>, ApiError> {
    let (session, state) = gateway.orchestrator.cancel(&who, id).await?;
    Ok(Json(CancelledTask { task_id: id, session_id: session, status: state }))
}

/// `POST /v1/tasks/{id}/answer`: the body is a `task.answer`.
pub(super) async fn answer(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TaskId,
    body: Body,
) -> Result<Json<AnsweredTask>, ApiError> {
    let mut fields = body.fields(&gateway);
    let ask_id = fields.optional_id(
        "ask_id",
        AskId::parse,
        ErrorFrame::new(ErrorCode::Conflict, "no such question; leave `ask_id` out to answer the oldest open one"),
    );
    let body = fields.answer().map(|answer| AnswerBody { ask_id, answer });
    // Whose the task is comes first: what is wrong with an answer is told only to who may give one.
    let AnswerBody { ask_id, answer } = match gateway.orchestrator.readable_task(&who, id).await {
        Ok(_) => fields.finish(body)?,
        Err(refusal) => return Err(refusal.into()),
    };
    let session = gateway.orchestrator.answer(&who, id, ask_id, answer).await?;
    Ok(Json(AnsweredTask { task_id: id, session_id: session }))
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

impl From<TaskRecord> for TaskView {
    fn from(task: TaskRecord) -> Self {
        Self {
            task_id: task.id,
            session_id: task.session,
            user_id: task.user,
            status: task.state,
            mode: task.mode,
            priority: task.priority,
            prompt: task.prompt,
            created_at: task.created_at,
            started_at: task.started_at,
            ended_at: task.ended_at,
        }
    }
}

fn result(gateway: &Gateway, task: &TaskRecord) -> TaskResult {
    let text =
        task.result_text.as_deref().map(|text| fill_links_in_text(text, |path| gateway.links.url(task.session, path)));
    TaskResult {
        result_text: text,
        usage: task.usage,
        stop_reason: task.stop_reason.clone(),
        error: task.error.clone(),
        retryable: task.retryable,
    }
}
