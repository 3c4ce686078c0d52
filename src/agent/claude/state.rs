//! What the adapter knows: of the session's conversation, of the process, of the turn at work. Small, because it is
//! committed with the events, and bounded, whatever the agent says.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asks::{Request, Settled};

/// How many tool calls, open requests and settled ones it knows at a time.
const TOOLS: usize = 96;
const REQUESTS: usize = 16;
/// The bytes of inputs it keeps in all, and of one.
const INPUTS: usize = 10 << 10;
const INPUT: usize = 6 << 10;
/// The longest id that it keeps.
const ID: usize = 128;

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) conversation: Conversation,
    pub(super) process: ProcessState,
}

/// The session's conversation, over all its processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Conversation {
    /// Which: one that its agent could not take up again is followed by another.
    pub(super) number: u32,
    /// Whether a turn of it has ended, so that it is on the disk.
    pub(super) kept: bool,
}

/// What one process was told and has said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ProcessState {
    /// What it was launched for.
    pub(super) launched: Option<Launched>,
    /// What it said it had cost in all, when a turn ended last.
    pub(super) cost_usd: f64,
    /// Whether it was given work whose end it has not told.
    pub(super) owes_end: bool,
    /// Whether it woke up by itself, for a background task that ended: what it says is nobody's.
    pub(super) by_itself: bool,
    /// Whether this turn has been heard of: by text or by a tool.
    pub(super) said: bool,
    /// The message that is being written.
    pub(super) message: Written,
    /// The tool calls that are shown and open.
    pub(super) tools: Vec<String>,
    /// What the user was asked in this turn, and the answers.
    pub(super) requests: Vec<Request>,
    /// Requests that were not the user's to answer; their answers may not have been heard yet.
    pub(super) settled: Vec<Settled>,
}

/// A message that is being written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    /// The model API's id for it.
    id: Option<String>,
    /// Whether its text came in pieces, so that the whole is not to be shown again.
    in_pieces: bool,
}

/// What a process was launched for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Launched {
    /// With which arguments, as a digest.
    pub(super) arguments: String,
    /// For which conversation.
    pub(super) conversation: u32,
}

impl State {
    /// Reads what [`Self::json`] wrote; of anything else, nothing is known.
    pub(super) fn read(json: &Value) -> Self {
        Self::deserialize(json).unwrap_or_default()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default() // Texts and numbers: can't fail.
    }

    /// Another process: of the one before only the conversation is left.
    pub(super) fn begin_process(&mut self) {
        let Self { conversation, process } = self;
        let tried = process.launched.as_ref().is_some_and(|launched| launched.conversation == conversation.number);
        // It may have left a file that can neither be resumed nor begun.
        if conversation.number > 0 && !conversation.kept && tried {
            conversation.follow();
        }
        *process = ProcessState::default();
    }
}

impl Conversation {
    /// The agent can't take it up: the next process begins another.
    pub(super) fn follow(&mut self) {
        self.number = self.number.saturating_add(1);
        self.kept = false;
    }
}

impl ProcessState {
    /// Forgets the turn that has ended.
    pub(super) fn end_turn(&mut self) {
        let (launched, cost_usd, owes_end) = (self.launched.take(), self.cost_usd, self.owes_end);
        *self = Self { launched, cost_usd, owes_end, ..Self::default() };
    }

    /// Notes a tool call that is to be shown. `false`: it has been.
    pub(super) fn open_tool(&mut self, id: &str) -> bool {
        if self.has_tool(id) {
            return false;
        }
        self.said = true;
        if is_id(id) {
            push(&mut self.tools, id.to_owned(), TOOLS);
        }
        true
    }

    pub(super) fn has_tool(&self, id: &str) -> bool {
        self.tools.iter().any(|tool| tool == id)
    }

    /// The tool call has come back: whatever it asked for has been answered.
    pub(super) fn close_tool(&mut self, id: &str) {
        self.tools.retain(|tool| tool != id);
        self.requests.retain(|request| request.tool != id);
        self.settled.retain(|settled| settled.tool != id);
    }

    /// Whether a request has been met before.
    pub(super) fn knows_request(&self, id: &str) -> bool {
        self.requests.iter().any(|request| request.id == id) || self.settled.iter().any(|settled| settled.id == id)
    }

    /// Keeps a request for the user's answer. `false`: it can't be kept.
    pub(super) fn keep_request(&mut self, mut request: Request) -> bool {
        if self.requests.len() >= REQUESTS || !is_id(&request.tool) {
            return false;
        }
        self.drop_large(&mut request.input);
        self.requests.push(request);
        true
    }

    /// Keeps what a request was answered with, until that has been heard for certain.
    pub(super) fn keep_settled(&mut self, settled: Settled) {
        if settled.tool.is_empty() || is_id(&settled.tool) {
            push(&mut self.settled, settled, REQUESTS);
        }
    }

    /// Drops an input that is too large to be kept, or to be said again.
    pub(super) fn drop_large(&self, input: &mut Option<String>) {
        let requests = self.requests.iter().map(|request| &request.input);
        let kept = requests.chain(self.settled.iter().map(|settled| &settled.input));
        let kept: usize = kept.flatten().map(String::len).sum();
        if input.as_ref().is_some_and(|input| input.len() > INPUT || kept + input.len() > INPUTS) {
            *input = None;
        }
    }

    /// A message begins.
    pub(super) fn begin_message(&mut self, id: Option<&str>) {
        self.message = Written { id: id.filter(|id| is_id(id)).map(str::to_owned), in_pieces: false };
    }

    /// A piece of its text is shown.
    pub(super) fn add_text(&mut self) {
        self.said = true;
        self.message.in_pieces = true;
    }

    /// Whether the text of the message `id` has been shown in pieces.
    pub(super) fn has_text_of(&self, id: Option<&str>) -> bool {
        let is_that = match (&self.message.id, id) {
            (Some(begun), Some(id)) => begun == id,
            _ => true, // Which one is not known: no text is better than the same text twice.
        };
        self.message.in_pieces && is_that
    }
}

/// Whether it is an id as agents and model APIs make them, which takes as much room as it has bytes.
pub(super) fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !id.is_empty() && id.len() <= ID && id.bytes().all(plain)
}

/// Adds to a list that forgets its oldest.
fn push<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() >= most {
        list.remove(0);
    }
    list.push(item);
}
