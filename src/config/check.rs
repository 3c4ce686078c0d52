//! Refuses settings that can't work, alone or together, before anything is started.

use axum::http::Uri;
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

use super::effective::is_postgres;
use super::{Config, ConfigError, ProfileConfig, RuntimeKind};
use crate::domain::ProfileId;

/// The longest time that can be set, in seconds: ten years. More would be beyond what clocks can add.
const MOST_SECONDS: i64 = 10 * 365 * 24 * 3600;
/// The fewest characters of a secret that signs something.
const SECRET_CHARACTERS: usize = 32;
/// What Better Auth signs with when nobody gave it a secret: everybody knows it.
const BETTER_AUTH_DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";

impl Config {
    /// Whether a gateway can run on these settings; the first reason why not.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        self.check_limits()?;
        self.check_database()?;
        self.check_auth()?;
        self.check_profiles()?;
        EnvFilter::try_new(&self.log.filter).map_err(|error| {
            bad(
                "log.filter",
                &self.log.filter,
                &error.to_string(),
                "write levels and targets: \"info\", \"warn,streamgate=debug\"",
            )
        })?;
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        if self.runtime.kind == RuntimeKind::Process && !self.listen.ip().is_loopback() && !self.runtime.process.trusted
        {
            return Err(bad(
                "listen",
                self.listen,
                "beyond this machine, and the process runtime doesn't box agents in",
                "use runtime.kind = \"docker\", or set runtime.process.trusted = true if you trust every user",
            ));
        }
        if self.listen == self.admin.listen && self.listen.port() != 0 {
            return Err(bad("admin.listen", self.admin.listen, "the same as `listen`", "choose another port"));
        }
        if !self.public_url.is_empty() && !is_origin(self.public_url.trim_end_matches('/')) {
            return Err(bad(
                "public_url",
                &self.public_url,
                "not a scheme, a host and perhaps a port",
                "write it without a path: \"https://gate.example.com\"",
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::new("`data_dir` is empty", "name a directory: \"./data\""));
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = Table::try_from(&self.limits).unwrap_or_default();
        let zero = limits.iter().find(|(_, value)| **value == Value::Integer(0));
        if let Some((key, _)) = zero {
            return Err(at_least_one(&format!("limits.{key}")));
        }
        let others = [
            ("database.max_connections", u64::from(self.database.max_connections)),
            ("runtime.start_timeout_seconds", self.runtime.start_timeout_seconds),
            ("auth.link_seconds", self.auth.link_seconds),
        ];
        if let Some((key, _)) = others.iter().find(|(_, value)| *value == 0) {
            return Err(at_least_one(key));
        }
        if let Some((key, seconds)) = too_long(&Table::try_from(self).unwrap_or_default(), "") {
            let mend = format!("set it to at most {MOST_SECONDS}, ten years");
            return Err(bad(&key, seconds, "longer than any clock runs", &mend));
        }
        let (ping, dead) = (self.limits.ping_seconds, self.limits.dead_seconds);
        if dead <= ping {
            return Err(bad(
                "limits.dead_seconds",
                dead,
                &format!("not above `limits.ping_seconds` ({ping}), so every connection would be dead"),
                "let it be at least twice that",
            ));
        }
        Ok(())
    }

    /// Whether the database can be opened by these settings: all that tokens need of them.
    pub fn check_database(&self) -> Result<(), ConfigError> {
        let url = &self.database.url;
        if url.is_empty() || url.starts_with("sqlite:") || is_postgres(url) {
            return Ok(());
        }
        Err(ConfigError::new(
            "`database.url` is neither `sqlite:…` nor `postgres://…`",
            "write \"postgres://USER:PASSWORD@HOST/DATABASE\", or leave it empty for SQLite in `data_dir`",
        ))
    }

    fn check_auth(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        if let Some(origin) = auth.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(bad(
                "auth.allowed_origins",
                origin,
                "not an origin",
                "write scheme, host and perhaps port, without a slash at the end: \"https://app.example.com\"",
            ));
        }
        for (key, secret) in
            [("auth.link_secret", &auth.link_secret), ("auth.better_auth.secret", &auth.better_auth.secret)]
        {
            if !secret.is_empty() && secret.chars().count() < SECRET_CHARACTERS {
                return Err(ConfigError::new(
                    format!("`{key}` is shorter than {SECRET_CHARACTERS} characters"),
                    "make one with `openssl rand -hex 32`",
                ));
            }
        }
        if auth.better_auth.secret == BETTER_AUTH_DEFAULT_SECRET {
            return Err(ConfigError::new(
                "`auth.better_auth.secret` is Better Auth's built-in one, which everybody knows",
                "give Better Auth a secret of its own (`openssl rand -hex 32`) and set the same here",
            ));
        }
        match self.better_auth_database_url() {
            Some(url) if !is_postgres(url) => Err(ConfigError::new(
                "`auth.better_auth.secret` is set, but no Postgres holds Better Auth's tables",
                "set `auth.better_auth.database_url` to \"postgres://…\"",
            )),
            _ => Ok(()),
        }
    }

    fn check_profiles(&self) -> Result<(), ConfigError> {
        for (slug, profile) in &self.profiles {
            if ProfileId::parse(ProfileId::from_slug(slug).as_str()).is_none() {
                return Err(bad(
                    "profiles",
                    slug,
                    "not a name for a profile",
                    "use 1 to 64 letters, digits, `-` or `_`",
                ));
            }
            self.check_profile(slug, profile)?;
        }
        if !self.profiles.contains_key(&self.default_profile) {
            let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
            let mend = if known.is_empty() {
                "add a section [profiles.NAME] and name it here".to_owned()
            } else {
                format!("set it to one of: {}", known.join(", "))
            };
            return Err(bad("default_profile", &self.default_profile, "not among `profiles`", &mend));
        }
        let user = &self.runtime.docker.user;
        let is_id = |text: &str| text.parse::<u32>().is_ok();
        if !user.is_empty() && !user.split_once(':').is_some_and(|(uid, gid)| is_id(uid) && is_id(gid)) {
            return Err(bad("runtime.docker.user", user, "not UID:GID", "write two numbers: \"10001:10001\""));
        }
        Ok(())
    }

    fn check_profile(&self, slug: &str, profile: &ProfileConfig) -> Result<(), ConfigError> {
        let key = |name: &str| format!("profiles.{slug}.{name}");
        match self.runtime.kind {
            RuntimeKind::Docker if profile.image.is_empty() => {
                return Err(ConfigError::new(
                    format!("`{}` is empty, and runtime.kind is \"docker\"", key("image")),
                    "name the image that holds the agent",
                ));
            }
            RuntimeKind::Process if profile.command.first().is_none_or(String::is_empty) => {
                return Err(ConfigError::new(
                    format!("`{}` is empty, and runtime.kind is \"process\"", key("command")),
                    "name the agent's program and its arguments: [\"my-agent\", \"--stdio\"]",
                ));
            }
            _ => (),
        }
        let is_amount = |amount: f64| amount.is_finite() && amount >= 0.0;
        if !is_amount(profile.max_budget_usd) {
            let why = "not an amount";
            return Err(bad(&key("max_budget_usd"), profile.max_budget_usd, why, "set it to 0 or more US dollars"));
        }
        if profile.max_budget_usd > 0.0 && !profile.can_budget() {
            return Err(bad(
                &key("max_budget_usd"),
                profile.max_budget_usd,
                "a budget, but models have no price that are not named: its agents may ask for any",
                &format!(
                    "add [{}.\"*\"] with the price of the dearest one that the key reaches, or set it to 0",
                    key("prices")
                ),
            ));
        }
        if !is_amount(profile.cpus) || profile.cpus == 0.0 {
            return Err(bad(&key("cpus"), profile.cpus, "not a number of CPUs", "set it above 0: 0.5"));
        }
        for (name, value) in [("memory_bytes", profile.memory_bytes), ("pids", profile.pids)] {
            if value < 1 {
                return Err(at_least_one(&key(name)));
            }
        }
        profile.check_reach(slug)
    }
}

pub(super) fn bad(key: &str, value: impl std::fmt::Display, why: &str, mend: &str) -> ConfigError {
    ConfigError::new(format!("`{key}` is `{value}`, {why}"), mend)
}

fn at_least_one(key: &str) -> ConfigError {
    ConfigError::new(format!("`{key}` is less than 1, with which nothing works"), "set it to 1 or more")
}

/// The first time in `table` that is beyond [`MOST_SECONDS`], under its full key.
fn too_long(table: &Table, within: &str) -> Option<(String, i64)> {
    table.iter().find_map(|(key, value)| match value {
        Value::Table(inner) => too_long(inner, &format!("{within}{key}.")),
        Value::Integer(value) if key.ends_with("seconds") && *value > MOST_SECONDS => {
            Some((format!("{within}{key}"), *value))
        }
        _ => None,
    })
}

/// Whether `text` is a web origin: `http` or `https`, a host, perhaps a port, and nothing else.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) => {
            !authority.as_str().contains('@') && text == format!("{scheme}://{authority}")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error after one change to the defaults.
    fn error_of(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn the_defaults_work() {
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(error_of(|config| config.runtime.kind = RuntimeKind::Docker), "");
    }

    #[test]
    fn unboxed_agents_stay_on_this_machine_unless_trusted() {
        let open = |config: &mut Config| config.listen = "0.0.0.0:80".parse().unwrap();
        assert!(error_of(open).starts_with("`listen` is `0.0.0.0:80`, beyond this machine"));
        let trusted = |config: &mut Config| {
            open(config);
            config.runtime.process.trusted = true;
        };
        assert_eq!(error_of(trusted), "");
        let boxed = |config: &mut Config| {
            open(config);
            config.runtime.kind = RuntimeKind::Docker;
        };
        assert_eq!(error_of(boxed), "");
    }

    #[test]
    fn what_can_not_work_is_refused_by_name() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 18] = [
            ("`admin.listen` is", |config| config.admin.listen = config.listen),
            ("`public_url` is `https://a.example/x`", |config| config.public_url = "https://a.example/x".to_owned()),
            ("`public_url` is `a.example`", |config| config.public_url = "a.example".to_owned()),
            ("`data_dir` is empty", |config| config.data_dir = "".into()),
            ("`limits.task_seconds` is `315360001`", |config| config.limits.task_seconds = 315_360_001),
            ("`limits.dead_seconds` is `25`", |config| config.limits.dead_seconds = 25),
            ("`limits.frame_bytes` is less than 1", |config| config.limits.frame_bytes = 0),
            ("`database.max_connections` is less than 1", |config| config.database.max_connections = 0),
            ("`database.url` is neither", |config| config.database.url = "mysql://x:hunter2@y".to_owned()),
            ("`auth.allowed_origins` is `*`", |config| config.auth.allowed_origins = vec!["*".to_owned()]),
            ("`auth.allowed_origins` is `https://a.example/`", |config| {
                config.auth.allowed_origins = vec!["https://a.example/".to_owned()];
            }),
            ("`auth.link_secret` is shorter", |config| config.auth.link_secret = "hunter2".to_owned()),
            ("`default_profile` is `other`", |config| config.default_profile = "other".to_owned()),
            ("`profiles` is `a b`", |config| {
                config.profiles.insert("a b".to_owned(), ProfileConfig::demo());
            }),
            ("`profiles.a.command` is empty", |config| {
                config.profiles.insert("a".to_owned(), ProfileConfig::default());
            }),
            ("`profiles.a.image` is empty", |config| {
                config.runtime.kind = RuntimeKind::Docker;
                config.profiles.insert("a".to_owned(), ProfileConfig::default());
            }),
            ("`profiles.a.cpus` is `0`", |config| {
                config.profiles.insert("a".to_owned(), ProfileConfig { cpus: 0.0, ..ProfileConfig::demo() });
            }),
            ("`runtime.docker.user` is `root`", |config| config.runtime.docker.user = "root".to_owned()),
        ];
        for (expected, change) in cases {
            let error = error_of(change);
            assert!(error.starts_with(expected) && error.contains(" — "), "{expected}: {error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_budget_needs_a_price_for_whatever_model_an_agent_asks_for() {
        let with = |toml: &str| {
            let mut profile: ProfileConfig = toml::from_str(toml).unwrap();
            profile.command = ProfileConfig::demo().command;
            error_of(|config| drop(config.profiles.insert("a".to_owned(), profile)))
        };
        let (budget, api) = ("model = 'm'\nmax_budget_usd = 2\n", "[model_api]\nkind = 'openai'\nurl = 'http://x'\n");
        let priced = |model: &str| format!("[prices.'{model}']\ninput = 1\noutput = 2\n");
        for prices in [String::new(), priced("m")] {
            let error = with(&format!("{budget}{api}{prices}"));
            assert!(error.starts_with("`profiles.a.max_budget_usd` is `2`, a budget, but"), "{error}");
            assert!(error.contains(" — add [profiles.a.prices.\"*\"]"), "{error}");
            assert_eq!(with(&format!("model = 'm'\n{api}{prices}")), "");
        }
        assert_eq!(with(&format!("{budget}{api}{}{}", priced("m"), priced("*"))), "");
        assert_eq!(with(budget), "", "its agent says what it costs");
    }

    #[test]
    fn better_auth_needs_a_secret_of_its_own_and_postgres() {
        let with = |secret: &str, url: &str| {
            error_of(|config| {
                config.auth.better_auth.secret = secret.to_owned();
                config.database.url = url.to_owned();
            })
        };
        let good = "0123456789abcdef0123456789abcdef";
        assert!(with("short", "postgres://db/x").starts_with("`auth.better_auth.secret` is shorter"));
        assert!(with(BETTER_AUTH_DEFAULT_SECRET, "postgres://db/x").contains("everybody knows"));
        assert!(with(good, "").contains("no Postgres"));
        assert_eq!(with(good, "postgres://db/x"), "");
    }
}
