//! Takes the database away from a gateway, and gives it back.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};

use crate::database::TestDatabase;

/// A database that is away. `SQLite` can still be read, Postgres can't.
pub(crate) enum Outage {
    /// Nobody may connect.
    Postgres { server: PgConnection, name: String },
    /// Somebody else writes and does not stop.
    Sqlite(SqliteConnection),
}

impl Outage {
    pub(crate) async fn begin(database: &TestDatabase) -> Self {
        if !database.is_postgres() {
            let mut writer = SqliteConnectOptions::from_str(&database.url).unwrap().connect().await.unwrap();
            sqlx::query("BEGIN EXCLUSIVE").execute(&mut writer).await.unwrap();
            return Self::Sqlite(writer);
        }
        let options = PgConnectOptions::from_str(&database.url).unwrap();
        let name = options.get_database().unwrap().to_owned();
        let mut server = options.database("postgres").connect().await.unwrap();
        allow_connections(&mut server, &name, false).await;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(&name)
            .execute(&mut server)
            .await
            .unwrap();
        Self::Postgres { server, name }
    }

    pub(crate) async fn end(self) {
        match self {
            Self::Sqlite(mut writer) => {
                sqlx::query("ROLLBACK").execute(&mut writer).await.unwrap();
                writer.close().await.unwrap();
            }
            Self::Postgres { mut server, name } => {
                allow_connections(&mut server, &name, true).await;
                server.close().await.unwrap();
            }
        }
    }
}

async fn allow_connections(server: &mut PgConnection, name: &str, allow: bool) {
    let statement = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}");
    sqlx::query(AssertSqlSafe(statement)).execute(server).await.unwrap();
}
