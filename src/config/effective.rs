//! What empty keys stand for, and the settings as people may see them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{AuthConfig, BetterAuthConfig, Config, DatabaseConfig};

/// What stands for a secret.
const HIDDEN: &str = "***";
/// What ends or escapes a path in an `SQLite` URL.
const SQLITE_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

impl Config {
    /// The address that clients on this machine reach `listen` by: loopback for "all addresses".
    pub fn local_address(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.listen.port())
    }

    /// The gateway's address as clients see it, without a slash at its end. `listen` must hold the
    /// port that was bound.
    pub fn public_url(&self) -> String {
        if self.public_url.is_empty() {
            format!("http://{}", self.local_address())
        } else {
            self.public_url.trim_end_matches('/').to_owned()
        }
    }

    /// `data_dir` from the root on, as container engines want it.
    pub fn data_dir(&self) -> PathBuf {
        // Fails only for an empty path, which `check` refuses, or without a current directory.
        std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone())
    }

    /// Where sessions and events are kept. A secret.
    pub fn database_url(&self) -> String {
        match self.own_database() {
            Some(path) => format!("sqlite:{}", utf8_percent_encode(&path.display().to_string(), SQLITE_PATH)),
            None => self.database.url.clone(),
        }
    }

    /// The file in the data directory that is the database where none is named.
    pub fn own_database(&self) -> Option<PathBuf> {
        self.database.url.is_empty().then(|| self.data_dir().join("streamgate.db"))
    }

    /// Where sessions and events are kept, for messages: without users, passwords and options.
    pub fn database_name(&self) -> String {
        let url = self.database_url();
        let Some((scheme, rest)) = url.split_once("://") else { return url };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may hold an `@` that should have been escaped.
        format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
    }

    /// What to say when that can't be opened: which it is, and what to look at.
    pub fn database_trouble(&self) -> String {
        let look_at = if self.database_url().starts_with("sqlite:") {
            "does `database.url` name a database of streamgate's, or a new file where one can be made?"
        } else {
            "is it running, and is `database.url` right?"
        };
        format!("can't open the database {} — {look_at}", self.database_name())
    }

    /// The exact name of Better Auth's session cookie.
    pub fn better_auth_cookie_name(&self) -> String {
        let configured = &self.auth.better_auth.cookie_name;
        if !configured.is_empty() {
            configured.clone()
        } else if self.public_url().starts_with("https:") {
            "__Secure-better-auth.session_token".to_owned()
        } else {
            "better-auth.session_token".to_owned()
        }
    }

    /// Where Better Auth's tables are; `None` while Better Auth is off. A secret.
    pub fn better_auth_database_url(&self) -> Option<&str> {
        let better_auth = &self.auth.better_auth;
        let url = if better_auth.database_url.is_empty() { &self.database.url } else { &better_auth.database_url };
        (!better_auth.secret.is_empty()).then_some(url)
    }

    /// What the gateway goes by, as TOML: empty keys filled in, secrets as `***`.
    pub fn to_public_toml(&self) -> Result<String, toml::ser::Error> {
        let mut shown = self.clone();
        shown.public_url = self.public_url();
        shown.data_dir = self.data_dir();
        shown.database.url = hidden_url(self.database_url());
        shown.auth.link_secret = hidden(&self.auth.link_secret).into();
        let better_auth = &mut shown.auth.better_auth;
        better_auth.secret = hidden(&self.auth.better_auth.secret).into();
        better_auth.cookie_name = self.better_auth_cookie_name();
        better_auth.database_url = hidden(&self.auth.better_auth.database_url).into();
        toml::to_string(&shown)
    }
}

/// Whether `url` is one of Postgres.
pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn hidden(secret: &str) -> &str {
    if secret.is_empty() { "" } else { HIDDEN }
}

/// A file's name is no secret; anything else may hold a password.
fn hidden_url(url: String) -> String {
    if url.starts_with("sqlite:") { url } else { hidden(&url).into() }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, max_connections } = self;
        formatter
            .debug_struct("DatabaseConfig")
            .field("url", &hidden_url(url.clone()))
            .field("max_connections", max_connections)
            .finish()
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed_origins, privileged_roles, link_secret, link_seconds, better_auth } = self;
        formatter
            .debug_struct("AuthConfig")
            .field("allowed_origins", allowed_origins)
            .field("privileged_roles", privileged_roles)
            .field("link_secret", &hidden(link_secret))
            .field("link_seconds", link_seconds)
            .field("better_auth", better_auth)
            .finish()
    }
}

impl fmt::Debug for BetterAuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, cookie_name, database_url } = self;
        formatter
            .debug_struct("BetterAuthConfig")
            .field("secret", &hidden(secret))
            .field("cookie_name", cookie_name)
            .field("database_url", &hidden(database_url))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with_secrets() -> Config {
        let mut config = Config::default();
        config.database.url = "postgres://user:hunter2@db/x".to_owned();
        config.auth.link_secret = "hunter2".to_owned();
        config.auth.better_auth.secret = "hunter2".to_owned();
        config.auth.better_auth.database_url = "postgres://user:hunter2@db/y".to_owned();
        config
    }

    #[test]
    fn secrets_are_neither_printed_nor_debugged() {
        let config = config_with_secrets();
        let printed = config.to_public_toml().unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(printed.matches("\"***\"").count(), 4, "{printed}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_database_is_named_without_its_credentials() {
        let name = |url: &str| {
            let mut config = Config::default();
            config.database.url = url.to_owned();
            config.database_name()
        };
        assert_eq!(name("postgres://user:hunt@er2@db:5/x?password=hunter2"), "postgres://db:5/x");
        assert_eq!(name("postgres://db/x"), "postgres://db/x");
        assert_eq!(name("sqlite:/a/b.db"), "sqlite:/a/b.db");
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let printed = Config::default().to_public_toml().unwrap();
        let again: Config = toml::from_str(&printed).unwrap();
        assert_eq!(again.public_url, "http://127.0.0.1:8080");
        assert_eq!(again.limits, Config::default().limits);
        assert_eq!(again.profiles, Config::default().profiles);
    }

    #[test]
    fn empty_keys_stand_for_something() {
        let mut config = Config { data_dir: "/tmp/a b?%".into(), ..Config::default() };
        assert_eq!(config.database_url(), "sqlite:/tmp/a b%3F%25/streamgate.db");
        assert_eq!(config.better_auth_cookie_name(), "better-auth.session_token");
        assert_eq!(config.better_auth_database_url(), None);
        config.listen = "[::]:81".parse().unwrap();
        assert_eq!(config.public_url(), "http://[::1]:81");
        config.public_url = "https://gate.example/".to_owned();
        assert_eq!(config.public_url(), "https://gate.example");
        assert_eq!(config.better_auth_cookie_name(), "__Secure-better-auth.session_token");
        assert!(Config::default().data_dir().is_absolute());

        let mut config = config_with_secrets();
        assert_eq!(config.better_auth_database_url(), Some("postgres://user:hunter2@db/y"));
        config.auth.better_auth.database_url.clear();
        assert_eq!(config.better_auth_database_url(), Some("postgres://user:hunter2@db/x"));
    }
}
