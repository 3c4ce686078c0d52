//! The one place that knows that there are two databases: connects, migrates, runs statements.
//!
//! Used by `journal`, `store` and `auth::api_token`. Statements are written once, in the SQL that both
//! speak: `$1` placeholders, text ids, times in Unix milliseconds. Every call has a deadline.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgPool, Postgres, Sqlite, SqlitePool};

/// How long one statement may take, waiting for its reply included.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(8);
/// Connections to Postgres that the journal commits on. One works at a time; where that died without a word, another is
/// there.
const JOURNAL: u32 = 2;
/// Those that change anything else: claims, leases, tokens.
const WRITERS: u32 = 2;
/// How long a transaction in which nothing happens may hold its locks: a gateway that stands still in the middle of one
/// must not keep another from taking over. Less than the lease of a session, and more than a gateway that lives takes
/// between two statements.
const LET_GO: &str = "SET idle_in_transaction_session_timeout = '10s'";
/// How long to wait for a connection.
pub const ACQUIRE_DEADLINE: Duration = Duration::from_secs(3);
/// How long a connection may take to show that it is alive, before its use and after it.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// What the databases answer when they don't do what they are told.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
    /// The database's own words.
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    /// A row holds what we never wrote.
    #[error("the database holds a {0} that can't be read")]
    Corrupt(&'static str),
}

impl DatabaseError {
    /// Whether a unique constraint refused the row.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sqlx(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// A pool of connections.
#[derive(Clone)]
pub enum Database {
    /// For production.
    Postgres {
        /// For the journal. Apart, so that no crowd keeps it from committing: not of readers, and not of claims after a
        /// restart.
        journal: PgPool,
        /// For whatever else is changed.
        writers: PgPool,
        /// For everything else.
        readers: PgPool,
    },
    /// For one machine, with nothing to install.
    Sqlite {
        /// One connection: `SQLite` has one writer at a time.
        writer: SqlitePool,
        /// Readers, which no writer blocks (WAL).
        readers: SqlitePool,
    },
}

/// A connection out of the pool, or a transaction on one.
pub enum Connection {
    /// To Postgres.
    Postgres(sqlx::pool::PoolConnection<Postgres>),
    /// To `SQLite`.
    Sqlite(sqlx::pool::PoolConnection<Sqlite>),
}

/// A transaction; rolls back when dropped.
pub enum Transaction {
    /// On Postgres.
    Postgres(sqlx::Transaction<'static, Postgres>),
    /// On `SQLite`, from its start the only writer.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// Why Postgres can't be reached. The pool tries again until its time is over and then only says that;
/// one more connection says what is wrong.
async fn reason(error: sqlx::Error, options: &PgConnectOptions) -> DatabaseError {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error.into();
    }
    match tokio::time::timeout(ACQUIRE_DEADLINE, options.connect()).await {
        Ok(Err(reason)) => reason.into(),
        // It came up a moment too late, or does not answer.
        Ok(Ok(_)) | Err(_) => DatabaseError::TimedOut,
    }
}

/// Has a connection answer. The pool's own tests have no deadline: one that died without a word would keep its place
/// for as long as the kernel sends again, a quarter of an hour. An error closes it without asking it once more.
async fn is_alive(connection: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    let answer = tokio::time::timeout(PING_DEADLINE, connection.ping()).await;
    answer.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?.map(|()| true)
}

/// Runs a statement on a [`Connection`] or [`Transaction`]: the number of rows it touched.
macro_rules! execute {
    ($on:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::database::within(async {
            match $on {
                $crate::database::On::Postgres(connection) => sqlx::query($sql)$(.bind($bind))*
                    .execute(connection).await.map(|done| done.rows_affected()),
                $crate::database::On::Sqlite(connection) => sqlx::query($sql)$(.bind($bind))*
                    .execute(connection).await.map(|done| done.rows_affected()),
            }
        }).await
    };
}

/// Runs a query on a [`Connection`] or [`Transaction`]: all its rows, as `$row`.
macro_rules! fetch_all {
    ($on:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::database::within(async {
            match $on {
                $crate::database::On::Postgres(connection) => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*
                    .fetch_all(connection).await,
                $crate::database::On::Sqlite(connection) => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*
                    .fetch_all(connection).await,
            }
        }).await
    };
}

/// Runs a query on a [`Connection`] or [`Transaction`]: its first row, if any, as `$row`.
macro_rules! fetch_optional {
    ($on:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::database::within(async {
            match $on {
                $crate::database::On::Postgres(connection) => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*
                    .fetch_optional(connection).await,
                $crate::database::On::Sqlite(connection) => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*
                    .fetch_optional(connection).await,
            }
        }).await
    };
}

pub(crate) use {execute, fetch_all, fetch_optional};

/// What the statement macros run on: `connection.on()`, `transaction.on()`.
pub enum On<'c> {
    /// A Postgres connection.
    Postgres(&'c mut sqlx::PgConnection),
    /// An `SQLite` connection.
    Sqlite(&'c mut sqlx::SqliteConnection),
}

impl Connection {
    /// Where statements run.
    pub fn on(&mut self) -> On<'_> {
        match self {
            Self::Postgres(connection) => On::Postgres(connection),
            Self::Sqlite(connection) => On::Sqlite(connection),
        }
    }
}

impl Transaction {
    /// Where statements run.
    pub fn on(&mut self) -> On<'_> {
        match self {
            Self::Postgres(transaction) => On::Postgres(transaction),
            Self::Sqlite(transaction) => On::Sqlite(transaction),
        }
    }

    /// Makes it so. After an error nobody knows whether it is.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        within(async {
            match self {
                Self::Postgres(transaction) => transaction.commit().await,
                Self::Sqlite(transaction) => transaction.commit().await,
            }
        })
        .await
    }
}

/// A duration as statements add it to a time.
pub fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Gives a database call its deadline.
pub async fn within<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(STATEMENT_DEADLINE, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(DatabaseError::TimedOut),
    }
}

impl Database {
    /// Connects to `url` and brings the schema up to date. Many gateways may start at once.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, DatabaseError> {
        let database = if url.starts_with("sqlite:") {
            Self::connect_sqlite(url).await?
        } else {
            let options = PgConnectOptions::from_str(url)?.application_name("streamgate");
            let pool = |most| {
                PgPoolOptions::new()
                    .max_connections(most)
                    .acquire_timeout(ACQUIRE_DEADLINE)
                    .test_before_acquire(false) // `before_acquire` does, with a deadline.
                    .before_acquire(|connection, _| Box::pin(is_alive(connection)))
                    .after_release(|connection, _| Box::pin(is_alive(connection)))
            };
            // Set once connected: poolers between us and the server refuse it as an option of the connection.
            let changing = |most| {
                pool(most).after_connect(|connection, _| Box::pin(async { connection.execute(LET_GO).await.map(drop) }))
            };
            match changing(WRITERS).connect_with(options.clone()).await {
                Ok(writers) => {
                    let journal = changing(JOURNAL).connect_lazy_with(options.clone());
                    let readers = max_connections.saturating_sub(JOURNAL + WRITERS).max(1);
                    Self::Postgres { journal, writers, readers: pool(readers).connect_lazy_with(options) }
                }
                Err(error) => return Err(reason(error, &options).await),
            }
        };
        match &database {
            Self::Postgres { writers, .. } => sqlx::migrate!("migrations/postgres").run(writers).await,
            Self::Sqlite { writer, .. } => sqlx::migrate!("migrations/sqlite").run(writer).await,
        }
        .map_err(|error| DatabaseError::Sqlx(error.into()))?;
        Ok(database)
    }

    async fn connect_sqlite(url: &str) -> Result<Self, DatabaseError> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit survives a power loss (measured: 0.1 ms).
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(ACQUIRE_DEADLINE);
        let writer = pool(1)
            // When the disk is full, SQLite rolls back by itself; the library's own rollback then fails, and the
            // connection would be in a transaction for ever.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        let readers = pool(4).connect_with(options).await?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// A connection to read with.
    pub async fn read(&self) -> Result<Connection, DatabaseError> {
        within(async {
            match self {
                Self::Postgres { readers, .. } => readers.acquire().await.map(Connection::Postgres),
                Self::Sqlite { readers, .. } => readers.acquire().await.map(Connection::Sqlite),
            }
        })
        .await
    }

    /// A connection to change something with that is one statement: each is a transaction of its own.
    pub async fn write(&self) -> Result<Connection, DatabaseError> {
        within(async {
            match self {
                Self::Postgres { writers, .. } => writers.acquire().await.map(Connection::Postgres),
                Self::Sqlite { writer, .. } => writer.acquire().await.map(Connection::Sqlite),
            }
        })
        .await
    }

    /// A transaction to write in.
    pub async fn begin(&self) -> Result<Transaction, DatabaseError> {
        within(async {
            match self {
                Self::Postgres { writers, .. } => writers.begin().await.map(Transaction::Postgres),
                Self::Sqlite { writer, .. } => writer.begin_with("BEGIN IMMEDIATE").await.map(Transaction::Sqlite),
            }
        })
        .await
    }

    /// A transaction for the journal to commit a group in.
    pub async fn begin_group(&self) -> Result<Transaction, DatabaseError> {
        within(async {
            match self {
                Self::Postgres { journal, .. } => journal.begin().await.map(Transaction::Postgres),
                Self::Sqlite { writer, .. } => writer.begin_with("BEGIN IMMEDIATE").await.map(Transaction::Sqlite),
            }
        })
        .await
    }

    /// Closes all connections, after the calls that run.
    pub async fn close(&self) {
        match self {
            Self::Postgres { journal, writers, readers } => {
                readers.close().await;
                writers.close().await;
                journal.close().await;
            }
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_was_full_is_written_to_again() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("full.db").display());
        let database = Database::connect(&url, 4).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        execute!(transaction.on(), "CREATE TABLE heap (text TEXT)").unwrap();
        transaction.commit().await.unwrap();

        let mut transaction = database.begin().await.unwrap();
        execute!(transaction.on(), "PRAGMA max_page_count = 1").unwrap(); // As large as it is.
        let much = "x".repeat(1 << 20);
        let full = execute!(transaction.on(), "INSERT INTO heap VALUES ($1)", &much).unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        drop(transaction);

        let mut transaction = database.begin().await.unwrap();
        execute!(transaction.on(), "INSERT INTO heap VALUES ($1)", &much).unwrap();
        transaction.commit().await.unwrap();
    }
}
