//! One agent dialect: what an agent's stdout lines mean, and how to tell it things on stdin.
//!
//! Used by `orchestrator::run`, which owns the process, the clock and the order of events. An adapter
//! is pure, so a recorded transcript is a complete test.

pub mod demo;
pub mod native;

use serde_json::value::RawValue;

use crate::domain::{SessionId, TaskId, Usage};
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

/// What an agent did.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// It wrote text.
    Text(String),
    /// It called a tool.
    ToolUse {
        /// The agent's own name for this call; unique within the turn.
        id: String,
        /// The tool's name.
        tool: String,
        /// Its arguments: any JSON value.
        input: Box<RawValue>,
    },
    /// A tool came back.
    ToolResult {
        /// Which call.
        id: String,
        /// What the tool put out.
        output: String,
        /// Whether the tool failed.
        is_error: bool,
    },
    /// The tool call `id`, announced before, puts questions to the user and waits for
    /// [`AgentCommand::Answer`].
    Ask {
        /// Which call.
        id: String,
        /// What is asked; at least one.
        questions: Vec<Question>,
    },
    /// The agent stopped working and waits for the next command.
    Stopped {
        /// Why.
        reason: StopReason,
        /// What this run of the agent used.
        usage: Usage,
        /// Whether `usage.cost_usd` was told by the agent.
        cost_known: bool,
        /// Model calls.
        num_turns: u32,
    },
}

/// Why an agent stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It is done.
    EndTurn,
    /// It reached its turn limit and can be continued.
    MaxTurns,
    /// It acknowledges an interrupt.
    Interrupted,
    /// It failed, with its own words why.
    Error(String),
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub enum AgentCommand {
    /// Work on a prompt.
    Turn(Box<Turn>),
    /// Go on after [`StopReason::MaxTurns`].
    Continue,
    /// Stop; acknowledge with [`StopReason::Interrupted`].
    Interrupt,
    /// The user's answer to [`AgentEvent::Ask`].
    Answer {
        /// The tool call that asked.
        id: String,
        /// What was asked.
        questions: Vec<Question>,
        /// What the user said.
        answer: Answer,
    },
}

/// A prompt and its settings.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The session, for agents that keep conversations by name.
    pub session_id: SessionId,
    /// The task.
    pub task_id: TaskId,
    /// What the user wants.
    pub prompt: String,
    /// What the agent is told about itself.
    pub system_prompt: Option<String>,
    /// The tools it may use; all if absent.
    pub allowed_tools: Option<Vec<String>>,
    /// Model calls before it stops.
    pub max_turns: Option<u32>,
    /// Which model.
    pub model: Option<String>,
}

/// A line that is not of the dialect. It is logged and skipped; the run goes on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// One agent's stdio dialect. Pure: no I/O, clock or tasks.
pub trait Adapter: Send + Sync {
    /// Reads one stdout line (UTF-8, no newline), adding what it means to `events`.
    fn decode(&mut self, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError>;

    /// Writes `command` as stdin bytes, newline included.
    fn encode(&mut self, command: &AgentCommand, stdin: &mut Vec<u8>);
}

/// A new adapter for an agent that has just started.
pub fn adapter(kind: crate::config::AdapterKind) -> Box<dyn Adapter> {
    match kind {
        crate::config::AdapterKind::Native => Box::new(native::NativeAdapter::default()),
    }
}
