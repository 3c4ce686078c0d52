use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use streamgate_shim::control::{Message, Outcome, Request, SOCKET};
use streamgate_shim::record::{Body, Exit as RecordedExit, Record};

use super::super::{Exit, Line, LineText, Output};
use super::*;
use crate::config::ProfileConfig;
use crate::domain::ProfileId;

const DEADLINE: Duration = Duration::from_secs(20);

/// A data directory; what runs on it ends with it.
struct DataDir(tempfile::TempDir);

impl Drop for DataDir {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0.path().join("shims")).unwrap().flatten() {
            let note: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            let _ = std::process::Command::new("kill").arg(note["pid"].to_string()).output();
        }
    }
}

fn runtime_on(data_dir: &Path) -> ProcessRuntime {
    ProcessRuntime::new(data_dir, Some("/bin/echo".into()), "node", 1 << 20).unwrap()
}

fn runtime() -> (DataDir, ProcessRuntime) {
    let data_dir = DataDir(tempfile::tempdir().unwrap());
    let runtime = runtime_on(data_dir.0.path());
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

/// The lines' texts, each with a newline.
fn texts(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|line| match &line.text {
            LineText::Utf8(text) => format!("{text}\n"),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Everything until the end, and the end.
async fn finish(agent: &mut Agent) -> (String, Exit) {
    let mut text = String::new();
    loop {
        match next(agent).await.expect("the output ended without an exit") {
            Output::Lines(lines) => text.push_str(&texts(&lines)),
            Output::Exit(exit) => {
                assert!(next(agent).await.is_none(), "something followed the exit");
                return (text, exit);
            }
        }
    }
}

/// The line that is all the agent says now.
async fn line(agent: &mut Agent) -> String {
    let Some(Output::Lines(lines)) = next(agent).await else { panic!("no line") };
    let [_] = &lines[..] else { panic!("one line: {lines:?}") };
    texts(&lines).trim_end().to_owned()
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
    assert_eq!(exit, Exit { code: Some(3), stderr_tail: "broken\n".to_owned(), ..Exit::default() });
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
    let mut text = String::new();
    let exit = loop {
        match next(&mut agent).await.unwrap() {
            Output::Lines(lines) => text.push_str(&texts(&lines)),
            Output::Exit(exit) => break exit,
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // The slow reader.
    };
    let numbers: Vec<String> = (1..=40_000).map(|number| number.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    assert!(text == expected, "lines were lost, doubled or reordered");
    assert_eq!(exit.code, Some(7));
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
    agent.process.write("w1", "one\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "got one");
    agent.process.write("w2", "two\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "got two");

    let flood = "x".repeat(1 << 20);
    let refused = agent.process.write("w3", &flood, Duration::from_millis(100)).await;
    assert!(matches!(refused, Err(RuntimeError::NotReading)), "{refused:?}");
    agent.process.kill().await.unwrap();
    assert_eq!(finish(&mut agent).await.1.code, Some(137));
    assert!(matches!(agent.process.write("w4", "x\n", DEADLINE).await, Err(RuntimeError::Gone)));
    agent.process.kill().await.unwrap();
    agent.process.interrupt().await.unwrap();
}

#[tokio::test]
async fn an_interrupt_reaches_the_agent_and_may_be_handled() {
    // As the gateway does: were SIGINT ignored here (a job in the background), agents would inherit that.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
    let (_data_dir, runtime) = runtime();
    // `wait` hears a signal at any moment.
    let mut agent = start(&runtime, "trap 'kill $!; echo stopped; exit 4' INT; sleep 1000 & echo ready; wait").await;
    assert_eq!(line(&mut agent).await, "ready");
    agent.process.interrupt().await.unwrap();
    let (text, exit) = finish(&mut agent).await;
    assert_eq!((text.as_str(), exit.code), ("stopped\n", Some(4)));
}

#[tokio::test]
async fn stragglers_are_seen_and_a_kill_ends_them() {
    let (_data_dir, runtime) = runtime();
    let mut agent =
        start(&runtime, "read l; setsid sleep 1000 & echo $!; read l; kill $!; wait; echo alone; exec cat").await;
    assert!(!agent.process.has_stragglers().await.unwrap());
    agent.process.write("w5", "go\n", DEADLINE).await.unwrap();
    let pid = line(&mut agent).await;
    assert!(agent.process.has_stragglers().await.unwrap());
    agent.process.write("w6", "go\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "alone");
    until("`cat` alone is left", async || !agent.process.has_stragglers().await.unwrap()).await;
    assert!(!lives(&pid));

    let mut second = start(&runtime, "sleep 1000 & one=$!; setsid sleep 1000 & echo $one $!; wait").await;
    let pids = line(&mut second).await;
    second.process.kill().await.unwrap();
    assert!(!pids.split(' ').any(lives), "{pids}");
}

#[tokio::test]
async fn agents_outlive_the_runtime_and_are_heard_on_from_any_line() {
    let (data_dir, runtime) = runtime();
    let spec = spec(&["/bin/sh", "-c", "seq 5; read l; echo \"got $l\"; exec sleep 1000"]);
    let mut first = runtime.start(&spec).await.unwrap();
    let mut heard = String::new();
    while heard.lines().count() < 5 {
        let Some(Output::Lines(lines)) = next(&mut first).await else { panic!("it ended") };
        heard.push_str(&texts(&lines));
    }
    let spool = first.spool;
    drop((first, runtime));

    let runtime = runtime_on(data_dir.0.path());
    let [found] = &runtime.boxes(None).await.unwrap()[..] else { panic!("one box") };
    assert_eq!((found.container_id, found.spool, found.node.as_str()), (spec.container_id, spool, "node"));
    let mut again = runtime.adopt(&spec, spool, Epoch(2), 3).await.unwrap().unwrap();
    let Some(Output::Lines(lines)) = next(&mut again).await else { panic!("it ended") };
    assert_eq!((lines[0].record, texts(&lines).as_str()), (4, "4\n5\n"));
    for _ in 0..2 {
        // Said twice, under one name: heard once.
        again.process.write("hello", "hello\n", DEADLINE).await.unwrap();
    }
    assert_eq!(line(&mut again).await, "got hello");

    // An older claim is told nothing any more.
    let stale = runtime.adopt(&spec, spool, Epoch(1), 0).await.unwrap().unwrap();
    let refused = stale.process.write("late", "late\n", DEADLINE).await;
    assert!(matches!(refused, Err(RuntimeError::Stale)), "{refused:?}");

    again.process.remove().await.unwrap();
    assert!(runtime.boxes(None).await.unwrap().is_empty());
    assert!(runtime.adopt(&spec, spool, Epoch(3), 0).await.unwrap().is_none());
}

#[tokio::test]
async fn a_shim_that_is_killed_is_an_end_like_any_other_and_leaves_nothing() {
    let (data_dir, runtime) = runtime();
    let mut agent = start(&runtime, "echo $$; exec sleep 1000").await;
    let pid = line(&mut agent).await;
    for entry in fs::read_dir(data_dir.0.path().join("shims")).unwrap() {
        let note: serde_json::Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        std::process::Command::new("kill").args(["-9", &note["pid"].to_string()]).output().unwrap();
    }
    let (_, exit) = finish(&mut agent).await;
    assert_eq!(exit.code, None);
    assert!(!lives(&pid), "it runs when its end is told");
    agent.process.remove().await.unwrap();
}

#[tokio::test]
async fn what_is_found_of_a_box_is_taken_away_and_nothing_that_was_started_in_it_later() {
    let (_data_dir, runtime) = runtime();
    let mut first = start(&runtime, "echo $$; exec sleep 1000").await;
    let mut other = start(&runtime, "echo $$; exec sleep 1000").await;
    let (pid, other_pid) = (line(&mut first).await, line(&mut other).await);
    let mut spec = spec(&["/bin/sh", "-c", "echo $$; exec cat"]);
    spec.container_id = first.container_id;
    let [found] = &runtime.boxes(Some(first.container_id)).await.unwrap()[..] else { panic!("one box") };
    let mut again = runtime.start(&spec).await.unwrap();
    let again_pid = line(&mut again).await;
    for _ in 0..2 {
        runtime.remove(found).await.unwrap();
    }
    assert!(!lives(&pid) && lives(&again_pid) && lives(&other_pid));
    first.process.remove().await.unwrap();
    assert!(lives(&again_pid), "the old handle ended the new agent");
}

#[tokio::test]
async fn what_an_agent_does_to_its_spool_is_seen() {
    for damage in [
        "for f in ../../spools/spool_*/*.seg; do : > $f; done",
        "for f in ../../spools/spool_*/*.seg; do rm $f; ln -s /etc/passwd $f; done",
        "for f in ../../spools/spool_*/*.seg; do rm $f; mkfifo $f; done",
    ] {
        let (data_dir, runtime) = runtime();
        let script = format!("echo one; read l; {damage}; echo two; exec sleep 1000");
        let mut agent = start(&runtime, &script).await;
        assert_eq!(line(&mut agent).await, "one");
        let (spool, spec) = (agent.spool, AgentSpec { container_id: agent.container_id, ..spec(&["x"]) });
        agent.process.write("go", "go\n", DEADLINE).await.unwrap();
        // Read anew, as after a crash, when it is done.
        let done = data_dir.0.path().join("workspaces").join(agent.container_id.to_string()).join("done");
        until("it is broken", async || done.exists() || broken(data_dir.0.path())).await;
        let mut again = runtime.adopt(&spec, spool, Epoch(2), 0).await.unwrap().unwrap();
        let exit = loop {
            match next(&mut again).await.unwrap() {
                Output::Lines(lines) => assert!(!texts(&lines).contains("root:"), "{damage}"),
                Output::Exit(exit) => break exit,
            }
        };
        assert!(exit.damaged.is_some(), "{damage}: {exit:?}");
        again.process.remove().await.unwrap();
    }
}

#[tokio::test]
async fn an_end_that_an_agent_writes_into_its_spool_is_passed_on_only_when_nothing_of_it_runs() {
    let (_data_dir, runtime) = runtime();
    let script = "echo $$; read l; for f in ../../spools/spool_*/*.seg; do cat forged >> $f; done; exec sleep 1000";
    let mut agent = start(&runtime, script).await;
    let pid = line(&mut agent).await;
    let mut forged = Vec::new();
    let end = RecordedExit { run: 1, code: Some(0), oom: false, stderr_tail: String::new() };
    Record { number: 2, body: Body::Exit(end) }.encode_into(&mut forged);
    fs::write(runtime.workspaces.get(agent.container_id).path().join("forged"), forged).unwrap();
    agent.process.write("go", "go\n", DEADLINE).await.unwrap();
    assert_eq!(finish(&mut agent).await.1.code, Some(0));
    assert!(!lives(&pid), "the agent works on after its end");
}

/// Says yes to everything.
fn answer_ok(listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        let mut answers = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let tag = serde_json::from_str::<Request>(&line).unwrap().tag;
            let answer = Message::Reply { tag, outcome: Outcome::Ok(None) };
            let _ = writeln!(answers, "{}", serde_json::to_string(&answer).unwrap());
        }
    }
}

#[tokio::test]
async fn whoever_answers_in_the_shims_place_is_not_believed() {
    let (_data_dir, runtime) = runtime();
    let spec = spec(&["/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    let mut agent = runtime.start(&spec).await.unwrap();
    let (pid, spool) = (line(&mut agent).await, agent.spool);
    drop(agent);
    let socket = runtime.spools.get(spool).path().join(SOCKET);
    fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || answer_ok(&listener));
    let again = runtime.adopt(&spec, spool, Epoch(2), 0).await.unwrap().unwrap();
    again.process.kill().await.unwrap();
    assert!(!lives(&pid), "a kill was confirmed by somebody else");
}

/// Whether a spool holds a segment that is no file, or an empty one.
fn broken(data_dir: &Path) -> bool {
    let spools = fs::read_dir(data_dir.join("spools")).unwrap().flatten();
    let files = spools.filter(|spool| spool.path().is_dir()).flat_map(|spool| fs::read_dir(spool.path()).unwrap());
    files.flatten().filter(|file| file.path().extension().is_some_and(|extension| extension == "seg")).any(|file| {
        let metadata = fs::symlink_metadata(file.path()).unwrap();
        !metadata.is_file() || fs::read(file.path()).is_ok_and(|bytes| bytes.first() == Some(&0))
    })
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
