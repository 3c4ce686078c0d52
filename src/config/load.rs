//! Reads the settings: the file, then the environment, each key by the type that its default has.
//!
//! Every mistake is one line that names the key, the value (never a secret's) and the fix.

use std::collections::BTreeMap;
use std::path::Path;

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use toml::{Table, Value};

use super::{Config, ProfileConfig};

/// What the variables that are settings start with.
const PREFIX: &str = "STREAMGATE_";
/// Variables with the prefix that are no settings: for `chat`, `--config`, docker-compose.yml.
const NO_SETTINGS: [&str; 4] = ["STREAMGATE_TOKEN", "STREAMGATE_URL", "STREAMGATE_CONFIG", "STREAMGATE_DATA"];
/// What no settings start with: what tests are told about the machine.
const TEST_PREFIX: &str = "STREAMGATE_TEST_";
/// The settings that are never shown, and that a `…_FILE` variable may name a file for.
const SECRETS: [[&str; 3]; 4] = [
    ["database", "url", ""],
    ["auth", "link_secret", ""],
    ["auth", "better_auth", "secret"],
    ["auth", "better_auth", "database_url"],
];
/// The longest value that is quoted back, in bytes.
const QUOTED_BYTES: usize = 100;

/// A setting that can't be: what is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} — {mend}")]
pub struct ConfigError {
    /// Which key, which value, where.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: one_line(&what.into()), mend: one_line(&mend.into()) }
    }
}

/// This process's environment; what is not UTF-8 in it is replaced.
pub fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

impl Config {
    /// The defaults, changed by `file`, changed by the `STREAMGATE_…` variables of `environment`.
    /// Says nothing about whether they fit together: [`Config::check`] does.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let file = file.map_or_else(|| Ok(Layer::default()), Layer::from_file)?;
        let environment = Layer::from_environment(environment)?;
        let mut figment = Figment::new();
        // A file that lists profiles means these and no others.
        if file.table.get("profiles").is_none_or(|profiles| profiles.get("demo").is_some()) {
            figment = figment.merge(Serialized::default("profiles.demo", ProfileConfig::demo()));
        }
        let mut config: Self =
            figment.merge(&file).merge(&environment).extract().map_err(|error| explain(&error, &file, &environment))?;
        // The only agent there is need not be named.
        let is_named = [&file, &environment].iter().any(|layer| layer.table.contains_key("default_profile"));
        if let (false, 1, Some(only)) = (is_named, config.profiles.len(), config.profiles.keys().next()) {
            config.default_profile.clone_from(only);
        }
        Ok(config)
    }
}

/// Settings from one place.
#[derive(Default)]
struct Layer {
    /// Where they are from, for people; empty for the environment, whose keys have variables.
    name: String,
    table: Table,
    /// The variable of each key that came from one.
    variables: BTreeMap<Vec<String>, String>,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(&self.table).data()
    }
}

impl Layer {
    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = format!("`{}`", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(format!("can't read {name}: {error}"), "check the path that `--config` names")
        })?;
        let table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::new(format!("{name} line {line} is not TOML: {}", error.message()), "mend that line")
        })?;
        Ok(Self { name, table, variables: BTreeMap::new() })
    }

    fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if NO_SETTINGS.contains(&variable.as_str()) || variable.starts_with(TEST_PREFIX) {
                continue;
            }
            let path = path_of(name);
            match secret_of_file(&path) {
                Some(_) if text.is_empty() => (),
                Some(secret) => {
                    let content = std::fs::read_to_string(&text).map_err(|error| {
                        ConfigError::new(
                            format!("can't read `{text}`, which `{variable}` names: {error}"),
                            "make the file readable for the gateway, or unset the variable",
                        )
                    })?;
                    layer.set(secret, variable, content.trim_end_matches(['\r', '\n']))?;
                }
                None => layer.set(path, variable, &text)?,
            }
        }
        Ok(layer)
    }

    fn set(&mut self, path: Vec<String>, variable: String, text: &str) -> Result<(), ConfigError> {
        if let Some(other) = self.variables.get(&path) {
            let what = format!("`{variable}` and `{other}` both set `{}`", path.join("."));
            return Err(ConfigError::new(what, "unset one of them"));
        }
        let shape = shape_of(&path);
        if matches!(shape, Some(Value::Table(_))) {
            let what = format!("`{variable}` names a section, not a setting");
            return Err(ConfigError::new(what, format!("set its keys one by one: `{variable}__…`")));
        }
        let Some((key, parents)) = path.split_last() else { return Ok(()) };
        let mut table = &mut self.table;
        for parent in parents {
            let section = table.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(section) = section else {
                return Err(ConfigError::new(format!("unknown setting `{variable}`"), "unset it"));
            };
            table = section;
        }
        table.insert(key.clone(), typed(shape.as_ref(), text));
        self.variables.insert(path, variable);
        Ok(())
    }

    fn value(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.table.get(first)?, |value, key| match value {
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            value => value.get(key),
        })
    }
}

/// The key that a variable's name, without the prefix, stands for. Names in a profile's environment
/// keep their letters as they are; all others are lower case.
fn path_of(name: &str) -> Vec<String> {
    let mut parts = name.splitn(4, "__").map(str::to_owned).collect::<Vec<_>>();
    let is_agent_variable =
        parts.len() == 4 && parts[0].eq_ignore_ascii_case("profiles") && parts[2].eq_ignore_ascii_case("env");
    if is_agent_variable {
        parts[..3].iter_mut().for_each(|part| part.make_ascii_lowercase());
        return parts;
    }
    name.to_ascii_lowercase().split("__").map(str::to_owned).collect()
}

/// The secret whose file `path` names: `database.url` for `database.url_file`.
fn secret_of_file(path: &[String]) -> Option<Vec<String>> {
    let (last, parents) = path.split_last()?;
    let mut secret = parents.to_vec();
    secret.push(last.strip_suffix("_file")?.to_owned());
    secrets().any(|known| known == secret).then_some(secret)
}

fn secrets() -> impl Iterator<Item = Vec<&'static str>> {
    SECRETS.iter().map(|path| path.iter().copied().filter(|key| !key.is_empty()).collect())
}

/// Whether a value at `path` is, holds or is a part of what must not be shown. An agent's environment
/// is not meant for secrets, but that is where they end up.
fn is_secret(path: &[String]) -> bool {
    let overlaps = |secret: Vec<&'static str>| secret.iter().zip(path).all(|(key, other)| key == other);
    let in_agent_environment =
        path.first().is_some_and(|key| key == "profiles") && path.get(2).is_none_or(|key| key == "env");
    in_agent_environment || secrets().any(overlaps)
}

/// What kind of value the setting at `path` has, shown by its default; `None` for no setting of ours.
fn shape_of(path: &[String]) -> Option<Value> {
    let (root, keys) = match path {
        [profiles, _slug, keys @ ..] if profiles == "profiles" => (Value::try_from(ProfileConfig::default()), keys),
        _ => (Value::try_from(Config::default()), path),
    };
    if let [env, _name] = keys
        && env == "env"
    {
        return Some(Value::String(String::new()));
    }
    if let [prices, _model, _kind] = keys
        && prices == "prices"
    {
        return Some(Value::Float(0.0));
    }
    keys.iter().try_fold(root.ok()?, |value, key| value.get(key).cloned())
}

/// Reads a variable's text as what the setting is. Text that is no such thing stays text, which the
/// setting then refuses.
fn typed(shape: Option<&Value>, text: &str) -> Value {
    let read = match shape {
        Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
        Some(Value::Float(_)) => text.parse().ok().map(Value::Float),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) if text.starts_with('[') => {
            format!("list = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("list"))
        }
        Some(Value::Array(_)) => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Some(Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect()))
        }
        _ => None,
    };
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Figment's error in our words.
fn explain(error: &figment::Error, file: &Layer, environment: &Layer) -> ConfigError {
    let mut path = error.path.clone();
    if let Kind::UnknownField(field, _) = &error.kind
        && path.last() != Some(field)
    {
        path.push(field.clone());
    }
    let key = path.join(".");
    // A section that is wrong as a whole is known by the first variable that sets a part of it, a list's entry by
    // the list's.
    let variable = environment.variables.iter().find(|(key, _)| key.starts_with(&path) || path.starts_with(key));
    let (layer, place) = match variable.filter(|_| !path.is_empty()) {
        Some((_, variable)) => (environment, format!("`{variable}`")),
        None => (file, file.name.clone()),
    };
    if let Kind::UnknownField(_, known) = &error.kind {
        return ConfigError::new(
            format!("unknown key `{key}` in {place}"),
            format!("remove it, or use one of: {}", known.join(", ")),
        );
    }
    let value = match layer.value(&path) {
        _ if is_secret(&path) => "what it is".to_owned(),
        Some(Value::Table(_)) => "a table".to_owned(),
        Some(value) => shorten(value.to_string()),
        None => "missing".to_owned(),
    };
    let mend = match &error.kind {
        _ if key.ends_with("listen") => "set it to an address and a port: \"127.0.0.1:8080\"".to_owned(),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("set it to {}", in_words(expected))
        }
        Kind::UnknownVariant(_, known) => format!("set it to one of: {}", known.join(", ")),
        _ if is_secret(&path) => "see its comment in config/streamgate.toml".to_owned(),
        other => format!("{other}; see its comment in config/streamgate.toml"),
    };
    ConfigError::new(format!("`{key}` can't be {value} (in {place})"), mend)
}

/// What serde calls a type, for people.
fn in_words(expected: &str) -> &str {
    match expected {
        "u64" | "usize" => "a whole number, 0 or more",
        "u32" => "a whole number from 0 to 4294967295",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list: [\"a\", \"b\"]",
        expected if expected.starts_with("struct") || expected == "a map" => "a table with keys",
        expected => expected,
    }
}

fn shorten(mut text: String) -> String {
    if crate::domain::cut_at_character(&mut text, QUOTED_BYTES) {
        text.push('…');
    }
    text
}

fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::{LogFormat, RuntimeKind};

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(on_disk.path()), environment)
            .map_err(|error| error.to_string().replace(&on_disk.path().display().to_string(), "FILE"))
    }

    fn env(name: &str, value: &str) -> Result<Config, String> {
        load("", &[(name, value)])
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(Config::load(None, []), Ok(Config::default()));
        assert_eq!(load("", &[("PATH", "/bin"), ("STREAMGATE_TOKEN", "rc_1"), ("STREAMGATE_TEST_X", "1")]), {
            Ok(Config::default())
        });
    }

    #[test]
    fn the_file_changes_the_default_and_the_environment_the_file() {
        let file = "listen = '127.0.0.1:1'\n[limits]\nconnections = 7\nping_seconds = 3";
        let config = load(file, &[("STREAMGATE_LIMITS__PING_SECONDS", "4")]).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!((config.limits.connections, config.limits.ping_seconds), (7, 4));
        assert_eq!(config.limits.dead_seconds, 60);
    }

    #[test]
    fn variables_are_read_as_what_the_key_is() {
        let config = load(
            "",
            &[
                ("STREAMGATE_RUNTIME__KIND", "docker"),
                ("STREAMGATE_RUNTIME__PROCESS__TRUSTED", "true"),
                ("STREAMGATE_LOG__FORMAT", "json"),
                ("STREAMGATE_AUTH__LINK_SECRET", "12345678901234567890123456789012"),
                ("STREAMGATE_AUTH__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
                ("STREAMGATE_PROFILES__DEMO__COMMAND", r#"["sh", "-c", "a, b"]"#),
                ("STREAMGATE_PROFILES__DEMO__CPUS", "2"),
                ("STREAMGATE_PROFILES__DEMO__PRICES__MOCK-MODEL__INPUT", "3"),
                ("STREAMGATE_PROFILES__DEMO__PRICES__MOCK-MODEL__OUTPUT", "15"),
                ("STREAMGATE_PROFILES__DEMO__MODEL_API__KIND", "openai"),
                ("STREAMGATE_PROFILES__DEMO__ENV__Mixed_Case__Name", "7"),
            ],
        )
        .unwrap();
        assert_eq!(config.runtime.kind, RuntimeKind::Docker);
        assert!(config.runtime.process.trusted);
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.auth.link_secret, "12345678901234567890123456789012");
        assert_eq!(config.auth.allowed_origins, ["https://a.example", "https://b.example"]);
        let demo = &config.profiles["demo"];
        assert_eq!(demo.command, ["sh", "-c", "a, b"]);
        assert!((demo.cpus - 2.0).abs() < f64::EPSILON);
        assert!((demo.prices["mock-model"].output - 15.0).abs() < f64::EPSILON);
        assert_eq!(demo.model_api.kind, crate::config::ModelApiKind::Openai);
        assert_eq!(demo.env["Mixed_Case__Name"], "7");
        assert_eq!(demo.name, "Demo agent", "a variable changes the built-in profile key by key");
    }

    #[test]
    fn profiles_of_a_file_replace_the_demo_unless_they_name_it() {
        let config = load("[profiles.mine]\ncommand = ['mine']", &[]).unwrap();
        assert_eq!(config.profiles.keys().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(config.profiles["mine"].pids, 256);
        assert_eq!(config.default_profile, "mine", "the only one need not be named");
        let config = load("default_profile = 'other'\n[profiles.mine]\ncommand = ['mine']", &[]).unwrap();
        assert_eq!(config.default_profile, "other", "what is named is not second-guessed");
        let config = load("[profiles.mine]\ncommand = ['mine']\n[profiles.demo]", &[]).unwrap();
        assert_eq!(config.default_profile, "demo");
        let config = load("[profiles.demo]\nimage = 'mine'", &[]).unwrap();
        assert_eq!(config.profiles["demo"], ProfileConfig { image: "mine".to_owned(), ..ProfileConfig::demo() });
    }

    #[test]
    fn unknown_keys_are_named_with_those_there_are() {
        for (file, variable, key) in [
            ("lisen = 1", None, "unknown key `lisen` in `FILE` — remove it, or use one of: listen, public_url, "),
            ("[admin]\nport = 1", None, "unknown key `admin.port` in `FILE` — remove it, or use one of: listen"),
            ("[profiles.a]\nx = 1", None, "unknown key `profiles.a.x` in `FILE` — "),
            ("", Some("STREAMGATE_LISEN"), "unknown key `lisen` in `STREAMGATE_LISEN` — remove it"),
            (
                "",
                Some("STREAMGATE_LIMIT__CONNECTIONS"),
                "unknown key `limit` in `STREAMGATE_LIMIT__CONNECTIONS` — remove it, or use one of: listen, ",
            ),
            ("", Some("STREAMGATE_LIMITS__PING"), "unknown key `limits.ping` in `STREAMGATE_LIMITS__PING` — "),
            ("[limits]\nx = 1", Some("STREAMGATE_LIMITS__PINGS"), "unknown key `limits."),
        ] {
            let variables: Vec<_> = variable.map(|name| (name, "secret")).into_iter().collect();
            let error = load(file, &variables).unwrap_err();
            assert!(error.starts_with(key), "{error}");
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn bad_values_are_named_with_the_fix() {
        for (result, expected) in [
            (
                env("STREAMGATE_LIMITS__PING_SECONDS", "soon"),
                "`limits.ping_seconds` can't be \"soon\" (in `STREAMGATE_LIMITS__PING_SECONDS`) — set it to a whole \
                 number, 0 or more",
            ),
            (
                load("[limits]\nconnections = -1", &[]),
                "`limits.connections` can't be -1 (in `FILE`) — set it to a whole number, 0 or more",
            ),
            (
                load("listen = '8080'", &[]),
                "`listen` can't be \"8080\" (in `FILE`) — set it to an address and a port: \"127.0.0.1:8080\"",
            ),
            (
                env("STREAMGATE_RUNTIME__KIND", "podman"),
                "`runtime.kind` can't be \"podman\" (in `STREAMGATE_RUNTIME__KIND`) — set it to one of: process, docker",
            ),
            (
                load("[runtime.process]\ntrusted = 'yes'", &[]),
                "`runtime.process.trusted` can't be \"yes\" (in `FILE`) — set it to true or false",
            ),
            (
                env("STREAMGATE_AUTH__ALLOWED_ORIGINS", "[1]"),
                "`auth.allowed_origins.0` can't be 1 (in `STREAMGATE_AUTH__ALLOWED_ORIGINS`) — set it to a text in \
                 quotes",
            ),
            (
                env("STREAMGATE_DATABASE", "x"),
                "`STREAMGATE_DATABASE` names a section, not a setting — set its keys one by one: \
                 `STREAMGATE_DATABASE__…`",
            ),
        ] {
            assert_eq!(result.unwrap_err(), expected);
        }
        let error = load("a = 1\nb = = 2", &[]).unwrap_err();
        assert!(error.starts_with("`FILE` line 2 is not TOML: ") && error.ends_with(" — mend that line"), "{error}");
        let error = Config::load(Some(Path::new("/nonexistent/x.toml")), []).unwrap_err().to_string();
        assert!(error.starts_with("can't read `/nonexistent/x.toml`: "), "{error}");
    }

    #[test]
    fn a_secret_of_the_wrong_kind_is_not_shown() {
        for file in [
            "[database]\nurl = 815",
            "database = '815'",
            "[auth]\nlink_secret = 815",
            "[auth]\nbetter_auth = '815'",
            "[auth.better_auth]\nsecret = ['815']",
            "[profiles.demo.env]\nKEY = 815",
        ] {
            let error = load(file, &[]).unwrap_err();
            assert!(!error.contains("815"), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_too() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"postgres://u:p@h/d\n").unwrap();
        let path = secret.path().display().to_string();
        let config = env("STREAMGATE_DATABASE__URL_FILE", &path).unwrap();
        assert_eq!(config.database.url, "postgres://u:p@h/d");
        assert_eq!(env("STREAMGATE_DATABASE__URL_FILE", ""), Ok(Config::default()));

        let both = load("", &[("STREAMGATE_DATABASE__URL_FILE", &path), ("STREAMGATE_DATABASE__URL", "x")]);
        assert!(both.unwrap_err().ends_with("both set `database.url` — unset one of them"));
        let missing = env("STREAMGATE_AUTH__BETTER_AUTH__SECRET_FILE", "/nonexistent/x").unwrap_err();
        assert!(missing.starts_with("can't read `/nonexistent/x`, which `STREAMGATE_AUTH__BETTER_AUTH__SECRET_FILE`"));
        assert!(env("STREAMGATE_LISTEN_FILE", &path).unwrap_err().starts_with("unknown key `listen_file`"));
    }
}
