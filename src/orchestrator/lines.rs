//! Cuts an agent's bytes into lines: on bytes, UTF-8 checked per whole line, length capped.

use bytes::{Buf, Bytes, BytesMut};

/// What is between two newlines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line.
    Text(String),
    /// A line that is not UTF-8; it is skipped.
    NotUtf8,
    /// A line over the limit; it is skipped.
    TooLong,
}

/// The bytes of one agent that are not yet lines.
#[derive(Debug)]
pub(super) struct LineCutter {
    limit: usize,
    /// Bytes since the last newline; at most `limit`.
    rest: BytesMut,
    /// Whether the line at hand is over the limit: skip to its end.
    skipping: bool,
}

impl LineCutter {
    /// Lines of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rest: BytesMut::new(), skipping: false }
    }

    /// The lines that `chunk` completes. The same bytes give the same lines, however they are cut.
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.take(&chunk[..end]);
            chunk.advance(end + 1);
            lines.extend(self.finish());
        }
        self.take(&chunk);
        lines
    }

    /// The line at hand, as if a newline came now. `None` for an empty one.
    pub(super) fn finish(&mut self) -> Option<Line> {
        let line = self.rest.split();
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            return None;
        }
        Some(match std::str::from_utf8(line) {
            Ok(text) => Line::Text(text.to_owned()),
            Err(_) => Line::NotUtf8,
        })
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.skipping || self.rest.len() + bytes.len() > self.limit {
            self.skipping = true;
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(limit: usize, chunks: &[&[u8]]) -> Vec<Line> {
        let mut cutter = LineCutter::new(limit);
        let mut lines: Vec<Line> = chunks.iter().flat_map(|chunk| cutter.push(Bytes::copy_from_slice(chunk))).collect();
        lines.extend(cutter.finish());
        lines
    }

    #[test]
    fn lines_over_the_limit_and_bad_utf8_are_told_and_cost_nothing_else() {
        let lines = cut(3, &[b"abc\nabcd\n\xff\n", b"x", b"y\r\n\nz"]);
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(lines, [text("abc"), Line::TooLong, Line::NotUtf8, text("xy"), text("z")]);
    }

    proptest! {
        #[test]
        fn any_cutting_of_the_bytes_gives_the_same_lines(bytes in prop::collection::vec(prop::sample::select(vec![b'a', b'\n', b'\r', 0xff, 0xc3, 0xa9]), 0..200), step in 1usize..7) {
            let chunks: Vec<&[u8]> = bytes.chunks(step).collect();
            prop_assert_eq!(cut(5, &chunks), cut(5, &[&bytes]));
        }
    }
}
