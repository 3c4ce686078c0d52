//! The routes beside the socket in the words of OpenAPI 3.1, made of the types that they take and give.
//!
//! `schemas/openapi.json` holds what [`document`] gives; `reference` serves that file. Nothing of this runs in
//! a gateway. A route that is not described here fails a test.

mod builder;

use axum::http::StatusCode;
use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;
use serde_json::{Value, json};

use self::builder::Api;
use super::events;
use super::files::FileList;
use super::health::{Health, Readiness};
use super::profiles::ProfileList;
use super::sessions::{RenameBody, SessionList, StartBody, StartedSession, WholeSession};
use super::tasks::{AcceptedTask, AnswerBody, AnsweredTask, CancelledTask, TaskList, WholeTask};
use super::tokens::{NewToken, TokenBody, TokenList};
use crate::domain::{Seq, SessionId, TaskId, TaskState, TokenId};
use crate::protocol::{ErrorCode, Submit};

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
