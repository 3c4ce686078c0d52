//! Temporary.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::workspace::Workspace;
use super::{Agent, AgentSpec, Runtime, RuntimeError};
use crate::config::{LimitsConfig, ProfileConfig};
use crate::domain::{ContainerId, ProfileId, UserId};

/// x
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// x
    #[error("full")]
    NoCapacity,
    /// x
    #[error("timeout")]
    TimedOut,
    /// x
    #[error(transparent)]
    Start(#[from] RuntimeError),
}
/// x
#[derive(Debug)]
pub struct Evicted;
/// x
pub struct Lease {
    /// x
    pub agent: Agent,
}
impl Lease {
    /// x
    pub fn set_idle(&mut self) {}
    /// x
    pub fn set_busy(&mut self) -> Result<(), Evicted> {
        Ok(())
    }
    /// x
    pub fn evicted(&self) -> impl Future<Output = ()> + use<> {
        std::future::pending()
    }
}
/// x
pub struct Pool {
    runtime: Arc<dyn Runtime>,
    profiles: BTreeMap<ProfileId, Arc<ProfileConfig>>,
}
impl Pool {
    /// x
    pub fn new(
        runtime: Arc<dyn Runtime>,
        profiles: BTreeMap<ProfileId, Arc<ProfileConfig>>,
        _limits: &LimitsConfig,
        _start: Duration,
    ) -> Self {
        Self { runtime, profiles }
    }
    /// x
    pub async fn acquire(
        &self,
        _user: &UserId,
        profile: &ProfileId,
        existing: Option<ContainerId>,
    ) -> Result<Lease, PoolError> {
        let spec = AgentSpec {
            container_id: existing.unwrap_or_else(ContainerId::generate),
            profile_id: profile.clone(),
            profile: Arc::clone(&self.profiles[profile]),
        };
        Ok(Lease { agent: self.runtime.start(&spec).await? })
    }
    /// x
    pub fn stats(&self) -> serde_json::Value {
        serde_json::json!({})
    }
    /// x
    pub async fn shutdown(&self) {}
    /// x
    pub async fn erase(&self, container: ContainerId) -> Result<(), RuntimeError> {
        self.runtime.erase(container).await
    }
    /// x
    pub fn workspace(&self, container: ContainerId) -> Workspace {
        self.runtime.workspace(container)
    }
}
