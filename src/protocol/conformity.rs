//! Frames of tests against the document that describes them.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::asyncapi;

static DOCUMENT: LazyLock<Value> = LazyLock::new(asyncapi::document);
static CLIENT_FRAME: LazyLock<Validator> = LazyLock::new(|| validator("ClientFrame"));
static SESSION_EVENT: LazyLock<Validator> = LazyLock::new(|| validator("SessionEvent"));
static CONNECTION_FRAME: LazyLock<Validator> = LazyLock::new(|| validator("ConnectionFrame"));

fn validator(schema: &str) -> Validator {
    let root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "allOf": [{ "$ref": format!("#/components/schemas/{schema}") }],
        "components": DOCUMENT["components"],
    });
    jsonschema::validator_for(&root).unwrap()
}

/// Whether the document has such a frame.
pub(super) fn is_client_frame(frame: &Value) -> bool {
    CLIENT_FRAME.is_valid(frame)
}

/// Panics unless the document has such an event.
pub(super) fn assert_session_event(frame: &Value) {
    SESSION_EVENT.validate(frame).unwrap_or_else(|error| panic!("{error}: {frame}"));
}

/// Panics unless the document has such a frame.
pub(super) fn assert_connection_frame(frame: &Value) {
    CONNECTION_FRAME.validate(frame).unwrap_or_else(|error| panic!("{error}: {frame}"));
}

/// What the document says of each type of client frame.
pub(super) fn client_schemas() -> Vec<&'static Value> {
    let schemas = &DOCUMENT["components"]["schemas"];
    let members = schemas["ClientFrame"]["oneOf"].as_array().unwrap();
    members.iter().map(|member| DOCUMENT.pointer(&member["$ref"].as_str().unwrap()[1..]).unwrap()).collect()
}

/// The types of events that the document tells of.
pub(super) fn event_types() -> Vec<&'static str> {
    let schemas = &DOCUMENT["components"]["schemas"];
    let members = schemas["SessionEvent"]["oneOf"].as_array().unwrap();
    let schema = |member: &Value| DOCUMENT.pointer(&member["$ref"].as_str().unwrap()[1..]).unwrap();
    members.iter().map(|member| schema(member)["properties"]["type"]["const"].as_str().unwrap()).collect()
}
