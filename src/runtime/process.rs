//! Agents as plain child processes: the embedded default, for trusted agents and development.
//!
//! Each runs in a process group and a directory of its own with a clean environment. That is tidiness,
//! not isolation: an agent can do what the gateway's user can.

mod agent;
mod scan;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use tokio::process::Command;
use tokio::sync::mpsc;
use tracing::{debug, warn};
use uuid::Uuid;

use self::agent::{Group, ProcessAgent};
use super::workspace::{Workspace, Workspaces};
use super::{Agent, AgentSpec, Runtime, RuntimeError, blocking, container_name};
use crate::domain::ContainerId;

/// Chunks of output between an agent and its run; full: the agent waits.
const OUTPUT_CHUNKS: usize = 16;
/// Marks an agent and all that it starts, so that what left its process group is found too.
const MARK: &str = "STREAMGATE_AGENT";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts agents as children of the gateway. They die with it: dropping this kills them.
pub struct ProcessRuntime {
    workspaces: Workspaces,
    own_program: PathBuf,
    running: Mutex<Vec<Weak<Group>>>,
}

impl ProcessRuntime {
    /// Keeps its workspaces in `data_dir`. `own_program` is what a profile's program `streamgate` means;
    /// the running executable if `None`. Fails when the directory can't be made.
    pub fn new(data_dir: &Path, own_program: Option<PathBuf>) -> Result<Self, RuntimeError> {
        let own_program = own_program.map_or_else(std::env::current_exe, Ok);
        Ok(Self {
            workspaces: Workspaces::open(data_dir, None).map_err(RuntimeError::Workspace)?,
            own_program: own_program.map_err(|error| RuntimeError::StartFailed(error.to_string()))?,
            running: Mutex::default(),
        })
    }

    fn command(&self, spec: &AgentSpec, home: &Path, mark: &str) -> Result<Command, RuntimeError> {
        let Some((program, arguments)) = spec.profile.command.split_first() else {
            let slug = spec.profile_id.slug();
            return Err(RuntimeError::BadSetting(format!(
                "`profiles.{slug}.command` is empty; under `runtime.kind = \"process\"` it names the agent's program"
            )));
        };
        let own = program == "streamgate";
        let mut command = Command::new(if own { self.own_program.as_os_str() } else { program.as_ref() });
        command
            .args(arguments)
            .current_dir(home)
            // Never the gateway's own environment: it holds secrets.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))
            .env("LANG", "C.UTF-8")
            .envs(&spec.profile.env)
            .env("HOME", home)
            .env(MARK, mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    fn remember(&self, group: &Arc<Group>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|group| group.strong_count() > 0);
        running.push(Arc::downgrade(group));
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter_map(Weak::upgrade).collect()
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError> {
        let workspace = self.workspaces.get(spec.container_id);
        workspace.ensure().await.map_err(RuntimeError::Workspace)?;
        let home = workspace.path();
        let mark = Uuid::now_v7().simple().to_string();
        let mut command = self.command(spec, &home, &mark)?;
        let leftover = variable("HOME", home.as_os_str().as_encoded_bytes());
        kill_where(move |seen| seen.environment_has(|variable| variable == leftover)).await?;

        let program = command.as_std().get_program().to_owned();
        let child = command
            .spawn()
            .map_err(|error| RuntimeError::StartFailed(format!("`{}`: {error}", program.to_string_lossy())))?;
        let (sender, output) = mpsc::channel(OUTPUT_CHUNKS);
        let (process, group) = ProcessAgent::supervise(child, variable(MARK, mark.as_bytes()), sender)?;
        self.remember(&group);
        debug!(container.id = %spec.container_id, "Agent of box `{}` started", spec.container_id);
        Ok(Agent {
            container_id: spec.container_id,
            container_name: container_name(spec.container_id),
            output,
            process: Arc::new(process),
        })
    }

    /// Finds what an earlier gateway on this `data_dir` left when it was killed.
    async fn remove_orphans(&self) -> Result<(), RuntimeError> {
        let homes = variable("HOME", self.workspaces.path().join("ctr_").as_os_str().as_encoded_bytes());
        let killed = kill_where(move |seen| seen.environment_has(|variable| variable.starts_with(&homes))).await?;
        if killed > 0 {
            warn!(killed, "Killed {killed} processes of agents that an earlier gateway left");
        }
        Ok(())
    }

    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        let erased = self.workspaces.get(container_id).erase().await;
        erased.map_err(|error| RuntimeError::Workspace(std::io::Error::other(error)))
    }

    fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.workspaces.get(container_id)
    }

    async fn shutdown(&self) {
        for group in self.groups() {
            group.kill();
            group.gone_soon().await;
        }
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        for group in self.groups() {
            group.kill_all();
        }
    }
}

/// How `NAME=value` looks in `/proc/<pid>/environ`.
fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

async fn kill_where(matches: impl Fn(&scan::Seen) -> bool + Send + 'static) -> Result<usize, RuntimeError> {
    blocking(move || scan::kill_where(matches)).await.map_err(RuntimeError::Workspace)
}

#[cfg(test)]
mod tests;
