//! Reads JSON that comes in pieces and tells of its numbers and short texts, by their paths: without keeping it.
//!
//! It hardly checks what it reads: of what is no JSON it tells something or nothing.

/// Deeper than this levels are only counted.
const DEPTH: usize = 128;
/// Longer names of keys and longer texts are not told.
const TEXT_BYTES: usize = 200;
/// Deeper paths are not told.
const TOLD_DEPTH: usize = 4;

/// Something that stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Scalar<'a> {
    /// A text, as it is written, without its quotes.
    Text(&'a str),
    /// A number, `true`, `false` or `null`.
    Other(&'a str),
    /// An object begins.
    Object,
    /// A list begins, or here is what is too long to be told.
    Else,
}

/// Who is told.
pub(in crate::proxy) trait Hear {
    /// Something stands where these keys lead, as they are written. What is in lists is not told.
    fn value(&mut self, path: &[&str], value: Scalar<'_>);

    /// So many bytes more of a text under that key, wherever it stands.
    fn text(&mut self, _key: &str, _bytes: u64) {}
}

/// Reads one document. Objects in an outermost list have paths as if each was a document.
#[derive(Default)]
pub(in crate::proxy) struct Scanner {
    levels: Vec<Level>,
    /// Levels beyond the deepest one that is read.
    beyond: u64,
    state: State,
    /// Whether a text that begins now is a key.
    key: bool,
    text: Vec<u8>,
    /// Bytes of a text that were not told of yet.
    fresh: u64,
    broken: bool,
    done: bool,
}

enum Level {
    Object(String),
    List,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    Text,
    Escape,
    Other,
}

impl Scanner {
    /// Reads the next piece; `true`: the document is complete.
    pub(in crate::proxy) fn feed(&mut self, piece: &[u8], sink: &mut impl Hear) -> bool {
        for &byte in piece {
            if self.broken {
                break;
            }
            self.step(byte, sink);
        }
        if matches!(self.state, State::Text | State::Escape) {
            self.count_text(sink);
        }
        self.done && !self.broken
    }

    /// Whether this is not one document.
    pub(in crate::proxy) fn is_broken(&self) -> bool {
        self.broken
    }

    fn step(&mut self, byte: u8, sink: &mut impl Hear) {
        match self.state {
            State::Text if byte == b'"' => {
                self.state = State::Between;
                self.end_text(sink);
            }
            State::Text | State::Escape => {
                let escapes = self.state == State::Text && byte == b'\\';
                self.state = if escapes { State::Escape } else { State::Text };
                self.fresh += 1;
                self.keep(byte);
            }
            State::Other if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') => {
                self.state = State::Between;
                self.tell(sink, |text| Scalar::Other(text));
                self.between(byte, sink);
            }
            State::Other => self.keep(byte),
            State::Between => self.between(byte, sink),
        }
    }

    fn between(&mut self, byte: u8, sink: &mut impl Hear) {
        if self.done {
            // Something after the document: some would read that.
            self.broken |= !byte.is_ascii_whitespace();
            return;
        }
        match byte {
            b'{' | b'[' => {
                if let Some(path) = self.path() {
                    sink.value(&path, if byte == b'{' { Scalar::Object } else { Scalar::Else });
                }
                if self.levels.len() >= DEPTH {
                    self.beyond += 1;
                } else {
                    self.levels.push(if byte == b'{' { Level::Object(String::new()) } else { Level::List });
                }
                self.key = byte == b'{';
            }
            b'}' | b']' if self.beyond > 0 => {
                self.beyond -= 1;
                self.key = false;
            }
            b'}' | b']' => {
                let fits = match self.levels.pop() {
                    Some(Level::Object(_)) => byte == b'}',
                    Some(Level::List) => byte == b']',
                    None => false,
                };
                self.broken |= !fits;
                self.key = false;
                self.done |= self.levels.is_empty();
            }
            b',' => self.key = matches!(self.levels.last(), Some(Level::Object(_))),
            b':' => self.key = false,
            b'"' => {
                self.state = State::Text;
                self.text.clear();
                self.fresh = 0;
            }
            b' ' | b'\t' | b'\r' | b'\n' => (),
            _ => {
                self.state = State::Other;
                self.text.clear();
                self.keep(byte);
            }
        }
    }

    /// One byte more than is told shows that it is too long.
    fn keep(&mut self, byte: u8) {
        if self.text.len() <= TEXT_BYTES {
            self.text.push(byte);
        }
    }

    fn end_text(&mut self, sink: &mut impl Hear) {
        if !self.key {
            self.count_text(sink);
            return self.tell(sink, |text| Scalar::Text(text));
        }
        let name = if self.text.len() > TEXT_BYTES { "".into() } else { String::from_utf8_lossy(&self.text) };
        if self.beyond == 0
            && let Some(Level::Object(key)) = self.levels.last_mut()
        {
            name.as_ref().clone_into(key);
        }
    }

    /// Tells how much of a text has come.
    fn count_text(&mut self, sink: &mut impl Hear) {
        let fresh = std::mem::take(&mut self.fresh);
        if !self.key
            && self.beyond == 0
            && let Some(Level::Object(key)) = self.levels.last()
        {
            sink.text(key, fresh);
        }
    }

    fn tell(&self, sink: &mut impl Hear, of: impl for<'a> FnOnce(&'a str) -> Scalar<'a>) {
        let Some(path) = self.path() else { return };
        let text = Some(&self.text).filter(|text| text.len() <= TEXT_BYTES);
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        sink.value(&path, text.map_or(Scalar::Else, of));
    }

    /// Where we are. `None`: in a list, or too deep.
    fn path(&self) -> Option<Vec<&str>> {
        let levels = match self.levels.as_slice() {
            [Level::List, rest @ ..] => rest,
            levels => levels,
        };
        if levels.len() > TOLD_DEPTH {
            return None;
        }
        let mut path = Vec::with_capacity(levels.len());
        for level in levels {
            let Level::Object(key) = level else { return None };
            path.push(key.as_str());
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard {
        values: Vec<String>,
        texts: std::collections::BTreeMap<String, u64>,
    }

    impl Hear for Heard {
        fn value(&mut self, path: &[&str], value: Scalar<'_>) {
            let path = path.join(".");
            match value {
                Scalar::Text(text) => self.values.push(format!("{path}={text:?}")),
                Scalar::Other(text) => self.values.push(format!("{path}={text}")),
                Scalar::Object | Scalar::Else => (),
            }
        }

        fn text(&mut self, key: &str, bytes: u64) {
            *self.texts.entry(key.to_owned()).or_default() += bytes;
        }
    }

    fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut scanner, mut heard, mut done) = (Scanner::default(), Heard::default(), false);
        for piece in pieces {
            done = scanner.feed(piece, &mut heard);
        }
        (heard.values, done)
    }

    #[test]
    fn paths_and_values_are_told_however_it_is_cut() {
        let text = br#" {"a": 1, "b": {"c": "x\"}{", "d": [1, {"a": 2}], "e": null}, "f":true,"a":-2.5e3 } "#;
        let expected = ["a=1", r#"b.c="x\\\"}{""#, "b.e=null", "f=true", "a=-2.5e3"];
        for cut in 0..=text.len() {
            let (told, done) = read(&[&text[..cut], &text[cut..]]);
            assert_eq!((told.iter().map(String::as_str).collect::<Vec<_>>(), done), (expected.to_vec(), true));
        }
        assert!(!read(&[&text[..text.len() - 2]]).1);
    }

    #[test]
    fn a_list_of_documents_reads_as_each_of_them() {
        assert_eq!(read(&[br#"[{"a":1},{"a":2}]"#]), (vec!["a=1".to_owned(), "a=2".to_owned()], true));
    }

    #[test]
    fn texts_are_counted_wherever_they_stand_and_as_far_as_they_came() {
        let text = br#"[{"a":[{"long":"12\"45","b":{"long":"678"}},"no"],"long":3,"x":"long"},{"long":"90"#;
        for cut in 0..=text.len() {
            let (mut scanner, mut heard) = (Scanner::default(), Heard::default());
            scanner.feed(&text[..cut], &mut heard);
            scanner.feed(&text[cut..], &mut heard);
            assert_eq!(heard.texts["long"], 6 + 3 + 2, "cut at {cut}");
        }
    }

    #[test]
    fn what_follows_the_deepest_is_told() {
        let deep = |depth: usize| "[{\"b\":".repeat(depth) + "1" + &"}]".repeat(depth);
        for depth in [1, 62, 63, 64, 65, 200] {
            let text = format!(r#"{{"a":{},"b":2}}"#, deep(depth));
            assert_eq!(read(&[text.as_bytes()]), (vec!["b=2".to_owned()], true), "{depth}");
        }
    }

    #[test]
    fn nothing_makes_it_fall() {
        assert_eq!(read(&[&b"[".repeat(100_000)]), (vec![], false));
        for text in ["}}}]]", "\"", "{\"a\":{", "::,,", "{]}[", "\u{1}\\", "{\"a\"\"b\"1}"] {
            read(&[text.as_bytes()]);
        }
        let long = format!(r#"{{"a":"{0}","{0}":1,"b":2}}"#, "x".repeat(500));
        assert_eq!(read(&[long.as_bytes()]).0, ["=1", "b=2"]);
    }
}
