//! `task.cancel` in every state, and `session.end`.

use serde_json::json;

use crate::frames::{check_history, of_task, replay, text};
use crate::support::{TestGateway, of_type, on_both, types};
use crate::world::eventually;

#[tokio::test]
async fn a_task_that_waits_ends_as_cancelled_and_by_nothing_else() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let task = text(&client.queue(&held.session, "/say never").await, "task_id");
        for _ in 0..2 {
            let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
            assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("cancelled")));
            assert_eq!((&ack["task_id"], &ack["session_id"]), (&json!(task), &json!(held.session)));
        }
        gateway.let_go(&held.container, "go");
        client.until(|frame| frame["type"] == "task:done" && frame["task_id"] == held.task.as_str()).await;
        client.settle().await;
        let history = replay(&mut client, &held.session).await;
        assert_eq!(types(&of_task(&history, &task)), ["user.message", "task:queued", "task:done"]);
        check_history(&history);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_at_work_is_acknowledged_when_it_has_ended() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("never").await;
        // Two at once, from two connections: both hear how it ended.
        let mut other = gateway.client("alice").await;
        let cancel = json!({"type": "task.cancel", "task_id": held.task});
        let (one, two) = tokio::join!(client.request(cancel.clone()), other.request(cancel.clone()));
        for ack in [one, two, client.request(cancel).await] {
            assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("cancelled")), "{ack}");
        }
        let history = replay(&mut client, &held.session).await;
        check_history(&history);
        assert_eq!(types(&history)[history.len() - 2..], ["turn.done", "task:done"]);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_that_waits_for_its_container_can_be_cancelled() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.limits.containers_per_user = 1;
            config.profiles.get_mut("demo").unwrap().warm = 0;
        })
        .await;
        let mut client = gateway.client("alice").await;
        let first = text(&client.run("/say first").await[0], "session_id");
        // Its agent has to give way.
        let held = client.held("go").await;
        let task = text(&client.queue(&first, "/say never").await, "task_id");
        let mut viewer = gateway.client("alice").await;
        eventually("its turn has come", async || {
            viewer.send(json!({"type": "session.resume", "session_id": first, "tail": 0})).await;
            viewer.expect("session.state").await["task"]["status"] == "starting"
        })
        .await;
        let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
        assert_eq!(ack["status"], "cancelled");
        let history = replay(&mut viewer, &first).await;
        assert_eq!(types(&of_task(&history, &task)), ["user.message", "task:queued", "task:done"]);
        gateway.let_go(&held.container, "go");
        client.until(|frame| frame["type"] == "task:done" && frame["task_id"] == held.task.as_str()).await;
        assert_eq!(client.turn(&first, "/say on").await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_cancel_at_any_moment_ends_a_task_once() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.frames_burst = 1_000).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        for number in 0..24 {
            // From nothing at all to more work than it gets time for.
            let prompt = format!("/tokens {}\n/tool echo x", number * number * 4);
            let task = text(&client.queue(&session, &prompt).await, "task_id");
            let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
            assert_eq!(ack["type"], "ack", "{ack}");
            let history = replay(&mut client, &session).await;
            check_history(&history);
            assert_eq!(of_task(&history, &task).last().unwrap()["status"], ack["status"]);
        }
        assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_that_has_ended_keeps_its_status() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        for (prompt, status) in [("/say x", "completed"), ("/fail", "failed")] {
            let task = text(&client.queue(&session, prompt).await, "task_id");
            client.until_task_end().await;
            let head = gateway.head(&session).await;
            let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
            assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!(status)));
            assert_eq!(gateway.head(&session).await, head, "nothing happened");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_has_ended_can_be_read_but_not_turned() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say hello").await;
        let session = text(&frames[0], "session_id");
        for _ in 0..2 {
            let ack = client.request(json!({"type": "session.end", "session_id": session})).await;
            assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("closed")));
        }
        for restarted in [false, true] {
            if restarted {
                gateway.restart().await;
                client = gateway.client("alice").await;
            }
            for kind in ["session.turn", "task.submit"] {
                let frame = json!({"type": kind, "session_id": session, "prompt": "/say more"});
                let error = client.request(frame).await;
                assert_eq!((&error["code"], &error["session_id"]), (&json!("SESSION_CLOSED"), &json!(session)));
            }
            let history = replay(&mut client, &session).await;
            assert_eq!(history.last().unwrap()["reason"], "ended");
            assert_eq!(of_type(&history, "session.closed").len(), 1);
            assert_eq!(client.expect("session.state").await["status"], "closed");
        }
        gateway.stop().await;
    })
    .await;
}
