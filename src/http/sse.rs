//! `GET /v1/sessions/{id}/stream`: a session's events as Server-Sent Events, for clients that only
//! listen and want no WebSocket.
//!
//! History after `Last-Event-ID` (or `?after_seq=`), then live, for ever: a session that has ended just
//! says no more. `id:` is the event's `seq`, `data:` its frame. The stream counts as a connection and ends
//! when the credential does, at shutdown, and at the maximum age of connections; an `EventSource` then
//! comes back by itself and resumes. Of a listener that takes nothing `http::server` ends the socket, and so
//! the stream.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::events::{after_seq, check_cursor, viewer};
use super::query::Query;
use super::{ApiError, Gateway};
use crate::auth::{Credential, Principal};
use crate::connection::{Permit, TooMany};
use crate::domain::{Seq, SessionId};
use crate::hub::Subscription;
use crate::metrics::Counted;
use crate::orchestrator::Refusal;
use crate::protocol::{ErrorFrame, StoredEvent};

/// How often silence is broken, for proxies that take it for death.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the credential is checked again.
const RECHECK: Duration = Duration::from_secs(10);
/// How long to wait before the journal is asked again after it did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Follows a session. A cursor beyond its head is refused (G6).
pub(super) async fn follow(
    State(gateway): State<Gateway>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    who: Principal,
    id: SessionId,
    mut query: Query,
) -> Result<Response, ApiError> {
    gateway.orchestrator.readable_session(&who, id).await?;
    let after = after_seq(&mut query);
    query.finish()?;
    let cursor = last_event_id(&headers)?.unwrap_or(after);
    let follow = gateway.orchestrator.hub().follow(id).await?.ok_or(Refusal::SessionNotFound)?;
    check_cursor(cursor, follow.head())?;
    let credential = gateway.authenticator.credential_from_request(&method, &headers, &uri)?;
    let permit = gateway.connections.enter(&who.user).map_err(TooMany::error)?;
    let now = Instant::now();
    let closing = Arc::clone(&gateway);
    let stream = Stream {
        max_age: now + Duration::from_secs(gateway.limits.connection_seconds).mul_f64(rand::random_range(0.9..=1.1)),
        closing: async move { closing.closing.moment().await }.boxed(),
        _open: gateway.metrics.event_stream(),
        gateway,
        session: id,
        who,
        credential,
        subscription: follow.after(cursor),
        keep_alive_at: now + KEEP_ALIVE,
        recheck_at: now + RECHECK,
        // Headers go out at once, even of a session that is silent.
        opening: Some(": hello\n\n"),
        over: false,
        _permit: permit,
    };
    let body = Body::from_stream(unfold(stream, |mut stream| async move {
        let text = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), stream))
    }));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store, no-transform")];
    Ok((headers, body).into_response())
}

/// One listener. Whoever doesn't read is not waited for by anybody: the events stay in the journal.
struct Stream {
    gateway: Gateway,
    session: SessionId,
    who: Principal,
    credential: Credential,
    subscription: Subscription,
    keep_alive_at: Instant,
    recheck_at: Instant,
    max_age: Instant,
    /// The moment when the gateway ends it.
    closing: BoxFuture<'static, ()>,
    opening: Option<&'static str>,
    /// Nothing follows.
    over: bool,
    _open: Counted,
    _permit: Permit,
}

impl Stream {
    /// The next part of the body; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening.to_owned());
        }
        if self.over {
            return None;
        }
        let mut told = false;
        loop {
            // The credential first: a slow reader is asked before it gets what waited for it.
            let events = tokio::select! {
                biased;
                () = &mut self.closing => {
                    self.over = true;
                    return Some(format!("retry: {}\n\n", self.gateway.closing.retry_after_ms()));
                }
                () = sleep_until(self.max_age) => return None,
                () = sleep_until(self.recheck_at) => {
                    if !self.gateway.authenticator.still_holds(&self.credential, &self.who).await {
                        return None;
                    }
                    self.recheck_at = Instant::now() + RECHECK;
                    continue;
                }
                events = self.subscription.next() => events,
                () = sleep_until(self.keep_alive_at) => {
                    self.keep_alive_at = Instant::now() + KEEP_ALIVE;
                    return Some(":\n\n".to_owned());
                }
            };
            match events {
                Ok(events) => {
                    let text = self.show(events);
                    if !text.is_empty() {
                        self.keep_alive_at = Instant::now() + KEEP_ALIVE;
                        return Some(text);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(session.id = %self.session, %error, "A listener of session `{}` waits for the journal: {error}", self.session);
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn show(&self, events: Vec<StoredEvent>) -> String {
        let mut text = String::new();
        let viewer = viewer(&self.who);
        for event in events.into_iter().filter(|event| viewer.sees(event.audience)) {
            let seq = event.seq;
            let frame = self.gateway.links.frame(self.session, event);
            // Writing to a string does not fail.
            let _ = writeln!(text, "id: {seq}");
            text.push_str("data: ");
            // In JSON a bare line end is white space; here it would end the field.
            text.extend(frame.chars().map(|char| if matches!(char, '\r' | '\n') { ' ' } else { char }));
            text.push_str("\n\n");
        }
        text
    }
}

/// Where an `EventSource` that comes back was. It outranks the address, which never changes.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, ApiError> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let seq = id.to_str().ok().and_then(|id| id.parse().ok()).filter(|seq| i64::try_from(*seq).is_ok());
    let seq = seq.ok_or_else(|| ErrorFrame::invalid_field("Last-Event-ID", "must be the `id` of an event"))?;
    Ok(Some(Seq(seq)))
}
