//! What SIGTERM does, in order: health says so, all goes on, everybody is sent away in batches, the end.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use streamgate::config::Config;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::closes::check_reason;
use crate::database;
use crate::frames::{seqs, text};
use crate::program::Program;
use crate::raw::{self, Raw};
use crate::shims::DataDir;
use crate::sockets::{Plain, get, stream_of};
use crate::support::{Client, PATIENCE, TestGateway, of_type};
use crate::world::eventually;

async fn gateway(change: impl FnOnce(&mut Config)) -> TestGateway {
    TestGateway::start_with(database::sqlite(), change).await
}

/// The status and the body of a health check.
async fn health(address: SocketAddr, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn drains(address: SocketAddr) {
    eventually("it drains", async || health(address, "/health/ready").await.1["draining"] == true).await;
}

async fn is_closed_for_restart(client: &mut Client) {
    let close = client.closed().await.expect("a close frame");
    check_reason((close.code.into(), close.reason.as_str()), 1012, "restart");
}

#[tokio::test]
async fn readiness_fails_at_once_and_all_goes_on_for_a_while_before_the_sockets_close() {
    let gateway = gateway(|config| (config.drain_seconds, config.drain_notice_seconds) = (20, 5)).await;
    let (address, operators) = (gateway.address(), gateway.app().operators_address());
    let token = gateway.token("bob", None).await;
    let mut early = gateway.client("alice").await;
    let began = Instant::now();
    let stop = tokio::spawn(gateway.stop());
    drains(address).await;
    for door in [address, operators] {
        let (status, body) = health(door, "/health/ready").await;
        assert_eq!((status, &body["ready"], &body["storage"]), (503, &json!(false), &json!(true)));
        assert_eq!(health(door, "/health").await.0, 200);
    }
    // Who is here works on, and who comes now is let in: a prompt that is accepted is not lost.
    let mut late = Client::connect(address, &token, true).await;
    for client in [&mut early, &mut late] {
        let frames = client.run("/say well").await;
        assert_eq!(of_type(&frames, "task:done")[0]["status"], "completed");
    }
    is_closed_for_restart(&mut early).await;
    is_closed_for_restart(&mut late).await;
    assert!(began.elapsed() >= Duration::from_secs(5), "not before a balancer could have noticed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    timeout(PATIENCE, stop).await.expect("an end in time").unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn nobody_waits_where_nobody_is_connected() {
    let gateway = gateway(|config| (config.drain_seconds, config.drain_notice_seconds) = (60, 15)).await;
    let mut client = gateway.client("alice").await;
    client.socket.close(None).await.unwrap();
    client.closed().await;
    drop(client);
    eventually("the socket is gone", async || gateway.app().open_sockets() == 0).await;
    let began = Instant::now();
    gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn six_hundred_sockets_are_closed_in_two_batches_and_told_to_come_back_at_different_times() {
    let gateway = gateway(|config| {
        config.drain_seconds = 20;
        config.limits.connections_per_user = 1_000;
        config.limits.new_connections_per_second = 100_000;
    })
    .await;
    let token = gateway.token("alice", None).await;
    let mut sockets = Vec::new();
    for _ in 0..600 {
        sockets.push(Raw::open(gateway.address(), &token).await);
    }
    eventually("all are in", async || gateway.app().shared().connections.count() == 600).await;
    let began = Instant::now();
    let closes = join_all(sockets.iter_mut().map(async |socket| {
        let (code, reason, _) = socket.closed().await;
        let at = began.elapsed();
        check_reason((code, &reason), 1012, "restart");
        // As every client does.
        socket.frame(raw::CLOSE, &1012_u16.to_be_bytes()).await;
        let wait = serde_json::from_str::<Value>(&reason).unwrap()["retry_after_ms"].as_u64().unwrap();
        (at, wait)
    }));
    let ((), closes) = tokio::join!(gateway.stop(), closes);
    let early = closes.iter().filter(|(at, _)| *at < Duration::from_millis(250)).count();
    assert!(early <= 500, "{early} in the first batch");
    let waits = || closes.iter().map(|(_, wait)| *wait);
    assert!(waits().max() <= Some(2_000) && waits().max() > Some(1_800) && waits().min() < Some(200));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_is_behind_gets_what_is_whole_of_its_replay_and_then_the_close() {
    let gateway = gateway(|config| config.drain_seconds = 20).await;
    let mut client = gateway.client("alice").await;
    let session = text(&client.start_session().await, "session_id");
    client.turn(&session, &"/big 1000000\n".repeat(20)).await;
    drop(client);
    // It asks for 20 MB, and a few small things, and reads nothing until the end has begun.
    let mut behind = Raw::open(gateway.address(), &gateway.token("alice", None).await).await;
    let resume = json!({"type": "session.resume", "session_id": session, "request_id": "0"});
    behind.frame(raw::TEXT, resume.to_string().as_bytes()).await;
    for at in 1..=5 {
        behind.frame(raw::TEXT, json!({"type": "ping", "request_id": at.to_string()}).to_string().as_bytes()).await;
    }
    // The replay has begun.
    let first = loop {
        if let Some(seq) = behind.json().await["seq"].as_u64() {
            break seq;
        }
    };
    let ((), (code, reason, texts)) = tokio::join!(gateway.stop(), behind.closed());
    check_reason((code, &reason), 1012, "restart");
    let seqs = seqs(&texts);
    assert!(seqs.iter().zip(first + 1..).all(|(seq, expected)| *seq == expected), "no gap: {seqs:?}");
}

#[tokio::test]
async fn event_streams_end_too_and_say_when_to_come_back() {
    let gateway = gateway(|_| ()).await;
    let session = text(&gateway.client("alice").await.start_session().await, "session_id");
    let mut stream = stream_of(&gateway, "alice", &session).await;
    stream.read_until(": hello").await;
    let ((), rest) = tokio::join!(gateway.stop(), stream.read_to_end());
    let retry = rest.lines().find_map(|line| line.strip_prefix("retry: ")).expect("a `retry` field");
    assert!(retry.parse::<u64>().unwrap() <= 2_000, "{rest}");
    assert!(rest.ends_with("0\r\n\r\n"), "a whole answer: {rest:?}");
}

/// Silent sockets and a stalled event stream: all that could hold a drain up.
async fn a_crowd(program: &Program, token: &str) -> (Raw, Raw, Plain) {
    let mut client = Client::connect(program.address, token, true).await;
    let session = text(&client.start_session().await, "session_id");
    client.turn(&session, &"/big 1000000\n".repeat(12)).await;
    let mut behind = Raw::open(program.address, token).await;
    let resume = json!({"type": "session.resume", "session_id": session});
    behind.frame(raw::TEXT, resume.to_string().as_bytes()).await;
    let silent = Raw::open(program.address, token).await;
    let path = format!("/v1/sessions/{session}/stream");
    let mut stream = Plain::open(program.address).await;
    stream.send(&get(&path, Some(token))).await;
    stream.read_until("id: 1\n").await;
    // The client itself goes without a word.
    (behind, silent, stream)
}

#[tokio::test]
async fn the_program_ends_well_within_its_time_however_short_whoever_does_not_answer() {
    for (seconds, at_most) in [("1", 1), ("5", 5)] {
        let data = DataDir::new();
        let settings = [
            ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
            ("STREAMGATE_DRAIN_SECONDS", seconds),
            ("STREAMGATE_DRAIN_NOTICE_SECONDS", "5"),
        ];
        let program = Program::start(&settings).await;
        let token = program.token("alice").await;
        let crowd = a_crowd(&program, &token).await;
        let began = Instant::now();
        program.stop().await;
        // What the machine takes to notice an end is not the gateway's.
        let took = began.elapsed();
        assert!(took <= Duration::from_millis(at_most * 1_000 + 500), "{took:?} of {seconds} s");
        drop(crowd);
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let data = DataDir::new();
    let settings = [
        ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
        ("STREAMGATE_DRAIN_SECONDS", "400"),
        ("STREAMGATE_DRAIN_NOTICE_SECONDS", "100"),
    ];
    let program = Program::start(&settings).await;
    let token = program.token("alice").await;
    let mut client = Client::connect(program.address, &token, true).await;
    client.start_session().await;
    program.terminate();
    drains(program.address).await;
    let began = Instant::now();
    program.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(client.closed().await.is_none(), "no time for a close frame");
}
