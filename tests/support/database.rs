//! Databases for tests: each test gets its own, and it goes when the test ends.
//!
//! ```ignore
//! #[path = "support/database.rs"]
//! mod database;
//! for test_database in database::both().await {
//!     let database = Database::connect(&test_database.url, 4).await.unwrap();
//! }
//! ```
#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't have its database fails")]

use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

const MISSING: &str = "set STREAMGATE_TEST_POSTGRES to a Postgres URL, or run scripts/test, which starts one \
                       (apt-get install postgresql)";

/// A database of one test; dropping this drops it, as far as it lets us.
pub(crate) struct TestDatabase {
    /// What `Database::connect` takes.
    pub(crate) url: String,
    keeper: Keeper,
}

enum Keeper {
    Postgres { server: Box<PgConnectOptions>, name: String },
    Sqlite { _directory: tempfile::TempDir },
}

/// One of each kind, for tests whose body runs on both.
pub(crate) async fn both() -> [TestDatabase; 2] {
    [postgres().await, sqlite()]
}

/// A new database `streamgate_test_<uuid>` on the server that `STREAMGATE_TEST_POSTGRES` names.
pub(crate) async fn postgres() -> TestDatabase {
    let server = std::env::var("STREAMGATE_TEST_POSTGRES").expect(MISSING);
    let server = PgConnectOptions::from_str(&server).map(Box::new).expect("STREAMGATE_TEST_POSTGRES is a Postgres URL");
    let name = format!("streamgate_test_{}", uuid::Uuid::now_v7().simple());
    let mut connection = server.connect().await.unwrap_or_else(|error| panic!("{MISSING}: {error}"));
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let url = PgConnectOptions::clone(&server).database(&name).to_url_lossy().to_string();
    TestDatabase { url, keeper: Keeper::Postgres { server, name } }
}

/// A new file in a directory of its own.
pub(crate) fn sqlite() -> TestDatabase {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("streamgate.db").display());
    TestDatabase { url, keeper: Keeper::Sqlite { _directory: directory } }
}

impl TestDatabase {
    /// Whether it is Postgres.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.keeper, Keeper::Postgres { .. })
    }

    /// A pool for what the test does behind the gateway's back. Postgres only.
    pub(crate) async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect(&self.url).await.unwrap()
    }

    /// Takes the database away from under everybody. Postgres only.
    pub(crate) async fn destroy(&self) {
        let Keeper::Postgres { server, name } = &self.keeper else { panic!("only Postgres can be taken away") };
        destroy(server, name).await.unwrap();
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Keeper::Postgres { server, name } = &self.keeper else { return };
        let (server, name) = (server.clone(), name.clone());
        // A thread of its own: the test's runtime may be on its way out, and can't be waited for here.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(destroy(&server, &name)))
        });
        let _ = cleaner.join();
    }
}

async fn destroy(server: &PgConnectOptions, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = server.connect().await?;
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}
