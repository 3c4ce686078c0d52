//! The adapter by recorded transcripts (`transcripts`), by restarts in the middle of them (`restart`), by transcripts
//! that were damaged on the way (`garbled`), and by single facts.

mod garbled;
mod launching;
mod player;
mod restart;
mod transcripts;
mod turns;

use serde_json::{Value, json};

use super::ClaudeAdapter;
use crate::agent::transcript::show;
use crate::agent::{Adapter as _, AgentCommand, Process, Setup, Tell, Turn};
use crate::config::PermissionPolicy;
use crate::domain::{SessionId, TaskId};

const SESSION: &str = "sess_0192f0c1d2e37f40a5b6c7d8e9f00112";
const TASK: &str = "task_0192f0c1d2e37f40a5b6c7d8e9f00113";

fn setup(permissions: PermissionPolicy) -> Setup {
    let session_id = SessionId::parse(SESSION).unwrap();
    Setup { session_id, cwd: "/workspace".to_owned(), permissions, has_memory: false }
}

fn new(permissions: PermissionPolicy) -> ClaudeAdapter {
    ClaudeAdapter::new(setup(permissions), &Value::Null, Process::New)
}

fn turn(prompt: &str) -> Turn {
    Turn {
        session_id: SessionId::parse(SESSION).unwrap(),
        task_id: TaskId::parse(TASK).unwrap(),
        prompt: prompt.to_owned(),
        system_prompt: None,
        allowed_tools: None,
        max_turns: None,
        model: None,
    }
}

/// What an adapter that works on a turn makes of `lines`.
fn at_work(adapter: &mut ClaudeAdapter, lines: &[Value]) -> Vec<String> {
    encoded(adapter, "turn", &AgentCommand::Turn(Box::new(turn("go"))));
    heard(adapter, &json!({"type": "system", "subtype": "init"}));
    lines.iter().flat_map(|line| heard(adapter, line)).collect()
}

fn heard(adapter: &mut ClaudeAdapter, line: &Value) -> Vec<String> {
    decoded(adapter, &line.to_string())
}

fn decoded(adapter: &mut ClaudeAdapter, line: &str) -> Vec<String> {
    let mut events = Vec::new();
    if adapter.decode(line, &mut events).is_err() {
        assert!(events.is_empty(), "a refused line has no events: {line}");
        return vec!["refused".to_owned()];
    }
    events.iter().map(show).collect()
}

fn encoded(adapter: &mut ClaudeAdapter, id: &str, command: &AgentCommand) -> Vec<Tell> {
    let mut tells = Vec::new();
    adapter.encode(id, command, &mut tells);
    tells
}

/// The JSON of the only line that is told.
fn line_of(tells: &[Tell]) -> Value {
    let [Tell::Write { text, .. }] = tells else { panic!("one write, not {tells:?}") };
    let line = text.strip_suffix('\n').expect("a whole line");
    assert!(!line.contains('\n'), "one line");
    serde_json::from_str(line).unwrap()
}
