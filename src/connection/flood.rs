//! How many frames a client may send: a rate with a burst, and an end to patience.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::config::LimitsConfig;

/// A pause this long between two refusals starts the patience anew.
const CALM: Duration = Duration::from_secs(1);

/// Counts one connection's frames.
pub(super) struct Flood {
    frames: DefaultDirectRateLimiter,
    patience: Duration,
    /// When the refusals at hand began, and the last one.
    refusing: Option<(Instant, Instant)>,
}

/// What to do with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it.
    Take,
    /// Refuse it; it would be taken after this long.
    Refuse(Duration),
    /// Close the connection.
    Close,
}

impl Flood {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota =
            Quota::per_second(at_least_one(limits.frames_per_second)).allow_burst(at_least_one(limits.frames_burst));
        Self { frames: RateLimiter::direct(quota), patience: Duration::from_secs(limits.flood_seconds), refusing: None }
    }

    /// One more frame.
    pub(super) fn frame(&mut self) -> Verdict {
        let Err(early) = self.frames.check() else { return Verdict::Take };
        let now = Instant::now();
        let since = match self.refusing {
            Some((since, last)) if now - last < CALM => since,
            _ => now,
        };
        self.refusing = Some((since, now));
        if now - since >= self.patience {
            Verdict::Close
        } else {
            Verdict::Refuse(early.wait_time_from(self.frames.clock().now()))
        }
    }
}
