//! Reads JSON that comes in pieces and tells of its numbers and short texts, by their paths: without keeping it.
//!
//! It does not check what it reads: of what is no JSON it tells something or nothing.

/// Deeper than this nothing is read.
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
}

/// Reads one document. Objects in an outermost list have paths as if each was a document.
#[derive(Default)]
pub(in crate::proxy) struct Scanner {
    levels: Vec<Level>,
    state: State,
    /// Whether a text that begins now is a key.
    key: bool,
    text: Vec<u8>,
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
    pub(in crate::proxy) fn feed(&mut self, piece: &[u8], sink: &mut impl FnMut(&str, Scalar<'_>)) -> bool {
        for &byte in piece {
            if self.broken {
                break;
            }
            self.step(byte, sink);
        }
        self.done && !self.broken
    }

    fn step(&mut self, byte: u8, sink: &mut impl FnMut(&str, Scalar<'_>)) {
        match self.state {
            State::Text if byte == b'"' => {
                self.state = State::Between;
                self.end_text(sink);
            }
            State::Text | State::Escape => {
                let escapes = self.state == State::Text && byte == b'\\';
                self.state = if escapes { State::Escape } else { State::Text };
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

    fn between(&mut self, byte: u8, sink: &mut impl FnMut(&str, Scalar<'_>)) {
        match byte {
            b'{' | b'[' => {
                // A second document after the first: not what we read.
                self.broken |= self.done || self.levels.len() >= DEPTH;
                if byte == b'{' {
                    if let Some(path) = self.path() {
                        sink(&path, Scalar::Object);
                    }
                    self.levels.push(Level::Object(String::new()));
                } else {
                    self.levels.push(Level::List);
                }
                self.key = byte == b'{';
            }
            b'}' | b']' => {
                self.levels.pop();
                self.key = false;
                self.done |= self.levels.is_empty();
            }
            b',' => self.key = matches!(self.levels.last(), Some(Level::Object(_))),
            b':' => self.key = false,
            b'"' => {
                self.state = State::Text;
                self.text.clear();
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

    fn end_text(&mut self, sink: &mut impl FnMut(&str, Scalar<'_>)) {
        if !self.key {
            return self.tell(sink, |text| Scalar::Text(text));
        }
        let name = if self.text.len() > TEXT_BYTES { "".into() } else { String::from_utf8_lossy(&self.text) };
        if let Some(Level::Object(key)) = self.levels.last_mut() {
            name.as_ref().clone_into(key);
        }
    }

    fn tell(&self, sink: &mut impl FnMut(&str, Scalar<'_>), of: impl for<'a> FnOnce(&'a str) -> Scalar<'a>) {
        if self.text.len() <= TEXT_BYTES
            && let Some(path) = self.path()
            && let Ok(text) = std::str::from_utf8(&self.text)
        {
            sink(&path, of(text));
        }
    }

    /// Where we are: keys with full stops between them. `None`: in a list, or too deep.
    fn path(&self) -> Option<String> {
        let levels = match self.levels.as_slice() {
            [Level::List, rest @ ..] => rest,
            levels => levels,
        };
        if levels.len() > TOLD_DEPTH {
            return None;
        }
        let mut path = String::new();
        for level in levels {
            let Level::Object(key) = level else { return None };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut scanner, mut told, mut done) = (Scanner::default(), Vec::new(), false);
        for piece in pieces {
            done = scanner.feed(piece, &mut |path, value| match value {
                Scalar::Text(text) => told.push(format!("{path}={text:?}")),
                Scalar::Other(text) => told.push(format!("{path}={text}")),
                Scalar::Object => (),
            });
        }
        (told, done)
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
    fn nothing_makes_it_fall() {
        assert_eq!(read(&[&b"[".repeat(100_000)]), (vec![], false));
        for text in ["}}}]]", "\"", "{\"a\":{", "::,,", "{]}[", "\u{1}\\", "{\"a\"\"b\"1}"] {
            read(&[text.as_bytes()]);
        }
        let long = format!(r#"{{"a":"{0}","{0}":1,"b":2}}"#, "x".repeat(500));
        assert_eq!(read(&[long.as_bytes()]).0, ["=1", "b=2"]);
    }
}
