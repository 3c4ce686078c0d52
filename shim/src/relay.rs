//! The only way out of a box without a network: a port of its loopback, relayed byte by byte to a socket of
//! the gateway.
//!
//! A thread with a `poll` of its own, so that the agent's words and its calls don't hold up each other. The
//! gateway may be away, because it is being restarted: a connection waits for it for a while.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use streamgate_shim::control::{PROXY, Proxy, Start};

use crate::connection::is_nothing;

/// Connections at a time. More wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// What is read ahead of a connection, each way. Full: whoever writes waits.
const BUFFER_BYTES: usize = 32 << 10;
/// How often a gateway that is away is looked for.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// The thread calls nothing deep.
const STACK_BYTES: usize = 128 << 10;

/// A relay at work. It ends with the shim.
pub(crate) struct Relay {
    port: u16,
}

impl Relay {
    /// Listens, and relays from now on.
    ///
    /// A connection waits for `patience` for a gateway that is away.
    pub(crate) fn start(proxy: &Proxy, patience: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, proxy.port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let work = Work { listener, gateway: Gateway::at(Path::new(&proxy.socket))?, patience, pairs: Vec::new() };
        thread::Builder::new().name("relay".to_owned()).stack_size(STACK_BYTES).spawn(move || work.run())?;
        Ok(Self { port })
    }

    /// Puts its address where arguments and environment of an agent leave room for it.
    pub(crate) fn fill(&self, start: &mut Start) {
        let url = format!("http://127.0.0.1:{}", self.port);
        for text in start.argv.iter_mut().chain(start.env.iter_mut().map(|(_, value)| value)) {
            if text.contains(PROXY) {
                *text = text.replace(PROXY, &url);
            }
        }
    }
}

/// Where the gateway listens, if it does.
struct Gateway {
    address: SocketAddrUnix,
    /// What `address` goes through.
    _directory: OwnedFd,
}

impl Gateway {
    fn at(socket: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no socket is named"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, directory, flags, Mode::empty())?;
        // By a short name: addresses are at most 108 bytes long (unix(7)).
        let address = SocketAddrUnix::new(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))?;
        Ok(Self { address, _directory: directory })
    }

    /// At once or not at all, also while its queue is full.
    fn connect(&self) -> io::Result<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &self.address)?;
        Ok(UnixStream::from(socket))
    }
}

/// The thread's own.
struct Work {
    listener: TcpListener,
    gateway: Gateway,
    patience: Duration,
    pairs: Vec<Pair>,
}

impl Work {
    fn run(mut self) {
        loop {
            if self.wait().is_err() {
                thread::sleep(RETRY_AFTER); // Short of memory, if anything: it may pass.
            }
            self.accept();
            let (gateway, patience) = (&self.gateway, self.patience);
            self.pairs.retain_mut(|pair| pair.go_on(gateway, patience));
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = Vec::new();
        if self.pairs.len() < CONNECTIONS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        self.pairs.iter().for_each(|pair| pair.listen(&mut fds));
        let retries = self.pairs.iter().any(|pair| pair.gateway.is_none());
        let retry = Timespec { tv_sec: 0, tv_nsec: i64::from(RETRY_AFTER.subsec_nanos()) };
        match poll(&mut fds, retries.then_some(&retry)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self) {
        while self.pairs.len() < CONNECTIONS {
            match self.listener.accept() {
                Ok((client, _)) => self.pairs.extend(Pair::new(client)),
                Err(error) if is_nothing(&error) => return,
                // Too many open files, as a rule: not again at once.
                Err(_) => return thread::sleep(RETRY_AFTER),
            }
        }
    }
}

/// A connection of the agent's, and the gateway's end of it.
struct Pair {
    client: TcpStream,
    gateway: Option<UnixStream>,
    since: Instant,
    out: Flow,
    back: Flow,
}

impl Pair {
    /// `None`: the client is gone already.
    fn new(client: TcpStream) -> Option<Self> {
        client.set_nonblocking(true).ok()?;
        client.set_nodelay(true).ok()?;
        Some(Self { client, gateway: None, since: Instant::now(), out: Flow::default(), back: Flow::default() })
    }

    /// What it waits for. Nobody listens to what is not wanted: `poll` tells of a hang-up again and again.
    fn listen<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let Some(gateway) = &self.gateway else { return };
        let mut want = |fd: PollFd<'a>, wanted: bool| {
            if wanted {
                fds.push(fd);
            }
        };
        let interest = |reads: bool, writes: bool| {
            let read = if reads { PollFlags::IN } else { PollFlags::empty() };
            read | if writes { PollFlags::OUT } else { PollFlags::empty() }
        };
        let client = interest(self.out.wants(), self.back.holds());
        want(PollFd::from_borrowed_fd(self.client.as_fd(), client), !client.is_empty());
        let gateway_wants = interest(self.back.wants(), self.out.holds());
        want(PollFd::from_borrowed_fd(gateway.as_fd(), gateway_wants), !gateway_wants.is_empty());
    }

    /// Moves what can be moved; `false`: it is over.
    fn go_on(&mut self, gateway: &Gateway, patience: Duration) -> bool {
        if self.gateway.is_none() {
            self.gateway = gateway.connect().ok();
        }
        let Some(gateway) = &self.gateway else {
            // Who has hung up meanwhile takes no place from who still waits.
            return self.since.elapsed() < patience && !has_hung_up(&self.client);
        };
        let (mut client, mut there) = (&self.client, gateway);
        let moved = self
            .out
            .go_on(&mut client, &mut there, || gateway.shutdown(Shutdown::Write))
            .and_then(|()| self.back.go_on(&mut there, &mut client, || self.client.shutdown(Shutdown::Write)));
        moved.is_ok() && !(self.out.over && self.back.over)
    }
}

/// One direction.
#[derive(Default)]
struct Flow {
    bytes: Vec<u8>,
    written: usize,
    /// Nothing more can be read …
    ended: bool,
    /// … and that has been passed on.
    over: bool,
}

impl Flow {
    fn holds(&self) -> bool {
        self.written < self.bytes.len()
    }

    fn wants(&self) -> bool {
        !self.ended && !self.holds()
    }

    /// One read and one write, at most; an error is the end of both directions.
    fn go_on(
        &mut self,
        from: &mut impl Read,
        to: &mut impl Write,
        shutdown: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.wants() {
            self.bytes.resize(BUFFER_BYTES, 0);
            let read = or_nothing(from.read(&mut self.bytes));
            self.written = 0;
            self.bytes.truncate(read.as_ref().ok().copied().flatten().unwrap_or(0));
            self.ended = read? == Some(0);
        }
        if self.holds() {
            self.written += or_nothing(to.write(&self.bytes[self.written..]))?.unwrap_or(0);
        }
        if self.ended && !self.holds() && !self.over {
            self.over = true;
            shutdown()?;
        }
        Ok(())
    }
}

/// Whether nothing more comes from it. Who only says no more is taken for gone too, as the gateway has it.
fn has_hung_up(client: &TcpStream) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fd = [PollFd::new(client, PollFlags::RDHUP)];
    poll(&mut fd, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

fn or_nothing(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
