//! What a gateway and the shim beside an agent share: how a spool is kept, and how they talk.
//!
//! The shim itself is the program of this package: it starts an agent, keeps what the agent says in a
//! spool until the gateway has it safe, and outlives the gateway.

pub mod control;
pub mod record;
