//! Writes the document, an operation at a time.

use axum::http::StatusCode;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::{ErrorBody, query};
use crate::protocol::ErrorCode;
use crate::protocol::event::Envelope;
use crate::protocol::schema::{Frames, SCHEMAS, reference, without_nulls};

const JSON: &str = "application/json";

/// The document, as far as it is written.
pub(super) struct Api {
    /// Of what clients send.
    taken: SchemaGenerator,
    /// Of what they are sent.
    given: SchemaGenerator,
    paths: Map<String, Value>,
}

/// A route that is being described.
pub(super) struct Operation<'a> {
    api: &'a mut Api,
    path: &'static str,
    method: &'static str,
}

impl Api {
    pub(super) fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
        Self {
            taken: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
            paths: Map::new(),
        }
    }

    pub(super) fn get(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("get", path, id, summary)
    }

    pub(super) fn post(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("post", path, id, summary)
    }

    pub(super) fn put(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("put", path, id, summary)
    }

    pub(super) fn patch(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("patch", path, id, summary)
    }

    pub(super) fn delete(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("delete", path, id, summary)
    }

    fn operation(&mut self, method: &'static str, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        let path_item = self.paths.entry(path).or_insert_with(|| json!({}));
        path_item[method] = json!({ "operationId": id, "summary": summary, "parameters": [], "responses": {} });
        let operation = Operation { api: self, path, method };
        operation.refuses(&[
            ErrorCode::Unauthorized,
            ErrorCode::Forbidden,
            ErrorCode::StorageUnavailable,
            ErrorCode::InternalError,
        ])
    }

    /// The paths, and the schemas that they refer to.
    pub(super) fn finish(mut self) -> (Map<String, Value>, Map<String, Value>) {
        let mut schemas = self.taken.take_definitions(true);
        let mut given = self.given.take_definitions(true);
        given.values_mut().for_each(without_nulls);
        schemas.extend(given);
        let mut frames = Frames::new(SchemaSettings::draft2020_12().for_serialize());
        let events: Vec<Value> =
            frames.add::<Envelope<'_>>("Event").iter().map(|name| reference(SCHEMAS, name)).collect();
        schemas.extend(frames.schemas());
        schemas.insert("SessionEvent".to_owned(), json!({ "oneOf": events }));
        (self.paths, schemas)
    }
}

impl Operation<'_> {
    fn described(&mut self) -> &mut Value {
        &mut self.api.paths[self.path][self.method]
    }

    /// Needs no credential, and no database.
    pub(super) fn public(mut self) -> Self {
        self.described()["security"] = json!([]);
        self.described()["responses"] = json!({});
        self.refuses(&[ErrorCode::InternalError])
    }

    pub(super) fn parameter(mut self, place: &str, name: &str, description: &str, schema: &Value) -> Self {
        let parameter = json!({
            "name": name, "in": place, "description": description, "required": place == "path", "schema": schema,
        });
        if let Some(parameters) = self.described()["parameters"].as_array_mut() {
            parameters.push(parameter);
        }
        self
    }

    pub(super) fn query<T: JsonSchema>(self, name: &str, description: &str) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("query", name, description, &schema).refuses(&[ErrorCode::ValidationFailed])
    }

    pub(super) fn header<T: JsonSchema>(self, name: &str, description: &str) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("header", name, description, &schema)
    }

    /// The id that the path names. An ill-formed one is answered like one that is not there.
    pub(super) fn id<T: JsonSchema>(self) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("path", "id", "Which.", &schema).refuses(&[ErrorCode::NotFound])
    }

    pub(super) fn file_path(self) -> Self {
        let description = "From the workspace's root: `plots/a.png`. Slashes need no encoding.";
        self.parameter("path", "path", description, &json!({ "type": "string", "minLength": 1 }))
    }

    /// A list, a page at a time.
    pub(super) fn page(self) -> Self {
        let (least, most) = (query::PAGE.start(), query::PAGE.end());
        let limit = json!({ "type": "integer", "minimum": least, "maximum": most, "default": query::DEFAULT_PAGE });
        self.query::<bool>("all", "Everybody's; for admins.")
            .parameter("query", "limit", "At most so many.", &limit)
            .parameter("query", "cursor", "A `next_cursor` of the page before.", &json!({ "type": "string" }))
            .refuses(&[ErrorCode::ValidationFailed])
    }

    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.described()["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
        self.refuses(&[ErrorCode::InvalidJson, ErrorCode::ValidationFailed, ErrorCode::PayloadTooLarge])
    }

    /// Nothing is as good as an empty object.
    pub(super) fn optional(mut self) -> Self {
        self.described()["requestBody"]["required"] = json!(false);
        self
    }

    pub(super) fn bytes(mut self) -> Self {
        self.described()["requestBody"] =
            json!({ "required": true, "content": { "application/octet-stream": { "schema": {} } } });
        self
    }

    pub(super) fn gives<T: JsonSchema>(mut self, status: StatusCode, description: &str) -> Self {
        let schema = self.api.given.subschema_for::<T>().to_value();
        self.described()["responses"][status.as_str()] =
            json!({ "description": description, "content": { JSON: { "schema": schema } } });
        self
    }

    /// What a part of the answer is good for.
    pub(super) fn leads_to(mut self, part: &str, operations: &[&str]) -> Self {
        let responses = self.described()["responses"].as_object_mut().into_iter().flatten();
        for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
            for operation in operations {
                response["links"][*operation] = json!({
                    "operationId": operation,
                    "parameters": { "id": format!("$response.body#{part}") },
                });
            }
        }
        self
    }

    pub(super) fn gives_document(mut self) -> Self {
        self.described()["responses"]["200"] =
            json!({ "description": "The document.", "content": { JSON: { "schema": { "type": "object" } } } });
        self
    }

    /// Instead of, or beside, what else is given with 200.
    pub(super) fn gives_text(mut self, kind: &str, description: &str) -> Self {
        let response = &mut self.described()["responses"]["200"];
        if response.is_null() {
            *response = json!({ "description": description, "content": {} });
        }
        response["content"][kind] = json!({ "schema": { "type": "string", "description": description } });
        self
    }

    pub(super) fn gives_nothing(mut self, status: StatusCode, description: &str) -> Self {
        self.described()["responses"][status.as_str()] = json!({ "description": description });
        self
    }

    pub(super) fn refuses(mut self, codes: &[ErrorCode]) -> Self {
        let schema = self.api.given.subschema_for::<ErrorBody<'_>>().to_value();
        for code in codes {
            let response = &mut self.described()["responses"][code.status().as_str()];
            let words = match response["description"].as_str() {
                Some(words) if words.contains(code.as_str()) => words.to_owned(),
                Some(words) => format!("{words}, `{}`", code.as_str()),
                None => format!("`{}`", code.as_str()),
            };
            *response = json!({ "description": words, "content": { JSON: { "schema": schema } } });
        }
        self
    }
}
