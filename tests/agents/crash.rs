//! A gateway that is killed or stopped in the middle of a turn: the next one goes on with it.

use serde_json::{Value, json};

use crate::client::{Client, streamed};
use crate::frames::{check_history, only, replay_texts, replay_texts_of, seqs};
use crate::world::{Agent, Session, World, eventually, outputs};

crate::with_each_agent!(
    a_tool_runs_on_while_no_gateway_lives_and_its_turn_is_heard_to_its_end,
    text_that_was_cut_with_the_gateway_is_told_to_its_end_or_fails_the_task_as_its_agent_would_have_it,
    a_gateway_that_is_stopped_lets_the_model_finish_its_answer_and_the_next_one_hears_the_rest_of_the_turn,
);

/// Follows a session from its beginning to the end of its only task. What `seen` holds must come again, byte for byte.
async fn resumed(client: &mut Client, session: &Session, seen: &[Value]) -> Vec<Value> {
    let replayed = replay_texts(client, &session.id).await;
    let mut frames: Vec<Value> = replayed.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    for event in seen.iter().filter(|frame| frame["seq"].is_u64()) {
        assert!(frames.contains(event), "seen before the kill: {event}");
    }
    let is_end = |frame: &Value| frame["type"] == "task:done" || frame["type"] == "task:failed";
    if !frames.iter().any(is_end) {
        frames.extend(client.until_task_end().await.into_iter().filter(|frame| frame["seq"].is_u64()));
    }
    let whole = replay_texts_of(client, json!({"type": "session.resume", "session_id": session.id})).await;
    let whole: Vec<Value> = whole.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(seqs(&frames), seqs(&whole));
    check_history(&whole);
    whole
}

async fn a_tool_runs_on_while_no_gateway_lives_and_its_turn_is_heard_to_its_end(agent: Agent) {
    let mut world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let tool = "SH: touch began; until [ -e go ]; do sleep 0.05; done; (printf went-; expr 40 + 2) | tee went";
    let prompt = format!("TEXT: at it\n+{tool}\nTEXT: and the end");
    let (_, seen) = session.begin(&mut client, &prompt, |frame| frame["type"] == "task:tool_use").await;
    eventually("the tool works", async || world.file(&session, "began").exists()).await;
    world.kill_gateway().await;
    std::fs::write(world.file(&session, "go"), "").unwrap();
    eventually("the tool goes on", async || world.file(&session, "went").exists()).await;
    world.start_gateway().await;
    let mut client = world.client().await;
    let frames = resumed(&mut client, &session, &seen).await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    assert!(outputs(&frames)[0].contains("went-42"), "{frames:?}");
    assert!(streamed(&frames).ends_with("and the end"), "{frames:?}");
    used_both_calls(&frames);
    assert!(session.remembered(&mut client).await.contains("TEXT: at it"));
}

async fn text_that_was_cut_with_the_gateway_is_told_to_its_end_or_fails_the_task_as_its_agent_would_have_it(
    agent: Agent,
) {
    let mut world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let file = world.hold();
    let prompt = format!("HOLD: {} | in the beginning there | was more to come", file.display());
    let (_, seen) = session.begin(&mut client, &prompt, |frame| frame["type"] == "task:token").await;
    world.kill_gateway().await;
    std::fs::write(file, "").unwrap();
    world.start_gateway().await;
    let mut client = world.client().await;
    let frames = resumed(&mut client, &session, &seen).await;
    if agent.asks_again {
        assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
        // The agent has its model say it again: what was told stays told, and the rest of it or all comes behind that.
        let said = streamed(&frames);
        assert!(said.starts_with("in ") && said.ends_with("in the beginning there was more to come"), "{said}");
        assert!(session.remembered(&mut client).await.contains("in the beginning"));
    } else {
        assert_eq!(frames.last().unwrap()["type"], "task:failed", "{:?}", frames.last());
        let frames = session.turn(&mut client, "TEXT: here again").await;
        assert_eq!(only(&frames, "turn.done")["result_text"], "here again");
    }
}

async fn a_gateway_that_is_stopped_lets_the_model_finish_its_answer_and_the_next_one_hears_the_rest_of_the_turn(
    agent: Agent,
) {
    let mut world = World::with(agent, |_| (), &[("STREAMGATE_DRAIN_SECONDS", "60")]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let file = world.hold();
    let prompt =
        format!("HOLD: {} | in the beginning there | was more\n+SH: expr 40 + 2\nTEXT: and the end", file.display());
    let (_, seen) = session.begin(&mut client, &prompt, |frame| frame["type"] == "task:token").await;
    world.gateway().terminate();
    client.closed().await;
    // Clients have gone; the model is still speaking.
    std::fs::write(file, "").unwrap();
    world.gateway_stopped().await;
    world.start_gateway().await;
    let mut client = world.client().await;
    let frames = resumed(&mut client, &session, &seen).await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    let said = streamed(&frames);
    assert_eq!(said.matches("in the beginning there was more").count(), 1, "{said}");
    assert_eq!(said.matches("beginning").count(), 1, "{said}");
    assert!(said.ends_with("and the end"), "{said}");
    assert!(outputs(&frames)[0].contains("42"), "{frames:?}");
    used_both_calls(&frames);
}

/// A turn's usage is a thousand tokens for each of its calls, that of the first gateway's too.
fn used_both_calls(frames: &[Value]) {
    let input = only(frames, "turn.done")["input_tokens"].as_u64();
    assert!(input.is_some_and(|tokens| tokens >= 2_000), "{input:?}");
}
