//! `idempotency_key`: what is sent again runs once.

use serde_json::{Value, json};

use crate::frames::{replay, text};
use crate::support::{TestGateway, of_type, on_both, types};

#[tokio::test]
async fn the_same_key_and_body_run_once_and_are_answered_alike() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let submit = json!({"type": "task.submit", "prompt": "/say once", "idempotency_key": "new"});
        let first = client.request(submit.clone()).await;
        assert_eq!(first["type"], "session.ready");
        client.until_task_end().await;
        let session = text(&first, "session_id");

        // Another connection repeats it: the same answer, and it follows from the prompt on.
        let mut other = gateway.client("alice").await;
        let again = other.request(submit.clone()).await;
        for field in ["type", "session_id", "task_id", "container_id", "profile_id"] {
            assert_eq!(again[field], first[field], "{field}");
        }
        let followed = other.until_task_end().await;
        assert_eq!((&followed[0]["type"], &followed[0]["seq"]), (&json!("user.message"), &json!(1)));

        let turn = json!({"type": "session.turn", "session_id": session, "prompt": "/say twice",
                          "idempotency_key": "turn", "priority": "high"});
        let first = client.request(turn.clone()).await;
        client.until_task_end().await;
        let again = other.request(turn.clone()).await;
        assert_eq!((&again["type"], &again["task_id"]), (&json!("ack"), &first["task_id"]));

        // After a restart too.
        gateway.restart().await;
        let mut client = gateway.client("alice").await;
        assert_eq!(client.request(turn).await["task_id"], first["task_id"]);
        let followed = client.until_task_end().await;
        assert_eq!(followed[0]["text"], "/say twice");
        let history = replay(&mut client, &session).await;
        assert_eq!(of_type(&history, "user.message").len(), 2);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_body_under_a_key_is_a_conflict() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.frames_burst = 1_000).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let turn = json!({"type": "session.turn", "session_id": session, "prompt": "/say one",
                          "idempotency_key": "key"});
        assert_eq!(client.request(turn.clone()).await["type"], "ack");
        client.until_task_end().await;
        let changes = [
            ("prompt", json!("/say two")),
            ("session_id", client.start_session().await["session_id"].clone()),
            ("session_id", Value::Null),
            ("priority", json!("low")),
            ("max_turns", json!(3)),
            ("model", json!("other")),
            ("allowed_tools", json!(["Bash"])),
            ("on_busy", json!("interrupt")),
        ];
        for (field, value) in changes {
            let mut other = turn.clone();
            other["type"] = json!("task.submit");
            other[field] = value;
            assert_eq!(client.request(other).await["code"], "CONFLICT", "another `{field}`");
        }
        // What means the same is the same.
        let mut same = turn;
        same["type"] = json!("task.submit");
        same["mode"] = json!("session");
        same["priority"] = json!("normal");
        same["whatever"] = json!("ignored");
        assert_eq!(client.request(same).await["type"], "ack");
        let history = replay(&mut client, &session).await;
        assert_eq!(of_type(&history, "user.message").len(), 1);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_does_not_use_a_key_up() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": "/say x",
                          "on_busy": "reject", "idempotency_key": "key"});
        for _ in 0..2 {
            assert_eq!(client.request(turn.clone()).await["code"], "CONFLICT");
        }
        gateway.let_go(&held.container, "go");
        client.until_task_end().await;
        assert_eq!(client.request(turn.clone()).await["type"], "ack");
        assert_eq!(client.until_task_end().await.last().unwrap()["status"], "completed");
        assert_eq!(client.request(turn).await["type"], "ack");
        let history = replay(&mut client, &held.session).await;
        assert_eq!(of_type(&history, "user.message").len(), 2);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_same_key_from_many_connections_at_once_runs_once() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(gateway.client("alice").await);
        }
        let submit = json!({"type": "task.submit", "prompt": "/say once", "idempotency_key": "key"});
        let replies =
            futures_util::future::join_all(clients.iter_mut().map(|client| client.request(submit.clone()))).await;
        for reply in &replies {
            assert_eq!((&reply["type"], &reply["task_id"]), (&json!("session.ready"), &replies[0]["task_id"]));
        }
        for client in &mut clients {
            assert_eq!(types(&client.until_task_end().await)[0], "user.message");
        }
        let session = text(&replies[0], "session_id");
        let history = replay(&mut clients[0], &session).await;
        assert_eq!(of_type(&history, "user.message").len(), 1);
        gateway.stop().await;
    })
    .await;
}
