//! What the tests drive: a gateway on a port of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use streamgate::app::App;
use streamgate::auth::api_token::ApiTokens;
use streamgate::config::{Config, ProfileConfig};
use streamgate::domain::UserId;

pub(crate) use crate::client::{Client, of_type, streamed, types};
use crate::database::{self, TestDatabase};

/// No test waits longer for one frame. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway and all that belongs to it.
pub(crate) struct TestGateway {
    pub(crate) config: Config,
    pub(crate) database: TestDatabase,
    directory: tempfile::TempDir,
    app: Option<App>,
}

/// The binary under test: it is the demo agent too.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_streamgate"))
}

impl TestGateway {
    /// One with the defaults, on `database`.
    pub(crate) async fn start(database: TestDatabase) -> Self {
        Self::start_with(database, |_| ()).await
    }

    /// One whose settings `change` has changed.
    pub(crate) async fn start_with(database: TestDatabase, change: impl FnOnce(&mut Config)) -> Self {
        show_log();
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: directory.path().to_owned(),
            drain_seconds: 5,
            drain_notice_seconds: 0,
            ..Config::default()
        };
        config.admin.listen = config.listen;
        config.database.url = database.url.clone();
        let demo = ProfileConfig {
            command: vec![binary().display().to_string(), "demo-agent".to_owned()],
            ..ProfileConfig::demo()
        };
        config.profiles.insert("demo".to_owned(), demo);
        change(&mut config);
        let app = App::start(config.clone()).await.unwrap();
        Self { config, database, directory, app: Some(app) }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app().address()
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Stops it as SIGTERM does and starts it again on the same data, on a new port. Its links stay what
    /// they were, as those of a gateway with a public name do.
    pub(crate) async fn restart(&mut self) {
        self.app.as_ref().unwrap().public_url().clone_into(&mut self.config.public_url);
        self.app.take().unwrap().shutdown().await;
        self.app = Some(App::start(self.config.clone()).await.unwrap());
    }

    pub(crate) async fn stop(mut self) {
        self.app.take().unwrap().shutdown().await;
    }

    /// A new token of `user`.
    pub(crate) async fn token(&self, user: &str, role: Option<&str>) -> String {
        let tokens: &ApiTokens = self.app().shared().authenticator.tokens();
        let (_, token) = tokens.create(&UserId(user.to_owned()), role, None, None).await.unwrap();
        token.reveal().to_owned()
    }

    /// A connected extended client of `user`.
    pub(crate) async fn client(&self, user: &str) -> Client {
        Client::connect(self.address(), &self.token(user, None).await, true).await
    }

    /// A connected client of `user` that knows nothing but the document.
    pub(crate) async fn document_client(&self, user: &str) -> Client {
        Client::connect(self.address(), &self.token(user, None).await, false).await
    }

    /// A connected extended client of an admin.
    pub(crate) async fn admin(&self) -> Client {
        Client::connect(self.address(), &self.token("root", Some("admin")).await, true).await
    }

    /// An address of the REST doors.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        crate::shims::end_all(self.directory.path());
    }
}

/// Shows the gateways' log with the output of tests that fail, if `STREAMGATE_TEST_LOG` holds a filter.
fn show_log() {
    if let Ok(filter) = std::env::var("STREAMGATE_TEST_LOG") {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer();
        let _ = lines.try_init(); // An earlier test of this process may have.
    }
}

/// Runs a test body on both databases, one after the other.
pub(crate) async fn on_both<T: Future<Output = ()>>(body: impl Fn(TestDatabase) -> T) {
    body(database::sqlite()).await;
    body(database::postgres().await).await;
}
