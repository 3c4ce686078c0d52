//! What operators see of a gateway as numbers: every metric with its name, its help and its unit.
//!
//! Made once by `app` and handed to those who count: the journal's writer, subscriptions, connections, the
//! orchestrator, the proxy. What others know anyway is not counted a second time but asked for when somebody looks
//! ([`Snapshot`]). No label holds an id or a user: there are as many series on the last day as on the
//! first. Each gateway has a registry of its own, so several may live in one process.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::TaskState;
use crate::protocol::{CloseCode, ErrorCode};

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
/// What a connection that ended without a close frame is counted under (RFC 6455 §7.1.5).
const NO_CLOSE_FRAME: u16 = 1006;
/// The states of tasks that are in somebody's hands.
const OPEN: [TaskState; 4] = [TaskState::Queued, TaskState::Starting, TaskState::Running, TaskState::AwaitingAnswer];
/// The states in which tasks end.
const ENDED: [TaskState; 3] = [TaskState::Completed, TaskState::Failed, TaskState::Cancelled];

/// A family's one label and its value.
type Label<V> = [(&'static str, V); 1];
/// What a profile's model used, by kind.
type Tokens = Family<[(&'static str, String); 2], Counter>;
type States<M> = Family<Label<&'static str>, M>;

/// The numbers of one gateway.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    read: Read,
    connections_closed: Family<Label<u16>, Counter>,
    error_frames: Family<Label<&'static str>, Counter>,
    rest_errors: Family<Label<&'static str>, Counter>,
    event_streams: Gauge,
    tasks: States<Gauge>,
    tasks_accepted: Counter,
    tasks_ended: States<Counter>,
    agents_adopted: Counter,
    commit_seconds: Histogram,
    commit_appends: Histogram,
    commit_events: Histogram,
    commit_failures: Family<Label<&'static str>, Counter>,
    appends_waiting: Gauge,
    viewers_behind: Gauge,
    model_requests: Family<Label<&'static str>, Counter>,
    model_tokens: Tokens,
    egress_connections: Family<Label<&'static str>, Counter>,
}

/// What others know, written down when somebody looks.
#[derive(Default)]
struct Read {
    connections: Gauge,
    sessions: Gauge,
    containers: States<Gauge>,
    containers_limit: Gauge,
    journal_available: Gauge,
    uptime: Gauge<f64, AtomicU64>,
}

/// What is not counted here but known elsewhere, at the moment when somebody looks.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Open connections.
    pub connections: usize,
    /// Sessions at work.
    pub sessions: usize,
    /// Containers at work or being started.
    pub containers_running: usize,
    /// Containers that have an owner and nothing to do.
    pub containers_idle: usize,
    /// Containers that wait for an owner.
    pub containers_warm: usize,
    /// The most containers there may be.
    pub containers_limit: usize,
    /// Whether the last commit went well.
    pub journal_available: bool,
}

/// Why a commit did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// The database was away: the same is tried again.
    Unavailable,
    /// The database, or a newer claim, refused a part: the rest is tried again without it.
    Refused,
}

/// How an agent's request to its model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelOutcome {
    /// The response came to its end.
    Completed,
    /// It did, and is an error.
    Failed,
    /// The agent went before its end.
    Cancelled,
    /// The model broke it off, or fell silent.
    CutOff,
    /// The model could not be asked.
    Unreachable,
    /// The gateway did not let it through.
    Refused,
}

impl ModelOutcome {
    const ALL: [Self; 6] =
        [Self::Completed, Self::Failed, Self::Cancelled, Self::CutOff, Self::Unreachable, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::CutOff => "cut_off",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

/// What became of an agent's connection to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressOutcome {
    /// It was made.
    Opened,
    /// The gateway did not let it through.
    Refused,
    /// The host does not answer.
    Unreachable,
}

impl EgressOutcome {
    const ALL: [Self; 3] = [Self::Opened, Self::Refused, Self::Unreachable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Counts one in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts one task under the state it is in, for as long as it lives.
pub struct CountedTask {
    tasks: States<Gauge>,
    gauge: Gauge,
}

impl CountedTask {
    /// Counts it under another state from now on.
    pub fn becomes(&mut self, state: TaskState) {
        let gauge = std::mem::replace(&mut self.gauge, raised(&self.tasks, state));
        gauge.dec();
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn raised(tasks: &States<Gauge>, state: TaskState) -> Gauge {
    let gauge = tasks.get_or_create_owned(&[("state", state.as_str())]);
    gauge.inc();
    gauge
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All of them, at zero. The uptime counts from now.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("streamgate"),
            started: Instant::now(),
            read: Read::default(),
            connections_closed: Family::default(),
            error_frames: Family::default(),
            rest_errors: Family::default(),
            event_streams: Gauge::default(),
            tasks: Family::default(),
            tasks_accepted: Counter::default(),
            tasks_ended: Family::default(),
            agents_adopted: Counter::default(),
            // 0.5 ms to 8 s.
            commit_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
            // Up to what one transaction takes: 1024 appends, 20 000 events.
            commit_appends: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_events: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            commit_failures: Family::default(),
            appends_waiting: Gauge::default(),
            viewers_behind: Gauge::default(),
            model_requests: Family::default(),
            model_tokens: Family::default(),
            egress_connections: Family::default(),
        };
        metrics.show_zeros();
        metrics.registered()
    }

    /// Makes the series whose labels are known: what first appears as 1 looks as if it had not changed.
    fn show_zeros(&self) {
        for code in CloseCode::ALL {
            drop(self.connections_closed.get_or_create(&[("code", code.code())]));
        }
        drop(self.connections_closed.get_or_create(&[("code", NO_CLOSE_FRAME)]));
        for code in ErrorCode::ALL {
            drop(self.error_frames.get_or_create(&[("code", code.as_str())]));
            drop(self.rest_errors.get_or_create(&[("code", code.as_str())]));
        }
        for state in OPEN {
            drop(self.tasks.get_or_create(&[("state", state.as_str())]));
        }
        for state in ENDED {
            drop(self.tasks_ended.get_or_create(&[("state", state.as_str())]));
        }
        for outcome in ModelOutcome::ALL {
            drop(self.model_requests.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for outcome in EgressOutcome::ALL {
            drop(self.egress_connections.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for failure in [CommitFailure::Unavailable, CommitFailure::Refused] {
            drop(self.commit_failures.get_or_create(&[("reason", failure.as_str())]));
        }
    }

    /// Names what tells of agents' models and of where else agents go.
    fn register_models(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "model_requests",
            "Requests of agents to their models, by how they ended: completed, failed (the model answered with an \
             error), cancelled (the agent went), cut_off (by the model), unreachable (the model), refused (by this \
             gateway)",
            self.model_requests.clone(),
        );
        registry.register(
            "model_tokens",
            "Tokens that models told of in their responses, by profile and kind: input (what has nothing to do with \
             the model's cache), output, cache_read, cache_write",
            self.model_tokens.clone(),
        );
        registry.register(
            "egress_connections",
            "Connections of agents to granted hosts: opened, refused (by this gateway), unreachable (the host)",
            self.egress_connections.clone(),
        );
    }

    /// Names them all. A full stop is put behind each help, `_total` behind each counter, and each unit.
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        let build = Family::<Label<&'static str>, Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "Always 1; the label says which version runs", build);
        registry.register_with_unit(
            "uptime",
            "Seconds since this gateway was started",
            Unit::Seconds,
            self.read.uptime.clone(),
        );

        registry.register(
            "connections_open",
            "Connections that are authenticated and open: WebSockets and event streams",
            self.read.connections.clone(),
        );
        registry.register(
            "event_streams_open",
            "Event streams (Server-Sent Events) among the open connections",
            self.event_streams.clone(),
        );
        registry.register(
            "connections_closed",
            "WebSocket connections that ended, those that were refused included, by the code this gateway closed with; \
             1006: without a close frame",
            self.connections_closed.clone(),
        );
        registry.register(
            "error_frames",
            "Error frames sent over WebSockets, by their code",
            self.error_frames.clone(),
        );
        registry.register(
            "rest_errors",
            "Requests over HTTP that were answered with an error, by its code",
            self.rest_errors.clone(),
        );
        registry.register(
            "viewers_behind",
            "Viewers (sockets and event streams) that read the journal because what they are to see next is no \
             longer in memory",
            self.viewers_behind.clone(),
        );

        registry.register(
            "sessions_active",
            "Sessions that this gateway has in memory because they have something to do or a container",
            self.read.sessions.clone(),
        );
        registry.register("tasks", "Open tasks in this gateway's hands, by state", self.tasks.clone());
        registry.register("tasks_accepted", "Prompts that were accepted and committed", self.tasks_accepted.clone());
        registry.register("tasks_ended", "Tasks whose end was committed, by how they ended", self.tasks_ended.clone());
        registry.register(
            "agents_adopted",
            "Running agents that were taken over: after a restart, or from another gateway",
            self.agents_adopted.clone(),
        );
        registry.register(
            "containers",
            "Containers of this gateway: running (at work or being started), idle (owned, nothing to do), warm \
             (waiting for an owner)",
            self.read.containers.clone(),
        );
        registry.register(
            "containers_limit",
            "The most containers there may be: limits.containers",
            self.read.containers_limit.clone(),
        );

        self.register_models();
        let registry = &mut self.registry;
        registry.register_with_unit(
            "journal_commit",
            "Seconds that group commits took, those that succeeded",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register("journal_commit_appends", "Appends per group commit", self.commit_appends.clone());
        registry.register("journal_commit_events", "Events per group commit", self.commit_events.clone());
        registry.register(
            "journal_commit_failures",
            "Group commits that did not happen: unavailable (the database was away; tried again), refused (a part \
             was refused; the rest is tried again)",
            self.commit_failures.clone(),
        );
        registry.register(
            "journal_available",
            "1 while the last commit went well, 0 while the journal can't commit and nothing new is accepted",
            self.read.journal_available.clone(),
        );
        registry.register(
            "journal_appends_waiting",
            "Appends that were handed to the journal's writer and are not settled",
            self.appends_waiting.clone(),
        );
        self
    }

    /// All of them in Prometheus' text format, version 0.0.4.
    pub fn render(&self, now: Snapshot) -> String {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.read.connections.set(number(now.connections));
        self.read.sessions.set(number(now.sessions));
        for (state, count) in
            [("running", now.containers_running), ("idle", now.containers_idle), ("warm", now.containers_warm)]
        {
            self.read.containers.get_or_create(&[("state", state)]).set(number(count));
        }
        self.read.containers_limit.set(number(now.containers_limit));
        self.read.journal_available.set(now.journal_available.into());
        self.read.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        // Writing into memory can't fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }

    /// A connection ended; `None`: without a close frame from us.
    pub fn connection_closed(&self, code: Option<CloseCode>) {
        self.connections_closed.get_or_create(&[("code", code.map_or(NO_CLOSE_FRAME, CloseCode::code))]).inc();
    }

    /// An error frame goes out.
    pub fn error_frame(&self, code: ErrorCode) {
        self.error_frames.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// A request over HTTP is answered with an error.
    pub fn rest_error(&self, code: ErrorCode) {
        self.rest_errors.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// Counts an open event stream, for as long as what this returns lives.
    pub fn event_stream(&self) -> Counted {
        self.event_streams.inc();
        Counted(self.event_streams.clone())
    }

    /// Counts an open task, for as long as what this returns lives.
    pub fn task(&self, state: TaskState) -> CountedTask {
        CountedTask { tasks: self.tasks.clone(), gauge: raised(&self.tasks, state) }
    }

    /// A prompt is in the journal.
    pub fn task_accepted(&self) {
        self.tasks_accepted.inc();
    }

    /// A task's end is in the journal.
    pub fn task_ended(&self, state: TaskState) {
        self.tasks_ended.get_or_create(&[("state", state.as_str())]).inc();
    }

    /// A running agent was taken over.
    pub fn agent_adopted(&self) {
        self.agents_adopted.inc();
    }

    /// A request to a model has ended.
    pub fn model_request(&self, outcome: ModelOutcome) {
        self.model_requests.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// A model told what it used, by kind. Profiles are few: they are in the configuration.
    pub fn model_used(&self, profile: &str, tokens: &[(&'static str, u64)]) {
        for (kind, count) in tokens {
            let labels = [("profile", profile.to_owned()), ("kind", (*kind).to_owned())];
            self.model_tokens.get_or_create(&labels).inc_by(*count);
        }
    }

    /// Makes the series of a profile that reaches a model.
    pub fn show_model_tokens(&self, profile: &str) {
        self.model_used(profile, &["input", "output", "cache_read", "cache_write"].map(|kind| (kind, 0)));
    }

    /// An agent asked for a host.
    pub fn egress(&self, outcome: EgressOutcome) {
        self.egress_connections.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// A group is in the journal.
    pub fn committed(&self, took: Duration, appends: usize, events: usize) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_appends.observe(as_f64(appends));
        self.commit_events.observe(as_f64(events));
    }

    /// A group is not in the journal.
    pub fn commit_failed(&self, why: CommitFailure) {
        self.commit_failures.get_or_create(&[("reason", why.as_str())]).inc();
    }

    /// An append waits for the journal's writer.
    pub fn append_waits(&self) {
        self.appends_waiting.inc();
    }

    /// Appends have come to their end, one way or the other.
    pub fn appends_settled(&self, appends: usize) {
        self.appends_waiting.dec_by(i64::try_from(appends).unwrap_or(i64::MAX));
    }

    /// Counts a viewer that is behind the live tail, for as long as what this returns lives.
    pub fn viewer_behind(&self) -> Counted {
        self.viewers_behind.inc();
        Counted(self.viewers_behind.clone())
    }
}

impl CommitFailure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// A count of what one transaction holds: far below what a float holds exactly.
fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
