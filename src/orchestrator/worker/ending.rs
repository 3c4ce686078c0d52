//! How a run is stopped, and how it ends: the deadlines, the interrupt, the kill, and the last events.

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::run::{Due, End, Step};
use super::{Lost, Worker};
use crate::agent::AgentCommand;
use crate::domain::TaskId;
use crate::protocol::Event;
use crate::proxy::Metered;
use crate::runtime::Exit;

impl Worker {
    pub(super) async fn on_exit(&mut self, exit: Exit) -> Result<(), Lost> {
        let id = self.session.id();
        let Some(run) = &self.run else {
            info!(session.id = %id, ?exit, "The idle agent of session `{id}` is gone");
            return self.dismiss().await;
        };
        let end = run.stopping().cloned().unwrap_or_else(|| {
            warn!(session.id = %id, ?exit, "The agent of session `{id}` is gone in the middle of a task");
            End::failed(exit_error(&exit), true)
        });
        self.end_run(end, false, Vec::new()).await
    }

    pub(super) async fn on_deadline(&mut self) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match run.due() {
            Due::Stop(end) => self.begin_stop(end).await,
            Due::Harder(Step::Kill) => {
                if let Some(occupant) = self.seat.occupant() {
                    occupant.kill().await;
                }
                Ok(())
            }
            Due::Harder(_) => {
                if let Some(occupant) = self.seat.occupant() {
                    occupant.interrupt().await;
                }
                Ok(())
            }
            Due::GiveUp(end) => self.end_run(end, false, Vec::new()).await,
        }
    }

    /// Asks the agent to stop; deadlines do the rest. Another gateway goes on with that.
    pub(super) async fn begin_stop(&mut self, end: End) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.is_paused() {
            let agent_is_idle = run.rests();
            return self.end_run(end, agent_is_idle, Vec::new()).await;
        }
        if run.stop(end) { self.interrupt().await } else { Ok(()) }
    }

    /// A model has answered: the task may have cost its budget by that.
    pub(super) async fn meter(&mut self, call: &Metered) -> Result<(), Lost> {
        let over = self.run.as_mut().and_then(|run| run.meter(call));
        self.keep_budget(over).await
    }

    /// Stops the run if it is `over` its budget.
    async fn keep_budget(&mut self, over: Option<End>) -> Result<(), Lost> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(end) = over else { return self.note_run().await };
        if run.is_paused() {
            // Nothing was to be spent while nobody has said so.
            return self.end_run(end, false, Vec::new()).await;
        }
        let stops = if run.asks_for_more() { run.pause(end) } else { run.stop(end) };
        if stops { self.interrupt().await } else { Ok(()) }
    }

    /// Has the journal know what the run has cost, before the agent makes much of it, and how long it has worked: a
    /// gateway that dies must not forget that. While the journal is away, what is published next says it.
    pub(super) async fn note_run(&mut self) -> Result<(), Lost> {
        self.noted_at = Instant::now();
        let task = self.run.as_ref().map(|run| run.task);
        if self.parts.hub.journal().is_available() {
            self.publish(task, &[], Vec::new()).await?;
        }
        Ok(())
    }

    /// The agent's model is reached through the next gateway from now on: what it has cost here goes there with the
    /// run.
    pub(super) async fn hand_over_bill(&mut self) -> Result<(), Lost> {
        let (Some(occupant), Some(run)) = (self.seat.occupant(), &mut self.run) else { return Ok(()) };
        let over = occupant.close_channel().await.iter().filter_map(|call| run.meter(call)).last();
        self.keep_budget(over).await
    }

    /// Has the agent stop, which its run is about to.
    pub(super) async fn interrupt(&mut self) -> Result<(), Lost> {
        let Some(run) = &self.run else { return Ok(()) };
        let (task, id) = (run.task, interrupt_id(run.task, run.grants()));
        if let Some(occupant) = self.seat.occupant() {
            occupant.rest(); // What stops it costs nothing more.
        }
        // While the journal is away the agent stops all the same.
        let noted = if self.parts.hub.journal().is_available() {
            Some(self.publish(Some(task), &[], Vec::new()).await?)
        } else {
            None
        };
        // One that takes no more input is stopped by the deadlines.
        self.tell(&id, &AgentCommand::Interrupt, noted.as_ref());
        Ok(())
    }

    /// Counts what the model has answered by now and nobody has heard of.
    pub(super) async fn settle_bill(&mut self) {
        if let (Some(occupant), Some(run)) = (self.seat.occupant(), &mut self.run) {
            for call in occupant.rest_of_the_bill().await {
                run.meter(&call);
            }
        }
    }

    /// Makes sure that nothing of the agent runs. `false`: nobody can do that now.
    async fn silence(&mut self) -> Result<bool, Lost> {
        let Some(occupant) = self.seat.occupant() else { return Ok(true) };
        if occupant.kill().await {
            return Ok(true);
        }
        // Its shim does not do it, or says that another gateway holds it, which an agent can make it say: then the
        // box goes, if the session is still ours.
        let ours = self.publish(None, &[], Vec::new()).await?;
        let hard = self.parts.hard.clone();
        tokio::select! {
            committed = ours.committed() => if committed.is_err() {
                return Err(Lost);
            },
            () = hard.cancelled() => return Err(Lost),
        }
        match self.seat.occupant() {
            Some(occupant) => Ok(occupant.remove().await),
            None => Ok(true),
        }
    }

    /// Ends the run: makes sure that nothing of it is left running (G8), then publishes `events`, which came
    /// before, and its end. A box that is of no more use goes once that has committed.
    pub(super) async fn end_run(&mut self, end: End, agent_is_idle: bool, mut events: Vec<Event>) -> Result<(), Lost> {
        let may_live = match self.seat.occupant() {
            // What a stopped or failed tool left running goes with its agent.
            Some(occupant) if !matches!(end, End::Completed { .. }) => {
                agent_is_idle && !occupant.has_stragglers().await
            }
            _ => agent_is_idle,
        };
        if !may_live && !self.silence().await? {
            // Nobody may say that it has stopped: another try follows.
            self.show(&mut events).await?;
            if let Some(run) = &mut self.run {
                run.stop_later(end);
            }
            return Ok(());
        }
        if let Some(occupant) = self.seat.occupant() {
            occupant.rest();
        }
        self.settle_bill().await;
        self.recall().await?;
        let mut effects = self.effects_of(&events);
        let Some(mut run) = self.run.take() else { return Ok(()) };
        effects.push(run.end(&end, &mut events));
        effects.extend(self.end_with(run.mode()));
        let receipt = self.publish(Some(run.task), &events, effects).await?;
        if !may_live {
            self.dismiss().await?;
        }
        info!(session.id = %self.session.id(), task.id = %run.task, state = %end.state(), "Task `{}` ended: {end}", run.task);
        for reply in run.cancelling.drain(..) {
            let _ = reply.send(Ok(Some((end.state(), receipt.clone()))));
        }
        self.ended = Some((run.task, end.state(), receipt));
        if let Some(occupant) = self.seat.occupant() {
            occupant.set_idle();
        }
        Ok(())
    }
}

/// Names the word that stops a task's agent: once, and once more each time it was let spend more.
pub(super) fn interrupt_id(task: TaskId, grants: u32) -> String {
    if grants == 0 { format!("{task}/interrupt") } else { format!("{task}/interrupt/{grants}") }
}

/// What people read when an agent died.
fn exit_error(exit: &Exit) -> String {
    match exit {
        Exit { damaged: Some(why), .. } => why.clone(),
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
