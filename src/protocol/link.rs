//! Fills in the addresses of workspace files on delivery.
//!
//! The journal keeps [`LINK_OPEN`]`<path>`[`LINK_CLOSE`] where a signed address belongs, so that a
//! replayed link is always fresh. Used by whoever delivers: the doors for frames, REST for the bare
//! result. Works on bytes and parses no JSON: frames are delivered far more often than made.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::event::{LINK_CLOSE, LINK_OPEN};

/// [`LINK_OPEN`] as a JSON string spells it.
const JSON_OPEN: &str = "streamgate-file:\\u0001";
/// [`LINK_CLOSE`] as a JSON string spells it.
const JSON_CLOSE: &str = "\\u0001";
/// What would end or escape a JSON string, and what no address holds anyway.
const NOT_IN_ADDRESSES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\');

/// Replaces each link placeholder of an encoded JSON frame by `url_of(path)`, where `path` is the
/// file's percent-encoded path in the workspace. What only looks like a placeholder stays as it is.
/// Whatever `url_of` gives, the frame remains JSON: characters that no address holds are encoded.
pub fn fill_links(frame: &str, url_of: impl FnMut(&str) -> String) -> String {
    fill(frame, JSON_OPEN, JSON_CLOSE, url_of)
}

/// [`fill_links`] for text that is not inside JSON.
pub fn fill_links_in_text(text: &str, url_of: impl FnMut(&str) -> String) -> String {
    fill(text, LINK_OPEN, LINK_CLOSE, url_of)
}

fn fill(text: &str, open: &str, close: &str, mut url_of: impl FnMut(&str) -> String) -> String {
    let mut filled = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(at) = rest.find(open) {
        let (before, behind) = rest.split_at(at);
        let behind = &behind[open.len()..];
        let path = &behind[..behind.bytes().take_while(|byte| is_path_byte(*byte)).count()];
        filled.push_str(before);
        rest = match behind[path.len()..].strip_prefix(close) {
            Some(after) if !path.is_empty() => {
                filled.extend(utf8_percent_encode(&url_of(path), NOT_IN_ADDRESSES));
                after
            }
            _ => {
                filled.push_str(open);
                behind
            }
        };
    }
    filled.push_str(rest);
    filled
}

/// What a percent-encoded path consists of.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn placeholder(path: &str) -> String {
        format!("{LINK_OPEN}{path}{LINK_CLOSE}")
    }

    fn url(path: &str) -> String {
        format!("https://gate.test/v1/sessions/s/files/{path}?_pvt=a.b-c")
    }

    #[test]
    fn json_spells_the_marks_as_this_module_searches_them() {
        assert_eq!(serde_json::to_string(LINK_OPEN).unwrap(), format!("\"{JSON_OPEN}\""));
        assert_eq!(serde_json::to_string(LINK_CLOSE).unwrap(), format!("\"{JSON_CLOSE}\""));
    }

    #[test]
    fn a_frame_and_a_text_are_filled_alike() {
        let text = format!("![a]({}) and\n[\"b\"]({}#x)", placeholder("a.png"), placeholder("d/b%20c.md"));
        let filled = fill_links_in_text(&text, url);
        assert_eq!(filled, format!("![a]({}) and\n[\"b\"]({}#x)", url("a.png"), url("d/b%20c.md")));

        let frame = json!({"type": "turn.done", "seq": 7, "result_text": text}).to_string();
        let expected = json!({"type": "turn.done", "seq": 7, "result_text": filled}).to_string();
        assert_eq!(fill_links(&frame, url), expected);
    }

    #[test]
    fn what_only_looks_like_a_placeholder_stays() {
        let malformed = [
            LINK_OPEN.to_owned(),
            placeholder(""),
            placeholder("a b"),
            format!("{LINK_OPEN}a.png"),
            "streamgate-file:a.png".to_owned(),
            "streamgate-file:\\u0001a.png\\u0001".to_owned(),
            LINK_CLOSE.repeat(3),
        ];
        for text in malformed {
            assert_eq!(fill_links_in_text(&text, url), text);
            let frame = json!({ "result_text": text }).to_string();
            assert_eq!(fill_links(&frame, url), frame);
        }
        let nested = format!("{LINK_OPEN}a{}", placeholder("b"));
        assert_eq!(fill_links_in_text(&nested, url), format!("{LINK_OPEN}a{}", url("b")));
    }

    #[test]
    fn an_address_can_not_break_out_of_its_string() {
        let frame = json!({ "result_text": placeholder("a") }).to_string();
        let filled = fill_links(&frame, |_| "x\"\\\n é".to_owned());
        let value: Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["result_text"], "x%22%5C%0A%20%C3%A9");
    }

    proptest! {
        #[test]
        fn filling_a_frame_is_filling_its_texts(
            parts in proptest::collection::vec(prop_oneof![
                Just(LINK_OPEN.to_owned()), Just(LINK_CLOSE.to_owned()), Just(placeholder("a/b.png")),
                Just("\\u0001".to_owned()), "[a-z\\\\\"%/\u{0}-\u{2}é]{0,4}",
            ], 0..12)
        ) {
            let text = parts.concat();
            let frame = json!({ "result_text": text }).to_string();
            let value: Value = serde_json::from_str(&fill_links(&frame, url)).unwrap();
            prop_assert_eq!(value["result_text"].as_str().unwrap(), fill_links_in_text(&text, url));
        }
    }
}
