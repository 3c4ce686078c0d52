//! What is used is metered, whatever the API, and before the agent sees the end.

use crate::mock_llm::Mock;
use crate::world::{Kind, World, next, tokens};

crate::under_both!(every_api_is_metered, no_call_that_is_paid_for_begins_between_two_tasks);

async fn every_api_is_metered(kind: Kind) {
    let mock = Mock::start();
    let say = r"USAGE: 70 9\nTEXT: one two";
    let messages = format!(r#""messages":[{{"role":"user","content":"{say}"}}]"#);
    let contents = format!(r#""contents":[{{"role":"user","parts":[{{"text":"{say}"}}]}}]"#);
    for (api, cases) in [
        (
            "anthropic",
            vec![
                ("/v1/messages", format!(r#"{{"model":"m",{messages}}}"#), "m"),
                ("/v1/messages", format!(r#"{{"model":"m","stream":true,{messages}}}"#), "m"),
            ],
        ),
        (
            "openai",
            vec![
                ("/v1/chat/completions", format!(r#"{{"model":"m",{messages}}}"#), "m"),
                ("/v1/chat/completions", format!(r#"{{"model":"m","stream":true,{messages}}}"#), "m"),
                ("/v1/responses", format!(r#"{{"model":"m","input":"{say}"}}"#), "m"),
                ("/v1/responses", format!(r#"{{"model":"m","stream":true,"input":"{say}"}}"#), "m"),
            ],
        ),
        (
            "gemini",
            vec![
                ("/v1beta/models/g:generateContent", format!("{{{contents}}}"), "mock-model"),
                ("/v1beta/models/g:streamGenerateContent?alt=sse", format!("{{{contents}}}"), "mock-model"),
            ],
        ),
    ] {
        let world = World::new(kind, api, &mock.url).await;
        let (mut shell, mut channel) = world.start().await;
        for (path, body, model) in &cases {
            let answer = shell.ask(&format!("POST {path}"), body).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path} {body}: {answer}");
            let metered = channel.try_recv().unwrap_or_else(|| panic!("{path} was not metered by its end: {answer}"));
            assert_eq!(tokens(&metered), format!("{model} 70 9 0 0"), "{path} {body}");
            let cost = metered.cost_usd.unwrap();
            assert!((cost - (70.0 + 90.0) / 1e6).abs() < 1e-12, "{cost}");
            assert_eq!(channel.try_recv(), None);
        }
        let calls = cases.len() as u64;
        assert_eq!(world.metric(r#"model_tokens_total{profile="test",kind="input"}"#), 70 * calls);
        assert_eq!(world.metric(r#"model_tokens_total{profile="test",kind="output"}"#), 9 * calls);
        assert_eq!(world.metric(r#"model_requests_total{outcome="completed"}"#), calls);
    }
    let asked = mock.requests().await;
    let streams =
        asked.iter().find(|request| request["path"] == "/v1/chat/completions" && request["body"]["stream"] == true);
    assert_eq!(streams.unwrap()["body"]["stream_options"]["include_usage"], true);

    // An answer that the mock breaks off after its first words.
    let world = World::new(kind, "anthropic", &mock.url).await;
    let (mut shell, mut channel) = world.start().await;
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"DROP: one two"}]}"#;
    let answer = shell.ask("POST /v1/messages", body).await;
    assert!(!answer.contains("message_stop"), "{answer}");
    // One was told at the beginning, and seven letters came.
    assert_eq!(tokens(&next(&mut channel).await), "m 1000 3 0 0");
    assert_eq!(world.metric(r#"model_requests_total{outcome="cut_off"}"#), 1);
}

async fn no_call_that_is_paid_for_begins_between_two_tasks(kind: Kind) {
    let mock = Mock::start();
    let world = World::new(kind, "anthropic", &mock.url).await;
    let (mut shell, channel) = world.start().await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"TEXT: one"}]}"#;
    channel.rest();
    let answer = shell.ask("POST /v1/messages", body).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("no task is at work"), "{answer}");
    let answer = shell.ask("GET /v1/models", "").await;
    assert!(!answer.starts_with("HTTP/1.1 403"), "what costs nothing may be asked: {answer}");
    channel.work();
    let answer = shell.ask("POST /v1/messages", body).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let asked = mock.requests().await;
    assert_eq!(asked.iter().filter(|request| request["path"] == "/v1/messages").count(), 1, "{asked:?}");
}
