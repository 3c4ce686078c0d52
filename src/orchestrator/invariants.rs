//! The shape of a task's events: completes and repairs what an agent says (docs/protocol.md §3, G4, G5).
//!
//! Pure. The run loop feeds it every agent event of a task and publishes what comes out; it decides
//! nothing about time, processes or the end of the task, and the answer to a question only passes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::result_text::polish;
use crate::agent::AgentEvent;
use crate::domain::{AskId, TaskId, cut_at_character};
use crate::protocol::client::NAME_BYTES;
use crate::protocol::event::{Event, LINK_CLOSE, LINK_OPEN, Question, StoredEvent};

/// What an option or a question costs of the event limit besides its words.
const QUESTION_OVERHEAD: usize = 32;

/// A question that the user has not answered and the agent not withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAsk {
    /// Names the question in `task.answer`.
    pub ask_id: AskId,
    /// The agent's own name for the tool call that asks, for `AgentCommand::Answer`.
    pub tool_id: String,
    /// The questions, as they were published.
    pub questions: Vec<Question>,
}

/// What the run loop must know about an event besides what is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The last published event asks the user: the task waits.
    Asked(AskId),
    /// The tool came back before the user answered: this question is no longer open.
    Withdrawn(AskId),
    /// The agent broke the protocol; nothing was published. Says how, for the log.
    Dropped(&'static str),
}

/// How many tool calls one task may make: what viewers know by id has to be kept until its end.
const TOOL_CALLS: usize = 100_000;
/// How many of them may be open at a time: their names are kept with every commit.
const OPEN_TOOLS: usize = 128;
/// How many questions may be open at a time: their words are kept in memory.
const OPEN_ASKS: usize = 16;

/// A tool call without a result.
#[derive(Debug)]
struct OpenTool {
    /// The agent's name for it, cut to a name's length.
    agent_id: String,
    /// What viewers know it by.
    tool_use_id: String,
    tool: String,
}

/// What has been said and what is still open in a task, over all its continuations.
///
/// Ids of tool calls are unique within the task: a use whose id is open is dropped; one whose id has
/// been closed is published as `id#2`, `id#3` and so on, and so is its result. Only the first 256
/// bytes of an id and of a tool's name count.
#[derive(Debug)]
pub struct TurnShape {
    event_bytes: usize,
    text: String,
    text_truncated: bool,
    /// Whether a tool came or went since the last text.
    parted: bool,
    open_tools: Vec<OpenTool>,
    /// How often each published id was asked for.
    known_ids: HashMap<String, u32>,
    open_asks: Vec<OpenAsk>,
}

impl TurnShape {
    /// The shape of a task that has said nothing; no text in its events is longer than `event_bytes`.
    pub fn new(event_bytes: usize) -> Self {
        Self {
            event_bytes,
            text: String::new(),
            text_truncated: false,
            parted: false,
            open_tools: Vec::new(),
            known_ids: HashMap::new(),
            open_asks: Vec::new(),
        }
    }

    /// Adds to `out` what `event` means to viewers. What is for the agent itself means nothing here,
    /// and neither does `AgentEvent::Stopped`: what follows it is the run loop's to decide.
    pub fn take(&mut self, event: AgentEvent, out: &mut Vec<Event>) -> Option<Note> {
        match event {
            AgentEvent::Text(text) => {
                self.say(text, out);
                None
            }
            AgentEvent::ToolUse { id, tool, input } => self.open_tool(&id, tool, input, out),
            AgentEvent::ToolResult { id, output, is_error } => self.close_tool(&id, output, is_error, out),
            AgentEvent::Ask { id, questions } => Some(self.ask(id, questions, out)),
            AgentEvent::Tell(_) | AgentEvent::Stopped { .. } => None,
        }
    }

    /// Takes in what was said before a restart: `events` of `task` as they were stored, those that follow in
    /// further calls, and the agent's names of the tool calls that are open at their end (behind what viewers know
    /// them by).
    pub fn restore(&mut self, task: TaskId, events: &[StoredEvent], tools: &[(String, String)]) {
        for event in events {
            let Ok(said) = serde_json::from_str::<Said>(&event.frame) else { continue };
            if said.task_id != Some(task) {
                continue;
            }
            match said.kind.as_str() {
                "task:token" => self.add_text(&said.text),
                "task:tool_use" => {
                    self.parted = true;
                    let named = tools.iter().find(|(shown, _)| *shown == said.tool_use_id);
                    let agent_id = named.map_or_else(|| said.tool_use_id.clone(), |(_, agent_id)| agent_id.clone());
                    let uses = self.known_ids.entry(agent_id.clone()).or_insert(0);
                    *uses += 1;
                    self.known_ids.insert(said.tool_use_id.clone(), 1);
                    self.open_tools.push(OpenTool { agent_id, tool_use_id: said.tool_use_id, tool: said.tool });
                }
                "task:tool_result" => {
                    self.parted = true;
                    self.open_tools.retain(|tool| tool.tool_use_id != said.tool_use_id);
                }
                _ => (),
            }
        }
    }

    /// Takes in which tool calls and questions of a task were open before a restart. Enough for text that follows;
    /// before a tool is heard of, or the end, [`Self::precede`] has to tell of the rest.
    pub fn restore_open(&mut self, tools: &[(String, String)], asks: Vec<OpenAsk>) {
        let open = tools.iter().map(|(tool_use_id, agent_id)| OpenTool {
            agent_id: agent_id.clone(),
            tool_use_id: tool_use_id.clone(),
            tool: String::new(),
        });
        self.open_tools = open.collect();
        self.open_asks = asks;
    }

    /// Puts what was said `before` in front of this, which has been text alone so far.
    pub fn precede(&mut self, before: Self) {
        let since = std::mem::replace(self, before);
        if !since.text.is_empty() {
            self.add_text(&since.text);
        }
        self.text_truncated |= since.text_truncated;
        self.open_asks = since.open_asks;
    }

    /// The tool calls without a result: what viewers know each by, and the agent's name for it.
    pub fn open_tools(&self) -> Vec<(String, String)> {
        self.open_tools.iter().map(|tool| (tool.tool_use_id.clone(), tool.agent_id.clone())).collect()
    }

    /// The questions that wait for the user, oldest first.
    pub fn open_asks(&self) -> &[OpenAsk] {
        &self.open_asks
    }

    /// Closes a question by its answer; `None` if it isn't open.
    pub fn answer(&mut self, ask_id: AskId) -> Option<OpenAsk> {
        let at = self.open_asks.iter().position(|ask| ask.ask_id == ask_id)?;
        Some(self.open_asks.remove(at))
    }

    /// Gives each tool call without a result an error result that says `why`, oldest first, and
    /// withdraws all questions. Before the end of a task, however it ends.
    pub fn close_open_tools(&mut self, why: &str, out: &mut Vec<Event>) {
        self.open_asks.clear();
        for tool in std::mem::take(&mut self.open_tools) {
            out.push(self.tool_result(tool, why.to_owned(), true));
        }
    }

    /// All the text so far, polished, with a blank line where a tool intervened; and whether it was
    /// cut at the event limit. Never cut inside a link placeholder.
    pub fn result_text(&self) -> (String, bool) {
        let mut text = polish(&self.text);
        let cut = cut_outside_placeholders(&mut text, self.event_bytes);
        (text, cut || self.text_truncated)
    }

    fn say(&mut self, mut text: String, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        self.add_text(&text);
        let truncated = cut_at_character(&mut text, self.event_bytes);
        out.push(Event::Token { text, truncated });
    }

    fn add_text(&mut self, text: &str) {
        if self.text_truncated {
            return;
        }
        if std::mem::take(&mut self.parted) && !self.text.is_empty() {
            let newlines = self.text.bytes().rev().take(2).take_while(|byte| *byte == b'\n').count();
            self.text.push_str(&"\n\n"[newlines..]);
        }
        self.text.push_str(text);
        self.text_truncated = cut_at_character(&mut self.text, self.event_bytes);
    }

    fn open_tool(&mut self, id: &str, mut tool: String, input: Box<RawValue>, out: &mut Vec<Event>) -> Option<Note> {
        if self.position(id).is_some() {
            return Some(Note::Dropped("a tool call under the id of one that is still open"));
        }
        if self.known_ids.len() >= TOOL_CALLS || self.open_tools.len() >= OPEN_TOOLS {
            return Some(Note::Dropped("a tool call too many"));
        }
        let agent_id = as_name(id).to_owned();
        let tool_use_id = self.unique_id(&agent_id);
        cut_at_character(&mut tool, NAME_BYTES);
        self.parted = true;
        let (input, truncated) = cut_input(input, self.event_bytes);
        out.push(Event::ToolUse { tool: tool.clone(), input, tool_use_id: tool_use_id.clone(), truncated });
        self.open_tools.push(OpenTool { agent_id, tool_use_id, tool });
        None
    }

    fn close_tool(&mut self, id: &str, output: String, is_error: bool, out: &mut Vec<Event>) -> Option<Note> {
        let Some(at) = self.position(id) else {
            return Some(Note::Dropped("a second tool result, or one for a call that wasn't made"));
        };
        let tool = self.open_tools.remove(at);
        self.parted = true;
        out.push(self.tool_result(tool, output, is_error));
        let at = self.open_asks.iter().position(|ask| as_name(&ask.tool_id) == as_name(id))?;
        Some(Note::Withdrawn(self.open_asks.remove(at).ask_id))
    }

    fn ask(&mut self, id: String, mut questions: Vec<Question>, out: &mut Vec<Event>) -> Note {
        if self.position(&id).is_none() {
            return Note::Dropped("a question of a tool call that isn't open");
        }
        if self.open_asks.iter().any(|ask| as_name(&ask.tool_id) == as_name(&id)) {
            return Note::Dropped("a second question of a tool call before the first was answered");
        }
        if self.open_asks.len() >= OPEN_ASKS {
            return Note::Dropped("a question too many");
        }
        if questions.is_empty() {
            return Note::Dropped("a question without questions");
        }
        cut_questions(&mut questions, self.event_bytes);
        let ask_id = AskId::generate();
        out.push(Event::AskUser { ask_id, questions: questions.clone() });
        self.open_asks.push(OpenAsk { ask_id, tool_id: id, questions });
        Note::Asked(ask_id)
    }

    fn tool_result(&self, tool: OpenTool, mut output: String, is_error: bool) -> Event {
        let truncated = cut_at_character(&mut output, self.event_bytes);
        Event::ToolResult { tool: tool.tool, output, tool_use_id: tool.tool_use_id, is_error, truncated }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.open_tools.iter().position(|tool| tool.agent_id == as_name(id))
    }

    /// `id`, or `id#n` with the smallest `n` that no viewer has seen.
    fn unique_id(&mut self, id: &str) -> String {
        let mut uses = self.known_ids.get(id).copied().unwrap_or(0);
        let mut unique = id.to_owned();
        while uses > 0 && self.known_ids.contains_key(&unique) {
            uses += 1;
            unique = format!("{id}#{uses}");
        }
        self.known_ids.insert(unique.clone(), 1);
        self.known_ids.insert(id.to_owned(), uses.max(1));
        unique
    }
}

/// What a stored frame says about the shape of its task.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    task_id: Option<TaskId>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    tool_use_id: String,
}

/// The part of an agent's id that counts.
fn as_name(id: &str) -> &str {
    &id[..id.floor_char_boundary(NAME_BYTES)]
}

/// Replaces a too long input by an object that holds its beginning.
fn cut_input(input: Box<RawValue>, limit: usize) -> (Box<RawValue>, bool) {
    #[derive(Serialize)]
    struct Cut<'a> {
        truncated: &'a str,
    }
    let json = input.get();
    if json.len() <= limit {
        return (input, false);
    }
    #[expect(clippy::expect_used, reason = "an object of one string can't fail to encode")]
    let cut = to_raw_value(&Cut { truncated: &json[..json.floor_char_boundary(limit)] }).expect("a string encodes");
    (cut, true)
}

/// Leaves about `limit` bytes of questions and at least the first.
fn cut_questions(questions: &mut Vec<Question>, limit: usize) {
    let mut room = limit;
    let mut cut = |text: &mut String| {
        cut_at_character(text, room);
        room = room.saturating_sub(text.len() + QUESTION_OVERHEAD);
        room > 0
    };
    let mut goes_on = true;
    questions.retain_mut(|question| {
        if !goes_on {
            return false;
        }
        goes_on = cut(&mut question.question);
        if let Some(header) = &mut question.header {
            goes_on = cut(header);
        }
        question.options.retain_mut(|option| {
            if !goes_on {
                return false;
            }
            goes_on = cut(&mut option.label);
            if let Some(description) = &mut option.description {
                goes_on = cut(description);
            }
            true
        });
        true
    });
}

/// [`cut_at_character`], but a placeholder that would be split goes as a whole.
fn cut_outside_placeholders(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    let limit = text.floor_char_boundary(limit);
    // The last placeholder that begins before the limit; the limit may be in its opening.
    let window = text.floor_char_boundary((limit + LINK_OPEN.len()).saturating_sub(1));
    let split = text[..window].rfind(LINK_OPEN).filter(|start| {
        let path = start + LINK_OPEN.len();
        text[path..].find(LINK_CLOSE).is_none_or(|length| path + length + LINK_CLOSE.len() > limit)
    });
    text.truncate(split.unwrap_or(limit));
    true
}

#[cfg(test)]
mod tests;
