//! Frames about the connection: direct replies, replay marks, state. None is journalled, none has a `seq`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::event::Question;
use super::{ErrorFrame, FrameText, RequestId};
use crate::domain::{AskId, ContainerId, Priority, ProfileId, Seq, SessionId, SessionStatus, TaskId, TaskState, Usage};

/// A task as `session.state` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TaskSummary {
    /// Which.
    pub task_id: TaskId,
    /// Where it is in its life.
    pub status: TaskState,
    /// Its place in line.
    pub priority: Priority,
}

/// The open question of a session, as `session.state` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PendingAsk {
    /// Names it in `task.answer`.
    pub ask_id: AskId,
    /// Who asks.
    pub task_id: TaskId,
    /// What is asked.
    pub questions: Vec<Question>,
}

/// What the server sends that is not a session event.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum ServerFrame {
    /// A session was created.
    #[serde(rename = "session.ready")]
    SessionReady {
        /// Echo.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
        /// The new session.
        session_id: SessionId,
        /// Its container, which is up.
        container_id: ContainerId,
        /// What the container is called.
        container_name: String,
        /// Its profile.
        profile_id: ProfileId,
        /// The task, when a `task.submit` created the session.
        #[serde(skip_serializing_if = "Option::is_none")]
        task_id: Option<TaskId>,
    },
    /// A replay begins.
    #[serde(rename = "session.replay_start")]
    ReplayStart {
        /// Echo.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
        /// Which session.
        session_id: SessionId,
        /// The replay holds what follows this.
        after_seq: Seq,
        /// And ends here.
        last_seq: Seq,
    },
    /// A replay ended; live events follow.
    #[serde(rename = "session.replay_end")]
    ReplayEnd {
        /// Which session.
        session_id: SessionId,
        /// Where it ended.
        last_seq: Seq,
        /// Frames sent.
        count: u64,
    },
    /// **[x]** All that a UI needs on attach.
    #[serde(rename = "session.state")]
    State(Box<SessionState>),
    /// Done, and will not be lost.
    #[serde(rename = "ack")]
    Ack {
        /// Echo.
        request_id: RequestId,
        /// The session it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// The task it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        task_id: Option<TaskId>,
        /// The task's or the session's status.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'static str>,
        /// The task's place in line.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<usize>,
    },
    /// Reply to `ping`.
    #[serde(rename = "pong")]
    Pong {
        /// Echo.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<RequestId>,
        /// Per followed session, the last event sent on this connection.
        sessions: BTreeMap<SessionId, Seq>,
    },
    /// Something can't be done.
    #[serde(rename = "error")]
    Error(ErrorFrame),
}

/// The body of `session.state`, and of `GET /v1/sessions/{id}`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SessionState {
    /// Which session.
    pub session_id: SessionId,
    /// Whether it takes turns.
    pub status: SessionStatus,
    /// The task at work.
    pub task: Option<TaskSummary>,
    /// The tasks that wait, next first.
    pub queue: Vec<TaskSummary>,
    /// The oldest open question.
    pub pending_ask: Option<PendingAsk>,
    /// Summed over all turns.
    pub usage: Usage,
    /// The last event.
    pub last_seq: Seq,
    /// Which agent.
    pub profile_id: ProfileId,
    /// What its user calls it.
    pub title: Option<String>,
}

impl ServerFrame {
    /// Encodes the frame.
    #[expect(clippy::expect_used, reason = "these types have string keys only and can't fail to encode")]
    pub fn encode(&self) -> FrameText {
        FrameText::from(serde_json::to_string(self).expect("a reply encodes"))
    }
}

/// Makes raw JSON of a value that is known to encode.
#[expect(clippy::expect_used, reason = "the value came from JSON or holds string keys only")]
pub fn raw_json<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a JSON value encodes")
}
