//! What "durable first, visible second" costs: how long a word takes from the moment it was due until a client has
//! read it, 100 sessions × 50 words a second, in rounds that alternate between a Postgres that syncs every commit
//! and one that doesn't (`synchronous_commit`): `cargo bench --bench durable`.
//!
//! All is real: the gateway's program, its process runtime, an agent and a socket per session, and a Postgres of its
//! own with the settings that it comes with. All share this machine, so the load is measured too. Linux only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark that can't go on ends")]

mod agent;
mod cluster;
#[path = "../../tests/support/program.rs"]
mod program;
#[path = "../../tests/support/shims.rs"]
mod shims;

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use agent::now;
use cluster::{Cluster, idle_seconds};
use program::Program;
use shims::DataDir;

const SESSIONS: usize = 100;
/// Between two words of a session, in microseconds.
const APART: u64 = 20_000;
/// Of a session and a round.
const WORDS: usize = 500;
/// At the start and at the end of a round: not all sessions are at work.
const LEFT_OUT: usize = 75;
/// Between the starts of two sessions in a round.
const STAGGER: Duration = Duration::from_millis(10);
/// How many times with, and without.
const PAIRS: usize = 7;
/// For everything that is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

// One thread: it has little to do, and the machine's other cores have other work.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(agent::ARGUMENT) {
        return agent::run();
    }
    let cluster = Cluster::start().await;
    println!("{}", cluster.describe().await);
    println!("{SESSIONS} sessions × {} words/s, {} s a round\n", 1_000_000 / APART, WORDS as u64 * APART / 1_000_000);

    let data = DataDir::new();
    let gateway = start_gateway(&cluster, data.path().to_str().unwrap()).await;
    let url = format!("ws://{}/v1/stream?token={}", gateway.address, gateway.token("bench").await);
    // Each with an agent that is at work already.
    let mut sessions = join_all((0..SESSIONS).map(|_| Session::start(&url))).await;

    println!("commit    due to read, ms      said to read, ms     commits/s  syncs/s   cores idle");
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        cluster.set_durable(true).await;
        let with = round(&cluster, &mut sessions, true).await;
        cluster.set_durable(false).await;
        pairs.push((with, round(&cluster, &mut sessions, false).await));
    }
    // Medians: what else runs on the machine hits one round or the other.
    println!("\nmedian of the rounds, due to read");
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |what: &dyn Fn(&(Latencies, Latencies)) -> f64| {
            let mut all: Vec<f64> = pairs.iter().map(what).collect();
            all.sort_unstable_by(f64::total_cmp);
            percentile(&all, 0.5)
        };
        let (with, without) = (of(&|pair| percentile(&pair.0.due, at)), of(&|pair| percentile(&pair.1.due, at)));
        let added = of(&|pair| percentile(&pair.0.due, at) - percentile(&pair.1.due, at));
        println!("{name}: synced {with:.2} ms, not {without:.2} ms; a pair's difference {added:.2} ms");
    }

    for session in sessions {
        session.end().await;
    }
    gateway.stop().await;
    cluster.stop();
}

async fn start_gateway(cluster: &Cluster, data: &str) -> Program {
    let own = std::env::current_exe().unwrap();
    let command = json!([own, agent::ARGUMENT]).to_string();
    let many = (2 * SESSIONS).to_string();
    Program::start(&[
        ("PATH", &std::env::var("PATH").unwrap()),
        ("STREAMGATE_DATA_DIR", data),
        ("STREAMGATE_DATABASE__URL", &cluster.url()),
        ("STREAMGATE_LIMITS__CONTAINERS", &many),
        ("STREAMGATE_LIMITS__CONTAINERS_PER_USER", &many),
        ("STREAMGATE_LIMITS__RUNNING_PER_USER", &many),
        ("STREAMGATE_LIMITS__WAITING_PER_USER", &many),
        ("STREAMGATE_LIMITS__CONNECTIONS_PER_USER", &many),
        ("STREAMGATE_LIMITS__CONNECTIONS", &many),
        ("STREAMGATE_LIMITS__NEW_CONNECTIONS_PER_SECOND", &many),
        ("STREAMGATE_PROFILES__DEMO__COMMAND", &command),
        ("STREAMGATE_PROFILES__DEMO__WARM", "0"),
    ])
    .await
}

/// Every session says its words once.
async fn round(cluster: &Cluster, sessions: &mut [Session], durable: bool) -> Latencies {
    let before = cluster.work().await;
    let (began, idle) = (Instant::now(), idle_seconds());
    let heard = join_all(sessions.iter_mut().zip(0..).map(|(session, number)| async move {
        tokio::time::sleep(STAGGER * number).await;
        session.say(WORDS).await
    }));
    let heard = heard.await;
    let (seconds, idle) = (began.elapsed().as_secs_f64(), idle_seconds() - idle);
    let after = cluster.work().await;
    let mut latencies = Latencies::default();
    for heard in heard {
        assert_eq!(heard.len(), WORDS, "every word is read, once");
        for word in &heard[LEFT_OUT..WORDS - LEFT_OUT] {
            latencies.due.push(milliseconds(word.due, word.read));
            latencies.said.push(milliseconds(word.said, word.read));
        }
    }
    latencies.sort();
    let line = latencies.line(if durable { "synced" } else { "not" });
    let (commits, syncs) = ((after.commits - before.commits) / seconds, (after.syncs - before.syncs) / seconds);
    println!("{line}  {commits:>9.0}  {syncs:>7.0}  {:>11.2}", idle / seconds);
    latencies
}

/// When a word was to be said, was said, and was read: microseconds.
struct Word {
    due: u64,
    said: u64,
    read: u64,
}

/// A session, its agent, and the only client that follows it.
struct Session {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    id: Option<String>,
}

impl Session {
    async fn start(url: &str) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut session = Self { socket, id: None };
        session.say(1).await;
        session
    }

    async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Has the agent say that many words.
    async fn say(&mut self, words: usize) -> Vec<Word> {
        let mut submit = json!({"type": "task.submit", "prompt": format!("{words} {APART}")});
        if let Some(id) = &self.id {
            submit["session_id"] = json!(id);
        }
        self.send(submit).await;
        let mut heard = Vec::with_capacity(words);
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a frame in time").unwrap().unwrap();
            let read = now();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str().unwrap() {
                "task:token" => heard.extend(agent::words(frame["text"].as_str().unwrap()).map(|(due, said)| Word {
                    due,
                    said,
                    read,
                })),
                "task:done" => {
                    self.id = Some(frame["session_id"].as_str().unwrap().to_owned());
                    return heard;
                }
                "error" | "task:failed" => panic!("{frame}"),
                _ => (),
            }
        }
    }

    /// Ends it, and with it its agent.
    async fn end(mut self) {
        let id = self.id.take();
        self.send(json!({"type": "session.end", "request_id": "end", "session_id": id})).await;
        let acknowledged = async {
            while let Some(Ok(message)) = self.socket.next().await {
                let text = message.to_text().unwrap_or_default();
                assert!(!text.contains(r#""type":"error""#), "{text}");
                if text.starts_with(r#"{"type":"ack""#) {
                    return;
                }
            }
        };
        timeout(PATIENCE, acknowledged).await.expect("an end in time");
    }
}

/// Milliseconds, in order.
#[derive(Default)]
struct Latencies {
    due: Vec<f64>,
    said: Vec<f64>,
}

impl Latencies {
    fn sort(&mut self) {
        self.due.sort_unstable_by(f64::total_cmp);
        self.said.sort_unstable_by(f64::total_cmp);
    }

    fn line(&self, what: &str) -> String {
        let pair = |of: &[f64]| format!("p50 {:5.2} p99 {:6.2}", percentile(of, 0.5), percentile(of, 0.99));
        format!("{what:<8}  {}  {}", pair(&self.due), pair(&self.said))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a latency has few digits")]
fn milliseconds(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e3
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index, rounded"
)]
fn percentile(sorted: &[f64], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}
