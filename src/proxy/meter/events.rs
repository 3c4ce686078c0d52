//! The JSON in a stream of events (HTML Living Standard, "Server-sent events", 9.2.6).

use super::scan::{Hear, Scanner};

/// Field names are not longer than this; what is longer is none that counts.
const NAME_BYTES: usize = 8;

/// Reads a stream of events.
#[derive(Default)]
pub(super) struct Events {
    scanner: Scanner,
    name: Vec<u8>,
    line: Line,
    /// The line before ended with a carriage return: a newline now belongs to it.
    returned: bool,
}

/// Where in a line.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// In its name.
    #[default]
    Name,
    /// In an event's data.
    Data,
    /// In what is of no interest.
    Other,
}

impl Events {
    /// Reads the next piece; `true`: an event ended in it.
    pub(super) fn feed(&mut self, piece: &[u8], sink: &mut impl Hear) -> bool {
        let mut ended = false;
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            let returned = std::mem::take(&mut self.returned);
            if matches!(byte, b'\n' | b'\r') {
                rest = after;
                if byte == b'\n' && returned {
                    continue;
                }
                self.returned = byte == b'\r';
                if self.line == Line::Name && self.name.is_empty() {
                    self.scanner = Scanner::default();
                    ended = true;
                }
                self.line = Line::Name;
                self.name.clear();
                continue;
            }
            match self.line {
                Line::Name if byte == b':' => {
                    self.line = if self.name == b"data" { Line::Data } else { Line::Other };
                    rest = after;
                }
                Line::Name => {
                    if self.name.len() < NAME_BYTES {
                        self.name.push(byte);
                    }
                    rest = after;
                }
                Line::Data | Line::Other => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                    if self.line == Line::Data {
                        self.scanner.feed(&rest[..end], sink);
                    }
                    rest = &rest[end..];
                }
            }
        }
        ended
    }
}
