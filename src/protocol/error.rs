//! What clients hear when something can't be done: error codes, error frames, close codes.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::RequestId;
use crate::domain::{Seq, SessionId, TaskId};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident;)+) => {
        /// What went wrong, for programs. Source: docs/protocol.md §4.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
        pub enum ErrorCode { $($(#[$doc])* #[serde(rename = $text)] $name,)+ }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as the wire spells it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

error_codes! {
    /// No or bad credential.
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED;
    /// Authenticated, but not allowed.
    Forbidden = "FORBIDDEN", FORBIDDEN;
    /// Not a JSON object in a text frame.
    InvalidJson = "INVALID_JSON", BAD_REQUEST;
    /// The frame's `type` is not one of ours.
    UnknownType = "UNKNOWN_TYPE", BAD_REQUEST;
    /// A field is missing, empty, too long or of the wrong type; `details` names each.
    ValidationFailed = "VALIDATION_FAILED", UNPROCESSABLE_ENTITY;
    /// No such task, profile or file.
    NotFound = "NOT_FOUND", NOT_FOUND;
    /// No such session, or not yours.
    SessionNotFound = "SESSION_NOT_FOUND", NOT_FOUND;
    /// The session has ended.
    SessionClosed = "SESSION_CLOSED", CONFLICT;
    /// The cursor is beyond the last event.
    CursorAhead = "CURSOR_AHEAD", CONFLICT;
    /// The request contradicts what is already so.
    Conflict = "CONFLICT", CONFLICT;
    /// Too many frames or requests.
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS;
    /// Too many waiting tasks, or sessions followed.
    QueueFull = "QUEUE_FULL", TOO_MANY_REQUESTS;
    /// Too many connections.
    TooManyConnections = "TOO_MANY_CONNECTIONS", TOO_MANY_REQUESTS;
    /// A prompt or body is over its limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// No container to be had now.
    Capacity = "CAPACITY", SERVICE_UNAVAILABLE;
    /// The journal can't commit; nothing was accepted.
    StorageUnavailable = "STORAGE_UNAVAILABLE", SERVICE_UNAVAILABLE;
    /// Ours; the message holds an id that is in the log.
    InternalError = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR;
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Detail {
    /// The field's name; `a.b` for a field in a field.
    pub field: String,
    /// What it must be.
    pub problem: String,
}

/// An error as clients get it: `{"type":"error","code":…,"message":…}`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ErrorFrame {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened and what to do.
    pub message: String,
    /// The frame that this answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The session it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The task it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// When trying again makes sense, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The session's last event, for `CURSOR_AHEAD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<Seq>,
    /// What is wrong with each field, for `VALIDATION_FAILED`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

impl ErrorFrame {
    /// An error with its code and its words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            request_id: None,
            session_id: None,
            task_id: None,
            retry_after_ms: None,
            last_seq: None,
            details: Vec::new(),
        }
    }

    /// `VALIDATION_FAILED` for the fields named.
    pub fn invalid(details: Vec<Detail>) -> Self {
        let named: Vec<String> =
            details.iter().map(|detail| format!("`{}` {}", detail.field, detail.problem)).collect();
        Self { details, ..Self::new(ErrorCode::ValidationFailed, named.join("; ")) }
    }

    /// `VALIDATION_FAILED` for one field.
    pub fn invalid_field(field: &str, problem: &str) -> Self {
        Self::invalid(vec![Detail { field: field.to_owned(), problem: problem.to_owned() }])
    }

    /// `SESSION_NOT_FOUND`, the same for "not there" and "not yours" (G10).
    pub fn session_not_found() -> Self {
        Self::new(ErrorCode::SessionNotFound, "no such session; check `session_id`, or start one with `session.start`")
    }

    /// `NOT_FOUND` for a task, the same for "not there" and "not yours" (G10).
    pub fn task_not_found() -> Self {
        Self::new(ErrorCode::NotFound, "no such task; check `task_id`")
    }

    /// `STORAGE_UNAVAILABLE`: nothing was accepted.
    pub fn storage_unavailable() -> Self {
        Self::new(
            ErrorCode::StorageUnavailable,
            "the journal can't commit now, nothing was accepted; try again shortly",
        )
        .retry_after(1_000)
    }

    /// Echoes the request that this answers.
    pub fn answering(mut self, request_id: Option<RequestId>) -> Self {
        self.request_id = request_id;
        self
    }

    /// Names the session it is about.
    pub fn about_session(mut self, session: SessionId) -> Self {
        self.session_id = Some(session);
        self
    }

    /// Names the task it is about.
    pub fn about_task(mut self, task: TaskId) -> Self {
        self.task_id = Some(task);
        self
    }

    /// Says when trying again makes sense.
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

/// Why the server closes a socket. Ranges tell a client that doesn't know a code what to do:
/// 40xx don't retry unchanged, 41xx back off, 42xx resume at once. Source: docs/protocol.md §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: the client asked.
    Normal,
    /// 1012: the server drains; resume, jittered.
    Restart,
    /// 1002: not WebSocket.
    Protocol,
    /// 1003: a flood of binary frames.
    Unsupported,
    /// 1007: text that is not UTF-8.
    BadUtf8,
    /// 1009: a frame over its limit.
    TooBig,
    /// 1011: ours.
    Internal,
    /// 1013: the credential can't be checked now.
    TryLater,
    /// 4001: bad, expired or revoked credential.
    Unauthorized,
    /// 4003: the origin is not on the list.
    OriginRefused,
    /// 4100: too many frames for too long.
    Flooding,
    /// 4102: the socket made no progress.
    SlowConsumer,
    /// 4103: no sign of life.
    NoPong,
    /// 4104: too many connections.
    TooManyConnections,
    /// 4200: the connection's maximum age.
    MaxAge,
}

impl CloseCode {
    /// Every code there is.
    pub const ALL: [Self; 15] = [
        Self::Normal,
        Self::Protocol,
        Self::Unsupported,
        Self::BadUtf8,
        Self::TooBig,
        Self::Internal,
        Self::Restart,
        Self::TryLater,
        Self::Unauthorized,
        Self::OriginRefused,
        Self::Flooding,
        Self::SlowConsumer,
        Self::NoPong,
        Self::TooManyConnections,
        Self::MaxAge,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::BadUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::TryLater => 1013,
            Self::Unauthorized => 4001,
            Self::OriginRefused => 4003,
            Self::Flooding => 4100,
            Self::SlowConsumer => 4102,
            Self::NoPong => 4103,
            Self::TooManyConnections => 4104,
            Self::MaxAge => 4200,
        }
    }

    /// The word in the close reason.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Protocol => "protocol_error",
            Self::Unsupported => "binary_refused",
            Self::BadUtf8 => "bad_utf8",
            Self::TooBig => "frame_too_big",
            Self::Internal => "internal_error",
            Self::Restart => "restart",
            Self::TryLater => "try_later",
            Self::Unauthorized => "unauthorized",
            Self::OriginRefused => "origin_refused",
            Self::Flooding => "flooding",
            Self::SlowConsumer => "slow_consumer",
            Self::NoPong => "no_pong",
            Self::TooManyConnections => "too_many_connections",
            Self::MaxAge => "max_age",
        }
    }

    /// When to come back, in milliseconds, for codes that ask for patience. Callers add jitter.
    pub const fn retry_after_ms(self) -> Option<u64> {
        match self {
            Self::Restart | Self::MaxAge => Some(500),
            Self::TryLater | Self::Internal | Self::SlowConsumer | Self::NoPong => Some(1_000),
            Self::Flooding | Self::TooManyConnections => Some(5_000),
            _ => None,
        }
    }

    /// The close reason: compact JSON of at most 123 bytes (RFC 6455 §5.5).
    pub fn reason(self, retry_after_ms: Option<u64>) -> String {
        match retry_after_ms {
            Some(wait) => format!(r#"{{"code":"{}","retry_after_ms":{wait}}}"#, self.word()),
            None => format!(r#"{{"code":"{}"}}"#, self.word()),
        }
    }
}
