//! One agent dialect: what an agent's stdout lines mean, and how to tell it things on stdin.
//!
//! Used by `orchestrator::run`, which owns the process, the clock and the order of events. An adapter
//! is pure, so a recorded transcript is a complete test.

pub mod acp;
pub mod claude;
pub mod demo;
pub mod native;
#[cfg(test)]
mod transcript;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::{AdapterKind, PermissionPolicy};
use crate::domain::{SessionId, TaskId, Usage};
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

/// The tool whose use puts questions to the user.
pub(crate) const ASK_TOOL: &str = "AskUserQuestion";

/// Words by which people grant a permission.
const YES: [&str; 5] = ["yes", "y", "ok", "okay", "allow"];

/// Whether an answer to a request for permission grants it.
fn says_yes(answer: &str) -> bool {
    YES.iter().any(|yes| yes.eq_ignore_ascii_case(answer))
}

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
    /// It wants to hear something from its adapter at once, such as the answer to a request that is not the
    /// user's to give.
    Tell(Tell),
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

/// What is done so that an agent hears something. Each is done at most once in the life of an agent's process,
/// however often it is asked for: by its id, by whichever gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Start its program, with these arguments behind the profile's command. For dialects whose agents don't
    /// start with their box.
    Launch(Vec<String>),
    /// Write to its stdin.
    Write {
        /// Names what is written.
        id: String,
        /// What is written: whole lines, newlines included.
        text: String,
    },
}

/// What an adapter knows from the start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The session.
    pub session_id: SessionId,
    /// The directory that the agent works in, as it sees it; its home too.
    pub cwd: String,
    /// What becomes of the agent's requests for permission.
    pub permissions: PermissionPolicy,
    /// Whether the file that [`memory_file`] names is there.
    pub has_memory: bool,
}

/// One agent's stdio dialect. Pure: no I/O, clock or tasks.
///
/// Its state is committed with what it decoded, so another gateway can go on from there: it is given the lines
/// after the last committed one again, and has to make the same of them.
pub trait Adapter: Send + Sync {
    /// Whether the process that runs can take `turn`, or another one has to be started for it.
    fn fits(&self, _turn: &Turn) -> bool {
        true
    }

    /// Reads one stdout line (UTF-8, no newline), adding what it means to `events`.
    fn decode(&mut self, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError>;

    /// Adds to `tells` what makes the agent hear `command`. `id` names the command. After a restart of the gateway
    /// the commands of the task at work are given again, in order, under the ids they had: what they come to must
    /// then bear the ids that it bore.
    fn encode(&mut self, id: &str, command: &AgentCommand, tells: &mut Vec<Tell>);

    /// What has been told between commands and may not have been heard when a gateway died. Told again, before the
    /// commands of the task at work.
    fn tell_again(&self, _tells: &mut Vec<Tell>) {}

    /// Whether the agent is to be asked to end, by SIGINT, before its box is taken away: one that writes down what
    /// was said a moment later than it says it.
    fn saves_at_end(&self) -> bool {
        false
    }

    /// What has to be known to go on with this agent, or with another one in the same session: at most 48 KiB as
    /// JSON.
    fn state(&self) -> Value {
        Value::Null
    }
}

/// Whose words an adapter is to make sense of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Of a process that has not said anything yet.
    New,
    /// Of one that an earlier adapter has listened to; its state tells how far.
    Known,
}

/// An adapter for an agent, with the state of the one before it in the session: `null` if there was none.
pub fn adapter(kind: AdapterKind, setup: Setup, state: &Value, process: Process) -> Box<dyn Adapter> {
    match kind {
        AdapterKind::Acp => Box::new(acp::AcpAdapter::new(setup, state, process)),
        AdapterKind::Native => Box::new(native::NativeAdapter::default()),
        AdapterKind::Claude => Box::new(claude::ClaudeAdapter::new(setup, state, process)),
    }
}

/// Where an agent keeps a session's conversation, below the directory it works in, for dialects that must be told
/// whether there is one.
pub fn memory_file(kind: AdapterKind, session: SessionId, cwd: &str) -> Option<String> {
    match kind {
        AdapterKind::Acp | AdapterKind::Native => None,
        AdapterKind::Claude => Some(claude::memory_file(session, cwd)),
    }
}
