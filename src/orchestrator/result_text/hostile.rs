//! Text for which the Markdown parser's time grows with the square of its length.
//!
//! Measured with pulldown-cmark 0.13: every line asks every block quote and list it may continue,
//! and every line of a link's title walks all of the title so far. Prose comes nowhere near.

use super::raw_destination;

/// Block quotes and lists within each other.
const NESTING: usize = 100;
/// Lines of a link's title.
const TITLE_LINES: usize = 200;

/// Whether `text` nests deeper or has longer titles than the parser copes with. Errs on the safe
/// side; takes time in proportion to the text.
pub(super) fn is_hostile(text: &str) -> bool {
    text.split('\n').any(|line| nesting(line.as_bytes()) > NESTING)
        || text.match_indices("](").any(|(at, link)| title_lines(&text[at + link.len()..]) > TITLE_LINES)
}

/// How many quotes and lists `line` can be in that aren't continued lazily: its own marks, and what
/// its indentation continues. Without a mark a line opens nothing, so its depth was counted before.
fn nesting(line: &[u8]) -> usize {
    let (mut marks, mut columns, mut at) = (0, 0, 0);
    while let Some(byte) = line.get(at) {
        let digits = line[at..].iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
        let mark = match byte {
            b' ' | b'\t' => {
                columns += if *byte == b' ' { 1 } else { 4 };
                at += 1;
                continue;
            }
            b'>' => 1,
            b'-' | b'+' | b'*' if ends_a_mark(line.get(at + 1)) => 1,
            b'0'..=b'9'
                if matches!(line.get(at + digits), Some(b'.' | b')')) && ends_a_mark(line.get(at + digits + 1)) =>
            {
                digits + 1
            }
            _ => break,
        };
        marks += 1;
        at += mark;
    }
    if marks == 0 { 0 } else { marks + columns / 2 }
}

fn ends_a_mark(next: Option<&u8>) -> bool {
    matches!(next, None | Some(b' ' | b'\t'))
}

/// How many lines the parser searches for the end of the title in what follows `](`.
fn title_lines(source: &str) -> usize {
    let Some(destination) = raw_destination(source) else { return 0 };
    let title = source[destination.end..].trim_start();
    let close = match title.bytes().next() {
        Some(quote @ (b'"' | b'\'')) => quote,
        Some(b'(') => b')',
        _ => return 0,
    };
    let bytes = title.as_bytes();
    let (mut lines, mut blank, mut at) = (0, false, 1);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\n' if blank => break, // The paragraph's end.
            b'\n' => {
                lines += 1;
                blank = true;
            }
            b' ' | b'\t' => {}
            b'(' if close == b')' => break,
            byte if *byte == close => break,
            _ => blank = false,
        }
        let escapes = *byte == b'\\' && bytes.get(at + 1).is_some_and(u8::is_ascii_punctuation);
        at += if escapes { 2 } else { 1 };
    }
    lines
}
