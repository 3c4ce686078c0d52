//! The writing end of one session: numbers events, encodes them once, hands them to the journal.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, Epoch, Seq, SessionId, TaskId, Timestamp};
use crate::journal::{Append, AppendError, Effect, Journal, JournalClosed, Progress, Tail};
use crate::protocol::Event;

/// How many KiB of one session may be on their way to the disk. Full: its agent waits, others don't.
const WINDOW_KIB: u32 = 2_048;
/// What an append counts at least: 64 small ones fill the window.
const LEAST_KIB: u32 = 32;
/// What an event counts at least: the database's work is by rows too, and others wait for it.
const LEAST_EVENT_KIB: usize = 1;

/// A session that this gateway writes. Owned by one task.
pub struct Session {
    id: SessionId,
    epoch: Epoch,
    /// The last event handed to the journal, committed or not.
    head: Seq,
    tail: Arc<Tail>,
    journal: Journal,
    clock: Arc<Clock>,
    fenced: CancellationToken,
    window: Arc<Semaphore>,
}

/// Tells when what was published has committed. Clones tell of the same commit.
#[derive(Clone, Debug)]
pub struct Receipt {
    at: Timestamp,
    done: Shared<oneshot::Receiver<Result<(), AppendError>>>,
}

impl Receipt {
    /// When it was published, as the journal says it.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Waits for the commit. While the database is away this waits too: what was accepted is never
    /// abandoned.
    pub async fn committed(self) -> Result<(), AppendError> {
        // The writer drops a sender only when the process ends.
        self.done.await.unwrap_or(Err(AppendError::Fenced))
    }
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        epoch: Epoch,
        head: Seq,
        tail: Arc<Tail>,
        journal: Journal,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            id,
            epoch,
            head,
            tail,
            journal,
            clock,
            fenced: CancellationToken::new(),
            window: Arc::new(Semaphore::new(WINDOW_KIB as usize)),
        }
    }

    /// Which session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// This writer's claim.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last event that was numbered.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Cancelled when the journal refused one of this session's appends: somebody else owns it now, and
    /// nothing more of this writer will commit.
    pub fn fenced(&self) -> &CancellationToken {
        &self.fenced
    }

    /// Waits until the journal takes what an agent may say next: then publishing it does not wait for long. Whoever
    /// waits here rather than there can be told other things meanwhile, also while the database is away. Cancel safe.
    pub async fn room(&self) {
        // Both are given back at once. A journal that is closed tells so when something is published.
        let _share = self.window.acquire_many(WINDOW_KIB / 2).await;
        let _place = self.journal.reserve().await;
    }

    /// Publishes what happened, with the changes that go with it, as one. Durable first, visible
    /// second: viewers see only what a replay would show. Waits while the journal's queue is full, or this
    /// session's share of it, so that agents slow down. Cancel safe: the numbers count only once the place in the
    /// queue is taken.
    pub async fn publish(
        &mut self,
        task: Option<TaskId>,
        events: &[Event],
        effects: Vec<Effect>,
    ) -> Result<Receipt, JournalClosed> {
        self.publish_heard(task, events, effects, None).await
    }

    /// [`Session::publish`], with how far the agent has been heard by then.
    pub async fn publish_heard(
        &mut self,
        task: Option<TaskId>,
        events: &[Event],
        effects: Vec<Effect>,
        progress: Option<Progress>,
    ) -> Result<Receipt, JournalClosed> {
        let at: Timestamp = self.clock.now();
        let after = self.head;
        let mut head = after;
        let mut frames = Vec::with_capacity(events.len());
        for event in events {
            head = head.next();
            frames.push(event.encode(head, at, self.id, task));
        }
        let state = progress.as_ref().and_then(|progress| progress.run_state.as_ref()).map_or(0, String::len);
        let bytes = state + frames.iter().map(|frame| frame.frame.len()).sum::<usize>();
        let share = (bytes >> 10).max(frames.len() * LEAST_EVENT_KIB);
        let share = u32::try_from(share).unwrap_or(WINDOW_KIB).clamp(LEAST_KIB, WINDOW_KIB);
        let share = Arc::clone(&self.window).acquire_many_owned(share).await.map_err(|_| JournalClosed)?;
        let place = self.journal.reserve().await?;
        self.head = head;
        let (done, receipt) = oneshot::channel();
        place.append(Append {
            session: self.id,
            epoch: self.epoch,
            at,
            after,
            frames,
            effects,
            progress,
            tail: Arc::clone(&self.tail),
            fenced: self.fenced.clone(),
            done,
            share,
        });
        Ok(Receipt { at, done: receipt.shared() })
    }
}
