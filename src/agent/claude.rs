//! Claude Code's dialect: stream-json on stdin and stdout, with control requests in both directions.
//!
//! One process is one conversation, for any number of turns. It is launched with its first turn, because some of
//! a turn's settings are arguments (`launch`); a turn with others needs another process, which takes up the
//! conversation. What its lines mean is in `decode`, how a turn ends in `end`, what it asks for in `asks`.
//! Measured with version 2.1.197; what other versions add is skipped.

mod asks;
mod decode;
mod end;
mod launch;
mod state;
mod wire;

use serde_json::Value;

use self::launch::Arguments;
pub use self::launch::memory_file;
use self::state::State;
use super::{Adapter, AgentCommand, AgentEvent, DecodeError, Process, Setup, Tell, Turn};

/// What a turn that is continued is told. The agent counts its model calls anew then.
const CONTINUE: &str = "continue";

/// Claude Code's dialect.
#[derive(Debug)]
pub struct ClaudeAdapter {
    setup: Setup,
    state: State,
    /// Whether this adapter has told its agent to start: if that has been done before, it is not done again.
    launched: bool,
}

impl ClaudeAdapter {
    /// For an agent of the session in `setup`; `state` is what the adapter before it knew.
    pub fn new(setup: Setup, state: &Value, process: Process) -> Self {
        let mut state = State::read(state);
        if process == Process::New {
            state.begin_process();
        }
        Self { setup, state, launched: false }
    }

    fn say(&mut self, id: &str, text: &str, tells: &mut Vec<Tell>) {
        self.state.process.owes_end = true;
        tells.push(wire::prompt(id, text));
    }
}

impl Adapter for ClaudeAdapter {
    fn fits(&self, turn: &Turn) -> bool {
        let arguments = Arguments::of(turn, self.setup.permissions);
        let (process, conversation) = (&self.state.process, &self.state.conversation);
        process.launched.as_ref().is_none_or(|launched| {
            launched.arguments == arguments.digest() && launched.conversation == conversation.number
        })
    }

    fn decode(&mut self, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
        decode::line(&mut self.state, self.setup.permissions, line, events)
    }

    fn encode(&mut self, id: &str, command: &AgentCommand, tells: &mut Vec<Tell>) {
        match command {
            AgentCommand::Turn(turn) => {
                if !self.launched {
                    self.launched = true;
                    tells.push(launch::tell(&self.setup, &mut self.state, turn));
                }
                self.say(id, &turn.prompt, tells);
            }
            AgentCommand::Continue => self.say(id, CONTINUE, tells),
            AgentCommand::Interrupt => tells.push(wire::interrupt(id)),
            AgentCommand::Answer { id: tool, questions, answer } => {
                // Without a request that waits, it was withdrawn, or has long been answered.
                tells.extend(asks::answer(&mut self.state.process, id, tool, questions, answer));
            }
        }
    }

    fn tell_again(&self, tells: &mut Vec<Tell>) {
        tells.extend(self.state.process.settled.iter().map(asks::Settled::tell));
    }

    fn saves_at_end(&self) -> bool {
        // Killed within some 20 ms of a turn's end, it has lost the turn; by SIGINT it ends in 30 ms and has not.
        self.state.process.launched.is_some()
    }

    fn state(&self) -> Value {
        self.state.json()
    }
}

#[cfg(test)]
mod tests;
