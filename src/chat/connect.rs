//! The way to the gateway, and back to it after a break.

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::{HeaderValue, header};
use serde_json::Value;
use streamgate::config::Config;
use streamgate::protocol::SUBPROTOCOL;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// The pause before the first try to come back; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the gateway is, and what is said at its door.
pub(super) struct Gateway {
    url: String,
    request: Request,
}

impl Gateway {
    /// The one at `url`, else that of this configuration.
    pub(super) fn new(url: Option<String>, config: &Config) -> anyhow::Result<Self> {
        let url = url.unwrap_or_else(|| format!("ws://{}", config.local_address()));
        let request = request(&url, &token(config)?)?;
        Ok(Self { url, request })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> anyhow::Result<Socket> {
        let connecting = tokio_tungstenite::connect_async(self.request.clone());
        let url = &self.url;
        match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => {
                bail!("no gateway at {url}: {error} — start one with `streamgate`, or name it by `--url`")
            }
            Err(_) => bail!("no answer from {url} within {CONNECT_DEADLINE:?} — is that the right address?"),
        }
    }
}

/// The request to upgrade.
fn request(url: &str, token: &str) -> anyhow::Result<Request> {
    let how = "write ws://HOST:PORT or wss://HOST";
    let (scheme, rest) = url.split_once("://").with_context(|| format!("`{url}` is no URL — {how}"))?;
    let scheme = match scheme {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => bail!("`{url}` is no address of a gateway — {how}"),
    };
    let host = rest.trim_end_matches('/').trim_end_matches("/v1/stream");
    let mut request = format!("{scheme}://{host}/v1/stream")
        .into_client_request()
        .with_context(|| format!("`{url}` is no address of a gateway — {how}"))?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .context("the token holds what no token does — copy it again")?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(request)
}

fn token(config: &Config) -> anyhow::Result<String> {
    if let Some(token) = std::env::var("STREAMGATE_TOKEN").ok().filter(|token| !token.trim().is_empty()) {
        return Ok(token.trim().to_owned());
    }
    let file = config.data_dir().join("first-token");
    let token = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "no token: STREAMGATE_TOKEN is not set, and {} can't be read — set it to what `streamgate token create \
             --user YOU` prints",
            file.display()
        )
    })?;
    Ok(token.trim().to_owned())
}

/// How long to stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// A moment, so that not all come back at once. The server may name one.
    Moment(Duration),
    /// Longer each time, and at least this long.
    Growing(Duration),
}

impl Pause {
    /// How long this time, after so many tries.
    pub(super) fn jittered(self, tries: u32) -> Duration {
        let (least, spread) = match self {
            Self::Moment(least) => (least, FIRST_PAUSE),
            Self::Growing(least) => (least, FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_PAUSE)),
        };
        least + spread.mul_f64(rand::random())
    }
}

/// What a close code asks of us, by its range; an error when coming back unchanged is no use.
pub(super) fn after_close(close: Option<&CloseFrame>) -> anyhow::Result<Pause> {
    let Some(close) = close else { return Ok(Pause::Growing(Duration::ZERO)) };
    let reason: Value = serde_json::from_str(&close.reason).unwrap_or_default();
    let named = reason["retry_after_ms"].as_u64().map(Duration::from_millis);
    match u16::from(close.code) {
        1000 | 1001 | 1012 | 4200..=4299 => Ok(Pause::Moment(named.unwrap_or_default())),
        4001 => {
            bail!(
                "the gateway refuses the token — set STREAMGATE_TOKEN to one that `streamgate token create` made in the \
                 gateway's directory, or with its `--config`"
            )
        }
        code @ (1002 | 1003 | 1007 | 1009 | 4000..=4099) => {
            bail!("the gateway closed the connection ({code} {}) — this client can't mend that", close.reason)
        }
        _ => Ok(Pause::Growing(named.unwrap_or(Duration::from_secs(1)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str) -> anyhow::Result<Pause> {
        after_close(Some(&CloseFrame { code: code.into(), reason: reason.to_owned().into() }))
    }

    #[test]
    fn close_codes_are_followed_by_their_range() {
        for code in [1000, 1001, 1012, 4200, 4242] {
            assert_eq!(close(code, "").unwrap(), Pause::Moment(Duration::ZERO), "{code}");
        }
        for code in [1011, 1013, 4100, 4102, 4199, 4300] {
            assert_eq!(close(code, "").unwrap(), Pause::Growing(Duration::from_secs(1)), "{code}");
        }
        for code in [1002, 1003, 1007, 1009, 4001, 4003, 4099] {
            assert!(close(code, "").unwrap_err().to_string().contains(" — "), "{code}");
        }
        let named = close(4104, r#"{"code":"too_many_connections","retry_after_ms":5000}"#).unwrap();
        assert_eq!(named, Pause::Growing(Duration::from_secs(5)));
        assert_eq!(after_close(None).unwrap(), Pause::Growing(Duration::ZERO));
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_keep_the_least() {
        for tries in [0, 1, 5, 50] {
            let pause = Pause::Growing(Duration::from_secs(1)).jittered(tries);
            assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(31), "{pause:?}");
        }
    }

    #[test]
    fn a_gateway_can_be_named_in_all_the_usual_ways() {
        for (url, expected) in [
            ("ws://h:1", "ws://h:1/v1/stream"),
            ("http://h:1/", "ws://h:1/v1/stream"),
            ("https://h", "wss://h/v1/stream"),
            ("wss://h/v1/stream", "wss://h/v1/stream"),
        ] {
            assert_eq!(request(url, "rc_1").unwrap().uri().to_string(), expected);
        }
        for bad in ["h:1", "ftp://h", "ws://"] {
            assert!(request(bad, "rc_1").is_err(), "{bad}");
        }
        assert!(!format!("{:?}", request("ws://h", "rc_1").unwrap()).contains("rc_1"));
    }
}
