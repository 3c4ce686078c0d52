//! What an agent asks is put to the user, and it hears the answer.

use serde_json::{Value, json};

use crate::client::{Client, streamed};
use crate::frames::{check_history, only, replay, text};
use crate::world::{Agent, CLAUDE, Session, World, outputs};

crate::with_each_agent!(
    a_tool_that_needs_permission_runs_when_the_user_allows_it,
    and_does_not_when_the_user_denies_it
);

fn asks(frame: &Value) -> bool {
    frame["type"] == "task:ask_user"
}

async fn answer(client: &mut Client, task: &str, answer: &str) -> Vec<Value> {
    client.send(json!({"type": "task.answer", "task_id": task, "answer": answer})).await;
    client.until_task_end().await
}

/// A world whose agent has nothing allowed.
async fn world(agent: Agent) -> World {
    World::with(agent, |profile| drop(profile.insert("permissions".to_owned(), "ask".into())), &[]).await
}

/// Not on any list of commands that agents take for harmless.
const TOUCH: &str = "SH: touch asked.txt && printf touched- && expr 40 + 2\nECHO:";

async fn a_tool_that_needs_permission_runs_when_the_user_allows_it(agent: Agent) {
    let world = world(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, asked) = session.begin(&mut client, TOUCH, asks).await;
    let question = &asked.last().unwrap()["questions"][0];
    assert!(question["question"].as_str().unwrap().contains("touch asked.txt"), "{question}");
    assert!(!world.file(&session, "asked.txt").exists());
    let frames = answer(&mut client, &task, "yes").await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    assert!(world.file(&session, "asked.txt").exists());
    assert!(streamed(&frames).contains("touched-42"), "{frames:?}");
    check_history(&replay(&mut client, &session.id).await);
}

async fn and_does_not_when_the_user_denies_it(agent: Agent) {
    let world = world(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, _) = session.begin(&mut client, TOUCH, asks).await;
    let frames = answer(&mut client, &task, "no").await;
    // Claude Code's model goes on; others' turns end there.
    let end = frames.last().unwrap();
    assert_eq!(end["type"], "task:done", "{end}");
    assert!(!world.file(&session, "asked.txt").exists());
    assert!(only(&frames, "task:tool_result")["is_error"].as_bool().unwrap(), "{frames:?}");
    assert!(session.remembered(&mut client).await.contains("SH: touch"));
    check_history(&replay(&mut client, &session.id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_claude_code_is_answered_with_an_option() {
    let world = World::new(CLAUDE).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let prompt = "TEXT: One moment.\n+ASK: Which colour? | Red | Blue\nECHO:";
    let (task, asked) = session.begin(&mut client, prompt, asks).await;
    let ask = asked.last().unwrap();
    assert_eq!(ask["questions"][0]["question"], "Which colour?");
    assert_eq!(ask["questions"][0]["options"][1]["label"], "Blue");
    assert_eq!(text(only(&asked, "task:tool_use"), "tool"), "AskUserQuestion");
    let frames = answer(&mut client, &task, "Blue").await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    assert!(text(only(&frames, "task:tool_result"), "output").contains("Blue"), "{frames:?}");
    assert!(streamed(&frames).contains("Blue"), "the model heard it: {frames:?}");
    check_history(&replay(&mut client, &session.id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_claude_code_that_waits_survives_a_gateway_and_is_answered_in_the_users_own_words() {
    let mut world = World::new(CLAUDE).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let (task, _) = session.begin(&mut client, "ASK: Which colour? | Red | Blue\nECHO:", asks).await;
    world.kill_gateway().await;
    world.start_gateway().await;
    let mut client = world.client().await;
    let before = replay(&mut client, &session.id).await;
    let state = client.expect("session.state").await;
    assert_eq!(state["pending_ask"]["questions"][0]["question"], "Which colour?", "{state}");
    let frames = answer(&mut client, &task, "the colour of the sea").await;
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    let all = [before, frames].concat();
    assert!(outputs(&all)[0].contains("the colour of the sea"), "{all:?}");
    assert!(streamed(&all).contains("the colour of the sea"), "{all:?}");
    check_history(&replay(&mut client, &session.id).await);
}
