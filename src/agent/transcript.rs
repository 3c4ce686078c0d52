//! For the tests of dialects: events in words, recorded transcripts, and what they should come to.
//!
//! A trace is a file of lines `{"t": seconds, "d": "<", "m": message}`: `<` was said by the agent, `>` was said to
//! it, `!` is its stderr, `#` a note of the recorder, the agent's arguments among them. Beside it, in a `.txt` of the
//! same name, is what the adapter makes of it, one event a line, read and found right by somebody.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::AgentEvent;

/// Set to write the snapshots anew.
const WRITE: &str = "STREAMGATE_WRITE_SNAPSHOTS";

/// A line of a trace.
#[derive(Deserialize)]
pub(super) struct Traced {
    /// Who says it.
    pub(super) d: String,
    /// What was said, as it was.
    pub(super) m: Box<RawValue>,
}

/// The lines of the trace at `path`.
pub(super) fn trace(path: &Path) -> Vec<Traced> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The traces of one kind of agent, by name.
pub(super) fn traces(kind: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = files(kind, "jsonl").into_iter().collect();
    paths.sort();
    assert!(!paths.is_empty(), "no traces of `{kind}`");
    paths
}

fn files(kind: &str, extension: &str) -> BTreeSet<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agent-traces").join(kind);
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Compares what `decode` makes of each trace with the snapshot beside it. One that is missing, differs, or has no
/// trace fails.
pub(super) fn check_snapshots(kind: &str, decode: impl Fn(&Path) -> Vec<String>) {
    let mut wrong = Vec::new();
    let mut unknown = files(kind, "txt");
    for path in traces(kind) {
        let snapshot = path.with_extension("txt");
        unknown.remove(&snapshot);
        let decoded = decode(&path).join("\n") + "\n";
        if std::env::var_os(WRITE).is_some() {
            fs::write(&snapshot, decoded).unwrap();
        } else if fs::read_to_string(&snapshot).ok() != Some(decoded) {
            wrong.push(snapshot);
        }
    }
    wrong.extend(unknown);
    assert!(
        wrong.is_empty(),
        "snapshots that are wrong, missing or of no trace (set {WRITE}=1, then read the diff): {wrong:#?}"
    );
}

/// One event in a line of words.
pub(super) fn show(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Text(text) => format!("text {text:?}"),
        AgentEvent::ToolUse { id, tool, input } => format!("use {id} {tool} {input}"),
        AgentEvent::ToolResult { id, output, is_error } => format!("result {id} {output:?} error={is_error}"),
        AgentEvent::Ask { id, questions } => {
            let mut shown = format!("ask {id}");
            for question in questions {
                let labels: Vec<_> = question.options.iter().map(|option| option.label.as_str()).collect();
                write!(shown, " {:?} {labels:?} multi={}", question.question, question.multi_select).unwrap();
            }
            shown
        }
        AgentEvent::Stopped { reason, usage, cost_known, num_turns } => format!(
            "stopped {reason:?} {}/{}/{} known={cost_known} turns={num_turns}",
            usage.input_tokens, usage.output_tokens, usage.cost_usd
        ),
        AgentEvent::Tell(tell) => format!("tell {tell:?}"),
    }
}
