//! The routes beside the socket in the words of OpenAPI 3.1, made of the types that they take and give.
//!
//! `schemas/openapi.json` holds what [`document`] gives; `reference` serves that file. Nothing of this runs in
//! a gateway. A route that is not described here fails a test.

use axum::http::StatusCode;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::files::FileList;
use super::health::{Health, Readiness};
use super::profiles::ProfileList;
use super::sessions::{RenameBody, SessionList, StartBody, StartedSession, WholeSession};
use super::tasks::{AcceptedTask, AnswerBody, AnsweredTask, CancelledTask, TaskList, WholeTask};
use super::tokens::{NewToken, TokenBody, TokenList};
use super::{ErrorBody, events, query};
use crate::domain::{Seq, SessionId, TaskId, TaskState, TokenId};
use crate::protocol::event::Envelope;
use crate::protocol::schema::{Frames, SCHEMAS, reference, without_nulls};
use crate::protocol::{ErrorCode, Submit};

const JSON: &str = "application/json";
/// What can be done with a session.
const SESSION: &[&str] =
    &["readSession", "renameSession", "eraseSession", "readEvents", "listFiles", "readFile", "writeFile"];

/// The whole document.
pub(super) fn document() -> Value {
    let mut api = Api::new();
    tasks(&mut api);
    sessions(&mut api);
    files(&mut api);
    others(&mut api);
    let (paths, schemas) = api.finish();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "streamgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Streams AI agents at work. This is REST beside the socket; `/v1/asyncapi.json` describes \
                the socket.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "parameter": [] }, { "cookie": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An API token, `rc_…`." },
                "parameter": {
                    "type": "apiKey", "in": "query", "name": "token",
                    "description": "An API token, where no header can be set.",
                },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": "better-auth.session_token",
                    "description": "The session of a Better Auth application.",
                },
            },
        },
    })
}

fn tasks(api: &mut Api) {
    use ErrorCode as Code;
    api.post("/v1/tasks", "submitTask", "Submit a prompt, in a session that is there or in a new one.")
        .body::<Submit>()
        .gives::<AcceptedTask>(StatusCode::ACCEPTED, "Accepted: it can't be lost any more.")
        .leads_to("/task_id", &["readTask", "cancelTask", "answerTask"])
        .leads_to("/session_id", SESSION)
        .refuses(&[Code::NotFound, Code::SessionNotFound, Code::SessionClosed, Code::Conflict])
        .refuses(&[Code::RateLimited, Code::QueueFull]);
    api.get("/v1/tasks", "listTasks", "Tasks, newest first, prompts cut short.")
        .query::<SessionId>("session_id", "Of this session only.")
        .query::<TaskState>("status", "In this state only.")
        .page()
        .gives::<TaskList>(StatusCode::OK, "A page.")
        .refuses(&[Code::SessionNotFound]);
    api.get("/v1/tasks/{id}", "readTask", "A task, with its result once it has ended.")
        .id::<TaskId>()
        .gives::<WholeTask>(StatusCode::OK, "The task.");
    api.delete("/v1/tasks/{id}", "cancelTask", "Cancel a task. Answers when nothing of it runs any more.")
        .id::<TaskId>()
        .gives::<CancelledTask>(StatusCode::OK, "It has ended, by this or before.")
        .refuses(&[Code::RateLimited]);
    api.post("/v1/tasks/{id}/answer", "answerTask", "Answer a question of a task. The first answer wins.")
        .id::<TaskId>()
        .body::<AnswerBody>()
        .gives::<AnsweredTask>(StatusCode::OK, "Answered.")
        .refuses(&[Code::Conflict, Code::RateLimited]);
}

fn sessions(api: &mut Api) {
    use ErrorCode as Code;
    api.post("/v1/sessions", "startSession", "Start a session. Answers when its container is up.")
        .body::<StartBody>()
        .optional()
        .gives::<StartedSession>(StatusCode::CREATED, "Started.")
        .leads_to("/session_id", SESSION)
        .refuses(&[Code::NotFound, Code::SessionClosed, Code::RateLimited, Code::QueueFull, Code::Capacity]);
    api.get("/v1/sessions", "listSessions", "Sessions, newest first.")
        .page()
        .gives::<SessionList>(StatusCode::OK, "A page.");
    api.get("/v1/sessions/{id}", "readSession", "A session and what happens in it now.")
        .id::<SessionId>()
        .gives::<WholeSession>(StatusCode::OK, "The session.");
    api.patch("/v1/sessions/{id}", "renameSession", "Name a session.")
        .id::<SessionId>()
        .body::<RenameBody>()
        .gives::<WholeSession>(StatusCode::OK, "The session under its new name.");
    api.delete("/v1/sessions/{id}", "eraseSession", "End a session and erase its history and files.")
        .id::<SessionId>()
        .gives_nothing(StatusCode::NO_CONTENT, "Erased.")
        .refuses(&[Code::RateLimited]);
    api.get("/v1/sessions/{id}/events", "readEvents", "A session's history, oldest first.")
        .id::<SessionId>()
        .query::<Seq>("after_seq", "Events after this one; 0 or absent: from the first.")
        .parameter(
            "query",
            "limit",
            "At most so many events; as NDJSON all if absent.",
            &json!({ "type": "integer", "minimum": 1, "maximum": events::MOST, "default": events::DEFAULT_LIMIT }),
        )
        .gives::<EventPage>(StatusCode::OK, "A page.")
        .gives_text(events::NDJSON, "One event per line.")
        .refuses(&[Code::ValidationFailed, Code::CursorAhead]);
    api.get("/v1/sessions/{id}/stream", "followSession", "A session's history, then live, as Server-Sent Events.")
        .id::<SessionId>()
        .query::<Seq>("after_seq", "Events after this one; 0 or absent: from the first.")
        .header::<Seq>("Last-Event-ID", "The same, as an `EventSource` that comes back says it.")
        .gives_text("text/event-stream", "`id:` is an event's `seq`, `data:` the event. It has no end.")
        .refuses(&[Code::ValidationFailed, Code::CursorAhead, Code::TooManyConnections]);
}

fn files(api: &mut Api) {
    use ErrorCode as Code;
    const PATH: &str = "/v1/sessions/{id}/files/{path}";
    api.get("/v1/sessions/{id}/files", "listFiles", "The files of a session's workspace.")
        .id::<SessionId>()
        .gives::<FileList>(StatusCode::OK, "All of them.");
    api.get(PATH, "readFile", "A file. A signed link opens it without a credential.")
        .id::<SessionId>()
        .file_path()
        .query::<String>("_pvt", "What signs a link.")
        .gives_text("*/*", "The file.")
        .refuses(&[Code::ValidationFailed, Code::NotFound, Code::PayloadTooLarge]);
    api.put(PATH, "writeFile", "Write a file, which may be new.")
        .id::<SessionId>()
        .file_path()
        .bytes()
        .gives_nothing(StatusCode::CREATED, "There was none.")
        .gives_nothing(StatusCode::NO_CONTENT, "There was one.")
        .refuses(&[Code::ValidationFailed, Code::Conflict, Code::SessionClosed, Code::PayloadTooLarge]);
}

fn others(api: &mut Api) {
    api.get("/v1/profiles", "listProfiles", "The agents to choose from.")
        .gives::<ProfileList>(StatusCode::OK, "All of them.");
    api.post("/v1/api-tokens", "createToken", "Make a token for oneself, with at most one's own roles.")
        .body::<TokenBody>()
        .optional()
        .gives::<NewToken>(StatusCode::CREATED, "Made. It is shown once.")
        .leads_to("/token_id", &["revokeToken"]);
    api.get("/v1/api-tokens", "listTokens", "One's tokens, newest first.")
        .page()
        .gives::<TokenList>(StatusCode::OK, "A page.");
    api.delete("/v1/api-tokens/{id}", "revokeToken", "Make a token useless.")
        .id::<TokenId>()
        .gives_nothing(StatusCode::NO_CONTENT, "Revoked.");
    api.get("/health", "readHealth", "Whether the process is alive.")
        .public()
        .gives::<Health>(StatusCode::OK, "It is.");
    api.get("/health/ready", "readReadiness", "Whether traffic should come here.")
        .public()
        .gives::<Readiness>(StatusCode::OK, "It should.")
        .gives::<Readiness>(
            StatusCode::SERVICE_UNAVAILABLE,
            "It should not: storage is away, or the gateway is ending.",
        );
    for (path, id, summary) in [
        ("/v1/openapi.json", "readOpenApi", "This document."),
        ("/v1/asyncapi.json", "readAsyncApi", "The document of the socket."),
    ] {
        api.get(path, id, summary).public().gives_document();
    }
}

/// A page of a session's history, as `events` writes it piece by piece.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "no page is ever in memory as a whole")]
struct EventPage {
    /// Oldest first; not those that are for others.
    #[schemars(with = "Vec<AnyEvent>")]
    events: Vec<()>,
    /// The session's last event.
    last_seq: Seq,
    /// Where the next page starts.
    next_after_seq: Seq,
}

/// Stands for all events, which [`Frames`] describes.
struct AnyEvent;

impl JsonSchema for AnyEvent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SessionEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        true.into()
    }
}

/// The document, as far as it is written.
struct Api {
    /// Of what clients send.
    taken: SchemaGenerator,
    /// Of what they are sent.
    given: SchemaGenerator,
    paths: Map<String, Value>,
}

/// A route that is being described.
struct Operation<'a> {
    api: &'a mut Api,
    path: &'static str,
    method: &'static str,
}

impl Api {
    fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
        Self {
            taken: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
            paths: Map::new(),
        }
    }

    fn get(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("get", path, id, summary)
    }

    fn post(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("post", path, id, summary)
    }

    fn put(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("put", path, id, summary)
    }

    fn patch(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
        self.operation("patch", path, id, summary)
    }

    fn delete(&mut self, path: &'static str, id: &str, summary: &str) -> Operation<'_> {
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
    fn finish(mut self) -> (Map<String, Value>, Map<String, Value>) {
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
    fn public(mut self) -> Self {
        self.described()["security"] = json!([]);
        self.described()["responses"] = json!({});
        self.refuses(&[ErrorCode::InternalError])
    }

    fn parameter(mut self, place: &str, name: &str, description: &str, schema: &Value) -> Self {
        let parameter = json!({
            "name": name, "in": place, "description": description, "required": place == "path", "schema": schema,
        });
        if let Some(parameters) = self.described()["parameters"].as_array_mut() {
            parameters.push(parameter);
        }
        self
    }

    fn query<T: JsonSchema>(self, name: &str, description: &str) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("query", name, description, &schema).refuses(&[ErrorCode::ValidationFailed])
    }

    fn header<T: JsonSchema>(self, name: &str, description: &str) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("header", name, description, &schema)
    }

    /// The id that the path names. An ill-formed one is answered like one that is not there.
    fn id<T: JsonSchema>(self) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.parameter("path", "id", "Which.", &schema).refuses(&[ErrorCode::NotFound])
    }

    fn file_path(self) -> Self {
        let description = "From the workspace's root: `plots/a.png`. Slashes need no encoding.";
        self.parameter("path", "path", description, &json!({ "type": "string", "minLength": 1 }))
    }

    /// A list, a page at a time.
    fn page(self) -> Self {
        let (least, most) = (query::PAGE.start(), query::PAGE.end());
        let limit = json!({ "type": "integer", "minimum": least, "maximum": most, "default": query::DEFAULT_PAGE });
        self.query::<bool>("all", "Everybody's; for admins.")
            .parameter("query", "limit", "At most so many.", &limit)
            .parameter("query", "cursor", "A `next_cursor` of the page before.", &json!({ "type": "string" }))
            .refuses(&[ErrorCode::ValidationFailed])
    }

    fn body<T: JsonSchema>(mut self) -> Self {
        let schema = self.api.taken.subschema_for::<T>().to_value();
        self.described()["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
        self.refuses(&[ErrorCode::InvalidJson, ErrorCode::ValidationFailed, ErrorCode::PayloadTooLarge])
    }

    /// Nothing is as good as an empty object.
    fn optional(mut self) -> Self {
        self.described()["requestBody"]["required"] = json!(false);
        self
    }

    fn bytes(mut self) -> Self {
        self.described()["requestBody"] =
            json!({ "required": true, "content": { "application/octet-stream": { "schema": {} } } });
        self
    }

    fn gives<T: JsonSchema>(mut self, status: StatusCode, description: &str) -> Self {
        let schema = self.api.given.subschema_for::<T>().to_value();
        self.described()["responses"][status.as_str()] =
            json!({ "description": description, "content": { JSON: { "schema": schema } } });
        self
    }

    /// What a part of the answer is good for.
    fn leads_to(mut self, part: &str, operations: &[&str]) -> Self {
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

    fn gives_document(mut self) -> Self {
        self.described()["responses"]["200"] =
            json!({ "description": "The document.", "content": { JSON: { "schema": { "type": "object" } } } });
        self
    }

    /// Instead of, or beside, what else is given with 200.
    fn gives_text(mut self, kind: &str, description: &str) -> Self {
        let response = &mut self.described()["responses"]["200"];
        if response.is_null() {
            *response = json!({ "description": description, "content": {} });
        }
        response["content"][kind] = json!({ "schema": { "type": "string", "description": description } });
        self
    }

    fn gives_nothing(mut self, status: StatusCode, description: &str) -> Self {
        self.described()["responses"][status.as_str()] = json!({ "description": description });
        self
    }

    fn refuses(mut self, codes: &[ErrorCode]) -> Self {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described() {
        let routes = [super::super::of_api(), super::super::of_files(), super::super::of_health()].concat();
        let routes: BTreeSet<String> = routes.iter().map(|(path, _)| path.replace("{*", "{")).collect();
        let document = document();
        let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(routes, described);
    }
}
