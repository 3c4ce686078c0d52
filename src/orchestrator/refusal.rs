//! Why something was not done, and what clients hear about it.

use tracing::error;
use uuid::Uuid;

use crate::database::DatabaseError;
use crate::protocol::{ErrorCode, ErrorFrame};

/// Why the orchestrator did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such session, or not theirs.
    #[error("no such session")]
    SessionNotFound,
    /// No such task, or not theirs.
    #[error("no such task")]
    TaskNotFound,
    /// No such profile.
    #[error("no such profile")]
    ProfileNotFound,
    /// The profile is for other roles.
    #[error("the profile is for other roles")]
    ProfileForbidden,
    /// A budget was set for what has no price.
    #[error("a budget without a price")]
    NoPrice,
    /// An admin asked for what only the owner may do.
    #[error("only the owner may do this")]
    NotYours,
    /// The session has ended.
    #[error("the session has ended")]
    SessionClosed,
    /// The session has another profile.
    #[error("the session has another profile")]
    OtherProfile,
    /// `on_busy: reject`, and it is.
    #[error("the session is at work")]
    Busy,
    /// The key came with another body before.
    #[error("the idempotency key was used for something else")]
    KeyReused,
    /// Nobody asked.
    #[error("no open question")]
    NothingAsked,
    /// Somebody answered first.
    #[error("the question has another answer")]
    AnsweredOtherwise,
    /// Too many tasks wait.
    #[error("{0} tasks wait already")]
    QueueFull(&'static str, usize),
    /// Too many commands wait for the session.
    #[error("the session has too much to do")]
    Overloaded,
    /// No container to be had.
    #[error("no container: {0}")]
    NoContainer(String),
    /// The database is away.
    #[error("the journal can't commit")]
    Storage,
    /// The session changed hands while it was asked.
    #[error("the session changed hands")]
    Interrupted,
    /// Another gateway owns the session.
    #[error("another gateway owns the session")]
    Elsewhere,
    /// The gateway ends.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// Ours.
    #[error("{0}")]
    Internal(String),
}

impl From<DatabaseError> for Refusal {
    fn from(cause: DatabaseError) -> Self {
        if let DatabaseError::Corrupt(_) = cause {
            return Self::Internal(cause.to_string());
        }
        error!(error = %cause, "The database did not answer a look-up: {cause}");
        Self::Storage
    }
}

impl From<Refusal> for ErrorFrame {
    /// The one place that decides what clients hear.
    fn from(refusal: Refusal) -> Self {
        let new = |code, message: &str| Self::new(code, message);
        match refusal {
            Refusal::SessionNotFound => Self::session_not_found(),
            Refusal::TaskNotFound => Self::task_not_found(),
            Refusal::ProfileNotFound => {
                new(ErrorCode::NotFound, "no such profile; `GET /v1/profiles` lists those there are")
            }
            Refusal::ProfileForbidden => {
                new(ErrorCode::Forbidden, "your role may not use this profile; `GET /v1/profiles` lists yours")
            }
            Refusal::NoPrice => ErrorFrame::invalid_field(
                "max_budget_usd",
                "can't be kept to: the profile has no price for any model (`\"*\"`), and its agent may ask for any; leave it out, or have the price added",
            ),
            Refusal::NotYours => {
                new(ErrorCode::Forbidden, "this is another user's; you may read, cancel and end it, not speak in it")
            }
            Refusal::SessionClosed => {
                new(ErrorCode::SessionClosed, "the session has ended; it can be read with `session.resume`, not turned")
            }
            Refusal::OtherProfile => {
                new(ErrorCode::Conflict, "the session has another profile; leave `profile_id` out, or start a session")
            }
            Refusal::Busy => {
                new(ErrorCode::Conflict, "the session is at work and `on_busy` is `reject`; try again later")
            }
            Refusal::KeyReused => {
                new(ErrorCode::Conflict, "this `idempotency_key` was used for something else; use a new one")
            }
            Refusal::NothingAsked => new(ErrorCode::Conflict, "the task has no open question; nothing was answered"),
            Refusal::AnsweredOtherwise => {
                new(ErrorCode::Conflict, "the question was answered already, with something else")
            }
            Refusal::QueueFull(whose, limit) => new(
                ErrorCode::QueueFull,
                &format!("{limit} tasks of this {whose} wait already; try again when one has ended"),
            )
            .retry_after(5_000),
            Refusal::Overloaded => {
                new(ErrorCode::RateLimited, "too many requests for this session at once; try again shortly")
                    .retry_after(500)
            }
            Refusal::NoContainer(why) => {
                new(ErrorCode::Capacity, &format!("no container to be had now ({why}); try again later"))
                    .retry_after(5_000)
            }
            Refusal::Storage => Self::storage_unavailable(),
            Refusal::Interrupted => {
                new(ErrorCode::Capacity, "the session was interrupted and is being taken up again; try again shortly")
                    .retry_after(1_000)
            }
            Refusal::Elsewhere => {
                new(ErrorCode::Capacity, "another gateway serves this session now; try again shortly")
                    .retry_after(5_000)
            }
            Refusal::ShuttingDown => {
                new(ErrorCode::Capacity, "this gateway is shutting down; connect again").retry_after(1_000)
            }
            Refusal::Internal(cause) => internal_error(&cause),
        }
    }
}

/// `INTERNAL_ERROR` with an id that is in the log beside the cause.
pub fn internal_error(cause: &str) -> ErrorFrame {
    let id = Uuid::now_v7().simple().to_string();
    error!(error.id = %id, cause, "Internal error {id}: {cause}");
    ErrorFrame::new(ErrorCode::InternalError, format!("something went wrong on our side; its id in the log is {id}"))
}
