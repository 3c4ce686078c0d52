use super::*;

/// A profile with prices that make each kind of token visible in the cost.
fn profile() -> ProfileConfig {
    toml::from_str("[prices.'*']\ninput = 1\noutput = 1000\ncache_read = 1000000\ncache_write = 10").unwrap()
}

/// `model input output read written`, as told by `text` however it is cut in two.
#[track_caller]
fn check(kind: ModelApiKind, events: bool, text: &str, expected: &str) {
    let bytes = text.as_bytes();
    for cut in 0..=bytes.len() {
        let mut meter = Meter::new(kind, events, None);
        meter.hear(&bytes[..cut]);
        meter.hear(&bytes[cut..]);
        assert_eq!(shown(&meter), expected, "cut at {cut}");
    }
    let mut meter = Meter::new(kind, events, None);
    for byte in bytes {
        meter.hear(&[*byte]);
    }
    assert_eq!(shown(&meter), expected, "byte by byte");
}

fn shown(meter: &Meter) -> String {
    let Some(told) = meter.told(&profile(), true, None) else { return "nothing".to_owned() };
    let (read, written) = (told.cache_read_tokens, told.cache_write_tokens);
    format!("{} {} {} {read} {written}", told.model, told.input_tokens, told.output_tokens)
}

const ANTHROPIC_EVENTS: &str = r#"event: message_start
data: {"type":"message_start","message":{"model":"claude-sonnet-4-5-20250929","id":"msg_01","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":300,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":300,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard"}}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":999999}} message_stop"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

const ANTHROPIC_JSON: &str = r#"{"id":"msg_01","type":"message","role":"assistant","model":"claude-opus-4-1","content":[{"type":"text","text":"Hi {\"usage\":1}"},{"type":"tool_use","id":"t","name":"n","input":{"usage":{"output_tokens":7}}}],"stop_reason":"end_turn","usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":5,"output_tokens":6}}"#;

const CHAT_EVENTS: &str = r#"data: {"id":"c","object":"chat.completion.chunk","model":"gpt-5-2025-08-07","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","model":"gpt-5-2025-08-07","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":10}}}

data: [DONE]

"#;

const RESPONSES_EVENTS: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_1","object":"response","status":"in_progress","model":"gpt-5","output":[],"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"response.completed"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","model":"gpt-5","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}}

"#;

const GEMINI_EVENTS: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hi\"}],\"role\": \"model\"}}],\"usageMetadata\": {\"promptTokenCount\": 40,\"totalTokenCount\": 40},\"modelVersion\": \"gemini-2.5-pro\"}\r\n\r\ndata: {\"candidates\": [{\"finishReason\": \"STOP\"}],\"usageMetadata\": {\"promptTokenCount\": 40,\"candidatesTokenCount\": 8,\"totalTokenCount\": 150,\"cachedContentTokenCount\": 10,\"thoughtsTokenCount\": 100,\"toolUsePromptTokenCount\": 2,\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 40}]},\"modelVersion\": \"gemini-2.5-pro\"}\r\n\r\n";

#[test]
fn every_api_tells_what_it_used() {
    use ModelApiKind::{Anthropic, Gemini, Openai};
    check(Anthropic, true, ANTHROPIC_EVENTS, "claude-sonnet-4-5-20250929 25 15 2000 300");
    check(Anthropic, false, ANTHROPIC_JSON, "claude-opus-4-1 12 6 5 0");
    check(Openai, true, CHAT_EVENTS, "gpt-5-2025-08-07 36 20 64 0");
    check(Openai, true, RESPONSES_EVENTS, "gpt-5 6 87 30 0");
    let chat = r#"{"object":"chat.completion","model":"m","choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    check(Openai, false, chat, "m 3 4 0 0");
    let responses = r#"{"object":"response","model":"m","usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":4}}"#;
    check(Openai, false, responses, "m 2 4 1 0");
    check(Gemini, true, GEMINI_EVENTS, "gemini-2.5-pro 32 108 10 0");
    let list = r#"[{"usageMetadata":{"promptTokenCount":4},"modelVersion":"g"},
        {"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":9},"modelVersion":"g"}]"#;
    check(Gemini, false, list, "g 4 9 0 0");
}

#[test]
fn what_is_cut_off_tells_what_was_told_so_far() {
    let until = |text: &str, word: &str| text[..text.find(word).unwrap()].to_owned();
    let started = until(ANTHROPIC_EVENTS, "event: message_delta");
    check(ModelApiKind::Anthropic, true, &started, "claude-sonnet-4-5-20250929 25 1 2000 300");
    check(
        ModelApiKind::Openai,
        true,
        &until(
            CHAT_EVENTS,
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5-2025-08-07\",\"choices\":[],",
        ),
        "gpt-5-2025-08-07 0 0 0 0",
    );
    check(ModelApiKind::Gemini, true, &until(GEMINI_EVENTS, "\"candidatesToken"), "gemini-2.5-pro 40 0 0 0");
}

#[test]
fn other_answers_tell_nothing() {
    for text in [
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        r#"{"object":"list","data":[{"id":"m","type":"model"}]}"#,
        r#"{"input_tokens":14}"#,
        "<html>502</html>",
        "",
    ] {
        check(ModelApiKind::Anthropic, false, text, "nothing");
        check(ModelApiKind::Openai, true, text, "nothing");
        check(ModelApiKind::Gemini, false, text, "nothing");
    }
    check(ModelApiKind::Gemini, false, r#"{"totalTokens":5}"#, "nothing");
}

#[test]
fn the_end_is_known_with_the_last_event_and_not_before() {
    let last = |kind, text: &str| {
        let mut meter = Meter::new(kind, true, None);
        text.bytes().position(|byte| meter.hear(&[byte])).map(|at| at + 1)
    };
    for (kind, text) in [
        (ModelApiKind::Anthropic, ANTHROPIC_EVENTS),
        (ModelApiKind::Openai, CHAT_EVENTS),
        (ModelApiKind::Openai, RESPONSES_EVENTS),
    ] {
        assert_eq!(last(kind, text), Some(text.len()));
        assert_eq!(last(kind, &text.replace('\n', "\r\n")), Some(text.replace('\n', "\r\n").len() - 1));
    }
    assert_eq!(last(ModelApiKind::Gemini, GEMINI_EVENTS), None, "its last chunk has no mark");
    let mut meter = Meter::new(ModelApiKind::Anthropic, false, None);
    assert!(!meter.hear(&ANTHROPIC_JSON.as_bytes()[..ANTHROPIC_JSON.len() - 1]) && meter.hear(b"}"));
}

#[test]
fn a_call_costs_what_the_profile_says() {
    let mut meter = Meter::new(ModelApiKind::Anthropic, true, None);
    meter.hear(ANTHROPIC_EVENTS.as_bytes());
    let cost = meter.told(&profile(), true, None).unwrap().cost_usd.unwrap();
    let expected = (25.0 + 15.0 * 1e3 + 2_000.0 * 1e6 + 300.0 * 10.0) / 1e6;
    assert!((cost - expected).abs() < 1e-9, "{cost}");
    assert_eq!(meter.told(&ProfileConfig::default(), true, None).unwrap().cost_usd, None);
}

#[test]
fn what_is_not_told_is_guessed_from_what_was_sent_and_seen() {
    use ModelApiKind::{Anthropic, Openai};
    let asked = Whole { model: Some("asked".to_owned()), tokens: 70 };
    let guess = |kind, events, text: &str, complete| {
        let mut meter = Meter::new(kind, events, None);
        meter.hear(text.as_bytes());
        let told = meter.told(&profile(), complete, Some(&asked)).unwrap();
        assert!(told.cost_usd.unwrap() > 0.0);
        format!("{} {} {}", told.model, told.input_tokens, told.output_tokens)
    };
    // Nothing came.
    assert_eq!(guess(ModelApiKind::None, false, "", false), "asked 70 0");
    // It came to its end, and the model does not tell.
    let untold = r#"{"model":"m","choices":[{"message":{"content":"12345678"}}]}"#;
    assert_eq!(guess(Openai, false, untold, true), "m 70 2");
    // It was told, whatever came besides.
    assert_eq!(guess(Anthropic, true, ANTHROPIC_EVENTS, true), "claude-sonnet-4-5-20250929 25 15");
    assert_eq!(guess(Openai, true, CHAT_EVENTS, true), "gpt-5-2025-08-07 36 20");
    assert_eq!(guess(Openai, true, RESPONSES_EVENTS, true), "gpt-5 6 87");
    // All was told, and the agent hangs up before the very end.
    assert_eq!(guess(Anthropic, true, ANTHROPIC_EVENTS, false), "claude-sonnet-4-5-20250929 25 15");
    assert_eq!(guess(Openai, true, CHAT_EVENTS, false), "gpt-5-2025-08-07 36 20");
    // It breaks off in the middle of a text.
    assert_eq!(guess(Openai, false, &untold[..untold.len() - 6], false), "m 70 2");
}

#[test]
fn no_number_is_too_large() {
    let most = u64::MAX;
    let text = format!(
        r#"{{"modelVersion":"g","usageMetadata":{{"promptTokenCount":{most},"toolUsePromptTokenCount":{most},"candidatesTokenCount":{most},"thoughtsTokenCount":{most}}}}}"#
    );
    check(ModelApiKind::Gemini, false, &text, &format!("g {most} {most} 0 0"));
}
