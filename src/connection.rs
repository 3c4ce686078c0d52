//! One socket from upgrade to close.
//!
//! Used by `http::stream`, which upgrades and authenticates. Reader, writer and watch are futures of one
//! task, so they end together: `read` turns frames into requests and requests into replies, `attach` follows
//! sessions, `write` puts everything on the wire, all that waits in one flush,
//! `watch` ends what must end.

mod attach;
mod counted;
mod flood;
mod limit;
mod read;
mod watch;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use attach::{Attachment, Viewer};
pub use counted::{CountedListener, Peer, Progress};
use limit::Followed;
pub use limit::{Connections, Permit, TooMany};
pub use read::Outgoing;

use crate::auth::signed_link::Links;
use crate::auth::{Authenticator, Credential, Principal};
use crate::config::LimitsConfig;
use crate::metrics::Metrics;
use crate::orchestrator::Orchestrator;
use crate::protocol::{CloseCode, ErrorFrame, ServerFrame};

/// How many frames and requests may wait for the writer. Full: the reader waits, and so its client.
const OUTGOING: usize = 64;
/// How long a close may take, what waits before it and the peer's own close included.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// What every connection needs. Built once, by `app`.
pub struct Shared {
    /// Does the work.
    pub orchestrator: Orchestrator,
    /// Checks credentials, again and again.
    pub authenticator: Authenticator,
    /// Signs links to files.
    pub links: Links,
    /// How much of everything.
    pub limits: LimitsConfig,
    /// Who is connected.
    pub connections: Connections,
    /// Where operators see what happens.
    pub metrics: Arc<Metrics>,
    /// Cancelled when all sockets are to be closed with 1012.
    pub closing: CancellationToken,
}

/// Who is at the other end.
pub struct Client {
    /// Who.
    pub principal: Principal,
    /// What they showed; it is checked again while they are connected.
    pub credential: Credential,
    /// Whether they also get the **[x]** events.
    pub extended: bool,
    /// Their place among the connections.
    pub permit: Permit,
    /// What the socket has taken.
    pub progress: Arc<Progress>,
}

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
    fn code(self) -> Option<CloseCode> {
        match self {
            Self::Close(code) => Some(code),
            Self::Gone => None,
        }
    }
}

/// Serves a client until either side ends it.
pub async fn serve(shared: Arc<Shared>, socket: WebSocket, client: Client) {
    let (mut sink, mut stream) = socket.split();
    let (outbox, queue) = mpsc::channel(OUTGOING);
    let user = client.principal.user.clone();
    let progress = Arc::clone(&client.progress);
    debug!(%user, extended = client.extended, "A client of `{user}` is connected");

    let viewer = Viewer { extended: client.extended, is_admin: client.principal.is_admin };
    let followed = Followed::default();
    let watch = watch::watch(Arc::clone(&shared), client.principal.clone(), client.credential.clone(), outbox.clone());
    let mut writer = write::Writer::new(Arc::clone(&shared), viewer, Arc::clone(&progress), queue, followed.clone());
    let mut reader = read::Reader::new(Arc::clone(&shared), client, outbox, followed);
    let served = async {
        tokio::select! {
            end = reader.run(&mut stream) => end,
            end = writer.run(&mut sink) => end,
            end = watch => end,
        }
    };
    // A panic costs this connection only, and its client hears of it.
    let end = AssertUnwindSafe(served).catch_unwind().await.unwrap_or(End::Close(CloseCode::Internal));
    shared.metrics.connection_closed(end.code());
    if let End::Close(code) = end {
        info!(%user, code = code.code(), "A connection of `{user}` is closed: {}", code.word());
        progress.is_ending();
        // The peer may be gone, or slow: both are answered by the deadline.
        let _ = timeout(CLOSE_GRACE, async {
            writer.finish(&mut sink).await;
            let _ = sink.send(close_message(code)).await;
            while let Some(Ok(_)) = stream.next().await {}
        })
        .await;
    } else {
        let _ = timeout(CLOSE_GRACE, sink.close()).await;
    }
}

/// Tells a client that may not come in why, and closes.
pub async fn refuse(shared: Arc<Shared>, mut socket: WebSocket, error: ErrorFrame, code: CloseCode) {
    shared.metrics.error_frame(error.code);
    shared.metrics.connection_closed(Some(code));
    let _ = timeout(CLOSE_GRACE, async {
        let _ = socket.send(Message::Text(ServerFrame::Error(error).encode())).await;
        let _ = socket.send(close_message(code)).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
}

fn close_message(code: CloseCode) -> Message {
    // Between half and one and a half of it, so that a thousand clients don't come back at once.
    let wait = code.retry_after_ms().map(|wait| wait / 2 + rand::random_range(0..=wait));
    Message::Close(Some(CloseFrame { code: code.code(), reason: code.reason(wait).into() }))
}
