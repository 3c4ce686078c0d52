//! `streamgate health`: one HTTP request, for container health checks in images without curl.

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the whole exchange may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// As much of the answer as is read: the status line is in it.
const ANSWER_BYTES: u64 = 4_096;

/// Succeeds when the gateway at `url` says that it is well.
pub(crate) async fn ask(url: &str) -> anyhow::Result<()> {
    let answer = timeout(DEADLINE, get(url))
        .await
        .with_context(|| format!("no answer from {url} within {DEADLINE:?} — see the gateway's log"))??;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{url} is not well (status {status}) — see the gateway's log");
    }
    Ok(())
}

async fn get(url: &str) -> anyhow::Result<String> {
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL — write http://HOST:PORT"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        bail!("`{url}` is not http://HOST:PORT — ask the gateway itself, not what is before it");
    };
    let host = authority.host().trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)))
        .await
        .with_context(|| format!("nobody answers at {url} — start the gateway with `streamgate`"))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
