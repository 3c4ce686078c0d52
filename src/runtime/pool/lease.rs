//! A box in somebody's hands.

use std::sync::Arc;

use super::super::Agent;
use super::slots::Slot;
use tokio::sync::oneshot;

/// The box was taken back while its owner had nothing to do: kill it and drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the container was taken back to make room")]
pub struct Evicted;

/// A box with a running agent. Busy at first. Dropping it takes the box away, and then gives the place to
/// the next who waits; [`Lease::leave`] doesn't. A new box's files go with it, until [`Lease::keep`].
pub struct Lease {
    /// The agent.
    pub agent: Agent,
    /// `None` only while being dropped.
    slot: Option<Slot>,
    /// Whether nobody knows of its files.
    is_new: bool,
}

impl Lease {
    pub(super) fn new(slot: Slot, agent: Agent, is_new: bool) -> Self {
        Self { agent, slot: Some(slot), is_new }
    }

    /// Its files are somebody's from now on: they stay when the box goes.
    pub fn keep(&mut self) {
        self.is_new = false;
    }

    /// Says that there is nothing to do: from now on the box may be taken back, the longest idle first.
    pub fn set_idle(&self) {
        if let Some(slot) = &self.slot {
            slot.set_idle();
        }
    }

    /// Claims the box for work again. Fails when it has been taken back; after success it is not.
    pub fn set_busy(&self) -> Result<(), Evicted> {
        self.slot.as_ref().map_or(Err(Evicted), Slot::set_busy)
    }

    /// Completes when the box is taken back, which only happens to an idle one. Does not borrow the lease,
    /// so that its output can be read meanwhile. Cancel safe.
    pub fn evicted(&self) -> impl Future<Output = ()> + Send + use<> {
        let evicted = self.slot.as_ref().map(Slot::evicted);
        async move {
            if let Some(evicted) = evicted {
                evicted.cancelled().await;
            }
        }
    }

    /// Takes the box away and frees the place; returns when both are done. Cancelled, it still happens.
    pub async fn end(mut self) {
        if let Some(ended) = self.take_away() {
            let _ = ended.await;
        }
    }

    /// In a task of its own. The place stays taken until the agent is gone: limits count what runs.
    fn take_away(&mut self) -> Option<oneshot::Receiver<()>> {
        let slot = self.slot.take()?;
        let (done, ended) = oneshot::channel();
        let (container_id, process, is_new) = (self.agent.container_id, Arc::clone(&self.agent.process), self.is_new);
        slot.shared().spawn(async move {
            slot.shared().remove(container_id, &*process).await;
            if is_new {
                slot.shared().erase(container_id).await;
            }
            drop(slot);
            let _ = done.send(()); // Nobody may be waiting any more.
        });
        Some(ended)
    }

    /// Frees the place and leaves the box as it is: whoever owns its session next takes it over.
    pub fn leave(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.shared().let_go(self.agent.container_id);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.take_away();
    }
}
