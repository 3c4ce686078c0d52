//! What a database said about a credential, remembered for a few seconds.
//!
//! Every live connection asks about its credential every few seconds, and a reconnect storm asks
//! about the same one thousands of times at once: one look-up answers them all. How old an answer may
//! be bounds how long a revoked credential still opens, so ages are short and told by [`Clock`].

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use crate::database::DatabaseError;
use crate::domain::{Clock, Timestamp};

/// How long a credential that was found is believed. A connection that asks every 10 s thus hears
/// of a revocation within 20 s.
pub(super) const FOUND_FOR: Duration = Duration::from_secs(10);
/// How long a credential that was not found is refused without asking again.
pub(super) const MISSING_FOR: Duration = Duration::from_secs(2);
/// Most credentials remembered: as many as a process has connections, and some strangers.
const CAPACITY: u64 = 20_000;

/// An answer that may change by itself at a known moment.
pub(super) trait Ends {
    /// When to ask again, however young the answer is.
    fn ends_at(&self) -> Option<Timestamp>;
}

/// Answers by key. The key is a hash: what is secret is not kept here.
#[derive(Clone)]
pub(super) struct Checked<V> {
    entries: Cache<[u8; 32], Entry<V>>,
    clock: Arc<Clock>,
}

#[derive(Clone)]
struct Entry<V> {
    asked_at: Timestamp,
    /// A failure is kept only for those who wait for this very look-up.
    answer: Result<Option<V>, Arc<DatabaseError>>,
}

impl<V: Ends + Clone + Send + Sync + 'static> Checked<V> {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        // Freshness is told by `Clock`; moka's own clock only clears away what nobody asks for.
        let entries = Cache::builder().max_capacity(CAPACITY).time_to_live(FOUND_FOR).build();
        Self { entries, clock }
    }

    /// The fresh answer for `key`, from `ask` if there is none. Those who ask at once share one
    /// call of `ask`. Cancel safe: another one who waits takes over.
    pub(super) async fn get<F>(
        &self,
        key: [u8; 32],
        ask: impl FnOnce() -> F + Send,
    ) -> Result<Option<V>, Arc<DatabaseError>>
    where
        F: Future<Output = Result<Option<V>, DatabaseError>> + Send,
    {
        let now = self.clock.now();
        if let Some(entry) = self.entries.get(&key).await.filter(|entry| entry.is_fresh(now)) {
            return entry.answer;
        }
        let load = async {
            // The moment before asking: an answer is never taken for younger than it is.
            let asked_at = self.clock.now();
            Entry { asked_at, answer: ask().await.map_err(Arc::new) }
        };
        // Boxed, because it is large and rare: the task of every connection would carry its size.
        let loaded = Box::pin(self.entries.entry(key).or_insert_with_if(load, |entry| !entry.is_fresh(now)));
        loaded.await.into_value().answer
    }

    /// Forgets `key`. A look-up that is under way may still bring its old answer back, to be
    /// believed no longer than any other.
    pub(super) async fn forget(&self, key: &[u8; 32]) {
        self.entries.invalidate(key).await;
    }
}

impl<V: Ends> Entry<V> {
    fn is_fresh(&self, now: Timestamp) -> bool {
        let (age, ends_at) = match &self.answer {
            Ok(Some(found)) => (FOUND_FOR, found.ends_at()),
            Ok(None) => (MISSING_FOR, None),
            Err(_) => return false,
        };
        // Before `asked_at` the clock has stepped back, and ages mean nothing.
        let young = self.asked_at <= now && now < self.asked_at.plus(age);
        // A session that has reached its end may have been extended meanwhile: ask once more then.
        let ended_since = ends_at.is_some_and(|end| self.asked_at < end && end <= now);
        young && !ended_since
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Answer(Option<Timestamp>);

    impl Ends for Answer {
        fn ends_at(&self) -> Option<Timestamp> {
            self.0
        }
    }

    struct Fixture {
        clock: Arc<Clock>,
        checked: Checked<Answer>,
        asked: AtomicU32,
    }

    impl Fixture {
        fn new() -> Self {
            let clock = Arc::new(Clock::default());
            Self { checked: Checked::new(Arc::clone(&clock)), clock, asked: AtomicU32::new(0) }
        }

        async fn get(&self, answer: Result<Option<Answer>, DatabaseError>) -> Result<Option<Answer>, ()> {
            let ask = async || {
                self.asked.fetch_add(1, Ordering::Relaxed);
                answer
            };
            self.checked.get([7; 32], ask).await.map_err(drop)
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn an_answer_is_believed_for_its_time_and_no_longer() {
        for (answer, milliseconds) in [(Some(Answer(None)), 10_000), (None, 2_000)] {
            let fixture = Fixture::new();
            fixture.get(Ok(answer.clone())).await.unwrap();
            fixture.clock.shift(milliseconds - 1_000);
            assert_eq!(fixture.get(Ok(None)).await, Ok(answer.clone()));
            assert_eq!(fixture.asked(), 1);
            fixture.clock.shift(1_000);
            fixture.get(Ok(answer)).await.unwrap();
            assert_eq!(fixture.asked(), 2);
        }
    }

    #[tokio::test]
    async fn a_clock_that_steps_back_makes_no_answer_older_than_it_may_be() {
        let fixture = Fixture::new();
        fixture.get(Ok(Some(Answer(None)))).await.unwrap();
        fixture.clock.shift(-3_600_000);
        assert_eq!(fixture.get(Ok(None)).await, Ok(None));
    }

    #[tokio::test]
    async fn an_answer_that_ends_is_asked_for_once_more() {
        let fixture = Fixture::new();
        let end = fixture.clock.now().plus(Duration::from_secs(1));
        fixture.get(Ok(Some(Answer(Some(end))))).await.unwrap();
        fixture.clock.shift(1_000);
        fixture.get(Ok(Some(Answer(Some(end))))).await.unwrap();
        fixture.get(Ok(Some(Answer(Some(end))))).await.unwrap();
        assert_eq!(fixture.asked(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let fixture = Fixture::new();
        assert_eq!(fixture.get(Err(DatabaseError::TimedOut)).await, Err(()));
        assert_eq!(fixture.get(Ok(Some(Answer(None)))).await, Ok(Some(Answer(None))));
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_call() {
        let fixture = Fixture::new();
        let (release, held) = tokio::sync::watch::channel(false);
        let slow = || async {
            fixture.asked.fetch_add(1, Ordering::Relaxed);
            held.clone().wait_for(|free| *free).await.unwrap();
            Ok(Some(Answer(None)))
        };
        let all = futures_util::future::join_all((0..50).map(|_| fixture.checked.get([7; 32], slow)));
        let (answers, ()) = tokio::join!(all, async {
            tokio::task::yield_now().await;
            release.send_replace(true);
        });
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
        assert_eq!(fixture.asked(), 1);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_asked_for_again() {
        let fixture = Fixture::new();
        fixture.get(Ok(Some(Answer(None)))).await.unwrap();
        fixture.checked.forget(&[7; 32]).await;
        assert_eq!(fixture.get(Ok(None)).await, Ok(None));
    }
}
