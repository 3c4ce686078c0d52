//! streamgate: a WebSocket gateway that streams AI agents at work.
//!
//! The modules in reading order: from the words everybody speaks, through the journal and the
//! sessions, up to the doors. Arrows point from later to earlier ones only.

pub mod agent;
pub mod app;
pub mod auth;
pub mod config;
pub mod database;
pub mod domain;
pub mod hub;
pub mod journal;
pub mod orchestrator;
pub mod protocol;
pub mod runtime;
pub mod store;
