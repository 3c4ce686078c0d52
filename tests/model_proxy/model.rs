//! A model that does what the test says, when it says it.

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::world::DEADLINE;

/// A model whose every byte the test decides on.
pub(crate) struct Puppet {
    listener: TcpListener,
    pub(crate) url: String,
}

impl Puppet {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// Whether nobody has come that was not heard.
    pub(crate) fn is_alone(&self) -> bool {
        self.listener.accept().now_or_never().is_none()
    }

    /// The next request, and the connection that its answer goes to.
    pub(crate) async fn asked(&self) -> (String, TcpStream) {
        let asked = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0, "half a request");
            }
            (String::from_utf8(request).unwrap(), stream)
        };
        timeout(DEADLINE, asked).await.expect("the model is not asked")
    }

    /// The connection of the next request, once something of its body is there.
    pub(crate) async fn asked_in_part(&self) -> TcpStream {
        let asked = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut request = Vec::new();
            while String::from_utf8_lossy(&request).split_once("\r\n\r\n").is_none_or(|(_, body)| body.is_empty()) {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0, "no request");
            }
            stream
        };
        timeout(DEADLINE, asked).await.expect("the model is not asked")
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    body.len() >= length
}

/// Begins a stream of events.
pub(crate) async fn begin(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Sends one event.
pub(crate) async fn event(stream: &mut TcpStream, data: &str) {
    let event = format!("data: {data}\n\n");
    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
}

pub(crate) async fn end(stream: &mut TcpStream) {
    stream.write_all(b"0\r\n\r\n").await.unwrap();
}

/// What Anthropic's streams begin with.
pub(crate) const STARTED: &str = r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":50,"output_tokens":1,"cache_read_input_tokens":7}}}"#;

/// Completes when the other side has hung up.
pub(crate) async fn hung_up(stream: &mut TcpStream) {
    let gone = async { while matches!(stream.read(&mut [0; 256]).await, Ok(1..)) {} };
    timeout(DEADLINE, gone).await.expect("the model's connection stays open");
}
