//! The life of a session's container: what happens in it, and what ends it.

use serde_json::{Value, json};

use super::{Docked, endless, ran_in, runs, said, started};
use crate::containers::{docker, engine_id};
use crate::frames::{check_history, replay, text};
use crate::support::{Client, of_type, streamed};
use crate::world::eventually;

/// Cancels a task and reads on to its end.
async fn cancel(client: &mut Client, task: &str) {
    client.send(json!({"type": "task.cancel", "task_id": task})).await;
    assert_eq!(client.until_task_end().await.pop().unwrap()["status"], "cancelled");
}

/// Sends a prompt and waits for the first event of a type; the task's id.
async fn begin(client: &mut Client, session: &str, prompt: &str, kind: &str) -> String {
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
    text(&client.expect(kind).await, "task_id")
}

/// The error of a turn that must have failed in a way that may pass.
fn error(frames: &[Value]) -> String {
    let failed = frames.last().unwrap();
    assert_eq!((&failed["type"], &failed["retryable"]), (&json!("task:failed"), &json!(true)), "{failed}");
    text(failed, "error")
}

#[tokio::test]
async fn each_session_has_a_container_of_its_own_that_docker_ps_knows_by_its_name() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let one = started(&mut client).await;
    assert_eq!(docked.containers.up().await, [one.name.as_str()], "it is up when the session is ready");
    let other = started(&mut client).await;
    let mut both = [one.name.clone(), other.name.clone()];
    both.sort_unstable();
    assert_eq!(docked.containers.up().await, both);
    for session in [&one, &other] {
        let frames =
            client.turn(&session.session, &format!("/tool echo {} >who; cat /etc/hostname", session.name)).await;
        assert_eq!(ran_in(&frames), (session.container.clone(), session.name.clone()));
        // What the engine calls it inside is the start of its own id.
        let inside = text(of_type(&frames, "task:tool_result")[0], "output");
        assert!(engine_id(&session.name).await.starts_with(inside.trim()), "{inside}");
    }
    // Neither sees the other's files.
    for session in [&one, &other] {
        let frames = client.turn(&session.session, "/tool cat who; ls -A /workspace").await;
        assert_eq!(of_type(&frames, "task:tool_result")[0]["output"], format!("{}\nwho\n", session.name));
    }
    assert_eq!(docked.containers.names().await, both, "turns use the container that is there");
    docked.stop().await;
}

#[tokio::test]
async fn a_turn_in_a_container_streams_asks_and_links_like_any_other() {
    let docked = Docked::start().await;
    let gateway = &docked.gateway;
    let token = gateway.token("alice", None).await;
    let mut client = Client::connect(gateway.address(), &token, true).await;
    let session = started(&mut client).await.session;
    let prompt = "/say hello there\n/parallel echo a && echo b\n/ask Which? | Red | Blue\n/image shot.png";
    client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
    let mut frames = client.until_type("task:ask_user").await;
    let task = text(frames.last().unwrap(), "task_id");
    client.send(json!({"type": "task.answer", "task_id": task, "answer": "Blue"})).await;
    frames.extend(client.until_task_end().await);
    check_history(&replay(&mut client, &session).await);

    assert!(streamed(&frames).starts_with("hello there"));
    let outputs: Vec<_> = of_type(&frames, "task:tool_result").iter().map(|result| text(result, "output")).collect();
    assert_eq!(outputs, ["b\n", "a\n", "Blue"]);
    let result = said(&frames);
    assert!(result.contains("You chose: Blue."), "{result}");

    // The link opens as it is, without a token.
    let http = reqwest::Client::new();
    let link = result.split_once("![shot.png](").and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    assert!(link.starts_with(&gateway.url("/v1/sessions/")), "{link}");
    let picture = http.get(link).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(picture.headers()["content-type"], "image/png");

    // Files go in and out, although the agent is another user than the gateway.
    let files = gateway.url(&format!("/v1/sessions/{session}/files"));
    let put = http.put(format!("{files}/from/outside.txt")).bearer_auth(&token).body("outside");
    put.send().await.unwrap().error_for_status().unwrap();
    let frames = client
        .turn(&session, "/tool cat from/outside.txt && echo inside >from/inside.txt && rm from/outside.txt")
        .await;
    assert_eq!(of_type(&frames, "task:tool_result")[0]["output"], "outside");
    let get = http.get(format!("{files}/from/inside.txt")).bearer_auth(&token);
    assert_eq!(get.send().await.unwrap().error_for_status().unwrap().text().await.unwrap(), "inside\n");
    let listed: Value = http.get(files).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    let paths: Vec<_> = listed["files"].as_array().unwrap().iter().map(|file| text(file, "path")).collect();
    assert_eq!(paths, ["from/inside.txt", "shot.png"]);
    docked.stop().await;
}

#[tokio::test]
async fn g8_a_container_whose_agent_hangs_is_gone_when_its_task_is_cancelled() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    let left = endless();
    let prompt = format!("/remember me\n/tool setsid -f {left} >/dev/null 2>&1\n/say hanging\n/hang");
    let task = begin(&mut client, &session.session, &prompt, "task:tool_result").await;
    client.until(|frame| frame["text"].as_str().is_some_and(|text| text.contains("hanging"))).await;
    assert!(runs(&left));
    cancel(&mut client, &task).await;
    assert!(!runs(&left));
    eventually("its box goes", async || docked.containers.names().await.is_empty()).await;

    let frames = client.turn(&session.session, "/recall").await;
    assert_eq!(said(&frames), "me", "the same workspace");
    assert_eq!(ran_in(&frames), (session.container, session.name));
    docked.stop().await;
}

#[tokio::test]
async fn g8_nothing_that_a_cancelled_task_started_is_left_in_its_container() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    for (left, command) in [
        ("grouped", "LEFT & touch grouped; wait"),
        ("own", "setsid LEFT & touch own; wait"),
        ("orphaned", "(trap '' INT TERM HUP; setsid -f LEFT); touch orphaned; sleep 1000"),
    ] {
        let line = endless();
        let prompt = format!("/tool {}", command.replace("LEFT", &line));
        let task = begin(&mut client, &session.session, &prompt, "task:tool_use").await;
        let file = docked.gateway.file(&session.container, left);
        eventually("the tool works", async || file.exists() && runs(&line)).await;
        cancel(&mut client, &task).await;
        assert!(!runs(&line), "{command}");
        assert_eq!(said(&client.turn(&session.session, "/say on").await), "on");
    }
    check_history(&replay(&mut client, &session.session).await);
    docked.stop().await;
}

#[tokio::test]
async fn g8_a_container_whose_agent_acknowledges_the_interrupt_lives_on() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    let before = engine_id(&session.name).await;
    let task = begin(&mut client, &session.session, "/tokens 100000 1", "task:token").await;
    cancel(&mut client, &task).await;
    let agent = said(&client.turn(&session.session, "/id").await);
    let task = begin(&mut client, &session.session, "/tool sleep 1000", "task:tool_use").await;
    cancel(&mut client, &task).await;
    assert_eq!(said(&client.turn(&session.session, "/id").await), agent, "the same process");
    assert_eq!(engine_id(&session.name).await, before);
    docked.stop().await;
}

#[tokio::test]
async fn a_crash_fails_the_task_and_the_next_turn_has_a_new_container_with_the_same_files() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    let before = engine_id(&session.name).await;
    let crashed = client.turn(&session.session, "/remember me\n/say so far\n/crash 3").await;
    assert_eq!((error(&crashed).as_str(), streamed(&crashed).ends_with("so far")), ("Container exited 3", true));
    assert!(of_type(&crashed, "turn.done").is_empty());

    let next = client.turn(&session.session, "/recall").await;
    assert_eq!(said(&next), "me");
    assert_eq!(ran_in(&next), (session.container.clone(), session.name.clone()));
    assert_ne!(engine_id(&session.name).await, before);
    docked.stop().await;
}

#[tokio::test]
async fn who_runs_out_of_memory_is_told_so() {
    let small = |config: &mut streamgate::config::Config| {
        config.profiles.get_mut("demo").unwrap().memory_bytes = 32 << 20;
    };
    let docked = Docked::start_with(small).await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    // A tool: the kernel ends it alone, the agent hears of it, and the turn goes on.
    let frames = client.turn(&session.session, "/tool tail /dev/zero\n/say still here").await;
    let result = of_type(&frames, "task:tool_result")[0];
    assert_eq!(result["is_error"], true, "{result}");
    assert_eq!(said(&frames).trim(), "still here");
    // An agent that gives up afterwards: its own code, and a hint.
    let crashed = error(&client.turn(&session.session, "/crash 3").await);
    assert!(crashed.starts_with("Container exited 3 (") && crashed.contains("out of memory"), "{crashed}");
    // The agent itself.
    let eaten = error(&client.turn(&session.session, "/big 67108864").await);
    assert_eq!(eaten, "the container ran out of memory");
    assert_eq!(said(&client.turn(&session.session, "/say again").await), "again");
    docked.stop().await;
}

#[tokio::test]
async fn a_container_that_somebody_removes_fails_its_task_and_the_next_turn_has_another() {
    let docked = Docked::start().await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    begin(&mut client, &session.session, "/remember me\n/say x\n/tool sleep 1000", "task:tool_use").await;
    docker(&["rm", "-f", &session.name]).await.unwrap();
    let frames = client.until_task_end().await;
    assert!(error(&frames).starts_with("Container "), "{frames:?}");
    assert_eq!(said(&client.turn(&session.session, "/recall").await), "me");
    // An idle one: nothing fails, once it is known.
    docker(&["rm", "-f", &session.name]).await.unwrap();
    let pool = docked.gateway.app().shared().orchestrator.pool();
    eventually("the gateway knows", async || pool.stats().idle == 0).await;
    assert_eq!(said(&client.turn(&session.session, "/recall").await), "me");
    check_history(&replay(&mut client, &session.session).await);
    docked.stop().await;
}

#[tokio::test]
async fn an_idle_container_is_stopped_and_comes_back_with_its_files() {
    let docked = Docked::start_with(|config| config.runtime.idle_stop_seconds = 1).await;
    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    let first = client.turn(&session.session, "/remember me\n/tool cat /etc/hostname").await;
    let host = text(of_type(&first, "task:tool_result")[0], "output");
    eventually("the idle container goes", async || docked.containers.names().await.is_empty()).await;

    let next = client.turn(&session.session, "/tool cat /etc/hostname\n/recall").await;
    assert_eq!(said(&next).trim(), "me");
    assert_ne!(text(of_type(&next, "task:tool_result")[0], "output"), host, "another container");
    assert_eq!(ran_in(&next), (session.container, session.name), "of the same box");
    docked.stop().await;
}

#[tokio::test]
async fn the_end_of_a_session_removes_its_container_and_keeps_its_files() {
    let docked = Docked::start().await;
    let token = docked.gateway.token("alice", None).await;
    let mut client = Client::connect(docked.gateway.address(), &token, true).await;
    let session = started(&mut client).await.session;
    let left = endless();
    let prompt = format!("/tool echo kept >file; setsid -f {left} >/dev/null 2>&1");
    client.turn(&session, &prompt).await;
    let task = begin(&mut client, &session, "/tool sleep 1000", "task:tool_use").await;
    let ack = client.request(json!({"type": "session.end", "session_id": session})).await;
    assert_eq!(ack["status"], "closed", "{ack}");
    assert_eq!(docked.containers.names().await, [""; 0], "gone when the answer comes");
    assert!(!runs(&left), "what a turn left in the background, too");

    let history = replay(&mut client, &session).await;
    check_history(&history);
    let done = of_type(&history, "task:done").into_iter().find(|done| done["task_id"] == task.as_str()).unwrap();
    assert_eq!(done["status"], "cancelled");
    let file = docked.gateway.url(&format!("/v1/sessions/{session}/files/file"));
    let kept = reqwest::Client::new().get(file).bearer_auth(&token).send().await.unwrap();
    assert_eq!(kept.error_for_status().unwrap().text().await.unwrap(), "kept\n");
    docked.stop().await;
}

#[tokio::test]
async fn a_batch_leaves_its_files_and_no_container() {
    let docked = Docked::start().await;
    let token = docked.gateway.token("alice", None).await;
    let mut client = Client::connect(docked.gateway.address(), &token, true).await;
    let submit = json!({"type": "task.submit", "mode": "batch", "prompt": "/tool echo kept >file\n/say done"});
    client.send(submit).await;
    let frames = client.until_type("session.closed").await;
    let session = text(&frames[0], "session_id");
    assert_eq!(of_type(&frames, "task:done")[0]["status"], "completed");
    assert_eq!(docked.containers.names().await, [""; 0], "gone when the session is closed");
    let file = docked.gateway.url(&format!("/v1/sessions/{session}/files/file"));
    let kept = reqwest::Client::new().get(file).bearer_auth(&token).send().await.unwrap();
    assert_eq!(kept.error_for_status().unwrap().text().await.unwrap(), "kept\n");
    docked.stop().await;
}
