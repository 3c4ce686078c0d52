//! To come.
use super::ApiError;
pub(super) async fn submit() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn list() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn read() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn cancel() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn answer() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
