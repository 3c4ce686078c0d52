//! What a gateway leaves behind when it is killed, and who takes that away.

use std::path::Path;

use serde_json::{Value, json};

use super::{Docked, endless, ran_in, runs, said, started};
use crate::containers::{Containers, IMAGE, engine_id};
use crate::database::{self, TestDatabase};
use crate::frames::{check_history, replay, text};
use crate::program::Program;
use crate::support::{Client, of_type};
use crate::world::{eventually, hold};

/// The real program, which can be killed, with containers.
async fn start(database: &TestDatabase, data: &Path) -> Program {
    Program::start(&[
        ("STREAMGATE_DATA_DIR", data.to_str().unwrap()),
        ("STREAMGATE_DATABASE__URL", &database.url),
        ("STREAMGATE_RUNTIME__KIND", "docker"),
        ("STREAMGATE_PROFILES__DEMO__IMAGE", IMAGE),
        ("STREAMGATE_PROFILES__DEMO__COMMAND", "[]"),
    ])
    .await
}

#[tokio::test]
async fn what_a_killed_gateway_left_goes_on_at_its_next_start_and_what_others_have_stays() {
    let neighbour = Docked::start().await;
    let mut their_client = neighbour.gateway.client("bob").await;
    let theirs = started(&mut their_client).await;
    let their_engine_id = engine_id(&theirs.name).await;

    let (database, data) = (database::postgres().await, tempfile::tempdir().unwrap());
    let gateway = start(&database, data.path()).await;
    // Whatever happens, the gateway goes first, then what it left.
    let (containers, gateway) = (Containers::of(&database).await, gateway);
    let token = gateway.token("alice").await;
    let mut client = Client::connect(gateway.address, &token, true).await;
    let session = started(&mut client).await;
    client.turn(&session.session, "/remember me").await;
    let left = endless();
    let prompt = format!("/tool setsid -f {left} >/dev/null 2>&1\n/say on\n{}", hold("go"));
    client.send(json!({"type": "session.turn", "session_id": session.session, "prompt": prompt})).await;
    let running = text(&client.expect("task:token").await, "task_id");
    let queued = text(&client.queue(&session.session, "/recall").await, "task_id");
    eventually("one is warm, one at work", async || containers.up().await.len() == 2).await;
    let before = containers.names().await;
    let engine_id_before = engine_id(&session.name).await;
    gateway.kill().await;
    assert_eq!(containers.up().await, before, "nobody is left to take them away");
    assert!(runs(&left));

    let gateway = start(&database, data.path()).await;
    let warm = before.into_iter().find(|name| *name != session.name).unwrap();
    eventually("the warm one is gone", async || !containers.names().await.contains(&warm)).await;
    let mut client = Client::connect(gateway.address, &token, true).await;
    client.send(json!({"type": "session.resume", "session_id": session.session})).await;
    client.expect("session.replay_end").await;
    assert!(runs(&left), "what the task had started goes on with it");
    std::fs::write(data.path().join("workspaces").join(&session.container).join("go"), "").unwrap();
    client.until(|frame| frame["task_id"] == queued.as_str() && frame["type"] == "task:done").await;

    let history = replay(&mut client, &session.session).await;
    check_history(&history);
    let of = |task: &str| -> Vec<Value> { history.iter().filter(|frame| frame["task_id"] == task).cloned().collect() };
    assert_eq!(said(&of(&running)), "on", "{history:#?}");
    assert_eq!(said(&of(&queued)), "me", "the same workspace");
    assert_eq!(ran_in(&of(&queued)), (session.container, session.name.clone()));
    assert_eq!(engine_id(&session.name).await, engine_id_before, "the same container, the same agent");

    assert_eq!(engine_id(&theirs.name).await, their_engine_id, "not ours, not touched");
    assert_eq!(said(&their_client.turn(&theirs.session, "/say well").await), "well");
    neighbour.stop().await;
    gateway.stop().await;
    assert_eq!(containers.names().await, [session.name], "SIGTERM leaves those that sessions have");
}

#[tokio::test]
async fn a_restart_in_good_order_is_not_noticed_by_agents() {
    let mut docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let held = client.held("go").await;
    let queued = text(&client.queue(&held.session, "/tool ls\n/say after").await, "task_id");
    let engine_id_before = engine_id(&held_name(&docked).await).await;
    docked.gateway.restart().await;

    let mut client = docked.gateway.client("alice").await;
    client.send(json!({"type": "session.resume", "session_id": held.session})).await;
    client.expect("session.replay_end").await;
    docked.gateway.let_go(&held.container, "go");
    client.until(|frame| frame["task_id"] == queued.as_str() && frame["type"] == "task:done").await;
    let history = replay(&mut client, &held.session).await;
    check_history(&history);
    assert!(of_type(&history, "task:failed").is_empty(), "{history:#?}");
    let of_queued: Vec<_> = history.iter().filter(|frame| frame["task_id"] == queued.as_str()).cloned().collect();
    assert_eq!(ran_in(&of_queued).0, held.container);
    assert_eq!(engine_id(&held_name(&docked).await).await, engine_id_before);
    docked.stop().await;
}

/// The name of the one container.
async fn held_name(docked: &Docked) -> String {
    let [name] = &docked.containers.names().await[..] else { panic!("one container") };
    name.clone()
}
