//! Boxes for the orchestrator: who may have one, who waits, who has to give one back.
//!
//! Keeps the limits per user and per gateway, takes back idle boxes when somebody needs room, and keeps
//! warm ones ready. It never looks at what agents say. Everything it knows is behind one lock that is
//! held for moments only; what takes time happens in tasks.

mod book;
mod lease;
mod slots;
mod warm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::lease::{Evicted, Lease};
pub use self::slots::Adopting;
use self::slots::{Grant, Shared, Slot};
use super::workspace::Workspace;
use super::{AgentSpec, FoundBox, Runtime, RuntimeError};
use crate::config::ProfileConfig;
use crate::domain::{ContainerId, Epoch, ProfileId, SpoolId, UserId};

/// How many boxes there may be.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Boxes of a user: `limits.containers_per_user`.
    pub containers_per_user: usize,
    /// Boxes of this gateway, warm ones too: `limits.containers`.
    pub containers: usize,
    /// How long [`Pool::reserve`] and [`Reserved::start`] take together at most: `runtime.start_timeout_seconds`.
    pub start_timeout: Duration,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct PoolStats {
    /// Boxes at work or being started.
    pub running: usize,
    /// Boxes that have an owner and nothing to do.
    pub idle: usize,
    /// Boxes that wait for an owner.
    pub warm: usize,
    /// The most that there may be.
    pub limit: usize,
}

/// Why there is no box.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// All are taken and none became free in time.
    #[error("no container became free in time")]
    NoCapacity,
    /// There is no such profile.
    #[error("there is no profile `{0}`")]
    UnknownProfile(ProfileId),
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Closed,
    /// The agent did not start.
    #[error(transparent)]
    Start(#[from] RuntimeError),
}

/// A box to be taken over.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// Which.
    pub container_id: ContainerId,
    /// Of which kind.
    pub profile_id: &'a ProfileId,
    /// What its agent says.
    pub spool: SpoolId,
    /// The claim under which it is taken over.
    pub epoch: Epoch,
    /// The last record that has been dealt with.
    pub after: u64,
}

/// Hands out boxes. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    profiles: Arc<BTreeMap<ProfileId, Arc<ProfileConfig>>>,
    start_timeout: Duration,
}

impl Pool {
    /// Gives places and starts warming when what comes with it is dropped: what is there already is to be counted before.
    /// Call it inside the tokio runtime.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        profiles: BTreeMap<ProfileId, Arc<ProfileConfig>>,
        limits: PoolLimits,
    ) -> (Self, Adopting) {
        let shared = Shared::new(runtime, limits.containers, limits.containers_per_user);
        let adopting = shared.adopting();
        for (profile_id, profile) in profiles.iter().filter(|(_, profile)| profile.warm > 0) {
            shared.spawn(warm::keep(Arc::clone(&shared), profile_id.clone(), Arc::clone(profile)));
        }
        (Self { shared, profiles: Arc::new(profiles), start_timeout: limits.start_timeout }, adopting)
    }

    /// A place for a box: for `existing` with its files, or else for a new one, warm if there is one. Who waits is
    /// served in order. Cancel safe: who leaves loses the place.
    pub async fn reserve(
        &self,
        user: &UserId,
        profile_id: &ProfileId,
        existing: Option<ContainerId>,
    ) -> Result<Reserved, PoolError> {
        let deadline = Instant::now() + self.start_timeout;
        let profile = self.profiles.get(profile_id).ok_or_else(|| PoolError::UnknownProfile(profile_id.clone()))?;
        let wants_warm = existing.is_none().then(|| profile_id.clone());
        let place = self.shared.queue(user.clone(), wants_warm)?;
        let slot = match timeout_at(deadline, place.granted()).await {
            Ok(Some(Grant::Warm(lease))) => return Ok(Reserved(Reservation::Warm(lease))),
            Ok(Some(Grant::Slot(slot))) => slot,
            Ok(None) => return Err(PoolError::Closed),
            Err(_) => return Err(PoolError::NoCapacity),
        };
        let spec = AgentSpec {
            container_id: existing.unwrap_or_else(ContainerId::generate),
            profile_id: profile_id.clone(),
            profile: Arc::clone(profile),
        };
        let leftovers = match existing {
            Some(_) => timeout_at(deadline, self.shared.runtime.boxes(existing)).await.map_err(|_| too_long())??,
            None => Vec::new(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(Reserved(Reservation::Cold { slot, spec, leftovers, new: existing.is_none(), left }))
    }

    /// Keeps places from being given until it is dropped: take it before boxes are looked for that are to be
    /// taken over.
    pub fn adopting(&self) -> Adopting {
        self.shared.adopting()
    }

    /// Takes over the box of a session that had one before: what it says is heard from the record after
    /// `after` on. `None`: it is not there. It has its place even when all are taken.
    pub async fn adopt(&self, user: &UserId, found: Adoption<'_>) -> Result<Option<Lease>, PoolError> {
        let profile_id = found.profile_id;
        // A profile may have been taken out of the configuration: its boxes go on.
        let profile = self.profiles.get(profile_id).cloned().unwrap_or_default();
        let spec = AgentSpec { container_id: found.container_id, profile_id: profile_id.clone(), profile };
        let Some(agent) = self.shared.runtime.adopt(&spec, found.spool, found.epoch, found.after).await? else {
            return Ok(None);
        };
        let slot = self.shared.take(user.clone()).ok_or(PoolError::Closed)?;
        self.shared.hold(found.container_id);
        Ok(Some(Lease::new(slot, agent, false)))
    }

    /// The boxes of this gateway's instance that are there.
    pub async fn boxes(&self) -> Result<Vec<FoundBox>, RuntimeError> {
        self.shared.runtime.boxes(None).await
    }

    /// Whether somebody here has this box: it is being started, at work, idle, warm, or being taken away.
    pub fn holds(&self, container_id: ContainerId) -> bool {
        self.shared.holds(container_id)
    }

    /// Takes a box away that nobody has.
    pub async fn remove(&self, found: &FoundBox) -> Result<(), RuntimeError> {
        self.shared.runtime.remove(found).await
    }

    /// The files of a box, whether it runs or not.
    pub fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.shared.runtime.workspace(container_id)
    }

    /// Erases a box that does not run, with all its files.
    pub async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        self.shared.runtime.erase(container_id).await
    }

    /// How full it is.
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// Hands out nothing more, turns away who waits, and takes warm boxes away; those in use stay. Returns
    /// when all that is done and nothing is being started any more. Cancelled, what is under way goes on.
    pub async fn shutdown(&self) {
        self.shared.close();
        self.shared.finished().await;
    }
}

/// A place for a box, which has not been started yet unless it is a warm one. Dropping it gives it back.
pub struct Reserved(Reservation);

enum Reservation {
    Warm(Box<Lease>),
    Cold {
        slot: Slot,
        spec: AgentSpec,
        /// What was left of the box when the place was given. What comes later is somebody else's.
        leftovers: Vec<FoundBox>,
        /// Whether it has no files yet.
        new: bool,
        /// How long its start may take.
        left: Duration,
    },
}

impl Reserved {
    /// Starts the agent in it, after taking away what was left of the box when the place was given: make sure between
    /// the two that the box's session is ours. Cancel safe: an agent that nobody takes is stopped.
    pub async fn start(self) -> Result<Lease, PoolError> {
        let (slot, spec, leftovers, new, left) = match self.0 {
            Reservation::Warm(lease) => return Ok(*lease),
            Reservation::Cold { slot, spec, leftovers, new, left } => (slot, spec, leftovers, new, left),
        };
        match timeout(left, start(slot, spec, leftovers, new)).await {
            Ok(Ok(started)) => Ok(started?),
            Ok(Err(_)) => Err(RuntimeError::StartFailed("its start panicked".to_owned()).into()),
            Err(_) => Err(too_long()),
        }
    }
}

fn too_long() -> PoolError {
    RuntimeError::StartFailed("it took longer than `runtime.start_timeout_seconds`".to_owned()).into()
}

/// Starts an agent in a task of its own: a start must not be broken off half-way.
fn start(
    slot: Slot,
    spec: AgentSpec,
    leftovers: Vec<FoundBox>,
    new: bool,
) -> oneshot::Receiver<Result<Lease, RuntimeError>> {
    let (sender, receiver) = oneshot::channel();
    let shared = slot.shared();
    slot.shared().spawn(async move {
        let started = shared.start(&spec, &leftovers).await;
        if started.is_err() && new {
            shared.erase(spec.container_id).await;
        }
        // Nobody may be left to hear it: then it goes again.
        let _ = sender.send(started.map(|agent| Lease::new(slot, agent, new)));
    });
    receiver
}

#[cfg(test)]
mod tests;
