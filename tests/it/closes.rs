//! Every close code of the protocol that can be provoked, and what its reason says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use streamgate::config::Config;
use streamgate::domain::{Clock, TokenId, UserId};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::database;
use crate::outage::Outage;
use crate::raw::{self, Raw, masked};
use crate::support::{Client, TestGateway, of_type};

/// Checks a close: its code, and a reason that is compact JSON of at most 123 bytes with a `code`.
pub(crate) fn check_reason(close: (u16, &str), code: u16, word: &str) {
    assert_eq!(close.0, code, "{close:?}");
    let reason: Value = serde_json::from_str(close.1).unwrap();
    assert_eq!(reason["code"], word, "{close:?}");
    assert!(close.1.len() <= 123 && !close.1.contains(' '), "{close:?}");
    // Who is to come back is told when; who is not, is not.
    let patient = matches!(code, 1012 | 1013 | 4100..=4299);
    assert_eq!(reason["retry_after_ms"].is_u64(), patient, "{close:?}");
    if (4100..4200).contains(&code) {
        assert!(reason["retry_after_ms"].as_u64() >= Some(500), "{close:?}");
    }
}

fn check(close: Option<CloseFrame>, code: u16, word: &str) {
    let close = close.expect("a close frame");
    check_reason((close.code.into(), close.reason.as_str()), code, word);
}

async fn gateway(change: impl FnOnce(&mut Config)) -> TestGateway {
    TestGateway::start_with(database::sqlite(), change).await
}

async fn raw(gateway: &TestGateway) -> Raw {
    Raw::open(gateway.address(), &gateway.token("alice", None).await).await
}

#[tokio::test]
async fn a_client_that_closes_is_answered_in_kind_1000() {
    let gateway = gateway(|_| ()).await;
    let mut client = gateway.client("alice").await;
    client.start_session().await;
    client.socket.close(Some(CloseFrame { code: 1000.into(), reason: "bye".into() })).await.unwrap();
    assert_eq!(u16::from(client.closed().await.unwrap().code), 1000);
    // And without a code.
    let mut raw = raw(&gateway).await;
    raw.frame(raw::CLOSE, b"").await;
    assert!(raw.ends_after_close().await);
    gateway.stop().await;
}

#[tokio::test]
async fn a_shutdown_closes_with_1012() {
    let gateway = gateway(|_| ()).await;
    let mut clients = [gateway.client("alice").await, gateway.document_client("bob").await];
    clients[0].start_session().await;
    let closes = async {
        for client in &mut clients {
            check(client.closed().await, 1012, "restart");
        }
    };
    tokio::join!(gateway.stop(), closes);
}

#[tokio::test]
async fn what_is_no_websocket_is_closed_with_1002() {
    let gateway = gateway(|_| ()).await;
    let unmasked = [raw::head(raw::TEXT, 0, 15), br#"{"type":"ping"}"#.to_vec()].concat();
    let long_ping = vec![b'x'; 126];
    for (what, bytes) in [
        ("unmasked", unmasked),
        ("an unknown data opcode", masked(0x83, b"{}")),
        ("an unknown control opcode", masked(0x8b, b"")),
        ("the first reserved bit, as for compression that nobody agreed on", masked(0xc1, b"{}")),
        ("the second reserved bit", masked(0xa1, b"{}")),
        ("the third reserved bit", masked(0x91, b"{}")),
        ("a ping in pieces", masked(0x09, b"")),
        ("a long ping", masked(0x89, &long_ping)),
        ("a continuation of nothing", masked(0x80, b"{}")),
        ("a message within a message", [masked(0x01, b"{"), masked(0x81, b"{}")].concat()),
        ("a close of one byte", masked(raw::CLOSE, b"\x03")),
    ] {
        let mut raw = raw(&gateway).await;
        raw.bytes(&bytes).await;
        let (code, reason, texts) = raw.closed().await;
        assert_eq!(code, 1002, "{what}");
        check_reason((code, &reason), 1002, "protocol_error");
        assert_eq!(texts, [] as [Value; 0], "{what}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_came_before_a_breach_was_heard() {
    let gateway = gateway(|_| ()).await;
    let mut raw = raw(&gateway).await;
    let ping = masked(raw::TEXT, br#"{"type":"ping","request_id":"1"}"#);
    raw.bytes(&[ping, masked(0x83, b"")].concat()).await;
    let (code, _, texts) = raw.closed().await;
    assert_eq!((code, &texts[..]), (1002, &[json!({"type": "pong", "request_id": "1", "sessions": {}})][..]));
    gateway.stop().await;
}

#[tokio::test]
async fn a_flood_of_binary_frames_is_closed_with_1003() {
    let gateway = gateway(|config| config.limits.frames_burst = 1_000).await;
    let mut client = gateway.client("alice").await;
    for _ in 0..59 {
        client.socket.send(Message::binary(b"\x00".as_slice())).await.unwrap();
        assert_eq!(client.next().await["code"], "INVALID_JSON");
    }
    // A text frame between them: not a flood.
    client.start_session().await;
    for _ in 0..60 {
        client.socket.send(Message::binary(b"{}".as_slice())).await.unwrap();
    }
    let refused = client.request(json!({"type": "ping"})).await;
    assert_eq!(refused["type"], "pong");
    for _ in 0..61 {
        client.socket.send(Message::binary(b"".as_slice())).await.unwrap();
    }
    check(client.closed().await, 1003, "binary_refused");
    gateway.stop().await;
}

#[tokio::test]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    let gateway = gateway(|_| ()).await;
    for bytes in [
        masked(raw::TEXT, b"{\"type\":\"ping\",\"x\":\"\xff\"}"),
        masked(raw::TEXT, b"\xed\xa0\x80"),
        [masked(0x01, b"{\"type\":\"p"), masked(0x80, b"\xc3\"}")].concat(),
        masked(raw::CLOSE, b"\x03\xe8\xff"),
    ] {
        let mut raw = raw(&gateway).await;
        raw.bytes(&bytes).await;
        let (code, reason, _) = raw.closed().await;
        check_reason((code, &reason), 1007, "bad_utf8");
    }
    // A character in two pieces is whole.
    let mut raw = raw(&gateway).await;
    raw.frame(0x01, b"{\"type\":\"ping\",\"x\":\"\xc3").await;
    raw.frame(0x80, b"\xa9\"}").await;
    assert_eq!(raw.json().await["type"], "pong");
    gateway.stop().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_closed_with_1009() {
    let gateway = gateway(|_| ()).await;
    let limit = gateway.config.limits.frame_bytes;
    let whole = masked(raw::TEXT, &vec![b' '; limit + 1]);
    let pieces = [masked(0x01, &vec![b' '; limit]), masked(0x80, b" ")].concat();
    let announced = |length| [&raw::head(raw::TEXT, 0x80, length)[..], &[0; 4]].concat();
    for (what, bytes) in [
        ("announced", announced(1 << 40)),
        ("announced as more than there can be", announced(u64::MAX >> 1)),
        ("whole", whole),
        ("in pieces", pieces),
        ("binary", masked(raw::BINARY, &vec![0; 8 * limit])),
    ] {
        let mut raw = raw(&gateway).await;
        let (code, reason, _) = raw.bytes_until_closed(&bytes).await;
        assert_eq!(code, 1009, "{what}");
        check_reason((code, &reason), 1009, "frame_too_big");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_credential_that_can_not_be_checked_is_closed_with_1013_and_never_4001() {
    let gateway = TestGateway::start(database::postgres().await).await;
    let (token, known) = (gateway.token("alice", None).await, gateway.client("bob").await);
    let outage = Outage::begin(&gateway.database).await;
    for _ in 0..2 {
        let mut client = Client::connect(gateway.address(), &token, false).await;
        let error = client.next().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("STORAGE_UNAVAILABLE")));
        assert!(error["retry_after_ms"].is_u64(), "{error}");
        check(client.closed().await, 1013, "try_later");
    }
    // Sockets that are open stay open.
    let mut known = known;
    assert_eq!(known.request(json!({"type": "ping"})).await["type"], "pong");
    outage.end().await;
    // A failure is not remembered.
    let mut client = Client::connect(gateway.address(), &token, false).await;
    client.run("/say well").await;
    known.run("/say well").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_revoked_token_closes_its_live_connections_with_4001() {
    let gateway = gateway(|_| ()).await;
    let tokens = gateway.app().shared().authenticator.tokens().clone();
    let (id, token) = tokens.create(&UserId("alice".to_owned()), None, None, None).await.unwrap();
    let mut client = Client::connect(gateway.address(), token.reveal(), true).await;
    let mut other = gateway.client("alice").await;
    client.start_session().await;
    assert!(tokens.revoke(id, None).await.unwrap());
    let error = client.expect("error").await;
    assert_eq!(error["code"], "UNAUTHORIZED");
    check(client.closed().await, 4001, "unauthorized");
    // The same user's other token is as good as before.
    assert_eq!(other.request(json!({"type": "ping"})).await["type"], "pong");
    assert!(!tokens.revoke(TokenId::generate(), None).await.unwrap());
    gateway.stop().await;
}

#[tokio::test]
async fn an_expired_token_closes_its_live_connections_with_4001() {
    let gateway = gateway(|_| ()).await;
    let tokens = gateway.app().shared().authenticator.tokens();
    let soon = Clock::default().now().plus(Duration::from_secs(5));
    let (_, token) = tokens.create(&UserId("alice".to_owned()), None, None, Some(soon)).await.unwrap();
    let mut client = Client::connect(gateway.address(), token.reveal(), true).await;
    assert_eq!(client.expect("error").await["code"], "UNAUTHORIZED");
    check(client.closed().await, 4001, "unauthorized");
    assert!(Clock::default().now() >= soon);
    // From then on it is bad from the start.
    let mut client = Client::connect(gateway.address(), token.reveal(), true).await;
    assert_eq!(client.next().await["code"], "UNAUTHORIZED");
    check(client.closed().await, 4001, "unauthorized");
    gateway.stop().await;
}

/// One that takes a frame a second, and has patience for as long.
async fn impatient_gateway() -> TestGateway {
    gateway(|config| {
        config.limits.frames_per_second = 1;
        config.limits.frames_burst = 1;
        config.limits.flood_seconds = 1;
    })
    .await
}

#[tokio::test]
async fn a_flood_of_pings_is_closed_with_4100() {
    let gateway = impatient_gateway().await;
    let mut raw = raw(&gateway).await;
    // One after the other is answered until it is too much.
    let close = loop {
        raw.frame(raw::PING, b"x").await;
        if let Err(close) = raw.pong_or_close().await {
            break close;
        }
    };
    check_reason((close.0, &close.1), 4100, "flooding");
    gateway.stop().await;
}

#[tokio::test]
async fn a_flood_is_refused_and_then_closed_with_4100() {
    let gateway = impatient_gateway().await;
    let mut raw = raw(&gateway).await;
    let mut refused = 0;
    // Goes on however often it is told to wait.
    let close = loop {
        raw.frame(raw::TEXT, br#"{"type":"ping","request_id":"1"}"#).await;
        match raw.json_or_close().await {
            Ok(frame) if frame["type"] == "pong" => (),
            Ok(frame) => {
                assert_eq!((&frame["code"], &frame["request_id"]), (&json!("RATE_LIMITED"), &json!("1")));
                assert!((1..=1_000).contains(&frame["retry_after_ms"].as_u64().unwrap()), "{frame}");
                refused += 1;
            }
            Err(close) => break close,
        }
    };
    check_reason((close.0, &close.1), 4100, "flooding");
    assert!(refused > 0);
    // The next connection starts with a clean sheet.
    gateway.client("alice").await.run("/say well").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_never_answers_pings_is_closed_with_4103() {
    let gateway = gateway(|config| {
        config.limits.ping_seconds = 1;
        config.limits.dead_seconds = 2;
    })
    .await;
    let mut silent = raw(&gateway).await;
    // Another one answers, as libraries do, and says nothing else.
    let mut answering = gateway.client("bob").await;
    let alive = async {
        let (code, reason, texts) = silent.closed().await;
        check_reason((code, &reason), 4103, "no_pong");
        assert_eq!(texts, [] as [Value; 0]);
    };
    tokio::select! {
        () = alive => (),
        frame = answering.next() => panic!("nothing was asked: {frame}"),
    }
    assert_eq!(answering.request(json!({"type": "ping"})).await["type"], "pong");
    gateway.stop().await;
}

#[tokio::test]
async fn too_many_connections_are_closed_with_4104() {
    let gateway = gateway(|config| {
        config.limits.connections_per_user = 1;
        config.limits.connections = 2;
    })
    .await;
    let mut alice = gateway.client("alice").await;
    let mut too_many = gateway.client("alice").await;
    let error = too_many.next().await;
    assert_eq!(error["code"], "TOO_MANY_CONNECTIONS");
    assert!(error["retry_after_ms"].is_u64(), "{error}");
    check(too_many.closed().await, 4104, "too_many_connections");
    let mut bob = gateway.client("bob").await;
    let mut too_many = gateway.client("carol").await;
    assert_eq!(too_many.next().await["code"], "TOO_MANY_CONNECTIONS");
    check(too_many.closed().await, 4104, "too_many_connections");
    // Those who were first are none the worse for it.
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.request(json!({"type": "ping"})).await["type"], "pong");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_old_connection_is_closed_with_4200_and_its_client_goes_on_where_it_was() {
    // The second one is to do its part before it is old too: a busy machine needs more than a moment for that.
    let gateway = gateway(|config| config.limits.connection_seconds = 8).await;
    let token = gateway.token("alice", None).await;
    let mut client = Client::connect(gateway.address(), &token, true).await;
    let ready = client.start_session().await;
    let turn = json!({"type": "session.turn", "session_id": ready["session_id"], "prompt": "/tokens 1000000 20"});
    client.send(turn).await;
    check(client.closed().await, 4200, "max_age");
    let mut client = Client::connect(gateway.address(), &token, true).await;
    client.send(json!({"type": "session.resume", "session_id": ready["session_id"]})).await;
    let replay = client.until_type("session.replay_end").await;
    let task = of_type(&replay, "task:started")[0]["task_id"].clone();
    let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
    assert_eq!(ack["status"], "cancelled");
    gateway.stop().await;
}

/// A log that can be read while it is written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_with_4102_and_misses_nothing() {
    // Of this thread, which runs the whole gateway.
    let log = Log::default();
    let shared = log.clone();
    // With a single subscriber, `tracing` asks the thread that comes by first whether a line is wanted at
    // all, and other tests' threads have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || shared.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let gateway = gateway(|config| config.limits.stall_seconds = 1).await;
    let mut raw = raw(&gateway).await;
    let prompt = "/big 1000000\n".repeat(30);
    raw.frame(raw::TEXT, json!({"type": "task.submit", "prompt": prompt}).to_string().as_bytes()).await;
    // Until the gateway has given it up.
    let given_up = async {
        while !log.contains("slow_consumer") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(2 * crate::support::PATIENCE, given_up).await.expect("the gateway gives up in time");
    let (code, reason, texts) = raw.closed().await;
    check_reason((code, &reason), 4102, "slow_consumer");
    // What it had got is in order; it resumes from there and has all.
    let session = texts[0]["session_id"].clone();
    let last = texts.iter().filter_map(|frame| frame["seq"].as_u64()).next_back().unwrap_or(0);
    let mut client = gateway.document_client("alice").await;
    client.send(json!({"type": "session.resume", "session_id": session, "after_seq": last})).await;
    let rest = client.until_task_end().await;
    let results = |frames: &[Value]| of_type(frames, "task:tool_result").len();
    assert_eq!(results(&texts) + results(&rest), 30);
    gateway.stop().await;
}
