//! What tests say about frames: their fields, and the shape of a session's history (docs/protocol.md §3).
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::client::{Client, types};

/// The event types that the document names, and the frames about the connection.
pub(crate) const DOCUMENT_TYPES: [&str; 14] = [
    "session.ready",
    "session.replay_start",
    "session.replay_end",
    "task:token",
    "task:tool_use",
    "task:tool_result",
    "task:ask_user",
    "turn.continuing",
    "turn.done",
    "task:done",
    "task:failed",
    "error",
    // Only who sends a `request_id` or a `ping`, which the document doesn't know, gets these.
    "ack",
    "pong",
];

/// A text field, which must be there.
pub(crate) fn text(frame: &Value, field: &str) -> String {
    frame[field].as_str().unwrap_or_else(|| panic!("`{field}` is a text in {frame}")).to_owned()
}

/// The place of an event; `None` for frames about the connection.
pub(crate) fn seq(frame: &Value) -> Option<u64> {
    frame["seq"].as_u64()
}

/// The places of all events among `frames`.
pub(crate) fn seqs(frames: &[Value]) -> Vec<u64> {
    frames.iter().filter_map(seq).collect()
}

/// The last frame, which ends what was read.
pub(crate) fn last(frames: &[Value]) -> &Value {
    frames.last().expect("at least one frame")
}

/// The only frame of a type.
pub(crate) fn only<'a>(frames: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = frames.iter().filter(|frame| frame["type"] == kind).collect();
    assert_eq!(found.len(), 1, "one `{kind}` in {:?}", types(frames));
    found[0]
}

/// The frames of a task.
pub(crate) fn of_task(frames: &[Value], task: &str) -> Vec<Value> {
    frames.iter().filter(|frame| frame["task_id"] == task && seq(frame).is_some()).cloned().collect()
}

/// Frames as they came, with the signatures of links to files cut out: those are fresh every time.
pub(crate) fn unsigned(text: &str) -> String {
    let mut parts = text.split("_pvt=");
    let mut cut = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_token = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
        cut.push_str("_pvt=");
        cut.push_str(part.trim_start_matches(is_token));
    }
    cut
}

/// Replays a session from its beginning: the frames between the marks, exactly as they came.
pub(crate) async fn replay_texts(client: &mut Client, session: &str) -> Vec<String> {
    replay_texts_of(client, json!({"type": "session.resume", "session_id": session})).await
}

/// Replays a session as `resume` asks. Checks both marks (G3).
pub(crate) async fn replay_texts_of(client: &mut Client, mut resume: Value) -> Vec<String> {
    let request = uuid::Uuid::now_v7().to_string();
    resume["request_id"] = json!(request);
    client.send(resume).await;
    let start = client.until(|frame| frame["request_id"] == request.as_str()).await.pop().unwrap();
    assert_eq!(start["type"], "session.replay_start", "{start}");
    let (after, head) = (start["after_seq"].as_u64().unwrap(), start["last_seq"].as_u64().unwrap());
    let mut texts = Vec::new();
    loop {
        let text = client.next_text().await;
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["session_id"] != start["session_id"] {
            continue; // Of another session that this connection follows.
        }
        if frame["type"] == "session.replay_end" {
            assert_eq!(frame["last_seq"], head, "{frame}");
            assert_eq!(frame["count"], texts.len() as u64, "{frame}");
            return texts;
        }
        let seq = seq(&frame).unwrap_or_else(|| panic!("an event between the marks, not {frame}"));
        assert!(after < seq && seq <= head, "{seq} in ({after}, {head}]");
        texts.push(text);
    }
}

/// The same, parsed.
pub(crate) async fn replay(client: &mut Client, session: &str) -> Vec<Value> {
    replay_texts(client, session).await.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// Checks G4 and G5 on a session's history as an extended client sees it, and the order of `seq`.
/// Every task in it must have ended.
pub(crate) fn check_history(frames: &[Value]) {
    let seqs = seqs(frames);
    assert!(seqs.is_sorted_by(|one, next| one < next), "in order, each once: {seqs:?}");
    let mut tasks: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for frame in frames {
        assert!(frame.get("request_id").is_none(), "no event carries a `request_id`: {frame}");
        assert!(frame["ts"].is_i64(), "{frame}");
        if let Some(task) = frame["task_id"].as_str() {
            tasks.entry(task.to_owned()).or_default().push(frame);
        }
    }
    for (task, events) in tasks {
        check_task(&task, &events);
    }
}

fn check_task(task: &str, events: &[&Value]) {
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let is_end = |kind: &&str| matches!(*kind, "task:done" | "task:failed");
    let ends: Vec<_> = kinds.iter().copied().filter(|kind| is_end(kind)).collect();
    assert_eq!(ends.len(), 1, "exactly one end of `{task}`: {kinds:?}");
    let end = events[events.len() - 1];
    assert!(is_end(&end["type"].as_str().unwrap()), "nothing of `{task}` after its end: {kinds:?}");

    let turns = kinds.iter().filter(|kind| **kind == "turn.done").count();
    let started = kinds.contains(&"task:started");
    let expected = usize::from(end["type"] == "task:done" && started);
    assert_eq!(turns, expected, "one `turn.done` per turn that did not fail: {kinds:?}");
    if turns == 1 {
        let done = kinds.iter().position(|kind| *kind == "turn.done").unwrap();
        assert_eq!(done, kinds.len() - 2, "`turn.done`, then `task:done`: {kinds:?}");
        let cancelled = events[done]["stop_reason"] == "cancelled";
        assert_eq!(end["status"], if cancelled { "cancelled" } else { "completed" });
    }

    let mut open: HashMap<&str, &Value> = HashMap::new();
    let mut closed: Vec<&str> = Vec::new();
    for event in events {
        let id = event["tool_use_id"].as_str();
        match event["type"].as_str().unwrap() {
            "task:tool_use" => {
                let id = id.unwrap();
                assert!(!closed.contains(&id) && open.insert(id, event).is_none(), "`{id}` names one call: {kinds:?}");
            }
            "task:tool_result" => {
                let id = id.unwrap();
                let call = open.remove(id).unwrap_or_else(|| panic!("one result follows its call `{id}`: {kinds:?}"));
                assert_eq!(call["tool"], event["tool"]);
                closed.push(id);
            }
            _ => (),
        }
    }
    assert!(open.is_empty() || end["type"] == "task:failed", "no call of `{task}` is left open: {kinds:?}");
}
