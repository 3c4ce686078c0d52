//! The Agent Client Protocol, version 1: what most agents speak that editors can drive (opencode, codex-acp,
//! gemini-cli, qwen-code, claude-agent-acp, and others). JSON-RPC 2.0 on stdio, both sides ask and answer.
//!
//! `wire` spells the messages, `handshake` leads from a silent process to a prompt, `updates` hears the agent work,
//! `asking` (with `permission` and `elicitation`) answers what it asks, `ending` says how its turn went, `state` is
//! what a restart of the gateway must not forget.
//!
//! Every request to the agent bears the id of the command that it came from, with what it is for behind a slash. So
//! the same command comes to the same requests whenever it is given, and an answer that is late is nobody's.

mod asking;
mod elicitation;
mod ending;
mod handshake;
mod permission;
mod state;
mod updates;
mod wire;

use serde_json::{Value, json};

use self::state::{Phase, State};
use self::wire::Message;
use super::{Adapter, AgentCommand, AgentEvent, DecodeError, Process, Setup, Tell, Turn};

/// One agent's side of the protocol.
pub struct AcpAdapter {
    setup: Setup,
    state: State,
    /// The turn at work, with what is too big for the state: it is given again after a restart.
    given: Option<Box<Turn>>,
    /// How many continuations have been given since.
    continuations: u32,
}

impl AcpAdapter {
    /// An adapter with what the one before it knew.
    pub fn new(setup: Setup, state: &Value, process: Process) -> Self {
        Self { setup, state: State::read(state, process), given: None, continuations: 0 }
    }

    fn responded(&mut self, id: &str, outcome: Result<&str, wire::RpcError>, events: &mut Vec<AgentEvent>) {
        match self.state.phase.clone() {
            Phase::Initializing(request) if request == id => self.initialized(outcome, events),
            Phase::Opening(request, way) if request == id => self.opened(id, way, outcome, events),
            Phase::SettingMode(request, mode) if request == id => self.mode_set(id, mode, events),
            Phase::Ready if self.state.turn.prompt.as_deref() == Some(id) => self.prompted(outcome, events),
            _ => (), // Of a prompt that is over, or a second one.
        }
    }

    /// Begins a prompt, or says again how it began.
    fn prompt_with(&mut self, id: &str, known: bool) -> Option<Tell> {
        if !known {
            self.state.begin_prompt(id);
        }
        if self.state.turn.prompt.as_deref() == Some(id) { self.step() } else { None }
    }

    fn interrupt(&mut self, id: &str) -> Option<Tell> {
        self.state.turn.prompt.as_ref()?;
        self.state.turn.interrupted = true;
        if self.state.phase != Phase::Ready {
            return None; // There is nothing to cancel yet: the handshake stops with what comes next.
        }
        let session = json!({"sessionId": self.state.session});
        let text = wire::notification("session/cancel", &session) + &self.withdraw_all(id);
        Some(Tell::Write { id: id.to_owned(), text })
    }
}

impl Adapter for AcpAdapter {
    /// claude-agent-acp takes settings with the session alone; the others take none.
    fn fits(&self, turn: &Turn) -> bool {
        let settings = &self.state.settings;
        !self.state.agent.claude || settings.is_empty() || *settings == handshake::digest(turn)
    }

    fn decode(&mut self, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let message = Message::read(line)?;
        self.close_answered(events);
        match message {
            Message::Request { id, method, params } => self.requested(&id, &method, params, events),
            Message::Notification { method, params } if method == "session/update" => self.update(params, events),
            Message::Notification { .. } => (),
            Message::Response { id, outcome } => self.responded(&id, outcome, events),
        }
        Ok(())
    }

    fn encode(&mut self, id: &str, command: &AgentCommand, tells: &mut Vec<Tell>) {
        let tell = match command {
            AgentCommand::Turn(turn) => {
                (self.given, self.continuations) = (Some(turn.clone()), 0);
                let known = self.state.turn.task == id;
                if !known {
                    (self.state.turn.task, self.state.turn.continuations) = (id.to_owned(), 0);
                }
                self.prompt_with(id, known)
            }
            AgentCommand::Continue => {
                self.continuations += 1;
                let known = self.continuations <= self.state.turn.continuations;
                self.state.turn.continuations = self.state.turn.continuations.max(self.continuations);
                self.prompt_with(id, known)
            }
            AgentCommand::Interrupt => self.interrupt(id),
            AgentCommand::Answer { id: tool, questions, answer } => self.answer(id, tool, questions, answer),
        };
        tells.extend(tell);
    }

    fn tell_again(&self, tells: &mut Vec<Tell>) {
        tells.extend(self.state.replies.iter().cloned().map(|(id, text)| Tell::Write { id, text }));
    }

    fn state(&self) -> Value {
        #[expect(clippy::expect_used, reason = "names, numbers and lists can't fail to encode")]
        serde_json::to_value(&self.state).expect("a state encodes")
    }
}

#[cfg(test)]
mod tests;
