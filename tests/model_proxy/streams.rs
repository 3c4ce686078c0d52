//! Responses pass piece by piece, and what was told of those that don't come to their end is metered.

use crate::model::{Puppet, STARTED, begin, end, event, hung_up};
use crate::world::{Kind, Shell, World, next, quiet, tokens};

crate::under_both!(
    each_piece_arrives_before_the_next_is_sent,
    what_is_cancelled_is_metered,
    what_an_agent_has_read_is_metered_though_it_does_not_wait_for_the_end,
    what_began_before_a_task_is_not_told_in_it,
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
    let asked = (ASK.len() / 4) as u64;
    assert_eq!(tokens(&channel.try_recv().expect("the model has read it")), format!("claude-x {asked} 0 0 0"));

    // Before the model has got all of it.
    let more = "host: x\\r\\nconnection: close\\r\\ncontent-length: 1000";
    shell.tell(&format!("POST /v1/messages HTTP/1.1\\r\\n{more}\\r\\n\\r\\n{ASK}")).await;
    let mut stream = puppet.asked_in_part().await;
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
    assert_eq!(world.metric(r#"model_requests_total{outcome="cancelled"}"#), 4);
    assert_eq!(world.metric(r#"model_requests_total{outcome="cut_off"}"#), 1);
}

async fn what_an_agent_has_read_is_metered_though_it_does_not_wait_for_the_end(kind: Kind) {
    let question = "Please tell me all that you know of the number that is next.";
    let turns = format!(r#"[{{"role":"user","content":"{question}"}}]"#);
    let messages = format!(r#"{{"model":"m","stream":true,"messages":{turns}}}"#);
    let input = format!(r#"{{"model":"m","stream":true,"input":{turns}}}"#);
    let contents = format!(r#"{{"contents":[{{"parts":[{{"text":"{question}"}}]}}]}}"#);
    let thought = "A thought of 24 letters.";
    let words = "Words that are <100> letters in all, as can be seen by whoever counts them one by one to the end. ..";
    assert_eq!((thought.len(), words.len()), (24, 100));
    let counted = |text: &str| (text.len() / 4) as u64;
    for (api, path, body, events, expected) in [
        (
            "anthropic",
            "/v1/messages",
            &messages,
            vec![
                STARTED.to_owned(),
                format!(
                    r#"{{"type":"content_block_delta","delta":{{"type":"thinking_delta","thinking":"{thought}"}}}}"#
                ),
                r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"c2lnbmF0dXJl"}}"#
                    .to_owned(),
                format!(r#"{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{words}"}}}}"#),
            ],
            // One was told at the beginning.
            "claude-x 50 32 7 0".to_owned(),
        ),
        (
            "openai",
            "/v1/chat/completions",
            &messages,
            vec![
                format!(
                    r#"{{"model":"m-1","choices":[{{"delta":{{"reasoning_content":"{thought}"}}}}],"obfuscation":"x1y2"}}"#
                ),
                format!(r#"{{"model":"m-1","choices":[{{"delta":{{"content":"{words}"}}}}],"usage":null}}"#),
            ],
            format!("m-1 {} 31 0 0", counted(&messages)),
        ),
        (
            "openai",
            "/v1/responses",
            &input,
            vec![
                r#"{"type":"response.created","response":{"model":"m-1","usage":null}}"#.to_owned(),
                format!(r#"{{"type":"response.reasoning_summary_text.delta","delta":"{thought}"}}"#),
                format!(r#"{{"type":"response.output_text.delta","delta":"{words}"}}"#),
                format!(r#"{{"type":"response.output_text.done","text":"{words}"}}"#),
            ],
            format!("m-1 {} 31 0 0", counted(&input)),
        ),
        (
            "gemini",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
            &contents,
            vec![
                format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{thought}"}}]}}}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":5}}}}"#
                ),
                format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{words}"}}]}}}}]}}"#),
            ],
            // Five were told.
            "g 9 30 0 0".to_owned(),
        ),
    ] {
        let puppet = Puppet::start().await;
        let world = World::new(kind, api, &puppet.url).await;
        let (mut shell, mut channel) = world.start().await;
        shell.send(&format!("POST {path}"), body).await;
        let (_, mut stream) = puppet.asked().await;
        begin(&mut stream).await;
        for data in &events {
            event(&mut stream, data).await;
        }
        shell.until(events.last().unwrap()).await;
        shell.tell("cancel").await;
        let metered = next(&mut channel).await;
        assert_eq!(tokens(&metered), expected, "{path}");
        assert!(metered.cost_usd.unwrap() > 0.0);
        hung_up(&mut stream).await;
        quiet(&channel).await;
        assert_eq!(channel.try_recv(), None, "once");
    }
}

async fn what_began_before_a_task_is_not_told_in_it(kind: Kind) {
    let puppet = Puppet::start().await;
    let world = World::new(kind, "anthropic", &puppet.url).await;
    let (mut shell, mut channel) = world.start().await;
    let mut late = started(&puppet, &mut shell).await;
    channel.start_over();
    quiet(&channel).await;
    let mut own = started(&puppet, &mut shell).await;
    for (stream, output) in [(&mut late, 30), (&mut own, 40)] {
        event(stream, &format!(r#"{{"type":"message_delta","usage":{{"output_tokens":{output}}}}}"#)).await;
        event(stream, r#"{"type":"message_stop"}"#).await;
        end(stream).await;
        shell.until("<end>").await;
    }
    assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 40 7 0");
    quiet(&channel).await;
    assert_eq!(channel.try_recv(), None);
    assert_eq!(world.metric(r#"model_tokens_total{profile="test",kind="output"}"#), 70, "all is counted");
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
