//! How long the database has been there: what leases that have run out mean.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::LEASE;

/// Whether this gateway has reached the database for so long that other gateways had the time to renew their leases:
/// after an outage all leases have run out, and none is a sign that its gateway is gone.
#[derive(Default)]
pub struct Reach(Mutex<Reached>);

#[derive(Default)]
enum Reached {
    /// Without a break, since the start.
    #[default]
    Always,
    Since(Instant),
    Not,
}

impl Reach {
    /// A lease was renewed, or could not be.
    pub(super) fn note(&self, reached: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            _ if !reached => *state = Reached::Not,
            Reached::Not => *state = Reached::Since(Instant::now()),
            Reached::Always | Reached::Since(_) => (),
        }
    }

    /// Whether leases that have run out may be taken.
    pub(super) fn is_steady(&self) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Reached::Always => true,
            Reached::Since(since) => since.elapsed() >= LEASE,
            Reached::Not => false,
        }
    }
}
