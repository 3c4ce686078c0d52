//! One socket from upgrade to close.
//!
//! Used by `http::stream`, which upgrades and authenticates. Reader, writer and watch are futures of one
//! task, so they end together: `read` turns frames into requests and requests into replies, `attach` follows
//! sessions, `write` puts everything on the wire, all that waits in one flush,
//! `watch` ends what must end. `socket` is what does not depend on who is at the other end.

mod attach;
mod closing;
mod counted;
mod flood;
mod limit;
mod read;
pub mod socket;
mod watch;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info};

pub use attach::{Attachment, Viewer};
pub use closing::Closing;
pub use counted::{Counted, Peer, Progress};
use limit::Followed;
pub use limit::{Connections, Permit, TooMany};
pub use read::Outgoing;
use socket::CLOSE_GRACE;
pub use socket::End;

use crate::auth::signed_link::Links;
use crate::auth::{Authenticator, Credential, Principal};
use crate::config::LimitsConfig;
use crate::metrics::Metrics;
use crate::orchestrator::Orchestrator;
use crate::protocol::{CloseCode, ErrorFrame, ServerFrame};

/// How many frames and requests may wait for the writer. Full: the reader waits, and so its client.
const OUTGOING: usize = 64;

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
    /// Whether all this ends.
    pub closing: Closing,
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
    /// What their socket has taken.
    pub progress: Arc<Progress>,
}

/// Serves a client until either side ends it.
pub async fn serve(shared: Arc<Shared>, socket: WebSocket, client: Client) {
    let (mut sink, mut stream) = socket.split();
    let (outbox, queue) = mpsc::channel(OUTGOING);
    let user = client.principal.user.clone();
    let progress = Arc::clone(&client.progress);
    debug!(%user, extended = client.extended, "A client of `{user}` is connected");

    client.progress.is_watched_elsewhere(); // By the writer, which says why.
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
    // The peer may be gone, or slow: both are answered by the deadline.
    let _ = timeout(CLOSE_GRACE, async {
        if let End::Close(code) = end {
            info!(%user, code = code.code(), "A connection of `{user}` is closed: {}", code.word());
            progress.is_ending();
            writer.finish(&mut sink).await;
        }
        socket::close(&mut sink, &mut stream, end, wait(end.code(), &shared.closing)).await;
    })
    .await;
}

/// Tells a client that may not come in why, and closes.
pub async fn refuse(shared: Arc<Shared>, socket: WebSocket, error: ErrorFrame, code: CloseCode) {
    let (mut sink, mut stream) = socket.split();
    shared.metrics.error_frame(error.code);
    shared.metrics.connection_closed(Some(code));
    let _ = timeout(CLOSE_GRACE, async {
        let _ = sink.send(Message::Text(ServerFrame::Error(error).encode())).await;
        let wait = wait(Some(code), &shared.closing);
        socket::close(&mut sink, &mut stream, End::Close(code), wait).await;
    })
    .await;
}

/// When a client that is closed with `code` is to come back, in milliseconds.
fn wait(code: Option<CloseCode>, closing: &Closing) -> Option<u64> {
    match code? {
        CloseCode::Restart => Some(closing.retry_after_ms()),
        // Between half and one and a half of it, so that a thousand clients don't come back at once.
        code => code.retry_after_ms().map(|wait| wait / 2 + rand::random_range(0..=wait)),
    }
}
