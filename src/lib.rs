//! streamgate: a WebSocket gateway that streams AI agents at work.
//!
//! The modules in reading order: from the words everybody speaks, through the journal and the
//! sessions, up to the doors. Arrows point from later to earlier ones only.

pub mod domain;

pub mod config;

pub mod protocol;

pub mod metrics;

pub mod database;

pub mod journal;

pub mod store;

pub mod hub;

pub mod auth;

pub mod agent;

pub mod proxy;

pub mod runtime;

pub mod orchestrator;

pub mod connection;

pub mod http;

pub mod node;

pub mod shutdown;

pub mod app;
