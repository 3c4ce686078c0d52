//! The gateway's own end, as its connections see it: first it drains and nothing changes for them, then each
//! has its moment, in batches, so that not all come back at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How many connections end together.
const BATCH: usize = 500;
/// How long after one batch the next one ends, if there is time.
const PACE: Duration = Duration::from_millis(250);
/// A balancer looks more often than this.
const LOOKS: Duration = Duration::from_mins(1);
/// Over how long clients are told to come back, at least.
const LEAST_SPREAD: Duration = Duration::from_secs(2);
/// How many clients per second are told to come back, when there are many.
const RETURNS_PER_SECOND: usize = 500;

/// How far the end has come. Built once, by `app`, which moves it.
#[derive(Debug)]
pub struct Closing {
    stage: watch::Sender<Stage>,
    /// Connections that have asked for their moment since it began.
    asked: AtomicUsize,
    /// When somebody last asked whether clients should be sent here.
    looked_at: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Open,
    Draining,
    Ending { pace: Duration, spread: Duration },
}

impl Default for Closing {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Open), asked: AtomicUsize::new(0), looked_at: Mutex::default() }
    }
}

impl Closing {
    /// Says that no new clients should be sent here.
    pub fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Somebody asks whether clients should be sent here.
    pub fn look(&self) {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether somebody asks that now and then.
    pub fn is_watched(&self) -> bool {
        let looked_at = *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        looked_at.is_some_and(|looked_at| looked_at.elapsed() < LOOKS)
    }

    /// Whether no new clients should be sent here.
    pub fn is_draining(&self) -> bool {
        !matches!(*self.stage.borrow(), Stage::Open)
    }

    /// Begins to end the connections, of which there are so many now, all within `time`. Returns when the
    /// last one's moment is.
    pub fn end(&self, connections: usize, time: Duration) -> Duration {
        let later = u32::try_from(connections.div_ceil(BATCH).saturating_sub(1)).unwrap_or(u32::MAX);
        let pace = PACE.min(time / later.max(1));
        let returns = u64::try_from(connections / RETURNS_PER_SECOND).unwrap_or(u64::MAX);
        self.stage.send_replace(Stage::Ending { pace, spread: LEAST_SPREAD.max(Duration::from_secs(returns)) });
        pace * later
    }

    /// Waits for a connection's moment. To be asked once by each.
    pub async fn moment(&self) {
        let mut stage = self.stage.subscribe();
        // The sender is `self`: it is there.
        let Ok(ending) = stage.wait_for(|stage| matches!(stage, Stage::Ending { .. })).await.map(|stage| *stage) else {
            return;
        };
        let batch = self.asked.fetch_add(1, Ordering::Relaxed) / BATCH;
        if let Stage::Ending { pace, .. } = ending {
            sleep(pace * u32::try_from(batch).unwrap_or(u32::MAX)).await;
        }
    }

    /// When a client that is sent away now is to come back: some time that its fellows don't have too.
    pub fn retry_after_ms(&self) -> u64 {
        let spread = match *self.stage.borrow() {
            Stage::Ending { spread, .. } => spread,
            Stage::Open | Stage::Draining => LEAST_SPREAD,
        };
        rand::random_range(0..=u64::try_from(spread.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn all_batches_have_their_moment_within_the_time() {
        for (connections, time, last) in
            [(0, 1_000, 0), (500, 0, 0), (501, 1_000, 250), (10_000, 6_250, 4_750), (10_000, 190, 190)]
        {
            let said = Closing::default().end(connections, Duration::from_millis(time));
            assert_eq!(said.as_millis(), last, "{connections} in {time} ms");
        }
    }

    #[tokio::test]
    async fn connections_wait_for_their_batch() {
        let closing = Arc::new(Closing::default());
        let waiting: Vec<_> = (0..1_200)
            .map(|_| {
                let closing = Arc::clone(&closing);
                tokio::spawn(async move {
                    closing.moment().await;
                    Instant::now()
                })
            })
            .collect();
        closing.drain();
        tokio::task::yield_now().await;
        assert!(closing.is_draining() && waiting.iter().all(|waiting| !waiting.is_finished()));
        let began = Instant::now();
        assert_eq!(closing.end(1_200, Duration::from_secs(5)), 2 * PACE);
        let mut moments = Vec::new();
        for waiting in waiting {
            moments.push(waiting.await.unwrap() - began);
        }
        let before = |time: Duration| moments.iter().filter(|moment| **moment < time).count();
        assert!(before(PACE) <= 500 && before(2 * PACE) <= 1_000, "{moments:?}");
    }

    #[test]
    fn clients_come_back_over_two_seconds_or_five_hundred_a_second() {
        for (connections, most) in [(1, 2_000), (1_000, 2_000), (10_000, 20_000)] {
            let closing = Closing::default();
            closing.end(connections, Duration::from_secs(5));
            let waits: Vec<u64> = (0..2_000).map(|_| closing.retry_after_ms()).collect();
            assert!(waits.iter().all(|wait| *wait <= most), "{connections}");
            assert!(waits.iter().any(|wait| *wait > most * 9 / 10) && waits.iter().any(|wait| *wait < most / 10));
        }
    }
}
