//! A program in a terminal: keys go in, and what its user sees comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use pty_process::{Command, Pts, Pty, Size};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::{Instant, timeout, timeout_at};

/// No wait is longer. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const ROWS: u16 = 40;
const COLUMNS: u16 = 100;
/// What a shell would write after the program.
const SHELL: &str = "shell$";

pub(crate) const UP: &str = "\x1b[A";
pub(crate) const DOWN: &str = "\x1b[B";
pub(crate) const ENTER: &str = "\r";
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

/// The terminal, and what runs in it.
pub(crate) struct Terminal {
    pty: Pty,
    pts: Pts,
    child: Child,
    screen: vt100::Parser,
    before: String,
}

impl Terminal {
    /// Runs `command` in a terminal of its own, which controls it: Ctrl-C is a signal.
    pub(crate) fn run(command: Command) -> Self {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let before = modes(&pts);
        let child = command.kill_on_drop(true).spawn_borrowed(&pts).unwrap();
        let size = |cells: u16| cells.try_into().unwrap();
        let screen = vt100::Parser::new(size(ROWS), size(COLUMNS), 0);
        Self { pty, pts, child, screen, before }
    }

    /// What its user sees, without what is blank at the end.
    pub(crate) fn screen(&self) -> String {
        self.screen.screen().contents().trim_end().to_owned()
    }

    /// Waits until the screen is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        while !is_so(&self.screen()) {
            let Ok(read) = timeout_at(deadline, self.pty.read(&mut bytes)).await else {
                panic!("in time: {what}. The screen:\n{}", self.screen());
            };
            self.screen.process(&bytes[..read.unwrap()]);
        }
    }

    /// Waits until a text is on the screen.
    pub(crate) async fn sees(&mut self, text: &str) {
        self.until(text, |screen| screen.contains(text)).await;
    }

    /// Waits until the screen ends with a text.
    pub(crate) async fn ends_with(&mut self, text: &str) {
        self.until(text, |screen| screen.ends_with(text)).await;
    }

    /// Presses keys.
    pub(crate) async fn press(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Whether the terminal gives keys, not lines.
    pub(crate) fn gives_keys(&self) -> bool {
        !tcgetattr(&self.pts).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Another signal than those that keys send.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the program's end: its exit code, and what it left on the screen. The terminal must be as it was
    /// before, and at the start of a line.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("an end in time. The screen:\n{}", self.screen())).unwrap();
        assert_eq!(modes(&self.pts), self.before, "the terminal is as it was");
        rustix::io::write(&self.pts, SHELL.as_bytes()).unwrap();
        self.ends_with(SHELL).await;
        let screen = self.screen();
        let left = screen.strip_suffix(SHELL).unwrap();
        assert!(left.is_empty() || left.ends_with('\n'), "{screen}");
        (status.code(), left.trim_end().to_owned())
    }
}

/// All that can be set of a terminal.
fn modes(pts: &Pts) -> String {
    let Termios { input_modes, output_modes, control_modes, local_modes, special_codes, .. } = tcgetattr(pts).unwrap();
    format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?} {special_codes:?}")
}
