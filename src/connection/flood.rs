//! How many frames a client may send: a rate with a burst, and an end to patience.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::config::LimitsConfig;

/// Counts one connection's frames.
pub(super) struct Flood {
    frames: DefaultDirectRateLimiter,
    patience: Duration,
    refusing: Option<Refusing>,
}

/// Frames are being refused, again and again.
struct Refusing {
    since: Instant,
    /// When the last one that was refused may come again.
    may_come: Instant,
    /// Whether one came before it might, since one was taken last.
    early: bool,
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
        let Err(early) = self.frames.check() else {
            // Who waits as long as they are told is patient, however often they are refused.
            self.refusing = self.refusing.take().filter(|refusing| refusing.early);
            if let Some(refusing) = &mut self.refusing {
                refusing.early = false;
            }
            return Verdict::Take;
        };
        let now = Instant::now();
        let wait = early.wait_time_from(self.frames.clock().now());
        let (since, early) = match &self.refusing {
            Some(refusing) => (refusing.since, refusing.early || now < refusing.may_come),
            None => (now, false),
        };
        self.refusing = Some(Refusing { since, may_come: now + wait, early });
        if now - since >= self.patience { Verdict::Close } else { Verdict::Refuse(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood() -> Flood {
        let mut limits = LimitsConfig::default();
        (limits.frames_per_second, limits.frames_burst, limits.flood_seconds) = (100, 1, 1);
        Flood::new(&limits)
    }

    #[test]
    fn who_waits_as_long_as_they_are_told_is_never_closed() {
        let (mut flood, mut refused) = (flood(), 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            match flood.frame() {
                Verdict::Take => (),
                Verdict::Refuse(wait) => {
                    refused += 1;
                    std::thread::sleep(wait + Duration::from_millis(1));
                }
                Verdict::Close => panic!("it did as it was told"),
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn who_comes_again_at_once_is_closed_though_some_of_it_is_taken() {
        let (mut flood, mut taken) = (flood(), 0);
        let began = Instant::now();
        loop {
            match flood.frame() {
                Verdict::Take => taken += 1,
                Verdict::Refuse(_) => std::thread::sleep(Duration::from_millis(1)),
                Verdict::Close => break,
            }
            assert!(began.elapsed() < Duration::from_mins(1), "it is closed");
        }
        assert!(taken > 1);
    }
}
