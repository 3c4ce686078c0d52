//! How a container lives and goes.

use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::ContainerWaitResponse;
use bollard::query_parameters::{KillContainerOptions, LogsOptions, WaitContainerOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::capture::Host;
use super::super::workspace::Workspace;
use super::super::{Exit, RuntimeError, blocking};
use super::engine::Engine;

/// Between attempts while the engine does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// What the shim had to say comes from the engine; it is only for the operator.
const LOG_DEADLINE: Duration = Duration::from_secs(2);
/// How long a container may take to be over once it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of it that are asked for.
const LOG_LINES: &str = "20";

/// One container.
pub(super) struct DockerHost {
    engine: Engine,
    /// The engine's id: a later container of the same box has another.
    id: String,
    spool: Workspace,
    /// The process of its shim, once it is known.
    shim: OnceCell<i32>,
    ended: watch::Receiver<Option<Exit>>,
    _watch: AbortOnDropHandle<()>,
}

impl DockerHost {
    pub(super) fn new(engine: Engine, id: String, spool: Workspace) -> Self {
        let (told, ended) = watch::channel(None);
        let watching = watch_container(engine.clone(), id.clone(), told);
        let watch = AbortOnDropHandle::new(tokio::spawn(watching));
        Self { engine, id, spool, shim: OnceCell::new(), ended, _watch: watch }
    }

    /// Asks the engine for its shim's process. The engine may count in another namespace than this gateway sees: the
    /// number is taken when the process that has it here is in that container's control group.
    async fn find_shim(&self) -> Result<i32, ()> {
        let details = self.engine.call(self.engine.docker.inspect_container(&self.id, None)).await.map_err(drop)?;
        let id = details.id.filter(|id| !id.is_empty()).ok_or(())?;
        let pid = details.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok()).ok_or(())?;
        let read = blocking(move || std::fs::read_to_string(format!("/proc/{pid}/cgroup"))).await.flatten();
        if read.is_ok_and(|groups| groups.contains(&id)) { Ok(pid) } else { Err(()) }
    }
}

#[async_trait]
impl Host for DockerHost {
    async fn ended(&self) -> Exit {
        let mut ended = self.ended.clone();
        let exit = ended.wait_for(Option::is_some).await.map(|exit| exit.clone().unwrap_or_default());
        match exit {
            Ok(exit) => exit,
            Err(_) => std::future::pending().await,
        }
    }

    async fn shim(&self) -> Option<i32> {
        self.shim.get_or_try_init(|| self.find_shim()).await.ok().copied()
    }

    async fn stop(&self) -> Result<(), RuntimeError> {
        let killed = self.engine.call(self.engine.docker.kill_container(&self.id, None::<KillContainerOptions>)).await;
        if matches!(killed, Err(RuntimeError::Unreachable(_))) {
            return killed;
        }
        // One that does not run can't be killed either.
        match timeout(STOP_DEADLINE, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => killed.and(Err(RuntimeError::NotStopped)),
        }
    }

    async fn remove(&self) -> Result<(), RuntimeError> {
        self.engine.remove(&self.id).await?;
        self.spool.erase().await.map_err(|error| RuntimeError::Workspace(std::io::Error::other(error)))
    }
}

/// Waits for the end, however often the engine is restarted meanwhile.
async fn watch_container(engine: Engine, id: String, told: watch::Sender<Option<Exit>>) {
    let mut exit = loop {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let waited = engine.docker.wait_container(&id, Some(options)).next().await;
        match engine.call(engine.docker.inspect_container(&id, None)).await {
            Ok(details) => {
                let state = details.state.unwrap_or_default();
                if state.running != Some(true) {
                    break Exit { code: state.exit_code, oom: state.oom_killed == Some(true), ..Exit::default() };
                }
            }
            // Removed behind our back; the wait may still have told the code.
            Err(RuntimeError::Gone) => break Exit { code: waited.and_then(exit_code), ..Exit::default() },
            Err(error) => debug!(error = %error, "The engine does not tell whether a container runs"),
        }
        sleep(RETRY_AFTER).await;
    };
    exit.stderr_tail = log(&engine, &id).await;
    told.send_replace(Some(exit));
}

fn exit_code(waited: Result<ContainerWaitResponse, Error>) -> Option<i64> {
    match waited {
        Ok(response) => Some(response.status_code),
        Err(Error::DockerContainerWaitError { code, .. }) => Some(code),
        Err(_) => None,
    }
}

/// The shim's own words: agents' are in the spool.
async fn log(engine: &Engine, id: &str) -> String {
    let options = LogsOptions { stdout: true, stderr: true, tail: LOG_LINES.to_owned(), ..LogsOptions::default() };
    let mut log = Box::pin(engine.docker.logs(id, Some(options)));
    let mut text = Vec::new();
    while let Ok(Some(Ok(output))) = timeout(LOG_DEADLINE, log.next()).await {
        text.extend_from_slice(&output.into_bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}
