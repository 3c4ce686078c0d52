//! To come.
use super::ApiError;
pub(super) async fn list() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn read() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn write() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
