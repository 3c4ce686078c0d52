//! One session whose agent says numbers, the clients that follow it, and the check of what became of them.

use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::witness::{Manner, Seen};
use crate::world::PATIENCE;

/// A session at work.
pub(crate) struct Story {
    pub(crate) session: String,
    pub(crate) task: String,
    /// How many numbers its agent is to say.
    pub(crate) words: usize,
    /// How many events the steady client has seen.
    pub(crate) progress: watch::Receiver<usize>,
    pub(crate) witnesses: Vec<AbortOnDropHandle<Seen>>,
}

/// What became of a session.
pub(crate) struct Outcome {
    /// The last event of its task.
    pub(crate) end: Value,
    /// How many numbers the journal holds.
    pub(crate) said: usize,
    /// How many events were compared, over all clients.
    pub(crate) events: usize,
    /// How many connections that took.
    pub(crate) connections: u32,
    /// What each client saw, in the order in which they came.
    pub(crate) seen: Vec<Seen>,
}

impl Story {
    /// One that nobody follows yet.
    pub(crate) fn new(session: &str, task: &str, words: usize) -> Self {
        let (session, task) = (session.to_owned(), task.to_owned());
        Self { session, task, words, progress: watch::channel(0).1, witnesses: Vec::new() }
    }

    /// Waits until the steady client has seen so many events, or all there are.
    pub(crate) async fn until_seen(&mut self, events: usize) {
        let seen = self.progress.wait_for(|seen| *seen >= events);
        let _ = tokio::time::timeout(PATIENCE, seen).await.expect("events in time");
    }

    /// Whether the steady client has seen the end.
    pub(crate) fn is_over(&self) -> bool {
        self.progress.has_changed().is_err()
    }

    /// How many events the steady client has seen by now.
    pub(crate) fn seen(&self) -> usize {
        *self.progress.borrow()
    }

    /// Waits for the end of its task. What the journal holds is dense; each client saw it all, each event once, in
    /// order, byte for byte; and the numbers in it are those from 1 on.
    pub(crate) async fn check(self, journal: &PgPool) -> Outcome {
        let mut all = Vec::new();
        for witness in self.witnesses {
            all.push(tokio::time::timeout(PATIENCE, witness).await.expect("the task ends in time").unwrap());
        }
        let rows: Vec<(i64, i16, String)> =
            sqlx::query_as("SELECT seq, audience, frame FROM events WHERE session_id = $1 ORDER BY seq")
                .bind(&self.session)
                .fetch_all(journal)
                .await
                .unwrap();
        assert!(rows.iter().map(|(seq, ..)| *seq).eq(1..=i64::try_from(rows.len()).unwrap()), "the journal is dense");
        // All but what is for admins.
        let held: Vec<(i64, String)> =
            rows.into_iter().filter(|(_, audience, _)| *audience < 2).map(|(seq, _, frame)| (seq, frame)).collect();
        let mut events = 0;
        for Seen { manner, events: seen, .. } in &all {
            events += seen.len();
            let differs = held.iter().zip(seen).find(|(held, seen)| held != seen);
            assert!(differs.is_none(), "{manner:?}: {differs:?}");
            assert_eq!(held.len(), seen.len(), "{manner:?} saw another number of events than the journal holds");
        }
        let frames: Vec<Value> = held.iter().map(|(_, frame)| serde_json::from_str(frame).unwrap()).collect();
        let text: String = frames
            .iter()
            .filter(|frame| frame["type"] == "task:token")
            .map(|frame| frame["text"].as_str().unwrap())
            .collect();
        let said = text.split_whitespace().count();
        let counted = (1..=said).map(|number| format!("t{number} "));
        assert!(text == counted.collect::<Vec<_>>().concat(), "every number once, in order: {text}");
        let ends: Vec<&Value> =
            frames.iter().filter(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").collect();
        assert_eq!(ends.len(), 1, "one end: {ends:?}");
        let connections = all.iter().map(|seen| seen.connections).sum();
        Outcome { end: ends[0].clone(), said, events, connections, seen: all }
    }

    /// [`Story::check`] of a task that was not hurt: its agent said all it was to say.
    pub(crate) async fn check_whole(self, journal: &PgPool) -> Outcome {
        let words = self.words;
        let outcome = self.check(journal).await;
        assert_eq!((outcome.end["status"].as_str(), outcome.said), (Some("completed"), words), "{}", outcome.end);
        outcome
    }
}

/// Waits until the steady client of each story has seen something more than by now.
pub(crate) async fn all_go_on(stories: &mut [Story]) {
    let more: Vec<usize> = stories.iter().map(|story| story.seen() + 1).collect();
    for (story, more) in stories.iter_mut().zip(more) {
        story.until_seen(more).await;
    }
}

/// The manners that every story has a client of.
pub(crate) const MANNERS: [Manner; 3] = [Manner::Steady, Manner::Flapping, Manner::Slow];
