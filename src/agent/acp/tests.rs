//! Recorded conversations with real agents (`play`), what is written down about them (`snapshot`), restarts in the
//! middle of them (`restarts`), damage on the way (`damage`), and what no recording has (`unusual`).

mod damage;
mod play;
mod restarts;
mod snapshot;
mod unusual;

use super::*;
use crate::agent::transcript;
use crate::config::PermissionPolicy;
use crate::domain::{SessionId, TaskId};

/// An adapter for an agent that has said nothing.
fn adapter(permissions: PermissionPolicy, state: &Value, process: Process) -> AcpAdapter {
    let setup =
        Setup { session_id: SessionId::generate(), cwd: "/workspace".to_owned(), permissions, has_memory: false };
    AcpAdapter::new(setup, state, process)
}

fn turn(prompt: &str) -> Turn {
    Turn {
        session_id: SessionId::generate(),
        task_id: TaskId::generate(),
        prompt: prompt.to_owned(),
        system_prompt: None,
        allowed_tools: None,
        max_turns: None,
        model: None,
    }
}

/// One event in a line of words, costs to a millionth.
fn show(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Stopped { reason, usage, cost_known, num_turns } => format!(
            "stopped {reason:?} {}/{}/{:.6} known={cost_known} turns={num_turns}",
            usage.input_tokens, usage.output_tokens, usage.cost_usd
        ),
        AgentEvent::Tell(tell) => show_tell(tell),
        event => transcript::show(event),
    }
}

fn show_tell(tell: &Tell) -> String {
    match tell {
        Tell::Launch(arguments) => format!("launch {arguments:?}"),
        Tell::Write { id, text } => format!("tell {id}: {}", text.trim_end().replace('\n', " ⏎ ")),
    }
}
