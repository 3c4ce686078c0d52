//! The fault suite: the real program between a real Postgres and real agents, each in the hands of a saboteur.
//!
//! An agent says numbers. Three clients, one steady, one that flaps, one slow, write down every frame. At the end what
//! the agent said, what the journal holds and what each client saw must be the same, in order, each once, byte for
//! byte. Chances are drawn from a seed, which is printed; `STREAMGATE_FAULT_SEED` sets it.
//!
//! `STREAMGATE_TEST_BINARY` names the program; `scripts/test` gives the release build. A test starts a Postgres of its
//! own, to be free to kill it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "what was measured is for people")]
#![allow(missing_docs, reason = "test names are sentences")]
#![allow(clippy::large_futures, reason = "a test's future is made once")]

mod docker;
mod dockerd;
mod gauges;
mod paced;
mod postgres;
#[path = "../support/program.rs"]
mod program;
mod proxy;
#[path = "../support/shims.rs"]
mod shims;
mod story;
mod witness;
mod world;

mod agents;
mod clients;
mod engine;
mod gateway;
mod host;
mod journal;
mod orphans;
mod rolling;
mod soak;
mod spool;
