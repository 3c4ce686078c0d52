//! How many connections there may be (per user, per process, per second), and what each follows.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::LimitsConfig;
use crate::domain::{SessionId, UserId};
use crate::protocol::{ErrorCode, ErrorFrame};

/// Counts connections.
pub struct Connections {
    per_user: usize,
    total: usize,
    arrivals: DefaultDirectRateLimiter,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    users: HashMap<UserId, usize>,
}

/// Why one more is too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The user has as many as may be.
    User,
    /// The process has as many as may be.
    Process,
    /// Too many came within a second.
    Rate,
}

impl TooMany {
    /// What who came too late hears.
    pub fn error(self) -> ErrorFrame {
        let message = match self {
            Self::User => "you have too many connections; close one",
            Self::Process => "this gateway has too many connections; try again later",
            Self::Rate => "too many new connections at once; try again shortly",
        };
        ErrorFrame::new(ErrorCode::TooManyConnections, message).retry_after(1_000)
    }
}

/// The sessions that one connection follows: the reader adds, the writer takes away what has ended.
#[derive(Clone, Default)]
pub(super) struct Followed(Arc<Mutex<HashSet<SessionId>>>);

impl Followed {
    pub(super) fn insert(&self, session: SessionId) {
        self.sessions().insert(session);
    }

    pub(super) fn remove(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions().contains(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions().len()
    }

    fn sessions(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; given back on drop.
pub struct Permit {
    user: UserId,
    counts: Arc<Mutex<Counts>>,
}

impl Connections {
    /// Nobody yet.
    pub fn new(limits: &LimitsConfig) -> Self {
        let per_second = NonZeroU32::new(limits.new_connections_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            per_user: limits.connections_per_user,
            total: limits.connections,
            arrivals: RateLimiter::direct(Quota::per_second(per_second)),
            counts: Arc::default(),
        }
    }

    /// Counts one more arrival, before it is known who it is.
    pub fn arrive(&self) -> Result<(), TooMany> {
        self.arrivals.check().map_err(|_| TooMany::Rate)
    }

    /// Counts one more connection of `user`.
    pub fn enter(&self, user: &UserId) -> Result<Permit, TooMany> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.total {
            return Err(TooMany::Process);
        }
        let of_user = counts.users.entry(user.clone()).or_default();
        if *of_user >= self.per_user {
            return Err(TooMany::User);
        }
        *of_user += 1;
        counts.total += 1;
        Ok(Permit { user: user.clone(), counts: Arc::clone(&self.counts) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_user) = counts.users.get_mut(&self.user) {
            *of_user = of_user.saturating_sub(1);
            if *of_user == 0 {
                counts.users.remove(&self.user);
            }
        }
    }
}
