//! Where a session's agent sits: empty, on its way, or there, with its voice and its ears.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::lines::{Line, LineCutter};
use crate::agent::{Adapter, AgentCommand, AgentEvent};
use crate::runtime::pool::{Lease, PoolError};
use crate::runtime::{Exit, Output, RuntimeError, Signal};

/// How long an agent may take to read one command before the run fails.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent whose input is closed may take to be gone; after that it is deaf.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// How many commands may wait for an agent to read them.
const COMMANDS: usize = 16;

/// A session's place for an agent.
pub(super) enum Seat {
    /// Nobody, and nobody is coming.
    Empty,
    /// An agent is being started.
    Starting(oneshot::Receiver<Result<Lease, PoolError>>),
    /// An agent is there.
    Up(Box<Occupant>),
}

/// What happens at the seat.
pub(super) enum SeatEvent {
    /// The agent is there, or could not be had.
    Started(Result<Lease, PoolError>),
    /// The agent said something.
    Stdout(Bytes),
    /// The agent is gone.
    Exit(Exit),
    /// The agent did not take a command.
    Deaf(RuntimeError),
    /// Its place is wanted, or nobody has needed it for long.
    Dismiss(&'static str),
}

/// An agent and all that belongs to it.
pub(super) struct Occupant {
    pub(super) lease: Lease,
    adapter: Box<dyn Adapter>,
    lines: LineCutter,
    stdin: mpsc::Sender<Vec<u8>>,
    deaf: mpsc::Receiver<RuntimeError>,
    /// Since when it has nothing to do, while it is for the taking.
    idle_since: Option<Instant>,
}

impl Seat {
    /// What happens next. Cancel safe. Never returns while the seat is empty.
    pub(super) async fn next(&mut self, idle_stop: Duration) -> SeatEvent {
        match self {
            Self::Empty => std::future::pending().await,
            Self::Starting(started) => {
                let gone = || Err(PoolError::Start(RuntimeError::Gone));
                SeatEvent::Started((&mut *started).await.unwrap_or_else(|_| gone()))
            }
            Self::Up(occupant) => occupant.next(idle_stop).await,
        }
    }

    /// The agent, if it is there.
    pub(super) fn occupant(&mut self) -> Option<&mut Occupant> {
        match self {
            Self::Up(occupant) => Some(occupant),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Kills the agent, if there is one, and empties the seat. The workspace stays.
    pub(super) async fn clear(&mut self) {
        if let Self::Up(occupant) = std::mem::replace(self, Self::Empty) {
            occupant.lease.end().await;
        }
    }
}

impl Occupant {
    /// An agent that has just come up.
    pub(super) fn new(lease: Lease, adapter: Box<dyn Adapter>, line_bytes: usize) -> Self {
        let (stdin, mut commands) = mpsc::channel::<Vec<u8>>(COMMANDS);
        let (complain, deaf) = mpsc::channel(1);
        let process = std::sync::Arc::clone(&lease.agent.process);
        // Its own task: a command that the agent is slow to read must not keep us from reading the agent.
        // Ends with the occupant.
        tokio::spawn(async move {
            while let Some(bytes) = commands.recv().await {
                if let Err(error) = process.write(&bytes, WRITE_DEADLINE).await {
                    let _ = complain.send(error).await; // Nobody minds when the agent is gone.
                    return;
                }
            }
        });
        Self { lease, adapter, lines: LineCutter::new(line_bytes), stdin, deaf, idle_since: None }
    }

    async fn next(&mut self, idle_stop: Duration) -> SeatEvent {
        let idle_since = self.idle_since;
        let evicted = self.lease.evicted();
        tokio::select! {
            output = self.lease.agent.output.recv() => match output {
                Some(Output::Stdout(bytes)) => SeatEvent::Stdout(bytes),
                Some(Output::Exit(exit)) => SeatEvent::Exit(exit),
                None => SeatEvent::Exit(Exit::default()),
            },
            Some(error) = self.deaf.recv() => SeatEvent::Deaf(error),
            () = evicted, if idle_since.is_some() => SeatEvent::Dismiss("another session needs its place"),
            () = idle(idle_since, idle_stop), if idle_since.is_some() => SeatEvent::Dismiss("nothing to do for long"),
        }
    }

    /// Lets the agent be stopped when its place is needed.
    pub(super) fn set_idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.lease.set_idle();
    }

    /// Takes the agent for a turn. `false`: too late, it is gone or its place has been given away.
    pub(super) fn set_busy(&mut self) -> bool {
        self.idle_since = None;
        self.lease.agent.process.gone().now_or_never().is_none() && self.lease.set_busy().is_ok()
    }

    /// Whether the agent ends by itself now: what it says last tells why.
    pub(super) async fn is_ending(&self) -> bool {
        timeout(EXIT_GRACE, self.lease.agent.process.gone()).await.is_ok()
    }

    /// What the bytes mean. Lines that are not of the dialect are logged and skipped.
    pub(super) fn read(&mut self, bytes: Bytes, events: &mut Vec<AgentEvent>) {
        for line in self.lines.push(bytes) {
            self.decode(&line, events);
        }
    }

    /// What a last line without a newline means.
    pub(super) fn read_rest(&mut self, events: &mut Vec<AgentEvent>) {
        if let Some(line) = self.lines.finish() {
            self.decode(&line, events);
        }
    }

    fn decode(&mut self, line: &Line, events: &mut Vec<AgentEvent>) {
        let container = self.lease.agent.container_id;
        match line {
            Line::Text(text) => {
                if let Err(error) = self.adapter.decode(text, events) {
                    warn!(container.id = %container, bytes = text.len(), "A line of the agent in `{container}` was skipped: {error}");
                }
            }
            Line::NotUtf8 => {
                warn!(container.id = %container, "A line of the agent in `{container}` was skipped: not UTF-8");
            }
            Line::TooLong => {
                warn!(container.id = %container, "A line of the agent in `{container}` was skipped: too long");
            }
        }
    }

    /// Tells the agent something, without waiting until it reads it. `false`: it reads nothing any more.
    pub(super) fn tell(&mut self, command: &AgentCommand) -> bool {
        let mut bytes = Vec::new();
        self.adapter.encode(command, &mut bytes);
        self.stdin.try_send(bytes).is_ok()
    }

    /// Signals the agent and all it started. Failures are logged: a deadline follows every signal.
    pub(super) async fn signal(&self, signal: Signal) {
        let container = self.lease.agent.container_id;
        debug!(container.id = %container, ?signal, "Signalling the agent in `{container}`");
        if let Err(error) = self.lease.agent.process.signal(signal).await {
            warn!(container.id = %container, %error, "The agent in `{container}` could not be signalled: {error}");
        }
    }

    /// Whether something besides the agent still runs in its box. Not known counts as yes.
    pub(super) async fn has_stragglers(&self) -> bool {
        self.lease.agent.process.has_stragglers().await.unwrap_or(true)
    }
}

/// Returns when the agent has been idle for long enough.
async fn idle(since: Option<Instant>, stop_after: Duration) {
    match since {
        Some(since) => tokio::time::sleep_until(since + stop_after).await,
        None => std::future::pending().await,
    }
}
