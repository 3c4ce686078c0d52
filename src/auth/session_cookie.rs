//! A Better Auth session cookie, read and proven without a database.
//!
//! `<name>=encodeURIComponent(token + "." + base64(HMAC-SHA256(secret, token)))`. Source: the behaviour
//! of better-auth 1.7 (`getSignedCookie` of better-call), recorded in `tests/fixtures/better-auth`.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode;
use sha2::{Digest as _, Sha256};

/// Base64 of 32 bytes, its padding included.
const SIGNATURE_LENGTH: usize = 44;

/// Why a cookie opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieRefusal {
    /// There is none of our name, or it is empty.
    #[error("there is no session cookie")]
    Missing,
    /// It is no `token.signature`.
    #[error("the session cookie can't be read")]
    Malformed,
    /// Its signature is base64 that no encoder writes.
    #[error("the session cookie's signature can't be read")]
    BadSignatureEncoding,
    /// It was not signed with our secret.
    #[error("the session cookie's signature is wrong")]
    BadSignature,
    /// The session is not, or no longer, in the database.
    #[error("the session has ended: sign in again")]
    NoSession,
    /// The session's time is over.
    #[error("the session has expired: sign in again")]
    Expired,
    /// The user may not enter.
    #[error("this account is banned")]
    Banned,
}

/// A session's token, whose signature was right. A secret: `Debug` shows none of it.
///
/// The signature has no purpose in it (other cookies are signed alike), so only the session's row
/// proves that this is a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// The token itself, as the database holds it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// What it is remembered by.
    pub(super) fn key(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionToken(redacted)")
    }
}

/// Reads and proves cookies of one name, signed with one secret.
#[derive(Clone)]
pub struct CookieVerifier {
    name: String,
    keyed: Hmac<Sha256>,
}

impl CookieVerifier {
    /// `name` is the cookie's exact name, `secret` Better Auth's: its UTF-8 bytes are the key. Any
    /// length will do (RFC 2104 §2), so the error never comes.
    pub fn new(name: String, secret: &str) -> Result<Self, InvalidLength> {
        Ok(Self { name, keyed: Hmac::new_from_slice(secret.as_bytes())? })
    }

    /// The cookie's exact name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The token of the request's session cookie. Touches no database.
    pub fn verify(&self, headers: &HeaderMap) -> Result<SessionToken, CookieRefusal> {
        let value = self.value(headers).filter(|value| !value.is_empty()).ok_or(CookieRefusal::Missing)?;
        let value = percent_decode_strictly(value).ok_or(CookieRefusal::Malformed)?;
        let (token, signature) = value.rsplit_once('.').ok_or(CookieRefusal::Malformed)?;
        let signature_is_whole = signature.len() == SIGNATURE_LENGTH && signature.ends_with('=');
        // Postgres has no U+0000 in texts: it would fail, where there is just no such session.
        if token.is_empty() || token.contains('\0') || !signature_is_whole {
            return Err(CookieRefusal::Malformed);
        }
        let signature = STANDARD.decode(signature).map_err(|error| match error {
            base64::DecodeError::InvalidLastSymbol(..) => CookieRefusal::BadSignatureEncoding,
            _ => CookieRefusal::Malformed,
        })?;
        let proven = self.keyed.clone().chain_update(token.as_bytes()).verify_slice(&signature);
        proven.map_err(|_| CookieRefusal::BadSignature)?;
        Ok(SessionToken(token.to_owned()))
    }

    /// The first cookie of our name, over all lines of the header (HTTP/2 may split it), as the
    /// library reads it: names keep their case, blanks around don't count, quotes come off.
    fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        let lines = headers.get_all(header::COOKIE).iter();
        let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        pairs.find_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
            let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            (name == self.name.as_bytes()).then_some(bare.unwrap_or(value))
        })
    }
}

/// Decodes once, as UTF-8; `None` where JavaScript's `decodeURIComponent` throws. `+` is no blank.
fn percent_decode_strictly(value: &[u8]) -> Option<String> {
    let mut escapes = value.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let legal =
        escapes.all(|(at, _)| value.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    let text = legal.then(|| percent_decode(value).decode_utf8())?;
    text.ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The recorded cases are in `tests/better_auth.rs`; this is what nobody recorded.
        #[test]
        fn whatever_strangers_send_is_refused_and_harms_nobody(value in "[ -~%.=\";]{0,80}", tail in "(\\.[A-Za-z0-9+/%]{43}=)?") {
            let verifier = CookieVerifier::new("sid".to_owned(), "0123456789abcdef0123456789abcdef").unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(&format!("sid={value}{tail}")).unwrap());
            prop_assert!(verifier.verify(&headers).is_err());
        }
    }

    #[test]
    fn percent_signs_are_read_as_javascript_reads_them() {
        for (value, expected) in [
            (&b"a%2Fb%2f+"[..], Some("a/b/+")),
            (b"%C3%A9", Some("é")),
            (b"%252F", Some("%2F")),
            (b"%C3", None),
            (b"\xff", None),
            (b"%", None),
            (b"a%2", None),
            (b"%ZZ", None),
            (b"%+1", None),
        ] {
            assert_eq!(percent_decode_strictly(value).as_deref(), expected, "{value:?}");
        }
    }
}
