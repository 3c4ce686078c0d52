//! Agents that fail, break, or break the rules.

use serde_json::json;

use crate::frames::{check_history, last, only, replay, text};
use crate::support::{TestGateway, of_type, on_both, streamed, types};

#[tokio::test]
async fn an_agent_that_reports_an_error_fails_its_task_in_its_own_words() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say trying\n/fail the model is \"overloaded\"").await;
        let failed = last(&frames);
        assert_eq!((&failed["type"], &failed["error"]), (&json!("task:failed"), &json!("the model is \"overloaded\"")));
        assert!(failed["retryable"].is_boolean());
        assert!(!types(&frames).contains(&"turn.done"));
        let session = text(&frames[0], "session_id");
        assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_crash_names_its_exit_code_and_the_next_turn_finds_the_same_workspace() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let mut session: Option<String> = None;
        for (prompt, code) in [
            ("/remember first\n/say bye\n/crash 3", "Container exited 3"),
            ("/remember second\n/crash 1", "Container exited 1"),
            ("/remember third\n/tool kill -9 $PPID; sleep 1000", "Container exited 137"),
        ] {
            let frames = match &session {
                None => client.run(prompt).await,
                Some(session) => client.turn(session, prompt).await,
            };
            let failed = last(&frames);
            assert_eq!((&failed["type"], &failed["error"]), (&json!("task:failed"), &json!(code)));
            assert_eq!(failed["retryable"], true);
            session.get_or_insert(text(failed, "session_id"));
        }
        let session = session.unwrap();
        let frames = client.turn(&session, "/recall").await;
        assert_eq!(only(&frames, "turn.done")["result_text"], "first\nsecond\nthird");
        let history = replay(&mut client, &session).await;
        check_history(&history);
        let containers: std::collections::BTreeSet<_> =
            of_type(&history, "task:started").iter().map(|frame| text(frame, "container_id")).collect();
        assert_eq!(containers.len(), 1, "the same box");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_dies_while_idle_is_replaced_at_the_next_turn() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/remember me\n/tool (sleep 0.2; kill -9 $PPID) >/dev/null 2>&1 &").await;
        assert_eq!(last(&frames)["status"], "completed");
        let (session, container) = (text(&frames[0], "session_id"), text(&frames[0], "container_id"));
        crate::world::eventually("it dies", async || {
            !crate::world::processes(&container).iter().any(|command| command.ends_with("demo-agent"))
        })
        .await;
        let frames = client.turn(&session, "/recall").await;
        // Its death may be noticed only when it is spoken to: then the task says so, and may be tried again.
        let frames = if last(&frames)["type"] == "task:failed" {
            assert_eq!(last(&frames)["retryable"], true);
            client.turn(&session, "/recall").await
        } else {
            frames
        };
        assert_eq!(only(&frames, "turn.done")["result_text"], "me");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_line_of_the_protocol_is_skipped() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.agent_line_bytes = 2 << 20).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say before \n/garbage\n/say after").await;
        assert_eq!(streamed(&frames), "before after");
        assert_eq!(last(&frames)["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_too_long_is_cut_and_says_so() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.event_bytes = 1_000).await;
        let mut client = gateway.client("alice").await;
        for (bytes, cut) in [(1_000, false), (1_001, true), (500_000, true)] {
            let frames = client.run(&format!("/big {bytes}")).await;
            let result = only(&frames, "task:tool_result");
            assert_eq!(text(result, "output").len(), 1_000);
            assert_eq!(result["truncated"] == true, cut, "{bytes}");
        }
        // At a character, not within one.
        let frames = client.run(&format!("/say {}", "é".repeat(1_000))).await;
        let token = only(&frames, "task:token");
        assert_eq!((text(token, "text"), &token["truncated"]), ("é".repeat(500), &json!(true)));
        let done = only(&frames, "turn.done");
        assert_eq!((text(done, "result_text"), &done["truncated"]), ("é".repeat(500), &json!(true)));
        let frames = client.run(&format!("/tool echo {} >/dev/null", "x".repeat(2_000))).await;
        let used = only(&frames, "task:tool_use");
        assert_eq!(used["truncated"], true);
        assert!(used["input"].to_string().len() < 1_100, "{used}");
        assert_eq!(last(&frames)["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_ends_without_a_word_fails_its_task() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            let mute = config.profiles.get_mut("demo").unwrap();
            mute.command = ["bash", "-c", "read -r line; exit 0"].map(str::to_owned).to_vec();
        })
        .await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("hello").await;
        assert_eq!(
            (&last(&frames)["type"], &last(&frames)["error"]),
            (&json!("task:failed"), &json!("Container exited 0"))
        );
        let session = text(&frames[0], "session_id");
        assert_eq!(client.turn(&session, "again").await.last().unwrap()["type"], "task:failed");
        gateway.stop().await;
    })
    .await;
}
