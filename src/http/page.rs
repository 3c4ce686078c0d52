//! `/`: what this is and how to connect, for people who opened the address.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Gateway;

/// A few lines of text.
pub(super) async fn front(State(gateway): State<Gateway>) -> impl IntoResponse {
    let url = gateway.links.public_url();
    let socket = url.replacen("http", "ws", 1);
    let text = format!(
        "streamgate {version}: streams AI agents at work over a WebSocket.

Connect:   {socket}/v1/stream
           with `Authorization: Bearer rc_…`, subprotocol `Bearer.rc_…`, or `?token=rc_…`
           (add the subprotocol `streamgate.v1` for all event types)
Say:       {{\"type\": \"task.submit\", \"prompt\": \"What's the weather?\"}}
Terminal:  streamgate chat --url {url}
REST:      POST {url}/v1/tasks, GET {url}/v1/sessions, GET {url}/v1/profiles, …
Health:    {url}/health, {url}/health/ready
",
        version = env!("CARGO_PKG_VERSION"),
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}
