//! A TCP proxy that can do to a connection what networks do: swallow, cut, hold back. Its address stays when what is
//! behind it moves.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

/// How a client of Postgres asks for a commit: a simple query of this text.
const COMMIT: &[u8] = b"COMMIT\0";

/// The proxy. Everything ends with it.
pub(crate) struct Proxy {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    /// While it is true nothing passes, and nobody is told.
    swallowing: watch::Sender<bool>,
    /// Raised to end all links that there are.
    generation: watch::Sender<u64>,
    /// Raised to have them swallow everything from then on.
    forsaken: watch::Sender<u64>,
    trap: Mutex<Option<(Moment, oneshot::Sender<Held>)>>,
    /// Whether the next thing a server says is cut off in the middle.
    cutting: AtomicBool,
}

/// At which side of a commit the trap snaps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// The database has not been asked to commit.
    Before,
    /// It has committed, and its reply is on the way.
    After,
}

/// A commit, or the reply to it, that is on the way for as long as this lives. Dropped, its connection is reset.
pub(crate) struct Held(oneshot::Sender<()>);

impl Held {
    /// Lets it arrive after all.
    pub(crate) fn release(self) {
        let _ = self.0.send(()); // The link may be gone.
    }
}

impl Proxy {
    /// One that leads nowhere yet: who connects is cut off.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(None),
            swallowing: watch::Sender::new(false),
            generation: watch::Sender::new(0),
            forsaken: watch::Sender::new(0),
            trap: Mutex::new(None),
            cutting: AtomicBool::new(false),
        });
        let links = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tasks.spawn(link(Arc::clone(&links), client));
                while tasks.try_join_next().is_some() {}
            }
        });
        Self { address, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// Where new connections lead from now on.
    pub(crate) fn lead_to(&self, upstream: Option<SocketAddr>) {
        *self.shared.upstream.lock().unwrap() = upstream;
    }

    /// Whether everything is swallowed without a word, on old connections and new ones.
    pub(crate) fn swallow(&self, swallow: bool) {
        self.shared.swallowing.send_replace(swallow);
    }

    /// Resets every connection.
    pub(crate) fn reset_all(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Swallows everything on the connections that there are, without a word and for good; new ones pass.
    pub(crate) fn forsake(&self) {
        self.shared.forsaken.send_modify(|forsaken| *forsaken += 1);
    }

    /// Lets the next thing that a server says end in its middle, and resets that connection.
    pub(crate) fn cut_next(&self) {
        self.shared.cutting.store(true, Ordering::Relaxed);
    }

    /// Holds the next commit that comes by. Returns when it is held.
    pub(crate) async fn hold_commit(&self, moment: Moment) -> Held {
        let (held, caught) = oneshot::channel();
        *self.shared.trap.lock().unwrap() = Some((moment, held));
        tokio::time::timeout(crate::world::PATIENCE, caught).await.expect("a commit in time").unwrap()
    }
}

/// One connection, until either side ends it or it is reset.
async fn link(shared: Arc<Shared>, mut client: TcpStream) {
    let (mut generation, mut forsaken) = (shared.generation.subscribe(), shared.forsaken.subscribe());
    let upstream = *shared.upstream.lock().unwrap();
    let Some(upstream) = upstream else { return reset(client) };
    pass(&shared).await;
    let Ok(mut server) = TcpStream::connect(upstream).await else { return reset(client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // Only speed.
    let was_reset = tokio::select! {
        result = forward(&shared, &mut client, &mut server) => result.is_err(),
        _ = generation.changed() => true,
        // Open on both sides, until the proxy ends.
        _ = forsaken.changed() => std::future::pending().await,
    };
    if was_reset {
        reset(client);
        reset(server);
    }
}

/// Carries bytes both ways. `Err`: the connection is to be reset.
async fn forward(shared: &Shared, client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (from_client, count) = tokio::select! {
            count = client.read(&mut up) => (true, count?),
            count = server.read(&mut down) => (false, count?),
        };
        pass(shared).await;
        match (from_client, count) {
            (true, 0) => return server.shutdown().await,
            (false, 0) => return client.shutdown().await,
            (false, count) if shared.cutting.swap(false, Ordering::Relaxed) => {
                client.write_all(&down[..count.div_ceil(2)]).await?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            (false, count) => client.write_all(&down[..count]).await?,
            (true, count) => {
                let asked = &up[..count];
                let commits = asked.windows(COMMIT.len()).any(|window| window == COMMIT);
                let trap = if commits { shared.trap.lock().unwrap().take() } else { None };
                if let Some((Moment::Before, held)) = trap {
                    hold(held).await?;
                    server.write_all(asked).await?;
                } else if let Some((Moment::After, held)) = trap {
                    server.write_all(asked).await?;
                    let count = server.read(&mut down).await?;
                    hold(held).await?;
                    client.write_all(&down[..count]).await?;
                } else {
                    server.write_all(asked).await?;
                }
            }
        }
    }
}

/// Tells who set the trap, and waits for what becomes of it.
async fn hold(held: oneshot::Sender<Held>) -> std::io::Result<()> {
    let (release, released) = oneshot::channel();
    let _ = held.send(Held(release)); // Nobody waits: let go below.
    released.await.map_err(|_| std::io::ErrorKind::ConnectionReset.into())
}

/// Waits while everything is swallowed.
async fn pass(shared: &Shared) {
    // The sender lives as long as `shared`.
    let _ = shared.swallowing.subscribe().wait_for(|swallowing| !swallowing).await;
}

/// RST, not FIN.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger(); // It may be gone already.
    drop(stream);
}
