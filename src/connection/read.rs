//! The reading half of a connection: frames in, requests to the orchestrator, replies to the writer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::attach::Attachment;
use super::flood::{Flood, Verdict};
use super::socket::{Stream, end_of};
use super::{Client, End, Followed, Shared};
use crate::domain::{Mode, Seq, SessionId, SessionStatus, TaskState};
use crate::hub::Hub;
use crate::orchestrator::{Orchestrator, Refusal};
use crate::protocol::{
    ClientFrame, ClientMessage, CloseCode, ErrorCode, ErrorFrame, FrameText, ReplayFrom, RequestId, ServerFrame,
    Submit, TextLimits,
};

/// How many requests of a connection may be under way; more are told to come back.
const UNDER_WAY: usize = 32;
/// How many binary frames without a text frame between them are a flood.
const BINARY_FLOOD: u32 = 60;

/// What goes to the writer.
pub enum Outgoing {
    /// A frame, as it is.
    Frame(FrameText),
    /// An error.
    Error(Box<ErrorFrame>),
    /// A session to be followed. A replay takes the place of an earlier attachment to it; what follows
    /// from a prompt leaves that in place.
    Follow(Box<Attachment>),
    /// A session to be followed no more.
    Unfollow(SessionId),
    /// A reply to `ping`, which only the writer can fill in.
    Pong(Option<RequestId>),
}

impl From<ServerFrame> for Outgoing {
    fn from(frame: ServerFrame) -> Self {
        match frame {
            ServerFrame::Error(error) => Self::Error(Box::new(error)),
            frame => Self::Frame(frame.encode()),
        }
    }
}

/// What a request comes to: frames and followings, in order.
type Outcome = BoxFuture<'static, Vec<Outgoing>>;

/// The reading half of a connection.
pub(super) struct Reader {
    shared: Arc<Shared>,
    client: Client,
    outbox: mpsc::Sender<Outgoing>,
    flood: Flood,
    /// Requests that wait for the orchestrator. Tasks of their own: what holds a connection to the database
    /// must go on while this reader waits for its client.
    under_way: FuturesUnordered<AbortOnDropHandle<Vec<Outgoing>>>,
    followed: Followed,
    /// Held by every request under way that will follow one more session.
    room: Arc<()>,
    binary_in_a_row: u32,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, client: Client, outbox: mpsc::Sender<Outgoing>, followed: Followed) -> Self {
        let flood = Flood::new(&shared.limits);
        Self {
            shared,
            client,
            outbox,
            flood,
            under_way: FuturesUnordered::new(),
            followed,
            room: Arc::default(),
            binary_in_a_row: 0,
        }
    }

    /// Reads until the connection is to end.
    pub(super) async fn run(&mut self, stream: &mut Stream) -> End {
        let dead_after = Duration::from_secs(self.shared.limits.dead_seconds);
        let mut alive_at = Instant::now();
        loop {
            tokio::select! {
                message = stream.next() => {
                    if let Some(end) = self.on_message(message).await {
                        return end;
                    }
                    // After it was dealt with: while that took its time, nothing was read.
                    alive_at = Instant::now();
                }
                Some(outcome) = self.under_way.next() => {
                    let began = Instant::now();
                    let Ok(outcome) = outcome else { return End::Close(CloseCode::Internal) };
                    if let Some(end) = self.deliver(outcome).await {
                        return end;
                    }
                    // While that took its time, nothing was read.
                    alive_at += began.elapsed();
                }
                () = sleep_until(alive_at + dead_after) => return End::Close(CloseCode::NoPong),
            }
        }
    }

    async fn on_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Option<End> {
        match message {
            Some(Ok(Message::Text(text))) => {
                self.binary_in_a_row = 0;
                self.on_text(&text).await
            }
            Some(Ok(Message::Binary(_))) => {
                self.binary_in_a_row += 1;
                if self.binary_in_a_row > BINARY_FLOOD {
                    return Some(End::Close(CloseCode::Unsupported));
                }
                if let Some(refused) = self.refuse_flood(None).await {
                    return refused;
                }
                let error =
                    ErrorFrame::new(ErrorCode::InvalidJson, "binary frames are not read; send JSON in text frames");
                self.send(ServerFrame::Error(error).into()).await
            }
            // The library answers pings; somebody who sends nothing else is one who floods all the same.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => match self.flood.frame() {
                Verdict::Close => Some(End::Close(CloseCode::Flooding)),
                Verdict::Take | Verdict::Refuse(_) => None,
            },
            read => end_of(read.as_ref()),
        }
    }

    /// Counts a frame. `Some`: it is refused, and the connection may have to end.
    async fn refuse_flood(&mut self, text: Option<&str>) -> Option<Option<End>> {
        match self.flood.frame() {
            Verdict::Take => None,
            Verdict::Close => Some(Some(End::Close(CloseCode::Flooding))),
            Verdict::Refuse(wait) => {
                // Rounded up: who comes back after exactly that long is let in.
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                let error =
                    ErrorFrame::new(ErrorCode::RateLimited, format!("too many frames; slow down, wait {wait} ms"))
                        .retry_after(wait)
                        .answering(text.and_then(RequestId::find));
                Some(self.send(ServerFrame::Error(error).into()).await)
            }
        }
    }

    async fn on_text(&mut self, text: &str) -> Option<End> {
        if let Some(refused) = self.refuse_flood(Some(text)).await {
            return refused;
        }
        let limits = TextLimits { prompt_bytes: self.shared.limits.prompt_bytes };
        let message = match ClientMessage::parse(text, limits) {
            Ok(message) => message,
            Err(error) => return self.send(ServerFrame::Error(error).into()).await,
        };
        let request_id = message.request_id.clone();
        match self.handle(message).await {
            Ok(Step::Now(outgoing)) => self.deliver(outgoing).await,
            Ok(Step::Later(outcome)) => {
                self.under_way.push(AbortOnDropHandle::new(tokio::spawn(outcome)));
                None
            }
            Err(error) => self.send(ServerFrame::Error(error.answering(request_id)).into()).await,
        }
    }

    /// Gives an outcome to the writer, keeping count of what is followed.
    async fn deliver(&mut self, outcome: Vec<Outgoing>) -> Option<End> {
        for outgoing in outcome {
            match &outgoing {
                Outgoing::Follow(attachment) => {
                    self.followed.insert(attachment.session());
                }
                Outgoing::Unfollow(session) => {
                    self.followed.remove(*session);
                }
                Outgoing::Frame(_) | Outgoing::Error(_) | Outgoing::Pong(_) => (),
            }
            if let Some(end) = self.send(outgoing).await {
                return Some(end);
            }
        }
        None
    }

    /// Waits while the writer is behind: then the client is not read either.
    async fn send(&mut self, outgoing: Outgoing) -> Option<End> {
        self.outbox.send(outgoing).await.err().map(|_| End::Gone)
    }

    /// One line per frame.
    async fn handle(&mut self, message: ClientMessage) -> Result<Step, ErrorFrame> {
        let ClientMessage { request_id, frame } = message;
        match frame {
            ClientFrame::Ping => Ok(Step::Now(vec![Outgoing::Pong(request_id)])),
            ClientFrame::Unsubscribe { session_id } => Ok(Self::unsubscribe(request_id, session_id)),
            ClientFrame::Resume { session_id, from } => self.resume(request_id, session_id, from).await,
            ClientFrame::Submit(submit) => self.submit(request_id, *submit).await,
            ClientFrame::Start { profile_id, title } => {
                self.check_room(None)?;
                let room = Arc::clone(&self.room);
                self.later(request_id, |request_id, orchestrator, who| async move {
                    let session = orchestrator.start_session(&who, profile_id, title).await?;
                    let outgoing = ready(&orchestrator, session, None, Seq::START, request_id).await;
                    drop(room);
                    outgoing
                })
            }
            ClientFrame::Cancel { task_id } => {
                self.later(request_id, move |request_id, orchestrator, who| async move {
                    let (session, state) = orchestrator
                        .cancel(&who, task_id)
                        .await
                        .map_err(|refusal| about(refusal).about_task(task_id))?;
                    Ok(ack(request_id, |request_id| ServerFrame::Ack {
                        request_id,
                        session_id: Some(session),
                        task_id: Some(task_id),
                        status: Some(state.as_str()),
                        position: None,
                    }))
                })
            }
            ClientFrame::Answer { task_id, ask_id, answer } => {
                self.later(request_id, move |request_id, orchestrator, who| async move {
                    let session = orchestrator
                        .answer(&who, task_id, ask_id, answer)
                        .await
                        .map_err(|refusal| about(refusal).about_task(task_id))?;
                    Ok(ack(request_id, |request_id| ServerFrame::Ack {
                        request_id,
                        session_id: Some(session),
                        task_id: Some(task_id),
                        status: None,
                        position: None,
                    }))
                })
            }
            ClientFrame::End { session_id } => {
                self.later(request_id, move |request_id, orchestrator, who| async move {
                    orchestrator
                        .end_session(&who, session_id)
                        .await
                        .map_err(|refusal| about(refusal).about_session(session_id))?;
                    Ok(ack(request_id, |request_id| ServerFrame::Ack {
                        request_id,
                        session_id: Some(session_id),
                        task_id: None,
                        status: Some(SessionStatus::Closed.as_str()),
                        position: None,
                    }))
                })
            }
        }
    }

    /// A request that may take its time. Others go on meanwhile.
    fn later<F, T>(&self, request_id: Option<RequestId>, request: F) -> Result<Step, ErrorFrame>
    where
        F: FnOnce(Option<RequestId>, Orchestrator, crate::auth::Principal) -> T,
        T: Future<Output = Result<Vec<Outgoing>, ErrorFrame>> + Send + 'static,
    {
        self.check_under_way()?;
        let echo = request_id.clone();
        let outcome = request(request_id, self.shared.orchestrator.clone(), self.client.principal.clone());
        Ok(Step::Later(Self::or_error(echo, outcome)))
    }

    /// An outcome whose error is a frame like any other.
    fn or_error(
        request_id: Option<RequestId>,
        outcome: impl Future<Output = Result<Vec<Outgoing>, ErrorFrame>> + Send + 'static,
    ) -> Outcome {
        async move {
            outcome.await.unwrap_or_else(|error| vec![ServerFrame::Error(error.answering(request_id)).into()])
        }
        .boxed()
    }

    fn check_under_way(&self) -> Result<(), ErrorFrame> {
        if self.under_way.len() < UNDER_WAY {
            return Ok(());
        }
        let message = format!("{UNDER_WAY} requests of this connection are under way; wait for a reply first");
        Err(ErrorFrame::new(ErrorCode::RateLimited, message).retry_after(500))
    }

    /// Whether the connection may follow one more session, those under way included.
    fn check_room(&self, session: Option<SessionId>) -> Result<(), ErrorFrame> {
        let most = self.shared.limits.followed_sessions;
        if session.is_some_and(|session| self.followed.contains(session)) {
            return Ok(());
        }
        if self.followed.len() + Arc::strong_count(&self.room) - 1 < most {
            return Ok(());
        }
        let message = format!("this connection follows {most} sessions, the most it may; send `session.unsubscribe`");
        Err(ErrorFrame::new(ErrorCode::QueueFull, message))
    }

    fn unsubscribe(request_id: Option<RequestId>, session_id: SessionId) -> Step {
        let mut outgoing = vec![Outgoing::Unfollow(session_id)];
        outgoing.extend(ack(request_id, |request_id| ServerFrame::Ack {
            request_id,
            session_id: Some(session_id),
            task_id: None,
            status: None,
            position: None,
        }));
        Step::Now(outgoing)
    }

    async fn resume(
        &mut self,
        request_id: Option<RequestId>,
        session_id: SessionId,
        from: ReplayFrom,
    ) -> Result<Step, ErrorFrame> {
        let shared = Arc::clone(&self.shared);
        let orchestrator = &shared.orchestrator;
        let who = self.client.principal.clone();
        let room = self.check_room(Some(session_id));
        let attachment = async {
            orchestrator.readable_session(&who, session_id).await.map_err(about)?;
            room?;
            replay(orchestrator.hub(), session_id, from, request_id).await
        };
        let attachment = attachment.await.map_err(|error| error.about_session(session_id))?;
        Ok(Step::Now(vec![Outgoing::Follow(Box::new(attachment))]))
    }

    /// Takes a prompt in at once, so that prompts run in the order they came, and waits for the rest
    /// later.
    async fn submit(&mut self, request_id: Option<RequestId>, submit: Submit) -> Result<Step, ErrorFrame> {
        self.check_under_way()?;
        self.check_room(submit.session_id)?;
        let of_session = submit.session_id;
        let batch = submit.mode == Mode::Batch;
        let tell = move |error: ErrorFrame| match of_session {
            Some(session) => error.about_session(session),
            None => error,
        };
        let orchestrator = self.shared.orchestrator.clone();
        let who = self.client.principal.clone();
        let taken = orchestrator.submit(&who, submit).await.map_err(|refusal| tell(about(refusal)))?;
        let echo = request_id.clone();
        let already = of_session.is_some_and(|session| self.followed.contains(session));
        let room = (!already).then(|| Arc::clone(&self.room));
        let outcome = async move {
            let submitted = taken.await.map_err(|refusal| tell(about(refusal)))?;
            let session = submitted.session_id;
            debug!(session.id = %session, task.id = %submitted.task_id, batch, "A prompt was accepted");
            if submitted.creates_session {
                let task = Some(submitted.task_id);
                return ready(&orchestrator, session, task, submitted.follow_after, request_id).await;
            }
            let mut outgoing = ack(request_id, |request_id| ServerFrame::Ack {
                request_id,
                session_id: Some(session),
                task_id: Some(submitted.task_id),
                status: Some(TaskState::Queued.as_str()),
                position: Some(submitted.position),
            });
            outgoing.push(live(orchestrator.hub(), session, submitted.follow_after).await?);
            drop(room);
            Ok(outgoing)
        };
        Ok(Step::Later(Self::or_error(echo, outcome)))
    }
}

/// What a frame comes to.
enum Step {
    /// This, now.
    Now(Vec<Outgoing>),
    /// Something, later.
    Later(Outcome),
}

/// What a client hears of a refusal.
fn about(refusal: Refusal) -> ErrorFrame {
    ErrorFrame::from(refusal)
}

fn ack(request_id: Option<RequestId>, frame: impl FnOnce(RequestId) -> ServerFrame) -> Vec<Outgoing> {
    request_id.map(frame).map(Outgoing::from).into_iter().collect()
}

/// Waits for a new session's container, tells of it, and follows the session.
async fn ready(
    orchestrator: &Orchestrator,
    session: SessionId,
    task: Option<crate::domain::TaskId>,
    follow_after: Seq,
    request_id: Option<RequestId>,
) -> Result<Vec<Outgoing>, ErrorFrame> {
    let mention = |refusal: Refusal| {
        let error = about(refusal).about_session(session);
        match task {
            Some(task) => error.about_task(task),
            None => error,
        }
    };
    let ready = orchestrator.ready(session).await.map_err(mention)?;
    let frame = ServerFrame::SessionReady {
        request_id,
        session_id: session,
        container_id: ready.container_id,
        container_name: ready.container_name,
        profile_id: ready.profile_id,
        task_id: task,
    };
    Ok(vec![frame.into(), live(orchestrator.hub(), session, follow_after).await?])
}

async fn live(hub: &Hub, session: SessionId, after: Seq) -> Result<Outgoing, ErrorFrame> {
    let follow = hub.follow(session).await.map_err(|error| about(error.into()))?;
    let follow = follow.ok_or_else(ErrorFrame::session_not_found)?;
    Ok(Outgoing::Follow(Box::new(Attachment::live(session, follow.after(after)))))
}

/// A replay whose end is fixed now (G3). A cursor beyond it is refused (G6).
async fn replay(
    hub: &Hub,
    session: SessionId,
    from: ReplayFrom,
    request_id: Option<RequestId>,
) -> Result<Attachment, ErrorFrame> {
    let follow = hub.follow(session).await.map_err(|error| about(error.into()))?;
    let follow = follow.ok_or_else(ErrorFrame::session_not_found)?;
    let head = follow.head();
    let after = match from {
        ReplayFrom::After(after) if after > head => {
            let message =
                format!("`after_seq` is {after}, but the last event is {head}; resume from what you have seen");
            let error = ErrorFrame::new(ErrorCode::CursorAhead, message);
            return Err(ErrorFrame { last_seq: Some(head), ..error });
        }
        ReplayFrom::After(after) => after,
        ReplayFrom::Tail(events) => Seq(head.0.saturating_sub(events)),
    };
    Ok(Attachment::replay(session, follow.after(after), head, request_id))
}
