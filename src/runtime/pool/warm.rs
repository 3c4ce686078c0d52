//! Keeping boxes warm: one task per profile that wants some.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{pending, select_all};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::super::AgentSpec;
use super::slots::Shared;
use crate::config::ProfileConfig;
use crate::domain::{ContainerId, ProfileId};

/// The pause after a failure, doubled by each that follows.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A warm agent that lived this long is no sign of something broken.
const HEALTHY_LIFE: Duration = Duration::from_mins(1);

/// Refills until the pool closes. Agents that can't start or die at once slow it down.
pub(super) async fn keep(shared: Arc<Shared>, profile_id: ProfileId, profile: Arc<ProfileConfig>) {
    let mut changes = shared.changes();
    let mut pause = SHORTEST_PAUSE;
    while !shared.stop.is_cancelled() {
        changes.mark_unchanged();
        let failed = if shared.may_warm(&profile_id, profile.warm) {
            !start_one(&shared, &profile_id, &profile).await
        } else {
            tokio::select! {
                () = shared.stop.cancelled() => break,
                _ = changes.changed() => (),
                () = any_gone(&shared, &profile_id) => (),
            }
            false
        };
        let dead = shared.bury(&profile_id);
        if dead.iter().any(|since| since.elapsed() >= HEALTHY_LIFE) {
            pause = SHORTEST_PAUSE;
        }
        if failed || !dead.is_empty() {
            debug!(profile.id = %profile_id, "Warming of `{profile_id}` rests for {} ms", pause.as_millis());
            tokio::select! {
                () = shared.stop.cancelled() => break,
                () = sleep(pause) => (),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn start_one(shared: &Arc<Shared>, profile_id: &ProfileId, profile: &Arc<ProfileConfig>) -> bool {
    let container_id = ContainerId::generate();
    let spec = AgentSpec { container_id, profile_id: profile_id.clone(), profile: Arc::clone(profile) };
    match shared.start(&spec, &[]).await {
        Ok(agent) => {
            shared.warmed(profile_id, Some(agent));
            true
        }
        Err(error) => {
            warn!(profile.id = %profile_id, %error, "A warm box of `{profile_id}` does not start");
            shared.warmed(profile_id, None);
            shared.erase(container_id).await;
            false
        }
    }
}

async fn any_gone(shared: &Shared, profile_id: &ProfileId) {
    let processes = shared.warm_processes(profile_id);
    if processes.is_empty() {
        return pending().await;
    }
    select_all(processes.iter().map(|process| process.gone())).await;
}
