//! A cancelled turn ends at once, nothing of it runs on in the container, and the conversation goes on.

use serde_json::{Value, json};

use crate::client::Client;
use crate::containers::{endless, runs};
use crate::frames::{check_history, only, replay};
use crate::world::{Agent, Session, World, eventually};

crate::with_each_agent!(
    text_is_cancelled_and_the_next_turn_is_answered,
    g8_a_tool_that_runs_is_cancelled_and_no_process_survives,
    a_model_that_says_nothing_is_cancelled,
);

async fn cancel(client: &mut Client, task: &str) -> Vec<Value> {
    client.send(json!({"type": "task.cancel", "task_id": task})).await;
    let frames = client.until_task_end().await;
    assert_eq!(frames.last().unwrap()["status"], "cancelled", "{:?}", frames.last());
    assert_eq!(only(&frames, "turn.done")["stop_reason"], "cancelled");
    frames
}

async fn text_is_cancelled_and_the_next_turn_is_answered(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    // Ten minutes of it.
    let endless = format!("SLOW: 300 {}", "and on ".repeat(1_000));
    let (task, _) = session.begin(&mut client, &endless, |frame| frame["type"] == "task:token").await;
    cancel(&mut client, &task).await;
    let frames = session.turn(&mut client, "TEXT: here again").await;
    assert_eq!(only(&frames, "turn.done")["result_text"], "here again");
    check_history(&replay(&mut client, &session.id).await);
}

async fn g8_a_tool_that_runs_is_cancelled_and_no_process_survives(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "TEXT: ready").await;
    // In the tool's own group, in a session of its own, and with nobody for a parent.
    let processes: [String; 4] = std::array::from_fn(|_| endless());
    let [grouped, own, orphaned, last] = &processes;
    let command =
        format!("{grouped} & setsid {own} & (trap '' INT TERM HUP; setsid -f {orphaned}); touch began; {last}");
    let prompt = format!("SH: {command}\nTEXT: never said");
    let (task, _) = session.begin(&mut client, &prompt, |frame| frame["type"] == "task:tool_use").await;
    let began = world.file(&session, "began");
    eventually("the tool works", async || began.exists() && processes.iter().all(|line| runs(line))).await;
    cancel(&mut client, &task).await;
    let left: Vec<_> = processes.iter().filter(|line| runs(line)).collect();
    assert!(left.is_empty(), "{left:?}");
    let frames = session.turn(&mut client, "TEXT: here again").await;
    assert_eq!(only(&frames, "turn.done")["result_text"], "here again");
    check_history(&replay(&mut client, &session.id).await);
}

async fn a_model_that_says_nothing_is_cancelled(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, _) = session.begin(&mut client, "HANG: 600", |frame| frame["type"] == "task:started").await;
    let asked =
        async || world.mock.requests().await.iter().any(|request| request["body"].to_string().contains("HANG:"));
    eventually("the model is asked", asked).await;
    cancel(&mut client, &task).await;
    let frames = session.turn(&mut client, "TEXT: here again").await;
    assert_eq!(only(&frames, "turn.done")["result_text"], "here again");
    check_history(&replay(&mut client, &session.id).await);
}
