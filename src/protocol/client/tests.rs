//! What each frame of the document means, and what is said about frames that mean nothing.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::super::conformity;
use super::*;

const LIMITS: TextLimits = TextLimits { prompt_bytes: 1_000 };
const SESSION: &str = "sess_0190a5f2c4d87e3b8f1a2b3c4d5e6f70";
const TASK: &str = "task_0190a5f2c4d87e3b8f1a2b3c4d5e6f71";
const ASK: &str = "ask_0190a5f2c4d87e3b8f1a2b3c4d5e6f72";
const TYPES: [&str; 9] = [
    "task.submit",
    "task.cancel",
    "session.start",
    "session.resume",
    "session.turn",
    "task.answer",
    "session.end",
    "session.unsubscribe",
    "ping",
];

fn session() -> SessionId {
    SessionId::parse(SESSION).unwrap()
}

fn task() -> TaskId {
    TaskId::parse(TASK).unwrap()
}

/// What is read is in the schema, except that `null` is as good as nothing everywhere.
fn parse(text: &str) -> Result<ClientFrame, ErrorFrame> {
    let parsed = ClientMessage::parse(text, LIMITS);
    if parsed.is_ok() {
        let frame: Map<String, Value> = serde_json::from_str(text).unwrap();
        let frame = frame.into_iter().filter(|(_, value)| !value.is_null()).collect();
        assert!(conformity::is_client_frame(&Value::Object(frame)), "the schema has no such frame: {text}");
    }
    parsed.map(|message| message.frame)
}

fn read(frame: &Value) -> ClientFrame {
    parse(&frame.to_string()).unwrap_or_else(|error| panic!("{frame}: {error:?}"))
}

fn refusal(frame: &Value) -> ErrorFrame {
    parse(&frame.to_string()).expect_err(&frame.to_string())
}

/// A submit that asks for nothing but its prompt.
fn submit(prompt: &str) -> Submit {
    Submit {
        prompt: prompt.to_owned(),
        mode: Mode::Session,
        profile_id: None,
        session_id: None,
        options: TaskOptions::default(),
        priority: Priority::Normal,
        idempotency_key: None,
        on_busy: OnBusy::Queue,
    }
}

/// `frame` with `field` set to `value`; taken out for `None`.
fn with(frame: &Value, field: &str, value: Option<Value>) -> Value {
    let mut frame = frame.clone();
    let object = frame.as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
    frame
}

/// The document's own examples, with ids that could be.
#[test]
fn the_documents_task_submit() {
    let frame = r#"{
"type": "task.submit",
"mode": "session",
"profile_id": "prof_demo",
"session_id": "sess_0190a5f2c4d87e3b8f1a2b3c4d5e6f70",
"prompt": "What's the weather?"
}"#;
    let expected = Submit {
        profile_id: ProfileId::parse("prof_demo"),
        session_id: Some(session()),
        ..submit("What's the weather?")
    };
    assert_eq!(parse(frame), Ok(ClientFrame::Submit(Box::new(expected))));
}

#[test]
fn the_documents_task_cancel() {
    let frame = r#"{ "type": "task.cancel", "task_id": "task_0190a5f2c4d87e3b8f1a2b3c4d5e6f71" }"#;
    assert_eq!(parse(frame), Ok(ClientFrame::Cancel { task_id: task() }));
}

#[test]
fn the_documents_session_start() {
    let frame = r#"{ "type": "session.start", "profile_id": "prof_demo" }"#;
    assert_eq!(parse(frame), Ok(ClientFrame::Start { profile_id: ProfileId::parse("prof_demo"), title: None }));
}

#[test]
fn the_documents_session_resume() {
    let frame = r#"{ "type": "session.resume", "session_id": "sess_0190a5f2c4d87e3b8f1a2b3c4d5e6f70" }"#;
    let expected = ClientFrame::Resume { session_id: session(), from: ReplayFrom::After(Seq::START) };
    assert_eq!(parse(frame), Ok(expected));
}

#[test]
fn the_documents_session_turn() {
    let frame = r#"{ "type": "session.turn", "session_id": "sess_0190a5f2c4d87e3b8f1a2b3c4d5e6f70", "prompt": "Follow-up question" }"#;
    let expected = Submit { session_id: Some(session()), ..submit("Follow-up question") };
    assert_eq!(parse(frame), Ok(ClientFrame::Submit(Box::new(expected))));
}

#[test]
fn the_documents_task_answer() {
    let frame =
        r#"{ "type": "task.answer", "task_id": "task_0190a5f2c4d87e3b8f1a2b3c4d5e6f71", "answer": "Option B" }"#;
    let expected = ClientFrame::Answer { task_id: task(), ask_id: None, answer: Answer::Text("Option B".to_owned()) };
    assert_eq!(parse(frame), Ok(expected));
}

/// Letter for letter, with `…` where an id should be: that names nothing.
#[test]
fn the_documents_examples_as_printed_name_nothing() {
    for (frame, code) in [
        (
            json!({"type": "task.submit", "mode": "session", "profile_id": "prof_…", "session_id": "sess_…", "prompt": "?"}),
            ErrorCode::NotFound,
        ),
        (json!({"type": "task.cancel", "task_id": "task_…"}), ErrorCode::NotFound),
        (json!({"type": "session.start", "profile_id": "prof_…"}), ErrorCode::NotFound),
        (json!({"type": "session.resume", "session_id": "sess_…"}), ErrorCode::SessionNotFound),
        (json!({"type": "session.turn", "session_id": "sess_…", "prompt": "?"}), ErrorCode::SessionNotFound),
        (json!({"type": "task.answer", "task_id": "task_…", "answer": "Option B"}), ErrorCode::NotFound),
    ] {
        assert_eq!(refusal(&frame).code, code, "{frame}");
    }
}

#[test]
fn frames_beside_the_documents() {
    assert_eq!(read(&json!({"type": "ping"})), ClientFrame::Ping);
    assert_eq!(
        read(&json!({"type": "session.end", "session_id": SESSION})),
        ClientFrame::End { session_id: session() }
    );
    assert_eq!(
        read(&json!({"type": "session.unsubscribe", "session_id": SESSION})),
        ClientFrame::Unsubscribe { session_id: session() }
    );
    assert_eq!(
        read(&json!({"type": "session.resume", "session_id": SESSION, "after_seq": 7})),
        ClientFrame::Resume { session_id: session(), from: ReplayFrom::After(Seq(7)) }
    );
    assert_eq!(
        read(&json!({"type": "session.resume", "session_id": SESSION, "tail": 7})),
        ClientFrame::Resume { session_id: session(), from: ReplayFrom::Tail(7) }
    );
    assert_eq!(
        read(&json!({"type": "session.start", "title": "Rain"})),
        ClientFrame::Start { profile_id: None, title: Some("Rain".to_owned()) }
    );
    let answers = [("Which?".to_owned(), "This".to_owned()), ("Why?".to_owned(), String::new())];
    assert_eq!(
        read(&json!({"type": "task.answer", "task_id": TASK, "ask_id": ASK, "answer": {"Which?": "This", "Why?": ""}})),
        ClientFrame::Answer {
            task_id: task(),
            ask_id: AskId::parse(ASK),
            answer: Answer::PerQuestion(answers.into_iter().collect()),
        }
    );
}

#[test]
fn every_option_of_a_submit_is_read() {
    let options = json!({
        "prompt": "p", "mode": "session", "profile_id": "prof_x", "session_id": SESSION,
        "allowed_tools": ["Bash", "Read"], "max_turns": 3, "max_budget_usd": 0.5, "model": "m",
        "priority": "high", "timeout_seconds": 60, "idempotency_key": "k", "on_busy": "interrupt",
    });
    let expected = Submit {
        profile_id: ProfileId::parse("prof_x"),
        session_id: Some(session()),
        options: TaskOptions {
            allowed_tools: Some(vec!["Bash".to_owned(), "Read".to_owned()]),
            max_turns: Some(3),
            max_budget_usd: Some(0.5),
            model: Some("m".to_owned()),
            timeout_seconds: Some(60),
        },
        priority: Priority::High,
        idempotency_key: Some("k".to_owned()),
        on_busy: OnBusy::Interrupt,
        ..submit("p")
    };
    for kind in ["task.submit", "session.turn"] {
        let frame = with(&options, "type", Some(json!(kind)));
        assert_eq!(read(&frame), ClientFrame::Submit(Box::new(expected.clone())));
    }
    let batch = Submit { mode: Mode::Batch, ..submit("p") };
    let frame = json!({"type": "task.submit", "mode": "batch", "prompt": "p"});
    assert_eq!(read(&frame), ClientFrame::Submit(Box::new(batch)));
}

/// Checks that `frame` is refused as `VALIDATION_FAILED` that names `fields` and no others.
fn names(frame: &Value, fields: &[&str]) {
    let error = refusal(frame);
    assert_eq!(error.code, ErrorCode::ValidationFailed, "{frame}");
    let mut named: Vec<&str> = error.details.iter().map(|detail| detail.field.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, fields, "{frame}");
    assert!(fields.iter().all(|field| error.message.contains(&format!("`{field}`"))), "{}", error.message);
    assert!(error.details.iter().all(|detail| !detail.problem.is_empty()), "{frame}");
}

#[test]
fn what_is_required_must_be_there() {
    let frames = [
        (json!({"type": "task.submit", "prompt": "p"}), &["prompt"][..]),
        (json!({"type": "session.turn", "session_id": SESSION, "prompt": "p"}), &["prompt", "session_id"]),
        (json!({"type": "task.cancel", "task_id": TASK}), &["task_id"]),
        (json!({"type": "session.resume", "session_id": SESSION}), &["session_id"]),
        (json!({"type": "task.answer", "task_id": TASK, "answer": "a"}), &["answer", "task_id"]),
        (json!({"type": "session.end", "session_id": SESSION}), &["session_id"]),
        (json!({"type": "session.unsubscribe", "session_id": SESSION}), &["session_id"]),
    ];
    for (frame, required) in frames {
        read(&frame);
        for field in required {
            names(&with(&frame, field, None), &[field]);
            names(&with(&frame, field, Some(Value::Null)), &[field]);
        }
        // All at once.
        let bare = required.iter().fold(frame.clone(), |frame, field| with(&frame, field, None));
        names(&bare, required);
    }
    names(&json!({}), &["type"]);
    names(&json!({"prompt": "p"}), &["type"]);
    for kind in [json!(null), json!(""), json!(1), json!(["ping"]), json!("p\0"), json!("p".repeat(NAME_BYTES + 1))] {
        names(&json!({ "type": kind }), &["type"]);
    }
}

/// Every field that is text: its type of frame, its name, the bytes it may have.
fn texts() -> Vec<(Value, &'static str, usize)> {
    let submit = json!({"type": "task.submit", "prompt": "p"});
    let turn = json!({"type": "session.turn", "session_id": SESSION, "prompt": "p"});
    let start = json!({"type": "session.start"});
    let answer = json!({"type": "task.answer", "task_id": TASK, "answer": "a"});
    let mut texts = vec![
        (start.clone(), "title", NAME_BYTES),
        (submit.clone(), "model", NAME_BYTES),
        (submit.clone(), "idempotency_key", NAME_BYTES),
        (turn.clone(), "model", NAME_BYTES),
        (turn.clone(), "idempotency_key", NAME_BYTES),
    ];
    texts.extend(TYPES.map(|kind| {
        let frame = [&submit, &turn, &start, &answer].into_iter().find(|frame| frame["type"] == kind).cloned();
        (frame.unwrap_or(json!({"type": kind, "task_id": TASK, "session_id": SESSION})), "request_id", REQUEST_ID_BYTES)
    }));
    texts
}

#[test]
fn texts_are_strings_of_one_byte_to_their_limit_without_u0000() {
    for (frame, field, limit) in texts() {
        for good in [json!(null), json!("x"), json!("x".repeat(limit)), json!("é".repeat(limit / 2)), json!("\u{1}")] {
            read(&with(&frame, field, Some(good)));
        }
        let too_long = ["x".repeat(limit + 1), "é".repeat(limit / 2 + 1)];
        for bad in [
            json!(""),
            json!("a\0b"),
            json!(too_long[0]),
            json!(too_long[1]),
            json!(1),
            json!(true),
            json!([]),
            json!({}),
        ] {
            names(&with(&frame, field, Some(bad)), &[field]);
        }
    }
}

#[test]
fn a_prompt_is_text_and_too_much_of_it_is_payload_too_large() {
    for frame in [json!({"type": "task.submit"}), json!({"type": "session.turn", "session_id": SESSION})] {
        for good in ["x".repeat(1_000), "é".repeat(500), " ".to_owned(), "\u{1}\u{feff}\u{10ffff}".to_owned()] {
            read(&with(&frame, "prompt", Some(json!(good))));
        }
        for bad in [json!(""), json!("a\0"), json!(1), json!(["p"]), json!({"text": "p"}), json!(false)] {
            names(&with(&frame, "prompt", Some(bad)), &["prompt"]);
        }
        for long in ["x".repeat(1_001), "é".repeat(501)] {
            let error = refusal(&with(&frame, "prompt", Some(json!(long))));
            assert_eq!(error.code, ErrorCode::PayloadTooLarge);
            assert!(error.message.contains("1000 bytes"), "{}", error.message);
        }
    }
}

#[test]
fn an_answer_is_text_or_texts_by_question() {
    let frame = json!({"type": "task.answer", "task_id": TASK});
    for good in [json!(""), json!("x".repeat(1_000)), json!({"q": "x".repeat(999)}), json!({"q": "", "r": "x"})] {
        read(&with(&frame, "answer", Some(good)));
    }
    for bad in [
        json!(1),
        json!(true),
        json!(["a"]),
        json!({"q": 1}),
        json!({"q": ["a"]}),
        json!({"q": null}),
        json!("\0"),
        json!({"\0": "a"}),
        json!({"q": "\0"}),
    ] {
        names(&with(&frame, "answer", Some(bad)), &["answer"]);
    }
    for long in
        [json!("x".repeat(1_001)), json!({"q": "x".repeat(1_000)}), json!({"q": "x".repeat(500), "r": "x".repeat(500)})]
    {
        assert_eq!(refusal(&with(&frame, "answer", Some(long))).code, ErrorCode::PayloadTooLarge);
    }
}

#[test]
fn ill_formed_ids_are_ids_of_nothing() {
    let upper = SESSION.to_uppercase().replace("SESS_", "sess_");
    let bad_sessions =
        ["x", "sess_", "sess_…", TASK, &SESSION[..36], &format!("{SESSION}0"), &upper, &format!(" {SESSION}")];
    for bad in bad_sessions {
        for frame in [
            json!({"type": "session.resume"}),
            json!({"type": "session.end"}),
            json!({"type": "session.unsubscribe"}),
            json!({"type": "session.turn", "prompt": "p"}),
            json!({"type": "task.submit", "prompt": "p"}),
        ] {
            let error = refusal(&with(&frame, "session_id", Some(json!(bad))));
            assert_eq!((error.code, error.details), (ErrorCode::SessionNotFound, Vec::new()), "{frame} {bad}");
        }
    }
    for bad in ["x", "task_", SESSION, &TASK.to_uppercase()] {
        for frame in [json!({"type": "task.cancel"}), json!({"type": "task.answer", "answer": "a"})] {
            assert_eq!(refusal(&with(&frame, "task_id", Some(json!(bad)))).code, ErrorCode::NotFound, "{frame} {bad}");
        }
    }
    for bad in ["x", "prof_", "demo", "prof_a/b", "prof_é", &format!("prof_{}", "x".repeat(65))] {
        for frame in [json!({"type": "session.start"}), json!({"type": "task.submit", "prompt": "p"})] {
            assert_eq!(refusal(&with(&frame, "profile_id", Some(json!(bad)))).code, ErrorCode::NotFound, "{bad}");
        }
    }
    // A question that was never asked, not a thing that is missing.
    let answer = json!({"type": "task.answer", "task_id": TASK, "answer": "a", "ask_id": "ask_x"});
    assert_eq!(refusal(&answer).code, ErrorCode::Conflict);
    // What is no string is no id at all.
    for bad in [json!(1), json!([SESSION]), json!({}), json!(""), json!("sess_\0")] {
        names(&json!({"type": "session.end", "session_id": bad}), &["session_id"]);
    }
}

#[test]
fn whole_numbers_are_whole_and_fit_the_databases() {
    const MOST: u64 = i64::MAX as u64;
    let resume = json!({"type": "session.resume", "session_id": SESSION});
    let submit = json!({"type": "task.submit", "prompt": "p"});
    let fields =
        [(&resume, "after_seq", 0), (&resume, "tail", 0), (&submit, "max_turns", 1), (&submit, "timeout_seconds", 1)];
    for (frame, field, least) in fields {
        for good in [least, 1, 1 << 53, (1 << 53) + 1, MOST] {
            read(&with(frame, field, Some(json!(good))));
        }
        let too_small = i64::try_from(least).unwrap() - 1;
        let bad = [
            json!(too_small),
            json!(-1),
            json!(MOST + 1),
            json!(u64::MAX),
            json!(0.5),
            json!(1.0),
            json!(1e18),
            json!("1"),
            json!(true),
            json!([1]),
        ];
        for bad in bad {
            names(&with(frame, field, Some(bad)), &[field]);
        }
    }
    let after =
        |text: &str| parse(&format!(r#"{{"type":"session.resume","session_id":"{SESSION}","after_seq":{text}}}"#));
    assert_eq!(after("-0").unwrap_err().code, ErrorCode::ValidationFailed, "minus zero is no whole number here");
    assert_eq!(after("18446744073709551616").unwrap_err().code, ErrorCode::ValidationFailed);
    // Beyond what a double holds: no number to the parser, as RFC 8259 §6 allows.
    assert_eq!(after("1e309").unwrap_err().code, ErrorCode::InvalidJson);
    let both = json!({"type": "session.resume", "session_id": SESSION, "after_seq": 0, "tail": 0});
    names(&both, &["tail"]);
    // More turns than anybody counts are as many as can be counted.
    let ClientFrame::Submit(many) = read(&with(&submit, "max_turns", Some(json!(1_u64 << 53)))) else { panic!() };
    assert_eq!(many.options.max_turns, Some(u32::MAX));
}

#[test]
fn a_budget_is_a_number_above_zero() {
    let frame = json!({"type": "task.submit", "prompt": "p"});
    for good in [json!(0.5), json!(1), json!(1e-300), json!(1e308), json!(null)] {
        read(&with(&frame, "max_budget_usd", Some(good)));
    }
    for bad in [json!(0), json!(-0.0), json!(-1), json!(-0.5), json!("1"), json!([]), json!(true)] {
        names(&with(&frame, "max_budget_usd", Some(bad)), &["max_budget_usd"]);
    }
}

#[test]
fn words_and_lists_are_as_listed() {
    let frame = json!({"type": "task.submit", "prompt": "p"});
    for (field, words) in [
        ("mode", &["session", "batch"][..]),
        ("priority", &["low", "normal", "high"]),
        ("on_busy", &["queue", "reject", "interrupt"]),
    ] {
        for word in words {
            read(&with(&frame, field, Some(json!(word))));
        }
        read(&with(&frame, field, Some(Value::Null)));
        for bad in
            [json!(""), json!("Session"), json!("urgent"), json!("high "), json!(1), json!(["high"]), json!("high\0")]
        {
            names(&with(&frame, field, Some(bad)), &[field]);
        }
    }
    for good in [json!([]), json!(["x".repeat(NAME_BYTES)]), json!(vec!["x"; ALLOWED_TOOLS]), json!(null)] {
        read(&with(&frame, "allowed_tools", Some(good)));
    }
    let too_long = "x".repeat(NAME_BYTES + 1);
    for bad in [
        json!("Bash"),
        json!([1]),
        json!([null]),
        json!([""]),
        json!(["a\0"]),
        json!([["a"]]),
        json!([too_long]),
        json!(vec!["x"; ALLOWED_TOOLS + 1]),
        json!({}),
    ] {
        names(&with(&frame, "allowed_tools", Some(bad)), &["allowed_tools"]);
    }
    names(&json!({"type": "task.submit", "prompt": "p", "mode": "batch", "session_id": SESSION}), &["session_id"]);
}

#[test]
fn every_problem_of_a_frame_is_named_at_once() {
    let frame = json!({
        "type": "task.submit", "request_id": 1, "prompt": "", "mode": "x", "profile_id": 1, "session_id": [],
        "allowed_tools": "Bash", "max_turns": 0, "max_budget_usd": 0, "model": "", "priority": 1,
        "timeout_seconds": -1, "idempotency_key": {}, "on_busy": "",
    });
    let mut all: Vec<&str> =
        frame.as_object().unwrap().keys().map(String::as_str).filter(|key| *key != "type").collect();
    all.sort_unstable();
    names(&frame, &all);
    // A wrong field outranks an id of nothing: the client mends it first.
    names(&json!({"type": "session.turn", "session_id": "sess_x"}), &["prompt"]);
}

#[test]
fn null_is_absent_and_what_nobody_asks_for_is_ignored() {
    let full = json!({
        "type": "task.submit", "prompt": "p", "request_id": null, "mode": null, "profile_id": null, "session_id": null,
        "allowed_tools": null, "max_turns": null, "max_budget_usd": null, "model": null, "priority": null,
        "timeout_seconds": null, "idempotency_key": null, "on_busy": null,
    });
    assert_eq!(read(&full), ClientFrame::Submit(Box::new(submit("p"))));
    let extra = json!({"type": "ping", "": 1, "x": {"y": [null, 1e300, "\0"]}, "prompt": 5, "session_id": "nonsense"});
    assert_eq!(read(&extra), ClientFrame::Ping);
}

#[test]
fn what_is_no_json_object_is_invalid_json() {
    let nested = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let bad = [
        "",
        " ",
        "x",
        "ping",
        "null",
        "true",
        "1",
        "\"ping\"",
        "[]",
        r#"[{"type":"ping"}]"#,
        "{",
        r#"{"type":"ping"#,
        r#"{"type":"ping"}}"#,
        r#"{"type":"ping"}{"type":"ping"}"#,
        r#"{type:"ping"}"#,
        "{'type':'ping'}",
        r#"{"type":"ping",}"#,
        r#"{"type":"ping","x":NaN}"#,
        r#"{"type":"ping","x":1e309}"#,
        r#"{"type":"ping","x":"\ud800"}"#,
        "{\"type\":\"pi\nng\"}",
        "\u{feff}{\"type\":\"ping\"}",
        nested.as_str(),
    ];
    for text in bad {
        let error = parse(text).expect_err(text);
        assert_eq!(error.code, ErrorCode::InvalidJson, "{text:.80}");
        assert!(!error.message.is_empty() && error.details.is_empty());
    }
    for good in [
        " {\"type\" : \"ping\"}\r\n",
        r#"{"\u0074ype":"p\u0069ng"}"#,
        &format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(100), "]".repeat(100)),
    ] {
        assert_eq!(parse(good), Ok(ClientFrame::Ping), "{good}");
    }
}

#[test]
fn of_a_field_that_comes_twice_the_last_counts() {
    assert_eq!(parse(r#"{"type":"nonsense","type":"ping"}"#), Ok(ClientFrame::Ping));
    assert_eq!(parse(r#"{"type":"ping","type":"nonsense"}"#).unwrap_err().code, ErrorCode::UnknownType);
}

#[test]
fn an_unknown_type_is_quoted_but_not_at_length() {
    for kind in ["nonsense", "task:token", "PING", "ping ", "session.ready", &"é".repeat(100)] {
        let error = refusal(&json!({ "type": kind }));
        assert_eq!(error.code, ErrorCode::UnknownType, "{kind}");
        let beginning: String = kind.chars().take(32).collect();
        assert!(error.message.contains(&beginning) && error.message.len() < 200, "{}", error.message);
    }
}

#[test]
fn an_error_echoes_the_request_id_whenever_that_could_be_read() {
    let echo = |frame: Value| ClientMessage::parse(&frame.to_string(), LIMITS).unwrap_err().request_id.map(|id| id.0);
    let long = "x".repeat(REQUEST_ID_BYTES);
    for id in ["1", "é\n\"", long.as_str()] {
        for frame in [
            json!({}),
            json!({"type": 1}),
            json!({"type": "nonsense"}),
            json!({"type": "task.submit"}),
            json!({"type": "task.submit", "prompt": "x".repeat(1_001)}),
            json!({"type": "session.end", "session_id": "sess_x"}),
            json!({"type": "task.cancel", "task_id": "task_x"}),
            json!({"type": "task.answer", "task_id": TASK, "ask_id": "ask_x", "answer": ""}),
        ] {
            assert_eq!(echo(with(&frame, "request_id", Some(json!(id)))).as_deref(), Some(id), "{frame}");
        }
        let message = ClientMessage::parse(&json!({"type": "ping", "request_id": id}).to_string(), LIMITS).unwrap();
        assert_eq!(message.request_id, Some(RequestId(id.to_owned())));
    }
    for bad in [json!(null), json!(""), json!(1), json!("x\0"), json!("x".repeat(REQUEST_ID_BYTES + 1)), json!({})] {
        assert_eq!(echo(json!({"type": "task.submit", "request_id": bad})), None);
    }
    let message = ClientMessage::parse(r#"{"type":"ping","request_id":null}"#, LIMITS).unwrap();
    assert_eq!(message.request_id, None);
}

/// Any JSON, with the names of fields and types that mean something among the others.
fn any_json() -> impl Strategy<Value = Value> {
    let word = || {
        prop_oneof![
            prop::sample::select(TYPES.to_vec()).prop_map(str::to_owned),
            prop::sample::select(vec![SESSION, TASK, ASK, "prof_demo", "sess_", "batch", "high", ""])
                .prop_map(str::to_owned),
            any::<String>(),
        ]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    let field = prop::sample::select(vec![
        "type",
        "request_id",
        "prompt",
        "mode",
        "profile_id",
        "session_id",
        "task_id",
        "ask_id",
        "answer",
        "after_seq",
        "tail",
        "title",
        "allowed_tools",
        "max_turns",
        "max_budget_usd",
        "model",
        "priority",
        "timeout_seconds",
        "idempotency_key",
        "on_busy",
        "x",
    ]);
    leaf.prop_recursive(3, 64, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(field.clone().prop_map(str::to_owned), inner, 0..12)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Whatever came: no panic, and an error that a client can use.
fn check_answer(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = ClientMessage::parse(text, LIMITS) {
        prop_assert!(!error.message.is_empty());
        prop_assert_eq!(error.code == ErrorCode::ValidationFailed, !error.details.is_empty());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        check_answer(&text)?;
    }

    #[test]
    fn any_json_is_answered(value in any_json()) {
        check_answer(&value.to_string())?;
    }

    #[test]
    fn any_fields_of_any_type_are_answered(kind in prop::sample::select(TYPES.to_vec()), value in any_json(), request_id in "[a-z]{1,8}") {
        let mut object = value.as_object().cloned().unwrap_or_default();
        object.insert("type".to_owned(), kind.into());
        object.insert("request_id".to_owned(), request_id.clone().into());
        let text = Value::Object(object).to_string();
        check_answer(&text)?;
        let echo = match ClientMessage::parse(&text, LIMITS) {
            Ok(message) => message.request_id,
            Err(error) => error.request_id,
        };
        prop_assert_eq!(echo, Some(RequestId(request_id)));
    }
}

#[test]
fn the_schema_has_every_type_of_frame_and_no_field_that_is_not_read() {
    let schemas = conformity::client_schemas();
    let types: Vec<_> = schemas.iter().map(|schema| schema["properties"]["type"]["const"].as_str().unwrap()).collect();
    assert_eq!(BTreeSet::from_iter(types), BTreeSet::from(TYPES));
    for schema in schemas {
        let fields = schema["properties"].as_object().unwrap();
        let kind = &fields["type"]["const"];
        let named = |frame: &Value| {
            let error = parse(&frame.to_string()).expect_err(&frame.to_string());
            error.details.into_iter().map(|detail| detail.field).collect::<BTreeSet<_>>()
        };
        // Nothing can be a list of lists, and every field says so.
        let mut wrong: Map<String, Value> = fields.keys().map(|field| (field.clone(), json!([[]]))).collect();
        wrong.insert("type".to_owned(), kind.clone());
        let all: BTreeSet<String> = fields.keys().filter(|field| *field != "type").cloned().collect();
        assert_eq!(named(&Value::Object(wrong)), all, "{kind}");
        let required: BTreeSet<String> = serde_json::from_value(schema["required"].clone()).unwrap();
        let required: BTreeSet<String> = required.into_iter().filter(|field| field != "type").collect();
        let bare = json!({ "type": kind });
        assert!(
            if required.is_empty() { parse(&bare.to_string()).is_ok() } else { named(&bare) == required },
            "{kind}"
        );
    }
}

/// The table of client frames, row by row.
#[test]
fn the_schema_has_what_the_protocol_page_tells() {
    let page = include_str!("../../../docs/protocol.md");
    let (_, table) = page.split_once("| type | required | optional |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |cell: &str| -> BTreeSet<String> {
        // Words of a field stand in brackets behind it.
        let bare: String = cell.split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect();
        bare.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches("[]").to_owned()).collect()
    };
    let mut told = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let kind = names(cells[1]).pop_first().unwrap();
        let schemas = conformity::client_schemas();
        let schema = schemas.iter().find(|schema| schema["properties"]["type"]["const"] == kind.as_str()).unwrap();
        let mut fields: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let mut required: BTreeSet<String> = serde_json::from_value(schema["required"].clone()).unwrap();
        fields.retain(|field| !["type", "request_id"].contains(&field.as_str()));
        required.remove("type");
        assert_eq!(names(cells[2]), required, "{row}");
        if kind != "session.turn" {
            assert_eq!(&names(cells[3]) | &required, fields, "{row}");
        }
        told += 1;
    }
    assert_eq!(told, TYPES.len());
}
