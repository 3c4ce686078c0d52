//! Who follows what: many sessions, many connections, unsubscribing, state on attach.

use serde_json::{Value, json};

use crate::frames::{last, replay, seq, seqs, text};
use crate::support::{TestGateway, of_type, on_both, types};

#[tokio::test]
async fn a_turn_follows_from_just_before_its_own_prompt() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.run("/tokens 50").await[0], "session_id");
        let head = gateway.head(&session).await;
        let mut other = gateway.client("alice").await;
        let frames = other.turn(&session, "/say second").await;
        assert_eq!(types(&frames)[..2], ["user.message", "task:queued"]);
        assert_eq!((seq(&frames[0]), &frames[0]["text"]), (Some(head + 1), &json!("/say second")));
        let head = gateway.head(&session).await;
        let mut document = gateway.document_client("alice").await;
        let submit = json!({"type": "task.submit", "session_id": session, "prompt": "/say third"});
        document.send(submit).await;
        let frames = document.until_task_end().await;
        assert_eq!(frames[0]["type"], "task:token");
        assert!(seq(&frames[0]).unwrap() > head);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn one_connection_follows_many_sessions() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.running_per_user = 20).await;
        let mut client = gateway.client("alice").await;
        let mut sessions = Vec::new();
        for _ in 0..6 {
            sessions.push(text(&client.start_session().await, "session_id"));
        }
        for (number, session) in sessions.iter().enumerate() {
            let prompt = format!("/tokens 100\n/say {number}");
            client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        }
        let mut frames = Vec::new();
        for _ in &sessions {
            frames.extend(client.until_task_end().await);
        }
        for (number, session) in sessions.iter().enumerate() {
            let of_session: Vec<Value> =
                frames.iter().filter(|frame| frame["session_id"] == session.as_str()).cloned().collect();
            let seqs = seqs(&of_session);
            assert!(seqs.is_sorted() && of_type(&of_session, "task:token").len() == 101);
            assert!(text(of_type(&of_session, "turn.done")[0], "result_text").ends_with(&format!("t100 {number}")));
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn many_connections_follow_one_session_and_each_gets_every_event() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut viewers = Vec::new();
        for _ in 0..8 {
            let mut viewer = gateway.client("alice").await;
            replay(&mut viewer, &session).await;
            viewer.expect("session.state").await;
            viewers.push(viewer);
        }
        let frames = client.turn(&session, "/tokens 500").await;
        for viewer in &mut viewers {
            assert_eq!(viewer.until_task_end().await, frames);
        }
        // One of them speaks: all hear it.
        viewers[3].send(json!({"type": "session.turn", "session_id": session, "prompt": "/say hi"})).await;
        let frames = client.until_task_end().await;
        assert_eq!(frames[0]["text"], "/say hi");
        for viewer in &mut viewers {
            assert_eq!(viewer.until_task_end().await, frames);
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn who_unsubscribes_hears_no_more_and_may_come_back() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut viewer = gateway.client("alice").await;
        let first = replay(&mut viewer, &session).await;
        assert!(first.is_empty());
        for _ in 0..2 {
            let ack = viewer.request(json!({"type": "session.unsubscribe", "session_id": session})).await;
            assert_eq!((&ack["type"], &ack["session_id"]), (&json!("ack"), &json!(session)));
        }
        let frames = client.turn(&session, "/say a b c").await;
        assert_eq!(types(&viewer.settle().await), ["pong"]);
        let missed = replay(&mut viewer, &session).await;
        assert_eq!(missed, frames);

        // In the middle of a turn too.
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 100000 1"})).await;
        viewer.expect("task:token").await;
        viewer.request(json!({"type": "session.unsubscribe", "session_id": session})).await;
        let token = client.until(|frame| frame["text"] == "t50 ").await;
        client.send(json!({"type": "task.cancel", "task_id": last(&token)["task_id"]})).await;
        client.until_task_end().await;
        assert_eq!(types(&viewer.settle().await), ["pong"]);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_extended_client_gets_the_state_behind_the_replay() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.request(json!({"type": "session.start", "title": "Work"})).await;
        let session = text(&ready, "session_id");
        client.turn(&session, "/usage 10 20 0.5").await;
        client.turn(&session, "/usage 1 2 0.25").await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A | B"})).await;
        let ask = client.expect("task:ask_user").await;
        let low = json!({"type": "session.turn", "session_id": session, "prompt": "x", "priority": "low"});
        let low = client.request(low).await;
        let high = json!({"type": "session.turn", "session_id": session, "prompt": "x", "priority": "high"});
        let high = client.request(high).await;

        let mut viewer = gateway.client("alice").await;
        viewer.send(json!({"type": "session.resume", "session_id": session, "tail": 1})).await;
        viewer.expect("session.replay_end").await;
        let state = viewer.next().await;
        let expected = json!({
            "type": "session.state", "session_id": session, "status": "active", "title": "Work",
            "profile_id": "prof_demo", "last_seq": gateway.head(&session).await,
            "task": {"task_id": ask["task_id"], "status": "awaiting_answer", "priority": "normal"},
            "queue": [
                {"task_id": high["task_id"], "status": "queued", "priority": "high"},
                {"task_id": low["task_id"], "status": "queued", "priority": "low"},
            ],
            "pending_ask": {"ask_id": ask["ask_id"], "task_id": ask["task_id"], "questions": ask["questions"]},
            "usage": {"input_tokens": 11, "output_tokens": 22, "cost_usd": 0.75},
        });
        assert_eq!(state, expected);

        client.send(json!({"type": "task.answer", "task_id": ask["task_id"], "answer": "A"})).await;
        for _ in 0..3 {
            client.until_task_end().await;
        }
        viewer.send(json!({"type": "session.resume", "session_id": session})).await;
        let state = viewer.expect("session.state").await;
        assert_eq!((&state["task"], &state["queue"], &state["pending_ask"]), (&json!(null), &json!([]), &json!(null)));

        let mut document = gateway.document_client("alice").await;
        document.send(json!({"type": "session.resume", "session_id": session})).await;
        document.expect("session.replay_end").await;
        assert_eq!(types(&document.settle().await), ["pong"]);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_frame_follows_nothing_and_takes_no_room() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.followed_sessions = 1).await;
        let mut owner = gateway.client("alice").await;
        let held = owner.held("go").await;
        let mut second = gateway.client("alice").await;
        let other = text(&second.start_session().await, "session_id");

        let mut client = gateway.client("alice").await;
        let busy = json!({"type": "session.turn", "session_id": held.session, "prompt": "x", "on_busy": "reject"});
        assert_eq!(client.request(busy).await["code"], "CONFLICT");
        assert_eq!(client.settle().await[0]["sessions"], json!({}));
        replay(&mut client, &other).await;
        gateway.let_go(&held.container, "go");
        owner.until_task_end().await;
        assert_eq!(types(&client.settle().await), ["session.state", "pong"]);
        gateway.stop().await;
    })
    .await;
}
