//! What a terminal shows: the agent's words on stdout, everything about them on stderr.

use std::io::{self, IsTerminal as _, Write as _};

/// The longest line about a tool, in characters.
const NOTE_CHARACTERS: usize = 100;

/// Where the cursor is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// At the start of a line.
    Start,
    /// After words of the agent's.
    Words,
    /// After a prompt.
    Prompt,
}

/// What was shown last, and how to show more.
pub(super) struct Screen {
    cursor: Cursor,
    words_are_seen: bool,
    dim: bool,
}

impl Screen {
    /// The screen of this process.
    pub(super) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            cursor: Cursor::Start,
            words_are_seen: io::stdout().is_terminal(),
            dim: !plain && io::stderr().is_terminal(),
        }
    }

    /// The agent's words, as they come.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        if self.cursor == Cursor::Prompt {
            self.end_line()?;
        }
        let text = if self.words_are_seen { printable(text) } else { text.to_owned() };
        if let Some(last) = text.chars().last() {
            self.cursor = if last == '\n' { Cursor::Start } else { Cursor::Words };
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Ends a line that was left unfinished.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.cursor, Cursor::Start) {
            Cursor::Start => Ok(()),
            Cursor::Words => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(b"\n")?;
                stdout.flush()
            }
            Cursor::Prompt => io::stderr().write_all(b"\n"),
        }
    }

    /// A line in full.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.end_line()?;
        writeln!(io::stderr(), "{}", printable(text))
    }

    /// A line that is not what matters.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.end_line()?;
        let text = printable(text);
        if self.dim { writeln!(io::stderr(), "\x1b[2m{text}\x1b[0m") } else { writeln!(io::stderr(), "{text}") }
    }

    /// A note that has nothing to do with the agent's words: where these are not seen, it leaves their
    /// line alone.
    pub(super) fn aside(&mut self, text: &str) -> io::Result<()> {
        let cursor = self.cursor;
        if !self.words_are_seen {
            self.cursor = Cursor::Start;
        }
        self.note(text)?;
        if !self.words_are_seen {
            self.cursor = cursor;
        }
        Ok(())
    }

    /// Asks for a line, once until something else is shown.
    pub(super) fn prompt(&mut self, words: &str) -> io::Result<()> {
        if self.cursor != Cursor::Prompt {
            self.end_line()?;
            self.cursor = Cursor::Prompt;
            io::stderr().write_all(words.as_bytes())?;
        }
        Ok(())
    }

    /// The user has pressed Enter.
    pub(super) fn entered(&mut self) {
        self.cursor = Cursor::Start;
    }
}

/// Text without what moves the cursor, rings or colours: agents repeat what they are given.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

/// The beginning of a text, on one line.
pub(super) fn brief(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(NOTE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_can_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\x07\n\tc"), "a[2Jb\n\tc");
    }

    #[test]
    fn a_brief_text_is_one_short_line() {
        assert_eq!(brief("a\n  b"), "a b");
        assert_eq!(brief(&"é".repeat(200)).chars().count(), NOTE_CHARACTERS + 1);
    }
}
