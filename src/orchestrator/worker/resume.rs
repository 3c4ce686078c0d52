//! Where an earlier gateway stopped: the session's agent is taken over, its task goes on.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::super::allowance::{Allowance, turn};
use super::super::invariants::{OpenAsk, TurnShape};
use super::super::queue::Waiting;
use super::super::run::{End, Past, Run, Share};
use super::super::run_state::RunState;
use super::super::seat::{Occupant, Seat};
use super::ending::interrupt_id;
use super::turns::continue_id;
use super::{Lost, Parts, Refusal, Worker};
use crate::agent::{self, AgentCommand};
use crate::database::DatabaseError;
use crate::domain::Seq;
use crate::hub::PAGE_EVENTS;
use crate::runtime::pool::Adoption;
use crate::store::{QuestionRecord, SessionRecord, TaskRecord};

/// After what time at the latest what was said before is read: by then all agents are heard again.
const READ_BY: Duration = Duration::from_secs(10);
/// How long between two tries to read it.
const READ_AGAIN: Duration = Duration::from_millis(500);

impl From<Lost> for Refusal {
    fn from(_: Lost) -> Self {
        Self::Interrupted
    }
}

impl Worker {
    /// Takes over the session's agent, if it is there: heard from the record on that was dealt with last.
    pub(super) async fn adopt_agent(&mut self, record: &SessionRecord) -> Result<(), Refusal> {
        let (Some(container_id), Some(spool)) = (record.container, record.spool) else { return Ok(()) };
        let adoption = Adoption {
            container_id,
            profile_id: &record.profile,
            spool,
            epoch: self.session.epoch(),
            after: record.spool_record,
        };
        let lease = match self.parts.pool.adopt(&record.user, adoption).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(()),
            // The engine may be away: it is tried again.
            Err(error) => {
                warn!(session.id = %record.id, %error, "The agent of session `{}` can't be taken over now: {error}", record.id);
                return Err(Refusal::Interrupted);
            }
        };
        self.parts.metrics.agent_adopted();
        (self.heard, self.published) = (record.spool_record, record.spool_record);
        let adapter = self.adapter_for(&lease, agent::Process::Known).await;
        let channel = self.open_channel(&lease);
        let mut occupant = Occupant::new(lease, adapter, channel);
        occupant.tell_again();
        occupant.lease.agent.process.acknowledge(record.spool_record);
        self.seat = Seat::Up(Box::new(occupant));
        info!(session.id = %record.id, container.id = %container_id, "The agent of session `{}` is taken over", record.id);
        Ok(())
    }

    /// A task that waited waits again.
    pub(super) fn wait_again(&mut self, task: TaskRecord) {
        let waiting = self.waiting(task);
        self.queue.insert(usize::MAX, waiting);
    }

    /// A task whose turn had come: its agent is given the prompt when it is there.
    pub(super) fn start_again(&mut self, task: TaskRecord) {
        let slot = self.parts.users.run_again(&task.user);
        self.starting = Some((self.waiting(task), slot));
    }

    fn waiting(&self, task: TaskRecord) -> Waiting {
        Waiting {
            id: task.id,
            prompt: task.prompt,
            mode: task.mode,
            priority: task.priority,
            options: task.options,
            _slot: self.parts.users.wait_again(&task.user),
            counted: self.parts.metrics.task(task.state),
        }
    }

    /// A task that was at work goes on, if its agent is there; else it has failed.
    pub(super) async fn go_on(
        &mut self,
        record: &SessionRecord,
        task: &TaskRecord,
        state: &RunState,
    ) -> Result<(), Refusal> {
        let state = state.clone().of(task.id);
        let past = said_before(Arc::clone(&self.parts), task.clone(), record.last_seq, state.clone());
        let questions = self.parts.store.questions(task.id).await?;
        let open = open_asks(&questions, &state);
        let asked_at = questions.iter().filter(|question| open.iter().any(|open| open.ask_id == question.id));
        let asked_at = asked_at.map(|question| question.asked_at).min();
        let allowance = Allowance::new(&task.options, &self.profile, &self.parts.limits);
        let share =
            Share { _slot: self.parts.users.run_again(&task.user), counted: self.parts.metrics.task(task.state) };
        let mut run =
            Run::restore(task, allowance, share, &state, Past::of(past, READ_BY), open, self.parts.limits.event_bytes);
        if let Some(asked_at) = asked_at {
            run.has_asked_for(self.parts.clock.now().since(asked_at));
        }
        self.run = Some(run);
        if self.seat.is_empty() {
            let gone = || End::failed("its container is gone", true);
            let end = state.stopping.clone().unwrap_or_else(gone);
            return Ok(self.end_run(end, false, Vec::new()).await?);
        }
        if let (Some(run), Some(occupant)) = (&self.run, self.seat.occupant())
            && (run.stopping().is_some() || run.is_paused())
        {
            occupant.rest();
        }
        self.tell_again(task, &state, questions);
        info!(session.id = %record.id, task.id = %task.id, "Task `{}` goes on", task.id);
        Ok(())
    }

    /// Waits until it is known what the task at work said before a restart.
    pub(super) async fn recall(&mut self) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(past) = run.past.take() else { return Ok(()) };
        let (hard, fenced) = (self.parts.hard.clone(), self.session.fenced().clone());
        tokio::select! {
            before = past.get() => run.shape.precede(before.map_err(|_| Lost)?),
            () = hard.cancelled() => return Err(Lost),
            () = fenced.cancelled() => return Err(Lost),
        }
        Ok(())
    }

    /// What the agent has been told, or was about to be: it heeds each once.
    fn tell_again(&mut self, task: &TaskRecord, state: &RunState, questions: Vec<QuestionRecord>) {
        let Some(cwd) = self.seat.occupant().map(|occupant| occupant.lease.agent.cwd.clone()) else { return };
        let (limits, prompt) = (&self.parts.limits, task.prompt.clone());
        let turn = turn(self.session.id(), task.id, prompt, &task.options, &self.profile, limits, &cwd);
        self.tell(&task.id.to_string(), &AgentCommand::Turn(Box::new(turn)), None);
        for times in 1..=state.continued() {
            self.tell(&continue_id(task.id, times), &AgentCommand::Continue, None);
        }
        for question in questions {
            if let (Some(answer), Some(tool)) = (question.answer, state.tool_of(question.id)) {
                let command = AgentCommand::Answer { id: tool.to_owned(), questions: question.questions, answer };
                self.tell(&question.id.to_string(), &command, None);
            }
        }
        if state.stopping.is_some() {
            self.tell(&interrupt_id(task.id, state.budget.grants()), &AgentCommand::Interrupt, None);
        }
    }
}

/// What a task's agent had said by the event `until`, as the journal has it.
async fn said_before(parts: Arc<Parts>, task: TaskRecord, until: Seq, state: RunState) -> TurnShape {
    let mut said = TurnShape::new(parts.limits.event_bytes);
    let mut cursor = task.prompt_seq;
    while cursor < until {
        let _turn = parts.recalls.acquire().await; // Never closed.
        let mut page = match parts.hub.journal().read_after(task.session, cursor, PAGE_EVENTS).await {
            Ok(page) => page,
            // Its end will tell less, but it comes.
            Err(error @ DatabaseError::Corrupt(_)) => {
                error!(task.id = %task.id, %error, "What task `{}` said before is lost to its end: {error}", task.id);
                break;
            }
            // The database may be away: it is tried again.
            Err(error) => {
                warn!(task.id = %task.id, %error, "What task `{}` said before can't be read now: {error}", task.id);
                tokio::time::sleep(READ_AGAIN).await;
                continue;
            }
        };
        page.retain(|event| event.seq <= until);
        let Some(last) = page.last() else { break };
        cursor = last.seq;
        said.restore(task.id, &page, &state.tools);
    }
    said
}

/// The questions without an answer, with the tool calls that put them.
fn open_asks(questions: &[QuestionRecord], state: &RunState) -> Vec<OpenAsk> {
    let open = questions.iter().filter(|question| question.answer.is_none());
    open.filter_map(|question| {
        Some(OpenAsk {
            ask_id: question.id,
            tool_id: state.tool_of(question.id)?.to_owned(),
            questions: question.questions.clone(),
        })
    })
    .collect()
}
