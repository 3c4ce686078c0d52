//! Boxes outlive the gateway; so does their way to the model.

use crate::mock_llm::Mock;
use crate::world::{Kind, World, next, tokens};

crate::under_both!(a_box_goes_on_with_the_next_gateway);

const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"TEXT: fine"}]}"#;

async fn a_box_goes_on_with_the_next_gateway(kind: Kind) {
    let mock = Mock::start();
    let mut world = World::new(kind, "anthropic", &mock.url).await;
    // An agent that asks before anybody has opened its way waits for it.
    let mut shell = world.start_alone().await;
    shell.send("POST /v1/messages", ASK).await;
    let channel = world.open(&shell);
    assert!(shell.until("<end>").await.starts_with("HTTP/1.1 200"));

    world.close(&shell, channel).await;
    shell.send("POST /v1/messages", ASK).await;
    world.restart_proxy();
    let mut channel = world.open(&shell);
    assert!(shell.until("<end>").await.starts_with("HTTP/1.1 200"));
    assert_eq!(tokens(&next(&mut channel).await), "m 1000 1 0 0");

    // One that takes its place while it is there: the seat of the same box, anew.
    let mut later = world.open(&shell);
    assert!(shell.ask("POST /v1/messages", ASK).await.starts_with("HTTP/1.1 200"));
    assert_eq!(tokens(&next(&mut later).await), "m 1000 1 0 0");
    assert_eq!(channel.try_recv(), None);
    drop(channel);
    assert!(shell.ask("POST /v1/messages", ASK).await.starts_with("HTTP/1.1 200"));
}
