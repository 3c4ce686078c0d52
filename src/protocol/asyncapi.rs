//! The socket in the words of AsyncAPI 3, made of the types that are sent and read.
//!
//! `schemas/asyncapi.json` holds what [`document`] gives, for whoever generates a client from it;
//! `http` serves that file. Nothing of this runs in a gateway.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::event::Envelope;
use super::schema::{Frames, SCHEMAS, reference, wire_type};
use super::{ClientMessage, CloseCode, SUBPROTOCOL, ServerFrame};

/// The whole document.
pub fn document() -> Value {
    let mut said = Frames::new(SchemaSettings::draft07().for_deserialize());
    let client = said.add::<ClientMessage>("Frame");
    let mut shown = Frames::new(SchemaSettings::draft07().for_serialize());
    let events = shown.add::<Envelope<'_>>("Event");
    let replies = shown.add::<ServerFrame>("Frame");
    let server: Vec<String> = events.iter().chain(&replies).cloned().collect();
    let messages: Map<String, Value> = said.found().iter().chain(shown.found()).map(message).collect();
    let mut schemas = said.schemas();
    schemas.extend(shown.schemas());
    for (name, description, members) in [
        ("ClientFrame", "Everything that a client can say.", &client),
        ("SessionEvent", "What happened in a session: journalled, numbered by `seq`, replayed.", &events),
        ("ConnectionFrame", "What is about the connection: not journalled, without `seq`.", &replies),
        ("ServerFrame", "Everything that the gateway says.", &server),
    ] {
        let members: Vec<Value> = members.iter().map(|name| reference(SCHEMAS, name)).collect();
        schemas.insert(name.to_owned(), json!({ "description": description, "oneOf": members }));
    }
    let listed = |names: &[String]| -> Vec<Value> {
        names.iter().map(|name| reference("#/channels/stream/messages/", name)).collect()
    };
    let operations = json!({
        "say": {
            "action": "receive",
            "summary": "What a client says.",
            "channel": { "$ref": "#/channels/stream" },
            "messages": listed(&client),
        },
        "show": {
            "action": "send",
            "summary": "What the gateway shows and answers.",
            "channel": { "$ref": "#/channels/stream" },
            "messages": listed(&server),
        },
    });
    let on_channel: Map<String, Value> =
        client.iter().chain(&server).map(|name| (name.clone(), reference("#/components/messages/", name))).collect();
    let close_codes: Vec<Value> = CloseCode::ALL
        .iter()
        .map(|code| json!({"code": code.code(), "word": code.word(), "retry_after_ms": code.retry_after_ms()}))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Streams AI agents at work over a WebSocket. A session is a journal; a connection follows \
                it from any place: history first, then live.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": "127.0.0.1:8080",
                "protocol": "ws",
                "description": "The address of yours; `wss` behind a proxy with a certificate.",
                "security": [{ "$ref": "#/components/securitySchemes/token" }],
            },
        },
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "description": format!("Text frames, a JSON object each. Whoever offers the subprotocol `{SUBPROTOCOL}` \
                    gets all event types, others those of the document only: without the ones marked [x]."),
                "messages": on_channel,
                "bindings": { "ws": { "method": "GET", "query": {
                    "type": "object",
                    "properties": {
                        "token": { "type": "string", "description": "An API token, where no header can be set." },
                        "protocol": { "type": "string", "enum": [SUBPROTOCOL] },
                    },
                } } },
                "x-subprotocol": SUBPROTOCOL,
                "x-close-codes": close_codes,
            },
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, `rc_…`: as header `Authorization: Bearer`, as subprotocol \
                        `Bearer.rc_…`, or as `?token=`. A session cookie of a Better Auth application does as well.",
                },
            },
        },
    })
}

fn message((name, schema): (&String, &Value)) -> (String, Value) {
    let message = json!({
        "name": wire_type(schema),
        "summary": schema["description"],
        "payload": reference(SCHEMAS, name),
    });
    (name.clone(), message)
}
