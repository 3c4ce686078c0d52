//! Session cookies against a real Postgres that holds what Better Auth wrote.
//!
//! The cases were recorded from better-auth 1.7.25; see `tests/fixtures/better-auth`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it can't go on")]

#[path = "support/database.rs"]
mod database;

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use streamgate::auth::better_auth::{BetterAuth, BetterAuthError, CookieRefusal};
use streamgate::auth::{ApiTokens, AuthError, Authenticator, Credential, Principal};
use streamgate::config::{AuthConfig, BetterAuthConfig};
use streamgate::database::Database;
use streamgate::domain::{Clock, UserId};

use database::TestDatabase;

const SCHEMA: &str = include_str!("fixtures/better-auth/schema.sql");

fn vectors() -> Value {
    serde_json::from_str(include_str!("fixtures/better-auth/session-cookies.json")).unwrap()
}

/// A database as Better Auth left it in one of the recorded environments, and a gateway beside it.
struct Fixture {
    test_database: TestDatabase,
    pool: PgPool,
    config: AuthConfig,
    public_url: String,
    clock: Arc<Clock>,
    cases: Vec<Value>,
}

impl Fixture {
    async fn new(env: &str) -> Self {
        Self::with_schema(env, SCHEMA).await
    }

    async fn with_schema(env: &str, schema: &str) -> Self {
        let vectors = vectors();
        let settings = &vectors["envs"][env];
        let test_database = database::postgres().await;
        let pool = test_database.pool().await;
        // With `generateId: "uuid"` Better Auth makes its id columns of that type.
        let with_uuids = settings["advanced"]["database"]["generateId"] == "uuid";
        let schema = if with_uuids {
            schema.replace(r#""id" text"#, r#""id" uuid"#).replace(r#""userId" text"#, r#""userId" uuid"#)
        } else {
            schema.to_owned()
        };
        sqlx::raw_sql(AssertSqlSafe(schema)).execute(&pool).await.unwrap();
        for table in ["user", "session"] {
            let rows = settings["rows"][table].to_string();
            let insert = format!(
                r#"INSERT INTO "{table}" SELECT * FROM jsonb_populate_recordset(NULL::"{table}", $1::text::jsonb)"#
            );
            let inserted = sqlx::query(AssertSqlSafe(insert)).bind(rows).execute(&pool).await.unwrap();
            assert_eq!(inserted.rows_affected(), settings["rows"][table].as_array().unwrap().len() as u64);
        }
        let derived = !settings["advanced"].is_object();
        let better_auth = BetterAuthConfig {
            secret: settings["secret"].as_str().unwrap().to_owned(),
            cookie_name: if derived { String::new() } else { settings["cookie_name"].as_str().unwrap().to_owned() },
            database_url: test_database.url.clone(),
        };
        let cases = vectors["cases"].as_array().unwrap().iter().filter(|case| case["env"] == env).cloned().collect();
        Self {
            test_database,
            pool,
            config: AuthConfig { better_auth, ..AuthConfig::default() },
            public_url: settings["baseURL"].as_str().unwrap().to_owned(),
            clock: Arc::new(Clock::default()),
            cases,
        }
    }

    async fn connect(&self) -> Result<BetterAuth, BetterAuthError> {
        let sqlite = database::sqlite();
        let own = Database::connect(&sqlite.url, 1).await.unwrap();
        let connected =
            BetterAuth::connect(&self.config.better_auth, &self.public_url, &own, Arc::clone(&self.clock)).await;
        connected.map(|better_auth| better_auth.expect("a secret is set"))
    }

    /// The whole way, on a gateway whose own tables are in the same database.
    async fn authenticator(&mut self) -> Authenticator {
        self.config.better_auth.database_url.clear();
        let own = Database::connect(&self.test_database.url, 4).await.unwrap();
        let tokens = ApiTokens::new(own.clone(), Arc::clone(&self.clock));
        let clock = Arc::clone(&self.clock);
        Authenticator::connect(&self.config, &self.public_url, &own, tokens, clock).await.unwrap()
    }

    fn cookie(&self, case: &str) -> HeaderMap {
        let case = self.cases.iter().find(|recorded| recorded["id"].as_str().unwrap().ends_with(case)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(case["cookie_header"].as_str().unwrap()).unwrap());
        headers.insert(header::ORIGIN, HeaderValue::from_str(&self.public_url).unwrap());
        headers
    }

    fn credential(&self, authenticator: &Authenticator, case: &str) -> Credential {
        authenticator.credential_from_upgrade(&self.cookie(case), &Uri::from_static("/v1/stream")).unwrap()
    }

    async fn sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }
}

fn reason(refusal: CookieRefusal) -> &'static str {
    match refusal {
        CookieRefusal::Missing => "missing",
        CookieRefusal::Malformed => "malformed",
        CookieRefusal::BadSignatureEncoding => "bad_signature_encoding",
        CookieRefusal::BadSignature => "bad_signature",
        CookieRefusal::NoSession => "no_session",
        CookieRefusal::Expired => "expired",
        CookieRefusal::Banned => "banned",
    }
}

fn is_refused(result: &Result<Principal, AuthError>) -> bool {
    matches!(result, Err(AuthError::Unauthorized(_)))
}

async fn every_recorded_case_is_answered_as_recorded(env: &str) {
    let mut fixture = Fixture::new(env).await;
    let better_auth = fixture.connect().await.unwrap();
    let authenticator = fixture.authenticator().await;
    assert_eq!(fixture.cases.len(), 37);
    for case in &fixture.cases {
        let (id, expect) = (case["id"].as_str().unwrap(), &case["expect"]);
        let headers = fixture.cookie(id);
        let answer = match better_auth.verify(&headers) {
            Ok(token) => better_auth.lookup(&token).await.unwrap(),
            Err(refusal) => Err(refusal),
        };
        assert_eq!(answer.is_ok(), case["gateway_accepts"].as_bool().unwrap(), "{id}");

        // And through the front door.
        let uri = Uri::from_static("/v1/stream");
        let principal = match authenticator.credential_from_upgrade(&headers, &uri) {
            Ok(credential) => authenticator.authenticate(&credential).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(session) => {
                assert_eq!(session.user.0, expect["user_id"].as_str().unwrap(), "{id}");
                assert_eq!(session.user.0, case["lib_user_id"].as_str().unwrap(), "{id}");
                let role = expect["role"].as_str().unwrap_or("user");
                assert_eq!(session.roles, [role], "{id}");
                let impersonator = session.impersonated_by.as_ref().map(|user| user.0.as_str());
                assert_eq!(impersonator, expect["impersonated_by"].as_str(), "{id}");
                let expected = Principal {
                    user: session.user,
                    is_admin: role == "admin",
                    roles: session.roles,
                    expires_at: Some(session.expires_at),
                };
                assert_eq!(principal.unwrap(), expected, "{id}");
            }
            Err(refusal) => {
                assert_eq!(reason(refusal), expect["reason"].as_str().unwrap(), "{id}");
                assert!(is_refused(&principal), "{id}: {principal:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_recorded_case_under_http() {
    every_recorded_case_is_answered_as_recorded("http").await;
}

#[tokio::test]
async fn every_recorded_case_under_https() {
    every_recorded_case_is_answered_as_recorded("https").await;
}

#[tokio::test]
async fn every_recorded_case_with_a_prefix_uuids_and_a_secret_beyond_ascii() {
    every_recorded_case_is_answered_as_recorded("prefix_utf8").await;
}

#[tokio::test]
async fn a_cookie_split_over_header_lines_is_found() {
    let fixture = Fixture::new("http").await;
    let better_auth = fixture.connect().await.unwrap();
    let mut headers = HeaderMap::new();
    headers.append(header::COOKIE, HeaderValue::from_bytes(b"theme=d\xe4rk").unwrap());
    headers.append(header::COOKIE, fixture.cookie("http/valid_urlencoded")[header::COOKIE].clone());
    let token = better_auth.verify(&headers).unwrap();
    assert!(better_auth.lookup(&token).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_ban_by_sql_ends_a_session_within_ten_seconds_and_its_end_opens_it_again() {
    let mut fixture = Fixture::new("http").await;
    let authenticator = fixture.authenticator().await;
    let credential = fixture.credential(&authenticator, "http/valid_urlencoded");
    assert!(authenticator.authenticate(&credential).await.is_ok());

    fixture.sql(r#"UPDATE "user" SET banned = true, "banExpires" = now() + interval '1 hour'"#).await;
    assert!(authenticator.authenticate(&credential).await.is_ok(), "an answer is believed for a few seconds");
    fixture.clock.shift(10_000);
    assert!(is_refused(&authenticator.authenticate(&credential).await));

    fixture.clock.shift(3_600_000);
    assert!(authenticator.authenticate(&credential).await.is_ok());

    fixture.sql(r#"UPDATE "user" SET banned = true, "banExpires" = NULL"#).await;
    fixture.clock.shift(10_000);
    assert!(is_refused(&authenticator.authenticate(&credential).await));
    fixture.sql(r#"UPDATE "user" SET banned = NULL"#).await;
    fixture.clock.shift(10_000);
    assert!(authenticator.authenticate(&credential).await.is_ok());
}

#[tokio::test]
async fn a_session_whose_row_is_deleted_ends_within_ten_seconds() {
    let mut fixture = Fixture::new("http").await;
    let authenticator = fixture.authenticator().await;
    let credential = fixture.credential(&authenticator, "http/valid_urlencoded");
    assert!(authenticator.authenticate(&credential).await.is_ok());
    fixture.sql(r#"DELETE FROM "session""#).await;
    fixture.clock.shift(10_000);
    assert!(is_refused(&authenticator.authenticate(&credential).await));
}

#[tokio::test]
async fn a_session_ends_on_time_unless_it_was_extended() {
    let mut fixture = Fixture::new("http").await;
    fixture.sql(r#"UPDATE "session" SET "expiresAt" = now() + interval '5 seconds'"#).await;
    let authenticator = fixture.authenticator().await;
    let credential = fixture.credential(&authenticator, "http/valid_urlencoded");
    let principal = authenticator.authenticate(&credential).await.unwrap();
    let left = principal.expires_at.unwrap().0 - fixture.clock.now().0;
    assert!((0..=5_000).contains(&left), "{left}");

    // Extended behind our back: at its old end the row is asked again, not what we remember.
    fixture.sql(r#"UPDATE "session" SET "expiresAt" = "expiresAt" + interval '4 seconds'"#).await;
    fixture.clock.shift(5_000);
    assert!(authenticator.authenticate(&credential).await.is_ok());
    fixture.clock.shift(4_000);
    assert!(is_refused(&authenticator.authenticate(&credential).await));
}

#[tokio::test]
async fn an_end_that_is_no_moment_opens_nothing() {
    let fixture = Fixture::new("http").await;
    fixture.sql(r#"UPDATE "session" SET "expiresAt" = 'infinity'"#).await;
    let better_auth = fixture.connect().await.unwrap();
    let token = better_auth.verify(&fixture.cookie("http/valid_urlencoded")).unwrap();
    assert_eq!(better_auth.lookup(&token).await.unwrap(), Err(CookieRefusal::Expired));
}

#[tokio::test]
async fn several_roles_are_read_and_one_privileged_makes_an_admin() {
    let mut fixture = Fixture::new("http").await;
    fixture.config.privileged_roles = vec!["support".to_owned()];
    fixture.sql(r#"UPDATE "user" SET role = 'user, support'"#).await;
    let authenticator = fixture.authenticator().await;
    let credential = fixture.credential(&authenticator, "http/valid_urlencoded");
    let principal = authenticator.authenticate(&credential).await.unwrap();
    assert_eq!(principal.roles, ["user", "support"]);
    assert!(principal.is_admin);

    fixture.sql(r#"UPDATE "user" SET role = NULL"#).await;
    fixture.clock.shift(10_000);
    let principal = authenticator.authenticate(&credential).await.unwrap();
    assert_eq!((principal.roles, principal.is_admin), (vec!["user".to_owned()], false));
}

#[tokio::test]
async fn without_the_admin_plugin_everybody_is_a_user() {
    let fixture = Fixture::new("http").await;
    fixture
        .sql(
            r#"ALTER TABLE "user" DROP role, DROP banned, DROP "banReason", DROP "banExpires";
               ALTER TABLE "session" DROP "impersonatedBy""#,
        )
        .await;
    let better_auth = fixture.connect().await.unwrap();
    for case in ["http/admin_role", "http/banned_permanent_live_session", "http/impersonated_session"] {
        let token = better_auth.verify(&fixture.cookie(case)).unwrap();
        let session = better_auth.lookup(&token).await.unwrap().unwrap();
        assert_eq!((session.roles, session.impersonated_by), (vec!["user".to_owned()], None), "{case}");
    }
}

#[tokio::test]
async fn times_without_a_zone_are_utc_wherever_the_server_is() {
    let schema = SCHEMA.replace("timestamptz", "timestamp(3)");
    let fixture = Fixture::with_schema("http", &schema).await;
    let statement = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Pacific/Auckland''', \
                     current_database()); END $$";
    fixture.sql(statement).await;
    let better_auth = fixture.connect().await.unwrap();
    let token = better_auth.verify(&fixture.cookie("http/valid_urlencoded")).unwrap();
    let session = better_auth.lookup(&token).await.unwrap().unwrap();
    assert_eq!(session.expires_at.0, 4_070_908_800_000, "2099-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_role_that_may_read_little_is_enough_but_hidden_bans_stop_the_start() {
    let mut fixture = Fixture::new("http").await;
    let role = format!("streamgate_test_{}", uuid::Uuid::now_v7().simple());
    let grants = format!(
        r#"CREATE ROLE {role} LOGIN;
           GRANT SELECT (id, token, "userId", "expiresAt", "impersonatedBy") ON "session" TO {role};
           GRANT SELECT (id, role, banned, "banExpires") ON "user" TO {role}"#
    );
    sqlx::raw_sql(AssertSqlSafe(grants)).execute(&fixture.pool).await.unwrap();
    let (server, name) = fixture.test_database.url.rsplit_once('/').unwrap();
    let host = server.rsplit_once('@').map_or(server, |(_, host)| host).trim_start_matches("postgres://");
    fixture.config.better_auth.database_url = format!("postgres://{role}@{host}/{name}");

    let better_auth = fixture.connect().await;
    let found = match &better_auth {
        Ok(better_auth) => {
            let token = better_auth.verify(&fixture.cookie("http/valid_urlencoded")).unwrap();
            Some(better_auth.lookup(&token).await)
        }
        Err(_) => None,
    };
    let revoke = format!(r#"REVOKE SELECT (banned) ON "user" FROM {role}"#);
    sqlx::raw_sql(AssertSqlSafe(revoke)).execute(&fixture.pool).await.unwrap();
    let blind = fixture.connect().await;

    // Roles belong to the whole server: this one goes before anything can fail.
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&fixture.pool).await.unwrap();
    assert!(matches!(found, Some(Ok(Ok(_)))), "{:?}", better_auth.err());
    assert!(matches!(blind.err(), Some(BetterAuthError::Database(_))));
}

#[tokio::test]
async fn a_wrong_setup_says_what_is_wrong() {
    let mut fixture = Fixture::new("http").await;
    fixture.sql(r#"ALTER TABLE "session" RENAME "userId" TO user_id"#).await;
    assert!(matches!(
        fixture.connect().await.err(),
        Some(BetterAuthError::NoColumn { table: "session", column: "userId" })
    ));
    fixture.sql(r#"DROP TABLE "session""#).await;
    let error = fixture.connect().await.err().unwrap();
    assert!(matches!(error, BetterAuthError::NoColumn { table: "session", column: "id" }));
    assert!(error.to_string().contains("secondaryStorage"));

    fixture.config.better_auth.database_url.clear();
    assert!(matches!(fixture.connect().await.err(), Some(BetterAuthError::NoDatabase)));
}

#[tokio::test]
async fn a_database_that_is_away_makes_a_session_unavailable_never_unauthorized() {
    let mut fixture = Fixture::new("http").await;
    let authenticator = fixture.authenticator().await;
    let seen = fixture.credential(&authenticator, "http/valid_urlencoded");
    let unseen = fixture.credential(&authenticator, "http/admin_role");
    assert!(authenticator.authenticate(&seen).await.is_ok());

    fixture.pool.close().await;
    fixture.test_database.destroy().await;
    assert!(authenticator.authenticate(&seen).await.is_ok(), "what was just found is still believed");
    assert!(matches!(authenticator.authenticate(&unseen).await, Err(AuthError::Unavailable(_))));
    fixture.clock.shift(10_000);
    assert!(matches!(authenticator.authenticate(&seen).await, Err(AuthError::Unavailable(_))));
    // A signature needs no database.
    let forged = authenticator.credential_from_upgrade(&fixture.cookie("http/wrong_secret"), &Uri::from_static("/"));
    assert!(matches!(forged, Err(AuthError::Unauthorized(_))));
}

#[tokio::test]
async fn we_never_write_to_better_auths_tables() {
    let fixture = Fixture::new("http").await;
    let before: (String,) = snapshot(&fixture.pool).await;
    let better_auth = fixture.connect().await.unwrap();
    for case in &fixture.cases {
        if let Ok(token) = better_auth.verify(&fixture.cookie(case["id"].as_str().unwrap())) {
            let _ = better_auth.lookup(&token).await.unwrap();
        }
    }
    assert_eq!(snapshot(&fixture.pool).await, before);
}

async fn snapshot(pool: &PgPool) -> (String,) {
    let query = r#"SELECT (SELECT jsonb_agg(s ORDER BY id)::text FROM "session" s)
                       || (SELECT jsonb_agg(u ORDER BY id)::text FROM "user" u)"#;
    sqlx::query_as(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn api_tokens_work_beside_cookies_on_the_same_gateway() {
    let mut fixture = Fixture::new("http").await;
    let authenticator = fixture.authenticator().await;
    let user = UserId("robot".to_owned());
    let (_, token) = authenticator.tokens().create(&user, None, None, None).await.unwrap();
    let mut headers = fixture.cookie("http/admin_role");
    let bearer = format!("Bearer {}", token.reveal());
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
    let credential = authenticator.credential_from_upgrade(&headers, &Uri::from_static("/")).unwrap();
    let principal = authenticator.authenticate(&credential).await.unwrap();
    assert_eq!((principal.user, principal.is_admin), (user, false));
}
