//! The documents that the gateway serves of itself, against what it does.

use std::collections::BTreeSet;

use jsonschema::Validator;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::database;
use crate::support::{TestGateway, types};

async fn served(gateway: &TestGateway, path: &str) -> Value {
    let response = reqwest::get(gateway.url(path)).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    response.json().await.unwrap()
}

/// What a document says of `schema`, which names one of its parts.
fn validator(document: &Value, schema: &Value) -> Validator {
    let root = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::validator_for(&root).unwrap()
}

fn assert_valid(validator: &Validator, value: &Value) {
    let problems: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}: {value}");
}

/// Everything that a socket shows in a life with every kind of event.
#[tokio::test]
async fn every_frame_of_a_live_session_is_in_the_schema() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let asyncapi = served(&gateway, "/v1/asyncapi.json").await;
    let frame = validator(&asyncapi, &json!({ "$ref": "#/components/schemas/ServerFrame" }));
    let mut admin = gateway.admin().await;
    let mut seen = Vec::new();
    for prompt in [
        "/say hi\n/tool echo x\n/image a.png\n/continue 2",
        "/ask Which? | A | B",
        "/fail no",
        "/orphan",
        "/big 2000000",
    ] {
        admin.send(json!({"type": "task.submit", "prompt": prompt, "request_id": "p"})).await;
        loop {
            let shown = admin.next().await;
            let kind = shown["type"].as_str().unwrap().to_owned();
            if kind == "task:ask_user" {
                let answer =
                    json!({"type": "task.answer", "task_id": shown["task_id"], "answer": "A", "request_id": "a"});
                admin.send(answer).await;
            }
            seen.push(shown);
            if kind == "task:done" || kind == "task:failed" {
                break;
            }
        }
    }
    let session = seen[0]["session_id"].clone();
    admin.send(json!({"type": "session.resume", "session_id": session})).await;
    seen.extend(admin.until_type("session.state").await);
    admin.send(json!({"type": "session.end", "session_id": session})).await;
    seen.extend(admin.until_type("session.closed").await);
    admin.send(json!({"type": "ping", "request_id": "x"})).await;
    seen.extend(admin.until_type("pong").await);
    for wrong in [
        json!({"type": "nonsense"}),
        json!({"type": "task.cancel"}),
        json!({"type": "session.resume", "session_id": session, "after_seq": 999}),
    ] {
        admin.send(wrong).await;
        seen.extend(admin.until_type("error").await);
    }
    for shown in &seen {
        assert_valid(&frame, shown);
    }
    let kinds: BTreeSet<&str> = types(&seen).into_iter().collect();
    let schemas = &asyncapi["components"]["schemas"];
    let described =
        ["SessionEvent", "ConnectionFrame"].map(|union| schemas[union]["oneOf"].as_array().unwrap().clone()).concat();
    let described = described.iter().map(|member| asyncapi.pointer(&member["$ref"].as_str().unwrap()[1..]).unwrap());
    let described: BTreeSet<&str> =
        described.map(|schema| schema["properties"]["type"]["const"].as_str().unwrap()).collect();
    assert_eq!(kinds, described, "all that there is was seen");
    gateway.stop().await;
}

#[tokio::test]
async fn routes_know_the_methods_that_are_described_and_no_others() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let document = served(&gateway, "/v1/openapi.json").await;
    let http = reqwest::Client::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap();
        for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
            let described = methods.get(&method.as_str().to_lowercase());
            let response = http.request(method.clone(), gateway.url(path)).send().await.unwrap();
            let status = response.status();
            let public = described.is_some_and(|operation| operation["security"] == json!([]));
            let expected = match described {
                None => StatusCode::METHOD_NOT_ALLOWED,
                Some(_) if public => StatusCode::OK,
                Some(_) => StatusCode::UNAUTHORIZED,
            };
            assert_eq!(status, expected, "{method} {path}");
            let body: Value = response.json().await.unwrap();
            let schema = match described {
                Some(operation) => {
                    operation["responses"][status.as_str()]["content"]["application/json"]["schema"].clone()
                }
                None => json!({ "$ref": "#/components/schemas/ErrorBody" }),
            };
            assert_valid(&validator(&document, &schema), &body);
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_reference_page_brings_all_that_it_needs() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let response = reqwest::get(gateway.url("/docs")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let page = response.text().await.unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    for foreign in ["<script", "src=", "http:", "https:", "style="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let targets: BTreeSet<&str> = page.split(" id=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    for link in page.split("href=\"#").skip(1).map(|part| part.split('"').next().unwrap()) {
        assert!(targets.contains(link), "nothing is called {link}");
    }
    assert!(["task:token", "GET /v1/sessions/{id}/events", "4001"].iter().all(|words| page.contains(words)));
    gateway.stop().await;
}
