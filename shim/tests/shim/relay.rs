//! The relay as an agent and a gateway meet it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Instant;

use streamgate_shim::control::{Command, Proxy, Start};

use super::{DEADLINE, Shim, until};

/// A shim whose agent has said where its relay is, and the directory of the gateway's socket.
struct Relayed {
    shim: Shim,
    directory: tempfile::TempDir,
    address: String,
}

impl Relayed {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let (shim, directory) = (Shim::start(arguments), tempfile::tempdir().unwrap());
        // Deeper than an address of a socket is long.
        let deep = directory.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let start = Start {
            id: "s".to_owned(),
            argv: ["/bin/sh", "-c", r#"echo "$URL"; echo "$0"; exec sleep 1000"#, "at {proxy}/v1"]
                .map(str::to_owned)
                .to_vec(),
            env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap()), ("URL".to_owned(), "{proxy}".to_owned())],
            inherit_env: false,
            cwd: "/".to_owned(),
            max_line_bytes: 1_000,
            proxy: Some(Proxy { socket: deep.join("socket").display().to_string(), port: 0 }),
        };
        shim.gateway(0).ask(Command::Start(start)).unwrap();
        until("the agent tells the address", || shim.records().len() == 2);
        let lines = shim.records().into_iter().map(|record| match record.body {
            streamgate_shim::record::Body::Line(line) => String::from_utf8(line).unwrap(),
            other => panic!("{other:?}"),
        });
        let lines = lines.collect::<Vec<_>>();
        assert_eq!(lines[1], format!("at {}/v1", lines[0]));
        let address = lines[0].strip_prefix("http://").unwrap().to_owned();
        Self { shim, directory, address }
    }

    /// How many files and sockets the shim has open.
    fn open(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.shim.child.id())).unwrap().count()
    }

    fn listen(&self) -> UnixListener {
        let enter = std::fs::File::open(self.directory.path().join("d".repeat(100))).unwrap();
        let directory = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&enter));
        let _ = std::fs::remove_file(format!("{directory}/socket"));
        UnixListener::bind(format!("{directory}/socket")).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

fn accept(gateway: &UnixListener) -> UnixStream {
    let (stream, _) = gateway.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn read(stream: &mut impl std::io::Read, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).unwrap();
    buffer
}

#[test]
fn bytes_and_ends_go_both_ways() {
    let relayed = Relayed::start();
    let gateway = relayed.listen();
    let (mut agent, mut other) = (relayed.connect(), relayed.connect());
    other.write_all(b"second").unwrap();
    let mut ends = [accept(&gateway), accept(&gateway)];
    agent.write_all(b"first!").unwrap();
    // Whichever came first: both are there at once, and not mixed.
    let words = ends.iter_mut().map(|end| read(end, 6)).collect::<Vec<_>>();
    let at = usize::from(words[0] == b"second");
    assert_eq!((&words[at][..], &words[1 - at][..]), (&b"first!"[..], &b"second"[..]));

    let end = &mut ends[at];
    end.write_all(b"answer").unwrap();
    assert_eq!(read(&mut agent, 6), b"answer");
    agent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(end.read(&mut [0; 8]).unwrap(), 0, "half of it is closed");
    end.write_all(b"late").unwrap();
    end.shutdown(Shutdown::Both).unwrap();
    let mut rest = Vec::new();
    agent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"late");
}

#[test]
fn whoever_writes_waits_for_whoever_reads() {
    let relayed = Relayed::start();
    let gateway = relayed.listen();
    let mut agent = relayed.connect();
    let mut end = accept(&gateway);
    let sent = (0..16_u32 << 20).map(|number| (number % 251) as u8).collect::<Vec<_>>();
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            end.write_all(&sent).unwrap();
            end
        }
    });
    let mut piece = read(&mut agent, 1);
    thread::sleep(std::time::Duration::from_millis(200));
    assert!(!writer.is_finished(), "the relay holds 16 MiB");
    let mut other = relayed.connect();
    other.write_all(b"x").unwrap();
    assert_eq!(read(&mut accept(&gateway), 1), b"x", "others go on");
    piece.extend(read(&mut agent, sent.len() - 1));
    assert!(piece == sent, "bytes were lost or changed");
    drop(writer.join().unwrap());
    assert_eq!(agent.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_gateway_that_is_away_is_waited_for() {
    let relayed = Relayed::start();
    let mut early = relayed.connect();
    early.write_all(b"early").unwrap();
    let gateway = relayed.listen();
    assert_eq!(read(&mut accept(&gateway), 5), b"early");
    // Its socket stays behind, and refuses.
    drop(gateway);
    let mut again = relayed.connect();
    again.write_all(b"again").unwrap();
    let gateway = relayed.listen();
    assert_eq!(read(&mut accept(&gateway), 5), b"again");
}

#[test]
fn a_gateway_that_stays_away_ends_the_connection() {
    let relayed = Relayed::start_with(&["--gateway-wait-seconds", "2"]);
    let started = Instant::now();
    let mut agent = relayed.connect();
    agent.write_all(b"anybody?").unwrap();
    let ended = agent.read(&mut [0; 8]);
    assert!(matches!(ended, Ok(0) | Err(_)) && started.elapsed() < DEADLINE, "{ended:?}");
    assert!(started.elapsed().as_secs() >= 2, "it was not waited for");
}

#[test]
fn who_hangs_up_while_no_gateway_is_there_takes_no_place_from_who_waits() {
    let relayed = Relayed::start();
    // What it answers comes after it has closed the connections of those who went before.
    let mut control = relayed.shim.gateway(1);
    control.status();
    let open = relayed.open();
    // As many as the relay has at a time.
    let mut impatient = (0..64).map(|_| relayed.connect()).collect::<Vec<_>>();
    for agent in &mut impatient {
        agent.write_all(b"gone").unwrap();
    }
    until("they all wait", || relayed.open() == open + 64);
    let mut patient = relayed.connect();
    patient.write_all(b"here").unwrap();
    drop(impatient);
    until("only one waits", || relayed.open() == open + 1);
    let gateway = relayed.listen();
    assert_eq!(read(&mut accept(&gateway), 4), b"here");
}

#[test]
fn an_agent_that_goes_takes_its_connection_along() {
    let relayed = Relayed::start();
    let gateway = relayed.listen();
    let agent = relayed.connect();
    let mut end = accept(&gateway);
    drop(agent);
    assert_eq!(end.read(&mut [0; 8]).unwrap(), 0);
    // What it is sent has nowhere to go.
    until("the relay hangs up", || end.write_all(b"more").is_err());
    let _ = relayed.connect();
    drop(accept(&gateway));
}
