//! Tools are shown as they are called, and what came of each.

use serde_json::json;

use crate::client::{of_type, streamed};
use crate::frames::{check_history, replay};
use crate::world::{Agent, Session, World, outputs};

crate::with_each_agent!(a_tool_works_in_the_workspace, parallel_tools_each_have_their_result);

async fn a_tool_works_in_the_workspace(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let prompt = "TEXT: let me look\n+SH: (printf made-; expr 40 + 2) | tee made.txt; id -u\nECHO:";
    let frames = session.turn(&mut client, prompt).await;
    let call = &of_type(&frames, "task:tool_use")[0];
    assert!(call["input"].to_string().contains("tee made.txt"), "{call}");
    let result = &of_type(&frames, "task:tool_result")[0];
    assert_eq!(result["is_error"], json!(false), "{result}");
    let output = &outputs(&frames)[0];
    assert!(output.contains("made-42") && output.contains("10001"), "{output}");
    // The model had it too, and the file is there.
    let said = streamed(&frames);
    assert!(said.starts_with("let me look") && said.contains("made-42"), "{said}");
    assert_eq!(std::fs::read_to_string(world.file(&session, "made.txt")).unwrap(), "made-42\n");
    check_history(&replay(&mut client, &session.id).await);
}

async fn parallel_tools_each_have_their_result(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    let prompt =
        "SH: printf one-; expr 1 + 10\n+SH: printf two-; expr 2 + 10\n+SH: printf three-; expr 3 + 10\nTEXT: all three";
    let frames = session.turn(&mut client, prompt).await;
    // Agents may tell of them in another order than the model.
    let (calls, outputs) = (of_type(&frames, "task:tool_use"), outputs(&frames));
    assert_eq!((calls.len(), outputs.len()), (3, 3), "{outputs:?}");
    for (command, expected) in [("printf one-", "one-11"), ("printf two-", "two-12"), ("printf three-", "three-13")] {
        let at = calls.iter().position(|call| call["input"].to_string().contains(command)).unwrap();
        assert!(outputs[at].contains(expected), "{outputs:?}");
    }
    let kinds: Vec<_> = frames.iter().filter_map(|frame| frame["type"].as_str()).collect();
    let first_result = kinds.iter().position(|kind| *kind == "task:tool_result").unwrap();
    assert!(kinds[..first_result].contains(&"task:tool_use"), "{kinds:?}");
    assert!(streamed(&frames).ends_with("all three"), "{frames:?}");
    check_history(&replay(&mut client, &session.id).await);
}
