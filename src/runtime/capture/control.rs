//! The line to a shim: what it is told, what it answers, how far its spool has come.
//!
//! One task per shim holds the connection, and makes a new one when it breaks. What was asked and not
//! answered is asked again then, if anybody still waits: every command can be repeated. The socket is in a directory
//! that the agent can write, so it is looked at before it is used, who answers is too ([`Control::is_proven`]),
//! answers are bounded and every wait has an end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use streamgate_shim::control::{
    Command, MAX_REPLY, MAX_REQUEST, Message, Outcome, Refusal, RefusalCode, Request, SOCKET, Status,
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::RuntimeError;
use super::Host;

/// Between two tries to connect.
const RECONNECT: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500)];
/// How long a shim may take to take a line in.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How many requests may wait to be sent.
const REQUESTS: usize = 64;

type Answer = Result<Option<Status>, RuntimeError>;

/// A request and where its answer goes.
struct Asked {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// The line to one shim. Dropping it hangs up; the shim goes on.
pub(in crate::runtime) struct Control {
    requests: mpsc::Sender<Asked>,
    acknowledged: watch::Sender<u64>,
    proven: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

impl Control {
    /// Connects to the shim of the spool in `directory`, as the holder of `epoch`, and keeps connecting.
    /// With it comes the number of the last record, as far as it is known.
    pub(in crate::runtime) fn connect(
        directory: &Path,
        host: Arc<dyn Host>,
        epoch: i64,
    ) -> (Self, watch::Receiver<u64>) {
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (told, records) = watch::channel(0);
        let acknowledged = watch::Sender::new(0);
        let acks = acknowledged.subscribe();
        let proven = Arc::new(AtomicBool::new(false));
        let line = Line {
            directory: directory.to_owned(),
            host,
            proven: Arc::clone(&proven),
            epoch,
            asked,
            acks,
            told,
            pending: BTreeMap::new(),
            tag: 0,
        };
        (Self { requests, acknowledged, proven, _task: AbortOnDropHandle::new(tokio::spawn(line.hold())) }, records)
    }

    /// Whether who answers is the shim for certain. Otherwise that could not be found out, and it may be the agent.
    pub(in crate::runtime) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the answer no longer than `deadline`. Cancel safe: what was asked may happen.
    pub(in crate::runtime) async fn ask(
        &self,
        command: Command,
        deadline: Duration,
    ) -> Result<Option<Status>, RuntimeError> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.requests.send(Asked { command, answer }).await.map_err(|_| RuntimeError::Stale)?;
            answered.await.map_err(|_| RuntimeError::Stale)?
        };
        timeout(deadline, asking).await.unwrap_or(Err(RuntimeError::NotReading))
    }

    /// Says that what is up to `record` is durable elsewhere; again on each new connection, until more is.
    pub(in crate::runtime) fn acknowledge(&self, record: u64) {
        self.acknowledged.send_if_modified(|before| {
            let more = record > *before;
            *before = record.max(*before);
            more
        });
    }
}

fn explain(refusal: Refusal) -> RuntimeError {
    match refusal.code {
        RefusalCode::Stale => RuntimeError::Stale,
        RefusalCode::Gone => RuntimeError::Gone,
        RefusalCode::Full => RuntimeError::NotReading,
        RefusalCode::Alive => RuntimeError::NotStopped,
        RefusalCode::Running | RefusalCode::StartFailed | RefusalCode::BadRequest => {
            RuntimeError::StartFailed(refusal.message)
        }
    }
}

/// The task's side.
struct Line {
    directory: PathBuf,
    host: Arc<dyn Host>,
    proven: Arc<AtomicBool>,
    epoch: i64,
    asked: mpsc::Receiver<Asked>,
    /// The last record that may be forgotten; 0 if none may.
    acks: watch::Receiver<u64>,
    told: watch::Sender<u64>,
    /// Sent or to be sent, and not answered.
    pending: BTreeMap<u64, Asked>,
    tag: u64,
}

/// Why a connection ended.
enum Ended {
    /// It broke: make a new one.
    Broken,
    /// Nobody asks any more, or another gateway holds the shim.
    ForGood,
}

impl Line {
    async fn hold(mut self) {
        let mut tries = 0;
        loop {
            match self.talk().await {
                Ok(Ended::ForGood) => return,
                Ok(Ended::Broken) => tries = 0,
                Err(error) => debug!(%error, "The shim in `{}` does not answer", self.directory.display()),
            }
            sleep(RECONNECT[tries.min(RECONNECT.len() - 1)]).await;
            tries += 1;
        }
    }

    /// One connection, from hello to its end.
    async fn talk(&mut self) -> io::Result<Ended> {
        let stream = connect(&self.directory).await?;
        self.look_at(&stream).await?;
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut out = Vec::new();
        encode(&mut out, 0, &Command::Hello { epoch: self.epoch });
        // Who stopped waiting has made do without: an interrupt would come too late, and what an agent did not hear it
        // is told again, under its id, by who takes it over.
        self.pending.retain(|_, asked| !asked.answer.is_closed());
        for (tag, asked) in &self.pending {
            encode(&mut out, *tag, &asked.command);
        }
        self.acks.mark_changed();
        let mut line = Vec::new();
        loop {
            if !out.is_empty() {
                timeout(WRITE_DEADLINE, writer.write_all(&out)).await??;
                out.clear();
            }
            tokio::select! {
                read = read_line(&mut reader, &mut line) => {
                    if !read? {
                        return Ok(Ended::Broken);
                    }
                    let message = serde_json::from_slice(&line).map_err(io::Error::other);
                    line.clear();
                    if let Some(ended) = self.hear(message?) {
                        return Ok(ended);
                    }
                }
                Ok(()) = self.acks.changed() => {
                    let record = *self.acks.borrow_and_update();
                    if record > 0 {
                        self.tag += 1;
                        encode(&mut out, self.tag, &Command::Ack { record });
                    }
                }
                asked = self.asked.recv() => {
                    let Some(asked) = asked else { return Ok(Ended::ForGood) };
                    if asked.answer.is_closed() {
                        continue;
                    }
                    self.tag += 1;
                    let bytes = encode(&mut out, self.tag, &asked.command);
                    if bytes > MAX_REQUEST {
                        // The shim would hang up, on each new connection again.
                        out.truncate(out.len() - bytes - 1);
                        let _ = asked.answer.send(Err(RuntimeError::TooLarge { bytes })); // It may be too late.
                        continue;
                    }
                    self.pending.insert(self.tag, asked);
                    // Who stopped waiting needs no answer.
                    if self.pending.len() > REQUESTS {
                        self.pending.retain(|_, asked| !asked.answer.is_closed());
                    }
                }
            }
        }
    }

    /// Makes sure that the shim is at the other end, where that can be told: an agent can put a socket of its own in
    /// the place. Of a process that a gateway in a container can't see, the system gives no number (unix(7)).
    async fn look_at(&self, stream: &UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?.pid().filter(|pid| *pid > 0);
        match (peer, self.host.shim().await) {
            (Some(peer), Some(shim)) if peer == shim => self.proven.store(true, Ordering::Relaxed),
            (Some(peer), Some(_)) => {
                return Err(io::Error::other(format!("process {peer} answers in the shim's place")));
            }
            // What could be told before is not given up.
            _ if self.proven.load(Ordering::Relaxed) => return Err(io::Error::other("nobody knows who answers")),
            _ => (),
        }
        Ok(())
    }

    fn hear(&mut self, message: Message) -> Option<Ended> {
        match message {
            Message::Records { records } => {
                self.told.send_replace(records);
                None
            }
            Message::Reply { outcome: Outcome::Error(Refusal { code: RefusalCode::Stale, .. }), .. } => {
                Some(Ended::ForGood)
            }
            Message::Reply { tag, outcome } => {
                if let Some(asked) = self.pending.remove(&tag) {
                    // Nobody may be waiting any more.
                    let _ = asked.answer.send(match outcome {
                        Outcome::Ok(status) => Ok(status),
                        Outcome::Error(refusal) => Err(explain(refusal)),
                    });
                }
                None
            }
        }
    }
}

/// Adds a line to `out`; gives how long it is, without its newline.
fn encode(out: &mut Vec<u8>, tag: u64, command: &Command) -> usize {
    let before = out.len();
    let request = Request { tag, command: command.clone() };
    // Texts and numbers into memory: can't fail.
    let _ = serde_json::to_writer(&mut *out, &request);
    let bytes = out.len() - before;
    out.push(b'\n');
    bytes
}

/// Reads one line of bounded length into `line`, without its newline; `false` at the end. Cancel safe: what
/// has been read is kept in `line`.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    let left = (MAX_REPLY + 1).saturating_sub(line.len()) as u64;
    let read = reader.take(left).read_until(b'\n', line).await?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(true);
    }
    if read == 0 && line.len() <= MAX_REPLY {
        return Ok(false);
    }
    Err(io::Error::other("a line without an end"))
}

/// Connects to the socket in `directory`, and to nothing else: not through a link.
async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(CWD, directory.join(SOCKET), flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("the control socket is no socket"));
    }
    // The very file that was looked at; also short enough for an address (unix(7): 108 bytes).
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}
