//! The tasks of one session that wait for their turn.

use std::collections::VecDeque;

use super::users::WaitingSlot;
use crate::domain::{Mode, Priority, TaskId};
use crate::metrics::CountedTask;
use crate::protocol::client::TaskOptions;

/// A task that waits, with its place among its user's waiting tasks.
pub(super) struct Waiting {
    pub(super) id: TaskId,
    pub(super) prompt: String,
    pub(super) mode: Mode,
    pub(super) priority: Priority,
    pub(super) options: TaskOptions,
    /// Given back when the task starts or is cancelled.
    pub(super) _slot: WaitingSlot,
    /// Tells operators that it waits.
    pub(super) counted: CountedTask,
}

/// First in, first out, by priority.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Where a task of this priority would stand: behind its equals and betters.
    pub(super) fn place_of(&self, priority: Priority) -> usize {
        self.waiting.iter().take_while(|waiting| waiting.priority.rank() <= priority.rank()).count()
    }

    /// Puts a task at a place: that of its priority, or 0 for the one that interrupts.
    pub(super) fn insert(&mut self, place: usize, task: Waiting) {
        self.waiting.insert(place.min(self.waiting.len()), task);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Waiting> {
        let place = self.waiting.iter().position(|waiting| waiting.id == id)?;
        self.waiting.remove(place)
    }
}
