//! How a shim that runs as a plain process lives and goes, and how it is found again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, RawPid, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::super::capture::Host;
use super::super::workspace::Workspace;
use super::super::{Exit, FoundBox, RuntimeError, blocking, is_exhausted};
use super::{MARK, scan, variable};
use crate::domain::{ContainerId, SpoolId};

/// How long a shim may take to kill all that it started and end.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether a shim runs: it ends with its agent's box, or because it was killed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is written down of a shim: enough to find it again, and nothing else in its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    container: String,
    spool: String,
    node: String,
    pid: RawPid,
    /// When it started, in the system's ticks since its boot: a number is used again, the pair is not.
    started: u64,
}

impl Note {
    /// Of a process that runs.
    pub(super) fn of(container: ContainerId, spool: SpoolId, node: &str, pid: RawPid) -> io::Result<Self> {
        let started = started(pid)?.ok_or_else(|| io::Error::other("the shim ended at once"))?;
        Ok(Self { container: container.to_string(), spool: spool.to_string(), node: node.to_owned(), pid, started })
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Which box it is of.
    pub(super) fn found(&self) -> Option<FoundBox> {
        Some(FoundBox {
            container_id: ContainerId::parse(&self.container)?,
            spool: SpoolId::parse(&self.spool)?,
            node: self.node.clone(),
        })
    }

    /// Whether the process still runs. What can't be seen now is taken to.
    pub(super) fn lives(&self) -> bool {
        !self.is_gone()
    }

    /// The process, if it still runs. Fails when that can't be seen now, which says nothing of the process.
    fn handle(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        // The handle first: what is seen afterwards is of the process that it holds.
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from) {
            Ok(handle) => handle,
            Err(error) if is_exhausted(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        Ok((started(self.pid)? == Some(self.started)).then_some(handle))
    }

    fn is_gone(&self) -> bool {
        matches!(self.handle(), Ok(None))
    }
}

/// When a live process started. Fails when that can't be read now.
fn started(pid: RawPid) -> io::Result<Option<u64>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(start_in(&stat)),
        Err(error) if is_exhausted(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// When a live process started, as its `stat` says (proc(5), field 22).
fn start_in(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
    let live = !matches!(fields.next()?, "Z" | "X");
    live.then(|| fields.nth(18)?.parse().ok())?
}

/// One shim.
pub(super) struct ProcessHost {
    note: Note,
    file: PathBuf,
    spool: Workspace,
    ended: watch::Receiver<bool>,
    _watch: AbortOnDropHandle<()>,
}

impl ProcessHost {
    /// Watches the shim that is noted in `file`; one that is gone has ended.
    pub(super) fn new(note: Note, file: PathBuf, spool: Workspace) -> Self {
        let (told, ended) = watch::channel(false);
        let watched = note.clone();
        let watching = async move {
            while !watched.is_gone() {
                sleep(LOOK_EVERY).await;
            }
            // One that was killed has left its agent: nobody hears of an end while that runs.
            if let Err(error) = end(&watched).await {
                warn!(%error, "What a shim left that is gone can't be ended: {error}");
            }
            told.send_replace(true);
        };
        Self { note, file, spool, ended, _watch: AbortOnDropHandle::new(tokio::spawn(watching)) }
    }
}

#[async_trait]
impl Host for ProcessHost {
    async fn ended(&self) -> Exit {
        let mut ended = self.ended.clone();
        if ended.wait_for(|ended| *ended).await.is_err() {
            std::future::pending::<()>().await;
        }
        Exit::default()
    }

    async fn shim(&self) -> Option<i32> {
        Some(self.note.pid)
    }

    async fn stop(&self) -> Result<(), RuntimeError> {
        end(&self.note).await
    }

    async fn remove(&self) -> Result<(), RuntimeError> {
        end(&self.note).await?;
        forget(&self.file, &self.spool).await
    }
}

/// Ends a shim and all that it started. Of one that is gone: what it may have left.
pub(super) async fn end(note: &Note) -> Result<(), RuntimeError> {
    let note = note.clone();
    let ended = blocking(move || {
        if let Some(handle) = note.handle()? {
            let _ = pidfd_send_signal(&handle, Signal::TERM); // It kills its own and ends.
            let give_up_at = Instant::now() + END_DEADLINE;
            while !note.is_gone() && Instant::now() < give_up_at {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
        let mark = variable(MARK, note.spool.as_bytes());
        Ok(scan::kill_where(|seen| seen.environment_has(|variable| variable == mark)))
    });
    if ended.await.flatten().map_err(RuntimeError::Workspace)? { Ok(()) } else { Err(RuntimeError::NotStopped) }
}

/// Erases what an ended shim kept.
pub(super) async fn forget(file: &std::path::Path, spool: &Workspace) -> Result<(), RuntimeError> {
    spool.erase().await.map_err(|error| RuntimeError::Workspace(io::Error::other(error)))?;
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RuntimeError::Workspace(error)),
        _ => Ok(()),
    }
}
