//! Session events: what is journalled, numbered and shown.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::FrameText;
use crate::domain::{AskId, Audience, ContainerId, Seq, SessionId, TaskId, Timestamp, Usage};

/// What opens a link placeholder: this, a file's percent-encoded path in the workspace, and
/// [`LINK_CLOSE`] stand in a journalled `result_text` for the file's address, which is signed anew
/// at each delivery ([`super::link`]).
///
/// Nobody else can write one: polishing removes every U+0001 from an agent's text before it adds
/// its own, and no other event is searched for placeholders.
pub const LINK_OPEN: &str = "streamgate-file:\u{1}";
/// What ends a link placeholder.
pub const LINK_CLOSE: &str = "\u{1}";

/// One choice of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct QuestionOption {
    /// What the button says.
    pub label: String,
    /// What the choice means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// One question of an `AskUserQuestion`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct Question {
    /// The question's words; also its key in a structured answer.
    pub question: String,
    /// A word or two above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The choices; none for a free answer.
    #[serde(default)]
    pub options: Vec<QuestionOption>,
    /// Whether several may be chosen.
    #[serde(default, rename = "multiSelect", skip_serializing_if = "std::ops::Not::not")]
    pub multi_select: bool,
}

/// Something that happened in a session. Fields are as on the wire; `type`, `seq`, `ts`,
/// `session_id` and `task_id` are added by [`Event::encode`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(!untagged, tag = "type")]
pub enum Event {
    /// **[x]** A prompt was accepted.
    #[schemars(rename = "user.message")]
    UserMessage {
        /// The prompt.
        text: String,
    },
    /// **[x]** A task waits; 0 = next.
    #[schemars(rename = "task:queued")]
    TaskQueued {
        /// How many tasks of the session go first.
        position: usize,
    },
    /// **[x]** A task's turn begins.
    #[schemars(rename = "task:started")]
    TaskStarted {
        /// Where.
        container_id: ContainerId,
        /// What the container is called.
        container_name: String,
    },
    /// A chunk of the model's text.
    #[schemars(rename = "task:token")]
    Token {
        /// The chunk.
        text: String,
        /// Whether it was cut at the event limit.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// The agent called a tool.
    #[schemars(rename = "task:tool_use")]
    ToolUse {
        /// The tool's name.
        tool: String,
        /// Its arguments.
        #[schemars(with = "serde_json::Value")]
        input: Box<RawValue>,
        /// What its result will carry too.
        tool_use_id: String,
        /// Whether the input was cut at the event limit: it is then `{"truncated": "<its beginning>"}`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// A tool's result.
    #[schemars(rename = "task:tool_result")]
    ToolResult {
        /// The tool's name.
        tool: String,
        /// What it put out.
        output: String,
        /// Which use it answers.
        tool_use_id: String,
        /// Whether the tool failed.
        is_error: bool,
        /// Whether the output was cut at the event limit.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// The agent asks the user.
    #[schemars(rename = "task:ask_user")]
    AskUser {
        /// Names the question in `task.answer`.
        ask_id: AskId,
        /// The questions.
        questions: Vec<Question>,
    },
    /// **[x]** A question was answered.
    #[schemars(rename = "task:answered")]
    Answered {
        /// Which.
        ask_id: AskId,
        /// With what: text, or an object question → answer.
        #[schemars(with = "super::Answer")]
        answer: Box<RawValue>,
    },
    /// **admins** The system prompt of this turn.
    #[schemars(rename = "task:system_prompt")]
    SystemPrompt {
        /// The whole prompt.
        prompt: String,
    },
    /// The orchestrator continues an agent that stopped at its turn limit.
    #[schemars(rename = "turn.continuing")]
    TurnContinuing {
        /// 1 for the first continuation.
        continuation: u32,
        /// After which no more follow.
        max_continuations: u32,
    },
    /// The end of a turn.
    #[schemars(rename = "turn.done")]
    TurnDone {
        /// All the text of the turn, polished; links to files are placeholders here and signed when shown.
        result_text: String,
        /// Whether the text was cut at the event limit.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
        /// Summed over continuations.
        #[serde(flatten)]
        usage: Usage,
        /// Whether the agent told the cost.
        cost_known: bool,
        /// Model calls of this turn.
        num_turns: u32,
        /// From start to end, questions included, in milliseconds.
        duration_ms: u64,
        /// Why it ended: `end_turn`, `max_turns` or `cancelled`; more may come.
        stop_reason: &'static str,
    },
    /// A task ended as `completed` or `cancelled`.
    #[schemars(rename = "task:done")]
    TaskDone {
        /// How.
        #[schemars(with = "crate::domain::TaskState")]
        status: &'static str,
    },
    /// A task ended by an error.
    #[schemars(rename = "task:failed")]
    TaskFailed {
        /// The cause, in words.
        error: String,
        /// Whether the same prompt may succeed later.
        retryable: bool,
        /// Summed until then.
        #[serde(flatten)]
        usage: Usage,
    },
    /// **[x]** The session ended.
    #[schemars(rename = "session.closed")]
    SessionClosed {
        /// Why: `ended` (somebody ended it), `batch_done` or `no_container`; more may come.
        reason: String,
    },
}

/// What every session event carries besides its own fields.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Envelope<'a> {
    #[schemars(skip)] // Each event says its own.
    r#type: &'static str,
    /// Its place in the session.
    seq: Seq,
    /// When it happened.
    ts: Timestamp,
    /// Whose it is.
    session_id: SessionId,
    /// The task that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
    #[serde(flatten)]
    event: &'a Event,
}

impl Event {
    /// The `type` on the wire.
    pub const fn wire_type(&self) -> &'static str {
        match self {
            Self::UserMessage { .. } => "user.message",
            Self::TaskQueued { .. } => "task:queued",
            Self::TaskStarted { .. } => "task:started",
            Self::Token { .. } => "task:token",
            Self::ToolUse { .. } => "task:tool_use",
            Self::ToolResult { .. } => "task:tool_result",
            Self::AskUser { .. } => "task:ask_user",
            Self::Answered { .. } => "task:answered",
            Self::SystemPrompt { .. } => "task:system_prompt",
            Self::TurnContinuing { .. } => "turn.continuing",
            Self::TurnDone { .. } => "turn.done",
            Self::TaskDone { .. } => "task:done",
            Self::TaskFailed { .. } => "task:failed",
            Self::SessionClosed { .. } => "session.closed",
        }
    }

    /// Who may see it.
    pub const fn audience(&self) -> Audience {
        match self {
            Self::UserMessage { .. }
            | Self::TaskQueued { .. }
            | Self::TaskStarted { .. }
            | Self::Answered { .. }
            | Self::SessionClosed { .. } => Audience::Extended,
            Self::SystemPrompt { .. } => Audience::Privileged,
            Self::Token { .. }
            | Self::ToolUse { .. }
            | Self::ToolResult { .. }
            | Self::AskUser { .. }
            | Self::TurnContinuing { .. }
            | Self::TurnDone { .. }
            | Self::TaskDone { .. }
            | Self::TaskFailed { .. } => Audience::Document,
        }
    }

    /// Encodes the frame, once and for everybody.
    pub fn encode(&self, seq: Seq, ts: Timestamp, session: SessionId, task: Option<TaskId>) -> StoredEvent {
        let envelope = Envelope { r#type: self.wire_type(), seq, ts, session_id: session, task_id: task, event: self };
        #[expect(clippy::expect_used, reason = "these types have string keys only and can't fail to encode")]
        let frame = serde_json::to_string(&envelope).expect("an event encodes");
        let has_links = match self {
            Self::TurnDone { result_text, .. } => result_text.contains(LINK_OPEN),
            _ => false,
        };
        StoredEvent { seq, audience: self.audience(), has_links, frame: FrameText::from(frame) }
    }
}

/// An event as the journal keeps it and as every viewer shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the session.
    pub seq: Seq,
    /// Who may see it.
    pub audience: Audience,
    /// Whether the frame holds link placeholders to be filled in on delivery.
    pub has_links: bool,
    /// The whole frame as it goes over the wire.
    pub frame: FrameText,
}
