//! The session's agent: how it comes, what it is told, what it says.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::super::allowance::{Allowance, turn};
use super::super::invariants::Note;
use super::super::run::{AfterStop, End, Run, Share};
use super::super::seat::{Occupant, Seat, SeatEvent};
use super::super::users::RunningSlot;
use super::commands::NO_CONTAINER;
use super::{Ending, Lost, Worker};
use crate::agent::{self, Adapter, AgentCommand, AgentEvent, Tell};
use crate::domain::{TaskId, TaskState};
use crate::hub::Receipt;
use crate::journal::Effect;
use crate::protocol::Event;
use crate::protocol::reply::raw_json;
use crate::proxy::Channel;
use crate::runtime::pool::{Lease, PoolError, Reserved};
use crate::runtime::{Line, RuntimeError};

/// After how many records that mean nothing, or how many bytes of them, it is noted that they have been heard. Less
/// than an agent's spool has room for (`--spool-bytes` of the shim), also with a longest line on top.
const SILENT_RECORDS: u64 = 256;
const SILENT_BYTES: usize = 4 << 20;

impl Worker {
    /// Gets in line for an agent.
    pub(super) fn await_place(&mut self) {
        let parts = Arc::clone(&self.parts);
        let (user, profile, container) = (self.user.clone(), self.profile_id.clone(), self.container);
        let reserved = async move { parts.pool.reserve(&user, &profile, container).await };
        self.seat = Seat::Waiting(reserved.boxed());
    }

    async fn start_agent(&mut self, reserved: Reserved) -> Result<(), Lost> {
        if self.parts.soft.is_cancelled() || !self.wants_agent() {
            self.seat = Seat::Empty; // Whoever takes the session up next does that, or who needs one.
            return Ok(());
        }
        let (mut started, coming) = oneshot::channel();
        // What was left of the session's box goes with a start: only if the session is still ours, though it may have
        // waited for its place for long. It was found before: what another gateway starts from now on stays.
        let ours = match self.container {
            Some(_) => Some(self.publish(None, &[], Vec::new()).await?),
            None => None,
        };
        // A task of its own: a start that nobody waits for any more is not cut off in the middle, its
        // lease is dropped whole.
        self.parts.tracker.spawn(async move {
            if let Some(ours) = ours {
                tokio::select! {
                    biased;
                    () = started.closed() => return,
                    committed = ours.committed() => if committed.is_err() {
                        return; // The fence tells.
                    },
                }
            }
            let _ = started.send(reserved.start().await); // Nobody may wait for it any more: then it goes again.
        });
        self.seat = Seat::Starting(coming);
        Ok(())
    }

    /// The user may run one more task: the next one's turn has come.
    pub(super) async fn take_turn(&mut self, slot: RunningSlot) -> Result<(), Lost> {
        self.slot = None;
        let Some(mut next) = self.queue.pop() else { return Ok(()) };
        next.counted.becomes(TaskState::Starting);
        self.publish(None, &[], vec![Effect::TaskStarting(next.id)]).await?;
        self.starting = Some((next, slot));
        Ok(())
    }

    /// Gives the agent its prompt.
    pub(super) async fn begin(&mut self) -> Result<(), Lost> {
        let Some((task, slot)) = self.starting.take() else { return Ok(()) };
        let Some(occupant) = self.seat.occupant() else { return Ok(()) };
        let (limits, cwd) = (&self.parts.limits, &occupant.lease.agent.cwd);
        let turn = turn(self.session.id(), task.id, task.prompt.clone(), &task.options, &self.profile, limits, cwd);
        if !occupant.fits(&turn) || !occupant.set_busy() {
            // It was started for turns of another kind, or it ended or its place was given away, a moment ago:
            // start another.
            self.starting = Some((task, slot));
            return self.dismiss().await;
        }
        let agent = &occupant.lease.agent;
        let started =
            Event::TaskStarted { container_id: agent.container_id, container_name: agent.container_name.clone() };
        let mut events = vec![started];
        events.extend(turn.system_prompt.clone().map(|prompt| Event::SystemPrompt { prompt }));
        let allowance = Allowance::new(&task.options, &self.profile, &self.parts.limits);
        let share = Share { _slot: slot, counted: task.counted };
        self.run = Some(Run::new(task.id, task.mode, allowance, self.parts.limits.event_bytes, share));
        let receipt = self.publish(Some(task.id), &events, vec![Effect::TaskRunning(task.id)]).await?;
        let told = self.tell(&task.id.to_string(), &AgentCommand::Turn(Box::new(turn)), Some(&receipt));
        info!(session.id = %self.session.id(), task.id = %task.id, "Task `{}` runs", task.id);
        if !told {
            self.end_run(End::failed("the agent does not read its input", true), false, Vec::new()).await?;
        }
        Ok(())
    }

    /// [`Occupant::tell`], if the agent is there.
    pub(super) fn tell(&mut self, id: &str, command: &AgentCommand, after: Option<&Receipt>) -> bool {
        self.seat.occupant().is_some_and(|occupant| occupant.tell(id, command, after))
    }

    fn pass_on(&mut self, what: Tell) {
        // One that takes no more input has its deadlines.
        if let Some(occupant) = self.seat.occupant() {
            occupant.pass_on(what, None);
        }
    }

    /// Takes the agent's box away, once what it said has committed, and with it that the session is still ours:
    /// another gateway may have taken it over, and use the box.
    pub(super) async fn dismiss(&mut self) -> Result<(), Lost> {
        let ours = self.publish(None, &[], Vec::new()).await?;
        self.unacknowledged.clear();
        if let Some(occupant) = self.seat.occupant() {
            self.agent_state = occupant.state();
        }
        self.seat.dismiss(ours);
        Ok(())
    }

    pub(super) async fn at_seat(&mut self, event: SeatEvent) -> Result<(), Lost> {
        match event {
            SeatEvent::Reserved(Ok(reserved)) => self.start_agent(reserved).await,
            SeatEvent::Started(Ok(lease)) => self.seat_agent(lease).await,
            SeatEvent::Reserved(Err(error)) | SeatEvent::Started(Err(error)) => self.no_agent(error).await,
            SeatEvent::Lines(lines) => self.read(lines).await,
            SeatEvent::Exit(exit) => self.on_exit(exit).await,
            SeatEvent::Metered(call) => self.meter(&call).await,
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
                    Some(_) => {
                        let end = match error {
                            RuntimeError::TooLarge { .. } => End::failed(error.to_string(), false),
                            _ => End::failed("the agent does not read its input", true),
                        };
                        self.end_run(end, false, Vec::new()).await
                    }
                    None => self.dismiss().await,
                }
            }
            SeatEvent::Dismiss(why) => {
                debug!(session.id = %self.session.id(), "The agent of session `{}` is stopped: {why}", self.session.id());
                self.dismiss().await
            }
            SeatEvent::Left => {
                self.seat = Seat::Empty;
                Ok(())
            }
        }
    }

    pub(super) async fn seat_agent(&mut self, lease: Lease) -> Result<(), Lost> {
        let (container, spool) = (lease.agent.container_id, lease.agent.spool);
        let adapter = self.adapter_for(&lease, agent::Process::New).await;
        let channel = self.open_channel(&lease);
        let mut occupant = Occupant::new(lease, adapter, channel);
        // One that a task waits for must not be given away to somebody else before it begins.
        if self.starting.is_none() {
            occupant.set_idle();
        }
        self.container = Some(container);
        // Nothing of it has been heard.
        (self.heard, self.published, self.unpublished_bytes) = (0, 0, 0);
        self.seat = Seat::Up(Box::new(occupant));
        // In the seat first, so that the state of its own adapter commits with it: what was true of the process
        // before is not true of this one.
        let seated = self.publish(None, &[], vec![Effect::SetContainer(container, spool)]).await;
        if let Err(lost) = seated {
            self.seat = Seat::Empty; // No record tells of it: it goes.
            return Err(lost);
        }
        if let Some(occupant) = self.seat.occupant() {
            occupant.lease.keep();
        }
        Ok(())
    }

    /// The agent's way to its model, if its profile has one.
    pub(super) fn open_channel(&self, lease: &Lease) -> Option<Channel> {
        let container = lease.agent.container_id;
        self.parts.proxy.open(container, &self.profile_id).unwrap_or_else(|error| {
            error!(container.id = %container, %error, "The agent in `{container}` can't reach its model: {error}");
            None
        })
    }

    /// What makes sense of an agent of this session.
    pub(super) async fn adapter_for(&mut self, lease: &Lease, process: agent::Process) -> Box<dyn Adapter> {
        let (kind, session_id) = (self.profile.adapter, self.session.id());
        let cwd = lease.agent.cwd.clone();
        let has_memory = match agent::memory_file(kind, session_id, &cwd) {
            Some(path) => self.parts.pool.workspace(lease.agent.container_id).has_file(&path).await,
            None => false,
        };
        let setup = agent::Setup { session_id, cwd, permissions: self.profile.permissions, has_memory };
        agent::adapter(kind, setup, &self.agent_state, process)
    }

    /// No container could be had: the task fails, and a session that never had one closes, unless nobody waits for it
    /// any more.
    pub(super) async fn no_agent(&mut self, error: PoolError) -> Result<(), Lost> {
        self.seat = Seat::Empty;
        let was_wanted = self.wants_agent();
        error!(session.id = %self.session.id(), %error, "No agent for session `{}`: {error}", self.session.id());
        let why = match &error {
            PoolError::NoCapacity => "all places are taken",
            PoolError::Start(_) | PoolError::UnknownProfile(_) | PoolError::Closed => {
                "it did not start; the gateway's log says why"
            }
        };
        if let Some((task, _)) = self.starting.take() {
            self.fail_without_run(task.id, task.mode, format!("no container to be had: {why}"), true).await?;
        }
        if self.container.is_none() && was_wanted {
            while let Some(task) = self.queue.pop() {
                self.fail_without_run(task.id, task.mode, format!("no container to be had: {why}"), true).await?;
            }
            let waiting = std::mem::take(&mut self.ready);
            self.ending.get_or_insert(Ending { reason: NO_CONTAINER.to_owned(), waiting: Vec::new() });
            self.close().await?;
            self.ready = waiting;
        }
        self.refuse_ready(why);
        Ok(())
    }

    /// What the agent said, published in one append up to where it stops. What a line means commits as
    /// one with the place behind it: after a crash no line is heard twice, and none by half.
    pub(super) async fn read(&mut self, lines: Vec<Line>) -> Result<(), Lost> {
        let mut events = Vec::new();
        for line in lines {
            let (mut said, mut before) = (Vec::new(), None);
            if let Some(occupant) = self.seat.occupant() {
                before = (!events.is_empty()).then(|| occupant.state());
                occupant.decode(&line, &mut said);
            }
            if said.iter().any(|event| matches!(event, AgentEvent::Stopped { .. }))
                && let Some(before) = before
            {
                // What came before is not to wait for what the end takes. The line of the end will be heard again
                // after a crash, by an adapter that has not heard it.
                self.publish_events(&mut events, Some(before)).await?;
            }
            self.heard = line.record;
            self.unpublished_bytes += line.bytes;
            for event in said {
                match event {
                    // At once: a gateway that dies here makes the same of the same line again.
                    AgentEvent::Tell(what) => self.pass_on(what),
                    event => self.heed(event, &mut events).await?,
                }
            }
        }
        self.show(&mut events).await
    }

    async fn heed(&mut self, event: AgentEvent, events: &mut Vec<Event>) -> Result<(), Lost> {
        if !matches!(event, AgentEvent::Text(_)) {
            self.recall().await?;
        }
        let Some(run) = self.run.as_mut().filter(|run| !run.is_paused()) else {
            debug!(session.id = %self.session.id(), "An idle agent said something; it is not shown");
            if let Some(run) = &mut self.run {
                run.note_unrest();
            }
            return Ok(());
        };
        match event {
            AgentEvent::Stopped { reason, usage, cost_known, num_turns } => {
                let after = run.after_stop(reason, usage, cost_known, num_turns);
                return self.after_stop(after, std::mem::take(events)).await;
            }
            event => match run.shape.take(event, events) {
                Some(Note::Dropped(what)) => {
                    if let Some(occupant) = self.seat.occupant() {
                        occupant.note_skipped(&what);
                    }
                }
                Some(Note::Withdrawn(ask)) => run.withdrawn.push(ask),
                Some(Note::Asked(_)) | None => (),
            },
        }
        Ok(())
    }

    /// Publishes events of the run, with what its questions change. When there are none for long, how far
    /// the agent has been heard: its spool must not fill up.
    pub(super) async fn show(&mut self, events: &mut Vec<Event>) -> Result<(), Lost> {
        let silent_for_long =
            self.heard.saturating_sub(self.published) >= SILENT_RECORDS || self.unpublished_bytes >= SILENT_BYTES;
        if events.is_empty() && !silent_for_long {
            return Ok(());
        }
        let agent = self.seat.occupant().map(|occupant| occupant.state());
        self.publish_events(events, agent).await
    }

    async fn publish_events(&mut self, events: &mut Vec<Event>, agent: Option<Value>) -> Result<(), Lost> {
        let effects = self.effects_of(events);
        let task = self.run.as_ref().map(|run| run.task);
        self.publish_knowing(agent, task, events, effects).await?;
        events.clear();
        Ok(())
    }

    /// What changes with events of the run.
    pub(super) fn effects_of(&mut self, events: &[Event]) -> Vec<Effect> {
        let Some(run) = &mut self.run else { return Vec::new() };
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
        effects
    }

    /// `events` came before the stop, in the same breath.
    async fn after_stop(&mut self, after: AfterStop, mut events: Vec<Event>) -> Result<(), Lost> {
        match after {
            AfterStop::End { end, agent_is_idle } => self.end_run(end, agent_is_idle, events).await,
            AfterStop::Continue(event) => {
                let effects = self.effects_of(&events);
                events.push(event);
                let Some((task, times)) = self.run.as_ref().map(|run| (run.task, run.continued())) else {
                    return Ok(());
                };
                let receipt = self.publish(Some(task), &events, effects).await?;
                if !self.tell(&continue_id(task, times), &AgentCommand::Continue, Some(&receipt)) {
                    let end = End::failed("the agent does not read its input", true);
                    self.end_run(end, false, Vec::new()).await?;
                }
                Ok(())
            }
            AfterStop::AskForMore => {
                self.settle_bill().await;
                if let Some(occupant) = self.seat.occupant() {
                    occupant.rest();
                    occupant.forget_bill(); // What is metered from now on began after it had stopped.
                }
                let Some(run) = &mut self.run else { return Ok(()) };
                match run.ask_for_more(&mut events) {
                    None => self.show(&mut events).await,
                    Some(end) => self.end_run(end, true, events).await,
                }
            }
        }
    }
}

/// Names the word that lets a task's agent go on, for the how manieth time.
pub(super) fn continue_id(task: TaskId, times: u32) -> String {
    format!("{task}/continue/{times}")
}
