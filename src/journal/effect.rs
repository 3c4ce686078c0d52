//! What changes in the tables together with a session's events.

use std::time::Duration;

use crate::database::{DatabaseError, Transaction, execute, milliseconds};
use crate::domain::{
    AskId, ContainerId, Mode, Priority, ProfileId, Seq, SessionId, SpoolId, TaskId, TaskState, Timestamp, Usage, UserId,
};

/// A session to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its owner.
    pub user: UserId,
    /// Its agent.
    pub profile: ProfileId,
    /// A conversation, or for one batch task.
    pub mode: Mode,
    /// What its user calls it.
    pub title: Option<String>,
    /// The gateway that makes it.
    pub node: String,
    /// How long it is that gateway's, from the commit on.
    pub lease: Duration,
}

/// A task to be made, waiting.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Which.
    pub id: TaskId,
    /// Who wants it.
    pub user: UserId,
    /// How it relates to its session.
    pub mode: Mode,
    /// Its place in line.
    pub priority: Priority,
    /// What is wanted.
    pub prompt: String,
    /// The agent's settings, as JSON.
    pub options: String,
    /// The event that holds the prompt.
    pub prompt_seq: Seq,
    /// What makes a repeat harmless.
    pub key: Option<IdempotencyKey>,
}

/// What makes a repeat of a submit harmless.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The client's word.
    pub key: String,
    /// SHA-256 of what was asked, in hex: the same key must come with the same body.
    pub body_hash: String,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub struct TaskEnd {
    /// Which.
    pub id: TaskId,
    /// `Completed`, `Failed` or `Cancelled`.
    pub state: TaskState,
    /// All its text, links as placeholders.
    pub result_text: Option<String>,
    /// Why its turn ended.
    pub stop_reason: Option<&'static str>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it may succeed later.
    pub retryable: Option<bool>,
    /// What it used.
    pub usage: Usage,
}

/// A conditional change, committed with the events that tell of it. Each names the state it starts
/// from, so that a writer that is wrong about the rows changes nothing. Those that come without events can
/// be repeated; the others are told from a repeat by their events.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Makes the session. The first effect of its first append.
    CreateSession(Box<NewSession>),
    /// Makes a task.
    CreateTask(Box<NewTask>),
    /// Says which box the session lives in (`container_id`), and under which name it keeps what the agent says
    /// (`spool_id`). How far that has been heard is told with the append, by its [`Progress`](super::Progress): 0 at
    /// first.
    SetContainer(ContainerId, SpoolId),
    /// `queued → starting`.
    TaskStarting(TaskId),
    /// `starting, awaiting_answer → running`.
    TaskRunning(TaskId),
    /// `running → awaiting_answer`, with what is asked, as JSON.
    Ask {
        /// Who asks.
        task: TaskId,
        /// Names the question.
        ask: AskId,
        /// What is asked, as JSON.
        questions: String,
    },
    /// The first answer, as JSON.
    Answer {
        /// Which question.
        ask: AskId,
        /// What was said, as JSON.
        answer: String,
    },
    /// Takes back a question that has no answer.
    WithdrawAsk(AskId),
    /// Any open state → an ended one; adds the usage to the session's.
    EndTask(Box<TaskEnd>),
    /// The session is to be closed when its box has gone, for this reason.
    EndSession(&'static str),
    /// `active → closed`.
    CloseSession,
    /// What its user calls the session.
    SetTitle(Option<String>),
    /// What the session is called if its user has not said.
    SetTitleIfNone(String),
}

impl Effect {
    /// Runs the statement. `false`: it did not apply.
    pub(super) async fn apply(
        &self,
        transaction: &mut Transaction,
        session: SessionId,
        at: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let id = session.to_string();
        let rows = match self {
            Self::CreateSession(new) => execute!(
                transaction.on(),
                "INSERT INTO sessions (id, user_id, profile_id, mode, title, status, last_seq,
                                           owner_node, epoch, lease_until, created_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, 'active', 0, $6, 1, (SELECT now FROM clock) + $7, $8, $8)
                     ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at",
                &id,
                &new.user.0,
                new.profile.as_str(),
                new.mode.as_str(),
                &new.title,
                &new.node,
                milliseconds(new.lease),
                at.0
            )?,
            Self::CreateTask(new) => return create_task(transaction, &id, new, at).await,
            Self::SetContainer(container, spool) => execute!(
                transaction.on(),
                "UPDATE sessions SET container_id = $2, spool_id = $3 WHERE id = $1",
                &id,
                container.to_string(),
                spool.to_string()
            )?,
            Self::TaskStarting(task) => execute!(
                transaction.on(),
                "UPDATE tasks SET state = 'starting', started_at = $3
                     WHERE id = $1 AND session_id = $2 AND state IN ('queued', 'starting')",
                task.to_string(),
                &id,
                at.0
            )?,
            Self::TaskRunning(task) => execute!(
                transaction.on(),
                "UPDATE tasks SET state = 'running'
                     WHERE id = $1 AND session_id = $2 AND state IN ('starting', 'running', 'awaiting_answer')",
                task.to_string(),
                &id
            )?,
            Self::Ask { task, ask, questions } => {
                execute!(
                    transaction.on(),
                    "INSERT INTO questions (id, session_id, task_id, questions, asked_at) VALUES ($1, $2, $3, $4, $5)",
                    ask.to_string(),
                    &id,
                    task.to_string(),
                    questions,
                    at.0
                )?;
                execute!(
                    transaction.on(),
                    "UPDATE tasks SET state = 'awaiting_answer'
                     WHERE id = $1 AND session_id = $2 AND state IN ('running', 'awaiting_answer')",
                    task.to_string(),
                    &id
                )?
            }
            Self::Answer { ask, answer } => execute!(
                transaction.on(),
                "UPDATE questions SET answer = $3, answered_at = $4
                     WHERE id = $1 AND session_id = $2 AND answer IS NULL",
                ask.to_string(),
                &id,
                answer,
                at.0
            )?,
            Self::WithdrawAsk(ask) => execute!(
                transaction.on(),
                "UPDATE questions SET answered_at = $3 WHERE id = $1 AND session_id = $2 AND answer IS NULL",
                ask.to_string(),
                &id,
                at.0
            )?,
            Self::EndTask(end) => return end_task(transaction, &id, end, at).await,
            Self::EndSession(reason) => {
                execute!(transaction.on(), "UPDATE sessions SET ending = $2 WHERE id = $1", &id, *reason)?
            }
            Self::CloseSession => {
                execute!(transaction.on(), "UPDATE sessions SET status = 'closed', ending = NULL WHERE id = $1", &id)?
            }
            Self::SetTitle(title) => {
                execute!(transaction.on(), "UPDATE sessions SET title = $2 WHERE id = $1", &id, title)?
            }
            Self::SetTitleIfNone(title) => {
                execute!(transaction.on(), "UPDATE sessions SET title = COALESCE(title, $2) WHERE id = $1", &id, title)?
            }
        };
        Ok(rows == 1)
    }
}

async fn create_task(
    transaction: &mut Transaction,
    session: &str,
    new: &NewTask,
    at: Timestamp,
) -> Result<bool, DatabaseError> {
    if let Some(key) = &new.key {
        let day_ago = at.0 - 24 * 60 * 60 * 1_000;
        execute!(
            transaction.on(),
            "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND created_at <= $3",
            &new.user.0,
            &key.key,
            day_ago
        )?;
        execute!(
            transaction.on(),
            "INSERT INTO idempotency_keys (user_id, key, body_hash, session_id, task_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &new.user.0,
            &key.key,
            &key.body_hash,
            session,
            new.id.to_string(),
            at.0
        )?;
    }
    let rows = execute!(
        transaction.on(),
        "INSERT INTO tasks (id, session_id, user_id, state, mode, priority, prompt, options, prompt_seq, created_at)
         VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9)",
        new.id.to_string(),
        session,
        &new.user.0,
        new.mode.as_str(),
        new.priority.rank(),
        &new.prompt,
        &new.options,
        new.prompt_seq.to_db(),
        at.0
    )?;
    Ok(rows == 1)
}

async fn end_task(
    transaction: &mut Transaction,
    session: &str,
    end: &TaskEnd,
    at: Timestamp,
) -> Result<bool, DatabaseError> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let (input, output) = (count(end.usage.input_tokens), count(end.usage.output_tokens));
    let rows = execute!(
        transaction.on(),
        "UPDATE tasks SET state = $3, result_text = $4, stop_reason = $5, error = $6, retryable = $7,
                input_tokens = $8, output_tokens = $9, cost_usd = $10, ended_at = $11
         WHERE id = $1 AND session_id = $2 AND state IN ('queued', 'starting', 'running', 'awaiting_answer')",
        end.id.to_string(),
        session,
        end.state.as_str(),
        &end.result_text,
        end.stop_reason,
        &end.error,
        end.retryable,
        input,
        output,
        end.usage.cost_usd,
        at.0
    )?;
    execute!(
        transaction.on(),
        "UPDATE sessions SET input_tokens = input_tokens + $2, output_tokens = output_tokens + $3,
                cost_usd = cost_usd + $4
         WHERE id = $1",
        session,
        input,
        output,
        end.usage.cost_usd
    )?;
    Ok(rows == 1)
}
