//! A model that refuses: the task fails in the model's words, and the conversation goes on.

use crate::frames::{check_history, only, replay, text};
use crate::world::{Agent, Session, World};

crate::with_each_agent!(a_model_that_refuses_fails_the_task_in_its_words_and_the_next_turn_is_answered);

async fn a_model_that_refuses_fails_the_task_in_its_words_and_the_next_turn_is_answered(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let frames = client.turn(&session.id, "ERROR: 400").await;
    let failed = frames.last().unwrap();
    assert_eq!(failed["type"], "task:failed", "{failed}");
    assert!(text(failed, "error").contains("Mock failure"), "{failed}");
    let frames = session.turn(&mut client, "TEXT: here again").await;
    assert_eq!(only(&frames, "turn.done")["result_text"], "here again");
    check_history(&replay(&mut client, &session.id).await);
}
