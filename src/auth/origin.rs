//! Which web pages may use a browser's cookies here.
//!
//! A browser sends cookies along with any page's WebSocket handshake, without asking us first, and
//! `SameSite` stops neither sibling subdomains nor other ports. What it can't forge is `Origin`.

use std::fmt;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

/// An origin: scheme, host and port, in lower case and without the scheme's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Reads exactly `scheme://host[:port]`; `None` for anything else, `null` and wildcards too.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_is_legal = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if !scheme_is_legal || authority.contains(['@', '*']) || authority.ends_with(':') {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        let scheme = scheme.to_ascii_lowercase();
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return None;
        }
        // A port that is no number leaves the authority longer than its host.
        let port = match (authority.port_u16(), authority.port()) {
            (Some(port), _) => Some(port),
            (None, None) if authority.as_str().len() == host.len() => None,
            _ => return None,
        };
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(match port.filter(|_| port != default) {
            Some(port) => Self(format!("{scheme}://{host}:{port}")),
            None => Self(format!("{scheme}://{host}")),
        })
    }

    /// The origin of a URL, whose path and query don't matter.
    pub fn of_url(url: &str) -> Option<Self> {
        let after_scheme = url.find("://")? + 3;
        let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
        Self::parse(&url[..end])
    }

    /// Whether its scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A setting that names no origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// `public_url` is not a URL with a host.
    #[error("`public_url` is `{0}`: write it like `https://agents.example.com`")]
    PublicUrl(String),
    /// An entry of the list is not an origin.
    #[error(
        "`auth.allowed_origins` holds `{0}`: write each like `https://app.example.com` or \
         `http://localhost:3000`, without a path or wildcard (names beyond ASCII as `xn--…`)"
    )]
    Allowed(String),
}

/// The origins that may use cookies.
#[derive(Clone, Debug)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// The origin of `public_url`, and those that are `allowed` beside it.
    pub fn new(public_url: &str, allowed: &[String]) -> Result<Self, OriginError> {
        let own = Origin::of_url(public_url).ok_or_else(|| OriginError::PublicUrl(public_url.to_owned()))?;
        let others = allowed.iter().map(|text| {
            // One slash at the end is how browsers show an origin in their address bar.
            let bare = text.strip_suffix('/').unwrap_or(text);
            Origin::parse(bare).ok_or_else(|| OriginError::Allowed(text.clone()))
        });
        std::iter::once(Ok(own)).chain(others).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the request says that it comes from one of them: exactly one `Origin`, equal to one
    /// on the list. `Host` proves nothing and is not asked.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let origin = value.to_str().ok().and_then(Origin::parse);
        origin.is_some_and(|origin| self.0.contains(&origin))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn origins(public_url: &str, allowed: &[&str]) -> Result<Origins, OriginError> {
        Origins::new(public_url, &allowed.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_exactly_one_listed_origin_may_use_cookies() {
        let origins = origins("https://App.example.com/gate?x", &["http://localhost:3000", "https://b.test/"]).unwrap();
        for (sent, expected) in [
            (&["https://app.example.com"][..], true),
            (&["HTTPS://APP.EXAMPLE.COM"], true),
            (&["https://app.example.com:443"], true),
            (&["http://localhost:3000"], true),
            (&["https://b.test"], true),
            (&[], false),
            (&["null"], false),
            (&[""], false),
            (&["https://app.example.com", "https://app.example.com"], false),
            (&["https://app.example.com, https://app.example.com"], false),
            (&["https://app.example.com https://app.example.com"], false),
            (&["http://app.example.com"], false),
            (&["https://app.example.com:8443"], false),
            (&["https://app.example.com:80"], false),
            (&["https://app.example.com:"], false),
            (&["https://app.example.com:99999"], false),
            (&["https://app.example.com/"], false),
            (&["https://app.example.com."], false),
            (&["https://user@app.example.com"], false),
            (&["https://sub.app.example.com"], false),
            (&["https://example.com"], false),
            (&["https://app.example.com.evil.test"], false),
            (&["https://evil-app.example.com"], false),
            (&["http://localhost"], false),
            (&["http://localhost:3001"], false),
            (&["app.example.com"], false),
            (&["://app.example.com"], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("app.example.com"));
            for origin in sent {
                headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            assert_eq!(origins.allow(&headers), expected, "{sent:?}");
        }
    }

    #[test]
    fn an_origin_that_is_not_text_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_bytes(b"https://a.test\xff").unwrap());
        assert!(!origins("https://a.test", &[]).unwrap().allow(&headers));
    }

    #[test]
    fn case_and_the_schemes_own_port_make_no_difference() {
        for (text, expected) in [
            ("HTTP://Example.COM:80", Some("http://example.com")),
            ("https://example.com:443", Some("https://example.com")),
            ("http://example.com:443", Some("http://example.com:443")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[::1]", Some("http://[::1]")),
            ("http://127.0.0.1:080", Some("http://127.0.0.1")),
            ("chrome-extension://abcdef", Some("chrome-extension://abcdef")),
            ("tauri://localhost", Some("tauri://localhost")),
            ("https://", None),
            ("https://a b", None),
            ("https://a.test?x", None),
            ("https://bücher.example", None),
            ("1https://a.test", None),
        ] {
            assert_eq!(Origin::parse(text).map(|origin| origin.0).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_bad_setting_says_which() {
        for bad in ["*", "https://*.example.com", "null", "app.example.com", "https://a.test/path", "https://a.test//"]
        {
            assert_eq!(origins("https://a.test", &[bad]).unwrap_err(), OriginError::Allowed(bad.to_owned()));
        }
        for bad in ["", "example.com", "https://", "https:///x"] {
            assert_eq!(origins(bad, &[]).unwrap_err(), OriginError::PublicUrl(bad.to_owned()));
        }
    }
}
