//! Look-ups of sessions, tasks and questions; claims and leases; the gateway's own settings.
//!
//! Used by `hub`, `orchestrator` and `http`. Changes to sessions and tasks go through `journal`; what
//! is written here is only who owns a session, and its erasure. Leases are told by the database's clock
//! (the view `clock`), the only one that all gateways share: their own may be a minute apart, or step.

mod rows;

use std::time::Duration;

use rows::{ClaimedRow, QuestionRow, SessionRow, TaskRow};
pub use rows::{QuestionRecord, SessionRecord, TaskRecord};

use crate::database::{Database, DatabaseError, On, execute, fetch_all, fetch_optional, milliseconds, within};
use crate::domain::{ContainerId, Epoch, Seq, SessionId, SessionStatus, SpoolId, TaskId, TaskState, Timestamp, UserId};

/// The look-ups' clonable address.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

/// What a repeat of a submit finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// SHA-256 of what was asked, in hex.
    pub body_hash: String,
    /// The first answer's session.
    pub session: SessionId,
    /// The first answer's task.
    pub task: TaskId,
}

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedSession {
    /// Which session.
    pub session: SessionId,
    /// The gateway that owns it.
    pub node: String,
    /// Whether its lease has run out: any gateway may take it.
    pub is_free: bool,
    /// What its agent says, if there is one that its gateway knows of.
    pub spool: Option<SpoolId>,
}

/// Which sessions a list shows.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// Of this user; everybody's if absent.
    pub user: Option<UserId>,
    /// Only what comes after this one, newest first.
    pub before: Option<SessionId>,
}

/// Which tasks a list shows.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Of this user; everybody's if absent.
    pub user: Option<UserId>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Only what comes after this one, newest first.
    pub before: Option<TaskId>,
}

/// After how long without a sign of life a gateway's boxes without sessions are for others to take away: longer
/// than its way to the database is away by accident.
pub const GONE_AFTER: Duration = Duration::from_mins(10);

/// How many events one statement erases.
const ERASED_AT_ONCE: usize = 10_000;
/// How many questions of one task are looked at: more than can be open, and than a worker remembers.
const LAST_QUESTIONS: i64 = 128;
/// Without what only its worker needs.
const SESSION: &str = "SELECT id, user_id, profile_id, mode, title, status, container_id, spool_id, spool_record, \
                       CAST(NULL AS TEXT) AS run_state, CAST(NULL AS TEXT) AS ending, last_seq, input_tokens, \
                       output_tokens, cost_usd, created_at, updated_at FROM sessions WHERE id = $1";

impl Store {
    /// Look-ups in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// A session.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        fetch_optional!(connection.on(), SessionRow, SESSION, id.to_string())?.map(SessionRow::read).transpose()
    }

    /// A session's last event; `None` when there is no such session.
    pub async fn last_seq(&self, id: SessionId) -> Result<Option<Seq>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row =
            fetch_optional!(connection.on(), (i64,), "SELECT last_seq FROM sessions WHERE id = $1", id.to_string())?;
        Ok(row.map(|(seq,)| Seq::from_db(seq)))
    }

    /// Sessions, newest first.
    pub async fn sessions(&self, filter: &SessionFilter, limit: u32) -> Result<Vec<SessionRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            SessionRow,
            "SELECT id, user_id, profile_id, mode, title, status, container_id, spool_id, spool_record,
                    CAST(NULL AS TEXT) AS run_state, CAST(NULL AS TEXT) AS ending, last_seq, input_tokens,
                    output_tokens, cost_usd, created_at, updated_at
             FROM sessions WHERE ($1 IS NULL OR user_id = $1) AND ($2 IS NULL OR id < $2)
             ORDER BY id DESC LIMIT $3",
            filter.user.as_ref().map(|user| user.0.clone()),
            filter.before.map(|id| id.to_string()),
            i64::from(limit)
        )?;
        rows.into_iter().map(SessionRow::read).collect()
    }

    /// A task.
    pub async fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        fetch_optional!(
            connection.on(),
            TaskRow,
            "SELECT id, session_id, user_id, state, mode, priority, prompt, options, prompt_seq, result_text, stop_reason,
                    error, retryable, input_tokens, output_tokens, cost_usd, created_at, started_at, ended_at
             FROM tasks WHERE id = $1",
            id.to_string()
        )?
        .map(TaskRow::read)
        .transpose()
    }

    /// Tasks, newest first: without results and with the first 1,000 characters of their prompts, so that
    /// a page of them is small.
    pub async fn tasks(&self, filter: &TaskFilter, limit: u32) -> Result<Vec<TaskRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            TaskRow,
            "SELECT id, session_id, user_id, state, mode, priority, substr(prompt, 1, 1000) AS prompt, options, prompt_seq,
                    CAST(NULL AS TEXT) AS result_text, stop_reason, error, retryable, input_tokens, output_tokens,
                    cost_usd, created_at, started_at, ended_at
             FROM tasks WHERE ($1 IS NULL OR user_id = $1) AND ($2 IS NULL OR session_id = $2)
                          AND ($3 IS NULL OR state = $3) AND ($4 IS NULL OR id < $4)
             ORDER BY id DESC LIMIT $5",
            filter.user.as_ref().map(|user| user.0.clone()),
            filter.session.map(|id| id.to_string()),
            filter.state.map(TaskState::as_str),
            filter.before.map(|id| id.to_string()),
            i64::from(limit)
        )?;
        rows.into_iter().map(TaskRow::read).collect()
    }

    /// A session's tasks that have not ended: the one at work first, then those that wait, next first.
    pub async fn open_tasks(&self, session: SessionId) -> Result<Vec<TaskRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            TaskRow,
            "SELECT id, session_id, user_id, state, mode, priority, prompt, options, prompt_seq, result_text, stop_reason,
                    error, retryable, input_tokens, output_tokens, cost_usd, created_at, started_at, ended_at
             FROM tasks
             WHERE session_id = $1 AND state IN ('queued', 'starting', 'running', 'awaiting_answer')
             ORDER BY CASE state WHEN 'queued' THEN 1 ELSE 0 END, priority, prompt_seq",
            session.to_string()
        )?;
        rows.into_iter().map(TaskRow::read).collect()
    }

    /// A task's questions, oldest first; of very many the last ones.
    pub async fn questions(&self, task: TaskId) -> Result<Vec<QuestionRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            QuestionRow,
            "SELECT id, task_id, questions, answer, asked_at FROM questions
             WHERE task_id = $1 AND (answered_at IS NULL OR answer IS NOT NULL) ORDER BY id DESC LIMIT $2",
            task.to_string(),
            LAST_QUESTIONS
        )?;
        rows.into_iter().rev().map(QuestionRow::read).collect()
    }

    /// What was submitted under a key within the last 24 hours.
    pub async fn key(&self, user: &UserId, key: &str, now: Timestamp) -> Result<Option<KeyRecord>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(
            connection.on(),
            (String, String, String),
            "SELECT body_hash, session_id, task_id FROM idempotency_keys
             WHERE user_id = $1 AND key = $2 AND created_at > $3",
            &user.0,
            key,
            now.0 - 24 * 60 * 60 * 1_000
        )?;
        row.map(|(body_hash, session, task)| {
            Ok(KeyRecord {
                body_hash,
                session: SessionId::parse(&session).ok_or(DatabaseError::Corrupt("session id"))?,
                task: TaskId::parse(&task).ok_or(DatabaseError::Corrupt("task id"))?,
            })
        })
        .transpose()
    }

    /// The sessions of `node`, and with `of_others` those that no gateway owns any more, in which a task is open, or
    /// which are to be closed.
    pub async fn sessions_with_work(&self, node: &str, of_others: bool) -> Result<Vec<SessionId>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            (String,),
            "SELECT id FROM sessions
             WHERE (owner_node = $1 OR ($2 AND lease_until <= (SELECT now FROM clock)))
               AND id IN (SELECT session_id FROM tasks
                          WHERE state IN ('queued', 'starting', 'running', 'awaiting_answer')
                          UNION
                          SELECT id FROM sessions WHERE ending IS NOT NULL AND status = 'active')
             ORDER BY id",
            node,
            of_others
        )?;
        rows.iter().map(|(id,)| SessionId::parse(id).ok_or(DatabaseError::Corrupt("session id"))).collect()
    }

    /// Of these sessions the last events and the claims to them; of none where there can be no other gateway.
    pub async fn heads(&self, sessions: &[SessionId]) -> Result<Vec<(SessionId, Seq, Epoch)>, DatabaseError> {
        let ids: Vec<String> = sessions.iter().map(ToString::to_string).collect();
        let mut connection = self.database.read().await?;
        let On::Postgres(connection) = connection.on() else { return Ok(Vec::new()) };
        let select = "SELECT id, last_seq, epoch FROM sessions WHERE id = ANY($1)";
        let rows: Vec<(String, i64, i64)> = within(sqlx::query_as(select).bind(&ids).fetch_all(connection)).await?;
        let read =
            |(id, seq, epoch): &(String, i64, i64)| Some((SessionId::parse(id)?, Seq::from_db(*seq), Epoch(*epoch)));
        rows.iter().map(|row| read(row).ok_or(DatabaseError::Corrupt("session id"))).collect()
    }

    /// The open session that lives in a box.
    pub async fn session_of(&self, container: ContainerId) -> Result<Option<OwnedSession>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(
            connection.on(),
            (String, String, bool, Option<String>),
            "SELECT id, owner_node, lease_until <= (SELECT now FROM clock), spool_id FROM sessions
             WHERE container_id = $1 AND status = 'active'",
            container.to_string()
        )?;
        row.map(|(id, node, is_free, spool)| {
            let session = SessionId::parse(&id).ok_or(DatabaseError::Corrupt("session id"))?;
            Ok(OwnedSession { session, node, is_free, spool: spool.as_deref().and_then(SpoolId::parse) })
        })
        .transpose()
    }

    /// Whether a session, closed ones too, has its files in a box.
    pub async fn has_container(&self, container: ContainerId) -> Result<bool, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(
            connection.on(),
            (i64,),
            "SELECT CAST(1 AS BIGINT) FROM sessions WHERE container_id = $1 LIMIT 1",
            container.to_string()
        )?;
        Ok(row.is_some())
    }

    /// Makes a session `node`'s for as long as `lease` says, with a new epoch that fences all earlier writers,
    /// and returns it as it is from then on. `None`: there is no such session, or another node's lease has
    /// not run out.
    pub async fn claim(
        &self,
        id: SessionId,
        node: &str,
        lease: Duration,
    ) -> Result<Option<(SessionRecord, Epoch)>, DatabaseError> {
        let mut connection = self.database.write().await?;
        // To its end, though there is one row at most: SQLite commits a statement when it is over.
        let claimed = fetch_all!(
            connection.on(),
            ClaimedRow,
            "UPDATE sessions SET owner_node = $2, epoch = epoch + 1, lease_until = (SELECT now FROM clock) + $3
             WHERE id = $1 AND (owner_node = $2 OR lease_until <= (SELECT now FROM clock))
             RETURNING id, user_id, profile_id, mode, title, status, container_id, spool_id, spool_record, run_state,
                       ending, last_seq, input_tokens, output_tokens, cost_usd, created_at, updated_at, epoch",
            id.to_string(),
            node,
            milliseconds(lease)
        )?;
        let claimed = claimed.into_iter().next();
        claimed.map(|claimed| Ok((claimed.session.read()?, Epoch(claimed.epoch)))).transpose()
    }

    /// Says that `node` is there, and prolongs those of its leases that have not been given up.
    pub async fn renew_leases(&self, node: &str, lease: Duration) -> Result<(), DatabaseError> {
        let mut transaction = self.database.begin().await?;
        // On Postgres in id order, as the journal locks them: no deadlock.
        let statement = match transaction.on() {
            On::Postgres(_) => {
                "WITH held AS (SELECT id FROM sessions WHERE owner_node = $1 AND lease_until > 0 ORDER BY id FOR UPDATE)
                 UPDATE sessions SET lease_until = (SELECT now FROM clock) + $2 FROM held WHERE sessions.id = held.id"
            }
            On::Sqlite(_) => {
                "UPDATE sessions SET lease_until = (SELECT now FROM clock) + $2 WHERE owner_node = $1 AND lease_until > 0"
            }
        };
        execute!(transaction.on(), statement, node, milliseconds(lease))?;
        execute!(
            transaction.on(),
            "INSERT INTO nodes (node, seen_at) VALUES ($1, (SELECT now FROM clock))
             ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at",
            node
        )?;
        transaction.commit().await
    }

    /// Whether a gateway has not been there for so long that it is not expected back: [`GONE_AFTER`].
    pub async fn is_gone(&self, node: &str) -> Result<bool, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(
            connection.on(),
            (bool,),
            "SELECT seen_at + $2 <= (SELECT now FROM clock) FROM nodes WHERE node = $1",
            node,
            milliseconds(GONE_AFTER)
        )?;
        Ok(row.is_some_and(|(gone,)| gone))
    }

    /// Gives a session up, so that any gateway may take it, unless it has been claimed anew.
    pub async fn release(&self, id: SessionId, node: &str, epoch: Epoch) -> Result<(), DatabaseError> {
        let mut transaction = self.database.begin().await?;
        execute!(
            transaction.on(),
            "UPDATE sessions SET lease_until = 0 WHERE id = $1 AND owner_node = $2 AND epoch = $3",
            id.to_string(),
            node,
            epoch.0
        )?;
        transaction.commit().await
    }

    /// Erases a closed session with its events, tasks and questions. `false`: it is not closed, or gone. Of a long one
    /// the events go in parts, so that no statement takes long and others commit between them.
    pub async fn erase(&self, id: SessionId) -> Result<bool, DatabaseError> {
        let closed = "SELECT last_seq FROM sessions WHERE id = $1 AND status = $2";
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(connection.on(), (i64,), closed, id.to_string(), SessionStatus::Closed.as_str())?;
        drop(connection);
        let Some((last_seq,)) = row else { return Ok(false) };
        for part in (0..last_seq).step_by(ERASED_AT_ONCE).skip(1) {
            let mut transaction = self.database.begin().await?;
            let statement = "DELETE FROM events WHERE session_id = $1 AND seq <= $2";
            execute!(transaction.on(), statement, id.to_string(), part)?;
            transaction.commit().await?;
        }
        let mut transaction = self.database.begin().await?;
        let rows = execute!(
            transaction.on(),
            "DELETE FROM sessions WHERE id = $1 AND status = $2",
            id.to_string(),
            SessionStatus::Closed.as_str()
        )?;
        transaction.commit().await?;
        Ok(rows == 1)
    }

    /// Sessions that closed before `before`, with their boxes, oldest first: to be erased. Those that come after
    /// `after`, or the first ones.
    pub async fn expired(
        &self,
        before: Timestamp,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<(SessionId, Option<ContainerId>)>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let rows = fetch_all!(
            connection.on(),
            (String, Option<String>),
            "SELECT id, container_id FROM sessions
             WHERE status = 'closed' AND updated_at < $1 AND ($2 IS NULL OR id > $2) ORDER BY id LIMIT $3",
            before.0,
            after.map(|id| id.to_string()),
            i64::from(limit)
        )?;
        rows.into_iter()
            .map(|(id, container)| {
                let id = SessionId::parse(&id).ok_or(DatabaseError::Corrupt("session id"))?;
                Ok((id, container.as_deref().and_then(ContainerId::parse)))
            })
            .collect()
    }

    /// Forgets idempotency keys that have run out.
    pub async fn forget_keys(&self, now: Timestamp) -> Result<(), DatabaseError> {
        let mut transaction = self.database.begin().await?;
        execute!(
            transaction.on(),
            "DELETE FROM idempotency_keys WHERE created_at <= $1",
            now.0 - 24 * 60 * 60 * 1_000
        )?;
        transaction.commit().await
    }

    /// A setting of the gateway's own, made of `default` when there is none. Race free: all gateways on
    /// one database get the same.
    pub async fn setting(&self, name: &str, default: &str) -> Result<String, DatabaseError> {
        let mut transaction = self.database.begin().await?;
        execute!(
            transaction.on(),
            "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            name,
            default
        )?;
        transaction.commit().await?;
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(connection.on(), (String,), "SELECT value FROM settings WHERE name = $1", name)?;
        row.map(|(value,)| value).ok_or(DatabaseError::Corrupt("setting"))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        let mut connection = self.database.read().await?;
        fetch_optional!(connection.on(), (i32,), "SELECT 1")?;
        Ok(())
    }
}
