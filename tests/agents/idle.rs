//! A container that was stopped for idleness: the next turn starts another, and remembers.

use crate::client::of_type;
use crate::world::{Agent, Session, World, eventually};

crate::with_each_agent!(a_turn_after_the_container_was_stopped_remembers_the_one_before);

async fn a_turn_after_the_container_was_stopped_remembers_the_one_before(agent: Agent) {
    let world = World::with(agent, |_| (), &[("STREAMGATE_RUNTIME__IDLE_STOP_SECONDS", "1")]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "Sesame is the word.\nSH: echo kept >kept.txt\nTEXT: noted").await;
    eventually("the container stops", async || world.containers.up().await.is_empty()).await;
    let frames = session.turn(&mut client, "HISTORY:\n+SH: cat kept.txt").await;
    assert!(crate::client::streamed(&frames).contains("Sesame is the word."), "{frames:?}");
    assert!(of_type(&frames, "task:tool_result")[0]["output"].as_str().unwrap().contains("kept"), "{frames:?}");
}
