//! The shim as a gateway meets it: the real program, its socket and its spool.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "these are tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use streamgate_shim::control::{Command, Message, Outcome, RefusalCode, Request, SOCKET, Signal, Start, Status};
use streamgate_shim::record::{Body, Exit, Record, decode, parse_segment_name, segment_name};

#[path = "shim/relay.rs"]
mod relay;

const DEADLINE: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;

/// A shim with a spool of its own.
struct Shim {
    directory: tempfile::TempDir,
    child: Child,
}

impl Shim {
    fn start(arguments: &[&str]) -> Self {
        Self::start_as(None, arguments)
    }

    fn start_as(user: Option<u32>, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut program = Program::new(env!("CARGO_BIN_EXE_streamgate-shim"));
        if let Some(user) = user {
            std::os::unix::fs::chown(directory.path(), Some(user), None).unwrap();
            program.uid(user);
        }
        let child = program.arg(directory.path()).args(arguments).stdin(Stdio::null()).spawn().unwrap();
        Self { directory, child }
    }

    /// A gateway's connection, as the holder of `epoch`.
    fn gateway(&self, epoch: i64) -> Gateway {
        let mut gateway = self.stranger();
        gateway.ask(Command::Hello { epoch }).unwrap();
        gateway
    }

    /// A connection that has not said hello.
    fn stranger(&self) -> Gateway {
        let path = self.directory.path().join(SOCKET);
        until("the shim listens", || UnixStream::connect(&path).is_ok());
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Gateway { lines: BufReader::new(stream.try_clone().unwrap()), stream, tag: 0 }
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap());
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| parse_segment_name(entry.file_name().to_str().unwrap()).is_some())
            .map(|entry| entry.path())
            .collect();
        found.sort_unstable();
        found
    }

    /// All that is in the spool.
    fn records(&self) -> Vec<Record> {
        self.segments().iter().flat_map(|segment| read(segment)).collect()
    }

    /// The lines in the spool, once the agent has ended, and how it did.
    fn to_the_end(&self) -> (Vec<String>, Exit) {
        until("the agent ends", || matches!(self.records().last(), Some(Record { body: Body::Exit(_), .. })));
        let mut lines = Vec::new();
        for (number, record) in (1..).zip(self.records()) {
            assert_eq!(record.number, number);
            match record.body {
                Body::Line(line) => lines.push(String::from_utf8(line).unwrap()),
                Body::LongLine { bytes } => lines.push(format!("<{bytes}>")),
                Body::Exit(exit) => return (lines, exit),
            }
        }
        unreachable!("it has ended")
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = Program::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn read(segment: &Path) -> Vec<Record> {
    let bytes = fs::read(segment).unwrap_or_default();
    let (mut at, mut records) = (0, Vec::new());
    while let Some((record, taken)) = decode(&bytes[at..], 1 << 24).unwrap() {
        at += taken;
        records.push(record);
    }
    records
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A gateway's end of a connection.
struct Gateway {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    tag: u64,
}

impl Gateway {
    fn send(&mut self, command: Command) -> u64 {
        self.tag += 1;
        let mut line = serde_json::to_vec(&Request { tag: self.tag, command }).unwrap();
        line.push(b'\n');
        self.stream.write_all(&line).unwrap();
        self.tag
    }

    fn answer(&mut self, asked: u64) -> Result<Option<Status>, RefusalCode> {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the shim hung up");
            if let Message::Reply { tag, outcome } = serde_json::from_str(&line).unwrap()
                && tag == asked
            {
                return match outcome {
                    Outcome::Ok(status) => Ok(status),
                    Outcome::Error(refusal) => Err(refusal.code),
                };
            }
        }
    }

    fn ask(&mut self, command: Command) -> Result<Option<Status>, RefusalCode> {
        let tag = self.send(command);
        self.answer(tag)
    }

    fn start(&mut self, script: &str) {
        let start = Start {
            id: format!("start {script}"),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
            inherit_env: false,
            cwd: "/".to_owned(),
            max_line_bytes: 1_000,
            proxy: None,
        };
        self.ask(Command::Start(start)).unwrap();
    }

    fn status(&mut self) -> Status {
        self.ask(Command::Status).unwrap().unwrap()
    }

    fn write(&mut self, id: &str, data: &str) -> Result<Option<Status>, RefusalCode> {
        self.ask(Command::Write { id: id.to_owned(), data: data.to_owned() })
    }

    /// The last record, as the shim tells it unasked.
    fn told(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the shim hung up");
            if let Message::Records { records } = serde_json::from_str(&line).unwrap() {
                return records;
            }
        }
    }

    /// Whether the shim has hung up.
    fn is_cut_off(&mut self) -> bool {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return true,
                Ok(_) => (),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn every_line_is_a_record_long_ones_are_counted_and_the_last_needs_no_newline() {
    let shim = Shim::start(&[]);
    shim.gateway(0).start("echo one; echo; head -c 5000 /dev/zero; echo; printf two; echo oh >&2; exit 3");
    let (lines, exit) = shim.to_the_end();
    assert_eq!(lines, ["one", "", "<5000>", "two"]);
    assert_eq!(exit, Exit { run: 1, code: Some(3), oom: false, stderr_tail: "oh\n".to_owned() });
}

#[test]
fn a_flood_is_kept_without_a_gateway() {
    let shim = Shim::start(&["--segment-bytes", "65536"]);
    // The connection ends at once; the agent goes on.
    shim.gateway(0).start("seq 100000");
    let (lines, exit) = shim.to_the_end();
    assert!(lines.iter().map(|line| line.parse::<u32>().unwrap()).eq(1..=100_000));
    assert_eq!(exit.code, Some(0));
    assert!(shim.segments().len() > 1, "several segments");
}

#[test]
fn a_full_spool_stops_the_agent_until_it_is_acknowledged() {
    let shim = Shim::start(&["--segment-bytes", "16384", "--spool-bytes", "65536"]);
    let mut gateway = shim.gateway(0);
    gateway.start("yes | head -n 200000; echo end");
    until("it is full", || gateway.status().spooled_bytes >= 65_536);
    let stopped = gateway.status();
    // One read beyond the limit, and each line has a header.
    assert!(stopped.running && stopped.spooled_bytes < 1_000_000, "{stopped:?}");

    let mut seen = 0;
    loop {
        let known = seen;
        for record in shim.records().into_iter().filter(|record| record.number > known) {
            seen += 1;
            assert_eq!(record.number, seen);
            match record.body {
                Body::Line(line) if seen <= 200_000 => assert_eq!(line, b"y"),
                Body::Line(line) => assert_eq!(line, b"end"),
                Body::Exit(_) => return assert_eq!(seen, 200_002),
                long @ Body::LongLine { .. } => panic!("{long:?}"),
            }
        }
        gateway.ask(Command::Ack { record: seen }).unwrap();
        let after = gateway.status();
        assert!(after.spooled_bytes < 2_000_000, "what is acknowledged goes: {after:?}");
    }
}

#[test]
fn what_has_an_id_happens_once_whoever_says_it() {
    let shim = Shim::start(&[]);
    let mut first = shim.gateway(1);
    first.start("while read l; do echo got $l; done");
    first.write("a", "one\n").unwrap();
    drop(first);
    let mut second = shim.gateway(2);
    second.start("while read l; do echo got $l; done");
    for (id, data) in [("a", "one\n"), ("b", "two\n"), ("b", "two\n"), ("c", "end\n")] {
        second.write(id, data).unwrap();
    }
    until("all is heard", || second.status().last_record == 3);
    second.ask(Command::Signal { signal: Signal::Kill }).unwrap();
    let (lines, exit) = shim.to_the_end();
    assert_eq!(lines, ["got one", "got two", "got end"]);
    assert_eq!((exit.run, exit.code), (1, Some(137)));
    assert_eq!(second.write("d", "late\n"), Err(RefusalCode::Gone));
    // Another agent in the same shim; numbers go on.
    second.start("echo again");
    until("it ends", || shim.records().len() == 6);
    assert!(matches!(&shim.records()[5].body, Body::Exit(Exit { run: 2, .. })));
}

#[test]
fn the_latest_gateway_holds_the_shim_and_older_ones_are_refused() {
    let shim = Shim::start(&[]);
    let mut old = shim.gateway(1);
    let mut new = shim.gateway(2);
    assert!(old.is_cut_off());
    let mut late = shim.stranger();
    assert_eq!(late.ask(Command::Status), Err(RefusalCode::Stale), "hello comes first");
    assert_eq!(late.ask(Command::Hello { epoch: 1 }), Err(RefusalCode::Stale));
    assert_eq!(late.ask(Command::Signal { signal: Signal::Kill }), Err(RefusalCode::Stale));
    assert_eq!(new.status().run, 0);
}

#[test]
fn who_comes_to_an_agent_that_is_silent_is_told_what_it_has_said() {
    let shim = Shim::start(&[]);
    shim.gateway(1).start("echo one; exec sleep 1000");
    until("it speaks", || shim.records().len() == 1);
    let mut second = shim.stranger();
    // Its answer is on the way when there is something to be told, and nothing happens after that.
    second.send(Command::Hello { epoch: 2 });
    assert_eq!(second.told(), 1);
}

#[test]
fn a_kill_reaches_whoever_hid() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.start("setsid sh -c 'echo $$; (setsid sleep 1000 & echo $!); exec sleep 1000' & wait");
    until("they run", || shim.records().len() == 2);
    assert!(gateway.status().stragglers);
    gateway.ask(Command::Signal { signal: Signal::Kill }).unwrap();
    let (pids, _) = shim.to_the_end();
    assert!(pids.iter().all(|pid| !lives(pid)), "{pids:?}");
    assert!(!gateway.status().stragglers);
}

#[test]
#[ignore = "only root can make such a process; scripts/test runs it as root"]
fn a_kill_that_something_survives_is_not_confirmed() {
    // A program by which an agent becomes somebody whom its shim may not kill.
    let programs = tempfile::tempdir().unwrap();
    let become_root = programs.path().join("become_root");
    fs::copy("/usr/bin/perl", &become_root).expect("this test needs perl");
    let readable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    readable(programs.path(), 0o755);
    readable(&become_root, 0o4755);
    let shim = Shim::start_as(Some(NOBODY), &[]);
    let mut gateway = shim.gateway(0);
    let immortal = format!(r"{} -e '$| = 1; $< = $>; print qq($$\n); sleep 60'", become_root.display());
    gateway.start(&format!("echo $$; {immortal} & wait"));
    until("they run", || shim.records().len() == 2);
    let [agent, immortal] = &shim.records()[..] else { unreachable!() };
    let pid = |record: &Record| match &record.body {
        Body::Line(line) => String::from_utf8(line.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let (agent, immortal) = (pid(agent), pid(immortal));
    let killed = gateway.ask(Command::Signal { signal: Signal::Kill });
    let (agent_lives, immortal_lives) = (lives(&agent), lives(&immortal));
    Program::new("kill").args(["-9", &immortal]).status().unwrap();
    assert!(immortal_lives, "this test needs a temporary directory without `nosuid`");
    assert!(!agent_lives && killed.is_err(), "{killed:?}");
    // When nothing survives it any more, it is confirmed.
    gateway.ask(Command::Signal { signal: Signal::Kill }).unwrap();
    assert_eq!(shim.to_the_end().1.code, Some(137));
}

#[test]
fn an_agents_end_takes_along_what_it_left_running() {
    let shim = Shim::start(&[]);
    shim.gateway(0).start("setsid sleep 1000 & echo $!; exit 0");
    let (pids, exit) = shim.to_the_end();
    assert_eq!(exit.code, Some(0));
    assert!(!lives(&pids[0]));
}

fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("\nState:\tZ"))
}

#[test]
fn an_agent_that_never_reads_holds_nobody() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.start("exec sleep 1000");
    let large = "x".repeat(1 << 20);
    let waiting = gateway.send(Command::Write { id: "0".to_owned(), data: large.clone() });
    for id in 1..16 {
        gateway.send(Command::Write { id: id.to_string(), data: large.clone() });
    }
    assert!(gateway.status().running, "other things go on");
    assert_eq!(gateway.write("16", &large), Err(RefusalCode::Full));
    gateway.send(Command::Signal { signal: Signal::Kill });
    assert_eq!(gateway.answer(waiting), Err(RefusalCode::Gone));
}

#[test]
fn a_write_is_remembered_when_thousands_have_come_after_it() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.start("exec cat");
    gateway.write("first", "first\n").unwrap();
    for number in 0..10_000 {
        gateway.write(&format!("reply/{number}"), "reply\n").unwrap();
    }
    gateway.write("first", "first\n").unwrap();
    gateway.write("last", "last\n").unwrap();
    until("all has come back", || gateway.status().last_record >= 10_002);
    gateway.ask(Command::Signal { signal: Signal::Kill }).unwrap();
    let (lines, _) = shim.to_the_end();
    assert_eq!(lines.iter().filter(|line| *line != "reply").collect::<Vec<_>>(), ["first", "last"]);
}

#[test]
fn what_an_agent_never_got_is_not_said_to_be_done() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.start("read l; echo got $l; exec 0<&-; echo deaf; exec sleep 1000");
    gateway.write("heard", "it\n").unwrap();
    until("it has closed its input", || shim.records().len() == 2);
    for _ in 0..2 {
        assert_eq!(gateway.write("unheard", "it too\n"), Err(RefusalCode::Gone));
    }
    gateway.ask(Command::Signal { signal: Signal::Kill }).unwrap();
    for _ in 0..2 {
        assert_eq!(gateway.write("unheard", "it too\n"), Err(RefusalCode::Gone));
    }
    gateway.write("heard", "it\n").unwrap();
    assert_eq!(shim.to_the_end().0, ["got it", "deaf"]);

    // Half of it was in the pipe.
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.start("exec sleep 1000");
    let large = "x".repeat(1 << 20);
    let waiting = gateway.send(Command::Write { id: "large".to_owned(), data: large.clone() });
    gateway.send(Command::Signal { signal: Signal::Kill });
    assert_eq!(gateway.answer(waiting), Err(RefusalCode::Gone));
    assert_eq!(gateway.write("large", &large), Err(RefusalCode::Gone));
}

#[test]
fn what_is_no_request_costs_nothing_and_a_line_without_an_end_the_connection() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    gateway.stream.write_all(b"nonsense\n").unwrap();
    assert_eq!(gateway.answer(0), Err(RefusalCode::BadRequest));
    assert_eq!(gateway.status().run, 0);
    let mut flood = shim.stranger();
    let endless = vec![b'x'; 1 << 20];
    while flood.stream.write_all(&endless).is_ok() {}
    assert_eq!(gateway.status().run, 0, "others don't notice");
}

#[test]
fn a_planted_segment_is_not_written_through() {
    let shim = Shim::start(&["--segment-bytes", "10"]);
    let mut gateway = shim.gateway(0);
    gateway.start("echo one; read l; echo two");
    until("the first is there", || shim.records().len() == 1);
    let victim = shim.directory.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, shim.directory.path().join(segment_name(2))).unwrap();
    gateway.write("go", "go\n").unwrap();
    let (lines, _) = shim.to_the_end();
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
}

#[test]
fn without_a_gateway_for_long_everything_ends() {
    let mut shim = Shim::start(&["--linger-seconds", "1"]);
    let mut gateway = shim.gateway(0);
    gateway.start("echo $$; exec sleep 1000");
    until("it runs", || shim.records().len() == 1);
    drop(gateway);
    until("the shim ends", || shim.child.try_wait().unwrap().is_some());
    let (lines, exit) = shim.to_the_end();
    assert!(!lives(&lines[0]));
    assert_eq!(exit.code, Some(137));
}

#[test]
fn a_program_that_is_not_there_is_named_and_the_shim_goes_on() {
    let shim = Shim::start(&[]);
    let mut gateway = shim.gateway(0);
    let start = Start {
        id: "s".to_owned(),
        argv: vec!["/no/such/program".to_owned()],
        env: Vec::new(),
        inherit_env: false,
        cwd: "/".to_owned(),
        max_line_bytes: 1,
        proxy: None,
    };
    assert_eq!(gateway.ask(Command::Start(start)), Err(RefusalCode::StartFailed));
    gateway.start("echo fine");
    assert_eq!(shim.to_the_end().0, ["fine"]);
}
