//! A client that writes down every event exactly as it came, over all its connections.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::task::AbortOnDropHandle;

use crate::paced::{Pace, Paced};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_hours(1);

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Stays until it is cut off.
    Steady,
    /// Leaves without a word after a moment, and comes back.
    Flapping,
    /// Does that about ten times a second.
    Fluttering,
    /// Reads a little at a time, so that it is served from the journal.
    Slow,
    /// Stays until it is cut off, even where it hears nothing.
    Patient,
}

/// Where a session is to be had.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    /// How fast those who come in here read.
    pub(crate) pace: Pace,
}

/// A client's connection.
pub(crate) type Socket = WebSocketStream<Paced>;

impl Door {
    /// A socket, if there is one to be had now.
    pub(crate) async fn connect(&self, receive_buffer: Option<u32>) -> Option<Socket> {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut request = format!("ws://{}/v1/stream", self.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        headers.insert("sec-websocket-protocol", "streamgate.v1".parse().unwrap());
        let connect = async {
            let stream = socket.connect(self.address).await.ok()?;
            tokio_tungstenite::client_async(request, Paced::new(stream, self.pace.clone())).await.ok()
        };
        // What is swallowed on the way is not answered.
        tokio::time::timeout(Duration::from_secs(2), connect).await.ok()?.map(|(socket, _)| socket)
    }

    /// A connection that is to last.
    pub(crate) async fn line(&self) -> Line {
        Line::new(self.connect(None).await.expect("a gateway that lets us in"))
    }

    /// Asks until there is an answer, over as many connections as that takes. The request must bear repeating.
    pub(crate) async fn ask(&self, mut request: Value) -> Value {
        request["request_id"] = json!("asked");
        let answered = async {
            loop {
                if let Some(reply) = self.ask_once(&request).await
                    && reply.get("retry_after_ms").is_none()
                {
                    return reply;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(crate::world::PATIENCE, answered).await.expect("an answer in time")
    }

    /// The reply to a request, if it comes.
    pub(crate) async fn ask_once(&self, request: &Value) -> Option<Value> {
        let mut socket = self.connect(None).await?;
        socket.send(Message::text(request.to_string())).await.ok()?;
        let reply = async {
            loop {
                let Message::Text(text) = socket.next().await?.ok()? else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["request_id"] == request["request_id"] {
                    return Some(frame);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reply).await.ok()?
    }
}

/// A connection that is to last: it is an error when it ends. It answers pings whatever the test is at.
pub(crate) struct Line {
    sink: SplitSink<Socket, Message>,
    frames: mpsc::Receiver<Value>,
    _reader: AbortOnDropHandle<()>,
}

/// How many frames may wait for a test that is at something else.
const FRAMES: usize = 10_000;

impl Line {
    fn new(socket: Socket) -> Self {
        let (sink, mut stream) = socket.split();
        let (heard, frames) = mpsc::channel(FRAMES);
        let reader = tokio::spawn(async move {
            // Its end is an error to who still wants a frame.
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    heard.try_send(serde_json::from_str(&text).unwrap()).unwrap();
                }
            }
        });
        Self { sink, frames, _reader: AbortOnDropHandle::new(reader) }
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.sink.send(Message::text(frame.to_string())).await.expect("the connection takes a frame");
    }

    /// The next frame. Cancel safe.
    pub(crate) async fn next(&mut self) -> Value {
        self.frames.recv().await.expect("the connection is open")
    }

    /// The first frame that is this.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let frame = self.next().await;
                if is_it(&frame) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(crate::world::PATIENCE, found).await.expect("the frame in time")
    }
}

/// How long ago an event was stamped.
fn age(event: &Value) -> Duration {
    let stamped = Duration::from_millis(event["ts"].as_u64().unwrap());
    std::time::UNIX_EPOCH.elapsed().unwrap().saturating_sub(stamped)
}

/// What a client saw of a session.
pub(crate) struct Seen {
    pub(crate) manner: Manner,
    /// Each event's `seq` and its frame.
    pub(crate) events: Vec<(i64, String)>,
    /// How often it had to come back, or chose to.
    pub(crate) connections: u32,
    /// The longest time between an event's stamp and its arrival.
    pub(crate) lag: Duration,
}

/// Follows a session from its beginning until `task` has ended.
pub(crate) struct Witness {
    door: Door,
    session: String,
    task: String,
    manner: Manner,
    chance: StdRng,
    events: Vec<(i64, String)>,
    lag: Duration,
    progress: watch::Sender<usize>,
}

impl Witness {
    pub(crate) fn new(
        door: Door,
        session: &str,
        task: &str,
        manner: Manner,
        seed: u64,
        progress: watch::Sender<usize>,
    ) -> Self {
        let (session, task) = (session.to_owned(), task.to_owned());
        Self {
            door,
            session,
            task,
            manner,
            chance: StdRng::seed_from_u64(seed),
            events: Vec::new(),
            lag: Duration::ZERO,
            progress,
        }
    }

    pub(crate) async fn run(mut self) -> Seen {
        let mut connections = 0;
        loop {
            let receive_buffer = matches!(self.manner, Manner::Slow | Manner::Patient).then_some(4 << 10);
            if let Some(socket) = self.door.connect(receive_buffer).await {
                connections += 1;
                if self.follow(socket).await {
                    return Seen { manner: self.manner, events: self.events, connections, lag: self.lag };
                }
            }
            sleep(Duration::from_millis(self.chance.random_range(20..100))).await;
        }
    }

    /// Follows on one connection, from the last event seen. Whether the task has ended.
    async fn follow(&mut self, mut socket: Socket) -> bool {
        let after = self.events.last().map_or(0, |(seq, _)| *seq);
        let resume = json!({"type": "session.resume", "session_id": self.session, "after_seq": after});
        if socket.send(Message::text(resume.to_string())).await.is_err() {
            return false;
        }
        let leave_at = Instant::now()
            + match self.manner {
                Manner::Flapping => Duration::from_millis(self.chance.random_range(30..600)),
                Manner::Fluttering => Duration::from_millis(self.chance.random_range(20..60)),
                Manner::Steady | Manner::Slow | Manner::Patient => FOR_EVER,
            };
        // Who hears nothing at all for so long looks whether somebody else answers.
        let silence = if self.manner == Manner::Patient { FOR_EVER } else { Duration::from_secs(10) };
        loop {
            let silence = sleep(silence);
            let message = tokio::select! {
                message = socket.next() => message,
                () = sleep_until(leave_at) => None,
                () = silence => None,
            };
            let Some(Ok(message)) = message else { return false };
            if let Message::Close(Some(close)) = &message {
                sleep(told_to_wait(close)).await;
                return false;
            }
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            let Some(seq) = frame["seq"].as_i64() else {
                if frame["type"] == "error" {
                    // Only what says when to come back may stand between a client and its session.
                    assert!(frame["retry_after_ms"].is_u64(), "{frame}");
                    return false;
                }
                continue;
            };
            let last = self.events.last().map_or(0, |(seq, _)| *seq);
            assert!(seq > last, "{:?}: {seq} after {last}", self.manner);
            self.events.push((seq, text.as_str().to_owned()));
            self.lag = self.lag.max(age(&frame));
            self.progress.send_replace(self.events.len());
            if frame["task_id"] == self.task.as_str()
                && (frame["type"] == "task:done" || frame["type"] == "task:failed")
            {
                return true;
            }
            if self.manner == Manner::Slow && self.events.len().is_multiple_of(40) {
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

/// When a close says that a client is to come back.
fn told_to_wait(close: &CloseFrame) -> Duration {
    let reason: Value = serde_json::from_str(&close.reason).unwrap();
    Duration::from_millis(reason["retry_after_ms"].as_u64().unwrap_or(0))
}
