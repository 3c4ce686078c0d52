//! A socket that counts the bytes it takes, so that "no progress" can be told from "slow", and that gives up
//! on a peer who takes none.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// The other end of a socket.
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
    watched: AtomicBool,
    ending: AtomicBool,
}

impl Progress {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Somebody watches it from now on, and can tell the peer why it ends: the socket by itself does not.
    pub fn is_watched_elsewhere(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// What is written from now on is the last: the kernel is to take all that it has room for, so that a peer
    /// that reads at last finds it there, and the close behind it.
    pub fn is_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// A socket that counts.
pub struct Counted {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// How long it may take nothing.
    stall: Duration,
    /// Runs while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Its place among the open sockets.
    _place: OwnedSemaphorePermit,
}

impl Counted {
    /// A socket that fails when it has taken nothing of what it is sent for `stall`.
    pub fn new(stream: TcpStream, stall: Duration, place: OwnedSemaphorePermit) -> Self {
        Self { stream, progress: Arc::default(), stall, stalled: None, _place: place }
    }

    /// What it takes, for others to look at.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    fn count(&mut self, context: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(result) => {
                self.stalled = None;
                if let Ok(bytes) = &result {
                    self.progress.bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
                }
                Poll::Ready(result)
            }
            Poll::Pending if self.progress.watched.load(Ordering::Relaxed) => Poll::Pending,
            Poll::Pending => {
                let stall = self.stall;
                ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(stall))).as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
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
        self.count(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(context, result)
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
}
