//! A container that was stopped for idleness: the next turn starts another, and remembers.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::client::of_type;
use crate::frames::{check_history, replay};
use crate::world::{Agent, GEMINI, Session, World, eventually};

crate::with_each_agent!(
    a_conversation_whose_files_are_lost_begins_anew;
    but_gemini: a_turn_after_the_container_was_stopped_remembers_the_one_before
);

/// A world whose containers stop at once when they have nothing to do.
async fn world(agent: Agent) -> World {
    World::with(agent, |_| (), &[("STREAMGATE_RUNTIME__IDLE_STOP_SECONDS", "1")]).await
}

fn is_hidden(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

async fn stopped(world: &World) {
    eventually("the container stops", async || world.containers.up().await.is_empty()).await;
}

/// Whether the model has been since its first requests, these many.
async fn is_told_of_sesame(world: &World, requests: usize) -> bool {
    let tells = |request: &Value| request["body"].to_string().contains("Sesame is the word.");
    world.mock.requests().await[requests..].iter().any(tells)
}

async fn a_turn_after_the_container_was_stopped_remembers_the_one_before(agent: Agent) {
    let world = world(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "Sesame is the word.\nSH: echo kept >kept.txt\nTEXT: noted").await;
    stopped(&world).await;
    let asked = world.mock.requests().await.len();
    let frames = session.turn(&mut client, "SH: cat kept.txt").await;
    assert!(is_told_of_sesame(&world, asked).await, "{frames:?}");
    assert!(of_type(&frames, "task:tool_result")[0]["output"].as_str().unwrap().contains("kept"), "{frames:?}");
}

/// What it remembers it says to the gateway first, and goes on with that while it takes a prompt already.
#[tokio::test(flavor = "multi_thread")]
async fn gemini_cli_remembers_each_time_and_what_it_repeats_is_not_told_as_new() {
    let change = |profile: &mut toml::Table| drop(profile.insert("permissions".to_owned(), "ask".into()));
    // Not between two of these turns, however slow the machine is: see below.
    let world = World::with(GEMINI, change, &[("STREAMGATE_RUNTIME__IDLE_STOP_SECONDS", "15")]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let began = Instant::now();
    session.turn(&mut client, "Sesame is the word.\nTEXT: noted").await;
    for number in 0..50 {
        session.turn(&mut client, &format!("TEXT: answer {number}")).await;
    }
    // A conversation that is resumed in the minute in which it began is lost: its file is named by the minute.
    eventually("its first minute is over", async || began.elapsed() > Duration::from_mins(1)).await;
    for _ in 0..2 {
        stopped(&world).await;
        let remembered = session.remembered(&mut client).await;
        assert!(remembered.starts_with("User prompts so far"), "{remembered}");
        assert!(remembered.contains("Sesame is the word."), "{remembered}");
    }
    check_history(&replay(&mut client, &session.id).await);
}

/// It is told who it is again, and the workspace is as it was.
async fn a_conversation_whose_files_are_lost_begins_anew(agent: Agent) {
    let world = world(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "Sesame is the word.\nSH: echo kept >kept.txt\nTEXT: noted").await;
    stopped(&world).await;
    // Agents keep what they remember at home, which is the workspace.
    for entry in std::fs::read_dir(world.file(&session, ".")).unwrap().flatten().filter(is_hidden) {
        std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path())).unwrap();
    }
    let asked = world.mock.requests().await.len();
    let frames = session.turn(&mut client, "SH: cat kept.txt").await;
    assert!(!is_told_of_sesame(&world, asked).await, "{frames:?}");
    assert!(of_type(&frames, "task:tool_result")[0]["output"].as_str().unwrap().contains("kept"), "{frames:?}");
    check_history(&replay(&mut client, &session.id).await);
}
