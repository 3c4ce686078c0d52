//! The door: which credential opens it, which subprotocol is answered, who is told what at the door.

use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use streamgate::config::Config;

use crate::closes::check_reason;
use crate::database::{self, TestDatabase};
use crate::raw::{self, Raw};
use crate::support::{TestGateway, binary};

/// Better Auth's tables and rows, as the real one left them.
const SCHEMA: &str = include_str!("../fixtures/better-auth/schema.sql");
const RECORDED: &str = include_str!("../fixtures/better-auth/session-cookies.json");
/// The page that users sign in at, where the gateway is as well.
const OWN: &str = "http://localhost:4801";
const FRIEND: &str = "https://app.example.com";

/// A gateway beside a Better Auth.
struct World {
    gateway: TestGateway,
    pool: PgPool,
    recorded: Value,
}

impl World {
    async fn start() -> Self {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        let database = database::postgres().await;
        let pool = load(&database, &recorded).await;
        let gateway = TestGateway::start_with(database, |config: &mut Config| {
            config.public_url = OWN.into();
            config.auth.allowed_origins = vec![FRIEND.to_owned()];
            config.auth.better_auth.secret = recorded["envs"]["http"]["secret"].as_str().unwrap().into();
        })
        .await;
        Self { gateway, pool, recorded }
    }

    /// The cookie header of a recorded case.
    fn cookie(&self, case: &str) -> String {
        cookie(&self.recorded, case)
    }

    async fn knock(&self, path: &str, headers: &[(&str, &str)]) -> Raw {
        let (raw, handshake) = Raw::upgrade(self.gateway.address(), path, headers).await;
        assert_eq!(handshake.status, 101, "{path} {headers:?}");
        raw
    }

    /// What a client finds behind the door: its user's sessions, or an error and a close.
    async fn finds(&self, path: &str, headers: &[(&str, &str)]) -> Door {
        let mut raw = self.knock(path, headers).await;
        raw.frame(raw::TEXT, br#"{"type":"ping"}"#).await;
        let first = raw.json().await;
        if first["type"] == "pong" {
            return Door::Open;
        }
        assert_eq!(first["type"], "error", "{first}");
        let (code, reason, rest) = raw.closed().await;
        assert_eq!(rest, [] as [Value; 0], "nothing after the refusal");
        match (first["code"].as_str().unwrap(), code) {
            ("UNAUTHORIZED", 4001) => check_reason((code, &reason), 4001, "unauthorized"),
            ("FORBIDDEN", 4003) => {
                check_reason((code, &reason), 4003, "origin_refused");
                return Door::Origin;
            }
            _ => panic!("{first} {code} {reason}"),
        }
        Door::Shut
    }

    async fn stop(self) {
        self.pool.close().await;
        self.gateway.stop().await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    /// No or bad credential.
    Shut,
    /// A cookie from elsewhere.
    Origin,
}
use Door::{Open, Origin, Shut};

async fn load(database: &TestDatabase, recorded: &Value) -> PgPool {
    let pool = database.pool().await;
    pool.execute(SCHEMA).await.unwrap();
    for table in ["user", "session"] {
        let rows = recorded["envs"]["http"]["rows"][table].to_string();
        let insert = format!(
            r#"INSERT INTO "{table}" SELECT * FROM jsonb_populate_recordset(NULL::"{table}", $1::text::jsonb)"#
        );
        sqlx::query(AssertSqlSafe(insert)).bind(rows).execute(&pool).await.unwrap();
    }
    pool
}

fn cookie(recorded: &Value, case: &str) -> String {
    let cases = recorded["cases"].as_array().unwrap();
    let case = cases.iter().find(|recorded| recorded["id"] == format!("http/{case}")).unwrap();
    case["cookie_header"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn any_of_the_four_credentials_opens_and_the_first_one_present_counts() {
    let world = World::start().await;
    let token = world.gateway.token("alice", None).await;
    let unknown = format!("rc_{}", "0".repeat(48));
    let cookie = world.cookie("valid_urlencoded");
    // `$t` is a good token, `$u` one that nobody made.
    let fill = |text: &str| text.replace("$t", &token).replace("$u", &unknown).replace("$c", &cookie);
    let authorization = |value: &'static str| ("Authorization", value);
    let offer = |value: &'static str| ("Sec-WebSocket-Protocol", value);
    let (good_cookie, own) = (("Cookie", "$c"), ("Origin", OWN));
    for (headers, query, expected) in [
        // Each alone.
        (&[authorization("Bearer $t")][..], "", Open),
        (&[authorization("bearer $t")], "", Open),
        (&[offer("Bearer.$t")], "", Open),
        (&[offer("bearer.$t, streamgate.v1")], "", Open),
        (&[], "?token=$t", Open),
        (&[good_cookie, own], "", Open),
        (&[], "", Shut),
        // Each bad.
        (&[authorization("Bearer $u")], "", Shut),
        (&[authorization("Bearer nonsense")], "", Shut),
        (&[authorization("Bearer")], "", Shut),
        (&[offer("Bearer.$u")], "", Shut),
        (&[offer("Bearer.")], "", Shut),
        (&[], "?token=$u", Shut),
        (&[], "?token=", Shut),
        (&[("Cookie", "better-auth.session_token=nonsense"), own], "", Shut),
        // The first one present counts, whatever else there is.
        (&[authorization("Bearer $t"), offer("Bearer.$u"), good_cookie], "?token=$u", Open),
        (&[offer("Bearer.$t"), good_cookie], "?token=$u", Open),
        (&[good_cookie], "?token=$t", Open),
        (&[authorization("Bearer $u"), offer("Bearer.$t"), good_cookie, own], "?token=$t", Shut),
        (&[offer("Bearer.$u"), good_cookie, own], "?token=$t", Shut),
        // An explicit one that fails never falls back to the cookie.
        (&[authorization("Bearer $u"), good_cookie, own], "", Shut),
        (&[authorization("Bearer nonsense"), good_cookie, own], "", Shut),
        (&[offer("Bearer.$u"), good_cookie, own], "", Shut),
        (&[good_cookie, own], "?token=$u", Shut),
        (&[good_cookie, own], "?token=", Shut),
        // Of two of a kind nobody can say which is meant.
        (&[authorization("Bearer $t"), authorization("Bearer $t")], "", Shut),
        (&[offer("Bearer.$t"), offer("Bearer.$u")], "", Shut),
        (&[], "?token=$t&token=$t", Shut),
        // Another scheme is somebody else's.
        (&[authorization("Basic dXNlcjpwYXNz"), good_cookie, own], "", Open),
        (&[authorization("Basic dXNlcjpwYXNz")], "", Shut),
    ] {
        let filled: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, fill(value))).collect();
        let filled: Vec<(&str, &str)> = filled.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = format!("/v1/stream{}", fill(query));
        assert_eq!(world.finds(&path, &filled).await, expected, "{headers:?} {query}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_cookie_needs_exactly_one_origin_that_is_on_the_list() {
    let world = World::start().await;
    let cookie = world.cookie("valid_urlencoded");
    for (origins, expected) in [
        (&[OWN][..], Open),
        (&["HTTP://LOCALHOST:4801"], Open),
        (&[FRIEND], Open),
        (&["https://app.example.com:443"], Open),
        (&[], Origin),
        (&["null"], Origin),
        (&[""], Origin),
        (&["https://evil.example"], Origin),
        (&["http://app.example.com"], Origin),
        (&["https://app.example.com:444"], Origin),
        (&["https://app.example.com.evil.example"], Origin),
        (&["https://sub.app.example.com"], Origin),
        (&["https://app.example.com/"], Origin),
        (&["http://gateway.test"], Origin), // What `Host` says proves nothing.
        (&[OWN, OWN], Origin),
        (&[OWN, "https://evil.example"], Origin),
    ] {
        let headers = origins.iter().map(|origin| ("Origin", *origin)).chain([("Cookie", cookie.as_str())]);
        let headers: Vec<(&str, &str)> = headers.collect();
        assert_eq!(world.finds("/v1/stream", &headers).await, expected, "{origins:?}");
    }
    // The origin comes first: who is refused by it learns nothing of the cookie.
    let bad = world.cookie("tampered_token_first_char");
    let elsewhere = ("Origin", "https://evil.example");
    assert_eq!(world.finds("/v1/stream", &[("Cookie", &bad), elsewhere]).await, Origin);
    // Tokens need none: no browser adds them by itself.
    let token = format!("Bearer {}", world.gateway.token("alice", None).await);
    assert_eq!(world.finds("/v1/stream", &[("Authorization", &token), elsewhere]).await, Open);
    world.stop().await;
}

#[tokio::test]
async fn a_cookie_opens_what_better_auth_would_open() {
    let world = World::start().await;
    let cases: Vec<&Value> =
        world.recorded["cases"].as_array().unwrap().iter().filter(|case| case["env"] == "http").collect();
    assert!(cases.len() > 30);
    for case in cases {
        let expected = if case["gateway_accepts"] == true { Open } else { Shut };
        let cookie = case["cookie_header"].as_str().unwrap();
        let headers = [("Cookie", cookie), ("Origin", OWN)];
        assert_eq!(world.finds("/v1/stream", &headers).await, expected, "{}", case["id"]);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_session_of_better_auth_works_as_its_user_and_a_ban_by_sql_closes_it() {
    let world = World::start().await;
    let user = |case: &str| {
        let cases = world.recorded["cases"].as_array().unwrap();
        let case = cases.iter().find(|recorded| recorded["id"] == format!("http/{case}")).unwrap();
        case["expect"]["user_id"].as_str().unwrap().to_owned()
    };
    let banned = user("valid_urlencoded");
    let cookie = world.cookie("valid_urlencoded");
    let mut socket = world.knock("/v1/stream?protocol=streamgate.v1", &[("Cookie", &cookie), ("Origin", OWN)]).await;
    let mut admin = world.knock("/v1/stream", &[("Cookie", &world.cookie("admin_role")), ("Origin", OWN)]).await;
    socket.frame(raw::TEXT, br#"{"type":"session.start","request_id":"1"}"#).await;
    let ready = socket.json().await;
    assert_eq!(ready["type"], "session.ready", "{ready}");
    // The session is that user's: a token of the same user finds it, and so does an admin's cookie.
    let mut same = world.gateway.client(&banned).await;
    let resume = json!({"type": "session.resume", "session_id": ready["session_id"]});
    assert_eq!(same.request(resume.clone()).await["type"], "session.replay_start");
    admin.frame(raw::TEXT, resume.to_string().as_bytes()).await;
    assert_eq!(admin.json().await["type"], "session.replay_start");
    assert_eq!(world.gateway.client("bob").await.request(resume).await["code"], "SESSION_NOT_FOUND");

    let changed = sqlx::query(r#"UPDATE "user" SET banned = true WHERE id = $1"#).bind(&banned).execute(&world.pool);
    assert_eq!(changed.await.unwrap().rows_affected(), 1);
    let (code, reason, texts) = socket.closed().await;
    check_reason((code, &reason), 4001, "unauthorized");
    assert_eq!(texts.last().unwrap()["code"], "UNAUTHORIZED");
    assert_eq!(world.finds("/v1/stream", &[("Cookie", &cookie), ("Origin", OWN)]).await, Shut);
    // The token is another credential, which nobody took away; and the admin is still in.
    assert_eq!(same.request(json!({"type": "ping"})).await["type"], "pong");
    world.stop().await;
}

#[tokio::test]
async fn the_subprotocol_that_is_answered_is_one_that_was_offered() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let token = gateway.token("alice", None).await;
    let bearer = format!("Bearer.{token}");
    for (offers, selected, extended) in [
        (&["streamgate.v1, $b"][..], Some("streamgate.v1"), true),
        (&["$b, streamgate.v1"], Some("streamgate.v1"), true),
        (&["$b", "streamgate.v1"], Some("streamgate.v1"), true),
        (&["streamgate.v1", "$b"], Some("streamgate.v1"), true),
        (&["x.y,$b ,z"], Some("$b"), false),
        (&["$b"], Some("$b"), false),
        (&["x.y", "$b"], Some("$b"), false),
    ] {
        let fill = |text: &str| text.replace("$b", &bearer);
        let filled: Vec<String> = offers.iter().map(|offer| fill(offer)).collect();
        let headers: Vec<(&str, &str)> =
            filled.iter().map(|offer| ("Sec-WebSocket-Protocol", offer.as_str())).collect();
        let (mut raw, handshake) = Raw::upgrade(gateway.address(), "/v1/stream", &headers).await;
        assert_eq!(handshake.status, 101);
        let selected: Vec<String> = selected.into_iter().map(fill).collect();
        assert_eq!(handshake.all("sec-websocket-protocol"), selected, "{offers:?}");
        assert_eq!(is_extended(&mut raw).await, extended, "{offers:?}");
    }
    // Without an offer nothing is selected; the query asks for the extended events as well.
    let authorization = format!("Bearer {token}");
    for (path, extended) in [
        ("/v1/stream", false),
        ("/v1/stream?protocol=streamgate.v1", true),
        ("/v1/stream?x=1&protocol=streamgate%2Ev1", true),
        ("/v1/stream?protocol=streamgate.v2", false),
    ] {
        let (mut raw, handshake) = Raw::upgrade(gateway.address(), path, &[("Authorization", &authorization)]).await;
        assert_eq!(handshake.all("sec-websocket-protocol"), [] as [&str; 0], "{path}");
        assert_eq!(is_extended(&mut raw).await, extended, "{path}");
    }
    // A refusal is an upgrade like any other, or a browser could not read it.
    let offer = [("Sec-WebSocket-Protocol", "Bearer.nonsense")];
    let (mut raw, handshake) = Raw::upgrade(gateway.address(), "/v1/stream", &offer).await;
    assert_eq!((handshake.status, &handshake.all("sec-websocket-protocol")[..]), (101, &["Bearer.nonsense"][..]));
    assert_eq!(raw.json().await["code"], "UNAUTHORIZED");
    let (code, reason, _) = raw.closed().await;
    check_reason((code, &reason), 4001, "unauthorized");
    gateway.stop().await;
}

/// Whether a connection gets the events that go beyond the document.
async fn is_extended(raw: &mut Raw) -> bool {
    raw.frame(raw::TEXT, br#"{"type":"task.submit","prompt":"/say hi"}"#).await;
    let mut extended = false;
    loop {
        let frame = raw.json().await;
        extended |= frame["type"] == "user.message";
        if frame["type"] == "task:done" {
            return extended;
        }
    }
}

#[tokio::test]
async fn what_does_not_upgrade_is_told_so_over_http() {
    let gateway = TestGateway::start(database::sqlite()).await;
    let get = reqwest::Client::new().get(gateway.url("/v1/stream"));
    let response = get.send().await.unwrap();
    assert_eq!(response.status(), 426);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let post = reqwest::Client::new().post(gateway.url("/v1/stream")).send().await.unwrap();
    assert_eq!(post.status(), 405);
    gateway.stop().await;
}

/// The whole log of a gateway that says everything it can, while credentials of all kinds come by.
#[tokio::test]
async fn no_credential_is_in_any_line_of_the_log() {
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let database = database::postgres().await;
    let pool = load(&database, &recorded).await;
    let directory = crate::shims::DataDir::new();
    let mut gateway = Command::new(binary())
        .env_clear()
        .env("STREAMGATE_LOG__FILTER", "trace")
        .env("STREAMGATE_LISTEN", "127.0.0.1:0")
        .env("STREAMGATE_ADMIN__LISTEN", "127.0.0.1:0")
        .env("STREAMGATE_PUBLIC_URL", OWN)
        .env("STREAMGATE_DATA_DIR", directory.path())
        .env("STREAMGATE_DATABASE__URL", &database.url)
        .env("STREAMGATE_AUTH__BETTER_AUTH__SECRET", recorded["envs"]["http"]["secret"].as_str().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(gateway.stderr.take().unwrap());
    let (listening, address) = tokio::sync::oneshot::channel();
    let log = std::thread::spawn(move || {
        let (mut log, mut listening) = (String::new(), Some(listening));
        while std::io::BufRead::read_line(&mut stderr, &mut log).unwrap_or(0) > 0 {
            let line = log.lines().next_back().unwrap_or_default();
            if let Some((_, address)) = line.split_once("Listening on ")
                && let Some(listening) = listening.take()
            {
                let address = address.split_whitespace().next().unwrap_or_default().to_owned();
                listening.send(address).unwrap();
            }
        }
        let _ = stderr.read_to_string(&mut log);
        log
    });
    let address = tokio::time::timeout(crate::support::PATIENCE, address).await.unwrap().unwrap().parse().unwrap();

    let token = std::fs::read_to_string(directory.path().join("first-token")).unwrap().trim().to_owned();
    let unknown = format!("rc_{}", "5ecre7".repeat(8));
    let cookie = cookie(&recorded, "valid_urlencoded");
    let session_token = cookie.split_once('=').unwrap().1.split_once('.').unwrap().0;
    for token in [token.as_str(), unknown.as_str(), "rc_nonsense-that-is-secret"] {
        for (path, header) in [
            ("/v1/stream".to_owned(), ("Authorization", format!("Bearer {token}"))),
            ("/v1/stream".to_owned(), ("Sec-WebSocket-Protocol", format!("streamgate.v1, Bearer.{token}"))),
            (format!("/v1/stream?token={token}"), ("X-Nothing", String::new())),
        ] {
            let (mut raw, _) = Raw::upgrade(address, &path, &[(header.0, &header.1)]).await;
            raw.frame(raw::TEXT, br#"{"type":"ping"}"#).await;
            raw.json().await;
        }
        let http = reqwest::Client::new();
        for request in [
            http.get(format!("http://{address}/v1/sessions")).bearer_auth(token),
            http.get(format!("http://{address}/v1/sessions?token={token}")),
            http.get(format!("http://{address}/nothing?token={token}")),
        ] {
            request.send().await.unwrap();
        }
    }
    let (mut raw, _) = Raw::upgrade(address, "/v1/stream", &[("Cookie", &cookie), ("Origin", OWN)]).await;
    raw.frame(raw::TEXT, br#"{"type":"ping"}"#).await;
    assert_eq!(raw.json().await["type"], "pong");

    gateway.kill().unwrap();
    gateway.wait().unwrap();
    let log = log.join().unwrap();
    assert!(log.contains("Listening on") && log.contains("TRACE"), "the log says much: {log:.2000}");
    // After the prefix that everybody may know.
    for secret in [&token[3..], &unknown[3..], "nonsense-that-is-secret", session_token] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    pool.close().await;
}
