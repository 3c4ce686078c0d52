//! To come.
use super::ApiError;
pub(super) async fn start() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn list() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn read() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn rename() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn erase() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn events() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
pub(super) async fn profiles() -> ApiError {
    crate::protocol::ErrorFrame::session_not_found().into()
}
