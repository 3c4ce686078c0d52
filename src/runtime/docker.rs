//! Agents in containers of a Docker engine, hardened by default: what production uses.
//!
//! One container per start, one workspace directory per box; the container is removed when its agent is
//! gone, the workspace stays. Containers carry labels with this gateway's instance; others are never
//! touched. The engine's socket is as good as root on the host: keep it to the gateway.

mod agent;
mod engine;
mod output;
mod spec;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use self::agent::DockerAgent;
use self::engine::Engine;
use self::spec::User;
use super::stdin::Stdin;
use super::workspace::{Workspace, Workspaces};
use super::{Agent, AgentSpec, Runtime, RuntimeError, container_name};
use crate::config::DockerConfig;
use crate::domain::ContainerId;

/// Pieces of output between an agent and its run. When it is full the engine keeps what the agent writes.
const OUTPUT_CHUNKS: usize = 16;
/// Containers that are removed at the same time.
const REMOVALS: usize = 4;

/// Starts agents in containers.
pub struct DockerRuntime {
    engine: Engine,
    workspaces: Workspaces,
    instance: String,
    user: User,
}

impl DockerRuntime {
    /// Connects to the engine and makes sure that it answers. `instance` tells this gateway's containers
    /// from those of others on the same engine. Fails with one line that says what to do.
    pub async fn connect(config: &DockerConfig, data_dir: &Path, instance: &str) -> Result<Self, RuntimeError> {
        let engine = Engine::connect(&config.socket).await?;
        let user = User::for_agents(&config.user)?;
        let workspaces = Workspaces::open(data_dir, user.owner()).map_err(RuntimeError::Workspace)?;
        Ok(Self { engine, workspaces, instance: instance.to_owned(), user })
    }

    /// Makes sure that an image is there: better told at the start than to the first user.
    pub async fn find_image(&self, image: &str) -> Result<(), RuntimeError> {
        let found = self.engine.call(self.engine.docker.inspect_image(image)).await;
        found.map(drop).map_err(|error| spec::explain_missing(error, image))
    }

    /// Creates and starts the container; gives its handle and what comes out of it.
    async fn run(&self, id: &str) -> Result<(DockerAgent, mpsc::Receiver<super::Output>), RuntimeError> {
        // Before the start, so that no agent ever finds its stdin without us. Only stdin: a stalled reader
        // of an attached stdout freezes the container.
        let stdin = AttachContainerOptionsBuilder::default().stdin(true).stream(true).build();
        let attached = self.engine.call(self.engine.docker.attach_container(id, Some(stdin))).await?;
        self.engine.call(self.engine.docker.start_container(id, None)).await?;
        let (sender, output) = mpsc::channel(OUTPUT_CHUNKS);
        let exited = output::follow(self.engine.clone(), id.to_owned(), sender);
        Ok((DockerAgent::new(self.engine.clone(), id.to_owned(), Stdin::new(attached.input), exited), output))
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError> {
        let workspace = self.workspaces.get(spec.container_id);
        workspace.ensure().await.map_err(RuntimeError::Workspace)?;
        let name = container_name(spec.container_id);
        self.engine.remove(&name).await?;

        let body = spec::body(spec, &workspace.path(), self.user, &self.instance)?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self.engine.call(self.engine.docker.create_container(Some(options), body)).await;
        let id = created.map_err(|error| spec::explain_missing(error, &spec.profile.image))?.id;
        let started = match self.engine.refuse_rotation(&id).await {
            Ok(()) => self.run(&id).await.map_err(engine::not_started),
            Err(error) => Err(error),
        };
        let (process, output) = match started {
            Ok(running) => running,
            Err(error) => {
                if let Err(left) = self.engine.remove(&id).await {
                    warn!(error = %left, "Container `{name}` that did not start can't be removed");
                }
                return Err(error);
            }
        };
        debug!(container.id = %spec.container_id, "Container `{name}` started");
        Ok(Agent {
            container_id: spec.container_id,
            container_name: container_name(spec.container_id),
            output,
            process: Arc::new(process),
        })
    }

    async fn remove_orphans(&self) -> Result<(), RuntimeError> {
        let filters = HashMap::from([("label", vec![format!("{}={}", spec::INSTANCE_LABEL, self.instance)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.engine.call(self.engine.docker.list_containers(Some(options))).await?;
        let ids: Vec<String> = found.into_iter().filter_map(|container| container.id).collect();
        if !ids.is_empty() {
            info!(count = ids.len(), "Removing {} containers that an earlier run left", ids.len());
        }
        let removals = stream::iter(ids).map(|id| async move { self.engine.remove(&id).await });
        let results: Vec<_> = removals.buffer_unordered(REMOVALS).collect().await;
        results.into_iter().collect()
    }

    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        self.engine.remove(&container_name(container_id)).await?;
        let erased = self.workspaces.get(container_id).erase().await;
        erased.map_err(|error| RuntimeError::Workspace(std::io::Error::other(error)))
    }

    fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.workspaces.get(container_id)
    }

    async fn shutdown(&self) {}
}

impl DockerRuntime {
    /// The host directory that holds all workspaces, for whoever backs them up.
    pub fn workspaces_path(&self) -> PathBuf {
        self.workspaces.path().to_owned()
    }
}
