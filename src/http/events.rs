//! `GET /v1/sessions/{id}/events`: a session's history as JSON or NDJSON.
//!
//! REST clients are extended clients: they get all event types, the privileged ones if they are
//! admins. Frames go out as they are stored, links filled in: no JSON is parsed or built per event, and
//! never is more than a page of the journal in memory, however long the history. Should the journal
//! fail on the way, the body breaks off: nobody takes half a history for a whole one.

use std::fmt::Write as _;
use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::try_unfold;
use tracing::warn;

use super::query::Query;
use super::{ApiError, Gateway};
use crate::auth::Principal;
use crate::connection::Viewer;
use crate::database::DatabaseError;
use crate::domain::{Seq, SessionId};
use crate::hub::PAGE_EVENTS;
use crate::protocol::{ErrorCode, ErrorFrame, StoredEvent};

pub(super) const NDJSON: &str = "application/x-ndjson";
/// Events of a JSON body when the client doesn't say.
pub(super) const DEFAULT_LIMIT: u64 = 1_000;
/// And at most.
pub(super) const MOST: u64 = 10_000;

/// The history after `after_seq`, up to the head at the time of the request. JSON holds at most
/// `limit` events (1,000 if absent) and tells where the next page starts; NDJSON (by `Accept`) holds
/// `limit` events if that is given, else all.
pub(super) async fn read(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, ApiError> {
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    let form = if wants_ndjson(&headers) { Form::Lines } else { Form::Object };
    let cursor = after_seq(&mut query);
    let limit = query.integer("limit", 1..=if form == Form::Lines { u64::MAX } else { MOST });
    query.finish()?;
    check_cursor(cursor, session.last_seq)?;
    let left = match form {
        Form::Lines => limit.unwrap_or(u64::MAX),
        Form::Object => limit.unwrap_or(DEFAULT_LIMIT),
    };
    let viewer = viewer(&who);
    let mut history =
        History { gateway, session: id, viewer, cursor, head: session.last_seq, left, page: None, form, opened: false };
    // While there is still a status to say it with.
    history.page = history.load().await?;
    let body = Body::from_stream(try_unfold(Some(history), |history| async move {
        let Some(mut history) = history else { return Ok(None) };
        match history.text().await {
            Ok((text, goes_on)) => Ok(Some((Bytes::from(text), goes_on.then_some(history)))),
            Err(error) => {
                warn!(session.id = %history.session, %error, "The history of session `{}` breaks off: {error}", history.session);
                Err(io::Error::other("the journal can't be read now"))
            }
        }
    }));
    let kind = if form == Form::Lines { NDJSON } else { "application/json" };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// Where a reader is, from the query.
pub(super) fn after_seq(query: &mut Query) -> Seq {
    Seq(query.integer("after_seq", 0..=i64::MAX.unsigned_abs()).unwrap_or(0))
}

/// Refuses a cursor beyond the head (G6).
pub(super) fn check_cursor(cursor: Seq, head: Seq) -> Result<(), ApiError> {
    if cursor <= head {
        return Ok(());
    }
    let message = format!("`after_seq` is {cursor}, but the last event is {head}; go on from what you have seen");
    Err(ErrorFrame { last_seq: Some(head), ..ErrorFrame::new(ErrorCode::CursorAhead, message) }.into())
}

/// What somebody sees over REST.
pub(super) fn viewer(who: &Principal) -> Viewer {
    Viewer { extended: true, is_admin: who.is_admin }
}

fn wants_ndjson(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(NDJSON))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A frame a line.
    Lines,
    /// `{"events": […], "last_seq", "next_after_seq"}`.
    Object,
}

/// A history on its way out.
struct History {
    gateway: Gateway,
    session: SessionId,
    viewer: Viewer,
    cursor: Seq,
    head: Seq,
    /// How many more events may be shown.
    left: u64,
    /// Read already.
    page: Option<Vec<StoredEvent>>,
    form: Form,
    /// Whether the list has its first entry.
    opened: bool,
}

/// Why a history breaks off.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("it was erased meanwhile")]
    Erased,
}

impl History {
    /// The events that come next; `None` at the end.
    async fn load(&self) -> Result<Option<Vec<StoredEvent>>, DatabaseError> {
        if self.cursor >= self.head || self.left == 0 {
            return Ok(None);
        }
        let journal = self.gateway.orchestrator.hub().journal();
        journal.read_after(self.session, self.cursor, PAGE_EVENTS).await.map(Some)
    }

    /// The next part of the body, never empty unless it is the last, and whether more follows.
    async fn text(&mut self) -> Result<(String, bool), BrokenOff> {
        let mut text = String::new();
        loop {
            let page = match self.page.take() {
                Some(page) => Some(page),
                None => self.load().await?,
            };
            let Some(page) = page else {
                self.close(&mut text);
                return Ok((text, false));
            };
            if page.is_empty() {
                return Err(BrokenOff::Erased);
            }
            self.show(page, &mut text);
            if !text.is_empty() {
                return Ok((text, true));
            }
        }
    }

    fn show(&mut self, page: Vec<StoredEvent>, text: &mut String) {
        for event in page {
            if event.seq > self.head || self.left == 0 {
                return;
            }
            self.cursor = event.seq;
            if !self.viewer.sees(event.audience) {
                continue;
            }
            self.left -= 1;
            if self.form == Form::Object {
                text.push_str(if self.opened { "," } else { "{\"events\":[" });
                self.opened = true;
            }
            text.push_str(&self.gateway.links.frame(self.session, event));
            if self.form == Form::Lines {
                text.push('\n');
            }
        }
    }

    fn close(&self, text: &mut String) {
        if self.form == Form::Lines {
            return;
        }
        if !self.opened {
            text.push_str("{\"events\":[");
        }
        // Writing to a string does not fail.
        let _ = write!(text, "],\"last_seq\":{},\"next_after_seq\":{}}}", self.head, self.cursor);
    }
}
