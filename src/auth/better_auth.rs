//! Sessions of Better Auth: a signed cookie, then a look-up in its tables. We never write there.
//!
//! Used by [`Authenticator`](super::Authenticator). Better Auth deletes a session's row when it is
//! revoked, so the row is the truth; its `session_data` cookie (a cache) outlives revocations and is
//! ignored. Bans are checked here, because Better Auth itself only checks them at sign-in.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use moka::future::Cache;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use tracing::{info, warn};

use super::checked::{Checked, Ends};
use super::origin::Origin;
use super::roles;
pub use super::session_cookie::{CookieRefusal, CookieVerifier, SessionToken};
use crate::config::BetterAuthConfig;
use crate::database::{ACQUIRE_DEADLINE, Database, DatabaseError, within};
use crate::domain::{Clock, Timestamp, UserId};

const COOKIE_NAME: &str = "better-auth.session_token";
/// Until when a ban without an end lasts.
const FOR_EVER: Timestamp = Timestamp(i64::MAX);
/// Connections, when the tables have a database of their own: answers are remembered, so few do.
const CONNECTIONS: u32 = 4;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum BetterAuthError {
    /// The secret can be guessed.
    #[error("`auth.better_auth.secret` has fewer than 32 characters: use the one that Better Auth signs with")]
    ShortSecret,
    /// There is nowhere to look.
    #[error(
        "`auth.better_auth.database_url` is missing: Better Auth's tables are in Postgres, and `database.url` is SQLite"
    )]
    NoDatabase,
    /// A table, or a column that every version has, is not there.
    #[error(
        "Better Auth's table `{table}` has no column `{column}` in this database: check \
         `auth.better_auth.database_url`, run Better Auth's migrations, and if it has `secondaryStorage`, set \
         `session.storeSessionInDatabase`"
    )]
    NoColumn {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The database does not let us read.
    #[error("can't read Better Auth's tables")]
    Database(#[source] DatabaseError),
}

impl From<DatabaseError> for BetterAuthError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is; when impersonated, the one that is being impersonated.
    pub user: UserId,
    /// Their roles: `user` when there are none.
    pub roles: Vec<String>,
    /// When it ends, unless it is extended.
    pub expires_at: Timestamp,
    /// The admin behind it, if this is not the user himself.
    pub impersonated_by: Option<UserId>,
}

/// A row as it was found; whether it opens depends on the time.
#[derive(Clone)]
struct Found {
    session: Session,
    banned_until: Option<Timestamp>,
}

impl Ends for Found {
    fn ends_at(&self) -> Option<Timestamp> {
        Some(self.session.expires_at)
    }
}

/// Better Auth's sessions. Clones share what is remembered.
#[derive(Clone)]
pub struct BetterAuth {
    verifier: CookieVerifier,
    pool: PgPool,
    query: SqlStr,
    clock: Arc<Clock>,
    checked: Checked<Found>,
    /// Impersonated sessions that the log knows of.
    logged: Cache<String, ()>,
}

impl BetterAuth {
    /// Checks the settings and the tables; `None` while no secret is set. Whether Better Auth has its
    /// admin plugin (roles, bans) is found out here: after adding it, restart the gateway.
    pub async fn connect(
        config: &BetterAuthConfig,
        public_url: &str,
        database: &Database,
        clock: Arc<Clock>,
    ) -> Result<Option<Self>, BetterAuthError> {
        if config.secret.is_empty() {
            return Ok(None);
        }
        let verifier = verifier(config, public_url)?;
        let pool = match database {
            _ if !config.database_url.is_empty() => connect(&config.database_url).await?,
            Database::Postgres { readers, .. } => readers.clone(),
            Database::Sqlite { .. } => return Err(BetterAuthError::NoDatabase),
        };
        let query = session_query(&pool).await?;
        let better_auth = Self {
            verifier,
            pool,
            query,
            checked: Checked::new(Arc::clone(&clock)),
            clock,
            logged: Cache::builder().max_capacity(1_000).time_to_live(Duration::from_hours(1)).build(),
        };
        // Proves at the start that we may read what we shall read.
        better_auth.find("").await?;
        Ok(Some(better_auth))
    }

    /// Reads and proves cookies.
    pub fn verifier(&self) -> &CookieVerifier {
        &self.verifier
    }

    /// The token of the request's session cookie; touches no database.
    pub fn verify(&self, headers: &HeaderMap) -> Result<SessionToken, CookieRefusal> {
        self.verifier.verify(headers)
    }

    /// The session of a token, or why there is none. What this says is at most 10 s old, except that
    /// ends of sessions and bans are minded to the millisecond.
    pub async fn lookup(&self, token: &SessionToken) -> Result<Result<Session, CookieRefusal>, Arc<DatabaseError>> {
        let Some(found) = self.checked.get(token.key(), || self.find(token.reveal())).await? else {
            return Ok(Err(CookieRefusal::NoSession));
        };
        let now = self.clock.now();
        Ok(if found.session.expires_at <= now {
            Err(CookieRefusal::Expired)
        } else if found.banned_until.is_some_and(|until| now < until) {
            Err(CookieRefusal::Banned)
        } else {
            Ok(found.session)
        })
    }

    async fn find(&self, token: &str) -> Result<Option<Found>, DatabaseError> {
        type Row = (String, String, Option<i64>, Option<String>, Option<String>, bool, Option<i64>);
        let query = sqlx::query_as::<_, Row>(self.query.clone()).bind(token);
        let row = within(query.fetch_optional(&self.pool)).await?;
        let Some((id, user, expires_at, role, impersonated_by, banned, banned_until)) = row else {
            return Ok(None);
        };
        if let Some(admin) = &impersonated_by
            && self.logged.entry(id.clone()).or_insert(()).await.is_fresh()
        {
            info!(user.id = user, admin.id = admin, "Session `{id}` of user `{user}` is impersonated by `{admin}`");
        }
        let session = Session {
            user: UserId(user),
            roles: roles(role.as_deref()),
            // A moment that is none (`infinity`) opens nothing.
            expires_at: expires_at.map_or(Timestamp(i64::MIN), Timestamp),
            impersonated_by: impersonated_by.map(UserId),
        };
        Ok(Some(Found { session, banned_until: banned.then(|| banned_until.map_or(FOR_EVER, Timestamp)) }))
    }
}

fn verifier(config: &BetterAuthConfig, public_url: &str) -> Result<CookieVerifier, BetterAuthError> {
    // Never both names: a sibling site under http could plant the one without the prefix.
    let secure = Origin::of_url(public_url).is_some_and(|origin| origin.is_https());
    let name = match (config.cookie_name.as_str(), secure) {
        ("", true) => format!("__Secure-{COOKIE_NAME}"),
        ("", false) => COOKIE_NAME.to_owned(),
        (name, _) => name.to_owned(),
    };
    CookieVerifier::new(name, &config.secret).map_err(|_| BetterAuthError::ShortSecret)
}

async fn connect(url: &str) -> Result<PgPool, DatabaseError> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("streamgate auth")
        // These tables are somebody else's: what can't be written can't be broken.
        .options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_DEADLINE);
    within(pool.connect_with(options)).await
}

/// The look-up, with whatever of the admin plugin's columns there are.
async fn session_query(pool: &PgPool) -> Result<SqlStr, BetterAuthError> {
    let (session, user) = (columns(pool, "session").await?, columns(pool, "user").await?);
    let needed = [("session", &session, &["id", "token", "expiresAt", "userId"][..]), ("user", &user, &["id"])];
    for (table, there, names) in needed {
        if let Some(column) = names.iter().find(|name| !there.contains(**name)) {
            return Err(BetterAuthError::NoColumn { table, column });
        }
    }
    let or = |there: &HashSet<String>, name: &str, sql: &str, otherwise: &str| {
        if there.contains(name) { sql.to_owned() } else { otherwise.to_owned() }
    };
    if !user.contains("banned") {
        warn!("Better Auth has no admin plugin here: everybody has the role `user`, and nobody is banned");
    }
    // Ids may be text, uuid or integer; times may lack a zone, and then are UTC, as our sessions are.
    let query = format!(
        r#"SELECT s.id::text, u.id::text, {expires_at}, {role}, {impersonated_by}, {banned}, {banned_until}
           FROM "session" s JOIN "user" u ON u.id = s."userId" WHERE s.token = $1"#,
        expires_at = milliseconds(r#"s."expiresAt""#),
        role = or(&user, "role", "u.role::text", "NULL::text"),
        impersonated_by = or(&session, "impersonatedBy", r#"s."impersonatedBy"::text"#, "NULL::text"),
        banned = or(&user, "banned", "COALESCE(u.banned, false)", "false"),
        banned_until = or(&user, "banExpires", &milliseconds(r#"u."banExpires""#), "NULL::bigint"),
    );
    // Made of the constants above only.
    Ok(AssertSqlSafe(query).into_sql_str())
}

/// Unix milliseconds; NULL for NULL and the infinities.
fn milliseconds(column: &str) -> String {
    format!("(extract(epoch FROM CASE WHEN isfinite({column}) THEN {column} END) * 1000)::bigint")
}

/// The columns of the table or view that `name` means on our search path; none if there is none.
/// Unlike `information_schema` the catalog also shows those that we may not read: a ban that is
/// hidden from us must fail the start, not be overlooked.
async fn columns(pool: &PgPool, name: &str) -> Result<HashSet<String>, DatabaseError> {
    let query = sqlx::query_scalar::<_, String>(
        "SELECT attname::text FROM pg_attribute \
         WHERE attrelid = to_regclass(quote_ident($1)) AND attnum > 0 AND NOT attisdropped",
    );
    Ok(within(query.bind(name).fetch_all(pool)).await?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(secret: &str, cookie_name: &str, public_url: &str) -> Result<String, BetterAuthError> {
        let config = BetterAuthConfig {
            secret: secret.to_owned(),
            cookie_name: cookie_name.to_owned(),
            database_url: String::new(),
        };
        verifier(&config, public_url).map(|verifier| verifier.name().to_owned())
    }

    #[test]
    fn the_cookies_name_follows_the_public_url_unless_it_is_set() {
        let secret = "ключ".repeat(8);
        for (cookie_name, public_url, expected) in [
            ("", "http://localhost:8080", "better-auth.session_token"),
            ("", "https://app.example.com", "__Secure-better-auth.session_token"),
            ("", "HTTPS://app.example.com/gate", "__Secure-better-auth.session_token"),
            ("__Secure-sid", "https://app.example.com", "__Secure-sid"),
            ("rc.session_token", "https://app.example.com", "rc.session_token"),
        ] {
            assert_eq!(named(&secret, cookie_name, public_url).unwrap(), expected);
        }
    }
}
