//! The demo agent's side of the line protocol: commands in, lines out.

use std::io;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Split};

/// Lines are gathered up to so many bytes before they are written without anybody waiting for them.
const CHUNK_BYTES: usize = 16 << 10;

/// What the gateway tells the agent.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Command {
    Turn(Turn),
    Continue,
    Interrupt,
    Answer {
        id: String,
        answer: Value,
    },
    #[serde(other)]
    Unknown,
}

/// A prompt. What the demo agent has no use for is left out.
#[derive(Debug, Deserialize)]
pub(super) struct Turn {
    pub(super) prompt: String,
    /// All tools if absent.
    pub(super) allowed_tools: Option<Vec<String>>,
    /// No limit if absent or 0.
    pub(super) max_turns: Option<u32>,
}

/// What a stretch of work used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost_usd: Option<f64>,
}

/// The commands of stdin, in order.
pub(super) struct Inbox<R> {
    lines: Split<BufReader<R>>,
    closed: bool,
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub(super) fn new(stdin: R) -> Self {
        Self { lines: BufReader::new(stdin).split(b'\n'), closed: false }
    }

    /// Whether stdin has ended.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// The next command; `None` once stdin has ended. A line that is no command is reported on stderr
    /// and skipped. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Command> {
        while !self.closed {
            let Ok(Some(line)) = self.lines.next_segment().await else {
                self.closed = true;
                break;
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(command) => return Some(command),
                Err(error) => eprintln!("demo-agent: skipped a line that is not a command: {error}"),
            }
        }
        None
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        tool: &'a str,
        input: &'a Value,
    },
    ToolResult {
        id: &'a str,
        output: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    Done {
        stop_reason: &'a str,
        usage: &'a Usage,
        num_turns: u32,
    },
    Error {
        message: &'a str,
        usage: &'a Usage,
        num_turns: u32,
    },
}

/// The one writer of stdout. It holds whole lines, so work can be dropped at any await without
/// leaving half a line behind.
pub(super) struct Out<W> {
    stdout: W,
    pending: BytesMut,
    /// Tool uses whose result is owed.
    open_tools: Vec<String>,
    tools_used: u64,
    words: u64,
}

impl<W: AsyncWrite + Unpin> Out<W> {
    pub(super) fn new(stdout: W) -> Self {
        Self { stdout, pending: BytesMut::new(), open_tools: Vec::new(), tools_used: 0, words: 0 }
    }

    /// One token.
    pub(super) fn text(&mut self, text: &str) {
        self.words += text.split_whitespace().count() as u64;
        self.line(&Line::Text { text });
    }

    /// Announces a tool use and returns its id.
    pub(super) fn tool_use(&mut self, tool: &str, input: &Value) -> String {
        let id = self.tool_use_without_result(tool, input);
        self.open_tools.push(id.clone());
        id
    }

    /// Announces a tool use that nobody will miss when it gets no result.
    pub(super) fn tool_use_without_result(&mut self, tool: &str, input: &Value) -> String {
        self.tools_used += 1;
        let id = format!("tool_{}", self.tools_used);
        self.line(&Line::ToolUse { id: &id, tool, input });
        id
    }

    pub(super) fn tool_result(&mut self, id: &str, output: &str, is_error: bool) {
        self.open_tools.retain(|open| open != id);
        self.line(&Line::ToolResult { id, output, is_error });
    }

    /// Gives the tools that were cut short their results.
    pub(super) fn close_open_tools(&mut self) {
        for id in std::mem::take(&mut self.open_tools) {
            self.line(&Line::ToolResult { id: &id, output: "interrupted", is_error: true });
        }
    }

    pub(super) fn done(&mut self, stop_reason: &str, usage: &Usage, num_turns: u32) {
        self.line(&Line::Done { stop_reason, usage, num_turns });
    }

    pub(super) fn error(&mut self, message: &str, usage: &Usage, num_turns: u32) {
        self.line(&Line::Error { message, usage, num_turns });
    }

    /// Bytes that are no line of the protocol.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The words said since the last call.
    pub(super) fn take_words(&mut self) -> u64 {
        std::mem::take(&mut self.words)
    }

    /// Writes what waits if that is much. Cancel safe.
    pub(super) async fn relieve(&mut self) -> io::Result<()> {
        if self.pending.len() < CHUNK_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Writes what waits. To be called before waiting for anything. Cancel safe.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            if self.stdout.write_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stdout.flush().await
    }

    fn line(&mut self, line: &Line<'_>) {
        #[expect(clippy::expect_used, reason = "string keys into memory can't fail to encode")]
        let bytes = serde_json::to_vec(line).expect("a line encodes");
        self.pending.extend_from_slice(&bytes);
        self.pending.extend_from_slice(b"\n");
    }
}
