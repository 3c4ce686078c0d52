//! What the protocol says, as behaviour.
