//! Questions and `task.answer`.

use serde_json::{Value, json};

use crate::frames::{check_history, last, only, replay, text};
use crate::support::{Client, TestGateway, of_type, on_both, types};

/// Submits a prompt that asks; returns the `task:ask_user`.
async fn asked(client: &mut Client, prompt: &str) -> Value {
    client.send(json!({"type": "task.submit", "prompt": prompt})).await;
    client.expect("task:ask_user").await
}

#[expect(clippy::needless_pass_by_value, reason = "callers make it in place")]
fn answer(ask: &Value, answer: Value) -> Value {
    json!({"type": "task.answer", "task_id": ask["task_id"], "answer": answer})
}

#[tokio::test]
async fn a_question_is_a_tool_use_that_its_answer_closes() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "task.submit", "prompt": "/ask Which one? | A | B"})).await;
        let mut frames = client.until_type("task:ask_user").await;
        let ask = last(&frames).clone();
        let questions = json!([{"question": "Which one?", "options": [{"label": "A"}, {"label": "B"}]}]);
        assert_eq!(ask["questions"], questions);
        assert!(text(&ask, "ask_id").starts_with("ask_"));
        let ack = client.request(answer(&ask, json!("B"))).await;
        assert_eq!((&ack["type"], &ack["task_id"]), (&json!("ack"), &ask["task_id"]));
        let session = text(&ask, "session_id");
        frames = replay(&mut client, &session).await;
        if frames.last().unwrap()["type"] != "task:done" {
            client.until_task_end().await;
            frames = replay(&mut client, &session).await;
        }
        let about: Vec<_> = types(&frames)
            .into_iter()
            .filter(|kind| kind.starts_with("task:tool") || kind.ends_with("user") || *kind == "task:answered")
            .collect();
        assert_eq!(about, ["task:tool_use", "task:ask_user", "task:answered", "task:tool_result"]);
        let used = only(&frames, "task:tool_use");
        assert_eq!((&used["tool"], &used["input"]["questions"]), (&json!("AskUserQuestion"), &questions));
        assert_eq!(used["tool_use_id"], only(&frames, "task:tool_result")["tool_use_id"]);
        let answered = only(&frames, "task:answered");
        assert_eq!((&answered["ask_id"], &answered["answer"]), (&ask["ask_id"], &json!("B")));
        assert_eq!(only(&frames, "turn.done")["result_text"], "You chose: B.");
        check_history(&frames);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_first_answer_wins_and_the_same_again_is_acknowledged() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ask = asked(&mut client, "/ask Which? | A | B\n/sleep 600000").await;
        let mut other = gateway.client("alice").await;
        let (one, two) =
            tokio::join!(client.request(answer(&ask, json!("A"))), other.request(answer(&ask, json!("B"))));
        let won = if one["type"] == "ack" { "A" } else { "B" };
        let (winner, loser) = if won == "A" { (&one, &two) } else { (&two, &one) };
        assert_eq!((&winner["type"], &loser["code"]), (&json!("ack"), &json!("CONFLICT")));
        let lost = if won == "A" { "B" } else { "A" };
        let check = async |client: &mut Client| {
            for named in [false, true] {
                for (words, expected) in [(won, "ack"), (lost, "error")] {
                    let mut frame = answer(&ask, json!(words));
                    if named {
                        frame["ask_id"] = ask["ask_id"].clone();
                    }
                    let reply = client.request(frame).await;
                    assert_eq!(reply["type"], expected, "{reply}");
                    assert!(expected == "ack" || reply["code"] == "CONFLICT");
                }
            }
        };
        check(&mut client).await;
        client.request(json!({"type": "task.cancel", "task_id": ask["task_id"]})).await;
        check(&mut client).await;
        gateway.restart().await;
        let mut client = gateway.client("alice").await;
        check(&mut client).await;
        let history = replay(&mut client, &text(&ask, "session_id")).await;
        assert_eq!(only(&history, "task:answered")["answer"], won);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn several_questions_take_an_object_or_a_text_for_the_first() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let cases = [
            (json!("Because"), "You chose: Because, ."),
            (json!({"Why?": "So", "When?": "now"}), "You chose: So, now."),
            (json!({"When?": "now"}), "You chose: , now."),
            (json!(""), "You chose: , ."),
        ];
        for (given, said) in cases {
            let ask = asked(&mut client, "/ask Why? || When? | now | later").await;
            assert_eq!(ask["questions"].as_array().unwrap().len(), 2);
            client.send(answer(&ask, given.clone())).await;
            let frames = client.until_task_end().await;
            assert_eq!(only(&frames, "turn.done")["result_text"], said, "{given}");
            assert_eq!(only(&frames, "task:answered")["answer"], given);
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_for_the_question_named_or_the_oldest_open_one() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let first = asked(&mut client, "/ask One? | A\n/ask Two? | B").await;
        let mut named = answer(&first, json!("A"));
        named["ask_id"] = first["ask_id"].clone();
        client.send(named.clone()).await;
        let second = client.expect("task:ask_user").await;
        assert_ne!(second["ask_id"], first["ask_id"]);
        // The first again, by its name: acknowledged, and the second stays open.
        assert_eq!(client.request(named).await["type"], "ack");
        let mut wrong = answer(&second, json!("B"));
        for unknown in ["ask_00000000000000000000000000000000", "nonsense"] {
            wrong["ask_id"] = json!(unknown);
            assert_eq!(client.request(wrong.clone()).await["code"], "CONFLICT");
        }
        client.send(answer(&second, json!("B"))).await;
        let frames = client.until_task_end().await;
        assert_eq!(only(&frames, "turn.done")["result_text"], "You chose: A.\n\nYou chose: B.");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_a_conflict() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("never").await;
        let waiting = text(&client.queue(&held.session, "/ask Later?").await, "task_id");
        let done = text(&client.run("/say x").await[0], "task_id");
        for task in [&held.task, &waiting, &done] {
            let error = client.request(json!({"type": "task.answer", "task_id": task, "answer": "x"})).await;
            assert_eq!((&error["code"], &error["task_id"]), (&json!("CONFLICT"), &json!(task)));
        }
        // A question that was cancelled is no longer open.
        let ask = asked(&mut client, "/ask Well?").await;
        client.request(json!({"type": "task.cancel", "task_id": ask["task_id"]})).await;
        assert_eq!(client.request(answer(&ask, json!("x"))).await["code"], "CONFLICT");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_question_waits_as_long_as_it_may_and_the_tasks_time_stands_still() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let submit = json!({"type": "task.submit", "prompt": "/ask Which? | A", "timeout_seconds": 3});
        client.send(submit).await;
        let ask = client.expect("task:ask_user").await;
        // Longer than the task may work. This is the time that passes, not a wait for something.
        tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
        client.send(answer(&ask, json!("A"))).await;
        assert_eq!(client.until_task_end().await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_question_that_nobody_answers_in_time_fails_its_task() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.ask_timeout_seconds = 1).await;
        let mut client = gateway.client("alice").await;
        let ask = asked(&mut client, "/ask Which? | A").await;
        let frames = client.until_task_end().await;
        assert_eq!(last(&frames)["type"], "task:failed");
        assert!(text(last(&frames), "error").contains("timeout"), "{}", last(&frames));
        assert_eq!(of_type(&frames, "turn.done").len(), 0);
        assert_eq!(client.request(answer(&ask, json!("A"))).await["code"], "CONFLICT");
        let session = text(&ask, "session_id");
        assert_eq!(client.turn(&session, "/say on").await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}
