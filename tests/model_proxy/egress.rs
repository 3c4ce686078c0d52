//! Hosts that are granted are reached, others are not.

use std::sync::Arc;

use async_trait::async_trait;
use streamgate::proxy::{Dial, DialError, Internet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Kind, World};

crate::under_both!(granted_hosts_are_reached_and_no_others);

/// Has `granted.example` be somewhere; all else is where it is.
struct Somewhere(u16);

#[async_trait]
impl Dial for Somewhere {
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        match host {
            "granted.example" => TcpStream::connect(("127.0.0.1", self.0)).await.map_err(|_| DialError::Unreachable),
            host => Internet.dial(host, port).await,
        }
    }
}

async fn granted_hosts_are_reached_and_no_others(kind: Kind) {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    let profile = format!(
        "egress = ['granted.example:443', 'localhost:{port}', '127.0.0.1:{port}', '[::ffff:127.0.0.1]:{port}']"
    );
    let world = World::with(kind, &profile, Arc::new(Somewhere(port))).await;
    let (mut shell, channel) = world.start().await;

    // Words of the agent's that come right behind are passed on too.
    shell.tell("CONNECT Granted.Example:443 HTTP/1.1\\r\\nhost: granted.example:443\\r\\n\\r\\nhello").await;
    let (mut stream, _) = host.accept().await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    assert!(shell.line().await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"first\n").await.unwrap();
    shell.until("first").await;
    stream.write_all(b"last\n").await.unwrap();
    drop(stream);
    shell.until("last").await;
    shell.until("<end>").await;

    for (target, why) in [
        (format!("localhost:{port}"), "no public address"),
        (format!("127.0.0.1:{port}"), "no public address"),
        (format!("[::ffff:127.0.0.1]:{port}"), "no public address"),
        ("granted.example:80".to_owned(), "not among the hosts"),
        ("other.example:443".to_owned(), "not among the hosts"),
        ("169.254.169.254:80".to_owned(), "not among the hosts"),
    ] {
        let answer = shell.ask(&format!("CONNECT {target}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(why), "{target}: {answer}");
    }
    let answer = shell.ask("GET /v1/models", "").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("no `model_api`"), "{answer}");
    assert_eq!(world.metric(r#"egress_connections_total{outcome="opened"}"#), 1);
    assert_eq!(world.metric(r#"egress_connections_total{outcome="refused"}"#), 6);

    // What goes through ends with its channel.
    shell.tell("CONNECT granted.example:443 HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n").await;
    let (mut stream, _) = host.accept().await.unwrap();
    shell.until("HTTP/1.1 200").await;
    drop(channel);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    shell.until("<end>").await;
}
