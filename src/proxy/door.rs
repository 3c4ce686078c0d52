//! The gateway's end of a box's relay: connections in, each request to where it belongs.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::{Shutdown, shutdown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::answer::Body;
use super::inbox::Inbox;
use super::{Dial, Route, egress, forward};
use crate::metrics::Metrics;

/// Connections of a box at a time; more wait in the socket's queue. As many as its relay has.
const CONNECTIONS: usize = 64;
/// Requests of a box to its model at a time.
const REQUESTS: usize = 16;
/// Connections of a box to granted hosts at a time.
const TUNNELS: usize = 32;
/// How long a connection may wait for its next request to be there.
const NEXT_REQUEST: Duration = Duration::from_mins(5);
/// How long a connection that has just come may take to ask when its door is left meanwhile.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How long a connection takes requests. The answer that is under way then goes on, but not for longer than that again:
/// its agent may not read it.
pub(super) const LIFE: Duration = Duration::from_hours(2);
/// After an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the requests of one box need.
pub(super) struct Door {
    pub(super) route: Arc<Route>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) places: Allowance,
    /// [`LIFE`].
    pub(super) life: Duration,
    /// Nobody else comes in; who is in gets the answer that it waits for.
    pub(super) leaving: CancellationToken,
    /// Ends what has become more than a request.
    pub(super) closing: CancellationToken,
}

/// How much a box may do at a time.
pub(super) struct Allowance {
    pub(super) requests: Arc<Semaphore>,
    pub(super) tunnels: Arc<Semaphore>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { requests: Arc::new(Semaphore::new(REQUESTS)), tunnels: Arc::new(Semaphore::new(TUNNELS)) }
    }
}

/// Serves until it is dropped, or its door is left and the last request that was under way is answered.
pub(super) async fn serve(listener: UnixListener, door: Arc<Door>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = door.leaving.cancelled() => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&door)))),
                Err(error) => {
                    warn!(%error, "A connection of an agent can't be accepted: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => (),
        }
    }
    // The next request waits, in the box, for whoever listens next. Those that came before are answered.
    for stream in close(listener) {
        connections.spawn(connection(stream, Arc::clone(&door)));
    }
    while connections.join_next().await.is_some() {}
}

/// Lets nobody else in; gives who had come and not been let in. The socket's file stays, as that of a gateway that died
/// does: another gateway may have put its own in the place.
fn close(listener: UnixListener) -> Vec<UnixStream> {
    let mut came = Vec::new();
    let accept_all = || -> io::Result<()> {
        shutdown(&listener, Shutdown::Read)?;
        let listener = listener.into_std()?;
        loop {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            came.push(UnixStream::from_std(stream)?);
        }
    };
    match accept_all() {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            warn!(%error, "A connection of an agent may have been lost as its way was left: {error}");
        }
        Ok(()) | Err(_) => (),
    }
    came
}

async fn connection(stream: UnixStream, door: Arc<Door>) {
    let (leaving, life, asked) = (door.leaving.clone(), door.life, CancellationToken::new());
    let asks = asked.clone();
    let service = service_fn(move |request| {
        asks.cancel();
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(answer(&door, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let served = async {
        tokio::select! {
            served = serving.as_mut() => return served,
            () = leaving.cancelled() => (),
            () = sleep(life) => (),
        }
        // Who has never asked has just come, and would be hung up on.
        tokio::select! {
            served = serving.as_mut() => return served,
            () = asked.cancelled() => (),
            () = sleep(FIRST_REQUEST) => (),
        }
        serving.as_mut().graceful_shutdown();
        serving.await
    };
    match timeout(life * 2, served).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => debug!(%error, "A connection of an agent broke"),
        Err(_) => debug!("A connection of an agent has lived long enough"),
    }
}

async fn answer(door: &Door, request: Request<Incoming>) -> Response<Body> {
    if *request.method() == Method::CONNECT {
        egress::connect(door, request).await
    } else {
        forward::forward(door, request).await
    }
}

#[cfg(test)]
mod tests;
