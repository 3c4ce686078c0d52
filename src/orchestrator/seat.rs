//! Where a session's agent sits: empty, in line, on its way, there with its voice and its ears, or leaving.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::agent::{Adapter, AgentCommand, AgentEvent, Tell, Turn};
use crate::domain::ContainerId;
use crate::hub::Receipt;
use crate::proxy::{Channel, Metered};
use crate::runtime::pool::{Lease, PoolError, Reserved};
use crate::runtime::{AgentProcess, Exit, Line, LineText, Output, RuntimeError};

/// How long an agent may take to read one command before the run fails.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent whose input is closed may take to be gone; after that it is deaf.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// The least time between two log lines about what an agent said that is none of its dialect.
const TELL_SKIPPED: Duration = Duration::from_secs(1);
/// How long a task that ends waits for what its model is about to say of its cost.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long an idle agent may take to save what it knows, when its box goes.
const SAVE_GRACE: Duration = Duration::from_secs(1);
/// How many commands may wait for an agent to read them, and how much they may be, in KiB.
const COMMANDS: usize = 256;
const COMMAND_KIB: usize = 16 << 10;

/// A session's place for an agent.
pub(super) enum Seat {
    /// Nobody, and nobody is coming.
    Empty,
    /// A place for one is waited for.
    Waiting(BoxFuture<'static, Result<Reserved, PoolError>>),
    /// An agent is being started.
    Starting(oneshot::Receiver<Result<Lease, PoolError>>),
    /// An agent is there.
    Up(Box<Occupant>),
    /// Its box is being taken away.
    Leaving(oneshot::Receiver<()>),
}

/// What happens at the seat.
pub(super) enum SeatEvent {
    /// There is a place for an agent, or none could be had.
    Reserved(Result<Reserved, PoolError>),
    /// The agent is there, or could not be had.
    Started(Result<Lease, PoolError>),
    /// The agent said something.
    Lines(Vec<Line>),
    /// The agent is gone.
    Exit(Exit),
    /// The agent's model has answered.
    Metered(Metered),
    /// The agent did not take a command.
    Deaf(RuntimeError),
    /// Its place is wanted, or nobody has needed it for long.
    Dismiss(&'static str),
    /// Its box is gone: the seat is empty.
    Left,
}

/// Something the agent is to be told, once: after the commit that says so.
struct Told {
    what: Tell,
    after: Option<Receipt>,
    /// Its room in the queue, until the agent has heard it.
    _room: OwnedSemaphorePermit,
}

/// What waits for an agent to read it: so many things, and so much of them.
struct Commands {
    queue: mpsc::Sender<Told>,
    room: Arc<Semaphore>,
}

impl Commands {
    fn new() -> (Self, mpsc::Receiver<Told>) {
        let (queue, told) = mpsc::channel(COMMANDS);
        (Self { queue, room: Arc::new(Semaphore::new(COMMAND_KIB)) }, told)
    }

    /// Takes one more. Does not wait. `false`: there is no room, or nobody reads.
    fn push(&self, what: Tell, after: Option<Receipt>) -> bool {
        let bytes = match &what {
            Tell::Launch(arguments) => arguments.iter().map(String::len).sum(),
            Tell::Write { id, text } => id.len() + text.len(),
        };
        let kib = u32::try_from(bytes / 1_024 + 1).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) else { return false };
        self.queue.try_send(Told { what, after, _room: room }).is_ok()
    }
}

/// An agent and all that belongs to it.
pub(super) struct Occupant {
    pub(super) lease: Lease,
    adapter: Box<dyn Adapter>,
    /// Its way to its model, if it has one.
    channel: Option<Channel>,
    commands: Commands,
    deaf: mpsc::Receiver<RuntimeError>,
    _teller: AbortOnDropHandle<()>,
    /// Since when it has nothing to do, while it is for the taking.
    idle_since: Option<Instant>,
    skipped: Skipped,
}

/// Lines that were none of the dialect, or had no place in their turn. Logged once a second at most: an agent must not
/// fill the log.
#[derive(Default)]
struct Skipped {
    /// Not yet told of.
    lines: u64,
    told_at: Option<Instant>,
}

impl Skipped {
    fn note(&mut self, container: ContainerId, why: &dyn std::fmt::Display) {
        self.lines += 1;
        if self.told_at.is_some_and(|told_at| told_at.elapsed() < TELL_SKIPPED) {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        self.told_at = Some(Instant::now());
        warn!(container.id = %container, lines, "{lines} lines of the agent in `{container}` were skipped, the last one because: {why}");
    }
}

impl Seat {
    /// What happens next; the agent is heard when there is `room` for what it says. Cancel safe. Never returns while the
    /// seat is empty.
    pub(super) async fn next(&mut self, idle_stop: Duration, room: impl Future<Output = ()>) -> SeatEvent {
        match self {
            Self::Empty => std::future::pending().await,
            Self::Waiting(reserved) => SeatEvent::Reserved(reserved.await),
            Self::Starting(started) => {
                let gone = || Err(PoolError::Start(RuntimeError::Gone));
                SeatEvent::Started((&mut *started).await.unwrap_or_else(|_| gone()))
            }
            Self::Up(occupant) => occupant.next(idle_stop, room).await,
            Self::Leaving(left) => {
                let _ = (&mut *left).await; // However it went, it is over.
                SeatEvent::Left
            }
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

    /// Takes the agent's box away once `after` has committed: until then what the agent said may be needed
    /// again. The workspace stays. The seat is empty when that is done; [`Seat::next`] tells.
    pub(super) fn dismiss(&mut self, after: Receipt) {
        let occupant = match std::mem::replace(self, Self::Empty) {
            Self::Up(occupant) => occupant,
            other => {
                *self = other;
                return;
            }
        };
        let (gone, left) = oneshot::channel();
        *self = Self::Leaving(left);
        let saves = occupant.adapter.saves_at_end();
        let lease = occupant.lease;
        tokio::spawn(async move {
            if after.committed().await.is_ok() {
                if saves {
                    let process = &lease.agent.process;
                    let _ = process.interrupt().await; // It may be gone, or not heed it: its box goes anyway.
                    let _ = timeout(SAVE_GRACE, process.gone()).await;
                }
                lease.end().await;
            } else {
                // Somebody else's now, or the gateway's next life's.
                lease.leave();
            }
            let _ = gone.send(()); // Nobody may be waiting any more.
        });
    }

    /// Waits no longer for a place.
    pub(super) fn leave_line(&mut self) {
        if matches!(self, Self::Waiting(_)) {
            *self = Self::Empty;
        }
    }

    /// Keeps the agent from beginning another call of its model here. What this returns completes when those under way
    /// have been answered.
    pub(super) fn last_calls(&self) -> impl Future<Output = ()> + Send + use<> {
        let answered = match self {
            Self::Up(occupant) => occupant.channel.as_ref().map(Channel::leave),
            _ => None,
        };
        async move {
            if let Some(answered) = answered {
                answered.await;
            }
        }
    }

    /// Leaves the agent and its box as they are, for whoever owns the session next.
    pub(super) fn leave(&mut self) {
        if let Self::Up(occupant) = std::mem::replace(self, Self::Empty) {
            occupant.lease.leave();
        }
    }
}

impl Occupant {
    /// An agent that is there.
    pub(super) fn new(lease: Lease, adapter: Box<dyn Adapter>, channel: Option<Channel>) -> Self {
        let (commands, told) = Commands::new();
        let (complain, deaf) = mpsc::channel(1);
        let process = Arc::clone(&lease.agent.process);
        // Its own task: a command that the agent is slow to read must not keep us from reading the agent.
        let teller = AbortOnDropHandle::new(tokio::spawn(tell_all(process, told, complain)));
        Self { lease, adapter, channel, commands, deaf, _teller: teller, idle_since: None, skipped: Skipped::default() }
    }

    async fn next(&mut self, idle_stop: Duration, room: impl Future<Output = ()>) -> SeatEvent {
        let idle_since = self.idle_since;
        let evicted = self.lease.evicted();
        let output = &mut self.lease.agent.output;
        let output = async {
            room.await;
            output.recv().await
        };
        tokio::select! {
            output = output => match output {
                Some(Output::Lines(lines)) => SeatEvent::Lines(lines),
                Some(Output::Exit(exit)) => SeatEvent::Exit(exit),
                None => SeatEvent::Exit(Exit::default()),
            },
            Some(error) = self.deaf.recv() => SeatEvent::Deaf(error),
            call = metered(&mut self.channel) => SeatEvent::Metered(call),
            () = evicted, if idle_since.is_some() => SeatEvent::Dismiss("another session needs its place"),
            () = idle(idle_since, idle_stop), if idle_since.is_some() => SeatEvent::Dismiss("nothing to do for long"),
        }
    }

    /// Lets the agent be stopped when its place is needed.
    pub(super) fn set_idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.rest();
        self.lease.set_idle();
    }

    /// Lets it ask its model for nothing more, until it is to work.
    pub(super) fn rest(&self) {
        if let Some(channel) = &self.channel {
            channel.rest();
        }
    }

    /// Lets it reach its model again.
    pub(super) fn work(&self) {
        if let Some(channel) = &self.channel {
            channel.work();
        }
    }

    /// Takes the agent for a turn. `false`: too late, it is gone or its place has been given away.
    pub(super) fn set_busy(&mut self) -> bool {
        self.idle_since = None;
        self.forget_bill();
        self.work();
        self.lease.agent.process.gone().now_or_never().is_none() && self.lease.set_busy().is_ok()
    }

    /// Whether the agent ends by itself now: what it says last tells why.
    pub(super) async fn is_ending(&self) -> bool {
        timeout(EXIT_GRACE, self.lease.agent.process.gone()).await.is_ok()
    }

    /// What a line means. One that is not of the dialect is logged and skipped.
    pub(super) fn decode(&mut self, line: &Line, events: &mut Vec<AgentEvent>) {
        match &line.text {
            LineText::Utf8(text) => {
                if let Err(error) = self.adapter.decode(text, events) {
                    self.note_skipped(&error);
                }
            }
            LineText::NotUtf8 => self.note_skipped(&"not UTF-8"),
            LineText::TooLong => self.note_skipped(&"too long"),
        }
    }

    /// Logs that something it said counts for nothing: once a second at most.
    pub(super) fn note_skipped(&mut self, why: &dyn std::fmt::Display) {
        self.skipped.note(self.lease.agent.container_id, why);
    }

    /// Tells the agent something once it is durable (`after`), and at most once by its `id`, however often
    /// it is told by whichever gateway. Does not wait. `false`: it reads nothing any more.
    pub(super) fn tell(&mut self, id: &str, command: &AgentCommand, after: Option<&Receipt>) -> bool {
        let mut tells = Vec::new();
        self.adapter.encode(id, command, &mut tells);
        tells.into_iter().all(|what| self.pass_on(what, after.cloned()))
    }

    /// Tells the agent what its adapter wants it to hear. Does not wait. `false`: it reads nothing any more.
    pub(super) fn pass_on(&mut self, what: Tell, after: Option<Receipt>) -> bool {
        self.commands.push(what, after)
    }

    /// Tells the agent again what it was told between commands: it heeds each once.
    pub(super) fn tell_again(&mut self) {
        let mut tells = Vec::new();
        self.adapter.tell_again(&mut tells);
        for what in tells {
            self.pass_on(what, None);
        }
    }

    /// Whether the agent that runs can take `turn`.
    pub(super) fn fits(&self, turn: &Turn) -> bool {
        self.adapter.fits(turn)
    }

    /// What is to be known to go on with this agent, or with the next one of its session.
    pub(super) fn state(&self) -> Value {
        self.adapter.state()
    }

    /// Signals the agent. Failures are logged: a deadline follows every signal.
    pub(super) async fn interrupt(&self) {
        let container = self.lease.agent.container_id;
        debug!(container.id = %container, "Interrupting the agent in `{container}`");
        if let Err(error) = self.lease.agent.process.interrupt().await {
            warn!(container.id = %container, %error, "The agent in `{container}` could not be interrupted: {error}");
        }
    }

    /// Kills the agent and all that it started. What it said can still be read. `false`: it may run on.
    pub(super) async fn kill(&self) -> bool {
        let container = self.lease.agent.container_id;
        debug!(container.id = %container, "Killing the agent in `{container}`");
        let killed = self.lease.agent.process.kill().await;
        if let Err(error) = &killed {
            warn!(container.id = %container, %error, "The agent in `{container}` could not be killed: {error}");
        }
        killed.is_ok()
    }

    /// Takes the agent's box away with all that runs in it, now. `false`: it may run on.
    pub(super) async fn remove(&self) -> bool {
        let container = self.lease.agent.container_id;
        let removed = self.lease.agent.process.remove().await;
        if let Err(error) = &removed {
            warn!(container.id = %container, %error, "The box `{container}` could not be removed: {error}");
        }
        removed.is_ok()
    }

    /// What its model has answered that was not heard of yet. Waits a moment for what is under way.
    pub(super) async fn rest_of_the_bill(&mut self) -> Vec<Metered> {
        let Some(channel) = &mut self.channel else { return Vec::new() };
        let _ = timeout(LAST_CALL, channel.quiet()).await; // What takes longer is not counted.
        std::iter::from_fn(|| channel.try_recv()).collect()
    }

    /// Cuts off what goes through its way to its model, and gives what that had used and nobody has heard of.
    pub(super) async fn close_channel(&mut self) -> Vec<Metered> {
        match self.channel.take() {
            Some(channel) => channel.close(LAST_CALL).await,
            None => Vec::new(),
        }
    }

    /// Leaves out from now on what calls of its model used that have begun: they belong to what it did before.
    pub(super) fn forget_bill(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.start_over();
        }
    }

    /// Whether something besides the agent still runs in its box. Not known counts as yes.
    pub(super) async fn has_stragglers(&self) -> bool {
        self.lease.agent.process.has_stragglers().await.unwrap_or(true)
    }
}

/// What the next call of the model used.
async fn metered(channel: &mut Option<Channel>) -> Metered {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// Tells an agent one thing after the other, each after its commit.
async fn tell_all(
    process: Arc<dyn AgentProcess>,
    mut told: mpsc::Receiver<Told>,
    complain: mpsc::Sender<RuntimeError>,
) {
    while let Some(Told { what, after, _room }) = told.recv().await {
        if let Some(after) = after
            && after.committed().await.is_err()
        {
            return; // The session is another gateway's.
        }
        let heard = match what {
            Tell::Launch(arguments) => process.launch(&arguments).await,
            Tell::Write { id, text } => process.write(&id, &text, WRITE_DEADLINE).await,
        };
        if let Err(error) = heard {
            let _ = complain.send(error).await; // Nobody minds when the agent is gone.
            return;
        }
    }
}

/// Returns when the agent has been idle for long enough.
async fn idle(since: Option<Instant>, stop_after: Duration) {
    match since {
        Some(since) => tokio::time::sleep_until(since + stop_after).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_an_agent_is_bounded_by_number_and_by_bytes_until_it_is_heard() {
        let write = |bytes: usize| Tell::Write { id: "w".to_owned(), text: "x".repeat(bytes) };
        let (commands, mut told) = Commands::new();
        for _ in 0..COMMANDS {
            assert!(commands.push(write(1), None));
        }
        assert!(!commands.push(write(1), None), "as many as may wait");

        while told.try_recv().is_ok() {}
        let most = COMMAND_KIB * 1_024 / 4;
        for _ in 0..3 {
            assert!(commands.push(write(most), None));
        }
        assert!(!commands.push(write(most), None), "as much as may wait");
        assert!(commands.push(write(1), None), "what is small has room");
        let heard = told.recv().await;
        assert!(!commands.push(write(most), None), "it has not been heard yet");
        drop(heard);
        assert!(commands.push(write(most), None));
    }
}
