//! Tasks and sessions: accept, queue, run, cancel, answer, end. To come.

pub mod invariants;
pub mod result_text;
