//! Takes the key out of what comes back: a model's endpoint has no reason to repeat it, and some do.

use bytes::Bytes;

/// What stands for each byte of it: lengths that were told stay true.
const HIDDEN: u8 = b'*';

/// Takes one secret out of bytes that come in pieces.
pub(super) struct Scrubber {
    secret: Vec<u8>,
    /// The end of what came, while it may be the beginning of the secret.
    held: Vec<u8>,
}

impl Scrubber {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self { secret: secret.to_owned(), held: Vec::new() }
    }

    /// The next piece without the secret. What may be its beginning is kept back: nothing, as a rule.
    pub(super) fn pass(&mut self, piece: Bytes) -> Bytes {
        let Some(first) = self.secret.first() else { return piece };
        if self.held.is_empty() && !piece.contains(first) {
            return piece;
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(&piece);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            if rest.starts_with(&self.secret) {
                rest[..self.secret.len()].fill(HIDDEN);
                at += self.secret.len();
            } else if self.secret.starts_with(rest) {
                rest.clone_into(&mut self.held);
                bytes.truncate(at);
            } else {
                at += 1;
            }
        }
        Bytes::from(bytes)
    }

    /// What was kept back, at the end.
    pub(super) fn rest(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_does_not_pass_however_it_is_cut() {
        let text = b"sk sk-key sk-sk-keysk-ke sk-k";
        let expected = b"sk ****** sk-******sk-ke sk-k";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut scrubber = Scrubber::new(b"sk-key");
                let mut out = Vec::new();
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    out.extend(scrubber.pass(Bytes::copy_from_slice(piece)));
                }
                out.extend(scrubber.rest());
                assert_eq!(out, expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn what_ends_with_an_event_is_not_kept_back() {
        let mut scrubber = Scrubber::new(b"sk-key");
        assert_eq!(scrubber.pass(Bytes::from_static(b"data: ask\n\n")), "data: ask\n\n");
        assert_eq!(Scrubber::new(b"").pass(Bytes::from_static(b"x")), "x");
    }
}
