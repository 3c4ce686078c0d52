//! Addresses in the raw HTML of a Markdown text: `<img src>` and `<a href>`.

use std::ops::Range;

/// Where the values of `src` in `<img>` and of `href` in `<a>` are, quotes excluded.
pub(super) fn addresses(html: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(tag) = html[at..].find('<').map(|offset| at + offset + 1) {
        at = match html[tag..].strip_prefix("!--") {
            Some(comment) => match comment.find("-->") {
                Some(end) => tag + 3 + end + 3,
                None => break,
            },
            None => read_tag(html, tag, &mut found),
        };
    }
    found
}

/// Reads the tag whose name is at `start`; returns where it ends.
fn read_tag(html: &str, start: usize, found: &mut Vec<Range<usize>>) -> usize {
    let bytes = html.as_bytes();
    let skip =
        |from: usize, skipped: fn(u8) -> bool| from + bytes[from..].iter().take_while(|byte| skipped(**byte)).count();
    let name_end = skip(start, |byte| byte.is_ascii_alphanumeric());
    let wanted = match &html[start..name_end] {
        name if name.eq_ignore_ascii_case("img") => "src",
        name if name.eq_ignore_ascii_case("a") => "href",
        _ => "",
    };
    let mut at = name_end;
    loop {
        at = skip(at, |byte| byte.is_ascii_whitespace() || byte == b'/');
        let attribute = at;
        at = skip(at, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/' | b'<'));
        let attribute = attribute..at;
        at = skip(at, |byte| byte.is_ascii_whitespace());
        if bytes.get(at) == Some(&b'=') {
            at = skip(at + 1, |byte| byte.is_ascii_whitespace());
            let value = if let Some(quote @ (b'"' | b'\'')) = bytes.get(at) {
                let Some(length) = html[at + 1..].find(char::from(*quote)) else { return html.len() };
                at + 1..at + 1 + length
            } else {
                at..skip(at, |byte| !byte.is_ascii_whitespace() && byte != b'>')
            };
            // A closing quote is skipped too.
            at = value.end + usize::from(matches!(bytes.get(value.end), Some(b'"' | b'\'')));
            if html[attribute].eq_ignore_ascii_case(wanted) && !value.is_empty() {
                found.push(value);
            }
        } else if attribute.is_empty() {
            return at; // `>`, the end, or the `<` of the next tag.
        }
    }
}
