//! G1, G2, G7 and G8 when the gateway is killed without a word, again and again.

use std::path::Path;

use serde_json::{Value, json};

use crate::database::{self, TestDatabase};
use crate::frames::{check_history, replay_texts, seq, text};
use crate::program::Program;
use crate::shims::DataDir;
use crate::support::{Client, of_type, on_both, streamed};
use crate::world::{eventually, processes};

async fn start(database: &TestDatabase, data: &Path) -> Program {
    let data_dir = data.to_str().unwrap();
    let settings = [
        ("STREAMGATE_DATA_DIR", data_dir),
        ("STREAMGATE_DATABASE__URL", &*database.url),
        ("STREAMGATE_LOG__FILTER", "info,streamgate=debug"),
    ];
    Program::start(&settings).await
}

/// A client that keeps every event exactly as it came, over all its connections.
struct Witness {
    client: Client,
    events: Vec<(u64, String)>,
}

impl Witness {
    /// The next frame, which is kept when it is an event.
    async fn next(&mut self) -> Value {
        let text = self.client.next_text().await;
        let frame: Value = serde_json::from_str(&text).unwrap();
        if let Some(seq) = seq(&frame) {
            self.events.push((seq, text));
        }
        frame
    }

    async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next().await;
            if is_last(&frame) {
                return frame;
            }
        }
    }
}

#[tokio::test]
async fn g1_a_gateway_that_is_killed_loses_nothing_repeats_nothing_and_its_tasks_go_on() {
    on_both(|database| async move {
        let data = DataDir::new();
        let mut gateway = start(&database, data.path()).await;
        let token = gateway.token("alice").await;
        let mut client = Client::connect(gateway.address, &token, true).await;
        let ready = client.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        let mut witness = Witness { client, events: Vec::new() };
        let turn = |prompt: &str, key: String| {
            json!({"type": "session.turn", "session_id": session, "prompt": prompt, "idempotency_key": key,
                   "request_id": key})
        };
        let mut accepted: Vec<(Value, Value)> = Vec::new();
        for round in 0..4_usize {
            let begun = witness.events.len();
            let work = turn("/tool setsid -f sleep 1000 >/dev/null 2>&1\n/tokens 1500 1", format!("work {round}"));
            let wait = turn(&format!("/say round {round}"), format!("wait {round}"));
            for frame in [&work, &wait] {
                witness.client.send(frame.clone()).await;
                let ack = witness.until(|reply| reply["request_id"] == frame["request_id"]).await;
                assert_eq!(ack["type"], "ack", "{ack}");
                accepted.push((frame.clone(), ack["task_id"].clone()));
            }
            // It dies in the middle of what its agent says, which says on.
            let enough = format!("t{} ", 50 + 70 * round);
            // It may have come before the second reply.
            let said = format!(r#""text":"{enough}""#);
            if !witness.events[begun..].iter().any(|(_, text)| text.contains(&said)) {
                witness.until(|frame| frame["text"] == enough.as_str()).await;
            }
            gateway.kill().await;

            gateway = start(&database, data.path()).await;
            witness.client = Client::connect(gateway.address, &token, true).await;
            let after = witness.events.last().unwrap().0;
            witness.client.send(json!({"type": "session.resume", "session_id": session, "after_seq": after})).await;
            let [.., (_, working), (_, waiting)] = &accepted[..] else { unreachable!("two a round") };
            for task in [working, waiting] {
                let done = witness.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await;
                assert_eq!((&done["task_id"], &done["status"]), (task, &json!("completed")), "{done}");
            }
        }

        let mut client = Client::connect(gateway.address, &token, true).await;
        // Whose answer was lost asks again: it was taken, and is not run twice.
        for (frame, task) in &accepted {
            assert_eq!(&client.request(frame.clone()).await["task_id"], task);
        }
        let replayed = replay_texts(&mut client, &session).await;
        let seen: Vec<String> = witness.events.into_iter().map(|(_, text)| text).collect();
        assert!(seen == replayed, "all that was seen, in order, each once, byte for byte");
        let history: Vec<Value> = replayed.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        check_history(&history);
        assert_eq!(of_type(&history, "user.message").len(), accepted.len());
        // Every word that an agent said, once, over all the deaths.
        let all = (1..=1_500).map(|number| format!("t{number} ")).collect::<Vec<_>>().concat();
        for (_, task) in accepted.iter().step_by(2) {
            let said: Vec<Value> = history.iter().filter(|frame| frame["task_id"] == *task).cloned().collect();
            assert!(streamed(&said) == all, "{} bytes of {}", streamed(&said).len(), all.len());
        }
        assert_eq!(client.request(json!({"type": "session.end", "session_id": session})).await["type"], "ack");
        assert_eq!(processes(&container), [""; 0], "nothing of the session is left");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g8_a_cancel_that_was_under_way_when_its_gateway_died_is_carried_out() {
    on_both(|database| async move {
        let data = DataDir::new();
        let gateway = start(&database, data.path()).await;
        let token = gateway.token("alice").await;
        let mut client = Client::connect(gateway.address, &token, true).await;
        // An agent that heeds neither an interrupt nor SIGINT: a cancel takes 5 s.
        client.send(json!({"type": "task.submit", "prompt": "/say here\n/hang"})).await;
        let said = client.expect("task:token").await;
        let (session, task) = (text(&said, "session_id"), text(&said, "task_id"));
        client.request(json!({"type": "session.turn", "session_id": session, "prompt": "/say next"})).await;
        client.send(json!({"type": "task.cancel", "task_id": task})).await;
        eventually("it is on its way", async || gateway.log().contains("Interrupting the agent")).await;
        gateway.kill().await;

        let gateway = start(&database, data.path()).await;
        let mut client = Client::connect(gateway.address, &token, true).await;
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        let done = client.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await;
        let done = done.last().unwrap();
        assert_eq!((&done["task_id"], &done["status"]), (&json!(task), &json!("cancelled")), "{done}");
        // The next one runs.
        let next = client.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await;
        assert_eq!(next.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

/// Two gateways with a data directory each, one database, and one directory for what agents need.
#[tokio::test]
async fn g1_another_gateway_goes_on_where_one_stopped_or_died() {
    let database = database::postgres().await;
    let (shared, one, two) = (DataDir::new(), DataDir::new(), DataDir::new());
    let start = async |data: &DataDir| {
        Program::start(&[
            ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
            ("STREAMGATE_DATABASE__URL", &*database.url),
            ("STREAMGATE_RUNTIME__DIR", shared.path().to_str().unwrap()),
        ])
        .await
    };
    let (first, second) = (start(&one).await, start(&two).await);
    let token = first.token("alice").await;
    let client = Client::connect(first.address, &token, true).await;
    let mut witness = Witness { client, events: Vec::new() };
    witness.client.send(json!({"type": "task.submit", "prompt": "/tokens 6000 1"})).await;
    let seen = witness.until(|frame| frame["text"] == "t300 ").await;
    let session = text(&seen, "session_id");
    first.stop().await;

    // In good order: the lease is given up.
    witness.client = Client::connect(second.address, &token, true).await;
    let after = witness.events.last().unwrap().0;
    witness.client.send(json!({"type": "session.resume", "session_id": session, "after_seq": after})).await;
    witness.until(|frame| frame["text"] == "t1500 ").await;
    let third = start(&one).await;
    second.kill().await;

    // Without a word: the lease runs out.
    witness.client = Client::connect(third.address, &token, true).await;
    let after = witness.events.last().unwrap().0;
    witness.client.send(json!({"type": "session.resume", "session_id": session, "after_seq": after})).await;
    let done = witness.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await;
    assert_eq!(done["status"], "completed", "{done}");
    let mut client = Client::connect(third.address, &token, true).await;
    let replayed = replay_texts(&mut client, &session).await;
    assert!(witness.events.iter().map(|(_, text)| text).eq(&replayed), "all of it, in order, each once");
    let history: Vec<Value> = replayed.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    check_history(&history);
    let all = (1..=6_000).map(|number| format!("t{number} ")).collect::<Vec<_>>().concat();
    assert!(streamed(&history) == all, "{} bytes of {}", streamed(&history).len(), all.len());
    third.stop().await;
}
