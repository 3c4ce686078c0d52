use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::{Exit, Output, Signal};
use super::*;
use crate::config::ProfileConfig;
use crate::domain::ProfileId;

const DEADLINE: Duration = Duration::from_secs(20);

fn runtime() -> (tempfile::TempDir, ProcessRuntime) {
    let data_dir = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::new(data_dir.path(), Some("/bin/echo".into())).unwrap();
    (data_dir, runtime)
}

fn spec(command: &[&str]) -> AgentSpec {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    let env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    AgentSpec {
        container_id: ContainerId::generate(),
        profile_id: ProfileId::from_slug("test"),
        profile: Arc::new(ProfileConfig { command, env, ..ProfileConfig::default() }),
    }
}

async fn start(runtime: &ProcessRuntime, script: &str) -> Agent {
    runtime.start(&spec(&["/bin/sh", "-c", script])).await.unwrap()
}

async fn next(agent: &mut Agent) -> Option<Output> {
    tokio::time::timeout(DEADLINE, agent.output.recv()).await.expect("the agent says nothing")
}

/// Everything until the end, and the end.
async fn finish(agent: &mut Agent) -> (String, Exit) {
    let mut text = Vec::new();
    loop {
        match next(agent).await.expect("the output ended without an exit") {
            Output::Stdout(bytes) => text.extend_from_slice(&bytes),
            Output::Exit(exit) => {
                assert!(next(agent).await.is_none(), "something followed the exit");
                return (String::from_utf8(text).unwrap(), exit);
            }
        }
    }
}

/// Reads until a whole line has come.
async fn line(agent: &mut Agent) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') {
        let Some(Output::Stdout(bytes)) = next(agent).await else { panic!("no line: {text:?}") };
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    text.trim_end().to_owned()
}

fn lives(pid: &str) -> bool {
    scan::processes().unwrap().any(|seen| seen.pid.to_string() == pid)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_sees_its_workspace_and_nothing_of_the_gateway() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "pwd; env; echo broken >&2; exit 3").await;
    let workspace = runtime.workspaces.get(agent.container_id).path();
    let (text, exit) = finish(&mut agent).await;
    assert_eq!(text.lines().next().unwrap(), workspace.to_str().unwrap());
    let mut names: Vec<_> = text.lines().skip(1).map(|line| line.split('=').next().unwrap()).collect();
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"));
    names.sort_unstable();
    assert_eq!(names, ["GREETING", "HOME", "LANG", "PATH", MARK]);
    assert!(text.contains(&format!("HOME={}\n", workspace.display())), "{text}");
    assert_eq!(exit, Exit { code: Some(3), oom: false, stderr_tail: "broken\n".to_owned() });
    let id = agent.container_id.to_string();
    assert_eq!(agent.container_name, format!("agent-{}", &id[id.len() - 12..]));
}

#[tokio::test]
async fn streamgate_as_the_program_means_our_own() {
    let (_data_dir, runtime) = runtime();
    let mut agent = runtime.start(&spec(&["streamgate", "demo-agent"])).await.unwrap();
    assert_eq!(finish(&mut agent).await.0, "demo-agent\n");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let (_data_dir, runtime) = runtime();
    let missing = runtime.start(&spec(&["/no/such/program"])).await.err().unwrap();
    assert!(missing.to_string().contains("/no/such/program"), "{missing}");
    let empty = runtime.start(&spec(&[])).await.err().unwrap();
    assert!(empty.to_string().contains("profiles.test.command"), "{empty}");
}

#[tokio::test]
async fn a_flood_is_delivered_whole_to_a_slow_reader_after_the_agent_is_gone() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "seq 40000; exit 7").await;
    let mut text = Vec::new();
    let exit = loop {
        match next(&mut agent).await.unwrap() {
            Output::Stdout(bytes) => text.extend_from_slice(&bytes),
            Output::Exit(exit) => break exit,
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // The slow reader.
    };
    let numbers: Vec<String> = (1..=40_000).map(|number| number.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    assert!(text == expected.as_bytes(), "lines were lost, doubled or reordered");
    assert_eq!(exit.code, Some(7));
}

#[tokio::test]
async fn an_agent_waits_while_nobody_reads() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "yes | head -c 20000000; touch done; cat").await;
    let done = runtime.workspaces.get(agent.container_id).path().join("done");
    until("the channel is full", async || agent.output.len() == OUTPUT_CHUNKS).await;
    assert!(!done.exists());
    let mut count = 0;
    while count < 20_000_000 {
        let Some(Output::Stdout(bytes)) = next(&mut agent).await else { panic!("it ended") };
        assert!(bytes.len() <= 64 << 10);
        count += bytes.len();
    }
    until("it goes on", async || done.exists()).await;
    agent.process.signal(Signal::Kill).await.unwrap();
}

#[tokio::test]
async fn the_exit_comes_although_a_grandchild_holds_stdout() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "sleep 1000 & setsid sleep 1001 & echo $!; exit 0").await;
    let (text, exit) = finish(&mut agent).await;
    assert_eq!(exit.code, Some(0));
    assert!(!lives(text.trim()), "the one that left the group lives on");
}

#[tokio::test]
async fn input_arrives_and_an_agent_that_never_reads_holds_nobody() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "read l; echo \"got $l\"; read l; echo \"got $l\"; exec sleep 1000").await;
    agent.process.write(b"one\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "got one");
    agent.process.write(b"two\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "got two");

    let flood = vec![b'x'; 1 << 20];
    let refused = agent.process.write(&flood, Duration::from_millis(100)).await;
    assert!(matches!(refused, Err(RuntimeError::NotReading)), "{refused:?}");
    agent.process.signal(Signal::Kill).await.unwrap();
    assert_eq!(finish(&mut agent).await.1.code, Some(137));
    assert!(matches!(agent.process.write(b"x\n", DEADLINE).await, Err(RuntimeError::Gone)));
    agent.process.signal(Signal::Kill).await.unwrap();
    agent.process.signal(Signal::Interrupt).await.unwrap();
}

#[tokio::test]
async fn an_interrupt_reaches_the_agent_and_may_be_handled() {
    // As the gateway does: were SIGINT ignored here (a job in the background), agents would inherit that.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
    let (_data_dir, runtime) = runtime();
    // `wait` hears a signal at any moment.
    let mut agent = start(&runtime, "trap 'kill $!; echo stopped; exit 4' INT; sleep 1000 & echo ready; wait").await;
    assert_eq!(line(&mut agent).await, "ready");
    agent.process.signal(Signal::Interrupt).await.unwrap();
    let (text, exit) = finish(&mut agent).await;
    assert_eq!((text.as_str(), exit.code), ("stopped\n", Some(4)));
}

#[tokio::test]
async fn stragglers_are_seen_and_a_kill_ends_them() {
    let (_data_dir, runtime) = runtime();
    let mut agent =
        start(&runtime, "read l; setsid sleep 1000 & echo $!; read l; kill $!; wait; echo alone; exec cat").await;
    assert!(!agent.process.has_stragglers().await.unwrap());
    agent.process.write(b"go\n", DEADLINE).await.unwrap();
    let pid = line(&mut agent).await;
    assert!(agent.process.has_stragglers().await.unwrap());
    agent.process.write(b"go\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "alone");
    until("`cat` alone is left", async || !agent.process.has_stragglers().await.unwrap()).await;
    assert!(!lives(&pid));

    let mut second = start(&runtime, "sleep 1000 & one=$!; setsid sleep 1000 & echo $one $!; wait").await;
    let pids = line(&mut second).await;
    second.process.signal(Signal::Kill).await.unwrap();
    assert!(!pids.split(' ').any(lives), "{pids}");
}

#[tokio::test]
async fn agents_die_with_the_runtime() {
    let (_data_dir, runtime) = runtime();
    let mut first = start(&runtime, "echo $$; sleep 1000").await;
    let mut second = start(&runtime, "setsid sleep 1000 & echo $!; wait").await;
    let pids = [line(&mut first).await, line(&mut second).await];
    drop(runtime);
    until("they die", async || !pids.iter().any(|pid| lives(pid))).await;

    let (_data_dir, runtime) = self::runtime();
    let mut third = start(&runtime, "echo $$; sleep 1000").await;
    let pid = line(&mut third).await;
    runtime.shutdown().await;
    assert!(!lives(&pid));
}

#[tokio::test]
async fn orphans_of_this_data_dir_are_killed_and_no_others() {
    let (_ours, runtime) = runtime();
    let (_theirs, other_runtime) = self::runtime();
    let mut agent = start(&runtime, "echo $$; sleep 1000").await;
    let mut other = start(&other_runtime, "echo $$; sleep 1000").await;
    let (pid, other_pid) = (line(&mut agent).await, line(&mut other).await);
    runtime.remove_orphans().await.unwrap();
    assert!(!lives(&pid) && lives(&other_pid));

    // A second start in the same box ends what is left of the first.
    let mut spec = spec(&["/bin/sh", "-c", "echo $$; cat"]);
    spec.container_id = other.container_id;
    let mut again = other_runtime.start(&spec).await.unwrap();
    let again_pid = line(&mut again).await;
    assert!(!lives(&other_pid) && lives(&again_pid));
    other.process.signal(Signal::Kill).await.unwrap();
    assert!(lives(&again_pid), "the old handle killed the new agent");
}

#[tokio::test]
async fn a_workspace_outlives_its_agent_until_it_is_erased() {
    let (_data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "echo kept > file").await;
    finish(&mut agent).await;
    let workspace = runtime.workspace(agent.container_id);
    assert_eq!(workspace.read("file", 100).await.unwrap().unwrap(), "kept\n");
    runtime.erase(agent.container_id).await.unwrap();
    assert!(!workspace.path().exists());
}
