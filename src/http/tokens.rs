//! To come.
use super::ApiError;
pub(super) async fn create() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn list() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn revoke() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
