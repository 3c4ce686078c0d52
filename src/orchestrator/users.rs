//! What each user has waiting and running, and whose submits go one after the other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::domain::UserId;

/// Counts what users have waiting and running. A user with nothing of either is forgotten.
pub struct Users {
    running_limit: usize,
    waiting_limit: usize,
    counts: Mutex<HashMap<UserId, Arc<UserCounts>>>,
}

struct UserCounts {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One waiting task; given back on drop.
pub struct WaitingSlot(Arc<UserCounts>);

/// One running task; given back on drop.
pub struct RunningSlot {
    /// `None`: one that ran before a restart, beyond what the limit is now.
    _permit: Option<OwnedSemaphorePermit>,
    _counts: Arc<UserCounts>,
}

impl Drop for WaitingSlot {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Users {
    /// Nobody yet.
    pub fn new(running_limit: usize, waiting_limit: usize) -> Self {
        Self { running_limit, waiting_limit, counts: Mutex::default() }
    }

    /// How many tasks of a user may wait.
    pub fn waiting_limit(&self) -> usize {
        self.waiting_limit
    }

    /// Counts one more waiting task; `None` when the user has as many as may be.
    pub fn wait(&self, user: &UserId) -> Option<WaitingSlot> {
        let counts = self.counts(user);
        let limit = self.waiting_limit;
        counts
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < limit).then_some(waiting + 1))
            .ok()
            .map(|_| WaitingSlot(counts))
    }

    /// Counts a task that waited before a restart, whatever the limit is now.
    pub fn wait_again(&self, user: &UserId) -> WaitingSlot {
        let counts = self.counts(user);
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingSlot(counts)
    }

    /// Counts a task that ran before a restart, whatever the limit is now.
    pub fn run_again(&self, user: &UserId) -> RunningSlot {
        let counts = self.counts(user);
        RunningSlot { _permit: Arc::clone(&counts.running).try_acquire_owned().ok(), _counts: counts }
    }

    /// Waits until the user may run one more task, first come, first served.
    pub fn run(&self, user: &UserId) -> impl Future<Output = RunningSlot> + Send + 'static {
        let counts = self.counts(user);
        async move {
            match Arc::clone(&counts.running).acquire_owned().await {
                Ok(permit) => RunningSlot { _permit: Some(permit), _counts: counts },
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        }
    }

    fn counts(&self, user: &UserId) -> Arc<UserCounts> {
        let mut users = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = users.get(user) {
            return Arc::clone(counts);
        }
        forget_unused(&mut users);
        let counts = Arc::new(UserCounts {
            running: Arc::new(Semaphore::new(self.running_limit)),
            waiting: AtomicUsize::new(0),
        });
        users.insert(user.clone(), Arc::clone(&counts));
        counts
    }
}

/// Drops what nobody else holds whenever the map would grow: it stays as large as what is in use.
fn forget_unused<K: Eq + Hash, V>(map: &mut HashMap<K, Arc<V>>) {
    if map.len() == map.capacity() {
        map.retain(|_, value| Arc::strong_count(value) > 1);
    }
}

type Lock = tokio::sync::Mutex<()>;
/// A key that is locked; given back on drop.
pub(super) type KeyLock = OwnedMutexGuard<()>;

/// Locks by user and idempotency key.
#[derive(Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<(UserId, String), Arc<Lock>>>,
}

impl KeyLocks {
    /// Waits until no other submit of this user with this key is on its way.
    pub fn lock(&self, user: &UserId, key: &str) -> impl Future<Output = OwnedMutexGuard<()>> + Send + use<> {
        self.of(user, key).lock_owned()
    }

    /// The same without waiting; `None` when another one is on its way.
    pub fn try_lock(&self, user: &UserId, key: &str) -> Option<OwnedMutexGuard<()>> {
        self.of(user, key).try_lock_owned().ok()
    }

    fn of(&self, user: &UserId, key: &str) -> Arc<Lock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        forget_unused(&mut locks);
        Arc::clone(locks.entry((user.clone(), key.to_owned())).or_default())
    }
}
