//! A cursor into a session's journal: history, then live, with no gap and no repeat.

use std::sync::Arc;

use tokio::sync::watch;

use crate::database::DatabaseError;
use crate::domain::{Seq, SessionId};
use crate::journal::{Journal, Tail, TailRead};
use crate::metrics::Counted;
use crate::protocol::StoredEvent;

/// Events per read of the journal.
pub const PAGE_EVENTS: u32 = 1_000;

/// One viewer's place in a session.
pub struct Subscription {
    session: SessionId,
    cursor: Seq,
    journal: Journal,
    tail: Arc<Tail>,
    moved: watch::Receiver<Seq>,
    /// While the tail no longer holds what comes next.
    behind: Option<Counted>,
}

impl Subscription {
    pub(super) fn new(session: SessionId, cursor: Seq, journal: Journal, tail: Arc<Tail>) -> Self {
        let moved = tail.watch();
        Self { session, cursor, journal, tail, moved, behind: None }
    }

    /// The last event that was returned.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// The events that come next, in order and without gaps; at least one. A viewer that falls behind
    /// the tail rereads the journal, so nobody waits for it. Cancel safe: the cursor moves only when
    /// events are returned. After an error the same call may succeed later.
    pub async fn next(&mut self) -> Result<Vec<StoredEvent>, DatabaseError> {
        loop {
            self.moved.borrow_and_update();
            let read = self.tail.after(self.cursor);
            match read {
                TailRead::Behind if self.behind.is_none() => self.behind = Some(self.journal.metrics().viewer_behind()),
                TailRead::Behind => (),
                TailRead::Events(_) | TailRead::UpToDate => self.behind = None,
            }
            let events = match read {
                TailRead::Events(events) => events,
                TailRead::Behind => self.journal.read_after(self.session, self.cursor, PAGE_EVENTS).await?,
                TailRead::UpToDate => Vec::new(),
            };
            if let Some(last) = events.last() {
                self.cursor = last.seq;
                return Ok(events);
            }
            // This subscription holds the tail, so its sender lives.
            let _ = self.moved.changed().await;
        }
    }
}
