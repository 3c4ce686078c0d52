//! Where an earlier gateway stopped: the session's agent is taken over, its task goes on.

use std::sync::Arc;

use tracing::info;

use super::super::invariants::{OpenAsk, TurnShape};
use super::super::queue::Waiting;
use super::super::run::{Allowance, End, Run, RunState, Share, turn};
use super::super::seat::{Occupant, Seat};
use super::turns::{continue_id, interrupt_id};
use super::{Lost, Parts, Refusal, Worker};
use crate::agent::{self, AgentCommand};
use crate::hub::PAGE_EVENTS;
use crate::runtime::pool::Adoption;
use crate::store::{QuestionRecord, SessionRecord, TaskRecord};

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
                tracing::warn!(session.id = %record.id, %error, "The agent of session `{}` can't be taken over now: {error}", record.id);
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
        let mut said = said_before(Arc::clone(&self.parts), record, task, &state).await?;
        let questions = self.parts.store.questions(task.id).await?;
        said.restore_asks(open_asks(&questions, &state));
        let allowance = Allowance::new(&task.options, &self.profile, &self.parts.limits);
        let share =
            Share { _slot: self.parts.users.run_again(&task.user), counted: self.parts.metrics.task(task.state) };
        self.run = Some(Run::restore(task, allowance, share, &state, said));
        if self.seat.is_empty() {
            let gone = || End::failed("its container is gone", true);
            let end = state.stopping().cloned().unwrap_or_else(gone);
            return Ok(self.end_run(end, false, Vec::new()).await?);
        }
        self.tell_again(task, &state, questions);
        info!(session.id = %record.id, task.id = %task.id, "Task `{}` goes on", task.id);
        Ok(())
    }

    /// What the agent has been told, or was about to be: it heeds each once.
    fn tell_again(&mut self, task: &TaskRecord, state: &RunState, questions: Vec<QuestionRecord>) {
        let turn = turn(self.session.id(), task.id, task.prompt.clone(), &task.options, &self.profile);
        self.tell(&task.id.to_string(), &AgentCommand::Turn(Box::new(turn)), None);
        for continuation in 1..=state.continuation() {
            self.tell(&continue_id(task.id, continuation), &AgentCommand::Continue, None);
        }
        for question in questions {
            if let (Some(answer), Some(tool)) = (question.answer, state.tool_of(question.id)) {
                let command = AgentCommand::Answer { id: tool.to_owned(), questions: question.questions, answer };
                self.tell(&question.id.to_string(), &command, None);
            }
        }
        if state.stopping().is_some() {
            self.tell(&interrupt_id(task.id), &AgentCommand::Interrupt, None);
        }
    }
}

/// What a task's agent has said so far, as the journal has it.
async fn said_before(
    parts: Arc<Parts>,
    record: &SessionRecord,
    task: &TaskRecord,
    state: &RunState,
) -> Result<TurnShape, Refusal> {
    let mut said = TurnShape::new(parts.limits.event_bytes);
    let mut cursor = task.prompt_seq;
    while cursor < record.last_seq {
        let page = parts.hub.journal().read_after(record.id, cursor, PAGE_EVENTS).await?;
        let Some(last) = page.last() else { break };
        cursor = last.seq;
        said.restore(task.id, &page, state.tools());
    }
    Ok(said)
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
