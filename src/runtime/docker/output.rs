//! What a container says, exactly once, and how it ended.
//!
//! Read from the log that the engine stores, never from `attach`, which loses and doubles lines. A
//! follower's clean end is not the log's end either: one that is still catching up when the container
//! exits is cut short without an error (seen on 20.10). So after the exit the log is read once more, from
//! its start, skipping what was delivered.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerWaitResponse;
use bollard::query_parameters::{LogsOptions, WaitContainerOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::tail::Tail;
use super::super::{Exit, Output, RuntimeError};
use super::engine::{Engine, status};

/// Between attempts while the engine does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Attempts to read the rest of a dead container's log before what is missing is given up.
const LAST_READS: usize = 10;
/// How long the engine may be silent while it reads a log that only has to be sent.
const SILENCE_DEADLINE: Duration = Duration::from_secs(30);
/// After the exit, how long a follower may take to notice.
const FOLLOWER_GRACE: Duration = Duration::from_secs(2);
/// Lines of stderr that are asked for; [`Tail`] keeps what fits.
const STDERR_LINES: &str = "100";

/// Delivers a started container's output, its exit last, then removes it. The token tells when the
/// container has exited.
pub(super) fn follow(engine: Engine, id: String, output: mpsc::Sender<Output>) -> CancellationToken {
    let exited = CancellationToken::new();
    let (ended, end) = oneshot::channel();
    tokio::spawn(watch(engine.clone(), id.clone(), exited.clone(), ended));
    tokio::spawn(deliver(Follower { engine, id, output, exited: exited.clone(), delivered: 0 }, end));
    exited
}

/// Waits for the end, however often the engine is restarted meanwhile.
async fn watch(engine: Engine, id: String, exited: CancellationToken, ended: oneshot::Sender<Exit>) {
    let exit = loop {
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
    // Nobody may be left to hear it.
    let _ = ended.send(exit);
    exited.cancel();
}

fn exit_code(waited: Result<ContainerWaitResponse, Error>) -> Option<i64> {
    match waited {
        Ok(response) => Some(response.status_code),
        Err(Error::DockerContainerWaitError { code, .. }) => Some(code),
        Err(_) => None,
    }
}

/// How one reading of the log ended.
#[derive(PartialEq, Eq)]
enum Reading {
    /// The engine says that this is all.
    Complete,
    /// The engine broke off.
    Broken,
    /// There is no such container any more.
    NoContainer,
}

struct Follower {
    engine: Engine,
    id: String,
    output: mpsc::Sender<Output>,
    exited: CancellationToken,
    /// Bytes of stdout that have been delivered: the place in the log.
    delivered: u64,
}

/// Output, then the exit, then the container is gone.
async fn deliver(mut follower: Follower, end: oneshot::Receiver<Exit>) {
    while !follower.exited.is_cancelled() {
        let reading = follower.read(true).await;
        if reading != Reading::Complete && !follower.exited.is_cancelled() {
            sleep(RETRY_AFTER).await;
        }
        // A clean end mostly means that the container is ending too: no need to follow again at once.
        let _ = timeout(FOLLOWER_GRACE, follower.exited.cancelled()).await;
    }
    follower.read_rest().await;
    let mut exit = end.await.unwrap_or_default();
    exit.stderr_tail = follower.stderr_tail().await;
    debug!(code = exit.code, oom = exit.oom, stderr = exit.stderr_tail, "Container `{}` ended", follower.id);
    if let Err(error) = follower.engine.remove(&follower.id).await {
        warn!(error = %error, "Container `{}` has ended but can't be removed", follower.id);
    }
    // Nobody may be left to hear it.
    let _ = follower.output.send(Output::Exit(exit)).await;
}

impl Follower {
    /// Reads the log once, delivering what was not. The log of a running container is followed.
    async fn read(&mut self, follow: bool) -> Reading {
        let engine = self.engine.clone();
        let options = LogsOptions { follow, stdout: true, ..LogsOptions::default() };
        let mut log = Box::pin(engine.docker.logs(&self.id, Some(options)));
        let mut to_skip = self.delivered;
        loop {
            let next = if follow && !self.exited.is_cancelled() {
                tokio::select! {
                    next = log.next() => next,
                    () = self.exited.cancelled() => continue,
                }
            } else {
                let deadline = if follow { FOLLOWER_GRACE } else { SILENCE_DEADLINE };
                match timeout(deadline, log.next()).await {
                    Ok(next) => next,
                    Err(_) => return Reading::Broken,
                }
            };
            match next {
                None => return Reading::Complete,
                Some(Ok(LogOutput::StdOut { message })) => self.pass_on(message, &mut to_skip).await,
                Some(Ok(_)) => (),
                Some(Err(error)) if status(&error) == Some(404) => return Reading::NoContainer,
                Some(Err(error)) => {
                    debug!(error = %error, "Reading the log of container `{}` broke off", self.id);
                    return Reading::Broken;
                }
            }
        }
    }

    /// Delivers `message` without what was delivered by an earlier reading.
    async fn pass_on(&mut self, mut message: Bytes, to_skip: &mut u64) {
        let known = usize::try_from(*to_skip).unwrap_or(usize::MAX).min(message.len());
        *to_skip -= known as u64;
        let fresh = message.split_off(known);
        if !fresh.is_empty() {
            self.delivered += fresh.len() as u64;
            // Nobody may be left to hear it; we stay to remove the container.
            let _ = self.output.send(Output::Stdout(fresh)).await;
        }
    }

    /// After the exit: everything that the follower missed.
    async fn read_rest(&mut self) {
        for _ in 0..LAST_READS {
            match self.read(false).await {
                Reading::Complete | Reading::NoContainer => return,
                Reading::Broken => sleep(RETRY_AFTER).await,
            }
        }
        warn!("The end of the output of container `{}` can't be read; it is lost", self.id);
    }

    async fn stderr_tail(&self) -> String {
        let options = LogsOptions { stderr: true, tail: STDERR_LINES.to_owned(), ..LogsOptions::default() };
        let mut log = Box::pin(self.engine.docker.logs(&self.id, Some(options)));
        let mut tail = Tail::default();
        // Only for the operator: what can't be read quickly is not needed.
        while let Ok(Some(Ok(output))) = timeout(FOLLOWER_GRACE, log.next()).await {
            tail.push(&output.into_bytes());
        }
        tail.text()
    }
}
