//! One running child: its output, its end, and the signals to all that it started.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use rustix::process::{Pid, Signal as SystemSignal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin};
use tokio::signal::unix::{Signal as ChildSignals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::super::stdin::Stdin;
use super::super::tail::Tail;
use super::super::{AgentProcess, Exit, Output, RuntimeError, Signal, blocking};
use super::scan;

/// The largest piece of output.
const CHUNK_BYTES: usize = 64 << 10;
/// After the agent's end, what its pipe still holds is read: at most what a pipe can hold (pipe(7)) …
const AFTER_EXIT_BYTES: usize = 1 << 20;
/// … and not longer than this without a byte, should something that we could not kill hold it open.
const AFTER_EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// The process group of an agent.
pub(super) struct Group {
    leader: Pid,
    /// The variable that all descendants inherit, as `/proc` shows it.
    mark: Vec<u8>,
    /// Whether the leader was reaped; from then on its number may be another's.
    reaped: Mutex<bool>,
    gone: CancellationToken,
}

/// The handle that runs talk to.
pub(super) struct ProcessAgent {
    group: Arc<Group>,
    stdin: Stdin<ChildStdin>,
}

impl ProcessAgent {
    /// Takes over a child that leads its process group: reads its output into `output` and reaps it.
    pub(super) fn supervise(
        mut child: Child,
        mark: Vec<u8>,
        output: mpsc::Sender<Output>,
    ) -> Result<(Self, Arc<Group>), RuntimeError> {
        let not_started = || RuntimeError::StartFailed("the process ended at once".to_owned());
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or_else(not_started)?;
        let ends =
            signal(SignalKind::child()).map_err(|error| RuntimeError::StartFailed(format!("SIGCHLD: {error}")))?;
        let stdin = child.stdin.take().ok_or_else(not_started)?;
        let group = Arc::new(Group { leader: pid, mark, reaped: Mutex::new(false), gone: CancellationToken::new() });
        tokio::spawn(drive(child, ends, Arc::clone(&group), output));
        Ok((Self { group: Arc::clone(&group), stdin: Stdin::new(stdin) }, group))
    }
}

impl Group {
    fn send(&self, signal: SystemSignal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // Can only fail when nothing is left to signal.
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// SIGKILL to the group, at once.
    pub(super) fn kill(&self) {
        self.send(SystemSignal::KILL);
    }

    /// SIGKILL also to descendants that left the group. Blocks, for a second at most.
    pub(super) fn kill_all(&self) {
        self.kill();
        scan::kill_where(|seen| self.owns(seen));
    }

    /// Whether a process other than the leader is the agent's.
    fn owns(&self, seen: &scan::Seen) -> bool {
        let leader = self.leader.as_raw_pid();
        // The group's number is only the agent's while its leader is not reaped; the mark always is.
        let reaped = *self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pid != leader
            && ((!reaped && seen.group == leader) || seen.environment_has(|variable| variable == self.mark))
    }

    /// Waits for the end after a kill; `false` when it does not come.
    pub(super) async fn gone_soon(&self) -> bool {
        timeout(KILL_DEADLINE, self.gone.cancelled()).await.is_ok()
    }
}

#[async_trait]
impl AgentProcess for ProcessAgent {
    async fn write(&self, bytes: &[u8], deadline: Duration) -> Result<(), RuntimeError> {
        if self.group.gone.is_cancelled() {
            return Err(RuntimeError::Gone);
        }
        self.stdin.write(bytes, deadline).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), RuntimeError> {
        match signal {
            Signal::Interrupt => self.group.send(SystemSignal::INT),
            Signal::Kill => {
                let group = Arc::clone(&self.group);
                blocking(move || group.kill_all()).await.map_err(RuntimeError::Workspace)?;
                if !self.group.gone_soon().await {
                    return Err(RuntimeError::NotStopped);
                }
            }
        }
        Ok(())
    }

    async fn has_stragglers(&self) -> Result<bool, RuntimeError> {
        let group = Arc::clone(&self.group);
        let found = blocking(move || scan::processes().map(|mut seen| seen.any(|seen| group.owns(&seen)))).await;
        found.and_then(|found| found).map_err(RuntimeError::Workspace)
    }

    async fn gone(&self) {
        self.group.gone.cancelled().await;
    }
}

/// Kills the group when the gateway's own tasks are torn down with the agent alive.
struct KillOnDrop(Arc<Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.0.gone.is_cancelled() {
            self.0.kill_all();
        }
    }
}

/// Reads until the end and tells it, once, last.
async fn drive(mut child: Child, ends: ChildSignals, group: Arc<Group>, output: mpsc::Sender<Output>) {
    let guard = KillOnDrop(Arc::clone(&group));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut tail = Tail::default();
    let (status, (), ()) = tokio::join!(
        reap(&mut child, ends, &group),
        pump(stdout, Sink::Channel(&output), &group.gone),
        pump(stderr, Sink::Tail(&mut tail), &group.gone),
    );
    drop(guard);
    let exit = Exit { code: status.map(exit_code), oom: false, stderr_tail: tail.text() };
    debug!(code = exit.code, stderr = exit.stderr_tail, "An agent's process ended");
    // Nobody may be left to hear it.
    let _ = output.send(Output::Exit(exit)).await;
}

/// Waits for the agent's end and takes along what it left running.
async fn reap(child: &mut Child, mut ends: ChildSignals, group: &Arc<Group>) -> Option<ExitStatus> {
    // Looked at without reaping it, which `Child::wait` would do.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while let Ok(None) = waitid(WaitId::Pid(group.leader), look) {
        ends.recv().await;
    }
    // The leader is a zombie now and keeps its number, so the group is still surely the agent's. What is
    // left of it would hold stdout open and work on unseen.
    let all = Arc::clone(group);
    if blocking(move || all.kill_all()).await.is_err() {
        group.kill();
    }
    *group.reaped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let status = child.wait().await.ok();
    group.gone.cancel();
    status
}

fn exit_code(status: ExitStatus) -> i64 {
    i64::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Where a stream's bytes go.
enum Sink<'a> {
    Channel(&'a mpsc::Sender<Output>),
    Tail(&'a mut Tail),
}

/// Reads `reader` to its end; once the agent is `gone`, only what was left behind.
async fn pump(reader: Option<impl AsyncRead + Unpin>, mut sink: Sink<'_>, gone: &CancellationToken) {
    let Some(mut reader) = reader else { return };
    let mut left_after_exit = AFTER_EXIT_BYTES;
    let mut buffer = BytesMut::new();
    while left_after_exit > 0 {
        buffer.reserve(CHUNK_BYTES);
        let mut space = (&mut buffer).limit(CHUNK_BYTES);
        let read = reader.read_buf(&mut space);
        let count = if gone.is_cancelled() {
            let count = timeout(AFTER_EXIT_WAIT, read).await.map_or(0, Result::unwrap_or_default);
            left_after_exit = left_after_exit.saturating_sub(count);
            count
        } else {
            tokio::select! {
                read = read => read.unwrap_or_default(),
                () = gone.cancelled() => continue,
            }
        };
        if count == 0 {
            break;
        }
        let chunk = buffer.split().freeze();
        match &mut sink {
            // Nobody listens: the agent must not wait for ever, so its words are dropped.
            Sink::Channel(output) => drop(output.send(Output::Stdout(chunk)).await),
            Sink::Tail(tail) => tail.push(&chunk),
        }
    }
}
