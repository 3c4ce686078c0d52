//! A client that knows nothing but the wire.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::PATIENCE;

/// A client on a socket.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came before the reply to which they belong: they are next.
    early: VecDeque<String>,
}

impl Client {
    /// On a socket that is open.
    pub(crate) fn on(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket, early: VecDeque::new() }
    }

    pub(crate) async fn connect(address: SocketAddr, token: &str, extended: bool) -> Self {
        let mut request = format!("ws://{address}/v1/stream").into_client_request().unwrap();
        let authorization = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", authorization);
        if extended {
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("streamgate.v1"));
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self::on(socket)
    }

    /// Sends a JSON frame.
    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame's text, exactly as it came.
    pub(crate) async fn next_text(&mut self) -> String {
        if let Some(text) = self.early.pop_front() {
            return text;
        }
        // Of the whole wait: the gateway's pings would renew that of one message for ever.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let message = tokio::time::timeout_at(deadline, self.socket.next()).await.expect("a frame in time");
            match message.expect("the socket is open").expect("the socket works") {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => (),
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// Every frame up to the first that satisfies `is_last`, that one included.
    pub(crate) async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            let last = is_last(&frame);
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// Every frame up to the first of a type, that one included.
    pub(crate) async fn until_type(&mut self, kind: &str) -> Vec<Value> {
        self.until(|frame| frame["type"] == kind).await
    }

    /// The first frame of a type; what comes before is passed over.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        self.until_type(kind).await.pop().unwrap()
    }

    /// Every frame of a task up to its end.
    pub(crate) async fn until_task_end(&mut self) -> Vec<Value> {
        self.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await
    }

    /// Sends a frame with a `request_id` and returns its direct reply. Other frames are passed over, but
    /// not those of the task that the reply tells of: they may come before it.
    pub(crate) async fn request(&mut self, mut frame: Value) -> Value {
        let id = uuid::Uuid::now_v7().to_string();
        frame["request_id"] = json!(id);
        let submits = frame["type"] == "session.turn" || frame["type"] == "task.submit";
        self.send(frame).await;
        let mut frames = self.until(|frame| frame["request_id"] == id.as_str()).await;
        let reply = frames.pop().unwrap();
        if submits && reply["task_id"].is_string() {
            let of_task = frames.iter().filter(|frame| frame["task_id"] == reply["task_id"]);
            self.early.extend(of_task.map(Value::to_string));
        }
        reply
    }

    /// A new session: its `session.ready`.
    pub(crate) async fn start_session(&mut self) -> Value {
        let ready = self.request(json!({"type": "session.start"})).await;
        assert_eq!(ready["type"], "session.ready", "{ready}");
        ready
    }

    /// Submits a prompt in a new session and returns all frames up to the task's end.
    pub(crate) async fn run(&mut self, prompt: &str) -> Vec<Value> {
        self.send(json!({"type": "task.submit", "prompt": prompt})).await;
        self.until_task_end().await
    }

    /// Submits a prompt in a session and returns all frames up to the task's end.
    pub(crate) async fn turn(&mut self, session: &str, prompt: &str) -> Vec<Value> {
        self.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        self.until_task_end().await
    }

    /// How the server closes the socket; frames before that are passed over. `None`: without a close frame.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.socket.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => (),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// The `type` of each frame.
pub(crate) fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

/// The frames of a type.
pub(crate) fn of_type<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == kind).collect()
}

/// The text that was streamed.
pub(crate) fn streamed(frames: &[Value]) -> String {
    of_type(frames, "task:token").iter().map(|frame| frame["text"].as_str().unwrap()).collect()
}
