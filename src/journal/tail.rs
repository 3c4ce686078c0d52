//! The live end of one session's journal, in memory: a cache, never the truth.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::domain::{Epoch, Seq};
use crate::protocol::StoredEvent;

/// How many events a healthy viewer can be behind; the journal serves the rest.
const EVENTS: usize = 256;
/// And how many bytes of them.
const BYTES: usize = 128 << 10;

/// The last committed events of a session and the place of the newest.
#[derive(Debug)]
pub struct Tail {
    head: watch::Sender<Seq>,
    /// The last claim under which this gateway has written; 0 before the first.
    epoch: AtomicI64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Without gaps; ends at `head` unless empty.
    events: VecDeque<StoredEvent>,
    bytes: usize,
}

/// What the tail knows of the events after a cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum TailRead {
    /// All of them that are committed; at least one.
    Events(Vec<StoredEvent>),
    /// There are none yet: wait for the head to move.
    UpToDate,
    /// They are no longer here: read the journal.
    Behind,
}

impl Tail {
    /// A tail whose session's last event is `head`.
    pub fn new(head: Seq) -> Self {
        Self { head: watch::Sender::new(head), epoch: AtomicI64::new(0), ring: Mutex::default() }
    }

    /// The last committed event.
    pub fn head(&self) -> Seq {
        *self.head.borrow()
    }

    /// Wakes when the head moves.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.head.subscribe()
    }

    /// Whether anybody follows.
    pub fn is_watched(&self) -> bool {
        self.head.receiver_count() > 0
    }

    /// Says under which claim this gateway writes from now on.
    pub fn write_under(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::Relaxed);
    }

    /// Under which claim this gateway wrote last. What is committed under a later one comes from elsewhere.
    pub fn written_under(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Adds committed events. Called in commit order by the journal's writer alone.
    pub(super) fn show(&self, events: Vec<StoredEvent>) {
        let Some(head) = events.last().map(|event| event.seq) else { return };
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                let follows = ring.events.back().is_none_or(|last| event.seq == last.seq.next());
                if !follows {
                    ring.events.clear();
                    ring.bytes = 0;
                }
                ring.bytes += event.frame.len();
                ring.events.push_back(event);
            }
            while ring.events.len() > EVENTS || (ring.bytes > BYTES && ring.events.len() > 1) {
                let dropped = ring.events.pop_front().map_or(0, |event| event.frame.len());
                ring.bytes -= dropped;
            }
        }
        self.advance(head);
    }

    /// Learns that events up to `head` are in the journal, wherever they came from.
    pub fn advance(&self, head: Seq) {
        self.head.send_if_modified(|known| {
            let newer = head > *known;
            *known = head.max(*known);
            newer
        });
    }

    /// The committed events after `cursor`.
    pub fn after(&self, cursor: Seq) -> TailRead {
        // The head is read first: what is shown meanwhile only makes the answer newer.
        if cursor >= self.head() {
            return TailRead::UpToDate;
        }
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (ring.events.front(), ring.events.back()) else { return TailRead::Behind };
        if cursor.next() < first.seq || cursor >= last.seq {
            return TailRead::Behind;
        }
        let skip = usize::try_from(cursor.0 + 1 - first.seq.0).unwrap_or(usize::MAX);
        TailRead::Events(ring.events.iter().skip(skip).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Audience;

    fn event(seq: u64) -> StoredEvent {
        StoredEvent { seq: Seq(seq), audience: Audience::Document, has_links: false, frame: "{}".to_owned().into() }
    }

    #[test]
    fn a_cursor_in_the_ring_gets_what_follows_and_an_older_one_is_behind() {
        let tail = Tail::new(Seq(0));
        assert_eq!(tail.after(Seq(0)), TailRead::UpToDate);
        tail.show((1..=EVENTS as u64 + 1).map(event).collect());
        assert_eq!(tail.after(Seq(0)), TailRead::Behind);
        let TailRead::Events(events) = tail.after(Seq(EVENTS as u64)) else { panic!("not in the ring") };
        assert_eq!(events, [event(EVENTS as u64 + 1)]);
        assert_eq!(tail.after(Seq(EVENTS as u64 + 1)), TailRead::UpToDate);
    }

    #[test]
    fn a_head_learned_from_elsewhere_sends_the_cursor_to_the_journal() {
        let tail = Tail::new(Seq(0));
        tail.show(vec![event(1)]);
        tail.advance(Seq(3));
        assert_eq!(tail.after(Seq(1)), TailRead::Behind);
        tail.show(vec![event(4)]);
        assert_eq!(tail.after(Seq(3)), TailRead::Events(vec![event(4)]));
        assert_eq!(tail.after(Seq(1)), TailRead::Behind);
    }
}
