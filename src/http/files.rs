//! `/v1/sessions/{id}/files`: the files of a session's workspace, listed, read and written.
//!
//! Files are an agent's work and nobody vouches for them: they are served so that a browser runs
//! nothing of them in this origin. A signed link (`?_pvt=`) opens its one file for reading without a
//! credential; of a link that does not, a credential that came along may still read.

use axum::Json;
use std::error::Error as _;
use std::io;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use http_body_util::LengthLimitError;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::path::FilePath;
use super::query::Query;
use super::{ApiError, Gateway, too_large};
use crate::auth::{AuthError, Principal};
use crate::domain::{SessionId, SessionStatus};
use crate::orchestrator::{Refusal, internal_error};
use crate::protocol::{ErrorCode, ErrorFrame};
use crate::runtime::workspace::{FileEntry, Workspace, WorkspaceError};
use crate::store::SessionRecord;

/// When to try again when there is no room for a file, in milliseconds.
const DISK_FULL_MS: u64 = 60_000;
/// What stops a file from being a page of this origin.
const SANDBOX: &str = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The files of a workspace.
#[derive(Serialize, JsonSchema)]
pub(super) struct FileList {
    /// In order of their paths.
    files: Vec<FileEntry>,
}

/// `GET /v1/sessions/{id}/files`: all of them; none while the session has had no container.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
) -> Result<Json<FileList>, ApiError> {
    let session = gateway.orchestrator.readable_session(&who, id).await?;
    let files = match workspace(&gateway, &session) {
        Some(workspace) => workspace.list().await.map_err(error)?,
        None => Vec::new(),
    };
    Ok(Json(FileList { files }))
}

/// `GET /v1/sessions/{id}/files/{path}`, with a credential or a signed link.
pub(super) async fn read(
    State(gateway): State<Gateway>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    id: Result<SessionId, ApiError>,
    path: Result<FilePath, ApiError>,
    mut query: Query,
) -> Result<Response, ApiError> {
    let link = query.text("_pvt");
    let opened = match (&id, &path, &link) {
        (Ok(id), Ok(FilePath(path)), Some(token)) => gateway.links.opens(token, *id, path),
        _ => false,
    };
    let session = if opened {
        gateway.orchestrator.store().session(id?).await?.ok_or(Refusal::SessionNotFound)?
    } else {
        let who = reader(&gateway, &method, &headers, &uri).await.map_err(|error| match (error, &link) {
            (AuthError::Unauthorized(_), Some(_)) => ErrorFrame::new(
                ErrorCode::Unauthorized,
                "this link has expired or is for something else; a replay of the session holds a fresh one",
            )
            .into(),
            (error, _) => ApiError::from(error),
        })?;
        gateway.orchestrator.readable_session(&who, id?).await?
    };
    let FilePath(path) = path?;
    let file = match workspace(&gateway, &session) {
        Some(workspace) => {
            workspace.open_file(&path, gateway.limits.file_bytes as u64).await.map_err(|cause| match cause {
                WorkspaceError::NotAFile => file_not_found().into(),
                cause => error(cause),
            })?
        }
        None => None,
    };
    let (file, size) = file.ok_or_else(file_not_found)?;
    // Piece by piece, as fast as the client takes it. One that shrinks meanwhile breaks off, short of its length.
    let pieces = ReaderStream::new(tokio::fs::File::from_std(file).take(size));
    Ok((served_as(&path), [(header::CONTENT_LENGTH, size)], Body::from_stream(pieces)).into_response())
}

/// `PUT /v1/sessions/{id}/files/{path}`: the body is the file. 201 when there was none, else 204.
pub(super) async fn write(
    State(gateway): State<Gateway>,
    who: Principal,
    id: SessionId,
    FilePath(path): FilePath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let session = gateway.orchestrator.own_session(&who, id).await?;
    if session.status == SessionStatus::Closed {
        return Err(Refusal::SessionClosed.into());
    }
    let workspace = workspace(&gateway, &session).ok_or_else(|| {
        ErrorFrame::new(ErrorCode::Conflict, "the session has no container yet; try again when it has, or send a turn")
    })?;
    // Whether it is there, without reading it.
    let replaces = match workspace.open_file(&path, u64::MAX).await {
        Ok(found) => found.is_some(),
        Err(WorkspaceError::NotAFile) => false,
        Err(cause) => return Err(error(cause)),
    };
    let mut draft = workspace.draft(&path).await.map_err(error)?;
    let (mut body, mut left) = (request.into_body().into_data_stream(), gateway.limits.file_bytes);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|cause| match cause.source() {
            Some(cause) if cause.is::<LengthLimitError>() => too_large(gateway.limits.file_bytes),
            _ => ErrorFrame::new(ErrorCode::ValidationFailed, "the body could not be read to its end; send it again"),
        })?;
        left = left.checked_sub(piece.len()).ok_or_else(|| too_large(gateway.limits.file_bytes))?;
        draft.append(piece).await.map_err(error)?;
    }
    draft.finish().await.map_err(error)?;
    Ok(if replaces { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

async fn reader(gateway: &Gateway, method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<Principal, AuthError> {
    let credential = gateway.authenticator.credential_from_request(method, headers, uri)?;
    gateway.authenticator.authenticate(&credential).await
}

/// A session's files; `None` while it has had no container.
fn workspace(gateway: &Gateway, session: &SessionRecord) -> Option<Workspace> {
    session.container.map(|container| gateway.orchestrator.pool().workspace(container))
}

fn file_not_found() -> ErrorFrame {
    ErrorFrame::new(ErrorCode::NotFound, "no such file; `GET …/files` lists those there are")
}

/// What clients hear of a file that could not be had.
fn error(error: WorkspaceError) -> ApiError {
    match error {
        WorkspaceError::BadPath(_) => {
            ErrorFrame::invalid_field("path", "must be relative, without `..`, and name a file")
        }
        WorkspaceError::NotAFile => {
            ErrorFrame::invalid_field("path", "must name a regular file inside the workspace, or a new one")
        }
        WorkspaceError::TooLarge { limit } => ErrorFrame::new(
            ErrorCode::PayloadTooLarge,
            format!("the file is over {limit} bytes, the most there may be"),
        ),
        WorkspaceError::Io(cause)
            if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            ErrorFrame::new(ErrorCode::StorageUnavailable, "the gateway's disk is full; try again later")
                .retry_after(DISK_FULL_MS)
        }
        WorkspaceError::Io(cause) => internal_error(&format!("a file of a workspace: {cause}")),
    }
    .into()
}

/// How a browser is to take a file.
fn served_as(path: &str) -> HeaderMap {
    let name = path.rsplit('/').next().unwrap_or(path);
    let kind = content_type(name);
    let inline = kind.starts_with("image/") || kind.starts_with("text/") || kind == "application/pdf";
    let disposition = format!(
        "{}; filename*=UTF-8''{}",
        if inline { "inline" } else { "attachment" },
        utf8_percent_encode(name, NON_ALPHANUMERIC)
    );
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    // A sandbox would also keep browsers from showing a PDF, whose scripts have no origin anyway.
    if kind != "application/pdf" {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
    headers
}

/// By the name's end. Programs are text: nothing that is served here may be run by a page.
fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "ico" => "image/x-icon",
        "svg" => "image/svg+xml",
        "htm" | "html" => "text/html; charset=utf-8",
        "md" | "markdown" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "txt" | "log" | "text" | "toml" | "yaml" | "yml" | "ini" | "rs" | "py" | "js" | "mjs" | "ts" | "tsx"
        | "jsx" | "css" | "sh" | "c" | "h" | "cpp" | "hpp" | "go" | "java" | "rb" | "sql" | "diff" | "patch" => {
            "text/plain; charset=utf-8"
        }
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_served_can_be_a_page_of_ours() {
        for (path, kind, disposition, sandboxed) in [
            ("plots/a.png", "image/png", "inline", true),
            ("A.SVG", "image/svg+xml", "inline", true),
            ("x.html", "text/html; charset=utf-8", "inline", true),
            ("x.js", "text/plain; charset=utf-8", "inline", true),
            ("x.pdf", "application/pdf", "inline", false),
            ("x.xml", "application/xml", "attachment", true),
            ("x.xhtml", "application/octet-stream", "attachment", true),
            ("png", "application/octet-stream", "attachment", true),
        ] {
            let headers = served_as(path);
            assert_eq!(headers[header::CONTENT_TYPE], kind, "{path}");
            assert!(headers[header::CONTENT_DISPOSITION].to_str().unwrap().starts_with(disposition), "{path}");
            assert_eq!(headers.contains_key(header::CONTENT_SECURITY_POLICY), sandboxed, "{path}");
        }
    }

    #[test]
    fn a_name_can_not_break_out_of_its_header() {
        let headers = served_as("a/\"x\r\né;.txt");
        assert_eq!(headers[header::CONTENT_DISPOSITION], "inline; filename*=UTF-8''%22x%0D%0A%C3%A9%3B%2Etxt");
    }
}
