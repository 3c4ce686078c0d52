//! What is on the wire, in both directions. Every line is a JSON object; what is not needed is not read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::agent::Tell;

/// A line from the agent: its type, and what the types have in common, still to be read.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) subtype: Option<&'a RawValue>,
    /// The tool call whose subagent speaks; of the agent itself, null.
    #[serde(default, borrow)]
    pub(super) parent_tool_use_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) event: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) message: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) request: Option<&'a RawValue>,
}

/// What the model API streams.
#[derive(Deserialize)]
pub(super) struct StreamEvent<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) message: Option<&'a RawValue>,
}

/// A piece of a message.
#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(default)]
    pub(super) text: String,
}

/// A message of the conversation.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(default)]
    pub(super) id: Value,
    #[serde(default)]
    pub(super) model: Value,
    #[serde(default, borrow)]
    pub(super) content: Option<&'a RawValue>,
}

/// A part of a message.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default, borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) tool_use_id: Option<String>,
    #[serde(default, borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) is_error: Value,
}

/// What it asks of its host.
#[derive(Deserialize)]
pub(super) struct ControlRequest<'a> {
    #[serde(borrow)]
    pub(super) subtype: Cow<'a, str>,
    #[serde(default)]
    pub(super) tool_name: String,
    #[serde(default, borrow)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) tool_use_id: String,
}

/// The text of a JSON string.
pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// The answer to a request for the use of a tool.
#[derive(Serialize)]
#[serde(tag = "behavior", rename_all = "camelCase")]
pub(super) enum Permission<'a> {
    /// With this input.
    #[serde(rename_all = "camelCase")]
    Allow { updated_input: &'a RawValue },
    /// The model is told why.
    Deny { message: &'a str },
}

/// Work for the agent.
pub(super) fn prompt(id: &str, text: &str) -> Tell {
    let content = json!([{"type": "text", "text": text}]);
    let message = json!({"role": "user", "content": content});
    write(id, &json!({"type": "user", "message": message, "parent_tool_use_id": null, "session_id": ""}))
}

/// Ends the turn at work, if there is one.
pub(super) fn interrupt(id: &str) -> Tell {
    write(id, &json!({"type": "control_request", "request_id": id, "request": {"subtype": "interrupt"}}))
}

/// Answers a request for the use of a tool.
pub(super) fn permission(id: &str, request: &str, permission: &Permission<'_>) -> Tell {
    #[derive(Serialize)]
    struct Success<'a> {
        subtype: &'static str,
        request_id: &'a str,
        response: &'a Permission<'a>,
    }
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        response: Success<'a>,
    }
    let response = Success { subtype: "success", request_id: request, response: permission };
    write(id, &Line { r#type: "control_response", response })
}

/// Says that a request can't be fulfilled.
pub(super) fn refusal(id: &str, request: &str, error: &str) -> Tell {
    let response = json!({"subtype": "error", "request_id": request, "error": error});
    write(id, &json!({"type": "control_response", "response": response}))
}

fn write(id: &str, line: &impl Serialize) -> Tell {
    #[expect(clippy::expect_used, reason = "string keys into memory can't fail to encode")]
    let mut text = serde_json::to_string(line).expect("a line encodes");
    text.push('\n');
    Tell::Write { id: id.to_owned(), text }
}
