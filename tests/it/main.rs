//! The guarantees, the errors and the doors of the gateway, driven from outside through real sockets,
//! on both databases, with real agents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, reason = "test names are sentences")]

#[path = "../support/containers.rs"]
mod containers;
#[path = "../support/database.rs"]
mod database;
mod frames;
#[path = "../support/program.rs"]
mod program;
mod support;
mod world;

mod docker;
mod guarantees;
mod protocol;
mod rest;
