//! A profile's model as the gateway reaches it: where it is, what may be asked, and the key.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tower::Service;

use super::answer::BoxError;
use super::paths::Paths;
use super::question::Question;
use super::scrub::Scrubber;
use crate::config::{ConfigError, ModelApiConfig, ModelApiKind, ModelKey};

/// How long a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one is kept for the next request.
const KEEP: Duration = Duration::from_mins(1);
/// How many of them, to one host.
const KEPT: usize = 32;
/// Headers by which somebody says who they are. An agent's own are of no interest to the model.
const CREDENTIALS: [&str; 6] =
    ["authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"];
/// Headers that are about one connection (RFC 9110 §7.6.1), or that are made anew.
const OF_A_CONNECTION: [&str; 10] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "host",
    "content-length",
];
/// Parameters by which somebody says who they are.
const CREDENTIAL_PARAMETERS: [&str; 3] = ["key", "api_key", "access_token"];

/// Speaks to a model. Clones share their connections.
pub(super) type Client = hyper_util::client::legacy::Client<Connector, Question>;

/// Makes it. Names are looked up by the system; certificates must be signed by whom browsers trust, or whom the
/// profile's `ca_file` names.
fn client(name: &str, config: &ModelApiConfig) -> Result<Client, ConfigError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.extend(config.authorities(name)?);
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new(format!("TLS can't be set up: {error}"), "report it, with the version"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP)
        .pool_max_idle_per_host(KEPT)
        .build(Connector(https)))
}

/// A profile's model.
pub(super) struct Upstream {
    pub(super) kind: ModelApiKind,
    pub(super) client: Client,
    pub(super) paths: Paths,
    base: Uri,
    key: Option<ModelKey>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Upstream {
    /// Reads the key. `None`: that profile has no model.
    pub(super) fn new(slug: &str, config: &ModelApiConfig) -> Result<Option<Self>, ConfigError> {
        if config.kind == ModelApiKind::None {
            return Ok(None);
        }
        let name = format!("profiles.{slug}.model_api");
        let Some(base) = config.base() else {
            return Err(ConfigError::new(format!("`{name}.url` is no address of a model"), "see `config check`"));
        };
        let key = config.key(&name)?;
        let header = key.as_ref().and_then(|key| header_of(config.kind, key));
        let client = client(&name, config)?;
        Ok(Some(Self { kind: config.kind, client, paths: Paths::new(config.paths()), base, key, header }))
    }

    /// Where a request goes.
    pub(super) fn uri(&self, asked: &Uri) -> Option<Uri> {
        let prefix = self.base.path().trim_end_matches('/');
        let mut text = format!("{prefix}{}", asked.path());
        let kept = asked.query().unwrap_or_default().split('&').filter(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            !name.is_empty() && !name.contains('%') && !CREDENTIAL_PARAMETERS.contains(&name)
        });
        for (at, parameter) in kept.enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(parameter);
        }
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
        Uri::from_parts(parts).ok()
    }

    /// The headers of a request: the agent's, with the key for whatever it said of itself.
    pub(super) fn headers(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = end_to_end(asked);
        for name in CREDENTIALS {
            headers.remove(name);
        }
        // What is compressed can't be metered.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(self.header.clone());
        headers
    }

    /// The headers of a response.
    pub(super) fn headers_back(&self, answered: &HeaderMap) -> HeaderMap {
        let mut headers = end_to_end(answered);
        headers.remove(header::SET_COOKIE);
        if let Some(length) = answered.get(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, length.clone());
        }
        let key = self.key.as_ref().map_or("", ModelKey::reveal).as_bytes();
        if !key.is_empty() {
            let tells = |value: &HeaderValue| value.as_bytes().windows(key.len()).any(|part| part == key);
            let telling = headers.iter().filter(|(_, value)| tells(value)).map(|(name, _)| name.clone());
            for name in telling.collect::<Vec<_>>() {
                headers.remove(name);
            }
        }
        headers
    }

    /// Takes the key out of a response.
    pub(super) fn scrubber(&self) -> Scrubber {
        Scrubber::new(self.key.as_ref().map_or("", ModelKey::reveal).as_bytes())
    }
}

/// Says the key as that API hears it.
fn header_of(kind: ModelApiKind, key: &ModelKey) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match kind {
        ModelApiKind::None => return None,
        ModelApiKind::Anthropic => ("x-api-key", key.reveal().to_owned()),
        ModelApiKind::Openai => ("authorization", format!("Bearer {}", key.reveal())),
        ModelApiKind::Gemini => ("x-goog-api-key", key.reveal().to_owned()),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_static(name), value))
}

/// Those that are not about one connection.
fn end_to_end(all: &HeaderMap) -> HeaderMap {
    let mut headers = all.clone();
    let named = all.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|names| names.split(',')) {
        headers.remove(name.trim());
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    headers
}

/// Connects, in bounded time.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector>);

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { timeout(CONNECT, connecting).await? })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn upstream(kind: ModelApiKind, url: &str) -> Upstream {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hunter2").unwrap();
        let (url, key_file) = (url.to_owned(), file.path().to_owned());
        Upstream::new("a", &ModelApiConfig { kind, url, key_file, ..ModelApiConfig::default() }).unwrap().unwrap()
    }

    #[test]
    fn requests_go_to_the_model_and_nowhere_else() {
        let uri = |url: &str, asked: &str| {
            upstream(ModelApiKind::Gemini, url).uri(&asked.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(uri("https://a.example", "/v1/m?beta=true"), "https://a.example/v1/m?beta=true");
        assert_eq!(uri("http://a:8/api/", "/v1/m"), "http://a:8/api/v1/m");
        assert_eq!(uri("http://a", "/m?key=k&alt=sse&%6bey=k&access_token=x"), "http://a/m?alt=sse");
        assert_eq!(uri("http://a", "http://evil.example/m?key=k"), "http://a/m");
    }

    #[test]
    fn the_key_takes_the_place_of_what_an_agent_says_of_itself() {
        let asked = [
            ("authorization", "Bearer mine"),
            ("x-api-key", "mine"),
            ("x-goog-api-key", "mine"),
            ("cookie", "mine"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("host", "127.0.0.1:8642"),
            ("accept-encoding", "gzip"),
            ("anthropic-beta", "b"),
            ("content-length", "7"),
        ];
        let asked = asked.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        for (kind, key) in [
            (ModelApiKind::Anthropic, ("x-api-key", "hunter2")),
            (ModelApiKind::Openai, ("authorization", "Bearer hunter2")),
            (ModelApiKind::Gemini, ("x-goog-api-key", "hunter2")),
        ] {
            let headers = upstream(kind, "").headers(&asked);
            let mut shown = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            let mut expected = vec![("accept-encoding", "identity"), ("anthropic-beta", "b"), key];
            assert!(
                shown.all(|header| expected.iter().position(|e| *e == header).map(|at| expected.remove(at)).is_some())
            );
            assert_eq!(expected, []);
            assert!(!format!("{headers:?}").contains("hunter2"));
        }
    }

    #[test]
    fn responses_tell_neither_the_key_nor_cookies() {
        let answered =
            [("x-echo", "Bearer hunter2"), ("set-cookie", "a=b"), ("content-type", "x"), ("content-length", "7")];
        let answered =
            answered.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let headers = upstream(ModelApiKind::Openai, "").headers_back(&answered);
        let mut names = headers.keys().map(HeaderName::as_str).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "content-type"]);
    }
}
