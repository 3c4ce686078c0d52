//! Responses pass piece by piece, and what was told of those that don't come to their end is metered.

use crate::model::{Puppet, STARTED, begin, end, event, hung_up};
use crate::world::{Kind, Shell, World, next, quiet, tokens};

crate::under_both!(
    each_piece_arrives_before_the_next_is_sent,
    what_is_cancelled_is_metered,
    many_at_a_time_but_not_too_many
);

const ASK: &str = r#"{"model":"claude-x","stream":true}"#;

async fn each_piece_arrives_before_the_next_is_sent(kind: Kind) {
    let puppet = Puppet::start().await;
    let world = World::new(kind, "anthropic", &puppet.url).await;
    let (mut shell, mut channel) = world.start().await;
    shell.send("POST /v1/messages", ASK).await;
    let (_, mut stream) = puppet.asked().await;
    begin(&mut stream).await;
    event(&mut stream, STARTED).await;
    shell.until("message_start").await;
    for number in 0..20 {
        event(&mut stream, &format!(r#"{{"type":"content_block_delta","n":"<{number}>"}}"#)).await;
        shell.until(&format!("<{number}>")).await;
    }
    assert_eq!(channel.try_recv(), None, "it goes on");
    event(&mut stream, r#"{"type":"message_delta","usage":{"output_tokens":30}}"#).await;
    event(&mut stream, r#"{"type":"message_stop"}"#).await;
    shell.until("message_stop").await;
    let metered = channel.try_recv().expect("known before the agent sees the end");
    assert_eq!(tokens(&metered), "claude-x 50 30 7 0");
    end(&mut stream).await;
    shell.until("<end>").await;
    quiet(&channel).await;
    assert_eq!(channel.try_recv(), None, "once");
    assert_eq!(world.metric(r#"model_requests_total{outcome="completed"}"#), 1);
}

/// Has a stream under way of which the beginning is known.
async fn started(puppet: &Puppet, shell: &mut Shell) -> tokio::net::TcpStream {
    shell.send("POST /v1/messages", ASK).await;
    let (_, mut stream) = puppet.asked().await;
    begin(&mut stream).await;
    event(&mut stream, STARTED).await;
    shell.until("message_start").await;
    stream
}

async fn what_is_cancelled_is_metered(kind: Kind) {
    let puppet = Puppet::start().await;
    let world = World::new(kind, "anthropic", &puppet.url).await;
    let (mut shell, mut channel) = world.start().await;

    // The agent hangs up.
    let mut stream = started(&puppet, &mut shell).await;
    shell.tell("cancel").await;
    assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 1 7 0");
    hung_up(&mut stream).await;

    // The model hangs up.
    let stream = started(&puppet, &mut shell).await;
    drop(stream);
    assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 1 7 0");

    // Before the model has said anything.
    shell.send("POST /v1/messages", ASK).await;
    let (_, mut stream) = puppet.asked().await;
    shell.tell("cancel").await;
    hung_up(&mut stream).await;
    quiet(&channel).await;
    assert_eq!(channel.try_recv(), None);

    // The agent is killed.
    let mut stream = started(&puppet, &mut shell).await;
    shell.agent.process.kill().await.unwrap();
    hung_up(&mut stream).await;
    quiet(&channel).await;
    assert_eq!(tokens(&channel.try_recv().expect("it is known when it is quiet")), "claude-x 50 1 7 0");
    assert_eq!(world.metric(r#"model_requests_total{outcome="cancelled"}"#), 3);
    assert_eq!(world.metric(r#"model_requests_total{outcome="cut_off"}"#), 1);
}

async fn many_at_a_time_but_not_too_many(kind: Kind) {
    let puppet = Puppet::start().await;
    let world = World::new(kind, "anthropic", &puppet.url).await;
    let (mut shell, mut channel) = world.start().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        shell.send("POST /v1/messages", ASK).await;
        streams.push(puppet.asked().await.1);
    }
    let answer = shell.ask("POST /v1/messages", ASK).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    for stream in &mut streams {
        begin(stream).await;
        event(stream, STARTED).await;
        end(stream).await;
    }
    for _ in 0..16 {
        assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 1 7 0");
    }
    quiet(&channel).await;
}
