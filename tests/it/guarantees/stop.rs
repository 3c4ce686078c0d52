//! G8 Stop means stopped.

use serde_json::json;

use crate::frames::{check_history, replay, text};
use crate::support::{Client, TestGateway, of_type, on_both, types};
use crate::world::{eventually, lives, processes, stragglers};

/// Cancels a task and returns its frames up to its end, which must be `cancelled`.
async fn cancel(client: &mut Client, task: &str) -> Vec<serde_json::Value> {
    client.send(json!({"type": "task.cancel", "task_id": task})).await;
    let frames = client.until_task_end().await;
    assert_eq!(frames.last().unwrap()["status"], "cancelled", "{:?}", types(&frames));
    let done = frames[frames.len() - 2].clone();
    assert_eq!((&done["type"], &done["stop_reason"]), (&json!("turn.done"), &json!("cancelled")));
    frames
}

#[tokio::test]
async fn g8_no_process_of_a_cancelled_task_is_left() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        for command in [
            "touch started; sleep 1000",
            "sleep 1000 & touch started; wait",
            "trap '' INT TERM; touch started; while :; do sleep 1000; done",
            "setsid sleep 1000 & touch started; wait",
            "(trap '' INT TERM HUP; setsid -f bash -c 'while :; do sleep 1000; done'); touch started; sleep 1000",
        ] {
            let _ = std::fs::remove_file(gateway.file(&container, "started"));
            let prompt = format!("/tool {command}");
            client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
            let task = text(&client.expect("task:tool_use").await, "task_id");
            eventually("the tool works", async || gateway.file(&container, "started").exists()).await;
            cancel(&mut client, &task).await;
            assert_eq!(stragglers(&container), [""; 0], "after {command}");
            // And the session is as good as before.
            assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");
        }
        check_history(&replay(&mut client, &session).await);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g8_an_agent_that_does_not_answer_is_killed_and_its_task_is_cancelled() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        let prompt = "/remember me\n/tool setsid -f sleep 1000\n/id\n/hang";
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        let is_id = |frame: &serde_json::Value| frame["text"].as_str().is_some_and(|text| text.contains("pid="));
        let id = client.until(is_id).await.pop().unwrap();
        let (_, rest) = id["text"].as_str().unwrap().split_once("pid=").unwrap();
        let pid = rest.split(' ').next().unwrap();
        assert!(lives(pid) && !stragglers(&container).is_empty());

        cancel(&mut client, &text(&id, "task_id")).await;
        assert!(!lives(pid));
        assert_eq!(processes(&container), [""; 0]);
        let again = client.turn(&session, "/recall").await;
        assert_eq!(of_type(&again, "turn.done")[0]["result_text"], "me", "the same workspace");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g8_an_agent_that_acknowledges_the_interrupt_lives_on() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let before = client.turn(&session, "/id").await;
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 100000 1"})).await;
        let task = text(&client.expect("task:token").await, "task_id");
        let frames = cancel(&mut client, &task).await;
        let said = text(of_type(&frames, "turn.done")[0], "result_text");
        assert!(said.starts_with("t1"), "what was said until then stays: {said}");
        let after = client.turn(&session, "/id").await;
        let id = |frames: &[serde_json::Value]| text(of_type(frames, "turn.done")[0], "result_text");
        assert_eq!(id(&before), id(&after), "the same process");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g8_ending_a_session_stops_all_of_it() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        let prompt = "/tool setsid -f sleep 1000; touch started; sleep 1000";
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        let waiting = text(&client.queue(&session, "/say never").await, "task_id");
        eventually("the tool works", async || gateway.file(&container, "started").exists()).await;
        let ack = client.request(json!({"type": "session.end", "session_id": session})).await;
        assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("closed")));
        assert_eq!(processes(&container), [""; 0]);
        let history = replay(&mut client, &session).await;
        check_history(&history);
        let ended = of_type(&history, "task:done");
        assert_eq!(ended.len(), 2);
        assert!(ended.iter().all(|done| done["status"] == "cancelled"));
        assert_eq!(ended[0]["task_id"], waiting.as_str(), "what waits goes first");
        assert_eq!(history.last().unwrap()["reason"], "ended");
        gateway.stop().await;
    })
    .await;
}
