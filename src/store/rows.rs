//! Rows as the tables hold them, and as everybody else reads them.

use sqlx::FromRow;

use crate::database::DatabaseError;
use crate::domain::{
    AskId, ContainerId, Mode, Priority, ProfileId, Seq, SessionId, SessionStatus, SpoolId, TaskId, TaskState,
    Timestamp, Usage, UserId,
};
use crate::protocol::Answer;
use crate::protocol::client::TaskOptions;
use crate::protocol::event::Question;

/// A session.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Which.
    pub id: SessionId,
    /// Its owner.
    pub user: UserId,
    /// Its agent.
    pub profile: ProfileId,
    /// A conversation, or for one batch task.
    pub mode: Mode,
    /// What its user calls it.
    pub title: Option<String>,
    /// Whether it takes turns.
    pub status: SessionStatus,
    /// The box it lives in, once it has one.
    pub container: Option<ContainerId>,
    /// What that box's agent says.
    pub spool: Option<SpoolId>,
    /// The last record of it that has been dealt with.
    pub spool_record: u64,
    /// What is known of the run at work besides its events, as JSON. For its worker alone: others see `None`.
    pub run_state: Option<String>,
    /// Why it is to be closed, if it is. For its worker alone, as [`Self::run_state`].
    pub ending: Option<String>,
    /// Its last event.
    pub last_seq: Seq,
    /// Summed over its tasks.
    pub usage: Usage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last did something.
    pub updated_at: Timestamp,
}

/// A task.
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// Which.
    pub id: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who wants it.
    pub user: UserId,
    /// Where it is in its life.
    pub state: TaskState,
    /// How it relates to its session.
    pub mode: Mode,
    /// Its place in line.
    pub priority: Priority,
    /// What is wanted.
    pub prompt: String,
    /// The agent's settings.
    pub options: TaskOptions,
    /// The event that holds the prompt.
    pub prompt_seq: Seq,
    /// All its text, links as placeholders.
    pub result_text: Option<String>,
    /// Why its turn ended.
    pub stop_reason: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it may succeed later.
    pub retryable: Option<bool>,
    /// What it used.
    pub usage: Usage,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its turn came.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A question an agent put to the user.
#[derive(Clone, Debug)]
pub struct QuestionRecord {
    /// Which.
    pub id: AskId,
    /// Who asks.
    pub task: TaskId,
    /// What is asked.
    pub questions: Vec<Question>,
    /// What was said.
    pub answer: Option<Answer>,
    /// When it was asked.
    pub asked_at: Timestamp,
}

#[derive(FromRow)]
pub(super) struct SessionRow {
    id: String,
    user_id: String,
    profile_id: String,
    mode: String,
    title: Option<String>,
    status: String,
    container_id: Option<String>,
    spool_id: Option<String>,
    spool_record: i64,
    run_state: Option<String>,
    ending: Option<String>,
    last_seq: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost_usd: f64,
    created_at: i64,
    updated_at: i64,
}

/// A session and the claim to it.
#[derive(FromRow)]
pub(super) struct ClaimedRow {
    #[sqlx(flatten)]
    pub(super) session: SessionRow,
    pub(super) epoch: i64,
}

#[derive(FromRow)]
pub(super) struct TaskRow {
    id: String,
    session_id: String,
    user_id: String,
    state: String,
    mode: String,
    priority: i64,
    prompt: String,
    options: String,
    prompt_seq: i64,
    result_text: Option<String>,
    stop_reason: Option<String>,
    error: Option<String>,
    retryable: Option<bool>,
    input_tokens: i64,
    output_tokens: i64,
    cost_usd: f64,
    created_at: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
}

#[derive(FromRow)]
pub(super) struct QuestionRow {
    id: String,
    task_id: String,
    questions: String,
    answer: Option<String>,
    asked_at: i64,
}

fn usage(input_tokens: i64, output_tokens: i64, cost_usd: f64) -> Usage {
    let count = |tokens| u64::try_from(tokens).unwrap_or(0);
    Usage { input_tokens: count(input_tokens), output_tokens: count(output_tokens), cost_usd }
}

impl SessionRow {
    pub(super) fn read(self) -> Result<SessionRecord, DatabaseError> {
        let corrupt = DatabaseError::Corrupt;
        Ok(SessionRecord {
            id: SessionId::parse(&self.id).ok_or(corrupt("session id"))?,
            user: UserId(self.user_id),
            profile: ProfileId::parse(&self.profile_id).ok_or(corrupt("profile id"))?,
            mode: Mode::parse(&self.mode).ok_or(corrupt("session mode"))?,
            title: self.title,
            status: SessionStatus::parse(&self.status).ok_or(corrupt("session status"))?,
            container: self
                .container_id
                .map(|id| ContainerId::parse(&id).ok_or(corrupt("container id")))
                .transpose()?,
            spool: self.spool_id.map(|id| SpoolId::parse(&id).ok_or(corrupt("spool id"))).transpose()?,
            spool_record: u64::try_from(self.spool_record).unwrap_or(0),
            run_state: self.run_state,
            ending: self.ending,
            last_seq: Seq::from_db(self.last_seq),
            usage: usage(self.input_tokens, self.output_tokens, self.cost_usd),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

impl TaskRow {
    pub(super) fn read(self) -> Result<TaskRecord, DatabaseError> {
        let corrupt = DatabaseError::Corrupt;
        Ok(TaskRecord {
            id: TaskId::parse(&self.id).ok_or(corrupt("task id"))?,
            session: SessionId::parse(&self.session_id).ok_or(corrupt("session id"))?,
            user: UserId(self.user_id),
            state: TaskState::parse(&self.state).ok_or(corrupt("task state"))?,
            mode: Mode::parse(&self.mode).ok_or(corrupt("task mode"))?,
            priority: Priority::ALL
                .iter()
                .copied()
                .find(|priority| priority.rank() == self.priority)
                .ok_or(corrupt("task priority"))?,
            prompt: self.prompt,
            options: serde_json::from_str(&self.options).map_err(|_| corrupt("task options"))?,
            prompt_seq: Seq::from_db(self.prompt_seq),
            result_text: self.result_text,
            stop_reason: self.stop_reason,
            error: self.error,
            retryable: self.retryable,
            usage: usage(self.input_tokens, self.output_tokens, self.cost_usd),
            created_at: Timestamp(self.created_at),
            started_at: self.started_at.map(Timestamp),
            ended_at: self.ended_at.map(Timestamp),
        })
    }
}

impl QuestionRow {
    pub(super) fn read(self) -> Result<QuestionRecord, DatabaseError> {
        let corrupt = DatabaseError::Corrupt;
        Ok(QuestionRecord {
            id: AskId::parse(&self.id).ok_or(corrupt("ask id"))?,
            task: TaskId::parse(&self.task_id).ok_or(corrupt("task id"))?,
            questions: serde_json::from_str(&self.questions).map_err(|_| corrupt("questions"))?,
            answer: self
                .answer
                .map(|answer| serde_json::from_str(&answer).map_err(|_| corrupt("answer")))
                .transpose()?,
            asked_at: Timestamp(self.asked_at),
        })
    }
}
