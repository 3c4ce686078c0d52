//! A box in somebody's hands.

use std::sync::Arc;

use futures_util::FutureExt;
use tracing::warn;

use super::super::{Agent, AgentProcess, Signal};
use super::slots::Slot;

/// The box was taken back while its owner had nothing to do: kill it and drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the container was taken back to make room")]
pub struct Evicted;

/// A box with a running agent. Busy at first. Dropping it stops the agent, if it still runs, and then
/// gives the place to the next who waits.
pub struct Lease {
    /// The agent.
    pub agent: Agent,
    /// `None` only while being dropped.
    slot: Option<Slot>,
}

impl Lease {
    pub(super) fn new(slot: Slot, agent: Agent) -> Self {
        slot.runs(&agent.process);
        Self { agent, slot: Some(slot) }
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

    /// Stops the agent and frees the place; returns when both are done. Cancelled, it still happens.
    pub async fn end(self) {
        kill(&*self.agent.process).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let process = Arc::clone(&self.agent.process);
        if process.gone().now_or_never().is_none() {
            // The place stays taken until the agent is gone: limits count what runs.
            slot.shared().spawn(async move {
                kill(&*process).await;
                drop(slot);
            });
        }
    }
}

async fn kill(process: &dyn AgentProcess) {
    if let Err(error) = process.signal(Signal::Kill).await {
        warn!(%error, "An agent can't be stopped; its container may be left");
    }
}
