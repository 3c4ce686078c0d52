//! G10 Isolation.

use serde_json::{Value, json};
use streamgate::domain::{SessionId, TaskId};

use crate::frames::{replay, text};
use crate::support::{TestGateway, on_both, types};

/// Every frame that names a session or a task.
fn frames_about(session: &str, task: &str) -> Vec<Value> {
    vec![
        json!({"type": "session.resume", "session_id": session}),
        json!({"type": "session.resume", "session_id": session, "after_seq": 1_000_000}),
        json!({"type": "session.resume", "session_id": session, "tail": 3}),
        json!({"type": "session.turn", "session_id": session, "prompt": "hello"}),
        json!({"type": "session.turn", "session_id": session, "prompt": "hello", "profile_id": "prof_none"}),
        json!({"type": "session.turn", "session_id": session, "prompt": "hello", "on_busy": "reject"}),
        json!({"type": "task.submit", "session_id": session, "prompt": "hello", "idempotency_key": "k"}),
        json!({"type": "session.end", "session_id": session}),
        json!({"type": "session.unsubscribe", "session_id": session}),
        json!({"type": "task.cancel", "task_id": task}),
        json!({"type": "task.answer", "task_id": task, "answer": "yes"}),
    ]
}

#[tokio::test]
async fn g10_not_yours_and_not_there_are_answered_byte_for_byte_alike() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.frames_burst = 1_000).await;
        let mut alice = gateway.client("alice").await;
        let done = alice.run("/say private").await;
        let running = alice.held("go").await;
        alice.send(json!({"type": "task.submit", "prompt": "/ask Well? | Yes"})).await;
        let asking = alice.expect("task:ask_user").await;
        let ended = alice.run("/say private").await;
        let end = alice.request(json!({"type": "session.end", "session_id": ended[0]["session_id"]})).await;
        assert_eq!(end["type"], "ack");
        let hers = [
            (text(&done[0], "session_id"), text(&done[0], "task_id")),
            (running.session.clone(), running.task.clone()),
            (text(&asking, "session_id"), text(&asking, "task_id")),
            (text(&ended[0], "session_id"), text(&ended[0], "task_id")),
        ];

        let mut bob = gateway.client("bob").await;
        for (session, task) in &hers {
            let (no_session, no_task) = (SessionId::generate().to_string(), TaskId::generate().to_string());
            let pairs = frames_about(session, task).into_iter().zip(frames_about(&no_session, &no_task));
            for (number, (not_his, not_there)) in pairs.enumerate() {
                let mut replies = Vec::new();
                for (frame, session, task) in [(not_his.clone(), session, task), (not_there, &no_session, &no_task)] {
                    let mut frame = frame;
                    frame["request_id"] = json!(format!("r{number}"));
                    bob.send(frame).await;
                    let reply = bob.next_text().await;
                    replies.push(reply.replace(session, "SESSION").replace(task, "TASK"));
                }
                assert_eq!(replies[0], replies[1], "{not_his}");
                let reply: Value = serde_json::from_str(&replies[0]).unwrap();
                let expected = match not_his["type"].as_str().unwrap() {
                    "session.unsubscribe" => Value::Null,
                    "task.cancel" | "task.answer" => json!("NOT_FOUND"),
                    _ => json!("SESSION_NOT_FOUND"),
                };
                assert_eq!(reply["code"], expected, "{reply}");
            }
        }
        let settled = bob.settle().await;
        assert_eq!((types(&settled), &settled[0]["sessions"]), (vec!["pong"], &json!({})), "he follows nothing");

        // Nothing of it reached her sessions.
        for (session, _) in &hers {
            let history = replay(&mut alice, session).await;
            assert!(history.iter().all(|frame| frame["text"] != "hello"));
        }
        gateway.let_go(&running.container, "go");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g10_an_ill_formed_id_is_like_one_that_is_not_there() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.frames_burst = 1_000).await;
        let mut bob = gateway.client("bob").await;
        let (no_session, no_task) = (SessionId::generate().to_string(), TaskId::generate().to_string());
        for bad in ["x", "sess_", "task_", "sess_0", "' OR 1=1 --", &no_session.to_uppercase()] {
            let pairs = frames_about(bad, bad).into_iter().zip(frames_about(&no_session, &no_task));
            for (ill_formed, not_there) in pairs.filter(|(frame, _)| frame["type"] != "session.unsubscribe") {
                let (ill_formed, not_there) = (bob.request(ill_formed).await, bob.request(not_there).await);
                assert_eq!(ill_formed["code"], not_there["code"], "{ill_formed}");
                assert_eq!(ill_formed["message"], not_there["message"]);
            }
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g10_nothing_of_a_session_reaches_anybody_else() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (mut alice, mut bob) = (gateway.client("alice").await, gateway.client("bob").await);
        let hers = text(&alice.start_session().await, "session_id");
        let his = text(&bob.start_session().await, "session_id");
        let turn = |session: &str| json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 200"});
        alice.send(turn(&hers)).await;
        bob.send(turn(&his)).await;
        for (client, session) in [(&mut alice, &hers), (&mut bob, &his)] {
            let mut frames = client.until_task_end().await;
            frames.extend(client.settle().await);
            assert!(frames.iter().all(|frame| frame["type"] == "pong" || frame["session_id"] == session.as_str()));
            assert_eq!(frames.last().unwrap()["sessions"].as_object().unwrap().len(), 1);
        }
        // The same `idempotency_key` of two users is two keys.
        let submit = json!({"type": "task.submit", "prompt": "/say x", "idempotency_key": "k"});
        let (one, two) = (alice.request(submit.clone()).await, bob.request(submit).await);
        assert_ne!(one["task_id"], two["task_id"]);
        gateway.stop().await;
    })
    .await;
}
