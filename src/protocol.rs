//! The only place that spells the wire: what clients send, what they are sent, and how errors look.
//!
//! Used by `connection` and `http` (both doors speak it), by `hub` (events are encoded here once)
//! and by `chat`. Follows the user's document word for word and docs/protocol.md where that is silent.

pub mod asyncapi;
pub mod client;
pub mod error;
pub mod event;
pub mod link;
pub mod reply;
pub(crate) mod schema;

pub use client::{Answer, ClientFrame, ClientMessage, Fields, ReplayFrom, RequestId, Submit};
pub use error::{CloseCode, Detail, ErrorCode, ErrorFrame};
pub use event::{Event, StoredEvent};
pub use reply::ServerFrame;

/// The subprotocol that an extended client offers.
pub const SUBPROTOCOL: &str = "streamgate.v1";

/// One encoded frame: UTF-8 text, shared by everybody who is sent it.
pub type FrameText = axum::extract::ws::Utf8Bytes;

/// The longest client frame and the longest texts in it, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct TextLimits {
    /// A prompt or an answer.
    pub prompt_bytes: usize,
}

#[cfg(test)]
mod conformity;
#[cfg(test)]
mod tests;
