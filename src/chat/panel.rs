//! Lines at the bottom of a terminal that are drawn over and over, and then taken away.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The lines, and what of them is on the terminal.
#[derive(Default)]
pub(super) struct Panel {
    lines: Vec<String>,
    /// The line that is seen also where not all are.
    at: usize,
    /// The widths of the rows that are on the terminal.
    drawn: Vec<usize>,
}

/// How large a terminal is.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Panel {
    pub(super) fn set(&mut self, lines: Vec<String>, at: usize) {
        self.lines = lines;
        self.at = at;
    }

    /// Whether these are the lines.
    pub(super) fn shows(&self, lines: &[String], at: usize) -> bool {
        self.lines == lines && self.at == at
    }

    /// Draws the lines from here on down. The cursor stays after the last.
    pub(super) fn draw(&mut self, terminal: &mut impl Write, size: Size) -> io::Result<()> {
        let lines = self.lines.iter().map(|line| rows(line, size.columns));
        let ends = lines.clone().scan(0, |end, rows| {
            *end += rows.len();
            Some(*end)
        });
        // One row is left to what was before.
        let room = size.rows.saturating_sub(1).max(1);
        let skipped = ends.take(self.at + 1).last().unwrap_or_default().saturating_sub(room);
        let seen: Vec<_> = lines.flatten().skip(skipped).take(room).collect();
        terminal.write_all(seen.join("\n").as_bytes())?;
        self.drawn = seen.iter().map(|row| row.width()).collect();
        terminal.flush()
    }

    /// Takes away what was drawn: the cursor is where it was before.
    pub(super) fn erase(&mut self, terminal: &mut impl Write, size: Size) -> io::Result<()> {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn.is_empty() {
            return Ok(());
        }
        // A terminal that has become narrower has broken rows up.
        let rows: usize = drawn.iter().map(|width| width.div_ceil(size.columns).max(1)).sum();
        let up = if rows > 1 { format!("\x1b[{}A", rows - 1) } else { String::new() };
        write!(terminal, "\r{up}\x1b[J")?;
        terminal.flush()
    }
}

/// A line as rows that a terminal doesn't break up.
fn rows(line: &str, columns: usize) -> Vec<String> {
    // In its last column, a terminal may already be on the next row.
    let room = columns.saturating_sub(1).max(2);
    let mut rows = vec![String::new()];
    let mut width = 0;
    for character in line.chars() {
        let next = character.width().unwrap_or_default();
        if width + next > room {
            rows.push(String::new());
            width = 0;
        }
        width += next;
        if let Some(row) = rows.last_mut() {
            row.push(character);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(panel: &mut Panel, columns: usize, rows: usize) -> String {
        let mut terminal = Vec::new();
        panel.draw(&mut terminal, Size { columns, rows }).unwrap();
        String::from_utf8(terminal).unwrap()
    }

    fn erased(panel: &mut Panel, columns: usize) -> String {
        let mut terminal = Vec::new();
        panel.erase(&mut terminal, Size { columns, rows: 24 }).unwrap();
        String::from_utf8(terminal).unwrap()
    }

    fn panel(lines: &[&str], at: usize) -> Panel {
        let mut panel = Panel::default();
        panel.set(lines.iter().map(|&line| line.to_owned()).collect(), at);
        panel
    }

    #[test]
    fn what_was_drawn_is_taken_away_once() {
        let mut panel = panel(&["one", "two"], 0);
        assert_eq!(drawn(&mut panel, 80, 24), "one\ntwo");
        assert_eq!(erased(&mut panel, 80), "\r\x1b[1A\x1b[J");
        assert_eq!(erased(&mut panel, 80), "");
    }

    #[test]
    fn long_lines_are_broken_up_by_the_width_of_their_letters() {
        let mut panel = panel(&["漢字漢字", "abc"], 0);
        assert_eq!(drawn(&mut panel, 6, 24), "漢字\n漢字\nabc");
        assert_eq!(erased(&mut panel, 6), "\r\x1b[2A\x1b[J");
    }

    #[test]
    fn a_terminal_that_has_become_narrower_has_more_rows() {
        let mut panel = panel(&["abcdef", "ab"], 0);
        drawn(&mut panel, 80, 24);
        assert_eq!(erased(&mut panel, 4), "\r\x1b[2A\x1b[J");
    }

    #[test]
    fn where_there_is_no_room_for_all_one_sees_where_one_is() {
        let lines = ["a", "b", "c", "d", "e"];
        for (at, seen) in [(0, "a\nb"), (1, "a\nb"), (2, "b\nc"), (4, "d\ne")] {
            assert_eq!(drawn(&mut panel(&lines, at), 80, 3), seen);
        }
    }
}
