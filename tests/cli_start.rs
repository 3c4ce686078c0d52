//! What stops a start: each thing is one line that says what is wrong and how to mend it, and exit code 1.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};

#[path = "support/containers.rs"]
mod containers;
#[path = "support/database.rs"]
mod database;
#[path = "support/shims.rs"]
mod shims;

use containers::IMAGE;

/// Starts the real program with these settings, on a data directory of its own; it must fail. Its line.
fn refused(settings: &[(&str, &str)]) -> String {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command.env_clear().stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
    command.env("STREAMGATE_DATA_DIR", data.path()).env("STREAMGATE_LISTEN", "127.0.0.1:0");
    command.env("STREAMGATE_ADMIN__LISTEN", "127.0.0.1:0");
    // What this machine allows is another test's matter.
    command.env("STREAMGATE_LIMITS__CONNECTIONS", "100").envs(settings.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.ends_with('\n') && stderr.lines().count() == 1, "one line: {stderr}");
    assert!(stderr.starts_with("streamgate: ") && stderr.contains(" — "), "what and how to mend it: {stderr}");
    stderr
}

fn has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` in {line}");
    }
}

#[test]
fn docker_that_does_not_run() {
    let docker =
        [("STREAMGATE_RUNTIME__KIND", "docker"), ("STREAMGATE_RUNTIME__DOCKER__SOCKET", "/nowhere/docker.sock")];
    let line = refused(&docker);
    has(&line, &["/nowhere/docker.sock", "systemctl start docker", "`runtime.docker.socket`", "`runtime.kind"]);
}

#[tokio::test]
async fn an_image_that_is_missing() {
    containers::need_image().await;
    let docker = [("STREAMGATE_RUNTIME__KIND", "docker"), ("STREAMGATE_PROFILES__DEMO__IMAGE", IMAGE)];
    let missing = [&docker[..], &[("STREAMGATE_PROFILES__OTHER__IMAGE", "example.invalid/not/there:1")]].concat();
    has(
        &refused(&missing),
        &[
            "profile `other`",
            "the image `example.invalid/not/there:1` is not there",
            "docker pull example.invalid/not/there:1",
        ],
    );
    // Our own comes with the command that builds it.
    let ours = [docker[0], ("STREAMGATE_PROFILES__DEMO__IMAGE", "streamgate-demo-agent:not-there")];
    let build = "docker build -f images/demo-agent/Dockerfile -t streamgate-demo-agent:not-there .";
    has(&refused(&ours), &["profile `demo`", "the image `streamgate-demo-agent:not-there` is not there", build]);
}

#[test]
fn postgres_that_is_down() {
    // A port that nobody has: it was free a moment ago, and is held by nobody who listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://gate:hunter2@{free}/streamgate");
    let line = refused(&[("STREAMGATE_DATABASE__URL", &url)]);
    has(&line, &["can't open the database", &format!("postgres://{free}/streamgate"), "refused", "`database.url`"]);
    assert!(!line.contains("hunter2"), "{line}");
}

#[tokio::test]
async fn a_postgres_that_lets_nobody_in() {
    let database = database::postgres().await;
    let url = database.url.replace("streamgate_test_", "not_there_");
    let line = refused(&[("STREAMGATE_DATABASE__URL", &url)]);
    has(&line, &["can't open the database", "does not exist", "`database.url`"]);
    assert_eq!(line.matches("does not exist").count(), 1, "said once: {line}");
}

#[test]
fn a_file_that_is_no_database() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[b'x'; 4_096]).unwrap();
    let line = refused(&[("STREAMGATE_DATABASE__URL", &format!("sqlite:{}", file.path().display()))]);
    has(&line, &["can't open the database", "is not a database", "`database.url`", "a new file"]);
    assert!(!line.contains("running"), "{line}");
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused(&[("STREAMGATE_LISTEN", &address)]);
    has(&line, &[&format!("can't listen on {address}"), "in use", "free the port", "another `listen`"]);
}

#[test]
fn a_port_of_the_operators_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused(&[("STREAMGATE_ADMIN__LISTEN", &address)]);
    has(&line, &[&format!("can't listen on {address}"), "in use", "free the port", "another `admin.listen`"]);
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_no_container_behind() {
    containers::need_image().await;
    let database = database::postgres().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused(&[
        ("STREAMGATE_LISTEN", &address),
        ("STREAMGATE_DATABASE__URL", &database.url),
        ("STREAMGATE_RUNTIME__KIND", "docker"),
        ("STREAMGATE_PROFILES__DEMO__IMAGE", IMAGE),
        ("STREAMGATE_PROFILES__DEMO__COMMAND", "[]"),
        ("STREAMGATE_PROFILES__DEMO__WARM", "3"),
    ]);
    has(&line, &[&format!("can't listen on {address}")]);
    let containers = containers::Containers::of(&database).await;
    assert_eq!(containers.names().await, [""; 0]);
}

#[test]
fn a_bad_key_or_value() {
    has(
        &refused(&[("STREAMGATE_RUNTIME__KINDS", "docker")]),
        &["unknown key `runtime.kinds`", "STREAMGATE_RUNTIME__KINDS"],
    );
    has(&refused(&[("STREAMGATE_RUNTIME__KIND", "podman")]), &["`runtime.kind`", "podman", "docker", "process"]);
    has(&refused(&[("STREAMGATE_DEFAULT_PROFILE", "nobody")]), &["`default_profile` is `nobody`", "demo"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "listen = '127.0.0.1:0'\nlissten = 1\n").unwrap();
    has(
        &refused(&[("STREAMGATE_CONFIG", file.path().to_str().unwrap())]),
        &["unknown key `lissten`", file.path().to_str().unwrap()],
    );
    std::fs::write(file.path(), "listen = \n").unwrap();
    has(&refused(&[("STREAMGATE_CONFIG", file.path().to_str().unwrap())]), &[file.path().to_str().unwrap()]);
}

#[tokio::test]
async fn a_log_that_nobody_reads_or_takes_holds_up_nothing() {
    let data = shims::DataDir::new();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("STREAMGATE_DATA_DIR", data.path()).env("STREAMGATE_LISTEN", "127.0.0.1:0");
    command.env("STREAMGATE_ADMIN__LISTEN", "127.0.0.1:0").env("STREAMGATE_LOG__FILTER", "trace");
    let mut gateway = command.spawn().unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines();
    let address = loop {
        let line = log.next_line().await.unwrap().expect("it starts");
        if let Some((_, address)) = line.split_once("Listening on ") {
            break address.split_whitespace().next().unwrap().to_owned();
        }
    };
    let token = std::fs::read_to_string(data.path().join("first-token")).unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let submit = async || {
        let prompt = serde_json::json!({"prompt": "/tokens 200 0"});
        let tasks = client.post(format!("http://{address}/v1/tasks")).bearer_auth(token.trim()).json(&prompt);
        assert_eq!(tasks.send().await.unwrap().status(), 202);
    };
    // Far more lines than a pipe and all that waits before it hold.
    for _ in 0..100 {
        submit().await;
    }
    drop(log);
    for _ in 0..20 {
        submit().await;
    }
    assert_eq!(gateway.try_wait().unwrap(), None, "it goes on");
    // Before its agents are ended: it would start others.
    gateway.kill().await.unwrap();
}
