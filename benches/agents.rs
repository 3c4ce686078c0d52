//! How fast the agents that people run are behind the gateway, in containers, with a model that answers at once:
//! `STREAMGATE_TEST_POSTGRES=postgres://… cargo bench --bench agents`.
//!
//! Needs what `tests/agents/` needs. What the gateway adds is measured from the moment when the agent has written a
//! line to its stdout, which a filter between it and the gateway notes, until a client has the token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark that can't go on ends")]
#![allow(dead_code, reason = "tests need more of it")]
#![allow(clippy::disallowed_methods, reason = "its times are the wall clock's")]
#![allow(clippy::large_futures, reason = "they are made once")]

#[path = "../tests/support/client.rs"]
mod client;
#[path = "../tests/support/containers.rs"]
mod containers;
#[path = "../tests/support/database.rs"]
mod database;
#[path = "../tests/support/frames.rs"]
mod frames;
#[path = "../tests/support/mock_llm.rs"]
mod mock_llm;
#[path = "../tests/support/program.rs"]
mod program;
#[path = "../tests/support/shims.rs"]
mod shims;
#[path = "../tests/agents/world.rs"]
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use client::Client;
use containers::docker;
use world::{Agent, CLAUDE, CODEX, OPENCODE, PATIENCE, Session, World};

const ROUNDS: usize = 5;
const TOKENS: usize = 400;
/// Milliseconds from one token of the model to the next.
const PAUSE: usize = 25;

/// Passes lines on, and notes when one with a token came.
const STAMP: &str = r#"use Time::HiRes 'time'; $| = 1; open my $stamps, '>>', '/workspace/stamps' or die;
$stamps->autoflush(1);
while (<STDIN>) { my $now = time; print; print $stamps "$now\n" if /"text_delta"|"agent_message_chunk"/ && /"text":"word/ }"#;

#[tokio::main]
async fn main() {
    println!("| | container | first token, cold | first token, warm | memory | added to a token: p50 | p99 |");
    println!("|---|---|---|---|---|---|---|");
    for (name, agent) in [("Claude Code", CLAUDE), ("opencode", OPENCODE), ("Codex", CODEX)] {
        let (container, cold, warm, memory) = times(agent).await;
        let mut added = added(agent).await;
        added.sort_unstable();
        let at = |percent: usize| added[(added.len() - 1) * percent / 100];
        println!(
            "| {name} | {:.2} s | {:.2} s | {:.2} s | {memory} | {:.1} ms | {:.1} ms |",
            container.as_secs_f64(),
            cold.as_secs_f64(),
            warm.as_secs_f64(),
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3
        );
    }
}

fn is_token(frame: &Value) -> bool {
    frame["type"] == "task:token"
}

/// The medians of: a container's start, a first token of a new session, and of a later turn. And what the container's
/// memory is then.
async fn times(agent: Agent) -> (Duration, Duration, Duration, String) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let (mut container, mut cold, mut warm, mut memory) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let session = Session::start(&mut client).await;
        container.push(began.elapsed());
        end(&mut client, &session.id).await;

        let began = Instant::now();
        client.send(json!({"type": "task.submit", "prompt": "TEXT: hello"})).await;
        let ready = client.expect("session.ready").await;
        client.until(is_token).await;
        cold.push(began.elapsed());
        client.until_task_end().await;
        let session = Session::of(&ready);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            client.send(json!({"type": "session.turn", "session_id": session.id, "prompt": "TEXT: hello"})).await;
            client.until(is_token).await;
            warm.push(began.elapsed());
            client.until_task_end().await;
        }
        memory = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &session.container_name]).await.unwrap();
        end(&mut client, &session.id).await;
    }
    let memory = memory.split('/').next().unwrap().trim().replace("MiB", " MiB");
    (median(container), median(cold), median(warm), memory)
}

async fn end(client: &mut Client, session: &str) {
    let reply = client.request(json!({"type": "session.end", "session_id": session})).await;
    assert_eq!(reply["type"], "ack", "{reply}");
}

/// How much later than its agent has written it a client has each token.
async fn added(agent: Agent) -> Vec<Duration> {
    let stamped = |profile: &mut toml::Table| {
        let own = profile.get("command").cloned().unwrap_or_else(|| vec!["claude".to_owned()].into());
        let script = format!("\"$@\" | perl -e '{}'", STAMP.replace('\'', r"'\''"));
        let mut command: Vec<toml::Value> = ["bash", "-c", &script, "stamp"].map(toml::Value::from).into();
        command.extend(own.as_array().unwrap().iter().cloned());
        profile.insert("command".to_owned(), command.into());
    };
    let world = World::with(agent, stamped, &[]).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "TEXT: ready").await;
    let words: Vec<String> = (0..TOKENS).map(|number| format!("word{number}")).collect();
    let prompt = format!("SLOW: {PAUSE} {}", words.join(" "));
    client.send(json!({"type": "session.turn", "session_id": session.id, "prompt": prompt})).await;
    let mut seen = Vec::new();
    loop {
        let frame = client.next().await;
        if is_token(&frame) {
            seen.push(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        }
        if frame["type"] == "task:done" {
            break;
        }
        assert_ne!(frame["type"], "task:failed", "{frame}");
    }
    let stamps = std::fs::read_to_string(world.file(&session, "stamps")).unwrap();
    let written: Vec<_> = stamps.lines().map(|line| Duration::from_secs_f64(line.parse().unwrap())).collect();
    assert_eq!(written.len(), seen.len(), "a token a line");
    seen.iter().zip(written).map(|(seen, written)| seen.saturating_sub(written)).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
