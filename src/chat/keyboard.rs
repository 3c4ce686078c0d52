//! What is typed: lines, or at a terminal also single keys.
//!
//! A terminal gives lines, which it lets the user edit, until keys are asked for. One reader takes both, and
//! nothing before it is there: whatever is typed ahead reaches whoever reads next.

use std::io::{self, BufRead as _, IsTerminal as _, stdin};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use super::key::{Key, take_key};

/// The most bytes that are read at once: a line of a terminal is no longer.
const READ: usize = 4096;

/// The code of no key (`_POSIX_VDISABLE` of Linux).
const DISABLED: u8 = 0;

/// What was typed.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    Key(Key),
    /// Nothing more will be.
    End,
}

/// Where it is typed. Nothing is read before somebody wants it, so that a turn in a script leaves the
/// script's stdin alone.
pub(super) enum Keyboard {
    Pipe(Option<mpsc::Receiver<Typed>>),
    Terminal(Terminal),
}

impl Keyboard {
    /// Stdin. It is taken for a terminal if what is asked can be seen on one, too.
    pub(super) fn new() -> Self {
        if !stdin().is_terminal() || !io::stderr().is_terminal() {
            return Self::Pipe(None);
        }
        Self::Terminal(Terminal { bytes: Vec::new(), lines: false, keys: None, input: Input::watched() })
    }

    /// Whether keys can be read.
    pub(super) fn has_keys(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Whether what is typed is shown as it is typed.
    pub(super) fn echoes(&self) -> bool {
        match self {
            Self::Pipe(_) => stdin().is_terminal(),
            Self::Terminal(terminal) => terminal.keys.is_none(),
        }
    }

    /// Reads lines from now on.
    pub(super) fn read_lines(&mut self) {
        match self {
            Self::Pipe(lines) => drop(lines.get_or_insert_with(read_pipe)),
            Self::Terminal(terminal) => terminal.lines = true,
        }
    }

    /// Reads keys instead of lines, as long as they are wanted. What was typed before somebody wanted them
    /// is no answer to what is asked now: it is dropped.
    pub(super) fn read_keys(&mut self, wanted: bool) -> io::Result<()> {
        let Self::Terminal(terminal) = self else { return Ok(()) };
        if !wanted {
            terminal.keys = None;
        } else if terminal.keys.is_none() {
            terminal.keys = Some(KeyMode::enter()?);
            terminal.bytes.clear();
        }
        Ok(())
    }

    /// Reads nothing more.
    pub(super) fn close(&mut self) {
        *self = Self::Pipe(None);
    }

    /// The next line or key; never, while nobody wants any. Cancel safe.
    pub(super) async fn next(&mut self) -> Typed {
        match self {
            Self::Pipe(Some(lines)) => lines.recv().await.unwrap_or(Typed::End),
            Self::Terminal(terminal) if terminal.keys.is_some() => terminal.key().await,
            Self::Terminal(terminal) if terminal.lines => terminal.line().await,
            Self::Pipe(None) | Self::Terminal(_) => std::future::pending().await,
        }
    }
}

/// A terminal that is typed at.
pub(super) struct Terminal {
    input: Input,
    /// What was read and not taken yet.
    bytes: Vec<u8>,
    lines: bool,
    keys: Option<KeyMode>,
}

impl Terminal {
    async fn line(&mut self) -> Typed {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Typed::Line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            if !self.read().await {
                return Typed::End;
            }
        }
    }

    async fn key(&mut self) -> Typed {
        loop {
            if let Some(key) = take_key(&mut self.bytes) {
                return Typed::Key(key);
            }
            if !self.read().await {
                return Typed::End;
            }
        }
    }

    /// Reads what is there, once something is; false at the end of it. Cancel safe.
    async fn read(&mut self) -> bool {
        while !has_input(Some(&Timespec::default())) {
            self.input.there().await;
        }
        let mut buffer = [0; READ];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(stdin(), &mut buffer)).unwrap_or(0);
        self.bytes.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

/// Tells when there may be input. A thread looks out for it, and reads none: a read of a terminal can't be
/// given up, and others share the terminal, who don't want it non-blocking.
struct Input {
    look: mpsc::Sender<()>,
    seen: mpsc::Receiver<()>,
    is_looking: bool,
}

impl Input {
    fn watched() -> Self {
        let (look, mut looks) = mpsc::channel(1);
        let (sender, seen) = mpsc::channel(1);
        std::thread::spawn(move || {
            while looks.blocking_recv().is_some() {
                has_input(None);
                if sender.blocking_send(()).is_err() {
                    return;
                }
            }
        });
        Self { look, seen, is_looking: false }
    }

    /// Returns when something has come since it was last called. Cancel safe.
    async fn there(&mut self) {
        if !self.is_looking {
            self.is_looking = self.look.send(()).await.is_ok();
        }
        self.seen.recv().await;
        self.is_looking = false;
    }
}

/// Whether a read of stdin would return at once; waits for it as long as that.
fn has_input(wait: Option<&Timespec>) -> bool {
    let stdin = stdin();
    let mut asked = [PollFd::new(&stdin, PollFlags::IN)];
    !matches!(rustix::io::retry_on_intr(|| poll(&mut asked, wait)), Ok(0))
}

/// The terminal gives keys as they are pressed, and shows none of them. As long as this lives.
///
/// Signals still come from Ctrl-C, and lines that are shown still start at the left: only what has to be is
/// changed.
struct KeyMode {
    before: Termios,
}

impl KeyMode {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut keys = before.clone();
        keys.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        // Ctrl-Z would leave the terminal to the shell like this.
        keys.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Flush: drops what was typed and not read.
        tcsetattr(stdin(), OptionalActions::Flush, &keys)?;
        Ok(Self { before })
    }
}

impl Drop for KeyMode {
    fn drop(&mut self) {
        // The terminal may be gone; nobody is left to tell then.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// Reads lines on a thread of its own: a read of a pipe can't be given up.
fn read_pipe() -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(Typed::Line(line)).is_err() {
                return;
            }
        }
        // Nobody listens any more: the conversation is over.
        let _ = sender.blocking_send(Typed::End);
    });
    receiver
}
