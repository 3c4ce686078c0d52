//! A client's end of a connection, read as fast as the test says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How often a client that doesn't read freely looks at its socket.
const TICK: Duration = Duration::from_millis(250);

/// How fast: shared, so that it can be changed under a connection.
#[derive(Clone)]
pub(crate) struct Pace(Arc<AtomicUsize>);

impl Pace {
    /// As fast as it comes.
    pub(crate) fn free() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// So many bytes a second from now on; 0: none.
    pub(crate) fn set(&self, bytes_per_second: usize) {
        self.0.store(bytes_per_second, Ordering::Relaxed);
    }

    /// How much may be read a second; `None`: whatever is there.
    fn rate(&self) -> Option<usize> {
        let rate = self.0.load(Ordering::Relaxed);
        (rate != usize::MAX).then_some(rate)
    }
}

/// The socket.
pub(crate) struct Paced {
    stream: TcpStream,
    pace: Pace,
    tick: Pin<Box<Sleep>>,
    /// When it was read last: a busy machine makes ticks late, and a late one counts for more.
    read_at: Instant,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, pace: Pace) -> Self {
        Self { stream, pace, tick: Box::pin(sleep(Duration::ZERO)), read_at: Instant::now() }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(rate) = self.pace.rate() else { return Pin::new(&mut self.stream).poll_read(context, buffer) };
            ready!(self.tick.as_mut().poll(context));
            let now = Instant::now();
            self.tick.as_mut().reset(now + TICK);
            let late = now.duration_since(self.read_at).min(Duration::from_secs(5));
            self.read_at = now;
            let most = rate * usize::try_from(late.as_millis()).unwrap() / 1_000;
            if most > 0 {
                let mut part = buffer.take(most);
                let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
                let count = part.filled().len();
                ready!(read)?;
                // Initialised by the read above.
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
