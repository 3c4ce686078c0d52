//! Connections to the hosts that a profile grants: CONNECT (RFC 9110 §9.3.6). What goes through is not looked at.

mod public;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_util::io::InspectReader;
use tracing::{debug, info};

use self::public::is_public;
use super::answer::{Body, connected, forbid, refuse, too_many};
use super::door::Door;
use crate::metrics::EgressOutcome;

/// How long a name may take to be looked up, and its addresses to be connected to.
const DIAL: Duration = Duration::from_secs(15);
/// How long an agent may take to hear that it is connected.
const UPGRADE: Duration = Duration::from_secs(10);
/// How long a connection may be silent, and how long it may last.
const SILENCE: Duration = Duration::from_mins(5);
const LIFE: Duration = Duration::from_hours(6);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// How granted hosts are reached.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Connects to a host that is granted.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError>;
}

/// Why a granted host is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It has no address that agents may reach.
    #[error("the host has no public address")]
    NotPublic,
    /// It has no address, or does not answer there.
    #[error("the host can't be reached")]
    Unreachable,
}

/// By the system's resolver, to public addresses alone: what is granted is a name, and whoever owns it may point it
/// at the gateway's own network.
#[derive(Clone, Copy, Debug)]
pub struct Internet;

#[async_trait]
impl Dial for Internet {
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let found = lookup_host((host, port)).await.map_err(|_| DialError::Unreachable)?;
        // Those that were looked at are those that are connected to: the name is not looked up again.
        for address in fit(found)? {
            if let Ok(stream) = TcpStream::connect(address).await {
                return Ok(stream);
            }
        }
        Err(DialError::Unreachable)
    }
}

/// The addresses that may be connected to.
fn fit(found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, DialError> {
    let fit = found.filter(|address| is_public(address.ip())).take(ADDRESSES).collect::<Vec<_>>();
    if fit.is_empty() { Err(DialError::NotPublic) } else { Ok(fit) }
}

/// Answers a CONNECT.
pub(super) async fn connect(door: &Door, mut request: Request<Incoming>) -> Response<Body> {
    let authority = request.uri().authority().cloned();
    let target = authority.as_ref().and_then(|authority| Some((authority.host(), authority.port_u16()?)));
    let refused = |response| {
        door.metrics.egress(EgressOutcome::Refused);
        response
    };
    let Some((host, port)) = target else {
        return refused(refuse(StatusCode::BAD_REQUEST, "invalid_request_error", "CONNECT names a host and a port"));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    if !door.route.granted.iter().any(|(granted, at)| *granted == host && *at == port) {
        return refused(forbid(&format!("{host}:{port} is not among the hosts that this agent's profile grants")));
    }
    let Ok(place) = Arc::clone(&door.places.tunnels).try_acquire_owned() else {
        return refused(too_many("too many connections of this agent are open"));
    };
    let stream = match timeout(DIAL, door.dial.dial(&host, port)).await.unwrap_or(Err(DialError::Unreachable)) {
        Ok(stream) => stream,
        Err(DialError::NotPublic) => {
            info!("`{host}` is granted to profile `{}`, but has no public address", door.route.slug);
            return refused(forbid(&format!("{host} has no public address")));
        }
        Err(DialError::Unreachable) => {
            door.metrics.egress(EgressOutcome::Unreachable);
            return refuse(StatusCode::BAD_GATEWAY, "api_error", &format!("{host}:{port} can't be reached"));
        }
    };
    door.metrics.egress(EgressOutcome::Opened);
    let (upgrade, closing) = (hyper::upgrade::on(&mut request), door.closing.clone());
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = tunnel(upgrade, stream) => debug!("A connection to `{host}` is over"),
            () = closing.cancelled() => (),
        }
    });
    connected()
}

/// Passes bytes both ways until both have ended, or nothing moves.
async fn tunnel(upgrade: OnUpgrade, stream: TcpStream) {
    let Ok(Ok(agent)) = timeout(UPGRADE, upgrade).await else { return };
    let moved = AtomicU64::new(0);
    let (agent_reads, agent_writes) = split(TokioIo::new(agent));
    let (host_reads, host_writes) = stream.into_split();
    let both = async { tokio::join!(pass(agent_reads, host_writes, &moved), pass(host_reads, agent_writes, &moved)) };
    let silent = async {
        let mut seen = 0;
        loop {
            sleep(SILENCE).await;
            match moved.load(Ordering::Relaxed) {
                now if now == seen => return,
                now => seen = now,
            }
        }
    };
    tokio::select! {
        _ = both => (),
        () = silent => (),
        () = sleep(LIFE) => (),
    }
}

async fn pass(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &AtomicU64) {
    let mut from = InspectReader::new(from, |bytes| {
        moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    // However it ended: the other side hears of it.
    let _ = copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in
            ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "::1", "::ffff:127.0.0.1", "0.0.0.0"]
        {
            let error = Internet.dial(host, port).await.unwrap_err();
            assert!(error == DialError::NotPublic || error == DialError::Unreachable, "{host}: {error}");
        }
        assert_eq!(Internet.dial("localhost", port).await.unwrap_err(), DialError::NotPublic);
    }

    #[test]
    fn of_several_addresses_only_public_ones_are_tried() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse::<SocketAddr>().unwrap()).collect::<Vec<_>>();
        let mixed = all(&["10.0.0.1:443", "151.101.0.223:443", "[::ffff:169.254.169.254]:443"]);
        assert_eq!(fit(mixed.into_iter()), Ok(all(&["151.101.0.223:443"])));
        assert_eq!(fit(all(&["192.168.1.1:443"]).into_iter()), Err(DialError::NotPublic));
    }
}
