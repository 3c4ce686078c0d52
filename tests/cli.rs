//! The command line as its users meet it: the real binary, its output and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

#[path = "support/scripted.rs"]
mod scripted;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use scripted::{Gateway, TOKEN};
use serde_json::{Value, json};

/// The binary, with nothing of this process's environment but its place.
fn streamgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Checks that `command` fails with exit code 1 and one line that starts and ends as said.
fn fails(command: &mut Command, start: &str, end: &str) {
    let (code, stdout, stderr) = output(command);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let line = stderr.trim_end();
    assert!(line.starts_with(&format!("streamgate: {start}")), "{line}");
    assert!(line.ends_with(end) && line.contains(" — "), "{line}");
}

#[test]
fn config_print_shows_what_is_in_effect_without_secrets() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[limits]\nconnections = 50\n[database]\nurl = 'postgres://u:hunter2@h/d'").unwrap();
    let path = file.path().to_str().unwrap();
    for arguments in [["--config", path, "config", "print"], ["config", "print", "--config", path]] {
        let mut command = streamgate(&arguments);
        let (code, stdout, stderr) = output(command.env("STREAMGATE_LIMITS__PING_SECONDS", "7"));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let printed: toml::Table = stdout.parse().unwrap();
        assert_eq!(printed["limits"]["connections"].as_integer(), Some(50));
        assert_eq!(printed["limits"]["ping_seconds"].as_integer(), Some(7));
        assert_eq!(printed["database"]["url"].as_str(), Some("***"));
        assert!(!stdout.contains("hunter2"));
    }
    let (_, stdout, _) = output(streamgate(&["config", "print"]).env("STREAMGATE_CONFIG", path));
    assert!(stdout.contains("connections = 50"), "{stdout}");
}

/// What a build script has the compiler know, `cargo run` gives to the program, and to tests.
#[test]
fn cargo_run_gives_nothing_that_would_be_taken_for_a_setting() {
    let from_cargo: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| !name.starts_with("STREAMGATE_TEST_")).collect();
    assert!(from_cargo.iter().any(|(name, _)| name == "CARGO_MANIFEST_DIR"), "run by cargo");
    let (code, _, stderr) = output(streamgate(&["config", "print"]).envs(from_cargo));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn config_check_says_whether_a_gateway_can_run() {
    let mut command = streamgate(&["config", "check"]);
    let (code, stdout, _) = output(command.env("STREAMGATE_LIMITS__CONNECTIONS", "100"));
    assert_eq!((code, stdout.as_str()), (Some(0), "the configuration is good\n"));
    fails(
        streamgate(&["config", "check"]).env("STREAMGATE_PROFILES__MINE__COMMAND", "no-such-program"),
        "`profiles.mine.command` is `no-such-program`, a program that is not in the PATH",
        "install it, or write its absolute path",
    );
    fails(
        streamgate(&["config", "check"]).env("STREAMGATE_LISTEN", "0.0.0.0:8080"),
        "`listen` is `0.0.0.0:8080`, beyond this machine",
        "set runtime.process.trusted = true if you trust every user",
    );
}

#[test]
fn bad_settings_stop_every_command_with_one_line() {
    for arguments in [["config", "check"].as_slice(), &["serve"], &[], &["token", "list"]] {
        fails(
            streamgate(arguments).env("STREAMGATE_LIMITS__CONNECTION", "1"),
            "unknown key `limits.connection` in `STREAMGATE_LIMITS__CONNECTION`",
            "ask_timeout_seconds",
        );
        fails(
            streamgate(arguments).env("STREAMGATE_DRAIN_SECONDS", "soon"),
            "`drain_seconds` can't be \"soon\" (in `STREAMGATE_DRAIN_SECONDS`)",
            "set it to a whole number, 0 or more",
        );
    }
    fails(
        &mut streamgate(&["--config", "/nonexistent/x.toml", "config", "print"]),
        "can't read `/nonexistent/x.toml`: No such file",
        "check the path that `--config` names",
    );
}

#[test]
fn a_taken_port_stops_the_start_with_one_line() {
    let (taken, data) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let address = taken.local_addr().unwrap().to_string();
    let mut command = streamgate(&["serve"]);
    command.env("STREAMGATE_LISTEN", &address).env("STREAMGATE_ADMIN__LISTEN", "127.0.0.1:0");
    command.env("STREAMGATE_DATA_DIR", data.path()).env("STREAMGATE_LOG__FILTER", "off");
    fails(&mut command, &format!("can't listen on {address}: Address already in use"), "or set another `listen`");
}

#[test]
fn a_wrong_command_line_is_one_line_too() {
    fails(&mut streamgate(&["serv"]), "unrecognized subcommand 'serv'", "see `streamgate --help`");
    fails(&mut streamgate(&["token"]), "'streamgate token' requires a subcommand", "see `streamgate --help`");
    fails(&mut streamgate(&["serve", "--port", "1"]), "unexpected argument '--port'", "see `streamgate --help`");
    fails(&mut streamgate(&["token", "create"]), "the following required arguments were not provided: --user", "");
    let (code, stdout, _) = output(&mut streamgate(&["--help"]));
    assert!(code == Some(0) && stdout.contains("demo-agent"), "{stdout}");
}

#[test]
fn health_needs_no_curl() {
    fails(&mut streamgate(&["health", "--url", "http://127.0.0.1:1"]), "nobody answers at http://127.0.0.1:1", "");
    for (status, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = std::io::Read::read(&mut stream, &mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        let (exit, ..) = output(streamgate(&["health"]).env("STREAMGATE_LISTEN", address.to_string()));
        server.join().unwrap();
        assert_eq!(exit, Some(code));
    }
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let data = tempfile::tempdir().unwrap();
    let command = |arguments: &[&str]| {
        let mut command = streamgate(&["token"]);
        command.args(arguments).env("STREAMGATE_DATA_DIR", data.path().join("new"));
        command
    };
    for arguments in [["list"].as_slice(), &["revoke", "tok_1"]] {
        fails(&mut command(arguments), "no gateway has run here: there is no `", "name its settings: `--config FILE`");
        assert!(!data.path().join("new").exists());
    }
    let (code, token, stderr) =
        output(&mut command(&["create", "--user", "ada", "--role", "admin", "--name", "laptop"]));
    assert!(code == Some(0) && stderr.starts_with("no gateway has run here yet: made its database, `"), "{stderr}");
    let run = |arguments: &[&str]| {
        let (code, stdout, stderr) = output(&mut command(arguments));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        stdout
    };
    let hex = token.strip_prefix("rc_").unwrap().strip_suffix('\n').unwrap();
    assert!(hex.len() == 48 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    run(&["create", "--user", "bob"]);
    let list = run(&["list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("…  bob  user") && lines[1].ends_with("…  ada  admin  laptop"));
    assert!(!list.contains(hex), "{list}");
    let id = lines[1].split_whitespace().next().unwrap();
    assert_eq!(run(&["revoke", id]), format!("{id} is revoked\n"));
    assert_eq!(run(&["list"]).lines().count(), 1);

    fails(&mut command(&["revoke", "tok_1"]), "no token `tok_1`", "`streamgate token list` shows them");
}

/// `streamgate chat`, told of this gateway and given a token.
fn chat(gateway: &Gateway, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::from(streamgate(&["chat"]));
    command.args(arguments).env("STREAMGATE_URL", gateway.url()).env("STREAMGATE_TOKEN", TOKEN).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn finished(child: tokio::process::Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn ready(submit: &Value) -> Value {
    json!({ "type": "session.ready", "session_id": "sess_1", "task_id": "task_1", "request_id": submit["request_id"] })
}

fn token(seq: u64, text: &str) -> Value {
    json!({ "type": "task:token", "seq": seq, "task_id": "task_1", "text": text })
}

fn done(seq: u64, status: &str) -> Value {
    json!({ "type": "task:done", "seq": seq, "task_id": "task_1", "status": status })
}

#[tokio::test]
async fn a_turn_streams_words_to_stdout_and_all_else_to_stderr() {
    let gateway = Gateway::start().await;
    let chat = chat(&gateway, &["--profile", "demo", "hello", "there"]).spawn().unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    assert_eq!(
        (&submit["type"], &submit["prompt"], &submit["profile_id"]),
        (&json!("task.submit"), &json!("hello there"), &json!("prof_demo"))
    );
    let tool = json!({ "type": "task:tool_use", "seq": 3, "tool": "Bash", "input": { "command": "ls" } });
    let result = json!({ "type": "task:tool_result", "seq": 4, "tool": "Bash", "output": "a\nb\n" });
    let turn = json!({ "type": "turn.done", "seq": 6, "result_text": "You said: hi", "input_tokens": 3,
        "output_tokens": 4, "cost_usd": 0.5, "cost_known": true });
    client.send(&[ready(&submit), token(1, "You "), token(2, "said:"), tool, result, token(5, "hi"), turn]).await;
    client.send(&[done(7, "completed")]).await;
    let (code, stdout, stderr) = finished(chat).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "You said:\nhi\n"), "{stderr}");
    assert!(stderr.contains("session sess_1\n") && stderr.contains("⚙ Bash {\"command\":\"ls\"}\n"), "{stderr}");
    assert!(stderr.contains("  → a b\n") && stderr.contains("[3 tokens in, 4 out, $0.5000]\n"), "{stderr}");
}

#[tokio::test]
async fn a_turn_that_fails_is_exit_code_1() {
    let gateway = Gateway::start().await;
    let mut chat = chat(&gateway, &[]);
    chat.stdin(Stdio::piped());
    let mut chat = chat.spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut chat.stdin.take().unwrap(), b"/fail x\n").await.unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    assert_eq!(submit["prompt"], "/fail x");
    let failed = json!({ "type": "task:failed", "seq": 1, "task_id": "task_1", "error": "x" });
    client.send(&[ready(&submit), failed]).await;
    let (code, _, stderr) = finished(chat).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("failed: x\n"), "{stderr}");
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    let gateway = Gateway::start().await;
    let chat = chat(&gateway, &["hello"]).spawn().unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    client.send(&[ready(&submit), token(1, "one ")]).await;
    client.close(1012).await;

    let mut client = gateway.accept().await;
    let resume = client.receive().await;
    assert_eq!(
        (&resume["type"], &resume["session_id"], &resume["after_seq"]),
        (&json!("session.resume"), &json!("sess_1"), &json!(1))
    );
    client.send(&[token(1, "one "), token(2, "two"), done(3, "completed")]).await;
    let (code, stdout, stderr) = finished(chat).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "one two\n"), "{stderr}");
}

#[tokio::test]
async fn a_question_is_answered_from_stdin() {
    let gateway = Gateway::start().await;
    let mut chat = chat(&gateway, &["ask me"]);
    chat.stdin(Stdio::piped());
    let mut chat = chat.spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut chat.stdin.take().unwrap(), b"2\n").await.unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    let questions = json!([{ "question": "Pick one", "options": [{ "label": "Yes" }, { "label": "No" }] }]);
    let ask =
        json!({ "type": "task:ask_user", "seq": 1, "task_id": "task_1", "ask_id": "ask_1", "questions": questions });
    client.send(&[ready(&submit), ask]).await;
    let answer = client.receive().await;
    assert_eq!(
        (&answer["type"], &answer["answer"], &answer["ask_id"]),
        (&json!("task.answer"), &json!("No"), &json!("ask_1"))
    );
    client.send(&[done(2, "completed")]).await;
    let (code, _, stderr) = finished(chat).await;
    assert_eq!(code, Some(0));
    assert!(!stderr.contains("nobody"), "{stderr}");
    assert!(stderr.contains("? Pick one\n  1) Yes\n  2) No\n"), "{stderr}");
}

#[tokio::test]
async fn a_question_that_nobody_can_answer_cancels_the_turn() {
    let gateway = Gateway::start().await;
    let chat = chat(&gateway, &["ask me"]).spawn().unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    let questions = json!([{ "question": "Pick one", "options": [] }]);
    let ask =
        json!({ "type": "task:ask_user", "seq": 1, "task_id": "task_1", "ask_id": "ask_1", "questions": questions });
    client.send(&[ready(&submit), ask]).await;
    assert_eq!(client.receive().await["type"], "task.cancel");
    client.send(&[done(2, "cancelled")]).await;
    assert_eq!(finished(chat).await.0, Some(1));
}

#[tokio::test]
async fn ctrl_c_cancels_the_task() {
    let gateway = Gateway::start().await;
    let chat = chat(&gateway, &["/sleep 60000"]).spawn().unwrap();
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    client.send(&[ready(&submit)]).await;
    client.send(&[json!({ "type": "user.message", "seq": 1, "task_id": "task_1", "text": "/sleep 60000" })]).await;
    client.has_read_all().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(chat.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let cancel = client.receive().await;
    assert_eq!((&cancel["type"], &cancel["task_id"]), (&json!("task.cancel"), &json!("task_1")));
    client.send(&[done(2, "cancelled")]).await;
    assert_eq!(finished(chat).await.0, Some(1));
}

#[tokio::test]
async fn a_refused_token_is_not_tried_again() {
    let gateway = Gateway::start().await;
    let chat = chat(&gateway, &["hello"]).spawn().unwrap();
    gateway.accept().await.close(4001).await;
    let (code, _, stderr) = finished(chat).await;
    assert_eq!(code, Some(1));
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("streamgate: the gateway refuses the token — "), "{stderr}");
}

#[test]
fn chat_without_a_token_or_a_gateway_says_what_to_do() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = streamgate(&["chat", "--url", "ws://127.0.0.1:1", "hello"]);
    command.env("STREAMGATE_DATA_DIR", nowhere.path());
    fails(
        &mut command,
        "no token: STREAMGATE_TOKEN is not set",
        "set it to what `streamgate token create --user YOU` prints",
    );
    fails(command.env("STREAMGATE_TOKEN", "rc_test"), "no gateway at ws://127.0.0.1:1: ", "or name it by `--url`");
}
