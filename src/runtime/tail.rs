//! The end of what an agent wrote to stderr.

/// Keeps the last [`Tail::LIMIT`] bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Bytes that are kept: enough for an error message and its context.
    const LIMIT: usize = 2 << 10;

    /// Adds to the end, forgetting from the start.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::LIMIT)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(Self::LIMIT);
        self.0.drain(..surplus);
        self.0.extend_from_slice(bytes);
    }

    /// As text; what is not UTF-8 is replaced, within the limit.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        text[text.ceil_char_boundary(text.len().saturating_sub(Self::LIMIT))..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_never_more() {
        let mut tail = Tail::default();
        tail.push(&[b'a'; 3_000]);
        tail.push("é".repeat(900).as_bytes());
        tail.push(b"end");
        let text = tail.text();
        assert!(text.len() <= Tail::LIMIT && text.starts_with('a') && text.ends_with("éend"), "{text}");

        tail.push(&[0xff; 3_000]);
        assert!(tail.text().len() <= Tail::LIMIT);
    }
}
