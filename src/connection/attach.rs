//! One followed session of one connection: replay marks, history, then what comes.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Shared;
use crate::database::DatabaseError;
use crate::domain::{Audience, Seq, SessionId};
use crate::hub::Subscription;
use crate::protocol::{FrameText, RequestId, ServerFrame, StoredEvent};

/// How the frame of a session's last event begins.
const SESSION_CLOSED: &str = r#"{"type":"session.closed""#;
/// How long to wait before the journal is asked again after it did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What a connection may see.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    /// Whether it gets the **[x]** events.
    pub extended: bool,
    /// Whether it gets the privileged ones.
    pub is_admin: bool,
}

impl Viewer {
    /// Whether it gets an event.
    pub const fn sees(self, audience: Audience) -> bool {
        match audience {
            Audience::Document => true,
            Audience::Extended => self.extended,
            Audience::Privileged => self.is_admin,
        }
    }
}

/// A followed session. Its cursor moves as it is read.
pub struct Attachment {
    session: SessionId,
    subscription: Subscription,
    stage: Stage,
    /// What says that a replay begins, and answers its request: sent at once, whatever comes of it.
    announcement: Option<FrameText>,
    /// Whether the session's last event has been read: nothing follows it.
    ended: bool,
    /// Events that were read along with the history but follow its end.
    held: Vec<StoredEvent>,
    /// Cancelled when the client follows the session anew, or no more.
    pub(super) stop: CancellationToken,
}

enum Stage {
    /// History goes out, up to the head at the time of the resume (G3).
    Replay { until: Seq, count: u64 },
    /// Events go out as they are committed.
    Live,
}

/// Frames of one session to be sent together.
pub(super) struct Batch {
    pub(super) frames: Vec<FrameText>,
    /// The last event among them, if there is one. What this viewer does not see is not sent.
    pub(super) last: Option<Seq>,
}

impl Attachment {
    /// Replays what follows the cursor up to `until`, between its marks, then goes live.
    pub fn replay(session: SessionId, subscription: Subscription, until: Seq, request_id: Option<RequestId>) -> Self {
        let start = ServerFrame::ReplayStart {
            request_id,
            session_id: session,
            after_seq: subscription.cursor(),
            last_seq: until,
        };
        let stage = Stage::Replay { until, count: 0 };
        Self { announcement: Some(start.encode()), ..Self::new(session, subscription, stage) }
    }

    /// Goes live from the cursor, without marks.
    pub fn live(session: SessionId, subscription: Subscription) -> Self {
        Self::new(session, subscription, Stage::Live)
    }

    fn new(session: SessionId, subscription: Subscription, stage: Stage) -> Self {
        Self {
            session,
            subscription,
            stage,
            announcement: None,
            ended: false,
            held: Vec::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The frame that is to be sent before anything else.
    pub(super) fn announcement(&mut self) -> Option<FrameText> {
        self.announcement.take()
    }

    /// Whether nothing will follow any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended && matches!(self.stage, Stage::Live) && self.held.is_empty()
    }

    /// Which session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether it moves the cursor of a session that is followed already. What follows from a prompt
    /// does not: the attachment that is there comes to the prompt in its own time, and a second one
    /// would repeat what the first has sent, or leave out what it has not.
    pub(super) fn moves_cursor(&self) -> bool {
        !matches!(self.stage, Stage::Live)
    }

    /// The cursor.
    pub(super) fn cursor(&self) -> Seq {
        self.subscription.cursor()
    }

    /// The frames that come next; empty when none of the events is for this viewer. Waits until there
    /// are events, and for the journal when that does not answer.
    pub(super) async fn next(&mut self, shared: &Shared, viewer: Viewer) -> Batch {
        match &mut self.stage {
            Stage::Replay { until, .. } if self.subscription.cursor() >= *until => {
                self.end_replay(shared, viewer).await
            }
            Stage::Replay { until, .. } => {
                let until = *until;
                let mut events = self.read().await;
                self.held = events.split_off(events.partition_point(|event| event.seq <= until));
                let batch = self.render(shared, viewer, events);
                if let Stage::Replay { count, .. } = &mut self.stage {
                    *count += batch.frames.len() as u64;
                }
                batch
            }
            Stage::Live => {
                let events = if self.held.is_empty() { self.read().await } else { std::mem::take(&mut self.held) };
                self.render(shared, viewer, events)
            }
        }
    }

    async fn end_replay(&mut self, shared: &Shared, viewer: Viewer) -> Batch {
        let Stage::Replay { until, count } = self.stage else { return Batch { frames: Vec::new(), last: None } };
        self.stage = Stage::Live;
        let end = ServerFrame::ReplayEnd { session_id: self.session, last_seq: until, count };
        let mut frames = vec![end.encode()];
        if viewer.extended
            && let Some(state) = state(shared, self.session).await
        {
            frames.push(state.encode());
        }
        Batch { frames, last: None }
    }

    /// Reads on, however long the journal is away: sockets stay open meanwhile.
    async fn read(&mut self) -> Vec<StoredEvent> {
        let mut told = false;
        loop {
            match self.subscription.next().await {
                Ok(events) => return events,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(session.id = %self.session, %error, "A viewer of session `{}` waits for the journal: {error}", self.session);
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The frames that this viewer may see, links filled in: by bytes, no JSON is parsed.
    fn render(&mut self, shared: &Shared, viewer: Viewer, events: Vec<StoredEvent>) -> Batch {
        let last = events.iter().rev().find(|event| viewer.sees(event.audience)).map(|event| event.seq);
        self.ended |= events.last().is_some_and(|event| event.frame.starts_with(SESSION_CLOSED));
        let frames = events
            .into_iter()
            .filter(|event| viewer.sees(event.audience))
            .map(|event| shared.links.frame(self.session, event))
            .collect();
        Batch { frames, last }
    }
}

/// The session's state, however long the database is away; `None` when the session has been erased.
async fn state(shared: &Shared, session: SessionId) -> Option<ServerFrame> {
    loop {
        let state = async {
            let Some(record) = shared.orchestrator.store().session(session).await? else { return Ok(None) };
            shared.orchestrator.state(&record).await.map(Some)
        };
        match state.await {
            Ok(state) => return state.map(|state| ServerFrame::State(Box::new(state))),
            Err(error) => {
                let error: DatabaseError = error;
                warn!(session.id = %session, %error, "A viewer of session `{session}` waits for its state: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Follows `attachment` for one step; `None` when it was stopped.
pub(super) async fn step(
    shared: Arc<Shared>,
    viewer: Viewer,
    mut attachment: Box<Attachment>,
) -> Option<(Box<Attachment>, Batch)> {
    let stop = attachment.stop.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        batch = attachment.next(&shared, viewer) => Some((attachment, batch)),
    }
}
