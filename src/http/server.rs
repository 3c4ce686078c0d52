//! A listener at work: accepts sockets and serves HTTP/1.1 on them. Both doors are one each.
//!
//! A loop of our own and not `axum::serve`, which has patience with everybody. Here every socket has one of a
//! bounded number of places, and loses it when it does not say in time what it wants, when it has nothing to
//! ask while others wait for a place, or when it takes nothing of what it is sent. A socket that was upgraded
//! keeps its place, but its time is `connection`'s.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{info, trace, warn};

use crate::config::LimitsConfig;
use crate::connection::{Counted, Peer};

/// How long to wait when no socket can be accepted (out of file descriptors): no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long who waits for a place waits before those who have nothing to ask give up theirs.
const CROWDED: Duration = Duration::from_millis(100);
/// How many bytes the kernel takes before it sends those it has. A client that reads this much within
/// `limits.stall_seconds` is seen to make progress.
const UNSENT: u32 = 16 << 10;
/// Bytes of a request's head, and what is buffered of a socket at most.
const BUFFER: usize = 64 << 10;

/// How many sockets a listener has, and its patience with them.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// How many may be open. Who comes after that waits.
    pub sockets: usize,
    /// How long a new socket may take over its first request's head.
    pub head: Duration,
    /// How long a socket may take over the next one, and be idle before it.
    pub keep_alive: Duration,
    /// How long a socket may take nothing of what it is sent.
    pub stall: Duration,
}

impl SocketLimits {
    /// A listener's with room for so many sockets.
    pub fn new(sockets: usize, limits: &LimitsConfig) -> Self {
        Self {
            sockets,
            head: Duration::from_secs(limits.head_seconds),
            keep_alive: Duration::from_secs(limits.keep_alive_seconds),
            stall: Duration::from_secs(limits.stall_seconds),
        }
    }
}

/// A listener at work. Dropped, it works on.
pub struct Server {
    limits: SocketLimits,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `routes` on whatever comes to `listener`.
    pub fn start(listener: TcpListener, routes: Router, limits: SocketLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.sockets.min(Semaphore::MAX_PERMITS)));
        let stop = CancellationToken::new();
        let door =
            Door { listener, routes, limits, places: Arc::clone(&places), crowded: Arc::default(), stop: stop.clone() };
        Self { limits, places, stop, task: tokio::spawn(door.serve()) }
    }

    /// How many sockets are open, upgraded ones included.
    pub fn open(&self) -> usize {
        self.limits.sockets.saturating_sub(self.places.available_permits())
    }

    /// Accepts nobody any more, and ends idle sockets; requests that are under way are answered.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until everything is answered after [`Server::stop`]. Does not wait for upgraded sockets.
    pub async fn stopped(&mut self) {
        let _ = (&mut self.task).await; // However it ended, it has.
    }

    /// Ends all sockets that were not upgraded, whatever they are at.
    pub fn cut(&self) {
        self.task.abort();
    }
}

/// What a listener works with.
struct Door {
    listener: TcpListener,
    routes: Router,
    limits: SocketLimits,
    places: Arc<Semaphore>,
    /// Tells those who have nothing to ask that others wait for their places.
    crowded: Arc<Notify>,
    stop: CancellationToken,
}

impl Door {
    async fn serve(self) {
        // Dropped with this future, and all of them end.
        let mut sockets = JoinSet::new();
        loop {
            let (stream, place) = tokio::select! {
                next = self.next() => next,
                () = self.stop.cancelled() => break,
            };
            while sockets.try_join_next().is_some() {}
            self.admit(stream, place, &mut sockets);
        }
        drop(self.listener);
        while sockets.join_next().await.is_some() {}
    }

    /// The next socket, with its place.
    async fn next(&self) -> (TcpStream, OwnedSemaphorePermit) {
        let stream = self.accept().await;
        loop {
            if let Ok(Ok(place)) = timeout(CROWDED, Arc::clone(&self.places).acquire_owned()).await {
                return (stream, place);
            }
            self.crowded.notify_waiters();
        }
    }

    async fn accept(&self) -> TcpStream {
        let mut told = false;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if told {
                        info!("Connections are accepted again");
                    }
                    return stream;
                }
                Err(error) if is_of_one_socket(&error) => (),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(%error, "No connection can be accepted now: {error}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, place: OwnedSemaphorePermit, sockets: &mut JoinSet<()>) {
        // A socket that is gone already fails later, or here.
        let _ = prepare(&stream);
        let Ok(address) = stream.peer_addr() else { return };
        trace!(%address, "A socket from {address} is open");
        let socket = Counted::new(stream, self.limits.stall, place);
        let peer = Peer { address, progress: socket.progress() };
        let (crowded, stop) = (Arc::clone(&self.crowded), self.stop.clone());
        sockets.spawn(serve(socket, peer, self.routes.clone(), self.limits, crowded, stop));
    }
}

/// Tokens are small and wanted now. What the peer has no room for waits here and not in the kernel, which
/// would take megabytes of it, and then nothing for minutes from a peer that reads slowly.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

/// Whether only the socket at hand failed, not the listener.
fn is_of_one_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one socket until it ends or is upgraded.
async fn serve(
    socket: Counted,
    peer: Peer,
    routes: Router,
    limits: SocketLimits,
    crowded: Arc<Notify>,
    stop: CancellationToken,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let asked = Arc::clone(&asked);
        service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            let answer = routes.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        })
    };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // From when it could be sent, so it bounds idleness too.
            .header_read_timeout(limits.keep_alive)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
    );
    let mut too_long = pin!(sleep(limits.head));
    let (mut heard, mut stopping) = (false, false);
    loop {
        tokio::select! {
            // First, whoever else is late: what has come is read before anybody's time is up.
            biased;
            _ = connection.as_mut() => return, // However it ended: nobody is left to tell.
            () = &mut too_long, if !heard => {
                heard = asked.load(Ordering::Relaxed);
                if !heard {
                    return;
                }
            }
            // Ends it at once if nothing of a request has come, else after the answer.
            () = crowded.notified() => connection.as_mut().graceful_shutdown(),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
