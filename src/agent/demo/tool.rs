//! Commands that the demo agent runs: each a shell in a process group of its own, so that an interrupt
//! ends all that it started.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How much of a command's output is kept; the rest is read and dropped. Somewhat more than the gateway
/// shows of one result, and within its line limit even when every byte needs escaping.
const OUTPUT_BYTES: usize = (1 << 20) + (64 << 10);
/// How long the pipe is read on when the shell is gone but something that it left behind holds it open.
const LEFTOVER_GRACE: Duration = Duration::from_millis(100);
/// How long killed processes get to disappear: an interrupt is acknowledged within 100 ms.
const KILL_GRACE: Duration = Duration::from_millis(50);

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Stdout and stderr as they were interleaved.
    pub(super) output: String,
    /// Whether it failed.
    pub(super) is_error: bool,
}

impl Outcome {
    /// It did not run, for this reason.
    pub(super) fn refused(reason: String) -> Self {
        Self { output: reason, is_error: true }
    }
}

/// The process groups of a turn's commands. Dropping it kills them.
#[derive(Default)]
pub(super) struct Tools {
    groups: Vec<Pid>,
}

impl Tools {
    /// Starts `command` in `directory`.
    pub(super) fn start(&mut self, command: &str, directory: &Path) -> Result<Running, Outcome> {
        self.spawn(command, directory).map_err(|error| Outcome::refused(format!("can't run bash: {error}")))
    }

    fn spawn(&mut self, command: &str, directory: &Path) -> io::Result<Running> {
        // One pipe for both streams keeps their order.
        let (reader, writer) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(reader.into())?;
        let child = Command::new("bash")
            .arg("-c")
            .arg(command)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.groups.extend(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        Ok(Running { child, output })
    }

    /// Forgets the groups that have ended; what a command left running in the background stays known.
    pub(super) fn forget_ended(&mut self) {
        self.groups.retain(|group| test_kill_process_group(*group).is_ok());
    }

    /// Lets background processes live on.
    pub(super) fn release(&mut self) {
        self.groups.clear();
    }

    /// Kills every group and waits a moment until nothing is left of them.
    pub(super) async fn kill(&mut self) {
        self.send_kill();
        let gone = async {
            while !self.groups.is_empty() {
                sleep(Duration::from_millis(1)).await;
                self.forget_ended();
            }
        };
        let _ = timeout(KILL_GRACE, gone).await; // A zombie that its parent leaves is not ours to reap.
        self.groups.clear();
    }

    fn send_kill(&self) {
        for group in &self.groups {
            let _ = kill_process_group(*group, Signal::KILL); // It may have ended by itself.
        }
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.send_kill();
    }
}

/// A command at work.
pub(super) struct Running {
    child: Child,
    output: pipe::Receiver,
}

impl Running {
    /// Waits for the shell to end and takes all that it put out.
    pub(super) async fn finish(mut self) -> Outcome {
        let mut kept = Vec::new();
        let mut open = true;
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                more = read_some(&mut self.output, &mut kept), if open => open = more,
            }
        };
        let rest = async { while open && read_some(&mut self.output, &mut kept).await {} };
        let _ = timeout(LEFTOVER_GRACE, rest).await; // What comes later is the background's.
        Outcome {
            output: String::from_utf8_lossy(&kept).into_owned(),
            is_error: !status.is_ok_and(|status| status.success()),
        }
    }
}

/// Reads some output; `false` at its end. Cancel safe.
async fn read_some(output: &mut pipe::Receiver, kept: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 8192];
    match output.read(&mut chunk).await {
        Ok(0) | Err(_) => false,
        Ok(length) => {
            let room = OUTPUT_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(&chunk[..length.min(room)]);
            true
        }
    }
}
