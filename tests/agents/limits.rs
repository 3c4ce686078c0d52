//! Limits are kept from outside, whatever the agent.

use serde_json::json;

use crate::client::{of_type, streamed};
use crate::frames::{check_history, only, replay, text};
use crate::world::{Agent, CLAUDE, Session, World};

crate::with_each_agent!(a_budget_that_is_used_up_ends_the_task);

async fn a_budget_that_is_used_up_ends_the_task(agent: Agent) {
    let priced = |profile: &mut toml::Table| {
        let price = toml::Table::from_iter([("input".to_owned(), 1_000.0.into()), ("output".to_owned(), 0.0.into())]);
        let prices = toml::Table::from_iter([("*".to_owned(), toml::Value::Table(price))]);
        profile.insert("prices".to_owned(), toml::Value::Table(prices));
    };
    let world = World::with(agent, priced, &[]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    // Each call costs a dollar.
    let prompt = "USAGE: 1000 10\nLOOP: 50 echo on";
    let turn = json!({"type": "session.turn", "session_id": session.id, "prompt": prompt, "max_budget_usd": 4.5});
    client.send(turn).await;
    let frames = client.until_task_end().await;
    let failed = frames.last().unwrap();
    assert_eq!(failed["type"], "task:failed", "{failed}");
    assert!(text(failed, "error").contains("budget"), "{failed}");
    let cost = failed["cost_usd"].as_f64().unwrap();
    assert!((4.5..8.0).contains(&cost), "{failed}");
    check_history(&replay(&mut client, &session.id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_claude_code_that_reaches_its_limit_is_continued_and_told_as_one() {
    let world = World::new(CLAUDE).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let prompt = "USAGE: 100 10\nLOOP: 4 echo on\nTEXT: and the end";
    let turn = json!({"type": "session.turn", "session_id": session.id, "prompt": prompt, "max_turns": 2});
    client.send(turn).await;
    let frames = client.until_task_end().await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    assert_eq!(of_type(&frames, "turn.continuing").len(), 2, "{frames:?}");
    assert_eq!(of_type(&frames, "task:tool_result").len(), 4, "{frames:?}");
    assert!(streamed(&frames).ends_with("and the end"), "{frames:?}");
    // All five calls of the model, and what they cost by the profile's price.
    let done = only(&frames, "turn.done");
    assert_eq!((&done["input_tokens"], &done["output_tokens"]), (&json!(500), &json!(50)), "{done}");
    check_history(&replay(&mut client, &session.id).await);
}
