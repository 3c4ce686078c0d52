//! What operators see: `/metrics` and the health of a real gateway, on the listener that is theirs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, reason = "test names are sentences")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use streamgate::app::App;
use streamgate::config::Config;
use streamgate::domain::{Seq, SessionId};
use tokio::time::Instant;

#[path = "support/client.rs"]
mod client;
#[path = "support/database.rs"]
mod database;
#[path = "it/outage.rs"]
mod outage;
#[path = "support/shims.rs"]
mod shims;
#[path = "it/support.rs"]
#[allow(dead_code, unused_imports, reason = "each test binary uses what it needs")]
mod support;

use outage::Outage;
use support::{Client, PATIENCE, TestGateway};

/// What `/metrics` says at a moment: the value of each series.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(operators: SocketAddr) -> Self {
        let response = reqwest::get(format!("http://{operators}/metrics")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = response.text().await.unwrap();
        check_format(&text);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.map(|line| line.rsplit_once(' ').unwrap());
        Self(pairs.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect())
    }

    /// The value of `streamgate_<series>`.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let found = self.0.get(&format!("streamgate_{series}"));
        *found.unwrap_or_else(|| panic!("`{series}` in {:#?}", self.0.keys()))
    }
}

/// Every metric has a help, a type, a sample and a name of ours; no series is there twice.
fn check_format(text: &str) {
    let mut seen = BTreeSet::new();
    let mut metric = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            metric = help.split_once(' ').expect("a help text").0;
            assert!(metric.starts_with("streamgate_"), "{line}");
            assert!(text.contains(&format!("\n{metric}")), "`{metric}` has a sample");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind.split_once(' ').unwrap().0, metric, "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(metric) && value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series), "once: {line}");
        }
    }
}

trait Operators {
    async fn scrape(&self) -> Scrape;
    /// Looks again and again until a series has a value, but not for ever.
    async fn becomes(&self, series: &str, value: f64);
}

impl Operators for TestGateway {
    async fn scrape(&self) -> Scrape {
        Scrape::of(self.app().operators_address()).await
    }

    async fn becomes(&self, series: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.scrape().await.value(series);
            if (now - value).abs() < f64::EPSILON {
                return;
            }
            assert!(Instant::now() < deadline, "`{series}` is {now}, not {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[track_caller]
fn assert_values(scrape: &Scrape, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        let now = scrape.value(series);
        assert!((now - value).abs() < f64::EPSILON, "`{series}` is {now}, not {value}");
    }
}

async fn start() -> TestGateway {
    TestGateway::start(database::sqlite()).await
}

fn id_of(frame: &Value, field: &str) -> String {
    frame[field].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_task_moves_the_numbers_that_tell_of_it() {
    let gateway = start().await;
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let nothing_yet = [
        (version.as_str(), 1.0),
        ("connections_open", 0.0),
        ("sessions_active", 0.0),
        ("tasks_accepted_total", 0.0),
        ("journal_available", 1.0),
        ("containers_limit", 50.0),
    ];
    assert_values(&gateway.scrape().await, &nothing_yet);

    let mut client = gateway.client("alice").await;
    let ready = client.start_session().await;
    let session = id_of(&ready, "session_id");
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A | B"})).await;
    let asked = client.expect("task:ask_user").await;
    let next = client.request(json!({"type": "session.turn", "session_id": session, "prompt": "then this"})).await;
    assert_eq!(next["type"], "ack", "{next}");

    let at_work = gateway.scrape().await;
    let at_work_values = [
        ("connections_open", 1.0),
        ("sessions_active", 1.0),
        ("tasks{state=\"queued\"}", 1.0),
        ("tasks{state=\"starting\"}", 0.0),
        ("tasks{state=\"running\"}", 0.0),
        ("tasks{state=\"awaiting_answer\"}", 1.0),
        ("tasks_accepted_total", 2.0),
        ("tasks_ended_total{state=\"completed\"}", 0.0),
        ("containers{state=\"running\"}", 1.0),
        ("containers{state=\"idle\"}", 0.0),
    ];
    assert_values(&at_work, &at_work_values);
    assert!(at_work.value("uptime_seconds") > 0.0);

    let answer = json!({"type": "task.answer", "task_id": asked["task_id"], "ask_id": asked["ask_id"], "answer": "A"});
    client.send(answer).await;
    client.until_task_end().await;
    client.until_task_end().await;
    // Its end is shown as soon as it is committed; what it held is given back a moment later.
    gateway.becomes("containers{state=\"idle\"}", 1.0).await;
    gateway.becomes("tasks{state=\"running\"}", 0.0).await;
    gateway.becomes("journal_appends_waiting", 0.0).await;

    let after = gateway.scrape().await;
    let head = gateway.app().shared().orchestrator.store().last_seq(SessionId::parse(&session).unwrap()).await;
    let events = f64::from(u32::try_from(head.unwrap().unwrap().0).unwrap());
    let after_values = [
        ("tasks{state=\"queued\"}", 0.0),
        ("tasks{state=\"running\"}", 0.0),
        ("tasks{state=\"awaiting_answer\"}", 0.0),
        ("tasks_ended_total{state=\"completed\"}", 2.0),
        ("tasks_ended_total{state=\"failed\"}", 0.0),
        ("journal_commit_events_sum", events),
        ("journal_commit_failures_total{reason=\"unavailable\"}", 0.0),
        ("journal_commit_failures_total{reason=\"refused\"}", 0.0),
        ("agents_adopted_total", 0.0),
    ];
    assert_values(&after, &after_values);
    let commits = after.value("journal_commit_seconds_count");
    assert!(commits >= 5.0 && after.value("journal_commit_seconds_sum") > 0.0);
    assert_values(&after, &[("journal_commit_events_count", commits), ("journal_commit_appends_count", commits)]);
    assert!(after.value("journal_commit_appends_sum") >= commits);
    gateway.stop().await;
}

#[tokio::test]
async fn errors_and_closes_are_counted_by_their_codes() {
    let gateway = start().await;
    let mut client = gateway.client("alice").await;
    client.send_text("no JSON").await;
    client.expect("error").await;
    let refused = client.request(json!({"type": "task.submit"})).await;
    assert_eq!(refused["code"], "VALIDATION_FAILED", "{refused}");
    let errors = [
        ("error_frames_total{code=\"INVALID_JSON\"}", 1.0),
        ("error_frames_total{code=\"VALIDATION_FAILED\"}", 1.0),
        ("error_frames_total{code=\"UNAUTHORIZED\"}", 0.0),
    ];
    assert_values(&gateway.scrape().await, &errors);

    client.socket.close(None).await.unwrap();
    gateway.becomes("connections_closed_total{code=\"1000\"}", 1.0).await;
    gateway.becomes("connections_open", 0.0).await;

    let mut stranger = Client::connect(gateway.address(), "nobody", true).await;
    assert_eq!(u16::from(stranger.closed().await.unwrap().code), 4001);
    let refused = [
        ("error_frames_total{code=\"UNAUTHORIZED\"}", 1.0),
        ("connections_closed_total{code=\"4001\"}", 1.0),
        ("connections_closed_total{code=\"1006\"}", 0.0),
    ];
    assert_values(&gateway.scrape().await, &refused);

    drop(gateway.client("alice").await);
    gateway.becomes("connections_closed_total{code=\"1006\"}", 1.0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn errors_over_rest_and_open_event_streams_are_counted() {
    let gateway = start().await;
    let mut client = gateway.client("alice").await;
    let session = id_of(&client.start_session().await, "session_id");
    let (http, token) = (reqwest::Client::new(), gateway.token("alice", None).await);
    for (path, status) in [("/v1/sessions/x", 404), ("/v1/nothing", 404), ("/v1/sessions?limit=x", 422)] {
        let answer = http.get(gateway.url(path)).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    assert_eq!(http.get(gateway.url("/v1/sessions")).send().await.unwrap().status(), 401);
    assert_eq!(http.post(gateway.url("/health")).send().await.unwrap().status(), 405);
    assert_eq!(http.get(gateway.url("/v1/stream")).send().await.unwrap().status(), 426);
    let counted = [
        ("rest_errors_total{code=\"SESSION_NOT_FOUND\"}", 1.0),
        ("rest_errors_total{code=\"NOT_FOUND\"}", 2.0),
        ("rest_errors_total{code=\"VALIDATION_FAILED\"}", 2.0),
        ("rest_errors_total{code=\"UNAUTHORIZED\"}", 1.0),
        ("rest_errors_total{code=\"INTERNAL_ERROR\"}", 0.0),
        ("error_frames_total{code=\"NOT_FOUND\"}", 0.0),
        ("event_streams_open", 0.0),
        ("connections_open", 1.0),
    ];
    assert_values(&gateway.scrape().await, &counted);

    let path = format!("/v1/sessions/{session}/stream");
    let stream = http.get(gateway.url(&path)).bearer_auth(&token).send().await.unwrap();
    assert_values(&gateway.scrape().await, &[("event_streams_open", 1.0), ("connections_open", 2.0)]);
    drop(stream);
    gateway.becomes("event_streams_open", 0.0).await;
    gateway.becomes("connections_open", 1.0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_viewer_is_behind_until_it_has_read_what_is_no_longer_in_memory() {
    let gateway = start().await;
    let mut client = gateway.client("alice").await;
    let session = id_of(&client.start_session().await, "session_id");
    client.turn(&session, "/tokens 2000").await;

    let hub = gateway.app().shared().orchestrator.hub();
    let follow = hub.follow(SessionId::parse(&session).unwrap()).await.unwrap().unwrap();
    let (head, mut viewer) = (follow.head(), follow.after(Seq::START));
    viewer.next().await.unwrap();
    assert!(viewer.cursor() < head, "a page is not all");
    assert_values(&gateway.scrape().await, &[("viewers_behind", 1.0)]);
    while viewer.cursor() < head {
        viewer.next().await.unwrap();
    }
    assert!(viewer.next().now_or_never().is_none(), "nothing more has happened");
    assert_values(&gateway.scrape().await, &[("viewers_behind", 0.0)]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_journal_that_can_not_commit_is_seen_and_what_waits_for_it() {
    let gateway = start().await;
    let mut client = gateway.client("alice").await;
    let session = id_of(&client.start_session().await, "session_id");
    gateway.becomes("journal_appends_waiting", 0.0).await;

    let outage = Outage::begin(&gateway.database).await;
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": "hello"})).await;
    gateway.becomes("journal_available", 0.0).await;
    let away = gateway.scrape().await;
    assert!(away.value("journal_appends_waiting") >= 1.0);
    assert!(away.value("journal_commit_failures_total{reason=\"unavailable\"}") >= 1.0);
    assert_values(&away, &[("tasks_accepted_total", 0.0), ("tasks_ended_total{state=\"completed\"}", 0.0)]);

    outage.end().await;
    client.until_task_end().await;
    gateway.becomes("journal_appends_waiting", 0.0).await;
    let back = [
        ("journal_available", 1.0),
        ("tasks_accepted_total", 1.0),
        ("tasks_ended_total{state=\"completed\"}", 1.0),
        ("journal_commit_failures_total{reason=\"refused\"}", 0.0),
    ];
    assert_values(&gateway.scrape().await, &back);
    gateway.stop().await;
}

#[tokio::test]
async fn an_agent_that_works_on_through_a_restart_is_counted_as_adopted() {
    let mut gateway = start().await;
    let mut client = gateway.client("alice").await;
    let session = id_of(&client.start_session().await, "session_id");
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Which? | A | B"})).await;
    let asked = client.expect("task:ask_user").await;
    gateway.restart().await;

    gateway.becomes("agents_adopted_total", 1.0).await;
    gateway.becomes("tasks{state=\"awaiting_answer\"}", 1.0).await;
    let mut client = gateway.client("alice").await;
    let resume = json!({"type": "session.resume", "session_id": session, "after_seq": asked["seq"]});
    client.send(resume).await;
    let answer = json!({"type": "task.answer", "task_id": asked["task_id"], "ask_id": asked["ask_id"], "answer": "A"});
    client.send(answer).await;
    client.until_task_end().await;
    let after = [
        ("tasks_accepted_total", 0.0), // By the gateway before.
        ("tasks_ended_total{state=\"completed\"}", 1.0),
        ("agents_adopted_total", 1.0),
    ];
    assert_values(&gateway.scrape().await, &after);
    gateway.stop().await;
}

#[tokio::test]
async fn two_gateways_in_one_process_count_apart() {
    let (one, other) = (start().await, start().await);
    let mut client = one.client("alice").await;
    client.run("hello").await;
    let counts = async |gateway: &TestGateway| {
        let scrape = gateway.scrape().await;
        (scrape.value("connections_open"), scrape.value("tasks_ended_total{state=\"completed\"}"))
    };
    assert_eq!((counts(&one).await, counts(&other).await), ((1.0, 1.0), (0.0, 0.0)));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn metrics_are_on_the_operators_listener_alone_and_health_is_on_both() {
    // Without a warm container, so that nothing changes between two answers.
    let cold = |config: &mut Config| config.profiles.get_mut("demo").unwrap().warm = 0;
    let gateway = TestGateway::start_with(database::sqlite(), cold).await;
    let operators = gateway.app().operators_address();
    let ask = async |url: String| {
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    for path in ["/health", "/health/ready"] {
        let (answer, same) = (ask(gateway.url(path)).await, ask(format!("http://{operators}{path}")).await);
        assert_eq!((answer.0, &answer), (200, &same), "{path}");
    }
    assert_eq!(ask(gateway.url("/metrics")).await.0, 404);
    let (status, body) = ask(format!("http://{operators}/v1/sessions")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("NOT_FOUND")));
    let posted = reqwest::Client::new().post(format!("http://{operators}/metrics")).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    gateway.stop().await;
}

#[tokio::test]
async fn operators_are_answered_while_the_gateway_drains_and_not_after() {
    let gateway = start().await;
    let operators = gateway.app().operators_address();
    // A client that answers no close keeps its gateway waiting.
    let silent = gateway.client("alice").await;
    let stop = tokio::spawn(gateway.stop());
    let client = reqwest::Client::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = client.get(format!("http://{operators}/health/ready")).send().await.unwrap();
        let (status, body) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
        if body["draining"] == true {
            assert_eq!((status, &body["ready"]), (503, &json!(false)));
            break;
        }
        assert!(Instant::now() < deadline, "it drains");
    }
    assert_values(&Scrape::of(operators).await, &[("connections_open", 1.0)]);
    assert!(!stop.is_finished());
    // The connection is kept open: it must not keep the gateway from ending.
    drop(silent);
    tokio::time::timeout(PATIENCE, stop).await.expect("an end in time").unwrap();
    assert!(tokio::net::TcpStream::connect(operators).await.is_err());
}

#[tokio::test]
async fn a_port_of_the_operators_that_is_taken_stops_the_start() {
    let (taken, directory) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let address = taken.local_addr().unwrap();
    let mut config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = address;
    let error = App::start(config).await.err().expect("the port is taken").to_string();
    assert!(error.starts_with(&format!("can't listen on {address}: Address already in use")), "{error}");
    assert!(error.ends_with(" — free the port, or set another `admin.listen`"), "{error}");
}
