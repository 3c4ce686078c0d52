//! One session at work: a task that owns the session's writing end, its queue, its agent and its run.
//!
//! Everything that happens to a session happens here, one thing at a time, so "first" has a meaning: what
//! is asked of it (`commands`), what its agent does (`turns`), and how that ends (`ending`).

mod commands;
mod ending;
mod resume;
mod turns;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::queue::{Queue, Waiting};
use super::run::Run;
use super::run_state::RunState;
use super::seat::{Seat, SeatEvent};
use super::users::RunningSlot;
use super::{LEASE, Orchestrator, Parts, Refusal, Workers};
use crate::config::ProfileConfig;
use crate::domain::{
    AskId, ContainerId, Epoch, ProfileId, Seq, SessionId, SessionStatus, TaskId, TaskState, Timestamp, UserId,
};
use crate::hub::{Receipt, Session};
use crate::journal::{Effect, IdempotencyKey, JournalClosed, NewSession, Progress};
use crate::protocol::{Answer, Event, Submit};
use crate::runtime::pool::Adopting;

/// After what silence of a run its state is published all the same: a gateway that dies forgets no more of the time
/// that it has worked.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// What is asked of a session.
pub(super) enum Command {
    /// Make it.
    Create { reply: Reply<Receipt> },
    /// Take a prompt.
    Submit { task: TaskId, user: UserId, submit: Box<Submit>, key: Option<IdempotencyKey>, reply: Reply<Accepted> },
    /// Have a container.
    Ready { reply: Reply<(Ready, Receipt)> },
    /// Stop a task. Answered with its end, or with nothing when it is not open here.
    Cancel { task: TaskId, reply: CancelReply },
    /// Answer a question. Answered with nothing when no such question is open.
    Answer { task: TaskId, ask: Option<AskId>, answer: Answer, reply: Reply<Option<Receipt>> },
    /// End.
    End { reply: Reply<Receipt> },
    /// Have another title.
    Rename { title: Option<String>, reply: Reply<Receipt> },
    /// Go on with the work from before a restart: having a worker is all.
    TakeUp,
}

/// Where an answer goes. A client may be gone: then nobody hears it.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
/// Where the end of a cancelled task goes.
pub(super) type CancelReply = Reply<Option<(TaskState, Receipt)>>;

/// A prompt that was taken; it counts when the receipt says so.
#[derive(Debug)]
pub struct Accepted {
    /// How many tasks go first.
    pub position: usize,
    /// The event that holds the prompt.
    pub prompt_seq: Seq,
    /// When.
    pub created_at: Timestamp,
    /// The commit.
    pub receipt: Receipt,
}

/// A session whose container is up.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its container.
    pub container_id: ContainerId,
    /// What the container is called.
    pub container_name: String,
    /// Its profile.
    pub profile_id: ProfileId,
}

/// Where a worker's session comes from.
pub(super) enum Origin {
    /// It is made with the first thing that is published.
    New(Box<NewSession>),
    /// It is in the journal. Its box is counted, if it has one, by when this is dropped.
    Existing(Option<Adopting>),
}

/// The session is no longer this worker's, or the gateway ends: drop everything.
struct Lost;

impl From<JournalClosed> for Lost {
    fn from(_: JournalClosed) -> Self {
        Self
    }
}

/// What ends a session.
struct Ending {
    reason: String,
    waiting: Vec<Reply<Receipt>>,
}

/// One session at work.
pub(super) struct Worker {
    parts: Arc<Parts>,
    session: Session,
    user: UserId,
    profile_id: ProfileId,
    profile: Arc<ProfileConfig>,
    status: SessionStatus,
    container: Option<ContainerId>,
    /// What the adapter of the session's last agent had to know; `null` before the first.
    agent_state: Value,
    /// What is still to be made with the first thing that is published.
    creation: Option<Box<NewSession>>,
    queue: Queue,
    seat: Seat,
    /// Waits for the user's right to run one more task.
    slot: Option<Pin<Box<dyn Future<Output = RunningSlot> + Send>>>,
    /// The task whose turn has come but whose agent has not.
    starting: Option<(Waiting, RunningSlot)>,
    run: Option<Run>,
    ready: Vec<Reply<(Ready, Receipt)>>,
    ending: Option<Ending>,
    /// The last task that ended here, for cancels that come too late to find it at work.
    ended: Option<(TaskId, TaskState, Receipt)>,
    /// The commit that closed the session.
    closed: Option<Receipt>,
    /// The last thing that was published, until it has committed: the next claim would fence it.
    last: Option<Receipt>,
    /// When the state of the run was last published.
    noted_at: Instant,
    /// The last record of the agent's spool that has been dealt with.
    heard: u64,
    /// What of that has been published.
    published: u64,
    /// How much has been heard since, in bytes.
    unpublished_bytes: usize,
    /// What of that will be durable when: then the shim may forget it.
    unacknowledged: VecDeque<(u64, Receipt)>,
    /// Draining: waits for the answers that the agent's model is giving, which go through this gateway.
    last_calls: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What wakes a worker.
enum Wake {
    Command(Option<Command>),
    Seat(SeatEvent),
    Slot(RunningSlot),
    Deadline,
    Silence,
    Settled,
    Soft,
    Answered,
    Hard,
    Fenced,
}

impl Worker {
    /// The life of a worker: from its first command until the session has nothing left to do. A session
    /// that was lost on the way is taken up again, if it is still this gateway's.
    pub(super) async fn run(
        orchestrator: Orchestrator,
        id: SessionId,
        origin: Origin,
        mut inbox: mpsc::Receiver<Command>,
    ) {
        let life = AssertUnwindSafe(Self::live(&orchestrator, id, origin, &mut inbox)).catch_unwind();
        let lost = life.await.unwrap_or_else(|_| {
            // Its agent has gone with it: the next one would stumble over the same.
            error!(session.id = %id, "The worker of session `{id}` panicked; its message is above");
            true
        });
        // Nobody is to wait for what follows.
        refuse_all(&mut inbox, &Refusal::Interrupted);
        forget(&orchestrator.workers, id, &mut inbox);
        if lost && !orchestrator.parts.soft.is_cancelled() {
            let tracker = orchestrator.parts.tracker.clone();
            tracker.spawn(orchestrator.take_up_again(id));
        }
    }

    /// Whether the session was lost.
    async fn live(
        orchestrator: &Orchestrator,
        id: SessionId,
        origin: Origin,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> bool {
        let parts = &orchestrator.parts;
        let opened = match origin {
            Origin::New(new) => Ok(Self::create(Arc::clone(parts), id, new)),
            Origin::Existing(adopting) => Self::open(Arc::clone(parts), id, adopting).await,
        };
        match opened {
            Ok(mut worker) => {
                let lost = worker.work(inbox, &orchestrator.workers).await.is_err();
                let why = if parts.soft.is_cancelled() { Refusal::ShuttingDown } else { Refusal::Interrupted };
                refuse_all(inbox, &why);
                // Its agent, if there still is one, is for whoever takes the session up.
                worker.seat.leave();
                if let Err(error) = parts.store.release(id, &parts.node, worker.session.epoch()).await {
                    debug!(session.id = %id, %error, "Session `{id}` stays this gateway's: {error}");
                }
                lost
            }
            Err(refusal) => {
                warn!(session.id = %id, "Session `{id}` could not be opened: {refusal}");
                refuse_all(inbox, &refusal);
                matches!(refusal, Refusal::Storage | Refusal::Interrupted)
            }
        }
    }

    /// A worker with nothing to do yet, at the writing end of `session`.
    fn new(parts: Arc<Parts>, session: Session, user: UserId, profile_id: ProfileId) -> Self {
        // A profile that was taken out of the configuration: the session can still be read and ended.
        let profile = parts.profiles.get(&profile_id).cloned().unwrap_or_default();
        Self {
            parts,
            session,
            user,
            profile_id,
            profile,
            status: SessionStatus::Active,
            container: None,
            agent_state: Value::Null,
            creation: None,
            queue: Queue::default(),
            seat: Seat::Empty,
            slot: None,
            starting: None,
            run: None,
            ready: Vec::new(),
            ending: None,
            ended: None,
            closed: None,
            last: None,
            noted_at: Instant::now(),
            heard: 0,
            published: 0,
            unpublished_bytes: 0,
            unacknowledged: VecDeque::new(),
            last_calls: None,
        }
    }

    fn create(parts: Arc<Parts>, id: SessionId, new: Box<NewSession>) -> Self {
        let session = parts.hub.write(id, Epoch(1), Seq::START);
        let worker = Self::new(parts, session, new.user.clone(), new.profile.clone());
        Self { creation: Some(new), ..worker }
    }

    /// Claims a session and goes on where an earlier gateway stopped: its agent is taken over, the task at
    /// work goes on, queued ones wait again.
    async fn open(parts: Arc<Parts>, id: SessionId, adopting: Option<Adopting>) -> Result<Self, Refusal> {
        let Some((record, epoch)) = parts.store.claim(id, &parts.node, LEASE).await? else {
            return Err(Refusal::Elsewhere);
        };
        let open = parts.store.open_tasks(id).await?;
        let session = parts.hub.write(id, epoch, record.last_seq);
        let worker = Self::new(parts, session, record.user.clone(), record.profile.clone());
        let mut worker = Self { status: record.status, container: record.container, ..worker };
        let state = RunState::read(record.run_state.as_deref());
        worker.agent_state = state.agent().clone();
        worker.adopt_agent(&record).await?;
        drop(adopting); // What comes now may take long: others get their places.
        for task in open {
            let went_on = match task.state {
                TaskState::Queued => {
                    worker.wait_again(task);
                    Ok(())
                }
                TaskState::Starting => {
                    worker.start_again(task);
                    Ok(())
                }
                _ => worker.go_on(&record, &task, &state).await,
            };
            if let Err(refusal) = went_on {
                // It is tried again, and the agent is to be there then.
                worker.seat.leave();
                return Err(refusal);
            }
        }
        worker.ending = record.ending.map(|reason| Ending { reason, waiting: Vec::new() });
        if let Seat::Up(occupant) = &mut worker.seat
            && worker.run.is_none()
            && worker.starting.is_none()
        {
            occupant.set_idle();
        }
        Ok(worker)
    }

    async fn work(&mut self, inbox: &mut mpsc::Receiver<Command>, workers: &Workers) -> Result<(), Lost> {
        let mut draining = false;
        loop {
            while self.advance(draining).await? {}
            if self.is_done(draining) && (draining || try_close(workers, self.session.id(), inbox)) {
                return Ok(());
            }
            let deadline = self.run.as_ref().map(Run::deadline);
            let note_at = self.run.as_ref().filter(|run| run.is_working()).map(|_| self.noted_at + NOTE_EVERY);
            let idle_stop = self.parts.idle_stop;
            // Draining, what its agent says once its model has answered is for who takes the session up.
            let left = draining && self.last_calls.is_none() && matches!(self.seat, Seat::Up(_));
            let room = self.session.room();
            let wake = tokio::select! {
                command = inbox.recv() => Wake::Command(command),
                event = self.seat.next(idle_stop, room), if !left => Wake::Seat(event),
                slot = optional(self.slot.as_mut()) => Wake::Slot(slot),
                () = sleep_until(deadline) => Wake::Deadline,
                () = sleep_until(note_at) => Wake::Silence,
                () = settled(self.last.clone()) => Wake::Settled,
                () = self.parts.soft.cancelled(), if !draining => Wake::Soft,
                () = optional(self.last_calls.as_mut()) => Wake::Answered,
                () = self.parts.hard.cancelled() => Wake::Hard,
                () = self.session.fenced().cancelled() => Wake::Fenced,
            };
            match wake {
                Wake::Command(Some(command)) => self.obey(command).await?,
                Wake::Command(None) | Wake::Fenced | Wake::Hard => return Err(Lost),
                Wake::Seat(event) => self.at_seat(event).await?,
                Wake::Slot(slot) => self.take_turn(slot).await?,
                Wake::Deadline => self.on_deadline().await?,
                Wake::Silence => self.note_run().await?,
                Wake::Settled => {
                    self.last = None;
                    self.acknowledge();
                }
                Wake::Soft => {
                    draining = true;
                    self.seat.leave_line();
                    if self.run.is_some() {
                        let (answered, hurry) = (self.seat.last_calls(), self.parts.hurry.clone());
                        self.last_calls = Some(Box::pin(async move {
                            tokio::select! {
                                () = answered => (),
                                () = hurry.cancelled() => (),
                            }
                        }));
                    }
                }
                Wake::Answered => {
                    self.last_calls = None;
                    self.hand_over_bill().await?;
                }
            }
        }
    }

    /// Whether the session has nothing left to do here. Draining, that is as soon as its model is not in the middle of
    /// an answer, no box of it is being started or taken away, and what was published has committed: its agent works
    /// on, and is heard from there by whoever takes it up.
    fn is_done(&self, draining: bool) -> bool {
        if self.last.is_some() || self.last_calls.is_some() || matches!(self.seat, Seat::Starting(_) | Seat::Leaving(_))
        {
            return false;
        }
        let at_work = self.run.is_some() || self.starting.is_some() || self.ending.is_some();
        draining || (!at_work && self.queue.is_empty() && self.seat.is_empty() && self.ready.is_empty())
    }

    /// Starts whatever can be started now. `true`: there may be more to start.
    async fn advance(&mut self, draining: bool) -> Result<bool, Lost> {
        if draining {
            return Ok(false);
        }
        if self.ending.is_some() && self.run.is_none() && self.starting.is_none() {
            match self.seat {
                // First its box goes, then the session.
                Seat::Up(_) => self.dismiss().await?,
                Seat::Leaving(_) => (),
                Seat::Waiting(_) | Seat::Starting(_) | Seat::Empty => {
                    self.close().await?;
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if self.run.is_some() {
            return Ok(false);
        }
        if !self.wants_agent() {
            self.seat.leave_line();
        }
        if self.wants_agent() {
            match &mut self.seat {
                Seat::Empty => self.await_place(),
                Seat::Waiting(_) | Seat::Starting(_) | Seat::Leaving(_) => (),
                Seat::Up(_) => {
                    self.answer_ready().await?;
                    self.begin().await?;
                    return Ok(true);
                }
            }
        } else if !self.queue.is_empty() && self.slot.is_none() {
            self.slot = Some(Box::pin(self.parts.users.run(&self.user)));
        }
        Ok(false)
    }

    /// Whether somebody waits for an agent to be there: who asked may be gone.
    fn wants_agent(&mut self) -> bool {
        self.ready.retain(|reply| !reply.is_closed());
        self.starting.is_some() || !self.ready.is_empty()
    }

    /// Publishes, with how far the agent has been heard, and makes the session with it when that is still to
    /// be done.
    async fn publish(&mut self, task: Option<TaskId>, events: &[Event], effects: Vec<Effect>) -> Result<Receipt, Lost> {
        let agent = self.seat.occupant().map(|occupant| occupant.state());
        self.publish_knowing(agent, task, events, effects).await
    }

    /// [`Self::publish`], where the agent's adapter knew `agent` when it had heard as far as that: nothing, if
    /// there is no agent.
    async fn publish_knowing(
        &mut self,
        agent: Option<Value>,
        task: Option<TaskId>,
        events: &[Event],
        mut effects: Vec<Effect>,
    ) -> Result<Receipt, Lost> {
        if let Some(new) = self.creation.take() {
            effects.insert(0, Effect::CreateSession(new));
        }
        let record = self.heard;
        let progress = agent.map(|agent| {
            let run_state = match &self.run {
                Some(run) => Some(run.state(agent)),
                None => RunState::idle(agent),
            };
            Progress { record, run_state }
        });
        self.noted_at = Instant::now();
        // The journal may be away for long; the gateway's end does not wait for it.
        let hard = self.parts.hard.clone();
        let receipt = tokio::select! {
            biased;
            receipt = self.session.publish_heard(task, events, effects, progress) => receipt?,
            () = hard.cancelled() => return Err(Lost),
        };
        self.last = Some(receipt.clone());
        if self.seat.occupant().is_some() && self.published < record {
            (self.published, self.unpublished_bytes) = (record, 0);
            self.unacknowledged.push_back((record, receipt.clone()));
            self.acknowledge();
        }
        Ok(receipt)
    }

    /// Tells the shim what has become durable.
    fn acknowledge(&mut self) {
        let mut durable = None;
        while let Some((record, receipt)) = self.unacknowledged.front() {
            match receipt.clone().committed().now_or_never() {
                Some(Ok(())) => durable = Some(*record),
                Some(Err(_)) => return, // Lost: the fence tells.
                None => break,
            }
            self.unacknowledged.pop_front();
        }
        if let (Some(record), Some(occupant)) = (durable, self.seat.occupant()) {
            occupant.lease.agent.process.acknowledge(record);
        }
    }
}

/// Closes the inbox if nothing waits in it. From then on a new worker is made for new commands.
fn try_close(workers: &Workers, id: SessionId, inbox: &mut mpsc::Receiver<Command>) -> bool {
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    if !inbox.is_empty() {
        return false;
    }
    inbox.close();
    workers.remove(&id);
    true
}

/// Takes a worker that has ended off the list, unless another has its place already.
fn forget(workers: &Workers, id: SessionId, inbox: &mut mpsc::Receiver<Command>) {
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    inbox.close();
    if workers.get(&id).is_some_and(mpsc::Sender::is_closed) {
        workers.remove(&id);
    }
}

/// Says why to everybody who waits.
fn refuse_all(inbox: &mut mpsc::Receiver<Command>, why: &Refusal) {
    inbox.close();
    let refusal = || match why {
        Refusal::Elsewhere => Refusal::Elsewhere,
        Refusal::ProfileNotFound => Refusal::ProfileNotFound,
        Refusal::ShuttingDown => Refusal::ShuttingDown,
        Refusal::Interrupted => Refusal::Interrupted,
        _ => Refusal::Storage,
    };
    while let Ok(command) = inbox.try_recv() {
        match command {
            Command::Create { reply } | Command::End { reply } | Command::Rename { reply, .. } => {
                let _ = reply.send(Err(refusal()));
            }
            Command::Submit { reply, .. } => drop(reply.send(Err(refusal()))),
            Command::Ready { reply } => drop(reply.send(Err(refusal()))),
            Command::Cancel { reply, .. } => drop(reply.send(Err(refusal()))),
            Command::Answer { reply, .. } => drop(reply.send(Err(refusal()))),
            Command::TakeUp => (),
        }
    }
}

async fn optional<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Returns when what was published last is settled, one way or the other.
async fn settled(last: Option<Receipt>) {
    match last {
        Some(receipt) => drop(receipt.committed().await), // A refusal is heard through the fence.
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
