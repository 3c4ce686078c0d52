//! The loop: signals, connections, the agent's pipes, one at a time.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{getpid, set_child_subreaper, setsid, umask};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use streamgate_shim::control::{Command, Outcome, Refusal, RefusalCode, Request, SOCKET, Signal, Start, Status};

use crate::agent::{Agent, Asker};
use crate::args::Settings;
use crate::connection::{Connection, is_nothing};
use crate::descendants::{descendants, kill_all, reap};
use crate::relay::Relay;
use crate::spool::Spool;

/// How many gateways may be connected at once: the one that holds the shim, and who comes after it.
const CONNECTIONS: usize = 8;
/// How many ids of starts and writes are remembered. A gateway says again only what belongs to the turn that an agent
/// is in: so many other things must be written in that one turn before its prompt could be told twice. All but a few
/// of them would be answers to what the agent itself has asked.
const IDS: usize = 1 << 16;
/// Between two tries while the disk takes nothing.
const DISK_RETRY: Duration = Duration::from_millis(100);

/// A shim at work.
pub(crate) struct Shim {
    listener: UnixListener,
    signals: UnixStream,
    terminated: Arc<AtomicBool>,
    spool: Spool,
    connections: Vec<Connection>,
    serial: u64,
    /// The highest that said hello.
    epoch: Option<i64>,
    agent: Option<Agent>,
    runs: u64,
    ids: Ids,
    relay: Option<Relay>,
    gateway_wait: Duration,
    linger: Option<Duration>,
    alone_since: Instant,
    ending: bool,
}

/// The last ids of what has been done: by their hashes, with keys that nobody knows. An id may hold what an agent calls
/// its request, which may be long.
#[derive(Default)]
struct Ids {
    keys: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Ids {
    fn has(&self, id: &str) -> bool {
        self.known.contains(&self.keys.hash_one(id))
    }

    fn insert(&mut self, id: &str) {
        let id = self.keys.hash_one(id);
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// What is ready, by what it is.
#[derive(Clone, Copy)]
enum Ready {
    Signals,
    Listener,
    Read(u64),
    Write,
    Stdout,
    Stderr,
    Stdin,
}

impl Shim {
    pub(crate) fn open(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        // Of its own whatever starts it: a terminal's Ctrl-C is not for agents. A container's first process
        // leads a session already.
        let _ = setsid();
        set_child_subreaper(Some(getpid()))?;
        umask(Mode::RWXG | Mode::RWXO);
        let (signals, wake) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        // Before what wakes us: who is woken by a signal is to see it.
        let terminated = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminated))?;
        // Handled, not ignored: what is ignored here would be ignored by agents too.
        for signal in [SIGCHLD, SIGTERM, SIGINT, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
        }

        std::env::set_current_dir(&settings.directory)
            .map_err(|error| format!("can't enter {}: {error}", settings.directory.display()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory: OwnedFd = openat(CWD, ".", flags, Mode::empty())?;
        let _ = std::fs::remove_file(SOCKET); // Mostly there is none.
        // By its short name: addresses are at most 108 bytes long (unix(7)).
        let listener = UnixListener::bind(SOCKET).map_err(|error| format!("can't make the socket: {error}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            signals,
            terminated,
            spool: Spool::new(directory, settings.segment_bytes, settings.spool_bytes),
            connections: Vec::new(),
            serial: 0,
            epoch: None,
            agent: None,
            runs: 0,
            ids: Ids::default(),
            relay: None,
            gateway_wait: settings.gateway_wait,
            linger: settings.linger,
            alone_since: Instant::now(),
            ending: false,
        })
    }

    /// Until the end.
    pub(crate) fn run(mut self) -> Result<(), Box<dyn Error>> {
        while !self.ending {
            for ready in self.wait()? {
                self.serve(ready);
            }
            self.spool.flush();
            let written = self.spool.written();
            self.connections.retain_mut(|connection| connection.write_and_tell(written).is_ok());
            if self.connections.iter().any(|connection| connection.holds) {
                self.alone_since = Instant::now();
            }
            let alone_for_long = self.linger.is_some_and(|linger| self.alone_since.elapsed() >= linger);
            self.ending |= alone_for_long || self.terminated.load(Ordering::Relaxed);
        }
        self.kill();
        for connection in &mut self.connections {
            let _ = connection.write(); // A last word, if it is heard.
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Ready>, Box<dyn Error>> {
        let mut what = vec![Ready::Signals, Ready::Listener];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        for connection in &self.connections {
            what.push(Ready::Read(connection.serial));
            fds.push(PollFd::new(connection.stream(), PollFlags::IN));
            if connection.wants_to_write() {
                what.push(Ready::Write);
                fds.push(PollFd::new(connection.stream(), PollFlags::OUT));
            }
        }
        if let Some(agent) = &self.agent {
            if let Some(stdout) = agent.stdout().filter(|_| !self.spool.is_full()) {
                what.push(Ready::Stdout);
                fds.push(PollFd::new(stdout, PollFlags::IN));
            }
            if let Some(stderr) = agent.stderr() {
                what.push(Ready::Stderr);
                fds.push(PollFd::new(stderr, PollFlags::IN));
            }
            if let Some(stdin) = agent.stdin_wanted() {
                what.push(Ready::Stdin);
                fds.push(PollFd::new(stdin, PollFlags::OUT));
            }
        }
        let lingers = self.linger.map(|linger| linger.saturating_sub(self.alone_since.elapsed()));
        let retries = self.spool.is_stuck().then_some(DISK_RETRY);
        let timeout = lingers.into_iter().chain(retries).min().map(|wait| {
            let wait = wait.max(Duration::from_millis(1)).min(Duration::from_hours(1));
            Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>();
        Ok(what.into_iter().zip(ready).filter_map(|(what, ready)| ready.then_some(what)).collect())
    }

    fn serve(&mut self, ready: Ready) {
        match ready {
            Ready::Signals => {
                let mut buffer = [0; 256];
                while self.signals.read(&mut buffer).is_ok_and(|read| read > 0) {}
                self.reap();
            }
            Ready::Listener => self.accept(),
            Ready::Read(serial) => self.hear(serial),
            // Everything is written at the end of each turn.
            Ready::Write => (),
            Ready::Stdout => {
                if let Some(agent) = &mut self.agent {
                    agent.read_stdout(&mut self.spool);
                }
            }
            Ready::Stderr => {
                if let Some(agent) = &mut self.agent {
                    agent.read_stderr();
                }
            }
            Ready::Stdin => self.write_stdin(),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // Who holds the shim stays; who only came goes for who comes later.
            if self.connections.len() >= CONNECTIONS
                && let Some(at) = self.connections.iter().position(|connection| !connection.holds)
            {
                self.connections.remove(at);
            }
            self.serial += 1;
            if let Ok(connection) = Connection::new(stream, self.serial) {
                self.connections.push(connection);
            }
        }
    }

    fn hear(&mut self, serial: u64) {
        let Some(connection) = self.connection(serial) else { return };
        let lines = match connection.read() {
            Ok(lines) => lines,
            Err(error) if is_nothing(&error) => return,
            Err(_) => {
                self.connections.retain(|connection| connection.serial != serial);
                return;
            }
        };
        for line in lines {
            match line {
                Ok(Request { tag, command }) => {
                    if let Some(outcome) = self.obey((serial, tag), command) {
                        self.reply((serial, tag), outcome);
                    }
                }
                Err(refusal) => self.reply((serial, 0), Outcome::Error(refusal)),
            }
        }
    }

    /// Does what is asked; `None`: the answer comes later.
    fn obey(&mut self, asker: Asker, command: Command) -> Option<Outcome> {
        if let Command::Hello { epoch } = command {
            return Some(self.hello(asker.0, epoch));
        }
        if !self.connection(asker.0).is_some_and(|connection| connection.holds) {
            return Some(refuse(RefusalCode::Stale, "say hello first, with an epoch that is not old"));
        }
        match command {
            Command::Hello { .. } => None,
            Command::Start(start) => Some(self.start(start)),
            Command::Write { id, data } => self.write(asker, id, data),
            Command::Signal { signal: Signal::Interrupt } => {
                self.agent.iter().for_each(Agent::interrupt);
                Some(Outcome::Ok(None))
            }
            Command::Signal { signal: Signal::Kill } => Some(if self.kill() {
                Outcome::Ok(None)
            } else {
                refuse(RefusalCode::Alive, "something could not be killed")
            }),
            Command::Ack { record } => {
                self.spool.acknowledge(record);
                Some(Outcome::Ok(None))
            }
            Command::Status => Some(Outcome::Ok(Some(self.status()))),
            Command::End => {
                self.ending = true;
                Some(Outcome::Ok(None))
            }
        }
    }

    fn hello(&mut self, serial: u64, epoch: i64) -> Outcome {
        if self.epoch.is_some_and(|held| epoch < held) {
            return refuse(RefusalCode::Stale, "a later gateway holds this agent");
        }
        self.epoch = Some(epoch);
        self.connections.retain(|connection| connection.serial == serial || !connection.holds);
        if let Some(connection) = self.connection(serial) {
            connection.holds = true;
        }
        Outcome::Ok(None)
    }

    fn start(&mut self, mut start: Start) -> Outcome {
        if self.ids.has(&start.id) {
            return Outcome::Ok(None);
        }
        if self.agent.is_some() {
            return refuse(RefusalCode::Running, "an agent runs already");
        }
        if let Err(error) = self.connect(&mut start) {
            return refuse(RefusalCode::StartFailed, &format!("the relay to the gateway's proxy: {error}"));
        }
        match Agent::start(&start, self.runs + 1) {
            Ok(agent) => {
                self.runs += 1;
                self.agent = Some(agent);
                self.ids.insert(&start.id);
                Outcome::Ok(None)
            }
            Err(error) => {
                let program = start.argv.first().map_or("", String::as_str);
                refuse(RefusalCode::StartFailed, &format!("`{program}`: {error}"))
            }
        }
    }

    /// Connects the box as the agent needs it, and has the agent know the address.
    fn connect(&mut self, start: &mut Start) -> std::io::Result<()> {
        let Some(proxy) = &start.proxy else { return Ok(()) };
        let relay = match self.relay.take() {
            Some(relay) => relay,
            None => Relay::start(proxy, self.gateway_wait)?,
        };
        self.relay.insert(relay).fill(start);
        Ok(())
    }

    fn write(&mut self, asker: Asker, id: String, data: String) -> Option<Outcome> {
        if self.ids.has(&id) {
            return Some(Outcome::Ok(None));
        }
        let mut pending = self.agent.iter_mut().flat_map(|agent| &mut agent.writes);
        if let Some(write) = pending.find(|write| write.id == id) {
            write.askers.push(asker);
            return None;
        }
        let Some(agent) = self.agent.as_mut().filter(|agent| agent.hears()) else {
            return Some(refuse(RefusalCode::Gone, "no agent listens"));
        };
        if !agent.queue(id, data, asker) {
            return Some(refuse(RefusalCode::Full, "the agent does not read"));
        }
        self.write_stdin();
        None
    }

    fn write_stdin(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let done = agent.write();
        let refused = if agent.hears() { VecDeque::new() } else { std::mem::take(&mut agent.writes) };
        for write in done {
            // Not before: a repeat of what the agent never got must not be told that it did.
            self.ids.insert(&write.id);
            self.reply_all(write.askers, &Outcome::Ok(None));
        }
        for write in refused {
            self.reply_all(write.askers, &refuse(RefusalCode::Gone, "the agent has closed its input"));
        }
    }

    /// Takes in who has ended. The agent's end takes along all that it started.
    fn reap(&mut self) {
        let agent = &mut self.agent;
        reap(|pid, status| note(agent, pid, status));
        if self.agent.as_ref().is_some_and(|agent| agent.status.is_some()) {
            self.kill();
        }
    }

    /// Kills everything. If an agent ran and is gone, its end is recorded. `false`: something lives on.
    fn kill(&mut self) -> bool {
        let agent = &mut self.agent;
        let killed = kill_all(|pid, status| note(agent, pid, status));
        if let Some(agent) = self.agent.take_if(|agent| killed || agent.status.is_some()) {
            for write in agent.finish(&mut self.spool) {
                self.reply_all(write.askers, &refuse(RefusalCode::Gone, "the agent ended"));
            }
        }
        killed
    }

    fn status(&self) -> Status {
        let agent = self.agent.as_ref().map(|agent| agent.pid.as_raw_pid());
        Status {
            running: agent.is_some(),
            run: self.runs,
            stragglers: descendants().iter().any(|pid| Some(*pid) != agent),
            last_record: self.spool.written(),
            spooled_bytes: self.spool.bytes(),
        }
    }

    fn reply_all(&mut self, askers: Vec<Asker>, outcome: &Outcome) {
        for asker in askers {
            self.reply(asker, outcome.clone());
        }
    }

    fn reply(&mut self, (serial, tag): Asker, outcome: Outcome) {
        if let Some(connection) = self.connection(serial) {
            connection.reply(tag, outcome);
        }
    }

    fn connection(&mut self, serial: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.serial == serial)
    }
}

fn note(agent: &mut Option<Agent>, pid: rustix::process::Pid, status: rustix::process::WaitStatus) {
    if let Some(agent) = agent.as_mut().filter(|agent| agent.pid == pid) {
        agent.status = Some(status);
    }
}

fn refuse(code: RefusalCode, message: &str) -> Outcome {
    Outcome::Error(Refusal { code, message: message.to_owned() })
}
