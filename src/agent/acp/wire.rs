//! What goes over the wire: JSON-RPC 2.0, one object a line (<https://agentclientprotocol.com/protocol/v1>).
//!
//! Hand-written and tolerant: agents differ in what they leave out and in the order of what they say. A
//! field of the wrong type counts as missing, so that no ornament costs a line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::agent::DecodeError;

/// The version of the protocol that is spoken here.
pub(super) const VERSION: u32 = 1;
/// JSON-RPC's code for a request that this client doesn't serve.
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC's code for a request that makes no sense.
pub(super) const INVALID_PARAMS: i32 = -32602;

/// The longest id of an agent's request, in bytes of JSON: it is kept until it is answered.
const ID_BYTES: usize = 256;

/// A line from the agent.
pub(super) enum Message<'a> {
    /// It wants something done.
    Request {
        /// Comes back with the reply.
        id: Box<RawValue>,
        method: Cow<'a, str>,
        params: &'a str,
    },
    /// It tells something.
    Notification { method: Cow<'a, str>, params: &'a str },
    /// It has done something, or could not.
    Response { id: String, outcome: Result<&'a str, RpcError> },
}

/// Why something could not be done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RpcError {
    #[serde(deserialize_with = "lenient")]
    pub(super) message: Option<String>,
    pub(super) data: Value,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads a line. The error never quotes it.
    pub(super) fn read(line: &'a str) -> Result<Self, DecodeError> {
        // Serde would read a JSON array as a struct too.
        if !line.starts_with('{') {
            return Err(DecodeError("a line is not a JSON object".to_owned()));
        }
        let envelope: Envelope<'a> = serde_json::from_str(line).map_err(|error| refusal(&error))?;
        let params = envelope.params.map_or("null", RawValue::get);
        match (envelope.method, envelope.id) {
            (Some(_), Some(id)) if id.get().len() > ID_BYTES => {
                Err(DecodeError("a request's id is too long".to_owned()))
            }
            (Some(method), Some(id)) => Ok(Self::Request { id: id.to_owned(), method, params }),
            (Some(method), None) => Ok(Self::Notification { method, params }),
            (None, Some(id)) => {
                // All ids of this side are strings; another one is nobody's.
                let id = serde_json::from_str(id.get()).unwrap_or_default();
                let outcome = match envelope.error {
                    Some(error) => Err(serde_json::from_str(error.get()).unwrap_or_default()),
                    None => Ok(envelope.result.map_or("null", RawValue::get)),
                };
                Ok(Self::Response { id, outcome })
            }
            (None, None) => Err(DecodeError("a line is neither a request nor a response".to_owned())),
        }
    }
}

/// Says what is wrong without the line's own words, which serde's messages quote and logs must not hold.
fn refusal(error: &serde_json::Error) -> DecodeError {
    let cause = if error.is_data() { "a field is missing or of the wrong type" } else { "it is not valid JSON" };
    DecodeError(format!("unreadable line: {cause} (near column {})", error.column()))
}

/// What is in `json`, or its default.
pub(super) fn read<T: DeserializeOwned + Default>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_default()
}

/// A field of the wrong type counts as missing.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// `initialize`'s result.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Initialized {
    pub(super) agent_info: Value,
    pub(super) agent_capabilities: Value,
}

/// The result of `session/new`, `session/load` and `session/resume`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Opened {
    #[serde(deserialize_with = "lenient")]
    pub(super) session_id: Option<String>,
    pub(super) modes: Value,
}

/// `session/prompt`'s result.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Prompted {
    #[serde(deserialize_with = "lenient")]
    pub(super) stop_reason: Option<String>,
    pub(super) usage: Value,
    #[serde(rename = "_meta")]
    pub(super) meta: Value,
}

/// `session/update`'s parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Notified {
    #[serde(deserialize_with = "lenient")]
    pub(super) session_id: Option<String>,
    pub(super) update: Option<Box<RawValue>>,
}

/// What every update has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kind {
    #[serde(rename = "sessionUpdate", deserialize_with = "lenient")]
    pub(super) kind: Option<String>,
}

/// Text that the agent writes, and what else comes with it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk {
    pub(super) content: Value,
    #[serde(rename = "_meta")]
    pub(super) meta: Value,
}

/// What the session has come to cost.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct UsageUpdate {
    pub(super) cost: Value,
}

/// A sight of a tool call: what is new or has changed about it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Sight {
    #[serde(deserialize_with = "lenient")]
    pub(super) tool_call_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) title: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) status: Option<String>,
    pub(super) raw_input: Option<Box<RawValue>>,
    pub(super) raw_output: Value,
    pub(super) content: Value,
    #[serde(rename = "_meta")]
    pub(super) meta: Value,
}

/// `session/request_permission`'s parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PermissionRequest {
    pub(super) tool_call: Option<Box<RawValue>>,
    #[serde(deserialize_with = "lenient")]
    pub(super) options: Option<Vec<PermissionOption>>,
}

/// One way to answer a request for permission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PermissionOption {
    pub(super) option_id: String,
    pub(super) name: String,
    pub(super) kind: String,
}

/// `elicitation/create`'s parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Elicitation {
    #[serde(deserialize_with = "lenient")]
    pub(super) mode: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) tool_call_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) message: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) requested_schema: Option<Form>,
}

/// What is to be filled in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Form {
    pub(super) properties: Properties,
    #[serde(deserialize_with = "lenient")]
    pub(super) required: Option<Vec<String>>,
}

/// The properties of a form in the order in which they stand there: that of the questions.
#[derive(Debug, Default)]
pub(super) struct Properties(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Properties;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Properties(properties))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A request as a line.
pub(super) fn request(id: &str, method: &str, params: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// A notification as a line.
pub(super) fn notification(method: &str, params: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

/// The answer to a request of the agent, as a line.
pub(super) fn reply(id: &RawValue, result: &Value) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}\n", id.get())
}

/// The refusal of a request of the agent, as a line.
pub(super) fn refuse(id: &RawValue, code: i32, message: &str) -> String {
    let error = json!({"code": code, "message": message});
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{error}}}\n", id.get())
}

fn line(message: &Value) -> String {
    format!("{message}\n")
}
