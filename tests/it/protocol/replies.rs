//! Who gets which frames, and direct replies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::frames::{DOCUMENT_TYPES, last, replay, seq, text};
use crate::support::{TestGateway, on_both, types};

#[tokio::test]
async fn a_client_of_the_document_meets_only_its_types() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.document_client("alice").await;
        let mut met = Vec::new();
        let prompts = ["/say a\n/tool echo b\n/continue 1", "/fail", "/orphan\n/say c", "/image a.png", "/crash 1"];
        for prompt in prompts {
            met.extend(client.run(prompt).await);
        }
        client.send(json!({"type": "task.submit", "prompt": "/ask Which? | A | B"})).await;
        let ask = client.until_type("task:ask_user").await;
        let (session, task) = (text(last(&ask), "session_id"), text(last(&ask), "task_id"));
        client.send(json!({"type": "task.answer", "task_id": task, "answer": "A"})).await;
        met.extend(ask);
        met.extend(client.until_task_end().await);
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 100000 1"})).await;
        let running = client.expect("task:token").await;
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        met.extend(client.until_type("session.replay_end").await);
        client.send(json!({"type": "task.cancel", "task_id": running["task_id"]})).await;
        met.extend(client.until_task_end().await);
        // Its reply is waited for: a prompt that is sent right behind it may come first.
        client.request(json!({"type": "session.end", "session_id": session})).await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "too late"})).await;
        met.extend(client.until_type("error").await);

        let unknown: Vec<_> = types(&met).into_iter().filter(|kind| !DOCUMENT_TYPES.contains(kind)).collect();
        assert_eq!(unknown, [""; 0]);
        assert!(!types(&met).contains(&"ack") && !types(&met).contains(&"pong"), "nobody asked for these");
        for kind in DOCUMENT_TYPES.iter().filter(|kind| !matches!(**kind, "ack" | "pong")) {
            assert!(types(&met).contains(kind), "`{kind}` was met");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn frames_have_the_fields_of_the_document() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.document_client("alice").await;
        let mut frames = client.run("/say a\n/tool echo b\n/continue 1\n/usage 3 4 0.5").await;
        frames.extend(client.run("/fail no").await);
        let fields: BTreeMap<&str, &[&str]> = BTreeMap::from([
            ("session.ready", &["session_id", "container_id", "container_name", "profile_id"][..]),
            ("task:token", &["session_id", "task_id", "text", "seq", "ts"]),
            ("task:tool_use", &["session_id", "task_id", "tool", "input", "tool_use_id", "seq", "ts"]),
            ("task:tool_result", &["session_id", "task_id", "tool", "output", "tool_use_id", "is_error", "seq", "ts"]),
            ("turn.continuing", &["session_id", "task_id", "continuation", "max_continuations", "seq", "ts"]),
            (
                "turn.done",
                &[
                    "session_id",
                    "task_id",
                    "result_text",
                    "input_tokens",
                    "output_tokens",
                    "cost_usd",
                    "cost_known",
                    "num_turns",
                    "duration_ms",
                    "stop_reason",
                    "seq",
                    "ts",
                ],
            ),
            ("task:done", &["session_id", "task_id", "status", "seq", "ts"]),
            (
                "task:failed",
                &[
                    "session_id",
                    "task_id",
                    "error",
                    "retryable",
                    "input_tokens",
                    "output_tokens",
                    "cost_usd",
                    "seq",
                    "ts",
                ],
            ),
        ]);
        for (kind, fields) in fields {
            let frame = frames.iter().find(|frame| frame["type"] == kind).unwrap_or_else(|| panic!("a `{kind}`"));
            for field in fields {
                assert!(!frame[field].is_null(), "`{kind}` has `{field}`: {frame}");
            }
        }
        let ready = &frames[0];
        for (field, prefix) in [("session_id", "sess_"), ("container_id", "ctr_"), ("profile_id", "prof_demo")] {
            assert!(text(ready, field).starts_with(prefix), "{ready}");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_id_gets_exactly_one_direct_reply() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.frames_burst = 1_000).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say one").await;
        let (session, task) = (text(&frames[0], "session_id"), text(&frames[0], "task_id"));
        let nowhere = "sess_00000000000000000000000000000000";
        let asked = [
            (json!({"type": "ping"}), "pong"),
            (json!({"type": "session.start"}), "session.ready"),
            (json!({"type": "task.submit", "prompt": "/say new"}), "session.ready"),
            (json!({"type": "task.submit", "prompt": "/say batch", "mode": "batch"}), "session.ready"),
            (json!({"type": "task.submit", "prompt": "/say more", "session_id": session}), "ack"),
            (json!({"type": "session.turn", "prompt": "/say more", "session_id": session}), "ack"),
            (json!({"type": "session.resume", "session_id": session}), "session.replay_start"),
            (json!({"type": "session.resume", "session_id": nowhere}), "error"),
            (json!({"type": "task.cancel", "task_id": task}), "ack"),
            (json!({"type": "task.answer", "task_id": task, "answer": "x"}), "error"),
            (json!({"type": "session.unsubscribe", "session_id": nowhere}), "ack"),
            (json!({"type": "session.end", "session_id": nowhere}), "error"),
            (json!({"type": "no.such"}), "error"),
            (json!({}), "error"),
            (json!({"type": "session.turn"}), "error"),
        ];
        for (number, (frame, _)) in asked.iter().enumerate() {
            let mut frame = frame.clone();
            frame["request_id"] = json!(format!("request {number}"));
            client.send(frame).await;
        }
        let mut replies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut note = |frame: &Value| {
            if let Some(id) = frame["request_id"].as_str() {
                assert!(seq(frame).is_none(), "no event carries a `request_id`: {frame}");
                replies.entry(id.to_owned()).or_default().push(text(frame, "type"));
            }
            replies.len()
        };
        while note(&client.next().await) < asked.len() {}
        // Whatever comes late comes before the end of a turn that follows.
        let mut late = client.turn(&session, "/tokens 50").await;
        late.extend(client.settle().await);
        late.pop();
        for frame in &late {
            note(frame);
        }
        for (number, (frame, kind)) in asked.iter().enumerate() {
            assert_eq!(replies[&format!("request {number}")], [*kind], "{frame}");
        }

        // Unasked, there are no acknowledgements.
        for (frame, _) in asked.iter().filter(|(_, kind)| *kind == "ack") {
            client.send(frame.clone()).await;
        }
        let mut frames = client.turn(&session, "/say end").await;
        frames.extend(client.settle().await);
        assert!(!types(&frames).contains(&"ack"));
        let history = replay(&mut client, &session).await;
        assert!(history.iter().all(|frame| frame.get("request_id").is_none()));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_pong_tells_the_last_event_sent_of_each_session_that_is_followed() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        for extended in [true, false] {
            let mut client =
                if extended { gateway.client("alice").await } else { gateway.document_client("alice").await };
            assert_eq!(client.settle().await[0]["sessions"], json!({}));
            let one = text(&client.start_session().await, "session_id");
            assert_eq!(client.place_in(&one).await, 0);
            let frames = client.turn(&one, "/say a b").await;
            let two = client.run("/say c").await;
            let pong = client.settle().await.pop().unwrap();
            let two_id = text(&two[0], "session_id");
            let expected = json!({one.clone(): seq(last(&frames)), two_id.clone(): seq(last(&two))});
            assert_eq!(pong["sessions"], expected);

            // Nor does it count what this client may not see.
            client.send(json!({"type": "session.turn", "session_id": one, "prompt": "/tokens 3\n/sleep 600000"})).await;
            let token = client.until(|frame| frame["text"] == "t3 ").await.pop().unwrap();
            assert_eq!(client.place_in(&one).await, seq(&token).unwrap());
            client.send(json!({"type": "task.cancel", "task_id": token["task_id"]})).await;
            client.until_task_end().await;
            let unsubscribe = json!({"type": "session.unsubscribe", "session_id": one});
            assert_eq!(client.request(unsubscribe).await["type"], "ack");
            assert_eq!(client.place_in(&one).await, Value::Null);
        }
        gateway.stop().await;
    })
    .await;
}
