//! What a profile's agents reach besides nothing: their model, and hosts that are granted to them.

use std::fmt;
use std::path::PathBuf;

use axum::http::{HeaderValue, Uri};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use serde::{Deserialize, Serialize};
use streamgate_shim::control::PROXY;

use super::check::bad;
use super::{ConfigError, ProfileConfig};

/// Digits in a row that make the end of a model's name a date or a build, and not another model.
const DATE_DIGITS: usize = 3;

/// `profiles.<slug>.model_api.*`. Off while `kind` is `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelApiConfig {
    /// The API that the model speaks.
    pub kind: ModelApiKind,
    /// Where it is, perhaps with a path that all requests get in front; the vendor's own if empty.
    pub url: String,
    /// The variable of the gateway's environment that holds the key.
    pub key_env: String,
    /// Or the file.
    pub key_file: PathBuf,
    /// Certificates of authorities (PEM) that may have signed its own, besides those that browsers trust.
    pub ca_file: PathBuf,
    /// What may be requested, as `/v1/models/*`; what the API needs if empty.
    pub paths: Vec<String>,
}

/// An API that models speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelApiKind {
    /// No model is reached.
    #[default]
    None,
    /// Anthropic's Messages.
    Anthropic,
    /// `OpenAI`'s chat completions and responses, which many others speak too.
    Openai,
    /// Google's Gemini.
    Gemini,
}

/// `profiles.<slug>.prices.<model>.*`, in US dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Of what is neither read from the cache nor written to it.
    pub input: f64,
    /// Of what the model writes.
    pub output: f64,
    /// Of what is read from the cache; as `input` if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Of what is written to it; as `input` if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}

/// A key to a model. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelKey(String);

impl ModelKey {
    /// The key itself: for the request upstream, and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl ModelApiKind {
    /// Where the vendor has it.
    const fn vendor_url(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Anthropic => "https://api.anthropic.com",
            Self::Openai => "https://api.openai.com",
            Self::Gemini => "https://generativelanguage.googleapis.com",
        }
    }

    /// What agents need of it: what answers at once and tells what it used. Batches and work in the background
    /// do neither.
    const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Anthropic => &["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/*"],
            Self::Openai => &["/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/models/*"],
            Self::Gemini => &[
                "/v1beta/models",
                "/v1beta/models/*",
                "/v1beta/models/*:generateContent",
                "/v1beta/models/*:streamGenerateContent",
                "/v1beta/models/*:countTokens",
            ],
        }
    }
}

impl ModelApiConfig {
    /// Where the model is: scheme, host, perhaps a port and a path without a slash at its end. `None`: it can't be
    /// there.
    pub fn base(&self) -> Option<Uri> {
        let url = if self.url.is_empty() { self.kind.vendor_url() } else { &self.url };
        let uri = url.trim_end_matches('/').parse::<Uri>().ok()?;
        let plain = uri.query().is_none() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        (plain && !url.contains('#') && matches!(uri.scheme_str(), Some("http" | "https"))).then_some(uri)
    }

    /// What may be requested.
    pub fn paths(&self) -> Vec<String> {
        if self.paths.is_empty() {
            return self.kind.paths().iter().map(|&path| path.to_owned()).collect();
        }
        self.paths.clone()
    }

    /// Reads the key; `None`: the model needs none. `key` is this section's, for errors; the key itself is in none.
    pub fn key(&self, key: &str) -> Result<Option<ModelKey>, ConfigError> {
        let (text, place) = if !self.key_env.is_empty() {
            let place = format!("the variable `{}`, which `{key}.key_env` names,", self.key_env);
            let value = std::env::var(&self.key_env).map_err(|_| {
                ConfigError::new(format!("{place} is not set"), "set it to the key in the gateway's environment")
            })?;
            (value, place)
        } else if !self.key_file.as_os_str().is_empty() {
            let place = format!("`{}`, which `{key}.key_file` names,", self.key_file.display());
            let text = std::fs::read_to_string(&self.key_file).map_err(|error| {
                ConfigError::new(format!("{place} can't be read: {error}"), "make the file readable for the gateway")
            })?;
            (text, place)
        } else {
            return Ok(None);
        };
        let text = text.trim();
        if text.is_empty() || HeaderValue::from_str(&format!("Bearer {text}")).is_err() || !text.is_ascii() {
            return Err(ConfigError::new(format!("{place} holds no key"), "let it hold the key and nothing else"));
        }
        Ok(Some(ModelKey(text.to_owned())))
    }

    /// Reads `ca_file`: whom it trusts; nobody if there is none. `key` is this section's, for errors.
    pub fn authorities(&self, key: &str) -> Result<Vec<TrustAnchor<'static>>, ConfigError> {
        if self.ca_file.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        let fails = |why: &dyn fmt::Display| {
            let place = format!("`{}`, which `{key}.ca_file` names,", self.ca_file.display());
            ConfigError::new(
                format!("{place} can't be used: {why}"),
                "let it hold certificates: -----BEGIN CERTIFICATE-----",
            )
        };
        let found = CertificateDer::pem_file_iter(&self.ca_file).map_err(|error| fails(&error))?;
        let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| fails(&error))?;
        if found.is_empty() {
            return Err(fails(&"it holds no certificate"));
        }
        let mut store = RootCertStore::empty();
        for certificate in found {
            store.add(certificate).map_err(|error| fails(&error))?;
        }
        Ok(store.roots)
    }

    fn check(&self, key: &str) -> Result<(), ConfigError> {
        if self.kind == ModelApiKind::None {
            if *self == Self::default() {
                return Ok(());
            }
            return Err(ConfigError::new(
                format!("`{key}` says something, but `{key}.kind` is \"none\""),
                "set the kind to one of: anthropic, openai, gemini",
            ));
        }
        if self.base().is_none() {
            // Not shown: it may hold a password.
            return Err(ConfigError::new(
                format!("`{key}.url` is no address of a model"),
                "write scheme, host and perhaps a port and a path, and nothing else: \"https://api.example.com\"",
            ));
        }
        let name_of_variable = |name: &str| {
            name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
                && !name.starts_with(|first: char| first.is_ascii_digit())
        };
        if !name_of_variable(&self.key_env) {
            // Not shown: it may be the key itself.
            return Err(ConfigError::new(
                format!("`{key}.key_env` is not the name of a variable"),
                "name the variable of the gateway's environment that holds the key: \"ANTHROPIC_API_KEY\"",
            ));
        }
        let (by_variable, by_file) = (!self.key_env.is_empty(), !self.key_file.as_os_str().is_empty());
        if by_variable && by_file {
            let what = format!("`{key}.key_env` and `{key}.key_file` are both set");
            return Err(ConfigError::new(what, "remove one of them"));
        }
        if self.url.is_empty() && !by_variable && !by_file {
            return Err(ConfigError::new(
                format!("`{key}` names no key, and the vendor's own model needs one"),
                "set `key_env` to the variable that holds it, or `key_file` to the file",
            ));
        }
        if let Some(path) = self.paths.iter().find(|path| !path.starts_with('/') || path.contains(['?', '%', '#'])) {
            return Err(bad(&format!("{key}.paths"), path, "not a path", "write \"/v1/models\" or \"/v1/models/*\""));
        }
        self.authorities(key)?;
        self.key(key).map(drop)
    }
}

impl ProfileConfig {
    /// Whether its agents reach anything at all.
    pub fn uses_proxy(&self) -> bool {
        self.model_api.kind != ModelApiKind::None || !self.egress.is_empty()
    }

    /// What a model's tokens cost, if that is known: by its name, by its name without a date (`-20250929`,
    /// `-2025-08-07`, `-001`, `-latest`), or else by `*`.
    pub fn price(&self, model: &str) -> Option<&PriceConfig> {
        let named = self.prices.iter().filter(|(name, _)| is_model(model, name)).max_by_key(|(name, _)| name.len());
        named.map(|(_, price)| price).or_else(|| self.prices.get("*"))
    }

    /// Whether a budget can be kept to: whatever it is spent on has a price, for an agent asks for whichever model it
    /// likes. Agents that don't reach a model through the gateway say themselves what they cost.
    pub fn can_budget(&self) -> bool {
        self.model_api.kind == ModelApiKind::None || self.prices.contains_key("*")
    }

    /// The hosts and ports that are granted to its agents, in lower case.
    pub fn granted(&self) -> Vec<(String, u16)> {
        self.egress.iter().filter_map(|text| host_and_port(text)).collect()
    }

    /// Whether this part of the profile can work.
    pub(super) fn check_reach(&self, slug: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("profiles.{slug}.{name}");
        self.model_api.check(&key("model_api"))?;
        if let Some(text) = self.egress.iter().find(|text| host_and_port(text).is_none()) {
            return Err(bad(&key("egress"), text, "not a host and a port", "write \"api.example.org:443\""));
        }
        let is_price = |price: f64| price.is_finite() && price >= 0.0;
        for (model, price) in &self.prices {
            let all = [Some(price.input), Some(price.output), price.cache_read, price.cache_write];
            if let Some(wrong) = all.into_iter().flatten().find(|price| !is_price(*price)) {
                let mend = "set it to 0 or more US dollars per million tokens";
                return Err(bad(&format!("{}.\"{model}\"", key("prices")), wrong, "not a price", mend));
            }
        }
        let wants_proxy = self.command.iter().chain(self.env.values()).any(|text| text.contains(PROXY));
        if wants_proxy && !self.uses_proxy() {
            return Err(ConfigError::new(
                format!("`profiles.{slug}` has `{PROXY}` in its command or its environment, but reaches nothing"),
                format!("set `{}.kind`, or grant hosts with `{}`", key("model_api"), key("egress")),
            ));
        }
        Ok(())
    }
}

/// Whether `model` is the one that prices call `name`.
fn is_model(model: &str, name: &str) -> bool {
    let Some(rest) = model.strip_prefix("models/").unwrap_or(model).strip_prefix(name) else { return false };
    let Some(rest) = rest.strip_prefix(['-', '@', ':']) else { return rest.is_empty() };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest == "latest" || digits >= DATE_DIGITS && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Reads `api.example.org:443`, `192.0.2.7:443` or `[2001:db8::7]:443`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host).trim_end_matches('.').to_ascii_lowercase();
    let fits = match bracketed {
        Some(_) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
    };
    (fits && !host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn profile(toml: &str) -> ProfileConfig {
        toml::from_str(toml).unwrap()
    }

    fn error_of(toml: &str) -> String {
        profile(toml).check_reach("a").map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_model_is_found_by_its_name_with_or_without_a_date() {
        let profile = profile(
            "[prices]\n'claude-sonnet-4' = { input = 1, output = 0 }\n'claude-sonnet-4-5' = { input = 2, output = 0 }\n\
             'gpt-5' = { input = 3, output = 0 }\n'gemini-2.0-flash' = { input = 4, output = 0 }",
        );
        let input = |model: &str| profile.price(model).map(|price| price.input);
        for (model, price) in [
            ("claude-sonnet-4-5", Some(2.0)),
            ("claude-sonnet-4-5-20250929", Some(2.0)),
            ("claude-sonnet-4@20250514", Some(1.0)),
            ("claude-sonnet-4-6", None),
            ("gpt-5-2025-08-07", Some(3.0)),
            ("gpt-5-mini", None),
            ("gpt-5.1", None),
            ("models/gemini-2.0-flash-001", Some(4.0)),
            ("gemini-2.0-flash-latest", Some(4.0)),
            ("", None),
        ] {
            assert_eq!(input(model), price, "{model}");
        }
        let any = self::profile("[prices.'*']\ninput = 1\noutput = 2\n[prices.a]\ninput = 5\noutput = 5");
        assert_eq!(any.price("what").map(|price| price.output), Some(2.0));
        assert_eq!(any.price("a").map(|price| price.output), Some(5.0));
    }

    #[test]
    fn grants_are_hosts_with_ports() {
        let profile = profile("egress = ['API.example.org.:443', '[2606:4700::1]:8443', '1.1.1.1:53']");
        let granted = profile.granted();
        let shown = granted.iter().map(|(host, port)| format!("{host} {port}")).collect::<Vec<_>>();
        assert_eq!(shown, ["api.example.org 443", "2606:4700::1 8443", "1.1.1.1 53"]);
        for wrong in [
            "api.example.org",
            "https://api.example.org:443",
            "api.example.org:0",
            "*.org:443",
            ":443",
            "[a]:1",
            "a b:1",
        ] {
            let error = error_of(&format!("egress = ['{wrong}']"));
            assert!(error.starts_with("`profiles.a.egress` is `"), "{error}");
        }
    }

    #[test]
    fn what_can_not_work_is_told_without_the_secret() {
        let local = "[model_api]\nkind = 'openai'\nurl = 'http://127.0.0.1:8000/api/'\n";
        assert_eq!(error_of(local), "");
        assert_eq!(error_of(&format!("command = ['x', '{{proxy}}/v1']\n{local}")), "");
        for (toml, expected) in [
            ("[model_api]\nurl = 'http://x'", "`profiles.a.model_api` says something, but"),
            ("[model_api]\nkind = 'anthropic'", "`profiles.a.model_api` names no key"),
            ("[model_api]\nkind = 'openai'\nurl = 'https://u:hunter2@x'", "`profiles.a.model_api.url` is no address"),
            ("[model_api]\nkind = 'openai'\nurl = 'https://x/?key=hunter2'", "`profiles.a.model_api.url` is no"),
            ("[model_api]\nkind = 'openai'\nurl = 'ftp://x'", "`profiles.a.model_api.url` is no address"),
            ("[model_api]\nkind = 'gemini'\nkey_env = 'hunter2-x'", "`profiles.a.model_api.key_env` is not the name"),
            ("[model_api]\nkind = 'gemini'\nkey_env = 'NO_SUCH_KEY'", "the variable `NO_SUCH_KEY`, which `profiles.a."),
            (
                "[model_api]\nkind = 'gemini'\nkey_file = '/no/such'",
                "`/no/such`, which `profiles.a.model_api.key_file`",
            ),
            ("[model_api]\nkind = 'gemini'\nkey_file = '/dev/null'", "`/dev/null`, which `profiles.a.model_api."),
            ("[model_api]\nkind = 'gemini'\nkey_file = 'x'\nkey_env = 'x'", "`profiles.a.model_api.key_env` and"),
            ("[model_api]\nkind = 'openai'\nurl = 'http://x'\npaths = ['v1']", "`profiles.a.model_api.paths` is `v1`"),
            ("[prices.m]\ninput = -1\noutput = 1", "`profiles.a.prices.\"m\"` is `-1`"),
            ("env = { URL = '{proxy}' }", "`profiles.a` has `{proxy}` in its command"),
        ] {
            let error = error_of(toml);
            assert!(error.starts_with(expected) && error.contains(" — "), "{toml}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_never_shown() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hunter2\n").unwrap();
        let config = ModelApiConfig { key_file: file.path().to_owned(), ..ModelApiConfig::default() };
        let key = config.key("k").unwrap().unwrap();
        assert_eq!((key.reveal(), format!("{key:?}")), ("hunter2", "***".to_owned()));
        file.write_all(b"and more\n").unwrap();
        let error = config.key("k").unwrap_err().to_string();
        assert!(error.contains("holds no key") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_vouches_for_a_model_is_a_certificate_or_an_error() {
        let refused = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let ca_file = file.path().display();
            error_of(&format!("[model_api]\nkind = 'openai'\nurl = 'https://x'\nca_file = '{ca_file}'"))
        };
        let signed = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let (good, secret) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        assert_eq!(refused(&good), "");
        assert_eq!(refused(&format!("{good}{good}")), "");
        // `Zm9v` says "foo" in base64.
        let no_certificate = "-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----\n".to_owned();
        for wrong in [String::new(), secret, good.replace("END", "ENDE"), good + &no_certificate, no_certificate] {
            let error = refused(&wrong);
            assert!(error.contains("which `profiles.a.model_api.ca_file` names, can't be used: "), "{wrong}: {error}");
            assert!(error.contains(" — let it hold certificates"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_kind_stands_for_a_vendor() {
        let base = |toml: &str| profile(toml).model_api.base().unwrap().to_string();
        assert_eq!(base("[model_api]\nkind = 'anthropic'"), "https://api.anthropic.com/");
        assert_eq!(base("[model_api]\nkind = 'openai'\nurl = 'http://[::1]:80/a/b/'"), "http://[::1]:80/a/b");
        assert_eq!(profile("[model_api]\nkind = 'gemini'").model_api.paths().len(), 5);
        assert_eq!(profile("[model_api]\nkind = 'gemini'\npaths = ['/x']").model_api.paths(), ["/x"]);
    }
}
