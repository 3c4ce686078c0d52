//! The connection to the engine: every call has a deadline, every failure is told in our words.

use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::time::{Instant, sleep, timeout};

use super::super::RuntimeError;

/// How long the engine may take for one call. Starting is the slowest: seconds on a busy host.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long the first contact may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the engine may take to finish a removal that it says is under way.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(30);
const BETWEEN_REMOVALS: Duration = Duration::from_millis(50);

/// An engine.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
}

impl Engine {
    /// Connects and agrees on an API version, which is also the first sign of life.
    pub(super) async fn connect(socket: &Path) -> Result<Self, RuntimeError> {
        let fail = |reason: String| {
            let socket = socket.display();
            RuntimeError::Unreachable(format!(
                "{socket}: {reason}; install it (`apt-get install docker.io`), start it (`systemctl start docker`), let \
                 this user use the socket, or set `runtime.docker.socket` or `runtime.kind = \"process\"`"
            ))
        };
        let path = socket.to_str().ok_or_else(|| fail("the path is not UTF-8".to_owned()))?;
        let docker = Docker::connect_with_unix(path, CALL_DEADLINE.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| fail(error.to_string()))?;
        match timeout(CONNECT_DEADLINE, docker.negotiate_version()).await {
            Ok(Ok(docker)) => Ok(Self { docker }),
            Ok(Err(error)) => Err(fail(error.to_string())),
            Err(_) => Err(fail("no answer".to_owned())),
        }
    }

    /// Waits for one call, not for ever.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, RuntimeError> {
        match timeout(CALL_DEADLINE, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(explain(error)),
            Err(_) => Err(RuntimeError::Unreachable("no answer in time".to_owned())),
        }
    }

    /// Stops and removes a container, by id or name. Of one that is not there: succeeds.
    pub(super) async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        let give_up_at = Instant::now() + REMOVAL_DEADLINE;
        loop {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match timeout(CALL_DEADLINE, self.docker.remove_container(container, Some(options))).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if status(&error) == Some(404) => return Ok(()),
                // Somebody else removes it already; it is gone when the engine says 404.
                Ok(Err(error)) if status(&error) == Some(409) && Instant::now() < give_up_at => {
                    sleep(BETWEEN_REMOVALS).await;
                }
                Ok(Err(error)) => return Err(explain(error)),
                Err(_) => return Err(RuntimeError::Unreachable("no answer in time".to_owned())),
            }
        }
    }
}

/// The engine's HTTP status, when it answered with one.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What an engine's answer means.
fn explain(error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } if message.contains("No such image") => {
            RuntimeError::NoImage { image: String::new(), hint: message }
        }
        Error::DockerResponseServerError { status_code: 404, .. } => RuntimeError::Gone,
        Error::DockerResponseServerError { message, .. } => RuntimeError::StartFailed(message),
        other => RuntimeError::Unreachable(other.to_string()),
    }
}

/// A container that was there a moment ago and is not now did not start.
pub(super) fn not_started(error: RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::Gone => RuntimeError::StartFailed("the container was removed meanwhile".to_owned()),
        other => other,
    }
}
