//! What a terminal shows: the agent's words on stdout, everything about them on stderr.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::tcgetwinsize;

use super::panel::{Panel, Size};

/// Where the cursor is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// At the start of a line.
    Start,
    /// After words of the agent's.
    Words,
    /// After a prompt, or after what was typed.
    Prompt,
}

/// What was shown last, and how to show more.
pub(super) struct Screen {
    cursor: Cursor,
    words_are_seen: bool,
    dim: bool,
    /// What stays below all else, while there is something.
    panel: Option<Panel>,
    /// Words that came above the panel and have no line's end yet.
    held: String,
}

impl Screen {
    /// The screen of this process.
    pub(super) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            cursor: Cursor::Start,
            words_are_seen: io::stdout().is_terminal(),
            dim: !plain && io::stderr().is_terminal(),
            panel: None,
            held: String::new(),
        }
    }

    /// The agent's words, as they come.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        if self.cursor == Cursor::Prompt {
            self.end_line()?;
        }
        let mut text = if self.words_are_seen { printable(text) } else { text.to_owned() };
        if self.panel.is_some() && self.words_are_seen {
            // Above a panel, words come line by line.
            self.held.push_str(&text);
            text = self.held.drain(..self.held.rfind('\n').map_or(0, |end| end + 1)).collect();
        }
        self.above(|screen| screen.words(&text))
    }

    fn words(&mut self, text: &str) -> io::Result<()> {
        if let Some(last) = text.chars().last() {
            self.cursor = if last == '\n' { Cursor::Start } else { Cursor::Words };
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Ends a line that was left unfinished.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.held.push('\n');
            let line = std::mem::take(&mut self.held);
            self.above(|screen| screen.words(&line))?;
        }
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
        self.above(|_| writeln!(io::stderr(), "{}", printable(text)))
    }

    /// A line that is not what matters.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.end_line()?;
        let text = printable(text);
        let text = if self.dim { format!("\x1b[2m{text}\x1b[0m") } else { text };
        self.above(|_| writeln!(io::stderr(), "{text}"))
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

    /// The terminal has shown a key that the user pressed.
    pub(super) fn echoed(&mut self) {
        if self.cursor == Cursor::Start {
            self.cursor = Cursor::Prompt;
        }
    }

    /// Shows lines, which are printable, below all that comes, until they are taken away. Sees to it that the
    /// one at `at` is seen.
    pub(super) fn set_panel(&mut self, lines: Vec<String>, at: usize) -> io::Result<()> {
        if self.panel.as_ref().is_some_and(|panel| panel.shows(&lines, at)) {
            return Ok(());
        }
        self.end_line()?;
        let mut panel = self.panel.take().unwrap_or_default();
        let (mut stderr, size) = (io::stderr().lock(), size());
        panel.erase(&mut stderr, size)?;
        panel.set(lines, at);
        panel.draw(&mut stderr, size)?;
        self.panel = Some(panel);
        Ok(())
    }

    /// Takes the panel away.
    pub(super) fn drop_panel(&mut self) -> io::Result<()> {
        let Some(mut panel) = self.panel.take() else { return Ok(()) };
        panel.erase(&mut io::stderr().lock(), size())?;
        let held = std::mem::take(&mut self.held);
        self.words(&held)
    }

    /// Writes where the panel is, which moves down.
    fn above(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let Some(mut panel) = self.panel.take() else { return write(self) };
        panel.erase(&mut io::stderr().lock(), size())?;
        let written = write(self);
        let drawn = panel.draw(&mut io::stderr().lock(), size());
        self.panel = Some(panel);
        written.and(drawn)
    }
}

/// The terminal's, or what it would be if it said so.
fn size() -> Size {
    let told = tcgetwinsize(io::stderr()).ok().filter(|told| told.ws_col > 0 && told.ws_row > 0);
    told.map_or(Size { columns: 80, rows: 24 }, |told| Size { columns: told.ws_col.into(), rows: told.ws_row.into() })
}

/// Text without what moves the cursor, rings or colours: agents repeat what they are given.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

/// A text on one line, without what moves the cursor.
pub(super) fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The beginning of a text, on one line of at most so many characters.
pub(super) fn brief(text: &str, characters: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(characters) {
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
        assert_eq!(brief("a\n  b", 9), "a b");
        assert_eq!(brief(&"é".repeat(20), 9), "é".repeat(9) + "…");
    }
}
