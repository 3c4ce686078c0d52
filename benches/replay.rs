//! How long a replay of 10,000 events takes to reach a client, against the bare SELECT of the same rows,
//! in one run: `STREAMGATE_TEST_POSTGRES=postgres://… cargo bench --bench replay`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark that can't go on ends")]

#[path = "../tests/support/database.rs"]
mod database;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use streamgate::app::App;
use streamgate::config::{Config, ProfileConfig};
use tokio_tungstenite::tungstenite::Message;

const EVENTS: usize = 10_000;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    let database = database::postgres().await;
    let directory = tempfile::tempdir().unwrap();
    let mut config =
        Config { listen: ([127, 0, 0, 1], 0).into(), data_dir: directory.path().to_owned(), ..Config::default() };
    config.admin.listen = config.listen;
    config.database.url = database.url.clone();
    let command = vec![env!("CARGO_BIN_EXE_streamgate").to_owned(), "demo-agent".to_owned()];
    config.profiles.insert("demo".to_owned(), ProfileConfig { command, ..ProfileConfig::demo() });
    let app = App::start(config).await.unwrap();
    let token = app.first_token().unwrap().reveal().to_owned();
    let url = format!("ws://{}/v1/stream?token={token}", app.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();

    let submit = json!({"type": "task.submit", "prompt": format!("/tokens {EVENTS}")});
    socket.send(Message::text(submit.to_string())).await.unwrap();
    let session = loop {
        let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        if frame["type"] == "task:done" {
            break frame["session_id"].as_str().unwrap().to_owned();
        }
    };

    let pool = sqlx::PgPool::connect(&database.url).await.unwrap();
    let resume = json!({"type": "session.resume", "session_id": session}).to_string();
    let (mut selects, mut replays) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let rows: Vec<(i64, i16, bool, String)> = sqlx::query_as(
            "SELECT seq, audience, has_links, frame FROM events WHERE session_id = $1 AND seq > 0 ORDER BY seq",
        )
        .bind(&session)
        .fetch_all(&pool)
        .await
        .unwrap();
        selects.push(began.elapsed());
        assert!(rows.len() > EVENTS);

        let began = Instant::now();
        socket.send(Message::text(resume.clone())).await.unwrap();
        let mut frames = 0;
        loop {
            let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
            frames += 1;
            if frame.starts_with(r#"{"type":"session.replay_end""#) {
                break;
            }
        }
        replays.push(began.elapsed());
        assert!(frames > EVENTS);
    }
    let (select, replay) = (median(selects), median(replays));
    println!("bare SELECT of {EVENTS} events: {:.1} ms", select.as_secs_f64() * 1e3);
    println!("replay to a client:            {:.1} ms", replay.as_secs_f64() * 1e3);
    println!("ratio: {:.2}", replay.as_secs_f64() / select.as_secs_f64());
    drop(pool);
    app.shutdown().await;
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
