//! A gateway that follows a script.
#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// No wait is longer. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The token that it lets in.
pub(crate) const TOKEN: &str = "rc_test";

/// A gateway that follows a script.
pub(crate) struct Gateway {
    listener: TcpListener,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    /// A client that knocks, and is let wait.
    pub(crate) async fn knock(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap().0
    }

    /// A client that comes in.
    pub(crate) async fn accept(&self) -> Client {
        let stream = self.knock().await;
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/stream");
            assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
            let offered = request.headers()["sec-websocket-protocol"].clone();
            assert_eq!(offered, "streamgate.v1");
            response.headers_mut().insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        Client { socket: tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap() }
    }
}

/// Its only client.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn receive(&mut self) -> Value {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(_) => return Value::Null,
                _ => (),
            }
        }
    }

    pub(crate) async fn send(&mut self, frames: &[Value]) {
        for frame in frames {
            self.socket.send(Message::text(frame.to_string())).await.unwrap();
        }
    }

    pub(crate) async fn close(mut self, code: u16) {
        self.socket.close(Some(CloseFrame { code: code.into(), reason: "{}".into() })).await.unwrap();
        while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
    }

    /// Returns when the client has read all that was sent.
    pub(crate) async fn has_read_all(&mut self) {
        self.socket.send(Message::Ping(Bytes::new())).await.unwrap();
        while !matches!(timeout(PATIENCE, self.socket.next()).await.unwrap(), Some(Ok(Message::Pong(_)))) {}
    }
}
