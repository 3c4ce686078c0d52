//! What was metered and nobody has taken, and how many calls are under way.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::Metered;

/// What is kept apart. More of it is added up: nothing is lost, and it stays small.
const WAITING: usize = 1_024;

/// Of one box. It has one reader.
pub(super) struct Inbox {
    waiting: Mutex<VecDeque<Metered>>,
    came: Notify,
    under_way: watch::Sender<usize>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), under_way: watch::Sender::new(0) }
    }
}

impl Inbox {
    pub(super) fn put(&self, metered: Metered) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = waiting.len() >= WAITING;
        match waiting.back_mut().filter(|_| full) {
            Some(last) => last.add(&metered),
            None => waiting.push_back(metered),
        }
        drop(waiting);
        self.came.notify_one();
    }

    pub(super) fn take(&self) -> Option<Metered> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) async fn next(&self) -> Metered {
        loop {
            if let Some(metered) = self.take() {
                return metered;
            }
            self.came.notified().await;
        }
    }

    pub(super) fn begin(&self) {
        self.under_way.send_modify(|calls| *calls += 1);
    }

    pub(super) fn end(&self) {
        self.under_way.send_modify(|calls| *calls = calls.saturating_sub(1));
    }

    pub(super) async fn quiet(&self) {
        // It can't close: we hold it.
        let _ = self.under_way.subscribe().wait_for(|calls| *calls == 0).await;
    }
}

impl Metered {
    /// Counts another call in. The model's name stays.
    fn add(&mut self, other: &Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(cost), Some(more)) => Some(cost + more),
            (cost, more) => cost.or(more),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_added_up() {
        let inbox = Inbox::default();
        for number in 0..3_000 {
            inbox.put(Metered { output_tokens: number, cost_usd: Some(1.0), ..Metered::default() });
        }
        assert_eq!(inbox.next().await.output_tokens, 0);
        let rest = std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>();
        assert_eq!(rest.len(), WAITING - 1);
        assert_eq!(rest.iter().map(|metered| metered.output_tokens).sum::<u64>(), 2_999 * 3_000 / 2);
        let cost: f64 = rest.iter().filter_map(|metered| metered.cost_usd).sum();
        assert!((cost - 2_999.0).abs() < 0.01);
    }
}
