//! What the server sends has every field of the document's examples, with the same type of value.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::conformity;
use super::error::{CloseCode, Detail, ErrorCode, ErrorFrame};
use super::event::{Event, Question, QuestionOption};
use super::reply::{PendingAsk, ServerFrame, SessionState, TaskSummary, raw_json};
use super::{Answer, RequestId};
use crate::domain::{
    AskId, Audience, ContainerId, Priority, ProfileId, Seq, SessionId, SessionStatus, TaskId, TaskState, Timestamp,
    Usage,
};

/// Whether `ours` has all that `example` has, with values of the same types. Names, statuses and what
/// else is not free text must be equal; ids must start alike.
fn covers(example: &Value, ours: &Value, path: &str) {
    match (example, ours) {
        (Value::Object(example), Value::Object(ours)) => {
            for (field, value) in example {
                let Some(our_value) = ours.get(field) else { panic!("{path}.{field} is missing in {ours:?}") };
                covers(value, our_value, &format!("{path}.{field}"));
            }
        }
        (Value::Array(example), Value::Array(ours)) => {
            assert_eq!(example.len(), ours.len(), "{path}");
            for (at, (value, our_value)) in example.iter().zip(ours).enumerate() {
                covers(value, our_value, &format!("{path}[{at}]"));
            }
        }
        (Value::String(example), Value::String(ours)) => match example.strip_suffix('…') {
            Some(prefix) if prefix.ends_with('_') => assert!(ours.starts_with(prefix), "{path}: {ours}"),
            _ if path.ends_with("_name") => assert!(ours.starts_with("agent-"), "{path}: {ours}"),
            _ => assert_eq!(example, ours, "{path}"),
        },
        (Value::Number(_) | Value::Bool(_) | Value::Null, _) => assert_eq!(example, ours, "{path}"),
        _ => panic!("{path}: the document has {example}, we have {ours}"),
    }
}

fn session() -> SessionId {
    SessionId::parse("sess_0190a5f2c4d87e3b8f1a2b3c4d5e6f70").unwrap()
}

fn task() -> TaskId {
    TaskId::parse("task_0190a5f2c4d87e3b8f1a2b3c4d5e6f71").unwrap()
}

fn ask() -> AskId {
    AskId::parse("ask_0190a5f2c4d87e3b8f1a2b3c4d5e6f72").unwrap()
}

fn container() -> ContainerId {
    ContainerId::parse("ctr_0190a5f2c4d87e3b8f1a2b3c4d5e6f73").unwrap()
}

fn event(event: &Event) -> Value {
    let stored = event.encode(Seq(7), Timestamp(1_700_000_000_123), session(), Some(task()));
    assert_eq!((stored.seq, stored.audience), (Seq(7), event.audience()));
    let frame: Value = serde_json::from_str(&stored.frame).unwrap();
    // What every session event carries.
    assert_eq!(frame["type"], event.wire_type());
    assert_eq!((frame["seq"].as_u64(), frame["ts"].as_i64()), (Some(7), Some(1_700_000_000_123)));
    assert_eq!((&frame["session_id"], &frame["task_id"]), (&json!(session()), &json!(task())));
    assert_eq!(frame.get("request_id"), None);
    conformity::assert_session_event(&frame);
    frame
}

fn reply(frame: &ServerFrame) -> Value {
    let frame: Value = serde_json::from_str(&frame.encode()).unwrap();
    assert_eq!((frame.get("seq"), frame.get("ts")), (None, None), "only session events are numbered");
    conformity::assert_connection_frame(&frame);
    frame
}

/// A frame as the document prints it.
fn printed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_documents_session_ready() {
    let example = printed(
        r#"{
"type": "session.ready",
"session_id": "sess_…",
"container_id": "ctr_…",
"container_name": "agent-abc123",
"profile_id": "prof_…"
}"#,
    );
    let ours = ServerFrame::SessionReady {
        request_id: None,
        session_id: session(),
        container_id: container(),
        container_name: crate::runtime::container_name(container()),
        profile_id: ProfileId::from_slug("demo"),
        task_id: None,
    };
    covers(&example, &reply(&ours), "");
}

#[test]
fn the_documents_replay_marks() {
    let example = printed(r#"{ "type": "session.replay_start", "session_id": "sess_…" }"#);
    let ours =
        ServerFrame::ReplayStart { request_id: None, session_id: session(), after_seq: Seq::START, last_seq: Seq(9) };
    covers(&example, &reply(&ours), "");
    let ours = ServerFrame::ReplayEnd { session_id: session(), last_seq: Seq(9), count: 8 };
    covers(&json!({"type": "session.replay_end", "session_id": "sess_…"}), &reply(&ours), "");
}

#[test]
fn the_documents_token() {
    let example = printed(r#"{ "type": "task:token", "session_id": "sess_…", "text": "Hello " }"#);
    let ours = event(&Event::Token { text: "Hello ".to_owned(), truncated: false });
    covers(&example, &ours, "");
    assert_eq!(ours.get("truncated"), None);
}

#[test]
fn the_documents_tool_use_and_result() {
    let example = printed(
        r#"{
"type": "task:tool_use",
"session_id": "sess_…",
"tool": "Bash",
"input": { "command": "ls /workspace" }
}"#,
    );
    let ours = Event::ToolUse {
        tool: "Bash".to_owned(),
        input: raw_json(&json!({"command": "ls /workspace"})),
        tool_use_id: "t1".to_owned(),
        truncated: false,
    };
    covers(&example, &event(&ours), "");
    let example = printed(
        r#"{
"type": "task:tool_result",
"session_id": "sess_…",
"tool": "Bash",
"output": "file1\nfile2\n"
}"#,
    );
    let ours = Event::ToolResult {
        tool: "Bash".to_owned(),
        output: "file1\nfile2\n".to_owned(),
        tool_use_id: "t1".to_owned(),
        is_error: false,
        truncated: false,
    };
    covers(&example, &event(&ours), "");
}

fn question() -> Question {
    let option = |label: &str| QuestionOption { label: label.to_owned(), description: None };
    Question {
        question: "Pick one".to_owned(),
        header: None,
        options: vec![option("Yes"), option("No")],
        multi_select: false,
    }
}

#[test]
fn the_documents_question() {
    let example = printed(
        r#"{
"type": "task:ask_user",
"session_id": "sess_…",
"task_id": "task_…",
"questions": [
{ "question": "Pick one", "options": [{ "label": "Yes" }, { "label": "No" }] }
]
}"#,
    );
    let ours = event(&Event::AskUser { ask_id: ask(), questions: vec![question()] });
    covers(&example, &ours, "");
    assert_eq!(ours["questions"], example["questions"], "nothing that a flat surface would stumble over");
}

#[test]
fn the_documents_continuation() {
    let example = printed(r#"{ "type": "turn.continuing", "continuation": 2, "max_continuations": 20 }"#);
    covers(&example, &event(&Event::TurnContinuing { continuation: 2, max_continuations: 20 }), "");
}

fn turn_done(usage: Usage) -> Event {
    Event::TurnDone {
        result_text: "Here's the summary…".to_owned(),
        truncated: false,
        usage,
        cost_known: true,
        num_turns: 1,
        duration_ms: 5,
        stop_reason: "end_turn",
    }
}

#[test]
fn the_documents_end_of_a_turn() {
    let example = printed(
        r#"{
"type": "turn.done",
"session_id": "sess_…",
"result_text": "Here's the summary…",
"input_tokens": 1234,
"output_tokens": 567,
"cost_usd": 0.0123
}"#,
    );
    let usage = Usage { input_tokens: 1_234, output_tokens: 567, cost_usd: 0.0123 };
    covers(&example, &event(&turn_done(usage)), "");
    let nothing = event(&turn_done(Usage::default()));
    assert!(["input_tokens", "output_tokens", "cost_usd"].iter().all(|field| nothing[*field].is_number()));
}

#[test]
fn the_documents_ends_of_a_task() {
    let example =
        printed(r#"{ "type": "task:done", "task_id": "task_…", "session_id": "sess_…", "status": "completed" }"#);
    covers(&example, &event(&Event::TaskDone { status: TaskState::Completed.as_str() }), "");
    let example = printed(r#"{ "type": "task:failed", "task_id": "task_…", "error": "Container exited 1" }"#);
    let failed = Event::TaskFailed { error: "Container exited 1".to_owned(), retryable: true, usage: Usage::default() };
    covers(&example, &event(&failed), "");
}

#[test]
fn the_documents_system_prompt_is_for_the_privileged() {
    let prompt = Event::SystemPrompt { prompt: "You are".to_owned() };
    let example =
        json!({"type": "task:system_prompt", "session_id": "sess_…", "task_id": "task_…", "prompt": "You are"});
    covers(&example, &event(&prompt), "");
    assert_eq!(prompt.audience(), Audience::Privileged);
}

#[test]
fn the_documents_error() {
    let example = printed(r#"{ "type": "error", "code": "UNAUTHORIZED", "message": "Token invalid" }"#);
    let ours = reply(&ServerFrame::Error(ErrorFrame::new(ErrorCode::Unauthorized, "Token invalid")));
    covers(&example, &ours, "");
    assert_eq!(ours, example, "what does not apply is left out");
}

#[test]
fn a_document_client_meets_the_documents_types_only() {
    let raw = || raw_json(&json!({}));
    let usage = Usage::default();
    let name = String::new;
    let events = [
        (Event::UserMessage { text: name() }, Audience::Extended),
        (Event::TaskQueued { position: 0 }, Audience::Extended),
        (Event::TaskStarted { container_id: container(), container_name: name() }, Audience::Extended),
        (Event::Token { text: name(), truncated: true }, Audience::Document),
        (Event::ToolUse { tool: name(), input: raw(), tool_use_id: name(), truncated: true }, Audience::Document),
        (
            Event::ToolResult { tool: name(), output: name(), tool_use_id: name(), is_error: true, truncated: true },
            Audience::Document,
        ),
        (Event::AskUser { ask_id: ask(), questions: Vec::new() }, Audience::Document),
        (Event::Answered { ask_id: ask(), answer: raw_json(&Answer::Text(name())) }, Audience::Extended),
        (Event::SystemPrompt { prompt: name() }, Audience::Privileged),
        (Event::TurnContinuing { continuation: 1, max_continuations: 1 }, Audience::Document),
        (turn_done(usage), Audience::Document),
        (Event::TaskDone { status: "completed" }, Audience::Document),
        (Event::TaskFailed { error: name(), retryable: false, usage }, Audience::Document),
        (Event::SessionClosed { reason: "ended".to_owned() }, Audience::Extended),
    ];
    let types: HashSet<&str> = events.iter().map(|(event, _)| event.wire_type()).collect();
    assert_eq!(types.len(), events.len());
    assert_eq!(types, conformity::event_types().into_iter().collect());
    for (event, audience) in &events {
        assert_eq!(event.audience(), *audience, "{}", event.wire_type());
        self::event(event);
    }
    // Without a task nothing pretends that there is one.
    let closed = events[13].0.encode(Seq(1), Timestamp(0), session(), None);
    assert!(!closed.frame.contains("task_id"), "{}", closed.frame.as_str());
}

#[test]
fn direct_replies_echo_their_request() {
    let request_id = Some(RequestId("r".to_owned()));
    let ack = ServerFrame::Ack {
        request_id: RequestId("r".to_owned()),
        session_id: Some(session()),
        task_id: Some(task()),
        status: Some("queued"),
        position: Some(0),
    };
    let expected = json!({
        "type": "ack", "request_id": "r", "session_id": session(), "task_id": task(), "status": "queued", "position": 0,
    });
    assert_eq!(reply(&ack), expected);
    let pong = ServerFrame::Pong { request_id, sessions: BTreeMap::from([(session(), Seq(3))]) };
    assert_eq!(reply(&pong), json!({"type": "pong", "request_id": "r", "sessions": {session().to_string(): 3}}));
    let pong = ServerFrame::Pong { request_id: None, sessions: BTreeMap::new() };
    assert_eq!(reply(&pong), json!({"type": "pong", "sessions": {}}));
}

#[test]
fn a_state_holds_all_that_a_ui_needs() {
    let summary = TaskSummary { task_id: task(), status: TaskState::AwaitingAnswer, priority: Priority::High };
    let state = ServerFrame::State(Box::new(SessionState {
        session_id: session(),
        status: SessionStatus::Active,
        task: Some(summary.clone()),
        queue: vec![summary],
        pending_ask: Some(PendingAsk { ask_id: ask(), task_id: task(), questions: vec![question()] }),
        usage: Usage::default(),
        last_seq: Seq(4),
        profile_id: ProfileId::from_slug("demo"),
        title: None,
    }));
    let expected = json!({
        "type": "session.state", "session_id": session(), "status": "active",
        "task": {"task_id": task(), "status": "awaiting_answer", "priority": "high"},
        "queue": [{"task_id": task(), "status": "awaiting_answer", "priority": "high"}],
        "pending_ask": {
            "ask_id": ask(), "task_id": task(),
            "questions": [{"question": "Pick one", "options": [{"label": "Yes"}, {"label": "No"}]}],
        },
        "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0},
        "last_seq": 4, "profile_id": "prof_demo", "title": null,
    });
    assert_eq!(reply(&state), expected);
}

#[test]
fn an_error_carries_what_applies() {
    let detail = Detail { field: "prompt".to_owned(), problem: "is required".to_owned() };
    let error = ErrorFrame::invalid(vec![detail])
        .answering(Some(RequestId("r".to_owned())))
        .about_session(session())
        .about_task(task())
        .retry_after(5);
    let expected = json!({
        "type": "error", "code": "VALIDATION_FAILED", "message": "`prompt` is required", "request_id": "r",
        "session_id": session(), "task_id": task(), "retry_after_ms": 5,
        "details": [{"field": "prompt", "problem": "is required"}],
    });
    assert_eq!(reply(&ServerFrame::Error(error)), expected);
    let ahead = ErrorFrame { last_seq: Some(Seq(3)), ..ErrorFrame::new(ErrorCode::CursorAhead, "m") };
    let expected = json!({"type": "error", "code": "CURSOR_AHEAD", "message": "m", "last_seq": 3});
    assert_eq!(reply(&ServerFrame::Error(ahead)), expected);
}

/// The table of errors, row by row.
#[test]
fn every_error_code_has_its_status() {
    let table = [
        ("UNAUTHORIZED", 401),
        ("FORBIDDEN", 403),
        ("INVALID_JSON", 400),
        ("UNKNOWN_TYPE", 400),
        ("VALIDATION_FAILED", 422),
        ("NOT_FOUND", 404),
        ("SESSION_NOT_FOUND", 404),
        ("SESSION_CLOSED", 409),
        ("CURSOR_AHEAD", 409),
        ("CONFLICT", 409),
        ("RATE_LIMITED", 429),
        ("QUEUE_FULL", 429),
        ("TOO_MANY_CONNECTIONS", 429),
        ("PAYLOAD_TOO_LARGE", 413),
        ("CAPACITY", 503),
        ("STORAGE_UNAVAILABLE", 503),
        ("INTERNAL_ERROR", 500),
    ];
    let ours: Vec<(&str, u16)> = ErrorCode::ALL.iter().map(|code| (code.as_str(), code.status().as_u16())).collect();
    assert_eq!(ours, table);
    for code in ErrorCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}

/// The table of close codes. 1001 is a browser's to say.
#[test]
fn every_close_code_has_a_reason_that_fits_its_frame() {
    use CloseCode as Code;
    for (code, number, waits) in [
        (Code::Normal, 1000, false),
        (Code::Restart, 1012, true),
        (Code::Protocol, 1002, false),
        (Code::Unsupported, 1003, false),
        (Code::BadUtf8, 1007, false),
        (Code::TooBig, 1009, false),
        (Code::Internal, 1011, true),
        (Code::TryLater, 1013, true),
        (Code::Unauthorized, 4001, false),
        (Code::OriginRefused, 4003, false),
        (Code::Flooding, 4100, true),
        (Code::SlowConsumer, 4102, true),
        (Code::NoPong, 4103, true),
        (Code::TooManyConnections, 4104, true),
        (Code::MaxAge, 4200, true),
    ] {
        assert_eq!(code.code(), number);
        assert_eq!(code.retry_after_ms().is_some(), waits, "{code:?}");
        for wait in [None, Some(0), Some(u64::MAX)] {
            let reason = code.reason(wait);
            assert!(reason.len() <= 123, "{reason}");
            let value: Value = serde_json::from_str(&reason).unwrap();
            assert_eq!(
                (&value["code"], value.get("retry_after_ms").and_then(Value::as_u64)),
                (&json!(code.word()), wait)
            );
            assert_eq!(reason, value.to_string().replace(' ', ""), "compact");
        }
    }
}
