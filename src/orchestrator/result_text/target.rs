//! Which links name a file of the session's workspace, and what is journalled for them.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::protocol::event::{LINK_CLOSE, LINK_OPEN};

/// The unreserved characters of RFC 3986 §2.3 stay.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What could end a destination or an attribute, or be an entity.
const SUFFIX: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'`');

/// The placeholder for a link to `destination` (Markdown's and HTML's escapes undone), or `None` if
/// that names no file of the workspace. A fragment stays behind the placeholder; so does a query, as
/// `&…`, because the signed address has a query of its own.
pub(super) fn placeholder_for(destination: &str) -> Option<String> {
    let path_end = destination.find(['?', '#']).unwrap_or(destination.len());
    let (address, suffix) = destination.split_at(path_end);
    let path = normalize(path_in_workspace(address)?)?;
    let suffix = match suffix.strip_prefix('?') {
        Some(query) if query.is_empty() || query.starts_with('#') => query.to_owned(),
        Some(query) => format!("&{query}"),
        None => suffix.to_owned(),
    };
    Some(format!("{LINK_OPEN}{path}{LINK_CLOSE}{}", utf8_percent_encode(&suffix, SUFFIX)))
}

/// What follows the workspace's own path, still percent-encoded.
fn path_in_workspace(address: &str) -> Option<&str> {
    let is = |name: &str| scheme(address).is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    let address = if is("file") {
        without_host(&address["file:".len()..]).filter(|path| path.starts_with('/'))?
    } else if is("sandbox") {
        without_host(&address["sandbox:".len()..])?
    } else if scheme(address).is_some() || address.starts_with("//") {
        return None;
    } else {
        address
    };
    if address.starts_with('/') { address.strip_prefix("/workspace/") } else { Some(address) }
}

/// The path behind `file:` (RFC 8089 §2: no host is the same as `localhost`).
fn without_host(rest: &str) -> Option<&str> {
    match rest.strip_prefix("//") {
        None => Some(rest),
        Some(rest) => rest.strip_prefix("localhost").or(Some(rest)).filter(|path| path.starts_with('/')),
    }
}

/// The scheme, as RFC 3986 §3.1 spells it.
fn scheme(address: &str) -> Option<&str> {
    let (scheme, _) = address.split_once(':')?;
    let legal = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    legal.then_some(scheme)
}

/// Resolves `.` and `..` and encodes every segment anew. `None` for what escapes the workspace, is
/// the workspace or a directory itself, or hides a separator or a control character.
fn normalize(path: &str) -> Option<String> {
    let mut segments: Vec<String> = Vec::new();
    let mut is_file = false;
    for segment in path.split('/') {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        if segment.contains(|character: char| character.is_control() || matches!(character, '/' | '\\')) {
            return None;
        }
        is_file = false;
        match &*segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            name => {
                segments.push(utf8_percent_encode(name, SEGMENT).to_string());
                is_file = true;
            }
        }
    }
    is_file.then(|| segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(destination: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(path, suffix)| format!("{LINK_OPEN}{path}{LINK_CLOSE}{suffix}"));
        assert_eq!(placeholder_for(destination), expected, "{destination}");
    }

    #[test]
    fn a_file_of_the_workspace_is_named_by_its_normal_path() {
        check("a.png", Some(("a.png", "")));
        check("./out//b/../a b.png", Some(("out/a%20b.png", "")));
        check("a%20b%28c%29.png", Some(("a%20b%28c%29.png", "")));
        check("100%.png", Some(("100%25.png", "")));
        check("é\"*.png", Some(("%C3%A9%22%2A.png", "")));
        for address in ["/workspace/d/a.png", "file:///workspace/d/a.png", "file:/workspace/d/a.png"] {
            check(address, Some(("d/a.png", "")));
        }
        for address in ["file://localhost/workspace/a.png", "sandbox:/workspace/a.png", "FILE:///workspace/a.png"] {
            check(address, Some(("a.png", "")));
        }
        for address in ["sandbox:a.png", "sandbox:///workspace/a.png", "/workspace/x/../a.png", "x/%2e%2e/a.png"] {
            check(address, Some(("a.png", "")));
        }
    }

    #[test]
    fn a_suffix_stays_behind() {
        check("a.md#l=1", Some(("a.md", "#l=1")));
        check("a.md?x=1&y#(z)", Some(("a.md", "&x=1&y#%28z%29")));
        check("a.md?", Some(("a.md", "")));
        check("a.md?#z", Some(("a.md", "#z")));
    }

    #[test]
    fn everything_else_is_somebody_elses() {
        let addresses = "#a ?a . ./ a/.. dir/ dir/. .. ../a a/../../b %2e%2e/a / /a.png /workspace /workspace/ \
            /workspace/../etc/passwd /workspaces/a //host/a https://a/b.png HTTP://a mailto:a@b \
            data:image/png;base64,AA== javascript:a tel:1 C:\\a a\\b x:y file://host/workspace/a file://a.png \
            file:a.png file:///etc/passwd sandbox:/mnt/data/a sandbox://workspace/a a%2Fb a%00b a%0Ab a%ffb \
            file:///workspace/%2e%2e/a";
        for address in addresses.split(' ').chain([""]) {
            check(address, None);
        }
    }
}
