//! What has to be known to go on with an agent after a restart of the gateway; in small lists that can't grow.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::elicitation::Field;
use super::wire::PermissionOption;
use crate::agent::Process;

/// How much of each list is kept, in bytes of JSON. Together with the rest they stay below the 48 KiB that an
/// adapter's state may have.
const TOOLS_BYTES: usize = 16 << 10;
const ASKED_BYTES: usize = 16 << 10;
const REPLIES_BYTES: usize = 8 << 10;

/// What an adapter has to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// The agent's name for the conversation; it outlives the agent's process.
    pub(super) session: Option<String>,
    /// The prompt that the session's system prompt went with, for agents that take it no other way.
    pub(super) introduced_by: Option<String>,
    /// What the session has cost so far, as the agent says.
    pub(super) cost: f64,
    pub(super) agent: Traits,
    pub(super) phase: Phase,
    /// While a session that was loaded may still repeat itself.
    pub(super) replay: Option<Replay>,
    /// A digest of the settings that the agent's session was opened with.
    pub(super) settings: String,
    pub(super) turn: TurnState,
    /// The tool calls of the running turn and of those before it, oldest first.
    pub(super) tools: Vec<Tool>,
    /// What the agent asked and waits for, or was told in this turn, oldest first.
    pub(super) asked: Vec<Asked>,
    /// What it was told in this turn besides commands, by id.
    pub(super) replies: Vec<(String, String)>,
}

/// How far the agent has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing has been said.
    #[default]
    Silent,
    /// `initialize` is on its way, under this id.
    Initializing(String),
    /// It has said what it can.
    Initialized,
    /// A session is being opened, under this id.
    Opening(String, Way),
    /// Its session's mode is being set, under this id and to this one.
    SettingMode(String, String),
    /// It takes prompts.
    Ready,
}

/// What a loaded session says of what was before, as far as it comes behind the answer to `session/load`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Replay {
    /// Something was heard since the mode was set last.
    pub(super) heard: bool,
    /// How often the mode was set again.
    pub(super) rounds: u32,
}

/// How a session is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Go on with the one before, which is not told again.
    Resume,
    /// Go on with the one before, which is told again first.
    Load,
    /// Begin one.
    New,
}

impl Way {
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Resume => "session/resume",
            Self::Load => "session/load",
            Self::New => "session/new",
        }
    }
}

/// What matters of what the agent said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Traits {
    /// It is claude-agent-acp: takes a session's settings in `_meta`, counts costs per process.
    pub(super) claude: bool,
    pub(super) resume: bool,
    pub(super) load: bool,
}

/// A task, over all its continuations, and its prompt at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TurnState {
    /// The command that it began with.
    pub(super) task: String,
    /// How often it has been continued.
    pub(super) continuations: u32,
    /// The prompt whose end is still to come.
    pub(super) prompt: Option<String>,
    /// It is to stop.
    pub(super) interrupted: bool,
    /// A permission was refused.
    pub(super) refused: bool,
    /// What single model calls used, for agents that say it of each.
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) model_calls: u32,
    /// What the session had cost when the prompt was given.
    pub(super) cost_before: f64,
    /// Whether the agent has told a cost since.
    pub(super) cost_told: bool,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tool {
    pub(super) id: String,
    pub(super) life: Life,
    /// Its name, once that is known and until it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// What has been told of a tool call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    /// Nothing: its input is still to come.
    #[default]
    Seen,
    /// That it was made.
    Open,
    /// That it is over.
    Closed,
    /// It is a matter of an earlier prompt.
    Old,
}

/// Something that the agent asked and that was put to the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// The agent's request, as JSON.
    pub(super) request: String,
    /// The tool call that asks.
    pub(super) tool: String,
    /// Whether that is a call that the agent knows nothing of.
    pub(super) ours: bool,
    pub(super) about: About,
    /// The command that answered it.
    #[serde(default)]
    pub(super) answered_by: Option<String>,
}

/// What an agent may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum About {
    /// Whether it may use a tool.
    Permission(Vec<PermissionOption>),
    /// What to fill into a form.
    Form(Vec<Field>),
}

impl State {
    /// What the adapter before knew, as far as it holds for `process`.
    pub(super) fn read(state: &Value, process: Process) -> Self {
        let known: Self = serde_json::from_value(state.clone()).unwrap_or_default();
        match process {
            Process::Known => known,
            Process::New => Self {
                session: known.session,
                introduced_by: known.introduced_by,
                cost: if known.agent.claude { 0.0 } else { known.cost },
                ..Self::default()
            },
        }
    }

    /// Keeps a tool call, at the cost of the oldest.
    pub(super) fn add_tool(&mut self, tool: Tool) {
        self.tools.push(tool);
        while bytes(&self.tools) > TOOLS_BYTES {
            let over = self.tools.iter().position(|tool| matches!(tool.life, Life::Closed | Life::Old));
            self.tools.remove(over.unwrap_or(0));
        }
    }

    /// Keeps what was asked, at the cost of the oldest that has been answered. `false`: there is no room.
    pub(super) fn add_asked(&mut self, asked: Asked) -> bool {
        self.asked.push(asked);
        while bytes(&self.asked) > ASKED_BYTES {
            let Some(answered) = self.asked.iter().position(|asked| asked.answered_by.is_some()) else {
                self.asked.pop();
                return false;
            };
            self.asked.remove(answered);
        }
        true
    }

    /// Keeps what the agent was told, at the cost of the oldest.
    pub(super) fn add_reply(&mut self, id: &str, text: &str) {
        self.replies.push((id.to_owned(), text.to_owned()));
        while bytes(&self.replies) > REPLIES_BYTES {
            self.replies.remove(0);
        }
    }

    /// A prompt begins: what was before it is over.
    pub(super) fn begin_prompt(&mut self, id: &str) {
        self.turn = TurnState {
            task: std::mem::take(&mut self.turn.task),
            continuations: self.turn.continuations,
            prompt: Some(id.to_owned()),
            cost_before: self.cost,
            ..TurnState::default()
        };
        for tool in &mut self.tools {
            (tool.life, tool.name) = (Life::Old, None);
        }
    }
}

fn bytes(list: &impl Serialize) -> usize {
    serde_json::to_string(list).map_or(usize::MAX, |json| json.len())
}
