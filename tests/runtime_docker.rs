//! The Docker runtime against a real engine. An engine or image that is missing fails these tests with
//! the command that installs it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers too")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, HostConfig};
use bollard::query_parameters::ListContainersOptionsBuilder;
use bytes::Bytes;
use streamgate::config::{DockerConfig, ProfileConfig};
use streamgate::domain::{ContainerId, Epoch, ProfileId};
use streamgate::runtime::docker::DockerRuntime;
use streamgate::runtime::{Agent, AgentSpec, Exit, Line, LineText, Output, Runtime, RuntimeError};
use streamgate_shim::record::{Body, Exit as RecordedExit, Record};

const IMAGE: &str = "debian:bookworm-slim";
const DEADLINE: Duration = Duration::from_secs(90);
const ECHO: &str = r#"while read l; do echo "$l"; done"#;

/// A gateway's runtime with an instance of its own; what it started is gone at the end.
struct Gateway {
    runtime: DockerRuntime,
    docker: Docker,
    instance: String,
    _data_dir: tempfile::TempDir,
}

impl Gateway {
    async fn new() -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let instance = format!("test-{}", ContainerId::generate());
        let runtime = DockerRuntime::connect(&DockerConfig::default(), data_dir.path(), &instance, "node", 1 << 20)
            .await
            .unwrap_or_else(|error| panic!("these tests need a Docker engine: {error}"));
        let docker = Docker::connect_with_unix_defaults().unwrap().negotiate_version().await.unwrap();
        let image = docker.inspect_image(IMAGE).await;
        assert!(image.is_ok(), "these tests need the image `{IMAGE}`: `docker pull {IMAGE}`");
        Self { runtime, docker, instance, _data_dir: data_dir }
    }

    async fn start(&self, script: &str) -> Agent {
        self.runtime.start(&spec(script)).await.unwrap()
    }

    async fn ids(&self) -> Vec<String> {
        let filters = HashMap::from([("label", vec![format!("streamgate.instance={}", self.instance)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(options)).await.unwrap();
        containers.into_iter().filter_map(|container| container.id).collect()
    }

    /// What runs in the agent's container besides its shim.
    async fn left(&self, agent: &Agent) -> Vec<Vec<String>> {
        let top = self.docker.top_processes(&agent.container_name, None).await;
        let Ok(top) = top else { return Vec::new() }; // The container does not run.
        let processes = top.processes.unwrap_or_default();
        processes
            .into_iter()
            .filter(|process| !process.iter().any(|field| field.contains("/.streamgate/shim")))
            .collect()
    }

    async fn inspect(&self, agent: &Agent) -> ContainerInspectResponse {
        self.docker.inspect_container(&agent.container_name, None).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // A test may be panicking, on a runtime that is going away: the client is the sure way.
        let filter = format!("label=streamgate.instance={}", self.instance);
        let found = std::process::Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        for id in String::from_utf8_lossy(&found.stdout).split_whitespace() {
            let _ = std::process::Command::new("docker").args(["rm", "-f", id]).output();
        }
    }
}

fn spec(script: &str) -> AgentSpec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    let profile =
        ProfileConfig { command, env, image: IMAGE.to_owned(), memory_bytes: 64 << 20, ..ProfileConfig::default() };
    AgentSpec {
        container_id: ContainerId::generate(),
        profile_id: ProfileId::from_slug("test"),
        profile: Arc::new(profile),
    }
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

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_start_that_finds_its_name_taken_leaves_who_has_it_alone() {
    let (one, other) = (Gateway::new().await, Gateway::new().await);
    let spec = spec(ECHO);
    let mut agent = one.runtime.start(&spec).await.unwrap();
    let error = other.runtime.start(&spec).await.err().unwrap();
    assert!(matches!(error, RuntimeError::StartFailed(_)), "{error:?}");
    agent.process.write("w", "still here\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "still here");
}

#[tokio::test]
async fn a_line_in_is_a_line_out_soon() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.start(ECHO).await;
    agent.process.write("w1", "warm\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "warm");
    let mut times = Vec::new();
    for number in 0..20 {
        let started = Instant::now();
        agent.process.write(&number.to_string(), &format!("{number}\n"), DEADLINE).await.unwrap();
        assert_eq!(line(&mut agent).await, number.to_string());
        times.push(started.elapsed());
    }
    times.sort_unstable();
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
    agent.process.kill().await.unwrap();
    assert_eq!(finish(&mut agent).await.1.code, Some(137));
    assert!(matches!(agent.process.write("w3", "x\n", DEADLINE).await, Err(RuntimeError::Gone)));
    agent.process.kill().await.unwrap();
    agent.process.interrupt().await.unwrap();
    assert!(!agent.process.has_stragglers().await.unwrap());
    agent.process.remove().await.unwrap();
    assert_eq!(gateway.ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_flood_before_the_exit_is_delivered_exactly_once_to_a_slow_reader() {
    let gateway = Gateway::new().await;
    let script = "seq -f 'line %07.0f of the flood, long enough to matter' 40000; touch said; exit 5";
    let mut agent = gateway.start(script).await;
    let line = |number| format!("line {number:07} of the flood, long enough to matter\n");
    let expected = (1..=40_000).map(line).collect::<Vec<_>>().concat();
    // The reader has not even begun.
    let workspace = gateway.runtime.workspace(agent.container_id);
    until("all is said", async || workspace.list().await.unwrap().iter().any(|entry| entry.path == "said")).await;
    let mut text = String::new();
    let mut chunks = 0;
    let exit = loop {
        match next(&mut agent).await.unwrap() {
            Output::Lines(lines) => text.push_str(&texts(&lines)),
            Output::Exit(exit) => break exit,
        }
        chunks += 1;
        if chunks % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await; // The slow reader.
        }
    };
    assert!(text == expected, "lines were lost, doubled or reordered: {} of {}", text.len(), expected.len());
    assert_eq!(exit.code, Some(5));
}

#[tokio::test]
async fn an_agent_that_ends_tells_code_and_stderr() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.start("printf 'no newline'; echo broken >&2; exit 3").await;
    let (text, exit) = finish(&mut agent).await;
    assert_eq!(text, "no newline\n");
    assert_eq!(exit, Exit { code: Some(3), stderr_tail: "broken\n".to_owned(), ..Exit::default() });
}

#[tokio::test]
async fn an_agent_that_never_reads_holds_nobody() {
    let gateway = Gateway::new().await;
    let agent = gateway.start("exec sleep 1000").await;
    let flood = "x".repeat(4 << 20);
    let refused = agent.process.write("w4", &flood, Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(RuntimeError::NotReading)), "{refused:?}");
    agent.process.kill().await.unwrap();
}

#[tokio::test]
async fn an_interrupt_reaches_the_agent() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.start("trap 'echo stopped; exit 4' INT; echo ready; while :; do sleep 0.05; done").await;
    assert_eq!(line(&mut agent).await, "ready");
    agent.process.interrupt().await.unwrap();
    let (text, exit) = finish(&mut agent).await;
    assert_eq!((text.as_str(), exit.code), ("stopped\n", Some(4)));
}

#[tokio::test]
async fn stragglers_are_seen() {
    let gateway = Gateway::new().await;
    let mut agent =
        gateway.start("read l; setsid sleep 1000 & echo up; read l; kill $!; wait; echo alone; exec cat").await;
    assert!(!agent.process.has_stragglers().await.unwrap());
    agent.process.write("w5", "go\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "up");
    assert!(agent.process.has_stragglers().await.unwrap());
    agent.process.write("w6", "go\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut agent).await, "alone");
    assert!(!agent.process.has_stragglers().await.unwrap());
    agent.process.kill().await.unwrap();
}

/// Each of its processes starts others for as long as it lives, up to the limit of its box, and for a minute at most.
#[tokio::test]
async fn a_fork_bomb_does_not_outrun_a_kill() {
    let gateway = Gateway::new().await;
    let mut spec = spec("echo lit; exec perl -e 'alarm 60; while (time - $^T < 60) { fork }'");
    let limits = ProfileConfig { pids: 128, memory_bytes: 256 << 20, ..ProfileConfig::clone(&spec.profile) };
    spec.profile = Arc::new(limits);
    let mut agent = gateway.runtime.start(&spec).await.unwrap();
    assert_eq!(line(&mut agent).await, "lit");
    until("it has gone off", async || gateway.left(&agent).await.len() >= 100).await;
    agent.process.kill().await.unwrap();
    let left = gateway.left(&agent).await;
    assert!(left.is_empty(), "{} live on", left.len());
    assert_eq!(gateway.ids().await.len(), 1, "its shim did it: the box need not go");
    assert_eq!(finish(&mut agent).await.1.code, Some(137));
    agent.process.remove().await.unwrap();
}

#[tokio::test]
async fn an_end_that_an_agent_writes_into_its_spool_is_passed_on_only_when_nothing_of_it_runs() {
    let gateway = Gateway::new().await;
    let script = "echo up; read l; for f in /.streamgate/spool/*.seg; do cat forged >> $f; done; exec sleep 1000";
    let mut agent = gateway.start(script).await;
    assert_eq!(line(&mut agent).await, "up");
    let mut forged = Vec::new();
    let end = RecordedExit { run: 1, code: Some(0), oom: false, stderr_tail: String::new() };
    Record { number: 2, body: Body::Exit(end) }.encode_into(&mut forged);
    gateway.runtime.workspace(agent.container_id).write("forged", forged.into()).await.unwrap();
    agent.process.write("go", "go\n", DEADLINE).await.unwrap();
    assert_eq!(finish(&mut agent).await.1.code, Some(0));
    assert_eq!(gateway.left(&agent).await, Vec::<Vec<String>>::new(), "the agent works on after its end");
}

#[tokio::test]
async fn an_agent_that_answers_in_its_shims_place_is_not_believed() {
    let gateway = Gateway::new().await;
    let script = r#"
        rm /.streamgate/spool/control.sock
        exec perl -e '
            use IO::Socket::UNIX;
            my $socket = IO::Socket::UNIX->new(Local => "/.streamgate/spool/control.sock", Listen => 8) or die $!;
            $| = 1;
            print "listening\n";
            while (my $gateway = $socket->accept) {
                $gateway->autoflush(1);
                while (<$gateway>) { /"tag":(\d+)/ and print $gateway "{\"tag\":$1,\"ok\":null}\n" }
            }'
    "#;
    let spec = spec(script);
    let mut agent = gateway.runtime.start(&spec).await.unwrap();
    assert_eq!(line(&mut agent).await, "listening");
    let again = gateway.runtime.adopt(&spec, agent.spool, Epoch(2), 0).await.unwrap().unwrap();
    again.process.kill().await.unwrap();
    assert_eq!(gateway.left(&agent).await, Vec::<Vec<String>>::new(), "it confirmed its own end");
    again.process.remove().await.unwrap();
}

#[tokio::test]
async fn the_cage_is_closed_as_seen_from_inside() {
    let gateway = Gateway::new().await;
    let script = r#"
        echo "uid $(id -u):$(id -g)"
        grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
        echo "net $(ls /sys/class/net)"
        touch /etc/planted 2>/dev/null && echo "rootfs writable"
        touch /tmp/fine && echo "tmp writable"
        printf '#!/bin/sh\n' > /tmp/run && chmod +x /tmp/run && /tmp/run 2>/dev/null && echo "tmp executable"
        unshare -U true 2>/dev/null && echo "unshare works"
        echo "dir $(pwd) $HOME $GREETING"
        echo mine > file && echo "workspace writable"
        echo "files $(ulimit -n) core $(ulimit -c)"
        echo "pid1 $(cat /proc/1/comm)"
        echo "oom $(cat /proc/self/oom_score_adj)"
    "#;
    let mut agent = gateway.start(script).await;
    let (text, exit) = finish(&mut agent).await;
    let lines: Vec<String> = text.lines().map(|line| line.replace('\t', " ")).collect();
    let (uid, gid) = match (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) {
        (0, _) => (10_001, 10_001),
        own => own,
    };
    let expected = [
        format!("uid {uid}:{gid}").as_str(),
        "CapBnd: 0000000000000000",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "net lo",
        "tmp writable",
        "dir /workspace /workspace hello",
        "workspace writable",
        "files 1024 core 0",
        "pid1 shim",
        "oom 700",
    ]
    .map(str::to_owned);
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&lines), sorted(&expected), "{text} {exit:?}");
    let workspace = gateway.runtime.workspace(agent.container_id);
    assert_eq!(workspace.read("file", 100).await.unwrap().unwrap(), "mine\n");
}

#[tokio::test]
async fn the_cage_is_closed_as_the_engine_tells_it() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.start(ECHO).await;
    let seen = gateway.inspect(&agent).await;
    let config = seen.config.unwrap();
    let labels = config.labels.unwrap();
    assert_eq!(labels["streamgate.instance"], gateway.instance);
    assert_eq!(labels["streamgate.container"], agent.container_id.to_string());
    assert_eq!(labels["streamgate.profile"], "test");
    assert_eq!((config.open_stdin, config.tty), (Some(false), Some(false)));
    let host: HostConfig = seen.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!((host.readonly_rootfs, host.privileged, host.init), (Some(true), Some(false), Some(false)));
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
    assert_eq!((host.pids_limit, host.oom_score_adj), (Some(257), Some(500)));
    assert_eq!((host.memory, host.memory_swap, host.nano_cpus), (Some(64 << 20), Some(64 << 20), Some(1_000_000_000)));
    assert_eq!(host.ipc_mode.as_deref(), Some("private"));
    assert_eq!(host.auto_remove, Some(false));
    let log = host.log_config.unwrap();
    let bounded = HashMap::from([("max-size".to_owned(), "64k".to_owned())]);
    assert_eq!((log.typ.as_deref(), log.config), (Some("json-file"), Some(bounded)));
    let mut mounts: Vec<_> =
        seen.mounts.unwrap().into_iter().map(|mount| (mount.destination.unwrap(), mount.rw.unwrap())).collect();
    mounts.sort_unstable();
    let expected = [("/.streamgate/shim", false), ("/.streamgate/spool", true), ("/workspace", true)];
    assert_eq!(mounts, expected.map(|(path, writable)| (path.to_owned(), writable)));
    assert!(!config.env.unwrap_or_default().iter().any(|variable| variable.contains("GREETING")), "told by the shim");
    agent.process.kill().await.unwrap();
    finish(&mut agent).await;
}

#[tokio::test]
async fn an_agent_that_eats_all_memory_is_said_to_have() {
    let gateway = Gateway::new().await;
    // `tail` keeps what has no newline. `exec`: it must be the agent itself that is killed.
    let mut agent = gateway.start("exec tail /dev/zero").await;
    let (_, exit) = finish(&mut agent).await;
    assert_eq!((exit.code, exit.oom), (Some(137), true));
}

#[tokio::test]
async fn boxes_of_this_instance_are_found_and_no_others() {
    let (ours, theirs) = (Gateway::new().await, Gateway::new().await);
    let (mut first, second, mut other) = tokio::join!(ours.start(ECHO), ours.start(ECHO), theirs.start(ECHO));
    let boxes = ours.runtime.boxes(None).await.unwrap();
    let mut found: Vec<_> = boxes.into_iter().map(|found| found.container_id).collect();
    found.sort_unstable();
    let mut started = [first.container_id, second.container_id];
    started.sort_unstable();
    assert_eq!(found, started);
    let [found] = &ours.runtime.boxes(Some(first.container_id)).await.unwrap()[..] else { panic!("one box") };
    for _ in 0..2 {
        ours.runtime.remove(found).await.unwrap();
    }
    assert_eq!((ours.ids().await.len(), theirs.ids().await.len()), (1, 1));
    // For who still listens, a container that was removed behind our back is an exit like any other.
    finish(&mut first).await;
    other.process.write("alive", "alive\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut other).await, "alive");
}

#[tokio::test]
async fn another_gateway_goes_on_where_the_first_stopped() {
    let gateway = Gateway::new().await;
    let spec = spec("seq 5; while read l; do echo \"got $l\"; done");
    let mut first = gateway.runtime.start(&spec).await.unwrap();
    let mut heard = String::new();
    while heard.lines().count() < 5 {
        let Some(Output::Lines(lines)) = next(&mut first).await else { panic!("it ended") };
        heard.push_str(&texts(&lines));
    }
    let spool = first.spool;
    drop(first);
    let mut again = gateway.runtime.adopt(&spec, spool, Epoch(2), 3).await.unwrap().unwrap();
    let Some(Output::Lines(lines)) = next(&mut again).await else { panic!("it ended") };
    assert_eq!((lines[0].record, texts(&lines).as_str()), (4, "4\n5\n"));
    for _ in 0..2 {
        again.process.write("one", "one\n", DEADLINE).await.unwrap();
    }
    again.process.write("two", "two\n", DEADLINE).await.unwrap();
    let mut heard = String::new();
    while heard.lines().count() < 2 {
        let Some(Output::Lines(lines)) = next(&mut again).await else { panic!("it ended") };
        heard.push_str(&texts(&lines));
    }
    assert_eq!(heard, "got one\ngot two\n", "each once");
    // A container that dies while nobody listens is heard to its end.
    let container = again.container_name.clone();
    drop(again);
    let kill = ["kill", "-s", "KILL", &container];
    assert!(std::process::Command::new("docker").args(kill).output().unwrap().status.success());
    let mut dead = gateway.runtime.adopt(&spec, spool, Epoch(3), 0).await.unwrap().unwrap();
    let (text, exit) = finish(&mut dead).await;
    assert_eq!((text.lines().count(), exit.code), (7, Some(137)));
    dead.process.remove().await.unwrap();
    assert!(gateway.runtime.boxes(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_same_box_again_replaces_its_container_and_keeps_its_files() {
    let gateway = Gateway::new().await;
    let mut spec = spec("echo one > file; echo up; exec cat");
    let mut first = gateway.runtime.start(&spec).await.unwrap();
    assert_eq!(line(&mut first).await, "up");
    spec.profile = Arc::new(ProfileConfig {
        command: ["/bin/sh", "-c", "cat file; exec cat"].map(str::to_owned).to_vec(),
        ..ProfileConfig::clone(&spec.profile)
    });
    let [found] = &gateway.runtime.boxes(Some(spec.container_id)).await.unwrap()[..] else { panic!("one box") };
    gateway.runtime.remove(found).await.unwrap();
    let mut second = gateway.runtime.start(&spec).await.unwrap();
    assert_eq!(line(&mut second).await, "one");
    finish(&mut first).await;
    // It is another one, whatever it is called.
    gateway.runtime.remove(found).await.unwrap();
    first.process.kill().await.unwrap();
    second.process.write("w8", "still here\n", DEADLINE).await.unwrap();
    assert_eq!(line(&mut second).await, "still here");
    second.process.kill().await.unwrap();

    let workspace = gateway.runtime.workspace(spec.container_id);
    workspace.write("in/put.txt", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(workspace.list().await.unwrap().len(), 2);
    gateway.runtime.erase(spec.container_id).await.unwrap();
    assert_eq!(workspace.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_link_that_a_container_plants_leads_nowhere_on_the_host() {
    let gateway = Gateway::new().await;
    let script = "ln -s /etc/passwd passwd; ln -s / root; mkfifo pipe; ln -s ../../.. up; echo done";
    let mut agent = gateway.start(script).await;
    assert_eq!(finish(&mut agent).await.0, "done\n");
    let workspace = gateway.runtime.workspace(agent.container_id);
    for path in ["passwd", "root/etc/passwd", "pipe", "up/etc/passwd"] {
        assert!(workspace.read(path, 1 << 20).await.is_err(), "{path}");
    }
    assert_eq!(workspace.list().await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_start_says_how_to_mend_it_and_leaves_nothing() {
    let gateway = Gateway::new().await;
    let with = |change: &dyn Fn(&mut ProfileConfig)| {
        let mut spec = spec(ECHO);
        let mut profile = ProfileConfig::clone(&spec.profile);
        change(&mut profile);
        spec.profile = Arc::new(profile);
        spec
    };
    let missing = with(&|profile| profile.image = "streamgate-no-such-image:1".to_owned());
    let error = gateway.runtime.start(&missing).await.err().unwrap().to_string();
    assert!(error.contains("docker pull streamgate-no-such-image:1"), "{error}");
    let no_program = with(&|profile| profile.command = vec!["/no/such/program".to_owned()]);
    // The init starts, so the container does; the agent's end tells.
    if let Ok(mut agent) = gateway.runtime.start(&no_program).await {
        let exit = finish(&mut agent).await.1;
        assert!(exit.stderr_tail.contains("/no/such/program"), "{exit:?}");
    }
    until("nothing is left", async || gateway.ids().await.is_empty()).await;

    let config = DockerConfig { socket: "/nowhere/docker.sock".into(), ..DockerConfig::default() };
    let error = DockerRuntime::connect(&config, Path::new("/nonexistent"), "x", "node", 1 << 20)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("/nowhere/docker.sock") && error.contains("apt-get install docker.io"), "{error}");
    assert!(!error.contains('\n'));
}

#[tokio::test]
async fn mounts_that_the_engine_does_not_see_are_told_at_the_start() {
    let gateway = Gateway::new().await;
    gateway.runtime.check_mounts(IMAGE).await.unwrap();
    assert!(gateway.ids().await.is_empty());

    let data_dir = tempfile::tempdir().unwrap();
    let config = DockerConfig { engine_dir: "/nowhere/of/the/kind".into(), ..DockerConfig::default() };
    let instance = &gateway.instance;
    let elsewhere = DockerRuntime::connect(&config, data_dir.path(), instance, "node", 1 << 20).await.unwrap();
    let error = elsewhere.check_mounts(IMAGE).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/of/the/kind") && error.contains("runtime.docker.engine_dir"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    assert!(gateway.ids().await.is_empty());
}

#[tokio::test]
async fn without_a_command_the_image_decides() {
    let gateway = Gateway::new().await;
    let mut spec = spec("");
    spec.profile = Arc::new(ProfileConfig { command: Vec::new(), ..ProfileConfig::clone(&spec.profile) });
    let mut agent = gateway.runtime.start(&spec).await.unwrap(); // `bash`, which reads commands.
    agent.process.write("w9", "echo $BASH\n", DEADLINE).await.unwrap();
    assert!(line(&mut agent).await.contains("bash"));
    let last = agent.process.write("w10", "exit 6\n", DEADLINE).await;
    // It may be gone before it is known to have heard.
    assert!(matches!(last, Ok(()) | Err(RuntimeError::Gone)), "{last:?}");
    assert_eq!(finish(&mut agent).await.1.code, Some(6));
}
