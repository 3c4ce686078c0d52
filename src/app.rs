//! Builds every part once from [`Config`] and wires them: the only place that knows which database and
//! which runtime are real.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::auth::api_token::{ApiToken, ApiTokens};
use crate::auth::signed_link::{Links, SignedLinks};
use crate::config::{Config, ProfileConfig, RuntimeKind};
use crate::connection::{Closing, Connections, Shared};
use crate::database::Database;
use crate::domain::{Clock, ProfileId};
use crate::http;
use crate::http::server::{Server, SocketLimits};
use crate::hub::Hub;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::node::{Node, make_data_dir};
use crate::orchestrator::{KeyLocks, Orchestrator, Parts, RECALLS, Reach, Users};
use crate::proxy::ModelProxy;
use crate::runtime::Runtime;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::pool::{Pool, PoolLimits};
use crate::runtime::process::ProcessRuntime;
use crate::store::Store;

/// Sockets of operators and their programs.
const OPERATORS_SOCKETS: usize = 64;

/// The time to drain for which the following times are meant. In less they are shorter, all alike.
const FULL_DRAIN: Duration = Duration::from_secs(20);
/// How long the last sockets get to close: what waits for them, their close and the peer's own.
const SOCKET_GRACE: Duration = Duration::from_millis(2_500);
/// How long workers get to end once they must.
const HARD_GRACE: Duration = Duration::from_secs(3);
/// How long agents get to go.
const POOL_GRACE: Duration = Duration::from_secs(3);
/// How long the journal gets to commit what it holds.
const JOURNAL_GRACE: Duration = Duration::from_secs(3);
/// How long operators get to read the last answers.
const OPERATORS_GRACE: Duration = Duration::from_millis(250);

/// A running gateway.
pub struct App {
    address: SocketAddr,
    operators_address: SocketAddr,
    public_url: String,
    first_token: Option<ApiToken>,
    shared: Arc<Shared>,
    database: Database,
    drain: Duration,
    drain_notice: Duration,
    tracker: TaskTracker,
    server: Server,
    operators: Server,
    writer: JoinHandle<()>,
    failed: CancellationToken,
    _node: Node,
}

impl App {
    /// Builds and starts a gateway. It listens only after the migrations, answers only when all is
    /// there, and returns when it does.
    pub async fn start(mut config: Config) -> anyhow::Result<Self> {
        let clock = Arc::new(Clock::default());
        let data_dir = make_data_dir(&config.data_dir)?;
        let node = Node::take(&data_dir)?;
        let database = Database::connect(&config.database_url(), config.database.max_connections).await;
        let database = database.with_context(|| config.database_trouble())?;
        let store = Store::new(database.clone());
        let instance = store.setting("instance_id", &Uuid::now_v7().simple().to_string()).await?;
        // Before anything is started that would have to be stopped again; who comes early waits. From now on
        // `listen` holds the port that was bound, for the links that clients get.
        let (listener, address) = listen(config.listen, "listen").await?;
        config.listen = address;
        let (operators, operators_address) = listen(config.admin.listen, "admin.listen").await?;

        let tokens = ApiTokens::new(database.clone(), Arc::clone(&clock));
        // For the owner of this machine, who can reach it; elsewhere operators make tokens themselves.
        let local = config.listen.ip().is_loopback();
        let first_token = if local { tokens.ensure_first_token(&data_dir).await? } else { None };
        let public_url = config.public_url();
        let authenticator =
            Authenticator::connect(&config.auth, &public_url, &database, tokens, Arc::clone(&clock)).await?;
        let signer = SignedLinks::open(&store, &config.auth.link_secret).await?;
        let links =
            Links::new(signer, public_url.clone(), Duration::from_secs(config.auth.link_seconds), Arc::clone(&clock));

        let profiles = profiles(&config);
        let runtime_dir = match &config.runtime.dir {
            dir if dir.as_os_str().is_empty() => data_dir.clone(),
            dir => make_data_dir(dir)?,
        };
        let metrics = Arc::new(Metrics::new());
        let proxy = ModelProxy::new(&runtime_dir, &config.profiles, Arc::clone(&metrics))?;
        let runtime = runtime(&config, &runtime_dir, &instance, node.id()).await?;
        let found = runtime.boxes(None).await.context("the containers left from before can't be looked through")?;
        let start_timeout = Duration::from_secs(config.runtime.start_timeout_seconds);
        let pool_limits = PoolLimits {
            containers_per_user: config.limits.containers_per_user,
            containers: config.limits.containers,
            start_timeout,
        };
        let (pool, adopting) = Pool::new(runtime, profiles.clone(), pool_limits);

        let tracker = TaskTracker::new();
        let (journal, writer) = Journal::open(database.clone(), Arc::clone(&metrics));
        let failed = CancellationToken::new();
        let writer = spawn(writer, &failed);
        let orchestrator = Orchestrator::new(Parts {
            hub: Hub::new(journal, store.clone(), Arc::clone(&clock)),
            store,
            pool,
            proxy,
            profiles,
            default_profile: ProfileId::from_slug(&config.default_profile),
            limits: config.limits.clone(),
            idle_stop: Duration::from_secs(config.runtime.idle_stop_seconds),
            node: node.id().to_owned(),
            clock,
            metrics: Arc::clone(&metrics),
            recalls: Semaphore::new(RECALLS),
            reach: Reach::default(),
            users: Users::new(config.limits.running_per_user, config.limits.waiting_per_user),
            keys: KeyLocks::default(),
            soft: CancellationToken::new(),
            hurry: CancellationToken::new(),
            hard: CancellationToken::new(),
            tracker: tracker.clone(),
        });
        orchestrator.recover(found, adopting).await?;
        keep_on(&orchestrator, config.retention_days, &failed);

        let shared = Arc::new(Shared {
            orchestrator,
            authenticator,
            links,
            connections: Connections::new(&config.limits),
            metrics,
            limits: config.limits,
            closing: Closing::default(),
        });
        let limits = SocketLimits::new(OPERATORS_SOCKETS, &shared.limits);
        let operators = Server::start(operators, http::operators(Arc::clone(&shared)), limits);
        info!(address = %operators_address, "Metrics are at http://{operators_address}/metrics");
        let sockets = shared.limits.connections.saturating_add(shared.limits.other_sockets);
        let limits = SocketLimits::new(sockets, &shared.limits);
        let server = Server::start(listener, http::routes(Arc::clone(&shared)), limits);
        info!(%address, "Listening on {address}");
        Ok(Self {
            address,
            operators_address,
            public_url,
            first_token,
            shared,
            database,
            drain: Duration::from_secs(config.drain_seconds),
            drain_notice: Duration::from_secs(config.drain_notice_seconds),
            tracker,
            server,
            operators,
            writer,
            failed,
            _node: node,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when a part panicked without which the gateway is of no use. Cancel safe.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Where it listens to operators.
    pub fn operators_address(&self) -> SocketAddr {
        self.operators_address
    }

    /// Its address as clients see it.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The first token, for the owner of the machine; `None` when it was taken away.
    pub fn first_token(&self) -> Option<&ApiToken> {
        self.first_token.as_ref()
    }

    /// The parts that connections share, for tests that look inside.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many sockets of clients and strangers are open.
    pub fn open_sockets(&self) -> usize {
        self.server.open()
    }

    /// Drains, within the time that is set: says so while all goes on, then stops listening, closes the
    /// sockets with 1012 in batches, leaves agents to the next gateway, and closes the journal. What is queued
    /// stays queued for the next start. Operators are answered to the end.
    pub async fn shutdown(mut self) {
        let began = Instant::now();
        self.shared.closing.drain();
        // A balancer that looks now and then sends nobody here any more. Where nobody is and nobody has looked, there
        // is nobody to wait for.
        if self.server.open() > 0 || self.shared.closing.is_watched() {
            sleep(self.drain_notice.min(self.drain / 4)).await;
        }
        let grace = |full: Duration| full.mul_f64((self.drain.div_duration_f64(FULL_DRAIN)).min(1.0));
        let afterwards = grace(POOL_GRACE + JOURNAL_GRACE + OPERATORS_GRACE);
        let left = self.drain.saturating_sub(began.elapsed() + afterwards);
        let hard = grace(HARD_GRACE);
        tokio::join!(
            close_sockets(&self.shared, &mut self.server, left),
            self.shared.orchestrator.drain(left.saturating_sub(hard), hard),
        );
        self.tracker.close();
        let pool = self.shared.orchestrator.pool();
        if timeout(grace(POOL_GRACE), pool.shutdown()).await.is_err() {
            error!("Some agents could not be stopped in time; the next start removes them");
        }
        self.shared.orchestrator.hub().journal().close();
        if timeout(grace(JOURNAL_GRACE), &mut self.writer).await.is_err() {
            error!("The journal can't commit: what was not acknowledged by now is lost");
            self.writer.abort();
        }
        // Whoever still has a statement under way, nobody waits for.
        let last = grace(OPERATORS_GRACE);
        let _ = timeout(self.drain.saturating_sub(began.elapsed() + last), self.database.close()).await;
        self.operators.stop();
        if timeout(last, self.operators.stopped()).await.is_err() {
            self.operators.cut(); // Somebody reads slowly: the process ends all the same.
        }
    }
}

/// Stops listening and closes all sockets, in batches, within `time`. What is left then is cut off.
async fn close_sockets(shared: &Shared, server: &mut Server, time: Duration) {
    server.stop();
    let connections = shared.connections.count();
    let batches = time.saturating_sub(SOCKET_GRACE).max(time / 2);
    let last = shared.closing.end(connections, batches);
    let closed = async {
        // Event streams that nobody reads, and the like.
        if timeout(last + SOCKET_GRACE, server.stopped()).await.is_err() {
            server.cut();
        }
        // The server does not wait for upgraded sockets: their permits tell when they are closed.
        while shared.connections.count() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(time, closed).await.is_err() {
        let left = shared.connections.count();
        info!(connections = left, "{left} connections did not close in time and are cut off");
        server.cut();
    }
}

/// Runs a gateway until SIGTERM or SIGINT, then drains it. A second signal stops at once. Fails when a part of it
/// panicked that others rely on: what is durable is all that is known to be right, and the next start goes on from
/// there. `file`: where the settings come from, for who is told what to try next.
pub async fn serve(config: Config, file: Option<&Path>) -> anyhow::Result<()> {
    let mut signals = crate::shutdown::Signals::listen()?;
    let app = tokio::select! {
        app = App::start(config) => app?,
        () = signals.next() => return Ok(()),
    };
    greet(app.public_url(), app.first_token(), file);
    tokio::select! {
        () = signals.next() => (),
        () = app.failed() => bail!("a part of the gateway panicked; its message is above — start it again: agents work on, and nothing is lost"),
    }
    info!("Draining; a second signal stops at once");
    tokio::select! {
        () = app.shutdown() => info!("Drained"),
        () = signals.next() => info!("Stopped at once"),
    }
    Ok(())
}

/// Prints where to go and what to try next. The token is for the owner's eyes: on stdout, not in the log.
fn greet(public_url: &str, first_token: Option<&ApiToken>, file: Option<&Path>) {
    use std::io::Write;
    let same = file.map_or_else(String::new, |file| format!(" --config {}", file.display()));
    let mut out = std::io::stdout().lock();
    let _ = match first_token {
        Some(token) => writeln!(
            out,
            "\nstreamgate is ready. Open\n\n    {public_url}/#token={token}\n\nor talk to the agent from another terminal, in this directory:\n\n    streamgate{same} chat \"Hello\"        (from a checkout: cargo run --release --{same} chat \"Hello\")\n",
            token = token.reveal(),
        ),
        None => writeln!(
            out,
            "\nstreamgate is ready at {public_url}/. Make a token with\n\n    streamgate{same} token create --user me\n",
        ),
    }; // Nobody may be reading.
}

/// Starts what the orchestrator does on its own until shutdown.
fn keep_on(orchestrator: &Orchestrator, retention_days: u64, failed: &CancellationToken) {
    let keeper = orchestrator.clone();
    spawn(async move { Box::pin(keeper.keep_up()).await }, failed);
    let leases = orchestrator.clone();
    spawn(async move { leases.keep_leases().await }, failed);
    let (house, retention) = (orchestrator.clone(), Duration::from_secs(retention_days.saturating_mul(86_400)));
    spawn(async move { house.keep_house(retention).await }, failed);
}

/// The profiles by their ids.
fn profiles(config: &Config) -> BTreeMap<ProfileId, Arc<ProfileConfig>> {
    let by_slug = config.profiles.iter();
    by_slug.map(|(slug, profile)| (ProfileId::from_slug(slug), Arc::new(profile.clone()))).collect()
}

/// Takes the port that `key` names, and says where it is.
async fn listen(address: SocketAddr, key: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| anyhow!("can't listen on {address}: {error} — free the port, or set another `{key}`"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn runtime(config: &Config, dir: &Path, instance: &str, node: &str) -> anyhow::Result<Arc<dyn Runtime>> {
    let line_bytes = config.limits.agent_line_bytes;
    match config.runtime.kind {
        RuntimeKind::Process => Ok(Arc::new(ProcessRuntime::new(dir, None, node, line_bytes)?)),
        RuntimeKind::Docker => {
            let docker = &config.runtime.docker;
            let runtime = DockerRuntime::connect(docker, dir, instance, node, line_bytes).await?;
            for (slug, profile) in &config.profiles {
                runtime.find_image(&profile.image).await.with_context(|| format!("profile `{slug}`"))?;
            }
            if let Some(profile) = config.profiles.get(&config.default_profile) {
                runtime.check_mounts(&profile.image).await?;
            }
            Ok(Arc::new(runtime))
        }
    }
}

/// Runs a part that lives as long as the gateway; shutdown ends it. If it panics, `failed` is cancelled.
fn spawn(part: impl Future<Output = ()> + Send + 'static, failed: &CancellationToken) -> JoinHandle<()> {
    let panicked = failed.clone().drop_guard();
    tokio::spawn(async move {
        part.await;
        panicked.disarm();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_fails_the_gateway_and_one_that_ends_does_not() {
        let failed = CancellationToken::new();
        spawn(async {}, &failed).await.unwrap();
        assert!(!failed.is_cancelled());
        assert!(spawn(async { panic!("for the test") }, &failed).await.is_err());
        assert!(failed.is_cancelled());
    }
}
