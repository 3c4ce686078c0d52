//! API tokens, the first token and the secret of links: the same body on Postgres and SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it can't go on")]

#[path = "support/database.rs"]
mod database;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use streamgate::auth::signed_link::SignedLinks;
use streamgate::auth::{ApiToken, ApiTokens, AuthError, Authenticator};
use streamgate::config::AuthConfig;
use streamgate::database::Database;
use streamgate::domain::{Clock, SessionId, Timestamp, TokenId, UserId};
use streamgate::store::Store;

use database::TestDatabase;

/// A gateway's tokens on one database.
struct Fixture {
    name: &'static str,
    database: Database,
    tokens: ApiTokens,
    clock: Arc<Clock>,
    test_database: TestDatabase,
}

impl Fixture {
    async fn both() -> Vec<Self> {
        let mut both = Vec::new();
        for test_database in database::both().await {
            let name = if test_database.is_postgres() { "Postgres" } else { "SQLite" };
            let database = Database::connect(&test_database.url, 4).await.unwrap();
            let clock = Arc::new(Clock::default());
            let tokens = ApiTokens::new(database.clone(), Arc::clone(&clock));
            both.push(Self { name, database, tokens, clock, test_database });
        }
        both
    }

    /// The tokens as another gateway on the same database knows them.
    fn elsewhere(&self) -> ApiTokens {
        ApiTokens::new(self.database.clone(), Arc::clone(&self.clock))
    }

    async fn opens(&self, token: &ApiToken) -> bool {
        self.tokens.lookup(token.hash()).await.unwrap().is_some()
    }
}

fn user(name: &str) -> UserId {
    UserId(name.to_owned())
}

#[tokio::test]
async fn a_token_speaks_for_its_user_and_roles() {
    for fixture in Fixture::both().await {
        let end = fixture.clock.now().plus(Duration::from_mins(1));
        let (_, token) = fixture.tokens.create(&user("ann"), Some("user, admin"), Some("ci"), Some(end)).await.unwrap();
        let holder = fixture.tokens.lookup(token.hash()).await.unwrap().unwrap();
        assert_eq!((holder.user, holder.expires_at), (user("ann"), Some(end)), "{}", fixture.name);
        assert_eq!(holder.roles, ["user", "admin"]);

        let (_, plain) = fixture.tokens.create(&user("bob"), None, None, None).await.unwrap();
        let holder = fixture.tokens.lookup(plain.hash()).await.unwrap().unwrap();
        assert_eq!((holder.roles, holder.expires_at), (vec!["user".to_owned()], None));
        assert!(!fixture.opens(&ApiToken::generate()).await);
    }
}

#[tokio::test]
async fn the_database_holds_the_hash_and_the_hint_but_not_the_token() {
    let test_database = database::postgres().await;
    let database = Database::connect(&test_database.url, 1).await.unwrap();
    let tokens = ApiTokens::new(database, Arc::new(Clock::default()));
    let (_, token) = tokens.create(&user("ann"), None, None, None).await.unwrap();
    let pool = test_database.pool().await;
    let row: (String, Vec<u8>, String) =
        sqlx::query_as("SELECT hint, token_hash, t::text FROM api_tokens t").fetch_one(&pool).await.unwrap();
    assert_eq!((row.0.as_str(), row.1.as_slice()), (token.hint(), &token.hash().as_bytes()[..]));
    assert!(!row.2.contains(&token.reveal()[12..]));
}

#[tokio::test]
async fn a_token_ends_when_it_expires() {
    for fixture in Fixture::both().await {
        let end = fixture.clock.now().plus(Duration::from_secs(5));
        let (_, token) = fixture.tokens.create(&user("ann"), None, None, Some(end)).await.unwrap();
        assert!(fixture.opens(&token).await);
        fixture.clock.shift(5_000);
        assert!(!fixture.opens(&token).await, "{}", fixture.name);
    }
}

#[tokio::test]
async fn a_revoked_token_ends_here_at_once_and_elsewhere_within_ten_seconds() {
    for fixture in Fixture::both().await {
        let (id, token) = fixture.tokens.create(&user("ann"), None, None, None).await.unwrap();
        let elsewhere = fixture.elsewhere();
        assert!(fixture.opens(&token).await);
        assert!(elsewhere.lookup(token.hash()).await.unwrap().is_some());

        assert!(fixture.tokens.revoke(id, Some(&user("ann"))).await.unwrap());
        assert!(!fixture.opens(&token).await, "{}", fixture.name);
        assert!(elsewhere.lookup(token.hash()).await.unwrap().is_some(), "an answer is believed for a few seconds");
        fixture.clock.shift(10_000);
        assert!(elsewhere.lookup(token.hash()).await.unwrap().is_none());
        assert!(fixture.tokens.revoke(id, None).await.unwrap(), "revoking again changes nothing");
    }
}

#[tokio::test]
async fn only_its_owner_or_an_admin_revokes_a_token() {
    for fixture in Fixture::both().await {
        let (id, token) = fixture.tokens.create(&user("ann"), None, None, None).await.unwrap();
        assert!(!fixture.tokens.revoke(id, Some(&user("bob"))).await.unwrap());
        assert!(!fixture.tokens.revoke(TokenId::generate(), None).await.unwrap());
        assert!(fixture.opens(&token).await, "{}", fixture.name);
        assert!(fixture.tokens.revoke(id, None).await.unwrap());
        assert!(!fixture.opens(&token).await);
    }
}

#[tokio::test]
async fn a_stranger_is_refused_from_memory_for_two_seconds() {
    for fixture in Fixture::both().await {
        // Known to one gateway, and then made valid by another: as when a row is restored.
        let (id, token) = fixture.tokens.create(&user("ann"), None, None, None).await.unwrap();
        fixture.tokens.revoke(id, None).await.unwrap();
        assert!(!fixture.opens(&token).await);
        unrevoke(&fixture).await;
        assert!(!fixture.opens(&token).await, "{}", fixture.name);
        fixture.clock.shift(2_000);
        assert!(fixture.opens(&token).await, "{}", fixture.name);
    }
}

async fn unrevoke(fixture: &Fixture) {
    let statement = "UPDATE api_tokens SET revoked_at = NULL";
    match &fixture.database {
        Database::Postgres { writers, .. } => drop(sqlx::query(statement).execute(writers).await.unwrap()),
        Database::Sqlite { writer, .. } => drop(sqlx::query(statement).execute(writer).await.unwrap()),
    }
}

#[tokio::test]
async fn lists_show_what_is_not_revoked_newest_first_in_pages() {
    for fixture in Fixture::both().await {
        let mut ids = Vec::new();
        for (owner, name) in [("ann", "one"), ("bob", "two"), ("ann", "three"), ("ann", "four")] {
            let (id, token) = fixture.tokens.create(&user(owner), None, Some(name), None).await.unwrap();
            ids.push((id, token));
        }
        fixture.tokens.revoke(ids[2].0, None).await.unwrap();
        let names = async |owner: Option<&str>, after, limit| {
            let owner = owner.map(user);
            let page = fixture.tokens.list(owner.as_ref(), after, limit).await.unwrap();
            page.into_iter().map(|info| info.name.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(None, None, 10).await, ["four", "two", "one"], "{}", fixture.name);
        assert_eq!(names(Some("ann"), None, 10).await, ["four", "one"]);
        assert_eq!(names(Some("ann"), None, 1).await, ["four"]);
        assert_eq!(names(Some("ann"), Some(ids[3].0), 1).await, ["one"]);
        assert_eq!(names(Some("ann"), Some(ids[0].0), 1).await, Vec::<String>::new());
        assert_eq!(names(Some("eve"), None, 10).await, Vec::<String>::new());

        let bobs = &fixture.tokens.list(Some(&user("bob")), None, 10).await.unwrap()[0];
        assert_eq!((bobs.id, bobs.hint.as_str(), &bobs.user), (ids[1].0, ids[1].1.hint(), &user("bob")));
    }
}

#[tokio::test]
async fn a_database_that_is_away_makes_a_token_unavailable_never_unauthorized() {
    for fixture in Fixture::both().await {
        let authenticator = Authenticator::connect(
            &AuthConfig::default(),
            "http://127.0.0.1:8080",
            &fixture.database,
            fixture.tokens.clone(),
            Arc::clone(&fixture.clock),
        )
        .await
        .unwrap();
        let (_, token) = fixture.tokens.create(&user("ann"), Some("admin"), None, None).await.unwrap();
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", token.reveal());
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
        let credential = authenticator.credential_from_upgrade(&headers, &Uri::from_static("/")).unwrap();
        assert!(authenticator.authenticate(&credential).await.unwrap().is_admin);

        fixture.database.close().await;
        fixture.clock.shift(10_000);
        let away = authenticator.authenticate(&credential).await;
        assert!(matches!(away, Err(AuthError::Unavailable(_))), "{}: {away:?}", fixture.name);
    }
}

#[tokio::test]
async fn a_storm_of_one_token_is_answered_in_full() {
    for fixture in Fixture::both().await {
        let (_, token) = fixture.tokens.create(&user("ann"), None, None, None).await.unwrap();
        let storm = (0..2_000).map(|_| fixture.tokens.lookup(token.hash()));
        let answers = futures_util::future::join_all(storm).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))), "{}", fixture.name);
    }
}

fn first_token(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(data_dir.join("first-token")).ok().map(|text| text.trim_end().to_owned())
}

#[tokio::test]
async fn a_new_gateway_makes_one_first_token_for_its_owner_and_finds_it_again() {
    for fixture in Fixture::both().await {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let token = fixture.tokens.ensure_first_token(&data_dir).await.unwrap().unwrap();
        let holder = fixture.tokens.lookup(token.hash()).await.unwrap().unwrap();
        assert_eq!((holder.user, holder.roles), (user("local"), vec!["admin".to_owned()]), "{}", fixture.name);
        assert_eq!(first_token(&data_dir).as_deref(), Some(token.reveal()));
        let mode = std::fs::metadata(data_dir.join("first-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1, "nothing is left beside it");

        let again = fixture.elsewhere().ensure_first_token(&data_dir).await.unwrap();
        assert_eq!(again, Some(token));
        assert_eq!(fixture.tokens.list(None, None, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_first_token_that_is_lost_or_revoked_is_not_made_again() {
    for fixture in Fixture::both().await {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("first-token");
        fixture.tokens.ensure_first_token(directory.path()).await.unwrap().unwrap();
        let content = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(fixture.tokens.ensure_first_token(directory.path()).await.unwrap(), None, "{}", fixture.name);
        assert!(!file.exists());

        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(fixture.tokens.ensure_first_token(directory.path()).await.unwrap(), None);
        std::fs::write(&file, content).unwrap();
        assert!(fixture.tokens.ensure_first_token(directory.path()).await.unwrap().is_some());
        let id = fixture.tokens.list(None, None, 1).await.unwrap()[0].id;
        fixture.tokens.revoke(id, None).await.unwrap();
        assert_eq!(fixture.tokens.ensure_first_token(directory.path()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_new_database_replaces_the_first_token_of_an_old_one() {
    for fixture in Fixture::both().await {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("first-token");
        let old = ApiToken::generate();
        std::fs::write(&file, old.reveal()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let token = fixture.tokens.ensure_first_token(directory.path()).await.unwrap().unwrap();
        assert_ne!(token, old);
        assert_eq!(first_token(directory.path()).as_deref(), Some(token.reveal()), "{}", fixture.name);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fixture.opens(&old).await);
    }
}

#[tokio::test]
async fn a_data_directory_that_can_not_be_written_is_named_and_no_token_is_left_behind() {
    for fixture in Fixture::both().await {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("file");
        std::fs::write(&data_dir, "").unwrap();
        let error = fixture.tokens.ensure_first_token(&data_dir).await.unwrap_err();
        assert!(error.to_string().contains("first-token"), "{error}");
        assert!(fixture.tokens.list(None, None, 1).await.unwrap().is_empty(), "{}", fixture.name);
    }
}

#[tokio::test]
async fn gateways_that_start_at_once_share_one_secret_of_links() {
    for fixture in Fixture::both().await {
        // Each with connections of its own, as separate gateways have.
        let opened = futures_util::future::join_all((0..4).map(async |_| {
            let database = Database::connect(&fixture.test_database.url, 1).await.unwrap();
            SignedLinks::open(&Store::new(database), "").await.unwrap()
        }))
        .await;
        let session = SessionId::generate();
        let end = Timestamp(2_000_000_000_000);
        let token = opened[0].sign(session, "a.png", end);
        for links in &opened {
            assert!(links.verify(&token, session, "a.png", Timestamp(0)), "{}", fixture.name);
        }
        let later = SignedLinks::open(&Store::new(fixture.database.clone()), "").await.unwrap();
        assert!(later.verify(&token, session, "a.png", Timestamp(0)));
    }
}

#[tokio::test]
async fn a_configured_secret_of_links_is_used() {
    let test_database = database::sqlite();
    let database = Database::connect(&test_database.url, 1).await.unwrap();
    let links = SignedLinks::open(&Store::new(database), &"x".repeat(32)).await.unwrap();
    let session = SessionId::generate();
    let token = SignedLinks::new("x".repeat(32).as_bytes()).sign(session, "a", Timestamp(2_000));
    assert!(links.verify(&token, session, "a", Timestamp(0)));
}
