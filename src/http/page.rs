//! `/`: the dashboard for browsers, a few lines of text for everybody else; `/assets`: what the dashboard loads.
//!
//! The dashboard is a client like any other: a page that speaks `/v1/stream`. It is built from `dashboard/` and
//! carried by the binary, compressed.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, Gateway, not_found};

/// The built files: path, bytes, the same gzipped.
const FILES: &[(&str, &[u8], &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Nothing that is not the dashboard's own may run, load or be framed. Text of agents gets into the page only through
/// its sanitiser, which alone may make markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types dompurify";

/// The dashboard for who takes HTML, else how to connect.
pub(super) async fn front(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    let mut response = if accepts(&headers, header::ACCEPT, "text/html") {
        let mut page = file("index.html", &headers).unwrap_or_default();
        let own = page.headers_mut();
        own.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        own.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        own.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        own.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        own.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
        page
    } else {
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text(gateway.links.public_url())).into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

/// A file that `index.html` names. Its name has a hash of its bytes: it never changes.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let Some(mut response) = file(&format!("assets/{name}"), &headers) else { return Err(not_found().await) };
    let own = response.headers_mut();
    own.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    own.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let (_, plain, gzipped) = FILES.iter().find(|(name, ..)| *name == path)?;
    let kind = match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let kind = [(header::CONTENT_TYPE, kind)];
    Some(if accepts(headers, header::ACCEPT_ENCODING, "gzip") {
        (kind, [(header::CONTENT_ENCODING, "gzip")], *gzipped).into_response()
    } else {
        (kind, *plain).into_response()
    })
}

/// Whether a header's list names `wanted` itself, and not with a weight of 0.
fn accepts(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let named = parts.next().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        named && !parts.any(|part| matches!(part.to_ascii_lowercase().as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn text(url: &str) -> String {
    let socket = url.replacen("http", "ws", 1);
    format!(
        "streamgate {version}: streams AI agents at work over a WebSocket.

Dashboard: {url}/ in a browser
Connect:   {socket}/v1/stream
           with `Authorization: Bearer rc_…`, subprotocol `Bearer.rc_…`, or `?token=rc_…`
           (add the subprotocol `streamgate.v1` for all event types)
Say:       {{\"type\": \"task.submit\", \"prompt\": \"What's the weather?\"}}
Terminal:  streamgate chat --url {url}
REST:      POST {url}/v1/tasks, GET {url}/v1/sessions, GET {url}/v1/profiles, …
Health:    {url}/health, {url}/health/ready
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_who_names_html_gets_the_dashboard() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML;q=0.5", true),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("text/html;q=0, text/plain", false),
        ] {
            assert_eq!(accepts(&with(header::ACCEPT, accept), header::ACCEPT, "text/html"), expected, "{accept}");
        }
    }

    #[test]
    fn every_file_the_page_names_is_there_and_small_when_asked_for_so() {
        let page = FILES.iter().find(|(path, ..)| *path == "index.html").unwrap().1;
        let page = std::str::from_utf8(page).unwrap();
        let named: Vec<_> = page.split('"').filter_map(|text| text.strip_prefix("./")).collect();
        assert!(named.len() >= 3, "{named:?}");
        let all: usize = FILES.iter().map(|(.., gzipped)| gzipped.len()).sum();
        assert!(all < 120 << 10, "the first load is {all} bytes");
        for path in named {
            let zipped = file(path, &with(header::ACCEPT_ENCODING, "br, gzip")).expect(path);
            assert_eq!(zipped.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
            assert!(
                !file(path, &HeaderMap::new()).expect(path).headers().contains_key(header::CONTENT_ENCODING),
                "{path}"
            );
        }
        assert!(!page.contains("<style") && !page.contains("<script>"), "nothing inline");
    }
}
