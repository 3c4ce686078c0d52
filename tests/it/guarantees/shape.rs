//! G4 Turn shape. G5 Tool shape.

use serde_json::{Value, json};

use crate::frames::{check_history, of_task, only, replay, text};
use crate::support::{TestGateway, of_type, on_both, types};
use crate::world::hold;

#[tokio::test]
async fn g4_every_task_ends_once_and_nothing_of_it_follows() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let session = text(&ready, "session_id");
        let prompts = [
            ("/say done", "completed"),
            ("/continue 2\n/say done", "completed"),
            ("/say no\n/fail", "failed"),
            ("/say no\n/crash 7", "failed"),
            ("/tokens 100000 1", "cancelled"),
            (&hold("never"), "cancelled"),
            ("/ask Well?", "cancelled"),
            ("/say again", "completed"),
        ];
        for (prompt, ends) in prompts {
            let turn = |prompt: &str, name: &str| {
                json!({"type": "session.turn", "session_id": session, "prompt": prompt, "request_id": name})
            };
            // Beside the one at work, one that is cancelled while it waits.
            client.send(turn(prompt, "work")).await;
            client.send(turn("/say never", "wait")).await;
            // No frame is passed over: what is waited for may come at any time.
            let (mut task, mut end) = (Value::Null, None);
            let (mut at_work, mut given_up, mut stopped) = (false, false, false);
            while end.is_none() || !given_up {
                let frame = client.next().await;
                let is_tasks = frame["task_id"] == task;
                match (frame["request_id"].as_str(), text(&frame, "type").as_str()) {
                    (Some("work"), _) => task = frame["task_id"].clone(),
                    (Some("wait"), _) => {
                        let cancel = json!({"type": "task.cancel", "task_id": frame["task_id"], "request_id": "give up"});
                        client.send(cancel).await;
                    }
                    (Some("give up"), _) => {
                        given_up = true;
                        assert!(ends != "cancelled" || frame["status"] == "cancelled", "{frame}");
                    }
                    // The first prompt of the two.
                    (None, "user.message") if frame["text"] == prompt => task = frame["task_id"].clone(),
                    (None, "task:token" | "task:tool_use") if is_tasks => at_work = true,
                    (None, "task:done" | "task:failed") if is_tasks => end = Some(frame),
                    _ => (),
                }
                if ends == "cancelled" && at_work && given_up && !stopped {
                    stopped = true;
                    client.send(json!({"type": "task.cancel", "task_id": task})).await;
                }
            }
            let end = end.unwrap();
            let status = if end["type"] == "task:failed" { "failed" } else { end["status"].as_str().unwrap() };
            assert_eq!(status, ends, "{prompt}");
        }
        client.send(json!({"type": "session.end", "session_id": session})).await;
        client.expect("session.closed").await;
        let history = replay(&mut client, &session).await;
        check_history(&history);
        assert_eq!(history.last().unwrap()["type"], "session.closed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g4_what_an_agent_says_after_its_turn_is_not_shown() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            // Ends its turn twice and babbles on; the next turn is answered properly.
            let script = r#"n=0; while read -r line; do
                case "$line" in *'"interrupt"'*) echo '{"type":"done","stop_reason":"interrupted"}'; continue;; esac
                n=$((n+1))
                echo '{"type":"text","text":"turn '$n'"}'
                echo '{"type":"done","stop_reason":"end_turn"}'
                echo '{"type":"text","text":"late"}'
                echo '{"type":"tool_use","id":"late","tool":"Bash"}'
                echo '{"type":"done","stop_reason":"end_turn"}'
                done"#;
            let babbler = config.profiles.get_mut("demo").unwrap();
            babbler.command = ["bash", "-c", script].map(str::to_owned).to_vec();
        })
        .await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.run("one").await[0], "session_id");
        client.turn(&session, "two").await;
        let history = replay(&mut client, &session).await;
        check_history(&history);
        let results: Vec<_> = of_type(&history, "turn.done").iter().map(|done| text(done, "result_text")).collect();
        assert_eq!(results, ["turn 1", "turn 2"]);
        assert!(of_type(&history, "task:tool_use").is_empty());
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g5_every_tool_use_has_exactly_one_result() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        for prompt in
            ["/tool echo hello\n/tool exit 3", "/parallel sleep 0.1 && echo b", "/big 100", "/garbage\n/twice"]
        {
            assert_eq!(client.turn(&session, prompt).await.last().unwrap()["status"], "completed", "{prompt}");
        }
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A"})).await;
        let ask = client.expect("task:ask_user").await;
        client.send(json!({"type": "task.answer", "task_id": ask["task_id"], "answer": "A"})).await;
        client.until_task_end().await;

        for (prompt, says) in [("/orphan", "no result"), ("/tool echo x\n/orphan", "no result")] {
            let frames = client.turn(&session, prompt).await;
            let results = of_type(&frames, "task:tool_result");
            let repaired = results.last().unwrap();
            assert_eq!(repaired["is_error"], true);
            assert!(text(repaired, "output").contains(says), "{repaired}");
            assert_eq!(frames.last().unwrap()["status"], "completed");
        }
        for prompt in [&hold("never"), "/parallel sleep 1000 && sleep 1000", "/ask Really?"] {
            client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
            let used = client.expect("task:tool_use").await;
            client.send(json!({"type": "task.cancel", "task_id": used["task_id"]})).await;
            let rest = client.until_task_end().await;
            assert!(of_type(&rest, "task:tool_result").iter().all(|result| result["is_error"] == true));
            assert_eq!(rest.last().unwrap()["status"], "cancelled");
        }
        // Its agent dies in the middle of a tool.
        let frames = client.turn(&session, "/tool kill -9 $PPID; sleep 1000").await;
        assert_eq!(frames.last().unwrap()["type"], "task:failed");
        assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");

        check_history(&replay(&mut client, &session).await);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g5_a_second_result_is_dropped_and_parallel_calls_are_told_apart() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/twice\n/say on").await;
        assert_eq!(only(&frames, "task:tool_result")["output"], "first");
        let frames = client.run("/parallel echo one && echo two").await;
        let (uses, results) = (of_type(&frames, "task:tool_use"), of_type(&frames, "task:tool_result"));
        assert_eq!(types(&frames).iter().filter(|kind| kind.starts_with("task:tool")).count(), 4);
        assert_eq!(uses[0]["tool_use_id"], results[1]["tool_use_id"]);
        assert_eq!(uses[1]["tool_use_id"], results[0]["tool_use_id"]);
        assert_eq!((&results[0]["output"], &results[1]["output"]), (&json!("two\n"), &json!("one\n")));
        let task = text(uses[0], "task_id");
        assert_eq!(uses[0]["input"], json!({"command": "echo one"}));
        assert_eq!(of_task(&frames, &task).last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}
