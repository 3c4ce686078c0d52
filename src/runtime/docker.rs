//! Agents in containers of a Docker engine, hardened by default: what production uses.
//!
//! One container per start, one workspace directory per box; the container is removed when its agent is
//! gone, the workspace stays. Containers carry labels with this gateway's instance; others are never
//! touched. The engine's socket is as good as root on the host: keep it to the gateway.

mod engine;
mod host;
mod spec;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder};
use streamgate_shim::control::Start;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::engine::Engine;
use self::host::DockerHost;
use self::spec::{Labels, Mounts, User};
use super::capture::{self, Captured, Host as _, Launch, Place};
use super::workspace::{Workspace, Workspaces};
use super::{Agent, AgentSpec, FoundBox, Runtime, RuntimeError, container_name, shim};
use crate::config::{DockerConfig, ProfileConfig};
use crate::domain::{ContainerId, Epoch, ProfileId, SpoolId};
use crate::proxy::place::Places;

/// How long a container may take that only looks at what is mounted.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// Starts agents in containers.
pub struct DockerRuntime {
    engine: Engine,
    workspaces: Workspaces,
    spools: Workspaces,
    proxies: Places,
    shim: PathBuf,
    /// The directory of all that is mounted, here and as the engine sees it.
    dir: PathBuf,
    engine_dir: PathBuf,
    instance: String,
    node: String,
    user: User,
    line_bytes: usize,
}

impl DockerRuntime {
    /// Connects to the engine and makes sure that it answers. Keeps in `dir` what containers mount. `instance` tells this gateway's containers
    /// from those of others on the same engine, `node` this gateway from others of its instance. No line of
    /// an agent is longer than `line_bytes`. Fails with one line that says what to do.
    pub async fn connect(
        config: &DockerConfig,
        dir: &Path,
        instance: &str,
        node: &str,
        line_bytes: usize,
    ) -> Result<Self, RuntimeError> {
        let engine = Engine::connect(&config.socket).await?;
        let user = User::for_agents(&config.user)?;
        let workspaces = Workspaces::open(dir, user.owner()).map_err(RuntimeError::Workspace)?;
        let spools = Workspaces::open_named(dir, "spools", user.owner()).map_err(RuntimeError::Workspace)?;
        let dir = dir.canonicalize().map_err(RuntimeError::Workspace)?;
        let same = config.engine_dir.as_os_str().is_empty();
        let engine_dir = if same { dir.clone() } else { config.engine_dir.clone() };
        let shim = shim::install(spools.path()).map_err(RuntimeError::Workspace)?;
        let proxies = Places::at(&dir);
        let (instance, node) = (instance.to_owned(), node.to_owned());
        Ok(Self { engine, workspaces, spools, proxies, shim, dir, engine_dir, instance, node, user, line_bytes })
    }

    /// Makes sure that an image is there: better told at the start than to the first user.
    pub async fn find_image(&self, image: &str) -> Result<(), RuntimeError> {
        let found = self.engine.call(self.engine.docker.inspect_image(image)).await;
        found.map(drop).map_err(|error| spec::explain_missing(error, image))
    }

    /// Makes sure that a container sees what is mounted into it, and can run the shim: better told at the
    /// start than to the first user. One container of `image` runs for a moment.
    pub async fn check_mounts(&self, image: &str) -> Result<(), RuntimeError> {
        let box_id = ContainerId::generate();
        let spool_id = SpoolId::generate();
        let (workspace, spool) = (self.workspaces.get(box_id), self.spools.get(spool_id));
        let profile = Arc::new(ProfileConfig { image: image.to_owned(), ..ProfileConfig::default() });
        let spec = AgentSpec { container_id: box_id, profile_id: ProfileId::from_slug("check"), profile };
        let checked = async {
            workspace.ensure().await.map_err(RuntimeError::Workspace)?;
            spool.ensure().await.map_err(RuntimeError::Workspace)?;
            let id = self.create(&spec, &workspace, &spool, spool_id, spec::CHECK).await?;
            self.engine.call(self.engine.docker.start_container(&id, None)).await.map_err(engine::not_started)?;
            let host = DockerHost::new(self.engine.clone(), id, spool.clone());
            let exit = timeout(CHECK_DEADLINE, host.ended()).await.unwrap_or_default();
            let greeting = spool.read(spec::CHECKED, 1 << 10).await.ok().flatten();
            if greeting.is_some_and(|greeting| greeting.starts_with(b"streamgate-shim ")) {
                return Ok(());
            }
            Err(RuntimeError::StartFailed(exit.stderr_tail.trim().to_owned()))
        };
        let checked = checked.await;
        self.erase(box_id).await?;
        spool.erase().await.map_err(unerased)?;
        checked.map_err(|error| {
            RuntimeError::BadSetting(format!(
                "a container of `{image}` does not see what the gateway mounts into it from `{}` ({error}) — the engine \
                 must have that directory, and let programs in it run; if it has it under another path, set \
                 `runtime.docker.engine_dir`",
                self.engine_dir.display()
            ))
        })
    }

    /// Creates the container of a box, with these arguments for its shim; gives the engine's id.
    async fn create(
        &self,
        spec: &AgentSpec,
        workspace: &Workspace,
        spool: &Workspace,
        spool_id: SpoolId,
        arguments: &[&str],
    ) -> Result<String, RuntimeError> {
        let proxy = spec.profile.uses_proxy().then(|| self.proxies.path(spec.container_id));
        let mounts = Mounts {
            workspace: self.engine_path(&workspace.path()),
            spool: self.engine_path(&spool.path()),
            shim: self.engine_path(&self.shim),
            proxy: proxy.map(|proxy| self.engine_path(&proxy)),
        };
        let labels = Labels { instance: &self.instance, node: &self.node, spool: spool_id };
        let body = spec::body(spec, &mounts, self.user, &labels, arguments)?;
        let options = CreateContainerOptionsBuilder::default().name(&container_name(spec.container_id)).build();
        let created = self.engine.call(self.engine.docker.create_container(Some(options), body)).await;
        created.map(|created| created.id).map_err(|error| spec::explain_missing(error, &spec.profile.image))
    }

    /// A path below `dir` as the engine sees it.
    fn engine_path(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).map_or_else(|_| path.to_owned(), |inside| self.engine_dir.join(inside))
    }

    /// What the agent is started with: the profile's command, or else the image's.
    async fn agent(&self, spec: &AgentSpec) -> Result<Start, RuntimeError> {
        let mut argv = spec.profile.command.clone();
        if argv.is_empty() {
            let image = &spec.profile.image;
            let found = self.engine.call(self.engine.docker.inspect_image(image)).await;
            let config = found.map_err(|error| spec::explain_missing(error, image))?.config.unwrap_or_default();
            argv.extend(config.entrypoint.unwrap_or_default());
            argv.extend(config.cmd.unwrap_or_default());
        }
        let mut env: Vec<(String, String)> =
            spec.profile.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        env.push(("HOME".to_owned(), spec::WORKSPACE.to_owned()));
        Ok(Start {
            id: "start".to_owned(),
            argv,
            env,
            inherit_env: true,
            cwd: spec::WORKSPACE.to_owned(),
            max_line_bytes: self.line_bytes as u64,
            proxy: spec.profile.uses_proxy().then(spec::proxy),
        })
    }

    fn place(&self, id: &str, spool: &Workspace, launch: Option<Start>) -> Place {
        let host = Arc::new(DockerHost::new(self.engine.clone(), id.to_owned(), spool.clone()));
        Place { directory: spool.path(), host, line_bytes: self.line_bytes, launch }
    }

    /// The containers of this instance that also satisfy `filter`.
    async fn containers(&self, filter: Option<String>) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut labels = vec![format!("{}={}", spec::INSTANCE_LABEL, self.instance)];
        labels.extend(filter);
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.engine.call(self.engine.docker.list_containers(Some(options))).await
    }

    async fn start_in(&self, id: &str, spool: &Workspace, agent: Launch) -> Result<Captured, RuntimeError> {
        self.engine.call(self.engine.docker.start_container(id, None)).await.map_err(engine::not_started)?;
        debug!("Container `{id}` started");
        capture::start(self.place(id, spool, agent.later), agent.with_box).await
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError> {
        let workspace = self.workspaces.get(spec.container_id);
        workspace.ensure().await.map_err(RuntimeError::Workspace)?;
        let agent = self.agent(spec).await?;
        if spec.profile.uses_proxy() {
            self.proxies.ensure(spec.container_id).map_err(RuntimeError::Workspace)?;
        }
        let spool_id = SpoolId::generate();
        let spool = self.spools.get(spool_id);
        let started = async {
            spool.ensure().await.map_err(RuntimeError::Workspace)?;
            let id = self.create(spec, &workspace, &spool, spool_id, spec::RUN).await?;
            self.start_in(&id, &spool, Launch::of(spec, agent)).await
        };
        match started.await {
            Ok(captured) => Ok(agent_in(spec, spool_id, captured)),
            Err(error) => {
                let left = FoundBox { container_id: spec.container_id, spool: spool_id, node: self.node.clone() };
                if let Err(kept) = self.remove(&left).await {
                    let name = container_name(spec.container_id);
                    warn!("Container `{name}` did not start, and can't be removed: {kept}");
                }
                Err(error)
            }
        }
    }

    async fn adopt(
        &self,
        spec: &AgentSpec,
        spool: SpoolId,
        epoch: Epoch,
        after: u64,
    ) -> Result<Option<Agent>, RuntimeError> {
        let found = self.containers(Some(format!("{}={spool}", spec::SPOOL_LABEL))).await?.into_iter().next();
        let may_run = found.as_ref().is_some_and(may_run);
        // Somebody may have removed it: what its agent said is still there.
        let id = found.and_then(|container| container.id).unwrap_or_else(|| container_name(spec.container_id));
        let launch = if spec.profile.adapter.starts_with_box() { None } else { Some(self.agent(spec).await?) };
        let place = self.place(&id, &self.spools.get(spool), launch);
        let captured = capture::adopt(place, may_run, epoch, after)?;
        Ok(captured.map(|captured| agent_in(spec, spool, captured)))
    }

    async fn boxes(&self, of: Option<ContainerId>) -> Result<Vec<FoundBox>, RuntimeError> {
        let found = self.containers(of.map(|id| format!("{}={id}", spec::CONTAINER_LABEL))).await?;
        Ok(found.into_iter().filter_map(|container| read_labels(&container.labels?)).collect())
    }

    async fn remove(&self, found: &FoundBox) -> Result<(), RuntimeError> {
        // Not by its name: another gateway may have one of the same.
        for container in self.containers(Some(format!("{}={}", spec::SPOOL_LABEL, found.spool))).await? {
            if let Some(id) = &container.id {
                self.engine.remove(id).await?;
            }
        }
        self.spools.get(found.spool).erase().await.map_err(unerased)
    }

    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        for found in self.boxes(Some(container_id)).await? {
            self.remove(&found).await?;
        }
        self.proxies.erase(container_id).map_err(RuntimeError::Workspace)?;
        self.workspaces.get(container_id).erase().await.map_err(unerased)
    }

    fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.workspaces.get(container_id)
    }
}

/// The agent of a container.
fn agent_in(spec: &AgentSpec, spool: SpoolId, (output, process): Captured) -> Agent {
    let (container_id, cwd) = (spec.container_id, spec::WORKSPACE.to_owned());
    Agent { container_id, container_name: container_name(container_id), spool, cwd, output, process }
}

fn unerased(error: super::workspace::WorkspaceError) -> RuntimeError {
    RuntimeError::Workspace(std::io::Error::other(error))
}

/// Whether something may still run in a container.
fn may_run(container: &ContainerSummary) -> bool {
    !matches!(container.state, Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::DEAD))
}

fn read_labels(labels: &HashMap<String, String>) -> Option<FoundBox> {
    Some(FoundBox {
        container_id: ContainerId::parse(labels.get(spec::CONTAINER_LABEL)?)?,
        spool: SpoolId::parse(labels.get(spec::SPOOL_LABEL)?)?,
        node: labels.get(spec::NODE_LABEL)?.clone(),
    })
}
