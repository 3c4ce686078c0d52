//! The socket in the words of AsyncAPI 3, made of the types that are sent and read.
//!
//! `schemas/asyncapi.json` holds what [`document`] gives, for whoever generates a client from it;
//! `http` serves that file. Nothing of this runs in a gateway.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::event::Envelope;
use super::{ClientMessage, CloseCode, SUBPROTOCOL, ServerFrame};

const SCHEMAS: &str = "#/components/schemas/";

/// The whole document.
pub fn document() -> Value {
    let mut said = Frames::new(SchemaSettings::draft07().for_deserialize());
    let client = said.add::<ClientMessage>("Frame");
    let mut shown = Frames::new(SchemaSettings::draft07().for_serialize());
    let events = shown.add::<Envelope<'_>>("Event");
    let replies = shown.add::<ServerFrame>("Frame");
    let server: Vec<String> = events.iter().chain(&replies).cloned().collect();
    let mut messages = said.messages();
    messages.extend(shown.messages());
    let mut schemas = said.schemas();
    schemas.extend(shown.schemas().into_iter().map(|(name, schema)| (name, without_nulls(schema))));
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

/// Frames of one direction.
struct Frames {
    generator: SchemaGenerator,
    /// By the name of the schema.
    found: Map<String, Value>,
}

impl Frames {
    fn new(settings: SchemaSettings) -> Self {
        let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
        Self { generator: settings.into_generator(), found: Map::new() }
    }

    /// Takes a tagged enum apart, or a struct that one is flattened into: a schema for each type of frame.
    /// Returns their names.
    fn add<T: JsonSchema>(&mut self, suffix: &str) -> Vec<String> {
        let mut whole = T::json_schema(&mut self.generator);
        let variants = whole.remove("oneOf").and_then(|variants| serde_json::from_value(variants).ok());
        let variants: Vec<Schema> = variants.unwrap_or_default();
        let mut names = Vec::new();
        for variant in variants {
            let mut schema = merged(&whole, variant, &self.generator);
            for transform in self.generator.transforms_mut() {
                transform.transform(&mut schema);
            }
            let schema = schema.to_value();
            // The same frame under the name that conversations use.
            let twin = (wire_type(&schema) == "task.submit").then(|| session_turn(schema.clone()));
            for schema in [schema].into_iter().chain(twin) {
                let name = format!("{}{suffix}", pascal(wire_type(&schema)));
                self.found.insert(name.clone(), schema);
                names.push(name);
            }
        }
        names
    }

    fn messages(&self) -> Map<String, Value> {
        let message = |(name, schema): (&String, &Value)| {
            let message = json!({
                "name": wire_type(schema),
                "summary": schema["description"],
                "payload": reference(SCHEMAS, name),
            });
            (name.clone(), message)
        };
        self.found.iter().map(message).collect()
    }

    /// The frames' schemas, and those that they refer to.
    fn schemas(mut self) -> Map<String, Value> {
        let mut others = self.generator.take_definitions(true);
        let mut schemas = self.found;
        loop {
            let text = Value::Object(schemas.clone()).to_string();
            let named = |name: &String| text.contains(&format!("\"{SCHEMAS}{name}\""));
            let Some(name) = others.keys().find(|name| named(name)).cloned() else { return schemas };
            schemas.extend(others.remove(&name).map(|schema| (name, schema)));
        }
    }
}

/// A variant with the fields that all have.
fn merged(whole: &Schema, variant: Schema, generator: &SchemaGenerator) -> Schema {
    let mut variant = variant.to_value();
    // A frame whose fields are a type of their own.
    if let Some(name) = variant["$ref"].as_str().and_then(|path| path.strip_prefix(SCHEMAS)) {
        let fields = generator.definitions().get(name).cloned().unwrap_or_default();
        merge(&mut variant, &fields);
    }
    if let Some(object) = variant.as_object_mut() {
        object.remove("$ref");
    }
    let mut fields = whole.clone();
    fields.remove("description");
    fields.remove("title");
    merge(&mut variant, &fields.to_value());
    Schema::try_from(variant).unwrap_or_default()
}

/// Adds fields of an object to those of another.
fn merge(into: &mut Value, from: &Value) {
    for part in ["properties", "required"] {
        match (&mut into[part], &from[part]) {
            (Value::Object(into), Value::Object(from)) => into.extend(from.clone()),
            (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
            (into @ Value::Null, from) if !from.is_null() => *into = from.clone(),
            _ => (),
        }
    }
}

/// `session.turn`, which is a `task.submit` in a session that is there.
fn session_turn(mut submit: Value) -> Value {
    submit["properties"]["type"]["const"] = json!("session.turn");
    submit["description"] = json!("`session.turn`: a prompt into a session that is there.");
    if let Some(required) = submit["required"].as_array_mut() {
        required.push(json!("session_id"));
    }
    submit["properties"]["session_id"] = json!({
        "allOf": [reference(SCHEMAS, "SessionId")],
        "description": "Which session.",
    });
    submit
}

/// What is left out where it does not apply is never `null`.
fn without_nulls(mut schema: Value) -> Value {
    let required = schema["required"].clone();
    let is_required = |name: &String| required.as_array().is_some_and(|names| names.contains(&json!(name)));
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, property) in properties.filter(|(name, _)| !is_required(name)) {
        let kinds = property.get("type").and_then(Value::as_array);
        if let Some(kind) = kinds.and_then(|kinds| kinds.iter().find(|kind| *kind != "null")).cloned() {
            property["type"] = kind;
        }
        if let Some(choices) = property.get_mut("anyOf").and_then(Value::as_array_mut) {
            choices.retain(|choice| choice["type"] != "null");
        }
    }
    schema
}

/// Which frame a schema is of.
fn wire_type(schema: &Value) -> &str {
    schema["properties"]["type"]["const"].as_str().unwrap_or_default()
}

/// `task:tool_use` as `TaskToolUse`.
fn pascal(wire_type: &str) -> String {
    let mut name = String::new();
    for word in wire_type.split([':', '.', '_']) {
        name.push_str(&word[..1].to_uppercase());
        name.push_str(&word[1..]);
    }
    name
}

fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("{place}{name}") })
}
