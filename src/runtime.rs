//! Where agent processes live. One [`Runtime`] per gateway: containers or plain processes.
//!
//! Used by `runtime::pool` (which hands boxes to the orchestrator) and nothing else. A runtime knows
//! neither sessions nor tasks: a *box* is a container id, a workspace directory and, while it runs,
//! an agent process on stdio.

pub mod docker;
pub mod pool;
pub mod process;
mod stdin;
mod tail;
pub mod workspace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::ProfileConfig;
use crate::domain::{ContainerId, ProfileId};

/// What to start.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// Names the box; also its workspace directory and its label.
    pub container_id: ContainerId,
    /// The profile's id, for labels and logs.
    pub profile_id: ProfileId,
    /// The profile: command, image, limits, environment.
    pub profile: Arc<ProfileConfig>,
}

/// A running agent. Dropping it does not stop the agent: [`AgentProcess::kill`] does.
pub struct Agent {
    /// Which box.
    pub container_id: ContainerId,
    /// What people call the box (`agent-abc123`).
    pub container_name: String,
    /// What the agent says: stdout in chunks as they come, then exactly one [`Output::Exit`], after
    /// all of its output. Bounded: a full channel makes the agent wait.
    pub output: mpsc::Receiver<Output>,
    /// How to speak to it and stop it.
    pub process: Arc<dyn AgentProcess>,
}

/// What comes out of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Stdout bytes, cut anywhere.
    Stdout(Bytes),
    /// The agent is gone; nothing follows.
    Exit(Exit),
}

/// How an agent ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal killed it.
    pub code: Option<i64>,
    /// Whether the box ran out of memory.
    pub oom: bool,
    /// The end of what it wrote to stderr (at most 2 KiB), for the log. Never shown to clients.
    pub stderr_tail: String,
}

/// A signal to an agent's whole process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGKILL.
    Kill,
}

/// A handle to a running agent.
#[async_trait]
pub trait AgentProcess: Send + Sync {
    /// Writes to its stdin, one writer at a time. Gives up after `deadline` with
    /// [`RuntimeError::NotReading`]: an agent that never reads must not hold anybody. What was given up
    /// may have arrived in part, so its stdin is closed then, and every later write fails: nothing is
    /// ever glued to half a line. Not cancel safe in the same way.
    async fn write(&self, bytes: &[u8], deadline: Duration) -> Result<(), RuntimeError>;

    /// Sends a signal to the agent and all that it started. Killing also removes what holds it (the
    /// container), not the workspace, and returns when that is done; output that was not read by then
    /// may be lost. Of an agent that is gone: succeeds.
    async fn signal(&self, signal: Signal) -> Result<(), RuntimeError>;

    /// Whether the box runs anything besides the agent itself (and its init): what a tool left behind.
    async fn has_stragglers(&self) -> Result<bool, RuntimeError>;

    /// Completes when the agent is gone, whether or not its output has been read. Cancel safe.
    async fn gone(&self);
}

/// Where agent processes live.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Starts an agent in the box `spec.container_id`, making the box's workspace when there is none,
    /// and returns when its process runs. A leftover container of that box is removed first. Not cancel
    /// safe: run it in a task of its own, or a half-started agent may stay until the next start.
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError>;

    /// Stops and removes whatever this gateway's instance left running, but for nothing else's.
    /// Called once, before anything is started.
    async fn remove_orphans(&self) -> Result<(), RuntimeError>;

    /// Erases a box that does not run: its workspace with all files.
    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError>;

    /// The box's files; made when missing.
    fn workspace(&self, container_id: ContainerId) -> workspace::Workspace;

    /// Ends what must not outlive the gateway: plain processes. Containers stay.
    async fn shutdown(&self);
}

/// What people and the engine call a box. The end of the id: its start is the time, equal for neighbours,
/// its end is 48 random bits.
pub fn container_name(container_id: ContainerId) -> String {
    let id = container_id.to_string();
    format!("agent-{}", &id[id.len() - 12..])
}

/// Runs `work` where blocking is fine.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
}

/// What can go wrong in a runtime, in words for the operator's log. Clients hear "no container".
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine does not answer.
    #[error("the container engine does not answer: {0}")]
    Unreachable(String),
    /// The image is not there.
    #[error("the image `{image}` is not there; build or pull it: {hint}")]
    NoImage {
        /// Which.
        image: String,
        /// The command.
        hint: String,
    },
    /// The agent did not start.
    #[error("the agent did not start: {0}")]
    StartFailed(String),
    /// The agent does not read its stdin.
    #[error("the agent did not read its input in time")]
    NotReading,
    /// The agent is gone.
    #[error("the agent is gone")]
    Gone,
    /// The agent survived a kill for too long.
    #[error("the agent did not stop in time")]
    NotStopped,
    /// A setting does not fit this host.
    #[error("{0}")]
    BadSetting(String),
    /// The disk.
    #[error("workspace: {0}")]
    Workspace(#[source] std::io::Error),
}
