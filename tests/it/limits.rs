//! Every limit, at n and at n + 1, with small numbers.

use serde_json::{Value, json};
use streamgate::config::{Config, LimitsConfig, ProfileConfig};

use crate::closes::check_reason;
use crate::database;
use crate::raw::{self, Raw, masked};
use crate::support::{Client, TestGateway, of_type, on_both, streamed, types};

/// A task that runs until it is cancelled.
const ENDLESS: &str = "/sleep 600000";

async fn gateway(change: impl FnOnce(&mut LimitsConfig)) -> TestGateway {
    TestGateway::start_with(database::sqlite(), |config: &mut Config| change(&mut config.limits)).await
}

async fn session(client: &mut Client) -> String {
    client.start_session().await["session_id"].as_str().unwrap().to_owned()
}

fn turn(session: &str, prompt: &str) -> Value {
    json!({"type": "session.turn", "session_id": session, "prompt": prompt})
}

/// Begins a task in `session` and returns its id once it runs.
async fn begin(client: &mut Client, session: &str, prompt: &str) -> Value {
    client.send(turn(session, prompt)).await;
    let started = client.until(|frame| frame["type"] == "task:started" && frame["session_id"] == session).await;
    started.last().unwrap()["task_id"].clone()
}

async fn cancel(client: &mut Client, task: &Value) {
    let ack = client.request(json!({"type": "task.cancel", "task_id": task})).await;
    assert_eq!(ack["status"], "cancelled", "{ack}");
}

/// A ping of exactly so many bytes.
fn ping_of(bytes: usize) -> String {
    let ping = r#"{"type":"ping"}"#;
    format!("{ping}{}", " ".repeat(bytes - ping.len()))
}

#[tokio::test]
async fn frame_bytes() {
    let gateway = gateway(|limits| limits.frame_bytes = 1_000).await;
    let token = gateway.token("alice", None).await;
    let mut raw = Raw::open(gateway.address(), &token).await;
    raw.frame(raw::TEXT, ping_of(1_000).as_bytes()).await;
    assert_eq!(raw.json().await["type"], "pong");
    // In pieces as well.
    let (first, second) = (&ping_of(1_000)[..600], &ping_of(1_000)[600..]);
    raw.frame(0x01, first.as_bytes()).await;
    raw.frame(0x80, second.as_bytes()).await;
    assert_eq!(raw.json().await["type"], "pong");
    let (code, reason, _) = raw.bytes_until_closed(&masked(raw::TEXT, ping_of(1_001).as_bytes())).await;
    check_reason((code, &reason), 1009, "frame_too_big");
    gateway.stop().await;
}

#[tokio::test]
async fn prompt_bytes() {
    let gateway = gateway(|limits| limits.prompt_bytes = 100).await;
    let mut client = gateway.client("alice").await;
    let session = session(&mut client).await;
    // Bytes, not characters.
    for prompt in ["x".repeat(100), "é".repeat(50)] {
        assert_eq!(streamed(&client.turn(&session, &prompt).await), format!("You said: {prompt}"));
    }
    for prompt in ["x".repeat(101), "é".repeat(51)] {
        assert_eq!(client.request(turn(&session, &prompt)).await["code"], "PAYLOAD_TOO_LARGE");
        let submit = json!({"type": "task.submit", "prompt": prompt});
        assert_eq!(client.request(submit).await["code"], "PAYLOAD_TOO_LARGE");
    }
    gateway.stop().await;
}

/// An agent that answers every turn with one line of as many bytes as its prompt says, and ends the turn.
fn padder() -> Vec<String> {
    let script = r#"while read -r line; do
        case $line in *'"turn"'*)
            bytes=$(printf '%s' "$line" | sed 's/.*"prompt":"\([0-9]*\)".*/\1/')
            printf "%-${bytes}s\n" '{"type":"text","text":"heard"}'
            printf '%s\n' '{"type":"done","stop_reason":"end_turn"}'
        esac
    done"#;
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn agent_line_bytes() {
    let gateway = TestGateway::start_with(database::sqlite(), |config| {
        config.limits.agent_line_bytes = 20_000;
        let padder =
            ProfileConfig { command: padder(), system_prompt: String::new(), ..config.profiles["demo"].clone() };
        config.profiles.insert("demo".to_owned(), padder);
    })
    .await;
    let mut client = gateway.client("alice").await;
    let session = session(&mut client).await;
    for (bytes, expected) in [("20000", "heard"), ("20001", ""), ("200000", ""), ("100", "heard")] {
        let frames = client.turn(&session, bytes).await;
        assert_eq!(streamed(&frames), expected, "{bytes}");
        // A line too long is skipped; it costs the task nothing else.
        assert_eq!(types(&frames).last(), Some(&"task:done"), "{bytes}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn event_bytes() {
    let gateway = gateway(|limits| limits.event_bytes = 100).await;
    let mut client = gateway.client("alice").await;
    let session = session(&mut client).await;
    for (bytes, truncated) in [(99, false), (100, false), (101, true), (1_000, true)] {
        let frames = client.turn(&session, &format!("/big {bytes}")).await;
        let result = of_type(&frames, "task:tool_result")[0];
        assert_eq!(result["output"].as_str().unwrap().len(), bytes.min(100), "{result}");
        assert_eq!(result.get("truncated"), truncated.then_some(&json!(true)), "{result}");
    }
    // Text is cut at a character, where it is streamed and where it is summed up.
    for (word, cut) in [
        ("x".repeat(100), false),
        ("x".repeat(101), true),
        ("é".repeat(50), false),
        (format!("a{}", "é".repeat(50)), true),
    ] {
        let frames = client.turn(&session, &format!("/say {word}")).await;
        let expected = if cut { &word[..word.floor_char_boundary(100)] } else { &word };
        let token = of_type(&frames, "task:token")[0];
        assert_eq!((&token["text"], token.get("truncated")), (&json!(expected), cut.then_some(&json!(true))));
        let done = of_type(&frames, "turn.done")[0];
        assert_eq!(done["result_text"], expected);
    }
    // Many small texts: each is whole, their sum is cut.
    let frames = client.turn(&session, &format!("/say {}", "12345678 ".repeat(20).trim_end())).await;
    assert_eq!(streamed(&frames).len(), 179);
    let done = of_type(&frames, "turn.done")[0];
    assert_eq!(done["truncated"], true, "{done}");
    assert!(done["result_text"].as_str().unwrap().len() <= 100, "{done}");
    // A tool's input is cut whole: its beginning stays, as text.
    let command = format!("echo {}", "x".repeat(200));
    let frames = client.turn(&session, &format!("/tool {command}")).await;
    let tool_use = of_type(&frames, "task:tool_use")[0];
    assert_eq!(tool_use["truncated"], true, "{tool_use}");
    let beginning = tool_use["input"]["truncated"].as_str().unwrap();
    assert!(beginning.len() <= 100 && json!({ "command": command }).to_string().starts_with(beginning), "{tool_use}");
    gateway.stop().await;
}

#[tokio::test]
async fn frames_burst() {
    let gateway = gateway(|limits| (limits.frames_per_second, limits.frames_burst) = (1, 50)).await;
    let token = gateway.token("alice", None).await;
    let mut raw = Raw::open(gateway.address(), &token).await;
    // All in one packet or two, so that hardly any time passes between them.
    let ping =
        |at: usize| masked(raw::TEXT, json!({"type": "ping", "request_id": at.to_string()}).to_string().as_bytes());
    raw.bytes(&(0..500).flat_map(ping).collect::<Vec<u8>>()).await;
    let mut refused = 0;
    for at in 0..500 {
        let reply = raw.json().await;
        assert_eq!(reply["request_id"], at.to_string(), "every frame is answered, in order");
        if at < 50 {
            assert_eq!(reply["type"], "pong", "the burst is taken: {reply}");
        } else if reply["type"] == "error" {
            assert_eq!(reply["code"], "RATE_LIMITED");
            refused += 1;
        }
    }
    assert!(refused > 0);
    gateway.stop().await;
}

/// Connects again and again until there is room.
async fn connect_when_there_is_room(gateway: &TestGateway, token: &str) -> Client {
    loop {
        let mut client = Client::connect(gateway.address(), token, true).await;
        client.send(json!({"type": "ping"})).await;
        let reply = client.next().await;
        if reply["type"] == "pong" {
            return client;
        }
        assert_eq!(reply["code"], "TOO_MANY_CONNECTIONS", "{reply}");
        client.closed().await;
    }
}

async fn is_in(client: &mut Client) {
    assert_eq!(client.request(json!({"type": "ping"})).await["type"], "pong");
}

async fn is_refused(mut client: Client) {
    let error = client.next().await;
    assert_eq!(error["code"], "TOO_MANY_CONNECTIONS", "{error}");
    assert_eq!(u16::from(client.closed().await.unwrap().code), 4104);
}

#[tokio::test]
async fn connections_per_user() {
    let gateway = gateway(|limits| limits.connections_per_user = 2).await;
    let tokens = [gateway.token("alice", None).await, gateway.token("alice", None).await];
    let mut first = Client::connect(gateway.address(), &tokens[0], true).await;
    let mut second = Client::connect(gateway.address(), &tokens[1], false).await;
    is_in(&mut first).await;
    is_in(&mut second).await;
    for token in &tokens {
        is_refused(Client::connect(gateway.address(), token, true).await).await;
    }
    // Others are others.
    is_in(&mut gateway.client("bob").await).await;
    // One goes, one comes; the refused ones never counted.
    first.socket.close(None).await.unwrap();
    first.closed().await;
    let mut third = connect_when_there_is_room(&gateway, &tokens[0]).await;
    is_in(&mut third).await;
    is_refused(Client::connect(gateway.address(), &tokens[0], true).await).await;
    gateway.stop().await;
}

#[tokio::test]
async fn connections() {
    let gateway = gateway(|limits| limits.connections = 2).await;
    let (mut first, mut second) = (gateway.client("alice").await, gateway.client("bob").await);
    is_in(&mut first).await;
    is_in(&mut second).await;
    let token = gateway.token("carol", None).await;
    is_refused(Client::connect(gateway.address(), &token, true).await).await;
    // Who has no good credential takes no place, now or ever.
    let mut stranger = Client::connect(gateway.address(), "nonsense", true).await;
    assert_eq!(stranger.next().await["code"], "UNAUTHORIZED");
    drop(second);
    let mut third = connect_when_there_is_room(&gateway, &token).await;
    is_in(&mut third).await;
    is_in(&mut first).await;
    gateway.stop().await;
}

#[tokio::test]
async fn new_connections_per_second() {
    let gateway = gateway(|limits| limits.new_connections_per_second = 2).await;
    let token = gateway.token("alice", None).await;
    let mut first = Client::connect(gateway.address(), &token, true).await;
    is_in(&mut first).await;
    let mut second = Client::connect(gateway.address(), &token, true).await;
    is_in(&mut second).await;
    // However slow this machine is: some of many come too early, with whatever credential.
    let mut refused = 0;
    for token in [token.as_str(), "nonsense"].iter().cycle().take(100) {
        let mut client = Client::connect(gateway.address(), token, true).await;
        client.send(json!({"type": "ping"})).await;
        if client.next().await["code"] == "TOO_MANY_CONNECTIONS" {
            refused += 1;
            break;
        }
    }
    assert!(refused > 0);
    let mut later = connect_when_there_is_room(&gateway, &token).await;
    is_in(&mut later).await;
    is_in(&mut first).await;
    gateway.stop().await;
}

#[tokio::test]
async fn followed_sessions() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.followed_sessions = 2).await;
        let mut other = gateway.client("alice").await;
        let third = session(&mut other).await;
        other.turn(&third, "/say well").await;

        let mut client = gateway.client("alice").await;
        let (first, second) = (session(&mut client).await, session(&mut client).await);
        for frame in [
            json!({"type": "session.start"}),
            json!({"type": "session.resume", "session_id": third}),
            json!({"type": "task.submit", "prompt": "/say no"}),
            turn(&third, "/say no"),
        ] {
            let error = client.request(frame).await;
            assert_eq!(error["code"], "QUEUE_FULL", "{error}");
        }
        // Those that are followed can be worked with, and followed anew.
        client.turn(&first, "/say well").await;
        let resume = client.request(json!({"type": "session.resume", "session_id": second})).await;
        assert_eq!(resume["type"], "session.replay_start");
        client.expect("session.replay_end").await;
        // One goes, one comes.
        client.request(json!({"type": "session.unsubscribe", "session_id": first})).await;
        let resume = client.request(json!({"type": "session.resume", "session_id": third})).await;
        assert_eq!(resume["type"], "session.replay_start");
        let replay = client.until_type("session.replay_end").await;
        assert_eq!(of_type(&replay, "user.message").len(), 1, "what was refused left no trace");
        assert_eq!(client.request(turn(&first, "/say no")).await["code"], "QUEUE_FULL");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn followed_sessions_that_are_asked_for_all_at_once() {
    let gateway = gateway(|limits| limits.followed_sessions = 2).await;
    let mut client = gateway.client("alice").await;
    for at in 0..5 {
        client.send(json!({"type": "session.start", "request_id": at.to_string()})).await;
    }
    let mut ready = 0;
    for _ in 0..5 {
        let reply = client.until(|frame| frame["request_id"].is_string()).await.pop().unwrap();
        match reply["type"].as_str().unwrap() {
            "session.ready" => ready += 1,
            _ => assert_eq!(reply["code"], "QUEUE_FULL", "{reply}"),
        }
    }
    let pong = client.request(json!({"type": "ping"})).await;
    assert_eq!((ready, pong["sessions"].as_object().unwrap().len()), (2, 2), "{pong}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_session_that_is_followed_already_is_not_followed_twice() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = session(&mut client).await;
        let mut last = 0;
        for at in 0..20 {
            let prompt = format!("/say {at}");
            client.send(turn(&session, &prompt)).await;
            let frames = client.until_task_end().await;
            for frame in frames {
                let seq = frame["seq"].as_u64().unwrap();
                assert!(seq > last, "after {last}: {frame}");
                last = seq;
            }
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_prompt_takes_no_place_among_the_followed_sessions() {
    let gateway = gateway(|limits| (limits.followed_sessions, limits.waiting_per_session) = (1, 1)).await;
    let free = session(&mut gateway.client("alice").await).await;
    let mut other = gateway.client("alice").await;
    let full = session(&mut other).await;
    let task = begin(&mut other, &full, ENDLESS).await;
    assert_eq!(other.request(turn(&full, "/say waits")).await["type"], "ack");

    let mut client = gateway.client("alice").await;
    for frame in [
        turn(&full, "/say no"),
        json!({"type": "session.turn", "session_id": full, "prompt": "/say no", "on_busy": "reject"}),
    ] {
        assert_eq!(client.request(frame).await["type"], "error");
    }
    // It follows nothing, so there is room for another.
    assert_eq!(client.request(json!({"type": "ping"})).await["sessions"], json!({}));
    assert_eq!(client.request(turn(&free, "/say well")).await["type"], "ack");
    cancel(&mut other, &task).await;
    gateway.stop().await;
}

#[tokio::test]
async fn waiting_per_session() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.waiting_per_session = 2).await;
        let mut client = gateway.client("alice").await;
        let (session, other) = (session(&mut client).await, session(&mut client).await);
        let running = begin(&mut client, &session, ENDLESS).await;
        let first = client.request(turn(&session, ENDLESS)).await;
        let second = client.request(turn(&session, "/say second")).await;
        assert_eq!((&first["position"], &second["position"]), (&json!(0), &json!(1)));
        let error = client.request(turn(&session, "/say third")).await;
        assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!("QUEUE_FULL"), true), "{error}");
        // The other session has a queue of its own.
        client.turn(&other, "/say well").await;
        // One that is cancelled while it waits makes room.
        cancel(&mut client, &first["task_id"]).await;
        let third = client.request(turn(&session, "/say third")).await;
        assert_eq!(third["position"], 1, "{third}");
        cancel(&mut client, &running).await;
        for task in [&second, &third] {
            let done = client.until(|frame| frame["type"] == "task:done" && frame["task_id"] == task["task_id"]).await;
            assert_eq!(done.last().unwrap()["status"], "completed");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn waiting_per_user() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.waiting_per_user = 2).await;
        let mut client = gateway.client("alice").await;
        let sessions = [session(&mut client).await, session(&mut client).await];
        let mut running = Vec::new();
        for session in &sessions {
            running.push(begin(&mut client, session, ENDLESS).await);
        }
        for session in &sessions {
            assert_eq!(client.request(turn(session, "/say waits")).await["type"], "ack");
        }
        for frame in [
            turn(&sessions[0], "/say no"),
            turn(&sessions[1], "/say no"),
            json!({"type": "task.submit", "prompt": "/say no"}),
        ] {
            let error = client.request(frame).await;
            assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!("QUEUE_FULL"), true), "{error}");
        }
        // Another user has a queue of his own.
        gateway.client("bob").await.run("/say well").await;
        cancel(&mut client, &running[0]).await;
        client.until(|frame| frame["type"] == "task:done" && frame["status"] == "completed").await;
        assert_eq!(client.request(turn(&sessions[0], "/say room")).await["type"], "ack");
        cancel(&mut client, &running[1]).await;
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn running_per_user() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.running_per_user = 2).await;
        let mut client = gateway.client("alice").await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(session(&mut client).await);
        }
        // Two at once.
        let first = begin(&mut client, &sessions[0], ENDLESS).await;
        let second = begin(&mut client, &sessions[1], ENDLESS).await;
        // The third is accepted and waits; another user's does not.
        let third = client.request(turn(&sessions[2], "/say third")).await;
        assert_eq!(third["status"], "queued", "{third}");
        gateway.client("bob").await.run("/say well").await;
        let is_third = |frame: &Value| frame["task_id"] == third["task_id"];
        client.send(json!({"type": "task.cancel", "task_id": first})).await;
        let frames = client.until(|frame| frame["type"] == "task:started" && is_third(frame)).await;
        let freed = frames.iter().find(|frame| frame["type"] == "task:done" && frame["task_id"] == first);
        let freed = match freed {
            Some(freed) => freed.clone(),
            // Of two sessions nobody promises which is shown first; their times tell.
            None => {
                client.until(|frame| frame["type"] == "task:done" && frame["task_id"] == first).await.pop().unwrap()
            }
        };
        let started = frames.last().unwrap();
        assert!(freed["ts"].as_i64() <= started["ts"].as_i64(), "{freed} {started}");
        cancel(&mut client, &second).await;
        gateway.stop().await;
    })
    .await;
}

/// Starts a session and asks for its container: `session.ready` or an error.
async fn start(client: &mut Client) -> Value {
    client.request(json!({"type": "session.start"})).await
}

async fn small_pool(change: impl FnOnce(&mut LimitsConfig)) -> TestGateway {
    TestGateway::start_with(database::sqlite(), |config| {
        config.runtime.start_timeout_seconds = 2;
        for profile in config.profiles.values_mut() {
            profile.warm = 0;
        }
        change(&mut config.limits);
    })
    .await
}

#[tokio::test]
async fn containers_per_user() {
    let gateway = small_pool(|limits| limits.containers_per_user = 2).await;
    let mut client = gateway.client("alice").await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = session(&mut client).await;
        begin(&mut client, &session, ENDLESS).await;
        sessions.push(session);
    }
    // Both are at work: none can be stopped to make room.
    let error = start(&mut client).await;
    assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!("CAPACITY"), true), "{error}");
    let error = client.request(json!({"type": "task.submit", "prompt": "/say no"})).await;
    assert_eq!(error["code"], "CAPACITY", "{error}");
    // Another user has places of his own, and those at work are not disturbed.
    gateway.client("bob").await.run("/say well").await;
    let ack = client.request(turn(&sessions[0], "/say well")).await;
    assert_eq!(ack["position"], 0, "{ack}");
    gateway.stop().await;
}

#[tokio::test]
async fn containers() {
    let gateway = small_pool(|limits| limits.containers = 2).await;
    let (mut alice, mut bob) = (gateway.client("alice").await, gateway.client("bob").await);
    for client in [&mut alice, &mut bob] {
        let session = session(client).await;
        begin(client, &session, ENDLESS).await;
    }
    let mut carol = gateway.client("carol").await;
    let error = start(&mut carol).await;
    assert_eq!((&error["code"], error["retry_after_ms"].is_u64()), (&json!("CAPACITY"), true), "{error}");
    gateway.stop().await;
}

#[tokio::test]
async fn an_idle_container_is_stopped_to_make_room_the_least_recently_used_first() {
    let gateway = small_pool(|limits| limits.containers_per_user = 2).await;
    let mut client = gateway.client("alice").await;
    let (older, newer) = (session(&mut client).await, session(&mut client).await);
    let pid = async |client: &mut Client, session: &str| {
        let said = streamed(&client.turn(session, "/id").await);
        assert!(said.contains("pid"), "{said}");
        said
    };
    client.turn(&older, "/remember blue").await;
    let pids = (pid(&mut client, &older).await, pid(&mut client, &newer).await);
    // A third takes the place of the one whose last turn is longest ago.
    let third = session(&mut client).await;
    client.turn(&third, "/say well").await;
    assert_eq!(pid(&mut client, &newer).await, pids.1, "the newer one was left alone");
    // The older one lost its agent and nothing else.
    assert_eq!(streamed(&client.turn(&older, "/recall").await), "blue");
    assert_ne!(pid(&mut client, &older).await, pids.0);
    gateway.stop().await;
}
