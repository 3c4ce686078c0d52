//! Request bodies have to come at some pace: whoever sends one byte now and then holds nothing for long.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::try_unfold;
use tokio::time::{Instant, timeout_at};

use super::Gateway;

/// Bytes per second that a body has to come at, beyond the time that everybody gets.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;

/// Breaks off the bodies of requests that come too slowly. Their handlers say what they say of any such.
pub(super) async fn keep_pace(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let patience = Duration::from_secs(gateway.limits.stall_seconds);
    next.run(request.map(|body| paced(body, patience))).await
}

/// A body that breaks off `patience` after it was first asked for, or later by as much as has come.
fn paced(body: Body, patience: Duration) -> Body {
    let start = (body.into_data_stream(), None::<Instant>, 0_u64);
    Body::from_stream(try_unfold(start, move |(mut parts, began, received)| async move {
        let began = began.unwrap_or_else(Instant::now);
        let earned = Duration::from_millis(received.saturating_mul(1_000) / LEAST_BYTES_PER_SECOND);
        match timeout_at(began + patience + earned, parts.next()).await {
            Ok(Some(Ok(part))) => {
                let received = received.saturating_add(part.len() as u64);
                Ok(Some((part, (parts, Some(began), received))))
            }
            Ok(Some(Err(error))) => Err(error),
            Ok(None) => Ok(None),
            Err(_) => Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use futures_util::stream;
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    /// What comes of a body of parts of so many bytes, one every 20 ms: all of them, or none.
    async fn comes(parts: usize, bytes: usize) -> (Option<usize>, Duration) {
        let began = Instant::now();
        let parts = stream::iter(0..parts).then(move |_| async move {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, io::Error>(vec![b'x'; bytes])
        });
        let body = paced(Body::from_stream(parts), PATIENCE);
        let length = to_bytes(body, usize::MAX).await.ok().map(|bytes| bytes.len());
        (length, began.elapsed())
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_and_one_that_makes_progress_is_not() {
        let (length, took) = comes(usize::MAX, 1).await;
        assert!(length.is_none() && took >= PATIENCE, "{took:?}");
        // Three times the least pace, for longer than the patience.
        let (length, took) = comes(75, 1_024).await;
        assert!(length == Some(75 * 1_024) && took > PATIENCE, "{took:?}");
    }
}
