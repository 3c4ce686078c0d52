//! The handle to a running container.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{KillContainerOptionsBuilder, TopOptionsBuilder};
use tokio::io::AsyncWrite;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::stdin::Stdin;
use super::super::{AgentProcess, RuntimeError, Signal};
use super::engine::{Engine, status};

/// How long a killed container may take to be seen dead before it is removed by force anyway.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// The init that the engine puts before the agent, and the agent.
const OWN_PROCESSES: usize = 2;

/// The way into a container's stdin.
pub(super) type ContainerStdin = Stdin<Pin<Box<dyn AsyncWrite + Send>>>;

/// One container.
pub(super) struct DockerAgent {
    engine: Engine,
    /// The engine's id: a later container of the same box has another.
    id: String,
    stdin: ContainerStdin,
    exited: CancellationToken,
}

impl DockerAgent {
    pub(super) fn new(engine: Engine, id: String, stdin: ContainerStdin, exited: CancellationToken) -> Self {
        Self { engine, id, stdin, exited }
    }

    async fn send(&self, signal: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        let call = async {
            match self.engine.docker.kill_container(&self.id, Some(options)).await {
                // Not there, or not running.
                Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
                other => other,
            }
        };
        self.engine.call(call).await
    }
}

#[async_trait]
impl AgentProcess for DockerAgent {
    async fn write(&self, bytes: &[u8], deadline: Duration) -> Result<(), RuntimeError> {
        if self.exited.is_cancelled() {
            return Err(RuntimeError::Gone);
        }
        self.stdin.write(bytes, deadline).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), RuntimeError> {
        match signal {
            // To the init, which passes it on to the agent.
            Signal::Interrupt => self.send("SIGINT").await,
            Signal::Kill => {
                // By itself first: a container that is removed at once leaves no exit code.
                let killed = self.send("SIGKILL").await;
                if killed.is_ok() {
                    // If it is not seen dead, the removal decides.
                    let _ = timeout(KILL_DEADLINE, self.exited.cancelled()).await;
                }
                self.engine.remove(&self.id).await
            }
        }
    }

    async fn has_stragglers(&self) -> Result<bool, RuntimeError> {
        let options = TopOptionsBuilder::default().ps_args("-eo pid,stat").build();
        let call = async {
            match self.engine.docker.top_processes(&self.id, Some(options)).await {
                // It is not running: nothing is. Some engines say so with a 500.
                Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(None),
                Err(error) if error.to_string().contains("is not running") => Ok(None),
                other => other.map(Some),
            }
        };
        let Some(top) = self.engine.call(call).await? else { return Ok(false) };
        let zombie = |row: &&Vec<String>| row.last().is_some_and(|state| state.starts_with('Z'));
        let live = top.processes.iter().flatten().filter(|row| !zombie(row)).count();
        Ok(live > OWN_PROCESSES)
    }

    async fn gone(&self) {
        self.exited.cancelled().await;
    }
}
