//! Every row of the table of errors, each by its code: through a real socket, and over HTTP where a route
//! says it. A refused frame costs neither its connection nor its session: both work on afterwards.

use futures_util::SinkExt;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use streamgate::config::ProfileConfig;
use streamgate::domain::{AskId, SessionId, TaskId};
use tokio_tungstenite::tungstenite::Message;

use crate::database;
use crate::outage::Outage;
use crate::support::{Client, PATIENCE, TestGateway, of_type, on_both, streamed, types};

/// Checks an error: its code, words for people, nothing that does not belong to an error.
fn check(error: &Value, code: &str) {
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
    let known =
        ["type", "code", "message", "request_id", "session_id", "task_id", "retry_after_ms", "details", "last_seq"];
    assert!(error.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{error}");
    assert_eq!(error.get("details").is_some(), code == "VALIDATION_FAILED", "{error}");
    assert_eq!(error.get("last_seq").is_some(), code == "CURSOR_AHEAD", "{error}");
    let patient =
        ["RATE_LIMITED", "QUEUE_FULL", "TOO_MANY_CONNECTIONS", "CAPACITY", "STORAGE_UNAVAILABLE"].contains(&code);
    if !patient {
        assert_eq!(error.get("retry_after_ms"), None, "{error}");
    }
}

/// Sends a frame that is refused with `code`, with a `request_id` and without one.
async fn refused(client: &mut Client, frame: Value, code: &str) -> Value {
    let error = client.request(frame.clone()).await;
    check(&error, code);
    client.send(frame).await;
    let silent = client.expect("error").await;
    check(&silent, code);
    assert_eq!(silent.get("request_id"), None, "{silent}");
    error
}

/// The connection and the session are as good as before.
async fn works_on(client: &mut Client, session: &str) {
    let frames = client.turn(session, "/say well").await;
    assert_eq!(streamed(&frames), "well");
    assert_eq!(types(&frames).last(), Some(&"task:done"));
}

/// A client of `user` and its new session.
async fn at_work(gateway: &TestGateway, user: &str) -> (Client, String) {
    let mut client = gateway.client(user).await;
    let ready = client.start_session().await;
    (client, ready["session_id"].as_str().unwrap().to_owned())
}

/// A body of HTTP: its status and its error.
async fn http_error(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert!(body.as_object().unwrap().keys().eq(["error"]), "{body}");
    assert!(body["error"]["message"].is_string() && body["error"].get("type").is_none(), "{body}");
    (status, body["error"].clone())
}

/// Waits until `what` is so, looking again and again.
async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    let looking = async {
        while !so().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn unauthorized_is_who_shows_no_credential_or_a_bad_one() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let unknown = format!("rc_{}", "0".repeat(48));
    for token in ["", "nonsense", unknown.as_str(), &gateway.token("alice", None).await.to_uppercase()] {
        let mut client = Client::connect(gateway.address(), token, true).await;
        check(&client.next().await, "UNAUTHORIZED");
        assert_eq!(u16::from(client.closed().await.unwrap().code), 4001);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn unauthorized_is_401_over_http() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let unknown = format!("rc_{}", "0".repeat(48));
    let http = reqwest::Client::new();
    for request in [
        http.get(gateway.url("/v1/api-tokens")),
        http.get(gateway.url("/v1/api-tokens")).bearer_auth("nonsense"),
        http.get(gateway.url("/v1/api-tokens")).bearer_auth(&unknown),
        http.get(gateway.url("/v1/tasks")),
        http.post(gateway.url("/v1/tasks")).body(r#"{"prompt":"x"}"#),
        http.get(gateway.url("/v1/sessions")),
        http.get(gateway.url("/v1/profiles")),
    ] {
        let (status, error) = http_error(request).await;
        assert_eq!((status, &error["code"]), (401, &json!("UNAUTHORIZED")));
    }
    let response = http.get(gateway.url("/v1/tasks")).send().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    gateway.stop().await;
}

#[tokio::test]
async fn forbidden_is_a_profile_for_other_roles() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            let vip = ProfileConfig { roles: vec!["vip".to_owned()], ..config.profiles["demo"].clone() };
            config.profiles.insert("vip".to_owned(), vip);
        })
        .await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        refused(&mut client, json!({"type": "session.start", "profile_id": "prof_vip"}), "FORBIDDEN").await;
        let submit = json!({"type": "task.submit", "profile_id": "prof_vip", "prompt": "/say no"});
        refused(&mut client, submit.clone(), "FORBIDDEN").await;
        works_on(&mut client, &session).await;
        let vip = gateway.token("bob", Some("user, vip")).await;
        let mut vip = Client::connect(gateway.address(), &vip, true).await;
        vip.send(submit).await;
        assert_eq!(vip.expect("session.ready").await["profile_id"], "prof_vip");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn forbidden_is_an_admin_who_speaks_for_a_user() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A | B"})).await;
        let task = client.expect("task:ask_user").await["task_id"].clone();
        let mut admin = gateway.admin().await;
        for frame in [
            json!({"type": "session.turn", "session_id": session, "prompt": "/say no"}),
            json!({"type": "task.submit", "session_id": session, "prompt": "/say no"}),
            json!({"type": "task.answer", "task_id": task, "answer": "B"}),
        ] {
            refused(&mut admin, frame, "FORBIDDEN").await;
        }
        // A refused frame follows nothing.
        assert_eq!(admin.request(json!({"type": "ping"})).await["sessions"], json!({}));
        client.send(json!({"type": "task.answer", "task_id": task, "answer": "A"})).await;
        assert_eq!(streamed(&client.until_task_end().await), "You chose: A.");
        let (mut own, own_session) = (admin, client.start_session().await);
        assert!(own_session["session_id"].is_string());
        let ready = own.start_session().await;
        works_on(&mut own, ready["session_id"].as_str().unwrap()).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn invalid_json_is_what_is_no_json_object_in_a_text_frame() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in ["", "{", "[]", "null", "\"ping\"", "{\"type\":\"ping\"} x", nested.as_str()] {
        client.send_text(text).await;
        let error = client.next().await;
        check(&error, "INVALID_JSON");
    }
    client.socket.send(Message::binary(br#"{"type":"ping"}"#.as_slice())).await.unwrap();
    check(&client.next().await, "INVALID_JSON");
    works_on(&mut client, &session).await;
    gateway.stop().await;
}

#[tokio::test]
async fn unknown_type_is_a_type_that_is_none_of_ours() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    for kind in ["task.submitted", "task:token", "session.ready", "PING"] {
        refused(&mut client, json!({"type": kind, "session_id": session, "prompt": "x"}), "UNKNOWN_TYPE").await;
    }
    works_on(&mut client, &session).await;
    gateway.stop().await;
}

#[tokio::test]
async fn validation_failed_names_every_field_and_costs_nothing() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    for (frame, fields) in [
        (json!({}), &["type"][..]),
        (json!({"type": 5}), &["type"]),
        (json!({"type": "task.submit"}), &["prompt"]),
        (json!({"type": "task.submit", "prompt": ""}), &["prompt"]),
        (json!({"type": "task.submit", "prompt": "nul \u{0}"}), &["prompt"]),
        (json!({"type": "session.turn", "session_id": null, "prompt": 5}), &["prompt", "session_id"]),
        (json!({"type": "session.resume", "session_id": session, "after_seq": 1, "tail": 1}), &["tail"]),
        (json!({"type": "session.start", "title": "x".repeat(257)}), &["title"]),
        (json!({"type": "task.answer", "task_id": [], "answer": 1}), &["answer", "task_id"]),
        (
            json!({"type": "session.turn", "session_id": session, "prompt": "x", "max_turns": 0, "priority": "x"}),
            &["max_turns", "priority"],
        ),
    ] {
        let error = refused(&mut client, frame, "VALIDATION_FAILED").await;
        let details = error["details"].as_array().unwrap();
        let mut named: Vec<&str> = details.iter().map(|detail| detail["field"].as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, fields, "{error}");
        assert!(details.iter().all(|detail| detail["problem"].is_string()), "{error}");
    }
    client.send(json!({"type": "ping", "request_id": 7})).await;
    check(&client.next().await, "VALIDATION_FAILED");
    works_on(&mut client, &session).await;
    // Over HTTP the route says it that is opened in a browser.
    let (status, error) = http_error(reqwest::Client::new().get(gateway.url("/v1/stream"))).await;
    assert_eq!((status, &error["code"]), (426, &json!("VALIDATION_FAILED")));
    assert!(error["message"].as_str().unwrap().contains("WebSocket"), "{error}");
    gateway.stop().await;
}

#[tokio::test]
async fn not_found_is_a_task_profile_or_route_that_is_not_there_or_not_yours() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let (mut other, other_session) = at_work(&gateway, "bob").await;
        other.send(json!({"type": "session.turn", "session_id": other_session, "prompt": "/ask Which?"})).await;
        let others_task = other.expect("task:ask_user").await["task_id"].clone();
        let mut messages = Vec::new();
        for task in [others_task.clone(), json!(TaskId::generate()), json!("task_x"), json!(session)] {
            for frame in [
                json!({"type": "task.cancel", "task_id": task}),
                json!({"type": "task.answer", "task_id": task, "answer": "A"}),
            ] {
                messages.push(refused(&mut client, frame, "NOT_FOUND").await["message"].clone());
            }
        }
        // "Not yours" and "not there" are indistinguishable.
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
        for profile in ["prof_nobody", "prof_", "demo"] {
            refused(&mut client, json!({"type": "session.start", "profile_id": profile}), "NOT_FOUND").await;
            let submit = json!({"type": "task.submit", "profile_id": profile, "prompt": "/say no"});
            refused(&mut client, submit, "NOT_FOUND").await;
        }
        works_on(&mut client, &session).await;
        other.send(json!({"type": "task.answer", "task_id": others_task, "answer": "A"})).await;
        assert_eq!(streamed(&other.until_task_end().await), "You chose: A.");

        let http = reqwest::Client::new();
        for request in [http.get(gateway.url("/v1/nothing")), http.post(gateway.url("/v2/tasks"))] {
            let (status, error) = http_error(request).await;
            assert_eq!((status, &error["code"]), (404, &json!("NOT_FOUND")));
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn session_not_found_is_the_same_for_not_there_and_not_yours() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let (mut other, others) = at_work(&gateway, "bob").await;
        let mut messages = Vec::new();
        for id in [json!(others), json!(SessionId::generate()), json!("sess_x"), json!("x"), json!(AskId::generate())] {
            for frame in [
                json!({"type": "session.turn", "session_id": id, "prompt": "/say no"}),
                json!({"type": "task.submit", "session_id": id, "prompt": "/say no"}),
                json!({"type": "session.resume", "session_id": id}),
                json!({"type": "session.resume", "session_id": id, "after_seq": 99}),
                json!({"type": "session.end", "session_id": id}),
            ] {
                messages.push(refused(&mut client, frame, "SESSION_NOT_FOUND").await["message"].clone());
            }
        }
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
        // A refused frame follows nothing.
        let pong = client.request(json!({"type": "ping"})).await;
        assert!(pong["sessions"].as_object().unwrap().keys().eq([&session]), "{pong}");
        works_on(&mut client, &session).await;
        works_on(&mut other, &others).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn session_closed_is_a_turn_in_a_session_that_has_ended() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        works_on(&mut client, &session).await;
        let end = json!({"type": "session.end", "session_id": session});
        assert_eq!(client.request(end.clone()).await["status"], "closed");
        for kind in ["session.turn", "task.submit"] {
            let frame = json!({"type": kind, "session_id": session, "prompt": "/say no"});
            let error = refused(&mut client, frame, "SESSION_CLOSED").await;
            assert_eq!(error["session_id"], json!(session));
        }
        // Ending it again changes nothing; reading it goes on.
        assert_eq!(client.request(end).await["status"], "closed");
        let resume = client.request(json!({"type": "session.resume", "session_id": session})).await;
        assert_eq!(resume["type"], "session.replay_start");
        let replay = client.until_type("session.replay_end").await;
        assert_eq!(types(&replay)[replay.len() - 2..], ["session.closed", "session.replay_end"]);
        assert_eq!(of_type(&replay, "user.message").len(), 1, "what was refused left no trace");
        let ready = client.start_session().await;
        works_on(&mut client, ready["session_id"].as_str().unwrap()).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn cursor_ahead_is_a_cursor_beyond_the_last_event_which_it_tells() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let frames = client.turn(&session, "/say well").await;
        let last = frames.last().unwrap()["seq"].as_u64().unwrap();
        for after in [last + 1, last + 1_000, 1 << 53, i64::MAX.unsigned_abs()] {
            let resume = json!({"type": "session.resume", "session_id": session, "after_seq": after});
            let error = refused(&mut client, resume, "CURSOR_AHEAD").await;
            assert_eq!((&error["last_seq"], &error["session_id"]), (&json!(last), &json!(session)));
        }
        let resume = json!({"type": "session.resume", "session_id": session, "after_seq": last});
        assert_eq!(client.request(resume).await["after_seq"], json!(last));
        assert_eq!(client.next().await["count"], 0);
        works_on(&mut client, &session).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn conflict_is_an_answer_that_nobody_asked_for() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        // Of a task that has ended without a question.
        let ended = client.turn(&session, "/say well").await.pop().unwrap()["task_id"].clone();
        refused(&mut client, json!({"type": "task.answer", "task_id": ended, "answer": "A"}), "CONFLICT").await;
        // Of a task at work that has not asked.
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/sleep 600000"})).await;
        let task = client.expect("task:started").await["task_id"].clone();
        let error = refused(&mut client, json!({"type": "task.answer", "task_id": task, "answer": "A"}), "CONFLICT").await;
        assert_eq!(error["task_id"], task);
        client.request(json!({"type": "task.cancel", "task_id": task})).await;
        // Of another question; and another answer than the first.
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A | B\n/ask Why?"})).await;
        let ask = client.expect("task:ask_user").await;
        let answer = |answer: &str, ask_id: Value| {
            json!({"type": "task.answer", "task_id": ask["task_id"], "ask_id": ask_id, "answer": answer})
        };
        for bad in [json!(AskId::generate()), json!("ask_x")] {
            refused(&mut client, answer("A", bad), "CONFLICT").await;
        }
        client.send(answer("A", ask["ask_id"].clone())).await;
        client.expect("task:ask_user").await;
        assert_eq!(client.request(answer("A", ask["ask_id"].clone())).await["type"], "ack", "the same again is fine");
        refused(&mut client, answer("B", ask["ask_id"].clone()), "CONFLICT").await;
        client.send(answer("because", Value::Null)).await;
        assert_eq!(types(&client.until_task_end().await).last(), Some(&"task:done"));
        refused(&mut client, answer("B", ask["ask_id"].clone()), "CONFLICT").await;
        works_on(&mut client, &session).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn conflict_is_a_busy_session_where_the_prompt_will_not_wait() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/sleep 600000"})).await;
        let task = client.expect("task:started").await["task_id"].clone();
        let turn = json!({"type": "session.turn", "session_id": session, "prompt": "/say well", "on_busy": "reject"});
        let error = refused(&mut client, turn.clone(), "CONFLICT").await;
        assert_eq!(error["session_id"], json!(session));
        client.request(json!({"type": "task.cancel", "task_id": task})).await;
        assert_eq!(client.request(turn).await["type"], "ack");
        assert_eq!(streamed(&client.until_task_end().await), "well");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn conflict_is_a_key_that_was_used_for_something_else() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let turn = |prompt: &str| {
            json!({"type": "session.turn", "session_id": session, "prompt": prompt, "idempotency_key": "k"})
        };
        let first = client.request(turn("/say well")).await;
        client.until_task_end().await;
        refused(&mut client, turn("/say other"), "CONFLICT").await;
        refused(&mut client, json!({"type": "task.submit", "prompt": "/say well", "idempotency_key": "k"}), "CONFLICT").await;
        let again = client.request(turn("/say well")).await;
        assert_eq!((&again["type"], &again["task_id"]), (&json!("ack"), &first["task_id"]));
        // Keys are each user's own.
        let (mut other, others) = at_work(&gateway, "bob").await;
        let turn = json!({"type": "session.turn", "session_id": others, "prompt": "/say mine", "idempotency_key": "k"});
        assert_eq!(other.request(turn).await["type"], "ack");
        works_on(&mut client, &session).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn conflict_is_another_profile_than_the_sessions() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.profiles.insert("other".to_owned(), config.profiles["demo"].clone());
        })
        .await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let turn = |profile: &str| {
            json!({"type": "session.turn", "session_id": session, "prompt": "/say well", "profile_id": profile})
        };
        refused(&mut client, turn("prof_other"), "CONFLICT").await;
        assert_eq!(client.request(turn("prof_demo")).await["type"], "ack");
        assert_eq!(streamed(&client.until_task_end().await), "well");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn rate_limited_is_a_frame_too_many_and_says_when_to_come_back() {
    let gateway = TestGateway::start_with(database::sqlite(), |config| {
        config.limits.frames_per_second = 1;
        config.limits.frames_burst = 2;
    })
    .await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    // However slow this machine is: some of very many come too early.
    for at in 0..1_000 {
        client.send(json!({"type": "ping", "request_id": at.to_string()})).await;
        let reply = client.next().await;
        assert_eq!(reply["request_id"], at.to_string(), "{reply}");
        if reply["type"] == "error" {
            check(&reply, "RATE_LIMITED");
            let wait = reply["retry_after_ms"].as_u64().unwrap();
            assert!((1..=1_001).contains(&wait), "{reply}");
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            works_on(&mut client, &session).await;
            gateway.stop().await;
            return;
        }
    }
    panic!("a thousand frames at once are not too many");
}

#[tokio::test]
async fn queue_full_is_a_task_too_many_that_would_wait() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.waiting_per_session = 1).await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let turn = |prompt: &str| json!({"type": "session.turn", "session_id": session, "prompt": prompt});
        client.send(turn("/sleep 600000")).await;
        let task = client.expect("task:started").await["task_id"].clone();
        assert_eq!(client.request(turn("/say second")).await["position"], 0);
        let error = refused(&mut client, turn("/say third"), "QUEUE_FULL").await;
        assert_eq!(error["session_id"], json!(session));
        assert!(error["retry_after_ms"].is_u64(), "{error}");
        client.request(json!({"type": "task.cancel", "task_id": task})).await;
        client.until(|frame| frame["type"] == "task:token" && frame["text"] == "second").await;
        client.until_task_end().await;
        works_on(&mut client, &session).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn too_many_connections_tells_before_it_closes() {
    let gateway = TestGateway::start_with(database::sqlite(), |config| config.limits.connections_per_user = 1).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    let mut second = gateway.client("alice").await;
    let error = second.next().await;
    check(&error, "TOO_MANY_CONNECTIONS");
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    assert_eq!(u16::from(second.closed().await.unwrap().code), 4104);
    works_on(&mut client, &session).await;
    gateway.stop().await;
}

#[tokio::test]
async fn payload_too_large_is_a_prompt_an_answer_or_a_body_over_its_limit() {
    let gateway = TestGateway::start_with(database::sqlite(), |config| {
        config.limits.prompt_bytes = 100;
        config.limits.frame_bytes = 4_000;
    })
    .await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    let long = "x".repeat(101);
    refused(&mut client, json!({"type": "task.submit", "prompt": long}), "PAYLOAD_TOO_LARGE").await;
    let turn = json!({"type": "session.turn", "session_id": session, "prompt": long});
    refused(&mut client, turn, "PAYLOAD_TOO_LARGE").await;
    let answer = json!({"type": "task.answer", "task_id": TaskId::generate(), "answer": long});
    refused(&mut client, answer, "PAYLOAD_TOO_LARGE").await;
    works_on(&mut client, &session).await;
    let token = gateway.token("alice", None).await;
    let body = json!({"prompt": "x".repeat(4_000)}).to_string();
    let post = reqwest::Client::new().post(gateway.url("/v1/tasks")).bearer_auth(token).body(body);
    let (status, error) = http_error(post).await;
    assert_eq!((status, &error["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    gateway.stop().await;
}

#[tokio::test]
async fn capacity_is_an_agent_that_does_not_start() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            let broken = ProfileConfig {
                command: vec!["/nonexistent/agent".to_owned()],
                warm: 0,
                ..config.profiles["demo"].clone()
            };
            config.profiles.insert("broken".to_owned(), broken);
        })
        .await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let start = json!({"type": "session.start", "profile_id": "prof_broken"});
        let error = client.request(start).await;
        check(&error, "CAPACITY");
        assert!(error["retry_after_ms"].is_u64(), "{error}");
        assert!(!error.to_string().contains("nonexistent"), "what the operator must mend is in the log: {error}");
        let submit = json!({"type": "task.submit", "profile_id": "prof_broken", "prompt": "/say well"});
        let error = client.request(submit).await;
        check(&error, "CAPACITY");
        // The task failed and its session is closed, however soon somebody looks.
        let failed = error["session_id"].as_str().unwrap().to_owned();
        let turn = json!({"type": "session.turn", "session_id": failed, "prompt": "/say well"});
        refused(&mut client, turn, "SESSION_CLOSED").await;
        client.send(json!({"type": "session.resume", "session_id": failed})).await;
        let frames = client.until_type("session.closed").await;
        let end = of_type(&frames, "task:failed")[0];
        assert_eq!((&end["retryable"], &end["task_id"]), (&json!(true), &error["task_id"]));
        works_on(&mut client, &session).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn storage_unavailable_accepts_nothing_and_costs_nothing() {
    on_both(|database| async {
        // Without a system prompt, which only admins see, no number is missing.
        let gateway = TestGateway::start_with(database, |config| {
            config.profiles.get_mut("demo").unwrap().system_prompt.clear();
        })
        .await;
        let (mut client, session) = at_work(&gateway, "alice").await;
        let (mut bystander, bystanders) = at_work(&gateway, "bob").await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 1000000 5"})).await;
        let task = client.expect("task:started").await["task_id"].clone();

        let outage = Outage::begin(&gateway.database).await;
        // The agent at work goes on talking, so the journal notices by itself. What comes before that is taken
        // in and waits; readers may have noticed earlier.
        let ready = reqwest::Client::new();
        eventually("the gateway knows", async || {
            let journal_knows = !gateway.app().shared().orchestrator.hub().journal().is_available();
            ready.get(gateway.url("/health/ready")).send().await.unwrap().status() == 503 && journal_knows
        })
        .await;
        for frame in [
            json!({"type": "task.submit", "prompt": "/say lost"}),
            json!({"type": "session.start"}),
            json!({"type": "session.turn", "session_id": bystanders, "prompt": "/say lost"}),
        ] {
            let error = refused(&mut bystander, frame, "STORAGE_UNAVAILABLE").await;
            assert!(error["retry_after_ms"].is_u64(), "{error}");
        }
        // Sockets stay open, and what needs no storage works.
        for client in [&mut client, &mut bystander] {
            assert_eq!(client.request(json!({"type": "ping"})).await["type"], "pong");
        }
        let live = reqwest::Client::new().get(gateway.url("/health")).send().await.unwrap();
        assert_eq!(live.status(), 200);
        outage.end().await;

        eventually("the journal commits again", async || {
            ready.get(gateway.url("/health/ready")).send().await.unwrap().status() == 200
        })
        .await;
        // What ran runs on, without a gap; what was refused left no trace.
        let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
        assert_eq!(ack["status"], "cancelled");
        client.request(json!({"type": "session.resume", "session_id": session})).await;
        let replay = client.until_type("session.replay_end").await;
        let seqs: Vec<u64> = replay.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
        let gap = seqs.windows(2).find(|pair| pair[0] + 1 != pair[1]);
        assert_eq!((seqs[0], gap), (1, None));
        works_on(&mut bystander, &bystanders).await;
        bystander.send(json!({"type": "session.resume", "session_id": bystanders})).await;
        let replay = bystander.until_type("session.replay_end").await;
        assert_eq!(of_type(&replay, "user.message").len(), 1, "{replay:?}");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn storage_unavailable_is_a_journal_that_is_locked() {
    let gateway = TestGateway::start(database::postgres().await).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    let pool = gateway.database.pool().await;
    let mut lock = pool.begin().await.unwrap();
    lock.execute("LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
    // Taken in before anybody knows: it waits, for as long as the database takes.
    let mut early = gateway.client("alice").await;
    early
        .send(json!({"type": "session.turn", "session_id": session, "prompt": "/say early", "request_id": "early"}))
        .await;
    eventually("the journal knows", async || !gateway.app().shared().orchestrator.hub().journal().is_available()).await;
    let turn = json!({"type": "session.turn", "session_id": session, "prompt": "/say lost"});
    refused(&mut client, turn, "STORAGE_UNAVAILABLE").await;
    lock.rollback().await.unwrap();
    let ack = early.until(|frame| frame["request_id"] == "early").await.pop().unwrap();
    assert_eq!(ack["type"], "ack");
    assert_eq!(streamed(&early.until_task_end().await), "early");
    works_on(&mut early, &session).await;
    pool.close().await;
    gateway.stop().await;
}

#[tokio::test]
async fn internal_error_says_an_id_that_is_in_the_log_and_nothing_of_the_cause() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let (mut client, session) = at_work(&gateway, "alice").await;
    let ready = client.start_session().await;
    let broken = ready["session_id"].as_str().unwrap();
    let mut connection = sqlx::SqliteConnection::connect(&gateway.database.url).await.unwrap();
    sqlx::query("PRAGMA ignore_check_constraints = ON").execute(&mut connection).await.unwrap();
    sqlx::query("UPDATE sessions SET profile_id = 'nonsense' WHERE id = $1")
        .bind(broken)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let resume = json!({"type": "session.resume", "session_id": broken});
    let error = refused(&mut client, resume, "INTERNAL_ERROR").await;
    let id = error["message"].as_str().unwrap().rsplit(' ').next().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{error}");
    assert!(!error.to_string().contains("nonsense"), "{error}");
    works_on(&mut client, &session).await;
    gateway.stop().await;
}

#[tokio::test]
async fn capacity_is_told_when_all_of_it_is_known_to_whoever_looks_next() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            let demo = config.profiles.get_mut("demo").unwrap();
            demo.command = vec!["/nonexistent/agent".to_owned()];
            demo.warm = 0;
        })
        .await;
        let mut client = gateway.client("alice").await;
        for _ in 0..20 {
            let error = client.request(json!({"type": "task.submit", "prompt": "/say well"})).await;
            check(&error, "CAPACITY");
            // A new worker takes the session up at once, while the old one's last words may still be on their way.
            let cancel = client.request(json!({"type": "task.cancel", "task_id": error["task_id"]})).await;
            assert_eq!(cancel["status"], "failed", "{cancel}");
            client.send(json!({"type": "session.resume", "session_id": error["session_id"]})).await;
            let frames = client.until_type("session.closed").await;
            let known = ["session.replay_start", "user.message", "task:queued", "task:failed", "session.closed"];
            let seen: Vec<&str> = types(&frames).into_iter().filter(|kind| known.contains(kind)).collect();
            assert_eq!(seen, known);
        }
        gateway.stop().await;
    })
    .await;
}
