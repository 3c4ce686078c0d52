//! What is asked of a session, and how it answers.

use tracing::info;

use super::super::invariants::OpenAsk;
use super::super::queue::Waiting;
use super::super::run::{End, Run, Verdict};
use super::super::title::title_of;
use super::turns::continue_id;
use super::{Accepted, CancelReply, Command, Ending, Lost, Ready, Refusal, Reply, Seat, Worker};
use crate::agent::AgentCommand;
use crate::domain::{AskId, Mode, OnBusy, Seq, SessionStatus, TaskId, TaskState, Usage, UserId};
use crate::hub::Receipt;
use crate::journal::{Effect, IdempotencyKey, NewTask, TaskEnd};
use crate::protocol::reply::raw_json;
use crate::protocol::{Answer, Event, Submit};

/// Why sessions are closed.
const ENDED: &str = "ended";
const BATCH_DONE: &str = "batch_done";
pub(super) const NO_CONTAINER: &str = "no_container";

impl Worker {
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), Lost> {
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

    pub(super) async fn accept(
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
        let mut effects = vec![Effect::CreateTask(Box::new(new))];
        effects.extend(self.title_by(&submit.prompt));
        // In one commit with the prompt: a gateway that dies must not take the one and leave the other.
        let stops = interrupts && self.run.as_mut().is_some_and(|run| !run.is_paused() && run.stop(End::Cancelled));
        let receipt = self.publish(Some(task), &events, effects).await?;
        let waiting = Waiting {
            id: task,
            prompt: submit.prompt,
            mode: submit.mode,
            priority: submit.priority,
            options: submit.options,
            _slot: slot,
            counted: self.parts.metrics.task(TaskState::Queued),
        };
        self.queue.insert(position, waiting);
        let created_at = receipt.at();
        let _ = reply.send(Ok(Accepted { position, prompt_seq, created_at, receipt }));
        if stops {
            self.interrupt().await
        } else if interrupts {
            self.stop_current().await
        } else {
            Ok(())
        }
    }

    /// Calls a session by its first prompt, if nobody has given it a title. Changed with the rest that makes
    /// it, if it is still to be made.
    fn title_by(&mut self, prompt: &str) -> Option<Effect> {
        if self.session.head() != Seq::START {
            return None;
        }
        let title = title_of(prompt)?;
        match &mut self.creation {
            Some(new) => {
                new.title.get_or_insert(title);
                None
            }
            None => Some(Effect::SetTitleIfNone(title)),
        }
    }

    pub(super) async fn cancel(&mut self, task: TaskId, reply: CancelReply) -> Result<(), Lost> {
        if let Some(run) = self.run.as_mut().filter(|run| run.task == task) {
            run.cancelling.push(reply);
            return self.begin_stop(End::Cancelled).await;
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

    pub(super) async fn answer(
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
        if self.run.as_ref().is_some_and(Run::is_paused) {
            self.recall().await?; // Its answer closes a tool call.
        }
        let json = raw_json(&answer);
        let mut effects = vec![Effect::Answer { ask: open.ask_id, answer: json.get().to_owned() }];
        let mut events = vec![Event::Answered { ask_id: open.ask_id, answer: json }];
        let Some(run) = &mut self.run else { return Ok(()) };
        let verdict = run.settle(&open, &answer, &mut events);
        effects.extend(run.follow_questions());
        let times = run.continued();
        let receipt = self.publish(Some(task), &events, effects).await?;
        if let Some(run) = &mut self.run {
            run.note_answer(open.ask_id, answer.clone(), receipt.clone());
        }
        let _ = reply.send(Ok(Some(receipt.clone())));
        let (id, command) = match verdict {
            Verdict::Pass => {
                let OpenAsk { ask_id, tool_id: id, questions } = open;
                (ask_id.to_string(), AgentCommand::Answer { id, questions, answer })
            }
            Verdict::GoOn => {
                if let Some(occupant) = self.seat.occupant() {
                    occupant.work();
                }
                (continue_id(task, times), AgentCommand::Continue)
            }
            Verdict::End(end) => return self.end_run(end, true, Vec::new()).await,
        };
        if !self.tell(&id, &command, Some(&receipt)) {
            self.end_run(End::failed("the agent does not read its input", true), false, Vec::new()).await?;
        }
        Ok(())
    }

    /// What became of an answer to a question that is not open: nothing, when the run knows of none.
    pub(super) fn answered_before(
        &self,
        task: TaskId,
        ask: Option<AskId>,
        answer: &Answer,
    ) -> Result<Option<Receipt>, Refusal> {
        let run = self.run.as_ref().filter(|run| run.task == task);
        let mut answered = run.iter().flat_map(|run| run.answered().iter().rev());
        match answered.find(|(id, ..)| ask.is_none_or(|ask| ask == *id)) {
            Some((_, earlier, receipt)) if earlier == answer => Ok(Some(receipt.clone())),
            Some(_) => Err(Refusal::AnsweredOtherwise),
            None => Ok(None),
        }
    }

    pub(super) async fn end(&mut self, reply: Reply<Receipt>) -> Result<(), Lost> {
        if self.status == SessionStatus::Closed {
            let _ = reply.send(self.closed.clone().ok_or(Refusal::SessionClosed));
            return Ok(());
        }
        self.ending.get_or_insert(Ending { reason: ENDED.to_owned(), waiting: Vec::new() }).waiting.push(reply);
        while let Some(task) = self.queue.pop() {
            self.cancel_waiting(task.id, Mode::Session).await?;
        }
        self.stop_current().await
    }

    /// Names the box that a closed session lived in, if it ever had one.
    pub(super) async fn was_ready(&mut self, reply: Reply<(Ready, Receipt)>) -> Result<(), Lost> {
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

    /// Tells who waits that the container is up, with the commit that says so: an empty one follows it.
    pub(super) async fn answer_ready(&mut self) -> Result<(), Lost> {
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

    /// Tells those who wait for a container that there is none, once they can read what came of it.
    pub(super) fn refuse_ready(&mut self, why: &'static str) {
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

    /// Cancels the task at work, if there is one.
    pub(super) async fn stop_current(&mut self) -> Result<(), Lost> {
        if let Some((task, _)) = self.starting.take() {
            self.cancel_waiting(task.id, task.mode).await?;
        }
        self.begin_stop(End::Cancelled).await
    }

    pub(super) async fn cancel_waiting(&mut self, task: TaskId, mode: Mode) -> Result<Receipt, Lost> {
        let end = TaskEnd {
            id: task,
            state: TaskState::Cancelled,
            result_text: None,
            stop_reason: Some("cancelled"),
            error: None,
            retryable: None,
            usage: Usage::default(),
        };
        let done = Event::TaskDone { status: TaskState::Cancelled.as_str() };
        let effects = [Effect::EndTask(Box::new(end))].into_iter().chain(self.end_with(mode)).collect();
        let receipt = self.publish(Some(task), &[done], effects).await?;
        self.ended = Some((task, TaskState::Cancelled, receipt.clone()));
        Ok(receipt)
    }

    /// Ends a task that has no run as failed.
    pub(super) async fn fail_without_run(
        &mut self,
        task: TaskId,
        mode: Mode,
        error: String,
        retryable: bool,
    ) -> Result<(), Lost> {
        let end = TaskEnd {
            id: task,
            state: TaskState::Failed,
            result_text: None,
            stop_reason: None,
            error: Some(error.clone()),
            retryable: Some(retryable),
            usage: Usage::default(),
        };
        let failed = Event::TaskFailed { error, retryable, usage: end.usage };
        let effects = [Effect::EndTask(Box::new(end))].into_iter().chain(self.end_with(mode)).collect();
        let receipt = self.publish(Some(task), &[failed], effects).await?;
        self.ended = Some((task, TaskState::Failed, receipt));
        Ok(())
    }

    /// What is to be committed with the end of a task, which is to be the end of its session in batch mode.
    pub(super) fn end_with(&mut self, mode: Mode) -> Option<Effect> {
        (mode == Mode::Batch).then(|| {
            self.ending.get_or_insert_with(|| Ending { reason: BATCH_DONE.to_owned(), waiting: Vec::new() });
            Effect::EndSession(BATCH_DONE)
        })
    }

    /// Ends the session, now that nothing of it runs.
    pub(super) async fn close(&mut self) -> Result<(), Lost> {
        let Some(ending) = self.ending.take() else { return Ok(()) };
        while let Some(task) = self.queue.pop() {
            self.cancel_waiting(task.id, Mode::Session).await?;
        }
        self.slot = None;
        self.seat = Seat::Empty; // One that is only coming finds nobody.
        self.status = SessionStatus::Closed;
        let closed = Event::SessionClosed { reason: ending.reason.clone() };
        let receipt = self.publish(None, &[closed], vec![Effect::CloseSession]).await?;
        info!(session.id = %self.session.id(), reason = %ending.reason, "Session `{}` is closed", self.session.id());
        for reply in self.ready.drain(..) {
            let _ = reply.send(Err(Refusal::SessionClosed));
        }
        for reply in ending.waiting {
            let _ = reply.send(Ok(receipt.clone()));
        }
        self.closed = Some(receipt);
        Ok(())
    }
}
