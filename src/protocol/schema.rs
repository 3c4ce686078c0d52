//! JSON Schemas of what goes over the wire, made of its types; for `asyncapi`, and for `http`, which describes
//! what goes beside the socket.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Where a document keeps its schemas.
pub(crate) const SCHEMAS: &str = "#/components/schemas/";

/// Frames of one direction: what one side says.
pub(crate) struct Frames {
    generator: SchemaGenerator,
    /// By the name of the schema.
    found: Map<String, Value>,
}

impl Frames {
    pub(crate) fn new(settings: SchemaSettings) -> Self {
        let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
        Self { generator: settings.into_generator(), found: Map::new() }
    }

    /// Takes a tagged enum apart, or a struct that one is flattened into: a schema for each type of frame.
    /// Returns their names.
    pub(crate) fn add<T: JsonSchema>(&mut self, suffix: &str) -> Vec<String> {
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

    /// The frames' schemas.
    pub(crate) fn found(&self) -> &Map<String, Value> {
        &self.found
    }

    /// The frames' schemas, and those that they refer to.
    pub(crate) fn schemas(mut self) -> Map<String, Value> {
        let sent = self.generator.contract().is_serialize();
        let mut others = self.generator.take_definitions(true);
        let mut schemas = self.found;
        loop {
            let text = Value::Object(schemas.clone()).to_string();
            let named = |name: &String| text.contains(&format!("\"{SCHEMAS}{name}\""));
            let Some(name) = others.keys().find(|name| named(name)).cloned() else { break };
            schemas.extend(others.remove(&name).map(|schema| (name, schema)));
        }
        if sent {
            schemas.values_mut().for_each(without_nulls);
        }
        schemas
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
pub(crate) fn without_nulls(schema: &mut Value) {
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
}

/// Which frame a schema is of.
pub(crate) fn wire_type(schema: &Value) -> &str {
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

pub(crate) fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("{place}{name}") })
}
