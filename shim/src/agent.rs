//! The agent: its process, its pipes, its lines, what waits for it to be read.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use streamgate_shim::control::Start;
use streamgate_shim::record::{Body, Exit};

use crate::connection::is_nothing;
use crate::spool::Spool;

const READ_BYTES: usize = 64 << 10;
/// The end of stderr that is kept.
const STDERR_BYTES: usize = 2 << 10;
/// After the agent's end its pipe is read dry: at most what a pipe can hold (pipe(7)) …
const AFTER_EXIT_BYTES: usize = 1 << 20;
/// … and not longer than this without a byte, should something that could not be killed hold it open.
const AFTER_EXIT_WAIT: Duration = Duration::from_millis(500);
/// How many writes may wait, and how many bytes they may have.
const WRITES: usize = 64;
const WRITE_BYTES: usize = 16 << 20;
/// Under memory pressure the agent goes before its shim.
const OOM_SCORE_MORE: i32 = 200;

/// Who asked: a connection's serial and its tag.
pub(crate) type Asker = (u64, u64);

/// A write that the agent has not read.
pub(crate) struct PendingWrite {
    pub(crate) id: String,
    data: Vec<u8>,
    offset: usize,
    pub(crate) askers: Vec<Asker>,
}

/// A running agent, or one that has just ended.
pub(crate) struct Agent {
    pub(crate) pid: Pid,
    pub(crate) run: u64,
    pub(crate) status: Option<WaitStatus>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    max_line: usize,
    /// Since the last newline.
    line: Vec<u8>,
    /// Bytes of a line that is too long, while it goes on.
    skipped: Option<u64>,
    stderr_tail: Vec<u8>,
    pub(crate) writes: VecDeque<PendingWrite>,
    kills_before: u64,
}

impl Agent {
    pub(crate) fn start(start: &Start, run: u64) -> io::Result<Self> {
        let Some((program, arguments)) = start.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
        };
        let mut command = Command::new(program);
        if !start.inherit_env {
            command.env_clear();
        }
        let env = start.env.iter().map(|(name, value)| (name, value));
        command.args(arguments).envs(env).current_dir(&start.cwd).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let kills_before = oom_kills();
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the system gave no process"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        stdin.as_ref().map(set_nonblocking).transpose()?;
        stdout.as_ref().map(set_nonblocking).transpose()?;
        stderr.as_ref().map(set_nonblocking).transpose()?;
        prefer_for_oom(pid);
        Ok(Self {
            pid,
            run,
            status: None,
            stdin,
            stdout,
            stderr,
            max_line: usize::try_from(start.max_line_bytes).unwrap_or(usize::MAX),
            line: Vec::new(),
            skipped: None,
            stderr_tail: Vec::new(),
            writes: VecDeque::new(),
            kills_before,
        })
    }

    pub(crate) fn stdout(&self) -> Option<&ChildStdout> {
        self.stdout.as_ref()
    }

    pub(crate) fn stderr(&self) -> Option<&ChildStderr> {
        self.stderr.as_ref()
    }

    /// Its stdin, if something waits for it.
    pub(crate) fn stdin_wanted(&self) -> Option<&ChildStdin> {
        self.stdin.as_ref().filter(|_| !self.writes.is_empty())
    }

    pub(crate) fn interrupt(&self) {
        let _ = kill_process_group(self.pid, Signal::INT); // It may be gone.
    }

    /// Takes a write in line; `false`: too much waits already.
    pub(crate) fn queue(&mut self, id: String, data: String, asker: Asker) -> bool {
        let waiting: usize = self.writes.iter().map(|write| write.data.len()).sum();
        if self.writes.len() >= WRITES || waiting + data.len() > WRITE_BYTES {
            return false;
        }
        self.writes.push_back(PendingWrite { id, data: data.into_bytes(), offset: 0, askers: vec![asker] });
        true
    }

    /// Whether it can be written to.
    pub(crate) fn hears(&self) -> bool {
        self.stdin.is_some()
    }

    /// Writes what waits as far as it goes; gives what is written now. It may hear no more after that.
    pub(crate) fn write(&mut self) -> Vec<PendingWrite> {
        let mut done = Vec::new();
        while let (Some(stdin), Some(write)) = (&mut self.stdin, self.writes.front_mut()) {
            match stdin.write(&write.data[write.offset..]) {
                Ok(written) => write.offset += written,
                Err(error) if is_nothing(&error) => break,
                Err(_) => self.stdin = None,
            }
            if write.offset == write.data.len() {
                done.extend(self.writes.pop_front());
            }
        }
        done
    }

    /// Reads stdout once into the spool; gives how many bytes came, 0 at the end.
    pub(crate) fn read_stdout(&mut self, spool: &mut Spool) -> usize {
        let mut buffer = vec![0; READ_BYTES];
        let Some(read) = read_some(&mut self.stdout, &mut buffer) else { return 0 };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.take(end);
                    self.end_line(spool);
                }
                None => self.take(piece),
            }
        }
        spool.flush();
        read
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.skipped {
            Some(skipped) => *skipped += bytes.len() as u64,
            None if self.line.len() + bytes.len() > self.max_line => {
                self.skipped = Some((self.line.len() + bytes.len()) as u64);
                self.line = Vec::new();
            }
            None => self.line.extend_from_slice(bytes),
        }
    }

    fn end_line(&mut self, spool: &mut Spool) {
        spool.push(match self.skipped.take() {
            Some(bytes) => Body::LongLine { bytes },
            None => Body::Line(std::mem::take(&mut self.line)),
        });
    }

    /// Reads stderr once.
    pub(crate) fn read_stderr(&mut self) {
        let mut buffer = vec![0; READ_BYTES];
        let read = read_some(&mut self.stderr, &mut buffer).unwrap_or(0);
        let surplus = (self.stderr_tail.len() + read).saturating_sub(STDERR_BYTES);
        self.stderr_tail.extend_from_slice(&buffer[..read]);
        self.stderr_tail.drain(..surplus);
    }

    /// Takes in what its pipes still hold, and its end. All that it started has been killed.
    pub(crate) fn finish(mut self, spool: &mut Spool) -> VecDeque<PendingWrite> {
        let mut left = AFTER_EXIT_BYTES;
        let mut quiet_since = Instant::now();
        while self.stdout.is_some() && left > 0 && quiet_since.elapsed() < AFTER_EXIT_WAIT {
            let read = self.read_stdout(spool);
            left = left.saturating_sub(read);
            match &self.stdout {
                Some(stdout) if read == 0 => wait_for(stdout),
                _ => quiet_since = Instant::now(),
            }
        }
        self.read_stderr();
        if !self.line.is_empty() || self.skipped.is_some() {
            self.end_line(spool);
        }
        let code = self.status.and_then(|status| {
            status
                .exit_status()
                .map(i64::from)
                .or_else(|| status.terminating_signal().map(|signal| 128 + i64::from(signal)))
        });
        spool.push(Body::Exit(Exit {
            run: self.run,
            code,
            oom: oom_kills() > self.kills_before,
            stderr_tail: String::from_utf8_lossy(&self.stderr_tail).into_owned(),
        }));
        spool.flush();
        self.writes
    }
}

/// Reads once; closes what has ended. `None`: nothing now, or nothing more.
fn read_some(pipe: &mut Option<impl Read>, buffer: &mut [u8]) -> Option<usize> {
    match pipe.as_mut()?.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(read) => return Some(read),
        Err(error) if is_nothing(&error) => (),
        Err(_) => *pipe = None,
    }
    None
}

fn wait_for(pipe: &ChildStdout) {
    let deadline = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&deadline)); // The caller looks again.
}

fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?)
}

/// How often the box ran out of memory (cgroups(7), both versions).
fn oom_kills() -> u64 {
    let count = |path| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    };
    count("/sys/fs/cgroup/memory.events").or_else(|| count("/sys/fs/cgroup/memory/memory.oom_control")).unwrap_or(0)
}

fn prefer_for_oom(pid: Pid) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok());
    let score = own.unwrap_or(0).saturating_add(OOM_SCORE_MORE).min(1_000);
    // A hint; it works without.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_pid()), score.to_string());
}
