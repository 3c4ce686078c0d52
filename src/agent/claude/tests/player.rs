//! Plays a trace: its lines to the adapter, and what its host said as commands.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::super::ClaudeAdapter;
use super::{encoded, turn};
use crate::agent::transcript::{show, trace};
use crate::agent::{Adapter as _, AgentCommand, AgentEvent, Process, Setup, StopReason, Tell, Turn};
use crate::config::PermissionPolicy;
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

/// What happens to an adapter.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Its agent said this.
    Line(String),
    /// Its agent is to be told this, under this id.
    Command(String, AgentCommand),
}

/// A trace as steps, and what the adapter is set up with.
pub(super) struct Played {
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    /// What each step came to.
    pub(super) shown: Vec<Vec<String>>,
}

/// One step; what it came to, in words.
pub(super) fn step(adapter: &mut ClaudeAdapter, step: &Step) -> Vec<String> {
    match step {
        Step::Line(line) => super::decoded(adapter, line),
        Step::Command(id, command) => encoded(adapter, id, command).iter().map(show_tell).collect(),
    }
}

pub(super) fn show_tell(tell: &Tell) -> String {
    match tell {
        Tell::Launch(arguments) => format!("> launch {arguments:?}"),
        Tell::Write { id, text } => format!("> {id} {}", text.trim_end()),
    }
}

/// Plays the trace at `path`.
pub(super) fn play(path: &Path) -> Played {
    let mut player = Player::default();
    let mut setup = super::setup(PermissionPolicy::Allow);
    let mut adapter = None;
    for traced in trace(path) {
        let said: Value = serde_json::from_str(traced.m.get()).unwrap();
        // What was sent as it was; some of it was no JSON.
        let said = match said["_raw"].as_str() {
            Some(raw) => serde_json::from_str(raw).unwrap_or_default(),
            None => said,
        };
        match traced.d.as_str() {
            "#" if adapter.is_none() => {
                let arguments: Vec<&str> =
                    said["cmd"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
                let value = |flag| arguments.iter().position(|argument| *argument == flag).map(|at| arguments[at + 1]);
                let unasked = value("--permission-mode") == Some("bypassPermissions")
                    || arguments.contains(&"--dangerously-skip-permissions");
                setup.permissions = if unasked { PermissionPolicy::Allow } else { PermissionPolicy::Ask };
                setup.has_memory = arguments.contains(&"--resume");
                player.turn = Some(Turn {
                    model: value("--model").map(str::to_owned),
                    max_turns: value("--max-turns").map(|turns| turns.parse().unwrap()),
                    system_prompt: value("--append-system-prompt").map(str::to_owned),
                    ..turn("")
                });
                adapter = Some(ClaudeAdapter::new(setup.clone(), &Value::Null, Process::New));
            }
            "<" => player.hears(adapter.as_mut().unwrap(), traced.m.get(), &said),
            ">" => player.host_says(adapter.as_mut().unwrap(), &said),
            _ => (),
        }
    }
    Played { setup, steps: player.steps, shown: player.shown }
}

#[derive(Default)]
struct Player {
    turn: Option<Turn>,
    steps: Vec<Step>,
    shown: Vec<Vec<String>>,
    /// The tool calls of control requests.
    tools: HashMap<String, String>,
    /// What was asked, by tool call.
    asked: HashMap<String, Vec<Question>>,
    /// Whether a turn is at work; and what waits for its end.
    at_work: bool,
    waiting: Vec<String>,
    reached_max_turns: bool,
    commands: usize,
}

impl Player {
    fn hears(&mut self, adapter: &mut ClaudeAdapter, line: &str, said: &Value) {
        if let (Some(id), Some(tool)) = (said["request_id"].as_str(), said["request"]["tool_use_id"].as_str()) {
            self.tools.insert(id.to_owned(), tool.to_owned());
        }
        let mut events = Vec::new();
        let refused = adapter.decode(line, &mut events).is_err();
        for event in &events {
            match event {
                AgentEvent::Ask { id, questions } => drop(self.asked.insert(id.clone(), questions.clone())),
                AgentEvent::Stopped { reason, .. } => {
                    self.at_work = false;
                    self.reached_max_turns = *reason == StopReason::MaxTurns;
                }
                _ => (),
            }
        }
        self.steps.push(Step::Line(line.to_owned()));
        self.shown.push(if refused { vec!["refused".to_owned()] } else { events.iter().map(show).collect() });
        if !self.at_work && !self.waiting.is_empty() {
            let prompt = self.waiting.remove(0);
            self.prompt(adapter, &prompt);
        }
    }

    fn host_says(&mut self, adapter: &mut ClaudeAdapter, said: &Value) {
        match said["type"].as_str() {
            Some("user") => {
                let content = &said["message"]["content"];
                let prompt = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap();
                if self.at_work {
                    self.waiting.push(prompt.to_owned()); // The gateway runs one task at a time.
                } else {
                    self.prompt(adapter, prompt);
                }
            }
            Some("control_request") if said["request"]["subtype"] == "interrupt" => {
                self.command(adapter, "interrupt", AgentCommand::Interrupt);
            }
            Some("control_response") => self.answer(adapter, &said["response"]),
            _ => (),
        }
    }

    fn prompt(&mut self, adapter: &mut ClaudeAdapter, prompt: &str) {
        let command = if self.reached_max_turns && prompt == "continue" {
            AgentCommand::Continue
        } else {
            AgentCommand::Turn(Box::new(Turn { prompt: prompt.to_owned(), ..self.turn.clone().unwrap() }))
        };
        self.at_work = true;
        self.command(adapter, "prompt", command);
    }

    fn answer(&mut self, adapter: &mut ClaudeAdapter, response: &Value) {
        let asked = response["request_id"].as_str().and_then(|id| self.tools.get(id));
        let Some((id, questions)) = asked.and_then(|tool| self.asked.get_key_value(tool)) else { return };
        let verdict = &response["response"];
        let answer = match (&verdict["updatedInput"]["answers"], verdict["behavior"].as_str()) {
            (Value::Object(answers), _) => Answer::PerQuestion(
                answers.iter().map(|(question, answer)| (question.clone(), words(answer))).collect(),
            ),
            (_, Some("allow")) => Answer::Text("Allow".to_owned()),
            _ => return, // The gateway refuses no question of its agents.
        };
        let command = AgentCommand::Answer { id: id.clone(), questions: questions.clone(), answer };
        self.command(adapter, "answer", command);
    }

    fn command(&mut self, adapter: &mut ClaudeAdapter, kind: &str, command: AgentCommand) {
        self.commands += 1;
        let step = Step::Command(format!("{kind}-{}", self.commands), command);
        self.shown.push(self::step(adapter, &step));
        self.steps.push(step);
    }
}

/// Several choices as clients send them.
fn words(answer: &Value) -> String {
    let several = answer.as_array().map(|choices| choices.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    several.map_or_else(|| answer.as_str().unwrap().to_owned(), |choices| choices.join(", "))
}
