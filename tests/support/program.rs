//! The real program, as people start it.
#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "what a gateway says when it panics is for people")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// No start and no end takes longer. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the log says of every panic.
const PANICKED: &str = " panicked at ";

/// A gateway in a process of its own.
pub(crate) struct Program {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it listens to operators.
    pub(crate) operators: SocketAddr,
    environment: Vec<(String, String)>,
    log: Arc<Mutex<String>>,
    child: Child,
}

/// The program under test: what `STREAMGATE_TEST_BINARY` names, else the one that was built with the tests.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("STREAMGATE_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_streamgate").into()).into()
}

/// The program with these settings and nothing else of this process's environment.
fn command(environment: &[(String, String)]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().envs(environment.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The address that follows `words` in a log line.
fn address_after(words: &str, line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(words)?;
    address.split(|letter: char| letter.is_whitespace() || letter == '/').next()?.parse().ok()
}

impl Program {
    /// Starts it on a free port and returns when it listens.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let usual = [
            ("STREAMGATE_LISTEN", "127.0.0.1:0"),
            ("STREAMGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("STREAMGATE_DRAIN_NOTICE_SECONDS", "0"),
        ];
        let settings = [&usual, settings].concat();
        let environment: Vec<_> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut child = command(&environment).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let address = loop {
            let line = tokio::time::timeout(PATIENCE, log.next_line()).await.expect("a log line in time").unwrap();
            let line = line.unwrap_or_else(|| panic!("the gateway did not start: {seen:#?}"));
            if let Some(address) = address_after("Listening on ", &line) {
                break address;
            }
            seen.push(line);
        };
        let operators = seen.iter().find_map(|line| address_after("Metrics are at http://", line));
        let operators = operators.expect("it says where its metrics are");
        // Read on, or a full pipe stops it.
        let heard = Arc::new(Mutex::new(seen.join("\n") + "\n"));
        let writer = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                if line.contains(PANICKED) {
                    println!("{line}");
                }
                writer.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { address, operators, environment, log: heard, child }
    }

    /// How often it has panicked by now, as its log tells.
    pub(crate) fn panics(&self) -> usize {
        self.log().matches(PANICKED).count()
    }

    /// A new token of `user`, as `streamgate token create` prints it.
    pub(crate) async fn token(&self, user: &str) -> String {
        let output = command(&self.environment).args(["token", "create", "--user", user]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap()
    }

    /// Any signal but those that end it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and a good end.
    pub(crate) async fn stop(self) {
        self.terminate();
        self.stopped().await;
    }

    /// A good end, after a signal that asks for it.
    pub(crate) async fn stopped(mut self) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap();
        assert!(status.success(), "{status}");
    }
}
