//! The way from a box to its model, and out of it at all: boxes have no network.
//!
//! One socket per box, in a directory that is mounted into it; the shim relays a port of the box's loopback to
//! it. Requests to the profile's model get the key here and go on (`forward`, `upstream`); what the responses
//! tell of tokens is read on the way (`meter`), and comes out of the box's [`Channel`]. Connections to granted
//! hosts are made here as well (`egress`). Anything else is refused (`answer`).
//!
//! Used by the orchestrator, which opens a channel for each agent that sits, and by the runtimes, which make and
//! mount the directories (`place`).

mod answer;
mod door;
mod egress;
mod exchange;
mod forward;
mod inbox;
mod meter;
mod paths;
pub mod place;
mod question;
mod reply;
mod rule;
mod scrub;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use self::door::Door;
pub use self::egress::{Dial, DialError, Internet};
use self::inbox::Inbox;
use self::place::Places;
use self::upstream::Upstream;
use crate::config::{ConfigError, ProfileConfig};
use crate::domain::{ContainerId, ProfileId};
use crate::metrics::Metrics;

/// The least time between two log lines about what a profile's model refuses.
const TELL_REFUSALS: Duration = Duration::from_mins(1);

/// What one call of a model used: as its response told, or else, where it did not come to that, a guess from below
/// by how long the request was and what of the response had come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metered {
    /// The model, as it calls itself; empty if that was not told.
    pub model: String,
    /// Tokens that it was given and that have nothing to do with its cache.
    pub input_tokens: u64,
    /// Tokens that it wrote, those that it only thought included.
    pub output_tokens: u64,
    /// Tokens that it was given from its cache.
    pub cache_read_tokens: u64,
    /// Tokens that it was given and put into its cache.
    pub cache_write_tokens: u64,
    /// US dollars by the profile's prices; `None`: it has none for this model.
    pub cost_usd: Option<f64>,
}

/// Makes the channels of boxes. One per gateway.
pub struct ModelProxy {
    places: Places,
    routes: BTreeMap<ProfileId, Arc<Route>>,
    dial: Arc<dyn Dial>,
    metrics: Arc<Metrics>,
}

/// What the boxes of a profile reach.
struct Route {
    /// The profile's name, for metrics and the log.
    slug: String,
    profile: ProfileConfig,
    upstream: Option<Upstream>,
    granted: Vec<(String, u16)>,
    /// When it was last logged that the model did not do what it was asked.
    refused_at: Mutex<Option<Instant>>,
}

impl Route {
    /// Logs that the model does not do what it was asked: once in a while, as agents ask again and again.
    fn note_refusal(&self, status: StatusCode) {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_some_and(|refused_at| refused_at.elapsed() < TELL_REFUSALS) {
            return;
        }
        *refused_at = Some(Instant::now());
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": is its key right?",
            StatusCode::TOO_MANY_REQUESTS => ": its limits are reached",
            _ => "",
        };
        warn!(%status, "The model of profile `{}` answers {status}{hint}", self.slug);
    }
}

/// An open way from one box. Dropping it closes it, with all that goes through it; the box's relay then waits for
/// the next one for a while.
pub struct Channel {
    inbox: Arc<Inbox>,
    /// Cancelled to let nobody else in.
    leaving: CancellationToken,
    /// Cancelled by the server when it ends: nothing is under way any more.
    left: CancellationToken,
    server: AbortOnDropHandle<()>,
    /// Ends the connections to granted hosts, which are no longer the server's.
    closing: DropGuard,
}

impl ModelProxy {
    /// Reads the keys of `profiles`, by their names. `runtime_dir` is the runtime's. Fails with one line that says
    /// which key is not there.
    pub fn new(
        runtime_dir: &Path,
        profiles: &BTreeMap<String, ProfileConfig>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        Self::with_dial(runtime_dir, profiles, metrics, Arc::new(Internet))
    }

    /// The same, with another way to granted hosts.
    pub fn with_dial(
        runtime_dir: &Path,
        profiles: &BTreeMap<String, ProfileConfig>,
        metrics: Arc<Metrics>,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, ConfigError> {
        let mut routes = BTreeMap::new();
        for (slug, profile) in profiles.iter().filter(|(_, profile)| profile.uses_proxy()) {
            let upstream = Upstream::new(slug, &profile.model_api)?;
            metrics.show_model_tokens(slug);
            let (slug, profile, granted) = (slug.clone(), profile.clone(), profile.granted());
            routes.insert(
                ProfileId::from_slug(&slug),
                Arc::new(Route { slug, profile, upstream, granted, refused_at: Mutex::default() }),
            );
        }
        let places = Places::at(runtime_dir);
        Ok(Self { places, routes, dial, metrics })
    }

    /// Opens the way from a box, in place of one that was open before. `None`: agents of that profile reach
    /// nothing. Call it inside the tokio runtime.
    pub fn open(&self, container_id: ContainerId, profile_id: &ProfileId) -> io::Result<Option<Channel>> {
        let Some(route) = self.routes.get(profile_id) else { return Ok(None) };
        let listener = self.places.bind(container_id)?;
        let inbox = Arc::new(Inbox::default());
        let [leaving, left, closing] = std::array::from_fn(|_| CancellationToken::new());
        let door = Door {
            route: Arc::clone(route),
            dial: Arc::clone(&self.dial),
            metrics: Arc::clone(&self.metrics),
            inbox: Arc::clone(&inbox),
            places: door::Allowance::default(),
            life: door::LIFE,
            leaving: leaving.clone(),
            closing: closing.clone(),
        };
        let serving = door::serve(listener, Arc::new(door));
        let at_end = left.clone().drop_guard();
        let server = tokio::spawn(async move {
            serving.await;
            drop(at_end);
        });
        debug!(container.id = %container_id, "The way from box `{container_id}` is open");
        let (server, closing) = (AbortOnDropHandle::new(server), closing.drop_guard());
        Ok(Some(Channel { inbox, leaving, left, server, closing }))
    }
}

impl Channel {
    /// What the next call used, once that is known: before the agent sees the end of the response. Of calls that
    /// nobody takes, the oldest ones are kept apart and later ones added up. Cancel safe.
    pub async fn recv(&mut self) -> Metered {
        self.inbox.next().await
    }

    /// The same, if it is known by now.
    pub fn try_recv(&mut self) -> Option<Metered> {
        self.inbox.take()
    }

    /// Another task begins: what was used before is not given out any more, neither what nobody has taken nor what
    /// calls that are under way will have used. Metrics still count it.
    pub fn start_over(&mut self) {
        self.inbox.start_over();
    }

    /// No task is at work, or it is to stop: nothing that is paid for is asked of the model until [`Channel::work`].
    /// What is under way goes on.
    pub fn rest(&self) {
        self.inbox.rest(true);
    }

    /// A task is at work, as it is for a channel that was just opened.
    pub fn work(&self) {
        self.inbox.rest(false);
    }

    /// Closes it, and gives what nobody has taken, with what was under way: waits for that to be known for as long
    /// as `patience`.
    pub async fn close(self, patience: Duration) -> Vec<Metered> {
        let Self { inbox, server, closing, .. } = self;
        drop((server, closing));
        let _ = timeout(patience, inbox.quiet()).await; // What is not known by then is not counted.
        std::iter::from_fn(|| inbox.take()).collect()
    }

    /// Lets nobody else in, so that the channel can be handed over: a request that comes now waits in its box for who
    /// opens the next one. What this returns completes when every request that was under way has been answered, or
    /// the channel is dropped; connections to granted hosts it does not wait for. Cancel safe.
    pub fn leave(&self) -> impl Future<Output = ()> + Send + use<> {
        self.leaving.cancel();
        self.left.clone().cancelled_owned()
    }

    /// Completes when no call is under way that began since then: what was cut off with the agent's end has been
    /// metered then. Cancel safe.
    pub async fn quiet(&self) {
        self.inbox.quiet().await;
    }
}
