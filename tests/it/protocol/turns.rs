//! Turns: continuations, usage, budgets, time limits, and the fields of `turn.done`.

use std::io::Write as _;

use serde_json::json;

use crate::frames::{check_history, last, only, replay, text};
use crate::mock_llm::Mock;
use crate::support::{TestGateway, of_type, on_both, streamed, types};
use crate::world::stragglers;

#[tokio::test]
async fn an_agent_at_its_turn_limit_is_continued_and_the_turn_ends_once() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let prompt = "/say a\n/usage 10 5 0.5\n/continue 2\n/say b\n/usage 1 2 0.25";
        let frames = client.run(prompt).await;
        let continuing: Vec<_> = of_type(&frames, "turn.continuing")
            .iter()
            .map(|frame| (frame["continuation"].clone(), frame["max_continuations"].clone()))
            .collect();
        assert_eq!(continuing, [(json!(1), json!(20)), (json!(2), json!(20))]);
        let done = only(&frames, "turn.done");
        assert_eq!(
            (&done["input_tokens"], &done["output_tokens"], &done["cost_usd"]),
            (&json!(11), &json!(7), &json!(0.75))
        );
        assert_eq!((&done["cost_known"], &done["stop_reason"]), (&json!(true), &json!("end_turn")));
        assert_eq!(done["num_turns"], 3, "one model call per leg");
        assert!(done["duration_ms"].is_u64());
        assert_eq!(done["result_text"], "ab");
        assert_eq!(last(&frames)["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn max_turns_makes_an_agent_stop_and_be_continued() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let prompt = "/tool echo a\n/tool echo b\n/say c";
        let submit = json!({"type": "task.submit", "prompt": prompt, "max_turns": 1});
        client.send(submit).await;
        let frames = client.until_task_end().await;
        assert_eq!(of_type(&frames, "turn.continuing").len(), 2);
        assert_eq!(of_type(&frames, "task:tool_result").len(), 2);
        assert_eq!(only(&frames, "turn.done")["num_turns"], 3);
        let frames = client.run(prompt).await;
        assert_eq!(of_type(&frames, "turn.continuing").len(), 0);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn continuations_have_an_end() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.profiles.get_mut("demo").unwrap().max_continuations = 2;
        })
        .await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say a\n/continue 9\n/say never").await;
        let continuing = of_type(&frames, "turn.continuing");
        assert_eq!(continuing.len(), 2);
        assert_eq!(continuing[1]["max_continuations"], 2);
        let done = only(&frames, "turn.done");
        assert_eq!((&done["stop_reason"], &done["result_text"]), (&json!("max_turns"), &json!("a")));
        assert_eq!(last(&frames)["status"], "completed");
        // The next prompt is a new turn, not a continuation.
        let frames = client.turn(&text(&frames[0], "session_id"), "/say new").await;
        assert_eq!((streamed(&frames).as_str(), of_type(&frames, "turn.continuing").len()), ("new", 0));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_over_its_budget_is_not_continued() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.profiles.get_mut("demo").unwrap().max_budget_usd = 4.0;
        })
        .await;
        let mut client = gateway.client("alice").await;
        let run = async |client: &mut crate::support::Client, prompt: &str, budget: Option<f64>| {
            client.send(json!({"type": "task.submit", "prompt": prompt, "max_budget_usd": budget})).await;
            client.until_task_end().await
        };
        for (prompt, budget) in [
            ("/usage 1 1 2\n/continue 1\n/say never", Some(1.5)),
            ("/usage 1 1 1\n/continue 1\n/usage 1 1 1\n/continue 1\n/say never", Some(2.0)),
            ("/usage 1 1 5\n/continue 1\n/say never", None),
            ("/usage 1 1 5\n/continue 1\n/say never", Some(100.0)),
        ] {
            let frames = run(&mut client, prompt, budget).await;
            let failed = last(&frames);
            assert_eq!((&failed["type"], &failed["retryable"]), (&json!("task:failed"), &json!(false)), "{failed}");
            assert!(text(failed, "error").contains("budget"), "{failed}");
            assert!(failed["cost_usd"].as_f64().unwrap() > 0.9 && failed["input_tokens"].as_u64().unwrap() > 0);
            assert!(!types(&frames).contains(&"turn.done"));
        }
        let frames = run(&mut client, "/usage 1 1 1\n/continue 1\n/say on", Some(1.5)).await;
        assert_eq!(last(&frames)["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn usage_is_always_numbers_and_says_when_the_cost_is_not_known() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/usage 3 4").await;
        let done = only(&frames, "turn.done");
        assert_eq!((&done["cost_usd"], &done["cost_known"]), (&json!(0.0), &json!(false)));
        assert_eq!((&done["input_tokens"], &done["output_tokens"]), (&json!(3), &json!(4)));
        let frames = client.run("/usage 1 1 0.5\n/continue 1\n/usage 1 1").await;
        let done = only(&frames, "turn.done");
        assert_eq!((&done["cost_usd"], &done["cost_known"]), (&json!(0.5), &json!(false)), "not all of it");
        let frames = client.run("/say one two three").await;
        let done = only(&frames, "turn.done");
        assert_eq!((&done["output_tokens"], &done["cost_known"]), (&json!(3), &json!(true)));
        let frames = client.run("/usage 5 6 0.5\n/fail").await;
        let failed = last(&frames);
        assert_eq!(
            (&failed["input_tokens"], &failed["output_tokens"], &failed["cost_usd"]),
            (&json!(5), &json!(6), &json!(0.5))
        );
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_task_that_works_too_long_fails_and_nothing_of_it_goes_on() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.task_seconds = 2).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        // By its own limit, and by the configured one, which it can't exceed.
        for timeout in [json!(1), json!(1_000), json!(null)] {
            let turn = json!({"type": "session.turn", "session_id": session, "timeout_seconds": timeout,
                              "prompt": "/say working\n/tool sleep 1000"});
            client.send(turn).await;
            let frames = client.until_task_end().await;
            let failed = last(&frames);
            assert_eq!(failed["type"], "task:failed");
            assert!(text(failed, "error").contains("timeout"), "{failed}");
            assert!(!types(&frames).contains(&"turn.done"));
            assert_eq!(stragglers(&container), [""; 0]);
        }
        assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");
        check_history(&replay(&mut client, &session).await);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn result_text_is_all_that_was_streamed() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say Before the tool.\n/tool echo x\n/say After it.\n/continue 1\n/say And on.").await;
        assert_eq!(only(&frames, "turn.done")["result_text"], "Before the tool.\n\nAfter it.And on.");
        let frames = client.run("/say").await;
        assert_eq!(only(&frames, "turn.done")["result_text"], "");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn settings_of_a_task_reach_the_agent() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let submit = json!({"type": "task.submit", "prompt": "/tool echo x", "allowed_tools": ["Read"]});
        client.send(submit).await;
        let frames = client.until_task_end().await;
        let result = only(&frames, "task:tool_result");
        assert_eq!(result["is_error"], true);
        assert!(text(result, "output").contains("not allowed"), "{result}");
        gateway.stop().await;
    })
    .await;
}

/// Deaf to all but its prompt, it asks its model two hundred times.
const GREEDY: &str = r#"trap '' INT
read -r line
base=${BASE#http://}
body='{"model":"m","messages":[{"role":"user","content":"USAGE: 1000 10\nTEXT: one"}]}'
for i in $(seq 200); do
  exec 3<>/dev/tcp/${base%:*}/${base#*:}
  printf 'POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n' >&3
  printf 'content-length: %d\r\n\r\n%s' ${#body} "$body" >&3
  cat <&3 >/dev/null
  exec 3>&-
done
exec sleep 1000"#;

#[tokio::test]
async fn an_agent_that_does_not_stop_when_its_budget_is_used_up_gets_nothing_more_of_its_model() {
    on_both(|database| async {
        let mock = Mock::start();
        let mut key = tempfile::NamedTempFile::new().unwrap();
        key.write_all(b"sk-test").unwrap();
        let gateway = TestGateway::start_with(database, |config| {
            let demo = config.profiles.get_mut("demo").unwrap();
            demo.command = ["bash", "-c", GREEDY].map(str::to_owned).to_vec();
            demo.env.insert("BASE".to_owned(), "{proxy}".to_owned());
            demo.model_api = toml::from_str(&format!("kind = 'anthropic'\nurl = '{}'", mock.url)).unwrap();
            demo.model_api.key_file = key.path().to_owned();
            demo.prices.insert("*".to_owned(), toml::from_str("input = 1000.0\noutput = 0.0").unwrap());
        })
        .await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "task.submit", "prompt": "go", "max_budget_usd": 2.5})).await;
        let failed = client.until_task_end().await.pop().unwrap();
        assert!(text(&failed, "error").starts_with("budget: "), "{failed}");
        let calls = mock.requests().await.len();
        // The third is too much. One more may have been under way.
        assert!((3..=5).contains(&calls), "{calls}");
        assert_eq!(failed["cost_usd"].as_f64().unwrap().to_string(), calls.to_string(), "{failed}");
        gateway.stop().await;
    })
    .await;
}
