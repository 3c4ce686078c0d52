//! What the agent's lines mean.
//!
//! Lenient as the native dialect is: what is not known is skipped, and what is not readable is refused without
//! touching what is known so far.

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::native::read;
use super::state::{ProcessState, State};
use super::wire::{Block, Delta, Line, Message, StreamEvent, text};
use super::{asks, end};
use crate::agent::{AgentEvent, DecodeError};
use crate::config::PermissionPolicy;

/// The model of messages that no model wrote: what Claude Code says itself is in the turn's result too, and old
/// ones are repeated when a conversation is compacted.
const NO_MODEL: &str = "<synthetic>";

/// Reads one line.
pub(super) fn line(
    state: &mut State,
    permissions: PermissionPolicy,
    line: &str,
    events: &mut Vec<AgentEvent>,
) -> Result<(), DecodeError> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    // Serde would read a JSON array as a struct too.
    if !line.trim_ascii_start().starts_with('{') {
        return Err(DecodeError("a line is not a JSON object".to_owned()));
    }
    let said: Line<'_> = read("agent", line)?;
    let process = &mut state.process;
    let from_subagent = said.parent_tool_use_id.is_some_and(|parent| parent.get() != "null");
    let is_shown = !from_subagent && !process.by_itself;
    match &*said.r#type {
        "system" if text(said.subtype).as_deref() == Some("init") => {
            // Every turn begins with one.
            process.by_itself = !process.owes_end;
            Ok(())
        }
        "stream_event" if is_shown => stream_event(process, said.event, events),
        "assistant" if is_shown => assistant(process, said.message, events),
        "user" => results(process, said.message, is_shown, events),
        "control_request" => asks::request(process, permissions, &said, events),
        "control_cancel_request" => {
            asks::withdraw(process, &said);
            Ok(())
        }
        "result" => end::result(state, line, events),
        // Answers to what it was asked, what subagents do, what is new.
        _ => Ok(()),
    }
}

/// Text as it is written. What is thought and how a tool's input grows is not shown.
fn stream_event(
    process: &mut ProcessState,
    event: Option<&RawValue>,
    events: &mut Vec<AgentEvent>,
) -> Result<(), DecodeError> {
    let event: StreamEvent<'_> = read("stream_event", whole(event))?;
    match &*event.r#type {
        "message_start" => {
            let message: Message<'_> = read("message_start", whole(event.message))?;
            process.begin_message(message.id.as_str());
        }
        "content_block_delta" => {
            let delta: Delta<'_> = read("content_block_delta", whole(event.delta))?;
            if delta.r#type == "text_delta" && !delta.text.is_empty() {
                process.add_text();
                events.push(AgentEvent::Text(delta.text));
            }
        }
        _ => (),
    }
    Ok(())
}

/// A part of a message, whole: its tool calls, and its text if that did not come in pieces.
fn assistant(
    process: &mut ProcessState,
    message: Option<&RawValue>,
    events: &mut Vec<AgentEvent>,
) -> Result<(), DecodeError> {
    let message: Message<'_> = read("assistant", whole(message))?;
    if message.model == NO_MODEL {
        return Ok(());
    }
    let is_shown = process.has_text_of(message.id.as_str());
    let (said, tools) = (process.said, process.tools.len());
    let mut shown = Vec::new();
    for block in blocks(message.content) {
        match tool_use_or_text(process, block, is_shown) {
            Ok(event) => shown.extend(event),
            Err(error) => {
                // All of a line or nothing of it.
                process.said = said;
                process.tools.truncate(tools);
                return Err(error);
            }
        }
    }
    events.append(&mut shown);
    Ok(())
}

fn tool_use_or_text(
    process: &mut ProcessState,
    block: &RawValue,
    text_is_shown: bool,
) -> Result<Option<AgentEvent>, DecodeError> {
    let block: Block<'_> = read("content block", block.get())?;
    match (&*block.r#type, block.id, block.name) {
        ("text", ..) => {
            let text = block.text.filter(|text| !text_is_shown && !text.is_empty());
            process.said |= text.is_some();
            Ok(text.map(AgentEvent::Text))
        }
        ("tool_use", Some(id), Some(tool)) => {
            let input = tool_input(block.input)?;
            Ok(process.open_tool(&id).then_some(AgentEvent::ToolUse { id, tool, input }))
        }
        _ => Ok(None),
    }
}

/// A tool's input as it is passed on. Raw JSON goes to clients unparsed; whatever their parsers could choke on
/// (nesting without end, half a surrogate pair) ends here.
pub(super) fn tool_input(input: Option<&RawValue>) -> Result<Box<RawValue>, DecodeError> {
    let input = input.map_or("{}", RawValue::get);
    read::<Value>("tool input", input)?;
    read("tool input", input)
}

/// What tools put out; the rest of such a message is not the user's either. Of subagents' tools only those are
/// shown that the user was asked about.
fn results(
    process: &mut ProcessState,
    message: Option<&RawValue>,
    is_shown: bool,
    events: &mut Vec<AgentEvent>,
) -> Result<(), DecodeError> {
    let message: Message<'_> = read("user", whole(message))?;
    for block in blocks(message.content) {
        let Ok(block) = serde_json::from_str::<Block<'_>>(block.get()) else { continue };
        let ("tool_result", Some(id)) = (&*block.r#type, block.tool_use_id) else { continue };
        let is_shown = is_shown || process.has_tool(&id);
        process.close_tool(&id);
        if is_shown {
            let is_error = block.is_error == true;
            events.push(AgentEvent::ToolResult { id, output: output(block.content), is_error });
        }
    }
    Ok(())
}

/// The text of a tool's result: a string, or blocks of which those that are no text are only named.
fn output(content: Option<&RawValue>) -> String {
    let Some(content) = content else { return String::new() };
    if let Some(text) = text(Some(content)) {
        return text;
    }
    let texts = blocks(Some(content)).map(|block| match serde_json::from_str::<Block<'_>>(block.get()) {
        Ok(Block { text: Some(text), .. }) => text,
        Ok(block) => format!("[{}]", block.r#type),
        Err(_) => block.get().to_owned(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// The parts of a message's content; a content that is only text has none.
fn blocks(content: Option<&RawValue>) -> impl Iterator<Item = &RawValue> {
    let blocks = content.and_then(|content| serde_json::from_str::<Vec<&RawValue>>(content.get()).ok());
    blocks.unwrap_or_default().into_iter()
}

/// What is missing reads like `null`.
fn whole(raw: Option<&RawValue>) -> &str {
    raw.map_or("null", RawValue::get)
}
