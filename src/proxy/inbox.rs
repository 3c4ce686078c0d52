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
    under_way: watch::Sender<UnderWay>,
}

/// Which calls belong to whom: those that began before the task of now are nobody's.
#[derive(Clone, Copy, Default)]
struct UnderWay {
    task: Task,
    /// No task is at work, or it is to stop: no call begins.
    rests: bool,
    /// Calls of that task that have not come to their end.
    calls: usize,
}

/// Of the tasks of one box, which one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Task(u64);

impl Default for Inbox {
    fn default() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), under_way: watch::Sender::new(UnderWay::default()) }
    }
}

impl Inbox {
    /// Takes what a call of that task used.
    pub(super) fn put(&self, task: Task, metered: Metered) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.under_way.borrow().task != task {
            return;
        }
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

    /// Another task begins: forgets what waits, and what is under way.
    pub(super) fn start_over(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.under_way.send_modify(|now| *now = UnderWay { task: Task(now.task.0 + 1), calls: 0, ..*now });
        waiting.clear();
    }

    /// Whether no call that is paid for begins any more.
    pub(super) fn rest(&self, rests: bool) {
        self.under_way.send_modify(|now| now.rests = rests);
    }

    /// A call begins; gives whose it is. `None`: it is to be paid for, and nobody is to pay.
    pub(super) fn begin(&self, is_paid: bool) -> Option<Task> {
        let mut task = None;
        self.under_way.send_if_modified(|now| {
            if !(is_paid && now.rests) {
                now.calls += 1;
                task = Some(now.task);
            }
            task.is_some()
        });
        task
    }

    pub(super) fn end(&self, task: Task) {
        self.under_way.send_modify(|now| {
            if now.task == task {
                now.calls = now.calls.saturating_sub(1);
            }
        });
    }

    pub(super) async fn quiet(&self) {
        // It can't close: we hold it.
        let _ = self.under_way.subscribe().wait_for(|now| now.calls == 0).await;
    }
}

impl Metered {
    /// Counts another call in. The model's name stays.
    fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(other.cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(cost), Some(more)) => Some(cost + more),
            (cost, more) => cost.or(more),
        };
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_added_up() {
        let inbox = Inbox::default();
        for number in 0..3_000 {
            inbox.put(Task::default(), Metered { output_tokens: number, cost_usd: Some(1.0), ..Metered::default() });
        }
        assert_eq!(inbox.next().await.output_tokens, 0);
        let rest = std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>();
        assert_eq!(rest.len(), WAITING - 1);
        assert_eq!(rest.iter().map(|metered| metered.output_tokens).sum::<u64>(), 2_999 * 3_000 / 2);
        let cost: f64 = rest.iter().filter_map(|metered| metered.cost_usd).sum();
        assert!((cost - 2_999.0).abs() < 0.01);
    }

    #[tokio::test]
    async fn no_sum_is_more_than_there_is_room_for() {
        let inbox = Inbox::default();
        for _ in 0..WAITING + 2 {
            let most = u64::MAX;
            let [input_tokens, output_tokens, cache_read_tokens, cache_write_tokens] = [most; 4];
            let model = String::new();
            let cost_usd = None;
            inbox.put(
                Task::default(),
                Metered { model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd },
            );
        }
        assert!(std::iter::from_fn(|| inbox.take()).all(|metered| metered.output_tokens == u64::MAX));
    }

    #[tokio::test]
    async fn what_began_before_a_task_is_not_its_own() {
        let inbox = Inbox::default();
        let used = |output_tokens| Metered { output_tokens, ..Metered::default() };
        let begin = || inbox.begin(true).unwrap();
        let (told, late) = (begin(), begin());
        inbox.put(told, used(1));
        inbox.end(told);
        inbox.start_over();
        assert_eq!(inbox.take(), None, "it waited for the task before");
        let own = begin();
        inbox.put(late, used(2));
        inbox.end(late);
        assert_eq!(inbox.take(), None);
        assert!(inbox.quiet().now_or_never().is_none(), "its own goes on");
        inbox.put(own, used(3));
        inbox.end(own);
        inbox.quiet().now_or_never().expect("nothing of its own is under way");
        assert_eq!(inbox.next().await, used(3));
    }

    #[test]
    fn between_two_tasks_nothing_begins_that_costs() {
        let inbox = Inbox::default();
        assert!(inbox.begin(true).is_some());
        inbox.rest(true);
        inbox.start_over();
        assert_eq!((inbox.begin(true).is_some(), inbox.begin(false).is_some()), (false, true));
        inbox.rest(false);
        assert!(inbox.begin(true).is_some());
    }
}
