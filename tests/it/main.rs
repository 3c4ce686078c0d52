//! The guarantees, the errors and the doors of the gateway, driven from outside through real sockets,
//! on both databases, with real agents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, reason = "test names are sentences")]
#![allow(clippy::large_futures, reason = "a test's future is made once")]

#[path = "../support/client.rs"]
mod client;
#[path = "../support/containers.rs"]
mod containers;
#[path = "../support/database.rs"]
mod database;
#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/mock_llm.rs"]
mod mock_llm;
mod outage;
#[path = "../support/program.rs"]
mod program;
mod raw;
#[path = "../support/shims.rs"]
mod shims;
mod support;
mod world;

mod closes;
mod docker;
mod drain;
mod errors;
mod guarantees;
mod limits;
mod open_files;
mod panics;
mod protocol;
mod rest;
mod retention;
mod schemas;
mod sockets;
mod upgrade;

use support::PATIENCE;
