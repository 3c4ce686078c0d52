//! What a WebSocket client offers as subprotocols, and which one it gets.
//!
//! Browsers can't set headers on a WebSocket, but they can offer subprotocols: a token rides there.
//! The header is read here by hand, because axum's view of it loses order and case.

use axum::http::{HeaderMap, Uri, header};

/// Offered by clients that know more than the document's events.
pub const EXTENDED: &str = "streamgate.v1";
const BEARER: &str = "bearer.";

/// The subprotocol to answer with: `streamgate.v1` if it was offered, so that no token is reflected;
/// else the `Bearer.<token>` that was, since browsers fail a connection whose offer is answered by
/// none (WHATWG, "establish a WebSocket connection").
pub fn select_subprotocol(headers: &HeaderMap) -> Option<String> {
    let extended = offered(headers).any(|entry| entry == EXTENDED);
    let bearer = || offered(headers).find(|entry| bearer_token(entry).is_some());
    if extended { Some(EXTENDED.to_owned()) } else { bearer().map(str::to_owned) }
}

/// Whether the client asked for the extended events: by subprotocol or by `?protocol=`.
pub fn wants_extended(headers: &HeaderMap, uri: &Uri) -> bool {
    offered(headers).any(|entry| entry == EXTENDED)
        || query_values(uri, "protocol").any(|value| decoded(value).as_deref() == Some(EXTENDED))
}

/// The tokens that were offered as `Bearer.<token>`, the word in any case.
pub(super) fn bearer_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    offered(headers).filter_map(bearer_token)
}

/// The values of `name` in the query, still percent-encoded.
pub(super) fn query_values<'u>(uri: &'u Uri, name: &'u str) -> impl Iterator<Item = &'u str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).filter(move |(key, _)| *key == name).map(|(_, v)| v)
}

/// A query value without its percent-encoding.
pub(super) fn decoded(value: &str) -> Option<String> {
    percent_encoding::percent_decode_str(value).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Everything that was offered, over all the lines of the header. A line that is not text offers
/// nothing: no subprotocol has such characters.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

fn bearer_token(entry: &str) -> Option<&str> {
    let (word, token) = entry.split_at_checked(BEARER.len())?;
    word.eq_ignore_ascii_case(BEARER).then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn the_answer_is_streamgate_v1_or_else_the_bearer_entry_as_it_was_offered() {
        for (lines, selected, extended) in [
            (&[][..], None, false),
            (&[""], None, false),
            (&["streamgate.v1"], Some("streamgate.v1"), true),
            (&["Bearer.rc_1, streamgate.v1"], Some("streamgate.v1"), true),
            (&["streamgate.v1,Bearer.rc_1"], Some("streamgate.v1"), true),
            (&["Bearer.rc_1", "streamgate.v1"], Some("streamgate.v1"), true),
            (&["Bearer.rc_1"], Some("Bearer.rc_1"), false),
            (&["bearer.rc_1"], Some("bearer.rc_1"), false),
            (&["BEARER.Rc_1"], Some("BEARER.Rc_1"), false),
            (&["graphql-ws ,  Bearer.rc_1 "], Some("Bearer.rc_1"), false),
            (&["Bearer.rc_1, Bearer.rc_2"], Some("Bearer.rc_1"), false),
            (&["Bearer."], Some("Bearer."), false),
            (&["STREAMGATE.V1"], None, false),
            (&["graphql-ws"], None, false),
            (&["Bearer"], None, false),
            (&["xBearer.rc_1"], None, false),
        ] {
            let headers = headers(lines);
            assert_eq!(select_subprotocol(&headers).as_deref(), selected, "{lines:?}");
            assert_eq!(wants_extended(&headers, &Uri::from_static("/v1/stream")), extended, "{lines:?}");
        }
    }

    #[test]
    fn the_query_asks_for_the_extended_events_too() {
        for (uri, expected) in [
            ("/v1/stream?protocol=streamgate.v1", true),
            ("/v1/stream?a=b&protocol=streamgate%2Ev1", true),
            ("/v1/stream?protocol=streamgate.v2", false),
            ("/v1/stream?protocol", false),
            ("/v1/stream?xprotocol=streamgate.v1", false),
        ] {
            assert_eq!(wants_extended(&HeaderMap::new(), &Uri::from_static(uri)), expected, "{uri}");
        }
    }

    #[test]
    fn tokens_keep_their_case_and_their_order() {
        let headers = headers(&["Bearer.B, streamgate.v1", "bEARER.a"]);
        assert_eq!(bearer_tokens(&headers).collect::<Vec<_>>(), ["B", "a"]);
    }
}
