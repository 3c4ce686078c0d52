//! Agents as plain processes: the embedded default, for trusted agents and development.
//!
//! Each runs beside a shim of its own, in a process group and a directory of its own, with a clean
//! environment. That is tidiness, not isolation: an agent can do what the gateway's user can. Shims outlive
//! the gateway, for an hour at most.

mod host;
mod scan;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use streamgate_shim::control::{Proxy, Start};
use tokio::process::Command;
use tracing::{debug, warn};

use self::host::{Note, ProcessHost};
use super::capture::{self, Captured, Launch, Place};
use super::workspace::{Workspace, Workspaces};
use super::{Agent, AgentSpec, FoundBox, Runtime, RuntimeError, container_name, is_exhausted, shim};
use crate::config::search_path;
use crate::domain::{ContainerId, Epoch, SpoolId};
use crate::proxy::place::{self, Places};

/// Marks an agent and all that it starts, so that it is found even when its shim is gone.
const MARK: &str = "STREAMGATE_AGENT";
/// How long a shim goes on without a gateway, in seconds.
const LINGER: &str = "3600";

/// Starts agents as processes.
pub struct ProcessRuntime {
    workspaces: Workspaces,
    spools: Workspaces,
    proxies: Places,
    /// Where notes on shims are kept: agents have no business there.
    notes: PathBuf,
    shim: PathBuf,
    own_program: PathBuf,
    node: String,
    line_bytes: usize,
}

impl ProcessRuntime {
    /// Keeps all it needs in `data_dir`. `own_program` is what a profile's program `streamgate` means; the
    /// running executable if `None`. No line of an agent is longer than `line_bytes`. Fails when a
    /// directory can't be made.
    pub fn new(
        data_dir: &Path,
        own_program: Option<PathBuf>,
        node: &str,
        line_bytes: usize,
    ) -> Result<Self, RuntimeError> {
        let own_program = own_program.map_or_else(std::env::current_exe, Ok);
        let workspaces = Workspaces::open(data_dir, None).map_err(RuntimeError::Workspace)?;
        let spools = Workspaces::open_named(data_dir, "spools", None).map_err(RuntimeError::Workspace)?;
        let shim = shim::install(spools.path()).map_err(RuntimeError::Workspace)?;
        let notes = data_dir.join("shims");
        fs::create_dir_all(&notes).map_err(RuntimeError::Workspace)?;
        Ok(Self {
            workspaces,
            spools,
            proxies: Places::at(data_dir),
            notes,
            shim,
            own_program: own_program.map_err(|error| RuntimeError::StartFailed(error.to_string()))?,
            node: node.to_owned(),
            line_bytes,
        })
    }

    fn agent(&self, spec: &AgentSpec, home: &Path, spool: SpoolId) -> Result<Start, RuntimeError> {
        let Some((program, arguments)) = spec.profile.command.split_first() else {
            let slug = spec.profile_id.slug();
            return Err(RuntimeError::BadSetting(format!(
                "`profiles.{slug}.command` is empty; under `runtime.kind = \"process\"` it names the agent's program"
            )));
        };
        let program = if program == "streamgate" { self.own_program.display().to_string() } else { program.clone() };
        // Never the gateway's own environment: it holds secrets.
        let home = home.display().to_string();
        let fixed = |name: &str, value: String| (name.to_owned(), value);
        let mut env = vec![fixed("PATH", search_path()), fixed("LANG", "C.UTF-8".to_owned())];
        env.extend(spec.profile.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        env.extend([fixed("HOME", home.clone()), fixed(MARK, spool.to_string())]);
        let socket = self.proxies.path(spec.container_id).join(place::SOCKET);
        Ok(Start {
            id: "start".to_owned(),
            argv: std::iter::once(program).chain(arguments.iter().cloned()).collect(),
            env,
            inherit_env: false,
            cwd: home,
            max_line_bytes: self.line_bytes as u64,
            // Boxes share the host's loopback: each takes a port that is free.
            proxy: spec.profile.uses_proxy().then(|| Proxy { socket: socket.display().to_string(), port: 0 }),
        })
    }

    async fn run(
        &self,
        spec: &AgentSpec,
        spool_id: SpoolId,
        spool: &Workspace,
        start: Start,
    ) -> Result<Captured, RuntimeError> {
        spool.ensure().await.map_err(RuntimeError::Workspace)?;
        let mut command = Command::new(&self.shim);
        command.arg(spool.path()).args(["--linger-seconds", LINGER]).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = shim::spawn(&mut command)
            .await
            .map_err(|error| RuntimeError::StartFailed(format!("`{}`: {error}", self.shim.display())))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let file = self.note(spool_id);
        let noted = Note::of(spec.container_id, spool_id, &self.node, pid);
        let note = match noted.and_then(|note| fs::write(&file, note.text()).map(|()| note)) {
            Ok(note) => note,
            Err(error) => {
                let _ = child.start_kill(); // Nobody would find it again.
                return Err(RuntimeError::Workspace(error));
            }
        };
        // Reaped as long as we are its parent.
        tokio::spawn(async move { child.wait().await });
        let host = ProcessHost::new(note, file, spool.clone());
        let Launch { with_box, later } = Launch::of(spec, start);
        capture::start(self.place(host, spool, later), with_box).await
    }

    fn place(&self, host: ProcessHost, spool: &Workspace, launch: Option<Start>) -> Place {
        Place { directory: spool.path(), host: Arc::new(host), line_bytes: self.line_bytes, launch }
    }

    fn note(&self, spool: SpoolId) -> PathBuf {
        self.notes.join(format!("{spool}.json"))
    }

    fn noted(&self) -> Result<Vec<Note>, RuntimeError> {
        let entries = fs::read_dir(&self.notes).map_err(RuntimeError::Workspace)?;
        let notes = entries.filter_map(|entry| read_note(&entry.ok()?.path()).transpose());
        notes.collect::<io::Result<_>>().map_err(RuntimeError::Workspace)
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError> {
        let workspace = self.workspaces.get(spec.container_id);
        workspace.ensure().await.map_err(RuntimeError::Workspace)?;
        if spec.profile.uses_proxy() {
            self.proxies.ensure(spec.container_id).map_err(RuntimeError::Workspace)?;
        }
        let spool_id = SpoolId::generate();
        let agent = self.agent(spec, &workspace.path(), spool_id)?;
        let spool = self.spools.get(spool_id);
        match self.run(spec, spool_id, &spool, agent).await {
            Ok(captured) => {
                debug!(container.id = %spec.container_id, "Agent of box `{}` started", spec.container_id);
                Ok(agent_in(spec, spool_id, &workspace, captured))
            }
            Err(error) => {
                let left = FoundBox { container_id: spec.container_id, spool: spool_id, node: self.node.clone() };
                if let Err(kept) = self.remove(&left).await {
                    warn!("What an agent left that did not start can't be removed: {kept}");
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
        let file = self.note(spool);
        let Some(note) = read_note(&file).map_err(RuntimeError::Workspace)? else { return Ok(None) };
        let (spooled, workspace) = (self.spools.get(spool), self.workspaces.get(spec.container_id));
        let with_box = spec.profile.adapter.starts_with_box();
        let launch = if with_box { None } else { Some(self.agent(spec, &workspace.path(), spool)?) };
        let may_run = note.lives();
        let host = ProcessHost::new(note, file, spooled.clone());
        let captured = capture::adopt(self.place(host, &spooled, launch), may_run, epoch, after)?;
        Ok(captured.map(|captured| agent_in(spec, spool, &workspace, captured)))
    }

    async fn boxes(&self, of: Option<ContainerId>) -> Result<Vec<FoundBox>, RuntimeError> {
        let found = self.noted()?.into_iter().filter_map(|note| note.found());
        Ok(found.filter(|found| of.is_none_or(|of| found.container_id == of)).collect())
    }

    async fn remove(&self, found: &FoundBox) -> Result<(), RuntimeError> {
        let file = self.note(found.spool);
        if let Some(note) = read_note(&file).map_err(RuntimeError::Workspace)? {
            host::end(&note).await?;
        }
        host::forget(&file, &self.spools.get(found.spool)).await
    }

    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        for found in self.boxes(Some(container_id)).await? {
            self.remove(&found).await?;
        }
        self.proxies.erase(container_id).map_err(RuntimeError::Workspace)?;
        let erased = self.workspaces.get(container_id).erase().await;
        erased.map_err(|error| RuntimeError::Workspace(std::io::Error::other(error)))
    }

    fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.workspaces.get(container_id)
    }
}

/// The agent of a box.
fn agent_in(spec: &AgentSpec, spool: SpoolId, workspace: &Workspace, (output, process): Captured) -> Agent {
    let (container_id, cwd) = (spec.container_id, workspace.path().display().to_string());
    Agent { container_id, container_name: container_name(container_id), spool, cwd, output, process }
}

/// A note; `None` when it is not there, or is none. Fails when it can't be read now.
fn read_note(file: &Path) -> io::Result<Option<Note>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Note::read(&bytes)),
        Err(error) if is_exhausted(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// How `NAME=value` looks in `/proc/<pid>/environ`.
fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

#[cfg(test)]
mod tests;
