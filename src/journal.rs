//! What sessions do, durable: the group-commit writer and the reader.
//!
//! The writer is the only writer of sessions, tasks, questions and events. Used by `hub`, which numbers
//! events and follows them. Look-ups for people's eyes are in `store`.
//!
//! Durable first, visible second: an event is put into its session's [`Tail`] after its commit, never
//! before (G1).

mod effect;
mod group;
mod tail;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

pub use effect::{Effect, IdempotencyKey, NewSession, NewTask, TaskEnd};
pub use tail::{Tail, TailRead};

use crate::database::{Database, DatabaseError, On, fetch_all};
use crate::domain::{Audience, Epoch, Seq, SessionId, Timestamp};
use crate::metrics::{CommitFailure, Metrics};
use crate::protocol::{FrameText, StoredEvent};

/// How many appends may wait for the writer. Full: sessions wait, so their agents slow down.
const INBOX: usize = 4_096;
/// How many appends one transaction takes at most.
const GROUP: usize = 1_024;
/// How many bytes of frames it takes at most, unless the first append alone has more.
const GROUP_BYTES: usize = 8 << 20;
/// How many events it takes at most, unless the first append alone has more.
const GROUP_FRAMES: usize = 20_000;
/// How long the writer waits for company when commits follow each other closely (measured: 0.8 ms
/// added at the median, a quarter of the database's work).
const LINGER: Duration = Duration::from_millis(1);
/// How long between two tries while the database is away.
const RETRY: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// What happened in one session, to be committed as one.
#[derive(Debug)]
pub struct Append {
    /// Which session.
    pub session: SessionId,
    /// The writer's claim; an older one than the database's commits nothing.
    pub epoch: Epoch,
    /// The moment, for the rows.
    pub at: Timestamp,
    /// The session's last event so far.
    pub after: Seq,
    /// Events, numbered without gaps from the one after that. May be none.
    pub frames: Vec<StoredEvent>,
    /// What changes with them.
    pub effects: Vec<Effect>,
    /// How far the agent has been heard with them.
    pub progress: Option<Progress>,
    /// Where the events are shown once committed.
    pub tail: Arc<Tail>,
    /// Cancelled when this or an earlier append of the session failed: the live session is to be dropped.
    pub fenced: CancellationToken,
    /// Told how it went.
    pub done: oneshot::Sender<Result<(), AppendError>>,
    /// The session's share of the queue; given back when this is settled.
    pub share: OwnedSemaphorePermit,
}

/// How far an agent has been heard, and what is known of its run by then: after a crash another gateway
/// goes on from exactly here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last record of its spool that has been dealt with.
    pub record: u64,
    /// The run's state besides what its events tell, as JSON.
    pub run_state: Option<String>,
}

/// Why an append did not happen. It had no effect, and the live session must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another claim of the session is newer, or its numbers are not what this writer thought.
    #[error("another gateway owns the session now")]
    Fenced,
    /// An effect did not apply: the rows are not what this writer thought.
    #[error("the session's rows changed under its writer")]
    Rejected,
}

/// The journal's clonable address.
#[derive(Clone)]
pub struct Journal {
    inbox: mpsc::Sender<Append>,
    database: Database,
    available: Arc<AtomicBool>,
    closing: CancellationToken,
    metrics: Arc<Metrics>,
}

/// A place in the writer's queue, taken before the event is numbered.
pub struct Place<'a> {
    permit: mpsc::Permit<'a, Append>,
    metrics: &'a Metrics,
}

impl Place<'_> {
    /// Hands the append to the writer. What was accepted is never abandoned.
    pub fn append(self, append: Append) {
        self.metrics.append_waits();
        self.permit.send(append);
    }
}

/// The writer has ended: the gateway is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the journal is closed")]
pub struct JournalClosed;

impl Journal {
    /// A journal over `database`, and its writer, which ends after [`Journal::close`].
    pub fn open(database: Database, metrics: Arc<Metrics>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (inbox, appends) = mpsc::channel(INBOX);
        let available = Arc::new(AtomicBool::new(true));
        let closing = CancellationToken::new();
        let writer = Writer {
            database: database.clone(),
            appends,
            available: Arc::clone(&available),
            closing: closing.clone(),
            metrics: Arc::clone(&metrics),
        };
        (Self { inbox, database, available, closing, metrics }, writer.run())
    }

    /// Takes nothing more in. The writer commits what it has, then ends.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Takes a place in the writer's queue; waits while it is full. Cancel safe.
    pub async fn reserve(&self) -> Result<Place<'_>, JournalClosed> {
        let permit = self.inbox.reserve().await.map_err(|_| JournalClosed)?;
        Ok(Place { permit, metrics: &self.metrics })
    }

    /// Whether the last commit went well. While it is false, nothing new is to be accepted.
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Where what happens to the journal is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The events that follow `after`, in order: at most `most`, and at most about a quarter of a
    /// mebibyte unless the first alone is larger. Empty at the head.
    pub async fn read_after(
        &self,
        session: SessionId,
        after: Seq,
        most: u32,
    ) -> Result<Vec<StoredEvent>, DatabaseError> {
        const PAGE_BYTES: i64 = 256 << 10;
        // The sums run over sizes only, so a page never loads more frames than it returns. Postgres keeps long frames
        // apart; SQLite would carry them along, and looks them up after.
        const POSTGRES: &str = "SELECT seq, audience, has_links, frame FROM (
                SELECT seq, audience, has_links, frame,
                       SUM(octet_length(frame)) OVER (ORDER BY seq) - octet_length(frame) AS bytes_before
                FROM events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
            ) AS page WHERE bytes_before < $4 ORDER BY seq";
        const SQLITE: &str = "SELECT events.seq, audience, has_links, frame FROM (
                SELECT seq, SUM(bytes) OVER (ORDER BY seq) - bytes AS bytes_before FROM (
                    SELECT seq, octet_length(frame) AS bytes
                    FROM events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
                )
            ) AS page JOIN events ON events.session_id = $1 AND events.seq = page.seq
            WHERE bytes_before < $4 ORDER BY events.seq";
        let database = self.database.clone();
        // A task of its own: a viewer that nobody polls must not hold a connection.
        let rows = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connection = database.read().await?;
            let page = match connection.on() {
                On::Postgres(_) => POSTGRES,
                On::Sqlite(_) => SQLITE,
            };
            fetch_all!(
                connection.on(),
                (i64, i16, bool, String),
                page,
                session.to_string(),
                after.to_db(),
                i64::from(most),
                PAGE_BYTES
            )
        }));
        let rows = rows.await.unwrap_or(Err(DatabaseError::TimedOut))?;
        rows.into_iter()
            .map(|(seq, audience, has_links, frame)| {
                Ok(StoredEvent {
                    seq: Seq::from_db(seq),
                    audience: audience_from_db(audience)?,
                    has_links,
                    frame: FrameText::from(frame),
                })
            })
            .collect()
    }
}

/// How the events table spells an audience.
fn audience_to_db(audience: Audience) -> i16 {
    match audience {
        Audience::Document => 0,
        Audience::Extended => 1,
        Audience::Privileged => 2,
    }
}

fn audience_from_db(value: i16) -> Result<Audience, DatabaseError> {
    match value {
        0 => Ok(Audience::Document),
        1 => Ok(Audience::Extended),
        2 => Ok(Audience::Privileged),
        _ => Err(DatabaseError::Corrupt("event audience")),
    }
}

/// The one writer: takes all that wait, commits them in one transaction, shows them, and again.
struct Writer {
    database: Database,
    appends: mpsc::Receiver<Append>,
    available: Arc<AtomicBool>,
    closing: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Writer {
    async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut last_commit = Instant::now();
        loop {
            if waiting.is_empty() {
                let mut taken = Vec::new();
                tokio::select! {
                    count = self.appends.recv_many(&mut taken, GROUP) => if count == 0 {
                        return;
                    },
                    () = self.closing.cancelled(), if !self.appends.is_closed() => self.appends.close(),
                }
                waiting.extend(taken);
            }
            if last_commit.elapsed() < LINGER {
                tokio::time::sleep_until(last_commit + LINGER).await;
            }
            while waiting.len() < GROUP
                && let Ok(append) = self.appends.try_recv()
            {
                waiting.push_back(append);
            }
            let group = take_group(&mut waiting);
            let appends = group.len();
            self.settle(group).await;
            self.metrics.appends_settled(appends);
            last_commit = Instant::now();
        }
    }

    /// Brings every append to its end: committed and shown, or failed. Returns only then.
    async fn settle(&self, mut group: Vec<Append>) {
        let mut tries = 0;
        loop {
            group = without_lost(group);
            if group.is_empty() {
                return;
            }
            let began = Instant::now();
            let result = group::commit(&self.database, &group).await;
            self.note(&result, &group, began.elapsed());
            match result {
                Ok(()) => group.drain(..).for_each(|append| self.show(append)),
                Err(
                    group::Refusal::Unavailable(error @ DatabaseError::TimedOut) | group::Refusal::Statement(error),
                ) if can_split(&group) => {
                    warn!(%error, "A group of {} appends can't be committed; its parts are tried alone", group.len());
                    for alone in split(group) {
                        Box::pin(self.settle(alone)).await;
                    }
                    return;
                }
                Err(group::Refusal::Session { session, error }) => {
                    warn!(%session, %error, "An append of session `{session}` was refused: {error}");
                    group = fail_session(group, session, error);
                }
                Err(group::Refusal::AlreadyCommitted { session }) => {
                    info!(%session, "A commit whose reply was lost had happened: session `{session}`");
                    group = self.show_session(group, session);
                }
                Err(group::Refusal::Statement(error)) => {
                    error!(%error, "The database refused an append for good");
                    let session = group[0].session;
                    group = fail_session(group, session, AppendError::Rejected);
                }
                Err(group::Refusal::Unavailable(error)) => {
                    if tries == 0 {
                        error!(%error, "The journal can't commit; {} appends wait and are tried again", group.len());
                    }
                    tokio::time::sleep(RETRY[tries.min(RETRY.len() - 1)]).await;
                    tries += 1;
                }
            }
        }
    }

    /// Counts how a commit went, and keeps in mind whether the database is there.
    fn note(&self, result: &Result<(), group::Refusal>, group: &[Append], took: Duration) {
        let available = !matches!(result, Err(group::Refusal::Unavailable(_)));
        match result {
            Ok(()) => {
                let events = group.iter().map(|append| append.frames.len()).sum();
                self.metrics.committed(took, group.len(), events);
            }
            // An earlier commit of the same, whose reply was lost: neither here nor there.
            Err(group::Refusal::AlreadyCommitted { .. }) => (),
            Err(_) if available => self.metrics.commit_failed(CommitFailure::Refused),
            Err(_) => self.metrics.commit_failed(CommitFailure::Unavailable),
        }
        if self.available.swap(available, Ordering::Relaxed) != available && available {
            info!("The journal commits again");
        }
    }

    fn show(&self, append: Append) {
        for effect in &append.effects {
            match effect {
                Effect::CreateTask(_) => self.metrics.task_accepted(),
                Effect::EndTask(end) => self.metrics.task_ended(end.state),
                _ => (),
            }
        }
        append.tail.show(append.frames);
        let _ = append.done.send(Ok(())); // Nobody may be waiting for it.
    }

    fn show_session(&self, group: Vec<Append>, session: SessionId) -> Vec<Append> {
        let (settled, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|append| append.session == session);
        for append in settled {
            self.show(append);
        }
        rest
    }
}

/// As many of those that wait, in order, as one transaction takes; at least one.
fn take_group(waiting: &mut VecDeque<Append>) -> Vec<Append> {
    let (mut bytes, mut frames, mut appends) = (0, 0, 0);
    for append in &*waiting {
        bytes += append.frames.iter().map(|frame| frame.frame.len()).sum::<usize>();
        frames += append.frames.len();
        if appends > 0 && (bytes > GROUP_BYTES || frames > GROUP_FRAMES) {
            break;
        }
        appends += 1;
    }
    waiting.drain(..appends).collect()
}

fn fail_session(group: Vec<Append>, session: SessionId, error: AppendError) -> Vec<Append> {
    let (failed, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|append| append.session == session);
    for append in failed {
        append.fenced.cancel();
        let _ = append.done.send(Err(error)); // Nobody may be waiting for it.
    }
    rest
}

/// What sessions still do that have not lost anything. After a loss an append's numbers may fit all the
/// same, when what was lost had no events: it must not happen without what went before it.
fn without_lost(group: Vec<Append>) -> Vec<Append> {
    let (lost, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|append| append.fenced.is_cancelled());
    for append in lost {
        let _ = append.done.send(Err(AppendError::Fenced)); // Nobody may be waiting for it.
    }
    rest
}

/// Whether a group can be tried in parts: see [`split`].
fn can_split(group: &[Append]) -> bool {
    let [all_but_last @ .., last] = group else { return false };
    all_but_last.iter().any(|append| append.session != last.session || !append.frames.is_empty())
}

/// The parts of a group: one for each session, or of one session's appends one for each that has events, together
/// with those before it that have none. Those leave no trace: whether they have been committed already is known by
/// what comes after them.
fn split(group: Vec<Append>) -> VecDeque<Vec<Append>> {
    let mut parts: VecDeque<Vec<Append>> = VecDeque::new();
    let one_session = group.iter().all(|append| append.session == group[0].session);
    for append in group {
        let belongs = |part: &Vec<Append>| match part.last() {
            Some(last) if one_session => last.frames.is_empty(),
            Some(last) => last.session == append.session,
            None => false,
        };
        match parts.iter_mut().find(|part| belongs(part)) {
            Some(part) => part.push(append),
            None => parts.push_back(vec![append]),
        }
    }
    parts
}
