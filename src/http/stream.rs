//! `GET /v1/stream`: authenticates, upgrades, hands the socket over.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, Gateway, auth_error};
use crate::auth::{self, AuthError};
use crate::connection::{self, Client, Peer, TooMany};
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame};

/// Measured: a third of the capacity against the library's 128 KiB.
const READ_BUFFER: usize = 4 << 10;
/// Coalesces what is fed between two flushes.
const WRITE_BUFFER: usize = 16 << 10;

/// Upgrades. A client that may not come in is upgraded all the same and then told why: a browser can't
/// read the HTTP status of a failed upgrade.
pub(super) async fn upgrade(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return not_a_websocket(&rejection),
    };
    let mut upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_frame_size(gateway.limits.frame_bytes)
        .max_message_size(gateway.limits.frame_bytes);
    if let Some(protocol) = auth::select_subprotocol(&headers).and_then(|name| HeaderValue::from_str(&name).ok()) {
        upgrade.set_selected_protocol(protocol);
    }
    match admit(&gateway, &peer, &headers, &uri).await {
        Ok(client) => upgrade.on_upgrade(move |socket| connection::serve(gateway, socket, client)),
        Err((error, code)) => upgrade.on_upgrade(move |socket| connection::refuse(gateway, socket, *error, code)),
    }
}

async fn admit(
    gateway: &Gateway,
    peer: &Peer,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Client, (Box<ErrorFrame>, CloseCode)> {
    let refused = |error: AuthError| {
        let code = match error {
            AuthError::Unauthorized(_) => CloseCode::Unauthorized,
            AuthError::OriginRefused => CloseCode::OriginRefused,
            AuthError::Unavailable(_) => CloseCode::TryLater,
        };
        (Box::new(auth_error(&error)), code)
    };
    gateway.connections.arrive().map_err(too_many)?;
    let credential = gateway.authenticator.credential_from_upgrade(headers, uri).map_err(refused)?;
    let principal = gateway.authenticator.authenticate(&credential).await.map_err(refused)?;
    let permit = gateway.connections.enter(&principal.user).map_err(too_many)?;
    let extended = auth::wants_extended(headers, uri);
    Ok(Client { principal, credential, extended, permit, progress: Arc::clone(&peer.progress) })
}

fn too_many(why: TooMany) -> (Box<ErrorFrame>, CloseCode) {
    (Box::new(why.error()), CloseCode::TooManyConnections)
}

/// Somebody opened the address in a browser, or a proxy does not pass upgrades on.
fn not_a_websocket(rejection: &WebSocketUpgradeRejection) -> Response {
    let message =
        format!("this address speaks WebSocket: {rejection}; a proxy must pass `Upgrade` and `Connection` on");
    let error = ApiError::from(ErrorFrame::new(ErrorCode::ValidationFailed, message));
    let mut response = (StatusCode::UPGRADE_REQUIRED, error.into_response().into_body()).into_response();
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
