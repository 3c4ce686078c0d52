//! Sends back what it gets, on a socket like that of a client: what the Autobahn test suite needs.
//! `scripts/autobahn` runs it. Prints `ws://HOST:PORT/` and serves until its stdin ends.
//!
//! The shipped binary has no such route. Two things differ from `/v1/stream`, because the cases want them so:
//! binary frames are read, and frames may be larger.

use std::io::Write as _;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use streamgate::config::LimitsConfig;
use streamgate::connection::socket::{self, CLOSE_GRACE, End, Sink, Stream};
use streamgate::http::server::{Server, SocketLimits};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The largest message of the cases has 16 MiB.
const FRAME_BYTES: usize = 16 << 20;
/// The suite uses one at a time.
const SOCKETS: usize = 16;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(std::io::stdout(), "ws://{}/", listener.local_addr()?)?;
    let routes = Router::new().route("/", get(upgrade));
    let _server = Server::start(listener, routes, SocketLimits::new(SOCKETS, &LimitsConfig::default()));
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(())
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    socket::set_up(upgrade, FRAME_BYTES).on_upgrade(serve)
}

async fn serve(socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let end = echo(&mut sink, &mut stream).await;
    let _ = timeout(CLOSE_GRACE, socket::close(&mut sink, &mut stream, end, None)).await;
}

async fn echo(sink: &mut Sink, stream: &mut Stream) -> End {
    loop {
        match stream.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if sink.send(message).await.is_err() {
                    return End::Gone;
                }
            }
            read => {
                if let Some(end) = socket::end_of(read.as_ref()) {
                    return end;
                }
            }
        }
    }
}
