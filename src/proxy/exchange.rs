//! One call of a model from its admission to its end: counted once, however it ends.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use super::Route;
use super::inbox::Inbox;
use super::meter::Meter;
use crate::metrics::{Metrics, ModelOutcome};

/// A call under way. Dropped before its end, it was cancelled by the agent.
pub(super) struct Exchange {
    route: Arc<Route>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    meter: Option<Meter>,
    /// How it ends if the response comes to its end.
    good: ModelOutcome,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Exchange {
    pub(super) fn begin(
        route: Arc<Route>,
        inbox: Arc<Inbox>,
        metrics: Arc<Metrics>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        inbox.begin();
        Self { route, inbox, metrics, meter: None, good: ModelOutcome::Completed, ended: false, _place: place }
    }

    /// The response begins.
    pub(super) fn answered(&mut self, status: StatusCode, meter: Option<Meter>) {
        self.meter = meter;
        if status.is_client_error() || status.is_server_error() {
            self.good = ModelOutcome::Failed;
        }
    }

    /// A piece of the response is about to be passed on.
    pub(super) fn hear(&mut self, piece: &[u8]) {
        if self.meter.as_mut().is_some_and(|meter| meter.hear(piece)) {
            self.tell();
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
        self.tell();
        self.metrics.model_request(outcome);
        self.inbox.end();
    }

    /// Tells what was used: once.
    fn tell(&mut self) {
        let Some(metered) = self.meter.take().and_then(|meter| meter.told(&self.route.profile)) else { return };
        self.metrics.model_used(&self.route.slug, &metered_tokens(&metered));
        self.inbox.put(metered);
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
