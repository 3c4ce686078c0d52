//! What is kept of a run with its session's row.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bill::Bill;
use super::run::{Budget, End};
use crate::domain::{AskId, TaskId};

/// What is known of a run besides what its events tell. Committed with them, so that another gateway, or this
/// one after a restart, can go on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RunState {
    pub(super) task: String,
    pub(super) continuation: u32,
    pub(super) bill: Bill,
    pub(super) budget: Budget,
    pub(super) num_turns: u32,
    pub(super) worked_ms: u64,
    /// Since the task's turn began, in milliseconds.
    pub(super) age_ms: u64,
    /// The agent's names of the tool calls that are open: what viewers know them by comes first.
    pub(super) tools: Vec<(String, String)>,
    /// The tool calls of questions, open or answered.
    pub(super) asks: Vec<(AskId, String)>,
    /// How it will end, when it is being stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopping: Option<End>,
    /// What the agent's adapter has to know, whatever task is at work.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) agent: Value,
}

impl RunState {
    /// Reads what a session's row holds.
    pub(super) fn read(json: Option<&str>) -> Self {
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    /// What of it is about `task`.
    pub(super) fn of(self, task: TaskId) -> Self {
        if self.task == task.to_string() { self } else { Self::default() }
    }

    /// What is to be known of a session whose agent has nothing to do, if there is anything.
    pub(super) fn idle(agent: Value) -> Option<String> {
        (!agent.is_null()).then(|| Self { agent, ..Self::default() }.text())
    }

    /// What the agent's adapter has to know.
    pub(super) fn agent(&self) -> &Value {
        &self.agent
    }

    pub(super) fn text(&self) -> String {
        // Texts and numbers: can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The agent's name of the tool call that puts a question.
    pub(super) fn tool_of(&self, ask: AskId) -> Option<&str> {
        self.asks.iter().find(|(id, _)| *id == ask).map(|(_, tool)| tool.as_str())
    }

    /// How often the agent has been told to go on.
    pub(super) fn continued(&self) -> u32 {
        self.continuation + self.budget.grants()
    }
}
