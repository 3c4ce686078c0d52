//! One call of a model from its admission to its end: counted once, however it ends.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use super::Route;
use super::inbox::{Inbox, Task};
use super::meter::Meter;
use super::question::Sent;
use crate::config::ModelApiKind;
use crate::metrics::{Metrics, ModelOutcome};

/// A call under way. Dropped before its end, it was cancelled by the agent: the connection to the model is dropped
/// with it, and what the model has not told of it by then is guessed.
pub(super) struct Exchange {
    route: Arc<Route>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    /// Whose it is.
    task: Task,
    /// What the agent asked, if it is paid for: the model is to write something.
    asked: Option<Arc<Sent>>,
    meter: Option<Meter>,
    /// How it ends if the response comes to its end.
    good: ModelOutcome,
    told: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Exchange {
    /// `None`: it is to be paid for (`is_paid`), and no task is at work.
    pub(super) fn begin(
        route: Arc<Route>,
        inbox: Arc<Inbox>,
        metrics: Arc<Metrics>,
        place: OwnedSemaphorePermit,
        is_paid: bool,
    ) -> Option<Self> {
        let (task, good) = (inbox.begin(is_paid)?, ModelOutcome::Completed);
        let (asked, meter, told, ended) = (None, None, false, false);
        Some(Self { route, inbox, metrics, task, asked, meter, good, told, ended, _place: place })
    }

    /// The model is asked to write something.
    pub(super) fn asks(&mut self, asked: Arc<Sent>) {
        self.asked = Some(asked);
    }

    /// The response begins. `meter`: it can be read.
    pub(super) fn answered(&mut self, status: StatusCode, meter: Option<Meter>) {
        self.meter = meter;
        if status.is_client_error() || status.is_server_error() {
            self.good = ModelOutcome::Failed;
            self.asked = None;
        }
    }

    /// A piece of the response is about to be passed on.
    pub(super) fn hear(&mut self, piece: &[u8]) {
        if self.meter.as_mut().is_some_and(|meter| meter.hear(piece)) {
            self.tell(true);
        }
    }

    /// The response is complete.
    pub(super) fn complete(&mut self) {
        self.end(self.good);
    }

    pub(super) fn end(&mut self, outcome: ModelOutcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if matches!(outcome, ModelOutcome::Refused | ModelOutcome::Unreachable) {
            self.asked = None; // Nothing was written.
        }
        self.tell(outcome == self.good);
        self.metrics.model_request(outcome);
        self.inbox.end(self.task);
    }

    /// Tells what was used: once.
    fn tell(&mut self, complete: bool) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        // What the model did not get whole it did not work on.
        let asked = self.asked.as_ref().and_then(|asked| asked.whole.get());
        let meter = self.meter.take().unwrap_or_else(|| Meter::new(ModelApiKind::None, false, None));
        let Some(metered) = meter.told(&self.route.profile, complete, asked) else { return };
        self.metrics.model_used(&self.route.slug, &metered_tokens(&metered));
        self.inbox.put(self.task, metered);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(ModelOutcome::Cancelled);
    }
}

/// By kind, as metrics have them.
fn metered_tokens(metered: &super::Metered) -> [(&'static str, u64); 4] {
    [
        ("input", metered.input_tokens),
        ("output", metered.output_tokens),
        ("cache_read", metered.cache_read_tokens),
        ("cache_write", metered.cache_write_tokens),
    ]
}
