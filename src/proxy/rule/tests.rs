use super::*;

fn ask(path: &str, text: &str) -> Result<String, Fault> {
    let mut results = (0..=text.len()).map(|cut| {
        let mut rule = Rule::of(ModelApiKind::Openai, path).unwrap();
        let length = text.len() as u64 + rule.owes();
        let mut sent = rule.pass(&text.as_bytes()[..cut])?.to_vec();
        sent.extend(rule.pass(&text.as_bytes()[cut..])?);
        sent.extend(rule.end()?);
        assert_eq!(sent.len() as u64, length);
        Ok(String::from_utf8(sent).unwrap())
    });
    let first = results.next().unwrap();
    assert!(results.all(|other| other == first), "it matters where it is cut: {text}");
    first
}

fn chat(text: &str) -> Result<String, Fault> {
    ask("/v1/chat/completions", text)
}

#[test]
fn a_stream_is_asked_to_tell_its_usage() {
    let spaces = " ".repeat(ASK.len());
    assert_eq!(
        chat("{\"model\":\"m\",\"tools\":[{\"a\":{}}],\"stream\":true}\n").unwrap(),
        "{\"model\":\"m\",\"tools\":[{\"a\":{}}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}\n"
    );
    assert_eq!(chat(r#"{"stream":false}"#).unwrap(), format!(r#"{{"stream":false{spaces}}}"#));
    assert_eq!(chat(r#"{"stream":null}"#).unwrap(), format!(r#"{{"stream":null{spaces}}}"#));
    let asks = r#"{"stream":true,"stream_options":{"include_usage":true}"#;
    assert_eq!(chat(&format!("{asks}}}")).unwrap(), format!("{asks}{spaces}}}"));
    for hides in [
        r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":{}}"#,
        r#"{"stream":true,"stream_options":null}"#,
        r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
        r#"{"stream":true,"stream_options":{},"stream_options.include_usage":true}"#,
        r#"{"stream":true,"stream_options":[{"include_usage":true}]}"#,
    ] {
        assert_eq!(chat(hides), Err(Fault::Untold), "{hides}");
    }
}

#[test]
fn nothing_is_done_in_the_background() {
    let fine = r#"{"model":"m","input":[{"background":true}],"background":false,"stream":true}"#;
    assert_eq!(ask("/v1/responses", fine).unwrap(), fine);
    assert_eq!(ask("/v1/responses", r#"{"background":true}"#), Err(Fault::Background));
}

#[test]
fn nothing_is_too_deep_to_be_seen_behind() {
    let deep = format!(r#"{{"a":{}{}"#, "[".repeat(200), "]".repeat(200));
    let asked = chat(&format!(r#"{deep},"stream":true}}"#)).unwrap();
    assert!(asked.ends_with(r#""stream":true,"stream_options":{"include_usage":true}}"#), "{asked}");
    assert_eq!(ask("/v1/responses", &format!(r#"{deep},"background":true}}"#)), Err(Fault::Background));
}

#[test]
fn what_two_readers_may_read_differently_is_not_let_through() {
    let zeros = "0".repeat(300);
    let wide = |text: &str, first: usize| {
        let bytes = text.bytes().flat_map(|byte| if first == 0 { [0, byte] } else { [byte, 0] });
        String::from_utf8(bytes.collect()).unwrap()
    };
    for text in [
        // A key that stands twice.
        r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
        r#"{"stream":true,"stream":false}"#,
        r#"{"stream":false,"stream":true}"#,
        // A key that is spelled otherwise.
        r#"{"str\u0065am":true}"#,
        r#"{"stream":true,"stream_opt\u0069ons":{}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"include_us\u0061ge":false}}"#,
        r#"{"Stream":true}"#,
        "{\"\u{17f}tream\":true}",
        r#"{"stream":true,"STREAM_OPTIONS":null}"#,
        // What is true for some.
        r#"{"stream":"true"}"#,
        r#"{"stream":1}"#,
        &format!(r#"{{"stream":1.{zeros}}}"#),
        r#"{"stream":[1]}"#,
        r#"{"stream":{}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":"true"}}"#,
        // What is no object, or more than one.
        "no json",
        "",
        " ",
        "\u{feff}{\"stream\":true}",
        r#"[{"stream":true}]"#,
        r#"{"stream":true"#,
        r#"{"stream":true]"#,
        r#"{"stream":true}}"#,
        r#"{"stream":true}{}"#,
        r#"{"stream":true} "}""#,
        r#"{"stream":true} x"#,
        r#"{}{"stream":true}"#,
        &wide(r#"{"stream":true}"#, 0),
        &wide(r#"{"stream":true}"#, 1),
    ] {
        assert_eq!(chat(text), Err(Fault::Unreadable), "{text}");
    }
    for text in [
        r#"{"background":true,"background":false}"#,
        r#"{"b\u0061ckground":true}"#,
        "{\"bac\u{212a}ground\":true}",
        r#"{"background":1}"#,
        r#"{"a":1"#,
        "",
    ] {
        assert_eq!(ask("/v1/responses", text), Err(Fault::Unreadable), "{text}");
    }
    let fine = r#"{"metadata":{"a\"b":"c"},"tools":[{"Stream":1,"stream":2}],"user":"\u0065"}"#;
    assert!(chat(fine).is_ok());
}

#[test]
fn no_spelling_of_a_path_goes_without_its_rule() {
    for path in ["/v1/chat/completions/", "/v1/Chat/Completions", "/v1/completions", "/openai/v1/RESPONSES//"] {
        assert!(Rule::of(ModelApiKind::Openai, path).is_some_and(|rule| rule.api != Api::Other), "{path}");
    }
}

#[test]
fn what_is_not_ruled_passes_as_it_is_and_says_its_model() {
    let mut rule = Rule::of(ModelApiKind::Anthropic, "/v1/messages").unwrap();
    assert_eq!(rule.pass(br#"{"model":"m","x":{"#).unwrap(), r#"{"model":"m","x":{"#);
    assert_eq!((rule.end().unwrap(), rule.model().as_deref()), (Bytes::new(), Some("m")));
    let mut rule = Rule::of(ModelApiKind::Gemini, "/v1beta/models/g:generateContent").unwrap();
    rule.pass(br#"{"model":"m"}"#).unwrap();
    assert_eq!(rule.model().as_deref(), Some("g"));
    for (kind, path) in [
        (ModelApiKind::Anthropic, "/v1/messages/count_tokens"),
        (ModelApiKind::Openai, "/v1/models"),
        (ModelApiKind::Gemini, "/v1beta/models/g:countTokens"),
    ] {
        assert!(Rule::of(kind, path).is_none(), "{path}");
    }
}
