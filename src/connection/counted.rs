//! A TCP listener whose sockets count the bytes they take, so that "no progress" can be told from "slow".

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// How long to wait when no socket can be accepted (out of file descriptors): no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How many bytes the kernel takes before it sends those it has. A client that reads this much within
/// `limits.stall_seconds` is seen to make progress.
const UNSENT: u32 = 16 << 10;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// What its socket has taken.
    pub progress: Arc<Progress>,
}

/// What a socket has taken of what was written to it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    ending: AtomicBool,
}

impl Progress {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What is written from now on is the last: the kernel is to take all that it has room for, so that a peer
    /// that reads at last finds it there, and the close behind it.
    pub fn is_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// Accepts sockets that count.
pub struct CountedListener(pub TcpListener);

/// A socket that counts the bytes it takes.
pub struct Counted {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl Listener for CountedListener {
    type Io = Counted;
    type Addr = Peer;

    async fn accept(&mut self) -> (Counted, Peer) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // A socket that is gone already fails later.
                    let _ = prepare(&stream);
                    let progress = Arc::<Progress>::default();
                    return (Counted { stream, progress: Arc::clone(&progress) }, Peer { address, progress });
                }
                Err(error) if is_of_one_socket(&error) => (),
                Err(error) => {
                    warn!(%error, "No connection can be accepted now: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.0.local_addr()?, progress: Arc::default() })
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

impl Connected<IncomingStream<'_, CountedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, CountedListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.make_room();
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Counted {
    /// At the end, once.
    fn make_room(&self) {
        if self.progress.ending.swap(false, Ordering::Relaxed) {
            // A socket that is gone already fails by itself.
            let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(u32::MAX);
        }
    }

    fn count(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.progress.bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}
