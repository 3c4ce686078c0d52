//! One group commit: fence, effects, events, in one transaction.

use std::collections::BTreeMap;

use super::{Append, AppendError, Progress, audience_to_db};
use crate::database::{Database, DatabaseError, On, Transaction, execute, fetch_all, within};
use crate::domain::{Epoch, Seq, SessionId, Timestamp};
use crate::protocol::StoredEvent;

/// Why a group was rolled back.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This session's appends can't be committed; the others' can.
    Session {
        /// Which.
        session: SessionId,
        /// Why.
        error: AppendError,
    },
    /// This session's appends are in the journal already: the reply to their commit was lost.
    AlreadyCommitted {
        /// Which.
        session: SessionId,
    },
    /// The database will never take one of the statements.
    Statement(DatabaseError),
    /// The database is away; whether a commit happened is not known. Try again.
    Unavailable(DatabaseError),
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        if is_final(&error) { Self::Statement(error) } else { Self::Unavailable(error) }
    }
}

/// Whether trying again can't help: the statement breaks a constraint or holds bad data.
fn is_final(error: &DatabaseError) -> bool {
    let DatabaseError::Sqlx(sqlx::Error::Database(error)) = error else { return false };
    let constraint = !matches!(error.kind(), sqlx::error::ErrorKind::Other);
    // Postgres class 22: data exception.
    constraint || error.code().is_some_and(|code| code.len() == 5 && code.starts_with("22"))
}

/// What one session does in a group.
struct Advance {
    epoch: Epoch,
    /// The last event before the group's.
    from: Seq,
    /// The last event of the group.
    to: Seq,
    /// How far its agent has been heard by then.
    progress: Option<Progress>,
}

/// Commits all of `group` or nothing.
pub(super) async fn commit(database: &Database, group: &[Append]) -> Result<(), Refusal> {
    let advances = advances(group)?;
    let mut transaction = database.begin_group().await?;
    for append in group {
        if let Some(new) = append.effects.first().filter(|effect| is_creation(effect)) {
            new.apply(&mut transaction, append.session, append.at).await?;
        }
    }
    let at = group.iter().map(|append| append.at).max().unwrap_or_default();
    if let Some(stale) = fence(&mut transaction, &advances, at).await? {
        return Err(explain(&mut transaction, group, stale).await?);
    }
    for append in group {
        for effect in append.effects.iter().filter(|effect| !is_creation(effect)) {
            if !effect.apply(&mut transaction, append.session, append.at).await? {
                return Err(Refusal::Session { session: append.session, error: AppendError::Rejected });
            }
        }
    }
    insert_events(&mut transaction, group).await?;
    transaction.commit().await?;
    Ok(())
}

fn is_creation(effect: &super::Effect) -> bool {
    matches!(effect, super::Effect::CreateSession(_))
}

/// Adds up what each session does. Numbers with a gap are our own bug: that session is refused.
fn advances(group: &[Append]) -> Result<BTreeMap<SessionId, Advance>, Refusal> {
    let mut advances: BTreeMap<SessionId, Advance> = BTreeMap::new();
    for append in group {
        let refused = Refusal::Session { session: append.session, error: AppendError::Fenced };
        let advance = advances.entry(append.session).or_insert(Advance {
            epoch: append.epoch,
            from: append.after,
            to: append.after,
            progress: None,
        });
        if append.after != advance.to || append.epoch != advance.epoch {
            return Err(refused);
        }
        for frame in &append.frames {
            if frame.seq != advance.to.next() {
                return Err(refused);
            }
            advance.to = frame.seq;
        }
        if append.progress.is_some() {
            advance.progress.clone_from(&append.progress);
        }
    }
    Ok(advances)
}

/// Moves the sessions' last numbers, locking their rows in id order. The first session whose row is
/// not where its writer thought is returned.
async fn fence(
    transaction: &mut Transaction,
    advances: &BTreeMap<SessionId, Advance>,
    at: Timestamp,
) -> Result<Option<SessionId>, DatabaseError> {
    match transaction.on() {
        On::Postgres(connection) => {
            let ids: Vec<String> = advances.keys().map(ToString::to_string).collect();
            let epochs: Vec<i64> = advances.values().map(|advance| advance.epoch.0).collect();
            let from: Vec<i64> = advances.values().map(|advance| advance.from.to_db()).collect();
            let to: Vec<i64> = advances.values().map(|advance| advance.to.to_db()).collect();
            let (heard, records, states) = progress(advances);
            let moved: Vec<(String,)> = within(
                sqlx::query_as(
                    "WITH locked AS (SELECT id FROM sessions WHERE id = ANY($1) ORDER BY id FOR UPDATE)
                     UPDATE sessions SET last_seq = goal.to_seq,
                            updated_at = CASE WHEN goal.to_seq > goal.from_seq THEN $5 ELSE updated_at END,
                            spool_record = CASE WHEN goal.heard THEN goal.record ELSE spool_record END,
                            run_state = CASE WHEN goal.heard THEN goal.state ELSE run_state END
                     FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $6::boolean[], $7::bigint[],
                                 $8::text[]) AS goal (id, epoch, from_seq, to_seq, heard, record, state), locked
                     WHERE sessions.id = goal.id AND locked.id = goal.id
                       AND sessions.epoch = goal.epoch AND sessions.last_seq = goal.from_seq
                     RETURNING sessions.id",
                )
                .bind(&ids)
                .bind(&epochs)
                .bind(&from)
                .bind(&to)
                .bind(at.0)
                .bind(&heard)
                .bind(&records)
                .bind(&states)
                .fetch_all(connection),
            )
            .await?;
            if moved.len() == ids.len() {
                return Ok(None);
            }
            let moved: std::collections::HashSet<String> = moved.into_iter().map(|(id,)| id).collect();
            Ok(advances.keys().find(|session| !moved.contains(&session.to_string())).copied())
        }
        On::Sqlite(_) => {
            for (session, advance) in advances {
                let rows = execute!(
                    transaction.on(),
                    "UPDATE sessions SET last_seq = $4, updated_at = CASE WHEN $4 > $3 THEN $5 ELSE updated_at END,
                            spool_record = CASE WHEN $6 THEN $7 ELSE spool_record END,
                            run_state = CASE WHEN $6 THEN $8 ELSE run_state END
                     WHERE id = $1 AND epoch = $2 AND last_seq = $3",
                    session.to_string(),
                    advance.epoch.0,
                    advance.from.to_db(),
                    advance.to.to_db(),
                    at.0,
                    advance.progress.is_some(),
                    advance.progress.as_ref().map_or(0, record_to_db),
                    advance.progress.as_ref().and_then(|progress| progress.run_state.clone())
                )?;
                if rows != 1 {
                    return Ok(Some(*session));
                }
            }
            Ok(None)
        }
    }
}

fn record_to_db(progress: &Progress) -> i64 {
    i64::try_from(progress.record).unwrap_or(i64::MAX)
}

/// Per session whether its agent has been heard on, up to which record, and the state of its run.
fn progress(advances: &BTreeMap<SessionId, Advance>) -> (Vec<bool>, Vec<i64>, Vec<Option<String>>) {
    let each = advances.values().map(|advance| &advance.progress);
    each.map(|progress| {
        let state = progress.as_ref().and_then(|progress| progress.run_state.clone());
        (progress.is_some(), progress.as_ref().map_or(0, record_to_db), state)
    })
    .collect()
}

/// Why a session's row is not where its writer thought: the same bytes are there already (our own
/// commit, whose reply was lost), or somebody else wrote.
async fn explain(
    transaction: &mut Transaction,
    group: &[Append],
    session: SessionId,
) -> Result<Refusal, DatabaseError> {
    let ours: Vec<_> =
        group.iter().filter(|append| append.session == session).flat_map(|append| &append.frames).collect();
    let (Some(first), Some(last)) = (ours.first(), ours.last()) else {
        return Ok(Refusal::Session { session, error: AppendError::Fenced });
    };
    let stored = fetch_all!(
        transaction.on(),
        (i64, String),
        "SELECT seq, frame FROM events WHERE session_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq",
        session.to_string(),
        first.seq.to_db(),
        last.seq.to_db()
    )?;
    let same = stored.len() == ours.len()
        && stored
            .iter()
            .zip(&ours)
            .all(|((seq, frame), ours)| *seq == ours.seq.to_db() && frame.as_str() == ours.frame.as_str());
    Ok(if same {
        Refusal::AlreadyCommitted { session }
    } else {
        Refusal::Session { session, error: AppendError::Fenced }
    })
}

async fn insert_events(transaction: &mut Transaction, group: &[Append]) -> Result<(), DatabaseError> {
    let mut rows: Vec<(SessionId, &StoredEvent)> = Vec::new();
    for append in group {
        rows.extend(append.frames.iter().map(|event| (append.session, event)));
    }
    if rows.is_empty() {
        return Ok(());
    }
    match transaction.on() {
        On::Postgres(connection) => {
            let sessions: Vec<String> = rows.iter().map(|(session, _)| session.to_string()).collect();
            let seqs: Vec<i64> = rows.iter().map(|(_, event)| event.seq.to_db()).collect();
            let audiences: Vec<i16> = rows.iter().map(|(_, event)| audience_to_db(event.audience)).collect();
            let links: Vec<bool> = rows.iter().map(|(_, event)| event.has_links).collect();
            let frames: Vec<&str> = rows.iter().map(|(_, event)| event.frame.as_str()).collect();
            within(
                sqlx::query(
                    "INSERT INTO events (session_id, seq, audience, has_links, frame)
                     SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::smallint[], $4::boolean[], $5::text[])",
                )
                .bind(&sessions)
                .bind(&seqs)
                .bind(&audiences)
                .bind(&links)
                .bind(&frames)
                .execute(connection),
            )
            .await?;
        }
        On::Sqlite(_) => {
            for (session, event) in rows {
                execute!(
                    transaction.on(),
                    "INSERT INTO events (session_id, seq, audience, has_links, frame) VALUES ($1, $2, $3, $4, $5)",
                    session.to_string(),
                    event.seq.to_db(),
                    audience_to_db(event.audience),
                    event.has_links,
                    event.frame.as_str()
                )?;
            }
        }
    }
    Ok(())
}
