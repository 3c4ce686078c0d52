//! One session at work: a task that owns the session's writing end, its queue, its agent and its run.
//!
//! Everything that happens to a session happens here, one thing at a time, so "first" has a meaning.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::invariants::Note;
use super::queue::{Queue, Waiting};
use super::run::{AfterStop, Allowance, Due, End, Run, Step, turn};
use super::seat::{Occupant, Seat, SeatEvent};
use super::users::RunningSlot;
use super::{LEASE, Orchestrator, Parts, Refusal, Workers};
use crate::agent::{self, AgentCommand, AgentEvent};
use crate::config::ProfileConfig;
use crate::domain::{
    AskId, ContainerId, Mode, OnBusy, ProfileId, SessionId, SessionStatus, TaskId, TaskState, Timestamp, UserId,
};
use crate::hub::{Receipt, Session};
use crate::journal::{Effect, IdempotencyKey, JournalClosed, NewSession, NewTask, TaskEnd};
use crate::protocol::reply::raw_json;
use crate::protocol::{Answer, Event, Submit};
use crate::runtime::pool::{Lease, PoolError};
use crate::runtime::{Exit, RuntimeError, Signal};
use crate::store::TaskRecord;

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
    /// Go on with the work from before a restart.
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
    pub prompt_seq: crate::domain::Seq,
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
    /// It is in the journal.
    Existing,
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
    reason: &'static str,
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
}

/// What wakes a worker.
enum Wake {
    Command(Option<Command>),
    Seat(SeatEvent),
    Slot(RunningSlot),
    Deadline,
    Settled,
    Soft,
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
        let parts = Arc::clone(&orchestrator.parts);
        let opened = match origin {
            Origin::New(new) => Self::create(Arc::clone(&parts), id, new),
            Origin::Existing => Self::open(Arc::clone(&parts), id).await,
        };
        let lost = match opened {
            Ok(mut worker) => {
                let lost = worker.work(&mut inbox, &orchestrator.workers).await.is_err();
                // Nobody is to wait for what follows.
                refuse_all(&mut inbox, &Refusal::Interrupted);
                worker.seat.clear().await;
                if let Err(error) = parts.store.release(id, &parts.node, worker.session.epoch()).await {
                    debug!(session.id = %id, %error, "Session `{id}` stays this gateway's: {error}");
                }
                lost
            }
            Err(refusal) => {
                warn!(session.id = %id, "Session `{id}` could not be opened: {refusal}");
                refuse_all(&mut inbox, &refusal);
                matches!(refusal, Refusal::Storage | Refusal::Interrupted)
            }
        };
        forget(&orchestrator.workers, id, &mut inbox);
        if lost && !parts.soft.is_cancelled() {
            parts.tracker.spawn(orchestrator.take_up_again(id));
        }
    }

    fn create(parts: Arc<Parts>, id: SessionId, new: Box<NewSession>) -> Result<Self, Refusal> {
        let session = parts.hub.write(id, crate::domain::Epoch(1), crate::domain::Seq::START);
        let profile = parts.profiles.get(&new.profile).cloned().ok_or(Refusal::ProfileNotFound)?;
        Ok(Self {
            session,
            user: new.user.clone(),
            profile_id: new.profile.clone(),
            profile,
            status: SessionStatus::Active,
            container: None,
            creation: Some(new),
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
            parts,
        })
    }

    /// Claims a session and settles what an earlier gateway left: queued tasks wait again, the one that
    /// was at work has failed.
    async fn open(parts: Arc<Parts>, id: SessionId) -> Result<Self, Refusal> {
        let now = parts.clock.now();
        let Some((record, epoch)) = parts.store.claim(id, &parts.node, now, now.plus(LEASE)).await? else {
            return Err(Refusal::Elsewhere);
        };
        let profile = match parts.profiles.get(&record.profile) {
            Some(profile) => Arc::clone(profile),
            // A profile that was taken out of the configuration: the session can still be read and ended.
            None => Arc::new(ProfileConfig::default()),
        };
        let open = parts.store.open_tasks(id).await?;
        let session = parts.hub.write(id, epoch, record.last_seq);
        let mut worker = Self {
            session,
            user: record.user,
            profile_id: record.profile,
            profile,
            status: record.status,
            container: record.container,
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
            parts,
        };
        for task in open {
            if task.state == TaskState::Queued {
                worker.wait_again(task);
            } else if worker.fail_interrupted(&task).await.is_err() {
                return Err(Refusal::Interrupted);
            }
        }
        Ok(worker)
    }

    fn wait_again(&mut self, task: TaskRecord) {
        let waiting = Waiting {
            id: task.id,
            prompt: task.prompt,
            mode: task.mode,
            priority: task.priority,
            options: task.options,
            _slot: self.parts.users.wait_again(&task.user),
        };
        self.queue.insert(usize::MAX, waiting);
    }

    async fn fail_interrupted(&mut self, task: &TaskRecord) -> Result<(), Lost> {
        let error = "the gateway was restarted while the task ran".to_owned();
        self.fail_without_run(task.id, task.mode, error, true).await
    }

    async fn work(&mut self, inbox: &mut mpsc::Receiver<Command>, workers: &Workers) -> Result<(), Lost> {
        let mut draining = false;
        loop {
            while self.advance(draining).await? {}
            if self.is_done(draining) && (draining || try_close(workers, self.session.id(), inbox)) {
                return Ok(());
            }
            let deadline = self.run.as_ref().map(Run::deadline);
            let idle_stop = self.parts.idle_stop;
            let wake = tokio::select! {
                command = inbox.recv() => Wake::Command(command),
                event = self.seat.next(idle_stop) => Wake::Seat(event),
                slot = optional(self.slot.as_mut()) => Wake::Slot(slot),
                () = sleep_until(deadline) => Wake::Deadline,
                () = settled(self.last.clone()) => Wake::Settled,
                () = self.parts.soft.cancelled(), if !draining => Wake::Soft,
                () = self.parts.hard.cancelled() => Wake::Hard,
                () = self.session.fenced().cancelled() => Wake::Fenced,
            };
            match wake {
                Wake::Command(Some(command)) => self.obey(command).await?,
                Wake::Command(None) | Wake::Fenced => return Err(Lost),
                Wake::Seat(event) => self.at_seat(event).await?,
                Wake::Slot(slot) => self.take_turn(slot).await?,
                Wake::Deadline => self.on_deadline().await?,
                Wake::Settled => self.last = None,
                Wake::Soft => {
                    draining = true;
                    self.slot = None;
                }
                Wake::Hard => {
                    self.give_up().await?;
                    draining = true;
                }
            }
        }
    }

    /// Whether the session has nothing left to do here. Draining, an idle agent counts for nothing and
    /// queued tasks wait for the next start.
    fn is_done(&self, draining: bool) -> bool {
        let at_work = self.run.is_some() || self.starting.is_some() || self.ending.is_some();
        if self.last.is_some() && !self.parts.hard.is_cancelled() {
            return false;
        }
        if draining {
            !at_work
        } else {
            !at_work && self.queue.is_empty() && self.seat.is_empty() && self.ready.is_empty()
        }
    }

    /// Starts whatever can be started now. `true`: there may be more to start.
    async fn advance(&mut self, draining: bool) -> Result<bool, Lost> {
        if self.ending.is_some() && self.run.is_none() && self.starting.is_none() {
            self.close().await?;
            return Ok(true);
        }
        if self.run.is_some() {
            return Ok(false);
        }
        if self.starting.is_some() || (!draining && !self.ready.is_empty()) {
            match &mut self.seat {
                Seat::Empty => self.start_agent(),
                Seat::Starting(_) => (),
                Seat::Up(_) => {
                    self.answer_ready().await?;
                    self.begin().await?;
                    return Ok(true);
                }
            }
        } else if !draining && !self.queue.is_empty() && self.slot.is_none() {
            self.slot = Some(Box::pin(self.parts.users.run(&self.user)));
        }
        Ok(false)
    }

    fn start_agent(&mut self) {
        let (started, coming) = oneshot::channel();
        let parts = Arc::clone(&self.parts);
        let (user, profile, container) = (self.user.clone(), self.profile_id.clone(), self.container);
        // A task of its own: a start that nobody waits for any more is not cut off in the middle, its
        // lease is dropped whole.
        self.parts.tracker.spawn(async move {
            let acquired = parts.pool.acquire(&user, &profile, container).await;
            if let Err(Ok(lease)) = started.send(acquired) {
                // Nobody waits for it any more: it goes, and with it a workspace that no session knows.
                let id = lease.agent.container_id;
                lease.end().await;
                if container.is_none()
                    && let Err(error) = parts.pool.erase(id).await
                {
                    warn!(container.id = %id, %error, "The workspace of `{id}` could not be erased: {error}");
                }
            }
        });
        self.seat = Seat::Starting(coming);
    }

    /// Tells who waits that the container is up, with the commit that says so: an empty one follows it.
    async fn answer_ready(&mut self) -> Result<(), Lost> {
        let Seat::Up(occupant) = &self.seat else { return Ok(()) };
        let ready = Ready {
            container_id: occupant.lease.agent.container_id,
            container_name: occupant.lease.agent.container_name.clone(),
            profile_id: self.profile_id.clone(),
        };
        for reply in std::mem::take(&mut self.ready) {
            let receipt = self.publish(None, &[], Vec::new()).await?;
            let _ = reply.send(Ok((ready.clone(), receipt)));
        }
        Ok(())
    }

    /// The user may run one more task: the next one's turn has come.
    async fn take_turn(&mut self, slot: RunningSlot) -> Result<(), Lost> {
        self.slot = None;
        let Some(next) = self.queue.pop() else { return Ok(()) };
        self.publish(None, &[], vec![Effect::TaskStarting(next.id)]).await?;
        self.starting = Some((next, slot));
        Ok(())
    }

    /// Gives the agent its prompt.
    async fn begin(&mut self) -> Result<(), Lost> {
        let Some((task, slot)) = self.starting.take() else { return Ok(()) };
        let Some(occupant) = self.seat.occupant() else { return Ok(()) };
        if !occupant.set_busy() {
            // It ended or its place was given away, a moment ago: start another.
            self.starting = Some((task, slot));
            self.seat.clear().await;
            return Ok(());
        }
        let agent = &occupant.lease.agent;
        let started =
            Event::TaskStarted { container_id: agent.container_id, container_name: agent.container_name.clone() };
        let turn = turn(self.session.id(), task.id, task.prompt, &task.options, &self.profile);
        let mut events = vec![started];
        events.extend(turn.system_prompt.clone().map(|prompt| Event::SystemPrompt { prompt }));
        let allowance = Allowance::new(&task.options, &self.profile, &self.parts.limits);
        self.run = Some(Run::new(task.id, task.mode, allowance, self.parts.limits.event_bytes, slot));
        let told = occupant.tell(&AgentCommand::Turn(Box::new(turn)));
        self.publish(Some(task.id), &events, vec![Effect::TaskRunning(task.id)]).await?;
        info!(session.id = %self.session.id(), task.id = %task.id, "Task `{}` runs", task.id);
        if !told {
            self.end_run(End::failed("the agent does not read its input", true), false).await?;
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command) -> Result<(), Lost> {
        match command {
            Command::TakeUp => (),
            Command::Create { reply } => {
                let receipt = self.publish(None, &[], Vec::new()).await?;
                let _ = reply.send(Ok(receipt));
            }
            Command::Submit { task, user, submit, key, reply } => self.accept(task, user, *submit, key, reply).await?,
            Command::Ready { reply } => {
                if self.status == SessionStatus::Closed || self.ending.is_some() {
                    self.was_ready(reply).await?;
                } else {
                    self.ready.push(reply);
                    // At once, also while the agent is at work.
                    self.answer_ready().await?;
                }
            }
            Command::Cancel { task, reply } => self.cancel(task, reply).await?,
            Command::Answer { task, ask, answer, reply } => self.answer(task, ask, answer, reply).await?,
            Command::End { reply } => self.end(reply).await?,
            Command::Rename { title, reply } => {
                let receipt = self.publish(None, &[], vec![Effect::SetTitle(title)]).await?;
                let _ = reply.send(Ok(receipt));
            }
        }
        Ok(())
    }

    /// Names the box that a closed session lived in, if it ever had one.
    async fn was_ready(&mut self, reply: Reply<(Ready, Receipt)>) -> Result<(), Lost> {
        let Some(container_id) = self.container else {
            self.ready.push(reply);
            self.refuse_ready("it never came up");
            return Ok(());
        };
        let ready = Ready {
            container_id,
            container_name: crate::runtime::container_name(container_id),
            profile_id: self.profile_id.clone(),
        };
        let receipt = self.publish(None, &[], Vec::new()).await?;
        let _ = reply.send(Ok((ready, receipt)));
        Ok(())
    }

    async fn accept(
        &mut self,
        task: TaskId,
        user: UserId,
        submit: Submit,
        key: Option<IdempotencyKey>,
        reply: Reply<Accepted>,
    ) -> Result<(), Lost> {
        let busy = self.run.is_some() || self.starting.is_some() || !self.queue.is_empty();
        let refusal = if self.status == SessionStatus::Closed || self.ending.is_some() {
            Some(Refusal::SessionClosed)
        } else if busy && submit.on_busy == OnBusy::Reject {
            Some(Refusal::Busy)
        } else if self.queue.len() >= self.parts.limits.waiting_per_session {
            Some(Refusal::QueueFull("session", self.parts.limits.waiting_per_session))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return Ok(());
        }
        let Some(slot) = self.parts.users.wait(&user) else {
            let _ = reply.send(Err(Refusal::QueueFull("user", self.parts.users.waiting_limit())));
            return Ok(());
        };
        let interrupts = busy && submit.on_busy == OnBusy::Interrupt;
        let position = if interrupts { 0 } else { self.queue.place_of(submit.priority) };
        let prompt_seq = self.session.head().next();
        let options = serde_json::to_string(&submit.options).unwrap_or_else(|_| "{}".to_owned());
        let new = NewTask {
            id: task,
            user,
            mode: submit.mode,
            priority: submit.priority,
            prompt: submit.prompt.clone(),
            options,
            prompt_seq,
            key,
        };
        let events = [Event::UserMessage { text: submit.prompt.clone() }, Event::TaskQueued { position }];
        let receipt = self.publish(Some(task), &events, vec![Effect::CreateTask(Box::new(new))]).await?;
        let waiting = Waiting {
            id: task,
            prompt: submit.prompt,
            mode: submit.mode,
            priority: submit.priority,
            options: submit.options,
            _slot: slot,
        };
        self.queue.insert(position, waiting);
        let created_at = receipt.at();
        let _ = reply.send(Ok(Accepted { position, prompt_seq, created_at, receipt }));
        if interrupts {
            self.stop_current().await?;
        }
        Ok(())
    }

    /// Cancels the task at work, if there is one.
    async fn stop_current(&mut self) -> Result<(), Lost> {
        if let Some((task, _)) = self.starting.take() {
            self.cancel_waiting(task.id, task.mode).await?;
        }
        self.begin_stop(End::Cancelled);
        Ok(())
    }

    async fn cancel(&mut self, task: TaskId, reply: CancelReply) -> Result<(), Lost> {
        if let Some(run) = self.run.as_mut().filter(|run| run.task == task) {
            run.cancelling.push(reply);
            self.begin_stop(End::Cancelled);
            return Ok(());
        }
        let waiting = match &self.starting {
            Some((starting, _)) if starting.id == task => self.starting.take().map(|(starting, _)| starting),
            _ => self.queue.remove(task),
        };
        let ended = match waiting {
            Some(waiting) => Some((TaskState::Cancelled, self.cancel_waiting(task, waiting.mode).await?)),
            None => match &self.ended {
                Some((ended, state, receipt)) if *ended == task => Some((*state, receipt.clone())),
                _ => None,
            },
        };
        let _ = reply.send(Ok(ended));
        Ok(())
    }

    async fn cancel_waiting(&mut self, task: TaskId, mode: Mode) -> Result<Receipt, Lost> {
        let end = TaskEnd {
            id: task,
            state: TaskState::Cancelled,
            result_text: None,
            stop_reason: Some("cancelled"),
            error: None,
            retryable: None,
            usage: crate::domain::Usage::default(),
        };
        let done = Event::TaskDone { status: TaskState::Cancelled.as_str() };
        let receipt = self.publish(Some(task), &[done], vec![Effect::EndTask(Box::new(end))]).await?;
        self.ended = Some((task, TaskState::Cancelled, receipt.clone()));
        self.close_after_batch(mode);
        Ok(receipt)
    }

    /// Ends a task that has no run as failed.
    async fn fail_without_run(&mut self, task: TaskId, mode: Mode, error: String, retryable: bool) -> Result<(), Lost> {
        let end = TaskEnd {
            id: task,
            state: TaskState::Failed,
            result_text: None,
            stop_reason: None,
            error: Some(error.clone()),
            retryable: Some(retryable),
            usage: crate::domain::Usage::default(),
        };
        let failed = Event::TaskFailed { error, retryable, usage: end.usage };
        let receipt = self.publish(Some(task), &[failed], vec![Effect::EndTask(Box::new(end))]).await?;
        self.ended = Some((task, TaskState::Failed, receipt));
        self.close_after_batch(mode);
        Ok(())
    }

    fn close_after_batch(&mut self, mode: Mode) {
        if mode == Mode::Batch {
            self.ending.get_or_insert(Ending { reason: "batch_done", waiting: Vec::new() });
        }
    }

    async fn answer(
        &mut self,
        task: TaskId,
        ask: Option<AskId>,
        answer: Answer,
        reply: Reply<Option<Receipt>>,
    ) -> Result<(), Lost> {
        let open = match self.run.as_mut().filter(|run| run.task == task && run.stopping().is_none()) {
            Some(run) => run.take_ask(ask),
            None => None,
        };
        let Some(open) = open else {
            let _ = reply.send(self.answered_before(task, ask, &answer));
            return Ok(());
        };
        let json = raw_json(&answer);
        let mut effects = vec![Effect::Answer { ask: open.ask_id, answer: json.get().to_owned() }];
        effects.extend(self.run.as_mut().and_then(Run::follow_questions));
        let answered = Event::Answered { ask_id: open.ask_id, answer: json };
        let receipt = self.publish(Some(task), &[answered], effects).await?;
        if let Some(run) = &mut self.run {
            run.answered.push((open.ask_id, answer.clone(), receipt.clone()));
        }
        let _ = reply.send(Ok(Some(receipt)));
        let command = AgentCommand::Answer { id: open.tool_id, questions: open.questions, answer };
        if !self.seat.occupant().is_some_and(|occupant| occupant.tell(&command)) {
            self.end_run(End::failed("the agent does not read its input", true), false).await?;
        }
        Ok(())
    }

    /// What became of an answer to a question that is not open: nothing, when the run knows of none.
    fn answered_before(&self, task: TaskId, ask: Option<AskId>, answer: &Answer) -> Result<Option<Receipt>, Refusal> {
        let run = self.run.as_ref().filter(|run| run.task == task);
        let mut answered = run.iter().flat_map(|run| run.answered.iter().rev());
        match answered.find(|(id, ..)| ask.is_none_or(|ask| ask == *id)) {
            Some((_, earlier, receipt)) if earlier == answer => Ok(Some(receipt.clone())),
            Some(_) => Err(Refusal::AnsweredOtherwise),
            None => Ok(None),
        }
    }

    async fn end(&mut self, reply: Reply<Receipt>) -> Result<(), Lost> {
        if self.status == SessionStatus::Closed {
            let _ = reply.send(self.closed.clone().ok_or(Refusal::SessionClosed));
            return Ok(());
        }
        self.ending.get_or_insert(Ending { reason: "ended", waiting: Vec::new() }).waiting.push(reply);
        while let Some(task) = self.queue.pop() {
            self.cancel_waiting(task.id, Mode::Session).await?;
        }
        self.stop_current().await
    }

    /// Ends the session, now that nothing of it runs.
    async fn close(&mut self) -> Result<(), Lost> {
        let Some(ending) = self.ending.take() else { return Ok(()) };
        while let Some(task) = self.queue.pop() {
            self.cancel_waiting(task.id, Mode::Session).await?;
        }
        self.slot = None;
        self.seat.clear().await;
        self.status = SessionStatus::Closed;
        let closed = Event::SessionClosed { reason: ending.reason };
        let receipt = self.publish(None, &[closed], vec![Effect::CloseSession]).await?;
        info!(session.id = %self.session.id(), reason = ending.reason, "Session `{}` is closed", self.session.id());
        for reply in self.ready.drain(..) {
            let _ = reply.send(Err(Refusal::SessionClosed));
        }
        for reply in ending.waiting {
            let _ = reply.send(Ok(receipt.clone()));
        }
        self.closed = Some(receipt);
        Ok(())
    }

    async fn at_seat(&mut self, event: SeatEvent) -> Result<(), Lost> {
        match event {
            SeatEvent::Started(Ok(lease)) => self.seat_agent(lease).await,
            SeatEvent::Started(Err(error)) => self.no_agent(error).await,
            SeatEvent::Stdout(bytes) => self.read(bytes).await,
            SeatEvent::Exit(exit) => self.on_exit(exit).await,
            SeatEvent::Deaf(error) => {
                let ending = match self.seat.occupant() {
                    Some(occupant) if matches!(error, RuntimeError::Gone) => occupant.is_ending().await,
                    _ => false,
                };
                if ending {
                    return Ok(()); // Its exit comes next, and says why.
                }
                warn!(session.id = %self.session.id(), %error, "The agent of session `{}` takes no input: {error}", self.session.id());
                match &self.run {
                    Some(run) if run.stopping().is_some() => Ok(()), // Its deadline comes.
                    Some(_) => self.end_run(End::failed("the agent does not read its input", true), false).await,
                    None => {
                        self.seat.clear().await;
                        Ok(())
                    }
                }
            }
            SeatEvent::Dismiss(why) => {
                debug!(session.id = %self.session.id(), "The agent of session `{}` is stopped: {why}", self.session.id());
                self.seat.clear().await;
                Ok(())
            }
        }
    }

    async fn seat_agent(&mut self, lease: Lease) -> Result<(), Lost> {
        let container = lease.agent.container_id;
        let adapter = agent::adapter(self.profile.adapter);
        let mut occupant = Occupant::new(lease, adapter, self.parts.limits.agent_line_bytes);
        // One that a task waits for must not be given away to somebody else before it begins.
        if self.starting.is_none() {
            occupant.set_idle();
        }
        self.seat = Seat::Up(Box::new(occupant));
        if self.container != Some(container) {
            self.container = Some(container);
            self.publish(None, &[], vec![Effect::SetContainer(container)]).await?;
        }
        Ok(())
    }

    /// No container could be had: the task fails, and a session that never had one closes.
    async fn no_agent(&mut self, error: PoolError) -> Result<(), Lost> {
        self.seat = Seat::Empty;
        error!(session.id = %self.session.id(), %error, "No agent for session `{}`: {error}", self.session.id());
        let why = match &error {
            PoolError::NoCapacity => "all places are taken",
            PoolError::Start(_) | PoolError::UnknownProfile(_) | PoolError::Closed => "it did not start",
        };
        if let Some((task, _)) = self.starting.take() {
            self.fail_without_run(task.id, task.mode, format!("no container to be had: {why}"), true).await?;
        }
        if self.container.is_none() {
            while let Some(task) = self.queue.pop() {
                self.fail_without_run(task.id, task.mode, format!("no container to be had: {why}"), true).await?;
            }
            let waiting = std::mem::take(&mut self.ready);
            self.ending.get_or_insert(Ending { reason: "no_container", waiting: Vec::new() });
            self.close().await?;
            self.ready = waiting;
        }
        self.refuse_ready(why);
        Ok(())
    }

    /// Tells those who wait for a container that there is none, once they can read what came of it.
    fn refuse_ready(&mut self, why: &'static str) {
        let replies = std::mem::take(&mut self.ready);
        let (last, hard) = (self.last.clone(), self.parts.hard.clone());
        self.parts.tracker.spawn(async move {
            if let Some(last) = last {
                tokio::select! {
                    _ = last.committed() => (), // However it went: there is no container.
                    () = hard.cancelled() => (),
                }
            }
            for reply in replies {
                let _ = reply.send(Err(Refusal::NoContainer(why.to_owned())));
            }
        });
    }

    /// What the agent said, published in one append up to where it stops.
    async fn read(&mut self, bytes: Bytes) -> Result<(), Lost> {
        let mut said = Vec::new();
        if let Some(occupant) = self.seat.occupant() {
            occupant.read(bytes, &mut said);
        }
        self.heed(said).await
    }

    async fn heed(&mut self, said: Vec<AgentEvent>) -> Result<(), Lost> {
        let mut events = Vec::new();
        for event in said {
            let Some(run) = &mut self.run else {
                debug!(session.id = %self.session.id(), "An idle agent said something; it is not shown");
                return Ok(());
            };
            match event {
                AgentEvent::Stopped { reason, usage, cost_known, num_turns } => {
                    let after = run.after_stop(reason, usage, cost_known, num_turns);
                    self.show(&mut events).await?;
                    self.after_stop(after).await?;
                }
                event => match run.shape.take(event, &mut events) {
                    Some(Note::Dropped(what)) => {
                        warn!(session.id = %self.session.id(), task.id = %run.task, "The agent broke the shape of its turn: {what}");
                    }
                    Some(Note::Withdrawn(ask)) => run.withdrawn.push(ask),
                    Some(Note::Asked(_)) | None => (),
                },
            }
        }
        self.show(&mut events).await
    }

    /// Publishes events of the run, with what its questions change.
    async fn show(&mut self, events: &mut Vec<Event>) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if events.is_empty() {
            return Ok(());
        }
        let task = run.task;
        let mut effects: Vec<Effect> = events
            .iter()
            .filter_map(|event| match event {
                Event::AskUser { ask_id, questions } => {
                    Some(Effect::Ask { task, ask: *ask_id, questions: raw_json(questions).get().to_owned() })
                }
                _ => None,
            })
            .collect();
        let asked = !effects.is_empty();
        effects.extend(run.withdrawn.drain(..).map(Effect::WithdrawAsk));
        if run.stopping().is_none() {
            effects.extend(run.follow_questions());
            // Asked and withdrawn at once: the task never waited.
            if asked && run.shape.open_asks().is_empty() {
                effects.push(Effect::TaskRunning(task));
            }
        }
        self.publish(Some(task), events, effects).await?;
        events.clear();
        Ok(())
    }

    async fn after_stop(&mut self, after: AfterStop) -> Result<(), Lost> {
        match after {
            AfterStop::End { end, agent_is_idle } => self.end_run(end, agent_is_idle).await,
            AfterStop::Continue(event) => {
                let task = self.run.as_ref().map(|run| run.task);
                self.publish(task, &[event], Vec::new()).await?;
                if !self.seat.occupant().is_some_and(|occupant| occupant.tell(&AgentCommand::Continue)) {
                    self.end_run(End::failed("the agent does not read its input", true), false).await?;
                }
                Ok(())
            }
        }
    }

    async fn on_exit(&mut self, exit: Exit) -> Result<(), Lost> {
        let mut said = Vec::new();
        if let Some(occupant) = self.seat.occupant() {
            occupant.read_rest(&mut said);
        }
        self.heed(said).await?;
        // Removes what is left of it.
        self.seat.clear().await;
        let id = self.session.id();
        let Some(run) = &self.run else {
            info!(session.id = %id, ?exit, "The idle agent of session `{id}` is gone");
            return Ok(());
        };
        let end = run.stopping().cloned().unwrap_or_else(|| {
            warn!(session.id = %id, ?exit, "The agent of session `{id}` is gone in the middle of a task");
            End::failed(exit_error(&exit), true)
        });
        self.end_run(end, false).await
    }

    async fn on_deadline(&mut self) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match run.due() {
            Due::Stop(end) => {
                self.begin_stop(end);
                Ok(())
            }
            Due::Harder(Step::Kill) => {
                if let Some(occupant) = self.seat.occupant() {
                    occupant.signal(Signal::Kill).await;
                }
                Ok(())
            }
            Due::Harder(_) => {
                if let Some(occupant) = self.seat.occupant() {
                    occupant.signal(Signal::Interrupt).await;
                }
                Ok(())
            }
            Due::GiveUp(end) => self.end_run(end, false).await,
        }
    }

    /// Asks the agent to stop; deadlines do the rest.
    fn begin_stop(&mut self, end: End) {
        let Some(run) = &mut self.run else { return };
        if run.stop(end)
            && let Some(occupant) = self.seat.occupant()
        {
            // One that takes no more input is stopped by the deadlines.
            occupant.tell(&AgentCommand::Interrupt);
        }
    }

    /// Gives the run up at once: the gateway must end.
    async fn give_up(&mut self) -> Result<(), Lost> {
        if let Some((task, _)) = self.starting.take() {
            self.fail_without_run(task.id, task.mode, "the gateway was shut down".to_owned(), true).await?;
        }
        if let Some(run) = &self.run {
            let end = run.stopping().cloned().unwrap_or_else(|| End::failed("the gateway was shut down", true));
            self.end_run(end, false).await?;
        }
        Ok(())
    }

    /// Ends the run: makes sure that nothing of it is left running (G8), then publishes its end.
    async fn end_run(&mut self, end: End, agent_is_idle: bool) -> Result<(), Lost> {
        let may_live = match self.seat.occupant() {
            // What a stopped or failed tool left running goes with its agent.
            Some(occupant) if !matches!(end, End::Completed { .. }) => {
                agent_is_idle && !occupant.has_stragglers().await
            }
            _ => agent_is_idle,
        };
        if !may_live {
            self.seat.clear().await;
        }
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let mut events = Vec::new();
        let effect = run.end(&end, &mut events);
        let receipt = self.publish(Some(run.task), &events, vec![effect]).await?;
        info!(session.id = %self.session.id(), task.id = %run.task, state = %end.state(), "Task `{}` ended: {}", run.task, end.state());
        for reply in run.cancelling.drain(..) {
            let _ = reply.send(Ok(Some((end.state(), receipt.clone()))));
        }
        self.ended = Some((run.task, end.state(), receipt));
        if run.is_batch() {
            self.close_after_batch(Mode::Batch);
        }
        if let Some(occupant) = self.seat.occupant() {
            occupant.set_idle();
        }
        Ok(())
    }

    /// Publishes, and makes the session with it when that is still to be done.
    async fn publish(
        &mut self,
        task: Option<TaskId>,
        events: &[Event],
        mut effects: Vec<Effect>,
    ) -> Result<Receipt, Lost> {
        if let Some(new) = self.creation.take() {
            effects.insert(0, Effect::CreateSession(new));
        }
        // The journal may be away for long; the gateway's end does not wait for it.
        let hard = self.parts.hard.clone();
        let receipt = tokio::select! {
            biased;
            receipt = self.session.publish(task, events, effects) => receipt?,
            () = hard.cancelled() => return Err(Lost),
        };
        self.last = Some(receipt.clone());
        Ok(receipt)
    }
}

/// What people read when an agent died.
fn exit_error(exit: &Exit) -> String {
    match exit {
        // The mark stays from the first process in the container that was killed for memory; 137 is SIGKILL,
        // so then it was the agent.
        Exit { oom: true, code: Some(137) | None, .. } => "the container ran out of memory".to_owned(),
        Exit { oom: true, code: Some(code), .. } => {
            format!("Container exited {code} (something in it had run out of memory)")
        }
        Exit { code: Some(code), .. } => format!("Container exited {code}"),
        Exit { code: None, .. } => "Container is gone".to_owned(),
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

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
