//! Boxes outlive the gateway; so does their way to the model.

use futures_util::FutureExt as _;

use crate::mock_llm::Mock;
use crate::model::{Puppet, STARTED, begin, end, event};
use crate::world::{DEADLINE, Kind, World, next, tokens};

crate::under_both!(
    a_box_goes_on_with_the_next_gateway,
    who_leaves_answers_what_is_under_way_and_the_next_one_what_comes_then
);

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

async fn who_leaves_answers_what_is_under_way_and_the_next_one_what_comes_then(kind: Kind) {
    let puppet = Puppet::start().await;
    let mut world = World::new(kind, "anthropic", &puppet.url).await;
    let (mut shell, mut channel) = world.start().await;
    shell.send("POST /v1/messages", r#"{"model":"claude-x","stream":true}"#).await;
    let (_, mut stream) = puppet.asked().await;
    begin(&mut stream).await;
    event(&mut stream, STARTED).await;
    shell.until("message_start").await;

    let answered = channel.leave();
    tokio::pin!(answered);
    world.has_closed(&shell).await;
    shell.send("POST /v1/messages", r#"{"model":"claude-y","stream":true}"#).await;
    for number in 0..20 {
        event(&mut stream, &format!(r#"{{"type":"content_block_delta","n":"<{number}>"}}"#)).await;
        shell.until(&format!("<{number}>")).await;
        assert_eq!(answered.as_mut().now_or_never(), None, "it goes on");
    }
    event(&mut stream, r#"{"type":"message_delta","usage":{"output_tokens":30}}"#).await;
    end(&mut stream).await;
    shell.until("<end>").await;
    tokio::time::timeout(DEADLINE, answered).await.expect("all is answered");
    assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 30 7 0");
    drop(channel);

    world.restart_proxy();
    let _channel = world.open(&shell);
    let (asked, mut stream) = puppet.asked().await;
    assert!(asked.contains("claude-y"), "{asked}");
    begin(&mut stream).await;
    end(&mut stream).await;
    assert!(shell.until("<end>").await.starts_with("HTTP/1.1 200"));
}
