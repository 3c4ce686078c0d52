//! G1 Durable before visible, G6 No silent gap, G7 One at a time.

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::database::TestDatabase;
use crate::frames::{check_history, of_task, replay, replay_texts, seq, seqs, text, unsigned};
use crate::support::{Client, TestGateway, of_type, on_both, streamed, types};
use crate::world::{Lock, eventually, hold};

/// Prompts that make every kind of event.
const RICH: [&str; 4] = [
    "/say one two\n/tool echo hello\n/parallel echo a && echo b\n/image picture.png\n/say é\u{1F642}\"\\",
    "/continue 2\n/say after\n/orphan",
    "/twice\n/say then\n/fail \"no\" luck",
    "/tool false\n/crash 3",
];

/// Runs a prompt and returns every event of it as it came.
async fn watch(client: &mut Client, session: &str, prompt: &str) -> Vec<String> {
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
    watch_end(client).await
}

async fn watch_end(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let text = client.next_text().await;
        let frame: Value = serde_json::from_str(&text).unwrap();
        if seq(&frame).is_some() {
            seen.push(text);
        }
        if frame["type"] == "task:done" || frame["type"] == "task:failed" {
            return seen;
        }
    }
}

fn all_unsigned(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| unsigned(text)).collect()
}

#[tokio::test]
async fn g1_what_a_client_saw_is_what_every_replay_returns_byte_for_byte() {
    on_both(|database| async {
        // Links name the gateway as clients see it, whatever its port is after a restart.
        let mut gateway =
            TestGateway::start_with(database, |config| config.public_url = "http://gateway.test".to_owned()).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut document = gateway.document_client("alice").await;
        replay(&mut document, &session).await;
        let mut admin = gateway.admin().await;
        replay(&mut admin, &session).await;

        let (mut seen, mut document_seen, mut admin_seen) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in RICH {
            seen.extend(watch(&mut client, &session, prompt).await);
            document_seen.extend(watch_end(&mut document).await);
            admin_seen.extend(watch_end(&mut admin).await);
        }
        assert!(document_seen.len() < seen.len() && seen.len() < admin_seen.len());

        for restarted in [false, true] {
            if restarted {
                gateway.restart().await;
            }
            let mut client = gateway.client("alice").await;
            assert_eq!(all_unsigned(&replay_texts(&mut client, &session).await), all_unsigned(&seen));
            let mut document = gateway.document_client("alice").await;
            assert_eq!(all_unsigned(&replay_texts(&mut document, &session).await), all_unsigned(&document_seen));
            let mut admin = gateway.admin().await;
            assert_eq!(all_unsigned(&replay_texts(&mut admin, &session).await), all_unsigned(&admin_seen));
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g1_every_event_is_in_the_journal_when_it_is_seen() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/tokens 300 1"})).await;
        loop {
            let frame = client.next().await;
            if let Some(seq) = seq(&frame) {
                assert!(gateway.head(&session).await >= seq, "{frame}");
            }
            if frame["type"] == "task:done" {
                break;
            }
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g1_what_can_not_be_committed_yet_is_not_seen_yet() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        let prompt = format!("{}\n/tool touch went\n/say after", hold("go"));
        client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        client.expect("task:tool_use").await;

        let lock = Lock::take(&gateway.database, &session).await;
        let head = gateway.head(&session).await;
        gateway.let_go(&container, "go");
        eventually("the agent goes on", async || gateway.file(&container, "went").exists()).await;
        let while_locked = client.settle().await;
        assert_eq!(seqs(&while_locked), [0_u64; 0], "{while_locked:?}");
        assert_eq!(while_locked.last().unwrap()["sessions"][&session], head);
        lock.release().await;

        let frames = client.until_task_end().await;
        assert_eq!(frames.last().unwrap()["status"], "completed");
        assert_eq!(seqs(&frames)[0], head + 1);
        check_history(&replay(&mut client, &session).await);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g6_a_cursor_beyond_the_head_is_refused_and_follows_nothing() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/say hello").await;
        let session = text(&frames[0], "session_id");
        let head = gateway.head(&session).await;

        let mut late = gateway.client("alice").await;
        for after in [head + 1, head + 1_000, i64::MAX as u64] {
            let resume = json!({"type": "session.resume", "session_id": session, "after_seq": after});
            let error = late.request(resume).await;
            assert_eq!((text(&error, "type"), text(&error, "code")), ("error".to_owned(), "CURSOR_AHEAD".to_owned()));
            assert_eq!((&error["last_seq"], &error["session_id"]), (&json!(head), &json!(session)));
        }
        client.turn(&session, "/say more").await;
        let settled = late.settle().await;
        assert_eq!(types(&settled), ["pong"], "a refused resume follows nothing");
        assert_eq!(settled[0]["sessions"], json!({}));

        // One that follows already goes on following.
        let resume = json!({"type": "session.resume", "session_id": session, "after_seq": head + 1_000});
        assert_eq!(client.request(resume).await["code"], "CURSOR_AHEAD");
        assert_eq!(client.turn(&session, "/say still").await.last().unwrap()["type"], "task:done");

        let at_head = gateway.head(&session).await;
        let resume = json!({"type": "session.resume", "session_id": session, "after_seq": at_head});
        assert_eq!(late.request(resume).await["type"], "session.replay_start");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g7_a_session_runs_one_task_at_a_time() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let mut others = [gateway.client("alice").await, gateway.client("alice").await];
        let mut tasks = vec![held.task.clone()];
        for (number, other) in (0..6).zip([0, 1, 0, 1, 0, 1]) {
            let ack = others[other].queue(&held.session, &format!("/tokens 20\n/say {number}")).await;
            assert_eq!(ack["position"], number);
            tasks.push(text(&ack, "task_id"));
        }
        assert_eq!(of_type(&client.settle().await, "task:started").len(), 0);
        gateway.let_go(&held.container, "go");
        for _ in &tasks {
            client.until_task_end().await;
        }
        let history = replay(&mut client, &held.session).await;
        check_history(&history);
        let started: Vec<_> = of_type(&history, "task:started").iter().map(|frame| text(frame, "task_id")).collect();
        assert_eq!(started, tasks);
        assert_apart(&history, &tasks);
        gateway.stop().await;
    })
    .await;
}

/// Between a task's start and its end there is nothing of another but that it was queued.
fn assert_apart(history: &[Value], tasks: &[String]) {
    for task in tasks {
        let of_this = of_task(history, task);
        let from = seq(of_type(&of_this, "task:started")[0]).unwrap();
        let to = seq(of_this.last().unwrap()).unwrap();
        for frame in history.iter().filter(|frame| (from..=to).contains(&seq(frame).unwrap())) {
            let waits = frame["type"] == "user.message" || frame["type"] == "task:queued";
            assert!(waits || frame["task_id"] == task.as_str(), "{frame} while `{task}` runs");
        }
    }
}

#[tokio::test]
async fn g7_queued_tasks_survive_a_restart_and_the_running_one_goes_on() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let mut queued = Vec::new();
        for (prompt, priority) in [("/say one", "normal"), ("/recall", "low"), ("/remember three", "high")] {
            let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": prompt,
                              "priority": priority});
            queued.push(text(&client.request(turn).await, "task_id"));
        }
        gateway.restart().await;
        assert_eq!(u16::from(client.closed().await.unwrap().code), 1012);

        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "session.resume", "session_id": held.session})).await;
        client.expect("session.replay_end").await;
        gateway.let_go(&held.container, "go");
        let frames = client.until(|frame| frame["type"] == "task:done" && frame["task_id"] == queued[1].as_str()).await;
        let done = of_task(&frames, &held.task).pop().unwrap();
        assert_eq!((&done["type"], &done["status"]), (&json!("task:done"), &json!("completed")), "{done}");
        let history = replay(&mut client, &held.session).await;
        check_history(&history);
        let started: Vec<_> = of_type(&history, "task:started").iter().map(|frame| text(frame, "task_id")).collect();
        assert_eq!(started, [&held.task, &queued[2], &queued[0], &queued[1]].map(Clone::clone));
        assert_apart(&history, &queued);
        let recalled = of_task(&history, &queued[1]);
        assert_eq!(of_type(&recalled, "turn.done")[0]["result_text"], "three", "the same workspace");
        gateway.stop().await;
    })
    .await;
}

/// Does something to a gateway's database behind its back.
async fn meddle(database: &TestDatabase, statement: &'static str) {
    if database.is_postgres() {
        PgConnection::connect(&database.url).await.unwrap().execute(statement).await.unwrap();
    } else {
        SqliteConnection::connect(&database.url).await.unwrap().execute(statement).await.unwrap();
    }
}

#[tokio::test]
async fn g7_the_time_to_answer_a_question_runs_on_while_no_gateway_does() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "task.submit", "prompt": "/ask Go on? | Yes"})).await;
        let session = text(&client.expect("task:ask_user").await, "session_id");
        // As if it had been asked a day and an hour ago; a day is the limit.
        meddle(&gateway.database, "UPDATE questions SET asked_at = asked_at - 90000000").await;
        gateway.restart().await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        let end = client.until_task_end().await;
        let error = text(end.last().unwrap(), "error");
        assert_eq!(error, "timeout: the question was not answered within 86400 s");
        check_history(&replay(&mut client, &session).await);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g7_a_question_is_still_open_after_a_restart_and_its_answer_reaches_the_agent() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "task.submit", "prompt": "/ask Go on? | Yes\n/say so be it"})).await;
        let ask = client.expect("task:ask_user").await;
        let (session, task) = (text(&ask, "session_id"), text(&ask, "task_id"));
        gateway.restart().await;
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        let state = client.expect("session.state").await;
        assert_eq!(state["pending_ask"]["ask_id"], ask["ask_id"], "{state}");
        client.send(json!({"type": "task.answer", "task_id": task, "answer": "Yes"})).await;
        let end = client.until_task_end().await;
        assert_eq!(end.last().unwrap()["status"], "completed");
        let history = replay(&mut client, &session).await;
        check_history(&history);
        assert_eq!(of_type(&history, "task:ask_user").len(), 1, "asked once");
        assert!(streamed(&history).contains("so be it"));
        gateway.stop().await;
    })
    .await;
}
