//! An answer is streamed as the model writes it, and its cost is known.

use serde_json::Value;

use crate::client::{of_type, streamed};
use crate::frames::{check_history, only, replay, text};
use crate::world::{Agent, Session, World};

crate::with_each_agent!(text_streams_word_by_word, a_second_turn_remembers_the_first);

async fn text_streams_word_by_word(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "TEXT: ready").await;
    let words =
        |numbers: std::ops::Range<u32>| numbers.map(|number| format!("word{number}")).collect::<Vec<_>>().join(" ");
    let (held, more, all) = (words(0..10), words(10..20), words(0..20));
    let file = world.hold();
    let prompt = format!("USAGE: 1234 56\nHOLD: {} | {held} | {more}", file.display());
    // The model has not written the rest when the beginning is seen.
    let begun = |frame: &Value| frame["type"] == "task:token";
    let (_, mut frames) = session.begin(&mut client, &prompt, begun).await;
    assert_eq!(text(&frames.pop().unwrap(), "text").trim_end(), "word0");
    std::fs::write(file, "").unwrap();
    let frames = client.until_task_end().await;
    assert_eq!(format!("word0 {}", streamed(&frames).trim_start()), all);
    assert_eq!(only(&frames, "turn.done")["result_text"], all);
    let tokens = of_type(&frames, "task:token");
    assert!(tokens.len() >= 10, "{} pieces", tokens.len());
    // Some agents have the model find a title too.
    let done = only(&frames, "turn.done");
    assert!(done["input_tokens"].as_u64().unwrap() >= 1234 && done["output_tokens"].as_u64().unwrap() >= 56, "{done}");
    check_history(&replay(&mut client, &session.id).await);
}

async fn a_second_turn_remembers_the_first(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "Sesame is the word.\nTEXT: noted").await;
    let remembered = session.remembered(&mut client).await;
    assert!(remembered.contains("Sesame is the word."), "{remembered}");
}
