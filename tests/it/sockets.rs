//! Sockets that are slow, silent or stalled, and those that no client of ours opened: each ends in its time,
//! and all together take what was set aside for them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use streamgate::config::LimitsConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::database;
use crate::frames::text;
use crate::raw::{self, Raw};
use crate::support::{Client, PATIENCE, TestGateway};
use crate::world::eventually;

/// A socket and nothing on it but what the test writes.
pub(crate) struct Plain(TcpStream);

impl Plain {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends it. The other end may be gone already.
    pub(crate) async fn send(&mut self, bytes: &str) {
        let _ = timeout(PATIENCE, self.0.write_all(bytes.as_bytes())).await.expect("the socket takes bytes");
    }

    /// Reads up to where `what` has come.
    pub(crate) async fn read_until(&mut self, what: &str) -> String {
        let mut read = Vec::new();
        loop {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("bytes in time");
            read.push(byte.unwrap_or_else(|_| panic!("`{what}` before the end of {read:?}")));
            if read.ends_with(what.as_bytes()) {
                return String::from_utf8(read).unwrap();
            }
        }
    }

    /// Everything up to the end of an answer whose length nobody knew.
    async fn read_to_end_of_answer(&mut self) -> String {
        self.read_until("0\r\n\r\n").await
    }

    /// Everything up to the end, however that comes.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut read = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut read)).await.expect("an end in time");
        String::from_utf8(read).unwrap()
    }

    /// Sends `bytes` one by one, slowly, until the other end has enough: its last words.
    async fn trickle(&mut self, bytes: &str) -> String {
        let (mut reader, mut writer) = self.0.split();
        let mut read = Vec::new();
        let drops = async {
            for byte in bytes.bytes() {
                sleep(Duration::from_millis(100)).await;
                if writer.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = timeout(PATIENCE, reader.read_to_end(&mut read)) => drop(end.expect("an end in time")),
            () = drops => (),
        }
        String::from_utf8(read).unwrap()
    }
}

/// A `GET`'s bytes.
pub(crate) fn get(path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{authorization}\r\n")
}

/// An event stream of a session from its beginning.
pub(crate) async fn stream_of(gateway: &TestGateway, user: &str, session: &str) -> Plain {
    let mut stream = Plain::open(gateway.address()).await;
    let token = gateway.token(user, None).await;
    stream.send(&get(&format!("/v1/sessions/{session}/stream"), Some(&token))).await;
    stream
}

async fn gateway(change: impl FnOnce(&mut LimitsConfig)) -> TestGateway {
    TestGateway::start_with(database::sqlite(), |config| change(&mut config.limits)).await
}

async fn is_well(client: &mut Client) {
    assert_eq!(client.request(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn who_does_not_say_what_they_want_is_closed_whether_silent_or_slow() {
    let gateway = gateway(|limits| limits.head_seconds = 1).await;
    let began = Instant::now();
    let (mut silent, mut half, mut slow) = (
        Plain::open(gateway.address()).await,
        Plain::open(gateway.address()).await,
        Plain::open(gateway.address()).await,
    );
    half.send("GET /health HTTP/1.1\r\nHost: gate").await;
    let slowly = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(1_000));
    let (silent, half, slow) = tokio::join!(silent.read_to_end(), half.read_to_end(), slow.trickle(&slowly));
    assert_eq!([silent, half, slow], ["", "", ""]);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    eventually("their sockets are gone", async || gateway.app().open_sockets() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_idle_socket_is_kept_for_a_while_and_one_that_is_used_stays() {
    let gateway = gateway(|limits| (limits.head_seconds, limits.keep_alive_seconds) = (1, 3)).await;
    let mut client = gateway.client("alice").await;
    let session = text(&client.start_session().await, "session_id");
    let mut stream = stream_of(&gateway, "alice", &session).await;
    stream.read_until(": hello\n\n").await;
    let mut idle = Plain::open(gateway.address()).await;
    let mut answered = Instant::now();
    for _ in 0..2 {
        idle.send(&get("/health", None)).await;
        idle.read_until("\"version\"").await;
        answered = Instant::now();
        // Longer than a new socket may take: this one has said what it wants.
        sleep(Duration::from_millis(1_200)).await;
    }
    idle.read_to_end().await;
    assert!(answered.elapsed() >= Duration::from_millis(2_900), "{:?}", answered.elapsed());
    // Sockets and streams that have nothing to say are not idle.
    client.turn(&session, "/say well").await;
    stream.read_until("task:done").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_refused() {
    let gateway = gateway(|_| ()).await;
    let mut endless = Plain::open(gateway.address()).await;
    endless.send(&format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))).await;
    let refused = endless.read_to_end().await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
    gateway.stop().await;
}

#[tokio::test]
async fn when_all_sockets_are_taken_those_that_say_nothing_make_room() {
    let gateway = gateway(|limits| {
        (limits.connections, limits.other_sockets) = (2, 2);
        limits.head_seconds = 600;
    })
    .await;
    let mut first = gateway.client("alice").await;
    is_well(&mut first).await;
    let (mut silent, mut idle) = (Plain::open(gateway.address()).await, Plain::open(gateway.address()).await);
    idle.send(&get("/health", None)).await;
    idle.read_until("\"version\"").await;
    let _other = Plain::open(gateway.address()).await;
    eventually("all are taken", async || gateway.app().open_sockets() == 4).await;
    let mut second = gateway.client("bob").await;
    is_well(&mut second).await;
    assert_eq!(silent.read_to_end().await, "");
    idle.read_to_end().await;
    is_well(&mut first).await;
    gateway.stop().await;
}

#[tokio::test]
async fn when_all_sockets_are_taken_by_the_slow_new_ones_wait_until_their_time_is_up() {
    let gateway = gateway(|limits| {
        (limits.connections, limits.other_sockets) = (1, 3);
        limits.head_seconds = 2;
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut socket = Plain::open(gateway.address()).await;
        socket.send("GET /v1/stream HTTP/1.1\r\nHost:").await;
        slow.push(socket);
    }
    let mut client = gateway.client("alice").await;
    is_well(&mut client).await;
    for socket in &mut slow {
        assert_eq!(socket.read_to_end().await, "");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_broken_off_and_a_large_one_that_makes_progress_is_taken() {
    let gateway = gateway(|limits| limits.stall_seconds = 1).await;
    let token = gateway.token("alice", None).await;
    let mut client = gateway.client("alice").await;
    let session = text(&client.start_session().await, "session_id");
    let head = |method: &str, path: &str, bytes: usize| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {bytes}\r\nConnection: close\r\n\r\n"
        )
    };
    let file = format!("/v1/sessions/{session}/files/x.txt");
    for head in [head("POST", "/v1/tasks", 500), head("PUT", &file, 500)] {
        let mut slow = Plain::open(gateway.address()).await;
        slow.send(&head).await;
        let began = Instant::now();
        let answer = slow.trickle(&" ".repeat(500)).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("the body could not be read"), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    }
    // Three times as long, and welcome.
    let mut large = Plain::open(gateway.address()).await;
    large.send(&head("PUT", &file, 30 * 65_536)).await;
    for _ in 0..30 {
        large.send(&"x".repeat(65_536)).await;
        sleep(Duration::from_millis(100)).await;
    }
    let answer = large.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // Who has no credential is not read at all.
    let mut stranger = Plain::open(gateway.address()).await;
    stranger.send("POST /v1/tasks HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 500\r\n\r\n").await;
    let answer = stranger.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_stream_whose_reader_stalls_is_ended_and_a_slow_one_is_not() {
    let gateway = gateway(|limits| (limits.stall_seconds, limits.connections_per_user) = (2, 2)).await;
    let mut client = gateway.client("alice").await;
    let session = text(&client.start_session().await, "session_id");
    client.turn(&session, &"/big 1000000\n".repeat(20)).await;
    client.socket.close(None).await.unwrap();
    client.closed().await;
    let places = async || gateway.app().shared().connections.count();
    eventually("it is gone", async || places().await == 0).await;

    let mut stalled = stream_of(&gateway, "alice", &session).await;
    let mut slow = stream_of(&gateway, "alice", &session).await;
    stalled.read_until("id: 1\n").await;
    slow.read_until("id: 1\n").await;
    assert_eq!(places().await, 2);
    let began = Instant::now();
    // 20 MB in twenty parts and more, each well before the patience with it ends.
    let slowly = async {
        let mut part = vec![0; 1 << 20];
        let mut read = 0;
        while began.elapsed() < Duration::from_secs(5) || places().await > 1 || read < 10 << 20 {
            sleep(Duration::from_millis(100)).await;
            let taken = timeout(Duration::from_millis(100), slow.0.read(&mut part)).await;
            read += taken.map_or(0, Result::unwrap);
            assert!(began.elapsed() < PATIENCE, "the stalled one ends, the slow one has {read} bytes");
        }
    };
    slowly.await;
    assert_eq!(places().await, 1, "the slow one stays");
    // The place is free again, and the socket too.
    stream_of(&gateway, "alice", &session).await.read_until("id: 1\n").await;
    let rest = stalled.read_to_end().await;
    assert!(rest.len() < 20_000_000 && !rest.ends_with("0\r\n\r\n"), "broken off: {}", rest.len());
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_stream_ends_whole_at_the_age_of_connections() {
    let gateway = gateway(|limits| limits.connection_seconds = 2).await;
    let session = text(&gateway.client("alice").await.start_session().await, "session_id");
    let began = Instant::now();
    let all = stream_of(&gateway, "alice", &session).await.read_to_end_of_answer().await;
    assert!(all.contains(": hello") && began.elapsed() >= Duration::from_millis(1_750), "{:?}", began.elapsed());
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_socket() {
    let gateway = gateway(|limits| limits.stall_seconds = 1).await;
    let mut client = gateway.client("alice").await;
    let session = text(&client.start_session().await, "session_id");
    client.turn(&session, &"/big 1000000\n".repeat(20)).await;
    let mut raw = Raw::open(gateway.address(), &gateway.token("alice", None).await).await;
    let mut lines = Plain::open(gateway.address()).await;
    let token = gateway.token("alice", None).await;
    let history = format!("/v1/sessions/{session}/events?limit=10000");
    lines.send(&get(&history, Some(&token))).await;
    lines.read_until("\r\n\r\n").await;
    let others = gateway.app().open_sockets() - 1;
    eventually("it is given up", async || gateway.app().open_sockets() == others).await;
    // Those that take what they get are none the worse for it.
    is_well(&mut client).await;
    raw.frame(raw::TEXT, br#"{"type":"ping"}"#).await;
    assert_eq!(raw.json().await["type"], json!("pong"));
    let rest: Result<Value, _> = serde_json::from_str(&lines.read_to_end().await);
    assert!(rest.is_err(), "nobody takes half a history for a whole one");
    gateway.stop().await;
}
