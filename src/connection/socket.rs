//! What is true of every socket, whoever is at its other end: how it is set up, when it ends, how it is closed.
//!
//! Used by the connections of clients, and by `examples/autobahn_echo.rs`, which has the cases of the Autobahn
//! test suite run against just this.

use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};

use crate::protocol::CloseCode;

/// How long a close may take, what waits before it and the peer's own close included.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Measured: a third of the capacity against the library's 128 KiB.
const READ_BUFFER: usize = 4 << 10;
/// Coalesces what is fed between two flushes.
const WRITE_BUFFER: usize = 16 << 10;

/// The half that frames are written to.
pub type Sink = SplitSink<WebSocket, Message>;
/// The half that frames are read from.
pub type Stream = SplitStream<WebSocket>;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We close, for this reason.
    Close(CloseCode),
    /// The peer closed or is gone.
    Gone,
}

impl End {
    /// What we close with, if we do.
    pub(super) fn code(self) -> Option<CloseCode> {
        match self {
            Self::Close(code) => Some(code),
            Self::Gone => None,
        }
    }
}

/// Sets a socket up, before it is upgraded. No frame and no message that is read may have more than
/// `frame_bytes`.
pub fn set_up(upgrade: WebSocketUpgrade, frame_bytes: usize) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_frame_size(frame_bytes)
        .max_message_size(frame_bytes)
}

/// Whether a read ends the connection: the peer's close, the end of the stream, or an error.
pub fn end_of(read: Option<&Result<Message, axum::Error>>) -> Option<End> {
    match read {
        Some(Ok(Message::Close(_))) | None => Some(End::Close(CloseCode::Normal)),
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(end_of_error(error)),
    }
}

/// Why the socket can't be read any more. The library drops it without a close frame; we send one.
fn end_of_error(error: &axum::Error) -> End {
    use std::error::Error as _;
    match error.source().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::Capacity(_)) => End::Close(CloseCode::TooBig),
        Some(Error::Utf8(_)) => End::Close(CloseCode::BadUtf8),
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(Error::Protocol(_)) => End::Close(CloseCode::Protocol),
        _ => End::Gone,
    }
}

/// Ends a socket: closes it if that is for us to do, with a word when to come back, in milliseconds; then waits for
/// the peer's own close. The peer may be slow, or gone: callers bound this by [`CLOSE_GRACE`].
pub async fn close(sink: &mut Sink, stream: &mut Stream, end: End, retry_after_ms: Option<u64>) {
    match end {
        End::Close(code) => {
            let reason = code.reason(retry_after_ms).into();
            let _ = sink.send(Message::Close(Some(CloseFrame { code: code.code(), reason }))).await;
            while let Some(Ok(_)) = stream.next().await {}
        }
        End::Gone => {
            let _ = sink.close().await;
        }
    }
}
