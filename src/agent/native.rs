//! The native line protocol. To come.
use super::{Adapter, AgentCommand, AgentEvent, DecodeError};

/// The native dialect.
#[derive(Default)]
pub struct NativeAdapter {}

impl Adapter for NativeAdapter {
    fn decode(&mut self, _line: &str, _events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
        Ok(())
    }
    fn encode(&mut self, _command: &AgentCommand, _stdin: &mut Vec<u8>) {}
}
