//! Finds or opens the live ends of sessions: who writes, who follows.
//!
//! Used by `orchestrator` (one [`Session`] per session at work) and by both doors (a [`Subscription`]
//! per viewer). A session with no run and no viewer is not in memory.

mod session;
mod subscription;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use session::{Receipt, Session};
pub use subscription::{PAGE_EVENTS, Subscription};

use crate::database::DatabaseError;
use crate::domain::{Clock, Epoch, Seq, SessionId};
use crate::journal::{Journal, Tail};
use crate::store::Store;

/// The sessions in memory. What another gateway commits to one is learned a moment later: viewers can't tell.
pub struct Hub {
    journal: Journal,
    store: Store,
    clock: Arc<Clock>,
    tails: Mutex<HashMap<SessionId, Weak<Tail>>>,
}

impl Hub {
    /// A hub over one journal.
    pub fn new(journal: Journal, store: Store, clock: Arc<Clock>) -> Self {
        Self { journal, store, clock, tails: Mutex::default() }
    }

    /// The journal underneath.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The writing end of a session that this gateway has claimed. There is one at a time.
    pub fn write(&self, id: SessionId, epoch: Epoch, head: Seq) -> Session {
        let tail = self.tail(id);
        tail.write_under(epoch);
        tail.advance(head);
        Session::new(id, epoch, head, tail, self.journal.clone(), Arc::clone(&self.clock))
    }

    /// Follows a session; `None` when there is no such session. Its head is what the journal held at
    /// the time of the call, or later.
    pub async fn follow(&self, id: SessionId) -> Result<Option<Follow>, DatabaseError> {
        // The tail first, the journal's word second: what is committed in between reaches the tail.
        let tail = self.tail(id);
        let Some(head) = self.store.last_seq(id).await? else { return Ok(None) };
        tail.advance(head);
        Ok(Some(Follow { id, journal: self.journal.clone(), tail }))
    }

    /// Learns what other gateways have committed to sessions that are followed here: call it now and then. Those
    /// sessions' viewers are served from the journal.
    pub async fn catch_up(&self) -> Result<(), DatabaseError> {
        let followed: Vec<SessionId> = {
            let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
            tails
                .iter()
                .filter(|(_, tail)| tail.upgrade().is_some_and(|tail| tail.is_watched()))
                .map(|(id, _)| *id)
                .collect()
        };
        if followed.is_empty() {
            return Ok(());
        }
        for (id, head, epoch) in self.store.heads(&followed).await? {
            let tail = self.tail(id);
            // What is committed here is shown by the journal, without a look-up.
            if epoch > tail.written_under() {
                tail.advance(head);
            }
        }
        Ok(())
    }

    fn tail(&self, id: SessionId) -> Arc<Tail> {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tails.get(&id).and_then(Weak::upgrade) {
            return tail;
        }
        // Forgetting the dead ones when the map would grow keeps it as large as what lives.
        if tails.len() == tails.capacity() {
            tails.retain(|_, tail| tail.strong_count() > 0);
        }
        let tail = Arc::new(Tail::new(Seq::START));
        tails.insert(id, Arc::downgrade(&tail));
        tail
    }
}

/// A session that can be followed from any place.
pub struct Follow {
    id: SessionId,
    journal: Journal,
    tail: Arc<Tail>,
}

impl Follow {
    /// The last committed event.
    pub fn head(&self) -> Seq {
        self.tail.head()
    }

    /// Everything after `cursor`, then what comes.
    pub fn after(self, cursor: Seq) -> Subscription {
        Subscription::new(self.id, cursor, self.journal, self.tail)
    }
}
