//! Limits are kept from outside, whatever the agent.

use serde_json::{Value, json};

use crate::client::{of_type, streamed};
use crate::frames::{check_history, only, replay, text};
use crate::world::{Agent, CLAUDE, Session, World};

crate::with_each_agent!(
    a_budget_that_is_used_up_ends_the_task,
    a_task_whose_user_is_asked_for_more_can_be_cancelled;
    // It forgets what it was stopped in.
    but_gemini: a_task_that_has_cost_its_budget_goes_on_when_the_user_is_asked_and_says_so
);

/// Each call of the model that uses a thousand tokens costs a dollar.
fn price(profile: &mut toml::Table) {
    let price = toml::Table::from_iter([("input".to_owned(), 1_000.0.into()), ("output".to_owned(), 0.0.into())]);
    let prices = toml::Table::from_iter([("*".to_owned(), toml::Value::Table(price))]);
    profile.insert("prices".to_owned(), toml::Value::Table(prices));
}

async fn a_budget_that_is_used_up_ends_the_task(agent: Agent) {
    let world = World::with(agent, price, &[]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
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

/// A world whose tasks may cost 2.50 dollars before the user is asked.
async fn asking(agent: Agent) -> World {
    let change = |profile: &mut toml::Table| {
        price(profile);
        profile.insert("max_budget_usd".to_owned(), 2.5.into());
        profile.insert("on_budget".to_owned(), "ask".into());
    };
    World::with(agent, change, &[]).await
}

fn asks(frame: &Value) -> bool {
    frame["type"] == "task:ask_user"
}

async fn a_task_that_has_cost_its_budget_goes_on_when_the_user_is_asked_and_says_so(agent: Agent) {
    let mut world = asking(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, asked) = session.begin(&mut client, "USAGE: 1000 10\nLOOP: 50 echo on", asks).await;
    let question = text(&asked.last().unwrap()["questions"][0], "question");
    assert!(question.contains("was to cost 2.5 USD") && question.ends_with("May it go on?"), "{question}");
    let calls = world.mock.requests().await.len();
    assert!((3..6).contains(&calls), "{calls}");

    // Whoever comes after a crash knows what the question is about.
    world.kill_gateway().await;
    world.start_gateway().await;
    let mut client = world.client().await;
    replay(&mut client, &session.id).await;
    client.send(json!({"type": "task.answer", "task_id": task, "answer": "Go on"})).await;
    let more = client.until(asks).await;
    assert!(!of_type(&more, "task:tool_use").is_empty(), "{more:?}");
    let question = text(&more.last().unwrap()["questions"][0], "question");
    // As much again, from what it had cost by then.
    assert!(!question.contains("was to cost 2.5 USD") && question.ends_with("May it go on?"), "{question}");

    client.send(json!({"type": "task.answer", "task_id": task, "answer": "Stop"})).await;
    let end = client.until_task_end().await.pop().unwrap();
    assert_eq!(end["type"], "task:failed", "{end}");
    assert!(text(&end, "error").starts_with("budget: "), "{end}");
    // A call that was stopped on its way counts by the length of its request: how much that is depends on the agent.
    assert!(end["cost_usd"].as_f64().unwrap() >= 5.0, "{end}");
    // The agent is there for another turn.
    session.turn(&mut client, "TEXT: and on").await;
    check_history(&replay(&mut client, &session.id).await);
}

async fn a_task_whose_user_is_asked_for_more_can_be_cancelled(agent: Agent) {
    let world = asking(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, _) = session.begin(&mut client, "USAGE: 1000 10\nLOOP: 50 echo on", asks).await;
    client.send(json!({"type": "task.cancel", "task_id": task})).await;
    let end = client.until_task_end().await.pop().unwrap();
    assert_eq!(end["status"], "cancelled", "{end}");
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
