//! What ends a connection from outside: its credential, its age, the gateway's own end. A future of its
//! own, so that a client that reads slowly can't put it off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::info;

use super::{End, Outgoing, Shared};
use crate::auth::{Credential, Principal};
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame, ServerFrame};

/// How often a live credential is checked again: what is revoked is closed within 30 s (docs/protocol.md
/// §1), the check's own cache included.
const RECHECK: Duration = Duration::from_secs(10);

/// Waits until the connection of `who` has to end.
pub(super) async fn watch(
    shared: Arc<Shared>,
    who: Principal,
    credential: Credential,
    outbox: mpsc::Sender<Outgoing>,
) -> End {
    let age = Duration::from_secs(shared.limits.connection_seconds).mul_f64(rand::random_range(0.9..=1.1));
    tokio::select! {
        () = sleep(age) => End::Close(CloseCode::MaxAge),
        () = shared.closing.moment() => End::Close(CloseCode::Restart),
        () = credential_ends(&shared, &who, &credential) => {
            info!(user = %who.user, "The credential of a live connection of `{}` has ended", who.user);
            let error = ErrorFrame::new(ErrorCode::Unauthorized, "your credential has ended; connect with a valid one");
            let _ = outbox.try_send(ServerFrame::Error(error).into()); // The close says it too.
            End::Close(CloseCode::Unauthorized)
        }
    }
}

/// Waits until the credential is no longer what it was. While it can't be checked, the connection stays.
async fn credential_ends(shared: &Shared, who: &Principal, credential: &Credential) {
    let mut rechecks = interval_at(Instant::now() + RECHECK, RECHECK);
    rechecks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rechecks.tick().await;
        // What a connection sees is fixed at upgrade.
        if !shared.authenticator.still_holds(credential, who).await {
            return;
        }
    }
}
