//! What the protocol says of frames (docs/protocol.md §2), as behaviour: on both databases, with the
//! real agent.

mod access;
mod answers;
mod cancelling;
mod failures;
mod following;
mod keys;
mod polish;
mod queue;
mod replies;
mod submitting;
mod turns;
