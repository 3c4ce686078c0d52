//! Which requests are let through.

use axum::http::Method;

/// The patterns of a profile. In them `*` stands for one or more characters other than `/` and `:`, `**` for any.
pub(super) struct Paths(Vec<String>);

impl Paths {
    pub(super) fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether `path`, as it came, may be requested like this.
    pub(super) fn allow(&self, method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD | Method::POST)
            && !is_ambiguous(path)
            && self.0.iter().any(|pattern| matches(pattern.as_bytes(), path.as_bytes()))
    }
}

/// Whether a server may take it for another path than we do. What need not be escaped (RFC 3986 §2.3) is not.
fn is_ambiguous(path: &str) -> bool {
    let escaped = |byte: u8| {
        matches!(byte, b'/' | b'\\' | b'.' | b'%' | b'-' | b'_' | b'~')
            || byte.is_ascii_alphanumeric()
            || byte.is_ascii_control()
    };
    let hides = path.split('%').skip(1).any(|rest| {
        let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_none_or(escaped)
    });
    hides || path.contains('\\') || path.contains("//") || path.split('/').any(|part| part == "." || part == "..")
}

fn matches(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|taken| matches(rest, &path[taken..])),
        [b'*', rest @ ..] => {
            let most = path.iter().take_while(|byte| !matches!(byte, b'/' | b':')).count();
            (1..=most).any(|taken| matches(rest, &path[taken..]))
        }
        [byte, rest @ ..] => path.first() == Some(byte) && matches(rest, &path[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelApiConfig, ModelApiKind};

    fn defaults(kind: ModelApiKind) -> Paths {
        Paths::new(ModelApiConfig { kind, ..ModelApiConfig::default() }.paths())
    }

    #[test]
    fn agents_get_what_they_need_and_no_more() {
        for (kind, path, allowed) in [
            (ModelApiKind::Anthropic, "/v1/messages", true),
            (ModelApiKind::Anthropic, "/v1/messages/count_tokens", true),
            (ModelApiKind::Anthropic, "/v1/models/claude-sonnet-4-5", true),
            (ModelApiKind::Anthropic, "/v1/messages/batches", false),
            (ModelApiKind::Anthropic, "/v1/messagesx", false),
            (ModelApiKind::Anthropic, "/v1/files", false),
            (ModelApiKind::Anthropic, "/v1/organizations/api_keys", false),
            (ModelApiKind::Anthropic, "/", false),
            (ModelApiKind::Openai, "/v1/chat/completions", true),
            (ModelApiKind::Openai, "/v1/responses", true),
            (ModelApiKind::Openai, "/v1/models", true),
            (ModelApiKind::Openai, "/v1/responses/resp_1", false),
            (ModelApiKind::Openai, "/v1/files", false),
            (ModelApiKind::Gemini, "/v1beta/models/gemini-2.5-pro:generateContent", true),
            (ModelApiKind::Gemini, "/v1beta/models/gemini-2.5-pro:streamGenerateContent", true),
            (ModelApiKind::Gemini, "/v1beta/models/gemini-2.5-pro:countTokens", true),
            (ModelApiKind::Gemini, "/v1beta/models/gemini-2.5-pro", true),
            (ModelApiKind::Gemini, "/v1beta/models/gemini-2.5-pro:batchGenerateContent", false),
            (ModelApiKind::Gemini, "/v1beta/models/a/b:generateContent", false),
            (ModelApiKind::Gemini, "/v1beta/cachedContents", false),
        ] {
            assert_eq!(defaults(kind).allow(&Method::POST, path), allowed, "{path}");
        }
        let anthropic = defaults(ModelApiKind::Anthropic);
        assert!(anthropic.allow(&Method::GET, "/v1/models") && anthropic.allow(&Method::HEAD, "/v1/models"));
        assert!(!anthropic.allow(&Method::DELETE, "/v1/models/x") && !anthropic.allow(&Method::PUT, "/v1/messages"));
    }

    #[test]
    fn no_spelling_leads_elsewhere() {
        let all = Paths::new(vec!["/v1/**".to_owned()]);
        assert!(all.allow(&Method::GET, "/v1/a/b:c") && all.allow(&Method::GET, "/v1/ft%3Ax"));
        for path in [
            "/v1/../admin",
            "/v1/./x",
            "/v1//x",
            "/v1/%2e%2e/x",
            "/v1/%2Fx",
            "/v1/%252e",
            "/v1/a\\b",
            "/v1/%",
            "/v1/%0a",
            "/v1/chat/complet%69ons",
        ] {
            assert!(!all.allow(&Method::GET, path), "{path}");
        }
    }
}
