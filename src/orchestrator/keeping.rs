//! What goes on without anybody asking: work that was left is taken up, boxes that nobody has go, leases are
//! renewed, what is past its time is erased, and all of it ends.

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::{debug, info, warn};

use super::worker::{Command, Origin};
use super::{LEASE, Orchestrator};
use crate::database::DatabaseError;
use crate::domain::{SessionId, Timestamp};
use crate::runtime::FoundBox;
use crate::runtime::pool::Adopting;

/// How often it is looked for work that other gateways left, and for boxes that nobody has.
const LOOK_FOR_WORK: Duration = Duration::from_secs(1);
const LOOK_FOR_BOXES: Duration = Duration::from_secs(5);
/// How often it is looked for what other gateways have committed to sessions that are followed here.
const LOOK_FOR_EVENTS: Duration = Duration::from_millis(500);

/// How long after a session was lost it is taken up again.
const TAKE_UP_AFTER: Duration = Duration::from_secs(1);

/// Of the time to drain, what is kept for the last commits.
const LAST_COMMITS: Duration = Duration::from_secs(1);

impl Orchestrator {
    /// Goes on where gateways stopped: sessions of this one, whatever they have, and those that another one
    /// has given up. `found` are the boxes that were there before anything was started; nobody is given a place before
    /// it is known whose they are.
    pub async fn recover(&self, found: Vec<FoundBox>, adopting: Adopting) -> Result<(), DatabaseError> {
        self.parts.store.renew_leases(&self.parts.node, LEASE).await?;
        self.take_up_work().await?;
        if let Err(error) = self.look_through(found).await {
            // They are looked through again soon.
            warn!(%error, "Whose the boxes are can't be looked up: {error}");
        }
        drop(adopting);
        Ok(())
    }

    /// Takes up the sessions with work that this gateway owns or whose owner is gone.
    async fn take_up_work(&self) -> Result<(), DatabaseError> {
        let sessions = self.parts.store.sessions_with_work(&self.parts.node, self.parts.reach.is_steady()).await?;
        self.take_up(sessions);
        Ok(())
    }

    /// Takes up the sessions that live in these boxes, if this gateway owns them or their owner is gone. Gives the boxes
    /// that nobody has.
    async fn look_through(&self, boxes: Vec<FoundBox>) -> Result<Vec<FoundBox>, DatabaseError> {
        let (mut sessions, mut left) = (Vec::new(), Vec::new());
        let of_others = self.parts.reach.is_steady();
        for found in boxes {
            // First: one that is not held becomes held only by its session's worker, and then it has a session.
            let is_held = self.parts.pool.holds(found.container_id);
            match self.parts.store.session_of(found.container_id).await? {
                // A start that nobody knows of: its gateway died, or had given it up.
                Some(owned) if owned.node == self.parts.node && !is_held && owned.spool != Some(found.spool) => {
                    left.push(found);
                }
                Some(owned) if owned.node == self.parts.node || (owned.is_free && of_others) => {
                    sessions.push(owned.session);
                }
                None if !is_held && self.is_left(&found.node).await? => left.push(found),
                Some(_) | None => (),
            }
        }
        self.take_up(sessions);
        Ok(left)
    }

    /// Takes away the boxes that nobody has.
    async fn clear_away(&self, boxes: Vec<FoundBox>) -> Result<(), DatabaseError> {
        for found in boxes {
            let container_id = found.container_id;
            info!(container.id = %container_id, "The box `{container_id}` is nobody's and goes");
            // The files of a box that never had a session are nobody's either.
            let gone = if self.parts.store.has_container(container_id).await? {
                self.parts.pool.remove(&found).await
            } else {
                self.parts.pool.erase(container_id).await
            };
            if let Err(error) = gone {
                warn!(container.id = %container_id, %error, "The box `{container_id}` can't be taken away: {error}");
            }
        }
        Ok(())
    }

    /// Whether a box without a session, that this gateway does not hold, is nobody's: another one that made it may be
    /// starting it or keep it warm.
    async fn is_left(&self, node: &str) -> Result<bool, DatabaseError> {
        Ok(node == self.parts.node || self.parts.store.is_gone(node).await?)
    }

    /// Has sessions taken up that are not at work here.
    fn take_up(&self, mut sessions: Vec<SessionId>) {
        sessions.retain(|session| !self.is_at_work(*session));
        if !sessions.is_empty() {
            info!("Taking up {} sessions", sessions.len());
        }
        for session in sessions {
            let origin = Origin::Existing(Some(self.parts.pool.adopting()));
            if let Err(refusal) = self.deliver(session, origin, Command::TakeUp) {
                warn!(session.id = %session, "Session `{session}` could not be taken up: {refusal}");
            }
        }
    }

    /// Takes up, again and again until shutdown, what other gateways leave behind.
    pub async fn keep_up(&self) {
        let work = async {
            let mut ticks = interval(LOOK_FOR_WORK);
            loop {
                ticks.tick().await;
                if let Err(error) = self.take_up_work().await {
                    warn!(%error, "What other gateways left can't be looked for: {error}");
                }
            }
        };
        let viewers = async {
            let mut ticks = interval(LOOK_FOR_EVENTS);
            loop {
                ticks.tick().await;
                if let Err(error) = self.parts.hub.catch_up().await {
                    debug!(%error, "What other gateways committed can't be looked for: {error}");
                }
            }
        };
        // Beside it: an engine may take long.
        let boxes = async {
            let mut ticks = interval(LOOK_FOR_BOXES);
            loop {
                ticks.tick().await;
                match self.parts.pool.boxes().await {
                    Err(error) => warn!(%error, "The boxes can't be looked through: {error}"),
                    Ok(found) => {
                        let cleared = async { self.clear_away(self.look_through(found).await?).await };
                        if let Err(error) = cleared.await {
                            warn!(%error, "Whose the boxes are can't be looked up: {error}");
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = work => (),
            () = boxes => (),
            () = viewers => (),
            () = self.parts.soft.cancelled() => (),
        }
    }

    fn is_at_work(&self, session: SessionId) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.get(&session).is_some_and(|inbox| !inbox.is_closed())
    }

    /// Takes up a session that was lost, after a while.
    pub(super) fn take_up_again(self, session: SessionId) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(TAKE_UP_AFTER) => (),
                () = self.parts.soft.cancelled() => return,
            }
            if let Err(refusal) = self.deliver(session, Origin::Existing(None), Command::TakeUp) {
                warn!(session.id = %session, "Session `{session}` could not be taken up: {refusal}");
            }
        })
    }

    /// Renews this gateway's leases until shutdown.
    pub async fn keep_leases(&self) {
        let mut ticks = interval(LEASE / 3);
        ticks.tick().await; // They were renewed just now.
        loop {
            tokio::select! {
                _ = ticks.tick() => (),
                () = self.parts.hard.cancelled() => return,
            }
            let renewed = self.parts.store.renew_leases(&self.parts.node, LEASE).await;
            self.parts.reach.note(renewed.is_ok());
            if let Err(error) = renewed {
                warn!(%error, "The leases could not be renewed: {error}");
            }
        }
    }

    /// Erases what is past its time: closed sessions after `retention` (never when zero), old keys.
    /// Once an hour until shutdown.
    pub async fn keep_house(&self, retention: Duration) {
        let mut ticks = interval(Duration::from_hours(1));
        loop {
            tokio::select! {
                _ = ticks.tick() => (),
                () = self.parts.soft.cancelled() => return,
            }
            if let Err(error) = self.erase_expired(retention).await {
                warn!(%error, "What is past its time could not be erased: {error}");
            }
        }
    }

    /// Erases, once, what [`Orchestrator::keep_house`] erases every hour.
    pub async fn erase_expired(&self, retention: Duration) -> Result<(), DatabaseError> {
        const BATCH: u32 = 100;
        let now = self.parts.clock.now();
        self.parts.store.forget_keys(now).await?;
        if retention.is_zero() {
            return Ok(());
        }
        let before = Timestamp(now.0.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX)));
        let mut after = None;
        loop {
            let expired = self.parts.store.expired(before, after, BATCH).await?;
            // Each is tried once: those that stay must not stand before all that come later.
            let Some((last, _)) = expired.last() else { return Ok(()) };
            after = Some(*last);
            for (session, container) in &expired {
                if let Some(container) = container
                    && let Err(error) = self.parts.pool.erase(*container).await
                {
                    // Its row stays, so that the files are not forgotten: next hour.
                    warn!(session.id = %session, %error, "The files of session `{session}` could not be erased: {error}");
                    continue;
                }
                self.parts.store.erase(*session).await?;
            }
        }
    }

    /// Ends all work: nothing new starts at once; in `grace` what was said is committed, and models finish the answers
    /// that they are in, if they are quick enough; then there is as much as `hard` to end without. What agents ask of
    /// their models from now on waits in their boxes for who takes the sessions up.
    pub async fn drain(&self, grace: Duration, hard: Duration) {
        self.parts.soft.cancel();
        self.parts.tracker.close();
        let commits = LAST_COMMITS.min(grace / 4);
        let ended = async {
            if tokio::time::timeout(grace.saturating_sub(commits), self.parts.tracker.wait()).await.is_err() {
                self.parts.hurry.cancel();
                self.parts.tracker.wait().await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            self.parts.hard.cancel();
            if tokio::time::timeout(hard, self.parts.tracker.wait()).await.is_err() {
                warn!("Some sessions did not end in time");
            }
        }
        self.parts.hard.cancel();
    }
}

/// Ticks; one that comes late puts off the next.
fn interval(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
