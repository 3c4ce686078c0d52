//! Which credential a request shows. Reads headers and the query, checks what needs no database.
//!
//! The first one that is present counts (docs/protocol.md §1): a bad one is never made good by another
//! that came along, least of all by a cookie that the browser added by itself.

use axum::http::{HeaderMap, Method, Uri, header};

use super::AuthError;
use super::api_token::{ApiToken, TokenHash};
use super::better_auth::{CookieRefusal, CookieVerifier, SessionToken};
use super::origin::Origins;
use super::subprotocol::{bearer_tokens, decoded, query_values};

const NONE: &str = "a credential is missing: send `Authorization: Bearer rc_…`";
const ILL_FORMED: &str = "this is no API token: it starts with `rc_`, then 48 digits or letters from a to f";
const SEVERAL: &str = "there are several credentials of one kind: send one";

/// What a request shows. A connection keeps it and asks again with it; `Debug` shows nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A well-formed API token, of which only the hash is kept.
    ApiToken(TokenHash),
    /// The token of a session cookie whose signature was right.
    Session(SessionToken),
}

/// Finds credentials in requests.
#[derive(Clone)]
pub(super) struct CredentialReader {
    /// `None`: cookies are none of our business.
    pub(super) cookies: Option<CookieVerifier>,
    pub(super) origins: Origins,
}

impl CredentialReader {
    /// That of a WebSocket handshake. Any page may make a browser send one, cookies and all, and then
    /// read what comes: the origin must be right.
    pub(super) fn of_upgrade(&self, headers: &HeaderMap, uri: &Uri) -> Result<Credential, AuthError> {
        let explicit = authorization(headers).or_else(|| subprotocol(headers)).or_else(|| query(uri));
        explicit.unwrap_or_else(|| self.cookie(headers, self.origins.allow(headers)))
    }

    /// That of a plain request. Browsers send no `Origin` when a page reads from its own server, and
    /// keep answers from pages of others (we allow them nothing by CORS): reading without one is fine.
    /// Whatever changes something does so before anybody reads the answer, so it needs one.
    pub(super) fn of_request(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<Credential, AuthError> {
        let reads = matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::ORIGIN);
        let explicit = authorization(headers).or_else(|| query(uri));
        explicit.unwrap_or_else(|| self.cookie(headers, reads || self.origins.allow(headers)))
    }

    fn cookie(&self, headers: &HeaderMap, origin_allowed: bool) -> Result<Credential, AuthError> {
        let verified = self.cookies.as_ref().map_or(Err(CookieRefusal::Missing), |cookies| cookies.verify(headers));
        match verified {
            Err(CookieRefusal::Missing) => Err(AuthError::Unauthorized(NONE)),
            _ if !origin_allowed => Err(AuthError::OriginRefused),
            Ok(token) => Ok(Credential::Session(token)),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// `Authorization: Bearer …`. Other schemes are somebody else's: a proxy before us may ask for
/// `Basic`, and browsers then send that along everywhere.
fn authorization(headers: &HeaderMap) -> Option<Result<Credential, AuthError>> {
    let tokens = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let value = value.as_bytes().trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, token) = value.split_at(end);
        // What is no text is no token either.
        let token = std::str::from_utf8(token.trim_ascii()).unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"bearer").then_some(token)
    });
    only(tokens).map(|token| token.and_then(parse))
}

fn subprotocol(headers: &HeaderMap) -> Option<Result<Credential, AuthError>> {
    only(bearer_tokens(headers)).map(|token| token.and_then(parse))
}

fn query(uri: &Uri) -> Option<Result<Credential, AuthError>> {
    only(query_values(uri, "token")).map(|value| parse(&decoded(value?).unwrap_or_default()))
}

/// The only one there is. Of several nobody can say which is meant.
fn only<'t>(mut found: impl Iterator<Item = &'t str>) -> Option<Result<&'t str, AuthError>> {
    let first = found.next()?;
    Some(found.next().map_or(Ok(first), |_| Err(AuthError::Unauthorized(SEVERAL))))
}

fn parse(token: &str) -> Result<Credential, AuthError> {
    let token = ApiToken::parse(token).ok_or(AuthError::Unauthorized(ILL_FORMED))?;
    Ok(Credential::ApiToken(token.hash()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};

    use super::*;

    const OWN: (&str, &str) = ("origin", "https://app.test");
    const FOREIGN: (&str, &str) = ("origin", "https://evil.test");
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Which of the tokens below was taken, or why none was.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Outcome {
        Token(char),
        Cookie,
        Missing,
        IllFormed,
        Several,
        BadCookie,
        Origin,
    }
    use Outcome::{BadCookie, Cookie, IllFormed, Missing, Origin, Several, Token};

    fn token(digit: char) -> String {
        format!("rc_{}", digit.to_string().repeat(48))
    }

    fn cookie() -> String {
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(b"session");
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        format!("sid=session.{signature}")
    }

    /// `$a` stands for the token of 48 `a`, `$cookie` for a signed cookie.
    fn fill(text: &str) -> String {
        "abcd"
            .chars()
            .fold(text.replace("$cookie", &cookie()), |text, digit| text.replace(&format!("${digit}"), &token(digit)))
    }

    fn request(headers: &[(&str, &str)], uri: &str) -> (HeaderMap, Uri) {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(&fill(value)).unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        (map, fill(uri).parse().unwrap())
    }

    fn reader() -> CredentialReader {
        CredentialReader {
            cookies: Some(CookieVerifier::new("sid".to_owned(), SECRET).unwrap()),
            origins: Origins::new("https://app.test", &[]).unwrap(),
        }
    }

    fn outcome(found: &Result<Credential, AuthError>) -> Outcome {
        match found {
            Ok(Credential::ApiToken(hash)) => {
                let known = "abcd".chars().find(|digit| ApiToken::parse(&token(*digit)).unwrap().hash() == *hash);
                Token(known.unwrap())
            }
            Ok(Credential::Session(_)) => Cookie,
            Err(AuthError::OriginRefused) => Origin,
            Err(AuthError::Unauthorized(NONE)) => Missing,
            Err(AuthError::Unauthorized(ILL_FORMED)) => IllFormed,
            Err(AuthError::Unauthorized(SEVERAL)) => Several,
            Err(AuthError::Unauthorized(_)) => BadCookie,
            Err(AuthError::Unavailable(_)) => unreachable!("nothing here asks a database"),
        }
    }

    #[test]
    fn on_an_upgrade_the_first_credential_present_counts_and_a_bad_one_is_not_made_good() {
        let everything = [
            ("authorization", "Bearer $a"),
            ("sec-websocket-protocol", "streamgate.v1, Bearer.$b"),
            ("cookie", "$cookie"),
            OWN,
        ];
        for (headers, uri, expected) in [
            (&everything[..], "/?token=$c", Token('a')),
            (&everything[1..], "/?token=$c", Token('b')),
            (&everything[2..], "/?token=$c", Token('c')),
            (&everything[2..], "/", Cookie),
            (&[], "/", Missing),
            // Spellings.
            (&[("authorization", "bearer  $a ")], "/", Token('a')),
            (&[("sec-websocket-protocol", "bearer.$b")], "/", Token('b')),
            (&[("sec-websocket-protocol", "x"), ("sec-websocket-protocol", "BEARER.$b")], "/", Token('b')),
            (&[], "/?x=1&token=rc%5F$c", IllFormed),
            (&[], "/?x=1&token=%72c_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Token('a')),
            (&[("authorization", "Basic dXNlcjpwYXNz"), ("authorization", "Bearer $a")], "/", Token('a')),
            // Another scheme is not ours.
            (&[("authorization", "Basic dXNlcjpwYXNz"), ("cookie", "$cookie"), OWN], "/", Cookie),
            (&[("authorization", "Basic dXNlcjpwYXNz")], "/", Missing),
            // A bad one stays bad.
            (&[("authorization", "Bearer nonsense"), ("cookie", "$cookie"), OWN], "/?token=$c", IllFormed),
            (&[("authorization", "Bearer"), ("cookie", "$cookie"), OWN], "/", IllFormed),
            (&[("authorization", "Bearer $a $b")], "/", IllFormed),
            (&[("authorization", "Bearer $a"), ("authorization", "Bearer $a")], "/", Several),
            (&[("sec-websocket-protocol", "Bearer.nonsense"), ("cookie", "$cookie"), OWN], "/?token=$c", IllFormed),
            (&[("sec-websocket-protocol", "Bearer.$b, Bearer.$b"), ("cookie", "$cookie"), OWN], "/", Several),
            (&[("sec-websocket-protocol", "Bearer.$a"), ("sec-websocket-protocol", "bearer.$b")], "/", Several),
            (&[("cookie", "$cookie"), OWN], "/?token=", IllFormed),
            (&[("cookie", "$cookie"), OWN], "/?token", IllFormed),
            (&[("cookie", "$cookie"), OWN], "/?token=%ff", IllFormed),
            (&[], "/?token=$a&token=$b", Several),
            // Cookies need their origin, before anything is said about them.
            (&[("cookie", "$cookie")], "/", Origin),
            (&[("cookie", "$cookie"), FOREIGN], "/", Origin),
            (&[("cookie", "$cookie"), ("origin", "null")], "/", Origin),
            (&[("cookie", "$cookie"), OWN, OWN], "/", Origin),
            (&[("cookie", "sid=nonsense"), FOREIGN], "/", Origin),
            (&[("cookie", "sid=nonsense"), OWN], "/", BadCookie),
            (&[("cookie", "other=1"), FOREIGN], "/", Missing),
            (&[("cookie", "a=b"), ("cookie", "$cookie"), OWN], "/", Cookie),
            // Tokens need none.
            (&[("authorization", "Bearer $a"), FOREIGN], "/", Token('a')),
        ] {
            let (map, uri) = request(headers, uri);
            assert_eq!(outcome(&reader().of_upgrade(&map, &uri)), expected, "{headers:?} {uri}");
        }
    }

    #[test]
    fn a_plain_request_needs_its_origin_when_a_cookie_changes_something() {
        const WITH_COOKIE: (&str, &str) = ("cookie", "$cookie");
        for (method, headers, uri, expected) in [
            (Method::GET, &[WITH_COOKIE][..], "/", Cookie),
            (Method::HEAD, &[WITH_COOKIE], "/", Cookie),
            (Method::GET, &[WITH_COOKIE, OWN], "/", Cookie),
            (Method::GET, &[WITH_COOKIE, FOREIGN], "/", Origin),
            (Method::POST, &[WITH_COOKIE, OWN], "/", Cookie),
            (Method::POST, &[WITH_COOKIE], "/", Origin),
            (Method::DELETE, &[WITH_COOKIE], "/", Origin),
            (Method::PATCH, &[WITH_COOKIE, FOREIGN], "/", Origin),
            (Method::PUT, &[WITH_COOKIE, ("origin", "null")], "/", Origin),
            (Method::POST, &[("authorization", "Bearer $a")], "/", Token('a')),
            (Method::POST, &[("authorization", "Bearer x"), WITH_COOKIE, OWN], "/", IllFormed),
            (Method::POST, &[WITH_COOKIE, OWN], "/?token=$c", Token('c')),
            // Subprotocols are for WebSockets.
            (Method::GET, &[("sec-websocket-protocol", "Bearer.$b")], "/", Missing),
            (Method::GET, &[], "/", Missing),
        ] {
            let (map, uri) = request(headers, uri);
            assert_eq!(outcome(&reader().of_request(&method, &map, &uri)), expected, "{method} {headers:?} {uri}");
        }
    }

    #[test]
    fn without_better_auth_cookies_are_nothing() {
        let reader = CredentialReader { cookies: None, ..reader() };
        let (map, uri) = request(&[("cookie", "$cookie"), OWN], "/");
        assert_eq!(outcome(&reader.of_upgrade(&map, &uri)), Missing);
    }

    #[test]
    fn debug_shows_nothing_of_a_credential() {
        let (map, uri) = request(&[("authorization", "Bearer $a")], "/");
        assert!(!format!("{:?}", reader().of_upgrade(&map, &uri)).contains("aaaa"));
        let (map, uri) = request(&[("cookie", "$cookie"), OWN], "/");
        assert_eq!(format!("{:?}", reader().of_upgrade(&map, &uri)), "Ok(Session(SessionToken(redacted)))");
    }
}
