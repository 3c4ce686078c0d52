//! The right to have a box: getting in line for it, holding it, giving it back.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::super::{Agent, AgentProcess, AgentSpec, FoundBox, Runtime, RuntimeError};
use super::book::{Decided, State, Taken, Waiting, Warm, is_gone};
use super::{Evicted, Lease, PoolError, PoolStats};
use crate::domain::{ContainerId, ProfileId, UserId};

/// What the pool, its leases and its tasks share.
pub(super) struct Shared {
    pub(super) runtime: Arc<dyn Runtime>,
    /// Ends the keepers of warm boxes.
    pub(super) stop: CancellationToken,
    state: Mutex<State>,
    /// The boxes that somebody here has, from before their start until after their removal.
    held: Mutex<HashSet<ContainerId>>,
    changed: watch::Sender<()>,
    tasks: TaskTracker,
    // Leases may be dropped outside of the tokio runtime.
    handle: Handle,
}

/// What who waits gets. Dropped unread, it goes back.
pub(super) enum Grant {
    /// A running box.
    Warm(Box<Lease>),
    /// The right to start one.
    Slot(Slot),
}

impl Shared {
    pub(super) fn new(runtime: Arc<dyn Runtime>, limit: usize, limit_per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            stop: CancellationToken::new(),
            state: Mutex::new(State::new(limit, limit_per_user)),
            held: Mutex::default(),
            changed: watch::Sender::new(()),
            tasks: TaskTracker::new(),
            handle: Handle::current(),
        })
    }

    /// Runs a task that [`Shared::finished`] waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.handle);
    }

    /// Tells of every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Gets in line.
    pub(super) fn queue(self: &Arc<Self>, user: UserId, wants_warm: Option<ProfileId>) -> Result<Place, PoolError> {
        let (grant, granted) = oneshot::channel();
        let number = self.change(|state| {
            let number = state.count();
            if !state.closed {
                state.waiting.push_back(Waiting { number, user, wants_warm, grant });
            }
            (!state.closed).then_some(number)
        });
        let number = number.ok_or(PoolError::Closed)?;
        Ok(Place { shared: Arc::clone(self), number, granted })
    }

    /// A place for a box that is there already, however full it is.
    pub(super) fn take(self: &Arc<Self>, user: UserId) -> Option<Slot> {
        let number = self.change(|state| {
            let number = state.count();
            (!state.closed).then(|| state.taken.insert(number, Taken::new(user)))?;
            Some(number)
        });
        number.map(|number| Slot { shared: Arc::clone(self), number })
    }

    /// Serves nobody until what this returns is dropped.
    pub(super) fn adopting(self: &Arc<Self>) -> Adopting {
        self.change(|state| state.adopting += 1);
        Adopting(Arc::clone(self))
    }

    /// Whether one more box of `profile` may be warmed; if so its place is taken.
    pub(super) fn may_warm(&self, profile_id: &ProfileId, depth: usize) -> bool {
        let mut state = self.lock();
        let warm = state.warm.get(profile_id).map_or(0, VecDeque::len);
        // The last free place is for somebody who needs it.
        let may = warm < depth
            && !state.closed
            && state.adopting == 0
            && state.waiting.is_empty()
            && state.total() + 1 < state.limit;
        state.warm_starting += usize::from(may);
        may
    }

    /// Ends a start that [`Shared::may_warm`] allowed.
    pub(super) fn warmed(self: &Arc<Self>, profile_id: &ProfileId, agent: Option<Agent>) {
        let unwanted = self.change(|state| {
            state.warm_starting -= 1;
            let agent = agent?;
            if state.closed {
                state.warm_ending += 1;
                return Some(agent);
            }
            let since = Instant::now();
            state.warm.entry(profile_id.clone()).or_default().push_back(Warm { agent, since });
            None
        });
        if let Some(agent) = unwanted {
            self.end_warm(agent);
        }
    }

    /// The warm boxes of a profile, to watch.
    pub(super) fn warm_processes(&self, profile_id: &ProfileId) -> Vec<Arc<dyn AgentProcess>> {
        let state = self.lock();
        let warm = state.warm.get(profile_id).into_iter().flatten();
        warm.map(|warm| Arc::clone(&warm.agent.process)).collect()
    }

    /// Forgets the warm boxes of a profile whose agents are gone; gives since when they were warm.
    pub(super) fn bury(self: &Arc<Self>, profile_id: &ProfileId) -> Vec<Instant> {
        // Changes wake the other keepers, so nothing is changed for nothing.
        if !self.lock().warm.get(profile_id).into_iter().flatten().any(|warm| is_gone(&warm.agent)) {
            return Vec::new();
        }
        let dead = self.change(|state| {
            let Some(warm) = state.warm.get_mut(profile_id) else { return Vec::new() };
            let (dead, live): (Vec<_>, Vec<_>) = warm.drain(..).partition(|warm| is_gone(&warm.agent));
            warm.extend(live);
            state.warm_ending += dead.len();
            dead
        });
        let since = dead.iter().map(|warm| warm.since).collect();
        for warm in dead {
            self.end_warm(warm.agent);
        }
        since
    }

    /// Starts a box after taking away what was left of it. It is held from now on, unless that fails. Not to be
    /// broken off.
    pub(super) async fn start(&self, spec: &AgentSpec, leftovers: &[FoundBox]) -> Result<Agent, RuntimeError> {
        self.hold(spec.container_id);
        let started = async {
            for left in leftovers {
                self.runtime.remove(left).await?;
            }
            self.runtime.start(spec).await
        };
        let started = started.await;
        if started.is_err() {
            self.let_go(spec.container_id);
        }
        started
    }

    /// Takes a box away, which is held no longer. If it can't be taken away now, that is tried again by who looks
    /// for boxes that nobody has.
    pub(super) async fn remove(&self, container_id: ContainerId, process: &dyn AgentProcess) {
        if let Err(error) = process.remove().await {
            warn!(container.id = %container_id, %error, "The box `{container_id}` can't be taken away now: {error}");
        }
        self.let_go(container_id);
    }

    pub(super) fn hold(&self, container_id: ContainerId) {
        self.held().insert(container_id);
    }

    pub(super) fn let_go(&self, container_id: ContainerId) {
        self.held().remove(&container_id);
    }

    pub(super) fn holds(&self, container_id: ContainerId) -> bool {
        self.held().contains(&container_id)
    }

    fn held(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the files of a box that never had an owner.
    pub(super) async fn erase(&self, container_id: ContainerId) {
        if let Err(error) = self.runtime.erase(container_id).await {
            warn!(%error, "The unused box `{container_id}` can't be erased");
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let state = self.lock();
        let idle = state.taken.values().filter(|taken| taken.idle_since.is_some()).count();
        let warm = state.warm.values().map(VecDeque::len).sum();
        PoolStats { running: state.taken.len() - idle, idle, warm, limit: state.limit }
    }

    /// Ends the service.
    pub(super) fn close(self: &Arc<Self>) {
        self.stop.cancel();
        let (warm, _turned_away) = self.change(|state| {
            state.closed = true;
            let warm: Vec<Warm> = std::mem::take(&mut state.warm).into_values().flatten().collect();
            state.warm_ending += warm.len();
            (warm, std::mem::take(&mut state.waiting))
        });
        for warm in warm {
            self.end_warm(warm.agent);
        }
    }

    /// Waits for all tasks.
    pub(super) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops a warm box that is counted as ending.
    fn end_warm(self: &Arc<Self>, agent: Agent) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            shared.remove(agent.container_id, &*agent.process).await;
            shared.erase(agent.container_id).await;
            shared.change(|state| state.warm_ending -= 1);
        });
    }

    /// Changes the book, then serves who can be served now.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, actions) = {
            let mut state = self.lock();
            let result = change(&mut state);
            (result, state.serve())
        };
        self.changed.send_replace(());
        for (sender, Decided { number, agent }) in actions.grants {
            let slot = Slot { shared: Arc::clone(self), number };
            let grant = match agent {
                Some(agent) => Grant::Warm(Box::new(Lease::new(slot, agent, true))),
                None => Grant::Slot(slot),
            };
            // Who left meanwhile gives it back by dropping it.
            drop(sender.send(grant));
        }
        for agent in actions.end {
            self.end_warm(agent);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody looks for a box to take over. While there is one of these nobody is given a place: what is there already
/// is counted first.
pub struct Adopting(Arc<Shared>);

impl Drop for Adopting {
    fn drop(&mut self) {
        self.0.change(|state| state.adopting -= 1);
    }
}

/// A place in the line; dropping it leaves the line.
pub(super) struct Place {
    shared: Arc<Shared>,
    number: u64,
    granted: oneshot::Receiver<Grant>,
}

impl Place {
    /// Waits for its turn; `None` when the pool closes.
    pub(super) async fn granted(mut self) -> Option<Grant> {
        (&mut self.granted).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.granted.close();
        // Room that was to be made for us may now be somebody else's.
        self.shared.change(|state| state.waiting.retain(|waiting| waiting.number != self.number));
    }
}

/// The right to have one box running; dropping it frees the place.
pub(super) struct Slot {
    shared: Arc<Shared>,
    number: u64,
}

impl Slot {
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn set_idle(&self) {
        self.shared.change(|state| {
            let now = state.count();
            if let Some(taken) = state.taken.get_mut(&self.number) {
                taken.idle_since.get_or_insert(now);
            }
        });
    }

    pub(super) fn set_busy(&self) -> Result<(), Evicted> {
        let mut state = self.shared.lock();
        let taken = state.taken.get_mut(&self.number).filter(|taken| !taken.evicted.is_cancelled());
        taken.map(|taken| taken.idle_since = None).ok_or(Evicted)
    }

    pub(super) fn evicted(&self) -> CancellationToken {
        let state = self.shared.lock();
        state.taken.get(&self.number).map_or_else(CancellationToken::new, |taken| taken.evicted.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.change(|state| state.taken.remove(&self.number));
    }
}
