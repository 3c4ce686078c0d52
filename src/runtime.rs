//! Where agent processes live. One [`Runtime`] per gateway: containers or plain processes.
//!
//! Used by `runtime::pool` (which hands boxes to the orchestrator) and nothing else. A runtime knows
//! neither sessions nor tasks: a *box* is a container id, a workspace directory and, while it runs,
//! an agent process on stdio.

mod capture;
pub mod docker;
pub mod pool;
pub mod process;
mod shim;
pub mod workspace;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::config::ProfileConfig;
use crate::domain::{ContainerId, Epoch, ProfileId, SpoolId};

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

/// A running agent. Dropping it does not stop the agent: [`AgentProcess::kill`] does, and
/// [`AgentProcess::remove`] takes its box away.
pub struct Agent {
    /// Which box.
    pub container_id: ContainerId,
    /// What people call the box (`agent-abc123`).
    pub container_name: String,
    /// Names what it says, from its start to its end.
    pub spool: SpoolId,
    /// The directory that it works in, as it sees it; its home too.
    pub cwd: String,
    /// What the agent says, in order, then exactly one [`Output::Exit`]. Bounded: a full channel makes the
    /// agent wait, in the end.
    pub output: mpsc::Receiver<Output>,
    /// How to speak to it and stop it.
    pub process: Arc<dyn AgentProcess>,
}

/// What comes out of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Lines that it wrote to stdout.
    Lines(Vec<Line>),
    /// The agent is gone; nothing follows.
    Exit(Exit),
}

/// One line of an agent's stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the spool: 1 for the first, no gaps.
    pub record: u64,
    /// How much the spool keeps of it.
    pub bytes: usize,
    /// What it holds.
    pub text: LineText,
}

/// What a line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineText {
    /// Text, without its newline.
    Utf8(String),
    /// Something that is not UTF-8.
    NotUtf8,
    /// More than `limits.agent_line_bytes`; it was not kept.
    TooLong,
}

/// How an agent ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal killed it.
    pub code: Option<i64>,
    /// Whether the box ran out of memory.
    pub oom: bool,
    /// Why its words could not be read to the end, if so. For people.
    pub damaged: Option<String>,
    /// The end of what it wrote to stderr (at most 2 KiB), for the log. Never shown to clients.
    pub stderr_tail: String,
}

/// A handle to a running agent.
#[async_trait]
pub trait AgentProcess: Send + Sync {
    /// Starts the agent, with these arguments behind its profile's command, where that did not happen with its
    /// box: once, however often this is called, by whichever gateway. Cancel safe in the same way.
    async fn launch(&self, arguments: &[String]) -> Result<(), RuntimeError>;

    /// Writes to its stdin what is called `id`: at most once, however often this is called, by whichever
    /// gateway. Gives up after `deadline` with [`RuntimeError::NotReading`]; what was given up may still
    /// arrive, so such an agent is to be killed. Cancel safe in the same way.
    async fn write(&self, id: &str, text: &str, deadline: Duration) -> Result<(), RuntimeError>;

    /// SIGINT to the agent's process group. Of an agent that is gone: succeeds.
    async fn interrupt(&self) -> Result<(), RuntimeError>;

    /// Kills the agent and all that it started, wherever it hid, and returns when nothing of it runs. What
    /// it said stays readable. Of an agent that is gone: succeeds.
    async fn kill(&self) -> Result<(), RuntimeError>;

    /// Whether the box runs anything besides the agent itself: what a tool left behind.
    async fn has_stragglers(&self) -> Result<bool, RuntimeError>;

    /// Says that all up to `record` is durable elsewhere: it may be forgotten, and the agent go on.
    fn acknowledge(&self, record: u64);

    /// Completes when the agent is known to be gone. Cancel safe.
    async fn gone(&self);

    /// Takes the box away with what its agent said, killing what runs in it. The workspace stays.
    async fn remove(&self) -> Result<(), RuntimeError>;
}

/// A box as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBox {
    /// Which.
    pub container_id: ContainerId,
    /// What its agent says is kept under this name.
    pub spool: SpoolId,
    /// The gateway that started it.
    pub node: String,
}

/// Where agent processes live.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Starts an agent in the box `spec.container_id`, making the box's workspace when there is none,
    /// and returns when its process runs, or for a dialect that launches it later when its shim does. What was left of
    /// that box is to be removed before. Not cancel safe: run it in a task of its own, or a half-started agent may stay
    /// until it is found among the boxes.
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError>;

    /// Takes over an agent that another gateway, or this one before its restart, has started, and hears it
    /// from the record after `after` on. With a higher `epoch` than the one before, that one can tell the
    /// agent nothing any more. `None`: the box, or what it said, is not there. An agent that ended
    /// meanwhile is still heard to its end.
    async fn adopt(
        &self,
        spec: &AgentSpec,
        spool: SpoolId,
        epoch: Epoch,
        after: u64,
    ) -> Result<Option<Agent>, RuntimeError>;

    /// The boxes of this gateway's instance that are there, running or not: all, or what there is of one.
    async fn boxes(&self, of: Option<ContainerId>) -> Result<Vec<FoundBox>, RuntimeError>;

    /// Takes a box away as it was found, with all that its agent said, killing what runs in it; not what somebody has
    /// started in it since then. The workspace stays. Of one that is not there: succeeds.
    async fn remove(&self, found: &FoundBox) -> Result<(), RuntimeError>;

    /// Erases a box: what is left of it, and its workspace with all files.
    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError>;

    /// The box's files; made when missing.
    fn workspace(&self, container_id: ContainerId) -> workspace::Workspace;
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

/// Whether only this process or its machine has no more to give (files, memory): it says nothing of what was
/// looked at, and a moment later it may be otherwise.
fn is_exhausted(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
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
    /// More than an agent can be told at once: characters that JSON escapes count several times.
    #[error("what the agent is to be told takes {bytes} bytes as JSON, more than its shim takes at once")]
    TooLarge {
        /// How many it would be.
        bytes: usize,
    },
    /// The agent is gone.
    #[error("the agent is gone")]
    Gone,
    /// Another gateway holds the agent now.
    #[error("another gateway holds the agent now")]
    Stale,
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
