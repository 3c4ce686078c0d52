//! What an agent does while it works: text, tool calls, what that costs.
//!
//! Agents tell of a tool call in as many pieces as they like, in any of three places; they are put together by
//! the call's id, and told on as one use and one result.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::AcpAdapter;
use super::state::{Life, Tool};
use super::wire::{self, Chunk, Kind, Notified, Sight, UsageUpdate};
use crate::agent::AgentEvent;
use crate::domain::cut_at_character;

/// The longest id of a tool call, in bytes; of a longer one, its beginning and its digest.
const ID_BYTES: usize = 96;
/// The longest name of a tool, in bytes.
const NAME_BYTES: usize = 64;

impl AcpAdapter {
    /// `session/update`. Without a prompt at work only costs are of interest: what a session that is loaded says
    /// before it is there has been heard before.
    pub(super) fn update(&mut self, params: &str, events: &mut Vec<AgentEvent>) {
        let Notified { session_id, update } = wire::read(params);
        let Some(update) = update else { return };
        if session_id.is_some() && session_id != self.state.session && self.works() {
            return; // Another one's, such as a subagent's.
        }
        let update = update.get();
        match wire::read::<Kind>(update).kind.as_deref() {
            Some("usage_update") => self.cost(&wire::read(update)),
            Some("agent_message_chunk") if self.works() => self.chunk(&wire::read(update), events),
            Some("tool_call") if self.works() => self.see(&wire::read(update), true, events),
            Some("tool_call_update") if self.works() => self.see(&wire::read(update), false, events),
            Some(
                "user_message_chunk"
                | "agent_message_chunk"
                | "agent_thought_chunk"
                | "tool_call"
                | "tool_call_update"
                | "plan",
            ) => self.repeats(),
            _ => (), // Lists, and what a newer protocol has.
        }
    }

    fn chunk(&mut self, chunk: &Chunk, events: &mut Vec<AgentEvent>) {
        // qwen-code says with an empty chunk what a model call used.
        if let Some((input, output)) = super::ending::tokens(&chunk.meta["usage"]) {
            let turn = &mut self.state.turn;
            turn.input_tokens = turn.input_tokens.saturating_add(input);
            turn.output_tokens = turn.output_tokens.saturating_add(output);
            turn.model_calls = turn.model_calls.saturating_add(1);
        }
        if let Some(text) = chunk.content["text"].as_str().filter(|text| !text.is_empty()) {
            events.push(AgentEvent::Text(text.to_owned()));
        }
    }

    /// The session's cost so far. What is told between prompts belongs to none.
    fn cost(&mut self, update: &UsageUpdate) {
        let amount = update.cost["amount"].as_f64().filter(|amount| amount.is_finite() && *amount >= 0.0);
        let Some(amount) = amount else { return };
        let works = self.works();
        let turn = &mut self.state.turn;
        if !works || amount < turn.cost_before {
            turn.cost_before = if works { 0.0 } else { amount }; // Less than before: it counts from zero again.
        }
        turn.cost_told |= works;
        self.state.cost = amount;
    }

    /// One more sight of a tool call; `created` if it is told as a new one.
    pub(super) fn see(&mut self, sight: &Sight, created: bool, events: &mut Vec<AgentEvent>) {
        let Some(id) = sight.tool_call_id.as_deref().map(name_of) else { return };
        let Some(at) = self.find_tool(&id, created) else { return };
        let name = name(sight, created);
        let tool = &mut self.state.tools[at];
        if tool.life == Life::Seen {
            // The first name is the tool's; a later title says what it does.
            tool.name = name.own.or_else(|| tool.name.take()).or(name.kind);
            let input = sight.raw_input.as_deref().filter(|input| says_something(input));
            let waits = matches!(sight.status.as_deref(), None | Some("pending"));
            if input.is_some() || !waits {
                self.open_tool(at, input, sight.title.as_deref(), events);
            }
        }
        let failed = match sight.status.as_deref() {
            Some("completed") => false,
            Some("failed") => true,
            _ => return, // Outputs in progress are repeated with the result.
        };
        let tool = &mut self.state.tools[at];
        if tool.life == Life::Open {
            tool.life = Life::Closed;
            events.push(AgentEvent::ToolResult { id, output: output(sight), is_error: failed });
        }
    }

    /// A sight of a tool call that asks: it is told now at the latest. The id that it is told under, if it is open.
    pub(super) fn see_asking(&mut self, sight: &Sight, events: &mut Vec<AgentEvent>) -> Option<String> {
        let id = sight.tool_call_id.as_deref().map(name_of)?;
        self.find_tool(&id, true)?; // What asks is alive, whatever has been told under its id.
        self.see(sight, false, events);
        let at = self.find_tool(&id, false)?;
        if self.state.tools[at].life == Life::Seen {
            self.open_tool(at, sight.raw_input.as_deref(), sight.title.as_deref(), events);
        }
        (self.state.tools[at].life == Life::Open).then_some(id)
    }

    /// Where a tool call is kept. `None` for one that is told no more: a late word about a call of an earlier
    /// prompt, unless the id is used for a new one.
    fn find_tool(&mut self, id: &str, created: bool) -> Option<usize> {
        match self.state.tools.iter().position(|tool| tool.id == id) {
            Some(at) if self.state.tools[at].life == Life::Old => {
                if !created {
                    return None;
                }
                self.state.tools.remove(at);
            }
            Some(at) => return Some(at),
            None => (),
        }
        self.state.add_tool(Tool { id: id.to_owned(), ..Tool::default() });
        self.state.tools.iter().position(|tool| tool.id == id)
    }

    fn open_tool(&mut self, at: usize, input: Option<&RawValue>, title: Option<&str>, events: &mut Vec<AgentEvent>) {
        let tool = &mut self.state.tools[at];
        tool.life = Life::Open;
        let name = tool.name.take().unwrap_or_else(|| "tool".to_owned());
        let input = match (input, title) {
            (Some(input), _) => input.to_owned(),
            // gemini-cli shows no input, but says in words what it does.
            (None, Some(title)) if title != name => raw(&json!({"title": title})),
            (None, _) => raw(&json!({})),
        };
        events.push(AgentEvent::ToolUse { id: tool.id.clone(), tool: name, input });
    }

    /// Takes tool calls for over that the agent said no last word about. Those that `waited` for the user are told
    /// to be: nobody will answer any more.
    pub(super) fn end_tools(&mut self, waited: &[String], events: &mut Vec<AgentEvent>) {
        for tool in &mut self.state.tools {
            if tool.life == Life::Open && waited.contains(&tool.id) {
                let output = "the agent went on without an answer".to_owned();
                events.push(AgentEvent::ToolResult { id: tool.id.clone(), output, is_error: true });
            }
            tool.life = Life::Old;
        }
    }

    /// Whether the agent has a prompt at work.
    pub(super) fn works(&self) -> bool {
        self.state.phase == super::state::Phase::Ready && self.state.turn.prompt.is_some()
    }
}

/// The id that a tool call is known by.
pub(super) fn name_of(id: &str) -> String {
    if id.len() <= ID_BYTES {
        return id.to_owned();
    }
    let mut name = id.to_owned();
    cut_at_character(&mut name, ID_BYTES - 17);
    let digest = Sha256::digest(id);
    digest.iter().take(8).fold(name + "-", |name, byte| format!("{name}{byte:02x}"))
}

/// What a sight says about a tool's name.
struct Name {
    own: Option<String>,
    kind: Option<String>,
}

/// claude-agent-acp and qwen-code say it, opencode begins with it as the title. Other titles are what the tool
/// does, in many words: then the kind must do.
fn name(sight: &Sight, created: bool) -> Name {
    let said = sight.meta["claudeCode"]["toolName"].as_str().or_else(|| sight.meta["toolName"].as_str());
    let title = sight.title.as_deref().filter(|title| created && !title.contains(char::is_whitespace));
    let text = |text: &str| {
        let mut text = text.to_owned();
        cut_at_character(&mut text, NAME_BYTES);
        (!text.is_empty()).then_some(text)
    };
    Name { own: said.or(title).and_then(text), kind: sight.kind.as_deref().and_then(text) }
}

/// Whether an input is more than a beginning: opencode's first sight has the directory alone.
fn says_something(input: &RawValue) -> bool {
    // Raw JSON goes to clients unparsed; whatever their parsers could choke on ends here.
    match serde_json::from_str(input.get()) {
        Ok(Value::Object(fields)) => fields.keys().any(|field| field != "cwd"),
        Ok(Value::Null) | Err(_) => false,
        Ok(Value::String(text)) => !text.is_empty(),
        Ok(Value::Array(items)) => !items.is_empty(),
        Ok(Value::Bool(_) | Value::Number(_)) => true,
    }
}

/// What a tool put out: as it is, or else as it is to be shown.
fn output(sight: &Sight) -> String {
    match &sight.raw_output {
        Value::String(text) => return text.clone(),
        Value::Object(fields) => {
            let text = ["output", "formatted_output", "aggregated_output", "error"]
                .iter()
                .find_map(|field| fields.get(*field)?.as_str());
            if let Some(text) = text {
                return text.to_owned();
            }
        }
        _ => (),
    }
    let blocks = sight.content.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["content"]["text"].as_str()).collect();
    match &sight.raw_output {
        raw if texts.is_empty() && !raw.is_null() => raw.to_string(),
        _ => texts.join("\n"),
    }
}

pub(super) fn raw(value: &Value) -> Box<RawValue> {
    #[expect(clippy::expect_used, reason = "a JSON value can't fail to encode")]
    to_raw_value(value).expect("a value encodes")
}
