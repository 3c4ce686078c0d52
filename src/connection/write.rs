//! The writing half of a connection: everything that waits is fed, then flushed once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attach::{Attachment, Batch, Viewer, step};
use super::socket::Sink;
use super::{End, Followed, Outgoing, Progress, Shared};
use crate::domain::{Seq, SessionId};
use crate::protocol::{CloseCode, FrameText, ServerFrame};

/// A step of a followed session: a task of its own, so that a connection to the database is never held
/// by something that nobody polls while the socket is slow.
type Step = AbortOnDropHandle<Option<(Box<Attachment>, Batch)>>;

/// How many bytes are fed before a flush, whatever else waits: fairness between a replay and replies.
const FLUSH_BYTES: usize = 256 << 10;

/// How often it is looked whether a socket has moved, within the time that it may stand still.
const LOOKS: u32 = 6;

/// The writing half of a connection.
pub(super) struct Writer {
    shared: Arc<Shared>,
    viewer: Viewer,
    progress: Arc<Progress>,
    /// Without progress for this long the socket is given up.
    stall: Duration,
    queue: mpsc::Receiver<Outgoing>,
    following: HashMap<SessionId, Following>,
    followed: Followed,
    steps: FuturesUnordered<Step>,
}

struct Following {
    stop: CancellationToken,
    /// The last event sent, or where the cursor started.
    sent: Seq,
}

/// The socket takes no more.
struct Broken(End);

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        viewer: Viewer,
        progress: Arc<Progress>,
        queue: mpsc::Receiver<Outgoing>,
        followed: Followed,
    ) -> Self {
        let stall = Duration::from_secs(shared.limits.stall_seconds);
        Self {
            shared,
            viewer,
            progress,
            stall,
            queue,
            following: HashMap::new(),
            followed,
            steps: FuturesUnordered::new(),
        }
    }

    /// Writes until the socket breaks or stalls.
    pub(super) async fn run(&mut self, sink: &mut Sink) -> End {
        let mut pings = tokio::time::interval(Duration::from_secs(self.shared.limits.ping_seconds));
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pings.reset();
        loop {
            let result = tokio::select! {
                outgoing = self.queue.recv() => match outgoing {
                    Some(outgoing) => self.take(sink, outgoing).await,
                    None => return End::Gone,
                },
                Some(step) = self.steps.next() => self.follow(sink, step).await,
                _ = pings.tick() => self.feed(sink, Message::Ping(Bytes::new())).await,
            };
            let result = match result {
                Ok(fed) => self.write_the_rest(sink, fed).await,
                Err(broken) => Err(broken),
            };
            if let Err(Broken(end)) = result {
                return end;
            }
        }
    }

    /// Feeds whatever else waits by now, then flushes.
    async fn write_the_rest(&mut self, sink: &mut Sink, mut fed: usize) -> Result<(), Broken> {
        while fed < FLUSH_BYTES {
            if let Ok(outgoing) = self.queue.try_recv() {
                fed += self.take(sink, outgoing).await?;
            } else if let Some(Some(step)) = self.steps.next().now_or_never() {
                fed += self.follow(sink, step).await?;
            } else {
                break;
            }
        }
        moving(&self.progress, self.stall, sink.flush()).await
    }

    /// Writes out what was queued before the close.
    pub(super) async fn finish(&mut self, sink: &mut Sink) {
        while let Ok(outgoing) = self.queue.try_recv() {
            if self.take(sink, outgoing).await.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, sink: &mut Sink, outgoing: Outgoing) -> Result<usize, Broken> {
        match outgoing {
            Outgoing::Frame(frame) => self.feed_frame(sink, frame).await,
            Outgoing::Error(error) => {
                self.shared.metrics.error_frame(error.code);
                self.feed_frame(sink, ServerFrame::Error(*error).encode()).await
            }
            Outgoing::Follow(attachment)
                if !attachment.moves_cursor() && self.following.contains_key(&attachment.session()) =>
            {
                Ok(0)
            }
            Outgoing::Follow(mut attachment) => {
                let sent = attachment.cursor();
                let following = Following { stop: attachment.stop.clone(), sent };
                if let Some(earlier) = self.following.insert(attachment.session(), following) {
                    earlier.stop.cancel();
                }
                let fed = match attachment.announcement() {
                    Some(announcement) => self.feed_frame(sink, announcement).await?,
                    None => 0,
                };
                self.begin_step(attachment);
                Ok(fed)
            }
            Outgoing::Unfollow(session) => {
                if let Some(following) = self.following.remove(&session) {
                    following.stop.cancel();
                }
                Ok(0)
            }
            Outgoing::Pong(request_id) => {
                let sessions: BTreeMap<SessionId, Seq> =
                    self.following.iter().map(|(session, following)| (*session, following.sent)).collect();
                self.feed_frame(sink, ServerFrame::Pong { request_id, sessions }.encode()).await
            }
        }
    }

    /// Writes a step of a followed session and begins the next one.
    async fn follow(&mut self, sink: &mut Sink, step: <Step as Future>::Output) -> Result<usize, Broken> {
        // A step that panicked: nobody would follow that session any more, and the client would not know.
        let step = step.map_err(|_| Broken(End::Close(CloseCode::Internal)))?;
        let Some((attachment, batch)) = step.filter(|(attachment, _)| !attachment.stop.is_cancelled()) else {
            return Ok(0);
        };
        let mut fed = 0;
        for frame in batch.frames {
            fed += self.feed_frame(sink, frame).await?;
        }
        // Afterwards: a `pong` that is written before the close must not count what was broken off.
        if let (Some(last), Some(following)) = (batch.last, self.following.get_mut(&attachment.session())) {
            following.sent = last;
        }
        if attachment.has_ended() {
            // It makes room for another session.
            self.following.remove(&attachment.session());
            self.followed.remove(attachment.session());
        } else {
            self.begin_step(attachment);
        }
        Ok(fed)
    }

    fn begin_step(&mut self, attachment: Box<Attachment>) {
        let step = step(Arc::clone(&self.shared), self.viewer, attachment);
        self.steps.push(AbortOnDropHandle::new(tokio::spawn(step)));
    }

    async fn feed_frame(&mut self, sink: &mut Sink, frame: FrameText) -> Result<usize, Broken> {
        self.feed(sink, Message::Text(frame)).await
    }

    async fn feed(&mut self, sink: &mut Sink, message: Message) -> Result<usize, Broken> {
        let bytes = match &message {
            Message::Text(text) => text.len(),
            _ => 0,
        };
        moving(&self.progress, self.stall, sink.feed(message)).await?;
        Ok(bytes)
    }
}

/// Waits for a write as long as the socket takes bytes; a stalled one is the client's fault.
async fn moving(
    progress: &Progress,
    stall: Duration,
    write: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), Broken> {
    let mut write = std::pin::pin!(write);
    let (mut before, mut moved) = (progress.bytes(), Instant::now());
    loop {
        match timeout(stall / LOOKS, &mut write).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => return Err(Broken(End::Gone)),
            Err(_) if progress.bytes() != before => (before, moved) = (progress.bytes(), Instant::now()),
            Err(_) if moved.elapsed() < stall => (),
            Err(_) => return Err(Broken(End::Close(CloseCode::SlowConsumer))),
        }
    }
}
