//! How long a first token takes in a container: warm, and cold against `docker run` of the same image
//! with the same prompt, in one run:
//! `STREAMGATE_TEST_POSTGRES=postgres://… cargo bench --bench first_token`.
//!
//! Needs the engine and the image `streamgate-demo-agent:test`, which `scripts/test` builds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark that can't go on ends")]

#[path = "../tests/support/database.rs"]
mod database;

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use streamgate::app::App;
use streamgate::config::{Config, ProfileConfig, RuntimeKind};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

const IMAGE: &str = "streamgate-demo-agent:test";
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() {
    let warm = gateway_times(1).await;
    let cold = gateway_times(0).await;
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        runs.push(docker_run().await);
    }
    let run = median(runs);
    println!("first token, warm container: {:6.1} ms", warm.as_secs_f64() * 1e3);
    println!("first token, cold container: {:6.1} ms", cold.as_secs_f64() * 1e3);
    println!("first token of `docker run`: {:6.1} ms", run.as_secs_f64() * 1e3);
    println!("cold against `docker run`: {:.2}", cold.as_secs_f64() / run.as_secs_f64());
}

/// From `task.submit` to the first token, each time in a new session.
async fn gateway_times(warm: usize) -> Duration {
    let database = database::postgres().await;
    let directory = tempfile::tempdir().unwrap();
    let mut config =
        Config { listen: ([127, 0, 0, 1], 0).into(), data_dir: directory.path().to_owned(), ..Config::default() };
    config.admin.listen = config.listen;
    config.database.url.clone_from(&database.url);
    config.runtime.kind = RuntimeKind::Docker;
    let demo = ProfileConfig { image: IMAGE.to_owned(), command: Vec::new(), warm, ..ProfileConfig::demo() };
    config.profiles.insert("demo".to_owned(), demo);
    let app = App::start(config).await.unwrap();
    let token = app.first_token().unwrap().reveal().to_owned();
    let url = format!("ws://{}/v1/stream?token={token}", app.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        while app.shared().orchestrator.pool().stats().warm < warm {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        socket.send(Message::text(json!({"type": "task.submit", "prompt": "hello"}).to_string())).await.unwrap();
        let session = next(&mut socket, "task:token").await;
        times.push(began.elapsed());
        socket
            .send(Message::text(json!({"type": "session.end", "request_id": "end", "session_id": session}).to_string()))
            .await
            .unwrap();
        next(&mut socket, "ack").await;
    }
    app.shutdown().await;
    median(times)
}

/// Waits for a frame of a type; its session.
async fn next<S>(socket: &mut S, kind: &str) -> String
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        assert!(frame["type"] != "error" && frame["type"] != "task:failed", "{frame}");
        if frame["type"] == kind {
            return frame["session_id"].as_str().unwrap().to_owned();
        }
    }
}

/// From `docker run` to the first text.
async fn docker_run() -> Duration {
    let began = Instant::now();
    let mut child = Command::new("docker")
        .args(["run", "--rm", "-i", "--network", "none", IMAGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the docker command; install it: apt-get install docker.io");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"{\"type\":\"turn\",\"session_id\":\"s\",\"task_id\":\"t\",\"prompt\":\"hello\"}\n")
        .await
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("a text line").contains("\"text\"") {}
    let time = began.elapsed();
    drop(stdin);
    child.wait().await.unwrap();
    time
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
