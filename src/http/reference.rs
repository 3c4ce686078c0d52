//! What the gateway says of itself: `/v1/openapi.json` and `/v1/asyncapi.json`, for programs, and `/docs`, for
//! people.
//!
//! They are the files of `schemas/`, as they are: nothing is made while the gateway runs.

mod page;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::openapi;
use crate::protocol::asyncapi;

/// The page has a style of its own and needs nothing else.
const POLICY: &str = concat!(
    "default-src 'none'; style-src '",
    include_str!("../../schemas/docs.css.hash"),
    "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// `GET /v1/openapi.json`: what is beside the socket.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../schemas/openapi.json")).into_response()
}

/// `GET /v1/asyncapi.json`: the socket.
pub(super) async fn asyncapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../schemas/asyncapi.json")).into_response()
}

/// `GET /docs`: both, to be read.
pub(super) async fn docs() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("../../schemas/docs.html")).into_response()
}

/// The files of `schemas/` as the types give them: their names and what is in them.
pub fn documents() -> [(&'static str, String); 4] {
    let (rest, socket) = (openapi::document(), asyncapi::document());
    [
        ("docs.html", page::render(&rest, &socket)),
        ("docs.css.hash", format!("sha256-{}", STANDARD.encode(Sha256::digest(page::STYLE)))),
        ("openapi.json", format!("{rest:#}\n")),
        ("asyncapi.json", format!("{socket:#}\n")),
    ]
}
