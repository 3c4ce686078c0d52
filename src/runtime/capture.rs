//! An agent beside its shim: heard through a spool, told through a socket, found again after a crash.
//!
//! The same for every runtime: they differ only in how a shim comes to life and how its box goes
//! ([`Host`]). The shim keeps what the agent says until it is acknowledged; nothing is lost while no
//! gateway listens.

mod control;
mod spool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use streamgate_shim::control::{Command, Signal, Start, Status};
use streamgate_shim::record::{Body, Record};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use self::control::Control;
use self::spool::{Spool, SpoolError};
use super::{AgentProcess, AgentSpec, Exit, Line, LineText, Output, RuntimeError, blocking, is_exhausted};
use crate::domain::Epoch;

/// Batches of lines between an agent and its run; full: the spool keeps the rest.
const OUTPUT_BATCHES: usize = 16;
/// The most lines in one: what they mean commits as one, and others wait for it.
const BATCH_LINES: usize = 512;
/// The most bytes of one that waits among others.
const SMALL_BATCH: usize = 256 << 10;
/// How long a shim that was just started may take to answer, its agent's start included.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long a shim may take for what it does at once.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to kill everything.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How often the spool is looked at when nobody tells of more.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// The most that a record may hold besides a line of the longest kind.
const SMALL_RECORD: usize = 64 << 10;

/// How a box lives and goes.
#[async_trait]
pub(super) trait Host: Send + Sync {
    /// Completes when the box's shim is gone, and tells what is known of its end. Cancel safe.
    async fn ended(&self) -> Exit;

    /// The process of the box's shim, by the number that this gateway sees; `None` when that can't be told.
    async fn shim(&self) -> Option<i32>;

    /// Ends all that runs in the box, its shim too, and returns when it is over. What was said stays readable. Of a
    /// box that has ended: succeeds.
    async fn stop(&self) -> Result<(), RuntimeError>;

    /// Takes the box away, whatever runs in it. Of one that is gone: succeeds.
    async fn remove(&self) -> Result<(), RuntimeError>;
}

/// Where a box keeps what its agent says, and how its shim is reached.
pub(super) struct Place {
    /// The spool's directory, as this process sees it.
    pub(super) directory: PathBuf,
    /// How the box lives and goes.
    pub(super) host: Arc<dyn Host>,
    /// Lines longer than this were not kept.
    pub(super) line_bytes: usize,
    /// How its agent is started, where that does not happen with its box.
    pub(super) launch: Option<Start>,
}

/// How an agent is started: with its box, or later.
pub(super) struct Launch {
    pub(super) with_box: Option<Start>,
    pub(super) later: Option<Start>,
}

impl Launch {
    /// As the agent's dialect has it.
    pub(super) fn of(spec: &AgentSpec, start: Start) -> Self {
        if spec.profile.adapter.starts_with_box() {
            Self { with_box: Some(start), later: None }
        } else {
            Self { with_box: None, later: Some(start) }
        }
    }
}

/// What a runtime gives out: what the agent says, and the handle to it.
pub(super) type Captured = (mpsc::Receiver<Output>, Arc<dyn AgentProcess>);

/// Starts the agent in a box whose shim has just been started; without one, makes sure that the shim is there.
pub(super) async fn start(place: Place, agent: Option<Start>) -> Result<Captured, RuntimeError> {
    let (control, records) = Control::connect(&place.directory, Arc::clone(&place.host), 0);
    let first = agent.map_or(Command::Status, Command::Start);
    let started = tokio::select! {
        started = control.ask(first, START_DEADLINE) => started,
        exit = place.host.ended() => {
            let why = exit.stderr_tail.trim();
            Err(RuntimeError::StartFailed(format!("the shim beside it ended with {:?}: {why}", exit.code)))
        }
    };
    match started {
        Ok(_) => listen(place, control, records, 0, CancellationToken::new()),
        Err(RuntimeError::NotReading) => Err(RuntimeError::StartFailed(
            "the shim beside it does not answer; does the engine see `data_dir` under the same path as the gateway?"
                .to_owned(),
        )),
        Err(error) => Err(error),
    }
}

/// Goes on with an agent that was started before, from the record after `after` on; `None` when what it said
/// is not there. If the shim can't run any more (`may_run`), that is all there is: it counts as gone at once.
pub(super) fn adopt(place: Place, may_run: bool, epoch: Epoch, after: u64) -> Result<Option<Captured>, RuntimeError> {
    let (control, records) = Control::connect(&place.directory, Arc::clone(&place.host), epoch.0);
    let gone = CancellationToken::new();
    if !may_run {
        gone.cancel();
    }
    match listen(place, control, records, after, gone) {
        Ok(captured) => Ok(Some(captured)),
        Err(RuntimeError::Workspace(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn listen(
    place: Place,
    control: Control,
    records: watch::Receiver<u64>,
    after: u64,
    gone: CancellationToken,
) -> Result<Captured, RuntimeError> {
    let most = place.line_bytes.saturating_add(SMALL_RECORD);
    let spool = Spool::open(&place.directory, after, most).map_err(RuntimeError::Workspace)?;
    let (output, lines) = mpsc::channel(OUTPUT_BATCHES);
    let control = Arc::new(control);
    let follower = Follower {
        spool: Some(spool),
        control: Arc::clone(&control),
        records,
        host: Arc::clone(&place.host),
        gone: gone.clone(),
        output,
    };
    let follower = AbortOnDropHandle::new(tokio::spawn(follower.follow()));
    let process = CapturedProcess { control, host: place.host, launch: place.launch, gone, _follower: follower };
    Ok((lines, Arc::new(process)))
}

/// Reads a spool and passes on what it holds.
struct Follower {
    /// `None` only while it is being read.
    spool: Option<Spool>,
    control: Arc<Control>,
    records: watch::Receiver<u64>,
    host: Arc<dyn Host>,
    gone: CancellationToken,
    output: mpsc::Sender<Output>,
}

impl Follower {
    /// Until the agent's end, or until nobody listens.
    async fn follow(mut self) {
        let mut ended = None;
        loop {
            let records = match self.read().await {
                Ok(records) => records,
                // What it says is kept until there is a file to read it with.
                Err(SpoolError::Io(error)) if is_exhausted(&error) => {
                    tokio::time::sleep(LOOK_ANYWAY).await;
                    continue;
                }
                Err(error) => {
                    warn!(%error, "An agent can't be heard any more: {error}");
                    return self.conclude(Exit { damaged: Some(error.to_string()), ..Exit::default() }).await;
                }
            };
            if records.is_empty() {
                // The box is gone, and this was all.
                if let Some(exit) = ended {
                    self.gone.cancel();
                    return self.end(exit).await;
                }
                tokio::select! {
                    // Hung up: the spool is still looked at.
                    changed = self.records.changed() => if changed.is_err() { tokio::time::sleep(LOOK_ANYWAY).await },
                    exit = self.host.ended() => ended = Some(exit),
                    () = tokio::time::sleep(LOOK_ANYWAY) => (),
                }
                continue;
            }
            let (mut lines, exit) = sort(records);
            while !lines.is_empty() {
                let rest = lines.split_off(lines.len().min(BATCH_LINES));
                if pass_on(&self.output, lines).await.is_err() {
                    return;
                }
                lines = rest;
            }
            if let Some(exit) = exit {
                return self.conclude(exit).await;
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<Record>, SpoolError> {
        let Some(mut spool) = self.spool.take() else { return Ok(Vec::new()) };
        let told = *self.records.borrow_and_update();
        let (spool, read) = blocking(move || {
            let read = spool.read(told);
            (spool, read)
        })
        .await?;
        self.spool = Some(spool);
        read
    }

    /// Nothing more will be heard, or the spool says that the agent has ended, which the agent can write there itself:
    /// nobody may take it for gone while it works on. If that can't be made sure of, its end is told all the same,
    /// but not that it is gone: whoever ends its task tries again.
    async fn conclude(self, exit: Exit) {
        if !self.gone.is_cancelled() {
            match kill(&self.control, &*self.host).await {
                Ok(()) => self.gone.cancel(),
                Err(error) => warn!(%error, "An agent that has ended, or can't be heard, may run on: {error}"),
            }
        }
        self.end(exit).await;
    }

    async fn end(self, exit: Exit) {
        debug!(code = exit.code, oom = exit.oom, stderr = exit.stderr_tail, "An agent ended");
        // Nobody may be left to hear it.
        let _ = self.output.send(Output::Exit(exit)).await;
        // To hang up would be another end.
        self.gone.cancelled().await;
    }
}

/// Kills all that runs in a box, whoever answers for its shim, and returns when it is over.
async fn kill(control: &Control, host: &dyn Host) -> Result<(), RuntimeError> {
    let killed = tokio::select! {
        killed = control.ask(Command::Signal { signal: Signal::Kill }, KILL_DEADLINE) => killed,
        _ = host.ended() => return Ok(()),
    };
    match killed {
        Ok(_) if control.is_proven() => return Ok(()),
        // Who says so may be the agent itself.
        Ok(_) => (),
        // Another gateway decides.
        Err(RuntimeError::Stale) => return Err(RuntimeError::Stale),
        Err(error) => warn!(%error, "An agent could not be killed by its shim: all that runs in its box ends"),
    }
    host.stop().await
}

/// Passes a batch on. A large one goes when all before it have been taken: what waits stays small, however long an
/// agent's lines are. Fails when nobody listens.
async fn pass_on(output: &mpsc::Sender<Output>, lines: Vec<Line>) -> Result<(), SendError<()>> {
    let bytes: usize = lines.iter().map(|line| line.bytes).sum();
    let room = if bytes > SMALL_BATCH { OUTPUT_BATCHES } else { 1 };
    if let Some(place) = output.reserve_many(room).await?.next() {
        place.send(Output::Lines(lines));
    }
    Ok(())
}

/// The lines among `records`, and the agent's end if it is there.
fn sort(records: Vec<Record>) -> (Vec<Line>, Option<Exit>) {
    let mut lines = Vec::with_capacity(records.len());
    for Record { number, body } in records {
        let (bytes, text) = match body {
            Body::Line(line) => (line.len(), String::from_utf8(line).map_or(LineText::NotUtf8, LineText::Utf8)),
            Body::LongLine { .. } => (0, LineText::TooLong),
            Body::Exit(exit) => {
                let exit = Exit { code: exit.code, oom: exit.oom, stderr_tail: exit.stderr_tail, damaged: None };
                return (lines, Some(exit));
            }
        };
        lines.push(Line { record: number, bytes, text });
    }
    (lines, None)
}

/// The handle to an agent beside its shim.
struct CapturedProcess {
    control: Arc<Control>,
    host: Arc<dyn Host>,
    launch: Option<Start>,
    gone: CancellationToken,
    _follower: AbortOnDropHandle<()>,
}

impl CapturedProcess {
    /// Asks the shim, unless the agent is gone or goes meanwhile.
    async fn ask(&self, command: Command, deadline: Duration) -> Result<Option<Status>, RuntimeError> {
        tokio::select! {
            answer = self.control.ask(command, deadline) => answer,
            () = self.gone.cancelled() => Err(RuntimeError::Gone),
        }
    }
}

#[async_trait]
impl AgentProcess for CapturedProcess {
    async fn launch(&self, arguments: &[String]) -> Result<(), RuntimeError> {
        let Some(mut start) = self.launch.clone() else { return Ok(()) };
        start.argv.extend_from_slice(arguments);
        self.ask(Command::Start(start), START_DEADLINE).await.map(drop)
    }

    async fn write(&self, id: &str, text: &str, deadline: Duration) -> Result<(), RuntimeError> {
        self.ask(Command::Write { id: id.to_owned(), data: text.to_owned() }, deadline).await.map(drop)
    }

    async fn interrupt(&self) -> Result<(), RuntimeError> {
        match self.ask(Command::Signal { signal: Signal::Interrupt }, ASK_DEADLINE).await {
            Ok(_) | Err(RuntimeError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn kill(&self) -> Result<(), RuntimeError> {
        tokio::select! {
            killed = kill(&self.control, &*self.host) => killed,
            () = self.gone.cancelled() => Ok(()),
        }
    }

    async fn has_stragglers(&self) -> Result<bool, RuntimeError> {
        match self.ask(Command::Status, ASK_DEADLINE).await {
            Ok(status) => Ok(status.is_none_or(|status| status.stragglers)),
            Err(RuntimeError::Gone) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn acknowledge(&self, record: u64) {
        self.control.acknowledge(record);
    }

    async fn gone(&self) {
        self.gone.cancelled().await;
    }

    async fn remove(&self) -> Result<(), RuntimeError> {
        let removed = self.host.remove().await;
        self.gone.cancel();
        removed
    }
}

#[cfg(test)]
mod tests;
