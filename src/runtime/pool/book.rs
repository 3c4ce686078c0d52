//! The book of who has a box and who waits for one, and the rules by which places are given.

use std::collections::{BTreeMap, HashMap, VecDeque};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Agent;
use super::slots::Grant;
use crate::domain::{ProfileId, UserId};

/// All of it. Plain data: its owner locks it.
pub(super) struct State {
    pub(super) limit: usize,
    pub(super) limit_per_user: usize,
    pub(super) closed: bool,
    /// Boxes that are there and not counted yet, or may be: nobody is served before.
    pub(super) adopting: usize,
    /// Counts everything that needs a number or an order.
    pub(super) counter: u64,
    /// Boxes that have an owner, from before their start until they are gone.
    pub(super) taken: HashMap<u64, Taken>,
    /// The oldest first.
    pub(super) warm: BTreeMap<ProfileId, VecDeque<Warm>>,
    pub(super) warm_starting: usize,
    /// Warm ones that are being stopped.
    pub(super) warm_ending: usize,
    /// In order of arrival. Bounded by who asks: one task per session.
    pub(super) waiting: VecDeque<Waiting>,
}

/// A box that has an owner.
pub(super) struct Taken {
    pub(super) user: UserId,
    /// Since when (by the counter) there is nothing to do.
    pub(super) idle_since: Option<u64>,
    pub(super) evicted: CancellationToken,
}

/// A box that waits for an owner.
pub(super) struct Warm {
    pub(super) agent: Agent,
    pub(super) since: Instant,
}

/// Somebody in line.
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) user: UserId,
    pub(super) wants_warm: Option<ProfileId>,
    pub(super) grant: oneshot::Sender<Grant>,
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(super) struct Actions {
    pub(super) grants: Vec<(oneshot::Sender<Grant>, Decided)>,
    pub(super) end: Vec<Agent>,
}

/// A grant before it has the shape that may be dropped.
pub(super) struct Decided {
    pub(super) number: u64,
    pub(super) agent: Option<Agent>,
}

impl State {
    pub(super) fn new(limit: usize, limit_per_user: usize) -> Self {
        Self {
            limit,
            limit_per_user,
            closed: false,
            adopting: 0,
            counter: 0,
            taken: HashMap::new(),
            warm: BTreeMap::new(),
            warm_starting: 0,
            warm_ending: 0,
            waiting: VecDeque::new(),
        }
    }

    /// A number that was not given before, larger than all that were.
    pub(super) fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn total(&self) -> usize {
        let warm: usize = self.warm.values().map(VecDeque::len).sum();
        self.taken.len() + warm + self.warm_starting + self.warm_ending
    }

    /// Serves who waits, in order; for who can't be served, makes room: warm boxes that nobody waits for
    /// go first, then the longest idle. Room that is already being made is not made twice.
    pub(super) fn serve(&mut self) -> Actions {
        let mut actions = Actions::default();
        if self.adopting > 0 {
            return actions;
        }
        let evicted = self.taken.values().filter(|taken| taken.evicted.is_cancelled());
        let mut coming_of: HashMap<UserId, usize> = HashMap::new();
        evicted.for_each(|taken| *coming_of.entry(taken.user.clone()).or_default() += 1);
        let mut coming = coming_of.values().sum::<usize>() + self.warm_starting + self.warm_ending;
        let mut first_in_line = true;
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.grant.is_closed() {
                continue;
            }
            let of_user = self.taken.values().filter(|taken| taken.user == waiting.user).count();
            if of_user >= self.limit_per_user {
                // Stands aside: others need not wait for what only this user can give.
                match coming_of.get_mut(&waiting.user).filter(|coming| **coming > 0) {
                    Some(coming) => *coming -= 1,
                    None => self.evict(Some(&waiting.user)),
                }
                self.waiting.push_back(waiting);
                continue;
            }
            let warm = waiting.wants_warm.as_ref().and_then(|profile_id| self.take_warm(profile_id, &mut actions));
            if warm.is_some() || (first_in_line && self.total() < self.limit) {
                self.taken.insert(waiting.number, Taken::new(waiting.user));
                actions.grants.push((waiting.grant, Decided { number: waiting.number, agent: warm }));
                continue;
            }
            first_in_line = false;
            if coming > 0 {
                coming -= 1;
            } else if let Some(agent) = self.spare_warm() {
                self.warm_ending += 1;
                actions.end.push(agent);
            } else {
                self.evict(None);
            }
            self.waiting.push_back(waiting);
        }
        actions
    }

    /// A warm box of the profile whose agent lives.
    fn take_warm(&mut self, profile_id: &ProfileId, actions: &mut Actions) -> Option<Agent> {
        let warm = self.warm.get_mut(profile_id)?;
        while let Some(Warm { agent, .. }) = warm.pop_front() {
            if !is_gone(&agent) {
                return Some(agent);
            }
            self.warm_ending += 1;
            actions.end.push(agent);
        }
        None
    }

    fn spare_warm(&mut self) -> Option<Agent> {
        self.warm.values_mut().find_map(VecDeque::pop_front).map(|warm| warm.agent)
    }

    /// Takes back the longest idle box, of `user` or of anybody, if one is idle.
    fn evict(&self, user: Option<&UserId>) {
        let idle = self.taken.values().filter(|taken| {
            taken.idle_since.is_some() && !taken.evicted.is_cancelled() && user.is_none_or(|user| *user == taken.user)
        });
        let longest = idle.min_by_key(|taken| taken.idle_since);
        if let Some(taken) = longest {
            taken.evicted.cancel();
        }
    }
}

impl Taken {
    pub(super) fn new(user: UserId) -> Self {
        Self { user, idle_since: None, evicted: CancellationToken::new() }
    }
}

pub(super) fn is_gone(agent: &Agent) -> bool {
    agent.process.gone().now_or_never().is_some()
}
