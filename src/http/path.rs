//! What the paths of routes name. What is no id names nothing: it is answered like an id that is not
//! there, so that neither tells the other apart (PROTOCOL.md §4).

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::{ApiError, Gateway};
use crate::domain::{SessionId, TaskId, TokenId};
use crate::protocol::{ErrorCode, ErrorFrame};

/// A file's path in its workspace, without percent-encoding. Not checked yet.
pub(super) struct FilePath(pub(super) String);

impl FromRequestParts<Gateway> for SessionId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let id = param(parts, gateway, "id").await.as_deref().and_then(Self::parse);
        id.ok_or_else(|| ErrorFrame::session_not_found().into())
    }
}

impl FromRequestParts<Gateway> for TaskId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let id = param(parts, gateway, "id").await.as_deref().and_then(Self::parse);
        id.ok_or_else(|| ErrorFrame::task_not_found().into())
    }
}

impl FromRequestParts<Gateway> for TokenId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let id = param(parts, gateway, "id").await.as_deref().and_then(Self::parse);
        id.ok_or_else(|| token_not_found().into())
    }
}

impl FromRequestParts<Gateway> for FilePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let path = param(parts, gateway, "path").await;
        path.map(Self).ok_or_else(|| ErrorFrame::invalid_field("path", "must be percent-encoded UTF-8").into())
    }
}

/// The same for "not there" and "not yours" (G10).
pub(super) fn token_not_found() -> ErrorFrame {
    ErrorFrame::new(ErrorCode::NotFound, "no such token; `GET /v1/api-tokens` lists yours")
}

/// A part of the path without its percent-encoding; `None` when that is not UTF-8.
async fn param(parts: &mut Parts, gateway: &Gateway, name: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, gateway).await.ok()?;
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
