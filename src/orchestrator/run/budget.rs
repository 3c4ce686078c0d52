//! What becomes of a task that has cost its budget: it fails, or the user is asked whether it may cost more.
//!
//! To ask, the agent is stopped first, as if its turn had been cancelled: nothing is spent while nobody answers,
//! however long that takes. The question is the gateway's own, in the shape of an agent's.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::super::invariants::{Note, OpenAsk};
use super::{End, Phase, Run};
use crate::agent::{ASK_TOOL, AgentEvent};
use crate::config::OnBudget;
use crate::domain::AskId;
use crate::protocol::event::{Question, QuestionOption};
use crate::protocol::reply::raw_json;
use crate::protocol::{Answer, Event};
use crate::proxy::Metered;

const GO_ON: &str = "Go on";
const STOP: &str = "Stop";

/// How far a run is with its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in super::super) struct Budget {
    /// How often more was granted.
    grants: u32,
    /// What it may cost since then, in US dollars.
    limit_usd: Option<f64>,
    /// Whether the agent is being stopped so that the user can be asked.
    pausing: bool,
    /// The question that waits for an answer. What an agent asks in the same words is not this.
    asked: Option<AskId>,
    /// Whether the agent has done something since it was put, though it had stopped.
    restless: bool,
}

/// What an answer is to lead to.
pub(in super::super) enum Verdict {
    /// It is for the agent.
    Pass,
    /// The agent is to go on.
    GoOn,
    /// The run ends.
    End(End),
}

impl Budget {
    /// How often more was granted.
    pub(in super::super) const fn grants(self) -> u32 {
        self.grants
    }

    pub(super) const fn is_pausing(self) -> bool {
        self.pausing
    }

    pub(super) const fn asked(self) -> Option<AskId> {
        self.asked
    }

    /// Whether the agent is being stopped only to ask; no longer, from now on.
    pub(super) const fn gives_way(&mut self) -> bool {
        std::mem::replace(&mut self.pausing, false)
    }
}

impl Run {
    /// Takes into account what a call of its model used. Returns how it ends, if that was too much.
    pub(in super::super) fn meter(&mut self, call: &Metered) -> Option<End> {
        self.bill.meter(call);
        self.over_budget()
    }

    /// Whether the user is asked before the task fails for its cost.
    pub(in super::super) const fn asks_for_more(&self) -> bool {
        matches!(self.allowance.on_budget, OnBudget::Ask)
    }

    /// Whether its agent has nothing to do until the user has said that the task may cost more.
    pub(in super::super) const fn is_paused(&self) -> bool {
        self.budget.asked.is_some()
    }

    /// Takes note that the agent does something, though it had stopped.
    pub(in super::super) const fn note_unrest(&mut self) {
        self.budget.restless = true;
    }

    /// Whether its agent has done nothing since the user was asked.
    pub(in super::super) const fn rests(&self) -> bool {
        !self.budget.restless
    }

    /// How often more was granted.
    pub(in super::super) const fn grants(&self) -> u32 {
        self.budget.grants
    }

    /// Begins to stop the agent, to ask the user then. Where it does not stop in time, or can't be asked, the run
    /// ends like this. `false`: it was being stopped.
    pub(in super::super) fn pause(&mut self, end: End) -> bool {
        match self.phase {
            Phase::Stopping { .. } => return false,
            Phase::Working { since } => self.worked += since.elapsed(),
            Phase::Asking { .. } => (),
        }
        self.phase = Phase::stopping(end);
        self.budget.pausing = true;
        true
    }

    /// Asks, now that the agent has stopped. Returns how the run ends, if nobody can be asked.
    pub(in super::super) fn ask_for_more(&mut self, events: &mut Vec<Event>) -> Option<End> {
        let end = self.over_budget().unwrap_or_else(refused);
        if let Phase::Working { since } = self.phase {
            self.worked += since.elapsed();
        }
        self.phase = Phase::Working { since: Instant::now() };
        self.budget.pausing = false;
        self.withdrawn.extend(self.shape.open_asks().iter().map(|open| open.ask_id));
        self.shape.close_open_tools("interrupted", events);
        let question = self.question();
        let id = format!("budget/{}", self.budget.grants + 1);
        let input = raw_json(&json!({ "questions": [question] }));
        self.shape.take(AgentEvent::ToolUse { id: id.clone(), tool: ASK_TOOL.to_owned(), input }, events);
        match self.shape.take(AgentEvent::Ask { id, questions: vec![question] }, events) {
            Some(Note::Asked(ask)) => {
                (self.budget.asked, self.budget.restless) = (Some(ask), false);
                None
            }
            _ => Some(end), // It has made too many tool calls already.
        }
    }

    fn question(&self) -> Question {
        let option = |label: &str, description: String| QuestionOption {
            label: label.to_owned(),
            description: Some(description),
        };
        let (spent, limit) = (rounded(self.bill.spent()), rounded(self.limit()));
        let more = rounded(self.allowance.max_budget_usd.unwrap_or_default());
        Question {
            question: format!("The task has cost {spent} USD and was to cost {limit} USD. May it go on?"),
            header: Some("Budget".to_owned()),
            options: vec![
                option(GO_ON, format!("for {more} USD more")),
                option(STOP, "the task ends as failed".to_owned()),
            ],
            multi_select: false,
        }
    }

    /// What the answer to a question that was open leads to. One to the gateway's own closes its tool call.
    pub(in super::super) fn settle(&mut self, open: &OpenAsk, answer: &Answer, events: &mut Vec<Event>) -> Verdict {
        if self.budget.asked != Some(open.ask_id) {
            return Verdict::Pass;
        }
        let end = self.no_more();
        self.budget.asked = None;
        let said = match answer {
            Answer::Text(text) => Some(text),
            Answer::PerQuestion(answers) => answers.values().next(),
        };
        let goes_on = said.is_some_and(|said| said.trim().eq_ignore_ascii_case(GO_ON));
        let output = if goes_on { GO_ON } else { STOP }.to_owned();
        self.shape.take(AgentEvent::ToolResult { id: open.tool_id.clone(), output, is_error: false }, events);
        if goes_on {
            let more = self.allowance.max_budget_usd.unwrap_or_default();
            self.budget.limit_usd = Some(self.bill.spent().max(self.limit()) + more);
            self.budget.grants += 1;
            return Verdict::GoOn;
        }
        // A price that was changed meanwhile is no reason to go on.
        let end = end.unwrap_or_else(refused);
        // Set already: after a crash it is not to be waited for.
        self.phase = Phase::stopping(end.clone());
        Verdict::End(end)
    }

    /// How the run ends if nobody says that it may cost more; `None` if nobody is asked.
    pub(super) fn no_more(&self) -> Option<End> {
        self.over_budget().filter(|_| self.is_paused())
    }

    /// How the run ends, if it has cost too much.
    pub(super) fn over_budget(&self) -> Option<End> {
        let (spent, limit) = (self.bill.spent(), self.limit());
        let over = self.allowance.max_budget_usd.is_some() && spent >= limit;
        over.then(|| {
            let (spent, limit) = (rounded(spent), rounded(limit));
            End::failed(format!("budget: the task has cost {spent} USD, its limit is {limit} USD"), false)
        })
    }

    /// What it may cost by now, in US dollars.
    fn limit(&self) -> f64 {
        self.budget.limit_usd.or(self.allowance.max_budget_usd).unwrap_or_default()
    }
}

/// How a run ends that is within a budget which was changed meanwhile.
fn refused() -> End {
    End::failed("budget: it was not to cost more", false)
}

/// US dollars as people read them.
fn rounded(usd: f64) -> f64 {
    (usd * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests;
